//! What is wrong with a Dockerfile and where, and the piece of source that shows it.

use std::fmt;

use crate::ast::Lines;
pub(crate) use hull_oci::spec::one_line;

/// A defect of a Dockerfile, in `BuildKit`'s words: people search for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What is wrong.
    pub message: String,
    /// Where; absent where the whole file is meant.
    pub lines: Option<Lines>,
    /// The message names the line, as it does for what single instructions say.
    pub(crate) located: bool,
}

impl Error {
    /// A defect of the file as a whole, or of lines that the message does not name.
    pub(crate) fn new(message: impl Into<String>, lines: Option<Lines>) -> Self {
        Self { message: message.into(), lines, located: false }
    }

    /// A defect of one instruction.
    pub(crate) fn instruction(message: impl Into<String>, lines: Lines) -> Self {
        Self { message: message.into(), lines: Some(lines), located: true }
    }

    /// The source around the defect, if the defect has a place.
    #[must_use]
    pub fn excerpt<'a>(&self, file: &'a str, source: &'a [u8]) -> Option<Excerpt<'a>> {
        self.lines.map(|lines| Excerpt { file, source, lines })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (true, Some(lines)) = (self.located, self.lines) {
            write!(f, "dockerfile parse error on line {}: ", lines.start)?;
        }
        f.write_str(&one_line(&self.message))
    }
}

impl std::error::Error for Error {}

/// Something that is accepted now and will not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What is meant.
    pub message: String,
    /// Line that is meant.
    pub line: u32,
}

/// Lines of a file with those around them, the former marked with `>>>`; empty if the file has no such line.
#[derive(Clone, Copy, Debug)]
pub struct Excerpt<'a> {
    /// Name in the first line.
    pub file: &'a str,
    /// The file.
    pub source: &'a [u8],
    /// What is marked.
    pub lines: Lines,
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &split(self.source))
    }
}

/// A file's lines, without their line feeds.
pub(crate) fn split(source: &[u8]) -> Vec<&[u8]> {
    source.split(|byte| *byte == b'\n').collect()
}

impl Excerpt<'_> {
    /// Writes it; `lines` are those of the file, so that many excerpts of one file cost no more than they show.
    pub(crate) fn write(&self, f: &mut impl fmt::Write, lines: &[&[u8]]) -> fmt::Result {
        let (start, last) = (self.lines.start as usize, lines.len());
        if start < 1 || start > last {
            return Ok(());
        }
        let end = (self.lines.end as usize).clamp(start, last);
        let (mut from, mut to) = (start, end);
        // One line of context costs one, on either side, and each round costs one of its own: some four lines in all.
        let (room, mut spent) = (if start == end { 4 } else { 2 }, 0);
        while spent < room {
            if from > 1 {
                from -= 1;
                spent += 1;
            }
            if to != last {
                to += 1;
                spent += 1;
            }
            spent += 1;
        }
        const RULE: &str = "--------------------";
        writeln!(f, "{}:{start}\n{RULE}", self.file)?;
        for number in from..=to {
            let mark = if (start..=end).contains(&number) { ">>>" } else { "   " };
            let text = String::from_utf8_lossy(lines[number - 1]);
            writeln!(f, " {number:3} | {mark} {}", printable(text.trim_end_matches('\r')))?;
        }
        writeln!(f, "{RULE}")
    }
}

/// A line as it may go to a terminal: tabs stay, other control characters are spelled out.
fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains(|c: char| c.is_control() && c != '\t') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.into()
}

/// Text in double quotes as Go's `%q` writes it.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() || is_invisible(c) => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Characters that look like nothing or turn text around.
fn is_invisible(c: char) -> bool {
    matches!(u32::from(c), 0xa0 | 0xad | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff)
}

/// Longest word for which, and most options among which, something similar is looked for.
const SIMILAR: (usize, usize) = (40, 1000);

/// The option nearest to `value`, at most two edits away; none if `value` is one of them.
pub(crate) fn suggest<'a>(value: &str, options: impl IntoIterator<Item = &'a str>, case: bool) -> Option<String> {
    let fold = |text: &str| if case { text.to_owned() } else { text.to_lowercase() };
    let wanted = fold(value);
    if wanted.len() > SIMILAR.0 {
        return None;
    }
    let mut best: Option<(usize, String)> = None;
    for option in options.into_iter().filter(|option| option.len() <= SIMILAR.0 + 2).take(SIMILAR.1) {
        let option = fold(option);
        if option == wanted {
            return None;
        }
        let near = distance(&wanted, &option);
        // Among equals the first by name, so that the same file gives the same message.
        if near < 3 && best.as_ref().is_none_or(|(least, name)| (near, &option) < (*least, name)) {
            best = Some((near, option));
        }
    }
    let (_, name) = best?;
    if case || value == value.to_lowercase() {
        return Some(name);
    }
    if value == value.to_uppercase() { Some(name.to_uppercase()) } else { Some(name) }
}

/// `message`, followed by what may have been meant.
pub(crate) fn with_suggestion<'a>(
    message: String,
    value: &str,
    options: impl IntoIterator<Item = &'a str>,
    case: bool,
) -> String {
    match suggest(value, options, case) {
        Some(name) => format!("{message} (did you mean {name}?)"),
        None => message,
    }
}

/// Edits between two words; anything beyond two counts as three.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 2 {
        return 3;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let next = (corner + usize::from(left != right)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}
