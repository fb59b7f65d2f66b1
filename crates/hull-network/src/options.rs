//! Options of drivers, under Docker's names.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use hull_netlink::{IpvlanMode, MacvlanMode, valid_name};

use crate::Error;
use crate::record::Driver;

/// Whether and how a network's addresses are reachable from the outside, for one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewayMode {
    /// Hidden behind the machine's addresses; published ports alone are open.
    #[default]
    Nat,
    /// The same, but whoever has a route to a container may use all its ports.
    NatUnprotected,
    /// Not hidden: others have routes to the containers. Published ports are open at the container's own address.
    Routed,
    /// The machine has no address on the bridge; for internal networks.
    Isolated,
}

/// The option for how ports are published, Hull's own.
pub const PUBLISH_MODE: &str = "publish_mode";
const PREFIX: &str = "com.docker.network.";

/// Options as values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Name of the bridge; absent lets Hull choose.
    pub bridge: Option<String>,
    /// Hide containers behind the machine's addresses.
    pub masquerade: bool,
    /// For IPv4.
    pub gateway_ipv4: GatewayMode,
    /// For IPv6.
    pub gateway_ipv6: GatewayMode,
    /// Containers of the network reach each other.
    pub inter_container: bool,
    /// The bridge gets no IPv4 address.
    pub inhibit_ipv4: bool,
    /// Where ports are published that come without an address; absent is every address.
    pub host_binding: Option<IpAddr>,
    /// Devices from which containers' own addresses may be used.
    pub trusted: Vec<String>,
    /// Largest packet; absent takes the uplink's.
    pub mtu: Option<u32>,
    /// Beginning of devices' names in containers.
    pub interface_prefix: String,
    /// Published ports are ordinary sockets of the machine.
    pub proxy: bool,
    /// The device below, for macvlan and ipvlan.
    pub parent: Option<String>,
    /// How devices on top of the parent see each other.
    pub macvlan: MacvlanMode,
    /// What devices on top of the parent forward by.
    pub ipvlan: IpvlanMode,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bridge: None,
            masquerade: true,
            gateway_ipv4: GatewayMode::Nat,
            gateway_ipv6: GatewayMode::Nat,
            inter_container: true,
            inhibit_ipv4: false,
            host_binding: None,
            trusted: Vec::new(),
            mtu: None,
            interface_prefix: "eth".to_owned(),
            proxy: false,
            parent: None,
            macvlan: MacvlanMode::default(),
            ipvlan: IpvlanMode::default(),
        }
    }
}

impl Options {
    /// The mode of a family.
    #[must_use]
    pub fn gateway(&self, ipv4: bool) -> GatewayMode {
        if ipv4 { self.gateway_ipv4 } else { self.gateway_ipv6 }
    }

