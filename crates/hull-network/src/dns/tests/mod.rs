//! Resolvers for real: the machine and the container are two network namespaces of the test's own, servers and clients
//! are sockets that the test holds, and time is what the test says.

mod forwarding;
mod limits;
mod local;
mod port53;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};
use hull_sys::clone::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use super::{ADDRESS, Member, Resolver, Settings, TABLE, join};

/// Where the test's servers listen.
const SERVER_PORT: u16 = 5300;

/// Two namespaces, a directory, and a container with one network.
struct Lab {
    _directory: tempfile::TempDir,
    container: OwnedFd,
    network: PathBuf,
    settings_file: PathBuf,
    host_file: PathBuf,
    settings: Settings,
    now: Instant,
}

fn own_namespace() -> OwnedFd {
    rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Runs a test in a thread whose network namespace is the machine of the lab.
fn lab(test: impl FnOnce(Lab) + Send + 'static) {
    if !hull_testkit::tier::root() {
        return;
    }
    let body = || {
        let namespace = || {
            unshare(CloneFlags::NEWNET).unwrap();
            hull_netlink::loopback_up().unwrap();
            own_namespace()
        };
        let machine = namespace();
        let container = namespace();
        rustix::thread::move_into_link_name_space(machine.as_fd(), None).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        let network = path("backend");
        std::fs::create_dir(&network).unwrap();
        let settings = Settings { networks: vec![("backend".to_owned(), network.join(TABLE))], ..Settings::default() };
        std::fs::write(path("resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
        test(Lab {
            container,
            network,
            settings_file: path("dns"),
            host_file: path("resolv.conf"),
            settings,
            now: Instant::now(),
            _directory: directory,
        });
    };
    std::thread::spawn(body).join().unwrap();
}

impl Lab {
    fn inside<T>(&self, action: impl FnOnce() -> T) -> T {
        hull_netlink::in_namespace(self.container.as_fd(), action).unwrap()
    }

    fn resolver(&self) -> Resolver {
        self.settings.write(&self.settings_file).unwrap();
        let namespace = self.container.try_clone().unwrap();
        let mut resolver = Resolver::open(namespace, &self.settings_file, self.host_file.clone()).unwrap();
        resolver.set_upstream_port(SERVER_PORT);
        resolver
    }

    /// Another container comes into the network.
    fn connect(&self, name: &str, last: u8) {
        let member = Member {
            container: format!("id-{name}"),
            network: "backend".to_owned(),
            names: vec![name.to_owned(), "Shared".to_owned()],
            addresses: vec![Ipv4Addr::new(10, 9, 0, last).into(), format!("fd00:9::{last:x}").parse().unwrap()],
            services: vec![("http".to_owned(), "tcp".to_owned(), 8080)],
        };
        join(&self.network, &member).unwrap();
    }

    /// A program in the container.
    fn client(&self, resolver: &Resolver) -> UdpSocket {
        let socket = self.inside(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        socket.connect((ADDRESS, resolver.port())).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    fn stream(&self, resolver: &Resolver) -> TcpStream {
        let stream = self.inside(|| TcpStream::connect((ADDRESS, resolver.port())).unwrap());
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// A server on the container's loopback.
    fn container_server(&self, last: u8) -> UdpSocket {
        self.inside(|| server(last))
    }
}

/// A server on the caller's loopback: on the machine's, as systemd-resolved is.
fn server(last: u8) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, last), SERVER_PORT)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn stream_server(last: u8) -> TcpListener {
    TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), SERVER_PORT)).unwrap()
}

/// Lets the resolver work until it has nothing more to do. On the loopback device what is sent has arrived.
fn run(resolver: &mut Resolver, now: Instant) {
    resolver.on_ready(now);
    while ready(resolver, Duration::ZERO) {
        resolver.on_ready(now);
    }
}

fn ready(resolver: &Resolver, limit: Duration) -> bool {
    let fd = resolver.fd();
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&Timespec::try_from(limit).unwrap())).unwrap() > 0
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(rand(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    message.add_query(Query::query(name, kind));
    message
}

fn rand() -> u16 {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    u16::from_ne_bytes(bytes)
}

fn send(client: &UdpSocket, name: &str, kind: RecordType) -> u16 {
    let message = query(name, kind);
    client.send(&message.to_vec().unwrap()).unwrap();
    message.metadata.id
}

fn receive(client: &UdpSocket) -> Message {
    let mut bytes = [0; 8192];
    let length = client.recv(&mut bytes).expect("an answer");
    Message::from_vec(&bytes[..length]).unwrap()
}

/// Nothing has come.
fn assert_silent(client: &UdpSocket) {
    client.set_nonblocking(true).unwrap();
    assert!(client.recv(&mut [0; 16]).is_err());
    client.set_nonblocking(false).unwrap();
}

/// Asks and waits for what the resolver itself says.
fn ask(resolver: &mut Resolver, client: &UdpSocket, now: Instant, name: &str, kind: RecordType) -> Message {
    let id = send(client, name, kind);
    run(resolver, now);
    let answer = receive(client);
    assert_eq!(answer.metadata.id, id);
    answer
}

fn addresses(answer: &Message) -> Vec<String> {
    let mut list: Vec<String> =
        answer.answers.iter().filter_map(|record| record.data.ip_addr()).map(|ip| ip.to_string()).collect();
    list.sort();
    list
}

/// What came to a server.
struct Asked {
    from: SocketAddr,
    message: Message,
}

fn asked(server: &UdpSocket) -> Option<Asked> {
    let mut bytes = [0; 2048];
    let (length, from) = server.recv_from(&mut bytes).ok()?;
    Some(Asked { from, message: Message::from_vec(&bytes[..length]).unwrap() })
}

/// An answer with one address.
fn answer_of(asked: &Message, code: ResponseCode, last: Option<u8>) -> Message {
    let mut answer = asked.clone().into_response();
    answer.metadata.response_code = code;
    if let Some(last) = last {
        let address = RData::A(rdata::A::from(Ipv4Addr::new(192, 0, 2, last)));
        answer.add_answer(Record::from_rdata(asked.queries[0].name().clone(), 60, address));
    }
    answer
}

fn reply(server: &UdpSocket, asked: &Asked, code: ResponseCode, last: Option<u8>) {
    server.send_to(&answer_of(&asked.message, code, last).to_vec().unwrap(), asked.from).unwrap();
}

fn send_framed(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, message].concat()).unwrap();
}

fn receive_framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes).ok()?;
    Some(bytes)
}
