//! Scheduler, I/O priority, CPU affinity, execution domain, NUMA policy.

use hull_oci::spec::{CpuAffinity, IoPriority, IoPriorityClass, MemoryPolicy, Personality, Scheduler};
use hull_sys::attributes::{self, SchedAttr};

use super::lists;
use crate::error::Error;
use crate::failure::{Failure, Step};

/// Scheduling policies by name. `SCHED_ISO` has a number but Linux does not implement it.
const POLICIES: [(&str, u32); 6] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const SCHEDULER_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// NUMA modes by name.
const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

const MEMORY_FLAGS: [(&str, u32); 3] =
    [("MPOL_F_STATIC_NODES", 1 << 15), ("MPOL_F_RELATIVE_NODES", 1 << 14), ("MPOL_F_NUMA_BALANCING", 1 << 13)];

fn lookup<T: Copy>(field: &str, name: &str, table: &[(&str, T)]) -> Result<T, Error> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = table.iter().map(|(known, _)| *known).collect();
        Error::config(field, format!("{name:?} is not one of {}", known.join(", ")))
    })
}

/// Attributes of the kernel's schedulers and memory policy.
#[derive(Debug, Default)]
pub(super) struct Scheduling {
    scheduler: Option<SchedAttr>,
    io_priority: Option<(u16, u16)>,
    personality: Option<u32>,
    memory_policy: Option<(u32, Vec<u64>)>,
    /// Affinity while joining the cgroup.
    initial: Vec<u64>,
    /// Affinity of the program.
    last: Vec<u64>,
}

impl Scheduling {
    pub(super) fn new(
        scheduler: Option<&Scheduler>,
        io_priority: Option<&IoPriority>,
        affinity: Option<&CpuAffinity>,
    ) -> Result<Self, Error> {
        let list = |part: &str, list: Option<&String>| {
            lists::parse(&format!("process.execCPUAffinity.{part}"), list.map_or("", String::as_str))
        };
        Ok(Self {
            scheduler: scheduler.map(scheduler_attributes).transpose()?,
            io_priority: io_priority.map(io_level).transpose()?,
            personality: None,
            memory_policy: None,
            initial: list("initial", affinity.map(|affinity| &affinity.initial))?,
            last: list("final", affinity.map(|affinity| &affinity.last))?,
        })
    }

    /// What one process can do for another: scheduler and I/O priority. `pid` 0 is the caller.
    pub(super) fn apply_to(&self, pid: i32) -> Result<(), Failure> {
        if let Some(scheduler) = &self.scheduler {
            attributes::sched_setattr(pid, scheduler).map_err(|errno| Failure::new(Step::Scheduler, errno))?;
        }
        if let Some((class, level)) = self.io_priority {
            attributes::ioprio_set(pid, class, level).map_err(|errno| Failure::new(Step::IoPriority, errno))?;
        }
        Ok(())
    }

    /// What a process can do for itself only. Of the affinities, that for the time of joining the cgroup.
    pub(super) fn apply_own(&self) -> Result<(), Failure> {
        if let Some(domain) = self.personality {
            attributes::personality(domain).map_err(|errno| Failure::new(Step::Personality, errno))?;
        }
        if let Some((mode, nodes)) = &self.memory_policy {
            attributes::set_mempolicy(*mode, nodes).map_err(|errno| Failure::new(Step::MemoryPolicy, errno))?;
        }
        affinity(&self.initial)
    }

    /// The program's affinity, once the process is in the container's cgroup.
    pub(super) fn apply_final_affinity(&self) -> Result<(), Failure> {
        affinity(&self.last)
    }

    pub(super) fn forget_affinity(&mut self) {
        (self.initial, self.last) = (Vec::new(), Vec::new());
    }

    pub(super) fn set_linux(
        &mut self,
        personality: Option<&Personality>,
        memory_policy: Option<&MemoryPolicy>,
    ) -> Result<(), Error> {
        self.personality = personality.map(domain).transpose()?;
        self.memory_policy = memory_policy.map(policy).transpose()?;
        Ok(())
    }
}

fn affinity(mask: &[u64]) -> Result<(), Failure> {
    if mask.is_empty() {
        return Ok(());
    }
    attributes::sched_setaffinity(0, mask).map_err(|errno| Failure::new(Step::Affinity, errno))
}

