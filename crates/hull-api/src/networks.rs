//! `/networks`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hull_engine::config::NetworkConfig;
use hull_engine::filters::OF_NETWORKS;
use hull_engine::inspect::networks as documents;
use hull_engine::{Engine, events};
use hull_network::{Create, Driver, Network, Pool, Subnet};
use hull_oci::spec::one_line;
use serde_json::{Value, json};

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;
use crate::route::Route;
use crate::wire::network::{ConnectRequest, CreateRequest, DisconnectRequest, EndpointSettings, IpamConfig};

pub(crate) const ROUTES: &[Route] = &[
    Route::new("GET", "/networks", list),
    Route::new("GET", "/networks/", list),
    Route::new("POST", "/networks/create", create),
    Route::new("POST", "/networks/prune", prune),
    Route::new("GET", "/networks/{id}", inspect),
    Route::new("DELETE", "/networks/{id}", remove),
    Route::new("POST", "/networks/{id}/connect", connect),
    Route::new("POST", "/networks/{id}/disconnect", disconnect),
];

/// What a container is to be on a network, from the document that clients send of it.
///
/// # Errors
/// When an address is none.
pub(crate) fn wish(network: &str, settings: EndpointSettings) -> Result<NetworkConfig, Refusal> {
    let bad = |kind: &str, text: &str| {
        Refusal::bad(format!("invalid endpoint settings:\ninvalid {kind} address: {}", one_line(text)))
    };
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let ipv4 =
        given(&settings.ipam.ipv4).map(|text| text.parse::<Ipv4Addr>().map_err(|_| bad("IPv4", &text))).transpose()?;
    let ipv6 =
        given(&settings.ipam.ipv6).map(|text| text.parse::<Ipv6Addr>().map_err(|_| bad("IPv6", &text))).transpose()?;
    let link_local = settings.ipam.link_local.iter().map(|text| text.parse().map_err(|_| bad("link-local IP", text)));
    Ok(NetworkConfig {
        name: network.to_owned(),
        ipv4,
        ipv6,
        link_local: link_local.collect::<Result<Vec<IpAddr>, _>>()?,
        mac: given(&settings.mac_address),
        aliases: settings.aliases,
        options: settings.driver_opts,
        priority: settings.gw_priority,
    })
}

/// Reads a body as any that is sent here. For fuzzing.
pub(crate) fn understand(body: &[u8]) {
    let _ = crate::http::parse::<CreateRequest>(body, "network.CreateRequest").map(|wanted| pools(&wanted.ipam.config));
    let _ = crate::http::parse::<ConnectRequest>(body, "network.ConnectOptions")
        .map(|wanted| wish("network", wanted.endpoint_config));
    let _ = crate::http::parse::<DisconnectRequest>(body, "network.DisconnectOptions");
}

/// Writes an event of a network.
fn happened(engine: &Engine, action: &str, network: &Network, container: Option<&str>) {
    let pairs = [("name", network.name.as_str()), ("type", network.driver.as_str())];
    let pairs = pairs.into_iter().chain(container.map(|id| ("container", id)));
    let attributes = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    events::emit_of(engine, "network", action, events::Actor { id: network.id.clone(), attributes });
}

fn list(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let filters = request.query.filters(&OF_NETWORKS)?;
    let mut shown = Vec::new();
    for network in engine.networks().list()? {
        if api.sees_network(&network) && filters.network(engine, &network)? {
            shown.push(documents::summary(&network));
        }
    }
    Ok(Reply::json(200, &shown))
}

fn inspect(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let name = request.param("id");
    let scope = request.query.text("scope");
    let missing = || Refusal::missing(format!("network {} not found", one_line(name)));
    if !matches!(scope, "" | "local") {
        return Err(missing());
    }
    let engine = &api.engine;
    let networks = engine.networks();
    let network = api.network(name)?;
    Ok(Reply::json(200, &documents::document(&networks, &network)?))
}

