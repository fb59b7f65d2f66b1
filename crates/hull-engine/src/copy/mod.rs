//! Copying files from one place to another, where either may be in the hands of a container.
//!
//! Source and destination are descriptors; every name is opened below one of them without following links, what was
//! opened is what is looked at and read, and only regular files are opened for reading. Directories deeper than a few
//! dozen are closed and found again, and must then be the same ones. [`place`] makes names; [`extract`] does so from a
//! tar archive. Owners, modes, times, links, holes and extended attributes stay; where the file system can share
//! content (`FICLONE`), nothing is copied.

pub(crate) mod extract;
pub(crate) mod place;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat};
use rustix::io::Errno;

use crate::error::Error;
use place::{Attributes, Place, Policy, xattrs};

/// More open directories than this are closed and opened again.
const OPEN_DIRECTORIES: usize = 48;
/// Names that may be held at once, in bytes.
const MAX_NAMES: usize = 1 << 30;
/// A file of procfs says that it is empty; this much of one is copied.
const MAX_UNSIZED: u64 = 4 << 20;
/// Longest path below where the copy begins.
const PATH_MAX: usize = 4095;

type Id = (u64, u64);

fn id(stat: &Stat) -> Id {
    (stat.st_dev, stat.st_ino)
}

/// What was copied, and what not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Bytes that the same files take in a tar archive, which is what Docker counts.
    pub(crate) bytes: u64,
    /// Sockets, and devices that the policy leaves out: the first of them and how many.
    pub(crate) left_out: Vec<PathBuf>,
    pub(crate) left_out_count: u64,
}

impl Report {
    fn leave_out(&mut self, path: &Path) {
        self.left_out_count += 1;
        if self.left_out.len() < 8 {
            self.left_out.push(path.to_owned());
        }
    }

    fn count(&mut self, size: u64) {
        self.bytes += 512 + size.div_ceil(512) * 512;
    }
}

/// Copies what is in a directory, and the directory's own attributes.
pub(crate) fn contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>, policy: Policy) -> Result<Report, Error> {
    let mut copy = Copy::new(policy, from, to)?;
    let from = copy.readable(from, Path::new(""))?;
    let to = rustix::io::fcntl_dupfd_cloexec(to, 3).map_err(failed("open", Path::new("/")))?;
    let frame = copy.enter(PathBuf::new(), PathBuf::new(), from, to)?;
    copy.run(frame)?;
    Ok(copy.report)
}

/// Copies one file or directory to a name of another directory. A directory that is there keeps what is in it.
pub(crate) fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr, policy: Policy) -> Result<Report, Error> {
    let mut copy = Copy::new(policy, from, to)?;
    if let Some(frame) = copy.file(from, to, name, PathBuf::new(), PathBuf::from(name))? {
        copy.run(frame)?;
    }
    Ok(copy.report)
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(Errno) -> Error {
    let shown = hull_oci::spec::one_line(&path.to_string_lossy());
    move |errno| Error::Io { operation, object: shown, source: errno.into() }
}

struct Copy<'c> {
    place: Place,
    from: BorrowedFd<'c>,
    to: BorrowedFd<'c>,
    /// Where the copy begins to write: found again in the source, it is not copied into itself.
    target: Id,
    /// The copy of each file that has several names: its path below `to`, and which file it is.
    links: BTreeMap<Id, (PathBuf, Id)>,
    names: usize,
    report: Report,
}

struct Frame {
    from_path: PathBuf,
    to_path: PathBuf,
    from: Option<OwnedFd>,
    to: Option<OwnedFd>,
    from_id: Id,
    to_id: Id,
    attributes: Attributes,
    names: std::vec::IntoIter<OsString>,
}

impl<'c> Copy<'c> {
    fn new(policy: Policy, from: BorrowedFd<'c>, to: BorrowedFd<'c>) -> Result<Self, Error> {
        let place = Place::new(policy)?;
        let stat = rustix::fs::fstat(to).map_err(failed("look at", Path::new("destination")))?;
        let report = Report { bytes: 1024, ..Report::default() };
        Ok(Self { place, from, to, target: id(&stat), links: BTreeMap::new(), names: 0, report })
    }

