//! A step of a build: a program on layers, in a container that no command knows of.
//!
//! It has an ID, a directory and a specification like every container, but neither record nor monitor: the process that
//! holds the [`Step`] is its parent, and what it changed is gone with it unless [`Step::write_layer`] was called. An
//! intent (see [`crate::records`]) makes the next command clean up after a process that was killed.
//!
//! ```text
//! ROOT/containers/ID/   upper/ work/ rootfs/ hosts resolv.conf; no container.json, so that nobody lists it
//! ```

use std::cell::RefCell;
use std::fs;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use hull_cgroup::Driver;
use hull_image::snapshot::Lower;
use hull_image::snapshot::merged::{Found, Merged};
use hull_layer::tar::walk;
use hull_layer::tar::{Writer, WriterOptions};
use hull_oci::Digest;
use hull_oci::spec::{Mount, Spec};
use hull_runtime::state::Record;
use hull_runtime::{CreateOptions, Running, Streams};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags};

use crate::config::{RunConfig, SeccompChoice, Source, UserChoice};
use crate::diff::{self, ChangeKind, Changes, is_changed};
use crate::error::Error;
use crate::network::Reach;
use crate::normalise::{Normalised, Normaliser};
use crate::records::{Container, Engine, Intent, Work, now, own_pid};
use crate::rootfs::{self, Files};
use crate::spec::{self, Context};
use crate::{cdi, commit, machine, names, users};

pub use hull_layer::tar::walk::Report;

/// Symbolic links followed in the path of a mount.
const MAX_LINKS: usize = 40;

/// Writes of this size go out.
const BUFFER: usize = 256 << 10;

/// `umask` of a step.
const UMASK: u32 = 0o022;

/// A mount of a step beside those that every container has.
#[derive(Debug)]
pub struct StepMount {
    /// Destination, type and options; the source of a tree is filled in.
    pub mount: Mount,
    /// What is mounted, attached nowhere; absent for a file system that `mount` describes.
    pub tree: Option<OwnedFd>,
}

/// A container of a step, from its directory to its end.
#[derive(Debug)]
pub struct Step<'e> {
    engine: &'e Engine,
    id: String,
    intent: Option<Intent>,
    directory: PathBuf,
    lower: Option<Lower>,
    networked: bool,
    private_users: bool,
    running: Option<Running>,
    reach: Reach,
    /// Where something is mounted, without leading slash, links of the image followed.
    targets: Vec<PathBuf>,
}

/// What a [`Step`] was woken by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The program has ended, and with it everything that it started.
    Ended {
        /// Its exit code; 128 and the signal's number if it was killed.
        code: i32,
        /// For want of memory.
        out_of_memory: bool,
    },
    /// One of the descriptors that was passed can be read, or is closed at its other end.
    Ready(usize),
}

impl Engine {
    /// Opens layers of the store, lowest first.
    ///
    /// # Errors
    /// When one is not there or cannot be mounted.
    pub fn open_layers(&self, layers: &[Digest]) -> Result<Lower, Error> {
        Ok(Lower::open(&self.root().join("layers"), &self.mounts(), layers.iter().map(Digest::hex))?)
    }

    /// The files of layers as a mount that is attached nowhere: read-only, or with a writable layer (`upper`, `work`:
    /// empty directories of one file system).
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn mount_layers(&self, lower: &Lower, writable: Option<(&Path, &Path)>) -> Result<OwnedFd, Error> {
        let mut layers = lower.layers().to_vec();
        // An overlay without writable layer has at least two others.
        layers.push(Arc::new(self.empty()?));
        if layers.len() == 1 {
            layers.push(Arc::new(rootfs::open_directory(&self.empty_twin()?)?));
        }
        match writable {
            None => rootfs::overlay(&layers),
            Some((upper, work)) => {
                rootfs::copy_root_attributes(lower.layers(), upper)?;
                rootfs::overlay_above(&layers, upper, work)
            }
        }
    }

