//! PAX records: `LENGTH KEY=VALUE\n`, where the length counts itself.

use crate::tree::Xattrs;

/// What an extended header says, as far as Hull uses it.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    /// In the order of the header; a name may be there twice.
    pub(super) xattrs: Xattrs,
    pub(super) sparse: Sparse,
}

/// What `GNU.sparse.*` says.
#[derive(Clone, Debug, Default)]
pub(super) struct Sparse {
    /// Any of the keys was there.
    pub(super) present: bool,
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// Offset and length of what is stored; versions 0.0 and 0.1.
    pub(super) map: Option<Vec<(u64, u64)>>,
    /// An offset of version 0.0 whose length has not come yet.
    offset: Option<u64>,
}

impl Records {
    /// Reads a `x` header, or a `g` header into what earlier ones said.
    pub(super) fn parse(&mut self, mut bytes: &[u8], global: bool) -> Result<(), String> {
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or("a PAX record is malformed")?;
            self.set(key, value, global)?;
            bytes = rest;
        }
        if self.sparse.offset.is_some() {
            return Err("a sparse map has an offset without a length".to_owned());
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8], global: bool) -> Result<(), String> {
        // Attributes of all entries would also make much work of few bytes.
        let prefixes = [&b"GNU.sparse."[..], b"SCHILY.xattr.", b"LIBARCHIVE.xattr."];
        let one_entrys = matches!(key, b"path" | b"linkpath" | b"size");
        if global && (one_entrys || prefixes.iter().any(|prefix| key.starts_with(prefix))) {
            return Err(format!("a global extended header sets `{}` of all entries", super::name::text(key)));
        }
        // An empty value takes back what was set before.
        let owned = || (!value.is_empty()).then(|| value.to_vec());
        let parsed = || if value.is_empty() { Ok(None) } else { decimal(key, value).map(Some) };
        match key {
            b"path" => self.path = owned(),
            b"linkpath" => self.link = owned(),
            b"size" => self.size = parsed()?,
            b"uid" => self.uid = parsed()?,
            b"gid" => self.gid = parsed()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value).ok_or("the modification time of a PAX record is no number")?),
            b"hdrcharset" => {
                if !matches!(value, b"" | b"BINARY" | b"ISO-IR 10646 2000 UTF-8") {
                    return Err(format!("unknown character set `{}`", super::name::text(value)));
                }
            }
            b"GNU.volume.filename" | b"GNU.volume.offset" | b"GNU.volume.size" => {
                return Err("the archive is a part of several".to_owned());
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(unquote(name, true)?, value)?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let value = base64(value).ok_or("the value of an extended attribute is not base64")?;
                    self.xattr(unquote(name, false)?, &value)?;
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(key, value)?;
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: Vec<u8>, value: &[u8]) -> Result<(), String> {
        if name.is_empty() || name.len() > 255 || name.contains(&0) {
            return Err(format!("an extended attribute is called `{}`", super::name::text(&name)));
        }
        self.xattrs.push((name.into(), value.into()));
        Ok(())
    }
}

impl Sparse {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.present = true;
        match key {
            b"major" => self.major = Some(decimal(key, value)?),
            b"minor" => self.minor = Some(decimal(key, value)?),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(decimal(key, value)?),
            b"offset" => {
                let waiting = self.offset.replace(decimal(key, value)?);
                if waiting.is_some() {
                    return Err("a sparse map has two offsets for one length".to_owned());
                }
            }
            b"numbytes" => {
                let offset = self.offset.take().ok_or("a sparse map has a length without an offset")?;
                self.map.get_or_insert_default().push((offset, decimal(key, value)?));
            }
            b"map" => {
                let mut map = Vec::new();
                let mut numbers = value.split(|byte| *byte == b',').filter(|_| !value.is_empty());
                while let Some(offset) = numbers.next() {
                    let length = numbers.next().ok_or("a sparse map has an offset without a length")?;
                    map.push((decimal(key, offset)?, decimal(key, length)?));
                }
                self.map = Some(map);
            }
            // The number of pieces, which the map says better.
            _ => {}
        }
        Ok(())
    }
}