    fn readable(&self, directory: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Error> {
        self.place.reopen(directory, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed("open", path))
    }

    fn enter(&mut self, from_path: PathBuf, to_path: PathBuf, from: OwnedFd, to: OwnedFd) -> Result<Frame, Error> {
        let fail = |errno| failed("read directory", &from_path)(errno);
        let stat = rustix::fs::fstat(&from).map_err(fail)?;
        let to_id = id(&rustix::fs::fstat(&to).map_err(fail)?);
        let attributes = Attributes::of(&stat, xattrs(from.as_fd(), self.place.policy().raw).map_err(fail)?);
        let mut names = Vec::new();
        for entry in Dir::read_from(&from).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                self.names += name.len() + size_of::<OsString>();
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        if self.names > MAX_NAMES {
            return Err(fail(Errno::OVERFLOW));
        }
        names.sort_unstable();
        self.report.count(0);
        let from_id = id(&stat);
        Ok(Frame {
            from_path,
            to_path,
            from: Some(from),
            to: Some(to),
            from_id,
            to_id,
            attributes,
            names: names.into_iter(),
        })
    }

    fn run(&mut self, first: Frame) -> Result<(), Error> {
        let mut open = vec![first];
        while let Some(frame) = open.last_mut() {
            let from = match frame.from.take() {
                Some(from) => from,
                None => again(self.from, &frame.from_path, frame.from_id)?,
            };
            let to = match frame.to.take() {
                Some(to) => to,
                None => again(self.to, &frame.to_path, frame.to_id)?,
            };
            let Some(name) = frame.names.next() else {
                // Last, because what is made in it changes its time, and a mode may forbid to make anything.
                let set = self.place.set(to.as_fd(), FileType::Directory, &frame.attributes);
                set.map_err(failed("set attributes of", &frame.to_path))?;
                open.pop();
                continue;
            };
            self.names -= name.len() + size_of::<OsString>();
            let (from_path, to_path) = (frame.from_path.join(&name), frame.to_path.join(&name));
            if from_path.as_os_str().len().max(to_path.as_os_str().len()) > PATH_MAX {
                return Err(failed("copy", &from_path)(Errno::NAMETOOLONG));
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = match rustix::fs::openat(&from, &name, flags, Mode::empty()) {
                // It was removed since the directory was read.
                Err(Errno::NOENT) => None,
                found => Some(found.map_err(failed("open", &from_path))?),
            };
            let entered = match found {
                Some(found) => self.file(found.as_fd(), to.as_fd(), &name, from_path, to_path)?,
                None => None,
            };
            let deep = open.len() >= OPEN_DIRECTORIES;
            if let Some(frame) = open.last_mut()
                && (entered.is_none() || !deep)
            {
                frame.from = Some(from);
                frame.to = Some(to);
            }
            open.extend(entered);
        }
        Ok(())
    }

    /// Copies one file; a directory's frame if it is one.
    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        from_path: PathBuf,
        to_path: PathBuf,
    ) -> Result<Option<Frame>, Error> {
        let shown = if from_path.as_os_str().is_empty() { &to_path } else { &from_path };
        let stat = rustix::fs::fstat(from).map_err(failed("look at", shown))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory && id(&stat) == self.target {
            self.report.leave_out(shown);
            return Ok(None);
        }
        let plain = Attributes::of(&stat, Vec::new());
        let fail = |errno: Errno| match errno {
            Errno::ISDIR | Errno::NOTDIR | Errno::EXIST | Errno::LOOP => mismatch(&to_path, kind),
            errno => failed("copy", shown)(errno),
        };
        match kind {
            FileType::Directory => {
                let from = self.readable(from, shown)?;
                let (to, _) = self.place.directory(parent, name).map_err(fail)?;
                return self.enter(from_path, to_path, from, to).map(Some);
            }
            FileType::RegularFile => {
                if stat.st_nlink > 1 && self.link(&stat, parent, name).map_err(fail)? {
                    self.report.count(0);
                    return Ok(None);
                }
                self.regular(from, &stat, parent, name, &to_path).map_err(|error| {
                    match Errno::from_io_error(&error) {
                        Some(errno) => fail(errno),
                        None => Error::Io { operation: "copy", object: shown.display().to_string(), source: error },
                    }
                })?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, c"", Vec::new()).map_err(fail)?;
                self.place.symlink(parent, name, target.as_bytes(), &plain).map_err(fail)?;
                self.report.count(0);
            }
            FileType::Fifo => self.place.special(parent, name, kind, 0, &plain).map_err(fail)?,
            FileType::CharacterDevice | FileType::BlockDevice if self.place.policy().devices => {
                self.place.special(parent, name, kind, stat.st_rdev, &plain).map_err(fail)?;
            }
            _ => self.report.leave_out(shown),
        }
        Ok(None)
    }

