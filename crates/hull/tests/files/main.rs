//! Volumes, mounts and `cp`, as a user types them.

mod cp;
mod mounts;
mod survival;
mod volumes;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hull_testkit::{Finished, finish, leak, tier};
use tempfile::TempDir;

/// A store of its own with the image `mine`: the probe, and a directory `/data` with some of everything in it.
struct Home {
    dir: TempDir,
    name: String,
}

impl Home {
    fn new() -> Option<Self> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        if !tier::root() {
            return None;
        }
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("hull-files-{}-{number}x", std::process::id());
        let dir = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir().expect("temporary directory");
        let home = Self { dir, name };
        home.import("mine", &[]);
        Some(home)
    }

    /// Makes an image with the probe.
    fn import(&self, name: &str, changes: &[&str]) {
        let rootfs = self.path("rootfs");
        if !rootfs.exists() {
            for sub in ["", "proc", "dev", "sys", "tmp", "etc", "run", "data/sub"] {
                std::fs::create_dir_all(rootfs.join(sub)).expect("create root file system");
            }
            std::fs::copy(hull_testkit::probe(), rootfs.join("probe")).expect("copy the probe");
            std::fs::write(rootfs.join("data/file"), "of the image").expect("write");
            std::fs::hard_link(rootfs.join("data/file"), rootfs.join("data/sub/again")).expect("link");
            std::os::unix::fs::symlink("file", rootfs.join("data/link")).expect("symlink");
            std::os::unix::fs::chown(rootfs.join("data/file"), Some(1234), Some(2345)).expect("chown");
            std::os::unix::fs::chown(rootfs.join("data"), Some(77), Some(78)).expect("chown");
            let tar = self.path("rootfs.tar");
            let _ = finish(Command::new("tar").arg("-C").arg(&rootfs).arg("-cf").arg(tar).arg(".")).ok();
        }
        let mut command = self.hull(&["import"]);
        for change in changes {
            command.args(["-c", change]);
        }
        let _ = finish(command.arg(self.path("rootfs.tar")).arg(name)).ok();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn hull(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
        command.arg("--root").arg(self.path("data")).arg("--state").arg(self.path("run"));
        command.args(words).stdin(Stdio::null()).current_dir(self.dir.path());
        command
    }

    /// Runs a command.
    #[track_caller]
    fn do_(&self, words: &[&str]) -> Finished {
        finish(&mut self.hull(words))
    }

    /// `hull run --rm FLAGS mine /probe ARGS`.
    #[track_caller]
    fn run(&self, flags: &[&str], args: &[&str]) -> Finished {
        let mut words = vec!["run", "--rm", "--network=none", "--cgroup-parent", &self.name];
        words.extend(flags);
        words.extend(["mine", "/probe"]);
        words.extend(args);
        self.do_(&words)
    }

    /// A container that runs until it is removed.
    #[track_caller]
    fn start(&self, name: &str, flags: &[&str]) {
        let mut words = vec!["run", "-d", "--network=none", "--cgroup-parent", &self.name, "--name", name];
        words.extend(flags);
        words.extend(["mine", "/probe", "sleep", "120"]);
        let _ = self.do_(&words).ok();
    }

    /// A container that does not run.
    #[track_caller]
    fn create(&self, name: &str, flags: &[&str]) {
        let mut words = vec!["create", "--network=none", "--cgroup-parent", &self.name, "--name", name];
        words.extend(flags);
        words.extend(["mine", "/probe", "sleep", "120"]);
        let _ = self.do_(&words).ok();
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.path("data/volumes").join(name).join("_data")
    }

    #[track_caller]
    fn volumes(&self) -> Vec<String> {
        self.do_(&["volume", "ls", "-q"]).ok().lines().iter().map(ToString::to_string).collect()
    }

    /// Nothing is left of containers, nor of anything half-made.
    #[track_caller]
    fn assert_clean(&self) {
        let left = || {
            let mut lines = leak::mounts(&self.name);
            let group = |path: &&PathBuf| !path.ends_with(&self.name);
            lines.extend(leak::cgroups(&self.name).iter().filter(group).map(|path| path.display().to_string()));
            lines.extend(leak::processes(&self.name).into_iter().map(|(pid, command)| format!("{pid} {command}")));
            for below in ["data/containers", "data/volumes/.staging", "run/oci", "run/live"] {
                lines.extend(names(&self.path(below)).into_iter().map(|name| format!("{below}/{name}")));
            }
            lines
        };
        for _ in 0..50 {
            if left().is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("left behind:\n{}", left().join("\n"));
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let ids = finish(&mut self.hull(&["ps", "-aq"]));
        for id in ids.lines() {
            let _ = finish(&mut self.hull(&["rm", "-f", id]));
        }
        leak::clear(&self.name);
    }
}

/// Names in a directory, sorted; none if there is no such directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