fn scheduler_attributes(wanted: &Scheduler) -> Result<SchedAttr, Error> {
    let field = |part: &str| format!("process.scheduler.{part}");
    if wanted.policy == "SCHED_ISO" {
        return Err(Error::unsupported(field("policy"), "Linux does not implement SCHED_ISO"));
    }
    let policy = lookup(&field("policy"), &wanted.policy, &POLICIES)?;
    let mut flags = 0;
    for flag in &wanted.flags {
        flags |= lookup(&field("flags"), flag, &SCHEDULER_FLAGS)?;
    }
    let refuse = |part: &str, expected: &str| Err(Error::config(field(part), expected));
    let priority = u32::try_from(wanted.priority).unwrap_or(u32::MAX);
    match wanted.policy.as_str() {
        "SCHED_FIFO" | "SCHED_RR" if !(1..=99).contains(&priority) => {
            return refuse("priority", "expected 1 to 99 for a real-time policy");
        }
        "SCHED_FIFO" | "SCHED_RR" => {}
        _ if priority != 0 => return refuse("priority", "only SCHED_FIFO and SCHED_RR have a priority"),
        _ => {}
    }
    if !(-20..=19).contains(&wanted.nice) {
        return refuse("nice", "expected -20 to 19");
    }
    if policy == 6 {
        let ordered = wanted.runtime > 0
            && wanted.runtime <= wanted.deadline
            && (wanted.period == 0 || wanted.deadline <= wanted.period);
        if !ordered {
            return refuse("deadline", "SCHED_DEADLINE needs 0 < runtime <= deadline <= period");
        }
    } else if wanted.runtime != 0 || wanted.deadline != 0 || wanted.period != 0 {
        return refuse("runtime", "runtime, deadline and period belong to SCHED_DEADLINE");
    }
    let mut attributes = SchedAttr::default();
    (attributes.policy, attributes.flags) = (policy, flags);
    (attributes.nice, attributes.priority) = (wanted.nice, priority);
    (attributes.runtime, attributes.deadline, attributes.period) = (wanted.runtime, wanted.deadline, wanted.period);
    // The document has no value for the clamps: these leave the range as it is.
    (attributes.util_min, attributes.util_max) = (0, 1024);
    Ok(attributes)
}

fn io_level(wanted: &IoPriority) -> Result<(u16, u16), Error> {
    let class = match wanted.class {
        IoPriorityClass::RealTime => 1,
        IoPriorityClass::BestEffort => 2,
        IoPriorityClass::Idle => 3,
    };
    match u16::try_from(wanted.priority) {
        Ok(level @ 0..=7) => Ok((class, level)),
        _ => Err(Error::config("process.ioPriority.priority", format!("expected 0 to 7, found {}", wanted.priority))),
    }
}

fn domain(wanted: &Personality) -> Result<u32, Error> {
    if let Some(flag) = wanted.flags.first() {
        let reason = format!("{flag:?}: the specification defines no flags");
        return Err(Error::unsupported("linux.personality.flags", reason));
    }
    let domains = [("LINUX", attributes::PER_LINUX), ("LINUX32", attributes::PER_LINUX32)];
    lookup("linux.personality.domain", &wanted.domain, &domains)
}

