//! Stopping, continuing and killing all processes of a container, nested groups included. Every wait has a limit.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::cgroup::{Cgroup, Driver, Group};
use crate::error::Error;
use crate::hierarchies::Version;
use crate::io;

const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a group is listed to be killed before it is frozen for that.
const ROUNDS: u32 = 50;

impl Cgroup {
    /// Stops all processes and waits until they stand still; on a timeout they are let run again.
    ///
    /// # Errors
    /// `EOPNOTSUPP` without a freezer, [`Error::Timeout`] when a process does not stop.
    pub fn freeze(&self) -> Result<(), Error> {
        let group = self.freezer()?;
        let frozen = match group.version {
            Version::V2 => set_v2(group, true),
            Version::V1 => freeze_v1(group),
        };
        frozen.inspect_err(|_| drop(self.thaw()))
    }

    /// Lets all processes run, also those of nested groups that were frozen by themselves.
    ///
    /// # Errors
    /// As [`Cgroup::freeze`]. A group that is gone is not an error.
    pub fn thaw(&self) -> Result<(), Error> {
        let group = self.freezer()?;
        let thawed = match group.version {
            Version::V2 => {
                thaw_tree(group.fd()?, &group.directory(), "cgroup.freeze", "0").and_then(|()| set_v2(group, false))
            }
            Version::V1 => thaw_tree(group.fd()?, &group.directory(), "freezer.state", "THAWED"),
        };
        ignore_gone(thawed)
    }

    /// Whether the processes are stopped (or being stopped).
    ///
    /// # Errors
    /// When the state cannot be read. A group that is gone, or a machine without freezer, is not frozen.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        let Ok(group) = self.freezer() else { return Ok(false) };
        let file = if group.version == Version::V2 { "cgroup.freeze" } else { "freezer.state" };
        let dir = match group.fd() {
            Err(error) if is_gone(&error) => return Ok(false),
            other => other?,
        };
        match io::read(dir, file) {
            Ok(state) => Ok(!matches!(state.trim(), "0" | "THAWED")),
            Err(Errno::NOENT | Errno::NODEV) => Ok(false),
            Err(errno) => Err(Error::system("read", group.directory().join(file))(errno)),
        }
    }

    /// Sends a signal to every process, also of nested groups.
    ///
    /// `SIGKILL` goes through `cgroup.kill` where the kernel has it (Linux 5.14), which no fork can escape. Otherwise the
    /// group is listed again until everybody in it has been signalled. Another signal finds the group frozen, so that it
    /// reaches everybody. Afterwards a killed group is thawed, since a frozen process does not die.
    ///
    /// # Errors
    /// When processes cannot be listed or signalled. A group that is gone is not an error.
    pub fn kill_all(&self, signal: i32) -> Result<(), Error> {
        if self.driver() == Driver::Disabled {
            return Ok(());
        }
        let Some(signal) = Signal::from_named_raw(signal) else {
            return Err(Error::System {
                operation: "send that signal to",
                path: self.main_path(),
                errno: Errno::INVAL,
            });
        };
        if signal == Signal::KILL
            && let Some(group) = self.unified().filter(|_| self.is_v2())
            && let Ok(dir) = group.fd()
            && io::write(dir, "cgroup.kill", "1").is_ok()
        {
            return Ok(());
        }
        if signal == Signal::KILL {
            return self.kill_listed();
        }
        let frozen = !self.is_frozen().unwrap_or(false) && self.freeze().is_ok();
        let mut result = self.signal(&self.pids()?, signal);
        if frozen {
            result = result.and(self.thaw());
        }
        result
    }

    /// Kills without `cgroup.kill`: until a list names nobody who has not been signalled, since a process that has cannot
    /// fork. Only those who fork faster than that are frozen meanwhile: whoever freezes and is killed leaves a group that
    /// nobody has paused and that stands still.
    fn kill_listed(&self) -> Result<(), Error> {
        let mut signalled = BTreeSet::new();
        let mut result = Ok(());
        let mut ended = false;
        for _ in 0..ROUNDS {
            let fresh: Vec<i32> = self.pids()?.into_iter().filter(|pid| signalled.insert(*pid)).collect();
            ended = fresh.is_empty();
            if ended {
                break;
            }
            result = result.and(self.signal(&fresh, Signal::KILL));
        }
        if !ended && self.freeze().is_ok() {
            result = result.and(self.signal(&self.pids()?, Signal::KILL));
            return result.and(self.thaw());
        }
        // Somebody may have paused it.
        if self.is_frozen().unwrap_or(false) { result.and(self.thaw()) } else { result }
    }

    /// All processes, also of nested groups, by the runtime's process IDs in ascending order. A group that is gone has
    /// none.
    ///
    /// # Errors
    /// When the group cannot be read.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let mut pids = Vec::new();
        if self.driver() == Driver::Disabled {
            return Ok(pids);
        }
        // Any hierarchy knows all processes.
        let group = self.of("pids").or_else(|| self.of("devices")).or_else(|| self.unified()).or(self.groups.first());
        let Some(group) = group else { return Ok(pids) };
        let listed = group.fd().and_then(|dir| list(dir, &group.directory(), &mut pids));
        ignore_gone(listed)?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    fn signal(&self, pids: &[i32], signal: Signal) -> Result<(), Error> {
        let mut errors = Vec::new();
        for pid in pids {
            // Zero stands for a process of another PID namespace.
            let Some(pid) = Pid::from_raw(*pid) else { continue };
            let sent = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                Ok(fd) => rustix::process::pidfd_send_signal(&fd, signal),
                Err(errno) => Err(errno),
            };
            if let Err(errno) = sent
                && errno != Errno::SRCH
            {
                let path = self.main_path().join(pid.as_raw_nonzero().to_string());
                errors.push(Error::System { operation: "signal process", path, errno });
            }
        }
        Error::collect(errors)
    }

    fn main_path(&self) -> std::path::PathBuf {
        self.groups.first().map(Group::directory).unwrap_or_default()
    }

    fn freezer(&self) -> Result<&Group, Error> {
        let v1 = self.of("freezer");
        let found = v1.or_else(|| self.unified()).filter(|_| self.driver() != Driver::Disabled);
        found.ok_or_else(|| Error::System {
            operation: "find the freezer of cgroup",
            path: self.main_path(),
            errno: Errno::OPNOTSUPP,
        })
    }
}

