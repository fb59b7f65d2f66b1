//! `hull info` and `hull version`.

use hull_cgroup::{Hierarchies, Layout};
use hull_engine::records::Phase;
use hull_engine::{Engine, Error};
use hull_image::snapshot::probe::Capabilities;
use serde_json::{Value, json};

use super::{Done, Failure};
use crate::output::{format, print, units};

/// Show what Hull found on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull info\n  hull info --format '{{.Driver}} {{.CgroupVersion}}'")]
pub(super) struct Args {
    /// Print by a template, or 'json'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Show the version
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull version\n  hull version --format '{{.Server.Version}}'")]
pub(super) struct Version {
    /// Print by a template, or 'json'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Version of Docker's API whose shapes the documents have.
const API: &str = "1.51";

/// Files whose presence tells that the kernel has a feature.
const FEATURES: [(&str, &str); 6] = [
    ("User Namespaces", "/proc/self/ns/user"),
    ("Time Namespaces", "/proc/self/ns/time"),
    ("Cgroup Namespaces", "/proc/self/ns/cgroup"),
    ("Seccomp", "/proc/sys/kernel/seccomp/actions_avail"),
    ("AppArmor", "/sys/kernel/security/apparmor"),
    ("SELinux", "/sys/fs/selinux/enforce"),
];

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
    let value = std::env::var(name).or_else(|_| std::env::var(name.to_lowercase()));
    // A proxy's password is nobody's business.
    value.map(|value| if value.contains('@') { "set".to_owned() } else { value }).unwrap_or_default()
}

/// Docker's document.
fn document(engine: &Engine) -> Result<Value, Failure> {
    let kernel = rustix::system::uname();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(0);
    let hierarchies = Hierarchies::probe().map_err(Error::from)?;
    let list = engine.list()?;
    let running: Vec<&str> =
        list.iter().filter(|(_, state)| state.phase == Phase::Running).map(|(one, _)| one.id.as_str()).collect();
    let paused = running.iter().filter(|id| engine.is_paused(id)).count();
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
        "SystemTime": units::rfc3339(now),
        "OSVersion": entry("/etc/os-release", "VERSION_ID", '=').unwrap_or_default(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "IndexConfigs": {},
            "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
            "Mirrors": null,
        },
        "GenericResources": null,
        "HttpProxy": variable("HTTP_PROXY"),
        "HttpsProxy": variable("HTTPS_PROXY"),
        "NoProxy": variable("NO_PROXY"),
        "ExperimentalBuild": false,
        "Swarm": { "LocalNodeState": "inactive", "ControlAvailable": false },
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
        "LoggingDriver": "json-file",
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

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let document = document(engine)?;
    if let Some(text) = args.format.as_deref().filter(|text| !text.is_empty()) {
        print(format::document(text, &document).map_err(Failure::new)?);
        return Ok(0);
    }
    let text = |key: &str| match &document[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut out = String::new();
    let mut line = |key: &str, value: &str| {
        let text = match (value, key.starts_with("  ")) {
            ("", true) => key.to_owned(),
            ("", false) => format!("{key}:"),
            _ => format!("{key}: {value}"),
        };
        out.push_str(&hull_oci::spec::one_line(&text));
        out.push('\n');
    };
    line("Containers", &text("Containers"));
    line(" Running", &text("ContainersRunning"));
    line(" Paused", &text("ContainersPaused"));
    line(" Stopped", &text("ContainersStopped"));
    line("Images", &text("Images"));
    line("Server Version", &text("ServerVersion"));
    line("Storage Driver", &text("Driver"));
    for pair in document["DriverStatus"].as_array().into_iter().flatten() {
        let part = |index: usize| pair[index].as_str().unwrap_or_default();
        line(&format!(" {}", part(0)), part(1));
    }
    line("Logging Driver", &text("LoggingDriver"));
    line("Cgroup Driver", &text("CgroupDriver"));
    line("Cgroup Version", &text("CgroupVersion"));
    let hierarchies = Hierarchies::probe().map_err(Error::from)?;
    let layout = hierarchies.layout().map_or_else(|| "none".to_owned(), |layout| format!("{layout:?}").to_lowercase());
    let controllers = hierarchies.list().iter().flat_map(|one| &one.controllers);
    let controllers: Vec<&str> = controllers.filter(|name| !name.starts_with("name=")).map(String::as_str).collect();
    line(" Layout", &layout);
    line(" Controllers", &controllers.join(" "));
    line("Security Options", "");
    for option in document["SecurityOptions"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        for (index, part) in option.split(',').filter_map(|part| part.split_once('=')).enumerate() {
            match (index, part) {
                (0, (_, name)) => line(&format!("  {name}"), ""),
                (_, (key, value)) => line(&format!("   {key}"), value),
            }
        }
    }
    line("Default Process Limit", &hull_engine::spec::DEFAULT_PIDS.to_string());
    line("Kernel Version", &text("KernelVersion"));
    for (name, path) in FEATURES {
        line(&format!(" {name}"), if exists(path) { "true" } else { "false" });
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for name in ["overlay", "erofs"] {
        let there = filesystems.lines().any(|line| line.split_whitespace().last() == Some(name));
        line(&format!(" {name}"), if there { "true" } else { "false" });
    }
    line("Operating System", &text("OperatingSystem"));
    line("OSType", &text("OSType"));
    line("Architecture", &text("Architecture"));
    line("CPUs", &text("NCPU"));
    line("Total Memory", &units::binary(document["MemTotal"].as_u64().unwrap_or(0)));
    line("Name", &text("Name"));
    line("Root Dir", &text("DockerRootDir"));
    line("State Dir", &engine.state_root().display().to_string());
    line("Rootless", if rustix::process::geteuid().is_root() { "false" } else { "true" });
    print(out);
    Ok(0)
}

pub(super) fn version(args: &Version) -> Done {
    let version = env!("CARGO_PKG_VERSION");
    let arch = hull_engine::seccomp::native_arch();
    let specification = hull_oci::spec::VERSION;
    if let Some(text) = args.format.as_deref().filter(|text| !text.is_empty()) {
        let kernel = rustix::system::uname();
        // One program is both.
        let document = json!({
            "Client": {
                "Version": version, "ApiVersion": API, "DefaultAPIVersion": API, "GitCommit": "", "GoVersion": "",
                "Os": std::env::consts::OS, "Arch": arch, "BuildTime": "", "Context": "default",
            },
            "Server": {
                "Platform": { "Name": "Hull" },
                "Version": version, "ApiVersion": API, "MinAPIVersion": "1.24", "GitCommit": "", "GoVersion": "",
                "Os": std::env::consts::OS, "Arch": arch, "BuildTime": "",
                "KernelVersion": kernel.release().to_string_lossy(),
                "Components": [{ "Name": "Runtime specification", "Version": specification }],
            },
        });
        print(format::document(text, &document).map_err(Failure::new)?);
        return Ok(0);
    }
    print(format_args!(
        "hull version {version}\nOCI runtime specification {specification}\n{}/{arch}\n",
        std::env::consts::OS,
    ));
    Ok(0)
}
