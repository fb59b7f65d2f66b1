//! The six hooks: order, state on standard input, environment, timeouts, failures.

use hull_testkit::{Bundle, Value, bundle, json};

const POINTS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that appends its name and the state it was given to the bundle's log.
fn hook(b: &Bundle, name: &str) -> Value {
    let script = format!("{{ printf '%s ' {name}; cat; echo; }} >> '{}/hooks.log'", b.dir().display());
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
}

fn log(b: &Bundle) -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(b.dir().join("hooks.log")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, state)| (name.to_owned(), serde_json::from_str(state).expect("state as JSON")))
        .collect()
}

#[test]
fn root_hooks_run_in_order_with_the_state() {
    let Some(b) = bundle!() else { return };
    let mut hooks = serde_json::Map::new();
    for point in POINTS.iter().filter(|point| **point != "startContainer") {
        hooks.insert((*point).to_owned(), json!([hook(&b, point), hook(&b, point)]));
    }
    // `startContainer` runs inside the container, where only the probe is.
    hooks.insert(
        "startContainer".to_owned(),
        json!([{"path": "/probe", "args": ["probe", "stdin", "+", "write", "/tmp/started", "yes"]}]),
    );
    let b = b.set("/hooks", Value::Object(hooks)).set("/annotations", json!({"org.test.key": "value"})).probe(&[
        "cat",
        "/tmp/started",
        "+",
        "sleep",
        "60",
    ]);
    let _ = b.create().ok();
    let created = log(&b);
    let names: Vec<&str> = created.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["prestart", "prestart", "createRuntime", "createRuntime", "createContainer", "createContainer"]);
    for (name, state) in &created {
        assert_eq!(state["id"], b.id(), "{name}");
        assert_eq!(state["status"], "creating", "{name}");
        assert_eq!(state["bundle"], b.dir().to_str().expect("UTF-8"), "{name}");
        assert_eq!(state["annotations"]["org.test.key"], "value", "{name}");
        assert!(state["pid"].as_i64().is_some_and(|pid| pid > 0), "{name}: {state}");
    }
    assert!(!b.rootfs().join("tmp/started").exists(), "startContainer ran before start");
    let _ = b.act("start").ok();
    let started = log(&b);
    assert_eq!(started.len(), 8, "{started:?}");
    assert!(started[6..].iter().all(|(name, state)| name == "poststart" && state["status"] == "running"));
    assert_eq!(std::fs::read_to_string(b.rootfs().join("tmp/started")).expect("startContainer"), "yes");
    b.delete();
    let done = log(&b);
    assert_eq!(done.len(), 10, "{done:?}");
    assert!(done[8..].iter().all(|(name, state)| name == "poststop" && state["status"] == "stopped"));
}

#[test]
fn root_create_container_hook_is_in_the_containers_namespaces() {
    let Some(b) = bundle!() else { return };
    let script =
        format!("readlink /proc/self/ns/mnt > '{0}/mnt'; readlink /proc/self/ns/uts > '{0}/uts'", b.dir().display());
    let b = b.set(
        "/hooks",
        json!({"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]}),
    );
    let b = b.probe(&["sleep", "60"]);
    let _ = b.create().ok();
    for name in ["mnt", "uts"] {
        let inside = std::fs::read_link(format!("/proc/{}/ns/{name}", b.pid())).expect("namespace");
        let hook = std::fs::read_to_string(b.dir().join(name)).expect("written by the hook");
        assert_eq!(hook.trim(), inside.to_string_lossy(), "{name}");
    }
}

#[test]
fn root_hook_that_fails_or_hangs_stops_the_create_and_leaves_nothing() {
    for point in ["prestart", "createRuntime", "createContainer"] {
        for (script, text) in [("exit 3", point), ("sleep 60", "time")] {
            let Some(b) = bundle!() else { return };
            let hook =
                json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], "timeout": 1});
            let b = b.set("/hooks", json!({point: [hook]}));
            let out = b.create();
            out.fails(text);
            assert!(out.took.as_secs() < 10, "{point}: {:?}", out.took);
            b.assert_clean();
        }
    }
}

#[test]
fn root_what_a_failed_create_could_not_undo_is_undone_by_the_next_command() {
    let Some(b) = bundle!() else { return };
    let group = b.cgroup("pids");
    // A mount on a group keeps it from being removed, in this mount namespace and as long as that is there.
    let script = format!("mount -t tmpfs t '{}' && exit 3", group.display());
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin:/usr/sbin:/sbin"]});
    let b = b.set("/hooks", json!({"createRuntime": [hook]}));
    let run = b.bundle_command("run", &[]);
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(run.get_program()).args(run.get_args());
    let out = hull_testkit::finish(command.stdin(std::process::Stdio::null()));
    out.fails("createRuntime");
    assert!(group.exists(), "the group was to stay, or this test shows nothing");
    let _ = b.oci(&["list"]).ok();
    assert!(!group.exists(), "the group is left");
    b.assert_clean();
}

#[test]
fn root_hook_paths_that_are_wrong() {
    for (hook, text) in [
        (json!({"path": "relative"}), "hooks.createRuntime[0]"),
        (json!({"path": ""}), "hooks.createRuntime[0]"),
        (json!({"path": "/no/such/hook"}), "/no/such/hook"),
        (json!({"path": "/bin/true", "timeout": 0}), "hooks.createRuntime[0]"),
        (json!({"path": "/bin/true", "timeout": -1}), "hooks.createRuntime[0]"),
    ] {
        let Some(b) = bundle!() else { return };
        let b = b.set("/hooks", json!({"createRuntime": [hook]}));
        b.create().fails(text);
        b.assert_clean();
    }
}

#[test]
fn root_hooks_get_only_the_environment_they_name() {
    let Some(b) = bundle!() else { return };
    let out = b.dir().join("env");
    let script = format!("/usr/bin/env > '{}'", out.display());
    let b = b.set(
        "/hooks",
        json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["ONLY=this"]}]}),
    );
    let _ = b.run().ok();
    let text = std::fs::read_to_string(out).expect("written by the hook");
    // A shell adds these by itself.
    let own: Vec<&str> =
        text.lines().filter(|l| !["PWD=", "_=", "SHLVL=", "OLDPWD="].iter().any(|p| l.starts_with(p))).collect();
    assert_eq!(own, ["ONLY=this"]);
}

#[test]
fn root_create_container_hook_has_the_callers_umask() {
    let Some(b) = bundle!() else { return };
    let log = b.dir().join("umask.log");
    let script = format!("umask >> '{}'", log.display());
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    let b = b.set("/hooks", json!({"createRuntime": hook, "createContainer": hook})).probe(&["umask"]);
    let original = b.bundle_command("run", &[]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 027; exec \"$@\"", "sh"]).arg(original.get_program()).args(original.get_args());
    let out = hull_testkit::finish(command.stdin(std::process::Stdio::null())).ok();
    assert_eq!(std::fs::read_to_string(&log).expect("the hooks ran"), "0027\n0027\n");
    assert_eq!(out.text(), "0022", "the program's own is fixed");
}
