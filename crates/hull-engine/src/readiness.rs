//! What this machine lacks, what of Hull needs it, and the command that mends it.
//!
//! Nothing is changed, and nothing is assumed from a version where it can be tried or read. Where a kernel's feature can
//! be neither, its configuration is read (`/proc/config.gz`, `/boot/config-RELEASE`); if that is missing too, nothing is
//! said of it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use hull_cgroup::{Hierarchies, Layout};
use hull_image::snapshot::probe::Capabilities;
use serde::Serialize;

use crate::error::Error;
use crate::records::Engine;

/// A kernel's configuration of at most this many bytes is read.
const MAX_CONFIG: u64 = 4 << 20;

/// How much the lack of something matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// It is there.
    Fine,
    /// It is not there; what it is for does not work, and nothing else.
    Lacks,
    /// Containers do not work without it.
    Needed,
}

impl Weight {
    /// `fine`, `lacks` or `needed`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Lacks => "lacks",
            Self::Needed => "needed",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it stands.
    pub weight: Weight,
    /// What was found.
    pub found: String,
    /// What of Hull needs it; empty where it is there.
    pub used_for: String,
    /// The command that mends it, or what to do; empty where it is there or nothing helps.
    pub mend: String,
}

fn fine(name: &str, found: impl Into<String>) -> Check {
    Check {
        name: name.to_owned(),
        weight: Weight::Fine,
        found: found.into(),
        used_for: String::new(),
        mend: String::new(),
    }
}

fn lack(weight: Weight, name: &str, found: impl Into<String>, used_for: &str, mend: impl Into<String>) -> Check {
    Check { name: name.to_owned(), weight, found: found.into(), used_for: used_for.to_owned(), mend: mend.into() }
}

/// The first line of a small file.
fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|one| one.join(name))
        .find(|one| one.is_file())
}

/// What a kernel was built with.
struct Kernel {
    release: String,
    config: Option<String>,
}

