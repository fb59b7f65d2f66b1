//! The child's sequence: propagation, root mount, mounts, `pivot_root`, sealing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::mount::{Attributes, Lookup, Propagation, mount_setattr};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags};

use super::{RootSource, RootfsPlan, mount};
use crate::failure::{Failure, Step, step};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl RootfsPlan {
    /// Mounts everything: propagation, root mount, the specification's mounts in order, device nodes and links.
    ///
    /// `enter_cgroup` is called before the first mount that must see the container's cgroup namespace, if there is one.
    ///
    /// # Errors
    /// The step, the index of the mount or device, and the kernel's answer.
    pub fn mount_all(&mut self, enter_cgroup: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        rustix::process::umask(Mode::empty());
        if !self.mount_namespace {
            let RootSource::Directory(path) = &self.root else {
                return Err(Failure::new(Step::RootMount, Errno::INVAL));
            };
            let opened = rustix::fs::open(path.as_c_str(), DIRECTORY, Mode::empty());
            self.root_fd = Some(opened.map_err(step(Step::RootMount))?);
            return self.set_up_dev();
        }
        self.isolate().map_err(step(Step::RootPropagation))?;
        self.root_fd = Some(self.mount_root().map_err(step(Step::RootMount))?);
        self.take_null().map_err(step(Step::MaskedPath))?;
        let root = self.root_fd.as_ref().map(AsFd::as_fd).ok_or(Failure::new(Step::RootMount, Errno::BADF))?;
        for (index, one) in self.mounts.iter_mut().enumerate() {
            if one.needs_cgroup_namespace() {
                enter_cgroup()?;
            }
            mount::execute(root, one).map_err(|errno| Failure::at(Step::Mount, index, errno))?;
        }
        self.set_up_dev()
    }

    /// From here on nothing mounted in this namespace reaches the host.
    fn isolate(&self) -> Result<(), Errno> {
        let (kind, recursive) = self.propagation.unwrap_or((Propagation::Slave, true));
        if kind != Propagation::Shared && kind != Propagation::Unbindable {
            let recursive = if recursive { Lookup::RECURSIVE } else { Lookup::empty() };
            return propagation_of_root(recursive, kind);
        }
        // The old root must not be shared with the host whatever the new root will be (and an unbindable tree could
        // not be cloned).
        propagation_of_root(Lookup::RECURSIVE, Propagation::Slave)
    }

    /// Attaches the root mount; its descriptor is the root of everything below.
    fn mount_root(&self) -> Result<OwnedFd, Errno> {
        let (tree, path) = match &self.root {
            RootSource::Directory(path) => (mount::open_source(path, true, false)?, path),
            RootSource::Overlay(overlay) => (overlay.mount()?, &overlay.target),
        };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        rustix::mount::move_mount(&tree, c"", CWD, path.as_c_str(), flags)?;
        Ok(tree)
    }

    /// Makes the root mount the root directory and lets go of the host's.
    ///
    /// # Errors
    /// [`Step::Pivot`] or [`Step::RootPropagation`].
    pub fn pivot(&mut self) -> Result<(), Failure> {
        let root = self.root().map_err(step(Step::Pivot))?;
        rustix::process::fchdir(root).map_err(step(Step::Pivot))?;
        let changed = if !self.mount_namespace {
            rustix::process::chroot(c".")
        } else if self.no_pivot {
            move_to_root(root)
        } else {
            pivot_root()
        };
        changed.and_then(|()| rustix::process::chdir(c"/")).map_err(step(Step::Pivot))?;
        match self.propagation {
            Some((kind, recursive)) if self.mount_namespace => {
                mount::propagate(root, kind, recursive).map_err(step(Step::RootPropagation))
            }
            _ => Ok(()),
        }
    }

    /// Seals: mounts that had to be filled first, the root, read-only and masked paths.
    ///
    /// # Errors
    /// The step, the index, and the kernel's answer.
    pub fn finish(&mut self) -> Result<(), Failure> {
        for (index, one) in self.mounts.iter_mut().enumerate() {
            if let Some(mount) = one.attached.take() {
                mount::make_readonly(mount.as_fd(), false)
                    .map_err(|errno| Failure::at(Step::RootReadonly, index + 1, errno))?;
            }
        }
        if self.root_readonly {
            let root = self.root().map_err(step(Step::RootReadonly))?;
            mount::make_readonly(root, false).map_err(step(Step::RootReadonly))?;
        }
        self.protect_paths()?;
        self.mask_paths()?;
        self.null = None;
        Ok(())
    }
}

fn propagation_of_root(recursive: Lookup, kind: Propagation) -> Result<(), Errno> {
    mount_setattr(CWD, c"/", recursive, Attributes::empty(), Attributes::empty(), Some(kind), None)
}

/// The current directory is the new root.
fn pivot_root() -> Result<(), Errno> {
    let old = rustix::fs::open(c"/", DIRECTORY, Mode::empty())?;
    rustix::process::pivot_root(c".", c".")?;
    // The old root now lies over the new one and is let go through its own descriptor. It is a slave or private, so
    // that the host's mounts do not follow.
    rustix::process::fchdir(&old)?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)
}

/// Without `pivot_root` (the host's root is an initramfs) the root mount is moved over `/`.
///
/// The host's procfs and sysfs stay in the namespace below it; they are unmounted, or covered where they are locked,
/// because otherwise the kernel would let the container mount unrestricted ones of its own.
fn move_to_root(root: BorrowedFd<'_>) -> Result<(), Errno> {
    for path in [c"/proc", c"/sys"] {
        if rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(target) = rustix::fs::open(path, flags, Mode::empty()) {
                let cover = mount::new_file_system(c"tmpfs", &[], None, Attributes::RDONLY)?;
                mount::attach(cover.as_fd(), target.as_fd())?;
            }
        }
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(root, c"", CWD, c"/", flags)?;
    rustix::process::fchdir(root)?;
    rustix::process::chroot(c".")
}
