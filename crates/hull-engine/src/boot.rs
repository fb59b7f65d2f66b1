//! What restart policies want of a machine that goes down and comes up again, and of monitors that were killed.
//!
//! | policy | after a reboot |
//! |---|---|
//! | `always` | started, also when it was stopped by hand |
//! | `unless-stopped` | started, unless it was stopped by hand |
//! | `on-failure` | started when it had failed or was lost, unless it was stopped by hand |
//! | `no` | left; with `--rm`, removed |
//!
//! [`Engine::shut_down`] stops what runs when the machine goes down; that is not stopping by hand.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use hull_runtime::lifecycle;

use crate::config::RestartPolicy;
use crate::control::{ended, process};
use crate::error::Error;
use crate::launch::Options;
use crate::own;
use crate::records::{Container, Engine, Phase, State, Stopping};

/// How long a command waits for what it started again in a killed monitor's place.
const AGAIN: Duration = Duration::from_secs(10);

/// Whether a policy starts a container that has ended with this code, if nobody stopped it.
pub(crate) fn wanted(policy: RestartPolicy, code: i32, restarts: u32) -> bool {
    match policy {
        RestartPolicy::No => false,
        RestartPolicy::OnFailure(limit) => code != 0 && (limit == 0 || restarts < limit),
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
    }
}

fn at_boot(container: &Container, state: &State, stopping: Option<Stopping>) -> bool {
    let policy = container.config.restart;
    let by_hand = stopping == Some(Stopping::Stop) && policy != RestartPolicy::Always;
    state.phase == Phase::Exited && !by_hand && wanted(policy, state.exit_code, state.restarts)
}

impl Engine {
    /// Starts what restart policies want to run, and removes what was to be removed at its end. Calls `done` with each
    /// name and how it went.
    ///
    /// # Errors
    /// When the containers cannot be listed.
    pub fn boot(&self, done: &mut dyn FnMut(&str, Result<(), Error>)) -> Result<(), Error> {
        // Oldest first: what others join was mostly made before them.
        let mut waiting = Vec::new();
        for (container, state) in self.list()?.into_iter().rev() {
            if at_boot(&container, &state, self.stopping(&container.id)) {
                waiting.push(container);
            } else if container.config.remove && state.phase == Phase::Exited && !self.monitored(&state) {
                let _ = self.remove(&container, false, false);
            }
        }
        // One that joins another is started after it.
        let mut last = usize::MAX;
        while !waiting.is_empty() {
            let final_round = waiting.len() == last;
            last = waiting.len();
            waiting.retain(|container| {
                let started = self.start(container, Options { attach: Some(0), ..Options::new(&mut |_| {}) });
                let failed = started.is_err();
                if !failed || final_round {
                    done(&container.name, started.map(drop));
                }
                failed && !final_round
            });
        }
        Ok(())
    }

    /// Stops everything that runs, all at once, because the machine goes down: each has its own time, but none more than
    /// `limit`.
    ///
    /// # Errors
    /// When the containers cannot be listed.
    pub fn shut_down(&self, limit: Duration, done: &mut dyn FnMut(&str, Result<(), Error>)) -> Result<(), Error> {
        let begun = Instant::now();
        let mut ending = Vec::new();
        for (container, state) in self.list()? {
            if !matches!(state.phase, Phase::Running | Phase::Restarting) {
                continue;
            }
            // One that is stopped by hand just now stays so.
            if self.stopping(&container.id) != Some(Stopping::Stop) {
                let _ = self.set_stopping(&container.id, Stopping::Shutdown);
            }
            let program = process(state.pid, state.pid_start);
            match &program {
                Some(program) => {
                    let _ = hull_sys::signal::pidfd_send_signal(program.as_fd(), container.stop_signal);
                    if self.is_paused(&container.id) {
                        let _ = lifecycle::resume(&self.oci_root(), &container.id);
                    }
                }
                None => self.wake_monitor(&state),
            }
            ending.push((container, state, program));
        }
        for (container, state, program) in ending {
            let grace = self.grace(&container).unwrap_or(limit).min(limit);
            if let Some(program) = &program
                && !ended(program, Some(grace.saturating_sub(begun.elapsed())))
            {
                self.kill_all(&container);
            }
            done(&container.name, self.settle(&container, &state));
        }
        Ok(())
    }

    /// Starts containers again whose monitors were killed, and waits until they run: whatever this command is about to do
    /// finds them as if nothing had happened.
    pub(crate) fn start_lost(&self, ids: &[String]) {
        let spawned: Vec<_> = ids.iter().filter_map(|id| own::spawn(self, &["start", id], None).ok()).collect();
        let until = Instant::now() + AGAIN;
        for process in spawned {
            if ended(&process, Some(until.saturating_duration_since(Instant::now()))) {
                let options = rustix::process::WaitIdOptions::EXITED;
                let _ = rustix::process::waitid(rustix::process::WaitId::PidFd(process.as_fd()), options);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunConfig;

    fn container(restart: RestartPolicy) -> Container {
        Container {
            id: "0".repeat(64),
            name: "x".to_owned(),
            created: 0,
            image_id: String::new(),
            args: Vec::new(),
            config: RunConfig { restart, ..RunConfig::default() },
            stop_signal: 15,
        }
    }

    #[test]
    fn policies_decide_what_a_reboot_starts() {
        let ask = |policy, code, stopping| {
            let state = State { phase: Phase::Exited, exit_code: code, ..State::default() };
            at_boot(&container(policy), &state, stopping)
        };
        assert!(ask(RestartPolicy::Always, 0, Some(Stopping::Stop)));
        assert!(ask(RestartPolicy::UnlessStopped, 0, None));
        assert!(ask(RestartPolicy::UnlessStopped, 143, Some(Stopping::Shutdown)));
        assert!(!ask(RestartPolicy::UnlessStopped, 143, Some(Stopping::Stop)));
        assert!(ask(RestartPolicy::OnFailure(3), 137, None));
        assert!(!ask(RestartPolicy::OnFailure(3), 0, None));
        assert!(!ask(RestartPolicy::OnFailure(3), 1, Some(Stopping::Stop)));
        assert!(!ask(RestartPolicy::No, 137, None));
        let created = State::default();
        assert!(!at_boot(&container(RestartPolicy::Always), &created, None), "it was never started");
    }
}
