use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Edns as OracleEdns, Message, MessageType, OpCode, Query as OracleQuery, ResponseCode};
use hickory_proto::rr::{DNSClass, Name as OracleName, RData, RecordType};
use proptest::prelude::*;

use super::*;
use crate::dns::answer::Record;
use crate::dns::{relay, respond};

fn message(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(OracleQuery::query(OracleName::from_ascii(name).unwrap(), kind));
    message
}

fn with_edns(mut message: Message, size: u16, version: u8) -> Vec<u8> {
    let mut edns = OracleEdns::new();
    edns.set_max_payload(size).set_version(version);
    message.set_edns(edns);
    message.to_vec().unwrap()
}

/// Knows `web` with two addresses of each family and a service, and `many` with 300 addresses.
fn lookup(name: &str, visit: &mut dyn FnMut(Record<'_>)) -> bool {
    match name {
        "web" => {
            for last in 1..=2_u8 {
                visit(Record::A(Ipv4Addr::new(10, 0, 0, last)));
                visit(Record::Aaaa(Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(last))));
            }
        }
        "_http._tcp.web" => visit(Record::Srv(80, "web")),
        "1.0.0.10.in-addr.arpa" => visit(Record::Ptr("web.backend")),
        "broken" => visit(Record::Ptr("a..b")),
        "many" => (0..300_u32).for_each(|n| visit(Record::A(Ipv4Addr::from(0x0a00_0000 + n)))),
        _ => return false,
    }
    true
}

fn ask(packet: &[u8], stream: bool) -> Message {
    let answer = respond(packet, stream, &mut lookup).expect("an answer");
    Message::from_vec(&answer).expect("an answer that can be read")
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    message.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}

