//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::codec::{self, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Request};
use crate::socket::Socket;
use crate::transport::DUMP_ATTEMPTS;
use crate::{Address, Error};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_DELADDR: u16 = 21;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Bytes of `struct rtmsg`.
const ROUTE_FIXED: usize = 12;
/// `RT_TABLE_MAIN`.
const MAIN: u8 = 254;
/// `RTPROT_STATIC`.
const STATIC: u8 = 4;
const SCOPE_LINK: u8 = 253;
const UNICAST: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to; the address of all zeroes with prefix 0 is the default route.
    pub destination: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// Through whom; absent on the link itself.
    pub gateway: Option<IpAddr>,
    /// Index of the device, that of the first next hop when there are several; 0 for none.
    pub link: u32,
    /// Routing table; 254 is the main one.
    pub table: u32,
    /// `RTN_*`; 1 is an ordinary route.
    pub kind: u8,
    /// Lower ones win.
    pub metric: u32,
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

impl Address {
    /// A global, permanent address of a device; IPv6 ones are usable at once, without asking whether somebody has it.
    #[must_use]
    pub fn global(address: IpAddr, prefix: u8) -> Self {
        const NO_DUPLICATE_DETECTION: u32 = 2;
        let (family, flags, broadcast) = match address {
            IpAddr::V4(v4) if prefix < 31 => {
                (AF_INET, 0, (u32::from(v4) | u32::MAX >> u32::from(prefix)).to_be_bytes().to_vec())
            }
            IpAddr::V4(_) => (AF_INET, 0, Vec::new()),
            IpAddr::V6(_) => (AF_INET6, NO_DUPLICATE_DETECTION, Vec::new()),
        };
        Self { family, prefix, scope: 0, flags, local: octets(address), peer: Vec::new(), broadcast }
    }

    /// The device's own address as a value.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        parse_address(&self.local)
    }
}

fn parse(payload: &[u8]) -> Result<Route, &'static str> {
    let short = "truncated route";
    let &[family, prefix, _, _, table, _, _, kind, ..] = payload else { return Err(short) };
    let destination: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Err("route of an unknown family"),
    };
    let mut route = Route { destination, prefix, gateway: None, link: 0, table: table.into(), kind, metric: 0 };
    let number = |value| codec::u32_at(value, 0).ok_or("number is not 4 bytes");
    for attribute in codec::attributes(payload.get(ROUTE_FIXED..).ok_or(short)?) {
        match attribute? {
            (RTA_DST, value) => route.destination = parse_address(value).ok_or("address is neither 4 nor 16 bytes")?,
            (RTA_GATEWAY, value) => route.gateway = parse_address(value),
            (RTA_OIF, value) => route.link = number(value)?,
            (RTA_PRIORITY, value) => route.metric = number(value)?,
            (RTA_TABLE, value) => route.table = number(value)?,
            // struct rtnexthop: length, flags, hops, index.
            (RTA_MULTIPATH, value) if route.link == 0 => route.link = codec::u32_at(value, 4).unwrap_or(0),
            _ => {}
        }
    }
    Ok(route)
}

