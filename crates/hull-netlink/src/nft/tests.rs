//! What is written against what `nft` writes for the same words, in network namespaces of the test's own.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use super::*;
use crate::Error;
use crate::tests::in_new_namespace;
use hull_testkit::tier;

/// Runs `nft` in the calling thread's namespace.
fn nft(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "nft {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

const WORDS: &str = r#"
table inet t {
  map ports4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; elements = { 10.0.0.9 . 6 . 80 : 172.16.0.2 . 8080 } }
  map any6 { type inet_proto . inet_service : ipv6_addr . inet_service; elements = { 17 . 53 : fd00::2 . 5353 } }
  map ranges4 { type inet_proto . inet_service : ipv4_addr; flags interval; elements = { 6 . 8000-8199 : 172.16.0.2, 17 . 53 : 172.16.0.3 } }
  set open_ranges4 { type ipv4_addr . inet_proto . inet_service; flags interval; elements = { 172.16.0.2 . 6 . 8000-8199 } }
  set bridges { type ifname; elements = { "br0", "br1" } }
  set nets4 { type ipv4_addr; flags interval; elements = { 172.16.0.0/20, 255.255.255.0/24 } }
  set nets6 { type ipv6_addr; flags interval; elements = { fd00:1::/64 } }
  map to { type ifname : verdict; elements = { "br0" : jump in-br0, "br1" : drop } }
  map direct { type ipv4_addr : verdict; flags interval; elements = { 172.16.0.0/20 : goto in-br0 } }
  chain user { }
  chain in-br0 {
    iifname "br0" accept comment "own bridge"
    meta nfproto ipv4 ip daddr . meta l4proto . th dport @ports_open accept
    counter drop
  }
  set ports_open { type ipv4_addr . inet_proto . inet_service; }
  chain raw { type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip daddr 127.0.0.0/8 drop
    ip daddr vmap @direct
    ip6 saddr @nets6 return
  }
  chain pre { type nat hook prerouting priority -100; policy accept;
    fib daddr type local meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @ports4
    meta nfproto ipv4 dnat ip to meta l4proto . th dport map @ranges4
    meta nfproto ipv6 ip6 daddr != fe80::/10 dnat ip6 to meta l4proto . th dport map @any6
    meta l4proto udp oifname != "br0" dnat ip to 127.0.0.1:53
  }
  chain fw { type filter hook forward priority 0; policy drop;
    jump user
    ct state established,related accept
    oifname vmap @to
    iifname "hull*" oifname != @bridges accept
  }
  chain out { type filter hook output priority 300; policy accept;
    ip saddr 127.0.0.11 udp sport 4053 udp sport set 53
    ip daddr 127.0.0.11 tcp dport 53 tcp dport set 4053
  }
  chain post { type nat hook postrouting priority 100; policy accept;
    ip saddr @nets4 oifname != @bridges masquerade
    ct status dnat fib saddr type local masquerade
    snat ip6 to fd00::1
  }
}
"#;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A range, and a port of its own, which a set of ranges takes as well.
fn ports_in_a_row() -> [Element; 2] {
    [
        Element::endpoints(None, 6, 8000, 8199).to_address(ip("172.16.0.2")),
        Element::endpoints(None, 17, 53, 53).to_address(ip("172.16.0.3")),
    ]
}

