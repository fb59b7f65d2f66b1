//! Configurations that are wrong: one line that names the field or file, exit code 1, and nothing left behind.

use hull_testkit::{Bundle, Finished, Value, bundle, json};

/// Runs `create` and asserts that it is refused with a line that contains `text`, and that nothing is left.
#[track_caller]
fn refused(b: &Bundle, text: &str) {
    check(b, &b.create(), text);
}

#[track_caller]
fn check(b: &Bundle, out: &Finished, text: &str) {
    assert_eq!(out.fails(text).code, 1, "{}", out.stderr);
    assert!(!out.stderr.contains("panicked"), "{}", out.stderr);
    b.assert_clean();
}

/// Each of these replaces one field; the message must contain the last part.
#[track_caller]
fn refuses_each(cases: &[(&str, Value, &str)]) {
    for (pointer, value, text) in cases {
        let Some(b) = bundle!() else { return };
        let b = b.set(pointer, value.clone());
        let out = b.create();
        assert_ne!(out.code, 0, "{pointer} = {value} was accepted");
        assert!(out.stderr.contains(text), "{pointer} = {value}: no {text:?} in: {}", out.stderr);
        check(&b, &out, text);
    }
}

#[test]
fn root_config_that_is_not_there_or_not_json() {
    let Some(b) = bundle!() else { return };
    let dir = b.dir().to_str().expect("UTF-8").to_owned();
    let create = || b.oci(&["create", "--bundle", &dir, b.id()]);
    check(&b, &create(), "config.json");
    for text in ["", "{", "[]", "null", "\"x\"", "{\"ociVersion\": \"1.0.0\",}", "\u{0}\u{1}", "{} {}"] {
        std::fs::write(b.dir().join("config.json"), text).expect("write");
        let out = create();
        assert_ne!(out.code, 0, "{text:?} was accepted");
        check(&b, &out, "config");
    }
    std::fs::write(b.dir().join("config.json"), [0xff, 0xfe, 0x00]).expect("write");
    check(&b, &create(), "config");
    std::fs::remove_file(b.dir().join("config.json")).expect("remove");
    std::fs::create_dir(b.dir().join("config.json")).expect("a directory");
    check(&b, &create(), "config.json");
}

#[test]
fn root_config_of_absurd_size_or_depth() {
    let Some(b) = bundle!() else { return };
    let dir = b.dir().to_str().expect("UTF-8").to_owned();
    let file = std::fs::File::create(b.dir().join("config.json")).expect("create");
    file.set_len(1 << 40).expect("a sparse terabyte");
    check(&b, &b.oci(&["create", "--bundle", &dir, b.id()]), "config");
    let deep = format!("{{\"annotations\": {}", "[".repeat(500_000));
    std::fs::write(b.dir().join("config.json"), deep).expect("write");
    check(&b, &b.oci(&["create", "--bundle", &dir, b.id()]), "config");
}

#[test]
fn root_config_json_that_is_a_fifo_does_not_hang() {
    let Some(b) = bundle!() else { return };
    let dir = b.dir().to_str().expect("UTF-8").to_owned();
    let path = b.dir().join("config.json");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("mkfifo");
    check(&b, &b.oci(&["create", "--bundle", &dir, b.id()]), "config.json");
}

#[test]
fn root_wrong_types_name_the_field() {
    refuses_each(&[
        ("/ociVersion", json!(1), "ociVersion"),
        ("/process", json!([]), "process"),
        ("/process/args", json!("sh"), "process.args"),
        ("/process/args", json!([1]), "process.args[0]"),
        ("/process/user", json!({"uid": "root", "gid": 0}), "process.user.uid"),
        ("/process/user", json!({"uid": -1, "gid": 0}), "process.user.uid"),
        ("/process/user", json!({"uid": 4_294_967_296_u64, "gid": 0}), "process.user.uid"),
        ("/root", json!({"path": 5}), "root.path"),
        ("/mounts", json!({}), "mounts"),
        ("/mounts", json!([{"destination": "/x", "options": "ro"}]), "mounts[0].options"),
        ("/linux/resources", json!({"memory": {"limit": "512m"}}), "linux.resources.memory.limit"),
        ("/linux/resources", json!({"pids": {"limit": 1.5}}), "linux.resources.pids.limit"),
        ("/linux/namespaces", json!([{"type": 3}]), "linux.namespaces[0].type"),
    ]);
}

