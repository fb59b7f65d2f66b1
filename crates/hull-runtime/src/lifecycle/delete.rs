//! Deletion: the reverse of creation, step by step, going on after errors.

use std::os::fd::AsFd;
use std::path::Path;

use hull_oci::Status;
use rustix::io::Errno;

use crate::error::Error;
use crate::hooks::Point;
use crate::lifecycle::signal;
use crate::state::{self, Record};

/// Deletes a container: its processes, cgroup and directory, then runs its `poststop` hooks.
///
/// Returns what hooks failed, which by the specification does not fail the deletion.
///
/// # Errors
/// [`Error::Status`] when it runs and `force` is not set; [`Error::NoContainer`]; [`Error::Cleanup`] with what could not
/// be removed, in which case the record is kept so that the deletion can be repeated.
pub fn delete(root: &Path, id: &str, force: bool) -> Result<Vec<Error>, Error> {
    let record = match Record::load(root, id) {
        // A directory without a readable record is what a crash or a full disk left.
        Err(error @ (Error::NoContainer(_) | Error::Parse { .. })) if force => {
            return delete_unreadable(root, id, error);
        }
        other => other?,
    };
    let status = record.status(root);
    if !force && matches!(status, Status::Running | Status::Paused | Status::Creating) {
        return Err(Error::NotStopped { id: record.id, status: status.as_str() });
    }
    let mut errors = end_processes(&record);
    if let Err(error) = record.cgroup.delete() {
        errors.push(error.into());
    }
    if let Some(group) = &record.intel_rdt
        && let Err(errno) = rustix::fs::rmdir(group)
        && errno != Errno::NOENT
    {
        errors.push(Error::System { operation: "remove resctrl group", object: group.display().to_string(), errno });
    }
    if !errors.is_empty() {
        return Err(Error::Cleanup(errors));
    }
    remove_directory(root, id)?;
    Ok(match Point::plan("poststop", &record.hooks.poststop) {
        Ok(hooks) if hooks.is_empty() => Vec::new(),
        Ok(hooks) => hooks.run_all(&record.state(Status::Stopped)),
        Err(error) => vec![error],
    })
}

/// Kills what is left and waits for it.
fn end_processes(record: &Record) -> Vec<Error> {
    let mut errors = Vec::new();
    let pidfd = record.pidfd().ok();
    if let Some(pidfd) = &pidfd {
        // It may end on its own before the signal arrives.
        if let Err(errno) = hull_sys::signal::pidfd_send_signal(pidfd.as_fd(), signal::KILL)
            && errno != Errno::SRCH
        {
            errors.push(Error::System { operation: "kill container", object: record.id.clone(), errno });
        }
    }
    // Also ends what a container without a PID namespace left, and what `exec` put into the group. Thawing after the
    // signal leaves frozen processes no moment to run.
    if let Err(error) = record.cgroup.kill_all(signal::KILL) {
        errors.push(error.into());
    }
    if record.cgroup.is_frozen().unwrap_or(false)
        && let Err(error) = record.cgroup.thaw()
    {
        errors.push(error.into());
    }
    if let Some(pidfd) = &pidfd
        && !state::wait_gone(pidfd)
    {
        errors.push(Error::System {
            operation: "wait for container",
            object: record.id.clone(),
            errno: Errno::TIMEDOUT,
        });
    }
    errors
}

fn delete_unreadable(root: &Path, id: &str, error: Error) -> Result<Vec<Error>, Error> {
    match rustix::fs::stat(state::directory(root, id)) {
        Ok(_) => remove_directory(root, id).map(|()| Vec::new()),
        Err(_) => Err(error),
    }
}

fn remove_directory(root: &Path, id: &str) -> Result<(), Error> {
    state::check_id(id)?;
    let directory = state::directory(root, id);
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(state::io_error("remove directory", &directory, &error))
        }
        _ => Ok(()),
    }
}
