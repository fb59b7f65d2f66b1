//! What killed processes left behind, finished by the next command.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use hull_fs::lock::Lock;

use super::{Engine, Intent, Phase, State, Stopping, Work, alive, now, parse_intent};
use crate::error::Error;

/// Exit code of a container whose monitor was killed, and which was killed therefore.
pub(super) const LOST: i32 = 137;

impl Engine {
    /// Finishes what dead processes left: containers without their monitor are killed and recorded as ended, those that
    /// never started or were to be removed are removed with their control groups and mounts, and unfinished transfers of
    /// images go.
    ///
    /// # Errors
    /// The first thing that could not be undone; everything else was tried, and the intent stays for the next command.
    pub fn repair(&self) -> Result<(), Error> {
        // What a dead command's container still holds in its work directory goes with the container.
        let containers = self.repair_containers();
        let images = self.images.repair().map(drop).map_err(Error::from).and(self.repair_image_mounts());
        containers.and(images).and(self.repair_volumes())
    }

    /// The processes that have declared to look after a container.
    pub(crate) fn monitors(&self, id: &str) -> Vec<(i32, u64)> {
        let entries = fs::read_dir(self.live()).into_iter().flatten().flatten();
        let parsed = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (other, work, pid, start) = parse_intent(&name)?;
            (other == id && matches!(work, Work::Run | Work::Start)).then_some((pid, start))
        });
        parsed.collect()
    }

    /// Ends the monitors of containers whose command is gone and that are nothing without it.
    fn end_tied(&self) {
        let list = || -> Vec<(PathBuf, String, Work, i32, u64)> {
            let entries = fs::read_dir(self.live()).into_iter().flatten().flatten();
            let parsed = entries.filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (id, work, pid, start) = parse_intent(&name)?;
                Some((entry.path(), id.to_owned(), work, pid, start))
            });
            parsed.collect()
        };
        let all = list();
        for (path, id, ..) in all.iter().filter(|(_, _, work, pid, start)| *work == Work::Tied && !alive(*pid, *start))
        {
            for (_, _, work, pid, start) in all.iter().filter(|(_, other, ..)| other == id) {
                if *work == Work::Run
                    && let Some(monitor) = crate::control::process(*pid, *start)
                {
                    let _ = hull_sys::signal::pidfd_send_signal(monitor.as_fd(), 9);
                    crate::control::ended(&monitor, Some(crate::control::CLEANUP));
                }
            }
            // What the monitor left is found by its own intent.
            let _ = fs::remove_file(path);
        }
    }

    fn repair_containers(&self) -> Result<(), Error> {
        self.end_tied();
        let Ok(entries) = fs::read_dir(self.live()) else { return Ok(()) };
        let dead: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                name.to_str().and_then(parse_intent).is_some_and(|(_, _, pid, start)| !alive(pid, start))
            })
            .map(|entry| entry.path())
            .collect();
        if dead.is_empty() {
            return Ok(());
        }
        // One repairs; whoever comes meanwhile waits and finds nothing left to do.
        let lock = Lock::exclusive(&self.state.join("repair.lock"))?;
        let mut lost = Vec::new();
        let mut result = hull_runtime::state::repair(&self.oci_root()).map_err(Error::from);
        result = result.and(self.mounts().repair().map(drop).map_err(Error::from));
        for path in dead {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Some((id, work, ..)) = parse_intent(name) else { continue };
            if !path.exists() {
                continue;
            }
            let done = self.repair_one(id, work).and_then(|again| {
                Intent { path: path.clone() }.clear()?;
                lost.extend(again.then(|| id.to_owned()));
                Ok(())
            });
            if result.is_ok() {
                result = done;
            }
        }
        drop(lock);
        self.start_lost(&lost);
        result
    }

    /// Returns whether the container is to be started again.
    fn repair_one(&self, id: &str, work: Work) -> Result<bool, Error> {
        self.delete_foreign(id);
        match hull_runtime::lifecycle::delete(&self.oci_root(), id, true) {
            Ok(_) | Err(hull_runtime::Error::NoContainer(_)) => {}
            Err(error) => return Err(error.into()),
        }
        crate::monitor::socket::remove(self, id);
        self.leave_network(id)?;
        let kept = self.container(id).ok().filter(|container| {
            work == Work::Start && (!container.config.remove || self.stopping(id) == Some(Stopping::Restart))
                || work == Work::Run && !container.config.remove
        });
        // One that had not started when its only command was killed is nobody's.
        let state = self.saved_state(id).ok().filter(|state| work == Work::Start || state.phase != Phase::Created);
        match (kept, state) {
            (Some(container), Some(state)) if matches!(state.phase, Phase::Running | Phase::Restarting) => {
                let state = State {
                    phase: Phase::Exited,
                    pid: 0,
                    monitor: 0,
                    exit_code: LOST,
                    error: "its monitor was killed".to_owned(),
                    finished: now(),
                    ..state
                };
                self.write_exit(id, LOST)?;
                self.save(id, &state)?;
                crate::events::emit(self, &container, "die", &[("exitCode", &LOST.to_string())]);
                let again = crate::boot::wanted(container.config.restart, LOST, state.restarts);
                Ok(again && self.stopping(id).is_none())
            }
            (Some(_), Some(_)) => Ok(false),
            _ => match self.erase(id, matches!(work, Work::Create | Work::Run)) {
                Err(Error::NoContainer(_)) => Ok(false),
                other => other.map(|()| false),
            },
        }
    }
}
