//! Finding, naming and repairing damage.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hull_layer::Limits;
use hull_layer::erofs::Index;
use hull_oci::Digest;
use hull_oci::image::ImageConfig;

use crate::disk::{self, Work};
use crate::image::{Kind, Layer};
use crate::rows::{Row, digest, kind, length};
use crate::{Error, LayerSource, Store, layer};
use hull_db::Sync;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `layer sha256:...`, `blob sha256:...`, `image sha256:...`, `database`.
    pub object: String,
    /// What is wrong with it.
    pub reason: String,
    /// It has been put right.
    pub repaired: bool,
    /// Images that have the object: their names, or the ID of one without.
    pub images: Vec<String>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.object, hull_oci::spec::one_line(&self.reason))?;
        if !self.images.is_empty() {
            write!(formatter, "; of image {}", self.images.join(", "))?;
        }
        formatter.write_str(if self.repaired { " (repaired)" } else { "" })
    }
}

/// Images, with their names, whose configuration, manifest or compressed layer a blob is.
const BLOB_IMAGES: &str = "
    SELECT images.digest, names.name FROM images LEFT JOIN names ON names.image = images.id
    WHERE images.digest = ?1 OR images.id IN (SELECT image FROM manifests WHERE digest = ?1)
    OR images.id IN (SELECT image FROM image_layers JOIN compressions USING (layer) WHERE blob = ?1)
    OR images.id IN (SELECT image FROM image_layers JOIN layers ON layers.id = layer WHERE diff_id = ?1)";

/// The same for a layer.
const LAYER_IMAGES: &str = "
    SELECT images.digest, names.name FROM images LEFT JOIN names ON names.image = images.id
    WHERE images.id IN (SELECT image FROM image_layers JOIN layers ON layers.id = layer WHERE diff_id = ?1)";

struct Found {
    problems: Vec<Problem>,
}

impl Found {
    fn add(&mut self, object: impl Into<String>, reason: impl ToString, repaired: bool) {
        self.problems.push(Problem { object: object.into(), reason: reason.to_string(), repaired, images: Vec::new() });
    }

    fn add_of(&mut self, object: impl Into<String>, reason: impl ToString, repaired: bool, images: Vec<String>) {
        self.problems.push(Problem { object: object.into(), reason: reason.to_string(), repaired, images });
    }
}

/// What is wrong with a layer.
enum Damage {
    /// With what cannot be derived from the rest of the layer.
    Content(String),
    /// With its index only.
    Index(String),
}

impl Damage {
    fn reason(&self) -> &str {
        match self {
            Self::Content(reason) | Self::Index(reason) => reason,
        }
    }
}

/// Takes bytes and tells whether a file has the same ones.
struct Compare {
    file: File,
    same: bool,
}

