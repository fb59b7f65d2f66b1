//! What is known about containers, on disk.
//!
//! ```text
//! ROOT/containers/              0700, survives reboots
//! ├─ ID/                        the bundle
//! │  ├─ container.json          what was asked for; replaced by rename under the lock
//! │  ├─ state.json              where the container is in its life; replaced by rename; one that is removed at
//! │  │                          its end has none before it has started
//! │  ├─ stopping                somebody wants it to end: why it is not started again
//! │  ├─ with-volumes            its anonymous volumes go with it
//! │  ├─ lock                    held by who starts, removes or changes it
//! │  ├─ exit                    exit code, written in place: whoever waits holds it open, even past removal
//! │  ├─ container.log           its output; container.log.N and .N.gz are older
//! │  ├─ health.json             its last health checks
//! │  ├─ upper/ work/ rootfs/    writable layer, and where the overlay is mounted in the container's namespace
//! │  └─ hostname hosts ...      files bound into the container
//! └─ .removing-ID               a removal that runs or was killed
//! ROOT/names/NAME               symbolic link to the ID
//! ROOT/events/log               what happened; log.1 is older
//! STATE/live/ID.KIND.PID.START  intent: process PID, started at START, works on the container
//! STATE/attach/ID               socket of its monitor
//! STATE/paused/ID               it was paused, and may be so still
//! STATE/oci/ID/                 the runtime's own record
//! STATE/mounts/HEX              who lends the mount of a layer; see `hull_image::snapshot::shared`
//! STATE/skeleton/ STATE/empty/  see `rootfs`
//! ROOT/mounted/                 see `image_mount`
//! ROOT/volumes/                 see `volumes`
//! ```
//!
//! Each container is independent of all others, so files replaced by rename need no lock; a name is taken by making its
//! link, which only one can. **An intent is written before anything is made and removed after everything is undone.**
//! Its owner is the process that runs the container (the monitor), or one that removes it. [`Engine::repair`], which
//! every command calls first, finishes what dead owners left: one look at a directory that is empty on an idle machine.

mod gone;
mod kept;
mod look;
mod repair;
mod state;

pub use gone::Removal;
pub use repair::LOOKING;

use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hull_fs::lock::Lock;
use hull_image::Store;
use hull_oci::Digest;
use hull_runtime::state::process_start_time;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::{RunConfig, UserChoice};
use crate::error::Error;
use crate::rootfs;

const MAX_RECORD_BYTES: u64 = 8 << 20;

/// In the directory of a container that is removed with its anonymous volumes.
const WITH_VOLUMES: &str = "with-volumes";

/// What was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Given or generated.
    pub name: String,
    /// Nanoseconds since 1970.
    pub created: u64,
    /// ID of the image; empty for a plain directory.
    pub image_id: String,
    /// Program and arguments as they were run.
    pub args: Vec<String>,
    /// Everything from the flags.
    pub config: RunConfig,
    /// Signal of `stop`.
    pub stop_signal: i32,
}

/// Where a container is in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What it does.
    pub phase: Phase,
    /// First process; 0 unless it runs.
    pub pid: i32,
    /// Start time of that process in clock ticks since boot.
    pub pid_start: u64,
    /// The process that looks after the container; 0 once there is none.
    pub monitor: i32,
    /// Its start time.
    pub monitor_start: u64,
    /// Exit code once it has ended.
    pub exit_code: i32,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// Why it could not start, or was lost.
    pub error: String,
    /// Nanoseconds since 1970; 0 if it never started.
    pub started: u64,
    /// Nanoseconds since 1970; 0 unless it has ended.
    pub finished: u64,
    /// How often its policy has restarted it since it was started by hand.
    pub restarts: u32,
}

/// The phases of a container's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It has a record and no process.
    #[default]
    Created,
    /// Its program runs.
    Running,
    /// Its program has ended and is started again soon.
    Restarting,
    /// Its program has ended.
    Exited,
}

impl Phase {
    /// Docker's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }
}

/// The two directories that everything is in, and the images.
#[derive(Clone, Debug)]
pub struct Engine {
    root: PathBuf,
    state: PathBuf,
    /// The image store.
    pub images: Store,
    /// Sockets for programs that are started.
    pub(crate) sockets: Sockets,
    /// The processes that [`Engine::repair`] has just seen alive.
    seen: Arc<repair::Seen>,
    /// What was read before, in a process that answers many.
    kept: Option<Arc<kept::Kept>>,
}

/// Sockets that this process was started with and containers get: descriptors from 3 on, as `sd_listen_fds(3)` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sockets {
    /// How many.
    pub count: u32,
    /// Their names, separated by colons, if they have any.
    pub names: Option<String>,
}

