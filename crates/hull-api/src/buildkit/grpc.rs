//! gRPC over HTTP/2 on a connection that was HTTP/1 before: as server for the client's calls, and as client for the calls
//! back into its session.
//!
//! A message is one byte that says whether it is compressed (it never is here), four of its length, and the message. A
//! call ends with trailers that have `grpc-status`. Messages are bounded, windows are as large as one message.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use hyper::body::Bytes;
use hyper::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use super::pb::{Any, Status};
use crate::http::Hijacked;

/// Messages larger than this are refused.
const MAX_MESSAGE: usize = 16 << 20;

/// Details of a failure that are longer are left out.
const MAX_DETAILS: usize = 256 << 10;

/// What may be on its way in one stream, and in all of them.
const WINDOW: u32 = 1 << 20;

/// Streams of one connection at once.
const MOST_STREAMS: u32 = 256;

/// The codes that are used, by gRPC's numbers.
pub(crate) mod code {
    pub(crate) const CANCELED: i32 = 1;
    pub(crate) const UNKNOWN: i32 = 2;
    pub(crate) const INVALID_ARGUMENT: i32 = 3;
    pub(crate) const NOT_FOUND: i32 = 5;
    pub(crate) const ALREADY_EXISTS: i32 = 6;
    pub(crate) const UNIMPLEMENTED: i32 = 12;
    pub(crate) const UNAVAILABLE: i32 = 14;
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: i32,
    pub(crate) message: String,
    /// More, for clients that understand it.
    pub(crate) details: Vec<Any>,
}

impl Failure {
    pub(crate) fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new() }
    }

    pub(crate) fn unknown(message: impl Into<String>) -> Self {
        Self::new(code::UNKNOWN, message)
    }

    fn broken(error: &h2::Error) -> Self {
        Self::new(code::UNAVAILABLE, format!("the connection broke off: {error}"))
    }
}

/// A connection with what was read of it before.
#[derive(Debug)]
pub(crate) struct Connection {
    early: Bytes,
    stream: UnixStream,
}

impl Connection {
    /// Takes over a connection. Must be called where a runtime runs.
    pub(crate) fn new(hijacked: Hijacked) -> io::Result<Self> {
        let stream = std::os::unix::net::UnixStream::from(hijacked.socket);
        stream.set_nonblocking(true)?;
        Ok(Self { early: hijacked.early.into(), stream: UnixStream::from_std(stream)? })
    }

    /// A connection of which nothing was read.
    pub(crate) fn of(stream: UnixStream) -> Self {
        Self { early: Bytes::new(), stream }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let length = self.early.len().min(buffer.remaining());
            let part = self.early.split_to(length);
            buffer.put_slice(&part);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Incoming messages.
#[derive(Debug)]
pub(crate) struct Incoming {
    stream: RecvStream,
    buffer: Vec<u8>,
}

impl Incoming {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The next message; `None` at the end.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Failure> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<5>() {
                let [compressed, length @ ..] = *head;
                let length = u32::from_be_bytes(length) as usize;
                if compressed != 0 {
                    return Err(Failure::new(code::UNIMPLEMENTED, "compressed messages are not understood"));
                }
                if length > MAX_MESSAGE {
                    return Err(Failure::new(
                        code::INVALID_ARGUMENT,
                        format!("a message of {length} bytes is too large"),
                    ));
                }
                if self.buffer.len() >= 5 + length {
                    let message = M::decode(&self.buffer[5..5 + length]);
                    self.buffer.drain(..5 + length);
                    let bad =
                        |error| Failure::new(code::INVALID_ARGUMENT, format!("a message cannot be decoded: {error}"));
                    return message.map(Some).map_err(bad);
                }
            }
            match self.stream.data().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Failure::unknown("the last message broke off")),
                Some(Err(error)) => return Err(Failure::broken(&error)),
                Some(Ok(bytes)) => {
                    // What is not released is not sent any more.
                    let _ = self.stream.flow_control().release_capacity(bytes.len());
                    self.buffer.extend_from_slice(&bytes);
                }
            }
        }
    }

    /// How the call ended, after its last message.
    async fn end(&mut self, head: &HeaderMap) -> Result<(), Failure> {
        let trailers = self.stream.trailers().await.map_err(|error| Failure::broken(&error))?;
        status(trailers.as_ref().unwrap_or(head))
    }
}

/// What headers or trailers say of a call.
fn status(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").map(str::parse::<i32>) {
        Some(Ok(0)) => Ok(()),
        Some(Ok(code)) => {
            let message = crate::query::decode(text("grpc-message").unwrap_or_default(), false).unwrap_or_default();
            Err(Failure::new(code, hull_oci::spec::one_line(&message)))
        }
        _ => Err(Failure::unknown("the call ended without a status")),
    }
}

