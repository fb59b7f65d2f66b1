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

/// What `runc spec` writes, without the terminal and without the rlimit that not every root may raise.
fn config(rootfs: &Path, command: &str) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": command.split(' ').collect::<Vec<_>>(),
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "noNewPrivileges": true
        },
        "root": {"path": rootfs, "readonly": true},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
