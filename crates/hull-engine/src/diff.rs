//! `diff`: what a container changed in its image.
//!
//! The writable layer says what was touched; each of its names is compared with what the layers below have there. A
//! file that was only copied up (opened for writing, its owner set to what it was) is no change: type, attributes and
//! size are compared, and content only where everything else is the same. Directories above a change count as changed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use hull_image::snapshot::Lower;
use hull_image::snapshot::merged::{Directory, Found, Merged, is_opaque, is_whiteout};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::Error;
use crate::records::{Container, Engine};

/// Names that a writable layer may have before a comparison is refused.
const MAX_NAMES: usize = 10_000_000;

/// Buffer of a comparison of content.
const BUFFER: usize = 64 << 10;

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The image has no such path.
    Added,
    /// It is another file, or something in it is.
    Changed,
    /// Only the image has it.
    Deleted,
}

/// One change; its text is a line of `docker diff`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Absolute path in the container.
    pub path: PathBuf,
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Added => "A",
            Self::Changed => "C",
            Self::Deleted => "D",
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind, self.path.display())
    }
}

/// Paths without leading slash, parents before what is in them.
pub(crate) type Changes = BTreeMap<PathBuf, ChangeKind>;

impl Engine {
    /// What a container changed, sorted by path.
    ///
    /// # Errors
    /// [`Error::NoImageOf`] for a container on a directory; when the layers cannot be read.
    pub fn diff(&self, container: &Container) -> Result<Vec<Change>, Error> {
        let lower = self.lower_of("compare", container)?;
        let changes = self.changes(container, &lower)?;
        let change = |(path, kind)| Change { kind, path: Path::new("/").join(path) };
        Ok(changes.into_iter().map(change).collect())
    }

    /// The layers of a container's image.
    pub(crate) fn lower_of(&self, operation: &'static str, container: &Container) -> Result<Lower, Error> {
        let none = || Error::NoImageOf { operation, id: container.id.clone() };
        let id = container.image_id.parse().map_err(|_| none())?;
        self.lower(self.images.get(&id)?.diff_ids())
    }

    /// The changes above these layers.
    pub(crate) fn changes(&self, container: &Container, lower: &Lower) -> Result<Changes, Error> {
        let path = self.upper(&container.id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let upper = rustix::fs::open(&path, flags, Mode::empty()).map_err(Error::io("open", &path))?;
        let mut layers = lower.layers().to_vec();
        layers.push(self.skeleton()?.into());
        compare(upper, Merged::new(layers))
    }
}

/// What a writable layer changes in the layers below it.
pub(crate) fn compare(upper: OwnedFd, lower: Merged) -> Result<Changes, Error> {
    Comparison { upper, lower, changes: Changes::new(), names: 0 }.run()
}

struct Comparison {
    upper: OwnedFd,
    lower: Merged,
    changes: Changes,
    names: usize,
}

impl Comparison {
    fn run(mut self) -> Result<Changes, Error> {
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            let fail = |errno: Errno| Error::io("compare", Path::new("/").join(&path))(errno);
            let directory = match self.open(&path) {
                Ok(directory) => directory,
                // The container removed it meanwhile.
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(errno) => return Err(fail(errno)),
            };
            let below = match self.lower.find(&path)? {
                Some(Found::Directory(below)) => Some(below),
                _ => None,
            };
            let names = names(&directory).map_err(fail)?;
            self.names += names.len();
            if self.names > MAX_NAMES {
                return Err(fail(Errno::OVERFLOW));
            }
            if let Some(below) = below.as_ref().filter(|_| is_opaque(directory.as_fd())) {
                for name in below.names().map_err(fail)? {
                    if names.binary_search(&name).is_err() {
                        self.changes.insert(path.join(&name), ChangeKind::Deleted);
                    }
                }
            }
            for name in names {
                let child = path.join(&name);
                if self.one(&directory, &name, &child, below.as_ref()).map_err(fail)? {
                    pending.push(child);
                }
            }
        }
        let parents: Vec<PathBuf> = self
            .changes
            .keys()
            .flat_map(|path| path.ancestors().skip(1))
            .filter(|path| !path.as_os_str().is_empty() && !self.changes.contains_key(*path))
            .map(Path::to_path_buf)
            .collect();
        self.changes.extend(parents.into_iter().map(|path| (path, ChangeKind::Changed)));
        Ok(self.changes)
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::io::retry_on_intr(|| rustix::fs::openat2(&self.upper, path, flags, Mode::empty(), resolve))
    }

