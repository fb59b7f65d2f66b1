//! A program in a container for a client of the Engine API: this process has the client's connection, passes on what
//! goes to and from it, and stays until the program has ended, whatever becomes of the client and of the server.
//!
//! What the program writes goes to the client as it is where it has a terminal, and otherwise in frames: a byte that is 1
//! for output and 2 for error output, three zeros, the length as four bytes, the bytes. What the client sends is input.

use std::os::fd::{AsFd as _, OwnedFd};

use hull_oci::spec::ConsoleSize;
use hull_runtime::state::Record;
use hull_runtime::{ExecOptions, Running, Streams};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::{ExecConfig, process};
use crate::attach::{Escape, feed};
use crate::error::Error;
use crate::launch::null;
use crate::monitor::protocol::{WANTS_STDERR, WANTS_STDIN, WANTS_STDOUT};
use crate::records::{Container, Engine, Phase};
use crate::terminal;

/// Bytes of output that wait for the client before the program does.
const MOST_UNSENT: usize = 256 << 10;

/// What is read at once.
const CHUNK: usize = 16 << 10;

/// Who asked for a program.
#[derive(Debug)]
pub struct Client {
    /// The connection.
    pub socket: OwnedFd,
    /// Input that came with the request.
    pub early: Vec<u8>,
    /// Which streams, as bits of the monitor's protocol.
    pub wants: u8,
}

/// What this process tells of a program that it serves.
pub trait Served {
    /// It runs, under this process ID of the machine; its terminal has this descriptor here.
    fn started(&mut self, pid: i32, terminal: Option<&OwnedFd>);

    /// It has ended, with this exit code. The client does not know yet.
    fn ended(&mut self, code: i32);
}

/// Our ends of its streams.
#[derive(Default)]
struct Ends {
    /// Output and error output, or the terminal alone.
    outputs: [Option<OwnedFd>; 2],
    input: Option<OwnedFd>,
}

fn nonblocking(fd: &OwnedFd) -> Result<(), Error> {
    let flags = rustix::fs::fcntl_getfl(fd).map_err(Error::io("read flags of", "stream"))?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK).map_err(Error::io("set flags of", "stream"))
}

/// The program's streams and our ends of them, where it has no terminal.
fn pipes(wants: u8) -> Result<(Streams, Ends), Error> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::io("create", "pipe"));
    let mut ends = Ends::default();
    let mut theirs = [null()?, null()?, null()?];
    if wants & WANTS_STDIN != 0 {
        let (read, write) = pipe()?;
        nonblocking(&write)?;
        theirs[0] = read;
        ends.input = Some(write);
    }
    for (index, want) in [WANTS_STDOUT, WANTS_STDERR].into_iter().enumerate() {
        if wants & want != 0 {
            let (read, write) = pipe()?;
            nonblocking(&read)?;
            theirs[index + 1] = write;
            ends.outputs[index] = Some(read);
        }
    }
    Ok((Streams { stdio: Some(theirs), ..Streams::default() }, ends))
}

