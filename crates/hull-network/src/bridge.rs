//! Bringing a network's devices and its part of the firewall up, and taking them away.
//!
//! The usual case, that everything is there, costs one question for the bridge and one for the firewall's generation.
//! Everything else happens under the lock `STATE/networks/lock`, by whoever comes first.

use std::collections::BTreeSet;
use std::path::Path;

use hull_db::Database;
use hull_fs::lock::Lock;
use hull_netlink::{Address, Bridge, Link, nft};
use rustix::io::Errno;

use crate::firewall::{self, Contents, bridge_name, foreign};
use crate::hairpin::lead_back;
use crate::host::{self, Host};
use crate::options::{GatewayMode, Options};
use crate::record::{Driver, Network};
use crate::{Error, store};

/// How often the firewall is looked at while others change it.
const ATTEMPTS: usize = 8;

/// The device that the kernel is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) index: u32,
    pub(crate) mtu: u32,
}

/// What marks a bridge as a network's.
fn alias(network: &Network) -> String {
    format!("{}{}", host::ALIAS, network.id)
}

fn lock(state: &Path) -> Result<Lock, Error> {
    std::fs::create_dir_all(state).map_err(Error::io("create directory", state))?;
    Ok(Lock::exclusive(&state.join("lock"))?)
}

/// The records that the firewall's table is made of.
pub(crate) fn contents(db: &Database, state: &Path) -> Result<Contents, Error> {
    let mut uplinks = read_uplinks(state);
    if host::switch("ipv4/ip_forward") == "1" {
        // Somebody wants the machine to be a router after all.
        uplinks[0].clear();
    }
    db.read(|connection| {
        let mut networks = Vec::new();
        for network in store::networks(connection)? {
            if network.driver == Driver::Bridge && !network.device.is_empty() {
                let bridges = store::last_bridge(connection, &network.id)? + 1;
                networks.push((network, bridges));
            }
        }
        Ok::<_, Error>(Contents { networks, ports: store::ports(connection)?, uplinks })
    })
}

/// Devices of which forwarding was switched on: `4 NAME` and `6 NAME` lines.
fn read_uplinks(state: &Path) -> [Vec<String>; 2] {
    let text = std::fs::read_to_string(state.join("forwarding")).unwrap_or_default();
    let of = |family: &str| text.lines().filter_map(|line| line.strip_prefix(family)).map(str::to_owned).collect();
    [of("4 "), of("6 ")]
}

fn write_uplinks(state: &Path, uplinks: &[Vec<String>; 2]) -> Result<(), Error> {
    let lines = uplinks
        .iter()
        .zip(["4", "6"])
        .flat_map(|(names, family)| names.iter().map(move |name| format!("{family} {name}\n")));
    let text: String = lines.collect();
    Ok(hull_fs::atomic::write_path(&state.join("forwarding"), text.as_bytes(), 0o600)?)
}

fn is_ready(network: &Network, link: &Link) -> Result<bool, Error> {
    if link.kind != "bridge" || link.alias != alias(network) {
        return Err(Error::ForeignDevice { name: link.name.clone(), network: network.name.clone() });
    }
    Ok(link.is_up())
}

/// Makes sure that the network's bridge of this number and the firewall are in place. Lines for the user go to `said`.
pub(crate) fn ensure(
    host: &mut Host,
    db: &Database,
    state: &Path,
    network: &Network,
    number: u32,
    said: &mut Vec<String>,
) -> Result<Ready, Error> {
    let name = bridge_name(&network.device, number);
    let generation = host.firewall()?.generation()?;
    // One that seems to be somebody else's may be being made: who has the lock knows.
    if firewall::noted(state) == Some(generation)
        && let Some(link) = host.link(&name)?
        && matches!(is_ready(network, &link), Ok(true))
    {
        return Ok(Ready { index: link.index, mtu: link.mtu });
    }
    let _lock = lock(state)?;
    let mut fresh = false;
    for number in [0, number] {
        let name = bridge_name(&network.device, number);
        let there = match host.link(&name)? {
            Some(link) => is_ready(network, &link)?,
            None => false,
        };
        if !there {
            make(host, state, network, number)?;
            fresh = true;
        }
    }
    mend_firewall(host, db, state, fresh.then_some(network), false, said)?;
    let link = host.link(&name)?.ok_or_else(|| Error::Netlink(hull_netlink::Error::NoLink(name)))?;
    Ok(Ready { index: link.index, mtu: link.mtu })
}

