//! Parser directives: `# syntax=`, `# escape=` and `# check=` in a file's first lines.
//!
//! They end at the first line that is none: an unknown one, another comment, an instruction or an empty line.

use crate::ast::Lines;
use crate::error::Error;

/// Which directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Syntax,
    Escape,
    Check,
}

const NAMES: [(&str, Name); 3] = [("syntax", Name::Syntax), ("escape", Name::Escape), ("check", Name::Check)];

/// Reads directives line by line.
#[derive(Debug)]
pub(crate) struct Reader {
    prefix: &'static str,
    seen: [bool; NAMES.len()],
    done: bool,
}

impl Reader {
    pub(crate) fn new(prefix: &'static str) -> Self {
        Self { prefix, seen: [false; NAMES.len()], done: false }
    }

    /// The directive that `line` is; after the first line that is none, nothing is one.
    pub(crate) fn line<'a>(&mut self, line: &'a str) -> Result<Option<(Name, &'a str)>, String> {
        if self.done {
            return Ok(None);
        }
        let found = line.strip_prefix(self.prefix).and_then(split);
        let Some((index, value)) = found else {
            self.done = true;
            return Ok(None);
        };
        if std::mem::replace(&mut self.seen[index], true) {
            return Err(format!("only one {} parser directive can be used", NAMES[index].0));
        }
        Ok(Some((NAMES[index].1, value)))
    }
}

/// White space of the directives' grammar.
fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}')
}

/// `name = value`: the name's index and the value.
fn split(text: &str) -> Option<(usize, &str)> {
    let (name, value) = text.trim_start().split_once('=')?;
    let (name, value) = (name.trim_end_matches(blank), value.trim_matches(blank));
    let index = NAMES.iter().position(|(known, _)| name.eq_ignore_ascii_case(known))?;
    // A value is one line: directives are read line by line, so only a comment's text could break this.
    (!value.is_empty() && !value.contains('\n')).then_some((index, value))
}

/// The escape character that a directive's value names.
pub(crate) fn escape(value: &str, line: u32) -> Result<char, Error> {
    match value {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        _ => Err(Error::new(
            format!("invalid escape token '{value}' does not match ` or \\"),
            Some(Lines { start: line, end: line }),
        )),
    }
}

/// Which frontend a file asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// The image: the value's first word.
    pub image: String,
    /// The whole value.
    pub value: String,
    /// Line it is on; 0 in a JSON document.
    pub line: u32,
}

/// The frontend that `source` asks for: by `# syntax=`, by `// syntax=`, or as member `syntax` of a JSON document. A first
/// line that begins with `#!` is passed over.
#[must_use]
pub fn detect_syntax(source: &[u8]) -> Option<Syntax> {
    for prefix in ["#", "//"] {
        if let Some((value, line)) = find(Name::Syntax, source, prefix) {
            return Some(Syntax { image: first_word(&value).to_owned(), value, line });
        }
    }
    let document = std::str::from_utf8(after_shebang(source).0).ok()?;
    if !document.trim_start().starts_with('{') {
        return None;
    }
    let members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(document).ok()?;
    let value = members.get("syntax")?.as_str()?.to_owned();
    Some(Syntax { image: value.clone(), value, line: 0 })
}

/// A `# check=` directive's value.
pub(crate) fn check(source: &[u8]) -> Option<String> {
    find(Name::Check, source, "#").map(|(value, _)| value)
}

fn first_word(value: &str) -> &str {
    value.split(' ').next().unwrap_or(value)
}

pub(crate) fn without_mark(source: &[u8]) -> &[u8] {
    source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source)
}

/// The source after a first line that begins with `#!`, and how many lines were passed over.
fn after_shebang(source: &[u8]) -> (&[u8], u32) {
    let source = without_mark(source);
    if !source.starts_with(b"#!") {
        return (source, 0);
    }
    let end = source.iter().position(|byte| *byte == b'\n').map_or(source.len(), |at| at + 1);
    (&source[end..], 1)
}

fn find(name: Name, source: &[u8], prefix: &'static str) -> Option<(String, u32)> {
    let (source, mut number) = after_shebang(source);
    let mut reader = Reader::new(prefix);
    for line in source.split(|byte| *byte == b'\n') {
        number += 1;
        let line = std::str::from_utf8(line).ok()?;
        match reader.line(line.strip_suffix('\r').unwrap_or(line)) {
            Ok(Some((found, value))) if found == name => return Some((value.to_owned(), number)),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
    None
}

/// The value of a comment that is a `check=` directive; comments have no `#` here.
pub(crate) fn check_comment(comment: &str) -> Option<&str> {
    let (index, value) = split(comment)?;
    (NAMES[index].1 == Name::Check).then_some(value)
}
