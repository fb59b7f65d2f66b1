//! Commands on containers that exist: signals, stopping, waiting, removing.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use hull_runtime::lifecycle;
use hull_runtime::state::{Record, process_start_time};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::Error;
use crate::records::{Container, Engine, Phase, State, Work};

const KILL: i32 = 9;

/// How long a monitor may take to clean up after its container.
const CLEANUP: Duration = Duration::from_secs(30);

/// The directory of live intents holds none of this container's when its start has failed and been undone.
pub(crate) fn forget_intents(engine: &Engine, id: &str) -> Result<(), Error> {
    if engine.directory(id).exists() { engine.repair() } else { Ok(()) }
}

fn not_running(operation: &'static str, container: &Container, state: &State) -> Error {
    Error::Status { operation, id: container.id.clone(), status: state.phase.as_str().to_owned() }
}

/// A descriptor of a process, if it is the one that started then.
fn process(pid: i32, start: u64) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    (process_start_time(pid) == Some(start)).then_some(pidfd)
}

/// Waits for the end of a process; `None` waits for ever. Returns whether it has ended.
fn ended(process: &OwnedFd, limit: Option<Duration>) -> bool {
    let deadline = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(process, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

impl Engine {
    /// Sends a signal to a container's program.
    ///
    /// # Errors
    /// [`Error::Status`] unless it runs.
    pub fn kill(&self, container: &Container, signal: i32) -> Result<(), Error> {
        let state = self.state(&container.id)?;
        if state.phase != Phase::Running {
            return Err(not_running("kill", container, &state));
        }
        Ok(lifecycle::kill(&self.oci_root(), &container.id, signal, false)?)
    }

    /// Asks a container to end, and after `grace` makes it. One that has ended is left alone.
    ///
    /// # Errors
    /// When it cannot be signalled or does not end.
    pub fn stop(&self, container: &Container, signal: Option<i32>, grace: Option<Duration>) -> Result<(), Error> {
        let state = self.state(&container.id)?;
        if state.phase != Phase::Running {
            return Ok(());
        }
        let Some(program) = process(state.pid, state.pid_start) else { return self.settle(container, &state) };
        let signal = signal.unwrap_or(container.stop_signal);
        let _ = hull_sys::signal::pidfd_send_signal(program.as_fd(), signal);
        if !ended(&program, grace) {
            self.kill_all(container);
            if !ended(&program, Some(CLEANUP)) {
                return Err(not_running("stop", container, &state));
            }
        }
        self.settle(container, &state)
    }

    fn kill_all(&self, container: &Container) {
        if let Ok(record) = Record::load(&self.oci_root(), &container.id) {
            if let Ok(program) = record.pidfd() {
                let _ = hull_sys::signal::pidfd_send_signal(program.as_fd(), KILL);
            }
            let _ = record.cgroup.kill_all(KILL);
        }
    }

    /// Waits until a container's monitor has cleaned up, and cleans up itself where it has died.
    fn settle(&self, container: &Container, state: &State) -> Result<(), Error> {
        if let Some(monitor) = process(state.monitor, state.monitor_start)
            && !ended(&monitor, Some(CLEANUP))
        {
            let status = "waiting for its monitor".to_owned();
            return Err(Error::Status { operation: "finish", id: container.id.clone(), status });
        }
        self.repair()
    }

    /// Waits for the end of a container and returns its exit code, also when it removes itself.
    ///
    /// # Errors
    /// [`Error::NoContainer`].
    pub fn wait(&self, container: &Container) -> Result<i32, Error> {
        let path = self.directory(&container.id).join("exit");
        let mut exit = File::open(&path).map_err(|_| Error::NoContainer(container.id.clone()))?;
        let state = self.state(&container.id)?;
        if state.phase == Phase::Running {
            if let Some(monitor) = process(state.monitor, state.monitor_start) {
                ended(&monitor, None);
            }
            self.repair()?;
        }
        let mut text = String::new();
        exit.read_to_string(&mut text).map_err(Error::io("read", &path))?;
        match text.trim().parse() {
            Ok(code) => Ok(code),
            Err(_) => Ok(self.state(&container.id)?.exit_code),
        }
    }

    /// Removes a container and everything of it.
    ///
    /// # Errors
    /// [`Error::Status`] when it runs and `force` is not set.
    pub fn remove(&self, container: &Container, force: bool) -> Result<(), Error> {
        let state = self.state(&container.id)?;
        if state.phase == Phase::Running {
            if !force {
                return Err(Error::Status {
                    operation: "remove",
                    id: container.id.clone(),
                    status: "running: stop it first, or use --force".to_owned(),
                });
            }
            let program = process(state.pid, state.pid_start);
            self.kill_all(container);
            if let Some(program) = program
                && !ended(&program, Some(CLEANUP))
            {
                return Err(not_running("kill", container, &state));
            }
            self.settle(container, &state)?;
        } else if self.monitored(&state) || (state.phase == Phase::Created && self.starting(&container.id)) {
            return Err(Error::Status {
                operation: "remove",
                id: container.id.clone(),
                status: "being started".to_owned(),
            });
        }
        let intent = self.intend(&container.id, Work::Remove)?;
        let result = match self.erase(&container.id) {
            // Its monitor removed it, because it ran with --rm.
            Err(Error::NoContainer(_)) if force => Ok(()),
            other => other,
        };
        intent.clear()?;
        result
    }
}
