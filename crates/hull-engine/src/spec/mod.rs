//! From what the user asked for to the runtime specification: pure functions of the configuration, the image and facts
//! about the machine, so that the result is the same each time and tests need no root.
//!
//! Defaults are Docker's where a stock image needs them and stricter where none does: the eleven capabilities that
//! remain without `NET_RAW`, `MKNOD` and `AUDIT_WRITE`, no new privileges through `execve`, at most 4096 tasks.
//! [`Level::Compat`] is Docker's own set, without a limit of tasks; [`Level::Hardened`] adds a user namespace.

mod limits;
mod mounts;

use hull_oci::spec::{
    CAPABILITIES, Capabilities, Device, IdMapping, Linux, Namespace, NamespaceType, Process, Root, Spec, User, VERSION,
};

use crate::config::{Level, NamespaceChoice, RunConfig, SeccompChoice, UserChoice};
use crate::error::Error;
use crate::seccomp;

pub use limits::{DEFAULT_PIDS, resources};

/// What a container has unless flags say otherwise: Docker's set without `NET_RAW`, `MKNOD` and `AUDIT_WRITE`.
pub const DEFAULT_CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_SETFCAP",
];

/// What Docker's containers have beside [`DEFAULT_CAPABILITIES`].
pub const COMPAT_CAPABILITIES: [&str; 3] = ["CAP_NET_RAW", "CAP_MKNOD", "CAP_AUDIT_WRITE"];

/// IDs of a container with users of its own.
pub const BLOCK: u32 = 65536;

/// Paths that show nothing.
pub(crate) const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that cannot be written to.
pub(crate) const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(crate) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the configuration is completed with.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The container's ID.
    pub id: String,
    /// Where the root file system is, or where the overlay will be mounted.
    pub rootfs: String,
    /// The image's configuration; empty for a plain directory.
    pub image: hull_image::Config,
    /// The user, resolved in the container's root file system.
    pub user: User,
    /// Whether the machine has only cgroup v2.
    pub cgroup_v2: bool,
    /// Capabilities that Hull itself has, as `--privileged` and `--cap-add ALL` can give no more.
    pub available: Vec<String>,
    /// Kernel version, for profiles with conditions.
    pub kernel: (u32, u32),
    /// Number of CPUs, for the range of `--cpus`.
    pub cpus: u32,
    /// Generated files that are bound into the container: path on the host, path inside.
    pub files: Vec<(String, String)>,
    /// Every device node of the host, for `--privileged`.
    pub host_devices: Vec<crate::config::DeviceConfig>,
    /// First of the [`BLOCK`] IDs of the machine that are the container's users.
    pub first_id: Option<u32>,
    /// Whether standard output of the client is a terminal of this size.
    pub console: Option<hull_oci::spec::ConsoleSize>,
}

/// The specification of a container.
///
/// # Errors
/// [`Error::Flag`] when values do not fit each other or the image.
pub fn spec(config: &RunConfig, context: &Context) -> Result<Spec, Error> {
    let capabilities = capabilities(config, &context.available);
    let hostname = match (&config.hostname, &config.namespaces.uts) {
        (Some(name), _) => name.clone(),
        (None, NamespaceChoice::Private) => context.id.chars().take(12).collect(),
        (None, _) => String::new(),
    };
    let confined = !(config.security.privileged || config.security.system_paths_unconfined);
    let mut sysctl = config.sysctls.clone();
    let maps: Vec<IdMapping> = match (config.namespaces.user, context.first_id) {
        (UserChoice::Private, Some(first)) => vec![IdMapping { container_id: 0, host_id: first, size: BLOCK }],
        _ => Vec::new(),
    };
    if config.namespaces.network == NamespaceChoice::Private {
        // Ping and ports below 1024 for every user of the container, without a capability.
        let last = if maps.is_empty() { "0 2147483647" } else { "0 65535" };
        sysctl.entry("net.ipv4.ping_group_range".into()).or_insert_with(|| last.into());
        sysctl.entry("net.ipv4.ip_unprivileged_port_start".into()).or_insert_with(|| "0".into());
    }
    let masked: Vec<String> = if confined { MASKED.map(String::from).to_vec() } else { Vec::new() };
    Ok(Spec {
        oci_version: VERSION.to_owned(),
        root: Some(Root { path: context.rootfs.clone(), readonly: config.read_only }),
        mounts: mounts::mounts(config, context)?,
        process: Some(process(config, context, &capabilities, &hostname)?),
        domainname: config.domainname.clone().unwrap_or_default(),
        annotations: config.annotations.clone(),
        linux: Some(Linux {
            sysctl,
            resources: Some(resources(config, context)?),
            cgroups_path: cgroup_path(config, &context.id),
            namespaces: namespaces(config),
            uid_mappings: maps.clone(),
            gid_mappings: maps,
            devices: devices(config, context),
            seccomp: filter(config, context, &capabilities),
            masked_paths: masked,
            readonly_paths: if confined { READONLY.map(String::from).to_vec() } else { Vec::new() },
            mount_label: String::new(),
            ..Linux::default()
        }),
        hostname,
        ..Spec::default()
    })
}

fn cgroup_path(config: &RunConfig, id: &str) -> String {
    match &config.limits.cgroup_parent {
        Some(parent) => format!("/{}/{id}", parent.trim_matches('/')),
        None => format!("/hull/{id}"),
    }
}

