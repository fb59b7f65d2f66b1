//! From the plan to a process: `create` and `start`.
//!
//! [`parent`] makes the state directory, the cgroup and the process, and answers it; [`child`] is the process between
//! `clone3` and `execve`. After `create` the process waits on a FIFO of the state directory, with nothing of the runtime
//! left running; `start`, in whatever process, writes one byte and reads what the process reports until it becomes the
//! program.

mod child;
mod parent;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_oci::Status;
use hull_oci::spec::Spec;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::error::Error;
use crate::failure::{Failure, Step};
use crate::hooks::Point;
use crate::options::CreateOptions;
use crate::state::{self, Record};
use crate::sync;

pub(crate) use child::{Bomb, become_root, enter_cgroups};

pub(crate) const START_FIFO: &str = "start.fifo";
pub(crate) const RESULT_FIFO: &str = "result.fifo";

/// A created container whose program has not started.
#[derive(Debug)]
pub struct Container {
    pub(crate) root: PathBuf,
    pub(crate) record: Record,
    pub(crate) pidfd: OwnedFd,
    pub(crate) warnings: Vec<String>,
}

/// A process of a container.
#[derive(Debug)]
pub struct Running {
    /// Its ID in the runtime's PID namespace.
    pub pid: i32,
    /// A descriptor of it.
    pub pidfd: OwnedFd,
}

impl Running {
    /// Waits for the end of the process, which must be a child of this one, and returns its exit code: the program's
    /// own, or 128 and the signal that killed it.
    ///
    /// # Errors
    /// [`Error::System`] when the process is not a child.
    pub fn wait(&self) -> Result<i32, Error> {
        let status = rustix::io::retry_on_intr(|| {
            rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
        })
        .map_err(Error::system("wait for process", self.pid))?;
        Ok(status.map_or(255, |status| {
            status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(255)
        }))
    }
}

/// Creates a container: everything but the program runs when this returns.
///
/// # Errors
/// Any [`Error`]; nothing is left behind then.
pub fn create(spec: Spec, options: CreateOptions) -> Result<Container, Error> {
    parent::create(&spec, options, &mut |_| true)
}

/// [`create`], with something to do in the new namespaces while the container's process prepares itself there: `meanwhile`
/// gets the process's ID once its namespaces are made, and says whether it could be done.
///
/// # Errors
/// As [`create`]; [`Error::Meanwhile`] when `meanwhile` could not, and nothing else was wrong.
pub fn create_with(
    spec: Spec,
    options: CreateOptions,
    meanwhile: &mut dyn FnMut(i32) -> bool,
) -> Result<Container, Error> {
    parent::create(&spec, options, meanwhile)
}

impl Container {
    /// The container's ID.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Process ID of its first process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.record.pid
    }

    /// A descriptor of its first process.
    #[must_use]
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Its record.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What the configuration asked for and the machine did not permit, where the specification says to go on.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Starts the program.
    ///
    /// # Errors
    /// As [`start`].
    pub fn start(self) -> Result<Running, Error> {
        release(&self.root, &self.record)?;
        Ok(Running { pid: self.record.pid, pidfd: self.pidfd })
    }
}

/// Starts the program of a created container, possibly made by another process.
///
/// # Errors
/// [`Error::Status`] unless the container is `created`; [`Error::Init`] when the program cannot be executed.
pub fn start(root: &Path, id: &str) -> Result<(), Error> {
    let record = Record::load(root, id)?;
    let status = record.status(root);
    if status != Status::Created {
        return Err(Error::Status { operation: "start", id: id.to_owned(), status: status.as_str() });
    }
    release(root, &record)
}

fn release(root: &Path, record: &Record) -> Result<(), Error> {
    let directory = state::directory(root, &record.id);
    let open = |name: &str, flags| {
        let path = directory.join(name);
        rustix::fs::open(&path, flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
            .map_err(Error::system("open", path.display()))
    };
    let result = open(RESULT_FIFO, OFlags::RDONLY)?;
    let start = open(START_FIFO, OFlags::WRONLY).map_err(|error| match error {
        Error::System { errno: Errno::NXIO | Errno::NOENT, .. } => {
            Error::Status { operation: "start", id: record.id.clone(), status: "stopped" }
        }
        other => other,
    })?;
    rustix::fs::fcntl_setfl(&result, OFlags::empty()).map_err(Error::system("open", RESULT_FIFO))?;
    rustix::io::write(&start, b"!").map_err(Error::system("start", &record.id))?;
    let reported = sync::receive(&result).map_err(Error::system("read", RESULT_FIFO))?;
    for name in [START_FIFO, RESULT_FIFO] {
        let _ = rustix::fs::unlinkat(CWD, directory.join(name), rustix::fs::AtFlags::empty());
    }
    if let Some(report) = reported {
        let failure = report.failure();
        let error = start_error(root, record, failure);
        // Until now the process has waited; soon it ends by itself.
        let _ = rustix::io::write(&start, b"!");
        return Err(error);
    }
    if let Err(error) = Point::plan("poststart", &record.hooks.poststart)?.run(&record.state(Status::Running)) {
        if let Ok(pidfd) = record.pidfd() {
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
        }
        let _ = record.cgroup.kill_all(9);
        return Err(error);
    }
    Ok(())
}

/// What a failure between `start` and `execve` means. The plan is gone; the specification is in the state directory.
fn start_error(root: &Path, record: &Record, failure: Failure) -> Error {
    let program = record.spec(root).ok().and_then(|spec| spec.process);
    let message = match (failure.step, program) {
        (Step::Exec | Step::ProgramLookup, Some(process)) => {
            // The file system may be mounted nowhere but in the container's own namespace.
            let own = PathBuf::from(format!("/proc/{}/root", record.pid));
            let rootfs = if own.read_dir().is_ok() { &own } else { &record.rootfs };
            parent::exec_message(Some(rootfs), &process, failure)
        }
        (step, _) => format!("{}: {}", step.describe(), failure.errno),
    };
    Error::Init { message, failure }
}
