//! `update`: other limits and another restart policy for a container that exists, at once if it runs.

use hull_oci::spec::Resources;
use hull_runtime::lifecycle::{self, IntelRdtUpdate};

use crate::config::{Limits, RestartPolicy};
use crate::error::Error;
use crate::records::{Container, Engine, Phase};
use crate::spec::{self, Context};
use crate::{events, machine};

/// What is to change; what is absent, empty or zero stays.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Limits.
    pub limits: Limits,
    /// Restart policy.
    pub restart: Option<RestartPolicy>,
}

/// The limits after the changes, by Docker's rules of what fits what.
fn merge(old: &Limits, new: &Limits) -> Result<Limits, Error> {
    let mut merged = old.clone();
    if new.nano_cpus.is_some() && (old.cpu_quota.is_some() || old.cpu_period.is_some()) {
        let reason = "conflicting options: NanoCPUs cannot be updated as CPU Quota or CPU Period has already been set";
        return Err(Error::flag("--cpus", reason));
    }
    if old.nano_cpus.is_some() {
        for (flag, name, given) in
            [("--cpu-quota", "Quota", new.cpu_quota.is_some()), ("--cpu-period", "Period", new.cpu_period.is_some())]
        {
            if given {
                let reason =
                    format!("conflicting options: CPU {name} cannot be updated as NanoCPUs has already been set");
                return Err(Error::flag(flag, reason));
            }
        }
    }
    let set_swap = match (old.memory, old.memory_swap) {
        (Some(memory), None | Some(0)) => Some(memory.saturating_mul(2)),
        (_, swap) => swap,
    };
    if let Some(memory) = new.memory {
        // Changing the one limit does not change the other behind the user's back.
        match (new.memory_swap, set_swap) {
            (None, Some(swap)) if swap > 0 && memory > swap => {
                let reason = "memory limit should be smaller than already set memoryswap limit, update the memoryswap \
                              at the same time";
                return Err(Error::flag("--memory", reason));
            }
            (None, swap) => merged.memory_swap = swap,
            (given, _) => merged.memory_swap = given,
        }
        merged.memory = Some(memory);
    } else if new.memory_swap.is_some() {
        merged.memory_swap = new.memory_swap;
    }
    merged.memory_reservation = new.memory_reservation.or(merged.memory_reservation);
    merged.nano_cpus = new.nano_cpus.or(merged.nano_cpus);
    merged.cpu_shares = new.cpu_shares.or(merged.cpu_shares);
    merged.cpu_quota = new.cpu_quota.or(merged.cpu_quota);
    merged.cpu_period = new.cpu_period.or(merged.cpu_period);
    merged.cpu_rt_runtime = new.cpu_rt_runtime.or(merged.cpu_rt_runtime);
    merged.cpu_rt_period = new.cpu_rt_period.or(merged.cpu_rt_period);
    merged.pids = new.pids.or(merged.pids);
    merged.blkio_weight = new.blkio_weight.or(merged.blkio_weight);
    for (place, value) in [(&mut merged.cpuset_cpus, &new.cpuset_cpus), (&mut merged.cpuset_mems, &new.cpuset_mems)] {
        if !value.is_empty() {
            place.clone_from(value);
        }
    }
    Ok(merged)
}

/// Of all limits those that were named: the others are the kernel's already.
fn named(all: Resources, new: &Limits) -> Resources {
    let memory = new.memory.is_some() || new.memory_swap.is_some() || new.memory_reservation.is_some();
    let cpu = new.nano_cpus.is_some()
        || new.cpu_shares.is_some()
        || new.cpu_quota.is_some()
        || new.cpu_period.is_some()
        || new.cpu_rt_runtime.is_some()
        || new.cpu_rt_period.is_some()
        || !new.cpuset_cpus.is_empty()
        || !new.cpuset_mems.is_empty();
    Resources {
        memory: all.memory.filter(|_| memory),
        cpu: all.cpu.filter(|_| cpu),
        pids: all.pids.filter(|_| new.pids.is_some()),
        block_io: all.block_io.filter(|_| new.blkio_weight.is_some()),
        ..Resources::default()
    }
}

impl Engine {
    /// Changes limits and restart policy of a container, in its record and, if it runs, in its control groups.
    ///
    /// # Errors
    /// [`Error::Flag`] for what does not fit, [`Error::Cgroup`] for what the kernel refuses; the record is unchanged
    /// then.
    pub fn update(&self, container: &Container, changes: &Changes) -> Result<(), Error> {
        let _lock = self.lock(&container.id)?;
        let mut changed = self.container(&container.id)?;
        let state = self.state(&container.id)?;
        if changed.config.remove && changes.restart.is_some_and(|policy| policy != RestartPolicy::No) {
            let reason = "Restart policy cannot be updated because AutoRemove is enabled for the container";
            return Err(Error::Refused(format!("cannot update container {}: {reason}", changed.id)));
        }
        changed.config.limits = merge(&changed.config.limits, &changes.limits)?;
        changed.config.restart = changes.restart.unwrap_or(changed.config.restart);
        let mut context = Context::default();
        machine::probe(&changed.config, &mut context)?;
        let resources = named(spec::resources(&changed.config, &context)?, &changes.limits);
        let any = resources.memory.is_some() || resources.cpu.is_some() || resources.pids.is_some();
        if state.phase == Phase::Running && (any || resources.block_io.is_some()) {
            lifecycle::update(&self.oci_root(), &container.id, &resources, &IntelRdtUpdate::default())?;
        }
        self.save_container(&changed)?;
        events::emit(self, &changed, "update", &[]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_merge_by_docker_s_rules() {
        let old = Limits { memory: Some(64), ..Limits::default() };
        let with = |new: Limits| merge(&old, &new).map_err(|error| error.to_string());
        let merged = with(Limits { memory: Some(100), ..Limits::default() }).unwrap();
        assert_eq!((merged.memory, merged.memory_swap), (Some(100), Some(128)));
        let error = with(Limits { memory: Some(200), ..Limits::default() }).unwrap_err();
        assert!(error.contains("already set memoryswap"), "{error}");
        let merged = with(Limits { memory: Some(200), memory_swap: Some(-1), ..Limits::default() }).unwrap();
        assert_eq!(merged.memory_swap, Some(-1));
        let old = Limits { nano_cpus: Some(1), ..Limits::default() };
        let error = merge(&old, &Limits { cpu_quota: Some(5000), ..Limits::default() }).unwrap_err().to_string();
        assert!(error.contains("NanoCPUs has already been set"), "{error}");
    }
}
