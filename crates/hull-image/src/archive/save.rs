//! Writing images: what `docker save` of version 28 writes, an OCI layout, or both at once.
//!
//! ```text
//! oci-layout  index.json  manifest.json  repositories     first, so that a reader of a stream knows what follows
//! blobs/sha256/HEX                                        manifests, configurations, then layers, each once
//! ```
//!
//! An image that came with a manifest leaves with it, byte for byte, while the store still holds the blobs that it
//! names. Otherwise a manifest is made that names the uncompressed layers. Nothing depends on the machine or the time: the
//! same images make the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write};
use std::path::Path;

use hull_layer::compression::{Compression, Encoder};
use hull_oci::digest::Hasher;
use hull_oci::image::{Descriptor, Document, Index, Manifest, Platform, media_type};
use hull_oci::{Digest, Reference};

use super::layout::{LAYOUT_VERSION, NAME_ANNOTATION, REF_NAME_ANNOTATION};
use super::resolve::blob_name;
use super::sink::{self, Sink};
use crate::registry::{Attestation, Predicate};
use crate::{Error, Image, Layer, Store};

/// What is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// An OCI layout that is a Docker archive too, as Docker writes it since version 25.
    #[default]
    Docker,
    /// An OCI layout only.
    Oci,
}

/// How layers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layers {
    /// As the image's manifest has them, if the store still holds that; else uncompressed.
    #[default]
    Original,
    /// Uncompressed.
    Plain,
    /// Compressed by gzip. The bytes depend on nothing but the layer.
    Gzip,
    /// Compressed by zstd. The bytes depend on nothing but the layer.
    Zstd,
}

/// What [`save`] writes, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct SaveOptions<'a> {
    /// The format.
    pub format: Format,
    /// The layers.
    pub layers: Layers,
    /// All images are one for several platforms, also without a name. Those that share a name are in any case.
    pub together: bool,
    /// What is said of each image, in an index beside it.
    pub predicates: &'a [Vec<Predicate>],
}

/// Images with the names to save them under, as the words of a command line ask for them.
///
/// A name saves that name; a repository without tag saves all its tags; an ID saves the image without names. An image
/// that is asked for twice is saved once, with all the names.
///
/// # Errors
/// [`Error::NoImage`].
pub fn select(store: &Store, words: &[String]) -> Result<Vec<(Image, Vec<Reference>)>, Error> {
    let mut selected: Vec<(Image, Vec<Reference>)> = Vec::new();
    let mut add = |image: Image, names: Vec<Reference>| match selected.iter_mut().find(|(one, _)| one.id == image.id) {
        Some((_, present)) => {
            present.extend(names);
            present.sort();
            present.dedup();
        }
        None => selected.push((image, names)),
    };
    let mut all = None;
    for word in words {
        let name = word.parse::<Reference>().ok();
        if let Some(repository) = name.as_ref().filter(|name| name.tag().is_none() && name.digest().is_none()) {
            if all.is_none() {
                all = Some(store.list()?);
            }
            let mut found = false;
            for image in all.iter().flatten() {
                let of_it = |one: &&Reference| one.repository() == repository.repository();
                let names: Vec<Reference> = image.names.iter().filter(of_it).cloned().collect();
                if !names.is_empty() {
                    found = true;
                    add(image.clone(), names);
                }
            }
            if found {
                continue;
            }
        }
        let image = store.find(word)?;
        let named = name.map(Reference::or_latest).filter(|name| image.names.contains(name));
        add(image, named.into_iter().collect());
    }
    // What a name means on other platforms goes with it.
    for (_, names) in selected.clone() {
        for name in names {
            for image in store.find_all(&name.to_string())?.into_iter().skip(1) {
                match selected.iter_mut().find(|(one, _)| one.id == image.id) {
                    Some((_, present)) => present.push(name.clone()),
                    None => selected.push((image, vec![name.clone()])),
                }
            }
        }
    }
    Ok(selected)
}

/// Keeps of selected images those for some platforms; all of them when none is asked for.
///
/// # Errors
/// [`Error::Platform`] when something that was selected has nothing for one of them.
pub fn retain_platforms(images: &mut Vec<(Image, Vec<Reference>)>, platforms: &[Platform]) -> Result<(), Error> {
    let suits = |image: &Image, wanted: &Platform| image.config.platform.suits(wanted).is_some();
    for wanted in platforms {
        for (image, names) in images.iter() {
            // What it is on another platform may stand beside it.
            let beside = |(other, of): &(Image, Vec<Reference>)| {
                suits(other, wanted) && names.iter().any(|name| of.contains(name))
            };
            if !suits(image, wanted) && !images.iter().any(beside) {
                let name = names.first().map_or_else(|| image.id.short().to_owned(), Reference::familiar);
                let (wanted, actual) = (wanted.to_string(), image.config.platform.to_string());
                return Err(Error::Platform { name, wanted, actual });
            }
        }
    }
    if !platforms.is_empty() {
        images.retain(|(image, _)| platforms.iter().any(|wanted| suits(image, wanted)));
    }
    Ok(())
}

