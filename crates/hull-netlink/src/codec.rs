//! Netlink messages: writing them into a growing buffer, reading them with every length checked.
//!
//! A message is a 16-byte header (length, type, flags, sequence, port), a fixed part, and attributes (length, type,
//! value), everything in the machine's byte order and padded to 4 bytes (`netlink(7)`, `rtnetlink(7)`).

/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
pub(crate) const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
/// The error carries attributes.
pub(crate) const NLM_F_ACK_TLVS: u16 = 0x200;
/// The error does not repeat the request.
pub(crate) const NLM_F_CAPPED: u16 = 0x100;
/// A dump raced with a change and must be repeated.
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// The attribute's value is attributes.
const NESTED: u16 = 0x8000;
/// Nested and byte-order bits of an attribute's type.
const ATTRIBUTE_TYPE: u16 = 0x3fff;

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// A request under construction.
#[derive(Debug)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    pub(crate) fn new(kind: u16, flags: u16, sequence: u32, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(fixed);
        bytes.resize(aligned(bytes.len()), 0);
        Self(bytes)
    }

    /// Gives the message another sequence number.
    pub(crate) fn sequence(mut self, sequence: u32) -> Self {
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self
    }

    /// Asks for an acknowledgement.
    pub(crate) fn acknowledge(mut self) -> Self {
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | NLM_F_ACK;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// Appends an attribute. Values are a few bytes: names, addresses, numbers.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        debug_assert_eq!(usize::from(length), 4 + value.len(), "attribute too long");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(&value[..usize::from(length) - 4]);
        self.0.resize(aligned(self.0.len()), 0);
        self
    }

    pub(crate) fn attribute_u32(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// A name with its final null byte.
    pub(crate) fn attribute_name(self, kind: u16, name: &str) -> Self {
        let mut value = name.as_bytes().to_vec();
        value.push(0);
        self.attribute(kind, &value)
    }

    /// Appends an attribute that is made of attributes.
    pub(crate) fn nested(mut self, kind: u16, body: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        self = body(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        debug_assert_eq!(usize::from(length), self.0.len() - start, "attribute too long");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Appends bytes that are no attribute: the fixed part of a message inside an attribute.
    pub(crate) fn fixed(mut self, fixed: &[u8]) -> Self {
        self.0.extend_from_slice(fixed);
        self.0.resize(aligned(self.0.len()), 0);
        self
    }

    pub(crate) fn attribute_be32(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The message, its length filled in.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// One received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// The messages of one datagram; an item is an error when a length runs past the end.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Result<Message<'_>, &'static str>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let parsed = parse_message(bytes);
        bytes = match &parsed {
            Ok((_, rest)) => rest,
            Err(_) => &[],
        };
        Some(parsed.map(|(message, _)| message))
    })
}

fn parse_message(bytes: &[u8]) -> Result<(Message<'_>, &[u8]), &'static str> {
    let short = "truncated message header";
    let length = u32_at(bytes, 0).ok_or(short)? as usize;
    let kind = u16_at(bytes, 4).ok_or(short)?;
    let flags = u16_at(bytes, 6).ok_or(short)?;
    let sequence = u32_at(bytes, 8).ok_or(short)?;
    let payload = bytes.get(HEADER..length).ok_or("message length does not fit the datagram")?;
    let rest = bytes.get(aligned(length)..).unwrap_or_default();
    Ok((Message { kind, flags, sequence, payload }, rest))
}

/// The attributes in a message's tail; an item is an error when a length runs past the end.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), &'static str>> {
    std::iter::from_fn(move || {
        // Fewer bytes than a header are padding.
        let (length, kind) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)?);
        let Some(value) = bytes.get(4..length) else {
            bytes = &[];
            return Some(Err("attribute length does not fit the message"));
        };
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some(Ok((kind & ATTRIBUTE_TYPE, value)))
    })
}

