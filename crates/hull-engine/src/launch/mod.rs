//! `create`, `start` and `run`: from a configuration to a running container.
//!
//! [`prepare`] finds the image, opens its layers, resolves names and makes the specification: everything that can be
//! refused is refused before anything is made, but for the mounts of layers, which go with the process. `create` stops
//! after the record. `run` and `start` fork the container's monitor ([`crate::monitor`]) while there is a single thread
//! and nothing is open; the monitor declares its intent, prepares, makes and starts the container, and stays. The
//! process that forked it is a client like any other, over a socket pair that is there from the beginning
//! ([`crate::attach`]).

mod files;
mod make;
mod prepare;

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use hull_fs::lock::Lock;
use hull_image::snapshot::Lower;
use hull_runtime::Running;
use hull_sys::clone::{CloneFlags, Cloned, clone3, exit_now, take_inherited_fd};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::attach::{self, Client};
use crate::config::{RestartPolicy, RunConfig};
use crate::error::Error;
use crate::monitor::{self, Ends, protocol};
use crate::network::{self, Reach};
use crate::records::{Container, Engine, Phase, State, Work};
use crate::{defaults, events, names};

pub(crate) use prepare::Prepared;

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
    /// Streams that are attached, as bits of [`protocol`]; absent takes what the configuration implies.
    pub attach: Option<u8>,
    /// Keys that detach; see [`attach::detach_keys`].
    pub detach_keys: Vec<u8>,
    /// Called with each line meant for the user, warnings and the notice of a memory kill.
    pub warn: &'a mut dyn FnMut(&str),
}

impl<'a> Options<'a> {
    /// Signals are passed on, streams are as the configuration implies, and Docker's keys detach.
    pub fn new(warn: &'a mut dyn FnMut(&str)) -> Self {
        Self { cidfile: None, sig_proxy: true, attach: None, detach_keys: attach::DETACH_KEYS.to_vec(), warn }
    }
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Options").field("cidfile", &self.cidfile).finish_non_exhaustive()
    }
}

/// What is to be started.
#[derive(Debug)]
pub(crate) enum Request {
    /// A container that has an ID and nothing else yet.
    New { id: String, random: [u8; 32], config: Box<RunConfig> },
    /// One that has a record, and how often its policy has restarted it.
    Again(Box<Container>, u32),
    /// A program on a stopped container's files, under an ID of its own.
    Sandbox { id: String, container: Box<Container>, config: Box<RunConfig> },
}

impl Request {
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::New { id, .. } | Self::Sandbox { id, .. } => id,
            Self::Again(container, _) => &container.id,
        }
    }

    fn config(&self) -> &RunConfig {
        match self {
            Self::New { config, .. } | Self::Sandbox { config, .. } => config,
            Self::Again(container, _) => &container.config,
        }
    }

    /// Whether it ends with the process that runs it.
    pub(crate) fn is_tied(&self) -> bool {
        self.config().tied
    }

    /// What its monitor is doing while it starts it.
    pub(crate) fn work(&self) -> Work {
        match self {
            Self::New { .. } => Work::Run,
            Self::Again(..) => Work::Start,
            Self::Sandbox { .. } => Work::Create,
        }
    }
}

/// A container that this process started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) container: Container,
    pub(crate) state: State,
    pub(crate) running: Running,
    pub(crate) ends: Ends,
    /// What keeps its networks going.
    pub(crate) reach: Reach,
    /// The image's layers, lent to other starts while this process lives.
    pub(crate) lower: Option<Lower>,
}

fn new_request(config: RunConfig) -> Result<Request, Error> {
    let random = names::random()?;
    Ok(Request::New { id: names::hex(&random), random, config: Box::new(config) })
}

fn cidfile_reason(path: &Path, error: &std::io::Error) -> String {
    let shown = path.display();
    match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            format!("container ID file found, make sure the other container isn't running or delete {shown}")
        }
        _ => format!("{shown}: {error}"),
    }
}

/// Writes an ID to a new file, which goes again unless it is kept.
struct CidFile<'p>(Option<&'p Path>);

