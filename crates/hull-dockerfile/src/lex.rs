//! A file's text to nodes: one for each instruction, with its flags, its words and its heredocs, not yet understood.
//!
//! This is the first of two passes. What is wrong here is reported for the whole file before any instruction is looked at,
//! as `BuildKit` does.

use crate::ast::Lines;
use crate::directive::{self, Name, Reader};
use crate::error::{Error, Warning};
use crate::heredoc::{self, Body};
use crate::words;

/// Longest line, its line feed not counted.
pub const MAX_LINE: usize = 65_535;
/// Longest file.
pub const MAX_SOURCE: usize = 16 << 20;

/// Most comment lines above an instruction that are kept, the nearest ones.
const MAX_COMMENTS: usize = 100;

/// Words of an instruction.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Args {
    pub(crate) words: Vec<String>,
    /// They were a JSON array.
    pub(crate) json: bool,
    /// `ENV` and `LABEL`.
    pub(crate) pairs: Vec<(String, String)>,
    /// The pair was written without `=`.
    pub(crate) legacy: bool,
    /// `ONBUILD`.
    pub(crate) trigger: Option<Box<Node>>,
}

/// An instruction's line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Its name as written.
    pub(crate) name: String,
    pub(crate) flags: Vec<String>,
    pub(crate) args: Args,
    pub(crate) original: String,
    pub(crate) heredocs: Vec<Body>,
    pub(crate) lines: Lines,
    pub(crate) comments: Vec<String>,
}

/// A file's nodes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Source {
    pub(crate) nodes: Vec<Node>,
    pub(crate) escape: char,
    pub(crate) warnings: Vec<Warning>,
}

fn lines(start: u32, end: u32) -> Option<Lines> {
    Some(Lines { start, end })
}

/// The file's physical lines with their line feeds, counted.
struct Physical<'a> {
    rest: &'a [u8],
    number: u32,
}

impl<'a> Physical<'a> {
    fn next(&mut self) -> Result<Option<&'a [u8]>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        if end.unwrap_or(self.rest.len()) > MAX_LINE {
            let number = self.number + 1;
            let message = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
            return Err(Error::new(message, lines(number, number)));
        }
        let (line, rest) = self.rest.split_at(end.map_or(self.rest.len(), |at| at + 1));
        self.rest = rest;
        self.number += 1;
        Ok(Some(line))
    }
}

fn without_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// `line` without its continuation: an escape character at its end that is not escaped itself.
fn continued(line: &str, escape: char) -> Option<&str> {
    let head = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!head.ends_with(escape)).then_some(head)
}

/// Reads a file.
pub(crate) fn read(source: &[u8]) -> Result<Source, Error> {
    if source.is_empty() {
        return Err(Error::new("the Dockerfile cannot be empty", None));
    }
    if source.len() > MAX_SOURCE {
        return Err(Error::new(format!("the Dockerfile is longer than {MAX_SOURCE} bytes"), None));
    }
    let mut out = Source { nodes: Vec::new(), escape: '\\', warnings: Vec::new() };
    let mut directives = Reader::new("#");
    let mut physical = Physical { rest: directive::without_mark(source), number: 0 };
    let mut comments: Vec<String> = Vec::new();
    while let Some(line) = physical.next()? {
        let line = String::from_utf8_lossy(line);
        let line = without_end(&line).trim_start();
        let start = physical.number;
        let found = directives.line(line).map_err(|message| Error::new(message, lines(start, start)))?;
        if let Some((Name::Escape, value)) = found {
            out.escape = directive::escape(value, start)?;
        }
        if let Some(comment) = line.strip_prefix('#') {
            let comment = comment.trim();
            if comment.is_empty() {
                comments.clear();
            } else if found.is_none() {
                if comments.len() == MAX_COMMENTS {
                    comments.remove(0);
                }
                comments.push(comment.to_owned());
            }
            continue;
        }
        if line.is_empty() {
            continue;
        }
        let line = logical(line, &mut physical, out.escape, &mut out.warnings)?;
        let comments = std::mem::take(&mut comments);
        let mut node =
            node(&line, out.escape, 0).map_err(|message| Error::new(message, lines(start, physical.number)))?;
        if holds_heredocs(&node) && line.contains("<<") {
            node.heredocs = bodies(&line, &node, start, &mut physical)?;
        }
        node.lines = Lines { start, end: physical.number };
        node.comments = comments;
        out.nodes.push(node);
    }
    if out.nodes.is_empty() {
        // The last line; a file of nothing but a byte order mark has one, too.
        let last = physical.number.max(1);
        return Err(Error::new("file with no instructions", lines(last, last)));
    }
    Ok(out)
}

/// Joins `line` with the lines that continue it. Comments between them are dropped, and empty lines, with a warning.
fn logical(
    line: &str,
    physical: &mut Physical<'_>,
    escape: char,
    warnings: &mut Vec<Warning>,
) -> Result<String, Error> {
    let Some(head) = continued(line, escape) else { return Ok(line.to_owned()) };
    let mut joined = head.to_owned();
    let mut empty = false;
    while let Some(line) = physical.next()? {
        let line = String::from_utf8_lossy(line);
        let line = without_end(&line);
        if is_comment(line) {
            continue;
        }
        if line.trim_start().is_empty() {
            empty = true;
            continue;
        }
        match continued(line, escape) {
            Some(head) => joined.push_str(head),
            None => {
                joined.push_str(line);
                break;
            }
        }
    }
    if empty {
        let message = format!("Empty continuation line found in: {joined}");
        warnings.push(Warning { message, line: physical.number });
    }
    Ok(joined)
}

