//! The OCI runtime command line, as containerd, CRI-O, podman and dockerd call it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use hull_testkit::{Bundle, Value, bundle, finish, json};

/// A container that sleeps until it is killed.
fn sleeping() -> Option<Bundle> {
    Some(bundle!()?.probe(&["sleep", "60"]))
}

#[test]
fn root_create_start_kill_delete_go_through_the_states() {
    let Some(b) = sleeping() else { return };
    let _ = b.create().ok();
    let state = b.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], b.id());
    assert_eq!(state["bundle"], b.dir().to_str().expect("UTF-8"));
    assert!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "{state}");
    assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1), "{state}");
    let _ = b.act("start").ok();
    assert_eq!(b.state()["status"], "running");
    b.act("start").fails("cannot start");
    b.act("delete").fails("not stopped");
    let _ = b.oci(&["kill", b.id(), "KILL"]).ok();
    b.wait_status("stopped");
    assert_eq!(b.state()["pid"], 0);
    let _ = b.act("delete").ok();
    b.act("state").fails("does not exist");
    b.assert_clean();
}

#[test]
fn root_run_returns_the_programs_code_and_leaves_nothing() {
    for code in ["0", "3", "127", "255"] {
        let Some(b) = bundle!() else { return };
        let b = b.probe(&["exit", code]);
        assert_eq!(b.run().code.to_string(), code);
        b.assert_clean();
    }
}

#[test]
fn root_killed_program_is_128_plus_signal() {
    let Some(b) = sleeping() else { return };
    let mut run = b.bundle_command("run", &[]).process_group(0).spawn().expect("start hull");
    b.wait_running();
    let _ = b.oci(&["kill", "--all", b.id(), "9"]).ok();
    assert_eq!(run.wait().expect("wait").code(), Some(137));
    b.assert_clean();
}

#[test]
fn root_flags_before_and_after_the_id() {
    let Some(b) = sleeping() else { return };
    b.write();
    let dir = b.dir().to_str().expect("UTF-8");
    let pid_file = b.dir().join("pid");
    let pid_path = pid_file.to_str().expect("UTF-8");
    let _ = b.oci(&["create", b.id(), "--bundle", dir, "--pid-file", pid_path]).ok();
    assert_eq!(std::fs::read_to_string(&pid_file).expect("pid file"), b.pid().to_string());
    let _ = b.oci(&["kill", b.id(), "--all", "SIGKILL"]).ok();
    b.wait_status("stopped");
    let _ = b.oci(&["delete", b.id(), "--force"]).ok();
    let _ = b.oci(&["create", "-b", dir, "--no-new-keyring", b.id()]).ok();
    let _ = b.oci(&["delete", "-f", b.id()]).ok();
    b.assert_clean();
}

#[test]
fn root_called_as_runc_by_argv0() {
    let Some(b) = sleeping() else { return };
    b.write();
    let runc = |words: &[&str]| {
        let mut command = Command::new(b.binary());
        command.arg0("runc").arg("--root").arg(b.state_root()).args(words).stdin(std::process::Stdio::null());
        finish(&mut command)
    };
    let version = runc(&["--version"]).ok();
    assert!(version.stdout.starts_with("runc version "), "{}", version.stdout);
    assert!(version.stdout.contains("spec: 1."), "{}", version.stdout);
    let _ = runc(&["create", "--bundle", b.dir().to_str().expect("UTF-8"), b.id()]).ok();
    assert_eq!(b.state()["status"], "created");
}

#[test]
fn root_list_in_all_its_forms() {
    let Some(b) = sleeping() else { return };
    assert_eq!(b.oci(&["list", "-q"]).ok().stdout, "");
    let none: Value = serde_json::from_str(&b.oci(&["list", "-f", "json"]).ok().stdout).expect("JSON");
    assert!(none.is_null() || none.as_array().is_some_and(Vec::is_empty), "{none}");
    b.run_detached();
    assert_eq!(b.oci(&["list", "--quiet"]).ok().text(), b.id());
    let list: Value = serde_json::from_str(&b.oci(&["list", "--format", "json"]).ok().stdout).expect("JSON");
    assert_eq!(list[0]["id"], b.id());
    assert_eq!(list[0]["status"], "running");
    let table = b.oci(&["list"]).ok();
    let lines = table.lines();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert!(lines[1].starts_with(b.id()), "{}", table.stdout);
}

