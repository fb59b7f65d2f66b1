//! `cargo xtask bench`, the measurement without a name: starting containers, beside crun and runc, from the same bundles.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::report::{Row, Table};
use super::stage::{Place, Stage, alternately, in_machine, machine, micros, show, version};
use super::{Bench, bundle};
use crate::Result;

/// Containers of the detached batch.
const BATCH: usize = 20;

/// One of the commands measured; `{id}` in its arguments becomes an ID of its own each time.
#[derive(Debug)]
struct Contender {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Contender {
    fn new(name: &'static str, program: &Path, arguments: &str) -> Self {
        let arguments = arguments.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        Self { name, program: program.to_path_buf(), arguments }
    }

    fn words(&self, id: &str) -> Vec<String> {
        self.arguments.iter().map(|word| word.replace("{id}", id)).collect()
    }

    /// Runs it once, from spawn to the end, and fails if it fails.
    fn run(&self, id: &str) -> Result<Duration> {
        let mut command = Command::new(&self.program);
        command.args(self.words(id)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let begin = Instant::now();
        let status = command.status()?;
        let took = begin.elapsed();
        if status.success() { Ok(took) } else { Err(self.complaint(id, &status.to_string())) }
    }

    /// What the contender says when it fails, from one more run.
    fn complaint(&self, id: &str, status: &str) -> Box<dyn std::error::Error> {
        let again = Command::new(&self.program).args(self.words(&format!("{id}-again"))).stdin(Stdio::null()).output();
        let said = again.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default();
        format!("{}: {status}: {} {:?}: {said}", self.name, self.program.display(), self.words(id)).into()
    }

    /// The most memory that the starting process or one that it waited for had at a time, in KiB.
    fn peak(&self, id: &str) -> Result<f64> {
        let output = Command::new("/bin/busybox")
            .args(["time", "-f", "%M"])
            .arg(&self.program)
            .args(self.words(id))
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        said.lines().last().and_then(|line| line.trim().parse().ok()).ok_or_else(|| self.complaint(id, &said))
    }
}

/// Starts, beside other runtimes.
pub(super) const BENCH: Bench = Bench {
    word: "starts",
    fill,
    measure,
    apart: false,
    table: Table { programs: &["hull", "crun", "runc"], rows: ROWS },
    section: Some("host"),
};

const ROWS: &[Row] = &[
    ("hull-plain", "`hull oci run` of `true`, no seccomp", "crun-plain", ""),
    ("crun-plain", "`crun run`, no seccomp", "crun-plain", ""),
    ("runc-plain", "`runc run`, no seccomp", "crun-plain", ""),
    ("hull-seccomp", "`hull oci run` of `true`, default profile", "crun-seccomp", ""),
    ("crun-seccomp", "`crun run`, default profile", "crun-seccomp", ""),
    ("runc-seccomp", "`runc run`, default profile", "crun-seccomp", ""),
    ("hull-run", "`hull run --rm --network none`, default profile, the engine's whole job", "crun-plain", ""),
    ("hull-run-d", "20 × `hull run -d`", "crun-run-d", ""),
    ("crun-run-d", "20 × `crun run --detach`", "crun-run-d", ""),
    ("hull-rm", "20 × `hull rm -f`", "crun-rm", ""),
    ("crun-rm", "20 × `crun delete --force`", "crun-rm", ""),
    ("hull-plain-peak", "peak memory of `hull oci run`, no seccomp", "crun-plain-peak", ""),
    ("crun-plain-peak", "of `crun run`", "crun-plain-peak", ""),
    ("runc-plain-peak", "of `runc run`", "crun-plain-peak", ""),
    ("hull-seccomp-peak", "of `hull oci run`, default profile", "crun-seccomp-peak", ""),
    ("crun-seccomp-peak", "of `crun run`, default profile", "crun-seccomp-peak", ""),
    ("runc-seccomp-peak", "of `runc run`, default profile", "crun-seccomp-peak", ""),
    ("hull-run-peak", "of `hull run --rm`", "crun-plain-peak", ""),
];

fn fill(stage: &Stage) -> Result<String> {
    bundle::fill(&stage.path, &stage.inner())?;
    Ok(String::new())
}

fn measure(place: &Place) -> Result<()> {
    place.enter()?;
    let stage = &place.stage;
    let peers = Peers::find(stage)?;
    let contenders = peers.contenders(stage);
    let mut run = 0;
    let took = alternately(contenders.len(), place.runs, place.pause, |index| {
        run += 1;
        contenders[index].run(&format!("bench-{run}"))
    })?;
    for (contender, took) in contenders.iter().zip(&took) {
        show(contender.name, "us", took);
        let peaks = (0..3).map(|index| contender.peak(&format!("peak-{index}"))).collect::<Result<Vec<_>>>()?;
        show(&format!("{}-peak", contender.name), "KiB", &peaks);
    }
    batches(&peers, stage)?;
    for (name, program) in &peers.programs {
        version(name, program)?;
    }
    machine()
}

/// The contenders' programs and where each keeps its state.
#[derive(Debug)]
struct Peers {
    hull: PathBuf,
    programs: Vec<(&'static str, PathBuf)>,
}

impl Peers {
    fn find(stage: &Path) -> Result<Self> {
        let hull = stage.join("hull");
        let mut programs = vec![("hull", hull.clone())];
        for name in ["crun", "runc"] {
            let places = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];
            let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file());
            programs.extend(found.map(|path| (name, path)));
        }
        if programs.len() == 1 { Err("neither crun nor runc is installed".into()) } else { Ok(Self { hull, programs }) }
    }

