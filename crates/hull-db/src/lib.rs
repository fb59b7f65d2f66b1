//! The records: one `SQLite` database, `ROOT/hull.db`, in WAL mode.
//!
//! All tables are here, one file of `schema/` for each version; their queries are in the crates that own what the tables
//! describe. A process has one connection, opened at its first use. It must be closed ([`Database::close`]) before a fork
//! whose child uses the database too: `SQLite` keeps locks per process that a child would believe to hold.
//!
//! Cost decides the details, because every `hull run` reads the database: nothing is checkpointed when a connection
//! closes, the log stays in place, and whoever writes keeps it short, so that opening needs no recovery worth naming.
//! `synchronous` is FULL (the log is on disk when the commit returns) wherever a record says that bytes exist or lets
//! bytes be removed; NORMAL (consistent after a loss of power, perhaps older) for what is lost with the machine.
//!
//! The file is made elsewhere and appears whole, by `rename(2)` under the lock `ROOT/hull.db.lock`: nobody sees a database
//! without tables. It must not be opened by other means within the process: closing any descriptor of it drops the
//! process's locks (`fcntl(2)`).

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use hull_fs::lock::Lock;

/// Version of the tables, in `user_version`.
const VERSION: u32 = 6;

/// What each version adds to the one before.
const MIGRATIONS: [&str; VERSION as usize] = [
    include_str!("../schema/1-images.sql"),
    include_str!("../schema/2-networks.sql"),
    include_str!("../schema/3-origins.sql"),
    include_str!("../schema/4-builds.sql"),
    include_str!("../schema/5-records.sql"),
    include_str!("../schema/6-platforms.sql"),
];

/// The log is folded into the database once it is this long.
const MAX_LOG: u64 = 192 << 10;

/// Once it is this long by whoever nobody waits for: what a start reads of it is some dozen pages then.
const REST_LOG: u64 = 32 << 10;

/// Who rests leaves a log alone that was folded so short a time ago, unless it is long all the same: of hundreds that end
/// together a few fold it, and not every one waits for the disk.
const RECENT: Duration = Duration::from_millis(250);

/// How often a lock is asked for before giving up: about half a minute.
const MAX_TRIES: i32 = 3000;

/// Why the records cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed.
    #[error("{operation} {object}: {source}")]
    Io {
        /// Verb phrase.
        operation: &'static str,
        /// What it was done to.
        object: String,
        /// The answer.
        source: std::io::Error,
    },
    /// `SQLite` refused or failed.
    #[error("database hull.db: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The database has tables that this version does not know.
    #[error("database hull.db has version {found}, this hull knows {known}: use a newer hull")]
    Newer {
        /// Of the file.
        found: u32,
        /// Of this program.
        known: u32,
    },
    /// The lock file.
    #[error(transparent)]
    Fs(#[from] hull_fs::Error),
}

impl Error {
    fn io<E: Into<std::io::Error>>(operation: &'static str, object: &Path) -> impl FnOnce(E) -> Self {
        let object = object.display().to_string();
        move |source| Self::Io { operation, object, source: source.into() }
    }

    /// Whether the file system of `root`, where the database is, has no room left.
    #[must_use]
    pub fn is_full(&self, root: &Path) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            }
            Self::Sqlite(error) => is_full(error, root),
            _ => false,
        }
    }
}

/// Whether `SQLite` failed because the file system of `root` has no room left.
#[must_use]
pub fn is_full(error: &rusqlite::Error, root: &Path) -> bool {
    let rusqlite::Error::SqliteFailure(failure, _) = error else { return false };
    match failure.code {
        rusqlite::ErrorCode::DiskFull => true,
        // Also what SQLite says when its shared memory has no room.
        rusqlite::ErrorCode::SystemIoFailure => {
            rustix::fs::statvfs(root).is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) < 1 << 20)
        }
        _ => false,
    }
}

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
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
    /// Different for each connection of a process.
    number: u64,
}

/// What the records were at one moment, for this process: as long as it is the same, nobody has changed any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    connection: u64,
    /// Grows with what others commit (`PRAGMA data_version`).
    others: i64,
    /// Rows that this connection has changed.
    own: u64,
}

/// The database below a data directory; clones share one connection.
#[derive(Clone, Debug)]
pub struct Database {
    root: PathBuf,
    open: Arc<Mutex<Option<Open>>>,
}

