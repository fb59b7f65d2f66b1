//! A change of any input changes the key, and nothing else does.

use std::collections::{BTreeMap, BTreeSet};

use hull_dockerfile::ast::Sharing;
use proptest::prelude::*;

use super::*;
use crate::graph::{Network, NodeId};

fn operation() -> RunOp {
    RunOp {
        base: NodeId(1),
        args: vec!["/bin/sh".into(), "-c".into(), "true".into()],
        env: vec!["A=1".into()],
        quiet_env: Vec::new(),
        workdir: "/".into(),
        user: String::new(),
        pipes: BTreeMap::new(),
        mounts: Vec::new(),
        network: Network::Default,
        insecure: false,
        extra_hosts: Vec::new(),
        hostname: "buildkitsandbox".into(),
        shm_size: None,
        ulimits: Vec::new(),
        limits: BTreeMap::new(),
        devices: Vec::new(),
        normalise: true,
    }
}

fn security(level: Level) -> Security {
    Security { level, no_new_privileges: level != Level::Compat, ..Security::default() }
}

fn key(op: &RunOp) -> Digest {
    let mut parts = Parts::new("run");
    run(&mut parts, op, &security(Level::Standard), "linux/amd64", None);
    parts.key()
}

#[test]
fn the_isolation_of_a_step_counts() {
    let at = |insecure, level| {
        let mut parts = Parts::new("run");
        run(&mut parts, &RunOp { insecure, ..operation() }, &security(level), "linux/amd64", None);
        parts.key()
    };
    let levels = [Level::Compat, Level::Standard, Level::Hardened];
    let keys: BTreeSet<Digest> = levels.into_iter().map(|level| at(false, level)).collect();
    assert_eq!(keys.len(), 3);
    // What is allowed everything has no level.
    assert!(
        levels
            .into_iter()
            .all(|level| at(true, level) == at(true, Level::Standard) && !keys.contains(&at(true, level)))
    );
    let mut parts = Parts::new("run");
    let options = Security { label: None, system_paths_unconfined: true, ..security(Level::Standard) };
    run(&mut parts, &operation(), &options, "linux/amd64", None);
    assert!(!keys.contains(&parts.key()));
}

fn bind(target: &str) -> RunMount {
    RunMount {
        target: target.into(),
        from: Some(NodeId(0)),
        source: "/".into(),
        read_only: true,
        spec: MountSpec::Bind,
    }
}

fn secret(id: &str) -> MountSpec {
    MountSpec::Secret { id: id.into(), env: None, file: true, required: false, mode: 0o400, uid: 0, gid: 0 }
}

#[test]
fn every_field_of_a_step_counts_but_those_that_must_not() {
    type Change = fn(&mut RunOp);
    let changes: &[Change] = &[
        |_| {},
        |op| op.args.push("x".into()),
        |op| op.args = vec!["/bin/sh -c".into(), "true".into()],
        |op| op.env.push("B=1".into()),
        |op| op.env[0] = "A=2".into(),
        |op| op.env[0] = "A=".into(),
        |op| op.env.clear(),
        |op| op.workdir = "/x".into(),
        |op| op.user = "x".into(),
        |op| drop(op.pipes.insert("EOF".into(), "x".into())),
        |op| drop(op.pipes.insert("EOF".into(), "y".into())),
        |op| op.network = Network::None,
        |op| op.network = Network::Host,
        |op| op.insecure = true,
        |op| op.extra_hosts.push("a:1.1.1.1".into()),
        |op| op.hostname = "x".into(),
        |op| op.shm_size = Some(1),
        |op| op.ulimits.push("nofile=1".into()),
        |op| op.devices.push("vendor.com/gpu=0".into()),
        |op| op.mounts.push(bind("/m")),
        |op| op.mounts.push(bind("/n")),
        |op| op.mounts.push(RunMount { read_only: false, ..bind("/m") }),
        |op| op.mounts.push(RunMount { source: "/x".into(), ..bind("/m") }),
        |op| op.mounts.push(RunMount { spec: MountSpec::Tmpfs { size: None }, ..bind("/m") }),
        |op| op.mounts.push(RunMount { spec: MountSpec::Tmpfs { size: Some(1) }, ..bind("/m") }),
        |op| op.mounts.push(RunMount { spec: secret("a"), ..bind("/m") }),
        |op| op.mounts.push(RunMount { spec: secret("b"), ..bind("/m") }),
        |op| {
            let spec = MountSpec::Cache { id: "c".into(), sharing: Sharing::Locked, mode: 0o755, uid: 0, gid: 0 };
            op.mounts.push(RunMount { spec, ..bind("/m") });
        },
    ];
    let keys: BTreeSet<Digest> = changes
        .iter()
        .map(|change| {
            let mut op = operation();
            change(&mut op);
            key(&op)
        })
        .collect();
    assert_eq!(keys.len(), changes.len());
    // Nodes have other numbers in another Dockerfile; proxies and limits change nothing that a step makes.
    let same: &[Change] = &[
        |op| op.base = NodeId(9),
        |op| op.quiet_env.push("http_proxy=x".into()),
        |op| drop(op.limits.insert("memory".into(), "1g".into())),
    ];
    for change in same {
        let mut op = operation();
        change(&mut op);
        assert_eq!(key(&op), key(&operation()));
    }
}

#[test]
fn what_differs_is_said() {
    let parts = |value: &str| {
        let mut parts = Parts::new("run");
        parts.add("the command", value);
        parts.add(BELOW, Digest::of(value.as_bytes()).to_string());
        parts
    };
    assert_eq!(
        difference(&parts("a"), &parts("b")),
        ["the command changed from \"a\" to \"b\"", "what it is built on changed"]
    );
    let mut more = parts("a");
    more.add("variable X", "1");
    assert_eq!(difference(&parts("a"), &more), ["variable X is new"]);
    assert_eq!(difference(&more, &parts("a")), ["variable X is gone"]);
    assert_eq!(Parts::from_json(&more.to_json()), Some(more));
}

proptest! {
    /// No two lists of parts have the same key, however their texts are cut.
    #[test]
    fn parts_are_told_apart(
        one in prop::collection::vec(("[a=#]{0,3}", "[a=#]{0,3}"), 0..4),
        other in prop::collection::vec(("[a=#]{0,3}", "[a=#]{0,3}"), 0..4),
    ) {
        let parts = |list: &[(String, String)]| {
            let mut parts = Parts::default();
            for (name, value) in list {
                parts.add(name, value);
            }
            parts
        };
        prop_assert_eq!(parts(&one).key() == parts(&other).key(), one == other);
    }

    /// Neither long values nor their digests are taken for each other.
    #[test]
    fn long_values_count_wholly(value in "[ab]{500,520}", other in "[ab]{500,520}") {
        let key = |value: &str| {
            let mut parts = Parts::default();
            parts.add("x", value);
            parts.key()
        };
        prop_assert_eq!(key(&value) == key(&other), value == other);
        let digest = ["#", &Digest::of(value.as_bytes()).to_string()].concat();
        prop_assert_ne!(key(&value), key(&digest));
    }
}
