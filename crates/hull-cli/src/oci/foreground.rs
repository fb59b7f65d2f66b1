//! The runtime while an attached program runs: forwards signals, relays the terminal, waits for the end.
//!
//! One poll loop over a pidfd, a signalfd and the terminal; no threads.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_runtime::Running;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType};
use rustix::process::{Pid, WaitId, WaitIdOptions};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::CommandError;

const SIGCHLD: i32 = 17;
const SIGWINCH: i32 = 28;
/// Writes of at most this size do not block on a pipe that polls writable.
const CHUNK: usize = 4096;

fn failed(what: &'static str) -> impl Fn(Errno) -> CommandError {
    move |errno| CommandError::new(format!("{what}: {errno}"))
}

/// The receiving end of a console socket that is ours.
#[derive(Debug)]
pub(super) struct Console(OwnedFd);

impl Console {
    /// Makes the pair; the second end is for the runtime.
    pub(super) fn new() -> Result<(Self, OwnedFd), CommandError> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(failed("create console socket"))?;
        Ok((Self(ours), theirs))
    }

    /// Takes the terminal's master side, which the runtime has sent by the time the process exists.
    pub(super) fn receive(self) -> Result<OwnedFd, CommandError> {
        let mut text = [0; CHUNK];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut text)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
            )
        })
        .map_err(failed("receive terminal"))?;
        let rights = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        rights.ok_or_else(|| CommandError::new("receive terminal: no descriptor came"))
    }
}

/// Standard input in raw mode; restored when dropped.
struct RawMode(Option<Termios>);

