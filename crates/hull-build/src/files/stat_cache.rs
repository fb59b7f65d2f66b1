//! Digests of files by what `stat(2)` says of them, kept from build to build.
//!
//! ```text
//! ROOT/cache/context/NAME    NAME is the digest of the directory's path; one file, replaced by rename
//!   magic, 8 bytes           `hullctx1`
//!   records, 88 bytes each   device, inode, size, seconds, ns of modification, seconds, ns of change, digest; by inode
//!   digest, 32 bytes         SHA-256 of all before it
//! ```
//!
//! Numbers are little-endian. A file that is damaged, cut or of another version counts as empty. Whoever writes last
//! wins: what a build beside this one learned is computed again.
//!
//! A record counts only if nothing could have changed the file unseen: its times of modification and change lie before
//! the moment when its digest was begun, by more than the clock of the file system is coarse. The time of change cannot
//! be set by anybody, so that a file with the same size, inode and times has the same content.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::tree::Meta;

const MAGIC: &[u8; 8] = b"hullctx1";
const RECORD: usize = 88;
/// Records of one file.
const MAX_RECORDS: usize = 2_000_000;
/// Files of the directory; beyond, the oldest go.
const MAX_FILES: usize = 128;
/// How coarse clocks of file systems are: a timer tick, or two seconds where they keep no nanoseconds.
const TICK: i128 = 50_000_000;
const COARSE: i128 = 2_500_000_000;

/// What identifies a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
}

impl Key {
    fn new(meta: &Meta) -> Self {
        Self { device: meta.inode.0, inode: meta.inode.1, size: meta.size, mtime: meta.mtime, ctime: meta.ctime }
    }
}

/// Digests of the files of one directory.
#[derive(Debug, Default)]
pub(super) struct StatCache {
    path: Option<PathBuf>,
    /// As it was read: sorted records.
    old: Vec<u8>,
    /// Found in this build, whether from the file or by reading; with `true` the file has it.
    used: Mutex<HashMap<Key, ([u8; 32], bool)>>,
}

impl StatCache {
    /// Reads the digests of a directory's files; `directory` is where such files are kept.
    #[must_use]
    pub(super) fn open(directory: &Path, name: &str) -> Self {
        let path = directory.join(name);
        let old = std::fs::read(&path).ok().and_then(checked).unwrap_or_default();
        Self { path: Some(path), old, used: Mutex::default() }
    }

    /// The digest of a file that is so, if it is known.
    pub(super) fn find(&self, meta: &Meta) -> Option<[u8; 32]> {
        let key = Key::new(meta);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((digest, _)) = used.get(&key) {
            return Some(*digest);
        }
        let digest = find(&self.old, &key)?;
        used.insert(key, (digest, true));
        Some(digest)
    }

    /// Keeps the digest of a file that was so before and after it was read. `began` is the time when reading began.
    pub(super) fn learn(&self, meta: &Meta, digest: [u8; 32], began: (i64, u32)) {
        let slack = if meta.mtime.1 == 0 && meta.ctime.1 == 0 { COARSE } else { TICK };
        let at = |(seconds, nanoseconds): (i64, u32)| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        if at(meta.ctime) + slack < at(began) && at(meta.mtime) + slack < at(began) {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.insert(Key::new(meta), (digest, false));
        }
    }

    /// Writes what was learned. What was known and not asked for stays, unless there is too much.
    ///
    /// # Errors
    /// When it cannot be written. Nothing depends on that.
    pub(super) fn save(&self) -> Result<(), Error> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.values().all(|(_, kept)| *kept) {
            return Ok(());
        }
        let mut all: Vec<(Key, [u8; 32])> = used.iter().map(|(key, (digest, _))| (*key, *digest)).collect();
        // What was not asked for may be of files that this build had no use for. A name that has a new record has
        // another content now.
        let now: std::collections::HashSet<(u64, u64)> = used.keys().map(|key| (key.device, key.inode)).collect();
        let room = MAX_RECORDS.saturating_sub(all.len()).min(all.len().max(100_000));
        let kept = records(&self.old).filter(|(key, _)| !now.contains(&(key.device, key.inode)));
        all.extend(kept.take(room));
        all.truncate(MAX_RECORDS);
        all.sort_unstable_by_key(|(key, _)| *key);
        let mut bytes = Vec::with_capacity(all.len() * RECORD + 40);
        bytes.extend_from_slice(MAGIC);
        for (key, digest) in &all {
            write(&mut bytes, key, digest);
        }
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(Error::io("create directory", directory))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags, Mode::empty()).map_err(Error::io("open", directory))?;
        let name = Path::new(path.file_name().unwrap_or_default());
        hull_fs::atomic::write(opened.as_fd(), name, &bytes, 0o600)?;
        for value in used.values_mut() {
            value.1 = true;
        }
        prune(directory, name);
        Ok(())
    }
}

