//! Limits: flags to the specification's resources, with Docker's rules for what fits what.

use hull_oci::spec::{BlockIo, Cpu, DeviceRule, Memory, Pids, Resources, ThrottleDevice, WeightDevice};

use crate::config::{DeviceConfig, Level, Limits, Rate, RunConfig};
use crate::error::Error;
use crate::spec::Context;

/// Tasks of a container unless `--pids-limit` says otherwise: room for large servers, an end for fork bombs.
pub const DEFAULT_PIDS: i64 = 4096;

/// Microseconds in which `--cpus` is counted.
const PERIOD: u64 = 100_000;

/// The resources of a container.
///
/// # Errors
/// [`Error::Flag`] naming the flag that does not fit.
pub fn resources(config: &RunConfig, context: &Context) -> Result<Resources, Error> {
    let limits = &config.limits;
    let pids = match limits.pids {
        None if config.security.level == Level::Compat => -1,
        None => DEFAULT_PIDS,
        // Docker takes 0 for unlimited as well.
        Some(0 | -1) => -1,
        Some(number) if number > 0 => number,
        Some(number) => return Err(Error::flag("--pids-limit", format!("{number}: expected a positive number or -1"))),
    };
    Ok(Resources {
        devices: device_rules(config),
        memory: memory(limits, context.cgroup_v2)?,
        cpu: cpu(limits, context.cpus)?,
        pids: Some(Pids { limit: Some(pids) }),
        block_io: block_io(limits)?,
        ..Resources::default()
    })
}

/// Memory and swap: without `--memory-swap` a container may swap as much as its memory limit.
fn memory(limits: &Limits, cgroup_v2: bool) -> Result<Option<Memory>, Error> {
    if let Some(memory) = limits.memory
        && memory <= 0
    {
        return Err(Error::flag("--memory", "expected more than 0 bytes"));
    }
    let swap = match (limits.memory, limits.memory_swap) {
        (None, None | Some(-1)) => None,
        (None, Some(_)) => {
            return Err(Error::flag(
                "--memory-swap",
                "you should always set the Memory limit when using Memoryswap limit, see usage",
            ));
        }
        (Some(_), Some(-1)) => Some(-1),
        (Some(memory), Some(swap)) if swap >= memory => Some(swap),
        (Some(memory), None | Some(0)) => Some(memory.saturating_mul(2)),
        (Some(memory), Some(swap)) => {
            let reason = "minimum memoryswap limit should be larger than memory limit, see usage";
            return Err(Error::flag("--memory-swap", format!("{reason}; use at least {memory}, not {swap}")));
        }
    };
    if let (Some(memory), Some(reservation)) = (limits.memory, limits.memory_reservation)
        && reservation > memory
    {
        return Err(Error::flag(
            "--memory-reservation",
            format!("{reservation} is more than the memory limit {memory}"),
        ));
    }
    if let Some(swappiness) = limits.memory_swappiness {
        if swappiness > 100 {
            return Err(Error::flag("--memory-swappiness", format!("{swappiness}: expected 0 to 100")));
        }
        if cgroup_v2 {
            return Err(Error::flag("--memory-swappiness", "cgroup v2 has no such setting"));
        }
    }
    if limits.oom_kill_disable && cgroup_v2 {
        return Err(Error::flag("--oom-kill-disable", "cgroup v2 has no such setting"));
    }
    if limits.oom_kill_disable && limits.memory.is_none() {
        return Err(Error::flag("--oom-kill-disable", "would stop the whole machine without --memory"));
    }
    if let Some(score) = limits.oom_score_adj
        && !(-1000..=1000).contains(&score)
    {
        return Err(Error::flag(
            "--oom-score-adj",
            format!("invalid value {score}, range for oom score adj is [-1000, 1000]"),
        ));
    }
    let memory = Memory {
        limit: limits.memory,
        reservation: limits.memory_reservation,
        swap,
        swappiness: limits.memory_swappiness,
        disable_oom_killer: limits.oom_kill_disable.then_some(true),
        ..Memory::default()
    };
    let any = memory.limit.is_some() || memory.reservation.is_some() || memory.swappiness.is_some();
    Ok(any.then_some(memory))
}

