//! Variables and quotes in an instruction's words, as a shell would resolve them.
//!
//! `$v ${v} ${v-w} ${v:-w} ${v+w} ${v:+w} ${v?e} ${v:?e} ${v#p} ${v##p} ${v%p} ${v%%p} ${v/p/r} ${v//p/r}`. A `w` and an `e`
//! are expanded themselves; a `p` is a pattern of `*` and `?`. What is single-quoted stays, double quotes keep white space,
//! and the escape character takes the next character's meaning away. A variable that is not set gives nothing.
//!
//! Nesting and output are bounded: a variable can be made of itself twice over, line after line.

mod substitute;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::error::quote;

/// Deepest nesting of `${a:-${b:-...}}`.
pub const MAX_DEPTH: usize = 100;
/// Most bytes that variables and quoted text make in one expansion.
pub const MAX_OUTPUT: usize = 4 << 20;

/// Where variables come from.
pub trait Variables {
    /// The variable's value, if it is set.
    fn get(&self, name: &str) -> Option<&str>;
}

impl Variables for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

impl Variables for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// Pairs in the order of their definition: the last one counts.
impl Variables for [(String, String)] {
    fn get(&self, name: &str) -> Option<&str> {
        self.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Variables for Vec<(String, String)> {
    fn get(&self, name: &str) -> Option<&str> {
        Variables::get(self.as_slice(), name)
    }
}

/// No variable is set.
#[derive(Clone, Copy, Debug)]
pub struct Unset;

impl Variables for Unset {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

/// What an expansion gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The whole text, white space as it was.
    pub text: String,
    /// The text as words: cut at white space that is not quoted, that of variables' values included.
    pub words: Vec<String>,
    /// Variables that were asked for and set.
    pub used: BTreeSet<String>,
    /// Variables that were asked for and not set.
    pub unset: BTreeSet<String>,
}

/// Why a text cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {reason}", quote(source_text))]
pub struct Error {
    /// The text.
    pub source_text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// How words are expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expander {
    escape: char,
    /// Quotes stay in the text.
    keep_quotes: bool,
    /// Escape characters stay in the text.
    keep_escapes: bool,
    /// Quotes are characters like others.
    no_quotes: bool,
    /// `$name` of a variable that is not set stays.
    keep_unset: bool,
}

impl Expander {
    /// For the words of instructions; `escape` is the file's.
    #[must_use]
    pub fn new(escape: char) -> Self {
        Self { escape, keep_quotes: false, keep_escapes: false, no_quotes: false, keep_unset: false }
    }

    /// For the bodies of heredocs whose delimiter is not quoted: quotes mean nothing, `\` escapes whatever the file's
    /// escape character is.
    #[must_use]
    pub fn heredoc() -> Self {
        Self { no_quotes: true, ..Self::new('\\') }
    }

    /// For showing a command: quotes and variables that are not set stay as they are.
    #[must_use]
    pub fn display(escape: char) -> Self {
        Self { keep_quotes: true, keep_unset: true, ..Self::new(escape) }
    }

    /// For finding heredoc operators in a line: quotes and escapes stay.
    pub(crate) fn verbatim() -> Self {
        Self { keep_quotes: true, keep_escapes: true, keep_unset: true, ..Self::new('\\') }
    }

    /// For a heredoc's delimiter.
    pub(crate) fn delimiter(keep_quotes: bool) -> Self {
        Self { keep_quotes, keep_unset: true, ..Self::new('\\') }
    }

    /// Expands `text`.
    ///
    /// # Errors
    /// A quote or a brace that is not closed, a substitution that does not exist, a variable that must be set and is not,
    /// or too much of it.
    pub fn expand(&self, text: &str, variables: &(impl Variables + ?Sized)) -> Result<Expanded, Error> {
        let (out, result) = self.expand_reporting(text, variables);
        result.map(|()| out)
    }

    /// The same, and where it fails the variables that had been asked for by then.
    pub(crate) fn expand_reporting(
        &self,
        text: &str,
        variables: &(impl Variables + ?Sized),
    ) -> (Expanded, Result<(), Error>) {
        let lookup = |name: &str| variables.get(name).map(str::to_owned);
        let mut walk = Walk {
            rest: text,
            how: *self,
            lookup: &lookup,
            keep_escapes: self.keep_escapes,
            depth: 0,
            handled: 0,
            used: BTreeSet::new(),
            unset: BTreeSet::new(),
        };
        let (text_out, words, result) = match walk.until(None, self.keep_escapes) {
            Ok((text_out, words)) => (text_out, words, Ok(())),
            Err(reason) => (String::new(), Vec::new(), Err(Error { source_text: text.to_owned(), reason })),
        };
        (Expanded { text: text_out, words, used: walk.used, unset: walk.unset }, result)
    }
}

/// The words that a text is cut into while it is read.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    fn character(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

type Piece = Result<String, String>;

const OPEN_BRACE: &str = "syntax error: missing '}'";

struct Walk<'a> {
    rest: &'a str,
    how: Expander,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    keep_escapes: bool,
    depth: usize,
    handled: usize,
    used: BTreeSet<String>,
    unset: BTreeSet<String>,
}

impl Walk<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        c
    }

    fn variable(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        let seen = if value.is_some() { &mut self.used } else { &mut self.unset };
        if !seen.contains(name) {
            seen.insert(name.to_owned());
        }
        value
    }

    /// Counts text that was made, so that no expansion makes more of it than is sane.
    fn made(&mut self, bytes: usize) -> Result<(), String> {
        self.handled += bytes;
        if self.handled > MAX_OUTPUT {
            Err(format!("the text expands to more than {MAX_OUTPUT} bytes"))
        } else {
            Ok(())
        }
    }

    /// Reads up to `stop` (which is taken) or, without one, to the end: the text and its words.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<(String, Vec<String>), String> {
        if self.depth == MAX_DEPTH {
            return Err(format!("substitutions nest more than {MAX_DEPTH} deep"));
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.keep_escapes, keep_escapes);
        let result = self.read(stop);
        self.keep_escapes = outer;
        self.depth -= 1;
        result
    }

    fn read(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), String> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.next();
                return Ok((text, words.finish()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    self.made(value.len())?;
                    text.push_str(&value);
                    value.chars().for_each(|c| words.character(c));
                }
                '\'' | '"' if !self.how.no_quotes => {
                    let quoted = if c == '"' { self.double_quoted() } else { self.single_quoted() }?;
                    self.made(quoted.len())?;
                    text.push_str(&quoted);
                    words.word.push_str(&quoted);
                }
                '<' => {
                    let operator = self.operator();
                    text.push_str(&operator);
                    words.word.push_str(&operator);
                }
                c if c == self.how.escape => {
                    self.next();
                    if self.keep_escapes {
                        text.push(c);
                        words.word.push(c);
                    }
                    let Some(next) = self.next() else { break };
                    text.push(next);
                    words.word.push(next);
                }
                c => {
                    self.next();
                    text.push(c);
                    words.character(c);
                }
            }
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok((text, words.finish())),
        }
    }

    /// `<<` with the white space after it, which belongs to the heredoc's word; a single `<` is nothing special.
    fn operator(&mut self) -> String {
        self.next();
        if self.peek() != Some('<') {
            return "<".into();
        }
        self.next();
        let end = self.rest.find(|c| !matches!(c, '\t' | '\r' | ' ')).unwrap_or(self.rest.len());
        let operator = format!("<<{}", &self.rest[..end]);
        self.rest = &self.rest[end..];
        operator
    }

    fn single_quoted(&mut self) -> Piece {
        let Some(end) = self.rest[1..].find('\'') else {
            self.rest = "";
            return Err("unexpected end of statement while looking for matching single-quote".into());
        };
        let (quoted, rest) = self.rest.split_at(end + 2);
        self.rest = rest;
        Ok(if self.how.keep_quotes { quoted.to_owned() } else { quoted[1..=end].to_owned() })
    }

    fn double_quoted(&mut self) -> Piece {
        let mut text = String::new();
        self.next();
        if self.how.keep_quotes {
            text.push('"');
        }
        loop {
            match self.peek() {
                None => return Err("unexpected end of statement while looking for matching double-quote".into()),
                Some('"') => {
                    self.next();
                    if self.how.keep_quotes {
                        text.push('"');
                    }
                    return Ok(text);
                }
                Some('$') => {
                    let value = self.dollar()?;
                    self.made(value.len())?;
                    text.push_str(&value);
                }
                Some(c) => {
                    self.next();
                    if c != self.how.escape {
                        text.push(c);
                        continue;
                    }
                    if self.keep_escapes {
                        text.push(c);
                    }
                    match self.peek() {
                        // The end is reported by the next round.
                        None => {}
                        Some(next) if matches!(next, '"' | '$') || next == c => {
                            self.next();
                            text.push(next);
                        }
                        // What needs no escape keeps it.
                        Some(_) => text.push(c),
                    }
                }
            }
        }
    }

    /// A name: letters, digits and `_`; digits alone where it begins with one; or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let end = match self.peek() {
            Some(c) if c.is_numeric() => self.rest.find(|c: char| !c.is_numeric()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => Some(1),
            _ => self.rest.find(|c: char| !c.is_alphanumeric() && c != '_'),
        };
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        name.to_owned()
    }

    fn dollar(&mut self) -> Piece {
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(match self.variable(&name) {
                None if self.how.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err(OPEN_BRACE.into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = self.name();
        let mut modifier = String::new();
        let mut kind = self.next();
        modifier.extend(kind);
        let or_empty = kind == Some(':');
        if or_empty {
            kind = self.next();
            modifier.extend(kind);
        }
        let unsupported = || Err(format!("unsupported modifier ({modifier}) in substitution"));
        match kind {
            None if or_empty => Err(OPEN_BRACE.into()),
            None => Err(format!("unsupported modifier ({}) in substitution", char::REPLACEMENT_CHARACTER)),
            Some('}') if !or_empty => Ok(match self.variable(&name) {
                None if self.how.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some('/') if !or_empty => self.replaced(&name),
            Some('#' | '%') if or_empty => unsupported(),
            Some(kind @ ('-' | '+' | '?' | '#' | '%')) => self.modified(&name, &modifier, kind, or_empty),
            Some(_) if or_empty => {
                self.part('}', false, OPEN_BRACE)?;
                self.variable(&name);
                unsupported()
            }
            Some(_) => unsupported(),
        }
    }

    /// A part of `${...}` up to `stop`; where the text ends in it, `missing` says so.
    fn part(&mut self, stop: char, keep_escapes: bool, missing: &str) -> Piece {
        match self.until(Some(stop), keep_escapes) {
            Ok((word, _)) => Ok(word),
            Err(_) if self.rest.is_empty() && self.handled <= MAX_OUTPUT => Err(missing.to_owned()),
            Err(reason) => Err(reason),
        }
    }

    /// `${name-word}` and its kin.
    fn modified(&mut self, name: &str, modifier: &str, kind: char, or_empty: bool) -> Piece {
        let word = self.part('}', matches!(kind, '#' | '%'), OPEN_BRACE)?;
        let value = self.variable(name);
        if value.is_none() && self.how.keep_unset {
            return Ok(format!("${{{name}{modifier}{word}}}"));
        }
        let missing = value.as_ref().is_none_or(|value| or_empty && value.is_empty());
        match kind {
            '-' => Ok(if missing { word } else { value.unwrap_or_default() }),
            '+' => Ok(if missing { String::new() } else { word }),
            '?' if missing => {
                let what = if value.is_none() { "is not allowed to be unset" } else { "is not allowed to be empty" };
                Err(format!("{name}: {}", if word.is_empty() { what } else { &word }))
            }
            '?' => Ok(value.unwrap_or_default()),
            // Two of them ask for the longest match.
            _ => {
                let (longest, text) = match word.strip_prefix(kind) {
                    Some(text) => (true, text),
                    None => (false, word.as_str()),
                };
                let pattern = substitute::Pattern::parse(text)?;
                let value = value.unwrap_or_default();
                pattern.check(&value)?;
                Ok(if kind == '#' { pattern.trim_start(&value, longest) } else { pattern.trim_end(&value, longest) })
            }
        }
    }

    /// `${name/pattern/replacement}`.
    fn replaced(&mut self, name: &str) -> Piece {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.part('/', true, "syntax error: missing '/' in ${}")?;
        let replacement = self.part('}', true, OPEN_BRACE)?;
        let value = self.variable(name);
        if value.is_none() && self.how.keep_unset {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let room = MAX_OUTPUT - self.handled.min(MAX_OUTPUT);
        let (pattern, value) = (substitute::Pattern::parse(&pattern)?, value.unwrap_or_default());
        pattern.check(&value)?;
        pattern.replace(&value, &replacement, all, room)
    }
}

#[cfg(test)]
mod tests;
