//! `push`.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hull_layer::compression::{Compression, Encoder};
use hull_oci::image::{Descriptor, Document, Manifest, media_type};
use hull_oci::{Digest, Reference};
use hull_registry::client::{Content, Put, Uploaded};
use hull_registry::{Client, Remote};

use super::lists::{Entry, List};
use super::{Event, Progress, in_parallel};
use crate::indexes::Kept;
use crate::{Error, Image, Layer, Store, Transfer, provenance};

/// Time between two reports.
const REPORT: Duration = Duration::from_millis(100);

/// How to send.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Bytes of one request, for proxies that limit them; `None` sends each layer by one.
    pub chunk: Option<u64>,
    /// Layers that go at once.
    pub at_once: usize,
    /// No tag is moved: the manifest is known by its digest alone.
    pub by_digest: bool,
    /// How it was built does not go along.
    pub alone: bool,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self { chunk: None, at_once: 5, by_digest: false, alone: false }
    }
}

/// What statements are: `application/vnd.in-toto+json`.
pub(super) const STATEMENT: &str = "application/vnd.in-toto+json";

/// What the registry has now.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// Sends an image under a name. The manifest that it came with is sent as it came as long as its compressed layers are
/// held; else layers are compressed here, once, and the image has the new manifest from then on. How it was built goes
/// along, if that is known, as an artifact that refers to the manifest.
///
/// # Errors
/// When the registry fails or refuses, or the store cannot be read.
pub fn push(
    store: &Store,
    client: &Arc<Client>,
    image: &Image,
    reference: &Reference,
    options: &PushOptions,
    progress: &dyn Progress,
) -> Result<Pushed, Error> {
    let reference = reference.clone().or_latest();
    let Some(tag) = reference.tag().filter(|_| reference.digest().is_none()) else {
        return Err(Error::image(reference.familiar(), "cannot push a digest reference: give it a tag"));
    };
    let _pin = store.pin(&image.id)?;
    // What the caller knows of its blobs may be from before they went for want of space.
    let image = &store.get(&image.id)?;
    let remote = client.push_to(&reference)?;
    let transfer = store.begin()?;
    let (bytes, kind, manifest) = match original(store, image)? {
        original if remote.is_machine() => lacking(store, &transfer, &remote, image, original, progress)?,
        Some(original) => original,
        None => compressed(store, &transfer, image, progress)?,
    };
    let sources = sources(store, image, &reference)?;
    let layers: Vec<(&Descriptor, &Layer)> = manifest.layers.iter().zip(&image.layers).collect();
    in_parallel(&layers, options.at_once.max(1), |(blob, layer)| {
        let content = Stored { transfer: &transfer, blob, layer, sent: Arc::new(AtomicU64::new(0)) };
        let put = Put { sources: &sources, chunk: options.chunk };
        progress.layer(&layer.diff_id, Event::Preparing);
        let done = watched(&content, progress, || remote.put_blob(blob, &content, &put));
        let done = done.map_err(|error| refused(&remote, error))?;
        let event = match done {
            Uploaded::Existed => Event::Exists,
            Uploaded::Mounted => Event::Mounted(sources.first().cloned().unwrap_or_default()),
            Uploaded::Sent => Event::Pushed,
        };
        progress.layer(&layer.diff_id, event);
        Ok(())
    })?;
    let config = store.config_bytes(&image.id)?;
    remote.put_blob(&manifest.config, &config, &Put::default()).map_err(|error| refused(&remote, error))?;
    let digest = Digest::of(&bytes);
    let by_digest = options.by_digest.then(|| digest.to_string());
    put_manifest(&remote, by_digest.as_deref().unwrap_or(tag), &kind, &bytes)?;
    if remote.is_machine() {
        return Ok(Pushed { digest, size: bytes.len() as u64 });
    }
    if let Some(predicate) = store.provenance(&image.id)?.filter(|_| !options.alone) {
        let name = reference.repository().to_string();
        let statement = provenance::statement(&name, &digest, &predicate).to_string();
        let subject = Descriptor::of(&kind, &bytes);
        let annotations = [("in-toto.io/predicate-type", provenance::PREDICATE)];
        super::sign::referring(&remote, subject, STATEMENT, statement.as_bytes(), &annotations)?;
    }
    // From now on the store knows where it is.
    transfer.image(&config, Some((&bytes, &kind)), &[reference.with_digest(digest.clone())])?;
    Ok(Pushed { digest, size: bytes.len() as u64 })
}

