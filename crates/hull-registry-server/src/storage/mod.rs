//! A registry in a directory.
//!
//! ```text
//! ROOT/
//!   lock                                      flock'ed by the server
//!   blobs/ALGORITHM/HEX                       content; shared by hard links with
//!   repositories/NAME/_blobs/ALGORITHM/HEX    the blobs of a repository
//!   repositories/NAME/_manifests/ALGORITHM/HEX  a line with the media type, then the manifest as it came
//!   repositories/NAME/_tags/TAG               a digest
//!   repositories/NAME/_referrers/ALGORITHM/HEX/ALGORITHM-HEX
//!                                             the descriptor of a manifest whose subject is the first digest
//!   repositories/NAME/_images/ALGORITHM/HEX   the image of Hull's store that this manifest became: [`crate::engine`]
//!   uploads/ID/{repository,data}              an upload that has not ended
//! ```
//!
//! No part of a repository's name begins with `_`, so names and records do not meet. A blob whose only link is the one in
//! `blobs/` belongs to no repository. Whatever is acknowledged is on disk before: content is synced, then its names.
//!
//! A tag's file is a line with the digest, and one with the image of Hull's store that the tag made, if any.
//!
//! Locks: `changes` is held shared while records are added and exclusively while they are removed, so that what an
//! addition has checked is still there when it is done. It is never held while a client is waited for. A directory that
//! several processes serve, as the one in Hull's store, has the file `lock` held in the same way, each time; any other is
//! locked by its server for as long as it serves.

mod collect;
mod manifests;
mod uploads;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hull_fs::lock::Lock;
use hull_oci::Digest;

pub(crate) use collect::Collected;
pub(crate) use uploads::Upload;

use crate::content::{Changes, Content, Put, Stored};
use crate::refusal::Refusal;
use crate::route::Target;
use crate::{Error, route};

/// A registry in a directory.
#[derive(Debug)]
pub(crate) struct Storage {
    root: PathBuf,
    changes: RwLock<()>,
    uploads: uploads::Open,
    /// Held for good; nothing where other processes serve the directory too.
    alone: Option<Lock>,
}

/// Records are being added, or removed.
pub(crate) struct Changing<G> {
    // In this order: other threads come after other processes.
    _process: Option<Lock>,
    _thread: G,
}

