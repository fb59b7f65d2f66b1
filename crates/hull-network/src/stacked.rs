//! Networks on top of a device of the machine: macvlan and ipvlan.
//!
//! The parent is a device that is there, a VLAN of one (`eth0.50`), which is made, or one that is made because none was
//! named: containers then see each other and nothing else.

use hull_netlink::{Change, Link, Stacked};
use rustix::io::Errno;

use crate::Error;
use crate::host::Host;
use crate::record::{Driver, Endpoint, Network};
use std::os::fd::BorrowedFd;

/// Parents that are made: one of nothing, and an 802.1Q network of a device.
pub(crate) const PAIR: &str = "pair";
pub(crate) const VLAN: &str = "vlan";
/// In a network's options: its parent was made by Hull and goes with the last network on it. The value says what it is.
pub(crate) const MADE: &str = "hull.parent_made";

/// The parent device, made if it is to be made.
pub(crate) fn ensure_parent(host: &mut Host, network: &Network) -> Result<Link, Error> {
    let name = &network.device;
    if let Some(link) = host.link(name)? {
        if !link.is_up() {
            host.route()?.set_up(link.index)?;
        }
        return Ok(link);
    }
    if network.options.get(MADE).is_some_and(|made| made == PAIR) {
        // A pair whose other end stays unused: the kernel's dummy device is not everywhere.
        host.route()?.create_veth(name, &format!("hn{}", &network.id[..11]))?;
        if let Some(other) = host.link(&format!("hn{}", &network.id[..11]))? {
            host.route()?.change(other.index, Change { up: Some(true), no_link_local: true, ..Change::default() })?;
        }
    } else if let Some((lower, id)) =
        name.rsplit_once('.').and_then(|(lower, id)| Some((lower, id.parse::<u16>().ok()?)))
    {
        let missing = || Error::invalid(format!("option parent={name}"), format!("there is no device {lower}"));
        let lower = host.link(lower)?.ok_or_else(missing)?;
        if !(1..=4094).contains(&id) {
            return Err(Error::invalid(format!("option parent={name}"), "VLANs are 1 to 4094"));
        }
        host.route()?.create_stacked(name, lower.index, Stacked::Vlan(id), 0, None)?;
    } else {
        return Err(Error::invalid(format!("option parent={name}"), "there is no such device"));
    }
    let link = host.link(name)?.ok_or_else(|| hull_netlink::Error::NoLink(name.clone()))?;
    host.route()?.change(link.index, Change { up: Some(true), no_link_local: true, ..Change::default() })?;
    Ok(link)
}

/// Makes a container's device.
pub(crate) fn attach(
    host: &mut Host,
    network: &Network,
    endpoint: &Endpoint,
    namespace: BorrowedFd<'_>,
) -> Result<(), Error> {
    let options = network.settings()?;
    let parent = ensure_parent(host, network)?;
    let kind = match network.driver {
        Driver::Ipvlan => Stacked::Ipvlan(options.ipvlan),
        _ => Stacked::Macvlan(options.macvlan, endpoint.mac.0),
    };
    let made = host.route()?.create_stacked(
        &endpoint.interface,
        parent.index,
        kind,
        options.mtu.unwrap_or(0),
        Some(namespace),
    );
    match made {
        Err(hull_netlink::Error::Refused { errno: Errno::OPNOTSUPP, .. }) => {
            let driver = network.driver.as_str();
            Err(Error::Unsupported(format!("network {}: this kernel has no {driver} devices", network.name)))
        }
        Err(hull_netlink::Error::Refused { errno: Errno::BUSY | Errno::INVAL, .. }) => {
            Err(Error::Unsupported(format!(
                "network {}: device {} is in use in another way, such as by a bridge, or by a network of the other kind",
                network.name, network.device
            )))
        }
        other => Ok(other?),
    }
}