pub(crate) fn is_gone(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::NOENT | Errno::NODEV))
}

fn ignore_gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

fn freeze_v1(group: &Group) -> Result<(), Error> {
    let path = group.directory().join("freezer.state");
    let dir = group.fd()?;
    let start = Instant::now();
    let mut pause = Duration::from_micros(10);
    while start.elapsed() < FREEZE_TIMEOUT {
        // A task that forks meanwhile can keep the group FREEZING: writing again catches its children.
        io::write(dir, "freezer.state", "FROZEN").map_err(Error::system("write", &path))?;
        let state = io::read(dir, "freezer.state").map_err(Error::system("read", &path))?;
        match state.trim() {
            "FROZEN" => return Ok(()),
            "FREEZING" | "THAWED" => {}
            other => return Err(Error::Format { path, content: other.chars().take(40).collect() }),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Err(timeout("freeze", &path))
}

fn timeout(operation: &'static str, path: &Path) -> Error {
    Error::Timeout { operation, path: path.to_path_buf(), milliseconds: 5000 }
}

/// Writes `cgroup.freeze` and waits for the event.
fn set_v2(group: &Group, freeze: bool) -> Result<(), Error> {
    let (value, wanted) = if freeze { ("1", 1) } else { ("0", 0) };
    let dir = group.fd()?;
    let path = group.directory().join("cgroup.freeze");
    io::write(dir, "cgroup.freeze", value).map_err(Error::system("write", &path))?;
    let events = rustix::fs::openat(dir, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .map_err(Error::system("open cgroup.events of", group.directory()))?;
    let start = Instant::now();
    loop {
        rustix::fs::seek(&events, rustix::fs::SeekFrom::Start(0))
            .map_err(Error::system("read cgroup.events of", &path))?;
        let content = io::read_fd(&events).map_err(Error::system("read cgroup.events of", group.directory()))?;
        if io::keyed(&content, "frozen").is_none_or(|state| state == wanted) {
            return Ok(());
        }
        if start.elapsed() >= FREEZE_TIMEOUT {
            return Err(timeout(if freeze { "freeze" } else { "thaw" }, &path));
        }
        let limit = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let mut wait = [PollFd::new(&events, PollFlags::PRI)];
        match rustix::event::poll(&mut wait, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::system("wait for cgroup.events of", &path)(errno)),
        }
    }
}

fn thaw_tree(dir: BorrowedFd<'_>, directory: &Path, file: &str, value: &str) -> Result<(), Error> {
    io::write(dir, file, value).map_err(Error::system("write", directory.join(file)))?;
    for name in io::children(dir).map_err(Error::system("list cgroup", directory))? {
        if let Ok(child) = io::open_dir_at(dir, &name) {
            ignore_gone(thaw_tree(child.as_fd(), &directory.join(&name), file, value))?;
        }
    }
    Ok(())
}

fn list(dir: BorrowedFd<'_>, directory: &Path, pids: &mut Vec<i32>) -> Result<(), Error> {
    match io::read(dir, "cgroup.procs") {
        Ok(procs) => pids.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok())),
        // A threaded group; its processes are listed by the group above.
        Err(Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(Error::system("read cgroup.procs of", directory)(errno)),
    }
    for name in io::children(dir).map_err(Error::system("list cgroup", directory))? {
        let below = directory.join(&name);
        match io::open_dir_at(dir, &name) {
            Ok(child) => ignore_gone(list(child.as_fd(), &below, pids))?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::system("open cgroup", below)(errno)),
        }
    }
    Ok(())
}
