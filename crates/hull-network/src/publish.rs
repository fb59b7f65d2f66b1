//! Published ports of a container: taken from the machine, put down, opened in the firewall, closed.

use std::net::{IpAddr, SocketAddr};

use hull_db::Sync;
use hull_netlink::conntrack;
use hull_netlink::nft::Element;
use rusqlite::Connection;
use rustix::io::Errno;

use crate::endpoints::{Attachment, Plan, choose_gateway};
use crate::host::Host;
use crate::networks::Networks;
use crate::options::GatewayMode;
use crate::ports::{self, Publish};
use crate::record::{Driver, Endpoint, Network, Protocol, Published};
use crate::{Error, bridge, firewall, store};

/// What is to be closed: elements of the firewall's maps, and the UDP ports behind them with their version of IP.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    elements: Vec<(&'static str, Element)>,
    flows: Vec<(bool, u16)>,
}

impl Closing {
    pub(crate) fn extend(&mut self, other: Self) {
        self.elements.extend(other.elements);
        self.flows.extend(other.flows);
    }
}

/// The UDP ports among them, each with its version of IP.
fn flows(published: &[Published]) -> impl Iterator<Item = (bool, u16)> {
    published
        .iter()
        .filter(|one| one.protocol == Protocol::Udp && one.host_port != 0)
        .map(|one| (one.host.is_ipv4(), one.host_port))
}

/// What the kernel says of elements that are there already, with another value or as a part of another range.
const IN_THE_WAY: [Errno; 3] = [Errno::EXIST, Errno::BUSY, Errno::NOTEMPTY];

/// A wish, the one address of the machine that it is for if any, and what keeps the port.
pub(crate) type Taken = (Publish, Option<IpAddr>, ports::Reserved);

impl Networks {
    /// Takes ports of the machine.
    pub(crate) fn reserve(&self, network: &Network, publish: &[Publish]) -> Result<Vec<Taken>, Error> {
        let options = network.settings()?;
        let routed = |ipv4| options.gateway(ipv4) == GatewayMode::Routed && network.pool(ipv4).is_some();
        let mut all = Vec::with_capacity(publish.len());
        let mut machine = ports::Machine::default();
        for wish in publish {
            let host = wish.host.filter(|host| !host.is_unspecified()).or(match wish.host {
                Some(_) => None,
                None => options.host_binding,
            });
            // 0.0.0.0 and [::] are one version's; no address at all is both.
            let (ipv4, ipv6) = match wish.host {
                Some(host) => (host.is_ipv4(), host.is_ipv6()),
                None => (true, true),
            };
            let (ipv4, ipv6) = (ipv4 && !routed(true), ipv6 && !routed(false));
            let reserved = if (host.is_none() && !ipv4 && !ipv6) || host.is_some_and(|host| routed(host.is_ipv4())) {
                ports::Reserved { port: 0, sockets: Vec::new(), routed: true }
            } else {
                machine.reserve(wish, host, ipv4, ipv6).map_err(|error| self.name_owner(error, wish.protocol))?
            };
            all.push((wish.clone(), host, reserved));
        }
        Ok(all)
    }

    /// Says which container has a port.
    fn name_owner(&self, error: Error, protocol: Protocol) -> Error {
        let Error::PortTaken { address, port, protocol: word, .. } = error else { return error };
        let publishers = self.db.read(store::publishers).unwrap_or_default();
        let same = |one: &Published| {
            let all = address.is_unspecified() || one.host.is_unspecified();
            one.protocol == protocol && one.host_port == port && (all || one.host == address)
        };
        let owner = match publishers.into_iter().find(|(_, _, list)| list.iter().any(same)) {
            Some((_, name, _)) => format!(" by container {name}"),
            None => " by a program of the machine".to_owned(),
        };
        Error::PortTaken { address, port, protocol: word, owner }
    }

    pub(crate) fn open_ports(&self, host: &mut Host, plan: &Plan, said: &mut Vec<String>) -> Result<(), Error> {
        let mut elements = Vec::new();
        for (network, endpoint) in plan.networks.iter().zip(&plan.endpoints) {
            let own = |one: &&Published| endpoint.addresses.iter().any(|(address, _)| *address == one.address);
            let published: Vec<Published> = plan.published.iter().filter(own).copied().collect();
            elements.extend(firewall::ports(network, &published)?);
        }
        if elements.is_empty() {
            return Ok(());
        }
        if plan.evicted {
            bridge::mend(host, &self.db, &self.state, said)?;
            return Ok(conntrack::forget_udp(flows(&plan.published))?);
        }
        let before = host.firewall()?.generation()?;
        match firewall::change_ports(host.firewall()?, &elements, &[]) {
            Ok(()) => bridge::note_own_change(host, &self.state, before)?,
            // Of somebody who was killed.
            Err(error) if IN_THE_WAY.into_iter().any(|errno| error.is(errno)) => {
                self.db.write(Sync::Normal, |connection| evict(connection, plan))?;
                bridge::mend(host, &self.db, &self.state, said)?;
            }
            // The table has just been removed.
            Err(error) if error.is(Errno::NOENT) => {
                bridge::mend(host, &self.db, &self.state, said)?;
            }
            Err(error) => return Err(error),
        }
        // Peers who were there before, and were told that nobody listens, or led to a container that is gone.
        Ok(conntrack::forget_udp(flows(&plan.published))?)
    }

