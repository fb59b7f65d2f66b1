//! The socket and single requests.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::codec::{
    self, HEADER, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NLMSG_ERROR, Request,
};
use crate::device::in_namespace;
use crate::link::{IFLA_INFO_SLAVE_DATA, IFLA_INFO_SLAVE_KIND, is_hairpin, no_link_local};
use crate::transport::{self, Connection, DUMP_ATTEMPTS};
use crate::{Error, valid_name};

pub(crate) const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;

pub(crate) const IFLA_ADDRESS: u16 = 1;
pub(crate) const IFLA_MASTER: u16 = 10;
pub(crate) const IFLA_IFALIAS: u16 = 20;
pub(crate) const IFLA_IFNAME: u16 = 3;
pub(crate) const IFLA_MTU: u16 = 4;
pub(crate) const IFLA_LINKINFO: u16 = 18;
pub(crate) const IFLA_NET_NS_FD: u16 = 28;
pub(crate) const IFLA_INFO_KIND: u16 = 1;
pub(crate) const IFLA_INFO_DATA: u16 = 2;
pub(crate) const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;

pub(crate) const IFF_UP: u32 = 1;
/// Index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;
/// Bytes of `struct ifinfomsg`.
pub(crate) const LINK_FIXED: usize = 16;
/// Bytes of `struct ifaddrmsg`.
const ADDRESS_FIXED: usize = 8;
/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index inside its namespace.
    pub index: u32,
    /// Name, 1 to 15 bytes.
    pub name: String,
    /// `IFF_*` flags.
    pub flags: u32,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Index of the bridge that it is a port of; 0 for none.
    pub master: u32,
    /// Hardware address; empty where there is none.
    pub address: Vec<u8>,
    /// What kind of virtual device it is, such as `bridge`; empty for real ones.
    pub kind: String,
    /// A text that whoever made the device left on it.
    pub alias: String,
    /// It is a bridge's port, and frames may leave through it that came by it.
    pub hairpin: bool,
}

impl Link {
    /// Whether the device is administratively up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.flags & IFF_UP != 0
    }
}

/// An address of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub family: u8,
    /// Prefix length in bits.
    pub prefix: u8,
    /// `RT_SCOPE_*`; 0 is global.
    pub scope: u8,
    /// `IFA_F_*` flags.
    pub flags: u32,
    /// The device's own address: 4 or 16 bytes.
    pub local: Vec<u8>,
    /// The peer of a point-to-point link, otherwise the same as `local`; may be empty.
    pub peer: Vec<u8>,
    /// Broadcast address; may be empty.
    pub broadcast: Vec<u8>,
}

pub(crate) fn link_message(index: u32, flags: u32, change: u32) -> [u8; LINK_FIXED] {
    let mut fixed = [0; LINK_FIXED];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

/// Brings `lo` of the calling process's network namespace up. Does not allocate.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` in the user namespace that owns the network namespace; `EPROTO` for a malformed
/// answer.
pub fn loopback_up() -> Result<(), Errno> {
    let socket = transport::socket(None)?;
    let mut request = [0_u8; HEADER + LINK_FIXED];
    request[..4].copy_from_slice(&(32_u32).to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    request[8..12].copy_from_slice(&1_u32.to_ne_bytes());
    request[HEADER..].copy_from_slice(&link_message(LOOPBACK, IFF_UP, IFF_UP));
    rustix::io::retry_on_intr(|| rustix::net::send(&socket, &request, SendFlags::empty()))?;
    let mut answer = [0_u8; 256];
    let (filled, _) = rustix::io::retry_on_intr(|| rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty()))?;
    let message = codec::messages(&answer[..filled]).next().and_then(Result::ok).ok_or(Errno::PROTO)?;
    let code = codec::u32_at(message.payload, 0).filter(|_| message.kind == NLMSG_ERROR).ok_or(Errno::PROTO)?;
    match code.cast_signed() {
        0 => Ok(()),
        code => Err(Errno::from_raw_os_error(code.saturating_neg())),
    }
}

/// A device to be set up; see [`Socket::set_up_with`].
#[derive(Clone, Copy, Debug)]
pub struct Ready<'a> {
    /// Its index.
    pub index: u32,
    /// The kernel makes no IPv6 link-local address. In effect before it is up.
    pub no_link_local: bool,
    /// What it gets.
    pub addresses: &'a [Address],
}

