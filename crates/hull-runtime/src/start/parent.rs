//! The runtime's side of a start.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hull_fs::Root;
use hull_oci::spec::{Process, Spec};
use hull_oci::state::ContainerProcessState;
use hull_oci::{State, Status};
use hull_sys::clone::{CloneFlags, Cloned, clone3};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, WaitId, WaitIdOptions};

use super::child::Child;
use super::{Container, RESULT_FIFO, START_FIFO};
use crate::error::Error;
use crate::failure::{Failure, Step};
use crate::namespaces::write_maps;
use crate::options::{CreateOptions, Rootfs};
use crate::plan::Plan;
use crate::state::{self, Creation, Record};
use crate::sync::{self, Kind};
use crate::terminal;

/// `create`, in the parent.
pub(super) fn create(
    spec: &Spec,
    mut options: CreateOptions,
    meanwhile: &mut dyn FnMut(i32) -> bool,
) -> Result<Container, Error> {
    let mut plan = Plan::new(spec, &mut options)?;
    let mut creation = Creation::begin(&options.root, &options.id)?;
    let mut record = Record {
        oci_version: spec.oci_version.clone(),
        id: options.id.clone(),
        pid: 0,
        pid_start_time: 0,
        bundle: options.bundle.clone(),
        rootfs: rootfs_path(spec, &options),
        created: hull_oci::time::rfc3339_nanos(SystemTime::now()),
        owner: rustix::process::getuid().as_raw(),
        annotations: spec.annotations.clone(),
        cgroup: plan.cgroup.clone(),
        hooks: spec.hooks.clone().unwrap_or_default(),
        user_namespace: plan.namespaces.new_user() || plan.namespaces.joined_user(),
        intel_rdt: plan.intel_rdt.as_ref().and_then(|rdt| rdt.created_group()),
    };
    // From the record on, whoever finds this creation abandoned can undo all of it.
    record.save(&options.root)?;
    let made = make(&mut plan, &mut creation, &mut record, spec, &options, meanwhile);
    // Until it is undone the creation stays: dropping it would take the record that says what to undo.
    match made.and_then(|pidfd| creation.commit().map(|()| pidfd)) {
        Ok(pidfd) => {
            let warnings = plan.process.warnings().to_vec();
            Ok(Container { root: options.root, record, pidfd, warnings })
        }
        Err(error) => Err(creation.give_up(&record, error)),
    }
}

fn rootfs_path(spec: &Spec, options: &CreateOptions) -> PathBuf {
    match &options.rootfs {
        Rootfs::Overlay { target, .. } => target.clone(),
        Rootfs::Config | Rootfs::Mapped => {
            options.bundle.join(spec.root.as_ref().map(|root| root.path.as_str()).unwrap_or_default())
        }
    }
}

fn make(
    plan: &mut Plan,
    creation: &mut Creation,
    record: &mut Record,
    spec: &Spec,
    options: &CreateOptions,
    meanwhile: &mut dyn FnMut(i32) -> bool,
) -> Result<OwnedFd, Error> {
    let directory = creation.directory();
    keep_configuration(&directory, spec, plan)?;
    plan.cgroup.create(&plan.resources)?;
    if plan.cgroup.driver() == hull_cgroup::Driver::Disabled {
        // An ordinary user who wants no limits may have been refused a group: later commands must not look for it.
        record.cgroup = hull_cgroup::Cgroup::disabled();
    }
    let (start_fifo, result_fifo) = (fifo(&directory, START_FIFO)?, fifo(&directory, RESULT_FIFO)?);
    let (socket, child_socket) = sync::pair().map_err(Error::system("create", "sync socket"))?;

    let creating = record.state(Status::Creating);
    let tasks = plan.cgroup.tasks_files()?;
    plan.namespaces.enter_pid()?;
    let flags = if plan.namespaces.joined_user() { CloneFlags::empty() } else { plan.namespaces.new };
    // A copy of a process must not run its destructors twice: `Child::run` never returns.
    let mut into = plan.cgroup.clone_fd();
    let cloned = match clone3(flags, into) {
        // An old kernel, or one that wants the group entered otherwise; whatever else is wrong is wrong again.
        Err(_) if into.take().is_some() => clone3(flags, None),
        cloned => cloned,
    };
    let born = into.is_some();
    let cloned = cloned.map_err(|errno| clone_error(plan, errno));
    let (first_pid, first_pidfd) = match cloned {
        Ok(Cloned::Child) => {
            creation.forget_lock();
            drop(socket);
            Child { plan, tasks, socket: child_socket, start: start_fifo, result: result_fifo, state: creating }.run()
        }
        Ok(Cloned::Parent(pid, pidfd)) => (pid, pidfd),
        Err(error) => {
            plan.namespaces.leave_pid()?;
            return Err(error);
        }
    };
    drop((tasks, child_socket, start_fifo, result_fifo));
    let mut init = Process1 { pid: first_pid, pidfd: first_pidfd };
    match plan
        .namespaces
        .leave_pid()
        .and_then(|()| answer(plan, record, options, &socket, (&mut init, born), meanwhile))
    {
        Ok(()) => Ok(init.pidfd),
        Err(error) => {
            init.reap();
            Err(error)
        }
    }
}

