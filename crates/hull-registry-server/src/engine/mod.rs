//! Hull's own image store as a registry.
//!
//! An image is found by the name that users give it, with or without the registry's host. It is served with the manifest
//! that it came with while the store holds its compressed layers; otherwise with one of uncompressed layers, which are
//! the store's files themselves. Nothing is copied.
//!
//! What is pushed goes into a directory of the store first, `ROOT/registry/`, which has the form of any registry's
//! directory: uploads, blobs, manifests and indexes exactly as they came, and what is no image. When a tag is pushed, the
//! manifest that it leads to, or for an index the one that suits this machine, becomes an image of the store with the
//! repository and the tag as its name (`push.rs`). Blobs are shared with the store by hard links.
//!
//! The store decides: a tag that made an image is there while that name leads to that image, whoever renames or removes
//! it, and a manifest that no tag leads to any more goes with its image (`tidy.rs`). Several processes may serve one store.

mod push;
mod tidy;

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use hull_image::{Image, Store};
use hull_oci::image::{Descriptor, Document, Manifest, media_type};
use hull_oci::{Digest, Reference};
use hyper::StatusCode;

use crate::Error;
use crate::content::{Content, Stored};
use crate::refusal::Refusal;
use crate::route::{self, Target};
use crate::storage::Storage;

/// Images that are made at once.
const TURNS: usize = 4;

/// The store.
#[derive(Debug)]
pub(crate) struct Engine {
    store: Store,
    /// What was pushed; absent where nothing was and nothing may be.
    pushed: Option<Arc<Storage>>,
    /// So many manifests at once become images, one of them only once: they wait for the disk, and layers for the cores.
    turns: [Mutex<()>; TURNS],
}

fn failed(error: hull_image::Error) -> Refusal {
    Refusal::internal("read the image store", &error)
}

/// Whether a name of the store is in the repository that is asked for.
fn is_in(reference: &Reference, repository: &str) -> bool {
    reference.familiar_repository() == repository || reference.path() == repository || whole(reference) == repository
}

/// A repository's name with its registry's. A port is told by `__`, as names of the protocol have no colon.
fn whole(reference: &Reference) -> String {
    format!("{}/{}", reference.domain().replace(':', "__"), reference.path())
}

/// The shortest name of a repository that a client can ask for.
fn served(reference: &Reference) -> String {
    let familiar = reference.familiar_repository();
    if route::name(&familiar).is_ok() { familiar } else { reference.path().to_owned() }
}

/// `ROOT/registry`
pub(crate) fn directory(store: &Store) -> PathBuf {
    store.root().join("registry")
}

/// The name of the store that a repository's tag is; nothing where it can be none.
fn local(name: &str, tag: &str) -> Option<Reference> {
    if let Some((host, path)) = name.split_once('/')
        && let Some((host, port)) = host.rsplit_once("__")
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return format!("{host}:{port}/{path}:{tag}").parse().ok();
    }
    format!("{name}:{tag}").parse().ok()
}

fn is_missing(refusal: &Refusal) -> bool {
    refusal.status == StatusCode::NOT_FOUND
}

impl Engine {
    /// `pushes` says whether there will be any.
    pub(crate) fn new(store: Store, pushes: bool) -> Result<Self, Error> {
        let path = directory(&store);
        let pushed = (pushes || path.is_dir()).then(|| Storage::open_shared(&path)).transpose()?;
        Ok(Self { store, pushed: pushed.map(Arc::new), turns: Default::default() })
    }

    /// Where uploads are.
    pub(crate) fn pushed(&self) -> Option<&Arc<Storage>> {
        self.pushed.as_ref()
    }

    /// What was pushed under a tag, if the store has not been told otherwise since.
    fn pushed_tag(&self, name: &str, tag: &str) -> Result<Option<Digest>, Refusal> {
        let Some((digest, image)) = self.pushed.as_ref().and_then(|pushed| pushed.read_tag(name, tag).ok()) else {
            return Ok(None);
        };
        let named = match local(name, tag) {
            Some(local) => self.store.id_of(&local).map_err(failed)?,
            None => None,
        };
        Ok((named == image).then_some(digest))
    }

    fn images(&self, name: &str) -> Result<Vec<Image>, Refusal> {
        let mut images = self.store.list().map_err(failed)?;
        images.retain(|image| image.names.iter().any(|reference| is_in(reference, name)));
        if images.is_empty() {
            return Err(Refusal::missing("NAME_UNKNOWN", format!("repository {name} is not known")));
        }
        Ok(images)
    }

    fn stored(&self, image: &Image) -> Result<Stored, Refusal> {
        if let Some(bytes) = self.store.manifest_bytes(&image.id).map_err(failed)?
            && let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, None)
            && manifest.layers.iter().all(|layer| self.open(image, &layer.digest).is_some())
        {
            let named = Some(manifest.media_type).filter(|name| !name.is_empty());
            let media_type = named.unwrap_or_else(|| media_type::MANIFEST.to_owned());
            return Ok(Stored { digest: Digest::of(&bytes), media_type, bytes });
        }
        let config = self.store.config_bytes(&image.id).map_err(failed)?;
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