fn address_request(index: u32, address: &Address) -> Request {
    /// Set by the kernel alone: tentative, dadfailed, permanent, and the like.
    const SETTABLE: u32 = 0x01 | 0x02 | 0x100 | 0x200 | 0x400;
    let mut fixed = [0; ADDRESS_FIXED];
    fixed[0] = address.family;
    fixed[1] = address.prefix;
    fixed[3] = address.scope;
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    let kind = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut request = Request::new(RTM_NEWADDR, kind, 0, &fixed)
        .attribute(IFA_LOCAL, &address.local)
        .attribute(IFA_ADDRESS, if address.peer.is_empty() { &address.local } else { &address.peer });
    if !address.broadcast.is_empty() {
        request = request.attribute(IFA_BROADCAST, &address.broadcast);
    }
    request.attribute_u32(IFA_FLAGS, address.flags & SETTABLE)
}

/// A route netlink socket. It acts on the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket(pub(crate) Connection);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Self, Error> {
        Ok(Self(Connection::open(None, 0)?))
    }

    /// Opens a socket that acts on another network namespace. The calling thread enters it for the time of one
    /// `socket(2)`, so the process should be single-threaded.
    ///
    /// # Errors
    /// [`Error::Socket`], with `EPERM` for a namespace of somebody else's.
    pub fn open_in(namespace: BorrowedFd<'_>) -> Result<Self, Error> {
        in_namespace(namespace, Self::open)?
    }

    fn next_sequence(&mut self) -> u32 {
        self.0.next_sequence()
    }

    fn acknowledged(&mut self, operation: &'static str, object: &str, request: Request) -> Result<(), Error> {
        self.0.acknowledged(operation, object, request)
    }

    /// The device of this name.
    ///
    /// # Errors
    /// [`Error::NoLink`] when there is none, [`Error::InvalidName`] when there can be none.
    pub fn link(&mut self, name: &str) -> Result<Link, Error> {
        valid_name(name)?;
        let sequence = self.next_sequence();
        let request = Request::new(RTM_GETLINK, NLM_F_ACK, sequence, &link_message(0, 0, 0));
        let request = request.attribute_name(IFLA_IFNAME, name);
        let mut found = None;
        let asked = self.0.transact("get link", name, &request.finish(), |message| {
            if message.kind == RTM_NEWLINK {
                found = Some(parse_link(message.payload)?);
            }
            Ok(())
        });
        match asked {
            Err(Error::Refused { errno: Errno::NODEV, .. }) => Err(Error::NoLink(name.to_owned())),
            Err(error) => Err(error),
            Ok(_) => found.ok_or_else(|| Error::NoLink(name.to_owned())),
        }
    }

    /// All addresses of a device.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::Malformed`] also when the list keeps changing while it is read.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Address>, Error> {
        let operation = "list addresses";
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.next_sequence();
            let request = Request::new(RTM_GETADDR, NLM_F_DUMP, sequence, &[0; ADDRESS_FIXED]);
            let mut found = Vec::new();
            let interrupted =
                self.0.transact(operation, &format!("of link {index}"), &request.finish(), |message| {
                    if message.kind == RTM_NEWADDR {
                        let (owner, address) = parse_address(message.payload)?;
                        if owner == index && !address.local.is_empty() {
                            found.push(address);
                        }
                    }
                    Ok(())
                })?;
            if !interrupted {
                return Ok(found);
            }
        }
        Err(Error::Malformed { operation, what: "the list changes all the time" })
    }

    /// Sets a device administratively up.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_up(&mut self, index: u32) -> Result<(), Error> {
        let request = Request::new(RTM_NEWLINK, NLM_F_ACK, self.next_sequence(), &link_message(index, IFF_UP, IFF_UP));
        self.acknowledged("set link up", &format!("link {index}"), request)
    }

    /// Sets a device administratively down.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_down(&mut self, index: u32) -> Result<(), Error> {
        let request = Request::new(RTM_NEWLINK, NLM_F_ACK, self.next_sequence(), &link_message(index, 0, IFF_UP));
        self.acknowledged("set link down", &format!("link {index}"), request)
    }

    /// Renames a device, which must be down on kernels before 6.2.
    ///
    /// # Errors
    /// [`Error::Refused`] with `EEXIST` when the name is taken; [`Error::InvalidName`].
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), Error> {
        valid_name(name)?;
        let request = Request::new(RTM_NEWLINK, NLM_F_ACK, self.next_sequence(), &link_message(index, 0, 0));
        self.acknowledged("rename link", &format!("{index} to {name}"), request.attribute_name(IFLA_IFNAME, name))
    }

    /// Moves a device into another network namespace under a name, in one step. The kernel drops its addresses.
    ///
    /// # Errors
    /// [`Error::Refused`] with `EEXIST` when the name is taken there; [`Error::InvalidName`].
    pub fn move_to(&mut self, index: u32, namespace: BorrowedFd<'_>, name: &str) -> Result<(), Error> {
        valid_name(name)?;
        let request = Request::new(RTM_NEWLINK, NLM_F_ACK, self.next_sequence(), &link_message(index, 0, IFF_UP))
            .attribute_u32(IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned())
            .attribute_name(IFLA_IFNAME, name);
        self.acknowledged("move link", &format!("{index} to another namespace as {name}"), request)
    }

    /// Gives a device an address that is kept until it is removed.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn add_address(&mut self, index: u32, address: &Address) -> Result<(), Error> {
        let request = address_request(index, address).sequence(self.next_sequence());
        self.acknowledged("add address", &format!("to link {index}"), request)
    }

    /// Sets devices up, each with its addresses, in one datagram.
    ///
    /// # Errors
    /// The first [`Error::Refused`]; the rest was carried out all the same.
    pub fn set_up_with(&mut self, devices: &[Ready<'_>]) -> Result<(), Error> {
        let names: Vec<String> = devices.iter().map(|device| format!("link {}", device.index)).collect();
        let mut requests = Vec::new();
        for (device, name) in devices.iter().zip(&names) {
            let change = |flags| Request::new(RTM_NEWLINK, NLM_F_ACK, 0, &link_message(device.index, flags, flags));
            if device.no_link_local {
                requests.push(("set address generation of", name.as_str(), no_link_local(change(0))));
            }
            requests.push(("set link up", name, change(IFF_UP)));
            for address in device.addresses {
                requests.push(("add address to", name, address_request(device.index, address)));
            }
        }
        self.0.pipeline(requests)
    }

    /// Makes a pair of connected devices.
    ///
    /// # Errors
    /// [`Error::Refused`] with `EEXIST` when a name is taken and `EOPNOTSUPP` when the kernel has no such devices;
    /// [`Error::InvalidName`].
    pub fn create_veth(&mut self, name: &str, peer: &str) -> Result<(), Error> {
        valid_name(name)?;
        valid_name(peer)?;
        let kind = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let request = Request::new(RTM_NEWLINK, kind, self.next_sequence(), &link_message(0, 0, 0))
            .attribute_name(IFLA_IFNAME, name)
            .nested(IFLA_LINKINFO, |info| {
                info.attribute_name(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
                    data.nested(VETH_INFO_PEER, |other| {
                        other.fixed(&link_message(0, 0, 0)).attribute_name(IFLA_IFNAME, peer)
                    })
                })
            });
        self.acknowledged("create veth pair", name, request)
    }

    /// Removes a device.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn delete(&mut self, index: u32) -> Result<(), Error> {
        let request = Request::new(RTM_DELLINK, NLM_F_ACK, self.next_sequence(), &link_message(index, 0, 0));
        self.acknowledged("delete link", &format!("link {index}"), request)
    }
}