/// The addresses that a client asks for.
fn pools(configs: &[IpamConfig]) -> Result<Vec<Pool>, Refusal> {
    let wrong = |what: &str, text: &str, why: &str| {
        Refusal::bad(format!("invalid network config:\ninvalid {what} {}: {why}", one_line(text)))
    };
    let bad = |what: &str, text: &str| wrong(what, text, "invalid address");
    let block = |what: &str, text: &str| wrong(what, text, "invalid CIDR block notation");
    let mut pools = Vec::new();
    for config in configs {
        if config.subnet.is_empty() {
            let alone = config.range.is_empty() && config.gateway.is_empty() && config.auxiliary_addresses.is_empty();
            if alone {
                continue;
            }
            return Err(block("subnet", ""));
        }
        let subnet: Subnet = config.subnet.parse().map_err(|_| block("subnet", &config.subnet))?;
        let range = Some(&config.range).filter(|text| !text.is_empty());
        let range = range.map(|text| text.parse::<Subnet>().map_err(|_| block("ip-range", text))).transpose()?;
        let gateway = Some(&config.gateway).filter(|text| !text.is_empty());
        let gateway = gateway.map(|text| {
            // Some clients give it with the length of the prefix.
            let bare = text.split('/').next().unwrap_or_default();
            let address = bare.parse::<IpAddr>().map_err(|_| bad("gateway", text))?;
            let why = || format!("parent subnet {subnet} doesn't contain this address");
            if subnet.contains(address) { Ok(address) } else { Err(wrong("gateway", text, &why())) }
        });
        let auxiliary = config.auxiliary_addresses.iter().chain(&config.aux_address).map(|(name, text)| {
            text.parse::<IpAddr>().map(|address| (name.clone(), address)).map_err(|_| bad("auxiliary address", text))
        });
        pools.push(Pool {
            subnet,
            range,
            gateway: gateway.transpose()?,
            auxiliary: auxiliary.collect::<Result<_, _>>()?,
            chosen: true,
        });
    }
    Ok(pools)
}

fn create(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let wanted: CreateRequest = request.optional_json("network.CreateRequest")?.unwrap_or_default();
    if wanted.scope == "swarm" || wanted.driver == "overlay" || wanted.ingress {
        return Err(Refusal { status: 403, ..crate::swarm::no_manager() });
    }
    if !matches!(wanted.ipam.driver.as_str(), "" | "default") {
        return Err(Refusal::missing(format!("plugin {:?} not found", one_line(&wanted.ipam.driver))));
    }
    if wanted.config_only || !wanted.config_from.network.is_empty() {
        return Err(Refusal::bad("configuration-only networks are not supported: give the options to each network"));
    }
    if wanted.name.trim().is_empty() {
        return Err(Refusal::bad("invalid name: name is empty"));
    }
    let driver = if wanted.driver.is_empty() { "bridge" } else { &wanted.driver };
    let wish = Create {
        driver: driver.parse()?,
        pools: pools(&wanted.ipam.config)?,
        ipv4: wanted.enable_ipv4,
        ipv6: wanted.enable_ipv6,
        internal: wanted.internal,
        attachable: wanted.attachable,
        labels: api.labelled(wanted.labels),
        options: wanted.options,
        name: wanted.name,
    };
    let engine = &api.engine;
    let mut said = Vec::new();
    let network = engine.networks().create(wish, &mut said)?;
    happened(engine, "create", &network, None);
    Ok(Reply::json(201, &json!({ "Id": network.id, "Warning": said.join("; ") })))
}

fn remove(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let network = api.network(request.param("id"))?;
    let network = engine.networks().remove(&network.id, &mut Vec::new())?;
    happened(engine, "destroy", &network, None);
    Ok(Reply::empty(204))
}

/// Refuses what would only fail when the container starts.
fn joinable(network: &Network, wish: &NetworkConfig) -> Result<(), Refusal> {
    match network.driver {
        Driver::Host => {
            let text = "cannot connect container to host network - container must be created in host network mode";
            return Err(Refusal::bad(text));
        }
        Driver::Null => {
            let text =
                "container cannot be connected to multiple networks with one of the networks in private (none) mode";
            return Err(Refusal::bad(text));
        }
        _ => {}
    }
    let wanted = wish.ipv4.map(IpAddr::V4).into_iter().chain(wish.ipv6.map(IpAddr::V6));
    for address in wanted {
        let why = match network.pool(address.is_ipv4()) {
            Some(pool) if pool.chosen && pool.subnet.contains(address) => continue,
            Some(pool) if pool.chosen => format!("no configured subnet or ip-range contain the IP address {address}"),
            _ => "user specified IP address is supported only when connecting to networks with user configured subnets"
                .to_owned(),
        };
        return Err(Refusal::bad(format!("invalid endpoint settings:\n{why}")));
    }
    Ok(())
}

fn connect(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let wanted: ConnectRequest = request.optional_json("network.ConnectOptions")?.unwrap_or_default();
    let engine = &api.engine;
    let container = api.container(&wanted.container)?;
    let network = api.network(request.param("id"))?;
    let wish = wish(&network.name, wanted.endpoint_config)?;
    joinable(&network, &wish)?;
    engine.connect(&container, &wish, &mut |_| ()).map_err(changed)?;
    happened(engine, "connect", &network, Some(&container.id));
    Ok(Reply::empty(200))
}

