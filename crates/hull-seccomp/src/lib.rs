//! Seccomp: profiles compiled to BPF decision trees.
//!
//! [`compile`] turns the `linux.seccomp` section of the OCI runtime specification into a classic BPF program for
//! `seccomp(2)`, without libseccomp. [`default_filter`] is the default profile's filter; the usual ones are compiled
//! when Hull is built. This crate makes no system call; `hull_sys::seccomp::load` installs what it makes.
//!
//! The semantics are those of libseccomp as runc uses it; the `compiler` module lists the choices. A program that would
//! be longer than the kernel takes is an error, never cut short.

mod compiler;
mod profile;

use std::borrow::Cow;

use hull_oci::spec::Seccomp;

pub use compiler::Error;
pub use compiler::arch::Arch;

include!(concat!(env!("OUT_DIR"), "/prepared.rs"));

/// Bytes of one instruction.
const INSTRUCTION_BYTES: usize = 8;

/// A compiled filter, ready to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    program: Cow<'static, [u8]>,
    flags: u32,
    notify: bool,
    unknown: Vec<String>,
}

impl Filter {
    /// Takes a program from a cache, after checking that the kernel would run it to an end.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLong`].
    pub fn from_program(program: Vec<u8>, flags: u32, notify: bool) -> Result<Self, Error> {
        compiler::bpf::verify(&program)?;
        Ok(Self { program: Cow::Owned(program), flags, notify, unknown: Vec::new() })
    }

    /// The program: an array of `struct sock_filter` in the machine's byte order.
    #[must_use]
    pub fn program(&self) -> &[u8] {
        &self.program
    }

    /// Number of instructions.
    #[must_use]
    pub fn instructions(&self) -> usize {
        self.program.len() / INSTRUCTION_BYTES
    }

    /// `SECCOMP_FILTER_FLAG_*` bits to load it with, `NEW_LISTENER` included where it notifies.
    #[must_use]
    pub const fn flags(&self) -> u32 {
        self.flags
    }

    /// Whether loading gives a listener, which goes to the profile's `listenerPath`.
    #[must_use]
    pub const fn notify(&self) -> bool {
        self.notify
    }

    /// Names in the profile that no architecture has: skipped, and worth a warning.
    #[must_use]
    pub fn unknown_calls(&self) -> &[String] {
        &self.unknown
    }

    /// Checks the program: known instructions, jumps inside it, a return at its end, at most 4096 instructions.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLong`].
    pub fn verify(&self) -> Result<(), Error> {
        compiler::bpf::verify(&self.program)
    }
}

/// The architecture that this program was built for.
///
/// # Errors
/// [`Error::NoTable`] where Hull has no system call table for it.
pub fn native_arch() -> Result<Arch, Error> {
    Arch::from_target(std::env::consts::ARCH).ok_or(Error::NoTable)
}

/// Compiles a profile for this machine.
///
/// # Errors
/// See [`Error`]; each names the field of the profile.
pub fn compile(profile: &Seccomp) -> Result<Filter, Error> {
    compile_for(profile, native_arch()?)
}

/// Compiles a profile for a machine of another architecture (of the same byte order).
///
/// # Errors
/// See [`Error`].
pub fn compile_for(profile: &Seccomp, native: Arch) -> Result<Filter, Error> {
    let compiled = compiler::compile_for(profile, native)?;
    Ok(Filter {
        program: Cow::Owned(compiled.program),
        flags: compiled.flags,
        notify: compiled.notify,
        unknown: compiled.unknown,
    })
}

fn prepared(gates: u32) -> Option<Filter> {
    let (_, program) = PREPARED.iter().find(|(known, _)| *known == gates)?;
    Some(Filter { program: Cow::Borrowed(program), flags: 0, notify: false, unknown: Vec::new() })
}

/// The default profile's filter for a container that keeps these capabilities (`CAP_*` names).
///
/// Compiled when Hull was built for sets that open the gates of none, of `CAP_SYS_CHROOT` alone (Docker's default set),
/// or of all; other sets are compiled here, in well under a millisecond.
#[must_use]
pub fn default_filter(capabilities: &[String]) -> Filter {
    let gates = profile::gates(capabilities);
    prepared(gates)
        .or_else(|| native_arch().and_then(|arch| compile(&profile::document(gates, &[arch]))).ok())
        // The tests compile every single gate; should one ever fail, the filter without any is the stricter one.
        .or_else(|| prepared(0))
        .unwrap_or_else(deny_all)
}

/// Kills on every call.
const fn deny_all() -> Filter {
    Filter { program: Cow::Borrowed(&[6, 0, 0, 0, 0, 0, 0, 0]), flags: 0, notify: false, unknown: Vec::new() }
}

/// The default profile as a document, for `config.json` and `inspect`. No architectures means the native one alone.
#[must_use]
pub fn default_profile(capabilities: &[String], arches: &[Arch]) -> Seccomp {
    let native: Vec<Arch> = native_arch().into_iter().collect();
    profile::document(profile::gates(capabilities), if arches.is_empty() { &native } else { arches })
}

/// `SCMP_ACT_*` names and the filter's return values, for `features` and probing.
#[must_use]
pub fn known_actions() -> &'static [(&'static str, u32)] {
    compiler::ACTIONS
}

/// `SECCOMP_FILTER_FLAG_*` names and bits.
#[must_use]
pub fn known_flags() -> &'static [(&'static str, u32)] {
    compiler::FLAGS
}

/// `SCMP_CMP_*` names.
#[must_use]
pub const fn known_operators() -> &'static [&'static str] {
    &["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"]
}

/// Names of the architectures that filters can be made for; profiles may name every [`Arch`].
#[must_use]
pub fn known_archs() -> Vec<&'static str> {
    Arch::ALL.iter().filter(|arch| arch.audit().is_some()).map(|arch| arch.name()).collect()
}
