//! Between a client's connection and a container's monitor: output in the client's form, input in the monitor's, and
//! nothing of either more than a little ahead of who takes it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use hull_engine::attach::Escape;
use hull_engine::monitor::protocol::{self, Frames};
use hull_engine::records::Phase;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use crate::api::Api;

/// Bytes that wait for one side before the other is not heard any more.
const MOST_UNSENT: usize = 256 << 10;

/// What is read at once.
const CHUNK: usize = 16 << 10;

/// How often it is looked for a container that somebody else has started.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// The form of what goes over a client's connection.
pub(super) trait Form: Send {
    /// Adds output, or error output, to what is sent.
    fn output(&mut self, into: &mut Vec<u8>, error: bool, bytes: &[u8]);

    /// What was received, as input; `false` when the client has said that it goes. What must be answered is added to
    /// `answer`.
    fn input(&mut self, bytes: &[u8], into: &mut Vec<u8>, answer: &mut Vec<u8>) -> bool;

    /// What is said at the end.
    fn end(&mut self, into: &mut Vec<u8>);
}

/// As it is, where the program has a terminal.
pub(super) struct Raw;

/// With a header before each piece.
pub(super) struct Multiplexed;

/// Adds a piece with its header.
pub(super) fn frame(into: &mut Vec<u8>, error: bool, bytes: &[u8]) {
    into.extend_from_slice(&[if error { 2 } else { 1 }, 0, 0, 0]);
    into.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    into.extend_from_slice(bytes);
}

impl Form for Raw {
    fn output(&mut self, into: &mut Vec<u8>, _error: bool, bytes: &[u8]) {
        into.extend_from_slice(bytes);
    }

    fn input(&mut self, bytes: &[u8], into: &mut Vec<u8>, _answer: &mut Vec<u8>) -> bool {
        into.extend_from_slice(bytes);
        true
    }

    fn end(&mut self, _into: &mut Vec<u8>) {}
}

impl Form for Multiplexed {
    fn output(&mut self, into: &mut Vec<u8>, error: bool, bytes: &[u8]) {
        frame(into, error, bytes);
    }

    fn input(&mut self, bytes: &[u8], into: &mut Vec<u8>, _answer: &mut Vec<u8>) -> bool {
        into.extend_from_slice(bytes);
        true
    }

    fn end(&mut self, _into: &mut Vec<u8>) {}
}

/// A place among those who wait for a container's start, given up when it is dropped.
pub(super) struct Place {
    pub(super) api: Arc<Api>,
    pub(super) id: String,
    pub(super) number: u64,
}

impl Place {
    /// Gives it up; `false` when a start has taken it.
    pub(super) fn leave(&self) -> bool {
        self.api.waiting.leave(&self.id, self.number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A connection to a monitor, or one that a monitor gets when its container is started.
pub(super) struct Monitor {
    pub(super) socket: OwnedFd,
    /// It waits for the start.
    pub(super) waiting: Option<Place>,
}

impl Monitor {
    /// Looks whether somebody else has started the container; `false` when there is nothing to wait for any more.
    pub(super) fn look(&mut self, api: &Api, id: &str, wants: u8) -> bool {
        let Some(place) = &self.waiting else { return true };
        match api.engine.state(id) {
            Ok(state) if state.phase == Phase::Running => {}
            Ok(_) => return true,
            Err(_) => {
                // It is gone. If it was started its monitor has said all over the socket, and else nobody will.
                let never = place.leave();
                self.waiting = None;
                return !never;
            }
        }
        if !place.leave() {
            // The start has it.
            self.waiting = None;
            return true;
        }
        match api.engine.greet(id, wants) {
            Ok(Some(socket)) => {
                *self = Self { socket, waiting: None };
                true
            }
            _ => false,
        }
    }
}

/// What a relay needs to know.
pub(super) struct Relay {
    pub(super) api: Arc<Api>,
    pub(super) id: String,
    pub(super) client: OwnedFd,
    pub(super) monitor: Monitor,
    pub(super) wants: u8,
    /// The program has a terminal, whose input does not end with a client's.
    pub(super) tty: bool,
    pub(super) keys: Vec<u8>,
    pub(super) form: Box<dyn Form>,
    /// What the client has sent already.
    pub(super) early: Vec<u8>,
}

/// How a relay has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The container, or its monitor.
    Over,
    /// The client has gone.
    Gone,
    /// The client has typed the keys that detach.
    Detached,
}

/// Sends as much as the other side takes; `false` when it has gone.
fn flush(socket: &OwnedFd, bytes: &mut Vec<u8>) -> bool {
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(length) => drop(bytes.drain(..length)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return true,
            Err(_) => return false,
        }
    }
    true
}

impl Relay {
    /// Passes on until one side ends.
    pub(super) fn run(mut self) -> End {
        let mut to_client = Vec::new();
        let end = self.pass(&mut to_client);
        // Nobody waits any more.
        self.monitor.waiting = None;
        if end != End::Gone {
            self.form.end(&mut to_client);
            let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
            while !to_client.is_empty() && flush(&self.client, &mut to_client) && !to_client.is_empty() {
                if !matches!(poll(&mut [PollFd::new(&self.client, PollFlags::OUT)], Some(&patience)), Ok(1..)) {
                    break;
                }
            }
        }
        let _ = shutdown(self.client.as_fd(), Shutdown::Both);
        if end == End::Detached
            && let Ok(container) = self.api.engine.container(&self.id)
        {
            self.api.engine.tell(&container, "detach", &[]);
        }
        end
    }

