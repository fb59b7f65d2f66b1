//! Containers on networks: planned with records, attached with devices, detached without any.
//!
//! ```text
//! plan     reserve ports of the machine (sockets), then one transaction: endpoints, addresses, ports
//! attach   bridge and firewall in place?  device pair  addresses and routes inside  elements of maps
//! detach   one transaction: the endpoints are leaving; elements of maps are removed
//! ```
//!
//! A container that ends removes no device: its end of the pair goes with its namespace, and the other end with it. Its
//! addresses stay taken until the kernel has removed that.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use hull_db::Sync;
use hull_netlink::{Socket, Veth};
use rusqlite::Connection;
use rustix::io::Errno;

use crate::hairpin::set_up_port;
use crate::host::Host;
use crate::inside::{Inside, set_gateway};
use crate::networks::Networks;
use crate::options::GatewayMode;
use crate::ports::{Publish, Reservation};
use crate::publish::{Closing, forget, move_ports, publish_ports, publisher};
use crate::record::{Driver, Endpoint, Mac, Network, Published};
use crate::{Error, bridge, firewall, pool, stacked, store};

/// So many devices are put on a bridge of a network; the kernel takes 1023, and further bridges need some.
const DEVICES_PER_BRIDGE: u32 = 1000;
/// Bridges of one network.
const MAX_BRIDGES: u32 = 9;
/// So many endpoints whose containers are gone are looked after with each start.
const SWEEP: u32 = 8;

/// A wish to be on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Name, ID, or beginning of an ID.
    pub network: String,
    /// Address that the user chose.
    pub ipv4: Option<Ipv4Addr>,
    /// Address that the user chose.
    pub ipv6: Option<Ipv6Addr>,
    /// Hardware address that the user chose.
    pub mac: Option<Mac>,
    /// Other names.
    pub aliases: Vec<String>,
    /// The highest one's gateway is the container's (`gw-priority`).
    pub priority: i64,
    /// Name of the device in the container; absent is `eth0` and so on.
    pub interface: Option<String>,
}

/// A container that is recorded on its networks and not yet attached.
#[derive(Debug)]
pub struct Plan {
    /// The container's ID.
    pub container: String,
    /// Its networks, in the order of the attachments.
    pub endpoints: Vec<Endpoint>,
    /// The endpoint whose gateway is the container's; absent when no network has a way out.
    pub gateway: Option<usize>,
    /// What is published, for `port` and `ps`.
    pub published: Vec<Published>,
    /// Sockets that keep ports of the machine. Whoever looks after the container holds them as long as it runs, and gives
    /// them to a [`crate::Proxy`].
    pub reservations: Vec<Reservation>,
    pub(crate) networks: Vec<Network>,
    /// Ports were taken from others in the records, who may still have them in the firewall.
    pub(crate) evicted: bool,
}

/// Who a plan is made for.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The container's ID.
    pub id: &'a str,
    /// The container's name.
    pub name: &'a str,
}

impl Plan {
    /// The network of an endpoint.
    #[must_use]
    pub fn network(&self, endpoint: usize) -> Option<&Network> {
        self.networks.get(endpoint)
    }

    /// Whether all networks are internal: nothing of the container's may reach the outside, names neither.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.networks.iter().all(|network| network.internal)
    }
}

impl From<&Endpoint> for Attachment {
    /// What chooses a gateway among networks.
    fn from(endpoint: &Endpoint) -> Self {
        Self { priority: endpoint.priority, network: endpoint.network.clone(), ..Self::default() }
    }
}

fn mac_for(addresses: &[(IpAddr, u8)]) -> Result<Mac, Error> {
    // The same address has the same hardware address, so that nobody's table of neighbours is ever wrong.
    if let Some((IpAddr::V4(address), _)) = addresses.first() {
        let [a, b, c, d] = address.octets();
        return Ok(Mac([0x02, 0x42, a, b, c, d]));
    }
    let mut random = [0; 6];
    crate::random(&mut random)?;
    random[0] = random[0] & 0xfc | 0x02;
    Ok(Mac(random))
}