    fn empty_twin(&self) -> Result<PathBuf, Error> {
        let path = self.state_root().join("empty-twin");
        fs::create_dir_all(&path).map_err(Error::io("create directory", &path))?;
        Ok(path)
    }

    /// Takes an ID for a step and makes its directory.
    ///
    /// # Errors
    /// When it cannot be made; nothing is left then.
    pub fn step(&self) -> Result<Step<'_>, Error> {
        let id = names::hex(&names::random()?);
        let intent = Some(self.intend(&id, Work::Create)?);
        let directory = self.directory(&id);
        let step = Step {
            engine: self,
            directory,
            intent,
            id,
            lower: None,
            networked: false,
            private_users: false,
            running: None,
            reach: Reach::default(),
            targets: Vec::new(),
        };
        crate::records::create_private(&step.directory)?;
        for part in ["upper", "work", "rootfs"] {
            step.subdirectory(part)?;
        }
        Ok(step)
    }
}

impl Step<'_> {
    /// Makes a directory that goes with the step.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.directory.join(name);
        fs::create_dir(&path).map_err(Error::io("create directory", &path))?;
        Ok(path)
    }

    /// Starts the program: `config` says everything but the root file system, which is made of `layers`, lowest first.
    /// The calling process must have a single thread.
    ///
    /// # Errors
    /// Any [`Error`]; [`Self::finish`] then removes what was made.
    pub fn start(
        &mut self,
        mut config: RunConfig,
        layers: &[Digest],
        mounts: Vec<StepMount>,
        stdio: [OwnedFd; 3],
        warn: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        let engine = self.engine;
        let lower = engine.open_layers(layers)?;
        let merged = lower.merged();
        rootfs::copy_root_attributes(lower.layers(), &self.directory.join("upper"))?;
        config.source = Source::Image(String::new());
        let mut context = Context {
            id: self.id.clone(),
            rootfs: self.directory.join("rootfs").to_string_lossy().into_owned(),
            ..Context::default()
        };
        self.lower = Some(lower);
        context.user = Files::Layers(merged.clone()).user(&config, "")?;
        context.user.umask = Some(UMASK);
        machine::probe(&config, &mut context)?;
        if config.namespaces.user == UserChoice::Private {
            context.first_id = Some(engine.block(&self.id)?);
            self.private_users = true;
        }
        let container = self.container(config);
        let config = &container.config;
        let plan = engine.plan_network(&container, &hull_image::Config::default())?;
        self.networked = plan.is_some();
        let settings = engine.write_name_files(&container, plan.as_ref(), &self.directory)?;
        let generated = ["hosts", "resolv.conf"].into_iter().filter(|name| self.directory.join(name).exists());
        context.files = generated
            .map(|name| (self.directory.join(name).to_string_lossy().into_owned(), format!("/etc/{name}")))
            .collect();
        let mut spec = spec::spec(config, &context)?;
        if let Some(process) = &mut spec.process {
            process.env = environment(&config.env);
        }
        cdi::inject(&mut spec, &config.cdi, &cdi::DIRECTORIES)?;
        if self.private_users {
            users::bind_devices(&mut spec);
        }
        let trees = add_mounts(&mut spec, mounts);
        open_tmpfs(&mut spec, &merged);
        self.targets = spec.mounts.iter().filter_map(|mount| follow(&merged, &mount.destination)).collect();
        let builtin = matches!(config.security.seccomp, SeccompChoice::Builtin) && !config.security.privileged;
        let filter = builtin.then(|| hull_seccomp::default_filter(&spec::capabilities(config, &context.available)));
        let options = CreateOptions {
            id: self.id.clone(),
            bundle: self.directory.clone(),
            root: engine.oci_root(),
            rootfs: engine.overlay(self.lower.as_ref(), self.directory.join("upper"), &self.directory, true)?,
            trees,
            streams: Streams { stdio: Some(stdio), ..Streams::default() },
            cgroup_driver: Driver::Cgroupfs,
            no_pivot: false,
            no_new_keyring: false,
            signals_blocked: false,
            filter,
        };
        let created = hull_runtime::create(spec, options)?;
        created.warnings().iter().for_each(|warning| warn(warning));
        if let Some(plan) = plan {
            self.reach = engine.join_network(&container, plan, settings, created.pid(), warn)?;
        }
        self.running = Some(created.start()?);
        engine.images.close();
        Ok(())
    }

    /// What the parts of the engine that know containers are told of the step.
    fn container(&self, config: RunConfig) -> Container {
        Container {
            name: format!("build-{}", &self.id[..12]),
            created: now(),
            image_id: String::new(),
            args: config.command.clone(),
            stop_signal: 15,
            id: self.id.clone(),
            config,
        }
    }

    /// Waits until the program has ended, or one of `others` can be read. Names are resolved meanwhile.
    ///
    /// # Errors
    /// When it does not run, or waiting fails.
    pub fn watch(&mut self, others: &[BorrowedFd<'_>]) -> Result<Woken, Error> {
        let not_running =
            || Error::Status { operation: "watch", id: self.id.clone(), status: "not running".to_owned() };
        let running = self.running.as_ref().ok_or_else(not_running)?;
        loop {
            let resolver = &mut self.reach.resolver;
            let mut list = vec![PollFd::new(&running.pidfd, PollFlags::IN)];
            list.extend(others.iter().map(|other| PollFd::from_borrowed_fd(*other, PollFlags::IN)));
            list.extend(resolver.iter().map(|resolver| PollFd::from_borrowed_fd(resolver.fd(), PollFlags::IN)));
            let deadline = resolver.as_ref().and_then(hull_network::dns::Resolver::deadline);
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            match rustix::event::poll(&mut list, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::io("wait for", &self.id)(errno)),
            }
            let ready: Vec<bool> = list.iter().map(|one| !one.revents().is_empty()).collect();
            drop(list);
            if let Some(resolver) = resolver {
                resolver.on_ready(Instant::now());
            }
            if ready[0] {
                let code = running.wait()?;
                let record = Record::load(&self.engine.oci_root(), &self.id);
                let out_of_memory = record.is_ok_and(|record| record.cgroup.oom_kills() > 0);
                self.running = None;
                return Ok(Woken::Ended { code, out_of_memory });
            }
            if let Some(index) = ready[1..].iter().take(others.len()).position(|ready| *ready) {
                return Ok(Woken::Ready(index));
            }
        }
    }

    /// What the step changed in its layers, as a layer: sorted, without what only serves as a place of a mount, and with
    /// times no later than `epoch`. With a `seed`, which stands for what the step is made of, what differs each time is
    /// normalised ([`crate::normalise`]). `None`, and nothing is written, if it changed nothing.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn write_layer(
        &self,
        epoch: Option<i64>,
        seed: Option<&str>,
        output: impl FnOnce() -> Result<Box<dyn Write>, Error>,
    ) -> Result<Option<(Report, Vec<Normalised>)>, Error> {
        let layers = self.lower.as_ref().map_or_else(Vec::new, |lower| lower.layers().to_vec());
        let path = self.directory.join("upper");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let upper = rustix::fs::open(&path, flags, Mode::empty()).map_err(Error::io("open", &path))?;
        // Most steps that change nothing leave nothing there.
        if fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none()) {
            return Ok(None);
        }
        let copy = upper.try_clone().map_err(Error::io("open", &path))?;
        let mut changes = diff::compare(copy, Merged::new(layers))?;
        self.targets.iter().for_each(|target| forget_target(&mut changes, &path, target));
        if changes.is_empty() {
            return Ok(None);
        }
        let exclude = |path: &[u8]| !is_changed(&changes, path);
        let normaliser = epoch.zip(seed).map(|(epoch, seed)| RefCell::new(Normaliser::new(epoch, seed)));
        let amend = |path: &[u8], file: &fs::File, size: u64| match &normaliser {
            Some(normaliser) => normaliser.borrow_mut().amend(path, file, size),
            None => Ok(walk::Amended::Same),
        };
        let options = walk::Options {
            upper: Some(commit::marks()),
            exclude: Some(&exclude),
            amend: Some(&amend),
            ..walk::Options::default()
        };
        let settings = WriterOptions { clamp_mtime: epoch, whole_seconds: true };
        let mut writer = Writer::with_options(BufWriter::with_capacity(BUFFER, output()?), settings);
        let report = walk::write_directory(&mut writer, upper.as_fd(), &options)?;
        let finish = writer.finish().and_then(|mut output| output.flush());
        finish.map_err(hull_layer::Error::file("write", "layer"))?;
        let done = normaliser.map(|normaliser| normaliser.into_inner().finish()).unwrap_or_default();
        Ok(Some((report, done)))
    }

    /// Ends whatever runs, and removes everything of the step.
    ///
    /// # Errors
    /// The first thing that could not be removed; the intent stays for the next command then.
    pub fn finish(mut self) -> Result<(), Error> {
        self.undo()
    }

    fn undo(&mut self) -> Result<(), Error> {
        let Some(intent) = self.intent.take() else { return Ok(()) };
        if let Some(running) = self.running.take() {
            let _ = hull_sys::signal::pidfd_send_signal(running.pidfd.as_fd(), 9);
            let _ = running.wait();
        }
        self.reach = Reach::default();
        let mut result = match hull_runtime::lifecycle::delete(&self.engine.oci_root(), &self.id, true) {
            Ok(_) | Err(hull_runtime::Error::NoContainer(_)) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if self.networked {
            result = result.and(self.engine.leave_network(&self.id));
        }
        if let Some(lower) = self.lower.take() {
            result = result.and(lower.release().map_err(Error::from));
        }
        if self.private_users {
            self.engine.release_block(&self.id);
        }
        result = result.and(match self.engine.erase_files(&self.id, false) {
            Err(Error::NoContainer(_)) => Ok(()),
            other => other,
        });
        if result.is_ok() { intent.clear() } else { result }
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        // What cannot be undone stays behind its intent.
        let _ = self.undo();
    }
}

