//! The linter: `BuildKit`'s 22 rules, what they find and how it is printed; and what a Dockerfile offers, for
//! `--call=outline` and `--call=targets`.
//!
//! A file is gone through as a build would: text, instructions, stages, each stage's instructions with its variables. It
//! ends at the first defect, which is part of the [`Report`] along with what was found before it.
//!
//! What is not known is not reported: where a base image cannot be looked at, variables that it may define are not called
//! undefined, and what depends on them is not judged. Stages and their variables are bounded, since each can be made of the one before twice over.

mod evaluate;
mod outline;
mod report;
mod rules;
mod structure;

use std::collections::BTreeMap;

use crate::ast::Lines;
use crate::error::Error;
use crate::ignore::Ignore;

pub use outline::{Arg, Outline, Required, Target, Targets, outline, targets};
pub use report::Printed;
pub use rules::Rule;

/// A base image, as far as checks depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// Variables of its configuration.
    pub env: Vec<(String, String)>,
    /// Its configuration has a shell of its own.
    pub shell: bool,
    /// Its triggers.
    pub onbuild: Vec<String>,
    /// Its platform, `os/arch[/variant]`.
    pub platform: Option<String>,
}

/// Looks at an image for a platform; nothing where it cannot be known here, an error where a build would fail.
pub type LookAt<'a> = &'a dyn Fn(&str, &str) -> Result<Option<Base>, String>;

/// What a file is checked with.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// `--build-arg`.
    pub build_args: &'a BTreeMap<String, String>,
    /// `--target`; without one every stage is checked.
    pub target: Option<&'a str>,
    /// Platform of the result, `os/arch[/variant]`.
    pub platform: &'a str,
    /// Platform that builds.
    pub build_platform: &'a str,
    /// The context's `.dockerignore`.
    pub ignore: Option<&'a Ignore>,
    /// How base images are looked at.
    pub base: LookAt<'a>,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("build_args", &self.build_args)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What it found.
    pub detail: String,
    /// Where.
    pub lines: Lines,
}

impl Finding {
    /// One line, as a build prints it.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}: {} (line {})", self.rule.name(), crate::error::one_line(&self.detail), self.lines.start)
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Findings, in the order in which they were made.
    pub findings: Vec<Finding>,
    /// The defect that a build of the file ends with.
    pub error: Option<Error>,
    /// That defect is nothing but the findings: the file says that they are errors.
    pub denied: bool,
}

impl Report {
    /// Whether the check's exit status is 1: there is anything at all.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.error.is_some() || !self.findings.is_empty()
    }
}

/// Checks a file: the stages that the target needs, or all of them if no target is asked for.
#[must_use]
pub fn check(source: &[u8], options: &Options<'_>) -> Report {
    report(source, options, options.target.is_none())
}

/// Checks what a build goes through: the stages that the target needs, which is the last one if none is asked for.
#[must_use]
pub fn check_build(source: &[u8], options: &Options<'_>) -> Report {
    report(source, options, false)
}

fn report(source: &[u8], options: &Options<'_>, all: bool) -> Report {
    let mut linter = Linter::default();
    let mut error = linter.evaluate(source, options, all).err();
    let denied = error.is_none() && linter.config.error && !linter.findings.is_empty();
    if denied {
        error = Some(linter.violation());
    }
    Report { findings: linter.findings, error, denied }
}

/// Most findings that are kept.
const MAX_FINDINGS: usize = 10_000;

/// Findings as they are made, by the rules that are in force.
#[derive(Debug, Default)]
struct Linter {
    config: rules::Config,
    findings: Vec<Finding>,
}

impl Linter {
    fn report(&mut self, rule: Rule, lines: Lines, comments: &[String], detail: String) {
        if self.findings.len() < MAX_FINDINGS && self.config.applies(rule, comments) {
            self.findings.push(Finding { rule, detail, lines });
        }
    }

    fn violation(&self) -> Error {
        let mut names: Vec<&str> = Vec::new();
        for finding in &self.findings {
            if !names.contains(&finding.rule.name()) {
                names.push(finding.rule.name());
            }
        }
        Error::new(format!("lint violation found for rules: {}", names.join(", ")), None)
    }

    /// Goes through the file; `all` means every stage, otherwise those that the target needs.
    fn evaluate(&mut self, source: &[u8], options: &Options<'_>, all: bool) -> Result<evaluate::Evaluated, Error> {
        let check = match options.build_args.get("BUILDKIT_DOCKERFILE_CHECK") {
            Some(value) => Some(value.clone()),
            None => crate::directive::check(source),
        };
        if !source.is_empty() {
            self.config = rules::Config::parse(check.as_deref().unwrap_or(""))
                .map_err(|reason| Error::new(format!("failed to parse check options: {reason}"), None))?;
        }
        let file = structure::read(self, source)?;
        structure::check(self, &file);
        evaluate::evaluate(self, file, options, all)
    }
}

#[cfg(test)]
mod tests;
