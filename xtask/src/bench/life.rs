//! `cargo xtask bench life`: what a detached container costs while it idles, and how long its commands take.
//!
//! Containers have no network here, except where a name says so; networks have a measurement of their own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use super::Bench;
use super::engines::{self, Engines, alternate};
use super::report::{Row, Table};
use super::stage::{Place, micros, show};
use crate::Result;

/// How long containers idle before their monitors' memory is read.
const IDLE: Duration = Duration::from_secs(5);

/// Containers started one after another, and how often.
const BATCH: usize = 100;
const BATCHES: usize = 3;

/// Containers that exist, or run, at once.
const MANY: usize = 1000;

/// A container's life, beside others.
pub(super) const BENCH: Bench = Bench {
    word: "life",
    fill: engines::fill,
    measure,
    apart: true,
    table: Table { programs: &["hull", "docker", "podman"], rows: ROWS },
    section: Some("life"),
};

pub(super) const ROWS: &[Row] = &[
    ("hull-monitor", "memory (PSS) of hull's monitor of one idle container", "hull-monitor", "300 KiB"),
    ("podman-monitor", "of podman's conmon", "hull-monitor", ""),
    ("docker-monitor", "of docker's containerd-shim", "hull-monitor", ""),
    ("hull-monitor-many", "of each monitor of 100 idle containers", "hull-monitor", "300 KiB"),
    ("hull-monitor-running", "of each monitor of 1 000", "hull-monitor", "300 KiB"),
    ("hull-exec", "`hull exec` of `true`", "hull-exec", "10 ms"),
    ("docker-exec", "`docker exec`", "hull-exec", ""),
    ("podman-exec", "`podman exec`", "hull-exec", ""),
    ("beside-alone-p50", "a request to a container that echoes, alone: half take at most", "beside-alone-p50", ""),
    ("beside-alone-p99", "99 of 100", "beside-alone-p99", ""),
    ("beside-bomb-p50", "beside a fork bomb: half take at most", "beside-alone-p50", ""),
    ("beside-bomb-p99", "99 of 100", "beside-alone-p99", ""),
    ("beside-hog-p50", "beside a memory hog: half take at most", "beside-alone-p50", ""),
    ("beside-hog-p99", "99 of 100", "beside-alone-p99", ""),
    ("beside-flood-p50", "beside a log flood: half take at most", "beside-alone-p50", ""),
    ("beside-flood-p99", "99 of 100", "beside-alone-p99", ""),
    ("beside-filler-p50", "beside a disk filler: half take at most", "beside-alone-p50", ""),
    ("beside-filler-p99", "99 of 100", "beside-alone-p99", ""),
    ("beside-all-p50", "beside all four: half take at most", "beside-alone-p50", ""),
    ("beside-all-p99", "99 of 100", "beside-alone-p99", ""),
    ("hull-beside-exec", "`hull exec` of `true` beside all four", "hull-exec", ""),
    ("hull-beside-run", "`hull run --rm` of `true` beside all four", "", ""),
    ("hull-beside-ps", "`hull ps` beside all four", "", ""),
    ("hull-beside-rm", "`hull rm -f` of the four and the neighbour", "", ""),
    ("hull-batch-none", "100 × `hull run -d --network none`", "", "2000 ms"),
    ("hull-batch-none-rm", "`hull rm -f` of these 100", "", "1000 ms"),
    ("hull-batch-bridge", "100 × `hull run -d` on the bridge", "", "2000 ms"),
    ("hull-batch-bridge-rm", "`hull rm -f` of these 100", "", "1000 ms"),
    ("hull-create", "1 000 × `hull create`", "", ""),
    ("hull-ps-created", "`hull ps -a` of these 1 000", "", "50 ms"),
    ("hull-created-rm", "`hull rm` of these 1 000", "", ""),
    ("hull-running", "1 000 × `hull run -d --network none`", "", ""),
    ("hull-ps-running", "`hull ps` of 1 000 that run", "", "50 ms"),
    ("hull-running-stop", "`hull stop -t 0` of these 1 000", "", ""),
    ("hull-running-rm", "`hull rm` of these 1 000", "", ""),
];

fn measure(place: &Place) -> Result<()> {
    let mut engines = Engines::enter(place)?;
    engines.peers()?;
    for name in engines.names() {
        engines.run(name, "run -d --name one --network none app:1 sleep 100000")?;
    }
    std::thread::sleep(IDLE);
    memory(&engines, "monitor", 1)?;
    for (name, program) in [("docker", "containerd-shim"), ("podman", "conmon")] {
        if engines.names().contains(&name) {
            let id = engines.said(name, "inspect --format {{.Id}} one")?;
            let found = processes(|_, words| words[0].contains(program) && words.contains(&id));
            show(&format!("{name}-monitor"), "KiB", &found.iter().map(|pid| pss(*pid)).collect::<Result<Vec<_>>>()?);
        }
    }
    let names: Vec<(String, &str)> = engines.names().into_iter().map(|name| (format!("{name}-exec"), name)).collect();
    let works: Vec<_> = names.iter().map(|(work, name)| (work.as_str(), *name, "exec one true".to_owned())).collect();
    alternate(&engines, &works, place.runs)?;
    for name in engines.names() {
        engines.run(name, "rm -f one")?;
    }
    super::neighbours::beside(&engines, place.runs)?;
    batches(&engines)?;
    created(&engines)?;
    running(&engines)?;
    engines.versions()
}

