//! `hull run` on a root file system and on the built-in image, as a user types it.

use std::io::Write as _;
use std::process::Stdio;

use hull_testkit::terminal::Terminal;
use hull_testkit::{Finished, Home, finish, home, tier};

/// `hull run --rm FLAGS --rootfs DIR /probe ARGS`.
#[track_caller]
fn run(h: &Home, flags: &[&str], args: &[&str]) -> Finished {
    let mut words = vec!["--rm"];
    words.extend(flags);
    finish(&mut h.container("run", &words, args))
}

#[test]
fn root_exit_codes_are_dockers() {
    let Some(h) = home!() else { return };
    for code in ["0", "1", "42", "255"] {
        assert_eq!(run(&h, &[], &["exit", code]).code.to_string(), code);
    }
    let rootfs = h.path().join("rootfs");
    std::fs::write(rootfs.join("plain"), "x").expect("write");
    let rootfs = rootfs.to_str().expect("UTF-8");
    for (program, code) in [("/no-such", 127), ("no-such-in-path", 127), ("/plain", 126), ("/tmp", 126)] {
        let out = finish(&mut h.hull(&["run", "--rm", "--network=none", "--rootfs", rootfs, program]));
        assert_eq!(out.code, code, "{program}: {}", out.stderr);
    }
    for words in [&["run", "--no-such-flag"][..], &["run", "--rm", "--rootfs", "/no/such/dir", "x"]] {
        let out = finish(&mut h.hull(words));
        assert_eq!(out.code, 125, "{words:?}: {}", out.stderr);
        assert!(!out.stderr.is_empty() && !out.stderr.contains("panicked"), "{}", out.stderr);
    }
    // What a signal ends is 128 + its number.
    let out = run(&h, &["--init=false"], &["child", "abort"]);
    if out.code == 0 {
        assert!(out.stdout.contains("signal: 6"), "{}", out.stdout);
    }
    h.assert_clean();
}

#[test]
fn root_standard_streams() {
    let Some(h) = home!() else { return };
    let out = run(&h, &[], &["echo", "to stdout", "+", "err", "to stderr", "+", "stdin"]).ok();
    assert_eq!((out.text(), out.stderr.as_str()), ("to stdout", "to stderr\n"));
    let mut command = h.container("run", &["--rm", "-i"], &["stdin"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start hull");
    child.stdin.take().expect("stdin").write_all(b"typed").expect("write");
    let output = child.wait_with_output().expect("wait");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), "typed");
}

#[test]
fn root_terminal() {
    let Some(h) = home!() else { return };
    let command = h.container("run", &["--rm", "-it"], &["isatty", "+", "winsize"]);
    let mut terminal = Terminal::start(command, 123, 41).expect("start hull");
    let mut text = String::new();
    let limit = std::time::Duration::from_secs(60);
    let status =
        terminal.end(limit, |bytes| text.push_str(&String::from_utf8_lossy(bytes))).expect("read the terminal");
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{text}");
    assert!(text.contains("true") && text.contains("41x123"), "{text:?}");
}

#[test]
fn root_user_environment_directory_and_names() {
    let Some(h) = home!() else { return };
    std::fs::write(h.path().join("rootfs/etc/passwd"), "ann:x:12:34::/home/ann:/probe\n").expect("passwd");
    let out = run(
        &h,
        &["-u", "ann", "-e", "A=1", "--env", "B=2", "-w", "/tmp", "-h", "box", "--group-add", "77"],
        &["id", "+", "cwd", "+", "hostname", "+", "env"],
    )
    .ok();
    assert_eq!(out.lines()[..3], ["uid=12 gid=34 groups=34,77", "/tmp", "box"]);
    for line in ["A=1", "B=2", "HOME=/home/ann"] {
        assert!(out.lines().contains(&line), "no {line}: {}", out.stdout);
    }
    let out = run(&h, &["-u", "1000:1001"], &["id"]).ok();
    assert!(out.text().starts_with("uid=1000 gid=1001"), "{}", out.stdout);
    assert_eq!(run(&h, &["-u", "nobody-here"], &["id"]).code, 125);
}

