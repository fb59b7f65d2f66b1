//! Changing limits.

use std::path::Path;

use hull_oci::Status;
use hull_oci::spec::{Linux, Resources};

use crate::error::Error;
use crate::state::{self, Record};

/// New Intel RDT schemata; `None` leaves one as it is.
#[derive(Clone, Debug, Default)]
pub struct IntelRdtUpdate {
    /// `L3:0=f;1=f`.
    pub l3_cache_schema: Option<String>,
    /// `MB:0=20;1=70`.
    pub mem_bw_schema: Option<String>,
}

/// Changes the limits that `resources` names and leaves the others; later commands see the new ones.
///
/// # Errors
/// [`Error::NotRunning`] once the container has stopped; [`Error::Cgroup`] naming the limit that the kernel refused.
pub fn update(root: &Path, id: &str, resources: &Resources, rdt: &IntelRdtUpdate) -> Result<(), Error> {
    let record = Record::load(root, id)?;
    if record.status(root) == Status::Stopped {
        return Err(Error::NotRunning(record.id));
    }
    let mut spec = record.spec(root)?;
    let linux = spec.linux.get_or_insert_with(Linux::default);
    let current = linux.resources.take().unwrap_or_default();
    record.cgroup.update(resources, &current)?;
    update_rdt(&record, rdt)?;
    linux.resources = Some(merged(&current, resources)?);
    let bytes = serde_json::to_vec(&spec).map_err(|error| Error::config("linux.resources", error.to_string()))?;
    hull_fs::atomic::write_path(&state::directory(root, id).join("config.json"), &bytes, 0o600)?;
    Ok(())
}

fn update_rdt(record: &Record, rdt: &IntelRdtUpdate) -> Result<(), Error> {
    let lines = [("--l3-cache-schema", &rdt.l3_cache_schema), ("--mem-bw-schema", &rdt.mem_bw_schema)];
    for (flag, schema) in lines {
        let Some(schema) = schema else { continue };
        let Some(group) = &record.intel_rdt else {
            return Err(Error::unsupported("linux.intelRdt", format!("{flag}: the container has no resctrl group")));
        };
        if schema.contains('\n') {
            return Err(Error::config("linux.intelRdt", format!("{flag}: expected one line")));
        }
        let path = group.join("schemata");
        let line = format!("{schema}\n");
        std::fs::write(&path, line).map_err(|error| state::io_error("write", &path, &error))?;
    }
    Ok(())
}

/// `current` with every value that `changes` names.
fn merged(current: &Resources, changes: &Resources) -> Result<Resources, Error> {
    let wrong = |error: serde_json::Error| Error::config("linux.resources", error.to_string());
    let mut base = serde_json::to_value(current).map_err(wrong)?;
    merge(&mut base, serde_json::to_value(changes).map_err(wrong)?);
    serde_json::from_value(base).map_err(wrong)
}

fn merge(base: &mut serde_json::Value, changes: serde_json::Value) {
    match (base, changes) {
        (serde_json::Value::Object(base), serde_json::Value::Object(changes)) => {
            for (key, value) in changes {
                merge(base.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (base, changes) => *base = changes,
    }
}

#[cfg(test)]
mod tests {
    use hull_oci::spec::{Memory, Pids};

    use super::*;

    #[test]
    fn merging_keeps_what_is_not_named() {
        let current = Resources {
            memory: Some(Memory { limit: Some(1 << 20), swap: Some(2 << 20), ..Memory::default() }),
            pids: Some(Pids { limit: Some(7) }),
            ..Resources::default()
        };
        let changes =
            Resources { memory: Some(Memory { limit: Some(3 << 20), ..Memory::default() }), ..Resources::default() };
        let merged = merged(&current, &changes).unwrap();
        let memory = merged.memory.unwrap();
        assert_eq!((memory.limit, memory.swap), (Some(3 << 20), Some(2 << 20)));
        assert_eq!(merged.pids.unwrap().limit, Some(7));
    }
}
