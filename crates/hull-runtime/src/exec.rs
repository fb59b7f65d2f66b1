//! `exec`: a further process in a running container.
//!
//! A first process moves to the container's cgroup (on cgroup v2 it is born there), closes everything of the machine, and
//! only then forks into the container's PID namespace, where others can see it. The second joins the remaining
//! namespaces through one pidfd of the container's first process, in one `setns`. The two are siblings, children of the
//! caller, who waits for the second.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use hull_oci::Status;
use hull_oci::spec::Process;
use hull_seccomp::Filter;
use hull_sys::clone::{CloneFlags, Cloned, cloexec_from, clone3, close_others, exit_now, reset_signals};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Signal};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::error::Error;
use crate::failure::{Failure, Step, step};
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
    let (joined, join_pid) = namespaces(&record)?;
    let unprivileged = crate::namespaces::without_privilege();
    let context = ProcessContext { user_namespace: record.user_namespace, unprivileged, exec: true };
    let mut plan = ProcessPlan::new(process, &context)?;
    let filter = stored_filter(root, &record)?;
    let (socket, child_socket) = sync::pair().map_err(Error::system("create", "sync socket"))?;

    // A group below the container's, or one that has no processes of its own any more, is entered by the parent.
    let mut into = if options.cgroup.is_empty() { record.cgroup.clone_fd() } else { None };
    let tasks = if options.cgroup.is_empty() { record.cgroup.tasks_files()? } else { Vec::new() };
    let cloned = match clone3(CloneFlags::empty(), into) {
        Err(Errno::BUSY | Errno::OPNOTSUPP) if into.take().is_some() => clone3(CloneFlags::empty(), None),
        cloned => cloned,
    };
    // Whether it was born in its v2 group, if it enters its groups by itself.
    let born = (!tasks.is_empty()).then_some(into.is_some()).or(into.map(|_| true));
    match cloned.map_err(Error::system("clone", "process"))? {
        Cloned::Child => {
            drop(socket);
            let entered = ThreadNameSpaceType::empty();
            let terminal = process.terminal;
            Joining { plan, filter, options, terminal, init, joined, entered, join_pid, tasks, socket: child_socket }
                .run()
        }
        Cloned::Parent(pid, pidfd) => {
            drop((child_socket, tasks));
            let mut process = Running { pid, pidfd };
            match answer(&record, &mut plan, &options, &socket, &mut process, born) {
                Ok(()) => Ok(process),
                Err(error) => {
                    let _ = rustix::process::pidfd_send_signal(&process.pidfd, Signal::KILL);
                    let _ = process.wait();
                    Err(error)
                }
            }
        }
    }
}

fn answer(
    record: &Record,
    plan: &mut ProcessPlan,
    options: &ExecOptions,
    socket: &OwnedFd,
    process: &mut Running,
    born: Option<bool>,
) -> Result<(), Error> {
    match born {
        Some(born) => record.cgroup.attach_rest(process.pid, born)?,
        None => record.cgroup.attach_exec(process.pid, &options.cgroup)?,
    }
    plan.apply_from_parent(process.pid)?;
    let _ = sync::send(socket, sync::Record::of(Kind::Attached));
    loop {
        let Some(message) = sync::receive(socket).map_err(Error::system("read", "sync socket"))? else {
            // The child's end closed with its execve.
            return Ok(());
        };
        if message.kind == Kind::Pid
            && let Some(pid) = Pid::from_raw(message.value)
        {
            if message.value != process.pid {
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
                    .map_err(Error::system("open process", message.value))?;
                let joiner = std::mem::replace(process, Running { pid: message.value, pidfd });
                joiner.wait()?;
            }
            if let Some(pidfd_socket) = &options.streams.pidfd {
                terminal::send_fd(pidfd_socket, b"\0", &process.pidfd)
                    .map_err(Error::system("send pidfd over", "pidfd socket"))?;
            }
            let _ = sync::send(socket, sync::Record::of(Kind::Continue));
            continue;
        }
        let failure = message.failure();
        let message = match failure.step {
            Step::Exec | Step::ProgramLookup => plan.exec_message(failure, &record.rootfs),
            _ => {
                let what = plan.describe(&failure).unwrap_or_else(|| failure.step.describe().to_owned());
                format!("{what}: {}", failure.errno)
            }
        };
        return Err(Error::Init { message, failure });
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
    /// Of these, what it has joined already.
    entered: ThreadNameSpaceType,
    join_pid: bool,
    tasks: Vec<OwnedFd>,
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
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step(Step::Session))?;
        self.plan.apply_early()?;
        crate::start::enter_cgroups(&mut self.tasks)?;
        sync::expect(&self.socket, Kind::Attached)?;
        self.forget_machine()?;
        if self.join_pid {
            self.fork_inside()?;
        } else {
            self.tell_pid(rustix::process::getpid().as_raw_pid())?;
        }
        sync::expect(&self.socket, Kind::Continue)?;
        rustix::process::setsid().map_err(step(Step::Session))?;
        let into_user = self.joined.contains(ThreadNameSpaceType::USER);
        self.joined.remove(self.entered);
        if !self.joined.is_empty() {
            move_into_thread_name_spaces(self.init.as_fd(), self.joined).map_err(step(Step::JoinNamespace))?;
        }
        if into_user {
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
        reset_signals(self.plan.ignored_signals());
        cloexec_from(3 + self.options.streams.preserve_fds).map_err(step(Step::CloseFds))?;
        self.plan.apply_late(self.filter.as_ref())
    }
}