fn batch() -> Batch {
    use Expression::*;
    use Field::*;
    let v4 = || Expression::family(Family::Ip);
    let v6 = || Expression::family(Family::Ip6);
    let base = |kind, hook, priority, drop| Some(Base { kind, hook, priority, drop });
    let endpoint = |name, key: &[Type], value| Set { name, key: key.to_vec(), value, interval: false };
    let mut batch = Batch::new(Family::Inet, "t");
    batch.add_table();
    let key4 = [Type::Ipv4, Type::Protocol, Type::Port];
    batch.add_set(&endpoint("ports4", &key4, Value::Data(vec![Type::Ipv4, Type::Port])));
    batch.add_set(&endpoint("any6", &[Type::Protocol, Type::Port], Value::Data(vec![Type::Ipv6, Type::Port])));
    let ranges = |name, key: &[Type], value| Set { name, key: key.to_vec(), value, interval: true };
    let target = Value::Data(vec![Type::Ipv4]);
    batch.add_set(&ranges("ranges4", &[Type::Protocol, Type::Port], target));
    batch.add_set(&ranges("open_ranges4", &key4, Value::None));
    batch.add_set(&endpoint("bridges", &[Type::Interface], Value::None));
    batch.add_set(&Set { name: "nets4", key: vec![Type::Ipv4], value: Value::None, interval: true });
    batch.add_set(&Set { name: "nets6", key: vec![Type::Ipv6], value: Value::None, interval: true });
    batch.add_set(&endpoint("to", &[Type::Interface], Value::Verdict));
    batch.add_set(&Set { name: "direct", key: vec![Type::Ipv4], value: Value::Verdict, interval: true });
    batch.add_set(&endpoint("ports_open", &key4, Value::None));
    for name in ["user", "in-br0"] {
        batch.add_chain(name, None);
    }
    batch.add_chain("raw", base(ChainKind::Filter, Hook::Prerouting, -300, false));
    batch.add_chain("pre", base(ChainKind::Nat, Hook::Prerouting, -100, false));
    batch.add_chain("fw", base(ChainKind::Filter, Hook::Forward, 0, true));
    batch.add_chain("out", base(ChainKind::Filter, Hook::Output, 300, false));
    batch.add_chain("post", base(ChainKind::Nat, Hook::Postrouting, 100, false));
    batch.add_elements("ports4", &[Element::endpoint(Some(ip("10.0.0.9")), 6, 80).to_endpoint(ip("172.16.0.2"), 8080)]);
    batch.add_elements("any6", &[Element::endpoint(None, 17, 53).to_endpoint(ip("fd00::2"), 5353)]);
    batch.add_elements("ranges4", &ports_in_a_row());
    batch.add_elements("open_ranges4", &[Element::endpoints(Some(ip("172.16.0.2")), 6, 8000, 8199)]);
    batch.add_elements("bridges", &[Element::interface("br0"), Element::interface("br1")]);
    batch.add_elements("nets4", &[Element::network(ip("172.16.3.7"), 20), Element::network(ip("255.255.255.0"), 24)]);
    batch.add_elements("nets6", &[Element::network(ip("fd00:1::5"), 64)]);
    batch.add_elements(
        "to",
        &[
            Element::interface("br0").to_verdict(super::Verdict::Jump("in-br0".into())),
            Element::interface("br1").to_verdict(super::Verdict::Drop),
        ],
    );
    batch.add_elements(
        "direct",
        &[Element::network(ip("172.16.0.0"), 20).to_verdict(super::Verdict::Goto("in-br0".into()))],
    );
    let iif = Meta(MetaKey::IifName);
    let oif = Meta(MetaKey::OifName);
    let mut rule = |chain: &str, comment: &str, steps: &[Expression]| {
        batch.add_rule(chain, Place::Last, comment, steps);
    };
    let accept = || Verdict(super::Verdict::Accept);
    let dropped = || Verdict(super::Verdict::Drop);
    rule("in-br0", "own bridge", &[Expression::interface(MetaKey::IifName, false, "br0"), accept()]);
    let fields = vec![DestinationV4, Meta(MetaKey::L4Proto), DestinationPort];
    rule("in-br0", "", &[v4(), InSet { fields: fields.clone(), set: "ports_open".into(), not: false }, accept()]);
    rule("in-br0", "", &[Counter, dropped()]);
    let loopback = Prefix { field: DestinationV4, not: false, value: vec![127, 0, 0, 0], bits: 8 };
    rule("raw", "", &[InSet { fields: vec![iif], set: "bridges".into(), not: false }, v4(), loopback, dropped()]);
    rule("raw", "", &[v4(), VerdictOf { fields: vec![DestinationV4], map: "direct".into() }]);
    rule(
        "raw",
        "",
        &[v6(), InSet { fields: vec![SourceV6], set: "nets6".into(), not: false }, Verdict(super::Verdict::Return)],
    );
    let local = |field| Compare { field, not: false, value: 2_u32.to_ne_bytes().to_vec() };
    let nat = |family, fields: Vec<Field>, map: &str| NatOf {
        kind: NatKind::Destination,
        family,
        fields,
        map: map.into(),
        port: true,
    };
    rule("pre", "", &[local(DestinationType), v4(), nat(Family::Ip, fields, "ports4")]);
    let mut link_local = vec![0; 16];
    link_local[..2].copy_from_slice(&[0xfe, 0x80]);
    let not_link_local = Prefix { field: DestinationV6, not: true, value: link_local, bits: 10 };
    let found = NatOf {
        kind: NatKind::Destination,
        family: Family::Ip,
        fields: vec![Meta(MetaKey::L4Proto), DestinationPort],
        map: "ranges4".into(),
        port: false,
    };
    rule("pre", "", &[v4(), found]);
    rule("pre", "", &[v6(), not_link_local, nat(Family::Ip6, vec![Meta(MetaKey::L4Proto), DestinationPort], "any6")]);
    rule(
        "pre",
        "",
        &[
            Compare { field: Meta(MetaKey::L4Proto), not: false, value: vec![17] },
            Expression::interface(MetaKey::OifName, true, "br0"),
            Nat { kind: NatKind::Destination, address: vec![127, 0, 0, 1], port: Some(53) },
        ],
    );
    rule("fw", "", &[Verdict(super::Verdict::Jump("user".into()))]);
    rule("fw", "", &[AnyBit { field: CtState, mask: 6 }, accept()]);
    rule("fw", "", &[VerdictOf { fields: vec![oif], map: "to".into() }]);
    let not_bridges = || InSet { fields: vec![oif], set: "bridges".into(), not: true };
    rule("fw", "", &[Expression::interface_prefix(MetaKey::IifName, "hull"), not_bridges(), accept()]);
    rule(
        "post",
        "",
        &[v4(), InSet { fields: vec![SourceV4], set: "nets4".into(), not: false }, not_bridges(), Masquerade],
    );
    let is = |field, value: &[u8]| Compare { field, not: false, value: value.to_vec() };
    for (protocol, which, address, field, from, port) in [
        (PortProtocol::Udp, NatKind::Source, SourceV4, SourcePort, 4053_u16, 53),
        (PortProtocol::Tcp, NatKind::Destination, DestinationV4, DestinationPort, 53, 4053),
    ] {
        let steps = [
            v4(),
            is(address, &[127, 0, 0, 11]),
            is(Meta(MetaKey::L4Proto), &[protocol as u8]),
            is(field, &from.to_be_bytes()),
            WritePort { protocol, which, port },
        ];
        rule("out", "", &steps);
    }
    rule("post", "", &[AnyBit { field: CtStatus, mask: 32 }, local(SourceType), Masquerade]);
    let address = match ip("fd00::1") {
        IpAddr::V6(address) => address.octets().to_vec(),
        IpAddr::V4(_) => unreachable!(),
    };
    rule("post", "", &[Nat { kind: NatKind::Source, address, port: None }]);
    batch
}

