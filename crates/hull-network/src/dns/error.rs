//! Errors of name resolution.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Why names cannot be served or recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{operation} {path}: {errno}", path = path.display())]
    System {
        /// Such as `open`.
        operation: &'static str,
        /// File or socket.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A file could not be locked or replaced.
    #[error(transparent)]
    File(#[from] hull_fs::Error),
    /// A settings file that was not written by this program.
    #[error("name settings {path}: line {line} cannot be read: connect the container to its networks again", path = path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The firewall table of the container's namespace.
    #[error("redirect name queries in the container's network namespace: {0}")]
    Redirect(#[from] hull_netlink::Error),
}

impl Error {
    pub(super) fn system(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(Errno) -> Self {
        let path = path.as_ref().to_owned();
        move |errno| Self::System { operation, path, errno }
    }
}
