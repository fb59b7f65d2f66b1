//! `exec`: a further program in a container.

mod known;
mod served;

use std::os::fd::{AsFd as _, OwnedFd};

use hull_fs::Root;
use hull_oci::spec::{Capabilities, ConsoleSize, Process, User};
use hull_runtime::state::Record;
use hull_runtime::{ExecOptions, Running, Streams};
use serde::{Deserialize, Serialize};

use crate::console::{Attended, Console, own_streams};
use crate::error::Error;
use crate::launch::null;
use crate::records::{Container, Engine, Phase};
use crate::{events, names, terminal};
use hull_oci::spec::CAPABILITIES;

pub use served::{Client, Served};

/// What `exec` can be told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecConfig {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Added or replaced variables.
    pub env: Vec<String>,
    /// `user[:group]`; absent means the container's.
    pub user: Option<String>,
    /// Absent means the container's.
    pub workdir: Option<String>,
    /// Allocate a terminal.
    pub tty: bool,
    /// Keep standard input open.
    pub interactive: bool,
    /// Do not wait.
    pub detach: bool,
    /// All capabilities.
    pub privileged: bool,
    /// Keys that detach from its terminal; empty for none.
    pub detach_keys: Vec<u8>,
}

/// This process's side of a program that it has started in a container.
pub(crate) struct Stage {
    signals: Option<OwnedFd>,
    console: Option<OwnedFd>,
    exec_id: String,
}

impl Stage {
    /// Checks what only this process can know, and from here on signals are the program's.
    pub(crate) fn open(config: &ExecConfig, container: &Container) -> Result<Self, Error> {
        if config.tty && config.interactive && !rustix::termios::isatty(rustix::stdio::stdin()) {
            return Err(Error::flag("--tty", "the input device is not a TTY"));
        }
        if config.args.iter().chain(&config.env).any(|text| text.contains('\0')) {
            return Err(Error::flag("COMMAND", format!("a word for container {} has a null byte", container.name)));
        }
        let signals = (!config.detach).then(hull_sys::signal::redirect).transpose();
        let signals = signals.map_err(Error::io("redirect", "signals"))?;
        Ok(Self { signals, console: None, exec_id: names::hex(&names::random()?) })
    }

    /// The program's streams.
    pub(crate) fn streams(&mut self, config: &ExecConfig) -> Result<Streams, Error> {
        let mut streams = Streams::default();
        if config.tty {
            let (ours, theirs) = terminal::console_pair().map_err(Error::io("create", "console socket"))?;
            streams.console = Some(theirs);
            self.console = Some(ours);
        } else if config.detach {
            streams.stdio = Some([null()?, null()?, null()?]);
        } else {
            streams.stdio = Some(own_streams(config.interactive, null()?)?);
        }
        Ok(streams)
    }

    fn tell(&self, engine: &Engine, container: &Container, action: &str, more: &[(&str, &str)]) {
        let id = [("execID", self.exec_id.as_str())];
        events::emit(engine, container, action, &[&id, more].concat());
    }

    /// Serves the program until it ends, or until its user detaches, and returns its exit code.
    pub(crate) fn attend(
        self,
        engine: &Engine,
        container: &Container,
        config: &ExecConfig,
        running: &Running,
    ) -> Result<i32, Error> {
        engine.note_exec(&container.id, &self.exec_id, running.pid);
        let words = config.args.join(" ");
        self.tell(engine, container, &format!("exec_create: {words}"), &[]);
        self.tell(engine, container, &format!("exec_start: {words}"), &[]);
        let Some(signals) = &self.signals else { return Ok(0) };
        let mut io = match &self.console {
            Some(socket) => {
                let master = terminal::receive(socket).map_err(Error::io("receive", "terminal"))?;
                Console::new(master, config.interactive)?
            }
            None => Console::none(),
        };
        let keys = if config.tty && config.interactive { config.detach_keys.as_slice() } else { &[] };
        let attended = io.attend(running, signals, keys);
        match attended {
            Ok(Attended::Detached) => {
                self.tell(engine, container, "exec_detach", &[]);
                io.keep();
                return Ok(0);
            }
            Ok(Attended::Ended) => {}
            Err(_) => {
                let _ = hull_sys::signal::pidfd_send_signal(running.pidfd.as_fd(), 9);
            }
        }
        let code = running.wait()?;
        engine.forget_exec(&container.id, &self.exec_id);
        self.tell(engine, container, "exec_die", &[("exitCode", &code.to_string())]);
        attended.map(|_| code)
    }
}

