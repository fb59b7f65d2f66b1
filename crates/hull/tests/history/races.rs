//! Races that were once won against a container runtime: a neighbour that shares a volume changes it during the start.
//!
//! A start may fail while it is raced. It must never touch the host, and what it starts must be masked and confined.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use hull_testkit::{Bundle, bundle, finish, json, race::Race, rounds};

/// A directory on the host with one file in it, which no start may add to.
fn outside(b: &Bundle) -> PathBuf {
    let dir = b.dir().join("outside");
    std::fs::create_dir(&dir).expect("mkdir");
    std::fs::write(dir.join("file"), "canary").expect("write");
    dir
}

#[track_caller]
fn assert_untouched(dir: &PathBuf) {
    assert_eq!(std::fs::read_to_string(dir.join("file")).expect("the canary is gone"), "canary");
    let names: Vec<_> = std::fs::read_dir(dir).expect("read").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 1, "made on the host: {names:?}");
}

fn volume(b: &Bundle) -> PathBuf {
    let dir = b.dir().join("volume");
    std::fs::create_dir(&dir).expect("mkdir");
    dir
}

/// CVE-2021-30465, CVE-2024-45310: the target of a mount inside a shared volume is exchanged with a link to the host.
#[test]
fn root_mount_target_exchanged_with_a_link() {
    let Some(b) = bundle!() else { return };
    let canary = outside(&b);
    let shared = volume(&b);
    std::fs::create_dir(shared.join("a")).expect("mkdir");
    symlink(&canary, shared.join("b")).expect("symlink");
    let climbing = format!("/../../../../../../../..{}", canary.display());
    symlink(climbing, shared.join("c")).expect("symlink");
    let b = b
        .mount(json!({"destination": "/vol", "type": "bind", "source": shared, "options": ["rbind"]}))
        .mount(json!({"destination": "/vol/a/made/here", "type": "tmpfs", "source": "t"}))
        .mount(json!({"destination": "/vol/a/file", "type": "bind", "source": shared.join("x"), "options": ["bind"]}))
        .probe(&["mounts"]);
    std::fs::write(shared.join("x"), "x").expect("write");
    for link in ["b", "c"] {
        let _race = Race::exchange(shared.join("a"), shared.join(link));
        for _ in 0..rounds(25) {
            let out = b.run();
            for line in out.stdout.lines().filter(|line| line.contains("tmpfs t ")) {
                let target = line.split(' ').nth(4).expect("a target");
                assert!(target.starts_with("/vol/") || target.starts_with(canary.to_str().expect("UTF-8")), "{line}");
            }
            b.delete();
            assert_untouched(&canary);
        }
    }
}

/// CVE-2025-31133, CVE-2025-62161: /dev/null, which covers masked files, is replaced by a link during the start.
#[test]
fn root_masked_paths_while_dev_null_is_replaced() {
    let Some(b) = bundle!() else { return };
    let canary = outside(&b);
    let shared = volume(&b);
    std::fs::write(b.rootfs().join("secret"), "secret").expect("write");
    let b = b
        .edit(|spec| {
            spec["mounts"][1] = json!({"destination": "/dev", "type": "bind", "source": shared, "options": ["rbind"]});
        })
        .set("/linux/maskedPaths", json!(["/secret", "/proc/version"]))
        .probe(&["stat", "/secret", "+", "stat", "/proc/version", "+", "cat", "/secret", "+", "echo", "end"]);
    for target in ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/probe"] {
        let _race = Race::file_or_link(&shared.join("null"), target);
        for _ in 0..rounds(20) {
            let out = b.run();
            if out.code == 0 {
                let lines = out.lines();
                assert!(lines[0].starts_with("char") && lines[0].contains(" 1:3 "), "{target}: {}", out.stdout);
                assert!(lines[1].starts_with("char") && lines[1].contains(" 1:3 "), "{target}: {}", out.stdout);
                assert!(!out.stdout.contains("secret"), "{}", out.stdout);
            }
            b.delete();
            assert_untouched(&canary);
        }
    }
}

