//! Nodes to the tree: the second pass, instruction by instruction.

mod duration;
mod flags;
mod mount;

use std::collections::HashMap;

use crate::ast::{
    Command, Copy, Dockerfile, Healthcheck, Heredoc, Instruction, KeyValue, Kind, Lines, Mount, Run, Stage,
};
use crate::directive;
use crate::error::{Error, Warning, quote, with_suggestion};
use crate::expand::{Expander, Variables};
use crate::heredoc;
use crate::lex::{self, Node};
use flags::{Flags, Takes};

/// Every instruction.
pub(crate) const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

const ADD: &[(&str, Takes)] = &[
    ("chown", Takes::One),
    ("chmod", Takes::One),
    ("link", Takes::Bool),
    ("keep-git-dir", Takes::Bool),
    ("checksum", Takes::One),
    ("unpack", Takes::Bool),
    ("exclude", Takes::Many),
];
const COPY: &[(&str, Takes)] = &[
    ("chown", Takes::One),
    ("from", Takes::One),
    ("chmod", Takes::One),
    ("link", Takes::Bool),
    ("exclude", Takes::Many),
    ("parents", Takes::Bool),
];
const RUN: &[(&str, Takes)] =
    &[("mount", Takes::Many), ("network", Takes::One), ("security", Takes::One), ("device", Takes::Many)];
const HEALTHCHECK: &[(&str, Takes)] = &[
    ("interval", Takes::One),
    ("timeout", Takes::One),
    ("start-period", Takes::One),
    ("start-interval", Takes::One),
    ("retries", Takes::One),
];

/// Parses a Dockerfile.
///
/// # Errors
/// The first defect, in the order in which `BuildKit` finds them: the text's before any instruction's.
pub fn parse(source: &[u8]) -> Result<(Dockerfile, Vec<Warning>), Error> {
    let (syntax, check) = (directive::detect_syntax(source), directive::check(source));
    let source = lex::read(source)?;
    let mut file = Dockerfile {
        syntax: syntax.map(|syntax| syntax.value),
        escape: source.escape,
        check,
        args: Vec::new(),
        stages: Vec::new(),
    };
    for node in &source.nodes {
        match parsed(node)? {
            Parsed::Stage(stage) => file.stages.push(stage),
            Parsed::Instruction(instruction) => match file.stages.last_mut() {
                Some(stage) => stage.instructions.push(instruction),
                None if matches!(instruction.kind, Kind::Arg(_)) => file.args.push(instruction),
                None => return Err(Error::new("no build stage in current context", Some(node.lines))),
            },
        }
    }
    check_stages(&file)?;
    Ok((file, source.warnings))
}

/// Most stages.
const MAX_STAGES: usize = 4096;

/// Refuses a file with no stage, or with more than can be meant.
pub(crate) fn check_stages(file: &Dockerfile) -> Result<(), Error> {
    if file.stages.is_empty() {
        return Err(Error::new("dockerfile contains no stages to build", None));
    }
    if file.stages.len() > MAX_STAGES {
        let lines = file.stages.get(MAX_STAGES).map(|stage| stage.lines);
        return Err(Error::new(format!("the Dockerfile has more than {MAX_STAGES} stages"), lines));
    }
    Ok(())
}

/// Parses the text of a trigger, as an image's configuration has it; `lines` are those of the `FROM` that sets it off.
///
/// # Errors
/// It is not exactly one instruction, or none that a trigger may be.
pub fn parse_onbuild(text: &str, lines: Lines) -> Result<Instruction, Error> {
    let place = |error: Error| Error { lines: Some(lines), ..error };
    let source = lex::read(text.as_bytes()).map_err(place)?;
    let [node] = source.nodes.as_slice() else {
        return Err(Error::new("onbuild trigger should be a single expression", Some(lines)));
    };
    // The message cannot name a line: the text is not the file's.
    let parsed = parsed(&Node { lines, ..node.clone() }).map_err(|error| Error { located: false, ..error })?;
    match parsed {
        Parsed::Instruction(Instruction { kind: Kind::Onbuild(_), .. }) => {
            Err(Error::new("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", Some(lines)))
        }
        Parsed::Instruction(instruction) => Ok(instruction),
        Parsed::Stage(_) => Err(Error::new("FROM isn't allowed as an ONBUILD trigger", Some(lines))),
    }
}

