//! Requests, bodies and answers, as the code that answers sees them: it reads, writes and waits on a thread of its own.
//!
//! Pieces of bodies go through short queues between that thread and the connection's task; a full queue makes either
//! side wait. An answer that is a stream ends with the connection when its writer fails: the client must not take a
//! part for the whole.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::query::Query;
use crate::refusal::Refusal;
use crate::version::Version;

/// Documents larger than this are refused.
const MAX_DOCUMENT: u64 = 8 << 20;

/// A body that was refused is read so far, so that the client gets to the answer.
pub(crate) const DRAIN: u64 = 32 << 20;

/// Bytes of one frame of a stream at most.
const PIECE: usize = 32 << 10;

/// What a client must send some of a body within.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);

/// A request, without its version.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `POST`, ...
    pub method: Method,
    /// What the client speaks.
    pub version: Version,
    /// Path without the version, decoded.
    pub path: String,
    /// What stood behind the question mark.
    pub query: Query,
    /// Headers.
    pub headers: HeaderMap,
    pub(crate) params: Vec<(&'static str, String)>,
    pub(crate) body: Option<Body>,
}

impl Request {
    /// A parameter of the path; empty if the pattern has none of that name.
    #[must_use]
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value.as_str())
    }

    /// The media type of a stream of a container's outputs: with headers between them where there are two and the client
    /// has known that type since API 1.42.
    pub(crate) fn stream_kind(&self, tty: bool) -> &'static str {
        match self.version.since(42) && !tty {
            true => "application/vnd.docker.multiplexed-stream",
            false => "application/vnd.docker.raw-stream",
        }
    }

    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The protocol that the client wants instead of HTTP, in lower case.
    #[must_use]
    pub fn upgrade(&self) -> Option<String> {
        let wanted = self.header("connection")?.to_ascii_lowercase().contains("upgrade");
        self.header("upgrade").filter(|_| wanted).map(str::to_ascii_lowercase)
    }

    /// The body, as a reader; empty the second time.
    pub fn body(&mut self) -> Body {
        self.body.take().unwrap_or_default()
    }

    /// The body as a document; `None` when there is none. What the type does not know is left out. `whole` is what Go
    /// calls its type, for what is said of a wrong one.
    ///
    /// # Errors
    /// In Docker's words when it is too large or no such document.
    pub fn optional_json<T: DeserializeOwned>(&mut self, whole: &str) -> Result<Option<T>, Refusal> {
        let mut bytes = Vec::new();
        let broken = |error: io::Error| Refusal::bad(format!("error reading request body: {error}"));
        let mut body = self.body();
        (&mut body).take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(broken)?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            // A client that still sends hears nothing.
            body.drain(DRAIN);
            return Err(Refusal::bad(format!("request body too large: more than {MAX_DOCUMENT} bytes")));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let kind = self.header("content-type").unwrap_or_default().to_owned();
        if kind.split(';').next().map(str::trim) != Some("application/json") {
            return Err(Refusal::bad(match kind.as_str() {
                "" => "malformed Content-Type header (): mime: no media type".to_owned(),
                kind => format!(
                    "unsupported Content-Type header ({}): must be 'application/json'",
                    hull_oci::spec::one_line(kind)
                ),
            }));
        }
        parse(&bytes, whole).map(Some)
    }

    /// The body as a document.
    ///
    /// # Errors
    /// As [`Self::optional_json`], and when there is none.
    pub fn json<T: DeserializeOwned>(&mut self, whole: &str) -> Result<T, Refusal> {
        let none = || Refusal::bad("invalid JSON: got EOF while reading request body");
        self.optional_json(whole)?.ok_or_else(none)
    }
}

/// A document of a body; `null` is an empty one.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], whole: &str) -> Result<T, Refusal> {
    let read = |bytes| crate::wire::unreadable::read(bytes, whole);
    // As Go: null leaves everything as it is.
    let is_null = bytes.trim_ascii() == b"null";
    let document = read(bytes).or_else(|why| if is_null { read(b"{}") } else { Err(why) });
    document.map_err(Refusal::bad)
}

