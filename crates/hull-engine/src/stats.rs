//! What containers use, by Docker's arithmetic: processor time between two samples against that of the whole machine,
//! memory without the inactive page cache, every network device but the loopback one, every block device.

use std::fs;

use hull_runtime::state::Record;

use crate::config::NamespaceChoice;
use crate::error::Error;
use crate::records::{Container, Engine, Phase};

/// Counters of a container at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Nanoseconds of processor time since the container began.
    pub cpu: u64,
    /// Nanoseconds of processor time of the machine, idle or not.
    pub machine: u64,
    /// Processors.
    pub cpus: u64,
    /// Bytes of memory, without the page cache that can be dropped first.
    pub memory: u64,
    /// Bytes that it may use; the machine's where there is no limit.
    pub memory_limit: u64,
    /// Bytes received and sent.
    pub network: (u64, u64),
    /// Bytes read from and written to block devices.
    pub block: (u64, u64),
    /// Tasks.
    pub pids: u64,
}

impl Sample {
    /// Percent of one processor since an earlier sample.
    #[must_use]
    pub fn cpu_percent(&self, before: &Self) -> f64 {
        let used = self.cpu.saturating_sub(before.cpu);
        let passed = self.machine.saturating_sub(before.machine);
        if used == 0 || passed == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let share = used as f64 / passed as f64 * self.cpus as f64;
        share * 100.0
    }

    /// Percent of the memory limit.
    #[must_use]
    pub fn memory_percent(&self) -> f64 {
        if self.memory_limit == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let share = self.memory as f64 / self.memory_limit as f64;
        share * 100.0
    }
}

/// Processor time of the machine in nanoseconds, and the number of its processors, from `/proc/stat`.
fn machine(text: &str) -> (u64, u64) {
    let first = text.lines().find(|line| line.starts_with("cpu ")).unwrap_or_default();
    let ticks: u64 = first.split_whitespace().skip(1).take(7).filter_map(|text| text.parse::<u64>().ok()).sum();
    let numbered =
        |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let cpus = text.lines().filter(numbered).count();
    (ticks.saturating_mul(1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)), cpus as u64)
}

/// Bytes received and sent by all devices but the loopback one, from `/proc/PID/net/dev`.
fn traffic(text: &str) -> (u64, u64) {
    let mut sum = (0u64, 0u64);
    for (name, counters) in text.lines().filter_map(|line| line.split_once(':')) {
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|text| text.parse().ok()).collect();
        if name.trim() != "lo" && counters.len() >= 9 {
            sum = (sum.0.saturating_add(counters[0]), sum.1.saturating_add(counters[8]));
        }
    }
    sum
}

/// Memory of the machine in bytes.
pub(crate) fn machine_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
}

/// Memory in use that is not page cache which nobody has looked at lately.
pub(crate) fn used_memory(memory: &hull_cgroup::Memory) -> u64 {
    let usage = memory.usage.usage;
    let cache = memory.raw.get("total_inactive_file").or_else(|| memory.raw.get("inactive_file"));
    usage.checked_sub(cache.copied().unwrap_or(0)).unwrap_or(usage)
}

/// Everything that is counted for a container at one moment.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Of its control groups.
    pub cgroup: hull_cgroup::Stats,
    /// Processor time and number of the machine's processors.
    pub machine: (u64, u64),
    /// Bytes of memory that it may use; the machine's where there is no limit.
    pub memory_limit: u64,
    /// The sixteen numbers of `/proc/net/dev` for each device but the loopback one.
    pub network: Vec<(String, Vec<u64>)>,
}

