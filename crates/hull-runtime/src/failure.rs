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
    Cgroup,
}

impl Step {
    /// Every step, by number.
    const ALL: [Self; 47] = [
        Self::Sync,
        Self::JoinNamespace,
        Self::UnshareNamespace,
        Self::TimeOffset,
        Self::BecomeRoot,
        Self::Session,
        Self::Keyring,
        Self::Loopback,
        Self::RootPropagation,
        Self::RootMount,
        Self::Mount,
        Self::Device,
        Self::DeviceLink,
        Self::Terminal,
        Self::CreateContainerHook,
        Self::Pivot,
        Self::RootReadonly,
        Self::Hostname,
        Self::Domainname,
        Self::Sysctl,
        Self::ReadonlyPath,
        Self::MaskedPath,
        Self::OomScore,
        Self::Rlimit,
        Self::Scheduler,
        Self::IoPriority,
        Self::Personality,
        Self::MemoryPolicy,
        Self::Affinity,
        Self::AppArmor,
        Self::SelinuxLabel,
        Self::NoNewPrivileges,
        Self::Seccomp,
        Self::SeccompListener,
        Self::Bounding,
        Self::Groups,
        Self::User,
        Self::Capabilities,
        Self::Ambient,
        Self::WorkingDirectory,
        Self::ProgramLookup,
        Self::WaitStart,
        Self::StartContainerHook,
        Self::CloseFds,
        Self::Exec,
        Self::SetNamespaceAttribute,
        Self::Cgroup,
    ];

    /// The step of this number; an unknown one is taken for [`Step::Sync`].
    #[must_use]
    pub fn from_number(number: u16) -> Self {
        Self::ALL.into_iter().find(|step| *step as u16 == number).unwrap_or(Self::Sync)
    }

    /// Verb phrase for error messages.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Sync => "talk to the runtime",
            Self::JoinNamespace => "join namespace",
            Self::UnshareNamespace => "create namespace",
            Self::TimeOffset => "set time offset",
            Self::BecomeRoot => "become root of the user namespace",
            Self::Session => "create session",
            Self::Keyring => "join session keyring",
            Self::Loopback => "bring up loopback device",
            Self::RootPropagation => "set propagation of the root mount",
            Self::RootMount => "mount root file system",
            Self::Mount => "mount",
            Self::Device => "create device",
            Self::DeviceLink => "create device link",
            Self::Terminal => "open terminal",
            Self::CreateContainerHook => "run createContainer hook",
            Self::Pivot => "change root",
            Self::RootReadonly => "make root file system read-only",
            Self::Hostname => "set hostname",
            Self::Domainname => "set domainname",
            Self::Sysctl => "set sysctl",
            Self::ReadonlyPath => "make path read-only",
            Self::MaskedPath => "mask path",
            Self::OomScore => "set oom_score_adj",
            Self::Rlimit => "set rlimit",
            Self::Scheduler => "set scheduler",
            Self::IoPriority => "set I/O priority",
            Self::Personality => "set personality",
            Self::MemoryPolicy => "set memory policy",
            Self::Affinity => "set CPU affinity",
            Self::AppArmor => "apply AppArmor profile",
            Self::SelinuxLabel => "apply SELinux label",
            Self::NoNewPrivileges => "set no_new_privs",
            Self::Seccomp => "load seccomp filter",
            Self::SeccompListener => "send seccomp listener",
            Self::Bounding => "drop capabilities from the bounding set",
            Self::Groups => "set groups",
            Self::User => "set user",
            Self::Capabilities => "set capabilities",
            Self::Ambient => "set ambient capabilities",
            Self::WorkingDirectory => "change to working directory",
            Self::ProgramLookup => "find program",
            Self::WaitStart => "wait for start",
            Self::StartContainerHook => "run startContainer hook",
            Self::CloseFds => "close descriptors",
            Self::Exec => "exec",
            Self::SetNamespaceAttribute => "set up namespace",
            Self::Cgroup => "join cgroup",
        }
    }
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