/// The process that is becoming the container's first.
struct Process1 {
    pid: i32,
    pidfd: OwnedFd,
}

impl Process1 {
    fn reap(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = self.wait();
    }

    fn wait(&self) -> Result<Option<rustix::process::WaitIdStatus>, Errno> {
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED))
    }
}

/// Keeps what later commands need: the specification, and the filter for processes that join.
fn keep_configuration(directory: &Path, spec: &Spec, plan: &Plan) -> Result<(), Error> {
    let bytes = serde_json::to_vec(spec).map_err(|error| Error::config("config", error.to_string()))?;
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
            .map_err(Error::system("create", path.display()))?;
        std::io::Write::write_all(&mut std::fs::File::from(file), bytes)
            .map_err(|error| state::io_error("write", &path, &error))
    };
    file("config.json", &bytes)?;
    if let Some(filter) = plan.filter.as_ref().filter(|filter| !filter.notify()) {
        let mut stored = filter.flags().to_ne_bytes().to_vec();
        stored.extend_from_slice(filter.program());
        file("filter", &stored)?;
    }
    Ok(())
}

/// Makes a FIFO and holds both ends of it, so that neither opening nor writing ever waits for the other side.
fn fifo(directory: &Path, name: &str) -> Result<OwnedFd, Error> {
    let path = directory.join(name);
    rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .and_then(|()| rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()))
        .map_err(Error::system("create", path.display()))
}

fn clone_error(plan: &Plan, errno: Errno) -> Error {
    let what = if plan.namespaces.new_user() {
        "container process in a new user namespace"
    } else {
        "container process in its namespaces"
    };
    Error::System { operation: "clone", object: what.to_owned(), errno }
}

/// Answers the child until it is ready and has been let go.
fn answer(
    plan: &mut Plan,
    record: &mut Record,
    options: &CreateOptions,
    socket: &OwnedFd,
    (init, born): (&mut Process1, bool),
    meanwhile: &mut dyn FnMut(i32) -> bool,
) -> Result<(), Error> {
    let send = |kind| sync::send(socket, sync::Record::of(kind)).map_err(Error::system("write", "sync socket"));
    if plan.namespaces.new_user() || plan.namespaces.joined_user() {
        plan.process.apply_from_parent(init.pid)?;
    }
    if plan.namespaces.new_user() {
        write_maps(init.pid, &plan.namespaces.uid_mappings, &plan.namespaces.gid_mappings)?;
        // A child that has failed already says so below; its closed socket is not the reason.
        let _ = send(Kind::Mapped);
    }
    plan.cgroup.attach_rest(init.pid, born)?;
    if let Some(rdt) = &mut plan.intel_rdt {
        rdt.attach(init.pid)?;
    }
    if !plan.net_devices.is_empty() && !plan.namespaces.joined_user() {
        move_devices(plan, init.pid)?;
    }
    let _ = send(Kind::Attached);
    // Switches of the network are set by the child: what devices get of them must not depend on who comes first. A process
    // that joins a user namespace is not the last one yet.
    let early = !plan.namespaces.joined_user() && !plan.sysctls.of_network();
    let mut done = early.then(|| meanwhile(init.pid));
    loop {
        let Some(message) = sync::receive(socket).map_err(Error::system("read", "sync socket"))? else {
            return Err(died(init));
        };
        record.pid = init.pid;
        match message.kind {
            Kind::Failed => return Err(init_error(plan, record, message.failure())),
            Kind::Pid => {
                let pid = Pid::from_raw(message.value).ok_or_else(|| died(init))?;
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
                    .map_err(Error::system("open process", message.value))?;
                let joiner = std::mem::replace(init, Process1 { pid: message.value, pidfd });
                joiner.wait().map_err(Error::system("wait for process", joiner.pid))?;
                if !plan.net_devices.is_empty() {
                    move_devices(plan, init.pid)?;
                }
                send(Kind::Continue)?;
            }
            // What is given up anyway needs no hooks.
            Kind::Hooks if done == Some(false) => return Err(Error::Meanwhile),
            Kind::Hooks => {
                let state = record.state(Status::Creating);
                plan.hooks.prestart.run(&state)?;
                plan.hooks.create_runtime.run(&state)?;
                send(Kind::Continue)?;
            }
            Kind::Listener => {
                forward_listener(plan, &record.state(Status::Creating), init, message.value)?;
                send(Kind::Continue)?;
            }
            Kind::Ready => break,
            _ => return Err(died(init)),
        }
    }
    // A child that failed has said why above: that comes first.
    if !*done.get_or_insert_with(|| meanwhile(init.pid)) {
        return Err(Error::Meanwhile);
    }
    record.pid_start_time = state::process_start_time(init.pid).ok_or_else(|| died(init))?;
    record.save(&options.root)?;
    if let Some(pidfd_socket) = &plan.streams.pidfd {
        terminal::send_fd(pidfd_socket, b"\0", &init.pidfd)
            .map_err(Error::system("send pidfd over", "pidfd socket"))?;
    }
    send(Kind::Continue)?;
    match sync::receive(socket).map_err(Error::system("read", "sync socket"))? {
        Some(message) if message.kind == Kind::Detached => Ok(()),
        Some(message) if message.kind == Kind::Failed => Err(init_error(plan, record, message.failure())),
        _ => Err(died(init)),
    }
}

