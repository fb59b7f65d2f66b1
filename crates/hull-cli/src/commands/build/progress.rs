//! What every way of showing progress shares: which way, numbers of steps, times, last lines.

use std::io::IsTerminal as _;

use hull_build::observer::Observer;

use super::super::Failure;
use super::plain::Plain;
use super::raw::Raw;
use super::terminal::Terminal;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Lines.
    Plain,
    /// A picture that changes.
    Terminal,
    /// A line of JSON for each change, as BuildKit's clients read it.
    Raw,
    /// Nothing but the image's ID.
    Quiet,
    /// Nothing.
    Nothing,
}

impl Way {
    /// What is asked for by the flag, by `BUILDKIT_PROGRESS`, or by where standard error goes.
    pub(super) fn choose(flag: Option<&str>, quiet: bool) -> Result<Self, Failure> {
        let variable = std::env::var("BUILDKIT_PROGRESS").ok();
        let word = flag.or(variable.as_deref()).unwrap_or("auto");
        let way = match word {
            "plain" => Self::Plain,
            "tty" => Self::Terminal,
            "rawjson" => Self::Raw,
            "quiet" => Self::Quiet,
            "none" => Self::Nothing,
            "auto" | "" => {
                let able = std::io::stderr().is_terminal() && std::env::var("TERM").is_ok_and(|term| term != "dumb");
                if able { Self::Terminal } else { Self::Plain }
            }
            other => return Err(Failure::new(format!("invalid progress mode {other}"))),
        };
        Ok(if quiet { Self::Quiet } else { way })
    }

    pub(super) fn show(self) -> Box<dyn Shown> {
        match self {
            Self::Plain => Box::new(Plain::new()),
            Self::Terminal => Box::new(Terminal::new()),
            Self::Raw => Box::new(Raw::default()),
            Self::Quiet | Self::Nothing => Box::new(Nothing),
        }
    }
}

/// Shows what a build tells.
pub(super) trait Shown: Observer {
    /// The build has ended.
    fn finish(&self, failed: bool);
}

/// Shows nothing.
#[derive(Debug)]
struct Nothing;

impl Observer for Nothing {
    fn step(&self, _: hull_build::observer::StepId, _: hull_build::observer::Event<'_>) {}
}

impl Shown for Nothing {
    fn finish(&self, _: bool) {}
}

/// Text for a terminal: control characters but tabs are spelled out, so that nobody's program draws over the picture.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\t' => out.push(character),
            // Colours and the like are dropped.
            '\x1b' => skip_sequence(&mut characters),
            '\r' => {}
            other if other.is_control() => out.extend(other.escape_default()),
            other => out.push(other),
        }
    }
    out
}

fn skip_sequence(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next_if(|next| matches!(next, '[' | ']' | '(' | ')')) {
        Some('[') => while characters.next().is_some_and(|next| !('@'..='~').contains(&next)) {},
        Some(']') => while characters.next().is_some_and(|next| next != '\x07' && next != '\\') {},
        Some(_) => drop(characters.next()),
        None => {}
    }
}

/// Bytes as BuildKit shows them: `902B`, `4.19MB`.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes;
    let mut rest = 0;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000 {
            break;
        }
        (rest, value) = (value % 1000 / 10, value / 1000);
        unit = next;
    }
    if unit == "B" { format!("{value}B") } else { format!("{value}.{rest:02}{unit}") }
}

/// Cuts a name that is too long.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(3)).chain("...".chars()).collect()
}

/// The lines of a stream, of which the last may still be on its way.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

/// A line of more bytes is cut in two.
const MAX_LINE: usize = 64 << 10;

impl Lines {
    /// Takes bytes, and gives the lines that are whole now.
    pub(super) fn take(&mut self, data: &[u8]) -> Vec<String> {
        let mut whole = Vec::new();
        for byte in data {
            if *byte == b'\n' || self.rest.len() >= MAX_LINE {
                whole.push(printable(last_drawn(&self.rest)));
                self.rest.clear();
            }
            if *byte != b'\n' {
                self.rest.push(*byte);
            }
        }
        whole
    }

    /// What is left at the end.
    pub(super) fn end(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| printable(last_drawn(&rest)))
    }
}

/// What a terminal would show of a line that was drawn several times over.
fn last_drawn(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.rsplit(|byte| *byte == b'\r').next().unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_cannot_draw() {
        assert_eq!(printable(b"a\x1b[31mred\x1b[0m\x07\tb\x1b]0;title\x07c"), "ared\\u{7}\tbc");
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"10%\r20%\rdone\r\nnext"), ["done"]);
        assert_eq!(lines.end().as_deref(), Some("next"));
        assert_eq!(lines.end(), None);
    }

    #[test]
    fn sizes_are_decimal() {
        assert_eq!([0, 902, 1000, 4_194_304].map(size), ["0B", "902B", "1.00kB", "4.19MB"].map(str::to_owned));
    }
}
