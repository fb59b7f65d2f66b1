//! `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` of a container: their content as pure functions, and replacing it
//! while the container runs.
//!
//! The files are bound into the container, so they are changed in place: a file that is renamed over another one would
//! not be seen. The container may write them too. What it wrote is kept: in `hosts` only the lines are exchanged that
//! Hull wrote, and a `resolv.conf` that is no longer Hull's is left alone.

mod arrange;
pub mod hosts;
pub mod resolv;

pub use arrange::{Container, Files, Network, arrange, names};

use std::path::Path;

use hull_fs::Error;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// A file that a container let grow beyond this is not touched any more.
const MAX: usize = 1 << 20;

/// The content of `/etc/hostname`.
#[must_use]
pub fn hostname(name: &str) -> String {
    format!("{name}\n")
}

/// Replaces a file's content in place by what `change` makes of it; says whether there was anything to do.
///
/// Readers see the old content, the new, or the new with old lines behind it, but never an empty file.
///
/// # Errors
/// When the file cannot be opened, read or written, or is longer than 1 MiB (`EFBIG`).
pub fn update(path: &Path, change: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Result<bool, Error> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::system("open", path))?;
    let mut old = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match rustix::io::pread(&file, &mut chunk, old.len() as u64) {
            Ok(0) => break,
            Ok(length) => old.extend_from_slice(&chunk[..length]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::system("read", path)(errno)),
        }
        if old.len() > MAX {
            return Err(Error::system("read", path)(Errno::FBIG));
        }
    }
    let Some(new) = change(&old).filter(|new| *new != old) else { return Ok(false) };
    let mut written = 0;
    while written < new.len() {
        match rustix::io::pwrite(&file, &new[written..], written as u64) {
            Ok(length) => written += length,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::system("write", path)(errno)),
        }
    }
    rustix::fs::ftruncate(&file, new.len() as u64).map_err(Error::system("truncate", path))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn files_are_changed_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        std::fs::write(&path, "a long first content\n").unwrap();
        let inode = std::fs::metadata(&path).unwrap().ino();
        assert!(update(&path, |old| Some(old[..2].to_vec())).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"a ");
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        assert!(!update(&path, |old| Some(old.to_vec())).unwrap());
        assert!(!update(&path, |_| None).unwrap());
    }

    #[test]
    fn links_and_huge_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let huge = directory.path().join("huge");
        std::fs::write(&huge, vec![b'#'; MAX + 1]).unwrap();
        assert_eq!(update(&huge, |_| Some(Vec::new())).unwrap_err().errno(), Some(Errno::FBIG));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("huge", &link).unwrap();
        assert_eq!(update(&link, |_| Some(Vec::new())).unwrap_err().errno(), Some(Errno::LOOP));
        assert_eq!(hostname("web"), "web\n");
    }
}
