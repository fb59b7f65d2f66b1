//! `POST /containers/create`: a document to a configuration.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use hull_engine::config::{
    DnsConfig, HealthConfig, IpcMode, Level, Limits, LogConfig, MountConfig, NamespaceChoice, Namespaces,
    NetworkConfig, PublishConfig, RestartPolicy, RunConfig, Security, Source, UserChoice,
};
use hull_engine::{cdi, flags, seccomp};
use hull_oci::spec::one_line;
use hull_runtime::lifecycle::signal;
use serde_json::json;

use super::mounts;
use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;
use crate::wire::create::{Create, Healthcheck, HostConfig, PortBinding, Rate};
use crate::wire::network::EndpointSettings;

type Made<T> = Result<T, Refusal>;

/// Parses each text of a list.
fn all<T>(list: &[String], parse: impl Fn(&str) -> Result<T, String>) -> Made<Vec<T>> {
    list.iter().map(|text| parse(text).map_err(Refusal::bad)).collect()
}

/// A number that means nothing when it is zero.
fn nonzero<T: TryFrom<i64>>(field: &str, number: i64) -> Made<Option<T>> {
    if number == 0 {
        return Ok(None);
    }
    T::try_from(number).map(Some).map_err(|_| Refusal::bad(format!("invalid {field}: {number}")))
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// Windows has others.
fn technology(name: &str) -> Made<()> {
    if name.is_empty() || name.eq_ignore_ascii_case("default") {
        return Ok(());
    }
    Err(Refusal::bad(format!("invalid isolation ({}): linux only supports 'default'", one_line(name))))
}

/// Makes a container.
pub(super) fn create(api: &Arc<Api>, request: &mut Request) -> Made<Reply> {
    let body: Option<Option<Create>> = request.optional_json("container.CreateRequest")?;
    let none = || Refusal::bad("invalid JSON: got EOF while reading request body");
    let empty = || Refusal::bad("config cannot be empty in order to create a container");
    let mut body = body.ok_or_else(none)?.ok_or_else(empty)?;
    if body.image.is_empty() {
        return Err(if body.cmd.0.is_empty() { empty() } else { Refusal::bad("no image specified") });
    }
    // An image that this socket does not see is not there.
    let platform = crate::images::platform(request.query.text("platform"))?;
    let image = api.image(&body.image).map_err(|refusal| match crate::seen::lower(&body.image) {
        Err(wrong) if refusal.status == 404 => wrong,
        _ => refusal,
    })?;
    let has = image.config.platform.to_string();
    let image = api.image_on(&body.image, platform.as_ref()).map_err(|_| {
        let (name, wanted) = (one_line(&body.image), platform.as_ref().map(ToString::to_string).unwrap_or_default());
        Refusal::missing(format!(
            "image with reference {name} was found but its platform ({has}) does not match the specified platform ({wanted})"
        ))
    })?;
    let has_words = |words: &[String]| words.iter().any(|word| !word.is_empty());
    let entrypoint = body.entrypoint.as_ref().map_or(&image.config.config.entrypoint, |words| &words.0);
    let inherited = if body.entrypoint.is_none() { image.config.config.cmd.as_slice() } else { &[] };
    if !has_words(entrypoint) && body.cmd.0.is_empty() && inherited.is_empty() {
        return Err(Refusal::bad("no command specified"));
    }
    let name = request.query.text("name");
    let name = name.strip_prefix('/').unwrap_or(name);
    if !name.is_empty() {
        flags::container_name(name).map_err(|_| {
            let shown = one_line(name);
            Refusal::bad(format!("Invalid container name ({shown}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"))
        })?;
    }
    let mut warnings: Vec<String> = Vec::new();
    // Without words of its own, an entry point that was emptied gets the image's.
    if body.entrypoint.as_ref().is_some_and(|words| words.0.is_empty()) && body.cmd.0.is_empty() {
        body.cmd.0.clone_from(&image.config.config.cmd);
    }
    let mut config = config(body)?;
    config.name = some(name);
    config.platform = platform;
    config.labels = api.labelled(config.labels);
    let id = api.engine.create(config, None)?;
    if let Ok(container) = api.engine.container(&id)
        && container.config.limits.oom_kill_disable
        && container.config.limits.memory.is_none()
    {
        warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".to_owned());
    }
    Ok(Reply::json(201, &json!({ "Id": id, "Warnings": warnings })))
}

/// The configuration that a document asks for.
pub(crate) fn config(body: Create) -> Made<RunConfig> {
    let mut host = body.host_config;
    let limits = limits(&host)?;
    let security = security(&host)?;
    let mut mounts = mounts::all(&host, body.volumes.keys())?;
    for mount in &mut mounts {
        if let MountConfig::Volume { volume, .. } = mount
            && volume.driver.is_empty()
        {
            volume.driver.clone_from(&host.volume_driver);
        }
    }
    all(&host.volumes_from, |text| flags::volumes_from(text).map(drop))?;
    if let Some(wrong) = body.env.iter().find(|text| text.starts_with('=') || text.contains('\0')) {
        return Err(Refusal::bad(format!("invalid environment variable: {}", one_line(wrong))));
    }
    let attached = if body.open_stdin { body.stdin_once } else { body.attach_stdout || body.attach_stderr };
    let (entrypoint, entrypoint_words) = match body.entrypoint {
        None => (None, Vec::new()),
        Some(words) => {
            let mut words = words.0.into_iter();
            (Some(words.next().unwrap_or_default()), words.collect())
        }
    };
    let mut storage_size = None;
    for (key, value) in &host.storage_opt {
        if !key.eq_ignore_ascii_case("size") {
            return Err(Refusal::bad(format!("Unknown option {}", one_line(key))));
        }
        let size = flags::bytes(value).map_err(Refusal::bad)?;
        storage_size = u64::try_from(size).ok().filter(|size| *size > 0);
    }
    let mut config = RunConfig {
        source: Source::Image(body.image),
        command: body.cmd.0,
        entrypoint,
        entrypoint_words,
        // A name alone takes a variable away that the image has; it cannot come from the server's own.
        env: body.env.into_iter().filter(|text| text.contains('=')).collect(),
        user: some(&body.user),
        groups: std::mem::take(&mut host.group_add),
        workdir: some(&body.working_dir),
        hostname: some(&body.hostname),
        domainname: some(&body.domainname),
        labels: body.labels,
        annotations: std::mem::take(&mut host.annotations),
        tty: body.tty,
        interactive: body.open_stdin,
        detach: !attached,
        remove: host.auto_remove,
        read_only: host.readonly_rootfs,
        mounts,
        storage_size,
        shm_size: match host.shm_size {
            0 => None,
            size => Some(u64::try_from(size).map_err(|_| Refusal::bad("SHM size can not be less than 0"))?),
        },
        ulimits: ulimits(&host)?,
        limits,
        security,
        stop_signal: match body.stop_signal.as_str() {
            "" => None,
            text => Some(parse_signal(text)?),
        },
        stop_timeout: body.stop_timeout,
        restart: restart(&host.restart_policy.name, host.restart_policy.maximum_retry_count)?,
        log: LogConfig { driver: host.log_config.kind.clone(), options: host.log_config.config.clone() },
        init: host.init.unwrap_or(false),
        health: body.healthcheck.map(health).transpose()?,
        volumes_from: std::mem::take(&mut host.volumes_from),
        runtime: some(&host.runtime).filter(|name| !["hull", "runc", "io.containerd.runc.v2"].contains(&name.as_str())),
        ..RunConfig::default()
    };
    technology(&host.isolation)?;
    isolation(&mut config, &host)?;
    network(&mut config, &host, &body.networking_config.endpoints_config, &body.mac_address, body.network_disabled)?;
    let exposed: Vec<String> = body.exposed_ports.into_keys().collect();
    config.expose = all(&exposed, flags::network::expose)?.into_iter().flatten().collect();
    conflicts(&config)?;
    Ok(config)
}

pub(super) fn parse_signal(text: &str) -> Made<i32> {
    let wrong = || Refusal::bad(format!("invalid signal: {}", one_line(text)));
    signal::parse(text).filter(|number| *number > 0).ok_or_else(wrong)
}

pub(super) fn restart(name: &str, count: i64) -> Made<RestartPolicy> {
    let wrong = |text: String| Refusal::bad(format!("invalid restart policy: {text}"));
    if count < 0 {
        return Err(wrong("maximum retry count cannot be negative".to_owned()));
    }
    if count != 0 && name != "on-failure" {
        return Err(wrong("maximum retry count can only be used with 'on-failure'".to_owned()));
    }
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    Ok(match name {
        "" | "no" => RestartPolicy::No,
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => RestartPolicy::OnFailure(count),
        other => {
            let known = "use one of 'no', 'always', 'on-failure', or 'unless-stopped'";
            return Err(wrong(format!("unknown policy '{}'; {known}", one_line(other))));
        }
    })
}

fn health(check: Healthcheck) -> Made<HealthConfig> {
    let time = |what: &str, value: i64| match u64::try_from(value) {
        Ok(value) if value == 0 || value >= 1_000_000 => Ok(value),
        _ => Err(Refusal::bad(format!("{what} in Healthcheck cannot be less than 1ms"))),
    };
    let retries =
        u32::try_from(check.retries).map_err(|_| Refusal::bad("Retries in Healthcheck cannot be negative"))?;
    Ok(HealthConfig {
        interval: time("Interval", check.interval)?,
        timeout: time("Timeout", check.timeout)?,
        start_period: time("StartPeriod", check.start_period)?,
        start_interval: time("StartInterval", check.start_interval)?,
        test: check.test,
        retries,
    })
}

fn ulimits(host: &HostConfig) -> Made<Vec<hull_oci::spec::Rlimit>> {
    let texts: Vec<String> = host.ulimits.iter().map(|one| format!("{}={}:{}", one.name, one.soft, one.hard)).collect();
    all(&texts, flags::ulimit)
}

fn rates(list: &[Rate], weight: bool) -> Made<Vec<hull_engine::config::Rate>> {
    let texts: Vec<String> =
        list.iter().map(|one| format!("{}:{}", one.path, if weight { one.weight } else { one.rate })).collect();
    all(&texts, |text| flags::rate(text, false))
}

/// Limits; zero is none.
pub(super) fn limits(host: &HostConfig) -> Made<Limits> {
    const LEAST: i64 = 6 << 20;
    let list =
        |text: &String| if text.is_empty() { Ok(String::new()) } else { flags::cpu_list(text).map_err(Refusal::bad) };
    if host.memory != 0 && host.memory < LEAST {
        return Err(Refusal::bad("Minimum memory limit allowed is 6MB"));
    }
    if host.nano_cpus < 0 {
        return Err(Refusal::bad(format!("invalid NanoCPUs: {}", host.nano_cpus)));
    }
    if host.nano_cpus != 0 && host.cpu_quota > 0 {
        return Err(Refusal::bad("Conflicting options: Nano CPUs and CPU Quota cannot both be set."));
    }
    if host.nano_cpus != 0 && host.cpu_period > 0 {
        return Err(Refusal::bad("Conflicting options: Nano CPUs and CPU Period cannot both be set."));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Refusal::bad(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    let swappiness = match host.memory_swappiness {
        None | Some(-1) => None,
        Some(number) if (0..=100).contains(&number) => u64::try_from(number).ok(),
        Some(number) => {
            return Err(Refusal::bad(format!("Invalid value: {number}, valid memory swappiness range is 0-100")));
        }
    };
    Ok(Limits {
        memory: nonzero("memory", host.memory)?,
        memory_swap: nonzero("memory-swap", host.memory_swap)?,
        memory_reservation: nonzero("memory-reservation", host.memory_reservation)?,
        memory_swappiness: swappiness,
        oom_kill_disable: host.oom_kill_disable.unwrap_or(false),
        nano_cpus: nonzero("NanoCPUs", host.nano_cpus)?,
        cpu_shares: nonzero("CpuShares", host.cpu_shares)?,
        cpu_quota: nonzero("CpuQuota", host.cpu_quota)?,
        cpu_period: nonzero("CpuPeriod", host.cpu_period)?,
        cpuset_cpus: list(&host.cpuset_cpus)?,
        cpuset_mems: list(&host.cpuset_mems)?,
        cpu_rt_runtime: nonzero("CpuRealtimeRuntime", host.cpu_realtime_runtime)?,
        cpu_rt_period: nonzero("CpuRealtimePeriod", host.cpu_realtime_period)?,
        pids: host.pids_limit.filter(|limit| *limit != 0),
        blkio_weight: Some(host.blkio_weight).filter(|weight| *weight != 0),
        blkio_weight_device: rates(&host.blkio_weight_device, true)?,
        read_bps: rates(&host.blkio_device_read_bps, false)?,
        write_bps: rates(&host.blkio_device_write_bps, false)?,
        read_iops: rates(&host.blkio_device_read_iops, false)?,
        write_iops: rates(&host.blkio_device_write_iops, false)?,
        oom_score_adj: Some(host.oom_score_adj).filter(|adjustment| *adjustment != 0),
        cgroup_parent: some(&host.cgroup_parent),
    })
}

/// Clients expect Docker's defaults, unless whoever runs the server says otherwise.
fn level() -> Level {
    let told = std::env::var("HULL_SECURITY").ok().filter(|text| !text.is_empty());
    told.map_or(Level::Compat, |text| Level::parse(&text).unwrap_or_default())
}

fn capabilities(field: &str, list: &[String]) -> Made<Vec<String>> {
    all(list, |text| {
        flags::capability(text).map_err(|_| {
            let upper = one_line(&text.to_ascii_uppercase());
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            format!("invalid {field}: unknown capability: \"{full}\"")
        })
    })
}

fn security(host: &HostConfig) -> Made<Security> {
    let level = level();
    let mut security = Security {
        level,
        no_new_privileges: level != Level::Compat,
        cap_add: capabilities("CapAdd", &host.cap_add)?,
        cap_drop: capabilities("CapDrop", &host.cap_drop)?,
        privileged: host.privileged,
        // Emptied on purpose.
        system_paths_unconfined: host.masked_paths.as_ref().is_some_and(Vec::is_empty)
            && host.readonly_paths.as_ref().is_some_and(Vec::is_empty),
        ..Security::default()
    };
    for option in &host.security_opt {
        let profile = |text: &str| {
            seccomp::parse(text.as_bytes()).map_err(|reason| format!("Decoding seccomp profile failed: {reason}"))
        };
        flags::security_option(&mut security, option, profile).map_err(|reason| Refusal::bad(one_line(&reason)))?;
    }
    Ok(security)
}

fn isolation(config: &mut RunConfig, host: &HostConfig) -> Made<()> {
    let choice = |kind: &str, text: &str, private: &[&str]| -> Made<NamespaceChoice> {
        if text.is_empty() {
            return Ok(NamespaceChoice::Private);
        }
        flags::namespace(text, private).map_err(|_| Refusal::bad(format!("invalid {kind} mode: {}", one_line(text))))
    };
    config.namespaces = Namespaces {
        pid: choice("PID", &host.pid_mode, &["private"])?,
        ipc: choice("IPC", &host.ipc_mode, &["private", "shareable", "none"])?,
        uts: choice("UTS", &host.uts_mode, &["private"])?,
        cgroup: choice("CGROUP", &host.cgroupns_mode, &["private"])?,
        ipc_mode: match host.ipc_mode.as_str() {
            "shareable" => IpcMode::Shareable,
            "none" => IpcMode::None,
            _ => IpcMode::Private,
        },
        ..Namespaces::default()
    };
    match host.userns_mode.as_str() {
        "" if config.security.level == Level::Hardened && !config.security.privileged => {
            let spaces = &config.namespaces;
            let alone = [&spaces.pid, &spaces.ipc, &spaces.uts].iter().all(|one| **one == NamespaceChoice::Private);
            // Another runtime cannot; named by itself, the mode is refused at the start.
            let alone = alone && config.runtime.is_none();
            if alone && matches!(host.network_mode.as_str(), "" | "default" | "bridge") {
                config.namespaces.user = UserChoice::Private;
            }
        }
        "" | "host" => {}
        "private" | "auto" => config.namespaces.user = UserChoice::Private,
        other => return Err(Refusal::bad(format!("invalid USER mode: {}", one_line(other)))),
    }
    for (key, value) in &host.sysctls {
        let (key, value) = flags::sysctl(&format!("{key}={value}"))
            .map_err(|_| Refusal::bad(format!("sysctl '{}={}' is not allowed", one_line(key), one_line(value))))?;
        config.sysctls.insert(key, value);
    }
    let mut nodes = Vec::new();
    for device in &host.devices {
        if cdi::is_name(&device.path_on_host) {
            config.cdi.push(device.path_on_host.clone());
            continue;
        }
        let target = some(&device.path_in_container).unwrap_or_else(|| device.path_on_host.clone());
        let access = some(&device.cgroup_permissions).unwrap_or_else(|| "rwm".to_owned());
        nodes.push(format!("{}:{target}:{access}", device.path_on_host));
    }
    config.devices = all(&nodes, |text| {
        flags::device(text)
            .map_err(|reason| format!("error gathering device information while adding custom device: {reason}"))
    })?
    .into_iter()
    .flatten()
    .collect();
    config.device_rules = all(&host.device_cgroup_rules, flags::device_rule)?;
    for request in &host.device_requests {
        if request.driver == "cdi" {
            config.cdi.extend(request.device_ids.iter().cloned());
            continue;
        }
        let gpu = request.capabilities.iter().flatten().any(|one| one == "gpu");
        if !gpu {
            let text =
                format!("could not select device driver \"{}\" with capabilities: []", one_line(&request.driver));
            return Err(Refusal::failed(text));
        }
        let wanted = match (request.count, request.device_ids.as_slice()) {
            (_, [_, ..]) => format!("\"device={}\"", request.device_ids.join(",")),
            (-1, _) => "all".to_owned(),
            (count, _) => count.to_string(),
        };
        config.cdi.extend(cdi::gpus(&wanted).map_err(Refusal::bad)?);
    }
    Ok(())
}

/// The network of a container that names none.
fn default_network() -> String {
    std::env::var("HULL_DEFAULT_NETWORK").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "bridge".to_owned())
}

fn network(
    config: &mut RunConfig,
    host: &HostConfig,
    endpoints: &std::collections::BTreeMap<String, EndpointSettings>,
    mac: &str,
    disabled: bool,
) -> Made<()> {
    let mode = match host.network_mode.as_str() {
        _ if disabled => "none".to_owned(),
        "" | "default" => default_network(),
        mode => mode.to_owned(),
    };
    let wrong = |reason: String| Refusal::bad(format!("invalid network mode: {}", one_line(&reason)));
    let shared = mode == "none" || mode == "host" || mode.starts_with("container:") || mode.starts_with("ns:");
    let named = |name: &str| if name == "default" { mode.clone() } else { name.to_owned() };
    if shared {
        config.namespaces.network = flags::namespace(&mode, &["none"]).map_err(wrong)?;
        if let Some(other) = endpoints.keys().find(|name| named(name) != mode) {
            let other = one_line(other);
            return Err(Refusal::bad(format!(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes: {other}"
            )));
        }
    } else {
        // The mode's own network is the first.
        let mut list = vec![NetworkConfig { name: mode.clone(), ..NetworkConfig::default() }];
        for (name, settings) in endpoints {
            let wished = crate::networks::wish(&named(name), settings.clone())?;
            match list.iter_mut().find(|one| one.name == wished.name) {
                Some(known) => *known = wished,
                None => list.push(wished),
            }
        }
        if let Some(first) = list.first_mut()
            && first.mac.is_none()
            && !mac.is_empty()
        {
            first.mac = Some(flags::network::mac(mac).map_err(Refusal::bad)?);
        }
        config.networks = list;
    }
    config.publish = publish(&host.port_bindings)?;
    config.publish_all = host.publish_all_ports;
    config.links.clone_from(&host.links);
    all(&host.extra_hosts, |text| {
        hull_network::files::hosts::Extra::parse(text).map(drop).map_err(|error| error.to_string())
    })?;
    config.dns = DnsConfig {
        servers: all(&host.dns, flags::network::dns)?,
        search: host.dns_search.clone(),
        options: host.dns_options.clone(),
        hosts: host.extra_hosts.clone(),
    };
    Ok(())
}

fn publish(
    bindings: &std::collections::BTreeMap<String, Option<Vec<Option<PortBinding>>>>,
) -> Made<Vec<PublishConfig>> {
    let mut list = Vec::new();
    for (key, bindings) in bindings {
        let wrong = || Refusal::bad(format!("invalid port specification: \"{}\"", one_line(key)));
        let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
        let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let protocol = protocol.to_ascii_lowercase();
        if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
            return Err(wrong());
        }
        let none = vec![Some(PortBinding::default())];
        let bindings = bindings.as_ref().filter(|list| !list.is_empty()).unwrap_or(&none);
        for binding in bindings.iter().flatten() {
            let address: Option<IpAddr> = match binding.host_ip.trim_matches(['[', ']']) {
                "" => None,
                text => {
                    Some(text.parse().map_err(|_| Refusal::bad(format!("invalid IP address: {}", one_line(text))))?)
                }
            };
            let number = |text: &str| {
                text.parse::<u16>().map_err(|_| Refusal::bad(format!("invalid port number: '{}'", one_line(text))))
            };
            let host_ports = match binding.host_port.as_str() {
                "" | "0" => None,
                text => {
                    let (first, last) = text.split_once('-').unwrap_or((text, text));
                    let range = (number(first)?, number(last)?);
                    if range.0 > range.1 {
                        return Err(Refusal::bad(format!("invalid port number: '{}'", one_line(text))));
                    }
                    Some(range)
                }
            };
            list.push(PublishConfig { host: address, host_ports, port, protocol: protocol.clone() });
        }
    }
    Ok(list)
}

/// What contradicts itself, in Docker's words.
fn conflicts(config: &RunConfig) -> Made<()> {
    let spaces = &config.namespaces;
    let refuse = |text: &str| Err(Refusal::bad(format!("conflicting options: {text}")));
    if spaces.uts != NamespaceChoice::Private && config.hostname.is_some() {
        return refuse("hostname and the UTS mode");
    }
    if let NamespaceChoice::Container(_) = spaces.network {
        if config.hostname.is_some() {
            return refuse("hostname and the network mode");
        }
        if !config.publish.is_empty() || config.publish_all {
            return refuse("port publishing and the container type network mode");
        }
        if !config.expose.is_empty() {
            return refuse("port exposing and the container type network mode");
        }
        if !config.dns.servers.is_empty() {
            return refuse("dns and the network mode");
        }
        if !config.dns.hosts.is_empty() {
            return refuse("custom host-to-IP mapping and the network mode");
        }
    }
    if spaces.network != NamespaceChoice::Private && !config.links.is_empty() {
        return refuse("host type networking can't be used with links. This would result in undefined behavior");
    }
    if config.remove && config.restart != RestartPolicy::No {
        return Err(Refusal::bad("can't create 'AutoRemove' container with restart policy"));
    }
    for key in config.sysctls.keys() {
        if spaces.network == NamespaceChoice::Host && key.starts_with("net.") {
            return Err(Refusal::bad(format!("sysctl '{}' not allowed in host network namespace", one_line(key))));
        }
    }
    if let Some(directory) = config.workdir.as_ref().filter(|directory| !Path::new(directory).is_absolute()) {
        let shown = one_line(directory);
        return Err(Refusal::bad(format!(
            "the working directory '{shown}' is invalid, it needs to be an absolute path"
        )));
    }
    Ok(())
}
