//! kill -9 of `hull run`, anywhere: the next `hull` command leaves no mount, cgroup, process or directory of it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hull_testkit::{finish, leak, loops, tier};
use tempfile::TempDir;

/// A store of its own, a root file system with the probe, and a cgroup that nobody else uses.
struct Home {
    dir: TempDir,
    name: String,
}

impl Home {
    fn new() -> Option<Self> {
        if !tier::root() {
            return None;
        }
        let name = format!("hull-kill-{}x", std::process::id());
        let dir = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir().expect("temporary directory");
        let rootfs = dir.path().join("rootfs");
        for sub in ["", "proc", "dev", "sys", "tmp", "etc"] {
            std::fs::create_dir(rootfs.join(sub)).expect("create root file system");
        }
        std::fs::copy(hull_testkit::probe(), rootfs.join("probe")).expect("copy the probe");
        Some(Self { dir, name })
    }

    fn hull(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
        command.arg("--root").arg(self.dir.path().join("data")).arg("--state").arg(self.dir.path().join("run"));
        command.args(words).stdin(Stdio::null()).current_dir("/");
        command
    }

    fn run(&self, flags: &[&str]) -> Command {
        let mut command = self.hull(&["run", "--network=none", "--cgroup-parent", &self.name]);
        command.args(flags).arg("--rootfs").arg(self.dir.path().join("rootfs")).args(["/probe", "sleep", "60"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// What is left, one line each: nothing but the cgroup that the containers' groups were in.
    fn left(&self) -> Vec<String> {
        let mut lines = leak::mounts(&self.name);
        let parent = |path: &Path| path.file_name().is_some_and(|last| last.to_string_lossy() == self.name);
        let cgroups = leak::cgroups(&self.name).into_iter().filter(|path| !parent(path));
        lines.extend(cgroups.map(|path| path.display().to_string()));
        lines.extend(leak::processes(&self.name).into_iter().map(|(pid, command)| format!("process {pid} {command}")));
        for below in ["data/containers", "data/names", "run/oci", "run/live"] {
            let entries = std::fs::read_dir(self.dir.path().join(below));
            lines.extend(entries.into_iter().flatten().flatten().map(|entry| entry.path().display().to_string()));
        }
        lines
    }

    /// After the next command every container is whole or gone, and the whole ones can be removed.
    #[track_caller]
    fn assert_whole_or_gone(&self, when: &str) {
        // A monitor that has taken over goes on with the start: its container shows up, and can be removed, when that is
        // done.
        let begin = Instant::now();
        loop {
            let listed = finish(&mut self.hull(&["ps", "--all", "--quiet"])).ok();
            for id in listed.lines() {
                let removed = finish(&mut self.hull(&["rm", "--force", id]));
                let waits = removed.stderr.contains("being started") || removed.stderr.contains("No such container");
                assert!(removed.code == 0 || waits, "{when}: {}", removed.stderr);
            }
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{when}: left behind:\n{}", left.join("\n"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        leak::clear(&self.name);
    }
}

/// A sequence that is the same in every run, spread evenly over the time that a start takes.
fn delay(turn: u32) -> Duration {
    Duration::from_micros(u64::from(turn.wrapping_mul(2_654_435_761) >> 8) % 40_000)
}

#[test]
fn root_run_killed_at_any_time() {
    let Some(h) = Home::new() else { return };
    for turn in 0..loops(30) {
        for flags in [&["--rm"][..], &["--detach"], &["--detach", "--rm", "--memory", "64m"]] {
            let mut child = h.run(flags).spawn().expect("start hull");
            std::thread::sleep(delay(turn));
            child.kill().expect("kill");
            child.wait().expect("wait");
            h.assert_whole_or_gone(&format!("run {} killed after {:?}", flags.join(" "), delay(turn)));
        }
    }
}
