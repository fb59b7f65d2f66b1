//! A container and its networks: what `hull_network` is asked for, and when.
//!
//! Before anything of a container exists it is put down on its networks ([`Engine::plan_network`]); between the
//! creation of its namespaces and its program it gets its devices, its names and its resolver ([`Engine::join_network`]);
//! after its end everything is undone by one call ([`Engine::leave_network`]). What its monitor keeps open meanwhile is
//! [`Reach`].
//!
//! ```text
//! STATE/resolvers/ID    what the container's resolver serves; see `hull_network::dns::Settings`
//! ```

use std::fs;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use hull_network::dns::{self, Member, Resolver, Settings};
use hull_network::files;
use hull_network::files::hosts::{self, Entry, Extra};
use hull_network::files::resolv::{self, ResolvConf, Wishes};
use hull_network::{Attachment, Endpoint, Network, Networks, Plan, Protocol, Proxy, Publish, Reservation, Who};

use crate::config::{NamespaceChoice, NetworkConfig, PublishConfig, RunConfig};
use crate::error::Error;
use crate::records::{Container, Engine, Phase, State, create_private};

/// The machine's resolver configuration.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What systemd-resolved asks itself.
const SYSTEMD_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// Files of the machine are read up to this size.
const MAX_HOST_FILE: u64 = 1 << 20;

/// Docker's name of the option that names the device in the container.
const INTERFACE: &str = "com.docker.network.endpoint.ifname";

/// What the monitor keeps open for a container's networks.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Ports that are kept and not listened at yet.
    reserved: Vec<Reservation>,
    /// Published ports, and what comes to them past the firewall.
    pub(crate) ports: Option<Proxy>,
    /// The resolver of its names.
    pub(crate) resolver: Option<Resolver>,
}

impl Reach {
    /// The same in another image of the monitor.
    pub(crate) fn resume(reserved: Vec<Reservation>, resolver: Option<Resolver>) -> Result<Self, Error> {
        let mut reach = Self { reserved, ports: None, resolver };
        reach.listen()?;
        Ok(reach)
    }

    /// Listens at published ports: what comes to them past the firewall is passed on from then on. Beside the program,
    /// which has begun, for hundreds of ports take a while.
    pub(crate) fn listen(&mut self) -> Result<(), Error> {
        if !self.reserved.is_empty() {
            self.ports = Some(Proxy::new(std::mem::take(&mut self.reserved))?);
        }
        Ok(())
    }
}

fn read_bounded(path: &Path) -> Vec<u8> {
    let mut content = Vec::new();
    // What cannot be read says nothing.
    let _ = fs::File::open(path).and_then(|file| file.take(MAX_HOST_FILE).read_to_end(&mut content));
    content
}

/// Whether a container has networks of its own.
pub(crate) fn has_networks(config: &RunConfig) -> bool {
    config.namespaces.network == NamespaceChoice::Private && !config.networks.is_empty()
}

fn attachment(network: &NetworkConfig) -> Result<Attachment, Error> {
    Ok(Attachment {
        network: network.name.clone(),
        ipv4: network.ipv4,
        ipv6: network.ipv6,
        mac: network.mac.as_deref().map(str::parse).transpose()?,
        aliases: network.aliases.clone(),
        priority: network.priority,
        interface: network.options.get(INTERFACE).cloned(),
    })
}

fn publish(wish: &PublishConfig) -> Result<Publish, Error> {
    Ok(Publish {
        protocol: wish.protocol.parse()?,
        host: wish.host,
        host_ports: wish.host_ports.map(|(first, last)| first..=last),
        port: wish.port,
    })
}

/// All that is to be published: what was asked for, and with `-P` the exposed rest.
fn all_published(config: &RunConfig, image: &hull_image::Config) -> Result<Vec<Publish>, Error> {
    let mut list = config.publish.iter().map(publish).collect::<Result<Vec<_>, _>>()?;
    if config.publish_all {
        for text in config.expose.iter().chain(image.exposed_ports.keys()) {
            let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let (Ok(port), Ok(protocol)) = (port.parse::<u16>(), protocol.parse::<Protocol>()) else { continue };
            if !list.iter().any(|one| one.port == port && one.protocol == protocol) {
                list.push(Publish { protocol, host: None, host_ports: None, port });
            }
        }
    }
    Ok(list)
}

