//! Making processes and replacing them: `clone3(2)`, `execve(2)`, `close_range(2)`.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::check;

bitflags::bitflags! {
    /// Flags of [`clone3`] (`clone(2)`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct CloneFlags: u64 {
        /// New mount namespace.
        const NEWNS = libc::CLONE_NEWNS as u64;
        /// New cgroup namespace.
        const NEWCGROUP = libc::CLONE_NEWCGROUP as u64;
        /// New UTS namespace.
        const NEWUTS = libc::CLONE_NEWUTS as u64;
        /// New IPC namespace.
        const NEWIPC = libc::CLONE_NEWIPC as u64;
        /// New user namespace.
        const NEWUSER = libc::CLONE_NEWUSER as u64;
        /// New PID namespace.
        const NEWPID = libc::CLONE_NEWPID as u64;
        /// New network namespace.
        const NEWNET = libc::CLONE_NEWNET as u64;
        /// New time namespace for the children of the new process.
        const NEWTIME = 0x80;
        /// The new process is a sibling of the caller.
        const PARENT = libc::CLONE_PARENT as u64;
    }
}

/// Both sides of a clone.
#[derive(Debug)]
pub enum Cloned {
    /// In the parent: the child's process ID and a descriptor of it.
    Parent(i32, OwnedFd),
    /// In the child.
    Child,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Number of threads of this process, from `/proc/self/task`; `None` without procfs.
#[must_use]
pub fn thread_count() -> Option<usize> {
    std::fs::read_dir("/proc/self/task").ok().map(Iterator::count)
}

/// Makes a process that shares nothing with its parent (`clone3(2)`, Linux 5.3; `cgroup` needs 5.7 and cgroup v2).
///
/// The child is a copy of the caller and inherits its descriptors. It must not return into code that the parent also
/// runs, and should end by `execve` or [`exit_now`].
///
/// # Errors
/// As `clone(2)`: `EPERM` without the capability for a namespace, `EINVAL` for flags that exclude each other.
///
/// # Panics
/// In debug builds, when the process has more than one thread: a copy of a threaded process may hold locks for ever.
pub fn clone3(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    debug_assert!(thread_count().is_none_or(|count| count == 1), "clone3 from a threaded process");
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: flags.bits() | CLONE_PIDFD,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if flags.contains(CloneFlags::PARENT) {
        args.exit_signal = 0;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM, so the child has its own copy of this stack and memory; `args` outlives the call and its
    // `pidfd` points to a live integer.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: CLONE_PIDFD made the kernel store a new descriptor that nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    #[expect(clippy::cast_possible_truncation, reason = "process IDs fit pid_t")]
    Ok(Cloned::Parent(pid as i32, pidfd))
}

/// Ends the process at once, without destructors or `atexit` handlers (`_exit(2)`).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// A null-terminated array of C strings for [`execve`], allocated ahead of the clone.
#[derive(Debug)]
pub struct ExecArray {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl ExecArray {
    /// Keeps the strings and their addresses.
    #[must_use]
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Self { strings, pointers }
    }

    /// The strings.
    #[must_use]
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Replaces the program (`execve(2)`); returns only on failure.
#[must_use]
pub fn execve(path: &CStr, args: &ExecArray, env: &ExecArray) -> Errno {
    // SAFETY: the path is a C string; both arrays end in a null pointer and own the strings they point to.
    let returned = unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    check(libc::c_long::from(returned)).err().unwrap_or(Errno::INVAL)
}

/// Replaces the program by an open file (`execveat(2)` with `AT_EMPTY_PATH`, Linux 3.19); returns only on failure.
#[must_use]
pub fn fexecve(file: BorrowedFd<'_>, args: &ExecArray, env: &ExecArray) -> Errno {
    // SAFETY: as for `execve`; the path is an empty C string.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(returned).err().unwrap_or(Errno::INVAL)
}

/// Sets close-on-exec on every descriptor from `first` on (`close_range(2)`, flag since Linux 5.11).
///
/// # Errors
/// `ENOSYS` before 5.9, `EINVAL` before 5.11.
pub fn cloexec_from(first: u32) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: only sets a flag on descriptors; none is closed before `execve`.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Lets a descriptor survive `execve` (`fcntl(2)` with `F_SETFD`). For handing work to another image of this process;
/// whoever calls it replaces the process at once.
///
/// # Errors
/// None for an open descriptor.
pub fn keep_across_exec(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())
}

/// Closes every descriptor from `first` on that is not in `keep` (`close_range(2)`, Linux 5.9). For a process that has
/// just been cloned and is going to use nothing but those: owners of the others must not be used or dropped afterwards.
///
/// # Errors
/// `ENOSYS` before 5.9.
pub fn close_others(first: u32, keep: &mut [u32]) -> Result<(), Errno> {
    keep.sort_unstable();
    let close = |from: u32, to: u32| {
        if from > to {
            return Ok(());
        }
        // SAFETY: by the contract above nothing uses these descriptors any more.
        check(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0_u32) }).map(drop)
    };
    let mut from = first;
    for number in keep.iter().copied().filter(|number| *number >= first) {
        if number > from {
            close(from, number - 1)?;
        }
        from = number.saturating_add(1);
    }
    close(from, u32::MAX)
}

/// Takes ownership of a descriptor that the process inherited, such as one named by `LISTEN_FDS`.
///
/// Returns `None` when no such descriptor is open. The caller must take each number at most once.
#[must_use]
pub fn take_inherited_fd(number: i32) -> Option<OwnedFd> {
    // SAFETY: F_GETFD only reads a flag and fails on a closed number.
    if number < 0 || unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return None;
    }
    // SAFETY: the descriptor is open, and by the contract above nothing else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Leaves namespaces that the caller shares with its parent (`unshare(2)`).
///
/// # Errors
/// As `unshare(2)`: `EPERM` without the capability, `EINVAL` for a namespace that this kernel lacks.
pub fn unshare(namespaces: CloneFlags) -> Result<(), Errno> {
    let namespaces = namespaces - CloneFlags::PARENT;
    #[expect(clippy::cast_possible_truncation, reason = "every namespace flag fits an int")]
    // SAFETY: only namespace flags are passed, never CLONE_FILES or CLONE_VM, so no descriptor table is split.
    check(libc::c_long::from(unsafe { libc::unshare(namespaces.bits() as libc::c_int) })).map(drop)
}

/// Sets signals to their default disposition (the lowest bit of `ignored` is signal 1) and unblocks all.
///
/// Programs inherit ignored and blocked signals through `execve(2)`; a container must not start with the runtime's. Those
/// with handlers get their default there.
pub fn reset_signals(ignored: u64) {
    // SAFETY: resetting a disposition to the default installs no handler; the numbers are checked by the kernel, which
    // refuses SIGKILL and SIGSTOP with an error that means nothing here.
    unsafe {
        for signal in (1..=64).filter(|signal| ignored >> (signal - 1) & 1 == 1) {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}
