//! BuildKit's protocol, so that clients which know nothing else (`docker build` and `docker compose build` with the
//! buildx plugin) build here: `POST /grpc` and `POST /session`, HTTP/2 on the connection of an HTTP/1 request.
//!
//! ```text
//! /session: the client serves       session: files, secrets, agents, credentials
//! /grpc:    Control, LLBBridge      control: what is asked for; solve: a build as a process on the client's files
//! ```
//!
//! * [`grpc`]: calls; [`pb`]: messages; [`receive`], [`send`]: directories from and to the client.
//! * [`session`]: clients that serve; [`control`]: calls of clients; [`builds`]: what is known of each build;
//!   [`history`]: of those that have ended.
//! * [`solve`], [`needs`]: the frontend `dockerfile.v0`, which is the only one; [`result`]: results as inputs of other
//!   builds. Other raw LLB is refused.
//!
//! A build ends with the connection that asked for it. Nothing survives the server; clients ask again.

mod agents;
pub(crate) mod builds;
mod content;
mod control;
mod grpc;
mod history;
mod needs;
pub(crate) mod pb;
mod receive;
mod result;
mod send;
pub(crate) mod session;
mod solve;
pub(crate) mod status;

use std::collections::BTreeSet;
use std::sync::Arc;

use hyper::http::HeaderMap;

use crate::api::Api;
use crate::http::{Hijacked, Reply, Request};
use crate::refusal::Refusal;
use crate::route::Route;

pub(crate) const ROUTES: &[Route] =
    &[Route::new("POST", "/grpc", serve_control), Route::new("POST", "/session", serve_session)];

/// Reads bytes as messages of a client. For fuzzing.
pub(crate) fn understand(bytes: &[u8]) {
    use prost::Message as _;
    let _ = pb::SolveRequest::decode(bytes);
    let _ = pb::Definition::decode(bytes).map(|definition| result::reference(&definition));
    let _ = pb::HistoryRequest::decode(bytes);
    let _ = pb::Packet::decode(bytes);
}

/// Stack of the thread of a connection.
const STACK: usize = 2 << 20;

/// Refuses what does not want HTTP/2; with the status that Docker has for this path when it wants nothing.
fn wants_http2(request: &Request, status: u16) -> Result<(), Refusal> {
    match request.upgrade().as_deref() {
        Some("h2c") => Ok(()),
        Some(other) => Err(Refusal::bad(format!("protocol {} not supported", hull_oci::spec::one_line(other)))),
        None => Err(Refusal::new(status, "no upgrade proto in request")),
    }
}

/// Runs the life of a connection on a thread with a runtime of its own, and waits for its end.
fn live<F: Future<Output = ()>>(hijacked: Hijacked, life: impl FnOnce(Hijacked) -> F + Send + 'static) {
    let run = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(life(hijacked));
        runtime.shutdown_background();
    };
    if let Ok(thread) = std::thread::Builder::new().name("grpc".to_owned()).stack_size(STACK).spawn(run) {
        // What went wrong there ends the connection, which the client sees.
        let _ = thread.join();
    }
}

fn serve_control(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    wants_http2(request, 500)?;
    let api = Arc::clone(api);
    Ok(Reply::hijack("application/grpc", move |hijacked| {
        live(hijacked, move |hijacked| async move {
            let Ok(connection) = grpc::Connection::new(hijacked) else { return };
            // How it ended is the client's affair.
            let _ = grpc::serve(connection, |call| {
                tokio::spawn(control::answer(Arc::clone(&api), call));
            })
            .await;
        });
    }))
}

/// Who a client is, and what it offers.
fn offer(headers: &HeaderMap) -> Result<(String, BTreeSet<String>), Refusal> {
    let id = headers.get("x-docker-expose-session-uuid").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if id.is_empty() || id.len() > 256 {
        return Err(Refusal::bad("invalid session: it has no ID"));
    }
    let methods = headers.get_all("x-docker-expose-session-grpc-method").iter();
    let methods = methods.filter_map(|value| value.to_str().ok()).map(str::to_ascii_lowercase).take(1000).collect();
    Ok((id.to_owned(), methods))
}

/// The life of a connection on which the client serves.
async fn client(api: &Api, connection: grpc::Connection, id: String, methods: BTreeSet<String>) {
    let Ok((caller, life)) = grpc::Caller::new(connection).await else { return };
    // A second one of that name is turned away.
    let Some(number) = api.sessions.add(id.clone(), caller, methods) else { return };
    let _ = life.await;
    api.sessions.remove(&id, number);
}

fn serve_session(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    wants_http2(request, 400)?;
    let (id, methods) = offer(&request.headers)?;
    let api = Arc::clone(api);
    Ok(Reply::hijack("application/grpc", move |hijacked| {
        live(hijacked, move |hijacked| async move {
            if let Ok(connection) = grpc::Connection::new(hijacked) {
                client(&api, connection, id, methods).await;
            }
        });
    }))
}