#[test]
fn root_unknown_words_name_the_field() {
    refuses_each(&[
        ("/linux/namespaces", json!([{"type": "pids"}]), "linux.namespaces[0]"),
        ("/process/rlimits", json!([{"type": "RLIMIT_FOO", "soft": 1, "hard": 1}]), "process.rlimits[0]"),
        ("/process/scheduler", json!({"policy": "SCHED_FAST"}), "process.scheduler"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_X", "priority": 1}), "process.ioPriority"),
        ("/linux/rootfsPropagation", json!("sideways"), "linux.rootfsPropagation"),
        ("/linux/personality", json!({"domain": "SOLARIS"}), "linux.personality"),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_MAYBE"}), "seccomp"),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]}), "seccomp"),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "q", "major": 1, "minor": 3}]), "linux.devices[0]"),
        ("/linux/timeOffsets", json!({"yesterday": {"secs": 1}}), "linux.timeOffsets"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_FAST", "nodes": "0"}), "linux.memoryPolicy"),
    ]);
}

#[test]
fn root_namespaces_that_conflict() {
    refuses_each(&[
        ("/linux/namespaces", json!([{"type": "pid"}, {"type": "mount"}, {"type": "pid"}]), "linux.namespaces"),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "pid", "path": "/no/such/file"}]), "/no/such/file"),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "uts"}, {"type": "pid", "path": "/proc/self/ns/net"}]),
            "namespace",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "uts"}, {"type": "pid", "path": "/etc/passwd"}]),
            "namespace",
        ),
        // A host name needs a UTS namespace, an ID map a user namespace, offsets a time namespace.
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "pid"}]), "hostname"),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 1}]), "uidMappings"),
        ("/linux/timeOffsets", json!({"monotonic": {"secs": 1}}), "timeOffsets"),
    ]);
}

#[test]
fn root_sysctls_outside_the_container() {
    refuses_each(&[
        ("/linux/sysctl", json!({"kernel.panic": "1"}), "kernel.panic"),
        ("/linux/sysctl", json!({"vm.swappiness": "1"}), "vm.swappiness"),
        ("/linux/sysctl", json!({"net/../kernel/panic": "1"}), "linux.sysctl"),
        ("/linux/sysctl", json!({"kernel.hostname": "x"}), "kernel.hostname"),
        ("/linux/sysctl", json!({"net.ipv4.no_such_knob": "1"}), "no_such_knob"),
    ]);
}

#[test]
fn root_absurd_numbers() {
    refuses_each(&[
        ("/linux/resources", json!({"memory": {"limit": 9_223_372_036_854_775_808_u64}}), "memory.limit"),
        ("/linux/resources", json!({"memory": {"limit": -2}}), "memory.limit"),
        ("/linux/resources", json!({"cpu": {"period": 1}}), "cpu"),
        ("/linux/resources", json!({"cpu": {"cpus": "0-999999999999"}}), "cpu"),
        ("/process/oomScoreAdj", json!(5000), "oomScoreAdj"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 9}), "ioPriority"),
        ("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]), "rlimits[0]"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}, {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}]),
            "rlimits[1]",
        ),
    ]);
}

#[test]
fn root_files_that_are_missing() {
    let Some(b) = bundle!() else { return };
    refused(&b.set("/root/path", json!("no-such-rootfs")), "no-such-rootfs");
    let Some(b) = bundle!() else { return };
    refused(&b.set("/root/path", json!("config.json")), "config.json");
    refuses_each(&[
        ("/root/path", json!(""), "root.path"),
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!([""]), "process.args"),
        ("/process/cwd", json!(""), "process.cwd"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/ociVersion", json!(""), "ociVersion"),
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/ociVersion", json!("one"), "ociVersion"),
    ]);
}

