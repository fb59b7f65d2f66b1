//! Artifacts: a document of any type, with layers of the store, in a registry or a layout.
//!
//! A layout is a directory as image-spec `image-layout.md` has it. It may be anybody's: names in it are resolved below it,
//! lengths are bounded and digests compared. Writers exclude each other by a lock on `index.json.lock`; blobs and then
//! `index.json` are replaced by rename, so that whoever reads sees the one or the other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use hull_fs::Root;
use hull_fs::lock::Lock;
use hull_layer::compression::Compression;
use hull_oci::image::{Descriptor, Document, Index, MAX_MANIFEST_BYTES, Manifest, media_type};
use hull_oci::{Digest, Reference};
use hull_registry::client::{Content as _, Put};
use hull_registry::{Client, Remote};
use rustix::fs::OFlags;

use super::pull::layer;
use super::push::{Stored, compress, held};
use super::{Event, Progress, in_parallel};
use crate::{Error, Layer, Transfer};

/// Layers that go or come at once.
const AT_ONCE: usize = 4;
/// The annotation with an entry's tag.
const TAG: &str = "org.opencontainers.image.ref.name";

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Artifact<'a> {
    /// Type of the document, which is the artifact's own.
    pub media_type: &'a str,
    /// The document.
    pub config: &'a [u8],
    /// Diff IDs of its layers, which are in the store.
    pub layers: &'a [Digest],
}

/// How layers are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// By gzip.
    #[default]
    Gzip,
    /// By zstd.
    Zstd,
    /// As they are.
    Plain,
}

/// A manifest with its bytes and blobs.
struct Packed {
    bytes: Vec<u8>,
    manifest: Manifest,
    layers: Vec<(Descriptor, Layer)>,
}

/// The blobs of an artifact, compressed once for all who send them later, and its manifest.
fn pack(
    transfer: &Transfer,
    artifact: &Artifact<'_>,
    packing: Packing,
    progress: &dyn Progress,
) -> Result<Packed, Error> {
    let blobs: Mutex<BTreeMap<Digest, (Descriptor, Layer)>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    in_parallel(artifact.layers, threads, |diff_id| {
        let found = transfer.find_layer(diff_id)?;
        let layer = found.ok_or_else(|| Error::image(diff_id, "the layer is not in the store any more"))?;
        let blob = packed(transfer, &layer, packing, progress)?;
        let mut blobs = blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.insert(diff_id.clone(), (blob, layer));
        Ok(())
    })?;
    let blobs = blobs.into_inner().unwrap_or_else(PoisonError::into_inner);
    let layers: Vec<(Descriptor, Layer)> = artifact.layers.iter().filter_map(|one| blobs.get(one).cloned()).collect();
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.to_owned(),
        artifact_type: Some(artifact.media_type.to_owned()),
        config: Descriptor::of(artifact.media_type, artifact.config),
        layers: layers.iter().map(|(blob, _)| blob.clone()).collect(),
        annotations: BTreeMap::new(),
        subject: None,
    };
    let failed = |error: serde_json::Error| Error::image(artifact.media_type, error.to_string());
    let bytes = serde_json::to_vec(&manifest).map_err(failed)?;
    Ok(Packed { bytes, manifest, layers })
}

fn packed(transfer: &Transfer, layer: &Layer, packing: Packing, progress: &dyn Progress) -> Result<Descriptor, Error> {
    let (compression, kind) = match packing {
        Packing::Plain => return Ok(Descriptor::new(media_type::LAYER, layer.diff_id.clone(), layer.tar_size)),
        Packing::Gzip => (Compression::Gzip, media_type::LAYER_GZIP),
        Packing::Zstd => (Compression::Zstd, media_type::LAYER_ZSTD),
    };
    // A blob may go for want of space while this looks at it.
    if let Ok(Some(blob)) = held(transfer.store(), layer)
        && blob.media_type == kind
        && transfer.has_blob(&blob.digest)?
    {
        return Ok(blob);
    }
    progress.layer(&layer.diff_id, Event::Compressing);
    let blob = compress(transfer.store(), transfer, layer, compression)?;
    transfer.keep_compressed(&layer.diff_id, &blob)?;
    Ok(blob)
}

fn content<'a>(transfer: &'a Transfer, blob: &'a Descriptor, layer: &'a Layer) -> Stored<'a> {
    Stored { transfer, blob, layer, sent: Arc::new(AtomicU64::new(0)) }
}

