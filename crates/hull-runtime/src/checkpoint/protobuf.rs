//! The part of the protocol buffers wire format that CRIU's remote procedure calls use: varints, byte strings, messages.

/// A message under construction.
#[derive(Clone, Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    pub(super) fn number(&mut self, field: u32, value: i64) {
        self.varint(u64::from(field) << 3);
        self.varint(value.cast_unsigned());
    }

    /// A flag; `false` is what absence means.
    pub(super) fn flag(&mut self, field: u32, value: bool) {
        if value {
            self.number(field, 1);
        }
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(super) fn message(&mut self, field: u32, value: &Self) {
        self.bytes(field, &value.0);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Numbers are at most 32 bits here; negative ones are sign-extended to 64.
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the number")]
    pub(super) fn as_i32(self) -> Option<i32> {
        match self {
            Self::Number(value) => Some(value as u32 as i32),
            Self::Bytes(_) => None,
        }
    }

    pub(super) fn as_bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }

    pub(super) fn as_text(self) -> Option<String> {
        self.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The fields of a message, or `None` where it is malformed.
pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = read_varint(&mut bytes)?;
        let field = u32::try_from(key >> 3).ok().filter(|field| *field != 0)?;
        let value = match key & 7 {
            0 => Value::Number(read_varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(read_varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Value::Bytes(value)
            }
            wire @ (1 | 5) => {
                let (_, rest) = bytes.split_at_checked(if wire == 1 { 8 } else { 4 })?;
                bytes = rest;
                continue;
            }
            _ => return None,
        };
        fields.push((field, value));
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_that_of_the_specification() {
        let mut inner = Writer::default();
        inner.number(1, 150);
        assert_eq!(inner.as_bytes(), [0x08, 0x96, 0x01]);
        let mut outer = Writer::default();
        outer.message(3, &inner);
        assert_eq!(outer.as_bytes(), [0x1a, 3, 0x08, 0x96, 0x01]);
        let mut text = Writer::default();
        text.bytes(2, b"testing");
        assert_eq!(text.as_bytes(), b"\x12\x07testing");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        writer.number(1, -2);
        writer.flag(2, false);
        writer.flag(3, true);
        writer.bytes(64, b"x");
        let fields = fields(writer.as_bytes()).unwrap();
        assert_eq!(fields.len(), 3);
        assert_eq!(fields[0].1.as_i32(), Some(-2));
        assert_eq!(fields[2], (64, Value::Bytes(b"x")));
    }

    #[test]
    fn malformed_messages_are_refused() {
        for bytes in [&[0x08][..], &[0x80; 11], &[0x12, 5, 1], &[0x0b], &[0x00, 1], &[0x0d, 1, 2]] {
            assert_eq!(fields(bytes), None, "{bytes:?}");
        }
    }
}