#[test]
fn root_nul_bytes_are_refused_where_they_are() {
    refuses_each(&[
        ("/process/args", json!(["/probe", "a\u{0}b"]), "process.args[1]"),
        ("/process/env", json!(["A=\u{0}"]), "process.env[0]"),
        ("/process/cwd", json!("/a\u{0}"), "process.cwd"),
        ("/hostname", json!("a\u{0}"), "hostname"),
        ("/linux/maskedPaths", json!(["/proc/a\u{0}"]), "linux.maskedPaths[0]"),
    ]);
    let Some(b) = bundle!() else { return };
    refused(&b.mount(json!({"destination": "/x\u{0}", "type": "tmpfs", "source": "t"})), "mounts[7]");
}

#[test]
fn root_mounts_that_make_no_sense() {
    let cases = [
        (json!({"destination": "", "type": "tmpfs", "source": "t"}), "mounts[7]"),
        (json!({"destination": "/x", "type": "nosuchfs", "source": "t"}), "/x"),
        (
            json!({"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"]}),
            "/no/such/source",
        ),
        (json!({"destination": "/x", "type": "tmpfs", "source": "t", "options": ["size=banana"]}), "/x"),
        (json!({"destination": "/x", "type": "tmpfs", "source": "t", "options": ["frobnicate"]}), "/x"),
        (
            json!({"destination": "/x", "type": "tmpfs", "source": "t",
                   "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
            "mounts[7]",
        ),
    ];
    for (mount, text) in cases {
        let Some(b) = bundle!() else { return };
        refused(&b.mount(mount), text);
    }
}

#[test]
fn root_cgroup_paths_stay_in_the_hierarchy() {
    for path in ["/../../tmp/hull-escape", "../x", "/a/../../../b"] {
        let Some(b) = bundle!() else { return };
        let name = b.id().to_owned();
        let b = b.set("/linux/cgroupsPath", json!(format!("{path}-{name}")));
        let out = b.create();
        assert!(!std::path::Path::new(&format!("/tmp/hull-escape-{name}")).exists());
        // Refused, or taken for a path below the hierarchy; never outside it.
        if out.code != 0 {
            out.fails("cgroup");
        }
    }
}

#[test]
fn root_bad_process_documents_for_exec() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["sleep", "60"]);
    b.run_detached();
    let file = b.dir().join("process.json");
    let path = file.to_str().expect("UTF-8");
    for (text, field) in [
        ("", "process.json"),
        ("{", "process.json"),
        ("{\"args\": 3}", "args"),
        ("{\"args\": [], \"cwd\": \"/\"}", "args"),
        ("{\"args\": [\"/probe\"], \"cwd\": \"x\"}", "cwd"),
    ] {
        std::fs::write(&file, text).expect("write");
        let out = b.oci(&["exec", "--process", path, b.id()]);
        assert_ne!(out.code, 0, "{text:?} was accepted");
        assert_eq!(out.code, 255, "{}", out.stderr);
        out.fails(field);
    }
    assert_eq!(b.state()["status"], "running");
}

#[test]
fn root_command_lines_that_are_wrong() {
    let Some(b) = bundle!() else { return };
    for words in [
        &["frobnicate"][..],
        &["create"],
        &["state"],
        &["state", "a", "b"],
        &["exec", "x"],
        &["kill"],
        &["create", "--no-such-flag", "x"],
        &["run", "--preserve-fds", "many", "x"],
    ] {
        let out = b.oci(words);
        assert!(out.code != 0 && (out.code < 128 || out.code == 255), "{words:?}: {}", out.code);
        assert!(!out.stderr.is_empty() && !out.stderr.contains("panicked"), "{words:?}: {}", out.stderr);
    }
    b.assert_clean();
}

#[test]
fn root_state_records_that_are_damaged_do_not_stop_the_others() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["sleep", "60"]);
    b.run_detached();
    for (name, text) in [("empty", ""), ("cut", "{\"id\": \"cu"), ("odd", "[1, 2]")] {
        let dir = b.state_root().join(name);
        std::fs::create_dir(&dir).expect("state directory");
        std::fs::write(dir.join("state.json"), text).expect("write");
    }
    let list = b.oci(&["list", "-q"]);
    assert!(list.stdout.lines().any(|id| id == b.id()), "{} {}", list.stdout, list.stderr);
    for name in ["empty", "cut", "odd"] {
        assert_ne!(b.oci(&["state", name]).code, 0, "{name}");
        let _ = b.oci(&["delete", "--force", name]).ok();
        assert!(!b.state_root().join(name).exists(), "{name} is still there");
    }
}
