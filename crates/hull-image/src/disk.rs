//! Files and directories of the store: where they are, how they become durable, and the work directories of commands.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hull_fs::lock::Lock;
use hull_oci::Digest;
use rustix::fs::{Mode, OFlags};

use crate::Error;

/// `ROOT/blobs/ALGORITHM/HEX`.
pub(crate) fn blob(root: &Path, digest: &Digest) -> PathBuf {
    root.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
}

/// `ROOT/layers/HEX`.
pub(crate) fn layer(root: &Path, diff_id: &Digest) -> PathBuf {
    root.join("layers").join(diff_id.hex())
}

/// The digest that a file below `blobs/ALGORITHM/` or `layers/` is named by.
pub(crate) fn digest_of_name(name: &str) -> Option<Digest> {
    let algorithm = if name.len() == 128 { "sha512" } else { "sha256" };
    format!("{algorithm}:{name}").parse().ok()
}

pub(crate) fn create_private(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("create directory", path))
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::io("change mode of", path))
}

/// Waits until a file's content, or a directory's names, are on disk.
pub(crate) fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("sync", path))
}

/// Renames; a file that is gone stays gone.
pub(crate) fn rename_if_there(from: &Path, to: &Path) -> Result<bool, Error> {
    match fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("rename", from)(error)),
    }
}

/// Removes a file or a tree, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => remove_tree(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a tree that strangers filled, if it is there; links in it are not followed.
pub fn remove_tree(path: &Path) -> std::io::Result<()> {
    let removed = match fs::remove_dir_all(path) {
        // An ordinary user's own directories that it may not write: of a layer, or of overlayfs.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            open_up(path);
            fs::remove_dir_all(path)
        }
        result => result,
    };
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Lets the owner into all directories of a tree, as far as they are its own.
pub fn open_up(path: &Path) {
    let mut pending = vec![path.to_path_buf()];
    while let Some(directory) = pending.pop() {
        // What cannot be changed is what the removal then names.
        let _ = set_mode(&directory, 0o700);
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        // The type of the entry itself: links are not followed.
        pending.extend(
            entries.flatten().filter(|one| one.file_type().is_ok_and(|kind| kind.is_dir())).map(|one| one.path()),
        );
    }
}

/// Names in a directory, sorted; a directory that is not there has none.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("read", path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("read", path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Bytes that a file or a whole tree occupies, as `du` counts them. What vanishes meanwhile does not count.
pub fn occupied(path: &Path) -> u64 {
    occupied_together(&[path])
}

/// [`occupied`] of several, which may share files.
pub(crate) fn occupied_together(paths: &[&Path]) -> u64 {
    fn walk(path: &Path, metadata: &fs::Metadata, linked: &mut std::collections::BTreeSet<(u64, u64)>) -> u64 {
        if metadata.nlink() > 1 && !metadata.is_dir() && !linked.insert((metadata.dev(), metadata.ino())) {
            return 0;
        }
        let mut sum = metadata.blocks() * 512;
        if metadata.is_dir()
            && let Ok(entries) = fs::read_dir(path)
        {
            for entry in entries.flatten() {
                if let Ok(metadata) = entry.metadata() {
                    sum += walk(&entry.path(), &metadata, linked);
                }
            }
        }
        sum
    }
    let mut linked = std::collections::BTreeSet::new();
    paths.iter().map(|path| fs::symlink_metadata(path).map_or(0, |metadata| walk(path, &metadata, &mut linked))).sum()
}

/// A directory of one command below `ingest/` or `trash/`, locked by `flock(2)` while the command lives.
///
/// Dropping it removes it. The kernel gives the lock up when the command dies, and [`abandoned`] then finds it.
#[derive(Debug)]
pub(crate) struct Work {
    path: PathBuf,
    name: String,
    _lock: Lock,
}

impl Work {
    /// Makes one below `parent`, which is made too.
    pub(crate) fn create(parent: &Path) -> Result<Self, Error> {
        create_private(parent)?;
        for _ in 0..16 {
            let mut bytes = [0_u8; 8];
            rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
                .map_err(Error::io("read", "random numbers"))?;
            let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let path = parent.join(&name);
            fs::DirBuilder::new().mode(0o700).create(&path).map_err(Error::io("create directory", &path))?;
            // Between the two calls a repair may take the directory for an abandoned one: then another is made.
            if let Some(work) = Self::lock(path, name, Lock::exclusive_on)? {
                return Ok(work);
            }
        }
        Err(Error::io("create directory", parent)(std::io::Error::from(std::io::ErrorKind::ResourceBusy)))
    }

    fn lock(
        path: PathBuf,
        name: String,
        take: impl FnOnce(OwnedFd, &Path) -> Result<Lock, hull_fs::Error>,
    ) -> Result<Option<Self>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(Error::io("open", &path)(errno)),
        };
        let lock = take(opened, &path)?;
        // Who held the lock before may have removed the directory.
        let same = rustix::fs::fstat(lock.as_fd())
            .ok()
            .zip(fs::symlink_metadata(&path).ok())
            .is_some_and(|(held, there)| held.st_ino == there.ino() && held.st_dev == there.dev());
        Ok(same.then_some(Self { path, name, _lock: lock }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Removes it with all that is in it.
    pub(crate) fn remove(self) -> Result<(), Error> {
        remove(&self.path)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed now is found unlocked by the next repair.
        let _ = remove(&self.path);
    }
}

/// Whether the command that made this work directory lives.
pub(crate) fn is_alive(parent: &Path, name: &str) -> Result<bool, Error> {
    let path = parent.join(name);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(opened) => Ok(Lock::try_exclusive_on(opened, &path)?.is_none()),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
        Err(errno) => Err(Error::io("open", &path)(errno)),
    }
}

/// The work directories below `parent` whose commands have died; the caller holds their locks now.
pub(crate) fn abandoned(parent: &Path) -> Result<Vec<Work>, Error> {
    let mut found = Vec::new();
    for name in names(parent)? {
        let path = parent.join(&name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(opened) = rustix::fs::open(&path, flags, Mode::empty()) else { continue };
        let Some(lock) = Lock::try_exclusive_on(opened, &path)? else { continue };
        let same = rustix::fs::fstat(lock.as_fd())
            .ok()
            .zip(fs::symlink_metadata(&path).ok())
            .is_some_and(|(held, there)| held.st_ino == there.ino() && held.st_dev == there.dev());
        if same {
            found.push(Work { path, name, _lock: lock });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_abandoned_when_its_lock_is_free() {
        let parent = tempfile::tempdir().unwrap();
        let work = Work::create(parent.path()).unwrap();
        fs::create_dir(parent.path().join("killed")).unwrap();
        assert!(is_alive(parent.path(), work.name()).unwrap());
        assert!(!is_alive(parent.path(), "killed").unwrap());
        assert!(!is_alive(parent.path(), "never").unwrap());
        let dead = abandoned(parent.path()).unwrap();
        assert_eq!(dead.iter().map(Work::name).collect::<Vec<_>>(), ["killed"]);
        drop(dead);
        assert_eq!(names(parent.path()).unwrap(), [work.name().to_owned()]);
        drop(work);
        assert!(names(parent.path()).unwrap().is_empty());
    }

    #[test]
    fn what_is_occupied_counts_links_once() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a"), vec![1; 100_000]).unwrap();
        sync(&directory.path().join("a")).unwrap();
        let one = occupied(directory.path());
        assert!(one >= 100_000, "{one}");
        fs::hard_link(directory.path().join("a"), directory.path().join("b")).unwrap();
        assert_eq!(occupied(directory.path()), one);
    }
}
