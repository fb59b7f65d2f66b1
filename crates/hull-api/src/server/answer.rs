//! The life of a request: who answers it, and how the answer and what follows it reach the client.

use std::convert::Infallible;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hull_engine::records::LOOKING;
use hyper::body::{Body as _, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::load::{Among, Asked, Busy, Load, Turn};
use super::{STACK, Shared, raw};
use crate::api::Api;
use crate::http::{Answer, Body, DRAIN, Hijacked, Kind, Reply, Request, Stream, response};
use crate::query::{Query, decode};
use crate::refusal::Refusal;
use crate::route::Handler;
use crate::version::{API_VERSION, ENGINE_VERSION};
use crate::{guard, router};

/// A request that changes something waits so long for what killed processes left to be undone.
const REPAIR: Duration = Duration::from_secs(60);

/// Some clients lose what comes with the answer that a connection is not HTTP any more: they are given so long to take
/// that answer, and in any case a moment.
const TAKEN: Duration = Duration::from_millis(50);
const GAP: Duration = Duration::from_millis(1);

type Response = hyper::Response<Answer>;

/// Where the head of an answer goes to.
struct Head {
    sender: oneshot::Sender<Response>,
    asked: Asked,
}

impl Head {
    fn send(self, response: Response) {
        drop(self.asked);
        // A client that has gone needs none.
        let _ = self.sender.send(response);
    }
}

/// Headers of every answer.
fn common() -> Vec<(&'static str, String)> {
    vec![
        ("api-version", API_VERSION.to_owned()),
        ("docker-experimental", "false".to_owned()),
        ("ostype", "linux".to_owned()),
        ("server", format!("Docker/{ENGINE_VERSION} (linux)")),
    ]
}

fn whole(status: u16, headers: Vec<(&'static str, String)>, bytes: Vec<u8>) -> Response {
    let mut all = common();
    all.extend(headers);
    response(status, &all, Answer::whole(bytes))
}

fn refused(refusal: &Refusal) -> Response {
    whole(refusal.status, vec![("content-type", "application/json".to_owned())], refusal.body())
}

/// What the connection's task leaves to the request's thread.
struct Work {
    api: Arc<Api>,
    load: Arc<Load>,
    parts: hyper::http::request::Parts,
    body: Body,
    upgrade: Option<OnUpgrade>,
    runtime: Handle,
    /// The connection's place among those that are served.
    place: Arc<OwnedSemaphorePermit>,
    /// Its turn, if it waits for nobody; streams go on without.
    turn: Option<Turn>,
}

/// Bodies that are here before a request's turn comes.
const SHORT_BODY: u64 = 64 << 10;

/// Whose turn a request has to wait for: one that waits neither for a container or its program, nor for another machine or
/// the client.
fn among(parts: &hyper::http::request::Parts, body: &Incoming) -> Option<Among> {
    let path = parts.uri.path();
    match parts.method.as_str() {
        "GET" if path.ends_with("/system/df") => Some(Among::Walks),
        "GET" => {
            let waits = ["/distribution/", "/images/search", "/attach/ws", "/archive", "/changes", "/_ping"];
            (!waits.iter().any(|part| path.contains(part))).then_some(Among::Questions)
        }
        // The client may take its time for what is long.
        "POST" | "DELETE" if body.size_hint().upper().is_none_or(|length| length > SHORT_BODY) => None,
        "DELETE" if path.contains("/networks/") => Some(Among::Networks),
        "DELETE" => Some(Among::Changes),
        "POST" => {
            let (rest, last) = path.rsplit_once('/')?;
            if path.contains("/networks/") {
                return Some(Among::Networks);
            }
            let changes = ["create", "start", "kill", "pause", "unpause", "rename", "update", "exec", "tag", "prune"];
            let pulls = rest.ends_with("/images") || rest.contains("/exec/");
            (changes.contains(&last) && !pulls).then_some(Among::Changes)
        }
        _ => None,
    }
}

impl Work {
    fn request(&mut self) -> Result<(Request, Handler), Refusal> {
        let uri = &self.parts.uri;
        let path = decode(uri.path(), false).ok_or_else(|| Refusal::bad("the path cannot be decoded"))?;
        let found = router::find(self.parts.method.as_str(), &path)?;
        let request = Request {
            method: self.parts.method.clone(),
            version: found.version,
            path: found.path,
            query: Query::parse(uri.query().unwrap_or_default()),
            headers: std::mem::take(&mut self.parts.headers),
            params: found.params,
            body: Some(std::mem::take(&mut self.body)),
        };
        guard::check(&self.api.options, &request)?;
        if !matches!(request.path.as_str(), "/_ping" | "/version") {
            // What killed processes left; what cannot be repaired now may be later, and does not concern this request.
            let limit = if request.method == "GET" { LOOKING } else { REPAIR };
            let _ = self.api.engine.repair_apart(limit);
        }
        Ok((request, found.route.handler))
    }

    /// The whole life of a request.
    fn run(mut self, head: Head) {
        let busy = Busy::new(&self.load);
        let mut rest = Body::default();
        let reply = self.request().and_then(|(mut request, handler)| {
            let reply = handler(&self.api, &mut request);
            rest = request.body();
            reply
        });
        let turn = self.turn.take().filter(|_| matches!(&reply, Ok(Reply { kind: Kind::Rest(_), .. })));
        match reply {
            Ok(Reply { status, headers, kind: Kind::Rest(rest) }) => {
                // The server does not end before that is done.
                let owed = Asked::new(&self.load);
                head.send(whole(status, headers, Vec::new()));
                rest();
                drop((turn, owed));
            }
            Err(refusal) => {
                self.body.drain(DRAIN);
                rest.drain(DRAIN);
                head.send(refused(&refusal));
            }
            Ok(Reply { status, headers, kind: Kind::Whole(bytes) }) => head.send(whole(status, headers, bytes)),
            Ok(Reply { status, headers, kind: Kind::Stream(write) }) => {
                let Some(mut stream) = begin(status, headers, head) else { return };
                let written = write(&mut stream).and_then(|()| std::io::Write::flush(&mut stream));
                if let Err(error) = written {
                    stream.fail(error);
                }
            }
            Ok(Reply { headers, kind: Kind::Hijack(take), .. }) => match self.upgrade.take() {
                Some(upgrade) => {
                    let wanted = self.parts.extensions.get::<Wanted>().map_or("tcp", |wanted| wanted.0.as_str());
                    let mut all = headers;
                    all.push(("connection", "Upgrade".to_owned()));
                    all.push(("upgrade", wanted.to_owned()));
                    let mut response = response(101, &all, Answer::whole(Vec::new()));
                    if wanted == "tcp" {
                        response.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
                    }
                    head.send(response);
                    let Some(hijacked) = self.runtime.block_on(taken(upgrade)) else { return };
                    // It may last: the threads that answer are for those who ask.
                    let kept = (busy, self.place);
                    let serve = move || {
                        await_taken(&hijacked.socket);
                        take(hijacked);
                        drop(kept);
                    };
                    // Without a thread the connection ends, which the client sees.
                    let _ = std::thread::Builder::new().stack_size(STACK).spawn(serve);
                }
                None => plain(headers, head, rest, take),
            },
        }
    }
}

/// The protocol that a client asked for.
#[derive(Clone, Debug)]
struct Wanted(String);

/// Sends the head of a stream.
fn begin(status: u16, headers: Vec<(&'static str, String)>, head: Head) -> Option<Stream> {
    let mut all = common();
    all.extend(headers);
    match Answer::pieces() {
        Ok((answer, stream)) => {
            head.send(response(status, &all, answer));
            Some(stream)
        }
        Err(error) => {
            head.send(refused(&Refusal::failed(format!("create pipe: {error}"))));
            None
        }
    }
}

/// The connection itself, after the answer has been written.
async fn taken(upgrade: OnUpgrade) -> Option<Hijacked> {
    let upgraded = upgrade.await.ok()?;
    match upgraded.downcast::<TokioIo<raw::Client>>() {
        Ok(parts) => {
            let (socket, unread) = parts.io.into_inner().into_parts().ok()?;
            Some(Hijacked { socket: socket.into(), early: [&parts.read_buf[..], &unread].concat() })
        }
        // Encrypted: somebody has to do that.
        Err(upgraded) => {
            let (ours, theirs) = StdUnixStream::pair().ok()?;
            ours.set_nonblocking(true).ok()?;
            let mut ours = UnixStream::from_std(ours).ok()?;
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut ours).await;
            });
            Some(Hijacked { socket: theirs.into(), early: Vec::new() })
        }
    }
}

