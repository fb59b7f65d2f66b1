//! `HostConfig` and `Config` of a container's document, with every key that Docker's have.

use serde_json::{Map, Value, json};

use crate::config::{MountConfig, NamespaceChoice, Rate, RestartPolicy, RunConfig, SeccompChoice, Source};
use crate::records::Container;
use crate::spec::{DEFAULT_PIDS, MASKED, READONLY};

/// Bytes of `/dev/shm` unless it is said otherwise.
const SHM_SIZE: u64 = 64 << 20;

/// How a namespace was chosen, in Docker's words.
fn mode(choice: &NamespaceChoice, private: &str) -> String {
    match choice {
        NamespaceChoice::Private => private.to_owned(),
        NamespaceChoice::Host => "host".to_owned(),
        NamespaceChoice::Container(name) => format!("container:{name}"),
        NamespaceChoice::Path(path) => format!("ns:{path}"),
    }
}

/// The network's mode: the name of the first network, or what stands in its place.
pub(crate) fn network_mode(container: &Container) -> String {
    let config = &container.config;
    let first = config.networks.first().map_or("none", |network| &network.name);
    mode(&config.namespaces.network, first)
}

/// A list as Go shows one that was never made.
fn or_null<T: serde::Serialize>(list: &[T]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn rates(list: &[Rate], value: &str) -> Value {
    list.iter().map(|rate| json!({ "Path": rate.path, value: rate.value })).collect()
}

fn restart(policy: RestartPolicy) -> Value {
    let (name, count) = match policy {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::OnFailure(count) => ("on-failure", count),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
    };
    json!({ "Name": name, "MaximumRetryCount": count })
}

fn security(container: &Container) -> Vec<String> {
    let security = &container.config.security;
    let mut list = Vec::new();
    if !security.no_new_privileges {
        list.push("no-new-privileges=false".to_owned());
    }
    if matches!(security.seccomp, SeccompChoice::Unconfined) {
        list.push("seccomp=unconfined".to_owned());
    }
    if security.system_paths_unconfined {
        list.push("systempaths=unconfined".to_owned());
    }
    list.extend(security.apparmor.iter().map(|profile| format!("apparmor={profile}")));
    list.extend(security.label.iter().map(|label| format!("label={label}")));
    list
}

fn port_bindings(container: &Container) -> Value {
    let mut bindings: Map<String, Value> = Map::new();
    for publish in &container.config.publish {
        let port = match publish.host_ports {
            None => String::new(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        let host = publish.host.map(|host| host.to_string()).unwrap_or_default();
        let list = bindings.entry(format!("{}/{}", publish.port, publish.protocol)).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(json!({ "HostIp": host, "HostPort": port }));
        }
    }
    Value::Object(bindings)
}

/// Mounts by the flags that asked for them.
#[derive(Default)]
struct Mounts {
    binds: Vec<String>,
    tmpfs: Map<String, Value>,
    long: Vec<Value>,
}

fn mounts(config: &RunConfig) -> Mounts {
    let mut sorted = Mounts::default();
    for mount in config.mounts.iter().filter(|mount| !config.lent_mounts.iter().any(|one| one == mount.target())) {
        if config.long_mounts.iter().any(|target| target == mount.target()) {
            sorted.long.push(long_mount(mount));
            continue;
        }
        let bind = |source: &str, target: &str, options: &[String]| {
            let known = ["rbind", "bind", "rprivate"];
            let shown = options.iter().map(String::as_str).filter(|one| !known.contains(one));
            let shown: Vec<&str> = shown.map(|one| if one == "rro" { "ro" } else { one }).collect();
            let tail = if shown.is_empty() { String::new() } else { format!(":{}", shown.join(",")) };
            format!("{source}:{target}{tail}")
        };
        match mount {
            MountConfig::Bind { source, target, options, .. } => {
                sorted.binds.push(bind(&source.to_string_lossy(), target, options));
            }
            MountConfig::Volume { name, target, options, volume } if !volume.anonymous && !name.is_empty() => {
                sorted.binds.push(bind(name, target, options));
            }
            MountConfig::Tmpfs { target, options } => {
                let usual = ["nosuid", "nodev", "noexec"];
                let given: Vec<&str> = options.iter().map(String::as_str).filter(|one| !usual.contains(one)).collect();
                sorted.tmpfs.insert(target.clone(), given.join(",").into());
            }
            MountConfig::Volume { .. } | MountConfig::Image { .. } => {}
        }
    }
    sorted
}

/// A mount of `--mount`, in the API's shape.
fn long_mount(mount: &MountConfig) -> Value {
    let (kind, source) = match mount {
        MountConfig::Bind { source, .. } => ("bind", source.to_string_lossy().into_owned()),
        MountConfig::Volume { name, volume, .. } => {
            ("volume", if volume.anonymous { String::new() } else { name.clone() })
        }
        MountConfig::Tmpfs { .. } => ("tmpfs", String::new()),
        MountConfig::Image { image, .. } => ("image", image.clone()),
    };
    let mut shown = json!({ "Type": kind, "Target": mount.target() });
    if !source.is_empty() {
        shown["Source"] = source.into();
    }
    if mount.read_only() && kind != "image" {
        shown["ReadOnly"] = true.into();
    }
    shown
}

/// What was asked of the machine.
pub(super) fn host_config(container: &Container) -> Value {
    let config = &container.config;
    let limits = &config.limits;
    let swap = match (limits.memory, limits.memory_swap) {
        (Some(memory), None | Some(0)) => memory.saturating_mul(2),
        (_, swap) => swap.unwrap_or(0),
    };
    let confined = !(config.security.privileged || config.security.system_paths_unconfined);
    let Mounts { binds, tmpfs, long } = mounts(config);
    let device = |one: &crate::config::DeviceConfig| json!({ "PathOnHost": if one.source.is_empty() { &one.path } else { &one.source }, "PathInContainer": one.path, "CgroupPermissions": one.access });
    let rule = |one: &crate::config::DeviceRuleConfig| {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        format!("{} {}:{} {}", one.kind, number(one.major), number(one.minor), one.access)
    };
    let ulimit = |one: &hull_oci::spec::Rlimit| {
        let limit = |value: u64| i64::try_from(value).unwrap_or(-1);
        let name = one.kind.trim_start_matches("RLIMIT_").to_ascii_lowercase();
        json!({ "Name": name, "Soft": limit(one.soft), "Hard": limit(one.hard) })
    };
    let resources = json!({
        "AutoRemove": config.remove,
        "Binds": or_null(&binds),
        "BlkioDeviceReadBps": rates(&limits.read_bps, "Rate"),
        "BlkioDeviceReadIOps": rates(&limits.read_iops, "Rate"),
        "BlkioDeviceWriteBps": rates(&limits.write_bps, "Rate"),
        "BlkioDeviceWriteIOps": rates(&limits.write_iops, "Rate"),
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
        "BlkioWeightDevice": rates(&limits.blkio_weight_device, "Weight"),
        "CapAdd": or_null(&config.security.cap_add),
        "CapDrop": or_null(&config.security.cap_drop),
        "Cgroup": "",
        "CgroupParent": limits.cgroup_parent.clone().unwrap_or_default(),
        "CgroupnsMode": mode(&config.namespaces.cgroup, "private"),
        "ConsoleSize": [0, 0],
        "ContainerIDFile": "",
        "CpuCount": 0,
        "CpuPercent": 0,
        "CpuPeriod": limits.cpu_period.unwrap_or(0),
        "CpuQuota": limits.cpu_quota.unwrap_or(0),
        "CpuRealtimePeriod": limits.cpu_rt_period.unwrap_or(0),
        "CpuRealtimeRuntime": limits.cpu_rt_runtime.unwrap_or(0),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
    });
    let names = json!({
        "DeviceCgroupRules": or_null(&config.device_rules.iter().map(rule).collect::<Vec<_>>()),
        "DeviceRequests": null,
        "Devices": config.devices.iter().map(device).collect::<Value>(),
        "Dns": config.dns.servers,
        "DnsOptions": config.dns.options,
        "DnsSearch": config.dns.search,
        "ExtraHosts": or_null(&config.dns.hosts),
        "GroupAdd": or_null(&config.groups),
        "IOMaximumBandwidth": 0,
        "IOMaximumIOps": 0,
        "IpcMode": mode(&config.namespaces.ipc, "private"),
        "Isolation": "",
        "Links": or_null(&config.links),
        "LogConfig": {
            "Type": crate::logs::driver(container),
            "Config": config.log.options,
        },
        "MaskedPaths": if confined { json!(MASKED) } else { Value::Null },
        "Memory": limits.memory.unwrap_or(0),
        "MemoryReservation": limits.memory_reservation.unwrap_or(0),
        "MemorySwap": swap,
        "MemorySwappiness": limits.memory_swappiness,
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "NetworkMode": network_mode(container),
    });
    let mut document = json!({
        "OomKillDisable": limits.oom_kill_disable,
        "OomScoreAdj": limits.oom_score_adj.unwrap_or(0),
        "PidMode": mode(&config.namespaces.pid, ""),
        "PidsLimit": limits.pids.unwrap_or(DEFAULT_PIDS),
        "PortBindings": port_bindings(container),
        "Privileged": config.security.privileged,
        "PublishAllPorts": config.publish_all,
        "ReadonlyPaths": if confined { json!(READONLY) } else { Value::Null },
        "ReadonlyRootfs": config.read_only,
        "RestartPolicy": restart(config.restart),
        "Runtime": config.runtime.clone().unwrap_or_else(|| "hull".to_owned()),
        "SecurityOpt": or_null(&security(container)),
        "ShmSize": config.shm_size.unwrap_or(SHM_SIZE),
        "UTSMode": mode(&config.namespaces.uts, ""),
        "Ulimits": config.ulimits.iter().map(ulimit).collect::<Value>(),
        "UsernsMode": "",
        "VolumeDriver": "",
        "VolumesFrom": or_null(&config.volumes_from),
    });
    for part in [resources, names] {
        if let (Value::Object(all), Value::Object(part)) = (&mut document, part) {
            all.extend(part);
        }
    }
    // What Docker leaves out when it is empty.
    let optional = [
        ("Annotations", !config.annotations.is_empty(), json!(config.annotations)),
        ("Sysctls", !config.sysctls.is_empty(), json!(config.sysctls)),
        ("Tmpfs", !tmpfs.is_empty(), Value::Object(tmpfs)),
        ("Mounts", !long.is_empty(), Value::Array(long)),
        ("Init", config.init, json!(true)),
    ];
    for (key, there, value) in optional {
        if there {
            document[key] = value;
        }
    }
    document
}

/// Where anonymous volumes are: the image's, and those of `-v PATH`.
fn volumes(config: &RunConfig, image: &hull_image::Config) -> Value {
    let mut volumes = json!(image.volumes);
    for mount in &config.mounts {
        if let MountConfig::Volume { name, target, volume, .. } = mount
            && (volume.anonymous || name.is_empty())
            && !config.long_mounts.contains(target)
            && !config.lent_mounts.contains(target)
        {
            volumes[target] = json!({});
        }
    }
    if volumes.as_object().is_none_or(Map::is_empty) { Value::Null } else { volumes }
}

/// What the container is: the user's words above the image's.
pub(super) fn config(container: &Container, image: Option<&hull_image::Config>) -> Value {
    let config = &container.config;
    let none = hull_image::Config::default();
    let image = image.unwrap_or(&none);
    let name = match &config.source {
        Source::Image(name) => name.clone(),
        Source::Directory(_) => String::new(),
    };
    let mut env = config.env.clone();
    let key = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let own: Vec<String> = env.iter().map(|one| key(one)).collect();
    env.extend(image.env.iter().filter(|one| !own.contains(&key(one))).cloned());
    let entrypoint: Vec<String> = match &config.entrypoint {
        Some(program) if program.is_empty() => Vec::new(),
        Some(program) => [std::slice::from_ref(program), &config.entrypoint_words].concat(),
        None => image.entrypoint.clone(),
    };
    let command = if config.command.is_empty() && config.entrypoint.is_none() { &image.cmd } else { &config.command };
    let first = |one: &Option<String>, other: &String| one.clone().unwrap_or_else(|| other.clone());
    let attached = !config.detach;
    let mut document = json!({
        "AttachStderr": attached,
        "AttachStdin": attached && config.interactive,
        "AttachStdout": attached,
        "Cmd": or_null(command),
        "Domainname": config.domainname.clone().unwrap_or_default(),
        "Entrypoint": or_null(&entrypoint),
        "Env": or_null(&env),
        "Hostname": config.hostname.clone().unwrap_or_else(|| container.id.chars().take(12).collect()),
        "Image": name,
        "Labels": config.labels,
        "OnBuild": or_null(&image.on_build),
        "OpenStdin": config.interactive,
        "StdinOnce": attached && config.interactive,
        "StopSignal": hull_runtime::lifecycle::signal::name(container.stop_signal),
        "Tty": config.tty,
        "User": first(&config.user, &image.user),
        "Volumes": volumes(config, image),
        "WorkingDir": first(&config.workdir, &image.working_dir),
    });
    let exposed = super::network::exposed(container, Some(image));
    if !exposed.is_empty() {
        document["ExposedPorts"] = exposed.into_iter().map(|port| (port, json!({}))).collect();
    }
    if let Some(timeout) = config.stop_timeout.or(image.stop_timeout) {
        document["StopTimeout"] = timeout.into();
    }
    if let Some(check) = &image.healthcheck {
        document["Healthcheck"] = json!(check);
    }
    if !image.shell.is_empty() {
        document["Shell"] = json!(image.shell);
    }
    document
}
