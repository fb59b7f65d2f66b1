//! `RUN`: a step is a container of Hull's, with the isolation of `hull run`.
//!
//! A build has threads, and containers are only ever made by processes without. So each step is a process of its own:
//! this program under another name ([`NAME`]), tied to the build by a socket.
//!
//! ```text
//! build                                             step
//!   order (JSON, with secrets: never on a disk) ──>
//!                                                   makes the container, or says why not (Failed)
//!             <── output, error output (two pipes, from the container itself)
//!             <── Ended: exit code
//!             <── Layer: what changed, as a tar, in pieces; End: what was normalised
//!                                                   removes everything
//!             <── Finished
//! ```
//!
//! When the socket is closed at the build's end, because the step was cancelled or the build was killed, the step kills
//! its container and removes everything. When the step itself is killed, its intent is there for the next command.

mod agent;
mod child;
pub(crate) mod emulation;
mod frame;
pub(crate) mod keys;
mod mounts;
mod order;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hull_engine::normalise::Normalised;
use hull_image::{Layer, LayerSource};
use hull_oci::Digest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::Error;
use crate::graph::RunOp;
use crate::observer::Stream;
use crate::solve::{Solver, Work};

pub use child::main;
pub use order::certificates;

use frame::{Frame, Kind};
use order::Order;

/// The name that a step's process has.
pub const NAME: &str = "hull-build-step";

/// How often it is looked whether the step was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// How long a step that was cancelled may take to remove what it made.
const CLEANUP: Duration = Duration::from_secs(20);

/// The layer of what a step changed, and what was normalised in it.
pub type Made = Option<(Layer, Vec<Normalised>)>;

/// Does a step on layers, lowest first, and returns the layer of what it changed. `mounts` are the layers of what each of
/// its mounts shows.
///
/// # Errors
/// [`Error::Process`] when the program fails; [`Error::Canceled`].
pub fn run(
    solver: &Solver<'_>,
    op: &RunOp,
    epoch: Option<i64>,
    layers: &[Digest],
    mounts: &[Vec<Digest>],
    work: Work<'_>,
) -> Result<Made, Error> {
    let order = Order::new(solver, op, epoch, layers, mounts)?;
    let mut step = Step::spawn(solver, work)?;
    let memory = order.config.limits.memory;
    let result = step.order(&order).and_then(|()| step.follow(solver, op, memory, work));
    step.end(solver, result)
}

/// A step's process.
struct Step {
    child: Child,
    socket: Option<OwnedFd>,
    output: [Option<File>; 2],
}

