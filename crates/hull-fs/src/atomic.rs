//! Files that are replaced whole: a reader sees the old content or the new, never a part.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::Error;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Writes `name` in `directory` under a temporary name and renames it into place.
///
/// Safe against readers and against the death of this process, not against loss of power: see [`write_durable`].
///
/// # Errors
/// When the file cannot be created, written or renamed; nothing is left behind then.
pub fn write(directory: impl AsFd, name: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    replace(directory, name, bytes, mode, false)
}

/// [`write`], and the content and the name are on disk before it returns.
///
/// # Errors
/// As [`write`].
pub fn write_durable(directory: impl AsFd, name: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    replace(directory, name, bytes, mode, true)
}

/// [`write`] to a path: opens its directory first.
///
/// # Errors
/// As [`write`]; `EINVAL` when the path has no file name.
pub fn write_path(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let name = path.file_name().ok_or(Errno::INVAL).map_err(Error::system("write", path))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty()).map_err(Error::system("open directory", parent))?;
    write(directory, Path::new(name), bytes, mode)
}

fn replace(directory: impl AsFd, name: &Path, bytes: &[u8], mode: u32, durable: bool) -> Result<(), Error> {
    let directory = directory.as_fd();
    let temporary = format!(
        ".{}.{}-{}",
        name.display(),
        rustix::process::getpid().as_raw_nonzero(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    );
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut opened = rustix::fs::openat(directory, &temporary, flags, Mode::from_raw_mode(mode));
    if matches!(opened, Err(Errno::EXIST)) {
        // Left by a killed process whose number came round again.
        let _ = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
        opened = rustix::fs::openat(directory, &temporary, flags, Mode::from_raw_mode(mode));
    }
    let file = opened.map_err(Error::system("create", name))?;
    let written = write_all(&file, bytes)
        .and_then(|()| if durable { rustix::fs::fsync(&file) } else { Ok(()) })
        .and_then(|()| rustix::fs::renameat(directory, &temporary, directory, name));
    if let Err(errno) = written {
        let _ = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
        return Err(Error::system("write", name)(errno));
    }
    if durable {
        rustix::fs::fsync(directory).map_err(Error::system("sync directory of", name))?;
    }
    Ok(())
}

fn write_all(file: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(&file, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
