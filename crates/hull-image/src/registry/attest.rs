//! Statements about an image beside it in an index, as BuildKit has them: a manifest for no platform that names the
//! image's one, whose layers are the statements.
//!
//! Unlike artifacts that refer to a manifest they are part of what the name leads to: what they say is in its digest.

use std::collections::BTreeMap;
use std::sync::Arc;

use hull_oci::image::{Descriptor, Index, Manifest, Platform, media_type};
use hull_oci::{Digest, Reference};
use hull_registry::Client;
use hull_registry::client::Put;
use serde_json::{Value, json};

use super::push::{STATEMENT, kind_of, push};
use super::{Progress, PushOptions, Pushed};
use crate::provenance::{package_url, statement_of};
use crate::{Error, Image, Store};

/// Says which manifest the statements are about.
const DIGEST: &str = "vnd.docker.reference.digest";
/// Says that a manifest holds statements.
const TYPE: &str = "vnd.docker.reference.type";
const ATTESTATION: &str = "attestation-manifest";
/// On a layer: what it says.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// What is said of an image.
#[derive(Clone, Debug)]
pub struct Predicate {
    /// Its type: an address.
    pub kind: String,
    /// What it says.
    pub value: Value,
}

/// A manifest of statements with its blobs.
#[derive(Debug)]
pub struct Attestation {
    /// As an index has it.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// Its configuration, and the statements.
    pub blobs: Vec<(Descriptor, Vec<u8>)>,
}

impl Attestation {
    /// Statements about a manifest; `None` where nothing is said. The image is called by `names`.
    #[must_use]
    pub fn new(names: &[Reference], subject: &Digest, platform: &Platform, predicates: &[Predicate]) -> Option<Self> {
        if predicates.is_empty() {
            return None;
        }
        let mut called: Vec<String> =
            names.iter().map(|name| package_url(&name.familiar(), &platform.to_string())).collect();
        if called.is_empty() {
            called.push("_".to_owned());
        }
        let mut blobs = Vec::new();
        for predicate in predicates {
            let bytes = statement_of(&called, subject, &predicate.kind, &predicate.value).to_string().into_bytes();
            let mut layer = Descriptor::of(STATEMENT, &bytes);
            layer.annotations.insert(PREDICATE_TYPE.to_owned(), predicate.kind.clone());
            blobs.push((layer, bytes));
        }
        let layers: Vec<Descriptor> = blobs.iter().map(|(layer, _)| layer.clone()).collect();
        let diff_ids: Vec<&Digest> = layers.iter().map(|layer| &layer.digest).collect();
        let config = json!({
            "architecture": "unknown", "os": "unknown", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::MANIFEST.to_owned(),
            artifact_type: None,
            config: Descriptor::of(media_type::CONFIG, &config),
            layers,
            annotations: BTreeMap::new(),
            subject: None,
        };
        let bytes = json!(manifest).to_string().into_bytes();
        let mut descriptor = Descriptor::of(media_type::MANIFEST, &bytes);
        let unknown = || "unknown".to_owned();
        descriptor.platform = Some(Platform { architecture: unknown(), os: unknown(), ..Platform::default() });
        descriptor.annotations.insert(DIGEST.to_owned(), subject.to_string());
        descriptor.annotations.insert(TYPE.to_owned(), ATTESTATION.to_owned());
        blobs.insert(0, (manifest.config, config));
        Some(Self { descriptor, manifest: bytes, blobs })
    }
}

/// An index of images, and of what is said of them.
#[must_use]
pub fn attested_index(images: Vec<Descriptor>, attestations: impl IntoIterator<Item = Descriptor>) -> Vec<u8> {
    let index = Index {
        schema_version: 2,
        media_type: media_type::INDEX.to_owned(),
        artifact_type: None,
        manifests: images.into_iter().chain(attestations).collect(),
        annotations: BTreeMap::new(),
        subject: None,
    };
    json!(index).to_string().into_bytes()
}

/// Sends images under one name, which means an index of them and of what is said of each. Gives the index's digest and
/// length, after what was pushed for each image.
///
/// # Errors
/// As [`push`].
pub fn push_attested(
    store: &Store,
    client: &Arc<Client>,
    images: &[(Image, &[Predicate])],
    (reference, names): (&Reference, &[Reference]),
    options: &PushOptions,
    progress: &dyn Progress,
) -> Result<(Vec<Pushed>, Pushed), Error> {
    let reference = reference.clone().or_latest();
    let one = PushOptions { by_digest: true, alone: true, ..options.clone() };
    let remote = client.push_to(&reference)?;
    let (mut all, mut entries, mut said) = (Vec::new(), Vec::new(), Vec::new());
    for (image, predicates) in images {
        let pushed = push(store, client, image, &reference, &one, progress)?;
        let platform = &image.config.platform;
        let mut entry = Descriptor::new(&kind_of(store, image)?, pushed.digest.clone(), pushed.size);
        entry.platform = Some(platform.clone());
        entries.push(entry);
        if let Some(attestation) = Attestation::new(names, &pushed.digest, platform, predicates) {
            for (blob, bytes) in &attestation.blobs {
                remote.put_blob(blob, bytes, &Put::default())?;
            }
            let digest = attestation.descriptor.digest.to_string();
            remote.put_manifest(&digest, media_type::MANIFEST, &attestation.manifest)?;
            said.push(attestation.descriptor);
        }
        all.push(pushed);
    }
    let bytes = attested_index(entries, said);
    let digest = Digest::of(&bytes);
    let tag = reference.tag().filter(|_| !options.by_digest).map_or_else(|| digest.to_string(), str::to_owned);
    remote.put_manifest(&tag, media_type::INDEX, &bytes)?;
    // A later push of the same images sends it again.
    if let Some((image, _)) = images.first().filter(|_| !remote.is_machine()) {
        store.begin()?.index(&image.id, &reference.with_digest(digest.clone()), (&bytes, media_type::INDEX))?;
    }
    Ok((all, Pushed { digest, size: bytes.len() as u64 }))
}