fn cpu(limits: &Limits, available: u32) -> Result<Option<Cpu>, Error> {
    let mut cpu = Cpu {
        shares: limits.cpu_shares.filter(|shares| *shares != 0),
        quota: limits.cpu_quota,
        period: limits.cpu_period,
        realtime_runtime: limits.cpu_rt_runtime,
        realtime_period: limits.cpu_rt_period,
        cpus: limits.cpuset_cpus.clone(),
        mems: limits.cpuset_mems.clone(),
        ..Cpu::default()
    };
    if let Some(shares) = cpu.shares
        && !(2..=262_144).contains(&shares)
    {
        return Err(Error::flag("--cpu-shares", format!("{shares}: expected 2 to 262144")));
    }
    if let Some(nanos) = limits.nano_cpus {
        if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
            return Err(Error::flag("--cpus", "conflicts with --cpu-quota and --cpu-period"));
        }
        if nanos > i64::from(available) * 1_000_000_000 {
            return Err(Error::flag(
                "--cpus",
                format!("range of CPUs is from 0.01 to {available}.00, as there are only {available} CPUs available"),
            ));
        }
        cpu.period = Some(PERIOD);
        // Rounded, as Docker's flag is a decimal and 1.15 CPUs are 115000 microseconds.
        cpu.quota = Some((nanos + 5_000) / 10_000);
    }
    if let Some(period) = cpu.period
        && !(1_000..=1_000_000).contains(&period)
    {
        return Err(Error::flag("--cpu-period", format!("{period}: expected 1000 to 1000000 microseconds")));
    }
    if let Some(quota) = cpu.quota
        && quota < 1_000
        && quota != -1
    {
        return Err(Error::flag("--cpu-quota", format!("{quota}: expected at least 1000 microseconds, or -1")));
    }
    if let (Some(runtime), Some(period)) = (cpu.realtime_runtime, cpu.realtime_period)
        && runtime > i64::try_from(period).unwrap_or(i64::MAX)
    {
        return Err(Error::flag("--cpu-rt-runtime", "is more than --cpu-rt-period"));
    }
    let any = cpu.shares.is_some()
        || cpu.quota.is_some()
        || cpu.period.is_some()
        || cpu.realtime_runtime.is_some()
        || cpu.realtime_period.is_some()
        || !cpu.cpus.is_empty()
        || !cpu.mems.is_empty();
    Ok(any.then_some(cpu))
}

fn block_io(limits: &Limits) -> Result<Option<BlockIo>, Error> {
    let weight = limits.blkio_weight.filter(|weight| *weight != 0);
    if let Some(weight) = weight
        && !(10..=1000).contains(&weight)
    {
        return Err(Error::flag("--blkio-weight", format!("{weight}: expected 10 to 1000")));
    }
    let weight_device = limits
        .blkio_weight_device
        .iter()
        .map(|rate| match u16::try_from(rate.value) {
            Ok(weight @ 10..=1000) => Ok(WeightDevice {
                major: i64::from(rate.major),
                minor: i64::from(rate.minor),
                weight: Some(weight),
                leaf_weight: None,
            }),
            _ => Err(Error::flag("--blkio-weight-device", format!("{}: expected 10 to 1000", rate.value))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let throttle = |rates: &[Rate]| -> Vec<ThrottleDevice> {
        let one = |rate: &Rate| ThrottleDevice {
            major: i64::from(rate.major),
            minor: i64::from(rate.minor),
            rate: rate.value,
        };
        rates.iter().map(one).collect()
    };
    let block = BlockIo {
        weight,
        weight_device,
        throttle_read_bps_device: throttle(&limits.read_bps),
        throttle_write_bps_device: throttle(&limits.write_bps),
        throttle_read_iops_device: throttle(&limits.read_iops),
        throttle_write_iops_device: throttle(&limits.write_iops),
        ..BlockIo::default()
    };
    let any = block.weight.is_some()
        || !block.weight_device.is_empty()
        || !block.throttle_read_bps_device.is_empty()
        || !block.throttle_write_bps_device.is_empty()
        || !block.throttle_read_iops_device.is_empty()
        || !block.throttle_write_iops_device.is_empty();
    Ok(any.then_some(block))
}

/// Nothing but the standard devices, any node that may be made but not opened, and what the flags add.
fn device_rules(config: &RunConfig) -> Vec<DeviceRule> {
    if config.security.privileged {
        return vec![DeviceRule { allow: true, access: "rwm".into(), ..DeviceRule::default() }];
    }
    let rule = |allow, kind: &str, major: Option<i64>, minor: Option<i64>, access: &str| DeviceRule {
        allow,
        kind: kind.to_owned(),
        major,
        minor,
        access: access.to_owned(),
    };
    let mut rules = vec![rule(false, "", None, None, "rwm")];
    rules.push(rule(true, "c", None, None, "m"));
    rules.push(rule(true, "b", None, None, "m"));
    // null, zero, full, random, urandom; tty, console, ptmx; pseudo-terminals.
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule(true, "c", Some(major), Some(minor), "rwm"));
    }
    rules.push(rule(true, "c", Some(136), None, "rwm"));
    let of_device = |device: &DeviceConfig| {
        rule(true, &device.kind, Some(i64::from(device.major)), Some(i64::from(device.minor)), &device.access)
    };
    rules.extend(config.devices.iter().map(of_device));
    rules.extend(config.device_rules.iter().map(|one| {
        let kind = if one.kind == "a" { "" } else { one.kind.as_str() };
        rule(true, kind, one.major.map(i64::from), one.minor.map(i64::from), &one.access)
    }));
    rules
}
