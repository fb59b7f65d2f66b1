//! The monitor's one loop: output to the log and to clients, input to the program, clients that come and go, the end.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use hull_network::dns::Resolver;
use hull_network::{Proxy, Watch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::termios::Winsize;

use super::Monitor;
use super::client::{Ask, Client, Facts};
use super::protocol;
use crate::attach::feed;

/// After so long without anything to do, memory is given back.
const IDLE: Duration = Duration::from_secs(1);

/// Clients at a time; more are turned away.
const MAX_CLIENTS: usize = 64;

/// What is read at once.
const CHUNK: usize = 16 << 10;

const SIGUSR1: i32 = 10;

/// Our end of one of the program's outputs.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) source: OwnedFd,
    /// `STDOUT` or `STDERR` of the protocol.
    pub(super) stream: u8,
    pub(super) open: bool,
}

/// The program, and our ends of its streams.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) outputs: Vec<Output>,
    /// Write end of its input; a terminal's input goes to the only output.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) tty: bool,
    /// Input that it has not taken yet.
    pub(super) pending: Vec<u8>,
    /// Its input ends with `pending`.
    pub(super) ending: bool,
}

/// Why the loop returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// The program has ended.
    Ended,
    /// Nothing happened for a while.
    Idle,
    /// The given time has come.
    Due,
    /// Somebody asks to look again.
    Woken,
}

impl Output {
    /// The program finds nobody at the other end.
    fn close(&mut self) {
        self.open = false;
        if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            self.source = null;
        }
    }
}

impl Program {
    fn input(&self) -> Option<&OwnedFd> {
        if self.tty { self.outputs.first().filter(|one| one.open).map(|one| &one.source) } else { self.stdin.as_ref() }
    }

    fn write_input(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        let done = feed(self.input().map(|input| input.as_fd()), &mut pending);
        self.pending = pending;
        if !done {
            return;
        }
        self.pending = Vec::new();
        if self.ending {
            self.ending = false;
            if self.tty {
                // What a terminal's user would type: end of file.
                if let Some(input) = self.input() {
                    let _ = rustix::io::write(input, &[4]);
                }
            } else {
                self.stdin = None;
            }
        }
    }
}

#[derive(Default)]
struct Ready {
    query: bool,
    port: bool,
    firewall: bool,
    signal: bool,
    ended: bool,
    knock: bool,
    writable: bool,
    outputs: u32,
    clients: u64,
    takers: u64,
}