/// A name for the machine's end that nobody has: the beginning of the container's ID and a number.
fn link_name(connection: &Connection, container: &str) -> Result<String, Error> {
    let start: String = container.chars().filter(char::is_ascii_alphanumeric).take(11).collect();
    for number in 0..256 {
        let name = format!("hv{start}{number:02x}");
        let query = "SELECT count(*) FROM endpoints WHERE link = ?1";
        let taken: u32 = connection.prepare_cached(query)?.query_row([&name], |row| row.get(0))?;
        if taken == 0 {
            return Ok(name);
        }
    }
    Err(Error::Unsupported(format!("container {container} has been connected too often in a short time: try again")))
}

/// Forgets some endpoints whose devices are gone.
pub(crate) fn sweep(host: &mut Host, connection: &Connection, limit: u32) -> Result<(), Error> {
    for (id, link) in store::leaving(connection, limit)? {
        if host.link(&link)?.is_none() {
            store::delete_endpoint(connection, id)?;
        }
    }
    Ok(())
}

impl Networks {
    /// Puts a container down on its networks: ports of the machine are taken, addresses chosen, records written.
    /// [`Networks::detach`] undoes it.
    ///
    /// # Errors
    /// Whatever cannot be had, naming who has it; nothing is left then.
    pub fn plan(&self, who: Who<'_>, wishes: &[Attachment], publish: &[Publish]) -> Result<Plan, Error> {
        let mut networks = Vec::new();
        for wish in wishes {
            let network = self.find(&wish.network)?;
            if matches!(network.driver, Driver::Host | Driver::Null) {
                let name = network.name;
                return Err(Error::Unsupported(format!("conflicting options: network {name} and another network")));
            }
            if networks.iter().any(|other: &Network| other.id == network.id) {
                return Err(Error::Connected { container: who.name.to_owned(), network: network.name });
            }
            networks.push(network);
        }
        let gateway = choose_gateway(&networks, wishes);
        let publisher = publisher(&networks, gateway);
        let reserved = match publisher {
            Some(index) => self.reserve(&networks[index], publish)?,
            None => Vec::new(),
        };
        let mut host = Host::default();
        let mut plan = self.db.write(Sync::Normal, |connection| {
            sweep(&mut host, connection, SWEEP)?;
            let mut endpoints: Vec<Endpoint> = Vec::new();
            for (network, wish) in networks.iter().zip(wishes) {
                let names: Vec<String> = endpoints.iter().map(|one| one.interface.clone()).collect();
                endpoints.push(place(&mut host, connection, who, network, wish, &names)?);
            }
            Ok::<_, Error>(Plan {
                container: who.id.to_owned(),
                endpoints,
                gateway,
                published: Vec::new(),
                reservations: Vec::new(),
                networks,
                evicted: false,
            })
        })?;
        if let Some(index) = publisher
            && !reserved.is_empty()
        {
            let published =
                self.db.write(Sync::Normal, |connection| publish_ports(connection, &mut plan, index, reserved));
            if let Err(error) = published {
                // The first error is what the user needs.
                let _ = self.detach(who.id);
                return Err(error);
            }
        }
        Ok(plan)
    }

    /// Gives a container its devices. Lines for the user go to `said`.
    ///
    /// The container's namespace must be new or empty. Nothing of the container runs yet, or what runs sees devices come.
    ///
    /// # Errors
    /// Any; [`Networks::detach`] undoes what was made.
    pub fn attach(&self, plan: &Plan, namespace: BorrowedFd<'_>, said: &mut Vec<String>) -> Result<(), Error> {
        let mut host = Host::default();
        let mut inside = Inside::open(namespace, &plan.networks)?;
        for (network, endpoint) in plan.networks.iter().zip(&plan.endpoints) {
            let published =
                plan.published.iter().any(|one| endpoint.addresses.iter().any(|(own, _)| *own == one.address));
            inside.expect(network)?;
            self.make_devices(&mut host, network, endpoint, namespace, published, said)?;
        }
        let endpoints: Vec<&Endpoint> = plan.endpoints.iter().collect();
        let indexes = inside.dress(&plan.networks, &endpoints)?;
        if let Some(chosen) = plan.gateway {
            inside.set_gateway(&plan.networks[chosen], &plan.endpoints[chosen], indexes[chosen])?;
        }
        self.open_ports(&mut host, plan, said)
    }

