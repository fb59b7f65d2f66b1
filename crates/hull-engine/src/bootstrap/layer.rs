//! The configured root as a layer: sorted, normalised, no file newer than the newest package.
//!
//! Nothing runs in the directory any more, but what ran there could leave anything: every name is opened beneath its
//! directory's descriptor, without following links, and only regular files are read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use hull_layer::tar::{Entry, EntryKind, Writer};
use hull_layer::tree::Xattrs;
use hull_oci::Digest;
use hull_oci::digest::{Algorithm, Hasher};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::LOCK_PATH;
use super::normal::{Action, Type, action, shadow};
use crate::error::Error;

/// Directories inside each other.
const MAX_DEPTH: usize = 200;

/// Bytes of a file that is rewritten.
const MAX_REWRITTEN: u64 = 16 << 20;

/// Bytes of an extended attribute.
const MAX_XATTR: usize = 64 << 10;

/// Writes the layer to a new file; returns its digest.
pub(super) fn write(rootfs: &Path, path: &Path, epoch: u64, lock: &[u8]) -> Result<Digest, Error> {
    let root = open(rustix::fs::CWD, rootfs.as_os_str().as_bytes()).map_err(Error::io("open", rootfs))?;
    let file = File::create_new(path).map_err(Error::io("create", path))?;
    let output = Hashing { inner: BufWriter::with_capacity(256 << 10, file), hasher: Hasher::new(Algorithm::Sha256) };
    let mut walk = Walk { writer: Writer::new(output), epoch, links: BTreeMap::new(), lock: Some(lock) };
    let done = walk.directory(root.as_fd(), b"", 0).and_then(|()| {
        let mut output = walk.writer.finish()?;
        output.flush()?;
        Ok(output.hasher.finish())
    });
    done.map_err(Error::io("write the layer of", rootfs))
}

struct Hashing<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Walk<'l, W: Write> {
    writer: Writer<W>,
    epoch: u64,
    /// The first name of each file that has several.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    /// The image's lock file, until it is written.
    lock: Option<&'l [u8]>,
}

fn open(directory: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

impl<W: Write> Walk<'_, W> {
    fn directory(&mut self, directory: BorrowedFd<'_>, path: &[u8], depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!("directories are nested deeper than {MAX_DEPTH}")));
        }
        let mut names: Vec<Vec<u8>> = Vec::new();
        for entry in Dir::read_from(directory)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        // The lock file's place in the order is among its siblings; its directories are made where they are missing.
        let own = self.lock.and_then(|_| next_component(path)).map(str::as_bytes);
        if let Some(own) = own.filter(|own| !names.iter().any(|name| name == own)) {
            names.push(own.to_vec());
        }
        names.sort_unstable();
        for name in names {
            let mut full = path.to_vec();
            if !full.is_empty() {
                full.push(b'/');
            }
            full.extend(&name);
            let result = if own == Some(&name[..]) {
                self.toward_lock(directory, &name, &full, depth)
            } else {
                self.one(directory, &name, &full, depth)
            };
            result.map_err(|error| match error.kind() {
                io::ErrorKind::Other => error,
                kind => io::Error::new(
                    kind,
                    format!("{}: {error}", hull_oci::spec::one_line(&String::from_utf8_lossy(&full))),
                ),
            })?;
        }
        Ok(())
    }

    /// A component of the lock file's path: what is there, or a new directory, or the file itself.
    fn toward_lock(&mut self, directory: BorrowedFd<'_>, name: &[u8], path: &[u8], depth: usize) -> io::Result<()> {
        if path == LOCK_PATH.as_bytes() {
            let content = self.lock.take().unwrap_or_default();
            let kind = EntryKind::File { size: content.len() as u64, extents: Vec::new() };
            let mut entry = Entry::new(path, kind, 0o644);
            entry.mtime = self.seconds(i64::MAX);
            self.writer.append(&entry, content)?;
            return Ok(());
        }
        if rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return self.one(directory, name, path, depth);
        }
        let mut entry = Entry::new(path, EntryKind::Directory, 0o755);
        entry.mtime = self.seconds(i64::MAX);
        self.writer.append(&entry, io::empty())?;
        let mut next = path.to_vec();
        let component = next_component(path).unwrap_or_default().as_bytes();
        next.push(b'/');
        next.extend(component);
        self.toward_lock(directory, component, &next, depth)
    }

    fn one(&mut self, directory: BorrowedFd<'_>, name: &[u8], path: &[u8], depth: usize) -> io::Result<()> {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let asked = match kind {
            FileType::Directory => Type::Directory,
            FileType::RegularFile => Type::File,
            _ => Type::Other,
        };
        let action = action(path, asked);
        if action == Action::Skip {
            return Ok(());
        }
        match kind {
            FileType::Directory => {
                let opened = open(directory, name)?;
                let mut entry = self.entry(path, EntryKind::Directory, &stat);
                entry.mtime = self.seconds(i64::MAX);
                self.writer.append(&entry, io::empty())?;
                self.directory(opened.as_fd(), path, depth + 1)
            }
            FileType::RegularFile => self.file(directory, name, path, action),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes();
                let entry = self.entry(path, EntryKind::Symlink(target), &stat);
                self.writer.append(&entry, io::empty()).map(drop)
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                let made = if kind == FileType::BlockDevice { EntryKind::Block } else { EntryKind::Character };
                let entry = self.entry(path, made(major, minor), &stat);
                self.writer.append(&entry, io::empty()).map(drop)
            }
            FileType::Fifo => {
                let entry = self.entry(path, EntryKind::Fifo, &stat);
                self.writer.append(&entry, io::empty()).map(drop)
            }
            // Sockets of programs that ran.
            _ => Ok(()),
        }
    }

    fn file(&mut self, directory: BorrowedFd<'_>, name: &[u8], path: &[u8], action: Action) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it changed while it was read"));
        }
        if stat.st_nlink > 1 {
            let known = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_vec());
            if known != path {
                let target = known.clone();
                let entry = self.entry(path, EntryKind::HardLink(target), &stat);
                return self.writer.append(&entry, io::empty()).map(drop);
            }
        }
        let rewritten = match action {
            Action::Empty => Some(Vec::new()),
            Action::Shadow => {
                let mut content = Vec::new();
                (&file).take(MAX_REWRITTEN).read_to_end(&mut content)?;
                Some(shadow(&content, self.epoch))
            }
            Action::Keep | Action::Skip => None,
        };
        let size = rewritten.as_ref().map_or(u64::try_from(stat.st_size).unwrap_or(0), |content| content.len() as u64);
        let mut entry = self.entry(path, EntryKind::File { size, extents: Vec::new() }, &stat);
        entry.xattrs = xattrs(&file)?;
        match rewritten {
            Some(content) => self.writer.append(&entry, content.as_slice()).map(drop),
            None => self.writer.append(&entry, file).map(drop),
        }
    }

    fn entry(&self, path: &[u8], kind: EntryKind, stat: &Stat) -> Entry {
        let mode = u16::try_from(stat.st_mode & 0o7777).unwrap_or(0);
        let mut entry = Entry::new(path, kind, mode);
        entry.uid = stat.st_uid;
        entry.gid = stat.st_gid;
        entry.mtime = self.seconds(stat.st_mtime);
        entry
    }

    /// A time that is not after the newest package.
    fn seconds(&self, time: i64) -> i64 {
        time.clamp(0, i64::try_from(self.epoch).unwrap_or(i64::MAX))
    }
}

