//! `hull run`.

mod docker;
mod fetch;
mod network;
mod security;

use std::path::PathBuf;

use clap::ArgAction;
use hull_engine::config::{Limits, LogConfig, RunConfig, Source};
use hull_engine::launch::Options;
use hull_engine::monitor::protocol;
use hull_engine::{Engine, Outcome, flags};

use super::values::{all, environment, named, optional, parse_signal, value};
use super::{Done, Failure};
use crate::output;

/// Create a container from an image and run a command in it
///
/// The container has its own processes, mounts, network, host name and limits. It runs in the foreground until its
/// command ends, and Hull returns the command's exit code; 125 is a failure of Hull itself, 126 a command that cannot be
/// executed, 127 one that does not exist, and 128 plus a signal one that was killed.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  hull run hello\n  hull run -it --rm mine sh\n  hull run -d --name web --memory 512m --cpus 1.5 mine /bin/server\n  hull run --rm --read-only --tmpfs /tmp -v \"$PWD:/src:ro\" -w /src mine make\n  hull run --rm --rootfs ./rootfs /bin/true"
)]
pub(super) struct Args {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,

    /// Run in the background and print the container's ID
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    interactive: bool,
    /// Allocate a terminal
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    tty: bool,
    /// Remove the container when it ends
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    rm: bool,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Write the container's ID to a new file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Pass signals on to the command [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    sig_proxy: bool,
    /// Keys that detach [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", default_value = "", hide_default_value = true)]
    detach_keys: String,
    /// Attach only these: stdin, stdout, stderr
    #[arg(short, long, value_name = "STREAM")]
    attach: Vec<String>,
    /// Start again after the end: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no", hide_default_value = true)]
    restart: String,
    /// Where output is kept: json-file, local, journald, syslog or none
    #[arg(long, value_name = "DRIVER", default_value = "", hide_default_value = true)]
    log_driver: String,
    /// Option of the log driver
    #[arg(long = "log-opt", value_name = "KEY=VALUE")]
    log_options: Vec<String>,
    #[command(flatten)]
    health: super::healthcheck::Flags,
    /// Seconds that 'hull stop' waits before it kills; -1 waits for ever
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// Signal that 'hull stop' sends
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Set a label
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Set an annotation of the runtime specification
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    annotations: Vec<String>,

    /// Run on a directory instead of an image; the first word is then the command
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// Replace the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Set a variable; without a value it is taken from Hull's own environment
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
    /// User and group, names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Add a group
    #[arg(long = "group-add", value_name = "GROUP")]
    groups: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Host name
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// NIS domain name
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,

    /// Mount the root file system read-only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    read_only: bool,
    /// With --read-only, make /run, /tmp and /var/tmp writable in memory [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    read_only_tmpfs: bool,
    /// Mount a path of the host or a volume
    #[arg(short, long = "volume", value_name = "[HOST|NAME:]CONTAINER[:OPTIONS]")]
    volumes: Vec<String>,
    /// Mount with type=volume, bind, tmpfs or image
    #[arg(long = "mount", value_name = "KEY=VALUE,...")]
    mounts: Vec<String>,
    /// Mount what another container has mounted
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
    /// Driver of the volumes that are made: only 'local'
    #[arg(long, value_name = "NAME")]
    volume_driver: Option<String>,
    /// size=BYTES limits what the container may write to its layer
    #[arg(long = "storage-opt", value_name = "KEY=VALUE")]
    storage: Vec<String>,
    /// Mount an empty file system in memory
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,