/// A request's body, as a reader.
#[derive(Debug, Default)]
pub struct Body {
    pieces: Option<mpsc::Receiver<io::Result<Bytes>>>,
    rest: Bytes,
}

impl Body {
    /// The body of a request. The connection's task reads it as it is read here.
    pub(crate) fn of(mut incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            return Self::default();
        }
        let (sender, pieces) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let next = std::future::poll_fn(|context| Pin::new(&mut incoming).poll_frame(context));
                let piece = match tokio::time::timeout(PATIENCE, next).await {
                    Err(_) => Err(io::ErrorKind::TimedOut.into()),
                    Ok(None) => return,
                    Ok(Some(Err(_))) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => Ok(data),
                        Err(_) => continue,
                    },
                };
                let failed = piece.is_err();
                if sender.send(piece).await.is_err() || failed {
                    return;
                }
            }
        });
        Self { pieces: Some(pieces), rest: Bytes::new() }
    }

    /// The body of a request, once all of it is here: for short ones.
    pub(crate) async fn whole(mut incoming: Incoming) -> Self {
        let mut rest = Vec::new();
        let read = async {
            while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await {
                if let Ok(data) = frame.map_err(|_| io::ErrorKind::UnexpectedEof)?.into_data() {
                    rest.extend_from_slice(&data);
                }
            }
            Ok(())
        };
        let read = tokio::time::timeout(PATIENCE, read).await.unwrap_or(Err(io::ErrorKind::TimedOut));
        let pieces = read.err().map(|kind| {
            let (sender, pieces) = mpsc::channel(1);
            let _ = sender.try_send(Err(kind.into()));
            pieces
        });
        Self { pieces, rest: Bytes::from(rest) }
    }

    /// Reads and drops what there is, so that a client that still sends gets to the answer.
    pub(crate) fn drain(&mut self, most: u64) {
        // A client that goes meanwhile needs no answer.
        let _ = io::copy(&mut self.take(most), &mut io::sink());
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let Some(pieces) = &mut self.pieces else { return Ok(0) };
            match pieces.blocking_recv() {
                None => self.pieces = None,
                Some(piece) => self.rest = piece?,
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

/// Where the pieces of an answer go. What is written is kept until it is flushed or is much.
#[derive(Debug)]
pub struct Stream {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
    /// Hangs up when the client has gone.
    gone: OwnedFd,
}

impl Stream {
    /// Whether nobody listens any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }

    /// A descriptor that hangs up when the client has gone.
    #[must_use]
    pub fn gone(&self) -> std::os::fd::BorrowedFd<'_> {
        self.gone.as_fd()
    }

    /// Waits so long, and returns whether the client is still there.
    #[must_use]
    pub fn pause(&self, time: std::time::Duration) -> bool {
        let timeout = Timespec::try_from(time).ok();
        let _ = poll(&mut [PollFd::new(&self.gone, PollFlags::empty())], timeout.as_ref());
        !self.is_gone()
    }

    /// Writes a document and a line's end, as a frame of its own.
    ///
    /// # Errors
    /// When the client has gone.
    pub fn line(&mut self, document: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut *self, document)?;
        self.write_all(b"\r\n")?;
        self.flush()
    }

    pub(crate) fn fail(self, error: io::Error) {
        let _ = self.sender.blocking_send(Err(error));
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE - self.buffer.len().min(PIECE - 1));
        self.buffer.extend_from_slice(&bytes[..length]);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A connection that is not HTTP any more: a stream socket, blocking.
#[derive(Debug)]
pub struct Hijacked {
    /// To and from the client, or to who passes on what goes to and from it.
    pub socket: OwnedFd,
    /// What the client sent before it was asked.
    pub early: Vec<u8>,
}

type Writing = Box<dyn FnOnce(&mut Stream) -> io::Result<()> + Send>;
type Taking = Box<dyn FnOnce(Hijacked) + Send>;

/// An answer.
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Whole(Vec<u8>),
    /// No body, and what is still to be done when the client has its answer.
    Rest(Box<dyn FnOnce() + Send>),
    Stream(Writing),
    Hijack(Taking),
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reply").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Reply {
    /// A document, with a line's end as Go writes it.
    pub fn json(status: u16, document: &impl Serialize) -> Self {
        let mut bytes = serde_json::to_vec(document).unwrap_or_default();
        bytes.push(b'\n');
        Self::bytes(status, "application/json", bytes)
    }

    /// A list of documents, each of which is forgotten once it is written.
    pub fn list(documents: impl Iterator<Item = serde_json::Value>) -> Self {
        let mut bytes = Vec::new();
        write_list(&mut bytes, documents);
        bytes.push(b'\n');
        Self::bytes(200, "application/json", bytes)
    }

    /// No body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), kind: Kind::Whole(Vec::new()) }
    }

    /// No body, and what nobody waits for.
    pub(crate) fn before(status: u16, rest: impl FnOnce() + Send + 'static) -> Self {
        Self { status, headers: Vec::new(), kind: Kind::Rest(Box::new(rest)) }
    }

    /// A body of any type.
    pub fn bytes(status: u16, kind: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("content-type", kind.to_owned())], kind: Kind::Whole(bytes.into()) }
    }

    /// Headers at once, and what a function writes, on the thread of the request. When it fails the connection breaks
    /// off, so that nobody takes a part for the whole.
    pub fn stream(kind: &str, write: impl FnOnce(&mut Stream) -> io::Result<()> + Send + 'static) -> Self {
        let headers = vec![("content-type", kind.to_owned())];
        Self { status: 200, headers, kind: Kind::Stream(Box::new(write)) }
    }

    /// The connection itself, once the answer is on the wire: with status 101 where the client asked for another
    /// protocol, and 200 otherwise. The function runs on a thread of its own; the connection ends with the socket.
    pub fn hijack(kind: &str, take: impl FnOnce(Hijacked) + Send + 'static) -> Self {
        let headers = vec![("content-type", kind.to_owned())];
        Self { status: 101, headers, kind: Kind::Hijack(Box::new(take)) }
    }

    /// One more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Writes a list of documents, each of which is forgotten once it is written: as trees they take ten times the room.