/// The step's own variables alone: what they are must not depend on the container.
fn environment(own: &[String]) -> Vec<String> {
    let mut list: Vec<String> = vec![spec::PATH.to_owned()];
    for variable in own {
        let name = variable.split('=').next();
        match list.iter_mut().find(|one| one.split('=').next() == name) {
            Some(present) => present.clone_from(variable),
            None => list.push(variable.clone()),
        }
    }
    list
}

/// Adds the step's mounts, those above before those below; one of ours gives way to one of the step's.
fn add_mounts(spec: &mut Spec, mut mounts: Vec<StepMount>) -> Vec<(usize, OwnedFd)> {
    mounts.sort_by_key(|one| one.mount.destination.matches('/').count());
    spec.mounts.retain(|one| mounts.iter().all(|other| other.mount.destination != one.destination));
    let mut trees = Vec::new();
    for StepMount { mut mount, tree } in mounts {
        if let Some(tree) = tree {
            mount.source = format!("/proc/{}/fd/{}", own_pid(), tree.as_raw_fd());
            trees.push((spec.mounts.len(), tree));
        }
        spec.mounts.push(mount);
    }
    trees
}

/// Everybody may write to a file system in memory whose place is only made for it.
fn open_tmpfs(spec: &mut Spec, merged: &Merged) {
    let ours = |mount: &Mount| mount.source != "tmpfs" || mount.destination == "/dev";
    for mount in spec.mounts.iter_mut().filter(|mount| mount.kind == "tmpfs" && !ours(mount)) {
        let there = follow(merged, &mount.destination).is_some_and(|path| matches!(merged.find(&path), Ok(Some(_))));
        if !there && !mount.options.iter().any(|option| option.starts_with("mode=")) {
            mount.options.push("mode=1777".to_owned());
        }
    }
}

