//! What rules are made of.

use super::Family;
use crate::codec::Request;

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;
/// `NFT_REG_1`, 16 bytes from the start.
const FIRST_REGISTER: u32 = 1;
/// `NFT_REG32_00`, the first 4 bytes of `NFT_REG_1`.
const FIRST_WORD: u32 = 8;

/// `NFT_PAYLOAD_TRANSPORT_HEADER`.
const PAYLOAD_TRANSPORT: u32 = 2;
/// `NFT_PAYLOAD_CSUM_INET`.
const CHECKSUM_INTERNET: u32 = 1;

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to the next chain of the hook.
    Accept,
    /// It is gone.
    Drop,
    /// Another chain is asked, then the next rule.
    Jump(String),
    /// Another chain is asked, then the chain's caller goes on.
    Goto(String),
    /// The chain's caller goes on.
    Return,
}

/// Facts about a packet that are not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MetaKey {
    /// Name of the device that it came by, 16 bytes.
    IifName = 6,
    /// Name of the device that it leaves by, 16 bytes.
    OifName = 7,
    /// `NFPROTO_*`, 1 byte.
    NfProto = 15,
    /// Transport protocol, 1 byte.
    L4Proto = 16,
}

/// A part of a packet that is compared or looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `meta`.
    Meta(MetaKey),
    /// Source address, IPv4.
    SourceV4,
    /// Destination address, IPv4.
    DestinationV4,
    /// Source address, IPv6.
    SourceV6,
    /// Destination address, IPv6.
    DestinationV6,
    /// Destination port of any transport protocol.
    DestinationPort,
    /// Source port of any transport protocol.
    SourcePort,
    /// `ct state`, a mask in the machine's byte order.
    CtState,
    /// `ct status`, a mask in the machine's byte order.
    CtStatus,
    /// What kind of address the destination is: 2 for one of the machine's own.
    DestinationType,
    /// What kind of address the source is.
    SourceType,
}

impl Field {
    /// Bytes that it fills in registers.
    fn size(self) -> u32 {
        match self {
            Self::Meta(MetaKey::IifName | MetaKey::OifName) | Self::SourceV6 | Self::DestinationV6 => 16,
            _ => 4,
        }
    }
}

/// Which address is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// The source.
    Source = 0,
    /// The destination.
    Destination = 1,
}

/// Protocols whose ports can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PortProtocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// The rule goes on when the field has this value (or has not, when `not`). A shorter value is a prefix.
    Compare {
        /// Which.
        field: Field,
        /// Another value goes on.
        not: bool,
        /// In the packet's byte order; names of devices with their null bytes.
        value: Vec<u8>,
    },
    /// The rule goes on when the field has a bit of the mask.
    AnyBit {
        /// A mask field.
        field: Field,
        /// In the machine's byte order.
        mask: u32,
    },
    /// The rule goes on when the field begins with these bits (or does not, when `not`).
    Prefix {
        /// An address.
        field: Field,
        /// Another address goes on.
        not: bool,
        /// The network.
        value: Vec<u8>,
        /// Its length in bits.
        bits: u8,
    },
    /// The rule goes on when the fields are in a set (or are not, when `not`).
    InSet {
        /// The key's parts.
        fields: Vec<Field>,
        /// Name of the set.
        set: String,
        /// What is not in it goes on.
        not: bool,
    },
    /// The verdict that a map has for the fields.
    VerdictOf {
        /// The key's parts.
        fields: Vec<Field>,
        /// Name of the map.
        map: String,
    },
    /// Replaces address and port by what a map has for the fields; the rule ends when it has nothing.
    NatOf {
        /// Which address.
        kind: NatKind,
        /// Of the address: IPv4 or IPv6.
        family: Family,
        /// The key's parts.
        fields: Vec<Field>,
        /// Name of the map.
        map: String,
        /// Whether the map's values have a port behind the address.
        port: bool,
    },
    /// Replaces an address and port by constants.
    Nat {
        /// Which address.
        kind: NatKind,
        /// 4 or 16 bytes.
        address: Vec<u8>,
        /// Port; absent leaves it.
        port: Option<u16>,
    },
    /// Writes another port into the packet itself, without connection tracking. The packet's protocol must be known to
    /// be this one, because of its checksum.
    WritePort {
        /// The protocol.
        protocol: PortProtocol,
        /// Which port.
        which: NatKind,
        /// The new one.
        port: u16,
    },
    /// Replaces the source by an address of the device that the packet leaves by.
    Masquerade,
    /// Counts packets and bytes.
    Counter,
    /// The end of a rule.
    Verdict(Verdict),
}

