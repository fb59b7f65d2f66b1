//! The process that looks after one container: one loop, no threads, no locks.
//!
//! It is forked from `hull run` or `hull start`, makes and starts the container ([`crate::launch`]), and then owns its
//! terminal or pipes, its log, its exit status and its restarts until it has ended for good. Clients come and go over
//! `STATE/attach/ID` ([`protocol`]); killing one changes nothing for the container.
//!
//! What starting a container needs of memory is not needed to watch it. When nothing has happened for a while the
//! process replaces itself by a fresh image of the same program ([`lean`]): process ID, children and descriptors stay,
//! the heap goes. `SIGUSR1` makes it look again at what commands have asked for (`ROOT/containers/ID/stopping`).

pub(crate) mod client;
mod health;
mod lean;
pub mod protocol;
mod restart;
pub(crate) mod socket;
mod watch;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hull_fs::lock::Lock;
use hull_image::snapshot::Lower;
use hull_runtime::Running;
use hull_runtime::state::Record;
use serde::{Deserialize, Serialize};

use crate::config::{NamespaceChoice, RestartPolicy};
use crate::error::Error;
use crate::events;
use crate::launch::{Request, Started};
use crate::logs::Log;
use crate::network::Reach;
use crate::records::{Container, Engine, Intent, Phase, Removed, State, Stopping, now};

pub use lean::{NAME, resume};

use client::Client;
use watch::{Happened, Output, Program};

/// What the monitor knows of its container without reading a record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) id: String,
    pub(crate) tty: bool,
    /// The program's input ends with that of the client that gives it.
    pub(crate) stdin_once: bool,
    pub(crate) restart: RestartPolicy,
    /// Restarts since the last start by hand.
    pub(crate) restarts: u32,
    /// Nanoseconds since 1970.
    pub(crate) started: u64,
}

impl Facts {
    pub(crate) fn new(container: &Container) -> Self {
        let config = &container.config;
        Self {
            id: container.id.clone(),
            tty: config.tty,
            stdin_once: config.interactive && !config.detach,
            restart: config.restart,
            restarts: 0,
            started: 0,
        }
    }
}

/// The monitor's own state.
#[derive(Debug)]
pub(crate) struct Monitor<'e> {
    engine: &'e Engine,
    facts: Facts,
    signals: OwnedFd,
    listener: OwnedFd,
    clients: Vec<Client>,
    log: Log,
    intent: Intent,
    /// The image's layers, lent to other starts while this process lives.
    lower: Option<Lower>,
    /// What keeps its networks going.
    reach: Reach,
    /// Mends the firewall when somebody has emptied it.
    firewall: Option<hull_network::Watch>,
    /// Of the program that runs, if it is asked for.
    health: Option<health::Watched>,
    /// It runs from a fresh image.
    lean: bool,
    /// Nothing has happened since memory was given back.
    rested: bool,
    /// The runtime could not remove all that was the container's: the intent tells the next command.
    remains: bool,
    /// What is left of the container when it is gone.
    removed: Option<Removed>,
    /// What the runtime has of it goes when nobody waits any more.
    quiet: bool,
}

/// Our ends of a program's streams, before it runs.
#[derive(Debug)]
pub(crate) enum Ends {
    /// The socket that the terminal's master side comes over.
    Terminal(OwnedFd),
    /// Read ends of output and error output, write end of input.
    Pipes(OwnedFd, OwnedFd, Option<OwnedFd>),
}

impl Ends {
    fn outputs(self) -> Result<(Vec<Output>, Option<OwnedFd>), Error> {
        let output = |source, stream| Output { source, stream, open: true };
        match self {
            Self::Terminal(socket) => {
                let master = crate::terminal::receive(&socket).map_err(Error::io("receive", "terminal"))?;
                nonblocking(&master)?;
                Ok((vec![output(master, protocol::STDOUT)], None))
            }
            Self::Pipes(out, err, input) => {
                for ours in [Some(&out), Some(&err), input.as_ref()].into_iter().flatten() {
                    nonblocking(ours)?;
                }
                Ok((vec![output(out, protocol::STDOUT), output(err, protocol::STDERR)], input))
            }
        }
    }
}

fn nonblocking(fd: &OwnedFd) -> Result<(), Error> {
    let flags = rustix::fs::fcntl_getfl(fd).map_err(Error::io("read flags of", "stream"))?;
    rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK).map_err(Error::io("set flags of", "stream"))
}