/// The layers of an artifact, packed, for whoever keeps them elsewhere than in a registry or a layout.
#[derive(Debug)]
pub struct Pieces<'a> {
    transfer: &'a Transfer,
    layers: Vec<(Descriptor, Layer)>,
}

impl<'a> Pieces<'a> {
    /// Packs what is not packed yet.
    ///
    /// # Errors
    /// When a layer is not in the store, or cannot be compressed.
    pub fn pack(
        transfer: &'a Transfer,
        artifact: &Artifact<'_>,
        packing: Packing,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        Ok(Self { transfer, layers: pack(transfer, artifact, packing, progress)?.layers })
    }

    /// The blobs, in the order of the artifact's layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.layers.iter().map(|(blob, _)| blob)
    }

    /// Does something with each blob, several at once: it is told its layer's diff ID, and how to read it.
    ///
    /// # Errors
    /// Those of `work`, after all have ended.
    pub fn each<E: Send>(
        &self,
        work: impl Fn(&Descriptor, &Digest, &dyn Fn() -> io::Result<Box<dyn io::Read>>) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        super::at_once(&self.layers, AT_ONCE, |(blob, layer)| {
            work(blob, &layer.diff_id, &|| content(self.transfer, blob, layer).open(0))
        })
    }
}

/// Sends an artifact to a registry under a tag. Returns the manifest's digest.
///
/// # Errors
/// When the registry fails or refuses, or a layer is not in the store.
pub fn push_artifact(
    transfer: &Transfer,
    client: &Arc<Client>,
    reference: &Reference,
    artifact: &Artifact<'_>,
    packing: Packing,
    progress: &dyn Progress,
) -> Result<Digest, Error> {
    let reference = reference.clone().or_latest();
    let Some(tag) = reference.tag().filter(|_| reference.digest().is_none()) else {
        return Err(Error::image(reference.familiar(), "cannot push a digest reference: give it a tag"));
    };
    let remote = client.push_to(&reference)?;
    let packed = pack(transfer, artifact, packing, progress)?;
    in_parallel(&packed.layers, AT_ONCE, |(blob, layer)| {
        remote.put_blob(blob, &content(transfer, blob, layer), &Put::default())?;
        progress.layer(&layer.diff_id, Event::Pushed);
        Ok(())
    })?;
    remote.put_blob(&packed.manifest.config, &artifact.config.to_vec(), &Put::default())?;
    remote.put_manifest(tag, media_type::MANIFEST, &packed.bytes)?;
    Ok(Digest::of(&packed.bytes))
}

/// Writes an artifact into a layout under a tag; what the tag meant before is left as blobs alone. Returns the
/// manifest's digest.
///
/// # Errors
/// When the directory holds something else, or cannot be written.
pub fn write_artifact(
    transfer: &Transfer,
    directory: &Path,
    tag: &str,
    artifact: &Artifact<'_>,
    packing: Packing,
    progress: &dyn Progress,
) -> Result<Digest, Error> {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(Error::io("create directory", &blobs))?;
    let _lock = Lock::exclusive(&directory.join("index.json.lock"))?;
    let packed = pack(transfer, artifact, packing, progress)?;
    for (blob, layer) in &packed.layers {
        let path = blobs.join(blob.digest.hex());
        let there = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == blob.size);
        if !there {
            let part = blobs.join(format!("{}.part", blob.digest.hex()));
            let mut from =
                content(transfer, blob, layer).open(0).map_err(Error::io("read", blob.digest.to_string()))?;
            // Whoever was killed before has left its own.
            let _ = fs::remove_file(&part);
            let mut file = File::create_new(&part).map_err(Error::io("create", &part))?;
            let written = io::copy(&mut from, &mut file).and_then(|_| file.flush());
            let done = written.map_err(Error::io("write", &part));
            let done = done.and_then(|()| fs::rename(&part, &path).map_err(Error::io("rename", &part)));
            if done.is_err() {
                let _ = fs::remove_file(&part);
            }
            done?;
        }
        progress.layer(&layer.diff_id, Event::Pushed);
    }
    let digest = Digest::of(&packed.bytes);
    for (digest, bytes) in [(&packed.manifest.config.digest, artifact.config), (&digest, &packed.bytes)] {
        hull_fs::atomic::write_path(&blobs.join(digest.hex()), bytes, 0o644)?;
    }
    let mut descriptor = Descriptor::new(media_type::MANIFEST, digest.clone(), packed.bytes.len() as u64);
    descriptor.annotations.insert(TAG.to_owned(), tag.to_owned());
    let mut manifests = match Layout::open(directory)?.index()? {
        Some(index) => index.manifests,
        None => Vec::new(),
    };
    manifests.retain(|one| one.annotations.get(TAG).is_none_or(|other| other != tag));
    manifests.push(descriptor);
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests });
    let version = format!(r#"{{"imageLayoutVersion":"{}"}}"#, crate::archive::LAYOUT_VERSION);
    hull_fs::atomic::write_path(&directory.join("oci-layout"), version.as_bytes(), 0o644)?;
    hull_fs::atomic::write_path(&directory.join("index.json"), index.to_string().as_bytes(), 0o644)?;
    Ok(digest)
}