/// The same name as `nft` writes it for a comparison.
pub(super) fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

impl Expression {
    /// `iifname "NAME"` or `oifname "NAME"`; not the others when `not`.
    #[must_use]
    pub fn interface(key: MetaKey, not: bool, name: &str) -> Self {
        Self::Compare { field: Field::Meta(key), not, value: interface(name) }
    }

    /// `iifname "PREFIX*"` or `oifname "PREFIX*"`.
    #[must_use]
    pub fn interface_prefix(key: MetaKey, prefix: &str) -> Self {
        Self::Compare { field: Field::Meta(key), not: false, value: prefix.as_bytes().to_vec() }
    }

    /// `meta nfproto`: packets of this family only.
    #[must_use]
    pub fn family(family: Family) -> Self {
        Self::Compare { field: Field::Meta(MetaKey::NfProto), not: false, value: vec![family as u8] }
    }
}

fn expression(request: Request, name: &str, data: impl FnOnce(Request) -> Request) -> Request {
    request.nested(NFTA_LIST_ELEM, |element| element.attribute_name(NFTA_EXPR_NAME, name).nested(NFTA_EXPR_DATA, data))
}

fn value(request: Request, kind: u16, value: &[u8]) -> Request {
    request.nested(kind, |data| data.attribute(NFTA_DATA_VALUE, value))
}

/// Loads a field into a register.
fn load(request: Request, field: Field, register: u32) -> Request {
    const PAYLOAD_NETWORK: u32 = 1;
    const FIB_ADDRESS_TYPE: u32 = 3;
    let payload = |request, base, offset, length| {
        expression(request, "payload", |data| {
            data.attribute_be32(1, register).attribute_be32(2, base).attribute_be32(3, offset).attribute_be32(4, length)
        })
    };
    let keyed =
        |request, name, key| expression(request, name, |data| data.attribute_be32(1, register).attribute_be32(2, key));
    let fib = |request, flags| {
        expression(request, "fib", |data| {
            data.attribute_be32(1, register).attribute_be32(2, FIB_ADDRESS_TYPE).attribute_be32(3, flags)
        })
    };
    match field {
        Field::Meta(key) => {
            expression(request, "meta", |data| data.attribute_be32(1, register).attribute_be32(2, key as u32))
        }
        Field::SourceV4 => payload(request, PAYLOAD_NETWORK, 12, 4),
        Field::DestinationV4 => payload(request, PAYLOAD_NETWORK, 16, 4),
        Field::SourceV6 => payload(request, PAYLOAD_NETWORK, 8, 16),
        Field::DestinationV6 => payload(request, PAYLOAD_NETWORK, 24, 16),
        Field::DestinationPort => payload(request, PAYLOAD_TRANSPORT, 2, 2),
        Field::SourcePort => payload(request, PAYLOAD_TRANSPORT, 0, 2),
        Field::CtState => keyed(request, "ct", 0),
        Field::CtStatus => keyed(request, "ct", 2),
        Field::SourceType => fib(request, 1),
        Field::DestinationType => fib(request, 2),
    }
}

/// Loads the parts of a key one behind the other.
fn load_key(mut request: Request, fields: &[Field]) -> Request {
    let mut words = 0;
    for field in fields {
        let register = if words == 0 { FIRST_REGISTER } else { FIRST_WORD + words };
        request = load(request, *field, register);
        words += field.size() / 4;
    }
    request
}

fn compare(request: Request, not: bool, bytes: &[u8]) -> Request {
    expression(request, "cmp", |data| {
        let data = data.attribute_be32(1, FIRST_REGISTER).attribute_be32(2, u32::from(not));
        value(data, 3, bytes)
    })
}

fn mask(request: Request, bytes: &[u8]) -> Request {
    expression(request, "bitwise", |data| {
        let length = u32::try_from(bytes.len()).unwrap_or(0);
        let data = data
            .attribute_be32(1, FIRST_REGISTER)
            .attribute_be32(2, FIRST_REGISTER)
            .attribute_be32(3, length)
            .attribute_be32(6, 0);
        value(value(data, 4, bytes), 5, &vec![0; bytes.len()])
    })
}

fn lookup(request: Request, set: &str, destination: Option<u32>, not: bool) -> Request {
    expression(request, "lookup", |data| {
        let mut data = data.attribute_name(1, set).attribute_be32(2, FIRST_REGISTER);
        if let Some(register) = destination {
            data = data.attribute_be32(3, register);
        }
        if not { data.attribute_be32(5, 1) } else { data }
    })
}

