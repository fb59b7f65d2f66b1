//! What copies took, file by file: `ROOT/build/lists/HEX`, by the digest of the selection.
//!
//! Only for telling why something is done again: without such a file it is told less.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use hull_oci::Digest;

use super::Cache;
use super::locks::create_private;
use crate::Error;

/// Larger selections are not listed.
const MAX_FILES: usize = 100_000;

/// A larger list is none of ours.
const MAX_BYTES: u64 = 64 << 20;

/// How many lists there may be; the oldest go.
const MAX_LISTS: usize = 256;

impl Cache {
    /// Keeps a list of paths and stamps.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_list(&self, selection: &Digest, list: &[(String, String)]) -> Result<(), Error> {
        let directory = self.directory("lists");
        let path = directory.join(selection.hex());
        if list.is_empty() || list.len() > MAX_FILES || path.exists() {
            return Ok(());
        }
        create_private(&directory)?;
        let text: String = list.iter().map(|(path, stamp)| format!("{stamp} {path}\n")).collect();
        hull_fs::atomic::write_path(&path, text.as_bytes(), 0o600)?;
        let mut all: Vec<(SystemTime, PathBuf)> = fs::read_dir(&directory)
            .map_err(Error::io("read", &directory))?
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        all.sort();
        for (_, old) in all.iter().take(all.len().saturating_sub(MAX_LISTS)) {
            // One that stays goes the next time.
            let _ = fs::remove_file(old);
        }
        Ok(())
    }

    fn list(&self, selection: &str) -> Option<BTreeMap<String, String>> {
        let digest: Digest = selection.parse().ok()?;
        let path = self.directory("lists").join(digest.hex());
        let small = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= MAX_BYTES);
        let text = small.then(|| fs::read_to_string(&path).ok()).flatten()?;
        let line = |line: &str| line.split_once(' ').map(|(stamp, path)| (path.to_owned(), stamp.to_owned()));
        Some(text.lines().filter_map(line).collect())
    }

    /// Which files differ between two selections; `None` when that is not known.
    #[must_use]
    pub fn changed_files(&self, before: &str, now: &str) -> Option<Vec<String>> {
        let (before, now) = (self.list(before)?, self.list(now)?);
        let mut lines = Vec::new();
        for (path, stamp) in &now {
            match before.get(path) {
                None => lines.push(format!("file {path} is new")),
                Some(old) if old != stamp => lines.push(format!("file {path} changed")),
                Some(_) => {}
            }
        }
        lines.extend(before.keys().filter(|path| !now.contains_key(*path)).map(|path| format!("file {path} is gone")));
        Some(lines)
    }
}
