//! What clients send to make a container. Every field may be absent or `null`; what is not known is left out.

use std::collections::BTreeMap;

use super::network::EndpointSettings;
use super::{null_object, null_objects};
use hull_oci::spec::null_default;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A list of words; a single one may stand for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As Go: a list of words, or else a word.
        let kind = match Value::deserialize(deserializer)? {
            Value::String(word) => return Ok(Self(vec![word])),
            Value::Array(list) => match list.iter().map(|one| one.as_str().map(str::to_owned)).collect() {
                Some(words) => return Ok(Self(words)),
                None => "array",
            },
            Value::Null => return Ok(Self::default()),
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::Object(_) => "object",
        };
        Err(D::Error::custom(format_args!("json: cannot unmarshal {kind} into Go value of type string")))
    }
}

/// The body of `POST /containers/create`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Create {
    #[serde(deserialize_with = "null_default")]
    pub(crate) hostname: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) domainname: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) user: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) attach_stdin: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) attach_stdout: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) attach_stderr: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) exposed_ports: BTreeMap<String, Value>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) tty: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) open_stdin: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) stdin_once: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cmd: Words,
    pub(crate) healthcheck: Option<Healthcheck>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) image: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) volumes: BTreeMap<String, Value>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) working_dir: String,
    pub(crate) entrypoint: Option<Words>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) network_disabled: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) mac_address: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) stop_signal: String,
    pub(crate) stop_timeout: Option<i64>,
    #[serde(deserialize_with = "null_object")]
    pub(crate) host_config: HostConfig,
    #[serde(deserialize_with = "null_object")]
    pub(crate) networking_config: NetworkingConfig,
    // What has no effect is refused where its type is wrong.
    #[serde(rename = "ArgsEscaped", deserialize_with = "null_default")]
    _args_escaped: bool,
    #[serde(rename = "OnBuild", deserialize_with = "null_default")]
    _on_build: Vec<String>,
    #[serde(rename = "Shell", deserialize_with = "null_default")]
    _shell: Vec<String>,
}

/// What is asked of the machine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct HostConfig {
    #[serde(deserialize_with = "null_default")]
    pub(crate) binds: Vec<String>,
    #[serde(deserialize_with = "null_object")]
    pub(crate) log_config: LogConfig,
    #[serde(deserialize_with = "null_default")]
    pub(crate) network_mode: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) port_bindings: BTreeMap<String, Option<Vec<Option<PortBinding>>>>,
    #[serde(deserialize_with = "null_object")]
    pub(crate) restart_policy: RestartPolicy,
    #[serde(deserialize_with = "null_default")]
    pub(crate) auto_remove: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) volume_driver: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) volumes_from: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cap_add: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cap_drop: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cgroupns_mode: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) dns: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) dns_options: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) dns_search: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) extra_hosts: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) group_add: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) ipc_mode: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) links: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) oom_score_adj: i32,
    #[serde(deserialize_with = "null_default")]
    pub(crate) pid_mode: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) privileged: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) publish_all_ports: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) readonly_rootfs: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) security_opt: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) storage_opt: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) tmpfs: BTreeMap<String, String>,
    #[serde(rename = "UTSMode", deserialize_with = "null_default")]
    pub(crate) uts_mode: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) userns_mode: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) shm_size: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) sysctls: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) runtime: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) isolation: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) mounts: Vec<Mount>,
    pub(crate) masked_paths: Option<Vec<String>>,
    pub(crate) readonly_paths: Option<Vec<String>>,
    pub(crate) init: Option<bool>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cpu_shares: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) memory: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) nano_cpus: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cgroup_parent: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) blkio_weight: u16,
    #[serde(deserialize_with = "null_default")]
    pub(crate) blkio_weight_device: Vec<Rate>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) blkio_device_read_bps: Vec<Rate>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) blkio_device_write_bps: Vec<Rate>,
    #[serde(rename = "BlkioDeviceReadIOps", deserialize_with = "null_default")]
    pub(crate) blkio_device_read_iops: Vec<Rate>,
    #[serde(rename = "BlkioDeviceWriteIOps", deserialize_with = "null_default")]
    pub(crate) blkio_device_write_iops: Vec<Rate>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cpu_period: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cpu_quota: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cpu_realtime_period: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cpu_realtime_runtime: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cpuset_cpus: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cpuset_mems: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) devices: Vec<Device>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) device_cgroup_rules: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) device_requests: Vec<DeviceRequest>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) memory_reservation: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) memory_swap: i64,
    pub(crate) memory_swappiness: Option<i64>,
    pub(crate) oom_kill_disable: Option<bool>,
    pub(crate) pids_limit: Option<i64>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) ulimits: Vec<Ulimit>,
    // What has no effect is refused where its type is wrong.
    #[serde(rename = "CpuCount", deserialize_with = "null_default")]
    _cpu_count: i64,
    #[serde(rename = "CpuPercent", deserialize_with = "null_default")]
    _cpu_percent: i64,
    #[serde(rename = "IOMaximumIOps", deserialize_with = "null_default")]
    _io_maximum_iops: u64,
    #[serde(rename = "IOMaximumBandwidth", deserialize_with = "null_default")]
    _io_maximum_bandwidth: u64,
    #[serde(rename = "ContainerIDFile", deserialize_with = "null_default")]
    _container_id_file: String,
    #[serde(rename = "ConsoleSize", deserialize_with = "null_default")]
    _console_size: Vec<u64>,
    #[serde(rename = "Cgroup", deserialize_with = "null_default")]
    _cgroup: String,
}

