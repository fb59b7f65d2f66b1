//! Loading system call filters: `seccomp(2)`.

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::check;

const SET_MODE_FILTER: libc::c_ulong = 1;
const GET_ACTION_AVAIL: libc::c_ulong = 2;

/// Filter every thread of the process (Linux 3.17).
pub const FLAG_TSYNC: u32 = 1;
/// Log every action except allow (Linux 4.14).
pub const FLAG_LOG: u32 = 1 << 1;
/// Leave speculative store bypass enabled (Linux 4.17).
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// Return a descriptor that receives notifications (Linux 5.0).
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// Fail with `ESRCH` when threads diverge, which `FLAG_TSYNC` needs beside a listener (Linux 5.7).
pub const FLAG_TSYNC_ESRCH: u32 = 1 << 4;
/// A notified call that was received ignores signals that do not kill (Linux 5.19).
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Bytes of one instruction (`struct sock_filter`).
pub const INSTRUCTION_BYTES: usize = 8;

#[repr(C)]
struct Program {
    len: libc::c_ushort,
    filter: *const u8,
}

/// Installs a classic BPF program as a filter of the calling thread (`seccomp(2)`, `SECCOMP_SET_MODE_FILTER`,
/// Linux 3.17). Does not allocate.
///
/// `program` is an array of `struct sock_filter` in the byte order of this machine. Returns the notify descriptor,
/// close-on-exec, when `flags` has [`FLAG_NEW_LISTENER`].
///
/// # Errors
/// `EACCES` without `CAP_SYS_ADMIN` and without no_new_privs; `EINVAL` for a program or flag that the kernel refuses, or
/// a length that is no whole number of instructions; `EBUSY` when a listener exists; `ESRCH` when a thread could not be
/// synchronised.
pub fn load(program: &[u8], flags: u32) -> Result<Option<OwnedFd>, Errno> {
    if program.is_empty() || !program.len().is_multiple_of(INSTRUCTION_BYTES) {
        return Err(Errno::INVAL);
    }
    let len = libc::c_ushort::try_from(program.len() / INSTRUCTION_BYTES).map_err(|_| Errno::INVAL)?;
    let program = Program { len, filter: program.as_ptr() };
    // SAFETY: the kernel copies `len` instructions from `filter`, all inside the slice, which outlives the call; it
    // verifies the program itself and asks for no alignment.
    let returned = check(unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, libc::c_ulong::from(flags), &raw const program)
    })?;
    if flags & FLAG_NEW_LISTENER != 0 {
        let number = i32::try_from(returned).map_err(|_| Errno::BADF)?;
        // SAFETY: with this flag a successful call returns a new descriptor that nothing else owns.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }));
    }
    // A positive value is the thread that FLAG_TSYNC could not bring along: nothing was installed.
    if returned == 0 { Ok(None) } else { Err(Errno::SRCH) }
}

/// Whether the kernel knows a filter's return action (`SECCOMP_GET_ACTION_AVAIL`, Linux 4.14).
#[must_use]
pub fn action_available(action: u32) -> bool {
    // SAFETY: the kernel reads one `u32` that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0 as libc::c_ulong, &raw const action) }).is_ok()
}

/// Whether the kernel knows all these filter flags; 0 asks for filters at all. Installs nothing.
#[must_use]
pub fn flags_supported(flags: u32) -> bool {
    // Without NEW_LISTENER the kernel refuses this one as senseless rather than as unknown.
    let flags = if flags & FLAG_WAIT_KILLABLE_RECV != 0 { flags | FLAG_NEW_LISTENER } else { flags };
    // Flags are checked before the program is read, so a null program tells known flags (EFAULT) from unknown (EINVAL).
    // SAFETY: a null program is never dereferenced by this process, and the kernel answers EFAULT.
    let returned = check(unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, libc::c_ulong::from(flags), std::ptr::null::<Program>())
    });
    returned == Err(Errno::FAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_tell_known_from_unknown() {
        assert!(action_available(0x7fff_0000), "allow");
        assert!(!action_available(0x1234_0000));
        assert!(flags_supported(0));
        assert!(flags_supported(FLAG_TSYNC));
        assert!(!flags_supported(1 << 30));
    }

    #[test]
    fn odd_lengths_are_refused() {
        assert_eq!(load(&[], 0).map(drop), Err(Errno::INVAL));
        assert_eq!(load(&[0; 9], 0).map(drop), Err(Errno::INVAL));
    }
}
