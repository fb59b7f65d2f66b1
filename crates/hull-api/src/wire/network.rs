//! Bodies of requests about networks, and what is asked of a container on one.

use std::collections::BTreeMap;

use hull_oci::spec::null_default;
use serde::Deserialize;

use super::null_object;

/// What `POST /networks/create` takes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreateRequest {
    #[serde(deserialize_with = "null_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) driver: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) scope: String,
    #[serde(rename = "EnableIPv4")]
    pub(crate) enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    pub(crate) enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM", deserialize_with = "null_object")]
    pub(crate) ipam: Ipam,
    #[serde(deserialize_with = "null_default")]
    pub(crate) internal: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) attachable: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) ingress: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) config_only: bool,
    #[serde(deserialize_with = "null_object")]
    pub(crate) config_from: ConfigFrom,
    #[serde(deserialize_with = "null_default")]
    pub(crate) options: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ConfigFrom {
    #[serde(deserialize_with = "null_default")]
    pub(crate) network: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Ipam {
    #[serde(deserialize_with = "null_default")]
    pub(crate) driver: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) config: Vec<IpamConfig>,
    #[serde(rename = "Options", deserialize_with = "null_default")]
    _options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct IpamConfig {
    #[serde(deserialize_with = "null_default")]
    pub(crate) subnet: String,
    #[serde(rename = "IPRange", deserialize_with = "null_default")]
    pub(crate) range: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) gateway: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) auxiliary_addresses: BTreeMap<String, String>,
    /// As some clients still call it.
    #[serde(deserialize_with = "null_default")]
    pub(crate) aux_address: BTreeMap<String, String>,
}

/// What `POST /networks/ID/connect` takes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ConnectRequest {
    #[serde(deserialize_with = "null_default")]
    pub(crate) container: String,
    #[serde(deserialize_with = "null_object")]
    pub(crate) endpoint_config: EndpointSettings,
}

/// What `POST /networks/ID/disconnect` takes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DisconnectRequest {
    #[serde(deserialize_with = "null_default")]
    pub(crate) container: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) force: bool,
}

/// What a client wants of a container on a network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct EndpointSettings {
    #[serde(rename = "IPAMConfig", deserialize_with = "null_object")]
    pub(crate) ipam: EndpointIpam,
    #[serde(deserialize_with = "null_default")]
    pub(crate) aliases: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) driver_opts: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) gw_priority: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) mac_address: String,
    // What documents of a container on a network have beside that is sent back by some clients, and refused where its
    // type is wrong.
    #[serde(rename = "Links", deserialize_with = "null_default")]
    _links: Vec<String>,
    #[serde(rename = "NetworkID", deserialize_with = "null_default")]
    _network_id: String,
    #[serde(rename = "EndpointID", deserialize_with = "null_default")]
    _endpoint_id: String,
    #[serde(rename = "Gateway", deserialize_with = "null_default")]
    _gateway: String,
    #[serde(rename = "IPAddress", deserialize_with = "null_default")]
    _ip_address: String,
    #[serde(rename = "IPPrefixLen", deserialize_with = "null_default")]
    _ip_prefix_len: i32,
    #[serde(rename = "IPv6Gateway", deserialize_with = "null_default")]
    _ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address", deserialize_with = "null_default")]
    _global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen", deserialize_with = "null_default")]
    _global_ipv6_prefix_len: i32,
    #[serde(rename = "DNSNames", deserialize_with = "null_default")]
    _dns_names: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct EndpointIpam {
    #[serde(rename = "IPv4Address", deserialize_with = "null_default")]
    pub(crate) ipv4: String,
    #[serde(rename = "IPv6Address", deserialize_with = "null_default")]
    pub(crate) ipv6: String,
    #[serde(rename = "LinkLocalIPs", deserialize_with = "null_default")]
    pub(crate) link_local: Vec<String>,
}
