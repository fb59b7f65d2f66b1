//! `hull info` and `hull version`.

use hull_api::API_VERSION as API;
use hull_cgroup::Hierarchies;
use hull_engine::{Engine, Error};
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

/// Prints a document by a template; as Docker, with an empty line if that fails.
fn show(text: &str, document: &Value, name: &str) -> Done {
    let shown = format::named(text, document, name);
    print(shown.as_deref().unwrap_or("\n"));
    // Docker's templates have names, or none and nothing before them.
    shown.map(|_| 0).map_err(|reason| match name {
        "system.versionInfo" => Failure::new(reason.replacen("template: :", "template: version:", 1).replacen(
            "executing \"\"",
            "executing \"version\"",
            1,
        )),
        _ => Failure::new(reason),
    })
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let document = hull_api::info(engine)?;
    if let Some(text) = args.format.as_deref().filter(|text| !text.is_empty()) {
        return show(text, &document, "system.dockerInfo");
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
        return show(text, &document, "system.versionInfo");
    }
    print(format_args!(
        "hull version {version}\nOCI runtime specification {specification}\n{}/{arch}\n",
        std::env::consts::OS,
    ));
    Ok(0)
}
