//! What a store's file system and this kernel can do for snapshots, found out by trying.
//!
//! [`Capabilities::of`] tries once for each boot, kernel and user, in a directory of the store that is gone afterwards,
//! and keeps the answer in `ROOT/snapshotter.json`. Nothing is looked up in version tables: distributions port features
//! back and switch them off. No mount of a trial is attached anywhere.
//!
//! `HULL_SNAPSHOTTER=erofs` or `=directory` overrides the choice for new layers; the last one that was given stays.

mod trial;

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Kind;
use crate::Error;
use crate::disk::Work;

/// The environment variable that overrides the choice.
pub const VARIABLE: &str = "HULL_SNAPSHOTTER";

const FILE: &str = "snapshotter.json";

/// A record is read up to this size.
const MAX_BYTES: usize = 64 << 10;

/// What can be done here, and what is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// How new layers are kept.
    pub kind: Kind,
    /// Why.
    pub reason: String,
    /// Why EROFS layers cannot be used; absent when they can.
    pub no_erofs: Option<String>,
    /// Type of the store's file system, as `docker info` calls it.
    pub backing: String,
    /// What overlayfs offers.
    pub overlay: Overlay,
}

/// What overlayfs offers on this store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overlay {
    /// Why there is no overlay with a writable layer; absent when there is.
    pub missing: Option<String>,
    /// Layers are taken one by one (`lowerdir+`), by descriptor: no limit of an option's length.
    pub descriptors: bool,
    /// Directory entries tell their type, without which overlayfs is wrong.
    pub d_type: bool,
    /// Changing a file's mode does not copy its content, where that is asked for. Hull does not ask for it.
    pub metacopy: bool,
    /// The writable layer has whole files with their own names: `commit` and `diff` read it as it is.
    pub native_diff: bool,
    /// The marks are in the `user` name space, as ordinary users need it.
    pub userxattr: bool,
    /// Directories can be renamed without copying, where that is asked for. Hull does not ask for it.
    pub redirect: bool,
    /// Files keep one device and inode number, whichever layer they are in.
    pub xino: bool,
}

/// What an answer depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    boot: String,
    kernel: String,
    user: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    key: Key,
    /// What [`VARIABLE`] said last.
    wish: Option<Kind>,
    found: Capabilities,
}

impl Key {
    fn now() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            boot: boot.trim().to_owned(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            user: rustix::process::geteuid().as_raw(),
        }
    }
}

/// What the environment asks for.
fn wish() -> Result<Option<Kind>, Error> {
    let Some(value) = hull_config::text("snapshotter").filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.parse() {
        Ok(kind) => Ok(Some(kind)),
        Err(reason) => Err(Error::Setting { setting: VARIABLE.to_owned(), value, reason }),
    }
}

impl Capabilities {
    /// What can be done in the store at `root`, which is made where it does not exist.
    ///
    /// # Errors
    /// [`Error::Setting`] when [`VARIABLE`] asks for what cannot be done; when the store cannot be written.
    pub fn of(root: &Path) -> Result<Self, Error> {
        let path = root.join(FILE);
        let (wish, key) = (wish()?, Key::now());
        let record = read(&path);
        if let Some(record) = &record
            && record.key == key
            && (wish.is_none() || wish == record.wish)
        {
            return Ok(record.found.clone());
        }
        let remembered = record.and_then(|record| record.wish);
        let mut found = Self::probe(root)?;
        found.choose(wish, remembered)?;
        let record = Record { key, wish: wish.or(remembered), found };
        let json =
            serde_json::to_vec(&record).map_err(|error| Error::io("write", &path)(std::io::Error::from(error)))?;
        hull_fs::atomic::write_path(&path, &json, 0o600)?;
        Ok(record.found)
    }

