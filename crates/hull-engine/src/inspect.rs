//! What `inspect` shows, in Docker's shape: here of a container, in modules of its own of everything else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hull_oci::time::rfc3339_nanos;
use serde_json::{Value, json};

use crate::config::{MountConfig, Source};
use crate::logs;
use crate::records::{Container, Engine, Phase, State};
use crate::volumes::mounts::clean;

pub(crate) mod host;
pub mod image;
pub mod listed;
pub mod network;
pub mod networks;
pub mod volume;

const NEVER: &str = "0001-01-01T00:00:00Z";

fn time(nanoseconds: u64) -> String {
    if nanoseconds == 0 {
        return NEVER.to_owned();
    }
    rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(nanoseconds))
}

/// Docker's one-line status: `Up 5 minutes`, `Exited (0) 2 hours ago`.
#[must_use]
pub fn status(state: &State, now: SystemTime) -> String {
    let since =
        |nanoseconds: u64| age(now.duration_since(UNIX_EPOCH + Duration::from_nanos(nanoseconds)).unwrap_or_default());
    match state.phase {
        Phase::Created => "Created".to_owned(),
        Phase::Running => format!("Up {}", since(state.started)),
        Phase::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished)),
        Phase::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished)),
    }
}

/// What a container's state is called: `running`, `paused`, `exited`.
#[must_use]
pub fn phase(engine: &Engine, container: &Container, state: &State) -> &'static str {
    match state.phase {
        Phase::Running if engine.shows_paused(&container.id) => "paused",
        phase => phase.as_str(),
    }
}

/// `starting`, `healthy`, `unhealthy`, or `none` when nobody asks.
#[must_use]
pub fn health(engine: &Engine, container: &Container, state: &State) -> &'static str {
    match engine.health(container).filter(|_| state.phase == Phase::Running) {
        Some(health) => health.status.as_str(),
        None => "none",
    }
}

/// [`status`], with whether it is paused and the health of what runs.
#[must_use]
pub fn full_status(state: &State, phase: &str, health: &str, now: SystemTime) -> String {
    let status = status(state, now);
    match health {
        _ if phase == "paused" => format!("{status} (Paused)"),
        "none" => status,
        "starting" => format!("{status} (health: starting)"),
        health => format!("{status} ({health})"),
    }
}

/// What a container was made of: the image's name as it was given, or a directory.
#[must_use]
pub fn image_name(container: &Container) -> String {
    match &container.config.source {
        Source::Image(name) => name.clone(),
        Source::Directory(path) => path.display().to_string(),
    }
}

/// `Less than a second`, `5 minutes`, `About an hour`.
#[must_use]
pub fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let plural = |number: u64, unit: &str| format!("{number} {unit}{}", if number == 1 { "" } else { "s" });
    let hours = (seconds + 1800) / 3600;
    match seconds {
        0 => "Less than a second".to_owned(),
        1..60 => plural(seconds, "second"),
        60..120 => "About a minute".to_owned(),
        120..3600 => plural(seconds / 60, "minute"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => plural(hours, "hour"),
        _ if hours < 336 => plural(hours / 24, "day"),
        _ if hours < 1440 => plural(hours / 168, "week"),
        _ if hours < 17_520 => plural(hours / 720, "month"),
        _ => plural(seconds / 31_536_000, "year"),
    }
}

/// The document of one container.
#[must_use]
pub fn document(engine: &Engine, container: &Container, state: &State) -> Value {
    let config = &container.config;
    let directory = engine.directory(&container.id);
    // An image that was removed by force is no reason to say nothing.
    let image = engine.images.find(&container.image_id).ok().filter(|_| !container.image_id.is_empty());
    let defaults = image.as_ref().map(|image| &image.config.config);
    let rootfs = match &config.source {
        Source::Image(_) => String::new(),
        Source::Directory(path) => path.to_string_lossy().into_owned(),
    };
    let paused = state.phase == Phase::Running && engine.shows_paused(&container.id);
    let file = |name: &str| Some(directory.join(name)).filter(|path| path.exists()).unwrap_or_default();
    let execs = Some(state.phase).filter(|phase| *phase == Phase::Running).map(|_| engine.exec_ids(&container.id));
    let execs = execs.filter(|execs| !execs.is_empty());
    let mut document = json!({
        "Id": container.id,
        "Created": time(container.created),
        "Path": container.args.first(),
        "Args": container.args.get(1..).unwrap_or_default(),
        "State": {
            "Status": if paused { "paused" } else { state.phase.as_str() },
            "Running": matches!(state.phase, Phase::Running | Phase::Restarting),
            "Paused": paused,
            "Restarting": state.phase == Phase::Restarting,
            "OOMKilled": state.oom_killed,
            "Dead": false,
            "Pid": state.pid,
            "ExitCode": state.exit_code,
            "Error": state.error,
            "StartedAt": time(state.started),
            "FinishedAt": time(state.finished),
        },
        "Image": container.image_id,
        "Name": format!("/{}", container.name),
        "Driver": if rootfs.is_empty() { "overlay" } else { "directory" },
        "Platform": "linux",
        "RestartCount": state.restarts,
        "MountLabel": "",
        "ProcessLabel": config.security.label.clone().unwrap_or_default(),
        "AppArmorProfile": config.security.apparmor.clone().unwrap_or_default(),
        "ExecIDs": execs,
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "ResolvConfPath": file("resolv.conf"),
        "LogPath": log_path(engine, container),
        "HostConfig": host::host_config(container),
        "GraphDriver": graph(engine, container, image.as_ref(), &rootfs),
        "Mounts": mounts(engine, config),
        "Config": host::config(container, defaults),
        "NetworkSettings": network::settings(engine, container, state, defaults),
    });
    if !rootfs.is_empty() {
        document["Rootfs"] = rootfs.into();
    }
    if let Some(health) = engine.health(container).filter(|_| state.started != 0) {
        document["State"]["Health"] = serde_json::to_value(health).unwrap_or_default();
    }
    if let Some(check) = &config.health {
        document["Config"]["Healthcheck"] = healthcheck(check);
    }
    document
}

