//! Cache directories that go to another machine, as a tar.
//!
//! ```text
//! cache-mounts.json     [{"directory": "0", "name": NAME, "slot": N, "mode": BITS, "uid": N, "gid": N}, ...]
//! 0/...                 what the step saw in the directory
//! ```
//!
//! Owners, modes and times go along; devices, attributes and bits that lend somebody's rights do not. Nobody uses a
//! directory while it is read or replaced: one that a step uses is refused. What is in a directory was put there by steps,
//! and what is in an archive by anybody: links are carried and never followed, names are resolved below open
//! directories, and what an archive holds is bounded as layers are. All of it is unpacked before anything is replaced.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use hull_fs::Root;
use hull_fs::lock::Lock;
use rusqlite::{Connection, Transaction, params};
use serde::{Deserialize, Serialize};

use super::locks::{create_private, is_named};
use super::{Cache, now};
use crate::Error;
use crate::files::export::{extract_owned, to_tar};
use crate::files::tree::FileTree;
use crate::files::trees::MachineDirectory;

const LIST: &str = "cache-mounts.json";
/// A longer list is refused.
const MAX_LIST: usize = 4 << 20;
/// Directories of one archive.
const MAX_DIRECTORIES: usize = 1000;
/// The longest name of a directory.
const MAX_NAME: usize = 4096;

/// A directory of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Carried {
    directory: String,
    name: String,
    slot: i64,
    mode: u32,
    uid: u32,
    gid: u32,
}

fn refused(reason: impl Into<String>) -> Error {
    Error::Request(reason.into())
}

fn in_use(name: &str) -> Error {
    refused(format!("cache directory {:?} is used by a step: wait for its end", hull_oci::spec::one_line(name)))
}

impl Cache {
    /// Writes cache directories as a tar: those of these IDs, as [`Cache::usage`] has them, or of these names; all without
    /// any. Gives their names.
    ///
    /// # Errors
    /// When there is none of an ID, a step uses one, or it cannot be read or written.
    pub fn export_mounts(&self, wanted: &[String], output: impl Write) -> Result<Vec<String>, Error> {
        let rows = |connection: &Connection| -> Result<Vec<(i64, String, i64)>, hull_image::Error> {
            let mut statement =
                connection.prepare("SELECT id, name, slot FROM cache_mounts WHERE ready ORDER BY name, slot")?;
            let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        let mut all = self.store.database().read(rows)?;
        let fits = |(id, name, _): &(i64, String, i64), word: &String| *word == format!("m{id}") || word == name;
        if let Some(missing) = wanted.iter().find(|word| !all.iter().any(|row| fits(row, word))) {
            return Err(refused(format!(
                "no cache directory {missing:?}: 'hull builder du --filter type=exec.cachemount' lists them"
            )));
        }
        all.retain(|row| wanted.is_empty() || wanted.iter().any(|word| fits(row, word)));
        let (mut held, mut trees, mut list) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (id, name, slot)) in all.into_iter().enumerate() {
            let directory = self.mount_directory(id);
            held.push(self.hold(&directory, &name)?);
            let data = directory.join("data");
            let tree = MachineDirectory::open(&data, "cache directory")?;
            let meta = fs::symlink_metadata(&data).map_err(Error::io("read", &data))?;
            let (mode, uid, gid) = (meta.mode() & 0o1777, meta.uid(), meta.gid());
            list.push(Carried { directory: number.to_string(), name, slot, mode, uid, gid });
            trees.push((format!("/{number}/"), tree));
        }
        let text = serde_json::to_vec(&list).map_err(|error| refused(format!("write {LIST}: {error}")))?;
        let head = self.workplace("export")?;
        fs::write(head.path.join(LIST), text).map_err(Error::io("write", LIST))?;
        let first = MachineDirectory::open(&head.path, LIST)?;
        let mut all: Vec<(&str, &dyn FileTree)> = vec![("/", &first)];
        all.extend(trees.iter().map(|(place, tree)| (place.as_str(), tree as &dyn FileTree)));
        to_tar(&all, output, None)?;
        Ok(list.into_iter().map(|one| one.name).collect())
    }