impl Storage {
    /// Takes the directory, making it if need be.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let storage = Self::open_shared(root)?;
        let path = root.join("lock");
        let lock = Lock::try_exclusive(&path)
            .map_err(|error| Error::Storage { path: path.clone(), source: io::Error::other(error.to_string()) })?
            .ok_or_else(|| Error::Busy(root.to_owned()))?;
        Ok(Self { alone: Some(lock), ..storage })
    }

    /// Opens a directory that other processes may serve too, making it if need be.
    pub(crate) fn open_shared(root: &Path) -> Result<Self, Error> {
        let io = |path: PathBuf| move |source| Error::Storage { path, source };
        for name in ["blobs", "repositories", "uploads"] {
            let path = root.join(name);
            fs::create_dir_all(&path).map_err(io(path.clone()))?;
        }
        Ok(Self { root: root.to_owned(), changes: RwLock::new(()), uploads: uploads::Open::default(), alone: None })
    }

    fn others(&self, take: impl FnOnce(&Path) -> Result<Lock, hull_fs::Error>) -> io::Result<Option<Lock>> {
        if self.alone.is_some() {
            return Ok(None);
        }
        take(&self.root.join("lock")).map(Some).map_err(|error| io::Error::other(error.to_string()))
    }

    /// Until it is dropped, nothing is removed.
    pub(crate) fn adding(&self) -> io::Result<Changing<RwLockReadGuard<'_, ()>>> {
        let _thread = self.changes.read().unwrap_or_else(PoisonError::into_inner);
        Ok(Changing { _process: self.others(Lock::shared)?, _thread })
    }

    /// Until it is dropped, nothing is added.
    pub(crate) fn removing(&self) -> io::Result<Changing<RwLockWriteGuard<'_, ()>>> {
        let _thread = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Changing { _process: self.others(Lock::exclusive)?, _thread })
    }

    /// Whether other processes may change records.
    fn is_shared(&self) -> bool {
        self.alone.is_none()
    }

    fn repository(&self, name: &str) -> PathBuf {
        self.root.join("repositories").join(name)
    }

    fn pool(&self, digest: &Digest) -> PathBuf {
        hashed(&self.root.join("blobs"), digest)
    }

    fn blob_link(&self, name: &str, digest: &Digest) -> PathBuf {
        hashed(&self.repository(name).join("_blobs"), digest)
    }

    /// The digests that a directory of a repository has files for.
    pub(crate) fn digests(&self, name: &str, directory: &str) -> io::Result<Vec<Digest>> {
        let directory = self.repository(name).join(directory);
        let mut found = Vec::new();
        for algorithm in names(&directory)? {
            for hex in names(&directory.join(&algorithm))? {
                found.extend(format!("{algorithm}:{hex}").parse::<Digest>());
            }
        }
        Ok(found)
    }

    fn exists(&self, name: &str) -> bool {
        let repository = self.repository(name);
        repository.join("_blobs").is_dir() || repository.join("_manifests").is_dir()
    }

    /// Gives a repository a blob that another has: 4.3 of the specification. Without `from`, from any.
    fn mount_blob(&self, name: &str, from: Option<&str>, digest: &Digest) -> io::Result<bool> {
        let _adding = self.adding()?;
        let target = self.blob_link(name, digest);
        let source = from.map_or_else(|| self.pool(digest), |from| self.blob_link(from, digest));
        match link(&source, &target) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives a repository a blob that is a file of this file system, or else a copy of it. The content is not looked at:
    /// it is one that was verified when it came.
    pub(crate) fn adopt(&self, name: &str, digest: &Digest, file: &Path) -> io::Result<()> {
        let _adding = self.adding()?;
        let pool = self.pool(digest);
        if !pool.exists() {
            match link(file, &pool) {
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                    let copy = self.root.join("uploads").join(format!(".{}", digest.hex()));
                    fs::copy(file, &copy)?;
                    File::open(&copy)?.sync_all()?;
                    fs::rename(&copy, &pool)?;
                    sync_directory(pool.parent().unwrap_or(&pool))?;
                }
                linked => linked?,
            }
        }
        link(&pool, &self.blob_link(name, digest))?;
        self.touch(name, digest);
        Ok(())
    }

    /// The file of a blob that a repository has.
    pub(crate) fn blob_file(&self, name: &str, digest: &Digest) -> PathBuf {
        self.blob_link(name, digest)
    }

    /// Puts a file with the same content in the place of a blob, so that it is on the disk once.
    pub(crate) fn share(&self, name: &str, digest: &Digest, file: &Path) -> io::Result<()> {
        let _adding = self.adding()?;
        for place in [self.pool(digest), self.blob_link(name, digest)] {
            let new = place.with_extension("shared");
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::hard_link(file, &new)?;
            fs::rename(&new, &place)?;
        }
        Ok(())
    }
}

/// `DIRECTORY/ALGORITHM/HEX`
fn hashed(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join(digest.algorithm().as_str()).join(digest.hex())
}

fn unknown_blob(digest: &Digest) -> Refusal {
    Refusal::missing("BLOB_UNKNOWN", format!("blob {digest} is not known to the repository"))
}

