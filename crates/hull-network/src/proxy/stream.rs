//! One connection that is passed on: two sockets and what is on its way between them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

/// Bytes on their way in one direction.
const BUFFER: usize = 16 << 10;
/// Reads in one step, so that one connection does not keep others waiting.
const ROUNDS: usize = 16;

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    bytes: Vec<u8>,
    sent: usize,
    /// Nothing more comes.
    ended: bool,
    /// The other side was told.
    told: bool,
}

impl Direction {
    fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }
}

/// A connection: side 0 is the peer outside, side 1 the container.
#[derive(Debug)]
pub(super) struct Stream {
    ends: [OwnedFd; 2],
    /// From side 0 to 1, and from 1 to 0.
    directions: [Direction; 2],
    connected: bool,
}

impl Stream {
    pub(super) fn new(peer: OwnedFd, container: OwnedFd) -> Self {
        Self { ends: [peer, container], directions: Default::default(), connected: false }
    }

    /// What each side is waited for.
    fn interest(&self, side: usize) -> epoll::EventFlags {
        let (from, to) = (&self.directions[side], &self.directions[1 - side]);
        let mut flags = epoll::EventFlags::empty();
        if !self.connected {
            if side == 1 {
                flags |= epoll::EventFlags::OUT;
            }
            return flags;
        }
        if !from.ended && from.is_empty() {
            flags |= epoll::EventFlags::IN;
        }
        if !to.is_empty() {
            flags |= epoll::EventFlags::OUT;
        }
        flags
    }

    pub(super) fn watch(&self, set: &OwnedFd, token: impl Fn(usize) -> u64) -> Result<(), Errno> {
        for (side, end) in self.ends.iter().enumerate() {
            epoll::add(set, end, epoll::EventData::new_u64(token(side)), self.interest(side))?;
        }
        Ok(())
    }

    pub(super) fn rewatch(&self, set: &OwnedFd, token: impl Fn(usize) -> u64) -> Result<(), Errno> {
        for (side, end) in self.ends.iter().enumerate() {
            epoll::modify(set, end, epoll::EventData::new_u64(token(side)), self.interest(side))?;
        }
        Ok(())
    }

    /// Moves what can be moved; whether the connection goes on.
    pub(super) fn step(&mut self) -> bool {
        if !self.connected {
            match rustix::net::sockopt::socket_error(self.ends[1].as_fd()) {
                Ok(Ok(())) => {}
                _ => return false,
            }
            // No error and no peer: it is not decided yet, or the peer outside went away.
            if rustix::net::getpeername(&self.ends[1]).is_err() {
                let mut byte = [0];
                let gone = rustix::net::recv(&self.ends[0], &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
                return matches!(gone, Err(Errno::AGAIN)) || gone.is_ok_and(|(filled, _)| filled > 0);
            }
            self.connected = true;
        }
        self.pump(0) && self.pump(1) && !self.directions.iter().all(|direction| direction.told)
    }

    fn pump(&mut self, side: usize) -> bool {
        for _ in 0..ROUNDS {
            let (from, to) = (&self.ends[side], &self.ends[1 - side]);
            let direction = &mut self.directions[side];
            if !direction.is_empty() {
                match rustix::net::send(
                    to,
                    &direction.bytes[direction.sent..],
                    SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
                ) {
                    Ok(sent) => direction.sent += sent,
                    Err(Errno::AGAIN | Errno::INTR) => return true,
                    Err(_) => return false,
                }
                continue;
            }
            if direction.ended {
                if !direction.told {
                    direction.told = true;
                    direction.bytes = Vec::new();
                    direction.sent = 0;
                    // A peer that is gone already has heard enough.
                    let _ = rustix::net::shutdown(to, Shutdown::Write);
                }
                return true;
            }
            direction.bytes.resize(BUFFER, 0);
            let received = rustix::net::recv(from, &mut direction.bytes[..], RecvFlags::DONTWAIT);
            direction.sent = 0;
            match received {
                Ok((0, _)) => {
                    direction.bytes = Vec::new();
                    direction.ended = true;
                }
                Ok((filled, _)) => direction.bytes.truncate(filled),
                Err(Errno::AGAIN | Errno::INTR) => {
                    direction.bytes = Vec::new();
                    return true;
                }
                Err(_) => return false,
            }
        }
        true
    }
}