impl Engine {
    /// All counters of a container; `None` when it does not run.
    ///
    /// # Errors
    /// When its control groups cannot be read.
    pub fn counters(&self, container: &Container) -> Result<Option<Counters>, Error> {
        let state = self.state(&container.id)?;
        if state.phase != Phase::Running {
            return Ok(None);
        }
        let record = Record::load(&self.oci_root(), &container.id)?;
        let cgroup = record.cgroup.stats()?;
        let (limit, whole) = (cgroup.memory.usage.limit, machine_memory());
        let mut network = Vec::new();
        if container.config.namespaces.network != NamespaceChoice::Host {
            let text = fs::read_to_string(format!("/proc/{}/net/dev", state.pid)).unwrap_or_default();
            for (name, counters) in text.lines().filter_map(|line| line.split_once(':')) {
                let counters: Vec<u64> = counters.split_whitespace().filter_map(|text| text.parse().ok()).collect();
                if name.trim() != "lo" && counters.len() >= 12 {
                    network.push((name.trim().to_owned(), counters));
                }
            }
        }
        Ok(Some(Counters {
            cgroup,
            machine: machine(&fs::read_to_string("/proc/stat").unwrap_or_default()),
            memory_limit: if limit == 0 || limit > whole { whole } else { limit },
            network,
        }))
    }

    /// What a container uses now; `None` when it does not run.
    ///
    /// # Errors
    /// When its control groups cannot be read.
    pub fn sample(&self, container: &Container) -> Result<Option<Sample>, Error> {
        let state = self.state(&container.id)?;
        if state.phase != Phase::Running {
            return Ok(None);
        }
        let record = Record::load(&self.oci_root(), &container.id)?;
        let stats = record.cgroup.stats()?;
        let (machine, cpus) = machine(&fs::read_to_string("/proc/stat").unwrap_or_default());
        let whole = machine_memory();
        let limit = stats.memory.usage.limit;
        let network = match container.config.namespaces.network {
            NamespaceChoice::Host => (0, 0),
            _ => traffic(&fs::read_to_string(format!("/proc/{}/net/dev", state.pid)).unwrap_or_default()),
        };
        let mut block = (0u64, 0u64);
        for entry in &stats.blkio.io_service_bytes_recursive {
            match entry.op.to_ascii_lowercase().as_str() {
                "read" => block.0 = block.0.saturating_add(entry.value),
                "write" => block.1 = block.1.saturating_add(entry.value),
                _ => {}
            }
        }
        Ok(Some(Sample {
            cpu: stats.cpu.usage.total,
            machine,
            cpus,
            memory: used_memory(&stats.memory),
            memory_limit: if limit == 0 || limit > whole { whole } else { limit },
            network,
            block,
            pids: stats.pids.current,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_docker_s() {
        let before = Sample { cpu: 1_000, machine: 10_000, cpus: 2, ..Sample::default() };
        let after = Sample { cpu: 2_000, machine: 14_000, cpus: 2, memory: 1, memory_limit: 4, ..Sample::default() };
        assert!((after.cpu_percent(&before) - 50.0).abs() < 1e-9);
        assert!((after.memory_percent() - 25.0).abs() < 1e-9);
        assert!(before.cpu_percent(&after) < 1e-9, "a counter that went back is no use");
    }

    #[test]
    fn files_of_the_kernel() {
        let (time, cpus) = machine("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2\ncpu1 1 2\nintr 5\n");
        assert_eq!((time / (1_000_000_000 / rustix::param::clock_ticks_per_second()), cpus), (28, 2));
        let dev = "Inter-|   Receive\n face |bytes\n    lo: 9 0 0 0 0 0 0 0 9 0\n  eth0: 100 1 0 0 0 0 0 0 200 2 0\n";
        assert_eq!(traffic(dev), (100, 200));
    }

    #[test]
    fn page_cache_does_not_count() {
        let mut memory = hull_cgroup::Memory::default();
        memory.usage.usage = 100;
        memory.raw.insert("inactive_file".to_owned(), 30);
        assert_eq!(used_memory(&memory), 70);
        memory.raw.insert("total_inactive_file".to_owned(), 200);
        assert_eq!(used_memory(&memory), 100);
    }
}
