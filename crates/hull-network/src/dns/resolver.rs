//! The resolver of one container: a state machine behind one descriptor.
//!
//! Its owner polls [`Resolver::fd`] and calls [`Resolver::on_ready`] when that is readable or when
//! [`Resolver::deadline`] has come. Every socket is non-blocking and in one epoll set, so that the owner's own loop stays
//! as short with a thousand queries in flight as with none.

use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::answer::{Policy, Transport, Verdict, answer, fail};
use super::clients::Clients;
use super::error::Error;
use super::forward::{Answer, Client, Done, Forwards, Ground};
use super::names::Names;
use super::netns::Namespaces;
use super::settings::Current;
use super::slots::Key;
use super::upstream::Upstreams;
use super::wire::{self, MAX_UDP_SIZE, Query, Rcode};

/// Longer queries are malformed: what can be asked fits well.
pub(super) const MAX_QUERY: usize = 1232;
/// The longest datagram that is looked at.
const BUFFER: usize = MAX_UDP_SIZE as usize;
/// Datagrams and connections that one wake-up takes, so that the owner's other work goes on.
const BURST: usize = 64;
const EVENTS: usize = 32;
/// What is kept for the next answer.
const KEEP: usize = 4096;
/// How long no connection is taken after the machine could not give one more descriptor.
const PAUSE: Duration = Duration::from_secs(1);

const UDP: u64 = 0;
const TCP: u64 = 1;
const CLIENT: u64 = 2;
const EXCHANGE: u64 = 3;

fn data(tag: u64, key: Key) -> u64 {
    tag << 62 | u64::from(key.generation) << 32 | u64::from(key.index)
}

fn exchange_data(key: Key) -> u64 {
    data(EXCHANGE, key)
}

fn key_of(data: u64) -> Key {
    let low = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
    Key { index: low(data), generation: low(data >> 32) & super::slots::LAST_GENERATION }
}

/// The resolver of one container.
#[derive(Debug)]
pub struct Resolver {
    ground: Ground,
    udp: OwnedFd,
    tcp: Option<OwnedFd>,
    port: u16,
    current: Current,
    names: Names,
    upstreams: Upstreams,
    forwards: Forwards,
    clients: Clients,
    out: Vec<u8>,
    rotation: usize,
    /// Until when no connection is taken.
    paused: Option<Instant>,
}

impl Resolver {
    /// Opens the sockets in the container's network namespace, whose loopback device must be up.
    ///
    /// `settings` is the container's settings file, `host_file` the machine's `/etc/resolv.conf`; both are followed. The
    /// calling process must be single-threaded and stays in its own namespace. Queries arrive once
    /// [`redirect`](super::redirect) has been called with [`Resolver::port`].
    ///
    /// # Errors
    /// When the settings cannot be read, the namespace not be entered, or no socket be opened in it.
    pub fn open(namespace: OwnedFd, settings: &Path, host_file: PathBuf) -> Result<Self, Error> {
        let namespaces = Namespaces::new(namespace)?;
        let (udp, tcp, _) = namespaces.listeners()?;
        Self::with(namespaces, udp, tcp, settings, host_file)
    }

    /// The same resolver in another image of its process (`execve(2)`): `sockets` and `namespace` are those of
    /// [`Resolver::sockets`]. Queries in flight are lost; clients ask again.
    ///
    /// # Errors
    /// As [`Resolver::open`].
    pub fn resume(
        namespace: OwnedFd,
        sockets: (OwnedFd, OwnedFd),
        settings: &Path,
        host_file: PathBuf,
    ) -> Result<Self, Error> {
        Self::with(Namespaces::new(namespace)?, sockets.0, sockets.1, settings, host_file)
    }

    /// The container's namespace, and the sockets for UDP and TCP; `None` when TCP had to be given up.
    #[must_use]
    pub fn sockets(&self) -> Option<[BorrowedFd<'_>; 3]> {
        Some([self.ground.namespaces.container(), self.udp.as_fd(), self.tcp.as_ref()?.as_fd()])
    }

