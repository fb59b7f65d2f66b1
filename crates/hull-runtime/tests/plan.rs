//! Any document becomes a plan or a one-line error that names what is wrong; nothing panics, nothing is left behind.

use std::path::PathBuf;

use hull_oci::Spec;
use hull_runtime::plan::Plan;
use hull_runtime::{CreateOptions, Rootfs, Streams};
use proptest::prelude::*;
use serde_json::{Value, json};

fn document() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "root": {"path": "/", "readonly": true},
        "hostname": "h",
        "process": {
            "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3]}, "args": ["true"], "env": ["A=b"], "cwd": "/",
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 64, "soft": 32}], "oomScoreAdj": 10,
            "scheduler": {"policy": "SCHED_BATCH", "nice": 3}, "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
            "consoleSize": {"height": 1, "width": 2}, "noNewPrivileges": true
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755", "size=64k"]},
            {"destination": "relative", "type": "bind", "source": "/tmp", "options": ["rbind", "rro", "rslave"]}
        ],
        "hooks": {"poststop": [{"path": "/bin/true", "args": ["true"], "timeout": 1}]},
        "annotations": {"a": "b"},
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network"}, {"type": "uts"}, {"type": "user"}],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
            "sysctl": {"net.ipv4.ip_forward": "1"}, "cgroupsPath": "/a/b", "rootfsPropagation": "slave",
            "resources": {
                "memory": {"limit": 1048576, "swap": 2097152}, "cpu": {"shares": 2, "quota": 1000, "period": 1000},
                "pids": {"limit": 5}, "devices": [{"allow": false, "access": "rwm"}]
            },
            "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}],
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_GE"}]}
            ]},
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            "timeOffsets": {}, "personality": {"domain": "LINUX"}
        }
    })
}

fn plan(document: &Value) -> Result<(), String> {
    let spec = Spec::parse(document.to_string().as_bytes()).map_err(|error| error.to_string())?;
    let mut options = CreateOptions {
        id: "plan".to_owned(),
        bundle: PathBuf::from("/"),
        root: PathBuf::from("/nonexistent"),
        rootfs: Rootfs::Config,
        trees: Vec::new(),
        streams: Streams::default(),
        cgroup_driver: hull_cgroup::Driver::Cgroupfs,
        no_pivot: false,
        no_new_keyring: false,
        signals_blocked: false,
        filter: None,
    };
    Plan::new(&spec, &mut options).map(drop).map_err(|error| error.to_string())
}

/// Paths of all values of the document.
fn places(value: &Value, at: String, all: &mut Vec<String>) {
    all.push(at.clone());
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                places(inner, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), all);
            }
        }
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                places(inner, format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
}

fn replacement() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "/",
            "..",
            "/../..",
            "\0",
            "a\nb",
            "-1",
            "0-99999999999",
            "CAP_X",
            "bind",
            "user",
            "/proc/self/ns/net"
        ])
        .prop_map(Value::from),
        "[ -~]{0,40}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!(["x", "x"])),
    ]
}

#[test]
fn the_unchanged_document_is_a_plan_where_it_may_be() {
    match plan(&document()) {
        Ok(()) => {}
        // An ordinary user may not open the mounts.
        Err(error) => assert!(!rustix::process::geteuid().is_root(), "{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_documents_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), replacement()), 1..4)) {
        let mut document = document();
        for (index, value) in changes {
            let mut all = Vec::new();
            places(&document, String::new(), &mut all);
            let place = index.get(&all).clone();
            if let Some(slot) = document.pointer_mut(&place) {
                *slot = value;
            }
        }
        if let Err(error) = plan(&document) {
            prop_assert!(!error.is_empty() && !error.contains('\n'), "{error:?}");
        }
    }
}
