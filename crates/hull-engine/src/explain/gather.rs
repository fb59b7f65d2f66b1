//! What the kernel and the records say.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use hull_oci::spec::CAPABILITIES;
use hull_runtime::state::Record;
use rustix::fs::{Mode, OFlags, ResolveFlags, StatVfs};

use super::{Known, Section, bytes};
use crate::config::{MountConfig, NamespaceChoice, RestartPolicy, Source};
use crate::network::has_networks;
use crate::records::{Container, Engine, Phase, State};
use crate::spec::DEFAULT_CAPABILITIES;
use crate::usage;

/// Files of the kernel are read up to this size.
const MAX_FILE: u64 = 1 << 20;

/// File systems that live in memory or the kernel, or may answer late: their room is not asked for.
const NO_ROOM: [&str; 15] = [
    "devtmpfs", "proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "nfs", "nfs4", "cifs", "smb3", "9p", "ceph",
    "fuse", "autofs",
];

fn read(path: impl AsRef<Path>) -> String {
    let mut text = Vec::new();
    // What cannot be read is left out.
    let _ = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

fn line_of<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// How it lives, or how it ended.
pub(super) fn life(container: &Container, state: &State) -> Section {
    let mut section = Section::new("Life");
    section.add("status", state.phase.as_str(), phase(state.phase));
    if state.pid > 0 {
        section.add("pid", state.pid.to_string(), "first process, by the machine's numbers");
        section.add("monitor", state.monitor.to_string(), "the process of Hull that looks after it");
    }
    if state.finished > 0 || state.phase == Phase::Exited {
        section.add("exit code", state.exit_code.to_string(), exit_meaning(state.exit_code, state.oom_killed));
    }
    if !state.error.is_empty() {
        section.add("error", state.error.clone(), "why it could not start, or was lost");
    }
    if state.restarts > 0 {
        section.add("restarts", state.restarts.to_string(), "how often its policy has started it again");
    }
    section.add("restart policy", policy(container.config.restart), "whether it is started again after its end");
    section
}

fn policy(policy: RestartPolicy) -> String {
    match policy {
        RestartPolicy::No => "no".to_owned(),
        RestartPolicy::OnFailure(0) => "on-failure".to_owned(),
        RestartPolicy::OnFailure(count) => format!("on-failure:{count}"),
        RestartPolicy::Always => "always".to_owned(),
        RestartPolicy::UnlessStopped => "unless-stopped".to_owned(),
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Created => "it was never started",
        Phase::Running => "its program runs",
        Phase::Restarting => "its program has ended and is started again soon",
        Phase::Exited => "its program has ended",
    }
}

/// Why a program ended with this code.
pub(super) fn exit_meaning(code: i32, oom: bool) -> String {
    match code {
        0 => "it ended without an error".to_owned(),
        _ if oom => "a process of it was killed because its memory limit was reached".to_owned(),
        125 => "the engine could not start it".to_owned(),
        126 => "the program exists and cannot be executed".to_owned(),
        127 => "the program was not found".to_owned(),
        129..=192 => {
            let name = hull_runtime::lifecycle::signal::name(code - 128);
            let why = match code - 128 {
                9 => ": somebody killed it, or it did not end in time when it was stopped",
                11 => ": it touched memory that is not its own",
                15 => ": it was asked to end",
                6 => ": it gave up by itself",
                _ => "",
            };
            format!("ended by {name}{why}")
        }
        _ => "the program's own code: its log says more".to_owned(),
    }
}

/// Its namespaces beside the machine's.
pub(super) fn namespaces(pid: i32, known: &mut Known) -> Section {
    let mut section = Section::new("Namespaces");
    const KINDS: [(&str, &str, &str); 8] = [
        ("cgroup", "sees its control group as the root", "sees the machine's control groups"),
        ("ipc", "has shared memory and queues of its own", "shares memory segments and queues with the machine"),
        ("mnt", "has a tree of mounts of its own", "sees the machine's mounts"),
        ("net", "has network devices, routes and ports of its own", "uses the machine's network directly"),
        ("pid", "sees only its own processes", "sees and can signal the machine's processes"),
        ("time", "has clocks of its own", "has the machine's clocks, as usual"),
        (
            "user",
            "its root is nobody special on the machine",
            "its root is the machine's root, as far as capabilities go",
        ),
        ("uts", "has a host name of its own", "has the machine's host name"),
    ];
    for (kind, own, shared) in KINDS {
        let name = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        let Some(link) = name(&pid.to_string()) else { continue };
        let inode = |link: &Path| link.to_string_lossy().trim_end_matches(']').rsplit('[').next().map(str::to_owned);
        let machine = name("self");
        let same = machine.as_ref() == Some(&link);
        let (ours, theirs) = (machine.as_deref().and_then(inode), inode(&link).unwrap_or_default());
        let value = match ours.filter(|_| !same) {
            Some(ours) => format!("{theirs} (machine {ours})"),
            None => format!("{theirs} (shared)"),
        };
        if same {
            known.shared.push(kind);
        }
        section.add(kind, value, if same { shared } else { own });
    }
    section
}

/// Files of control groups: controller on v1, file, meaning.
const FILES: [(&str, &str, &str); 27] = [
    ("memory", "memory.max", "most memory; above it processes are killed"),
    ("memory", "memory.high", "above it the container is slowed down"),
    ("memory", "memory.current", "memory in use, with page cache"),
    ("memory", "memory.peak", "most memory so far"),
    ("memory", "memory.swap.max", "most swap"),
    ("memory", "memory.limit_in_bytes", "most memory; above it processes are killed"),
    ("memory", "memory.memsw.limit_in_bytes", "most memory and swap together"),
    ("memory", "memory.usage_in_bytes", "memory in use, with page cache"),
    ("memory", "memory.max_usage_in_bytes", "most memory so far"),
    ("memory", "memory.failcnt", "how often the limit was reached"),
    ("memory", "memory.pressure", "share of time in which processes waited for memory"),
    ("cpu", "cpu.max", "microseconds of processor time in each period"),
    ("cpu", "cpu.weight", "share when processors are short; 100 is usual"),
    ("cpu", "cpu.cfs_quota_us", "microseconds of processor time in each period; -1 is no limit"),
    ("cpu", "cpu.cfs_period_us", "length of that period"),
    ("cpu", "cpu.shares", "share when processors are short; 1024 is usual"),
    ("cpu", "cpu.pressure", "share of time in which processes waited for a processor"),
    ("cpuset", "cpuset.cpus.effective", "processors that it may use"),
    ("cpuset", "cpuset.effective_cpus", "processors that it may use"),
    ("pids", "pids.max", "most tasks"),
    ("pids", "pids.current", "tasks now"),
    ("io", "io.max", "limits of block devices"),
    ("io", "io.pressure", "share of time in which processes waited for a disk"),
    ("blkio", "blkio.throttle.read_bps_device", "most bytes read per second"),
    ("blkio", "blkio.throttle.write_bps_device", "most bytes written per second"),
    ("freezer", "freezer.state", "whether it is paused"),
    ("", "cgroup.freeze", "whether it is paused"),
];

/// What it may use, and uses.
pub(super) fn cgroup(container: &Container, record: Option<&Record>, known: &mut Known) -> Section {
    let mut section = Section::new("Control group");
    let limits = &container.config.limits;
    known.limited = limits.memory.is_some();
    let Some(record) = record else {
        let size =
            |value: Option<i64>| value.and_then(|one| u64::try_from(one).ok()).map_or_else(|| "none".to_owned(), bytes);
        section.add("--memory", size(limits.memory), "memory limit that it is started with");
        let pids = limits.pids.unwrap_or(crate::spec::DEFAULT_PIDS);
        section.add("--pids-limit", pids.to_string(), "most tasks that it is started with");
        return section;
    };
    let paths = record.cgroup.paths();
    // The same group in every hierarchy is one line.
    let below =
        |path: &Path| path.strip_prefix("/sys/fs/cgroup").ok().map(|rest| rest.iter().skip(1).collect::<PathBuf>());
    let mut groups: Vec<(Option<PathBuf>, &PathBuf, Vec<&str>)> = Vec::new();
    for (controller, path) in &paths {
        let name = if controller.is_empty() { "unified" } else { controller.as_str() };
        let group = below(path).filter(|_| paths.len() > 1);
        match groups.iter_mut().find(|(known, first, _)| *first == path || (group.is_some() && *known == group)) {
            Some((.., names)) => names.push(name),
            None => groups.push((group, path, vec![name])),
        }
    }
    for (group, path, names) in groups {
        let value =
            group.map_or_else(|| path.display().to_string(), |group| format!("/sys/fs/cgroup/*/{}", group.display()));
        section.add("group", value, format!("in the hierarchies of {}", names.join(" ")));
    }
    for (controller, file, means) in FILES {
        let Some(path) = paths.get(controller).or_else(|| paths.get("")) else { continue };
        let text = read(path.join(file));
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let value = match text.parse::<u64>() {
            // v1's way to say that there is no limit.
            Ok(number) if number >= 1 << 60 => "no limit".to_owned(),
            Ok(number) if file.starts_with("memory") && number >= 1024 => format!("{number} ({})", bytes(number)),
            _ if text == "max" => "no limit".to_owned(),
            _ => text.replace('\n', "; "),
        };
        section.add(file, value, means);
    }
    known.oom_kills = record.cgroup.oom_kills();
    known.frozen = record.cgroup.is_frozen().unwrap_or(false);
    section.add("oom kills", known.oom_kills.to_string(), "processes killed for want of memory");
    if let Ok(stats) = record.cgroup.stats() {
        let throttling = &stats.cpu.throttling;
        section.add(
            "throttled",
            format!(
                "{} of {} periods, {} ms",
                throttling.throttled_periods,
                throttling.periods,
                throttling.throttled_time / 1_000_000
            ),
            "processor time that the limit withheld",
        );
        known.stats = Some(stats);
    }
    section
}

/// Bytes of a file system and what is left of them; absent where that is no sensible question.
fn room(stat: &StatVfs) -> Option<(u64, u64)> {
    let total = stat.f_blocks.saturating_mul(stat.f_frsize);
    (total > 0).then(|| (total, stat.f_bavail.saturating_mul(stat.f_frsize)))
}

fn note_room(known: &mut Known, name: &str, stat: &StatVfs) -> String {
    let Some((total, free)) = room(stat) else { return String::new() };
    if free < (total / 100).clamp(1 << 12, 64 << 20) || (stat.f_files > 0 && stat.f_favail == 0) {
        known.full.push((name.to_owned(), free));
    }
    format!(", {} of {} free", bytes(free), bytes(total))
}

fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Its layers and mounts.
pub(super) fn files(engine: &Engine, container: &Container, state: &State, known: &mut Known) -> Section {
    let mut section = Section::new("File system");
    let config = &container.config;
    let directory = engine.directory(&container.id);
    match &config.source {
        Source::Directory(path) => {
            section.add("root", path.to_string_lossy(), "a directory of the machine that it uses and changes directly");
        }
        Source::Image(name) => {
            let upper = directory.join("upper");
            let mut value = upper.to_string_lossy().into_owned();
            if let Ok(stat) = rustix::fs::statvfs(&upper) {
                value.push_str(&note_room(known, "the disk of its writable layer", &stat));
            }
            let written = bytes(usage::written(&upper));
            let means =
                if config.read_only { "the layer above the image; read-only" } else { "the layer that it writes to" };
            section.add("upper", value, format!("{means}; {written} written"));
            if let Ok(image) = engine.images.find(&container.image_id) {
                for layer in image.layers.iter().rev() {
                    let path = engine.images.layer_path(&layer.diff_id);
                    section.add("lower", path.to_string_lossy(), format!("layer of {name}, read-only"));
                }
            } else {
                section.add("lower", container.image_id.clone(), "its image is gone");
            }
        }
    }
    if state.phase != Phase::Running {
        for mount in &config.mounts {
            if let MountConfig::Bind { source, target, .. } = mount {
                let there = if source.exists() { "of the machine" } else { "of the machine, which is MISSING" };
                section.add(target, source.to_string_lossy(), format!("path {there}"));
            }
        }
        return section;
    }
    let root =
        rustix::fs::open(format!("/proc/{}/root", state.pid), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
    for line in read(format!("/proc/{}/mountinfo", state.pid)).lines().take(512) {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let (before, after): (Vec<&str>, Vec<&str>) = (before.split(' ').collect(), after.split(' ').collect());
        let ([_, _, _, origin, target, options, ..], [kind, source, ..]) = (before.as_slice(), after.as_slice()) else {
            continue;
        };
        let target = unescape(target);
        let writable = options.split(',').next() == Some("rw");
        let chosen = config.mounts.iter().find_map(|mount| match mount {
            MountConfig::Bind { source, target: wanted, .. } if *wanted == target => {
                Some(format!("bound from {} of the machine", source.display()))
            }
            MountConfig::Tmpfs { target: wanted, .. } if *wanted == target => {
                Some("in memory, as was asked".to_owned())
            }
            _ => None,
        });
        let generated = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].contains(&target.as_str());
        let what = match chosen {
            Some(text) => text,
            None if target == "/" => "its root".to_owned(),
            None if generated => {
                format!("made by Hull: {}", directory.join(target.trim_start_matches("/etc/")).display())
            }
            None => match *kind {
                "proc" => "processes; parts are hidden or read-only".to_owned(),
                "sysfs" => "devices of the kernel".to_owned(),
                "cgroup" | "cgroup2" => "its control group".to_owned(),
                "devpts" => "terminals of its own".to_owned(),
                "mqueue" => "message queues".to_owned(),
                "devtmpfs" | "tmpfs" if *origin == "/null" || target.starts_with("/proc/") => {
                    "hidden from it".to_owned()
                }
                "tmpfs" => "in memory".to_owned(),
                "overlay" => "layers".to_owned(),
                _ => format!("{} of {}", unescape(origin), unescape(source)),
            },
        };
        let mut value = format!("{kind}, {}", if writable { "writable" } else { "read-only" });
        let plain = !NO_ROOM.iter().any(|one| kind.starts_with(one));
        if plain && writable && !generated && target != "/" {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let opened = root
                .as_ref()
                .and_then(|root| rustix::fs::openat2(root, target.as_str(), flags, Mode::empty(), resolve).ok());
            if let Some(stat) = opened.and_then(|opened| rustix::fs::fstatvfs(&opened).ok()) {
                value.push_str(&note_room(known, &target, &stat));
            }
        }
        section.add(target, value, what);
    }
    section
}

/// The default route of `/proc/PID/net/route`, as device and gateway.
fn default_route(text: &str) -> Option<(String, String)> {
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (device, target, gateway) = (*fields.first()?, *fields.get(1)?, *fields.get(2)?);
        let address = u32::from_str_radix(gateway, 16).ok()?.to_le_bytes();
        (target == "00000000").then(|| (device.to_owned(), std::net::Ipv4Addr::from(address).to_string()))
    })
}

