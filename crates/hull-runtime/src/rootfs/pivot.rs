//! The child's sequence: propagation, root mount, mounts, `pivot_root`, sealing.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::mount::{Attributes, Lookup, Propagation, mount_setattr};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags};

use super::{RootSource, RootfsPlan, mount};
use crate::failure::{Failure, Step, step};

/// What the program starts with unless the specification says otherwise; nodes and directories are made with none.
const DEFAULT_UMASK: Mode = Mode::from_raw_mode(0o022);
/// No path is deeper.
const MAX_DEPTH: usize = 2048;
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl RootfsPlan {
    /// Mounts everything: propagation, root mount, the specification's mounts in order, device nodes and links.
    ///
    /// `enter_cgroup` is called before the first mount that must see the container's cgroup namespace, if there is one.
    ///
    /// # Errors
    /// The step, the index of the mount or device, and the kernel's answer.
    pub fn mount_all(&mut self, enter_cgroup: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        self.inherited_umask = Some(rustix::process::umask(Mode::empty()));
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

    /// Keeps mounts made from here on away from the host.
    ///
    /// With a shared root propagation the copies of the host's mounts stay its peers, because bind mounts of them may
    /// have to carry mounts back; then only the mount below the root mount is taken out of its group.
    fn isolate(&self) -> Result<(), Errno> {
        match self.propagation {
            Some((Propagation::Shared, _)) => make_parent_private(match &self.root {
                RootSource::Directory(path) | RootSource::Tree(_, path) => path,
                RootSource::Overlay(overlay) => &overlay.target,
            }),
            Some((Propagation::Private, true)) => propagation_of_root(Propagation::Private),
            // Anything else must at least not send to the host, and an unbindable tree could not be cloned.
            _ => propagation_of_root(Propagation::Slave),
        }
    }

    /// Attaches the root mount; its descriptor is the root of everything below.
    fn mount_root(&mut self) -> Result<OwnedFd, Errno> {
        let shared = self.is_shared();
        let (tree, path) = match &mut self.root {
            RootSource::Directory(path) => (mount::open_source(path, true, false)?, &*path),
            RootSource::Tree(tree, path) => (tree.take().ok_or(Errno::BADF)?, &*path),
            RootSource::Overlay(overlay) => (overlay.take_or_mount()?, &overlay.target),
        };
        if shared {
            mount::propagate(tree.as_fd(), Propagation::Private, true)?;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        rustix::mount::move_mount(&tree, c"", CWD, path.as_c_str(), flags)?;
        Ok(tree)
    }

    fn is_shared(&self) -> bool {
        matches!(self.propagation, Some((Propagation::Shared, _)))
    }

    /// Makes the root mount the root directory and lets go of the host's.
    ///
    /// # Errors
    /// [`Step::Pivot`].
    pub fn pivot(&mut self) -> Result<(), Failure> {
        let root = self.root().map_err(step(Step::Pivot))?;
        rustix::process::fchdir(root).map_err(step(Step::Pivot))?;
        let changed = if !self.mount_namespace {
            rustix::process::chroot(c".")
        } else if self.no_pivot {
            move_to_root(root)
        } else {
            pivot_root(self.is_shared())
        };
        changed.and_then(|()| rustix::process::chdir(c"/")).map_err(step(Step::Pivot))
    }

    /// Seals: mounts that had to be filled first, the root, read-only and masked paths.
    ///
    /// # Errors
    /// The step, the index, and the kernel's answer.
    pub fn finish(&mut self) -> Result<(), Failure> {
        for (index, one) in self.mounts.iter().enumerate() {
            if let Some(mount) = one.attached.as_ref().filter(|_| one.seal) {
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
        self.verify_places()?;
        self.null = None;
        // Last, because an unbindable mount cannot be cloned for the paths above.
        if let Some((kind, recursive)) = self.propagation
            && self.mount_namespace
        {
            let root = self.root().map_err(step(Step::RootPropagation))?;
            // What the start made slaves and private already; a mount's own `rshared` must outlive this.
            let recursive = recursive && matches!(kind, Propagation::Shared | Propagation::Unbindable);
            mount::propagate(root, kind, recursive).map_err(step(Step::RootPropagation))?;
        }
        rustix::process::umask(DEFAULT_UMASK);
        Ok(())
    }
}

fn propagation_of_root(kind: Propagation) -> Result<(), Errno> {
    mount_setattr(CWD, c"/", Lookup::RECURSIVE, Attributes::empty(), Attributes::empty(), Some(kind), None)
}

/// Makes the mount that holds `path` private, in this namespace: walks up until a directory is the root of a mount.
fn make_parent_private(path: &CStr) -> Result<(), Errno> {
    let mut directory = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
    for _ in 0..MAX_DEPTH {
        match mount::propagate(directory.as_fd(), Propagation::Private, false) {
            Err(Errno::INVAL) => directory = rustix::fs::openat(&directory, c"..", DIRECTORY, Mode::empty())?,
            result => return result,
        }
    }
    Err(Errno::LOOP)
}

/// The current directory is the new root.
fn pivot_root(shared: bool) -> Result<(), Errno> {
    let old = rustix::fs::open(c"/", DIRECTORY, Mode::empty())?;
    rustix::process::pivot_root(c".", c".")?;
    // The old root now lies over the new one and is let go through its own descriptor. It must not be the host's peer
    // then, or the host's mounts would follow.
    rustix::process::fchdir(&old)?;
    if shared {
        mount::propagate(old.as_fd(), Propagation::Slave, true)?;
    }
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
