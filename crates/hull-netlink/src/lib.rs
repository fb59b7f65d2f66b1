//! Route netlink over one blocking socket.

mod error;

pub use error::Error;
