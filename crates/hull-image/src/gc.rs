//! Deletion, pruning, and what goes by itself.
//!
//! Deletion is: records in one durable transaction; then the files whose records are still gone are renamed into the
//! deletion's own directory below `trash/`, under the database's write lock, so that nobody has brought the same layer
//! in again meanwhile; then they are unlinked without any lock. A killed deletion is finished by the next repair.

use std::collections::BTreeSet;
use std::str::FromStr;

use hull_oci::Digest;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::disk::{self, Work};
use crate::names::{Removed, delete_image};
use crate::rows::{digest, length};
use crate::{Error, Image, Store, indexes};
use hull_db::Sync;

/// Setting and environment variable of the budget.
const SETTING: &str = "disk-budget";
const KEY: &str = "disk-budget";

/// What a deletion takes from the disk.
pub(crate) enum Victim {
    Layer(Digest),
    Blob(Digest),
}

/// Which images [`Store::prune`] removes.
#[derive(Clone, Debug, Default)]
pub struct PruneFilter {
    /// Also those with names, unless a container has them.
    pub all: bool,
    /// Only those made before this moment, in seconds since 1970.
    pub until: Option<i64>,
    /// Only those that all of these let through.
    pub labels: Vec<LabelFilter>,
}

/// A condition on an image's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFilter {
    /// Name of the label.
    pub key: String,
    /// Its value; absent is any.
    pub value: Option<String>,
    /// The label must not be there (`label!=`).
    pub negated: bool,
}

impl LabelFilter {
    /// Whether an image with these labels passes.
    #[must_use]
    pub fn passes(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        let there = labels.get(&self.key).is_some_and(|value| self.value.as_ref().is_none_or(|wanted| wanted == value));
        there != self.negated
    }
}

/// What [`Store::prune`] and [`Store::gc`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// In the order it was done.
    pub deleted: Vec<Removed>,
    /// Bytes given back to the file system.
    pub reclaimed: u64,
}

/// How much may lie around that nobody asked to keep: downloads that are in no image, compressed copies of layers, and
/// images without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// A tenth of the file system, at most 20 GB; less where otherwise not a twentieth of it, or 2 GB, would be free.
    Default,
    /// This many bytes.
    Bytes(u64),
    /// Nothing goes by itself.
    Unlimited,
}

impl FromStr for Budget {
    type Err = String;

    /// `default`, `unlimited`, or a number with `B`, `kB`, `MB`, `GB`, `TB` or their binary relatives `KiB`, ...
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => return Ok(Self::Default),
            "unlimited" => return Ok(Self::Unlimited),
            _ => {}
        }
        let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1000,
            "kib" => 1 << 10,
            "m" | "mb" => 1_000_000,
            "mib" => 1 << 20,
            "g" | "gb" => 1_000_000_000,
            "gib" => 1 << 30,
            "t" | "tb" => 1_000_000_000_000,
            "tib" => 1 << 40,
            _ => return Err("expected default, unlimited or a size such as 20GB".to_owned()),
        };
        let number = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        number.map(Self::Bytes).ok_or_else(|| "expected default, unlimited or a size such as 20GB".to_owned())
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Bytes(bytes) => write!(formatter, "{bytes}"),
            Self::Unlimited => formatter.write_str("unlimited"),
        }
    }
}

