//! What is in the table `inet hull`: its sets, its chains, and a few rules for each network.
//!
//! ```text
//! hook prerouting, raw   127.0.0.0/8 from bridges, loopback ports from outside    drop
//!                        containers' own addresses -> direct-BRIDGE                drop unless from the bridge itself
//! hook prerouting, dnat  addresses of the machine -> ports: maps to containers, ranges of ports
//! hook output, dnat      the same for the machine's own connections
//! hook forward           hull-user, established, then by bridge:
//!                        to -> in-BRIDGE: own containers, open ports, else drop
//!                        from -> out-BRIDGE: internal networks, drop
//! hook postrouting       containers' addresses hidden behind the machine's
//! ```
//!
//! A container costs elements of maps, never a rule. No chain has a drop policy. `hull-user` is the user's: made empty,
//! never touched again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hull_netlink::nft::{
    Base, ChainKind, Element, Expression, Family, Field, Hook, MetaKey, NatKind, Set, Type, Value, Verdict,
};

use crate::Error;
use crate::options::GatewayMode;
use crate::record::{Network, Published};

/// The table, in the family of both IP versions.
pub(crate) const TABLE: &str = "hull";
/// The user's chain.
pub(crate) const USER: &str = "hull-user";
/// How the names of Hull's bridges begin, where the user has not chosen one.
pub(crate) const PREFIX: &str = "hull";

/// Sets of devices and networks, which come from the networks' records.
const BRIDGES: &str = "bridges";
pub(crate) const UPLINKS: [&str; 2] = ["uplinks4", "uplinks6"];

