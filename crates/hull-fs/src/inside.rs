//! System calls on paths inside a root directory: the form that the container's own process uses, which reports plain
//! `errno`s and allocates nothing while the path exists.
//!
//! A path is looked up as if the root were `/`: absolute links and `..` stay inside. Magic links (`/proc/PID/fd/N`,
//! `/proc/PID/root`, ...) are never followed. What does not exist is created one component at a time, each by a name
//! below an open directory.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// Symbolic links followed before a path is called a loop, as in the kernel.
const MAX_LINKS: usize = 40;
/// Components of a path that is created; each costs a descriptor while it is walked.
const MAX_COMPONENTS: usize = 256;
/// A lookup inside a root is repeated when a rename anywhere disturbs it; this often, then it fails with `EAGAIN`.
const MAX_RETRIES: usize = 256;
/// `PROC_SUPER_MAGIC` of `statfs(2)`.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// What a missing last component becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    Directory,
    File,
}

/// Opens `path` inside `root` (`openat2(2)` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`), always close-on-exec and
/// never as controlling terminal.
///
/// # Errors
/// As `openat2(2)`; `ELOOP` for a magic link.
pub fn open<P: Arg + Copy>(root: BorrowedFd<'_>, path: P, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    open_with(root, path, flags, mode, resolve)
}

/// [`open`] that refuses every symbolic link on the way, the last component included.
///
/// # Errors
/// As `openat2(2)`; `ELOOP` for a symbolic link.
pub fn open_no_symlinks<P: Arg + Copy>(root: BorrowedFd<'_>, path: P, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    open_with(root, path, flags, Mode::empty(), resolve)
}

/// `openat2(2)`, repeated while a concurrent rename makes the kernel unsure.
pub(crate) fn open_with<P: Arg + Copy>(
    root: BorrowedFd<'_>,
    path: P,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    // `openat2` refuses flags that mean nothing together with O_PATH.
    let extra = if flags.contains(OFlags::PATH) { OFlags::CLOEXEC } else { OFlags::CLOEXEC | OFlags::NOCTTY };
    let mut result = Err(Errno::AGAIN);
    for _ in 0..MAX_RETRIES {
        result = rustix::fs::openat2(root, path, flags | extra, mode, resolve);
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}

/// Finds the directory `path` inside `root` and makes what is missing of it with `mode`.
///
/// The returned descriptor is `O_PATH`.
///
/// # Errors
/// As `openat2(2)` and `mkdirat(2)`; `ENOTDIR` when a component is something else.
pub fn create_dir_all(root: BorrowedFd<'_>, path: &Path, mode: Mode) -> Result<OwnedFd, Errno> {
    match open(root, lookup_form(path), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => create(root, path, mode, Leaf::Directory),
        result => result,
    }
}

/// Finds the file `path` (of any type but directory and symbolic link) inside `root`, or makes an empty regular file
/// with `mode` and the directories above it with 0755.
///
/// The returned descriptor is `O_PATH`.
///
/// # Errors
/// As `openat2(2)`, `mkdirat(2)`; `EISDIR` when `path` is a directory.
pub fn create_file(root: BorrowedFd<'_>, path: &Path, mode: Mode) -> Result<OwnedFd, Errno> {
    match open(root, lookup_form(path), OFlags::PATH, Mode::empty()) {
        Err(Errno::NOENT) => create(root, path, mode, Leaf::File),
        result => result,
    }
}

/// The directory that holds the last component of `path`, made where missing, and that component's name.
///
/// # Errors
/// As [`create_dir_all`]; `EINVAL` when the path has no last component (`/`, `..`).
pub fn create_parent<'p>(root: BorrowedFd<'_>, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Errno> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok((create_dir_all(root, parent, Mode::from_raw_mode(0o755))?, name))
}

/// The type of an open file.
///
/// # Errors
/// As `fstat(2)`.
pub fn file_type(file: impl AsFd) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode))
}

/// An empty path means the root itself.
fn lookup_form(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new("/") } else { path }
}

/// Components in reverse order, so that the next one is popped from the end.
fn push_components(pending: &mut Vec<OsString>, path: &[u8]) -> Result<(), Errno> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    let start = pending.len();
    pending.extend(names.map(|name| OsString::from_vec(name.to_vec())));
    pending[start..].reverse();
    if pending.len() > MAX_COMPONENTS { Err(Errno::NAMETOOLONG) } else { Ok(()) }
}

/// The slow path: walks by descriptors, follows links by hand, makes what is missing.
///
/// A link whose target does not exist is followed too, and its target made (`/etc/resolv.conf` of many images points
/// into a `/run` that only exists on a booted machine).
fn create(root: BorrowedFd<'_>, path: &Path, mode: Mode, leaf: Leaf) -> Result<OwnedFd, Errno> {
    let top = open(root, c"/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let mut pending = Vec::new();
    push_components(&mut pending, path.as_os_str().as_bytes())?;
    // Directories from below the root down to the current one.
    let mut walked: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == ".." {
            walked.pop();
            continue;
        }
        let directory = walked.last().unwrap_or(&top).as_fd();
        let last = pending.is_empty();
        let child = open_or_create(directory, &name, if last { (leaf, mode) } else { DEFAULT_PARENT })?;
        match file_type(&child)? {
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS || rustix::fs::fstatfs(&child)?.f_type as u64 == PROC_SUPER_MAGIC {
                    return Err(Errno::LOOP);
                }
                let target = rustix::fs::readlinkat(&child, c"", Vec::new())?;
                if target.as_bytes().first() == Some(&b'/') {
                    walked.clear();
                }
                push_components(&mut pending, target.as_bytes())?;
            }
            FileType::Directory => walked.push(child),
            _ if last && leaf == Leaf::File => return Ok(child),
            _ => return Err(Errno::NOTDIR),
        }
    }
    match leaf {
        Leaf::Directory => Ok(walked.pop().unwrap_or(top)),
        Leaf::File => Err(Errno::ISDIR),
    }
}

const DEFAULT_PARENT: (Leaf, Mode) = (Leaf::Directory, Mode::from_raw_mode(0o755));

/// Opens `name`, one component, without following it; makes it when it is missing.
fn open_or_create(directory: BorrowedFd<'_>, name: &OsStr, (leaf, mode): (Leaf, Mode)) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let made = match leaf {
        Leaf::Directory => rustix::fs::mkdirat(directory, name, mode),
        Leaf::File => {
            let create = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(directory, name, create, mode).map(drop)
        }
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => rustix::fs::openat(directory, name, flags, Mode::empty()),
        Err(errno) => Err(errno),
    }
}
