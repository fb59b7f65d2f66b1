//! Networks of containers: records, addresses, bridges and other links, one firewall table, published ports, names.
//!
//! Everything is said to the kernel over netlink, by one thread; no program is run. Records are committed before the
//! kernel objects that they describe, so that whoever comes after a killed command can finish or undo its work
//! ([`Networks::repair`]).
//!
//! A container's way, as whoever starts containers calls it:
//!
//! 1. [`Networks::plan`] before anything of the container exists: ports of the machine are taken (the [`Plan`] holds the
//!    sockets), addresses chosen, records written. The [`Plan`] has all that `/etc/hosts` and `inspect` need.
//! 2. [`Networks::attach`] with the container's network namespace, before its program runs.
//! 3. While it runs, its monitor holds the plan's reservations in a [`Proxy`] and polls that and a [`Watch`], which mends
//!    the firewall when somebody has emptied it. [`Networks::connect`] and [`Networks::disconnect`] change its networks.
//! 4. [`Networks::detach`] when it has ended, or when its start failed at any point after `plan`.
//!
//! All of it acts on the network namespace that the calling thread is in. What users should know is said in lines that the
//! functions add to `said`.

pub mod dns;
pub mod files;

mod bridge;
mod endpoints;
mod error;
mod firewall;
mod hairpin;
mod host;
mod inside;
mod networks;
mod options;
mod pool;
mod ports;
mod proxy;
mod publish;
mod record;
mod repair;
mod stacked;
mod store;
mod subnet;

pub use endpoints::{Attachment, Plan, Who};
pub use error::Error;
pub use inside::{namespace_at, namespace_of};
pub use networks::{Create, Networks, Overview, host_gateways};
pub use options::{GatewayMode, Options, PUBLISH_MODE};
pub use ports::{Publish, Reservation};
pub use proxy::Proxy;
pub use record::{Driver, Endpoint, Mac, Network, Pool, Protocol, Published};
pub use repair::{Finding, Watch};
pub use subnet::Subnet;

/// Fills a buffer with random bytes.
fn random(bytes: &mut [u8]) -> Result<(), Error> {
    let failed = |errno: rustix::io::Errno| Error::Io {
        operation: "get",
        path: "random bytes".to_owned(),
        source: errno.into(),
    };
    let filled = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty()).map_err(failed)?;
    if filled == bytes.len() { Ok(()) } else { Err(failed(rustix::io::Errno::IO)) }
}