impl Engine {
    /// The networks of this data directory.
    #[must_use]
    pub fn networks(&self) -> Networks {
        Networks::new(self.images.database().clone(), self.state_root())
    }

    fn settings_file(&self, id: &str) -> PathBuf {
        self.state_root().join("resolvers").join(id)
    }

    /// Puts a container down on its networks; `None` when it has none of its own.
    pub(crate) fn plan_network(
        &self,
        container: &Container,
        image: &hull_image::Config,
    ) -> Result<Option<Plan>, Error> {
        let config = &container.config;
        if !has_networks(config) {
            return Ok(None);
        }
        let wishes = config.networks.iter().map(attachment).collect::<Result<Vec<_>, _>>()?;
        let who = Who { id: &container.id, name: &container.name };
        let published = all_published(config, image)?;
        let networks = self.networks();
        let mut planned = networks.plan(who, &wishes, &published);
        // What it had when it ran last could not be given back then, as when the disk was full.
        if planned.is_err() && !networks.endpoints_of(&container.id)?.is_empty() {
            self.leave_network(&container.id)?;
            planned = networks.plan(who, &wishes, &published);
        }
        Ok(Some(planned.map_err(|error| match (error.to_string(), config.networks.first()) {
            (reason, Some(network)) if reason.starts_with("invalid endpoint settings") => {
                let own = "supported only when connecting to networks with user configured subnets";
                let reason = match network.name.as_str() {
                    "bridge" => reason.replace(own, "supported on user defined networks only"),
                    _ => reason,
                };
                Error::Refused(format!("invalid config for network {}: {reason}", network.name))
            }
            _ => error.into(),
        })?))
    }

    /// The files of whoever's network is shared: the same names lead to the same places there.
    fn name_files_of(&self, other: &Container, config: &RunConfig) -> Result<NameFiles, Error> {
        let directory = self.directory(&other.id);
        let mut list = Vec::new();
        for name in ["hosts", "resolv.conf"] {
            let content = read_bounded(&directory.join(name));
            list.push((name, String::from_utf8_lossy(&content).into_owned()));
        }
        if config.namespaces.uts == NamespaceChoice::Private {
            list.push(("hostname", hostname(other) + "\n"));
        }
        Ok(NameFiles { list, settings: None })
    }

    /// The files by which names are resolved in a container, and what its resolver serves if it needs one.
    pub(crate) fn name_files(&self, container: &Container, plan: Option<&Plan>) -> Result<NameFiles, Error> {
        let config = &container.config;
        if let NamespaceChoice::Container(other) = &config.namespaces.network {
            return self.name_files_of(&self.find(other)?, config);
        }
        let domain = config.domainname.clone().unwrap_or_default();
        let private = config.namespaces.network == NamespaceChoice::Private;
        let machine_hosts = if private { Vec::new() } else { read_bounded(Path::new("/etc/hosts")) };
        let named = plan.filter(|plan| resolves(plan));
        let settings = named.map(|plan| self.resolver_settings(container, plan.endpoints.iter(), plan.is_internal()));
        let network = match (&settings, plan) {
            (Some(Settings { networks, links, forward, .. }), _) => {
                files::Network::Named { networks, links, internal: !forward }
            }
            (None, Some(_)) => files::Network::Default,
            (None, None) if private => files::Network::None,
            (None, None) => files::Network::Machine(&machine_hosts),
        };
        let addresses: Vec<IpAddr> = match plan {
            Some(plan) => plan.endpoints.iter().flat_map(addresses).collect(),
            None => vec![IpAddr::from([127, 0, 0, 1])],
        };
        let (extra, gateways) = self.extra_hosts(config, plan)?;
        let linked = plan.map(|plan| self.linked(config, plan)).transpose()?.unwrap_or_default();
        let wishes = wishes(config);
        let known = files::Container {
            hostname: &hostname(container),
            domain: &domain,
            addresses: &addresses,
            gateways: &gateways,
            ipv6: plan.is_none_or(|plan| plan.endpoints.iter().any(|endpoint| endpoint.ipv6().is_some())),
            extra: &extra,
            linked: &linked,
            wishes: &wishes,
            network,
        };
        let resolv_conf = |path: &str| ResolvConf::parse(&read_bounded(Path::new(path)));
        let systemd = plan.is_some().then(|| resolv_conf(SYSTEMD_RESOLV_CONF));
        let made = files::arrange(&known, &resolv_conf(RESOLV_CONF), systemd.as_ref())
            .map_err(|error| Error::flag("--add-host", error.to_string()))?;
        let mut list = vec![("hosts", made.hosts)];
        if config.namespaces.uts == NamespaceChoice::Private {
            list.push(("hostname", made.hostname));
        }
        if !private || plan.is_some() || config.dns.is_asked() {
            list.push(("resolv.conf", made.resolv_conf.to_string()));
        }
        Ok(NameFiles { list, settings: made.settings })
    }