    fn pass(&mut self, to_client: &mut Vec<u8>) -> End {
        let keys = std::mem::take(&mut self.keys);
        let mut escape = Escape::new(&keys);
        let mut to_monitor = Vec::new();
        let mut frames = Frames::default();
        let mut hears = self.wants & protocol::WANTS_STDIN != 0;
        let early = std::mem::take(&mut self.early);
        if hears && !early.is_empty() && self.typed(&early, &mut to_monitor, to_client, &mut escape).is_none() {
            return End::Detached;
        }
        loop {
            let mut of_client = PollFlags::empty();
            of_client.set(PollFlags::IN, hears && to_monitor.len() < MOST_UNSENT);
            of_client.set(PollFlags::OUT, !to_client.is_empty());
            let mut of_monitor = PollFlags::empty();
            of_monitor.set(PollFlags::IN, to_client.len() < MOST_UNSENT);
            of_monitor.set(PollFlags::OUT, !to_monitor.is_empty() && self.monitor.waiting.is_none());
            let mut list = [PollFd::new(&self.client, of_client), PollFd::new(&self.monitor.socket, of_monitor)];
            let limit = self.monitor.waiting.is_some().then_some(&LOOK);
            let count = match poll(&mut list, limit) {
                Err(Errno::INTR) => continue,
                Err(_) => return End::Over,
                Ok(count) => count,
            };
            let (client, monitor) = (list[0].revents(), list[1].revents());
            if count == 0 && !self.monitor.look(&self.api, &self.id, self.wants) {
                return End::Over;
            }
            let ended = PollFlags::HUP | PollFlags::ERR;
            if client.contains(PollFlags::OUT) && !flush(&self.client, to_client) {
                return End::Gone;
            }
            if client.intersects(PollFlags::IN) {
                let mut buffer = [0; CHUNK];
                match recv(&self.client, &mut buffer, RecvFlags::DONTWAIT) {
                    Ok((0, _)) => {
                        hears = false;
                        if !self.tty {
                            protocol::put(&mut to_monitor, protocol::STDIN_END, &[]);
                        }
                    }
                    Ok((length, _)) => match self.typed(&buffer[..length], &mut to_monitor, to_client, &mut escape) {
                        Some(true) => {}
                        Some(false) => return End::Gone,
                        None => {
                            protocol::put(&mut to_monitor, protocol::DETACH, &[]);
                            flush(&self.monitor.socket, &mut to_monitor);
                            return End::Detached;
                        }
                    },
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(_) => return End::Gone,
                }
            } else if client.intersects(ended) {
                return End::Gone;
            }
            // What is said before the start is kept in the socket until the monitor has it.
            if !to_monitor.is_empty() && !flush(&self.monitor.socket, &mut to_monitor) {
                to_monitor.clear();
            }
            if monitor.intersects(PollFlags::IN | ended) {
                self.monitor.waiting = None;
                let mut buffer = [0; CHUNK];
                match recv(&self.monitor.socket, &mut buffer, RecvFlags::DONTWAIT) {
                    Ok((0, _)) => return End::Over,
                    Ok((length, _)) => frames.push(&buffer[..length]),
                    Err(Errno::INTR | Errno::AGAIN) => continue,
                    Err(_) => return End::Over,
                }
                loop {
                    match frames.next() {
                        Ok(None) => break,
                        Err(_) | Ok(Some((protocol::EXITED | protocol::FAILED, _))) => return End::Over,
                        Ok(Some((protocol::STDOUT, bytes))) => self.form.output(to_client, false, bytes),
                        Ok(Some((protocol::STDERR, bytes))) => self.form.output(to_client, true, bytes),
                        Ok(Some(_)) => {}
                    }
                }
                if !flush(&self.client, to_client) {
                    return End::Gone;
                }
            }
        }
    }

    /// Input from the client; `None` when the keys that detach are in it, `Some(false)` when it says that it goes.
    fn typed(
        &mut self,
        bytes: &[u8],
        to_monitor: &mut Vec<u8>,
        answer: &mut Vec<u8>,
        escape: &mut Escape<'_>,
    ) -> Option<bool> {
        let mut input = Vec::new();
        let stays = self.form.input(bytes, &mut input, answer);
        let (input, detach) = escape.filter(&input);
        for piece in input.chunks(protocol::MAX_PAYLOAD) {
            protocol::put(to_monitor, protocol::STDIN, piece);
        }
        (!detach).then_some(stays)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_docker_s() {
        let mut bytes = Vec::new();
        frame(&mut bytes, true, b"hi");
        assert_eq!(bytes, [2, 0, 0, 0, 0, 0, 0, 2, b'h', b'i']);
    }
}
