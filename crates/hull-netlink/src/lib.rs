//! Netlink over blocking sockets: devices, addresses and routes (`rtnetlink(7)`), and the firewall ([`nft`]).
//!
//! Owns the sockets and their messages. Every length from the kernel is checked, and each answer is matched to its
//! request. Nothing here keeps state between requests, starts threads or runs programs. [`loopback_up`] alone is meant
//! for the child between `clone3` and `execve` and does not allocate.

mod codec;
pub mod conntrack;
mod device;
mod error;
mod link;
pub mod nft;
mod route;
mod socket;
#[cfg(test)]
mod tests;
mod transport;

pub use device::{in_namespace, move_device, valid_name};
pub use error::Error;
pub use link::{Bridge, BridgePort, Change, IpvlanMode, MacvlanMode, Stacked, Veth};
pub use route::Route;
pub use socket::{Address, Link, Ready, Socket, loopback_up};
