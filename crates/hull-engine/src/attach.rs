//! A client of a monitor: this process's terminal or pipes connected to a container's program.

use std::io::IsTerminal as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use hull_runtime::lifecycle;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::error::Error;
use crate::events;
use crate::launch::Outcome;
use crate::monitor::protocol::{self, Frames};
use crate::monitor::socket;
use crate::records::{Container, Engine, Phase};
use crate::terminal::Raw;

const SIGWINCH: i32 = 28;

/// Signals that concern the client itself and are not passed on: children, broken pipes, urgent data, terminal access.
pub(crate) const OWN: [i32; 5] = [17, 13, 23, 21, 22];

/// Signals that end a client which does not pass them on: hangup, interrupt, quit, termination.
const ENDING: [i32; 4] = [1, 2, 3, 15];

/// How a client is attached.
#[derive(Clone, Debug)]
pub struct Client {
    /// Streams, as bits of [`protocol`].
    pub wants: u8,
    /// The program has a terminal.
    pub tty: bool,
    /// Pass signals on to the program.
    pub sig_proxy: bool,
    /// Keys that detach; empty for none.
    pub detach_keys: Vec<u8>,
}

/// Docker's default: Control-P, Control-Q.
pub const DETACH_KEYS: [u8; 2] = [16, 17];

/// Keys as `--detach-keys` names them: letters and `ctrl-X`, separated by commas.
///
/// # Errors
/// What is not a key.
pub fn detach_keys(text: &str) -> Result<Vec<u8>, String> {
    if text.is_empty() {
        return Ok(DETACH_KEYS.to_vec());
    }
    let key = |name: &str| match name.as_bytes() {
        [one] if one.is_ascii() => Ok(*one),
        [b'c', b't', b'r', b'l', b'-', key] => match key {
            b'a'..=b'z' => Ok(key - b'a' + 1),
            b'@' => Ok(0),
            b'[' | b'\\' | b']' | b'^' | b'_' => Ok(key - b'[' + 27),
            _ => Err(format!("Unknown character: '{name}'")),
        },
        _ => Err(format!("Unknown character: '{name}'")),
    };
    text.split(',').map(key).collect()
}

/// Writes what a program has not taken yet, as far as it takes it now; says whether all is gone. What nobody reads is
/// dropped.
pub(crate) fn feed(input: Option<BorrowedFd<'_>>, pending: &mut Vec<u8>) -> bool {
    while !pending.is_empty() {
        let Some(input) = input else { break };
        match rustix::io::write(input, pending) {
            Ok(length) => drop(pending.drain(..length)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return false,
            Err(_) => break,
        }
    }
    *pending = Vec::new();
    true
}

/// Finds detach keys in what is typed.
#[derive(Debug)]
pub struct Escape<'k> {
    keys: &'k [u8],
    matched: usize,
}

impl<'k> Escape<'k> {
    /// Nothing was typed yet.
    #[must_use]
    pub fn new(keys: &'k [u8]) -> Self {
        Self { keys, matched: 0 }
    }

