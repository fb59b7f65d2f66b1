//! `NetworkSettings` of a container's document, and the ports that lead to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hull_network::{Endpoint, Published};
use hull_oci::Digest;
use serde_json::{Map, Value, json};

use crate::network::has_networks;
use crate::records::{Container, Engine, Phase, State};

/// A port of a container, and the port of the machine that leads to it, if there is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Of the container.
    pub private: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Address and port of the machine.
    pub public: Option<(IpAddr, u16)>,
}

/// The exposed ports, as `80/tcp`.
pub(super) fn exposed(container: &Container, image: Option<&hull_image::Config>) -> BTreeSet<String> {
    let config = &container.config;
    let published = config.publish.iter().map(|one| format!("{}/{}", one.port, one.protocol));
    let image = image.into_iter().flat_map(|image| image.exposed_ports.keys().cloned());
    let full = |port: String| if port.contains('/') { port } else { format!("{port}/tcp") };
    config.expose.iter().cloned().chain(published).chain(image).map(full).collect()
}

/// The ports of a container, in order; those without a way from outside only while it runs, as Docker has it.
///
/// `image` is the configuration of its image, which may expose some.
#[must_use]
pub fn ports(engine: &Engine, container: &Container, state: &State, image: Option<&hull_image::Config>) -> Vec<Port> {
    if !has_ports(container, state) {
        return Vec::new();
    }
    let exposed = exposed(container, image);
    // What cannot be read is not shown: a list of containers has no place for it.
    let published = || engine.networks().ports_of(&container.id).unwrap_or_default();
    if exposed.is_empty() { Vec::new() } else { all_ports(exposed, published()) }
}

/// Whether there may be ports that lead to a container.
pub(super) fn has_ports(container: &Container, state: &State) -> bool {
    state.phase == Phase::Running && has_networks(&container.config)
}