    fn make_devices(
        &self,
        host: &mut Host,
        network: &Network,
        endpoint: &Endpoint,
        namespace: BorrowedFd<'_>,
        published: bool,
        said: &mut Vec<String>,
    ) -> Result<(), Error> {
        if network.driver != Driver::Bridge {
            return stacked::attach(host, network, endpoint, namespace);
        }
        let ready = bridge::ensure(host, &self.db, &self.state, network, endpoint.bridge, said)?;
        let veth = Veth {
            name: &endpoint.link,
            master: ready.index,
            mtu: ready.mtu,
            no_link_local: true,
            peer: &endpoint.interface,
            peer_address: endpoint.mac.0,
            namespace,
        };
        let mut made = host.route()?.create_veth_across(&veth);
        if matches!(made, Err(hull_netlink::Error::Refused { errno: Errno::EXIST, .. })) {
            // Nobody has this name by the records: it is left of an earlier life of this container, whose start was given up
            // before its device was there.
            host.remove_link(&endpoint.link)?;
            made = host.route()?.create_veth_across(&veth);
        }
        made.map_err(|error| {
            let error = Error::from(error);
            if error.is(Errno::XFULL) {
                let bridge = firewall::bridge_name(&network.device, endpoint.bridge);
                return Error::BridgeFull { bridge, network: network.name.clone() };
            }
            error
        })?;
        set_up_port(host, network, endpoint, published)
    }

    /// Takes a container off all its networks. Its devices go with its namespace; its addresses are kept from others until
    /// then. A container that is on none is no error.
    ///
    /// # Errors
    /// [`Error::Database`]; or what the firewall refused, after the records were changed.
    pub fn detach(&self, container: &str) -> Result<(), Error> {
        let known = self.db.read(|connection| store::endpoints_of_container(connection, container))?;
        if known.is_empty() {
            return Ok(());
        }
        let closing = self.db.write(Sync::Normal, |connection| {
            let mut closing = Closing::default();
            for endpoint in store::endpoints_of_container(connection, container)? {
                closing.extend(forget(connection, &endpoint)?);
            }
            Ok::<_, Error>(closing)
        })?;
        self.close_ports(&mut Host::default(), &closing)
    }

    /// Puts a running container on one more network.
    ///
    /// # Errors
    /// As [`Networks::plan`] and [`Networks::attach`]; the container is not on the network then.
    pub fn connect(
        &self,
        who: Who<'_>,
        wish: &Attachment,
        namespace: BorrowedFd<'_>,
        said: &mut Vec<String>,
    ) -> Result<Endpoint, Error> {
        let network = self.find(&wish.network)?;
        if matches!(network.driver, Driver::Host | Driver::Null) {
            let name = network.name;
            return Err(Error::Unsupported(format!("container cannot be connected to network {name} while it runs")));
        }
        let mut host = Host::default();
        let endpoint = self.db.write(Sync::Normal, |connection| {
            sweep(&mut host, connection, SWEEP)?;
            let others = store::endpoints_of_container(connection, who.id)?;
            if others.iter().any(|other| other.network == network.id) {
                return Err(Error::Connected { container: who.name.to_owned(), network: network.name.clone() });
            }
            let names: Vec<String> = others.into_iter().map(|other| other.interface).collect();
            place(&mut host, connection, who, &network, wish, &names)
        })?;
        let made = (|| {
            let networks = std::slice::from_ref(&network);
            let mut inside = Inside::open(namespace, networks)?;
            inside.expect(&network)?;
            self.make_devices(&mut host, &network, &endpoint, namespace, false, said)?;
            inside.dress(networks, &[&endpoint])?;
            self.follow_gateway(who.id, namespace)
        })();
        if let Err(error) = made {
            // The first error is what the user needs.
            let _ = host.remove_link(&endpoint.link);
            let _ = self.db.write(Sync::Normal, |connection| store::delete_endpoint(connection, endpoint.id));
            return Err(error);
        }
        Ok(endpoint)
    }

