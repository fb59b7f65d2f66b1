//! What can go wrong with a file.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// A failed operation on a file, with its path as the caller named it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{operation} {path}: {errno}", path = .path.display())]
    System {
        /// Verb phrase such as `open` or `create directory`.
        operation: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A file is longer than its reader accepts.
    #[error("read {path}: longer than {max} bytes", path = .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        max: usize,
    },
    /// A descriptor that should be the root of a procfs is something else.
    #[error("{path} is not the root of a proc file system", path = .0.display())]
    NotProcfs(PathBuf),
}

impl Error {
    /// `.map_err(Error::system("open", path))`.
    pub fn system(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::System { operation, path: path.as_ref().to_path_buf(), errno }
    }

    /// The kernel's answer, where there was one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::System { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Whether the file does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(Errno::NOENT)
    }
}
