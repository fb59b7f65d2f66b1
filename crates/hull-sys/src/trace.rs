//! Following a process instruction by instruction (`ptrace(2)`), for developer commands; the product does not trace.

use rustix::io::Errno;
use rustix::process::Pid;

use crate::check;

/// The event of a stop that `execve(2)` causes, in the third byte of what `wait(2)` reports.
pub const EVENT_EXEC: i32 = libc::PTRACE_EVENT_EXEC;

fn request(request: libc::c_uint, pid: Pid, data: usize) -> Result<(), Errno> {
    // SAFETY: the requests of this module read and write no memory of this process through `data`, except GETREGS,
    // which passes the address of a live structure.
    check(unsafe { libc::ptrace(request, pid.as_raw_nonzero().get(), 0_usize, data) }).map(drop)
}

/// Begins to trace a process and those that it will make (`PTRACE_SEIZE`, Linux 3.4). They die with the tracer.
///
/// # Errors
/// As `ptrace(2)`: `EPERM` without the right to, `ESRCH` if it is gone.
pub fn seize(pid: Pid) -> Result<(), Errno> {
    let options = libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_EXITKILL;
    request(libc::PTRACE_SEIZE, pid, usize::try_from(options).unwrap_or_default())
}

/// Lets a stopped process run one instruction, with a signal or none (0).
///
/// # Errors
/// As `ptrace(2)`: `ESRCH` if it is gone or not stopped.
pub fn step(pid: Pid, signal: u8) -> Result<(), Errno> {
    request(libc::PTRACE_SINGLESTEP, pid, signal.into())
}

/// Lets a stopped process run, with a signal or none (0).
///
/// # Errors
/// As [`step`].
pub fn resume(pid: Pid, signal: u8) -> Result<(), Errno> {
    request(libc::PTRACE_CONT, pid, signal.into())
}

/// Where a stopped process is.
///
/// # Errors
/// As [`step`]; `ENOSYS` on processors other than x86-64.
pub fn instruction_pointer(pid: Pid) -> Result<u64, Errno> {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: plain data for which all zeroes is a value.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        request(libc::PTRACE_GETREGS, pid, (&raw mut registers).expose_provenance())?;
        Ok(registers.rip)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = pid;
        Err(Errno::NOSYS)
    }
}
