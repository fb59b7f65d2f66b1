//! Virtual devices: bridges, veth pairs across namespaces, devices on top of others, and changes to any.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use crate::codec::{self, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Request};
use crate::socket::{
    IFF_UP, IFLA_ADDRESS, IFLA_IFALIAS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MASTER,
    IFLA_MTU, IFLA_NET_NS_FD, Link, RTM_GETLINK, RTM_NEWLINK, Socket, VETH_INFO_PEER, link_message, parse_link,
};
use crate::transport::DUMP_ATTEMPTS;
use crate::{Error, valid_name};

const IFLA_LINK: u16 = 5;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
pub(crate) const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub(crate) const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_VLAN_ID: u16 = 1;
const AF_INET6: u16 = 10;
/// `IN6_ADDR_GEN_MODE_NONE`.
const GENERATE_NONE: u8 = 1;

/// A bridge to be made.
#[derive(Clone, Debug)]
pub struct Bridge<'a> {
    /// Name.
    pub name: &'a str,
    /// Hardware address, which then stays whatever ports come and go.
    pub address: [u8; 6],
    /// Largest packet; 0 leaves it to the kernel.
    pub mtu: u32,
    /// A text to leave on it.
    pub alias: &'a str,
    /// The kernel makes no IPv6 link-local address.
    pub no_link_local: bool,
}

/// A pair of connected devices to be made, one of them in another namespace.
#[derive(Clone, Debug)]
pub struct Veth<'a> {
    /// The end in the socket's namespace; it is set up.
    pub name: &'a str,
    /// The bridge that it becomes a port of.
    pub master: u32,
    /// Largest packet of both ends; 0 leaves it to the kernel.
    pub mtu: u32,
    /// The kernel makes no IPv6 link-local address at this end.
    pub no_link_local: bool,
    /// Name of the other end, which stays down.
    pub peer: &'a str,
    /// Hardware address of the other end.
    pub peer_address: [u8; 6],
    /// Where the other end is made.
    pub namespace: BorrowedFd<'a>,
}

/// How devices on top of one another see each other (`macvlan`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MacvlanMode {
    /// Not at all.
    Private,
    /// Through the switch outside.
    Vepa,
    /// Directly.
    #[default]
    Bridge,
    /// Only one has the lower device.
    Passthru,
}

/// What an `ipvlan` device forwards by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpvlanMode {
    /// Link layer.
    #[default]
    L2,
    /// Routes.
    L3,
    /// Routes, with connection tracking.
    L3s,
}

/// A device on top of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stacked {
    /// `macvlan`, with a hardware address of its own.
    Macvlan(MacvlanMode, [u8; 6]),
    /// `ipvlan`, with the lower device's hardware address.
    Ipvlan(IpvlanMode),
    /// An 802.1Q network of the lower device.
    Vlan(u16),
}

/// A change to a device; what is absent stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// Administratively up or down.
    pub up: Option<bool>,
    /// Bridge, 0 for none.
    pub master: Option<u32>,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// Name.
    pub name: Option<&'a str>,
    /// The kernel makes no IPv6 link-local address. In effect before `up`.
    pub no_link_local: bool,
}

/// A change to a bridge's port.
#[derive(Clone, Copy, Debug, Default)]
pub struct BridgePort {
    /// Frames may leave through the port that they came by.
    pub hairpin: bool,
    /// Isolated ports do not reach each other.
    pub isolated: bool,
}

const CREATE: u16 = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;

fn create(flags: u32) -> Request {
    Request::new(RTM_NEWLINK, CREATE, 0, &link_message(0, flags, flags))
}

fn change(index: u32, flags: u32, mask: u32) -> Request {
    Request::new(RTM_NEWLINK, NLM_F_ACK, 0, &link_message(index, flags, mask))
}

pub(crate) fn no_link_local(request: Request) -> Request {
    request.nested(IFLA_AF_SPEC, |families| {
        families.nested(AF_INET6, |inet6| inet6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[GENERATE_NONE]))
    })
}