/// Blocks in the order of their first lines: sets and chains are listed as they were made.
fn sorted(listing: &str) -> Vec<String> {
    let mut blocks: Vec<String> = listing.split("\n\n").map(|block| block.trim().to_owned()).collect();
    let first = blocks[0].clone();
    blocks[0] = first.split_once('\n').map_or(first.clone(), |(_, rest)| rest.trim().to_owned());
    let last = blocks.last_mut().unwrap();
    *last = last.trim_end_matches('}').trim().trim_end_matches('}').trim().to_owned() + "\n\t}";
    for block in &mut blocks {
        *block = block.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    }
    blocks.sort();
    blocks
}

#[test]
fn root_what_is_written_is_what_nft_writes() {
    if !tier::root() || tier::tool("nft").is_none() {
        return;
    }
    in_new_namespace(|| {
        nft(&["-f", "-"], WORDS);
        let words = sorted(&nft(&["-nn", "list", "table", "inet", "t"], ""));
        nft(&["delete", "table", "inet", "t"], "");
        let mut socket = Socket::open().unwrap();
        socket.commit(batch()).unwrap();
        let ours = sorted(&nft(&["-nn", "list", "table", "inet", "t"], ""));
        assert_eq!(ours.len(), words.len());
        for (ours, words) in ours.iter().zip(&words) {
            assert_eq!(ours, words);
        }
    });
}

