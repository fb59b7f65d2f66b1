//! Networks as users see them: made, listed, removed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hull_db::{Database, Sync};

use crate::bridge;
use crate::firewall::PREFIX;
use crate::host::Host;
use crate::pool;
use crate::record::{Driver, Endpoint, Network, PREDEFINED, Pool, Published};
use crate::subnet::Subnet;
use crate::{Error, stacked, store};

/// All networks of a data directory, in the network namespace that the calling thread is in.
#[derive(Clone, Debug)]
pub struct Networks {
    pub(crate) db: Database,
    pub(crate) state: PathBuf,
}

/// A wish for a network.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// Name.
    pub name: String,
    /// What makes its devices.
    pub driver: Driver,
    /// Subnets that the user chose, with their ranges, gateways and other addresses; at most one of each version of IP.
    pub pools: Vec<Pool>,
    /// `--ipv4=false` takes IPv4 away.
    pub ipv4: Option<bool>,
    /// Absent is as the machine has it.
    pub ipv6: Option<bool>,
    /// No way to the outside.
    pub internal: bool,
    /// Docker's flag.
    pub attachable: bool,
    /// The user's words.
    pub labels: BTreeMap<String, String>,
    /// The driver's options, under Docker's names.
    pub options: BTreeMap<String, String>,
}

/// What is known of all containers' networks at one moment.
#[derive(Debug, Default)]
pub struct Overview {
    /// By the containers' IDs.
    pub endpoints: BTreeMap<String, Vec<Endpoint>>,
    /// Published ports by the containers' IDs.
    pub ports: BTreeMap<String, Vec<Published>>,
    /// IDs of networks by their names.
    pub ids: BTreeMap<String, String>,
}

