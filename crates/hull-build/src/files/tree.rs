//! Trees of files that copies are taken from and made onto, by names below open directories.
//!
//! A [`FileTree`] is walked one name at a time and follows no link by itself: [`resolve`] does that by hand, so that
//! nothing of a tree, whatever it contains and whoever changes it meanwhile, leads out of it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use hull_image::snapshot::Lower;
use hull_image::snapshot::merged::{Directory, Found, Merged};
use hull_image::snapshot::shared::Mounts;
use hull_oci::Digest;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::Error;

/// Symbolic links followed before a path is called a loop, as in the kernel.
const MAX_LINKS: usize = 40;
/// Names of one path, links included.
const MAX_NAMES: usize = 4096;
/// The longest path.
pub(crate) const MAX_PATH: usize = 4095;
/// The attribute that files of stages keep.
const CAPABILITY: &str = "security.capability";
/// The most bytes of one attribute.
const MAX_XATTR: usize = 64 << 10;

/// Extended attributes: names and values, sorted.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device; major, minor.
    Character(u32, u32),
    /// A block device; major, minor.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// What is known of a name without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-user-ID, set-group-ID and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Modification: seconds since 1970, nanoseconds.
    pub mtime: (i64, u32),
    /// Change, likewise.
    pub ctime: (i64, u32),
    /// Device and number.
    pub inode: (u64, u64),
    /// It has other names.
    pub shared: bool,
}

impl Meta {
    /// From what `stat(2)` says.
    #[must_use]
    pub fn new(stat: &Stat) -> Self {
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Character(device.0, device.1),
            FileType::BlockDevice => Kind::Block(device.0, device.1),
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            _ => Kind::File,
        };
        Self {
            kind,
            mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            ctime: (stat.st_ctime, u32::try_from(stat.st_ctime_nsec).unwrap_or(0)),
            inode: (stat.st_dev, stat.st_ino),
            shared: stat.st_nlink > 1,
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// An open directory of a tree.
#[derive(Debug)]
pub enum Handle {
    /// A directory of the machine, readable.
    Open(OwnedFd),
    /// A directory of layers.
    Layers(Directory),
    /// The directory that has a single file.
    Single,
}

/// A tree of files. Every name is one component below an open directory, and links are never followed.
pub trait FileTree: Send + Sync {
    /// What errors call it.
    fn origin(&self) -> &str;

    /// The directory that everything is in.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn root(&self) -> Result<(Handle, Meta), Errno>;

    /// What is in a directory, sorted by name.
    ///
    /// # Errors
    /// When it cannot be read.
    fn list(&self, directory: &Handle) -> Result<Vec<(Vec<u8>, Meta)>, Errno>;

    /// What a name is; `None` if there is none.
    ///
    /// # Errors
    /// When it cannot be looked at.
    fn stat(&self, directory: &Handle, name: &[u8]) -> Result<Option<Meta>, Errno>;

    /// Opens a directory in a directory.
    ///
    /// # Errors
    /// When it is none, or cannot be opened.
    fn enter(&self, directory: &Handle, name: &[u8]) -> Result<Handle, Errno>;

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// When it is none, or cannot be opened.
    fn open(&self, directory: &Handle, name: &[u8]) -> Result<File, Errno>;

    /// The text of a symbolic link.
    ///
    /// # Errors
    /// When it is none.
    fn read_link(&self, directory: &Handle, name: &[u8]) -> Result<Vec<u8>, Errno>;

    /// Extended attributes of a name, sorted: all of them for a directory that stays, `security.capability` otherwise.
    ///
    /// # Errors
    /// When they cannot be read.
    fn xattrs(&self, directory: &Handle, name: &[u8]) -> Result<Xattrs, Errno> {
        let _ = (directory, name);
        Ok(Vec::new())
    }

    /// Whether owners are the files' own: in layers they are, in directories of the machine they are nobody's business.
    fn keeps_owners(&self) -> bool {
        false
    }

    /// What is left out of it.
    fn ignored(&self) -> Option<&hull_dockerfile::ignore::Ignore> {
        None
    }

    /// The digest of a file's content, if it is known without reading.
    fn known_digest(&self, meta: &Meta) -> Option<[u8; 32]> {
        let _ = meta;
        None
    }

    /// Takes note of a digest that was computed of a file that was so before and after; `began` is when.
    fn learn_digest(&self, meta: &Meta, digest: [u8; 32], began: (i64, u32)) {
        let _ = (meta, digest, began);
    }
}

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
}

/// The root of no layers.
pub(crate) fn empty_directory() -> Meta {
    Meta {
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: (0, 0),
        ctime: (0, 0),
        inode: (0, 0),
        shared: false,
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
    /// Where it is on the machine.
    pub path: PathBuf,
    /// What it is; owners are root's.
    pub meta: Meta,
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
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        regular(rustix::fs::open(&self.path, flags, Mode::empty())?)
    }

    fn read_link(&self, _: &Handle, _: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::INVAL)
    }
}

/// Components of a path: `.` and empty ones are dropped, `..` takes the one before it, as a text.
#[must_use]
pub fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop();
            }
            name => names.push(name.to_vec()),
        }
    }
    names
}

/// Directory and name of a path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// A name in a directory.
pub(crate) fn below(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        b"" => name.to_vec(),
        directory => [directory, b"/", name].concat(),
    }
}

/// Components joined by `/`.
pub(crate) fn join(names: &[Vec<u8>]) -> Vec<u8> {
    names.join(&b'/')
}

/// A path without links in it, and what is there.
#[derive(Debug)]
pub struct Resolved {
    /// The names down to it.
    pub path: Vec<Vec<u8>>,
    /// What it is.
    pub meta: Meta,
}