impl Monitor<'_> {
    /// Serves until something happens that the caller decides on.
    pub(super) fn watch(&mut self, mut program: Option<&mut Program>, due: Option<Instant>) -> Result<Happened, Errno> {
        let mut rested = self.rested;
        loop {
            if due.is_some_and(|due| due <= Instant::now()) {
                return Ok(Happened::Due);
            }
            let idle = (!rested).then(|| Instant::now() + IDLE);
            let until = [idle, due, self.network_deadline()].into_iter().flatten().min();
            let ready = match self.wait(program.as_deref(), until, rested) {
                Ok(ready) => ready,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            self.serve_network(ready.as_ref());
            let Some(ready) = ready else {
                if due.is_some_and(|due| due <= Instant::now()) {
                    return Ok(Happened::Due);
                }
                if idle.is_some_and(|idle| idle <= Instant::now()) {
                    self.rested = true;
                    return Ok(Happened::Idle);
                }
                continue;
            };
            rested = false;
            self.rested = false;
            if let Some(program) = program.as_deref_mut() {
                for index in 0..program.outputs.len() {
                    if ready.outputs & (1 << index) != 0 {
                        self.pump(program, index, 1);
                    }
                }
                if ready.writable {
                    program.write_input();
                }
            }
            self.serve(&ready, program.as_deref_mut());
            self.log.tend();
            self.health_tend(program.as_deref());
            if ready.ended {
                if let Some(program) = program {
                    // What it wrote last is still in its pipe or terminal; what others write for ever is cut off.
                    for index in 0..program.outputs.len() {
                        self.pump(program, index, 4096);
                    }
                }
                self.log.finish();
                return Ok(Happened::Ended);
            }
            if ready.signal && self.take_signals() {
                return Ok(Happened::Woken);
            }
        }
    }

    fn wait(&self, program: Option<&Program>, until: Option<Instant>, rested: bool) -> Result<Option<Ready>, Errno> {
        let behind = self.clients.iter().any(|client| client.is_behind() && client.wants(!protocol::WANTS_STDIN));
        let full = program.is_some_and(|program| !program.pending.is_empty());
        let mut list = Vec::with_capacity(5 + self.clients.len());
        list.push(PollFd::new(&self.signals, PollFlags::IN));
        list.push(PollFd::new(&self.listener, PollFlags::IN));
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, !full || !client.facts.feeds);
            flags.set(PollFlags::OUT, client.is_behind());
            list.push(PollFd::from_borrowed_fd(client.socket(), flags));
        }
        let network_at = list.len();
        if let Some(resolver) = &self.reach.resolver {
            list.push(PollFd::from_borrowed_fd(resolver.fd(), PollFlags::IN));
        }
        if let Some(ports) = &self.reach.ports {
            list.push(PollFd::from_borrowed_fd(ports.as_fd(), PollFlags::IN));
        }
        if let Some(firewall) = &self.firewall {
            list.push(PollFd::from_borrowed_fd(firewall.as_fd(), PollFlags::IN));
        }
        let program_at = list.len();
        if let Some(program) = program {
            list.push(PollFd::new(&program.pidfd, PollFlags::IN));
            for (index, output) in program.outputs.iter().enumerate() {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, output.open && !behind);
                flags.set(PollFlags::OUT, output.open && index == 0 && program.tty && full);
                if flags.is_empty() {
                    // A closed one would report its end again and again.
                    list.push(PollFd::new(&self.listener, PollFlags::empty()));
                } else {
                    list.push(PollFd::new(&output.source, flags));
                }
            }
            if let Some(stdin) = program.stdin.as_ref().filter(|_| full) {
                list.push(PollFd::new(stdin, PollFlags::OUT));
            }
        }
        // Last: nobody looks at what these say but those whose they are.
        list.extend(
            self.health.iter().flat_map(|health| health.descriptors()).map(|fd| PollFd::new(fd, PollFlags::IN)),
        );
        if let Some(socket) = self.log.behind() {
            list.push(PollFd::from_borrowed_fd(socket, PollFlags::OUT));
        }
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let wait = if rested { hull_sys::memory::poll_at_rest } else { poll };
        if wait(&mut list, timeout.as_ref())? == 0 {
            return Ok(None);
        }
        let mut ready =
            Ready { signal: !list[0].revents().is_empty(), knock: !list[1].revents().is_empty(), ..Ready::default() };
        let mut network = list[network_at..program_at].iter().map(|poll| !poll.revents().is_empty());
        ready.query = self.reach.resolver.is_some() && network.next() == Some(true);
        ready.port = self.reach.ports.is_some() && network.next() == Some(true);
        ready.firewall = self.firewall.is_some() && network.next() == Some(true);
        for (index, poll) in list[2..network_at].iter().enumerate() {
            let events = poll.revents();
            if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                ready.clients |= 1 << index;
            }
            if events.contains(PollFlags::OUT) {
                ready.takers |= 1 << index;
            }
        }
        if let Some(program) = program {
            ready.ended = !list[program_at].revents().is_empty();
            let outputs = &list[program_at + 1..];
            for (index, poll) in outputs.iter().enumerate() {
                let events = poll.revents();
                if index < program.outputs.len() && events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    ready.outputs |= 1 << index;
                }
                ready.writable |=
                    events.contains(PollFlags::OUT) || (index >= program.outputs.len() && !events.is_empty());
            }
        }
        Ok(Some(ready))
    }

    fn network_deadline(&self) -> Option<Instant> {
        let resolver = self.reach.resolver.as_ref().and_then(Resolver::deadline);
        let firewall = self.firewall.as_ref().and_then(Watch::deadline);
        let ports = self.reach.ports.as_ref().and_then(Proxy::deadline);
        [resolver, firewall, ports].into_iter().flatten().min()
    }

    /// Names, ports and the firewall. Nobody is left to tell what fails there; `hull network doctor` finds it.
    fn serve_network(&mut self, ready: Option<&Ready>) {
        let now = Instant::now();
        if let Some(resolver) = &mut self.reach.resolver
            && (ready.is_some_and(|ready| ready.query) || resolver.deadline().is_some_and(|deadline| deadline <= now))
        {
            resolver.on_ready(now);
        }
        if let Some(ports) = &mut self.reach.ports
            && (ready.is_some_and(|ready| ready.port) || ports.deadline().is_some_and(|deadline| deadline <= now))
        {
            let _ = ports.on_ready(now);
        }
        if let Some(firewall) = &mut self.firewall {
            if ready.is_some_and(|ready| ready.firewall) {
                let _ = firewall.on_ready(now);
            }
            if firewall.deadline().is_some_and(|deadline| deadline <= now) {
                let _ = firewall.on_deadline();
            }
        }
    }

    /// Passes on output, at most `rounds` chunks of it.
    fn pump(&mut self, program: &mut Program, index: usize, rounds: usize) {
        let mut buffer = [0; CHUNK];
        let output = &mut program.outputs[index];
        for _ in 0..rounds {
            if !output.open {
                return;
            }
            match rustix::io::read(&output.source, &mut buffer) {
                // A terminal whose other side is closed everywhere gives EIO.
                Ok(0) | Err(Errno::IO) => output.open = false,
                Ok(length) => self.pass(output.stream, &buffer[..length]),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn pass(&mut self, stream: u8, bytes: &[u8]) {
        // A full disk must not stop the program: its output is lost, and the log goes on when there is room.
        self.log.add(stream, bytes);
        let wants = if stream == protocol::STDERR { protocol::WANTS_STDERR } else { protocol::WANTS_STDOUT };
        for client in self.clients.iter_mut().filter(|client| client.wants(wants)) {
            client.give(stream, bytes);
        }
    }

    fn serve(&mut self, ready: &Ready, mut program: Option<&mut Program>) {
        let mut gone = Vec::new();
        for index in 0..self.clients.len() {
            if ready.takers & (1 << index) != 0 && !self.clients[index].flush() {
                gone.push(index);
                continue;
            }
            if ready.clients & (1 << index) == 0 {
                continue;
            }
            let Some(asks) = self.clients[index].hear() else {
                gone.push(index);
                continue;
            };
            let Some(program) = program.as_deref_mut() else { continue };
            for ask in asks {
                match ask {
                    Ask::Input(bytes) => program.pending.extend_from_slice(&bytes),
                    Ask::InputEnd => program.ending |= self.facts.stdin_once,
                    Ask::Resize(rows, columns) if program.tty => {
                        resize(program, rows, columns);
                        if let Ok(container) = self.engine.container(&self.facts.id) {
                            let size = [("height", rows.to_string()), ("width", columns.to_string())];
                            let size = size.each_ref().map(|(name, value)| (*name, value.as_str()));
                            crate::events::emit(self.engine, &container, "resize", &size);
                        }
                    }
                    Ask::Resize(..) => {}
                    Ask::OutputEnd => {
                        if let Some(output) = program.outputs.iter_mut().find(|one| one.stream == protocol::STDOUT) {
                            output.close();
                        }
                    }
                }
            }
            program.write_input();
        }
        for index in gone.into_iter().rev() {
            let client = self.clients.remove(index);
            if client.facts.feeds
                && self.facts.stdin_once
                && !self.facts.tty
                && let Some(program) = program.as_deref_mut()
            {
                program.ending = true;
                program.write_input();
            }
        }
        if ready.knock
            && let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
            && self.clients.len() < MAX_CLIENTS
        {
            self.clients.push(Client::new(socket, Facts::default()));
        }
    }

    /// Whether somebody asked to look again. Other signals mean nothing to a monitor.
    fn take_signals(&self) -> bool {
        let mut woken = false;
        while let Ok(Some(received)) = hull_sys::signal::next(self.signals.as_fd()) {
            woken |= received.signal == SIGUSR1;
        }
        woken
    }

    /// Gives what clients have not taken yet a last chance, and lets them go.
    pub(super) fn dismiss(&mut self) {
        let until = Instant::now() + IDLE;
        while self.clients.iter().any(Client::is_behind) && Instant::now() < until {
            let mut list: Vec<_> = self
                .clients
                .iter()
                .filter(|client| client.is_behind())
                .map(|client| PollFd::from_borrowed_fd(client.socket(), PollFlags::OUT))
                .collect();
            let timeout = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
            let _ = poll(&mut list, timeout.as_ref());
            self.clients.retain_mut(Client::flush);
        }
        self.clients.clear();
    }
}

fn resize(program: &Program, rows: u16, columns: u16) {
    if let Some(terminal) = program.input() {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let _ = rustix::termios::tcsetwinsize(terminal, size);
    }
}