fn valid_name(name: &str) -> Result<(), Error> {
    let mut characters = name.chars();
    let first = characters.next().is_some_and(|one| one.is_ascii_alphanumeric());
    let rest = characters.all(|one| one.is_ascii_alphanumeric() || matches!(one, '_' | '.' | '-'));
    if first && rest && name.len() <= 128 { Ok(()) } else { Err(Error::InvalidName(name.to_owned())) }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn new_id() -> Result<String, Error> {
    let mut random = [0_u8; 32];
    crate::random(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Networks {
    /// Networks recorded in this database; what is known of their devices is below `state`, which must not outlive a boot.
    #[must_use]
    pub fn new(db: Database, state: &Path) -> Self {
        Self { db, state: state.join("networks") }
    }

    /// The directory of what is known of one network's devices and names.
    #[must_use]
    pub fn directory(&self, network: &str) -> PathBuf {
        self.state.join(network)
    }

    /// All networks, by name. The predefined ones are recorded at the first look.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Damaged`].
    pub fn list(&self) -> Result<Vec<Network>, Error> {
        let networks = self.db.read(store::networks)?;
        if PREDEFINED.iter().all(|(name, _)| networks.iter().any(|network| network.name == *name)) {
            return Ok(networks);
        }
        self.predefine()?;
        self.db.read(store::networks)
    }

    /// The network of this name, ID, or beginning of an ID.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`].
    pub fn find(&self, name: &str) -> Result<Network, Error> {
        let find = || self.db.read(|connection| store::find(connection, name));
        let found = find()?;
        if found.is_none() && PREDEFINED.iter().any(|(predefined, _)| *predefined == name) {
            self.predefine()?;
            return find()?.ok_or_else(|| Error::NotFound(name.to_owned()));
        }
        found.ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    /// Containers on a network.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn endpoints(&self, network: &Network) -> Result<Vec<Endpoint>, Error> {
        self.db.read(|connection| store::endpoints_of_network(connection, &network.id))
    }

    /// The networks of a container.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn endpoints_of(&self, container: &str) -> Result<Vec<Endpoint>, Error> {
        self.db.read(|connection| store::endpoints_of_container(connection, container))
    }

    /// The published ports of a container.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn ports_of(&self, container: &str) -> Result<Vec<Published>, Error> {
        self.db.read(|connection| {
            let mut ports = Vec::new();
            for endpoint in store::endpoints_of_container(connection, container)? {
                ports.extend(store::ports_of_endpoint(connection, endpoint.id)?);
            }
            Ok(ports)
        })
    }

    /// All containers' networks and ports at one moment.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Damaged`].
    pub fn overview(&self) -> Result<Overview, Error> {
        self.db.read(|connection| {
            let mut ports = store::all_ports(connection)?;
            let mut overview = Overview { ids: store::ids(connection)?, ..Overview::default() };
            for endpoint in store::endpoints(connection)? {
                let container = endpoint.container.clone();
                if let Some(list) = ports.remove(&endpoint.id) {
                    overview.ports.entry(container.clone()).or_default().extend(list);
                }
                overview.endpoints.entry(container).or_default().push(endpoint);
            }
            Ok(overview)
        })
    }

    fn predefine(&self) -> Result<(), Error> {
        let mut host = Host::default();
        let ipv6 = host.has_ipv6()?;
        let device = if host.link("hull0")?.is_some() { None } else { Some("hull0".to_owned()) };
        let routed = host.routed(&BTreeSet::new())?;
        self.db.write(Sync::Full, |connection| {
            let networks = store::networks(connection)?;
            for (name, driver) in PREDEFINED {
                if networks.iter().any(|network| network.name == name) {
                    continue;
                }
                let id = new_id()?;
                let mut network = Network {
                    name: name.to_owned(),
                    created: now(),
                    driver,
                    pools: Vec::new(),
                    internal: false,
                    attachable: false,
                    labels: BTreeMap::new(),
                    options: BTreeMap::new(),
                    ipv4: true,
                    ipv6: false,
                    device: String::new(),
                    id,
                };
                if driver == Driver::Bridge {
                    let mut taken = pool::of_networks(&networks);
                    taken.extend(routed.iter().cloned());
                    network.ipv6 = ipv6;
                    network.device = device.clone().unwrap_or_else(|| format!("{PREFIX}-{}", &network.id[..8]));
                    network.pools.push(match pool::of_bip()? {
                        Some(pool) => pool,
                        None => default_pool(pool::default_ipv4(&taken)?)?,
                    });
                    if ipv6 {
                        network.pools.push(default_pool(pool::default_ipv6(connection, &taken)?)?);
                    }
                }
                store::insert_network(connection, &network)?;
            }
            Ok(())
        })
    }

    /// Makes a network, with its devices. Lines for the user go to `said`.
    ///
    /// # Errors
    /// Any; nothing is left of the network then.
    pub fn create(&self, wish: Create, said: &mut Vec<String>) -> Result<Network, Error> {
        valid_name(&wish.name)?;
        if PREDEFINED.iter().any(|(name, _)| *name == wish.name) || wish.name == "default" {
            return Err(Error::PredefinedName(wish.name));
        }
        let mut host = Host::default();
        let mut network = describe(wish, &mut host)?;
        let own: BTreeSet<String> = self.db.read(store::networks)?.into_iter().map(|one| one.device).collect();
        let routed = host.routed(&own)?;
        for pool in &network.pools {
            self.check_routes(&network, pool, &routed)?;
        }
        if !network.device.is_empty() && network.driver == Driver::Bridge && host.link(&network.device)?.is_some() {
            return Err(Error::ForeignDevice { name: network.device, network: network.name });
        }
        self.predefine_for_names()?;
        network = self.db.write(Sync::Full, |connection| {
            let mut network = network;
            let networks = store::networks(connection)?;
            if networks.iter().any(|other| other.name == network.name) {
                return Err(Error::Exists(network.name));
            }
            if let Some(other) = networks.iter().find(|other| {
                network.driver == Driver::Bridge && other.driver == Driver::Bridge && other.device == network.device
            }) {
                let what = format!("option com.docker.network.bridge.name={}", network.device);
                return Err(Error::invalid(what, format!("network {} has this bridge", other.name)));
            }
            let mut taken = pool::of_networks(&networks);
            for pool in &network.pools {
                pool::check_free(pool.subnet, &taken)?;
            }
            taken.extend(routed.iter().cloned());
            if network.ipv4 && network.pool(true).is_none() {
                network.pools.insert(0, default_pool(pool::default_ipv4(&taken)?)?);
            }
            if network.ipv6 && network.pool(false).is_none() {
                network.pools.push(default_pool(pool::default_ipv6(connection, &taken)?)?);
            }
            store::insert_network(connection, &network)?;
            Ok(network)
        })?;
        let made = self.realise(&mut host, &network, said);
        if let Err(error) = made {
            // The first error is what the user needs.
            let _ = self.erase(&mut host, &network, 1, &mut Vec::new());
            return Err(error);
        }
        Ok(network)
    }

    fn realise(&self, host: &mut Host, network: &Network, said: &mut Vec<String>) -> Result<(), Error> {
        match network.driver {
            Driver::Bridge => bridge::ensure(host, &self.db, &self.state, network, 0, said).map(drop),
            Driver::Macvlan | Driver::Ipvlan => stacked::ensure_parent(host, network).map(drop),
            Driver::Host | Driver::Null => Ok(()),
        }
    }

    /// IDs of networks that are listed must not change later.
    fn predefine_for_names(&self) -> Result<(), Error> {
        self.list().map(drop)
    }

    /// A subnet of the user's must not take the place of a route that the machine has. A wider route stays as it is for
    /// all other addresses, so it is not in the way.
    fn check_routes(&self, network: &Network, pool: &Pool, routed: &[pool::Taken]) -> Result<(), Error> {
        if network.driver != Driver::Bridge {
            return Ok(());
        }
        let in_the_way = routed.iter().find(|one| pool.subnet.covers(&one.subnet));
        match in_the_way {
            Some(route) => Err(Error::Overlap { subnet: pool.subnet, other: route.by.clone() }),
            None => Ok(()),
        }
    }

    /// Removes a network.
    ///
    /// # Errors
    /// [`Error::Predefined`], [`Error::InUse`] naming the containers, [`Error::NotFound`].
    pub fn remove(&self, name: &str, said: &mut Vec<String>) -> Result<Network, Error> {
        let network = self.find(name)?;
        if network.predefined() {
            return Err(Error::Predefined(network.name));
        }
        let bridges = self.db.write(Sync::Full, |connection| {
            let endpoints = store::endpoints_of_network(connection, &network.id)?;
            if !endpoints.is_empty() {
                let name = |one: &Endpoint| format!("name:\"{}\" id:\"{}\"", one.container_name, short(&one.container));
                let containers = endpoints.iter().map(name).collect();
                return Err(Error::InUse { name: network.name.clone(), containers });
            }
            store::mark_removing(connection, &network.id)?;
            Ok(store::last_bridge(connection, &network.id)? + 1)
        })?;
        self.erase(&mut Host::default(), &network, bridges, said)?;
        Ok(network)
    }

    /// Finishes the removal of a network.
    pub(crate) fn erase(
        &self,
        host: &mut Host,
        network: &Network,
        bridges: u32,
        said: &mut Vec<String>,
    ) -> Result<(), Error> {
        self.db.write(Sync::Normal, |connection| store::mark_removing(connection, &network.id))?;
        bridge::take_away(host, &self.db, &self.state, network, bridges, said)?;
        let directory = self.directory(&network.id);
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &directory)(error));
            }
            _ => {}
        }
        self.db.write(Sync::Full, |connection| store::delete_network(connection, &network.id))
    }

    /// Removes networks that no container is on and that `keep` does not want; gives their names.
    ///
    /// # Errors
    /// Of the first that cannot be removed; those before are gone.
    pub fn prune(&self, mut keep: impl FnMut(&Network) -> bool, said: &mut Vec<String>) -> Result<Vec<String>, Error> {
        let mut removed = Vec::new();
        for network in self.list()? {
            if network.predefined() || keep(&network) {
                continue;
            }
            match self.remove(&network.id, said) {
                Ok(network) => removed.push(network.name),
                Err(Error::InUse { .. } | Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }
}

/// The first twelve digits.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn default_pool(subnet: Subnet) -> Result<Pool, Error> {
    let pool = Pool { subnet, range: None, gateway: None, auxiliary: BTreeMap::new(), chosen: false };
    pool::complete(pool, true)
}

/// A network from a wish, without the addresses that are to be chosen.
fn describe(wish: Create, host: &mut Host) -> Result<Network, Error> {
    let settings = crate::options::Options::parse(wish.driver, wish.internal, &wish.options)?;
    if let Some(key) = wish.options.keys().find(|key| key.starts_with("hull.")) {
        return Err(Error::invalid(format!("option {key}"), "names that begin so are Hull's own"));
    }
    let ipv4 = wish.ipv4.unwrap_or(true);
    let chosen6 = wish.pools.iter().any(|pool| !pool.subnet.is_ipv4());
    let ipv6 = match wish.ipv6 {
        Some(wanted) => wanted,
        None if chosen6 => true,
        None => wish.driver == Driver::Bridge && host.has_ipv6()?,
    };
    if !ipv4 && !ipv6 {
        return Err(Error::invalid("network", "IPv4 or IPv6 must be enabled"));
    }
    if ipv6 && !crate::host::kernel_has_ipv6() {
        return Err(Error::invalid("option --ipv6", "this kernel has no IPv6"));
    }
    let mut pools: Vec<Pool> = Vec::new();
    for pool in wish.pools {
        let is_ipv4 = pool.subnet.is_ipv4();
        if let Some(other) = pools.iter().find(|other| other.subnet.is_ipv4() == is_ipv4) {
            let what = format!("subnet {}", pool.subnet);
            return Err(Error::invalid(
                what,
                format!("bridge networks have one of each version, and there is {}", other.subnet),
            ));
        }
        if (is_ipv4 && !ipv4) || (!is_ipv4 && !ipv6) {
            let version = if is_ipv4 { "IPv4" } else { "IPv6" };
            return Err(Error::invalid(format!("subnet {}", pool.subnet), format!("{version} is not enabled")));
        }
        // A parentless, internal network of others has no router.
        let gateway = wish.driver == Driver::Bridge || !wish.internal;
        pools.push(pool::complete(pool, gateway)?);
    }
    pools.sort_by_key(|pool| !pool.subnet.is_ipv4());
    let id = new_id()?;
    let mut options = wish.options;
    let device = match wish.driver {
        Driver::Bridge => settings.bridge.unwrap_or_else(|| format!("{PREFIX}-{}", &id[..8])),
        Driver::Macvlan | Driver::Ipvlan => match settings.parent {
            Some(parent) => {
                if parent.contains('.') && host.link(&parent)?.is_none() {
                    options.insert(stacked::MADE.to_owned(), stacked::VLAN.to_owned());
                }
                parent
            }
            None => {
                options.insert(stacked::MADE.to_owned(), stacked::PAIR.to_owned());
                format!("hm{}", &id[..11])
            }
        },
        Driver::Host | Driver::Null => {
            return Err(Error::Unsupported(format!(
                "only one instance of \"{}\" network is allowed",
                wish.driver.as_str()
            )));
        }
    };
    Ok(Network {
        id,
        name: wish.name,
        created: now(),
        driver: wish.driver,
        pools,
        internal: wish.internal,
        attachable: wish.attachable,
        labels: wish.labels,
        options,
        ipv4,
        ipv6,
        device,
    })
}

/// Where `host-gateway` leads: the machine's address on the default network.
#[must_use]
pub fn host_gateways(network: &Network) -> Vec<IpAddr> {
    network.pools.iter().filter_map(|pool| pool.gateway).collect()
}
