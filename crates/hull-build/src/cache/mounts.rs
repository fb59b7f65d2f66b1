//! Directories that stay from build to build: `RUN --mount=type=cache`.
//!
//! ```text
//! ROOT/build/mounts/ID/lock   held while a step uses the directory: shared, or alone
//! ROOT/build/mounts/ID/data/  what the step sees
//! ```
//!
//! A directory has a record before it is there, and is `ready` once it has its first content: what a killed build left
//! half made is made again. It is only ever reached through descriptors below `data`: what a step has put there leads
//! nowhere else.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use hull_dockerfile::ast::Sharing;
use hull_fs::lock::Lock;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::locks::{Patience, create_private, is_named};
use super::{Cache, now};
use crate::Error;

/// Directories of one name that steps use at the same time and alone.
pub(super) const MAX_PRIVATE: i64 = 4096;

/// A directory that a step uses.
#[derive(Debug)]
pub struct Held {
    /// It.
    pub directory: OwnedFd,
    _lock: Lock,
}

/// How a new one is made.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Cache {
    /// The directory of a name, made and filled (`fill`) at its first use; waits for others as `sharing` says. `check`
    /// says when to give up.
    ///
    /// # Errors
    /// Those of `check` and `fill`; when it cannot be made.
    pub fn mount(
        &self,
        name: &str,
        sharing: Sharing,
        attributes: Attributes,
        check: impl Fn() -> Result<(), Error>,
        mut fill: impl FnMut(&OwnedFd) -> Result<(), Error>,
    ) -> Result<Held, Error> {
        let mut patience = Patience::new();
        loop {
            check()?;
            let slots = if sharing == Sharing::Private { MAX_PRIVATE } else { 1 };
            for slot in 0..slots {
                let id = self.mount_id(name, slot)?;
                if let Some(held) = self.take(id, sharing, attributes, &mut fill)? {
                    return Ok(held);
                }
            }
            patience.wait();
        }
    }

    pub(super) fn mount_id(&self, name: &str, slot: i64) -> Result<i64, Error> {
        let find = |connection: &Connection| -> Result<Option<i64>, hull_image::Error> {
            let sql = "SELECT id FROM cache_mounts WHERE name = ?1 AND slot = ?2";
            Ok(connection.query_row(sql, params![name, slot], |row| row.get(0)).optional()?)
        };
        if let Some(id) = self.store.database().read(find)? {
            return Ok(id);
        }
        let make = |transaction: &Transaction<'_>| -> Result<i64, hull_image::Error> {
            transaction.execute(
                "INSERT OR IGNORE INTO cache_mounts (name, slot, created, used) VALUES (?1, ?2, ?3, ?3)",
                params![name, slot, now()],
            )?;
            Ok(find(transaction)?.unwrap_or(0))
        };
        Ok(self.store.database().write(hull_db::Sync::Normal, make)?)
    }

    pub(super) fn mount_directory(&self, id: i64) -> PathBuf {
        self.directory("mounts").join(id.to_string())
    }

    /// `None` if it is in use, or was pruned meanwhile.
    fn take(
        &self,
        id: i64,
        sharing: Sharing,
        attributes: Attributes,
        fill: &mut impl FnMut(&OwnedFd) -> Result<(), Error>,
    ) -> Result<Option<Held>, Error> {
        let directory = self.mount_directory(id);
        create_private(&directory)?;
        let (path, data) = (directory.join("lock"), directory.join("data"));
        let lock = match sharing {
            Sharing::Shared => Lock::try_shared(&path),
            Sharing::Private | Sharing::Locked => Lock::try_exclusive(&path),
        };
        let found = match lock {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !is_named(&found, &path) {
            return Ok(None);
        }
        let ready = |connection: &Connection| -> Result<Option<bool>, hull_image::Error> {
            let sql = "SELECT ready FROM cache_mounts WHERE id = ?1";
            Ok(connection.query_row(sql, [id], |row| row.get(0)).optional()?)
        };
        match self.store.database().read(ready)? {
            // Pruned: the next look makes another.
            None => return Ok(None),
            Some(true) if data.is_dir() => {}
            Some(_) => {
                if sharing == Sharing::Shared {
                    // Alone, to make it; others see it once it is ready.
                    if rustix::fs::flock(&found, FlockOperation::NonBlockingLockExclusive).is_err() {
                        return Ok(None);
                    }
                    if self.store.database().read(ready)? != Some(true) {
                        self.make_mount(id, &data, attributes, fill)?;
                    }
                    rustix::fs::flock(&found, FlockOperation::LockShared).map_err(Error::io("lock", &path))?;
                } else {
                    self.make_mount(id, &data, attributes, fill)?;
                }
            }
        }
        let touch = |transaction: &Transaction<'_>| -> Result<(), hull_image::Error> {
            let sql = "UPDATE cache_mounts SET used = ?2, uses = uses + 1 WHERE id = ?1";
            transaction.execute(sql, params![id, now()])?;
            Ok(())
        };
        self.store.database().write(hull_db::Sync::Normal, touch)?;
        Ok(Some(Held { directory: open(&data)?, _lock: found }))
    }

    fn make_mount(
        &self,
        id: i64,
        data: &Path,
        attributes: Attributes,
        fill: &mut impl FnMut(&OwnedFd) -> Result<(), Error>,
    ) -> Result<(), Error> {
        hull_image::remove_tree(data).map_err(Error::io("remove", data))?;
        fs::create_dir(data).map_err(Error::io("create directory", data))?;
        fill(&open(data)?)?;
        chown(data, Some(attributes.uid), Some(attributes.gid)).map_err(Error::io("change owner of", data))?;
        fs::set_permissions(data, fs::Permissions::from_mode(attributes.mode & 0o7777))
            .map_err(Error::io("change mode of", data))?;
        let body = |transaction: &Transaction<'_>| -> Result<(), hull_image::Error> {
            transaction.execute("UPDATE cache_mounts SET ready = 1 WHERE id = ?1", [id])?;
            Ok(())
        };
        Ok(self.store.database().write(hull_db::Sync::Normal, body)?)
    }

    /// Removes a directory and its record unless a step uses it. Returns whether it did, and the bytes that it took.
    pub(super) fn remove_mount(&self, id: i64) -> Result<Option<u64>, Error> {
        let directory = self.mount_directory(id);
        let path = directory.join("lock");
        let lock = match Lock::try_exclusive(&path) {
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
            Ok(None) => return Ok(None),
            Ok(lock) => lock,
        };
        let size = hull_image::occupied(&directory);
        let body = |transaction: &Transaction<'_>| -> Result<(), hull_image::Error> {
            transaction.execute("DELETE FROM cache_mounts WHERE id = ?1", [id])?;
            Ok(())
        };
        self.store.database().write(hull_db::Sync::Full, body)?;
        hull_image::remove_tree(&directory).map_err(Error::io("remove", &directory))?;
        drop(lock);
        Ok(Some(size))
    }

    pub(super) fn repair_mounts(&self) -> Result<(), Error> {
        for entry in fs::read_dir(self.directory("mounts")).into_iter().flatten().flatten() {
            let known = |connection: &Connection| -> Result<bool, hull_image::Error> {
                let sql = "SELECT 1 FROM cache_mounts WHERE id = ?1";
                let id = entry.file_name().to_string_lossy().parse::<i64>().unwrap_or(-1);
                Ok(connection.prepare_cached(sql)?.exists([id])?)
            };
            if !self.store.database().read(known)? {
                let lock = Lock::try_exclusive(&entry.path().join("lock"));
                if !matches!(lock, Ok(None)) {
                    hull_image::remove_tree(&entry.path()).map_err(Error::io("remove", &entry.path()))?;
                }
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))
}
