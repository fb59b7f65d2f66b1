//! What one container gets, from what is known of it when it starts or when its networks change.

use std::net::IpAddr;
use std::path::PathBuf;

use super::hosts::{self, Entry, Extra, Invalid};
use super::resolv::{self, Reach, ResolvConf, Wishes};
use crate::dns::Settings;

/// The kind of network that a container has.
#[derive(Clone, Copy, Debug)]
pub enum Network<'a> {
    /// The machine's own; with the machine's `/etc/hosts`.
    Machine(&'a [u8]),
    /// None but its loopback device.
    None,
    /// The default bridge: other containers have no names there.
    Default,
    /// Networks with names.
    Named {
        /// In the order in which they are asked: name and table.
        networks: &'a [(String, PathBuf)],
        /// Names of its own for other containers' names.
        links: &'a [(String, String)],
        /// None of them leads out.
        internal: bool,
    },
}

/// What is known of a container.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    /// Host name.
    pub hostname: &'a str,
    /// Domain name; may be empty.
    pub domain: &'a str,
    /// Its addresses, those of the first network first.
    pub addresses: &'a [IpAddr],
    /// What `host-gateway` means for it.
    pub gateways: &'a [IpAddr],
    /// Whether it has IPv6.
    pub ipv6: bool,
    /// `--add-host`.
    pub extra: &'a [Extra],
    /// Linked containers on the default bridge.
    pub linked: &'a [Entry],
    /// `--dns`, `--dns-search`, `--dns-opt`.
    pub wishes: &'a Wishes,
    /// Its network.
    pub network: Network<'a>,
}

/// The files, and the settings of its resolver if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// `/etc/hostname`.
    pub hostname: String,
    /// `/etc/hosts`.
    pub hosts: String,
    /// `/etc/resolv.conf`.
    pub resolv_conf: ResolvConf,
    /// What Hull's resolver is to serve; without it none is needed.
    pub settings: Option<Settings>,
}

/// Makes a container's files; `machine` and `systemd` as for [`resolv::generate`].
///
/// A container on the default bridge of a machine whose servers cannot be reached from there gets a resolver that only
/// passes queries on, instead of servers of somebody else's.
///
/// # Errors
/// [`Invalid::NoGateway`].
pub fn arrange(
    container: &Container<'_>,
    machine: &ResolvConf,
    systemd: Option<&ResolvConf>,
) -> Result<Files, Invalid> {
    let extra = hosts::extra(container.extra, container.gateways)?;
    let hosts = if let Network::Machine(content) = container.network {
        String::from_utf8_lossy(&hosts::edit(content, &[], &extra)).into_owned()
    } else {
        let own = hosts::own(container.addresses, container.hostname, container.domain);
        hosts::generate(container.ipv6, &[&extra, container.linked, &own].concat())
    };
    let wishes = container.wishes;
    let private = Reach::Private { ipv6: container.ipv6 };
    let mut settings = match container.network {
        Network::Named { networks, links, internal } => Some(Settings {
            networks: networks.to_vec(),
            links: links.to_vec(),
            servers: wishes.servers.clone(),
            forward: !internal,
            single_labels: !wishes.options.iter().any(|option| option.starts_with("ndots:")),
        }),
        _ => None,
    };
    let reach = match container.network {
        Network::Machine(_) => Reach::Machine,
        Network::Named { .. } => Reach::Embedded,
        Network::None | Network::Default => private,
    };
    let mut resolv_conf = resolv::generate(machine, systemd, wishes, reach);
    if resolv_conf.is_none() && matches!(container.network, Network::Default) {
        settings = Some(Settings::default());
        resolv_conf = resolv::generate(machine, systemd, wishes, Reach::Embedded);
    }
    // Without a network there is nobody to ask.
    let resolv_conf = resolv_conf.unwrap_or_default();
    Ok(Files { hostname: super::hostname(container.hostname), hosts, resolv_conf, settings })
}

/// What a container is called on a network with names: its name, aliases, short ID and host name, each once.
#[must_use]
pub fn names(name: &str, aliases: &[String], id: &str, hostname: &str) -> Vec<String> {
    let short = id.get(..12).unwrap_or(id);
    let mut names: Vec<String> = Vec::new();
    for one in std::iter::once(name).chain(aliases.iter().map(String::as_str)).chain([short, hostname]) {
        if !one.is_empty() && !names.iter().any(|other| other.eq_ignore_ascii_case(one)) {
            names.push(one.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(network: Network<'_>, machine: &str, wishes: &Wishes) -> Files {
        let addresses = ["172.18.0.2".parse().unwrap()];
        let extra = [Extra::parse("up:host-gateway").unwrap()];
        let container = Container {
            hostname: "web",
            domain: "",
            addresses: &addresses,
            gateways: &["172.18.0.1".parse().unwrap()],
            ipv6: false,
            extra: &extra,
            linked: &[],
            wishes,
            network,
        };
        arrange(&container, &ResolvConf::parse(machine.as_bytes()), None).unwrap()
    }

    fn servers(files: &Files) -> Vec<String> {
        files.resolv_conf.nameservers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_kind_of_network_has_its_files() {
        let none = Wishes::default();
        let machine = "nameserver 192.0.2.1\nsearch lan\n";
        let files = made(Network::Default, machine, &none);
        assert_eq!(files.hostname, "web\n");
        assert_eq!(files.hosts, "127.0.0.1\tlocalhost\n172.18.0.1\tup\n172.18.0.2\tweb\n");
        assert_eq!((servers(&files), files.settings), (vec!["192.0.2.1".to_owned()], None));

        let files = made(Network::Machine(b"127.0.0.1 localhost me\n"), "nameserver 127.0.0.53\n", &none);
        assert_eq!(files.hosts, "127.0.0.1 localhost me\n172.18.0.1\tup\n");
        assert_eq!((servers(&files), files.settings), (vec!["127.0.0.53".to_owned()], None));

        let networks = [("backend".to_owned(), "/run/n/names".into())];
        let named = Network::Named { networks: &networks, links: &[], internal: true };
        let wishes =
            Wishes { servers: vec!["9.9.9.9".parse().unwrap()], options: vec!["ndots:2".into()], ..none.clone() };
        let files = made(named, machine, &wishes);
        assert_eq!(servers(&files), ["127.0.0.11"]);
        let settings = files.settings.unwrap();
        assert_eq!(settings.networks, networks);
        assert_eq!(settings.servers, wishes.servers);
        assert!(!settings.forward && !settings.single_labels);
    }

    #[test]
    fn loopback_servers_of_the_machine_are_reached_through_the_resolver() {
        let none = Wishes::default();
        let files = made(Network::Default, "nameserver 127.0.0.1\nsearch lan\n", &none);
        assert_eq!(servers(&files), ["127.0.0.11"]);
        assert_eq!(files.settings, Some(Settings::default()));
        assert_eq!(files.resolv_conf.search, ["lan"]);
        let files = made(Network::None, "nameserver 127.0.0.1\n", &none);
        assert_eq!((servers(&files), files.settings), (Vec::new(), None));
    }

    #[test]
    fn names_come_once() {
        let id = "0123456789abcdef";
        assert_eq!(names("web", &["db".into(), "WEB".into()], id, "0123456789ab"), ["web", "db", "0123456789ab"]);
    }
}
