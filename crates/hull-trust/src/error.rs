//! What is wrong with keys, policies and signatures.

use hull_oci::spec::one_line;

/// Why a key, a policy or a signature cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("read {path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file is longer than any such file is.
    #[error("{path} has more than {max} bytes")]
    TooLong {
        /// Which.
        path: String,
        /// The limit.
        max: u64,
    },
    /// A public key cannot be used.
    #[error("public key {origin}: {reason}")]
    PublicKey {
        /// The file, or where else it was.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// A private key cannot be used.
    #[error("private key {origin}: {reason}")]
    PrivateKey {
        /// The file.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// A private key needs a password, and there is none.
    #[error("private key {origin} is encrypted: set COSIGN_PASSWORD, or run this in a terminal to be asked")]
    Password {
        /// The file.
        origin: String,
    },
    /// A policy is not acceptable; nothing is allowed by it.
    #[error("policy {origin}: {}", one_line(reason))]
    Policy {
        /// The file.
        origin: String,
        /// Where, and what is wrong.
        reason: String,
    },
}

/// Reads a file of at most `max` bytes.
pub(crate) fn read(path: &std::path::Path, max: u64) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.display().to_string(), source };
    read_from(std::fs::File::open(path).map_err(failed)?, path, max)
}

/// [`read`] of a file that is open.
pub(crate) fn read_from(file: std::fs::File, path: &std::path::Path, max: u64) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    let name = || path.display().to_string();
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(|source| Error::Read { path: name(), source })?;
    if bytes.len() as u64 > max {
        return Err(Error::TooLong { path: name(), max });
    }
    Ok(bytes)
}
