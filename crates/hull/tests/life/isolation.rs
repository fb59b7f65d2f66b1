//! How far a container is kept apart, its first process, programs that join it or its files, and flags that cannot be.

use std::process::Stdio;
use std::time::{Duration, Instant};

use hull_testkit::{Finished, Home, finish, home, tier};

/// A home with the image `probe`.
fn home() -> Option<Home> {
    let home = home!()?.without(&["HULL_SECURITY"]);
    home.write("rootfs/etc/passwd", "root:x:0:0::/:\nweb:x:33:33::/:\n");
    home.import(&[], "probe");
    Some(home)
}

/// `hull run --rm FLAGS probe /probe ARGS`.
fn run(h: &Home, flags: &[&str], args: &[&str]) -> Finished {
    finish(h.hull(&["run", "--rm", "--network=none"]).args(flags).args(["probe", "/probe"]).args(args))
}

/// A container that sleeps.
fn sleeper(h: &Home, name: &str, flags: &[&str]) {
    let mut command = h.hull(&["run", "-d", "--network=none", "--name", name]);
    finish(command.args(flags).args(["probe", "/probe", "sleep", "120"])).ok();
}

fn containers(h: &Home) -> usize {
    h.run(&["ps", "--all", "--quiet"]).ok().lines().len()
}

/// Whether this kernel takes detached, idmapped mounts as layers.
fn users_of_its_own() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let there = (numbers.next(), numbers.next()) >= (Some(6), Some(15));
    if !there {
        tier::skip("idmapped_layers", "before Linux 6.15 no overlay of idmapped layers");
    }
    there
}

