//! The terminal of a program that this process itself has started in a container, and signals for it.

use std::io::IsTerminal as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_runtime::Running;
use hull_sys::clone::{CloneFlags, Cloned, clone3, exit_now};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::attach::{Escape, OWN, write_all};
use crate::error::Error;
use crate::launch::null;
use crate::terminal::{self, Raw};

const SIGWINCH: i32 = 28;

/// A program's terminal, connected to this process's; or nothing, where the program has this process's streams itself.
#[derive(Debug)]
pub(crate) struct Console {
    master: Option<OwnedFd>,
    open: bool,
    input: bool,
    /// Input that the terminal has not taken yet.
    pending: Vec<u8>,
}

/// Why serving a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attended {
    /// The program has ended.
    Ended,
    /// Its user has typed the keys that detach.
    Detached,
}

/// This process's own streams for the program; without `-i` its input is empty.
pub(crate) fn own_streams(interactive: bool, null: OwnedFd) -> Result<[OwnedFd; 3], Error> {
    let copy = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(Error::io("duplicate", "stream"));
    Ok([
        if interactive { copy(rustix::stdio::stdin())? } else { null },
        copy(rustix::stdio::stdout())?,
        copy(rustix::stdio::stderr())?,
    ])
}

impl Console {
    /// No terminal.
    pub(crate) fn none() -> Self {
        Self { master: None, open: false, input: false, pending: Vec::new() }
    }

    /// The program's terminal.
    pub(crate) fn new(master: OwnedFd, interactive: bool) -> Result<Self, Error> {
        let flags = rustix::fs::fcntl_getfl(&master).map_err(Error::io("read flags of", "terminal"))?;
        rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK).map_err(Error::io("set flags of", "terminal"))?;
        terminal::copy_size(rustix::stdio::stdout(), &master);
        Ok(Self { master: Some(master), open: true, input: interactive, pending: Vec::new() })
    }

    /// Serves until the program ends or `keys` are typed. Signals that this process gets go to the program.
    pub(crate) fn attend(&mut self, running: &Running, signals: &OwnedFd, keys: &[u8]) -> Result<Attended, Error> {
        let mut escape = Escape::new(keys);
        let stdin = rustix::stdio::stdin();
        let raw = (self.input && std::io::stdin().is_terminal()).then(|| Raw::enter(stdin)).transpose();
        let _raw = raw.map_err(Error::io("set", "terminal"))?;
        loop {
            let full = !self.pending.is_empty();
            let mut list = vec![PollFd::new(signals, PollFlags::IN), PollFd::new(&running.pidfd, PollFlags::IN)];
            let master = self.master.as_ref().filter(|_| self.open);
            if let Some(master) = master {
                list.push(PollFd::new(master, if full { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }));
            }
            let reads = self.input && !full && master.is_some();
            if reads {
                list.push(PollFd::new(&stdin, PollFlags::IN));
            }
            match poll(&mut list, None) {
                Err(Errno::INTR) => continue,
                result => result.map_err(Error::io("poll", "streams"))?,
            };
            let events: Vec<PollFlags> = list.iter().map(PollFd::revents).collect();
            if !events[0].is_empty() {
                self.signals(running, signals);
            }
            if let Some(events) = events.get(2) {
                if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.pump(1);
                }
                if events.contains(PollFlags::OUT) {
                    self.write_input();
                }
            }
            if reads && events.get(3).is_some_and(|events| !events.is_empty()) && self.read_input(&mut escape) {
                return Ok(Attended::Detached);
            }
            if !events[1].is_empty() {
                // What it wrote last; what others write for ever is cut off.
                self.pump(4096);
                return Ok(Attended::Ended);
            }
        }
    }

    fn signals(&self, running: &Running, signals: &OwnedFd) {
        while let Ok(Some(received)) = hull_sys::signal::next(signals.as_fd()) {
            if received.signal == SIGWINCH {
                if let Some(master) = &self.master {
                    terminal::copy_size(rustix::stdio::stdout(), master);
                }
            } else if !OWN.contains(&received.signal) {
                // It may have ended just now.
                let _ = hull_sys::signal::pidfd_send_signal(running.pidfd.as_fd(), received.signal);
            }
        }
    }

    /// Passes on output, at most `rounds` buffers of it.
    fn pump(&mut self, rounds: usize) {
        let mut buffer = [0; 16 << 10];
        for _ in 0..rounds {
            let Some(master) = self.master.as_ref().filter(|_| self.open) else { return };
            match rustix::io::read(master, &mut buffer) {
                // A terminal whose other side is closed everywhere gives EIO.
                Ok(0) | Err(Errno::IO) => self.open = false,
                // A client whose output is closed loses it; the program goes on.
                Ok(length) => write_all(rustix::stdio::stdout(), &buffer[..length]).unwrap_or(()),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Whether the keys that detach were typed.
    fn read_input(&mut self, escape: &mut Escape<'_>) -> bool {
        let mut buffer = [0; 4096];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(length) if length > 0 => {
                let (input, detach) = escape.filter(&buffer[..length]);
                self.pending.extend_from_slice(&input);
                self.write_input();
                return detach;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            _ => self.input = false,
        }
        false
    }

    /// Leaves a process behind that keeps the terminal open and its output flowing until the program has ended: a
    /// terminal that nobody holds any more would hang up on it.
    pub(crate) fn keep(mut self) {
        if self.master.is_none() || !matches!(clone3(CloneFlags::empty(), None), Ok(Cloned::Child)) {
            return;
        }
        let _ = rustix::process::setsid();
        if let Ok(null) = null() {
            let _ = rustix::stdio::dup2_stdin(&null);
            let _ = rustix::stdio::dup2_stdout(&null);
            let _ = rustix::stdio::dup2_stderr(&null);
        }
        while let Some(master) = self.master.as_ref().filter(|_| self.open) {
            let _ = poll(&mut [PollFd::new(master, PollFlags::IN)], None);
            self.pump(1);
        }
        exit_now(0)
    }

    fn write_input(&mut self) {
        let Some(master) = self.master.as_ref().filter(|_| self.open) else {
            self.pending.clear();
            return;
        };
        match rustix::io::write(master, &self.pending) {
            Ok(length) => drop(self.pending.drain(..length)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.pending.clear(),
        }
    }
}
