//! What a Dockerfile offers: `--call=outline` (arguments, secrets and agents of a target) and `--call=targets`.

use std::collections::BTreeSet;

use serde::Serialize;

use super::evaluate::{Evaluated, Offer};
use super::report::{Location, base64, pretty};
use super::{Linter, Options};
use crate::ast::Lines;
use crate::error::{Error, one_line};
use crate::stages::Origin;

/// A build argument of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Name.
    pub name: String,
    /// Comment that describes it.
    pub description: String,
    /// Value, with the build arguments that were given.
    pub value: String,
    /// Where it is declared.
    pub lines: Lines,
}

/// A secret or an agent that a target uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Required {
    /// Its ID.
    pub name: String,
    /// The build fails without it.
    pub required: bool,
    /// Where it is first used.
    pub lines: Lines,
}

/// What a target offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name.
    pub name: Option<String>,
    /// Comment that describes it.
    pub description: Option<String>,
    /// Build arguments.
    pub args: Vec<Arg>,
    /// Secrets.
    pub secrets: Vec<Required>,
    /// Agents.
    pub ssh: Vec<Required>,
}

/// A stage as a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name in lower case.
    pub name: Option<String>,
    /// Comment that describes it.
    pub description: Option<String>,
    /// Its base, raw.
    pub base: String,
    /// Its platform, raw.
    pub platform: Option<String>,
    /// Where its `FROM` is.
    pub lines: Lines,
}

/// A file's targets in order; the last one is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets(pub Vec<Target>);

/// What the target offers.
///
/// # Errors
/// The defect that a build of it ends with.
pub fn outline(source: &[u8], options: &Options<'_>) -> Result<Outline, Error> {
    let evaluated = Linter::default().evaluate(source, options, false)?;
    let Evaluated { file, graph, target, offers } = evaluated;
    let stage = &file.stages[target];
    let mut outline = Outline {
        name: stage.name.as_ref().map(|name| name.to_lowercase()),
        description: stage.comment.clone(),
        ..Outline::default()
    };
    let mut seen = vec![false; offers.len()];
    let mut names = BTreeSet::new();
    let mut open = vec![target];
    // The target first, then its base, then the others: of several declarations the nearest is shown.
    while let Some(index) = open.pop() {
        if std::mem::replace(&mut seen[index], true) {
            continue;
        }
        let offer = &offers[index];
        for name in used(offer) {
            let Some(info) = offer.args.get(&name) else { continue };
            if names.insert(name.clone()) {
                let (description, value) = (info.description.clone(), info.value.clone());
                outline.args.push(Arg { name, description, value, lines: info.lines });
            }
        }
        for (from, to) in [(&offer.secrets, &mut outline.secrets), (&offer.ssh, &mut outline.ssh)] {
            for (name, required, lines) in from {
                if !to.iter().any(|other| other.name == *name) {
                    to.push(Required { name: name.clone(), required: *required, lines: *lines });
                }
            }
        }
        open.extend(graph.needs[index].iter().rev().map(|need| need.stage));
        if let Origin::Stage(base) = graph.bases[index] {
            open.push(base);
        }
    }
    // Of one line in the order in which they stand there.
    let place = |lines: Lines, name: &str| {
        let texts = source.split(|byte| *byte == b'\n').skip((lines.start as usize).saturating_sub(1));
        let text = texts.take((lines.end - lines.start) as usize + 1).map(String::from_utf8_lossy).collect::<String>();
        text.split(|c: char| c.is_whitespace() || c == '=').position(|word| word == name)
    };
    outline.args.sort_by_cached_key(|arg| (arg.lines.start, place(arg.lines, &arg.name)));
    outline.secrets.sort_by_key(|secret| secret.lines.start);
    outline.ssh.sort_by_key(|agent| agent.lines.start);
    Ok(outline)
}

/// Arguments that are used, and those that their defaults are made of.
fn used(offer: &Offer) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let mut open: Vec<String> = offer.used.iter().cloned().collect();
    while let Some(name) = open.pop() {
        if let Some(info) = offer.args.get(&name) {
            open.extend(info.of.iter().filter(|other| !used.contains(*other)).cloned());
        }
        used.insert(name);
    }
    used
}