/// Its way to the network.
pub(super) fn network(engine: &Engine, container: &Container, state: &State, known: &mut Known) -> Section {
    let mut section = Section::new("Network");
    let config = &container.config;
    let running = state.phase == Phase::Running;
    match &config.namespaces.network {
        NamespaceChoice::Private if config.networks.is_empty() => {
            section.add("mode", "none", "nothing but the loopback device: no way out and none in");
        }
        NamespaceChoice::Private => {
            let names: Vec<&str> = config.networks.iter().map(|one| one.name.as_str()).collect();
            section.add("mode", names.join(", "), "devices of its own on these networks");
        }
        NamespaceChoice::Host => section.add("mode", "host", "the machine's devices, addresses and ports"),
        NamespaceChoice::Container(name) => {
            section.add("mode", format!("container:{name}"), "another container's network");
        }
        NamespaceChoice::Path(path) => section.add("mode", format!("ns:{path}"), "a network namespace of the user's"),
    }
    if running && has_networks(config) {
        for endpoint in engine.networks().endpoints_of(&container.id).unwrap_or_default() {
            let addresses: Vec<String> =
                endpoint.addresses.iter().map(|(address, length)| format!("{address}/{length}")).collect();
            let means = format!("on network {}; the machine's end is {}", endpoint.network_name, endpoint.link);
            section.add(endpoint.interface.clone(), format!("{} {}", addresses.join(" "), endpoint.mac), means);
        }
        for port in engine.networks().ports_of(&container.id).unwrap_or_default() {
            let name = format!("{}/{}", port.port, port.protocol.as_str());
            section.add(name, format!("{}:{}", port.host, port.host_port), "published: reached from outside by this");
        }
    }
    if running {
        match default_route(&read(format!("/proc/{}/net/route", state.pid))) {
            Some((device, gateway)) => {
                known.has_route = true;
                section.add("default route", format!("{gateway} by {device}"), "everything else goes there");
            }
            None => section.add("default route", "none", "nothing but its own networks is reached by IPv4"),
        }
    }
    let file = engine.directory(&container.id).join("resolv.conf");
    let own = file.exists();
    let text = read(if own { file.as_path() } else { Path::new("/etc/resolv.conf") });
    let servers: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("nameserver")).map(str::trim).collect();
    known.nameservers = servers.len();
    let means = match servers.as_slice() {
        [] => "names of the outside do not resolve",
        ["127.0.0.11", ..] => "Hull's resolver: names of containers, and the machine's servers",
        _ => "where names are looked up",
    };
    section.add("name servers", if servers.is_empty() { "none".to_owned() } else { servers.join(" ") }, means);
    section
}