    /// What of `input` is the program's, and whether the keys were typed. Keys typed in part are held back.
    #[must_use]
    pub fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        if self.keys.is_empty() {
            return (input.to_vec(), false);
        }
        let mut passed = Vec::with_capacity(input.len());
        for byte in input {
            if *byte != self.keys[self.matched] {
                passed.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (passed, true);
                }
            } else {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

/// What a monitor said.
enum Said {
    Output(u8, Vec<u8>),
    Warning(String),
    Started,
    Failed(u8, bool, String),
    Exited(i32),
}

fn said(kind: u8, payload: &[u8]) -> Option<Said> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(match (kind, payload) {
        (protocol::STDOUT | protocol::STDERR, bytes) => Said::Output(kind, bytes.to_vec()),
        (protocol::WARNING, bytes) => Said::Warning(text(bytes)),
        (protocol::STARTED, _) => Said::Started,
        (protocol::FAILED, [code, no_image, message @ ..]) => Said::Failed(*code, *no_image != 0, text(message)),
        (protocol::EXITED, &[a, b, c, d]) => Said::Exited(i32::from_be_bytes([a, b, c, d])),
        _ => return None,
    })
}

fn died() -> Error {
    Error::Start { message: "the container's monitor was killed".to_owned(), code: 125, no_image: false }
}

/// Reads exactly one frame at a time, so that nothing of what follows is taken.
fn next_frame(socket: &OwnedFd) -> Result<Option<Said>, Error> {
    let fail = || Error::io::<Errno>("receive from", "monitor");
    let exact = |buffer: &mut [u8]| {
        let mut filled = 0;
        while filled < buffer.len() {
            match recv(socket, &mut buffer[filled..], RecvFlags::empty()) {
                Ok((0, _)) => return Ok(false),
                Ok((length, _)) => filled += length,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(false),
                Err(errno) => return Err(fail()(errno)),
            }
        }
        Ok(true)
    };
    let mut header = [0; protocol::HEADER];
    if !exact(&mut header)? {
        return Err(died());
    }
    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
    let mut payload = vec![0; length.min(protocol::MAX_PAYLOAD)];
    if !exact(&mut payload)? {
        return Err(died());
    }
    Ok(said(header[0], &payload))
}

/// Waits until a monitor says that its container runs.
///
/// # Errors
/// What it says instead.
pub(crate) fn await_start(socket: &OwnedFd, warn: &mut dyn FnMut(&str)) -> Result<(), Error> {
    loop {
        match next_frame(socket)? {
            Some(Said::Started) => return Ok(()),
            Some(Said::Warning(line)) => warn(&line),
            Some(Said::Failed(code, no_image, message)) => return Err(Error::Start { message, code, no_image }),
            _ => {}
        }
    }
}

impl Engine {
    /// Attaches this process's streams to a running container, until that ends or the detach keys are typed.
    ///
    /// # Errors
    /// [`Error::Status`] unless it runs.
    pub fn attach(&self, container: &Container, client: &Client, warn: &mut dyn FnMut(&str)) -> Result<Outcome, Error> {
        let state = self.state(&container.id)?;
        if state.phase != Phase::Running {
            let status = state.phase.as_str().to_owned();
            return Err(Error::Status { operation: "attach to", id: container.id.clone(), status });
        }
        let Some(socket) = self.greet(&container.id, client.wants)? else { return Err(died()) };
        events::emit(self, container, "attach", &[]);
        self.follow(&container.id, &socket, client, redirect()?, warn)
    }

    /// A connection to a container's monitor, greeted: a client of [`protocol`] that wants these streams, or none of them
    /// to hear only of the end. `None` when there is no monitor.
    ///
    /// # Errors
    /// When the monitor cannot be reached.
    pub fn greet(&self, id: &str, wants: u8) -> Result<Option<OwnedFd>, Error> {
        let Some(socket) = socket::reach(self, id)? else { return Ok(None) };
        let mut hello = Vec::new();
        protocol::put(&mut hello, protocol::HELLO, &[wants]);
        match tell(&socket, &hello) {
            Ok(()) => Ok(Some(socket)),
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(None),
            Err(errno) => Err(Error::io("send to", "monitor")(errno)),
        }
    }