impl Engine {
    /// Runs a program in a running container for a client, or for nobody, until it has ended.
    ///
    /// # Errors
    /// [`Error::Status`] unless the container runs; what the program could not be started for.
    pub fn exec_for(
        &self,
        container: &Container,
        config: &ExecConfig,
        exec_id: &str,
        size: Option<(u16, u16)>,
        client: Option<Client>,
        served: &mut dyn Served,
    ) -> Result<i32, Error> {
        let state = self.state(&container.id)?;
        let refuse = |status: &str| {
            let status = status.to_owned();
            Err(Error::Status { operation: "exec in", id: container.id.clone(), status })
        };
        if state.phase != Phase::Running {
            return refuse(&format!("{}: start it first", state.phase.as_str()));
        }
        if self.is_paused(&container.id) {
            return refuse("paused: unpause it first");
        }
        if config.args.iter().chain(&config.env).any(|text| text.contains('\0')) {
            return Err(Error::flag("COMMAND", format!("a word for container {} has a null byte", container.name)));
        }
        let root = self.oci_root();
        let record = Record::load(&root, &container.id)?;
        let mut process = process(&record, &root, config)?;
        if config.tty {
            process.console_size = size.map(|(height, width)| ConsoleSize { height, width });
        }
        let wants = client.as_ref().map_or(0, |client| client.wants);
        let (streams, mut ends, mut console) = if config.tty {
            let (ours, theirs) = terminal::console_pair().map_err(Error::io("create", "console socket"))?;
            (Streams { console: Some(theirs), ..Streams::default() }, Ends::default(), Some(ours))
        } else {
            let (streams, ends) = pipes(wants)?;
            (streams, ends, None)
        };
        let running = match self.foreign(&container.id) {
            Some(foreign) => {
                let (running, other) = self.exec_foreign(&foreign, &container.id, exec_id, &process, streams)?;
                console = other.or(console);
                running
            }
            None => {
                hull_runtime::exec(&root, &container.id, &process, ExecOptions { streams, ..ExecOptions::default() })?
            }
        };
        if let Some(console) = &console {
            let master = terminal::receive(console).map_err(Error::io("receive", "terminal"))?;
            nonblocking(&master)?;
            ends.outputs[0] = Some(master);
        }
        self.note_exec(&container.id, exec_id, running.pid);
        served.started(running.pid, ends.outputs[0].as_ref().filter(|_| config.tty));
        let words = config.args.join(" ");
        let told = [("execID", exec_id)];
        self.tell(container, &format!("exec_start: {words}"), &told);
        let keys = if config.tty && wants & WANTS_STDIN != 0 { config.detach_keys.as_slice() } else { &[] };
        let mut serving = Serving::new(ends, client, config.tty);
        let detached = serving.serve(&running, &mut Escape::new(keys));
        if detached {
            self.tell(container, "exec_detach", &told);
            serving.client = None;
            serving.serve(&running, &mut Escape::new(&[]));
        }
        let code = running.wait()?;
        self.forget_exec(&container.id, exec_id);
        serving.finish();
        self.tell(container, "exec_die", &[told[0], ("exitCode", &code.to_string())]);
        served.ended(code);
        Ok(code)
    }
}

struct Serving {
    ends: Ends,
    tty: bool,
    client: Option<Client>,
    /// The client may send more.
    hears: bool,
    /// Input that the program has not taken yet.
    pending: Vec<u8>,
    /// Output that the client has not taken yet.
    unsent: Vec<u8>,
}

impl Serving {
    fn new(ends: Ends, mut client: Option<Client>, tty: bool) -> Self {
        let pending = client.as_mut().map(|client| std::mem::take(&mut client.early)).unwrap_or_default();
        let hears = client.as_ref().is_some_and(|client| client.wants & WANTS_STDIN != 0);
        let pending = if hears { pending } else { Vec::new() };
        Self { ends, tty, client, hears, pending, unsent: Vec::new() }
    }

    fn input(&self) -> Option<&OwnedFd> {
        if self.tty { self.ends.outputs[0].as_ref() } else { self.ends.input.as_ref() }
    }

