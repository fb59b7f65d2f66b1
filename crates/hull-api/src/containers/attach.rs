//! A client's connection as a container's streams.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hull_engine::monitor::protocol::{self, WANTS_STDERR, WANTS_STDIN, WANTS_STDOUT};
use hull_engine::records::Phase;
use hull_engine::{Container, attach as keys_of, logs};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

use super::logs::Written;
use super::relay::{Form, Monitor, Multiplexed, Place, Raw, Relay};
use crate::api::Api;
use crate::http::{Hijacked, Reply, Request};
use crate::refusal::Refusal;

/// Keys that detach, of a request.
pub(super) fn keys(request: &Request) -> Result<Vec<u8>, Refusal> {
    let text = request.query.text("detachKeys");
    let wrong = |_| Refusal::bad(format!("Invalid detach keys ({}) provided", hull_oci::spec::one_line(text)));
    keys_of::detach_keys(text).map_err(wrong)
}

/// What a client asks of an attachment.
pub(super) struct Wish {
    pub(super) container: Arc<Container>,
    pub(super) wants: u8,
    pub(super) keys: Vec<u8>,
    logs: bool,
    stream: bool,
}

pub(super) fn wish(api: &Api, request: &Request) -> Result<Wish, Refusal> {
    let container = api.container(request.param("id"))?;
    let state = api.engine.state(&container.id)?;
    if api.engine.is_paused(&container.id) {
        let text = "is paused, unpause the container before attach";
        return Err(Refusal::conflict(format!("container {} {text}", container.id)));
    }
    if state.phase == Phase::Restarting {
        let text = "is restarting, wait until the container is running";
        return Err(Refusal::conflict(format!("container {} {text}", container.id)));
    }
    let mut wants = 0;
    for (name, bit) in [("stdin", WANTS_STDIN), ("stdout", WANTS_STDOUT), ("stderr", WANTS_STDERR)] {
        if request.query.truth(name) {
            wants |= bit;
        }
    }
    if !container.config.interactive {
        wants &= !WANTS_STDIN;
    }
    let stream = request.query.truth("stream");
    Ok(Wish { wants, keys: keys(request)?, logs: request.query.truth("logs"), stream, container })
}

/// The number of one who waits.
pub(super) fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A connection to the monitor, now or at the start.
pub(super) fn monitor(api: &Arc<Api>, id: &str, wants: u8) -> Result<Monitor, Refusal> {
    if api.engine.state(id)?.phase == Phase::Running
        && let Some(socket) = api.engine.greet(id, wants)?
    {
        return Ok(Monitor { socket, waiting: None });
    }
    let fail = |errno: rustix::io::Errno| Refusal::failed(format!("create socket: {errno}"));
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(fail)?;
    let number = number();
    api.waiting.add(id, number, theirs, wants);
    let place = Place { api: Arc::clone(api), id: id.to_owned(), number };
    Ok(Monitor { socket: ours, waiting: Some(place) })
}

/// Connects a client, once its connection is its own.
pub(super) fn serve(api: &Arc<Api>, wish: Wish, monitor: Option<Monitor>, form: Box<dyn Form>, hijacked: Hijacked) {
    let Hijacked { socket, early } = hijacked;
    let mut form = form;
    if wish.logs {
        past(api, &wish, form.as_mut(), &socket);
    }
    let Some(monitor) = monitor else { return };
    api.engine.tell(&wish.container, "attach", &[]);
    let Wish { container, wants, keys, .. } = wish;
    let tty = container.config.tty;
    let relay = Relay {
        api: Arc::clone(api),
        id: container.id.clone(),
        client: socket,
        monitor,
        wants,
        tty,
        keys,
        form,
        early,
    };
    relay.run();
}

/// Sends what was written before.
fn past(api: &Api, wish: &Wish, form: &mut dyn Form, socket: &OwnedFd) {
    let options = logs::Options {
        stdout: wish.wants & WANTS_STDOUT != 0,
        stderr: wish.wants & WANTS_STDERR != 0,
        ..logs::Options::default()
    };
    let mut each = |error: bool, bytes: &[u8]| {
        let mut out = Vec::new();
        form.output(&mut out, error, bytes);
        let mut rest = out.as_slice();
        while !rest.is_empty() {
            match send(socket, rest, SendFlags::NOSIGNAL) {
                Ok(length) => rest = &rest[length..],
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    };
    // A log that cannot be read is no reason not to attach.
    let _ = logs::read(
        &api.engine,
        &wish.container,
        options,
        &mut Written { options, each: &mut each, idle: &mut || true },
    );
}

pub(super) fn attach(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let wish = wish(api, request)?;
    let tty = wish.container.config.tty;
    let form: Box<dyn Form> = if tty { Box::new(Raw) } else { Box::new(Multiplexed) };
    // Before the answer: whoever has it may start the container.
    let monitor = wish.stream.then(|| monitor(api, &wish.container.id, wish.wants)).transpose()?;
    let api = Arc::clone(api);
    Ok(Reply::hijack(request.stream_kind(tty), move |hijacked| serve(&api, wish, monitor, form, hijacked)))
}

pub(crate) fn size(request: &Request) -> Result<(u16, u16), Refusal> {
    let side = |name: &str| -> Result<u16, Refusal> {
        let text = request.query.text(name);
        text.parse().map_err(|_| {
            Refusal::bad(format!(
                "invalid resize {} {text:?}: invalid syntax",
                if name == "h" { "height" } else { "width" }
            ))
        })
    };
    Ok((side("h")?, side("w")?))
}

pub(super) fn resize(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let container = api.container(request.param("id"))?;
    let (height, width) = size(request)?;
    super::running(&api.engine, &container)?;
    let gone = || Refusal::conflict(format!("container {} is not running", container.id));
    let socket = api.engine.greet(&container.id, 0)?.ok_or_else(gone)?;
    let mut bytes = Vec::new();
    let ([a, b], [c, d]) = (height.to_be_bytes(), width.to_be_bytes());
    protocol::put(&mut bytes, protocol::RESIZE, &[a, b, c, d]);
    send(&socket, &bytes, SendFlags::NOSIGNAL).map_err(|_| gone())?;
    Ok(Reply::bytes(200, "text/plain; charset=utf-8", ""))
}
