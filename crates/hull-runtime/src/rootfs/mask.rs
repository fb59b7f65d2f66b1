//! Masked and read-only paths.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use hull_fs::inside;
use hull_sys::mount::Attributes;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{RootfsPlan, mount};
use crate::failure::{Failure, Step};

const NULL_DEVICE: (u32, u32) = (1, 3);

impl RootfsPlan {
    /// Clones the host's `/dev/null` while it can still be reached: nothing inside the container is trusted to be it
    /// (CVE-2025-31133).
    pub(super) fn take_null(&mut self) -> Result<(), Errno> {
        if self.masked.is_empty() {
            return Ok(());
        }
        let null = mount::open_source(c"/dev/null", false, true)?;
        let stat = rustix::fs::fstat(&null)?;
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || device != NULL_DEVICE {
            return Err(Errno::NODEV);
        }
        self.null = Some(null);
        Ok(())
    }

    /// Opens a path that is to be protected: below `/proc` and `/sys` from the mount that was made there, so that renaming
    /// the directory under it meanwhile hides nothing from the protection.
    fn open_protected(&self, root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
        for one in self.mounts.iter().rev().filter(|one| one.holds_protected) {
            let Some(mount) = &one.attached else { continue };
            let place = one.destination.as_os_str().as_bytes();
            let below = path.to_bytes_with_nul().strip_prefix(place).and_then(|rest| rest.strip_prefix(b"/"));
            if let Some(below) = below.and_then(|below| CStr::from_bytes_with_nul(below).ok())
                && !below.is_empty()
            {
                return inside::open(mount.as_fd(), below, OFlags::PATH, Mode::empty());
            }
        }
        inside::open(root, path, OFlags::PATH, Mode::empty())
    }

    /// Makes sure that `/proc` and `/sys` still are the mounts that were made there.
    ///
    /// # Errors
    /// [`Step::Mount`] with `EXDEV`, or whatever stands in the way now.
    pub(super) fn verify_places(&mut self) -> Result<(), Failure> {
        let root = self.root().map_err(|errno| Failure::new(Step::Mount, errno))?;
        for (index, one) in self.mounts.iter().enumerate().filter(|(_, one)| one.holds_protected) {
            let Some(mount) = &one.attached else { continue };
            // A later mount on the same place hides this one, as the specification asked for.
            if self.mounts[index + 1..].iter().any(|later| later.destination == one.destination) {
                continue;
            }
            let same = || {
                let found = inside::open_no_symlinks(root, one.destination.as_path(), OFlags::PATH)?;
                let (found, made) = (rustix::fs::fstat(&found)?, rustix::fs::fstat(mount)?);
                if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino) { Ok(()) } else { Err(Errno::XDEV) }
            };
            same().map_err(|errno| Failure::at(Step::Mount, index, errno))?;
        }
        for one in &mut self.mounts {
            one.attached = None;
        }
        Ok(())
    }

    pub(super) fn mask_paths(&mut self) -> Result<(), Failure> {
        let root = self.root().map_err(|errno| Failure::new(Step::MaskedPath, errno))?;
        // Each starts detached, is attached for the first path and cloned from there for the others.
        let mut null = Shared::new(self.null.as_ref());
        let mut empty: Option<OwnedFd> = None;
        let mut empty_used = false;
        for (index, path) in self.masked.iter().enumerate() {
            let fail = |errno| Failure::at(Step::MaskedPath, index, errno);
            let target = match self.open_protected(root, path) {
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                result => result.map_err(fail)?,
            };
            if inside::file_type(&target).map_err(fail)?.is_dir() {
                if empty.is_none() {
                    let made = mount::new_file_system(c"tmpfs", &[], Some(c"755"), Attributes::RDONLY);
                    empty = Some(made.map_err(fail)?);
                }
                let mut shared = Shared { source: empty.as_ref(), used: empty_used };
                shared.attach(&target).map_err(fail)?;
                empty_used = true;
            } else {
                null.attach(&target).map_err(fail)?;
            }
        }
        Ok(())
    }

    pub(super) fn protect_paths(&self) -> Result<(), Failure> {
        let root = self.root().map_err(|errno| Failure::new(Step::ReadonlyPath, errno))?;
        for (index, path) in self.readonly.iter().enumerate() {
            let fail = |errno| Failure::at(Step::ReadonlyPath, index, errno);
            let target = match self.open_protected(root, path) {
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                result => result.map_err(fail)?,
            };
            let tree = mount::clone_tree(target.as_fd(), true).map_err(fail)?;
            mount::make_readonly(tree.as_fd(), true).map_err(fail)?;
            mount::attach(tree.as_fd(), target.as_fd()).map_err(fail)?;
        }
        Ok(())
    }
}

/// One mount put over several paths.
struct Shared<'a> {
    source: Option<&'a OwnedFd>,
    used: bool,
}

impl<'a> Shared<'a> {
    fn new(source: Option<&'a OwnedFd>) -> Self {
        Self { source, used: false }
    }

    fn attach(&mut self, target: &OwnedFd) -> Result<(), Errno> {
        let source = self.source.ok_or(Errno::BADF)?.as_fd();
        if std::mem::replace(&mut self.used, true) {
            mount::attach(mount::clone_tree(source, false)?.as_fd(), target.as_fd())
        } else {
            mount::attach(source, target.as_fd())
        }
    }
}
