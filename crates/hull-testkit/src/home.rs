//! A data directory of its own with a root file system, for tests of `hull`'s own commands.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Finished, finish, leak, probe, tier};

/// A data directory, a state directory and a root file system with the probe; dropping it kills and removes what is left.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
    name: String,
    hull: PathBuf,
}

impl Home {
    /// A home for this binary, or `None` with a printed skip when not root.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(hull: impl Into<PathBuf>) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !tier::root() {
            return None;
        }
        let name = format!("hull-home-{}-{}x", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir().expect("temporary directory");
        let rootfs = dir.path().join("rootfs");
        for sub in ["", "proc", "dev", "sys", "tmp", "etc"] {
            std::fs::create_dir(rootfs.join(sub)).expect("create root file system");
        }
        std::fs::copy(probe(), rootfs.join("probe")).expect("copy the probe");
        Some(Self { dir, name, hull: hull.into() })
    }

    /// A text that is in every path, cgroup and command line of this home.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `hull --root ... --state ... WORDS`, without input.
    #[must_use]
    pub fn hull(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.hull);
        command.arg("--root").arg(self.dir.path().join("data")).arg("--state").arg(self.dir.path().join("run"));
        command.args(words).stdin(Stdio::null()).current_dir("/");
        command
    }

    /// `hull VERB --network none --cgroup-parent NAME FLAGS --rootfs DIR /probe ARGS`; the verb is `run` or `create`.
    #[must_use]
    pub fn container(&self, verb: &str, flags: &[&str], args: &[&str]) -> Command {
        let mut command = self.hull(&[verb, "--network=none", "--cgroup-parent", &self.name]);
        command.args(flags).arg("--rootfs").arg(self.dir.path().join("rootfs")).arg("/probe").args(args);
        command
    }

    /// Runs `hull WORDS` to its end.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Finished {
        finish(&mut self.hull(words))
    }

    /// Starts a container in the background and gives its ID.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn detached(&self, flags: &[&str], args: &[&str]) -> String {
        let mut words = vec!["-d"];
        words.extend(flags);
        finish(&mut self.container("run", &words, args)).ok().text().to_owned()
    }

    /// A container's field of `inspect`.
    ///
    /// # Panics
    /// When there is no such container.
    #[track_caller]
    #[must_use]
    pub fn field(&self, container: &str, template: &str) -> String {
        self.run(&["inspect", "--format", template, container]).ok().text().to_owned()
    }

    /// Waits until a condition holds.
    ///
    /// # Panics
    /// When it does not within 20 seconds.
    #[track_caller]
    pub fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !condition() {
            assert!(begin.elapsed() < Duration::from_secs(20), "never: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is left on the machine and in the directories of containers; the home's own cgroup is not.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let mut lines: Vec<String> = leak::mounts(&self.name);
        let parent = |path: &Path| path.file_name().is_some_and(|last| last.to_string_lossy() == self.name);
        let cgroups = leak::cgroups(&self.name).into_iter().filter(|path| !parent(path));
        lines.extend(cgroups.map(|path| format!("cgroup {}", path.display())));
        lines.extend(leak::processes(&self.name).into_iter().map(|(pid, command)| format!("process {pid} {command}")));
        for below in ["data/containers", "data/names", "run/oci", "run/live", "run/attach", "run/resolvers"] {
            let entries = std::fs::read_dir(self.dir.path().join(below));
            lines.extend(entries.into_iter().flatten().flatten().map(|entry| entry.path().display().to_string()));
        }
        lines
    }

    /// Asserts that nothing is [`left`](Self::left), soon.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn assert_clean(&self) {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) {
            if self.left().is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("left behind:\n{}", self.left().join("\n"));
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        leak::clear(&self.name);
    }
}
