//! `cargo xtask bench cli`: how long the command line takes to answer, beside docker's and podman's.
//!
//! ```text
//! --version              nothing but the program's own start
//! ps                     of a hundred containers that run
//! __complete stop many-  what a shell asks for these names when somebody presses the tabulator
//! ```

use std::fs::{self, File};
use std::process::Command;
use std::time::Instant;

use super::engines::{self, Engines, micros, show};
use super::images::command;
use super::{Options, report};
use crate::{Result, workspace};

/// Containers that run.
const CONTAINERS: usize = 100;
/// What their names begin with.
const PREFIX: &str = "many-";

pub(super) fn run(options: &Options) -> Result<()> {
    let (output, size) = engines::measure(options, "inside-cli")?;
    let table = report::command_line(&report::read(&output)?, options, size);
    println!("{table}");
    if !options.dry {
        report::write(&workspace().join("docs/benchmarks.md"), "command-line", &table)?;
    }
    Ok(())
}

/// One command line of an engine.
struct Work {
    name: String,
    command: Command,
    /// What its output must have.
    lines: usize,
}

/// `bench inside-cli ROOT STAGE RUNS PAUSE`, in a network namespace of its own.
pub(super) fn inside(arguments: &[String]) -> Result<()> {
    let [root, stage, runs, pause] = arguments else { return Err("inside-cli: wrong arguments".into()) };
    let runs = runs.parse()?;
    let mut engines = Engines::enter(root, stage, pause)?;
    engines.peers()?;
    for name in engines.names() {
        for number in 0..CONTAINERS {
            engines.run(name, &format!("run -d --name {PREFIX}{number} --network none app:1 sleep 100000"))?;
        }
    }
    let mut works = works(&engines);
    let mut took = vec![Vec::with_capacity(runs); works.len()];
    for round in 0..=runs {
        for offset in 0..works.len() {
            let index = (round + offset) % works.len();
            std::thread::sleep(engines.pause());
            let time = once(&mut works[index])?;
            // The first round fills caches.
            if round > 0 {
                took[index].push(time);
            }
        }
    }
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
fn once(work: &mut Work) -> Result<f64> {
    work.command.stdout(File::create("stdout")?).stderr(File::create("stderr")?);
    work.command.env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
    let begin = Instant::now();
    let status = work.command.status().map_err(|error| format!("{}: {error}", work.name))?;
    let took = micros(begin.elapsed());
    let lines = fs::read_to_string("stdout")?.lines().count();
    if !status.success() || lines < work.lines {
        let reason = fs::read_to_string("stderr")?;
        return Err(format!("{}: {status}, {lines} lines: {}", work.name, reason.trim()).into());
    }
    Ok(took)
}