    /// Compares one name. Returns whether it is a directory to be looked into.
    fn one(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        path: &Path,
        below: Option<&Directory>,
    ) -> Result<bool, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(false),
            file => file?,
        };
        let stat = rustix::fs::fstat(&file)?;
        let old = match below {
            Some(below) => below.child(name)?,
            None => None,
        };
        if is_whiteout(file.as_fd(), &stat) {
            // What the container made and removed again leaves a mark too.
            if old.is_some() {
                self.changes.insert(path.to_path_buf(), ChangeKind::Deleted);
            }
            return Ok(false);
        }
        let changed = match &old {
            None => Some(ChangeKind::Added),
            Some(old) => differs(file.as_fd(), &stat, old)?.then_some(ChangeKind::Changed),
        };
        if let Some(kind) = changed {
            self.changes.insert(path.to_path_buf(), kind);
        }
        Ok(FileType::from_raw_mode(stat.st_mode).is_dir())
    }
}

fn names(directory: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

fn differs(new: BorrowedFd<'_>, stat: &Stat, old: &Found) -> Result<bool, Errno> {
    let before = old.stat()?;
    let Some(old) = old.fd() else { return Ok(true) };
    let kind = FileType::from_raw_mode(stat.st_mode);
    let attributes = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec);
    if attributes(stat) != attributes(&before) {
        return Ok(true);
    }
    let device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
    if device && stat.st_rdev != before.st_rdev || !kind.is_dir() && stat.st_size != before.st_size {
        return Ok(true);
    }
    if xattrs(new)? != xattrs(old)? {
        return Ok(true);
    }
    match kind {
        FileType::RegularFile => same_content(new, old).map(|same| !same),
        FileType::Symlink => {
            let target = |fd| rustix::fs::readlinkat(fd, c"", Vec::new());
            Ok(target(new)? != target(old)?)
        }
        _ => Ok(false),
    }
}

fn link_of(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// All attributes but overlayfs's own and SELinux's label.
fn xattrs(file: BorrowedFd<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let link = link_of(file);
    let mut list = vec![0_u8; 64 << 10];
    let length = match rustix::fs::listxattr(&link, &mut list) {
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => 0,
        length => length?,
    };
    let mut all = BTreeMap::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let own = [&b"trusted.overlay."[..], b"user.overlay.", b"security.selinux"];
        if own.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let mut value = vec![0_u8; 64 << 10];
        match rustix::fs::getxattr(&link, name, &mut value) {
            Ok(length) => {
                value.truncate(length);
                all.insert(name.to_vec(), value);
            }
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(all)
}

/// Both are of the same length.
fn same_content(new: BorrowedFd<'_>, old: BorrowedFd<'_>) -> Result<bool, Errno> {
    let open = |fd| {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, link_of(fd), flags, Mode::empty()).map(File::from)
    };
    let (mut new, mut old) = (open(new)?, open(old)?);
    let (mut a, mut b) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let fail = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let length = new.read(&mut a).map_err(fail)?;
        if length == 0 {
            return Ok(true);
        }
        match old.read_exact(&mut b[..length]) {
            Ok(()) if a[..length] == b[..length] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(fail(error)),
        }
    }
}

/// A path as the archive has it.
pub(crate) fn is_changed(changes: &Changes, path: &[u8]) -> bool {
    changes.contains_key(Path::new(OsStr::from_bytes(path)))
}
