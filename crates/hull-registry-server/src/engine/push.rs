//! What is pushed becomes images of the store.
//!
//! ```text
//! PUT tag ──> the manifest, by digest, in ROOT/registry ──> layers and configuration into the store, verified
//!                                                            └─ names REPOSITORY:TAG, REPOSITORY@DIGEST, in one commit
//!         <── 201 <── the tag, and the image that it made, in ROOT/registry <──┘
//! ```
//!
//! A server that is killed in between has acknowledged nothing. Manifests that come by digest alone, and what is no image
//! (its configuration or a layer is of another kind), stay in the directory. A manifest that says it is an image and does
//! not unpack to what its configuration says is refused.

use std::fs;
use std::io::{self, Read as _};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use hull_image::{LayerSource, Transfer};
use hull_oci::image::{Descriptor, Document, ImageConfig, MAX_CONFIG_BYTES, Manifest, Platform, media_type};
use hull_oci::{Digest, Reference};
use hyper::StatusCode;

use super::{Engine, TURNS, failed, is_in, is_missing, local};
use crate::content::{Changes, Content as _, Put, Stored};
use crate::refusal::Refusal;
use crate::route::Target;
use crate::storage::Storage;

/// Layers that are unpacked at once.
const AT_ONCE: usize = 4;

/// A manifest that can become an image.
struct Runnable {
    stored: Stored,
    manifest: Box<Manifest>,
    config: Vec<u8>,
    diff_ids: Vec<Digest>,
}

fn read_only() -> Refusal {
    Refusal::unsupported("this registry is read only; it takes pushes when it is served with --writable or --htpasswd")
}

/// What the store says of an image that a client made.
fn refused(error: hull_image::Error) -> Refusal {
    use hull_image::Error;
    match error {
        Error::Io { .. } | Error::Full { .. } | Error::Database(_) | Error::Damaged { .. } | Error::Fs(_) => {
            let full = matches!(error, Error::Full { .. });
            let mut refusal = failed(error);
            if full {
                refusal.status = StatusCode::INSUFFICIENT_STORAGE;
                "the registry's disk is full".clone_into(&mut refusal.message);
            }
            refusal
        }
        Error::Conflict(reason) => Refusal::new(StatusCode::CONFLICT, "DENIED", reason),
        error => Refusal::bad("MANIFEST_INVALID", hull_oci::spec::one_line(&error.to_string())),
    }
}

impl Engine {
    fn pushes(&self) -> Result<&Storage, Refusal> {
        self.pushed.as_deref().ok_or_else(read_only)
    }

