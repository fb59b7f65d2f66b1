//! Signals as descriptors: `signalfd(2)`, and sending through a pidfd (`pidfd_send_signal(2)`).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::check;

/// Signals that tell of a fault of the process itself; blocking them would hide it.
const FAULTS: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGSYS];

/// A signal read from a [`redirect`] descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Signal number.
    pub signal: i32,
    /// Process that sent it, or the child that changed state.
    pub pid: i32,
}

fn set(fill: bool) -> libc::sigset_t {
    // SAFETY: sigset_t is plain data for which all zeroes is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    if fill {
        // SAFETY: `set` is a live sigset_t.
        unsafe { libc::sigfillset(&raw mut set) };
        for signal in FAULTS {
            // SAFETY: as above, with valid signal numbers.
            unsafe { libc::sigdelset(&raw mut set, signal) };
        }
    }
    set
}

fn set_mask(mask: &libc::sigset_t) -> Result<(), Errno> {
    // SAFETY: `mask` is initialised and outlives the call; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) } {
        0 => Ok(()),
        code => Err(Errno::from_raw_os_error(code)),
    }
}

/// Blocks every signal except those that report a fault of this thread, and returns a non-blocking descriptor that
/// delivers them (`signalfd(2)`, Linux 2.6.27). Meant for single-threaded processes.
///
/// # Errors
/// As `signalfd(2)`.
pub fn redirect() -> Result<OwnedFd, Errno> {
    let mask = set(true);
    set_mask(&mask)?;
    // SAFETY: `mask` is initialised and outlives the call.
    let fd = check(libc::c_long::from(unsafe {
        libc::signalfd(-1, &raw const mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    }))?;
    #[expect(clippy::cast_possible_truncation, reason = "descriptors are int")]
    // SAFETY: signalfd returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Blocks every signal except those that report a fault of this thread (`sigprocmask(2)`).
///
/// # Errors
/// None are known.
pub fn block_all() -> Result<(), Errno> {
    set_mask(&set(true))
}

/// Has a program begin with no signal blocked, though this process has blocked some.
pub fn unblock_in(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: between fork and exec only `pthread_sigmask` is called, which is safe there (signal-safety(7)).
    unsafe { command.pre_exec(|| unblock_all().map_err(Into::into)) };
}

/// Unblocks every signal (`sigprocmask(2)`).
///
/// # Errors
/// None are known.
pub fn unblock_all() -> Result<(), Errno> {
    set_mask(&set(false))
}

/// Takes the next signal from a [`redirect`] descriptor; `None` when no signal is pending.
///
/// # Errors
/// As `read(2)`.
pub fn next(signals: BorrowedFd<'_>) -> Result<Option<Received>, Errno> {
    let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(signals, &mut info) {
        Ok(_) => {}
        Err(Errno::AGAIN) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    let number = |offset: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&info[offset..offset + 4]);
        i32::from_ne_bytes(bytes)
    };
    Ok(Some(Received {
        signal: number(std::mem::offset_of!(libc::signalfd_siginfo, ssi_signo)),
        pid: number(std::mem::offset_of!(libc::signalfd_siginfo, ssi_pid)),
    }))
}

/// Sends any signal, real-time ones included, to exactly this process (`pidfd_send_signal(2)`, Linux 5.1). Signal 0
/// only asks whether it is there.
///
/// # Errors
/// `ESRCH` once the process has ended and been reaped, `EPERM`, `EINVAL` for a signal that does not exist.
pub fn pidfd_send_signal(process: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: a null siginfo is allowed; the other arguments are integers.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    })
    .map(drop)
}

/// A child that has ended and waits to be reaped, without reaping it (`waitid(2)` with `WNOWAIT`); `None` when there
/// is none.
#[must_use]
pub fn ended_child() -> Option<i32> {
    // SAFETY: siginfo_t is plain data for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is live and writable.
    let returned = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
    if returned != 0 {
        return None;
    }
    // SAFETY: waitid filled in the fields of SIGCHLD, or left the zeroes.
    let pid = unsafe { info.si_pid() };
    (pid != 0).then_some(pid)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;

    #[test]
    fn real_time_signal_arrives_through_the_descriptor() {
        let signals = redirect().unwrap();
        assert_eq!(next(signals.as_fd()), Ok(None));
        let this = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        // The test's thread may not be the main one, which would take a process-wide signal and die.
        if rustix::thread::gettid() != getpid() {
            println!("skipped: needs the main thread to block signals");
            return;
        }
        pidfd_send_signal(this.as_fd(), 40).unwrap();
        let expected = Received { signal: 40, pid: getpid().as_raw_nonzero().get() };
        assert_eq!(next(signals.as_fd()), Ok(Some(expected)));
    }

    #[test]
    fn ended_children_are_seen_and_stay() {
        assert_eq!(ended_child(), None);
        let mut command = std::process::Command::new("/proc/self/exe");
        let mut child = command.arg("--help").stdout(std::process::Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while ended_child().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(ended_child(), Some(pid));
        assert!(child.wait().unwrap().success());
        assert_eq!(ended_child(), None);
    }

    #[test]
    fn sending_reports_errors() {
        let this = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        assert_eq!(pidfd_send_signal(this.as_fd(), 0), Ok(()));
        assert_eq!(pidfd_send_signal(this.as_fd(), 65), Err(Errno::INVAL));
    }
}
