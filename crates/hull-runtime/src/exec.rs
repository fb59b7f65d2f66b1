//! `exec`: a further process in a running container.
//!
//! All of the container's namespaces are joined through one pidfd of its first process; the process ID namespace by the
//! parent around the clone, the rest by the child in one `setns`. On cgroup v2 the process is born in the container's
//! cgroup.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use hull_oci::Status;
use hull_oci::spec::Process;
use hull_seccomp::Filter;
use hull_sys::clone::{CloneFlags, Cloned, clone3, cloexec_from, exit_now, reset_signals};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal, WaitId, WaitIdOptions};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::error::Error;
use crate::failure::{Failure, Step, step};
use crate::namespaces::{join_pid, rejoin_own_pid};
use crate::options::ExecOptions;
use crate::process::{ProcessContext, ProcessPlan};
use crate::start::{Bomb, Running};
use crate::state::{self, Record};
use crate::sync::{self, Kind};
use crate::terminal;

/// Namespaces that differ from the runtime's own and are joined by the child.
const KINDS: [(&str, ThreadNameSpaceType); 7] = [
    ("user", ThreadNameSpaceType::USER),
    ("mnt", ThreadNameSpaceType::MOUNT),
    ("net", ThreadNameSpaceType::NETWORK),
    ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
    ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
    ("time", ThreadNameSpaceType::TIME),
];

/// Starts a process in a running container.
///
/// # Errors
/// [`Error::Status`] unless the container runs; [`Error::Init`] when the process cannot be set up or executed.
pub fn exec(root: &Path, id: &str, process: &Process, options: ExecOptions) -> Result<Running, Error> {
    let record = Record::load(root, id)?;
    match record.status(root) {
        Status::Running | Status::Created => {}
        Status::Paused if options.ignore_paused => {}
        status => return Err(Error::Status { operation: "exec in", id: id.to_owned(), status: status.as_str() }),
    }
    let init = record.pidfd()?;
    let (joined, pid_namespace) = namespaces(&record)?;
    let plan = ProcessPlan::new(process, &ProcessContext { user_namespace: record.user_namespace, exec: true })?;
    let filter = stored_filter(root, &record)?;
    let (socket, child_socket) = sync::pair().map_err(Error::system("create", "sync socket"))?;

    if let Some(namespace) = &pid_namespace {
        join_pid(namespace.as_fd())?;
    }
    let into = if options.cgroup.is_empty() { record.cgroup.clone_fd() } else { None };
    let cloned = clone3(CloneFlags::empty(), into).map_err(Error::system("clone", "process"));
    let (pid, pidfd) = match cloned {
        Ok(Cloned::Child) => {
            drop(socket);
            Joining { plan, filter, options, terminal: process.terminal, init, joined, socket: child_socket }.run()
        }
        Ok(Cloned::Parent(pid, pidfd)) => (pid, pidfd),
        Err(error) => {
            if pid_namespace.is_some() {
                rejoin_own_pid()?;
            }
            return Err(error);
        }
    };
    drop(child_socket);
    let rejoined = if pid_namespace.is_some() { rejoin_own_pid() } else { Ok(()) };
    match rejoined.and_then(|()| answer(&record, &plan, &options, &socket, pid, &pidfd)) {
        Ok(()) => Ok(Running { pid, pidfd }),
        Err(error) => {
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            Err(error)
        }
    }
}

fn answer(
    record: &Record,
    plan: &ProcessPlan,
    options: &ExecOptions,
    socket: &OwnedFd,
    pid: i32,
    pidfd: &OwnedFd,
) -> Result<(), Error> {
    record.cgroup.attach_exec(pid, &options.cgroup)?;
    let _ = sync::send(socket, sync::Record::of(Kind::Attached));
    if let Some(pidfd_socket) = &options.streams.pidfd {
        terminal::send_fd(pidfd_socket, b"\0", pidfd).map_err(Error::system("send pidfd over", "pidfd socket"))?;
    }
    match sync::receive(socket).map_err(Error::system("read", "sync socket"))? {
        // The child's end closed with its execve.
        None => Ok(()),
        Some(message) => {
            let failure = message.failure();
            let message = match failure.step {
                Step::Exec | Step::ProgramLookup => plan.exec_message(failure, &record.rootfs),
                _ => {
                    let what = plan.describe(&failure).unwrap_or_else(|| failure.step.describe().to_owned());
                    format!("{what}: {}", failure.errno)
                }
            };
            Err(Error::Init { message, failure })
        }
    }
}

