//! Reading usage from the control files of both versions. A file that is absent leaves its numbers at zero.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use crate::cgroup::{Cgroup, Driver};
use crate::error::Error;
use crate::hierarchies::Version;
use crate::io;
use crate::stats::{Blkio, BlkioEntry, CpuUsage, Hugetlb, MemoryEntry, Psi, PsiData, Stats, Throttling};

impl Cgroup {
    /// What the container uses now.
    ///
    /// # Errors
    /// When the groups are gone.
    pub fn stats(&self) -> Result<Stats, Error> {
        let mut stats = Stats::default();
        if self.driver() == Driver::Disabled {
            return Ok(stats);
        }
        for group in &self.groups {
            let dir = group.fd()?;
            if group.version == Version::V2 {
                read_v2(dir, &mut stats);
                continue;
            }
            for controller in &group.controllers {
                read_v1(dir, controller, &mut stats);
            }
        }
        Ok(stats)
    }

    /// How many processes were killed for lack of memory since the group was made; 0 where that is unknown.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let Some(group) = self.of("memory").filter(|_| self.driver() != Driver::Disabled) else { return 0 };
        let file = if group.version == Version::V2 { "memory.events" } else { "memory.oom_control" };
        let content = group.fd().ok().and_then(|dir| io::read(dir, file).ok()).unwrap_or_default();
        io::keyed(&content, "oom_kill").unwrap_or(0)
    }
}

/// `USER_HZ`, in which `cpuacct.stat` counts.
const TICK: u64 = 10_000_000;

fn number(dir: BorrowedFd<'_>, file: &str) -> u64 {
    io::read_number(dir, file).unwrap_or(0)
}

fn text(dir: BorrowedFd<'_>, file: &str) -> String {
    io::read(dir, file).unwrap_or_default()
}

fn table(content: &str) -> BTreeMap<String, u64> {
    let pair =
        |line: &str| line.split_once(' ').and_then(|(key, value)| Some((key.to_owned(), io::parse_number(value)?)));
    content.lines().filter_map(pair).collect()
}

fn list(content: &str) -> Vec<u16> {
    let mut numbers = Vec::new();
    for range in content.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            numbers.extend(first..=last);
        }
    }
    numbers
}

fn psi(content: &str) -> Option<Psi> {
    let mut psi = Psi::default();
    for line in content.lines() {
        let mut data = PsiData::default();
        let (kind, values) = line.split_once(' ')?;
        for (key, value) in values.split(' ').filter_map(|pair| pair.split_once('=')) {
            match key {
                "avg10" => data.avg10 = value.parse().ok()?,
                "avg60" => data.avg60 = value.parse().ok()?,
                "avg300" => data.avg300 = value.parse().ok()?,
                "total" => data.total = value.parse().ok()?,
                _ => {}
            }
        }
        match kind {
            "some" => psi.some = data,
            "full" => psi.full = data,
            _ => {}
        }
    }
    (!content.is_empty()).then_some(psi)
}

