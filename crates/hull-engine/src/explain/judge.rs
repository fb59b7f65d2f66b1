//! What follows from what is known.

use std::path::Path;

use super::gather::exit_meaning;
use super::{Answer, Finding, Known, Place, Severity, bytes};
use crate::config::{MountConfig, NamespaceChoice, SeccompChoice};
use crate::records::{Container, Phase, State};

/// Capabilities that are as good as being root of the machine.
const STRONG: [&str; 9] = [
    "CAP_SYS_ADMIN",
    "CAP_SYS_MODULE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_DAC_READ_SEARCH",
    "CAP_NET_ADMIN",
    "CAP_BPF",
    "CAP_SYS_BOOT",
    "CAP_MKNOD",
];

/// Directories of the machine that nobody should write to from a container.
const PRECIOUS: [&str; 10] = ["/", "/etc", "/usr", "/boot", "/root", "/var", "/dev", "/proc", "/sys", "/run"];

/// Words in names of variables that hold what should not be read.
const SECRETS: [&str; 6] = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "PRIVATE_KEY"];

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, place: Place, text: impl Into<String>) {
        self.0.push(Finding { severity, place, text: text.into() });
    }
}

/// Everything that is wrong, risky or not usual, worst first.
pub(super) fn findings(container: &Container, state: &State, known: &Known) -> Vec<Finding> {
    let mut list = Findings(Vec::new());
    ended(container, state, &mut list);
    used(known, &mut list);
    for (name, free) in &known.full {
        list.add(Severity::Problem, Place::FileSystem, format!("{name} is full: {} free", bytes(*free)));
    }
    reached(container, state, known, &mut list);
    trusted(container, known, &mut list);
    mounted(container, &mut list);
    let secrets: Vec<&str> = container
        .config
        .env
        .iter()
        .filter_map(|one| one.split_once('=').filter(|(_, value)| !value.is_empty()))
        .map(|(name, _)| name)
        .filter(|name| SECRETS.iter().any(|word| name.to_ascii_uppercase().contains(word)))
        .collect();
    if !secrets.is_empty() {
        let text =
            format!("its environment holds what looks like secrets ({}): `inspect` shows them", secrets.join(", "));
        list.add(Severity::Risk, Place::Program, text);
    }
    if !known.limited {
        list.add(
            Severity::Unusual,
            Place::Cgroup,
            "it has no memory limit: it can use all memory of the machine, and others pay for it",
        );
    }
    list.0.sort_by_key(|finding| finding.severity);
    list.0
}

fn ended(container: &Container, state: &State, list: &mut Findings) {
    if state.oom_killed {
        let limit = container.config.limits.memory.and_then(|limit| u64::try_from(limit).ok());
        let limit =
            limit.map_or_else(|| "the machine's memory".to_owned(), |limit| format!("its limit of {}", bytes(limit)));
        let text = format!("the kernel killed it: its memory reached {limit}; give it more with `update --memory`");
        list.add(Severity::Problem, Place::Cgroup, text);
    }
    if !state.error.is_empty() {
        list.add(
            Severity::Problem,
            place_of(&state.error, state.exit_code),
            format!("it could not start: {}", state.error),
        );
    }
    let finished = matches!(state.phase, Phase::Exited | Phase::Restarting);
    if finished && state.exit_code != 0 && !state.oom_killed && state.error.is_empty() {
        let place = if matches!(state.exit_code, 126 | 127) { Place::FileSystem } else { Place::Program };
        let text = format!("it ended with code {}: {}", state.exit_code, exit_meaning(state.exit_code, false));
        list.add(Severity::Problem, place, text);
    }
    if state.phase == Phase::Restarting || state.restarts > 3 {
        let text = format!("it was started again {} times: it keeps ending", state.restarts);
        list.add(Severity::Problem, Place::Program, text);
    }
}

