//! A client of HTTP/1.1 over a Unix socket, as small as the measurements need it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::Result;

/// An answer's body is at most so long.
const MOST: u64 = 256 << 20;

/// A connection that is kept between calls.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as a document; nothing if it is none.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A field of the document, as text.
    pub(crate) fn text(&self, field: &str) -> String {
        self.json()[field].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    /// Connects; a read that lasts longer than `patience` is an error.
    pub(crate) fn new(socket: &Path, patience: Duration) -> Result<Self> {
        let stream = UnixStream::connect(socket).map_err(|error| format!("{}: {error}", socket.display()))?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a request without waiting.
    pub(crate) fn send(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<()> {
        let upgrade = if kind == "upgrade" { "Connection: Upgrade\r\nUpgrade: tcp\r\n" } else { "" };
        let kind = if kind == "upgrade" { "application/json" } else { kind };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\n{upgrade}Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.stream.get_mut().write_all(&bytes)?;
        Ok(())
    }

    /// Sends bytes, and says that no more come: after an upgrade.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes)?;
        self.stream.get_mut().shutdown(std::net::Shutdown::Write)?;
        Ok(())
    }

    /// The status of an answer, and its headers' lines in lower case.
    pub(crate) fn head(&mut self) -> Result<(u16, Vec<String>)> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| format!("{first:?} is no answer"))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            headers.push(line.to_ascii_lowercase());
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err("the connection has ended".into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Everything until the other side ends: after an upgrade.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.by_ref().take(MOST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The answer to what was sent.
    pub(crate) fn answer(&mut self, method: &str) -> Result<Answer> {
        let (status, headers) = self.head()?;
        let value = |name: &str| headers.iter().find_map(|line| line.strip_prefix(name));
        let length = value("content-length: ").and_then(|text| text.parse::<u64>().ok());
        let mut body = Vec::new();
        if method == "HEAD" || matches!(status, 101 | 204 | 304) {
        } else if let Some(length) = length {
            self.stream.by_ref().take(length.min(MOST)).read_to_end(&mut body)?;
        } else if value("transfer-encoding: ").is_some() {
            loop {
                let size = u64::from_str_radix(&self.line()?, 16)?;
                self.stream.by_ref().take(size.min(MOST)).read_to_end(&mut body)?;
                let _ = self.line()?;
                if size == 0 {
                    break;
                }
            }
        } else {
            body = self.rest()?;
        }
        Ok(Answer { status, body })
    }

    /// A request and its answer.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &serde_json::Value) -> Result<Answer> {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send(method, path, "application/json", &bytes)?;
        self.answer(method)
    }
}
