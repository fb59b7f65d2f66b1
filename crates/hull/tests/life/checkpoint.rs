//! Checkpoint and restore through a real `criu`, where one is installed that works on this kernel.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hull_testkit::{Bundle, bundle, finish, tier};

/// Whether `criu` is at least version 4 and its own check is content; otherwise prints the skip.
fn criu() -> bool {
    let Some(criu) = tier::tool("criu") else { return false };
    let run = |word: &str| finish(Command::new(&criu).arg(word).stdin(Stdio::null()));
    let version = run("--version").stdout;
    let major = version.split_whitespace().nth(1).and_then(|text| text.split('.').next()?.parse::<u32>().ok());
    if major.is_none_or(|major| major < 4) {
        tier::skip("criu", &format!("needs criu 4, found {:?}", version.lines().next().unwrap_or_default()));
        return false;
    }
    let check = run("check");
    if check.code != 0 {
        tier::skip("criu", &format!("criu does not work on this kernel: {}", check.stderr.trim_end()));
    }
    check.code == 0
}

/// A container that counts in memory: it waits for a file, writes another, and waits again.
fn waiting() -> Option<Bundle> {
    let b = bundle!()?;
    if !criu() {
        return None;
    }
    Some(b.probe(&["pid", "+", "wait-file", "/tmp/go", "+", "write", "/tmp/went", "on", "+", "sleep", "60"]))
}

#[track_caller]
fn await_file(path: &std::path::Path) {
    let begin = Instant::now();
    while !path.exists() {
        assert!(begin.elapsed() < Duration::from_secs(10), "{} did not appear", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn detached(b: &Bundle, verb: &str, flags: &[&str]) {
    let mut words = vec!["--detach"];
    words.extend(flags);
    let mut command = b.bundle_command(verb, &words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().expect("start hull");
    let log = std::fs::read_to_string(b.dir().join("work/restore.log")).unwrap_or_default();
    assert!(status.success(), "{verb}: {status}; {}", log.lines().rev().take(5).collect::<Vec<_>>().join(" | "));
}

#[test]
fn root_checkpoint_ends_a_container_and_restore_continues_it() {
    let Some(b) = waiting() else { return };
    there_and_back(&b);
}

/// As podman and dockerd run containers on cgroup v1: what is mounted is the machine's own hierarchy.
#[test]
fn root_checkpoint_without_a_cgroup_namespace() {
    let Some(b) = waiting() else { return };
    let b = b.edit(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|one| one["type"] != "cgroup");
    });
    there_and_back(&b);
}

fn there_and_back(b: &Bundle) {
    let (image, work) = (b.dir().join("image"), b.dir().join("work"));
    let places = ["--image-path", image.to_str().expect("UTF-8"), "--work-path", work.to_str().expect("UTF-8")];
    detached(b, "run", &[]);
    let mut words = vec!["checkpoint"];
    words.extend(places);
    words.push(b.id());
    let _ = b.oci(&words).ok();
    b.act("state").fails("does not exist");
    b.assert_clean();
    assert!(image.join("pstree.img").exists() && image.join("descriptors.json").exists());

    detached(b, "restore", &places);
    assert_eq!(b.state()["status"], "running");
    assert!(!b.rootfs().join("tmp/went").exists());
    std::fs::write(b.rootfs().join("tmp/go"), "").expect("write");
    await_file(&b.rootfs().join("tmp/went"));
    // What was restored is a container like any other.
    assert_eq!(b.exec(&[], &["hostname"]).ok().text(), "hull-test");
    b.delete();
    b.assert_clean();
}

#[test]
fn root_checkpoint_leaves_a_container_running_when_told_to() {
    let Some(b) = waiting() else { return };
    let image = b.dir().join("image");
    detached(&b, "run", &[]);
    let pid = b.pid();
    let _ = b.oci(&["checkpoint", "--leave-running", "--image-path", image.to_str().expect("UTF-8"), b.id()]).ok();
    assert_eq!((b.pid(), b.state()["status"].as_str()), (pid, Some("running")));
    std::fs::write(b.rootfs().join("tmp/go"), "").expect("write");
    await_file(&b.rootfs().join("tmp/went"));
    b.delete();
    b.assert_clean();
}

#[test]
fn root_restore_without_an_image_fails_and_leaves_nothing() {
    let Some(b) = waiting() else { return };
    let image = b.dir().join("absent");
    finish(&mut b.bundle_command("restore", &["--detach", "--image-path", image.to_str().expect("UTF-8")])).fails("");
    b.assert_clean();
}