impl Step {
    fn spawn(solver: &Solver<'_>, work: Work<'_>) -> Result<Self, Error> {
        work.check()?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(Error::io("create", "socket"))?;
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::io("create", "pipe"));
        let ((out, out_end), (err, err_end)) = (pipe()?, pipe()?);
        for end in [&out, &err] {
            rustix::fs::fcntl_setfl(end, OFlags::NONBLOCK).map_err(Error::io("set flags of", "pipe"))?;
        }
        let child = Command::new("/proc/self/exe")
            .arg0(NAME)
            // A word by which the program is put out of its container's reach at once; see `hull_runtime::seal`.
            .arg("run")
            // For whoever looks at the list of processes.
            .arg(solver.engine.root())
            // A terminal's signals are for the build, which ends its steps in order.
            .process_group(0)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(out_end))
            .stderr(Stdio::from(err_end))
            .spawn()
            .map_err(Error::io("start", "the step's process"))?;
        Ok(Self { child, socket: Some(ours), output: [Some(out.into()), Some(err.into())] })
    }

    fn order(&mut self, order: &Order) -> Result<(), Error> {
        let bytes = serde_json::to_vec(order).map_err(|error| Error::Request(format!("the step's order: {error}")))?;
        let socket = self.socket.as_ref().ok_or(Error::Canceled)?;
        match frame::write(socket, Kind::Order, &bytes) {
            // It ended before it had read it: its error says why.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(Error::io("write to", "the step's process")),
        }
    }

    /// Until the step has ended.
    fn follow(&mut self, solver: &Solver<'_>, op: &RunOp, memory: Option<i64>, work: Work<'_>) -> Result<Made, Error> {
        let (code, out_of_memory) = loop {
            work.check()?;
            let Some(socket) = &self.socket else { return Err(Error::Canceled) };
            let mut list = vec![PollFd::new(socket, PollFlags::IN)];
            list.extend(self.output.iter().flatten().map(|file| PollFd::new(file, PollFlags::IN)));
            let timeout = Timespec::try_from(LOOK).ok();
            match poll(&mut list, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::io("wait for", "the step's process")(errno)),
            }
            let said = !list[0].revents().is_empty();
            drop(list);
            self.pass_on(work);
            if said && let Some(code) = self.hear(work)? {
                break code;
            }
        };
        // Everything that wrote is dead: what it wrote is in the pipes.
        self.pass_on(work);
        if out_of_memory {
            let limit = memory.map_or_else(|| "the machine's".to_owned(), hull_engine::monitor::size);
            work.log(Stream::Error, format!("the step was killed: out of memory (limit {limit})\n").as_bytes());
        }
        if code != 0 {
            return Err(Error::Process { command: op.args.join(" "), code });
        }
        self.layer(solver, work)
    }

    /// One frame; the exit code once that is known.
    fn hear(&mut self, work: Work<'_>) -> Result<Option<(i32, bool)>, Error> {
        let Frame { kind, payload } = self.frame()?;
        match kind {
            Kind::Warning => {
                let mut line = payload;
                line.push(b'\n');
                work.log(Stream::Error, &line);
                Ok(None)
            }
            Kind::Ended => {
                let (code, out_of_memory) = frame::ended(&payload).ok_or_else(broken)?;
                Ok(Some((code, out_of_memory)))
            }
            Kind::Failed => {
                self.pass_on(work);
                Err(Error::Request(String::from_utf8_lossy(&payload).into_owned()))
            }
            _ => Err(broken()),
        }
    }

    fn frame(&mut self) -> Result<Frame, Error> {
        let socket = self.socket.as_ref().ok_or(Error::Canceled)?;
        match frame::read(socket) {
            Ok(frame) => Ok(frame),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(Error::Request("the step's process was killed".to_owned()))
            }
            Err(error) => Err(Error::io("read from", "the step's process")(error)),
        }
    }

    /// Hands on what the container printed so far.
    fn pass_on(&mut self, work: Work<'_>) {
        let mut buffer = [0; 16 << 10];
        for (place, stream) in self.output.iter_mut().zip([Stream::Output, Stream::Error]) {
            while let Some(file) = place {
                match file.read(&mut buffer) {
                    Ok(0) => *place = None,
                    Ok(count) => work.log(stream, &buffer[..count]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(_) => *place = None,
                }
            }
        }
    }

    /// The layer as it comes.
    fn layer(&mut self, solver: &Solver<'_>, work: Work<'_>) -> Result<Made, Error> {
        let first = self.frame()?;
        match first.kind {
            Kind::End => return Ok(None),
            Kind::Layer => {}
            Kind::Failed => return Err(Error::Request(String::from_utf8_lossy(&first.payload).into_owned())),
            _ => return Err(broken()),
        }
        let socket = self.socket.as_ref().ok_or(Error::Canceled)?;
        let mut pieces =
            Pieces { socket, work, piece: first.payload, read: 0, failed: None, ended: false, notes: Vec::new() };
        let layer = solver.transfer.layer(&mut pieces, LayerSource::default());
        if let Some(reason) = pieces.failed.take() {
            return Err(reason);
        }
        let layer = layer?;
        // The archive's end need not be the stream's.
        while !pieces.ended {
            if pieces.read(&mut [0; 4096]).map_err(Error::io("read from", "the step's process"))? == 0 {
                break;
            }
        }
        // Less is recorded of what nobody understands.
        let notes = serde_json::from_slice(&pieces.notes).unwrap_or_default();
        Ok(Some((layer, notes)))
    }

    /// Waits until nothing is left of the step, whatever its result.
    fn end<T>(mut self, solver: &Solver<'_>, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_ok() {
            // What it could not remove its exit code tells; the layer is whole.
            let _ = self.frame();
        }
        self.socket = None;
        let clean = self.gone();
        if !clean {
            repair(solver);
        }
        result
    }

    /// Whether the process ended by itself, with nothing left of it.
    fn gone(&mut self) -> bool {
        let deadline = Instant::now() + CLEANUP;
        let pid = rustix::process::Pid::from_child(&self.child);
        let mut pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.success(),
                Ok(None) if Instant::now() < deadline => {}
                Ok(None) | Err(_) => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    return false;
                }
            }
            let timeout = Timespec::try_from(LOOK).ok();
            match &pidfd {
                Some(fd) => {
                    if poll(&mut [PollFd::new(fd, PollFlags::IN)], timeout.as_ref()).is_err() {
                        pidfd = None;
                    }
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.socket = None;
        self.gone();
    }
}

/// Removes what a step left whose process was killed. By a process of its own: this one has threads.
fn repair(solver: &Solver<'_>) {
    let engine = solver.engine;
    // What cannot be removed now the next command removes.
    let _ = Command::new("/proc/self/exe")
        .arg0(NAME)
        .arg("repair")
        .args([engine.root(), engine.state_root()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

fn broken() -> Error {
    Error::Request("the step's process said something that nobody understands".to_owned())
}

/// The frames of a layer as a stream.
struct Pieces<'a> {
    socket: &'a OwnedFd,
    work: Work<'a>,
    piece: Vec<u8>,
    read: usize,
    failed: Option<Error>,
    ended: bool,
    notes: Vec<u8>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.read == self.piece.len() && !self.ended {
            let canceled = |error: Error| std::io::Error::other(error.to_string());
            if let Err(error) = self.work.check() {
                self.failed = Some(Error::Canceled);
                return Err(canceled(error));
            }
            // A step that writes nothing for a while may be cancelled meanwhile.
            let timeout = Timespec::try_from(LOOK).ok();
            if poll(&mut [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)], timeout.as_ref()) == Ok(0) {
                continue;
            }
            let frame = frame::read(self.socket)?;
            match frame.kind {
                Kind::Layer => (self.piece, self.read) = (frame.payload, 0),
                Kind::End => (self.ended, self.notes) = (true, frame.payload),
                Kind::Failed => {
                    let error = Error::Request(String::from_utf8_lossy(&frame.payload).into_owned());
                    let shown = std::io::Error::other(error.to_string());
                    self.failed = Some(error);
                    return Err(shown);
                }
                _ => return Err(std::io::Error::other(broken().to_string())),
            }
        }
        let count = buffer.len().min(self.piece.len() - self.read);
        buffer[..count].copy_from_slice(&self.piece[self.read..self.read + count]);
        self.read += count;
        Ok(count)
    }
}
