//! The kinds of [`FileTree`]: directories of the machine, layers, downloads.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use hull_image::snapshot::Lower;
use hull_image::snapshot::merged::{Directory, Found, Merged};
use hull_image::snapshot::shared::Mounts;
use hull_oci::Digest;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::Error;
use super::tree::{FileTree, Handle, Meta, Xattrs, empty_directory};

/// The attribute that files of stages keep.
const CAPABILITY: &str = "security.capability";
/// The most bytes of one attribute.
const MAX_XATTR: usize = 64 << 10;

/// A directory of this machine.
#[derive(Debug)]
pub struct MachineDirectory(OwnedFd, String);

impl MachineDirectory {
    /// Opens it.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path, origin: &str) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
        Ok(Self(fd, origin.to_owned()))
    }
}

fn fd(directory: &Handle) -> Result<BorrowedFd<'_>, Errno> {
    match directory {
        Handle::Open(fd) => Ok(fd.as_fd()),
        _ => Err(Errno::BADF),
    }
}

impl FileTree for MachineDirectory {
    fn origin(&self) -> &str {
        &self.1
    }

    fn root(&self) -> Result<(Handle, Meta), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&self.0, c".", flags, Mode::empty())?;
        let meta = Meta::new(&rustix::fs::fstat(&root)?);
        Ok((Handle::Open(root), meta))
    }

    fn list(&self, directory: &Handle) -> Result<Vec<(Vec<u8>, Meta)>, Errno> {
        let directory = fd(directory)?;
        let mut all = Vec::new();
        // A descriptor of its own: the place in the directory belongs to the open file.
        let readable =
            rustix::fs::openat(directory, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for entry in Dir::new(readable)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => all.push((name.to_bytes().to_vec(), Meta::new(&stat))),
                // It was removed since.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(all)
    }

    fn stat(&self, directory: &Handle, name: &[u8]) -> Result<Option<Meta>, Errno> {
        match rustix::fs::statat(fd(directory)?, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Meta::new(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn enter(&self, directory: &Handle, name: &[u8]) -> Result<Handle, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(fd(directory)?, OsStr::from_bytes(name), flags, Mode::empty()).map(Handle::Open)
    }

    fn open(&self, directory: &Handle, name: &[u8]) -> Result<File, Errno> {
        open_file(fd(directory)?, name)
    }

    fn read_link(&self, directory: &Handle, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let text = rustix::fs::readlinkat(fd(directory)?, OsStr::from_bytes(name), Vec::new())?;
        Ok(text.into_bytes())
    }
}

/// Opens a regular file in a directory; a pipe that took its place does not make anybody wait.
fn open_file(directory: BorrowedFd<'_>, name: &[u8]) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    regular(rustix::fs::openat(directory, OsStr::from_bytes(name), flags, Mode::empty())?)
}

fn regular(file: OwnedFd) -> Result<File, Errno> {
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode).is_file() { Ok(File::from(file)) } else { Err(Errno::INVAL) }
}

/// Layers of the store, seen as one.
#[derive(Debug)]
pub struct LayerTree {
    merged: Merged,
    origin: String,
    /// Taken when it is dropped.
    lower: Option<Lower>,
}

impl LayerTree {
    /// Opens layers, lowest first; `layers` is the store's directory of them.
    ///
    /// # Errors
    /// When one is not there or cannot be mounted.
    pub fn open(layers: &Path, mounts: &Mounts, diff_ids: &[Digest], origin: &str) -> Result<Self, Error> {
        let lower = Lower::open(layers, mounts, diff_ids.iter().map(Digest::hex))?;
        Ok(Self { merged: lower.merged(), origin: origin.to_owned(), lower: Some(lower) })
    }

    /// Layers that are open already, uppermost first.
    #[must_use]
    pub fn from_merged(merged: Merged, origin: &str) -> Self {
        Self { merged, origin: origin.to_owned(), lower: None }
    }
}

impl Drop for LayerTree {
    fn drop(&mut self) {
        if let Some(lower) = self.lower.take() {
            // A line that stays is dropped by whoever reads it next.
            let _ = lower.release();
        }
    }
}

fn parts(directory: &Handle) -> Result<&Directory, Errno> {
    match directory {
        Handle::Layers(directory) => Ok(directory),
        _ => Err(Errno::BADF),
    }
}

fn link_of(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl FileTree for LayerTree {
    fn origin(&self) -> &str {
        &self.origin
    }

    fn root(&self) -> Result<(Handle, Meta), Errno> {
        let root = self.merged.root();
        let meta = match Found::Directory(self.merged.root()).stat() {
            Ok(stat) => Meta::new(&stat),
            // No layers at all.
            Err(Errno::NOENT) => empty_directory(),
            Err(errno) => return Err(errno),
        };
        Ok((Handle::Layers(root), meta))
    }

    fn list(&self, directory: &Handle) -> Result<Vec<(Vec<u8>, Meta)>, Errno> {
        let directory = parts(directory)?;
        let mut all = Vec::new();
        for name in directory.names()? {
            if let Some(found) = directory.child(&name)? {
                all.push((name.as_bytes().to_vec(), Meta::new(&found.stat()?)));
            }
        }
        Ok(all)
    }

    fn stat(&self, directory: &Handle, name: &[u8]) -> Result<Option<Meta>, Errno> {
        match parts(directory)?.child(OsStr::from_bytes(name))? {
            Some(found) => Ok(Some(Meta::new(&found.stat()?))),
            None => Ok(None),
        }
    }

    fn enter(&self, directory: &Handle, name: &[u8]) -> Result<Handle, Errno> {
        match parts(directory)?.child(OsStr::from_bytes(name))? {
            Some(Found::Directory(directory)) => Ok(Handle::Layers(directory)),
            Some(Found::Other(..)) => Err(Errno::NOTDIR),
            None => Err(Errno::NOENT),
        }
    }

    fn open(&self, directory: &Handle, name: &[u8]) -> Result<File, Errno> {
        match parts(directory)?.child(OsStr::from_bytes(name))? {
            Some(Found::Other(fd, stat)) if FileType::from_raw_mode(stat.st_mode).is_file() => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                regular(rustix::fs::openat(CWD, link_of(fd.as_fd()), flags, Mode::empty())?)
            }
            Some(_) => Err(Errno::INVAL),
            None => Err(Errno::NOENT),
        }
    }

    fn read_link(&self, directory: &Handle, name: &[u8]) -> Result<Vec<u8>, Errno> {
        match parts(directory)?.child(OsStr::from_bytes(name))? {
            Some(Found::Other(fd, _)) => Ok(rustix::fs::readlinkat(&fd, c"", Vec::new())?.into_bytes()),
            Some(Found::Directory(_)) => Err(Errno::INVAL),
            None => Err(Errno::NOENT),
        }
    }

    fn xattrs(&self, directory: &Handle, name: &[u8]) -> Result<Xattrs, Errno> {
        let Some(found) = parts(directory)?.child(OsStr::from_bytes(name))? else { return Ok(Vec::new()) };
        let Some(fd) = found.fd() else { return Ok(Vec::new()) };
        let link = link_of(fd);
        match found {
            Found::Directory(_) => all_xattrs(&link),
            Found::Other(..) => {
                Ok(xattr(&link, CAPABILITY)?.map(|value| (CAPABILITY.into(), value)).into_iter().collect())
            }
        }
    }

    fn keeps_owners(&self) -> bool {
        true
    }

    fn may_change(&self) -> bool {
        false
    }
}

fn xattr(link: &str, name: &str) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = vec![0_u8; MAX_XATTR];
    match rustix::fs::getxattr(link, name, &mut value) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn all_xattrs(link: &str) -> Result<Xattrs, Errno> {
    let mut names = vec![0_u8; MAX_XATTR];
    let length = match rustix::fs::listxattr(link, &mut names) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno),
    };
    let mut all = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(text) = std::str::from_utf8(name) else { continue };
        let own = text.starts_with("trusted.overlay.") || text.starts_with("user.overlay.");
        if own || text == "security.selinux" {
            continue;
        }
        if let Some(value) = xattr(link, text)? {
            all.push((name.to_vec(), value));
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// A directory with one file in it: a download.
#[derive(Clone, Debug)]
pub struct SingleFile {
    /// Its name in the tree.
    pub name: String,
    /// The file.
    pub file: Arc<File>,
    /// What it is; owners are root's.
    pub meta: Meta,
    /// SHA-256 of it, if that is known.
    pub sha256: Option<[u8; 32]>,
}

impl FileTree for SingleFile {
    fn origin(&self) -> &str {
        &self.name
    }

    fn root(&self) -> Result<(Handle, Meta), Errno> {
        Ok((Handle::Single, Meta { mtime: self.meta.mtime, ..empty_directory() }))
    }

    fn list(&self, _: &Handle) -> Result<Vec<(Vec<u8>, Meta)>, Errno> {
        Ok(vec![(self.name.clone().into_bytes(), self.meta)])
    }

    fn stat(&self, _: &Handle, name: &[u8]) -> Result<Option<Meta>, Errno> {
        Ok((name == self.name.as_bytes()).then_some(self.meta))
    }

    fn enter(&self, _: &Handle, _: &[u8]) -> Result<Handle, Errno> {
        Err(Errno::NOTDIR)
    }

    fn open(&self, _: &Handle, name: &[u8]) -> Result<File, Errno> {
        if name != self.name.as_bytes() {
            return Err(Errno::NOENT);
        }
        // A place in the file of its own.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        regular(rustix::fs::openat(CWD, link_of(self.file.as_fd()), flags, Mode::empty())?)
    }

    fn may_change(&self) -> bool {
        false
    }

    fn known_digest(&self, _: &Meta) -> Option<[u8; 32]> {
        self.sha256
    }

    fn read_link(&self, _: &Handle, _: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::INVAL)
    }
}
