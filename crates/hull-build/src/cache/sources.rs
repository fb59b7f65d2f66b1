//! What builds keep of their sources below `ROOT/cache`: digests of contexts' files, downloads, checkouts. It is made again
//! when it is missed; [`crate::files`] says what is in it and how it is locked.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use hull_fs::lock::Lock;
use serde::Deserialize;

use super::{Cache, Usage};
use crate::Error;

/// Digits of a name that an entry shows.
const SHOWN: usize = 12;
/// A longer record of an address is none.
const MAX_RECORD: u64 = 1 << 20;
/// After which a checkout without its mark is taken for left behind.
const STALE: Duration = Duration::from_secs(3600);

/// Directories, with the first word of their entries' IDs and the kind as BuildKit calls it.
const KINDS: [(&str, &str); 3] = [("context", "source.local"), ("http", "source.http"), ("git", "source.git.checkout")];

/// An entry with its place.
pub(super) struct Source {
    pub(super) usage: Usage,
    path: PathBuf,
    kind: &'static str,
}

/// What is read of an address's record.
#[derive(Deserialize)]
struct Address {
    url: String,
    digest: hull_oci::Digest,
}

impl Cache {
    /// What is kept of sources.
    pub(super) fn sources(&self) -> Vec<Source> {
        let mut all = Vec::new();
        for (kind, name) in KINDS {
            let directory = self.store.root().join("cache").join(kind);
            let addresses = if kind == "http" { addresses(&directory) } else { Vec::new() };
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let (path, file) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
                if !file.bytes().all(|byte| byte.is_ascii_hexdigit()) || file.len() < SHOWN {
                    continue;
                }
                let Some((created, used)) = times(kind, &path) else { continue };
                let description = match kind {
                    "context" => "digests of a context's files".to_owned(),
                    "git" => "checkout of a repository".to_owned(),
                    _ => match addresses.iter().find(|(_, address)| address.digest.hex() == file) {
                        Some((_, address)) => {
                            hull_oci::spec::one_line(&crate::files::http::without_secrets(&address.url))
                        }
                        None => "download".to_owned(),
                    },
                };
                all.push(Source {
                    usage: Usage {
                        id: format!("{kind}-{}", &file[..SHOWN]),
                        kind: name.to_owned(),
                        description,
                        size: hull_image::occupied(&path),
                        created,
                        used,
                        uses: 0,
                        shared: false,
                        mutable: false,
                    },
                    path,
                    kind,
                });
            }
        }
        all
    }
}

/// When an entry was made and last used: seconds since 1970. `None` for a checkout that is just being made.
fn times(kind: &str, path: &Path) -> Option<(i64, i64)> {
    let meta = fs::symlink_metadata(path).ok()?;
    let used = match (kind, fs::symlink_metadata(path.join("done"))) {
        ("git", Ok(done)) => done.mtime(),
        ("git", Err(_)) => {
            let age = meta.modified().ok()?.elapsed().ok()?;
            (age > STALE).then_some(0)?
        }
        _ => meta.mtime(),
    };
    let created = meta.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let created = created.map_or(used, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    Some((created.min(used), used))
}

/// The records of addresses.
fn addresses(directory: &Path) -> Vec<(PathBuf, Address)> {
    let records = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let records = records.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read = |path: PathBuf| {
        let small = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_RECORD);
        let bytes = small.then(|| fs::read(&path).ok()).flatten()?;
        Some((path, serde_json::from_slice(&bytes).ok()?))
    };
    records.filter_map(read).collect()
}

impl Source {
    /// Removes it; `false` if somebody uses it. Builds that have a download or digests open keep them.
    pub(super) fn remove(&self) -> Result<bool, Error> {
        let removed = |result: std::io::Result<()>, path: &Path| match result {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
            _ => Ok(()),
        };
        if self.kind != "git" {
            removed(fs::remove_file(&self.path), &self.path)?;
            let (Some(directory), Some(file)) = (self.path.parent(), self.path.file_name()) else { return Ok(true) };
            if self.kind == "http" {
                for (path, address) in addresses(directory) {
                    if address.digest.hex().as_bytes() == file.as_encoded_bytes() {
                        removed(fs::remove_file(&path), &path)?;
                    }
                }
            }
            return Ok(true);
        }
        let Ok(Some(_lock)) = Lock::try_exclusive(&self.path.join("lock")) else { return Ok(false) };
        // Without its mark nobody takes it for whole, whatever becomes of the rest.
        for path in [self.path.join("done"), self.path.join("files"), self.path.clone()] {
            let result = if path.ends_with("done") { fs::remove_file(&path) } else { fs::remove_dir_all(&path) };
            removed(result, &path)?;
        }
        Ok(true)
    }
}