    /// Gives the repository the blobs of a manifest that only the store has: the client was told that they are there.
    fn adopt(&self, pushed: &Storage, name: &str, bytes: &[u8]) -> Result<(), Refusal> {
        // What is no manifest is refused soon.
        let Ok(Document::Manifest(manifest)) = Document::parse(bytes, None) else { return Ok(()) };
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            match pushed.blob(name, &blob.digest) {
                Err(refusal) if is_missing(&refusal) => {}
                found => {
                    found?;
                    continue;
                }
            }
            match self.own_blob(Some(name), &blob.digest) {
                Ok((_, path)) => {
                    pushed.adopt(name, &blob.digest, &path).map_err(|error| Refusal::io("take blob", &error))?;
                }
                Err(refusal) if is_missing(&refusal) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    /// The manifest of a document that suits this machine and is an image; the first, if the document is the manifest.
    fn runnable(&self, pushed: &Storage, name: &str, digest: &Digest) -> Result<Option<Runnable>, Refusal> {
        let mut stored = pushed.manifest(name, &Target::Digest(digest.clone()))?;
        let invalid = |error: &dyn std::fmt::Display| Refusal::bad("MANIFEST_INVALID", error.to_string());
        let mut document = Document::parse(&stored.bytes, Some(&stored.media_type)).map_err(|error| invalid(&error))?;
        if let Document::Index(index) = &document {
            let Some(chosen) = index.select(&Platform::native()) else { return Ok(None) };
            stored = match pushed.manifest(name, &Target::Digest(chosen.digest.clone())) {
                Err(refusal) if is_missing(&refusal) => return Ok(None),
                found => found?,
            };
            document = Document::parse(&stored.bytes, Some(&stored.media_type)).map_err(|error| invalid(&error))?;
        }
        let Document::Manifest(manifest) = document else { return Ok(None) };
        let is_image = matches!(manifest.config.media_type.as_str(), media_type::CONFIG | media_type::DOCKER_CONFIG)
            && manifest.layers.iter().all(|layer| media_type::is_layer(&layer.media_type))
            && manifest.config.size <= MAX_CONFIG_BYTES;
        if !is_image {
            return Ok(None);
        }
        let mut config = Vec::new();
        let file = pushed.blob(name, &manifest.config.digest)?;
        let read = file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut config);
        read.map_err(|error| Refusal::io("read configuration", &error))?;
        let Ok(parsed) = ImageConfig::parse(&config) else { return Ok(None) };
        let diff_ids = parsed.rootfs.diff_ids;
        if parsed.rootfs.kind != "layers" || diff_ids.len() != manifest.layers.len() || diff_ids.is_empty() {
            return Ok(None);
        }
        Ok(Some(Runnable { stored, manifest, config, diff_ids }))
    }

    /// Makes an image of a manifest; returns its ID.
    fn image(&self, pushed: &Storage, name: &str, runnable: &Runnable, names: &[Reference]) -> Result<Digest, Refusal> {
        let digit = runnable.stored.digest.hex().bytes().next().unwrap_or_default();
        let turn = &self.turns[usize::from(digit) % TURNS];
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let transfer = self.store.begin().map_err(refused)?;
        let mut layers: Vec<(&Descriptor, &Digest)> = Vec::new();
        for (blob, diff_id) in runnable.manifest.layers.iter().zip(&runnable.diff_ids) {
            if !layers.iter().any(|(_, known)| *known == diff_id) {
                layers.push((blob, diff_id));
            }
        }
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), Refusal> {
            while let Some((blob, diff_id)) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(refusal) = layer(&transfer, pushed, name, blob, diff_id) {
                    // The others end with the layer that they are at.
                    next.store(layers.len(), Ordering::Relaxed);
                    return Err(refusal);
                }
            }
            Ok(())
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE).min(layers.len());
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            others.into_iter().fold(work(), |done, other| {
                let other = other.join().unwrap_or_else(|_| Err(Refusal::internal("unpack layer", &"a thread died")));
                done.and(other)
            })
        })?;
        let Stored { bytes, media_type, .. } = &runnable.stored;
        let image = transfer.image(&runnable.config, Some((bytes, media_type)), names).map_err(refused)?;
        for layer in image.layers.iter().filter(|layer| layers.iter().any(|(blob, _)| blob.digest == layer.diff_id)) {
            let tar = self.store.layer_path(&layer.diff_id).join("tar");
            match pushed.share(name, &layer.diff_id, &tar) {
                // Then it is on the disk twice.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    crate::log(format_args!("share {}: {error}", layer.diff_id));
                }
                _ => {}
            }
        }
        Ok(image.id)
    }

    /// Names of the store's images in a repository.
    fn names(&self, name: &str) -> Result<Vec<Reference>, Refusal> {
        let images = match self.images(name) {
            Err(refusal) if is_missing(&refusal) => Vec::new(),
            images => images?,
        };
        Ok(images.into_iter().flat_map(|image| image.names).filter(|one| is_in(one, name)).collect())
    }

    /// Takes a name from the image of the store that has it. Whether there was one.
    fn untag(&self, name: &Reference) -> Result<bool, Refusal> {
        match self.store.remove(&name.to_string(), false, &|_| false) {
            Ok(_) => Ok(true),
            Err(hull_image::Error::NoImage(_)) => Ok(false),
            Err(error) => Err(refused(error)),
        }
    }
}

/// A manifest, or an index with all that it names: what goes with the image.
fn members(digest: &Digest, bytes: &[u8]) -> Vec<Digest> {
    let mut all = vec![digest.clone()];
    if let Ok(Document::Index(index)) = Document::parse(bytes, None) {
        all.extend(index.manifests.into_iter().map(|member| member.digest));
    }
    all
}

