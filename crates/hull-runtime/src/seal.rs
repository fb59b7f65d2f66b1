//! Keeping the machine's `hull` binary out of a container's reach (CVE-2019-5736).
//!
//! Until `execve` a container's first process *is* this binary, and a container can make the kernel run it again
//! (`#!/proc/self/exe`). Whoever then opens `/proc/PID/exe` for writing must meet a read-only mount. So the process
//! replaces itself, once and before anything else, by the same file seen through a detached read-only bind mount: no
//! copy is made, and nothing is left behind, because the mount lives as long as the process that runs from it.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;

use hull_sys::clone::{ExecArray, fexecve};
use hull_sys::mount::{Attributes, Lookup, mount_setattr};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use crate::error::Error;

const EXE: &str = "/proc/self/exe";

/// Makes sure that this process runs from a file that nobody can write through `/proc/PID/exe`.
///
/// Returns when it does already; otherwise replaces the process by itself with the same arguments and environment. Must
/// be called before the process has opened, locked or started anything. Without the privilege for mounts (rootless) a
/// sealed copy in memory takes the mount's place.
///
/// # Errors
/// [`Error::System`] when neither can be made.
pub fn seal() -> Result<(), Error> {
    let exe =
        rustix::fs::open(EXE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(Error::system("open", EXE))?;
    let read_only = rustix::fs::fstatvfs(&exe).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY));
    let sealed = rustix::fs::fcntl_get_seals(&exe).is_ok_and(|seals| seals.contains(SealFlags::WRITE));
    if read_only || sealed {
        return Ok(());
    }
    let file = match read_only_mount() {
        Ok(file) => file,
        Err(_) => sealed_copy(&exe).map_err(Error::system("seal", EXE))?,
    };
    let strings = |list: Vec<std::ffi::OsString>| {
        ExecArray::new(list.into_iter().filter_map(|string| CString::new(string.into_vec()).ok()).collect())
    };
    let args = strings(std::env::args_os().collect());
    let env = strings(
        std::env::vars_os()
            .map(|(name, value)| {
                let mut pair = name;
                pair.push("=");
                pair.push(value);
                pair
            })
            .collect(),
    );
    Err(Error::System { operation: "re-execute", object: EXE.to_owned(), errno: fexecve(file_fd(&file), &args, &env) })
}

fn file_fd(file: &OwnedFd) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(file)
}

fn read_only_mount() -> Result<OwnedFd, Errno> {
    let file = rustix::mount::open_tree(
        rustix::fs::CWD,
        EXE,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    mount_setattr(file_fd(&file), c"", Lookup::EMPTY_PATH, Attributes::RDONLY, Attributes::empty(), None, None)?;
    Ok(file)
}

fn sealed_copy(exe: &OwnedFd) -> Result<OwnedFd, Errno> {
    let copy = rustix::fs::memfd_create("hull", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    loop {
        if rustix::fs::sendfile(&copy, exe, None, 1 << 30)? == 0 {
            break;
        }
    }
    rustix::fs::fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    rustix::fs::open(
        format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&copy)),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}
