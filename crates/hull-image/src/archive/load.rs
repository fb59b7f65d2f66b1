//! Reading images into the store, in one transfer. Images are recorded when all layers of all of them have been read and
//! verified.
//!
//! From an uncompressed file or a directory, documents are read first and then the missing layers, several at once, each
//! straight from its place. A stream is read once, in whatever order its members come: what begins like a layer goes
//! into the store while it passes by, documents are kept in memory, and what the images are is found at the end. Layers
//! that no image names vanish with the transfer.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hull_layer::compression::{Compression, Decoder, PREFIX, peek};
use hull_layer::{Limits, tar};
use hull_oci::image::{Descriptor, MAX_CONFIG_BYTES, Platform};
use hull_oci::{Digest, Reference};

use super::resolve::{Found, LayerAt, refuse, resolve};
use super::table::{Archive, Member, Skimming, Table, link};
use crate::{Error, Image, LayerSource, Store, Transfer};

/// What to take of an archive.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The platforms to take where there are several; without any, all of what has a name.
    pub platforms: Vec<Platform>,
    /// Where to add the bytes that have been read, for whoever wants to know how far it is.
    pub read: Option<Arc<AtomicU64>>,
}

/// Adds the bytes that are read to a number.
struct Counted<R>(R, Option<Arc<AtomicU64>>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        if let Some(sum) = &self.1 {
            sum.fetch_add(count as u64, Ordering::Relaxed);
        }
        Ok(count)
    }
}

/// An image that has been loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The image.
    pub image: Image,
    /// The names that the archive gave it, and that mean it where no platform is asked for.
    pub names: Vec<Reference>,
    /// The names that mean it where its platform is asked for.
    pub variant_of: Vec<Reference>,
}

impl Loaded {
    /// What `docker load` prints of it: nothing of what is behind a name on another platform.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        if self.names.is_empty() && self.variant_of.is_empty() {
            return vec![format!("Loaded image ID: {}", self.image.id)];
        }
        self.names.iter().map(|name| format!("Loaded image: {}", name.familiar())).collect()
    }
}

/// Loads from a file, which may be compressed, or from the directory of an OCI layout.
///
/// # Errors
/// As [`load`].
pub fn load_path(store: &Store, path: &Path, options: &LoadOptions) -> Result<Vec<Loaded>, Error> {
    let metadata = std::fs::metadata(path).map_err(Error::io("open", path))?;
    if metadata.is_dir() {
        let archive = Archive::Directory(hull_fs::Root::open(path)?);
        return finish(&store.begin()?, &archive, options);
    }
    load(store, File::open(path).map_err(Error::io("open", path))?, options)
}

/// Loads from an open file: from where it stands if it is a regular one, else as a stream.
///
/// # Errors
/// When the archive is damaged or refused, or the store cannot take it; the store is as before then.
pub fn load(store: &Store, mut file: File, options: &LoadOptions) -> Result<Vec<Loaded>, Error> {
    let failed = |error| Error::io("read", "archive")(error);
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return load_stream(store, file, options);
    }
    let at_start = file.stream_position().map_err(failed)? == 0;
    let mut start = Vec::new();
    (&file).take(PREFIX as u64).read_to_end(&mut start).map_err(failed)?;
    file.seek_relative(-i64::try_from(start.len()).unwrap_or(0)).map_err(failed)?;
    if !at_start || Compression::detect(&start) != Some(Compression::None) {
        return load_stream(store, file, options);
    }
    let table = skim(&file, metadata.len())?;
    finish(&store.begin()?, &Archive::File(file, table), options)
}

/// Loads from a stream, which may be compressed.
///
/// # Errors
/// As [`load`].
pub fn load_stream(store: &Store, input: impl Read + Send, options: &LoadOptions) -> Result<Vec<Loaded>, Error> {
    let transfer = store.begin()?;
    let table = pass(Counted(input, options.read.clone()), &transfer)?;
    finish(&transfer, &Archive::Stream(table), options)
}

