//! Queries of the tables in `hull-db/schema/2-networks.sql`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::Error;
use crate::record::{Endpoint, Network, Protocol, Published};
use crate::subnet::{from_octets, octets};

const NETWORK: &str = "SELECT id, name, record FROM networks";
const ENDPOINT: &str = "SELECT id, network, container, link, bridge, record FROM endpoints";
/// A prefix of an ID shorter than this is a name that does not exist.
const MIN_PREFIX: usize = 1;

fn network(row: &Row<'_>) -> Result<Network, Error> {
    let (id, name, record): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let mut network: Network =
        serde_json::from_str(&record).map_err(|error| Error::Damaged(name.clone(), error.to_string()))?;
    network.id = id;
    network.name = name;
    Ok(network)
}

fn endpoint(row: &Row<'_>) -> Result<Endpoint, Error> {
    let (id, network, container): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let (link, bridge, record): (String, u32, String) = (row.get(3)?, row.get(4)?, row.get(5)?);
    let found: Endpoint =
        serde_json::from_str(&record).map_err(|error| Error::Damaged(network.clone(), error.to_string()))?;
    Ok(Endpoint { id, container, network, link, bridge, ..found })
}

fn json<T: serde::Serialize>(name: &str, value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Damaged(name.to_owned(), error.to_string()))
}

fn collect<T>(
    connection: &Connection,
    query: &str,
    parameters: impl rusqlite::Params,
    each: impl Fn(&Row<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(each(row)?);
    }
    Ok(found)
}

pub(crate) fn networks(connection: &Connection) -> Result<Vec<Network>, Error> {
    collect(connection, &format!("{NETWORK} WHERE removing = 0 ORDER BY name"), (), network)
}

/// Networks whose removal was begun.
pub(crate) fn removing(connection: &Connection) -> Result<Vec<Network>, Error> {
    collect(connection, &format!("{NETWORK} WHERE removing = 1"), (), network)
}

/// By name, ID, or the beginning of an ID.
pub(crate) fn find(connection: &Connection, name: &str) -> Result<Option<Network>, Error> {
    let exact = collect(connection, &format!("{NETWORK} WHERE name = ?1 AND removing = 0"), [name], network)?;
    if let Some(found) = exact.into_iter().next() {
        return Ok(Some(found));
    }
    if name.len() < MIN_PREFIX || name.len() > 64 || !name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Ok(None);
    }
    let query = format!("{NETWORK} WHERE id >= ?1 AND id < ?1 || 'g' AND removing = 0");
    let mut found = collect(connection, &query, [name], network)?;
    match found.len() {
        0 => Ok(None),
        1 => Ok(found.pop()),
        several => Err(Error::Ambiguous(name.to_owned(), several)),
    }
}

pub(crate) fn insert_network(connection: &Connection, network: &Network) -> Result<(), Error> {
    let inserted = connection.execute(
        "INSERT INTO networks (id, name, record) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO NOTHING",
        params![network.id, network.name, json(&network.name, network)?],
    )?;
    if inserted == 0 { Err(Error::Exists(network.name.clone())) } else { Ok(()) }
}

pub(crate) fn mark_removing(connection: &Connection, id: &str) -> Result<(), Error> {
    // The name is free for others at once.
    connection.execute("UPDATE networks SET removing = 1, name = id WHERE id = ?1", [id])?;
    Ok(())
}

/// Forgets a network with what is left of its endpoints.
pub(crate) fn delete_network(connection: &Connection, id: &str) -> Result<(), Error> {
    connection.execute("DELETE FROM endpoints WHERE network = ?1", [id])?;
    connection.execute("DELETE FROM networks WHERE id = ?1", [id])?;
    Ok(())
}

/// Endpoints of a network, or all of a container's, that are in use.
pub(crate) fn endpoints_of_network(connection: &Connection, id: &str) -> Result<Vec<Endpoint>, Error> {
    collect(connection, &format!("{ENDPOINT} WHERE network = ?1 AND leaving = 0 ORDER BY id"), [id], endpoint)
}

pub(crate) fn endpoints_of_container(connection: &Connection, id: &str) -> Result<Vec<Endpoint>, Error> {
    collect(connection, &format!("{ENDPOINT} WHERE container = ?1 AND leaving = 0 ORDER BY id"), [id], endpoint)
}

pub(crate) fn endpoints(connection: &Connection) -> Result<Vec<Endpoint>, Error> {
    collect(connection, &format!("{ENDPOINT} WHERE leaving = 0 ORDER BY id"), (), endpoint)
}

