//! What is kept of networks and of containers on them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::options::Options;
use crate::subnet::Subnet;

/// What makes a network's devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of the machine, with the machine as router.
    #[default]
    Bridge,
    /// Devices of their own on a device of the machine.
    Macvlan,
    /// The same with one hardware address for all.
    Ipvlan,
    /// The machine's own network.
    Host,
    /// Nothing but loopback.
    Null,
}

impl Driver {
    /// Docker's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

impl FromStr for Driver {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "bridge" => Ok(Self::Bridge),
            "macvlan" => Ok(Self::Macvlan),
            "ipvlan" => Ok(Self::Ipvlan),
            "host" | "null" => Err(Error::Unsupported(format!("only one instance of \"{text}\" network is allowed"))),
            _ => Err(Error::UnknownDriver(text.to_owned())),
        }
    }
}

/// Addresses of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// All of them.
    pub subnet: Subnet,
    /// Those that containers get without asking; the whole subnet if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Subnet>,
    /// The machine's, or what the user says routes; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Names and addresses of others that no container gets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// The user chose the subnet.
    #[serde(default)]
    pub chosen: bool,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// 64 hexadecimal digits.
    #[serde(skip)]
    pub id: String,
    /// Unique.
    #[serde(skip)]
    pub name: String,
    /// Nanoseconds since 1970.
    pub created: u64,
    /// What makes its devices.
    pub driver: Driver,
    /// IPv4 and IPv6, at most one of each.
    pub pools: Vec<Pool>,
    /// No way to the outside.
    #[serde(default)]
    pub internal: bool,
    /// Docker's flag; kept and shown.
    #[serde(default)]
    pub attachable: bool,
    /// The user's words.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The driver's, under Docker's names.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// IPv4 was not switched off.
    pub ipv4: bool,
    /// IPv6 was asked for, or the machine has it.
    pub ipv6: bool,
    /// The bridge, or the device below; empty for others.
    #[serde(default)]
    pub device: String,
}

impl Network {
    /// The pool of a family.
    #[must_use]
    pub fn pool(&self, ipv4: bool) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.subnet.is_ipv4() == ipv4)
    }

    /// The driver's options as values.
    ///
    /// # Errors
    /// [`Error::Invalid`], which a recorded network does not give.
    pub fn settings(&self) -> Result<Options, Error> {
        Options::parse(self.driver, self.internal, &self.options)
    }

    /// `bridge`, `host` or `none`.
    #[must_use]
    pub fn predefined(&self) -> bool {
        PREDEFINED.iter().any(|(name, _)| *name == self.name)
    }

    /// The network that containers get without asking; names do not resolve on it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.name == "bridge"
    }
}

/// What is always there.
pub(crate) const PREDEFINED: [(&str, Driver); 3] =
    [("bridge", Driver::Bridge), ("host", Driver::Host), ("none", Driver::Null)];

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::invalid(format!("MAC address {text:?}"), reason);
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(|| wrong("give six pairs of digits"))?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong("give six pairs of digits"))?;
        }
        if parts.next().is_some() {
            return Err(wrong("give six pairs of digits"));
        }
        if octets[0] & 1 == 1 || octets == [0; 6] {
            return Err(wrong("it is no device's own"));
        }
        Ok(Self(octets))
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A container on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Number of the record.
    #[serde(skip)]
    pub id: i64,
    /// The container's ID.
    #[serde(skip)]
    pub container: String,
    /// The network's ID.
    #[serde(skip)]
    pub network: String,
    /// The machine's end.
    #[serde(skip)]
    pub link: String,
    /// Which of the network's bridges.
    #[serde(skip)]
    pub bridge: u32,
    /// The container's name.
    pub container_name: String,
    /// The network's name.
    pub network_name: String,
    /// The container's end.
    pub interface: String,
    /// Its hardware address.
    pub mac: Mac,
    /// Its addresses, with the length of the network's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Routers of the network, of either family.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Other names of the container on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The highest one's gateway is the container's.
    #[serde(default)]
    pub priority: i64,
}

impl Endpoint {
    /// Its IPv4 address.
    #[must_use]
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|(address, _)| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().find_map(|(address, _)| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        })
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its lower-case name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// `IPPROTO_*`.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|one| one.number() == number)
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let known = [Self::Tcp, Self::Udp, Self::Sctp];
        let found = known.into_iter().find(|one| one.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| Error::invalid("proto", text.to_owned()))
    }
}

/// A container's port at an address of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// Which.
    pub protocol: Protocol,
    /// Address of the machine; unspecified is every one.
    pub host: IpAddr,
    /// Port of the machine.
    pub host_port: u16,
    /// Address of the container.
    pub address: IpAddr,
    /// Port of the container.
    pub port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses() {
        assert_eq!("02:42:AC:11-00-02".parse::<Mac>().unwrap().to_string(), "02:42:ac:11:00:02");
        for wrong in [
            "",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03",
            "01:00:00:00:00:01",
            "00:00:00:00:00:00",
            "2:42:ac:11:00:02",
            "02:42:ac:11:00:0g",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}
