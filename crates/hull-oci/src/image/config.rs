//! The configuration of an image (image-spec `config.md`) with what Docker adds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DocumentError, MAX_CONFIG_BYTES, MAX_LAYERS, Platform, parse};
use crate::digest::Digest;
use crate::spec::null_default;

/// An image's configuration: what it needs, its defaults, its layers and how they came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Architecture, operating system and variant.
    #[serde(flatten)]
    pub platform: Platform,
    /// Defaults for containers.
    #[serde(default, deserialize_with = "null_default")]
    pub config: ContainerConfig,
    /// The layers.
    pub rootfs: RootFs,
    /// How the layers came to be, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub history: Vec<History>,
    /// Free text of `commit`, as Docker keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl ImageConfig {
    /// Parses a configuration.
    ///
    /// # Errors
    /// See [`DocumentError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let config: Self = parse("config", bytes, MAX_CONFIG_BYTES)?;
        if config.rootfs.diff_ids.len() > MAX_LAYERS {
            let reason = format!("more than {MAX_LAYERS} layers");
            return Err(DocumentError::Invalid { what: "config", reason });
        }
        Ok(config)
    }
}

/// The layers of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(deserialize_with = "null_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

impl RootFs {
    /// The chain ID of each layer: what identifies it together with everything below.
    #[must_use]
    pub fn chain_ids(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::with_capacity(self.diff_ids.len());
        for diff in &self.diff_ids {
            let next = match chain.last() {
                None => diff.clone(),
                Some(below) => Digest::of(format!("{below} {diff}").as_bytes()),
            };
            chain.push(next);
        }
        chain
    }
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who took the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// An image's defaults for containers (image-spec `config.md`, and what Docker adds).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `user[:group]`, names or numbers.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub user: String,
    /// `PORT/PROTOCOL` keys that the program listens on; the values are empty objects.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub env: Vec<String>,
    /// Program that the arguments go to.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub entrypoint: Vec<String>,
    /// Arguments when the user gives none.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub cmd: Vec<String>,
    /// Directories whose content belongs in a volume; the values are empty objects.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub working_dir: String,
    /// Labels: data, never instructions to the engine.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the program to end.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub stop_signal: String,
    /// Seconds that `stop` waits before it kills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Docker: how the container's health is probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Docker: the shell of shell-form instructions.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub shell: Vec<String>,
    /// Docker: instructions for builds on top of this image.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub on_build: Vec<String>,
    /// Docker: the arguments are one shell line.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_default")]
    pub args_escaped: bool,
}

/// Docker's health check; times are nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", line]`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub test: Vec<String>,
    /// Between two probes.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Of one probe.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// In which failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between probes in the start period.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that mean unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}