/// Where a path of the container leads in its layers; what is missing of it is taken literally. `None` for a loop.
fn follow(merged: &Merged, path: &str) -> Option<PathBuf> {
    let mut links = 0;
    let mut found = PathBuf::new();
    let names = |path: &Path| -> Vec<PathBuf> {
        let parts = path.components().rev();
        let kept = parts.filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
        kept.map(|part| PathBuf::from(part.as_os_str())).collect()
    };
    let mut pending = names(Path::new(path));
    while let Some(name) = pending.pop() {
        if name == Path::new("..") {
            found.pop();
            continue;
        }
        found.push(&name);
        let Ok(Some(Found::Other(file, stat))) = merged.find(&found) else { continue };
        if FileType::from_raw_mode(stat.st_mode).is_symlink() {
            links += 1;
            let target = rustix::fs::readlinkat(&file, c"", Vec::new()).ok()?;
            if links > MAX_LINKS {
                return None;
            }
            found.pop();
            let target = PathBuf::from(std::ffi::OsString::from(target.to_string_lossy().into_owned()));
            if target.is_absolute() {
                found = PathBuf::new();
            }
            pending.extend(names(&target));
        }
    }
    Some(found)
}

/// Takes a directory or an empty file that was only made to mount on out of the changes, and with it those above that
/// changed for nothing else.
fn forget_target(changes: &mut Changes, upper: &Path, target: &Path) {
    if changes.get(target) != Some(&ChangeKind::Added) {
        return;
    }
    let is_place = |metadata: &fs::Metadata| metadata.is_dir() || metadata.is_file() && metadata.size() == 0;
    // The program has ended: nobody changes the directory any more.
    if !fs::symlink_metadata(upper.join(target)).is_ok_and(|metadata| is_place(&metadata)) {
        return;
    }
    for path in target.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        let below = |changes: &Changes| {
            changes.range(path.to_path_buf()..).nth(1).is_some_and(|(next, _)| next.starts_with(path))
        };
        if changes.contains_key(path) && below(changes) {
            return;
        }
        changes.remove(path);
    }
}

