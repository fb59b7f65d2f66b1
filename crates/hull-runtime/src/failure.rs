//! What the child reports between `clone3` and `execve`: a fixed record, never text.
//!
//! The child makes only raw system calls on prepared data. When one fails it sends `{step, index, errno}` over the
//! sync socket and `_exit`s; the parent, which still has the whole plan, turns the record into a sentence.

use rustix::io::Errno;

/// The steps of a container's start, in the order they are taken. The number crosses the sync socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[expect(missing_docs, reason = "each is explained by `Step::describe`")]
pub enum Step {
    Sync = 1,
    JoinNamespace,
    UnshareNamespace,
    TimeOffset,
    BecomeRoot,
    Session,
    Keyring,
    Loopback,
    RootPropagation,
    RootMount,
    Mount,
    Device,
    DeviceLink,
    Terminal,
    CreateContainerHook,
    Pivot,
    RootReadonly,
    Hostname,
    Domainname,
    Sysctl,
    ReadonlyPath,
    MaskedPath,
    OomScore,
    Rlimit,
    Scheduler,
    IoPriority,
    Personality,
    MemoryPolicy,
    Affinity,
    AppArmor,
    SelinuxLabel,
    NoNewPrivileges,
    Seccomp,
    SeccompListener,
    Bounding,
    Groups,
    User,
    Capabilities,
    Ambient,
    WorkingDirectory,
    ProgramLookup,
    WaitStart,
    StartContainerHook,
    CloseFds,
    Exec,
    SetNamespaceAttribute,
}

/// A failed step: which, the index of the item in the plan's list for that step (0 if it has none), and the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step.
    pub step: Step,
    /// Index of the mount, device, path, ... in the plan's list.
    pub index: u16,
    /// The kernel's answer.
    pub errno: Errno,
}

impl Failure {
    /// A failure of a step that has no list.
    #[must_use]
    pub fn new(step: Step, errno: Errno) -> Self {
        Self { step, index: 0, errno }
    }

    /// A failure of item `index` of a step's list.
    #[must_use]
    pub fn at(step: Step, index: usize, errno: Errno) -> Self {
        Self { step, index: u16::try_from(index).unwrap_or(u16::MAX), errno }
    }
}

/// `.map_err(step(Step::X))` for calls of steps without a list.
pub fn step(step: Step) -> impl Fn(Errno) -> Failure {
    move |errno| Failure::new(step, errno)
}
