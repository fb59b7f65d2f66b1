//! The container's root file system: mounts, devices, masks, `pivot_root`.
//!
//! [`RootfsPlan::new`] runs in the parent. It understands every mount option, checks destinations, opens what only the
//! parent can open, and keeps C strings. The rest runs in the child, in this order: [`RootfsPlan::mount_all`],
//! [`RootfsPlan::dev_pts_terminal`], [`RootfsPlan::pivot`], [`RootfsPlan::finish`].
//!
//! Nothing that the container can change is named by a string path: targets are resolved once, inside the root mount,
//! to a descriptor (`openat2`), and a mount is attached to that descriptor (`move_mount`). So an exchanged directory
//! or a planted link can only break the container's own start. Mounts exist in the container's mount namespace alone
//! and go with it. Fields of `config.json` that this module owns: `root`, `mounts`, `linux.devices`,
//! `linux.rootfsPropagation`, `linux.maskedPaths`, `linux.readonlyPaths`, `linux.mountLabel`, `process.consoleSize`.

mod cgroup;
mod copy_up;
mod dev;
mod idmap;
mod mask;
mod mount;
pub mod options;
mod overlay;
mod pivot;
mod plan;

pub use overlay::{as_somebody, can_map_owners};

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use hull_cgroup::{Cgroup, Hierarchies};
use hull_oci::spec::{ConsoleSize, IdMapping};
use hull_sys::mount::Propagation;
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::failure::{Failure, Step};

/// What the plan must know beside the specification.
#[derive(Debug)]
pub struct RootfsContext<'a> {
    /// The container gets a new user namespace.
    pub new_userns: bool,
    /// The container joins a user namespace.
    pub joined_userns: bool,
    /// The container gets a new mount namespace.
    pub new_mount_ns: bool,
    /// The container's cgroup.
    pub cgroup: &'a Cgroup,
    /// The machine's cgroup hierarchies.
    pub hierarchies: &'a Hierarchies,
    /// The container has a cgroup namespace of its own.
    pub new_cgroup_ns: bool,
    /// The caller is an ordinary user, or root of a user namespace only.
    pub rootless: bool,
    /// User mapping of the container's user namespace.
    pub uid_mappings: &'a [IdMapping],
    /// Group mapping of the container's user namespace.
    pub gid_mappings: &'a [IdMapping],
}

/// A root file system, prepared.
#[derive(Debug)]
pub struct RootfsPlan {
    root: RootSource,
    mounts: Vec<mount::MountPlan>,
    dev: Option<dev::DevPlan>,
    /// Size of the terminal.
    console_size: Option<ConsoleSize>,
    masked: Vec<CString>,
    readonly: Vec<CString>,
    root_readonly: bool,
    propagation: Option<(Propagation, bool)>,
    no_pivot: bool,
    /// The umask that the runtime was called with.
    inherited_umask: Option<Mode>,
    /// Without a mount namespace nothing is mounted and the root is only changed by `chroot`.
    mount_namespace: bool,
    /// The root mount, once attached.
    root_fd: Option<OwnedFd>,
    /// A detached clone of the host's `/dev/null`, then the first mask made of it.
    null: Option<OwnedFd>,
}

/// Where the root mount comes from.
#[derive(Debug)]
enum RootSource {
    /// A directory of the host, mounted over itself.
    Directory(CString),
    /// A detached mount that the parent has made, and where it is attached.
    Tree(Option<OwnedFd>, CString),
    Overlay(overlay::OverlayPlan),
}

impl RootfsPlan {
    fn root(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.root_fd.as_ref().map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    /// The root mount, once [`Self::mount_all`] has run: for looking up programs and directories of the container.
    #[must_use]
    pub fn root_fd(&self) -> Option<BorrowedFd<'_>> {
        self.root_fd.as_ref().map(AsFd::as_fd)
    }

    /// The umask that the runtime was called with, once [`Self::mount_all`] has put it away.
    #[must_use]
    pub fn inherited_umask(&self) -> Option<Mode> {
        self.inherited_umask
    }

    /// Whether [`Self::mount_all`] mounts a `cgroup2` that shows what it should only inside the new cgroup namespace.
    #[must_use]
    pub fn needs_cgroup_namespace(&self) -> bool {
        self.mounts.iter().any(mount::MountPlan::needs_cgroup_namespace)
    }

    /// Says what a failed step was about, without the error itself.
    #[must_use]
    pub fn describe(&self, failure: &Failure) -> Option<String> {
        let index = usize::from(failure.index);
        let path = |list: &[CString]| list.get(index).map(|path| path.to_string_lossy().into_owned());
        Some(match failure.step {
            Step::RootPropagation => "set propagation of the root mount".to_owned(),
            Step::RootMount => match &self.root {
                RootSource::Directory(path) | RootSource::Tree(_, path) => {
                    format!("mount root file system {}", path.to_string_lossy())
                }
                RootSource::Overlay(overlay) => format!("mount overlay on {}", overlay.target.to_string_lossy()),
            },
            Step::Mount => self.mounts.get(index)?.describe(failure.errno),
            Step::Device => match self.dev.as_ref().and_then(|dev| dev.devices.get(index)) {
                Some(device) => format!("create device {}", device.path.display()),
                None => "open /dev of the container, which must be an ordinary directory,".to_owned(),
            },
            Step::DeviceLink => match self.dev.as_ref().and_then(|dev| dev.links.get(index)) {
                Some((name, target)) => {
                    format!("create link /dev/{} to {}", name.to_string_lossy(), target.to_string_lossy())
                }
                None => "create links in /dev".to_owned(),
            },
            Step::Terminal => "set up terminal on /dev/console from the container's /dev/pts/ptmx".to_owned(),
            Step::Pivot if self.no_pivot || !self.mount_namespace => "change root directory".to_owned(),
            Step::Pivot => "pivot_root".to_owned(),
            Step::RootReadonly => match self.mounts.get(index.wrapping_sub(1)) {
                Some(mount) if index > 0 => format!("make {} read-only", mount.destination.display()),
                _ => "make root file system read-only".to_owned(),
            },
            Step::ReadonlyPath => format!("make path {} read-only", path(&self.readonly)?),
            Step::MaskedPath => format!("mask path {}", path(&self.masked)?),
            _ => return None,
        })
    }
}

/// Folds `.`, `..` and repeated slashes, without looking at any file: `a/../b//c` is `/b/c`.
fn normalize(path: &str) -> PathBuf {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    PathBuf::from(format!("/{}", parts.join("/")))
}
