//! A machine of its own for each test: network namespaces for the machine, for somebody else on its link, and for
//! containers, all of which go with the test.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

pub mod docker;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_db::Database;
use hull_netlink::{Address, Change, Socket, in_namespace, loopback_up};
use hull_network::{Attachment, Create, Error, Networks, Plan, Pool, Protocol, Publish, Who};
use hull_sys::clone::{CloneFlags, unshare};

/// Silence is taken for a refusal after this; the first packet may be lost and come again after a second.
const PATIENCE: Duration = Duration::from_millis(1300);
/// Whoever has answered is waited for.
const LONG: Duration = Duration::from_secs(10);

/// The machine's addresses on the link, and those of the other one there.
pub const MACHINE: &str = "192.0.2.1";
pub const MACHINE6: &str = "2001:db8::1";
pub const REMOTE: &str = "192.0.2.2";
pub const REMOTE6: &str = "2001:db8::2";

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn own_namespace() -> OwnedFd {
    hull_network::namespace_at("/proc/thread-self/ns/net".as_ref()).unwrap()
}

/// Runs a test in a thread that has a network namespace of its own.
pub fn in_lab(test: impl FnOnce(&Lab) + Send + 'static) {
    if !hull_testkit::tier::root() {
        return;
    }
    let finished = std::thread::spawn(|| {
        let lab = Lab::new();
        test(&lab);
    });
    if let Err(panic) = finished.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A new network namespace; the thread comes back.
pub fn new_namespace() -> OwnedFd {
    let own = own_namespace();
    unshare(CloneFlags::NEWNET).unwrap();
    let made = own_namespace();
    // What a runtime does in the child.
    loopback_up().unwrap();
    rustix::thread::move_into_link_name_space(own.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network)).unwrap();
    made
}

pub struct Lab {
    pub networks: Networks,
    pub machine: OwnedFd,
    pub remote: OwnedFd,
    pub data: tempfile::TempDir,
}

pub fn set_switch(name: &str, value: &str) {
    let _ = std::fs::write(format!("/proc/sys/net/{name}"), value);
}

impl Lab {
    fn new() -> Self {
        unshare(CloneFlags::NEWNET).unwrap();
        loopback_up().unwrap();
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding"] {
            set_switch(switch, "0");
        }
        set_switch("bridge/bridge-nf-call-iptables", "0");
        set_switch("bridge/bridge-nf-call-ip6tables", "0");
        let machine = own_namespace();
        let remote = new_namespace();
        let mut socket = Socket::open().unwrap();
        socket.create_veth("up0", "up1").unwrap();
        let other = socket.link("up1").unwrap();
        socket.move_to(other.index, remote.as_fd(), "eth0").unwrap();
        let mut there = Socket::open_in(remote.as_fd()).unwrap();
        let addresses = [(MACHINE, MACHINE6), (REMOTE, REMOTE6)];
        for (socket, name, (v4, v6)) in [(&mut socket, "up0", addresses[0]), (&mut there, "eth0", addresses[1])] {
            let link = socket.link(name).unwrap();
            socket.change(link.index, Change { up: Some(true), mtu: Some(1400), ..Change::default() }).unwrap();
            socket.add_address(link.index, &Address::global(ip(v4), 24)).unwrap();
            socket.add_address(link.index, &Address::global(ip(v6), 64)).unwrap();
        }
        let up = socket.link("up0").unwrap();
        socket.add_route(up.index, ip("0.0.0.0"), 0, Some(ip(REMOTE))).unwrap();
        socket.add_route(up.index, ip("::"), 0, Some(ip(REMOTE6))).unwrap();
        let data = tempfile::tempdir().unwrap();
        let networks = Networks::new(Database::new(&data.path().join("data")), &data.path().join("state"));
        Self { networks, machine, remote, data }
    }

    /// The one on the link sends packets for these addresses to the machine.
    pub fn attack_route(&self, subnet: IpAddr, prefix: u8) {
        let mut there = Socket::open_in(self.remote.as_fd()).unwrap();
        let link = there.link("eth0").unwrap();
        let through = if subnet.is_ipv4() { ip(MACHINE) } else { ip(MACHINE6) };
        // Another container of the same network may have been here.
        let _ = there.add_route(link.index, subnet, prefix, Some(through));
    }

    pub fn create(&self, name: &str, change: impl FnOnce(&mut Create)) -> hull_network::Network {
        let mut wish = Create { name: name.to_owned(), ..Create::default() };
        change(&mut wish);
        self.networks.create(wish, &mut Vec::new()).unwrap()
    }

    pub fn start(&self, id: &str, networks: &[&str], publish: &[Publish]) -> Container {
        self.try_start(id, networks, publish).unwrap()
    }

    pub fn try_start(&self, id: &str, networks: &[&str], publish: &[Publish]) -> Result<Container, Error> {
        let wishes: Vec<Attachment> =
            networks.iter().map(|name| Attachment { network: (*name).to_owned(), ..Attachment::default() }).collect();
        self.start_with(id, &wishes, publish)
    }

    pub fn start_with(&self, id: &str, wishes: &[Attachment], publish: &[Publish]) -> Result<Container, Error> {
        let plan = self.networks.plan(Who { id, name: id }, wishes, publish)?;
        let namespace = new_namespace();
        if let Err(error) = self.networks.attach(&plan, namespace.as_fd(), &mut Vec::new()) {
            self.networks.detach(id).unwrap();
            return Err(error);
        }
        Ok(Container { id: id.to_owned(), plan, namespace })
    }
}

