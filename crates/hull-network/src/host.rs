//! The machine's side: sockets to the kernel, switches in `/proc/sys/net`, the way to the outside.
//!
//! Everything acts on the network namespace that the calling thread is in.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use hull_netlink::nft;
use hull_netlink::{Link, Route, Socket};
use rustix::io::Errno;

use crate::Error;
use crate::pool::Taken;
use crate::subnet::Subnet;

/// `RTN_UNICAST`.
const UNICAST: u8 = 1;
/// `RT_TABLE_MAIN`.
const MAIN: u32 = 254;

/// How the texts begin that mark bridges as Hull's.
pub(crate) const ALIAS: &str = "hull network ";

/// A firewall socket of this thread, kept for its next use: where something was removed, closing the socket waits for the
/// kernel to be done with it, some 10 ms.
struct Kept {
    process: rustix::process::Pid,
    namespace: (u64, u64),
    socket: Option<nft::Socket>,
}

impl Kept {
    fn is_ours(&self) -> bool {
        self.process == rustix::process::getpid()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // A monitor closes what it inherited by number: in it this number may be another file's by now.
        if !self.is_ours() {
            std::mem::forget(self.socket.take());
        }
    }
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

/// The network namespace that the calling thread is in.
fn namespace() -> Option<(u64, u64)> {
    let found = rustix::fs::stat("/proc/thread-self/ns/net").ok()?;
    Some((found.st_dev, found.st_ino))
}

impl Drop for Host {
    fn drop(&mut self) {
        if let (Some(mut socket), Some(namespace)) = (self.firewall.take(), self.namespace) {
            // There may be hundreds of threads.
            socket.rest();
            let kept = Kept { process: rustix::process::getpid(), namespace, socket: Some(socket) };
            // A thread that ends keeps nothing.
            let _ = KEPT.try_with(|slot| slot.replace(Some(kept)));
        }
    }
}

/// Sockets to the kernel, each opened at its first use.
#[derive(Debug, Default)]
pub(crate) struct Host {
    route: Option<Socket>,
    firewall: Option<nft::Socket>,
    /// The one that the firewall's socket acts on.
    namespace: Option<(u64, u64)>,
}

impl Host {
    pub(crate) fn route(&mut self) -> Result<&mut Socket, Error> {
        Ok(match &mut self.route {
            Some(socket) => socket,
            empty => empty.insert(Socket::open()?),
        })
    }

    pub(crate) fn firewall(&mut self) -> Result<&mut nft::Socket, Error> {
        if self.firewall.is_none() {
            self.namespace = namespace();
            let kept = KEPT.try_with(RefCell::take).ok().flatten();
            // Another process's, after a fork, or another namespace's is not ours to use.
            let ours = |kept: &Kept| kept.is_ours() && Some(kept.namespace) == self.namespace;
            self.firewall = kept.filter(ours).and_then(|mut kept| kept.socket.take());
        }
        Ok(match &mut self.firewall {
            Some(socket) => socket,
            empty => empty.insert(nft::Socket::open()?),
        })
    }