    pub(crate) fn close_ports(&self, host: &mut Host, closing: &Closing) -> Result<(), Error> {
        self.change_ports(host, closing, None)
    }

    /// Closes ports, and opens those that have moved, in one transaction.
    pub(crate) fn change_ports(&self, host: &mut Host, closing: &Closing, moved: Option<&Moved>) -> Result<(), Error> {
        let opening = moved.map_or(&[][..], |moved| &moved.elements);
        if closing.elements.is_empty() && opening.is_empty() {
            return Ok(());
        }
        let before = host.firewall()?.generation()?;
        match firewall::change_ports(host.firewall()?, opening, &closing.elements) {
            Ok(()) => bridge::note_own_change(host, &self.state, before)?,
            // Some were not there, or there already: the table is mended from the records.
            Err(error) if error.is(Errno::NOENT) || IN_THE_WAY.into_iter().any(|errno| error.is(errno)) => {
                bridge::mend(host, &self.db, &self.state, &mut Vec::new())?;
            }
            Err(error) => return Err(error),
        }
        // The address may be another container's soon.
        Ok(conntrack::forget_udp(closing.flows.iter().copied())?)
    }
}

/// What was published on a network that a container has left, on the one whose turn it is.
pub(crate) struct Moved {
    elements: Vec<(&'static str, Element)>,
    /// Where it is now.
    pub(crate) network: Network,
    pub(crate) endpoint: Endpoint,
}

/// Publishes on another network of a container what was published on one that it leaves; `None` when no other has a way
/// out. The machine's ports stay the same.
pub(crate) fn move_ports(
    connection: &Connection,
    rest: &[Endpoint],
    published: &[Published],
) -> Result<Option<Moved>, Error> {
    let mut networks = Vec::new();
    for endpoint in rest {
        networks.extend(store::find(connection, &endpoint.network)?.map(|network| (network, endpoint)));
    }
    let wishes: Vec<Attachment> = networks.iter().map(|(_, endpoint)| Attachment::from(*endpoint)).collect();
    let (mut networks, endpoints): (Vec<Network>, Vec<&Endpoint>) = networks.into_iter().unzip();
    let Some(index) = publisher(&networks, choose_gateway(&networks, &wishes)) else { return Ok(None) };
    let (network, endpoint) = (networks.swap_remove(index), endpoints[index].clone());
    let options = network.settings()?;
    let ipv4 = endpoint.ipv4().map(IpAddr::V4);
    let ipv6 = endpoint.ipv6().map(IpAddr::V6);
    let mut list = Vec::new();
    for one in published {
        let found = if one.host.is_ipv4() { ipv4.or(ipv6) } else { ipv6.or(ipv4) };
        let Some(address) = found else { continue };
        let routed =
            options.gateway(one.host.is_ipv4()) == GatewayMode::Routed && address.is_ipv4() == one.host.is_ipv4();
        // What was routed has no port of the machine.
        if routed || one.host_port != 0 {
            list.push(Published { address, host_port: if routed { 0 } else { one.host_port }, ..*one });
        }
    }
    store::set_ports(connection, endpoint.id, &list)?;
    let elements = firewall::ports(&network, &list)?;
    Ok(Some(Moved { elements, network, endpoint }))
}

/// The network on which ports are published, of those where the container is: its gateway's.
pub(crate) fn publisher(networks: &[Network], gateway: Option<usize>) -> Option<usize> {
    gateway
        .filter(|index| networks[*index].driver == Driver::Bridge)
        .or_else(|| networks.iter().position(|one| one.driver == Driver::Bridge && !one.internal))
}

/// Takes an endpoint out of the records; gives what is to be closed.
pub(crate) fn forget(connection: &Connection, endpoint: &Endpoint) -> Result<Closing, Error> {
    let published = store::ports_of_endpoint(connection, endpoint.id)?;
    let elements = match store::find(connection, &endpoint.network)? {
        Some(network) if !published.is_empty() => firewall::ports(&network, &published)?,
        _ => Vec::new(),
    };
    store::leave(connection, endpoint.id)?;
    Ok(Closing { elements, flows: flows(&published).collect() })
}

/// Ports that are chosen where no socket can be asked for one.
const DYNAMIC: std::ops::RangeInclusive<u16> = 49153..=65535;

/// A port of a protocol that the kernel has no sockets of, which is SCTP: the first that no other container has. Nobody but
/// containers can have one on such a machine. In a transaction that writes, so that two never choose the same.
fn choose(connection: &Connection, wish: &Publish, host: Option<IpAddr>, own: &[Published]) -> Result<u16, Error> {
    let publishers = store::publishers(connection)?;
    let in_conflict = |one: &Published, port: u16| {
        let all = one.host.is_unspecified() || host.is_none();
        (one.protocol, one.host_port) == (wish.protocol, port) && (all || Some(one.host) == host)
    };
    let mut taken = None;
    for port in wish.host_ports.clone().unwrap_or(DYNAMIC) {
        let others = publishers.iter().find(|(.., list)| list.iter().any(|one| in_conflict(one, port)));
        match others {
            None if !own.iter().any(|one| in_conflict(one, port)) => return Ok(port),
            other => taken = Some((port, other.map(|(_, name, _)| name.clone()))),
        }
    }
    let (port, owner) = taken.unwrap_or_default();
    let any = if wish.host.is_some_and(|host| host.is_ipv6()) { IpAddr::from([0; 16]) } else { IpAddr::from([0; 4]) };
    Err(Error::PortTaken {
        address: host.unwrap_or(any),
        port,
        protocol: wish.protocol.as_str(),
        owner: owner.map_or_else(|| " by the same container".to_owned(), |name| format!(" by container {name}")),
    })
}

/// Puts published ports down and makes reservations of the sockets.
pub(crate) fn publish_ports(
    connection: &Connection,
    plan: &mut Plan,
    index: usize,
    reserved: Vec<Taken>,
) -> Result<(), Error> {
    let network = &plan.networks[index];
    let options = network.settings()?;
    let endpoint = &plan.endpoints[index];
    let ipv4 = endpoint.ipv4().map(IpAddr::V4);
    let ipv6 = endpoint.ipv6().map(IpAddr::V6);
    let target = |host_is_ipv4: bool| if host_is_ipv4 { ipv4.or(ipv6) } else { ipv6.or(ipv4) };
    let mut published = Vec::new();
    for (wish, host, taken) in reserved {
        let any = |is_ipv4: bool| if is_ipv4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let versions: Vec<IpAddr> = match (host, wish.host) {
            (Some(host), _) => vec![host],
            (None, Some(host)) => vec![any(host.is_ipv4())],
            (None, None) => vec![any(true), any(false)],
        };
        let unkept = wish.protocol == Protocol::Sctp && taken.sockets.is_empty() && !taken.routed;
        let port = if unkept { choose(connection, &wish, host, &published)? } else { taken.port };
        for host in versions {
            let Some(address) = target(host.is_ipv4()) else { continue };
            let routed = options.gateway(host.is_ipv4()) == GatewayMode::Routed && address.is_ipv4() == host.is_ipv4();
            let held = |(_, at, both): &(_, IpAddr, bool)| at.is_ipv4() == host.is_ipv4() || (*both && host.is_ipv4());
            // A machine without IPv6 publishes nothing there.
            if !routed && host.is_ipv6() && !taken.sockets.is_empty() && !taken.sockets.iter().any(held) {
                continue;
            }
            let host_port = if routed { 0 } else { port };
            published.push(Published { protocol: wish.protocol, host, host_port, address, port: wish.port });
        }
        for socket in taken.sockets {
            let Some(address) = target(socket.1.is_ipv4() || socket.2) else { continue };
            let target = SocketAddr::new(address, wish.port);
            plan.reservations.push(ports::reservation(&wish, socket, taken.port, target));
        }
    }
    store::set_ports(connection, endpoint.id, &published)?;
    plan.published = published;
    // In the firewall a range is not in the way of one port of somebody who was killed, which would be asked first.
    if firewall::has_ranges(&plan.published) {
        plan.evicted = evict(connection, plan)?;
    }
    Ok(())
}

/// Takes ports that are the plan's from others: it has the sockets, so they have not. Gives whether there were any.
fn evict(connection: &Connection, plan: &Plan) -> Result<bool, Error> {
    let conflict = |other: &Published| {
        plan.published.iter().any(|one| {
            let all = one.host.is_unspecified() || other.host.is_unspecified();
            (one.protocol, one.host_port) == (other.protocol, other.host_port)
                && one.host_port != 0
                && one.host.is_ipv4() == other.host.is_ipv4()
                && (all || one.host == other.host)
        })
    };
    let mut evicted = false;
    for (owner, name, mut list) in store::publishers(connection)? {
        if plan.endpoints.iter().any(|endpoint| endpoint.id == owner) {
            continue;
        }
        // Where the kernel knows no such sockets, nobody can tell who is alive.
        if let Some(port) = list.iter().find(|port| port.protocol == Protocol::Sctp && conflict(port)) {
            return Err(Error::PortTaken {
                address: port.host,
                port: port.host_port,
                protocol: port.protocol.as_str(),
                owner: format!(" by container {name}"),
            });
        }
        let before = list.len();
        list.retain(|port| !conflict(port));
        if list.len() != before {
            store::set_ports(connection, owner, &list)?;
            evicted = true;
        }
    }
    Ok(evicted)
}