impl Sockets {
    /// Those that are meant for this very process.
    #[must_use]
    pub fn of_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let meant = variable("LISTEN_PID").is_some_and(|pid| pid == own_pid().to_string());
        let count = variable("LISTEN_FDS").and_then(|count| count.parse().ok()).filter(|count| *count < 1024);
        match count {
            Some(count) if meant => Self { count, names: variable("LISTEN_FDNAMES") },
            _ => Self::default(),
        }
    }

    /// What a program is told of them.
    pub(crate) fn variables(&self) -> Vec<String> {
        if self.count == 0 {
            return Vec::new();
        }
        let mut list = vec![format!("LISTEN_FDS={}", self.count), "LISTEN_PID=1".to_owned()];
        list.extend(self.names.iter().map(|names| format!("LISTEN_FDNAMES={names}")));
        list
    }
}

/// An intent on disk; see the module's documentation.
#[derive(Debug)]
pub(crate) struct Intent {
    path: PathBuf,
}

impl Intent {
    /// The intent that this process has already left.
    pub(crate) fn of(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Everything is done or undone.
    pub(crate) fn clear(self) -> Result<(), Error> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &self.path)(error)),
            _ => Ok(()),
        }
    }
}

/// The files of a container that is no more. A process that is killed before they are gone leaves its intent, by which the
/// next command finds them.
#[derive(Debug)]
#[must_use = "the files stay until they are removed"]
pub(crate) struct Removed(PathBuf);

impl Removed {
    /// Removes them, which may take a while: file systems wait for the disk when they free blocks.
    pub(crate) fn finish(self) -> Result<(), Error> {
        hull_image::remove_tree(&self.0).map_err(Error::io("remove", &self.0))
    }
}

/// What an intent's owner was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Make a record.
    Create,
    /// Make a record, start it, and watch it.
    Run,
    /// Start what has a record, and watch it.
    Start,
    /// Use a container that is nothing without this process; beside the monitor's own.
    Tied,
    Remove,
}

/// Why a container is made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// For good: its restart policy is not asked.
    Stop,
    /// To be started again by whoever stops it: it is not removed either.
    Restart,
    /// The machine goes down; nobody wanted it to end for ever.
    Shutdown,
}

impl Work {
    fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Run => "run",
            Self::Start => "start",
            Self::Tied => "tied",
            Self::Remove => "remove",
        }
    }
}

/// `ID.KIND.PID.START`.
fn parse_intent(name: &str) -> Option<(&str, Work, i32, u64)> {
    let mut parts = name.split('.');
    let (id, kind, pid, start) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let work = match kind {
        "create" => Work::Create,
        "run" => Work::Run,
        "start" => Work::Start,
        "tied" => Work::Tied,
        "remove" => Work::Remove,
        _ => return None,
    };
    (parts.next().is_none() && is_id(id)).then_some(())?;
    Some((id, work, pid.parse().ok()?, start.parse().ok()?))
}

/// Under which a container holds its image.
fn owner(id: &str) -> String {
    format!("container:{id}")
}

pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn alive(pid: i32, start: u64) -> bool {
    pid > 0 && process_start_time(pid) == Some(start)
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

pub(crate) fn create_private(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("create directory", path))
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    // One read for nearly every record, however many there are.
    let mut bytes = Vec::with_capacity(8 << 10);
    let file = fs::File::open(path).map_err(Error::io("open", path))?;
    file.take(MAX_RECORD_BYTES).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Record { path: path.display().to_string(), source })
}

pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes =
        serde_json::to_vec(value).map_err(|source| Error::Record { path: path.display().to_string(), source })?;
    Ok(hull_fs::atomic::write_path(path, &bytes, 0o600)?)
}

impl Engine {
    /// The engine over these directories; nothing is made until something is kept.
    #[must_use]
    pub fn new(root: PathBuf, state: PathBuf) -> Self {
        let images = Store::new(&root);
        Self { root, state, images, sockets: Sockets::default(), seen: Arc::default(), kept: None }
    }

    /// Containers that are started get these.
    #[must_use]
    pub fn with_sockets(mut self, sockets: Sockets) -> Self {
        self.sockets = sockets;
        self
    }

    /// What is read of containers and images is kept, and looked at whether it is still so before it is used again: for
    /// processes that answer many requests.
    #[must_use]
    pub fn keeping(mut self) -> Self {
        self.kept = Some(Arc::default());
        self.images = self.images.keeping();
        self
    }

    /// Gives up what is kept.
    pub fn forget(&self) {
        if let Some(kept) = &self.kept {
            kept.retain(|_| false);
        }
        self.images.forget();
    }

    /// The runtime's state root.
    #[must_use]
    pub fn oci_root(&self) -> PathBuf {
        self.state.join("oci")
    }

