//! Looking after a container while it runs: its terminal or pipes, its log, signals, and what is to be done when it
//! ends. One loop over a few descriptors, no threads, no locks.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_cgroup::Cgroup;
use hull_image::snapshot::Lower;
use hull_runtime::Running;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::Error;
use crate::logs;
use crate::records::{Container, Engine, Phase, State, now};
use crate::terminal::{self, Raw};

const SIGCHLD: i32 = 17;
const SIGWINCH: i32 = 28;

/// Signals that concern the monitor itself and are not passed on: children, broken pipes, urgent data, terminal access.
const OWN: [i32; 5] = [SIGCHLD, 13, 23, 21, 22];

/// A container that this process started and looks after.
#[derive(Debug)]
pub struct Attached {
    pub(crate) container: Container,
    pub(crate) state: State,
    pub(crate) running: Running,
    pub(crate) cgroup: Cgroup,
    /// The image's layers, lent to other starts while this process lives.
    pub(crate) lower: Option<Lower>,
}

#[derive(Debug)]
enum Sink {
    Client,
    Log(logs::Writer),
}

#[derive(Debug)]
struct Output {
    source: OwnedFd,
    sink: Sink,
    open: bool,
}

/// The streams between a program and its client or log.
#[derive(Debug)]
pub(crate) struct Io {
    outputs: Vec<Output>,
    log: Option<File>,
    /// Whether the first output is a terminal that the client's input goes to.
    input: bool,
    resize: bool,
    /// Input that the terminal has not taken yet.
    pending: Vec<u8>,
    /// Keeps a detached program's standard input from ending.
    _held: Option<OwnedFd>,
}

pub(crate) fn null() -> Result<OwnedFd, Error> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(Error::io("open", "/dev/null"))
}

/// This process's own streams for the program; without `-i` its input is empty.
pub(crate) fn own_streams(interactive: bool) -> Result<[OwnedFd; 3], Error> {
    let copy = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(Error::io("duplicate", "stream"));
    Ok([
        if interactive { copy(rustix::stdio::stdin())? } else { null()? },
        copy(rustix::stdio::stdout())?,
        copy(rustix::stdio::stderr())?,
    ])
}

/// Our ends of a detached program's pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    out: OwnedFd,
    err: OwnedFd,
    held: Option<OwnedFd>,
}

/// The program's streams, and our ends.
pub(crate) fn pipes(interactive: bool) -> Result<([OwnedFd; 3], Pipes), Error> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::io("create", "pipe"));
    let (out, out_end) = pipe()?;
    let (err, err_end) = pipe()?;
    let (input, held) = if interactive {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        (null()?, None)
    };
    for ours in [&out, &err] {
        nonblocking(ours)?;
    }
    Ok(([input, out_end, err_end], Pipes { out, err, held }))
}

fn nonblocking(fd: &OwnedFd) -> Result<(), Error> {
    let flags = rustix::fs::fcntl_getfl(fd).map_err(Error::io("read flags of", "stream"))?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK).map_err(Error::io("set flags of", "stream"))
}

impl Io {
    /// The program has the client's streams itself.
    pub(crate) fn none() -> Self {
        Self { outputs: Vec::new(), log: None, input: false, resize: false, pending: Vec::new(), _held: None }
    }

    /// The program's terminal, connected to this process's.
    pub(crate) fn client_terminal(master: OwnedFd, interactive: bool) -> Result<Self, Error> {
        nonblocking(&master)?;
        terminal::copy_size(rustix::stdio::stdout(), &master);
        let outputs = vec![Output { source: master, sink: Sink::Client, open: true }];
        Ok(Self { outputs, input: interactive, resize: true, ..Self::none() })
    }

    /// The program's terminal, written to a log.
    pub(crate) fn logged_terminal(master: OwnedFd, log: File) -> Result<Self, Error> {
        nonblocking(&master)?;
        let outputs = vec![Output { source: master, sink: Sink::Log(logs::Writer::new("stdout")), open: true }];
        Ok(Self { outputs, log: Some(log), ..Self::none() })
    }

    /// The program's pipes, written to a log.
    pub(crate) fn logged_pipes(pipes: Pipes, log: File) -> Self {
        let output = |source, name| Output { source, sink: Sink::Log(logs::Writer::new(name)), open: true };
        let outputs = vec![output(pipes.out, "stdout"), output(pipes.err, "stderr")];
        Self { outputs, log: Some(log), _held: pipes.held, ..Self::none() }
    }

    /// Serves the streams until the program ends. With `forward`, signals that this process gets go to the program.
    pub(crate) fn attend(&mut self, running: &Running, signals: &OwnedFd, forward: bool) -> Result<(), Error> {
        let fail = Error::io::<Errno>("poll", "streams");
        let stdin = rustix::stdio::stdin();
        let raw = (self.input && std::io::stdin().is_terminal()).then(|| Raw::enter(stdin)).transpose();
        let _raw = raw.map_err(Error::io("set", "terminal"))?;
        let result = loop {
            let ready = match self.wait(running, signals) {
                Ok(ready) => ready,
                Err(Errno::INTR) => continue,
                Err(errno) => break Err(errno),
            };
            if ready.signal {
                self.signals(running, signals, forward);
            }
            for index in 0..self.outputs.len() {
                if ready.outputs & (1 << index) != 0 {
                    self.pump(index, 1);
                }
            }
            if ready.input {
                self.read_input();
            }
            if ready.writable {
                self.write_input();
            }
            if ready.ended {
                break Ok(());
            }
        };
        // What the program wrote last is still in its pipe or terminal; what writes for ever is cut off.
        for index in 0..self.outputs.len() {
            self.pump(index, 4096);
        }
        self.finish_logs();
        result.map_err(fail)
    }

