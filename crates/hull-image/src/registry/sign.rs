//! Signing what was pushed, as cosign does: a payload under the tag `ALGORITHM-HEX.sig`, beside the signatures that are
//! there, and a bundle that refers to the manifest. cosign before version 3 and the containers tools read the first,
//! later ones the second.

use std::sync::Arc;

use hull_oci::image::{Descriptor, Document, Manifest, media_type};
use hull_oci::{Digest, Reference};
use hull_registry::client::{Fetched, Put};
use hull_registry::{Client, Remote};
use hull_trust::evidence::{BUNDLE, MAX_SIGNATURES, PAYLOAD, PREDICATE, SIGNATURE};
use hull_trust::{Evidence, SigningKey};
use serde_json::{Value, json};

use super::verify::tag;
use crate::Error;

/// Signs the manifest that a tag leads to in its registry.
///
/// # Errors
/// When the registry does not have it or does not take the signature, or the key cannot sign.
pub fn sign(client: &Arc<Client>, reference: &Reference, digest: &Digest, key: &SigningKey) -> Result<(), Error> {
    let remote = client.push_to(reference)?;
    let subject = remote.manifest(&digest.to_string())?.descriptor;
    let Evidence::Payload { payload, signature } = Evidence::sign(key, reference, digest)? else {
        return Err(Error::image(reference, "it could not be signed"));
    };
    tagged(&remote, digest, &payload, &signature)?;
    let Evidence::Bundle(bundle) = Evidence::sign_bundle(key, digest)? else {
        return Err(Error::image(reference, "it could not be signed"));
    };
    let annotations =
        [("dev.sigstore.bundle.content", "dsse-envelope"), ("dev.sigstore.bundle.predicateType", PREDICATE)];
    referring(&remote, subject, BUNDLE, &bundle, &annotations)
}

fn put(remote: &Remote, kind: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
    let descriptor = Descriptor::of(kind, bytes);
    remote.put_blob(&descriptor, &bytes.to_vec(), &Put::default())?;
    Ok(descriptor)
}

/// Adds a payload to the manifest of signatures. Two who sign at the same time may lose one: registries cannot compare
/// and replace.
fn tagged(remote: &Remote, digest: &Digest, payload: &[u8], signature: &str) -> Result<(), Error> {
    let tag = tag(digest);
    let mut layers: Vec<Value> = match remote.manifest(&tag) {
        Ok(Fetched { bytes, document: Document::Manifest(_), .. }) => {
            let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            document["layers"].as_array().cloned().unwrap_or_default()
        }
        Ok(_) => return Err(Error::image(format!("{}:{tag}", remote.name()), "it is no manifest of signatures")),
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    if layers.len() >= MAX_SIGNATURES {
        return Err(Error::image(format!("{}:{tag}", remote.name()), "it has too many signatures to add one"));
    }
    let mut layer = put(remote, PAYLOAD, payload)?;
    layer.annotations.insert(SIGNATURE.to_owned(), signature.to_owned());
    layers.push(json!(layer));
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": "", "created": "0001-01-01T00:00:00Z", "history": [{"created": "0001-01-01T00:00:00Z"}],
        "os": "", "rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": {},
    });
    let config = put(remote, media_type::CONFIG, config.to_string().as_bytes())?;
    let manifest =
        json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": layers}).to_string();
    remote.put_manifest(&tag, media_type::MANIFEST, manifest.as_bytes())?;
    Ok(())
}

/// Puts an artifact of one layer whose subject is the manifest, and lists it where the registry does not do that by itself.
pub(super) fn referring(
    remote: &Remote,
    subject: Descriptor,
    kind: &str,
    content: &[u8],
    annotations: &[(&str, &str)],
) -> Result<(), Error> {
    let mut config = put(remote, media_type::EMPTY, b"{}")?;
    config.artifact_type = Some(kind.to_owned());
    let layer = put(remote, kind, content)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.to_owned(),
        artifact_type: Some(kind.to_owned()),
        config,
        layers: vec![layer],
        annotations: annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        subject: Some(subject.clone()),
    };
    let bytes = json!(manifest).to_string().into_bytes();
    let mut descriptor = Descriptor::of(media_type::MANIFEST, &bytes);
    if remote.put_manifest(&descriptor.digest.to_string(), media_type::MANIFEST, &bytes)? {
        return Ok(());
    }
    descriptor.artifact_type = Some(kind.to_owned());
    descriptor.annotations.clone_from(&manifest.annotations);
    let tag = format!("{}-{}", subject.digest.algorithm().as_str(), subject.digest.hex());
    let mut manifests: Vec<Value> = match remote.manifest(&tag) {
        Ok(Fetched { bytes, document: Document::Index(_), .. }) => {
            let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            document["manifests"].as_array().cloned().unwrap_or_default()
        }
        Ok(_) => {
            return Err(Error::image(format!("{}:{tag}", remote.name()), "it is no list of what refers to an image"));
        }
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let own = descriptor.digest.to_string();
    if manifests.iter().any(|one| one["digest"] == own.as_str()) {
        return Ok(());
    }
    manifests.push(json!(descriptor));
    let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests}).to_string();
    remote.put_manifest(&tag, media_type::INDEX, index.as_bytes())?;
    Ok(())
}
