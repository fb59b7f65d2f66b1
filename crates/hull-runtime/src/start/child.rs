//! The container's first process between `clone3` and `execve`.
//!
//! One flat list of steps, in the order that the specification's life cycle and the kernel's rules give. Each is a raw
//! system call or a few on data that the plan holds. The process never returns from here: it becomes the program or ends.

use std::os::fd::{AsRawFd as _, OwnedFd};

use hull_oci::State;
use hull_sys::clone::{CloneFlags, Cloned, clone3, exit_now};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{Gid, Uid};

use crate::failure::{Failure, Step, step};
use crate::plan::Plan;
use crate::sync::{self, Kind};
use crate::terminal;

/// What the child holds.
pub(super) struct Child<'a> {
    pub(super) plan: &'a mut Plan,
    /// Files by which it enters its v1 cgroups.
    pub(super) tasks: Vec<OwnedFd>,
    /// Its end of the sync socket.
    pub(super) socket: OwnedFd,
    /// Read: one byte lets it go on.
    pub(super) start: OwnedFd,
    /// Written: what fails after `create` has returned.
    pub(super) result: OwnedFd,
    /// The state document for hooks, but for the process ID.
    pub(super) state: State,
}

/// Ends the process when dropped: a panic must not unwind a copy of the parent's stack.
pub(crate) struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        exit_now(70);
    }
}