/// The component of the lock file's path that comes after `path`, if `path` is on the way.
fn next_component(path: &[u8]) -> Option<&'static str> {
    let rest = LOCK_PATH.strip_prefix(std::str::from_utf8(path).ok()?)?;
    let rest = if path.is_empty() { rest } else { rest.strip_prefix('/')? };
    rest.split('/').next().filter(|one| !one.is_empty())
}

/// The attributes that programs of the image rely on, sorted.
fn xattrs(file: &File) -> io::Result<Xattrs> {
    let mut names = vec![0; MAX_XATTR];
    let length = match rustix::fs::flistxattr(file, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0) {
        if name == b"security.capability" || name.starts_with(b"user.") {
            let mut value = vec![0; MAX_XATTR];
            let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
            value.truncate(length);
            found.push((Box::from(name), value.into_boxed_slice()));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use hull_layer::tar::Reader;

    use super::*;

    fn layer(rootfs: &Path, epoch: u64) -> (Digest, Vec<Entry>) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("layer.tar");
        let digest = write(rootfs, &path, epoch, b"{}").expect("write");
        assert_eq!(digest, Digest::of(&std::fs::read(&path).expect("read")));
        let mut reader = Reader::new(File::open(&path).expect("open"), hull_layer::Limits::default());
        let mut entries = Vec::new();
        while let Some(entry) = reader.next().expect("entry") {
            entries.push(entry);
        }
        (digest, entries)
    }

    #[test]
    fn the_same_tree_gives_the_same_layer() {
        let make = |order: &[&str]| {
            let dir = tempfile::tempdir().expect("temporary directory");
            let root = dir.path();
            for sub in ["etc", "var/log", "usr/bin", "tmp", "run/x"] {
                std::fs::create_dir_all(root.join(sub)).expect("create directory");
            }
            for name in order {
                std::fs::write(root.join(name), name).expect("write");
            }
            std::fs::write(root.join("etc/shadow"), "root:*:30000:0:\n").expect("write");
            std::os::unix::fs::symlink("a", root.join("usr/bin/l")).expect("link");
            std::fs::hard_link(root.join("usr/bin/a"), root.join("usr/bin/h")).expect("link");
            let result = layer(root, 1_000_000_000);
            drop(dir);
            result
        };
        let (first, entries) = make(&["usr/bin/a", "usr/bin/b", "tmp/t", "var/log/x.log", "var/log/y"]);
        let (second, _) = make(&["var/log/y", "usr/bin/b", "usr/bin/a"]);
        assert_eq!(first, second);
        let names: Vec<String> = entries.iter().map(|one| String::from_utf8_lossy(&one.path).into_owned()).collect();
        assert_eq!(
            names,
            [
                "etc",
                "etc/shadow",
                "run",
                "tmp",
                "usr",
                "usr/bin",
                "usr/bin/a",
                "usr/bin/b",
                "usr/bin/h",
                "usr/bin/l",
                "usr/share",
                "usr/share/hull",
                LOCK_PATH,
                "var",
                "var/log",
                "var/log/y"
            ]
        );
        assert!(entries.iter().all(|one| one.mtime == 1_000_000_000 && one.mtime_nsec == 0));
        let of = |path: &str| &entries[names.iter().position(|one| one == path).expect("entry")].kind;
        assert_eq!(of("usr/bin/h"), &EntryKind::HardLink(b"usr/bin/a".to_vec()));
        assert_eq!(of("usr/bin/l"), &EntryKind::Symlink(b"a".to_vec()));
        assert!(matches!(of("var/log/y"), EntryKind::File { size: 0, .. }));
    }

    #[test]
    fn older_times_stay() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("old");
        std::fs::write(&path, "x").expect("write");
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(500, 7);
        File::options().write(true).open(&path).and_then(|file| file.set_modified(time)).expect("set time");
        let (_, entries) = layer(dir.path(), 1000);
        assert_eq!(entries[0].mtime, 500);
    }
}
