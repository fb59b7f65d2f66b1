//! Limits as files of the unified hierarchy (cgroup-v2.rst of the kernel's documentation).

use hull_oci::spec::{BlockIo, Resources, ThrottleDevice};

use crate::convert::{self, Setting, or_max};
use crate::error::Error;

/// Compiles limits to writes, in the order to make them.
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
        io(block_io, &mut settings)?;
    }
    for (index, huge) in resources.hugepage_limits.iter().enumerate() {
        let field = format!("hugepageLimits[{index}]");
        if !convert::is_page_size(&huge.page_size) {
            return Err(Error::invalid(
                field + ".pageSize",
                format!("{:?} is not a size such as `2MB`", huge.page_size),
            ));
        }
        settings.push(Setting::new("hugetlb", format!("hugetlb.{}.max", huge.page_size), huge.limit, &field));
        let reserved = format!("hugetlb.{}.rsvd.max", huge.page_size);
        settings.push(Setting::new("hugetlb", reserved, huge.limit, &field).optional_if(true));
    }
    if let Some(network) = &resources.network
        && (network.class_id.is_some_and(|id| id != 0) || !network.priorities.is_empty())
    {
        return Err(v1_only("network", "net_cls and net_prio"));
    }
    rdma(resources, &mut settings)?;
    unified(resources, &mut settings)?;
    Ok(settings)
}

fn v1_only(field: &str, what: &str) -> Error {
    Error::unsupported(field, format!("cgroup v2 has no {what}"))
}

fn cpu(resources: &Resources, settings: &mut Vec<Setting>) -> Result<(), Error> {
    let Some(cpu) = &resources.cpu else { return Ok(()) };
    if cpu.realtime_runtime.is_some_and(|value| value != 0) || cpu.realtime_period.is_some_and(|value| value != 0) {
        return Err(v1_only("cpu.realtimeRuntime", "real-time scheduling limits"));
    }
    if let Some(idle) = cpu.idle {
        if !(0..=1).contains(&idle) {
            return Err(Error::invalid("cpu.idle", format!("{idle} is neither 0 nor 1")));
        }
        settings.push(Setting::new("cpu", "cpu.idle", idle, "cpu.idle").optional_if(idle == 0));
    }
    // The kernel refuses a weight for an idle group.
    if let Some(shares) = cpu.shares.filter(|&shares| shares != 0 && cpu.idle != Some(1)) {
        settings.push(Setting::new("cpu", "cpu.weight", convert::cpu_weight(shares), "cpu.shares"));
    }
    let (quota, period) = (cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0));
    if quota < -1 {
        return Err(Error::invalid("cpu.quota", format!("{quota} is below -1")));
    }
    if quota != 0 || period != 0 {
        let quota = if quota > 0 { quota.to_string() } else { "max".to_owned() };
        let period = if period == 0 { 100_000 } else { period };
        let unlimited = quota == "max";
        settings.push(Setting::new("cpu", "cpu.max", format!("{quota} {period}"), "cpu.quota").optional_if(unlimited));
    }
    if let Some(burst) = cpu.burst {
        settings.push(Setting::new("cpu", "cpu.max.burst", burst, "cpu.burst").optional_if(burst == 0));
    }
    cpuset(&cpu.cpus, &cpu.mems, settings)
}

/// The same files in both versions.
pub(crate) fn cpuset(cpus: &str, mems: &str, settings: &mut Vec<Setting>) -> Result<(), Error> {
    for (list, file, field) in [(cpus, "cpuset.cpus", "cpu.cpus"), (mems, "cpuset.mems", "cpu.mems")] {
        if list.is_empty() {
            continue;
        }
        if !convert::is_list(list) {
            return Err(Error::invalid(field, format!("{list:?} is not a list such as `0-3,7`")));
        }
        settings.push(Setting::new("cpuset", file, list, field));
    }
    Ok(())
}