    /// Tries everything, now. Keeps nothing.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn probe(root: &Path) -> Result<Self, Error> {
        let work = Work::create(&root.join("ingest"))?;
        let mut found = trial::run(work.path())?;
        found.choose(None, None)?;
        work.remove()?;
        Ok(found)
    }

    /// A wish of now must be fulfilled; one of the past is, if it can be.
    fn choose(&mut self, wish: Option<Kind>, remembered: Option<Kind>) -> Result<(), Error> {
        match (wish, &self.no_erofs) {
            (Some(Kind::Erofs), Some(reason)) => {
                let reason = format!("not in this store: {reason}");
                return Err(Error::Setting { setting: VARIABLE.to_owned(), value: "erofs".to_owned(), reason });
            }
            (Some(kind), _) => (self.kind, self.reason) = (kind, format!("{VARIABLE}={kind}")),
            (None, None) => match remembered {
                Some(kind) => (self.kind, self.reason) = (kind, format!("{VARIABLE}={kind} was given")),
                None => (self.kind, self.reason) = (Kind::Erofs, "mounted from files".to_owned()),
            },
            (None, Some(reason)) => (self.kind, self.reason) = (Kind::Directory, reason.clone()),
        }
        Ok(())
    }

    /// The lines of `hull info` below `Storage Driver`, as `docker info` has them, and Hull's own.
    #[must_use]
    pub fn status(&self) -> Vec<(&'static str, String)> {
        let overlay = &self.overlay;
        let mut lines = vec![
            ("Backing Filesystem", self.backing.clone()),
            ("Supports d_type", overlay.d_type.to_string()),
            ("Using metacopy", "false".to_owned()),
            ("Native Overlay Diff", overlay.native_diff.to_string()),
            ("userxattr", overlay.userxattr.to_string()),
            ("Snapshotter", format!("{} ({})", self.kind, self.reason)),
            ("Layers by descriptor", overlay.descriptors.to_string()),
            ("Supports metacopy", overlay.metacopy.to_string()),
            ("Supports redirect_dir", overlay.redirect.to_string()),
            ("Supports xino", overlay.xino.to_string()),
        ];
        if let Some(reason) = &overlay.missing {
            lines.push(("Overlay", format!("missing ({reason})")));
        }
        lines
    }
}

/// The last answer; a damaged one is as good as none.
fn read(path: &Path) -> Option<Record> {
    let file = std::fs::File::open(path).ok()?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_BYTES as u64), &mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(no_erofs: Option<&str>) -> Capabilities {
        Capabilities {
            kind: Kind::Directory,
            reason: String::new(),
            no_erofs: no_erofs.map(str::to_owned),
            backing: "extfs".to_owned(),
            overlay: Overlay::default(),
        }
    }

    #[test]
    fn the_best_is_chosen_unless_something_else_is_asked_for() {
        let chosen = |no_erofs, wish, remembered| {
            let mut found = found(no_erofs);
            found.choose(wish, remembered).map(|()| found.kind)
        };
        assert_eq!(chosen(None, None, None).unwrap(), Kind::Erofs);
        assert_eq!(chosen(Some("old kernel"), None, None).unwrap(), Kind::Directory);
        assert_eq!(chosen(None, Some(Kind::Directory), None).unwrap(), Kind::Directory);
        assert_eq!(chosen(None, None, Some(Kind::Directory)).unwrap(), Kind::Directory);
        assert_eq!(chosen(Some("old kernel"), None, Some(Kind::Erofs)).unwrap(), Kind::Directory);
        let error = chosen(Some("old kernel"), Some(Kind::Erofs), None).unwrap_err();
        assert!(error.to_string().contains("old kernel"), "{error}");
    }

    #[test]
    fn an_answer_is_kept_and_leaves_no_trace_of_the_trial() {
        let root = tempfile::tempdir().unwrap();
        let first = Capabilities::of(root.path()).unwrap();
        let file = root.path().join(FILE);
        let written = std::fs::metadata(&file).unwrap().modified().unwrap();
        assert_eq!(Capabilities::of(root.path()).unwrap(), first);
        assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), written);
        assert_eq!(std::fs::read_dir(root.path().join("ingest")).unwrap().count(), 0);
        std::fs::write(&file, "damaged").unwrap();
        assert_eq!(Capabilities::of(root.path()).unwrap(), first);
        assert_eq!(first.kind == Kind::Erofs, first.no_erofs.is_none());
        let text = first.status().iter().map(|(key, value)| format!("{key}: {value}\n")).collect::<String>();
        assert!(text.contains("Backing Filesystem: ") && text.contains("Snapshotter: "), "{text}");
    }
}
