//! Trees of files that copies are taken from and made onto, by names below open directories.
//!
//! A [`FileTree`] is walked one name at a time and follows no link by itself: [`resolve`] does that by hand, so that
//! nothing of a tree, whatever it contains and whoever changes it meanwhile, leads out of it.

use std::fs::File;
use std::os::fd::OwnedFd;

use hull_image::snapshot::merged::Directory;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

/// Names of one path, links included.
const MAX_NAMES: usize = 4096;
/// The longest path.
pub(crate) const MAX_PATH: usize = 4095;
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

    /// Whether its files may change while they are read.
    fn may_change(&self) -> bool {
        true
    }

    /// The time of all that is in it, where its files have none of their own.
    fn fixed_time(&self) -> Option<i64> {
        None
    }

    /// Whether times are those of a checkout, which say nothing about the files.
    fn has_times_of_checkout(&self) -> bool {
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
