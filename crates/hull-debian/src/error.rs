//! Errors of archives, packages and downloads. Words of a document pass through one line.

/// Why something of an archive cannot be used. Each is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or socket operation failed.
    #[error("{operation} {object}: {source}")]
    Io {
        /// Verb phrase such as `read`.
        operation: &'static str,
        /// What it was done to.
        object: String,
        /// The answer.
        source: std::io::Error,
    },
    /// A download failed.
    #[error("download {url}: {reason}")]
    Download {
        /// What was asked for.
        url: String,
        /// What came.
        reason: String,
        /// Whether the server said that it does not exist.
        missing: bool,
    },
    /// A Release file has no valid signature of a trusted key.
    #[error("signature of {object}: {reason}")]
    Signature {
        /// The signed file.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// A keyring cannot be used.
    #[error("keyring {object}: {reason}")]
    Keyring {
        /// The file.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// A Release file is too old, too new, or of something else.
    #[error("{object}: {reason}")]
    Release {
        /// The file.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// Bytes are not those that were signed or locked.
    #[error("{object} does not match: expected {expected}, found {found}")]
    Mismatch {
        /// The file.
        object: String,
        /// Size or digest.
        expected: String,
        /// Size or digest.
        found: String,
    },
    /// An index or package is not what its format demands.
    #[error("{object}: {reason}")]
    Format {
        /// The file.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// The packages cannot be installed together.
    #[error("dependencies: {0}")]
    Dependencies(String),
    /// The configuration names no archive for what was asked.
    #[error("{0}")]
    Sources(String),
}

impl Error {
    /// `.map_err(Error::io("open", path))`.
    pub fn io(operation: &'static str, object: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        let object = one_line(&object.to_string());
        move |source| Self::Io { operation, object, source }
    }

    pub(crate) fn format(object: impl std::fmt::Display, reason: impl std::fmt::Display) -> Self {
        Self::Format { object: one_line(&object.to_string()), reason: one_line(&reason.to_string()) }
    }

    pub(crate) fn download(url: &str, reason: impl std::fmt::Display) -> Self {
        Self::Download { url: one_line(url), reason: one_line(&reason.to_string()), missing: false }
    }
}

/// Text of others as part of a message: no line breaks or terminal sequences, of bounded length.
#[must_use]
pub(crate) fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|one| if one.is_control() { '?' } else { one }).take(300).collect();
    if line.len() < text.len() && text.chars().count() > 300 {
        line.push_str("...");
    }
    line
}