fn names(mask: &str) -> Vec<String> {
    let bits = u64::from_str_radix(mask, 16).unwrap_or(0);
    let named = CAPABILITIES.iter().enumerate().filter(|(number, _)| bits & (1 << number) != 0);
    named.map(|(_, name)| (*name).to_owned()).collect()
}

/// What it may do.
pub(super) fn privileges(container: &Container, state: &State, known: &mut Known) -> Section {
    let mut section = Section::new("Privileges");
    let config = &container.config;
    section.add("privileged", config.security.privileged.to_string(), "all capabilities and devices, nothing hidden");
    if state.phase != Phase::Running {
        let user = config.user.as_deref().filter(|user| !user.is_empty()).unwrap_or("the image's");
        section.add("user", user, "as was asked");
        return section;
    }
    let status = read(format!("/proc/{}/status", state.pid));
    let of = |key: &str| line_of(&status, key).unwrap_or_default().to_owned();
    let first = |text: String| text.split_whitespace().next().unwrap_or_default().to_owned();
    let (uid, gid) = (first(of("Uid")), first(of("Gid")));
    let map = read(format!("/proc/{}/uid_map", state.pid));
    let map: Vec<String> = map.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    known.root_is_root = uid == "0";
    section.add("user", format!("{uid}:{gid}"), "of the first process, by the machine's numbers");
    let whole = map.iter().any(|line| line == "0 0 4294967295");
    section.add(
        "user mapping",
        map.join("; "),
        if whole {
            "none: a user of the container is the machine's user of that number"
        } else {
            "container, machine, count"
        },
    );
    known.effective = names(&of("CapEff"));
    let bounding = names(&of("CapBnd"));
    let short = |list: &[String]| {
        let list: Vec<&str> = list.iter().map(|name| name.trim_start_matches("CAP_")).collect();
        if list.is_empty() { "none".to_owned() } else { list.join(" ") }
    };
    section.add("effective", short(&known.effective), "capabilities of the first process");
    let extra: Vec<String> =
        bounding.iter().filter(|name| !DEFAULT_CAPABILITIES.contains(&name.as_str())).cloned().collect();
    let missing: Vec<String> =
        DEFAULT_CAPABILITIES.iter().map(ToString::to_string).filter(|name| !bounding.contains(name)).collect();
    section.add("beyond the default", short(&extra), "capabilities that a process of it can come to");
    section.add("less than the default", short(&missing), "capabilities that none of it can come to");
    let nnp = of("NoNewPrivs") == "1";
    section.add(
        "no new privileges",
        nnp.to_string(),
        if nnp { "setuid programs give nothing" } else { "setuid programs work" },
    );
    known.seccomp = of("Seccomp").parse().ok();
    let filters = of("Seccomp_filters");
    let (value, means) = match known.seccomp {
        Some(2) => (format!("filter ({filters})"), "system calls are filtered"),
        Some(0) => ("off".to_owned(), "every system call reaches the kernel"),
        _ => ("unknown".to_owned(), "the kernel does not say"),
    };
    section.add("seccomp", value, means);
    let label = read(format!("/proc/{}/attr/current", state.pid));
    let label = label.trim_matches(['\0', '\n', ' ']);
    section.add("security module", if label.is_empty() { "none" } else { label }, "label of the first process");
    section
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn routes_and_capabilities_are_read() {
        let text = "Iface\tDestination\tGateway\neth0\t00000000\t010011AC\t0003\neth0\t000011AC\t00000000\n";
        assert_eq!(default_route(text), Some(("eth0".to_owned(), "172.17.0.1".to_owned())));
        assert_eq!(default_route("Iface\n"), None);
        assert_eq!(names("0000000000000003"), ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
    }
}
