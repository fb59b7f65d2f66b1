//! The store: opening, finding and listing images, reading their documents, repairing.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_oci::image::{Document, ImageConfig, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES};
use hull_oci::{Digest, Reference};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::disk::{self, Work};
use crate::image::{Image, Kind, Layer};
use crate::kept::Kept;
use crate::rows::{Row, digest, digest_or_none, find_row, kind, length, name_key, reference, row_of};
use crate::{Error, hello, indexes};
use hull_db::{Database, Moment, Sync};

/// The image store of a data directory. Clones share one connection to the database.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) root: Arc<PathBuf>,
    pub(crate) database: Database,
    /// What was found before, in a process that answers many requests.
    kept: Option<Arc<Kept>>,
}

impl Store {
    /// The store below Hull's data directory. Nothing is read or made: that happens at the first use.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: Arc::new(root.to_owned()), database: Database::new(root), kept: None }
    }

    /// Images that are found are kept, as long as nobody changes a record.
    #[must_use]
    pub fn keeping(mut self) -> Self {
        self.kept = Some(Arc::default());
        self
    }

    /// Whether images that are found are kept.
    pub(crate) fn keeps(&self) -> bool {
        self.kept.is_some()
    }

    /// Gives up what is kept.
    pub fn forget(&self) {
        if let Some(kept) = &self.kept {
            kept.forget();
        }
    }

    /// [`Self::new`], and the database is opened if there is one, so that a damaged one is told at once.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Records`].
    pub fn open(root: &Path) -> Result<Self, Error> {
        let store = Self::new(root);
        store.read(|_| Ok(()))?;
        Ok(store)
    }

    /// The data directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Closes the database; it opens again at its next use. To be called before a fork whose child uses the store.
    pub fn close(&self) {
        self.database.close();
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// `layers/HEX`, with `tar` and `index`, or `tree/`.
    #[must_use]
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        disk::layer(&self.root, diff_id)
    }

    /// Finds an image by name, familiar name, `NAME@DIGEST`, ID, unique beginning of an ID, or digest of a manifest. A
    /// name goes before a beginning. The built-in image is made at its first use. Nothing is written otherwise.
    ///
    /// # Errors
    /// [`Error::NoImage`]; [`Error::Damaged`] when the configuration is not what its digest says.
    pub fn find(&self, text: &str) -> Result<Image, Error> {
        let found = |kept: &Kept, moment| kept.image(moment, text).map(Some);
        let put = |kept: &Kept, moment, image: &Option<Image>| {
            if let Some(image) = image {
                kept.put(moment, text, image);
            }
        };
        let found = self.settled_unless(found, put, |connection| match find_row(connection, text)? {
            Some(row) => self.load(connection, &row).map(Some),
            None => Ok(None),
        })?;
        if let Some(image) = found {
            return Ok(image);
        }
        if text.parse::<Reference>().is_ok_and(|name| name.digest().is_none() && name_key(&name) == hello::full_name())
        {
            return hello::make(self);
        }
        if let Some(image) = self.meant(text)? {
            return Ok(image);
        }
        Err(Error::no_image(text))
    }

    /// What a name without a registry means by the machine's `registries.conf`, as when it is pulled.
    fn meant(&self, text: &str) -> Result<Option<Image>, Error> {
        // Whatever is wrong with that file is told by who pulls.
        for name in hull_registry::hosts::meant(text).unwrap_or_default() {
            let found = self.settled(|connection| match find_row(connection, &name.to_string())? {
                Some(row) => self.load(connection, &row).map(Some),
                None => Ok(None),
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The image of this ID.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn get(&self, id: &Digest) -> Result<Image, Error> {
        let found = self.settled(|connection| match row_of(connection, id)? {
            Some(row) => self.load(connection, &row).map(Some),
            None => Ok(None),
        })?;
        found.ok_or_else(|| Error::NoImage(id.to_string()))
    }

    /// The ID of the image that has a name, by records alone. A digest in the name does not count.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn id_of(&self, name: &Reference) -> Result<Option<Digest>, Error> {
        self.database.read(|connection| {
            let sql = "SELECT digest FROM names JOIN images ON images.id = image WHERE name = ?1";
            Ok(connection.prepare_cached(sql)?.query_row([name_key(name)], |row| digest(row, 0)).optional()?)
        })
    }

    /// The names of all images, sorted, by records alone.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn names(&self) -> Result<Vec<Reference>, Error> {
        self.database.read(|connection| {
            let mut statement = connection.prepare("SELECT name FROM names ORDER BY name")?;
            Ok(statement.query_map((), |row| reference(row, 0))?.collect::<Result<Vec<_>, _>>()?)
        })
    }

    /// Whether the image of this ID is there, by records alone.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn has(&self, id: &Digest) -> Result<bool, Error> {
        self.database.read(|connection| Ok(row_of(connection, id)?.is_some()))
    }

    /// All images, newest first by their own account, then by ID.
    ///
    /// # Errors
    /// When the database or a configuration cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let put = |kept: &Kept, moment, images: &Vec<Image>| kept.put_all(moment, images);
        let mut images = self.settled_unless(Kept::all, put, |connection| {
            let mut statement = connection.prepare("SELECT id, digest, manifest, added FROM images")?;
            let rows = statement.query_map((), Row::read)?.collect::<Result<Vec<_>, _>>()?;
            rows.iter().map(|row| self.load(connection, row)).collect::<Result<Vec<_>, _>>()
        })?;
        images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(images)
    }

    /// The configuration's bytes, as they came.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn config_bytes(&self, id: &Digest) -> Result<Vec<u8>, Error> {
        self.settled(|connection| match row_of(connection, id)? {
            Some(_) => self.document(id, MAX_CONFIG_BYTES).map(Some),
            None => Ok(None),
        })?
        .ok_or_else(|| Error::NoImage(id.to_string()))
    }

    /// The bytes of the manifest that the image came with last; absent for an image that was made without one.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn manifest_bytes(&self, id: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let found = self.settled(|connection| match row_of(connection, id)? {
            Some(Row { manifest: Some(manifest), .. }) => {
                self.document(&manifest, MAX_MANIFEST_BYTES).map(|bytes| Some(Some(bytes)))
            }
            Some(_) => Ok(Some(None)),
            None => Ok(None),
        })?;
        found.ok_or_else(|| Error::NoImage(id.to_string()))
    }

    /// Reads records of one moment.
    pub(crate) fn read<T: Default>(&self, body: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        self.database.read(body)
    }

    /// Writes records; a full disk is said to be one.
    pub(crate) fn write<T>(
        &self,
        sync: Sync,
        body: impl FnOnce(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.database.write(sync, body).map_err(|error: Error| error.full(&self.root))
    }

    /// The database, which other crates keep their tables in.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Reads records and the documents that they name. A removal takes files away after its records, so a reader that
    /// saw the records before may miss a file: it looks again. What is damaged is so the last time too.
    pub(crate) fn settled<T: Default>(&self, body: impl Fn(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        for _ in 0..20 {
            match self.read(&body) {
                Err(Error::Damaged { .. }) => {}
                result => return result,
            }
        }
        self.read(body)
    }

    /// [`Self::settled`], unless it is known.
    fn settled_unless<T: Default>(
        &self,
        known: impl Fn(&Kept, Moment) -> Option<T>,
        put: impl Fn(&Kept, Moment, &T),
        body: impl Fn(&Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(kept) = &self.kept else { return self.settled(body) };
        let found = self.database.read_unless(
            |moment| known(kept, moment),
            |connection, moment| {
                let found = body(connection)?;
                put(kept, moment, &found);
                Ok(found)
            },
        );
        match found {
            Err(Error::Damaged { .. }) => self.settled(body),
            found => found,
        }
    }

    /// Where a blob is, if it is held. It may go at any moment: [`Self::open_blob`].
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        disk::blob(&self.root, digest)
    }

    /// A held blob, opened for reading: a document or a compressed layer.
    ///
    /// # Errors
    /// When it is not held.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        let path = disk::blob(&self.root, digest);
        File::open(&path).map_err(Error::io("open", &path))
    }

    /// A layer's uncompressed archive as a stream, from its tar or from its blob.
    ///
    /// # Errors
    /// When neither can be opened.
    pub fn layer_tar(&self, layer: &Layer) -> Result<Box<dyn std::io::Read + Send>, Error> {
        if layer.kind == Kind::Erofs {
            let path = self.layer_path(&layer.diff_id).join("tar");
            return Ok(Box::new(File::open(&path).map_err(Error::io("open", &path))?));
        }
        let blob = layer.blob.as_ref().map_or(&layer.diff_id, |(digest, _)| digest);
        crate::layer::decompressed(self.open_blob(blob)?)
    }

    pub(crate) fn document(&self, digest: &Digest, max: u64) -> Result<Vec<u8>, Error> {
        let path = disk::blob(&self.root, digest);
        // One read for nearly every configuration.
        let mut bytes = Vec::with_capacity(8 << 10);
        let file = File::open(&path).map_err(|error| Error::damaged(format!("blob {digest}"), error))?;
        file.take(max + 1).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        let mut hasher = digest.hasher();
        hasher.update(&bytes);
        if hasher.finish() != *digest {
            return Err(Error::damaged(format!("blob {digest}"), "its content has another digest"));
        }
        Ok(bytes)
    }

    pub(crate) fn config_of(&self, row: &Row) -> Result<ImageConfig, Error> {
        ImageConfig::parse(&self.document(&row.digest, MAX_CONFIG_BYTES)?)
            .map_err(|error| Error::damaged(format!("image {}", row.digest), error))
    }

    /// Reads everything about an image; within a transaction, so that nothing of it goes meanwhile.
    pub(crate) fn load(&self, connection: &Connection, row: &Row) -> Result<Image, Error> {
        let config = self.config_of(row)?;
        let mut statement = connection.prepare_cached("SELECT name FROM names WHERE image = ?1 ORDER BY name")?;
        let names = statement.query_map([row.id], |row| reference(row, 0))?.collect::<Result<Vec<_>, _>>()?;
        let mut statement = connection.prepare_cached("SELECT name FROM variants WHERE image = ?1 ORDER BY name")?;
        let variant_of = statement.query_map([row.id], |row| reference(row, 0))?.collect::<Result<Vec<_>, _>>()?;
        let mut statement = connection.prepare_cached(indexes::SHOWN)?;
        let repo_digests =
            statement.query_map([row.id], |row| Ok((row.get(0)?, digest(row, 1)?)))?.collect::<Result<Vec<_>, _>>()?;
        let layers = self.layers_of(connection, row)?;
        if layers.iter().map(|layer| &layer.diff_id).ne(&config.rootfs.diff_ids) {
            return Err(row.names_other_layers());
        }
        Ok(Image {
            id: row.digest.clone(),
            names,
            variant_of,
            repo_digests,
            manifest: row.manifest.clone(),
            created: config.created.as_deref().and_then(hull_oci::time::parse_rfc3339).unwrap_or(0),
            added: row.added,
            size: layers.iter().map(|layer| layer.size).sum(),
            layers,
            config,
        })
    }

    fn layers_of(&self, connection: &Connection, row: &Row) -> Result<Vec<Layer>, Error> {
        let mut statement = connection.prepare_cached(
            "SELECT layers.diff_id, layers.snapshotter, layers.content, layers.tar, blobs.digest, blobs.size, position
             FROM image_layers JOIN layers ON layers.id = image_layers.layer
             LEFT JOIN compressions ON compressions.layer = layers.id
             LEFT JOIN blobs ON blobs.digest = compressions.blob
             WHERE image_layers.image = ?1 ORDER BY position, blobs.digest",
        )?;
        let mut rows = statement.query([row.id])?;
        let (mut layers, mut last) = (Vec::<Layer>::new(), None);
        let mut wanted = None;
        while let Some(record) = rows.next()? {
            let position: i64 = record.get(6)?;
            let blob = match digest_or_none(record, 4)? {
                Some(digest) => Some((digest, length(record, 5)?)),
                None => None,
            };
            if last != Some(position) {
                let (diff_id, kind) = (digest(record, 0)?, kind(record, 1)?);
                layers.push(Layer { diff_id, kind, size: length(record, 2)?, tar_size: length(record, 3)?, blob });
                last = Some(position);
            } else if let (Some(layer), Some(blob)) = (layers.last_mut(), blob) {
                // Compressed in several ways: the one that the manifest names counts.
                let wanted = wanted.get_or_insert_with(|| self.manifest_layers(row));
                if layer.blob.is_none() || wanted.contains(&blob.0) {
                    layer.blob = Some(blob);
                }
            }
        }
        Ok(layers)
    }

    fn manifest_layers(&self, row: &Row) -> Vec<Digest> {
        let bytes = row.manifest.as_ref().and_then(|manifest| self.document(manifest, MAX_MANIFEST_BYTES).ok());
        match bytes.and_then(|bytes| Document::parse(&bytes, None).ok()) {
            Some(Document::Manifest(manifest)) => manifest.layers.into_iter().map(|layer| layer.digest).collect(),
            _ => Vec::new(),
        }
    }

    /// The work directories below `parent` whose commands have died.
    fn abandoned(&self, parent: &Path) -> Result<Vec<Work>, Error> {
        let Some(kept) = &self.kept else { return disk::abandoned(parent) };
        if kept.is_empty(parent) || kept.look(parent, || disk::names(parent))?.is_empty() {
            return Ok(Vec::new());
        }
        disk::abandoned(parent)
    }

    /// The moment that the records are at, in a process that keeps what it found: as long as it is the same, nobody has
    /// changed any.
    ///
    /// # Errors
    /// [`Error::Records`].
    pub fn moment(&self) -> Result<Option<Moment>, Error> {
        match &self.kept {
            Some(_) => self.database.read_unless(|moment| Some(Some(moment)), |_, moment| Ok(Some(moment))),
            None => Ok(None),
        }
    }

    /// Removes what killed commands left: their work directories, their leases, and files without records. Costs a look
    /// at two directories when nothing died. Returns how many commands it cleaned up after.
    ///
    /// # Errors
    /// When a directory cannot be read or removed, or the database not be read.
    pub fn repair(&self) -> Result<usize, Error> {
        let mut dead = self.abandoned(&self.ingest())?;
        dead.extend(self.abandoned(&self.trash())?);
        let Some(first) = dead.first() else { return Ok(0) };
        if self.database.path().exists() {
            self.sweep(first)?;
            self.write(Sync::Normal, |transaction| {
                for work in &dead {
                    transaction.execute("DELETE FROM leases WHERE work = ?1", [work.name()])?;
                }
                Ok(())
            })?;
            self.database.tidy();
            self.close();
        }
        let count = dead.len();
        let mut result = Ok(count);
        for work in dead {
            if let Err(error) = work.remove() {
                result = Err(error);
            }
        }
        result
    }

    /// Moves files without records into a work directory. Publishing and sweeping exclude each other by the database's
    /// write lock.
    pub(crate) fn sweep(&self, work: &Work) -> Result<Vec<String>, Error> {
        let mut swept = Vec::new();
        self.write(Sync::Normal, |transaction| {
            for (name, path) in self.orphans(transaction)? {
                if disk::rename_if_there(&path, &work.path().join(format!("orphan-{}", swept.len())))? {
                    swept.push(name);
                }
            }
            Ok(())
        })?;
        Ok(swept)
    }

    /// Files below `blobs/` and `layers/` that no record names.
    pub(crate) fn orphans(&self, connection: &Connection) -> Result<Vec<(String, PathBuf)>, Error> {
        let mut found = Vec::new();
        let mut layers = connection.prepare("SELECT 1 FROM layers WHERE diff_id = ?1")?;
        let directory = self.root.join("layers");
        for name in disk::names(&directory)? {
            let known = match disk::digest_of_name(&name) {
                Some(digest) => layers.exists([digest.to_string()])?,
                None => false,
            };
            if !known {
                found.push((format!("layer {name}"), directory.join(name)));
            }
        }
        let mut blobs = connection.prepare("SELECT 1 FROM blobs WHERE digest = ?1")?;
        for algorithm in ["sha256", "sha512"] {
            let directory = self.root.join("blobs").join(algorithm);
            for name in disk::names(&directory)? {
                if !blobs.exists([format!("{algorithm}:{name}")])? {
                    found.push((format!("blob {algorithm}:{name}"), directory.join(name)));
                }
            }
        }
        Ok(found)
    }

    /// A setting of the store.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn setting(&self, name: &str) -> Result<Option<String>, Error> {
        self.read(|connection| {
            Ok(connection
                .query_row("SELECT value FROM settings WHERE name = ?1", [name], |row| row.get(0))
                .optional()?)
        })
    }

    /// Changes a setting; `None` removes it.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_setting(&self, name: &str, value: Option<&str>) -> Result<(), Error> {
        self.write(Sync::Full, |transaction| {
            match value {
                Some(value) => {
                    transaction.execute("INSERT OR REPLACE INTO settings VALUES (?1, ?2)", params![name, value])?
                }
                None => transaction.execute("DELETE FROM settings WHERE name = ?1", [name])?,
            };
            Ok(())
        })
    }
}

impl Store {
    /// How new layers are kept here; see [`crate::snapshot`].
    ///
    /// # Errors
    /// As [`crate::snapshot::probe::Capabilities::of`].
    pub fn snapshotter(&self) -> Result<Kind, Error> {
        disk::create_private(&self.root)?;
        Ok(crate::snapshot::probe::Capabilities::of(&self.root)?.kind)
    }
}