/// The whole life of a monitor, in a process that was forked for it. The first client hears how the start went and is
/// attached with what it wants; the others are from the moment that the program runs. The container's lock is released
/// when it has started, or has not and nothing is left of the try.
pub(crate) fn main(
    engine: &Engine,
    request: Request,
    (client, wants): (OwnedFd, u8),
    others: Vec<(OwnedFd, u8)>,
    lock: Option<Lock>,
) {
    let _ = rustix::process::setsid();
    let mut first = Client::new(
        client,
        client::Facts { greeted: true, wants, feeds: wants & protocol::WANTS_STDIN != 0, first: true },
    );
    let id = request.id().to_owned();
    let begun = (|| {
        let signals = hull_sys::signal::redirect().map_err(Error::io("redirect", "signals"))?;
        let intent = engine.intend(&id, request.work())?;
        // After the intent: whoever sees neither has met a container that has ended.
        engine.clear_stopping(&id)?;
        if request.is_tied() && !engine.is_tied(&id) {
            // Its command was killed, and has been cleaned up after.
            intent.clear()?;
            return Err(Error::Start { message: "nobody waits for it".to_owned(), code: 125, no_image: false });
        }
        Ok((signals, intent))
    })();
    let (signals, intent) = match begun {
        Ok(begun) => begun,
        Err(error) => return failed(&mut first, &error),
    };
    // Before the program: whoever sees it run can attach.
    let started = socket::listen(engine, &id).and_then(|listener| {
        let mut warn = |line: &str| first.give(protocol::WARNING, line.as_bytes());
        Ok((engine.launch(request, &mut warn)?, listener))
    });
    let (started, listener) = match started {
        Ok(started) => started,
        Err(error) => {
            // Before the client hears of it: the next command must not meet what is left.
            socket::remove(engine, &id);
            // What could not be undone is the next command's, which finds the intent of a process that is gone.
            if !engine.has_remains(&id) {
                let _ = intent.clear();
            }
            return failed(&mut first, &error);
        }
    };
    drop(lock);
    let Started { container, state, running, ends, reach, lower } = started;
    let facts = Facts { started: state.started, ..Facts::new(&container) };
    let log = Log::open(&engine.directory(&id), &container);
    if wants != 0 {
        events::emit(engine, &container, "attach", &[]);
    }
    let health = health::Watched::begin(engine, &container);
    let mut monitor = Monitor {
        engine,
        facts,
        signals,
        listener,
        clients: vec![first],
        log,
        intent,
        lower,
        firewall: firewall(engine, &container),
        reach,
        health,
        lean: false,
        rested: false,
        remains: false,
        removed: None,
        quiet: false,
    };
    drop(container);
    match monitor.program(running, ends) {
        Ok(program) => {
            let pid = u32::try_from(program.pid).unwrap_or(0);
            monitor.clients[0].give(protocol::STARTED, &pid.to_be_bytes());
            if wants == 0 {
                // It only wanted to know.
                monitor.dismiss();
            }
            for (socket, wants) in others {
                let feeds = wants & protocol::WANTS_STDIN != 0;
                monitor.clients.push(Client::new(socket, client::Facts { greeted: true, wants, feeds, first: false }));
            }
            monitor.live(program);
        }
        Err(error) => {
            if let Some(client) = monitor.clients.first_mut() {
                failed(client, &error);
            }
        }
    }
}

/// Whether a container that is removed at its end may be gone for its clients before the runtime has removed what is left:
/// no process of it runs any more, and nobody but the kernel knows of the rest. Otherwise its own processes could still
/// write to its volumes, or its hooks have something to say.
fn goes_quietly(container: &Container) -> bool {
    let config = &container.config;
    config.runtime.is_none() && config.cdi.is_empty() && config.namespaces.pid == NamespaceChoice::Private
}

/// Whoever has networks looks after the firewall. That it cannot changes nothing for the container.
fn firewall(engine: &Engine, container: &Container) -> Option<hull_network::Watch> {
    let networked = crate::network::has_networks(&container.config);
    networked.then(|| hull_network::Watch::open(&engine.networks()).ok()).flatten()
}

/// Tells whoever waits in [`crate::attach::await_start`] how something was started.
pub(crate) fn tell_start(socket: OwnedFd, started: Result<(), &Error>) {
    let facts = client::Facts { greeted: true, first: true, ..client::Facts::default() };
    let mut client = Client::new(socket, facts);
    match started {
        Ok(()) => client.give(protocol::STARTED, &[0; 4]),
        Err(error) => failed(&mut client, error),
    }
}

fn failed(client: &mut Client, error: &Error) {
    let mut payload = vec![error.exit_code(), u8::from(error.is_no_image())];
    let text = error.to_string();
    payload.extend(text.bytes().take(protocol::MAX_PAYLOAD - 2));
    client.give(protocol::FAILED, &payload);
}

