//! Connections that come to reserved ports by themselves and not by the firewall: passed on to the container.
//!
//! That is what comes to the machine's `::1`, over IPv6 to a container without it, to networks with `publish_mode=proxy`,
//! and all of it while the firewall's table is being made anew. A state machine behind one descriptor: it never blocks,
//! starts no thread, and with nothing to pass on has no buffers. The container sees the machine as its peer.

mod stream;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::Error;
use crate::ports::{self, Reservation};
use crate::record::{Protocol, Published};
use stream::Stream;

/// Connections at a time; further ones wait in the kernel.
const MAX_STREAMS: usize = 512;
/// Peers over UDP at a time; the one that has been silent longest makes room.
const MAX_FLOWS: usize = 256;
/// A silent peer over UDP is forgotten after this.
const IDLE: Duration = Duration::from_secs(90);
/// The longest datagram.
const DATAGRAM: usize = 65_536;
/// Datagrams taken from one socket before the others have their turn.
const BURST: usize = 64;

/// What an event is about; the number in it.
const LISTENER: u64 = 0;
const STREAM: u64 = 1;
const FLOW: u64 = 2;

fn token(kind: u64, index: usize, side: usize) -> u64 {
    kind << 56 | (index as u64) << 1 | side as u64
}

/// A peer over UDP.
#[derive(Debug)]
struct Flow {
    listener: usize,
    peer: SocketAddr,
    socket: OwnedFd,
    seen: Instant,
}

/// Passes on what comes to reserved ports.
#[derive(Debug)]
pub struct Proxy {
    epoll: OwnedFd,
    listeners: Vec<Reservation>,
    streams: Vec<Option<Stream>>,
    open: usize,
    paused: bool,
    flows: Vec<Option<Flow>>,
    by_peer: HashMap<(usize, SocketAddr), usize>,
}

fn system(operation: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Io { operation, path: "published port".to_owned(), source: errno.into() }
}