#[test]
fn root_levels_differ_in_what_a_container_may_do() {
    let Some(h) = home() else { return };
    let look = |flags: &[&str]| {
        let out = run(&h, flags, &["status", "CapEff", "+", "status", "NoNewPrivs", "+", "cat", "/proc/self/uid_map"]);
        let out = out.ok();
        let lines = out.lines().into_iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(look(&["--security", "compat"])[..2], ["00000000a80425fb", "0"]);
    assert_eq!(look(&[])[..2], ["00000000800405fb", "1"]);
    assert_eq!(look(&["--security", "compat", "--security-opt", "no-new-privileges"])[1], "1");
    if !users_of_its_own() {
        return;
    }
    let hardened = look(&["--security=hardened"]);
    assert_eq!(hardened[..2], ["00000000800405fb", "1"]);
    assert!(hardened[2].starts_with("0 ") && !hardened[2].starts_with("0 0 "), "{hardened:?}");
    // By name it wins over the level.
    assert!(look(&["--security=hardened", "--userns=host"])[2].starts_with("0 0 "));
    assert!(look(&["--userns=private"])[2].ends_with(" 65536"));
    assert!(h.entries("data/users").iter().all(|name| name == "lock"), "{:?}", h.entries("data/users"));
    h.assert_clean();
}

#[test]
fn root_users_of_its_own_own_its_files_and_its_binds() {
    use std::os::unix::fs::MetadataExt as _;
    if !users_of_its_own() {
        return;
    }
    let Some(h) = home() else { return };
    let shared = h.path().join("shared");
    std::fs::create_dir(&shared).expect("mkdir");
    std::os::unix::fs::chown(&shared, Some(33), Some(33)).expect("chown");
    let bind = format!("{}:/data", shared.display());
    let words = ["run", "--network=none", "--name=aa", "--userns=private", "--user=33:33", "-v", &bind, "probe"];
    let out = h.run(&[&words[..], &["/probe", "write", "/data/file", "x", "+", "stat", "/data", "+", "id"]].concat());
    let out = out.ok();
    assert!(out.stdout.contains("33"), "{}", out.stdout);
    let file = std::fs::metadata(shared.join("file")).expect("the file");
    assert_eq!((file.uid(), file.gid()), (33, 33), "on the machine it belongs to the same number");
    let taken = h.entries("data/users");
    assert!(taken.iter().any(|name| name != "lock"), "{taken:?}");
    let out = run(&h, &["--userns=private", "--device=/dev/null:/dev/other"], &["write", "/dev/other", "x"]).ok();
    assert_eq!(out.text(), "ok");
    // A second one has other users; the first keeps its own over a restart.
    let map = |name: &str| {
        h.run(&[
            "run",
            "--network=none",
            "--name",
            name,
            "--userns=auto",
            "probe",
            "/probe",
            "cat",
            "/proc/self/uid_map",
        ])
        .ok()
        .text()
        .to_owned()
    };
    let (second, third) = (map("bb"), map("cc"));
    assert_ne!(second, third);
    assert_eq!(h.run(&["start", "-a", "bb"]).ok().text(), second);
    let _ = h.run(&["rm", "aa", "bb", "cc"]).ok();
    assert!(h.entries("data/users").iter().all(|name| name == "lock"), "{:?}", h.entries("data/users"));
    h.assert_clean();
}

#[test]
fn root_a_first_process_reaps_and_passes_on() {
    let Some(h) = home() else { return };
    let out = run(&h, &["--init"], &["pid", "+", "writable", "/sbin/docker-init", "+", "exit", "7"]);
    assert_eq!(out.code, 7, "{}", out.stderr);
    assert_ne!(out.lines()[0], "1");
    assert!(out.lines()[1].contains("errno:30") || !out.lines()[1].contains("ok"), "{}", out.stdout);
    let out = finish(&mut h.hull(&["run", "--rm", "--network=none", "--init", "probe", "/none"]));
    assert_eq!(out.code, 127, "{}", out.stderr);
    assert!(out.stderr.contains("/none"), "{}", out.stderr);
    // A signal for the container reaches the program, and its end is the container's.
    sleeper(&h, "aa", &["--init"]);
    let _ = h.run(&["stop", "-t", "60", "aa"]).ok();
    assert_eq!(h.run(&["wait", "aa"]).ok().text(), "143");
    let _ = h.run(&["rm", "aa"]).ok();
    h.assert_clean();
}

#[test]
fn root_exec_codes_and_events() {
    let Some(h) = home() else { return };
    sleeper(&h, "aa", &["-e", "ONE=1"]);
    let env = h.path().join("env");
    std::fs::write(&env, "# comment\nTWO=2\nTHREE=3\n").expect("write");
    let env = env.to_str().expect("UTF-8");
    let out =
        h.run(&["exec", "--env-file", env, "-e", "THREE=4", "-w", "/tmp", "aa", "/probe", "env", "+", "cwd"]).ok();
    for wanted in ["ONE=1", "TWO=2", "THREE=4", "/tmp"] {
        assert!(out.lines().contains(&wanted), "{wanted}: {}", out.stdout);
    }
    for (words, code) in [
        (&["exec", "aa", "/probe", "exit", "3"][..], 3),
        (&["exec", "aa", "/none"], 127),
        (&["exec", "aa", "/etc/passwd"], 126),
        (&["exec", "none", "/probe"], 1),
        (&["exec", "--no-such-flag", "aa", "/probe"], 125),
        (&["exec", "-w", "relative", "aa", "/probe"], 125),
    ] {
        let out = h.run(words);
        assert_eq!(out.code, code, "{words:?}: {}", out.stderr);
        assert!(code == 3 || out.stderr.trim_end().lines().count() == 1, "{words:?}: {}", out.stderr);
    }
    let _ = h.run(&["pause", "aa"]).ok();
    let out = h.run(&["exec", "aa", "/probe"]);
    assert!(out.code == 1 && out.stderr.contains("paused"), "{}: {}", out.code, out.stderr);
    let _ = h.run(&["unpause", "aa"]).ok();
    let events = std::fs::read_to_string(h.path().join("data/events/log")).expect("events");
    for wanted in ["exec_create: /probe exit 3", "exec_start: /probe exit 3", "\"exec_die\"", "\"exitCode\":\"3\""] {
        assert!(events.contains(wanted), "{wanted}: {events}");
    }
    let _ = h.run(&["rm", "-f", "aa"]).ok();
    h.assert_clean();
}

#[test]
fn root_exec_in_a_stopped_container() {
    let Some(h) = home() else { return };
    h.run(&["run", "--network=none", "--name=aa", "-e", "KEPT=1", "probe", "/probe", "write", "/mark", "of the run"])
        .ok();
    let out = h.run(&["exec", "aa", "/probe", "cat", "/mark", "+", "env", "+", "write", "/more", "x"]).ok();
    assert!(out.lines().contains(&"of the run") && out.lines().contains(&"KEPT=1"), "{}", out.stdout);
    assert_eq!(h.run(&["exec", "aa", "/probe", "exit", "9"]).code, 9);
    assert_eq!(h.run(&["exec", "aa", "/none"]).code, 127);
    h.run(&["exec", "-d", "aa", "/probe", "exit", "0"]).ok();
    let state = h.run(&["inspect", "--format", "{{.State.Status}}", "aa"]).ok();
    assert_eq!(state.text(), "exited");
    let diff = h.run(&["diff", "aa"]).ok();
    assert!(diff.lines().contains(&"A /more"), "{}", diff.stdout);
    // Killed in the middle: the next command ends what runs, and the container starts again.
    let mut killed = h.hull(&["exec", "aa", "/probe", "sleep", "120"]);
    let mut killed = killed.stdout(Stdio::null()).spawn().expect("start hull");
    let begin = Instant::now();
    while h.entries("run/oci").is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(20), "the sandbox never came");
        std::thread::sleep(Duration::from_millis(10));
    }
    killed.kill().expect("kill");
    killed.wait().expect("wait");
    let _ = h.run(&["start", "-a", "aa"]).ok();
    assert!(h.entries("run/oci").is_empty() && h.entries("run/live").is_empty());
    let _ = h.run(&["rm", "aa"]).ok();
    h.assert_clean();
}

