//! Bodies of requests about volumes.

use std::collections::BTreeMap;

use hull_oci::spec::null_default;
use serde::Deserialize;
use serde_json::Value;

/// What `POST /volumes/create` takes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreateRequest {
    #[serde(deserialize_with = "null_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) driver: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) driver_opts: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) cluster_volume_spec: Option<Value>,
}
