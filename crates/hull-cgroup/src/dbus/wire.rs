//! D-Bus messages (D-Bus Specification, "Message Protocol"), little endian, as far as systemd's interface needs them.
//!
//! What is received is bounded in size and every length is checked: the peer may be anybody who owns the socket.

/// Longest message that is accepted; systemd's are below a kilobyte.
pub(crate) const MAX_MESSAGE: usize = 1 << 20;

pub(crate) const METHOD_CALL: u8 = 1;
pub(crate) const METHOD_RETURN: u8 = 2;
pub(crate) const ERROR: u8 = 3;
pub(crate) const SIGNAL: u8 = 4;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A property's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Bool(bool),
    U64(u64),
    Numbers(Vec<u32>),
    Bytes(Vec<u8>),
    Pairs(Vec<(String, String)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Text(_) => "s",
            Self::Bool(_) => "b",
            Self::U64(_) => "t",
            Self::Numbers(_) => "au",
            Self::Bytes(_) => "ay",
            Self::Pairs(_) => "a(ss)",
        }
    }
}

/// Writes values with their alignment.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    pub(crate) bytes: Vec<u8>,
}

impl Encoder {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.u32(length(text.len()));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    /// An array whose elements have an alignment; its length does not count the padding before the first.
    pub(crate) fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let at = self.bytes.len() - 4;
        self.align(alignment);
        let start = self.bytes.len();
        elements(self);
        let size = length(self.bytes.len() - start);
        self.bytes[at..at + 4].copy_from_slice(&size.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Text(text) => self.text(text),
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::U64(value) => {
                self.align(8);
                self.bytes.extend(value.to_le_bytes());
            }
            Value::Numbers(numbers) => self.array(4, |array| numbers.iter().for_each(|&number| array.u32(number))),
            Value::Bytes(bytes) => self.array(1, |array| array.bytes.extend(bytes)),
            Value::Pairs(pairs) => self.array(8, |array| {
                for (first, second) in pairs {
                    array.align(8);
                    array.text(first);
                    array.text(second);
                }
            }),
        }
    }

    /// `a(sv)`.
    pub(crate) fn properties(&mut self, properties: &[(&str, Value)]) {
        self.array(8, |array| {
            for (name, value) in properties {
                array.align(8);
                array.text(name);
                array.variant(value);
            }
        });
    }
}

fn length(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A method call as bytes.
pub(crate) fn call(
    serial: u32,
    destination: Option<&str>,
    (path, interface, member): (&str, &str, &str),
    signature: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut message = Encoder { bytes: vec![b'l', METHOD_CALL, 0, 1] };
    message.u32(length(body.len()));
    message.u32(serial);
    message.array(8, |fields| {
        let mut field = |code: u8, kind: &str, value: &str| {
            fields.align(8);
            fields.bytes.push(code);
            fields.signature(kind);
            if kind == "g" { fields.signature(value) } else { fields.text(value) }
        };
        field(PATH, "o", path);
        if let Some(destination) = destination {
            field(DESTINATION, "s", destination);
        }
        field(INTERFACE, "s", interface);
        field(MEMBER, "s", member);
        if !signature.is_empty() {
            field(SIGNATURE, "g", signature);
        }
    });
    message.align(8);
    message.bytes.extend(body);
    message.bytes
}

/// A received message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) reply_to: u32,
    pub(crate) member: String,
    pub(crate) error: String,
    pub(crate) signature: String,
    pub(crate) body: Vec<u8>,
    big_endian: bool,
}

/// Reads values with their alignment.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Decoder<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let size = self.u32()? as usize;
        let text = self.take(size)?;
        (self.take(1)? == [0]).then_some(())?;
        std::str::from_utf8(text).ok()
    }

    fn signature(&mut self) -> Option<&'a str> {
        let size = usize::from(*self.take(1)?.first()?);
        let text = self.take(size)?;
        self.take(1)?;
        std::str::from_utf8(text).ok()
    }
}