    /// Reads options as the user gave them.
    pub(crate) fn parse(driver: Driver, internal: bool, given: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut options = Self::default();
        for (key, value) in given {
            let wrong = |reason: &str| Error::invalid(format!("option {key}={value}"), reason);
            let device = || {
                valid_name(value).map_err(|_| wrong("it is no device's name"))?;
                Ok::<_, Error>(value.clone())
            };
            match (driver, key.strip_prefix(PREFIX).unwrap_or(key)) {
                (Driver::Bridge, "bridge.name") => options.bridge = Some(device()?),
                (Driver::Bridge, "bridge.enable_ip_masquerade") => options.masquerade = switch(value, wrong)?,
                (Driver::Bridge, "bridge.gateway_mode_ipv4") => options.gateway_ipv4 = mode(value, internal, wrong)?,
                (Driver::Bridge, "bridge.gateway_mode_ipv6") => options.gateway_ipv6 = mode(value, internal, wrong)?,
                (Driver::Bridge, "bridge.enable_icc") => options.inter_container = switch(value, wrong)?,
                (Driver::Bridge, "bridge.inhibit_ipv4") => options.inhibit_ipv4 = switch(value, wrong)?,
                (Driver::Bridge, "bridge.host_binding_ipv4") => {
                    let address: Ipv4Addr = value.parse().map_err(|_| wrong("give an IPv4 address"))?;
                    options.host_binding = Some(address.into());
                }
                (Driver::Bridge, "bridge.trusted_host_interfaces") => {
                    for name in value.split(':').filter(|name| !name.is_empty()) {
                        valid_name(name).map_err(|_| wrong("give device names, separated by ':'"))?;
                        options.trusted.push(name.to_owned());
                    }
                }
                (_, "driver.mtu") => {
                    let mtu = value.parse().ok().filter(|mtu| (68..=65_535).contains(mtu));
                    options.mtu = Some(mtu.ok_or_else(|| wrong("give 68 to 65535 bytes"))?);
                }
                (_, "container_iface_prefix") => {
                    if value.is_empty() || value.len() > 12 || valid_name(value).is_err() {
                        return Err(wrong("give 1 to 12 characters that a device's name may begin with"));
                    }
                    options.interface_prefix.clone_from(value);
                }
                (Driver::Bridge, PUBLISH_MODE) => {
                    options.proxy = match value.as_str() {
                        "proxy" => true,
                        "dnat" => false,
                        _ => return Err(wrong("give dnat or proxy")),
                    };
                }
                (Driver::Macvlan | Driver::Ipvlan, "parent") => options.parent = Some(device()?),
                (Driver::Macvlan, "macvlan_mode") => {
                    options.macvlan = match value.as_str() {
                        "bridge" | "" => MacvlanMode::Bridge,
                        "private" => MacvlanMode::Private,
                        "vepa" => MacvlanMode::Vepa,
                        "passthru" => MacvlanMode::Passthru,
                        _ => return Err(wrong("give bridge, private, vepa or passthru")),
                    };
                }
                (Driver::Ipvlan, "ipvlan_mode") => {
                    options.ipvlan = match value.as_str() {
                        "l2" | "" => IpvlanMode::L2,
                        "l3" => IpvlanMode::L3,
                        "l3s" => IpvlanMode::L3s,
                        _ => return Err(wrong("give l2, l3 or l3s")),
                    };
                }
                // Docker ignores what it does not know; so that a misspelt switch is not silently off, what looks like a
                // bridge's switch must be one.
                (_, key) if key.starts_with("bridge.") && key != "bridge.default_bridge" => {
                    return Err(wrong("there is no such option"));
                }
                _ => {}
            }
        }
        Ok(options)
    }
}

fn switch(value: &str, wrong: impl Fn(&str) -> Error) -> Result<bool, Error> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(wrong("give true or false")),
    }
}

fn mode(value: &str, internal: bool, wrong: impl Fn(&str) -> Error) -> Result<GatewayMode, Error> {
    match value {
        "nat" | "" => Ok(GatewayMode::Nat),
        "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" if internal => Ok(GatewayMode::Isolated),
        "isolated" => Err(wrong("gateway mode 'isolated' can only be used for an internal network")),
        _ => Err(wrong("unknown gateway mode: give nat, nat-unprotected, routed or isolated")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(key: &str, value: &str) -> Result<Options, Error> {
        Options::parse(Driver::Bridge, false, &BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn dockers_names_are_known() {
        let read = |key: &str, value: &str| parse(&format!("com.docker.network.{key}"), value).unwrap();
        assert_eq!(read("bridge.name", "br7").bridge.as_deref(), Some("br7"));
        assert!(!read("bridge.enable_icc", "false").inter_container);
        assert!(!read("bridge.enable_ip_masquerade", "0").masquerade);
        assert_eq!(read("bridge.gateway_mode_ipv6", "routed").gateway_ipv6, GatewayMode::Routed);
        assert_eq!(read("driver.mtu", "1400").mtu, Some(1400));
        assert_eq!(read("bridge.trusted_host_interfaces", "eth1:wg0").trusted, ["eth1", "wg0"]);
        assert_eq!(parse("something.else", "x").unwrap(), Options::default());
    }

    #[test]
    fn wrong_values_are_refused() {
        for (key, value) in [
            ("bridge.name", "a b"),
            ("bridge.enable_icc", "yes"),
            ("bridge.enable_icx", "true"),
            ("bridge.gateway_mode_ipv4", "isolated"),
            ("driver.mtu", "67"),
            ("driver.mtu", "x"),
            ("container_iface_prefix", "a/b"),
            ("bridge.host_binding_ipv4", "::1"),
        ] {
            assert!(parse(&format!("com.docker.network.{key}"), value).is_err(), "{key}={value}");
        }
        assert!(parse("publish_mode", "x").is_err());
    }
}