impl Mount {
    /// The mount that is meant, its values expanded; `raw` stays what it was.
    ///
    /// # Errors
    /// A value that cannot be expanded, a key that does not exist or that its type does not have, a value of no meaning.
    pub fn resolve(&self, expander: &Expander, variables: &(impl Variables + ?Sized)) -> Result<Self, String> {
        self.resolve_with(&mut |word| match expander.expand(word, variables) {
            Ok(out) => Ok(out.text),
            Err(error) => Err(error.to_string()),
        })
    }

    /// The same with an expansion of the caller's.
    ///
    /// # Errors
    /// As for [`Mount::resolve`].
    pub fn resolve_with(&self, expand: &mut dyn FnMut(&str) -> Result<String, String>) -> Result<Self, String> {
        mount::resolve(&self.raw, expand)
    }
}

/// What a node is.
pub(crate) enum Parsed {
    Stage(Stage),
    Instruction(Instruction),
}

/// One node.
pub(crate) fn parsed(node: &Node) -> Result<Parsed, Error> {
    let fail = |message: String| Error::instruction(message, node.lines);
    let name = node.name.to_ascii_uppercase();
    if name == "FROM" {
        return from(node).map(Parsed::Stage).map_err(fail);
    }
    let kind = kind(node, &name).map_err(fail)?;
    let comment = match &kind {
        Kind::Arg(args) => args.iter().find_map(|arg| doc_comment(&node.comments, &arg.key)),
        _ => None,
    };
    let original = node.original.trim().to_owned();
    let comments = node.comments.clone();
    Ok(Parsed::Instruction(Instruction { kind, original, lines: node.lines, comment, comments }))
}

/// What a comment says of `name`: the rest of the first line that begins with it.
pub(crate) fn doc_comment(comments: &[String], name: &str) -> Option<String> {
    let text = comments.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    text.filter(|_| !name.is_empty()).map(str::to_owned)
}

fn at_least_one(name: &str) -> String {
    format!("{name} requires at least one argument")
}

fn none(node: &Node) -> Result<(), String> {
    Flags::parse(&node.flags, &[]).map(|_| ())
}

fn exactly_one(node: &Node, name: &str) -> Result<String, String> {
    match node.args.words.as_slice() {
        [word] => Ok(word.clone()),
        _ => Err(format!("{name} requires exactly one argument")),
    }
}

fn kind(node: &Node, name: &str) -> Result<Kind, String> {
    let args = &node.args;
    Ok(match name {
        "ADD" | "COPY" => return copy(node, name),
        "ARG" => Kind::Arg(arg(node)?),
        "CMD" => {
            none(node)?;
            Kind::Cmd(command(node))
        }
        "ENTRYPOINT" => {
            none(node)?;
            Kind::Entrypoint(command(node))
        }
        "ENV" => Kind::Env(pairs(node, name)?),
        "LABEL" => Kind::Label(pairs(node, name)?),
        "EXPOSE" => {
            let mut ports = args.words.clone();
            if ports.is_empty() {
                return Err(at_least_one(name));
            }
            none(node)?;
            ports.sort_unstable();
            Kind::Expose(ports)
        }
        "HEALTHCHECK" => Kind::Healthcheck(healthcheck(node)?),
        "MAINTAINER" => {
            let text = exactly_one(node, name)?;
            none(node)?;
            Kind::Maintainer(text)
        }
        "ONBUILD" => Kind::Onbuild(onbuild(node)?),
        "RUN" => Kind::Run(run(node)?),
        "SHELL" => {
            none(node)?;
            if args.words.is_empty() {
                return Err(at_least_one(name));
            }
            if !args.json {
                return Err("SHELL requires the arguments to be in JSON form".into());
            }
            Kind::Shell(args.words.clone())
        }
        // Its flags are passed over, as they always were.
        "STOPSIGNAL" => Kind::StopSignal(exactly_one(node, name)?),
        "USER" => {
            let text = exactly_one(node, name)?;
            none(node)?;
            Kind::User(text)
        }
        "VOLUME" => {
            if args.words.is_empty() {
                return Err(at_least_one(name));
            }
            none(node)?;
            let volumes: Vec<String> = args.words.iter().map(|word| word.trim().to_owned()).collect();
            if volumes.iter().any(String::is_empty) {
                return Err("VOLUME specified can not be an empty string".into());
            }
            Kind::Volume(volumes)
        }
        "WORKDIR" => {
            let text = exactly_one(node, name)?;
            none(node)?;
            Kind::Workdir(text)
        }
        _ => {
            let message = format!("unknown instruction: {}", node.name);
            return Err(with_suggestion(message, &node.name, INSTRUCTIONS, false));
        }
    })
}