/// What other programs' chains are to let through: bridges that are there.
fn served(host: &mut Host, contents: &Contents) -> Result<Vec<String>, Error> {
    let mut devices = Vec::new();
    for (network, _) in &contents.networks {
        if host.link(&network.device)?.is_some() {
            devices.push(network.device.as_str());
        }
    }
    Ok(foreign::names(devices.into_iter()))
}

/// Makes the table whole if it is not; with `all` elements are compared too. Under the lock.
fn mend_firewall(
    host: &mut Host,
    db: &Database,
    state: &Path,
    fresh: Option<&Network>,
    all: bool,
    said: &mut Vec<String>,
) -> Result<bool, Error> {
    let contents = contents(db, state)?;
    let names = served(host, &contents)?;
    if fresh.is_none() && names.is_empty() {
        // No bridge is here: nothing needs rules, and who removed the last one may just have taken the table away.
        return Ok(false);
    }
    // Somebody has made the machine a router: nothing that it forwards is refused any more.
    let routes = contents.uplinks[0].is_empty() && !read_uplinks(state)[0].is_empty();
    let all = all || fresh.is_some() || routes;
    let mut mended = false;
    // What was noted must have been seen: the generation is that of before the look, and whoever changes something looks
    // again.
    for _ in 0..ATTEMPTS {
        let socket = host.firewall()?;
        let generation = socket.generation()?;
        if !all && !mended && firewall::noted(state) == Some(generation) {
            return Ok(false);
        }
        if !firewall::is_whole(socket, &contents, all)? {
            if mended || !add_only(socket, &contents, fresh)? {
                firewall::rebuild(socket, &contents)?;
            }
            mended = true;
            continue;
        }
        let lines = foreign::serve(socket, &names)?;
        let news: Vec<String> = lines.into_iter().filter(|line| !said.contains(line)).collect();
        if news.is_empty() {
            firewall::note(state, generation)?;
            return Ok(mended);
        }
        said.extend(news);
    }
    // Somebody else changes the firewall all the time; the next one looks again.
    Ok(mended)
}

/// Adds a new network to a table that is otherwise whole; whether it was.
fn add_only(socket: &mut nft::Socket, contents: &Contents, fresh: Option<&Network>) -> Result<bool, Error> {
    let Some(network) = fresh else { return Ok(false) };
    let others = Contents {
        networks: contents.networks.iter().filter(|(other, _)| other.id != network.id).cloned().collect(),
        ports: Vec::new(),
        uplinks: contents.uplinks.clone(),
    };
    if !firewall::is_whole(socket, &others, false)? {
        return Ok(false);
    }
    let bridges = contents.networks.iter().find(|(one, _)| one.id == network.id).map_or(1, |one| one.1);
    Ok(firewall::add_network(socket, network, bridges).is_ok())
}

/// Looks at everything and mends it: bridges of all networks in use, the firewall with all its elements.
pub(crate) fn mend(host: &mut Host, db: &Database, state: &Path, said: &mut Vec<String>) -> Result<bool, Error> {
    let _lock = lock(state)?;
    let mended = mend_firewall(host, db, state, None, true, said)?;
    lead_back(host, db).map(|()| mended)
}