/// Error number (0 for an acknowledgement) and text of an `NLMSG_ERROR` message.
pub(crate) fn error_of(message: &Message<'_>) -> Result<(i32, String), &'static str> {
    let code = u32_at(message.payload, 0).ok_or("truncated error message")?;
    #[expect(clippy::cast_possible_wrap, reason = "the field is a negative errno")]
    let code = (code as i32).checked_neg().ok_or("error number out of range")?;
    if message.flags & NLM_F_ACK_TLVS == 0 {
        return Ok((code, String::new()));
    }
    // The request's header follows, and its body too unless the kernel capped it.
    let mut offset = 4 + HEADER;
    if message.flags & NLM_F_CAPPED == 0 {
        offset = 4 + aligned(u32_at(message.payload, 4).ok_or("truncated error message")? as usize);
    }
    for attribute in attributes(message.payload.get(offset..).unwrap_or_default()) {
        let (kind, value) = attribute?;
        if kind == NLMSGERR_ATTR_MSG {
            return Ok((code, string(value)));
        }
    }
    Ok((code, String::new()))
}

/// A value that is a C string, at most 256 bytes of it.
pub(crate) fn string(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len()).min(256);
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_padded_and_has_its_length() {
        let bytes = Request::new(16, NLM_F_ACK, 7, &[1, 2, 3, 4]).attribute_name(3, "lo").attribute_u32(19, 5).finish();
        assert_eq!(bytes.len(), 16 + 4 + 8 + 8);
        let mut expected = Vec::new();
        expected.extend_from_slice(&36_u32.to_ne_bytes());
        expected.extend_from_slice(&16_u16.to_ne_bytes());
        expected.extend_from_slice(&5_u16.to_ne_bytes());
        expected.extend_from_slice(&7_u32.to_ne_bytes());
        expected.extend_from_slice(&[0; 4]);
        expected.extend_from_slice(&[1, 2, 3, 4]);
        expected.extend_from_slice(&7_u16.to_ne_bytes());
        expected.extend_from_slice(&3_u16.to_ne_bytes());
        expected.extend_from_slice(b"lo\0\0");
        expected.extend_from_slice(&8_u16.to_ne_bytes());
        expected.extend_from_slice(&19_u16.to_ne_bytes());
        expected.extend_from_slice(&5_u32.to_ne_bytes());
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = Request::new(16, 0, 9, &[0; 16]).attribute_name(3, "eth0").attribute(1, &[9; 6]).finish();
        let message = messages(&bytes).next().unwrap().unwrap();
        assert_eq!((message.kind, message.sequence), (16, 9));
        let found: Vec<_> = attributes(&message.payload[16..]).map(Result::unwrap).collect();
        assert_eq!(found, [(3, &b"eth0\0"[..]), (1, &[9; 6][..])]);
    }

    #[test]
    fn lengths_that_lie_are_errors() {
        for length in [0_u32, 15, 33, u32::MAX] {
            let mut bytes = vec![0; 32];
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            let found: Vec<_> = messages(&bytes).collect();
            assert_eq!(found.len(), 1, "{length}");
            assert!(found[0].is_err(), "{length}");
        }
        assert!(messages(&[1, 2, 3]).next().unwrap().is_err());
        for length in [0_u16, 3, 9, u16::MAX] {
            let mut bytes = vec![0; 8];
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            let found: Vec<_> = attributes(&bytes).collect();
            assert_eq!(found.len(), 1, "{length}");
            assert!(found[0].is_err(), "{length}");
        }
    }

    #[test]
    fn every_prefix_of_a_message_is_handled() {
        let bytes = Request::new(2, NLM_F_ACK_TLVS, 1, &[0xff; 4]).attribute_name(1, "text").finish();
        for end in 0..bytes.len() {
            for message in messages(&bytes[..end]).flatten() {
                let _ = error_of(&message);
            }
        }
    }

    #[test]
    fn extended_acknowledgement_gives_its_text() {
        let mut payload = (-17_i32).to_ne_bytes().to_vec();
        payload.extend_from_slice(&20_u32.to_ne_bytes());
        payload.extend_from_slice(&[0; 16]);
        payload.extend_from_slice(&9_u16.to_ne_bytes());
        payload.extend_from_slice(&1_u16.to_ne_bytes());
        payload.extend_from_slice(b"busy\0\0\0\0");
        let mut message = Message { kind: NLMSG_ERROR, flags: NLM_F_ACK_TLVS, sequence: 0, payload: &payload };
        assert_eq!(error_of(&message), Ok((17, String::from("busy"))));
        message.flags = 0;
        assert_eq!(error_of(&message), Ok((17, String::new())));
        let lowest = i32::MIN.to_ne_bytes();
        message.payload = &lowest;
        assert!(error_of(&message).is_err());
    }
}