impl Store {
    /// Runs a transaction that may take images away, then removes what no image needs. Returns the bytes given back.
    pub(crate) fn delete<T>(
        &self,
        body: impl FnOnce(&Transaction<'_>, &mut Vec<Victim>) -> Result<T, Error>,
    ) -> Result<(T, u64), Error> {
        if !self.database.path().exists() {
            // Nothing can be deleted; the body says so in its own words.
            return self.write(Sync::Full, |transaction| body(transaction, &mut Vec::new())).map(|one| (one, 0));
        }
        let work = Work::create(&self.trash())?;
        let (result, victims) = self.write(Sync::Full, |transaction| {
            let mut victims = Vec::new();
            let result = body(transaction, &mut victims)?;
            self.unneeded(transaction, &mut victims)?;
            Ok((result, victims))
        })?;
        let freed = self.discard(&work, &victims)?;
        work.remove()?;
        self.database.tidy();
        Ok((result, freed))
    }

    /// Takes away the records of layers and blobs that no image and no running command needs.
    fn unneeded(&self, transaction: &Transaction<'_>, victims: &mut Vec<Victim>) -> Result<(), Error> {
        self.drop_dead_leases(transaction)?;
        let collect = |sql: &str| -> Result<Vec<Digest>, Error> {
            let mut statement = transaction.prepare(sql)?;
            Ok(statement.query_map((), |row| digest(row, 0))?.collect::<Result<Vec<_>, _>>()?)
        };
        let layers = collect(
            "DELETE FROM layers WHERE id NOT IN (SELECT layer FROM image_layers)
             AND id NOT IN (SELECT layer FROM build_layers)
             AND diff_id NOT IN (SELECT object FROM leases WHERE kind = 'layer') RETURNING diff_id",
        )?;
        victims.extend(layers.into_iter().map(Victim::Layer));
        let blobs = collect(
            "DELETE FROM blobs WHERE digest NOT IN (SELECT digest FROM images)
             AND digest NOT IN (SELECT digest FROM manifests)
             AND digest NOT IN (SELECT digest FROM repo_digests)
             AND digest NOT IN (SELECT blob FROM compressions)
             AND digest NOT IN (SELECT object FROM leases WHERE kind = 'blob') RETURNING digest",
        )?;
        victims.extend(blobs.into_iter().map(Victim::Blob));
        Ok(())
    }

    fn drop_dead_leases(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let mut statement = transaction.prepare("SELECT DISTINCT work FROM leases")?;
        let works = statement.query_map((), |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        for work in works {
            if !disk::is_alive(&self.ingest(), &work)? {
                transaction.execute("DELETE FROM leases WHERE work = ?1", [work])?;
            }
        }
        Ok(())
    }

    /// Images that running commands read.
    pub(crate) fn leased_images(&self, transaction: &Transaction<'_>) -> Result<BTreeSet<Digest>, Error> {
        self.drop_dead_leases(transaction)?;
        let mut statement = transaction.prepare("SELECT object FROM leases WHERE kind = 'image'")?;
        Ok(statement.query_map((), |row| digest(row, 0))?.collect::<Result<_, _>>()?)
    }

    /// Moves files away whose records are gone for good, and unlinks them.
    fn discard(&self, work: &Work, victims: &[Victim]) -> Result<u64, Error> {
        if victims.is_empty() {
            return Ok(0);
        }
        self.write(Sync::Normal, |transaction| {
            for (number, victim) in victims.iter().enumerate() {
                let (path, sql, digest) = match victim {
                    Victim::Layer(diff_id) => {
                        (self.layer_path(diff_id), "SELECT 1 FROM layers WHERE diff_id = ?1", diff_id)
                    }
                    Victim::Blob(digest) => {
                        (disk::blob(&self.root, digest), "SELECT 1 FROM blobs WHERE digest = ?1", digest)
                    }
                };
                if !transaction.prepare_cached(sql)?.exists([digest.to_string()])? {
                    disk::rename_if_there(&path, &work.path().join(number.to_string()))?;
                }
            }
            Ok(())
        })?;
        Ok(disk::names(work.path())?.iter().map(|name| disk::occupied(&work.path().join(name))).sum())
    }

    /// Removes images that nothing uses. What a container holds or a running command reads stays.
    ///
    /// # Errors
    /// When the database or a configuration cannot be read, or files not be removed.
    pub fn prune(&self, filter: &PruneFilter) -> Result<Pruned, Error> {
        let images = self.list()?;
        let (deleted, reclaimed) = self.delete(|transaction, _| {
            let leased = self.leased_images(transaction)?;
            let mut deleted = Vec::new();
            for image in &images {
                let before = filter.until.is_none_or(|until| image.created < until);
                let labels = filter.labels.iter().all(|label| label.passes(&image.config.config.labels));
                if !before || !labels || leased.contains(&image.id) {
                    continue;
                }
                // The names may have changed since the list was read.
                let row = unheld(transaction, &image.id)?;
                if let Some((row, named)) = row
                    && (filter.all || !named)
                {
                    deleted.extend(delete_named(transaction, row, image)?);
                }
            }
            Ok(deleted)
        })?;
        Ok(Pruned { deleted, reclaimed })
    }

    /// The budget in force: of the environment, else of the setting.
    ///
    /// # Errors
    /// [`Error::Setting`] when it cannot be understood.
    pub fn budget(&self) -> Result<Budget, Error> {
        let parse = |setting: &str, value: String| {
            value.parse().map_err(|reason| Error::Setting { setting: setting.to_owned(), value, reason })
        };
        match hull_config::text_of(KEY) {
            Some((value, origin)) if !value.is_empty() => parse(&format!("{KEY} of {origin}"), value),
            _ => self.setting(SETTING)?.map_or(Ok(Budget::Default), |value| parse(SETTING, value)),
        }
    }

    /// Changes the budget of this store.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_budget(&self, budget: Budget) -> Result<(), Error> {
        self.set_setting(SETTING, Some(&budget.to_string()))
    }

    /// Changes records of builds that keep layers, then removes the layers that nothing keeps any more. Returns the bytes
    /// given back too.
    ///
    /// # Errors
    /// Those of `body`, and when files cannot be removed.
    pub fn release_layers<T>(
        &self,
        body: impl FnOnce(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<(T, u64), Error> {
        self.delete(|transaction, _| body(transaction))
    }

    /// Brings the store below its budget, as the end of each transfer does with [`Self::budget`]. First go downloads that
    /// were not used for an hour, then compressed blobs of layers that have their tar, then images without any name, then images that only a repository digest names; within each, the ones used
    /// least recently, by a counter. Never goes what a tag names, a container holds or a running command relies on.
    ///
    /// # Errors
    /// As [`Self::prune`].
    pub fn gc(&self, budget: Budget) -> Result<Pruned, Error> {
        self.gc_keeping(budget, &BTreeSet::new())
    }

    /// [`Self::gc`] that leaves some images alone: the ones that a transfer has just brought.
    pub(crate) fn gc_keeping(&self, budget: Budget, keep: &BTreeSet<Digest>) -> Result<Pruned, Error> {
        if budget == Budget::Unlimited {
            return Ok(Pruned::default());
        }
        let freed = self.expire_downloads(self.read(|connection| self.excess(connection, budget))?)?;
        if self.read(|connection| self.excess(connection, budget))? == 0 {
            return Ok(Pruned { deleted: Vec::new(), reclaimed: freed });
        }
        let (deleted, reclaimed) = self.delete(|transaction, victims| {
            let mut excess = self.excess(transaction, budget)?;
            let mut deleted = Vec::new();
            for (blob, size) in spare_blobs(transaction)? {
                if excess == 0 {
                    break;
                }
                // What it unpacks to stays known.
                transaction.execute("DELETE FROM blobs WHERE digest = ?1", [blob.to_string()])?;
                deleted.push(Removed::Deleted(blob.to_string()));
                victims.push(Victim::Blob(blob));
                excess = excess.saturating_sub(size);
            }
            let leased = self.leased_images(transaction)?;
            for (row, id, size) in unnamed_images(transaction)? {
                if excess == 0 {
                    break;
                }
                if !leased.contains(&id) && !keep.contains(&id) {
                    delete_image(transaction, row)?;
                    deleted.push(Removed::Deleted(id.to_string()));
                    excess = excess.saturating_sub(size);
                }
            }
            Ok(deleted)
        })?;
        Ok(Pruned { deleted, reclaimed: reclaimed + freed })
    }

    /// Bytes that are over the budget.
    fn excess(&self, connection: &Connection, budget: Budget) -> Result<u64, Error> {
        let spare: u64 = spare_blobs(connection)?.iter().map(|(_, size)| size).sum();
        let unnamed: u64 = unnamed_images(connection)?.iter().map(|(_, _, size)| size).sum();
        let reclaimable = spare + unnamed + self.downloaded()?;
        Ok(match budget {
            Budget::Unlimited => 0,
            Budget::Bytes(bytes) => reclaimable.saturating_sub(bytes),
            Budget::Default => {
                let status =
                    rustix::fs::statvfs(self.root.as_path()).map_err(Error::io("stat", self.root.as_path()))?;
                let (total, free) = (status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize);
                let over = reclaimable.saturating_sub((total / 10).min(20_000_000_000));
                over.max((total / 20).min(2_000_000_000).saturating_sub(free).min(reclaimable))
            }
        })
    }
}

/// The row of an image that no container holds, and whether it has a name.
fn unheld(transaction: &Transaction<'_>, id: &Digest) -> Result<Option<(i64, bool)>, Error> {
    let sql = "SELECT id, EXISTS (SELECT 1 FROM names WHERE image = images.id)
                   OR EXISTS (SELECT 1 FROM variants WHERE image = images.id) FROM images
               WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM holds WHERE image = images.id)";
    Ok(transaction.query_row(sql, [id.to_string()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

fn delete_named(transaction: &Transaction<'_>, row: i64, image: &Image) -> Result<Vec<Removed>, Error> {
    let mut statement = transaction.prepare("SELECT name FROM names WHERE image = ?1")?;
    let mut names = statement.query_map([row], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    let mut statement = transaction.prepare(indexes::SHOWN)?;
    let whole = |row: &rusqlite::Row<'_>| Ok(format!("{}@{}", row.get::<_, String>(0)?, row.get::<_, String>(1)?));
    names.extend(statement.query_map([row], whole)?.collect::<Result<Vec<_>, _>>()?);
    let familiar = |name: String| name.parse().map_or(name, |parsed: hull_oci::Reference| parsed.familiar());
    let mut removed: Vec<Removed> = names.into_iter().map(|name| Removed::Untagged(familiar(name))).collect();
    delete_image(transaction, row)?;
    removed.push(Removed::Deleted(image.id.to_string()));
    Ok(removed)
}

/// Compressed copies of layers that have their tar, least recently used first.
fn spare_blobs(connection: &Connection) -> Result<Vec<(Digest, u64)>, Error> {
    let mut statement = connection.prepare(
        "SELECT blobs.digest, blobs.size FROM blobs
         JOIN compressions ON compressions.blob = blobs.digest
         JOIN layers ON layers.id = compressions.layer
         LEFT JOIN image_layers ON image_layers.layer = layers.id
         LEFT JOIN images ON images.id = image_layers.image
         WHERE layers.snapshotter = 'erofs'
         AND blobs.digest NOT IN (SELECT object FROM leases WHERE kind = 'blob')
         GROUP BY blobs.digest ORDER BY max(coalesce(images.used, 0)), blobs.digest",
    )?;
    Ok(statement.query_map((), |row| Ok((digest(row, 0)?, length(row, 1)?)))?.collect::<Result<Vec<_>, _>>()?)
}

/// Images that no name and no container keeps, with the bytes of the layers that only they have: first those without
/// repository digest.
fn unnamed_images(connection: &Connection) -> Result<Vec<(i64, Digest, u64)>, Error> {
    let mut statement = connection.prepare(
        "SELECT images.id, images.digest, coalesce((
             SELECT sum(disk) FROM layers WHERE id IN (SELECT layer FROM image_layers WHERE image = images.id)
             AND id NOT IN (SELECT layer FROM image_layers WHERE image <> images.id)), 0)
         FROM images
         WHERE NOT EXISTS (SELECT 1 FROM names WHERE image = images.id)
         AND NOT EXISTS (SELECT 1 FROM variants WHERE image = images.id)
         AND NOT EXISTS (SELECT 1 FROM holds WHERE image = images.id)
         ORDER BY EXISTS (SELECT 1 FROM repo_digests WHERE image = images.id), used, images.id",
    )?;
    let rows = statement.query_map(params![], |row| Ok((row.get(0)?, digest(row, 1)?, length(row, 2)?)))?;
    Ok(rows.collect::<Result<Vec<_>, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_sizes() {
        assert_eq!("20GB".parse(), Ok(Budget::Bytes(20_000_000_000)));
        assert_eq!("1 GiB".parse(), Ok(Budget::Bytes(1 << 30)));
        assert_eq!("0".parse(), Ok(Budget::Bytes(0)));
        assert_eq!("unlimited".parse(), Ok(Budget::Unlimited));
        for wrong in ["", "GB", "-1", "1XB", "99999999999TB"] {
            assert!(wrong.parse::<Budget>().is_err(), "{wrong}");
        }
        for budget in [Budget::Default, Budget::Bytes(7), Budget::Unlimited] {
            assert_eq!(budget.to_string().parse(), Ok(budget));
        }
    }
}
