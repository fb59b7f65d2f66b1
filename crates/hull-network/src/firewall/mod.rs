//! The table `inet hull` in the kernel: made, added to, looked after.
//!
//! Each change is one transaction. Whether the table is whole is known cheaply from the firewall's generation: while it is
//! the one that was noted after the last look (`STATE/networks/generation`), nobody has changed anything. Otherwise the
//! rules are read and compared, and the table is made anew from the records where they differ.

pub(crate) mod foreign;
mod layout;

use std::collections::BTreeMap;
use std::path::Path;

use hull_netlink::nft::{Batch, Element, Family, Place, Socket};
use rustix::io::Errno;

pub(crate) use layout::{PREFIX, TABLE, UPLINKS, bridge_name, has_ranges, part, ports};

use crate::Error;
use crate::record::{Network, Published};

/// What the table is made of, from the records.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Bridge networks, each with the number of its bridges.
    pub(crate) networks: Vec<(Network, u32)>,
    /// Published ports, each with its network's ID.
    pub(crate) ports: Vec<(String, Published)>,
    /// Devices of which forwarding was switched on for containers, by version of IP.
    pub(crate) uplinks: [Vec<String>; 2],
}

impl Contents {
    fn elements(&self) -> Result<Vec<(&'static str, Element)>, Error> {
        let mut elements = Vec::new();
        for (network, bridges) in &self.networks {
            elements.extend(part(network, *bridges)?.elements);
        }
        // One who was killed may still be down with a port that another has by now: the later one has it.
        let mut open: BTreeMap<(&'static str, Vec<u8>), Element> = BTreeMap::new();
        for some in self.ports.chunk_by(|a, b| a.0 == b.0) {
            let Some((network, _)) = self.networks.iter().find(|(network, _)| network.id == some[0].0) else {
                continue;
            };
            let published: Vec<Published> = some.iter().map(|(_, published)| *published).collect();
            for (set, element) in ports(network, &published)? {
                open.insert((set, element.key().to_vec()), element);
            }
        }
        elements.extend(open.into_iter().map(|((set, _), element)| (set, element)));
        for (set, names) in UPLINKS.into_iter().zip(&self.uplinks) {
            elements.extend(names.iter().map(|name| (set, Element::interface(name))));
        }
        Ok(elements)
    }

    fn rules(&self) -> Result<Vec<layout::Rule>, Error> {
        let mut rules = layout::rules();
        for (network, bridges) in &self.networks {
            rules.extend(part(network, *bridges)?.rules);
        }
        Ok(rules)
    }
}

fn add_elements(batch: &mut Batch, elements: &[(&'static str, Element)]) {
    let mut by_set: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
    for (set, element) in elements {
        by_set.entry(set).or_default().push(element.clone());
    }
    for (set, elements) in by_set {
        batch.add_elements(set, &elements);
    }
}

fn add_rules(batch: &mut Batch, rules: &[layout::Rule]) {
    for (chain, comment, expressions) in rules {
        batch.add_rule(chain, Place::Last, comment, expressions);
    }
}

/// Makes the whole table anew, in one transaction; what is in the user's chain stays.
pub(crate) fn rebuild(socket: &mut Socket, contents: &Contents) -> Result<(), Error> {
    let make = |anew: bool| -> Result<Batch, Error> {
        let mut batch = Batch::new(Family::Inet, TABLE);
        batch.add_table();
        if anew {
            batch.delete_table();
            batch.add_table();
        }
        for set in layout::sets() {
            batch.add_set(&set);
        }
        let mut chains: Vec<String> = Vec::new();
        for (name, base) in layout::chains() {
            batch.add_chain(name, base);
            if name != layout::USER {
                chains.push(name.to_owned());
            }
        }
        for (network, bridges) in &contents.networks {
            for chain in part(network, *bridges)?.chains {
                batch.add_chain(&chain, None);
                chains.push(chain);
            }
        }
        if !anew {
            for chain in &chains {
                batch.flush_chain(chain);
            }
            for set in layout::sets() {
                batch.flush_set(set.name);
            }
        }
        add_elements(&mut batch, &contents.elements()?);
        add_rules(&mut batch, &contents.rules()?);
        Ok(batch)
    };
    match socket.commit(make(false)?) {
        Ok(()) => Ok(()),
        // Chains or sets that are not as here: of another version, or changed by somebody.
        Err(hull_netlink::Error::Refused {
            errno: Errno::EXIST | Errno::INVAL | Errno::OPNOTSUPP | Errno::BUSY,
            ..
        }) => Ok(socket.commit(make(true)?)?),
        Err(error) => Err(error.into()),
    }
}

/// Whether all rules are there, and with `all` the elements too.
pub(crate) fn is_whole(socket: &mut Socket, contents: &Contents, all: bool) -> Result<bool, Error> {
    if !socket.has_table(Family::Inet, TABLE)? {
        return Ok(false);
    }
    let found = match socket.rules(Family::Inet, TABLE, None) {
        Ok(found) => found,
        Err(hull_netlink::Error::Refused { errno: Errno::NOENT, .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut there: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for rule in found {
        there.entry(rule.chain).or_default().push(rule.comment);
    }
    let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (chain, comment, _) in contents.rules()? {
        wanted.entry(chain).or_default().push(comment.to_owned());
    }
    if wanted.iter().any(|(chain, rules)| there.get(chain) != Some(rules)) {
        return Ok(false);
    }
    let chains = socket.chains()?;
    let ours: Vec<_> = chains.iter().filter(|one| one.family == Family::Inet && one.table == TABLE).collect();
    for (name, base) in layout::chains() {
        if !ours.iter().any(|one| one.name == name && one.base == base) {
            return Ok(false);
        }
    }
    if !all {
        return Ok(true);
    }
    let mut wanted: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
    for (set, element) in contents.elements()? {
        wanted.entry(set).or_default().push(element);
    }
    for set in layout::sets() {
        let there = match socket.elements(Family::Inet, TABLE, set.name) {
            Ok(there) => there,
            Err(hull_netlink::Error::Refused { errno: Errno::NOENT, .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let wanted = wanted.remove(set.name).unwrap_or_default();
        // Sorted by key: a port's conflict shows as another value.
        let sorted = |mut list: Vec<Element>| {
            list.sort_by(|a, b| a.key().cmp(b.key()));
            list
        };
        let (there, wanted) = (sorted(there), sorted(wanted));
        if there.len() != wanted.len() || !there.iter().zip(&wanted).all(|(a, b)| a.same(b)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Adds a network to a table that is whole.
pub(crate) fn add_network(socket: &mut Socket, network: &Network, bridges: u32) -> Result<(), Error> {
    let part = part(network, bridges)?;
    let mut batch = Batch::new(Family::Inet, TABLE);
    for chain in &part.chains {
        batch.add_chain(chain, None);
        batch.flush_chain(chain);
    }
    add_rules(&mut batch, &part.rules);
    add_elements(&mut batch, &part.elements);
    Ok(socket.commit(batch)?)
}

/// Takes a network out of the table; what is not there is no error.
pub(crate) fn remove_network(socket: &mut Socket, network: &Network, bridges: u32) -> Result<(), Error> {
    let part = part(network, bridges)?;
    let mut batch = Batch::new(Family::Inet, TABLE);
    for (set, element) in &part.elements {
        batch.delete_elements(set, std::slice::from_ref(element));
    }
    for chain in &part.chains {
        batch.flush_chain(chain);
        batch.delete_chain(chain);
    }
    Ok(socket.commit(batch)?)
}

/// Takes the table away, of which nothing is used any more; but not what the user has written into it.
pub(crate) fn remove_table(socket: &mut Socket) -> Result<(), Error> {
    match socket.rules(Family::Inet, TABLE, Some(layout::USER)) {
        Ok(rules) if rules.is_empty() => {}
        Ok(_) => return Ok(()),
        Err(hull_netlink::Error::Refused { errno: Errno::NOENT, .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let mut batch = Batch::new(Family::Inet, TABLE);
    batch.delete_table();
    match socket.commit(batch) {
        Err(hull_netlink::Error::Refused { errno: Errno::NOENT, .. }) => Ok(()),
        other => Ok(other?),
    }
}

/// Opens published ports, and closes them.
pub(crate) fn change_ports(
    socket: &mut Socket,
    add: &[(&'static str, Element)],
    remove: &[(&'static str, Element)],
) -> Result<(), Error> {
    let mut batch = Batch::new(Family::Inet, TABLE);
    let mut by_set: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
    for (set, element) in remove {
        by_set.entry(set).or_default().push(element.clone());
    }
    for (set, elements) in by_set {
        batch.delete_elements(set, &elements);
    }
    add_elements(&mut batch, add);
    Ok(socket.commit(batch)?)
}

/// The firewall's generation that was noted last.
pub(crate) fn noted(state: &Path) -> Option<u32> {
    std::fs::read_to_string(state.join("generation")).ok()?.trim().parse().ok()
}

/// Notes a generation at which the table was whole. Written in place, for the file is of no use after a boot; a number
/// that is read while it is written is at worst not the one that counts, and somebody looks again.
pub(crate) fn note(state: &Path, generation: u32) -> Result<(), Error> {
    use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
    let path = state.join("generation");
    let file = std::fs::File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let written = file.and_then(|file| file.write_all_at(format!("{generation:010}").as_bytes(), 0));
    written.map_err(Error::io("write", &path))
}
