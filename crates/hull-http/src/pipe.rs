//! HTTP/1.1 over a stream that somebody else makes, such as a program's standard input and output.
//!
//! ```text
//! Pipe ── one Stream at a time ── request, answer, request, answer ...
//! ```
//!
//! There is one stream, so requests wait for each other: whoever reads a long body has it until the body's end. Short
//! bodies are read at once, so that nobody waits for a caller who merely keeps an answer. A stream on which anything was
//! not as it should be is not used again; the next request opens another one.
//!
//! Only what a server of this protocol's own kind sends is understood: lengths, no chunks. Everything it says is bounded.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use crate::client::{Body, Error, ErrorKind, Response};

/// The head of an answer is at most so long.
const MAX_HEAD: u64 = 64 << 10;

/// Bodies up to this length are read with the head.
const SHORT: u64 = 256 << 10;

/// What is left of a body that nobody wants is read past up to this length; else the stream is given up.
const SKIPPED: u64 = 1 << 20;

/// Both directions of a connection.
pub trait Stream: Send + fmt::Debug {
    /// What goes to the server.
    fn writer(&mut self) -> &mut dyn Write;

    /// What comes from it.
    fn reader(&mut self) -> &mut dyn BufRead;

    /// Why it ended; asked once it has. `answered` says whether anything came over it before.
    fn why(&mut self, answered: bool) -> Error;
}

/// Opens a stream.
pub type Open = dyn Fn() -> Result<Box<dyn Stream>, Error> + Send + Sync;

/// A server behind one stream. Clones share it.
#[derive(Clone)]
pub struct Pipe {
    shared: Arc<Shared>,
}

struct Shared {
    open: Box<Open>,
    state: Mutex<State>,
    free: Condvar,
}

#[derive(Default)]
struct State {
    taken: bool,
    idle: Option<Box<dyn Stream>>,
}

impl fmt::Debug for Pipe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pipe(...)")
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn of one request.
struct Turn {
    shared: Arc<Shared>,
    stream: Option<Box<dyn Stream>>,
}

impl Turn {
    fn stream(&mut self) -> io::Result<&mut Box<dyn Stream>> {
        self.stream.as_mut().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection ended"))
    }

    /// The stream is of no use any more; says why.
    fn broken(&mut self, answered: bool) -> Error {
        match self.stream.take() {
            Some(mut stream) => stream.why(answered),
            None => Error { kind: ErrorKind::Transfer, message: "the connection ended".to_owned() },
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.taken = false;
        state.idle = self.stream.take();
        drop(state);
        self.shared.free.notify_one();
    }
}

impl Pipe {
    /// A server that this function makes streams to.
    #[must_use]
    pub fn new(open: Box<Open>) -> Self {
        Self { shared: Arc::new(Shared { open, state: Mutex::default(), free: Condvar::new() }) }
    }

    fn turn(&self) -> Result<(Turn, bool), Error> {
        let mut state = self.shared.state();
        while state.taken {
            state = self.shared.free.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.taken = true;
        let idle = state.idle.take();
        drop(state);
        // From here on the turn is given back, whatever happens.
        let mut turn = Turn { shared: Arc::clone(&self.shared), stream: idle };
        let used = turn.stream.is_some();
        if !used {
            turn.stream = Some((self.shared.open)()?);
        }
        Ok((turn, used))
    }

    pub(crate) fn send(
        &self,
        method: &str,
        target: &str,
        host: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Response, Error> {
        let (mut turn, used) = self.turn()?;
        let head = head(method, target, host, headers, &body)?;
        // A server that refuses may answer before it has read everything: what it says counts.
        let sent = turn.stream().map_err(Sent::from).and_then(|stream| write(stream.writer(), &head, body));
        if let Err(Sent::Source(error)) = &sent {
            let message = format!("read what is sent: {error}");
            turn.stream = None;
            return Err(Error { kind: ErrorKind::Transfer, message });
        }
        let answer = turn.stream().and_then(|stream| read_head(stream.reader()));
        let (status, headers) = match answer {
            Ok(answer) => answer,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                turn.stream = None;
                return Err(Error { kind: ErrorKind::Request, message: error.to_string() });
            }
            Err(_) => return Err(turn.broken(used)),
        };
        if sent.is_err() {
            // The stream ends with this answer.
            return Ok(Response::new(status, headers, short_body(&mut turn, method, status, None)));
        }
        let length = headers.get("content-length").and_then(|value| value.to_str().ok()).and_then(number);
        if headers.contains_key("transfer-encoding") || (length.is_none() && !is_empty(method, status)) {
            turn.stream = None;
            let message = "the answer does not say how long it is".to_owned();
            return Err(Error { kind: ErrorKind::Request, message });
        }
        let length = if is_empty(method, status) { 0 } else { length.unwrap_or(0) };
        if length > SHORT {
            return Ok(Response::new(status, headers, Box::new(Rest { turn: Some(turn), left: length })));
        }
        let body = short_body(&mut turn, method, status, Some(length));
        Ok(Response::new(status, headers, body))
    }
}

/// Whether an answer has no body, whatever its headers say (RFC 9112 section 6.3).
fn is_empty(method: &str, status: u16) -> bool {
    method == "HEAD" || matches!(status, 100..=199 | 204 | 304)
}

/// Reads a short body; one that breaks off is an error of whoever reads it.
fn short_body(turn: &mut Turn, method: &str, status: u16, length: Option<u64>) -> Box<dyn Read + Send> {
    if is_empty(method, status) {
        return Box::new(io::empty());
    }
    let wanted = length.unwrap_or(SHORT);
    let mut bytes = Vec::new();
    let read = turn.stream().and_then(|stream| stream.reader().take(wanted).read_to_end(&mut bytes));
    let whole = read.is_ok() && length.is_some_and(|length| bytes.len() as u64 == length);
    if whole {
        return Box::new(io::Cursor::new(bytes));
    }
    if length.is_none() {
        turn.stream = None;
        return Box::new(io::Cursor::new(bytes));
    }
    let why = turn.broken(true);
    Box::new(io::Cursor::new(bytes).chain(Broken(why.message)))
}

/// Fails when it is read.
struct Broken(String);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, self.0.clone()))
    }
}

