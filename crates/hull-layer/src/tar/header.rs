//! The 512 bytes of a header.
//!
//! ```text
//!   0 name 100   100 mode 8   108 uid 8   116 gid 8   124 size 12   136 mtime 12   148 checksum 8   156 type 1
//! 157 link name 100   257 magic 6   263 version 2   265 user 32   297 group 32   329 major 8   337 minor 8
//! POSIX: 345 prefix 155          star: 345 prefix 131, 508 "tar\0"
//! GNU:   345 atime 12   357 ctime 12   ...   386 sparse map 4 x (12, 12)   482 map goes on 1   483 real size 12
//! ```

/// Headers, and what content is padded to.
pub(super) const BLOCK: usize = 512;

/// Offset and length of each stored piece of a sparse file.
pub(super) type Map = Vec<(u64, u64)>;

/// A header's dialect, by its magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// No magic: no prefix.
    Old,
    /// `ustar\0`.
    Posix,
    /// `ustar  \0`: no prefix; a sparse map may be in its place.
    Gnu,
}

/// A header whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'b>(&'b [u8; BLOCK]);

impl<'b> Header<'b> {
    /// Verifies the checksum.
    pub(super) fn new(block: &'b [u8; BLOCK]) -> Result<Self, String> {
        let field = &block[148..156];
        let found = number(field).ok_or("the checksum of a header is no number")?;
        let spaces = 8 * i64::from(b' ');
        let unsigned: i64 = sum(block) - sum(field) + spaces;
        // Some old writers summed signed characters.
        let signed = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(byte.cast_signed())).sum::<i64>();
        if found == unsigned || found == signed(block) - signed(field) + spaces {
            Ok(Self(block))
        } else {
            Err(format!("a header has checksum {unsigned}, not {found} as it says"))
        }
    }

    pub(super) fn dialect(self) -> Dialect {
        match &self.0[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") => Dialect::Posix,
            _ => Dialect::Old,
        }
    }

    pub(super) fn kind(self) -> u8 {
        self.0[156]
    }

    /// The name, with the prefix where the dialect has one.
    pub(super) fn name(self) -> Vec<u8> {
        let name = cut(&self.0[..100]);
        if self.dialect() == Dialect::Posix {
            let end = if &self.0[508..] == b"tar\0" { 476 } else { 500 };
            let prefix = cut(&self.0[345..end]);
            if !prefix.is_empty() {
                return [prefix, b"/", name].concat();
            }
        }
        name.to_vec()
    }

    pub(super) fn link(self) -> &'b [u8] {
        cut(&self.0[157..257])
    }

    pub(super) fn mode(self) -> Result<u16, String> {
        let mode = number(&self.0[100..108]).ok_or("the mode of an entry is no number")?;
        // Old archives have type bits.
        Ok((mode & 0o7777) as u16)
    }

    pub(super) fn uid(self) -> Result<u64, String> {
        positive(&self.0[108..116], "user ID")
    }

    pub(super) fn gid(self) -> Result<u64, String> {
        positive(&self.0[116..124], "group ID")
    }

    pub(super) fn size(self) -> Result<u64, String> {
        positive(&self.0[124..136], "size")
    }

    pub(super) fn mtime(self) -> Result<i64, String> {
        number(&self.0[136..148]).ok_or_else(|| "the modification time of an entry is no number".to_owned())
    }

    /// Major and minor number, as far as Linux has them.
    pub(super) fn device(self) -> Result<(u32, u32), String> {
        if self.dialect() == Dialect::Old {
            return Err("a device in an archive without device numbers".to_owned());
        }
        let part = |field, what, bits: u32| {
            let value = positive(field, what)?;
            u32::try_from(value)
                .ok()
                .filter(|value| value >> bits == 0)
                .ok_or(format!("{what} {value} is out of range"))
        };
        Ok((part(&self.0[329..337], "device major", 12)?, part(&self.0[337..345], "device minor", 20)?))
    }

    /// The part of an old GNU sparse map in this header, whether it goes on, and the file's real size.
    pub(super) fn sparse(self) -> Result<(Map, bool, u64), String> {
        let mut map = Map::new();
        sparse_entries(&self.0[386..482], &mut map)?;
        Ok((map, self.0[482] != 0, positive(&self.0[483..495], "real size")?))
    }
}

/// One more block of an old GNU sparse map; whether it goes on.
pub(super) fn sparse_continuation(block: &[u8; BLOCK], map: &mut Map) -> Result<bool, String> {
    sparse_entries(&block[..504], map)?;
    Ok(block[504] != 0)
}

fn sparse_entries(bytes: &[u8], map: &mut Map) -> Result<(), String> {
    for entry in bytes.chunks_exact(24) {
        if entry[0] == 0 {
            break;
        }
        map.push((positive(&entry[..12], "sparse offset")?, positive(&entry[12..], "sparse length")?));
    }
    Ok(())
}

/// The bytes before the first NUL.
pub(super) fn cut(field: &[u8]) -> &[u8] {
    field.iter().position(|byte| *byte == 0).map_or(field, |end| &field[..end])
}

/// How many bytes follow content of this length to fill its last block.
pub(super) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// A sum that the compiler turns into a few wide additions.
pub(super) fn sum(bytes: &[u8]) -> i64 {
    i64::from(bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>())
}

fn positive(field: &[u8], what: &str) -> Result<u64, String> {
    let value = number(field).ok_or_else(|| format!("the {what} of an entry is no number"))?;
    u64::try_from(value).map_err(|_| format!("the {what} of an entry is negative"))
}

/// A number in octal digits, ended by a space, a NUL or the field's end; or in base 256 if the first bit is set.
fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let mut value = i128::from(first & 0x3f) - i128::from(first & 0x40);
        for byte in rest {
            value = value << 8 | i128::from(*byte);
        }
        return i64::try_from(value).ok();
    }
    let digits = cut(field).trim_ascii();
    digits.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_writers() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"00000000012 ", Some(10)),
            (b"777777777777", Some((1 << 36) - 1)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"12\0junk", Some(10)),
            (b"\x80\0\0\0\x01\0\0\0", Some(1 << 24)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"0000648\0", None),
            (b"-0000644", None),
            (b"6 44\0\0\0\0", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn padding_fills_the_last_block() {
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }
}