    fn contenders(&self, stage: &Path) -> Vec<Contender> {
        let stage = stage.display();
        let mut contenders = Vec::new();
        for (name, program) in &self.programs {
            let (global, plain, seccomp) = match *name {
                "hull" => ("oci --root /run/bench/hull", "hull-plain", "hull-seccomp"),
                "crun" => ("--root /run/bench/crun", "crun-plain", "crun-seccomp"),
                _ => ("--root /run/bench/runc", "runc-plain", "runc-seccomp"),
            };
            contenders.push(Contender::new(plain, program, &format!("{global} run --bundle {stage}/plain {{id}}")));
            contenders.push(Contender::new(seccomp, program, &format!("{global} run --bundle {stage}/seccomp {{id}}")));
        }
        let run = format!("{} run --rm --network none --rootfs {stage}/rootfs true", engine(&stage.to_string()));
        contenders.push(Contender::new("hull-run", &self.hull, &run));
        contenders
    }
}

/// The engine's global flags: its data on the stage, or in memory where the machine's disk is read-only; its run-time
/// state in /run.
fn engine(stage: &str) -> String {
    let data = if in_machine() { "/run/bench/data".to_owned() } else { format!("{stage}/data") };
    format!("--root {data} --state /run/bench/engine")
}

/// Starts and removes [`BATCH`] detached containers, by the engine and by crun.
fn batches(peers: &Peers, stage: &Path) -> Result<()> {
    let hull = engine(&stage.display().to_string());
    let sleep = format!("{hull} run -d --name {{id}} --network none --rootfs {}/rootfs sleep 1000", stage.display());
    let mut pairs = vec![(
        Contender::new("hull-run-d", &peers.hull, &sleep),
        Contender::new("hull-rm", &peers.hull, &format!("{hull} rm -f {{id}}")),
    )];
    if let Some((_, crun)) = peers.programs.iter().find(|(name, _)| *name == "crun") {
        let global = "--root /run/bench/crun";
        let run = format!("{global} run --detach --bundle {}/sleep {{id}}", stage.display());
        pairs.push((
            Contender::new("crun-run-d", crun, &run),
            Contender::new("crun-rm", crun, &format!("{global} delete --force {{id}}")),
        ));
    }
    for _ in 0..3 {
        for (start, remove) in &pairs {
            for contender in [start, remove] {
                let begin = Instant::now();
                for index in 0..BATCH {
                    contender.run(&format!("batch-{index}"))?;
                }
                show(contender.name, "us", &[micros(begin.elapsed())]);
            }
        }
    }
    Ok(())
}