/// Removes the oldest files when there are too many; `name` stays.
fn prune(directory: &Path, name: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut all: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let time = entry.metadata().ok()?.modified().ok()?;
            (Path::new(&entry.file_name()) != name).then(|| (time, entry.path()))
        })
        .collect();
    if all.len() >= MAX_FILES {
        all.sort_unstable();
        for (_, path) in &all[..=all.len() - MAX_FILES] {
            // Another build may have done it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The records of a file that is whole.
fn checked(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let end = bytes.len().checked_sub(32)?;
    let whole = bytes.starts_with(MAGIC) && (end.checked_sub(8)?) % RECORD == 0;
    if !whole || Sha256::digest(&bytes[..end])[..] != bytes[end..] {
        return None;
    }
    bytes.truncate(end);
    bytes.drain(..8);
    Some(bytes)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
}

fn read(record: &[u8]) -> (Key, [u8; 32]) {
    let long = |at| u64::from_le_bytes(number(record, at));
    let time = |at| (i64::from_le_bytes(number(record, at)), u32::from_le_bytes(number(record, at + 8)));
    let key = Key { device: long(0), inode: long(8), size: long(16), mtime: time(24), ctime: time(36) };
    (key, number(record, 48))
}

fn write(bytes: &mut Vec<u8>, key: &Key, digest: &[u8; 32]) {
    for value in [key.device, key.inode, key.size] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    for (seconds, nanoseconds) in [key.mtime, key.ctime] {
        bytes.extend_from_slice(&seconds.to_le_bytes());
        bytes.extend_from_slice(&nanoseconds.to_le_bytes());
    }
    bytes.extend_from_slice(digest);
    // Room, so that records stay aligned.
    bytes.extend_from_slice(&[0; 8]);
}

fn records(bytes: &[u8]) -> impl Iterator<Item = (Key, [u8; 32])> {
    bytes.chunks_exact(RECORD).map(read)
}

fn find(bytes: &[u8], key: &Key) -> Option<[u8; 32]> {
    let (mut low, mut high) = (0, bytes.len() / RECORD);
    while low < high {
        let middle = low + (high - low) / 2;
        let (found, digest) = read(&bytes[middle * RECORD..(middle + 1) * RECORD]);
        match found.cmp(key) {
            std::cmp::Ordering::Equal => return Some(digest),
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tree::empty_directory;
    use super::*;

    fn meta(inode: u64, ctime: i64) -> Meta {
        Meta { inode: (1, inode), size: 7, mtime: (5, 1), ctime: (ctime, 2), ..empty_directory() }
    }

    #[test]
    fn digests_are_found_again_by_another_process() {
        let directory = tempfile::tempdir().unwrap();
        let cache = StatCache::open(directory.path(), "a");
        for inode in 0..100 {
            cache.learn(&meta(inode, 10), [u8::try_from(inode).unwrap(); 32], (20, 0));
        }
        cache.save().unwrap();
        let cache = StatCache::open(directory.path(), "a");
        for inode in 0..100 {
            assert_eq!(cache.find(&meta(inode, 10)), Some([u8::try_from(inode).unwrap(); 32]));
        }
        assert_eq!(cache.find(&meta(5, 11)), None, "the file was changed since");
        assert_eq!(cache.find(&Meta { size: 8, ..meta(5, 10) }), None);
        // What is known of files that this build did not look at stays; what is changed is replaced.
        let cache = StatCache::open(directory.path(), "a");
        cache.learn(&meta(5, 11), [200; 32], (20, 0));
        cache.save().unwrap();
        let cache = StatCache::open(directory.path(), "a");
        assert_eq!(cache.find(&meta(5, 11)), Some([200; 32]));
        assert_eq!(cache.find(&meta(5, 10)), None);
        assert_eq!(cache.find(&meta(6, 10)), Some([6; 32]));
    }

    #[test]
    fn a_file_changed_in_the_same_moment_is_not_trusted() {
        let cache = StatCache::default();
        cache.learn(&meta(1, 20), [1; 32], (20, 0));
        cache.learn(&meta(2, 20), [2; 32], (20, 10_000_000));
        cache.learn(&meta(3, 20), [3; 32], (20, 60_000_000));
        let coarse = Meta { mtime: (5, 0), ctime: (20, 0), ..meta(4, 20) };
        cache.learn(&coarse, [4; 32], (21, 0));
        assert_eq!([1, 2, 3].map(|inode| cache.find(&meta(inode, 20)).is_some()), [false, false, true]);
        assert_eq!(cache.find(&coarse), None);
    }

    #[test]
    fn a_damaged_file_counts_as_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let cache = StatCache::open(directory.path(), "a");
        cache.learn(&meta(1, 10), [1; 32], (20, 0));
        cache.save().unwrap();
        let good = std::fs::read(&path).unwrap();
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).unwrap();
            assert_eq!(StatCache::open(directory.path(), "a").find(&meta(1, 10)), None);
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(StatCache::open(directory.path(), "a").find(&meta(1, 10)), None);
        }
        std::fs::write(&path, &good).unwrap();
        assert!(StatCache::open(directory.path(), "a").find(&meta(1, 10)).is_some());
    }
}
