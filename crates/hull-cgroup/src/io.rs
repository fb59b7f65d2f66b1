//! Reading and writing the small files of a cgroup directory, each with as few system calls as the kernel needs.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

/// Longest control file that is read: `memory.stat` and `cgroup.procs` stay far below.
const MAX_FILE: usize = 4 << 20;

/// Opens a cgroup directory.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

/// Opens a directory below another.
pub(crate) fn open_dir_at(dir: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    fs::openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

/// Opens a control file for writing.
pub(crate) fn open_write(dir: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    fs::openat(dir, name, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

/// Writes a value in one `write(2)`: control files take a whole value at a time.
pub(crate) fn write_fd(file: impl AsFd, value: &[u8]) -> Result<(), Errno> {
    loop {
        match rustix::io::write(file.as_fd(), value) {
            Ok(count) if count == value.len() => return Ok(()),
            Ok(_) => return Err(Errno::IO),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Opens, writes, closes.
pub(crate) fn write(dir: impl AsFd, name: &str, value: &str) -> Result<(), Errno> {
    write_fd(open_write(dir, name)?, value.as_bytes())
}

/// Reads all of a file descriptor.
pub(crate) fn read_fd(file: impl AsFd) -> Result<String, Errno> {
    let mut content = Vec::with_capacity(4096);
    loop {
        if content.len() == content.capacity() {
            content.reserve(content.len());
        }
        match rustix::io::read(file.as_fd(), rustix::buffer::spare_capacity(&mut content)) {
            Ok(0) => return String::from_utf8(content).map_err(|_| Errno::ILSEQ),
            Ok(_) if content.len() > MAX_FILE => return Err(Errno::FBIG),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads a control file.
pub(crate) fn read(dir: impl AsFd, name: &str) -> Result<String, Errno> {
    read_fd(fs::openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?)
}

/// Reads a file by its path, such as one of procfs.
pub(crate) fn read_path(path: &Path) -> Result<String, Errno> {
    read_fd(fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A control file that holds one number; `max` is `u64::MAX`.
pub(crate) fn read_number(dir: impl AsFd, name: &str) -> Option<u64> {
    parse_number(&read(dir, name).ok()?)
}

/// A number, or `max`. Negative numbers (`-1` on v1: unlimited) count as `u64::MAX`.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    let text = text.trim();
    if text == "max" || text.starts_with('-') {
        return Some(u64::MAX);
    }
    text.parse().ok()
}

/// The value of `key` in a file of `key value` lines.
pub(crate) fn keyed(content: &str, key: &str) -> Option<u64> {
    content.lines().find_map(|line| parse_number(line.strip_prefix(key)?.strip_prefix(' ')?))
}

/// Directories inside a cgroup directory: its child groups.
pub(crate) fn children(dir: impl AsFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if entry.file_type() == fs::FileType::Directory && name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
