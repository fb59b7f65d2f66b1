//! The base packages' files, so that the first scripts have a shell and libraries to run with.
//!
//! dpkg unpacks the same files again, as it should; this only has to be good enough to start it. Paths are resolved
//! inside the new root, links included: `bin` is one, to `usr/bin`. Nothing outside can be reached, whatever a package
//! holds, and only directories, files and links are made.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use hull_debian::lock::Lock;
use hull_fs::inside;
use hull_layer::Limits;
use hull_layer::tar::{Entry, EntryKind, Reader};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::Ready;
use crate::error::Error;

/// Bytes of one package's files.
const MAX_BYTES: u64 = 32 << 30;

/// Makes the new root with the base packages' files and what dpkg wants to find.
pub(super) fn base(rootfs: &Path, lock: &Lock, packages: &[Ready]) -> Result<(), Error> {
    std::fs::create_dir(rootfs).map_err(Error::io("create directory", rootfs))?;
    rustix::fs::chmod(rootfs, Mode::from_raw_mode(0o755)).map_err(Error::io("change mode of", rootfs))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(rootfs, flags, Mode::empty()).map_err(Error::io("open", rootfs))?;
    merge(root.as_fd(), &lock.architecture)?;
    for (package, ready) in lock.packages.iter().zip(packages) {
        if package.base {
            extract(root.as_fd(), &package.name, ready)?;
        }
    }
    let dpkg = directory(root.as_fd(), "var/lib/dpkg", 0o755)?;
    for name in ["status", "available"] {
        let file = rustix::fs::openat(
            &dpkg,
            name,
            OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            0o644.into(),
        );
        file.map_err(Error::io("create", name))?;
    }
    for name in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "proc", "sys", "dev", "run", "tmp"] {
        directory(root.as_fd(), name, 0o755)?;
    }
    // Packages that set the shell up by a script have none to do it with.
    let bin = directory(root.as_fd(), "bin", 0o755)?;
    if rustix::fs::statat(&bin, "sh", AtFlags::SYMLINK_NOFOLLOW).is_err() {
        let shell = if rustix::fs::statat(&bin, "dash", AtFlags::SYMLINK_NOFOLLOW).is_ok() { "dash" } else { "bash" };
        rustix::fs::symlinkat(shell, &bin, "sh").map_err(Error::io("link", "bin/sh"))?;
    }
    Ok(())
}

fn directory(root: BorrowedFd<'_>, path: &str, mode: u32) -> Result<OwnedFd, Error> {
    inside::create_dir_all(root, Path::new(path), Mode::from_raw_mode(mode))
        .map_err(Error::io("create directory", path))
}

/// One `/usr`: the old directories are links into it before anything is unpacked.
fn merge(root: BorrowedFd<'_>, architecture: &str) -> Result<(), Error> {
    let libraries: &[&str] = match architecture {
        "amd64" => &["lib32", "lib64", "libx32"],
        "i386" => &["lib64", "libx32"],
        "ppc64el" | "s390x" | "loong64" | "mips64el" => &["lib64"],
        _ => &[],
    };
    for name in ["bin", "sbin", "lib"].iter().chain(libraries) {
        directory(root, &format!("usr/{name}"), 0o755)?;
        rustix::fs::symlinkat(format!("usr/{name}"), root, *name).map_err(Error::io("link", name))?;
    }
    Ok(())
}

fn extract(root: BorrowedFd<'_>, name: &str, ready: &Ready) -> Result<(), Error> {
    let wrong =
        |reason: String| Error::Bootstrap(format!("extract package {name}: {}", hull_oci::spec::one_line(&reason)));
    let limits = Limits { bytes: MAX_BYTES, ..Limits::default() };
    let mut reader = Reader::new(ready.deb.data()?, limits);
    while let Some(entry) = reader.next().map_err(|error| wrong(error.to_string()))? {
        place(root, &entry, &mut reader)
            .map_err(|error| wrong(format!("{}: {error}", String::from_utf8_lossy(&entry.path))))?;
    }
    Ok(())
}

fn place(root: BorrowedFd<'_>, entry: &Entry, content: &mut impl io::Read) -> io::Result<()> {
    if entry.path.is_empty() {
        return Ok(());
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path));
    let (parent, name) = inside::create_parent(root, path)?;
    let mode = Mode::from_raw_mode(u32::from(entry.mode));
    if entry.kind != EntryKind::Directory {
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    match &entry.kind {
        EntryKind::Directory => {
            match rustix::fs::mkdirat(&parent, name, 0o755.into()) {
                Ok(()) => {}
                // Also a link to a directory, as `bin` is.
                Err(Errno::EXIST) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
            let made = rustix::fs::openat(
                &parent,
                name,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            own(&made, entry, mode)
        }
        EntryKind::File { size, .. } => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rustix::fs::openat(&parent, name, flags, 0o600.into())?);
            let copied = io::copy(&mut content.take(*size), &mut file)?;
            if copied != *size {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the package is cut short"));
            }
            own(&file, entry, mode)?;
            let time = Timespec { tv_sec: entry.mtime, tv_nsec: 0 };
            Ok(rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?)
        }
        EntryKind::Symlink(target) => Ok(rustix::fs::symlinkat(target.as_slice(), &parent, name)?),
        EntryKind::HardLink(target) => {
            let target = Path::new(std::ffi::OsStr::from_bytes(target));
            let (from, old) = inside::create_parent(root, target)?;
            Ok(rustix::fs::linkat(&from, old, &parent, name, AtFlags::empty())?)
        }
        EntryKind::Character(..) | EntryKind::Block(..) | EntryKind::Fifo => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "packages of the base system have no devices or pipes"))
        }
    }
}

fn own(file: impl AsFd, entry: &Entry, mode: Mode) -> io::Result<()> {
    rustix::fs::fchown(&file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    Ok(rustix::fs::fchmod(&file, mode)?)
}