/// IDs of networks by their names.
pub(crate) fn ids(connection: &Connection) -> Result<BTreeMap<String, String>, Error> {
    let query = "SELECT name, id FROM networks WHERE removing = 0";
    Ok(collect(connection, query, (), |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().collect())
}

/// Published ports by the numbers of endpoints.
pub(crate) fn all_ports(connection: &Connection) -> Result<BTreeMap<i64, Vec<Published>>, Error> {
    let list = collect(connection, "SELECT endpoint, list FROM ports", (), |row| {
        let (endpoint, list): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        Ok((endpoint, decode(&list)?))
    })?;
    Ok(list.into_iter().collect())
}

/// IDs of all containers that are on networks.
pub(crate) fn containers(connection: &Connection) -> Result<Vec<String>, Error> {
    collect(connection, "SELECT DISTINCT container FROM endpoints WHERE leaving = 0", (), |row| Ok(row.get(0)?))
}

/// How many devices a bridge of the network has, also those that are leaving.
pub(crate) fn ports_of_bridge(connection: &Connection, network: &str, bridge: u32) -> Result<u32, Error> {
    let query = "SELECT count(*) FROM endpoints WHERE network = ?1 AND bridge = ?2";
    Ok(connection.query_row(query, params![network, bridge], |row| row.get(0))?)
}

/// The highest number of the network's bridges.
pub(crate) fn last_bridge(connection: &Connection, network: &str) -> Result<u32, Error> {
    let query = "SELECT coalesce(max(bridge), 0) FROM endpoints WHERE network = ?1";
    Ok(connection.query_row(query, [network], |row| row.get(0))?)
}

/// Some endpoints whose containers are gone: number and device.
pub(crate) fn leaving(connection: &Connection, limit: u32) -> Result<Vec<(i64, String)>, Error> {
    let query = "SELECT id, link FROM endpoints WHERE leaving = 1 ORDER BY id LIMIT ?1";
    collect(connection, query, [limit], |row| Ok((row.get(0)?, row.get(1)?)))
}

pub(crate) fn delete_endpoint(connection: &Connection, id: i64) -> Result<(), Error> {
    connection.execute("DELETE FROM endpoints WHERE id = ?1", [id])?;
    Ok(())
}

/// Puts an endpoint down with its addresses; its number is put in.
pub(crate) fn insert_endpoint(connection: &Connection, endpoint: &mut Endpoint) -> Result<(), Error> {
    connection.execute(
        "INSERT INTO endpoints (network, container, link, bridge, record) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            endpoint.network,
            endpoint.container,
            endpoint.link,
            endpoint.bridge,
            json(&endpoint.network_name, endpoint)?
        ],
    )?;
    endpoint.id = connection.last_insert_rowid();
    for (address, _) in &endpoint.addresses {
        connection.execute(
            "INSERT INTO addresses (network, address, endpoint) VALUES (?1, ?2, ?3)",
            params![endpoint.network, octets(*address), endpoint.id],
        )?;
    }
    Ok(())
}

/// The container's endpoint leaves: its ports are forgotten, its addresses kept until its device is gone.
pub(crate) fn leave(connection: &Connection, endpoint: i64) -> Result<(), Error> {
    connection.execute("UPDATE endpoints SET leaving = 1 WHERE id = ?1", [endpoint])?;
    connection.execute("DELETE FROM ports WHERE endpoint = ?1", [endpoint])?;
    Ok(())
}