    /// A blob of an image, if the store holds it, and its file.
    fn open(&self, image: &Image, digest: &Digest) -> Option<(File, PathBuf)> {
        let open = |path: PathBuf| File::open(&path).ok().map(|file| (file, path));
        let held = image.id == *digest
            || image.layers.iter().any(|layer| layer.blob.as_ref().is_some_and(|(blob, _)| blob == digest));
        if held && let Some(found) = open(self.store.blob_path(digest)) {
            return Some(found);
        }
        let layer = image.layers.iter().find(|layer| layer.diff_id == *digest)?;
        open(self.store.layer_path(&layer.diff_id).join("tar")).or_else(|| open(self.store.blob_path(digest)))
    }

    /// A blob of the store's images in a repository, or in any.
    fn own_blob(&self, name: Option<&str>, digest: &Digest) -> Result<(File, PathBuf), Refusal> {
        let images = match name {
            Some(name) => match self.images(name) {
                Err(refusal) if is_missing(&refusal) => Vec::new(),
                images => images?,
            },
            None => self.store.list().map_err(failed)?,
        };
        let unknown = || Refusal::missing("BLOB_UNKNOWN", format!("blob {digest} is not known to the repository"));
        images.iter().find_map(|image| self.open(image, digest)).ok_or_else(unknown)
    }

    /// A manifest of the store's images in a repository.
    fn own_manifest(&self, name: &str, target: &Target) -> Result<Stored, Refusal> {
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

    fn own_tags(&self, name: &str) -> Result<Vec<String>, Refusal> {
        let images = self.images(name)?;
        let references = images.iter().flat_map(|image| &image.names).filter(|reference| is_in(reference, name));
        Ok(references.filter_map(|reference| reference.tag().map(str::to_owned)).collect())
    }
}

/// Two lists of which one may not be there.
fn both(one: Result<Vec<String>, Refusal>, other: Result<Vec<String>, Refusal>) -> Result<Vec<String>, Refusal> {
    let mut all = match (one, other) {
        (Ok(mut one), Ok(other)) => {
            one.extend(other);
            one
        }
        (Err(missing), found) | (found, Err(missing)) if is_missing(&missing) => found?,
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

impl Content for Engine {
    fn blob(&self, name: &str, digest: &Digest) -> Result<File, Refusal> {
        match self.pushed.as_ref().map(|pushed| pushed.blob(name, digest)) {
            Some(Ok(file)) => Ok(file),
            Some(Err(refusal)) if !is_missing(&refusal) => Err(refusal),
            _ => self.own_blob(Some(name), digest).map(|(file, _)| file),
        }
    }

    fn manifest(&self, name: &str, target: &Target) -> Result<Stored, Refusal> {
        let digest = match target {
            Target::Tag(tag) => self.pushed_tag(name, tag)?,
            Target::Digest(digest) => Some(digest.clone()),
        };
        if let (Some(pushed), Some(digest)) = (&self.pushed, digest) {
            match pushed.manifest(name, &Target::Digest(digest)) {
                Err(refusal) if is_missing(&refusal) => {}
                found => return found,
            }
        }
        match (self.own_manifest(name, target), &self.pushed) {
            // The repository is there, if only in what was pushed.
            (Err(refusal), Some(pushed)) if is_missing(&refusal) && pushed.tags(name).is_ok() => {
                Err(Refusal::missing("MANIFEST_UNKNOWN", "manifest is not known"))
            }
            (found, _) => found,
        }
    }

    fn tags(&self, name: &str) -> Result<Vec<String>, Refusal> {
        let unknown = || Refusal::missing("NAME_UNKNOWN", format!("repository {name} is not known"));
        let mut there = self.pushed.as_ref().map_or_else(|| Err(unknown()), |pushed| pushed.tags(name));
        if let Ok(tags) = &mut there {
            let mut valid = Vec::with_capacity(tags.len());
            for tag in tags.drain(..) {
                if self.pushed_tag(name, &tag)?.is_some() {
                    valid.push(tag);
                }
            }
            *tags = valid;
        }
        both(there, self.own_tags(name))
    }

    fn repositories(&self) -> Result<Vec<String>, Refusal> {
        let images = self.store.list().map_err(failed)?;
        let own = images.iter().flat_map(|image| &image.names).map(served).collect();
        both(self.pushed.as_ref().map_or_else(|| Ok(Vec::new()), |pushed| pushed.repositories()), Ok(own))
    }

    fn referrers(&self, name: &str, digest: &Digest) -> Result<Vec<serde_json::Value>, Refusal> {
        self.pushed.as_ref().map_or_else(|| Ok(Vec::new()), |pushed| pushed.referrers(name, digest))
    }

    fn used(&self, name: &str, digest: &Digest) {
        let Some(pushed) = &self.pushed else { return };
        if pushed.blob(name, digest).is_ok() {
            pushed.used(name, digest);
        } else if let Ok((_, path)) = self.own_blob(Some(name), digest) {
            // A push relies on it now; should this fail, the push is told that the blob is missing.
            let _ = pushed.adopt(name, digest, &path);
        }
    }
}