/// Sends what a name means: one image as [`push`] does, several for different platforms as an index of them, each known
/// by its digest. The index that they came from goes as it came as long as all its images are among them, with what is
/// said of them. Gives the digest and length of what the name leads to, after what was pushed for each image.
///
/// # Errors
/// As [`push`].
pub fn push_platforms(
    store: &Store,
    client: &Arc<Client>,
    images: &[Image],
    reference: &Reference,
    options: &PushOptions,
    progress: &dyn Progress,
) -> Result<(Vec<Pushed>, Pushed), Error> {
    let reference = reference.clone().or_latest();
    if let [image] = images
        && store.indexes_of(images, image.manifest.as_slice())?.is_empty()
    {
        let pushed = push(store, client, image, &reference, options, progress)?;
        return Ok((vec![pushed.clone()], pushed));
    }
    let one = PushOptions { by_digest: true, ..options.clone() };
    let (mut all, mut entries) = (Vec::with_capacity(images.len()), Vec::with_capacity(images.len()));
    for image in images {
        let pushed = push(store, client, image, &reference, &one, progress)?;
        let kind = kind_of(store, image)?;
        let mut descriptor = Descriptor::new(&kind, pushed.digest.clone(), pushed.size);
        descriptor.platform = Some(image.config.platform.clone());
        entries.push(Entry { reference: reference.with_digest(pushed.digest.clone()).to_string(), descriptor });
        all.push(pushed);
    }
    let manifests: Vec<Digest> = all.iter().map(|pushed| pushed.digest.clone()).collect();
    let remote = client.push_to(&reference)?;
    let mut kept = None;
    for one in store.indexes_of(images, &manifests)? {
        if bring_statements(client, &remote, &reference, &one)? {
            kept = Some(one);
            break;
        }
    }
    let (bytes, kind) = match (kept, images) {
        (Some(kept), _) => (kept.bytes, kept.media_type),
        (None, [image]) => {
            let pushed = push(store, client, image, &reference, options, progress)?;
            return Ok((all, pushed));
        }
        (None, _) => {
            let (bytes, kind) = List { name: reference.to_string(), entries }.document()?;
            (bytes, kind.to_owned())
        }
    };
    let digest = Digest::of(&bytes);
    let by_digest = options.by_digest.then(|| digest.to_string());
    let word = by_digest.as_deref().or(reference.tag()).unwrap_or("latest");
    remote.put_manifest(word, &kind, &bytes).map_err(|error| refused(&remote, error))?;
    if let Some(image) = images.first().filter(|_| !remote.is_machine()) {
        store.begin()?.index(&image.id, &reference.with_digest(digest.clone()), (&bytes, &kind))?;
    }
    Ok((all, Pushed { digest, size: bytes.len() as u64 }))
}

/// Brings what an index names beside images into the repository that the index goes to; `false` when where they came
/// from does not give them any more.
fn bring_statements(client: &Arc<Client>, to: &Remote, name: &Reference, kept: &Kept) -> Result<bool, Error> {
    let mut from = None;
    for statement in kept.statements() {
        // Another machine's store keeps images only.
        if to.is_machine() {
            return Ok(false);
        }
        let digest = statement.digest.to_string();
        if to.manifest(&digest).is_ok() {
            continue;
        }
        let source: Reference = kept.repository.parse()?;
        if from.is_none() {
            from = client.pull_from(&source).ok();
        }
        let Some(remote) = &from else { return Ok(false) };
        let Ok(fetched) = remote.manifest(&digest) else { return Ok(false) };
        let Document::Manifest(manifest) = &fetched.document else { return Ok(false) };
        super::lists::copy(remote, to, &source, name, manifest)?;
        to.put_manifest(&digest, &fetched.descriptor.media_type, &fetched.bytes)?;
    }
    Ok(true)
}

/// The type of an image's manifest.
pub(super) fn kind_of(store: &Store, image: &Image) -> Result<String, Error> {
    let bytes = store.manifest_bytes(&image.id)?;
    let kind = bytes.and_then(|bytes| match Document::parse(&bytes, None) {
        Ok(Document::Manifest(manifest)) => Some(manifest.media_type).filter(|kind| !kind.is_empty()),
        _ => None,
    });
    Ok(kind.unwrap_or_else(|| media_type::MANIFEST.to_owned()))
}

