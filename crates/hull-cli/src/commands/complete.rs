//! `hull completion`: what a shell needs to complete Hull's command line, and `hull __complete`, which it asks.
//!
//! The shells' scripts know nothing: they hand over the words up to the cursor, and get candidates from the same
//! description of the command line that parses it, and names from the records. Each line of an answer is a candidate,
//! perhaps a tab and what it is; the last line is a colon and what else the shell shall do: `files`, `dirs`, `nospace`.
//!
//! An answer must be there before a person notices: nothing is repaired, and of each record only the name is read.

mod names;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, Command, CommandFactory as _, ValueEnum};
use hull_engine::Engine;

use self::names::Kind;
use super::{Cli, Done};
use crate::output::print;

/// The word behind which a shell puts the words to complete.
pub(super) const WORD: &str = "__complete";

const BASH: &str = include_str!("complete/hull.bash");
const ZSH: &str = include_str!("complete/hull.zsh");
const FISH: &str = include_str!("complete/hull.fish");

/// Print the completion script of a shell
///
/// It completes commands, flags and their values, and the names of containers, images, networks and volumes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  . <(hull completion bash)\n  hull completion bash > /etc/bash_completion.d/hull\n  hull completion zsh > \"${fpath[1]}/_hull\"\n  hull completion fish > ~/.config/fish/completions/hull.fish"
)]
pub(super) struct Args {
    /// Which shell
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn main(args: &Args) -> Done {
    print(match args.shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
    });
    Ok(0)
}

/// Answers a shell: the words after the program's name, the last one being typed.
pub(super) fn answer(words: &[OsString]) -> ExitCode {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    // What is wrong with them is said by the command that is completed.
    let _ = hull_config::init();
    let command = Cli::command();
    print(Line::read(&command, &words).answer());
    ExitCode::SUCCESS
}

/// Reads a line as far as it is written, without looking for names.
pub(super) fn understand(words: &[OsString]) {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    drop(format!("{:?}", Line::read(&Cli::command(), &words).path));
}

/// What a shell offers.
#[derive(Debug, Default)]
pub(super) struct Offer {
    /// Candidates and what they are.
    candidates: Vec<(String, String)>,
    /// Names of files too.
    files: bool,
    /// Names of directories too.
    directories: bool,
    /// The word goes on behind a candidate.
    open: bool,
}

impl Offer {
    /// The candidates that begin as the word does, behind what is before it.
    fn text(mut self, before: &str, word: &str) -> String {
        self.candidates.retain(|(candidate, _)| candidate.starts_with(word));
        let mut text = String::new();
        for (candidate, about) in &self.candidates {
            let about = about.lines().next().unwrap_or_default();
            let tab = if about.is_empty() { "" } else { "\t" };
            text.push_str(&format!("{before}{candidate}{tab}{about}\n"));
        }
        let more = [(self.files, "files"), (self.directories, "dirs"), (self.open, "nospace")];
        let more: Vec<&str> = more.into_iter().filter(|(on, _)| *on).map(|(_, word)| word).collect();
        text.push_str(&format!(":{}\n", more.join(",")));
        text
    }
}

/// A command line as far as it is written.
#[derive(Debug)]
struct Line<'a> {
    root: &'a Command,
    /// The innermost command.
    command: &'a Command,
    /// Its name and those around it.
    path: Vec<&'a str>,
    /// The positional words so far.
    words: Vec<String>,
    /// A flag whose value is being written.
    pending: Option<&'a Arg>,
    /// No flags follow.
    ended: bool,
    /// The word that is being written.
    word: String,
    data: Option<PathBuf>,
    state: Option<PathBuf>,
}

/// Whether a value of a flag is a word of its own.
fn takes_word(arg: &Arg) -> bool {
    let least = arg.get_num_args().map_or(1, |range| range.min_values());
    arg.get_action().takes_values() && !arg.is_require_equals_set() && least > 0
}

impl<'a> Line<'a> {
    fn read(root: &'a Command, words: &[String]) -> Self {
        let (word, before) = words.split_last().map_or((String::new(), words), |(last, rest)| (last.clone(), rest));
        let mut line = Self {
            root,
            command: root,
            path: Vec::new(),
            words: Vec::new(),
            pending: None,
            ended: false,
            word,
            data: None,
            state: None,
        };
        before.iter().for_each(|word| line.take(word));
        line
    }

