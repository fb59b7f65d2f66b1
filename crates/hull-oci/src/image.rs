//! Images (image-spec 1.1): descriptors, manifests, indexes, configurations.
//!
//! These types read what an image says and write what Hull makes. **Bytes that came from elsewhere are never written
//! back through them**: a digest is of bytes, and fields that are unknown here would be lost.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::spec::null_default;

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

/// What a program needs to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// As Go names it: `amd64`, `arm64`, ...
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// Windows build.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Windows features.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub os_features: Vec<String>,
    /// `v7`, `v8`, `v3`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn native() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.map(str::to_owned),
            ..Self::default()
        }
    }

    /// Parses `os/arch[/variant]`, `arch` or `os` alone as `--platform` takes it.
    ///
    /// # Errors
    /// Docker's text for what is no platform.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is an invalid platform: expected os[/arch[/variant]], such as linux/arm64/v8");
        let native = Self::native();
        let word = |word: &&str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(word) {
            return Err(bad());
        }
        let (os, architecture, variant) = match parts.as_slice() {
            ["linux"] => return Ok(native),
            [one] => ("linux".to_owned(), one.to_ascii_lowercase(), None),
            [os, architecture] => (os.to_ascii_lowercase(), architecture.to_ascii_lowercase(), None),
            [os, architecture, variant] => {
                (os.to_ascii_lowercase(), architecture.to_ascii_lowercase(), Some(variant.to_ascii_lowercase()))
            }
            _ => return Err(bad()),
        };
        let (architecture, variant) = match (architecture.as_str(), variant) {
            ("x86_64" | "x86-64", variant) => ("amd64".to_owned(), variant),
            ("aarch64", variant) => ("arm64".to_owned(), variant),
            ("armhf", None) => ("arm".to_owned(), Some("v7".to_owned())),
            ("armel", None) => ("arm".to_owned(), Some("v6".to_owned())),
            ("i386" | "i686", _) => ("386".to_owned(), None),
            (_, variant) => (architecture, variant),
        };
        Ok(Self { architecture, os, variant, ..Self::default() })
    }

    /// How well a program for `self` runs where `wanted` is asked for: higher is better, `None` is not at all.
    #[must_use]
    pub fn suits(&self, wanted: &Self) -> Option<u32> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        let level = |variant: &Option<String>, default: u32| match variant.as_deref().map(|v| v.trim_start_matches('v'))
        {
            None | Some("") => Some(default),
            Some(number) => number.parse().ok(),
        };
        let default = match self.architecture.as_str() {
            "amd64" => 1,
            "arm64" => 8,
            "arm" => 7,
            _ => 0,
        };
        let (offered, limit) = (level(&self.variant, default)?, level(&wanted.variant, default)?);
        (offered <= limit).then_some(offered + 1)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(formatter, "/{variant}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,{extra}"config":{{"mediaType":"{}","digest":"sha256:{HEX}","size":2}},"layers":[]}}"#,
            media_type::CONFIG
        )
    }

    #[test]
    fn a_document_is_one_thing() {
        assert!(matches!(Document::parse(manifest("").as_bytes(), None), Ok(Document::Manifest(_))));
        let both = manifest(r#""manifests":[],"#);
        assert!(matches!(Document::parse(both.as_bytes(), None), Err(DocumentError::Ambiguous(_))));
        let own = manifest(r#""mediaType":"application/x-own","#);
        assert!(matches!(Document::parse(own.as_bytes(), None), Err(DocumentError::Invalid { .. })));
        let called = Document::parse(manifest("").as_bytes(), Some(media_type::INDEX));
        assert!(matches!(called, Err(DocumentError::Ambiguous(_))));
        let old = br#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert!(matches!(Document::parse(old, None), Err(DocumentError::SchemaOne)));
        let traversal = manifest("").replace(HEX, "../../../etc/passwd");
        assert!(Document::parse(traversal.as_bytes(), None).is_err());
    }

    #[test]
    fn chain_ids_are_the_specifications() {
        let rootfs = RootFs { diff_ids: vec![Digest::of(b"a"), Digest::of(b"b")], ..RootFs::default() };
        let chain = rootfs.chain_ids();
        assert_eq!(chain[0], Digest::of(b"a"));
        assert_eq!(chain[1], Digest::of(format!("{} {}", Digest::of(b"a"), Digest::of(b"b")).as_bytes()));
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let descriptor = |platform: &str| Descriptor {
            platform: Some(Platform::parse(platform).expect("valid")),
            ..Descriptor::of(media_type::MANIFEST, platform.as_bytes())
        };
        let names = ["linux/arm/v6", "linux/arm/v7", "linux/amd64", "linux/amd64/v3", "linux/arm64"];
        let manifests = names.iter().map(|name| descriptor(name)).collect();
        let index = Index {
            schema_version: 2,
            media_type: String::new(),
            artifact_type: None,
            manifests,
            annotations: BTreeMap::new(),
            subject: None,
        };
        let chosen = |wanted: &str| {
            let wanted = Platform::parse(wanted).expect("valid");
            index.select(&wanted).map(|one| one.platform.as_ref().map(ToString::to_string).unwrap_or_default())
        };
        assert_eq!(chosen("linux/amd64").as_deref(), Some("linux/amd64"));
        assert_eq!(chosen("linux/amd64/v4").as_deref(), Some("linux/amd64/v3"));
        assert_eq!(chosen("linux/arm/v7").as_deref(), Some("linux/arm/v7"));
        assert_eq!(chosen("linux/arm/v5"), None);
        assert_eq!(chosen("aarch64").as_deref(), Some("linux/arm64"));
        assert_eq!(chosen("linux/s390x"), None);
    }

    #[test]
    fn go_writes_null_for_nothing() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],"ArgsEscaped":null,"Volumes":null},
            "rootfs":{"type":"layers","diff_ids":null},"history":null,"unknown":1}"#;
        let config = ImageConfig::parse(text.as_bytes()).expect("valid");
        assert_eq!(config.config.cmd, ["sh"]);
        assert_eq!(config.platform.to_string(), "linux/amd64");
        let absent = ImageConfig::parse(br#"{"config":null,"rootfs":{"type":"layers","diff_ids":[]}}"#);
        assert_eq!(absent.expect("valid").config, ContainerConfig::default());
    }

    #[test]
    fn layers_are_known_by_their_types() {
        for layer in [media_type::LAYER, media_type::LAYER_ZSTD, media_type::DOCKER_LAYER_GZIP] {
            assert!(media_type::is_layer(layer), "{layer}");
        }
        assert!(!media_type::is_layer("application/vnd.in-toto+json"));
        assert!(!media_type::is_layer("application/vnd.oci.image.layer.v1.tarball"));
    }
}