/// A file's targets.
///
/// # Errors
/// The file cannot be parsed.
pub fn targets(source: &[u8]) -> Result<Targets, Error> {
    let (file, _) = crate::parse(source)?;
    let targets = file.stages.into_iter().map(|stage| Target {
        name: stage.name.map(|name| name.to_lowercase()),
        description: stage.comment,
        base: stage.base,
        platform: stage.platform,
        lines: stage.lines,
    });
    Ok(Targets(targets.collect()))
}

/// Columns as wide as their widest cell and `gap` spaces; the last one is as wide as it is.
fn table(rows: &[Vec<String>], gap: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0) + gap).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', widths[column] - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| one_line(cell)).collect()
}

fn is_empty(text: &Option<&str>) -> bool {
    text.is_none_or(str::is_empty)
}

#[derive(Serialize)]
struct ArgJson<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    value: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct RequiredJson<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

#[derive(Serialize)]
struct OutlineJson<'a> {
    #[serde(skip_serializing_if = "is_empty")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "is_empty")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<ArgJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<RequiredJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<RequiredJson<'a>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct TargetJson<'a> {
    #[serde(skip_serializing_if = "is_empty")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "is_empty")]
    description: Option<&'a str>,
    base: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    platform: Option<&'a str>,
    location: Location,
}

#[derive(Serialize)]
struct TargetsJson<'a> {
    targets: Vec<TargetJson<'a>>,
    sources: [String; 1],
}

impl Outline {
    /// The outline as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from("\n");
        let mut section = |rows: Vec<Vec<String>>, gap| {
            text.push_str(&table(&rows, gap));
            text.push('\n');
        };
        if self.name.is_some() || self.description.is_some() {
            let mut rows = vec![row(&["TARGET:", self.name.as_deref().unwrap_or("(default)")])];
            rows.extend(self.description.as_ref().map(|description| row(&["DESCRIPTION:", description])));
            section(rows, 1);
        }
        if !self.args.is_empty() {
            let mut rows = vec![row(&["BUILD ARG", "VALUE", "DESCRIPTION"])];
            rows.extend(self.args.iter().map(|arg| row(&[&arg.name, &arg.value, &arg.description])));
            section(rows, 3);
        }
        for (title, list) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if !list.is_empty() {
                let mut rows = vec![row(&[title, "REQUIRED"])];
                rows.extend(list.iter().map(|item| row(&[&item.name, if item.required { "true" } else { "" }])));
                section(rows, 3);
            }
        }
        text
    }

    /// The outline as JSON.
    #[must_use]
    pub fn json(&self, source: &[u8]) -> String {
        let args = self.args.iter().map(|arg| ArgJson {
            name: &arg.name,
            description: &arg.description,
            value: &arg.value,
            location: arg.lines.into(),
        });
        pretty(&OutlineJson {
            name: self.name.as_deref(),
            description: self.description.as_deref(),
            args: args.collect(),
            secrets: required(&self.secrets),
            ssh: required(&self.ssh),
            sources: [base64(source)],
        })
    }
}

fn required(items: &[Required]) -> Vec<RequiredJson<'_>> {
    let items = items.iter();
    items.map(|item| RequiredJson { name: &item.name, required: item.required, location: item.lines.into() }).collect()
}

impl Targets {
    /// The targets as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut rows = vec![row(&["TARGET", "DESCRIPTION"])];
        for (index, target) in self.0.iter().enumerate() {
            let name = match (&target.name, index + 1 == self.0.len()) {
                (None, false) => String::new(),
                (None, true) => "(default)".to_owned(),
                (Some(name), false) => name.clone(),
                (Some(name), true) => format!("{name} (default)"),
            };
            rows.push(row(&[&name, target.description.as_deref().unwrap_or("")]));
        }
        format!("\n{}", table(&rows, 1))
    }

    /// The targets as JSON.
    #[must_use]
    pub fn json(&self, source: &[u8]) -> String {
        let targets = self.0.iter().enumerate().map(|(index, target)| TargetJson {
            name: target.name.as_deref(),
            default: index + 1 == self.0.len(),
            description: target.description.as_deref(),
            base: &target.base,
            platform: target.platform.as_deref(),
            location: target.lines.into(),
        });
        pretty(&TargetsJson { targets: targets.collect(), sources: [base64(source)] })
    }
}
