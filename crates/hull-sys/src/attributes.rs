//! Process attributes: scheduler, affinity, I/O priority, personality, NUMA policy, keyrings, working directory, netlink
//! options.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::check;

/// Attributes for [`sched_setattr`]: the second version of the kernel's structure, 56 bytes (Linux 5.3).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedAttr {
    size: u32,
    /// `SCHED_OTHER` is 0, and so on (`sched(7)`).
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value, -20 to 19.
    pub nice: i32,
    /// Static priority, 1 to 99 for the real-time policies and 0 for others.
    pub priority: u32,
    /// `SCHED_DEADLINE` runtime, nanoseconds.
    pub runtime: u64,
    /// `SCHED_DEADLINE` deadline, nanoseconds.
    pub deadline: u64,
    /// `SCHED_DEADLINE` period, nanoseconds.
    pub period: u64,
    /// Lower utilisation clamp, 0 to 1024.
    pub util_min: u32,
    /// Upper utilisation clamp, 0 to 1024.
    pub util_max: u32,
}

/// Sets scheduling policy and parameters of a thread; 0 is the caller (`sched_setattr(2)`, Linux 3.14).
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE` for a raised priority, `EINVAL` for parameters that do not fit the policy, `EBUSY` when
/// a deadline cannot be admitted.
pub fn sched_setattr(pid: i32, attributes: &SchedAttr) -> Result<(), Errno> {
    #[expect(clippy::cast_possible_truncation, reason = "the structure has 56 bytes")]
    let attributes = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*attributes };
    // SAFETY: the structure outlives the call, is only read, and carries its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attributes, 0_u32) }).map(drop)
}

/// Restricts a thread to CPUs, bit N of word N/64 being CPU N; 0 is the caller (`sched_setaffinity(2)`, Linux 2.6).
/// The mask has any length, so there is no limit of 1024 CPUs.
///
/// # Errors
/// `EINVAL` when no CPU of the mask is usable, `EPERM`, `ESRCH`.
pub fn sched_setaffinity(pid: i32, mask: &[u64]) -> Result<(), Errno> {
    // SAFETY: the kernel reads at most the given number of bytes, all inside the slice.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr()) }).map(drop)
}

/// Reads a thread's CPUs into `mask`, as words of [`sched_setaffinity`]; returns how many bytes the kernel filled
/// (`sched_getaffinity(2)`, Linux 2.6).
///
/// # Errors
/// `EINVAL` when the mask is shorter than the kernel's.
pub fn sched_getaffinity(pid: i32, mask: &mut [u64]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most the given number of bytes, all inside the slice.
    let filled =
        check(unsafe { libc::syscall(libc::SYS_sched_getaffinity, pid, size_of_val(mask), mask.as_mut_ptr()) })?;
    Ok(usize::try_from(filled).unwrap_or(0))
}

/// Sets the I/O scheduling class (1 real time, 2 best effort, 3 idle) and level (0 to 7) of a process; 0 is the caller
/// (`ioprio_set(2)`, Linux 2.6.13).
///
/// # Errors
/// `EPERM` for the real-time class without privilege, `EINVAL` for a wrong class or level.
pub fn ioprio_set(pid: i32, class: u16, level: u16) -> Result<(), Errno> {
    const WHO_PROCESS: libc::c_int = 1;
    let value = libc::c_int::from(class) << 13 | libc::c_int::from(level);
    // SAFETY: integer arguments only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, pid, value) }).map(drop)
}

/// I/O class and level of a process, packed as in `ioprio_set(2)` (`ioprio_get(2)`, Linux 2.6.13).
///
/// # Errors
/// `ESRCH`.
pub fn ioprio_get(pid: i32) -> Result<(u16, u16), Errno> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: integer arguments only.
    let value = check(unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, pid) })?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "masked to the field's width")]
    Ok(((value >> 13) as u16 & 7, (value & 0x1fff) as u16))
}

/// Execution domain `PER_LINUX`.
pub const PER_LINUX: u32 = 0;
/// Execution domain `PER_LINUX32`: `uname(2)` shows the 32-bit machine.
pub const PER_LINUX32: u32 = 8;

/// Sets the execution domain and returns the former one (`personality(2)`). `u32::MAX` only reads.
///
/// # Errors
/// `EINVAL` when the kernel refuses the value.
pub fn personality(persona: u32) -> Result<u32, Errno> {
    // SAFETY: integer argument only.
    let former = check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(persona)) })?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the domain has 32 bits")]
    Ok(former as u32)
}

/// Sets the NUMA policy of the calling thread; bit N of word N/64 is node N (`set_mempolicy(2)`, Linux 2.6.7).
///
/// # Errors
/// `EINVAL` for nodes that are not there or do not fit the mode, `ENOSYS` in a kernel without NUMA.
pub fn set_mempolicy(mode: u32, nodes: &[u64]) -> Result<(), Errno> {
    let mode = libc::c_long::from(mode);
    if nodes.is_empty() {
        // SAFETY: a null mask of length 0 is the documented form of the empty set.
        return check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, std::ptr::null::<u64>(), 0_usize) })
            .map(drop);
    }
    // The kernel reads one bit less than it is told.
    let bits = nodes.len() * 64 + 1;
    // SAFETY: the kernel reads `bits - 1` bits rounded up to words, all inside the slice.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits) }).map(drop)
}

/// Mode and flags of the calling thread's NUMA policy (`get_mempolicy(2)`, Linux 2.6.7).
///
/// # Errors
/// `ENOSYS` in a kernel without NUMA.
pub fn get_mempolicy() -> Result<u32, Errno> {
    let mut mode: libc::c_int = 0;
    let null = std::ptr::null::<u64>();
    // SAFETY: only `mode` is written; a null mask of length 0 asks for nothing more.
    check(unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, null, 0_usize, null, 0_usize) })?;
    #[expect(clippy::cast_sign_loss, reason = "the kernel returns a small positive number")]
    Ok(mode as u32)
}

/// Joins a new session keyring of this name and returns its serial number (`keyctl(2)`, `KEYCTL_JOIN_SESSION_KEYRING`).
///
/// # Errors
/// `ENOSYS` in a kernel without keys, `EDQUOT` when the user has too many.
pub fn join_session_keyring(name: &CStr) -> Result<i32, Errno> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: the name is a C string that outlives the call.
    let serial = check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    #[expect(clippy::cast_possible_truncation, reason = "serial numbers have 32 bits")]
    Ok(serial as i32)
}

/// Lets every process of the key's user search the keyring, beside what is allowed already (`keyctl(2)`,
/// `KEYCTL_DESCRIBE` and `KEYCTL_SETPERM`), so that a later `exec` finds its keys.
///
/// # Errors
/// `EACCES` when the caller neither owns the key nor has `CAP_SYS_ADMIN`.
pub fn keyring_allow_user_search(serial: i32) -> Result<(), Errno> {
    const SETPERM: libc::c_int = 5;
    const DESCRIBE: libc::c_int = 6;
    /// `KEY_USR_SEARCH`.
    const USER_SEARCH: u32 = 0x0008_0000;
    let mut text = [0_u8; 512];
    // SAFETY: the kernel writes at most the given number of bytes, all inside the buffer.
    let length = check(unsafe { libc::syscall(libc::SYS_keyctl, DESCRIBE, serial, text.as_mut_ptr(), text.len()) })?;
    // `type;uid;gid;permissions;description`
    let length = usize::try_from(length).unwrap_or(0).min(text.len());
    let field = text[..length].split(|byte| *byte == b';').nth(3).ok_or(Errno::INVAL)?;
    let permissions =
        std::str::from_utf8(field).ok().and_then(|field| u32::from_str_radix(field, 16).ok()).ok_or(Errno::INVAL)?;
    // SAFETY: integer arguments only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, serial, permissions | USER_SEARCH) }).map(drop)
}

/// Reads the working directory into `buffer` without allocating (`getcwd(2)`). The kernel's own text is returned: a
/// directory outside the process's root begins with `(unreachable)`, which the C library would hide.
///
/// # Errors
/// `ERANGE` when the buffer is too small, `ENOENT` when the directory was removed.
pub fn getcwd(buffer: &mut [u8]) -> Result<&[u8], Errno> {
    // SAFETY: the kernel writes at most the given number of bytes, all inside the buffer.
    let length = check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    // The length counts the final null byte.
    let length = usize::try_from(length).unwrap_or(0).saturating_sub(1);
    buffer.get(..length).ok_or(Errno::RANGE)
}

/// Asks for error texts on a netlink socket (`netlink(7)`, `NETLINK_EXT_ACK`, Linux 4.12). A kernel without them answers
/// without text, so the failure to ask is no error.
pub fn netlink_extended_acknowledgements(socket: BorrowedFd<'_>) {
    const SOL_NETLINK: libc::c_int = 270;
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        let on: libc::c_int = 1;
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel reads one integer, which outlives the call.
        unsafe { libc::setsockopt(socket.as_raw_fd(), SOL_NETLINK, option, (&raw const on).cast(), length) };
    }
}

/// Lets a netlink socket receive only messages whose first one is of these types (`socket(7)`, `SO_ATTACH_FILTER`,
/// Linux 2.2). At most 200 types.
///
/// # Errors
/// `ENOMEM`; `EPERM` when the socket's filter is locked.
pub fn netlink_only(socket: BorrowedFd<'_>, kinds: &[u16]) -> Result<(), Errno> {
    // Offset of the type in struct nlmsghdr. The machine's byte order there, the network's in the filter.
    const TYPE: u32 = 4;
    let instruction = |code: u32, jump_true: usize, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt: u8::try_from(jump_true).unwrap_or(0),
        jf: 0,
        k,
    };
    if kinds.len() > 200 {
        return Err(Errno::INVAL);
    }
    let mut program = vec![instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, TYPE)];
    for (index, kind) in kinds.iter().enumerate() {
        // Over the rest of the comparisons and the refusal.
        let distance = kinds.len() - index;
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, distance, u32::from(kind.to_be())));
    }
    program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0));
    program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, u32::MAX));
    let program =
        libc::sock_fprog { len: u16::try_from(program.len()).map_err(|_| Errno::INVAL)?, filter: program.as_mut_ptr() };
    let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the kernel reads the structure and as many instructions as it says, all of which outlive the call.
    let returned = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        )
    };
    check(returned.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_directory_is_the_kernels_text() {
        let mut buffer = [0; 4096];
        let cwd = getcwd(&mut buffer).unwrap();
        assert_eq!(cwd, std::env::current_dir().unwrap().as_os_str().as_encoded_bytes());
        assert_eq!(getcwd(&mut [0; 1]), Err(Errno::RANGE));
    }

    #[test]
    fn attributes_have_the_size_of_the_kernels_second_version() {
        assert_eq!(size_of::<SchedAttr>(), 56);
    }

    #[test]
    fn affinity_takes_masks_beyond_1024_cpus() {
        let mut mask = [0_u64; 256];
        let filled = sched_getaffinity(0, &mut mask).unwrap();
        assert!(filled > 0);
        sched_setaffinity(0, &mask).unwrap();
        assert_eq!(sched_setaffinity(0, &[0; 256]), Err(Errno::INVAL));
    }

    #[test]
    fn io_priority_is_read_back() {
        ioprio_set(0, 2, 6).unwrap();
        assert_eq!(ioprio_get(0), Ok((2, 6)));
        assert_eq!(ioprio_set(0, 7, 0), Err(Errno::INVAL));
    }

    #[test]
    fn personality_is_read_back() {
        let former = personality(u32::MAX).unwrap();
        personality(PER_LINUX32).unwrap();
        assert_eq!(personality(u32::MAX), Ok(PER_LINUX32));
        personality(former).unwrap();
    }

    #[test]
    fn nice_value_is_lowered() {
        let attributes = SchedAttr { nice: 5, ..SchedAttr::default() };
        sched_setattr(0, &attributes).unwrap();
        assert_eq!(rustix::process::getpriority_process(None), Ok(5));
    }
}
