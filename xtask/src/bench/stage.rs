//! The directory in which a measurement happens, and the process in it that measures.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::{Bench, Options};
use crate::Result;

/// A directory on the disk of the root that the contenders see, removed at the end.
#[derive(Debug)]
pub(super) struct Stage {
    /// The root directory that the contenders will have.
    root: PathBuf,
    /// The stage as seen from here.
    pub(super) path: PathBuf,
}

impl Stage {
    /// Makes one with the binary that is measured and this program in it.
    pub(super) fn new(root: Option<&Path>, binary: &Path) -> Result<Self> {
        let root = std::fs::canonicalize(root.unwrap_or(Path::new("/")))?;
        let path = root.join("var/tmp").join(format!("hull-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        let stage = Self { root, path };
        std::fs::copy(binary, stage.path.join("hull"))?;
        std::fs::copy(std::env::current_exe()?, stage.program())?;
        Ok(stage)
    }

    /// The stage as the contenders see it.
    pub(super) fn inner(&self) -> PathBuf {
        Path::new("/").join(self.path.strip_prefix(&self.root).unwrap_or(&self.path))
    }

    /// This program's copy, which measures.
    pub(super) fn program(&self) -> PathBuf {
        self.path.join("xtask")
    }

    /// Measures on this machine, in a mount namespace where the empty v2 hierarchy of a hybrid host is not seen, because
    /// crun refuses to start beside it. What the measuring process printed.
    pub(super) fn in_namespace(&self, bench: &Bench, options: &Options) -> Result<String> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]).args(bench.apart.then_some("--net"));
        command.arg(self.program()).args(["bench", "inside", bench.word]).arg(&self.root).arg(self.inner());
        command.args([options.runs.to_string(), options.pause.to_string()]);
        // The namespace is the measurement's own: cargo's setting for tests does not concern it.
        command.env("HULL_DEFAULT_NETWORK", "bridge");
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(format!("measuring: {}; measured before:\n{text}", output.status).into())
    }

    /// Measures in a virtual machine that boots over the same root directory.
    pub(super) fn in_machine(&self, bench: &Bench, options: &Options) -> Result<String> {
        let vm = hull_testkit::vm::Vm::new().ok_or("--vm needs user-mode-linux and a static busybox")?;
        let vm = vm.root(&self.root, &self.path).limit(Duration::from_secs(900));
        let (inner, Options { runs, pause, .. }) = (self.inner(), options);
        let script = format!(
            "{0}/xtask bench inside {1} / {0} {runs} {pause} || echo 'measuring failed'",
            inner.display(),
            bench.word
        );
        let console = vm.run(&script).text;
        if console.contains("measuring failed") {
            Err(format!("in the machine:\n{console}").into())
        } else {
            Ok(console)
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("{}: {error}", self.path.display());
        }
    }
}

/// Where and how the measuring process works.
#[derive(Debug)]
pub(super) struct Place {
    /// The root directory that the contenders will have.
    pub(super) root: PathBuf,
    /// The stage as seen in it.
    pub(super) stage: PathBuf,
    pub(super) runs: usize,
    /// The pause before each run.
    pub(super) pause: Duration,
}

impl Place {
    /// From the words `ROOT STAGE RUNS PAUSE`.
    pub(super) fn new(words: &[String]) -> Result<Self> {
        let [root, stage, runs, pause] = words else { return Err("inside: ROOT STAGE RUNS PAUSE are wanted".into()) };
        Ok(Self {
            root: root.into(),
            stage: stage.into(),
            runs: runs.parse()?,
            pause: Duration::from_millis(pause.parse()?),
        })
    }

    /// Makes the root the root directory of this mount namespace, without the v2 hierarchy of a hybrid host.
    pub(super) fn enter(&self) -> Result<()> {
        if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
            rustix::mount::unmount("/sys/fs/cgroup/unified", UnmountFlags::DETACH)?;
        }
        let root = &self.root;
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
}

/// Whether this is the virtual machine's init, which left the stage here.
pub(super) fn in_machine() -> bool {
    Path::new("/run/vm").exists()
}

/// Runs each of `count` works once in a round, after a pause, another one beginning each round so that nobody always
/// follows the same neighbour; the times of each in microseconds. The first round fills caches and is not counted.
pub(super) fn alternately(
    count: usize,
    rounds: usize,
    pause: Duration,
    mut work: impl FnMut(usize) -> Result<Duration>,
) -> Result<Vec<Vec<f64>>> {
    let mut took = vec![Vec::with_capacity(rounds); count];
    for round in 0..=rounds {
        for offset in 0..count {
            let index = (round + offset) % count;
            std::thread::sleep(pause);
            let time = work(index)?;
            if round > 0 {
                took[index].push(micros(time));
            }
        }
    }
    Ok(took)
}

/// Prints measurements of one contender, as [`super::report::read`] reads them.
pub(super) fn show(name: &str, unit: &str, values: &[f64]) {
    let values: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
    println!("bench {name} {unit} {}", values.join(" "));
}

/// A time as the table's lines have it.
pub(super) fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

/// Prints the first line of what a program says of itself.
pub(super) fn version(name: &str, program: impl AsRef<std::ffi::OsStr>) -> Result<()> {
    let output = Command::new(program).arg("--version").output()?;
    println!("version {name} {}", String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default());
    Ok(())
}

/// Prints the kernel's version and the machine's load.
pub(super) fn machine() -> Result<()> {
    println!("version kernel {}", std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    println!("version load {}", std::fs::read_to_string("/proc/loadavg")?.trim());
    Ok(())
}

/// Whether a program is there.
pub(super) fn has(name: &str) -> bool {
    Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}
