//! What needs a process with a single thread, done by another process of the same binary.
//!
//! A step gets its words on the command line, and on its standard input what it is to read, or a socket over which it
//! gets descriptors: a message of one byte for each, and the descriptors beside it. It says on its standard output what
//! came of it, as one line: a document, or `{"refused": STATUS, "message": ...}`; what else it gives follows that line.

use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_engine::cp::Extraction;
use hull_engine::monitor::protocol;
use hull_engine::{Container, Engine};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde_json::{Value, json};

use crate::refusal::Refusal;

/// First word of the command line of a step, which is no command for users.
pub const COMMAND: &str = "api-step";

/// Descriptors that a step can get.
const MOST_DESCRIPTORS: usize = 128;

/// Bytes of a message to a step.
const MOST_BYTES: usize = 64 << 10;

/// A command line of this binary on the same directories.
pub(crate) fn own(engine: &Engine) -> Command {
    const EXE: &str = "/proc/self/exe";
    let mut command = Command::new(EXE);
    // What runs from a mount that is attached nowhere finds its file, to make it a container's first process, by this.
    if let Ok(path) = std::fs::read_link(EXE) {
        command.arg0(path);
    }
    command.arg("--root").arg(engine.root()).arg("--state").arg(engine.state_root());
    command
}

/// A child that is killed and reaped when nobody cares for it any more.
pub(crate) struct Reaped(pub(crate) Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Starts a step; its output can be read.
pub(crate) fn spawn(engine: &Engine, words: &[&str], input: Stdio) -> Result<Child, Refusal> {
    if words.iter().any(|word| word.contains('\0')) {
        return Err(Refusal::bad("invalid argument: a null byte is in it"));
    }
    let mut command = own(engine);
    command.arg(COMMAND).arg("--").args(words).stdin(input).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().map_err(|error| Refusal::failed(format!("start a process of hull: {error}")))
}

/// What the line means that a step has said.
pub(crate) fn answer(line: &[u8]) -> Result<Value, Refusal> {
    let document: Value =
        serde_json::from_slice(line).map_err(|_| Refusal::failed("a process of hull ended without an answer"))?;
    match document["refused"].as_u64().and_then(|status| u16::try_from(status).ok()) {
        Some(status) => Err(Refusal::new(status, document["message"].as_str().unwrap_or_default())),
        None => Ok(document),
    }
}

/// A socket for descriptors, with the message in it.
pub(crate) fn message(bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(&ours, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok((ours, theirs))
}

/// The message and the descriptors on standard input.
pub(crate) fn received() -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; MOST_BYTES];
    let message =
        recvmsg(rustix::stdio::stdin(), &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    bytes.truncate(message.bytes);
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            descriptors.extend(files);
        }
    }
    Ok((bytes, descriptors))
}

/// Has a step done, gives it sockets of clients and what they want, and waits for what it says.
pub(crate) fn ask(engine: &Engine, words: &[&str], mut clients: Vec<(OwnedFd, u8)>) -> Result<Value, Refusal> {
    // More attach to one container only to tie things up.
    clients.truncate(MOST_DESCRIPTORS);
    let fail = |error: io::Error| Refusal::failed(format!("pass sockets to a process of hull: {error}"));
    let (input, _ours) = if clients.is_empty() {
        (Stdio::null(), None)
    } else {
        let bytes: Vec<u8> = clients.iter().map(|(_, wants)| *wants).collect();
        let sockets: Vec<BorrowedFd<'_>> = clients.iter().map(|(socket, _)| socket.as_fd()).collect();
        let (ours, theirs) = message(&bytes, &sockets).map_err(fail)?;
        (Stdio::from(theirs), Some(ours))
    };
    let child = spawn(engine, words, input)?;
    // Their only owner is the container's monitor from here on.
    drop(clients);
    let output = child.wait_with_output().map_err(|error| Refusal::failed(error.to_string()))?;
    answer(&output.stdout)
}

/// Says what came of a step.
pub(crate) fn say(result: &Result<Value, Refusal>) -> u8 {
    let line = match result {
        Ok(document) => document.to_string(),
        Err(refusal) => json!({ "refused": refusal.status, "message": refusal.message }).to_string(),
    };
    let mut output = io::stdout().lock();
    // Whoever asked may have gone.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    u8::from(result.is_err())
}

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
            say(&done.map(|_| json!({})).map_err(Refusal::from))
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