/// Finds where the members of a file are.
fn skim(file: &File, length: u64) -> Result<Table, Error> {
    let mut table = Table::default();
    let mut reader = tar::Reader::new(Skimming::new(file, length), Limits::default());
    while let Some(entry) = reader.next()? {
        let Some(name) = name(&entry)? else { continue };
        let member = match &entry.kind {
            tar::EntryKind::File { size, extents } => {
                let offset = match extents.as_slice() {
                    [] => 0,
                    [one] if one.offset == 0 && one.length == *size => one.tar,
                    _ => return Err(refuse(format!("{name:?} is a sparse file"))),
                };
                if offset.checked_add(*size).is_none_or(|end| end > length) {
                    return Err(refuse(format!("it is truncated in {name:?}")));
                }
                reader.get_mut().pass(offset + size);
                Member::Data { offset, size: *size }
            }
            tar::EntryKind::Symlink(target) => link(&name, target, true),
            tar::EntryKind::HardLink(target) => link(&name, target, false),
            _ => return Err(refuse(format!("{name:?} is neither file, directory nor link"))),
        };
        table.add(name, member)?;
    }
    Ok(table)
}

/// The name of an entry that counts; directories do not.
fn name(entry: &tar::Entry) -> Result<Option<String>, Error> {
    if matches!(entry.kind, tar::EntryKind::Directory) {
        return Ok(None);
    }
    match String::from_utf8(entry.path.clone()) {
        Ok(name) => Ok(Some(name)),
        Err(error) => Err(refuse(format!("{:?} is not UTF-8", error.to_string()))),
    }
}

/// Takes a stream in.
fn pass(input: impl Read + Send, transfer: &Transfer) -> Result<Table, Error> {
    let mut table = Table::default();
    let limits = Limits::default();
    let (start, input) = peek(input)?;
    let Some(kind) = Compression::detect(&start).filter(|_| !start.is_empty()) else {
        return Err(refuse("the input is no tar archive, plain or compressed by gzip, zstd, xz or bzip2"));
    };
    let input = Decoder::new(kind, BufReader::with_capacity(256 << 10, input), &limits)?;
    let mut reader = tar::Reader::new(input, limits);
    while let Some(entry) = reader.next()? {
        let Some(name) = name(&entry)? else { continue };
        let member = match &entry.kind {
            tar::EntryKind::File { size, extents } => {
                if extents.len() > 1 || extents.first().is_some_and(|one| one.offset != 0 || one.length != *size) {
                    return Err(refuse(format!("{name:?} is a sparse file")));
                }
                take_in(&name, *size, &mut reader, transfer)?
            }
            tar::EntryKind::Symlink(target) => link(&name, target, true),
            tar::EntryKind::HardLink(target) => link(&name, target, false),
            _ => return Err(refuse(format!("{name:?} is neither file, directory nor link"))),
        };
        table.add(name, member)?;
    }
    Ok(table)
}

/// Takes one file of a stream in: as a layer if it begins like one, as a document if it is small enough.
fn take_in(name: &str, size: u64, content: &mut (impl Read + Send), transfer: &Transfer) -> Result<Member, Error> {
    let failed = |error| Error::io("read", "archive")(error);
    let digest = digest_of_name(name);
    let mut start = Vec::new();
    content.by_ref().take(PREFIX as u64).read_to_end(&mut start).map_err(failed)?;
    let Some(kind) = Compression::detect(&start).filter(|_| size > 0) else {
        if size > MAX_CONFIG_BYTES {
            return Ok(Member::Refused { size, reason: "is neither a document nor a tar archive".to_owned() });
        }
        content.read_to_end(&mut start).map_err(failed)?;
        return Ok(Member::Bytes(start));
    };
    if let Some(digest) = &digest
        && let Some(layer) = transfer.layer_of(digest)?
    {
        let blob = Descriptor::new("", digest.clone(), size);
        keep_blob(transfer, &blob, &layer.diff_id, || Ok(Cursor::new(start).chain(content)))?;
        return Ok(Member::Layer { size, layer: Box::new(layer) });
    }
    let plain = kind == Compression::None;
    let source = LayerSource {
        blob: digest.clone().filter(|_| !plain).map(|digest| Descriptor::new("", digest, size)),
        diff_id: digest.clone().filter(|_| plain),
        keep_blob: !plain && digest.is_some(),
    };
    match transfer.layer(Cursor::new(start).chain(content), source) {
        Ok(layer) => Ok(Member::Layer { size, layer: Box::new(layer) }),
        // Whether it had to be a layer is known when the documents have come.
        Err(Error::Layer(error)) if is_of_content(&error) => Ok(Member::Refused { size, reason: error.to_string() }),
        Err(error) => Err(error),
    }
}