/// Exposed ports, and those of the machine that lead to some.
pub(super) fn all_ports(exposed: BTreeSet<String>, published: Vec<Published>) -> Vec<Port> {
    let mut list = Vec::new();
    for one in published {
        let protocol = one.protocol.as_str().to_owned();
        list.push(Port { private: one.port, protocol, public: Some((one.host, one.host_port)) });
    }
    for text in exposed {
        let (port, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        let Ok(private) = port.parse::<u16>() else { continue };
        if !list.iter().any(|one: &Port| one.private == private && one.protocol == protocol) {
            list.push(Port { private, protocol: protocol.to_owned(), public: None });
        }
    }
    list.sort();
    list.dedup();
    list
}

fn by_port(ports: &[Port]) -> Value {
    let mut map: BTreeMap<String, Value> = BTreeMap::new();
    for port in ports {
        let entry = map.entry(format!("{}/{}", port.private, port.protocol)).or_insert(Value::Null);
        let Some((address, number)) = port.public else { continue };
        let binding = json!({ "HostIp": address.to_string(), "HostPort": number.to_string() });
        match entry {
            Value::Array(list) => list.push(binding),
            other => *other = json!([binding]),
        }
    }
    map.into_iter().collect::<Map<_, _>>().into()
}

/// Docker names endpoints by 64 digits; ours have numbers.
fn endpoint_id(endpoint: &Endpoint) -> String {
    Digest::of(format!("{}/{}", endpoint.container, endpoint.network).as_bytes()).hex().to_owned()
}

/// One of the container's networks; `endpoint` is absent unless it runs.
fn network(container: &Container, name: &str, endpoint: Option<&Endpoint>) -> Value {
    let asked = container.config.networks.iter().find(|one| one.name == name);
    let of = |ipv4: bool| {
        let found = endpoint.and_then(|one| one.addresses.iter().find(|(address, _)| address.is_ipv4() == ipv4));
        found.map_or_else(|| (String::new(), 0), |(address, length)| (address.to_string(), *length))
    };
    let gateway = |ipv4: bool| {
        let found = endpoint.and_then(|one| one.gateways.iter().find(|address| address.is_ipv4() == ipv4));
        found.map(ToString::to_string).unwrap_or_default()
    };
    let (ipv4, ipv6) = (of(true), of(false));
    let chosen = asked.map(|one| (one.ipv4, one.ipv6));
    let ipam = match chosen {
        Some((ipv4, ipv6)) if ipv4.is_some() || ipv6.is_some() => {
            let mut map = Map::new();
            map.extend(ipv4.map(|address| ("IPv4Address".to_owned(), json!(address))));
            map.extend(ipv6.map(|address| ("IPv6Address".to_owned(), json!(address))));
            Value::Object(map)
        }
        _ => Value::Null,
    };
    let aliases = asked.map(|one| one.aliases.clone()).filter(|list| !list.is_empty());
    let mut names = vec![container.name.clone()];
    names.extend(aliases.iter().flatten().cloned());
    names.push(container.id.chars().take(12).collect());
    names.extend(container.config.hostname.clone());
    let resolves = !matches!(name, "bridge" | "none" | "host");
    let options = asked.map(|one| &one.options).filter(|options| !options.is_empty());
    json!({
        "IPAMConfig": ipam,
        "Links": if resolves || container.config.links.is_empty() { Value::Null } else { json!(container.config.links) },
        "Aliases": aliases,
        "MacAddress": endpoint.map(|one| one.mac.to_string()).unwrap_or_default(),
        "DriverOpts": options,
        "GwPriority": asked.map_or(0, |one| one.priority),
        "NetworkID": endpoint.map(|one| one.network.clone()).unwrap_or_default(),
        "EndpointID": endpoint.map(endpoint_id).unwrap_or_default(),
        "Gateway": gateway(true),
        "IPAddress": ipv4.0,
        "IPPrefixLen": ipv4.1,
        "IPv6Gateway": gateway(false),
        "GlobalIPv6Address": ipv6.0,
        "GlobalIPv6PrefixLen": ipv6.1,
        "DNSNames": if resolves { json!(names) } else { Value::Null },
    })
}

/// The container's networks by name; `id_of` knows those of the machine.
pub(super) fn attached(
    container: &Container,
    state: &State,
    endpoints: &[Endpoint],
    id_of: &dyn Fn(&str) -> Option<String>,
) -> Map<String, Value> {
    let mut networks = Map::new();
    if has_networks(&container.config) {
        for one in &container.config.networks {
            let endpoint = endpoints.iter().find(|endpoint| endpoint.network_name == one.name);
            let mut shown = network(container, &one.name, endpoint);
            // One that has ended was on it.
            if endpoint.is_none()
                && state.finished != 0
                && let Some(id) = id_of(&one.name)
            {
                shown["NetworkID"] = id.into();
            }
            networks.insert(one.name.clone(), shown);
        }
    } else {
        let name = super::host::network_mode(container);
        if !name.contains(':') {
            networks.insert(name.clone(), network(container, &name, None));
        }
    }
    networks
}

/// How the container is reached.
pub(super) fn settings(
    engine: &Engine,
    container: &Container,
    state: &State,
    image: Option<&hull_image::Config>,
) -> Value {
    let running = state.phase == Phase::Running;
    let endpoints = match running && has_networks(&container.config) {
        true => engine.networks().endpoints_of(&container.id).unwrap_or_default(),
        false => Vec::new(),
    };
    let id_of = |name: &str| engine.networks().find(name).ok().map(|network| network.id);
    let networks = attached(container, state, &endpoints, &id_of);
    // Since networks have names these are those of the default one.
    let legacy = networks.get("bridge").cloned().unwrap_or_else(|| network(container, "bridge", None));
    let sandbox = if running { Digest::of(container.id.as_bytes()).hex().to_owned() } else { String::new() };
    let key = if running { format!("/proc/{}/ns/net", state.pid) } else { String::new() };
    let mut document = json!({
        "Bridge": "",
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Networks": networks,
        "Ports": by_port(&ports(engine, container, state, image)),
        "SandboxID": sandbox,
        "SandboxKey": key,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
    });
    for name in [
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "MacAddress",
    ] {
        document[name] = legacy[name].clone();
    }
    document
}