#[test]
fn root_flags_that_cannot_be_leave_nothing() {
    let Some(h) = home() else { return };
    let cases: &[(&[&str], &str)] = &[
        (&["--memory", "lots"], "--memory"),
        (&["--memory=-1m"], "--memory"),
        (&["--memory", "64m", "--memory-swap", "32m"], "--memory-swap"),
        (&["--memory-swap", "64m"], "--memory-swap"),
        (&["--shm-size", "0"], "--shm-size"),
        (&["--cpus", "0"], "--cpus"),
        (&["--cpus", "100000"], "--cpus"),
        (&["--cpus", "1", "--cpu-quota", "5000"], "--cpus"),
        (&["--cpuset-cpus", "x"], "--cpuset-cpus"),
        (&["--pids-limit", "-5"], "--pids-limit"),
        (&["--blkio-weight", "5"], "--blkio-weight"),
        (&["--device-read-bps", "/dev/null:1m"], "--device-read-bps"),
        (&["--ulimit", "bogus=1"], "--ulimit"),
        (&["--ulimit", "nofile=10:5"], "--ulimit"),
        (&["--oom-score-adj", "2000"], "--oom-score-adj"),
        (&["--env-file", "/nonexistent"], "--env-file"),
        (&["--env-file", "/"], "--env-file"),
        (&["--env", "=x"], "--env"),
        (&["--label", "=x"], "--label"),
        (&["--annotation", "=x"], "--annotation"),
        (&["--name", "a/b"], "--name"),
        (&["--hostname", "a b"], "--hostname"),
        (&["--hostname", "a", "--uts", "host"], "hostname and the UTS mode"),
        (&["--user", "nobody-knows"], "--user"),
        (&["--group-add", "nobody-knows"], "--group-add"),
        (&["--workdir", "relative"], "--workdir"),
        (&["--stop-signal", "WHAT"], "--stop-signal"),
        (&["--restart", "sometimes"], "--restart"),
        (&["--restart", "on-failure:x"], "maximum retry count must be an integer"),
        (&["--cap-add", "FLY"], "--cap-add"),
        (&["--cap-drop", "FLY"], "--cap-drop"),
        (&["--security", "some"], "--security"),
        (&["--security-opt", "bogus"], "invalid --security-opt"),
        (&["--security-opt", "seccomp=/nonexistent"], "opening seccomp profile failed"),
        (&["--userns", "mine"], "invalid USER mode"),
        (&["--userns", "private", "--privileged"], "privileged mode is incompatible with user namespaces"),
        (&["--userns", "private", "--pid", "host"], "cannot share the host's"),
        (&["--pid", "mine"], "invalid PID mode"),
        (&["--ipc", "mine"], "invalid IPC mode"),
        (&["--uts", "mine"], "invalid UTS mode"),
        (&["--cgroupns", "mine"], "invalid CGROUP mode"),
        (&["--pid", "container:none"], "no such container"),
        (&["--sysctl", "vm.swappiness=1"], "--sysctl"),
        (&["--sysctl", "net.ipv4.ip_forward=1", "--network", "host"], "not allowed in host network namespace"),
        (&["--device", "/nonexistent"], "--device"),
        (&["--device", "vendor.example/none=x"], "unresolvable CDI devices vendor.example/none=x"),
        (&["--gpus", "lots"], "--gpus"),
        (&["--device-cgroup-rule", "x"], "--device-cgroup-rule"),
        (&["--mount", "type=bind,source=/nonexistent,target=/x"], "bind source path does not exist"),
        (&["--tmpfs", "relative"], "--tmpfs"),
        (&["--cgroup-parent", "../x"], "--cgroup-parent"),
        (&["--memroy", "1m"], "--memory"),
    ];
    for verb in ["run", "create"] {
        for (flags, wanted) in cases {
            let network: &[&str] = if flags.contains(&"--network") { &[] } else { &["--network=none"] };
            let out = finish(h.hull(&[verb]).args(network).args(*flags).args(["probe", "/probe"]));
            let code = if verb == "run" { 125 } else { out.code };
            assert_eq!(out.code, code, "{verb} {flags:?}: {}", out.stderr);
            assert_ne!(out.code, 0, "{verb} {flags:?}");
            let line = out.stderr.trim_end();
            assert!(line.contains(wanted) && line.lines().count() == 1, "{verb} {flags:?}: {line}");
            assert!(out.stdout.is_empty(), "{verb} {flags:?}: {}", out.stdout);
        }
    }
    assert_eq!(containers(&h), 0);
    assert!(h.entries("data/containers").is_empty() && h.entries("data/names").is_empty());
    h.assert_clean();
}