    /// Makes another name of a file that was copied before.
    fn link(&mut self, stat: &Stat, parent: BorrowedFd<'_>, name: &OsStr) -> Result<bool, Errno> {
        let Some((path, copied)) = self.links.get(&id(stat)) else { return Ok(false) };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let Ok(first) = rustix::fs::openat2(self.to, path, flags, Mode::empty(), resolve) else { return Ok(false) };
        // Somebody may have put another file there.
        if id(&rustix::fs::fstat(&first)?) != *copied {
            return Ok(false);
        }
        match self.place.hard_link(parent, name, first.as_fd()) {
            // Another file system, or too many names: it is copied.
            Err(Errno::XDEV | Errno::MLINK | Errno::PERM) => Ok(false),
            result => result.map(|()| true),
        }
    }

    fn regular(
        &mut self,
        from: BorrowedFd<'_>,
        stat: &Stat,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        to_path: &Path,
    ) -> io::Result<()> {
        let source = File::from(self.place.reopen(from, OFlags::RDONLY)?);
        let attributes = Attributes::of(stat, xattrs(source.as_fd(), self.place.policy().raw)?);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.report.count(size);
        let made = self.place.file(parent, name, &attributes, &mut |to| content(&source, to, size))?;
        if let (Some(made), true) = (made, stat.st_nlink > 1) {
            self.links.insert(id(stat), (to_path.to_owned(), id(&rustix::fs::fstat(made)?)));
        }
        Ok(())
    }
}

/// Docker's words for a file in the way of a directory, or the other way round.
fn mismatch(path: &Path, kind: FileType) -> Error {
    let shown = hull_oci::spec::one_line(&path.to_string_lossy());
    let reason = if kind == FileType::Directory {
        format!("cannot overwrite non-directory {shown:?} with directory {shown:?}")
    } else {
        format!("cannot overwrite directory {shown:?} with non-directory {shown:?}")
    };
    Error::Copy(reason)
}

/// A directory that was closed, which must still be the same.
fn again(root: BorrowedFd<'_>, path: &Path, was: Id) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mut found = Err(Errno::AGAIN);
    for _ in 0..128 {
        found = rustix::fs::openat2(root, name, flags, Mode::empty(), resolve);
        if !matches!(found, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    let found = found.map_err(failed("open", path))?;
    let stat = rustix::fs::fstat(&found).map_err(failed("look at", path))?;
    if id(&stat) == was { Ok(found) } else { Err(failed("copy", path)(Errno::STALE)) }
}

/// Copies content: shared if the file system can, else with its holes.
fn content(mut from: &File, to: &File, size: u64) -> io::Result<()> {
    if size == 0 {
        let mut to = to;
        rustix::fs::seek(from, SeekFrom::Start(0))?;
        io::copy(&mut from.take(MAX_UNSIZED), &mut to)?;
        return Ok(());
    }
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut offset = 0;
    while offset < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(offset)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(_) => offset,
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start)).unwrap_or(size).clamp(start, size);
        if start >= size || !range(&mut from, to, start, end)? {
            break;
        }
        offset = end.max(start + 1);
    }
    Ok(rustix::fs::ftruncate(to, size)?)
}

/// Copies a range; false when the file has become shorter.
fn range(from: &mut &File, to: &File, start: u64, end: u64) -> io::Result<bool> {
    let (mut input, mut output) = (start, start);
    while input < end {
        let wanted = usize::try_from((end - input).min(64 << 20)).unwrap_or(1 << 20);
        match rustix::fs::copy_file_range(*from, Some(&mut input), to, Some(&mut output), wanted) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::NOSPC) => return Err(Errno::NOSPC.into()),
            Err(_) => break,
        }
    }
    if input >= end {
        return Ok(true);
    }
    rustix::fs::seek(*from, SeekFrom::Start(input))?;
    rustix::fs::seek(to, SeekFrom::Start(input))?;
    let mut buffer = vec![0; 256 << 10];
    let mut to = to;
    while input < end {
        let wanted = usize::try_from(end - input).unwrap_or(usize::MAX).min(buffer.len());
        let length = from.read(&mut buffer[..wanted])?;
        if length == 0 {
            return Ok(false);
        }
        to.write_all(&buffer[..length])?;
        input += length as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
