//! `run`: from a configuration to a running container, and to its end.
//!
//! Everything that can be refused is refused before anything is made: [`prepare`] finds the image, resolves names and
//! makes the specification. Then the process that will look after the container (this one, or for `--detach` one forked
//! from it while there is a single thread and nothing is open) declares its intent, makes the record, starts the
//! container and stays until it ends.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use hull_cgroup::Driver;
use hull_fs::Root;
use hull_oci::spec::{ConsoleSize, Spec, User};
use hull_runtime::{CreateOptions, Rootfs, Streams};
use hull_sys::clone::{CloneFlags, Cloned, clone3, exit_now, take_inherited_fd};
use rustix::fs::{Mode, OFlags};

use crate::config::{MountConfig, NamespaceChoice, RunConfig, SeccompChoice, Source};
use crate::error::Error;
use crate::monitor::{self, Attached};
use crate::records::{Container, Engine, Phase, State, Work, now, own_pid};
use crate::spec::{self, Context};
use crate::{control, logs, machine, names, terminal};

/// Files of the host are copied up to this size.
const MAX_HOST_FILE: u64 = 1 << 20;

/// How `run` ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program ran in the foreground and ended with this exit code.
    Exited(i32),
    /// The container runs in the background under this ID.
    Detached(String),
}

/// What `run` needs beside the configuration.
pub struct Options<'a> {
    /// New file that the ID is written to.
    pub cidfile: Option<&'a Path>,
    /// Pass signals on to the program.
    pub sig_proxy: bool,
    /// Called with each line meant for the user, warnings and the notice of a memory kill.
    pub warn: &'a mut dyn FnMut(&str),
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Options").field("cidfile", &self.cidfile).finish_non_exhaustive()
    }
}

/// A container that only has to be made.
struct Prepared {
    container: Container,
    spec: Spec,
    filter: Option<hull_seccomp::Filter>,
    /// Directory of the image, opened; absent runs on a directory of the user's.
    lower: Option<OwnedFd>,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Engine {
    /// Runs a container.
    ///
    /// # Errors
    /// Any [`Error`]; nothing is left of the container then. [`Error::exit_code`] says what the command returns.
    pub fn run(&self, config: RunConfig, options: Options<'_>) -> Result<Outcome, Error> {
        if config.detach {
            close_inherited();
        }
        if config.tty && config.interactive && !config.detach && !rustix::termios::isatty(rustix::stdio::stdin()) {
            return Err(Error::flag("--tty", "standard input is not a terminal"));
        }
        let prepared = self.prepare(config)?;
        let id = prepared.container.id.clone();
        if let Some(path) = options.cidfile {
            let mut file = fs::File::create_new(path)
                .map_err(|error| Error::flag("--cidfile", format!("{}: {error}", path.display())))?;
            file.write_all(id.as_bytes()).map_err(Error::io("write", path))?;
        }
        let result = if prepared.container.config.detach {
            self.run_detached(prepared, options.warn).map(|()| Outcome::Detached(id))
        } else {
            self.run_attached(prepared, options.sig_proxy, options.warn).map(Outcome::Exited)
        };
        if let (Err(_), Some(path)) = (&result, options.cidfile) {
            let _ = fs::remove_file(path);
        }
        result
    }

    fn prepare(&self, mut config: RunConfig) -> Result<Prepared, Error> {
        let random = names::random()?;
        let id = names::hex(&random);
        let directory = self.directory(&id);
        let mut context = Context { id: id.clone(), ..Context::default() };
        let mut image_id = String::new();
        let (root, lower) = match &config.source {
            Source::Image(name) => {
                let image = self.images.find(name)?;
                image_id = image.id.to_string();
                context.rootfs = directory.join("rootfs").to_string_lossy().into_owned();
                let layer = image.layers.last().ok_or_else(|| Error::flag("IMAGE", "the image has no layer"))?;
                let tree = self.images.layer_path(&layer.diff_id).join("tree");
                context.image = image.config.config;
                (open_directory(&tree)?, true)
            }
            Source::Directory(path) => {
                let path = fs::canonicalize(path)
                    .map_err(|error| Error::flag("--rootfs", format!("{}: {error}", path.display())))?;
                context.rootfs = path.to_string_lossy().into_owned();
                let opened = open_directory(&path).map_err(|error| Error::flag("--rootfs", error.to_string()))?;
                (opened, false)
            }
        };
        let inside = Root::from_fd(root);
        context.user = resolve_user(&inside, &config, Some(context.image.user.as_str()))?;
        machine::probe(&config, &mut context)?;
        self.resolve_namespaces(&mut config)?;
        make_bind_sources(&config.mounts)?;
        if config.tty
            && let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdout())
        {
            context.console = Some(ConsoleSize { height: size.ws_row, width: size.ws_col });
        }
        let files = generated_files(&config, &id);
        context.files = files
            .iter()
            .map(|(name, _)| (directory.join(name).to_string_lossy().into_owned(), format!("/etc/{name}")))
            // A directory of the user's gets no new files.
            .filter(|(_, target)| {
                lower || fs::symlink_metadata(format!("{}{target}", context.rootfs)).is_ok_and(|one| one.is_file())
            })
            .collect();
        let spec = spec::spec(&config, &context)?;
        let capabilities = spec::capabilities(&config, &context.available);
        let builtin = matches!(config.security.seccomp, SeccompChoice::Builtin) && !config.security.privileged;
        let stop_signal = config
            .stop_signal
            .or_else(|| hull_runtime::lifecycle::signal::parse(&context.image.stop_signal))
            .unwrap_or(15);
        let container = Container {
            name: config.name.clone().unwrap_or_else(|| names::generated(&random)),
            created: now() / 1_000_000_000,
            image_id,
            args: spec.process.as_ref().map(|process| process.args.clone()).unwrap_or_default(),
            config,
            stop_signal,
            id,
        };
        Ok(Prepared {
            container,
            spec,
            filter: builtin.then(|| hull_seccomp::default_filter(&capabilities)),
            lower: lower.then(|| inside.into_fd()),
            files,
        })
    }

