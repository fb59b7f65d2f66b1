//! Changes, collected for one transaction.

use std::net::IpAddr;

use super::expression::{Expression, Verdict, interface, verdict};
use super::{
    DELCHAIN, DELRULE, DELSET, DELSETELEM, DELTABLE, Family, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM, NEWTABLE, message,
};
use crate::codec::{NLM_F_CREATE, NLM_F_EXCL, Request};

const NLM_F_APPEND: u16 = 0x800;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_POSITION: u16 = 6;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_DESC: u16 = 9;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_USERDATA: u16 = 13;
const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;
const SET_CONCAT: u32 = 0x80;
const NFTA_SET_DESC_CONCAT: u16 = 2;
const NFTA_SET_FIELD_LEN: u16 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
/// `NFT_DATA_VERDICT`.
const VERDICT_TYPE: u32 = 0xffff_ff00;
/// The length of an attribute is 16 bits; an element takes at most some 150 bytes.
const ELEMENTS_PER_MESSAGE: usize = 300;

/// Where in a packet's way a chain is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// As soon as it came in.
    Prerouting = 0,
    /// For the machine.
    Input = 1,
    /// Through the machine.
    Forward = 2,
    /// From the machine.
    Output = 3,
    /// Before it leaves.
    Postrouting = 4,
}

/// What a chain of a hook is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Let through or not.
    Filter,
    /// Addresses replaced; sees the first packet of a connection.
    Nat,
}

/// A chain's place in a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// What for.
    pub kind: ChainKind,
    /// Which hook.
    pub hook: Hook,
    /// Lower ones are asked first.
    pub priority: i32,
    /// What passes all rules is dropped.
    pub drop: bool,
}

/// The type of a part of a key or value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `ipv4_addr`.
    Ipv4,
    /// `ipv6_addr`.
    Ipv6,
    /// `inet_proto`.
    Protocol,
    /// `inet_service`.
    Port,
    /// `ifname`.
    Interface,
}

impl Type {
    /// What `nft` calls the type.
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Interface => 41,
        }
    }

    /// Bytes, when it stands alone.
    fn size(self) -> u32 {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 | Self::Interface => 16,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }
}

/// Number and length of a type that may have several parts.
fn concatenation(types: &[Type]) -> (u32, u32) {
    match types {
        [single] => (single.number(), single.size()),
        several => {
            several.iter().fold((0, 0), |(number, size), one| (number << 6 | one.number(), size + one.size().max(4)))
        }
    }
}

/// What a set has for its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing: it is a set.
    None,
    /// Data of these types: it is a map.
    Data(Vec<Type>),
    /// Verdicts: it is a map for rules to go by.
    Verdict,
}

/// A set or map.
#[derive(Clone, Debug)]
pub struct Set {
    /// Name.
    pub name: &'static str,
    /// Types of the key's parts.
    pub key: Vec<Type>,
    /// What there is for a key.
    pub value: Value,
    /// Keys are ranges; of several parts each may be one (Linux 5.6).
    pub interval: bool,
}

/// A member of a set, with what a map has for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    key: Vec<u8>,
    /// Where the range that begins with the key ends, the first that is not inside; empty for a single key.
    end: Vec<u8>,
    /// The last key of a range of which each part may be one; empty for a single key.
    last: Vec<u8>,
    data: Vec<u8>,
    verdict: Option<Verdict>,
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn append(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
    }
}

impl Element {
    /// The name of a device.
    #[must_use]
    pub fn interface(name: &str) -> Self {
        Self { key: interface(name), ..Self::default() }
    }

    /// `[ADDRESS .] PROTOCOL . PORT`.
    #[must_use]
    pub fn endpoint(address: Option<IpAddr>, protocol: u8, port: u16) -> Self {
        let mut key = Vec::with_capacity(24);
        if let Some(address) = address {
            append(&mut key, address);
        }
        key.push(protocol);
        pad(&mut key);
        key.extend_from_slice(&port.to_be_bytes());
        pad(&mut key);
        Self { key, ..Self::default() }
    }

