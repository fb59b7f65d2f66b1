//! Who waits for the start of a container, and who waits for its end: clients attach, and wait, before they start it.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hull_engine::monitor::protocol::{self, Frames};
use hull_engine::records::Phase;
use hull_engine::{Container, Engine, events};
use hull_oci::spec::one_line;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use serde_json::json;

use super::attach;
use super::relay::Monitor;
use crate::api::Api;
use crate::http::{Reply, Request, Stream};
use crate::refusal::Refusal;

/// How often it is looked whether a container that has ended is removed, beside when something is heard of it.
const LOOK: Duration = Duration::from_millis(50);

/// A container that has gone within so many nanoseconds is still known by its last events.
const LATELY: u64 = 10_000_000_000;

/// One that removes itself does so within so many nanoseconds of its end; otherwise somebody else has removed it.
const AT_ONCE: u64 = 2_000_000_000;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

pub(super) fn wait(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let condition = match request.query.text("condition") {
        "" | "not-running" => Condition::NotRunning,
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        other => return Err(Refusal::bad(format!("invalid condition: \"{}\"", one_line(other)))),
    };
    let container = match api.container(request.param("id")) {
        Err(refusal) if refusal.status == 404 => {
            // Some clients ask only after the start, when a container that removes itself may be gone already.
            let code = removed_itself(api, request.param("id")).ok_or(refusal)?;
            return Ok(Reply::json(200, &json!({ "StatusCode": code })));
        }
        found => found?,
    };
    let state = api.engine.state(&container.id)?;
    let ended = matches!(state.phase, Phase::Created | Phase::Exited);
    // Open past its removal, for one whose monitor is about to go.
    let written = std::fs::File::open(api.engine.directory(&container.id).join("exit")).ok().filter(|_| !ended);
    // Before the answer: whoever has its head may start the container.
    let monitor = match condition {
        Condition::NotRunning if ended => None,
        _ => Some(attach::monitor(api, &container.id, 0)?),
    };
    let api = Arc::clone(api);
    Ok(Reply::stream("application/json", move |stream| {
        let heard = match monitor {
            None => Some(state.exit_code),
            Some(monitor) => exit(&api, &container, monitor, written, (condition, ended), stream),
        };
        let Some(code) = heard else { return Ok(()) };
        if condition == Condition::Removed && !await_removal(&api.engine, &container.id, stream) {
            return Ok(());
        }
        serde_json::to_writer(&mut *stream, &json!({ "StatusCode": code }))?;
        stream.write_all(b"\n")
    }))
}

/// Waits until a container is removed; `false` when the client has gone.
fn await_removal(engine: &Engine, id: &str, stream: &Stream) -> bool {
    let removal = engine.removal(id);
    let limit = Timespec::try_from(LOOK).ok();
    while !removal.is_done() {
        let mut list = vec![PollFd::from_borrowed_fd(stream.gone(), PollFlags::empty())];
        list.extend(removal.watch().map(|watch| PollFd::from_borrowed_fd(watch, PollFlags::IN)));
        let _ = poll(&mut list, limit.as_ref());
        if stream.is_gone() {
            return false;
        }
    }
    true
}

/// The exit code of a container that has ended and gone within the last seconds, at once.
fn removed_itself(api: &Api, id: &str) -> Option<i32> {
    let now = crate::images::now();
    let filters =
        [("type", "container"), ("container", id)].map(|(key, value)| (key.to_owned(), vec![value.to_owned()]));
    let query = events::Query { since: Some(now.saturating_sub(LATELY)), until: Some(now), filters: filters.into() };
    let mut ended = None;
    let read = events::read(&api.engine, &query, &mut |event| {
        let attributes = &event.actor.attributes;
        let same = event.actor.id == id || attributes.get("name").is_some_and(|name| name == id);
        if !same || !api.sees(attributes) {
            return true;
        }
        match event.action.as_str() {
            "die" => {
                let code = attributes.get("exitCode").and_then(|code| code.parse::<i32>().ok());
                ended = code.map(|code| (event.time_nano, code));
            }
            // Its end may be told before its removal is.
            "destroy" => ended = ended.filter(|(at, _)| event.time_nano.saturating_sub(*at) < AT_ONCE),
            _ => {}
        }
        true
    });
    read.ok().and(ended).map(|(_, code)| code)
}

/// The exit code that a monitor tells; `None` when the client has gone.
fn exit(
    api: &Arc<Api>,
    container: &Container,
    mut monitor: Monitor,
    written: Option<std::fs::File>,
    (condition, had_ended): (Condition, bool),
    stream: &mut Stream,
) -> Option<i32> {
    let limit = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
    let mut frames = Frames::default();
    let known = || api.engine.state(&container.id).ok();
    // What the last start came to that failed: the end of a container that is removed after it.
    let mut tried = None;
    let code = loop {
        let waits = monitor.waiting.is_some();
        let mut list =
            [PollFd::new(&monitor.socket, PollFlags::IN), PollFd::from_borrowed_fd(stream.gone(), PollFlags::empty())];
        let count = match poll(&mut list, waits.then_some(&limit)) {
            Err(Errno::INTR) => continue,
            Err(_) => break None,
            Ok(count) => count,
        };
        let ready = !list[0].revents().is_empty();
        if stream.is_gone() {
            return None;
        }
        if count == 0 {
            // It has ended after it was looked at and before its monitor could be asked: nobody will say it.
            let ended = !had_ended && waits && known().is_some_and(|state| state.phase == Phase::Exited);
            if ended && monitor.waiting.as_ref().is_some_and(super::relay::Place::leave) {
                break None;
            }
            if !monitor.look(api, &container.id, 0) {
                break None;
            }
            continue;
        }
        if !ready {
            continue;
        }
        let mut buffer = [0; 4096];
        match recv(&monitor.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                // A start that failed, or a monitor that was killed. Who waits for the next end goes on waiting.
                let left = known();
                tried = left.as_ref().map(|state| state.exit_code);
                let again = condition != Condition::NotRunning
                    && left.as_ref().is_some_and(|state| state.phase == Phase::Created);
                match again.then(|| attach::monitor(api, &container.id, 0).ok()).flatten() {
                    Some(next) => monitor = next,
                    None => break None,
                }
            }
            Ok((length, _)) => frames.push(&buffer[..length]),
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(_) => break None,
        }
        let mut exited = None;
        while let Ok(Some((kind, payload))) = frames.next() {
            if kind == protocol::EXITED
                && let &[a, b, c, d] = payload
            {
                exited = Some(i32::from_be_bytes([a, b, c, d]));
            }
        }
        if exited.is_some() {
            break exited;
        }
    };
    let written = || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut written?, &mut text).ok()?;
        text.trim().parse().ok()
    };
    Some(code.or_else(written).or_else(|| known().map(|state| state.exit_code)).or(tried).unwrap_or(0))
}