/// [`BridgePort::hairpin`], of what the kernel says of a bridge's port.
pub(crate) fn is_hairpin(data: &[u8]) -> Result<bool, &'static str> {
    for attribute in codec::attributes(data) {
        if let (IFLA_BRPORT_MODE, value) = attribute? {
            return value.first().map(|mode| *mode != 0).ok_or("mode of a bridge's port is empty");
        }
    }
    Ok(false)
}

fn mtu(request: Request, mtu: u32) -> Request {
    if mtu == 0 { request } else { request.attribute_u32(IFLA_MTU, mtu) }
}

/// One queue each: with more, the kernel waits for an RCU grace period.
fn one_queue(request: Request) -> Request {
    request.attribute_u32(IFLA_NUM_TX_QUEUES, 1).attribute_u32(IFLA_NUM_RX_QUEUES, 1)
}

impl Socket {
    /// Makes a bridge and sets it up.
    ///
    /// # Errors
    /// [`Error::Refused`] with `EEXIST` when the name is taken; [`Error::InvalidName`].
    pub fn create_bridge(&mut self, bridge: &Bridge<'_>) -> Result<(), Error> {
        valid_name(bridge.name)?;
        let made = create(0).attribute_name(IFLA_IFNAME, bridge.name).attribute(IFLA_ADDRESS, &bridge.address).nested(
            IFLA_LINKINFO,
            |info| {
                info.attribute_name(IFLA_INFO_KIND, "bridge")
                    .nested(IFLA_INFO_DATA, |data| data.attribute(IFLA_BR_MCAST_SNOOPING, &[0]))
            },
        );
        let request = ("create bridge", bridge.name, mtu(made, bridge.mtu));
        // Not together with what follows: that must not happen to somebody else's device of the same name.
        self.0.pipeline(vec![request])?;
        let named = || change(0, 0, 0).attribute_name(IFLA_IFNAME, bridge.name);
        let mut requests = Vec::new();
        if !bridge.alias.is_empty() {
            requests.push(("describe bridge", bridge.name, named().attribute(IFLA_IFALIAS, bridge.alias.as_bytes())));
        }
        if bridge.no_link_local {
            requests.push(("set address generation of", bridge.name, no_link_local(named())));
        }
        let up = change(0, IFF_UP, IFF_UP).attribute_name(IFLA_IFNAME, bridge.name);
        requests.push(("set link up", bridge.name, up));
        self.0.pipeline(requests)
    }

