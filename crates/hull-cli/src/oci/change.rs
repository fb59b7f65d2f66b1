//! Commands that change a container: `kill`, `delete`, `pause`, `resume`, `update`.

use std::path::Path;

use hull_oci::spec::{BlockIo, Cpu, MAX_CONFIG_BYTES, Memory, Pids, Resources};
use hull_runtime::lifecycle::{self, IntelRdtUpdate, signal};

use super::args::Parsed;
use super::launch::read_bounded;
use super::{CommandError, Globals, id, units};

/// Sends a signal.
pub(super) fn kill(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    let number = match parsed.words.get(1) {
        None => signal::TERM,
        Some(word) => word
            .to_str()
            .and_then(signal::parse)
            .ok_or_else(|| CommandError::new(format!("unknown signal {word:?}")))?,
    };
    lifecycle::kill(&globals.root, id(parsed)?, number, parsed.on("all"))?;
    Ok(0)
}

/// Deletes a container; with `--force` it may run, and need not exist.
pub(super) fn delete(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    let force = parsed.on("force");
    match lifecycle::delete(&globals.root, id(parsed)?, force) {
        Ok(warnings) => {
            for warning in warnings {
                globals.log.warning(&warning.to_string());
            }
            Ok(0)
        }
        Err(hull_runtime::Error::NoContainer(_)) if force => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Freezes a container.
pub(super) fn pause(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    lifecycle::pause(&globals.root, id(parsed)?)?;
    Ok(0)
}

/// Thaws a container.
pub(super) fn resume(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    lifecycle::resume(&globals.root, id(parsed)?)?;
    Ok(0)
}

/// Changes limits.
pub(super) fn update(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    let resources = match parsed.get("resources") {
        Some(path) => {
            let path = if path == "-" { Path::new("/dev/stdin") } else { Path::new(path) };
            let bytes =
                if path == Path::new("/dev/stdin") { read_stdin()? } else { read_bounded(path, MAX_CONFIG_BYTES)? };
            hull_oci::spec::parse(&bytes)
                .map_err(|error| CommandError::new(format!("resources {}: {error}", path.display())))?
        }
        None => resources(parsed)?,
    };
    let rdt = IntelRdtUpdate {
        l3_cache_schema: parsed.text("l3-cache-schema")?.map(str::to_owned),
        mem_bw_schema: parsed.text("mem-bw-schema")?.map(str::to_owned),
    };
    lifecycle::update(&globals.root, id(parsed)?, &resources, &rdt)?;
    Ok(0)
}

fn read_stdin() -> Result<Vec<u8>, CommandError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_CONFIG_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CommandError::new(format!("read standard input: {error}")))?;
    Ok(bytes)
}

/// The individual flags as a document.
fn resources(parsed: &Parsed) -> Result<Resources, CommandError> {
    let size = |name: &str| -> Result<Option<i64>, CommandError> {
        let Some(text) = parsed.text(name)? else { return Ok(None) };
        let bytes = units::bytes(text)
            .ok_or_else(|| CommandError::new(format!("invalid value {text:?} for flag --{name}: expected a size")))?;
        Ok(Some(bytes))
    };
    let list = |name: &str| -> Result<String, CommandError> { Ok(parsed.text(name)?.unwrap_or_default().to_owned()) };
    let memory = Memory {
        limit: size("memory")?,
        reservation: size("memory-reservation")?,
        swap: size("memory-swap")?,
        kernel: size("kernel-memory")?,
        kernel_tcp: size("kernel-memory-tcp")?,
        ..Memory::default()
    };
    let shares = parsed.number("cpu-share")?;
    let cpu = Cpu {
        shares: if shares.is_some() { shares } else { parsed.number("cpu-shares")? },
        quota: parsed.number("cpu-quota")?,
        burst: parsed.number("cpu-burst")?,
        period: parsed.number("cpu-period")?,
        realtime_runtime: parsed.number("cpu-rt-runtime")?,
        realtime_period: parsed.number("cpu-rt-period")?,
        cpus: list("cpuset-cpus")?,
        mems: list("cpuset-mems")?,
        idle: parsed.number("cpu-idle")?,
    };
    let given = |names: &[&str]| names.iter().any(|name| parsed.given(name));
    Ok(Resources {
        memory: given(&["memory", "memory-reservation", "memory-swap", "kernel-memory", "kernel-memory-tcp"])
            .then_some(memory),
        cpu: given(&[
            "cpu-share",
            "cpu-shares",
            "cpu-quota",
            "cpu-burst",
            "cpu-period",
            "cpu-rt-runtime",
            "cpu-rt-period",
            "cpuset-cpus",
            "cpuset-mems",
            "cpu-idle",
        ])
        .then_some(cpu),
        pids: parsed.number("pids-limit")?.map(|limit| Pids { limit: Some(limit) }),
        block_io: parsed.number("blkio-weight")?.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..Resources::default()
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::{args, commands};
    use super::*;

    fn check(line: &str, expected: &str) {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let parsed = args::parse(commands::find("update").unwrap().flags, &words, usize::MAX).unwrap();
        let resources = serde_json::to_value(resources(&parsed).unwrap()).unwrap();
        assert_eq!(resources, serde_json::from_str::<serde_json::Value>(expected).unwrap(), "{line}");
    }

    #[test]
    fn flags_become_a_document() {
        check("id", "{}");
        check("--memory 512m id --memory-swap -1", r#"{"memory":{"limit":536870912,"swap":-1}}"#);
        check("--cpu-quota 150000 --cpu-period 100000 id", r#"{"cpu":{"quota":150000,"period":100000}}"#);
        check("--cpu-share 512 --cpuset-cpus 0-1 id", r#"{"cpu":{"shares":512,"cpus":"0-1"}}"#);
        check("--pids-limit -1 --blkio-weight 100 id", r#"{"pids":{"limit":-1},"blockIO":{"weight":100}}"#);
        check("--cpu-idle 1 --cpu-burst 5 id", r#"{"cpu":{"idle":1,"burst":5}}"#);
    }

    #[test]
    fn wrong_values_name_the_flag() {
        for line in ["--memory lots id", "--pids-limit x id", "--cpu-share -1 id", "--blkio-weight 70000 id"] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let parsed = args::parse(commands::find("update").unwrap().flags, &words, usize::MAX).unwrap();
            let error = resources(&parsed).unwrap_err().message;
            assert!(error.contains(words[0].to_str().unwrap()), "{error}");
        }
    }
}