impl Socket {
    /// The namespace's routes of both families, from all tables.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Socket`].
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let operation = "list routes";
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let mut interrupted = false;
            for family in [AF_INET, AF_INET6] {
                let mut fixed = [0; ROUTE_FIXED];
                fixed[0] = family;
                let request = Request::new(RTM_GETROUTE, NLM_F_DUMP, self.0.next_sequence(), &fixed);
                interrupted |= self.0.transact(operation, "", &request.finish(), |message| {
                    if message.kind == RTM_NEWROUTE {
                        found.push(parse(message.payload)?);
                    }
                    Ok(())
                })?;
            }
            if !interrupted {
                return Ok(found);
            }
        }
        Err(Error::Malformed { operation, what: "the list changes all the time" })
    }

    /// Adds a route to the main table: through `gateway`, or on the link itself without one.
    ///
    /// # Errors
    /// [`Error::Refused`] with `EEXIST` when there is one, `ENETUNREACH` when the gateway is not on the link.
    pub fn add_route(
        &mut self,
        link: u32,
        destination: IpAddr,
        prefix: u8,
        gateway: Option<IpAddr>,
    ) -> Result<(), Error> {
        self.route("add route to", RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, link, destination, prefix, gateway)
    }

    /// Removes a route from the main table.
    ///
    /// # Errors
    /// [`Error::Refused`] with `ESRCH` when there is none.
    pub fn remove_route(
        &mut self,
        link: u32,
        destination: IpAddr,
        prefix: u8,
        gateway: Option<IpAddr>,
    ) -> Result<(), Error> {
        self.route("remove route to", RTM_DELROUTE, 0, link, destination, prefix, gateway)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    fn route(
        &mut self,
        operation: &'static str,
        kind: u16,
        flags: u16,
        link: u32,
        destination: IpAddr,
        prefix: u8,
        gateway: Option<IpAddr>,
    ) -> Result<(), Error> {
        let family = if destination.is_ipv4() { AF_INET } else { AF_INET6 };
        // IPv4 knows a scope; a route on the link is no one's next hop.
        let scope = if gateway.is_none() && family == AF_INET { SCOPE_LINK } else { 0 };
        let fixed = [family, prefix, 0, 0, MAIN, STATIC, scope, UNICAST, 0, 0, 0, 0];
        let mut request = Request::new(kind, NLM_F_ACK | flags, self.0.next_sequence(), &fixed);
        if prefix != 0 {
            request = request.attribute(RTA_DST, &octets(destination));
        }
        if let Some(gateway) = gateway {
            request = request.attribute(RTA_GATEWAY, &octets(gateway));
        }
        let request = request.attribute_u32(RTA_OIF, link);
        self.0.acknowledged(operation, &format!("{destination}/{prefix}"), request)
    }

    /// Takes an address from a device.
    ///
    /// # Errors
    /// [`Error::Refused`] with `EADDRNOTAVAIL` when it does not have it.
    pub fn remove_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> Result<(), Error> {
        let mut fixed = [if address.is_ipv4() { AF_INET } else { AF_INET6 }, prefix, 0, 0, 0, 0, 0, 0];
        fixed[4..].copy_from_slice(&index.to_ne_bytes());
        let request = Request::new(RTM_DELADDR, NLM_F_ACK, self.0.next_sequence(), &fixed)
            .attribute(IFA_LOCAL, &octets(address))
            .attribute(IFA_ADDRESS, &octets(address));
        self.0.acknowledged("remove address", &format!("{address} from link {index}"), request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_is_the_last_address() {
        let address = Address::global("10.1.2.3".parse().unwrap(), 20);
        assert_eq!(address.broadcast, [10, 1, 15, 255]);
        assert!(Address::global("10.1.2.3".parse().unwrap(), 32).broadcast.is_empty());
        assert_eq!(Address::global("10.1.2.3".parse().unwrap(), 0).broadcast, [255; 4]);
    }

    #[test]
    fn routes_that_are_cut_off_are_errors() {
        let whole = Request::new(0, 0, 0, &[AF_INET, 24, 0, 0, MAIN, 0, 0, 1, 0, 0, 0, 0])
            .attribute(RTA_DST, &[10, 0, 0, 0])
            .attribute_u32(RTA_OIF, 7)
            .finish();
        let payload = &whole[codec::HEADER..];
        let route = parse(payload).unwrap();
        assert_eq!((route.destination, route.link), ("10.0.0.0".parse().unwrap(), 7));
        for end in 0..ROUTE_FIXED {
            assert!(parse(&payload[..end]).is_err(), "{end}");
        }
        for end in ROUTE_FIXED..payload.len() {
            let _ = parse(&payload[..end]);
        }
    }
}
