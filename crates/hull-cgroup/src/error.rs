//! Errors of control groups.

use std::path::{Path, PathBuf};

use hull_oci::spec::one_line;
use rustix::io::Errno;

/// Why an operation on a control group failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `linux.cgroupsPath` cannot be used.
    #[error("cgroup path {path:?}: {reason}")]
    Path {
        /// As configured.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A limit has a value that no kernel accepts.
    #[error("config field `linux.resources.{}`: {}", one_line(field), one_line(reason))]
    Invalid {
        /// Below `linux.resources`, such as `memory.limit`.
        field: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// A limit cannot be honoured on this machine.
    #[error("config field `linux.resources.{}`: {}", one_line(field), one_line(reason))]
    Unsupported {
        /// Below `linux.resources`.
        field: String,
        /// What is missing.
        reason: String,
    },
    /// The kernel refused the value of a limit.
    #[error("config field `linux.resources.{}`: write {value:?} to {path}: {errno}{}", one_line(field), hint(field, *errno))]
    Write {
        /// Below `linux.resources`.
        field: String,
        /// What was written.
        value: String,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A system call failed.
    #[error("{operation} {path}: {errno}")]
    System {
        /// Verb phrase.
        operation: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The group exists and is in use.
    #[error("cgroup {path} {reason}")]
    InUse {
        /// Its directory.
        path: PathBuf,
        /// `is not empty: process 12`, `is frozen`.
        reason: String,
    },
    /// The kernel did not finish in time.
    #[error("timed out after {milliseconds} ms: {operation} {path}")]
    Timeout {
        /// Verb phrase.
        operation: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// How long was waited.
        milliseconds: u64,
    },
    /// A file of the kernel does not have the expected form.
    #[error("{path}: unexpected content {content:?}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The beginning of what was found.
        content: String,
    },
    /// No cgroup file system that could hold the container.
    #[error("no cgroup file system is mounted at /sys/fs/cgroup or listed in /proc/self/mountinfo")]
    NotMounted,
    /// systemd or its bus refused.
    #[error("systemd: {operation}: {reason}")]
    Systemd {
        /// Verb phrase.
        operation: String,
        /// Error name and message, or what is wrong with the connection.
        reason: String,
    },
    /// Several steps of a removal failed; all were tried.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Error>),
}

/// What a value that is refused is wrong about, where one errno says it.
fn hint(field: &str, errno: Errno) -> &'static str {
    if field.starts_with("memory.") && errno == Errno::BUSY {
        return "; the processes use more than that and it cannot be taken from them";
    }
    ""
}

impl Error {
    pub(crate) fn system(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::System { operation, path: path.as_ref().to_path_buf(), errno }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), reason: reason.into() }
    }

    /// The kernel's answer, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Write { errno, .. } | Self::System { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Folds the errors of a clean-up into one result.
    pub(crate) fn collect(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => errors.pop().map_or(Ok(()), Err),
            _ => Err(Self::Several(errors)),
        }
    }
}
