//! What needs a process with a single thread, asked of another process of the same binary, where [`crate::perform`] does it.
//!
//! A step gets its words on the command line, and on its standard input what it is to read, or a socket over which it
//! gets descriptors: a message of one byte for each, and the descriptors beside it. It says on its standard output what
//! came of it, as one line: a document, or `{"refused": STATUS, "message": ...}`; what else it gives follows that line.

use std::io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use hull_engine::Engine;
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

/// Bytes of what a step says.
const MOST_SAID: u64 = 1 << 20;

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

/// Has a step done, and waits for what it says.
pub(crate) fn ask(engine: &Engine, words: &[&str]) -> Result<Value, Refusal> {
    let (answer, mut child) = begin(engine, words, Vec::new())?;
    let _ = child.wait();
    Ok(answer)
}

/// Has a step done, gives it sockets of clients and what they want, and waits for what it says: that it ends then is left
/// to be waited for.
pub(crate) fn begin(
    engine: &Engine,
    words: &[&str],
    mut clients: Vec<(OwnedFd, u8)>,
) -> Result<(Value, Child), Refusal> {
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
    let mut child = spawn(engine, words, input)?;
    // Their only owner is the container's monitor from here on.
    drop(clients);
    let mut line = Vec::new();
    if let Some(output) = child.stdout.take() {
        // Without a line it has failed, which is told by what there is.
        let _ = BufReader::with_capacity(1 << 10, output.take(MOST_SAID)).read_until(b'\n', &mut line);
    }
    match answer(&line) {
        Ok(said) => Ok((said, child)),
        Err(refusal) => {
            let _ = child.wait();
            Err(refusal)
        }
    }
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
