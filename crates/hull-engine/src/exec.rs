//! `exec`: a further program in a running container.

use std::os::fd::AsFd;

use hull_fs::Root;
use hull_oci::spec::{Capabilities, ConsoleSize, Process, User};
use hull_runtime::state::Record;
use hull_runtime::{ExecOptions, Streams};

use crate::console::{Console, own_streams};
use crate::error::Error;
use crate::events;
use crate::launch::null;
use crate::records::{Container, Engine, Phase};
use crate::terminal;
use hull_oci::spec::CAPABILITIES;

/// What `exec` can be told.
#[derive(Clone, Debug, Default)]
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
}

impl Engine {
    /// Runs a program in a container and returns its exit code; 0 at once with `detach`.
    ///
    /// # Errors
    /// [`Error::Status`] unless the container runs.
    pub fn exec(&self, container: &Container, config: &ExecConfig) -> Result<i32, Error> {
        let state = self.state(&container.id)?;
        if state.phase != Phase::Running {
            let status = state.phase.as_str().to_owned();
            return Err(Error::Status { operation: "exec in", id: container.id.clone(), status });
        }
        if config.tty && config.interactive && !rustix::termios::isatty(rustix::stdio::stdin()) {
            return Err(Error::flag("--tty", "standard input is not a terminal"));
        }
        let root = self.oci_root();
        let record = Record::load(&root, &container.id)?;
        let told = Told::new(self, container, config)?;
        let process = process(&record, &root, config)?;
        let signals = (!config.detach).then(hull_sys::signal::redirect).transpose();
        let signals = signals.map_err(Error::io("redirect", "signals"))?;
        let mut streams = Streams::default();
        let mut console = None;
        if config.tty {
            let (ours, theirs) = terminal::console_pair().map_err(Error::io("create", "console socket"))?;
            streams.console = Some(theirs);
            console = Some(ours);
        } else if config.detach {
            streams.stdio = Some([null()?, null()?, null()?]);
        } else {
            streams.stdio = Some(own_streams(config.interactive, null()?)?);
        }
        let options = ExecOptions { streams, ..ExecOptions::default() };
        told.tell("create", true, &[]);
        told.tell("start", true, &[]);
        let running = hull_runtime::exec(&root, &container.id, &process, options)?;
        let Some(signals) = signals else { return Ok(0) };
        let mut io = match console {
            Some(socket) => {
                let master = terminal::receive(&socket).map_err(Error::io("receive", "terminal"))?;
                Console::new(master, config.interactive)?
            }
            None => Console::none(),
        };
        let attended = io.attend(&running, &signals);
        if attended.is_err() {
            let _ = hull_sys::signal::pidfd_send_signal(running.pidfd.as_fd(), 9);
        }
        let code = running.wait()?;
        told.tell("die", false, &[("exitCode", &code.to_string())]);
        attended.map(|()| code)
    }
}

/// What is told of one `exec`.
struct Told<'a> {
    engine: &'a Engine,
    container: &'a Container,
    id: String,
    command: String,
}

impl<'a> Told<'a> {
    fn new(engine: &'a Engine, container: &'a Container, config: &ExecConfig) -> Result<Self, Error> {
        let id = crate::names::hex(&crate::names::random()?);
        Ok(Self { engine, container, id, command: config.args.join(" ") })
    }

    fn tell(&self, what: &str, with_command: bool, more: &[(&str, &str)]) {
        let command = if with_command { format!(": {}", self.command) } else { String::new() };
        let mut attributes = vec![("execID", self.id.as_str())];
        attributes.extend_from_slice(more);
        events::emit(self.engine, self.container, &format!("exec_{what}{command}"), &attributes);
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
        let user = hull_runtime::process::user::resolve(&inside, text)
            .map_err(|error| Error::flag("--user", error.to_string()))?;
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
