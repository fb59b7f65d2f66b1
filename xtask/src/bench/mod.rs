//! `cargo xtask bench`: Hull and the runtimes that it stands beside, measured alternately in one run.
//!
//! ```text
//! xtask bench ── builds the release binary, fills a stage directory, then starts in it
//!   └─ xtask bench inside ── in a mount namespace of its own (or in a virtual machine): runs every contender in turn
//!        └─ contender            and prints one line `bench NAME FIGURE...` for each measurement
//! ```
//!
//! Every contender is spawned the same way by the same small process, in the same mount namespace and view of the
//! cgroups, with the same pause before it. The pause is part of the measurement: on cgroup v1 the first `cgroup.procs`
//! write after one waits for a grace period of the kernel, as it does for a user who types a command.

mod api;
mod build;
mod bundle;
mod cli;
mod engines;
mod images;
mod inside;
mod life;
mod neighbours;
mod network;
mod pull;
mod report;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Result, release, workspace};

const USAGE: &str = "\
usage: cargo xtask bench [images|pull|network|life|neighbours|build|api|cli] [OPTION...]
  images             measure loading, removing and mounting images instead of starting containers
  pull               measure pulling an image from a registry on this machine
  network            measure containers on bridges beside docker and podman, in a network namespace
  life               measure detached containers: memory, exec, lists, a thousand at once
  neighbours         of these only what a container's requests take beside greedy ones; nothing is written
  build              measure builds beside BuildKit (docker's) and buildah
  api                measure Docker's client and plain requests through hull serve beside dockerd
  cli                measure the command line's answers beside docker's and podman's
  --runs N           runs of each contender (default 40, at least 30)
  --pause MS         pause before each run (default 50)
  --peers-root DIR   a root directory with crun and runc in it (default $HULL_PEERS_ROOT, else those in PATH)
  --binary FILE      measure this binary instead of building one
  --vm               measure in a virtual machine with pure cgroup v2
  --dry              print the table, leave docs/benchmarks.md as it is";

/// What to measure, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Options {
    runs: usize,
    pause: u64,
    peers_root: Option<PathBuf>,
    binary: Option<PathBuf>,
    vm: bool,
    dry: bool,
}

/// Runs the benchmark.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match arguments.first().map(String::as_str) {
        Some("inside") => return inside::run(&arguments[1..]),
        Some("inside-images") => return images::inside(&arguments[1..]),
        Some("inside-pull") => return pull::inside(&arguments[1..]),
        Some("inside-network") => return network::inside(&arguments[1..]),
        Some("inside-build") => return build::inside(&arguments[1..]),
        Some("inside-api") => return api::inside(&arguments[1..]),
        Some("inside-cli") => return cli::inside(&arguments[1..]),
        Some("inside-life") => return life::inside(&arguments[1..]),
        Some("serve") => return traffic::serve(&arguments[1..]),
        Some("talk") => return traffic::talk(&arguments[1..]),
        Some("network") => return network::run(&parse(&arguments[1..])?),
        Some("api") => return api::run(&parse(&arguments[1..])?),
        Some("build") => return build::run(&parse(&arguments[1..])?),
        Some("cli") => return cli::run(&parse(&arguments[1..])?),
        Some("inside-neighbours") => return life::inside_neighbours(&arguments[1..]),
        Some("neighbours") => return life::neighbours(&parse(&arguments[1..])?),
        Some("life") => return life::run(&parse(&arguments[1..])?),
        Some("pull") => return pull::run(&parse(&arguments[1..])?),
        Some("images") => return images::run(&parse(&arguments[1..])?),
        Some("--help" | "-h") => {
            println!("{USAGE}");
            return Ok(());
        }
        _ => {}
    }
    let options = parse(arguments)?;
    let binary = options.binary.clone().map_or_else(release::build, Ok)?;
    let stage = Stage::new(options.peers_root.as_deref())?;
    let output = stage
        .fill(&binary)
        .and_then(|()| if options.vm { in_machine(&stage, &options) } else { in_namespace(&stage, &options) });
    let figures = report::read(&output?)?;
    let size = std::fs::metadata(&binary)?.len();
    let table = report::table(&figures, &options, size);
    println!("{table}");
    if !options.dry {
        let section = if options.vm { "cgroup-v2" } else { "host" };
        report::write(&workspace().join("docs/benchmarks.md"), section, &table)?;
    }
    Ok(())
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

/// A directory on the disk of the root that the contenders see, removed at the end.
#[derive(Debug)]
struct Stage {
    /// The root directory that the contenders will have.
    root: PathBuf,
    /// The stage as seen from here.
    path: PathBuf,
}

impl Stage {
    fn new(root: Option<&Path>) -> Result<Self> {
        let root = std::fs::canonicalize(root.unwrap_or(Path::new("/")))?;
        let path = root.join("var/tmp").join(format!("hull-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self { root, path })
    }

    /// The stage as the contenders see it.
    fn inner(&self) -> PathBuf {
        Path::new("/").join(self.path.strip_prefix(&self.root).unwrap_or(&self.path))
    }

    /// Copies the binary and this program, and makes the bundles.
    fn fill(&self, binary: &Path) -> Result<()> {
        std::fs::copy(binary, self.path.join("hull"))?;
        std::fs::copy(std::env::current_exe()?, self.path.join("xtask"))?;
        bundle::fill(&self.path, &self.inner())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("{}: {error}", self.path.display());
        }
    }
}

/// Measures on this machine, in a mount namespace where the empty v2 hierarchy of a hybrid host is not seen, because
/// crun refuses to start beside it.
fn in_namespace(stage: &Stage, options: &Options) -> Result<String> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(stage.path.join("xtask")).args(["bench", "inside"]);
    command.arg(&stage.root).arg(stage.inner()).args([options.runs.to_string(), options.pause.to_string()]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("measuring: {}", output.status).into()) }
}

/// Measures in a virtual machine that boots over the same root directory.
fn in_machine(stage: &Stage, options: &Options) -> Result<String> {
    let vm = hull_testkit::vm::Vm::new().ok_or("--vm needs user-mode-linux and a static busybox")?;
    let vm = vm.root(&stage.root, &stage.path).limit(std::time::Duration::from_secs(900));
    let script = format!(
        "{0}/xtask bench inside / {0} {1} {2} || echo 'measuring failed'",
        stage.inner().display(),
        options.runs,
        options.pause
    );
    let console = vm.run(&script).text;
    if console.contains("measuring failed") { Err(format!("in the machine:\n{console}").into()) } else { Ok(console) }
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
}