/// An old Hull serves its store for reading only.
fn refused(remote: &Remote, error: hull_registry::Error) -> Error {
    match error {
        hull_registry::Error::Refused { refusal, .. } if remote.is_machine() && refusal.status == 405 => {
            let reason = "the hull there takes no images: install this version or a later one there";
            Error::image(remote.name(), reason)
        }
        other => other.into(),
    }
}

fn put_manifest(remote: &Remote, tag: &str, kind: &str, bytes: &[u8]) -> Result<(), Error> {
    remote.put_manifest(tag, kind, bytes)?;
    Ok(())
}

/// The manifest that the image came with, if every layer can be sent as it says.
fn original(store: &Store, image: &Image) -> Result<Option<Written>, Error> {
    let Some(bytes) = store.manifest_bytes(&image.id)? else { return Ok(None) };
    let Document::Manifest(manifest) = Document::parse(&bytes, None)? else { return Ok(None) };
    let held = manifest.layers.len() == image.layers.len()
        && manifest
            .layers
            .iter()
            .zip(&image.layers)
            .all(|(blob, layer)| blob.digest == layer.diff_id || store.open_blob(&blob.digest).is_ok());
    if !held {
        return Ok(None);
    }
    let named = Some(manifest.media_type.clone()).filter(|name| !name.is_empty());
    let kind = named.unwrap_or_else(|| media_type::MANIFEST.to_owned());
    Ok(Some((bytes, kind, *manifest)))
}

/// A manifest of layers that are compressed by gzip, which every registry and engine takes. Compressing is
/// deterministic: the same layer has the same blob wherever it is done.
fn compressed(store: &Store, transfer: &Transfer, image: &Image, progress: &dyn Progress) -> Result<Written, Error> {
    let blobs: Mutex<Vec<(Digest, Descriptor)>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    in_parallel(&image.layers, threads, |layer| {
        let blob = match held(store, layer)? {
            Some(blob) => blob,
            None => {
                progress.layer(&layer.diff_id, Event::Compressing);
                compress(store, transfer, layer, Compression::Gzip)?
            }
        };
        blobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((layer.diff_id.clone(), blob));
        Ok(())
    })?;
    let blobs = blobs.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let config = store.config_bytes(&image.id)?;
    let of = |layer: &Layer| blobs.iter().find(|(diff_id, _)| *diff_id == layer.diff_id).map(|(_, blob)| blob.clone());
    let made = manifest(image, &config, image.layers.iter().filter_map(of).collect())?;
    transfer.image(&config, Some((&made.0, &made.1)), &[])?;
    Ok(made)
}

/// A layer's compressed blob, if the store has it.
pub(super) fn held(store: &Store, layer: &Layer) -> Result<Option<Descriptor>, Error> {
    let Some((digest, size)) = layer.blob.as_ref().filter(|(digest, _)| *digest != layer.diff_id) else {
        return Ok(None);
    };
    let mut magic = [0; 4];
    let mut file = store.open_blob(digest)?;
    file.read_exact(&mut magic).map_err(Error::io("read", digest.to_string()))?;
    let kind = match Compression::detect(&magic) {
        Some(Compression::Zstd) => media_type::LAYER_ZSTD,
        _ => media_type::LAYER_GZIP,
    };
    Ok(Some(Descriptor::new(kind, digest.clone(), *size)))
}

/// A manifest, with its bytes and type.
type Written = (Vec<u8>, String, Manifest);

/// The manifest of an image whose layers are these blobs.
fn manifest(image: &Image, config: &[u8], layers: Vec<Descriptor>) -> Result<Written, Error> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.to_owned(),
        artifact_type: None,
        config: Descriptor::of(media_type::CONFIG, config),
        layers,
        annotations: std::collections::BTreeMap::new(),
        subject: None,
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|error| Error::image(&image.id, error.to_string()))?;
    Ok((bytes, media_type::MANIFEST.to_owned(), manifest))
}

