//! Putting what a transfer wrote into place and recording it, within one transaction.

use std::fs;
use std::path::{Path, PathBuf};

use hull_oci::image::{Descriptor, ImageConfig, Manifest};
use hull_oci::{Digest, Reference};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::image::Layer;
use crate::rows::{column, kind, length, name_key, row_of};
use crate::transfer::{Pending, Transfer};
use crate::{Error, disk, names, origins};

/// Moved into place, with the place it came from: to be moved back when the transaction fails.
pub(crate) type Moved = Vec<(PathBuf, PathBuf)>;

/// A layer of the store with its row.
pub(crate) fn known(connection: &Connection, diff_id: &Digest) -> Result<Option<(i64, Layer)>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT layers.id, snapshotter, content, tar, blobs.digest, blobs.size FROM layers
         LEFT JOIN compressions ON compressions.layer = layers.id
         LEFT JOIN blobs ON blobs.digest = compressions.blob
         WHERE diff_id = ?1 ORDER BY blobs.digest IS NULL, blobs.digest LIMIT 1",
    )?;
    let found = statement
        .query_row([diff_id.to_string()], |row| {
            let blob = match crate::rows::digest_or_none(row, 4)? {
                Some(digest) => Some((digest, length(row, 5)?)),
                None => None,
            };
            let (size, tar_size) = (length(row, 2)?, length(row, 3)?);
            Ok((row.get(0)?, Layer { diff_id: diff_id.clone(), kind: kind(row, 1)?, size, tar_size, blob }))
        })
        .optional()?;
    Ok(found)
}

/// The names of what was moved are on disk then.
fn sync_parents(moved: &Moved) -> Result<(), Error> {
    let mut directories: Vec<&Path> = moved.iter().filter_map(|(_, to)| to.parent()).collect();
    directories.sort();
    directories.dedup();
    directories.into_iter().try_for_each(disk::sync)
}

/// One image, or some layers, on their way into the store.
pub(crate) struct Publication<'t> {
    pub(crate) transfer: &'t Transfer,
    pub(crate) transaction: &'t Transaction<'t>,
    pub(crate) pending: &'t Pending,
}

