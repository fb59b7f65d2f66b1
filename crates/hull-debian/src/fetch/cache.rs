//! Downloaded files by digest.
//!
//! A file gets its name by rename once its bytes were verified, and they are verified again whenever it is taken: a name
//! alone proves nothing after a crash. What is being written lies in a directory that the caller owns and removes.

use std::fs;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hull_oci::digest::{Algorithm, Hasher};

use super::Client;
use crate::error::{Error, one_line};

/// What a file must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Bytes.
    pub size: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

impl Wanted {
    pub(super) fn mismatch(&self, object: &str, found: String) -> Error {
        let expected = format!("{} bytes with sha256 {}", self.size, self.sha256);
        Error::Mismatch { object: one_line(object), expected, found }
    }
}

/// A directory of files named by their SHA-256 digests.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    partial: PathBuf,
    next: AtomicU64,
}

impl Cache {
    /// `partial` is where files are written; on the same file system.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(directory: &Path, partial: &Path) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(Error::io("create directory", directory.display()))?;
        Ok(Self { directory: directory.to_owned(), partial: partial.to_owned(), next: AtomicU64::new(0) })
    }

    /// Where a file is once it is there.
    #[must_use]
    pub fn path(&self, wanted: &Wanted) -> PathBuf {
        self.directory.join(&wanted.sha256)
    }

    /// A file from the cache, or from the first of the addresses that has it. `done` counts bytes.
    ///
    /// # Errors
    /// As [`Client::save`].
    pub fn get(&self, client: &Client, urls: &[String], wanted: &Wanted, done: &AtomicU64) -> Result<fs::File, Error> {
        let path = self.path(wanted);
        if let Some(file) = self.take(&path, wanted) {
            done.fetch_add(wanted.size, Ordering::Relaxed);
            return Ok(file);
        }
        let new = self.partial.join(format!("download-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let result = self.download(client, urls, wanted, done, &new, &path);
        if result.is_err() {
            let _ = fs::remove_file(&new);
        }
        result
    }

    fn download(
        &self,
        client: &Client,
        urls: &[String],
        wanted: &Wanted,
        done: &AtomicU64,
        new: &Path,
        path: &Path,
    ) -> Result<fs::File, Error> {
        let mut file = fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(new)
            .map_err(Error::io("create", new.display()))?;
        for (index, url) in urls.iter().enumerate() {
            match client.save(url, &mut file, wanted, done) {
                Ok(()) => break,
                Err(Error::Download { missing: true, .. }) if index + 1 < urls.len() => {}
                // The client knows the file by its descriptor only.
                Err(Error::Io { operation, source, .. }) => return Err(Error::io(operation, new.display())(source)),
                Err(error) => return Err(error),
            }
        }
        fs::rename(new, path).map_err(Error::io("rename", new.display()))?;
        file.rewind().map_err(Error::io("read", path.display()))?;
        Ok(file)
    }

    /// A file whose bytes are still what its name says; another is removed.
    fn take(&self, path: &Path, wanted: &Wanted) -> Option<fs::File> {
        let mut file = fs::File::open(path).ok()?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; 128 << 10];
        let same = file.metadata().ok()?.len() == wanted.size
            && loop {
                match file.read(&mut buffer).ok()? {
                    0 => break hasher.finish().hex() == wanted.sha256,
                    read => hasher.update(&buffer[..read]),
                }
            };
        if !same {
            let _ = fs::remove_file(path);
            return None;
        }
        // The time of its last use, for `expire`.
        let _ = file.set_modified(SystemTime::now());
        file.rewind().ok()?;
        Some(file)
    }

    /// Removes files that were not used for so long.
    pub fn expire(&self, age: Duration) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let used = entry.metadata().and_then(|meta| meta.modified()).ok();
            if used.and_then(|used| used.elapsed().ok()).is_some_and(|since| since > age) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
