//! What a container's port of a bridge must have that others need not.
//!
//! A connection to one's own published port at an address of the machine goes out by a port of the bridge and comes back by
//! the same. Where bridged packets go through the firewall (`br_netfilter`) the bridge itself sends them back, which it does
//! only by ports that are told to (hairpin). Without, they are routed, and no port need be told anything.

use hull_db::Database;
use hull_netlink::BridgePort;
use rustix::io::Errno;

use crate::host::{self, Host};
use crate::record::{Driver, Endpoint, Network};
use crate::{Error, store};

/// Tells a container's port what it must know; nothing, mostly.
pub(crate) fn set_up_port(
    host: &mut Host,
    network: &Network,
    endpoint: &Endpoint,
    published: bool,
) -> Result<(), Error> {
    let options = network.settings()?;
    let isolated = !options.inter_container && !network.internal;
    let hairpin = published && host::bridged_packets_are_filtered();
    if isolated || hairpin {
        host.route()?.change_bridge_port(&endpoint.link, BridgePort { hairpin, isolated })?;
    }
    Ok(())
}

/// Endpoints whose containers no longer reach their own published ports at the machine's addresses: bridged packets have come
/// to be filtered (`br_netfilter`) since these were attached.
pub(crate) fn stranded(host: &mut Host, db: &Database) -> Result<Vec<(Network, Endpoint)>, Error> {
    if !host::bridged_packets_are_filtered() {
        return Ok(Vec::new());
    }
    let (networks, endpoints, ports) = db.read(|connection| {
        Ok::<_, Error>((store::networks(connection)?, store::endpoints(connection)?, store::all_ports(connection)?))
    })?;
    let links = host.route()?.links()?;
    let has_not = |endpoint: &Endpoint| links.iter().any(|link| link.name == endpoint.link && !link.hairpin);
    let list =
        endpoints.into_iter().filter(|one| ports.get(&one.id).is_some_and(|list| !list.is_empty()) && has_not(one));
    let with_network = |endpoint: Endpoint| {
        let network = networks.iter().find(|network| network.id == endpoint.network)?;
        (network.driver == Driver::Bridge).then(|| (network.clone(), endpoint))
    };
    Ok(list.filter_map(with_network).collect())
}

/// Makes good what [`stranded`] finds.
pub(crate) fn lead_back(host: &mut Host, db: &Database) -> Result<(), Error> {
    for (network, endpoint) in stranded(host, db)? {
        match set_up_port(host, &network, &endpoint, true) {
            // It has ended meanwhile.
            Err(error) if error.is(Errno::NODEV) => {}
            result => result?,
        }
    }
    Ok(())
}