/// Where a start failed, by its message.
fn place_of(error: &str, code: i32) -> Place {
    let has = |words: &[&str]| words.iter().any(|word| error.to_ascii_lowercase().contains(word));
    if has(&["cgroup", "memory.", "cpu.", "pids."]) {
        Place::Cgroup
    } else if has(&["network", "namespace", "port", "address", "bridge"]) {
        Place::Namespace
    } else if matches!(code, 126 | 127)
        || has(&["mount", "no such file", "layer", "image", "directory", "read-only", "space"])
    {
        Place::FileSystem
    } else if has(&["capabilit", "seccomp", "permitted"]) {
        Place::Privileges
    } else {
        Place::Program
    }
}

/// Limits that are reached.
fn used(known: &Known, list: &mut Findings) {
    if known.frozen {
        list.add(Severity::Problem, Place::Cgroup, "it is paused: nothing of it runs until `unpause`");
    }
    let Some(stats) = &known.stats else { return };
    if known.oom_kills > 0 {
        let text = format!("{} of its processes were killed because its memory limit was reached", known.oom_kills);
        list.add(Severity::Problem, Place::Cgroup, text);
    }
    let (usage, limit) = (crate::stats::used_memory(&stats.memory), stats.memory.usage.limit);
    if limit > 0 && limit < 1 << 60 && usage.saturating_mul(10) >= limit.saturating_mul(9) {
        let text = format!("its memory is nearly used up: {} of {}", bytes(usage), bytes(limit));
        list.add(Severity::Problem, Place::Cgroup, text);
    }
    let throttling = &stats.cpu.throttling;
    if throttling.periods >= 10 && throttling.throttled_periods.saturating_mul(10) >= throttling.periods {
        let text = format!(
            "its processor limit holds it back: in {} of {} periods it had to wait, {} ms in all",
            throttling.throttled_periods,
            throttling.periods,
            throttling.throttled_time / 1_000_000
        );
        list.add(Severity::Problem, Place::Cgroup, text);
    }
    let pids = &stats.pids;
    if pids.limit > 0 && pids.limit < u64::MAX && pids.current.saturating_mul(20) >= pids.limit.saturating_mul(19) {
        let text = format!("it can start no more processes: {} of {}", pids.current, pids.limit);
        list.add(Severity::Problem, Place::Cgroup, text);
    }
    for (name, psi) in [("memory", &stats.memory.psi), ("a processor", &stats.cpu.psi), ("a disk", &stats.blkio.psi)] {
        if let Some(psi) = psi.as_ref().filter(|psi| psi.some.avg10 >= 20.0) {
            let text = format!("in the last ten seconds it waited {:.0} % of the time for {name}", psi.some.avg10);
            list.add(Severity::Problem, Place::Cgroup, text);
        }
    }
}

/// Networks and names.
fn reached(container: &Container, state: &State, known: &Known, list: &mut Findings) {
    let config = &container.config;
    let alone = config.namespaces.network == NamespaceChoice::Private && config.networks.is_empty();
    if alone {
        let text = "it has no network but the loopback device: nothing outside is reached, and no name resolves";
        list.add(Severity::Unusual, Place::Namespace, text);
    } else if known.nameservers == 0 && state.phase == Phase::Running {
        list.add(Severity::Problem, Place::Namespace, "names do not resolve: its resolv.conf names no server");
    }
    if !alone && state.phase == Phase::Running && !known.has_route {
        list.add(
            Severity::Unusual,
            Place::Namespace,
            "it has no default route: only its own networks are reached by IPv4",
        );
    }
}