/// The manifest for another machine's store, which knows layers by what is in them too: one that it has in any form is
/// named in a form that it has, so that nothing of it is sent, nor compressed for that. The manifest that the image
/// came with stays as it is if its blobs are those that are there or sent.
fn lacking(
    store: &Store,
    transfer: &Transfer,
    remote: &Remote,
    image: &Image,
    original: Option<Written>,
    progress: &dyn Progress,
) -> Result<Written, Error> {
    let has = |digest: &Digest| remote.mount(digest).map_err(|error| refused(remote, error));
    let mut changed = original.is_none();
    let mut layers: Vec<Descriptor> = Vec::new();
    for (index, layer) in image.layers.iter().enumerate() {
        let named = original.as_ref().and_then(|(_, _, manifest)| manifest.layers.get(index).cloned());
        let known = match named {
            Some(blob) => Some(blob),
            None => held(store, layer)?,
        };
        let blob = match known {
            Some(blob) if has(&blob.digest)? => blob,
            known => {
                let other = known.as_ref().is_none_or(|blob| blob.digest != layer.diff_id);
                if other && has(&layer.diff_id)? {
                    changed = true;
                    Descriptor::new(media_type::LAYER, layer.diff_id.clone(), layer.tar_size)
                } else if let Some(blob) = known {
                    blob
                } else {
                    progress.layer(&layer.diff_id, Event::Compressing);
                    compress(store, transfer, layer, Compression::Gzip)?
                }
            }
        };
        layers.push(blob);
    }
    match original {
        Some(original) if !changed => Ok(original),
        _ => manifest(image, &store.config_bytes(&image.id)?, layers),
    }
}

/// A layer's blob, compressed just now; the same layer has the same one wherever that is done.
pub(super) fn compress(
    store: &Store,
    transfer: &Transfer,
    layer: &Layer,
    compression: Compression,
) -> Result<Descriptor, Error> {
    let path = transfer.directory()?.join("blob");
    let file = File::create_new(&path).map_err(Error::io("create", &path))?;
    let mut tar = store.layer_tar(layer)?;
    let mut encoder = Encoder::new(compression, None, io::BufWriter::with_capacity(256 << 10, file))?;
    io::copy(&mut tar, &mut encoder).map_err(Error::io("compress", layer.diff_id.to_string()))?;
    let output = encoder.finish().map_err(Error::io("write", &path))?;
    output.into_inner().map_err(|error| Error::io("write", &path)(error.into_error()))?;
    let mut blob = transfer.blob(File::open(&path).map_err(Error::io("open", &path))?, None)?;
    std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    blob.media_type = match compression {
        Compression::Zstd => media_type::LAYER_ZSTD,
        _ => media_type::LAYER_GZIP,
    }
    .to_owned();
    Ok(blob)
}

/// Repositories of the same registry that are known to have the image's layers.
fn sources(store: &Store, image: &Image, reference: &Reference) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for other in store.list()? {
        if !other.layers.iter().any(|layer| image.layers.iter().any(|own| own.diff_id == layer.diff_id)) {
            continue;
        }
        for (repository, _) in &other.repo_digests {
            if let Some((domain, path)) = repository.split_once('/')
                && domain == reference.domain()
                && path != reference.path()
                && !found.iter().any(|known| known == path)
            {
                found.push(path.to_owned());
            }
        }
    }
    Ok(found)
}

/// Reports how much of a blob was sent while `work` sends it: whatever reads it may be anywhere.
fn watched<T>(content: &Stored<'_>, progress: &dyn Progress, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reporter = scope.spawn(|| {
            let mut reported = 0;
            while !done.load(Ordering::Acquire) {
                let sent = content.sent.load(Ordering::Relaxed);
                if sent != reported {
                    reported = sent;
                    progress.layer(&content.layer.diff_id, Event::Pushing(sent, content.blob.size));
                }
                std::thread::park_timeout(REPORT);
            }
        });
        let result = work();
        done.store(true, Ordering::Release);
        reporter.thread().unpark();
        result
    })
}

/// A layer's blob, in the store or compressed just now.
pub(super) struct Stored<'a> {
    pub(super) transfer: &'a Transfer,
    pub(super) blob: &'a Descriptor,
    pub(super) layer: &'a Layer,
    /// Where the reader is.
    pub(super) sent: Arc<AtomicU64>,
}

/// Tells how far it has been read.
struct Counted<R> {
    inner: R,
    sent: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.sent.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Content for Stored<'_> {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read>> {
        self.sent.store(offset, Ordering::Relaxed);
        let sent = Arc::clone(&self.sent);
        if self.blob.digest != self.layer.diff_id {
            let mut file = self.transfer.open_blob(&self.blob.digest).map_err(io::Error::other)?;
            file.seek(SeekFrom::Start(offset))?;
            return Ok(Box::new(Counted { inner: file, sent }));
        }
        let mut tar = self.transfer.store().layer_tar(self.layer).map_err(io::Error::other)?;
        io::copy(&mut tar.by_ref().take(offset), &mut io::sink())?;
        Ok(Box::new(Counted { inner: tar, sent }))
    }
}
