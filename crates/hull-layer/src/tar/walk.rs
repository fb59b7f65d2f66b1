//! Writes a directory of the host as tar: an exported root file system, or an overlay's upper directory as a layer.
//!
//! Whoever runs in the container may change the directory meanwhile. So every name is opened by descriptor, beneath the
//! root and without following links; what was opened is what is described; only regular files are opened for reading; and
//! a file that gets shorter is filled with zeros to the length that its header says.
//!
//! ```text
//! upper directory                       layer
//! character device 0:0 NAME             .wh.NAME, before its siblings
//! directory, overlay.opaque=y           .wh..wh..opq in it
//! overlay.redirect, overlay.metacopy    refused: the content is in the layers below
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use hull_fs::Procfs;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::name::{PATH_MAX, text};
use super::{Entry, EntryKind, Writer};
use crate::tree::{self, Xattrs};
use crate::{Error, Limits};

/// More open directories than this are closed and opened again: a container can nest them deeper than descriptors last.
const OPEN_DIRECTORIES: usize = 64;
/// How many paths of each kind a [`Report`] names.
const REPORTED: usize = 16;

/// The attributes that an overlay mount keeps its marks in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// `trusted.overlay.*`.
    Trusted,
    /// `user.overlay.*`, with the mount option `userxattr`.
    User,
}

/// Whether a path is left out.
pub type Exclude<'a> = dyn Fn(&[u8]) -> bool + 'a;

/// What is written of a regular file in place of what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amended {
    /// What it holds.
    Same,
    /// Nothing: it is left out.
    Omitted,
    /// This.
    Replaced(Vec<u8>),
    /// What it holds, beginning with this in place of as many bytes.
    Begins(Vec<u8>),
}

/// What is written of a regular file with one name, by its path, itself and its size. It must not move the file's position.
pub type Amend<'a> = dyn Fn(&[u8], &File, u64) -> io::Result<Amended> + 'a;

/// What is written, and what not.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// The directory is the upper directory of an overlay, to be written as a layer.
    pub upper: Option<Overlay>,
    /// The root directory itself gets an entry.
    pub root: bool,
    /// Directories that other file systems are mounted on are written without what is in these.
    pub one_file_system: bool,
    /// Paths, in the form of [`Entry::path`], that are left out with all that is below them.
    pub exclude: Option<&'a Exclude<'a>>,
    /// What is written of regular files that have one name.
    pub amend: Option<&'a Amend<'a>>,
    /// The first of the IDs that the container's users have here, if they have some of their own: owners are written as the
    /// container numbers them, and others as nobody.
    pub first_id: u32,
    /// How many entries, and bytes of names and attributes, there may be.
    pub limits: Limits,
}

/// IDs that a container with users of its own has.
const BLOCK: u32 = 1 << 16;

/// Who has no number in a container.
const NOBODY: u32 = 65_534;

/// What a container, the first of whose IDs this is, calls an owner; with 0 its IDs are the machine's.
#[must_use]
pub fn inside(id: u32, first: u32) -> u32 {
    if first == 0 { id } else { id.checked_sub(first).filter(|id| *id < BLOCK).unwrap_or(NOBODY) }
}

/// The reverse of [`inside`].
#[must_use]
pub fn outside(id: u32, first: u32) -> u32 {
    if first == 0 { id } else { first + if id < BLOCK { id } else { NOBODY } }
}

/// [`write_directory`] of what a descriptor refers to, a directory or any other file, under a name of its own. Without
/// a name a directory's entries are as in [`write_directory`].
///
/// # Errors
/// As [`write_directory`].
pub fn write_found<W: Write>(
    writer: &mut Writer<W>,
    found: OwnedFd,
    name: &[u8],
    options: &Options<'_>,
) -> Result<Report, Error> {
    let procfs = Procfs::new().map_err(|error| failed("open", b"/proc", io::Error::other(error)))?;
    let stat = rustix::fs::fstat(&found).map_err(|errno| failed("stat", name, errno))?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let root = found.try_clone().map_err(|error| failed("open", name, error))?;
    let prefix = if directory { name } else { b"" };
    let (links, report) = (BTreeMap::new(), Report::default());
    let mut walk = Walk { writer, root: root.as_fd(), prefix, options, procfs, links, names: 0, report };
    if directory {
        walk.run()?;
    } else {
        walk.found(found, name, name.to_vec())?;
    }
    Ok(walk.report)
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Options").field("upper", &self.upper).field("root", &self.root).finish_non_exhaustive()
    }
}

/// What a walk wrote, and what a tar cannot have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries written.
    pub entries: u64,
    /// Bytes of content written.
    pub bytes: u64,
    /// Sockets, which were left out.
    pub sockets: Paths,
    /// Files that became shorter meanwhile, and end in zeros.
    pub shortened: Paths,
    /// What other file systems are mounted on, and was left out or is empty.
    pub mounts: Paths,
}

