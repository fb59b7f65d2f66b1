//! Health checks: what is asked, how one is made, and what is known.
//!
//! The monitor decides when a container is checked (`monitor/health.rs`) and starts `hull healthcheck run` for each
//! check, a process of its own: joining a container takes memory that a monitor shall not have. That process runs the
//! check in the container ([`Engine::check_health`]), kills it when its time is over, and ends with its exit code. The
//! monitor keeps what it hears in `ROOT/containers/ID/health.json`.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use hull_oci::image::Healthcheck;
use hull_runtime::{ExecOptions, Streams};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::config::HealthConfig;
use crate::console::own_streams;
use crate::error::Error;
use crate::exec::{ExecConfig, process};
use crate::launch::null;
use crate::records::{self, Container, Engine, Phase};
use crate::time::{self, SECOND};

/// Kept of what a check prints.
pub(crate) const MAX_OUTPUT: usize = 4096;

/// Checks that are remembered.
const REMEMBERED: usize = 5;

const FILE: &str = "health.json";

/// How a container is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// No check has succeeded since it was started.
    #[default]
    Starting,
    /// The last check succeeded, or too few have failed since.
    Healthy,
    /// Too many checks in a row have failed.
    Unhealthy,
}

impl Status {
    /// Docker's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What is known of a container's health, in Docker's shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// How it is.
    pub status: Status,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last checks, newest last.
    pub log: Vec<Checked>,
}

/// One check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Checked {
    /// When it began.
    pub start: String,
    /// When it ended.
    pub end: String,
    /// 0 for success; -1 when it was not over in time.
    pub exit_code: i32,
    /// What it printed.
    pub output: String,
}

/// A check with all defaults filled in; times are nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) interval: u64,
    pub(crate) timeout: u64,
    pub(crate) start_period: u64,
    pub(crate) start_interval: u64,
    pub(crate) retries: u32,
}

impl Plan {
    /// `None` when nothing is checked.
    pub(crate) fn of(config: Option<&HealthConfig>) -> Option<Self> {
        let config =
            config.filter(|config| !matches!(config.test.first().map(String::as_str), None | Some("NONE" | "")))?;
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        Some(Self {
            interval: or(config.interval, 30 * SECOND),
            timeout: or(config.timeout, 30 * SECOND),
            start_period: config.start_period,
            start_interval: or(config.start_interval, 5 * SECOND),
            retries: if config.retries == 0 { 3 } else { config.retries },
        })
    }
}

/// What flags say, completed by what the image says.
pub(crate) fn merged(flags: Option<HealthConfig>, image: Option<&Healthcheck>) -> Option<HealthConfig> {
    // Of an image nothing is trusted: what is negative is a default.
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    let image = image.map(|image| HealthConfig {
        test: image.test.clone(),
        interval: number(image.interval),
        timeout: number(image.timeout),
        start_period: number(image.start_period),
        start_interval: number(image.start_interval),
        retries: u32::try_from(image.retries).unwrap_or(0),
    });
    match (flags, image) {
        (Some(flags), Some(image)) => {
            let or = |value: u64, other: u64| if value == 0 { other } else { value };
            Some(HealthConfig {
                test: if flags.test.is_empty() { image.test } else { flags.test },
                interval: or(flags.interval, image.interval),
                timeout: or(flags.timeout, image.timeout),
                start_period: or(flags.start_period, image.start_period),
                start_interval: or(flags.start_interval, image.start_interval),
                retries: if flags.retries == 0 { image.retries } else { flags.retries },
            })
        }
        (flags, image) => flags.or(image),
    }
}

impl Health {
    /// Takes a check into account. `grace` says that failures do not count yet. Returns whether the status changed.
    pub(crate) fn add(&mut self, checked: Checked, retries: u32, grace: bool) -> bool {
        let before = self.status;
        if checked.exit_code == 0 {
            self.failing_streak = 0;
            self.status = Status::Healthy;
        } else if !(grace && before == Status::Starting) {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= retries {
                self.status = Status::Unhealthy;
            }
        }
        self.log.push(checked);
        let surplus = self.log.len().saturating_sub(REMEMBERED);
        self.log.drain(..surplus);
        before != self.status
    }
}