#[test]
fn root_ps_is_an_array_of_numbers() {
    let Some(b) = sleeping() else { return };
    b.run_detached();
    let pids: Value = serde_json::from_str(&b.oci(&["ps", "--format", "json", b.id()]).ok().stdout).expect("JSON");
    assert_eq!(pids, json!([b.pid()]));
    let table = b.oci(&["ps", b.id()]).ok();
    assert!(table.stdout.contains("PID") && table.stdout.contains(&b.pid().to_string()), "{}", table.stdout);
}

#[test]
fn root_exec_runs_with_its_own_options() {
    let Some(b) = sleeping() else { return };
    b.run_detached();
    assert_eq!(b.exec(&[], &["exit", "42"]).code, 42);
    let out = b.exec(&["--cwd", "/tmp", "-e", "A=b", "-u", "7:8", "-g", "9"], &["cwd", "+", "id", "+", "env"]).ok();
    assert_eq!(out.lines()[..2], ["/tmp", "uid=7 gid=8 groups=9"]);
    assert!(out.lines().contains(&"A=b"), "{}", out.stdout);
    assert!(out.lines().contains(&"TERM=xterm"), "the container's own environment is kept: {}", out.stdout);
    let failed = b.oci(&["exec", b.id(), "/no-such-program"]);
    assert_eq!(failed.code, 255, "{}", failed.stderr);
    failed.fails("no such file or directory");
    let failed = b.oci(&["exec", b.id(), "no-such-program"]);
    assert_eq!(failed.code, 255);
    failed.fails("executable file not found in $PATH");
}

#[test]
fn root_exec_takes_a_process_document_and_detaches() {
    let Some(b) = sleeping() else { return };
    b.run_detached();
    let process = json!({
        "args": ["/probe", "write", "/tmp/out", "done", "+", "sleep", "60"], "env": ["X=1"], "cwd": "/tmp",
        "user": {"uid": 0, "gid": 0}
    });
    let file = b.dir().join("process.json");
    std::fs::write(&file, process.to_string()).expect("write");
    let pid_file = b.dir().join("exec.pid");
    let (file, pid_file) = (file.to_str().expect("UTF-8"), pid_file.to_str().expect("UTF-8"));
    let _ = b.oci(&["exec", "--process", file, "--pid-file", pid_file, "--detach", b.id()]).ok();
    let pid: i32 = std::fs::read_to_string(pid_file).expect("pid file").parse().expect("a number");
    for _ in 0..200 {
        if std::fs::read_to_string(b.rootfs().join("tmp/out")).is_ok_and(|text| text == "done") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(std::fs::read_to_string(b.rootfs().join("tmp/out")).expect("written by exec"), "done");
    let pids: Vec<i32> = serde_json::from_str(&b.oci(&["ps", "-f", "json", b.id()]).ok().stdout).expect("JSON");
    assert!(pids.contains(&pid), "{pid} not in {pids:?}");
}

#[test]
fn root_pause_freezes_and_resume_thaws() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["spin", "60"]);
    b.run_detached();
    let pid = b.pid();
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        fields[11].parse().expect("utime")
    };
    let _ = b.act("pause").ok();
    assert_eq!(b.state()["status"], "paused");
    let before = ticks();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(ticks(), before, "a paused container used the processor");
    b.exec(&[], &["exit", "0"]).fails("paused");
    let _ = b.act("resume").ok();
    assert_eq!(b.state()["status"], "running");
    let _ = b.act("pause").ok();
    b.delete();
    b.assert_clean();
}

