//! A proc file system that can be trusted.
//!
//! A container can mount over parts of its `/proc`, so that a write meant for `/proc/self/attr/exec` lands in another
//! file, or nowhere. A handle refuses every path that crosses a mount, a magic link or its own root. Where something
//! is mounted over the machine's `/proc` for good reason, a private instance that nobody else can mount on serves.

use std::cell::OnceCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::{Error, inside, root};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// Inode number of the root of every procfs.
const PROC_ROOT_INO: u64 = 1;

/// A verified procfs. `self` in its paths is the process that uses it.
#[derive(Debug)]
pub struct Procfs {
    main: OwnedFd,
    /// Made when something is mounted over a path that is wanted of `main`.
    private: OnceCell<OwnedFd>,
}

impl Procfs {
    /// The machine's `/proc` if it is one, else a private instance.
    ///
    /// # Errors
    /// When `/proc` is not a procfs and a private one may not be mounted.
    pub fn new() -> Result<Self, Error> {
        let path = Path::new("/proc");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(directory) = rustix::fs::open(path, flags, Mode::empty())
            && let Ok(verified) = Self::from_fd(directory)
        {
            return Ok(verified);
        }
        Self::private()
    }

    /// A new instance for the caller's PID namespace, mounted nowhere (`fsopen(2)`, Linux 5.2).
    ///
    /// # Errors
    /// Without the privilege to mount; in a user namespace also when the visible `/proc` has parts covered.
    pub fn private() -> Result<Self, Error> {
        let main = mount_private().map_err(Error::system("mount private", "/proc"))?;
        Self::from_fd(main)
    }

    /// Takes a descriptor after checking that it is the root of a procfs.
    ///
    /// # Errors
    /// [`Error::NotProcfs`] when it is not.
    pub fn from_fd(directory: OwnedFd) -> Result<Self, Error> {
        let is_proc = rustix::fs::fstatfs(&directory).is_ok_and(|stat| stat.f_type as u64 == PROC_SUPER_MAGIC);
        let is_root = rustix::fs::fstat(&directory).is_ok_and(|stat| stat.st_ino == PROC_ROOT_INO);
        if is_proc && is_root {
            Ok(Self { main: directory, private: OnceCell::new() })
        } else {
            Err(Error::NotProcfs("/proc".into()))
        }
    }

    /// Opens a file by its path below `/proc`, such as `self/oom_score_adj`; allocates nothing.
    ///
    /// # Errors
    /// As `openat2(2)`: `EXDEV` when something is mounted over the path and no private instance can be made, `ELOOP`
    /// for a magic link.
    pub fn open_raw(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        match open_beneath(self.main.as_fd(), path, flags) {
            Err(Errno::XDEV) => {
                let private = match self.private.get() {
                    Some(private) => private,
                    None => {
                        let made = mount_private().map_err(|_| Errno::XDEV)?;
                        self.private.get_or_init(|| made)
                    }
                };
                open_beneath(private.as_fd(), path, flags)
            }
            result => result,
        }
    }

    /// [`Self::open_raw`] with the path in the error.
    ///
    /// # Errors
    /// As [`Self::open_raw`].
    pub fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Error> {
        self.open_raw(path, flags).map_err(Error::system("open", Path::new("/proc").join(path)))
    }

    /// Writes `bytes` in one call, as procfs files want it; allocates nothing.
    ///
    /// # Errors
    /// As [`Self::open_raw`] and `write(2)`; `EIO` for a short write.
    pub fn write_raw(&self, path: &str, bytes: &[u8]) -> Result<(), Errno> {
        let file = self.open_raw(path, OFlags::WRONLY)?;
        if rustix::io::write(&file, bytes)? == bytes.len() { Ok(()) } else { Err(Errno::IO) }
    }

    /// [`Self::write_raw`] with the path in the error.
    ///
    /// # Errors
    /// As [`Self::write_raw`].
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        self.write_raw(path, bytes).map_err(Error::system("write", Path::new("/proc").join(path)))
    }

    /// Reads a file of at most `max` bytes.
    ///
    /// # Errors
    /// As [`Self::open_raw`] and `read(2)`; [`Error::TooLong`].
    pub fn read(&self, path: &str, max: usize) -> Result<Vec<u8>, Error> {
        let file = self.open(path, OFlags::RDONLY)?;
        root::read_bounded(file, &Path::new("/proc").join(path), max)
    }

    /// Opens the file behind a descriptor of this process anew, with other flags, through its magic link.
    ///
    /// # Errors
    /// As `openat(2)`.
    pub fn reopen(&self, file: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
        let directory = self.open_raw("self/fd", OFlags::PATH | OFlags::DIRECTORY)?;
        let number = rustix::path::DecInt::new(file.as_raw_fd());
        rustix::fs::openat(&directory, number, flags | OFlags::CLOEXEC, Mode::empty())
    }
}

/// Start time of a process in clock ticks since boot; `None` when it does not exist or is a zombie. With its number it
/// names a process for ever.
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    let file = rustix::fs::open(format!("/proc/{pid}/stat"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = [0_u8; 1024];
    let length = rustix::io::read(&file, &mut bytes).ok()?;
    // The command name may be any bytes; everything after its closing parenthesis is ASCII.
    let end = bytes[..length].iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&bytes[end + 1..length]).ok()?.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl AsFd for Procfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.main.as_fd()
    }
}

fn open_beneath(directory: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    inside::open_with(directory, path, flags, Mode::empty(), resolve)
}

fn mount_private() -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
