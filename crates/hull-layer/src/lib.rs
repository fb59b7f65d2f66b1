//! Layers of images: what the bytes of a layer say, and how they are kept without unpacking them.
//!
//! ```text
//! blob ──(compression)──> tar ──(tar::Reader)──> entries ──(tree::Builder)──> Tree ──(erofs)──> index
//!   └─ digest              ├─ diff ID
//!                          └─ written as it is: the index's data device
//! ```
//!
//! [`ingest`] runs all of this in one pass over a stream. Nothing of a layer is ever created, linked or given a mode on
//! the host: names become nodes of a [`tree::Tree`] in memory, and file content stays where the tar has it.
//!
//! Everything here is hostile input: every size is bounded by [`Limits`], and no name is resolved on the host.

pub mod compression;
pub mod erofs;
mod error;
pub mod ingest;
pub mod tar;
pub mod tree;

pub use error::Error;

/// What a layer may cost. The defaults take every image seen in the wild.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries of one archive, and nodes of one tree.
    pub entries: u64,
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
    /// Bytes of one PAX or GNU extended header.
    pub header: u64,
    /// Bytes of all extended attributes of one node.
    pub xattrs: u64,
    /// Bytes of names and attributes that one tree may hold in memory.
    pub names: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 4_000_000, bytes: 1 << 40, header: 1 << 20, xattrs: 64 << 10, names: 1 << 30 }
    }
}