#[test]
fn root_a_transaction_is_whole_or_nothing() {
    if !tier::root() {
        return;
    }
    in_new_namespace(|| {
        let mut socket = Socket::open().unwrap();
        let mut start = batch();
        start.delete_chain("nowhere");
        let refused = socket.commit(start).unwrap_err();
        let Error::Refused { operation, object, errno, .. } = &refused else { panic!("{refused}") };
        assert_eq!((*operation, object.as_str(), *errno), ("delete chain", "t nowhere", rustix::io::Errno::NOENT));
        assert!(!socket.has_table(Family::Inet, "t").unwrap());
        let before = socket.generation().unwrap();
        socket.commit(batch()).unwrap();
        assert!(socket.generation().unwrap() > before);
        assert!(socket.has_table(Family::Inet, "t").unwrap());

        // What was written is read back.
        let chains = socket.chains().unwrap();
        let forward = chains.iter().find(|chain| chain.name == "fw").unwrap();
        let base = Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: 0, drop: true };
        assert_eq!((forward.family, forward.table.as_str(), forward.base), (Family::Inet, "t", Some(base)));
        let rules = socket.rules(Family::Inet, "t", Some("in-br0")).unwrap();
        assert_eq!(rules.len(), 3);
        assert_eq!(rules[0].comment, "own bridge");
        assert_eq!(rules[2].expressions, ["counter", "immediate"]);
        let bridges = socket.elements(Family::Inet, "t", "bridges").unwrap();
        assert_eq!(bridges.len(), 2);
        assert!(bridges.iter().any(|element| element.same(&Element::interface("br1"))));
        let ports = socket.elements(Family::Inet, "t", "ports4").unwrap();
        let port = Element::endpoint(Some(ip("10.0.0.9")), 6, 80).to_endpoint(ip("172.16.0.2"), 8080);
        assert!(ports.len() == 1 && ports[0].same(&port), "{ports:?}");
        assert_eq!(socket.elements(Family::Inet, "t", "nets4").unwrap().len(), 2);

        let ranges = socket.elements(Family::Inet, "t", "ranges4").unwrap();
        let [range, _] = ports_in_a_row();
        assert!(ranges.len() == 2 && ranges.iter().any(|one| one.same(&range)), "{ranges:?}");
        let single = Element::endpoint(None, 17, 53).to_address(ip("172.16.0.3"));
        assert!(ranges.iter().any(|one| one.same(&single)), "{ranges:?} {single:?}");
        let shorter = Element::endpoints(None, 6, 8000, 8198).to_address(ip("172.16.0.2"));
        assert!(!ranges.iter().any(|one| one.same(&shorter)), "{ranges:?}");

        // A rule before another, and one removed by its handle.
        let mut change = Batch::new(Family::Inet, "t");
        change.add_rule("in-br0", Place::Before(rules[2].handle), "third", &[Expression::Counter]);
        change.delete_rule("in-br0", rules[0].handle);
        socket.commit(change).unwrap();
        let comments: Vec<String> =
            socket.rules(Family::Inet, "t", Some("in-br0")).unwrap().into_iter().map(|rule| rule.comment).collect();
        assert_eq!(comments, ["", "third", ""]);

        // Elements that are there, and that are not.
        let refusal = |socket: &mut Socket, change: &dyn Fn(&mut Batch)| {
            let mut batch = Batch::new(Family::Inet, "t");
            change(&mut batch);
            match socket.commit(batch) {
                Err(Error::Refused { errno, .. }) => Some(errno),
                other => {
                    other.unwrap();
                    None
                }
            }
        };
        let again = std::slice::from_ref(&port);
        assert_eq!(refusal(&mut socket, &|batch| batch.add_elements("ports4", again)), None);
        let exists = Some(rustix::io::Errno::EXIST);
        assert_eq!(refusal(&mut socket, &|batch| batch.add_new_elements("ports4", again)), exists);
        assert_eq!(refusal(&mut socket, &|batch| batch.delete_elements("ports4", again)), None);
        let missing = Some(rustix::io::Errno::NOENT);
        assert_eq!(refusal(&mut socket, &|batch| batch.delete_elements("ports4", again)), missing);
    });
}