impl Kernel {
    fn here() -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let read = |reader: &mut dyn std::io::Read| {
            let mut text = String::new();
            reader.take(MAX_CONFIG).read_to_string(&mut text).ok().map(|_| text)
        };
        let open = |path: &str| std::fs::File::open(path).ok();
        let config = open("/proc/config.gz")
            .and_then(|file| read(&mut flate2::read::GzDecoder::new(file)))
            .or_else(|| read(&mut open(&format!("/boot/config-{release}"))?));
        Self { release, config }
    }

    fn version(&self) -> Option<(u32, u32)> {
        let mut parts = self.release.split(['.', '-']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    /// Whether it has an option, built in or as a module; `None` where nobody can tell.
    fn has(&self, option: &str) -> Option<bool> {
        let config = self.config.as_ref()?;
        Some(config.lines().any(|line| line.strip_prefix(option).is_some_and(|rest| matches!(rest, "=y" | "=m"))))
    }
}

impl Engine {
    /// Looks at everything. The order is that of importance to a new user.
    ///
    /// # Errors
    /// When the control groups cannot be found out.
    pub fn readiness(&self) -> Result<Vec<Check>, Error> {
        let kernel = Kernel::here();
        let root = rustix::process::geteuid().is_root();
        let mut checks = vec![release(&kernel)];
        match Capabilities::of(self.images.root()) {
            Ok(capabilities) => checks.extend([overlay(&capabilities), erofs(&capabilities, &kernel)]),
            // A full disk, or a directory of somebody else's: it is said, and the rest is looked at.
            Err(error) => checks.push(lack(
                Weight::Lacks,
                "data directory",
                error.to_string(),
                "images and containers",
                "use root, make room, or name another directory: hull --root DIR",
            )),
        }
        checks.extend(cgroups(root)?);
        checks.extend(users(&kernel, root));
        checks.push(seccomp(&kernel));
        checks.push(labels());
        checks.extend(network(self, &kernel));
        checks.push(quota(self.root()));
        checks.push(emulation());
        checks.push(match program("criu") {
            Some(path) => fine("criu", path.display().to_string()),
            None => lack(Weight::Lacks, "criu", "not installed", "checkpoints", "apt-get install criu"),
        });
        Ok(checks)
    }
}

fn release(kernel: &Kernel) -> Check {
    match kernel.version() {
        Some(version) if version < (5, 10) => lack(
            Weight::Needed,
            "kernel",
            format!("Linux {}", kernel.release),
            "everything: Hull needs Linux 5.10 or newer",
            "install a newer kernel: apt-get install linux-image-amd64",
        ),
        _ => fine("kernel", format!("Linux {}", kernel.release)),
    }
}

fn overlay(capabilities: &Capabilities) -> Check {
    match &capabilities.overlay.missing {
        None => fine("overlay", format!("on {}", capabilities.backing)),
        Some(reason) => lack(
            Weight::Needed,
            "overlay",
            reason.clone(),
            "containers on images",
            "modprobe overlay, or put the data directory on ext4, xfs or btrfs: hull --root DIR",
        ),
    }
}

fn erofs(capabilities: &Capabilities, kernel: &Kernel) -> Check {
    let Some(reason) = &capabilities.no_erofs else { return fine("erofs", "mounted from files") };
    let mend = match (kernel.version(), kernel.has("CONFIG_EROFS_FS")) {
        (Some(version), _) if version < (6, 12) => "install Linux 6.12 or newer",
        (_, Some(false)) => "use a kernel with CONFIG_EROFS_FS and CONFIG_EROFS_FS_BACKED_BY_FILE",
        _ => "modprobe erofs",
    };
    let used = "layers that are never unpacked; they are unpacked into directories instead";
    lack(Weight::Lacks, "erofs", reason.clone(), used, mend)
}

fn cgroups(root: bool) -> Result<Vec<Check>, Error> {
    let hierarchies = Hierarchies::probe().map_err(Error::from)?;
    let mut checks = vec![match hierarchies.layout() {
        Some(Layout::V2) => fine("cgroups", "version 2"),
        Some(other) => lack(
            Weight::Lacks,
            "cgroups",
            format!("{other:?}").to_lowercase(),
            "limits for ordinary users, and ends of whole groups in one call",
            "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line",
        ),
        None => lack(Weight::Lacks, "cgroups", "not mounted", "all limits", "mount -t cgroup2 cgroup2 /sys/fs/cgroup"),
    }];
    for (name, used) in [
        ("memory", "--memory"),
        ("cpu", "--cpus"),
        ("cpuset", "--cpuset-cpus"),
        ("pids", "--pids-limit"),
        ("io", "--device-read-bps, --blkio-weight"),
        ("hugetlb", "limits of huge pages"),
    ] {
        let there = hierarchies.of(name).or_else(|| hierarchies.of("blkio").filter(|_| name == "io")).is_some();
        let label = format!("cgroup controller {name}");
        checks.push(match (there, name, root) {
            (true, ..) => fine(&label, "available"),
            (false, _, false) => lack(
                Weight::Lacks,
                &label,
                "not delegated to this user",
                used,
                "systemctl edit user@.service, with the lines [Service] and Delegate=cpu cpuset io memory pids; then log in again",
            ),
            (false, "memory", true) => lack(
                Weight::Lacks,
                &label,
                "not available",
                used,
                "add cgroup_enable=memory swapaccount=1 to the kernel's command line",
            ),
            (false, ..) => {
                lack(Weight::Lacks, &label, "not available", used, "use a kernel that is built with it")
            }
        });
    }
    Ok(checks)
}

fn users(kernel: &Kernel, root: bool) -> Vec<Check> {
    let weight = if root { Weight::Lacks } else { Weight::Needed };
    let used = "--userns=private, --security=hardened, and all containers of ordinary users";
    let blocked = [
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    let mut checks = Vec::new();
    let found = blocked.iter().find(|(path, bad, _)| {
        let own = *path == "/proc/sys/user/max_user_namespaces" || !root;
        own && line(path).is_some_and(|value| value == *bad)
    });
    checks.push(match found {
        _ if !Path::new("/proc/self/ns/user").exists() => {
            lack(weight, "user namespaces", "not in this kernel", used, "use a kernel with CONFIG_USER_NS")
        }
        Some((path, bad, mend)) => lack(weight, "user namespaces", format!("{path} is {bad}"), used, *mend),
        None => fine("user namespaces", "available"),
    });
    // A detached, idmapped mount as a layer of an overlay cannot be tried without making one.
    checks.push(match kernel.version() {
        Some(version) if version < (6, 15) => lack(
            Weight::Lacks,
            "idmapped layers",
            format!("Linux {}", kernel.release),
            "--userns=private and --security=hardened",
            "install Linux 6.15 or newer",
        ),
        _ => fine("idmapped layers", "available"),
    });
    if root {
        return checks;
    }
    let uid = rustix::process::getuid().as_raw().to_string();
    let name = line_of("/etc/passwd", |fields| fields.get(2) == Some(&uid.as_str())).unwrap_or_else(|| uid.clone());
    let ranges = ["/etc/subuid", "/etc/subgid"]
        .iter()
        .all(|path| line_of(path, |fields| fields.first().is_some_and(|one| *one == name || *one == uid)).is_some());
    checks.push(match ranges {
        true => fine("ranges of IDs", "in /etc/subuid and /etc/subgid"),
        false => lack(
            Weight::Lacks,
            "ranges of IDs",
            format!("none for {name} in /etc/subuid and /etc/subgid"),
            "images with several users",
            format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"),
        ),
    });
    checks.push(match (program("newuidmap"), program("newgidmap")) {
        (Some(path), Some(_)) => fine("newuidmap", path.display().to_string()),
        _ => lack(Weight::Lacks, "newuidmap", "not installed", "images with several users", "apt-get install uidmap"),
    });
    checks
}

/// The first field of the first line whose fields fit.
fn line_of(path: &str, fits: impl Fn(&[&str]) -> bool) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        fits(&fields).then(|| fields.first().map(|one| (*one).to_owned()))?
    })
}

