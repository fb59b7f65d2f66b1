//! System calls that rustix lacks, behind safe signatures. The only crate of the workspace with `unsafe` code.
//!
//! Each function is one kernel interface: its documentation names the manual page and the first kernel that has it.
//! Nothing here allocates unless its documentation says so, because most of it runs between `clone3` and `execve`.

pub mod attributes;
pub mod bpf;
pub mod clone;
#[cfg(target_arch = "x86_64")]
pub mod entry;
pub mod file;
pub mod memory;
pub mod mount;
pub mod quota;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod trace;

pub use rustix::io::Errno;

/// Turns the C convention (-1 and `errno`) into a result.
pub(crate) fn check(returned: libc::c_long) -> Result<libc::c_long, Errno> {
    if returned == -1 {
        // SAFETY: `__errno_location` returns this thread's always valid errno.
        let code = unsafe { *libc::__errno_location() };
        Err(Errno::from_raw_os_error(code))
    } else {
        Ok(returned)
    }
}