/// Size of a whole message from its first 16 bytes; `None` if they are not a message or it is too long.
pub(crate) fn message_size(header: &[u8; 16]) -> Option<usize> {
    let big_endian = match header[0] {
        b'l' => false,
        b'B' => true,
        _ => return None,
    };
    let mut decoder = Decoder { bytes: header, at: 4, big_endian };
    let body = decoder.u32()? as usize;
    decoder.u32()?;
    let fields = decoder.u32()? as usize;
    let size = 16_usize.checked_add(fields)?.checked_next_multiple_of(8)?.checked_add(body)?;
    (size <= MAX_MESSAGE).then_some(size)
}

/// Parses a whole message.
pub(crate) fn parse(bytes: &[u8]) -> Option<Message> {
    let big_endian = *bytes.first()? == b'B';
    let mut message = Message { kind: *bytes.get(1)?, big_endian, ..Message::default() };
    let mut decoder = Decoder { bytes, at: 4, big_endian };
    let body = decoder.u32()? as usize;
    decoder.u32()?;
    let end = (decoder.u32()? as usize).checked_add(16)?;
    while decoder.at < end {
        decoder.align(8);
        let code = *decoder.take(1)?.first()?;
        match (decoder.signature()?, code) {
            ("u", REPLY_SERIAL) => message.reply_to = decoder.u32()?,
            ("u", _) => drop(decoder.u32()?),
            ("g", SIGNATURE) => decoder.signature()?.clone_into(&mut message.signature),
            ("g", _) => drop(decoder.signature()?),
            ("s", MEMBER) => decoder.text()?.clone_into(&mut message.member),
            ("s", ERROR_NAME) => decoder.text()?.clone_into(&mut message.error),
            ("s" | "o", _) => drop(decoder.text()?),
            _ => return None,
        }
    }
    decoder.align(8);
    message.body = decoder.take(body)?.to_vec();
    Some(message)
}

impl Message {
    pub(crate) fn decoder(&self) -> Decoder<'_> {
        Decoder { bytes: &self.body, at: 0, big_endian: self.big_endian }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Hello call as the specification lays it out.
    #[test]
    fn hello_bytes() {
        let interface = "org.freedesktop.DBus";
        let bytes = call(1, Some(interface), ("/org/freedesktop/DBus", interface, "Hello"), "", &[]);
        let expected = b"l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x6e\x00\x00\x00\
            \x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00\x00\x00\
            \x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00\
            \x02\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00\
            \x03\x01s\x00\x05\x00\x00\x00Hello\x00\x00\x00";
        assert_eq!(bytes, expected);
        assert_eq!(message_size(bytes[..16].try_into().unwrap()), Some(bytes.len()));
        let parsed = parse(&bytes).unwrap();
        assert_eq!((parsed.kind, parsed.member.as_str()), (METHOD_CALL, "Hello"));
    }

    #[test]
    fn property_bytes() {
        let mut body = Encoder::default();
        body.properties(&[("A", Value::U64(7)), ("B", Value::Bool(true)), ("P", Value::Numbers(vec![9]))]);
        let expected = b"\x34\x00\x00\x00\x00\x00\x00\x00\
            \x01\x00\x00\x00A\x00\x01t\x00\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\
            \x01\x00\x00\x00B\x00\x01b\x00\x00\x00\x00\x01\x00\x00\x00\
            \x01\x00\x00\x00P\x00\x02au\x00\x00\x00\x04\x00\x00\x00\x09\x00\x00\x00";
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        // The length is that of the elements, without the padding before the first.
        let size = u32::try_from(expected.len() - 8).unwrap().to_le_bytes();
        assert_eq!(hex(&body.bytes[..4]), hex(&size));
        assert_eq!(hex(&body.bytes[4..]), hex(&expected[4..]));
    }

    #[test]
    fn hostile_messages() {
        assert_eq!(message_size(b"l\x02\0\x01\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff"), None);
        assert_eq!(message_size(b"xxxxxxxxxxxxxxxx"), None);
        let bytes = call(1, None, ("/a", "b.c", "D"), "s", b"\x05\0\0\0abcde\0");
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end]).is_none(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0xff;
            if let Some(message) = parse(&broken) {
                let _ = message.decoder().text();
            }
        }
    }
}
