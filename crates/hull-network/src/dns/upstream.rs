//! The servers that others' names are asked of: those that the user named, or the machine's at this moment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::netns::{ADDRESS, Place};
use super::table::Followed;
use crate::files::resolv::{Nameserver, ResolvConf};

/// More servers are not asked, as with every resolver.
pub(super) const MAX_SERVERS: usize = 3;
/// Longer files are not read.
const MAX_FILE: usize = 64 << 10;
/// A server that gave no answer is asked last for this long.
const DISTRUST: Duration = Duration::from_secs(30);
const PORT: u16 = 53;

/// A server and the network namespace that it is asked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) place: Place,
}

/// The servers in force.
#[derive(Debug)]
pub(super) struct Upstreams {
    host: Followed,
    /// Whether the user named them, so that the machine's are not looked at.
    fixed: bool,
    list: Rc<[Server]>,
    silent: Vec<(SocketAddr, Instant)>,
    port: u16,
}

impl Upstreams {
    pub(super) fn new(host_file: PathBuf) -> Self {
        let list = Rc::new([]);
        Self { host: Followed::new(host_file), fixed: false, list, silent: Vec::new(), port: PORT }
    }

    /// Servers named by the user are asked from the container's namespace: a loopback address among them is the
    /// container's own. The resolver's own address is none: it would ask itself for ever.
    pub(super) fn apply(&mut self, named: &[IpAddr]) {
        let server = |ip: &IpAddr| Server { address: SocketAddr::new(*ip, self.port), place: Place::Container };
        self.list = named.iter().filter(|ip| ip.to_canonical() != ADDRESS).take(MAX_SERVERS).map(server).collect();
        self.fixed = !self.list.is_empty();
        self.host = Followed::new(self.host.path().to_owned());
    }

    /// The servers to ask now, those first that have answered lately.
    pub(super) fn now(&mut self, now: Instant) -> Rc<[Server]> {
        if !self.fixed {
            match self.host.read_changed(MAX_FILE) {
                Ok(None) => {}
                Ok(Some(content)) => self.list = of_host(&content, self.port),
                // While a program replaces the file by removing it first, the old servers stay.
                Err(_) if !self.list.is_empty() => {}
                Err(_) => self.list = of_host(b"", self.port),
            }
        }
        self.silent.retain(|(_, until)| *until > now);
        if self.silent.is_empty() {
            return Rc::clone(&self.list);
        }
        let silent = |server: &Server| self.silent.iter().any(|(address, _)| *address == server.address);
        let mut sorted = self.list.to_vec();
        sorted.sort_by_key(silent);
        sorted.into()
    }

    /// A server let a query time out.
    pub(super) fn distrust(&mut self, server: Server, now: Instant) {
        self.silent.retain(|(address, _)| *address != server.address);
        if self.silent.len() < 2 * MAX_SERVERS {
            self.silent.push((server.address, now + DISTRUST));
        }
    }

    /// A server answered.
    pub(super) fn trust(&mut self, server: Server) {
        if !self.silent.is_empty() {
            self.silent.retain(|(address, _)| *address != server.address);
        }
    }

    #[cfg(test)]
    pub(super) fn set_port(&mut self, port: u16) {
        self.port = port;
    }
}

/// The machine's servers. Those on its loopback, such as systemd-resolved's 127.0.0.53, and those on one link only exist
/// in its own namespace; without any, one on the loopback is meant (`resolv.conf(5)`).
fn of_host(content: &[u8], port: u16) -> Rc<[Server]> {
    let parsed = ResolvConf::parse(content);
    let mut list: Vec<Server> =
        parsed.nameservers.iter().take(MAX_SERVERS).filter_map(|server| of_line(server, port)).collect();
    if parsed.nameservers.is_empty() {
        list.push(Server { address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), place: Place::Machine });
    }
    list.into()
}

fn of_line(server: &Nameserver, port: u16) -> Option<Server> {
    let place = if server.is_of_machine() { Place::Machine } else { Place::Container };
    let address = match (server.address, server.zone.as_deref()) {
        (IpAddr::V6(address), Some(zone)) => SocketAddrV6::new(address, port, 0, interface(zone)?).into(),
        (address, _) => SocketAddr::new(address, port),
    };
    Some(Server { address, place })
}

fn interface(zone: &str) -> Option<u32> {
    if let Ok(index) = zone.parse() {
        return Some(index);
    }
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, flags, None).ok()?;
    rustix::net::netdevice::name_to_index(&socket, zone).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[Server]) -> Vec<(String, Place)> {
        list.iter().map(|server| (server.address.to_string(), server.place)).collect()
    }

    #[test]
    fn the_machines_servers_are_followed_and_loopback_ones_are_the_machines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let mut upstreams = Upstreams::new(path.clone());
        let now = Instant::now();
        assert_eq!(addresses(&upstreams.now(now)), [("127.0.0.1:53".to_owned(), Place::Machine)]);
        std::fs::write(&path, "nameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver ::1\nnameserver 9.9.9.9\n")
            .unwrap();
        let expected = [
            ("127.0.0.53:53".to_owned(), Place::Machine),
            ("192.0.2.1:53".to_owned(), Place::Container),
            ("[::1]:53".to_owned(), Place::Machine),
        ];
        assert_eq!(addresses(&upstreams.now(now)), expected);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(addresses(&upstreams.now(now)), expected);
        std::fs::write(&path, "nameserver fe80::1%lo\nnameserver fe80::2%none0\n").unwrap();
        assert_eq!(addresses(&upstreams.now(now)), [("[fe80::1%1]:53".to_owned(), Place::Machine)]);
    }

    #[test]
    fn named_servers_are_the_containers_and_silent_ones_are_asked_last() {
        let mut upstreams = Upstreams::new("/nonexistent".into());
        let named: Vec<IpAddr> =
            ["127.0.0.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|ip| ip.parse().unwrap()).into();
        upstreams.apply(&named);
        let now = Instant::now();
        let list = upstreams.now(now);
        assert_eq!(list.len(), 3);
        assert!(list.iter().all(|server| server.place == Place::Container));
        upstreams.distrust(list[0], now);
        assert_eq!(*upstreams.now(now), [list[1], list[2], list[0]]);
        assert_eq!(upstreams.now(now + DISTRUST), list);
        upstreams.distrust(list[0], now);
        upstreams.trust(list[0]);
        assert_eq!(upstreams.now(now), list);
    }

    #[test]
    fn the_resolver_never_asks_itself() {
        let mut upstreams = Upstreams::new("/nonexistent".into());
        upstreams.apply(&["127.0.0.11", "::ffff:127.0.0.11", "9.9.9.9"].map(|ip| ip.parse().unwrap()));
        assert_eq!(addresses(&upstreams.now(Instant::now())), [("9.9.9.9:53".to_owned(), Place::Container)]);
        // On the machine it is somebody else's: Hull may run in a container itself.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 127.0.0.11\n").unwrap();
        let mut upstreams = Upstreams::new(path);
        assert_eq!(addresses(&upstreams.now(Instant::now())), [("127.0.0.11:53".to_owned(), Place::Machine)]);
    }
}