    /// Another container's namespaces are joined through its first process.
    fn resolve_namespaces(&self, config: &mut RunConfig) -> Result<(), Error> {
        let chosen = &mut config.namespaces;
        let kinds = [
            (&mut chosen.pid, "pid"),
            (&mut chosen.ipc, "ipc"),
            (&mut chosen.uts, "uts"),
            (&mut chosen.network, "net"),
            (&mut chosen.cgroup, "cgroup"),
        ];
        for (choice, file) in kinds {
            if let NamespaceChoice::Container(name) = choice {
                let other = self.find(name)?;
                let state = self.state(&other.id)?;
                if state.phase != Phase::Running {
                    let status = state.phase.as_str().to_owned();
                    return Err(Error::Status { operation: "join a namespace of", id: other.id, status });
                }
                *choice = NamespaceChoice::Path(format!("/proc/{}/ns/{file}", state.pid));
            }
        }
        Ok(())
    }

    /// Makes and starts the container; on failure nothing of it is left but the intent.
    fn start(&self, prepared: Prepared, streams: Streams, warn: &mut dyn FnMut(&str)) -> Result<Attached, Error> {
        let Prepared { container, spec, filter, lower, files } = prepared;
        let directory = self.register(&container)?;
        for (name, content) in files {
            let path = directory.join(name);
            fs::write(&path, content).map_err(Error::io("write", &path))?;
            rustix::fs::chmod(&path, Mode::from_raw_mode(0o644)).map_err(Error::io("change mode of", &path))?;
        }
        let rootfs = match lower {
            Some(lower) => Rootfs::Overlay {
                lower: vec![std::sync::Arc::new(lower)],
                upper: directory.join("upper"),
                work: directory.join("work"),
                target: directory.join("rootfs"),
                volatile: false,
            },
            None => Rootfs::Config,
        };
        let options = CreateOptions {
            id: container.id.clone(),
            bundle: directory,
            root: self.oci_root(),
            rootfs,
            streams,
            cgroup_driver: Driver::Cgroupfs,
            no_pivot: false,
            no_new_keyring: false,
            filter,
        };
        let created = hull_runtime::create(spec, options)?;
        for warning in created.warnings() {
            warn(warning);
        }
        let (pid_start, cgroup) = (created.record().pid_start_time, created.record().cgroup.clone());
        let running = created.start()?;
        let monitor = own_pid();
        let state = State {
            phase: Phase::Running,
            pid: running.pid,
            pid_start,
            monitor,
            monitor_start: hull_runtime::state::process_start_time(monitor).unwrap_or(0),
            started: now(),
            ..State::default()
        };
        self.save(&container.id, &state)?;
        Ok(Attached { container, state, running, cgroup })
    }

