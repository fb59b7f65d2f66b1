//! Mounts: the file systems every container has, generated files, and what the user adds, in an order in which no
//! mount hides a later one.

use hull_oci::spec::Mount;

use crate::config::{MountConfig, NamespaceChoice, RunConfig};
use crate::error::Error;
use crate::spec::Context;

/// Bytes of `/dev/shm` unless `--shm-size` says otherwise.
const SHM_SIZE: u64 = 64 << 20;

fn mount(kind: &str, source: &str, destination: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        source: source.to_owned(),
        options: options.iter().map(ToString::to_string).collect(),
        ..Mount::default()
    }
}

/// The list of mounts.
pub(super) fn mounts(config: &RunConfig, context: &Context) -> Result<Vec<Mount>, Error> {
    let privileged = config.security.privileged;
    let write = if privileged { "rw" } else { "ro" };
    let mut list = vec![
        mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
    ];
    // A sysfs belongs to a network namespace and can only be mounted by its owner.
    if config.namespaces.network == NamespaceChoice::Private || privileged {
        list.push(mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", write]));
    } else {
        list.push(mount("bind", "/sys", "/sys", &["rbind", "nosuid", "noexec", "nodev", write]));
    }
    list.push(mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", write]));
    if config.namespaces.ipc == NamespaceChoice::Host {
        list.push(mount("bind", "/dev/mqueue", "/dev/mqueue", &["rbind", "nosuid", "noexec", "nodev"]));
        list.push(mount("bind", "/dev/shm", "/dev/shm", &["rbind", "nosuid", "noexec", "nodev"]));
    } else {
        let size = format!("size={}", config.shm_size.unwrap_or(SHM_SIZE));
        list.push(mount("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]));
        list.push(mount("tmpfs", "shm", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
    }
    // A mount of the user's takes the place of one of ours.
    let target = |mount: &MountConfig| match mount {
        MountConfig::Bind { target, .. } | MountConfig::Tmpfs { target, .. } => clean(target),
    };
    let chosen: Vec<String> = config.mounts.iter().map(target).collect();
    if let Some(twice) = chosen.iter().enumerate().find(|(index, path)| chosen[..*index].contains(path)) {
        return Err(Error::flag("--volume", format!("two mounts have the target {}", twice.1)));
    }
    for (host, inside) in &context.files {
        list.push(mount("bind", host, inside, &["bind", "rprivate", if config.read_only { "ro" } else { "rw" }]));
    }
    list.retain(|mount| !chosen.contains(&mount.destination));
    let mut own: Vec<Mount> = config
        .mounts
        .iter()
        .map(|one| match one {
            MountConfig::Bind { source, target, options, .. } => Mount {
                destination: clean(target),
                kind: "bind".to_owned(),
                source: source.to_string_lossy().into_owned(),
                options: options.clone(),
                ..Mount::default()
            },
            MountConfig::Tmpfs { target, options } => Mount {
                destination: clean(target),
                kind: "tmpfs".to_owned(),
                source: "tmpfs".to_owned(),
                options: options.clone(),
                ..Mount::default()
            },
        })
        .collect();
    // Parents before children; equal depth keeps the user's order.
    own.sort_by_key(|mount| mount.destination.matches('/').count());
    list.extend(own);
    Ok(list)
}

/// The path without empty and `.` components or a trailing slash.
fn clean(path: &str) -> String {
    let mut clean = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        clean.push('/');
        clean.push_str(part);
    }
    clean
}
