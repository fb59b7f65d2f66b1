//! Keys, from the bytes that terminals send for them.

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// ctrl-c, and the end of input.
    Interrupt,
}

/// The keys of what was read at once; what is no key is passed over.
pub(super) fn decode(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'\r' | b'\n' => keys.push(Key::Enter),
            0x03 | 0x04 => keys.push(Key::Interrupt),
            0x7f | 0x08 => keys.push(Key::Backspace),
            0x0e => keys.push(Key::Down),
            0x10 => keys.push(Key::Up),
            0x1b => match after {
                [b'[' | b'O', tail @ ..] => {
                    let end = tail.iter().position(|byte| (0x40..=0x7e).contains(byte)).unwrap_or(tail.len());
                    keys.extend(sequence(tail.get(..=end).unwrap_or(tail)));
                    rest = tail.get(end + 1..).unwrap_or_default();
                }
                _ => keys.push(Key::Escape),
            },
            0x20..=0x7e => keys.push(Key::Char(char::from(first))),
            0x80.. => {
                // One letter of UTF-8, of at most four bytes.
                let whole = &bytes[bytes.len() - after.len() - 1..];
                let letter = (2..=4).find_map(|length| std::str::from_utf8(whole.get(..length)?).ok());
                if let Some(letter) = letter {
                    keys.extend(letter.chars().next().map(Key::Char));
                    rest = &whole[letter.len()..];
                }
            }
            _ => {}
        }
    }
    keys
}

fn sequence(text: &[u8]) -> Option<Key> {
    Some(match text {
        b"A" => Key::Up,
        b"B" => Key::Down,
        b"H" | b"1~" | b"7~" => Key::Home,
        b"F" | b"4~" | b"8~" => Key::End,
        b"5~" => Key::PageUp,
        b"6~" => Key::PageDown,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_keys() {
        assert_eq!(decode(b"j\x1b[A\x1bOB\r"), [Key::Char('j'), Key::Up, Key::Down, Key::Enter]);
        assert_eq!(decode(b"\x1b"), [Key::Escape]);
        assert_eq!(decode(b"\x1b[5~\x1b[1;5Cx\x03"), [Key::PageUp, Key::Char('x'), Key::Interrupt]);
        assert_eq!(decode("ü\u{7f}".as_bytes()), [Key::Char('ü'), Key::Backspace]);
        assert_eq!(decode(&[0xff, b'a', 0xc3]), [Key::Char('a')]);
        assert_eq!(decode(b"\x1b[200"), []);
    }
}
