//! What can be wrong with a layer.

use std::path::PathBuf;

use hull_oci::spec::one_line;

/// Why a layer was refused or could not be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The archive is damaged, or says something that Hull does not accept.
    #[error("layer archive at byte {offset}: {}", one_line(reason))]
    Archive {
        /// Where in the uncompressed archive the entry begins.
        offset: u64,
        /// What was found, and what was expected.
        reason: String,
    },
    /// One of [`crate::Limits`] is exceeded.
    #[error("layer archive has more than {limit} {what}")]
    Limit {
        /// `entries`, `bytes`, ...
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The compressed stream is damaged or cut off.
    #[error("decompress layer ({format}): {reason}")]
    Compression {
        /// `gzip`, `zstd`, ...
        format: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// The EROFS index is damaged, or cannot say what the layer has.
    #[error("layer index: {}", one_line(.0))]
    Index(String),
    /// The content is not what its digest says.
    #[error("{what} has digest {found}, expected {expected}")]
    Digest {
        /// `blob`, `layer`.
        what: &'static str,
        /// What was asked for.
        expected: hull_oci::Digest,
        /// What the bytes have.
        found: hull_oci::Digest,
    },
    /// Reading the input failed.
    #[error("read layer: {0}")]
    Read(#[source] std::io::Error),
    /// A file of the store could not be written or read.
    #[error("{operation} {path}: {source}", path = .path.display())]
    File {
        /// Verb phrase such as `write`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl Error {
    /// A refused archive.
    pub fn archive(offset: u64, reason: impl Into<String>) -> Self {
        Self::Archive { offset, reason: reason.into() }
    }

    /// `.map_err(Error::file("write", path))`.
    pub fn file<E: Into<std::io::Error>>(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        move |source| Self::File { operation, path: path.into(), source: source.into() }
    }
}