#[test]
fn root_update_changes_limits_from_flags_and_from_stdin() {
    let Some(b) = sleeping() else { return };
    if !hull_testkit::tier::cgroup_v1("memory") {
        return;
    }
    b.run_detached();
    let limit = || std::fs::read_to_string(b.cgroup("memory").join("memory.limit_in_bytes")).expect("limit");
    let _ = b.oci(&["update", "--memory", "67108864", b.id()]).ok();
    assert_eq!(limit().trim(), "67108864");
    let mut command = b.command(&["update", "--resources", "-", b.id()]);
    let file = b.dir().join("resources.json");
    std::fs::write(&file, json!({"memory": {"limit": 134_217_728}, "pids": {"limit": 77}}).to_string()).expect("write");
    let _ = finish(command.stdin(std::fs::File::open(file).expect("open"))).ok();
    assert_eq!(limit().trim(), "134217728");
    assert_eq!(std::fs::read_to_string(b.cgroup("pids").join("pids.max")).expect("pids.max").trim(), "77");
}

#[test]
fn root_events_stats_is_one_document() {
    let Some(b) = sleeping() else { return };
    b.run_detached();
    let text = b.oci(&["events", "--stats", b.id()]).ok().stdout;
    let stats: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(stats["type"], "stats");
    assert_eq!(stats["id"], b.id());
    assert_eq!(stats["data"]["pids"]["current"], 1, "{stats}");
    assert!(stats["data"]["memory"]["usage"]["usage"].as_u64().is_some_and(|bytes| bytes > 0), "{stats}");
    assert!(stats["data"]["cpu"]["usage"]["total"].as_u64().is_some_and(|time| time > 0), "{stats}");
}

#[test]
fn root_spec_writes_a_configuration_that_runs() {
    let Some(b) = bundle!() else { return };
    let dir = b.dir().to_str().expect("UTF-8");
    let _ = b.oci(&["spec", "--bundle", dir]).ok();
    let text = std::fs::read_to_string(b.dir().join("config.json")).expect("config.json");
    let spec: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(spec["process"]["args"], json!(["sh"]));
    assert_eq!(spec["root"]["readonly"], true);
    b.oci(&["spec", "--bundle", dir]).fails("config.json");
    let cgroups = spec["linux"]["cgroupsPath"].clone();
    assert!(cgroups.is_null(), "{cgroups}");
    let path = b.spec()["linux"]["cgroupsPath"].clone();
    let b = b.edit(|own| {
        *own = spec;
        own["process"]["terminal"] = json!(false);
        own["process"]["args"] = json!(["/probe", "echo", "it runs"]);
        own["process"]["rlimits"] = json!([]);
        own["linux"]["cgroupsPath"] = path;
    });
    assert_eq!(b.run().ok().text(), "it runs");
}

#[test]
fn features_are_a_document_that_names_what_is_there() {
    let hull = env!("CARGO_BIN_EXE_hull");
    let out = finish(Command::new(hull).args(["oci", "features"])).ok();
    let features: Value = serde_json::from_str(&out.stdout).expect("JSON");
    assert!(features["ociVersionMin"].as_str().is_some_and(|v| v.starts_with("1.0")), "{features}");
    assert!(features["ociVersionMax"].as_str().is_some_and(|v| v.starts_with("1.")), "{features}");
    let has = |pointer: &str, word: &str| {
        let list = features.pointer(pointer).and_then(Value::as_array);
        assert!(list.is_some_and(|list| list.iter().any(|item| item == word)), "{word} in {pointer}: {features}");
    };
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        has("/hooks", hook);
    }
    for namespace in ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"] {
        has("/linux/namespaces", namespace);
    }
    for option in ["rro", "rbind", "idmap", "ridmap", "tmpcopyup", "rprivate", "nosymfollow"] {
        has("/mountOptions", option);
    }
    has("/linux/capabilities", "CAP_SYS_ADMIN");
    has("/linux/seccomp/actions", "SCMP_ACT_NOTIFY");
    assert_eq!(features["linux"]["cgroup"]["v1"], true);
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
}

