//! Directories that are not volumes yet, or no more.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use hull_fs::lock::Lock;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::Volume;
use crate::error::Error;
use crate::names;
use crate::records::{self, Engine, create_private};

/// A directory below `.staging` that this process holds; whatever is in it goes with it.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) path: PathBuf,
    _lock: Lock,
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

impl Stage {
    pub(super) fn new(engine: &Engine) -> Result<Self, Error> {
        let staging = engine.volumes_root().join(".staging");
        create_private(&staging)?;
        for _ in 0..8 {
            let path = staging.join(&names::hex(&names::random()?)[..16]);
            fs::create_dir(&path).map_err(Error::io("create directory", &path))?;
            // Somebody may take it for abandoned before it is locked.
            let Ok(directory) = open(&path) else { continue };
            let lock = Lock::exclusive_on(directory, &path)?;
            if path.exists() {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(Error::io("create directory in", &staging)(Errno::AGAIN))
    }

    /// Makes the record and the empty directory of data.
    pub(super) fn write(&self, volume: &Volume) -> Result<(), Error> {
        let made = self.path.join("new");
        create_private(&made)?;
        let data = made.join("_data");
        fs::create_dir(&data).map_err(Error::io("create directory", &data))?;
        rustix::fs::chmod(&data, Mode::from_raw_mode(0o755)).map_err(Error::io("change mode of", &data))?;
        records::write(&made.join("volume.json"), volume)
    }

    /// Where data is put before it is published.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("new/_data")
    }

    /// Everything is on disk.
    pub(super) fn sync(&self) -> Result<(), Error> {
        let directory = open(&self.path).map_err(Error::io("open", &self.path))?;
        rustix::fs::syncfs(&directory).map_err(Error::io("write to disk", &self.path))
    }

    /// What was made gets its place, which must be free.
    pub(super) fn publish(self, place: &Path) -> Result<(), Error> {
        rename(&self.path.join("new"), place)
    }

    /// Takes a directory away from its place, to remove it.
    pub(super) fn take(&self, place: &Path) -> Result<(), Error> {
        rename(place, &self.path.join("old"))
    }

    /// Removes all that is in it, and says whether that worked.
    pub(super) fn remove(self) -> Result<(), Error> {
        hull_image::remove_tree(&self.path).map_err(Error::io("remove", &self.path))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What stays is found by the next repair.
        let _ = hull_image::remove_tree(&self.path);
    }
}

/// Renames to a free name.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST | Errno::NOTEMPTY) => {
            let name = to.file_name().unwrap_or_default().to_string_lossy();
            Err(Error::Volume(format!("a volume with the name {name} exists already")))
        }
        Err(errno) => Err(Error::io("rename", from)(errno)),
    }
}

/// Removes stages whose owner is gone.
pub(super) fn repair(engine: &Engine) -> Result<(), Error> {
    let staging = engine.volumes_root().join(".staging");
    let Ok(entries) = fs::read_dir(&staging) else { return Ok(()) };
    let mut result = Ok(());
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(directory) = open(&path) else { continue };
        match Lock::try_exclusive_on(directory, &path) {
            Ok(Some(_lock)) => result = result.and(hull_image::remove_tree(&path).map_err(Error::io("remove", &path))),
            Ok(None) => {}
            Err(error) => result = result.and(Err(error.into())),
        }
    }
    result
}