fn read_v2(dir: BorrowedFd<'_>, stats: &mut Stats) {
    let cpu = table(&text(dir, "cpu.stat"));
    let micro = |key: &str| cpu.get(key).copied().unwrap_or(0).saturating_mul(1000);
    let count = |key: &str| cpu.get(key).copied().unwrap_or(0);
    if !cpu.is_empty() {
        stats.cpu.usage = CpuUsage {
            total: micro("usage_usec"),
            kernel: micro("system_usec"),
            user: micro("user_usec"),
            ..CpuUsage::default()
        };
    }
    // Beside a v1 controller the file has times only.
    if cpu.contains_key("nr_periods") {
        stats.cpu.throttling = Throttling {
            periods: count("nr_periods"),
            throttled_periods: count("nr_throttled"),
            throttled_time: micro("throttled_usec"),
        };
    }
    stats.cpu.psi = psi(&text(dir, "cpu.pressure")).or(stats.cpu.psi.take());
    if let Some(current) = io::read_number(dir, "memory.current") {
        let events = table(&text(dir, "memory.events"));
        let memory = &mut stats.memory;
        memory.raw = table(&text(dir, "memory.stat"));
        memory.cache = memory.raw.get("file").copied().unwrap_or(0);
        memory.usage = MemoryEntry {
            limit: number(dir, "memory.max"),
            usage: current,
            max: number(dir, "memory.peak"),
            failcnt: events.get("max").copied().unwrap_or(0),
        };
        // Both together, as v1 counts.
        let swap_limit = number(dir, "memory.swap.max");
        memory.swap = MemoryEntry {
            limit: memory.usage.limit.saturating_add(swap_limit),
            usage: current.saturating_add(number(dir, "memory.swap.current")),
            max: 0,
            failcnt: io::keyed(&text(dir, "memory.swap.events"), "fail").unwrap_or(0),
        };
        memory.psi = psi(&text(dir, "memory.pressure"));
    }
    read_pids(dir, stats);
    read_cpuset(dir, "cpuset.cpus.effective", "cpuset.mems.effective", stats);
    let io = text(dir, "io.stat");
    if !io.is_empty() {
        stats.blkio = io_stat(&io);
    }
    stats.blkio.psi = psi(&text(dir, "io.pressure")).or(stats.blkio.psi.take());
    read_hugetlb(dir, ("max", "current", ""), stats);
}

fn read_pids(dir: BorrowedFd<'_>, stats: &mut Stats) {
    if let Some(current) = io::read_number(dir, "pids.current") {
        stats.pids.current = current;
        stats.pids.limit = io::read_number(dir, "pids.max").filter(|&limit| limit != u64::MAX).unwrap_or(0);
    }
}

fn read_cpuset(dir: BorrowedFd<'_>, cpus: &str, mems: &str, stats: &mut Stats) {
    let (cpus, mems) = (text(dir, cpus), text(dir, mems));
    if !cpus.is_empty() {
        stats.cpuset.cpus = list(&cpus);
        stats.cpuset.mems = list(&mems);
    }
}

/// `io.stat`: one line for each device, `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
fn io_stat(content: &str) -> Blkio {
    let mut blkio = Blkio::default();
    for line in content.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (target, op) = match key {
                "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
                "dbytes" => (&mut blkio.io_service_bytes_recursive, "Discard"),
                "rios" => (&mut blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut blkio.io_serviced_recursive, "Write"),
                "dios" => (&mut blkio.io_serviced_recursive, "Discard"),
                _ => continue,
            };
            let value = value.parse().unwrap_or(0);
            target.push(BlkioEntry { major, minor, op: op.to_owned(), value });
        }
    }
    blkio
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// v1: `8:0 Read 4096` or `8:0 4096`; the last line is a sum.
fn blkio_entries(content: &str) -> Vec<BlkioEntry> {
    let mut entries = Vec::new();
    for line in content.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some((major, minor)), Some(value)) =
            (words.first().and_then(|word| device(word)), words.last().and_then(|word| word.parse().ok()))
        else {
            continue;
        };
        let op = if words.len() > 2 { words[1].to_owned() } else { String::new() };
        entries.push(BlkioEntry { major, minor, op, value });
    }
    entries
}

