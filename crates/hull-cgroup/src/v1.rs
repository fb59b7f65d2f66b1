//! Limits as files of the v1 hierarchies (cgroup-v1 of the kernel's documentation).
//!
//! Where one value bounds another (memory and memory with swap, quota and period), the order that works depends on the
//! present values: the writer tries a refused value again after the others of its controller.

use hull_oci::spec::{BlockIo, Resources, ThrottleDevice};

use crate::convert::{self, Setting, or_max};
use crate::error::Error;
use crate::v2;

/// Compiles limits to writes. `unified` is left to the caller, who knows what the unified hierarchy has.
pub(crate) fn compile(resources: &Resources) -> Result<Vec<Setting>, Error> {
    let mut settings = Vec::new();
    cpu(resources, &mut settings)?;
    memory(resources, &mut settings)?;
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        if limit < -1 {
            return Err(Error::invalid("pids.limit", format!("{limit} is below -1")));
        }
        settings.push(Setting::new("pids", "pids.max", or_max(limit), "pids.limit").optional_if(limit < 0));
    }
    if let Some(block_io) = &resources.block_io {
        blkio(block_io, &mut settings)?;
    }
    for (index, huge) in resources.hugepage_limits.iter().enumerate() {
        let field = format!("hugepageLimits[{index}]");
        let size = &huge.page_size;
        if !convert::is_page_size(size) {
            return Err(Error::invalid(field + ".pageSize", format!("{size:?} is not a size such as `2MB`")));
        }
        settings.push(Setting::new("hugetlb", format!("hugetlb.{size}.limit_in_bytes"), huge.limit, &field));
        let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
        settings.push(Setting::new("hugetlb", reserved, huge.limit, &field).optional_if(true));
    }
    if let Some(network) = &resources.network {
        if let Some(class) = network.class_id.filter(|&class| class != 0) {
            settings.push(Setting::new("net_cls", "net_cls.classid", class, "network.classID"));
        }
        for (index, interface) in network.priorities.iter().enumerate() {
            let value = format!("{} {}", interface.name, interface.priority);
            let field = format!("network.priorities[{index}]");
            if interface.name.is_empty() || interface.name.contains(char::is_whitespace) {
                return Err(Error::invalid(field, "is not an interface name"));
            }
            settings.push(Setting::new("net_prio", "net_prio.ifpriomap", value, &field));
        }
    }
    v2::rdma(resources, &mut settings)?;
    Ok(settings)
}

fn cpu(resources: &Resources, settings: &mut Vec<Setting>) -> Result<(), Error> {
    let Some(cpu) = &resources.cpu else { return Ok(()) };
    if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
        settings.push(Setting::new("cpu", "cpu.shares", shares, "cpu.shares"));
    }
    if let Some(idle) = cpu.idle {
        settings.push(Setting::new("cpu", "cpu.idle", idle, "cpu.idle").optional_if(idle == 0));
    }
    if let Some(period) = cpu.period.filter(|&period| period != 0) {
        settings.push(Setting::new("cpu", "cpu.cfs_period_us", period, "cpu.period"));
    }
    if let Some(quota) = cpu.quota.filter(|&quota| quota != 0) {
        if quota < -1 {
            return Err(Error::invalid("cpu.quota", format!("{quota} is below -1")));
        }
        settings.push(Setting::new("cpu", "cpu.cfs_quota_us", quota, "cpu.quota").optional_if(quota < 0));
    }
    if let Some(burst) = cpu.burst {
        settings.push(Setting::new("cpu", "cpu.cfs_burst_us", burst, "cpu.burst").optional_if(burst == 0));
    }
    if let Some(period) = cpu.realtime_period.filter(|&period| period != 0) {
        settings.push(Setting::new("cpu", "cpu.rt_period_us", period, "cpu.realtimePeriod"));
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|&runtime| runtime != 0) {
        settings.push(Setting::new("cpu", "cpu.rt_runtime_us", runtime, "cpu.realtimeRuntime"));
    }
    v2::cpuset(&cpu.cpus, &cpu.mems, settings)
}

fn memory(resources: &Resources, settings: &mut Vec<Setting>) -> Result<(), Error> {
    let Some(memory) = &resources.memory else { return Ok(()) };
    if let Some(limit) = memory.limit.filter(|&limit| limit > 0)
        && memory.swap.is_some_and(|swap| swap > 0 && swap < limit)
    {
        return Err(Error::invalid(
            "memory.swap",
            format!("is below `memory.limit` {limit}; it counts memory and swap"),
        ));
    }
    // Lifting the limit without a word on swap lifts both: the old sum would stay a limit otherwise.
    let swap = memory.swap.filter(|&swap| swap != 0).or(memory.limit.filter(|&limit| limit == -1));
    for (value, file, field) in [
        (memory.limit, "memory.limit_in_bytes", "memory.limit"),
        (swap, "memory.memsw.limit_in_bytes", "memory.swap"),
        (memory.reservation, "memory.soft_limit_in_bytes", "memory.reservation"),
        (memory.kernel, "memory.kmem.limit_in_bytes", "memory.kernel"),
        (memory.kernel_tcp, "memory.kmem.tcp.limit_in_bytes", "memory.kernelTCP"),
    ] {
        let Some(value) = value.filter(|&value| value != 0) else { continue };
        if value < -1 {
            return Err(Error::invalid(field, format!("{value} is below -1")));
        }
        settings.push(Setting::new("memory", file, value, field).optional_if(value < 0));
    }
    if let Some(value) = memory.swappiness.filter(|&value| value != u64::MAX) {
        if value > 100 {
            return Err(Error::invalid("memory.swappiness", format!("{value} is not between 0 and 100")));
        }
        settings.push(Setting::new("memory", "memory.swappiness", value, "memory.swappiness"));
    }
    if let Some(disable) = memory.disable_oom_killer {
        let value = u8::from(disable);
        let setting = Setting::new("memory", "memory.oom_control", value, "memory.disableOOMKiller");
        settings.push(setting.optional_if(!disable));
    }
    if let Some(value) = memory.use_hierarchy {
        // Only `true` is possible since Linux 5.11; before, a child of a hierarchical group has it anyway.
        let setting = Setting::new("memory", "memory.use_hierarchy", u8::from(value), "memory.useHierarchy");
        settings.push(setting.optional_if(value));
    }
    Ok(())
}

