//! Mounts an index over its tar, detached and read-only.
//!
//! Both files are named to the kernel by descriptor, below the caller's own `/proc/self/fd`: what is mounted is what was
//! opened and checked, whatever happens to the names. The kernel keeps the files open; the descriptors may be closed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hull_oci::spec::one_line;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// How a layer is mounted.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountOptions {
    /// Content is read past the page cache of the tar: it is then cached once and not twice.
    pub direct_io: bool,
}

/// Why a layer cannot be mounted. The first four say that this machine or store needs the other snapshotter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The kernel has no EROFS.
    #[error("the kernel has no EROFS file system (CONFIG_EROFS_FS, or its module)")]
    NoErofs,
    /// The caller may not mount.
    #[error("mounting EROFS needs root in the first user namespace: {0}")]
    NotPermitted(#[source] Errno),
    /// The kernel does not mount from files, or not from files of this file system.
    #[error(
        "EROFS cannot be mounted from a file here: the kernel is older than 6.12, or the store is on tmpfs or overlayfs"
    )]
    NotFromFiles,
    /// The kernel does not know something that the index needs.
    #[error("the kernel's EROFS does not know Hull's indexes: {}", one_line(.0))]
    Unsupported(String),
    /// The index is damaged, or not for this tar.
    #[error("mount layer: the index is damaged: {}", one_line(.0))]
    Damaged(String),
    /// Anything else.
    #[error("mount layer: {operation}: {source}{}", one_line(log))]
    Call {
        /// The system call.
        operation: &'static str,
        /// What the kernel adds.
        log: String,
        /// The kernel's answer.
        source: Errno,
    },
}

/// Mounts an index and its tar; the mount is nowhere in the tree of mounts and goes with the last descriptor.
///
/// # Errors
/// See [`MountError`].
pub fn mount(index: BorrowedFd<'_>, tar: BorrowedFd<'_>, options: MountOptions) -> Result<OwnedFd, MountError> {
    let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|source| match source {
        Errno::NODEV => MountError::NoErofs,
        Errno::PERM => MountError::NotPermitted(source),
        Errno::NOSYS => MountError::Unsupported("it lacks fsopen(2)".into()),
        source => MountError::Call { operation: "fsopen", log: String::new(), source },
    })?;
    let fs = context.as_fd();
    let path = |fd: BorrowedFd<'_>| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let configure = || {
        rustix::mount::fsconfig_set_flag(fs, "ro")?;
        rustix::mount::fsconfig_set_string(fs, "source", path(index))?;
        rustix::mount::fsconfig_set_string(fs, "device", path(tar))?;
        if options.direct_io {
            rustix::mount::fsconfig_set_flag(fs, "directio")?;
        }
        rustix::mount::fsconfig_create(fs)
    };
    configure().map_err(|source| refused(source, log(fs)))?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    rustix::mount::fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|source| MountError::Call {
        operation: "fsmount",
        log: log(fs),
        source,
    })
}

fn refused(source: Errno, log: String) -> MountError {
    match source {
        // Without file-backed mounts, the files are looked up as block devices.
        Errno::NOTBLK => MountError::NotFromFiles,
        Errno::PERM | Errno::ACCESS => MountError::NotPermitted(source),
        Errno::OPNOTSUPP => MountError::Unsupported(log),
        // EUCLEAN and EBADMSG are the kernel's names for a corrupted structure and a wrong checksum.
        Errno::UCLEAN | Errno::BADMSG => MountError::Damaged(format!("{source}{log}")),
        Errno::INVAL if log.is_empty() => MountError::Damaged(source.to_string()),
        source => MountError::Call { operation: "fsconfig", log, source },
    }
}

/// What the kernel says about the context, each message after `: `.
fn log(fs: BorrowedFd<'_>) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    // The kernel keeps eight messages.
    for _ in 0..8 {
        let Ok(length) = rustix::io::read(fs, &mut buffer) else { break };
        let message = String::from_utf8_lossy(&buffer[..length]);
        // Each begins with its severity, as in `e erofs: ...`.
        let message = message.trim();
        text.push_str(": ");
        text.push_str(message.split_once(' ').map_or(message, |(_, rest)| rest));
    }
    text
}
