//! Errors of contexts, sources and copies.

use std::path::Path;

use hull_oci::spec::one_line;

/// Why files could not be found, read or put into a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed.
    #[error("{operation} {}: {source}", one_line(object))]
    Io {
        /// Verb phrase.
        operation: &'static str,
        /// What it was done to.
        object: String,
        /// The answer.
        source: std::io::Error,
    },
    /// What is to be copied does not exist. The words are BuildKit's.
    #[error("failed to compute cache key: failed to calculate checksum of ref {}: {:?}: not found{}",
        one_line(origin), path, hint(*ignored))]
    Missing {
        /// Whose files: `context`, a stage's or an image's.
        origin: String,
        /// The path, from the root.
        path: String,
        /// It does exist, but `.dockerignore` says that it does not.
        ignored: bool,
    },
    /// What was asked for cannot be done with these files.
    #[error("{}", one_line(.0))]
    Refused(String),
    /// A file changed between its digest and its copy.
    #[error("{} changed while it was copied; build again", one_line(.0))]
    Changed(String),
    /// A download or a repository that could not be had.
    #[error("{}", one_line(.0))]
    Fetch(String),
    /// Nobody waits for it any more.
    #[error("canceled")]
    Canceled,
    /// The image store.
    #[error(transparent)]
    Image(#[from] hull_image::Error),
    /// An archive.
    #[error(transparent)]
    Layer(#[from] hull_layer::Error),
    /// Files and locks.
    #[error(transparent)]
    Fs(#[from] hull_fs::Error),
}

fn hint(ignored: bool) -> &'static str {
    if ignored { " (excluded by .dockerignore)" } else { "" }
}

impl Error {
    /// `.map_err(Error::io("open", path))`.
    pub fn io<E: Into<std::io::Error>>(operation: &'static str, object: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        let object = object.as_ref().display().to_string();
        move |source| Self::Io { operation, object, source: source.into() }
    }

    /// `.map_err(Error::at("read", b"a/b"))`: a path within a tree.
    pub(crate) fn at<E: Into<std::io::Error>>(operation: &'static str, path: &[u8]) -> impl FnOnce(E) -> Self {
        let object = absolute(path);
        move |source| Self::Io { operation, object, source: source.into() }
    }
}

/// A path within a tree for a message.
pub(crate) fn absolute(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}