/// The first record's key and value, and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(digits(&bytes[..space])?).ok()?;
    let text = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&text[..equals], &text[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, &bytes[length..]))
}

/// A number in decimal digits and nothing else.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

fn decimal(key: &[u8], text: &[u8]) -> Result<u64, String> {
    digits(text).ok_or_else(|| {
        format!("the PAX record `{}` says `{}`, which is no number", super::name::text(key), super::name::text(text))
    })
}

/// Seconds and nanoseconds of `[-]SECONDS[.FRACTION]`.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(digits(parts.next()?)?).ok()?;
    let mut nanoseconds = 0_u32;
    if let Some(fraction) = parts.next() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for place in 0..9 {
            nanoseconds = nanoseconds * 10 + u32::from(fraction.get(place).unwrap_or(&b'0') - b'0');
        }
    }
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

/// Undoes `%XX`: all of them, or only GNU tar's `%3D` and `%25`.
fn unquote(name: &[u8], only_gnu: bool) -> Result<Vec<u8>, String> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        let code = code.filter(|_| *first == b'%').and_then(|code| u8::from_str_radix(code, 16).ok());
        match code {
            Some(byte) if !only_gnu || matches!(byte, b'=' | b'%') => {
                plain.push(byte);
                rest = &tail[2..];
            }
            _ if *first == b'%' && !only_gnu => {
                return Err(format!("the name of an extended attribute, `{}`, is malformed", super::name::text(name)));
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    Ok(plain)
}

/// Decodes base64, padded or not.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    if text.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0_u32;
        for place in 0..4 {
            let value = match group.get(place) {
                Some(letter @ b'A'..=b'Z') => letter - b'A',
                Some(letter @ b'a'..=b'z') => letter - b'a' + 26,
                Some(digit @ b'0'..=b'9') => digit - b'0' + 52,
                Some(b'+') => 62,
                Some(b'/') => 63,
                None => 0,
                Some(_) => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Records, String> {
        let mut records = Records::default();
        records.parse(text, false).map(|()| records)
    }

    #[test]
    fn records_are_read() {
        let records = parse(b"11 path=ab\n20 mtime=-1.2500000\n29 SCHILY.xattr.user.a=x=\n\0\x01\n").expect("valid");
        assert_eq!(records.path.as_deref(), Some(&b"ab"[..]));
        assert_eq!(records.mtime, Some((-2, 750_000_000)));
        assert_eq!(records.xattrs, [(b"user.a"[..].into(), b"x=\n\0\x01"[..].into())]);
    }

    #[test]
    fn malformed_records_are_refused() {
        for text in [
            &b"11 path=ab"[..],
            b"10 path=ab\n",
            b"12 path=ab\n",
            b" 11 path=ab\n",
            b"+11 path=ab\n",
            b"6 path\n",
            b"5 =a\n",
            b"0 a=b\n",
            b"99999999999999999999 a=b\n",
            b"18446744073709551615 a=b\n",
            b"9 size=-1\n",
            b"9 size=0x\n",
            b"11 path=ab\n\0\0\0",
            b"11 mtime=1e\n",
        ] {
            assert!(parse(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn names_and_values_are_decoded() {
        assert_eq!(unquote(b"user.a%3Db%25c%41", true).as_deref(), Ok(&b"user.a=b%c%41"[..]));
        assert_eq!(unquote(b"user.a%3db%41", false).as_deref(), Ok(&b"user.a=bA"[..]));
        for (text, bytes) in
            [(&b""[..], &b""[..]), (b"Zg", b"f"), (b"Zg==", b"f"), (b"Zm8=", b"fo"), (b"Zm9vYg", b"foob")]
        {
            assert_eq!(base64(text).as_deref(), Some(bytes));
        }
        assert_eq!(base64(b"Z"), None);
        assert_eq!(base64(b"Z*=="), None);
    }
}
