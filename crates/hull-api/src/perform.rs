//! Steps ([`crate::step`]) as the process does them that was started for one.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use hull_engine::cp::Extraction;
use hull_engine::monitor::protocol;
use hull_engine::{Container, Engine};
use rustix::net::SendFlags;
use serde_json::{Value, json};

use crate::refusal::Refusal;
use crate::step::{received, say};

/// Why a container could not be started, in words that clients look for.
fn not_started(error: hull_engine::Error) -> Refusal {
    let code = error.exit_code();
    let text = error.to_string();
    match code {
        127 | 126 => {
            let known = match code {
                127 => ["executable file not found", "no such file or directory"],
                _ => ["permission denied", "is a directory"],
            };
            let lower = text.to_lowercase();
            let said = known.iter().any(|words| lower.contains(words));
            let more = if said { String::new() } else { format!(": {}", known[0]) };
            Refusal::bad(format!("failed to create task for container: {text}{more}"))
        }
        _ => match Refusal::from(error) {
            Refusal { status: 500, message, .. } => Refusal::failed(format!("failed to set up container: {message}")),
            refusal => refusal,
        },
    }
}

fn start(engine: &Engine, container: &Container) -> Result<Value, Refusal> {
    let clients = if rustix::fs::fstat(rustix::stdio::stdin())
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Socket)
    {
        let (bytes, sockets) = received().map_err(|error| Refusal::failed(error.to_string()))?;
        sockets.into_iter().zip(bytes).collect()
    } else {
        Vec::new()
    };
    let kept: Vec<OwnedFd> = clients.iter().filter_map(|(socket, _): &(OwnedFd, u8)| socket.try_clone().ok()).collect();
    match engine.start_for(container, clients, &mut |_| {}) {
        Ok(started) => Ok(json!({ "started": started })),
        Err(error) => {
            let code = i32::from(error.exit_code());
            if container.config.remove {
                // As if it had run; what fails here is found by whoever looks.
                let _ = engine.remove(container, true, true);
                for socket in &kept {
                    let mut bytes = Vec::new();
                    protocol::put(&mut bytes, protocol::EXITED, &code.to_be_bytes());
                    let _ = rustix::net::send(socket, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
                }
            }
            Err(not_started(error))
        }
    }
}

fn restart(engine: &Engine, container: &Container, seconds: &str, signal: &str) -> Result<Value, Refusal> {
    let grace = seconds.parse::<u64>().ok().map(Duration::from_secs);
    engine.restart(container, signal.parse().ok(), grace, &mut |_| {}).map_err(not_started)?;
    Ok(json!({}))
}

/// Does a step in this process, and returns its exit code.
#[must_use]
pub fn step(engine: &Engine, words: &[String]) -> u8 {
    // The server keeps signals for itself, and its children get that from it.
    let _ = hull_sys::signal::unblock_all();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [name, id, rest @ ..] = words.as_slice() else { return 125 };
    if *name == "exec" {
        return crate::exec::step(engine, id);
    }
    let container = match engine.container(id) {
        Ok(container) => container,
        Err(error) => return say(&Err(error.into())),
    };
    let written = |result: Result<(), hull_engine::Error>| u8::from(result.is_err());
    match (*name, rest) {
        ("start", []) => say(&start(engine, &container)),
        ("restart", [seconds, signal]) => say(&restart(engine, &container, seconds, signal)),
        ("archive-stat", [path]) => {
            let stat = engine.path_stat(&container, path);
            say(&stat.map(|stat| crate::containers::described(&stat)).map_err(Refusal::from))
        }
        ("archive-put", [path, kinds, own]) => {
            let extraction = Extraction { keep_kinds: *kinds == "1", own: *own == "1" };
            let done = engine.stream_into(&container, path, extraction, io::stdin().lock());
            if done.is_ok() {
                engine.tell(&container, "extract-to-dir", &[("path", path)]);
            }
            // What is no archive fails at dockerd where that is read.
            let failed = |refusal: Refusal| match refusal.message.starts_with("unexpected EOF") {
                true => Refusal::failed(refusal.message),
                false => refusal,
            };
            say(&done.map(|_| json!({})).map_err(|error| failed(error.into())))
        }
        ("archive-get", [path]) => {
            let mut described = false;
            let mut describe = |stat: &hull_engine::cp::PathStat| {
                described = true;
                say(&Ok(crate::containers::described(stat)));
            };
            let done = engine.stream_described(&container, path, &mut describe, io::stdout().lock());
            match done {
                Err(error) if !described => say(&Err(error.into())),
                done => {
                    engine.tell(&container, "archive-path", &[("path", path)]);
                    written(done.map(drop))
                }
            }
        }
        ("export", []) => {
            say(&Ok(json!({})));
            written(engine.export(&container, io::stdout().lock()).map(drop))
        }
        _ => 125,
    }
}