/// Writes images as one tar stream.
///
/// # Errors
/// When the output or the store fails; what has been written is then no archive.
pub fn save(
    store: &Store,
    images: &[(Image, Vec<Reference>)],
    options: SaveOptions<'_>,
    output: impl Write,
) -> Result<(), Error> {
    write(store, images, options, Box::new(sink::Tar::new(output)))
}

/// Writes images as an OCI layout into a directory that is empty or does not exist yet.
///
/// # Errors
/// As [`save`]; what has been written is no layout then, because it has no `index.json`.
pub fn save_directory(
    store: &Store,
    images: &[(Image, Vec<Reference>)],
    options: SaveOptions<'_>,
    directory: &Path,
) -> Result<(), Error> {
    let options = SaveOptions { format: Format::Oci, ..options };
    write(store, images, options, Box::new(sink::Directory::create(directory)?))
}

/// An image as it is written.
struct Planned {
    config: Vec<u8>,
    manifest: Vec<u8>,
    manifest_type: String,
    layers: Vec<(Digest, Descriptor)>,
}

/// Where a blob's bytes are.
enum Content {
    Bytes(Vec<u8>),
    File(File),
    /// The layer's uncompressed archive.
    Layer(Layer),
    /// A blob of the store.
    Blob(Digest),
}

#[derive(Default)]
struct Blobs {
    documents: Vec<(Descriptor, Content)>,
    layers: Vec<(Descriptor, Content)>,
    known: BTreeSet<Digest>,
    /// Compressed anew, by diff ID.
    compressed: BTreeMap<Digest, Descriptor>,
}

impl Blobs {
    fn document(&mut self, descriptor: Descriptor, bytes: Vec<u8>) {
        if self.known.insert(descriptor.digest.clone()) {
            self.documents.push((descriptor, Content::Bytes(bytes)));
        }
    }

    fn layer(&mut self, descriptor: &Descriptor, content: Content) {
        if self.known.insert(descriptor.digest.clone()) {
            self.layers.push((descriptor.clone(), content));
        }
    }
}

