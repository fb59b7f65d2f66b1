//! An overlay as root mount, made in the container's own mount namespace.
//!
//! The kernel refuses layers that lie in another mount namespace, and a descriptor that the parent has opened does. So
//! a layer is passed as a detached mount, which lies in none (Linux 6.15), or as the path of its directory, which is
//! cheaper but needs a process that may walk there: in a user namespace it cannot.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::mount;
use super::plan::{c_path, duplicate};
use crate::error::Error;

/// The kernel's limit of lower layers.
const MAX_LAYERS: usize = 500;

/// One directory of an overlay.
#[derive(Debug)]
struct Layer {
    /// Path of the directory, or `/proc/self/fd/N` of a detached mount.
    path: CString,
    detached: Option<OwnedFd>,
}

/// An overlay, prepared.
#[derive(Debug)]
pub(super) struct OverlayPlan {
    lower: Vec<Layer>,
    /// All lower paths joined, for kernels without `lowerdir+` (before 6.8).
    joined: CString,
    upper: Layer,
    work: Layer,
    /// Keeps the detached mount of both alive.
    _writable: Option<OwnedFd>,
    pub(super) target: CString,
    userxattr: bool,
}

impl OverlayPlan {
    /// `userns` tells that the child will be in a user namespace.
    pub(super) fn new(
        lower: &[OwnedFd],
        upper: &Path,
        work: &Path,
        target: &Path,
        userns: bool,
    ) -> Result<Self, Error> {
        if lower.is_empty() || lower.len() > MAX_LAYERS {
            return Err(Error::config("root.path", format!("{} layers, expected 1 to {MAX_LAYERS}", lower.len())));
        }
        let lower: Vec<Layer> = lower.iter().map(|fd| Layer::lower(fd, userns)).collect::<Result<_, _>>()?;
        let mut joined = Vec::new();
        for layer in &lower {
            if !joined.is_empty() {
                joined.push(b':');
            }
            for byte in layer.path.as_bytes() {
                if matches!(byte, b':' | b'\\') {
                    joined.push(b'\\');
                }
                joined.push(*byte);
            }
        }
        let (upper, work, writable) = Layer::writable(upper, work, userns)?;
        Ok(Self {
            lower,
            joined: CString::new(joined).map_err(|_| Error::config("root.path", "holds a null byte"))?,
            upper,
            work,
            _writable: writable,
            target: c_path("root.path", target)?,
            userxattr: userns,
        })
    }

    /// Makes the overlay, attached nowhere.
    pub(super) fn mount(&self) -> Result<OwnedFd, Errno> {
        let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, c"source", c"overlay")?;
        self.set_lower(context.as_fd())?;
        self.upper.set(context.as_fd(), c"upperdir")?;
        self.work.set(context.as_fd(), c"workdir")?;
        if self.userxattr {
            rustix::mount::fsconfig_set_flag(&context, c"userxattr")?;
        }
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// Passes the lower layers one by one, or on older kernels all in one string.
    fn set_lower(&self, context: BorrowedFd<'_>) -> Result<(), Errno> {
        for (index, layer) in self.lower.iter().enumerate() {
            match layer.set(context, c"lowerdir+") {
                Err(Errno::INVAL) if index == 0 => {
                    return rustix::mount::fsconfig_set_string(context, c"lowerdir", self.joined.as_c_str());
                }
                result => result?,
            }
        }
        Ok(())
    }
}

impl Layer {
    fn detached(mount: OwnedFd) -> Self {
        let path = CString::new(format!("/proc/self/fd/{}", mount.as_raw_fd())).unwrap_or_default();
        Self { path, detached: Some(mount) }
    }

    fn lower(fd: &OwnedFd, userns: bool) -> Result<Self, Error> {
        let Some(path) = path_of(fd.as_fd()) else {
            return Ok(Self::detached(duplicate(fd)?));
        };
        if userns {
            match mount::clone_tree(fd.as_fd(), false) {
                Ok(tree) => return Ok(Self::detached(tree)),
                // An ordinary user walks to directories of its own.
                Err(Errno::PERM) => {}
                Err(errno) => return Err(Error::system("clone layer", path.to_string_lossy())(errno)),
            }
        }
        Ok(Self { path, detached: None })
    }

    /// The writable directory and the work directory, which must be seen through one mount.
    fn writable(upper: &Path, work: &Path, userns: bool) -> Result<(Self, Self, Option<OwnedFd>), Error> {
        let plain = |path: &Path| Ok::<_, Error>(Self { path: c_path("root.path", path)?, detached: None });
        if let (true, Some(parent), Some(upper_name), Some(work_name)) =
            (userns && upper.parent() == work.parent(), upper.parent(), upper.file_name(), work.file_name())
        {
            match mount::open_source(&c_path("root.path", parent)?, false, false) {
                Ok(tree) => {
                    let open = |name: &std::ffi::OsStr| {
                        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                        rustix::fs::openat(&tree, name, flags, Mode::empty())
                            .map(Self::detached)
                            .map_err(Error::system("open", parent.join(name).display()))
                    };
                    let (upper, work) = (open(upper_name)?, open(work_name)?);
                    return Ok((upper, work, Some(tree)));
                }
                Err(Errno::PERM) => {}
                Err(errno) => return Err(Error::system("clone", parent.display())(errno)),
            }
        }
        Ok((plain(upper)?, plain(work)?, None))
    }

    fn set(&self, context: BorrowedFd<'_>, key: &CStr) -> Result<(), Errno> {
        if let Some(mount) = &self.detached {
            match rustix::mount::fsconfig_set_fd(context, key, mount) {
                // Layers by descriptor came with Linux 6.13.
                Err(Errno::INVAL | Errno::BADF) => {}
                result => return result,
            }
        }
        rustix::mount::fsconfig_set_string(context, key, self.path.as_c_str())
    }
}

/// The path of an open directory, if it still leads to the same one; a detached mount has none.
fn path_of(fd: BorrowedFd<'_>) -> Option<CString> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let path = rustix::fs::readlinkat(CWD, link, Vec::new()).ok()?;
    let (found, wanted) = (rustix::fs::lstat(&path).ok()?, rustix::fs::fstat(fd).ok()?);
    let same = (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino);
    let absolute = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())).is_absolute();
    (same && absolute).then_some(path)
}