    /// Directory of persistent data.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory of runtime state.
    #[must_use]
    pub fn state_root(&self) -> &Path {
        &self.state
    }

    fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    fn live(&self) -> PathBuf {
        self.state.join("live")
    }

    /// A container's directory.
    #[must_use]
    pub fn directory(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// What a container's directory is called while it is removed.
    fn leaving(&self, id: &str) -> PathBuf {
        self.containers().join(format!(".removing-{id}"))
    }

    /// Declares that this process works on a container.
    pub(crate) fn intend(&self, id: &str, work: Work) -> Result<Intent, Error> {
        let live = self.live();
        create_private(&live)?;
        let pid = own_pid();
        let start = process_start_time(pid).unwrap_or(0);
        let path = live.join(format!("{id}.{}.{pid}.{start}", work.word()));
        fs::File::create_new(&path).map_err(Error::io("create", &path))?;
        Ok(Intent { path })
    }

    /// Keeps a container's image from being removed; before it starts.
    pub(crate) fn hold_image(&self, id: &str, image: &Digest) -> Result<(), Error> {
        Ok(self.images.hold(&owner(id), image)?)
    }

    /// Makes a container's directory, takes its name, and writes what was asked for.
    pub(crate) fn register(&self, container: &Container, layers: Option<&[Arc<OwnedFd>]>) -> Result<PathBuf, Error> {
        let directory = self.directory(&container.id);
        create_private(&directory)?;
        for part in ["upper", "work", "rootfs"] {
            let path = directory.join(part);
            fs::create_dir(&path).map_err(Error::io("create directory", &path))?;
        }
        // The writable layer's root is the container's `/`.
        rootfs::copy_root_attributes(layers.unwrap_or_default(), &directory.join("upper"))?;
        state::create_exit(&directory)?;
        write(&directory.join("container.json"), container)?;
        if !container.config.remove {
            // Room for how it ends, which a full disk must not lose.
            write(&directory.join("state.json"), &State::default())?;
        }
        self.take_name(container)?;
        Ok(directory)
    }

    /// Makes a container's directory ready for another start.
    pub(crate) fn renew(&self, container: &Container) -> Result<PathBuf, Error> {
        let directory = self.directory(&container.id);
        // Overlayfs refuses a work directory of an earlier mount that left syncing out.
        let work = directory.join("work");
        for part in ["rootfs", "work"] {
            let path = directory.join(part);
            if part == "work" && path.exists() {
                hull_image::remove_tree(&path).map_err(Error::io("remove", &path))?;
            }
            match fs::create_dir(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("create directory", &path)(error));
                }
                _ => {}
            }
        }
        rustix::fs::chmod(&work, rustix::fs::Mode::from_raw_mode(0o755)).map_err(Error::io("change mode of", &work))?;
        // A new file: whoever waited for the last end keeps the old one.
        let _ = fs::remove_file(directory.join("exit"));
        state::create_exit(&directory)?;
        Ok(directory)
    }

    /// Excludes others that start, remove or change a container.
    pub(crate) fn lock(&self, id: &str) -> Result<Lock, Error> {
        let directory = self.directory(id);
        if !directory.exists() {
            return Err(Error::NoContainer(id.to_owned()));
        }
        let lock = match Lock::exclusive(&directory.join("lock")) {
            Ok(lock) => lock,
            Err(error) if error.is_not_found() => return Err(Error::NoContainer(id.to_owned())),
            Err(error) => return Err(error.into()),
        };
        // Whoever held the lock may have removed it.
        if directory.join("container.json").exists() { Ok(lock) } else { Err(Error::NoContainer(id.to_owned())) }
    }

    pub(crate) fn take_name(&self, container: &Container) -> Result<(), Error> {
        let names = self.root.join("names");
        create_private(&names)?;
        let link = names.join(&container.name);
        // A name left by a killed removal is free; twice, because another may take it in between.
        for _ in 0..2 {
            match std::os::unix::fs::symlink(&container.id, &link) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    let owner = fs::read_link(&link).unwrap_or_default().to_string_lossy().into_owned();
                    if self.directory(&owner).exists() && !owner.is_empty() {
                        return Err(Error::NameTaken { name: container.name.clone(), id: owner });
                    }
                    let _ = fs::remove_file(&link);
                }
                Err(error) => return Err(Error::io("create", &link)(error)),
            }
        }
        Err(Error::NameTaken { name: container.name.clone(), id: "another".to_owned() })
    }

    /// Gives up a name, if it is the container's.
    pub(crate) fn free_name(&self, id: &str, name: &str) {
        if let Some(link) = self.own_link(id, name) {
            // One that stays names nobody, and is free for the next.
            let _ = fs::remove_file(&link);
        }
    }

    /// The link of a name that is the container's.
    fn own_link(&self, id: &str, name: &str) -> Option<PathBuf> {
        let link = self.root.join("names").join(name);
        fs::read_link(&link).is_ok_and(|target| target == Path::new(id)).then_some(link)
    }

    /// Replaces what was asked for; under the container's lock.
    pub(crate) fn save_container(&self, container: &Container) -> Result<(), Error> {
        write(&self.directory(&container.id).join("container.json"), container)
    }

    /// Removes a container's name and directory, and with `volumes` its anonymous volumes. It must not run.
    pub(crate) fn erase(&self, id: &str, volumes: bool) -> Result<(), Error> {
        self.unlist(id, self.container(id).ok().as_ref(), volumes)?.finish()
    }

    /// The part of [`Self::erase`] that others can see: afterwards the container is gone, its name is free, its image and
    /// volumes are unused, and only files without a name are left.
    pub(crate) fn unlist(&self, id: &str, record: Option<&Container>, volumes: bool) -> Result<Removed, Error> {
        let users = record.is_some_and(|one| one.config.namespaces.user == UserChoice::Private);
        let plain = record.is_some_and(|container| container.image_id.is_empty());
        let result = self.hide(id, record, volumes);
        // Last, and also for a container that was killed before it had files.
        if !plain && matches!(result, Ok(_) | Err(Error::NoContainer(_))) {
            self.images.release(&owner(id))?;
        }
        if users && result.is_ok() {
            self.release_block(id);
        }
        result
    }

    /// What belongs to a container beside its directory, once its record is out of the others' sight. An interrupted
    /// removal comes here again.
    fn erase_more(&self, container: &Container, directory: &Path, volumes: bool) -> Result<(), Error> {
        for (index, mount) in container.config.mounts.iter().enumerate() {
            if matches!(mount, crate::config::MountConfig::Image { .. }) {
                self.images.release(&crate::volumes::attach::image_owner(&container.id, index))?;
            }
        }
        if container.config.storage_size.is_some() {
            let (upper, work) = (directory.join("upper"), directory.join("work"));
            // A limit that stays limits nothing.
            let _ = crate::volumes::limit_writes(&container.id, [&upper, &work], None);
        }
        if volumes || container.config.remove || directory.join(WITH_VOLUMES).exists() {
            self.remove_anonymous(container)?;
        }
        Ok(())
    }

    /// Says that a container's anonymous volumes go with it, also if the removal is interrupted.
    pub(crate) fn mark_volumes(&self, id: &str) -> Result<(), Error> {
        let path = self.directory(id).join(WITH_VOLUMES);
        fs::write(&path, "").map_err(Error::io("write", &path))
    }

    /// Removes the directory of something that has no name, as a container is.
    pub(crate) fn erase_files(&self, id: &str, volumes: bool) -> Result<(), Error> {
        self.hide(id, None, volumes)?.finish()
    }

    fn hide(&self, id: &str, record: Option<&Container>, volumes: bool) -> Result<Removed, Error> {
        let removing = self.leaving(id);
        let directory = self.directory(id);
        match fs::rename(&directory, &removing) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && removing.exists() => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoContainer(id.to_owned()));
            }
            Err(error) => return Err(Error::io("rename", &directory)(error)),
        }
        if let Some(link) = record.and_then(|container| self.own_link(id, &container.name))
            && fs::rename(&link, removing.join("name")).is_err()
        {
            // One that stays names nobody, and is free for the next.
            let _ = fs::remove_file(&link);
        }
        let kept: Option<Container>;
        let record = match record {
            Some(_) => record,
            None => {
                kept = read(&removing.join("container.json")).ok();
                kept.as_ref()
            }
        };
        if let Some(container) = record {
            self.erase_more(container, &removing, volumes)?;
        }
        Ok(Removed(removing))
    }

    /// Whether the process that a container ends with still wants it.
    pub(crate) fn is_tied(&self, id: &str) -> bool {
        let Ok(entries) = fs::read_dir(self.live()) else { return false };
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            name.to_str().and_then(parse_intent).is_some_and(|(other, work, ..)| other == id && work == Work::Tied)
        })
    }

    /// Whether a living process has declared that it starts or runs a container.
    pub(crate) fn starting(&self, id: &str) -> bool {
        let Ok(entries) = fs::read_dir(self.live()) else { return false };
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let intent = name.to_str().and_then(parse_intent);
            let works = |work| matches!(work, Work::Run | Work::Start | Work::Create);
            intent.is_some_and(|(other, work, pid, start)| other == id && works(work) && alive(pid, start))
        })
    }

    /// Whether the process that looks after a container is there.
    #[must_use]
    pub fn monitored(&self, state: &State) -> bool {
        alive(state.monitor, state.monitor_start)
    }
}

#[cfg(test)]
mod tests;