impl Engine {
    /// Runs a program in a container and returns its exit code; 0 at once with `detach`. In one that is stopped it runs
    /// on the container's files, in a sandbox that goes with it.
    ///
    /// # Errors
    /// [`Error::Status`] for a container that is paused or about to be restarted.
    pub fn exec(&self, container: &Container, config: &ExecConfig) -> Result<i32, Error> {
        let state = self.state(&container.id)?;
        let status = match state.phase {
            Phase::Created | Phase::Exited => return self.exec_stopped(container, config),
            Phase::Restarting => "restarting: wait until it runs",
            Phase::Running if self.is_paused(&container.id) => "paused",
            Phase::Running => "",
        };
        if !status.is_empty() {
            let status = status.to_owned();
            return Err(Error::Status { operation: "exec in", id: container.name.clone(), status });
        }
        let root = self.oci_root();
        let record = Record::load(&root, &container.id)?;
        let process = process(&record, &root, config)?;
        let mut stage = Stage::open(config, container)?;
        if let Some(foreign) = self.foreign(&container.id) {
            let streams = stage.streams(config)?;
            let (running, console) = self.exec_foreign(&foreign, &container.id, &stage.exec_id, &process, streams)?;
            stage.console = console;
            return stage.attend(self, container, config, &running);
        }
        let options = ExecOptions { streams: stage.streams(config)?, ..ExecOptions::default() };
        let running = hull_runtime::exec(&root, &container.id, &process, options)?;
        stage.attend(self, container, config, &running)
    }
}

/// The container's own program with what `exec` changes.
pub(crate) fn process(record: &Record, root: &std::path::Path, config: &ExecConfig) -> Result<Process, Error> {
    let spec = record.spec(root)?;
    let mut process = spec.process.unwrap_or_default();
    process.args.clone_from(&config.args);
    process.terminal = config.tty;
    process.console_size = None;
    if config.tty
        && let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdout())
    {
        process.console_size = Some(ConsoleSize { height: size.ws_row, width: size.ws_col });
    }
    let term = config.tty.then(|| "TERM=xterm".to_owned());
    for variable in term.iter().chain(&config.env) {
        let name = variable.split('=').next().unwrap_or_default();
        match process.env.iter_mut().find(|one| one.split('=').next() == Some(name)) {
            Some(present) => present.clone_from(variable),
            None => process.env.push(variable.clone()),
        }
    }
    if let Some(directory) = &config.workdir {
        if !directory.starts_with('/') {
            return Err(Error::flag("--workdir", format!("{directory:?} must be an absolute path")));
        }
        process.cwd.clone_from(directory);
    }
    if let Some(text) = &config.user {
        // The root that the container sees, overlay and mounts included; the process is proven alive after the open.
        let inside = Root::open(std::path::Path::new(&format!("/proc/{}/root", record.pid)))?;
        record.pidfd()?;
        let user = hull_runtime::process::user::resolve(&inside, text).map_err(|error| {
            let reason = error.to_string();
            Error::flag("--user", reason.strip_prefix("config field `user`: ").unwrap_or(&reason))
        })?;
        process.user =
            User { uid: user.uid, gid: user.gid, umask: process.user.umask, additional_gids: user.additional_gids };
        if let Some(home) = user.home {
            process.env.retain(|one| !one.starts_with("HOME="));
            process.env.push(format!("HOME={home}"));
        }
    }
    let mut capabilities = process.capabilities.take().unwrap_or_default();
    if config.privileged {
        let sets = rustix::thread::capabilities(None).map_err(Error::io("read", "own capabilities"))?;
        let own = sets.permitted.bits();
        let names = CAPABILITIES.iter().enumerate().filter(|(number, _)| own & (1 << number) != 0);
        capabilities.bounding = names.map(|(_, name)| (*name).to_owned()).collect();
    }
    let root = process.user.uid == 0 || config.privileged;
    let kept = if root { capabilities.bounding.clone() } else { Vec::new() };
    process.capabilities = Some(Capabilities { effective: kept.clone(), permitted: kept, ..capabilities });
    Ok(process)
}