impl Joining {
    /// Closes every descriptor that the program is not to have and this process no longer needs. Once it is in the
    /// container's PID namespace, a process there with `CAP_SYS_PTRACE` can open what it holds (CVE-2016-9962,
    /// CVE-2024-21626).
    fn forget_machine(&self) -> Result<(), Failure> {
        let stdio = self.options.streams.stdio.as_ref().filter(|_| !self.terminal);
        let mut keep = [0_u32; 7];
        let kept = [Some(&self.socket), Some(&self.init), self.options.streams.console.as_ref()]
            .into_iter()
            .flatten()
            .chain(stdio.into_iter().flatten())
            .map(AsFd::as_fd)
            .chain(self.plan.procfs_fd());
        let mut count = 0;
        for (slot, file) in keep.iter_mut().zip(kept) {
            *slot = file.as_raw_fd().unsigned_abs();
            count += 1;
        }
        close_others(3 + self.options.streams.preserve_fds, &mut keep[..count]).map_err(step(Step::CloseFds))
    }

    /// Forks into the container's PID namespace as a sibling, and ends.
    fn fork_inside(&mut self) -> Result<(), Failure> {
        let join = |kinds| move_into_thread_name_spaces(self.init.as_fd(), kinds);
        match join(ThreadNameSpaceType::PROCESS_ID) {
            // An ordinary user has the privilege only as a member of the container's user namespace.
            Err(Errno::PERM) if self.joined.contains(ThreadNameSpaceType::USER) => {
                join(ThreadNameSpaceType::USER | ThreadNameSpaceType::PROCESS_ID).map_err(step(Step::JoinNamespace))?;
                self.entered = ThreadNameSpaceType::USER;
            }
            joined => joined.map_err(step(Step::JoinNamespace))?,
        }
        match clone3(CloneFlags::PARENT, None).map_err(step(Step::JoinNamespace))? {
            Cloned::Parent(pid, _pidfd) => {
                let told = self.tell_pid(pid);
                exit_now(i32::from(told.is_err()))
            }
            Cloned::Child => {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(step(Step::Sync))
            }
        }
    }

    fn tell_pid(&self, pid: i32) -> Result<(), Failure> {
        sync::send(&self.socket, sync::Record::with(Kind::Pid, pid)).map_err(step(Step::Sync))
    }
}

/// Which namespaces of the container are not the runtime's own, and its PID namespace if it is one of them.
fn namespaces(record: &Record) -> Result<(ThreadNameSpaceType, bool), Error> {
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
    let pid = differs("pid")?;
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
            Some((flags, program)) => {
                Ok(Some(Filter::from_program(program.to_vec(), u32::from_ne_bytes(*flags), false)?))
            }
            None => Err(Error::System { operation: "read", object: path.display().to_string(), errno: Errno::INVAL }),
        },
    }
}
