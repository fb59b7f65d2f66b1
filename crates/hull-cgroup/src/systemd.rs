//! Transient scopes of systemd (org.freedesktop.systemd1(5), systemd.resource-control(5)).
//!
//! systemd makes the group and keeps the main limits, so that a `daemon-reload` does not undo them; whatever has no
//! property is written to the group's files afterwards, which `Delegate=yes` permits.

use hull_oci::spec::Resources;
use serde::{Deserialize, Serialize};

use crate::convert;
use crate::dbus::wire::{Encoder, Value};
use crate::dbus::{Connection, failed};
use crate::devices::Rules;
use crate::error::Error;

/// A scope (or a slice that serves as one).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    pub(crate) slice: String,
    pub(crate) name: String,
}

type Properties = Vec<(&'static str, Value)>;

impl Unit {
    /// From `slice:prefix:name`; empty means the default slice, `hull` and the container's ID.
    pub(crate) fn parse(path: &str, id: &str, rootless: bool) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Path { path: path.to_owned(), reason };
        let default = if rootless { "user.slice" } else { "system.slice" };
        let parts: Vec<&str> = if path.is_empty() { vec![default, "hull", id] } else { path.split(':').collect() };
        let &[slice, prefix, name] = parts.as_slice() else {
            return Err(wrong("does not have the form `slice:prefix:name`, which the systemd driver needs".to_owned()));
        };
        let slice = if slice.is_empty() { default } else { slice };
        expand(slice).ok_or_else(|| wrong(format!("{slice:?} is not the name of a slice")))?;
        let unit = match (name.ends_with(".slice"), prefix) {
            (true, _) => name.to_owned(),
            (false, "") => format!("{name}.scope"),
            (false, prefix) => format!("{prefix}-{name}.scope"),
        };
        let permitted = |byte: u8| byte.is_ascii_alphanumeric() || b":_.\\@-".contains(&byte);
        if name.is_empty() || unit.len() > 255 || !unit.bytes().all(permitted) || unit.starts_with('.') {
            return Err(wrong(format!("{unit:?} is not a unit name")));
        }
        Ok(Self { slice: slice.to_owned(), name: unit })
    }

    /// Where systemd puts the group.
    pub(crate) fn path(&self, rootless: bool) -> String {
        let slice = expand(&self.slice).unwrap_or_default();
        let manager = if rootless {
            let uid = rustix::process::geteuid().as_raw();
            format!("/user.slice/user-{uid}.slice/user@{uid}.service")
        } else {
            String::new()
        };
        if self.name.ends_with(".slice") {
            return format!("{manager}{}", expand(&self.name).unwrap_or_default());
        }
        format!("{manager}{slice}/{}", self.name)
    }

    /// Starts the scope with one process and waits until systemd has done so.
    pub(crate) fn start(&self, pid: i32, resources: &Resources, v2: bool, rootless: bool) -> Result<(), Error> {
        let mut connection = Connection::systemd(rootless)?;
        self.start_on(&mut connection, pid, resources, v2)
    }

    fn start_on(&self, connection: &mut Connection, pid: i32, resources: &Resources, v2: bool) -> Result<(), Error> {
        let mut properties: Properties = vec![
            ("Description", Value::Text(format!("hull container {}", self.name))),
            ("DefaultDependencies", Value::Bool(false)),
        ];
        if self.name.ends_with(".slice") {
            properties.push(("Wants", Value::Text(self.slice.clone())));
        } else {
            properties.push(("Slice", Value::Text(self.slice.clone())));
            properties.push(("Delegate", Value::Bool(true)));
            properties.push(("CollectMode", Value::Text("inactive-or-failed".to_owned())));
            properties.push(("PIDs", Value::Numbers(vec![pid.cast_unsigned()])));
        }
        for accounting in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
            properties.push((accounting, Value::Bool(true)));
        }
        properties.extend(properties_of(resources, v2)?);
        let rules = Rules::parse(&resources.devices)?;
        if let Some(allowed) = rules.systemd() {
            properties.push(("DevicePolicy", Value::Text("strict".to_owned())));
            properties.push(("DeviceAllow", Value::Pairs(allowed)));
        }
        // Signals of jobs are only sent while somebody subscribes; a direct connection always gets them.
        let _ = connection.call("Subscribe", "", &[]);
        let body = self.start_body(&properties);
        let signature = "ssa(sv)a(sa(sv))";
        let reply = match connection.call("StartTransientUnit", signature, &body) {
            // What is left of an earlier container that failed.
            Err(Error::Systemd { reason, .. }) if reason.contains("UnitExists") => {
                self.reset(connection);
                connection.call("StartTransientUnit", signature, &body)?
            }
            other => other?,
        };
        finish(connection, &reply, "StartTransientUnit", &self.name)
    }

    fn start_body(&self, properties: &[(&str, Value)]) -> Vec<u8> {
        let mut body = Encoder::default();
        body.text(&self.name);
        body.text("replace");
        body.properties(properties);
        body.array(8, |_| {});
        body.bytes
    }

    /// Changes the properties of a running scope.
    pub(crate) fn update(&self, resources: &Resources, v2: bool, rootless: bool) -> Result<(), Error> {
        let properties = properties_of(resources, v2)?;
        if properties.is_empty() {
            return Ok(());
        }
        let mut body = Encoder::default();
        body.text(&self.name);
        body.u32(1);
        body.properties(&properties);
        Connection::systemd(rootless)?.call("SetUnitProperties", "sba(sv)", &body.bytes).map(drop)
    }

    /// Stops the scope and waits; one that is gone is not an error.
    pub(crate) fn stop(&self, rootless: bool) -> Result<(), Error> {
        let mut connection = Connection::systemd(rootless)?;
        self.stop_on(&mut connection)
    }

    fn stop_on(&self, connection: &mut Connection) -> Result<(), Error> {
        let _ = connection.call("Subscribe", "", &[]);
        let mut body = Encoder::default();
        body.text(&self.name);
        body.text("replace");
        let stopped = match connection.call("StopUnit", "ss", &body.bytes) {
            Ok(reply) => finish(connection, &reply, "StopUnit", &self.name),
            Err(Error::Systemd { reason, .. }) if reason.contains("NoSuchUnit") => return Ok(()),
            Err(error) => Err(error),
        };
        self.reset(connection);
        stopped
    }

    /// Forgets a failed unit. It is usually none, and the error says nothing else.
    fn reset(&self, connection: &mut Connection) {
        let mut body = Encoder::default();
        body.text(&self.name);
        let _ = connection.call("ResetFailedUnit", "s", &body.bytes);
    }
}

