//! Queries to 127.0.0.11:53, which belongs to nobody, reach the port that the resolver got.
//!
//! The container may use port 53 itself, on all of its addresses. Docker replaces the port with NAT, which makes the
//! kernel track every connection of the namespace; here two chains write it into the packets. On the way out a query's
//! port is changed before connection tracking and an answer's after it, so that a container that tracks connections of
//! its own sees one conversation on the resolver's port.
//!
//! ```text
//! table ip hull {
//!     chain queries { type filter hook output priority raw;  ip daddr 127.0.0.11 udp dport 53 udp dport set PORT ... }
//!     chain answers { type filter hook output priority 300;  ip saddr 127.0.0.11 udp sport PORT udp sport set 53 ... }
//! }
//! ```

use std::os::fd::BorrowedFd;

use hull_netlink::nft::{
    Base, Batch, ChainKind, Expression, Family, Field, Hook, MetaKey, NatKind, Place, PortProtocol, Socket,
};

use super::error::Error;
use super::netns::ADDRESS;

const TABLE: &str = "hull";
/// `raw`, before connection tracking.
const BEFORE: i32 = -300;
/// Behind everything that has a name.
const AFTER: i32 = 300;

/// The transaction that [`redirect`] makes, for a caller that has a socket in the namespace already.
#[must_use]
pub fn rules(port: u16) -> Batch {
    let mut batch = Batch::new(Family::Ip, TABLE);
    batch.add_table();
    let chains = [
        ("queries", BEFORE, NatKind::Destination, Field::DestinationV4, Field::DestinationPort, 53, port),
        ("answers", AFTER, NatKind::Source, Field::SourceV4, Field::SourcePort, port, 53),
    ];
    let is = |field, value: &[u8]| Expression::Compare { field, not: false, value: value.to_vec() };
    for (chain, priority, which, address, field, from, to) in chains {
        let base = Base { kind: ChainKind::Filter, hook: Hook::Output, priority, drop: false };
        batch.add_chain(chain, Some(base));
        // Rules of a resolver that was here before would send queries to its port.
        batch.flush_chain(chain);
        for protocol in [PortProtocol::Udp, PortProtocol::Tcp] {
            let steps = [
                is(address, &ADDRESS.octets()),
                is(Field::Meta(MetaKey::L4Proto), &[protocol as u8]),
                is(field, &u16::to_be_bytes(from)),
                Expression::WritePort { protocol, which, port: to },
            ];
            batch.add_rule(chain, Place::Last, "", &steps);
        }
    }
    batch
}

/// Lets queries reach a resolver's port in the container's network namespace. The calling process must be
/// single-threaded and stays in its own namespace.
///
/// # Errors
/// When the namespace cannot be entered or the kernel refuses the rules.
pub fn redirect(namespace: BorrowedFd<'_>, port: u16) -> Result<(), Error> {
    Ok(hull_netlink::in_namespace(namespace, || Socket::open()?.commit(rules(port)))??)
}
