//! What the user asked for: plain data, filled from flags, kept in the container's record, turned into a specification
//! by [`crate::spec`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use hull_oci::image::Platform;
use hull_oci::spec::{Rlimit, Seccomp};
use serde::{Deserialize, Serialize};

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// An image of the local store; the container writes to a layer of its own above it.
    Image(String),
    /// A directory that the container uses, and changes, directly.
    Directory(PathBuf),
}

impl Default for Source {
    fn default() -> Self {
        Self::Image(String::new())
    }
}

/// Everything `hull run` can be told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunConfig {
    /// Root file system.
    pub source: Source,
    /// Which of an image's platforms, where it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Program and arguments after the image; empty takes the image's.
    pub command: Vec<String>,
    /// Replaces the image's entry point; an empty string clears it.
    pub entrypoint: Option<String>,
    /// Words between a replaced entry point's program and the command.
    pub entrypoint_words: Vec<String>,
    /// `NAME=value`, in order, the last of one name winning.
    pub env: Vec<String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// Groups beside the user's own, names or numbers.
    pub groups: Vec<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// Host name; absent means the ID's first twelve digits.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Container name.
    pub name: Option<String>,
    /// Labels; in a record with those of the image.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the specification.
    pub annotations: BTreeMap<String, String>,
    /// Allocate a terminal.
    pub tty: bool,
    /// Keep standard input open.
    pub interactive: bool,
    /// Run in the background.
    pub detach: bool,
    /// Remove the container when it ends.
    pub remove: bool,
    /// It ends with the process that runs it.
    pub tied: bool,
    /// Mount the root file system read-only.
    pub read_only: bool,
    /// `/tmp`, `/run` and `/var/tmp` of a read-only root file system are writable, in memory.
    pub read_only_tmpfs: bool,
    /// Bind mounts, volumes, ..., in order.
    pub mounts: Vec<MountConfig>,
    /// Targets of those that other containers lent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lent_mounts: Vec<String>,
    /// Targets of those that `--mount` named, which `inspect` shows apart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub long_mounts: Vec<String>,
    /// Most bytes that the container may write to its own layer.
    pub storage_size: Option<u64>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// Device nodes.
    pub devices: Vec<DeviceConfig>,
    /// Devices of vendors' descriptions, `VENDOR/CLASS=NAME`.
    pub cdi: Vec<String>,
    /// Further rules such as `c 10:200 rwm`.
    pub device_rules: Vec<DeviceRuleConfig>,
    /// Resource limits of processes.
    pub ulimits: Vec<Rlimit>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Control group limits.
    pub limits: Limits,
    /// Isolation.
    pub security: Security,
    /// Namespaces.
    pub namespaces: Namespaces,
    /// Networks, where the network namespace is private; none of them is only the loopback device.
    pub networks: Vec<NetworkConfig>,
    /// Published ports.
    pub publish: Vec<PublishConfig>,
    /// Publish all exposed ports.
    pub publish_all: bool,
    /// Exposed ports, `80/tcp`.
    pub expose: Vec<String>,
    /// Links to other containers, `NAME[:ALIAS]`.
    pub links: Vec<String>,
    /// Name resolution.
    pub dns: DnsConfig,
    /// Signal of `stop`; absent means the image's or SIGTERM.
    pub stop_signal: Option<i32>,
    /// Seconds that `stop` waits before it kills, -1 for ever; absent means 10.
    pub stop_timeout: Option<i64>,
    /// Whether it is started again after its end.
    pub restart: RestartPolicy,
    /// Where its output is kept.
    pub log: LogConfig,
    /// A small first process reaps and passes signals on.
    pub init: bool,
    /// How its health is found out; absent means as the image says.
    pub health: Option<HealthConfig>,
    /// What is done when it is found unhealthy.
    pub on_unhealthy: Unhealthy,
    /// Containers whose volumes it has too: `NAME[:ro|rw]`.
    pub volumes_from: Vec<String>,
    /// OCI runtime that runs it; absent means Hull's own.
    pub runtime: Option<String>,
}

/// A network that a container is on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkConfig {
    /// Name or ID.
    pub name: String,
    /// Address that the user chose.
    pub ipv4: Option<Ipv4Addr>,
    /// Address that the user chose.
    pub ipv6: Option<Ipv6Addr>,
    /// Hardware address that the user chose.
    pub mac: Option<String>,
    /// Other names.
    pub aliases: Vec<String>,
    /// Further addresses of the link.
    pub link_local: Vec<IpAddr>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// The highest one's gateway is the container's.
    pub priority: i64,
}