    /// Waits for the end of what a monitor watches; `None` when there is no monitor.
    pub(crate) fn await_exit(&self, id: &str) -> Result<Option<i32>, Error> {
        let Some(socket) = self.greet(id, 0)? else { return Ok(None) };
        loop {
            match next_frame(&socket) {
                Ok(Some(Said::Exited(code))) => return Ok(Some(code)),
                Ok(_) => {}
                Err(Error::Start { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn follow(
        &self,
        id: &str,
        socket: &OwnedFd,
        client: &Client,
        signals: OwnedFd,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Outcome, Error> {
        let stdin = rustix::stdio::stdin();
        let feeds = client.wants & protocol::WANTS_STDIN != 0;
        let raw = (feeds && client.tty && std::io::stdin().is_terminal()).then(|| Raw::enter(stdin)).transpose();
        let raw = raw.map_err(Error::io("set", "terminal"))?;
        let mut follower =
            Follower { engine: self, id, socket, client, warn, frames: Frames::default(), reads: feeds, broken: false };
        if client.tty {
            follower.tell_size();
        }
        let keys = if client.tty && feeds { client.detach_keys.as_slice() } else { &[] };
        let ended = follower.run(&signals, &mut Escape::new(keys));
        drop(raw);
        // Signals are the process's own again.
        drop(signals);
        let _ = hull_sys::signal::unblock_all();
        match ended? {
            Some(code) => Ok(Outcome::Exited(code)),
            None => {
                if let Ok(container) = self.container(id) {
                    events::emit(self, &container, "detach", &[]);
                }
                Ok(Outcome::Detached(id.to_owned()))
            }
        }
    }
}

/// Signals as a descriptor, for [`Engine::follow`].
pub(crate) fn redirect() -> Result<OwnedFd, Error> {
    hull_sys::signal::redirect().map_err(Error::io("redirect", "signals"))
}

fn tell(socket: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

struct Follower<'a> {
    engine: &'a Engine,
    id: &'a str,
    socket: &'a OwnedFd,
    client: &'a Client,
    warn: &'a mut dyn FnMut(&str),
    frames: Frames,
    reads: bool,
    broken: bool,
}

impl Follower<'_> {
    /// Until the end of the program, whose exit code is returned, or of this client.
    fn run(&mut self, signals: &OwnedFd, escape: &mut Escape<'_>) -> Result<Option<i32>, Error> {
        let stdin = rustix::stdio::stdin();
        loop {
            let mut list = vec![PollFd::new(self.socket, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            if self.reads {
                list.push(PollFd::new(&stdin, PollFlags::IN));
            }
            match poll(&mut list, None) {
                Err(Errno::INTR) => continue,
                result => result.map_err(Error::io("poll", "streams"))?,
            };
            let ready: Vec<bool> = list.iter().map(|one| !one.revents().is_empty()).collect();
            if ready[0]
                && let Some(code) = self.hear()?
            {
                return Ok(Some(code));
            }
            if ready[1]
                && let Some(signal) = self.signals(signals)
            {
                return Ok(Some(128 + signal));
            }
            if self.reads && ready.get(2) == Some(&true) && self.read_input(escape) {
                return Ok(None);
            }
        }
    }

    fn say(&self, kind: u8, payload: &[u8]) {
        let mut bytes = Vec::with_capacity(protocol::HEADER + payload.len());
        protocol::put(&mut bytes, kind, payload);
        // A monitor that is gone is noticed by reading.
        let _ = tell(self.socket, &bytes);
    }

    fn tell_size(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdout()) {
            let [a, b] = size.ws_row.to_be_bytes();
            let [c, d] = size.ws_col.to_be_bytes();
            self.say(protocol::RESIZE, &[a, b, c, d]);
        }
    }

    fn hear(&mut self) -> Result<Option<i32>, Error> {
        let mut buffer = [0; 64 << 10];
        match recv(self.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => return Err(died()),
            Ok((length, _)) => self.frames.push(&buffer[..length]),
            Err(Errno::INTR | Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(Error::io("receive from", "monitor")(errno)),
        }
        loop {
            let said = match self.frames.next() {
                Ok(Some((kind, payload))) => said(kind, payload),
                Ok(None) => return Ok(None),
                Err(_) => return Err(died()),
            };
            match said {
                Some(Said::Output(protocol::STDERR, bytes)) => write_all(rustix::stdio::stderr(), &bytes).unwrap_or(()),
                Some(Said::Output(_, bytes)) if !self.broken && write_all(rustix::stdio::stdout(), &bytes).is_err() => {
                    self.broken = true;
                    self.say(protocol::OUTPUT_END, &[]);
                }
                Some(Said::Warning(line)) => (self.warn)(&line),
                Some(Said::Failed(code, no_image, message)) => return Err(Error::Start { message, code, no_image }),
                Some(Said::Exited(code)) => return Ok(Some(code)),
                _ => {}
            }
        }
    }

    /// Passes signals on; returns one that ends this client.
    fn signals(&mut self, signals: &OwnedFd) -> Option<i32> {
        while let Ok(Some(received)) = hull_sys::signal::next(signals.as_fd()) {
            let signal = received.signal;
            if signal == SIGWINCH {
                if self.client.tty {
                    self.tell_size();
                }
            } else if OWN.contains(&signal) {
                // For this process alone.
            } else if self.client.sig_proxy {
                // It may have ended just now.
                let _ = lifecycle::kill(&self.engine.oci_root(), self.id, signal, false);
            } else if ENDING.contains(&signal) {
                return Some(signal);
            }
        }
        None
    }

    /// Whether the detach keys were typed.
    fn read_input(&mut self, escape: &mut Escape<'_>) -> bool {
        let mut buffer = [0; 16 << 10];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => {
                self.reads = false;
                self.say(protocol::STDIN_END, &[]);
            }
            Ok(length) => {
                let (input, detach) = escape.filter(&buffer[..length]);
                if !input.is_empty() {
                    self.say(protocol::STDIN, &input);
                }
                if detach {
                    self.say(protocol::DETACH, &[]);
                    return true;
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.reads = false,
        }
        false
    }
}

/// Writes everything, waiting where the other side is slow.
pub(crate) fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&to, PollFlags::OUT)], None);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_docker_s() {
        assert_eq!(detach_keys("ctrl-p,ctrl-q"), Ok(DETACH_KEYS.to_vec()));
        assert_eq!(detach_keys("a,ctrl-@,ctrl-\\"), Ok(vec![b'a', 0, 28]));
        assert!(detach_keys("ctrl-1").is_err() && detach_keys("ab").is_err());
    }

    #[test]
    fn keys_are_found_across_reads_and_given_back() {
        let mut escape = Escape::new(&DETACH_KEYS);
        assert_eq!(escape.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(escape.filter(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(escape.filter(b"\x10\x10\x11rest"), (b"\x10".to_vec(), true));
    }
}
