//! From a query to an answer, or to the decision that others must give it. No I/O of its own.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::wire::{self, Invalid, Query, Rcode, Writer, kind};

/// How long clients may keep what we say, in seconds.
const TTL: u32 = 600;

/// What a table says about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The name of an address.
    Ptr(&'a str),
    /// Where a service listens: port and host.
    Srv(u16, &'a str),
}

/// Where names are looked up before anybody else is asked.
pub trait Lookup {
    /// Calls `visit` with each record of a name, which is lower-case and without a final dot. Says whether the name is
    /// known; a known name need not have a record of every kind.
    fn find(&mut self, name: &str, visit: &mut dyn FnMut(Record<'_>)) -> bool;
}

impl<F: FnMut(&str, &mut dyn FnMut(Record<'_>)) -> bool> Lookup for F {
    fn find(&mut self, name: &str, visit: &mut dyn FnMut(Record<'_>)) -> bool {
        self(name, visit)
    }
}

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What is to be done with names that are not known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// Others may be asked. False on internal networks: a query would carry data out.
    pub(super) forward: bool,
    /// Names of one label may be asked of others.
    pub(super) single_labels: bool,
    /// Which of several addresses comes first.
    pub(super) rotation: usize,
}

/// What became of a packet.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it lives on the stack while one packet is looked at")]
pub(super) enum Verdict {
    /// Nothing is sent back.
    Ignore,
    /// The answer is in the buffer.
    Answered,
    /// Somebody else knows.
    Forward(Query),
}

/// Answers a packet from what is known here.
pub(super) fn answer(
    packet: &[u8],
    transport: Transport,
    policy: Policy,
    lookup: &mut dyn Lookup,
    out: &mut Vec<u8>,
) -> Verdict {
    let query = match Query::parse(packet) {
        Ok(query) => query,
        Err(Invalid::Ignore) => return Verdict::Ignore,
        Err(Invalid::Answer(rcode)) => {
            wire::refuse(packet, rcode, out);
            return Verdict::Answered;
        }
    };
    let limit = match transport {
        Transport::Udp => query.udp_limit(),
        Transport::Tcp => usize::from(u16::MAX),
    };
    if query.class == wire::CLASS_IN
        && let Some(name) = query.name.plain()
    {
        let mut writer = Writer::new(&query, packet, limit, Rcode::Success, out);
        if records(&query, name, policy.rotation, lookup, &mut writer) {
            writer.finish();
            return Verdict::Answered;
        }
        if !policy.single_labels && !name.contains('.') && matches!(query.kind, kind::A | kind::AAAA) {
            // Docker's: the client goes on with its search list.
            Writer::new(&query, packet, limit, Rcode::Success, out).finish();
            return Verdict::Answered;
        }
    }
    if !policy.forward {
        fail(&query, packet, out);
        return Verdict::Answered;
    }
    Verdict::Forward(query)
}

/// Tells the client that no server answered.
pub(super) fn fail(query: &Query, packet: &[u8], out: &mut Vec<u8>) {
    let limit = usize::from(u16::MAX);
    Writer::new(query, packet, limit, Rcode::ServerFailure, out).finish();
}

/// Writes the records of a name that the question wants. Says whether the name is known.
fn records(query: &Query, name: &str, rotation: usize, lookup: &mut dyn Lookup, writer: &mut Writer<'_>) -> bool {
    let mut data = Vec::new();
    let known = lookup.find(name, &mut |record| {
        let kind = kind_of(&record);
        if query.kind != kind && query.kind != kind::ANY {
            return;
        }
        match record {
            Record::A(address) => writer.record(kind, TTL, &address.octets()),
            Record::Aaaa(address) => writer.record(kind, TTL, &address.octets()),
            Record::Ptr(target) => {
                data.clear();
                if wire::encode_name(target, &mut data).is_some() {
                    writer.record(kind, TTL, &data);
                }
            }
            Record::Srv(port, target) => {
                data.clear();
                // Priority and weight say nothing here.
                data.extend_from_slice(&[0; 4]);
                data.extend_from_slice(&port.to_be_bytes());
                if wire::encode_name(target, &mut data).is_some() {
                    writer.record(kind, TTL, &data);
                }
            }
        }
    });
    writer.rotate(rotation);
    known
}

const fn kind_of(record: &Record<'_>) -> u16 {
    match record {
        Record::A(_) => kind::A,
        Record::Aaaa(_) => kind::AAAA,
        Record::Ptr(_) => kind::PTR,
        Record::Srv(..) => kind::SRV,
    }
}