/// A place in a tree: the open directories down to it. Going to the next path opens only what differs.
pub struct Cursor<'t> {
    tree: &'t dyn FileTree,
    root: Handle,
    open: Vec<(Vec<u8>, Handle)>,
}

impl<'t> Cursor<'t> {
    /// At the root.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn new(tree: &'t dyn FileTree) -> Result<Self, Error> {
        let (root, _) = tree.root().map_err(Error::io("open", tree.origin()))?;
        Ok(Self { tree, root, open: Vec::new() })
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> &'t dyn FileTree {
        self.tree
    }

    /// Goes to a directory and opens it; no link is followed.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn go(&mut self, directory: &[Vec<u8>]) -> Result<&Handle, Errno> {
        self.walk(directory.iter().map(Vec::as_slice))
    }

    /// [`Self::go`] to a path whose names are joined by `/`.
    ///
    /// # Errors
    /// As [`Self::go`].
    pub fn go_to(&mut self, directory: &[u8]) -> Result<&Handle, Errno> {
        self.walk(directory.split(|byte| *byte == b'/').filter(|name| !name.is_empty()))
    }

    fn walk<'n>(&mut self, names: impl Iterator<Item = &'n [u8]> + Clone) -> Result<&Handle, Errno> {
        let same = self.open.iter().zip(names.clone()).take_while(|(open, name)| open.0 == *name).count();
        self.open.truncate(same);
        for name in names.skip(same) {
            let parent = self.open.last().map_or(&self.root, |(_, handle)| handle);
            let handle = self.tree.enter(parent, name)?;
            self.open.push((name.to_vec(), handle));
        }
        Ok(self.open.last().map_or(&self.root, |(_, handle)| handle))
    }

    /// Follows every link of a path, inside the tree. `None` if there is nothing.
    ///
    /// # Errors
    /// `ELOOP`, and when something cannot be looked at.
    pub fn resolve(&mut self, path: &[Vec<u8>]) -> Result<Option<Resolved>, Errno> {
        let mut pending: Vec<Vec<u8>> = path.iter().rev().cloned().collect();
        let mut walked: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        let mut meta = self.tree.root()?.1;
        while let Some(name) = pending.pop() {
            if name == b".." {
                walked.pop();
                continue;
            }
            if !meta.is_dir() {
                return Ok(None);
            }
            let directory = match self.go(&walked) {
                Ok(_) => self.open.last().map_or(&self.root, |(_, handle)| handle),
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(errno) => return Err(errno),
            };
            let Some(found) = self.tree.stat(directory, &name)? else { return Ok(None) };
            if found.kind == Kind::Symlink {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = self.tree.read_link(directory, &name)?;
                follow(&target, &mut walked, &mut pending)?;
                continue;
            }
            walked.push(name);
            meta = found;
            if !meta.is_dir() && !pending.is_empty() {
                return Ok(None);
            }
        }
        if meta.is_dir() {
            // `..` came back to another directory than was looked at last.
            let Some((name, parent)) = walked.split_last() else {
                return Ok(Some(Resolved { path: walked, meta: self.tree.root()?.1 }));
            };
            let name = name.clone();
            self.go(parent)?;
            let directory = self.open.last().map_or(&self.root, |(_, handle)| handle);
            let Some(found) = self.tree.stat(directory, &name)? else { return Ok(None) };
            meta = found;
        }
        Ok(Some(Resolved { path: walked, meta }))
    }

    /// What a path without links is.
    ///
    /// # Errors
    /// When something cannot be looked at.
    pub fn stat(&mut self, path: &[Vec<u8>]) -> Result<Option<Meta>, Errno> {
        let Some((name, parent)) = path.split_last() else { return Ok(Some(self.tree.root()?.1)) };
        let tree = self.tree;
        match self.go(parent) {
            Ok(directory) => tree.stat(directory, name),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Opens a regular file by a path without links, its names joined by `/`.
    ///
    /// # Errors
    /// When it is none, or cannot be opened.
    pub fn open(&mut self, path: &[u8]) -> Result<File, Errno> {
        let (parent, name) = split(path);
        let tree = self.tree;
        tree.open(self.go_to(parent)?, name)
    }

    /// Reads a file of at most `max` bytes, by a path whose links are followed; `None` if there is none.
    ///
    /// # Errors
    /// When it is longer, no file, or cannot be read.
    pub fn read(&mut self, path: &[u8], max: u64) -> Result<Option<Vec<u8>>, Error> {
        use std::io::Read as _;
        let failed = |errno: Errno| Error::at("read", path)(errno);
        let Some(found) = self.resolve(&raw_components(path)).map_err(failed)? else { return Ok(None) };
        let file = self.open(&join(&found.path)).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(max + 1).read_to_end(&mut bytes).map_err(Error::at("read", path))?;
        if bytes.len() as u64 > max { Err(failed(Errno::FBIG)) } else { Ok(Some(bytes)) }
    }
}

impl std::fmt::Debug for Cursor<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Cursor").field("open", &self.open.len()).finish_non_exhaustive()
    }
}

/// Components of a path in which `..` still means the parent of whatever a link led to.
pub(crate) fn raw_components(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.map(<[u8]>::to_vec).collect()
}

/// Replaces a link by its text: what is left of a path, next name last.
pub(crate) fn follow(target: &[u8], walked: &mut Vec<Vec<u8>>, pending: &mut Vec<Vec<u8>>) -> Result<(), Errno> {
    if target.first() == Some(&b'/') {
        walked.clear();
    }
    pending.extend(raw_components(target).into_iter().rev());
    if pending.len() > MAX_NAMES { Err(Errno::NAMETOOLONG) } else { Ok(()) }
}
