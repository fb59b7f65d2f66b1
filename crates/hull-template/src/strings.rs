//! Go's literals: quoting, unquoting, numbers.

use std::fmt::Write as _;

use crate::ast::Kind;

/// A string in Go's double quotes.
pub(crate) fn quote(text: &str) -> String {
    quoted(text, '"', false)
}

/// As [`quote`], with the quote and whether everything beyond ASCII is escaped.
pub(crate) fn quoted(text: &str, mark: char, ascii: bool) -> String {
    let mut out = String::from(mark);
    for one in text.chars() {
        match one {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            _ if one == mark => {
                out.push('\\');
                out.push(one);
            }
            _ if one.is_control() && one.is_ascii() => {
                let _ = write!(out, "\\x{:02x}", u32::from(one));
            }
            _ if (ascii && !one.is_ascii()) || !printable(one) => {
                let code = u32::from(one);
                let _ = if code < 0x1_0000 { write!(out, "\\u{code:04x}") } else { write!(out, "\\U{code:08x}") };
            }
            _ => out.push(one),
        }
    }
    out.push(mark);
    out
}

/// Near enough to Go's table: no controls, no exotic spaces, no invisible formatting.
fn printable(one: char) -> bool {
    one == ' '
        || !(one.is_control()
            || one.is_whitespace()
            || matches!(one, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{e000}'..='\u{f8ff}' | '\u{feff}'))
}

/// The value of a Go literal in any of the three quotes.
pub(crate) fn unquote(text: &str) -> Option<String> {
    let mark = text.chars().next()?;
    let inner = text.get(1..text.len().checked_sub(1)?)?;
    if mark == '`' {
        return Some(inner.replace('\r', ""));
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(one) = chars.next() {
        if one != '\\' {
            bytes.extend_from_slice(one.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let (count, radix) = match chars.next()? {
            'a' => (0, 7),
            'b' => (0, 8),
            'f' => (0, 12),
            'n' => (0, 10),
            'r' => (0, 13),
            't' => (0, 9),
            'v' => (0, 11),
            '\\' => (0, 92),
            '\'' if mark == '\'' => (0, 39),
            '"' if mark == '"' => (0, 34),
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            first @ '0'..='7' => {
                let mut value = first.to_digit(8)?;
                for _ in 0..2 {
                    value = value * 8 + chars.next()?.to_digit(8)?;
                }
                bytes.push(u8::try_from(value).ok()?);
                continue;
            }
            _ => return None,
        };
        if count == 0 {
            bytes.push(u8::try_from(radix).ok()?);
            continue;
        }
        let mut value = 0u32;
        for _ in 0..count {
            value = value.checked_mul(radix)?.checked_add(chars.next()?.to_digit(radix)?)?;
        }
        if count == 2 {
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Some(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// A number as the template language spells it: signs, four bases, underscores, fractions, characters.
pub(crate) fn number(text: &str) -> Option<Kind> {
    if text.starts_with('\'') {
        let value = unquote(text)?;
        let mut chars = value.chars();
        let (one, None) = (chars.next()?, chars.next()) else { return None };
        return Some(Kind::Integer(i128::from(u32::from(one)), text.to_owned()));
    }
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !digits.starts_with(|one: char| one.is_ascii_digit() || one == '.') || digits.ends_with('_') {
        return None;
    }
    let lower = digits.to_ascii_lowercase();
    let plain: String = lower.chars().filter(|one| *one != '_').collect();
    let integer = match plain.get(..2) {
        Some("0x") => i128::from_str_radix(plain.get(2..)?, 16),
        Some("0b") => i128::from_str_radix(plain.get(2..)?, 2),
        Some("0o") => i128::from_str_radix(plain.get(2..)?, 8),
        _ if plain.len() > 1 && plain.starts_with('0') => i128::from_str_radix(&plain[1..], 8),
        _ => plain.parse(),
    };
    if let Ok(value) = integer
        && !plain.contains(['+', '-'])
    {
        return Some(Kind::Integer(if negative { -value } else { value }, text.to_owned()));
    }
    if let Some(hexadecimal) = plain.strip_prefix("0x") {
        let value = hexadecimal_float(hexadecimal)?;
        return Some(Kind::Float(if negative { -value } else { value }, text.to_owned()));
    }
    if !plain.chars().all(|one| matches!(one, '0'..='9' | '.' | 'e' | '+' | '-')) {
        return None;
    }
    let value: f64 = plain.parse().ok().filter(|value: &f64| value.is_finite())?;
    Some(Kind::Float(if negative { -value } else { value }, text.to_owned()))
}

/// `1.8p-1` of `0x1.8p-1`: the exponent must be there.
fn hexadecimal_float(text: &str) -> Option<f64> {
    let (mantissa, power) = text.split_once('p')?;
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{part}");
    if digits.is_empty() || digits.len() > 13 {
        return None;
    }
    // Thirteen digits are exact in a double.
    #[expect(clippy::cast_precision_loss, reason = "52 bits")]
    let value = u64::from_str_radix(&digits, 16).ok()? as f64;
    let power = power.parse::<i32>().ok()?.checked_sub(i32::try_from(part.len()).ok()? * 4)?;
    Some(value * 2f64.powi(power)).filter(|value| value.is_finite())
}

/// A float as Go's `%v` prints it: shortest digits, an exponent below -4 and from 6 on.
pub(crate) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = format!("{value:e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}