    fn wait(&self, running: &Running, signals: &OwnedFd) -> Result<Ready, Errno> {
        let wanted = |output: &Output, first: bool| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, output.open);
            flags.set(PollFlags::OUT, output.open && first && !self.pending.is_empty());
            flags
        };
        let stdin = rustix::stdio::stdin();
        let reads_input = self.input && self.pending.is_empty();
        let mut list = vec![PollFd::new(signals, PollFlags::IN), PollFd::new(&running.pidfd, PollFlags::IN)];
        let mut polled = Vec::new();
        for (index, output) in self.outputs.iter().enumerate().filter(|(_, output)| output.open) {
            polled.push(index);
            list.push(PollFd::new(&output.source, wanted(output, index == 0)));
        }
        if reads_input {
            list.push(PollFd::new(&stdin, PollFlags::IN));
        }
        poll(&mut list, None)?;
        let mut ready = Ready {
            signal: !list[0].revents().is_empty(),
            ended: !list[1].revents().is_empty(),
            input: reads_input && list.last().is_some_and(|stdin| !stdin.revents().is_empty()),
            ..Ready::default()
        };
        for (position, index) in polled.into_iter().enumerate() {
            let events = list[2 + position].revents();
            if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                ready.outputs |= 1 << index;
            }
            ready.writable |= events.contains(PollFlags::OUT);
        }
        Ok(ready)
    }

    fn signals(&self, running: &Running, signals: &OwnedFd, forward: bool) {
        while let Ok(Some(received)) = hull_sys::signal::next(signals.as_fd()) {
            if received.signal == SIGWINCH {
                if let Some(output) = self.outputs.first().filter(|_| self.resize) {
                    terminal::copy_size(rustix::stdio::stdout(), &output.source);
                }
            } else if forward && !OWN.contains(&received.signal) {
                // It may have ended just now.
                let _ = hull_sys::signal::pidfd_send_signal(running.pidfd.as_fd(), received.signal);
            }
        }
    }

    /// Passes on output, at most `rounds` buffers of it.
    fn pump(&mut self, index: usize, rounds: usize) {
        let mut buffer = [0; 16 << 10];
        let output = &mut self.outputs[index];
        for _ in 0..rounds {
            if !output.open {
                return;
            }
            match rustix::io::read(&output.source, &mut buffer) {
                // A terminal whose other side is closed everywhere gives EIO.
                Ok(0) | Err(Errno::IO) => output.open = false,
                Ok(length) => match &mut output.sink {
                    Sink::Client => write_all(rustix::stdio::stdout(), &buffer[..length]),
                    // A full disk must not stop the program: its output is lost, and the log goes on when there is room.
                    Sink::Log(writer) => {
                        if let Some(log) = &mut self.log {
                            let _ = writer.add(log, &buffer[..length]);
                        }
                    }
                },
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn finish_logs(&mut self) {
        let Some(log) = &mut self.log else { return };
        for output in &mut self.outputs {
            if let Sink::Log(writer) = &mut output.sink {
                let _ = writer.finish(log);
            }
        }
        let _ = log.flush();
    }

    fn read_input(&mut self) {
        let mut buffer = [0; 4096];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => self.input = false,
            Ok(length) => {
                self.pending.extend_from_slice(&buffer[..length]);
                self.write_input();
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.input = false,
        }
    }

    fn write_input(&mut self) {
        let Some(output) = self.outputs.first().filter(|output| output.open) else {
            self.pending.clear();
            return;
        };
        match rustix::io::write(&output.source, &self.pending) {
            Ok(length) => drop(self.pending.drain(..length)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.pending.clear(),
        }
    }
}

#[derive(Default)]
struct Ready {
    signal: bool,
    ended: bool,
    input: bool,
    writable: bool,
    outputs: u32,
}

/// A client whose output is closed loses it; the program goes on.
fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&to, PollFlags::OUT)], None);
            }
            Err(_) => return,
        }
    }
}

impl Engine {
    /// After the end: the exit code, what the kernel says about memory, and everything of the container removed or
    /// recorded.
    pub(crate) fn finish(
        &self,
        attached: Attached,
        attended: Result<(), Error>,
        warn: &mut dyn FnMut(&str),
    ) -> Result<i32, Error> {
        if attended.is_err() {
            let _ = hull_sys::signal::pidfd_send_signal(attached.running.pidfd.as_fd(), 9);
        }
        let code = attached.running.wait()?;
        let Attached { container, state, cgroup, lower, .. } = attached;
        let id = container.id.as_str();
        let oom_killed = cgroup.oom_kills() > 0;
        if oom_killed && code == 137 {
            let limit = container.config.limits.memory.map_or_else(|| "the machine's".to_owned(), size);
            warn(&format!("container {} was killed: out of memory (limit {limit})", &id[..12]));
        }
        let deleted = hull_runtime::lifecycle::delete(&self.oci_root(), id, true);
        let state =
            State { phase: Phase::Exited, pid: 0, monitor: 0, exit_code: code, oom_killed, finished: now(), ..state };
        let lent = lower.map_or(Ok(()), Lower::release);
        let kept = if container.config.remove {
            if container.config.detach { self.write_exit(id, code) } else { Ok(()) }.and_then(|()| self.erase(id))
        } else {
            self.write_exit(id, code).and_then(|()| self.save(id, &state))
        };
        for hook in deleted? {
            warn(&hook.to_string());
        }
        kept?;
        lent?;
        attended.map(|()| code)
    }
}

/// `512MiB`, for messages.
#[must_use]
pub fn size(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!("{}{}", text.trim_end_matches(".0"), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        assert_eq!(size(512 << 20), "512MiB");
        assert_eq!(size(1_610_612_736), "1.5GiB");
        assert_eq!(size(10), "10B");
    }
}