#[test]
fn known_names_are_answered_for_every_type() {
    let of = |name, kind| ask(&message(name, kind).to_vec().unwrap(), false);
    for name in ["web", "web.", "WEB.", "wEb"] {
        let answer = of(name, RecordType::A);
        assert_eq!((answer.metadata.id, answer.metadata.message_type), (0x1234, MessageType::Response));
        assert!(
            answer.metadata.recursion_available && answer.metadata.recursion_desired && !answer.metadata.truncation
        );
        let mut found = addresses(&answer);
        found.sort();
        assert_eq!(found, [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)], "{name}");
        assert!(answer.answers.iter().all(|record| record.ttl == 600));
        // The client's spelling comes back.
        let packet = message(name, RecordType::A).to_vec().unwrap();
        assert_eq!(respond(&packet, false, &mut lookup).unwrap()[HEADER..packet.len()], packet[HEADER..]);
    }
    assert!(addresses(&of("web", RecordType::AAAA)).iter().all(IpAddr::is_ipv6));
    assert_eq!(of("web", RecordType::ANY).answers.len(), 4);
    for kind in [RecordType::MX, RecordType::TXT, RecordType::HTTPS, RecordType::SOA] {
        let answer = of("web", kind);
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0), "{kind}");
    }
    let answer = of("1.0.0.10.in-addr.arpa", RecordType::PTR);
    assert!(matches!(&answer.answers[0].data, RData::PTR(name) if name.to_string() == "web.backend."));
    let answer = of("_http._tcp.web", RecordType::SRV);
    assert!(matches!(&answer.answers[0].data, RData::SRV(srv) if srv.port == 80 && srv.target.to_string() == "web."));
    assert_eq!(of("broken", RecordType::PTR).answers.len(), 0);
    let unknown = of("other", RecordType::A);
    assert_eq!(unknown.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn other_classes_and_strange_labels_are_not_ours() {
    let mut chaos = message("web", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(ask(&chaos.to_vec().unwrap(), false).metadata.response_code, ResponseCode::ServFail);
    // One label with a dot in it is not two labels.
    let mut packet = message("_http._tcp.web", RecordType::SRV).to_vec().unwrap();
    packet[HEADER] = 14;
    packet[HEADER + 6] = b'.';
    packet[HEADER + 11] = b'.';
    assert_eq!(ask(&packet, false).metadata.response_code, ResponseCode::ServFail);
    let name = Query::parse(&packet).unwrap().name;
    assert!(name.plain().is_none(), "{name:?}");
}

#[test]
fn what_does_not_fit_is_cut_and_whole_over_tcp() {
    let plain = message("many", RecordType::A).to_vec().unwrap();
    for (packet, limit) in [
        (plain.clone(), 512),
        (with_edns(message("many", RecordType::A), 100, 0), 512),
        (with_edns(message("many", RecordType::A), 1232, 0), 1232),
        (with_edns(message("many", RecordType::A), 65535, 0), 4096),
    ] {
        let answer = respond(&packet, false, &mut lookup).unwrap();
        assert!(answer.len() <= limit && answer.len() > limit - 32, "{} of {limit}", answer.len());
        let answer = Message::from_vec(&answer).unwrap();
        assert!(answer.metadata.truncation && answer.answers.len() < 300);
        assert_eq!(answer.edns.is_some(), packet.len() > plain.len());
    }
    let whole = ask(&plain, true);
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 300);
}

#[test]
fn the_first_address_changes() {
    let mut firsts = std::collections::BTreeSet::new();
    for by in 0..4 {
        let packet = message("web", RecordType::A).to_vec().unwrap();
        let query = Query::parse(&packet).unwrap();
        let mut out = Vec::new();
        let mut writer = Writer::new(&query, &packet, 512, Rcode::Success, &mut out);
        for last in 1..=3 {
            writer.record(kind::A, 1, &[10, 0, 0, last]);
        }
        writer.rotate(by);
        writer.finish();
        let answer = Message::from_vec(&out).unwrap();
        assert_eq!(answer.answers.len(), 3);
        firsts.insert(addresses(&answer)[0]);
    }
    assert_eq!(firsts.len(), 3);
}

#[test]
fn wrong_packets_are_refused_or_ignored() {
    let good = message("web", RecordType::A).to_vec().unwrap();
    let code = |packet: &[u8]| {
        let answer = respond(packet, false, &mut lookup)?;
        Some(Message::from_vec(&answer).unwrap().metadata.response_code)
    };
    assert_eq!(code(&good), Some(ResponseCode::NoError));
    for end in 0..good.len() {
        let expected = (end >= HEADER).then_some(ResponseCode::FormErr);
        assert_eq!(code(&good[..end]), expected, "{end} bytes");
    }
    let mut changed = good.clone();
    changed[2] |= 0x80;
    assert_eq!(code(&changed), None);
    changed = good.clone();
    changed[2] |= 4 << 3;
    assert_eq!(code(&changed), Some(ResponseCode::NotImp));
    for count in [[0, 0], [0, 2], [0xff, 0xff]] {
        changed = good.clone();
        changed[4..6].copy_from_slice(&count);
        assert_eq!(code(&changed), Some(ResponseCode::FormErr));
    }
    // A name that points at itself, an unknown kind of label, more records than bytes.
    for (offset, bytes) in [(HEADER, [0xc0, 0x0c]), (HEADER, [0x40, 1]), (6, [0xff, 0xff]), (10, [0xff, 0xff])] {
        changed = good.clone();
        changed[offset..offset + 2].copy_from_slice(&bytes);
        assert_eq!(code(&changed), Some(ResponseCode::FormErr), "{bytes:?} at {offset}");
    }
    let answer = ask(&with_edns(message("web", RecordType::A), 1232, 1), false);
    assert_eq!(u16::from(answer.metadata.response_code), 16);
    // Two EDNS records.
    let once = with_edns(message("web", RecordType::A), 1232, 0);
    let mut twice = once.clone();
    twice.extend_from_slice(&once[good.len()..]);
    twice[11] = 2;
    assert_eq!(code(&once), Some(ResponseCode::NoError));
    assert_eq!(code(&twice), Some(ResponseCode::FormErr));
}

#[test]
fn names_have_their_longest_length() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    let packet = message(&longest, RecordType::A).to_vec().unwrap();
    assert_eq!(Query::parse(&packet).unwrap().name.plain(), Some(longest.as_str()));
    // One byte more, which no library would write.
    let mut packet = vec![0; HEADER];
    packet[5] = 1;
    for size in [63, 63, 63, 62] {
        packet.push(size);
        packet.extend(std::iter::repeat_n(b'a', size.into()));
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    assert!(Query::parse(&packet).is_err());
    let mut out = Vec::new();
    assert!(encode_name(&longest, &mut out).is_some());
    assert!(encode_name(&format!("a{longest}"), &mut out).is_none());
    assert!(encode_name(&"a".repeat(64), &mut out).is_none());
}

#[test]
fn forwarded_queries_ask_for_no_more_than_we_take() {
    let packet = with_edns(message("example.com", RecordType::A), 65000, 0);
    let query = Query::parse(&packet).unwrap();
    let sent = Message::from_vec(&query.forwarded(&packet, 7)).unwrap();
    assert_eq!((sent.metadata.id, sent.max_payload()), (7, 4096));
    let packet = with_edns(message("example.com", RecordType::A), 1400, 0);
    let query = Query::parse(&packet).unwrap();
    assert_eq!(Message::from_vec(&query.forwarded(&packet, 7)).unwrap().max_payload(), 1400);
    assert_eq!(query.udp_limit(), 1400);
}

#[test]
fn only_answers_to_the_question_are_answers() {
    let sent = message("example.com", RecordType::A).to_vec().unwrap();
    let mut reply = sent.clone();
    reply[2] |= 0x80;
    assert!(relay(&sent, reply.clone(), 512).is_some());
    let mut upper = reply.clone();
    upper[HEADER + 1] = b'E';
    assert!(relay(&sent, upper, 512).is_some(), "the spelling does not matter");
    for offset in [0, 1, 2, HEADER + 1, sent.len() - 1, sent.len() - 3] {
        let mut other = reply.clone();
        other[offset] ^= 0x81;
        assert!(relay(&sent, other, 512).is_none(), "byte {offset}");
    }
    assert!(relay(&sent, reply[..reply.len() - 1].to_vec(), 512).is_none());
    // A server that refuses may leave the question out, but only then.
    let mut short = reply[..HEADER].to_vec();
    short[4..6].fill(0);
    assert!(relay(&sent, short.clone(), 512).is_none());
    short[3] |= 5;
    assert!(relay(&sent, short, 512).is_some());
}

proptest! {
    /// What the oracle reads, we read the same; what we answer, the oracle reads.
    #[test]
    fn queries_are_read_as_the_oracle_reads_them(
        labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..6),
        kind in any::<u16>(),
        id in any::<u16>(),
        edns in proptest::option::of(any::<u16>()),
    ) {
        let name = OracleName::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.add_query(OracleQuery::query(name, RecordType::from(kind)));
        let packet = match edns {
            Some(size) => with_edns(message, size, 0),
            None => message.to_vec().unwrap(),
        };
        let oracle = Message::from_vec(&packet).unwrap();
        let query = Query::parse(&packet).unwrap();
        prop_assert_eq!((query.id, query.kind, query.class), (oracle.metadata.id, kind, 1));
        let text = labels.iter().map(|label| label.to_ascii_lowercase()).collect::<Vec<_>>().join(&b'.');
        prop_assert_eq!(&query.name.text[..usize::from(query.name.length)], &text[..]);
        let plain = text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
            && !text.is_empty() && !labels.iter().any(|label| label.contains(&b'.'));
        prop_assert_eq!(query.name.plain().is_some(), plain);
        prop_assert_eq!(query.udp_limit(), usize::from(edns.unwrap_or(512).clamp(512, 4096)));
        let answer = ask(&packet, false);
        prop_assert_eq!(answer.metadata.id, id);
        prop_assert_eq!(answer.edns.is_some(), edns.is_some());
    }

    #[test]
    fn no_packet_panics_and_every_answer_can_be_read(
        mut packet in proptest::collection::vec(any::<u8>(), 0..200),
        one_question in any::<bool>(),
        stream in any::<bool>(),
    ) {
        if one_question && packet.len() > HEADER {
            packet[2] &= 0x07;
            packet[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 1]);
            packet[HEADER] &= 0x1f;
        }
        if let Some(answer) = respond(&packet, stream, &mut lookup) {
            prop_assert!(answer.len() >= HEADER && (stream || answer.len() <= 4096));
            prop_assert_eq!(&answer[..2], &packet[..2]);
            if let Err(error) = Message::from_vec(&answer) {
                // The oracle also wants types and classes that it knows.
                prop_assert!(answer.len() > HEADER, "{}", error);
            }
        }
        for limit in [0, 11, 12, 100, 512] {
            let _ = relay(&packet, packet.clone(), limit);
            let mut answer = packet.clone();
            if let Some(byte) = answer.get_mut(2) {
                *byte |= 0x80;
            }
            if let Some(cut) = relay(&packet, answer, limit) {
                prop_assert!(cut.len() <= limit.max(packet.len().min(271)));
            }
        }
    }

    /// One changed byte in a good query or answer.
    #[test]
    fn mutations_do_not_panic(position in 0_usize..60, value in any::<u8>(), cut in 0_usize..80) {
        let mut packet = with_edns(message("web", RecordType::A), 1232, 0);
        let index = position % packet.len();
        packet[index] = value;
        packet.truncate(cut);
        let _ = respond(&packet, false, &mut lookup);
        let good = with_edns(message("many", RecordType::A), 4096, 0);
        let mut answer = respond(&good, false, &mut lookup).unwrap();
        answer[position] = value;
        for limit in [12, 40, 512, 4096] {
            let _ = relay(&good, answer.clone(), limit);
        }
    }
}