#[test]
fn root_thousands_of_elements_fit_one_transaction() {
    if !tier::root() {
        return;
    }
    in_new_namespace(|| {
        let mut socket = Socket::open().unwrap();
        socket.commit(batch()).unwrap();
        let elements: Vec<Element> = (1..=20_000_u16)
            .map(|port| Element::endpoint(Some(ip("10.0.0.1")), 6, port).to_endpoint(ip("172.16.0.2"), port))
            .collect();
        let mut large = Batch::new(Family::Inet, "t");
        large.add_new_elements("ports4", &elements);
        socket.commit(large).unwrap();
        assert_eq!(socket.elements(Family::Inet, "t", "ports4").unwrap().len(), 20_001);
    });
}

#[test]
fn root_removals_are_noticed_and_containers_are_not() {
    if !tier::root() {
        return;
    }
    in_new_namespace(|| {
        let mut socket = Socket::open().unwrap();
        socket.commit(batch()).unwrap();
        let mut watch = Watch::open().unwrap();
        assert!(!watch.drain().unwrap());
        let element = [Element::interface("br7")];
        let mut change = Batch::new(Family::Inet, "t");
        change.add_elements("bridges", &element);
        socket.commit(change).unwrap();
        let mut change = Batch::new(Family::Inet, "t");
        change.delete_elements("bridges", &element);
        change.add_rule("user", Place::Last, "", &[Expression::Counter]);
        socket.commit(change).unwrap();
        assert!(!watch.drain().unwrap());
        let mut change = Batch::new(Family::Inet, "t");
        change.flush_chain("raw");
        socket.commit(change).unwrap();
        assert!(watch.drain().unwrap());
        assert!(!watch.drain().unwrap());
    });
}

#[test]
fn messages_that_are_cut_off_do_not_panic() {
    let request = crate::codec::Request::new(0, 0, 0, &[1, 0, 0, 0])
        .attribute_name(1, "t")
        .attribute_name(3, "c")
        .nested(4, |hook| hook.attribute_be32(1, 2).attribute_be32(2, 0))
        .nested(3, |list| list.nested(1, |one| one.nested(1, |key| key.attribute(1, &[1; 8]))))
        .attribute(7, &[0, 200, b'x'])
        .finish();
    let payload = &request[crate::codec::HEADER..];
    for end in 0..=payload.len() {
        let _ = socket::parse_chain(&payload[..end]);
        let _ = socket::parse_rule(&payload[..end]);
        let _ = socket::parse_elements(&payload[..end], &mut Vec::new());
    }
}