    /// The device of this name, if there is one.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        match self.route()?.link(name) {
            Ok(link) => Ok(Some(link)),
            Err(hull_netlink::Error::NoLink(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Bridges of Hull's that are here, also those that other records than ours know.
    pub(crate) fn bridges(&mut self) -> Result<Vec<Link>, Error> {
        let mut links = self.route()?.links()?;
        links.retain(|link| link.kind == "bridge" && link.alias.starts_with(ALIAS));
        Ok(links)
    }

    /// Removes a device if it is there.
    pub(crate) fn remove_link(&mut self, name: &str) -> Result<(), Error> {
        let Some(link) = self.link(name)? else { return Ok(()) };
        match self.route()?.delete(link.index) {
            Err(hull_netlink::Error::Refused { errno: Errno::NODEV, .. }) => Ok(()),
            other => Ok(other?),
        }
    }

    /// The ways to the outside: default routes and their devices, the best one first.
    pub(crate) fn uplinks(&mut self) -> Result<Vec<(Route, Link)>, Error> {
        let mut defaults: Vec<Route> = self.route()?.routes()?;
        defaults.retain(|route| route.prefix == 0 && route.kind == UNICAST && route.table == MAIN && route.link != 0);
        if defaults.is_empty() {
            return Ok(Vec::new());
        }
        defaults.sort_by_key(|route| (route.destination.is_ipv6(), route.metric));
        let links = self.route()?.links()?;
        let found = defaults.into_iter().filter_map(|route| {
            let link = links.iter().find(|link| link.index == route.link)?.clone();
            Some((route, link))
        });
        Ok(found.collect())
    }

    /// Whether the machine speaks IPv6 with the outside.
    pub(crate) fn has_ipv6(&mut self) -> Result<bool, Error> {
        Ok(self.uplinks()?.iter().any(|(route, _)| route.destination.is_ipv6()))
    }

    /// Subnets that the machine's routes lead to, but for those of the devices in `own`.
    pub(crate) fn routed(&mut self, own: &BTreeSet<String>) -> Result<Vec<Taken>, Error> {
        let routes = self.route()?.routes()?;
        let links = self.route()?.links()?;
        let name = |index| links.iter().find(|link: &&Link| link.index == index).map_or("", |link| &link.name);
        let mut taken = Vec::new();
        for route in routes {
            let device = name(route.link);
            if route.prefix == 0 || route.kind != UNICAST || own.contains(device) {
                continue;
            }
            let Some(subnet) = Subnet::new(route.destination, route.prefix) else { continue };
            let link_local =
                matches!(route.destination, IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80);
            if !link_local {
                taken.push(Taken { subnet, by: format!("the machine's route {subnet} of device {device}") });
            }
        }
        Ok(taken)
    }
}

/// The IPv6 link-local address that belongs to a hardware address. Given to devices by us, it is usable at once; the
/// kernel's own would not be before it has asked all neighbours, and whoever is not yet known is not found until then.
pub(crate) fn link_local(mac: [u8; 6]) -> IpAddr {
    let [a, b, c, d, e, f] = mac;
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    octets.into()
}

/// Whether the kernel has IPv6.
pub(crate) fn kernel_has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Reads a switch; empty when the kernel has none of the name.
pub(crate) fn switch(name: &str) -> String {
    std::fs::read_to_string(Path::new("/proc/sys/net").join(name)).unwrap_or_default().trim().to_owned()
}

/// Sets a switch of the namespace. A kernel that has none of the name needs none.
pub(crate) fn set_switch(name: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys/net").join(name);
    match std::fs::write(&path, value) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        // Where /proc/sys cannot be written, it may be as it should all the same.
        Err(_) if switch(name) == value => Ok(()),
        other => other.map_err(Error::io("write", &path)),
    }
}

/// Whether bridged packets go through the firewall's IP hooks.
pub(crate) fn bridged_packets_are_filtered() -> bool {
    switch("bridge/bridge-nf-call-iptables") == "1"
}

/// Lets the machine forward for a bridge: the bridge's own switch and those of the ways to the outside, not the one for
/// all. Gives the devices that were switched on here, now or before: for these the firewall refuses to forward what does
/// not go to a container.
pub(crate) fn forward(
    host: &mut Host,
    bridge: &str,
    ipv6: bool,
    before: &[Vec<String>; 2],
) -> Result<[Vec<String>; 2], Error> {
    let mut switched = before.clone();
    // Every device that others may send packets by: they answer containers, or ask for published ports.
    let links = host.route()?.links()?;
    let outside = |link: &&Link| {
        link.is_up() && link.master == 0 && link.name != "lo" && link.name != bridge && !link.alias.starts_with(ALIAS)
    };
    let uplinks: BTreeSet<String> = links.iter().filter(outside).map(|link| link.name.clone()).collect();
    if switch("ipv4/ip_forward") == "1" {
        // Somebody wants the machine to be a router.
        switched[0].clear();
    } else {
        set_switch(&format!("ipv4/conf/{bridge}/forwarding"), "1")?;
        for name in &uplinks {
            let path = format!("ipv4/conf/{name}/forwarding");
            if switch(&path) == "0" {
                set_switch(&path, "1")?;
                switched[0].push(name.clone());
            }
        }
    }
    if ipv6 {
        forward_ipv6(host, bridge, &uplinks, &mut switched[1])?;
    }
    for names in &mut switched {
        names.sort();
        names.dedup();
    }
    Ok(switched)
}

fn forward_ipv6(
    host: &mut Host,
    bridge: &str,
    uplinks: &BTreeSet<String>,
    switched: &mut Vec<String>,
) -> Result<(), Error> {
    if switch("ipv6/conf/all/forwarding") == "1" {
        return Ok(());
    }
    let own = |name: &str| format!("ipv6/conf/{name}/force_forwarding");
    if switch(&own(bridge)).is_empty() {
        // Before Linux 6.17 there is only the switch for all, which also makes the machine deaf to routers.
        for link in host.route()?.links()? {
            let path = format!("ipv6/conf/{}/accept_ra", link.name);
            if switch(&path) == "1" {
                set_switch(&path, "2")?;
            }
            if link.name != bridge && link.name != "lo" && !link.name.starts_with(crate::firewall::PREFIX) {
                switched.push(link.name);
            }
        }
        return set_switch("ipv6/conf/all/forwarding", "1");
    }
    set_switch(&own(bridge), "1")?;
    for name in uplinks {
        if switch(&own(name)) == "0" {
            set_switch(&own(name), "1")?;
            switched.push(name.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Descriptors of this process that are sockets.
    fn sockets() -> usize {
        let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    }

    #[test]
    fn what_another_process_kept_is_not_closed_here() {
        let kept = |process| {
            let socket = nft::Socket::open().unwrap();
            drop(Kept { process, namespace: (0, 0), socket: Some(socket) });
        };
        let before = sockets();
        kept(rustix::process::getpid());
        assert_eq!(sockets(), before);
        kept(rustix::process::Pid::INIT);
        assert_eq!(sockets(), before + 1);
    }
}
