//! The process of a step: one thread, from its order to the last thing removed.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use hull_engine::step::{Step, Woken};
use hull_engine::{Engine, Error as EngineError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use super::agent::Relay;
use super::frame::{self, Frame, Kind};
use super::mounts::{self, Mounted};
use super::order::Order;
use crate::Error;

/// Between two looks whether somebody gives a socket up.
const SOON: Duration = Duration::from_millis(0);

/// The main function of a process called [`NAME`](super::NAME): returns its exit code, which is 0 when nothing is left of
/// the step.
#[must_use]
pub fn main(args: &[OsString]) -> u8 {
    if args.first().is_some_and(|word| word == "repair") {
        let paths: Vec<PathBuf> = args.iter().skip(1).map(PathBuf::from).collect();
        let [root, state] = paths.as_slice() else { return 2 };
        return u8::from(Engine::new(root.clone(), state.clone()).repair().is_err());
    }
    // Before anything is open: the container must not reach this program.
    if hull_runtime::seal().is_err() {
        return 2;
    }
    let Ok(socket) = rustix::stdio::stdin().try_clone_to_owned() else { return 2 };
    let (done, clean) = whole(&socket);
    let said = match done {
        Ok(()) => frame::write(&socket, Kind::Finished, &[]),
        Err(error) => frame::write(&socket, Kind::Failed, hull_oci::spec::one_line(&error.to_string()).as_bytes()),
    };
    // Nobody hears it when the build is gone.
    drop(said);
    u8::from(!clean)
}

/// Does the step; says too whether nothing is left of it.
fn whole(socket: &OwnedFd) -> (Result<(), Error>, bool) {
    let order = match order(socket) {
        Ok(order) => order,
        Err(error) => return (Err(error), true),
    };
    let engine = Engine::new(order.root.clone(), order.state.clone());
    let mut step = match engine.step() {
        Ok(step) => step,
        Err(error) => return (Err(error.into()), false),
    };
    let done = run(&engine, &mut step, order, socket);
    let finished = step.finish();
    let clean = finished.is_ok();
    (done, clean)
}

fn order(socket: &OwnedFd) -> Result<Order, Error> {
    let broken = |error: std::io::Error| Error::io("read", "the step's order")(error);
    let Frame { kind, payload } = frame::read(socket).map_err(broken)?;
    if kind != Kind::Order {
        return Err(broken(std::io::ErrorKind::InvalidData.into()));
    }
    serde_json::from_slice(&payload).map_err(|error| broken(error.into()))
}

/// Whether the build has closed its end.
pub(super) fn is_given_up(socket: &OwnedFd) -> bool {
    let timeout = Timespec::try_from(SOON).ok();
    let mut list = [PollFd::new(socket, PollFlags::IN)];
    // The build says nothing after the order.
    poll(&mut list, timeout.as_ref()).is_ok_and(|count| count > 0)
}

fn run(engine: &Engine, step: &mut Step<'_>, order: Order, socket: &OwnedFd) -> Result<(), Error> {
    let check = || if is_given_up(socket) { Err(Error::Canceled) } else { Ok(()) };
    let Mounted { mounts, relays, held } = mounts::prepare(engine, step, &order.mounts, &check)?;
    let mut relay = Relay::new(relays);
    let mut warnings = Vec::new();
    let started = step.start(order.config, &order.layers, mounts, stdio()?, &mut |line| warnings.push(line.to_owned()));
    // The pipes are closed when the container has closed them.
    silence()?;
    let say = |kind: Kind, payload: &[u8]| frame::write(socket, kind, payload).map_err(|_| Error::Canceled);
    for warning in warnings {
        say(Kind::Warning, warning.as_bytes())?;
    }
    let (code, out_of_memory) = match started {
        Ok(()) => loop {
            let mut watched: Vec<BorrowedFd<'_>> = vec![socket.as_fd()];
            watched.extend(relay.watched());
            match step.watch(&watched)? {
                Woken::Ended { code, out_of_memory } => break (code, out_of_memory),
                Woken::Ready(0) => return Err(Error::Canceled),
                Woken::Ready(place) => relay.on_ready(place - 1),
            }
        },
        // As a shell says that a program cannot be run.
        Err(error) => match exit_code(&error) {
            Some(code) => {
                say(Kind::Warning, hull_oci::spec::one_line(&error.to_string()).as_bytes())?;
                (code, false)
            }
            None => return Err(error.into()),
        },
    };
    drop(relay);
    say(Kind::Ended, &frame::end(code, out_of_memory))?;
    if code == 0 {
        let pieces = || -> Result<Box<dyn std::io::Write>, EngineError> {
            Ok(Box::new(frame::Pieces::new(socket).map_err(EngineError::io("duplicate", "socket"))?))
        };
        let written = step.write_layer(order.epoch, order.seed.as_deref(), pieces)?;
        let notes = written.map(|(_, notes)| notes).filter(|notes| !notes.is_empty());
        let notes = notes.and_then(|notes| serde_json::to_vec(&notes).ok());
        say(Kind::End, &notes.unwrap_or_default())?;
    }
    // The directories are free once the container is gone.
    drop(held);
    Ok(())
}

/// The program is missing, or cannot be executed.
fn exit_code(error: &EngineError) -> Option<i32> {
    let code = i32::from(error.exit_code());
    matches!(code, 126 | 127).then_some(code)
}

fn null() -> Result<OwnedFd, Error> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(Error::io("open", "/dev/null"))
}

/// What the container gets: no input, and the pipes.
fn stdio() -> Result<[OwnedFd; 3], Error> {
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(Error::io("duplicate", "pipe"));
    Ok([null()?, copy(rustix::stdio::stdout())?, copy(rustix::stdio::stderr())?])
}

fn silence() -> Result<(), Error> {
    let null = null()?;
    rustix::stdio::dup2_stdout(&null).map_err(Error::io("redirect", "standard output"))?;
    rustix::stdio::dup2_stderr(&null).map_err(Error::io("redirect", "standard error"))
}