impl<'p> CidFile<'p> {
    fn create(path: Option<&'p Path>, id: &str) -> Result<Self, Error> {
        if let Some(path) = path {
            let mut file =
                fs::File::create_new(path).map_err(|error| Error::flag("--cidfile", cidfile_reason(path, &error)))?;
            file.write_all(id.as_bytes()).map_err(Error::io("write", path))?;
        }
        Ok(Self(path))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CidFile<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

fn check_terminal(tty: bool, interactive: bool) -> Result<(), Error> {
    if tty && interactive && !rustix::termios::isatty(rustix::stdio::stdin()) {
        return Err(Error::flag("--tty", "the input device is not a TTY"));
    }
    Ok(())
}

fn check(config: &RunConfig) -> Result<(), Error> {
    if config.remove && config.restart != RestartPolicy::No {
        return Err(Error::flag("--rm", "conflicting options: cannot specify both --restart and --rm"));
    }
    crate::logs::check(&config.log)
}

impl Engine {
    /// Makes a container without starting it, and returns its ID.
    ///
    /// # Errors
    /// Any [`Error`]; nothing is left of the container then.
    pub fn create(&self, mut config: RunConfig, cidfile: Option<&Path>) -> Result<String, Error> {
        defaults::apply(&mut config)?;
        check(&config)?;
        let request = new_request(config)?;
        let id = request.id().to_owned();
        let cidfile = CidFile::create(cidfile, &id)?;
        let intent = self.intend(&id, Work::Create)?;
        let made = self.planned(request, false).and_then(|prepared| {
            let Prepared { container, image, .. } = prepared;
            if let Some((image, _)) = &image {
                self.hold_image(&container.id, &image.id)?;
            }
            self.register(&container, image.as_ref().map(|(_, lower)| lower.layers()))?;
            self.ready_volumes(&container, image.as_ref().map(|(_, lower)| lower.layers()), true)?;
            if let Some((_, lower)) = image {
                lower.release()?;
            }
            Ok(container)
        });
        match made {
            Ok(container) => {
                events::emit(self, &container, "create", &[]);
                intent.clear()?;
                cidfile.keep();
                Ok(id)
            }
            Err(error) => {
                let _ = self.erase(&id, true);
                intent.clear()?;
                Err(error)
            }
        }
    }

    /// Runs a new container.
    ///
    /// # Errors
    /// Any [`Error`]; nothing is left of the container then. [`Error::exit_code`] says what the command returns.
    pub fn run(&self, mut config: RunConfig, options: Options<'_>) -> Result<Outcome, Error> {
        defaults::apply(&mut config)?;
        check(&config)?;
        if !config.detach {
            check_terminal(config.tty, config.interactive)?;
        }
        let (tty, detach, tied) = (config.tty, config.detach, config.tied);
        let wants = if detach { 0 } else { options.attach.unwrap_or_else(|| streams(config.interactive)) };
        let request = new_request(config)?;
        let id = request.id().to_owned();
        let cidfile = CidFile::create(options.cidfile, &id)?;
        // A signal that comes while the container starts is the program's.
        let signals = (wants != 0).then(attach::redirect).transpose()?;
        let tied = if tied { Some(self.intend(&id, Work::Tied)?) } else { None };
        let (socket, _) = self.spawn_monitor(request, wants, Vec::new(), None)?;
        let client = Client { wants, tty, sig_proxy: options.sig_proxy, detach_keys: options.detach_keys };
        let result = attach::await_start(&socket, options.warn).and_then(|()| match signals {
            Some(signals) => self.follow(&id, &socket, &client, signals, options.warn),
            None => Ok(Outcome::Detached(id)),
        });
        if let Some(tied) = tied {
            tied.clear()?;
        }
        if result.is_ok() {
            cidfile.keep();
        }
        result
    }

    /// Starts a container that has a record; one that runs is left alone. With `wants`, streams are attached from the
    /// beginning.
    ///
    /// # Errors
    /// Any [`Error`]; the container stays as it was, and its state says why.
    pub fn start(&self, container: &Container, options: Options<'_>) -> Result<Outcome, Error> {
        let wants = options.attach.unwrap_or(0);
        if wants & protocol::WANTS_STDIN != 0 {
            check_terminal(container.config.tty, true)?;
        }
        let socket = {
            // Two that start it at once: the second finds it running.
            let lock = self.lock(&container.id)?;
            let container = self.container(&container.id)?;
            let state = self.state(&container.id)?;
            match state.phase {
                Phase::Running | Phase::Restarting if wants == 0 => return Ok(Outcome::Detached(container.id)),
                Phase::Running | Phase::Restarting => {
                    return Err(Error::Status {
                        operation: "start and attach to",
                        id: container.id,
                        status: "running already: use 'hull attach'".to_owned(),
                    });
                }
                Phase::Created | Phase::Exited => self.await_monitor(&container.id, &state),
            }
            let request = Request::Again(Box::new(container.clone()), 0);
            let (socket, _lock) = self.spawn_monitor(request, wants, Vec::new(), Some(lock))?;
            attach::await_start(&socket, options.warn)?;
            socket
        };
        if wants == 0 {
            return Ok(Outcome::Detached(container.id.clone()));
        }
        let client =
            Client { wants, tty: container.config.tty, sig_proxy: options.sig_proxy, detach_keys: options.detach_keys };
        self.follow(&container.id, &socket, &client, attach::redirect()?, options.warn)
    }

    /// Starts a container that has a record, for clients that are there before it: the other ends of their sockets, and
    /// which streams they want, as bits of [`protocol`]. Returns whether it did not run already.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_for(
        &self,
        container: &Container,
        clients: Vec<(OwnedFd, u8)>,
        warn: &mut dyn FnMut(&str),
    ) -> Result<bool, Error> {
        let lock = self.lock(&container.id)?;
        let container = self.container(&container.id)?;
        let state = self.state(&container.id)?;
        match state.phase {
            Phase::Running if self.is_paused(&container.id) => {
                let status = "paused: unpause it first".to_owned();
                return Err(Error::Status { operation: "start", id: container.id, status });
            }
            Phase::Running | Phase::Restarting => return Ok(false),
            Phase::Created | Phase::Exited => self.await_monitor(&container.id, &state),
        }
        let (socket, _lock) = self.spawn_monitor(Request::Again(Box::new(container), 0), 0, clients, Some(lock))?;
        attach::await_start(&socket, warn).map(|()| true)
    }

    /// Forks the process that makes, starts and watches a container. What it says comes over the socket; others may be
    /// clients of it from the beginning too. The container's lock is held by both: when this process is killed, whoever
    /// waits for the lock still meets a container that has started or has not, never one that is about to.
    fn spawn_monitor(
        &self,
        request: Request,
        wants: u8,
        others: Vec<(OwnedFd, u8)>,
        lock: Option<Lock>,
    ) -> Result<(OwnedFd, Option<Lock>), Error> {
        // The monitor opens the store itself.
        self.images.close();
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(Error::io("create", "socket"))?;
        match clone3(CloneFlags::empty(), None).map_err(Error::io("clone", "monitor"))? {
            Cloned::Child => {
                let mut keep: Vec<BorrowedFd<'_>> = others.iter().map(|(socket, _)| socket.as_fd()).collect();
                keep.push(theirs.as_fd());
                keep.extend(lock.as_ref().map(AsFd::as_fd));
                close_inherited(&keep, self.sockets.count);
                monitor::main(self, request, (theirs, wants), others, lock);
                exit_now(0);
            }
            Cloned::Parent(..) => Ok((ours, lock)),
        }
    }

    /// Makes and starts a container, in its monitor.
    ///
    /// # Errors
    /// Any [`Error`]. Nothing is left of a new container then; one that has a record keeps it, with the reason.
    pub(crate) fn launch(&self, request: Request, warn: &mut dyn FnMut(&str)) -> Result<Started, Error> {
        let id = request.id().to_owned();
        let known = matches!(request, Request::Again(..));
        let networked = network::has_networks(request.config());
        let started = self.prepare(request).and_then(|prepared| {
            // After the paths of the command line were looked at.
            leave_caller()?;
            self.make(prepared, warn)
        });
        if let Err(error) = &started {
            // The start's own error is what the user needs; what cannot be undone stays behind the intent.
            self.delete_foreign(&id);
            let _ = hull_runtime::lifecycle::delete(&self.oci_root(), &id, true);
            if networked {
                let _ = self.leave_network(&id);
            }
            if known {
                let state = self.saved_state(&id).unwrap_or_default();
                let code = i32::from(error.exit_code());
                let _ =
                    self.save(&id, &State { error: error.to_string(), exit_code: code, pid: 0, monitor: 0, ..state });
            } else {
                let _ = self.erase(&id, true);
            }
        }
        started
    }
}

/// What a client of `run` is attached to unless it says otherwise.
fn streams(interactive: bool) -> u8 {
    let output = protocol::WANTS_STDOUT | protocol::WANTS_STDERR;
    if interactive { output | protocol::WANTS_STDIN } else { output }
}

pub(crate) fn null() -> Result<OwnedFd, Error> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(Error::io("open", "/dev/null"))
}

/// Descriptors that the caller left open would be kept for as long as the container runs.
fn close_inherited(keep: &[BorrowedFd<'_>], sockets: u32) {
    use std::os::fd::AsRawFd as _;
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let first = 3_u32.saturating_add(sockets);
    for number in numbers.into_iter().filter(|number| u32::try_from(*number).is_ok_and(|number| number >= first)) {
        // Nothing else of this process is open yet, so whatever is there was inherited.
        if !keep.iter().any(|kept| kept.as_raw_fd() == number) {
            drop(take_inherited_fd(number));
        }
    }
}

/// A monitor keeps no directory, terminal or pipe of its caller's busy.
pub(crate) fn leave_caller() -> Result<(), Error> {
    rustix::process::chdir("/").map_err(Error::io("enter", "/"))?;
    let null = null()?;
    rustix::stdio::dup2_stdin(&null).map_err(Error::io("redirect", "standard input"))?;
    rustix::stdio::dup2_stdout(&null).map_err(Error::io("redirect", "standard output"))?;
    rustix::stdio::dup2_stderr(&null).map_err(Error::io("redirect", "standard error"))
}
