//! `GET /containers/ID/top` and `stats`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hull_engine::stats::Counters;
use hull_engine::{Container, Engine};
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn top(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let container = api.container(request.param("id"))?;
    super::running(&api.engine, &container)?;
    let words: Vec<String> = request.query.text("ps_args").split_whitespace().map(str::to_owned).collect();
    if words.iter().any(|word| word.contains('\0')) {
        return Err(Refusal::bad("invalid ps_args: a null byte is in it"));
    }
    let found = api.engine.processes(&container, &words)?;
    Ok(Reply::json(200, &json!({ "Titles": found.titles, "Processes": found.rows })))
}

const NEVER: &str = "0001-01-01T00:00:00Z";

/// One moment of a container.
struct Sample {
    read: String,
    counters: Option<Counters>,
}

impl Sample {
    fn take(engine: &Engine, container: &Container) -> Self {
        let read = hull_oci::time::rfc3339_nanos(SystemTime::now());
        // One that has just ended uses nothing.
        Self { read, counters: engine.counters(container).ok().flatten() }
    }

    fn none() -> Self {
        Self { read: NEVER.to_owned(), counters: None }
    }

    fn cpu(&self) -> Value {
        let Some(counters) = &self.counters else {
            return json!({
                "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 },
                "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
            });
        };
        let cpu = &counters.cgroup.cpu;
        let mut usage = json!({
            "total_usage": cpu.usage.total,
            "usage_in_kernelmode": cpu.usage.kernel,
            "usage_in_usermode": cpu.usage.user,
        });
        if !cpu.usage.percpu.is_empty() {
            usage["percpu_usage"] = json!(cpu.usage.percpu);
        }
        json!({
            "cpu_usage": usage,
            "system_cpu_usage": counters.machine.0,
            "online_cpus": counters.machine.1,
            "throttling_data": {
                "periods": cpu.throttling.periods,
                "throttled_periods": cpu.throttling.throttled_periods,
                "throttled_time": cpu.throttling.throttled_time,
            },
        })
    }
}

fn document(container: &Container, before: &Sample, now: &Sample) -> Value {
    let mut document = json!({
        "name": format!("/{}", container.name),
        "id": container.id,
        "read": now.read,
        "preread": before.read,
        "pids_stats": {},
        "blkio_stats": {
            "io_service_bytes_recursive": null, "io_serviced_recursive": null, "io_queue_recursive": null,
            "io_service_time_recursive": null, "io_wait_time_recursive": null, "io_merged_recursive": null,
            "io_time_recursive": null, "sectors_recursive": null,
        },
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": now.cpu(),
        "precpu_stats": before.cpu(),
        "memory_stats": {},
    });
    let Some(counters) = &now.counters else { return document };
    let cgroup = &counters.cgroup;
    let mut pids = json!({ "current": cgroup.pids.current });
    if cgroup.pids.limit > 0 {
        pids["limit"] = cgroup.pids.limit.into();
    }
    document["pids_stats"] = pids;
    let entries = |list: &[hull_cgroup::BlkioEntry]| -> Value {
        list.iter()
            .map(|one| json!({ "major": one.major, "minor": one.minor, "op": one.op, "value": one.value }))
            .collect()
    };
    document["blkio_stats"]["io_service_bytes_recursive"] = entries(&cgroup.blkio.io_service_bytes_recursive);
    document["blkio_stats"]["io_serviced_recursive"] = entries(&cgroup.blkio.io_serviced_recursive);
    let memory = &cgroup.memory;
    document["memory_stats"] = json!({
        "usage": memory.usage.usage,
        "stats": memory.raw,
        "limit": counters.memory_limit,
    });
    if memory.usage.max > 0 {
        document["memory_stats"]["max_usage"] = memory.usage.max.into();
    }
    if !counters.network.is_empty() {
        let mut networks = Map::new();
        for (name, numbers) in &counters.network {
            let number = |index: usize| numbers.get(index).copied().unwrap_or(0);
            networks.insert(
                name.clone(),
                json!({
                    "rx_bytes": number(0), "rx_packets": number(1), "rx_errors": number(2), "rx_dropped": number(3),
                    "tx_bytes": number(8), "tx_packets": number(9), "tx_errors": number(10), "tx_dropped": number(11),
                }),
            );
        }
        document["networks"] = Value::Object(networks);
    }
    document
}

pub(super) fn stats(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let container = api.container(request.param("id"))?;
    let stream_wanted = request.query.truth_or("stream", true);
    let one_shot = request.query.truth("one-shot");
    if one_shot && stream_wanted {
        return Err(Refusal::bad("cannot have stream=true and one-shot=true"));
    }
    let api = Arc::clone(api);
    Ok(Reply::stream("application/json", move |stream| {
        let engine = &api.engine;
        let mut before = Sample::none();
        if one_shot {
            return stream.line(&document(&container, &before, &Sample::take(engine, &container)));
        }
        let mut now = Sample::take(engine, &container);
        if !stream_wanted {
            // The share of a processor needs two moments; one that does not run uses none.
            if now.counters.is_some() {
                if !stream.pause(INTERVAL) {
                    return Ok(());
                }
                before = std::mem::replace(&mut now, Sample::take(engine, &container));
            }
            return stream.line(&document(&container, &before, &now));
        }
        loop {
            stream.line(&document(&container, &before, &now))?;
            if !stream.pause(INTERVAL) || engine.container(&container.id).is_err() {
                return Ok(());
            }
            before = std::mem::replace(&mut now, Sample::take(engine, &container));
        }
    }))
}
