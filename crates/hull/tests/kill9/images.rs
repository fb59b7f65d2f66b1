//! kill -9 of commands on images, anywhere: the next command works, the store is sound, nothing is left on the machine,
//! and the command succeeds when it is repeated. `bootstrap` has the same in `bootstrap.rs`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::{Finished, Home, finish, finish_within, home, loops};

const LIMIT: Duration = Duration::from_secs(120);

/// A home with an archive to import.
fn home() -> Option<Home> {
    let h = home!()?;
    files(&h.at("rootfs/data"), 200);
    let mut tar = Command::new("tar");
    finish(tar.args(["-czf", &h.text("rootfs.tar.gz"), "-C"]).arg(h.rootfs()).arg(".")).ok();
    Some(h)
}

#[track_caller]
fn ok(h: &Home, words: &[&str]) -> Finished {
    finish_within(&mut h.hull(words), LIMIT).ok()
}

/// An image of two layers, saved in an archive, and the only one in the store.
fn two_layers(h: &Home) {
    ok(h, &["import", &h.text("rootfs.tar.gz"), "app:1"]);
    container(h, "app:1", "first");
    ok(h, &["commit", "first", "app:2"]);
    ok(h, &["rm", "first"]);
    ok(h, &["save", "-o", &h.text("app.tar"), "app:2"]);
}

/// A container that has ended and left files.
fn container(h: &Home, image: &str, name: &str) {
    ok(h, &["run", "--name", name, "--network=none", "--cgroup-parent", h.name(), image, "/probe", "pid"]);
    files(&h.at("data/containers").join(h.field(name, "{{.Id}}")).join("upper/more"), 100);
}

/// Kills `words` in each turn, at a point that moves through the time that the command takes.
///
/// `before` brings the store to where the command has something to do; `after` gets what the repeated command said.
fn killed(h: &Home, words: &[&str], before: impl Fn(), after: impl Fn(&Finished)) {
    before();
    let first = ok(h, words);
    after(&first);
    let (mut span, mut killed) = (first.took, 0_u32);
    let (turns, mut turn) = (loops(10), 0_u32);
    while turn < turns || killed * 3 < turns {
        turn += 1;
        assert!(turn < 5 * turns, "only {killed} of {turn} were killed before their end");
        before();
        let mut child = h.hull(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start hull");
        let at = span.mul_f64(f64::from(turn.wrapping_mul(2_654_435_761) >> 16) / 65_536.0);
        std::thread::sleep(at);
        let ended = child.try_wait().expect("look at hull").is_some();
        child.kill().expect("kill");
        child.wait().expect("wait");
        killed += u32::from(!ended);
        // The machine is not always as fast as it was: kills are to fall within the run.
        span = span.mul_f64(if ended { 0.9 } else { 1.02 });
        let when = format!("{} killed after {at:?}", words.join(" "));
        let next = ok(h, &["images", "-q"]);
        assert_eq!(next.stderr, "", "{when}");
        let check = finish_within(&mut h.hull(&["system", "check"]), LIMIT);
        assert_eq!((check.code, check.stdout.as_str()), (0, "No problems found\n"), "{when}: {}", check.stderr);
        // The containers that images were made from stay.
        let rest = |line: &String| !line.starts_with("data/containers/") && !line.starts_with("data/names/");
        let mut left: Vec<String> = h.left().into_iter().filter(rest).collect();
        left.extend(h.unfinished());
        assert!(left.is_empty(), "{when}: left behind:\n{}", left.join("\n"));
        after(&ok(h, words));
    }
    assert_eq!(ok(h, &["system", "check"]).stdout, "No problems found\n");
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
    ok(h, &["system", "prune", "-af"]);
}

#[test]
fn root_load_killed_at_any_time() {
    let Some(h) = home() else { return };
    two_layers(&h);
    killed(
        &h,
        &["load", "-i", &h.text("app.tar")],
        || empty(&h),
        |loaded| {
            assert_eq!(loaded.stdout, "Loaded image: app:2\n");
        },
    );
}

#[test]
fn root_import_killed_at_any_time() {
    let Some(h) = home() else { return };
    killed(
        &h,
        &["import", &h.text("rootfs.tar.gz"), "app"],
        || empty(&h),
        |_| {
            assert_eq!(
                ok(&h, &["images", "--format", "{{.Repository}}"]).text().lines().filter(|l| *l == "app").count(),
                1
            );
        },
    );
}

#[test]
fn root_commit_killed_at_any_time() {
    let Some(h) = home() else { return };
    ok(&h, &["import", &h.text("rootfs.tar.gz"), "app"]);
    container(&h, "app", "changed");
    let before = || drop(ok(&h, &["image", "prune", "-af"]));
    killed(&h, &["commit", "changed", "app:2"], before, |_| {
        assert!(ok(&h, &["history", "-q", "app:2"]).lines().len() >= 2);
        // The container is whole.
        assert_eq!(ok(&h, &["diff", "changed"]).lines().len(), 101);
    });
}

#[test]
fn root_image_prune_killed_at_any_time() {
    let Some(h) = home() else { return };
    two_layers(&h);
    let before = || drop(ok(&h, &["load", "-i", &h.text("app.tar")]));
    killed(&h, &["image", "prune", "-af"], before, |_| {
        assert_eq!(ok(&h, &["images", "-q"]).text(), "");
        for kind in ["layers", "blobs/sha256"] {
            assert_eq!(h.entries(&format!("data/{kind}")), [""; 0], "{kind} is empty");
        }
    });
}

#[test]
fn root_squash_killed_at_any_time() {
    let Some(h) = home() else { return };
    two_layers(&h);
    let before = || {
        let _ = h.run(&["rmi", "-f", "app:small"]);
        empty(&h);
        ok(&h, &["load", "-i", &h.text("app.tar")]);
    };
    let ids = std::cell::RefCell::new(std::collections::BTreeSet::new());
    killed(&h, &["squash", "app:2", "app:small"], before, |_| {
        let layers = ok(&h, &["image", "inspect", "--format", "{{json .RootFS.Layers}}", "app:small"]);
        assert_eq!(layers.text().matches("sha256:").count(), 1, "{}", layers.stdout);
        ids.borrow_mut().insert(layers.text().to_owned());
    });
    assert_eq!(ids.borrow().len(), 1, "the merged layer is always the same");
}

#[test]
fn root_save_killed_at_any_time() {
    let Some(h) = home() else { return };
    two_layers(&h);
    let whole = std::fs::read(h.at("app.tar")).expect("read");
    let out = h.at("out");
    std::fs::create_dir(&out).expect("create directory");
    let file = out.join("saved.tar");
    let before = || {
        // Whole, or not there.
        if let Ok(bytes) = std::fs::read(&file) {
            assert!(bytes == whole, "half an archive has the name of a whole one");
            std::fs::remove_file(&file).expect("remove");
        }
    };
    killed(&h, &["save", "-o", file.to_str().expect("UTF-8"), "app:2"], before, |_| {
        assert!(std::fs::read(&file).expect("saved") == whole, "the archive is always the same");
        let names: Vec<_> = std::fs::read_dir(&out).expect("read").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["saved.tar"], "parts of killed commands are gone");
    });
}
