//! Statistics and out-of-memory events.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_cgroup::Stats;
use hull_oci::Status;
use rustix::event::Timespec;

use crate::error::Error;
use crate::state::Record;

/// What the container uses now.
///
/// # Errors
/// [`Error::NotRunning`] once it has stopped.
pub fn stats(root: &Path, id: &str) -> Result<Stats, Error> {
    let record = Record::load(root, id)?;
    if record.status(root) == Status::Stopped {
        return Err(Error::NotRunning(record.id));
    }
    Ok(record.cgroup.stats()?)
}

/// The events of one container, until it ends.
#[derive(Debug)]
pub struct Events {
    root: PathBuf,
    record: Record,
    pidfd: std::os::fd::OwnedFd,
    interval: Duration,
    next: Instant,
    oom_kills: u64,
    pending: Option<Event>,
}

/// One event.
#[derive(Debug)]
pub enum Event {
    /// Statistics, at each interval.
    Stats(Box<Stats>),
    /// The kernel killed a process of the container because memory ran out.
    Oom,
}

/// Time between two looks at the counter of kills.
const LOOK: Duration = Duration::from_millis(500);

impl Events {
    /// Watches a container; the first statistics come after one interval.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it has stopped.
    pub fn watch(root: &Path, id: &str, interval: Duration) -> Result<Self, Error> {
        let record = Record::load(root, id)?;
        let pidfd = record.pidfd().map_err(|_| Error::NotRunning(id.to_owned()))?;
        let oom_kills = record.cgroup.oom_kills();
        Ok(Self {
            root: root.to_owned(),
            record,
            pidfd,
            interval,
            next: Instant::now() + interval,
            oom_kills,
            pending: None,
        })
    }

    /// Waits for the next event; `None` once the container has ended.
    ///
    /// # Errors
    /// [`Error::Cgroup`] when statistics cannot be read.
    pub fn next_event(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.pending.take() {
                return Ok(Some(event));
            }
            let ended = self.wait(LOOK.min(self.next.saturating_duration_since(Instant::now())));
            // Deleting the container removes the counter with the group: it reads as zero then, never as an event.
            let kills = self.record.cgroup.oom_kills();
            if kills > self.oom_kills {
                self.oom_kills = kills;
                return Ok(Some(Event::Oom));
            }
            if ended {
                return Ok(None);
            }
            if Instant::now() >= self.next {
                self.next = Instant::now() + self.interval;
                match self.record.cgroup.stats() {
                    Ok(stats) => return Ok(Some(Event::Stats(Box::new(stats)))),
                    Err(_) if self.record.status(&self.root) == Status::Stopped => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    fn wait(&self, limit: Duration) -> bool {
        let mut poll = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        rustix::event::poll(&mut poll, Some(&limit)).is_ok_and(|ready| ready > 0)
    }
}