fn seccomp(kernel: &Kernel) -> Check {
    if Path::new("/proc/sys/kernel/seccomp/actions_avail").exists() || kernel.has("CONFIG_SECCOMP_FILTER") == Some(true)
    {
        return fine("seccomp", "available");
    }
    let used = "the filter of system calls; containers run only with --security-opt seccomp=unconfined";
    lack(Weight::Needed, "seccomp", "not in this kernel", used, "use a kernel with CONFIG_SECCOMP_FILTER")
}

fn labels() -> Check {
    let there = |path: &str| Path::new(path).exists();
    if there("/sys/kernel/security/apparmor") {
        return fine("mandatory access control", "AppArmor");
    }
    if there("/sys/fs/selinux/enforce") {
        return fine("mandatory access control", "SELinux");
    }
    lack(
        Weight::Lacks,
        "mandatory access control",
        "neither AppArmor nor SELinux",
        "one more wall around containers; the others stand",
        "apt-get install apparmor, and boot with apparmor=1 security=apparmor",
    )
}

fn network(engine: &Engine, kernel: &Kernel) -> Vec<Check> {
    let mut checks = Vec::new();
    let used = "networks: without it there are --network none and host only";
    for (name, option, module) in [
        ("bridge", "CONFIG_BRIDGE", "bridge"),
        ("veth", "CONFIG_VETH", "veth"),
        ("nftables", "CONFIG_NF_TABLES", "nf_tables"),
    ] {
        let loaded = Path::new("/sys/module").join(module).exists();
        checks.push(match (loaded, kernel.has(option)) {
            (true, _) | (false, Some(true)) => fine(name, "available"),
            (false, Some(false)) => {
                lack(Weight::Lacks, name, "not in this kernel", used, format!("use a kernel with {option}"))
            }
            (false, None) => fine(name, "not loaded yet; what the kernel has cannot be read"),
        });
    }
    checks.push(match line("/proc/sys/net/ipv4/ip_forward").as_deref() {
        Some("1") => fine("forwarding", "net.ipv4.ip_forward is 1"),
        Some(_) => fine("forwarding", "off; Hull turns it on for the devices of its networks"),
        None => lack(Weight::Lacks, "forwarding", "no IPv4", used, "use a kernel with CONFIG_INET"),
    });
    match engine.networks().doctor() {
        Ok(findings) if findings.is_empty() => checks.push(fine("firewall and networks", "no problems found")),
        Ok(findings) => checks.extend(findings.into_iter().map(|finding| {
            let weight = if finding.broken { Weight::Needed } else { Weight::Lacks };
            let mend = if finding.remedy.is_empty() { "hull network doctor".to_owned() } else { finding.remedy };
            lack(weight, "firewall and networks", finding.what, "containers' way to each other and outside", mend)
        })),
        Err(error) => checks.push(lack(
            Weight::Lacks,
            "firewall and networks",
            error.to_string(),
            used,
            "hull network doctor says more; a container may need CAP_NET_ADMIN",
        )),
    }
    checks
}

