//! Sockets, connections, and the end of the server.
//!
//! One thread moves the bytes of all connections; each request is answered on a thread of its own that may block, and
//! there are as many of those as connections, so that none waits for another.

mod listen;
mod raw;
mod tls;

use std::convert::Infallible;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hull_engine::{Container, Engine};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::containers::Waiting;
use crate::http::{Answer, Body, DRAIN, Hijacked, Kind, Reply, Request, Stream, response};
use crate::query::{Query, decode};
use crate::refusal::Refusal;
use crate::{API_VERSION, ENGINE_VERSION, Error, Options, guard, router};
use listen::{Accepted, Listener};

/// A thread that has nothing to answer goes after so long, and memory is given back when nobody has asked for as long.
const THREAD_KEPT: Duration = Duration::from_secs(2);

/// A request's headers must be there after so long, and so must the next request of a connection.
const PATIENCE: Duration = Duration::from_secs(600);

/// Connections at once, where the limit of descriptors allows them.
const MOST_CONNECTIONS: usize = 1000;

/// Threads beside those of connections: each may need a second one for a while.
const MORE_THREADS: usize = 64;

/// Questions that are looked up at a time: more would only take each other's memory and processors.
const QUESTIONS: usize = 32;

/// Bytes of a thread's stack.
const STACK: usize = 256 << 10;

/// How long the end waits for requests that are being answered.
const FAREWELL: Duration = Duration::from_secs(5);

/// Some clients lose what comes with the answer that a connection is not HTTP any more: they are given so long to take
/// that answer, and in any case a moment.
const TAKEN: Duration = Duration::from_millis(50);
const GAP: Duration = Duration::from_millis(1);

/// What answers are made from.
#[derive(Debug)]
pub struct Api {
    /// Containers, images, volumes, networks.
    pub engine: Engine,
    /// How the server is run.
    pub options: Options,
    /// Who waits for the start of a container.
    pub(crate) waiting: Waiting,
    /// Builds that can be ended by name.
    pub(crate) builds: crate::build::Running,
    /// Builds through BuildKit's protocol, and the clients that serve them.
    pub(crate) buildkit: crate::buildkit::builds::Builds,
    pub(crate) sessions: crate::buildkit::session::Sessions,
    /// Requests that are being answered, streams included.
    busy: AtomicUsize,
    /// Of them, those whose answer has not begun.
    unanswered: AtomicUsize,
    last: Mutex<Instant>,
    questions: Arc<Semaphore>,
}

impl Api {
    /// Nothing but the records is needed.
    #[must_use]
    pub fn new(engine: Engine, options: Options) -> Self {
        Self {
            engine,
            options,
            waiting: Waiting::default(),
            builds: crate::build::Running::default(),
            buildkit: crate::buildkit::builds::Builds::default(),
            sessions: crate::buildkit::session::Sessions::default(),
            busy: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
        }
    }

