//! Values of network flags, as Docker spells them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use crate::config::{NetworkConfig, PublishConfig};

type Parsed<T> = Result<T, String>;

/// Ports that one flag may name.
const MAX_RANGE: usize = 65_535;

/// `--network` in its short and its long form: `NAME`, or `name=NAME,alias=...,ip=...`.
///
/// # Errors
/// What was found and what was expected.
pub fn network(text: &str) -> Parsed<NetworkConfig> {
    let mut network = NetworkConfig::default();
    if !text.contains('=') {
        text.clone_into(&mut network.name);
        return if text.is_empty() { Err("expected the name of a network".to_owned()) } else { Ok(network) };
    }
    for field in text.split(',') {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("invalid field {field}: must be a key=value pair"));
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => value.clone_into(&mut network.name),
            "alias" => network.aliases.push(value.to_owned()),
            "ip" => network.ipv4 = Some(ipv4(value)?),
            "ip6" => network.ipv6 = Some(ipv6(value)?),
            "mac-address" => network.mac = Some(mac(value)?),
            "link-local-ip" => network.link_local.push(address(value)?),
            "gw-priority" => {
                network.priority =
                    value.parse().map_err(|_| format!("invalid gw-priority ({value}): expected a number"))?;
            }
            "driver-opt" => {
                let (name, value) = value.split_once('=').ok_or("invalid key value pair format in driver options")?;
                network.options.insert(name.to_owned(), value.to_owned());
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if network.name.is_empty() { Err(format!("{text:?} names no network: expected name=NAME")) } else { Ok(network) }
}

fn address(text: &str) -> Parsed<IpAddr> {
    text.parse().map_err(|_| format!("invalid IP address: {text:?}"))
}

/// `--ip`.
///
/// # Errors
/// What was found.
pub fn ipv4(text: &str) -> Parsed<Ipv4Addr> {
    text.parse().map_err(|_| format!("invalid IPv4 address: {text:?}"))
}

/// `--ip6`.
///
/// # Errors
/// What was found.
pub fn ipv6(text: &str) -> Parsed<Ipv6Addr> {
    text.parse().map_err(|_| format!("invalid IPv6 address: {text:?}"))
}

/// `--mac-address`.
///
/// # Errors
/// What was found.
pub fn mac(text: &str) -> Parsed<String> {
    text.parse::<hull_network::Mac>().map(|mac| mac.to_string()).map_err(|error| error.to_string())
}

/// `--dns`.
///
/// # Errors
/// What was found.
pub fn dns(text: &str) -> Parsed<IpAddr> {
    text.trim().parse().map_err(|_| format!("IP address is not correctly formatted: {text}"))
}

/// A port of the container with its protocol, or a range: `80`, `53/udp`, `8000-8010/tcp`.
///
/// # Errors
/// What was found.
pub fn expose(text: &str) -> Parsed<Vec<String>> {
    let (ports, protocol) = split_protocol(text)?;
    let range = port_range(ports).map_err(|_| {
        format!(
            "invalid range format for --expose: {text}, error: strconv.ParseUint: parsing {ports:?}: invalid syntax"
        )
    })?;
    Ok(range.map(|port| format!("{port}/{protocol}")).collect())
}

fn split_protocol(text: &str) -> Parsed<(&str, String)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    match protocol.as_str() {
        "tcp" | "udp" | "sctp" => Ok((ports, protocol)),
        _ => Err(format!("invalid proto: {protocol}")),
    }
}

fn port_range(text: &str) -> Parsed<RangeInclusive<u16>> {
    let wrong = || format!("invalid port: {text:?}");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    let range = number(first)?..=number(last)?;
    if range.is_empty() { Err(wrong()) } else { Ok(range) }
}

/// `-p` in its short form, `[[ADDRESS:][PORT]:]PORT[/PROTOCOL]` with ranges, and its long one,
/// `published=8080,target=80,protocol=tcp`.
///
/// # Errors
/// What was found and what was expected.
pub fn publish(text: &str) -> Parsed<Vec<PublishConfig>> {
    if text.contains("target=") {
        return long(text);
    }
    let (rest, protocol) = split_protocol(text)?;
    let (host, rest) = host(rest)?;
    let (outside, inside) = match rest.rsplit_once(':') {
        Some((outside, inside)) => (outside, inside),
        None => ("", rest),
    };
    if inside.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let ports = port_range(inside).map_err(|_| format!("invalid containerPort: {inside}"))?;
    let outside = match outside {
        "" => None,
        range => Some(port_range(range).map_err(|_| format!("invalid hostPort: {range}"))?),
    };
    expand(host, outside, ports, &protocol)
        .ok_or_else(|| format!("invalid ranges specified for container and host Ports: {inside} and {rest}"))
}