/// A container without processes.
pub struct Container {
    pub id: String,
    pub plan: Plan,
    pub namespace: OwnedFd,
}

impl AsFd for Container {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

impl Container {
    pub fn ipv4(&self, network: usize) -> IpAddr {
        self.plan.endpoints[network].ipv4().unwrap().into()
    }

    pub fn ipv6(&self, network: usize) -> IpAddr {
        self.plan.endpoints[network].ipv6().unwrap().into()
    }

    /// Serves its ID on a TCP port of all addresses; the peer's address is said too.
    pub fn serve(&self, port: u16) {
        serve(self.as_fd(), port, &self.id);
    }
}

/// Serves a name on a TCP port and the same UDP port of all addresses of a namespace.
pub fn serve(namespace: BorrowedFd<'_>, port: u16, name: &str) {
    let (tcp, udp) = in_namespace(namespace, || {
        let all = SocketAddr::new(ip("::"), port);
        (TcpListener::bind(all).unwrap(), UdpSocket::bind(all).unwrap())
    })
    .unwrap();
    let answer = name.to_owned();
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = tcp.accept() {
            let _ = write!(stream, "{answer} {}", from.ip().to_canonical());
        }
    });
    let answer = name.to_owned();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(answer.as_bytes(), from);
        }
    });
}

/// Sends the same bytes to everybody who connects to a TCP port of a namespace.
pub fn serve_bytes(namespace: BorrowedFd<'_>, port: u16, bytes: Vec<u8>) {
    let tcp = in_namespace(namespace, || TcpListener::bind(SocketAddr::new(ip("::"), port)).unwrap()).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = tcp.accept() {
            let _ = stream.write_all(&bytes);
        }
    });
}

/// All that is sent on a TCP port.
pub fn fetch(namespace: BorrowedFd<'_>, address: IpAddr, port: u16) -> Vec<u8> {
    let mut stream =
        in_namespace(namespace, || TcpStream::connect_timeout(&SocketAddr::new(address, port), LONG)).unwrap().unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// What is answered on a TCP port, if anything.
pub fn ask(namespace: BorrowedFd<'_>, address: IpAddr, port: u16) -> Option<String> {
    let to = SocketAddr::new(address, port);
    let mut stream = in_namespace(namespace, || TcpStream::connect_timeout(&to, PATIENCE)).unwrap().ok()?;
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The name alone.
pub fn ask_name(namespace: BorrowedFd<'_>, address: IpAddr, port: u16) -> Option<String> {
    ask(namespace, address, port).map(|answer| answer.split(' ').next().unwrap_or_default().to_owned())
}

/// What is answered on a UDP port, if anything.
pub fn ask_udp(namespace: BorrowedFd<'_>, address: IpAddr, port: u16) -> Option<String> {
    let socket = in_namespace(namespace, || {
        UdpSocket::bind(SocketAddr::new(if address.is_ipv4() { ip("0.0.0.0") } else { ip("::") }, 0)).unwrap()
    })
    .unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(SocketAddr::new(address, port)).ok()?;
    socket.send(b"?").ok()?;
    let mut buffer = [0; 64];
    let filled = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..filled]).into_owned())
}

pub fn tcp(host: Option<&str>, host_port: u16, port: u16) -> Publish {
    Publish { protocol: Protocol::Tcp, host: host.map(ip), host_ports: Some(host_port..=host_port), port }
}

pub fn pool(subnet: &str) -> Pool {
    Pool {
        subnet: subnet.parse().unwrap(),
        range: None,
        gateway: None,
        auxiliary: std::collections::BTreeMap::new(),
        chosen: true,
    }
}

/// Runs `nft` in the calling thread's namespace.
pub fn nft(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "nft {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}