impl RawMode {
    fn enter() -> Self {
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(&stdin) else { return Self(None) };
        let mut raw = before.clone();
        raw.make_raw();
        match tcsetattr(&stdin, OptionalActions::Now, &raw) {
            Ok(()) => Self(Some(before)),
            Err(_) => Self(None),
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // The terminal may be gone.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Bytes on their way in both directions.
struct Relay {
    master: OwnedFd,
    input_open: bool,
    output_open: bool,
    to_program: VecDeque<u8>,
    to_user: VecDeque<u8>,
    _raw: RawMode,
}

impl Relay {
    fn new(master: OwnedFd) -> Result<Self, CommandError> {
        let flags = rustix::fs::fcntl_getfl(&master).map_err(failed("terminal flags"))?;
        rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK).map_err(failed("terminal flags"))?;
        let relay = Self {
            master,
            input_open: true,
            output_open: true,
            to_program: VecDeque::new(),
            to_user: VecDeque::new(),
            _raw: RawMode::enter(),
        };
        relay.resize();
        Ok(relay)
    }

    /// Gives the program's terminal the size of ours, if ours is one.
    fn resize(&self) {
        let stdin = std::io::stdin();
        if isatty(&stdin)
            && let Ok(size) = tcgetwinsize(&stdin)
            && (size.ws_row, size.ws_col) != (0, 0)
        {
            // The program may have closed its side.
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    fn read_user(&mut self) {
        let mut buffer = [0; CHUNK];
        match rustix::io::read(std::io::stdin(), &mut buffer) {
            Ok(0) => self.input_open = false,
            Ok(count) => self.to_program.extend(&buffer[..count]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.input_open = false,
        }
    }

    fn read_program(&mut self) {
        let mut buffer = [0; CHUNK];
        match rustix::io::read(&self.master, &mut buffer) {
            // EIO: the last holder of the other side closed it.
            Ok(0) | Err(Errno::IO) => self.output_open = false,
            Ok(count) => self.to_user.extend(&buffer[..count]),
            Err(_) => {}
        }
    }

    fn write_program(&mut self) {
        match rustix::io::write(&self.master, self.to_program.as_slices().0) {
            Ok(count) => drop(self.to_program.drain(..count)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.to_program.clear(),
        }
    }

    fn write_user(&mut self) {
        let chunk = self.to_user.as_slices().0;
        match rustix::io::write(std::io::stdout(), &chunk[..chunk.len().min(CHUNK)]) {
            Ok(count) => drop(self.to_user.drain(..count)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.to_user.clear(),
        }
    }

    /// Delivers what the program wrote before it ended.
    fn drain(&mut self) {
        loop {
            while !self.to_user.is_empty() {
                let stdout = std::io::stdout();
                if poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None) != Err(Errno::INTR) {
                    self.write_user();
                }
            }
            if !self.output_open {
                return;
            }
            self.read_program();
            if self.to_user.is_empty() {
                return;
            }
        }
    }
}

/// Waits for the program, forwarding signals and relaying `terminal`; returns its exit code.
pub(super) fn attend(running: &Running, terminal: Option<OwnedFd>) -> Result<u8, CommandError> {
    let signals = hull_sys::signal::redirect().map_err(failed("redirect signals"))?;
    let mut relay = terminal.map(Relay::new).transpose()?;
    // Children that ended before the redirection raised no signal that is seen here.
    reap_others(running.pid);
    loop {
        let ready = wait(&signals, &running.pidfd, relay.as_ref())?;
        if ready.signals {
            forward(signals.as_fd(), running, relay.as_ref())?;
        }
        if let Some(relay) = &mut relay {
            relay.step(&ready);
        }
        if ready.ended {
            break;
        }
    }
    if let Some(relay) = &mut relay {
        relay.drain();
    }
    let code = running.wait()?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

#[derive(Default)]
struct Ready {
    signals: bool,
    ended: bool,
    read_user: bool,
    write_user: bool,
    read_program: bool,
    write_program: bool,
}

impl Relay {
    fn step(&mut self, ready: &Ready) {
        if ready.write_program {
            self.write_program();
        }
        if ready.write_user {
            self.write_user();
        }
        if ready.read_program {
            self.read_program();
        }
        if ready.read_user {
            self.read_user();
        }
    }
}

fn wait(signals: &OwnedFd, pidfd: &OwnedFd, relay: Option<&Relay>) -> Result<Ready, CommandError> {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let mut files = Vec::with_capacity(5);
    files.push(PollFd::new(signals, PollFlags::IN));
    files.push(PollFd::new(pidfd, PollFlags::IN));
    if let Some(relay) = relay {
        // Reading stops while the other side has not taken what was read.
        let mut master = PollFlags::empty();
        master.set(PollFlags::IN, relay.output_open && relay.to_user.is_empty());
        master.set(PollFlags::OUT, !relay.to_program.is_empty());
        if !master.is_empty() {
            files.push(PollFd::new(&relay.master, master));
        }
        if relay.input_open && relay.to_program.is_empty() {
            files.push(PollFd::new(&stdin, PollFlags::IN));
        }
        if !relay.to_user.is_empty() {
            files.push(PollFd::new(&stdout, PollFlags::OUT));
        }
    }
    match poll(&mut files, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(failed("poll")(errno)),
    }
    let mut ready =
        Ready { signals: !files[0].revents().is_empty(), ended: !files[1].revents().is_empty(), ..Ready::default() };
    let Some(relay) = relay else { return Ok(ready) };
    for file in &files[2..] {
        let events = file.revents();
        let fault = events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        let number = std::os::fd::AsRawFd::as_raw_fd(&file.as_fd());
        if number == std::os::fd::AsRawFd::as_raw_fd(&relay.master) {
            ready.read_program =
                relay.output_open && relay.to_user.is_empty() && (events.contains(PollFlags::IN) || fault);
            ready.write_program = events.contains(PollFlags::OUT);
        } else if number == std::os::fd::AsRawFd::as_raw_fd(&stdin) {
            ready.read_user = events.contains(PollFlags::IN) || fault;
        } else {
            ready.write_user = events.contains(PollFlags::OUT) || fault;
        }
    }
    Ok(ready)
}

fn forward(signals: BorrowedFd<'_>, running: &Running, relay: Option<&Relay>) -> Result<(), CommandError> {
    while let Some(received) = hull_sys::signal::next(signals).map_err(failed("read signal"))? {
        match (received.signal, relay) {
            (SIGCHLD, _) => reap_others(running.pid),
            (SIGWINCH, Some(relay)) => relay.resize(),
            // The program may be gone, or a user namespace may forbid it: neither ends the wait.
            (signal, _) => drop(hull_sys::signal::pidfd_send_signal(running.pidfd.as_fd(), signal)),
        }
    }
    Ok(())
}

/// Reaps orphans that came to us as their subreaper, and leaves the program itself.
fn reap_others(program: i32) {
    while let Some(pid) = hull_sys::signal::ended_child() {
        let Some(other) = Pid::from_raw(pid).filter(|_| pid != program) else { return };
        if rustix::process::waitid(WaitId::Pid(other), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).is_err() {
            return;
        }
    }
}