#[test]
fn root_errors_go_to_stderr_and_to_the_log_in_both_formats() {
    let Some(b) = bundle!() else { return };
    let b = b.set("/process/args", json!(["/absent"]));
    b.write();
    for (format, json) in [("text", false), ("json", true)] {
        let log = b.dir().join(format!("log-{format}"));
        let mut command = Command::new(b.binary());
        command.arg("oci").arg("--log").arg(&log).args(["--log-format", format]).arg("--root").arg(b.state_root());
        let failed = finish(command.arg("create").arg("--bundle").arg(b.dir()).arg(b.id()));
        failed.fails("no such file or directory");
        assert_eq!(failed.code, 1);
        let text = std::fs::read_to_string(&log).expect("log file");
        let last = text.lines().last().expect("a line");
        if json {
            let line: Value = serde_json::from_str(last).expect("a JSON line");
            assert_eq!(line["level"], "error");
            assert!(line["msg"].as_str().is_some_and(|m| m.contains("no such file or directory")), "{line}");
            assert!(line["time"].as_str().is_some_and(|t| t.contains('T')), "{line}");
        } else {
            assert!(last.contains("level=error") && last.contains("no such file or directory"), "{last}");
        }
        b.assert_clean();
    }
}

#[test]
fn root_delete_force_of_nothing_is_fine_and_delete_is_not() {
    let Some(b) = bundle!() else { return };
    let _ = b.oci(&["delete", "--force", "nobody"]).ok();
    assert_eq!(b.oci(&["delete", "nobody"]).fails("does not exist").code, 1);
    assert_eq!(b.oci(&["kill", "nobody", "TERM"]).fails("does not exist").code, 1);
    assert_eq!(b.oci(&["start", "nobody"]).fails("does not exist").code, 1);
}

#[test]
fn root_ids_are_unique_and_of_few_characters() {
    let Some(b) = sleeping() else { return };
    let _ = b.create().ok();
    b.create().fails("already exists");
    let dir = b.dir().to_str().expect("UTF-8").to_owned();
    for id in ["", "..", ".", "a/b", "../x", "a b", "é", "x\ny", ".hidden"] {
        let refused = b.oci(&["create", "--bundle", &dir, "--", id]);
        assert_ne!(refused.code, 0, "{id:?} was accepted");
        assert!(refused.stderr.contains("invalid") || refused.stderr.contains("ID"), "{id:?}: {}", refused.stderr);
    }
    assert_eq!(b.oci(&["list", "-q"]).ok().text(), b.id());
}

#[test]
fn root_signals_by_name_and_number_and_nothing_else() {
    let Some(b) = sleeping() else { return };
    b.run_detached();
    for signal in ["0", "TERM", "SIGTERM", "15", "sigusr1"] {
        let _ = b.oci(&["kill", b.id(), signal]).ok();
    }
    for signal in ["FOO", "99", "-1", "1x"] {
        assert_ne!(b.oci(&["kill", b.id(), signal]).code, 0, "{signal:?} was accepted");
    }
    assert_eq!(b.state()["status"], "running");
}

#[test]
fn root_commands_and_topics_that_do_not_exist_are_code_3() {
    let Some(b) = bundle!() else { return };
    assert_eq!(b.oci(&["frobnicate"]).fails("frobnicate").code, 3);
    assert_eq!(b.oci(&["help", "frobnicate"]).fails("frobnicate").code, 3);
    // Wrong usage of one that exists is 1, also of `exec`, whose other failures are 255.
    for words in [&["exec"][..], &["exec", "--frobnicate", "x"], &["state"], &["list", "--frobnicate"]] {
        assert_eq!(b.oci(words).fails("").code, 1, "{words:?}");
    }
    assert_eq!(b.oci(&["exec", "absent", "true"]).fails("does not exist").code, 255);
}

/// A container whose program dies of a signal with its default action, because it is no PID 1.
fn in_host_pids() -> Option<Bundle> {
    let b = sleeping()?;
    Some(b.edit(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|one| one["type"] != "pid");
    }))
}

#[test]
fn root_real_time_signals_by_name_and_number() {
    for (signal, number) in [("RTMIN+3", 37), ("40", 40), ("SIGRTMAX", 64), ("rtmin", 34)] {
        let Some(b) = in_host_pids() else { return };
        let mut run = b.bundle_command("run", &[]).process_group(0).spawn().expect("start hull");
        b.wait_running();
        let _ = b.oci(&["kill", b.id(), signal]).ok();
        assert_eq!(run.wait().expect("wait").code(), Some(128 + number), "{signal}");
        b.assert_clean();
    }
}
