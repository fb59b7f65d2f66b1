//! The measuring process: enters the contenders' root, runs them in turn, and prints what each run took.
//!
//! A line of its output is `bench NAME UNIT VALUE...`, in microseconds or KiB; what is no such line is not read.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

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
    fn peak(&self, id: &str) -> Result<u64> {
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

/// `bench inside ROOT STAGE RUNS PAUSE`.
pub(super) fn run(arguments: &[String]) -> Result<()> {
    let [root, stage, runs, pause] = arguments else { return Err("inside: wrong arguments".into()) };
    let (runs, pause) = (runs.parse::<usize>()?, Duration::from_millis(pause.parse()?));
    enter(Path::new(root))?;
    let stage = Path::new(stage);
    let peers = Peers::find(stage)?;
    let contenders = peers.contenders(stage);
    for contender in &contenders {
        contender.run("warm-1")?;
        contender.run("warm-2")?;
    }
    let mut took = vec![Vec::with_capacity(runs); contenders.len()];
    for round in 0..runs {
        for offset in 0..contenders.len() {
            // Another one begins each round, so that nobody always follows the same neighbour.
            let index = (round + offset) % contenders.len();
            std::thread::sleep(pause);
            took[index].push(contenders[index].run(&format!("bench-{round}-{index}"))?);
        }
    }
    for (contender, took) in contenders.iter().zip(&took) {
        print("us", contender.name, took.iter().map(|took| took.as_micros().to_string()));
        let peaks = (0..3).map(|index| contender.peak(&format!("peak-{index}"))).collect::<Result<Vec<_>>>()?;
        print("KiB", contender.name, peaks.iter().map(u64::to_string));
    }
    batches(&peers, stage)?;
    for (name, program) in &peers.programs {
        let output = Command::new(program).arg("--version").output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        println!("version {name} {}", said.lines().next().unwrap_or_default());
    }
    println!("version kernel {}", std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    Ok(())
}

fn print(unit: &str, name: &str, values: impl Iterator<Item = String>) {
    println!("bench {name} {unit} {}", values.collect::<Vec<_>>().join(" "));
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

/// Whether this is the virtual machine's init, which left the stage here.
fn in_machine() -> bool {
    Path::new("/run/vm").exists()
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
                print("us", contender.name, std::iter::once(begin.elapsed().as_micros().to_string()));
            }
        }
    }
    Ok(())
}

/// Makes `root` the root directory of this mount namespace, without the v2 hierarchy of a hybrid host.
pub(super) fn enter(root: &Path) -> Result<()> {
    if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        rustix::mount::unmount("/sys/fs/cgroup/unified", UnmountFlags::DETACH)?;
    }
    if root != Path::new("/") {
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        rustix::mount::mount_bind(root, root)?;
        rustix::mount::mount("proc", root.join("proc"), "proc", MountFlags::empty(), None)?;
        rustix::mount::mount_bind_recursive("/sys", root.join("sys"))?;
        rustix::mount::mount_bind_recursive("/dev", root.join("dev"))?;
        rustix::mount::mount("tmpfs", root.join("run"), "tmpfs", MountFlags::empty(), None)?;
        std::env::set_current_dir(root)?;
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        std::env::set_current_dir("/")?;
    } else if !in_machine() {
        rustix::mount::mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None)?;
    }
    std::fs::create_dir_all("/run/bench")?;
    Ok(())
}
