//! Commands on containers that exist: signals, stopping, waiting, removing.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hull_oci::Status;
use hull_runtime::lifecycle;
use hull_runtime::state::{Record, process_start_time};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::Error;
use crate::events;
use crate::launch::Options;
use crate::records::{Container, Engine, Intent, Phase, Removed, State, Stopping, Work, create_private};

const KILL: i32 = 9;

/// Docker's patience.
const GRACE: Duration = Duration::from_secs(10);

/// How long a monitor may take to clean up after its container.
pub(crate) const CLEANUP: Duration = Duration::from_secs(120);

/// How often a container that others start again and again is killed before its removal is given up.
const ATTEMPTS: u32 = 5;

fn not_running(operation: &'static str, container: &Container, state: &State) -> Error {
    Error::Status { operation, id: container.id.clone(), status: state.phase.as_str().to_owned() }
}

/// The state as it is about to be.
fn exited(state: State) -> State {
    State { phase: Phase::Exited, ..state }
}

/// A descriptor of a process, if it is the one that started then.
pub(crate) fn process(pid: i32, start: u64) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    (process_start_time(pid) == Some(start)).then_some(pidfd)
}

/// Waits for the end of a process; `None` waits for ever. Returns whether it has ended.
pub(crate) fn ended(process: &OwnedFd, limit: Option<Duration>) -> bool {
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

/// Asks a monitor to look again.
const SIGUSR1: i32 = 10;

/// Threads that remove files.
const REMOVERS: usize = 8;

/// A container that is removed but for its files; they stay until [`Engine::remove_files`], by whoever has this or by the
/// next command after its process.
#[derive(Debug)]
#[must_use = "the files stay until they are removed"]
pub struct Gone {
    files: Removed,
    intent: Intent,
}

/// How an attempt to remove a container went.
enum Tried {
    Gone(Gone),
    /// Somebody else has removed it.
    Missing,
    /// It was started meanwhile.
    Started,
}

impl Engine {
    /// Sends a signal to a container's program. One that usually ends a program counts as stopping it by hand.
    ///
    /// # Errors
    /// [`Error::Status`] unless it runs.
    pub fn kill(&self, container: &Container, signal: i32) -> Result<(), Error> {
        let state = self.state(&container.id)?;
        if state.phase != Phase::Running {
            return Err(not_running("kill", container, &state));
        }
        if signal == KILL || signal == container.stop_signal {
            self.set_stopping(&container.id, Stopping::Stop)?;
        }
        match self.foreign(&container.id) {
            Some(foreign) => foreign.kill(&container.id, signal)?,
            None => match lifecycle::kill(&self.oci_root(), &container.id, signal, false) {
                // It ended just now.
                Err(hull_runtime::Error::NoContainer(_)) => return Err(not_running("kill", container, &exited(state))),
                killed => killed?,
            },
        }
        events::emit(self, container, "kill", &[("signal", &signal.to_string())]);
        Ok(())
    }

    /// Asks a container to end, and after `grace` makes it. One that has ended is left alone.
    ///
    /// # Errors
    /// When it cannot be signalled or does not end.
    pub fn stop(&self, container: &Container, signal: Option<i32>, grace: Option<Duration>) -> Result<(), Error> {
        self.end(container, signal, grace, Stopping::Stop)
    }

    fn end(
        &self,
        container: &Container,
        signal: Option<i32>,
        grace: Option<Duration>,
        why: Stopping,
    ) -> Result<(), Error> {
        let state = self.state(&container.id)?;
        match state.phase {
            Phase::Created | Phase::Exited => return Ok(()),
            Phase::Restarting => {
                self.set_stopping(&container.id, why)?;
                self.wake_monitor(&state);
                return self.settle(container, &state);
            }
            Phase::Running => {}
        }
        self.set_stopping(&container.id, why)?;
        let Some(program) = process(state.pid, state.pid_start) else { return self.settle(container, &state) };
        let signal = signal.unwrap_or(container.stop_signal);
        // A runtime with a kernel of its own passes it on better than the process that stands for it.
        let passed = self.foreign(&container.id).is_some_and(|foreign| foreign.kill(&container.id, signal).is_ok());
        if !passed {
            let _ = hull_sys::signal::pidfd_send_signal(program.as_fd(), signal);
        }
        events::emit(self, container, "kill", &[("signal", &signal.to_string())]);
        if self.is_paused(&container.id) {
            // It could not take the signal otherwise.
            let _ = lifecycle::resume(&self.oci_root(), &container.id);
        }
        if !ended(&program, grace) {
            self.kill_all(container);
            events::emit(self, container, "kill", &[("signal", "9")]);
            if !ended(&program, Some(CLEANUP)) {
                return Err(not_running("stop", container, &state));
            }
        }
        self.settle(container, &state)?;
        events::emit(self, container, "stop", &[]);
        Ok(())
    }

    /// Stops a container, if it runs, and starts it.
    ///
    /// # Errors
    /// As [`Engine::stop`] and [`Engine::start`].
    pub fn restart(
        &self,
        container: &Container,
        signal: Option<i32>,
        grace: Option<Duration>,
        warn: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        self.end(container, signal, grace, Stopping::Restart)?;
        self.start(container, Options::new(warn))?;
        events::emit(self, container, "restart", &[]);
        Ok(())
    }

    /// How long `stop` waits for a container unless it is told; `None` is for ever.
    #[must_use]
    pub fn grace(&self, container: &Container) -> Option<Duration> {
        match container.config.stop_timeout {
            Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
            None => Some(GRACE),
        }
    }

    /// Asks a monitor to look again at what was asked for.
    pub(crate) fn wake_monitor(&self, state: &State) {
        if let Some(monitor) = process(state.monitor, state.monitor_start) {
            let _ = hull_sys::signal::pidfd_send_signal(monitor.as_fd(), SIGUSR1);
        }
    }

    pub(crate) fn kill_all(&self, container: &Container) {
        if let Ok(record) = Record::load(&self.oci_root(), &container.id) {
            if let Ok(program) = record.pidfd() {
                let _ = hull_sys::signal::pidfd_send_signal(program.as_fd(), KILL);
            }
            let _ = record.cgroup.kill_all(KILL);
            if record.status(&self.oci_root()) == Status::Paused {
                let _ = lifecycle::resume(&self.oci_root(), &container.id);
            }
        }
    }

    /// Waits until a container's monitor has cleaned up, and cleans up itself where it has died.
    pub(crate) fn settle(&self, container: &Container, state: &State) -> Result<(), Error> {
        if let Some(monitor) = process(state.monitor, state.monitor_start)
            && !ended(&monitor, Some(CLEANUP))
        {
            let status = "waiting for its monitor".to_owned();
            return Err(Error::Status { operation: "finish", id: container.id.clone(), status });
        }
        self.repair_ended(&container.id)
    }

    /// Repairs until a container's record says that it has ended. What else cannot be undone now, as its address on a full
    /// disk, does not concern whoever waits for that.
    fn repair_ended(&self, id: &str) -> Result<(), Error> {
        let repaired = self.repair();
        match self.saved_state(id) {
            Ok(state) if matches!(state.phase, Phase::Running | Phase::Restarting) => repaired,
            _ => Ok(()),
        }
    }

    /// Suspends all processes of a container.
    ///
    /// # Errors
    /// [`Error::Status`] unless it runs.
    pub fn pause(&self, container: &Container) -> Result<(), Error> {
        let state = self.state(&container.id)?;
        if state.phase != Phase::Running {
            return Err(not_running("pause", container, &state));
        }
        if self.is_paused(&container.id) {
            let status = "paused already".to_owned();
            return Err(Error::Status { operation: "pause", id: container.id.clone(), status });
        }
        // First, so that there is no paused container without it.
        let marker = self.paused_marker(&container.id);
        create_private(&self.state_root().join("paused"))?;
        fs::write(&marker, "").map_err(Error::io("write", &marker))?;
        lifecycle::pause(&self.oci_root(), &container.id)?;
        events::emit(self, container, "pause", &[]);
        Ok(())
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// [`Error::Status`] unless it is paused.
    pub fn unpause(&self, container: &Container) -> Result<(), Error> {
        if !self.is_paused(&container.id) {
            let status = "not paused".to_owned();
            return Err(Error::Status { operation: "unpause", id: container.id.clone(), status });
        }
        lifecycle::resume(&self.oci_root(), &container.id)?;
        self.forget_pause(&container.id);
        events::emit(self, container, "unpause", &[]);
        Ok(())
    }

    fn paused_marker(&self, id: &str) -> PathBuf {
        self.state_root().join("paused").join(id)
    }

    /// For a container that runs on, or has ended.
    pub(crate) fn forget_pause(&self, id: &str) {
        // One that stays costs a look at the container.
        let _ = fs::remove_file(self.paused_marker(id));
    }

    /// [`Self::is_paused`] for lists: only a container that was paused by command is looked at.
    #[must_use]
    pub fn shows_paused(&self, id: &str) -> bool {
        self.paused_marker(id).exists() && self.is_paused(id)
    }

    /// Whether a container's processes are suspended.
    #[must_use]
    pub fn is_paused(&self, id: &str) -> bool {
        let root = self.oci_root();
        Record::load(&root, id).is_ok_and(|record| record.status(&root) == Status::Paused)
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// [`Error::NameTaken`].
    pub fn rename(&self, container: &Container, name: &str) -> Result<(), Error> {
        let _lock = self.lock(&container.id)?;
        let mut renamed = self.container(&container.id)?;
        let before = std::mem::replace(&mut renamed.name, name.to_owned());
        if before == name {
            let reason = "renaming a container with the same name as its current name";
            return Err(Error::Refused(reason.to_owned()));
        }
        self.take_name(&renamed)?;
        let saved = self.save_container(&renamed);
        // Whichever name the record does not have is free again.
        self.free_name(&container.id, if saved.is_ok() { &before } else { name });
        saved?;
        events::emit(self, &renamed, "rename", &[("oldName", &format!("/{before}"))]);
        Ok(())
    }

    /// Takes away a name under which a container knows another, from its next start on.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such link.
    pub fn unlink(&self, container: &Container, link: &str) -> Result<(), Error> {
        let _lock = self.lock(&container.id)?;
        let mut changed = self.container(&container.id)?;
        let before = changed.config.links.len();
        changed.config.links.retain(|one| one.rsplit(':').next() != Some(link));
        if changed.config.links.len() == before {
            return Err(Error::Refused(format!("container {} has no link {link}", container.name)));
        }
        self.save_container(&changed)
    }

    /// Waits for the end of a container and returns its exit code, also when it removes itself or is restarted.
    ///
    /// # Errors
    /// [`Error::NoContainer`].
    pub fn wait(&self, container: &Container) -> Result<i32, Error> {
        let path = self.directory(&container.id).join("exit");
        let mut exit = File::open(&path).map_err(|_| Error::NoContainer(container.id.clone()))?;
        let state = self.state(&container.id)?;
        if matches!(state.phase, Phase::Running | Phase::Restarting) || self.starting(&container.id) {
            if let Some(code) = self.await_exit(&container.id)? {
                return Ok(code);
            }
            if let Some(monitor) = process(state.monitor, state.monitor_start) {
                ended(&monitor, None);
            }
            self.repair_ended(&container.id)?;
        }
        let mut text = String::new();
        exit.read_to_string(&mut text).map_err(Error::io("read", &path))?;
        match text.trim().parse() {
            Ok(code) => Ok(code),
            Err(_) => Ok(self.state(&container.id)?.exit_code),
        }
    }

    /// Waits for a monitor that has said that its container has ended and is about to end itself. The caller holds the
    /// container's lock, so that nobody starts it meanwhile.
    pub(crate) fn await_monitor(&self, id: &str, state: &State) {
        if state.phase != Phase::Exited {
            return;
        }
        for (pid, start) in self.monitors(id) {
            if let Some(monitor) = process(pid, start) {
                ended(&monitor, Some(CLEANUP));
            }
        }
    }

    /// Kills a container that is going to be removed by force. Who removes many kills all of them before waiting for the
    /// first: their monitors then clean up side by side.
    pub fn condemn(&self, container: &Container) {
        // What fails here fails again in `remove`, and is told there.
        if self.state(&container.id).is_ok_and(|state| state.phase == Phase::Running)
            && self.set_stopping(&container.id, Stopping::Stop).is_ok()
        {
            self.kill_all(container);
        }
    }

    /// Removes a container and everything of it, with `volumes` also its anonymous volumes.
    ///
    /// # Errors
    /// [`Error::Status`] when it runs and `force` is not set.
    pub fn remove(&self, container: &Container, force: bool, volumes: bool) -> Result<(), Error> {
        Self::remove_files(self.remove_name(container, force, volumes)?.into_iter().collect())
    }

    /// [`Self::remove`] but for the files, which [`Self::remove_files`] removes; nothing when somebody else has removed it.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub fn remove_name(&self, container: &Container, force: bool, volumes: bool) -> Result<Option<Gone>, Error> {
        for _ in 0..ATTEMPTS {
            match self.try_remove(container, force, volumes) {
                // Its monitor was faster, because it ran with --rm.
                Err(Error::NoContainer(_)) if force => return Ok(None),
                Ok(Tried::Started) if force => self.await_started(&container.id),
                Ok(Tried::Started) => break,
                Ok(Tried::Gone(gone)) => return Ok(Some(gone)),
                Ok(Tried::Missing) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let status = "being started".to_owned();
        Err(Error::Status { operation: "remove", id: container.id.clone(), status })
    }

    /// Removes the files of containers that are gone. Several at once: most of it is waiting for the disk.
    ///
    /// # Errors
    /// The first that could not be removed; the next command tries those again.
    pub fn remove_files(mut gone: Vec<Gone>) -> Result<(), Error> {
        let finish = |Gone { files, intent }: Gone| files.finish().and_then(|()| intent.clear());
        if gone.len() < 2 {
            return gone.pop().map_or(Ok(()), finish);
        }
        let next = Mutex::new(gone);
        let share = || {
            let mut result = Ok(());
            loop {
                let one = next.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(one) = one else { return result };
                result = result.and(finish(one));
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..REMOVERS).map(|_| scope.spawn(share)).collect();
            let own = share();
            others.into_iter().fold(own, |result, other| result.and(other.join().unwrap_or(Ok(()))))
        })
    }

    /// Waits until nobody is about to start a container: it runs, or has not started.
    fn await_started(&self, id: &str) {
        let deadline = Instant::now() + CLEANUP;
        let settled = || match self.saved_state(id) {
            Ok(state) => matches!(state.phase, Phase::Running | Phase::Restarting) || !self.starting(id),
            Err(_) => true,
        };
        while !settled() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn try_remove(&self, container: &Container, force: bool, volumes: bool) -> Result<Tried, Error> {
        let state = self.state(&container.id)?;
        if matches!(state.phase, Phase::Running | Phase::Restarting) {
            if !force {
                return Err(Error::Status {
                    operation: "remove",
                    id: container.name.clone(),
                    status: if self.is_paused(&container.id) { "paused" } else { state.phase.as_str() }.to_owned(),
                });
            }
            self.set_stopping(&container.id, Stopping::Stop)?;
            let program = process(state.pid, state.pid_start);
            self.kill_all(container);
            if program.is_none() {
                self.wake_monitor(&state);
            }
            if let Some(program) = program
                && !ended(&program, Some(CLEANUP))
            {
                return Err(not_running("kill", container, &state));
            }
            self.settle(container, &state)?;
        }
        let lock = self.lock(&container.id)?;
        let state = self.state(&container.id)?;
        self.await_monitor(&container.id, &state);
        let busy = matches!(state.phase, Phase::Running | Phase::Restarting) || self.monitored(&state);
        if busy || self.starting(&container.id) {
            return Ok(Tried::Started);
        }
        let intent = self.intend(&container.id, Work::Remove)?;
        if volumes {
            self.mark_volumes(&container.id)?;
        }
        let result = self.unlist(&container.id, self.container(&container.id).ok().as_ref(), volumes);
        drop(lock);
        let tried = match result {
            Ok(files) => Tried::Gone(Gone { files, intent }),
            Err(Error::NoContainer(_)) if force => {
                intent.clear()?;
                Tried::Missing
            }
            Err(error) => {
                intent.clear()?;
                return Err(error);
            }
        };
        events::emit(self, container, "destroy", &[]);
        Ok(tried)
    }
}