    /// Goes on by one whole word.
    fn take(&mut self, word: &str) {
        if let Some(arg) = self.pending.take() {
            return self.value(arg, word);
        }
        if !self.ended && word == "--" {
            self.ended = true;
        } else if let Some(flag) = word.strip_prefix("--").filter(|_| !self.ended) {
            let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            match (self.long(name), value) {
                (Some(arg), Some(value)) => self.value(arg, value),
                (Some(arg), None) => self.pending = Some(arg).filter(|arg| takes_word(arg)),
                (None, _) => {}
            }
        } else if let Some(flags) = word.strip_prefix('-').filter(|flags| !self.ended && !flags.is_empty()) {
            for (index, letter) in flags.char_indices() {
                if let Some(arg) = self.short(letter).filter(|arg| takes_word(arg)) {
                    self.pending = Some(arg).filter(|_| index + letter.len_utf8() == flags.len());
                    break;
                }
            }
        } else if let Some(command) = self.command.find_subcommand(word).filter(|_| self.words.is_empty()) {
            self.command = command;
            self.path.push(command.get_name());
        } else {
            self.words.push(word.to_owned());
            // Flags behind this are another program's.
            self.ended |= self.positional(self.words.len() - 1).is_some_and(Arg::is_trailing_var_arg_set);
        }
    }

    /// The directories decide whose names are offered.
    fn value(&mut self, arg: &Arg, value: &str) {
        match arg.get_id().as_str() {
            "root" => self.data = Some(PathBuf::from(value)),
            "state" => self.state = Some(PathBuf::from(value)),
            _ => {}
        }
    }

    fn flags(&self) -> impl Iterator<Item = &'a Arg> {
        let global = self.root.get_arguments().filter(|arg| arg.is_global_set());
        self.command.get_arguments().chain(global).filter(|arg| !arg.is_positional())
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        self.flags().find(|arg| {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            arg.get_long() == Some(name) || aliases.contains(&name)
        })
    }

    fn short(&self, letter: char) -> Option<&'a Arg> {
        self.flags().find(|arg| arg.get_short() == Some(letter))
    }

    /// The positional argument at a place; the last may take all the rest.
    fn positional(&self, place: usize) -> Option<&'a Arg> {
        let mut last = None;
        for (index, arg) in self.command.get_positionals().enumerate() {
            if index == place {
                return Some(arg);
            }
            last = Some(arg);
        }
        let many = |arg: &&Arg| {
            arg.is_trailing_var_arg_set()
                || matches!(arg.get_action(), clap::ArgAction::Append)
                || arg.get_num_args().is_some_and(|range| range.max_values() > 1)
        };
        last.filter(many)
    }

    fn answer(self) -> String {
        let engine = super::engine(self.data.clone(), self.state.clone());
        if let Some(arg) = self.pending {
            return self.values(&engine, arg, &self.word).text("", &self.word);
        }
        if let Some((flag, value)) = self.word.split_once('=').filter(|_| !self.ended && self.word.starts_with("--")) {
            let offer = self.long(&flag[2..]).map(|arg| self.values(&engine, arg, value)).unwrap_or_default();
            return offer.text(&format!("{flag}="), value);
        }
        let mut offer = Offer::default();
        if !self.ended && self.word.starts_with('-') {
            for arg in self.flags().filter(|arg| !arg.is_hide_set()) {
                let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let names = arg.get_long_and_visible_aliases().unwrap_or_default();
                let short = arg.get_short().filter(|_| names.is_empty() || self.word == "-");
                offer.candidates.extend(names.iter().map(|name| (format!("--{name}"), about.clone())));
                offer.candidates.extend(short.map(|letter| (format!("-{letter}"), about.clone())));
            }
            offer.candidates.push(("--help".to_owned(), "Print help".to_owned()));
            offer.candidates.sort();
            offer.candidates.dedup_by(|one, other| one.0 == other.0);
            return offer.text("", &self.word);
        }
        if self.words.is_empty() && self.command.has_subcommands() {
            for command in self.command.get_subcommands().filter(|command| !command.is_hide_set()) {
                let about = command.get_about().map(ToString::to_string).unwrap_or_default();
                offer.candidates.push((command.get_name().to_owned(), about));
            }
            return offer.text("", &self.word);
        }
        match self.positional(self.words.len()) {
            Some(arg) => self.values(&engine, arg, &self.word).text("", &self.word),
            None => offer.text("", &self.word),
        }
    }

    /// What a value of a flag or a positional argument may be.
    fn values(&self, engine: &Engine, arg: &Arg, word: &str) -> Offer {
        let mut offer = Offer::default();
        for value in arg.get_possible_values().iter().filter(|value| !value.is_hide_set()) {
            let about = value.get_help().map(ToString::to_string).unwrap_or_default();
            offer.candidates.push((value.get_name().to_owned(), about));
        }
        if !offer.candidates.is_empty()
            && arg.get_value_parser().type_id() != clap::builder::ValueParser::bool().type_id()
        {
            return offer;
        }
        let name = arg.get_value_names().and_then(|names| names.first());
        let name = name.map_or_else(|| arg.get_id().as_str().to_uppercase(), ToString::to_string);
        let place = (!arg.is_positional()).then(|| arg.get_long()).flatten();
        let command = self.path.last().copied().unwrap_or_default();
        Kind::of(&self.path, command, place, &name, self.words.len()).offer(engine, word, &mut offer);
        offer
    }
}

/// Whether this is a shell's question.
pub(super) fn is_asked(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|word| word == OsStr::new(WORD))
}

#[cfg(test)]
mod tests;
