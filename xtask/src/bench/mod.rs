//! `cargo xtask bench`: Hull and the programs that it stands beside, measured alternately in one run.
//!
//! ```text
//! xtask bench WORD ── builds the release binary, fills a stage directory, then starts in it
//!   └─ xtask bench inside WORD ── in a mount namespace (mostly also a network namespace) of its own, or in a virtual
//!        │                         machine: runs every contender in turn, prints `bench NAME UNIT FIGURE...`
//!        └─ contender
//! docs/benchmarks.md ◄── the table of these lines
//! ```
//!
//! Every contender is spawned the same way by the same small process, in the same namespaces and view of the cgroups,
//! with the same pause before it. The pause is part of the measurement: on cgroup v1 the first `cgroup.procs` write after
//! one waits for a grace period of the kernel, as it does for a user who types a command.

mod api;
mod build;
mod bundle;
mod cli;
mod engines;
mod images;
mod life;
mod neighbours;
mod network;
mod pull;
mod report;
mod stage;
mod starts;
mod traffic;

use std::path::{Path, PathBuf};

use crate::{Result, release, workspace};
use report::Table;
use stage::{Place, Stage};

const USAGE: &str = "\
usage: cargo xtask bench [starts|images|pull|network|life|neighbours|build|api|cli] [OPTION...]
  starts             measure starting containers; so without a word
  images             measure loading, removing and mounting images
  pull               measure pulling an image from a registry on this machine
  network            measure containers on bridges beside docker and podman, in a network namespace
  life               measure detached containers: memory, exec, lists, a thousand at once
  neighbours         of these only what a container's requests take beside greedy ones; nothing is written
  build              measure builds beside BuildKit (docker's) and buildah
  api                measure Docker's client and plain requests through hull serve beside dockerd
  cli                measure the command line's answers beside docker's and podman's
  --runs N           runs of each contender (default 40, at least 30)
  --pause MS         pause before each run (default 50)
  --peers-root DIR   a root directory with the peers in it (default $HULL_PEERS_ROOT, else those in PATH)
  --binary FILE      measure this binary instead of building one
  --vm               measure starts in a virtual machine with pure cgroup v2
  --dry              print the table, leave docs/benchmarks.md as it is";

/// One thing that can be measured.
struct Bench {
    /// The word that asks for it.
    word: &'static str,
    /// Makes what is measured on the stage; what it is, in words for the table.
    fill: fn(&Stage) -> Result<String>,
    /// What the process on the stage does: it prints the lines that are the table's.
    measure: fn(&Place) -> Result<()>,
    /// Whether that process has a network namespace of its own.
    apart: bool,
    table: Table,
    /// The table's place in docs/benchmarks.md, if it has one.
    section: Option<&'static str>,
}

/// All of them; without a word it is the first.
const BENCHES: [&Bench; 9] = [
    &starts::BENCH,
    &images::BENCH,
    &pull::BENCH,
    &network::BENCH,
    &life::BENCH,
    &neighbours::BENCH,
    &build::BENCH,
    &api::BENCH,
    &cli::BENCH,
];

fn of_word(word: &str) -> Option<&'static Bench> {
    BENCHES.into_iter().find(|bench| bench.word == word)
}

/// How to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Options {
    runs: usize,
    pause: u64,
    peers_root: Option<PathBuf>,
    binary: Option<PathBuf>,
    vm: bool,
    dry: bool,
}

/// Runs a measurement, or its part in a process of its own.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match arguments {
        [word, ..] if word == "--help" || word == "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        [word, rest @ ..] if word == "serve" => traffic::serve(rest),
        [word, rest @ ..] if word == "talk" => traffic::talk(rest),
        [word, what, rest @ ..] if word == "inside" => {
            let bench = of_word(what).ok_or_else(|| format!("inside {what}: unknown"))?;
            (bench.measure)(&Place::new(rest)?)
        }
        [word, rest @ ..] if of_word(word).is_some() => run_one(of_word(word).unwrap_or(BENCHES[0]), &parse(rest)?),
        rest => run_one(BENCHES[0], &parse(rest)?),
    }
}

fn run_one(bench: &Bench, options: &Options) -> Result<()> {
    if options.vm && bench.word != starts::BENCH.word {
        return Err(format!("--vm: only starts are measured in a virtual machine, not {}", bench.word).into());
    }
    let binary = options.binary.clone().map_or_else(release::build, Ok)?;
    let size = std::fs::metadata(&binary)?.len();
    let stage = Stage::new(options.peers_root.as_deref(), &binary)?;
    let about = (bench.fill)(&stage)?;
    let output = if options.vm { stage.in_machine(bench, options) } else { stage.in_namespace(bench, options) }?;
    let table = report::table(&bench.table, &report::read(&output)?, options, size, &about);
    println!("{table}");
    let section = bench.section.map(|section| if options.vm { "cgroup-v2" } else { section });
    match section {
        Some(section) if !options.dry => report::write(&workspace().join("docs/benchmarks.md"), section, &table),
        _ => Ok(()),
    }
}

fn parse(arguments: &[String]) -> Result<Options> {
    let peers_root = std::env::var_os("HULL_PEERS_ROOT").map(PathBuf::from);
    let mut options = Options { runs: 40, pause: 50, peers_root, binary: None, vm: false, dry: false };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument}: value missing\n{USAGE}"));
        match argument.as_str() {
            "--runs" => options.runs = value()?.parse::<usize>()?.max(30),
            "--pause" => options.pause = value()?.parse()?,
            "--peers-root" => options.peers_root = Some(value()?.into()),
            "--binary" => options.binary = Some(value()?.into()),
            "--vm" => options.vm = true,
            "--dry" => options.dry = true,
            other => return Err(format!("{other}: unknown option\n{USAGE}").into()),
        }
    }
    Ok(options)
}

/// Makes the bundles that are measured in a directory of their own.
pub(crate) fn fill_bundles(stage: &Path) -> Result<()> {
    bundle::fill(stage, stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Result<Options> {
        parse(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn too_few_runs_become_thirty() {
        assert_eq!(options(&["--runs", "3"]).unwrap().runs, 30);
        assert_eq!(options(&["--runs", "100", "--dry"]).unwrap().runs, 100);
    }

    #[test]
    fn unknown_options_and_missing_values_are_errors() {
        assert!(options(&["--fast"]).unwrap_err().to_string().starts_with("--fast: unknown option"));
        assert!(options(&["--runs"]).unwrap_err().to_string().starts_with("--runs: value missing"));
        assert!(options(&["--runs", "x"]).is_err());
    }

    #[test]
    fn usage_names_every_measurement() {
        let words: Vec<&str> = BENCHES.iter().map(|bench| bench.word).collect();
        assert!(USAGE.contains(&format!("[{}]", words.join("|"))), "{words:?}");
        for word in words {
            assert!(USAGE.lines().any(|line| line.starts_with(&format!("  {word} "))), "{word}");
        }
    }
}