pub(crate) fn write_list(bytes: &mut Vec<u8>, documents: impl Iterator<Item = serde_json::Value>) {
    bytes.push(b'[');
    for (place, document) in documents.enumerate() {
        if place > 0 {
            bytes.push(b',');
        }
        // Memory does not fail, and a document's keys are text.
        let _ = serde_json::to_writer(&mut *bytes, &document);
    }
    bytes.push(b']');
}

/// The answer's body as hyper takes it.
#[derive(Debug)]
pub(crate) enum Answer {
    Whole(Option<Bytes>),
    Pieces {
        pieces: mpsc::Receiver<io::Result<Bytes>>,
        /// Dropped with the body: the writer sees it.
        _here: OwnedFd,
    },
}

impl Answer {
    pub(crate) fn whole(bytes: Vec<u8>) -> Self {
        Self::Whole(Some(Bytes::from(bytes)).filter(|bytes| !bytes.is_empty()))
    }

    /// A body, and where its pieces are written to.
    pub(crate) fn pieces() -> io::Result<(Self, Stream)> {
        let (sender, pieces) = mpsc::channel(2);
        let (gone, here) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        Ok((Self::Pieces { pieces, _here: here }, Stream { sender, buffer: Vec::new(), gone }))
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Pieces { pieces, .. } => {
                pieces.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Pieces { .. } => SizeHint::default(),
        }
    }
}

/// An answer with headers; a value that cannot be one is left out.
pub(crate) fn response<B>(status: u16, headers: &[(&'static str, String)], body: B) -> hyper::Response<B> {
    let mut response = hyper::Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().append(HeaderName::from_static(name), value);
        }
    }
    response
}