impl Publication<'_> {
    pub(crate) fn image(
        &self,
        id: &Digest,
        config: &ImageConfig,
        document: Option<&Manifest>,
        manifest: Option<&Digest>,
        names: &[Reference],
        moved: &mut Moved,
    ) -> Result<(), Error> {
        let mut layers = Vec::new();
        for diff_id in &config.rootfs.diff_ids {
            layers.push(self.layer(id, diff_id, moved)?);
        }
        // The index that it was chosen from, if that came along.
        let index =
            names.iter().filter_map(Reference::digest).filter(|digest| self.pending.blobs.contains_key(*digest));
        for blob in std::iter::once(id).chain(manifest).chain(index) {
            self.blob(blob, moved)?;
        }
        if let Some(document) = document {
            for (descriptor, layer) in document.layers.iter().zip(&layers) {
                let uncompressed = config.rootfs.diff_ids.contains(&descriptor.digest);
                if self.pending.blobs.contains_key(&descriptor.digest) && !uncompressed {
                    self.blob(&descriptor.digest, moved)?;
                    self.compression(&descriptor.digest, *layer, descriptor.size)?;
                }
            }
        }
        sync_parents(moved)?;
        let image = self.record(id, manifest, &layers)?;
        for name in names {
            if let Some(digest) = name.digest() {
                self.repo_digest(image, name, digest)?;
                if let Some(evidence) = &self.pending.evidence {
                    origins::record(self.transaction, name, digest, evidence)?;
                }
            }
            if name.tag().is_some() || name.digest().is_none() {
                let row = params![name_key(name), image];
                self.transaction.execute("INSERT OR REPLACE INTO names VALUES (?1, ?2)", row)?;
            }
        }
        names::touch(self.transaction, image)
    }

    fn repo_digest(&self, image: i64, name: &Reference, digest: &Digest) -> Result<(), Error> {
        // Replacing the row would take what is known of its origin with it.
        self.transaction.execute(
            "INSERT INTO repo_digests VALUES (?1, ?2, ?3) ON CONFLICT (repository, digest) DO UPDATE SET image = ?3",
            params![name.repository(), digest.to_string(), image],
        )?;
        Ok(())
    }

    /// Records an index that an image is known by in a repository.
    pub(crate) fn index(&self, id: &Digest, name: &Reference, digest: &Digest, moved: &mut Moved) -> Result<(), Error> {
        let image = row_of(self.transaction, id)?.ok_or_else(|| Error::NoImage(id.to_string()))?.id;
        self.blob(digest, moved)?;
        sync_parents(moved)?;
        self.repo_digest(image, name, digest)
    }

    /// Records a compressed copy of a layer; one of a layer that is not in the store goes with the transfer.
    pub(crate) fn compressed(&self, diff_id: &Digest, blob: &Descriptor, moved: &mut Moved) -> Result<(), Error> {
        let Some((row, _)) = known(self.transaction, diff_id)? else { return Ok(()) };
        self.blob(&blob.digest, moved)?;
        sync_parents(moved)?;
        self.compression(&blob.digest, row, blob.size)
    }

    /// Makes sure that layers are in the store, and returns their rows.
    pub(crate) fn layers(&self, diff_ids: &[Digest], moved: &mut Moved) -> Result<Vec<i64>, Error> {
        let rows = diff_ids.iter().map(|diff_id| self.layer(diff_id, diff_id, moved)).collect::<Result<_, _>>()?;
        sync_parents(moved)?;
        Ok(rows)
    }

    fn record(&self, id: &Digest, manifest: Option<&Digest>, layers: &[i64]) -> Result<i64, Error> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        self.transaction.execute(
            "INSERT INTO images (digest, manifest, added, used) VALUES (?1, ?2, ?3, 0)
             ON CONFLICT (digest) DO UPDATE SET manifest = coalesce(?2, manifest)",
            params![id.to_string(), manifest.map(ToString::to_string), column(now)],
        )?;
        let image = row_of(self.transaction, id)?.ok_or_else(|| Error::NoImage(id.to_string()))?.id;
        for (position, layer) in (0_i64..).zip(layers) {
            let row = params![image, position, layer];
            self.transaction.execute("INSERT OR IGNORE INTO image_layers VALUES (?1, ?2, ?3)", row)?;
        }
        if let Some(manifest) = manifest {
            let row = params![manifest.to_string(), image];
            self.transaction.execute("INSERT OR REPLACE INTO manifests VALUES (?1, ?2)", row)?;
        }
        Ok(image)
    }

    /// Makes sure that a layer is in the store and returns its row.
    fn layer(&self, id: &Digest, diff_id: &Digest, moved: &mut Moved) -> Result<i64, Error> {
        let known = known(self.transaction, diff_id)?;
        let Some(new) = self.pending.layers.get(diff_id) else {
            let missing = || Error::image(id, format!("its layer {diff_id} is missing"));
            return known.map(|(row, _)| row).ok_or_else(missing);
        };
        let row = match known {
            Some((row, _)) => row,
            None => {
                let disk = disk::occupied(&new.directory);
                self.place(&new.directory, &self.transfer.store.layer_path(diff_id), moved)?;
                let layer = &new.layer;
                self.transaction.execute(
                    "INSERT INTO layers (diff_id, snapshotter, content, tar, disk) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        diff_id.to_string(),
                        layer.kind.as_str(),
                        column(layer.size),
                        column(layer.tar_size),
                        column(disk)
                    ],
                )?;
                self.transaction.last_insert_rowid()
            }
        };
        for (blob, size) in &new.compressions {
            if self.pending.blobs.contains_key(blob) {
                self.blob(blob, moved)?;
            }
            self.compression(blob, row, *size)?;
        }
        Ok(row)
    }

    fn compression(&self, blob: &Digest, layer: i64, size: u64) -> Result<(), Error> {
        let row = params![blob.to_string(), layer, column(size)];
        self.transaction.execute("INSERT OR IGNORE INTO compressions VALUES (?1, ?2, ?3)", row)?;
        Ok(())
    }

    fn blob(&self, digest: &Digest, moved: &mut Moved) -> Result<(), Error> {
        let there =
            self.transaction.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1")?.exists([digest.to_string()])?;
        if there {
            return Ok(());
        }
        let missing = || Error::Blob { expected: digest.clone(), reason: "it is missing".to_owned() };
        let new = self.pending.blobs.get(digest).ok_or_else(missing)?;
        self.place(&new.path, &disk::blob(&self.transfer.store.root, digest), moved)?;
        let row = params![digest.to_string(), column(new.size), new.media_type];
        self.transaction.execute("INSERT INTO blobs VALUES (?1, ?2, ?3)", row)?;
        Ok(())
    }

    /// Renames to where nothing is recorded: what is there was left by a killed command.
    fn place(&self, from: &Path, to: &Path, moved: &mut Moved) -> Result<(), Error> {
        if let Some(parent) = to.parent() {
            disk::create_private(parent)?;
        }
        disk::rename_if_there(to, &self.transfer.next("orphan"))?;
        fs::rename(from, to).map_err(Error::io("rename", from))?;
        moved.push((from.to_owned(), to.to_owned()));
        Ok(())
    }
}
