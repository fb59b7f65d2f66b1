//! What was downloaded and is in no image: blobs whose transfer broke off (`partial/ALGORITHM-HEX`) and files of Debian
//! archives (`cache/debian/SHA256`). All of it can be had again.
//!
//! A partial file is locked by flock(2) by whoever fetches it. Files of the cache are not locked: they stay while a
//! command with a work directory in `ingest/` lives, or for an hour after their last use.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use hull_fs::lock::Lock;
use hull_oci::Digest;

use crate::{Error, Store, disk};

/// After which a transfer that broke off is not expected to go on.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// For which a command may rely on what it has found in the cache.
const IN_USE: Duration = Duration::from_secs(3600);

/// A file of a download.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) path: PathBuf,
    /// `partial/sha256-...`
    pub(crate) name: String,
    /// The digest that it has, if complete, or will have.
    pub(crate) digest: Option<Digest>,
    pub(crate) partial: bool,
    size: u64,
    unused: Duration,
}

impl Store {
    /// Files of downloads, the longest unused first.
    pub(crate) fn downloads(&self) -> Result<Vec<Download>, Error> {
        let mut found = Vec::new();
        for (directory, partial) in [("partial", true), ("cache/debian", false)] {
            for file in disk::names(&self.root.join(directory))? {
                let path = self.root.join(directory).join(&file);
                let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
                let modified = metadata.modified().ok().and_then(|time| time.elapsed().ok());
                let text = if partial { file.replacen('-', ":", 1) } else { format!("sha256:{file}") };
                found.push(Download {
                    size: disk::occupied(&path),
                    path,
                    name: format!("{directory}/{file}"),
                    digest: text.parse().ok(),
                    partial,
                    unused: modified.unwrap_or_default(),
                });
            }
        }
        found.sort_by(|a, b| b.unused.cmp(&a.unused).then_with(|| a.name.cmp(&b.name)));
        Ok(found)
    }

    /// Removes what was downloaded and is in no image, but for what running commands rely on. Returns the bytes given
    /// back.
    ///
    /// # Errors
    /// When a directory cannot be read or a file not be removed.
    pub fn prune_downloads(&self) -> Result<u64, Error> {
        let mut running = false;
        for name in disk::names(&self.ingest())? {
            running = running || disk::is_alive(&self.ingest(), &name)?;
        }
        let least = if running { IN_USE } else { Duration::ZERO };
        self.remove_downloads(|one| one.partial || one.unused >= least)
    }

    /// Removes transfers that nobody continued for a day, then as much as is over a budget.
    pub(crate) fn expire_downloads(&self, mut excess: u64) -> Result<u64, Error> {
        let mut take = |one: &Download| {
            let over = excess > 0 && one.unused >= IN_USE;
            excess = excess.saturating_sub(if over { one.size } else { 0 });
            over || one.partial && one.unused >= STALE
        };
        self.remove_downloads(&mut take)
    }

    fn remove_downloads(&self, mut take: impl FnMut(&Download) -> bool) -> Result<u64, Error> {
        let mut freed = 0;
        for one in self.downloads()? {
            if take(&one) && one.remove()? {
                freed += one.size;
            }
        }
        Ok(freed)
    }

    /// Bytes that downloads occupy.
    pub(crate) fn downloaded(&self) -> Result<u64, Error> {
        Ok(self.downloads()?.iter().map(|one| one.size).sum())
    }
}

impl Download {
    /// `false` when somebody is just writing it.
    pub(crate) fn remove(&self) -> Result<bool, Error> {
        let mut held = None;
        if self.partial
            && let Ok(file) = File::open(&self.path)
        {
            held = Lock::try_exclusive_on(file.into(), &self.path)?;
            if held.is_none() {
                return Ok(false);
            }
        }
        disk::remove(&self.path)?;
        drop(held);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_go_unless_somebody_needs_them() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path());
        let file = |name: &str, age: u64| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, vec![1; 50_000]).unwrap();
            let then = std::time::SystemTime::now() - Duration::from_secs(age);
            File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
            path
        };
        let hex = "0".repeat(64);
        let names = || store.downloads().unwrap().into_iter().map(|one| one.name).collect::<Vec<_>>();
        let old = file(&format!("partial/sha256-{hex}"), 25 * 3600);
        let young = file(&format!("partial/sha256-{}", "1".repeat(64)), 3700);
        let cached = file(&format!("cache/debian/{hex}"), 7200);
        let fresh = file(&format!("cache/debian/{}", "2".repeat(64)), 0);
        assert!(store.downloaded().unwrap() >= 200_000);
        assert!(store.downloads().unwrap().iter().all(|one| one.digest.is_some()), "{:?}", names());

        // A day, whatever the budget; then what is over it, the oldest first; never what was used just now.
        store.expire_downloads(0).unwrap();
        assert!(!old.exists() && young.exists() && cached.exists() && fresh.exists());
        store.expire_downloads(1).unwrap();
        assert!(!cached.exists() && young.exists() && fresh.exists());
        store.expire_downloads(u64::MAX).unwrap();
        assert!(!young.exists() && fresh.exists());

        // What is being fetched stays, and what a command may be using.
        let fetched = file(&format!("partial/sha256-{hex}"), 0);
        let lock = Lock::exclusive_on(File::open(&fetched).unwrap().into(), &fetched).unwrap();
        let work = disk::Work::create(&store.ingest()).unwrap();
        assert_eq!(store.prune_downloads().unwrap(), 0);
        assert!(fetched.exists() && fresh.exists());
        drop((lock, work));
        assert!(store.prune_downloads().unwrap() >= 100_000);
        assert_eq!(names(), Vec::<String>::new());
    }
}
