//! `hull oci`: the OCI runtime command line, also when the binary is called `runc`.
//!
//! It does what runc's does, because containerd, CRI-O, podman and dockerd call it by flags, exit codes and words of
//! error messages. One command is one call into [`hull_runtime`]; what is here is words, files and descriptors of the
//! caller: [`args`] and [`commands`] (grammar), [`log`], [`streams`] (sockets, process ID file, inherited descriptors),
//! [`foreground`] (signals and terminal of an attached program). Nothing here starts a thread.

mod args;
mod change;
mod commands;
mod config;
mod exec;
mod foreground;
mod inspect;
mod launch;
mod log;
mod snapshot;
mod streams;
mod units;

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use hull_cgroup::Driver;

use args::Parsed;
use commands::Command;
use log::{Format, Level, Log};

/// Exit code of `exec` when the program did not start.
const EXEC_FAILED: u8 = 255;

/// Exit code for a command or help topic that does not exist, as runc has it.
const UNKNOWN_COMMAND: u8 = 3;

/// Why a command failed: one line, and the exit code.
#[derive(Debug)]
pub(crate) struct CommandError {
    message: String,
    code: u8,
}

impl CommandError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }
}

impl From<String> for CommandError {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<hull_runtime::Error> for CommandError {
    fn from(error: hull_runtime::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// What the global flags decide.
#[derive(Debug)]
pub(crate) struct Globals {
    root: PathBuf,
    driver: Driver,
    log: Log,
}

/// Runs one command. `args` are the words after the program's name, `invoked_as` is that name (`runc`, `hull oci`).
pub(crate) fn main(args: &[OsString], invoked_as: &str) -> ExitCode {
    let mut log = Log::default();
    match dispatch(args, invoked_as, &mut log) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.failure(&error.message);
            ExitCode::from(error.code)
        }
    }
}

fn dispatch(args: &[OsString], program: &str, log: &mut Log) -> Result<u8, CommandError> {
    let mut global = args::parse(commands::GLOBAL, args, 0)?;
    if global.on("version") {
        return print(&version(program));
    }
    let words = std::mem::take(&mut global.words);
    let Some((name, rest)) = words.split_first() else {
        return print(&commands::overview(program));
    };
    if global.help || name == "help" {
        return match rest.first().filter(|_| name == "help") {
            Some(topic) => print(&command_named(topic, program)?.help(program)),
            None => print(&commands::overview(program)),
        };
    }
    if name == "version" {
        return print(&version(program));
    }
    *log = open_log(&global)?;
    let command = command_named(name, program)?;
    let parsed = args::parse(command.flags, rest, command.last_flag_word)
        .map_err(|error| CommandError::new(format!("{}: {error}", command.name)))?;
    if parsed.help {
        return print(&command.help(program));
    }
    let (least, most) = command.count;
    if parsed.words.len() < least || parsed.words.len() > most {
        let expected = match (least, most) {
            (0, _) => "no arguments".to_owned(),
            (1, 1) => "exactly 1 argument".to_owned(),
            (least, usize::MAX) => format!("at least {least} argument"),
            (least, most) => format!("{least} to {most} arguments"),
        };
        let found = parsed.words.len();
        return Err(CommandError::new(format!("{}: expected {expected}, found {found}", command.name)));
    }
    let globals = Globals { root: state_root(&global)?, driver: driver(&global)?, log: std::mem::take(log) };
    let result = run(command, &globals, &parsed);
    *log = globals.log;
    result
}

/// Parses words.
pub(crate) fn understand(args: &[OsString]) {
    let Ok(global) = args::parse(commands::GLOBAL, args, 0) else { return };
    let Some((name, rest)) = global.words.split_first() else { return };
    if let Ok(command) = command_named(name, "hull oci") {
        drop(args::parse(command.flags, rest, command.last_flag_word));
    }
}

fn command_named(name: &OsStr, program: &str) -> Result<&'static Command, CommandError> {
    name.to_str().and_then(commands::find).ok_or_else(|| CommandError {
        message: format!("unknown command {name:?}; see {program} --help"),
        code: UNKNOWN_COMMAND,
    })
}

fn run(command: &Command, globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    globals.log.debug(&format!("{} {:?}", command.name, parsed.words));
    if matches!(command.name, "create" | "run" | "exec" | "restore") {
        // The words of the command line are read again by the process that takes this one's place.
        hull_runtime::seal()?;
    }
    if !matches!(command.name, "spec" | "features")
        && let Err(error) = hull_runtime::state::repair(&globals.root)
    {
        globals.log.warning(&format!("undo interrupted creations: {error}"));
    }
    match command.name {
        "create" => launch::create(globals, parsed),
        "run" => launch::run(globals, parsed),
        "start" => launch::start(globals, parsed),
        "exec" => exec::exec(globals, parsed).map_err(|error| CommandError { code: EXEC_FAILED, ..error }),
        "state" => inspect::state(globals, parsed),
        "list" => inspect::list(globals, parsed),
        "ps" => inspect::ps(globals, parsed),
        "events" => inspect::events(globals, parsed),
        "features" => inspect::features(),
        "kill" => change::kill(globals, parsed),
        "delete" => change::delete(globals, parsed),
        "pause" => change::pause(globals, parsed),
        "resume" => change::resume(globals, parsed),
        "update" => change::update(globals, parsed),
        "spec" => config::spec(parsed),
        "checkpoint" => snapshot::checkpoint(globals, parsed),
        "restore" => snapshot::restore(globals, parsed),
        other => Err(CommandError::new(format!("unknown command {other:?}"))),
    }
}