/// The name of the container that has an address, if any; `Some("")` if it has just gone.
pub(crate) fn owner(connection: &Connection, network: &str, address: IpAddr) -> Result<Option<String>, Error> {
    let query = "SELECT endpoints.leaving, endpoints.record FROM addresses JOIN endpoints \
                 ON endpoints.id = addresses.endpoint WHERE addresses.network = ?1 AND addresses.address = ?2";
    let found: Option<(bool, String)> = connection
        .query_row(query, params![network, octets(address)], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(found.map(|(leaving, record)| {
        let name = serde_json::from_str::<Endpoint>(&record).map(|endpoint| endpoint.container_name);
        if leaving { String::new() } else { name.unwrap_or_default() }
    }))
}

/// The first address from `from` to `to` that nobody has, if any.
pub(crate) fn free_address(
    connection: &Connection,
    network: &str,
    from: IpAddr,
    to: IpAddr,
    skip: impl Fn(IpAddr) -> bool,
) -> Result<Option<IpAddr>, Error> {
    use crate::subnet::{address, number};
    let mut statement = connection.prepare_cached(
        "SELECT address FROM addresses WHERE network = ?1 AND address BETWEEN ?2 AND ?3 ORDER BY address",
    )?;
    let mut rows = statement.query(params![network, octets(from), octets(to)])?;
    let mut taken = rows.next()?.map(|row| row.get::<_, Vec<u8>>(0)).transpose()?;
    let (mut candidate, last) = (number(from), number(to));
    while candidate <= last {
        let wanted = address(from, candidate);
        // Addresses of one length compare as bytes like numbers.
        if taken.as_deref() == Some(&octets(wanted)) {
            taken = rows.next()?.map(|row| row.get::<_, Vec<u8>>(0)).transpose()?;
        } else if !skip(wanted) {
            return Ok(Some(wanted));
        }
        let Some(next) = candidate.checked_add(1) else { break };
        candidate = next;
    }
    Ok(None)
}

pub(crate) fn cursor(connection: &Connection, network: &str, ipv4: bool) -> Result<Option<IpAddr>, Error> {
    let query = "SELECT next FROM cursors WHERE network = ?1 AND family = ?2";
    let found: Option<Vec<u8>> =
        connection.query_row(query, params![network, if ipv4 { 4 } else { 6 }], |row| row.get(0)).optional()?;
    Ok(found.and_then(|bytes| from_octets(&bytes)).filter(|address| address.is_ipv4() == ipv4))
}

pub(crate) fn set_cursor(connection: &Connection, network: &str, next: IpAddr) -> Result<(), Error> {
    connection.execute(
        "INSERT INTO cursors (network, family, next) VALUES (?1, ?2, ?3) \
         ON CONFLICT (network, family) DO UPDATE SET next = excluded.next",
        params![network, if next.is_ipv4() { 4 } else { 6 }, octets(next)],
    )?;
    Ok(())
}

/// What begins a run in place of a protocol.
const RUN: u8 = 255;

/// The same with both ports so many numbers higher.
fn higher(one: &Published, by: usize) -> Option<Published> {
    let by = u16::try_from(by).ok()?;
    Some(Published { host_port: one.host_port.checked_add(by)?, port: one.port.checked_add(by)?, ..*one })
}

/// How often the first `width` ports follow one another, each time with numbers higher by one.
fn repeated(ports: &[Published], width: usize) -> usize {
    let follows = |(count, some): (usize, &[Published])| {
        some.len() == width && some.iter().zip(ports).all(|(some, first)| higher(first, count).as_ref() == Some(some))
    };
    ports.chunks(width).enumerate().take_while(|each| follows(*each)).count().min(usize::from(u16::MAX))
}

/// Bytes of one port: protocol, port of the machine, port of the container, lengths and bytes of both addresses. A run, as
/// a range of ports is, begins with [`RUN`], how often what follows is repeated with higher numbers, and of how many ports
/// that consists, which are those of IPv4 and IPv6.
fn encode(ports: &[Published]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    let mut rest = ports;
    while !rest.is_empty() {
        let (width, count) = [1, 2]
            .map(|width| (width, repeated(rest, width)))
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .unwrap_or((1, 1));
        if count > 1 {
            bytes.push(RUN);
            bytes.extend_from_slice(&u16::try_from(count).unwrap_or(1).to_be_bytes());
            bytes.push(if width == 2 { 2 } else { 1 });
        }
        encode_each(&rest[..if count > 1 { width } else { 1 }], &mut bytes);
        rest = &rest[if count > 1 { width * count } else { 1 }..];
    }
    bytes
}

fn encode_each(ports: &[Published], bytes: &mut Vec<u8>) {
    for one in ports {
        bytes.push(one.protocol.number());
        bytes.extend_from_slice(&one.host_port.to_be_bytes());
        bytes.extend_from_slice(&one.port.to_be_bytes());
        for address in [one.host, one.address] {
            let octets = octets(address);
            bytes.push(if octets.len() == 4 { 4 } else { 16 });
            bytes.extend_from_slice(&octets);
        }
    }
}

fn decode(mut bytes: &[u8]) -> Result<Vec<Published>, Error> {
    fn address(bytes: &[u8]) -> Option<(std::net::IpAddr, &[u8])> {
        let (length, rest) = bytes.split_first()?;
        let (octets, rest) = rest.split_at_checked(usize::from(*length))?;
        Some((from_octets(octets)?, rest))
    }
    fn one(bytes: &[u8]) -> Option<(Published, &[u8])> {
        let ([protocol, a, b, c, d], rest) = bytes.split_first_chunk::<5>()?;
        let (host, rest) = address(rest)?;
        let (target, rest) = address(rest)?;
        let published = Published {
            protocol: Protocol::from_number(*protocol)?,
            host,
            host_port: u16::from_be_bytes([*a, *b]),
            address: target,
            port: u16::from_be_bytes([*c, *d]),
        };
        Some((published, rest))
    }
    let mut ports = Vec::new();
    while !bytes.is_empty() {
        let damaged = || Error::Damaged("published ports".to_owned(), "the list breaks off".to_owned());
        let (count, width) = match bytes {
            [RUN, a, b, width @ (1 | 2), rest @ ..] => {
                bytes = rest;
                (u16::from_be_bytes([*a, *b]), *width)
            }
            _ => (1, 1),
        };
        let mut first = Vec::new();
        for _ in 0..width {
            let (published, rest) = one(bytes).ok_or_else(damaged)?;
            first.push(published);
            bytes = rest;
        }
        for by in 0..usize::from(count) {
            for one in &first {
                ports.push(higher(one, by).ok_or_else(damaged)?);
            }
        }
    }
    Ok(ports)
}

pub(crate) fn set_ports(connection: &Connection, endpoint: i64, ports: &[Published]) -> Result<(), Error> {
    if ports.is_empty() {
        connection.execute("DELETE FROM ports WHERE endpoint = ?1", [endpoint])?;
    } else {
        let query = "INSERT OR REPLACE INTO ports (endpoint, list) VALUES (?1, ?2)";
        connection.execute(query, params![endpoint, encode(ports)])?;
    }
    Ok(())
}

/// Published ports, each with its endpoint's network.
pub(crate) fn ports(connection: &Connection) -> Result<Vec<(String, Published)>, Error> {
    let query = "SELECT endpoints.network, list FROM ports JOIN endpoints ON endpoints.id = ports.endpoint \
                 ORDER BY ports.endpoint";
    let lists = collect(connection, query, (), |row| {
        let (network, list): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
        Ok((network, decode(&list)?))
    })?;
    Ok(lists.into_iter().flat_map(|(network, list)| list.into_iter().map(move |one| (network.clone(), one))).collect())
}

pub(crate) fn ports_of_endpoint(connection: &Connection, endpoint: i64) -> Result<Vec<Published>, Error> {
    let query = "SELECT list FROM ports WHERE endpoint = ?1";
    let list: Option<Vec<u8>> = connection.query_row(query, [endpoint], |row| row.get(0)).optional()?;
    list.map_or_else(|| Ok(Vec::new()), |list| decode(&list))
}

/// Every endpoint with published ports: its number, its container's name, the ports.
pub(crate) fn publishers(connection: &Connection) -> Result<Vec<(i64, String, Vec<Published>)>, Error> {
    let query =
        "SELECT ports.endpoint, endpoints.record, list FROM ports JOIN endpoints ON endpoints.id = ports.endpoint";
    collect(connection, query, (), |row| {
        let (endpoint, record, list): (i64, String, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let name = serde_json::from_str::<Endpoint>(&record).map(|found| found.container_name).unwrap_or_default();
        Ok((endpoint, name, decode(&list)?))
    })
}

/// A setting of the store.
pub(crate) fn setting(connection: &Connection, name: &str) -> Result<Option<String>, Error> {
    let query = "SELECT value FROM settings WHERE name = ?1";
    Ok(connection.query_row(query, [name], |row| row.get(0)).optional()?)
}

pub(crate) fn set_setting(connection: &Connection, name: &str, value: &str) -> Result<(), Error> {
    connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)", params![name, value])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_ports_are_read_back() {
        let ip = |text: &str| text.parse().unwrap();
        let one = |host: &str, address: &str| Published {
            protocol: Protocol::Udp,
            host: ip(host),
            host_port: 8080,
            address: ip(address),
            port: 80,
        };
        let list = [one("0.0.0.0", "10.0.0.2"), one("::", "10.0.0.2"), one("2001:db8::1", "fd00::2")];
        let row = |first: &Published| (0..100).map(|by| higher(first, by).unwrap()).collect::<Vec<_>>();
        let both: Vec<_> = row(&list[0]).into_iter().zip(row(&list[1])).flat_map(|(a, b)| [a, b]).collect();
        for ports in [row(&list[0]), both, [&list[..], &row(&list[2]), &list].concat()] {
            let bytes = encode(&ports);
            assert!(bytes.len() < 300, "{}", bytes.len());
            assert_eq!(decode(&bytes).unwrap(), ports);
            // Nothing of the kind that a damaged row might say is more than a list of 65536.
            assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        }
        assert!(decode(&[&[RUN, 255, 255, 1][..], &encode(&list[..1])].concat()).is_err());
        let bytes = encode(&list);
        assert_eq!(decode(&bytes).unwrap(), list);
        let whole = [0, 15, 42, bytes.len()];
        for end in 0..=bytes.len() {
            assert_eq!(decode(&bytes[..end]).is_ok(), whole.contains(&end), "{end}");
        }
    }
}