impl Child<'_> {
    /// Becomes the program. Failures go to the runtime: over the sync socket before `create` is done, then over the
    /// result FIFO.
    pub(super) fn run(mut self) -> ! {
        let _bomb = Bomb;
        if let Err(failure) = self.prepare() {
            let _ = sync::send(&self.socket, sync::Record::failed(failure));
            exit_now(1);
        }
        let failure = self.finish();
        let _ = sync::send(&self.result, sync::Record::failed(failure));
        // Whoever reads it looks into this process's root to say which file is to blame, and then writes once more.
        let limit = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        let _ = rustix::event::poll(&mut [PollFd::new(&self.start, PollFlags::IN)], Some(&limit));
        exit_now(1)
    }

    /// Until the container is `created`.
    fn prepare(&mut self) -> Result<(), Failure> {
        // The runtime may be killed at any step; its container must not outlive it before it is whole.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(step(Step::Sync))?;
        enter_cgroups(&mut self.tasks)?;
        if self.plan.namespaces.joined_user() {
            self.join_and_fork()?;
        } else if self.plan.namespaces.new_user() {
            sync::expect(&self.socket, Kind::Mapped)?;
        }
        if !self.plan.namespaces.joined_user() {
            // While `/proc/self/timens_offsets` still belongs to this process's user: it is about to belong to nobody.
            self.plan.namespaces.enter_time()?;
        }
        // Nobody inside may trace this process or open its descriptors before it is the program (CVE-2016-9962).
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step(Step::Session))?;
        if self.plan.namespaces.new_user() {
            become_root()?;
            // Changing identity has cleared it.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(step(Step::Sync))?;
        }
        if !self.plan.namespaces.joined_user() {
            self.plan.namespaces.join()?;
        }
        rustix::process::setsid().map_err(step(Step::Session))?;
        if self.plan.new_keyring {
            match hull_sys::attributes::join_session_keyring(c"_ses.hull") {
                // A kernel without keyrings, or a filter around the runtime that forbids them.
                Ok(_) | Err(Errno::NOSYS | Errno::PERM) => {}
                Err(errno) => return Err(Failure::new(Step::Keyring, errno)),
            }
        }
        if self.plan.namespaces.new.contains(CloneFlags::NEWNET) {
            hull_netlink::loopback_up().map_err(step(Step::Loopback))?;
        }

        let (namespaces, socket) = (&self.plan.namespaces, &self.socket);
        let mut attached = false;
        let mut enter_cgroup = || {
            if !attached {
                attached = true;
                if !namespaces.joined_user() {
                    sync::expect(socket, Kind::Attached)?;
                }
                namespaces.enter_cgroup()?;
            }
            Ok(())
        };
        self.plan.rootfs.mount_all(&mut enter_cgroup)?;
        enter_cgroup()?;

        if !self.plan.hooks.prestart.is_empty() || !self.plan.hooks.create_runtime.is_empty() {
            self.tell(Kind::Hooks, 0)?;
            sync::expect(&self.socket, Kind::Continue)?;
        }
        self.hook(Step::CreateContainerHook)?;
        if self.plan.terminal {
            self.open_terminal()?;
        } else if let Some([stdin, stdout, stderr]) = &self.plan.streams.stdio {
            rustix::stdio::dup2_stdin(stdin).map_err(step(Step::Terminal))?;
            rustix::stdio::dup2_stdout(stdout).map_err(step(Step::Terminal))?;
            rustix::stdio::dup2_stderr(stderr).map_err(step(Step::Terminal))?;
        }
        self.plan.rootfs.pivot()?;
        if !self.plan.hostname.is_empty() {
            rustix::system::sethostname(self.plan.hostname.as_bytes()).map_err(step(Step::Hostname))?;
        }
        if !self.plan.domainname.is_empty() {
            rustix::system::setdomainname(self.plan.domainname.as_bytes()).map_err(step(Step::Domainname))?;
        }
        self.plan.sysctls.apply()?;
        self.plan.rootfs.finish()?;
        self.plan.process.apply_early()?;
        // From the listener on, any further call may be one that its agent has to answer.
        let socket = &self.socket;
        self.plan.process.apply_identity_with(self.plan.filter.as_ref(), &mut |listener| {
            sync::send(socket, sync::Record::with(Kind::Listener, listener.as_raw_fd())).map_err(step(Step::Sync))?;
            sync::expect(socket, Kind::Continue)
        })?;
        self.plan.process.lookup()?;
        self.tell(Kind::Ready, 0)?;
        sync::expect(&self.socket, Kind::Continue)?;
        // Identity changes have cleared the death signal, or it is cleared here: from now on the container lives alone.
        rustix::process::set_parent_process_death_signal(None).map_err(step(Step::Sync))?;
        self.tell(Kind::Detached, 0)
    }

    /// From `start` to the program; returns only the failure.
    fn finish(&mut self) -> Failure {
        let mut byte = [0_u8; 1];
        if let Err(errno) = rustix::io::retry_on_intr(|| rustix::io::read(&self.start, &mut byte)) {
            return Failure::new(Step::WaitStart, errno);
        }
        if let Err(failure) = self.hook(Step::StartContainerHook) {
            return failure;
        }
        hull_sys::clone::reset_signals(self.plan.process.ignored_signals());
        if self.plan.signals_blocked {
            // None is known to fail, and the program runs without it too.
            let _ = hull_sys::signal::block_all();
        }
        if let Err(errno) = hull_sys::clone::cloexec_from(3 + self.plan.streams.preserve_fds) {
            return Failure::new(Step::CloseFds, errno);
        }
        if let Err(failure) = self.plan.process.apply_late(self.plan.filter.as_ref()) {
            return failure;
        }
        self.plan.process.exec()
    }

    fn tell(&self, kind: Kind, value: i32) -> Result<(), Failure> {
        sync::send(&self.socket, sync::Record::with(kind, value)).map_err(step(Step::Sync))
    }

    fn hook(&mut self, at: Step) -> Result<(), Failure> {
        let (point, status) = match at {
            Step::CreateContainerHook => (&self.plan.hooks.create_container, hull_oci::Status::Creating),
            _ => (&self.plan.hooks.start_container, hull_oci::Status::Created),
        };
        if point.is_empty() {
            return Ok(());
        }
        self.state.pid = rustix::process::getpid().as_raw_pid();
        self.state.status = status;
        // Directories and nodes of the container are made without a umask; what a hook makes is not.
        let without = match (at, self.plan.rootfs.inherited_umask()) {
            (Step::CreateContainerHook, Some(inherited)) => Some(rustix::process::umask(inherited)),
            _ => None,
        };
        let done = point.run_raw(&self.state);
        if let Some(without) = without {
            rustix::process::umask(without);
        }
        done.map_err(|(index, reason)| {
            let errno = match reason {
                crate::hooks::Reason::System(errno) => errno,
                crate::hooks::Reason::Timeout(_) => Errno::TIMEDOUT,
                _ => Errno::CANCELED,
            };
            Failure::at(at, index, errno)
        })
    }

    fn open_terminal(&mut self) -> Result<(), Failure> {
        let (master, slave) = self.plan.rootfs.dev_pts_terminal()?;
        if let Some(console) = &self.plan.streams.console {
            terminal::send_fd(console, b"/dev/ptmx", &master).map_err(step(Step::Terminal))?;
        }
        terminal::adopt(&slave).map_err(step(Step::Terminal))
    }

    /// Joins a user namespace and forks again inside it, so that the new namespaces belong to it. The first process ends;
    /// the second is its sibling and goes on.
    fn join_and_fork(&mut self) -> Result<(), Failure> {
        sync::expect(&self.socket, Kind::Attached)?;
        self.plan.namespaces.join()?;
        self.plan.namespaces.enter_time()?;
        become_root()?;
        let flags = self.plan.namespaces.new | CloneFlags::PARENT;
        match clone3(flags, None).map_err(step(Step::UnshareNamespace))? {
            Cloned::Parent(pid, _pidfd) => {
                let _ = sync::send(&self.socket, sync::Record::with(Kind::Pid, pid));
                exit_now(0)
            }
            Cloned::Child => {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(step(Step::Sync))?;
                sync::expect(&self.socket, Kind::Continue)
            }
        }
    }
}

/// Takes the user namespace's root: what comes next needs its capabilities and makes files owned by it.
pub(crate) fn become_root() -> Result<(), Failure> {
    match rustix::thread::set_thread_groups(&[]) {
        // An ordinary user's namespace may forbid it.
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(Failure::new(Step::BecomeRoot, errno)),
    }
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).map_err(step(Step::BecomeRoot))?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(step(Step::BecomeRoot))
}

/// Moves this process, which has one thread, into cgroups by their `tasks` files, and closes those.
pub(crate) fn enter_cgroups(tasks: &mut Vec<OwnedFd>) -> Result<(), Failure> {
    for file in tasks.drain(..) {
        rustix::io::write(&file, b"0").map_err(step(Step::Cgroup))?;
    }
    Ok(())
}