fn command(node: &Node) -> Command {
    if node.args.json {
        return Command::Exec(node.args.words.clone());
    }
    Command::Shell(node.args.words.join(" "))
}

fn from(node: &Node) -> Result<Stage, String> {
    let (base, name) = match node.args.words.as_slice() {
        [base] => (base, None),
        [base, word, name] if word.eq_ignore_ascii_case("as") => {
            if !valid_stage_name(&name.to_lowercase()) {
                let name = quote(name);
                return Err(format!(
                    "invalid name for build stage: {name}, name can't start with a number or contain symbols"
                ));
            }
            (base, Some(name.clone()))
        }
        _ => return Err("FROM requires either one or three arguments".into()),
    };
    let flags = Flags::parse(&node.flags, &[("platform", Takes::One)])?;
    let comment = name.as_ref().and_then(|name| doc_comment(&node.comments, &name.to_lowercase()));
    Ok(Stage {
        base: base.clone(),
        platform: flags.text("platform"),
        name,
        original: node.original.trim().to_owned(),
        lines: node.lines,
        comment,
        comments: node.comments.clone(),
        instructions: Vec::new(),
    })
}

fn valid_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'))
}

fn pairs(node: &Node, name: &str) -> Result<Vec<KeyValue>, String> {
    none(node)?;
    if node.args.pairs.is_empty() {
        return Err(at_least_one(name));
    }
    if node.args.pairs.iter().any(|(key, _)| key.is_empty()) {
        return Err(format!("{name} names can not be blank"));
    }
    let pair = |(key, value): &(String, String)| KeyValue { key: key.clone(), value: Some(value.clone()) };
    Ok(node.args.pairs.iter().map(pair).collect())
}

fn arg(node: &Node) -> Result<Vec<KeyValue>, String> {
    if node.args.words.is_empty() {
        return Err(at_least_one("ARG"));
    }
    let args = node.args.words.iter().map(|word| match word.split_once('=') {
        Some(("", _)) => Err("ARG names can not be blank".to_owned()),
        Some((key, value)) => Ok(KeyValue { key: key.to_owned(), value: Some(value.to_owned()) }),
        None => Ok(KeyValue { key: word.clone(), value: None }),
    });
    args.collect()
}

/// Heredocs as the builder gets them: tabs stripped where that was asked for.
fn heredocs(node: &Node) -> Vec<Heredoc> {
    let heredoc = |body: &heredoc::Body| Heredoc {
        name: body.operator.name.clone(),
        fd: body.operator.fd,
        content: if body.operator.chomp { heredoc::chomp(&body.text) } else { body.text.clone() },
        expand: body.operator.expand,
        chomp: body.operator.chomp,
    };
    node.heredocs.iter().map(heredoc).collect()
}

fn copy(node: &Node, name: &str) -> Result<Kind, String> {
    let Some((destination, sources)) = node.args.words.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        return Err(format!(
            "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
        ));
    };
    let add = name == "ADD";
    let flags = Flags::parse(&node.flags, if add { ADD } else { COPY })?;
    // A word whose delimiter makes no sense is a path.
    let operator = |word: &str| heredoc::operator(word).ok().flatten();
    if operator(destination).is_some() {
        return Err(format!("{name} cannot accept a heredoc as a destination"));
    }
    // Of several bodies with one name the last one counts.
    let bodies = heredocs(node);
    let bodies: HashMap<&str, &str> = bodies.iter().map(|body| (body.name.as_str(), body.content.as_str())).collect();
    let mut bytes = 0;
    let mut copy = Copy { destination: destination.clone(), ..Copy::default() };
    for source in sources {
        let Some(operator) = operator(source) else {
            copy.sources.push(source.clone());
            continue;
        };
        let content = bodies.get(operator.name.as_str()).copied().unwrap_or_default();
        bytes += content.len();
        if bytes > lex::MAX_SOURCE {
            return Err(format!("the heredocs of {name} take more than {} bytes", lex::MAX_SOURCE));
        }
        copy.heredocs.push(Heredoc {
            name: operator.name,
            fd: operator.fd,
            content: content.to_owned(),
            expand: operator.expand,
            chomp: operator.chomp,
        });
    }
    copy.chown = flags.text("chown");
    copy.chmod = flags.text("chmod");
    copy.link = flags.switch("link") == Some(true);
    copy.exclude = flags.many("exclude");
    if add {
        copy.checksum = flags.text("checksum");
        copy.keep_git_dir = flags.switch("keep-git-dir");
        copy.unpack = flags.switch("unpack");
        return Ok(Kind::Add(copy));
    }
    copy.from = flags.text("from");
    copy.parents = flags.switch("parents") == Some(true);
    Ok(Kind::Copy(copy))
}

