//! The container's process: identity, limits, labels, environment, program.
//!
//! [`ProcessPlan::new`] checks the `process` section in the parent and prepares every mask, string and array. The other
//! methods run in the child, in this order:
//!
//! 1. [`apply_early`](ProcessPlan::apply_early), still privileged: OOM score, limits, scheduling, execution domain;
//! 2. [`apply_identity`](ProcessPlan::apply_identity): labels, bounding set, no_new_privs, a filter that needs privilege
//!    or has a listener, groups, user, capabilities, umask, working directory;
//! 3. [`lookup`](ProcessPlan::lookup): the program is there and executable, as its user sees it;
//! 4. [`apply_late`](ProcessPlan::apply_late): a filter that needs no privilege, so that it sees nothing but `execve`;
//! 5. [`exec`](ProcessPlan::exec).
//!
//! With a user namespace of its own the child lacks the machine's privileges, so the parent calls
//! [`apply_from_parent`](ProcessPlan::apply_from_parent) before the child goes on.
//!
//! Nothing here resolves a path of the container outside of it, follows a magic link, or writes to `/proc` other than
//! through a verified handle.

pub mod capabilities;
mod diagnose;
pub mod intel_rdt;
mod labels;
mod lists;
mod own;
mod program;
pub mod rlimits;
mod scheduling;
#[cfg(test)]
mod tests;
pub mod user;

use std::os::fd::OwnedFd;
use std::path::Path;

use hull_fs::{Procfs, Root};
use hull_oci::spec::{Linux, Process};
use hull_seccomp::Filter;
use rustix::fs::{Gid as OwnerGid, Mode, Uid as OwnerUid};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{Gid, Uid, set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::error::Error;
use crate::failure::{Failure, Step, step};
use capabilities::CapabilityPlan;
use labels::Labels;
use own::Own;
use program::Program;
use rlimits::RlimitPlan;
use scheduling::Scheduling;

pub use diagnose::{diagnose, diagnose_exec};
pub use labels::{apparmor_enabled, selinux_enabled};

/// Where the process is going to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessContext {
    /// It has another user namespace than the runtime, in which it has every capability.
    pub user_namespace: bool,
    /// The runtime is no root of the machine: the kernel may forbid it to change groups.
    pub unprivileged: bool,
    /// It joins a running container.
    pub exec: bool,
}

/// A process, ready to become its program.
#[derive(Debug)]
pub struct ProcessPlan {
    context: ProcessContext,
    procfs: Option<Procfs>,
    oom_score_adj: Option<OomScore>,
    rlimits: RlimitPlan,
    scheduling: Scheduling,
    labels: Labels,
    capabilities: CapabilityPlan,
    no_new_privileges: bool,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    umask: Mode,
    console_size: Option<(u16, u16)>,
    /// Signals that this process ignores and the program must not; all when it cannot be known.
    ignored_signals: u64,
    program: Program,
    warnings: Vec<String>,
}

/// The number as a text, ready to be written.
#[derive(Debug)]
struct OomScore {
    text: String,
    value: i32,
}

impl ProcessPlan {
    /// Checks the section and prepares the process.
    ///
    /// # Errors
    /// [`Error::Config`] and [`Error::Unsupported`] name the field.
    pub fn new(process: &Process, context: &ProcessContext) -> Result<Self, Error> {
        let mut warnings = Vec::new();
        let own = Own::read();
        let oom_score_adj = process.oom_score_adj.map(oom_score).transpose()?;
        let labels = Labels::new(&process.apparmor_profile, &process.selinux_label)?;
        let wants_procfs = oom_score_adj.is_some() || labels.any();
        let user = &process.user;
        let groups = user
            .additional_gids
            .iter()
            .enumerate()
            .map(|(index, gid)| identity(&format!("process.user.additionalGids[{index}]"), *gid).map(Gid::from_raw))
            .collect::<Result<_, _>>()?;
        let umask = user.umask.unwrap_or(0o022);
        if umask > 0o777 {
            return Err(Error::config("process.user.umask", format!("expected at most 0777, found {umask:#o}")));
        }
        // The affinity of the document is for processes that join later.
        let affinity = process.exec_cpu_affinity.as_ref();
        let mut scheduling = Scheduling::new(process.scheduler.as_ref(), process.io_priority.as_ref(), affinity)?;
        if !context.exec {
            scheduling.forget_affinity();
        }
        Ok(Self {
            context: *context,
            procfs: wants_procfs.then(Procfs::new).transpose()?,
            oom_score_adj,
            rlimits: RlimitPlan::new(&process.rlimits, &mut warnings)?,
            scheduling,
            labels,
            capabilities: CapabilityPlan::new(
                process.capabilities.as_ref(),
                context.user_namespace,
                own,
                &mut warnings,
            )?,
            no_new_privileges: process.no_new_privileges,
            uid: Uid::from_raw(identity("process.user.uid", user.uid)?),
            gid: Gid::from_raw(identity("process.user.gid", user.gid)?),
            groups,
            umask: Mode::from_raw_mode(umask),
            ignored_signals: own.map_or(u64::MAX, |own| own.ignored),
            console_size: process.console_size.map(|size| (size.height, size.width)),
            program: Program::new(process, !context.exec)?,
            warnings,
        })
    }

