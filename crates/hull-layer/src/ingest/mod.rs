//! Takes a layer in: one pass over a stream, from the bytes as received to a layer that can be mounted.
//!
//! ```text
//! caller:  read ── `blob`, digest ──┐
//! thread:                           └── decompress ──┬──────────────┐
//! thread:                                            └── diff ID    │
//! thread:                                                           └── `tar`, names ── `index` (at the end)
//! ```
//!
//! The stages pass buffers of 256 KiB through short queues, so that the slowest one sets the pace and memory is bounded.
//! Files are created in a directory that the caller gives and owns; whatever goes wrong, they are all there is to remove,
//! and no file is complete unless [`ingest`] has returned it. Nothing is locked.

mod queue;
mod sink;
mod stages;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use hull_oci::Digest;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub use stages::Stream;

use crate::compression::Compression;
use crate::erofs::Index;
use crate::tree::{Builder, Kind, Tree};
use crate::{Error, Limits, tar};

/// Name of the file with the bytes as received.
pub const BLOB: &str = "blob";
/// Name of the file with the uncompressed archive.
pub const TAR: &str = "tar";
/// Name of the file with the EROFS index.
pub const INDEX: &str = "index";

/// What is expected of a layer, and what is kept of it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keep the bytes as received.
    pub keep_blob: bool,
    /// What they must be.
    pub blob: Option<Digest>,
    /// How many there must be.
    pub size: Option<u64>,
    /// What the uncompressed archive must be.
    pub diff_id: Option<Digest>,
    /// Bring the files to the disk before returning.
    pub sync: bool,
}

/// A layer that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingested {
    /// Digest of the bytes as received.
    pub blob: Digest,
    /// How many they are.
    pub size: u64,
    /// What they were.
    pub compression: Compression,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Its length.
    pub tar_size: u64,
}

/// A layer with its index.
#[derive(Clone, Debug)]
pub struct Indexed {
    /// The archive.
    pub layer: Ingested,
    /// Its names.
    pub tree: Tree,
    /// How many files, directories and others it has; hard links are not counted again.
    pub inodes: u64,
    /// The lengths of all its files.
    pub content: u64,
    /// Length of the index.
    pub index_size: u64,
}

/// Takes a layer in for EROFS: writes [`TAR`], [`INDEX`], and [`BLOB`] if wanted, into an empty directory.
///
/// # Errors
/// If the input fails, is damaged, is not what `options` expect, or exceeds `limits`; if a file cannot be written.
pub fn ingest(
    input: impl Read,
    directory: BorrowedFd<'_>,
    options: &Options,
    limits: &Limits,
) -> Result<Indexed, Error> {
    let data = create(directory, TAR)?;
    let end_optional = verified(options);
    let names = |stream: &mut Stream<'_>| read_tree(stream, limits, end_optional);
    let (layer, tree) = run(input, directory, Some(&data), options, limits, names)?;
    let index = Index::new(&tree, layer.tar_size)?;
    let mut file = create(directory, INDEX)?;
    index.write(&data, &mut file)?;
    if options.sync {
        data.sync_data().map_err(Error::file("sync", TAR))?;
        file.sync_data().map_err(Error::file("sync", INDEX))?;
    }
    let (inodes, index_size) = (index.inodes(), index.size());
    let lengths = tree.nodes.iter().map(|node| if let Kind::File { size, .. } = node.kind { size } else { 0 });
    let content = lengths.fold(0, u64::saturating_add);
    Ok(Indexed { layer, tree, inodes, content, index_size })
}

/// Takes a layer in and leaves its archive to `consume`, which reads the uncompressed stream as it passes. Of the files
/// only [`BLOB`] is written, if wanted.
///
/// What `consume` has seen is verified only when this function returns without an error.
///
/// # Errors
/// As [`ingest`], and those of `consume`.
pub fn ingest_into<T: Send>(
    input: impl Read,
    directory: BorrowedFd<'_>,
    options: &Options,
    limits: &Limits,
    consume: impl FnOnce(&mut Stream<'_>) -> Result<T, Error> + Send,
) -> Result<(Ingested, T), Error> {
    run(input, directory, None, options, limits, consume)
}

/// Reads the names of an uncompressed archive. An archive without the blocks that end it is accepted only where its
/// digest is known (`end_optional`).
///
/// # Errors
/// If the archive is refused.
pub fn read_tree(archive: impl Read, limits: &Limits, end_optional: bool) -> Result<Tree, Error> {
    let mut reader = tar::Reader::new(archive, *limits);
    if end_optional {
        reader = reader.end_optional();
    }
    let mut builder = Builder::new(*limits);
    while let Some(entry) = reader.next()? {
        builder.add(entry)?;
    }
    builder.finish()
}

/// Whether a truncated archive would be noticed by its digest.
fn verified(options: &Options) -> bool {
    options.blob.is_some() || options.diff_id.is_some()
}

fn run<T: Send>(
    input: impl Read,
    directory: BorrowedFd<'_>,
    data: Option<&File>,
    options: &Options,
    limits: &Limits,
    consume: impl FnOnce(&mut Stream<'_>) -> Result<T, Error> + Send,
) -> Result<(Ingested, T), Error> {
    if let Some(size) = options.size {
        check_room(directory, size.saturating_mul(u64::from(options.keep_blob) + u64::from(data.is_some())))?;
    }
    let blob = if options.keep_blob { Some(create(directory, BLOB)?) } else { None };
    let done = stages::run(input, directory, [blob.as_ref(), data], options, limits, consume)?;
    if let (Some(blob), true) = (&blob, options.sync) {
        blob.sync_data().map_err(Error::file("sync", BLOB))?;
    }
    Ok(done)
}

/// A new file; one that exists is an error, whatever it is.
fn create(directory: BorrowedFd<'_>, name: &'static str) -> Result<File, Error> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR);
    file.map(File::from).map_err(Error::file("create", name))
}

/// What a layer leaves free on a disk: its hundredth part, at most 256 MB.
fn reserve(stat: &rustix::fs::StatVfs) -> u64 {
    (stat.f_blocks.saturating_mul(stat.f_frsize) / 100).min(256 << 20)
}

/// Fails where a stream that goes on would take the last of the disk.
fn check_reserve(directory: BorrowedFd<'_>) -> Result<(), Error> {
    let stat = rustix::fs::fstatvfs(directory.as_fd()).map_err(Error::file("look at the free space of", "layer"))?;
    if stat.f_bavail.saturating_mul(stat.f_frsize) < reserve(&stat) {
        return Err(Error::file("make room for", "layer")(Errno::NOSPC));
    }
    Ok(())
}

/// Fails early where the disk cannot even take the bytes as received. What they expand to is found out by writing.
fn check_room(directory: BorrowedFd<'_>, bytes: u64) -> Result<(), Error> {
    let stat = rustix::fs::fstatvfs(directory.as_fd()).map_err(Error::file("look at the free space of", "layer"))?;
    if stat.f_bavail.saturating_mul(stat.f_frsize) < bytes {
        return Err(Error::file("make room for", "layer")(Errno::NOSPC));
    }
    Ok(())
}
