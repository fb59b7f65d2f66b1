//! As much of DER (X.690) as a public key and an RSA or EC private key need: elements with definite lengths.

/// The tag of a sequence.
pub(crate) const SEQUENCE: u8 = 0x30;
/// The tag of a bit string.
pub(crate) const BIT_STRING: u8 = 0x03;
/// The tag of an octet string.
pub(crate) const OCTET_STRING: u8 = 0x04;
/// The tag of an object identifier.
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;

/// Takes the next element, which must have this tag: its content, and leaves what follows it.
pub(crate) fn take<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, rest) = input.split_first()?;
    if *found != tag {
        return None;
    }
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        // Longer than 64 KB is no key.
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(*rest.first()?) << 8 | usize::from(*rest.get(1)?), rest.get(2..)?),
        _ => return None,
    };
    let content = rest.get(..length)?;
    *input = rest.get(length..)?;
    Some(content)
}

/// One element with its tag and length.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut bytes = vec![tag];
    match length {
        0..=0x7f => bytes.push(length.to_le_bytes()[0]),
        0x80..=0xff => bytes.extend([0x81, length.to_le_bytes()[0]]),
        _ => bytes.extend([0x82, length.to_le_bytes()[1], length.to_le_bytes()[0]]),
    }
    bytes.extend(content);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_back_whatever_their_length() {
        for length in [0, 1, 127, 128, 255, 256, 4000] {
            let content = vec![7; length];
            let mut bytes = element(OCTET_STRING, &content);
            bytes.push(9);
            let mut input = bytes.as_slice();
            assert_eq!(take(&mut input, OCTET_STRING), Some(content.as_slice()), "{length}");
            assert_eq!(input, [9]);
        }
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        let bytes = element(SEQUENCE, &[1; 300]);
        for length in 0..bytes.len() {
            assert_eq!(take(&mut &bytes[..length], SEQUENCE), None, "{length}");
        }
        assert_eq!(take(&mut bytes.as_slice(), BIT_STRING), None);
    }
}