    /// Takes the cache directories of a tar, in place of those of the same names. Gives the names.
    ///
    /// # Errors
    /// When it is no such archive or is refused, or a step uses one of the directories.
    pub fn import_mounts(&self, input: impl Read) -> Result<Vec<String>, Error> {
        let work = self.workplace("import")?;
        extract_owned(input, &work.path)?;
        let root = Root::open(&work.path)?;
        let text = root
            .read_bounded(Path::new(LIST), MAX_LIST)
            .map_err(|error| refused(format!("this is no archive of 'hull builder cache export': {error}")))?;
        let list: Vec<Carried> =
            serde_json::from_slice(&text).map_err(|error| refused(format!("its {LIST}: {error}")))?;
        if list.len() > MAX_DIRECTORIES {
            return Err(refused(format!("it has more than {MAX_DIRECTORIES} directories")));
        }
        for one in &list {
            let number = one.directory.parse::<u32>().is_ok_and(|number| number.to_string() == one.directory);
            if !number || one.name.len() > MAX_NAME || !(0..super::mounts::MAX_PRIVATE).contains(&one.slot) {
                return Err(refused(format!("its {LIST} has a directory that cannot be one")));
            }
        }
        for one in &list {
            let from = work.path.join(&one.directory);
            match fs::symlink_metadata(&from) {
                Ok(meta) if meta.is_dir() => {}
                // Archives need not name what is empty.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    fs::create_dir(&from).map_err(Error::io("create directory", &from))?;
                }
                _ => return Err(refused(format!("its {:?} is no directory", one.directory))),
            }
            self.replace(one, &from)?;
        }
        Ok(list.into_iter().map(|one| one.name).collect())
    }

    fn replace(&self, one: &Carried, from: &Path) -> Result<(), Error> {
        let id = self.mount_id(&one.name, one.slot)?;
        let directory = self.mount_directory(id);
        create_private(&directory)?;
        let _lock = self.hold(&directory, &one.name)?;
        let ready = |ready: bool| {
            let body = |transaction: &Transaction<'_>| -> Result<bool, hull_image::Error> {
                let sql = "UPDATE cache_mounts SET ready = ?2, used = ?3 WHERE id = ?1";
                Ok(transaction.execute(sql, params![id, ready, now()])? == 1)
            };
            self.store.database().write(hull_db::Sync::Normal, body)
        };
        // Whoever comes upon a half that a kill has left begins anew.
        if !ready(false)? {
            return Err(in_use(&one.name));
        }
        let data = directory.join("data");
        hull_image::remove_tree(&data).map_err(Error::io("remove", &data))?;
        if rustix::process::geteuid().is_root() {
            chown(from, Some(one.uid), Some(one.gid)).map_err(Error::io("change owner of", from))?;
        }
        fs::set_permissions(from, fs::Permissions::from_mode(one.mode & 0o1777))
            .map_err(Error::io("change mode of", from))?;
        fs::rename(from, &data).map_err(Error::io("rename", from))?;
        ready(true)?;
        Ok(())
    }

    /// Nobody uses the directory until the lock is dropped.
    fn hold(&self, directory: &Path, name: &str) -> Result<Lock, Error> {
        let path = directory.join("lock");
        match Lock::try_exclusive(&path) {
            Ok(Some(lock)) if is_named(&lock, &path) => Ok(lock),
            Ok(_) => Err(in_use(name)),
            Err(error) => Err(error.into()),
        }
    }

    /// An empty directory on the file system of the cache directories; what a kill leaves of it goes as theirs does.
    fn workplace(&self, what: &str) -> Result<Workplace, Error> {
        let directory = self.directory("mounts").join(format!("{what}-{}", std::process::id()));
        create_private(&directory)?;
        let lock = Lock::exclusive(&directory.join("lock"))?;
        let path = directory.join("data");
        hull_image::remove_tree(&path).map_err(Error::io("remove", &path))?;
        fs::create_dir(&path).map_err(Error::io("create directory", &path))?;
        Ok(Workplace { directory, path, _lock: lock })
    }
}

/// A directory that goes when this does.
struct Workplace {
    directory: std::path::PathBuf,
    path: std::path::PathBuf,
    _lock: Lock,
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // What cannot go now goes when the cache is next put in order.
        let _ = hull_image::remove_tree(&self.directory);
    }
}