/// The monitors' memory, each; fails unless every container has one and nothing else of Hull's runs.
fn memory(engines: &Engines, name: &str, containers: usize) -> Result<()> {
    let found = hulls(engines)?;
    if found.len() != containers {
        let words =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        let words: Vec<String> = found.iter().map(words).collect();
        return Err(format!("{} processes of Hull's for {containers} containers: {words:?}", found.len()).into());
    }
    show(&format!("hull-{name}"), "KiB", &found.into_iter().map(pss).collect::<Result<Vec<_>>>()?);
    Ok(())
}

/// The processes of the program that is measured, known by its file: the monitor's link to it names no path.
fn hulls(engines: &Engines) -> Result<Vec<u32>> {
    let program = fs::metadata(engines.stage().join("hull"))?;
    let is_same = |file: fs::Metadata| (file.dev(), file.ino()) == (program.dev(), program.ino());
    Ok(processes(|pid, _| fs::metadata(format!("/proc/{pid}/exe")).is_ok_and(is_same)))
}

/// The processes that are wanted, by ID and arguments.
fn processes(is_wanted: impl Fn(u32, &[String]) -> bool) -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse::<u32>().ok()?;
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<String> =
            words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        is_wanted(pid, &words).then_some(pid)
    });
    pids.collect()
}

/// The memory that a process has to itself, and its part of what it shares, in KiB.
fn pss(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("smaps_rollup without Pss")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Detached containers one after another, with and without a network, and their removal.
fn batches(engines: &Engines) -> Result<()> {
    let names = names("batch", BATCH);
    for round in 0..BATCHES {
        for (name, network) in [("none", "none"), ("bridge", "bridge")] {
            let mut took = Duration::ZERO;
            for container in &names {
                took += engines.hull(&format!("run -d --name {container} --network {network} app:1 sleep 100000"))?;
            }
            show(&format!("hull-batch-{name}"), "us", &[micros(took)]);
            if round == 0 && network == "none" {
                std::thread::sleep(IDLE);
                memory(engines, "monitor-many", BATCH)?;
            }
            let took = engines.hull(&format!("rm -f {}", names.join(" ")))?;
            show(&format!("hull-batch-{name}-rm"), "us", &[micros(took)]);
        }
    }
    Ok(())
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

/// Containers that were made and never started: the list of them all.
fn created(engines: &Engines) -> Result<()> {
    let names = names("created", MANY);
    let mut took = Duration::ZERO;
    for container in &names {
        took += engines.hull(&format!("create --name {container} --network none app:1 true"))?;
    }
    show("hull-create", "us", &[micros(took)]);
    list(engines, "hull-ps-created", "ps -a")?;
    show("hull-created-rm", "us", &[micros(engines.hull(&format!("rm {}", names.join(" ")))?)]);
    Ok(())
}

fn list(engines: &Engines, name: &str, words: &str) -> Result<()> {
    for _ in 0..20 {
        let took = engines.run_rested("hull", words)?;
        let lines = fs::read_to_string("stdout")?.lines().count();
        if lines != MANY + 1 {
            return Err(format!("hull {words}: {lines} lines for {MANY} containers").into());
        }
        show(name, "us", &[micros(took)]);
    }
    Ok(())
}

/// As many containers running at once; afterwards nothing of them is left.
fn running(engines: &Engines) -> Result<()> {
    let names = names("running", MANY);
    let mut took = Duration::ZERO;
    for container in &names {
        took += engines.hull(&format!("run -d --name {container} --network none app:1 sleep 100000"))?;
    }
    show("hull-running", "us", &[micros(took)]);
    let ids = engines.said("hull", "ps -q --no-trunc")?;
    let ids: Vec<&str> = ids.lines().collect();
    list(engines, "hull-ps-running", "ps")?;
    memory(engines, "monitor-running", MANY)?;
    // sleep as a container's first process ignores the signal that asks.
    show("hull-running-stop", "us", &[micros(engines.hull(&format!("stop -t 0 {}", names.join(" ")))?)]);
    show("hull-running-rm", "us", &[micros(engines.hull(&format!("rm {}", names.join(" ")))?)]);
    let processes = hulls(engines)?.len();
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let has = |text: &str| ids.iter().any(|id| text.contains(id));
    let mounts = table.lines().filter(|line| has(line)).count();
    let count = |directory: &Path| all(directory, 5).iter().filter(|name| has(name)).count();
    let cgroups = count(Path::new("/sys/fs/cgroup"));
    let files = count(&engines.stage().join("data")) + count(Path::new("/run/bench/engine"));
    if processes + mounts + cgroups + files > 0 {
        return Err(format!(
            "left after {MANY} containers: {processes} processes, {mounts} mounts, {cgroups} cgroups, {files} files"
        )
        .into());
    }
    Ok(())
}

/// The names of all that is below a directory, some levels deep.
fn all(directory: &Path, levels: usize) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        names.push(entry.file_name().to_string_lossy().into_owned());
        if levels > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.extend(all(&entry.path(), levels - 1));
        }
    }
    names
}