/// The address before the ports, in brackets if it has colons.
fn host(text: &str) -> Parsed<(Option<IpAddr>, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, rest) = rest.split_once("]:").ok_or_else(|| format!("invalid IP address: {text}"))?;
        return Ok((Some(IpAddr::V6(ipv6(inside)?)), rest));
    }
    match text.match_indices(':').map(|(at, _)| at).collect::<Vec<_>>().as_slice() {
        [] | [_] => Ok((None, text)),
        [first, _] => {
            let host = &text[..*first];
            let rest = &text[first + 1..];
            if host.is_empty() { Ok((None, rest)) } else { Ok((Some(IpAddr::V4(ipv4(host)?)), rest)) }
        }
        [.., second, _] => {
            let host = &text[..*second];
            let address = ipv6(host)
                .map_err(|_| format!("invalid ip address {host}: address {host}:: too many colons in address"))?;
            Ok((Some(IpAddr::V6(address)), &text[second + 1..]))
        }
    }
}

/// Ranges of the same length belong together port by port; one port of the container takes the first free one of a range.
fn expand(
    host: Option<IpAddr>,
    outside: Option<RangeInclusive<u16>>,
    inside: RangeInclusive<u16>,
    protocol: &str,
) -> Option<Vec<PublishConfig>> {
    let length = inside.len();
    let one = |port: u16, host_ports: Option<(u16, u16)>| PublishConfig {
        host,
        host_ports,
        port,
        protocol: protocol.to_owned(),
    };
    if length > MAX_RANGE {
        return None;
    }
    match outside {
        None => Some(inside.map(|port| one(port, None)).collect()),
        Some(outside) if length == 1 => Some(vec![one(*inside.start(), Some((*outside.start(), *outside.end())))]),
        Some(outside) if outside.len() == length => {
            Some(inside.zip(outside).map(|(port, outside)| one(port, Some((outside, outside)))).collect())
        }
        Some(_) => None,
    }
}

fn long(text: &str) -> Parsed<Vec<PublishConfig>> {
    let (mut host, mut outside, mut inside, mut protocol) = (None, None, None, "tcp".to_owned());
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid field {field}"))?;
        match key.trim() {
            "protocol" => protocol = split_protocol(&format!("1/{value}"))?.1,
            "target" => inside = Some(port_range(value)?),
            "published" => {
                let whole = format!("{value}:");
                let (address, ports) = self::host(&whole)?;
                host = address;
                outside = Some(port_range(ports.trim_end_matches(':'))?);
            }
            "mode" if matches!(value, "host" | "ingress") => {}
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    let inside = inside.ok_or_else(|| format!("{text:?} has no target"))?;
    expand(host, outside, inside, &protocol).ok_or_else(|| format!("{text:?}: the ranges differ in length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        publish(text)
            .unwrap()
            .iter()
            .map(|one| {
                let host = one.host.map(|host| host.to_string()).unwrap_or_default();
                format!("{host}|{:?}|{}/{}", one.host_ports, one.port, one.protocol)
            })
            .collect()
    }

    #[test]
    fn published_ports_are_read_as_docker_does() {
        assert_eq!(shown("80"), ["|None|80/tcp"]);
        assert_eq!(shown("8080:80"), ["|Some((8080, 8080))|80/tcp"]);
        assert_eq!(shown("127.0.0.1:8080:80/udp"), ["127.0.0.1|Some((8080, 8080))|80/udp"]);
        assert_eq!(shown("127.0.0.1::80"), ["127.0.0.1|None|80/tcp"]);
        assert_eq!(shown("[::1]:8080:80"), ["::1|Some((8080, 8080))|80/tcp"]);
        assert_eq!(shown("8000-8001:80-81").len(), 2);
        assert_eq!(shown("8000-8010:80"), ["|Some((8000, 8010))|80/tcp"]);
        assert_eq!(shown("published=127.0.0.1:8080,target=80,protocol=udp"), ["127.0.0.1|Some((8080, 8080))|80/udp"]);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for bad in ["", "a", "0", "65536", "8000-8001:80-82", "80/icmp", "1.2.3:80:80", "[::1]80:80", "80:", "5-3"] {
            assert!(publish(bad).is_err(), "{bad:?}");
        }
        assert!(expose("80-90/tcp").is_ok() && expose("x").is_err());
    }

    #[test]
    fn networks_have_two_forms() {
        assert_eq!(network("web").unwrap().name, "web");
        let long = network("name=web,alias=a,alias=b,ip=10.0.0.9,gw-priority=3,driver-opt=x=y").unwrap();
        assert_eq!((long.aliases.len(), long.priority, long.options["x"].as_str()), (2, 3, "y"));
        assert!(network("alias=a").is_err() && network("name=web,what=1").is_err());
    }
}
