//! Unpacked layers: the directory snapshotter.
//!
//! An archive is not unpacked entry by entry. While it streams past, each file's content goes into a file that is named
//! by a number, and the names go into a [`Tree`] in memory, exactly as for an EROFS index. When all entries are known
//! and checked, the tree is made from its root down:
//!
//! ```text
//! WORK/data/OFFSET   content of the entry whose data begins there in the archive; moved to its place, or linked there
//! WORK/data/nNODE    another node of several names, until all its links are made
//! WORK/tree/         the result
//! ```
//!
//! So no name of an archive is ever resolved on the host: every step is one checked name below an open directory that
//! this module has just made, nothing is replaced, and no link is followed because none is looked up. Duplicates,
//! whiteouts, implied directories and hard links are settled by [`tree::Builder`](hull_layer::tree::Builder), which
//! makes both snapshotters agree.
//!
//! **What an ordinary user cannot have**: owners that the kernel does not let it give stay its own (and then the file
//! loses its set-user-ID and set-group-ID bits); device nodes and attributes that it may not set are left out; a
//! whiteout that it may not make as a device becomes an attribute (Linux 6.7).

mod attributes;
mod place;

use std::fs;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use hull_layer::tar::{Entry, EntryKind, Reader};
use hull_layer::tree::{Builder, Tree};
use hull_layer::{Error, Limits};
use rustix::fs::{Mode, OFlags};

/// Pieces of content that are copied at once.
const BUFFER: usize = 256 << 10;

/// What an unpacked archive has.
#[derive(Debug)]
pub struct Unpacked {
    /// Its names and attributes.
    pub tree: Tree,
}

/// Unpacks an archive into `tree/` below `work`, an empty directory that nobody else uses, named `path` in errors.
///
/// Nothing is synced; see [`sync`]. After an error the directory is the caller's to remove.
///
/// # Errors
/// What the reader and the builder refuse; files that cannot be made.
pub fn unpack<R: Read>(
    reader: &mut Reader<R>,
    work: BorrowedFd<'_>,
    path: &Path,
    limits: Limits,
) -> Result<Unpacked, Error> {
    let directory = |name: &str, mode| -> Result<OwnedFd, Error> {
        let path = path.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::mkdirat(work, name, Mode::from_raw_mode(mode))
            .and_then(|()| rustix::fs::openat(work, name, flags, Mode::empty()))
            .map_err(Error::file("create directory", path))
    };
    let data = directory("data", 0o700)?;
    let root = directory("tree", 0o755)?;
    let mut builder = Builder::new(limits);
    let mut buffer = vec![0; BUFFER];
    while let Some(entry) = reader.next()? {
        store(reader, &entry, data.as_fd(), path, &mut buffer)?;
        builder.add(entry)?;
    }
    let tree = builder.finish()?;
    place::Placing::new(&tree, data.as_fd(), root.as_fd(), path).run()?;
    drop(data);
    let left = path.join("data");
    fs::remove_dir_all(&left).map_err(Error::file("remove", left))?;
    Ok(Unpacked { tree })
}

/// The content of an entry, if it has any, into a file of its own.
fn store<R: Read>(
    reader: &mut Reader<R>,
    entry: &Entry,
    data: BorrowedFd<'_>,
    path: &Path,
    buffer: &mut [u8],
) -> Result<(), Error> {
    let EntryKind::File { size, extents } = &entry.kind else { return Ok(()) };
    let Some(first) = extents.first() else { return Ok(()) };
    let name = place::data_name(first.tar);
    let fail = |operation| Error::file::<std::io::Error>(operation, path.join("data").join(&name));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(data, name.as_str(), flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| fail("create")(errno.into()))?;
    let mut file = fs::File::from(file);
    let mut position = 0;
    for extent in extents {
        if extent.offset != position {
            file.seek(SeekFrom::Start(extent.offset)).map_err(fail("write"))?;
        }
        position = extent.offset + extent.length;
        let mut left = extent.length;
        while left > 0 {
            let part = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            reader.read_exact(&mut buffer[..part]).map_err(Error::Read)?;
            file.write_all(&buffer[..part]).map_err(fail("write"))?;
            left -= part as u64;
        }
    }
    if position != *size {
        file.set_len(*size).map_err(fail("write"))?;
    }
    Ok(())
}

/// Waits until everything below `work` is on disk: one call for the file system instead of one for each file.
///
/// # Errors
/// As `syncfs(2)`.
pub fn sync(work: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
    rustix::fs::syncfs(work).map_err(Error::file("sync", path))
}