/// [`mend`] if anybody has changed the firewall since it was last seen whole.
pub(crate) fn mend_if_changed(
    host: &mut Host,
    db: &Database,
    state: &Path,
    said: &mut Vec<String>,
) -> Result<bool, Error> {
    if firewall::noted(state) == Some(host.firewall()?.generation()?) {
        return Ok(false);
    }
    let _lock = lock(state)?;
    if firewall::noted(state) == Some(host.firewall()?.generation()?) {
        return Ok(false);
    }
    let mended = mend_firewall(host, db, state, None, true, said)?;
    // Whoever changes a firewall may have let bridged packets through it.
    lead_back(host, db).map(|()| mended)
}

/// After a change of our own: the generation is noted if nobody else changed anything meanwhile.
pub(crate) fn note_own_change(host: &mut Host, state: &Path, before: u32) -> Result<(), Error> {
    let after = host.firewall()?.generation()?;
    if after == before.wrapping_add(1) && firewall::noted(state) == Some(before) {
        firewall::note(state, after)?;
    }
    Ok(())
}

fn bridge_address(network: &Network, number: u32) -> [u8; 6] {
    let digits = network.id.as_bytes();
    let mut address = [0x02, 0x42, 0, 0, 0, u8::try_from(number & 0xff).unwrap_or(0)];
    for (index, byte) in address[2..5].iter_mut().enumerate() {
        let text = digits.get(index * 2..index * 2 + 2).and_then(|pair| std::str::from_utf8(pair).ok());
        *byte = text.and_then(|text| u8::from_str_radix(text, 16).ok()).unwrap_or(0);
    }
    address
}

/// Makes one bridge, with its addresses and switches. Under the lock.
fn make(host: &mut Host, state: &Path, network: &Network, number: u32) -> Result<(), Error> {
    let options = network.settings()?;
    let name = bridge_name(&network.device, number);
    if host.link(&name)?.is_some() {
        // Ours, but down: made by somebody who was killed, or taken down by the user.
        host.remove_link(&name)?;
    }
    let mtu = match options.mtu.or_else(|| hull_config::text("mtu")?.parse().ok()) {
        Some(mtu) => mtu,
        None => host.uplinks()?.first().map_or(0, |(_, link)| link.mtu),
    };
    let alias = alias(network);
    let bridge =
        Bridge { name: &name, address: bridge_address(network, number), mtu, alias: &alias, no_link_local: true };
    host.route()?.create_bridge(&bridge)?;
    let made = dress(host, state, network, &options, number);
    if made.is_err() {
        // Half of a bridge is worse than none; the first error tells why.
        let _ = host.remove_link(&name);
    }
    made
}