/// A port of the machine that leads to one of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishConfig {
    /// Address of the machine; absent is every one.
    pub host: Option<IpAddr>,
    /// First and last port of the machine, of which a free one is taken; absent is any.
    pub host_ports: Option<(u16, u16)>,
    /// Port of the container.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// Name resolution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    /// Servers; empty takes the machine's.
    pub servers: Vec<IpAddr>,
    /// Domains that are tried behind short names.
    pub search: Vec<String>,
    /// Such as `ndots:2`.
    pub options: Vec<String>,
    /// `NAME:ADDRESS`, for `/etc/hosts`.
    pub hosts: Vec<String>,
}

impl DnsConfig {
    /// Whether anything is to be in `/etc/resolv.conf` beside what the machine has.
    pub(crate) fn is_asked(&self) -> bool {
        !self.servers.is_empty() || !self.search.is_empty() || !self.options.is_empty()
    }
}

/// Whether a container is started again after its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it failed, so many times at most; 0 means without limit.
    OnFailure(u32),
    /// Until it is stopped by hand; at boot in any case.
    Always,
    /// Until it is stopped by hand, also at boot.
    UnlessStopped,
}

/// Where output is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// Name of the driver; empty means `json-file`.
    pub driver: String,
    /// Its options, as `max-size=10m`.
    pub options: BTreeMap<String, String>,
}

/// A health check. Times are nanoseconds; 0 means the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthConfig {
    /// `NONE`, `CMD` and words, or `CMD-SHELL` and a line; empty means the image's.
    pub test: Vec<String>,
    /// Between checks.
    pub interval: u64,
    /// Of one check.
    pub timeout: u64,
    /// While failures do not count.
    pub start_period: u64,
    /// Between checks meanwhile.
    pub start_interval: u64,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
}

/// What is done with an unhealthy container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unhealthy {
    /// It is told.
    #[default]
    None,
    /// It is killed, and its restart policy decides.
    Kill,
    /// It is restarted whatever its policy.
    Restart,
    /// It is stopped for good.
    Stop,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountConfig {
    /// A file or directory of the host.
    Bind {
        /// On the host; absolute.
        source: PathBuf,
        /// In the container; absolute.
        target: String,
        /// `ro`, propagation, `rbind`, ...
        options: Vec<String>,
        /// Make a missing source as a directory, as `-v` does.
        create: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// In the container; absolute.
        target: String,
        /// `size=64m`, `mode=1777`, ...
        options: Vec<String>,
    },
    /// A volume, made at its first use.
    Volume {
        /// Its name; empty until an anonymous one gets its own.
        name: String,
        /// In the container; absolute.
        target: String,
        /// `ro`, ...
        options: Vec<String>,
        /// How it is made, and which part of it is mounted.
        volume: VolumeConfig,
    },
    /// The files of an image, read-only.
    Image {
        /// Name or ID.
        image: String,
        /// In the container; absolute.
        target: String,
        /// Directory of the image; empty is all of it.
        subpath: String,
    },
}

impl MountConfig {
    /// Path in the container, as it was given.
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::Bind { target, .. }
            | Self::Tmpfs { target, .. }
            | Self::Volume { target, .. }
            | Self::Image { target, .. } => target,
        }
    }

    /// Whether the container may not write to it.
    #[must_use]
    pub fn read_only(&self) -> bool {
        match self {
            Self::Bind { options, .. } | Self::Tmpfs { options, .. } | Self::Volume { options, .. } => {
                options.iter().any(|option| option == "ro" || option == "rro")
            }
            Self::Image { .. } => true,
        }
    }
}

/// What is to be known of a volume beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeConfig {
    /// It got no name, and goes with its container.
    pub anonymous: bool,
    /// An empty volume does not get what the image has at the target.
    pub no_copy: bool,
    /// Directory or file of the volume; empty is all of it.
    pub subpath: String,
    /// Name of the driver; empty is `local`.
    pub driver: String,
    /// Options of the driver, for a volume that is made.
    pub driver_options: BTreeMap<String, String>,
    /// Labels, for a volume that is made.
    pub labels: BTreeMap<String, String>,
}

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceConfig {
    /// On the host; empty if it is the same.
    #[serde(default)]
    pub source: String,
    /// In the container.
    pub path: String,
    /// `c` or `b`.
    pub kind: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits of the host's node.
    pub mode: u32,
    /// Owner of the host's node.
    pub uid: u32,
    /// Group of the host's node.
    pub gid: u32,
    /// Letters of `rwm`.
    pub access: String,
}