/// Some paths, and how many there are of their kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// All of them.
    pub count: u64,
    /// The first ones.
    pub first: Vec<Vec<u8>>,
}

impl Paths {
    fn add(&mut self, path: &[u8]) {
        self.count += 1;
        if self.first.len() < REPORTED {
            self.first.push(path.to_vec());
        }
    }
}

/// Writes what is in a directory, sorted, and says what could not be written.
///
/// # Errors
/// If something cannot be read, or in a layer not be expressed; the archive is then incomplete.
pub fn write_directory<W: Write>(
    writer: &mut Writer<W>,
    root: BorrowedFd<'_>,
    options: &Options<'_>,
) -> Result<Report, Error> {
    let procfs = Procfs::new().map_err(|error| failed("open", b"/proc", io::Error::other(error)))?;
    let (links, report) = (BTreeMap::new(), Report::default());
    let mut walk = Walk { writer, root, prefix: b"", options, procfs, links, names: 0, report };
    walk.run()?;
    Ok(walk.report)
}

struct Walk<'w, W> {
    writer: &'w mut Writer<W>,
    root: BorrowedFd<'w>,
    /// What stands before all paths of the archive.
    prefix: &'w [u8],
    options: &'w Options<'w>,
    procfs: Procfs,
    /// The first name of each file that has several.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    /// Entries found, bytes of names held.
    names: u64,
    report: Report,
}

/// A directory that is being written.
struct Frame {
    path: Vec<u8>,
    /// Closed when many are open.
    directory: Option<OwnedFd>,
    names: std::vec::IntoIter<Vec<u8>>,
}