fn finish(
    connection: &mut Connection,
    reply: &crate::dbus::wire::Message,
    operation: &str,
    unit: &str,
) -> Result<(), Error> {
    let job = reply.decoder().text().filter(|_| reply.signature == "o");
    let job = job.ok_or_else(|| failed(operation, "the answer names no job"))?;
    match connection.wait_for_job(job)?.as_str() {
        "done" => Ok(()),
        other => Err(failed(operation, &format!("the job for {unit} ended with {other:?}"))),
    }
}

/// The group of a slice: each dash is a level, `a-b.slice` is `/a.slice/a-b.slice`. The root slice is empty.
fn expand(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(String::new());
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        let permitted = |byte: u8| byte.is_ascii_alphanumeric() || b":_.\\@".contains(&byte);
        if part.is_empty() || !part.bytes().all(permitted) || name.len() > 240 {
            return None;
        }
        prefix.push_str(part);
        path.push_str(&format!("/{prefix}.slice"));
        prefix.push('-');
    }
    Some(path)
}

/// The limits that have properties.
fn properties_of(resources: &Resources, v2: bool) -> Result<Properties, Error> {
    let mut properties = Properties::new();
    // systemd's word for no limit is the largest number.
    let limit = |value: i64| Value::U64(u64::try_from(value).unwrap_or(u64::MAX));
    if let Some(memory) = &resources.memory {
        let nonzero = |value: Option<i64>| value.filter(|&value| value != 0);
        if let Some(value) = nonzero(memory.limit) {
            properties.push((if v2 { "MemoryMax" } else { "MemoryLimit" }, limit(value)));
        }
        if v2 {
            if let Some(value) = nonzero(memory.reservation) {
                properties.push(("MemoryLow", limit(value)));
            }
            let swap = convert::swap_max(memory.swap, memory.limit);
            if let Some(swap) = swap.map_err(|reason| Error::invalid("memory.swap", reason))? {
                properties.push(("MemorySwapMax", Value::U64(swap.parse().unwrap_or(u64::MAX))));
            }
        }
    }
    if let Some(cpu) = &resources.cpu {
        if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
            let weight = ("CPUWeight", Value::U64(convert::cpu_weight(shares)));
            properties.push(if v2 { weight } else { ("CPUShares", Value::U64(shares)) });
        }
        if let Some(quota) = cpu.quota.filter(|&quota| quota != 0) {
            let period = cpu.period.filter(|&period| period != 0).unwrap_or(100_000);
            properties.push(("CPUQuotaPeriodUSec", Value::U64(period)));
            // systemd keeps whole percents of a second and rounds down; rounding up here keeps at least the quota.
            let per_second = u64::try_from(quota).ok().map(|quota| {
                let exact = quota.saturating_mul(1_000_000) / period;
                exact.next_multiple_of(10_000)
            });
            properties.push(("CPUQuotaPerSecUSec", Value::U64(per_second.unwrap_or(u64::MAX))));
        }
        if v2 {
            for (list, name, field) in
                [(&cpu.cpus, "AllowedCPUs", "cpu.cpus"), (&cpu.mems, "AllowedMemoryNodes", "cpu.mems")]
            {
                if !list.is_empty() {
                    let bits = bitmap(list).ok_or_else(|| Error::invalid(field, format!("{list:?} is not a list")))?;
                    properties.push((name, Value::Bytes(bits)));
                }
            }
        }
    }
    if let Some(value) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        properties.push(("TasksMax", limit(value)));
    }
    if let Some(weight) = resources.block_io.as_ref().and_then(|io| io.weight).filter(|&weight| weight != 0) {
        let new = ("IOWeight", Value::U64(convert::io_weight(weight)));
        properties.push(if v2 { new } else { ("BlockIOWeight", Value::U64(u64::from(weight))) });
    }
    Ok(properties)
}

