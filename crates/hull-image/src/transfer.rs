//! Transfers: how layers, blobs and images come into the store.
//!
//! Everything is written into the transfer's work directory, `ingest/RANDOM/`, and becomes durable there. Then
//! [`Transfer::image`] takes the database's write lock, renames what the image needs into place, syncs the two
//! directories and commits the records. A killed transfer leaves its work directory, unlocked, and perhaps files
//! without records: the next repair removes both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hull_oci::digest::Hasher;
use hull_oci::image::{Descriptor, Document, ImageConfig, MAX_CONFIG_BYTES, Manifest, media_type};
use hull_oci::{Digest, Reference};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::disk::{self, Work};
use crate::image::{Image, Kind, Layer};
use crate::publish::{Moved, Publication, known};
use crate::rows::{digest, row_of};
use crate::{Budget, Error, Store, layer};
use hull_db::Sync;

/// What is known about a layer before it is read, and what to keep of it.
#[derive(Clone, Debug, Default)]
pub struct LayerSource {
    /// Digest and length that the bytes must have, as they come.
    pub blob: Option<Descriptor>,
    /// Digest that the uncompressed archive must have.
    pub diff_id: Option<Digest>,
    /// Keep the bytes as they come beside the layer, so that it can be pushed and saved as it was. An uncompressed
    /// archive is the layer's own tar; it is never kept twice.
    pub keep_blob: bool,
}

/// A running import, load, pull, commit or build. Dropping it leaves nothing of what no image was made of, and when
/// images were made brings the rest of the store below its budget.
///
/// It may be used from several threads.
#[derive(Debug)]
pub struct Transfer {
    pub(crate) store: Store,
    work: Work,
    kind: Kind,
    budget: Budget,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
pub(crate) struct Pending {
    count: u64,
    leased: bool,
    /// Images that it has made.
    made: BTreeSet<Digest>,
    /// The signatures of the image on its way, if it comes from a registry.
    pub(crate) evidence: Option<Vec<hull_trust::Evidence>>,
    pub(crate) layers: BTreeMap<Digest, NewLayer>,
    pub(crate) blobs: BTreeMap<Digest, NewBlob>,
}

#[derive(Clone, Debug)]
pub(crate) struct NewLayer {
    pub(crate) layer: Layer,
    pub(crate) directory: PathBuf,
    /// Blobs that unpack to it, with their lengths.
    pub(crate) compressions: BTreeMap<Digest, u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct NewBlob {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) media_type: String,
}

impl Store {
    /// Begins a transfer.
    ///
    /// # Errors
    /// When its work directory cannot be made.
    pub fn begin(&self) -> Result<Transfer, Error> {
        let (kind, budget) = (self.snapshotter()?, self.budget()?);
        for directory in ["blobs/sha256", "layers", "trash"] {
            disk::create_private(&self.root.join(directory))?;
        }
        let work = Work::create(&self.ingest())?;
        Ok(Transfer { store: self.clone(), work, kind, budget, pending: Mutex::default() })
    }

    /// Keeps an image from being removed while a command reads it.
    ///
    /// # Errors
    /// [`Error::NoImage`] when it is gone already.
    pub fn pin(&self, id: &Digest) -> Result<Pin, Error> {
        let transfer = self.begin()?;
        self.write(Sync::Normal, |transaction| {
            row_of(transaction, id)?.ok_or_else(|| Error::NoImage(id.to_string()))?;
            transfer.lease(transaction, "image", id)
        })?;
        Ok(Pin { _transfer: transfer })
    }
}

/// An image that nobody removes meanwhile; see [`Store::pin`].
#[derive(Debug)]
pub struct Pin {
    _transfer: Transfer,
}

impl Transfer {
    /// The store that it brings something into.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A directory for the caller's own temporary files, which goes with the transfer.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn directory(&self) -> Result<PathBuf, Error> {
        let path = self.next("files");
        disk::create_private(&path)?;
        Ok(path)
    }

    /// Says that the next images come from a registry, with these signatures.
    pub(crate) fn comes_with(&self, evidence: Vec<hull_trust::Evidence>) {
        self.pending().evidence = Some(evidence);
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // What is in it is complete at every moment.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next(&self, what: &str) -> PathBuf {
        let mut pending = self.pending();
        pending.count += 1;
        self.work.path().join(format!("{what}-{}", pending.count))
    }

