//! `hull info` and `hull version`.

use hull_cgroup::Hierarchies;
use hull_engine::{Engine, Error};

use super::Done;
use crate::output::print;

/// Show what Hull found on this machine
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Show the version
#[derive(Debug, clap::Args)]
pub(super) struct Version {}

/// Files whose presence tells that the kernel has a feature.
const FEATURES: [(&str, &str); 6] = [
    ("user namespaces", "/proc/self/ns/user"),
    ("time namespaces", "/proc/self/ns/time"),
    ("cgroup namespaces", "/proc/self/ns/cgroup"),
    ("seccomp", "/proc/sys/kernel/seccomp/actions_avail"),
    ("AppArmor", "/sys/kernel/security/apparmor"),
    ("SELinux", "/sys/fs/selinux/enforce"),
];

pub(super) fn main(engine: &Engine, _: &Args) -> Done {
    let kernel = rustix::system::uname();
    let hierarchies = Hierarchies::probe().map_err(Error::from)?;
    let layout = hierarchies.layout().map_or_else(|| "none".to_owned(), |layout| format!("{layout:?}").to_lowercase());
    let controllers: Vec<&str> = hierarchies
        .list()
        .iter()
        .flat_map(|one| &one.controllers)
        .filter(|name| !name.starts_with("name="))
        .map(String::as_str)
        .collect();
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let mounts = |name: &str| filesystems.lines().any(|line| line.split_whitespace().last() == Some(name));
    let all = engine.list()?;
    let running = all.iter().filter(|(_, state)| state.phase == hull_engine::records::Phase::Running).count();
    let images = engine.images.list().map_err(Error::from)?.len();
    let mut text = String::new();
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key}: {value}\n"));
    line("Hull version", env!("CARGO_PKG_VERSION"));
    line("Containers", &format!("{} ({running} running)", all.len()));
    line("Images", &images.to_string());
    line("Snapshotter", "directory (an image is a directory, each container an overlay above it)");
    line("Root directory", &engine.root().display().to_string());
    line("State directory", &engine.state_root().display().to_string());
    line("Kernel", &format!("{} {}", kernel.release().to_string_lossy(), kernel.machine().to_string_lossy()));
    line("Cgroup version", &layout);
    line("Cgroup controllers", &controllers.join(" "));
    line("Cgroup driver", "cgroupfs");
    line("Rootless", if rustix::process::geteuid().is_root() { "no" } else { "yes" });
    line("Security", &format!("seccomp profile builtin, no-new-privileges, {} tasks", hull_engine::spec::DEFAULT_PIDS));
    for name in ["overlay", "erofs"] {
        line(name, if mounts(name) { "yes" } else { "no" });
    }
    for (name, path) in FEATURES {
        line(name, if std::path::Path::new(path).exists() { "yes" } else { "no" });
    }
    print(text);
    Ok(0)
}

pub(super) fn version(_: &Version) -> Done {
    print(format_args!(
        "hull version {}\nOCI runtime specification {}\n{}/{}\n",
        env!("CARGO_PKG_VERSION"),
        hull_oci::spec::VERSION,
        std::env::consts::OS,
        hull_engine::seccomp::native_arch(),
    ));
    Ok(0)
}