fn memory(resources: &Resources, settings: &mut Vec<Setting>) -> Result<(), Error> {
    let Some(memory) = &resources.memory else { return Ok(()) };
    if memory.swappiness.is_some_and(|value| value != u64::MAX && value != 60) {
        return Err(v1_only("memory.swappiness", "swappiness of a group"));
    }
    if memory.disable_oom_killer == Some(true) {
        return Err(v1_only("memory.disableOOMKiller", "way to suspend a group instead of killing"));
    }
    for (value, field) in [(memory.kernel, "memory.kernel"), (memory.kernel_tcp, "memory.kernelTCP")] {
        if value.is_some_and(|value| value > 0) {
            return Err(v1_only(field, "separate limit of kernel memory"));
        }
    }
    for (value, field) in [(memory.limit, "memory.limit"), (memory.reservation, "memory.reservation")] {
        if let Some(value) = value.filter(|&value| value < -1) {
            return Err(Error::invalid(field, format!("{value} is below -1")));
        }
    }
    let swap = convert::swap_max(memory.swap, memory.limit).map_err(|reason| Error::invalid("memory.swap", reason))?;
    if let Some(swap) = swap {
        // Without the file the kernel has no swap to limit.
        let harmless = swap == "max" || swap == "0";
        settings.push(Setting::new("memory", "memory.swap.max", swap, "memory.swap").optional_if(harmless));
    }
    if let Some(limit) = memory.limit.filter(|&limit| limit != 0) {
        settings.push(Setting::new("memory", "memory.max", or_max(limit), "memory.limit").optional_if(limit < 0));
    }
    if let Some(low) = memory.reservation.filter(|&low| low != 0) {
        settings.push(Setting::new("memory", "memory.low", or_max(low), "memory.reservation").optional_if(low < 0));
    }
    Ok(())
}

fn io(block_io: &BlockIo, settings: &mut Vec<Setting>) -> Result<(), Error> {
    if block_io.leaf_weight.is_some_and(|weight| weight != 0) {
        return Err(v1_only("blockIO.leafWeight", "leaf weight"));
    }
    if let Some(weight) = block_io.weight.filter(|&weight| weight != 0) {
        check_weight(weight, "blockIO.weight")?;
        let setting = Setting::new("io", "io.weight", convert::io_weight(weight), "blockIO.weight");
        // The BFQ scheduler keeps the old scale.
        settings.push(setting.or("io.bfq.weight", weight));
    }
    for (index, device) in block_io.weight_device.iter().enumerate() {
        let field = format!("blockIO.weightDevice[{index}]");
        if device.leaf_weight.is_some_and(|weight| weight != 0) {
            return Err(v1_only(&field, "leaf weight"));
        }
        if let Some(weight) = device.weight {
            check_weight(weight, &field)?;
            let value = format!("{}:{} {}", device.major, device.minor, convert::io_weight(weight));
            let old = format!("{}:{} {weight}", device.major, device.minor);
            settings.push(Setting::new("io", "io.weight", value, &field).or("io.bfq.weight", old));
        }
    }
    let throttles: [(&[ThrottleDevice], _, _); 4] = [
        (&block_io.throttle_read_bps_device, "rbps", "blockIO.throttleReadBpsDevice"),
        (&block_io.throttle_write_bps_device, "wbps", "blockIO.throttleWriteBpsDevice"),
        (&block_io.throttle_read_iops_device, "riops", "blockIO.throttleReadIOPSDevice"),
        (&block_io.throttle_write_iops_device, "wiops", "blockIO.throttleWriteIOPSDevice"),
    ];
    for (devices, key, field) in throttles {
        for (index, device) in devices.iter().enumerate() {
            let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
            let value = format!("{}:{} {key}={rate}", device.major, device.minor);
            settings.push(Setting::new("io", "io.max", value, &format!("{field}[{index}]")));
        }
    }
    Ok(())
}

pub(crate) fn check_weight(weight: u16, field: &str) -> Result<(), Error> {
    if weight != 0 && !(10..=1000).contains(&weight) {
        return Err(Error::invalid(field, format!("{weight} is not between 10 and 1000")));
    }
    Ok(())
}

/// The same file in both versions.
pub(crate) fn rdma(resources: &Resources, settings: &mut Vec<Setting>) -> Result<(), Error> {
    for (device, limits) in &resources.rdma {
        let field = format!("rdma.{device}");
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(Error::invalid(field, "is not a device name"));
        }
        let mut value = device.clone();
        for (limit, key) in [(limits.hca_handles, "hca_handle"), (limits.hca_objects, "hca_object")] {
            if let Some(limit) = limit {
                value += &format!(" {key}={limit}");
            }
        }
        if value.len() > device.len() {
            settings.push(Setting::new("rdma", "rdma.max", value, &field));
        }
    }
    Ok(())
}

