//! `run`: from a configuration to a running container, and to its end.
//!
//! The process that will look after the container (this one, or for `--detach` one forked from it while there is a
//! single thread and nothing is open) declares its intent. [`prepare`] then finds the image, opens its layers, resolves
//! names and makes the specification: everything that can be refused is refused before anything is made, but for the
//! mounts of layers, which go with the process. Then it makes the record, starts the container and stays until it ends.
//! While it lives it lends the mounts to the starts of other containers.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_cgroup::Driver;
use hull_fs::Root;
use hull_image::Image;
use hull_image::snapshot::Lower;
use hull_oci::spec::{ConsoleSize, Spec};
use hull_runtime::{CreateOptions, Rootfs, Streams};
use hull_sys::clone::{CloneFlags, Cloned, clone3, exit_now, take_inherited_fd};
use rustix::fs::Mode;

use crate::config::{MountConfig, NamespaceChoice, RunConfig, SeccompChoice, Source};
use crate::error::Error;
use crate::monitor::{self, Attached};
use crate::records::{Container, Engine, Phase, State, Work, now, own_pid};
use crate::rootfs::{self, Files};
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

/// A container that has an ID and nothing else yet.
struct Request {
    id: String,
    random: [u8; 32],
    config: RunConfig,
}

/// A container that only has to be made.
struct Prepared {
    container: Container,
    spec: Spec,
    filter: Option<hull_seccomp::Filter>,
    /// The image and its opened layers; absent runs on a directory of the user's.
    image: Option<(Image, Lower)>,
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
        let random = names::random()?;
        let id = names::hex(&random);
        if let Some(path) = options.cidfile {
            let mut file = fs::File::create_new(path)
                .map_err(|error| Error::flag("--cidfile", format!("{}: {error}", path.display())))?;
            file.write_all(id.as_bytes()).map_err(Error::io("write", path))?;
        }
        let request = Request { id: id.clone(), random, config };
        let result = if request.config.detach {
            self.run_detached(request, options.warn).map(|()| Outcome::Detached(id))
        } else {
            self.run_attached(request, options.sig_proxy, options.warn).map(Outcome::Exited)
        };
        if let (Err(_), Some(path)) = (&result, options.cidfile) {
            let _ = fs::remove_file(path);
        }
        result
    }

    fn prepare(&self, request: Request) -> Result<Prepared, Error> {
        let Request { id, random, mut config } = request;
        let directory = self.directory(&id);
        let mut context = Context { id: id.clone(), ..Context::default() };
        let mut image = None;
        let files = match &config.source {
            Source::Image(name) => {
                let mut found = self.images.find(name)?;
                // A policy may have become stricter since the image was pulled; without any this looks for its file.
                hull_image::registry::permitted(&self.images, &found, name)?;
                let lower = self.lower(&found)?;
                let files = Files::Layers(lower.merged());
                context.image = std::mem::take(&mut found.config.config);
                context.rootfs = directory.join("rootfs").to_string_lossy().into_owned();
                image = Some((found, lower));
                files
            }
            Source::Directory(path) => {
                let path = fs::canonicalize(path)
                    .map_err(|error| Error::flag("--rootfs", format!("{}: {error}", path.display())))?;
                context.rootfs = path.to_string_lossy().into_owned();
                let opened =
                    rootfs::open_directory(&path).map_err(|error| Error::flag("--rootfs", error.to_string()))?;
                Files::Directory(Root::from_fd(opened))
            }
        };
        context.user = files.user(&config, &context.image.user)?;
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
                image.is_some()
                    || fs::symlink_metadata(format!("{}{target}", context.rootfs)).is_ok_and(|one| one.is_file())
            })
            .collect();
        for (key, value) in &context.image.labels {
            config.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        let spec = spec::spec(&config, &context)?;
        let capabilities = spec::capabilities(&config, &context.available);
        let builtin = matches!(config.security.seccomp, SeccompChoice::Builtin) && !config.security.privileged;
        let stop_signal = config
            .stop_signal
            .or_else(|| hull_runtime::lifecycle::signal::parse(&context.image.stop_signal))
            .unwrap_or(15);
        let container = Container {
            name: config.name.clone().unwrap_or_else(|| names::generated(&random)),
            created: now(),
            image_id: image.as_ref().map(|(image, _)| image.id.to_string()).unwrap_or_default(),
            args: spec.process.as_ref().map(|process| process.args.clone()).unwrap_or_default(),
            config,
            stop_signal,
            id,
        };
        Ok(Prepared {
            container,
            spec,
            filter: builtin.then(|| hull_seccomp::default_filter(&capabilities)),
            image,
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
        let Prepared { container, spec, filter, image, files } = prepared;
        let directory = self.register(&container, image.as_ref().map(|(image, lower)| (&image.id, lower.layers())))?;
        for (name, content) in files {
            let path = directory.join(name);
            fs::write(&path, content).map_err(Error::io("write", &path))?;
            rustix::fs::chmod(&path, Mode::from_raw_mode(0o644)).map_err(Error::io("change mode of", &path))?;
        }
        let lower = image.map(|(_, lower)| lower);
        let rootfs = match &lower {
            Some(lower) => {
                let mut layers = lower.layers().to_vec();
                layers.push(Arc::new(self.skeleton()?));
                Rootfs::Overlay {
                    lower: layers,
                    upper: directory.join("upper"),
                    work: directory.join("work"),
                    target: directory.join("rootfs"),
                    volatile: container.config.remove,
                }
            }
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
        // Nothing of the store is needed until the end, which may be far.
        self.images.close();
        Ok(Attached { container, state, running, cgroup, lower })
    }

    /// Undoes what [`Engine::start`] made before it failed.
    fn undo(&self, id: &str) {
        // The start's own error is what the user needs; what cannot be undone stays behind the intent for `repair`.
        let _ = hull_runtime::lifecycle::delete(&self.oci_root(), id, true);
        let _ = self.erase(id);
    }

    fn run_attached(&self, request: Request, sig_proxy: bool, warn: &mut dyn FnMut(&str)) -> Result<i32, Error> {
        let (tty, interactive, id) = (request.config.tty, request.config.interactive, request.id.clone());
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
        let started = self.prepare(request).and_then(|prepared| self.start(prepared, streams, warn));
        let started = started.and_then(|attached| {
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
        let code = self.finish(attached, attended, warn)?;
        intent.clear()?;
        Ok(code)
    }

    fn run_detached(&self, request: Request, warn: &mut dyn FnMut(&str)) -> Result<(), Error> {
        // The monitor opens the store itself.
        self.images.close();
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::io("create", "pipe"))?;
        match clone3(CloneFlags::empty(), None).map_err(Error::io("clone", "monitor"))? {
            Cloned::Child => {
                drop(reader);
                self.monitor(request, writer);
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
    fn monitor(&self, request: Request, report: OwnedFd) {
        let id = request.id.clone();
        let mut warnings = String::new();
        let started = self.start_detached(request, &mut |line| {
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
            if self.finish(attached, attended, &mut |_| {}).is_ok() {
                let _ = intent.clear();
            }
        } else {
            // Nobody is left to tell; the intent, if it is still there, tells the next command.
            let _ = control::forget_intents(self, &id);
        }
    }

    fn start_detached(
        &self,
        request: Request,
        warn: &mut dyn FnMut(&str),
    ) -> Result<(Attached, monitor::Io, OwnedFd, crate::records::Intent), Error> {
        let _ = rustix::process::setsid();
        let signals = hull_sys::signal::redirect().map_err(Error::io("redirect", "signals"))?;
        let (tty, interactive, id) = (request.config.tty, request.config.interactive, request.id.clone());
        let intent = self.intend(&id, Work::Run)?;
        let mut streams = Streams::default();
        let result = (|| {
            // Before the directory changes: it may name paths.
            let prepared = self.prepare(request)?;
            leave_caller()?;
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

/// A monitor keeps no directory, terminal or pipe of its caller's busy.
fn leave_caller() -> Result<(), Error> {
    rustix::process::chdir("/").map_err(Error::io("enter", "/"))?;
    let null = monitor::null()?;
    rustix::stdio::dup2_stdin(&null).map_err(Error::io("redirect", "standard input"))?;
    rustix::stdio::dup2_stdout(&null).map_err(Error::io("redirect", "standard output"))?;
    rustix::stdio::dup2_stderr(&null).map_err(Error::io("redirect", "standard error"))
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
