//! How an instruction's line is cut: its name, its flags, its words.

use serde_json::Value;

/// White space between words that are not quoted.
fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}')
}

/// A line's first word and what follows it.
pub(crate) fn first(line: &str) -> (&str, &str) {
    let line = line.trim();
    match line.find(blank) {
        Some(at) => (&line[..at], line[at..].trim_start_matches(blank)),
        None => (line, ""),
    }
}

/// Takes the leading words that begin with `--` off `text`, up to `--` itself: these and the rest.
///
/// Quotes and escapes are resolved in flags, and only there.
pub(crate) fn flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let mut word = String::new();
        let mut quote: Option<char> = None;
        let mut quoted = false;
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, c)) = chars.next() {
            if quote == Some(c) {
                quote = None;
                continue;
            }
            if quote.is_none() {
                if c.is_whitespace() {
                    end = at;
                    break;
                }
                if matches!(c, '\'' | '"') {
                    quote = Some(c);
                    quoted = true;
                    continue;
                }
            }
            if c == escape {
                // At the very end it stands for nothing.
                word.extend(chars.next().map(|(_, next)| next));
                continue;
            }
            word.push(c);
        }
        rest = rest[end..].trim_start();
        if word == "--" {
            break;
        }
        if quoted || !word.is_empty() {
            found.push(word);
        }
    }
    (found, rest.trim())
}

/// Words of `ENV`, `LABEL` and `ARG`: white space in quotes or after an escape does not end one; quotes and escapes stay.
pub(crate) fn quoted(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        if c == escape && quote != Some('\'') {
            // At the very end it stands for nothing.
            let Some(next) = chars.next() else { break };
            word.push(c);
            word.push(next);
            continue;
        }
        match quote {
            Some(open) if open == c => quote = None,
            None if matches!(c, '\'' | '"') => quote = Some(c),
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Words between white space, nothing being special.
pub(crate) fn plain(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { split(text).map(str::to_owned).collect() }
}

/// `text` at runs of white space; like every split it gives an empty word where the text begins or ends with one.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match text.find(blank) {
            Some(at) => {
                rest = Some(text[at..].trim_start_matches(blank));
                Some(&text[..at])
            }
            None => rest.take(),
        }
    })
}

/// `KEY value`: both parts.
pub(crate) fn two(text: &str) -> Option<(&str, &str)> {
    let at = text.find(blank)?;
    Some((&text[..at], text[at..].trim_start_matches(blank)))
}

/// What a JSON array that is none of strings is refused with.
pub(crate) const NOT_STRINGS: &str = "when using JSON array syntax, arrays must be comprised of strings only";

/// The strings of a JSON array; nothing if `text` is not a JSON array, an error if it holds something else.
pub(crate) fn json(text: &str) -> Result<Option<Vec<String>>, String> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<Value>>(text) else { return Ok(None) };
    let strings = values.into_iter().map(|value| match value {
        Value::String(text) => Ok(text),
        _ => Err(NOT_STRINGS.to_owned()),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

/// Fields of a CSV line.
pub(crate) fn csv(text: &str) -> Result<Vec<String>, String> {
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if text.is_empty() {
        return Err("EOF".into());
    }
    let fail =
        |rest: &str, what: &str| Err(format!("parse error on line 1, column {}: {what}", text.len() - rest.len() + 1));
    const BARE: &str = "bare \" in non-quoted-field";
    const EXTRA: &str = "extraneous or missing \" in quoted-field";
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(inner) = rest.strip_prefix('"') else {
            let end = rest.find(',').unwrap_or(rest.len());
            if let Some(at) = rest[..end].find('"') {
                return fail(&rest[at..], BARE);
            }
            fields.push(rest[..end].to_owned());
            match rest.get(end + 1..) {
                Some(next) => rest = next,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        rest = inner;
        loop {
            let Some(at) = rest.find('"') else { return fail(rest, EXTRA) };
            field.push_str(&rest[..at]);
            let quote = &rest[at..];
            rest = &quote[1..];
            if let Some(next) = rest.strip_prefix('"') {
                field.push('"');
                rest = next;
            } else if let Some(next) = rest.strip_prefix(',') {
                fields.push(field);
                rest = next;
                break;
            } else if rest.is_empty() {
                fields.push(field);
                return Ok(fields);
            } else {
                return fail(quote, EXTRA);
            }
        }
    }
}