/// The map of raw v2 files, each line of a value on its own.
pub(crate) fn unified(resources: &Resources, settings: &mut Vec<Setting>) -> Result<(), Error> {
    for (file, value) in &resources.unified {
        let field = format!("unified[{file:?}]");
        let controller = file.split_once('.').map_or("", |(controller, _)| controller);
        if controller.is_empty() || file.contains(['/', '\0']) || file.contains("..") {
            return Err(Error::invalid(field, "is not the name of a cgroup v2 file"));
        }
        if matches!(file.as_str(), "cgroup.procs" | "cgroup.threads" | "cgroup.kill" | "cgroup.subtree_control") {
            return Err(Error::invalid(field, "is not a limit"));
        }
        let controller = if controller == "cgroup" { "" } else { controller };
        for line in value.lines().filter(|line| !line.trim().is_empty()) {
            settings.push(Setting::new(controller, file, line, &field));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn lines(json: &str) -> Result<Vec<String>, String> {
        let resources: Resources = serde_json::from_str(json).unwrap();
        let settings = compile(&resources).map_err(|error| error.to_string())?;
        Ok(settings.into_iter().map(|setting| format!("{} {}", setting.file, setting.value)).collect())
    }

    #[test]
    fn values() {
        let json = r#"{"memory":{"limit":536870912,"swap":1073741824,"reservation":1000},
            "cpu":{"quota":150000,"period":100000,"shares":1024,"cpus":"0-1","burst":5},
            "pids":{"limit":0},"hugepageLimits":[{"pageSize":"2MB","limit":4096}],
            "blockIO":{"weight":10,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000},{"major":8,"minor":16,"rate":0}]},
            "unified":{"memory.high":"1000","io.max":"8:0 rbps=1\n8:0 wbps=2\n"}}"#;
        let expected = [
            "cpu.weight 100",
            "cpu.max 150000 100000",
            "cpu.max.burst 5",
            "cpuset.cpus 0-1",
            "memory.swap.max 536870912",
            "memory.max 536870912",
            "memory.low 1000",
            "pids.max 0",
            "io.weight 1",
            "io.max 8:0 rbps=1000",
            "io.max 8:16 rbps=max",
            "hugetlb.2MB.max 4096",
            "hugetlb.2MB.rsvd.max 4096",
            "io.max 8:0 rbps=1",
            "io.max 8:0 wbps=2",
            "memory.high 1000",
        ];
        assert_eq!(lines(json).unwrap(), expected);
    }

    #[test]
    fn unlimited() {
        let json = r#"{"memory":{"limit":-1},"cpu":{"quota":-1},"pids":{"limit":-1}}"#;
        assert_eq!(
            lines(json).unwrap(),
            ["cpu.max max 100000", "memory.swap.max max", "memory.max max", "pids.max max"]
        );
        assert!(
            lines(r#"{"memory":{"limit":0,"swappiness":60,"disableOOMKiller":false},"network":{}}"#)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn refused() {
        for (json, part) in [
            (r#"{"memory":{"swappiness":10}}"#, "memory.swappiness"),
            (r#"{"memory":{"disableOOMKiller":true}}"#, "memory.disableOOMKiller"),
            (r#"{"cpu":{"realtimeRuntime":10}}"#, "cpu.realtimeRuntime"),
            (r#"{"network":{"classID":10}}"#, "network"),
            (r#"{"unified":{"../x.y":"1"}}"#, "unified"),
            (r#"{"unified":{"a/b.c":"1"}}"#, "unified"),
            (r#"{"unified":{"cgroup.procs":"1"}}"#, "unified"),
            (r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":1}]}"#, "hugepageLimits[0].pageSize"),
            (r#"{"cpu":{"cpus":"x"}}"#, "cpu.cpus"),
            (r#"{"pids":{"limit":-7}}"#, "pids.limit"),
            (r#"{"blockIO":{"weight":5}}"#, "blockIO.weight"),
        ] {
            let message = lines(json).expect_err(json);
            assert!(message.contains(part), "{message}");
        }
    }
}