/// A CPU list as bits, the lowest first.
fn bitmap(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        if last > 8191 || first > last {
            return None;
        }
        if bits.len() <= last / 8 {
            bits.resize(last / 8 + 1, 0);
        }
        (first..=last).for_each(|bit| bits[bit / 8] |= 1 << (bit % 8));
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::dbus::wire;

    #[test]
    fn names() {
        let unit = Unit::parse("machine-a.slice:libpod:abc", "x", false).unwrap();
        assert_eq!(unit.path(false), "/machine.slice/machine-a.slice/libpod-abc.scope");
        assert_eq!(Unit::parse("", "x", false).unwrap().path(false), "/system.slice/hull-x.scope");
        assert_eq!(Unit::parse("-.slice::x", "y", false).unwrap().path(false), "/x.scope");
        for bad in
            ["/a/b", "a:b", "a.slice:b", "a:b:c", "a--b.slice:b:c", "a/b.slice:b:c", "a.slice:b:", "a.slice:b/:c"]
        {
            assert!(Unit::parse(bad, "x", false).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_as_properties() {
        let json = r#"{"memory":{"limit":536870912,"swap":-1},"cpu":{"quota":150000,"period":100000,"cpus":"0-1,9"},
            "pids":{"limit":-1}}"#;
        let resources = serde_json::from_str(json).unwrap();
        let expected = [
            ("MemoryMax", Value::U64(536_870_912)),
            ("MemorySwapMax", Value::U64(u64::MAX)),
            ("CPUQuotaPeriodUSec", Value::U64(100_000)),
            ("CPUQuotaPerSecUSec", Value::U64(1_500_000)),
            ("AllowedCPUs", Value::Bytes(vec![3, 2])),
            ("TasksMax", Value::U64(u64::MAX)),
        ];
        assert_eq!(properties_of(&resources, true).unwrap(), expected);
        assert_eq!(properties_of(&resources, false).unwrap()[0].0, "MemoryLimit");
    }

    fn frame(kind: u8, reply_to: u32, member: &str, signature: &str, body: &[u8]) -> Vec<u8> {
        // A call's layout serves; a reply serial and an error name are added by hand.
        let mut fields = Encoder::default();
        let mut bytes = wire::call(7, None, ("/a", "b.c", member), signature, &[]);
        let end = 16 + u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        bytes.truncate(end);
        fields.bytes = bytes;
        fields.bytes.resize(fields.bytes.len().next_multiple_of(8), 0);
        fields.bytes.extend(b"\x05\x01u\0");
        fields.u32(reply_to);
        if kind == wire::ERROR {
            fields.bytes.resize(fields.bytes.len().next_multiple_of(8), 0);
            fields.bytes.extend(b"\x04\x01s\0");
            fields.text("org.freedesktop.systemd1.UnitExists");
        }
        let size = u32::try_from(fields.bytes.len() - 16).unwrap().to_le_bytes();
        let mut bytes = fields.bytes;
        bytes[12..16].copy_from_slice(&size);
        bytes[1] = kind;
        bytes[4..8].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(body);
        bytes
    }

    fn job_removed(job: &str, result: &str) -> Vec<u8> {
        let mut body = Encoder::default();
        body.u32(3);
        body.text(job);
        body.text("hull-x.scope");
        body.text(result);
        frame(wire::SIGNAL, 0, "JobRemoved", "uoss", &body.bytes)
    }

    /// A peer that answers each call by what `answer` makes of its name and count; it returns the names.
    fn fake(
        mut stream: UnixStream,
        answer: impl Fn(&str, usize, u32) -> Vec<u8> + Send + 'static,
    ) -> std::thread::JoinHandle<Vec<String>> {
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while !line.ends_with(b"BEGIN\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                line.push(byte[0]);
                if line.ends_with(b"\r\n") && line == b"\0AUTH EXTERNAL 30\r\n" {
                    stream.write_all(b"OK 0123\r\n").unwrap();
                }
            }
            let mut names = Vec::new();
            let mut header = [0; 16];
            while stream.read_exact(&mut header).is_ok() {
                let mut bytes = header.to_vec();
                bytes.resize(wire::message_size(&header).unwrap(), 0);
                stream.read_exact(&mut bytes[16..]).unwrap();
                let serial = u32::from_le_bytes(header[8..12].try_into().unwrap());
                let member = wire::parse(&bytes).unwrap().member;
                stream.write_all(&answer(&member, names.len(), serial)).unwrap();
                names.push(member);
            }
            names
        })
    }

    fn job(path: &str) -> Vec<u8> {
        let mut body = Encoder::default();
        body.text(path);
        body.bytes
    }

    #[test]
    fn start_with_a_leftover_unit() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = fake(theirs, |member, count, serial| match (member, count) {
            ("StartTransientUnit", 2) => frame(wire::ERROR, serial, "", "s", &job("exists")),
            ("StartTransientUnit", _) => {
                // Signals of this and of another job come before the reply.
                let mut bytes = job_removed("/job/8", "failed");
                bytes.extend(job_removed("/job/9", "done"));
                bytes.extend(frame(wire::METHOD_RETURN, serial, "", "o", &job("/job/9")));
                bytes
            }
            _ => frame(wire::METHOD_RETURN, serial, "", "", &[]),
        });
        let mut connection = Connection::start(ours, 0, true).unwrap();
        let unit = Unit::parse("", "x", false).unwrap();
        unit.start_on(&mut connection, 1, &Resources::default(), true).unwrap();
        drop(connection);
        let expected = ["Ping", "Subscribe", "StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"];
        assert_eq!(peer.join().unwrap(), expected);
    }

    #[test]
    fn failed_job_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = fake(theirs, |member, _, serial| match member {
            "StopUnit" => {
                let mut bytes = frame(wire::METHOD_RETURN, serial, "", "o", &job("/job/9"));
                bytes.extend(job_removed("/job/9", "timeout"));
                bytes
            }
            _ => frame(wire::METHOD_RETURN, serial, "", "", &[]),
        });
        let mut connection = Connection::start(ours, 0, true).unwrap();
        let error = Unit::parse("", "x", false).unwrap().stop_on(&mut connection).unwrap_err();
        assert!(error.to_string().contains("timeout"), "{error}");
        drop(connection);
        assert_eq!(peer.join().unwrap(), ["Ping", "Subscribe", "StopUnit", "ResetFailedUnit"]);
    }

    #[test]
    fn peer_that_hangs_up() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(Connection::start(ours, 0, true).is_err());
    }
}