    /// `[ADDRESS .] PROTOCOL . FIRST-LAST`.
    #[must_use]
    pub fn endpoints(address: Option<IpAddr>, protocol: u8, first: u16, last: u16) -> Self {
        let last = Self::endpoint(address, protocol, last).key;
        Self { last, ..Self::endpoint(address, protocol, first) }
    }

    /// The addresses of a network.
    #[must_use]
    pub fn network(address: IpAddr, prefix: u8) -> Self {
        let (mut key, mut end) = (Vec::new(), Vec::new());
        match address {
            IpAddr::V4(address) => {
                let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                let first = u32::from(address) & !host;
                key.extend_from_slice(&first.to_be_bytes());
                if let Some(next) = (first | host).checked_add(1) {
                    end.extend_from_slice(&next.to_be_bytes());
                }
            }
            IpAddr::V6(address) => {
                let host = u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                let first = u128::from(address) & !host;
                key.extend_from_slice(&first.to_be_bytes());
                if let Some(next) = (first | host).checked_add(1) {
                    end.extend_from_slice(&next.to_be_bytes());
                }
            }
        }
        Self { key, end, ..Self::default() }
    }

    /// With `ADDRESS . PORT` for the key.
    #[must_use]
    pub fn to_endpoint(mut self, address: IpAddr, port: u16) -> Self {
        append(&mut self.data, address);
        self.data.extend_from_slice(&port.to_be_bytes());
        pad(&mut self.data);
        self
    }

    /// With `ADDRESS` for the key.
    #[must_use]
    pub fn to_address(mut self, address: IpAddr) -> Self {
        append(&mut self.data, address);
        self
    }

    /// With a verdict for the key.
    #[must_use]
    pub fn to_verdict(mut self, verdict: Verdict) -> Self {
        self.verdict = Some(verdict);
        self
    }

    /// As it was read.
    pub(super) fn raw(key: Vec<u8>, last: Vec<u8>, data: Vec<u8>) -> Self {
        // A key of its own is read back as a range of one.
        let last = if last == key { Vec::new() } else { last };
        Self { key, last, data, ..Self::default() }
    }

    /// Whether both have the same key and the same data; ends of networks and verdicts are not compared.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        // A single number is read back without the padding of a concatenation.
        self.key == other.key && self.last == other.last && self.data == other.data
    }

    /// The key's bytes.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    fn encode(&self, request: Request) -> Request {
        let request = request.nested(NFTA_LIST_ELEM, |element| {
            let element = element.nested(NFTA_SET_ELEM_KEY, |key| key.attribute(NFTA_DATA_VALUE, &self.key));
            let element = if self.last.is_empty() {
                element
            } else {
                element.nested(NFTA_SET_ELEM_KEY_END, |key| key.attribute(NFTA_DATA_VALUE, &self.last))
            };
            if let Some(wanted) = &self.verdict {
                element.nested(NFTA_SET_ELEM_DATA, |data| verdict(data, wanted))
            } else if self.data.is_empty() {
                element
            } else {
                element.nested(NFTA_SET_ELEM_DATA, |data| data.attribute(NFTA_DATA_VALUE, &self.data))
            }
        });
        if self.end.is_empty() {
            return request;
        }
        request.nested(NFTA_LIST_ELEM, |element| {
            element
                .attribute_be32(NFTA_SET_ELEM_FLAGS, 1)
                .nested(NFTA_SET_ELEM_KEY, |key| key.attribute(NFTA_DATA_VALUE, &self.end))
        })
    }
}

/// Where a rule goes in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind all others.
    Last,
    /// Before all others.
    First,
    /// Before the rule with this handle.
    Before(u64),
}

/// Changes that are made together or not at all.
#[derive(Debug)]
pub struct Batch {
    pub(super) messages: Vec<(&'static str, String, Request)>,
    pub(super) bytes: usize,
    family: Family,
    table: String,
    sets: u32,
}

impl Batch {
    /// An empty one for this table. [`Batch::table`] goes on with another.
    #[must_use]
    pub fn new(family: Family, table: &str) -> Self {
        Self { messages: Vec::new(), bytes: 0, family, table: table.to_owned(), sets: 0 }
    }

