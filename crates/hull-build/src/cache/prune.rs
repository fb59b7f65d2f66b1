//! What results occupy, and their removal.

use hull_image::Budget;
use rusqlite::{Connection, params};

use super::{Cache, now};
use crate::Error;

/// A result or a cache directory, with what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// `r` or `m` and a number; `context`, `http` or `git` and the beginning of a digest.
    pub id: String,
    /// `regular`, `source`, `exec.cachemount`, `source.local`, `source.http` or `source.git.checkout`.
    pub kind: String,
    /// What progress called the step; the ID of a cache directory.
    pub description: String,
    /// Bytes on disk of the layer that the step added, or of the directory.
    pub size: u64,
    /// Seconds since 1970.
    pub created: i64,
    /// Seconds since 1970.
    pub used: i64,
    /// How often it was used after it was made.
    pub uses: u64,
    /// An image or another result has the layer too: removing this one gives nothing back.
    pub shared: bool,
    /// A step can change it.
    pub mutable: bool,
}

/// What is to be removed.
#[derive(Clone, Debug, Default)]
pub struct PruneFilter {
    /// Only what was not used for so many seconds.
    pub unused_for: Option<u64>,
    /// Only these kinds; empty is all.
    pub kinds: Vec<String>,
    /// Only those whose ID begins so; empty is all.
    pub ids: Vec<String>,
    /// What an image or another result has too stays: removing it would give nothing back.
    pub keep_shared: bool,
    /// The most recently used ones stay up to so many bytes.
    pub keep: Option<u64>,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// It.
    pub removed: Vec<Usage>,
    /// Bytes given back.
    pub reclaimed: u64,
}

fn size(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    Ok(u64::try_from(number).unwrap_or(0))
}

