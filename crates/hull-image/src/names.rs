//! Names, removal and holds, with Docker's rules and texts.

use hull_oci::{Digest, Reference};
use rusqlite::{OptionalExtension as _, Transaction, params};

use crate::rows::{find_row, is_id_of, name_key, row_of};
use crate::{Error, Store, indexes, variants};
use hull_db::Sync;

/// One line of what a removal did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name or repository digest, as the user writes it.
    Untagged(String),
    /// An image's ID, as `sha256:HEX`.
    Deleted(String),
}

impl std::fmt::Display for Removed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Untagged(name) => write!(formatter, "Untagged: {name}"),
            Self::Deleted(id) => write!(formatter, "Deleted: {id}"),
        }
    }
}

/// Everything that names an image, as `(repository, tag or digest)`.
struct Names {
    tags: Vec<Reference>,
    digests: Vec<Reference>,
}

impl Names {
    fn read(transaction: &Transaction<'_>, image: i64) -> Result<Self, Error> {
        let parse = |text: String| {
            text.parse::<Reference>().map_err(|error| Error::damaged(format!("image name {text:?}"), error))
        };
        let mut statement = transaction.prepare("SELECT name FROM names WHERE image = ?1 ORDER BY name")?;
        let tags = statement.query_map([image], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        let mut statement = transaction.prepare(indexes::SHOWN)?;
        let whole = |row: &rusqlite::Row<'_>| Ok(format!("{}@{}", row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let digests = statement.query_map([image], whole)?.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            tags: tags.into_iter().map(parse).collect::<Result<_, _>>()?,
            digests: digests.into_iter().map(parse).collect::<Result<_, _>>()?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &Reference> {
        self.tags.iter().chain(&self.digests)
    }

    /// Whether there is at most one tag, and digests of its repository only.
    fn is_single(&self) -> bool {
        match self.tags.as_slice() {
            [] => self.digests.windows(2).all(|pair| pair[0].repository() == pair[1].repository()),
            [tag] => self.digests.iter().all(|digest| digest.repository() == tag.repository()),
            _ => false,
        }
    }
}

fn untag(transaction: &Transaction<'_>, name: &Reference) -> Result<Removed, Error> {
    match name.digest() {
        Some(digest) => indexes::untag(transaction, &name.repository(), digest)?,
        None => drop(transaction.execute("DELETE FROM names WHERE name = ?1", [name_key(name)])?),
    }
    Ok(Removed::Untagged(name.familiar()))
}

pub(crate) fn delete_image(transaction: &Transaction<'_>, image: i64) -> Result<(), Error> {
    for table in ["variants", "names", "repo_digests", "holds"] {
        transaction.execute(&format!("DELETE FROM {table} WHERE image = ?1"), [image])?;
    }
    transaction.execute("DELETE FROM images WHERE id = ?1", [image])?;
    Ok(())
}

pub(crate) fn short_owner(owner: &str) -> String {
    owner.rsplit_once(':').map_or(owner, |(_, id)| id).chars().take(12).collect()
}

impl Store {
    /// Gives an image a name; it is taken from the image that had it.
    ///
    /// # Errors
    /// [`Error::NoImage`]; [`Error::Image`] for a name with a digest.
    pub fn tag(&self, id: &Digest, name: &Reference) -> Result<(), Error> {
        if name.digest().is_some() {
            return Err(Error::image(name, "refusing to create a tag with a digest reference"));
        }
        self.write(Sync::Full, |transaction| {
            let row = row_of(transaction, id)?.ok_or_else(|| Error::NoImage(id.to_string()))?;
            transaction.execute("INSERT OR REPLACE INTO names VALUES (?1, ?2)", params![name_key(name), row.id])?;
            variants::copy(transaction, row.id, &name_key(name))
        })
    }

    /// Removes by Docker's rules: a name is taken away, and with the last one the image; an ID removes the image when
    /// it has one name at most. `is_running` says of a holder whether it runs.
    ///
    /// # Errors
    /// [`Error::NoImage`], [`Error::Conflict`]. Nothing is changed then.
    pub fn remove(&self, text: &str, force: bool, is_running: &dyn Fn(&str) -> bool) -> Result<Vec<Removed>, Error> {
        let (removed, _) = self.delete(|transaction, _| {
            let Some(row) = find_row(transaction, text)? else {
                text.parse::<Reference>()?;
                return Err(Error::no_image(text));
            };
            let names = Names::read(transaction, row.id)?;
            let owners = holders_of(transaction, row.id)?;
            let running = owners.iter().find(|owner| is_running(owner));
            let by_id = is_id_of(text, &row.digest);
            let mut removed = Vec::new();
            if by_id {
                let conflict = |forced: &str, reason: String| {
                    Err(Error::Conflict(format!("unable to delete {} ({forced}) - {reason}", row.digest.short())))
                };
                if let Some(owner) = running {
                    let reason = format!("image is being used by running container {}", short_owner(owner));
                    return conflict("cannot be forced", reason);
                }
                if !names.is_single() && !force {
                    return conflict("must be forced", "image is referenced in multiple repositories".to_owned());
                }
                if let (Some(owner), false) = (owners.first(), force) {
                    let reason = format!("image is being used by stopped container {}", short_owner(owner));
                    return conflict("must be forced", reason);
                }
                if self.leased_images(transaction)?.contains(&row.digest) {
                    return conflict("cannot be forced", "image is being used by a running command".to_owned());
                }
            } else {
                let owner = running.or(owners.first());
                if let (Some(owner), true, false) = (owner, names.is_single(), force) {
                    return Err(Error::Conflict(format!(
                        "unable to remove repository reference {text:?} (must force) - container {} is using its \
                         referenced image {}",
                        short_owner(owner),
                        row.digest.short()
                    )));
                }
                let given: Option<Reference> = text.parse::<Reference>().ok();
                let name = match given {
                    Some(name) if name.digest().is_some() => {
                        name.digest().map(|digest| name.with_digest(digest.clone())).unwrap_or(name)
                    }
                    Some(name) => name.or_latest(),
                    // The digest of a manifest: as if the image had no name.
                    None => return self.delete_with_names(transaction, row.id, &row.digest, &names, removed),
                };
                let behind = match name.digest() {
                    Some(_) => Vec::new(),
                    None => variants::ids_behind(transaction, &[&name])?,
                };
                removed.push(untag(transaction, &name)?);
                variants::delete_unnamed(transaction, &behind, &self.leased_images(transaction)?, &mut removed)?;
                let mut rest = Names::read(transaction, row.id)?;
                if name.digest().is_none() && !rest.tags.iter().any(|tag| tag.repository() == name.repository()) {
                    // Digests alone do not keep what its last tag in the repository named.
                    for digest in rest.digests.iter().filter(|digest| digest.repository() == name.repository()) {
                        removed.push(untag(transaction, digest)?);
                    }
                    rest = Names::read(transaction, row.id)?;
                }
                let held = running.is_some() || self.leased_images(transaction)?.contains(&row.digest);
                if rest.all().next().is_some() || held {
                    return Ok(removed);
                }
            }
            let names = Names::read(transaction, row.id)?;
            self.delete_with_names(transaction, row.id, &row.digest, &names, std::mem::take(&mut removed))
        })?;
        Ok(removed)
    }

    fn delete_with_names(
        &self,
        transaction: &Transaction<'_>,
        image: i64,
        id: &Digest,
        names: &Names,
        mut removed: Vec<Removed>,
    ) -> Result<Vec<Removed>, Error> {
        removed.extend(names.all().map(|name| Removed::Untagged(name.familiar())));
        let behind = variants::ids_behind(transaction, &names.tags.iter().collect::<Vec<_>>())?;
        delete_image(transaction, image)?;
        removed.push(Removed::Deleted(id.to_string()));
        variants::delete_unnamed(transaction, &behind, &self.leased_images(transaction)?, &mut removed)?;
        Ok(removed)
    }

    /// Keeps an image for an owner such as `container:ID`, until [`Self::release`]. An owner holds one image.
    ///
    /// # Errors
    /// [`Error::NoImage`] when it has been removed meanwhile.
    pub fn hold(&self, owner: &str, id: &Digest) -> Result<(), Error> {
        self.write(Sync::Normal, |transaction| {
            let image: Option<i64> = transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO holds SELECT ?1, id FROM images WHERE digest = ?2 RETURNING image",
                )?
                .query_row(params![owner, id.to_string()], |row| row.get(0))
                .optional()?;
            touch(transaction, image.ok_or_else(|| Error::NoImage(id.to_string()))?)
        })
    }

    /// Gives up what an owner holds, if it holds anything.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn release(&self, owner: &str) -> Result<(), Error> {
        let held = self.read(|connection| {
            Ok(connection.prepare_cached("SELECT 1 FROM holds WHERE owner = ?1")?.exists([owner])?)
        })?;
        if held {
            self.write(Sync::Normal, |transaction| {
                Ok(transaction.execute("DELETE FROM holds WHERE owner = ?1", [owner])?)
            })?;
            self.database.tidy();
        }
        Ok(())
    }