impl<W: Write> Walk<'_, W> {
    fn run(&mut self) -> Result<(), Error> {
        let directory = self.open_directory(b"")?;
        let stat = rustix::fs::fstat(&directory).map_err(|errno| failed("stat", b"/", errno))?;
        let xattrs = self.xattrs(directory.as_fd(), true, b"")?;
        if self.options.root {
            self.append(b"", &stat, EntryKind::Directory, xattrs.kept, io::empty())?;
        }
        let mut open = vec![self.enter(Vec::new(), directory, xattrs.opaque)?];
        while let Some(frame) = open.last_mut() {
            let Some(name) = frame.names.next() else {
                open.pop();
                continue;
            };
            let path = join(&frame.path, &name);
            if self.options.exclude.is_some_and(|excluded| excluded(&path)) {
                continue;
            }
            if path.len() > PATH_MAX {
                return Err(failed("archive", &path, Errno::NAMETOOLONG));
            }
            let parent = match frame.directory.take() {
                Some(directory) => directory,
                None => self.open_directory(&frame.path)?,
            };
            let entered = self.name(parent.as_fd(), &name, path)?;
            let depth = open.len();
            if let Some(frame) = open.last_mut()
                && (entered.is_none() || depth < OPEN_DIRECTORIES)
            {
                frame.directory = Some(parent);
            }
            open.extend(entered);
        }
        Ok(())
    }

    /// Writes one name; a directory's frame if it is one.
    fn name(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: Vec<u8>) -> Result<Option<Frame>, Error> {
        let found = match self.open(parent, name) {
            Err(Errno::XDEV) => return self.mount_point(parent, name, &path).map(|()| None),
            // It was removed since the directory was read.
            Err(Errno::NOENT) => return Ok(None),
            found => found.map_err(|errno| failed("open", &path, errno))?,
        };
        self.found(found, name, path)
    }

    /// Writes what was opened; a directory's frame if it is one.
    fn found(&mut self, found: OwnedFd, name: &[u8], path: Vec<u8>) -> Result<Option<Frame>, Error> {
        let stat = rustix::fs::fstat(&found).map_err(|errno| failed("stat", &path, errno))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Socket {
            self.report.sockets.add(&path);
            return Ok(None);
        }
        if self.is_whiteout(&stat) {
            self.writer.whiteout(&path).map_err(|error| failed("write layer:", &path, error))?;
            self.report.entries += 1;
            return Ok(None);
        }
        if self.options.upper.is_some() && name.starts_with(b".wh.") {
            return Err(refused(&path, "a layer cannot have a name that begins with `.wh.`"));
        }
        let readable = matches!(kind, FileType::RegularFile | FileType::Directory);
        let found = if readable {
            let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
            if kind == FileType::Directory {
                flags |= OFlags::DIRECTORY;
            }
            self.procfs.reopen(found.as_fd(), flags).map_err(|errno| failed("open", &path, errno))?
        } else {
            found
        };
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let first = EntryKind::HardLink(first.clone());
                self.append(&path, &stat, first, Xattrs::new(), io::empty())?;
                return Ok(None);
            }
            self.charge(path.len() + 64)?;
            self.links.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        let xattrs = self.xattrs(found.as_fd(), readable, &path)?;
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match kind {
            FileType::Directory => {
                self.append(&path, &stat, EntryKind::Directory, xattrs.kept, io::empty())?;
                return self.enter(path, found, xattrs.opaque).map(Some);
            }
            FileType::RegularFile => {
                self.file(&path, &stat, xattrs.kept, File::from(found))?;
                return Ok(None);
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&found, "", Vec::new());
                EntryKind::Symlink(target.map_err(|errno| failed("read link", &path, errno))?.into_bytes())
            }
            FileType::CharacterDevice => EntryKind::Character(device.0, device.1),
            FileType::BlockDevice => EntryKind::Block(device.0, device.1),
            FileType::Fifo => EntryKind::Fifo,
            _ => return Err(refused(&path, "a file of an unknown type")),
        };
        self.append(&path, &stat, kind, xattrs.kept, io::empty())?;
        Ok(None)
    }

    /// Writes a directory that something is mounted on as an empty one; nothing for a file.
    fn mount_point(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), Error> {
        self.report.mounts.add(path);
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = rustix::fs::statat(parent, name, flags).map_err(|errno| failed("stat", path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.append(path, &stat, EntryKind::Directory, Xattrs::new(), io::empty())?;
        }
        Ok(())
    }

    /// Marks a directory opaque if it is, and reads its names: whiteouts first.
    fn enter(&mut self, path: Vec<u8>, directory: OwnedFd, opaque: bool) -> Result<Frame, Error> {
        if opaque {
            self.writer.opaque(&path).map_err(|error| failed("write layer:", &path, error))?;
        }
        let mut names = Vec::new();
        let mut whiteouts = Vec::new();
        let entries = Dir::read_from(&directory).map_err(|errno| failed("read directory", &path, errno))?;
        for entry in entries {
            let entry = entry.map_err(|errno| failed("read directory", &path, errno))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            self.charge(name.len() + size_of::<Vec<u8>>())?;
            let device = matches!(entry.file_type(), FileType::CharacterDevice | FileType::Unknown);
            if self.options.upper.is_some()
                && device
                && rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| self.is_whiteout(&stat))
            {
                whiteouts.push(name.to_vec());
            } else {
                names.push(name.to_vec());
            }
        }
        whiteouts.sort_unstable();
        names.sort_unstable();
        whiteouts.append(&mut names);
        Ok(Frame { path, directory: Some(directory), names: whiteouts.into_iter() })
    }

    fn is_whiteout(&self, stat: &Stat) -> bool {
        self.options.upper.is_some()
            && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == 0
    }

    fn file(&mut self, path: &[u8], stat: &Stat, xattrs: Xattrs, mut file: File) -> Result<(), Error> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut head = Vec::new();
        if let Some(amend) = self.options.amend.filter(|_| stat.st_nlink == 1) {
            match amend(path, &file, size).map_err(|error| failed("read", path, error))? {
                Amended::Same => {}
                Amended::Omitted => return Ok(()),
                Amended::Replaced(content) => {
                    let kind = EntryKind::File { size: content.len() as u64, extents: Vec::new() };
                    self.report.bytes += content.len() as u64;
                    return self.append(path, stat, kind, xattrs, content.as_slice());
                }
                Amended::Begins(begins) => {
                    file.seek(SeekFrom::Start(begins.len() as u64)).map_err(|error| failed("read", path, error))?;
                    head = begins;
                }
            }
        }
        let mut content = Exactly { input: head.as_slice().chain(file), left: size, short: false };
        let kind = EntryKind::File { size, extents: Vec::new() };
        self.append(path, stat, kind, xattrs, &mut content)?;
        self.report.bytes += size;
        if content.short {
            self.report.shortened.add(path);
        }
        Ok(())
    }

    fn append(
        &mut self,
        path: &[u8],
        stat: &Stat,
        kind: EntryKind,
        xattrs: Xattrs,
        content: impl Read,
    ) -> Result<(), Error> {
        self.report.entries += 1;
        if self.report.entries > self.options.limits.entries {
            return Err(Error::Limit { what: "entries", limit: self.options.limits.entries });
        }
        let kind = match kind {
            EntryKind::HardLink(first) => EntryKind::HardLink(prefixed(self.prefix, &first)),
            kind => kind,
        };
        let entry = Entry {
            offset: 0,
            path: prefixed(self.prefix, path),
            kind,
            mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
            uid: inside(stat.st_uid, self.options.first_id),
            gid: inside(stat.st_gid, self.options.first_id),
            mtime: stat.st_mtime,
            mtime_nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            xattrs,
        };
        self.writer.append(&entry, content).map(drop).map_err(|error| failed("archive", path, error))
    }

    /// Opens a name without being able to read or to change it.
    fn open(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
        self.openat2(parent, name, OFlags::PATH | OFlags::NOFOLLOW)
    }

    /// Opens a directory by its path from the root.
    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Error> {
        let name = if path.is_empty() { b"." } else { path };
        let opened = self.openat2(self.root, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW);
        opened.map_err(|errno| failed("open directory", path, errno))
    }

    fn openat2(&self, parent: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        if self.options.one_file_system {
            resolve |= ResolveFlags::NO_XDEV;
        }
        // A concurrent rename makes the kernel give up now and then.
        for _ in 0..128 {
            match rustix::fs::openat2(parent, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return opened,
            }
        }
        Err(Errno::AGAIN)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Error> {
        self.names += bytes as u64;
        if self.names > self.options.limits.names {
            let limit = self.options.limits.names;
            return Err(Error::Limit { what: "bytes of names and attributes", limit });
        }
        Ok(())
    }

    fn xattrs(&self, file: BorrowedFd<'_>, readable: bool, path: &[u8]) -> Result<Marks, Error> {
        let mut found = match read_xattrs(file, readable, self.options.limits.xattrs) {
            // The file system has none.
            Err(Errno::OPNOTSUPP) => Xattrs::new(),
            found => found.map_err(|errno| failed("read extended attributes of", path, errno))?,
        };
        let mut opaque = false;
        if let Some(overlay) = self.options.upper {
            let prefix: &[u8] = if overlay == Overlay::Trusted { b"trusted.overlay." } else { b"user.overlay." };
            for (name, value) in &found {
                match name.strip_prefix(prefix) {
                    Some(b"opaque") if &**value == b"y" => opaque = true,
                    Some(b"opaque") => return Err(refused(path, "its whiteouts are extended attributes")),
                    Some(b"redirect") => {
                        return Err(refused(path, "it was renamed with redirect_dir=on, and its content is below"));
                    }
                    Some(b"metacopy") => {
                        return Err(refused(path, "it was changed with metacopy=on, and its content is below"));
                    }
                    _ => {}
                }
            }
        }
        tree::keep_known(&mut found);
        found.sort();
        Ok(Marks { kept: found, opaque })
    }
}

