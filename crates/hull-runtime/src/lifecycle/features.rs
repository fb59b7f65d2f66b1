//! The `features` document (runtime-spec `features.md`): what this build and this machine honour.

use serde_json::{Map, Value, json};

use hull_oci::spec::{self, CAPABILITIES};

/// Annotations that could make an otherwise harmless configuration dangerous. Hull acts on none of crun's or runc's
/// beyond choosing the checkpoint tool's own configuration file.
const UNSAFE_ANNOTATIONS: [&str; 1] = ["org.criu.config"];

/// Number of capabilities that the running kernel knows.
fn kernel_capabilities() -> usize {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
    let last = last.and_then(|text| text.trim().parse::<usize>().ok());
    last.map_or(CAPABILITIES.len(), |last| CAPABILITIES.len().min(last + 1))
}

/// The document. `mount_options` are the options that the mount planner honours.
#[must_use]
pub fn features(mount_options: &[&str]) -> Value {
    let options = sorted(mount_options.iter().copied());
    let known_flags = hull_seccomp::known_flags();
    let supported_flags = known_flags.iter().filter(|(_, bit)| hull_sys::seccomp::flags_supported(*bit));
    let mut annotations = Map::new();
    annotations.insert("org.hull.version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    // The name by which callers of runc know it; annotations are strings.
    annotations.insert("org.opencontainers.runc.checkpoint.enabled".to_owned(), json!("true"));
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": spec::VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": options,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": CAPABILITIES[..kernel_capabilities()],
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": sorted(hull_seccomp::known_actions().iter().map(|(name, _)| *name)),
                "operators": sorted(hull_seccomp::known_operators().iter().copied()),
                "archs": sorted(hull_seccomp::known_archs()),
                "knownFlags": sorted(known_flags.iter().map(|(name, _)| *name)),
                "supportedFlags": sorted(supported_flags.map(|(name, _)| *name))
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": {
                "modes": [
                    "MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED",
                    "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE"
                ],
                "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"]
            },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true }
        },
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": UNSAFE_ANNOTATIONS
    })
}

fn sorted<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_sorted_and_unique() {
        let document = features(&["ro", "bind", "ro"]);
        assert_eq!(document["mountOptions"], json!(["bind", "ro"]));
        assert_eq!(document["annotations"]["org.opencontainers.runc.checkpoint.enabled"], "true");
        assert_eq!(document["linux"]["namespaces"].as_array().map(Vec::len), Some(8));
    }
}
