//! Blocks of user and group IDs of the machine, one for each container that has users of its own.
//!
//! ```text
//! ROOT/users/N      symbolic link to the ID of the container that has block N
//! ROOT/users/lock   held while a block is taken or given back
//! ```
//!
//! A container keeps its block until it is removed. What a killed command left is a link to a container that is neither
//! there nor being made: it is free for the next. Files of containers never carry these IDs on disk, because layers and
//! binds are idmapped, so a block can go to anybody afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use hull_fs::lock::Lock;
use hull_oci::spec::{Mount, Spec};
use rustix::fs::{FileType, major, minor};

use crate::error::Error;
use crate::records::{Engine, create_private};
use crate::spec::BLOCK;

/// First ID where `/etc/subuid` reserves none for containers: beyond what is given to people and services.
const FIRST: u32 = 0x7000_0000;

/// Blocks from there, up to the IDs that some programs take for negative.
const BLOCKS: u32 = (0x8000_0000 - FIRST) / BLOCK;

/// Whose entries of `/etc/subuid` and `/etc/subgid` are ours.
const OWNERS: [&str; 2] = ["hull", "containers"];

/// First ID and number of blocks that a file reserves.
fn reserved(text: &str) -> Option<(u32, u32)> {
    OWNERS.iter().find_map(|owner| {
        text.lines().find_map(|line| {
            let mut fields = line.trim().split(':');
            let (name, first, count) = (fields.next()?, fields.next()?, fields.next()?);
            let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
            let end = first.checked_add(count)?;
            (name == *owner && count >= BLOCK && first > 0 && end > first).then_some((first, count / BLOCK))
        })
    })
}

/// The range that is reserved for users and for groups alike, or the default one.
fn range(subuid: &str, subgid: &str) -> (u32, u32) {
    match (reserved(subuid), reserved(subgid)) {
        (Some(users), Some(groups)) if users == groups => users,
        _ => (FIRST, BLOCKS),
    }
}

impl Engine {
    fn blocks(&self) -> PathBuf {
        self.root().join("users")
    }

    /// The first ID of a container's block, which it takes if it has none.
    pub(crate) fn block(&self, id: &str) -> Result<u32, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::flag("--userns", "a block of IDs of its own can only be given by root"));
        }
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (first, count) = range(&read("/etc/subuid"), &read("/etc/subgid"));
        let directory = self.blocks();
        create_private(&directory)?;
        let _lock = Lock::exclusive(&directory.join("lock"))?;
        let mut taken = Vec::new();
        for (number, owner) in links(&directory) {
            if owner == id {
                return first.checked_add(number * BLOCK).ok_or_else(exhausted);
            }
            if self.directory(&owner).exists() || self.starting(&owner) {
                taken.push(number);
            } else {
                let _ = fs::remove_file(directory.join(number.to_string()));
            }
        }
        let free = (0..count).find(|number| !taken.contains(number)).ok_or_else(exhausted)?;
        let link = directory.join(free.to_string());
        std::os::unix::fs::symlink(id, &link).map_err(Error::io("create", &link))?;
        Ok(first + free * BLOCK)
    }

    /// Gives a container's block back.
    pub(crate) fn release_block(&self, id: &str) {
        let directory = self.blocks();
        let Ok(_lock) = Lock::exclusive(&directory.join("lock")) else { return };
        for (number, owner) in links(&directory) {
            if owner == id {
                // One that stays names nobody, and is free for the next.
                let _ = fs::remove_file(directory.join(number.to_string()));
            }
        }
    }
}

fn exhausted() -> Error {
    Error::flag("--userns", "all blocks of IDs are taken: remove containers, or reserve more in /etc/subuid")
}

fn links(directory: &Path) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let number: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?.to_str()?.to_owned())).filter(|_| number < 1 << 16)
        })
        .collect()
}

/// A container with users of its own can make no device nodes: it gets the machine's, bound. The runtime does that for
/// nodes of the same path; those that have another name inside become mounts here.
pub(crate) fn bind_devices(spec: &mut Spec) {
    let Some(linux) = &mut spec.linux else { return };
    let mounts = &mut spec.mounts;
    linux.devices.retain(|device| {
        let same = |path: &Path| {
            rustix::fs::stat(path).is_ok_and(|stat| {
                let number = (i64::from(major(stat.st_rdev)), i64::from(minor(stat.st_rdev)));
                let kind = FileType::from_raw_mode(stat.st_mode);
                let wanted = if device.kind == "b" { FileType::BlockDevice } else { FileType::CharacterDevice };
                number == (device.major, device.minor) && kind == wanted
            })
        };
        if same(Path::new(&device.path)) {
            return true;
        }
        let Some(source) =
            fs::read_dir("/dev").into_iter().flatten().flatten().map(|one| one.path()).find(|path| same(path))
        else {
            return true;
        };
        mounts.push(Mount {
            destination: device.path.clone(),
            kind: "bind".to_owned(),
            source: source.to_string_lossy().into_owned(),
            options: ["bind", "rprivate", "nosuid", "noexec"].map(String::from).to_vec(),
            ..Mount::default()
        });
        false
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_the_administrators_or_the_reserved_one() {
        assert_eq!(range("", ""), (FIRST, BLOCKS));
        let text = "people:100000:65536\ncontainers:2000000:131072\n";
        assert_eq!(range(text, text), (2_000_000, 2));
        assert_eq!(range(text, "containers:3000000:131072\n"), (FIRST, BLOCKS));
        assert_eq!(range("hull:1:100\n", "hull:1:100\n"), (FIRST, BLOCKS));
        assert_eq!(reserved("containers:4294967290:65536"), None);
    }

    #[test]
    fn a_block_is_kept_and_comes_free_with_its_container() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let home = tempfile::tempdir().unwrap();
        let engine = Engine::new(home.path().join("data"), home.path().join("run"));
        let ids: Vec<String> = ["a", "b", "c"].iter().map(|one| one.repeat(64)).collect();
        for id in &ids[..2] {
            fs::create_dir_all(engine.directory(id)).unwrap();
        }
        let first = engine.block(&ids[0]).unwrap();
        let second = engine.block(&ids[1]).unwrap();
        assert_eq!((engine.block(&ids[0]).unwrap(), second), (first, first + BLOCK));
        engine.release_block(&ids[0]);
        assert_eq!(engine.block(&ids[2]).unwrap(), first);
        // That one never came to be: its block is the next one's.
        assert_eq!(engine.block(&ids[0]).unwrap(), first);
    }
}