/// Connections that were opened.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

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
    /// The database below this directory; nothing is opened or made yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), open: Arc::default() }
    }

    /// `ROOT/hull.db`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.root.join("hull.db")
    }

    /// Closes the connection; the next use opens another.
    pub fn close(&self) {
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
                let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
                let mut open = Open { connection, pid: pid(), sync: Sync::Normal, number };
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
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(Error::io("create directory", &self.root))?;
        let _lock = Lock::exclusive(&self.root.join("hull.db.lock"))?;
        if path.exists() {
            return Ok(());
        }
        let new = self.root.join("hull.db.new");
        for left in ["hull.db.new", "hull.db.new-wal", "hull.db.new-shm"] {
            // Of one who was killed here.
            let _ = fs::remove_file(self.root.join(left));
        }
        let made = Self::make(&new).and_then(|()| fs::rename(&new, &path).map_err(Error::io("create", &path)));
        if made.is_err() {
            for left in ["hull.db.new", "hull.db.new-wal", "hull.db.new-shm"] {
                let _ = fs::remove_file(self.root.join(left));
            }
        }
        made?;
        fs::File::open(&self.root).and_then(|root| root.sync_all()).map_err(Error::io("sync", &self.root))
    }

    fn make(new: &Path) -> Result<(), Error> {
        let mut connection = connect(new, true)?;
        connection.execute_batch("PRAGMA page_size = 1024; PRAGMA journal_mode = WAL")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        migrate(&transaction)?;
        transaction.commit()?;
        // Closing would do this too, and not say when the disk is full: the log stays behind when the file gets its name.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?;
        connection.close().map_err(|(_, error)| error)?;
        fs::set_permissions(new, fs::Permissions::from_mode(0o600)).map_err(Error::io("change mode of", new))?;
        fs::File::open(new).and_then(|file| file.sync_all()).map_err(Error::io("sync", new))
    }

    /// Reads; what all queries of `body` see is one moment. A database that does not exist yet has nothing.
    ///
    /// # Errors
    /// Those of `body`, and [`Error`].
    pub fn read<T: Default, E: From<Error>>(&self, body: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        let mut guard = self.lock();
        if guard.is_none() && !self.path().exists() {
            return Ok(T::default());
        }
        let open = self.connected(&mut guard)?;
        let transaction =
            open.connection.transaction_with_behavior(TransactionBehavior::Deferred).map_err(Error::from)?;
        let result = body(&transaction)?;
        transaction.finish().map_err(Error::from)?;
        Ok(result)
    }

    /// [`Self::read`], for what may be known already: `known` is asked with the moment that `body` would see, and `body` is
    /// called only if it has no answer. A database that does not exist yet has no moment.
    ///
    /// # Errors
    /// Those of `body`, and [`Error`].
    pub fn read_unless<T: Default, E: From<Error>>(
        &self,
        known: impl FnOnce(Moment) -> Option<T>,
        body: impl FnOnce(&Connection, Moment) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut guard = self.lock();
        if guard.is_none() && !self.path().exists() {
            return Ok(T::default());
        }
        let open = self.connected(&mut guard)?;
        let connection = open.number;
        let transaction =
            open.connection.transaction_with_behavior(TransactionBehavior::Deferred).map_err(Error::from)?;
        let version =
            transaction.prepare_cached("PRAGMA data_version").and_then(|mut one| one.query_row((), |row| row.get(0)));
        let moment = Moment { connection, others: version.map_err(Error::from)?, own: transaction.total_changes() };
        let result = match known(moment) {
            Some(found) => found,
            None => body(&transaction, moment)?,
        };
        transaction.finish().map_err(Error::from)?;
        Ok(result)
    }

    /// Writes: nobody else writes meanwhile, and nothing is changed when `body` fails.
    ///
    /// # Errors
    /// Those of `body`, and [`Error`].
    pub fn write<T, E: From<Error>>(
        &self,
        sync: Sync,
        body: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut guard = self.lock();
        if guard.is_none() {
            self.create()?;
        }
        let open = self.connected(&mut guard)?;
        if open.sync != sync {
            let text = if sync == Sync::Full { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            open.connection.execute_batch(text).map_err(Error::from)?;
            open.sync = sync;
        }
        let transaction =
            open.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Error::from)?;
        let result = body(&transaction)?;
        transaction.commit().map_err(Error::from)?;
        Ok(result)
    }

    /// Folds a long log into the database, unless somebody is reading.
    pub fn tidy(&self) {
        self.fold(MAX_LOG, false);
    }

    /// The same for whoever nobody waits for, and closes the connection. Who opens the database when nobody else has it
    /// open reads the whole log: somebody must keep it short, and a start has no time for that.
    pub fn rest(&self) {
        // Nothing but folding writes the file itself. A clock that was set back makes it older than it is, or younger for once.
        let folded = fs::metadata(self.path()).and_then(|file| file.modified()).ok();
        let recent = folded.and_then(|time| time.elapsed().ok()).is_some_and(|age| age < RECENT);
        self.fold(if recent { MAX_LOG } else { REST_LOG }, true);
        self.close();
    }

    /// `begin` begins the next log as well: whoever writes first after it was folded waits for the disk, twice, which is
    /// better done here than by a start.
    fn fold(&self, longest: u64, begin: bool) {
        let log = self.root.join("hull.db-wal");
        if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > longest) {
            let mut guard = self.lock();
            if let Ok(open) = self.connected(&mut guard) {
                // Nobody waits for this: it is tried again after the next write.
                let _ = open.connection.busy_handler(None::<fn(i32) -> bool>);
                let folded =
                    open.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get::<_, u32>(0));
                if begin && folded == Ok(0) {
                    // Says what it says already, which is written all the same.
                    let _ = open.connection.pragma_update(None, "user_version", VERSION);
                }
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn it_appears_whole_and_only_when_written() {
        let root = tempfile::tempdir().unwrap();
        let database = Database::new(&root.path().join("data"));
        let tables = |connection: &Connection| -> Result<u32, Error> {
            Ok(connection.query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", (), |row| row.get(0))?)
        };
        assert_eq!(database.read(tables).unwrap(), 0);
        assert!(!database.path().exists());
        database.write(Sync::Full, |_| Ok::<(), Error>(())).unwrap();
        assert!(database.read(tables).unwrap() > 0);
        let names: Vec<_> =
            fs::read_dir(root.path().join("data")).unwrap().flatten().map(|one| one.file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().contains("new")), "{names:?}");
    }

    #[test]
    fn the_log_is_short_after_a_rest_and_nothing_is_lost() {
        let root = tempfile::tempdir().unwrap();
        let database = Database::new(root.path());
        let log = || fs::metadata(root.path().join("hull.db-wal")).map_or(0, |metadata| metadata.len());
        // Not by opening it, which would take this process's locks from it.
        let folded = |age: u64| {
            let time = SystemTime::now() - Duration::from_secs(age);
            let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            let time = rustix::fs::Timespec { tv_sec: i64::try_from(seconds).unwrap(), tv_nsec: 0 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(rustix::fs::CWD, database.path(), &times, rustix::fs::AtFlags::empty()).unwrap();
        };
        let mut number = 0;
        let mut write = |least: u64| {
            while log() <= least {
                let insert = |transaction: &Transaction<'_>| -> Result<usize, Error> {
                    Ok(transaction.execute("INSERT INTO settings VALUES (?1, 'b')", [number.to_string()])?)
                };
                database.write(Sync::Normal, insert).unwrap();
                number += 1;
            }
            number
        };
        // Its beginning and one page of the file.
        let begun = |length| (32..2048).contains(&length);
        let written = write(REST_LOG);
        // Somebody else has it open, and reads nothing.
        let other = Database::new(root.path());
        let count = |connection: &Connection| -> Result<u32, Error> {
            Ok(connection.query_row("SELECT count(*) FROM settings", (), |row| row.get(0))?)
        };
        assert_eq!(other.read(count).unwrap(), written);
        folded(60);
        database.rest();
        assert!(begun(log()), "{}", log());
        assert_eq!(other.read(count).unwrap(), written);
        // A log that has become long is folded whenever that was done last.
        let written = write(MAX_LOG);
        database.rest();
        assert!(begun(log()), "{}", log());
        assert_eq!(other.read(count).unwrap(), written);
        assert_eq!(Database::new(root.path()).read(count).unwrap(), written);
    }

    #[test]
    fn a_moment_lasts_until_somebody_changes_something() {
        let root = tempfile::tempdir().unwrap();
        let (one, other) = (Database::new(root.path()), Database::new(root.path()));
        let moment = |database: &Database| -> Option<Moment> {
            database.read_unless(|_| None, |_, moment| Ok::<_, Error>(Some(moment))).unwrap()
        };
        let insert = |database: &Database, name: &str| {
            let body = |transaction: &Transaction<'_>| -> Result<usize, Error> {
                Ok(transaction.execute("INSERT INTO settings VALUES (?1, 'b')", [name])?)
            };
            database.write(Sync::Normal, body).unwrap();
        };
        assert_eq!(moment(&one), None);
        insert(&other, "a");
        let first = moment(&one);
        assert!(first.is_some() && moment(&one) == first);
        insert(&other, "b");
        let second = moment(&one);
        assert_ne!(second, first);
        insert(&one, "c");
        let third = moment(&one);
        assert_ne!(third, second);
        assert_eq!(moment(&one), third);
        one.close();
        assert_ne!(moment(&one), third);
        let known = one.read_unless(|_| Some(7), |_, _| Err::<i32, _>(Error::Newer { found: 2, known: 1 }));
        assert_eq!(known.unwrap(), 7);
    }

    #[test]
    fn what_fails_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let database = Database::new(root.path());
        let count = |connection: &Connection| -> Result<u32, Error> {
            Ok(connection.query_row("SELECT count(*) FROM settings", (), |row| row.get(0))?)
        };
        let insert = |transaction: &Transaction<'_>| transaction.execute("INSERT INTO settings VALUES ('a', 'b')", ());
        let failed = database.write(Sync::Normal, |transaction| {
            insert(transaction)?;
            Err::<(), Error>(Error::Newer { found: 2, known: 1 })
        });
        assert!(failed.is_err());
        assert_eq!(database.read(count).unwrap(), 0);
        database.write(Sync::Normal, |transaction| Ok::<_, Error>(insert(transaction)?)).unwrap();
        database.close();
        assert_eq!(Database::new(root.path()).read(count).unwrap(), 1);
    }
}
