//! What can be said of a file without knowing a variable: casing, names, comments, deprecated instructions.

use super::{Linter, Rule};
use crate::ast::{Dockerfile, Kind, Lines};
use crate::error::{Error, quote};
use crate::lex::{self, Node};
use crate::parse::{Parsed, check_stages, parsed};
use crate::words;

/// Parses a file, reporting what its instructions are found to be on the way.
pub(super) fn read(linter: &mut Linter, source: &[u8]) -> Result<Dockerfile, Error> {
    let source = lex::read(source)?;
    for warning in &source.warnings {
        let lines = Lines { start: warning.line, end: warning.line };
        linter.report(Rule::NoEmptyContinuation, lines, &[], "Empty continuation line".into());
    }
    let mut file = Dockerfile { escape: source.escape, ..Dockerfile::default() };
    for node in &source.nodes {
        before(linter, node);
        match parsed(node)? {
            Parsed::Stage(stage) => {
                if let Some(name) = &stage.name {
                    description(linter, node, "FROM", &[&name.to_lowercase()]);
                }
                file.stages.push(stage);
            }
            Parsed::Instruction(instruction) => {
                if let Kind::Arg(args) = &instruction.kind {
                    description(linter, node, "ARG", &args.iter().map(|arg| arg.key.as_str()).collect::<Vec<_>>());
                }
                match file.stages.last_mut() {
                    Some(stage) => stage.instructions.push(instruction),
                    None if matches!(instruction.kind, Kind::Arg(_)) => file.args.push(instruction),
                    None => return Err(Error::new("no build stage in current context", Some(node.lines))),
                }
            }
        }
    }
    check_stages(&file)?;
    Ok(file)
}

/// What is said of an instruction whether or not it can be parsed.
fn before(linter: &mut Linter, node: &Node) {
    if node.name.eq_ignore_ascii_case("MAINTAINER") {
        let detail = "Maintainer instruction is deprecated in favor of using label".to_owned();
        linter.report(Rule::MaintainerDeprecated, node.lines, &node.comments, detail);
    }
    let [_, word, name, rest @ ..] = node.args.words.as_slice() else { return };
    if !node.name.eq_ignore_ascii_case("FROM") {
        return;
    }
    if rest.is_empty() && *name != name.to_lowercase() {
        let detail = format!("Stage name '{name}' should be lowercase");
        linter.report(Rule::StageNameCasing, node.lines, &node.comments, detail);
    }
    // A keyword of mixed case is another rule's.
    let matching = match Case::of(&node.name) {
        Case::Lower => word.to_lowercase(),
        Case::Upper => word.to_uppercase(),
        Case::Mixed => return,
    };
    if *word != matching {
        let detail = format!("'{word}' and '{}' keywords' casing do not match", node.name);
        linter.report(Rule::FromAsCasing, node.lines, &node.comments, detail);
    }
}

/// A comment directly above something that has a description should be that description.
fn description(linter: &mut Linter, node: &Node, instruction: &str, names: &[&str]) {
    let Some(first) = node.comments.last().and_then(|comment| comment.split(' ').next()) else { return };
    if names.is_empty() || names.contains(&first) {
        return;
    }
    let example = if let [name] = names { name } else { "<arg_key>" };
    let detail = format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    linter.report(Rule::InvalidDefinitionDescription, node.lines, &node.comments, detail);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Lower,
    Upper,
    Mixed,
}

impl Case {
    fn of(word: &str) -> Self {
        if word == word.to_lowercase() {
            Self::Lower
        } else if word == word.to_uppercase() {
            Self::Upper
        } else {
            Self::Mixed
        }
    }
}

/// Rules about the file as a whole.
pub(super) fn check(linter: &mut Linter, file: &Dockerfile) {
    let mut names = std::collections::HashSet::new();
    for stage in &file.stages {
        let Some(name) = stage.name.as_ref().map(|name| name.to_lowercase()) else { continue };
        if matches!(name.as_str(), "context" | "scratch") {
            let detail = format!("Stage name should not use the same name as reserved stage {}", quote(&name));
            linter.report(Rule::ReservedStageName, stage.lines, &[], detail);
        }
        let quoted = quote(&name);
        if !names.insert(name) {
            let detail = format!("Duplicate stage name {quoted}, stage names should be unique");
            linter.report(Rule::DuplicateStageName, stage.lines, &[], detail);
        }
    }
    casing(linter, file);
}

fn casing(linter: &mut Linter, file: &Dockerfile) {
    let keywords = || {
        file.stages.iter().flat_map(|stage| {
            let own = (words::first(&stage.original).0, stage.lines);
            let others = stage.instructions.iter();
            std::iter::once(own).chain(others.map(|other| (words::first(&other.original).0, other.lines)))
        })
    };
    let count = |case| keywords().filter(|(word, _)| Case::of(word) == case).count();
    let (wanted, name) =
        if count(Case::Lower) > count(Case::Upper) { (Case::Lower, "lowercase") } else { (Case::Upper, "uppercase") };
    for (word, lines) in keywords() {
        if Case::of(word) != wanted {
            let detail = format!("Command '{word}' should match the case of the command majority ({name})");
            linter.report(Rule::ConsistentInstructionCasing, lines, &[], detail);
        }
    }
}