/// Waits until the client has read all that was sent to it.
fn await_taken(socket: &OwnedFd) {
    let until = Instant::now() + TAKEN;
    while hull_sys::socket::untaken(socket.as_fd()).is_ok_and(|left| left > 0) && Instant::now() < until {
        std::thread::sleep(GAP / 5);
    }
    std::thread::sleep(GAP / 5);
}

/// Older clients want no other protocol: what would go over the connection is the answer's body, and what is left of
/// the request's is the input.
fn plain(
    headers: Vec<(&'static str, String)>,
    head: Head,
    mut rest: Body,
    take: impl FnOnce(Hijacked) + Send + 'static,
) {
    let pair = StdUnixStream::pair();
    let Some(mut stream) = begin(200, headers, head) else { return };
    let Ok((ours, theirs)) = pair else { return };
    if let Ok(mut input) = ours.try_clone() {
        let pass = move || drop(std::io::copy(&mut rest, &mut input));
        let _ = std::thread::Builder::new().stack_size(STACK).spawn(pass);
    }
    let take = move || take(Hijacked { socket: OwnedFd::from(theirs), early: Vec::new() });
    if std::thread::Builder::new().stack_size(STACK).spawn(take).is_err() {
        return;
    }
    let mut buffer = vec![0; 16 << 10];
    loop {
        let mut list = [PollFd::new(&ours, PollFlags::IN), PollFd::from_borrowed_fd(stream.gone(), PollFlags::empty())];
        if !matches!(poll(&mut list, None), Ok(_) | Err(rustix::io::Errno::INTR)) || stream.is_gone() {
            break;
        }
        match std::io::Read::read(&mut &ours, &mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                let written = std::io::Write::write_all(&mut stream, &buffer[..length])
                    .and_then(|()| std::io::Write::flush(&mut stream));
                if written.is_err() {
                    break;
                }
            }
        }
    }
    let _ = ours.shutdown(std::net::Shutdown::Both);
}

/// Answers a request, on a thread that may block.
pub(super) async fn answer(
    shared: Shared,
    mut request: hyper::Request<Incoming>,
    place: Arc<OwnedSemaphorePermit>,
) -> Result<Response, Infallible> {
    let wanted = request.headers().get("upgrade").and_then(|value| value.to_str().ok()).map(str::to_ascii_lowercase);
    let upgrade = wanted.is_some().then(|| hyper::upgrade::on(&mut request));
    let (mut parts, incoming) = request.into_parts();
    if let Some(wanted) = wanted {
        parts.extensions.insert(Wanted(wanted));
    }
    let (sender, head) = oneshot::channel();
    let Shared { api, load } = shared;
    let sender = Head { sender, asked: Asked::new(&load) };
    let runtime = Handle::current();
    let (body, turn) = match among(&parts, &incoming) {
        Some(among) => (Body::whole(incoming).await, load.turn(among).await),
        None => (Body::of(incoming), None),
    };
    let work = Work { api, load, parts, body, upgrade, runtime, place, turn };
    tokio::task::spawn_blocking(move || work.run(sender));
    // The thread is gone without an answer only if it panicked.
    Ok(head.await.unwrap_or_else(|_| refused(&Refusal::failed("the request could not be answered"))))
}