/// Copies files from one tree to an empty directory, owners and modes included, as far as the machine's user may.
///
/// # Errors
/// When something cannot be read or made.
pub fn copy_files(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Error> {
    use crate::copy::place::{Existing, Policy, Users};
    let policy = Policy {
        existing: Existing::Keep,
        owners: true,
        devices: false,
        raw: false,
        owner: None,
        users: Users { from: 0, to: 0 },
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let to = rustix::fs::openat(to, c".", flags, Mode::empty()).map_err(Error::io("open", "directory"))?;
    crate::copy::contents(from, to.as_fd(), policy).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(list: &[(&str, ChangeKind)]) -> Changes {
        list.iter().map(|(path, kind)| (PathBuf::from(path), *kind)).collect()
    }

    #[test]
    fn places_of_mounts_are_no_changes() {
        use ChangeKind::{Added, Changed};
        let upper = tempfile::tempdir().unwrap();
        fs::create_dir_all(upper.path().join("run/secrets")).unwrap();
        fs::write(upper.path().join("run/secrets/key"), "").unwrap();
        fs::write(upper.path().join("run/other"), "x").unwrap();
        let target = Path::new("run/secrets/key");
        let mut all = changes(&[("run", Changed), ("run/secrets", Added), ("run/secrets/key", Added)]);
        forget_target(&mut all, upper.path(), target);
        assert_eq!(all, changes(&[]));
        let mut all =
            changes(&[("run", Changed), ("run/other", Added), ("run/secrets", Added), ("run/secrets/key", Added)]);
        forget_target(&mut all, upper.path(), target);
        assert_eq!(all, changes(&[("run", Changed), ("run/other", Added)]));
        // What the program wrote stays.
        fs::write(upper.path().join("run/secrets/key"), "x").unwrap();
        let before = changes(&[("run", Changed), ("run/secrets", Added), ("run/secrets/key", Added)]);
        let mut all = before.clone();
        forget_target(&mut all, upper.path(), target);
        assert_eq!(all, before);
    }

    #[test]
    fn variables_are_the_steps_own() {
        assert_eq!(environment(&[]), [spec::PATH]);
        assert_eq!(environment(&["PATH=/x".into(), "A=1".into(), "A=2".into()]), ["PATH=/x", "A=2"]);
    }
}