    /// Adds what the document's `linux` section says about the process: execution domain and NUMA policy.
    ///
    /// # Errors
    /// [`Error::Config`] and [`Error::Unsupported`] name the field.
    pub fn with_linux(mut self, linux: &Linux) -> Result<Self, Error> {
        self.scheduling.set_linux(linux.personality.as_ref(), linux.memory_policy.as_ref())?;
        Ok(self)
    }

    /// Signals that the program would inherit as ignored: the lowest bit is signal 1.
    pub(crate) fn ignored_signals(&self) -> u64 {
        self.ignored_signals
    }

    /// What could not be granted and was left out, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Rows and columns of the terminal, where the document gives them.
    #[must_use]
    pub fn console_size(&self) -> Option<(u16, u16)> {
        self.console_size.filter(|size| *size != (0, 0))
    }

    /// The procfs that labels are going to be written through: the one descriptor of the machine that a joining process
    /// must keep.
    pub(crate) fn procfs_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.procfs.as_ref().filter(|_| self.labels.any()).map(std::os::fd::AsFd::as_fd)
    }

    /// In the parent, for a child with its own user namespace and before it is let go on: OOM score, limits, scheduler and
    /// I/O priority, which need the machine's privileges.
    ///
    /// # Errors
    /// [`Error::System`]; without root, a lower OOM score is a warning instead.
    pub fn apply_from_parent(&mut self, pid: i32) -> Result<(), Error> {
        let process = Pid::from_raw(pid).ok_or_else(|| Error::system("find process", pid)(Errno::SRCH))?;
        if let (Some(score), Some(procfs)) = (&self.oom_score_adj, &self.procfs) {
            match procfs.write_raw(&format!("{pid}/oom_score_adj"), score.text.as_bytes()) {
                Err(Errno::ACCESS | Errno::PERM) if !rustix::process::geteuid().is_root() => {
                    self.warnings.push(format!("oom_score_adj: lowering it to {} is not permitted", score.value));
                    self.oom_score_adj = None;
                }
                result => result.map_err(Error::system("set oom_score_adj of process", pid))?,
            }
        }
        self.rlimits.apply_to(process)?;
        self.scheduling
            .apply_to(pid)
            .map_err(|failure| Error::system(failure.step.describe(), "of container process")(failure.errno))
    }

    /// OOM score, limits, scheduling, execution domain. In the child, with all privileges.
    ///
    /// # Errors
    /// The step that failed; [`Self::describe`] names the object.
    pub fn apply_early(&mut self) -> Result<(), Failure> {
        // The parent has done these for a process that cannot do them itself.
        let own = !self.context.user_namespace || self.context.exec;
        if own {
            if let (Some(score), Some(procfs)) = (&self.oom_score_adj, &self.procfs) {
                procfs
                    .write_raw("thread-self/oom_score_adj", score.text.as_bytes())
                    .or_else(|errno| {
                        // There without the task's own directory, in a kernel before 3.17.
                        if errno == Errno::NOENT {
                            procfs.write_raw("self/oom_score_adj", score.text.as_bytes())
                        } else {
                            Err(errno)
                        }
                    })
                    .map_err(step(Step::OomScore))?;
            }
            self.rlimits.apply()?;
            self.scheduling.apply_to(0)?;
        }
        self.scheduling.apply_own()
    }

    /// Labels, bounding set, no_new_privs, filter, groups, user, capabilities, umask, working directory.
    ///
    /// Returns the listener of a filter that notifies. Such a filter is loaded here even with no_new_privs; so is every
    /// filter without no_new_privs, which needs a capability that the program may not have.
    ///
    /// # Errors
    /// The step that failed; [`Self::describe`] names the object.
    pub fn apply_identity(&mut self, filter: Option<&Filter>) -> Result<Option<OwnedFd>, Failure> {
        let mut listener = None;
        self.apply_identity_with(filter, &mut |fd| {
            listener = Some(fd);
            Ok(())
        })?;
        Ok(listener)
    }

    /// [`Self::apply_identity`] that hands the listener on as soon as it exists, so that calls which are made from then on
    /// can be answered.
    ///
    /// # Errors
    /// As [`Self::apply_identity`], and those of `listener`.
    pub fn apply_identity_with(
        &mut self,
        filter: Option<&Filter>,
        listener: &mut dyn FnMut(OwnedFd) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.context.exec {
            self.scheduling.apply_final_affinity()?;
        }
        if let Some(procfs) = self.procfs.as_ref().filter(|_| self.labels.any()) {
            self.labels.apply(procfs)?;
        }
        self.program.fill_home();
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).map_err(step(Step::NoNewPrivileges))?;
        } else {
            load(filter, listener)?;
        }
        self.capabilities.limit_bounding()?;
        self.own_streams();
        // With the most privilege first; what only the user may enter is tried again as the user.
        let entered = match self.program.enter_cwd() {
            Err(Errno::ACCESS | Errno::PERM) => false,
            result => result.map(|()| true).map_err(step(Step::WorkingDirectory))?,
        };
        self.change_user()?;
        self.capabilities.apply()?;
        rustix::process::umask(self.umask);
        if !entered {
            self.program.enter_cwd().map_err(step(Step::WorkingDirectory))?;
        }
        Program::verify_cwd().map_err(step(Step::WorkingDirectory))?;
        if self.no_new_privileges && filter.is_some_and(Filter::notify) {
            self.program.lookup()?;
            load(filter, listener)?;
        }
        Ok(())
    }

    /// Finds the program inside the container.
    ///
    /// # Errors
    /// [`Step::ProgramLookup`] with `ENOENT`, `EACCES`, `EISDIR`, ...
    pub fn lookup(&mut self) -> Result<(), Failure> {
        self.program.lookup()
    }

    /// Loads a filter that needs no privilege. The last thing before [`Self::exec`].
    ///
    /// # Errors
    /// [`Step::Seccomp`].
    pub fn apply_late(&mut self, filter: Option<&Filter>) -> Result<(), Failure> {
        match filter.filter(|filter| self.no_new_privileges && !filter.notify()) {
            Some(filter) => load(Some(filter), &mut |_| Ok(())),
            None => Ok(()),
        }
    }

    /// Becomes the program; returns only the failure.
    pub fn exec(&mut self) -> Failure {
        self.program.exec()
    }

    /// What a failed step was about, without the error itself.
    #[must_use]
    pub fn describe(&self, failure: &Failure) -> Option<String> {
        match failure.step {
            Step::OomScore => Some(format!("set oom_score_adj to {}", self.oom_score_adj.as_ref()?.value)),
            Step::Groups => Some(format!("set {} additional groups", self.groups.len())),
            Step::User if failure.index == 1 => Some(format!("set group {}", self.gid.as_raw())),
            Step::User => Some(format!("set user {}", self.uid.as_raw())),
            _ => None,
        }
        .or_else(|| self.rlimits.describe(failure))
        .or_else(|| self.labels.describe(failure))
        .or_else(|| capabilities::describe(failure))
        .or_else(|| self.program.describe(failure))
    }

    /// A whole sentence about a program that could not be found or executed, from a look into the root file system.
    #[must_use]
    pub fn exec_message(&self, failure: Failure, rootfs: &Path) -> String {
        match Root::open(rootfs) {
            Ok(root) => diagnose_exec(&root, &self.program.args[0], &self.program.env, failure.errno),
            Err(_) => diagnose::plain(&self.program.args[0], failure.errno),
        }
    }

    /// Gives the standard streams to the user, who could not reopen them through `/dev/stdout` otherwise. Null devices
    /// and what cannot be given stay as they are.
    fn own_streams(&self) {
        if self.uid.is_root() {
            return;
        }
        let null = rustix::fs::makedev(1, 3);
        for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
            let Ok(stat) = rustix::fs::fstat(stream) else { continue };
            if stat.st_uid != self.uid.as_raw() && stat.st_rdev != null {
                // As the file's group stays, so do the group's rights. Many kinds of file refuse, and need none of it.
                let _ = rustix::fs::fchown(stream, Some(OwnerUid::from_raw(self.uid.as_raw())), None::<OwnerGid>);
            }
        }
    }

    fn change_user(&self) -> Result<(), Failure> {
        set_keep_capabilities(true).map_err(step(Step::Capabilities))?;
        match set_thread_groups(&self.groups) {
            // A user namespace made without privilege forbids it, and then there is nothing to take away.
            Err(Errno::PERM)
                if self.groups.is_empty() && (self.context.user_namespace || self.context.unprivileged) => {}
            result => result.map_err(step(Step::Groups))?,
        }
        set_thread_res_gid(self.gid, self.gid, self.gid).map_err(|errno| Failure::at(Step::User, 1, errno))?;
        set_thread_res_uid(self.uid, self.uid, self.uid).map_err(step(Step::User))?;
        set_keep_capabilities(false).map_err(step(Step::Capabilities))
    }
}

fn load(filter: Option<&Filter>, listener: &mut dyn FnMut(OwnedFd) -> Result<(), Failure>) -> Result<(), Failure> {
    let Some(filter) = filter else { return Ok(()) };
    match hull_sys::seccomp::load(filter.program(), filter.flags()).map_err(step(Step::Seccomp))? {
        Some(fd) => listener(fd),
        None => Ok(()),
    }
}

fn oom_score(value: i32) -> Result<OomScore, Error> {
    if !(-1000..=1000).contains(&value) {
        return Err(Error::config("process.oomScoreAdj", format!("expected -1000 to 1000, found {value}")));
    }
    Ok(OomScore { text: value.to_string(), value })
}

/// The highest number means "unchanged" to the kernel.
fn identity(field: &str, id: u32) -> Result<u32, Error> {
    if id == u32::MAX {
        return Err(Error::config(field, format!("{id} is not a valid ID")));
    }
    Ok(id)
}