fn run(node: &Node) -> Result<Run, String> {
    let flags = Flags::parse(&node.flags, RUN)?;
    let network = flags.one("network");
    if let Some(mode) = network.filter(|mode| !matches!(*mode, "default" | "none" | "host")) {
        return Err(format!("invalid network mode {}", quote(mode)));
    }
    let security = flags.one("security");
    if let Some(mode) = security.filter(|mode| !matches!(*mode, "sandbox" | "insecure")) {
        return Err(format!("security {} is not valid", quote(mode)));
    }
    let devices = flags.many("device");
    devices.iter().try_for_each(|device| mount::check_device(device))?;
    let mounts = flags.many("mount").iter().map(|raw| mount::outline(raw)).collect::<Result<_, _>>()?;
    Ok(Run {
        command: command(node),
        heredocs: heredocs(node),
        mounts,
        network: network.map(str::to_owned),
        security: security.map(str::to_owned),
        devices,
    })
}

fn healthcheck(node: &Node) -> Result<Healthcheck, String> {
    let Some((kind, command)) = node.args.words.split_first() else { return Err(at_least_one("HEALTHCHECK")) };
    let kind = kind.to_uppercase();
    if kind == "NONE" {
        if !command.is_empty() {
            return Err("HEALTHCHECK NONE takes no arguments".into());
        }
        return Ok(Healthcheck { test: vec![kind], ..Healthcheck::default() });
    }
    let flags = Flags::parse(&node.flags, HEALTHCHECK)?;
    if kind != "CMD" {
        return Err(format!("Unknown type {} in HEALTHCHECK (try CMD)", quote(&kind)));
    }
    if command.is_empty() {
        return Err("Missing command after HEALTHCHECK CMD".into());
    }
    let form = if node.args.json { "CMD" } else { "CMD-SHELL" };
    Ok(Healthcheck {
        test: std::iter::once(form.to_owned()).chain(command.iter().cloned()).collect(),
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

fn interval(flags: &Flags, name: &str) -> Result<Option<u64>, String> {
    let Some(text) = flags.text(name) else { return Ok(None) };
    match duration::parse(&text)? {
        0 => Ok(None),
        time if time < 1_000_000 => Err(format!("Interval {} cannot be less than 1ms", quote(name))),
        time => Ok(u64::try_from(time).ok()),
    }
}

fn retries(flags: &Flags) -> Result<Option<u32>, String> {
    let Some(text) = flags.text("retries") else { return Ok(None) };
    let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
    let number = text.parse::<i64>().ok().filter(|number| i32::try_from(*number).is_ok());
    match number {
        Some(number) if number < 0 => Err(format!("--retries cannot be negative ({number})")),
        Some(number) => Ok(u32::try_from(number).ok().filter(|number| *number > 0)),
        None => {
            let digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let what = if digits { "value out of range" } else { "invalid syntax" };
            Err(format!("strconv.ParseInt: parsing {}: {what}", quote(&text)))
        }
    }
}

fn onbuild(node: &Node) -> Result<String, String> {
    let Some(trigger) = node.args.words.first() else { return Err(at_least_one("ONBUILD")) };
    none(node)?;
    match trigger.to_uppercase().as_str() {
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()),
        name @ ("MAINTAINER" | "FROM") => return Err(format!("{name} isn't allowed as an ONBUILD trigger")),
        _ => {}
    }
    let mut text = node.original.trim_start()["ONBUILD".len()..].trim_start().to_owned();
    for body in &node.heredocs {
        text.push('\n');
        text.push_str(&body.text);
        text.push_str(&body.operator.name);
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
