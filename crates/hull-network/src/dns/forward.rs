//! Queries that others answer. Each goes out from a socket of its own, so that the kernel chooses a new port for it,
//! under an identifier of its own: who cannot see a query cannot answer it. A server gets 4 seconds; then, or when it
//! says that it cannot or will not answer, the next one is asked.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketType};
use rustix::rand::{GetRandomFlags, getrandom};

use super::answer::Transport;
use super::netns::Namespaces;
use super::slots::{Key, Slots, Timed};
use super::upstream::{Server, Upstreams};
use super::wire::{self, Query};

/// How long one server may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// More queries are not in flight at once.
const MAX_EXCHANGES: usize = 1024;
/// More of them do not use TCP, whose answers are kept until they are whole.
const MAX_STREAMS: usize = 64;
/// Bytes that all queries and partial answers may take together.
const MAX_HELD: usize = 256 << 10;
/// Datagrams that one wake-up looks at on one socket.
const BURST: usize = 16;

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// Address, and the longest answer that it takes.
    Udp(SocketAddrV4, usize),
    Tcp(Key),
}

/// What the sockets need.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) epoll: OwnedFd,
    pub(super) namespaces: Namespaces,
}

/// The end of an exchange.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) client: Client,
    /// The client's identifier for it.
    pub(super) id: u16,
    pub(super) question_end: usize,
    pub(super) answer: Answer,
}

/// What a server said.
#[derive(Debug)]
pub(super) enum Answer {
    /// So many bytes of the caller's buffer.
    Datagram(usize),
    /// With the length before it.
    Stream(Vec<u8>),
    /// Nothing: the query, to be refused.
    None(Box<[u8]>),
}

#[derive(Debug)]
struct Exchange {
    client: Client,
    id: u16,
    query: Box<[u8]>,
    question_end: usize,
    servers: Rc<[Server]>,
    /// Servers that were tried, the present one among them.
    tried: usize,
    /// None between two servers only.
    socket: Option<OwnedFd>,
    /// The answer so far, and whether the query is sent.
    stream: Option<(Vec<u8>, bool)>,
    deadline: Instant,
}

impl Timed for Exchange {
    fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Exchange {
    fn held(&self) -> usize {
        self.query.len() + self.stream.as_ref().map_or(0, |(answer, _)| answer.capacity())
    }

    fn server(&self) -> Option<Server> {
        self.servers.get(self.tried.checked_sub(1)?).copied()
    }

    /// Asks the next server that can be reached at all. False when there is none.
    fn attempt(&mut self, ground: &Ground, data: u64, now: Instant) -> bool {
        if let Some(old) = self.socket.take() {
            let _ = epoll::delete(&ground.epoll, &old);
        }
        while let Some(server) = self.servers.get(self.tried).copied() {
            self.tried += 1;
            if let Ok(socket) = self.ask(ground, server, data) {
                self.socket = Some(socket);
                self.deadline = now + PATIENCE;
                return true;
            }
        }
        false
    }

    fn ask(&mut self, ground: &Ground, server: Server, data: u64) -> Result<OwnedFd, Errno> {
        let mut id = [0; 2];
        getrandom(&mut id, GetRandomFlags::empty())?;
        wire::set_id(&mut self.query, u16::from_be_bytes(id));
        let kind = if self.stream.is_some() { SocketType::STREAM } else { SocketType::DGRAM };
        let socket = ground.namespaces.socket(server.place, server.address, kind)?;
        match rustix::net::connect(&socket, &server.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno),
        }
        let flags = if let Some(stream) = &mut self.stream {
            *stream = (Vec::new(), false);
            EventFlags::OUT
        } else {
            rustix::net::send(&socket, &self.query, SendFlags::NOSIGNAL)?;
            EventFlags::IN
        };
        epoll::add(&ground.epoll, &socket, EventData::new_u64(data), flags)?;
        Ok(socket)
    }
}

