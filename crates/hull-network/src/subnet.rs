//! Ranges of addresses: `ADDRESS/PREFIX`, and which of their addresses containers may have.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// A network's addresses: the first one and the number of bits that all have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

/// An address as a number; the order is that of the addresses of one family.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address of this number, in the family of `like`.
pub(crate) fn address(like: IpAddr, number: u128) -> IpAddr {
    match like {
        // Numbers of IPv4 addresses are kept within 32 bits by all callers.
        IpAddr::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// 4 or 16 bytes.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An address of 4 or 16 bytes.
pub(crate) fn from_octets(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

impl Subnet {
    /// The subnet that this address is in; `None` when there is no such prefix.
    #[must_use]
    pub fn new(inside: IpAddr, prefix: u8) -> Option<Self> {
        let subnet = Self { address: inside, prefix };
        if prefix > subnet.bits() {
            return None;
        }
        Some(Self { address: address(inside, number(inside) & !subnet.host_mask()), prefix })
    }

    fn bits(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    fn host_mask(&self) -> u128 {
        let family = if self.address.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX };
        match u32::from(self.prefix) {
            0 => family,
            prefix if self.address.is_ipv4() => u128::from(u32::MAX.checked_shr(prefix).unwrap_or(0)),
            prefix => u128::MAX.checked_shr(prefix).unwrap_or(0),
        }
    }

    /// First address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Length of the common part in bits.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether its addresses are IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        address(self.address, number(self.address) | self.host_mask())
    }

    /// Whether the address is one of its.
    #[must_use]
    pub fn contains(&self, inside: IpAddr) -> bool {
        inside.is_ipv4() == self.is_ipv4() && (self.address..=self.last()).contains(&inside)
    }

    /// Whether both have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// Whether all of the other's addresses are its.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }

    /// The first and last address that a device may have: without the subnet's own address and, for IPv4, the broadcast
    /// address, where the subnet is large enough to have these.
    #[must_use]
    pub fn usable(&self) -> (IpAddr, IpAddr) {
        let (first, last) = (number(self.address), number(self.last()));
        if last - first < 3 {
            return (self.address, self.last());
        }
        let top = if self.is_ipv4() { last - 1 } else { last };
        (address(self.address, first + 1), address(self.address, top))
    }

    /// The subnet of the same size behind it, if there is one.
    #[must_use]
    pub fn next(&self) -> Option<Self> {
        let next = number(self.last()).checked_add(1)?;
        if self.is_ipv4() && next > u128::from(u32::MAX) {
            return None;
        }
        Some(Self { address: address(self.address, next), prefix: self.prefix })
    }

    /// Whether it may be a network's: not loopback, multicast or link-local, and with room for a gateway and a container.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |reason: &str| Err(Error::invalid(format!("subnet {self}"), reason));
        let first = self.address;
        if self.prefix == 0 || first.is_unspecified() {
            return wrong("it is every address");
        }
        if self.prefix > self.bits() - 1 {
            return wrong("there is no room for a gateway and a container");
        }
        let reserved = match first {
            IpAddr::V4(address) => address.is_loopback() || address.octets()[0] >= 224,
            IpAddr::V6(address) => address.is_multicast() || address.segments()[0] & 0xffc0 == 0xfe80,
        };
        if reserved { wrong("these addresses are reserved") } else { Ok(()) }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Error;

    /// Host bits are cut off, as Docker does.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::invalid(format!("CIDR address {text:?}"), "give ADDRESS/PREFIX, such as 10.1.2.0/24");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        if prefix.is_empty() || prefix.len() > 3 || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let address = address.parse().map_err(|_| wrong())?;
        Self::new(address, prefix.parse().map_err(|_| wrong())?).ok_or_else(wrong)
    }
}

impl Serialize for Subnet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn words_are_read() {
        assert_eq!(subnet("10.1.2.3/24").to_string(), "10.1.2.0/24");
        assert_eq!(subnet("fd00::5/64").to_string(), "fd00::/64");
        assert_eq!(subnet("0.0.0.0/0").last().to_string(), "255.255.255.255");
        for wrong in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0/8",
            "fd00::/129",
            "10.0.0.0/-1",
            "a/8",
            "10.0.0.0/0008",
        ] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
        for wrong in ["0.0.0.0/0", "127.0.0.0/8", "10.0.0.0/32", "224.0.0.0/8", "fe80::/64", "::/0", "fd00::1/128"] {
            assert!(subnet(wrong).check().is_err(), "{wrong}");
        }
        assert!(subnet("10.0.0.0/31").check().is_ok());
    }

    #[test]
    fn usable_addresses() {
        let usable = |text: &str| {
            let (first, last) = subnet(text).usable();
            format!("{first} {last}")
        };
        assert_eq!(usable("10.0.0.0/24"), "10.0.0.1 10.0.0.254");
        assert_eq!(usable("10.0.0.0/30"), "10.0.0.1 10.0.0.2");
        assert_eq!(usable("10.0.0.0/31"), "10.0.0.0 10.0.0.1");
        assert_eq!(usable("fd00::/64"), "fd00::1 fd00::ffff:ffff:ffff:ffff");
    }

    proptest! {
        #[test]
        fn a_subnet_contains_what_it_spans(address: u32, prefix in 0_u8..=32, other: u32) {
            let inside = IpAddr::from(Ipv4Addr::from(address));
            let subnet = Subnet::new(inside, prefix).unwrap();
            prop_assert!(subnet.contains(inside));
            let shift = 32 - u32::from(prefix);
            let same = u64::from(address) >> shift == u64::from(other) >> shift;
            prop_assert_eq!(subnet.contains(Ipv4Addr::from(other).into()), same);
            prop_assert_eq!(subnet.to_string().parse::<Subnet>().unwrap(), subnet);
            if let Some(next) = subnet.next() {
                prop_assert!(!next.overlaps(&subnet));
                prop_assert_eq!(number(next.address()), number(subnet.last()) + 1);
            }
        }

        #[test]
        fn overlap_is_mutual(a: u128, b: u128, p in 0_u8..=128, q in 0_u8..=128) {
            let (a, b) = (Subnet::new(Ipv6Addr::from(a).into(), p).unwrap(), Subnet::new(Ipv6Addr::from(b).into(), q).unwrap());
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
            prop_assert_eq!(a.overlaps(&b), a.covers(&b) || b.covers(&a));
        }
    }
}