    /// What follows is about this table.
    pub fn table(&mut self, family: Family, table: &str) {
        self.family = family;
        table.clone_into(&mut self.table);
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn request(&self, kind: u16, flags: u16) -> Request {
        // Every message begins with its table's name, under the same number.
        Request::new(message(kind), flags, 0, &[self.family as u8, 0, 0, 0])
            .attribute_name(NFTA_TABLE_NAME, &self.table)
    }

    fn push(&mut self, operation: &'static str, object: &str, request: Request) {
        self.bytes += request.len();
        let object = if object.is_empty() { self.table.clone() } else { format!("{} {object}", self.table) };
        self.messages.push((operation, object, request));
    }

    /// Makes the table if there is none.
    pub fn add_table(&mut self) {
        self.push("add table", "", self.request(NEWTABLE, NLM_F_CREATE));
    }

    /// Removes the table with all that is in it; it must exist.
    pub fn delete_table(&mut self) {
        self.push("delete table", "", self.request(DELTABLE, 0));
    }

    /// Makes a chain if there is none of the name.
    pub fn add_chain(&mut self, name: &str, base: Option<Base>) {
        debug_assert_eq!(NFTA_CHAIN_TABLE, NFTA_TABLE_NAME);
        let mut request = self.request(NEWCHAIN, NLM_F_CREATE).attribute_name(NFTA_CHAIN_NAME, name);
        if let Some(base) = base {
            request = request
                .nested(NFTA_CHAIN_HOOK, |hook| {
                    hook.attribute_be32(NFTA_HOOK_HOOKNUM, base.hook as u32)
                        .attribute_be32(NFTA_HOOK_PRIORITY, base.priority.cast_unsigned())
                })
                .attribute_be32(NFTA_CHAIN_POLICY, u32::from(!base.drop))
                .attribute_name(
                    NFTA_CHAIN_TYPE,
                    match base.kind {
                        ChainKind::Filter => "filter",
                        ChainKind::Nat => "nat",
                    },
                );
        }
        self.push("add chain", name, request);
    }

    /// Removes a chain, which must exist and be referred to by nothing.
    pub fn delete_chain(&mut self, name: &str) {
        let request = self.request(DELCHAIN, 0).attribute_name(NFTA_CHAIN_NAME, name);
        self.push("delete chain", name, request);
    }

    /// Removes all rules of a chain, which must exist.
    pub fn flush_chain(&mut self, name: &str) {
        let request = self.request(DELRULE, 0).attribute_name(NFTA_RULE_CHAIN, name);
        self.push("flush chain", name, request);
    }

    /// Adds a rule. The comment is shown by `nft`.
    pub fn add_rule(&mut self, chain: &str, place: Place, comment: &str, expressions: &[Expression]) {
        debug_assert_eq!(NFTA_RULE_TABLE, NFTA_TABLE_NAME);
        let flags = NLM_F_CREATE | if place == Place::Last { NLM_F_APPEND } else { 0 };
        let mut request = self.request(NEWRULE, flags).attribute_name(NFTA_RULE_CHAIN, chain);
        if let Place::Before(handle) = place {
            request = request.attribute(NFTA_RULE_POSITION, &handle.to_be_bytes());
        }
        request = request.nested(NFTA_RULE_EXPRESSIONS, |list| {
            expressions.iter().fold(list, |list, expression| expression.encode(list))
        });
        if !comment.is_empty() {
            // NFTNL_UDATA_RULE_COMMENT: type, length, text with its null byte.
            let text = &comment.as_bytes()[..comment.len().min(100)];
            let mut data = vec![0, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
            data.extend_from_slice(text);
            data.push(0);
            request = request.attribute(NFTA_RULE_USERDATA, &data);
        }
        self.push("add rule to", chain, request);
    }

    /// Removes a rule.
    pub fn delete_rule(&mut self, chain: &str, handle: u64) {
        let request = self
            .request(DELRULE, 0)
            .attribute_name(NFTA_RULE_CHAIN, chain)
            .attribute(NFTA_RULE_HANDLE, &handle.to_be_bytes());
        self.push("delete rule from", chain, request);
    }

    /// Makes a set if there is none of the name.
    pub fn add_set(&mut self, set: &Set) {
        debug_assert_eq!(NFTA_SET_TABLE, NFTA_TABLE_NAME);
        self.sets += 1;
        let (key, key_length) = concatenation(&set.key);
        let mut flags = if set.interval { SET_INTERVAL } else { 0 };
        // What nft notes for itself about byte orders, to show values rightly: 1 is the machine's, 2 the network's.
        let order = |types: &[Type]| if types == [Type::Interface] { 1_u32 } else { 2 };
        let mut notes = vec![0, 4];
        notes.extend_from_slice(&order(&set.key).to_ne_bytes());
        let data = match &set.value {
            Value::None => None,
            Value::Verdict => Some((VERDICT_TYPE, 0)),
            Value::Data(types) => Some(concatenation(types)),
        };
        if data.is_some() {
            flags |= SET_MAP;
        }
        let parts = if set.interval && set.key.len() > 1 { set.key.as_slice() } else { &[] };
        if !parts.is_empty() {
            flags |= SET_CONCAT;
        }
        let mut request = self
            .request(NEWSET, NLM_F_CREATE)
            .attribute_name(NFTA_SET_NAME, set.name)
            .attribute_be32(NFTA_SET_FLAGS, flags)
            .attribute_be32(NFTA_SET_KEY_TYPE, key)
            .attribute_be32(NFTA_SET_KEY_LEN, key_length);
        if let Some((number, length)) = data {
            request = request.attribute_be32(NFTA_SET_DATA_TYPE, number).attribute_be32(NFTA_SET_DATA_LEN, length);
            notes.extend_from_slice(&[1, 4]);
            notes.extend_from_slice(&2_u32.to_ne_bytes());
        }
        if !parts.is_empty() {
            request = request.nested(NFTA_SET_DESC, |set| {
                set.nested(NFTA_SET_DESC_CONCAT, |list| {
                    parts.iter().fold(list, |list, part| {
                        list.nested(NFTA_LIST_ELEM, |one| one.attribute_be32(NFTA_SET_FIELD_LEN, part.size()))
                    })
                })
            });
        }
        let request = request.attribute_be32(NFTA_SET_ID, self.sets).attribute(NFTA_SET_USERDATA, &notes);
        self.push("add set", set.name, request);
    }

    /// Removes a set, which must exist and be referred to by nothing.
    pub fn delete_set(&mut self, name: &str) {
        let request = self.request(DELSET, 0).attribute_name(NFTA_SET_NAME, name);
        self.push("delete set", name, request);
    }

    /// Removes all elements of a set, which must exist.
    pub fn flush_set(&mut self, name: &str) {
        let request = self.request(DELSETELEM, 0).attribute_name(NFTA_SET_ELEM_LIST_SET, name);
        self.push("flush set", name, request);
    }

    /// Puts elements into a set; those that are there already are left, and a map's with another value are refused.
    pub fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements("add element to", NEWSETELEM, NLM_F_CREATE, set, elements);
    }

    /// Puts elements into a set that does not have them; otherwise the transaction is refused with `EEXIST`.
    pub fn add_new_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements("add element to", NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, set, elements);
    }

    /// Takes elements out of a set, which must have them; otherwise the transaction is refused with `ENOENT`.
    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements("delete element from", DELSETELEM, 0, set, elements);
    }

    fn elements(&mut self, operation: &'static str, kind: u16, flags: u16, set: &str, elements: &[Element]) {
        debug_assert_eq!(NFTA_SET_ELEM_LIST_TABLE, NFTA_TABLE_NAME);
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let request = self
                .request(kind, flags)
                .attribute_name(NFTA_SET_ELEM_LIST_SET, set)
                .nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                    some.iter().fold(list, |list, element| element.encode(list))
                });
            self.push(operation, set, request);
        }
    }
}