    /// A container by name or ID, if this socket sees it.
    ///
    /// # Errors
    /// In Docker's words when there is none.
    pub fn container(&self, name: &str) -> Result<Container, Refusal> {
        let plain = name.strip_prefix('/').unwrap_or(name);
        if plain.is_empty() {
            return Err(Refusal::bad("invalid name or ID supplied: \"\""));
        }
        match self.engine.find(plain) {
            Ok(container) if self.sees(&container.config.labels) => Ok(container),
            Ok(_) => Err(Refusal::no_container(name)),
            Err(hull_engine::Error::NoContainer(_)) => Err(Refusal::no_container(name)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an object with these labels is seen through this socket.
    #[must_use]
    pub fn sees(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        self.options.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    fn idle_since(&self) -> Option<Instant> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (self.busy.load(Ordering::SeqCst) == 0).then_some(last)
    }
}

/// A request that is being answered.
struct Busy(Arc<Api>);

impl Busy {
    fn new(api: &Arc<Api>) -> Self {
        api.busy.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(api))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

type Response = hyper::Response<Answer>;

/// Where the head of an answer goes to.
struct Head {
    sender: oneshot::Sender<Response>,
    api: Arc<Api>,
}

impl Head {
    fn send(self, response: Response) {
        self.api.unanswered.fetch_sub(1, Ordering::SeqCst);
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
    parts: hyper::http::request::Parts,
    body: Body,
    upgrade: Option<OnUpgrade>,
    runtime: Handle,
    /// The connection's place among those that are served.
    place: Arc<OwnedSemaphorePermit>,
    /// Its turn, if it is a question that waits for nobody; streams go on without.
    turn: Option<OwnedSemaphorePermit>,
}

/// Whether a request only asks for what is here: it waits neither for a container nor for another machine.
fn is_question(parts: &hyper::http::request::Parts) -> bool {
    let path = parts.uri.path();
    parts.method == hyper::Method::GET
        && !["/distribution/", "/images/search", "/attach/ws", "/archive", "/_ping"]
            .iter()
            .any(|part| path.contains(part))
}

impl Work {
    fn request(&mut self) -> Result<(Request, router::Handler), Refusal> {
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
            let _ = self.api.engine.repair();
        }
        Ok((request, found.route.handler))
    }

    /// The whole life of a request.
    fn run(mut self, head: Head) {
        let busy = Busy::new(&self.api);
        let mut rest = Body::default();
        let reply = self.request().and_then(|(mut request, handler)| {
            let reply = handler(&self.api, &mut request);
            rest = request.body();
            reply
        });
        drop(self.turn.take());
        match reply {
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

async fn handle(
    api: Arc<Api>,
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
    api.unanswered.fetch_add(1, Ordering::SeqCst);
    let sender = Head { sender, api: Arc::clone(&api) };
    let (body, runtime) = (Body::of(incoming), Handle::current());
    let turn = match is_question(&parts) {
        true => Arc::clone(&api.questions).acquire_owned().await.ok(),
        false => None,
    };
    let work = Work { api, parts, body, upgrade, runtime, place, turn };
    tokio::task::spawn_blocking(move || work.run(sender));
    // The thread is gone without an answer only if it panicked.
    Ok(head.await.unwrap_or_else(|_| refused(&Refusal::failed("the request could not be answered"))))
}

/// Serves one client.
async fn connection(
    api: Arc<Api>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: OwnedSemaphorePermit,
) {
    let place = Arc::new(place);
    let service = service_fn(move |request| handle(Arc::clone(&api), request, Arc::clone(&place)));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    // What a client does to its connection is its own affair.
    let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

/// As many connections as there can be descriptors for: each may need some.
fn connections() -> usize {
    let most = hull_fs::descriptors().map_or(MOST_CONNECTIONS, |most| most / 6);
    most.clamp(8, MOST_CONNECTIONS)
}

/// Tells when somebody wants the server to end; on a thread of its own.
fn await_signal(signals: &OwnedFd, end: &Notify) {
    loop {
        let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], None);
        while let Ok(Some(received)) = hull_sys::signal::next(signals.as_fd()) {
            if [1, 2, 3, 15].contains(&received.signal) {
                end.notify_one();
            }
        }
    }
}

/// Gives memory back whenever there is nothing to do.
async fn rest(api: Arc<Api>) {
    let mut rested = None;
    loop {
        tokio::time::sleep(THREAD_KEPT).await;
        let idle = api.idle_since().filter(|since| since.elapsed() >= THREAD_KEPT);
        if idle.is_some() && idle != rested {
            rested = idle;
            hull_sys::memory::trim();
        }
    }
}

async fn await_idle(api: Arc<Api>, idle: Duration, end: Arc<Notify>) {
    loop {
        let left = match api.idle_since() {
            Some(since) => idle.saturating_sub(since.elapsed()),
            None => idle,
        };
        if left.is_zero() {
            end.notify_one();
            return;
        }
        tokio::time::sleep(left.min(Duration::from_secs(5)).max(Duration::from_millis(10))).await;
    }
}

async fn accept(api: Arc<Api>, listener: Listener, most: Arc<Semaphore>) {
    loop {
        let Ok(permit) = Arc::clone(&most).acquire_owned().await else { return };
        let Ok(accepted) = listener.accept().await else {
            // Out of descriptors or memory: connections that end give some back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let api = Arc::clone(&api);
        tokio::spawn(async move {
            match accepted {
                Accepted::Unix(stream) => {
                    if let Ok(Ok(client)) = tokio::time::timeout(PATIENCE, raw::Client::new(stream)).await {
                        connection(api, client, permit).await;
                    }
                }
                Accepted::Tls(stream, tls) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_secs(30), tls.accept(stream)).await {
                        connection(api, stream, permit).await;
                    }
                }
            }
        });
    }
}

/// Serves until it is asked to end, or idle for as long as was said. `ready` gets the addresses.
///
/// # Errors
/// When an address cannot be listened on, or certificates cannot be used.
pub fn serve(engine: Engine, options: Options, ready: impl FnOnce(&[String])) -> Result<(), Error> {
    hull_sys::memory::share_heap();
    let most = connections();
    // First: sockets that were passed have the numbers that anything else would get.
    let bound = listen::bind(&options)?;
    let signals = hull_sys::signal::redirect().map_err(|errno| Error::Runtime(errno.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(most + MORE_THREADS)
        .thread_stack_size(STACK)
        .thread_keep_alive(THREAD_KEPT)
        .build()
        .map_err(Error::Runtime)?;
    let api = Arc::new(Api::new(engine, options));
    let end = Arc::new(Notify::new());
    runtime.block_on(async {
        let mut addresses = Vec::new();
        for bound in &bound {
            addresses.push(bound.address.clone());
            let listener = Listener::of(bound)?;
            tokio::spawn(accept(Arc::clone(&api), listener, Arc::new(Semaphore::new(most))));
        }
        let ended = Arc::clone(&end);
        let watch = move || await_signal(&signals, &ended);
        std::thread::Builder::new().stack_size(STACK).spawn(watch).map_err(Error::Runtime)?;
        tokio::spawn(rest(Arc::clone(&api)));
        if let Some(idle) = api.options.idle {
            tokio::spawn(await_idle(Arc::clone(&api), idle, Arc::clone(&end)));
        }
        ready(&addresses);
        end.notified().await;
        // New clients find no socket, or the service manager's.
        bound.iter().for_each(listen::Bound::remove);
        let until = Instant::now() + FAREWELL;
        while api.unanswered.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The last answers are still on their way out.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    })?;
    // Streams that go on for ever do not.
    runtime.shutdown_background();
    Ok(())
}