    /// Memory limit
    #[arg(short, long, value_name = "SIZE", help_heading = "Limits")]
    memory: Option<String>,
    /// Limit of memory and swap together; -1 is unlimited swap [default: twice the memory]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, help_heading = "Limits")]
    memory_swap: Option<String>,
    /// Soft memory limit
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    memory_reservation: Option<String>,
    /// How readily memory is swapped, 0 to 100 (cgroup v1); -1 is the machine's default
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Limits")]
    memory_swappiness: Option<i64>,
    /// Suspend rather than kill when memory runs out (cgroup v1)
    #[arg(long, help_heading = "Limits")]
    oom_kill_disable: bool,
    /// Preference of the kernel's memory killer, -1000 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Limits")]
    oom_score_adj: Option<i32>,
    /// Number of CPUs, such as 1.5
    #[arg(long, value_name = "N", help_heading = "Limits")]
    cpus: Option<String>,
    /// Relative share of CPU time
    #[arg(short = 'c', long, value_name = "N", help_heading = "Limits")]
    cpu_shares: Option<u64>,
    /// CPU time per period in microseconds
    #[arg(long, value_name = "USEC", allow_hyphen_values = true, help_heading = "Limits")]
    cpu_quota: Option<i64>,
    /// Length of a period in microseconds
    #[arg(long, value_name = "USEC", help_heading = "Limits")]
    cpu_period: Option<u64>,
    /// Real-time CPU time per period in microseconds (cgroup v1)
    #[arg(long, value_name = "USEC", help_heading = "Limits")]
    cpu_rt_runtime: Option<i64>,
    /// Real-time period in microseconds (cgroup v1)
    #[arg(long, value_name = "USEC", help_heading = "Limits")]
    cpu_rt_period: Option<u64>,
    /// CPUs to run on, such as 0-3,7
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    cpuset_mems: Option<String>,
    /// Number of tasks; -1 is unlimited [default: 4096]
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Limits")]
    pids_limit: Option<i64>,
    /// Relative share of block I/O, 10 to 1000
    #[arg(long, value_name = "N", help_heading = "Limits")]
    blkio_weight: Option<u16>,
    /// Relative share of one device's I/O
    #[arg(long, value_name = "DEVICE:WEIGHT", help_heading = "Limits")]
    blkio_weight_device: Vec<String>,
    /// Bytes read from a device per second
    #[arg(long, value_name = "DEVICE:RATE", help_heading = "Limits")]
    device_read_bps: Vec<String>,
    /// Bytes written to a device per second
    #[arg(long, value_name = "DEVICE:RATE", help_heading = "Limits")]
    device_write_bps: Vec<String>,
    /// Reads from a device per second
    #[arg(long, value_name = "DEVICE:RATE", help_heading = "Limits")]
    device_read_iops: Vec<String>,
    /// Writes to a device per second
    #[arg(long, value_name = "DEVICE:RATE", help_heading = "Limits")]
    device_write_iops: Vec<String>,
    /// Limit of the container's processes, such as nofile=1024:2048
    #[arg(long = "ulimit", value_name = "TYPE=SOFT[:HARD]", help_heading = "Limits")]
    ulimits: Vec<String>,
    /// Parent of the container's control group
    #[arg(long, value_name = "PATH", help_heading = "Limits")]
    cgroup_parent: Option<String>,

    #[command(flatten)]
    isolation: security::Isolation,

    /// Pull the image: always, missing or never
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "missing",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pull: fetch::Policy,
    /// Choose this platform where an image has several
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]]", value_parser = hull_oci::image::Platform::parse)]
    platform: Option<hull_oci::image::Platform>,
    /// Say nothing while pulling
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    network: network::Network,

    #[command(flatten)]
    docker: docker::Docker,

    /// Image (not with --rootfs), command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "IMAGE [COMMAND] [ARG]")]
    words: Vec<String>,
}

/// What flags alone come to, for what is started like `hull run` but is no image's container.
pub(super) fn of_flags(words: &[String]) -> Result<RunConfig, Failure> {
    #[derive(Debug, clap::Parser)]
    struct Only {
        #[command(flatten)]
        args: Args,
    }
    let all = ["run".to_owned()].into_iter().chain(words.iter().cloned()).chain(["image".to_owned()]);
    let parsed = <Only as clap::Parser>::try_parse_from(all);
    parsed.map_err(|error| Failure::usage(output::of_clap(&error.render().to_string())))?.args.config()
}

/// The variables of `proxies` of Docker's `config.json`, in both spellings; what the user gives comes behind.
fn proxies(map: &std::collections::BTreeMap<String, String>) -> Vec<String> {
    const NAMES: [(&str, &str); 5] = [
        ("httpProxy", "HTTP_PROXY"),
        ("httpsProxy", "HTTPS_PROXY"),
        ("noProxy", "NO_PROXY"),
        ("ftpProxy", "FTP_PROXY"),
        ("allProxy", "ALL_PROXY"),
    ];
    let found = NAMES.iter().filter_map(|(key, name)| Some((*name, map.get(*key).filter(|value| !value.is_empty())?)));
    found.flat_map(|(name, value)| [format!("{name}={value}"), format!("{}={value}", name.to_lowercase())]).collect()
}

impl Args {
    /// Where the ID is written to.
    pub(super) fn cidfile(&self) -> Option<PathBuf> {
        self.cidfile.clone()
    }

    /// What is pulled before, and when.
    pub(super) fn fetch(&self) -> fetch::Fetch {
        fetch::Fetch {
            image: self.words.first().filter(|_| self.rootfs.is_none()).cloned(),
            policy: self.pull,
            platform: self.platform.clone(),
            quiet: self.quiet,
        }
    }

