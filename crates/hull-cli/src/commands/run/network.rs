//! The flags of `run` and `create` that say how a container is reached and what it reaches.

use hull_engine::config::{DnsConfig, NamespaceChoice, NetworkConfig, RunConfig};
use hull_engine::flags;

use crate::commands::Failure;
use crate::commands::values::{all, named, optional};

/// Flags of networks.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub(in crate::commands) struct Network {
    /// Network to join (NAME, or name=NAME,alias=...,ip=...), or bridge, none, host,
    /// container:NAME, ns:PATH [default: HULL_DEFAULT_NETWORK, or bridge]
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// Another name on its networks
    #[arg(long = "network-alias", alias = "net-alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// Further address of the link
    #[arg(long = "link-local-ip", value_name = "ADDRESS")]
    link_local: Vec<String>,
    /// Hardware address
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// Publish a port: [[ADDRESS:][PORT]:]PORT[/PROTOCOL]
    #[arg(short, long, value_name = "PORTS")]
    publish: Vec<String>,
    /// Publish all exposed ports
    #[arg(short = 'P', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    publish_all: bool,
    /// Expose a port or a range
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    expose: Vec<String>,
    /// Know another container under a name
    #[arg(long = "link", value_name = "CONTAINER[:NAME]")]
    links: Vec<String>,
    /// Name server
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Domain that is tried behind short names
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Option of the resolver
    #[arg(long = "dns-option", alias = "dns-opt", value_name = "OPTION")]
    dns_options: Vec<String>,
    /// Line of /etc/hosts; the address may be host-gateway
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    hosts: Vec<String>,
}

/// The network of a container that names none: the setting's, or Docker's.
fn default_network() -> String {
    hull_config::text("default-network").filter(|name| !name.is_empty()).unwrap_or_else(|| "bridge".to_owned())
}

impl Network {
    /// Fills in the network part of a configuration.
    pub(super) fn apply(&self, config: &mut RunConfig) -> Result<(), Failure> {
        let mut networks = Vec::new();
        let wanted = if self.network.is_empty() { vec![default_network()] } else { self.network.clone() };
        for text in &wanted {
            let mode = if text.contains('=') { None } else { mode(text)? };
            match mode {
                Some(choice) if wanted.len() == 1 => config.namespaces.network = choice,
                Some(_) => {
                    return Err(Failure::usage(format!(
                        "conflicting options: cannot attach both user-defined and non-user-defined network-modes: {text}"
                    )));
                }
                None => networks.push(named("--network", flags::network::network(text))?),
            }
        }
        self.first(&mut networks)?;
        let choice = &config.namespaces.network;
        if *choice != NamespaceChoice::Private {
            self.refuse(choice)?;
        }
        config.networks = networks;
        config.publish = all("--publish", &self.publish, flags::network::publish)?.into_iter().flatten().collect();
        config.publish_all = self.publish_all;
        config.expose = all("--expose", &self.expose, flags::network::expose)?.into_iter().flatten().collect();
        config.links.clone_from(&self.links);
        let valid = |text: &str| hull_network::files::hosts::Extra::parse(text).map_err(|error| error.to_string());
        all("--add-host", &self.hosts, valid)?;
        config.dns = DnsConfig {
            servers: all("--dns", &self.dns, flags::network::dns)?,
            search: self.dns_search.clone(),
            options: self.dns_options.clone(),
            hosts: self.hosts.clone(),
        };
        Ok(())
    }

    /// What is said beside the networks is meant for the first one; aliases are for all.
    fn first(&self, networks: &mut [NetworkConfig]) -> Result<(), Failure> {
        for network in networks.iter_mut() {
            network.aliases.extend(self.aliases.iter().cloned());
        }
        let ipv4 = optional("--ip", self.ip.as_ref(), flags::network::ipv4)?;
        let ipv6 = optional("--ip6", self.ip6.as_ref(), flags::network::ipv6)?;
        let mac = optional("--mac-address", self.mac_address.as_ref(), |text| {
            flags::network::mac(text).map_err(|_| format!("{text} is not a valid mac address"))
        })?;
        let link_local = all("--link-local-ip", &self.link_local, flags::network::dns)?;
        let given = ipv4.is_some() || ipv6.is_some() || mac.is_some() || !link_local.is_empty();
        match networks.first_mut() {
            Some(network) => {
                network.ipv4 = ipv4.or(network.ipv4);
                network.ipv6 = ipv6.or(network.ipv6);
                network.mac = mac.or_else(|| network.mac.take());
                network.link_local.extend(link_local);
                Ok(())
            }
            None if given || !self.aliases.is_empty() => Err(Failure::usage(
                "conflicting options: addresses and aliases need a network of the container's own; use --network NAME, of 'hull network create'",
            )),
            None => Ok(()),
        }
    }

    /// Docker's texts for what a shared network cannot have.
    fn refuse(&self, choice: &NamespaceChoice) -> Result<(), Failure> {
        let conflict = |what: &str| Err(Failure::usage(format!("conflicting options: {what}")));
        if let NamespaceChoice::Container(_) | NamespaceChoice::Path(_) = choice {
            if !self.publish.is_empty() || self.publish_all {
                return conflict("port publishing and the container type network mode");
            }
            if !self.expose.is_empty() {
                return conflict("port exposing and the container type network mode");
            }
            if !self.dns.is_empty() {
                return conflict("dns and the network mode");
            }
            if !self.hosts.is_empty() {
                return conflict("custom host-to-IP mapping and the network mode");
            }
        }
        if !self.links.is_empty() {
            return conflict("host type networking can't be used with links. This would result in undefined behavior");
        }
        Ok(())
    }
}

/// The modes that are no networks; `None` is the name of one.
fn mode(text: &str) -> Result<Option<NamespaceChoice>, Failure> {
    if text == "none" || text == "host" || text.starts_with("container:") || text.starts_with("ns:") {
        return named("--network", flags::namespace(text, &["none"])).map(Some);
    }
    Ok(None)
}