    /// Who holds an image.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn holders(&self, id: &Digest) -> Result<Vec<String>, Error> {
        self.read(|connection| {
            let mut statement = connection
                .prepare("SELECT owner FROM holds JOIN images ON images.id = image WHERE digest = ?1 ORDER BY owner")?;
            Ok(statement.query_map([id.to_string()], |row| row.get(0))?.collect::<Result<Vec<_>, _>>()?)
        })
    }

    /// All owners that hold something, with the images: for finding the ones that are gone.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn holds(&self) -> Result<Vec<(String, Digest)>, Error> {
        self.read(|connection| {
            let mut statement = connection
                .prepare("SELECT owner, digest FROM holds JOIN images ON images.id = image ORDER BY owner")?;
            let rows = statement.query_map((), |row| Ok((row.get(0)?, crate::rows::digest(row, 1)?)))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })
    }
}

fn holders_of(transaction: &Transaction<'_>, image: i64) -> Result<Vec<String>, Error> {
    let mut statement = transaction.prepare("SELECT owner FROM holds WHERE image = ?1 ORDER BY owner")?;
    Ok(statement.query_map([image], |row| row.get(0))?.collect::<Result<Vec<_>, _>>()?)
}

/// Makes an image the most recently used. Writes nothing when it is already.
pub(crate) fn touch(transaction: &Transaction<'_>, image: i64) -> Result<(), Error> {
    transaction
        .prepare_cached(
            "UPDATE images SET used = (SELECT max(used) FROM images) + 1
             WHERE id = ?1 AND EXISTS (SELECT 1 FROM images AS other WHERE other.used >= images.used AND other.id <> ?1)",
        )?
        .execute([image])?;
    Ok(())
}