/// A socket towards the container, which may not be connected yet.
fn connect(target: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

impl AsFd for Proxy {
    /// Readable when [`Proxy::on_ready`] is to be called.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Proxy {
    /// Takes over a plan's reservations, and listens. For many ports that takes a while: best when the container has started.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no descriptor left.
    pub fn new(listeners: Vec<Reservation>) -> Result<Self, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system("watch"))?;
        let proxy = Self {
            epoll,
            listeners,
            streams: Vec::new(),
            open: 0,
            paused: false,
            flows: Vec::new(),
            by_peer: HashMap::new(),
        };
        proxy.listen(true)?;
        Ok(proxy)
    }

    /// Watches listening sockets of TCP, or leaves them alone while there are too many connections; UDP always.
    fn listen(&self, first: bool) -> Result<(), Error> {
        for (index, listener) in self.listeners.iter().enumerate() {
            let data = epoll::EventData::new_u64(token(LISTENER, index, 0));
            let flags = if self.paused && listener.protocol == Protocol::Tcp {
                epoll::EventFlags::empty()
            } else {
                epoll::EventFlags::IN
            };
            if first && listener.protocol == Protocol::Tcp {
                ports::listen(listener).map_err(system("listen at"))?;
            }
            let changed = match (listener.protocol, first) {
                // Connections of SCTP are the firewall's alone.
                (Protocol::Sctp, _) | (Protocol::Udp, false) => Ok(()),
                (_, true) => epoll::add(&self.epoll, listener, data, flags),
                (Protocol::Tcp, false) => epoll::modify(&self.epoll, listener, data, flags),
            };
            changed.map_err(system("watch"))?;
        }
        Ok(())
    }

    /// The reserved ports, for whoever hands them on.
    #[must_use]
    pub fn listeners(&self) -> &[Reservation] {
        &self.listeners
    }

    /// Passes on to where the ports are published now: the container has left the network where they were. What is being
    /// passed on goes to its end.
    pub fn follow(&mut self, published: &[Published]) {
        for listener in &mut self.listeners {
            let version = listener.both || listener.host.is_ipv4();
            let same = |one: &&Published| {
                (one.protocol, one.host_port, one.port)
                    == (listener.protocol, listener.host_port, listener.target.port())
            };
            let found = published.iter().filter(same).min_by_key(|one| one.host.is_ipv4() != version);
            if let Some(one) = found {
                listener.target.set_ip(one.address);
            }
        }
    }

    /// Whether nothing is being passed on.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open == 0 && self.by_peer.is_empty()
    }

    /// When [`Proxy::on_ready`] is to be called at the latest; absent when nothing waits.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.flows.iter().flatten().map(|flow| flow.seen + IDLE).min()
    }

    /// Passes on what is there. To be called when the descriptor is readable or the deadline has passed.
    ///
    /// # Errors
    /// [`Error::Io`] when the kernel has no memory; what is wrong with one connection ends that one alone.
    pub fn on_ready(&mut self, now: Instant) -> Result<(), Error> {
        let mut events = Vec::with_capacity(64);
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&zero)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(system("wait for")(errno)),
        }
        for event in events {
            let data = event.data.u64();
            let index = usize::try_from((data & 0x00ff_ffff_ffff_ffff) >> 1).unwrap_or(usize::MAX);
            match data >> 56 {
                LISTENER if self.listeners.get(index).is_some_and(|one| one.protocol == Protocol::Udp) => {
                    self.datagrams(index, now);
                }
                LISTENER => self.accept(index)?,
                STREAM => self.stream(index)?,
                _ => self.answers(index, now),
            }
        }
        let idle: Vec<usize> = self
            .flows
            .iter()
            .enumerate()
            .filter(|(_, flow)| flow.as_ref().is_some_and(|flow| flow.seen + IDLE <= now))
            .map(|(index, _)| index)
            .collect();
        for index in idle {
            self.forget(index);
        }
        Ok(())
    }

    fn accept(&mut self, index: usize) -> Result<(), Error> {
        let Some(listener) = self.listeners.get(index) else { return Ok(()) };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // One at a time: the socket stays readable while there are more.
        let Ok(peer) = rustix::net::accept_with(listener, flags) else { return Ok(()) };
        let Ok(target) = connect(listener.target, SocketType::STREAM) else { return Ok(()) };
        let slot = match self.streams.iter().position(Option::is_none) {
            Some(slot) => slot,
            None => {
                self.streams.push(None);
                self.streams.len() - 1
            }
        };
        let stream = Stream::new(peer, target);
        if stream.watch(&self.epoll, |side| token(STREAM, slot, side)).is_err() {
            return Ok(());
        }
        self.streams[slot] = Some(stream);
        self.open += 1;
        if self.open >= MAX_STREAMS && !self.paused {
            self.paused = true;
            self.listen(false)?;
        }
        Ok(())
    }

    fn stream(&mut self, index: usize) -> Result<(), Error> {
        let Some(Some(stream)) = self.streams.get_mut(index) else { return Ok(()) };
        if stream.step() && stream.rewatch(&self.epoll, |side| token(STREAM, index, side)).is_ok() {
            return Ok(());
        }
        // Closing takes both sockets out of the epoll set.
        self.streams[index] = None;
        self.open -= 1;
        if self.open == 0 {
            self.streams = Vec::new();
        }
        if self.paused && self.open < MAX_STREAMS {
            self.paused = false;
            self.listen(false)?;
        }
        Ok(())
    }

    fn datagrams(&mut self, index: usize, now: Instant) {
        let mut buffer = vec![0; DATAGRAM];
        for _ in 0..BURST {
            let Some(listener) = self.listeners.get(index) else { return };
            let received = rustix::net::recvfrom(listener, &mut buffer[..], RecvFlags::DONTWAIT);
            let Ok((filled, _, Some(peer))) = received else { return };
            let Ok(peer) = SocketAddr::try_from(peer) else { continue };
            let Some(flow) = self.flow(index, peer, now) else { continue };
            let _ = rustix::net::send(&flow.socket, &buffer[..filled], SendFlags::DONTWAIT);
        }
    }

    fn flow(&mut self, listener: usize, peer: SocketAddr, now: Instant) -> Option<&Flow> {
        if let Some(index) = self.by_peer.get(&(listener, peer)).copied() {
            let flow = self.flows.get_mut(index)?.as_mut()?;
            flow.seen = now;
            return Some(flow);
        }
        if self.by_peer.len() >= MAX_FLOWS {
            let oldest =
                self.flows.iter().enumerate().filter_map(|(index, flow)| Some((flow.as_ref()?.seen, index))).min();
            self.forget(oldest?.1);
        }
        let socket = connect(self.listeners.get(listener)?.target, SocketType::DGRAM).ok()?;
        let slot = match self.flows.iter().position(Option::is_none) {
            Some(slot) => slot,
            None => {
                self.flows.push(None);
                self.flows.len() - 1
            }
        };
        let data = epoll::EventData::new_u64(token(FLOW, slot, 0));
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN).ok()?;
        self.by_peer.insert((listener, peer), slot);
        Some(self.flows[slot].insert(Flow { listener, peer, socket, seen: now }))
    }

    fn answers(&mut self, index: usize, now: Instant) {
        let Some(Some(flow)) = self.flows.get_mut(index) else { return };
        flow.seen = now;
        let mut buffer = vec![0; DATAGRAM];
        for _ in 0..BURST {
            // An error here says that the container's port is closed; the next datagram tries again.
            let Ok((filled, _)) = rustix::net::recv(&flow.socket, &mut buffer[..], RecvFlags::DONTWAIT) else { return };
            if let Some(listener) = self.listeners.get(flow.listener) {
                let _ = rustix::net::sendto(listener, &buffer[..filled], SendFlags::DONTWAIT, &flow.peer);
            }
        }
    }

    fn forget(&mut self, index: usize) {
        if let Some(flow) = self.flows.get_mut(index).and_then(Option::take) {
            self.by_peer.remove(&(flow.listener, flow.peer));
        }
    }
}
