//! The configuration of what was built: bytes that depend on the inputs alone.

use std::time::{Duration, UNIX_EPOCH};

use hull_oci::Digest;
use hull_oci::image::ImageConfig;

use crate::Error;
use crate::graph::NodeId;
use crate::plan::{Planned, Row};

/// Whether it is plain which steps made layers: all of them did.
pub(crate) fn all_made(planned: &Planned, layers: &[Digest]) -> bool {
    steps(planned).count() + planned.base_layers == layers.len()
}

/// Steps that may have made a layer.
pub(crate) fn steps(planned: &Planned) -> impl Iterator<Item = NodeId> {
    planned.rows.iter().filter(|row| row.own).filter_map(|row| row.node)
}

/// The configuration, with its layers, its history and its date. `made` says of a step whether it made a layer.
pub(crate) fn assemble(planned: &Planned, layers: &[Digest], made: &dyn Fn(NodeId) -> bool) -> ImageConfig {
    let mut config = planned.config.clone();
    let seconds = u64::try_from(planned.created).unwrap_or(0);
    let date = hull_oci::time::rfc3339_nanos(UNIX_EPOCH + Duration::from_secs(seconds));
    config.created = Some(date.clone());
    config.rootfs.diff_ids = layers.to_vec();
    let row = |row: &Row| {
        let mut history = row.history.clone();
        if row.own {
            history.created = Some(date.clone());
            history.empty_layer = !row.node.is_some_and(made);
        }
        history
    };
    config.history = planned.rows.iter().map(row).collect();
    config
}

/// Its bytes. The order of fields is that of the type, maps are sorted.
pub(crate) fn bytes(config: &ImageConfig) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(config).map_err(|error| Error::Request(format!("write the image's configuration: {error}")))
}