fn open_log(global: &Parsed) -> Result<Log, CommandError> {
    let format = match global.text("log-format")? {
        None | Some("text" | "") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => return Err(CommandError::new(format!("invalid log-format {other:?}: expected text or json"))),
    };
    let threshold = match global.text("log-level")? {
        _ if global.on("debug") => Level::Debug,
        None | Some("warning" | "warn" | "info") => Level::Warning,
        Some("error") => Level::Error,
        Some("debug") => Level::Debug,
        Some(other) => {
            return Err(CommandError::new(format!("invalid log-level {other:?}: expected error, warning or debug")));
        }
    };
    Ok(Log::open(global.get("log"), format, threshold)?)
}

/// Where containers are kept: `--root`, or by who calls.
fn state_root(global: &Parsed) -> Result<PathBuf, CommandError> {
    let rootless = match global.text("rootless")? {
        None | Some("auto" | "") => !rustix::process::geteuid().is_root(),
        Some("true" | "1") => true,
        Some("false" | "0") => false,
        Some(other) => {
            return Err(CommandError::new(format!("invalid rootless {other:?}: expected true, false or auto")));
        }
    };
    let root = match global.get("root") {
        Some(root) if !root.is_empty() => PathBuf::from(root),
        _ => match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(runtime) if rootless && !runtime.is_empty() => PathBuf::from(runtime).join("hull/oci"),
            _ => PathBuf::from("/run/hull/oci"),
        },
    };
    std::path::absolute(&root).map_err(|error| CommandError::new(format!("state root {}: {error}", root.display())))
}

fn driver(global: &Parsed) -> Result<Driver, CommandError> {
    match global.text("cgroup-manager")? {
        _ if global.on("systemd-cgroup") => Ok(Driver::Systemd),
        None | Some("cgroupfs" | "") => Ok(Driver::Cgroupfs),
        Some("systemd") => Ok(Driver::Systemd),
        Some("disabled") => Ok(Driver::Disabled),
        Some(other) => {
            Err(CommandError::new(format!("invalid cgroup-manager {other:?}: expected cgroupfs, systemd or disabled")))
        }
    }
}

/// The lines that callers of runc parse.
fn version(program: &str) -> String {
    let commit = option_env!("HULL_COMMIT").unwrap_or("unknown");
    format!("{program} version {}\ncommit: {commit}\nspec: {}\n", env!("CARGO_PKG_VERSION"), hull_oci::spec::VERSION)
}

/// Writes to standard output. A reader that went away is not an error of the command.
fn print(text: &str) -> Result<u8, CommandError> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CommandError::new(format!("write standard output: {error}")))
        }
        _ => Ok(0),
    }
}

fn print_json(value: &impl serde::Serialize, pretty: bool) -> Result<u8, CommandError> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    let text = text.map_err(|error| CommandError::new(format!("write JSON: {error}")))?;
    print(&(text + "\n"))
}

/// The container ID, which is always the first word.
fn id(parsed: &Parsed) -> Result<&str, CommandError> {
    let word = parsed.words.first().map_or(OsStr::new(""), OsString::as_os_str);
    let id = word.to_str().ok_or_else(|| CommandError::new(format!("invalid container ID format: {word:?}")))?;
    hull_runtime::state::check_id(id)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_lines() {
        let text = version("runc");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some(concat!("runc version ", env!("CARGO_PKG_VERSION"))));
        assert!(lines.next().is_some_and(|line| line.starts_with("commit: ")));
        assert_eq!(lines.next(), Some("spec: 1.3.0"));
    }

    #[test]
    fn globals() {
        let parse = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            args::parse(commands::GLOBAL, &words, 0).unwrap()
        };
        let parsed = parse("--root /x --systemd-cgroup --log-format json create --bundle /b id");
        assert_eq!(state_root(&parsed).unwrap(), PathBuf::from("/x"));
        assert_eq!(driver(&parsed).unwrap(), Driver::Systemd);
        assert_eq!(parsed.words, ["create", "--bundle", "/b", "id"]);
        assert_eq!(driver(&parse("--cgroup-manager=disabled list")).unwrap(), Driver::Disabled);
        assert!(driver(&parse("--cgroup-manager=none list")).is_err());
        assert!(open_log(&parse("--log-format xml list")).is_err());
        assert!(state_root(&parse("--rootless maybe list")).is_err());
    }
}
