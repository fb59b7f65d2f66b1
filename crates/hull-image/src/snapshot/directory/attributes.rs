//! Owners, modes, extended attributes and times of unpacked files, as far as the caller may set them.

use std::os::fd::{AsFd, BorrowedFd};

use hull_layer::tree::Node;
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::snapshot::merged::link_of;

/// Bits that give away the owner's rights: worth nothing when the owner is another.
const SET_ID: u16 = 0o6000;

/// Name spaces of overlayfs's attributes: the machine's root has the first, everybody else the second.
const OVERLAY: [&str; 2] = ["trusted.overlay.", "user.overlay."];

/// What the caller may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    /// It is root of the machine, or of a user namespace with all IDs: what fails is an error.
    full: bool,
}

impl Rights {
    pub(super) fn probe() -> Self {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let all = map.split_whitespace().eq(["0", "0", "4294967295"]);
        Self { full: all && rustix::process::geteuid().is_root() }
    }

    /// Forgives what only the machine's root may do.
    fn forgive(self, result: Result<(), Errno>) -> Result<bool, Errno> {
        match result {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::INVAL | Errno::ACCESS) if !self.full => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Whether a node that was refused may be left out.
    pub(super) fn may_skip_device(self, errno: Errno) -> bool {
        !self.full && errno == Errno::PERM
    }

    /// Attributes of an open file or directory; its mode may come later.
    pub(super) fn apply(self, file: BorrowedFd<'_>, node: &Node, mode: bool) -> Result<(), Errno> {
        // The owner first, because a change of it clears set-user-ID bits and capabilities.
        let given = self.forgive(rustix::fs::fchown(file, uid(node), gid(node)))?;
        if mode {
            rustix::fs::fchmod(file, self.mode(node, given))?;
        }
        for (name, value) in &node.xattrs {
            self.attribute(name, |name| rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()))?;
        }
        rustix::fs::futimens(file, &times(node))
    }

    /// As [`Self::apply`], for what cannot be opened; nobody else works in this directory.
    pub(super) fn apply_at(self, directory: BorrowedFd<'_>, name: &[u8], node: &Node, mode: bool) -> Result<(), Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let given = self.forgive(rustix::fs::chownat(directory, name, uid(node), gid(node), flags))?;
        if mode {
            rustix::fs::chmodat(directory, name, self.mode(node, given), AtFlags::empty())?;
        }
        if !node.xattrs.is_empty() {
            let open = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
            let file = rustix::fs::openat(directory, name, open, Mode::empty())?;
            let link = link_of(file.as_fd());
            for (name, value) in &node.xattrs {
                self.attribute(name, |name| rustix::fs::setxattr(&link, name, value, XattrFlags::empty()))?;
            }
        }
        rustix::fs::utimensat(directory, name, &times(node), flags)
    }

    /// The mode that a directory gets at last, when it has to be writable before.
    pub(super) fn late_mode(self, node: &Node) -> Option<Mode> {
        (!self.full && node.mode & 0o700 != 0o700).then(|| Mode::from_raw_mode(u32::from(node.mode)))
    }

    fn mode(self, node: &Node, given: bool) -> Mode {
        Mode::from_raw_mode(u32::from(if given { node.mode } else { node.mode & !SET_ID }))
    }

    fn attribute(self, name: &[u8], set: impl FnOnce(&[u8]) -> Result<(), Errno>) -> Result<(), Errno> {
        match set(name) {
            // The file system has no such attributes; another image store does not either then.
            Err(Errno::OPNOTSUPP) => Ok(()),
            result => self.forgive(result).map(drop),
        }
    }
}

/// Sets one of overlayfs's attributes where the overlay of this caller will look for it.
pub(super) fn set_overlay(file: impl AsFd, name: &str, value: &[u8]) -> Result<(), Errno> {
    let mut result = Err(Errno::PERM);
    for prefix in OVERLAY {
        result = rustix::fs::fsetxattr(&file, format!("{prefix}{name}"), value, XattrFlags::empty());
        if !matches!(result, Err(Errno::PERM | Errno::OPNOTSUPP)) {
            break;
        }
    }
    result
}

fn uid(node: &Node) -> Option<Uid> {
    Some(Uid::from_raw(node.uid))
}

fn gid(node: &Node) -> Option<Gid> {
    Some(Gid::from_raw(node.gid))
}

fn times(node: &Node) -> Timestamps {
    let time = Timespec { tv_sec: node.mtime, tv_nsec: i64::from(node.mtime_nsec) };
    Timestamps { last_access: time, last_modification: time }
}
