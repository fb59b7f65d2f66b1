//! A query as a container may send it, and an answer as a server may: neither panics, answers are of the query and fit,
//! and an answer that is passed on answers the query.
#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr};

use hull_network::dns::{Record, relay, respond};
use libfuzzer_sys::fuzz_target;

fn lookup(name: &str, visit: &mut dyn FnMut(Record<'_>)) -> bool {
    assert!(!name.is_empty() && name.len() <= 253 && name == name.to_ascii_lowercase());
    for n in 0..u32::try_from(name.len()).unwrap_or(0) {
        visit(Record::A(Ipv4Addr::from(n)));
        visit(Record::Aaaa(Ipv6Addr::from(u128::from(n))));
        visit(Record::Srv(1, name));
    }
    visit(Record::Ptr(name));
    name.len() % 2 == 0
}

fuzz_target!(|data: (Vec<u8>, Vec<u8>, u16)| {
    let (query, answer, limit) = data;
    for stream in [false, true] {
        if let Some(made) = respond(&query, stream, &mut lookup) {
            assert!(made.len() >= 12 && made[..2] == query[..2] && made[2] & 0x80 != 0);
            assert!(stream || made.len() <= 4096);
            // An answer is no query: two resolvers cannot talk to each other for ever.
            assert!(respond(&made, stream, &mut lookup).is_none());
            let _ = relay(&query, made, limit.into());
        }
    }
    if let Some(passed) = relay(&query, answer.clone(), limit.into()) {
        assert!(passed[..2] == query[..2] && passed.len() <= answer.len());
    }
});
