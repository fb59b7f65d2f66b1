//! Signals, freezing and process lists.

use std::os::fd::AsFd;
use std::path::Path;

use hull_oci::Status;
use rustix::fs::CWD;
use rustix::io::Errno;

use crate::error::Error;
use crate::lifecycle::signal;
use crate::state::Record;

fn wrong_status(operation: &'static str, record: &Record, status: Status) -> Error {
    Error::Status { operation, id: record.id.clone(), status: status.as_str() }
}

/// Whether the container's processes are in the caller's PID namespace, so that they outlive its first process.
pub(crate) fn shares_pid_namespace(pid: i32) -> bool {
    let namespace = |path: String| rustix::fs::readlinkat(CWD, path, Vec::new()).ok();
    let theirs = namespace(format!("/proc/{pid}/ns/pid"));
    theirs.is_some() && theirs == namespace("/proc/self/ns/pid".to_owned())
}

/// Sends a signal to the first process, or with `all` to every process of the container's cgroup.
///
/// # Errors
/// [`Error::NotRunning`] when the container has ended.
pub fn kill(root: &Path, id: &str, number: i32, all: bool) -> Result<(), Error> {
    let record = Record::load(root, id)?;
    let stopped = || Error::NotRunning(record.id.clone());
    if all {
        if !record.alive() && record.cgroup.pids().unwrap_or_default().is_empty() {
            return Err(stopped());
        }
        record.cgroup.kill_all(number)?;
    } else {
        let pidfd = record.pidfd().map_err(|_| stopped())?;
        let shared = number == signal::KILL && shares_pid_namespace(record.pid);
        hull_sys::signal::pidfd_send_signal(pidfd.as_fd(), number).map_err(|errno| match errno {
            Errno::SRCH => stopped(),
            errno => Error::System { operation: "signal container", object: record.id.clone(), errno },
        })?;
        if shared {
            // Nothing else would end the other processes of a container without a PID namespace of its own.
            record.cgroup.kill_all(number)?;
        }
    }
    // A frozen process of a v1 freezer takes even SIGKILL only once it is thawed.
    if number == signal::KILL && record.cgroup.is_frozen().unwrap_or(false) {
        record.cgroup.thaw()?;
    }
    Ok(())
}

/// Freezes every process of the container.
///
/// # Errors
/// [`Error::Status`] unless it is created or running.
pub fn pause(root: &Path, id: &str) -> Result<(), Error> {
    let record = Record::load(root, id)?;
    match record.status(root) {
        Status::Running | Status::Created => Ok(record.cgroup.freeze()?),
        status => Err(wrong_status("pause", &record, status)),
    }
}

/// Lets the processes of a paused container run again.
///
/// # Errors
/// [`Error::Status`] unless it is paused.
pub fn resume(root: &Path, id: &str) -> Result<(), Error> {
    let record = Record::load(root, id)?;
    match record.status(root) {
        Status::Paused => Ok(record.cgroup.thaw()?),
        status => Err(wrong_status("resume", &record, status)),
    }
}

/// IDs of the container's processes, as the caller's PID namespace numbers them, sorted.
///
/// # Errors
/// [`Error::Cgroup`] when the groups cannot be read.
pub fn processes(root: &Path, id: &str) -> Result<Vec<i32>, Error> {
    let record = Record::load(root, id)?;
    if record.cgroup.driver() == hull_cgroup::Driver::Disabled {
        return Ok(if record.alive() { vec![record.pid] } else { Vec::new() });
    }
    let mut pids = record.cgroup.pids()?;
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}
