//! Hull's own image store as a registry that is read.
//!
//! An image is found by the name that users give it, with or without the registry's host. It is served with the manifest
//! that it came with while the store holds its compressed layers; otherwise with one of uncompressed layers, which are
//! the store's files themselves. Nothing is copied.

use std::fs::File;

use hull_image::{Image, Store};
use hull_oci::image::{Descriptor, Document, Manifest, media_type};
use hull_oci::{Digest, Reference};

use crate::content::{Content, Stored};
use crate::refusal::Refusal;
use crate::route::{self, Target};

/// The store.
#[derive(Debug)]
pub(crate) struct Engine(pub(crate) Store);

fn failed(error: hull_image::Error) -> Refusal {
    Refusal::internal("read the image store", &error)
}

/// Whether a name of the store is in the repository that is asked for.
fn is_in(reference: &Reference, repository: &str) -> bool {
    reference.familiar_repository() == repository
        || reference.repository() == repository
        || reference.path() == repository
}

/// The shortest name of a repository that a client can ask for.
fn served(reference: &Reference) -> String {
    let familiar = reference.familiar_repository();
    if route::name(&familiar).is_ok() { familiar } else { reference.path().to_owned() }
}

impl Engine {
    fn images(&self, name: &str) -> Result<Vec<Image>, Refusal> {
        let mut images = self.0.list().map_err(failed)?;
        images.retain(|image| image.names.iter().any(|reference| is_in(reference, name)));
        if images.is_empty() {
            return Err(Refusal::missing("NAME_UNKNOWN", format!("repository {name} is not known")));
        }
        Ok(images)
    }

    fn stored(&self, image: &Image) -> Result<Stored, Refusal> {
        if let Some(bytes) = self.0.manifest_bytes(&image.id).map_err(failed)?
            && let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, None)
            && manifest.layers.iter().all(|layer| self.open(image, &layer.digest).is_some())
        {
            let named = Some(manifest.media_type).filter(|name| !name.is_empty());
            let media_type = named.unwrap_or_else(|| media_type::MANIFEST.to_owned());
            return Ok(Stored { digest: Digest::of(&bytes), media_type, bytes });
        }
        let config = self.0.config_bytes(&image.id).map_err(failed)?;
        let layers = image.layers.iter();
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::MANIFEST.to_owned(),
            artifact_type: None,
            config: Descriptor::of(media_type::CONFIG, &config),
            layers: layers
                .map(|layer| Descriptor::new(media_type::LAYER, layer.diff_id.clone(), layer.tar_size))
                .collect(),
            annotations: std::collections::BTreeMap::new(),
            subject: None,
        };
        let bytes = serde_json::to_vec(&manifest).map_err(|error| Refusal::internal("write a manifest", &error))?;
        Ok(Stored { digest: Digest::of(&bytes), media_type: manifest.media_type, bytes })
    }

    /// A blob of an image, if the store holds it.
    fn open(&self, image: &Image, digest: &Digest) -> Option<File> {
        let held = image.id == *digest
            || image.layers.iter().any(|layer| layer.blob.as_ref().is_some_and(|(blob, _)| blob == digest));
        if held && let Ok(file) = self.0.open_blob(digest) {
            return Some(file);
        }
        let layer = image.layers.iter().find(|layer| layer.diff_id == *digest)?;
        File::open(self.0.layer_path(&layer.diff_id).join("tar")).or_else(|_| self.0.open_blob(digest)).ok()
    }
}

impl Content for Engine {
    fn blob(&self, name: &str, digest: &Digest) -> Result<File, Refusal> {
        let images = self.images(name)?;
        images
            .iter()
            .find_map(|image| self.open(image, digest))
            .ok_or_else(|| Refusal::missing("BLOB_UNKNOWN", format!("blob {digest} is not known to the repository")))
    }

    fn manifest(&self, name: &str, target: &Target) -> Result<Stored, Refusal> {
        for image in self.images(name)? {
            let suits = match target {
                Target::Tag(tag) => {
                    image.names.iter().any(|reference| is_in(reference, name) && reference.tag() == Some(tag))
                }
                Target::Digest(_) => true,
            };
            if suits {
                let stored = self.stored(&image)?;
                if !matches!(target, Target::Digest(digest) if *digest != stored.digest) {
                    return Ok(stored);
                }
            }
        }
        Err(Refusal::missing("MANIFEST_UNKNOWN", "manifest is not known"))
    }

    fn tags(&self, name: &str) -> Result<Vec<String>, Refusal> {
        let images = self.images(name)?;
        let references = images.iter().flat_map(|image| &image.names).filter(|reference| is_in(reference, name));
        let mut tags: Vec<String> = references.filter_map(|reference| reference.tag().map(str::to_owned)).collect();
        tags.sort_unstable();
        tags.dedup();
        Ok(tags)
    }

    fn repositories(&self) -> Result<Vec<String>, Refusal> {
        let images = self.0.list().map_err(failed)?;
        let mut names: Vec<String> = images.iter().flat_map(|image| &image.names).map(served).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn referrers(&self, _: &str, _: &Digest) -> Result<Vec<serde_json::Value>, Refusal> {
        Ok(Vec::new())
    }
}