#[test]
fn root_limits_reach_the_cgroup() {
    if !tier::cgroup_v1("memory") {
        return;
    }
    let Some(h) = home!() else { return };
    let cat = |flags: &[&str], file: &str| run(&h, flags, &["cat", file]).ok().text().to_owned();
    assert_eq!(cat(&["--memory", "512m"], "/sys/fs/cgroup/memory/memory.limit_in_bytes"), "536870912");
    assert_eq!(cat(&["--cpus", "1.5"], "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), "150000");
    assert_eq!(cat(&["--cpus", "1.5"], "/sys/fs/cgroup/cpu/cpu.cfs_period_us"), "100000");
    assert_eq!(cat(&["--pids-limit", "33"], "/sys/fs/cgroup/pids/pids.max"), "33");
    assert_eq!(cat(&["--cpu-shares", "99"], "/sys/fs/cgroup/cpu/cpu.shares"), "99");
    let out = run(&h, &["--ulimit", "nofile=77:88"], &["rlimits"]).ok();
    let line = out.stdout.lines().find(|line| line.starts_with("Max open files")).expect("limit").to_owned();
    assert!(line.contains("77") && line.contains("88"), "{line}");
    for flags in [
        &["--memory", "banana"][..],
        &["--memory", "1k"],
        &["--cpus", "-1"],
        &["--memory", "64m", "--memory-swap", "32m"],
    ] {
        let out = run(&h, flags, &["exit", "0"]);
        assert_eq!(out.code, 125, "{flags:?}: {}", out.stderr);
    }
    h.assert_clean();
}

#[test]
fn root_out_of_memory_says_so_and_harms_no_other() {
    if !tier::cgroup_v1("memory") {
        return;
    }
    let Some(h) = home!() else { return };
    let mut neighbour = h.container("run", &["--rm"], &["sleep", "2", "+", "echo", "unharmed"]);
    let neighbour = std::thread::spawn(move || finish(&mut neighbour));
    let out = run(&h, &["--memory", "16m"], &["alloc", "400"]);
    assert_eq!(out.code, 137, "{}", out.stderr);
    assert!(out.stderr.contains("out of memory (limit 16MiB)"), "{}", out.stderr);
    assert_eq!(neighbour.join().expect("neighbour").ok().text(), "unharmed");
    h.assert_clean();
}

#[test]
fn root_defaults_drop_what_docker_keeps_for_no_one() {
    let Some(h) = home!() else { return };
    let out = run(
        &h,
        &[],
        &[
            "status",
            "CapEff",
            "+",
            "status",
            "CapInh",
            "+",
            "status",
            "Seccomp",
            "+",
            "poke",
            "/proc/sys/kernel/hostname",
            "x",
        ],
    )
    .ok();
    assert_eq!(out.lines(), ["00000000800405fb", "0000000000000000", "2", "errno:30"]);
    let out = run(&h, &["--cap-drop", "ALL", "--cap-add", "CHOWN"], &["status", "CapEff"]).ok();
    assert_eq!(out.text(), "0000000000000001");
    let out = run(
        &h,
        &["--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"],
        &["status", "Seccomp", "+", "status", "NoNewPrivs"],
    )
    .ok();
    assert_eq!(out.lines(), ["0", "1"]);
    let out = run(&h, &["--privileged"], &["status", "CapEff"]).ok();
    let own = std::fs::read_to_string("/proc/self/status").expect("status");
    let own = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("CapBnd").trim().to_owned();
    assert_eq!(out.text(), own, "privileged gets what the caller has");
}

#[test]
fn root_mounts_and_read_only_root() {
    let Some(h) = home!() else { return };
    let data = h.path().join("shared");
    std::fs::create_dir(&data).expect("mkdir");
    std::fs::write(data.join("file"), "from the host").expect("write");
    let data = data.to_str().expect("UTF-8");
    let out = run(&h, &["-v", &format!("{data}:/data:ro")], &["cat", "/data/file", "+", "write", "/data/x", "1"]).ok();
    assert_eq!(out.lines(), ["from the host", "errno:30"]);
    let flag = format!("type=bind,source={data},target=/data");
    let out = run(&h, &["--mount", &flag], &["write", "/data/back", "1"]).ok();
    assert_eq!(out.text(), "ok");
    let out = run(
        &h,
        &["--tmpfs", "/scratch:size=64k", "--read-only"],
        &["write", "/x", "1", "+", "write", "/scratch/x", "1", "+", "statfs", "/scratch"],
    )
    .ok();
    assert_eq!(out.lines(), ["errno:30", "ok", "type=1021994 bytes=65536"]);
    h.assert_clean();
}

#[test]
fn root_detached_prints_its_id_and_can_be_awaited() {
    let Some(h) = home!() else { return };
    let out = finish(&mut h.container("run", &["-d", "--rm"], &["write", "/tmp/done", "yes"])).ok();
    let id = out.text();
    assert!(id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit()), "{id:?}");
    for _ in 0..500 {
        if h.path().join("rootfs/tmp/done").exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(h.path().join("rootfs/tmp/done").exists(), "never ran");
    h.assert_clean();
}

#[test]
fn root_built_in_image_needs_nothing() {
    let Some(h) = home!() else { return };
    let out = finish(&mut h.hull(&["run", "--rm", "--network=none", "hello"])).ok();
    assert!(!out.stdout.trim().is_empty());
    h.assert_clean();
}