fn write(
    store: &Store,
    images: &[(Image, Vec<Reference>)],
    options: SaveOptions<'_>,
    mut sink: Box<dyn Sink + '_>,
) -> Result<(), Error> {
    // Nobody removes what is being written.
    let _pins = images.iter().map(|(image, _)| store.pin(&image.id)).collect::<Result<Vec<_>, _>>()?;
    let mut blobs = Blobs::default();
    let mut planned = Vec::with_capacity(images.len());
    for (image, names) in images {
        let plan = plan(store, image, options.layers, &mut blobs)?;
        let manifest = Descriptor::of(&plan.manifest_type, &plan.manifest);
        blobs.document(manifest.clone(), plan.manifest.clone());
        blobs.document(Descriptor::of(media_type::CONFIG, &plan.config), plan.config.clone());
        planned.push((plan, manifest, names.as_slice()));
    }
    let platforms: Vec<Platform> = images.iter().map(|(image, _)| image.config.platform.clone()).collect();
    let mut attestations = Vec::new();
    for ((place, (_, manifest, names)), platform) in planned.iter().enumerate().zip(&platforms) {
        let predicates = options.predicates.get(place).map(Vec::as_slice).unwrap_or_default();
        let attestation = Attestation::new(names, &manifest.digest, platform, predicates);
        attestations.push(attestation.map(|Attestation { descriptor, manifest, blobs: parts }| {
            let bare = Descriptor::new(media_type::MANIFEST, descriptor.digest.clone(), descriptor.size);
            blobs.document(bare, manifest);
            parts.into_iter().for_each(|(part, bytes)| blobs.document(part, bytes));
            descriptor
        }));
    }
    let top = index(&planned, (&platforms, &attestations), options.together, &mut blobs);
    let put = |sink: &mut dyn Sink, name: &str, bytes: Vec<u8>| sink.file(name, bytes.len() as u64, &mut &bytes[..]);
    put(&mut *sink, "oci-layout", format!(r#"{{"imageLayoutVersion": "{LAYOUT_VERSION}"}}"#).into_bytes())?;
    put(&mut *sink, "index.json", json(&top))?;
    if options.format == Format::Docker {
        put(&mut *sink, "manifest.json", json(&docker_manifest(&planned)))?;
        let repositories = repositories(&planned);
        if !repositories.is_empty() {
            put(&mut *sink, "repositories", json(&repositories))?;
        }
    }
    sink.directory("blobs")?;
    let mut algorithms = BTreeSet::new();
    for (descriptor, content) in blobs.documents.into_iter().chain(blobs.layers) {
        let algorithm = descriptor.digest.algorithm().as_str();
        if algorithms.insert(algorithm) {
            sink.directory(&format!("blobs/{algorithm}"))?;
        }
        let name = blob_name(&descriptor.digest);
        match content {
            Content::Bytes(bytes) => sink.file(&name, descriptor.size, &mut &bytes[..])?,
            Content::File(mut file) => sink.file(&name, descriptor.size, &mut file)?,
            Content::Layer(layer) => sink.file(&name, descriptor.size, &mut store.layer_tar(&layer)?)?,
            Content::Blob(digest) => sink.file(&name, descriptor.size, &mut store.open_blob(&digest)?)?,
        }
    }
    sink.finish()
}

/// Documents of Hull's own types always serialise.
fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// Decides which manifest an image is written with, and where its layers' bytes come from.
fn plan(store: &Store, image: &Image, layers: Layers, blobs: &mut Blobs) -> Result<Planned, Error> {
    let config = store.config_bytes(&image.id)?;
    if layers == Layers::Original
        && let Some((bytes, manifest)) = original(store, image)?
    {
        let mut planned = Vec::with_capacity(image.layers.len());
        let kept = manifest.layers.into_iter().filter(|blob| media_type::is_layer(&blob.media_type));
        for (layer, blob) in image.layers.iter().zip(kept) {
            let content = match blob.digest == layer.diff_id {
                true => Content::Layer(layer.clone()),
                false => Content::Blob(blob.digest.clone()),
            };
            blobs.layer(&blob, content);
            planned.push((layer.diff_id.clone(), blob));
        }
        let manifest_type = match manifest.media_type.as_str() {
            "" => media_type::MANIFEST.to_owned(),
            given => given.to_owned(),
        };
        return Ok(Planned { config, manifest: bytes, manifest_type, layers: planned });
    }
    let mut planned = Vec::with_capacity(image.layers.len());
    for layer in &image.layers {
        planned.push((layer.diff_id.clone(), layer_blob(store, layer, layers, blobs)?));
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.to_owned(),
        artifact_type: None,
        config: Descriptor::of(media_type::CONFIG, &config),
        layers: planned.iter().map(|(_, blob)| blob.clone()).collect(),
        annotations: BTreeMap::new(),
        subject: None,
    };
    let manifest_type = media_type::MANIFEST.to_owned();
    Ok(Planned { config, manifest: json(&manifest), manifest_type, layers: planned })
}

/// The manifest that the image came with, if the store holds all of its blobs.
fn original(store: &Store, image: &Image) -> Result<Option<(Vec<u8>, Manifest)>, Error> {
    let Some(bytes) = store.manifest_bytes(&image.id)? else { return Ok(None) };
    let Document::Manifest(manifest) = Document::parse(&bytes, None)? else { return Ok(None) };
    let held = |blob: &Descriptor, layer: &Layer| blob.digest == layer.diff_id || store.open_blob(&blob.digest).is_ok();
    // What the store does not keep (statements beside layers) cannot be written either.
    if manifest.layers.len() != image.layers.len() {
        return Ok(None);
    }
    let all = manifest.layers.iter().zip(&image.layers).all(|(blob, layer)| held(blob, layer));
    Ok(all.then_some((bytes, *manifest)))
}

fn layer_blob(store: &Store, layer: &Layer, layers: Layers, blobs: &mut Blobs) -> Result<Descriptor, Error> {
    if matches!(layers, Layers::Original | Layers::Plain) {
        let blob = Descriptor::new(media_type::LAYER, layer.diff_id.clone(), layer.tar_size);
        blobs.layer(&blob, Content::Layer(layer.clone()));
        return Ok(blob);
    }
    if let Some(present) = blobs.compressed.get(&layer.diff_id) {
        return Ok(present.clone());
    }
    let (file, digest, size) = compress(store, layer, layers)?;
    let media_type = if layers == Layers::Gzip { media_type::LAYER_GZIP } else { media_type::LAYER_ZSTD };
    let blob = Descriptor::new(media_type, digest, size);
    blobs.layer(&blob, Content::File(file));
    blobs.compressed.insert(layer.diff_id.clone(), blob.clone());
    Ok(blob)
}

/// Hashes and counts what is written.
struct Counting<W: Write> {
    output: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let length = self.output.write(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}

/// Compresses a layer into a file without name: its size and digest stand before its bytes.
fn compress(store: &Store, layer: &Layer, layers: Layers) -> Result<(File, Digest, u64), Error> {
    let file = super::unnamed_file(store)?;
    let counting = Counting { output: file, hasher: Hasher::new(hull_oci::digest::Algorithm::Sha256), size: 0 };
    let mut input = store.layer_tar(layer)?;
    let failed = |error| Error::io("compress", layer.diff_id.to_string())(error);
    let format = if layers == Layers::Gzip { Compression::Gzip } else { Compression::Zstd };
    let mut encoder = Encoder::new(format, None, counting)?;
    std::io::copy(&mut input, &mut encoder).map_err(failed)?;
    let Counting { output: mut file, hasher, size } = encoder.finish().map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok((file, hasher.finish(), size))
}

fn list(manifests: Vec<Descriptor>) -> Index {
    Index {
        schema_version: 2,
        media_type: media_type::INDEX.to_owned(),
        artifact_type: None,
        manifests,
        annotations: BTreeMap::new(),
        subject: None,
    }
}

/// `index.json`. Images for several platforms that share a name, or are `together`, are an index of their own.
fn index(
    planned: &[(Planned, Descriptor, &[Reference])],
    (platforms, attestations): (&[Platform], &[Option<Descriptor>]),
    together: bool,
    blobs: &mut Blobs,
) -> Index {
    let mut manifests = Vec::new();
    let mut nested = |members: &[usize]| -> Option<Descriptor> {
        let said = |place: &usize| attestations.get(*place).cloned().flatten();
        if let [one] = members
            && said(one).is_none()
        {
            return planned.get(*one).map(|(_, manifest, _)| manifest.clone());
        }
        let entry = |place: &usize| {
            let mut descriptor = planned.get(*place)?.1.clone();
            descriptor.platform = platforms.get(*place).cloned();
            Some(descriptor)
        };
        let bytes = json(&list(members.iter().filter_map(entry).chain(members.iter().filter_map(said)).collect()));
        let descriptor = Descriptor::of(media_type::INDEX, &bytes);
        blobs.document(descriptor.clone(), bytes);
        Some(descriptor)
    };
    let mut seen: BTreeSet<&Reference> = BTreeSet::new();
    let all: Vec<usize> = (0..planned.len()).collect();
    let one_index = all.len() > 1 || attestations.iter().any(Option::is_some);
    if together && one_index && planned.iter().all(|(_, _, names)| names.is_empty()) {
        return list(nested(&all).into_iter().collect());
    }
    for (place, (_, manifest, names)) in planned.iter().enumerate() {
        if names.is_empty() {
            manifests.push(manifest.clone());
        }
        for name in *names {
            if !seen.insert(name) {
                continue;
            }
            let members: Vec<usize> =
                all.iter().copied().filter(|one| *one >= place && planned[*one].2.contains(name)).collect();
            let Some(mut named) = nested(&members) else { continue };
            named.annotations.insert(NAME_ANNOTATION.to_owned(), name.to_string());
            named.annotations.insert(REF_NAME_ANNOTATION.to_owned(), name.tag().unwrap_or_default().to_owned());
            manifests.push(named);
        }
    }
    list(manifests)
}

/// An item of `manifest.json`.
#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
    layer_sources: BTreeMap<String, Descriptor>,
}

fn docker_manifest(planned: &[(Planned, Descriptor, &[Reference])]) -> Vec<Item> {
    let item = |(plan, _, names): &(Planned, Descriptor, &[Reference])| Item {
        config: blob_name(&Digest::of(&plan.config)),
        repo_tags: (!names.is_empty()).then(|| names.iter().map(Reference::familiar).collect()),
        layers: plan.layers.iter().map(|(_, blob)| blob_name(&blob.digest)).collect(),
        layer_sources: plan.layers.iter().map(|(diff_id, blob)| (diff_id.to_string(), blob.clone())).collect(),
    };
    firsts(planned).into_iter().map(item).collect()
}

/// What engines that know one platform are told: of several images of one name the first.
fn firsts<'p>(
    planned: &'p [(Planned, Descriptor, &'p [Reference])],
) -> Vec<&'p (Planned, Descriptor, &'p [Reference])> {
    let mut seen: BTreeSet<&Reference> = BTreeSet::new();
    planned.iter().filter(|(_, _, names)| names.is_empty() || names.iter().any(|name| seen.insert(name))).collect()
}

/// Docker's oldest index: repository, tag, uppermost layer.
fn repositories(planned: &[(Planned, Descriptor, &[Reference])]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (plan, _, names) in firsts(planned) {
        let Some((_, top)) = plan.layers.last() else { continue };
        for name in *names {
            let tags = repositories.entry(name.familiar_repository()).or_default();
            tags.insert(name.tag().unwrap_or_default().to_owned(), top.digest.hex().to_owned());
        }
    }
    repositories
}
