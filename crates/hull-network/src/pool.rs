//! Addresses: which subnet a new network gets, and which address a container gets of it.
//!
//! Default subnets are of 4 094 addresses, so that there are hundreds of them; those that a network, a route or an address
//! of the machine overlaps are left out. Addresses of a subnet are handed out in turn, so that one that has just become
//! free is not another container's at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rusqlite::Connection;

use crate::record::{Network, Pool};
use crate::subnet::{Subnet, address, number};
use crate::{Error, store};

/// Where default subnets are taken from, in this order.
const DEFAULTS: [(Ipv4Addr, u8); 3] =
    [(Ipv4Addr::new(172, 16, 0, 0), 12), (Ipv4Addr::new(192, 168, 0, 0), 16), (Ipv4Addr::new(10, 64, 0, 0), 10)];
/// Length of a default subnet's prefix.
const SIZE: u8 = 20;
/// The very first: Docker's is here too, and users expect it.
const FIRST: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 0);
/// The setting that holds this machine's unique local IPv6 prefix.
const ULA: &str = "network.ula";

/// What is in the way of a subnet.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) subnet: Subnet,
    /// Such as `network web` or `route 10.0.0.0/8 of eth0`.
    pub(crate) by: String,
}

/// Subnets of all networks.
pub(crate) fn of_networks(networks: &[Network]) -> Vec<Taken> {
    let pools = networks.iter().flat_map(|network| network.pools.iter().map(move |pool| (network, pool)));
    pools
        .map(|(network, pool)| Taken { subnet: pool.subnet, by: format!("network {} ({})", network.name, pool.subnet) })
        .collect()
}

/// `base=SUBNET,size=BITS` as the settings have it.
fn parse_pool(text: &str) -> Result<(Subnet, u8), Error> {
    let wrong = |reason: &str| Error::invalid(format!("default-address-pools {text:?}"), reason);
    let (mut base, mut size) = (None, None);
    for part in text.split(',') {
        match part.trim().split_once('=') {
            Some(("base", value)) => base = Some(value.parse::<Subnet>()?),
            Some(("size", value)) => size = value.parse::<u8>().ok(),
            _ => return Err(wrong("give base=SUBNET,size=BITS")),
        }
    }
    let (Some(base), Some(size)) = (base, size) else { return Err(wrong("give base=SUBNET,size=BITS")) };
    if size < base.prefix() || size > if base.is_ipv4() { 30 } else { 126 } {
        return Err(wrong("the size is the prefix of a part of the base"));
    }
    Ok((base, size))
}

/// Where default subnets come from, and how large they are: the setting, or Hull's own.
fn pools() -> Result<Vec<(Subnet, u8)>, Error> {
    let given = hull_config::list("default-address-pools");
    if given.is_empty() {
        let own = DEFAULTS.iter().filter_map(|(base, prefix)| Some((Subnet::new((*base).into(), *prefix)?, SIZE)));
        return Ok(own.collect());
    }
    let pools = given.iter().map(|text| parse_pool(text)).collect::<Result<Vec<_>, _>>()?;
    Ok(pools.into_iter().filter(|(base, _)| base.is_ipv4()).collect())
}

