//! Directories of one test's own, and a root file system of the probe, which is its shell too.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hull_testkit::{Finished, finish, leak, tier};
use tempfile::TempDir;

pub(crate) struct Home {
    pub(crate) dir: TempDir,
    name: String,
}

impl Home {
    pub(crate) fn new() -> Option<Self> {
        if !tier::root() {
            return None;
        }
        let name = format!("hull-life-{}x", std::process::id());
        let dir = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir().expect("temporary directory");
        let rootfs = dir.path().join("rootfs");
        for sub in ["", "proc", "dev", "sys", "tmp", "etc", "bin"] {
            std::fs::create_dir(rootfs.join(sub)).expect("create root file system");
        }
        std::fs::copy(hull_testkit::probe(), rootfs.join("probe")).expect("copy the probe");
        std::fs::hard_link(rootfs.join("probe"), rootfs.join("bin/sh")).expect("link the probe");
        Some(Self { dir, name })
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
        command.arg("--root").arg(self.dir.path().join("data")).arg("--state").arg(self.dir.path().join("run"));
        command.args(words).stdin(Stdio::null()).current_dir("/");
        command
    }

    #[track_caller]
    pub(crate) fn hull(&self, words: &[&str]) -> Finished {
        finish(&mut self.command(words))
    }

    /// `hull run FLAGS --rootfs DIR /probe ARGS`.
    #[track_caller]
    pub(crate) fn run(&self, flags: &[&str], args: &[&str]) -> Finished {
        let rootfs = self.rootfs();
        let mut words = vec!["run", "--network=none"];
        words.extend(flags);
        words.extend(["--rootfs", rootfs.to_str().expect("UTF-8"), "/probe"]);
        words.extend(args);
        self.hull(&words)
    }

    pub(crate) fn spawn(&self, words: &[&str]) -> Child {
        self.command(words).stdout(Stdio::piped()).spawn().expect("start hull")
    }

    /// One field of `inspect`.
    #[track_caller]
    pub(crate) fn inspect(&self, name: &str, template: &str) -> String {
        self.hull(&["inspect", "-f", template, name]).ok().text().to_owned()
    }

    pub(crate) fn touch(&self, path: &str) {
        std::fs::write(self.rootfs().join(path), "").expect("write");
    }

    /// The process that looks after a container.
    pub(crate) fn monitor(&self, name: &str) -> i32 {
        let id = self.inspect(name, "{{.Id}}");
        let path = self.dir.path().join("data/containers").join(id).join("state.json");
        let state = std::fs::read(path).expect("state");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
        i32::try_from(state["monitor"].as_i64().expect("monitor")).expect("process ID")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.command(&["ps", "-a"]).status();
        }
        let ids =
            self.command(&["ps", "-aq"]).output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let ids = ids.unwrap_or_default();
        let mut words = vec!["rm", "-f"];
        words.extend(ids.split_whitespace());
        if words.len() > 2 {
            let _ = self.command(&words).stdout(Stdio::null()).status();
        }
        if !std::thread::panicking() {
            let left = leak::report(&self.name);
            assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        }
        leak::clear(&self.name);
    }
}

/// Waits for what comes soon, however busy the machine is.
#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}