/// What to do with an exchange after looking at its socket.
enum Step {
    Wait,
    /// This server does not help.
    Next,
    Answered(usize),
    AnsweredStream,
    /// Too much is held already.
    GiveUp,
}

/// All queries in flight.
#[derive(Debug)]
pub(super) struct Forwards {
    exchanges: Slots<Exchange>,
    held: usize,
    streams: usize,
}

impl Forwards {
    /// Takes at most half of the descriptors that this process may have.
    pub(super) fn new() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let max = limit.map_or(MAX_EXCHANGES, |limit| usize::try_from(limit / 2).unwrap_or(usize::MAX));
        Self { exchanges: Slots::new(max.min(MAX_EXCHANGES)), held: 0, streams: 0 }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.exchanges.deadline()
    }

    #[cfg(test)]
    pub(super) fn load(&self) -> (usize, usize) {
        (self.exchanges.len(), self.held)
    }

    /// Sends a query out. False when that cannot be done now.
    #[expect(clippy::too_many_arguments, reason = "each is one fact about the query")]
    pub(super) fn start(
        &mut self,
        ground: &Ground,
        query: &Query,
        packet: &[u8],
        client: Client,
        transport: Transport,
        servers: Rc<[Server]>,
        now: Instant,
        data: fn(Key) -> u64,
    ) -> bool {
        let stream = transport == Transport::Tcp;
        if self.exchanges.is_full() || self.held + packet.len() > MAX_HELD || (stream && self.streams >= MAX_STREAMS) {
            return false;
        }
        let mut exchange = Exchange {
            client,
            id: query.id,
            query: query.forwarded(packet, 0),
            question_end: query.question_end,
            servers,
            tried: 0,
            socket: None,
            stream: stream.then(|| (Vec::new(), false)),
            deadline: now,
        };
        if !exchange.attempt(ground, data(self.exchanges.next_key()), now) {
            return false;
        }
        self.held += exchange.held();
        self.streams += usize::from(stream);
        self.exchanges.insert(exchange).is_some()
    }

    /// Looks at an exchange's socket. The buffer gets a datagram.
    pub(super) fn ready(
        &mut self,
        ground: &Ground,
        key: Key,
        data: u64,
        upstreams: &mut Upstreams,
        now: Instant,
        buffer: &mut [u8],
    ) -> Option<Done> {
        let exchange = self.exchanges.get(key)?;
        let before = exchange.held();
        let room = MAX_HELD.saturating_sub(self.held);
        let step = match exchange.stream {
            Some(_) => exchange.stream_ready(ground, data, room, buffer),
            None => exchange.datagram_ready(buffer),
        };
        self.held = self.held - before + exchange.held();
        if let (Step::Answered(_) | Step::AnsweredStream, Some(server)) = (&step, exchange.server()) {
            upstreams.trust(server);
        }
        match step {
            Step::Wait => None,
            Step::Answered(length) => self.end(ground, key, |_| Answer::Datagram(length)),
            Step::AnsweredStream => self.end(ground, key, |exchange| {
                Answer::Stream(exchange.stream.take().map(|(answer, _)| answer).unwrap_or_default())
            }),
            Step::Next => self.next(ground, key, data, now),
            Step::GiveUp => self.end(ground, key, |exchange| Answer::None(std::mem::take(&mut exchange.query))),
        }
    }

    /// An exchange whose server took too long goes to the next one; those that have none end.
    pub(super) fn expire(
        &mut self,
        ground: &Ground,
        data: fn(Key) -> u64,
        upstreams: &mut Upstreams,
        now: Instant,
    ) -> Option<Done> {
        while let Some(key) = self.exchanges.expired(now) {
            if let Some(server) = self.exchanges.get(key).and_then(|exchange| exchange.server()) {
                upstreams.distrust(server, now);
            }
            let done = self.next(ground, key, data(key), now);
            if done.is_some() {
                return done;
            }
        }
        None
    }

    fn next(&mut self, ground: &Ground, key: Key, data: u64, now: Instant) -> Option<Done> {
        let exchange = self.exchanges.get(key)?;
        let before = exchange.held();
        let going = exchange.attempt(ground, data, now);
        self.held = self.held - before + exchange.held();
        let deadline = exchange.deadline;
        if going {
            self.exchanges.note(deadline);
            return None;
        }
        self.end(ground, key, |exchange| Answer::None(std::mem::take(&mut exchange.query)))
    }

    fn end(&mut self, ground: &Ground, key: Key, answer: impl FnOnce(&mut Exchange) -> Answer) -> Option<Done> {
        let mut exchange = self.exchanges.remove(key)?;
        self.held -= exchange.held();
        self.streams -= usize::from(exchange.stream.is_some());
        if let Some(socket) = exchange.socket.take() {
            let _ = epoll::delete(&ground.epoll, &socket);
        }
        let answer = answer(&mut exchange);
        let Exchange { client, id, question_end, .. } = exchange;
        Some(Done { client, id, question_end, answer })
    }
}