/// The subnet and gateway that the setting `bip` wants for the network `bridge`.
pub(crate) fn of_bip() -> Result<Option<Pool>, Error> {
    let Some(text) = hull_config::text("bip").filter(|text| !text.is_empty()) else { return Ok(None) };
    let wrong = || Error::invalid(format!("bip {text:?}"), "give an address with its prefix, as 172.20.0.1/16");
    let (gateway, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let gateway: IpAddr = gateway.parse().map_err(|_| wrong())?;
    let subnet = prefix.parse().ok().and_then(|prefix| Subnet::new(gateway, prefix)).ok_or_else(wrong)?;
    let pool = Pool { subnet, range: None, gateway: Some(gateway), auxiliary: Default::default(), chosen: true };
    complete(pool, true).map(Some)
}

/// The first default IPv4 subnet that nobody has.
pub(crate) fn default_ipv4(taken: &[Taken]) -> Result<Subnet, Error> {
    first_free(&pools()?, taken)
}

fn first_free(pools: &[(Subnet, u8)], taken: &[Taken]) -> Result<Subnet, Error> {
    for (whole, size) in pools.iter().copied() {
        let start = if whole.contains(FIRST.into()) { FIRST.into() } else { whole.address() };
        let mut candidate = Subnet::new(start, size);
        while let Some(subnet) = candidate.filter(|one| whole.covers(one)) {
            match taken.iter().find(|one| one.subnet.overlaps(&subnet)) {
                None => return Ok(subnet),
                // Go on behind what is in the way: it may be much larger.
                Some(other) if other.subnet.covers(&subnet) => {
                    candidate = other.subnet.next().and_then(|next| Subnet::new(next.address(), size));
                }
                Some(_) => candidate = subnet.next(),
            }
        }
    }
    Err(Error::PoolsExhausted)
}

/// The first /64 of this machine's unique local prefix that nobody has.
pub(crate) fn default_ipv6(connection: &Connection, taken: &[Taken]) -> Result<Subnet, Error> {
    let prefix = match store::setting(connection, ULA)?.and_then(|text| text.parse::<Ipv6Addr>().ok()) {
        Some(prefix) => prefix,
        None => {
            let mut random = [0_u8; 16];
            crate::random(&mut random[1..6])?;
            random[0] = 0xfd;
            let prefix = Ipv6Addr::from(random);
            store::set_setting(connection, ULA, &prefix.to_string())?;
            prefix
        }
    };
    let mut candidate = Subnet::new(prefix.into(), 64);
    for _ in 0..=u16::MAX {
        let Some(subnet) = candidate else { break };
        if !taken.iter().any(|one| one.subnet.overlaps(&subnet)) {
            return Ok(subnet);
        }
        candidate = subnet.next();
    }
    Err(Error::PoolsExhausted)
}

/// Refuses a subnet that overlaps another network's.
pub(crate) fn check_free(subnet: Subnet, taken: &[Taken]) -> Result<(), Error> {
    match taken.iter().find(|one| one.subnet.overlaps(&subnet)) {
        Some(other) => Err(Error::Overlap { subnet, other: other.by.clone() }),
        None => Ok(()),
    }
}

/// Checks a pool that the user described, and gives it a gateway.
pub(crate) fn complete(mut pool: Pool, gateway: bool) -> Result<Pool, Error> {
    pool.subnet.check()?;
    if let Some(range) = pool.range
        && !pool.subnet.covers(&range)
    {
        let what = format!("ip-range {range}");
        return Err(Error::invalid(what, format!("it is not inside subnet {}", pool.subnet)));
    }
    let named = pool.auxiliary.iter().map(|(name, address)| (format!("auxiliary address {name}={address}"), *address));
    for (what, address) in named.chain(pool.gateway.map(|gateway| (format!("gateway {gateway}"), gateway))) {
        let (first, last) = pool.subnet.usable();
        if !pool.subnet.contains(address) || address < first || address > last {
            return Err(Error::invalid(what, format!("it is no address of a device in subnet {}", pool.subnet)));
        }
    }
    if pool.gateway.is_none() && gateway {
        let (first, last) = pool.subnet.usable();
        let from = pool.range.map_or(first, |range| range.usable().0.max(first));
        let used = |one: IpAddr| pool.auxiliary.values().any(|other| *other == one);
        let found = (number(from)..=number(last)).map(|one| address(from, one)).find(|one| !used(*one));
        pool.gateway = Some(found.ok_or(Error::PoolsExhausted)?);
    }
    Ok(pool)
}

/// Addresses of the pool that are not for containers.
fn reserved(pool: &Pool, wanted: IpAddr) -> Option<&'static str> {
    if pool.gateway == Some(wanted) {
        return Some("the gateway");
    }
    pool.auxiliary.values().any(|one| *one == wanted).then_some("an auxiliary address")
}

/// Whether a container may have this address, which the user asked for.
pub(crate) fn check_wanted(
    connection: &Connection,
    network: &Network,
    pool: &Pool,
    wanted: IpAddr,
) -> Result<(), Error> {
    let (first, last) = pool.subnet.usable();
    if !pool.subnet.contains(wanted) || wanted < first || wanted > last {
        return Err(Error::AddressOutside { address: wanted, network: network.name.clone() });
    }
    let taken = |owner: String| Error::AddressTaken { address: wanted, network: network.name.clone(), owner };
    if let Some(what) = reserved(pool, wanted) {
        return Err(taken(what.to_owned()));
    }
    match store::owner(connection, &network.id, wanted)? {
        None => Ok(()),
        Some(name) if name.is_empty() => Err(taken("that of a container which has just ended".to_owned())),
        Some(name) => Err(taken(format!("that of container {name}"))),
    }
}