/// A long body, which has the stream until its end.
struct Rest {
    turn: Option<Turn>,
    left: u64,
}

impl Read for Rest {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(turn) = &mut self.turn else { return Ok(0) };
        if buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = turn.stream().and_then(|stream| stream.reader().read(&mut buffer[..most]));
        match read {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Ok(count) if count > 0 => {
                self.left -= count as u64;
                if self.left == 0 {
                    self.turn = None;
                }
                Ok(count)
            }
            _ => {
                let why = turn.broken(true);
                self.turn = None;
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, why.message))
            }
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let Some(turn) = &mut self.turn else { return };
        let skipped = if self.left <= SKIPPED {
            let left = self.left;
            turn.stream().and_then(|stream| io::copy(&mut stream.reader().take(left), &mut io::sink())).ok()
        } else {
            None
        };
        if skipped != Some(self.left) {
            turn.stream = None;
        }
    }
}

/// Why a request was not sent.
enum Sent {
    /// Its own content could not be read.
    Source(io::Error),
    /// The stream does not take it.
    Stream,
}

impl From<io::Error> for Sent {
    fn from(_: io::Error) -> Self {
        Self::Stream
    }
}

fn head(method: &str, target: &str, host: &str, headers: &[(&str, &str)], body: &Body) -> Result<Vec<u8>, Error> {
    let bad = |what: &str| Error { kind: ErrorKind::Request, message: format!("{what} cannot be sent") };
    if !target.starts_with('/') || target.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(bad("the address's path"));
    }
    let mut text = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in headers {
        if value.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(bad("a header"));
        }
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let length = match body {
        Body::None if matches!(method, "POST" | "PUT" | "PATCH") => Some(0),
        Body::None => None,
        Body::Bytes(bytes) => Some(bytes.len() as u64),
        Body::Reader(_, length) => Some(*length),
    };
    if let Some(length) = length {
        text.push_str(&format!("content-length: {length}\r\n"));
    }
    text.push_str("\r\n");
    Ok(text.into_bytes())
}