/// The child between `clone3` and `execve`.
struct Joining {
    plan: ProcessPlan,
    filter: Option<Filter>,
    options: ExecOptions,
    terminal: bool,
    init: OwnedFd,
    joined: ThreadNameSpaceType,
    socket: OwnedFd,
}

impl Joining {
    fn run(mut self) -> ! {
        let _bomb = Bomb;
        let failure = match self.prepare() {
            Ok(()) => self.plan.exec(),
            Err(failure) => failure,
        };
        let _ = sync::send(&self.socket, sync::Record::failed(failure));
        exit_now(255)
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(step(Step::Sync))?;
        // Before joining: nobody inside may trace this process while it still holds the machine's descriptors.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step(Step::Session))?;
        rustix::process::setsid().map_err(step(Step::Session))?;
        self.plan.apply_early()?;
        sync::expect(&self.socket, Kind::Attached)?;
        move_into_thread_name_spaces(self.init.as_fd(), self.joined).map_err(step(Step::JoinNamespace))?;
        if self.joined.contains(ThreadNameSpaceType::USER) {
            crate::start::become_root()?;
        }
        if self.terminal {
            let (master, slave) = terminal::open_joined().map_err(step(Step::Terminal))?;
            if let Some(size) = self.plan.console_size() {
                terminal::resize(&master, size.0, size.1).map_err(step(Step::Terminal))?;
            }
            if let Some(console) = &self.options.streams.console {
                terminal::send_fd(console, b"/dev/ptmx", &master).map_err(step(Step::Terminal))?;
            }
            terminal::adopt(&slave).map_err(step(Step::Terminal))?;
        } else if let Some([stdin, stdout, stderr]) = &self.options.streams.stdio {
            rustix::stdio::dup2_stdin(stdin).map_err(step(Step::Terminal))?;
            rustix::stdio::dup2_stdout(stdout).map_err(step(Step::Terminal))?;
            rustix::stdio::dup2_stderr(stderr).map_err(step(Step::Terminal))?;
        }
        self.plan.apply_identity(self.filter.as_ref())?;
        self.plan.lookup()?;
        rustix::process::set_parent_process_death_signal(None).map_err(step(Step::Sync))?;
        reset_signals();
        cloexec_from(3 + self.options.streams.preserve_fds).map_err(step(Step::CloseFds))?;
        self.plan.apply_late(self.filter.as_ref())
    }
}

/// Which namespaces of the container are not the runtime's own, and its PID namespace if it is one of them.
fn namespaces(record: &Record) -> Result<(ThreadNameSpaceType, Option<OwnedFd>), Error> {
    let differs = |name: &str| -> Result<bool, Error> {
        let inode = |path: String| {
            rustix::fs::stat(&path).map(|stat| stat.st_ino).map_err(Error::system("inspect namespace", path))
        };
        match inode(format!("/proc/self/ns/{name}")) {
            // A kernel without this kind of namespace.
            Err(Error::System { errno: Errno::NOENT, .. }) => Ok(false),
            own => Ok(own? != inode(format!("/proc/{}/ns/{name}", record.pid))?),
        }
    };
    let mut joined = ThreadNameSpaceType::empty();
    for (name, kind) in KINDS {
        if differs(name)? {
            joined |= kind;
        }
    }
    let path = format!("/proc/{}/ns/pid", record.pid);
    let pid = differs("pid")?
        .then(|| rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))
        .transpose()
        .map_err(Error::system("open namespace", &path))?;
    // The links were read by process ID: they are the container's only if it still lives.
    record.pidfd()?;
    Ok((joined, pid))
}

/// The filter that the container was started with, as it was compiled then.
fn stored_filter(root: &Path, record: &Record) -> Result<Option<Filter>, Error> {
    let path = state::directory(root, &record.id).join("filter");
    match state::read(&path, 1 << 20) {
        Err(Error::System { errno: Errno::NOENT, .. }) => Ok(None),
        Err(error) => Err(error),
        Ok(bytes) => match bytes.split_first_chunk::<4>() {
            Some((flags, program)) => Ok(Some(Filter::from_program(program.to_vec(), u32::from_ne_bytes(*flags), false)?)),
            None => Err(Error::System { operation: "read", object: path.display().to_string(), errno: Errno::INVAL }),
        },
    }
}