/// Whether another server may know better.
fn is_unhelpful(answer: &[u8]) -> bool {
    // SERVFAIL, NOTIMP, REFUSED.
    matches!(wire::rcode(answer), 2 | 4 | 5)
}

impl Exchange {
    fn is_last(&self) -> bool {
        self.tried >= self.servers.len()
    }

    fn datagram_ready(&self, buffer: &mut [u8]) -> Step {
        let Some(socket) = &self.socket else { return Step::Next };
        for _ in 0..BURST {
            let room = buffer.len();
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let (length, whole) = match rustix::net::recv(socket, &mut *buffer, flags) {
                Ok((length, whole)) => (length.min(room), whole),
                Err(Errno::AGAIN) => return Step::Wait,
                Err(Errno::INTR) => continue,
                // Such as: nobody listens there.
                Err(_) => return Step::Next,
            };
            let answer = &mut buffer[..length];
            // What does not answer this query may be forged: it changes nothing.
            if !wire::answers(answer, &self.query, self.question_end) {
                continue;
            }
            if is_unhelpful(answer) && !self.is_last() {
                return Step::Next;
            }
            if whole > room {
                return Step::Answered(wire::truncate(answer, self.question_end).len());
            }
            return Step::Answered(length);
        }
        Step::Wait
    }

    fn stream_ready(&mut self, ground: &Ground, data: u64, room: usize, buffer: &mut [u8]) -> Step {
        let (Some(socket), Some((answer, sent))) = (&self.socket, &mut self.stream) else { return Step::Next };
        if !*sent {
            let Ok(length) = u16::try_from(self.query.len()) else { return Step::GiveUp };
            let framed = [&length.to_be_bytes()[..], &self.query].concat();
            // A new connection takes a few hundred bytes at once or is broken.
            if rustix::net::send(socket, &framed, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) != Ok(framed.len())
                || epoll::modify(&ground.epoll, socket, EventData::new_u64(data), EventFlags::IN).is_err()
            {
                return Step::Next;
            }
            *sent = true;
            return Step::Wait;
        }
        let length = match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Step::Next,
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Step::Wait,
            Err(_) => return Step::Next,
        };
        if length > room {
            return Step::GiveUp;
        }
        answer.reserve_exact(length);
        answer.extend_from_slice(&buffer[..length]);
        let Some(announced) = answer.first_chunk().map(|size| 2 + usize::from(u16::from_be_bytes(*size))) else {
            return Step::Wait;
        };
        if answer.len() < announced {
            return Step::Wait;
        }
        answer.truncate(announced);
        let good = wire::answers(&answer[2..], &self.query, self.question_end);
        let unhelpful = is_unhelpful(&answer[2..]);
        if !good || (unhelpful && !self.is_last()) { Step::Next } else { Step::AnsweredStream }
    }
}