/// CVE-2025-52565: /dev/console is bound over a link while a terminal is set up.
#[test]
fn root_console_while_its_target_is_replaced() {
    let Some(b) = bundle!() else { return };
    let canary = outside(&b);
    let shared = volume(&b);
    let socket = b.dir().join("console.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
    listener.set_nonblocking(true).expect("nonblocking");
    let b = b
        .edit(|spec| {
            spec["mounts"][1] = json!({"destination": "/dev", "type": "bind", "source": shared, "options": ["rbind"]});
            spec["process"]["terminal"] = json!(true);
        })
        .probe(&[
            "write",
            "/tmp/console",
            "checked",
            "+",
            "open-write",
            "/proc/sys/kernel/core_pattern",
            "+",
            "sleep",
            "60",
        ]);
    let pattern = std::fs::read("/proc/sys/kernel/core_pattern").expect("core_pattern");
    for target in ["/proc/sys/kernel/core_pattern", canary.join("file").to_str().expect("UTF-8"), "/proc/self/mem"] {
        let _race = Race::file_or_link(&shared.join("console"), target);
        for _ in 0..rounds(15) {
            let made = finish(&mut b.bundle_command("create", &["--console-socket", socket.to_str().expect("UTF-8")]));
            let stream = listener.accept();
            if made.code == 0 {
                let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", b.pid())).expect("mountinfo");
                let over: Vec<&str> = table
                    .lines()
                    .filter(|line| line.contains(" - devpts ") && line.split(' ').nth(4) != Some("/dev/pts"))
                    .filter(|line| line.split(' ').nth(4) != Some("/dev/console"))
                    .collect();
                assert!(over.is_empty(), "the terminal was bound elsewhere: {over:?}");
                assert!(
                    table
                        .lines()
                        .any(|line| line.contains(" /proc/sys ro") || line.contains(" /proc/sys /proc/sys ro"))
                );
            }
            drop(stream);
            b.delete();
            assert_untouched(&canary);
        }
    }
    assert_eq!(std::fs::read("/proc/sys/kernel/core_pattern").expect("core_pattern"), pattern);
}

/// CVE-2025-52881, CVE-2025-62596: a mount lands on procfs through a link, so that writes to it go somewhere else.
#[test]
fn root_procfs_writes_are_not_redirected() {
    let Some(b) = bundle!() else { return };
    let shared = volume(&b);
    std::fs::create_dir(shared.join("a")).expect("mkdir");
    symlink("/proc/self", shared.join("b")).expect("symlink");
    symlink("/proc/sys/net/ipv4", shared.join("c")).expect("symlink");
    std::fs::write(shared.join("fake"), "0\n").expect("write");
    let source = shared.join("fake");
    let b = b
        .mount(json!({"destination": "/vol", "type": "bind", "source": shared, "options": ["rbind"]}))
        .mount(json!({"destination": "/vol/a/oom_score_adj", "type": "bind", "source": source, "options": ["bind"]}))
        .mount(json!({"destination": "/vol/a/ip_default_ttl", "type": "bind", "source": source, "options": ["bind"]}))
        .set("/process/oomScoreAdj", json!(123))
        .set("/linux/sysctl", json!({"net.ipv4.ip_default_ttl": "77"}))
        .probe(&["sleep", "60"]);
    for link in ["b", "c"] {
        let _race = Race::exchange(shared.join("a"), shared.join(link));
        for _ in 0..rounds(25) {
            if b.create().code == 0 {
                let pid = b.pid();
                let adjusted = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("oom_score_adj");
                assert_eq!(adjusted.trim(), "123", "the write was redirected");
                assert_eq!(std::fs::read_to_string(shared.join("fake")).expect("fake"), "0\n");
                let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("mountinfo");
                let over: Vec<&str> =
                    table.lines().filter(|line| line.contains("/volume/fake") && line.contains(" /proc/")).collect();
                assert!(over.is_empty(), "mounted over procfs: {over:?}");
            }
            b.delete();
        }
    }
}

/// CVE-2023-27561 as a race: /proc in a shared root file system is exchanged with a link.
#[test]
fn root_proc_exchanged_with_a_link() {
    let Some(b) = bundle!() else { return };
    let canary = outside(&b);
    symlink(&canary, b.rootfs().join("link")).expect("symlink");
    let b = b.probe(&["cat", "/proc/self/status", "+", "poke", "/proc/sys/kernel/domainname", "x"]);
    let _race = Race::exchange(b.rootfs().join("proc"), b.rootfs().join("link"));
    for _ in 0..rounds(40) {
        let out = b.run();
        if out.code == 0 && out.stdout.contains("NoNewPrivs") {
            // Read-only, or under the other name at that moment.
            let poked = out.lines().last().map(|line| (*line).to_owned());
            assert!(matches!(poked.as_deref(), Some("errno:30" | "errno:2")), "/proc/sys is writable: {poked:?}");
        }
        b.delete();
        assert_untouched(&canary);
    }
}

/// The container changes its own root file system while programs are executed in it.
#[test]
fn root_exec_while_the_working_directory_is_replaced() {
    let Some(b) = bundle!() else { return };
    std::fs::create_dir(b.rootfs().join("tmp/a")).expect("mkdir");
    symlink("/proc/self/fd/5", b.rootfs().join("tmp/b")).expect("symlink");
    let b = b.probe(&["exchange", "/tmp/a", "/tmp/b", "60"]);
    b.run_detached();
    for _ in 0..rounds(60) {
        let out = b.exec(&["--cwd", "/tmp/a"], &["cwd"]);
        if out.code == 0 {
            assert!(out.text().starts_with("/tmp/"), "outside: {}", out.stdout);
        }
    }
}