/// Outgoing messages.
#[derive(Debug)]
pub(crate) struct Outgoing(SendStream<Bytes>);

impl Outgoing {
    /// Sends a message, when the other side takes it.
    pub(crate) async fn send(&mut self, message: &impl Message) -> Result<(), Failure> {
        self.bytes(frame(message)).await
    }

    async fn bytes(&mut self, mut bytes: Bytes) -> Result<(), Failure> {
        while !bytes.is_empty() {
            self.0.reserve_capacity(bytes.len());
            let capacity = std::future::poll_fn(|context| self.0.poll_capacity(context)).await;
            let capacity = match capacity {
                Some(Ok(capacity)) => capacity,
                Some(Err(error)) => return Err(Failure::broken(&error)),
                None => return Err(Failure::new(code::CANCELED, "the other side has ended the call")),
            };
            let part = bytes.split_to(capacity.min(bytes.len()));
            if !part.is_empty() {
                self.0.send_data(part, false).map_err(|error| Failure::broken(&error))?;
            }
        }
        Ok(())
    }

    /// Nothing more is sent.
    pub(crate) fn finish(&mut self) {
        // The other side may have ended the call.
        let _ = self.0.send_data(Bytes::new(), true);
    }

    /// Whether the other side has given the call up.
    pub(crate) async fn abandoned(&mut self) {
        let _ = std::future::poll_fn(|context| self.0.poll_reset(context)).await;
    }
}

/// A message with what stands before it.
fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(5 + length);
    bytes.push(0);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.into()
}

/// A call of a client, which is answered once.
#[derive(Debug)]
pub(crate) struct Call {
    /// `/PACKAGE.SERVICE/METHOD`.
    pub(crate) path: String,
    /// What goes with it.
    pub(crate) headers: HeaderMap,
    pub(crate) incoming: Incoming,
    respond: h2::server::SendResponse<Bytes>,
}

impl Call {
    /// A value that goes with the call.
    pub(crate) fn metadata(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The one message of a call that has one.
    pub(crate) async fn message<M: Message + Default>(&mut self) -> Result<M, Failure> {
        Ok(self.incoming.next().await?.unwrap_or_default())
    }

    /// Begins the answer.
    pub(crate) fn begin(&mut self) -> Result<Outgoing, Failure> {
        let mut response = Response::new(());
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        self.respond.send_response(response, false).map(Outgoing).map_err(|error| Failure::broken(&error))
    }

    /// Waits until the client gives the call up.
    pub(crate) async fn abandoned(&mut self) {
        let _ = std::future::poll_fn(|context| self.respond.poll_reset(context)).await;
    }

    /// The whole answer of a call that has one message.
    pub(crate) async fn answer(mut self, result: Result<impl Message, Failure>) {
        match result {
            Err(failure) => self.fail(&failure),
            Ok(message) => {
                let Ok(mut out) = self.begin() else { return };
                if out.send(&message).await.is_ok() {
                    end(&mut out, &Ok(()));
                }
            }
        }
    }

    /// An answer that is only a failure.
    pub(crate) fn fail(mut self, failure: &Failure) {
        if let Ok(mut out) = self.begin() {
            end(&mut out, &Err(failure.clone()));
        }
    }
}

/// Ends an answer.
pub(crate) fn end(out: &mut Outgoing, result: &Result<(), Failure>) {
    let mut trailers = HeaderMap::new();
    let (code, message) = match result {
        Ok(()) => (0, ""),
        Err(failure) => (failure.code, failure.message.as_str()),
    };
    trailers.insert("grpc-status", HeaderValue::from(code));
    if let Ok(value) = HeaderValue::from_str(&encode(message)) {
        trailers.insert("grpc-message", value);
    }
    if let Err(Failure { details, .. }) = result
        && !details.is_empty()
    {
        use base64::Engine as _;
        let status = Status { code, message: message.to_owned(), details: details.clone() }.encode_to_vec();
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(status);
        // Headers are bounded where they are read.
        if let Ok(value) = HeaderValue::from_str(&text)
            && text.len() < MAX_DETAILS
        {
            trailers.insert("grpc-status-details-bin", value);
        }
    }
    // The client may have gone.
    let _ = out.0.send_trailers(trailers);
}

/// A message as trailers have it: everything but printable ASCII, and the percent sign, as `%41`.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut line, byte| {
        match byte {
            b' '..=b'~' if byte != b'%' => line.push(char::from(byte)),
            _ => line.push_str(&format!("%{byte:02X}")),
        }
        line
    })
}

/// Serves the calls of a connection until it ends.
pub(crate) async fn serve(connection: Connection, handle: impl Fn(Call)) -> Result<(), h2::Error> {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(1 << 20);
    let mut connection = builder.handshake::<_, Bytes>(connection).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        handle(Call { path, headers: parts.headers, incoming: Incoming::new(body), respond });
    }
    Ok(())
}

