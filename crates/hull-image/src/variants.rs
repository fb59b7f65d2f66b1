//! One name for several platforms: the image that it means, and those behind it ([`crate::Image::variant_of`]).

use hull_oci::image::Platform;
use hull_oci::spec::one_line;
use hull_oci::{Digest, Reference};
use rusqlite::{Connection, Transaction, params};

use crate::names::{Removed, delete_image};
use crate::rows::{Row, digest, name_key, row_of};
use crate::{Error, Image, Store};
use hull_db::Sync;

/// The images behind a name, in order.
fn behind(connection: &Connection, name: &Reference) -> Result<Vec<Row>, Error> {
    let sql = "SELECT images.id, images.digest, images.manifest, added FROM variants
               JOIN images ON images.id = variants.image WHERE name = ?1 ORDER BY position";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_map([name_key(name)], Row::read)?.collect::<Result<_, _>>()?)
}

/// The images behind some names: they go with the last of these.
pub(crate) fn ids_behind(connection: &Connection, names: &[&Reference]) -> Result<Vec<(i64, Digest)>, Error> {
    let mut all = Vec::new();
    for name in names {
        all.extend(behind(connection, name)?.into_iter().map(|row| (row.id, row.digest)));
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Deletes what of these nothing names or holds any more.
pub(crate) fn delete_unnamed(
    transaction: &Transaction<'_>,
    images: &[(i64, Digest)],
    leased: &std::collections::BTreeSet<Digest>,
    removed: &mut Vec<Removed>,
) -> Result<(), Error> {
    for (image, id) in images.iter().filter(|(_, id)| !leased.contains(id)) {
        let sql = "SELECT 1 FROM images WHERE id = ?1
                   AND NOT EXISTS (SELECT 1 FROM names WHERE image = ?1)
                   AND NOT EXISTS (SELECT 1 FROM variants WHERE image = ?1)
                   AND NOT EXISTS (SELECT 1 FROM holds WHERE image = ?1)";
        if transaction.prepare_cached(sql)?.exists([image])? {
            delete_image(transaction, *image)?;
            removed.push(Removed::Deleted(id.to_string()));
        }
    }
    Ok(())
}

/// Gives a name the images that stand behind another name of an image.
pub(crate) fn copy(transaction: &Transaction<'_>, image: i64, name: &str) -> Result<(), Error> {
    let sql = "INSERT OR IGNORE INTO variants SELECT ?2, position, image FROM variants WHERE name = (
                   SELECT name FROM names WHERE image = ?1 AND name <> ?2
                   AND EXISTS (SELECT 1 FROM variants WHERE variants.name = names.name) ORDER BY name LIMIT 1)";
    transaction.execute(sql, params![image, name])?;
    Ok(())
}

impl Store {
    /// Every image that a name means: the one without platform first. One image if the text is no name.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub fn find_all(&self, text: &str) -> Result<Vec<Image>, Error> {
        let first = self.find(text)?;
        let given = text.parse::<Reference>().ok();
        let named = match given.as_ref().and_then(Reference::digest) {
            // The digest of an index: the names that were pulled with it know its other manifests.
            Some(digest) if first.manifest.as_ref() != Some(digest) => {
                let repository = given.as_ref().map(Reference::repository);
                first.names.iter().find(|name| Some(name.repository()) == repository).cloned()
            }
            Some(_) => None,
            None => given.map(Reference::or_latest).filter(|name| first.names.contains(name)),
        };
        let mut all = vec![first];
        if let Some(name) = named {
            all.extend(self.settled(|connection| {
                behind(connection, &name)?.iter().map(|row| self.load(connection, row)).collect::<Result<Vec<_>, _>>()
            })?);
        }
        Ok(all)
    }

    /// The image of a name that suits a platform best; where none does, the one that [`Store::find`] gives.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub fn find_for(&self, text: &str, platform: &Platform) -> Result<Image, Error> {
        let mut all = self.find_all(text)?;
        let mut best: Option<(u32, usize)> = None;
        for (place, image) in all.iter().enumerate() {
            let score = image.config.platform.suits(platform);
            if let Some(score) = score.filter(|score| best.is_none_or(|(other, _)| *score > other)) {
                best = Some((score, place));
            }
        }
        Ok(all.swap_remove(best.map_or(0, |(_, place)| place)))
    }

    /// The image of a name for a platform, when one is asked for.
    ///
    /// # Errors
    /// [`Error::NoImage`]; [`Error::Platform`] when it is for others only.
    pub fn find_on(&self, text: &str, platform: Option<&Platform>) -> Result<Image, Error> {
        let Some(wanted) = platform else { return self.find(text) };
        let image = self.find_for(text, wanted)?;
        if image.config.platform.suits(wanted).is_some() {
            return Ok(image);
        }
        let (name, actual) = (one_line(text), image.config.platform.to_string());
        Err(Error::Platform { name, wanted: wanted.to_string(), actual })
    }

    /// The images of a name that suit some platforms: all of them when none is asked for.
    ///
    /// # Errors
    /// As [`Store::find_on`].
    pub fn find_several(&self, text: &str, platforms: &[Platform]) -> Result<Vec<Image>, Error> {
        if platforms.is_empty() {
            return self.find_all(text);
        }
        let mut found: Vec<Image> = Vec::new();
        for wanted in platforms {
            let image = self.find_on(text, Some(wanted))?;
            if !found.iter().any(|known| known.id == image.id) {
                found.push(image);
            }
        }
        Ok(found)
    }

    /// Takes some platforms from a name: their images go where nothing else names or holds them. The last one takes the
    /// name along, as [`Store::remove`] does.
    ///
    /// # Errors
    /// [`Error::NoImage`], [`Error::Platform`]; [`Error::Conflict`] when a container uses one of them.
    pub fn remove_platforms(
        &self,
        text: &str,
        platforms: &[Platform],
        force: bool,
        is_running: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Removed>, Error> {
        let gone = self.find_several(text, platforms)?;
        let all = self.find_all(text)?;
        let stay: Vec<Digest> =
            all.into_iter().map(|one| one.id).filter(|id| !gone.iter().any(|one| one.id == *id)).collect();
        if stay.is_empty() {
            return self.remove(text, force, is_running);
        }
        for image in &gone {
            let holders = self.holders(&image.id)?;
            if let Some(owner) = holders.iter().find(|owner| !force || is_running(owner)) {
                return Err(Error::Conflict(format!(
                    "unable to delete {} for {} - container {} is using it",
                    image.id.short(),
                    image.config.platform,
                    crate::names::short_owner(owner)
                )));
            }
        }
        let name = text.parse::<Reference>()?.or_latest();
        self.tag_all(&stay, std::slice::from_ref(&name))?;
        let (removed, _) = self.delete(|transaction, _| {
            let mut removed = Vec::new();
            let leased = self.leased_images(transaction)?;
            for image in &gone {
                let Some(row) = row_of(transaction, &image.id)? else { continue };
                removed.push(Removed::Untagged(format!("{} ({})", name.familiar(), image.config.platform)));
                delete_unnamed(transaction, &[(row.id, image.id.clone())], &leased, &mut removed)?;
            }
            Ok(removed)
        })?;
        Ok(removed)
    }

    /// Gives names to images for several platforms: without a platform they mean the one that suits this machine, or
    /// else the first.
    ///
    /// # Errors
    /// [`Error::NoImage`] when one is gone.
    pub fn tag_all(&self, ids: &[Digest], names: &[Reference]) -> Result<(), Error> {
        let native = Platform::native();
        let mut first = 0;
        for (place, id) in ids.iter().enumerate() {
            if self.get(id)?.config.platform.suits(&native).is_some() {
                first = place;
                break;
            }
        }
        self.write(Sync::Full, |transaction| {
            let mut rows = Vec::with_capacity(ids.len());
            for id in ids {
                rows.push(row_of(transaction, id)?.ok_or_else(|| Error::NoImage(id.to_string()))?.id);
            }
            let Some(means) = rows.get(first).copied() else { return Ok(()) };
            for name in names {
                let name = name_key(name);
                transaction.execute("INSERT OR REPLACE INTO names VALUES (?1, ?2)", params![name, means])?;
                transaction.execute("DELETE FROM variants WHERE name = ?1", [&name])?;
                let others = rows.iter().filter(|row| **row != means);
                for (position, row) in (0_i64..).zip(others) {
                    let values = params![name, position, row];
                    transaction.execute("INSERT OR IGNORE INTO variants VALUES (?1, ?2, ?3)", values)?;
                }
            }
            Ok(())
        })
    }

    /// Whether a name means exactly these images, in whatever order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn means_all(&self, name: &Reference, ids: &[Digest]) -> Result<bool, Error> {
        let known: Vec<Digest> = self.read(|connection| {
            let sql = "SELECT digest FROM names JOIN images ON images.id = image WHERE name = ?1 UNION
                       SELECT digest FROM variants JOIN images ON images.id = image WHERE name = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_map([name_key(name)], |row| digest(row, 0))?.collect::<Result<_, _>>()?)
        })?;
        Ok(known.len() == ids.len() && ids.iter().all(|id| known.contains(id)))
    }
}
