//! The command-line grammar of OCI runtimes, as callers in the wild use it.
//!
//! It is Go's: `--flag value`, `--flag=value` and the same with one dash (`-no-subreaper`, `-b=DIR`). On top of that,
//! flags are accepted before and after the container ID, because callers disagree about the place. This module only
//! sorts words; it opens nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// One flag of a command.
#[derive(Debug)]
pub(crate) struct Flag {
    /// Name without dashes.
    pub(crate) name: &'static str,
    /// One-letter form, or `'\0'`.
    pub(crate) short: char,
    /// Placeholder of the value in the help text; empty for a switch.
    pub(crate) value: &'static str,
    /// One line of help.
    pub(crate) help: &'static str,
}

/// A flag that takes a value.
pub(crate) const fn value(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { name, short: '\0', value, help }
}

/// A flag that is on or off.
pub(crate) const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag { name, short: '\0', value: "", help }
}

impl Flag {
    /// Adds the one-letter form.
    pub(crate) const fn short(mut self, short: char) -> Self {
        self.short = short;
        self
    }

    fn takes_value(&self) -> bool {
        !self.value.is_empty()
    }
}

/// What was on the command line.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    values: Vec<(&'static str, OsString)>,
    /// Words that are no flags, in order.
    pub(crate) words: Vec<OsString>,
    /// `--help` or `-h` was given.
    pub(crate) help: bool,
}

impl Parsed {
    /// Last value of a flag.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.values.iter().rev().find(|(flag, _)| *flag == name).map(|(_, value)| value.as_os_str())
    }

    /// Last value of a flag, as text.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, String> {
        match self.get(name).map(|value| (value, value.to_str())) {
            None => Ok(None),
            Some((_, Some(text))) => Ok(Some(text)),
            Some((value, None)) => Err(format!("invalid value {value:?} for flag --{name}: not UTF-8")),
        }
    }

    /// All values of a flag that may be repeated, as text.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let values = self.values.iter().filter(|(flag, _)| *flag == name);
        let text = |(_, value): &(_, OsString)| {
            let text = value.to_str().map(str::to_owned);
            text.ok_or_else(|| format!("invalid value {value:?} for flag --{name}: not UTF-8"))
        };
        values.map(text).collect()
    }

    /// Last value of a flag, as a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let number =
            text.parse().map_err(|_| format!("invalid value {text:?} for flag --{name}: expected a number"))?;
        Ok(Some(number))
    }

    /// Whether a switch is on.
    pub(crate) fn on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "false")
    }

    /// Whether the flag was given at all.
    pub(crate) fn given(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// Sorts `args`. After `last_flag_word` words that are no flags, everything is a word: the program of `exec` and
/// its own flags. Global flags use 0: the first word is the command.
pub(crate) fn parse(flags: &'static [Flag], args: &[OsString], last_flag_word: usize) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut rest = args.iter();
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        if bytes == b"--" {
            parsed.words.extend(rest.by_ref().cloned());
            break;
        }
        if bytes.len() < 2 || bytes[0] != b'-' {
            parsed.words.push(argument.clone());
            if parsed.words.len() > last_flag_word {
                parsed.words.extend(rest.by_ref().cloned());
            }
            continue;
        }
        let word = bytes.strip_prefix(b"--").unwrap_or(&bytes[1..]);
        let (name, inline) = match word.iter().position(|&byte| byte == b'=') {
            Some(equals) => (&word[..equals], Some(OsString::from_vec(word[equals + 1..].to_vec()))),
            None => (word, None),
        };
        if name == b"help" || name == b"h" {
            parsed.help = true;
            continue;
        }
        let Some(flag) = find(flags, name) else {
            if let Some(group) = switches(flags, bytes) {
                parsed.values.extend(group.into_iter().map(|flag| (flag.name, OsString::from("true"))));
                continue;
            }
            return Err(format!("flag provided but not defined: {}", argument.to_string_lossy()));
        };
        let value = match (flag.takes_value(), inline) {
            (true, Some(value)) => value,
            (true, None) => {
                rest.next().cloned().ok_or_else(|| format!("flag needs an argument: {}", argument.to_string_lossy()))?
            }
            (false, None) => OsString::from("true"),
            (false, Some(value)) => boolean(&value)
                .ok_or_else(|| format!("invalid boolean value {value:?} for flag --{}", flag.name))?
                .into(),
        };
        parsed.values.push((flag.name, value));
    }
    Ok(parsed)
}

