//! `hull boot`: restart policies across reboots.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_engine::{Engine, Error};

use super::{Done, Failure};
use crate::output::{self, print};

/// Start the containers whose restart policy wants them to run
///
/// This is what the machine does when it comes up: '--install' writes a systemd unit for it. When the machine goes down,
/// the unit stops all containers gracefully, and they are started again with it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull boot --install\n  hull boot\n  hull boot --stop")]
pub(super) struct Args {
    /// Write a systemd unit that does this when the machine comes up
    #[arg(long, conflicts_with_all = ["uninstall", "stop"])]
    install: bool,
    /// Remove the systemd unit
    #[arg(long, conflicts_with = "stop")]
    uninstall: bool,
    /// Stop all containers, because the machine goes down
    #[arg(long)]
    stop: bool,
    /// With --stop: no container has more time than this, in seconds
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Directory of systemd's units
    #[arg(long, value_name = "DIR")]
    unit_dir: Option<PathBuf>,
}

const UNIT: &str = "hull.service";

impl Args {
    /// Whether containers are started.
    pub(super) fn starts(&self) -> bool {
        !(self.install || self.uninstall || self.stop)
    }
}

/// The directory of units, and the target that wants them.
fn place(given: Option<&Path>) -> Result<(PathBuf, &'static str), Failure> {
    let root = rustix::process::geteuid().is_root();
    let target = if root { "multi-user.target" } else { "default.target" };
    if let Some(given) = given {
        return Ok((given.to_owned(), target));
    }
    if root {
        return Ok((PathBuf::from("/etc/systemd/system"), target));
    }
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    let config = config.ok_or_else(|| Failure::new("neither XDG_CONFIG_HOME nor HOME is set: use --unit-dir"))?;
    Ok((config.join("systemd/user"), target))
}

/// A word of a unit's command line.
fn quoted(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control));
    let text = text.ok_or_else(|| Failure::new(format!("{} cannot stand in a unit", path.display())))?;
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    Ok(format!("\"{escaped}\""))
}

fn unit(program: &Path, engine: &Engine, target: &str) -> Result<String, Failure> {
    let command =
        format!("{} --root {} --state {} boot", quoted(program)?, quoted(engine.root())?, quoted(engine.state_root())?);
    // Containers and their monitors outlive the unit's own processes.
    Ok(format!(
        "[Unit]\nDescription=Containers of Hull\nAfter=local-fs.target network-online.target time-sync.target\n\
         Wants=network-online.target\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\nKillMode=process\n\
         TimeoutStartSec=infinity\nTimeoutStopSec=90\nExecStart={command}\nExecStop={command} --stop\n\n\
         [Install]\nWantedBy={target}\n"
    ))
}

/// Tells systemd, where it runs, that units have changed.
fn reload() {
    if Path::new("/run/systemd/system").exists() {
        let mut command = std::process::Command::new("systemctl");
        if !rustix::process::geteuid().is_root() {
            command.arg("--user");
        }
        // It reads the unit at the next boot in any case.
        let _ = command.arg("daemon-reload").status();
    }
}

fn install(engine: &Engine, args: &Args) -> Done {
    let (directory, target) = place(args.unit_dir.as_deref())?;
    let program = std::env::current_exe().map_err(Error::io("find", "the program"))?;
    let text = unit(&program, engine, target)?;
    let wants = directory.join(format!("{target}.wants"));
    std::fs::create_dir_all(&wants).map_err(Error::io("create directory", &wants))?;
    let path = directory.join(UNIT);
    hull_fs::atomic::write_path(&path, text.as_bytes(), 0o644).map_err(Error::from)?;
    let link = wants.join(UNIT);
    match std::os::unix::fs::symlink(Path::new("..").join(UNIT), &link) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::io("create", &link)(error).into());
        }
        _ => {}
    }
    if args.unit_dir.is_none() {
        reload();
    }
    print(format_args!("{}\n", path.display()));
    Ok(0)
}

fn uninstall(args: &Args) -> Done {
    let (directory, target) = place(args.unit_dir.as_deref())?;
    for path in [directory.join(format!("{target}.wants")).join(UNIT), directory.join(UNIT)] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error).into());
            }
            _ => {}
        }
    }
    if args.unit_dir.is_none() {
        reload();
    }
    Ok(0)
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    if args.install {
        return install(engine, args);
    }
    if args.uninstall {
        return uninstall(args);
    }
    let mut failed = false;
    let mut done = |name: &str, result: Result<(), Error>| match result {
        Ok(()) => print(format_args!("{name}\n")),
        Err(error) => {
            output::error(format!("{name}: {error}"));
            failed = true;
        }
    };
    if args.stop {
        engine.shut_down(Duration::from_secs(args.timeout), &mut done)?;
    } else {
        engine.boot(&mut done)?;
    }
    Ok(u8::from(failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_quotes_what_systemd_would_read() {
        assert_eq!(quoted(Path::new("/a b/%n$x\"")).ok().as_deref(), Some("\"/a b/%%n$$x\\\"\""));
        assert!(quoted(Path::new("/a\nExecStart=/bad")).is_err());
    }
}
