//! Errors of the image store.

use std::path::Path;

use hull_oci::spec::one_line;

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
    #[error("archive: {}", one_line(.0))]
    Archive(String),
    /// No image of that name or ID.
    #[error("no such image: {}", one_line(.0))]
    NoImage(String),
    /// The image is there, but not for the platform that is asked for; Docker's text.
    #[error(
        "image with reference {name} was found but does not match the specified platform: wanted {wanted}, actual: {actual}"
    )]
    Platform {
        /// As it was asked for.
        name: String,
        /// What was asked for.
        wanted: String,
        /// What is there.
        actual: String,
    },
    /// The text is not an image's name.
    #[error(transparent)]
    Reference(#[from] hull_oci::reference::ReferenceError),
    /// A `--change` instruction cannot be used.
    #[error("--change: {reason}; look at {instruction:?}")]
    Change {
        /// As given.
        instruction: String,
        /// What was expected.
        reason: String,
    },
    /// An image is in use; Docker's text.
    #[error("conflict: {0}")]
    Conflict(String),
    /// A manifest or a configuration that is refused.
    #[error(transparent)]
    Document(#[from] hull_oci::image::DocumentError),
    /// A layer that is refused, or could not be kept.
    #[error(transparent)]
    Layer(#[from] hull_layer::Error),
    /// The parts of an image do not fit each other.
    #[error("image {image}: {}", one_line(reason))]
    Image {
        /// Its ID or name.
        image: String,
        /// What does not fit.
        reason: String,
    },
    /// A blob is not what its digest or size says.
    #[error("blob {expected}: {reason}")]
    Blob {
        /// What was asked for.
        expected: hull_oci::Digest,
        /// What was found.
        reason: String,
    },
    /// Something of the store is damaged.
    #[error("{object} is damaged: {}; `hull system check` names all that is", one_line(reason))]
    Damaged {
        /// The blob, layer or record.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No space is left where the store is.
    #[error("{error}; the file system of {root} has no room left: `hull system prune -a` frees what nothing uses")]
    Full {
        /// What could not be written.
        error: Box<Error>,
        /// The data directory.
        root: String,
    },
    /// A setting's value cannot be used.
    #[error("{setting} {value:?}: {reason}")]
    Setting {
        /// Its name, or the environment variable.
        setting: String,
        /// As given.
        value: String,
        /// What was expected.
        reason: String,
    },
    /// The database cannot be read or written.
    #[error("database hull.db: {0}")]
    Database(#[from] rusqlite::Error),
    /// The records.
    #[error(transparent)]
    Records(#[from] hull_db::Error),
    /// A registry failed or refused.
    #[error(transparent)]
    Registry(Box<hull_registry::Error>),
    /// A policy or a key says that the image must not be used.
    #[error(transparent)]
    Refused(Box<hull_trust::Refused>),
    /// A policy, a key or a signature cannot be used.
    #[error(transparent)]
    Trust(#[from] hull_trust::Error),
    /// A layer did not come as it should.
    #[error("layer {blob} of {repository}: {source}")]
    Pull {
        /// Digest of its blob.
        blob: hull_oci::Digest,
        /// The repository, with its registry.
        repository: String,
        /// What is wrong.
        source: Box<Error>,
    },
    /// Files and locks.
    #[error(transparent)]
    Fs(#[from] hull_fs::Error),
}

impl From<hull_trust::Refused> for Error {
    fn from(refused: hull_trust::Refused) -> Self {
        Self::Refused(Box::new(refused))
    }
}

impl From<hull_registry::Error> for Error {
    fn from(error: hull_registry::Error) -> Self {
        Self::Registry(Box::new(error))
    }
}

impl Error {
    /// No image of that name; Docker names the tag that it looked for.
    pub(crate) fn no_image(text: &str) -> Self {
        let name = text.parse::<hull_oci::Reference>().map(|name| name.or_latest().familiar());
        Self::NoImage(name.unwrap_or_else(|_| text.to_owned()))
    }

    /// `.map_err(Error::io("open", path))`.
    pub fn io<E: Into<std::io::Error>>(operation: &'static str, object: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        let object = object.as_ref().display().to_string();
        move |source| Self::Io { operation, object, source: source.into() }
    }

    /// Names the store whose file system is full, if that is what is wrong.
    pub(crate) fn full(self, root: &Path) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let full = match &self {
            Self::Io { source, .. } | Self::Layer(hull_layer::Error::File { source, .. }) => {
                matches!(source.kind(), StorageFull | QuotaExceeded)
            }
            Self::Database(error) => hull_db::is_full(error, root),
            Self::Records(error) => error.is_full(root),
            _ => false,
        };
        if full { Self::Full { error: Box::new(self), root: root.display().to_string() } } else { self }
    }

    /// What does not fit in an image.
    pub fn image(image: impl ToString, reason: impl Into<String>) -> Self {
        Self::Image { image: image.to_string(), reason: reason.into() }
    }

    /// What is wrong with a part of the store.
    pub fn damaged(object: impl Into<String>, reason: impl ToString) -> Self {
        Self::Damaged { object: object.into(), reason: reason.to_string() }
    }
}