impl Write for Compare {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut there = vec![0; bytes.len()];
        self.same = self.same && self.file.read_exact(&mut there).is_ok() && there == bytes;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes the index that a tar should have.
fn write_index(tar: &File, layer: &Layer, output: &mut dyn Write) -> Result<(), Error> {
    use std::io::Seek as _;
    let mut input = std::io::BufReader::with_capacity(256 << 10, tar);
    input.rewind().map_err(Error::io("read", "tar"))?;
    let tree = hull_layer::ingest::read_tree(input, &Limits::default(), true)?;
    Index::new(&tree, layer.tar_size)?.write(tar, output)?;
    Ok(())
}

/// The first difference between two trees of files: names, types, attributes, content.
fn difference(expected: &Path, found: &Path) -> Option<String> {
    fn walk(expected: &Path, found: &Path, inside: &Path) -> Result<(), String> {
        let at = |what: String| format!("/{}: {what}", inside.display());
        let metadata = |path: &Path| fs::symlink_metadata(path).map_err(|error| at(error.to_string()));
        let (a, b) = (metadata(expected)?, metadata(found)?);
        let attributes = |one: &fs::Metadata| (one.mode(), one.uid(), one.gid(), one.rdev());
        if attributes(&a) != attributes(&b) {
            return Err(at("it has other attributes than in its archive".to_owned()));
        }
        let kind = a.file_type();
        if kind.is_dir() {
            let names = |path: &Path| disk::names(path).map_err(|error| at(error.to_string()));
            let listed = names(expected)?;
            if listed != names(found)? {
                return Err(at("it has other entries than in its archive".to_owned()));
            }
            for entry in fs::read_dir(expected).map_err(|error| at(error.to_string()))?.flatten() {
                let name: &OsStr = &entry.file_name();
                walk(&expected.join(name), &found.join(name), &inside.join(name))?;
            }
        } else if kind.is_symlink() {
            if fs::read_link(expected).ok() != fs::read_link(found).ok() {
                return Err(at("it has another target than in its archive".to_owned()));
            }
        } else if kind.is_file() {
            let mut compare = Compare { file: File::open(found).map_err(|error| at(error.to_string()))?, same: true };
            let copied = File::open(expected).and_then(|mut file| std::io::copy(&mut file, &mut compare));
            copied.map_err(|error| at(error.to_string()))?;
            if !compare.same || a.len() != b.len() {
                return Err(at("it has other content than in its archive".to_owned()));
            }
        }
        Ok(())
    }
    walk(expected, found, Path::new("")).err()
}

fn hash(mut file: impl Read, digest: &Digest) -> std::io::Result<(Digest, u64)> {
    let (mut hasher, mut buffer, mut size) = (digest.hasher(), vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), size)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Store {
    /// Reads everything and compares it with its digest and its record. With `repair`, what can be made again from what
    /// is whole is made again, and what no record names is removed; the rest is only named.
    ///
    /// # Errors
    /// When the database cannot be read at all.
    pub fn check(&self, repair: bool) -> Result<Vec<Problem>, Error> {
        let mut found = Found { problems: Vec::new() };
        self.check_database(&mut found)?;
        let orphans = self.read(|connection| self.orphans(connection))?;
        let swept = if repair && !orphans.is_empty() {
            let work = Work::create(&self.trash())?;
            let swept = self.sweep(&work)?;
            work.remove()?;
            swept
        } else {
            Vec::new()
        };
        for (name, _) in orphans {
            // One that a transfer was just putting into place has its record by now.
            let repaired = swept.contains(&name);
            if repaired || !repair {
                found.add(name, "no record names it", repaired);
            }
        }
        self.check_blobs(repair, &mut found)?;
        self.check_layers(repair, &mut found)?;
        self.check_images(&mut found)?;
        self.check_downloads(repair, &mut found)?;
        Ok(found.problems)
    }

    fn check_database(&self, found: &mut Found) -> Result<(), Error> {
        let lines = self.read(|connection| {
            let mut statement = connection.prepare("PRAGMA integrity_check(20)")?;
            let mut lines = statement.query_map((), |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
            let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
            let dangling = statement.query_map((), |row| {
                Ok(format!(
                    "{} names a row of {} that is not there",
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(2)?
                ))
            })?;
            lines.extend(dangling.collect::<Result<Vec<String>, _>>()?);
            Ok(lines)
        })?;
        for line in lines.into_iter().filter(|line| line != "ok") {
            found.add("database hull.db", line, false);
        }
        Ok(())
    }

    fn check_blobs(&self, repair: bool, found: &mut Found) -> Result<(), Error> {
        let blobs = self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT digest, size, EXISTS (SELECT 1 FROM compressions JOIN layers ON layers.id = layer
                 WHERE blob = blobs.digest AND snapshotter = 'erofs') FROM blobs ORDER BY digest",
            )?;
            let rows = statement.query_map((), |row| Ok((digest(row, 0)?, length(row, 1)?, row.get::<_, bool>(2)?)))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })?;
        for (blob, size, spare) in blobs {
            let path = disk::blob(&self.root, &blob);
            let reason = match File::open(&path).and_then(|file| hash(file, &blob)) {
                Ok((digest, length)) if digest == blob && length == size => continue,
                Ok((_, length)) if length != size => format!("it has {length} bytes instead of {size}"),
                Ok((digest, _)) => format!("its content has digest {digest}"),
                Err(error) => error.to_string(),
            };
            if !self.blob_is_recorded(&blob)? {
                continue;
            }
            let images = self.images_with(BLOB_IMAGES, &blob)?;
            // A compressed copy of a layer that has its tar can be done without.
            let repaired = repair && spare;
            if repaired {
                self.forget_blob(&blob)?;
            }
            found.add_of(format!("blob {blob}"), reason, repaired, images);
        }
        Ok(())
    }

    /// The names of the images that a query finds for a digest.
    fn images_with(&self, sql: &str, object: &Digest) -> Result<Vec<String>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query([object.to_string()])?;
            let mut images = std::collections::BTreeSet::new();
            while let Some(row) = rows.next()? {
                let (id, name): (String, Option<String>) = (row.get(0)?, row.get(1)?);
                let name = name.map(|name| name.parse().map_or(name, |one: hull_oci::Reference| one.familiar()));
                images.insert(name.unwrap_or(id));
            }
            Ok(images.into_iter().collect())
        })
    }

    /// Whether a blob that could not be read has not simply been deleted meanwhile.
    fn blob_is_recorded(&self, blob: &Digest) -> Result<bool, Error> {
        self.read(|connection| {
            Ok(connection.prepare("SELECT 1 FROM blobs WHERE digest = ?1")?.exists([blob.to_string()])?)
        })
    }

    fn forget_blob(&self, blob: &Digest) -> Result<(), Error> {
        let work = Work::create(&self.trash())?;
        self.write(Sync::Full, |transaction| {
            transaction.execute("DELETE FROM blobs WHERE digest = ?1", [blob.to_string()])?;
            disk::rename_if_there(&disk::blob(&self.root, blob), &work.path().join("blob")).map(drop)
        })?;
        work.remove()
    }

    fn check_layers(&self, repair: bool, found: &mut Found) -> Result<(), Error> {
        let layers = self.read(|connection| {
            let mut statement =
                connection.prepare("SELECT diff_id, snapshotter, content, tar FROM layers ORDER BY diff_id")?;
            let rows = statement.query_map((), |row| {
                let (size, tar_size) = (length(row, 2)?, length(row, 3)?);
                Ok(Layer { diff_id: digest(row, 0)?, kind: kind(row, 1)?, size, tar_size, blob: None })
            })?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })?;
        for layer in layers {
            let damage = match layer.kind {
                Kind::Directory => self.tree_damage(&layer)?,
                Kind::Erofs => self.tar_damage(&layer),
            };
            let Some(damage) = damage else { continue };
            if !self.layer_is_recorded(&layer.diff_id)? {
                continue;
            }
            let repaired = repair && self.rebuild(&layer, &damage).unwrap_or(false);
            let images = self.images_with(LAYER_IMAGES, &layer.diff_id)?;
            found.add_of(format!("layer {}", layer.diff_id), damage.reason(), repaired, images);
        }
        Ok(())
    }

    fn layer_is_recorded(&self, diff_id: &Digest) -> Result<bool, Error> {
        self.read(|connection| Ok(crate::publish::known(connection, diff_id)?.is_some().then_some(())))
            .map(|found: Option<()>| found.is_some())
    }

    fn tar_damage(&self, layer: &Layer) -> Option<Damage> {
        let directory = self.layer_path(&layer.diff_id);
        let tar = match File::open(directory.join("tar")) {
            Ok(file) => file,
            Err(error) => return Some(Damage::Content(format!("its tar: {error}"))),
        };
        match hash(&tar, &layer.diff_id) {
            Ok((digest, length)) if digest == layer.diff_id && length == layer.tar_size => {}
            Ok((_, length)) if length != layer.tar_size => {
                return Some(Damage::Content(format!("its tar has {length} bytes instead of {}", layer.tar_size)));
            }
            Ok((digest, _)) => return Some(Damage::Content(format!("its tar has digest {digest}"))),
            Err(error) => return Some(Damage::Content(format!("its tar: {error}"))),
        }
        let mut compare = match File::open(directory.join("index")) {
            Ok(file) => Compare { file, same: true },
            Err(error) => return Some(Damage::Index(format!("its index: {error}"))),
        };
        if let Err(error) = write_index(&tar, layer, &mut compare) {
            return Some(Damage::Index(format!("its index: {error}")));
        }
        let ended = matches!(compare.file.read(&mut [0]), Ok(0));
        (!compare.same || !ended).then(|| Damage::Index("its index is not the one of its tar".to_owned()))
    }

    fn tree_damage(&self, layer: &Layer) -> Result<Option<Damage>, Error> {
        let tree = self.layer_path(&layer.diff_id).join("tree");
        if let Err(error) = fs::symlink_metadata(&tree) {
            return Ok(Some(Damage::Content(format!("its tree: {error}"))));
        }
        let work = Work::create(&self.ingest())?;
        if !self.unpack_again(layer, &work)? {
            // The blob's damage has been named; without it there is nothing to compare with.
            return Ok(None);
        }
        let difference = difference(&work.path().join("tree"), &tree);
        work.remove()?;
        Ok(difference.map(Damage::Content))
    }

    /// Writes a layer from one of its blobs into a work directory; `false` when no blob serves.
    fn unpack_again(&self, layer: &Layer, work: &Work) -> Result<bool, Error> {
        let blobs = self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT blobs.digest FROM blobs JOIN compressions ON blob = blobs.digest
                 JOIN layers ON layers.id = layer WHERE diff_id = ?1",
            )?;
            let rows = statement.query_map([layer.diff_id.to_string()], |row| digest(row, 0))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })?;
        for blob in blobs {
            let source = LayerSource { blob: None, diff_id: Some(layer.diff_id.clone()), keep_blob: false };
            let Ok(file) = self.open_blob(&blob) else { continue };
            if layer::write(file, work.path(), layer.kind, &source, &Limits::default()).is_ok() {
                return Ok(true);
            }
            for name in disk::names(work.path())? {
                disk::remove(&work.path().join(name))?;
            }
        }
        Ok(false)
    }

    /// Makes what is damaged again from what is whole.
    fn rebuild(&self, layer: &Layer, damage: &Damage) -> Result<bool, Error> {
        let work = Work::create(&self.trash())?;
        let directory = self.layer_path(&layer.diff_id);
        disk::create_private(&directory)?;
        let files: &[&str] = match (damage, layer.kind) {
            (Damage::Index(_), _) => {
                let path = work.path().join("index");
                let tar = File::open(directory.join("tar")).map_err(Error::io("open", directory.join("tar")))?;
                let mut index = File::create_new(&path).map_err(Error::io("create", &path))?;
                write_index(&tar, layer, &mut index)?;
                index.sync_all().map_err(Error::io("sync", &path))?;
                &["index"]
            }
            (Damage::Content(_), kind) => {
                if !self.unpack_again(layer, &work)? {
                    return Ok(false);
                }
                if kind == Kind::Erofs { &["tar", "index"] } else { &["tree"] }
            }
        };
        for name in files {
            let (from, to) = (work.path().join(name), directory.join(name));
            disk::rename_if_there(&to, &work.path().join(format!("damaged-{name}")))?;
            fs::rename(&from, &to).map_err(Error::io("rename", &from))?;
        }
        disk::sync(&directory)?;
        work.remove()?;
        Ok(true)
    }

    /// A file of the cache has the digest that it is named by; what came of a cut transfer is only known by its name.
    fn check_downloads(&self, repair: bool, found: &mut Found) -> Result<(), Error> {
        for one in self.downloads()? {
            let reason = match &one.digest {
                None => "it has no digest as its name".to_owned(),
                Some(_) if one.partial => continue,
                Some(digest) => match File::open(&one.path).and_then(|file| hash(file, digest)) {
                    Ok((content, _)) if content == *digest => continue,
                    Ok((content, _)) => format!("its content has digest {content}"),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(error) => error.to_string(),
                },
            };
            let repaired = repair && one.remove()?;
            found.add(format!("download {}", one.name), reason, repaired);
        }
        Ok(())
    }

    fn check_images(&self, found: &mut Found) -> Result<(), Error> {
        let rows = self.read(|connection| {
            let mut statement = connection.prepare("SELECT id, digest, manifest, added FROM images ORDER BY digest")?;
            let rows = statement.query_map((), Row::read)?.collect::<Result<Vec<_>, _>>()?;
            let mut read = Vec::new();
            for row in rows {
                let mut statement = connection.prepare(
                    "SELECT diff_id FROM image_layers JOIN layers ON layers.id = layer WHERE image = ?1 ORDER BY position",
                )?;
                let layers = statement.query_map([row.id], |row| digest(row, 0))?.collect::<Result<Vec<_>, _>>()?;
                // Damaged bytes are the blob's problem and have been named.
                if let Ok(bytes) = self.document(&row.digest, hull_oci::image::MAX_CONFIG_BYTES) {
                    read.push((row.digest, layers, bytes));
                }
            }
            Ok(read)
        })?;
        for (id, layers, bytes) in rows {
            match ImageConfig::parse(&bytes) {
                Ok(config) if config.rootfs.diff_ids == layers => {}
                Ok(_) => {
                    found.add(format!("image {id}"), "its record names other layers than its configuration", false);
                }
                Err(error) => found.add(format!("image {id}"), error, false),
            }
        }
        Ok(())
    }
}
