//! Advisory locks between Hull's processes (`flock(2)`): the kernel releases them when their holder dies.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::Error;

/// A held lock; dropping it releases it. The file stays.
#[derive(Debug)]
pub struct Lock(OwnedFd);

impl Lock {
    /// Waits until nobody else holds the lock.
    ///
    /// # Errors
    /// When the file cannot be opened or created (with mode 0600), or locked.
    pub fn exclusive(path: &Path) -> Result<Self, Error> {
        take(open(path)?, path, FlockOperation::LockExclusive)
    }

    /// Waits until nobody holds the lock exclusively.
    ///
    /// # Errors
    /// As [`Self::exclusive`].
    pub fn shared(path: &Path) -> Result<Self, Error> {
        take(open(path)?, path, FlockOperation::LockShared)
    }

    /// Takes the lock if nobody else holds it; `None` if somebody does.
    ///
    /// # Errors
    /// As [`Self::exclusive`].
    pub fn try_exclusive(path: &Path) -> Result<Option<Self>, Error> {
        try_take(open(path)?, path, FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes a shared lock if nobody holds it exclusively; `None` if somebody does.
    ///
    /// # Errors
    /// As [`Self::exclusive`].
    pub fn try_shared(path: &Path) -> Result<Option<Self>, Error> {
        try_take(open(path)?, path, FlockOperation::NonBlockingLockShared)
    }

    /// Waits for the exclusive lock of an open file or directory.
    ///
    /// # Errors
    /// As `flock(2)`; `path` is for the error.
    pub fn exclusive_on(file: OwnedFd, path: &Path) -> Result<Self, Error> {
        take(file, path, FlockOperation::LockExclusive)
    }

    /// [`Self::exclusive_on`] if nobody else holds the lock; `None` if somebody does.
    ///
    /// # Errors
    /// As `flock(2)`; `path` is for the error.
    pub fn try_exclusive_on(file: OwnedFd, path: &Path) -> Result<Option<Self>, Error> {
        try_take(file, path, FlockOperation::NonBlockingLockExclusive)
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(Error::system("open lock", path))
}

fn take(file: OwnedFd, path: &Path, operation: FlockOperation) -> Result<Lock, Error> {
    loop {
        match rustix::fs::flock(&file, operation) {
            Ok(()) => return Ok(Lock(file)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::system("lock", path)(errno)),
        }
    }
}

fn try_take(file: OwnedFd, path: &Path, operation: FlockOperation) -> Result<Option<Lock>, Error> {
    match take(file, path, operation) {
        Ok(lock) => Ok(Some(lock)),
        Err(Error::System { errno: Errno::WOULDBLOCK, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
