//! `process` of the runtime specification: what the program is given, seen from inside.

use hull_testkit::{Bundle, bundle, json};

#[track_caller]
fn says(b: &Bundle, expected: &str) {
    assert_eq!(b.run().ok().text(), expected);
}

#[test]
fn root_five_capability_sets_are_exactly_those_asked_for() {
    let Some(b) = bundle!() else { return };
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let mut args = Vec::new();
    for set in sets {
        args.extend(["status", set, "+"]);
    }
    let b = b.probe(&args);
    let mask = 1_u64 << 29 | 1 << 5 | 1 << 10;
    says(&b, &format!("{0:016x}\n{1:016x}\n{1:016x}\n{1:016x}\n{0:016x}", 0, mask));
    let b = b.set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"], "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]
        }),
    );
    // A user other than root keeps through execve what is ambient.
    let b = b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    says(&b, &format!("{0:016x}\n{0:016x}\n{0:016x}\n{1:016x}\n{0:016x}", 1 << 5, 1 | 1 << 5 | 1 << 7));
    let b = b.set("/process/capabilities", json!({}));
    says(&b, &format!("{0:016x}\n{0:016x}\n{0:016x}\n{0:016x}\n{0:016x}", 0));
}

#[test]
fn root_unknown_capabilities_warn_and_do_not_fail() {
    let Some(b) = bundle!() else { return };
    let b = b.caps(&["CAP_KILL", "CAP_FROM_THE_FUTURE"]).probe(&["status", "CapEff"]);
    let out = b.run().ok();
    assert_eq!(out.text(), format!("{:016x}", 1 << 5));
    assert!(out.stderr.contains("CAP_FROM_THE_FUTURE"), "ignored silently: {}", out.stderr);
}

#[test]
fn root_user_groups_and_umask() {
    let Some(b) = bundle!() else { return };
    let b = b
        .set("/process/user", json!({"uid": 1000, "gid": 1001, "umask": 0o027, "additionalGids": [5, 6]}))
        .probe(&["id", "+", "umask"]);
    says(&b, "uid=1000 gid=1001 groups=5,6\n0027");
    let b = b.set("/process/user", json!({"uid": 0, "gid": 0})).probe(&["umask"]);
    says(&b, "0022");
}

#[test]
fn root_environment_last_wins_and_home_comes_from_passwd() {
    let Some(b) = bundle!() else { return };
    std::fs::write(b.rootfs().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nann:x:7:7::/home/ann:/bin/sh\n")
        .expect("passwd");
    let b = b.set("/process/env", json!(["A=1", "B=2", "A=3"])).probe(&["env"]);
    says(&b, "A=3\nB=2\nHOME=/root");
    let b = b.set("/process/user", json!({"uid": 7, "gid": 7}));
    says(&b, "A=3\nB=2\nHOME=/home/ann");
    let b = b.set("/process/env", json!(["HOME=/elsewhere"]));
    says(&b, "HOME=/elsewhere");
}

#[test]
fn root_working_directory() {
    let Some(b) = bundle!() else { return };
    let b = b.set("/process/cwd", json!("/tmp")).probe(&["cwd"]);
    says(&b, "/tmp");
    // Like runc, a missing one is made.
    let b = b.set("/process/cwd", json!("/made/for/it")).probe(&["cwd"]);
    says(&b, "/made/for/it");
}

#[test]
fn root_resource_limits_and_lowering_without_privilege() {
    let Some(b) = bundle!() else { return };
    let b = b
        .set(
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]),
        )
        .probe(&["rlimits"]);
    let out = b.run().ok();
    let line = |name: &str| {
        let line = out.stdout.lines().find(|line| line.starts_with(name)).expect("a limit").to_owned();
        line.split_whitespace().rev().skip(1).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("Max open files"), ["200", "100"]);
    let core = out.stdout.lines().find(|line| line.starts_with("Max core file size")).expect("core");
    assert!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");
}

#[test]
fn root_no_new_privileges_both_ways() {
    for (value, expected) in [(true, "1"), (false, "0")] {
        let Some(b) = bundle!() else { return };
        says(&b.set("/process/noNewPrivileges", json!(value)).probe(&["status", "NoNewPrivs"]), expected);
    }
}

#[test]
fn root_oom_score_adjustment() {
    let Some(b) = bundle!() else { return };
    let b = b.set("/process/oomScoreAdj", json!(321)).probe(&["cat", "/proc/self/oom_score_adj"]);
    says(&b, "321");
}

/// Starts a sleeping container and asks a tool of the host about its process.
fn asked(b: &Bundle, tool: &str, flags: &[&str]) -> Option<String> {
    let tool = hull_testkit::tier::tool(tool)?;
    b.run_detached();
    let pid = b.pid().to_string();
    let out = hull_testkit::finish(std::process::Command::new(tool).args(flags).arg(pid)).ok();
    Some(out.stdout)
}

#[test]
fn root_scheduler() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["sleep", "60"]).set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 7}));
    let Some(text) = asked(&b, "chrt", &["-p"]) else { return };
    assert!(text.contains("SCHED_BATCH"), "{text}");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", b.pid())).expect("stat");
    let nice = stat.rsplit(')').next().expect("fields").split_whitespace().nth(16).expect("nice").to_owned();
    assert_eq!(nice, "7");
}

