//! What killed processes left behind, finished by the next command.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hull_fs::lock::Lock;

use super::{Engine, Intent, Phase, State, Stopping, Work, alive, now, own_pid, parse_intent};
use crate::error::Error;

/// Exit code of a container whose monitor was killed, and which was killed therefore.
pub(super) const LOST: i32 = 137;

/// How long what was seen of processes is worth something.
const FRESH: Duration = Duration::from_millis(50);

/// So many processes, a few each time, are looked at with their start times by commands that are not about containers that
/// run; of the others it is asked only whether there is one of that number. A number that another process has by now is
/// noticed by one of the next commands.
const LOOKED_AT: usize = 32;

/// How long somebody who only looks waits for what is repaired.
pub const LOOKING: Duration = Duration::from_secs(3);

/// How often somebody who waits for another's repair looks.
const LOOK: Duration = Duration::from_millis(10);

/// Processes that were seen alive, with their start times, and when: a list of containers begins with a repair, and looking
/// at a process is most of what a running container costs in it.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Option<(Instant, Processes)>>);

/// IDs and start times.
type Processes = Vec<(i32, u64)>;

impl Seen {
    fn put(&self, mut list: Processes) {
        list.sort_unstable();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), list));
    }

    /// What was put last, once, and only a moment later; sorted.
    pub(super) fn take(&self) -> Vec<(i32, u64)> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        last.filter(|(when, _)| when.elapsed() < FRESH).map(|(_, list)| list).unwrap_or_default()
    }
}

/// Whether there is a process of this number, which may be another one by now.
fn exists(pid: i32) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return false };
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

impl Engine {
    /// [`Self::repair`] for those who only look ([`LOOKING`]), and for processes with threads: a process of its own does it
    /// where there is something to do, and is not waited for longer than `limit`. A container that cannot be ended, a runtime
    /// that does not answer, or a command that waits for one delays nobody longer than that.
    ///
    /// # Errors
    /// When the time is over; what was not finished then is the next command's.
    pub fn repair_apart(&self, limit: Duration) -> Result<(), Error> {
        let (dead, seen) = self.intents(usize::MAX);
        if dead.is_empty() {
            self.seen.put(seen);
            return self.repair_stores();
        }
        let late =
            || Error::flag("containers", "what a killed command left is not undone yet; the next command goes on");
        let deadline = Instant::now() + limit;
        // Whoever repairs already is not disturbed by more and more who wait.
        while Lock::try_exclusive(&self.repair_lock())?.is_none() {
            if Instant::now() >= deadline {
                return Err(late());
            }
            std::thread::sleep(LOOK);
        }
        let mut process = crate::own::repairing(self)?;
        while process.try_wait().map_err(Error::io("wait for", "repair"))?.is_none() {
            if Instant::now() >= deadline {
                // Nobody waits for it, but it must not stay as a zombie.
                std::thread::spawn(move || process.wait());
                return Err(late());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn repair_lock(&self) -> PathBuf {
        self.state.join("repair.lock")
    }

    /// Finishes what dead processes left: containers without their monitor are killed and recorded as ended, those that
    /// never started or were to be removed are removed with their control groups and mounts, and unfinished transfers of
    /// images go.
    ///
    /// # Errors
    /// The first thing that could not be undone; everything else was tried, and the intent stays for the next command.
    pub fn repair(&self) -> Result<(), Error> {
        // What a dead command's container still holds in its work directory goes with the container.
        let containers = self.repair_containers();
        containers.and(self.repair_stores())
    }

    fn repair_stores(&self) -> Result<(), Error> {
        let images = self.images.repair().map(drop).map_err(Error::from).and(self.repair_image_mounts());
        images.and(self.repair_volumes())
    }

    /// Whether the runtime still has something of a container that has ended or never started: its control groups, mostly,
    /// which the kernel would not remove.
    pub(crate) fn has_remains(&self, id: &str) -> bool {
        hull_runtime::state::directory(&self.oci_root(), id).exists()
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

    /// Ends the monitors of containers whose command is gone and that are nothing without it; whether there were some.
    fn end_tied(&self) -> bool {
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
        let mut any = false;
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
            any = true;
        }
        any
    }

    /// Intents of dead processes, and those processes of the others that were seen with their start times, which are at
    /// most `whole`: reading that takes the kernel as long as hundreds of questions whether there is such a process.
    fn intents(&self, whole: usize) -> (Vec<PathBuf>, Vec<(i32, u64)>) {
        let (mut dead, mut living) = (Vec::new(), Vec::new());
        let entries = fs::read_dir(self.live()).into_iter().flatten().flatten();
        let all: Vec<(String, PathBuf)> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                Some((name, entry.path()))
            })
            .collect();
        // Others each time: process numbers differ from command to command.
        let count = all.len();
        let first = usize::try_from(own_pid()).unwrap_or(0).wrapping_mul(whole) % count.max(1);
        for (index, (name, path)) in all.into_iter().enumerate() {
            let Some((_, _, pid, start)) = parse_intent(&name) else { continue };
            let looked_at = (index + count - first) % count < whole;
            if looked_at && alive(pid, start) {
                living.push((pid, start));
            } else if looked_at || !exists(pid) {
                dead.push(path);
            }
        }
        (dead, living)
    }

    fn repair_containers(&self) -> Result<(), Error> {
        let (mut dead, mut seen) = self.intents(LOOKED_AT);
        if dead.is_empty() {
            self.seen.put(seen);
            return Ok(());
        }
        if self.end_tied() {
            (dead, seen) = self.intents(usize::MAX);
        }
        drop(seen);
        // One repairs; whoever comes meanwhile waits and finds nothing left to do.
        let lock = Lock::exclusive(&self.repair_lock())?;
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
                Intent::of(path.clone()).clear()?;
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