fn policy(wanted: &MemoryPolicy) -> Result<(u32, Vec<u64>), Error> {
    let mode = lookup("linux.memoryPolicy.mode", &wanted.mode, &MEMORY_MODES)?;
    let mut flags = 0;
    for flag in &wanted.flags {
        flags |= lookup("linux.memoryPolicy.flags", flag, &MEMORY_FLAGS)?;
    }
    let nodes = lists::parse("linux.memoryPolicy.nodes", &wanted.nodes)?;
    let (without, either) = (matches!(mode, 0 | 4), mode == 1);
    if without && !nodes.is_empty() {
        return Err(Error::config("linux.memoryPolicy.nodes", format!("{} takes no nodes", wanted.mode)));
    }
    if !without && !either && nodes.is_empty() {
        return Err(Error::config("linux.memoryPolicy.nodes", format!("{} needs nodes", wanted.mode)));
    }
    let exclusive = (1 << 15) | (1 << 14);
    if flags & exclusive == exclusive {
        let reason = "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other";
        return Err(Error::config("linux.memoryPolicy.flags", reason));
    }
    if flags & exclusive != 0 && nodes.is_empty() {
        return Err(Error::config("linux.memoryPolicy.flags", "static or relative nodes without nodes"));
    }
    if flags & (1 << 13) != 0 && !matches!(mode, 2 | 5) {
        let reason = "MPOL_F_NUMA_BALANCING goes with MPOL_BIND and MPOL_PREFERRED_MANY";
        return Err(Error::config("linux.memoryPolicy.flags", reason));
    }
    Ok((mode | flags, nodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler(policy: &str, change: impl FnOnce(&mut Scheduler)) -> Result<SchedAttr, Error> {
        let mut wanted = Scheduler { policy: policy.into(), ..Scheduler::default() };
        change(&mut wanted);
        scheduler_attributes(&wanted)
    }

    #[test]
    fn schedulers_are_translated() {
        let attributes = scheduler("SCHED_FIFO", |wanted| wanted.priority = 10).unwrap();
        assert_eq!((attributes.policy, attributes.priority), (1, 10));
        let attributes = scheduler("SCHED_DEADLINE", |wanted| {
            (wanted.runtime, wanted.deadline, wanted.period) = (1, 2, 3);
            wanted.flags = vec!["SCHED_FLAG_RESET_ON_FORK".into(), "SCHED_FLAG_RECLAIM".into()];
        })
        .unwrap();
        assert_eq!((attributes.policy, attributes.flags, attributes.period), (6, 3, 3));
    }

    #[test]
    fn wrong_schedulers_are_refused() {
        let wrong = [
            scheduler("", |_| ()),
            scheduler("SCHED_ISO", |_| ()),
            scheduler("SCHED_FIFO", |_| ()),
            scheduler("SCHED_RR", |wanted| wanted.priority = 100),
            scheduler("SCHED_OTHER", |wanted| wanted.priority = -1),
            scheduler("SCHED_OTHER", |wanted| wanted.nice = 20),
            scheduler("SCHED_BATCH", |wanted| wanted.period = 1),
            scheduler("SCHED_DEADLINE", |wanted| wanted.deadline = 1),
            scheduler("SCHED_OTHER", |wanted| wanted.flags = vec!["SCHED_FLAG_X".into()]),
        ];
        for (index, result) in wrong.into_iter().enumerate() {
            assert!(result.is_err(), "{index}");
        }
    }

    #[test]
    fn memory_policies_are_checked() {
        let make = |mode: &str, nodes: &str, flags: &[&str]| {
            policy(&MemoryPolicy {
                mode: mode.into(),
                nodes: nodes.into(),
                flags: flags.iter().map(ToString::to_string).collect(),
            })
        };
        assert_eq!(make("MPOL_DEFAULT", "", &[]).unwrap(), (0, vec![]));
        assert_eq!(make("MPOL_PREFERRED", "", &[]).unwrap(), (1, vec![]));
        assert_eq!(make("MPOL_BIND", "0-1", &["MPOL_F_STATIC_NODES"]).unwrap(), (2 | 1 << 15, vec![3]));
        for (mode, nodes, flags) in [
            ("MPOL_NOPE", "0", &[][..]),
            ("MPOL_BIND", "", &[]),
            ("MPOL_DEFAULT", "0", &[]),
            ("MPOL_LOCAL", "0", &[]),
            ("MPOL_BIND", "0", &["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]),
            ("MPOL_INTERLEAVE", "0", &["MPOL_F_NUMA_BALANCING"]),
            ("MPOL_PREFERRED", "", &["MPOL_F_STATIC_NODES"]),
            ("MPOL_BIND", "x", &[]),
        ] {
            assert!(make(mode, nodes, flags).is_err(), "{mode} {nodes} {flags:?}");
        }
    }

    #[test]
    fn io_priority_and_personality_are_checked() {
        let wanted = |priority| IoPriority { class: IoPriorityClass::RealTime, priority };
        assert_eq!(io_level(&wanted(7)).unwrap(), (1, 7));
        assert!(io_level(&wanted(8)).is_err() && io_level(&wanted(-1)).is_err());
        let persona = |domain: &str| Personality { domain: domain.into(), flags: Vec::new() };
        assert_eq!(domain(&persona("LINUX32")).unwrap(), 8);
        assert!(domain(&persona("linux")).is_err());
    }
}
