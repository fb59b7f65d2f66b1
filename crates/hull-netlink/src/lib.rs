//! Route netlink over one blocking socket: what the runtime needs of network devices.
//!
//! Owns the `NETLINK_ROUTE` socket and its messages. Every length from the kernel is checked, and each answer is matched
//! to its request. Nothing here keeps state between requests, starts threads or runs programs. [`loopback_up`] alone is
//! meant for the child between `clone3` and `execve` and does not allocate.

mod codec;
mod device;
mod error;
mod socket;
#[cfg(test)]
mod tests;

pub use device::{move_device, valid_name};
pub use error::Error;
pub use socket::{Address, Link, Socket, loopback_up};
