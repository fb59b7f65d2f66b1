//! Entries of log files, as Docker writes them.
//!
//! ```text
//! json-file  {"log":"TEXT\n","stream":"stdout","attrs":{...},"time":"RFC 3339"}\n
//! local      length (4 bytes, big endian), protocol buffer, the same length again
//!            LogEntry { 1: source, 2: time in ns, 3: line, 4: partial, 5: { 1: last, 2: id, 3: ordinal } }
//! ```
//!
//! In JSON each byte that is no UTF-8 is U+FFFD; `local` keeps all bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Entry, Line};
use crate::monitor::protocol;
use crate::time;

fn stream(error: bool) -> &'static str {
    if error { "stderr" } else { "stdout" }
}

/// A JSON string in Docker's spelling: what HTML reads otherwise is escaped, and so is all that is no UTF-8.
fn string(into: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => into.extend_from_slice(&[b'\\', character as u8]),
                '\n' => into.extend_from_slice(b"\\n"),
                '\r' => into.extend_from_slice(b"\\r"),
                '\u{2028}' => into.extend_from_slice(b"\\u2028"),
                '\u{2029}' => into.extend_from_slice(b"\\u2029"),
                '\0'..='\x1f' | '<' | '>' | '&' => {
                    let byte = character as u8;
                    into.extend_from_slice(b"\\u00");
                    into.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
                }
                other => into.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            into.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Adds a line of json-file. `attributes` is an object of JSON, or empty.
pub(super) fn json(into: &mut Vec<u8>, line: &Line<'_>, attributes: &[u8]) {
    into.extend_from_slice(b"{\"log\":\"");
    string(into, line.text);
    if line.whole {
        into.extend_from_slice(b"\\n");
    }
    into.extend_from_slice(b"\",\"stream\":\"");
    into.extend_from_slice(stream(line.error).as_bytes());
    into.push(b'"');
    if !attributes.is_empty() {
        into.extend_from_slice(b",\"attrs\":");
        into.extend_from_slice(attributes);
    }
    into.extend_from_slice(b",\"time\":\"");
    into.extend_from_slice(time::short(line.time).as_bytes());
    into.extend_from_slice(b"\"}\n");
}

#[derive(Deserialize)]
struct Json<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// Reads a line of json-file; `None` when it is damaged.
pub(super) fn read_json(line: &[u8]) -> Option<Entry> {
    let json: Json<'_> = serde_json::from_slice(line).ok()?;
    Some(Entry {
        stream: if json.stream == "stderr" { protocol::STDERR } else { protocol::STDOUT },
        time: time::date(&json.time)?,
        attributes: json.attrs,
        text: json.log.into_owned().into_bytes(),
    })
}

fn varint(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    into.push(u8::try_from(number).unwrap_or(0));
}

fn bytes(into: &mut Vec<u8>, field: u8, content: &[u8]) {
    into.push(field << 3 | 2);
    varint(into, content.len() as u64);
    into.extend_from_slice(content);
}

/// Adds an entry of local.
pub(super) fn local(into: &mut Vec<u8>, line: &Line<'_>) {
    let mut message = Vec::with_capacity(line.text.len() + 32);
    bytes(&mut message, 1, stream(line.error).as_bytes());
    message.push(2 << 3);
    varint(&mut message, line.time);
    bytes(&mut message, 3, line.text);
    // Partial is what has no line feed, and the last part of what was split.
    if !line.whole || !line.first {
        message.extend_from_slice(&[4 << 3, 1]);
        bytes(&mut message, 5, if line.whole { &[1 << 3, 1] } else { &[] });
    }
    let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
    into.extend_from_slice(&length);
    into.extend_from_slice(&message);
    into.extend_from_slice(&length);
}

struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (content, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }

    /// A field's number, and its content: a number or bytes.
    fn field(&mut self) -> Option<(u64, u64, &'a [u8])> {
        let key = self.varint()?;
        match key & 7 {
            0 => Some((key >> 3, self.varint()?, &[])),
            2 => Some((key >> 3, 0, self.bytes()?)),
            _ => None,
        }
    }
}

/// Reads an entry of local, without its lengths; `None` when it is damaged.
pub(super) fn read_local(message: &[u8]) -> Option<Entry> {
    let mut entry = Entry { stream: protocol::STDOUT, time: 0, attributes: BTreeMap::new(), text: Vec::new() };
    let (mut partial, mut last) = (false, false);
    let mut fields = Message(message);
    while !fields.0.is_empty() {
        match fields.field()? {
            (1, _, source) if source == b"stderr" => entry.stream = protocol::STDERR,
            (2, number, _) => entry.time = number,
            (3, _, text) => entry.text = text.to_vec(),
            (4, number, _) => partial = number != 0,
            (5, _, metadata) => {
                let mut metadata = Message(metadata);
                while !metadata.0.is_empty() {
                    let (field, number, _) = metadata.field()?;
                    last |= field == 1 && number != 0;
                }
            }
            _ => {}
        }
    }
    if !partial || last {
        entry.text.push(b'\n');
    }
    Some(entry)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &[u8], whole: bool, first: bool) -> Line<'_> {
        Line { error: false, time: 1_709_210_096_120_000_000, text, whole, first }
    }

    #[test]
    fn json_is_docker_s_to_the_byte() {
        let mut text = Vec::new();
        json(&mut text, &line(b"a\t\"<b>&\\\r\xe2\x82\x7f\x01", true, true), br#"{"tag":"x"}"#);
        let expected = r#"{"log":"a\u0009\"\u003cb\u003e\u0026\\\r\ufffd\ufffdDEL\u0001\n","stream":"stdout","attrs":{"tag":"x"},"time":"2024-02-29T12:34:56.12Z"}"#;
        assert_eq!(String::from_utf8(text).unwrap(), expected.replace("DEL", "\x7f") + "\n");
    }

    proptest! {
        #[test]
        fn local_keeps_every_byte(text in prop::collection::vec(any::<u8>(), 0..400), whole: bool, first: bool) {
            let mut file = Vec::new();
            local(&mut file, &line(&text, whole, first));
            let length = u32::from_be_bytes([file[0], file[1], file[2], file[3]]) as usize;
            prop_assert_eq!(file.len(), length + 8);
            prop_assert_eq!(&file[..4], &file[length + 4..]);
            let entry = read_local(&file[4..length + 4]).unwrap();
            let mut expected = text;
            if whole { expected.push(b'\n'); }
            prop_assert_eq!(entry.text, expected);
            prop_assert_eq!(entry.time, 1_709_210_096_120_000_000);
        }

        #[test]
        fn text_survives_json(text in ".*", whole: bool) {
            let mut file = Vec::new();
            json(&mut file, &line(text.as_bytes(), whole, true), b"");
            let entry = read_json(&file).unwrap();
            let expected = if whole { format!("{text}\n") } else { text };
            prop_assert_eq!(String::from_utf8(entry.text).unwrap(), expected);
        }

        #[test]
        fn damage_is_no_entry(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read_local(&bytes);
            let _ = read_json(&bytes);
        }
    }
}
