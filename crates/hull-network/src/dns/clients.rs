//! Clients that ask over TCP: two bytes of length before each message, several queries on one connection.
//!
//! Nothing that is to be sent is kept. An answer that does not fit into the socket's buffer at once is for a client that
//! does not read, and ends its connection.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::resolver::MAX_QUERY;
use super::slots::{Key, Slots, Timed};

/// A connection without a whole query for this long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// For the next client, the connection that has been idle longest makes room.
const MAX_CONNECTIONS: usize = 32;
/// Unanswered queries on one connection.
const MAX_WAITING: u16 = 32;
/// Holds the longest answer.
const SEND_BUFFER: usize = 96 << 10;

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    /// What has come of the next query.
    input: Vec<u8>,
    waiting: u16,
    deadline: Instant,
}

impl Timed for Connection {
    fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Clients(Slots<Connection>);

impl Clients {
    pub(super) fn new() -> Self {
        Self(Slots::new(MAX_CONNECTIONS))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.deadline()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes a new connection; `register` adds it to what is waited for.
    pub(super) fn add(&mut self, socket: OwnedFd, now: Instant, register: impl FnOnce(&OwnedFd, Key) -> bool) {
        if self.0.is_full()
            && let Some(oldest) = self.0.first()
        {
            self.0.remove(oldest);
        }
        let key = self.0.next_key();
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER);
        let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
        if register(&socket, key) {
            self.0.insert(Connection { socket, input: Vec::new(), waiting: 0, deadline: now + IDLE });
        }
    }

    /// Reads what has come. False when the connection is over.
    pub(super) fn read(&mut self, key: Key, buffer: &mut [u8]) -> bool {
        let Some(connection) = self.0.get(key) else { return true };
        match rustix::net::recv(&connection.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => false,
            Ok((length, _)) => {
                connection.input.extend_from_slice(&buffer[..length]);
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    /// The next whole query, moved into the buffer. An error ends the connection.
    pub(super) fn query(&mut self, key: Key, buffer: &mut [u8], now: Instant) -> Result<Option<usize>, ()> {
        let Some(connection) = self.0.get(key) else { return Ok(None) };
        let Some(length) = connection.input.first_chunk().map(|size| usize::from(u16::from_be_bytes(*size))) else {
            return Ok(None);
        };
        if length > MAX_QUERY || connection.waiting >= MAX_WAITING {
            return Err(());
        }
        let Some(query) = connection.input.get(2..2 + length) else { return Ok(None) };
        buffer.get_mut(..length).ok_or(())?.copy_from_slice(query);
        connection.input.drain(..2 + length);
        connection.waiting += 1;
        connection.deadline = now + IDLE;
        Ok(Some(length))
    }

    /// Sends one answer; an empty one says that there will be none.
    pub(super) fn answer(&mut self, key: Key, answer: &[u8], now: Instant) {
        let Some(connection) = self.0.get(key) else { return };
        connection.waiting = connection.waiting.saturating_sub(1);
        connection.deadline = now + IDLE;
        let Ok(length) = u16::try_from(answer.len()) else { return self.close(key) };
        if answer.is_empty() {
            return;
        }
        let length = length.to_be_bytes();
        let parts = [IoSlice::new(&length), IoSlice::new(answer)];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = rustix::net::sendmsg(&connection.socket, &parts, &mut SendAncillaryBuffer::default(), flags);
        if sent != Ok(2 + answer.len()) {
            self.close(key);
        }
    }

    /// Ends a connection, which also ends the waiting for it.
    pub(super) fn close(&mut self, key: Key) {
        self.0.remove(key);
    }

    /// Ends connections that are idle. One that waits for an answer is not.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(key) = self.0.expired(now) {
            match self.0.get(key) {
                Some(connection) if connection.waiting > 0 => connection.deadline = now + IDLE,
                _ => self.close(key),
            }
        }
    }
}
