//! Hooks: programs of the configuration that run at points of a container's life (`config.md`, "POSIX-platform Hooks").
//!
//! Each gets the state document on standard input, only the environment it lists, and a time limit. Those of the runtime
//! are run by the parent; `createContainer` and `startContainer` by the child, inside the container's namespaces.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use hull_oci::State;
use hull_oci::spec::Hook;
use hull_sys::clone::{CloneFlags, Cloned, ExecArray, clone3, execve, exit_now, reset_signals};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::error::Error;

/// One hook, ready to run.
#[derive(Debug)]
struct Prepared {
    path: CString,
    args: ExecArray,
    env: ExecArray,
    timeout: Option<i64>,
}

/// The hooks of one point, checked and prepared.
#[derive(Debug)]
pub struct Point {
    name: &'static str,
    hooks: Vec<Prepared>,
}

/// How a hook failed.
#[derive(Debug)]
pub(crate) enum Reason {
    System(Errno),
    Exit(i32),
    Signal(i32),
    Timeout(i64),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System(errno) => write!(formatter, "{errno}"),
            Self::Exit(127) => write!(formatter, "cannot be executed"),
            Self::Exit(code) => write!(formatter, "exit status {code}"),
            Self::Signal(signal) => write!(formatter, "killed by signal {signal}"),
            Self::Timeout(seconds) => write!(formatter, "timeout of {seconds} s passed"),
        }
    }
}

impl Point {
    /// Checks and prepares the hooks of one point.
    ///
    /// # Errors
    /// [`Error::Config`] for a relative path, a string with a null byte or a timeout that is not positive.
    pub fn plan(name: &'static str, hooks: &[Hook]) -> Result<Self, Error> {
        let mut prepared = Vec::with_capacity(hooks.len());
        for (index, hook) in hooks.iter().enumerate() {
            let field = |part: &str| format!("hooks.{name}[{index}].{part}");
            if !hook.path.starts_with('/') {
                return Err(Error::config(field("path"), format!("expected an absolute path, found {:?}", hook.path)));
            }
            if hook.timeout.is_some_and(|timeout| timeout <= 0) {
                return Err(Error::config(field("timeout"), "expected more than 0 seconds"));
            }
            let strings = |part: &str, list: &[String]| {
                list.iter()
                    .map(|string| CString::new(string.as_str()))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|_| Error::config(field(part), "has a null byte"))
            };
            let path = CString::new(hook.path.as_str()).map_err(|_| Error::config(field("path"), "has a null byte"))?;
            let mut args = strings("args", &hook.args)?;
            if args.is_empty() {
                args.push(path.clone());
            }
            prepared.push(Prepared {
                path,
                args: ExecArray::new(args),
                env: ExecArray::new(strings("env", &hook.env)?),
                timeout: hook.timeout,
            });
        }
        Ok(Self { name, hooks: prepared })
    }

    /// The point's name in the configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether there is nothing to run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// Runs the hooks in order and stops at the first that fails.
    ///
    /// # Errors
    /// [`Error::Hook`].
    pub fn run(&self, state: &State) -> Result<(), Error> {
        self.run_raw(state).map_err(|(index, reason)| self.error(index, &reason))
    }

    /// Runs all hooks, also after failures, and returns those.
    #[must_use]
    pub fn run_all(&self, state: &State) -> Vec<Error> {
        let json = document(state);
        let run = |(index, hook): (usize, &Prepared)| hook.run(&json).err().map(|reason| self.error(index, &reason));
        self.hooks.iter().enumerate().filter_map(run).collect()
    }

    pub(crate) fn run_raw(&self, state: &State) -> Result<(), (usize, Reason)> {
        if self.hooks.is_empty() {
            return Ok(());
        }
        let json = document(state);
        self.hooks.iter().enumerate().try_for_each(|(index, hook)| hook.run(&json).map_err(|reason| (index, reason)))
    }

    pub(crate) fn error(&self, index: usize, reason: &Reason) -> Error {
        Error::Hook {
            point: self.name,
            index,
            path: self.hooks.get(index).map(|hook| hook.path.to_string_lossy().into_owned()).unwrap_or_default(),
            reason: reason.to_string(),
        }
    }
}

fn document(state: &State) -> Vec<u8> {
    serde_json::to_vec(state).unwrap_or_default()
}

impl Prepared {
    fn run(&self, state: &[u8]) -> Result<(), Reason> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Reason::System)?;
        match clone3(CloneFlags::empty(), None).map_err(Reason::System)? {
            Cloned::Child => {
                let ready = rustix::stdio::dup2_stdin(&read);
                reset_signals(u64::MAX);
                let _ = hull_sys::clone::cloexec_from(3);
                if ready.is_ok() {
                    let _ = execve(&self.path, &self.args, &self.env);
                }
                exit_now(127)
            }
            Cloned::Parent(_, pidfd) => {
                drop(read);
                feed(&write, state);
                drop(write);
                self.wait(&pidfd)
            }
        }
    }

    fn wait(&self, pidfd: &OwnedFd) -> Result<(), Reason> {
        let limit = self.timeout.map(|seconds| Timespec { tv_sec: seconds, tv_nsec: 0 });
        let mut poll = [PollFd::new(pidfd, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, limit.as_ref()));
        let timed_out = matches!(ready, Ok(0));
        if timed_out {
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
        let status =
            rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED))
                .map_err(Reason::System)?;
        if timed_out {
            return Err(Reason::Timeout(self.timeout.unwrap_or_default()));
        }
        match status.and_then(|status| {
            status.exit_status().map(Reason::Exit).or(status.terminating_signal().map(Reason::Signal))
        }) {
            Some(Reason::Exit(0)) => Ok(()),
            Some(reason) => Err(reason),
            None => Err(Reason::System(Errno::CHILD)),
        }
    }
}

/// Writes the document; a hook that does not read it is not an error. It fits a pipe unless annotations are huge, and a
/// hook that reads nothing of a huge one must not block the runtime for ever.
fn feed(pipe: &OwnedFd, bytes: &[u8]) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, bytes.len().clamp(65_536, 1 << 20));
    let _ = rustix::fs::fcntl_setfl(pipe, rustix::fs::OFlags::NONBLOCK);
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(pipe, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
}
