//! Errors of the image store.

use std::path::Path;

/// Why an operation on images failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed.
    #[error("{operation} {object}: {source}")]
    Io {
        /// Verb phrase.
        operation: &'static str,
        /// What it was done to.
        object: String,
        /// The answer.
        source: std::io::Error,
    },
    /// The archive is not one, or asks for something that is refused.
    #[error("archive entry {entry:?}: {reason}")]
    Entry {
        /// Its path, shortened when long.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// The archive's stream cannot be read.
    #[error("archive: {0}")]
    Archive(String),
    /// No image of that name or ID.
    #[error("no such image: {0}")]
    NoImage(String),
    /// The text is not an image's name.
    #[error("invalid image name {0:?}: expected NAME[:TAG] of lower-case letters, digits and . _ - /")]
    Name(String),
    /// A `--change` instruction cannot be used.
    #[error("--change {instruction:?}: {reason}")]
    Change {
        /// As given.
        instruction: String,
        /// What was expected.
        reason: String,
    },
    /// An image's record is damaged.
    #[error("image record {path}: {source}")]
    Record {
        /// The file.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Files and locks.
    #[error(transparent)]
    Fs(#[from] hull_fs::Error),
}

impl Error {
    /// `.map_err(Error::io("open", path))`.
    pub fn io<E: Into<std::io::Error>>(operation: &'static str, object: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        let object = object.as_ref().display().to_string();
        move |source| Self::Io { operation, object, source: source.into() }
    }
}