fn immediate(request: Request, register: u32, bytes: &[u8]) -> Request {
    expression(request, "immediate", |data| value(data.attribute_be32(1, register), 2, bytes))
}

fn nat(request: Request, kind: NatKind, family: Family, port: Option<u32>) -> Request {
    expression(request, "nat", |data| {
        let data = data
            .attribute_be32(1, kind as u32)
            .attribute_be32(2, u32::from(family as u8))
            .attribute_be32(3, FIRST_REGISTER);
        if let Some(register) = port { data.attribute_be32(5, register) } else { data }
    })
}

/// `NFTA_DATA_VERDICT` with its contents.
pub(super) fn verdict(request: Request, wanted: &Verdict) -> Request {
    let (code, chain) = match wanted {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3_i32, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    request.nested(NFTA_DATA_VERDICT, |data| {
        let data = data.attribute_be32(NFTA_VERDICT_CODE, code.cast_unsigned());
        if let Some(chain) = chain { data.attribute_name(NFTA_VERDICT_CHAIN, chain) } else { data }
    })
}

/// A network's mask.
fn prefix_mask(length: usize, bits: u8) -> Vec<u8> {
    (0..length)
        .map(|byte| {
            let left = usize::from(bits).saturating_sub(byte * 8).min(8);
            u8::try_from(0xff00_u16 >> left & 0xff).unwrap_or(u8::MAX)
        })
        .collect()
}

/// Where the port lies behind an address in the registers.
fn port_register(address: usize) -> u32 {
    FIRST_WORD + u32::try_from(address / 4).unwrap_or(1)
}

impl Expression {
    /// Appends it as one or more expressions of the kernel.
    pub(super) fn encode(&self, request: Request) -> Request {
        match self {
            Self::Compare { field, not, value } => compare(load(request, *field, FIRST_REGISTER), *not, value),
            Self::AnyBit { field, mask: bits } => {
                let masked = mask(load(request, *field, FIRST_REGISTER), &bits.to_ne_bytes());
                compare(masked, true, &[0; 4])
            }
            Self::Prefix { field, not, value, bits } => {
                let masked = mask(load(request, *field, FIRST_REGISTER), &prefix_mask(value.len(), *bits));
                compare(masked, *not, value)
            }
            Self::InSet { fields, set, not } => lookup(load_key(request, fields), set, None, *not),
            Self::VerdictOf { fields, map } => lookup(load_key(request, fields), map, Some(VERDICT_REGISTER), false),
            Self::NatOf { kind, family, fields, map, port } => {
                let found = lookup(load_key(request, fields), map, Some(FIRST_REGISTER), false);
                let address = if *family == Family::Ip { 4 } else { 16 };
                nat(found, *kind, *family, port.then(|| port_register(address)))
            }
            Self::Nat { kind, address, port } => {
                let family = if address.len() == 4 { Family::Ip } else { Family::Ip6 };
                let mut request = immediate(request, FIRST_REGISTER, address);
                let register = port_register(address.len());
                if let Some(port) = port {
                    request = immediate(request, register, &port.to_be_bytes());
                }
                nat(request, *kind, family, port.map(|_| register))
            }
            Self::WritePort { protocol, which, port } => {
                let checksum = match protocol {
                    PortProtocol::Tcp => 16,
                    PortProtocol::Udp => 6,
                };
                let offset = match which {
                    NatKind::Source => 0,
                    NatKind::Destination => 2,
                };
                expression(immediate(request, FIRST_REGISTER, &port.to_be_bytes()), "payload", |data| {
                    data.attribute_be32(5, FIRST_REGISTER)
                        .attribute_be32(2, PAYLOAD_TRANSPORT)
                        .attribute_be32(3, offset)
                        .attribute_be32(4, 2)
                        .attribute_be32(6, CHECKSUM_INTERNET)
                        .attribute_be32(7, checksum)
                        .attribute_be32(8, 0)
                })
            }
            Self::Masquerade => expression(request, "masq", |data| data),
            Self::Counter => expression(request, "counter", |data| data.attribute(1, &[0; 8]).attribute(2, &[0; 8])),
            Self::Verdict(wanted) => expression(request, "immediate", |data| {
                data.attribute_be32(1, VERDICT_REGISTER).nested(2, |data| verdict(data, wanted))
            }),
        }
    }
}