    /// Takes a container off one network. `namespace` is absent when it does not run; its device is removed otherwise.
    /// Ports that were published there are published on the network whose gateway is the container's from then on, if there
    /// is one; whoever keeps their [`crate::Proxy`] is to tell it ([`crate::Proxy::follow`]).
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn disconnect(
        &self,
        who: Who<'_>,
        network: &str,
        namespace: Option<BorrowedFd<'_>>,
    ) -> Result<Endpoint, Error> {
        let network = self.find(network)?;
        let mut host = Host::default();
        let (endpoint, closing, moved) = self.db.write(Sync::Normal, |connection| {
            let all = store::endpoints_of_container(connection, who.id)?;
            let not_there = || Error::NotConnected { container: who.name.to_owned(), network: network.name.clone() };
            let (left, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.network == network.id);
            let endpoint = left.into_iter().next().ok_or_else(not_there)?;
            let published = store::ports_of_endpoint(connection, endpoint.id)?;
            let closing = forget(connection, &endpoint)?;
            let moved = match published.as_slice() {
                [] => None,
                published => move_ports(connection, &rest, published)?,
            };
            Ok::<_, Error>((endpoint, closing, moved))
        })?;
        let mut errors = Vec::new();
        errors.extend(self.change_ports(&mut host, &closing, moved.as_ref()).err());
        if let Some(moved) = &moved {
            errors.extend(set_up_port(&mut host, &moved.network, &moved.endpoint, true).err());
        }
        if let Some(namespace) = namespace {
            let removed = Socket::open_in(namespace).and_then(|mut inside| match inside.link(&endpoint.interface) {
                Ok(link) => inside.delete(link.index),
                Err(hull_netlink::Error::NoLink(_)) => Ok(()),
                Err(error) => Err(error),
            });
            errors.extend(removed.err().map(Error::from));
            errors.extend(self.follow_gateway(who.id, namespace).err());
        }
        let swept = self.db.write(Sync::Normal, |connection| {
            if host.link(&endpoint.link)?.is_none() {
                store::delete_endpoint(connection, endpoint.id)?;
            }
            Ok::<_, Error>(())
        });
        errors.extend(swept.err());
        Error::collect(errors).map(|()| endpoint)
    }

    /// Gives a running container the default routes of the network whose turn it is.
    fn follow_gateway(&self, container: &str, namespace: BorrowedFd<'_>) -> Result<(), Error> {
        let endpoints = self.endpoints_of(container)?;
        let networks = endpoints.iter().map(|one| self.find(&one.network)).collect::<Result<Vec<_>, _>>()?;
        let wishes: Vec<Attachment> = endpoints.iter().map(Attachment::from).collect();
        let mut inside = Socket::open_in(namespace)?;
        let ours: BTreeSet<IpAddr> = endpoints.iter().flat_map(|one| one.gateways.iter().copied()).collect();
        let chosen = choose_gateway(&networks, &wishes);
        let wanted: Vec<IpAddr> = chosen.map(|index| endpoints[index].gateways.clone()).unwrap_or_default();
        let mut there = false;
        for route in
            inside.routes()?.into_iter().filter(|route| route.prefix == 0 && route.table == 254 && route.kind == 1)
        {
            match route.gateway {
                Some(gateway) if wanted.contains(&gateway) => there = true,
                // What the container made for itself stays.
                Some(gateway) if ours.contains(&gateway) => {
                    inside.remove_route(route.link, route.destination, 0, Some(gateway))?;
                }
                _ => {}
            }
        }
        match chosen {
            Some(chosen) if !there => {
                let index = inside.link(&endpoints[chosen].interface)?.index;
                set_gateway(&mut inside, &networks[chosen], &endpoints[chosen], index)
            }
            _ => Ok(()),
        }
    }
}