#[test]
fn root_another_runtime_runs_it() {
    if tier::tool("runc").is_none() {
        return;
    }
    let Some(h) = home() else { return };
    let out =
        run(&h, &["--runtime", "runc", "-e", "A=1"], &["pid", "+", "env", "+", "err", "to stderr", "+", "exit", "6"]);
    assert_eq!((out.code, out.stderr.as_str()), (6, "to stderr\n"));
    assert!(out.lines()[0] == "1" && out.lines().contains(&"A=1"), "{}", out.stdout);
    let out = finish(h.hull(&["run", "--rm", "--network=none", "--runtime=runc", "probe", "/none"]).env("LANG", "C"));
    assert_eq!(out.code, 127, "{}", out.stderr);
    let out = run(&h, &["--runtime", "/no/such/runtime"], &["pid"]);
    assert!(out.code == 125 && out.stderr.contains("unknown or invalid runtime name"), "{}", out.stderr);
    sleeper(&h, "aa", &["--runtime", "runc", "--init"]);
    let out = h.run(&["exec", "-e", "B=2", "aa", "/probe", "env", "+", "exit", "4"]);
    assert!(out.code == 4 && out.lines().contains(&"B=2"), "{}: {}{}", out.code, out.stdout, out.stderr);
    let _ = h.run(&["stop", "-t", "60", "aa"]).ok();
    assert_eq!(h.run(&["wait", "aa"]).ok().text(), "143");
    let _ = h.run(&["start", "aa"]).ok();
    let _ = h.run(&["rm", "-f", "aa"]).ok();
    assert_eq!(h.entries("run/foreign"), ["roots"]);
    assert!(h.entries("run/foreign/roots/runc").is_empty() && h.entries("run/oci").is_empty());
    h.assert_clean();
}
