//! Builds that run or have ended, and what they printed.

use std::fs::{self, File};
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::locks::create_private;
use super::{Cache, now};
use crate::Error;

/// More builds than this are forgotten, oldest first.
const MAX: i64 = 200;

/// A build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRecord {
    /// Lower-case letters and digits.
    pub id: String,
    /// What it is of.
    pub name: String,
    /// `running`, `completed`, `error` or `canceled`; one whose process is gone is still `running` here.
    pub status: String,
    /// Seconds since 1970.
    pub started: i64,
    /// Seconds since 1970.
    pub finished: Option<i64>,
    /// Everything else: JSON.
    pub record: String,
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<BuildRecord> {
    Ok(BuildRecord {
        id: row.get(0)?,
        name: row.get(1)?,
        status: row.get(2)?,
        started: row.get(3)?,
        finished: row.get(4)?,
        record: row.get(5)?,
    })
}

const COLUMNS: &str = "SELECT id, name, status, started, finished, record FROM builds";

impl Cache {
    /// What a build prints is kept here.
    #[must_use]
    pub fn log_path(&self, id: &str) -> PathBuf {
        self.directory("logs").join(id)
    }

    /// Records that a build begins, and gives its ID and the file for what it prints.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub fn begin_build(&self, name: &str, record: &str) -> Result<(String, File), Error> {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut bytes = [0_u8; 25];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(Error::io("read", "random numbers"))?;
        let id: String = bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
        create_private(&self.directory("logs"))?;
        let path = self.log_path(&id);
        let log = File::create_new(&path).map_err(Error::io("create", &path))?;
        let body = |transaction: &Transaction<'_>| -> Result<Vec<String>, hull_image::Error> {
            let values = params![id, name, now(), record];
            let sql = "INSERT INTO builds (id, name, status, started, record) VALUES (?1, ?2, 'running', ?3, ?4)";
            transaction.execute(sql, values)?;
            let mut old = transaction.prepare(
                "DELETE FROM builds WHERE id IN
                 (SELECT id FROM builds ORDER BY started DESC, id LIMIT -1 OFFSET ?1) RETURNING id",
            )?;
            Ok(old.query_map([MAX], |row| row.get(0))?.collect::<Result<_, _>>()?)
        };
        for old in self.store.database().write(hull_db::Sync::Normal, body)? {
            // A log that stays is nobody's.
            let _ = fs::remove_file(self.log_path(&old));
        }
        Ok((id, log))
    }

    /// Records how a build ended.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub fn end_build(&self, id: &str, status: &str, record: &str) -> Result<(), Error> {
        let body = |transaction: &Transaction<'_>| -> Result<(), hull_image::Error> {
            let sql = "UPDATE builds SET status = ?2, finished = ?3, record = ?4 WHERE id = ?1";
            transaction.execute(sql, params![id, status, now(), record])?;
            Ok(())
        };
        Ok(self.store.database().write(hull_db::Sync::Normal, body)?)
    }

    /// All builds, newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn builds(&self) -> Result<Vec<BuildRecord>, Error> {
        let body = |connection: &Connection| -> Result<Vec<BuildRecord>, hull_image::Error> {
            let mut statement = connection.prepare(&format!("{COLUMNS} ORDER BY started DESC, id"))?;
            Ok(statement.query_map((), read)?.collect::<Result<_, _>>()?)
        };
        Ok(self.store.database().read(body)?)
    }

    /// A build by its ID.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn build(&self, id: &str) -> Result<Option<BuildRecord>, Error> {
        let body = |connection: &Connection| -> Result<Option<BuildRecord>, hull_image::Error> {
            Ok(connection.query_row(&format!("{COLUMNS} WHERE id = ?1"), [id], read).optional()?)
        };
        Ok(self.store.database().read(body)?)
    }

    /// Forgets a build. Returns whether there was one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_build(&self, id: &str) -> Result<bool, Error> {
        let body = |transaction: &Transaction<'_>| -> Result<bool, hull_image::Error> {
            Ok(transaction.execute("DELETE FROM builds WHERE id = ?1", [id])? > 0)
        };
        let removed = self.store.database().write(hull_db::Sync::Normal, body)?;
        if removed {
            let path = self.log_path(id);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(removed)
    }
}
