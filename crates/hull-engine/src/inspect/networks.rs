//! What `network inspect` shows of a network, in Docker's shape.

use hull_network::{Error, Network, Networks};
use serde_json::{Map, Value, json};

use crate::time;

/// The document of one network, with the containers that are on it.
///
/// # Errors
/// [`Error::Database`].
pub fn document(networks: &Networks, network: &Network) -> Result<Value, Error> {
    let mut document = summary(network);
    let mut containers = Map::new();
    for endpoint in networks.endpoints(network)? {
        let of = |ipv4: bool| {
            let found = endpoint.addresses.iter().find(|(address, _)| address.is_ipv4() == ipv4);
            found.map_or(String::new(), |(address, prefix)| format!("{address}/{prefix}"))
        };
        let described = json!({
            "Name": endpoint.container_name,
            // Docker has an ID for it; here its number stands behind the network's ID.
            "EndpointID": format!("{}{:016x}", &network.id[..48.min(network.id.len())], endpoint.id),
            "MacAddress": endpoint.mac.to_string(),
            "IPv4Address": of(true),
            "IPv6Address": of(false),
        });
        containers.insert(endpoint.container.clone(), described);
    }
    document["Containers"] = containers.into();
    Ok(document)
}

/// The same without the containers: a list of networks shows none.
#[must_use]
pub fn summary(network: &Network) -> Value {
    let pools = network.pools.iter().map(|pool| {
        let mut fields = Map::new();
        fields.insert("Subnet".to_owned(), pool.subnet.to_string().into());
        if let Some(range) = pool.range {
            fields.insert("IPRange".to_owned(), range.to_string().into());
        }
        if let Some(gateway) = pool.gateway {
            fields.insert("Gateway".to_owned(), gateway.to_string().into());
        }
        if !pool.auxiliary.is_empty() {
            fields.insert("AuxiliaryAddresses".to_owned(), json!(pool.auxiliary));
        }
        Value::Object(fields)
    });
    let pools: Vec<Value> = pools.collect();
    let own = network.options.iter().filter(|(key, _)| !key.starts_with("hull."));
    let options: Map<String, Value> = own.map(|(key, value)| (key.clone(), value.clone().into())).collect();
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": time::short(network.created),
        "Scope": "local",
        "Driver": network.driver.as_str(),
        "EnableIPv4": network.ipv4,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": if network.predefined() { Value::Null } else { json!({}) },
            "Config": if network.pools.is_empty() { Value::Null } else { pools.into() },
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": {},
        "Options": options,
        "Labels": network.labels,
    })
}
