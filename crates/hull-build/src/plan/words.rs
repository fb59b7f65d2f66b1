//! Words as BuildKit writes them into histories and names of steps: its texts are compared by people and by scripts.

use std::fmt::Write as _;

/// A text in quotes, as Go's `%q`.
#[must_use]
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        escape(&mut quoted, character, '"');
    }
    quoted.push('"');
    quoted
}

fn escape(out: &mut String, character: char, mark: char) {
    let short = match character {
        '\x07' => 'a',
        '\x08' => 'b',
        '\x0c' => 'f',
        '\n' => 'n',
        '\r' => 'r',
        '\t' => 't',
        '\x0b' => 'v',
        '\\' => '\\',
        other if other == mark => other,
        other => {
            // Writing into a text cannot fail.
            let _ = match u32::from(other) {
                code @ (0..=0x1f | 0x7f) => write!(out, "\\x{code:02x}"),
                code if other.is_control() || is_invisible(other) => write!(out, "\\u{code:04x}"),
                _ => write!(out, "{other}"),
            };
            return;
        }
    };
    out.push('\\');
    out.push(short);
}

/// Characters that look like nothing or turn text around.
fn is_invisible(character: char) -> bool {
    matches!(u32::from(character), 0xa0 | 0xad | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff)
}

/// Words in quotes and brackets, as Go's `%q` of a list.
#[must_use]
pub(crate) fn quote_all(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "))
}

/// A number as Go's `%q` writes it: as a character.
#[must_use]
pub(crate) fn quote_number(number: u32) -> String {
    let mut quoted = String::from("'");
    match char::from_u32(number) {
        Some(character) => escape(&mut quoted, character, '\''),
        None => quoted.push(char::REPLACEMENT_CHARACTER),
    }
    quoted.push('\'');
    quoted
}

/// A length of time as Go writes it: `1m30s`, `500ms`.
#[must_use]
pub(crate) fn duration(nanoseconds: u64) -> String {
    let fraction = |whole: u64, part: u64, digits: usize, unit: &str| {
        let mut text = whole.to_string();
        if part != 0 {
            let part = format!("{part:0digits$}");
            text = format!("{text}.{}", part.trim_end_matches('0'));
        }
        text + unit
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => fraction(nanoseconds / 1_000, nanoseconds % 1_000, 3, "µs"),
        1_000_000..1_000_000_000 => fraction(nanoseconds / 1_000_000, nanoseconds % 1_000_000, 6, "ms"),
        _ => {
            let seconds = nanoseconds / 1_000_000_000;
            let rest = fraction(seconds % 60, nanoseconds % 1_000_000_000, 9, "s");
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => rest,
                (0, minutes) => format!("{minutes}m{rest}"),
                (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
            }
        }
    }
}

/// An instruction as progress names it: its first word in capitals.
#[must_use]
pub(crate) fn capitalised(text: &str) -> String {
    let text = text.trim();
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => format!("{} {}", word.to_ascii_uppercase(), rest),
        None => text.to_ascii_uppercase(),
    }
}

/// A heredoc's first line, as a name of a step shows it.
#[must_use]
pub(crate) fn summary(content: &str) -> String {
    let content = content.trim();
    match content.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => content.to_owned(),
    }
}

/// A path without `.`, `..` and doubled slashes, as seen from `directory` if it is relative. A final `/` goes.
#[must_use]
pub(crate) fn joined(directory: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// [`joined`], but a final `/` or `/.` stays: it says that a directory is meant.
#[must_use]
pub(crate) fn destination(directory: &str, path: &str) -> String {
    let mut whole = joined(directory, path);
    if (path.ends_with('/') || path.ends_with("/.") || path == ".") && whole != "/" {
        whole.push('/');
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_go() {
        assert_eq!(quote("a\"b\\\n\x01é\x7f"), r#""a\"b\\\n\x01é\x7f""#);
        assert_eq!(quote_all(&["/bin/sh".to_owned(), "-c".to_owned()]), r#"["/bin/sh" "-c"]"#);
        assert_eq!(
            [0, 3, 10, 39, 65].map(quote_number),
            [r"'\x00'", r"'\x03'", r"'\n'", r"'\''", "'A'"].map(str::to_owned)
        );
        let texts = [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
        ];
        for (nanoseconds, text) in texts {
            assert_eq!(duration(nanoseconds), text);
        }
    }

    #[test]
    fn paths_stay_below_the_root() {
        assert_eq!(joined("/a/b", "../../../c/./d//e/"), "/c/d/e");
        assert_eq!(joined("/a", "/x/.."), "/");
        assert_eq!(destination("/w", "."), "/w/");
        assert_eq!(destination("/", "./"), "/");
        assert_eq!(destination("/w", "d/"), "/w/d/");
        assert_eq!(destination("/w", "d/."), "/w/d/");
        assert_eq!(destination("/w", "f"), "/w/f");
    }

    #[test]
    fn names_of_steps() {
        assert_eq!(capitalised("run  make all"), "RUN  make all");
        assert_eq!(summary("\none\ntwo\n"), "one...");
        assert_eq!(summary("one\n"), "one");
    }
}