/// Where the files are: the layers uppermost first, as overlayfs takes them.
fn graph(engine: &Engine, container: &Container, image: Option<&hull_image::Image>, rootfs: &str) -> Value {
    if !rootfs.is_empty() {
        return json!({ "Name": "directory", "Data": { "ID": container.id, "MergedDir": rootfs } });
    }
    let directory = engine.directory(&container.id);
    let layers = image.map(|image| image.layers.as_slice()).unwrap_or_default();
    let lower =
        layers.iter().rev().map(|layer| engine.images.layer_path(&layer.diff_id).to_string_lossy().into_owned());
    json!({
        "Name": "overlay",
        "Data": {
            "ID": container.id,
            "LowerDir": lower.collect::<Vec<_>>().join(":"),
            "MergedDir": directory.join("rootfs"),
            "UpperDir": directory.join("upper"),
            "WorkDir": directory.join("work"),
        },
    })
}

/// Where the output is, if it is in files.
fn log_path(engine: &Engine, container: &Container) -> std::path::PathBuf {
    if matches!(logs::driver(container), "json-file" | "local") {
        return engine.directory(&container.id).join(logs::FILE);
    }
    std::path::PathBuf::new()
}

/// As Docker shows it: what is not set is not there.
fn healthcheck(check: &crate::config::HealthConfig) -> Value {
    let mut shown = json!({ "Test": check.test });
    let numbers = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", u64::from(check.retries)),
    ];
    for (name, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
        shown[name] = number.into();
    }
    shown
}

/// The mounts of a container.
fn mounts(engine: &Engine, config: &crate::config::RunConfig) -> Vec<Value> {
    // Those of --tmpfs are in HostConfig.Tmpfs only.
    let short = |mount: &&MountConfig| match mount {
        MountConfig::Tmpfs { target, .. } => config.long_mounts.contains(target),
        _ => true,
    };
    config.mounts.iter().filter(short).map(|one| shown(engine, config, one)).collect()
}

/// A mount; Docker notes of a volume of `-v` that containers may share it.
fn shown(engine: &Engine, config: &crate::config::RunConfig, one: &MountConfig) -> Value {
    let mut document = mount(engine, one);
    if config.lent_mounts.iter().any(|target| target == one.target()) {
        document["Mode"] = "".into();
        return document;
    }
    if let MountConfig::Volume { volume, options, target, .. } = one
        && !volume.anonymous
        && options.is_empty()
        && !config.long_mounts.contains(target)
    {
        document["Mode"] = "z".into();
    }
    document
}

/// A mount, in Docker's shape.
fn mount(engine: &Engine, mount: &MountConfig) -> Value {
    let options = |options: &[String]| {
        let word = |option: &String| match option.as_str() {
            "rro" | "ro" => Some("ro".to_owned()),
            "rbind" | "rprivate" | "nosuid" | "nodev" | "noexec" => None,
            other => Some(other.to_owned()),
        };
        options.iter().filter_map(word).collect::<Vec<_>>().join(",")
    };
    let propagation = |options: &[String]| {
        let kind = |option: &&String| matches!(option.trim_start_matches('r'), "shared" | "slave" | "private");
        options.iter().rfind(kind).cloned().unwrap_or_default()
    };
    let writable = !mount.read_only();
    let target = clean(mount.target());
    match mount {
        MountConfig::Bind { source, options: given, .. } => json!({
            "Type": "bind",
            "Source": source,
            "Destination": target,
            "Mode": options(given),
            "RW": writable,
            "Propagation": propagation(given),
        }),
        MountConfig::Volume { name, options: given, volume, .. } => json!({
            "Type": "volume",
            "Name": name,
            "Source": if volume.subpath.is_empty() { engine.volume_data(name) } else { engine.volume_data(name).join(&volume.subpath) },
            "Destination": target,
            "Driver": crate::volumes::DRIVER,
            "Mode": options(given),
            "RW": writable,
            "Propagation": "",
        }),
        MountConfig::Tmpfs { .. } => json!({
            "Type": "tmpfs",
            "Source": "",
            "Destination": target,
            "Mode": "",
            "RW": writable,
            "Propagation": "",
        }),
        MountConfig::Image { image, .. } => json!({
            "Type": "image",
            "Source": image,
            "Destination": target,
            "Mode": "",
            "RW": false,
            "Propagation": "",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_read_as_docker_s() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let running = State { phase: Phase::Running, started: 700_000_000_000, ..State::default() };
        assert_eq!(status(&running, now), "Up 5 minutes");
        let exited = State { phase: Phase::Exited, exit_code: 3, finished: 999_000_000_000, ..State::default() };
        assert_eq!(status(&exited, now), "Exited (3) 1 second ago");
        assert_eq!(age(Duration::from_secs(4000)), "About an hour");
        assert_eq!(age(Duration::from_secs(200_000)), "2 days");
    }
}
