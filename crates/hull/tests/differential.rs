//! The same bundle under another runtime: what the program sees must be the same.
//!
//! A peer is used where it is installed. Its version may be old; only what the specification fixes is compared.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use hull_testkit::{Bundle, bundle, json, tier};

/// A script that takes `oci` and runc's arguments and calls the peer; crun refuses hybrid cgroups, so it does not see v2.
fn wrapper(b: &Bundle, peer: &str) -> Option<PathBuf> {
    let path = tier::tool(peer)?;
    let script = b.dir().join("peer");
    let hide = "mount --make-rprivate / && umount /sys/fs/cgroup/unified 2>/dev/null";
    let text =
        format!("#!/bin/sh\nshift\nexec unshare --mount sh -c '{hide}; exec {} \"$@\"' sh \"$@\"\n", path.display());
    std::fs::write(&script, text).expect("write");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    Some(script)
}

/// Runs the probe under Hull and under each peer that is installed, and compares what `pick` keeps of the output.
fn same(args: &[&str], change: impl Fn(Bundle) -> Bundle, pick: impl Fn(&str) -> Vec<String>) {
    for peer in ["crun", "runc"] {
        let Some(b) = bundle!() else { return };
        let Some(script) = wrapper(&b, peer) else { continue };
        let change = |b: Bundle| change(b.set("/ociVersion", json!("1.0.2"))).probe(args);
        let b = change(b);
        let ours = b.run().ok();
        let theirs = change(Bundle::new(script)).run().ok();
        assert_eq!(pick(&ours.stdout), pick(&theirs.stdout), "hull (left) and {peer} (right)");
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// The destinations of the mount table, with their types, in a fixed order.
fn targets(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let target = left.split(' ').nth(4)?;
            // How the cgroup directory is laid out inside, and what covers a masked path, is the runtime's choice.
            let listed =
                !target.starts_with("/sys/fs/cgroup/") && !target.starts_with("/proc/") && target != "/sys/firmware";
            listed.then(|| format!("{target} {}", right.split(' ').next().unwrap_or("")))
        })
        .collect();
    found.sort();
    found
}

const SETS: [&str; 20] = [
    "status",
    "CapInh",
    "+",
    "status",
    "CapPrm",
    "+",
    "status",
    "CapEff",
    "+",
    "status",
    "CapBnd",
    "+",
    "status",
    "CapAmb",
    "+",
    "status",
    "NoNewPrivs",
    "+",
    "status",
    "Seccomp",
];

#[test]
fn root_capabilities_are_the_peers() {
    same(&SETS, |b| b, lines);
    same(&SETS, |b| b.caps(&["CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_ADMIN"]), lines);
    same(&SETS, |b| b.set("/process/user", json!({"uid": 1000, "gid": 1000})), lines);
}

#[test]
fn root_identity_environment_and_names_are_the_peers() {
    let args = ["id", "+", "env", "+", "cwd", "+", "hostname", "+", "pid", "+", "umask"];
    same(&args, |b| b, lines);
    let user = json!({"uid": 7, "gid": 8, "additionalGids": [9, 10], "umask": 0o077});
    same(&args, |b| b.set("/process/user", user.clone()).set("/process/cwd", json!("/tmp")), lines);
}

#[test]
fn root_mounts_are_the_peers() {
    same(&["mounts"], |b| b, targets);
    same(&["mounts"], |b| b.mount(json!({"destination": "/data", "type": "tmpfs", "source": "t"})), targets);
}

#[test]
fn root_devices_are_the_peers() {
    same(
        &["stat", "/dev/null", "+", "stat", "/dev/tty", "+", "readlink", "/dev/fd", "+", "stat", "/dev/zero"],
        |b| b,
        lines,
    );
}

#[test]
fn root_resource_limits_are_the_peers() {
    let limits = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}, {"type": "RLIMIT_STACK", "soft": 1_048_576, "hard": 1_048_576}]);
    same(&["rlimits"], |b| b.set("/process/rlimits", limits.clone()), lines);
}

#[test]
fn root_cgroup_values_are_the_peers() {
    if !tier::cgroup_v1("memory") {
        return;
    }
    let args = [
        "cat",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "+",
        "cat",
        "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
        "+",
        "cat",
        "/sys/fs/cgroup/cpu/cpu.shares",
        "+",
        "cat",
        "/sys/fs/cgroup/pids/pids.max",
    ];
    let change = |b: Bundle| {
        b.edit(|spec| {
            spec["linux"]["resources"] = json!({
                "memory": {"limit": 104_857_600}, "cpu": {"quota": 50_000, "period": 100_000, "shares": 300}, "pids": {"limit": 33}
            });
        })
    };
    same(&args, change, lines);
}

#[test]
fn root_exit_codes_are_the_peers() {
    for peer in ["crun", "runc"] {
        let Some(b) = bundle!() else { return };
        let Some(script) = wrapper(&b, peer) else { continue };
        let exits = |b: Bundle| b.set("/ociVersion", json!("1.0.2")).probe(&["exit", "37"]);
        let ours = exits(b);
        assert_eq!((ours.run().code, exits(Bundle::new(script)).run().code), (37, 37), "{peer}");
    }
}