    /// Undoes what [`Engine::start`] made before it failed.
    fn undo(&self, id: &str) {
        // The start's own error is what the user needs; what cannot be undone stays behind the intent for `repair`.
        let _ = hull_runtime::lifecycle::delete(&self.oci_root(), id, true);
        let _ = self.erase(id);
    }

    fn run_attached(&self, prepared: Prepared, sig_proxy: bool, warn: &mut dyn FnMut(&str)) -> Result<i32, Error> {
        let config = &prepared.container.config;
        let (tty, interactive, id) = (config.tty, config.interactive, prepared.container.id.clone());
        let signals = hull_sys::signal::redirect().map_err(Error::io("redirect", "signals"))?;
        let intent = self.intend(&id, Work::Run)?;
        let mut streams = Streams::default();
        let mut console = None;
        if tty {
            let (ours, theirs) = terminal::console_pair().map_err(Error::io("create", "console socket"))?;
            streams.console = Some(theirs);
            console = Some(ours);
        } else {
            streams.stdio = Some(monitor::own_streams(interactive)?);
        }
        let started = self.start(prepared, streams, warn).and_then(|attached| {
            let master = console.map(|socket| terminal::receive(&socket)).transpose();
            Ok((attached, master.map_err(Error::io("receive", "terminal"))?))
        });
        let (attached, master) = match started {
            Ok(started) => started,
            Err(error) => {
                self.undo(&id);
                intent.clear()?;
                return Err(error);
            }
        };
        let mut io = match master {
            Some(master) => monitor::Io::client_terminal(master, interactive)?,
            None => monitor::Io::none(),
        };
        let attended = io.attend(&attached.running, &signals, sig_proxy);
        drop(io);
        let code = self.finish(&attached, attended, warn)?;
        intent.clear()?;
        Ok(code)
    }

    fn run_detached(&self, prepared: Prepared, warn: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::io("create", "pipe"))?;
        match clone3(CloneFlags::empty(), None).map_err(Error::io("clone", "monitor"))? {
            Cloned::Child => {
                drop(reader);
                self.monitor(prepared, writer);
                exit_now(0);
            }
            Cloned::Parent(..) => {}
        }
        drop(writer);
        let mut report = Vec::new();
        fs::File::from(reader).read_to_end(&mut report).map_err(Error::io("read", "report of the monitor"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match report.split_first() {
            Some((0, warnings)) => {
                text(warnings).lines().for_each(warn);
                Ok(())
            }
            Some((code, message)) => Err(Error::Start { message: text(message), code: *code }),
            None => Err(Error::Start { message: "the container's monitor was killed".to_owned(), code: 125 }),
        }
    }

    /// The whole life of a detached container's monitor. Its parent waits for one report: a byte that is the exit code
    /// of the command, and a message.
    fn monitor(&self, prepared: Prepared, report: OwnedFd) {
        let id = prepared.container.id.clone();
        let mut warnings = String::new();
        let started = self.start_detached(prepared, &mut |line| {
            warnings.push_str(line);
            warnings.push('\n');
        });
        let mut message = match &started {
            Ok(_) => vec![0],
            Err(error) => vec![error.exit_code()],
        };
        match &started {
            Ok(_) => message.extend(warnings.bytes()),
            Err(error) => message.extend(error.to_string().bytes()),
        }
        let mut report = fs::File::from(report);
        let _ = report.write_all(&message);
        drop(report);
        if let Ok((attached, mut io, signals, intent)) = started {
            let attended = io.attend(&attached.running, &signals, false);
            if self.finish(&attached, attended, &mut |_| {}).is_ok() {
                let _ = intent.clear();
            }
        } else {
            // Nobody is left to tell; the intent, if it is still there, tells the next command.
            let _ = control::forget_intents(self, &id);
        }
    }

    fn start_detached(
        &self,
        prepared: Prepared,
        warn: &mut dyn FnMut(&str),
    ) -> Result<(Attached, monitor::Io, OwnedFd, crate::records::Intent), Error> {
        let _ = rustix::process::setsid();
        let signals = hull_sys::signal::redirect().map_err(Error::io("redirect", "signals"))?;
        // A monitor keeps no directory, terminal or pipe of its caller's busy.
        rustix::process::chdir("/").map_err(Error::io("enter", "/"))?;
        let null = monitor::null()?;
        rustix::stdio::dup2_stdin(&null).map_err(Error::io("redirect", "standard input"))?;
        rustix::stdio::dup2_stdout(&null).map_err(Error::io("redirect", "standard output"))?;
        rustix::stdio::dup2_stderr(&null).map_err(Error::io("redirect", "standard error"))?;
        let config = &prepared.container.config;
        let (tty, interactive, id) = (config.tty, config.interactive, prepared.container.id.clone());
        let intent = self.intend(&id, Work::Run)?;
        let mut streams = Streams::default();
        let result = (|| {
            if tty {
                let (ours, theirs) = terminal::console_pair().map_err(Error::io("create", "console socket"))?;
                streams.console = Some(theirs);
                let attached = self.start(prepared, streams, warn)?;
                let master = terminal::receive(&ours).map_err(Error::io("receive", "terminal"))?;
                let log = self.open_log(&id)?;
                return Ok((attached, monitor::Io::logged_terminal(master, log)?));
            }
            let (stdio, pipes) = monitor::pipes(interactive)?;
            streams.stdio = Some(stdio);
            let attached = self.start(prepared, streams, warn)?;
            let log = self.open_log(&id)?;
            Ok((attached, monitor::Io::logged_pipes(pipes, log)))
        })();
        match result {
            Ok((attached, io)) => Ok((attached, io, signals, intent)),
            Err(error) => {
                self.undo(&id);
                intent.clear()?;
                Err(error)
            }
        }
    }

    fn open_log(&self, id: &str) -> Result<fs::File, Error> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.directory(id).join(logs::FILE);
        fs::File::options().append(true).create(true).mode(0o600).open(&path).map_err(Error::io("create", &path))
    }
}