/// A hard link that is on disk when this returns; one that is there already is as good. Where the file system has no
/// more links for a file, a copy.
fn link(source: &Path, target: &Path) -> io::Result<()> {
    // A missing source must not leave directories.
    fs::metadata(source)?;
    let parent = target.parent().unwrap_or(target);
    make_directories(parent)?;
    let mut linked = fs::hard_link(source, target);
    for _ in 0..100 {
        match &linked {
            // The file was replaced by one of the same content between the look-up of its name and the link.
            Err(error) if error.kind() == io::ErrorKind::NotFound && source.exists() => {}
            _ => break,
        }
        linked = fs::hard_link(source, target);
    }
    match linked {
        Ok(()) => sync_directory(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::TooManyLinks => {
            let copy = target.with_extension("copy");
            fs::copy(source, &copy)?;
            File::open(&copy)?.sync_all()?;
            fs::rename(&copy, target)?;
            sync_directory(parent)
        }
        Err(error) => Err(error),
    }
}

/// Makes directories whose names are on disk when this returns.
fn make_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(path);
    make_directories(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_directory(parent)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn remove_durable(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_directory(path.parent().unwrap_or(path))
}

/// Replaces a small file; it is on disk when this returns.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(path);
    make_directories(parent)?;
    let directory = File::open(parent)?;
    let name = Path::new(path.file_name().unwrap_or_default());
    hull_fs::atomic::write_durable(directory, name, bytes, 0o644)
        .map_err(|error| error.errno().map_or_else(|| io::Error::other(error.to_string()), |errno| errno.into()))
}

/// Names in a directory, sorted; none when it is not there. What is being written begins with a dot.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

impl Content for Storage {
    fn blob(&self, name: &str, digest: &Digest) -> Result<File, Refusal> {
        let path = self.blob_link(name, digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(unknown_blob(digest)),
            Err(error) => Err(Refusal::io("open blob", &error)),
        }
    }

    fn manifest(&self, name: &str, target: &Target) -> Result<Stored, Refusal> {
        self.read_manifest(name, target)
    }

    fn tags(&self, name: &str) -> Result<Vec<String>, Refusal> {
        if !self.exists(name) {
            return Err(Refusal::missing("NAME_UNKNOWN", format!("repository {name} is not known")));
        }
        names(&self.repository(name).join("_tags")).map_err(|error| Refusal::io("list tags", &error))
    }

    fn repositories(&self) -> Result<Vec<String>, Refusal> {
        let mut found = Vec::new();
        let mut waiting = vec![String::new()];
        while let Some(prefix) = waiting.pop() {
            let path = if prefix.is_empty() { self.root.join("repositories") } else { self.repository(&prefix) };
            for part in names(&path).map_err(|error| Refusal::io("list repositories", &error))? {
                let name = if prefix.is_empty() { part.clone() } else { format!("{prefix}/{part}") };
                if !part.starts_with('_') && route::name(&name).is_ok() {
                    if !names(&self.repository(&name).join("_manifests")).unwrap_or_default().is_empty() {
                        found.push(name.clone());
                    }
                    waiting.push(name);
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn referrers(&self, name: &str, digest: &Digest) -> Result<Vec<serde_json::Value>, Refusal> {
        self.read_referrers(name, digest)
    }

    fn used(&self, name: &str, digest: &Digest) {
        self.touch(name, digest);
    }
}

impl Changes for Storage {
    fn mount(&self, name: &str, from: Option<&str>, digest: &Digest) -> io::Result<bool> {
        self.mount_blob(name, from, digest)
    }

    fn put_manifest(
        &self,
        name: &str,
        target: &Target,
        tags: &[String],
        kind: Option<&str>,
        bytes: &[u8],
    ) -> Result<Put, Refusal> {
        self.put_whole_manifest(name, target, tags, kind, bytes)
    }

    fn delete_manifest(&self, name: &str, target: &Target) -> Result<(), Refusal> {
        let failed = |error: io::Error| Refusal::io("delete manifest", &error);
        let _removing = self.removing().map_err(failed)?;
        self.remove_manifest(name, target)
    }

    fn delete_blob(&self, name: &str, digest: &Digest) -> Result<(), Refusal> {
        let failed = |error: io::Error| Refusal::io("delete blob", &error);
        let _removing = self.removing().map_err(failed)?;
        remove_durable(&self.blob_link(name, digest)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => unknown_blob(digest),
            _ => failed(error),
        })
    }
}
