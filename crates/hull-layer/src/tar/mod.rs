//! Tar streams: a strict reader, a deterministic writer, and a walk that writes directories as tar.
//!
//! ```text
//! [x: PAX records]   [g: PAX records for all that follow]   [L, K: long names]      any of these, then
//! header, 512 bytes  [S: more of the sparse map]  content, padded to 512            the entry itself; repeated
//! 512 zeros, 512 zeros, anything                                                    the end
//! ```
//!
//! Formats read: v7, ustar, PAX, GNU (old and new), star's `tar\0` trailer, sparse files of all four GNU kinds. Where
//! readers in use disagree about what an archive says (content of a link, two names for one entry, a size that applies
//! to the wrong header), the archive is refused: what Hull reads is what every other reader reads.
//!
//! Nothing here resolves a name of an archive on the host. The [`walk`] reads directories of the host, by descriptor,
//! and never follows a link.

mod header;
mod name;
mod pax;
mod reader;
mod sparse;
mod stream;
pub mod walk;
mod writer;

pub(crate) use name::text;
pub use reader::{Content, Reader};
pub use writer::{Writer, WriterOptions};

use crate::tree::{Extent, Xattrs};

/// One entry of an archive, all its extended headers applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its first header, extended or not, begins in the uncompressed archive. The writer ignores it.
    pub offset: u64,
    /// Its name: components joined by `/`, without `.`, `..`, leading or trailing slashes. Empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with set-user-ID, set-group-ID and sticky, no type.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// And nanoseconds.
    pub mtime_nsec: u32,
    /// Extended attributes as the archive has them, sorted by name, each name once.
    pub xattrs: Xattrs,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Length in bytes, holes included.
        size: u64,
        /// Where its content is, in ascending order without overlap; what no extent covers is zeros. The writer ignores
        /// it.
        extents: Vec<Extent>,
    },
    /// A symbolic link to this text, verbatim.
    Symlink(Vec<u8>),
    /// Another name for the entry with this path, which has the form of [`Entry::path`].
    HardLink(Vec<u8>),
    /// A character device; major, minor.
    Character(u32, u32),
    /// A block device; major, minor.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

impl Entry {
    /// An entry that belongs to root, dated 1970.
    #[must_use]
    pub fn new(path: impl Into<Vec<u8>>, kind: EntryKind, mode: u16) -> Self {
        let (path, xattrs) = (path.into(), Xattrs::new());
        Self { offset: 0, path, kind, mode, uid: 0, gid: 0, mtime: 0, mtime_nsec: 0, xattrs }
    }
}