/// Descriptors that the caller left open would be kept for as long as the container runs.
fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // Nothing of this process is open yet, so whatever is there was inherited.
        drop(take_inherited_fd(number));
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("open", path))
}

/// User and groups by the container's own files.
fn resolve_user(root: &Root, config: &RunConfig, image: Option<&str>) -> Result<User, Error> {
    let text = config.user.as_deref().or(image).filter(|text| !text.is_empty()).unwrap_or("0");
    let resolve = |flag: &str, text: &str| {
        hull_runtime::process::user::resolve(root, text).map_err(|error| Error::flag(flag, error.to_string()))
    };
    let user = resolve("--user", text)?;
    let mut groups = user.additional_gids;
    for group in &config.groups {
        let gid = resolve("--group-add", &format!("0:{group}"))?.gid;
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    Ok(User { uid: user.uid, gid: user.gid, umask: None, additional_gids: groups })
}

fn make_bind_sources(mounts: &[MountConfig]) -> Result<(), Error> {
    for mount in mounts {
        let MountConfig::Bind { source, create, .. } = mount else { continue };
        if source.exists() {
            continue;
        }
        if !create {
            return Err(Error::flag("--mount", format!("bind source path does not exist: {}", source.display())));
        }
        fs::create_dir_all(source)
            .map_err(|error| Error::flag("--volume", format!("create {}: {error}", source.display())))?;
    }
    Ok(())
}

/// Name resolution that fits the container's network: its own loopback, or whatever the host uses.
fn generated_files(config: &RunConfig, id: &str) -> Vec<(&'static str, Vec<u8>)> {
    const LOCAL: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
    let short = &id[..12];
    let hostname = config.hostname.as_deref().unwrap_or(short);
    let mut files = Vec::new();
    if config.namespaces.uts == NamespaceChoice::Private {
        files.push(("hostname", format!("{hostname}\n").into_bytes()));
    }
    if config.namespaces.network == NamespaceChoice::Private {
        files.push(("hosts", format!("{LOCAL}127.0.0.1\t{hostname}\n").into_bytes()));
    } else {
        for name in ["hosts", "resolv.conf"] {
            let mut content = Vec::new();
            let file = fs::File::open(PathBuf::from("/etc").join(name));
            if file.is_ok_and(|file| file.take(MAX_HOST_FILE).read_to_end(&mut content).is_ok()) {
                files.push((name, content));
            }
        }
    }
    files
}
