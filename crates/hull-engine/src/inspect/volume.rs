//! What `volume inspect` shows of a volume, in Docker's shape.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::records::Engine;
use crate::time;
use crate::volumes::Volume;

/// The document of one volume.
#[must_use]
pub fn document(engine: &Engine, volume: &Volume) -> Value {
    let some = |map: &BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
    json!({
        "CreatedAt": time::short(volume.created - volume.created % time::SECOND),
        "Driver": volume.driver,
        "Labels": some(&volume.labels),
        "Mountpoint": engine.volume_data(&volume.name),
        "Name": volume.name,
        "Options": some(&volume.options),
        "Scope": "local",
    })
}
