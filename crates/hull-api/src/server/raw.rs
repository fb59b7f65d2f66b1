//! Clients that want a connection for themselves and do not ask for another protocol: those from before API 1.20, and
//! programs that speak HTTP themselves. Like dockerd's, the answer is `200 OK`, and from there on nothing is HTTP.
//!
//! The library that speaks HTTP gives a connection away only after `101`. So the first request of a connection is looked
//! at here, before that: one that wants to attach gets the header that asks for another protocol, and the head of its
//! answer is written as such clients know it. A request whose body has no end of its own is left as it is: what is in
//! pieces is HTTP to its end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// A head that is longer is nobody's who attaches.
const MOST: usize = 16 << 10;

const ASKS: &[u8] = b"Connection: Upgrade\r\nUpgrade: tcp\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";

/// A client's connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    /// What was read before, and how much of it has been given on.
    before: Vec<u8>,
    given: usize,
    /// The first head that is written is the answer to one that attaches.
    attaches: bool,
    /// What is to be written instead of it.
    instead: Vec<u8>,
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n")
}

/// Whether a head asks for the connection and for no protocol.
fn attaches(head: &[u8]) -> bool {
    let Ok(head) = std::str::from_utf8(head) else { return false };
    let mut lines = head.split("\r\n");
    let Some(address) = lines.next().and_then(|line| line.strip_prefix("POST ")?.split(' ').next()) else {
        return false;
    };
    let path = address.split('?').next().unwrap_or_default();
    let mut parts = path.rsplit('/');
    let last = (parts.next(), parts.next(), parts.next());
    let wanted = matches!(last, (Some("attach"), Some(_), Some("containers")) | (Some("start"), Some(_), Some("exec")));
    let is = |line: &str, name: &str| line.split(':').next().is_some_and(|key| key.trim().eq_ignore_ascii_case(name));
    wanted && !lines.any(|line| is(line, "upgrade") || is(line, "transfer-encoding"))
}

impl Client {
    /// Reads the first head, if it may be one that attaches.
    pub(super) async fn new(mut stream: UnixStream) -> io::Result<Self> {
        const BEGIN: &[u8] = b"POST ";
        let mut before = Vec::with_capacity(2048);
        let end = loop {
            if !before.starts_with(&BEGIN[..BEGIN.len().min(before.len())]) || before.len() > MOST {
                break None;
            }
            if let Some(end) = end_of_head(&before) {
                break Some(end);
            }
            if stream.read_buf(&mut before).await? == 0 {
                break None;
            }
        };
        let attaches = end.is_some_and(|end| attaches(&before[..end]));
        if let Some(end) = end.filter(|_| attaches) {
            before.splice(end + 2..end + 2, ASKS.iter().copied());
        }
        Ok(Self { stream, before, given: 0, attaches, instead: Vec::new() })
    }

    /// The socket, and what was read of it and not given on. What is still to be written is written.
    pub(super) fn into_parts(self) -> io::Result<(std::os::unix::net::UnixStream, Vec<u8>)> {
        let socket = self.stream.into_std()?;
        socket.set_nonblocking(false)?;
        io::Write::write_all(&mut &socket, &self.instead)?;
        Ok((socket, self.before[self.given..].to_vec()))
    }

    /// Writes what stands for the head; its place is taken until that is done.
    fn write_instead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.instead))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.given < self.before.len() {
            let length = buffer.remaining().min(self.before.len() - self.given);
            buffer.put_slice(&self.before[self.given..self.given + length]);
            self.given += length;
            if self.given == self.before.len() {
                (self.before, self.given) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.write_instead(context))?;
        if std::mem::take(&mut self.attaches)
            && bytes.starts_with(b"HTTP/1.1 101 ")
            && let Some(end) = end_of_head(bytes)
        {
            self.instead = ANSWER.to_vec();
            return Poll::Ready(Ok(end + 4));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    /// Without this whoever writes answers copies them into a buffer that each connection then keeps.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.write_instead(context))?;
        if self.attaches {
            // The head is a piece of its own.
            let first = pieces.iter().find(|piece| !piece.is_empty()).map_or(&[][..], |piece| piece);
            return self.poll_write(context, first);
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_instead(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_instead(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_attaches_without_another_protocol() {
        let attach =
            |rest: &str| attaches(format!("POST /v1.41/containers/a/attach?stream=1 HTTP/1.1{rest}").as_bytes());
        assert!(attach("") && attach("\r\nHost: x\r\nContent-Length: 2"));
        assert!(
            !attach("\r\nUpgrade: tcp") && !attach("\r\nUPGRADE : tcp") && !attach("\r\ntransfer-encoding: chunked")
        );
        assert!(attaches(b"POST /exec/abc/start HTTP/1.1"));
        for other in
            ["GET /containers/a/attach", "POST /containers/a/start", "POST /attach", "POST", "POST /exec/start"]
        {
            assert!(!attaches(other.as_bytes()), "{other}");
        }
    }
}
