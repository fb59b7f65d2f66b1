//! Collection of garbage while serving.
//!
//! Blobs that no manifest of their repository names go from the repository, and blobs of no repository go from the disk,
//! when they have been so for the grace period: a push has its blobs before its manifest. Untagged manifests stay, as they
//! may be pulled by digest. Age is the time since the inode last changed, which every push, mount and question sets.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hull_oci::Digest;

use super::{Storage, names};

/// Uploads that nobody continues for so long are forgotten.
const UPLOAD_IDLE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A blob's time is renewed when it is older than this: the shortest grace period that keeps its promise.
const RENEW: Duration = Duration::from_secs(60);

/// Manifests that were put: what was read from manifests before is outdated when this changes.
static PUTS: AtomicU64 = AtomicU64::new(0);

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    /// Blobs taken from repositories.
    pub(crate) unlinked: usize,
    /// Blobs deleted.
    pub(crate) deleted: usize,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Uploads forgotten.
    pub(crate) uploads: usize,
}

/// Time since a file's inode changed; nothing when it is not there or is from the future.
fn age(path: &Path) -> Option<Duration> {
    let metadata = fs::metadata(path).ok()?;
    let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(metadata.ctime()).ok()?);
    SystemTime::now().duration_since(changed).ok()
}

impl Storage {
    /// Renews a blob's time.
    pub(super) fn touch(&self, name: &str, digest: &Digest) {
        let path = self.blob_link(name, digest);
        if age(&path).is_some_and(|age| age > RENEW)
            && let Ok(file) = fs::File::open(&path)
        {
            // Setting any time sets the inode's own.
            let _ = file.set_modified(SystemTime::now());
        }
    }

    /// Takes a blob away from a repository, and from the disk if it was the last. Nothing is added meanwhile. Returns the
    /// bytes that the disk got back.
    pub(crate) fn release(&self, name: &str, digest: &Digest) -> io::Result<u64> {
        let remove = |path: &Path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        remove(&self.blob_link(name, digest))?;
        let pool = self.pool(digest);
        match fs::metadata(&pool) {
            Ok(found) if found.nlink() == 1 => remove(&pool).map(|()| found.blocks() * 512),
            _ => Ok(0),
        }
    }

    /// A manifest names blobs that may have had no name before.
    pub(super) fn named_more(&self) {
        PUTS.fetch_add(1, Ordering::AcqRel);
    }

    /// Collects garbage older than `grace`.
    pub(crate) fn collect(&self, grace: Duration) -> io::Result<Collected> {
        let mut done = Collected::default();
        // Repositories without manifests, of pushes that were given up, count too.
        for name in self.directories()? {
            if let Err(error) = self.collect_repository(&name, grace, &mut done) {
                crate::log(format_args!("garbage of {name} is kept: {error}"));
            }
        }
        for algorithm in names(&self.root.join("blobs"))? {
            let directory = self.root.join("blobs").join(algorithm);
            for hex in names(&directory)? {
                let path = directory.join(hex);
                let is_garbage = || fs::metadata(&path).is_ok_and(|found| found.nlink() == 1);
                if !is_garbage() || age(&path).is_none_or(|age| age < grace) {
                    continue;
                }
                let _removing = self.removing()?;
                if is_garbage() {
                    let size = fs::metadata(&path)?.len();
                    fs::remove_file(&path)?;
                    done.deleted += 1;
                    done.bytes += size;
                }
            }
        }
        done.uploads = self.expire(UPLOAD_IDLE)?;
        Ok(done)
    }

    fn collect_repository(&self, name: &str, grace: Duration, done: &mut Collected) -> io::Result<()> {
        let mut seen = PUTS.load(Ordering::Acquire);
        let mut named = None;
        // Other processes' manifests are not counted: they are kept out for as long as the repository takes.
        let mut alone = None;
        let directory = self.repository(name).join("_blobs");
        for algorithm in names(&directory)? {
            for hex in names(&directory.join(&algorithm))? {
                let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else { continue };
                let path = self.blob_link(name, &digest);
                if age(&path).is_none_or(|age| age < grace) {
                    continue;
                }
                if named.is_none() {
                    alone = if self.is_shared() { Some(self.removing()?) } else { None };
                    named = Some(self.named(name)?);
                }
                if named.as_ref().is_some_and(|named| named.contains(&digest)) {
                    continue;
                }
                let _removing = if alone.is_some() { None } else { Some(self.removing()?) };
                let now = PUTS.load(Ordering::Acquire);
                if now != seen && alone.is_none() {
                    seen = now;
                    named = Some(self.named(name)?);
                }
                let is_named = named.as_ref().is_some_and(|named| named.contains(&digest));
                if !is_named && age(&path).is_some_and(|age| age >= grace) {
                    fs::remove_file(&path)?;
                    done.unlinked += 1;
                }
            }
        }
        Ok(())
    }

    /// All directories that hold a repository's records.
    pub(crate) fn directories(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        let mut waiting = vec![String::new()];
        while let Some(prefix) = waiting.pop() {
            for part in names(&self.root.join("repositories").join(&prefix))? {
                if part == "_blobs" {
                    found.push(prefix.clone());
                } else if !part.starts_with('_') {
                    waiting.push(if prefix.is_empty() { part } else { format!("{prefix}/{part}") });
                }
            }
        }
        Ok(found)
    }
}
