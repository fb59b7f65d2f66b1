//! `create`, `run` and `start`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use hull_oci::Spec;
use hull_oci::spec::{MAX_CONFIG_BYTES, Mount};
use hull_runtime::{Container, CreateOptions, Rootfs};

use super::args::Parsed;
use super::foreground::{self, Console};
use super::streams::{self, Inherited};
use super::{CommandError, Globals, id};

/// Where a program finds the service manager's socket inside the container.
const NOTIFY_TARGET: &str = "/run/notify/notify.sock";

/// Creates a container; its program waits for `start`.
pub(super) fn create(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    let (spec, options) = prepare(globals, parsed)?;
    check_console(&spec, options.streams.console.is_some(), true)?;
    let container = made(globals, parsed, spec, options)?;
    drop(container);
    Ok(0)
}

/// Starts the program of a created container.
pub(super) fn start(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    hull_runtime::start(&globals.root, id(parsed)?)?;
    Ok(0)
}

/// Creates a container, starts its program, and unless detached waits for it and deletes the container.
pub(super) fn run(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    let detach = parsed.on("detach");
    let (spec, mut options) = prepare(globals, parsed)?;
    check_console(&spec, options.streams.console.is_some(), detach)?;
    let own_console = take_console(&spec, &mut options)?;
    if !detach && !parsed.on("no-subreaper") {
        // Orphans of a container without a PID namespace come here instead of to the machine's init.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|errno| CommandError::new(format!("become subreaper: {errno}")))?;
    }
    let container = made(globals, parsed, spec, options)?;
    let id = container.id().to_owned();
    let result = attend(container, own_console, detach);
    if result.is_err() || (!detach && !parsed.on("keep")) {
        remove(globals, &id);
    }
    result
}

fn attend(container: Container, console: Option<Console>, detach: bool) -> Result<u8, CommandError> {
    let terminal = console.map(Console::receive).transpose()?;
    let running = container.start()?;
    if detach { Ok(0) } else { foreground::attend(&running, terminal) }
}

/// A console socket of our own, when the program wants a terminal and nobody else receives it.
pub(super) fn take_console(spec: &Spec, options: &mut CreateOptions) -> Result<Option<Console>, CommandError> {
    if options.streams.console.is_some() || !wants_terminal(spec) {
        return Ok(None);
    }
    let (console, theirs) = Console::new()?;
    options.streams.console = Some(theirs);
    Ok(Some(console))
}

fn wants_terminal(spec: &Spec) -> bool {
    spec.process.as_ref().is_some_and(|process| process.terminal)
}

/// A terminal needs exactly one receiver: the console socket when detached, else the runtime itself.
pub(super) fn check_console(spec: &Spec, socket: bool, detach: bool) -> Result<(), CommandError> {
    match (wants_terminal(spec), socket) {
        (true, false) if detach => Err(CommandError::new(
            "process.terminal is set, and nobody would receive the terminal: expected --console-socket",
        )),
        (false, true) => Err(CommandError::new("--console-socket is given, but process.terminal is not set")),
        _ => Ok(()),
    }
}

/// Creates the container, passes on its warnings and writes the process ID file; deletes it again if that fails.
fn made(globals: &Globals, parsed: &Parsed, spec: Spec, options: CreateOptions) -> Result<Container, CommandError> {
    let container = hull_runtime::create(spec, options)?;
    for warning in container.warnings() {
        globals.log.warning(warning);
    }
    if let Some(path) = parsed.get("pid-file")
        && let Err(error) = streams::write_pid_file(path, container.pid())
    {
        remove(globals, container.id());
        return Err(error);
    }
    Ok(container)
}

/// Deletes a container; what fails is a warning, because the command's own result stands.
pub(super) fn remove(globals: &Globals, id: &str) {
    match hull_runtime::lifecycle::delete(&globals.root, id, true) {
        // A program that runs `delete` on its own container leaves nothing to do.
        Ok(_) | Err(hull_runtime::Error::NoContainer(_)) => {}
        Err(error) => globals.log.warning(&format!("delete container {id}: {error}")),
    }
}

