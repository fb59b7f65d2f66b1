//! Facts about the machine that a specification depends on, each asked for only when a flag needs it.

use std::path::Path;

use crate::config::{DeviceConfig, RunConfig};
use crate::error::Error;
use hull_oci::spec::CAPABILITIES;

use crate::spec::Context;
use crate::{flags, seccomp};

/// Nodes that every container gets anyway, or that belong to the host's own terminals.
const NOT_PASSED: [&str; 9] = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "core"];

/// Fills in what the machine says.
pub(crate) fn probe(config: &RunConfig, context: &mut Context) -> Result<(), Error> {
    let limits = &config.limits;
    if limits.memory_swappiness.is_some() || limits.oom_kill_disable {
        context.cgroup_v2 = hull_cgroup::Hierarchies::probe()?.is_v2();
    }
    let security = &config.security;
    if security.privileged || security.cap_add.iter().any(|one| one == "ALL") {
        let sets = rustix::thread::capabilities(None).map_err(Error::io("read", "own capabilities"))?;
        let bits = sets.permitted.bits();
        context.available = CAPABILITIES
            .iter()
            .enumerate()
            .filter(|(number, _)| bits & (1 << number) != 0)
            .map(|(_, name)| (*name).to_owned())
            .collect();
    }
    if security.privileged {
        context.host_devices = host_devices()?;
    }
    if limits.nano_cpus.is_some() {
        let set = rustix::thread::sched_getaffinity(None).map_err(Error::io("read", "own CPU affinity"))?;
        context.cpus = set.count();
    }
    let kernel = rustix::system::uname();
    context.kernel = kernel.release().to_str().ok().and_then(seccomp::parse_kernel).unwrap_or_default();
    Ok(())
}

fn host_devices() -> Result<Vec<DeviceConfig>, Error> {
    let mut devices = Vec::new();
    for entry in std::fs::read_dir("/dev").map_err(Error::io("read", Path::new("/dev")))?.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if NOT_PASSED.contains(&name.as_str()) || ["pts", "shm", "mqueue", "fd"].contains(&name.as_str()) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
            // Sockets and empty directories are no devices.
            devices.extend(flags::device(&format!("/dev/{name}")).unwrap_or_default());
        }
    }
    Ok(devices)
}