impl Monitor<'_> {
    fn program(&mut self, running: Running, ends: Ends) -> Result<Program, Error> {
        let Running { pid, pidfd } = running;
        match self.reach.listen().and_then(|()| ends.outputs()) {
            Ok((outputs, stdin)) => {
                Ok(Program { pid, pidfd, outputs, stdin, tty: self.facts.tty, pending: Vec::new(), ending: false })
            }
            Err(error) => {
                let _ = hull_sys::signal::pidfd_send_signal(std::os::fd::AsFd::as_fd(&pidfd), 9);
                Err(error)
            }
        }
    }

    /// Until the container has ended for good.
    fn live(mut self, program: Program) {
        let networked = self.firewall.is_some();
        let mut program = Some(program);
        let mut due = None;
        loop {
            let checked = self.health.as_ref().filter(|_| program.is_some()).map(health::Watched::due);
            let happened = self.watch(program.as_mut(), checked.or(due)).unwrap_or(Happened::Ended);
            let next = match (happened, program.is_some()) {
                (Happened::Idle, _) => {
                    self.rest(program.as_ref());
                    continue;
                }
                (Happened::Ended, true) => {
                    let Some(program) = program.take() else { continue };
                    self.ended(program)
                }
                (Happened::Due, true) => {
                    self.health_due();
                    continue;
                }
                (Happened::Due, false) => match self.start_again() {
                    Ok(again) => {
                        program = Some(again);
                        due = None;
                        continue;
                    }
                    Err(error) => self.not_started(&error),
                },
                (Happened::Woken, true) => {
                    if let Some(ports) = &mut self.reach.ports
                        && let Ok(published) = self.engine.networks().ports_of(&self.facts.id)
                    {
                        ports.follow(&published);
                    }
                    if self.reach.resolver.is_none()
                        && let Some(program) = &program
                    {
                        self.reach.resolver = self.engine.late_resolver(&self.facts.id, program.pid);
                    }
                    continue;
                }
                (Happened::Woken, false) if self.engine.stopping(&self.facts.id).is_some() => {
                    self.give_up();
                    None
                }
                _ => continue,
            };
            match next {
                Some(delay) => due = Some(Instant::now() + delay),
                None => break,
            }
        }
        socket::remove(self.engine, &self.facts.id);
        // Files without a name concern nobody, and take a while. What cannot be removed is tried again by the next command,
        // which finds the intent.
        let is_removed = self.removed.take().is_none_or(|files| files.finish().is_ok());
        if self.quiet {
            self.undo();
        }
        if is_removed && !self.remains {
            // Nobody is left to tell if it is not.
            let _ = self.intent.clear();
        }
        // So do mounts, which are found to be gone by whoever looks.
        let _ = self.lower.map(Lower::release);
        // All clients are gone: nobody waits for this, nor for the disk.
        if networked {
            let _ = self.engine.networks().sweep();
        }
        self.engine.images.database().rest();
    }

    /// The program has ended: its exit code, what the kernel says about memory, and everything of it removed or
    /// recorded. Returns when it is to be started again.
    fn ended(&mut self, program: Program) -> Option<Duration> {
        let Program { pid, pidfd, .. } = program;
        let id = self.facts.id.clone();
        if let Some(health) = self.health.take() {
            health.end();
        }
        // The loop itself may have failed.
        let _ = hull_sys::signal::pidfd_send_signal(std::os::fd::AsFd::as_fd(&pidfd), 9);
        let code = Running { pid, pidfd }.wait().unwrap_or(255);
        let record = Record::load(&self.engine.oci_root(), &id);
        let oom_killed = record.is_ok_and(|record| record.cgroup.oom_kills() > 0);
        let container = self.engine.container(&id);
        if oom_killed && let Ok(container) = &container {
            events::emit(self.engine, container, "oom", &[]);
            if code == 137 {
                let limit = container.config.limits.memory.map_or_else(|| "the machine's".to_owned(), size);
                self.tell(&format!("container {} was killed: out of memory (limit {limit})", &id[..12]));
            }
        }
        // `update` may have changed it meanwhile.
        self.facts.restart = container.as_ref().map_or(self.facts.restart, |container| container.config.restart);
        let finished = now();
        let stopping = self.engine.stopping(&id);
        let ran = Duration::from_nanos(finished.saturating_sub(self.facts.started));
        let again = restart::after(self.facts.restart, code, stopping.is_some(), &mut self.facts.restarts, ran);
        let goes = again.is_none() && stopping != Some(Stopping::Restart);
        let leaving = container.as_ref().ok().filter(|container| goes && container.config.remove);
        // Before anybody hears of it, who may start it again.
        self.quiet = leaving.is_some_and(goes_quietly);
        if !self.quiet {
            self.undo();
        }
        self.firewall = None;
        self.reach = Reach::default();
        if self.engine.leave_network(&id).is_err() {
            // As on a full disk. The next command finds the intent, and tries again.
            self.remains = true;
        }
        if let Ok(container) = &container {
            let lasted = ran.as_secs().to_string();
            events::emit_surroundings(self.engine, container, false);
            events::emit(self.engine, container, "die", &[("exitCode", &code.to_string()), ("execDuration", &lasted)]);
        }
        let mut removed = None;
        let kept = self.engine.write_exit(&id, code).and_then(|()| match leaving {
            Some(container) => self.engine.unlist(&id, Some(container), true).map(|files| {
                events::emit(self.engine, container, "destroy", &[]);
                removed = Some(files);
            }),
            None => {
                let before = self.engine.saved_state(&id).unwrap_or_default();
                let state = State {
                    phase: if again.is_some() { Phase::Restarting } else { Phase::Exited },
                    pid: 0,
                    monitor: if again.is_some() { before.monitor } else { 0 },
                    exit_code: code,
                    oom_killed,
                    finished,
                    restarts: self.facts.restarts,
                    error: String::new(),
                    ..before
                };
                self.engine.save(&id, &state)
            }
        });
        if let Err(error) = kept {
            self.tell(&error.to_string());
        }
        self.farewell(code);
        self.removed = removed;
        again
    }

    /// Removes what the runtime has of the container: what still runs of it, its control groups, the runtime's record.
    fn undo(&mut self) {
        let id = self.facts.id.clone();
        self.engine.delete_foreign(&id);
        match hull_runtime::lifecycle::delete(&self.engine.oci_root(), &id, true) {
            Ok(hooks) => hooks.iter().for_each(|hook| self.tell(&hook.to_string())),
            Err(error) => self.tell(&error.to_string()),
        }
        self.remains |= self.engine.has_remains(&id);
    }

    /// All clients hear that it is over, and go.
    fn farewell(&mut self, code: i32) {
        for client in &mut self.clients {
            client.give(protocol::EXITED, &code.to_be_bytes());
        }
        self.dismiss();
    }

    fn tell(&mut self, line: &str) {
        for client in self.clients.iter_mut().filter(|client| client.facts.wants != 0) {
            client.give(protocol::WARNING, line.as_bytes());
        }
    }

    /// The restart policy's turn.
    fn start_again(&mut self) -> Result<Program, Error> {
        let container = self.engine.container(&self.facts.id)?;
        let log = Log::open(&self.engine.directory(&self.facts.id), &container);
        let restarts = self.facts.restarts;
        let started = self.engine.launch(Request::Again(Box::new(container), restarts), &mut |_| {})?;
        let Started { container, state, running, ends, reach, lower } = started;
        self.firewall = firewall(self.engine, &container);
        self.reach = reach;
        self.health = health::Watched::begin(self.engine, &container);
        self.facts.started = state.started;
        self.log = log;
        // The mounts of before are the same: whoever lends them goes on.
        let before = std::mem::replace(&mut self.lower, lower);
        let _ = before.map(Lower::release);
        self.lean = false;
        self.program(running, ends)
    }

    /// A restart failed: Docker tries again as if it had ended.
    fn not_started(&mut self, error: &Error) -> Option<Duration> {
        if matches!(error, Error::NoContainer(_)) {
            // Its directory was taken away: there is nothing to start again, for ever.
            return None;
        }
        let code = i32::from(error.exit_code());
        let stopping = self.engine.stopping(&self.facts.id).is_some();
        let again = restart::after(self.facts.restart, code, stopping, &mut self.facts.restarts, Duration::ZERO);
        let state = State {
            phase: if again.is_some() { Phase::Restarting } else { Phase::Exited },
            pid: 0,
            exit_code: code,
            error: error.to_string(),
            restarts: self.facts.restarts,
            finished: now(),
            ..self.engine.saved_state(&self.facts.id).unwrap_or_default()
        };
        let _ = self.engine.save(&self.facts.id, &state);
        again
    }

    /// Somebody stopped it while it waited for its restart.
    fn give_up(&mut self) {
        let id = &self.facts.id;
        let before = self.engine.saved_state(id).unwrap_or_default();
        let code = before.exit_code;
        let _ = self.engine.save(id, &State { phase: Phase::Exited, monitor: 0, ..before });
        self.farewell(code);
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