fn dress(host: &mut Host, state: &Path, network: &Network, options: &Options, number: u32) -> Result<(), Error> {
    let name = bridge_name(&network.device, number);
    let link = host.link(&name)?.ok_or_else(|| hull_netlink::Error::NoLink(name.clone()))?;
    let with_ipv6 = network.pool(false).is_some();
    if !with_ipv6 || number > 0 {
        host::set_switch(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
    } else {
        host::set_switch(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
        host::set_switch(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    }
    if number > 0 {
        return join(host, network, number, link.index);
    }
    if with_ipv6 {
        let address = host::link_local(bridge_address(network, number));
        host.route()?.add_address(link.index, &Address::global(address, 64))?;
    }
    for pool in &network.pools {
        let ipv4 = pool.subnet.is_ipv4();
        let wanted = options.gateway(ipv4) != GatewayMode::Isolated && !(ipv4 && options.inhibit_ipv4);
        if let Some(gateway) = pool.gateway.filter(|_| wanted) {
            let address = Address::global(gateway, pool.subnet.prefix());
            match host.route()?.add_address(link.index, &address) {
                Err(hull_netlink::Error::Refused { errno: Errno::EXIST, .. }) => {}
                other => other?,
            }
        }
    }
    if network.internal {
        return Ok(());
    }
    if options.gateway_ipv4 != GatewayMode::Routed && network.pool(true).is_some() {
        // The machine's connections to ports at 127.0.0.1 leave by the bridge; the firewall refuses the way back in.
        host::set_switch(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
    }
    let before = read_uplinks(state);
    let after = host::forward(host, &name, with_ipv6, &before)?;
    if after != before {
        write_uplinks(state, &after)?;
    }
    Ok(())
}

/// Connects a further bridge with the first one.
fn join(host: &mut Host, network: &Network, number: u32, index: u32) -> Result<(), Error> {
    let first = host.link(&network.device)?.ok_or_else(|| hull_netlink::Error::NoLink(network.device.clone()))?;
    let ends = ["a", "b"].map(|end| format!("hj{}{number}{end}", &network.id[..8]));
    host.remove_link(&ends[0])?;
    host.route()?.create_veth(&ends[0], &ends[1])?;
    for (end, master) in ends.iter().zip([first.index, index]) {
        let link = host.link(end)?.ok_or_else(|| hull_netlink::Error::NoLink(end.clone()))?;
        let change = hull_netlink::Change {
            up: Some(true),
            master: Some(master),
            mtu: Some(first.mtu),
            no_link_local: true,
            ..hull_netlink::Change::default()
        };
        host.route()?.change(link.index, change).map_err(|error| {
            let error = Error::from(error);
            if error.is(Errno::XFULL) {
                return Error::BridgeFull { bridge: network.device.clone(), network: network.name.clone() };
            }
            error
        })?;
    }
    Ok(())
}

/// Takes a network's devices and its part of the firewall away. `others` are the networks that stay.
pub(crate) fn take_away(
    host: &mut Host,
    db: &Database,
    state: &Path,
    network: &Network,
    bridges: u32,
    said: &mut Vec<String>,
) -> Result<(), Error> {
    let _lock = lock(state)?;
    let mut errors = Vec::new();
    if network.driver == Driver::Bridge {
        for number in (0..bridges.max(1)).rev() {
            let name = bridge_name(&network.device, number);
            let removed = host.link(&name).and_then(|found| match found {
                // Somebody else's of the same name stays.
                Some(link) if link.alias == alias(network) => host.remove_link(&name),
                _ => Ok(()),
            });
            errors.extend(removed.err());
            if number > 0 {
                errors.extend(host.remove_link(&format!("hj{}{number}a", &network.id[..8])).err());
            }
        }
        errors.extend(take_from_firewall(host, db, state, network, bridges, said).err());
    } else if let Some(parent) = made_parent(network) {
        let others: BTreeSet<String> = db.read(store::networks)?.into_iter().map(|other| other.device).collect();
        if !others.contains(&parent) {
            errors.extend(host.remove_link(&parent).err());
        }
    }
    Error::collect(errors)
}

/// The parent of a macvlan or ipvlan network if Hull made it.
fn made_parent(network: &Network) -> Option<String> {
    network.options.get(crate::stacked::MADE).map(|_| network.device.clone())
}

fn take_from_firewall(
    host: &mut Host,
    db: &Database,
    state: &Path,
    network: &Network,
    bridges: u32,
    said: &mut Vec<String>,
) -> Result<(), Error> {
    let socket = host.firewall()?;
    let before = socket.generation()?;
    let contents = contents(db, state)?;
    match firewall::remove_network(socket, network, bridges) {
        Ok(()) => {}
        // The table, or a part of it, was not there.
        Err(error) if error.is(Errno::NOENT) => {
            if !contents.networks.is_empty() {
                firewall::rebuild(socket, &contents)?;
            }
        }
        Err(error) => return Err(error),
    }
    let names = served(host, &contents)?;
    let is_last = host.bridges()?.is_empty();
    let socket = host.firewall()?;
    let other_names = foreign::serve(socket, &names)?;
    let unchanged = other_names.is_empty();
    said.extend(other_names);
    if is_last {
        return firewall::remove_table(socket);
    }
    let after = socket.generation()?;
    if unchanged && after == before.wrapping_add(1) && firewall::noted(state) == Some(before) {
        firewall::note(state, after)?;
    }
    Ok(())
}
