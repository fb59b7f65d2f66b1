//! Errors of route netlink.

use rustix::io::Errno;

/// Why a netlink request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The socket could not be opened, written or read.
    #[error("netlink {operation}: {errno}")]
    Socket {
        /// Such as `open socket`.
        operation: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused the request.
    #[error("netlink {operation} {object}: {errno}{}{message}", if message.is_empty() { "" } else { ": " })]
    Refused {
        /// Such as `set link up`.
        operation: &'static str,
        /// Device or address.
        object: String,
        /// The kernel's answer.
        errno: Errno,
        /// The kernel's extended acknowledgement; may be empty.
        message: String,
    },
    /// An answer that does not follow the protocol.
    #[error("netlink {operation}: malformed answer ({what})")]
    Malformed {
        /// Such as `get link`.
        operation: &'static str,
        /// Which rule it breaks.
        what: &'static str,
    },
    /// No device of that name.
    #[error("network device {0:?} does not exist")]
    NoLink(String),
    /// A name that no device can have.
    #[error("invalid network device name {0:?}: 1 to 15 bytes without '/', ':' and white space, and not '.' or '..'")]
    InvalidName(String),
}
