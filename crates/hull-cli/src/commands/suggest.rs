//! What was meant by a command that does not exist.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{Command, CommandFactory as _};

use super::Cli;

/// How many letters must be changed, added, left out or exchanged with their neighbours to get from one word to another.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for row in 1..=one.len() {
        let mut next = vec![row];
        for column in 1..=other.len() {
            let changed = usize::from(one[row - 1] != other[column - 1]);
            let mut least = (last[column - 1] + changed).min(last[column] + 1).min(next[column - 1] + 1);
            let exchanged =
                row > 1 && column > 1 && one[row - 1] == other[column - 2] && one[row - 2] == other[column - 1];
            if exchanged {
                least = least.min(before[column - 2] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut last, next);
    }
    last.last().copied().unwrap_or_default()
}

/// The command that is most like a word, if one is.
fn nearest<'a>(command: &'a Command, word: &str) -> Option<&'a str> {
    if word.chars().count() > 64 {
        return None;
    }
    let names = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    let names = names.flat_map(|sub| std::iter::once(sub.get_name()).chain(sub.get_visible_aliases()));
    let (least, name) = names.map(|name| (distance(word, name), name)).min_by_key(|(distance, _)| *distance)?;
    (least <= 1 + word.chars().count() / 4).then_some(name)
}

/// A line for a command that does not exist, in the place of clap's own; `None` for other errors.
pub(super) fn line(error: &clap::Error, args: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let root = Cli::command();
    let mut command = &root;
    for arg in args.iter().skip(1).take_while(|arg| arg.to_str() != Some(word)) {
        command = command.find_subcommand(arg).unwrap_or(command);
    }
    let group = if std::ptr::eq(command, &root) { String::new() } else { format!(" {}", command.get_name()) };
    Some(match nearest(command, word) {
        Some(name) => format!("{word:?} is not a command: did you mean 'hull{group} {name}'?"),
        None => format!("{word:?} is not a command: see 'hull{group} --help'"),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn said(words: &[&str]) -> String {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let error = Cli::try_parse_from(&words).expect_err("a wrong command");
        line(&error, &words).unwrap_or_default()
    }

    #[test]
    fn letters_that_changed_places_are_understood() {
        assert_eq!(distance("rnu", "run"), 1);
        assert_eq!(distance("", "run"), 3);
        assert_eq!(distance("imagse", "images"), 1);
        assert!(said(&["hull", "rnu", "x"]).ends_with("did you mean 'hull run'?"));
        assert!(said(&["hull", "imagse"]).ends_with("did you mean 'hull images'?"));
        assert!(said(&["hull", "network", "crate", "x"]).ends_with("did you mean 'hull network create'?"));
        assert!(said(&["hull", "--root", "/x", "volume", "insepct", "x"]).ends_with("'hull volume inspect'?"));
        assert!(said(&["hull", "xyzzy"]).ends_with("see 'hull --help'"));
    }
}
