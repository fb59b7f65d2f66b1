//! The records: one `SQLite` database, `ROOT/hull.db`, in WAL mode.
//!
//! A process has one connection, opened at its first use. It must be closed ([`Database::close`]) before a fork whose
//! child uses the store too: `SQLite` keeps locks per process that a child would believe to hold.
//!
//! Cost decides the details, because every `hull run` reads the database: nothing is checkpointed when a connection
//! closes, the log stays in place, and whoever writes keeps it short, so that opening needs no recovery worth naming.
//! `synchronous` is FULL (the log is on disk when the commit returns) wherever a record says that bytes exist or lets
//! bytes be removed; NORMAL (consistent after a loss of power, perhaps older) for holds and leases, whose owners are
//! lost with the machine.
//!
//! The file is made elsewhere and appears whole, by `link(2)`: nobody sees a database without tables. It must not be
//! opened by other means within the process: closing any descriptor of it drops the process's locks (`fcntl(2)`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::Error;
use crate::disk::{self, Work};

/// Version of the tables, in `user_version`.
const VERSION: u32 = 1;

/// What each version adds to the one before.
const MIGRATIONS: [&str; VERSION as usize] = [include_str!("schema-1.sql")];

/// The log is folded into the database once it is this long.
const MAX_LOG: u64 = 192 << 10;

/// How often a lock is asked for before giving up: about half a minute.
const MAX_TRIES: i32 = 3000;

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// The record must survive a loss of power.
    Full,
    /// It may be lost with the machine.
    Normal,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    pid: i32,
    sync: Sync,
}

/// The database of a store.
#[derive(Debug)]
pub(crate) struct Database {
    root: PathBuf,
    open: Mutex<Option<Open>>,
}

fn pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// `SQLite`'s own handler sleeps far longer than a writer here takes.
fn wait(tries: i32) -> bool {
    let micros = 100_u64 << tries.clamp(0, 7);
    std::thread::sleep(Duration::from_micros(micros.min(10_000)));
    tries < MAX_TRIES
}

fn connect(path: &Path, create: bool) -> Result<Connection, Error> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    Ok(Connection::open_with_flags(path, flags)?)
}

impl Database {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), open: Mutex::new(None) }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.root.join("hull.db")
    }

    /// Closes the connection; the next use opens another.
    pub(crate) fn close(&self) {
        let mut guard = self.lock();
        match guard.take() {
            // Of a parent process: closing it would touch locks that are not ours.
            Some(open) if open.pid != pid() => std::mem::forget(open),
            other => drop(other),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        // A connection is usable whatever the thread that held it was doing: an open transaction was rolled back.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connected<'a>(&self, guard: &'a mut Option<Open>) -> Result<&'a mut Open, Error> {
        if guard.as_ref().is_some_and(|open| open.pid != pid()) {
            std::mem::forget(guard.take());
        }
        match guard {
            Some(open) => Ok(open),
            None => {
                let mut connection = connect(&self.path(), false)?;
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
                connection.busy_handler(Some(wait))?;
                connection.execute_batch("PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = NORMAL")?;
                let version: u32 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
                if version > VERSION {
                    return Err(Error::Newer { found: version, known: VERSION });
                }
                let mut open = Open { connection, pid: pid(), sync: Sync::Normal };
                if version < VERSION {
                    let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                    migrate(&transaction)?;
                    transaction.commit()?;
                }
                Ok(guard.insert(open))
            }
        }
    }

    /// Makes the database where there is none.
    fn create(&self) -> Result<(), Error> {
        let path = self.path();
        if path.exists() {
            return Ok(());
        }
        disk::create_private(&self.root)?;
        let work = Work::create(&self.root.join("ingest"))?;
        let new = work.path().join("hull.db");
        let mut connection = connect(&new, true)?;
        connection.execute_batch("PRAGMA page_size = 1024; PRAGMA journal_mode = WAL")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        migrate(&transaction)?;
        transaction.commit()?;
        // Closing would do this too, and not say when the disk is full: the log stays behind when the file gets its name.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?;
        connection.close().map_err(|(_, error)| error)?;
        disk::set_mode(&new, 0o600)?;
        disk::sync(&new)?;
        match fs::hard_link(&new, &path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", &path)(error));
            }
            _ => {}
        }
        disk::sync(&self.root)?;
        work.remove()
    }

    /// Reads; what all queries of `body` see is one moment. A store that has no database yet has nothing.
    pub(crate) fn read<T: Default>(&self, body: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let mut guard = self.lock();
        if guard.is_none() && !self.path().exists() {
            return Ok(T::default());
        }
        let open = self.connected(&mut guard)?;
        let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        let result = body(&transaction)?;
        transaction.finish()?;
        Ok(result)
    }

    /// Writes: nobody else writes meanwhile, and nothing is changed when `body` fails.
    pub(crate) fn write<T>(
        &self,
        sync: Sync,
        body: impl FnOnce(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.transact(sync, body).map_err(|error| error.full(&self.root))
    }

    fn transact<T>(&self, sync: Sync, body: impl FnOnce(&Transaction<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let mut guard = self.lock();
        if guard.is_none() {
            self.create()?;
        }
        let open = self.connected(&mut guard)?;
        if open.sync != sync {
            let text = if sync == Sync::Full { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            open.connection.execute_batch(text)?;
            open.sync = sync;
        }
        let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = body(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    /// Folds a long log into the database, unless somebody is reading.
    pub(crate) fn tidy(&self) {
        let log = self.root.join("hull.db-wal");
        if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > MAX_LOG) {
            let mut guard = self.lock();
            if let Ok(open) = self.connected(&mut guard) {
                // Nobody waits for this: it is tried again after the next write.
                let _ = open.connection.busy_handler(None::<fn(i32) -> bool>);
                let _ = open.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
                let _ = open.connection.busy_handler(Some(wait));
            }
        }
    }
}

fn migrate(transaction: &Transaction<'_>) -> Result<(), Error> {
    let version: u32 = transaction.query_row("PRAGMA user_version", (), |row| row.get(0))?;
    for step in MIGRATIONS.iter().skip(version as usize) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(())
}