fn blkio(block_io: &BlockIo, settings: &mut Vec<Setting>) -> Result<(), Error> {
    for (weight, file, field) in [
        (block_io.weight, "blkio.weight", "blockIO.weight"),
        (block_io.leaf_weight, "blkio.leaf_weight", "blockIO.leafWeight"),
    ] {
        if let Some(weight) = weight.filter(|&weight| weight != 0) {
            v2::check_weight(weight, field)?;
            let setting = Setting::new("blkio", file, weight, field);
            settings.push(if file == "blkio.weight" { setting.or("blkio.bfq.weight", weight) } else { setting });
        }
    }
    for (index, device) in block_io.weight_device.iter().enumerate() {
        let field = format!("blockIO.weightDevice[{index}]");
        for (weight, file) in [(device.weight, "blkio.weight_device"), (device.leaf_weight, "blkio.leaf_weight_device")]
        {
            if let Some(weight) = weight {
                v2::check_weight(weight, &field)?;
                let value = format!("{}:{} {weight}", device.major, device.minor);
                let setting = Setting::new("blkio", file, &value, &field);
                let bfq = file == "blkio.weight_device";
                settings.push(if bfq { setting.or("blkio.bfq.weight_device", value) } else { setting });
            }
        }
    }
    let throttles: [(&[ThrottleDevice], _, _); 4] = [
        (&block_io.throttle_read_bps_device, "read_bps", "blockIO.throttleReadBpsDevice"),
        (&block_io.throttle_write_bps_device, "write_bps", "blockIO.throttleWriteBpsDevice"),
        (&block_io.throttle_read_iops_device, "read_iops", "blockIO.throttleReadIOPSDevice"),
        (&block_io.throttle_write_iops_device, "write_iops", "blockIO.throttleWriteIOPSDevice"),
    ];
    for (devices, key, field) in throttles {
        for (index, device) in devices.iter().enumerate() {
            let value = format!("{}:{} {}", device.major, device.minor, device.rate);
            let file = format!("blkio.throttle.{key}_device");
            settings.push(Setting::new("blkio", file, value, &format!("{field}[{index}]")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(json: &str) -> Result<Vec<String>, String> {
        let resources: Resources = serde_json::from_str(json).unwrap();
        let settings = compile(&resources).map_err(|error| error.to_string())?;
        Ok(settings.into_iter().map(|setting| format!("{} {}", setting.file, setting.value)).collect())
    }

    #[test]
    fn values() {
        let json = r#"{"memory":{"limit":536870912,"swap":1073741824,"swappiness":0,"useHierarchy":true},
            "cpu":{"quota":150000,"period":100000,"shares":2,"realtimeRuntime":7},"pids":{"limit":-1},
            "blockIO":{"weight":10,"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":9}]},
            "network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]},
            "rdma":{"mlx5_1":{"hcaHandles":3}}}"#;
        let expected = [
            "cpu.shares 2",
            "cpu.cfs_period_us 100000",
            "cpu.cfs_quota_us 150000",
            "cpu.rt_runtime_us 7",
            "memory.limit_in_bytes 536870912",
            "memory.memsw.limit_in_bytes 1073741824",
            "memory.swappiness 0",
            "memory.use_hierarchy 1",
            "pids.max max",
            "blkio.weight 10",
            "blkio.throttle.write_iops_device 8:0 9",
            "net_cls.classid 1048577",
            "net_prio.ifpriomap eth0 5",
            "rdma.max mlx5_1 hca_handle=3",
        ];
        assert_eq!(lines(json).unwrap(), expected);
        let lifted = lines(r#"{"memory":{"limit":-1}}"#).unwrap();
        assert_eq!(lifted, ["memory.limit_in_bytes -1", "memory.memsw.limit_in_bytes -1"]);
    }

    #[test]
    fn refused() {
        assert!(lines(r#"{"memory":{"swappiness":101}}"#).unwrap_err().contains("memory.swappiness"));
        assert!(lines(r#"{"memory":{"limit":100,"swap":50}}"#).unwrap_err().contains("memory.swap"));
        assert!(lines(r#"{"network":{"priorities":[{"name":"a b","priority":1}]}}"#).is_err());
    }
}
