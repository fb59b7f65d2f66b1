//! Making one name in an open directory that somebody else may change meanwhile.
//!
//! A name is one component below a descriptor, and what is made is never looked up by name again: attributes are set
//! through the descriptor of what was made. A file gets its name when it is whole (`O_TMPFILE`), and takes the place of
//! another by a rename. So nothing is followed out of the directory, and nothing half-made has a name.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use hull_fs::Procfs;
use hull_layer::tar::walk::{inside, outside};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::Error;
use crate::names;

/// Extended attributes: names and values.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Bytes of a list of names, or of one value: the kernel has no more.
const MAX_XATTR: usize = 64 << 10;

/// Deeper trees are not removed to make room: each level is an open descriptor.
const MAX_DEPTH: usize = 256;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What happens to a name that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It stays as it is: an interrupted copy is continued.
    Keep,
    /// It is replaced, but a directory only by a directory, which keeps what is in it.
    Replace,
    /// As [`Self::Replace`], but a directory with all that is in it goes for anything else, and anything else for a
    /// directory.
    Force,
}

/// How names are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// What happens to a name that is taken.
    pub(crate) existing: Existing,
    /// Owners are as at the source; otherwise everything belongs to the caller, and set-user-ID bits go.
    pub(crate) owners: bool,
    /// Device nodes are made.
    pub(crate) devices: bool,
    /// All extended attributes, those of overlayfs included.
    pub(crate) raw: bool,
    /// User and group of everything, whatever the source says.
    pub(crate) owner: Option<(u32, u32)>,
    /// Whose numbers owners are.
    pub(crate) users: Users,
}

/// First of the IDs that the source's and the destination's users have on this machine; 0 where they are the machine's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Users {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

/// What a file has beside its content.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timespec,
    pub(crate) xattrs: Xattrs,
}

impl Attributes {
    #[expect(clippy::cast_possible_wrap, reason = "nanoseconds are below 10^9")]
    pub(crate) fn of(stat: &Stat, xattrs: Xattrs) -> Self {
        let mtime = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 };
        Self { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs }
    }
}

/// Makes names.
#[derive(Debug)]
pub(crate) struct Place {
    procfs: Procfs,
    policy: Policy,
}