fn read_v1(dir: BorrowedFd<'_>, controller: &str, stats: &mut Stats) {
    match controller {
        "cpu" => {
            let content = text(dir, "cpu.stat");
            let value = |key| io::keyed(&content, key).unwrap_or(0);
            stats.cpu.throttling = Throttling {
                periods: value("nr_periods"),
                throttled_periods: value("nr_throttled"),
                throttled_time: value("throttled_time"),
            };
        }
        "cpuacct" => {
            let numbers =
                |file| text(dir, file).split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
            let content = text(dir, "cpuacct.stat");
            stats.cpu.usage = CpuUsage {
                total: number(dir, "cpuacct.usage"),
                percpu: numbers("cpuacct.usage_percpu"),
                percpu_kernel: numbers("cpuacct.usage_percpu_sys"),
                percpu_user: numbers("cpuacct.usage_percpu_user"),
                kernel: io::keyed(&content, "system").unwrap_or(0).saturating_mul(TICK),
                user: io::keyed(&content, "user").unwrap_or(0).saturating_mul(TICK),
            };
        }
        "cpuset" => read_cpuset(dir, "cpuset.cpus", "cpuset.mems", stats),
        "memory" => {
            let entry = |name: &str| MemoryEntry {
                limit: number(dir, &format!("memory.{name}limit_in_bytes")),
                usage: number(dir, &format!("memory.{name}usage_in_bytes")),
                max: number(dir, &format!("memory.{name}max_usage_in_bytes")),
                failcnt: number(dir, &format!("memory.{name}failcnt")),
            };
            let memory = &mut stats.memory;
            memory.raw = table(&text(dir, "memory.stat"));
            memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
            (memory.usage, memory.swap) = (entry(""), entry("memsw."));
            (memory.kernel, memory.kernel_tcp) = (entry("kmem."), entry("kmem.tcp."));
        }
        "pids" => read_pids(dir, stats),
        "blkio" => {
            let entries = |names: [&str; 2]| {
                let read = names.iter().map(|name| blkio_entries(&text(dir, name)));
                read.into_iter().find(|list| !list.is_empty()).unwrap_or_default()
            };
            stats.blkio = Blkio {
                io_service_bytes_recursive: entries([
                    "blkio.bfq.io_service_bytes_recursive",
                    "blkio.throttle.io_service_bytes_recursive",
                ]),
                io_serviced_recursive: entries([
                    "blkio.bfq.io_serviced_recursive",
                    "blkio.throttle.io_serviced_recursive",
                ]),
                io_queued_recursive: entries(["blkio.bfq.io_queued_recursive", "blkio.io_queued_recursive"]),
                io_service_time_recursive: entries([
                    "blkio.bfq.io_service_time_recursive",
                    "blkio.io_service_time_recursive",
                ]),
                io_wait_time_recursive: entries(["blkio.bfq.io_wait_time_recursive", "blkio.io_wait_time_recursive"]),
                io_merged_recursive: entries(["blkio.bfq.io_merged_recursive", "blkio.io_merged_recursive"]),
                io_time_recursive: entries(["blkio.bfq.time_recursive", "blkio.time_recursive"]),
                sectors_recursive: entries(["blkio.bfq.sectors_recursive", "blkio.sectors_recursive"]),
                psi: None,
            };
        }
        "hugetlb" => read_hugetlb(dir, ("limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes"), stats),
        _ => {}
    }
}

/// Files named by their limit, usage and highest usage.
fn read_hugetlb(dir: BorrowedFd<'_>, (limit, usage, highest): (&str, &str, &str), stats: &mut Stats) {
    let Ok(entries) = rustix::fs::Dir::read_from(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(size) = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(limit)?.strip_suffix('.'))
        else {
            continue;
        };
        if !crate::convert::is_page_size(size) {
            continue;
        }
        let file = |kind: &str| format!("hugetlb.{size}.{kind}");
        let failcnt = io::read_number(dir, &file("failcnt"))
            .or_else(|| io::keyed(&text(dir, &file("events")), "max"))
            .unwrap_or(0);
        let max = if highest.is_empty() { 0 } else { number(dir, &file(highest)) };
        stats.hugetlb.insert(size.to_owned(), Hugetlb { usage: number(dir, &file(usage)), max, failcnt });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_lines() {
        let blkio = io_stat("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\nbroken\n");
        assert_eq!(blkio.io_service_bytes_recursive.len(), 3);
        assert_eq!(blkio.io_serviced_recursive[1], BlkioEntry { major: 8, minor: 0, op: "Write".into(), value: 4 });
        let entries = blkio_entries("8:0 Read 4096\n8:0 Total 4096\n259:1 7\nTotal 4096\n");
        assert_eq!(entries.len(), 3);
        assert_eq!((entries[2].major, entries[2].value, entries[2].op.as_str()), (259, 7, ""));
    }

    #[test]
    fn pressure_and_lists() {
        let some = "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
        let psi = psi(some).unwrap();
        assert_eq!((psi.some.avg10, psi.some.total, psi.full.total), (1.5, 12, 3));
        assert!(super::psi("").is_none());
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
    }
}
