//! `explain`: where a container stands, in exact values and plain words.
//!
//! When something does not work, the question is whether the problem is in the namespaces, the control group or the
//! file system. [`Engine::explain`] looks at all three and at what the process may do, as the kernel shows them now, and
//! at what is on record once it has ended; `judge` says what follows from it. It only reads: nothing is run or changed,
//! and what the container could make slow (files of network file systems) is not touched.

mod gather;
mod judge;

use hull_runtime::state::Record;
use serde::Serialize;

use crate::config::Source;
use crate::error::Error;
use crate::inspect;
use crate::records::{Container, Engine, Phase, State};

/// One thing that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Fact {
    /// Such as `memory.max` or `pid`.
    pub name: String,
    /// The exact value.
    pub value: String,
    /// What it means.
    pub means: String,
}

/// What belongs together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// What is known.
    pub facts: Vec<Fact>,
}

impl Section {
    fn new(title: &'static str) -> Self {
        Self { title, facts: Vec::new() }
    }

    fn add(&mut self, name: impl Into<String>, value: impl Into<String>, means: impl Into<String>) {
        self.facts.push(Fact { name: name.into(), value: value.into(), means: means.into() });
    }
}

/// Where something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// What it sees: processes, network, names.
    Namespace,
    /// What it may use.
    Cgroup,
    /// What it reads and writes.
    FileSystem,
    /// What it may do.
    Privileges,
    /// The program itself.
    Program,
    /// Nowhere that could be seen.
    Nowhere,
}

impl Place {
    /// In a sentence.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "the namespaces",
            Self::Cgroup => "the control group",
            Self::FileSystem => "the file system",
            Self::Privileges => "the privileges",
            Self::Program => "the program itself",
            Self::Nowhere => "none of them",
        }
    }
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does not work, or does not work well.
    Problem,
    /// Who breaks out of the program has more than a container should give.
    Risk,
    /// Not usual; perhaps wanted.
    Unusual,
}

impl Severity {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Risk => "risk",
            Self::Unusual => "unusual",
        }
    }
}

/// What follows from the facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub place: Place,
    /// One sentence.
    pub text: String,
}

/// The answer to where the problem is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    /// Where it is.
    pub place: Place,
    /// Why, in one sentence.
    pub text: String,
}

/// Everything about one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// ID.
    pub id: String,
    /// Name.
    pub name: String,
    /// Image, or directory.
    pub image: String,
    /// Program and arguments.
    pub command: String,
    /// `running`, `paused`, ...
    pub state: String,
    /// Docker's status.
    pub status: String,
    /// What is known.
    pub sections: Vec<Section>,
    /// What follows, worst first.
    pub findings: Vec<Finding>,
    /// Namespace, control group or file system?
    pub answer: Answer,
}

/// What the sections are made of, and the findings too.
#[derive(Debug, Default)]
struct Known {
    stats: Option<hull_cgroup::Stats>,
    oom_kills: u64,
    frozen: bool,
    shared: Vec<&'static str>,
    effective: Vec<String>,
    root_is_root: bool,
    seccomp: Option<u32>,
    full: Vec<(String, u64)>,
    nameservers: usize,
    has_route: bool,
    limited: bool,
}

impl Engine {
    /// Looks at a container.
    ///
    /// # Errors
    /// When it has no state; what of it cannot be read is left out.
    pub fn explain(&self, container: &Container) -> Result<Report, Error> {
        let state = self.state(&container.id)?;
        let mut known = Known::default();
        let mut sections = vec![gather::life(container, &state)];
        // A record whose process has gone meanwhile is that of an ended container.
        let record = Record::load(&self.oci_root(), &container.id).ok().filter(|_| state.phase == Phase::Running);
        if record.is_some() {
            sections.push(gather::namespaces(state.pid, &mut known));
        }
        sections.push(gather::cgroup(container, record.as_ref(), &mut known));
        sections.push(gather::files(self, container, &state, &mut known));
        sections.push(gather::network(self, container, &state, &mut known));
        sections.push(gather::privileges(container, &state, &mut known));
        let findings = judge::findings(container, &state, &known);
        let answer = judge::answer(container, &state, &findings);
        let (image, paused) = match &container.config.source {
            Source::Image(name) => (name.clone(), known.frozen),
            Source::Directory(path) => (path.display().to_string(), known.frozen),
        };
        Ok(Report {
            id: container.id.clone(),
            name: container.name.clone(),
            image,
            command: container.args.join(" "),
            state: if paused { "paused".to_owned() } else { state.phase.as_str().to_owned() },
            status: status(&state, paused),
            sections,
            findings,
            answer,
        })
    }
}

fn status(state: &State, paused: bool) -> String {
    let status = inspect::status(state, std::time::SystemTime::now());
    if paused { format!("{status} (Paused)") } else { status }
}

/// Bytes for people: `64 MiB`.
fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

#[cfg(test)]
mod tests;
