//! Any `config.json` either is refused or becomes a plan; nothing panics, and nothing is changed on the machine.
#![no_main]

use std::path::PathBuf;

use hull_cgroup::Driver;
use hull_oci::Spec;
use hull_runtime::plan::Plan;
use hull_runtime::{CreateOptions, Rootfs, Streams};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut spec) = Spec::parse(bytes) else { return };
    // A mapping of its own is a process for each mount, and the agent's socket a connection.
    spec.mounts.truncate(64);
    for mount in &mut spec.mounts {
        mount.uid_mappings.clear();
        mount.gid_mappings.clear();
        mount.options.retain(|option| !option.contains("idmap"));
    }
    if let Some(seccomp) = spec.linux.as_mut().and_then(|linux| linux.seccomp.as_mut()) {
        seccomp.listener_path.clear();
    }
    // Most inputs have no root file system; the plan is to get further than that.
    if let Some(root) = &mut spec.root {
        root.path = "/".to_owned();
    }
    for driver in [Driver::Cgroupfs, Driver::Systemd] {
        let mut options = CreateOptions {
            id: "fuzz".to_owned(),
            bundle: PathBuf::from("/"),
            root: PathBuf::from("/nonexistent"),
            rootfs: Rootfs::Config,
            streams: Streams::default(),
            cgroup_driver: driver,
            no_pivot: false,
            no_new_keyring: false,
            filter: None,
        };
        if let Err(error) = Plan::new(&spec, &mut options) {
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains('\n'), "one line of error, not {text:?}");
        }
    }
});