/// Project quotas of the file system that containers write to.
fn quota(root: &Path) -> Check {
    let used = "--storage-opt size=";
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let root = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let mut best: Option<(usize, &str, &str, &str)> = None;
    for line in text.lines() {
        let Some((mount, source)) = line.split_once(" - ") else { continue };
        let Some(point) = mount.split(' ').nth(4) else { continue };
        let mut source = source.split(' ');
        let (kind, _, options) = (source.next(), source.next(), source.next());
        if root.starts_with(point) && best.is_none_or(|(length, ..)| point.len() >= length) {
            best = Some((point.len(), point, kind.unwrap_or_default(), options.unwrap_or_default()));
        }
    }
    let Some((_, point, kind, options)) = best else {
        return lack(Weight::Lacks, "project quotas", "no mount was found", used, "");
    };
    if options.split(',').any(|one| matches!(one, "prjquota" | "pquota")) {
        return fine("project quotas", format!("{kind} at {point}"));
    }
    let mend = match kind {
        "ext4" => format!("tune2fs -O project -Q prjquota DEVICE while unmounted, then mount {point} with prjquota"),
        "xfs" => format!("mount {point} with prjquota"),
        _ => "put the data directory on ext4 or xfs mounted with prjquota".to_owned(),
    };
    lack(Weight::Lacks, "project quotas", format!("{kind} at {point} is mounted without"), used, mend)
}

/// Programs of other architectures.
fn emulation() -> Check {
    let list = std::fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    let mut names: Vec<String> = list
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("qemu-"))
        .collect();
    names.sort();
    if names.is_empty() {
        return lack(
            Weight::Lacks,
            "programs of other architectures",
            "qemu is not registered",
            "--platform of another architecture",
            "apt-get install qemu-user-static binfmt-support",
        );
    }
    let list = names.iter().map(|name| name.trim_start_matches("qemu-")).collect::<Vec<_>>().join(", ");
    fine("programs of other architectures", list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_says_what_it_has() {
        let kernel =
            |config: Option<&str>| Kernel { release: "6.1.0-18-amd64".to_owned(), config: config.map(str::to_owned) };
        let built = kernel(Some("CONFIG_VETH=m\n# CONFIG_BRIDGE is not set\nCONFIG_VETHX=y\n"));
        assert_eq!((built.has("CONFIG_VETH"), built.has("CONFIG_BRIDGE")), (Some(true), Some(false)));
        assert_eq!(kernel(None).has("CONFIG_VETH"), None);
        assert_eq!(built.version(), Some((6, 1)));
        assert_eq!(release(&Kernel { release: "4.19.0".to_owned(), config: None }).weight, Weight::Needed);
    }

    #[test]
    fn what_lacks_has_a_use_and_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let engine = Engine::new(directory.path().join("data"), directory.path().join("run"));
        let checks = engine.readiness().unwrap();
        assert!(checks.iter().any(|check| check.name == "overlay"));
        for check in checks.iter().filter(|check| check.weight != Weight::Fine) {
            assert!(!check.used_for.is_empty() && !check.found.is_empty(), "{check:?}");
        }
    }
}
