//! An overlay as root mount, made in the container's own mount namespace.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::plan::{c_path, duplicate};
use crate::error::Error;

/// The kernel's limit of lower layers.
const MAX_LAYERS: usize = 500;

/// An overlay, prepared.
#[derive(Debug)]
pub(super) struct OverlayPlan {
    lower: Vec<OwnedFd>,
    /// `/proc/self/fd/N` of each layer, for kernels that take no descriptor (before 6.13).
    names: Vec<CString>,
    /// All names joined, for kernels without `lowerdir+` (before 6.8).
    joined: CString,
    upper: CString,
    work: CString,
    pub(super) target: CString,
    userxattr: bool,
}

impl OverlayPlan {
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
        let lower: Vec<OwnedFd> = lower.iter().map(duplicate).collect::<Result<_, _>>()?;
        let texts: Vec<String> = lower.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
        let c_string = |text: &str| CString::new(text).unwrap_or_default();
        Ok(Self {
            names: texts.iter().map(|text| c_string(text)).collect(),
            joined: c_string(&texts.join(":")),
            lower,
            upper: c_path("root.path", upper)?,
            work: c_path("root.path", work)?,
            target: c_path("root.path", target)?,
            userxattr: userns,
        })
    }

    /// Makes the overlay, attached nowhere.
    pub(super) fn mount(&self) -> Result<OwnedFd, Errno> {
        let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let string = |key: &CStr, value: &CStr| rustix::mount::fsconfig_set_string(&context, key, value);
        string(c"source", c"overlay")?;
        self.set_lower(&context)?;
        string(c"upperdir", &self.upper)?;
        string(c"workdir", &self.work)?;
        if self.userxattr {
            rustix::mount::fsconfig_set_flag(&context, c"userxattr")?;
        }
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// Passes the layers: by descriptor, else by name one by one, else by name all in one.
    fn set_lower(&self, context: &OwnedFd) -> Result<(), Errno> {
        match self.each(|layer, _| rustix::mount::fsconfig_set_fd(context, c"lowerdir+", layer.as_fd())) {
            Err(Errno::INVAL) => {}
            result => return result,
        }
        match self.each(|_, name| rustix::mount::fsconfig_set_string(context, c"lowerdir+", name)) {
            Err(Errno::INVAL) => {}
            result => return result,
        }
        rustix::mount::fsconfig_set_string(context, c"lowerdir", self.joined.as_c_str())
    }

    fn each(&self, set: impl Fn(&OwnedFd, &CStr) -> Result<(), Errno>) -> Result<(), Errno> {
        self.lower.iter().zip(&self.names).try_for_each(|(layer, name)| set(layer, name))
    }
}
