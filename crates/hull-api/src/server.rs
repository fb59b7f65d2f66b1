//! Sockets, connections, and the end of the server.
//!
//! One thread moves the bytes of all connections; each request is answered on a thread of its own that may block, and
//! there are as many of those as connections, so that none waits for another.

mod answer;
mod listen;
mod load;
mod raw;
mod tls;

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hull_engine::Engine;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::api::Api;
use crate::error::Error;
use crate::options::Options;
use answer::answer;
use listen::{Accepted, Listener};
use load::Load;

/// A thread that has nothing to answer goes after so long, and memory is given back when nobody has asked for as long.
const THREAD_KEPT: Duration = Duration::from_secs(2);

/// A request's headers must be there after so long, and so must the next request of a connection.
const PATIENCE: Duration = Duration::from_secs(600);

/// Connections at once, where the limit of descriptors allows them.
const MOST_CONNECTIONS: usize = 1000;

/// Threads beside those of connections: each may need a second one for a while.
const MORE_THREADS: usize = 64;

/// Bytes of a connection's buffers at most, which is how long the head of a request can be too.
const BUFFER: usize = 128 << 10;

/// Bytes of a thread's stack.
const STACK: usize = 256 << 10;

/// How long the end waits for requests that are being answered.
const FAREWELL: Duration = Duration::from_secs(5);

/// What all connections share.
#[derive(Clone)]
struct Shared {
    api: Arc<Api>,
    load: Arc<Load>,
}

/// Serves one client.
async fn connection(
    shared: Shared,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: OwnedSemaphorePermit,
) {
    let place = Arc::new(place);
    let service = service_fn(move |request| answer(shared.clone(), request, Arc::clone(&place)));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(BUFFER);
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

/// Gives memory back while requests come, and once more when none has come for a while.
async fn rest(api: Arc<Api>, load: Arc<Load>) {
    let mut rested = None;
    loop {
        tokio::time::sleep(THREAD_KEPT / 2).await;
        let idle = load.idle_since().filter(|since| since.elapsed() >= THREAD_KEPT);
        if idle.is_none() || idle != rested {
            rested = idle;
            if idle.is_some() {
                api.engine.forget();
                api.documents.forget();
            }
            hull_sys::memory::trim();
        }
    }
}

async fn await_idle(load: Arc<Load>, idle: Duration, end: Arc<Notify>) {
    loop {
        let left = match load.idle_since() {
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

async fn accept(shared: Shared, listener: Listener, most: Arc<Semaphore>) {
    loop {
        let Ok(permit) = Arc::clone(&most).acquire_owned().await else { return };
        let Ok(accepted) = listener.accept().await else {
            // Out of descriptors or memory: connections that end give some back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            match accepted {
                Accepted::Unix(stream) => {
                    if let Ok(Ok(client)) = tokio::time::timeout(PATIENCE, raw::Client::new(stream)).await {
                        connection(shared, client, permit).await;
                    }
                }
                Accepted::Tls(stream, tls) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_secs(30), tls.accept(stream)).await {
                        connection(shared, stream, permit).await;
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
    let shared = Shared { api: Arc::new(Api::new(engine, options)), load: Arc::new(Load::new()) };
    let end = Arc::new(Notify::new());
    runtime.block_on(async {
        let mut addresses = Vec::new();
        for bound in &bound {
            addresses.push(bound.address.clone());
            let listener = Listener::of(bound)?;
            tokio::spawn(accept(shared.clone(), listener, Arc::new(Semaphore::new(most))));
        }
        let ended = Arc::clone(&end);
        let watch = move || await_signal(&signals, &ended);
        std::thread::Builder::new().stack_size(STACK).spawn(watch).map_err(Error::Runtime)?;
        tokio::spawn(rest(Arc::clone(&shared.api), Arc::clone(&shared.load)));
        if let Some(idle) = shared.api.options.idle {
            tokio::spawn(await_idle(Arc::clone(&shared.load), idle, Arc::clone(&end)));
        }
        ready(&addresses);
        end.notified().await;
        // New clients find no socket, or the service manager's.
        bound.iter().for_each(listen::Bound::remove);
        let until = Instant::now() + FAREWELL;
        while shared.load.is_awaited() && Instant::now() < until {
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