fn find(flags: &'static [Flag], name: &[u8]) -> Option<&'static Flag> {
    flags.iter().find(|flag| {
        flag.name.as_bytes() == name || (flag.short != '\0' && name.len() == 1 && name[0] == flag.short as u8)
    })
}

/// `-td` is `-t -d` when both are switches.
fn switches(flags: &'static [Flag], argument: &[u8]) -> Option<Vec<&'static Flag>> {
    if argument.starts_with(b"--") {
        return None;
    }
    let letters = argument[1..].iter().map(|letter| find(flags, std::slice::from_ref(letter)));
    letters.map(|flag| flag.filter(|flag| !flag.takes_value())).collect()
}

fn boolean(value: &OsStr) -> Option<&'static str> {
    match value.as_bytes() {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some("true"),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some("false"),
        _ => None,
    }
}

/// The flags, one a line, aligned.
pub(crate) fn help(flags: &[Flag]) -> String {
    let left = |flag: &Flag| {
        let short = if flag.short == '\0' { "    ".to_owned() } else { format!("-{}, ", flag.short) };
        format!("  {short}--{} {}", flag.name, flag.value)
    };
    let width = flags.iter().map(|flag| left(flag).trim_end().len()).max().unwrap_or(0);
    flags.iter().map(|flag| format!("{:width$}  {}\n", left(flag).trim_end(), flag.help)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    static FLAGS: &[Flag] = &[
        value("bundle", "DIR", "").short('b'),
        value("env", "NAME=VALUE", "").short('e'),
        switch("no-subreaper", ""),
        switch("tty", "").short('t'),
        switch("detach", "").short('d'),
    ];

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn check(line: &str, last_flag_word: usize, expected: &[(&str, &str)], rest: &[&str]) {
        let parsed = parse(FLAGS, &words(line), last_flag_word).unwrap();
        let values: Vec<_> = parsed.values.iter().map(|(name, value)| (*name, value.to_str().unwrap())).collect();
        assert_eq!(values, expected, "{line}");
        assert_eq!(parsed.words, rest, "{line}");
    }

    #[test]
    fn flags_before_and_after_the_id() {
        check("--bundle /b id", 9, &[("bundle", "/b")], &["id"]);
        check("id --bundle /b", 9, &[("bundle", "/b")], &["id"]);
        check("-b /b id -d", 9, &[("bundle", "/b"), ("detach", "true")], &["id"]);
    }

    #[test]
    fn one_dash_equals_and_groups() {
        check("-no-subreaper id", 9, &[("no-subreaper", "true")], &["id"]);
        check("-bundle=/b -b=/c id", 9, &[("bundle", "/b"), ("bundle", "/c")], &["id"]);
        check("--detach=false id", 9, &[("detach", "false")], &["id"]);
        check("-td id", 9, &[("tty", "true"), ("detach", "true")], &["id"]);
        check("--bundle -1 id", 9, &[("bundle", "-1")], &["id"]);
    }

    #[test]
    fn program_keeps_its_own_flags() {
        check("-t id ls -l --bundle", 1, &[("tty", "true")], &["id", "ls", "-l", "--bundle"]);
        check("id -t -- -x -d", 1, &[("tty", "true")], &["id", "-x", "-d"]);
        check("id - -d", 9, &[("detach", "true")], &["id", "-"]);
    }

    #[test]
    fn errors_name_the_flag() {
        let error = |line: &str| parse(FLAGS, &words(line), 9).unwrap_err();
        assert_eq!(error("--nope id"), "flag provided but not defined: --nope");
        assert_eq!(error("-bt id"), "flag provided but not defined: -bt");
        assert_eq!(error("id --bundle"), "flag needs an argument: --bundle");
        assert!(error("--detach=maybe").contains("--detach"));
    }

    #[test]
    fn values_are_read_last_wins_and_typed() {
        let parsed = parse(FLAGS, &words("-e A=1 -e B=2 -b 7 -b 8 id"), 9).unwrap();
        assert_eq!(parsed.texts("env").unwrap(), ["A=1", "B=2"]);
        assert_eq!(parsed.number::<u32>("bundle").unwrap(), Some(8));
        assert!(parsed.number::<u32>("env").is_err());
        assert!(!parsed.on("tty") && !parsed.given("tty"));
    }

    #[test]
    fn help_is_a_flag_everywhere() {
        assert!(parse(FLAGS, &words("id --help"), 9).unwrap().help);
        assert!(parse(FLAGS, &words("-h"), 0).unwrap().help);
    }
}
