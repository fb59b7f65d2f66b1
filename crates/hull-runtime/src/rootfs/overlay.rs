//! An overlay as root mount, made in the container's own mount namespace.
//!
//! The kernel refuses layers that lie in another mount namespace, and a descriptor that the parent has opened does. So
//! the child passes a layer as the path of its directory, or as a detached mount, which lies in none (Linux 6.15). A
//! child in a user namespace may use neither detached mounts nor, often, the paths: for it the parent makes the
//! overlay, still attached nowhere, and the child attaches it.
//!
//! The writable layer must be readable without the others: a commit takes whole files and real names from it. So what a
//! kernel may do by default to save copies (`metacopy`, `redirect_dir`) is switched off.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::plan::c_path;
use crate::error::Error;

/// The kernel's limit of lower layers.
const MAX_LAYERS: usize = 500;

/// One directory of an overlay.
#[derive(Debug)]
struct Layer {
    /// Path of the directory, or `/proc/self/fd/N` of a detached mount.
    path: CString,
    detached: Option<Arc<OwnedFd>>,
}

/// An overlay, prepared.
#[derive(Debug)]
pub(super) struct OverlayPlan {
    lower: Vec<Layer>,
    /// All lower paths joined, for kernels without `lowerdir+` (before 6.8).
    joined: CString,
    upper: CString,
    work: CString,
    pub(super) target: CString,
    userxattr: bool,
    volatile: bool,
    /// Made by the parent.
    made: Option<OwnedFd>,
}

impl OverlayPlan {
    /// `userns` tells that the child will be in a user namespace.
    pub(super) fn new(
        lower: &[Arc<OwnedFd>],
        [upper, work, target]: [&Path; 3],
        volatile: bool,
        userns: bool,
    ) -> Result<Self, Error> {
        if lower.is_empty() || lower.len() > MAX_LAYERS {
            return Err(Error::config("root.path", format!("{} layers, expected 1 to {MAX_LAYERS}", lower.len())));
        }
        let lower: Vec<Layer> = lower.iter().map(Layer::lower).collect();
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
        let mut plan = Self {
            lower,
            joined: CString::new(joined).map_err(|_| Error::config("root.path", "holds a null byte"))?,
            upper: c_path("root.path", upper)?,
            work: c_path("root.path", work)?,
            target: c_path("root.path", target)?,
            userxattr: false,
            volatile,
            made: None,
        };
        if userns {
            match plan.mount() {
                Ok(made) => plan.made = Some(made),
                // An ordinary user may mount only inside the new user namespace.
                Err(Errno::PERM) => plan.userxattr = true,
                Err(errno) => return Err(Error::system("mount overlay for", target.display())(errno)),
            }
        }
        Ok(plan)
    }

    /// The overlay that the parent has made, or one made now.
    pub(super) fn take_or_mount(&mut self) -> Result<OwnedFd, Errno> {
        match self.made.take() {
            Some(made) => Ok(made),
            None => self.mount(),
        }
    }

    /// Makes the overlay, attached nowhere.
    fn mount(&self) -> Result<OwnedFd, Errno> {
        let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, c"source", c"overlay")?;
        self.set_lower(context.as_fd())?;
        rustix::mount::fsconfig_set_string(&context, c"upperdir", self.upper.as_c_str())?;
        rustix::mount::fsconfig_set_string(&context, c"workdir", self.work.as_c_str())?;
        if self.userxattr {
            rustix::mount::fsconfig_set_flag(&context, c"userxattr")?;
        } else {
            // Without `trusted` attributes the kernel redirects nothing, and takes no word about it.
            optional(rustix::mount::fsconfig_set_string(&context, c"redirect_dir", c"off"))?;
        }
        for (key, value) in [(c"metacopy", c"off"), (c"index", c"off"), (c"xino", c"auto")] {
            optional(rustix::mount::fsconfig_set_string(&context, key, value))?;
        }
        if self.volatile {
            // Since Linux 5.10; without it the container is only slower to sync.
            optional(rustix::mount::fsconfig_set_flag(&context, c"volatile"))?;
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

/// A kernel that does not know an option does not do what the option switches off.
fn optional(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::INVAL) => Ok(()),
        other => other,
    }
}

impl Layer {
    fn lower(fd: &Arc<OwnedFd>) -> Self {
        if let Some(path) = path_of(fd.as_fd()) {
            return Self { path, detached: None };
        }
        let path = CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default();
        Self { path, detached: Some(Arc::clone(fd)) }
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