fn disconnect(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let wanted: DisconnectRequest = request.optional_json("network.DisconnectOptions")?.unwrap_or_default();
    let engine = &api.engine;
    let container = match api.container(&wanted.container) {
        // Its records on networks go when it is repaired.
        Err(Refusal { status: 404, .. }) if wanted.force => {
            return Err(Refusal::missing(format!("endpoint {} not found", one_line(&wanted.container))));
        }
        found => found?,
    };
    let network = api.network(request.param("id"))?;
    let known = |name: &str| name == network.name || network.id.starts_with(name);
    if !container.config.networks.iter().any(|one| known(&one.name)) {
        let text = format!("container {} is not connected to the network {}", container.id, network.name);
        return Err(Refusal::failed(text));
    }
    engine.disconnect(&container, &network.name).map_err(changed)?;
    happened(engine, "disconnect", &network, Some(&container.id));
    Ok(Reply::empty(200))
}

/// What the engine refused of a change to a container's networks.
fn changed(error: hull_engine::Error) -> Refusal {
    match error {
        hull_engine::Error::Network(error) => error.into(),
        hull_engine::Error::Flag { reason, .. } | hull_engine::Error::Refused(reason) => Refusal::forbidden(reason),
        other => other.into(),
    }
}

fn prune(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let filters = request.query.filters(&["label", "label!", "until"])?;
    let until = filters.until()?;
    // A container that has ended wants its networks when it is started again.
    let list = engine.list_shared()?;
    let networks = list.iter().flat_map(|(container, _)| &container.config.networks);
    let wanted: BTreeSet<&str> = networks.map(|network| network.name.as_str()).collect();
    let keep = |network: &Network| {
        wanted.iter().any(|name| *name == network.name || network.id.starts_with(name))
            || until.is_some_and(|until| network.created >= until)
            || !filters.labels(&network.labels)
            || !api.sees_network(network)
    };
    let removed = engine.networks().prune(keep, &mut Vec::new())?;
    let actor = events::Actor { id: String::new(), attributes: [("reclaimed".to_owned(), "0".to_owned())].into() };
    events::emit_of(engine, "network", "prune", actor);
    let removed = if removed.is_empty() { Value::Null } else { json!(removed) };
    Ok(Reply::json(200, &json!({ "NetworksDeleted": removed })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_may_have_nulls_everywhere() {
        let text = r#"{"Name":"n","Driver":null,"EnableIPv6":null,"IPAM":null,"Labels":null,"Options":null,
                       "ConfigFrom":null,"Internal":null,"CheckDuplicate":true}"#;
        let wanted: CreateRequest = serde_json::from_str(text).expect("parses");
        assert_eq!((wanted.name.as_str(), wanted.enable_ipv6), ("n", None));
        let text = r#"{"Name":"n","IPAM":{"Driver":"default","Config":[{"Subnet":"10.1.0.0/24","IPRange":"10.1.0.0/25",
                       "Gateway":"10.1.0.1/24","AuxiliaryAddresses":{"router":"10.1.0.5"}},{}],"Options":null}}"#;
        let wanted: CreateRequest = serde_json::from_str(text).expect("parses");
        let pools = pools(&wanted.ipam.config).expect("addresses");
        assert_eq!(pools.len(), 1);
        assert_eq!(pools[0].gateway, Some("10.1.0.1".parse().expect("address")));
        assert_eq!(pools[0].auxiliary.len(), 1);
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        let config = |subnet: &str, gateway: &str| IpamConfig {
            subnet: subnet.to_owned(),
            gateway: gateway.to_owned(),
            ..IpamConfig::default()
        };
        for wrong in [config("x", ""), config("10.0.0.0/24", "x"), config("", "10.0.0.1"), config("10.0.0.0/99", "")] {
            assert_eq!(pools(&[wrong]).map(drop).map_err(|refusal| refusal.status), Err(400));
        }
        let settings = |document| serde_json::from_value::<EndpointSettings>(document).expect("settings");
        let wrong = settings(json!({ "IPAMConfig": { "IPv4Address": "10.0.0.300" } }));
        assert_eq!(wish("n", wrong).map(drop).map_err(|refusal| refusal.status), Err(400));
        let right = settings(json!({ "IPAMConfig": null, "Aliases": ["a"], "GwPriority": 3, "Links": null }));
        let found = wish("n", right).expect("a wish");
        assert_eq!((found.aliases.as_slice(), found.priority), (["a".to_owned()].as_slice(), 3));
    }
}
