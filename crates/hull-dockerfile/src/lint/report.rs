//! How reports are printed: as text for people, as JSON for programs.

use std::fmt::Write as _;

use base64::Engine as _;
use serde::Serialize;

use super::Report;
use crate::ast::Lines;
use crate::error::{Excerpt, one_line, split};

/// What a check prints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// On standard output: the findings.
    pub findings: String,
    /// On standard error: the defect.
    pub error: String,
}

#[derive(Serialize)]
struct Position {
    line: u32,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

/// Lines as JSON has them: each a range of its own.
#[derive(Serialize, Default)]
pub(super) struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

/// Most lines that are ranges of their own, and most bytes of a report: a finding shows its whole instruction.
const MAX_RANGES: u32 = 1000;
const MAX_TEXT: usize = 64 << 20;

impl From<Lines> for Location {
    fn from(lines: Lines) -> Self {
        if lines.end.saturating_sub(lines.start) > MAX_RANGES {
            let (start, end) = (Position { line: lines.start }, Position { line: lines.end });
            return Self { ranges: vec![Range { start, end }] };
        }
        let one = |line| Range { start: Position { line }, end: Position { line } };
        Self { ranges: (lines.start..=lines.end).map(one).collect() }
    }
}

#[derive(Serialize)]
struct WarningJson<'a> {
    #[serde(rename = "ruleName")]
    rule: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    url: String,
    detail: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct SourceJson<'a> {
    filename: &'a str,
    data: String,
    language: &'a str,
}

#[derive(Serialize)]
struct ErrorJson {
    message: String,
    location: Location,
}

#[derive(Serialize)]
struct ReportJson<'a> {
    warnings: Option<Vec<WarningJson<'a>>>,
    sources: [SourceJson<'a>; 1],
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson>,
}

pub(super) fn base64(source: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(source)
}

/// Pretty-printed, as it goes to standard output.
pub(super) fn pretty(value: &impl Serialize) -> String {
    // Text and numbers have nothing that could fail to be written.
    format!("\n{}\n", serde_json::to_string_pretty(value).unwrap_or_default())
}

impl Report {
    /// The report as text; `file` is how the Dockerfile is called in it.
    #[must_use]
    pub fn text(&self, file: &str, source: &[u8]) -> Printed {
        let mut findings = String::from("\n");
        match self.findings.len() {
            0 if self.error.is_some() => {}
            0 => findings.push_str("Check complete, no warnings found.\n"),
            1 => findings.push_str("Check complete, 1 warning has been found!\n"),
            count => findings.push_str(&format!("Check complete, {count} warnings have been found!\n")),
        }
        let lines = split(source);
        let mut sorted: Vec<_> = self.findings.iter().collect();
        sorted.sort_by_key(|finding| finding.lines.start);
        for finding in sorted {
            let rule = finding.rule;
            findings.push_str(&format!("\nWARNING: {}", rule.name()));
            if !rule.url().is_empty() {
                findings.push_str(&format!(" - {}", rule.url()));
            }
            let excerpt = Excerpt { file, source, lines: finding.lines };
            findings.push_str(&format!("\n{}\n", one_line(&finding.detail)));
            if findings.len() < MAX_TEXT {
                // Writing to a string does not fail.
                let _ = excerpt.write(&mut findings, &lines);
            }
        }
        if !self.findings.is_empty() && self.error.is_some() {
            findings.push('\n');
        }
        let mut error = String::new();
        if let Some(problem) = &self.error {
            let _ = writeln!(error, "ERROR: {problem}");
            if let Some(excerpt) = problem.excerpt(file, source) {
                let _ = write!(error, "{excerpt}");
            }
            error.push('\n');
        }
        Printed { findings, error }
    }

    /// The report as JSON; `file` is the Dockerfile's name.
    #[must_use]
    pub fn json(&self, file: &str, source: &[u8]) -> String {
        let warnings = self.findings.iter().map(|finding| WarningJson {
            rule: finding.rule.name(),
            description: finding.rule.description(),
            url: finding.rule.url(),
            detail: &finding.detail,
            location: finding.lines.into(),
        });
        pretty(&ReportJson {
            warnings: Some(warnings.collect::<Vec<_>>()).filter(|warnings| !warnings.is_empty()),
            sources: [SourceJson { filename: file, data: base64(source), language: "Dockerfile" }],
            error: self.error.as_ref().map(|error| ErrorJson {
                message: error.to_string(),
                location: error.lines.map(Location::from).unwrap_or_default(),
            }),
        })
    }
}