/// Brings one layer into the store. The blob stays with it, by another link.
fn layer(
    transfer: &Transfer,
    pushed: &Storage,
    name: &str,
    blob: &Descriptor,
    diff_id: &Digest,
) -> Result<(), Refusal> {
    if transfer.has_layer(diff_id).map_err(refused)? {
        return Ok(());
    }
    let file = pushed.blob(name, &blob.digest)?;
    let source = LayerSource { blob: Some(blob.clone()), diff_id: Some(diff_id.clone()), keep_blob: false };
    transfer.layer(file, source).map_err(refused)?;
    let link = transfer.directory().map_err(refused)?.join("blob");
    if fs::hard_link(pushed.blob_file(name, &blob.digest), &link).is_ok() {
        transfer.keep_file(&link, blob, diff_id).map_err(refused)?;
    }
    Ok(())
}

impl Changes for Engine {
    fn mount(&self, name: &str, from: Option<&str>, digest: &Digest) -> io::Result<bool> {
        let Some(pushed) = &self.pushed else { return Ok(false) };
        if pushed.mount(name, from, digest)? {
            return Ok(true);
        }
        match self.own_blob(from, digest) {
            Ok((_, path)) => pushed.adopt(name, digest, &path).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    fn put_manifest(
        &self,
        name: &str,
        target: &Target,
        tags: &[String],
        kind: Option<&str>,
        bytes: &[u8],
    ) -> Result<Put, Refusal> {
        let pushed = self.pushes()?;
        self.adopt(pushed, name, bytes)?;
        let mut tags = tags.to_vec();
        let by_digest = match target {
            Target::Tag(tag) => {
                tags.push(tag.clone());
                Target::Digest(Digest::of(bytes))
            }
            Target::Digest(digest) => Target::Digest(digest.clone()),
        };
        let was_there = matches!(&by_digest, Target::Digest(digest) if pushed.has_manifest(name, digest));
        let put = pushed.put_manifest(name, &by_digest, &[], kind, bytes)?;
        if tags.is_empty() {
            return Ok(put);
        }
        let names: Vec<Reference> = tags.iter().filter_map(|tag| local(name, tag)).collect();
        let made = match self.runnable(pushed, name, &put.digest)?.filter(|_| names.len() == tags.len()) {
            None => None,
            Some(runnable) => {
                let mut all = names.clone();
                if let Some(one) = names.first() {
                    all.push(one.with_digest(put.digest.clone()));
                    all.push(one.with_digest(runnable.stored.digest.clone()));
                }
                match self.image(pushed, name, &runnable, &all) {
                    Ok(id) => Some((id, members(&put.digest, bytes))),
                    Err(refusal) => {
                        if !was_there {
                            // Of a manifest that was refused nothing stays; should this fail, it is one without tags.
                            let _ = pushed.delete_manifest(name, &by_digest);
                        }
                        return Err(refusal);
                    }
                }
            }
        };
        if made.is_none() {
            // What is no image takes its tags from the images that had them.
            for one in &names {
                if self.store.id_of(one).map_err(failed)?.is_some() {
                    self.untag(one)?;
                }
            }
        }
        let image = made.as_ref().map(|(id, manifests)| (id, manifests.as_slice()));
        pushed.write_tags(name, &tags, &put.digest, image).map_err(|error| Refusal::io("write tag", &error))?;
        Ok(put)
    }

    fn delete_manifest(&self, name: &str, target: &Target) -> Result<(), Refusal> {
        let pushed = self.pushes()?;
        // What is there, of what was pushed or of the store's own.
        let stored = self.manifest(name, target)?;
        let missing_is_done = |done: Result<(), Refusal>| match done {
            Err(refusal) if is_missing(&refusal) => Ok(()),
            done => done,
        };
        match target {
            Target::Tag(tag) => {
                for one in self.names(name)?.iter().filter(|one| one.tag() == Some(tag)) {
                    self.untag(one)?;
                }
            }
            Target::Digest(digest) => {
                for one in self.names(name)? {
                    let tag = Target::Tag(one.tag().unwrap_or("latest").to_owned());
                    if self.manifest(name, &tag).is_ok_and(|found| found.digest == *digest) {
                        self.untag(&one)?;
                    }
                }
                if let Some(one) = local(name, "latest") {
                    self.untag(&one.with_digest(stored.digest))?;
                }
            }
        }
        missing_is_done(pushed.delete_manifest(name, target))
    }

    fn delete_blob(&self, name: &str, digest: &Digest) -> Result<(), Refusal> {
        let pushed = self.pushes()?;
        if self.own_blob(Some(name), digest).is_ok() {
            return Err(Refusal::unsupported("an image of the store has this blob: delete the image's manifest"));
        }
        pushed.delete_blob(name, digest)
    }
}