pub(crate) fn parse_link(payload: &[u8]) -> Result<Link, &'static str> {
    let short = "truncated link";
    let index = codec::u32_at(payload, 4).ok_or(short)?;
    let flags = codec::u32_at(payload, 8).ok_or(short)?;
    let mut link = Link { index, flags, ..Link::default() };
    for attribute in codec::attributes(payload.get(LINK_FIXED..).ok_or(short)?) {
        match attribute? {
            (IFLA_IFNAME, value) => link.name = codec::string(value),
            (IFLA_MTU, value) => link.mtu = codec::u32_at(value, 0).ok_or("MTU is not 4 bytes")?,
            (IFLA_MASTER, value) => link.master = codec::u32_at(value, 0).ok_or("master is not 4 bytes")?,
            (IFLA_ADDRESS, value) => link.address = value.get(..32).unwrap_or(value).to_vec(),
            (IFLA_IFALIAS, value) => link.alias = codec::string(value),
            (IFLA_LINKINFO, value) => {
                let mut is_port = false;
                for attribute in codec::attributes(value) {
                    match attribute? {
                        (IFLA_INFO_KIND, value) => link.kind = codec::string(value),
                        (IFLA_INFO_SLAVE_KIND, value) => is_port = codec::string(value) == "bridge",
                        (IFLA_INFO_SLAVE_DATA, value) if is_port => link.hairpin = is_hairpin(value)?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(link)
}

fn parse_address(payload: &[u8]) -> Result<(u32, Address), &'static str> {
    let short = "truncated address";
    let &[family, prefix, flags, scope, ..] = payload else { return Err(short) };
    let index = codec::u32_at(payload, 4).ok_or(short)?;
    let mut address = Address {
        family,
        prefix,
        scope,
        flags: u32::from(flags),
        local: Vec::new(),
        peer: Vec::new(),
        broadcast: Vec::new(),
    };
    for attribute in codec::attributes(payload.get(ADDRESS_FIXED..).ok_or(short)?) {
        let (kind, value) = attribute?;
        if matches!(kind, IFA_LOCAL | IFA_ADDRESS | IFA_BROADCAST) && !matches!(value.len(), 4 | 16) {
            return Err("address is neither 4 nor 16 bytes");
        }
        match kind {
            IFA_LOCAL => address.local = value.to_vec(),
            IFA_ADDRESS => address.peer = value.to_vec(),
            IFA_BROADCAST => address.broadcast = value.to_vec(),
            IFA_FLAGS => address.flags = codec::u32_at(value, 0).ok_or("flags are not 4 bytes")?,
            _ => {}
        }
    }
    // IPv6 without a peer has only IFA_ADDRESS.
    if address.local.is_empty() {
        address.local.clone_from(&address.peer);
    }
    Ok((index, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
        let mut payload = vec![2, 24, 0x80, 0, 5, 0, 0, 0];
        payload[4..8].copy_from_slice(&5_u32.to_ne_bytes());
        for (kind, value) in [(IFA_ADDRESS, [10, 0, 0, 1]), (IFA_LOCAL, [10, 0, 0, 2])] {
            payload.extend_from_slice(&8_u16.to_ne_bytes());
            payload.extend_from_slice(&kind.to_ne_bytes());
            payload.extend_from_slice(&value);
        }
        let (index, address) = parse_address(&payload).unwrap();
        assert_eq!((index, address.prefix, address.flags), (5, 24, 0x80));
        assert_eq!((address.local, address.peer), (vec![10, 0, 0, 2], vec![10, 0, 0, 1]));
        for end in 0..ADDRESS_FIXED {
            assert!(parse_address(&payload[..end]).is_err());
        }
        payload[8] = 7;
        assert!(parse_address(&payload).is_err());
    }
}