/// What it may do beyond a container's usual share.
fn trusted(container: &Container, known: &Known, list: &mut Findings) {
    let security = &container.config.security;
    if security.privileged {
        let text = "it is privileged: whoever is root in it is root of the machine";
        list.add(Severity::Risk, Place::Privileges, text);
    }
    let strong: Vec<&str> = known.effective.iter().map(String::as_str).filter(|name| STRONG.contains(name)).collect();
    if !strong.is_empty() && !security.privileged {
        let text = format!("it has capabilities by which it can become root of the machine: {}", strong.join(", "));
        list.add(Severity::Risk, Place::Privileges, text);
    }
    let chosen = &container.config.namespaces;
    for (name, choice, text) in [
        ("pid", &chosen.pid, "it sees the machine's processes and can signal them"),
        (
            "net",
            &chosen.network,
            "it uses the machine's network: it can listen on every port, and reach what only the machine may",
        ),
        ("ipc", &chosen.ipc, "it shares memory segments and queues with the machine"),
        ("uts", &chosen.uts, "it shares the machine's host name"),
        ("cgroup", &chosen.cgroup, "it sees the machine's control groups"),
    ] {
        // What the kernel shows counts for more than what was asked.
        if *choice == NamespaceChoice::Host || known.shared.contains(&name) {
            let mild = matches!(name, "uts" | "cgroup");
            list.add(if mild { Severity::Unusual } else { Severity::Risk }, Place::Namespace, text);
        }
    }
    if known.seccomp == Some(0) || matches!(security.seccomp, SeccompChoice::Unconfined) {
        list.add(Severity::Risk, Place::Privileges, "its system calls are not filtered");
    }
    if security.system_paths_unconfined && !security.privileged {
        list.add(Severity::Risk, Place::Privileges, "settings of the kernel below /proc and /sys are open to it");
    }
    if known.root_is_root && known.shared.contains(&"user") {
        let text =
            "its program runs as root without a user mapping: a hole in the kernel would make it the machine's root";
        list.add(Severity::Unusual, Place::Privileges, text);
    }
    for device in &container.config.devices {
        if device.kind == "b" {
            let text = format!("it has the block device {}: it can read and change what is on it", device.path);
            list.add(Severity::Risk, Place::FileSystem, text);
        }
    }
}

/// Paths of the machine in it.
fn mounted(container: &Container, list: &mut Findings) {
    for mount in &container.config.mounts {
        let MountConfig::Bind { source, target, options, .. } = mount else { continue };
        let writable = !options.iter().any(|option| option == "ro" || option == "rro");
        let name = source.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let shown = source.display();
        if matches!(name, "docker.sock" | "hull.sock" | "containerd.sock" | "podman.sock" | "crio.sock") {
            let text = format!("{shown} is mounted at {target}: who can use an engine's socket is root of the machine");
            list.add(Severity::Risk, Place::FileSystem, text);
        } else if PRECIOUS.iter().any(|path| source.as_path() == Path::new(path)) {
            let how = if writable { "writable" } else { "readable" };
            list.add(Severity::Risk, Place::FileSystem, format!("{shown} of the machine is {how} at {target}"));
        } else if writable {
            list.add(
                Severity::Unusual,
                Place::FileSystem,
                format!("it can write to {shown} of the machine, at {target}"),
            );
        }
        if !source.exists() {
            let text = format!("{shown}, which is to be mounted at {target}, is missing on the machine");
            list.add(Severity::Problem, Place::FileSystem, text);
        }
    }
    if container.config.read_only {
        list.add(Severity::Unusual, Place::FileSystem, "its root is read-only: writing fails outside of mounts");
    }
}

/// Namespace, control group or file system?
pub(super) fn answer(container: &Container, state: &State, findings: &[Finding]) -> Answer {
    if let Some(found) = findings.iter().find(|finding| finding.severity == Severity::Problem) {
        return Answer { place: found.place, text: found.text.clone() };
    }
    let text = match state.phase {
        Phase::Created => "it was never started",
        Phase::Exited => "it ended by itself, without an error",
        Phase::Running | Phase::Restarting => "it runs, no limit is reached, no disk is full",
    };
    let mut text = text.to_owned();
    if container.config.namespaces.network == NamespaceChoice::Private && container.config.networks.is_empty() {
        text.push_str("; if it is the network that fails: it was given none");
    }
    Answer { place: Place::Nowhere, text }
}
