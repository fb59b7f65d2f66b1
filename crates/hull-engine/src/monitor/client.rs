//! One client of a monitor: what it wants, what it has not taken yet.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde::{Deserialize, Serialize};

use super::protocol::{self, Frames};

/// A connected client.
#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    frames: Frames,
    unsent: Vec<u8>,
    pub(super) facts: Facts,
}

/// What is known about a client.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Facts {
    /// It has said hello.
    pub(super) greeted: bool,
    /// `WANTS_...`
    pub(super) wants: u8,
    /// Its input ends the program's, unless it detaches.
    pub(super) feeds: bool,
    /// The container was started for it.
    pub(super) first: bool,
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Input(Vec<u8>),
    InputEnd,
    Resize(u16, u16),
    OutputEnd,
}

impl Client {
    pub(super) fn new(socket: OwnedFd, facts: Facts) -> Self {
        Self { socket, frames: Frames::default(), unsent: Vec::new(), facts }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether it still has to take what it was given: the program waits for those who watch it.
    pub(super) fn is_behind(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether all that it said was understood, so that it can be passed to another process image.
    pub(super) fn is_settled(&self) -> bool {
        self.unsent.is_empty() && self.frames.rest().is_empty()
    }

    pub(super) fn wants(&self, what: u8) -> bool {
        self.facts.wants & what != 0
    }

    /// Gives it a frame. What it does not take at once is kept.
    pub(super) fn give(&mut self, kind: u8, payload: &[u8]) {
        protocol::put(&mut self.unsent, kind, payload);
        // Whoever has gone is found by the next read.
        let _ = self.flush();
    }

    /// Sends what it takes; `false` means that it has gone.
    pub(super) fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match send(&self.socket, &self.unsent, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => {
                    self.unsent = Vec::new();
                    return false;
                }
            }
        }
        self.unsent = Vec::new();
        true
    }

    /// Reads what it says; `None` means that it has gone.
    pub(super) fn hear(&mut self) -> Option<Vec<Ask>> {
        let mut buffer = [0; 8 << 10];
        let mut asks = Vec::new();
        match recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return None,
            Ok((length, _)) => self.frames.push(&buffer[..length]),
            Err(Errno::INTR | Errno::AGAIN) => return Some(asks),
            Err(_) => return None,
        }
        loop {
            match self.frames.next() {
                Ok(None) => return Some(asks),
                Err(_) => return None,
                Ok(Some((kind, payload))) => match (kind, payload) {
                    (protocol::HELLO, &[wants]) if !self.facts.greeted => {
                        let feeds = wants & protocol::WANTS_STDIN != 0;
                        self.facts = Facts { greeted: true, wants, feeds, first: false };
                    }
                    _ if !self.facts.greeted => return None,
                    (protocol::STDIN, bytes) if self.facts.feeds => asks.push(Ask::Input(bytes.to_vec())),
                    (protocol::STDIN_END, _) if self.facts.feeds => {
                        self.facts.feeds = false;
                        asks.push(Ask::InputEnd);
                    }
                    (protocol::RESIZE, &[a, b, c, d]) => {
                        asks.push(Ask::Resize(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
                    }
                    (protocol::OUTPUT_END, _) => {
                        self.facts.wants &= !protocol::WANTS_STDOUT;
                        if self.facts.first {
                            asks.push(Ask::OutputEnd);
                        }
                    }
                    (protocol::DETACH, _) => self.facts.feeds = false,
                    _ => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, Client) {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        (ours, Client::new(theirs, Facts::default()))
    }

    fn say(socket: &OwnedFd, frames: &[(u8, &[u8])]) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|(kind, payload)| protocol::put(&mut bytes, *kind, payload));
        send(socket, &bytes, SendFlags::NOSIGNAL).unwrap();
    }

    #[test]
    fn whoever_does_not_greet_is_not_heard() {
        let (socket, mut client) = pair();
        say(&socket, &[(protocol::STDIN, b"x")]);
        assert_eq!(client.hear(), None);
    }

    #[test]
    fn input_is_taken_from_those_who_said_so() {
        let (socket, mut client) = pair();
        say(&socket, &[(protocol::HELLO, &[protocol::WANTS_STDOUT]), (protocol::STDIN, b"x")]);
        assert_eq!(client.hear(), Some(Vec::new()));
        let (socket, mut client) = pair();
        say(
            &socket,
            &[(protocol::HELLO, &[protocol::WANTS_STDIN]), (protocol::STDIN, b"x"), (protocol::STDIN_END, b"")],
        );
        assert_eq!(client.hear(), Some(vec![Ask::Input(b"x".to_vec()), Ask::InputEnd]));
        assert!(!client.facts.feeds);
    }

    #[test]
    fn a_client_that_takes_nothing_is_behind_until_it_goes() {
        let (socket, mut client) = pair();
        for _ in 0..40 {
            client.give(protocol::STDOUT, &[7; protocol::MAX_PAYLOAD]);
        }
        assert!(client.is_behind() && client.flush());
        drop(socket);
        assert!(!client.flush());
    }
}