    /// Streams of `--attach`.
    fn attached(&self) -> Result<Option<u8>, Failure> {
        let mut wants = 0;
        for stream in &self.attach {
            wants |= match stream.to_ascii_lowercase().as_str() {
                "stdin" => protocol::WANTS_STDIN,
                "stdout" => protocol::WANTS_STDOUT,
                "stderr" => protocol::WANTS_STDERR,
                _ => value("--attach", stream, Err("valid streams are STDIN, STDOUT and STDERR".to_owned()))?,
            };
        }
        if wants != 0 && self.detach {
            return Err(Failure::new("conflicting options: cannot specify both --attach and --detach"));
        }
        Ok((wants != 0).then_some(wants))
    }

    pub(super) fn config(self) -> Result<RunConfig, Failure> {
        self.docker.check()?;
        let limits = self.limits()?;
        let mut labels = self.docker.labels()?;
        labels.extend(all("--label", &self.labels, flags::pair)?);
        let (health, on_unhealthy) = (self.health.config()?, self.health.on_unhealthy()?);
        let mounts = self.mounts()?;
        let long = mounts.iter().skip(self.volumes.len()).take(self.mounts.len());
        let long_mounts = long.map(|mount| mount.target().to_owned()).collect();
        let mut storage_size = None;
        for option in &self.storage {
            storage_size = Some(named("--storage-opt", storage_option(option))?);
        }
        all("--volumes-from", &self.volumes_from, |text| flags::volumes_from(text).map(drop))?;
        let mut env = proxies(&hull_config::map("container-proxies"));
        env.extend(environment(&self.env_files, &self.env)?);
        let mut words = self.words;
        let source = match self.rootfs {
            Some(directory) => Source::Directory(directory),
            None => Source::Image(words.remove(0)),
        };
        let shm_size = optional("--shm-size", self.shm_size.as_ref(), |text| {
            flags::bytes(text).and_then(|size| {
                u64::try_from(size)
                    .ok()
                    .filter(|size| *size > 0)
                    .ok_or_else(|| format!("{text:?}: expected more than 0"))
            })
        })?;
        let (network, isolation) = (self.network, self.isolation);
        let mut config = RunConfig {
            source,
            platform: self.platform,
            command: words,
            entrypoint: self.entrypoint,
            env,
            user: self.user,
            groups: self.groups,
            workdir: self.workdir,
            hostname: optional("--hostname", self.hostname.as_ref(), host_name)?,
            domainname: self.domainname,
            name: optional("--name", self.name.as_ref(), flags::container_name)?,
            labels: labels.into_iter().collect(),
            annotations: all("--annotation", &self.annotations, flags::pair)?.into_iter().collect(),
            tty: self.tty,
            interactive: self.interactive,
            detach: self.detach,
            remove: self.rm,
            read_only: self.read_only,
            read_only_tmpfs: self.read_only_tmpfs,
            storage_size,
            mounts,
            long_mounts,
            volumes_from: self.volumes_from,
            shm_size,
            ulimits: all("--ulimit", &self.ulimits, flags::ulimit)?,
            limits,
            stop_timeout: self.stop_timeout,
            health,
            on_unhealthy,
            restart: named("--restart", flags::restart(&self.restart))?,
            log: LogConfig {
                driver: self.log_driver,
                options: all("--log-opt", &self.log_options, flags::pair)?.into_iter().collect(),
            },
            stop_signal: optional("--stop-signal", self.stop_signal.as_ref(), parse_signal)?,
            ..RunConfig::default()
        };
        network.apply(&mut config)?;
        isolation.apply(&mut config)?;
        Ok(config)
    }

