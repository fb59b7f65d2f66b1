//! Results of steps, kept from build to build.
//!
//! ```text
//! ROOT/hull.db              build_results, build_keys, build_layers, cache_mounts, layer_notes
//! ROOT/build/locks/HEX      locked by who does the step of this content key; removed with the lock
//! ROOT/build/mounts/ID/     lock, data/: what RUN --mount=type=cache keeps; see `mounts`
//! ROOT/build/lists/HEX      what a copy took, file by file
//! ROOT/cache/               what is kept of sources; see `sources`
//! ```
//!
//! A result is a list of layers, recorded in the transaction that puts the layers into the store: what is recorded is
//! whole, and what is not recorded goes with its transfer. Layers stay as long as a result names them, so results are
//! what is pruned. Nothing here is believed to be current: a key says what a step was done to.

mod carry;
mod lists;
mod locks;
pub mod mounts;
mod notes;
mod prune;
mod sources;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use hull_image::{Store, Transfer};
use hull_oci::Digest;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::Error;

pub use locks::KeyLock;
pub use prune::{PruneFilter, Pruned, Usage};

/// The results of a store.
#[derive(Clone, Debug)]
pub struct Cache {
    store: Store,
}

/// A result that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Its row.
    pub id: i64,
    /// Diff IDs, lowest first.
    pub layers: Vec<Digest>,
    /// The step has a layer of its own: the last one.
    pub added: bool,
}

/// A result as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Diff IDs, lowest first.
    pub layers: Vec<Digest>,
    /// The step has a layer of its own: the last one.
    pub added: bool,
    /// Its content key.
    pub content: Option<Digest>,
}

/// A result to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// What progress calls the step.
    pub step: &'a str,
    /// What the step is, whatever it depends on.
    pub slot: &'a str,
    /// `regular`, or `source` for files that were only brought together for another step.
    pub kind: &'a str,
    /// The parts of its content key, as JSON.
    pub inputs: &'a str,
    /// Diff IDs, lowest first.
    pub layers: &'a [Digest],
    /// The step has a layer of its own.
    pub added: bool,
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Cache {
    /// The results of a store.
    #[must_use]
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone() }
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.store.root().join("build").join(name)
    }

    /// The result under a key. Its layers stay for the transfer.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn find(&self, transfer: &Transfer, key: &Digest) -> Result<Option<Hit>, Error> {
        let read = |connection: &Connection| -> Result<Option<Hit>, hull_image::Error> { row(connection, key) };
        let Some(hit) = self.store.database().read(read)? else { return Ok(None) };
        let touch = |transaction: &Transaction<'_>| -> Result<(), hull_image::Error> {
            let sql = "UPDATE build_results SET used = ?2, uses = uses + 1 WHERE id = ?1";
            transaction.prepare_cached(sql)?.execute(params![hit.id, now()])?;
            Ok(())
        };
        // It may have been pruned in between.
        Ok(transfer.lease_layers(&hit.layers, touch)?.then_some(hit))
    }

    /// The record of a key, whose layers may be gone at any moment. It does not count as used.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn kept(&self, key: &Digest) -> Result<Option<Kept>, Error> {
        let read = |connection: &Connection| -> Result<Option<Kept>, hull_image::Error> {
            let Some(hit) = row(connection, key)? else { return Ok(None) };
            let sql = "SELECT inputs FROM build_results WHERE id = ?1";
            let inputs: String = connection.prepare_cached(sql)?.query_row([hit.id], |row| row.get(0))?;
            Ok(Some(Kept { layers: hit.layers, added: hit.added, content: content_key(&inputs) }))
        };
        Ok(self.store.database().read(read)?)
    }

    /// Whether the step of a key has made a layer, by its record alone: the layers may be gone at any moment.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn added(&self, key: &Digest) -> Result<Option<bool>, Error> {
        let read = |connection: &Connection| -> Result<Option<bool>, hull_image::Error> {
            let sql = "SELECT added FROM build_keys JOIN build_results ON id = result WHERE key = ?1";
            Ok(connection.prepare_cached(sql)?.query_row([key.hex()], |row| row.get(0)).optional()?)
        };
        Ok(self.store.database().read(read)?)
    }

    /// Puts layers into the store and records them as the result of these keys, in place of what was there.
    ///
    /// # Errors
    /// When a layer is not there, or the database cannot be written.
    pub fn keep(&self, transfer: &Transfer, keys: &[&Digest], entry: Entry<'_>) -> Result<(), Error> {
        let record = |transaction: &Transaction<'_>, rows: &[i64]| -> Result<(), hull_image::Error> {
            let values = params![entry.step, entry.slot, entry.kind, entry.inputs, entry.added, now()];
            transaction.execute(
                "INSERT INTO build_results (step, slot, kind, inputs, added, created, used)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
                values,
            )?;
            let result = transaction.last_insert_rowid();
            let mut insert = transaction.prepare_cached("INSERT INTO build_layers VALUES (?1, ?2, ?3)")?;
            for (position, layer) in (0_i64..).zip(rows) {
                insert.execute(params![result, position, layer])?;
            }
            keys.iter().try_for_each(|key| point(transaction, key, result))
        };
        Ok(transfer.keep_layers(entry.layers, record)?)
    }

    /// Another key of a result that is there.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn name(&self, key: &Digest, result: i64) -> Result<(), Error> {
        let body = |transaction: &Transaction<'_>| -> Result<(), hull_image::Error> {
            let there = transaction.prepare_cached("SELECT 1 FROM build_results WHERE id = ?1")?.exists([result])?;
            if there { point(transaction, key, result) } else { Ok(()) }
        };
        Ok(self.store.database().write(hull_db::Sync::Normal, body)?)
    }

    /// What the last result of a slot came of: the parts of its content key, as JSON.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn last_inputs(&self, slot: &str) -> Result<Option<String>, Error> {
        let body = |connection: &Connection| -> Result<Option<String>, hull_image::Error> {
            let sql = "SELECT inputs FROM build_results WHERE slot = ?1 ORDER BY used DESC, id DESC LIMIT 1";
            Ok(connection.query_row(sql, [slot], |row| row.get(0)).optional()?)
        };
        Ok(self.store.database().read(body)?)
    }
}