/// Networks that a container is put on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NetworkingConfig {
    #[serde(deserialize_with = "null_objects")]
    pub(crate) endpoints_config: BTreeMap<String, EndpointSettings>,
}

/// Where output is kept.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct LogConfig {
    #[serde(rename = "Type", deserialize_with = "null_default")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) config: BTreeMap<String, String>,
}

/// A port of the machine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct PortBinding {
    #[serde(deserialize_with = "null_default")]
    pub(crate) host_ip: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) host_port: String,
}

/// Whether it is started again.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RestartPolicy {
    #[serde(deserialize_with = "null_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) maximum_retry_count: i64,
}

/// A rate or weight of a device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Rate {
    #[serde(deserialize_with = "null_default")]
    pub(crate) path: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) rate: u64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) weight: u64,
}

/// A device of the machine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Device {
    #[serde(deserialize_with = "null_default")]
    pub(crate) path_on_host: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) path_in_container: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) cgroup_permissions: String,
}

/// Devices that a driver describes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DeviceRequest {
    #[serde(deserialize_with = "null_default")]
    pub(crate) driver: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) count: i64,
    #[serde(rename = "DeviceIDs", deserialize_with = "null_default")]
    pub(crate) device_ids: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) capabilities: Vec<Vec<String>>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) options: BTreeMap<String, String>,
}

/// A limit of processes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Ulimit {
    #[serde(deserialize_with = "null_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) soft: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) hard: i64,
}

/// A health check; times are nanoseconds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Healthcheck {
    #[serde(deserialize_with = "null_default")]
    pub(crate) test: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) interval: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) timeout: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) start_period: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) start_interval: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) retries: i64,
}

/// A mount.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Mount {
    #[serde(rename = "Type", deserialize_with = "null_default")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) source: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) target: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) read_only: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) consistency: String,
    pub(crate) bind_options: Option<BindOptions>,
    pub(crate) volume_options: Option<VolumeOptions>,
    pub(crate) image_options: Option<ImageOptions>,
    pub(crate) tmpfs_options: Option<TmpfsOptions>,
}

/// Options of a bind mount.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct BindOptions {
    #[serde(deserialize_with = "null_default")]
    pub(crate) propagation: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) non_recursive: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) create_mountpoint: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) read_only_non_recursive: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) read_only_force_recursive: bool,
}

/// Options of a volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct VolumeOptions {
    #[serde(deserialize_with = "null_default")]
    pub(crate) no_copy: bool,
    #[serde(deserialize_with = "null_default")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) driver_config: DriverConfig,
    #[serde(deserialize_with = "null_default")]
    pub(crate) subpath: String,
}

/// A driver and its options.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DriverConfig {
    #[serde(deserialize_with = "null_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) options: BTreeMap<String, String>,
}

/// Options of an image as a mount.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ImageOptions {
    #[serde(deserialize_with = "null_default")]
    pub(crate) subpath: String,
}

/// Options of a file system in memory.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TmpfsOptions {
    #[serde(deserialize_with = "null_default")]
    pub(crate) size_bytes: i64,
    #[serde(deserialize_with = "null_default")]
    pub(crate) mode: u32,
    #[serde(deserialize_with = "null_default")]
    pub(crate) options: Vec<Vec<String>>,
}
