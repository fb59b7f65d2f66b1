//! kill -9 of commands on images, anywhere: the next command works, the store is sound, nothing is left on the machine,
//! and the command succeeds when it is repeated. `bootstrap` has the same in `bootstrap.rs`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::{Finished, finish, finish_within, leak, loops, tier};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);

/// A store, an archive to import, and a cgroup that nobody else uses.
struct Home {
    dir: TempDir,
    name: String,
}

impl Home {
    fn new(test: &str) -> Self {
        let name = format!("hull-kill9-{test}-{}x", std::process::id());
        let dir = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir().expect("temporary directory");
        let h = Self { dir, name };
        let rootfs = h.dir.path().join("rootfs");
        for sub in ["", "proc", "dev", "sys", "tmp", "etc"] {
            std::fs::create_dir(rootfs.join(sub)).expect("create root file system");
        }
        std::fs::copy(hull_testkit::probe(), rootfs.join("probe")).expect("copy the probe");
        files(&rootfs.join("data"), 200);
        let archive = h.path("rootfs.tar.gz");
        let mut tar = Command::new("tar");
        let _ = finish(tar.args(["-czf", &archive, "-C"]).arg(&rootfs).arg(".")).ok();
        h
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
        command.arg("--root").arg(self.path("data")).arg("--state").arg(self.path("run"));
        command.args(words).stdin(Stdio::null()).current_dir("/");
        command
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> Finished {
        finish_within(&mut self.command(words), LIMIT).ok()
    }

    /// An image of two layers, saved in an archive, and the only one in the store.
    fn two_layers(&self) {
        self.ok(&["import", &self.path("rootfs.tar.gz"), "app:1"]);
        self.container("app:1", "first");
        self.ok(&["commit", "first", "app:2"]);
        self.ok(&["rm", "first"]);
        self.ok(&["save", "-o", &self.path("app.tar"), "app:2"]);
    }

    /// A container that has ended and left files.
    fn container(&self, image: &str, name: &str) {
        let words = ["run", "--name", name, "--network=none", "--cgroup-parent", &self.name, image, "/probe", "pid"];
        self.ok(&words);
        let id = self.ok(&["inspect", "--format", "{{.Id}}", name]);
        files(&self.dir.path().join("data/containers").join(id.text()).join("upper/more"), 100);
    }

    /// What is left outside of the records.
    fn left(&self) -> Vec<String> {
        let own = |line: &String| !line.starts_with("cgroup ") || !line.ends_with(&self.name);
        let mut lines: Vec<String> = leak::report(&self.name).into_iter().filter(own).collect();
        for below in ["data/ingest", "data/trash", "data/partial", "run/live", "run/oci"] {
            let entries = std::fs::read_dir(self.dir.path().join(below));
            lines.extend(entries.into_iter().flatten().flatten().map(|entry| entry.path().display().to_string()));
        }
        lines
    }

    /// Kills `words` in each turn, at a point that moves through the time that the command takes.
    ///
    /// `before` brings the store to where the command has something to do; `after` gets what the repeated command said.
    fn killed(&self, words: &[&str], before: impl Fn(&Self), after: impl Fn(&Self, &Finished)) {
        before(self);
        let first = self.ok(words);
        after(self, &first);
        let (mut span, mut killed) = (first.took, 0);
        let turns = loops(10);
        for turn in 0..turns {
            before(self);
            let mut child =
                self.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start hull");
            let at = span.mul_f64(f64::from(turn.wrapping_mul(2_654_435_761) >> 16) / 65_536.0);
            std::thread::sleep(at);
            let ended = child.try_wait().expect("look at hull").is_some();
            child.kill().expect("kill");
            child.wait().expect("wait");
            killed += u32::from(!ended);
            // The machine is not always as fast as it was: kills are to fall within the run.
            span = span.mul_f64(if ended { 0.9 } else { 1.02 });
            let when = format!("{} killed after {at:?}", words.join(" "));
            let next = self.ok(&["images", "-q"]);
            assert_eq!(next.stderr, "", "{when}");
            let check = finish_within(&mut self.command(&["system", "check"]), LIMIT);
            assert_eq!((check.code, check.stdout.as_str()), (0, "No problems found\n"), "{when}: {}", check.stderr);
            let left = self.left();
            assert!(left.is_empty(), "{when}: left behind:\n{}", left.join("\n"));
            after(self, &self.ok(words));
        }
        assert!(killed * 3 > turns, "only {killed} of {turns} were killed before their end");
        assert_eq!(self.ok(&["system", "check"]).stdout, "No problems found\n");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        leak::clear(&self.name);
    }
}

fn files(directory: &Path, count: u32) {
    std::fs::create_dir(directory).expect("create directory");
    for number in 0..count {
        // Content that does not compress to nothing.
        let text: String =
            (0..2_000).map(|line| format!("{:x}\n", (line + 7 * number).wrapping_mul(0x9E37_79B1))).collect();
        std::fs::write(directory.join(format!("file{number}")), text).expect("write");
    }
}

/// A store without images and containers.
fn empty(h: &Home) {
    h.ok(&["system", "prune", "-af"]);
}

#[test]
fn load_killed_at_any_time() {
    if !tier::root() {
        return;
    }
    let h = Home::new("load");
    h.two_layers();
    h.killed(&["load", "-i", &h.path("app.tar")], empty, |_, loaded| {
        assert_eq!(loaded.stdout, "Loaded image: app:2\n");
    });
}

#[test]
fn import_killed_at_any_time() {
    let h = Home::new("import");
    h.killed(&["import", &h.path("rootfs.tar.gz"), "app"], empty, |h, _| {
        assert_eq!(h.ok(&["images", "--format", "{{.Repository}}"]).text().lines().filter(|l| *l == "app").count(), 1);
    });
}

#[test]
fn root_commit_killed_at_any_time() {
    if !tier::root() {
        return;
    }
    let h = Home::new("commit");
    h.ok(&["import", &h.path("rootfs.tar.gz"), "app"]);
    h.container("app", "changed");
    let before = |h: &Home| drop(h.ok(&["image", "prune", "-af"]));
    h.killed(&["commit", "changed", "app:2"], before, |h, _| {
        assert!(h.ok(&["history", "-q", "app:2"]).lines().len() >= 2);
        // The container is whole.
        assert_eq!(h.ok(&["diff", "changed"]).lines().len(), 101);
    });
}

#[test]
fn image_prune_killed_at_any_time() {
    if !tier::root() {
        return;
    }
    let h = Home::new("prune");
    h.two_layers();
    let before = |h: &Home| drop(h.ok(&["load", "-i", &h.path("app.tar")]));
    h.killed(&["image", "prune", "-af"], before, |h, _| {
        assert_eq!(h.ok(&["images", "-q"]).text(), "");
        for kind in ["layers", "blobs/sha256"] {
            let left = std::fs::read_dir(h.dir.path().join("data").join(kind)).expect("read").count();
            assert_eq!(left, 0, "{kind} is empty");
        }
    });
}

#[test]
fn squash_killed_at_any_time() {
    if !tier::root() {
        return;
    }
    let h = Home::new("squash");
    h.two_layers();
    let before = |h: &Home| {
        let _ = finish(&mut h.command(&["rmi", "-f", "app:small"]));
        empty(h);
        h.ok(&["load", "-i", &h.path("app.tar")]);
    };
    let ids = std::cell::RefCell::new(std::collections::BTreeSet::new());
    h.killed(&["squash", "app:2", "app:small"], before, |h, _| {
        let layers = h.ok(&["image", "inspect", "--format", "{{json .RootFS.Layers}}", "app:small"]);
        assert_eq!(layers.text().matches("sha256:").count(), 1, "{}", layers.stdout);
        ids.borrow_mut().insert(layers.text().to_owned());
    });
    assert_eq!(ids.borrow().len(), 1, "the merged layer is always the same");
}

#[test]
fn save_killed_at_any_time() {
    if !tier::root() {
        return;
    }
    let h = Home::new("save");
    h.two_layers();
    let whole = std::fs::read(h.path("app.tar")).expect("read");
    let out = h.dir.path().join("out");
    std::fs::create_dir(&out).expect("create directory");
    let file = out.join("saved.tar");
    let before = |_: &Home| {
        // Whole, or not there.
        if let Ok(bytes) = std::fs::read(&file) {
            assert!(bytes == whole, "half an archive has the name of a whole one");
            std::fs::remove_file(&file).expect("remove");
        }
    };
    h.killed(&["save", "-o", file.to_str().expect("UTF-8"), "app:2"], before, |_, _| {
        assert!(std::fs::read(&file).expect("saved") == whole, "the archive is always the same");
        let names: Vec<_> = std::fs::read_dir(&out).expect("read").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["saved.tar"], "parts of killed commands are gone");
    });
}