    /// `--add-host`, and what `host-gateway` means there.
    fn extra_hosts(&self, config: &RunConfig, plan: Option<&Plan>) -> Result<(Vec<Extra>, Vec<IpAddr>), Error> {
        let wish = |text: &String| Extra::parse(text).map_err(|error| Error::flag("--add-host", error.to_string()));
        let wishes = config.dns.hosts.iter().map(wish).collect::<Result<Vec<_>, _>>()?;
        let gateway = wishes.iter().any(|wish| wish.target == hosts::Target::Gateway);
        let gateways = match plan.and_then(|plan| plan.network(plan.gateway?)) {
            _ if !gateway => Vec::new(),
            Some(network) => hull_network::host_gateways(network),
            None => hull_network::host_gateways(&self.networks().find("bridge")?),
        };
        Ok((wishes, gateways))
    }

    /// `--link` on the default network: lines of `/etc/hosts`, as Docker writes them.
    fn linked(&self, config: &RunConfig, plan: &Plan) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        if resolves(plan) {
            return Ok(entries);
        }
        for (name, alias) in config.links.iter().map(|link| split_link(link)) {
            let other = self.find(name).map_err(|error| match error {
                Error::NoContainer(_) => {
                    Error::Refused(format!("could not get container for {name}: No such container: {name}"))
                }
                other => other,
            })?;
            for endpoint in self.networks().endpoints_of(&other.id)? {
                for (address, _) in endpoint.addresses {
                    let names = vec![alias.to_owned(), other.id[..12].to_owned(), other.name.clone()];
                    entries.push(Entry { address, names });
                }
            }
        }
        Ok(entries)
    }

    /// Gives a container its devices, its names and its resolver. `pid` is its first process, whose program does not run
    /// yet.
    pub(crate) fn join_network(
        &self,
        container: &Container,
        plan: Plan,
        settings: Option<Settings>,
        pid: i32,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Reach, Error> {
        let networks = self.networks();
        let namespace = hull_network::namespace_of(pid)?;
        let mut said = Vec::new();
        networks.attach(&plan, namespace.as_fd(), &mut said)?;
        said.iter().for_each(|line| warn(line));
        for (index, endpoint) in plan.endpoints.iter().enumerate() {
            if let Some(network) = plan.network(index) {
                self.announce(&networks, container, network, endpoint)?;
            }
        }
        let resolver = settings.map(|settings| self.open_resolver(&container.id, &settings, namespace)).transpose()?;
        Ok(Reach { reserved: plan.reservations, ports: None, resolver })
    }

    /// Makes a container's names known on a network.
    fn announce(
        &self,
        networks: &Networks,
        container: &Container,
        network: &Network,
        endpoint: &Endpoint,
    ) -> Result<(), Error> {
        if network.is_default() {
            return Ok(());
        }
        let mut names = files::names(&container.name, &endpoint.aliases, &container.id, &hostname(container));
        names.retain(|name| dns::valid_name(name));
        let member = Member {
            container: container.id.clone(),
            network: network.name.clone(),
            names,
            addresses: addresses(endpoint).collect(),
            ..Member::default()
        };
        let directory = networks.directory(&network.id);
        create_private(&directory)?;
        Ok(dns::join(&directory, &member)?)
    }

    fn open_resolver(&self, id: &str, settings: &Settings, namespace: OwnedFd) -> Result<Resolver, Error> {
        let path = self.settings_file(id);
        create_private(&self.state_root().join("resolvers"))?;
        settings.write(&path)?;
        let copy = namespace.try_clone().map_err(Error::io("duplicate", "network namespace"))?;
        let resolver = Resolver::open(namespace, &path, PathBuf::from(RESOLV_CONF))?;
        dns::redirect(copy.as_fd(), resolver.port())?;
        Ok(resolver)
    }

    fn resolver_settings<'a>(
        &self,
        container: &Container,
        endpoints: impl Iterator<Item = &'a Endpoint>,
        internal: bool,
    ) -> Settings {
        let networks = self.networks();
        let config = &container.config;
        Settings {
            networks: endpoints
                .map(|one| (one.network_name.clone(), networks.directory(&one.network).join(dns::TABLE)))
                .collect(),
            links: config
                .links
                .iter()
                .map(|link| split_link(link))
                .map(|(name, alias)| (alias.to_owned(), name.to_owned()))
                .collect(),
            servers: config.dns.servers.iter().copied().take(3).collect(),
            forward: !internal,
            single_labels: !config.dns.options.iter().any(|option| option.starts_with("ndots:")),
        }
    }

    /// Takes up the resolver of a container again, in another image of its monitor.
    pub(crate) fn resume_resolver(
        &self,
        id: &str,
        namespace: OwnedFd,
        udp: OwnedFd,
        tcp: OwnedFd,
    ) -> Result<Resolver, Error> {
        Ok(Resolver::resume(namespace, (udp, tcp), &self.settings_file(id), PathBuf::from(RESOLV_CONF))?)
    }

    /// Takes a container off its networks. One that is on none is no error.
    pub(crate) fn leave_network(&self, id: &str) -> Result<(), Error> {
        let networks = self.networks();
        let endpoints = networks.endpoints_of(id)?;
        let mut result = Ok(());
        for endpoint in &endpoints {
            result = result.and(dns::leave(&networks.directory(&endpoint.network), id).map_err(Error::from));
        }
        if !endpoints.is_empty() {
            result = result.and(networks.detach(id).map_err(Error::from));
        }
        // One that has left its last network while it ran has it still.
        let _ = fs::remove_file(self.settings_file(id));
        result
    }

    /// Puts a container on one more network: at once when it runs, otherwise with its next start.
    ///
    /// # Errors
    /// When it is on the network already, or cannot be.
    pub fn connect(
        &self,
        container: &Container,
        wish: &NetworkConfig,
        warn: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        let _lock = self.lock(&container.id)?;
        let mut changed = self.container(&container.id)?;
        let networks = self.networks();
        let network = networks.find(&wish.name)?;
        if changed.config.namespaces.network != NamespaceChoice::Private {
            let reason = "container sharing network namespace with another container or host cannot be connected to any other network";
            return Err(Error::Refused(reason.to_string()));
        }
        let known = |one: &NetworkConfig| one.name == network.name || network.id.starts_with(&one.name);
        if changed.config.networks.iter().any(known) {
            let reason = format!("endpoint with name {} already exists in network {}", changed.name, network.name);
            return Err(Error::Refused(reason.to_string()));
        }
        let state = self.state(&container.id)?;
        if state.phase == Phase::Running {
            let namespace = hull_network::namespace_of(state.pid)?;
            let who = Who { id: &container.id, name: &container.name };
            let mut said = Vec::new();
            let endpoint = networks.connect(who, &attachment(wish)?, namespace.as_fd(), &mut said)?;
            said.iter().for_each(|line| warn(line));
            self.announce(&networks, container, &network, &endpoint)?;
            let addresses: Vec<IpAddr> = addresses(&endpoint).collect();
            self.follow_networks(&changed, &[], &self.own_lines(&changed, &addresses))?;
            if !network.is_default() && !self.settings_file(&container.id).exists() {
                self.begin_names(&changed, &state)?;
            }
        }
        changed.config.networks.push(NetworkConfig { name: network.name, ..wish.clone() });
        self.save_container(&changed)
    }

    /// A container that asked the machine's servers gets a resolver: its monitor opens it when it looks again.
    fn begin_names(&self, container: &Container, state: &State) -> Result<(), Error> {
        create_private(&self.state_root().join("resolvers"))?;
        let networks = self.networks();
        let endpoints = networks.endpoints_of(&container.id)?;
        let settings = self.resolver_settings(container, endpoints.iter(), false);
        settings.write(&self.settings_file(&container.id))?;
        let wishes = wishes(&container.config);
        let machine = ResolvConf::parse(&read_bounded(Path::new(RESOLV_CONF)));
        if let Some(new) = resolv::generate(&machine, None, &wishes, resolv::Reach::Embedded) {
            let path = self.directory(&container.id).join("resolv.conf");
            let written = ResolvConf::parse(&read_bounded(&path));
            hull_network::files::update(&path, |current| resolv::replace(current, &written, &new))?;
        }
        self.wake_monitor(state);
        Ok(())
    }

    /// The resolver that a running container has come to need; `None` when it needs none.
    pub(crate) fn late_resolver(&self, id: &str, pid: i32) -> Option<Resolver> {
        let path = self.settings_file(id);
        if !path.exists() {
            return None;
        }
        let namespace = hull_network::namespace_of(pid).ok()?;
        let copy = namespace.try_clone().ok()?;
        let resolver = Resolver::open(namespace, &path, PathBuf::from(RESOLV_CONF)).ok()?;
        dns::redirect(copy.as_fd(), resolver.port()).ok()?;
        Some(resolver)
    }

    /// Takes a container off one network.
    ///
    /// # Errors
    /// When it is not on the network.
    pub fn disconnect(&self, container: &Container, name: &str) -> Result<(), Error> {
        let _lock = self.lock(&container.id)?;
        let mut changed = self.container(&container.id)?;
        let networks = self.networks();
        let network = networks.find(name)?;
        let state = self.state(&container.id)?;
        let who = Who { id: &container.id, name: &container.name };
        let known = |one: &NetworkConfig| one.name == network.name || network.id.starts_with(&one.name);
        if !changed.config.networks.iter().any(known) {
            let reason = format!("container {} is not connected to network {}", container.id, network.name);
            return Err(Error::Refused(reason));
        }
        if state.phase == Phase::Running {
            let namespace = hull_network::namespace_of(state.pid)?;
            let endpoint = networks.disconnect(who, &network.name, Some(namespace.as_fd()))?;
            dns::leave(&networks.directory(&network.id), &container.id)?;
            let addresses: Vec<IpAddr> = addresses(&endpoint).collect();
            self.follow_networks(&changed, &self.own_lines(&changed, &addresses), &[])?;
            // Ports may have moved to another network.
            self.wake_monitor(&state);
        }
        changed.config.networks.retain(|one| !known(one));
        self.save_container(&changed)
    }

    fn own_lines(&self, container: &Container, addresses: &[IpAddr]) -> Vec<Entry> {
        hosts::own(addresses, &hostname(container), container.config.domainname.as_deref().unwrap_or_default())
    }

    /// Files and resolver of a running container after its networks have changed.
    fn follow_networks(&self, container: &Container, without: &[Entry], with: &[Entry]) -> Result<(), Error> {
        let path = self.directory(&container.id).join("hosts");
        hull_network::files::update(&path, |current| Some(hosts::edit(current, without, with)))?;
        let settings = self.settings_file(&container.id);
        if settings.exists() {
            let networks = self.networks();
            let endpoints = networks.endpoints_of(&container.id)?;
            let mut internal = !endpoints.is_empty();
            for endpoint in &endpoints {
                internal &= networks.find(&endpoint.network)?.internal;
            }
            self.resolver_settings(container, endpoints.iter(), internal).write(&settings)?;
        }
        Ok(())
    }
}

/// By which names are resolved in a container.
#[derive(Debug)]
pub(crate) struct NameFiles {
    /// Names below `/etc`, and contents.
    pub(crate) list: Vec<(&'static str, String)>,
    /// What its resolver serves; it needs none otherwise.
    pub(crate) settings: Option<Settings>,
}

fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    endpoint.addresses.iter().map(|(address, _)| *address)
}

/// Given, or the ID's first twelve digits.
pub(crate) fn hostname(container: &Container) -> String {
    container.config.hostname.clone().unwrap_or_else(|| container.id[..12].to_owned())
}

fn wishes(config: &RunConfig) -> Wishes {
    let dns = &config.dns;
    Wishes { servers: dns.servers.clone(), search: dns.search.clone(), options: dns.options.clone() }
}

/// Whether names of containers resolve: on every network but the default one.
fn resolves(plan: &Plan) -> bool {
    (0..plan.endpoints.len()).any(|index| plan.network(index).is_some_and(|network| !network.is_default()))
}

/// `NAME[:ALIAS]`.
fn split_link(link: &str) -> (&str, &str) {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    (name.trim_start_matches('/'), alias.rsplit('/').next().unwrap_or(alias))
}