    /// Makes a pair of devices, one end a port of a bridge, the other in another namespace.
    ///
    /// # Errors
    /// [`Error::Refused`] with `EEXIST` when a name is taken and `EXFULL` when the bridge has no port left. The pair may
    /// exist all the same when a later step was refused; it goes with the namespace.
    pub fn create_veth_across(&mut self, veth: &Veth<'_>) -> Result<(), Error> {
        valid_name(veth.name)?;
        valid_name(veth.peer)?;
        let made = create(0).attribute_name(IFLA_IFNAME, veth.name).attribute_u32(IFLA_MASTER, veth.master);
        let made = one_queue(mtu(made, veth.mtu)).nested(IFLA_LINKINFO, |info| {
            info.attribute_name(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    let peer = peer
                        .fixed(&link_message(0, 0, 0))
                        .attribute_name(IFLA_IFNAME, veth.peer)
                        .attribute_u32(IFLA_NET_NS_FD, veth.namespace.as_raw_fd().cast_unsigned())
                        .attribute(IFLA_ADDRESS, &veth.peer_address);
                    one_queue(mtu(peer, veth.mtu))
                })
            })
        });
        let mut requests = vec![("create veth pair", veth.name, made)];
        let named = |flags| change(0, flags, flags).attribute_name(IFLA_IFNAME, veth.name);
        if veth.no_link_local {
            requests.push(("set address generation of", veth.name, no_link_local(named(0))));
        }
        requests.push(("set link up", veth.name, named(IFF_UP)));
        self.0.pipeline(requests)
    }

    /// Makes a device on top of `lower`, in another namespace if one is given. It stays down.
    ///
    /// # Errors
    /// [`Error::Refused`] with `EEXIST` when the name is taken, `EOPNOTSUPP` when the kernel has no such devices, and
    /// `EBUSY` when the lower device is used in another way.
    pub fn create_stacked(
        &mut self,
        name: &str,
        lower: u32,
        stacked: Stacked,
        link_mtu: u32,
        namespace: Option<BorrowedFd<'_>>,
    ) -> Result<(), Error> {
        valid_name(name)?;
        let mut request = create(0).attribute_name(IFLA_IFNAME, name).attribute_u32(IFLA_LINK, lower);
        request = mtu(request, link_mtu);
        if let Some(namespace) = namespace {
            request = request.attribute_u32(IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned());
        }
        let (operation, kind) = match stacked {
            Stacked::Macvlan(_, address) => {
                request = request.attribute(IFLA_ADDRESS, &address);
                ("create macvlan", "macvlan")
            }
            Stacked::Ipvlan(_) => ("create ipvlan", "ipvlan"),
            Stacked::Vlan(_) => ("create vlan", "vlan"),
        };
        let request = request.nested(IFLA_LINKINFO, |info| {
            info.attribute_name(IFLA_INFO_KIND, kind).nested(IFLA_INFO_DATA, |data| match stacked {
                Stacked::Macvlan(mode, _) => data.attribute_u32(IFLA_MACVLAN_MODE, 1 << mode as u32),
                Stacked::Ipvlan(mode) => data.attribute(IFLA_IPVLAN_MODE, &(mode as u16).to_ne_bytes()),
                Stacked::Vlan(id) => data.attribute(IFLA_VLAN_ID, &id.to_ne_bytes()),
            })
        });
        self.0.pipeline(vec![(operation, name, request)])
    }

    /// Changes a device.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::InvalidName`].
    pub fn change(&mut self, index: u32, wanted: Change<'_>) -> Result<(), Error> {
        let object = format!("link {index}");
        let mut requests = Vec::new();
        if wanted.no_link_local {
            requests.push(("set address generation of", object.as_str(), no_link_local(change(index, 0, 0))));
        }
        let (flags, mask) = wanted.up.map_or((0, 0), |up| (if up { IFF_UP } else { 0 }, IFF_UP));
        let mut request = mtu(change(index, flags, mask), wanted.mtu.unwrap_or(0));
        if let Some(name) = wanted.name {
            valid_name(name)?;
            request = request.attribute_name(IFLA_IFNAME, name);
        }
        if let Some(master) = wanted.master {
            request = request.attribute_u32(IFLA_MASTER, master);
        }
        requests.push(("change", &object, request));
        self.0.pipeline(requests)
    }

    /// Changes a port of a bridge.
    ///
    /// # Errors
    /// [`Error::Refused`], also when the device is no port.
    pub fn change_bridge_port(&mut self, name: &str, port: BridgePort) -> Result<(), Error> {
        let request = change(0, 0, 0).attribute_name(IFLA_IFNAME, name).nested(IFLA_LINKINFO, |info| {
            info.attribute_name(IFLA_INFO_SLAVE_KIND, "bridge").nested(IFLA_INFO_SLAVE_DATA, |data| {
                data.attribute(IFLA_BRPORT_MODE, &[u8::from(port.hairpin)])
                    .attribute(IFLA_BRPORT_ISOLATED, &[u8::from(port.isolated)])
            })
        });
        self.0.pipeline(vec![("change bridge port", name, request)])
    }

    /// All devices of the namespace.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Socket`].
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let operation = "list links";
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.0.next_sequence();
            let request = Request::new(RTM_GETLINK, NLM_F_DUMP, sequence, &link_message(0, 0, 0));
            let mut found = Vec::new();
            let interrupted = self.0.transact(operation, "", &request.finish(), |message: &codec::Message<'_>| {
                if message.kind == RTM_NEWLINK {
                    found.push(parse_link(message.payload)?);
                }
                Ok(())
            })?;
            if !interrupted {
                return Ok(found);
            }
        }
        Err(Error::Malformed { operation, what: "the list changes all the time" })
    }
}
