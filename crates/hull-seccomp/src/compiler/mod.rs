//! From a profile to a program. `build.rs` includes this module too, so it uses nothing else of the crate.
//!
//! Semantics are those of libseccomp as runc uses it, where the specification is silent:
//! * The native architecture is always filtered. A call of an architecture that the profile does not list kills the
//!   thread; x32 counts as its own architecture. Number -1 (a tracer skips the call) gets the default action.
//! * A rule whose action is the default action is dropped. The first unconditional rule of a call beats all others of
//!   that call. Conditional rules are tried in the order of the profile, and the first that holds decides.
//! * A rule that compares one argument twice is split into one rule for each comparison, joined by "or".
//! * A masked comparison masks both sides.
//! * Where registers have 32 bits, only the low half of a value is compared.
//! * On 32-bit x86, a rule for a socket call also covers it inside `socketcall`, and System V IPC inside `ipc`. A filter
//!   cannot see their arguments, so a conditional rule counts there only when it is stricter than the default action,
//!   and then always holds.
//! * With a default action that denies, calls newer than the newest that the profile names get `ENOSYS`, as a kernel
//!   without them would answer: the C library falls back on `ENOSYS` but not on `EPERM`.

pub(crate) mod arch;
pub(crate) mod bpf;
mod codegen;
mod multiplex;
mod rules;
pub(crate) mod tables;

use arch::Arch;
use hull_oci::spec::Seccomp;

pub(crate) use rules::{ACTIONS, FLAGS};

/// Why a profile was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such action.
    #[error("seccomp {field}: unknown action {name:?}, expected one of SCMP_ACT_*")]
    UnknownAction {
        /// Where.
        field: String,
        /// What was found.
        name: String,
    },
    /// An errno beside an action that takes none.
    #[error("seccomp {field}: action {action} takes no errno")]
    ErrnoNotTaken {
        /// Where.
        field: String,
        /// The action.
        action: String,
    },
    /// An errno that the kernel cannot return.
    #[error("seccomp {field}: errno {errno} is more than {max}")]
    ErrnoTooLarge {
        /// Where.
        field: String,
        /// What was found.
        errno: u32,
        /// The largest possible.
        max: u32,
    },
    /// No such architecture.
    #[error("seccomp architectures: unknown architecture {0:?}, expected SCMP_ARCH_*")]
    UnknownArch(String),
    /// Hull has no system call table for the machine that it runs on.
    #[error("seccomp: no system call table for this machine's architecture")]
    NoTable,
    /// No such flag.
    #[error("seccomp flags: unknown flag {0:?}, expected SECCOMP_FILTER_FLAG_*")]
    UnknownFlag(String),
    /// A rule names nothing.
    #[error("seccomp syscalls[{rule}].names: empty name")]
    EmptyName {
        /// Index of the rule.
        rule: usize,
    },
    /// An argument that no system call has.
    #[error("seccomp syscalls[{rule}].args: argument index {index}, expected 0 to 5")]
    ArgIndex {
        /// Index of the rule.
        rule: usize,
        /// What was found.
        index: u32,
    },
    /// More comparisons than arguments.
    #[error("seccomp syscalls[{rule}].args: {count} comparisons, expected at most 6")]
    TooManyArgs {
        /// Index of the rule.
        rule: usize,
        /// What was found.
        count: usize,
    },
    /// Notification where it would hang the container.
    #[error("seccomp {field}: SCMP_ACT_NOTIFY cannot be used for {what}")]
    NotifyRefused {
        /// Where.
        field: String,
        /// The call, or the default action.
        what: &'static str,
    },
    /// Notification without a receiver.
    #[error("seccomp listenerPath: missing, but SCMP_ACT_NOTIFY is used")]
    NoListener,
    /// Text for a receiver that does not exist.
    #[error("seccomp listenerMetadata: set without listenerPath")]
    MetadataWithoutListener,
    /// The kernel would refuse the program for its length.
    #[error("seccomp: the filter has {instructions} instructions, more than the 4096 that the kernel takes")]
    TooLong {
        /// Its length.
        instructions: usize,
    },
    /// A program that is no filter.
    #[error("seccomp: invalid program at instruction {at}: {what}")]
    Invalid {
        /// Index of the instruction.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// What a profile becomes.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) program: Vec<u8>,
    pub(crate) flags: u32,
    pub(crate) notify: bool,
    pub(crate) unknown: Vec<String>,
}

/// Compiles for a machine of architecture `native`.
pub(crate) fn compile_for(profile: &Seccomp, native: Arch) -> Result<Compiled, Error> {
    let rules = rules::Rules::parse(profile, native)?;
    let program = codegen::generate(&rules)?;
    Ok(Compiled { program, flags: rules.flags, notify: rules.notify, unknown: rules.unknown })
}