fn write(to: &mut dyn Write, head: &[u8], body: Body) -> Result<(), Sent> {
    to.write_all(head)?;
    match body {
        Body::None => {}
        Body::Bytes(bytes) => to.write_all(&bytes)?,
        Body::Reader(mut reader, length) => {
            let mut buffer = vec![0; 256 << 10];
            let mut left = length;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let count = match reader.read(&mut buffer[..most]) {
                    Ok(0) => {
                        let text = format!("it ends {left} bytes early");
                        return Err(Sent::Source(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
                    }
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(Sent::Source(error)),
                };
                to.write_all(&buffer[..count])?;
                left -= count as u64;
            }
        }
    }
    to.flush()?;
    Ok(())
}

fn read_head(from: &mut dyn BufRead) -> io::Result<(u16, HeaderMap)> {
    loop {
        let (status, headers) = read_one_head(from)?;
        // `100 Continue` comes before the answer.
        if !(100..=199).contains(&status) {
            return Ok((status, headers));
        }
    }
}

fn read_one_head(from: &mut dyn BufRead) -> io::Result<(u16, HeaderMap)> {
    let nonsense = |line: &[u8]| {
        let text: String = String::from_utf8_lossy(line).trim_end().chars().take(80).collect();
        let text = format!("it says {text:?}, which is no answer; does a start-up file of the shell there print it?");
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    let mut limited = from.take(MAX_HEAD);
    let mut line = Vec::new();
    limited.read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let first = std::str::from_utf8(&line).ok().and_then(|text| text.strip_prefix("HTTP/1.1 "));
    let status = first.and_then(|rest| rest.get(..3)).and_then(|text| text.parse::<u16>().ok());
    let Some(status) = status.filter(|status| (100..=999).contains(status)) else { return Err(nonsense(&line)) };
    let mut headers = HeaderMap::new();
    loop {
        line.clear();
        limited.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            return Ok((status, headers));
        }
        let at = text.iter().position(|byte| *byte == b':').ok_or_else(|| nonsense(text))?;
        let name = HeaderName::from_bytes(&text[..at]).map_err(|_| nonsense(text))?;
        let value = HeaderValue::from_bytes(text[at + 1..].trim_ascii()).map_err(|_| nonsense(text))?;
        headers.append(name, value);
    }
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Canned {
        sent: Arc<Mutex<Vec<u8>>>,
        to: Vec<u8>,
        from: io::Cursor<Vec<u8>>,
    }

    impl Stream for Canned {
        fn writer(&mut self) -> &mut dyn Write {
            &mut self.to
        }

        fn reader(&mut self) -> &mut dyn BufRead {
            &mut self.from
        }

        fn why(&mut self, answered: bool) -> Error {
            Error { kind: ErrorKind::Transfer, message: format!("gone, answered {answered}") }
        }
    }

    impl Drop for Canned {
        fn drop(&mut self) {
            self.sent.lock().expect("lock").append(&mut self.to);
        }
    }

    /// A server that answers this on each of its streams, and what is sent to it.
    fn server(answers: &'static [u8]) -> (Pipe, Arc<Mutex<Vec<u8>>>) {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&sent);
        let open = move || {
            let stream = Canned { sent: Arc::clone(&log), to: Vec::new(), from: io::Cursor::new(answers.to_vec()) };
            Ok(Box::new(stream) as Box<dyn Stream>)
        };
        (Pipe::new(Box::new(open)), sent)
    }

    fn get(pipe: &Pipe, target: &str) -> Result<Response, Error> {
        pipe.send("GET", target, "there", &[("accept", "x")], Body::None)
    }

    #[test]
    fn answers_come_one_after_the_other() {
        let answers = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-One: 1\r\n\r\nabc\
            HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno";
        let (pipe, sent) = server(answers);
        let one = get(&pipe, "/v2/").expect("answer");
        assert_eq!((one.status, one.header("x-one")), (200, Some("1")));
        // Nobody has read the first body yet.
        assert_eq!(get(&pipe, "/two").expect("answer").status, 204);
        assert_eq!(one.read(10).expect("body"), b"abc");
        let body = Body::Reader(Box::new(io::Cursor::new(b"12345".to_vec())), 4);
        let three = pipe.send("PUT", "/three", "there", &[], body).expect("answer");
        assert_eq!((three.status, three.read(10).expect("body")), (404, b"no".to_vec()));
        drop(pipe);
        let sent = String::from_utf8(sent.lock().expect("lock").clone()).expect("text");
        assert!(sent.starts_with("GET /v2/ HTTP/1.1\r\nhost: there\r\naccept: x\r\n\r\nGET /two "), "{sent}");
        assert!(sent.ends_with("PUT /three HTTP/1.1\r\nhost: there\r\ncontent-length: 4\r\n\r\n1234"), "{sent}");
    }

    #[test]
    fn what_is_no_answer() {
        for (answer, expected) in [
            (&b"Welcome!\r\n"[..], "start-up file"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "how long"),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "how long"),
            (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "no answer"),
            (b"", "gone, answered false"),
            (b"HTTP/1.1 200 OK\r\nhalf", "gone"),
        ] {
            let (pipe, _) = server(answer);
            let error = get(&pipe, "/").expect_err("refused").message;
            assert!(error.contains(expected), "{expected}: {error}");
        }
        let (pipe, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort");
        let error = get(&pipe, "/").expect("head").read(100).expect_err("cut");
        assert!(error.to_string().contains("gone, answered true"), "{error}");
        assert!(get(&pipe, "/a b").is_err() && get(&pipe, "x").is_err());
    }
}