/// The attributes of a file that is open for more than its place.
pub(crate) fn xattrs(file: BorrowedFd<'_>, raw: bool) -> Result<Xattrs, Errno> {
    let mut names = vec![0_u8; 512];
    let length = loop {
        match rustix::fs::flistxattr(file, &mut names) {
            Err(Errno::RANGE) if names.len() < MAX_XATTR => names.resize(MAX_XATTR, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
            length => break length?,
        }
    };
    let mut found = Xattrs::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty() && wanted(name, raw)) {
        let mut value = vec![0_u8; MAX_XATTR];
        match rustix::fs::fgetxattr(file, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                found.push((name.to_vec(), value));
            }
            // It was removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

fn wanted(name: &[u8], raw: bool) -> bool {
    let known = [&b"user."[..], b"security.capability", b"system.posix_acl_", b"trusted."];
    let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    known.iter().any(|prefix| name.starts_with(prefix)) && (raw || !overlay)
}

impl Place {
    pub(crate) fn new(policy: Policy) -> Result<Self, Error> {
        Ok(Self { procfs: Procfs::new()?, policy })
    }

    pub(crate) fn policy(&self) -> Policy {
        self.policy
    }

    /// Opens what a descriptor stands for; nothing is looked up.
    pub(crate) fn reopen(&self, file: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.procfs.reopen(file, flags | OFlags::NOCTTY | OFlags::NONBLOCK)
    }

    /// A directory of that name, made if there is none; whether it was made.
    pub(crate) fn directory(&self, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(OwnedFd, bool), Errno> {
        let new = match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno),
        };
        let open = || rustix::fs::openat(parent, name, DIRECTORY, Mode::empty());
        match open() {
            Err(Errno::NOTDIR | Errno::LOOP) if self.policy.existing == Existing::Force => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
                rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
                Ok((open()?, true))
            }
            opened => Ok((opened?, new)),
        }
    }

    /// A regular file with what `fill` writes. Returns what was made, unless the name was taken and stays.
    pub(crate) fn file(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        attributes: &Attributes,
        fill: &mut dyn FnMut(&File) -> io::Result<()>,
    ) -> io::Result<Option<OwnedFd>> {
        if self.policy.existing == Existing::Keep && exists(parent, name)? {
            return Ok(None);
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let private = Mode::RUSR | Mode::WUSR;
        let nameless = match rustix::fs::openat(parent, c".", flags | OFlags::TMPFILE, private) {
            // The file system, or the kernel for it, has no files without a name.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => None,
            opened => Some(File::from(opened?)),
        };
        let Some(file) = nameless else {
            let temporary = temporary()?;
            let create = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let file = File::from(rustix::fs::openat(parent, &temporary, create, private)?);
            let made = fill(&file)
                .and_then(|()| Ok(self.set(file.as_fd(), FileType::RegularFile, attributes)?))
                .and_then(|()| Ok(self.put(parent, &temporary, name)?));
            if made.is_err() {
                let _ = rustix::fs::unlinkat(parent, &temporary, AtFlags::empty());
            }
            return made.map(|put| put.then(|| file.into()));
        };
        fill(&file)?;
        self.set(file.as_fd(), FileType::RegularFile, attributes)?;
        match self.link(parent, name, file.as_fd()) {
            Ok(()) => Ok(Some(file.into())),
            Err(Errno::EXIST) if self.policy.existing == Existing::Keep => Ok(None),
            Err(Errno::EXIST) => {
                let temporary = temporary()?;
                self.link(parent, &temporary, file.as_fd())?;
                match self.put(parent, &temporary, name) {
                    Ok(_) => Ok(Some(file.into())),
                    // Something is mounted on it, as on /etc/hosts: it gets the content.
                    Err(Errno::BUSY) => {
                        let taken = open_regular(parent, name)?;
                        let taken = File::from(self.reopen(taken.as_fd(), OFlags::WRONLY | OFlags::TRUNC)?);
                        fill(&taken)?;
                        Ok(None)
                    }
                    Err(errno) => Err(errno.into()),
                }
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Another name of a file. `EEXIST` when it is taken.
    fn link(&self, parent: BorrowedFd<'_>, name: &OsStr, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let links = self.procfs.open_raw("self/fd", OFlags::PATH | OFlags::DIRECTORY)?;
        let number = rustix::path::DecInt::new(file.as_raw_fd());
        rustix::fs::linkat(&links, number, parent, name, AtFlags::SYMLINK_FOLLOW)
    }

    /// [`Self::link`] by the policy.
    pub(crate) fn hard_link(&self, parent: BorrowedFd<'_>, name: &OsStr, file: BorrowedFd<'_>) -> Result<(), Errno> {
        match self.link(parent, name, file) {
            Err(Errno::EXIST) if self.policy.existing == Existing::Keep => Ok(()),
            Err(Errno::EXIST) => {
                let temporary = temporary()?;
                self.link(parent, &temporary, file)?;
                self.put(parent, &temporary, name)?;
                // A rename onto another name of the same file does nothing at all.
                match rustix::fs::unlinkat(parent, &temporary, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(errno),
                }
            }
            result => result,
        }
    }

    /// A symbolic link.
    pub(crate) fn symlink(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), Errno> {
        self.node(parent, name, FileType::Symlink, attributes, &|name| rustix::fs::symlinkat(target, parent, name))
    }

    /// A pipe or a device.
    pub(crate) fn special(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        kind: FileType,
        device: u64,
        attributes: &Attributes,
    ) -> Result<(), Errno> {
        self.node(parent, name, kind, attributes, &|name| {
            rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)
        })
    }

    fn node(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        kind: FileType,
        attributes: &Attributes,
        make: &dyn Fn(&OsStr) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        if self.policy.existing == Existing::Keep && exists(parent, name)? {
            return Ok(());
        }
        let temporary = temporary()?;
        make(&temporary)?;
        let finished =
            rustix::fs::openat(parent, &temporary, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .and_then(|made| {
                    if FileType::from_raw_mode(rustix::fs::fstat(&made)?.st_mode) != kind {
                        return Err(Errno::STALE);
                    }
                    self.set(made.as_fd(), kind, attributes)
                })
                .and_then(|()| self.put(parent, &temporary, name).map(drop));
        if finished.is_err() {
            let _ = rustix::fs::unlinkat(parent, &temporary, AtFlags::empty());
        }
        finished
    }

    /// Gives a temporary name's file its own name. Returns whether it has it.
    fn put(&self, parent: BorrowedFd<'_>, temporary: &OsStr, name: &OsStr) -> Result<bool, Errno> {
        let replace = self.policy.existing != Existing::Keep;
        let flags = if replace { rustix::fs::RenameFlags::empty() } else { rustix::fs::RenameFlags::NOREPLACE };
        let rename = || rustix::fs::renameat_with(parent, temporary, parent, name, flags);
        let renamed = match rename() {
            Err(Errno::ISDIR) if self.policy.existing == Existing::Force => {
                clear(parent, name, 0).and_then(|()| rename())
            }
            renamed => renamed,
        };
        let put = match renamed {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) if !replace => Ok(false),
            Err(errno) => Err(errno),
        };
        let _ = rustix::fs::unlinkat(parent, temporary, AtFlags::empty());
        put
    }

    /// Owner, mode, attributes and time of what was made, by descriptor.
    pub(crate) fn set(&self, file: BorrowedFd<'_>, kind: FileType, attributes: &Attributes) -> Result<(), Errno> {
        let mut mode = attributes.mode;
        if self.policy.owners {
            let (uid, gid) = self.policy.owner.unwrap_or((attributes.uid, attributes.gid));
            let Users { from, to } = self.policy.users;
            let number = |id| outside(inside(id, from), to);
            let (uid, gid) = (Uid::from_raw(number(uid)), Gid::from_raw(number(gid)));
            match rustix::fs::chownat(file, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH) {
                // An ordinary user makes what is his.
                Err(Errno::PERM) if !rustix::process::geteuid().is_root() => mode &= 0o1777,
                result => result?,
            }
        } else {
            // Another's program must not become one of the caller's.
            mode &= 0o1777;
        }
        if kind == FileType::Symlink {
            return Ok(());
        }
        let ordinary = matches!(kind, FileType::RegularFile | FileType::Directory);
        if ordinary {
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
            for (name, value) in &attributes.xattrs {
                match rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
                    // The file system has none, or only a more privileged one may.
                    Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                    result => result?,
                }
            }
        } else {
            let links = self.procfs.open_raw("self/fd", OFlags::PATH | OFlags::DIRECTORY)?;
            let number = rustix::path::DecInt::new(file.as_raw_fd());
            rustix::fs::chmodat(&links, number, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        if ordinary {
            let keep = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let times = Timestamps { last_access: keep, last_modification: attributes.mtime };
            rustix::fs::futimens(file, &times)?;
        }
        Ok(())
    }
}

/// Removes a directory and what is in it, by descriptors: links are not followed, and of what others put in meanwhile
/// nothing is waited for.
fn clear(parent: BorrowedFd<'_>, name: &OsStr, depth: usize) -> Result<(), Errno> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let directory = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => clear(directory.as_fd(), name, depth + 1)?,
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn temporary() -> Result<OsString, Errno> {
    let random = names::random().map_err(|_| Errno::IO)?;
    Ok(format!(".hull-copy-{}", &names::hex(&random)[..16]).into())
}

fn exists(parent: BorrowedFd<'_>, name: &OsStr) -> Result<bool, Errno> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn open_regular(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file),
        _ => Err(Errno::BUSY),
    }
}