/// The next free address, in turn.
pub(crate) fn allocate(connection: &Connection, network: &Network, pool: &Pool) -> Result<IpAddr, Error> {
    let (mut first, mut last) = pool.subnet.usable();
    if let Some(range) = pool.range {
        // A range has no addresses of its own and for all: each of its addresses is one of the subnet's.
        first = first.max(range.address());
        last = last.min(range.last());
    }
    let ipv4 = pool.subnet.is_ipv4();
    let start =
        store::cursor(connection, &network.id, ipv4)?.filter(|next| (first..=last).contains(next)).unwrap_or(first);
    let skip = |one| reserved(pool, one).is_some();
    let mut found = store::free_address(connection, &network.id, start, last, skip)?;
    if found.is_none() && start > first {
        let before = address(start, number(start) - 1);
        found = store::free_address(connection, &network.id, first, before, skip)?;
    }
    let found = found.ok_or_else(|| Error::AddressesExhausted {
        network: network.name.clone(),
        subnet: pool.range.unwrap_or(pool.subnet),
        family: if ipv4 { "IPv4" } else { "IPv6" },
    })?;
    let next = if found == last { first } else { address(found, number(found) + 1) };
    store::set_cursor(connection, &network.id, next)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use hull_db::{Database, Sync};
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Driver, Endpoint, Mac};

    fn taken(text: &str) -> Taken {
        Taken { subnet: text.parse().unwrap(), by: text.to_owned() }
    }

    #[test]
    fn pools_of_the_settings() {
        let pools = [parse_pool("base=10.9.0.0/16,size=24").unwrap()];
        assert_eq!(first_free(&pools, &[]).unwrap().to_string(), "10.9.0.0/24");
        assert_eq!(first_free(&pools, &[taken("10.9.0.0/24")]).unwrap().to_string(), "10.9.1.0/24");
        assert!(first_free(&pools, &[taken("10.0.0.0/8")]).is_err());
        for wrong in ["10.9.0.0/16", "base=10.9.0.0/16", "base=10.9.0.0/16,size=8", "base=x,size=24", "size=24"] {
            assert!(parse_pool(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn default_subnets_avoid_what_is_there() {
        let first = |taken: &[Taken]| default_ipv4(taken).unwrap().to_string();
        assert_eq!(first(&[]), "172.17.0.0/20");
        assert_eq!(first(&[taken("172.17.0.0/16")]), "172.18.0.0/20");
        assert_eq!(first(&[taken("172.17.3.0/24")]), "172.17.16.0/20");
        assert_eq!(first(&[taken("172.16.0.0/12")]), "192.168.0.0/20");
        assert_eq!(first(&[taken("172.16.0.0/12"), taken("192.168.1.0/24")]), "192.168.16.0/20");
        let all = [taken("172.16.0.0/12"), taken("192.168.0.0/16"), taken("10.0.0.0/8")];
        assert!(matches!(default_ipv4(&all), Err(Error::PoolsExhausted)));
    }

    #[test]
    fn there_are_hundreds_of_default_subnets() {
        let mut all: Vec<Taken> = Vec::new();
        for _ in 0..500 {
            let subnet = default_ipv4(&all).unwrap();
            assert!(check_free(subnet, &all).is_ok());
            all.push(Taken { subnet, by: String::new() });
        }
    }

    fn pool(subnet: &str, range: Option<&str>) -> Pool {
        let range = range.map(|range| range.parse().unwrap());
        let pool =
            Pool { subnet: subnet.parse().unwrap(), range, gateway: None, auxiliary: BTreeMap::new(), chosen: true };
        complete(pool, true).unwrap()
    }

    #[test]
    fn pools_are_checked_and_get_a_gateway() {
        assert_eq!(pool("10.0.0.0/24", None).gateway, Some("10.0.0.1".parse().unwrap()));
        assert_eq!(pool("10.0.0.0/24", Some("10.0.0.128/25")).gateway, Some("10.0.0.129".parse().unwrap()));
        assert_eq!(pool("fd00:5::/64", None).gateway, Some("fd00:5::1".parse().unwrap()));
        let base = pool("10.0.0.0/24", None);
        for (gateway, range) in
            [("10.0.1.1", None), ("10.0.0.0", None), ("10.0.0.255", None), ("10.0.0.1", Some("10.0.1.0/25"))]
        {
            let wrong = Pool {
                gateway: Some(gateway.parse().unwrap()),
                range: range.map(|range: &str| range.parse().unwrap()),
                ..base.clone()
            };
            assert!(complete(wrong, true).is_err(), "{gateway} {range:?}");
        }
    }

    fn network(pool: Pool) -> Network {
        Network {
            id: "a".repeat(64),
            name: "n".to_owned(),
            created: 0,
            driver: Driver::Bridge,
            pools: vec![pool],
            internal: false,
            attachable: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            ipv4: true,
            ipv6: false,
            device: String::new(),
        }
    }

    fn endpoint(network: &Network, number: usize, address: IpAddr) -> Endpoint {
        Endpoint {
            id: 0,
            container: format!("c{number}"),
            network: network.id.clone(),
            link: format!("hv{number}"),
            bridge: 0,
            container_name: format!("name{number}"),
            network_name: network.name.clone(),
            interface: "eth0".to_owned(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            addresses: vec![(address, 24)],
            gateways: Vec::new(),
            aliases: Vec::new(),
            priority: 0,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Whatever comes and goes: no address twice, none that is reserved, none outside, and none left over when they
        /// are said to be exhausted.
        #[test]
        fn addresses_are_unique_inside_and_used_up(
            prefix in 26_u8..=31,
            range in proptest::option::of(28_u8..=30),
            steps in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..90),
        ) {
            let root = tempfile::tempdir().unwrap();
            let database = Database::new(root.path());
            let range = range.map(|range| format!("10.0.0.16/{range}")).filter(|_| prefix < 28);
            let network = network(pool(&format!("10.0.0.0/{prefix}"), range.as_deref()));
            let pool = network.pools[0].clone();
            database.write(Sync::Normal, |connection| store::insert_network(connection, &network)).unwrap();
            let mut held: Vec<(i64, IpAddr)> = Vec::new();
            let result: Result<(), Error> = database.write(Sync::Normal, |connection| {
                for (number, (take, which)) in steps.iter().enumerate() {
                    if *take || held.is_empty() {
                        match allocate(connection, &network, &pool) {
                            Ok(address) => {
                                let mut one = endpoint(&network, number, address);
                                store::insert_endpoint(connection, &mut one)?;
                                held.push((one.id, address));
                            }
                            Err(Error::AddressesExhausted { .. }) => {
                                let whole = pool.range.unwrap_or(pool.subnet);
                                let (first, last) = pool.subnet.usable();
                                let low = self::number(whole.address()).max(self::number(first));
                                let high = self::number(whole.last()).min(self::number(last));
                                let gateway = self::number(pool.gateway.unwrap());
                                let reserved = u128::from((low..=high).contains(&gateway));
                                assert_eq!(held.len() as u128, high - low + 1 - reserved);
                            }
                            Err(error) => return Err(error),
                        }
                    } else {
                        let (id, _) = held.swap_remove(which.index(held.len()));
                        store::delete_endpoint(connection, id)?;
                    }
                }
                Ok(())
            });
            result.unwrap();
            let distinct: BTreeSet<IpAddr> = held.iter().map(|(_, address)| *address).collect();
            prop_assert_eq!(distinct.len(), held.len());
            for address in distinct {
                prop_assert!(pool.subnet.contains(address) && Some(address) != pool.gateway);
                prop_assert!(pool.range.is_none_or(|range| range.contains(address)));
            }
        }
    }

    #[test]
    fn an_address_that_was_given_back_is_not_given_at_once() {
        let root = tempfile::tempdir().unwrap();
        let database = Database::new(root.path());
        let network = network(pool("10.0.0.0/24", None));
        let given: Result<(IpAddr, IpAddr), Error> = database.write(Sync::Normal, |connection| {
            store::insert_network(connection, &network)?;
            let first = allocate(connection, &network, &network.pools[0])?;
            Ok((first, allocate(connection, &network, &network.pools[0])?))
        });
        assert_eq!(given.unwrap(), ("10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap()));
    }
}