/// The connection that calls are made on.
#[derive(Clone)]
pub(crate) struct Caller {
    requests: SendRequest<Bytes>,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Caller").finish_non_exhaustive()
    }
}

/// A call that goes on in both directions.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) outgoing: Outgoing,
    response: Option<h2::client::ResponseFuture>,
    incoming: Option<(HeaderMap, Incoming)>,
}

impl Caller {
    /// Begins to call over a connection; the future is the connection's life and must be driven.
    pub(crate) async fn new(
        connection: Connection,
    ) -> Result<(Self, impl Future<Output = Result<(), h2::Error>>), h2::Error> {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(4 * WINDOW).enable_push(false);
        let (requests, life) = builder.handshake::<_, Bytes>(connection).await?;
        Ok((Self { requests }, life))
    }

    /// Begins a call.
    pub(crate) async fn begin(&self, path: &str, metadata: &[(String, String)]) -> Result<Exchange, Failure> {
        let bad = |reason: String| Failure::new(code::INVALID_ARGUMENT, reason);
        let mut request = Request::builder().method("POST").uri(format!("http://localhost{path}"));
        if let Some(headers) = request.headers_mut() {
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
            headers.insert("te", HeaderValue::from_static("trailers"));
            for (name, value) in metadata {
                let name: HeaderName = name.parse().map_err(|_| bad(format!("metadata {name:?} has no such name")))?;
                let value =
                    HeaderValue::from_str(value).map_err(|_| bad(format!("metadata {name}: control characters")))?;
                headers.append(name, value);
            }
        }
        let request = request.body(()).map_err(|error| bad(error.to_string()))?;
        let mut requests = self.requests.clone().ready().await.map_err(|error| Failure::broken(&error))?;
        let (response, stream) = requests.send_request(request, false).map_err(|error| Failure::broken(&error))?;
        Ok(Exchange { outgoing: Outgoing(stream), response: Some(response), incoming: None })
    }

    /// A call with one message in each direction.
    pub(crate) async fn call<M: Message + Default>(&self, path: &str, message: &impl Message) -> Result<M, Failure> {
        let mut exchange = self.begin(path, &[]).await?;
        exchange.outgoing.send(message).await?;
        exchange.outgoing.finish();
        let answer = exchange.next().await?;
        exchange.end().await?;
        Ok(answer.unwrap_or_default())
    }
}

impl Exchange {
    /// The next message; `None` after the last one.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Failure> {
        if let Some(response) = self.response.take() {
            let response = response.await.map_err(|error| Failure::broken(&error))?;
            let (parts, body) = response.into_parts();
            // A call that fails at once has its status here.
            if parts.headers.contains_key("grpc-status") {
                status(&parts.headers)?;
            } else if !parts.status.is_success() {
                return Err(Failure::new(code::UNAVAILABLE, format!("HTTP status {}", parts.status.as_u16())));
            }
            self.incoming = Some((parts.headers, Incoming::new(body)));
        }
        let Some((head, incoming)) = &mut self.incoming else { return Ok(None) };
        if let Some(message) = incoming.next().await? {
            return Ok(Some(message));
        }
        let ended = incoming.end(head).await;
        self.incoming = None;
        ended.map(|()| None)
    }

    /// Waits for the end.
    pub(crate) async fn end(&mut self) -> Result<(), Failure> {
        while self.next::<crate::buildkit::pb::Empty>().await?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::pb;

    fn pair() -> (Connection, Connection) {
        let (a, b) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let connection = |stream: std::os::unix::net::UnixStream, early: &[u8]| {
            Connection::new(Hijacked { socket: stream.into(), early: early.to_vec() }).expect("a connection")
        };
        (connection(a, b""), connection(b, b""))
    }

    #[test]
    fn calls_are_answered_and_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (server, client) = pair();
            tokio::spawn(async move {
                let answer = |mut call: Call| {
                    tokio::spawn(async move {
                        if call.path != "/test.Echo/Say" {
                            return call.fail(&Failure::new(code::UNIMPLEMENTED, "unknown method: 100% ä"));
                        }
                        let message: pb::BytesMessage = call.message().await.expect("a message");
                        call.answer(Ok(message)).await;
                    });
                };
                let _ = serve(server, answer).await;
            });
            let (caller, life) = Caller::new(client).await.expect("a connection");
            tokio::spawn(life);
            let message = pb::BytesMessage { data: vec![7; 3 << 20] };
            let answer: pb::BytesMessage = caller.call("/test.Echo/Say", &message).await.expect("an answer");
            assert_eq!(answer, message);
            let refused = caller.call::<pb::Empty>("/test.Echo/No", &pb::Empty {}).await;
            assert_eq!(refused, Err(Failure::new(code::UNIMPLEMENTED, "unknown method: 100% ä")));
        });
    }
}
