//! Finding, naming and repairing damage.

use std::fs::File;
use std::io::Read;

use hull_oci::Digest;
use hull_oci::image::ImageConfig;

use crate::db::Sync;
use crate::disk::{self, Work};
use crate::image::Kind;
use crate::store::{Row, digest, kind, length};
use crate::{Error, Store};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `layer sha256:...`, `blob sha256:...`, `image sha256:...`, `database`.
    pub object: String,
    /// What is wrong with it.
    pub reason: String,
    /// It has been put right.
    pub repaired: bool,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.object, hull_oci::spec::one_line(&self.reason))?;
        formatter.write_str(if self.repaired { " (repaired)" } else { "" })
    }
}

struct Found {
    problems: Vec<Problem>,
}

impl Found {
    fn add(&mut self, object: impl Into<String>, reason: impl ToString, repaired: bool) {
        self.problems.push(Problem { object: object.into(), reason: reason.to_string(), repaired });
    }
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
        let orphans = self.database.read(|connection| self.orphans(connection))?;
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
        Ok(found.problems)
    }

    fn check_database(&self, found: &mut Found) -> Result<(), Error> {
        let lines = self.database.read(|connection| {
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
        let blobs = self.database.read(|connection| {
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
            // A compressed copy of a layer that has its tar can be done without.
            let repaired = repair && spare;
            if repaired {
                self.forget_blob(&blob)?;
            }
            found.add(format!("blob {blob}"), reason, repaired);
        }
        Ok(())
    }

    /// Whether a blob that could not be read has not simply been deleted meanwhile.
    fn blob_is_recorded(&self, blob: &Digest) -> Result<bool, Error> {
        self.database.read(|connection| {
            Ok(connection.prepare("SELECT 1 FROM blobs WHERE digest = ?1")?.exists([blob.to_string()])?)
        })
    }

    fn forget_blob(&self, blob: &Digest) -> Result<(), Error> {
        let work = Work::create(&self.trash())?;
        self.database.write(Sync::Full, |transaction| {
            transaction.execute("DELETE FROM blobs WHERE digest = ?1", [blob.to_string()])?;
            disk::rename_if_there(&disk::blob(&self.root, blob), &work.path().join("blob")).map(drop)
        })?;
        work.remove()
    }

    fn check_layers(&self, _repair: bool, found: &mut Found) -> Result<(), Error> {
        let layers = self.database.read(|connection| {
            let mut statement = connection.prepare("SELECT diff_id, snapshotter, tar FROM layers ORDER BY diff_id")?;
            let rows = statement.query_map((), |row| Ok((digest(row, 0)?, kind(row, 1)?, length(row, 2)?)))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })?;
        for (diff_id, kind, size) in layers {
            let directory = self.layer_path(&diff_id);
            let object = format!("layer {diff_id}");
            let reason = match kind {
                Kind::Directory => match directory.join("tree").symlink_metadata() {
                    Ok(metadata) if metadata.is_dir() => continue,
                    Ok(_) => "its tree is no directory".to_owned(),
                    Err(error) => format!("its tree: {error}"),
                },
                Kind::Erofs => match File::open(directory.join("tar")).and_then(|file| hash(file, &diff_id)) {
                    Ok((digest, length)) if digest == diff_id && length == size => continue,
                    Ok((_, length)) if length != size => format!("its tar has {length} bytes instead of {size}"),
                    Ok((digest, _)) => format!("its tar has digest {digest}"),
                    Err(error) => format!("its tar: {error}"),
                },
            };
            found.add(object, reason, false);
        }
        Ok(())
    }

    fn check_images(&self, found: &mut Found) -> Result<(), Error> {
        let rows = self.database.read(|connection| {
            let mut statement = connection.prepare("SELECT id, digest, manifest, added FROM images ORDER BY digest")?;
            let rows = statement.query_map((), Row::read)?.collect::<Result<Vec<_>, _>>()?;
            let mut read = Vec::new();
            for row in rows {
                let mut statement = connection.prepare(
                    "SELECT diff_id FROM image_layers JOIN layers ON layers.id = layer WHERE image = ?1 ORDER BY position",
                )?;
                let layers = statement.query_map([row.id], |row| digest(row, 0))?.collect::<Result<Vec<_>, _>>()?;
                // Damaged bytes are the blob's problem and have been named.
                if let Ok(bytes) = self.config_bytes(&row.digest) {
                    read.push((row.digest, layers, bytes));
                }
            }
            Ok(read)
        })?;
        for (id, layers, bytes) in rows {
            match ImageConfig::parse(&bytes) {
                Ok(config) if config.rootfs.diff_ids == layers => {}
                Ok(_) => {
                    found.add(format!("image {id}"), "its record names other layers than its configuration", false)
                }
                Err(error) => found.add(format!("image {id}"), error, false),
            }
        }
        Ok(())
    }
}