    fn limits(&self) -> Result<Limits, Failure> {
        let swappiness = match self.memory_swappiness {
            None | Some(-1) => None,
            Some(number) => Some(named(
                "--memory-swappiness",
                u64::try_from(number).map_err(|_| format!("{number}: expected 0 to 100, or -1")),
            )?),
        };
        let rates = |flag: &str, values: &[String], sized| all(flag, values, |text| flags::rate(text, sized));
        Ok(Limits {
            memory: optional("--memory", self.memory.as_ref(), flags::bytes)?,
            memory_swap: optional("--memory-swap", self.memory_swap.as_ref(), flags::bytes_or_unlimited)?,
            memory_reservation: optional("--memory-reservation", self.memory_reservation.as_ref(), flags::bytes)?,
            memory_swappiness: swappiness,
            oom_kill_disable: self.oom_kill_disable,
            nano_cpus: optional("--cpus", self.cpus.as_ref(), flags::cpus)?,
            cpu_shares: self.cpu_shares,
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            cpuset_cpus: optional("--cpuset-cpus", self.cpuset_cpus.as_ref(), cpu_list)?.unwrap_or_default(),
            cpuset_mems: optional("--cpuset-mems", self.cpuset_mems.as_ref(), flags::cpu_list)?.unwrap_or_default(),
            cpu_rt_runtime: self.cpu_rt_runtime,
            cpu_rt_period: self.cpu_rt_period,
            pids: self.pids_limit,
            blkio_weight: self.blkio_weight,
            blkio_weight_device: rates("--blkio-weight-device", &self.blkio_weight_device, false)?,
            read_bps: rates("--device-read-bps", &self.device_read_bps, true)?,
            write_bps: rates("--device-write-bps", &self.device_write_bps, true)?,
            read_iops: rates("--device-read-iops", &self.device_read_iops, false)?,
            write_iops: rates("--device-write-iops", &self.device_write_iops, false)?,
            oom_score_adj: self.oom_score_adj,
            cgroup_parent: optional("--cgroup-parent", self.cgroup_parent.as_ref(), |text| {
                let plain = text.split('/').all(|part| part != ".." && part != ".");
                if plain && !text.trim_matches('/').is_empty() {
                    Ok(text.to_owned())
                } else {
                    Err(format!("{text:?} is not the path of a control group"))
                }
            })?,
        })
    }

    fn mounts(&self) -> Result<Vec<hull_engine::config::MountConfig>, Failure> {
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let mut mounts = all("--volume", &self.volumes, |text| flags::volume(text, &here))?;
        mounts.extend(all("--mount", &self.mounts, |text| flags::mount(text, &here))?);
        mounts.extend(all("--tmpfs", &self.tmpfs, flags::tmpfs)?);
        if let Some(chosen) = &self.volume_driver {
            for mount in &mut mounts {
                if let hull_engine::config::MountConfig::Volume { volume, .. } = mount
                    && volume.driver.is_empty()
                {
                    volume.driver.clone_from(chosen);
                }
            }
        }
        Ok(mounts)
    }
}

/// A list of CPUs, all of which the machine has.
fn cpu_list(text: &str) -> Result<String, String> {
    let list = flags::cpu_list(text).map_err(|reason| format!("invalid value {text} for cpuset cpus: {reason}"))?;
    let present = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let last = |text: &str| text.trim().rsplit([',', '-']).next().and_then(|number| number.parse::<u32>().ok());
    match (list.split(',').filter_map(last).max(), last(&present)) {
        (Some(wanted), Some(there)) if wanted > there => {
            Err(format!("requested CPUs are not available - requested {list}, available: {}", present.trim()))
        }
        _ => Ok(list),
    }
}

/// `size=10g`; Docker's words for any other.
fn storage_option(text: &str) -> Result<u64, String> {
    if !text.contains('=') {
        return Err("invalid storage option; use size=BYTES".to_owned());
    }
    let (key, value) = flags::pair(text)?;
    if !key.eq_ignore_ascii_case("size") {
        return Err(format!("Unknown option {key}; use size=BYTES"));
    }
    let size = flags::bytes(&value)?;
    u64::try_from(size).ok().filter(|size| *size > 0).ok_or_else(|| format!("{text:?}: expected more than 0"))
}

fn host_name(text: &str) -> Result<String, String> {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && part.chars().all(|one| one.is_ascii_alphanumeric() || "-_".contains(one))
    };
    if text.len() <= 64 && text.split('.').all(part) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a host name: expected up to 64 letters, digits, - and ."))
    }
}

pub(super) fn main(engine: &Engine, args: Args) -> Done {
    let (cidfile, sig_proxy, attach) = (args.cidfile(), args.sig_proxy, args.attached()?);
    let detach_keys = super::values::keys(&args.detach_keys)?;
    let fetch = args.fetch();
    let config = args.config()?;
    let outcome = fetch.around(engine, || {
        let warn = &mut |line: &str| output::error(line);
        let detach_keys = detach_keys.clone();
        engine.run(config.clone(), Options { cidfile: cidfile.as_deref(), sig_proxy, attach, detach_keys, warn })
    });
    match outcome {
        Ok(Outcome::Exited(code)) => Ok(u8::try_from(code).unwrap_or(255)),
        Ok(Outcome::Detached(id)) => {
            output::print(format_args!("{id}\n"));
            Ok(0)
        }
        Err(mut failure) => {
            if failure.code == 127
                && let Some(word) = config.command.first().filter(|word| word.starts_with('-'))
            {
                let hint = format!("; use {word:?} before the image if it is a flag of 'hull run'");
                failure.message.push_str(&hint);
            }
            Err(failure)
        }
    }
}

#[cfg(test)]
mod tests;