/// The network whose gateway is the container's: the highest priority, then the first name, of those with a way out.
pub(crate) fn choose_gateway(networks: &[Network], wishes: &[Attachment]) -> Option<usize> {
    let candidates = networks.iter().enumerate().filter(|(_, network)| {
        let isolated = |settings: crate::options::Options| {
            network.pools.iter().all(|pool| settings.gateway(pool.subnet.is_ipv4()) == GatewayMode::Isolated)
        };
        !network.internal
            && network.pools.iter().any(|pool| pool.gateway.is_some())
            && network.settings().is_ok_and(|settings| !isolated(settings))
    });
    candidates
        .min_by(|(a, left), (b, right)| {
            wishes[*b].priority.cmp(&wishes[*a].priority).then_with(|| left.name.cmp(&right.name))
        })
        .map(|(index, _)| index)
}

/// Chooses addresses, names and a bridge, and puts the endpoint down.
fn place(
    host: &mut Host,
    connection: &Connection,
    who: Who<'_>,
    network: &Network,
    wish: &Attachment,
    taken_names: &[String],
) -> Result<Endpoint, Error> {
    let options = network.settings()?;
    let mut addresses = Vec::new();
    let wanted4 = wish.ipv4.map(IpAddr::V4);
    let wanted6 = wish.ipv6.map(IpAddr::V6);
    for wanted in [wanted4, wanted6].into_iter().flatten() {
        let pool = network.pool(wanted.is_ipv4());
        if network.predefined() || pool.is_some_and(|pool| !pool.chosen) {
            return Err(Error::AddressUnsupported);
        }
        if pool.is_none() {
            return Err(Error::AddressOutside { address: wanted, network: network.name.clone() });
        }
    }
    for pool in &network.pools {
        let wanted = if pool.subnet.is_ipv4() { wanted4 } else { wanted6 };
        let address = match wanted {
            Some(wanted) => {
                if let Err(error) = pool::check_wanted(connection, network, pool, wanted) {
                    // It may be kept for a device that is gone by now.
                    sweep(host, connection, u32::MAX)?;
                    pool::check_wanted(connection, network, pool, wanted).map_err(|_| error)?;
                }
                wanted
            }
            None => match pool::allocate(connection, network, pool) {
                Err(Error::AddressesExhausted { .. }) => {
                    sweep(host, connection, u32::MAX)?;
                    pool::allocate(connection, network, pool)?
                }
                other => other?,
            },
        };
        addresses.push((address, pool.subnet.prefix()));
    }
    let interface = match &wish.interface {
        Some(name) => {
            hull_netlink::valid_name(name)?;
            if name == "lo" || taken_names.contains(name) {
                return Err(Error::invalid(format!("interface name {name}"), "the container has such a device"));
            }
            name.clone()
        }
        None => {
            let names = (0..).map(|number| format!("{}{number}", options.interface_prefix));
            names.into_iter().find(|name| !taken_names.contains(name)).unwrap_or_default()
        }
    };
    let gateways = network
        .pools
        .iter()
        .filter(|pool| !network.internal && options.gateway(pool.subnet.is_ipv4()) != GatewayMode::Isolated)
        .filter_map(|pool| pool.gateway)
        .collect();
    let mac = match wish.mac {
        Some(mac) => mac,
        None => mac_for(&addresses)?,
    };
    let mut number = 0;
    if network.driver == Driver::Bridge {
        while store::ports_of_bridge(connection, &network.id, number)? >= DEVICES_PER_BRIDGE {
            number += 1;
            if number >= MAX_BRIDGES {
                return Err(Error::BridgeFull { bridge: network.device.clone(), network: network.name.clone() });
            }
            if firewall::bridge_name(&network.device, number).len() > 15 {
                return Err(Error::BridgeFull { bridge: network.device.clone(), network: network.name.clone() });
            }
        }
    }
    let mut endpoint = Endpoint {
        id: 0,
        container: who.id.to_owned(),
        network: network.id.clone(),
        link: link_name(connection, who.id)?,
        bridge: number,
        container_name: who.name.to_owned(),
        network_name: network.name.clone(),
        interface,
        mac,
        addresses,
        gateways,
        aliases: wish.aliases.clone(),
        priority: wish.priority,
    };
    store::insert_endpoint(connection, &mut endpoint)?;
    Ok(endpoint)
}