/// Reads the bundle and turns flags into options.
pub(super) fn prepare(globals: &Globals, parsed: &Parsed) -> Result<(Spec, CreateOptions), CommandError> {
    let id = id(parsed)?.to_owned();
    let bundle = parsed.get("bundle").filter(|bundle| !bundle.is_empty()).unwrap_or(OsStr::new("."));
    let bundle = std::fs::canonicalize(bundle)
        .map_err(|error| CommandError::new(format!("bundle {}: {error}", bundle.display())))?;
    let config = match parsed.get("config") {
        Some(path) => PathBuf::from(path),
        None => bundle.join("config.json"),
    };
    let mut spec = read_spec(&config)?;
    let Inherited { streams, env } = streams::inherited(parsed)?;
    if let Some(process) = &mut spec.process {
        process.env.extend(env);
    }
    pass_notify_socket(&mut spec, std::env::var("NOTIFY_SOCKET").ok().as_deref());
    let options = CreateOptions {
        id,
        bundle,
        root: globals.root.clone(),
        rootfs: Rootfs::Config,
        trees: Vec::new(),
        streams,
        cgroup_driver: globals.driver,
        no_pivot: parsed.on("no-pivot"),
        no_new_keyring: parsed.on("no-new-keyring"),
        signals_blocked: false,
        filter: None,
    };
    Ok((spec, options))
}

fn read_spec(path: &Path) -> Result<Spec, CommandError> {
    let bytes = read_bounded(path, MAX_CONFIG_BYTES)?;
    Spec::parse(&bytes).map_err(|error| CommandError::new(format!("{}: {error}", path.display())))
}

/// Reads a document of the caller. One byte more than allowed is read, so that the parser can say it is too large.
pub(super) fn read_bounded(path: &Path, max: usize) -> Result<Vec<u8>, CommandError> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |error: std::io::Error| CommandError::new(format!("open {}: {error}", path.display()));
    let mut bytes = Vec::with_capacity(16 << 10);
    // A FIFO must not hold the caller: it opens at once and then is refused. Pipes of the caller come by /dev/fd.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::File::options().read(true).custom_flags(nonblocking).open(path).map_err(failed)?;
    if !path.starts_with("/dev/fd") && !path.starts_with("/proc") && !file.metadata().map_err(failed)?.is_file() {
        return Err(CommandError::new(format!("{} is not a regular file", path.display())));
    }
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Lets the program tell the service manager that it is ready (`sd_notify(3)`): its socket is mounted into the
/// container. A socket without a path belongs to the caller's network namespace and cannot be passed.
fn pass_notify_socket(spec: &mut Spec, socket: Option<&str>) {
    let Some(socket) = socket.filter(|socket| socket.starts_with('/')) else { return };
    let Some(process) = &mut spec.process else { return };
    process.env.retain(|variable| !variable.starts_with("NOTIFY_SOCKET="));
    process.env.push(format!("NOTIFY_SOCKET={NOTIFY_TARGET}"));
    spec.mounts.push(Mount {
        destination: NOTIFY_TARGET.to_owned(),
        kind: "bind".to_owned(),
        source: socket.to_owned(),
        options: ["bind", "nosuid", "noexec", "nodev"].map(str::to_owned).to_vec(),
        ..Mount::default()
    });
}

#[cfg(test)]
mod tests {
    use hull_oci::spec::Process;

    use super::*;

    fn spec(terminal: bool) -> Spec {
        Spec { process: Some(Process { terminal, ..Process::default() }), ..Spec::default() }
    }

    #[test]
    fn a_terminal_needs_one_receiver() {
        for (terminal, socket, detach, ok) in [
            (true, false, true, false),
            (true, false, false, true),
            (true, true, true, true),
            (true, true, false, true),
            (false, true, true, false),
            (false, false, true, true),
        ] {
            assert_eq!(check_console(&spec(terminal), socket, detach).is_ok(), ok, "{terminal} {socket} {detach}");
        }
    }

    #[test]
    fn notify_socket_is_mounted_when_it_has_a_path() {
        let mut with = spec(false);
        pass_notify_socket(&mut with, Some("/run/systemd/notify"));
        assert_eq!(with.mounts[0].source, "/run/systemd/notify");
        assert_eq!(with.process.unwrap().env, [format!("NOTIFY_SOCKET={NOTIFY_TARGET}")]);
        let mut without = spec(false);
        pass_notify_socket(&mut without, Some("@abstract"));
        assert!(without.mounts.is_empty() && without.process.unwrap().env.is_empty());
    }
}
