//! As much of YAML as descriptions of devices are written in: block mappings and sequences, plain and quoted scalars,
//! empty or simple flow lists, comments. Anchors, tags, block scalars and several documents are refused, never guessed.

use serde_json::{Map, Value};

/// A document deeper than this is refused.
const MAX_DEPTH: usize = 32;

struct Line<'t> {
    number: usize,
    indent: usize,
    text: &'t str,
}

/// Reads a document.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut lines = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let number = index + 1;
        let text = without_comment(raw).trim_end();
        let body = text.trim_start_matches(' ');
        if body.is_empty() || (body == "---" && lines.is_empty()) {
            continue;
        }
        if body.starts_with('\t') {
            return Err(format!("line {number}: is indented with a tab"));
        }
        lines.push(Line { number, indent: text.len() - body.len(), text: body });
    }
    let mut at = 0;
    let value = if lines.is_empty() { Value::Null } else { block(&mut lines, &mut at, 0)? };
    match lines.get(at) {
        None => Ok(value),
        Some(line) => Err(format!("line {}: is not indented as the lines before it", line.number)),
    }
}

/// A `#` begins a comment after white space and outside quotes.
fn without_comment(line: &str) -> &str {
    let (mut quote, mut before) = (None, ' ');
    for (index, one) in line.char_indices() {
        match (quote, one) {
            (None, '#') if before == ' ' => return &line[..index],
            (None, '"' | '\'') if " [,:-".contains(before) => quote = Some(one),
            (Some(open), one) if one == open && before != '\\' => quote = None,
            _ => {}
        }
        before = one;
    }
    line
}

fn block(lines: &mut [Line<'_>], at: &mut usize, depth: usize) -> Result<Value, String> {
    let first = &lines[*at];
    if depth > MAX_DEPTH {
        return Err(format!("line {}: is nested too deeply", first.number));
    }
    let indent = first.indent;
    if is_item(first.text) {
        let mut list = Vec::new();
        while let Some(line) = lines.get(*at).filter(|line| line.indent == indent && is_item(line.text)) {
            let rest = line.text[1..].trim_start();
            if rest.is_empty() {
                *at += 1;
                list.push(below(lines, at, indent, depth)?);
            } else if key(rest)?.is_some() || is_item(rest) {
                // The item's own lines count from behind the dash.
                let shift = line.text.len() - rest.len();
                let (number, text) = (line.number, rest);
                lines[*at] = Line { number, indent: indent + shift, text };
                list.push(block(lines, at, depth + 1)?);
            } else {
                list.push(scalar(rest, line.number)?);
                *at += 1;
            }
        }
        return Ok(Value::Array(list));
    }
    if key(first.text)?.is_none() {
        let value = scalar(first.text, first.number)?;
        *at += 1;
        return Ok(value);
    }
    let mut map = Map::new();
    while let Some(line) = lines.get(*at).filter(|line| line.indent == indent) {
        let number = line.number;
        let Some((name, rest)) = key(line.text).map_err(|reason| format!("line {number}: {reason}"))? else {
            return Err(format!("line {number}: expected KEY: VALUE"));
        };
        *at += 1;
        let value = if rest.is_empty() {
            // A list may stand as far left as the key that it belongs to.
            let same = lines.get(*at).is_some_and(|next| next.indent == indent && is_item(next.text));
            if same { block(lines, at, depth + 1)? } else { below(lines, at, indent, depth)? }
        } else {
            scalar(rest, number)?
        };
        if map.insert(name.clone(), value).is_some() {
            return Err(format!("line {number}: {name:?} is there twice"));
        }
    }
    Ok(Value::Object(map))
}

fn below(lines: &mut [Line<'_>], at: &mut usize, indent: usize, depth: usize) -> Result<Value, String> {
    match lines.get(*at) {
        Some(line) if line.indent > indent => block(lines, at, depth + 1),
        _ => Ok(Value::Null),
    }
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// The key that a line begins with, and what follows its colon.
fn key(text: &str) -> Result<Option<(String, &str)>, String> {
    if let Some(quote) = text.chars().next().filter(|one| matches!(one, '"' | '\'')) {
        let Some(end) = text[1..].find(quote) else { return Err("a quote is not closed".to_owned()) };
        let (name, rest) = (&text[1..=end], &text[end + 2..]);
        return Ok(rest.strip_prefix(':').map(|rest| (name.to_owned(), rest.trim_start())));
    }
    if text.starts_with(['[', '{', '&', '*', '!', '|', '>', '%', '@', '`', '?']) {
        return Ok(None);
    }
    let colon = text.find(": ").or_else(|| text.strip_suffix(':').map(str::len));
    Ok(colon.map(|colon| (text[..colon].trim_end().to_owned(), text[colon + 1..].trim_start())))
}

fn scalar(text: &str, number: usize) -> Result<Value, String> {
    let refuse = |what: &str| Err(format!("line {number}: {what}"));
    match text.as_bytes()[0] {
        b'"' => serde_json::from_str(text).or_else(|_| refuse("is not a quoted string")),
        b'\'' => match text[1..].strip_suffix('\'') {
            Some(inner) if !inner.replace("''", "").contains('\'') => Ok(Value::String(inner.replace("''", "'"))),
            _ => refuse("is not a quoted string"),
        },
        b'[' => match text[1..].strip_suffix(']') {
            Some(inner) if inner.trim().is_empty() => Ok(Value::Array(Vec::new())),
            Some(inner) if !inner.contains(['[', '{', '"', '\'']) => {
                inner.split(',').map(|one| scalar_or_null(one.trim(), number)).collect()
            }
            // A list in JSON is YAML as well.
            Some(_) => serde_json::from_str(text).or_else(|_| refuse("is not a list")),
            None => refuse("lists over several lines begin with dashes"),
        },
        b'{' => serde_json::from_str(text).or_else(|_| refuse("is not an object")),
        b'&' | b'*' | b'!' | b'|' | b'>' | b'%' | b'@' | b'`' => refuse("anchors, tags and block text are not taken"),
        _ => Ok(plain(text)),
    }
}

fn scalar_or_null(text: &str, number: usize) -> Result<Value, String> {
    if text.is_empty() { Ok(Value::Null) } else { scalar(text, number) }
}

fn plain(text: &str) -> Value {
    match text {
        "null" | "~" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => {
            let octal = text.strip_prefix("0o").or_else(|| text.strip_prefix('0').filter(|rest| !rest.is_empty()));
            let hex = text.strip_prefix("0x").and_then(|rest| i64::from_str_radix(rest, 16).ok());
            let number = hex.or_else(|| octal.and_then(|rest| i64::from_str_radix(rest, 8).ok()));
            match number.or_else(|| text.parse::<i64>().ok().filter(|_| !text.starts_with('+'))) {
                Some(number) => Value::from(number),
                None => Value::String(text.to_owned()),
            }
        }
    }
}
