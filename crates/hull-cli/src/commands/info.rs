//! `hull info` and `hull version`.

use hull_cgroup::{Hierarchies, Layout};
use hull_engine::records::Phase;
use hull_engine::{Engine, Error};
use hull_image::snapshot::probe::Capabilities;
use serde_json::{Value, json};

use super::{Done, Failure};
use crate::output::{format, print};

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

/// Docker's document.
fn document(engine: &Engine) -> Result<Value, Failure> {
    let kernel = rustix::system::uname();
    let hierarchies = Hierarchies::probe().map_err(Error::from)?;
    let list = engine.list()?;
    let count = |phase: Phase| list.iter().filter(|(_, state)| state.phase == phase).count();
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
    Ok(json!({
        "Containers": list.len(),
        "ContainersRunning": count(Phase::Running),
        "ContainersPaused": 0,
        "ContainersStopped": list.len() - count(Phase::Running),
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
    }))
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
    line("Total Memory", &binary_size(document["MemTotal"].as_u64().unwrap_or(0)));
    line("Name", &text("Name"));
    line("Root Dir", &text("DockerRootDir"));
    line("State Dir", &engine.state_root().display().to_string());
    line("Rootless", if rustix::process::geteuid().is_root() { "false" } else { "true" });
    print(out);
    Ok(0)
}

/// `15.61GiB`, as Docker shows memory.
fn binary_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = 3usize.saturating_sub(value.log10().max(0.0).floor() as usize);
    format!("{value:.digits$}{}", UNITS[unit])
}

pub(super) fn version(args: &Version) -> Done {
    let version = env!("CARGO_PKG_VERSION");
    let arch = hull_engine::seccomp::native_arch();
    let specification = hull_oci::spec::VERSION;
    if let Some(text) = args.format.as_deref().filter(|text| !text.is_empty()) {
        let kernel = rustix::system::uname();
        // One program is both.
        let document = json!({
            "Client": { "Version": version, "Os": std::env::consts::OS, "Arch": arch },
            "Server": {
                "Version": version, "Os": std::env::consts::OS, "Arch": arch,
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
