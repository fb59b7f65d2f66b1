//! Errors of the runtime: each names the operation and its object, in one line.

use std::path::PathBuf;

use hull_oci::spec::one_line;
use rustix::io::Errno;

/// Why an operation on a container failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration asks for something that is wrong in itself. `field` is its path in `config.json`.
    #[error("config field `{}`: {}", one_line(field), one_line(reason))]
    Config {
        /// Such as `linux.namespaces[2].path`.
        field: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// The configuration asks for something that this kernel, machine or build does not have.
    #[error("config field `{}`: {}", one_line(field), one_line(reason))]
    Unsupported {
        /// As in [`Error::Config`].
        field: String,
        /// What is missing.
        reason: String,
    },
    /// What the caller had to do meanwhile failed; the caller knows why.
    #[error("what was to be done while the container was made failed")]
    Meanwhile,
    /// A document could not be parsed.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: hull_oci::ParseError,
    },
    /// A system call on an object failed.
    #[error("{operation} {}: {errno}", one_line(object))]
    System {
        /// Verb phrase such as `open`, `create directory`.
        operation: &'static str,
        /// What it was done to.
        object: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// No container of that ID below the state root.
    #[error("container does not exist: {0}")]
    NoContainer(String),
    /// The ID is taken.
    #[error("container with given ID already exists: {0}")]
    Exists(String),
    /// The ID has characters that an ID must not have.
    #[error("invalid container ID format: {0:?}")]
    InvalidId(String),
    /// The container has ended, or was never started. The wording is what callers look for.
    #[error("container not running: {0}")]
    NotRunning(String),
    /// Only a stopped container can be deleted without force.
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped {
        /// The container.
        id: String,
        /// Its state.
        status: &'static str,
    },
    /// The operation does not fit the container's state.
    #[error("cannot {operation} container {id}: it is {status}")]
    Status {
        /// The operation.
        operation: &'static str,
        /// The container.
        id: String,
        /// Its state.
        status: &'static str,
    },
    /// The child failed before the user's program ran. `exec` tells whether the program itself was the reason.
    #[error("{message}")]
    Init {
        /// What failed, on what, why.
        message: String,
        /// The step and errno it is made from.
        failure: crate::failure::Failure,
    },
    /// A hook failed or ran out of time.
    #[error("{point} hook #{index} {path}: {reason}")]
    Hook {
        /// `createRuntime`, ...
        point: &'static str,
        /// Index in the list.
        index: usize,
        /// Program.
        path: String,
        /// Exit status or errno.
        reason: String,
    },
    /// Control groups.
    #[error(transparent)]
    Cgroup(#[from] hull_cgroup::Error),
    /// System call filter.
    #[error("seccomp: {0}")]
    Seccomp(#[from] hull_seccomp::Error),
    /// Paths and files.
    #[error(transparent)]
    Fs(#[from] hull_fs::Error),
    /// Network devices.
    #[error(transparent)]
    Netlink(#[from] hull_netlink::Error),
    /// Checkpoint or restore.
    #[error("{0}")]
    Checkpoint(String),
    /// Several things went wrong while cleaning up; all were tried.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Cleanup(Vec<Error>),
}

impl Error {
    /// A wrong configuration field.
    pub fn config(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config { field: field.into(), reason: reason.into() }
    }

    /// A configuration field that cannot be honoured here.
    pub fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), reason: reason.into() }
    }

    /// `.map_err(Error::system("open", path))`.
    pub fn system(operation: &'static str, object: impl ToString) -> impl FnOnce(Errno) -> Self {
        let object = object.to_string();
        move |errno| Self::System { operation, object, errno }
    }
}
