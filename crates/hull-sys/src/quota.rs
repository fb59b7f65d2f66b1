//! Project quotas: how much the files of a directory may take together.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::check;

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct FsXattr {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// `struct fs_disk_quota` of `linux/dqblk_xfs.h`.
#[repr(C)]
#[derive(Default)]
struct DiskQuota {
    version: i8,
    flags: i8,
    fields: u16,
    id: u32,
    block_hard: u64,
    block_soft: u64,
    inode_hard: u64,
    inode_soft: u64,
    blocks: u64,
    inodes: u64,
    inode_timer: i32,
    block_timer: i32,
    inode_warnings: u16,
    block_warnings: u16,
    timers_high: [i8; 3],
    padding2: i8,
    realtime_hard: u64,
    realtime_soft: u64,
    realtime_blocks: u64,
    realtime_timer: i32,
    realtime_warnings: u16,
    padding3: i16,
    padding4: [u8; 8],
}

const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
/// What is made in the directory belongs to its project.
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
/// `QCMD(Q_XSETQLIM, PRJQUOTA)`.
const SET_PROJECT_LIMIT: libc::c_uint = 0x5804 << 8 | 2;
const FS_DQUOT_VERSION: i8 = 1;
const FS_PROJ_QUOTA: i8 = 2;
const FS_DQ_BSOFT_BHARD: u16 = 1 << 2 | 1 << 3;

/// Makes a directory, and what is made in it from now on, part of a project (`ioctl_fs(2)`: `FS_IOC_FSSETXATTR`,
/// Linux 4.5).
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` where the file system has no projects, `EPERM` in a user namespace.
pub fn set_project(directory: BorrowedFd<'_>, project: u32) -> Result<(), Errno> {
    let mut attributes = FsXattr::default();
    // SAFETY: the kernel writes a `struct fsxattr`, which `attributes` is, and keeps no pointer.
    let returned = unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSGETXATTR as _, &raw mut attributes) };
    check(returned.into())?;
    attributes.project = project;
    attributes.flags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: the kernel reads a `struct fsxattr`, which `attributes` is, and keeps no pointer.
    let returned = unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSSETXATTR as _, &raw const attributes) };
    check(returned.into()).map(drop)
}

/// Sets the bytes that the files of a project may take on the file system of an open file; 0 ends the limit
/// (`quotactl_fd(2)`, Linux 5.14).
///
/// # Errors
/// `ENOSYS` or `ESRCH` where the file system counts no projects, `EPERM` without the privilege.
pub fn limit_project(file: BorrowedFd<'_>, project: u32, bytes: u64) -> Result<(), Errno> {
    let blocks = bytes.div_ceil(512);
    let quota = DiskQuota {
        version: FS_DQUOT_VERSION,
        flags: FS_PROJ_QUOTA,
        fields: FS_DQ_BSOFT_BHARD,
        id: project,
        block_hard: blocks,
        block_soft: blocks,
        ..DiskQuota::default()
    };
    // SAFETY: the kernel reads a `struct fs_disk_quota`, which `quota` is, and keeps no pointer.
    let returned =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), SET_PROJECT_LIMIT, project, &raw const quota) };
    check(returned).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn structures_have_the_kernel_s_size_and_a_pipe_has_no_project() {
        assert_eq!((size_of::<FsXattr>(), size_of::<DiskQuota>()), (28, 112));
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        assert!(matches!(set_project(pipe.as_fd(), 1), Err(Errno::NOTTY | Errno::INVAL)));
        assert!(limit_project(pipe.as_fd(), 1, 1).is_err());
    }
}
