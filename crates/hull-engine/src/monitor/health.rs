//! When a container is checked, and what follows from it. Times are those of the monotonic clock.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use hull_sys::signal::pidfd_send_signal;
use rustix::pipe::PipeFlags;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};

use super::Monitor;
use super::watch::Program;
use crate::config::Unhealthy;
use crate::error::Error;
use crate::health::{Checked, MAX_OUTPUT, Plan, Status, go, stamp};
use crate::records::{Container, Engine, now};
use crate::{events, own};

/// How long a check may take beyond its time until nothing more is expected of it.
const BEYOND: Duration = Duration::from_secs(10);

/// The health of a program that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    plan: Plan,
    action: Unhealthy,
    status: Status,
    started: Instant,
    next: Instant,
    check: Option<Check>,
}

/// A check that runs.
#[derive(Debug)]
struct Check {
    pidfd: OwnedFd,
    output: Option<OwnedFd>,
    text: Vec<u8>,
    cut: bool,
    began: Instant,
    start: u64,
}

/// What another image of the monitor has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    plan: Plan,
    action: Unhealthy,
    status: Status,
    /// Since the start, and until the next check; nanoseconds.
    age: u64,
    wait: u64,
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Watched {
    /// The health of a program that was started just now; `None` when nobody asks.
    pub(super) fn begin(engine: &Engine, container: &Container) -> Option<Self> {
        let plan = Plan::of(container.config.health.as_ref())?;
        let _ = engine.save_health(&container.id, &crate::health::Health::default());
        let started = Instant::now();
        let action = container.config.on_unhealthy;
        let mut watched = Self { plan, action, status: Status::Starting, started, next: started, check: None };
        watched.next = started + watched.interval();
        Some(watched)
    }

    pub(super) fn keep(&self) -> Kept {
        Kept {
            plan: self.plan.clone(),
            action: self.action,
            status: self.status,
            age: nanoseconds(self.started.elapsed()),
            wait: nanoseconds(self.next.saturating_duration_since(Instant::now())),
        }
    }

    pub(super) fn resume(kept: Kept) -> Self {
        let Kept { plan, action, status, age, wait } = kept;
        let now = Instant::now();
        let started = now.checked_sub(Duration::from_nanos(age)).unwrap_or(now);
        Self { plan, action, status, started, next: now + Duration::from_nanos(wait), check: None }
    }

    fn in_start_period(&self) -> bool {
        self.started.elapsed() < Duration::from_nanos(self.plan.start_period)
    }

    fn interval(&self) -> Duration {
        let starting = self.status == Status::Starting && self.in_start_period();
        Duration::from_nanos(if starting { self.plan.start_interval } else { self.plan.interval })
    }

    /// When there is something to do, if nothing happens before.
    pub(super) fn due(&self) -> Instant {
        match &self.check {
            Some(check) => check.began + Duration::from_nanos(self.plan.timeout) + BEYOND,
            None => self.next,
        }
    }

    /// What the loop waits for while a check runs.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = &OwnedFd> {
        let check = self.check.iter();
        check.flat_map(|check| [Some(&check.pidfd), check.output.as_ref()]).flatten()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.check.is_none()
    }

    /// Kills a check whose container has ended.
    pub(super) fn end(self) {
        if let Some(check) = self.check {
            let _ = pidfd_send_signal(check.pidfd.as_fd(), 9);
            let _ = waitid(WaitId::PidFd(check.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}

impl Check {
    /// Takes what was printed; the rest of what is too long is read and forgotten.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(output) = &self.output {
            match rustix::io::read(output, &mut buffer) {
                Ok(0) => self.output = None,
                Ok(length) => {
                    let room = MAX_OUTPUT - self.text.len();
                    self.cut |= length > room;
                    self.text.extend_from_slice(&buffer[..length.min(room)]);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl Monitor<'_> {
    /// The time has come for a check, or for giving one up.
    pub(super) fn health_due(&mut self) {
        let id = self.facts.id.clone();
        // Its processes could not answer.
        let paused = || self.engine.is_paused(&id);
        let Some(watched) = &mut self.health else { return };
        if let Some(check) = &watched.check {
            let _ = pidfd_send_signal(check.pidfd.as_fd(), 9);
            return;
        }
        if Instant::now() < watched.next {
            return;
        }
        watched.next = Instant::now() + watched.interval();
        if paused() {
            return;
        }
        let start = now();
        let spawned = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(Error::io("create", "pipe"));
        let spawned = spawned.and_then(|(ours, theirs)| {
            super::nonblocking(&ours)?;
            Ok((own::spawn(self.engine, &["healthcheck", "run", &id], Some(theirs))?, ours))
        });
        if let Ok((pidfd, output)) = spawned {
            watched.check =
                Some(Check { pidfd, output: Some(output), text: Vec::new(), cut: false, began: Instant::now(), start });
        }
    }

    /// Goes on with a check that runs.
    pub(super) fn health_tend(&mut self, program: Option<&Program>) {
        let Some(watched) = &mut self.health else { return };
        let Some(check) = &mut watched.check else { return };
        check.read();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let code = match waitid(WaitId::PidFd(check.pidfd.as_fd()), options) {
            Ok(None) => return,
            Ok(Some(status)) => {
                status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(255)
            }
            Err(_) => 255,
        };
        check.read();
        let timeout = Duration::from_nanos(watched.plan.timeout);
        let late = code == 137 && check.began.elapsed() >= timeout;
        let mut output = String::from_utf8_lossy(&check.text).into_owned();
        if check.cut {
            output.push_str("...");
        }
        if late {
            let printed = if output.is_empty() { String::new() } else { format!(": {output}") };
            output = format!("Health check exceeded timeout ({}){printed}", go(watched.plan.timeout));
        }
        let checked = Checked {
            start: stamp(check.start),
            end: stamp(now()),
            exit_code: if late || code == 125 { -1 } else { code },
            output,
        };
        watched.check = None;
        let id = &self.facts.id;
        let mut health = self.engine.saved_health(id);
        let changed = health.add(checked, watched.plan.retries, watched.in_start_period());
        watched.status = health.status;
        watched.next = Instant::now() + watched.interval();
        let action = watched.action;
        // What cannot be written now is with the next check.
        let _ = self.engine.save_health(id, &health);
        if !changed {
            return;
        }
        if let Ok(container) = self.engine.container(id) {
            let action = format!("health_status: {}", health.status.as_str());
            events::emit(self.engine, &container, &action, &[]);
        }
        if health.status == Status::Unhealthy {
            self.unhealthy(action, program);
        }
    }

    fn unhealthy(&self, action: Unhealthy, program: Option<&Program>) {
        let command = match action {
            Unhealthy::None => return,
            Unhealthy::Kill => {
                if let Some(program) = program {
                    let _ = pidfd_send_signal(program.pidfd.as_fd(), 9);
                }
                return;
            }
            Unhealthy::Restart => "restart",
            Unhealthy::Stop => "stop",
        };
        // It lives longer than this monitor, which ends with what it stops.
        let _ = own::spawn(self.engine, &[command, &self.facts.id], None);
    }
}