/// `1m30s`, as Go prints durations.
pub(crate) fn go(nanoseconds: u64) -> String {
    let (seconds, rest) = (nanoseconds / SECOND, nanoseconds % SECOND);
    if seconds == 0 && rest > 0 {
        return format!("{}ms", nanoseconds / 1_000_000);
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let fraction = if rest == 0 { String::new() } else { format!(".{rest:09}").trim_end_matches('0').to_owned() };
    let second = format!("{}{fraction}s", seconds % 60);
    match (hours, minutes) {
        (0, 0) => second,
        (0, minutes) => format!("{minutes}m{second}"),
        (hours, minutes) => format!("{hours}h{minutes}m{second}"),
    }
}

impl Engine {
    /// What is known of a container's health; `None` when nobody asks.
    #[must_use]
    pub fn health(&self, container: &Container) -> Option<Health> {
        Plan::of(container.config.health.as_ref())?;
        Some(self.saved_health(&container.id))
    }

    pub(crate) fn saved_health(&self, id: &str) -> Health {
        records::read(&self.directory(id).join(FILE)).unwrap_or_default()
    }

    pub(crate) fn save_health(&self, id: &str, health: &Health) -> Result<(), Error> {
        records::write(&self.directory(id).join(FILE), health)
    }

    /// Checks a container's health once and returns the check's exit code: 137 when it was killed because it took too
    /// long. What it prints goes to this process's streams.
    ///
    /// # Errors
    /// When the container has no check, does not run, or the check cannot be started.
    pub fn check_health(&self, container: &Container) -> Result<i32, Error> {
        let test = container.config.health.as_ref().map_or(&[][..], |health| &health.test);
        let plan = Plan::of(container.config.health.as_ref());
        let (Some(plan), Some((form, words))) = (plan, test.split_first()) else {
            return Err(Error::flag("CONTAINER", format!("{} has no health check", container.name)));
        };
        let state = self.state(&container.id)?;
        if state.phase != Phase::Running {
            let status = state.phase.as_str().to_owned();
            return Err(Error::Status { operation: "check", id: container.id.clone(), status });
        }
        let args = match form.as_str() {
            "CMD" => words.to_vec(),
            // As the image's shell; Docker's default otherwise.
            "CMD-SHELL" => {
                let image = self.images.find(&container.image_id).ok();
                let shell = image.map(|image| image.config.config.shell).filter(|shell| !shell.is_empty());
                let mut args = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
                args.extend_from_slice(words);
                args
            }
            _ => test.to_vec(),
        };
        self.images.close();
        let root = self.oci_root();
        let record = hull_runtime::state::Record::load(&root, &container.id)?;
        let process = process(&record, &root, &ExecConfig { args, ..ExecConfig::default() })?;
        let streams = Streams { stdio: Some(own_streams(false, null()?)?), ..Streams::default() };
        let options = ExecOptions { streams, ..ExecOptions::default() };
        let running = hull_runtime::exec(&root, &container.id, &process, options)?;
        let deadline = Instant::now() + Duration::from_nanos(plan.timeout);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&running.pidfd, PollFlags::IN)], timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(0) => drop(hull_sys::signal::pidfd_send_signal(running.pidfd.as_fd(), 9)),
                _ => {}
            }
            return Ok(running.wait()?);
        }
    }
}

/// Time of a check, as Docker writes it.
pub(crate) fn stamp(moment: u64) -> String {
    time::short(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32) -> Checked {
        Checked { exit_code: code, ..Checked::default() }
    }

    #[test]
    fn failures_in_a_row_decide() {
        let mut health = Health::default();
        assert!(!health.add(ended(1), 3, true) && health.failing_streak == 0, "the start period forgives");
        assert!(!health.add(ended(1), 3, false) && !health.add(ended(1), 3, false));
        assert_eq!(health.status, Status::Starting);
        assert!(health.add(ended(-1), 3, false));
        assert_eq!((health.status, health.failing_streak), (Status::Unhealthy, 3));
        assert!(health.add(ended(0), 3, false));
        assert_eq!((health.status, health.failing_streak, health.log.len()), (Status::Healthy, 0, 5));
        // Once it was healthy the start period is over.
        assert!(!health.add(ended(1), 2, true) && health.add(ended(1), 2, true));
    }

    #[test]
    fn flags_complete_what_the_image_says() {
        let image =
            Healthcheck { test: vec!["CMD".into(), "x".into()], interval: 7, retries: 2, ..Healthcheck::default() };
        let flags = HealthConfig { interval: 9, ..HealthConfig::default() };
        let both = merged(Some(flags), Some(&image)).unwrap();
        assert_eq!((both.test.len(), both.interval, both.retries), (2, 9, 2));
        assert_eq!(Plan::of(Some(&both)).unwrap().timeout, 30 * SECOND);
        let none = HealthConfig { test: vec!["NONE".into()], ..HealthConfig::default() };
        assert_eq!(Plan::of(merged(Some(none), Some(&image)).as_ref()), None);
        assert_eq!(Plan::of(merged(None, None).as_ref()), None);
    }

    #[test]
    fn durations_are_go_s() {
        for (nanoseconds, text) in
            [(1_500_000_000, "1.5s"), (90 * SECOND, "1m30s"), (3600 * SECOND, "1h0m0s"), (200_000_000, "200ms")]
        {
            assert_eq!(go(nanoseconds), text);
        }
    }
}
