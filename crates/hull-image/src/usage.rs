//! What the store occupies, in numbers that add up with `du`.

use std::collections::BTreeMap;

use hull_oci::Digest;

use crate::rows::digest;
use crate::{Error, Store, disk};

/// Bytes that the parts of the store occupy. `layers + blobs + pushed + database + running + downloads` is what `du` says
/// of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The images, in the order of [`Store::list`].
    pub images: Vec<ImageUsage>,
    /// `layers/`.
    pub layers: u64,
    /// `blobs/`: documents and compressed layers.
    pub blobs: u64,
    /// `registry/`: what a registry's clients pushed, but for what it shares with layers and blobs.
    pub pushed: u64,
    /// `hull.db` and its log.
    pub database: u64,
    /// `ingest/` and `trash/`: of commands that run now, or were killed.
    pub running: u64,
    /// `partial/` and `cache/`, but for what builds keep there of their sources: downloads that are in no image.
    pub downloads: u64,
    /// How many files these are.
    pub downloaded: usize,
    /// What images without containers occupy: removing them would give back as much.
    pub reclaimable: u64,
}

impl Usage {
    /// Everything.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.layers + self.blobs + self.pushed + self.database + self.running + self.downloads
    }
}

/// What an image occupies: layers, compressed layers and documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUsage {
    /// Its ID.
    pub id: Digest,
    /// Everything of it.
    pub size: u64,
    /// What other images have too.
    pub shared: u64,
    /// What it alone has.
    pub unique: u64,
    /// Owners that hold it.
    pub holders: Vec<String>,
}

impl Store {
    /// Measures the store.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn usage(&self) -> Result<Usage, Error> {
        let images = self.list()?;
        // Which images a file belongs to.
        let mut owners: BTreeMap<std::path::PathBuf, (u64, Vec<usize>)> = BTreeMap::new();
        let mut own = |path: std::path::PathBuf, image: usize| {
            let entry = owners.entry(path).or_insert_with_key(|path| (disk::occupied(path), Vec::new()));
            if entry.1.last() != Some(&image) {
                entry.1.push(image);
            }
        };
        let (manifests, compressions) = self.read(|connection| {
            let pairs = |sql: &str| -> Result<Vec<(Digest, Digest)>, Error> {
                let mut statement = connection.prepare(sql)?;
                let rows = statement.query_map((), |row| Ok((digest(row, 0)?, digest(row, 1)?)))?;
                Ok(rows.collect::<Result<Vec<_>, _>>()?)
            };
            Ok((
                pairs("SELECT images.digest, manifests.digest FROM manifests JOIN images ON images.id = image")?,
                pairs("SELECT diff_id, blob FROM compressions JOIN layers ON layers.id = layer")?,
            ))
        })?;
        for (number, image) in images.iter().enumerate() {
            own(disk::blob(&self.root, &image.id), number);
            for (_, manifest) in manifests.iter().filter(|(id, _)| *id == image.id) {
                own(disk::blob(&self.root, manifest), number);
            }
            for layer in &image.layers {
                own(self.layer_path(&layer.diff_id), number);
                for (_, blob) in compressions.iter().filter(|(diff_id, _)| *diff_id == layer.diff_id) {
                    own(disk::blob(&self.root, blob), number);
                }
            }
        }
        let mut usage = Usage::default();
        for image in &images {
            let holders = self.holders(&image.id)?;
            usage.images.push(ImageUsage { id: image.id.clone(), size: 0, shared: 0, unique: 0, holders });
        }
        for (size, users) in owners.values() {
            let held = users.iter().any(|image| !usage.images[*image].holders.is_empty());
            usage.reclaimable += if held { 0 } else { *size };
            for image in users {
                let row = &mut usage.images[*image];
                row.size += size;
                *(if users.len() == 1 { &mut row.unique } else { &mut row.shared }) += size;
            }
        }
        let part = |name: &str| disk::occupied(&self.root.join(name));
        usage.layers = part("layers");
        usage.blobs = part("blobs");
        let parts = ["layers", "blobs", "registry"].map(|name| self.root.join(name));
        let [layers, blobs, registry] = &parts;
        if registry.exists() {
            let all = disk::occupied_together(&[layers, blobs, registry]);
            usage.pushed = all.saturating_sub(usage.layers + usage.blobs);
        }
        // By stat(2) alone: opening these files here would drop the locks of the database.
        usage.database = ["hull.db", "hull.db-wal", "hull.db-shm"].map(part).iter().sum();
        usage.running = part("ingest") + part("trash");
        // What builds keep of their sources is theirs to tell.
        let sources: u64 = ["cache/context", "cache/http", "cache/git"].map(part).iter().sum();
        usage.downloads = part("partial") + part("cache").saturating_sub(sources);
        usage.downloaded = self.downloads()?.len();
        if usage.downloaded == 0 {
            // Only directories: they are part of what else there is.
            usage.downloads = 0;
        }
        Ok(usage)
    }
}