/// The inputs of a result that was not made here: nothing but its content key is known of them.
#[must_use]
pub fn foreign_inputs(content: Option<&Digest>) -> String {
    content.map_or_else(|| "{}".to_owned(), |content| format!("{{\"content\":\"{content}\"}}"))
}

/// The content key of a result, by its inputs.
fn content_key(inputs: &str) -> Option<Digest> {
    #[derive(serde::Deserialize)]
    struct Foreign {
        content: Digest,
    }
    match crate::solve::key::Parts::from_json(inputs) {
        Some(parts) => Some(parts.key()),
        None => serde_json::from_str::<Foreign>(inputs).ok().map(|foreign| foreign.content),
    }
}

fn row(connection: &Connection, key: &Digest) -> Result<Option<Hit>, hull_image::Error> {
    let sql = "SELECT id, added FROM build_keys JOIN build_results ON id = result WHERE key = ?1";
    let found =
        connection.prepare_cached(sql)?.query_row([key.hex()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((id, added)) = found else { return Ok(None) };
    let sql = "SELECT diff_id FROM build_layers JOIN layers ON layers.id = layer WHERE result = ?1 ORDER BY position";
    let mut statement = connection.prepare_cached(sql)?;
    let texts = statement.query_map([id], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    // A digest that cannot be read is damage: the step is done again.
    let Ok(layers) = texts.iter().map(|text| text.parse()).collect() else { return Ok(None) };
    Ok(Some(Hit { id, layers, added }))
}

/// A key means this result from now on; one that no key means any more goes.
fn point(transaction: &Transaction<'_>, key: &Digest, result: i64) -> Result<(), hull_image::Error> {
    let before: Option<i64> = transaction
        .prepare_cached("SELECT result FROM build_keys WHERE key = ?1")?
        .query_row([key.hex()], |row| row.get(0))
        .optional()?;
    if before == Some(result) {
        return Ok(());
    }
    transaction
        .prepare_cached("INSERT OR REPLACE INTO build_keys VALUES (?1, ?2)")?
        .execute(params![key.hex(), result])?;
    if let Some(before) = before {
        let sql = "DELETE FROM build_results WHERE id = ?1 AND id NOT IN (SELECT result FROM build_keys)";
        transaction.prepare_cached(sql)?.execute([before])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