    fn lease(&self, transaction: &Transaction<'_>, kind: &str, object: &Digest) -> Result<(), Error> {
        self.pending().leased = true;
        transaction.execute(
            "INSERT OR IGNORE INTO leases VALUES (?1, ?2, ?3)",
            params![self.work.name(), kind, object.to_string()],
        )?;
        Ok(())
    }

    /// Whether the layer is in the store or came with this transfer; from then on it stays for this transfer.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn has_layer(&self, diff_id: &Digest) -> Result<bool, Error> {
        self.find_layer(diff_id).map(|layer| layer.is_some())
    }

    /// The layer, as [`Self::has_layer`].
    ///
    /// # Errors
    /// As [`Self::has_layer`].
    pub fn find_layer(&self, diff_id: &Digest) -> Result<Option<Layer>, Error> {
        let pending = self.pending().layers.get(diff_id).map(|new| new.layer.clone());
        if pending.is_some()
            || !self.store.read(|connection| Ok(Some(known(connection, diff_id)?.is_some())))?.unwrap_or(false)
        {
            return Ok(pending);
        }
        self.store.write(Sync::Normal, |transaction| {
            let Some((_, layer)) = known(transaction, diff_id)? else { return Ok(None) };
            self.lease(transaction, "layer", diff_id)?;
            if let Some((blob, _)) = &layer.blob {
                self.lease(transaction, "blob", blob)?;
            }
            Ok(Some(layer))
        })
    }

    /// The layer that a compressed blob is known to unpack to, as [`Self::has_layer`]: the blob itself need not be held.
    ///
    /// # Errors
    /// As [`Self::has_layer`].
    pub fn layer_of(&self, blob: &Digest) -> Result<Option<Layer>, Error> {
        let pending = self.pending().layers.values().find(|new| new.compressions.contains_key(blob)).cloned();
        if let Some(new) = pending {
            return Ok(Some(new.layer));
        }
        let diff_id = self.store.read(|connection| {
            let sql = "SELECT diff_id FROM compressions JOIN layers ON layers.id = layer WHERE blob = ?1";
            Ok(connection.query_row(sql, [blob.to_string()], |row| digest(row, 0)).optional()?)
        })?;
        // An uncompressed archive is known by its diff ID.
        self.find_layer(diff_id.as_ref().unwrap_or(blob))
    }

    /// Whether the blob's bytes are in the store or came with this transfer; from then on they stay for this transfer.
    ///
    /// # Errors
    /// As [`Self::has_layer`].
    pub fn has_blob(&self, blob: &Digest) -> Result<bool, Error> {
        if self.pending().blobs.contains_key(blob) {
            return Ok(true);
        }
        let exists = |connection: &Connection| -> Result<bool, Error> {
            Ok(connection.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1")?.exists([blob.to_string()])?)
        };
        if !self.store.read(exists)? {
            return Ok(false);
        }
        self.store.write(Sync::Normal, |transaction| {
            let there = exists(transaction)?;
            if there {
                self.lease(transaction, "blob", blob)?;
            }
            Ok(there)
        })
    }

    /// Takes in bytes as they are. They become part of the store with an image that needs them.
    ///
    /// # Errors
    /// [`Error::Blob`] when they are not what `expected` says; reading stops one byte after the expected length.
    pub fn blob(&self, mut reader: impl Read, expected: Option<&Descriptor>) -> Result<Descriptor, Error> {
        let path = self.next("blob");
        let mut file = File::create_new(&path).map_err(Error::io("create", &path))?;
        let result = (|| {
            let mut hasher =
                expected.map_or_else(|| Hasher::new(hull_oci::digest::Algorithm::Sha256), |one| one.digest.hasher());
            let mut buffer = vec![0; 256 << 10];
            let mut size = 0;
            loop {
                let count = match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(Error::io("read", "blob")(error)),
                };
                size += count as u64;
                if let Some(expected) = expected
                    && size > expected.size
                {
                    let reason = format!("it is longer than its {} bytes", expected.size);
                    return Err(Error::Blob { expected: expected.digest.clone(), reason });
                }
                hasher.update(&buffer[..count]);
                file.write_all(&buffer[..count]).map_err(Error::io("write", &path))?;
            }
            let found = hasher.finish();
            if let Some(expected) = expected {
                if size != expected.size {
                    let reason = format!("it has {size} bytes, expected {}", expected.size);
                    return Err(Error::Blob { expected: expected.digest.clone(), reason });
                }
                if found != expected.digest {
                    let reason = format!("the content has digest {found}");
                    return Err(Error::Blob { expected: expected.digest.clone(), reason });
                }
            }
            file.sync_data().map_err(Error::io("sync", &path))?;
            let descriptor = expected.cloned().unwrap_or_else(|| Descriptor::new("", found, size));
            Ok(descriptor)
        })();
        match &result {
            Ok(descriptor) => self.keep_blob(descriptor, path),
            Err(_) => drop(fs::remove_file(&path)),
        }
        result.map_err(|error| error.full(&self.store.root))
    }

    fn keep_blob(&self, descriptor: &Descriptor, path: PathBuf) {
        let new = NewBlob { path, size: descriptor.size, media_type: descriptor.media_type.clone() };
        self.pending().blobs.insert(descriptor.digest.clone(), new);
    }

    /// Opens bytes that came with this transfer or are in the store.
    ///
    /// # Errors
    /// When they are neither.
    pub fn open_blob(&self, blob: &Digest) -> Result<File, Error> {
        let pending = self.pending().blobs.get(blob).map(|new| new.path.clone());
        match pending {
            Some(path) => File::open(&path).map_err(Error::io("open", &path)),
            None => self.store.open_blob(blob),
        }
    }

    /// Takes in a layer: an archive in any compression that Hull knows. A layer that the store has already is not read.
    ///
    /// # Errors
    /// When the stream is refused, or is not what `source` says. Nothing is kept then.
    pub fn layer(&self, reader: impl Read + Send, source: LayerSource) -> Result<Layer, Error> {
        if let Some(diff_id) = &source.diff_id {
            if let Some(layer) = self.find_layer(diff_id)? {
                return Ok(layer);
            }
        } else if let Some(blob) = &source.blob
            && let Some(layer) = self.layer_of(&blob.digest)?
        {
            return Ok(layer);
        }
        let directory = self.next("layer");
        disk::create_private(&directory)?;
        let result = layer::write(reader, &directory, self.kind, &source, &hull_layer::Limits::default());
        let written = match result {
            Ok(written) => written,
            Err(error) => {
                let _ = disk::remove(&directory);
                return Err(error.full(&self.store.root));
            }
        };
        let media = source.blob.as_ref().map_or("", |blob| blob.media_type.as_str());
        let (blob, size) = written.blob;
        if written.kept {
            let (path, kept) = (directory.join(hull_layer::ingest::BLOB), self.next("blob"));
            fs::rename(&path, &kept).map_err(Error::io("rename", &path))?;
            self.keep_blob(&Descriptor::new(media, blob.clone(), size), kept);
        }
        let layer = Layer {
            diff_id: written.diff_id.clone(),
            kind: self.kind,
            size: written.content,
            tar_size: written.tar,
            blob: written.kept.then(|| (blob.clone(), size)),
        };
        let mut pending = self.pending();
        let named = written.compressed || written.kept;
        let compressions: BTreeMap<_, _> = named.then_some((blob, size)).into_iter().collect();
        match pending.layers.get_mut(&written.diff_id) {
            Some(twin) => {
                // The same layer came twice at the same time.
                twin.compressions.extend(compressions);
                drop(pending);
                disk::remove(&directory)?;
            }
            None => {
                let new = NewLayer { layer: layer.clone(), directory, compressions };
                pending.layers.insert(written.diff_id, new);
            }
        }
        Ok(layer)
    }

    /// [`Self::layer`] from a blob that this transfer took in; the blob becomes the layer's own with `keep_blob`.
    ///
    /// # Errors
    /// As [`Self::layer`], and when the blob did not come with this transfer.
    pub fn layer_from_blob(&self, blob: &Descriptor, diff_id: Option<Digest>, keep_blob: bool) -> Result<Layer, Error> {
        let file = self.open_blob(&blob.digest)?;
        let mut layer = self
            .layer(file, LayerSource { blob: Some(blob.clone()), diff_id, keep_blob: self.kind == Kind::Directory })?;
        let mut pending = self.pending();
        if let (Some(new), true) = (pending.layers.get_mut(&layer.diff_id), keep_blob && blob.digest != layer.diff_id) {
            new.compressions.insert(blob.digest.clone(), blob.size);
            new.layer.blob = Some((blob.digest.clone(), blob.size));
            layer.blob.clone_from(&new.layer.blob);
        } else if !keep_blob
            && self.kind == Kind::Erofs
            && let Some(new) = pending.blobs.remove(&blob.digest)
        {
            drop(pending);
            disk::remove(&new.path)?;
        }
        Ok(layer)
    }

    /// Makes a file the blob of a layer that came with this transfer. The file, which is on the store's own file system,
    /// is moved; its bytes are those that the layer was read from. An uncompressed archive is removed: the layer has it.
    ///
    /// # Errors
    /// When the file cannot be synced or moved.
    pub fn keep_file(&self, path: &Path, blob: &Descriptor, diff_id: &Digest) -> Result<(), Error> {
        let known = self.pending().layers.get(diff_id).is_some_and(|new| new.layer.kind == Kind::Erofs);
        // The directory snapshotter has kept it already.
        if blob.digest == *diff_id || !known {
            return fs::remove_file(path).map_err(Error::io("remove", path));
        }
        let file = File::open(path).map_err(Error::io("open", path))?;
        file.sync_data().map_err(Error::io("sync", path))?;
        let kept = self.next("blob");
        fs::rename(path, &kept).map_err(Error::io("rename", path))?;
        self.keep_blob(blob, kept);
        if let Some(new) = self.pending().layers.get_mut(diff_id) {
            new.compressions.insert(blob.digest.clone(), blob.size);
            new.layer.blob = Some((blob.digest.clone(), blob.size));
        }
        Ok(())
    }

    /// Keeps a compressed copy, which came with this transfer, of a layer of the store.
    pub(crate) fn keep_compressed(&self, diff_id: &Digest, blob: &Descriptor) -> Result<(), Error> {
        let result = self.publish(Sync::Full, |publication, moved| {
            publication.compressed(diff_id, blob, moved)?;
            self.lease(publication.transaction, "blob", &blob.digest)
        });
        self.store.database.tidy();
        result.map_err(|error| error.full(&self.store.root))
    }

    /// Makes an image of layers that are in the store or came with this transfer. Records and names appear at once, and
    /// all bytes are on disk before.
    ///
    /// # Errors
    /// When the documents are refused, do not fit each other, or name layers that are not there. The store is unchanged
    /// then, and the transfer can still be used.
    pub fn image(&self, config: &[u8], manifest: Option<(&[u8], &str)>, names: &[Reference]) -> Result<Image, Error> {
        let parsed = ImageConfig::parse(config)?;
        if config.len() as u64 > MAX_CONFIG_BYTES {
            return Err(Error::image("", "its configuration is too long"));
        }
        let document = match manifest {
            None => None,
            Some((bytes, media)) => match Document::parse(bytes, Some(media))? {
                Document::Manifest(document) => Some(document),
                Document::Index(_) => return Err(Error::image(Digest::of(config), "its manifest is an index")),
            },
        };
        let id = match &document {
            None => Digest::of(config),
            Some(document) => {
                let mut hasher = document.config.digest.hasher();
                hasher.update(config);
                hasher.finish()
            }
        };
        if let Some(document) = &document {
            self.check_manifest(&id, &parsed, document)?;
        }
        let media = document.as_ref().map_or(media_type::CONFIG, |document| document.config.media_type.as_str());
        self.document(&id, config, media)?;
        let manifest = match manifest {
            None => None,
            Some((bytes, media)) => {
                let digest = Digest::of(bytes);
                self.document(&digest, bytes, media)?;
                Some(digest)
            }
        };
        let result = self.publish(Sync::Full, |publication, moved| {
            publication
                .image(&id, &parsed, document.as_deref(), manifest.as_ref(), names, moved)
                // Read before anybody can remove it.
                .and_then(|()| row_of(publication.transaction, &id)?.ok_or_else(|| Error::NoImage(id.to_string())))
                .and_then(|row| self.store.load(publication.transaction, &row))
        });
        self.pending().made.extend(result.is_ok().then_some(id));
        self.store.database.tidy();
        result.map_err(|error| error.full(&self.store.root))
    }

    /// Keeps an index with what comes: it is recorded with the image that its digest is a name of.
    pub(crate) fn comes_from(&self, digest: &Digest, index: &[u8], media: &str) -> Result<(), Error> {
        self.document(digest, index, media)
    }

    /// Keeps an index that an image of the store is known by in a repository.
    pub(crate) fn index(&self, image: &Digest, name: &Reference, index: (&[u8], &str)) -> Result<(), Error> {
        let digest = Digest::of(index.0);
        self.document(&digest, index.0, index.1)?;
        let result = self.publish(Sync::Full, |publication, moved| publication.index(image, name, &digest, moved));
        self.store.database.tidy();
        result.map_err(|error| error.full(&self.store.root))
    }

    /// Puts layers that came with this transfer into the store, for records that keep them as an image would. `record`
    /// makes these in the same transaction, of the layers' rows in the same order. The layers stay for this transfer.
    ///
    /// # Errors
    /// When a layer is not there, and those of `record`. The store is unchanged then.
    pub fn keep_layers<T>(
        &self,
        diff_ids: &[Digest],
        record: impl FnOnce(&Transaction<'_>, &[i64]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // Without new files there is nothing whose loss a record must not survive.
        let new = diff_ids.iter().any(|diff_id| self.pending().layers.contains_key(diff_id));
        let sync = if new { Sync::Full } else { Sync::Normal };
        let result = self.publish(sync, |publication, moved| {
            let rows = publication.layers(diff_ids, moved)?;
            for diff_id in diff_ids {
                self.lease(publication.transaction, "layer", diff_id)?;
            }
            record(publication.transaction, &rows)
        });
        self.store.database.tidy();
        result.map_err(|error| error.full(&self.store.root))
    }

    /// Whether all these layers are in the store; they stay for this transfer then. `also` changes other records in the
    /// same transaction.
    ///
    /// # Errors
    /// When the database cannot be used, and those of `also`.
    pub fn lease_layers(
        &self,
        diff_ids: &[Digest],
        also: impl FnOnce(&Transaction<'_>) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        self.store.write(Sync::Normal, |transaction| {
            for diff_id in diff_ids {
                if known(transaction, diff_id)?.is_none() {
                    return Ok(false);
                }
                self.lease(transaction, "layer", diff_id)?;
            }
            also(transaction)?;
            Ok(true)
        })
    }

    /// Renames files into place and records them, in one transaction.
    fn publish<T>(
        &self,
        sync: Sync,
        body: impl FnOnce(&Publication<'_>, &mut Moved) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let pending = {
            let pending = self.pending();
            let evidence = pending.evidence.clone();
            Pending { layers: pending.layers.clone(), blobs: pending.blobs.clone(), evidence, ..Pending::default() }
        };
        let mut moved = Moved::new();
        let result = self.store.write(sync, |transaction| {
            let publication = Publication { transfer: self, transaction, pending: &pending };
            let recorded = body(&publication, &mut moved);
            if recorded.is_err() {
                // While nobody else can put the same things there.
                for (from, to) in moved.drain(..).rev() {
                    let _ = fs::rename(to, from);
                }
            }
            recorded
        });
        if result.is_err() && !moved.is_empty() {
            // The commit itself failed: the files have no records.
            let _ = self.store.sweep(&self.work);
        }
        let mut pending = self.pending();
        let gone = |path: &PathBuf| moved.iter().any(|(from, _)| from == path);
        pending.layers.retain(|_, new| !gone(&new.directory));
        pending.blobs.retain(|_, new| !gone(&new.path));
        drop(pending);
        result
    }

    fn check_manifest(&self, id: &Digest, config: &ImageConfig, manifest: &Manifest) -> Result<(), Error> {
        if manifest.config.digest != *id {
            return Err(Error::image(id, format!("its manifest names the configuration {}", manifest.config.digest)));
        }
        if let Some(layer) = manifest.layers.iter().find(|layer| !media_type::is_layer(&layer.media_type)) {
            return Err(Error::image(id, format!("it has a layer of unknown type {:?}", layer.media_type)));
        }
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            let reason = format!("its manifest has {layers} layers and its configuration {diff_ids}");
            return Err(Error::image(id, reason));
        }
        for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            if let Some(known) = self.layer_of(&layer.digest)?
                && known.diff_id != *diff_id
            {
                let reason = format!("blob {} unpacks to {}, not to {diff_id}", layer.digest, known.diff_id);
                return Err(Error::image(id, reason));
            }
        }
        Ok(())
    }

    fn document(&self, digest: &Digest, bytes: &[u8], media: &str) -> Result<(), Error> {
        if self.pending().blobs.contains_key(digest) {
            return Ok(());
        }
        self.blob(bytes, Some(&Descriptor::new(media, digest.clone(), bytes.len() as u64))).map(drop)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if self.pending().leased {
            // A lease whose work directory is gone counts for nothing; the next deletion drops it.
            let _ = self.store.write(Sync::Normal, |transaction| {
                Ok(transaction.execute("DELETE FROM leases WHERE work = ?1", [self.work.name()])?)
            });
            self.store.database.tidy();
        }
        let made = std::mem::take(&mut self.pending().made);
        if !made.is_empty() {
            // What cannot go now goes after the next transfer.
            let _ = self.store.gc_keeping(self.budget, &made);
        }
    }
}