fn results(connection: &Connection) -> Result<Vec<Usage>, hull_image::Error> {
    let mut statement = connection.prepare(
        "WITH own AS (
             SELECT build_results.id AS result, layer FROM build_results
             JOIN build_layers ON build_layers.result = build_results.id
             WHERE added AND position = (SELECT max(position) FROM build_layers WHERE result = build_results.id))
         SELECT id, kind, step, created, used, uses,
             coalesce((SELECT disk FROM own JOIN layers ON layers.id = layer WHERE result = build_results.id), 0),
             EXISTS (SELECT 1 FROM own JOIN image_layers USING (layer) WHERE result = build_results.id)
             OR (SELECT count(*) FROM own WHERE layer = (SELECT layer FROM own WHERE result = build_results.id)) > 1
         FROM build_results ORDER BY used DESC, id DESC",
    )?;
    let rows = statement.query_map((), |row| {
        let id: i64 = row.get(0)?;
        Ok(Usage {
            id: format!("r{id}"),
            kind: row.get(1)?,
            description: row.get(2)?,
            created: row.get(3)?,
            used: row.get(4)?,
            uses: size(row, 5)?,
            size: size(row, 6)?,
            shared: row.get(7)?,
            mutable: false,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Cache {
    /// Everything that is kept, most recently used first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn usage(&self) -> Result<Vec<Usage>, Error> {
        let mut list = self.store.database().read(results)?;
        list.extend(self.mount_usage()?);
        list.extend(self.sources().into_iter().map(|source| source.usage));
        list.sort_by_key(|one| std::cmp::Reverse(one.used));
        Ok(list)
    }

    fn mount_usage(&self) -> Result<Vec<Usage>, Error> {
        let rows = |connection: &Connection| -> Result<Vec<(i64, Usage)>, hull_image::Error> {
            let mut statement = connection.prepare("SELECT id, name, created, used, uses FROM cache_mounts")?;
            let rows = statement.query_map((), |row| {
                let id: i64 = row.get(0)?;
                let usage = Usage {
                    id: format!("m{id}"),
                    kind: "exec.cachemount".to_owned(),
                    description: row.get(1)?,
                    size: 0,
                    created: row.get(2)?,
                    used: row.get(3)?,
                    uses: size(row, 4)?,
                    shared: false,
                    mutable: true,
                };
                Ok((id, usage))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        let mut list = Vec::new();
        for (id, mut usage) in self.store.database().read(rows)? {
            usage.size = hull_image::occupied(&self.mount_directory(id));
            list.push(usage);
        }
        Ok(list)
    }

    /// Removes what a filter matches, least recently used first. Cache directories and checkouts that a step uses stay,
    /// and so do layers that a build or an image has.
    ///
    /// # Errors
    /// When records or files cannot be removed; what was removed before stays removed.
    pub fn prune(&self, filter: &PruneFilter) -> Result<Pruned, Error> {
        let mut kept = 0_u64;
        let before = filter.unused_for.map(|age| now().saturating_sub(i64::try_from(age).unwrap_or(i64::MAX)));
        let chosen: Vec<Usage> = self
            .usage()?
            .into_iter()
            .filter(|one| filter.kinds.is_empty() || filter.kinds.contains(&one.kind))
            .filter(|one| filter.ids.is_empty() || filter.ids.contains(&one.id))
            .filter(|one| !(filter.keep_shared && one.shared))
            .filter(|one| before.is_none_or(|before| one.used <= before))
            .filter(|one| {
                let Some(keep) = filter.keep else { return true };
                kept += if one.shared { 0 } else { one.size };
                kept > keep
            })
            .collect();
        self.remove(chosen)
    }

    fn remove(&self, chosen: Vec<Usage>) -> Result<Pruned, Error> {
        let number = |id: &str, prefix: char| id.strip_prefix(prefix).and_then(|id| id.parse::<i64>().ok());
        let results: Vec<i64> = chosen.iter().filter_map(|one| number(&one.id, 'r')).collect();
        let mut pruned = Pruned::default();
        if !results.is_empty() {
            let ((), freed) = self.store.release_layers(|transaction| {
                let mut delete = transaction.prepare("DELETE FROM build_results WHERE id = ?1")?;
                for id in &results {
                    delete.execute(params![id])?;
                }
                Ok(())
            })?;
            pruned.reclaimed += freed;
        }
        let sources =
            if chosen.iter().any(|one| one.kind.starts_with("source.")) { self.sources() } else { Vec::new() };
        for one in chosen {
            if let Some(source) = sources.iter().find(|source| source.usage.id == one.id) {
                if !source.remove()? {
                    continue;
                }
                pruned.reclaimed += one.size;
            }
            if let Some(id) = number(&one.id, 'm') {
                match self.remove_mount(id)? {
                    Some(freed) => pruned.reclaimed += freed,
                    None => continue,
                }
            }
            pruned.removed.push(one);
        }
        Ok(pruned)
    }

    /// Brings what is kept below the store's budget, as the end of each build does.
    ///
    /// # Errors
    /// As [`Self::prune`].
    pub fn collect(&self) -> Result<Pruned, Error> {
        let keep = match self.store.budget()? {
            Budget::Unlimited => return Ok(Pruned::default()),
            Budget::Bytes(bytes) => bytes,
            Budget::Default => {
                let root = self.store.root();
                let status = rustix::fs::statvfs(root).map_err(Error::io("stat", root))?;
                (status.f_blocks * status.f_frsize / 10).min(20_000_000_000)
            }
        };
        // Directories are only measured once results alone are too much: that takes a walk.
        let own = |connection: &Connection| -> Result<Vec<Usage>, hull_image::Error> { results(connection) };
        let total: u64 = self.store.database().read(own)?.iter().filter(|one| !one.shared).map(|one| one.size).sum();
        if total <= keep {
            return Ok(Pruned::default());
        }
        let kinds = vec!["regular".to_owned(), "source".to_owned()];
        self.prune(&PruneFilter { keep: Some(keep), kinds, ..PruneFilter::default() })
    }
}