/// A layout that is read.
#[derive(Debug)]
pub struct Layout {
    root: Root,
    name: String,
}

impl Layout {
    /// Opens one.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        Ok(Self { root: Root::open(directory)?, name: directory.display().to_string() })
    }

    fn document(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, Error> {
        let file = match self.root.open_file(Path::new(name), OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => File::from(file),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map_err(Error::io("read", name))?;
        if bytes.len() as u64 > most {
            return Err(Error::image(&self.name, format!("{name} has more than {most} bytes")));
        }
        Ok(Some(bytes))
    }

    /// `index.json`, if there is one.
    fn index(&self) -> Result<Option<Index>, Error> {
        let Some(bytes) = self.document("index.json", MAX_MANIFEST_BYTES)? else { return Ok(None) };
        match Document::parse(&bytes, Some(media_type::INDEX))? {
            Document::Index(index) => Ok(Some(*index)),
            Document::Manifest(_) => Err(Error::image(&self.name, "index.json is not an index")),
        }
    }

    /// The manifest or index of a digest, or else of a tag; `None` if there is none.
    ///
    /// # Errors
    /// When it cannot be read or is not what it should be.
    pub fn find(&self, tag: &str, digest: Option<&Digest>) -> Result<Option<Document>, Error> {
        let Some(index) = self.index()? else { return Ok(None) };
        let fits = |one: &&Descriptor| match digest {
            Some(digest) => one.digest == *digest,
            None => one.annotations.get(TAG).is_some_and(|other| other == tag),
        };
        let Some(found) = index.manifests.iter().find(fits) else { return Ok(None) };
        let bytes = self.bytes(found, MAX_MANIFEST_BYTES)?;
        Ok(Some(Document::parse(&bytes, Some(found.media_type.as_str()).filter(|kind| !kind.is_empty()))?))
    }

    /// A short blob, compared with its digest.
    ///
    /// # Errors
    /// When it is not there, longer than `most`, or another one.
    pub fn bytes(&self, blob: &Descriptor, most: u64) -> Result<Vec<u8>, Error> {
        let found = self.document(&blob_path(blob), most)?;
        let bytes = found.ok_or_else(|| Error::image(&self.name, format!("blob {} is missing", blob.digest)))?;
        super::check(&self.name, blob, &bytes)?;
        Ok(bytes)
    }

    /// Takes layers that the transfer lacks, each of which is compared with both its digests.
    ///
    /// # Errors
    /// When one is not there or another one.
    pub fn fetch(&self, transfer: &Transfer, layers: &[(Descriptor, Digest)]) -> Result<(), Error> {
        for (blob, diff_id) in layers {
            let file = self.root.open_file(Path::new(&blob_path(blob)), OFlags::RDONLY | OFlags::NONBLOCK)?;
            let source =
                crate::LayerSource { blob: Some(blob.clone()), diff_id: Some(diff_id.clone()), keep_blob: false };
            transfer.layer(File::from(file), source)?;
        }
        Ok(())
    }
}

fn blob_path(blob: &Descriptor) -> String {
    format!("blobs/{}/{}", blob.digest.algorithm().as_str(), blob.digest.hex())
}

/// Takes layers of a repository that the transfer lacks, several at once, each of which is compared with both its
/// digests.
///
/// # Errors
/// When the registry fails, or sends something else.
pub fn fetch(
    transfer: &Transfer,
    remote: &Remote,
    layers: &[(Descriptor, Digest)],
    progress: &dyn Progress,
) -> Result<(), Error> {
    in_parallel(layers, AT_ONCE, |(blob, diff_id)| layer(transfer, remote, blob, diff_id, progress))
}
