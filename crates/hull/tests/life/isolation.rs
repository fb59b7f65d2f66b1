//! How far a container is kept apart, its first process, programs that join it or its files, and flags that cannot be.

use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
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
    // The monitor goes after the command.
    h.until("nothing runs", || h.entries("run/oci").is_empty() && h.entries("run/live").is_empty());
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
fn root_a_directory_gets_users_of_its_own() {
    let Some(h) = home() else { return };
    if !users_of_its_own() {
        return;
    }
    let rootfs = h.rootfs().display().to_string();
    let look = |flags: &[&str], words: &[&str]| {
        let mut command = h.hull(&["run", "--rm", "--network=none"]);
        finish(command.args(flags).args(["--rootfs", &rootfs, "/probe"]).args(words))
    };
    let owner = |name: &str| std::fs::metadata(h.rootfs().join(name)).expect("made inside").uid();
    let out = look(&["--security=hardened"], &["cat", "/proc/self/uid_map", "+", "write", "/made", "x"]).ok();
    let map: Vec<&str> = out.lines()[0].split_whitespace().collect();
    assert!(map[0] == "0" && map[1] != "0" && map[2] == "65536", "{map:?}");
    assert_eq!(owner("made"), 0, "the disk keeps the container's numbers");
    // Its own again when it runs on, and when it is looked into while it does not.
    let flags = ["run", "-d", "--network=none", "--name=aa", "--userns=private", "--rootfs", &rootfs, "/probe"];
    finish(h.hull(&flags).args(["sleep", "120"])).ok();
    let _ = h.run(&["exec", "aa", "/probe", "write", "/more", "x"]).ok();
    let _ = h.run(&["stop", "-t", "0", "aa"]).ok();
    let _ = h.run(&["exec", "aa", "/probe", "write", "/stopped", "x"]).ok();
    assert_eq!((owner("more"), owner("stopped")), (0, 0));
    let _ = h.run(&["rm", "aa"]).ok();
    // What cannot map owners says so, and a level gives way.
    let out = look(&["--userns=private", "--runtime=/bin/true"], &["pid"]);
    assert!(
        out.code == 125 && out.stderr.contains("--userns: users of its own need Hull's own runtime"),
        "{}",
        out.stderr
    );
    let overlay = h.at("merged");
    let script = "mkdir -p \"$2/upper\" \"$2/work\" \"$3\" && shift && \
        mount -t overlay -o \"lowerdir=$ROOTFS,upperdir=$1/upper,workdir=$1/work\" over \"$2\" && shift 2 && exec \"$@\"";
    let on_overlay = |flags: &[&str]| {
        let hull = h.hull(&["run", "--rm", "--network=none"]);
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", "-"]);
        command.arg(h.at("layers")).arg(&overlay).arg(hull.get_program()).args(hull.get_args()).args(flags);
        command.arg("--rootfs").arg(&overlay).args(["/probe", "cat", "/proc/self/uid_map"]).env("ROOTFS", &rootfs);
        for (name, value) in hull.get_envs() {
            value.map(|value| command.env(name, value));
        }
        finish(&mut command)
    };
    let out = on_overlay(&["--security=hardened"]);
    assert!(out.code == 0 && out.stdout.split_whitespace().nth(1) == Some("0"), "{}{}", out.stdout, out.stderr);
    assert!(out.stderr.contains("WARNING: the container has the machine's users: "), "{}", out.stderr);
    let out = on_overlay(&["--userns=private"]);
    assert!(out.code == 125 && out.stderr.contains("cannot map owners"), "{}", out.stderr);
    assert!(h.entries("data/users").iter().all(|name| name == "lock"), "{:?}", h.entries("data/users"));
    h.assert_clean();
}

#[test]
fn root_files_go_in_and_out_of_users_of_its_own() {
    let Some(h) = home() else { return };
    if !users_of_its_own() {
        return;
    }
    sleeper(&h, "aa", &["--userns=private"]);
    h.write("from/file", "content");
    std::os::unix::fs::chown(h.at("from/file"), Some(33), Some(44)).expect("chown");
    let from = h.at("from").display().to_string();
    let _ = h.run(&["cp", &from, "aa:/tmp/"]).ok();
    let inside = h.run(&["exec", "aa", "/probe", "stat", "/tmp/from/file", "+", "cat", "/tmp/from/file"]).ok();
    assert!(inside.stdout.contains("33") && inside.stdout.contains("44"), "{}", inside.stdout);
    let to = h.at("to").display().to_string();
    let _ = h.run(&["cp", "-a", "aa:/tmp/from", &to]).ok();
    let meta = std::fs::metadata(h.at("to/file")).expect("copied back");
    assert_eq!((meta.uid(), meta.gid()), (33, 44));
    assert_eq!(std::fs::read_to_string(h.at("to/file")).expect("text"), "content");
    let tar = h.run(&["cp", "aa:/tmp/from/file", "-"]).ok();
    // The owners in the header, in octal.
    assert!(tar.stdout.contains("0000041\x000000054\0"), "{:?}", tar.stdout);
    let _ = h.run(&["rm", "-f", "aa"]).ok();
    h.assert_clean();
}

/// A runtime under another name: this binary, called as the one that all others are measured by.
#[test]
fn root_another_runtime_does_what_its_own_does() {
    let Some(h) = crate::home::home() else { return };
    let runtime = h.at("runc");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hull"), &runtime).expect("symlink");
    let runtime = format!("--runtime={}", runtime.display());
    h.write("passed", "by descriptor");
    let line = format!(
        "exec 3<{}; export LISTEN_FDS=1 LISTEN_FDNAMES=one LISTEN_PID=$$; exec \"$@\"",
        h.at("passed").display()
    );
    let hull = h.container("run", &["--rm", &runtime], &["cat", "/proc/self/fd/3", "+", "env"]);
    let mut command = Command::new("sh");
    command.args(["-c", &line, "sh"]).arg(hull.get_program()).args(hull.get_args());
    for (name, value) in hull.get_envs() {
        value.map(|value| command.env(name, value));
    }
    let out = finish(&mut command).ok();
    for wanted in ["by descriptor", "LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_FDNAMES=one"] {
        assert!(out.stdout.contains(wanted), "{wanted}: {}", out.stdout);
    }
    let flags = ["-d", "--name", "aa", &runtime, "--health-cmd", "exit 0", "--health-interval", "100ms"];
    let _ = crate::home::run(&h, &flags, &["sleep", "120"]).ok();
    h.until("healthy", || h.field("aa", "{{.State.Health.Status}}") == "healthy");
    assert_eq!(h.run(&["exec", "aa", "/probe", "exit", "7"]).code, 7);
    assert_eq!(h.run(&["stats", "--no-stream", "--format", "{{.PIDs}}", "aa"]).ok().text(), "1");
    let _ = h.run(&["pause", "aa"]).ok();
    assert!(h.run(&["ps"]).ok().stdout.contains("(Paused)"));
    h.run(&["exec", "aa", "/probe", "pid"]).fails("is paused");
    let _ = h.run(&["unpause", "aa"]).ok();
    assert!(!h.run(&["ps"]).ok().stdout.contains("(Paused)"));
    let _ = h.run(&["exec", "aa", "/probe", "pid"]).ok();
    let _ = h.run(&["rm", "-f", "aa"]).ok();
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
