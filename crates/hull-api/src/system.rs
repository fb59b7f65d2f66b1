//! What the engine is: `_ping`, `version`, `info`.

use std::sync::Arc;

use hull_cgroup::{Hierarchies, Layout};
use hull_engine::records::Phase;
use hull_engine::{Engine, Error};
use hull_image::snapshot::probe::Capabilities;
use serde_json::{Value, json};

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;
use crate::route::Route;
use crate::version::{API_VERSION, ENGINE_VERSION, MIN_API_VERSION};

pub(crate) const ROUTES: &[Route] = &[
    Route::new("GET", "/_ping", ping),
    Route::new("HEAD", "/_ping", ping),
    Route::new("GET", "/version", version),
    Route::new("GET", "/info", get_info),
];

fn ping(_api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let text = if request.method == hyper::Method::HEAD { "" } else { "OK" };
    Ok(Reply::bytes(200, "text/plain; charset=utf-8", text)
        .with("builder-version", "2")
        .with("swarm", "inactive")
        .with("cache-control", "no-cache, no-store, must-revalidate")
        .with("pragma", "no-cache"))
}

fn version(_api: &Arc<Api>, _request: &mut Request) -> Result<Reply, Refusal> {
    let kernel = rustix::system::uname();
    let (own, arch) = (env!("CARGO_PKG_VERSION"), architecture());
    let kernel = kernel.release().to_string_lossy().into_owned();
    let version = format!("{ENGINE_VERSION}+hull{own}");
    let details = json!({
        "ApiVersion": API_VERSION, "Arch": arch, "BuildTime": "", "Experimental": "false", "GitCommit": "",
        "GoVersion": "", "KernelVersion": kernel, "MinAPIVersion": MIN_API_VERSION, "Os": "linux",
    });
    Ok(Reply::json(
        200,
        &json!({
            "Platform": { "Name": format!("Hull {own}") },
            "Components": [
                { "Name": "Engine", "Version": version, "Details": details },
                { "Name": "hull", "Version": own, "Details": { "GitCommit": "" } },
            ],
            "Version": version,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": arch,
            "KernelVersion": kernel,
            "BuildTime": "",
        }),
    ))
}

/// As Go calls it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn get_info(api: &Arc<Api>, _request: &mut Request) -> Result<Reply, Refusal> {
    let mut document = info(&api.engine)?;
    document["ServerVersion"] = format!("{ENGINE_VERSION}+hull{}", env!("CARGO_PKG_VERSION")).into();
    Ok(Reply::json(200, &document))
}

fn exists(path: &str) -> bool {
    std::path::Path::new(path).exists()
}

/// A value of a file of `NAME=VALUE` or `NAME: VALUE` lines.
fn entry(path: &str, name: &str, separator: char) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let found = text.lines().find_map(|line| line.split_once(separator).filter(|(key, _)| key.trim() == name));
    found.map(|(_, value)| value.trim().trim_matches('"').to_owned())
}

fn variable(name: &str) -> String {
    let value = hull_config::proxy(name).or_else(|| hull_config::proxy(&name.to_lowercase()));
    // A proxy's password is nobody's business.
    value.map(|value| if value.contains('@') { "set".to_owned() } else { value }).unwrap_or_default()
}

