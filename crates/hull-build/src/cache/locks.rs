//! One build at a time does a step: the others wait for it, and then find its result.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_fs::lock::Lock;
use hull_oci::Digest;

use super::Cache;
use crate::Error;

/// Between two looks at a lock that somebody has: a wait that cannot be given up would outlive its build.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(50);

/// A step that nobody else does meanwhile.
#[derive(Debug)]
pub struct KeyLock {
    path: PathBuf,
    _lock: Lock,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // While it is held: whoever waits for the file finds that it has no name any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the locked file is the one that has the name.
pub(super) fn is_named(lock: &Lock, path: &Path) -> bool {
    let held = rustix::fs::fstat(lock.as_fd()).ok();
    held.zip(fs::symlink_metadata(path).ok()).is_some_and(|(held, there)| held.st_ino == there.ino())
}

pub(super) fn create_private(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("create directory", path))
}

/// Waits longer each time, up to a limit.
#[derive(Debug)]
pub(super) struct Patience(Duration);

impl Patience {
    pub(super) fn new() -> Self {
        Self(FIRST_LOOK)
    }

    pub(super) fn wait(&mut self) {
        std::thread::sleep(self.0);
        self.0 = (self.0 * 2).min(LAST_LOOK);
    }
}

impl Cache {
    /// Waits until nobody else does the step of a key. `check` says when to give up.
    ///
    /// # Errors
    /// That of `check`; when the lock cannot be made.
    pub fn lock(&self, key: &Digest, check: impl Fn() -> Result<(), Error>) -> Result<KeyLock, Error> {
        let directory = self.directory("locks");
        create_private(&directory)?;
        let path = directory.join(key.hex());
        let mut patience = Patience::new();
        loop {
            check()?;
            match Lock::try_exclusive(&path)? {
                Some(lock) if is_named(&lock, &path) => return Ok(KeyLock { path, _lock: lock }),
                Some(_) => {}
                None => patience.wait(),
            }
        }
    }

    /// Removes what killed builds left: locks that nobody holds, and directories that no record names.
    ///
    /// # Errors
    /// The first thing that could not be removed.
    pub fn repair(&self) -> Result<(), Error> {
        let mut result = Ok(());
        for entry in fs::read_dir(self.directory("locks")).into_iter().flatten().flatten() {
            let path = entry.path();
            // Opening it would make it where another has just removed it.
            if let Ok(Some(lock)) = Lock::try_exclusive(&path)
                && is_named(&lock, &path)
                && let Err(error) = fs::remove_file(&path)
                && result.is_ok()
            {
                result = Err(Error::io("remove", &path)(error));
            }
        }
        result.and(self.repair_mounts())
    }
}