#[test]
fn root_scheduler_real_time_with_flags() {
    if std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        // There a new group has no real-time share to give.
        hull_testkit::tier::skip("rt", "real-time group scheduling is on");
        return;
    }
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["sleep", "60"]).set(
        "/process/scheduler",
        json!({"policy": "SCHED_FIFO", "priority": 12, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
    );
    let Some(text) = asked(&b, "chrt", &["-p"]) else { return };
    assert!(text.contains("SCHED_FIFO|SCHED_RESET_ON_FORK") && text.contains("12"), "{text}");
}

#[test]
fn root_io_priority() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["sleep", "60"]).set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}));
    let Some(text) = asked(&b, "ionice", &["-p"]) else { return };
    assert_eq!(text.trim(), "best-effort: prio 6");
}

#[test]
fn root_personality() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["sleep", "60"]).set("/linux/personality", json!({"domain": "LINUX32"}));
    b.run_detached();
    let text = std::fs::read_to_string(format!("/proc/{}/personality", b.pid())).expect("personality");
    assert_eq!(text.trim(), "00000008");
}

#[test]
fn root_exec_affinity_is_final() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["sleep", "60"]).set("/process/execCPUAffinity", json!({"initial": "0", "final": "0"}));
    b.run_detached();
    let out = b.exec(&[], &["status", "Cpus_allowed_list"]).ok();
    assert_eq!(out.text(), "0");
}

#[test]
fn root_memory_policy() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["sleep", "60"]).set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0"}));
    let out = b.create();
    if out.code != 0 {
        // A kernel without NUMA says so.
        out.fails("memoryPolicy");
        return;
    }
    let maps = std::fs::read_to_string(format!("/proc/{}/numa_maps", b.pid())).unwrap_or_default();
    assert!(maps.contains("bind:0"), "{maps}");
}

#[test]
fn root_seccomp_and_labels_without_their_module_are_errors() {
    let has = |name: &str| std::fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|lsm| lsm.contains(name));
    if !has("apparmor") {
        let Some(b) = bundle!() else { return };
        b.set("/process/apparmorProfile", json!("some-profile")).create().fails("apparmor");
    }
    if !has("selinux") {
        let Some(b) = bundle!() else { return };
        b.set("/process/selinuxLabel", json!("system_u:system_r:container_t:s0")).create().fails("selinux");
    }
}

#[test]
fn root_program_lookup_diagnoses() {
    let write = |b: &Bundle, name: &str, bytes: &[u8], mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = b.rootfs().join(name);
        std::fs::write(&path, bytes).expect("write");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    // An ELF header with one PT_INTERP segment that names a loader.
    let mut elf = vec![0_u8; 64 + 56];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[6] = 1;
    elf[16] = 2;
    elf[18] = 62;
    elf[20] = 1;
    elf[32] = 64;
    elf[52] = 64;
    elf[54] = 56;
    elf[56] = 1;
    elf[64] = 3;
    elf[72] = 120;
    let loader = b"/lib/ld-absent.so.1\0";
    elf[96] = u8::try_from(loader.len()).expect("short");
    elf[104] = elf[96];
    elf.extend_from_slice(loader);
    let mut foreign = elf.clone();
    foreign[18] = 183;
    let cases: [(&str, &[u8], u32, &[&str]); 6] = [
        ("script", b"#!/bin/absent-shell -e\n", 0o755, &["/bin/absent-shell", "no such file"]),
        ("dos", b"#!/probe\r\n", 0o755, &["no such file"]),
        ("elf", &elf, 0o755, &["/lib/ld-absent.so.1", "no such file"]),
        ("foreign", &foreign, 0o755, &["exec format error"]),
        ("plain", b"x", 0o644, &["permission denied"]),
        ("empty", b"", 0o755, &["exec format error"]),
    ];
    for (name, bytes, mode, texts) in cases {
        let Some(b) = bundle!() else { return };
        write(&b, name, bytes, mode);
        let b = b.set("/process/args", json!([format!("/{name}")]));
        let out = b.run();
        for text in texts {
            assert!(out.stderr.to_lowercase().contains(text), "{name}: no {text:?} in: {}", out.stderr);
        }
        out.fails("");
        b.assert_clean();
    }
    let Some(b) = bundle!() else { return };
    b.set("/process/args", json!(["not-in-path"])).create().fails("executable file not found in $PATH");
    let Some(b) = bundle!() else { return };
    b.set("/process/args", json!(["/tmp"])).create().fails("/tmp");
}

#[test]
fn root_path_of_the_container_decides() {
    let Some(b) = bundle!() else { return };
    std::fs::create_dir(b.rootfs().join("own")).expect("mkdir");
    std::fs::copy(b.rootfs().join("probe"), b.rootfs().join("own/tool")).expect("copy");
    let b = b.set("/process/env", json!(["PATH=/nowhere:/own"])).set("/process/args", json!(["tool", "argv0"]));
    says(&b, "tool");
}