/// What `info` shows, in Docker's shape.
///
/// # Errors
/// When the machine, the containers or the images cannot be looked at.
pub fn info(engine: &Engine) -> Result<Value, Error> {
    let kernel = rustix::system::uname();
    let hierarchies = Hierarchies::probe().map_err(Error::from)?;
    let list = engine.list_shared()?;
    let running: Vec<&str> =
        list.iter().filter(|(_, state)| state.phase == Phase::Running).map(|(one, _)| one.id.as_str()).collect();
    let paused = running.iter().filter(|id| engine.shows_paused(id)).count();
    let capabilities = Capabilities::of(engine.images.root())?;
    let status: Vec<[String; 2]> =
        capabilities.status().into_iter().map(|(name, value)| [name.to_owned(), value]).collect();
    let rootless = !rustix::process::geteuid().is_root();
    let mut security = vec!["name=seccomp,profile=builtin"];
    for (path, option) in
        [("/sys/kernel/security/apparmor", "name=apparmor"), ("/sys/fs/selinux/enforce", "name=selinux")]
    {
        if exists(path) {
            security.push(option);
        }
    }
    if rootless {
        security.push("name=rootless");
    }
    security.push("name=cgroupns");
    let memory = entry("/proc/meminfo", "MemTotal", ':').and_then(|text| text.split_whitespace().next()?.parse().ok());
    let has = |controller: &str| hierarchies.of(controller).is_some();
    let swap = exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes") || hierarchies.is_v2();
    let forwarding = std::fs::read("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.starts_with(b"1"));
    let mirrors = hull_config::list("registry-mirrors");
    let mut document = json!({
        "ID": "",
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
            "Authorization": null,
            "Log": ["journald", "json-file", "local", "none", "syslog"],
        },
        "MemoryLimit": has("memory"),
        "SwapLimit": has("memory") && swap,
        "CpuCfsPeriod": has("cpu"),
        "CpuCfsQuota": has("cpu"),
        "CPUShares": has("cpu"),
        "CPUSet": has("cpuset"),
        "PidsLimit": has("pids"),
        "OomKillDisable": has("memory") && !hierarchies.is_v2(),
        "IPv4Forwarding": forwarding,
        "Debug": false,
        "NFd": 0,
        "NGoroutines": 0,
        "NEventsListener": 0,
        "SystemTime": hull_oci::time::rfc3339_nanos(std::time::SystemTime::now()),
        "OSVersion": entry("/etc/os-release", "VERSION_ID", '=').unwrap_or_default(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "IndexConfigs": {},
            "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
            "Mirrors": if mirrors.is_empty() { Value::Null } else { Value::from(mirrors) },
        },
        "GenericResources": null,
        "HttpProxy": variable("HTTP_PROXY"),
        "HttpsProxy": variable("HTTPS_PROXY"),
        "NoProxy": variable("NO_PROXY"),
        "ExperimentalBuild": false,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": false,
            "Error": "",
            "RemoteManagers": null,
        },
        "FirewallBackend": { "Driver": "nftables" },
        "Isolation": "",
        "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
        "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": "" },
        "InitCommit": { "ID": "" },
    });
    let own = json!({
        "Containers": list.len(),
        "ContainersRunning": running.len() - paused,
        "ContainersPaused": paused,
        "ContainersStopped": list.len() - running.len(),
        "Images": engine.images.list()?.len(),
        "Driver": "overlay",
        "DriverStatus": status,
        "LoggingDriver": hull_config::text("log-driver").unwrap_or_else(|| "json-file".to_owned()),
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": if matches!(hierarchies.layout(), Some(Layout::V2)) { "2" } else { "1" },
        "KernelVersion": kernel.release().to_string_lossy(),
        "OperatingSystem": entry("/etc/os-release", "PRETTY_NAME", '=').unwrap_or_else(|| "Linux".to_owned()),
        "OSType": "linux",
        "Architecture": kernel.machine().to_string_lossy(),
        "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "MemTotal": memory.unwrap_or(0u64) * 1024,
        "DockerRootDir": engine.root(),
        "Name": kernel.nodename().to_string_lossy(),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "DefaultRuntime": "hull",
        "Runtimes": { "hull": { "path": "hull oci" } },
        "InitBinary": "",
        "SecurityOptions": security,
        "Labels": [],
        "LiveRestoreEnabled": true,
        "Warnings": null,
    });
    if let (Value::Object(all), Value::Object(own)) = (&mut document, own) {
        all.extend(own);
    }
    Ok(document)
}
