//! `mount_setattr(2)`: attributes, propagation and ID mapping of mounts, by descriptor. rustix has the rest of the
//! mount interface (`fsopen`, `fsconfig`, `fsmount`, `open_tree`, `move_mount`).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::check;

bitflags::bitflags! {
    /// Attributes of a mount (`MOUNT_ATTR_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Attributes: u64 {
        /// Read-only.
        const RDONLY = 0x1;
        /// Set-user-ID bits and file capabilities do nothing.
        const NOSUID = 0x2;
        /// Device nodes cannot be opened.
        const NODEV = 0x4;
        /// Programs cannot be executed.
        const NOEXEC = 0x8;
        /// Access times are not updated.
        const NOATIME = 0x10;
        /// Access times are always updated.
        const STRICTATIME = 0x20;
        /// All bits of the access time setting; to be cleared whenever one is set. None of them means relatime.
        const ATIME_MASK = 0x70;
        /// Access times of directories are not updated.
        const NODIRATIME = 0x80;
        /// IDs are mapped by a user namespace.
        const IDMAP = 0x10_0000;
        /// Symbolic links are not followed (Linux 5.14).
        const NOSYMFOLLOW = 0x20_0000;
    }

    /// How a mount is looked up and whether its submounts are meant too.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Lookup: u32 {
        /// With an empty path: the mount that the descriptor refers to.
        const EMPTY_PATH = 0x1000;
        /// The mount and all below it.
        const RECURSIVE = 0x8000;
        /// Do not follow a symbolic link.
        const NOFOLLOW = 0x100;
    }
}

/// Propagation type of a mount (`mount_namespaces(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Propagation {
    /// Cannot be bind mounted, and as `Private`.
    Unbindable = 1 << 17,
    /// Sends and receives no mounts.
    Private = 1 << 18,
    /// Receives mounts of its master.
    Slave = 1 << 19,
    /// Exchanges mounts with its peers.
    Shared = 1 << 20,
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes a mount (`mount_setattr(2)`, Linux 5.12).
///
/// `userns` is needed with [`Attributes::IDMAP`] and ignored otherwise. The change is atomic also when recursive.
///
/// # Errors
/// `EPERM` for an attribute that is locked because the mount came from a more privileged namespace, `EINVAL` when the
/// path is not the root of a mount or the file system cannot be mapped.
pub fn mount_setattr(
    directory: BorrowedFd<'_>,
    path: &CStr,
    lookup: Lookup,
    set: Attributes,
    clear: Attributes,
    propagation: Option<Propagation>,
    userns: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let attr = MountAttr {
        attr_set: set.bits(),
        attr_clr: clear.bits(),
        propagation: propagation.map_or(0, |kind| kind as u64),
        userns_fd: userns.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
    };
    // SAFETY: the path is a C string and `attr` is a live structure of the passed size; the kernel only reads both.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory.as_raw_fd(),
            path.as_ptr(),
            lookup.bits(),
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    check(returned).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_no_mount_is_refused() {
        let directory = std::env::temp_dir().join(format!("hull-setattr-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let fd = rustix::fs::open(&directory, flags, rustix::fs::Mode::empty()).unwrap();
        let result = mount_setattr(
            std::os::fd::AsFd::as_fd(&fd),
            c"",
            Lookup::EMPTY_PATH,
            Attributes::NOSUID,
            Attributes::empty(),
            None,
            None,
        );
        std::fs::remove_dir(&directory).unwrap();
        assert!(matches!(result, Err(Errno::INVAL | Errno::PERM)), "{result:?}");
    }
}