/// Whether the bytes are to blame, not this machine.
fn is_of_content(error: &hull_layer::Error) -> bool {
    use hull_layer::Error as Layer;
    matches!(error, Layer::Archive { .. } | Layer::Compression { .. } | Layer::Digest { .. } | Layer::Limit { .. })
}

/// The digest that a layout's blob is named by.
fn digest_of_name(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// Finds the images, reads the layers that are missing, and commits.
fn finish(transfer: &Transfer, archive: &Archive, options: &LoadOptions) -> Result<Vec<Loaded>, Error> {
    let found = resolve(archive, &options.platforms)?;
    layers(transfer, archive, &found, options.read.as_ref())?;
    // Names of several platforms are given when all of these are there.
    let mut several: Vec<(Reference, Vec<Digest>)> = Vec::new();
    for name in found.iter().flat_map(|one| &one.names) {
        let mut ids: Vec<Digest> =
            found.iter().filter(|one| one.names.contains(name)).map(|one| one.id.clone()).collect();
        if !options.platforms.is_empty() {
            ids.extend(staying(transfer.store(), name, &found, &ids));
        }
        if ids.len() > 1 && !several.iter().any(|(known, _)| known == name) {
            several.push((name.clone(), ids));
        }
    }
    let mut loaded = Vec::with_capacity(found.len());
    for Found { config, manifest, mut names, .. } in found {
        names.sort();
        let (shared, own): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| several.iter().any(|(known, _)| known == name));
        let manifest = manifest.as_ref().map(|(bytes, media_type)| (bytes.as_slice(), media_type.as_str()));
        let image = transfer.image(&config, manifest, &own)?;
        loaded.push(Loaded { image, names: own, variant_of: shared });
    }
    let store = transfer.store();
    for (name, ids) in &several {
        store.tag_all(ids, std::slice::from_ref(name))?;
    }
    for one in loaded.iter_mut().filter(|one| !one.variant_of.is_empty()) {
        one.image = store.get(&one.image.id)?;
        let (names, variant_of) =
            std::mem::take(&mut one.variant_of).into_iter().partition(|name| one.image.names.contains(name));
        one.names.extend::<Vec<_>>(names);
        one.names.sort();
        one.variant_of = variant_of;
    }
    if !options.platforms.is_empty() {
        // What was asked for by its platform is told, though the name means another without one.
        for (name, _) in &several {
            if let Some(one) = loaded.iter_mut().find(|one| one.names.contains(name) || one.variant_of.contains(name))
                && !one.names.contains(name)
            {
                one.names.push(name.clone());
            }
        }
    }
    Ok(loaded)
}

/// What a name means already on platforms that were not asked for, and by the archive's own index still does.
fn staying(store: &Store, name: &Reference, found: &[Found], ids: &[Digest]) -> Vec<Digest> {
    let siblings: Vec<&Digest> =
        found.iter().filter(|one| one.names.contains(name)).flat_map(|one| &one.siblings).collect();
    let known = store.find_all(&name.to_string()).unwrap_or_default();
    let stays = |image: &Image| {
        (image.names.contains(name) || image.variant_of.contains(name))
            && !ids.contains(&image.id)
            && image.manifest.as_ref().is_some_and(|manifest| siblings.contains(&manifest))
    };
    known.into_iter().filter(stays).map(|image| image.id).collect()
}