/// Whether heredocs mean something in the instruction.
fn holds_heredocs(node: &Node) -> bool {
    let node = node.args.trigger.as_deref().unwrap_or(node);
    let able = ["ADD", "COPY", "RUN"].iter().any(|name| node.name.eq_ignore_ascii_case(name));
    able && !node.args.json
}

/// Reads the bodies that `line` announces.
fn bodies(line: &str, node: &Node, start: u32, physical: &mut Physical<'_>) -> Result<Vec<Body>, Error> {
    let fail = |message: String, end| Error::new(message, lines(start, end));
    let operators = heredoc::in_line(line).map_err(|message| fail(message, physical.number))?;
    let files = !node.args.trigger.as_deref().unwrap_or(node).name.eq_ignore_ascii_case("RUN");
    let mut bodies = Vec::with_capacity(operators.len());
    for operator in operators {
        let mut text = Vec::new();
        loop {
            let Some(line) = physical.next()? else {
                return Err(fail("unterminated heredoc".into(), physical.number));
            };
            let mut end = line;
            while let [head @ .., b'\r' | b'\n'] = end {
                end = head;
            }
            while let (true, [b'\t', tail @ ..]) = (operator.chomp, end) {
                end = tail;
            }
            if end == operator.name.as_bytes() {
                break;
            }
            text.extend_from_slice(line);
        }
        // Text for a shell may hold what it likes; a file must not be written other than it is here.
        let text = match String::from_utf8(text) {
            Ok(text) => text,
            Err(_) if files => {
                return Err(fail(format!("heredoc {} is not valid UTF-8", operator.name), physical.number));
            }
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        bodies.push(Body { operator, text });
    }
    Ok(bodies)
}

/// One instruction's line; `depth` counts the `ONBUILD`s it is in.
pub(crate) fn node(line: &str, escape: char, depth: usize) -> Result<Node, String> {
    let (name, rest) = words::first(line);
    let (flags, rest) = words::flags(rest, escape);
    let args = args(&name.to_ascii_uppercase(), rest, escape, depth)?;
    let original = line.to_owned();
    let lines = Lines::default();
    Ok(Node { name: name.to_owned(), flags, args, original, heredocs: Vec::new(), lines, comments: Vec::new() })
}

fn args(name: &str, rest: &str, escape: char, depth: usize) -> Result<Args, String> {
    let list = |words: Vec<String>| Ok(Args { words, ..Args::default() });
    let whole = |rest: &str| list(if rest.is_empty() { Vec::new() } else { vec![rest.to_owned()] });
    let array = |words| Ok(Args { words, json: true, ..Args::default() });
    match name {
        "ADD" | "COPY" | "VOLUME" => match words::json(rest)? {
            Some(words) => array(words),
            None => list(words::plain(rest)),
        },
        "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => match words::json(rest)? {
            Some(words) => array(words),
            None => whole(rest),
        },
        "ARG" => list(words::quoted(rest, escape)),
        "EXPOSE" | "FROM" => list(words::plain(rest)),
        "ENV" | "LABEL" => pairs(name, rest, escape),
        "HEALTHCHECK" => {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (kind, command) = (&rest[..end], rest[end..].trim_start());
            if kind.is_empty() {
                return list(Vec::new());
            }
            let (command, json) = match words::json(command)? {
                Some(command) => (command, true),
                None if command.is_empty() => (Vec::new(), false),
                None => (vec![command.to_owned()], false),
            };
            let words = std::iter::once(kind.to_owned()).chain(command).collect();
            Ok(Args { words, json, ..Args::default() })
        }
        "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR" => whole(rest),
        // A trigger of a trigger is refused later; its own trigger need not be looked at.
        "ONBUILD" if !rest.is_empty() => {
            let trigger = if depth > 1 { None } else { Some(Box::new(node(rest, escape, depth + 1)?)) };
            Ok(Args { trigger, words: vec![words::first(rest).0.to_owned()], ..Args::default() })
        }
        _ => list(Vec::new()),
    }
}

/// `KEY=value ...` or `KEY value`: whichever comes first, `=` or white space, decides.
fn pairs(name: &str, rest: &str, escape: char) -> Result<Args, String> {
    let words = words::quoted(rest, escape);
    let Some(first) = words.first() else { return Ok(Args::default()) };
    if !first.contains('=') {
        let (key, value) = words::two(rest).ok_or_else(|| format!("{name} must have two arguments"))?;
        return Ok(Args { pairs: vec![(key.to_owned(), value.to_owned())], legacy: true, ..Args::default() });
    }
    let pairs = words.iter().map(|word| match word.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => {
            let word = crate::error::quote(word);
            Err(format!("Syntax error - can't find = in {word}. Must be of the form: name=value"))
        }
    });
    Ok(Args { pairs: pairs.collect::<Result<_, _>>()?, ..Args::default() })
}