/// A rule of `--device-cgroup-rule`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRuleConfig {
    /// `a`, `b` or `c`.
    pub kind: String,
    /// Absent means any.
    pub major: Option<u32>,
    /// Absent means any.
    pub minor: Option<u32>,
    /// Letters of `rwm`.
    pub access: String,
}

/// A rate of one block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// The node that was named.
    pub path: PathBuf,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes or operations per second, or a weight.
    pub value: u64,
}

/// Control group limits. Absent means none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together; -1 means unlimited swap.
    pub memory_swap: Option<i64>,
    /// Soft limit in bytes.
    pub memory_reservation: Option<i64>,
    /// 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// Suspend instead of kill.
    pub oom_kill_disable: bool,
    /// Billionths of a CPU.
    pub nano_cpus: Option<i64>,
    /// Relative weight.
    pub cpu_shares: Option<u64>,
    /// Microseconds per period.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// CPU list.
    pub cpuset_cpus: String,
    /// Memory node list.
    pub cpuset_mems: String,
    /// Microseconds.
    pub cpu_rt_runtime: Option<i64>,
    /// Microseconds.
    pub cpu_rt_period: Option<u64>,
    /// Tasks; -1 means unlimited.
    pub pids: Option<i64>,
    /// 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Weight by device.
    pub blkio_weight_device: Vec<Rate>,
    /// Bytes read per second.
    pub read_bps: Vec<Rate>,
    /// Bytes written per second.
    pub write_bps: Vec<Rate>,
    /// Reads per second.
    pub read_iops: Vec<Rate>,
    /// Writes per second.
    pub write_iops: Vec<Rate>,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// Parent group.
    pub cgroup_parent: Option<String>,
}

/// The system call filter.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompChoice {
    /// The profile built into Hull.
    #[default]
    Builtin,
    /// None.
    Unconfined,
    /// A profile given by the user, resolved for the container's capabilities later.
    Profile(Box<crate::seccomp::Profile>),
    /// A profile in the runtime specification's own form.
    Oci(Box<Seccomp>),
}

/// What a container may do unless single flags say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What Docker permits.
    Compat,
    /// The strictest under which stock images work on any directory of the machine.
    #[default]
    Standard,
    /// As [`Level::Standard`], with users of its own.
    Hardened,
}

impl Level {
    /// From `--security` or `HULL_SECURITY`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "compat" => Ok(Self::Compat),
            "standard" | "" => Ok(Self::Standard),
            "hardened" => Ok(Self::Hardened),
            _ => Err(format!("{text:?}: expected compat, standard or hardened")),
        }
    }
}

/// Isolation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Where single settings start from.
    pub level: Level,
    /// The container may write to its own control groups.
    pub writable_cgroups: bool,
    /// Added capabilities, with `CAP_`; may hold `ALL`.
    pub cap_add: Vec<String>,
    /// Dropped capabilities, with `CAP_`; may hold `ALL`.
    pub cap_drop: Vec<String>,
    /// All devices, all capabilities, no filter, nothing masked.
    pub privileged: bool,
    /// No process gains privileges by `execve`.
    pub no_new_privileges: bool,
    /// System call filter.
    pub seccomp: SeccompChoice,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub label: Option<String>,
    /// Leave `/proc` and `/sys` paths unmasked and writable.
    pub system_paths_unconfined: bool,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            level: Level::Standard,
            writable_cgroups: false,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            privileged: false,
            no_new_privileges: true,
            seccomp: SeccompChoice::Builtin,
            apparmor: None,
            label: None,
            system_paths_unconfined: false,
        }
    }
}

/// One namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceChoice {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Another container's, by ID or name; resolved to a path before the specification is made.
    Container(String),
    /// A namespace file.
    Path(String),
}

/// Whose users a container's are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserChoice {
    /// The machine's.
    #[default]
    Host,
    /// Its own: a block of IDs that no other container has.
    Private,
}

/// What `--ipc` says beside whose IPC it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpcMode {
    /// No other container may join.
    #[default]
    Private,
    /// Others may join with `container:NAME`.
    Shareable,
    /// Private, without `/dev/shm`.
    None,
}

/// The namespaces that flags choose. Mounts are always private.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// `--pid`.
    pub pid: NamespaceChoice,
    /// `--ipc`.
    pub ipc: NamespaceChoice,
    /// `--uts`.
    pub uts: NamespaceChoice,
    /// `--network`; private means a network with nothing but the loopback device.
    pub network: NamespaceChoice,
    /// `--cgroupns`.
    pub cgroup: NamespaceChoice,
    /// `--userns`.
    pub user: UserChoice,
    /// `--ipc`.
    pub ipc_mode: IpcMode,
}
