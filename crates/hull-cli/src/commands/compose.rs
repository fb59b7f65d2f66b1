//! `hull compose`: Docker's Compose, which is a program of its own, against Hull.
//!
//! Compose becomes this process. It finds Hull at `DOCKER_HOST`; unless that is set, at the socket of `hull serve`, which
//! is started when nobody listens there and ends by itself when nobody has asked for a while. It keeps nothing, so what
//! Compose made goes on without it.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hull_engine::Engine;

use super::api::default_socket;
use super::values::Words;
use super::{Done, Failure};

/// Its name as a program and as Docker's plugin.
const NAME: &str = "docker-compose";

/// Seconds without a request after which a server that was started for Compose ends.
const IDLE: &str = "60";

/// So long a server may take until it listens.
const STARTING: Duration = Duration::from_secs(10);

/// Where Docker's plugins are, after the user's own.
const PLUGINS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// The program, as a command of its own or as Docker's plugin.
fn program() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let docker = variable("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".docker")));
    let path = variable("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path)
        .chain(docker.map(|docker| docker.join("cli-plugins")))
        .chain(PLUGINS.map(PathBuf::from));
    let is_program = |path: &PathBuf| {
        path.is_absolute()
            && std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    places.map(|place| place.join(NAME)).find(is_program)
}

/// Starts a server of the same data that outlives this process.
fn start(engine: &Engine) -> Result<std::process::Child, Failure> {
    let fail = |error: std::io::Error| Failure::new(format!("start 'hull serve': {error}"));
    let mut server = Command::new(std::env::current_exe().map_err(fail)?);
    server.arg("--root").arg(engine.root()).arg("--state").arg(engine.state_root());
    server.args(["serve", "--idle", IDLE]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Signals of this terminal are Compose's.
    server.process_group(0).spawn().map_err(fail)
}

/// The socket that Compose is to use; somebody listens there.
fn served(engine: &Engine) -> Result<PathBuf, Failure> {
    let socket = default_socket(engine);
    if UnixStream::connect(&socket).is_ok() {
        return Ok(socket);
    }
    let mut server = start(engine)?;
    let begun = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        let ended = matches!(server.try_wait(), Ok(Some(_)));
        // Of two that start at once, one listens.
        if (ended && UnixStream::connect(&socket).is_err()) || begun.elapsed() > STARTING {
            let at = socket.display();
            return Err(Failure::new(format!("nobody listens on {at}: run 'hull serve' to see why")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(socket)
}

pub(super) fn main(engine: &Engine, words: &Words) -> Done {
    let Some(program) = program() else {
        return Err(Failure::new(
            "compose is a program of its own: install docker-compose (version 2); it is run against 'hull serve'",
        ));
    };
    let mut compose = Command::new(&program);
    compose.args(words.all());
    if std::env::var_os("DOCKER_HOST").is_none_or(|host| host.is_empty()) {
        let mut host = OsString::from("unix://");
        host.push(served(engine)?);
        compose.env("DOCKER_HOST", host);
    }
    let error = compose.exec();
    Err(Failure::new(format!("run {}: {error}", program.display())))
}