/// A rule: its chain, its comment, what it does.
pub(crate) type Rule = (String, &'static str, Vec<Expression>);

/// 4 or 6, for names of sets.
fn family_of(ipv4: bool) -> (char, Family) {
    if ipv4 { ('4', Family::Ip) } else { ('6', Family::Ip6) }
}

fn named(names: [&'static str; 2], ipv4: bool) -> &'static str {
    names[usize::from(!ipv4)]
}

const MASQUERADED: [&str; 2] = ["masquerade4", "masquerade6"];
const DIRECT: [&str; 2] = ["direct4", "direct6"];
/// Published ports by protocol and port.
const PORTS: [&str; 2] = ["ports4", "ports6"];
/// Published ports by address, protocol and port.
const ADDRESS_PORTS: [&str; 2] = ["address-ports4", "address-ports6"];
/// Containers' ports that others may use.
const OPEN: [&str; 2] = ["open4", "open6"];
/// Ranges of published ports that the container has under the same numbers: the container's address by protocol and port.
const PORT_RANGES: [&str; 2] = ["port-ranges4", "port-ranges6"];
/// Ranges of containers' ports that others may use.
const OPEN_RANGES: [&str; 2] = ["open-ranges4", "open-ranges6"];
/// So many ports in a row are one element of a set of ranges. Such a set is copied with each change, so that it is not for
/// the many that publish a port or two.
const RANGE: usize = 16;
/// `::1`.
const IPV6_LOOPBACK: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Ports that are published at loopback addresses.
const LOOPBACK: &str = "loopback4";

/// All sets.
pub(crate) fn sets() -> Vec<Set> {
    let set = |name, key: &[Type], value, interval| Set { name, key: key.to_vec(), value, interval };
    let mut sets = vec![
        set(BRIDGES, &[Type::Interface], Value::None, false),
        set("to", &[Type::Interface], Value::Verdict, false),
        set("from", &[Type::Interface], Value::Verdict, false),
        set(LOOPBACK, &[Type::Ipv4, Type::Protocol, Type::Port], Value::None, false),
    ];
    for (ipv4, address) in [(true, Type::Ipv4), (false, Type::Ipv6)] {
        let endpoint = [address, Type::Protocol, Type::Port];
        let target = || Value::Data(vec![address, Type::Port]);
        sets.push(set(named(UPLINKS, ipv4), &[Type::Interface], Value::None, false));
        sets.push(set(named(MASQUERADED, ipv4), &[address], Value::None, true));
        sets.push(set(named(DIRECT, ipv4), &[address], Value::Verdict, true));
        sets.push(set(named(PORTS, ipv4), &[Type::Protocol, Type::Port], target(), false));
        sets.push(set(named(ADDRESS_PORTS, ipv4), &endpoint, target(), false));
        sets.push(set(named(OPEN, ipv4), &endpoint, Value::None, false));
        let target = Value::Data(vec![address]);
        sets.push(set(named(PORT_RANGES, ipv4), &[Type::Protocol, Type::Port], target, true));
        sets.push(set(named(OPEN_RANGES, ipv4), &endpoint, Value::None, true));
    }
    sets
}

/// All chains that are not a network's.
pub(crate) fn chains() -> Vec<(&'static str, Option<Base>)> {
    let base = |kind, hook, priority| Some(Base { kind, hook, priority, drop: false });
    vec![
        (USER, None),
        ("ports", None),
        ("raw", base(ChainKind::Filter, Hook::Prerouting, -300)),
        ("prerouting", base(ChainKind::Nat, Hook::Prerouting, -100)),
        ("output", base(ChainKind::Nat, Hook::Output, -100)),
        ("forward", base(ChainKind::Filter, Hook::Forward, 0)),
        ("postrouting", base(ChainKind::Nat, Hook::Postrouting, 100)),
    ]
}

fn accept() -> Expression {
    Expression::Verdict(Verdict::Accept)
}

fn drop_counted() -> [Expression; 2] {
    [Expression::Counter, Expression::Verdict(Verdict::Drop)]
}

fn in_set(fields: &[Field], set: &str) -> Expression {
    Expression::InSet { fields: fields.to_vec(), set: set.to_owned(), not: false }
}

fn not_in_set(fields: &[Field], set: &str) -> Expression {
    Expression::InSet { fields: fields.to_vec(), set: set.to_owned(), not: true }
}

const IIF: Field = Field::Meta(MetaKey::IifName);
const OIF: Field = Field::Meta(MetaKey::OifName);
const PROTOCOL: Field = Field::Meta(MetaKey::L4Proto);

fn source(ipv4: bool) -> Field {
    if ipv4 { Field::SourceV4 } else { Field::SourceV6 }
}

fn destination(ipv4: bool) -> Field {
    if ipv4 { Field::DestinationV4 } else { Field::DestinationV6 }
}

/// The destination's address, protocol and port.
fn endpoint(ipv4: bool) -> [Field; 3] {
    [destination(ipv4), PROTOCOL, Field::DestinationPort]
}

/// Rules that are not a network's, chain by chain in order.
pub(crate) fn rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut rule = |chain: &str, comment, steps: Vec<Expression>| rules.push((chain.to_owned(), comment, steps));
    let loopback =
        || Expression::Prefix { field: Field::DestinationV4, not: false, value: vec![127, 0, 0, 0], bits: 8 };
    let v4 = || Expression::family(Family::Ip);
    let [count, drop] = drop_counted();

    rule(
        "raw",
        "containers do not reach the machine's loopback",
        vec![in_set(&[IIF], BRIDGES), v4(), loopback(), count.clone(), drop.clone()],
    );
    rule(
        "raw",
        "ports published at loopback addresses are the machine's",
        vec![
            Expression::interface(MetaKey::IifName, true, "lo"),
            v4(),
            in_set(&endpoint(true), LOOPBACK),
            count.clone(),
            drop.clone(),
        ],
    );
    for ipv4 in [true, false] {
        rule(
            "raw",
            "containers' own addresses",
            vec![
                Expression::family(family_of(ipv4).1),
                Expression::VerdictOf { fields: vec![destination(ipv4)], map: named(DIRECT, ipv4).to_owned() },
            ],
        );
    }

    let own = || Expression::Compare {
        field: Field::DestinationType,
        not: false,
        // RTN_LOCAL
        value: 2_u32.to_ne_bytes().to_vec(),
    };
    for hook in ["prerouting", "output"] {
        rule(hook, "published ports", vec![own(), Expression::Verdict(Verdict::Jump("ports".to_owned()))]);
    }
    let mut link_local = vec![0; 16];
    link_local[..2].copy_from_slice(&[0xfe, 0x80]);
    for ipv4 in [true, false] {
        let family = family_of(ipv4).1;
        let nat = |fields: &[Field], map: &str, port| {
            let mut steps = vec![Expression::family(family)];
            if !ipv4 {
                let value = link_local.clone();
                steps.push(Expression::Prefix { field: Field::DestinationV6, not: true, value, bits: 10 });
                // What leaves from ::1 never comes anywhere else: it is for the sockets that keep the ports.
                let value = IPV6_LOOPBACK.to_vec();
                steps.push(Expression::Compare { field: Field::DestinationV6, not: true, value });
            }
            let (fields, map) = (fields.to_vec(), map.to_owned());
            steps.push(Expression::NatOf { kind: NatKind::Destination, family, fields, map, port });
            steps
        };
        let port = [PROTOCOL, Field::DestinationPort];
        rule("ports", "at one address", nat(&endpoint(ipv4), named(ADDRESS_PORTS, ipv4), true));
        rule("ports", "at every address", nat(&port, named(PORTS, ipv4), true));
        rule("ports", "ranges at every address", nat(&port, named(PORT_RANGES, ipv4), false));
    }

    rule("forward", "yours to fill", vec![Expression::Verdict(Verdict::Jump(USER.to_owned()))]);
    // established, related
    rule(
        "forward",
        "connections that were let through",
        vec![Expression::AnyBit { field: Field::CtState, mask: 2 | 4 }, accept()],
    );
    rule("forward", "to containers", vec![Expression::VerdictOf { fields: vec![OIF], map: "to".to_owned() }]);
    rule(
        "forward",
        "from internal networks",
        vec![Expression::VerdictOf { fields: vec![IIF], map: "from".to_owned() }],
    );
    for ipv4 in [true, false] {
        let foreign = |steps: [Expression; 2]| {
            let from = vec![
                Expression::family(family_of(ipv4).1),
                in_set(&[IIF], named(UPLINKS, ipv4)),
                not_in_set(&[OIF], BRIDGES),
            ];
            from.into_iter().chain(steps).collect()
        };
        // IPS_DST_NAT.
        let translated = Expression::AnyBit { field: Field::CtStatus, mask: 0x20 };
        rule("forward", "published ports of others", foreign([translated, Expression::Verdict(Verdict::Return)]));
        rule("forward", "forwarding was switched on for containers only", foreign([count.clone(), drop.clone()]));
    }

    for ipv4 in [true, false] {
        let family = || Expression::family(family_of(ipv4).1);
        let from = || in_set(&[source(ipv4)], named(MASQUERADED, ipv4));
        rule(
            "postrouting",
            "to the outside",
            vec![family(), from(), not_in_set(&[OIF], BRIDGES), Expression::Masquerade],
        );
        // IPS_DST_NAT: to a published port, also one's own.
        rule(
            "postrouting",
            "to published ports of others",
            vec![family(), from(), Expression::AnyBit { field: Field::CtStatus, mask: 0x20 }, Expression::Masquerade],
        );
    }
    rule(
        "postrouting",
        "from the machine's loopback",
        vec![
            v4(),
            Expression::Prefix { field: Field::SourceV4, not: false, value: vec![127, 0, 0, 0], bits: 8 },
            in_set(&[OIF], BRIDGES),
            Expression::Masquerade,
        ],
    );
    rules
}

/// What one network adds: chains, rules in them, elements of sets.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) chains: Vec<String>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) elements: Vec<(&'static str, Element)>,
}

/// The part of a bridge network. `bridges` is how many bridges it has.
pub(crate) fn part(network: &Network, bridges: u32) -> Result<Part, Error> {
    let options = network.settings()?;
    let device = network.device.as_str();
    let (into, out, direct) = (format!("in-{device}"), format!("out-{device}"), format!("direct-{device}"));
    let names: Vec<String> = (0..bridges.max(1)).map(|index| bridge_name(device, index)).collect();
    let mut part = Part { chains: vec![into.clone(), direct.clone()], ..Part::default() };
    let [count, drop] = drop_counted();
    let own = |key| Expression::interface(key, false, device);
    // Further bridges of the network; only bridged packets, which br_netfilter shows, come by these.
    let joined = |key| Expression::interface_prefix(key, &format!("{device}-"));
    {
        let mut rule =
            |chain: &str, comment, steps: Vec<Expression>| part.rules.push((chain.to_owned(), comment, steps));
        let back = || Expression::Verdict(Verdict::Return);
        rule(&direct, "the network itself", vec![own(MetaKey::IifName), back()]);
        rule(&direct, "the network's further bridges", vec![joined(MetaKey::IifName), back()]);
        for trusted in &options.trusted {
            let from = Expression::interface(MetaKey::IifName, false, trusted);
            rule(&direct, "a trusted device", vec![from, back()]);
        }
        rule(&direct, "not for others", vec![count.clone(), drop.clone()]);
        if options.inter_container || network.internal {
            rule(&into, "the network itself", vec![own(MetaKey::IifName), accept()]);
        }
        if network.internal {
            rule(&out, "the network itself", vec![own(MetaKey::OifName), back()]);
            rule(&out, "no way out", vec![count.clone(), drop.clone()]);
        } else {
            for ipv4 in [true, false] {
                let family = || Expression::family(family_of(ipv4).1);
                match options.gateway(ipv4) {
                    GatewayMode::NatUnprotected => {
                        // Without the rule above the network's own containers are not let through.
                        let own = own(MetaKey::IifName);
                        rule(&into, "the network itself, closed", vec![family(), own, count.clone(), drop.clone()]);
                        rule(&into, "unprotected", vec![family(), accept()]);
                    }
                    GatewayMode::Routed => {
                        // IPPROTO_ICMP, IPPROTO_ICMPV6
                        let icmp = vec![if ipv4 { 1 } else { 58 }];
                        let icmp = Expression::Compare { field: PROTOCOL, not: false, value: icmp };
                        rule(&into, "routed: errors and echoes", vec![family(), icmp, accept()]);
                    }
                    GatewayMode::Nat | GatewayMode::Isolated => {}
                }
                rule(&into, "published ports", vec![family(), in_set(&endpoint(ipv4), named(OPEN, ipv4)), accept()]);
                let ranges = in_set(&endpoint(ipv4), named(OPEN_RANGES, ipv4));
                rule(&into, "published ranges", vec![family(), ranges, accept()]);
            }
        }
        rule(&into, "nothing else", vec![count, drop]);
    }
    for name in &names {
        part.elements.push((BRIDGES, Element::interface(name)));
    }
    part.elements.push(("to", Element::interface(device).to_verdict(Verdict::Jump(into))));
    if network.internal {
        part.chains.push(out.clone());
        part.elements.push(("from", Element::interface(device).to_verdict(Verdict::Jump(out))));
    }
    for pool in &network.pools {
        let ipv4 = pool.subnet.is_ipv4();
        let subnet = || Element::network(pool.subnet.address(), pool.subnet.prefix());
        let mode = options.gateway(ipv4);
        if network.internal || matches!(mode, GatewayMode::Nat | GatewayMode::Isolated) {
            let verdict = Verdict::Jump(direct.clone());
            part.elements.push((named(DIRECT, ipv4), subnet().to_verdict(verdict)));
        }
        if options.masquerade && !network.internal && matches!(mode, GatewayMode::Nat | GatewayMode::NatUnprotected) {
            part.elements.push((named(MASQUERADED, ipv4), subnet()));
        }
    }
    Ok(part)
}

/// Name of the network's bridge of this number, from 0.
pub(crate) fn bridge_name(device: &str, index: u32) -> String {
    if index == 0 { device.to_owned() } else { format!("{device}-{}", index + 1) }
}

/// Ports that follow one another, of those that have everything else in common.
struct Run {
    first: u16,
    last: u16,
}

impl Run {
    fn len(&self) -> usize {
        usize::from(self.last - self.first) + 1
    }
}

fn runs(mut ports: Vec<u16>) -> impl Iterator<Item = Run> {
    ports.sort_unstable();
    ports.dedup();
    let runs: Vec<Run> = ports
        .chunk_by(|a, b| a.checked_add(1) == Some(*b))
        .filter_map(|run| Some(Run { first: *run.first()?, last: *run.last()? }))
        .collect();
    runs.into_iter()
}

/// The elements of published ports of a network's containers.
pub(crate) fn ports(network: &Network, published: &[Published]) -> Result<Vec<(&'static str, Element)>, Error> {
    let options = network.settings()?;
    let mut elements = Vec::new();
    if options.proxy || network.internal {
        return Ok(elements);
    }
    let mut open: BTreeMap<(IpAddr, u8), Vec<u16>> = BTreeMap::new();
    let mut same: BTreeMap<(IpAddr, u8), Vec<u16>> = BTreeMap::new();
    for one in published {
        let ipv4 = one.address.is_ipv4();
        let protocol = one.protocol.number();
        open.entry((one.address, protocol)).or_default().push(one.port);
        // Between the versions of IP, and at IPv6's loopback, only the proxy leads.
        if options.gateway(ipv4) == GatewayMode::Routed
            || one.host.is_ipv4() != ipv4
            || (one.host.is_loopback() && !ipv4)
        {
            continue;
        }
        let host = (!one.host.is_unspecified()).then_some(one.host);
        if host.is_none() && one.host_port == one.port {
            same.entry((one.address, protocol)).or_default().push(one.port);
            continue;
        }
        let set = named(if host.is_some() { ADDRESS_PORTS } else { PORTS }, ipv4);
        elements.push((set, Element::endpoint(host, protocol, one.host_port).to_endpoint(one.address, one.port)));
        if one.host.is_loopback() {
            elements.push((LOOPBACK, Element::endpoint(host, protocol, one.host_port)));
        }
    }
    for ((address, protocol), ports) in open {
        let (single, range) = (named(OPEN, address.is_ipv4()), named(OPEN_RANGES, address.is_ipv4()));
        for run in runs(ports) {
            if run.len() >= RANGE {
                elements.push((range, Element::endpoints(Some(address), protocol, run.first, run.last)));
            } else {
                let ports = run.first..=run.last;
                elements.extend(ports.map(|port| (single, Element::endpoint(Some(address), protocol, port))));
            }
        }
    }
    for ((address, protocol), ports) in same {
        let (single, range) = (named(PORTS, address.is_ipv4()), named(PORT_RANGES, address.is_ipv4()));
        for run in runs(ports) {
            if run.len() >= RANGE {
                elements.push((range, Element::endpoints(None, protocol, run.first, run.last).to_address(address)));
            } else {
                let to = |port| (single, Element::endpoint(None, protocol, port).to_endpoint(address, port));
                elements.extend((run.first..=run.last).map(to));
            }
        }
    }
    // Several ports of the machine may lead to one of the container.
    elements.sort_by(|a, b| (a.0, a.1.key()).cmp(&(b.0, b.1.key())));
    elements.dedup_by(|a, b| a.0 == b.0 && a.1.key() == b.1.key());
    Ok(elements)
}

/// Whether the ports are so many that some are in a set of ranges, where the kernel does not see that another container's
/// single port is among them.
pub(crate) fn has_ranges(published: &[Published]) -> bool {
    published.len() >= RANGE
}
