//! A directory that paths are resolved inside.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::{Error, inside};

/// A directory that stands for `/`: no path looked up in it leads out of it.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens a directory of the host as a root. `path` itself is resolved as usual.
    ///
    /// # Errors
    /// When it cannot be opened or is not a directory.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map(Self).map_err(Error::system("open directory", path))
    }

    /// Takes an open directory as a root.
    #[must_use]
    pub fn from_fd(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// Gives the descriptor back.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Finds a path, following links inside the root. The descriptor is `O_PATH`.
    ///
    /// # Errors
    /// When it does not exist or a magic link is on the way.
    pub fn resolve(&self, path: &Path) -> Result<OwnedFd, Error> {
        inside::open(self.as_fd(), path, OFlags::PATH, Mode::empty()).map_err(Error::system("resolve", path))
    }

    /// Opens an existing file; `flags` as in `open(2)` (`O_CLOEXEC` and `O_NOCTTY` are added).
    ///
    /// # Errors
    /// As `openat2(2)`.
    pub fn open_file(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Error> {
        inside::open(self.as_fd(), path, flags, Mode::empty()).map_err(Error::system("open", path))
    }

    /// Finds a directory and makes what is missing of it with `mode`. The descriptor is `O_PATH`.
    ///
    /// # Errors
    /// When a component exists and is no directory, or cannot be made.
    pub fn create_dir_all(&self, path: &Path, mode: u32) -> Result<OwnedFd, Error> {
        inside::create_dir_all(self.as_fd(), path, Mode::from_raw_mode(mode))
            .map_err(Error::system("create directory", path))
    }

    /// Finds a file or makes an empty one with `mode`, and the directories above it. The descriptor is `O_PATH`.
    ///
    /// # Errors
    /// When it is a directory or cannot be made.
    pub fn create_file(&self, path: &Path, mode: u32) -> Result<OwnedFd, Error> {
        inside::create_file(self.as_fd(), path, Mode::from_raw_mode(mode)).map_err(Error::system("create file", path))
    }

    /// Reads a regular file of at most `max` bytes.
    ///
    /// # Errors
    /// When it cannot be read, is not a regular file, or is longer.
    pub fn read_bounded(&self, path: &Path, max: usize) -> Result<Vec<u8>, Error> {
        // O_NONBLOCK so that a FIFO planted at the path cannot hang the reader.
        let file = self.open_file(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        match inside::file_type(&file) {
            Ok(kind) if kind.is_file() => {}
            Ok(_) => return Err(Error::system("read", path)(rustix::io::Errno::INVAL)),
            Err(errno) => return Err(Error::system("stat", path)(errno)),
        }
        read_bounded(file, path, max)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reads to the end, at most `max` bytes; `path` is for the error.
pub(crate) fn read_bounded(file: OwnedFd, path: &Path, max: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    match std::fs::File::from(file).take(limit).read_to_end(&mut bytes) {
        Ok(length) if length > max => Err(Error::TooLong { path: path.to_path_buf(), max }),
        Ok(_) => Ok(bytes),
        Err(error) => {
            let errno = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO);
            Err(Error::system("read", path)(errno))
        }
    }
}