/// The capabilities that a configuration comes to, limited to what is available.
#[must_use]
pub fn capabilities(config: &RunConfig, available: &[String]) -> Vec<String> {
    let security = &config.security;
    let has = |list: &[String], name: &str| list.iter().any(|one| one == name);
    CAPABILITIES
        .iter()
        .filter(|name| {
            let whole = security.privileged || has(&security.cap_add, "ALL");
            let base = if whole {
                available.iter().any(|one| one == *name)
            } else {
                let compat = security.level == Level::Compat && COMPAT_CAPABILITIES.contains(name);
                (compat || DEFAULT_CAPABILITIES.contains(name)) && !has(&security.cap_drop, "ALL")
            };
            (base || has(&security.cap_add, name)) && (security.privileged || !has(&security.cap_drop, name))
        })
        .map(ToString::to_string)
        .collect()
}

/// The filter in the specification's form; `None` when there is none or the built-in one replaces it.
fn filter(config: &RunConfig, context: &Context, capabilities: &[String]) -> Option<hull_oci::spec::Seccomp> {
    match &config.security.seccomp {
        SeccompChoice::Profile(profile) => Some(profile.resolve(capabilities, seccomp::native_arch(), context.kernel)),
        SeccompChoice::Oci(document) => Some((**document).clone()),
        SeccompChoice::Builtin | SeccompChoice::Unconfined => None,
    }
}

fn process(config: &RunConfig, context: &Context, capabilities: &[String], hostname: &str) -> Result<Process, Error> {
    let image = &context.image;
    let entrypoint: Vec<String> = match &config.entrypoint {
        Some(program) if program.is_empty() => Vec::new(),
        Some(program) => [std::slice::from_ref(program), &config.entrypoint_words].concat(),
        None => image.entrypoint.clone(),
    };
    // A replaced entry point does not get the arguments that were meant for the image's own.
    let command = if config.command.is_empty() && config.entrypoint.is_none() { &image.cmd } else { &config.command };
    let args: Vec<String> = entrypoint.into_iter().chain(command.iter().cloned()).collect();
    if args.is_empty() {
        return Err(Error::Refused("no command specified".to_owned()));
    }
    let cwd = config.workdir.as_ref().unwrap_or(&image.working_dir);
    let cwd = if cwd.is_empty() { "/".to_owned() } else { cwd.clone() };
    if !cwd.starts_with('/') {
        let reason = format!("the working directory '{cwd}' is invalid, it needs to be an absolute path");
        return Err(Error::flag("--workdir", reason));
    }
    let root = context.user.uid == 0;
    let kept = |yes: bool| if yes { capabilities.to_vec() } else { Vec::new() };
    Ok(Process {
        terminal: config.tty,
        console_size: context.console.filter(|_| config.tty),
        user: context.user.clone(),
        args,
        env: environment(config, image, hostname),
        cwd,
        capabilities: Some(Capabilities {
            bounding: capabilities.to_vec(),
            effective: kept(root),
            permitted: kept(root),
            inheritable: Vec::new(),
            ambient: Vec::new(),
        }),
        rlimits: config.ulimits.clone(),
        no_new_privileges: config.security.no_new_privileges && !config.security.privileged,
        apparmor_profile: config.security.apparmor.clone().unwrap_or_default(),
        selinux_label: config.security.label.clone().unwrap_or_default(),
        oom_score_adj: config.limits.oom_score_adj,
        ..Process::default()
    })
}

/// Hull's own variables, the image's, the user's: later ones replace earlier ones in place.
fn environment(config: &RunConfig, image: &hull_image::Config, hostname: &str) -> Vec<String> {
    let mut list: Vec<String> = vec![PATH.to_owned()];
    if !hostname.is_empty() {
        list.push(format!("HOSTNAME={hostname}"));
    }
    if config.tty {
        list.push("TERM=xterm".to_owned());
    }
    for variable in image.env.iter().chain(&config.env) {
        let name = variable.split('=').next().unwrap_or_default();
        match list.iter_mut().find(|one| one.split('=').next() == Some(name)) {
            Some(present) => present.clone_from(variable),
            None => list.push(variable.clone()),
        }
    }
    list
}

fn namespaces(config: &RunConfig) -> Vec<Namespace> {
    let chosen = &config.namespaces;
    let mut list = vec![Namespace { kind: NamespaceType::Mount, path: String::new() }];
    if chosen.user == UserChoice::Private {
        list.push(Namespace { kind: NamespaceType::User, path: String::new() });
    }
    let choices = [
        (NamespaceType::Pid, &chosen.pid),
        (NamespaceType::Network, &chosen.network),
        (NamespaceType::Ipc, &chosen.ipc),
        (NamespaceType::Uts, &chosen.uts),
        (NamespaceType::Cgroup, &chosen.cgroup),
    ];
    for (kind, choice) in choices {
        match choice {
            NamespaceChoice::Private => list.push(Namespace { kind, path: String::new() }),
            NamespaceChoice::Path(path) | NamespaceChoice::Container(path) => {
                list.push(Namespace { kind, path: path.clone() });
            }
            NamespaceChoice::Host => {}
        }
    }
    list
}

fn devices(config: &RunConfig, context: &Context) -> Vec<Device> {
    let all = if config.security.privileged { context.host_devices.as_slice() } else { &[] };
    all.iter()
        .chain(&config.devices)
        .map(|device| Device {
            path: device.path.clone(),
            kind: device.kind.clone(),
            major: i64::from(device.major),
            minor: i64::from(device.minor),
            file_mode: Some(device.mode),
            uid: Some(device.uid),
            gid: Some(device.gid),
        })
        .collect()
}

#[cfg(test)]
mod tests;