/// What a file's attributes say.
struct Marks {
    kept: Xattrs,
    opaque: bool,
}

fn read_xattrs(file: BorrowedFd<'_>, readable: bool, limit: u64) -> Result<Xattrs, Errno> {
    // A descriptor that is only a place has no attributes of its own; the link of procfs leads to just that place.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let list = |buffer: &mut [u8]| {
        if readable { rustix::fs::flistxattr(file, buffer) } else { rustix::fs::listxattr(&*path, buffer) }
    };
    let mut names = vec![0; 512];
    let length = loop {
        match list(&mut names) {
            // The kernel lists no more than 64 KiB.
            Err(Errno::RANGE) if names.len() < 64 << 10 => names.resize(names.len() * 4, 0),
            length => break length?,
        }
    };
    let mut xattrs = Xattrs::new();
    let mut bytes = 0;
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 256];
        let got = loop {
            let got = if readable {
                rustix::fs::fgetxattr(file, name, &mut value[..])
            } else {
                rustix::fs::getxattr(&*path, name, &mut value[..])
            };
            match got {
                Err(Errno::RANGE) if value.len() < 64 << 10 => value.resize(64 << 10, 0),
                got => break got,
            }
        };
        match got {
            // It was removed meanwhile.
            Err(Errno::NODATA) => continue,
            got => value.truncate(got?),
        }
        bytes += name.len() + value.len();
        if bytes as u64 > limit {
            return Err(Errno::TOOBIG);
        }
        xattrs.push((name.into(), value.into()));
    }
    Ok(xattrs)
}

/// As many bytes as were announced.
struct Exactly<R> {
    input: R,
    left: u64,
    short: bool,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..wanted];
        let mut length = if self.short || wanted == 0 { 0 } else { self.input.read(buffer)? };
        if length == 0 && wanted > 0 {
            self.short = true;
            buffer.fill(0);
            length = wanted;
        }
        self.left -= length as u64;
        Ok(length)
    }
}

fn prefixed(prefix: &[u8], path: &[u8]) -> Vec<u8> {
    if path.is_empty() { prefix.to_vec() } else { join(prefix, path) }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

fn failed(operation: &'static str, path: &[u8], error: impl Into<io::Error>) -> Error {
    let path = if path.is_empty() { "/".to_owned() } else { text(path) };
    Error::file(operation, PathBuf::from(hull_oci::spec::one_line(&path)))(error)
}

fn refused(path: &[u8], why: &str) -> Error {
    failed("archive", path, io::Error::other(why.to_owned()))
}
