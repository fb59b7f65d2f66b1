//! `cargo xtask bench cli`: how long the command line takes to answer, beside docker's and podman's.
//!
//! ```text
//! --version              nothing but the program's own start
//! ps                     of a hundred containers that run
//! __complete stop many-  what a shell asks for these names when somebody presses the tabulator
//! ```

use std::fs::{self, File};
use std::process::Command;
use std::time::{Duration, Instant};

use super::Bench;
use super::engines::{self, Engines};
use super::images::command;
use super::report::{Row, Table};
use super::stage::{Place, alternately, show};
use crate::Result;

/// Containers that run.
const CONTAINERS: usize = 100;
/// What their names begin with.
const PREFIX: &str = "many-";

/// The command line, beside others.
pub(super) const BENCH: Bench = Bench {
    word: "cli",
    fill: engines::fill,
    measure,
    apart: true,
    table: Table { programs: &["hull", "docker", "podman"], rows: ROWS },
    section: Some("command-line"),
};

const ROWS: &[Row] = &[
    ("hull-version", "`hull --version`", "hull-version", "2 ms"),
    ("docker-version", "`docker --version`", "hull-version", ""),
    ("podman-version", "`podman --version`", "hull-version", ""),
    ("hull-ps", "`hull ps` of 100 containers that run", "hull-ps", "10 ms"),
    ("docker-ps", "`docker ps`", "hull-ps", ""),
    ("podman-ps", "`podman ps`", "hull-ps", ""),
    ("hull-complete", "completion of `hull stop` with these 100 names", "hull-complete", "20 ms"),
    ("docker-complete", "of `docker stop`", "hull-complete", ""),
    ("podman-complete", "of `podman stop`", "hull-complete", ""),
];

/// One command line of an engine.
struct Work {
    name: String,
    command: Command,
    /// What its output must have.
    lines: usize,
}

fn measure(place: &Place) -> Result<()> {
    let mut engines = Engines::enter(place)?;
    engines.peers()?;
    for name in engines.names() {
        for number in 0..CONTAINERS {
            engines.run(name, &format!("run -d --name {PREFIX}{number} --network none app:1 sleep 100000"))?;
        }
    }
    let mut works = works(&engines);
    let took = alternately(works.len(), place.runs, place.pause, |index| once(&mut works[index]))?;
    for (work, took) in works.iter().zip(&took) {
        show(&work.name, "us", took);
    }
    engines.versions()
}

/// What is measured: the same of each engine beside each other.
fn works(engines: &Engines) -> Vec<Work> {
    let mut works = Vec::new();
    for engine in engines.names() {
        // Options before it would be parsed; nobody writes them there.
        let program = if engine == "hull" { format!("{}/hull", engines.stage().display()) } else { engine.to_owned() };
        works.push(Work {
            name: format!("{engine}-version"),
            command: command(&format!("{program} --version")),
            lines: 1,
        });
    }
    for engine in engines.names() {
        let command = engines.command(engine, "ps");
        works.push(Work { name: format!("{engine}-ps"), command, lines: CONTAINERS + 1 });
    }
    for engine in engines.names() {
        let words = format!("stop {PREFIX}");
        let command = match engine {
            "hull" => engines.completion(&words),
            _ => engines.command(engine, &format!("__complete {words}")),
        };
        works.push(Work { name: format!("{engine}-complete"), command, lines: CONTAINERS + 1 });
    }
    works
}

/// Runs a command line, from spawn to end, and fails if it fails or says less than it should.
fn once(work: &mut Work) -> Result<Duration> {
    work.command.stdout(File::create("stdout")?).stderr(File::create("stderr")?);
    work.command.env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
    let begin = Instant::now();
    let status = work.command.status().map_err(|error| format!("{}: {error}", work.name))?;
    let took = begin.elapsed();
    let lines = fs::read_to_string("stdout")?.lines().count();
    if !status.success() || lines < work.lines {
        let reason = fs::read_to_string("stderr")?;
        return Err(format!("{}: {status}, {lines} lines: {}", work.name, reason.trim()).into());
    }
    Ok(took)
}
