//! bpf(2): device programs of cgroup v2.
//!
//! Only `BPF_PROG_TYPE_CGROUP_DEVICE` (Linux 4.15) is loaded; its context is three words: access and type, major, minor.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::check;

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 2;
const F_REPLACE: u32 = 4;

/// One instruction (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low four bits, source in the high ones.
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// Operand.
    pub immediate: i32,
}

#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next: u32,
    open_flags: u32,
}

fn call<T>(command: libc::c_long, attr: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: each `T` above is the beginning of `union bpf_attr` for its command, of exactly the size passed; pointers
    // in it refer to memory that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) })
}

/// Loads a device program (`bpf(2)` `BPF_PROG_LOAD`, Linux 4.15); the descriptor is close-on-exec.
///
/// # Errors
/// `EPERM` without `CAP_BPF` or `CAP_SYS_ADMIN`, `EINVAL` or `EACCES` for a program that the verifier refuses.
pub fn load_device_program(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let license = c"Apache-2.0";
    let mut attr = LoadAttr {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    own(call(PROG_LOAD, &mut attr)?)
}

/// Attaches a device program to a cgroup beside those of its ancestors (`BPF_PROG_ATTACH` with `BPF_F_ALLOW_MULTI`,
/// Linux 4.15), in the place of `replaced` if given (`BPF_F_REPLACE`, Linux 5.6).
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` or where an ancestor has an exclusive program.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut attr = AttachAttr {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: CGROUP_DEVICE,
        attach_flags: F_ALLOW_MULTI | if replaced.is_some() { F_REPLACE } else { 0 },
        replace_bpf_fd: replaced.map_or(0, number),
    };
    call(PROG_ATTACH, &mut attr).map(drop)
}

/// Takes a device program off a cgroup (`BPF_PROG_DETACH`, Linux 4.15).
///
/// # Errors
/// `ENOENT` if it is not attached.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut attr = AttachAttr {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: CGROUP_DEVICE,
        ..AttachAttr::default()
    };
    call(PROG_DETACH, &mut attr).map(drop)
}

/// The device programs attached to a cgroup itself (`BPF_PROG_QUERY`, Linux 4.15), at most 64. Allocates.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`, `ENOSPC` for more than 64.
pub fn device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Errno> {
    let mut ids = [0_u32; 64];
    let mut attr = QueryAttr {
        target_fd: number(cgroup),
        attach_type: CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        ..QueryAttr::default()
    };
    call(PROG_QUERY, &mut attr)?;
    let mut programs = Vec::new();
    for &id in ids.iter().take(attr.prog_cnt as usize) {
        match call(PROG_GET_FD_BY_ID, &mut IdAttr { id, ..IdAttr::default() }) {
            Ok(fd) => programs.push(own(fd)?),
            // Detached by somebody else meanwhile.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(programs)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn own(fd: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec as all of bpf(2).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
