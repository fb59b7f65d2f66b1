//! Mounts: the file systems every container has, generated files, and what the user adds, in an order in which no
//! mount hides a later one.

use std::path::Path;

use hull_oci::spec::Mount;

use crate::config::{IpcMode, MountConfig, NamespaceChoice, RunConfig, UserChoice};
use crate::error::Error;
use crate::spec::Context;
use crate::volumes::mounts::clean;

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
    let groups = if config.security.writable_cgroups { "rw" } else { write };
    list.push(mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", groups]));
    if config.namespaces.ipc == NamespaceChoice::Host {
        list.push(mount("bind", "/dev/mqueue", "/dev/mqueue", &["rbind", "nosuid", "noexec", "nodev"]));
        list.push(mount("bind", "/dev/shm", "/dev/shm", &["rbind", "nosuid", "noexec", "nodev"]));
    } else {
        let size = format!("size={}", config.shm_size.unwrap_or(SHM_SIZE));
        list.push(mount("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]));
        if config.namespaces.ipc_mode != IpcMode::None {
            list.push(mount("tmpfs", "shm", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
        }
    }
    // A mount of the user's takes the place of one of ours.
    let chosen: Vec<String> = config.mounts.iter().map(|mount| clean(mount.target())).collect();
    if let Some(twice) = chosen.iter().enumerate().find(|(index, path)| chosen[..*index].contains(path)) {
        return Err(Error::Volume(format!("Duplicate mount point: {}", twice.1)));
    }
    list.retain(|mount| !chosen.contains(&mount.destination));
    let file = |(host, inside): &(String, String)| {
        mount("bind", host, inside, &["bind", "rprivate", if config.read_only { "ro" } else { "rw" }])
    };
    let (hidden, shown): (Vec<_>, Vec<_>) = context
        .files
        .iter()
        .filter(|(_, inside)| !chosen.contains(inside))
        // On a directory that may not be written to there need not be a file to mount on.
        .partition(|(_, inside)| config.mounts.iter().any(|one| one.read_only() && is_below(inside, one.target())));
    list.extend(hidden.into_iter().map(file));
    // Also where the user mounts on `/etc`.
    let mut own: Vec<Mount> = shown.into_iter().map(file).collect();
    own.extend(config.mounts.iter().map(|one| match one {
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
        // Their sources are found when the container is made; see `volumes::attach`.
        MountConfig::Volume { target, options, .. } => {
            let mut all = vec!["rbind".to_owned()];
            all.extend(options.iter().cloned());
            all.push("rprivate".to_owned());
            Mount { destination: clean(target), kind: "bind".to_owned(), options: all, ..Mount::default() }
        }
        MountConfig::Image { target, .. } => {
            Mount { destination: clean(target), ..mount("bind", "", "", &["rbind", "ro", "rprivate"]) }
        }
    }));
    // Parents before children; equal depth keeps the user's order.
    own.sort_by_key(|mount| mount.destination.matches('/').count());
    list.extend(own);
    if config.namespaces.user == UserChoice::Private {
        // Who owns a file on the machine owns it inside, by number. Images are overlays, which cannot be mapped.
        let image = |path: &str| {
            let images = config.mounts.iter().filter(|one| matches!(one, MountConfig::Image { .. }));
            images.into_iter().any(|one| clean(one.target()) == path)
        };
        for one in list.iter_mut().filter(|one| one.kind == "bind" && maps_ids(&one.source)) {
            if one.options.iter().any(|option| option.starts_with("idmap") || option.starts_with("ridmap"))
                || image(&one.destination)
            {
                continue;
            }
            let recursive = one.options.iter().any(|option| option == "rbind");
            one.options.push(if recursive { "ridmap" } else { "idmap" }.to_owned());
        }
    }
    Ok(list)
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(&clean(directory)).is_some_and(|rest| rest.starts_with('/'))
}

/// The kernel's own file systems have no idmapped mounts, and need none.
fn maps_ids(source: &str) -> bool {
    !["/sys", "/proc", "/dev"].iter().any(|top| Path::new(source).starts_with(top))
}
