//! Why the server could not run.

use std::path::PathBuf;

/// Why the server could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// The answer.
        source: std::io::Error,
    },
    /// Someone listens there already.
    #[error("listen on {0}: another server does already")]
    Busy(String),
    /// Certificates cannot be used.
    #[error("certificates {path}: {reason}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// TCP without certificates would give the machine to everybody.
    #[error("tcp:// needs --tlscert, --tlskey and --tlscacert: without them everybody who reaches it is root here")]
    NoTls,
    /// No such group.
    #[error("group {0:?} is not known")]
    Group(String),
    /// Nothing was passed.
    #[error("fd:// needs sockets of the service manager, and LISTEN_FDS names none")]
    NotPassed,
    /// The runtime of connections.
    #[error("start serving: {0}")]
    Runtime(std::io::Error),
}