/// Reads layers from an archive whose members can be read in any order, several at once.
fn layers(transfer: &Transfer, archive: &Archive, found: &[Found], read: Option<&Arc<AtomicU64>>) -> Result<(), Error> {
    let mut jobs: Vec<&LayerAt> = Vec::new();
    for layer in found.iter().flat_map(|image| &image.layers) {
        if let Some(present) = archive.layer(&layer.member)? {
            check_passed(layer, present)?;
        } else if !jobs.iter().any(|job| job.diff_id == layer.diff_id) {
            jobs.push(layer);
        }
    }
    // The longest first: a worker that takes it last would work alone.
    let mut sized = Vec::with_capacity(jobs.len());
    for job in jobs {
        sized.push((super::resolve::Members::size(archive, &job.member)?, job));
    }
    sized.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let jobs: Vec<&LayerAt> = sized.into_iter().map(|(_, job)| job).collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len()).min(8);
    let queue = Mutex::new(jobs.into_iter());
    let next = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    let work = || -> Result<(), Error> {
        while let Some(job) = next() {
            if let Err(error) = layer(transfer, archive, job, read) {
                // The others stop after the layer that they are reading.
                while next().is_some() {}
                return Err(error);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
        let own = work();
        others.into_iter().fold(own, |result, other| {
            let other = other.join().unwrap_or_else(|_| Err(refuse("a thread that read a layer has died")));
            result.and(other)
        })
    })
}

fn layer(transfer: &Transfer, archive: &Archive, job: &LayerAt, read: Option<&Arc<AtomicU64>>) -> Result<(), Error> {
    if transfer.has_layer(&job.diff_id)? {
        if let Some(blob) = &job.blob {
            keep_blob(transfer, blob, &job.diff_id, || archive.open(&job.member))?;
        }
        return Ok(());
    }
    // An uncompressed blob is the layer itself. Without manifest nobody asks for a compressed one again.
    let keep_blob = job.blob.as_ref().is_some_and(|blob| blob.digest != job.diff_id);
    let source = LayerSource { blob: job.blob.clone(), diff_id: Some(job.diff_id.clone()), keep_blob };
    transfer.layer(Counted(archive.open(&job.member)?, read.cloned()), source)?;
    Ok(())
}

/// Keeps a compressed blob of a layer that is there already, so that the manifest can be written again. Only one that has
/// been unpacked before: what it holds is not looked at now.
fn keep_blob<R: Read>(
    transfer: &Transfer,
    blob: &Descriptor,
    diff_id: &Digest,
    open: impl FnOnce() -> Result<R, Error>,
) -> Result<(), Error> {
    let known = transfer.layer_of(&blob.digest)?.is_some_and(|layer| layer.diff_id == *diff_id);
    if blob.digest != *diff_id && known && !transfer.has_blob(&blob.digest)? {
        transfer.blob(open()?, Some(blob))?;
    }
    Ok(())
}

/// Whether a layer that passed by in a stream is the one that the documents speak of.
fn check_passed(wanted: &LayerAt, passed: &crate::Layer) -> Result<(), Error> {
    let LayerAt { member, diff_id, blob } = wanted;
    if passed.diff_id != *diff_id {
        return Err(refuse(format!("{member} has the uncompressed digest {}, expected {diff_id}", passed.diff_id)));
    }
    match blob {
        Some(blob) if blob.digest != *diff_id && digest_of_name(member).is_none_or(|named| named != blob.digest) => {
            Err(refuse(format!("{member} is not {}", blob.digest)))
        }
        _ => Ok(()),
    }
}