    fn with(
        namespaces: Namespaces,
        udp: OwnedFd,
        tcp: OwnedFd,
        settings: &Path,
        host_file: PathBuf,
    ) -> Result<Self, Error> {
        let current = Current::new(settings)?;
        let bound = rustix::net::getsockname(&udp).map_err(Error::system("ask", "resolver's socket"))?;
        let port = SocketAddr::try_from(bound).map_or(0, |address| address.port());
        let failed = |operation| Error::system(operation, "resolver's event queue");
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed("create"))?;
        for (socket, tag) in [(&udp, UDP), (&tcp, TCP)] {
            let data = EventData::new_u64(data(tag, Key { index: 0, generation: 0 }));
            epoll::add(&epoll, socket, data, EventFlags::IN).map_err(failed("add to"))?;
        }
        let mut names = Names::default();
        names.apply(&current.settings);
        let mut upstreams = Upstreams::new(host_file);
        upstreams.apply(&current.settings.servers);
        Ok(Self {
            ground: Ground { epoll, namespaces },
            udp,
            tcp: Some(tcp),
            port,
            current,
            names,
            upstreams,
            forwards: Forwards::new(),
            clients: Clients::new(),
            out: Vec::new(),
            rotation: 0,
            paused: None,
        })
    }

    /// Readable when there is something to do.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.ground.epoll.as_fd()
    }

    /// The port of 127.0.0.11 that UDP and TCP queries are taken on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// When [`Resolver::on_ready`] must be called, whatever the descriptor says.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        [self.forwards.deadline(), self.clients.deadline(), self.paused].into_iter().flatten().min()
    }

    /// Does what can be done without waiting. Never blocks and never fails: what goes wrong is told to the client that
    /// asked, or is its own affair.
    pub fn on_ready(&mut self, now: Instant) {
        let mut events = Vec::<Event>::with_capacity(EVENTS);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = epoll::wait(&self.ground.epoll, rustix::buffer::spare_capacity(&mut events), Some(&at_once));
        if !events.is_empty() && self.current.follow() {
            self.names.apply(&self.current.settings);
            self.upstreams.apply(&self.current.settings.servers);
        }
        let mut buffer = [0; BUFFER];
        for event in &events {
            let value = event.data.u64();
            match value >> 62 {
                UDP => self.read_datagrams(now, &mut buffer),
                TCP => self.accept(now),
                CLIENT => self.read_client(key_of(value), now, &mut buffer),
                _ => self.read_exchange(value, now, &mut buffer),
            }
        }
        self.expire(now, &mut buffer);
        if self.out.capacity() > KEEP {
            self.out = Vec::new();
        }
    }

    fn expire(&mut self, now: Instant, buffer: &mut [u8]) {
        while let Some(done) = self.forwards.expire(&self.ground, exchange_data, &mut self.upstreams, now) {
            self.finish(done, now, buffer);
        }
        self.clients.expire(now);
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
            if let Some(tcp) = &self.tcp {
                let data = EventData::new_u64(data(TCP, Key { index: 0, generation: 0 }));
                if epoll::add(&self.ground.epoll, tcp, data, EventFlags::IN).is_err() {
                    self.paused = Some(now + PAUSE);
                }
            }
        }
    }

    fn read_datagrams(&mut self, now: Instant, buffer: &mut [u8; BUFFER]) {
        for _ in 0..BURST {
            match rustix::net::recvfrom(&self.udp, &mut buffer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((length, _, Some(from))) => {
                    let Ok(SocketAddr::V4(from)) = SocketAddr::try_from(from) else { continue };
                    let packet = &buffer[..length.min(BUFFER)];
                    self.ask_datagram(packet, from, now);
                }
                Ok((_, _, None)) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn ask_datagram(&mut self, packet: &[u8], from: SocketAddrV4, now: Instant) {
        let waits = self.ask(packet, Transport::Udp, |query| Client::Udp(from, query.udp_limit()), now);
        if !waits && !self.out.is_empty() {
            self.send_datagram(&self.out, from);
        }
    }

    /// Answers into `out`, or passes on, which it says. An empty answer is none.
    fn ask(
        &mut self,
        packet: &[u8],
        transport: Transport,
        client: impl FnOnce(&Query) -> Client,
        now: Instant,
    ) -> bool {
        self.out.clear();
        if packet.len() > MAX_QUERY {
            wire::refuse(packet, Rcode::FormatError, &mut self.out);
            return false;
        }
        self.rotation = self.rotation.wrapping_add(1);
        let settings = &self.current.settings;
        let policy =
            Policy { forward: settings.forward, single_labels: settings.single_labels, rotation: self.rotation };
        let query = match answer(packet, transport, policy, &mut self.names, &mut self.out) {
            Verdict::Ignore => {
                self.out.clear();
                return false;
            }
            Verdict::Answered => return false,
            Verdict::Forward(query) => query,
        };
        let servers = self.upstreams.now(now);
        let client = client(&query);
        if self.forwards.start(&self.ground, &query, packet, client, transport, servers, now, exchange_data) {
            return true;
        }
        fail(&query, packet, &mut self.out);
        false
    }

    /// A client that cannot take an answer now asks again.
    fn send_datagram(&self, packet: &[u8], to: SocketAddrV4) {
        let _ = rustix::net::sendto(&self.udp, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &to);
    }

    fn accept(&mut self, now: Instant) {
        let Some(tcp) = &self.tcp else { return };
        for _ in 0..BURST {
            match rustix::net::accept_with(tcp, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => {
                    let epoll = &self.ground.epoll;
                    self.clients.add(socket, now, |socket, key| {
                        epoll::add(epoll, socket, EventData::new_u64(data(CLIENT, key)), EventFlags::IN).is_ok()
                    });
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => {
                    // Waiting for the listener would return at once, again and again.
                    let _ = epoll::delete(&self.ground.epoll, tcp);
                    if matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) {
                        self.paused = Some(now + PAUSE);
                    } else {
                        // The container's root destroyed it.
                        self.tcp = None;
                    }
                    return;
                }
            }
        }
    }

    fn read_client(&mut self, key: Key, now: Instant, buffer: &mut [u8; BUFFER]) {
        if !self.clients.read(key, buffer) {
            return self.clients.close(key);
        }
        loop {
            match self.clients.query(key, buffer, now) {
                Ok(None) => return,
                Err(()) => return self.clients.close(key),
                Ok(Some(length)) => {
                    if !self.ask(&buffer[..length], Transport::Tcp, |_| Client::Tcp(key), now) {
                        self.clients.answer(key, &self.out, now);
                    }
                }
            }
        }
    }

    fn read_exchange(&mut self, value: u64, now: Instant, buffer: &mut [u8; BUFFER]) {
        let done = self.forwards.ready(&self.ground, key_of(value), value, &mut self.upstreams, now, buffer);
        if let Some(done) = done {
            self.finish(done, now, buffer);
        }
    }

    /// Gives a server's answer to the client.
    fn finish(&mut self, done: Done, now: Instant, buffer: &mut [u8]) {
        let Done { client, id, question_end, answer } = done;
        let mut stream;
        let answer = match answer {
            Answer::Datagram(length) => &mut buffer[..length],
            Answer::Stream(bytes) => {
                stream = bytes;
                stream.get_mut(2..).unwrap_or_default()
            }
            Answer::None(query) => {
                match Query::parse(&query) {
                    Ok(parsed) => fail(&parsed, &query, &mut self.out),
                    Err(_) => wire::refuse(&query, Rcode::ServerFailure, &mut self.out),
                }
                &mut self.out
            }
        };
        wire::set_id(answer, id);
        match client {
            Client::Udp(to, limit) => {
                let answer = if answer.len() > limit { wire::truncate(answer, question_end) } else { answer };
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                let _ = rustix::net::sendto(&self.udp, answer, flags, &to);
            }
            Client::Tcp(key) => self.clients.answer(key, answer, now),
        }
    }

    /// Queries in flight, bytes they hold, connections.
    #[cfg(test)]
    pub(super) fn load(&self) -> (usize, usize, usize) {
        let (exchanges, held) = self.forwards.load();
        (exchanges, held, self.clients.len())
    }

    /// Servers listen on a port of the test's own.
    #[cfg(test)]
    pub(super) fn set_upstream_port(&mut self, port: u16) {
        self.upstreams.set_port(port);
        self.upstreams.apply(&self.current.settings.servers);
    }
}

impl AsFd for Resolver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}