fn move_devices(plan: &Plan, pid: i32) -> Result<(), Error> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::system("open namespace", &path))?;
    for (name, new_name) in &plan.net_devices {
        hull_netlink::move_device(namespace.as_fd(), name, new_name)?;
    }
    Ok(())
}

/// Takes the notify descriptor out of the child, whose filter may already stop it from sending anything itself.
fn forward_listener(plan: &Plan, state: &State, init: &Process1, number: i32) -> Result<(), Error> {
    let Some(listener) = &plan.listener else { return Ok(()) };
    let file = rustix::process::pidfd_getfd(&init.pidfd, number, PidfdGetfdFlags::empty())
        .map_err(Error::system("take", "seccomp listener of the container process"))?;
    let document = ContainerProcessState {
        oci_version: hull_oci::spec::VERSION.to_owned(),
        fds: vec!["seccompFd".to_owned()],
        pid: init.pid,
        metadata: listener.metadata.clone(),
        state: state.clone(),
    };
    let json = serde_json::to_vec(&document).map_err(|error| Error::config("state", error.to_string()))?;
    terminal::send_fd(&listener.socket, &json, &file)
        .map_err(Error::system("send seccomp listener over", "listenerPath"))
}

/// The child ended without a word: it was killed, most likely for its memory limit.
fn died(init: &Process1) -> Error {
    let _ = rustix::process::pidfd_send_signal(&init.pidfd, Signal::KILL);
    let how = match init.wait() {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (_, Some(9)) => "killed; is the memory limit too low?".to_owned(),
            (_, Some(signal)) => format!("killed by signal {signal}"),
            _ => "no status".to_owned(),
        },
        _ => "no status".to_owned(),
    };
    Error::Init {
        message: format!("container process ended while it was being set up: {how}"),
        failure: Failure::new(Step::Sync, Errno::CHILD),
    }
}

/// Turns the child's record into a sentence.
pub(crate) fn init_error(plan: &Plan, record: &Record, failure: Failure) -> Error {
    let message = match failure.step {
        Step::Exec | Step::ProgramLookup => plan.process.exec_message(failure, &record.rootfs),
        _ => format!("{}: {}", plan.describe(&failure), failure.errno),
    };
    Error::Init { message, failure }
}

/// Why a program could not be executed: which file is missing or wrong.
pub(crate) fn exec_message(rootfs: Option<&Path>, process: &Process, failure: Failure) -> String {
    let program = process.args.first().map(String::as_str).unwrap_or_default();
    match rootfs.map(Root::open) {
        Some(Ok(root)) => crate::process::diagnose_exec(&root, program, &process.env, failure.errno),
        _ => format!("exec: {program:?}: {}", failure.errno),
    }
}