    /// Until the program ends; `true` when its user has typed the keys that detach.
    fn serve(&mut self, running: &Running, escape: &mut Escape<'_>) -> bool {
        self.feed();
        loop {
            let full = !self.pending.is_empty();
            let takes = self.unsent.len() < MOST_UNSENT;
            let mut list = vec![PollFd::new(&running.pidfd, PollFlags::IN)];
            let mut places = [None; 4];
            if let Some(client) = &self.client {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, self.hears && !full);
                flags.set(PollFlags::OUT, !self.unsent.is_empty());
                places[0] = Some(list.len());
                list.push(PollFd::new(&client.socket, flags));
            }
            for (index, output) in self.ends.outputs.iter().enumerate() {
                let Some(output) = output else { continue };
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, takes);
                flags.set(PollFlags::OUT, self.tty && full);
                if !flags.is_empty() {
                    places[index + 1] = Some(list.len());
                    list.push(PollFd::new(output, flags));
                }
            }
            if let Some(input) = self.ends.input.as_ref().filter(|_| full) {
                places[3] = Some(list.len());
                list.push(PollFd::new(input, PollFlags::OUT));
            }
            if !matches!(poll(&mut list, None), Ok(_) | Err(Errno::INTR)) {
                return false;
            }
            let events: Vec<PollFlags> = list.iter().map(PollFd::revents).collect();
            let of =
                |place: Option<usize>| place.and_then(|place| events.get(place)).copied().unwrap_or(PollFlags::empty());
            let seen = places.map(of);
            let ended = !events[0].is_empty();
            for index in 0..2 {
                if seen[index + 1].intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.pump(index, 1);
                }
            }
            if seen[1].contains(PollFlags::OUT) || !seen[3].is_empty() {
                self.feed();
            }
            if seen[0].intersects(PollFlags::OUT) {
                self.send();
            }
            if seen[0].intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && self.hear(seen[0], escape) {
                return true;
            }
            if ended {
                // What it wrote last; what others write for ever is cut off.
                self.pump(0, 4096);
                self.pump(1, 4096);
                return false;
            }
        }
    }

    /// Takes output, at most `rounds` chunks of it.
    fn pump(&mut self, index: usize, rounds: usize) {
        let mut buffer = [0; CHUNK];
        for _ in 0..rounds {
            let Some(output) = &self.ends.outputs[index] else { return };
            match rustix::io::read(output, &mut buffer) {
                // A terminal whose other side is closed everywhere gives EIO.
                Ok(0) | Err(Errno::IO) => self.ends.outputs[index] = None,
                Ok(length) => self.give(index, &buffer[..length]),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn give(&mut self, index: usize, bytes: &[u8]) {
        if self.client.is_none() {
            return;
        }
        if !self.tty {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
            self.unsent.extend_from_slice(&[if index == 0 { 1 } else { 2 }, 0, 0, 0]);
            self.unsent.extend_from_slice(&length);
        }
        self.unsent.extend_from_slice(bytes);
        self.send();
    }

    fn send(&mut self) {
        while !self.unsent.is_empty() {
            let Some(client) = &self.client else { break };
            match send(&client.socket, &self.unsent, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // It has gone; the program goes on.
                Err(_) => self.gone(),
            }
        }
    }

    fn gone(&mut self) {
        self.client = None;
        self.unsent = Vec::new();
        self.end_input();
    }

    /// No more input: a pipe is closed once it has taken all, a terminal stays.
    fn end_input(&mut self) {
        self.hears = false;
        if self.pending.is_empty() {
            self.ends.input = None;
        }
    }

    /// Takes what the client sends; `true` when the keys that detach are in it.
    fn hear(&mut self, events: PollFlags, escape: &mut Escape<'_>) -> bool {
        let Some(client) = &self.client else { return false };
        if !self.hears {
            // Nothing is expected of it but that it goes.
            if events.intersects(PollFlags::HUP | PollFlags::ERR) {
                self.gone();
            }
            return false;
        }
        let mut buffer = [0; CHUNK];
        match recv(&client.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.end_input(),
            Ok((length, _)) => {
                let (input, detach) = escape.filter(&buffer[..length]);
                if self.input().is_some() {
                    self.pending.extend_from_slice(&input);
                    self.feed();
                }
                return detach;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.gone(),
        }
        false
    }

    fn feed(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        let done = feed(self.input().map(|input| input.as_fd()), &mut pending);
        self.pending = pending;
        if !done {
            return;
        }
        if !self.hears {
            self.ends.input = None;
        }
    }

    /// Gives the client what is left; one that takes nothing for ten seconds loses it.
    fn finish(&mut self) {
        let patience = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        while !self.unsent.is_empty() {
            self.send();
            let Some(client) = self.client.as_ref().filter(|_| !self.unsent.is_empty()) else { break };
            match poll(&mut [PollFd::new(&client.socket, PollFlags::OUT)], Some(&patience)) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(client) = &self.client {
            // Another process may have the connection too.
            let _ = shutdown(client.socket.as_fd(), Shutdown::Both);
        }
    }
}
