//! Images (image-spec 1.1): descriptors, manifests, indexes, configurations.
//!
//! These types read what an image says and write what Hull makes. **Bytes that came from elsewhere are never written
//! back through them**: a digest is of bytes, and fields that are unknown here would be lost.

mod config;
mod platform;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::spec::null_default;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use platform::Platform;

/// A manifest or index of at most this many bytes is read; registries refuse larger ones too.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// A configuration of at most this many bytes is read.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// An image of more layers is refused; overlayfs mounts at most 500 (`OVL_MAX_STACK`).
pub const MAX_LAYERS: usize = 500;

/// Media types that Hull reads or writes.
pub mod media_type {
    /// OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// Plain layer.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Layer compressed by gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// Layer compressed by zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// The descriptor of nothing.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// Docker's index.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's plain layer.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker's layer compressed by gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// The first manifest format, which names no configuration; refused.
    pub const DOCKER_V1: &str = "application/vnd.docker.distribution.manifest.v1+json";

    /// Whether a document of this type lists manifests.
    #[must_use]
    pub fn is_index(text: &str) -> bool {
        matches!(text, INDEX | DOCKER_INDEX)
    }

    /// Whether a document of this type is one image.
    #[must_use]
    pub fn is_manifest(text: &str) -> bool {
        matches!(text, MANIFEST | DOCKER_MANIFEST)
    }

    /// Whether a blob of this type is a file system layer, whatever its compression.
    #[must_use]
    pub fn is_layer(text: &str) -> bool {
        let oci = text
            .strip_prefix("application/vnd.oci.image.layer.v1.tar")
            .or_else(|| text.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar"));
        let docker = text
            .strip_prefix("application/vnd.docker.image.rootfs.diff.tar")
            .or_else(|| text.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff.tar"));
        oci.is_some_and(|rest| matches!(rest, "" | "+gzip" | "+zstd"))
            || docker.is_some_and(|rest| matches!(rest, "" | ".gzip" | ".zstd"))
    }
}

/// A pointer to content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// Of the content's bytes.
    pub digest: Digest,
    /// The content's length in bytes.
    pub size: u64,
    /// Free metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub annotations: BTreeMap<String, String>,
    /// Where a manifest runs; in indexes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What kind of artifact a manifest is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Places that the content may also be had from; never sent credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub urls: Vec<String>,
}

impl Descriptor {
    /// A descriptor of these bytes.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// A descriptor without metadata.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
            urls: Vec::new(),
        }
    }
}

/// One image for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// The document's own type; may be absent in OCI documents.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What kind of artifact it is, when it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(deserialize_with = "null_default")]
    pub layers: Vec<Descriptor>,
    /// Free metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub annotations: BTreeMap<String, String>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
}

/// A list of manifests, one for each platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// The document's own type; may be absent in OCI documents.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What kind of artifact it is, when it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests, in order of preference.
    #[serde(deserialize_with = "null_default")]
    pub manifests: Vec<Descriptor>,
    /// Free metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub annotations: BTreeMap<String, String>,
    /// The manifest that this index says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
}

/// What a document behind a descriptor is.
#[derive(Clone, Debug)]
pub enum Document {
    /// An image.
    Manifest(Box<Manifest>),
    /// A list of images.
    Index(Box<Index>),
}

/// Why a document of an image was refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Larger than what is read.
    #[error("{what} is {size} bytes, more than the {max} that are read")]
    TooLarge {
        /// `manifest`, `config`.
        what: &'static str,
        /// Its length.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// Not JSON, or not of this form.
    #[error("{what} is not valid: {reason}")]
    Invalid {
        /// `manifest`, `index`, `config`.
        what: &'static str,
        /// What was found and what was expected.
        reason: String,
    },
    /// Both a manifest and an index (CVE-2021-41190), or of another type than it was announced as.
    #[error("manifest is ambiguous: {0}")]
    Ambiguous(String),
    /// The first format of Docker's registry.
    #[error("manifest schema 1 is not supported: push the image again with a current client")]
    SchemaOne,
}

fn parse<T: serde::de::DeserializeOwned>(what: &'static str, bytes: &[u8], max: u64) -> Result<T, DocumentError> {
    let size = bytes.len() as u64;
    if size > max {
        return Err(DocumentError::TooLarge { what, size, max });
    }
    crate::spec::parse(bytes).map_err(|error| DocumentError::Invalid { what, reason: error.to_string() })
}

impl Document {
    /// Parses a manifest or an index. `media_type` is what the descriptor or the server called it, if anything.
    ///
    /// # Errors
    /// See [`DocumentError`].
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            #[serde(default)]
            schema_version: Option<u32>,
            #[serde(default)]
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            config: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            #[serde(rename = "fsLayers")]
            fs_layers: Option<serde::de::IgnoredAny>,
        }
        let probe: Probe = parse("manifest", bytes, MAX_MANIFEST_BYTES)?;
        if probe.fs_layers.is_some() || probe.schema_version == Some(1) {
            return Err(DocumentError::SchemaOne);
        }
        if probe.schema_version != Some(2) {
            let reason = "schemaVersion is not 2".to_owned();
            return Err(DocumentError::Invalid { what: "manifest", reason });
        }
        let known = |name: &&str| media_type::is_manifest(name) || media_type::is_index(name);
        if let Some(name) = probe.media_type.as_deref().filter(|name| !name.is_empty() && !known(name)) {
            let reason = format!("mediaType {name:?} is unknown");
            return Err(DocumentError::Invalid { what: "manifest", reason });
        }
        let index = probe.manifests.is_some();
        if index && (probe.config.is_some() || probe.layers.is_some()) {
            return Err(DocumentError::Ambiguous("it has both `manifests` and `config` or `layers`".to_owned()));
        }
        for name in [probe.media_type.as_deref(), media_type].into_iter().flatten() {
            let contradicts = if index { media_type::is_manifest(name) } else { media_type::is_index(name) };
            if contradicts {
                let is = if index { "an index" } else { "a manifest" };
                return Err(DocumentError::Ambiguous(format!("it is {is} but called {name:?}")));
            }
        }
        Ok(if index {
            Self::Index(Box::new(parse("index", bytes, MAX_MANIFEST_BYTES)?))
        } else {
            let manifest: Manifest = parse("manifest", bytes, MAX_MANIFEST_BYTES)?;
            if manifest.layers.len() > MAX_LAYERS {
                let reason =
                    format!("{} layers are more than the {MAX_LAYERS} that can be mounted", manifest.layers.len());
                return Err(DocumentError::Invalid { what: "manifest", reason });
            }
            Self::Manifest(Box::new(manifest))
        })
    }
}

impl Index {
    /// The manifest that suits a platform best: the first among equals. Attestations are not for running.
    #[must_use]
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let mut best: Option<(u32, &Descriptor)> = None;
        for descriptor in &self.manifests {
            let score = match &descriptor.platform {
                _ if descriptor.is_attestation() => None,
                Some(platform) => platform.suits(wanted),
                // Layouts of one image name no platform; its configuration does.
                None => Some(0),
            };
            if let Some(score) = score
                && best.is_none_or(|(other, _)| score > other)
            {
                best = Some((score, descriptor));
            }
        }
        best.map(|(_, descriptor)| descriptor)
    }
}

impl Descriptor {
    /// Whether it points at a statement about another manifest, as builders attach them.
    #[must_use]
    pub fn is_attestation(&self) -> bool {
        self.annotations.get("vnd.docker.reference.type").is_some_and(|kind| kind == "attestation-manifest")
    }
}

#[cfg(test)]
mod tests;
