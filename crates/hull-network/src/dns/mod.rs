//! Names inside networks: the resolver that each container finds at 127.0.0.11.
//!
//! ```text
//!  container ──53──> 127.0.0.11:PORT (sockets made in the container's namespace)
//!                        │ monitor's poll loop: Resolver::fd, on_ready, deadline
//!                        ├─ names of the container's networks: STATE/networks/ID/names, read in place
//!                        └─ others: the user's servers or the machine's, each query from a socket of its own
//! ```
//!
//! - [`Resolver`]: the state machine that the container's monitor drives. It never blocks, starts no thread, opens no
//!   database, and holds less than half a MiB with a thousand queries in flight; with none, next to nothing.
//! - [`redirect`]: lets queries to port 53 reach it, so that the container may use port 53 itself.
//! - [`Settings`]: which networks, links and servers one container has; a file that the resolver follows.
//! - [`Member`], [`join`], [`leave`]: the names of a network; whoever connects or disconnects a container rewrites them,
//!   and every resolver sees it with the next query.
//!
//! Known names are answered here for every type, so that they are never asked of others. Unknown ones of a container that
//! is on internal networks only are refused: a query is a message to the outside (CVE-2024-29018). Servers on the
//! machine's loopback are asked from its namespace, all others from the container's.

mod answer;
mod clients;
mod error;
mod forward;
mod members;
mod names;
mod netns;
mod redirect;
mod resolver;
mod settings;
mod slots;
mod table;
mod upstream;
mod wire;

#[cfg(test)]
mod tests;

pub use answer::{Lookup, Record};
pub use error::Error;
pub use members::{Member, TABLE, join, leave, leave_all, members, reverse, valid_name};
pub use netns::ADDRESS;
pub use redirect::{redirect, rules};
pub use resolver::Resolver;
pub use settings::Settings;

/// A file's first bytes.
pub(crate) fn read_bounded(path: &std::path::Path, max: usize) -> Result<Vec<u8>, rustix::io::Errno> {
    Ok(table::Followed::new(path.to_owned()).read_changed(max)?.unwrap_or_default())
}

/// What a packet is answered from a lookup alone, as a resolver without servers would. For fuzzing.
#[doc(hidden)]
#[must_use]
pub fn respond(packet: &[u8], stream: bool, lookup: &mut dyn Lookup) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let transport = if stream { answer::Transport::Tcp } else { answer::Transport::Udp };
    let policy = answer::Policy { forward: false, single_labels: true, rotation: packet.len() };
    match answer::answer(packet, transport, policy, lookup, &mut out) {
        answer::Verdict::Ignore | answer::Verdict::Forward(_) => None,
        answer::Verdict::Answered => Some(out),
    }
}

/// Whether a server's packet would be taken as the answer to a query, and what a client would then get of it when only
/// `limit` bytes fit. For fuzzing.
#[doc(hidden)]
#[must_use]
pub fn relay(query: &[u8], mut packet: Vec<u8>, limit: usize) -> Option<Vec<u8>> {
    let parsed = wire::Query::parse(query).ok()?;
    let sent = parsed.forwarded(query, parsed.id);
    if !wire::answers(&packet, &sent, parsed.question_end) {
        return None;
    }
    if packet.len() > limit {
        return Some(wire::truncate(&mut packet, parsed.question_end).to_vec());
    }
    Some(packet)
}
