//! The bundles that every contender starts: one root file system with a static busybox, and configurations that differ
//! only in the seccomp profile and the command.

use std::path::Path;

use serde_json::{Value, json};

use crate::Result;

/// What the containers may do: Docker's default set.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Fills `stage`, which the contenders will see as `inner`: `rootfs`, and the bundles `plain`, `seccomp` and `sleep`.
pub(super) fn fill(stage: &Path, inner: &Path) -> Result<()> {
    let rootfs = stage.join("rootfs");
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        std::fs::create_dir_all(rootfs.join(directory))?;
    }
    std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).map_err(|error| format!("/bin/busybox: {error}"))?;
    for applet in ["sh", "sleep", "true"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet))?;
    }
    let capabilities = CAPABILITIES.map(str::to_owned);
    let mut profile = serde_json::to_value(hull_seccomp::default_profile(&capabilities, &[]))?;
    // The sub-architectures that Docker adds; every contender filters for all three.
    if cfg!(target_arch = "x86_64") {
        profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    }
    for (name, command, seccomp) in
        [("plain", "true", None), ("seccomp", "true", Some(&profile)), ("sleep", "sleep 1000", None)]
    {
        let mut spec = config(&inner.join("rootfs"), command);
        if let Some(profile) = seccomp {
            spec["linux"]["seccomp"] = profile.clone();
        }
        std::fs::create_dir_all(stage.join(name))?;
        std::fs::write(stage.join(name).join("config.json"), serde_json::to_vec(&spec)?)?;
    }
    Ok(())
}

/// What `runc spec` writes, without the terminal, the rlimit that not every root may raise, and a path of cgroups.
fn config(rootfs: &Path, command: &str) -> Value {
    let mut spec = hull_testkit::default_spec("");
    spec["process"]["args"] = command.split(' ').collect();
    spec["process"]["capabilities"] =
        json!({"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES});
    spec["root"] = json!({"path": rootfs, "readonly": true});
    spec["hostname"] = json!("bench");
    spec["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    if let Some(linux) = spec["linux"].as_object_mut() {
        linux.remove("cgroupsPath");
    }
    spec
}
