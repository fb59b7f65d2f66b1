//! Attaching by WebSocket ([RFC 6455](https://www.rfc-editor.org/rfc/rfc6455)): output as frames of text, or of bytes
//! for clients that know of it; what comes in frames is input.

use std::sync::Arc;

use base64::Engine as _;

use super::attach;
use super::relay::Form;
use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;

/// Appended to a client's key, says the protocol.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bytes of one frame from a client at most.
const MOST: usize = 1 << 20;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Frames in both directions.
struct Frames {
    kind: u8,
    received: Vec<u8>,
    closed: bool,
}

/// A frame to a client: not masked.
fn put(into: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    into.push(0x80 | kind);
    match bytes.len() {
        length @ 0..126 => into.push(u8::try_from(length).unwrap_or(0)),
        length @ 126..65_536 => {
            into.push(126);
            into.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
        }
        length => {
            into.push(127);
            into.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    into.extend_from_slice(bytes);
}

impl Frames {
    /// The next whole frame: its kind and its payload. `Err` when the client does not speak the protocol.
    fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>, ()> {
        let bytes = &self.received;
        let [first, second, rest @ ..] = bytes.as_slice() else { return Ok(None) };
        let short = usize::from(second & 0x7f);
        let (length, header) = match short {
            126 => match rest {
                [a, b, ..] => (usize::from(u16::from_be_bytes([*a, *b])), 4),
                _ => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(length) => (usize::try_from(u64::from_be_bytes(*length)).map_err(drop)?, 10),
                None => return Ok(None),
            },
            short => (short, 2),
        };
        // Whoever does not mask is no client.
        if second & 0x80 == 0 || length > MOST {
            return Err(());
        }
        let end = header + 4 + length;
        if bytes.len() < end {
            return Ok(None);
        }
        let mask = &bytes[header..header + 4];
        let payload = bytes[header + 4..end].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let kind = first & 0x0f;
        self.received.drain(..end);
        Ok(Some((kind, payload)))
    }
}

impl Form for Frames {
    fn output(&mut self, into: &mut Vec<u8>, _error: bool, bytes: &[u8]) {
        if self.kind == TEXT {
            put(into, TEXT, String::from_utf8_lossy(bytes).as_bytes());
        } else {
            put(into, self.kind, bytes);
        }
    }

    fn input(&mut self, bytes: &[u8], into: &mut Vec<u8>, answer: &mut Vec<u8>) -> bool {
        self.received.extend_from_slice(bytes);
        loop {
            match self.next() {
                Ok(None) => return true,
                Ok(Some((CONTINUATION | TEXT | BINARY, payload))) => into.extend_from_slice(&payload),
                Ok(Some((PING, payload))) => put(answer, PONG, &payload),
                Ok(Some((PONG, _))) => {}
                Ok(Some((_, payload))) => {
                    if !self.closed {
                        self.closed = true;
                        put(answer, CLOSE, payload.get(..2).unwrap_or_default());
                    }
                    return false;
                }
                Err(()) => return false,
            }
        }
    }

    fn end(&mut self, into: &mut Vec<u8>) {
        if !self.closed {
            put(into, CLOSE, &1000_u16.to_be_bytes());
        }
    }
}

pub(super) fn attach(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    if request.upgrade().as_deref() != Some("websocket") {
        return Err(Refusal::bad("not websocket protocol"));
    }
    let key = request.header("sec-websocket-key").filter(|key| key.len() < 128).map(str::to_owned);
    let key = key.ok_or_else(|| Refusal::bad("mismatch challenge/response"))?;
    let mut wish = attach::wish(api, request)?;
    // Frames of the client are heard in any case: it says by one that it goes.
    wish.keys.clear();
    let monitor = attach::monitor(api, &wish.container.id, wish.wants)?;
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{MAGIC}").as_bytes());
    let accept = base64::engine::general_purpose::STANDARD.encode(digest.as_ref());
    let kind = if request.version.since(28) { BINARY } else { TEXT };
    let form = Box::new(Frames { kind, received: Vec::new(), closed: false });
    let api = Arc::clone(api);
    let mut reply = Reply::hijack("", move |hijacked| attach::serve(&api, wish, Some(monitor), form, hijacked));
    reply.headers.clear();
    Ok(reply.with("sec-websocket-accept", accept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_clients_are_unmasked_and_answered() {
        let mut frames = Frames { kind: BINARY, received: Vec::new(), closed: false };
        let (mut input, mut answer) = (Vec::new(), Vec::new());
        // The protocol's own example, cut in two, and a ping.
        assert!(frames.input(&[0x81, 0x85, 0x37, 0xfa], &mut input, &mut answer));
        assert!(frames.input(&[0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58], &mut input, &mut answer));
        assert_eq!(input, b"Hello");
        assert!(frames.input(&[0x89, 0x81, 0, 0, 0, 0, b'x'], &mut input, &mut answer));
        assert_eq!(answer, [0x8a, 1, b'x']);
        assert!(!frames.input(&[0x88, 0x80, 0, 0, 0, 0], &mut input, &mut answer));
        let mut unmasked = Frames { kind: BINARY, received: Vec::new(), closed: false };
        assert!(!unmasked.input(&[0x81, 0x01, b'x'], &mut input, &mut answer));
        let mut long = Vec::new();
        put(&mut long, BINARY, &[7; 300]);
        assert_eq!(&long[..4], [0x82, 126, 1, 44]);
    }
}
