//! What a container leaves on disk: one directory per container below the state root, on a tmpfs.
//!
//! ```text
//! ROOT/                0711
//! ├─ .new-PID-ID/      a creation that has not taken its ID yet; PID is its creator
//! └─ ID/               0711
//!    ├─ creating       exists while `create` runs; its creator holds an flock(2) on it, and its PID is what it says
//!    ├─ state.json     0600, the record: replaced by rename, never edited
//!    ├─ config.json    0600, the specification as it was taken
//!    ├─ filter         0600, the compiled system call filter: 4 bytes of flags, then the program
//!    ├─ start.fifo     exists until `start`; one byte lets the container's process go on
//!    └─ result.fifo    the process reports over it what failed between `start` and `execve`
//! ```
//!
//! The `creating` file is the intent record: the kernel drops its lock with the creator, so whoever finds it unlocked
//! knows that the creation was killed and undoes it ([`repair`]), holding the lock while it does. Found locked with its
//! creator gone, it is being undone by another command, or the creator's last child has not come to closing its copy of
//! the lock: that is waited for. Nothing here is synced: a tmpfs does not outlive the kernel, and neither do containers.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use hull_cgroup::Cgroup;
pub use hull_fs::start_time as process_start_time;
use hull_oci::spec::{Hooks, Spec};
use hull_oci::{State, Status};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A record larger than this is not read.
const MAX_RECORD_BYTES: usize = 32 << 20;

/// The container's record (`state.json`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Version of the specification that the configuration follows.
    pub oci_version: String,
    /// The container's ID.
    pub id: String,
    /// Process ID of the container's first process in the runtime's PID namespace; 0 while it is being made.
    pub pid: i32,
    /// When that process started, in clock ticks since boot (`proc(5)`, stat field 22): a recycled ID is not ours.
    pub pid_start_time: u64,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    /// User ID of whoever created the container.
    pub owner: u32,
    /// The configuration's annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The container's cgroup.
    pub cgroup: Cgroup,
    /// Hooks that are still to run.
    #[serde(default)]
    pub hooks: Hooks,
    /// Whether the container has an own user namespace.
    #[serde(default)]
    pub user_namespace: bool,
    /// resctrl group to remove with the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<PathBuf>,
}

/// Checks the characters of an ID: it becomes a file name, and part of cgroup and unit names.
///
/// # Errors
/// [`Error::InvalidId`].
pub fn check_id(id: &str) -> Result<(), Error> {
    let first = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte);
    let ok = !id.is_empty()
        && id.len() <= 1024
        && first(id.as_bytes()[0])
        && id.bytes().all(|byte| first(byte) || byte == b'.');
    if ok { Ok(()) } else { Err(Error::InvalidId(id.to_owned())) }
}

/// The directory of one container.
#[must_use]
pub fn directory(root: &Path, id: &str) -> PathBuf {
    root.join(id)
}

impl Record {
    /// Reads the record of a container.
    ///
    /// # Errors
    /// [`Error::NoContainer`] when there is none, [`Error::InvalidId`] for an impossible ID.
    pub fn load(root: &Path, id: &str) -> Result<Self, Error> {
        check_id(id)?;
        let path = directory(root, id).join("state.json");
        let bytes = match read(&path, MAX_RECORD_BYTES) {
            Err(Error::System { errno: Errno::NOENT | Errno::NOTDIR, .. }) => {
                return Err(Error::NoContainer(id.to_owned()));
            }
            other => other?,
        };
        hull_oci::spec::parse(&bytes).map_err(|source| Error::Parse { path, source })
    }

    /// Writes the record.
    ///
    /// # Errors
    /// [`Error::System`] naming the file.
    pub fn save(&self, root: &Path) -> Result<(), Error> {
        let bytes = serde_json::to_vec(self).map_err(|error| Error::config("state", error.to_string()))?;
        hull_fs::atomic::write_path(&directory(root, &self.id).join("state.json"), &bytes, 0o600)?;
        Ok(())
    }

    /// Where the container is in its life, asked of the kernel now.
    #[must_use]
    pub fn status(&self, root: &Path) -> Status {
        let directory = directory(root, &self.id);
        if exists(&directory.join("creating")) {
            return Status::Creating;
        }
        if !self.alive() {
            return Status::Stopped;
        }
        if self.cgroup.is_frozen().unwrap_or(false) {
            return Status::Paused;
        }
        if exists(&directory.join("start.fifo")) { Status::Created } else { Status::Running }
    }

    /// Whether the first process exists and is not a zombie.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.pid > 0 && process_start_time(self.pid) == Some(self.pid_start_time)
    }

    /// A descriptor of the first process, proven to be ours.
    ///
    /// # Errors
    /// [`Error::Status`] when it has ended.
    pub fn pidfd(&self) -> Result<OwnedFd, Error> {
        let gone = || Error::Status { operation: "signal", id: self.id.clone(), status: "stopped" };
        let pid = rustix::process::Pid::from_raw(self.pid).ok_or_else(gone)?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).map_err(|_| gone())?;
        // Checked after the open: the number can be reused before it, but not while the descriptor lives.
        if self.alive() { Ok(pidfd) } else { Err(gone()) }
    }

    /// The document that hooks and `state` get.
    #[must_use]
    pub fn state(&self, status: Status) -> State {
        State {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            status,
            pid: if status == Status::Stopped { 0 } else { self.pid },
            bundle: self.bundle.to_string_lossy().into_owned(),
            annotations: self.annotations.clone(),
        }
    }

    /// The specification as `create` took it.
    ///
    /// # Errors
    /// [`Error::Parse`] or [`Error::System`].
    pub fn spec(&self, root: &Path) -> Result<Spec, Error> {
        let path = directory(root, &self.id).join("config.json");
        let bytes = read(&path, hull_oci::spec::MAX_CONFIG_BYTES)?;
        Spec::parse(&bytes).map_err(|source| Error::Parse { path, source })
    }
}

/// The records of all containers below a state root, by ID. A root that does not exist has none.
///
/// # Errors
/// [`Error::System`] when the root cannot be read. Records that cannot be read are left out.
pub fn list(root: &Path) -> Result<Vec<Record>, Error> {
    let mut records: Vec<Record> = names(root)?.iter().filter_map(|name| Record::load(root, name).ok()).collect();
    records.sort_by(|left, right| left.id.cmp(&right.id));
    Ok(records)
}

fn names(root: &Path) -> Result<Vec<String>, Error> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("read directory", root, &error)),
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// A container's directory while it is being made; removed again unless [`Creation::commit`] is reached.
#[derive(Debug)]
pub struct Creation {
    root: PathBuf,
    id: String,
    lock: Option<OwnedFd>,
    committed: bool,
}

impl Creation {
    /// Takes the ID: makes the directory with its locked intent file under a temporary name and renames it.
    ///
    /// # Errors
    /// [`Error::Exists`] when the ID is taken.
    pub fn begin(root: &Path, id: &str) -> Result<Self, Error> {
        check_id(id)?;
        let temporary = root.join(format!(".new-{}-{id}", std::process::id()));
        let make = || rustix::fs::mkdir(&temporary, Mode::from_raw_mode(0o711));
        match make() {
            Err(Errno::NOENT) => {
                std::fs::create_dir_all(root).map_err(|error| io_error("create directory", root, &error))?;
                rustix::fs::chmod(root, Mode::from_raw_mode(0o711))
                    .map_err(Error::system("set mode of", root.display()))?;
                make()
            }
            other => other,
        }
        .map_err(Error::system("create directory", temporary.display()))?;
        let undo = |error| {
            let _ = std::fs::remove_dir_all(&temporary);
            error
        };
        let intent = temporary.join("creating");
        let lock = rustix::fs::open(
            &intent,
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o600),
        )
        .and_then(|file| rustix::fs::flock(&file, FlockOperation::LockExclusive).map(|()| file))
        .and_then(|file| rustix::io::write(&file, std::process::id().to_string().as_bytes()).map(|_| file))
        .map_err(Error::system("lock", intent.display()))
        .map_err(undo)?;
        rustix::fs::renameat_with(CWD, &temporary, CWD, directory(root, id), RenameFlags::NOREPLACE)
            .map_err(|errno| match errno {
                Errno::EXIST | Errno::NOTEMPTY => Error::Exists(id.to_owned()),
                errno => Error::System {
                    operation: "create directory",
                    object: directory(root, id).display().to_string(),
                    errno,
                },
            })
            .map_err(undo)?;
        Ok(Self { root: root.to_owned(), id: id.to_owned(), lock: Some(lock), committed: false })
    }

    /// The container's directory.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        directory(&self.root, &self.id)
    }

    /// In the child: a lock is shared through `clone`, and must not outlive the creator.
    pub(crate) fn forget_lock(&mut self) {
        self.lock = None;
        self.committed = true;
    }

    /// Undoes a creation that failed with `error`; that error, with all that could not be undone. The record that names
    /// what is left stays then, and the next command finds the intent.
    pub(crate) fn give_up(mut self, record: &Record, error: Error) -> Error {
        let mut errors = undo(&self.root, record);
        if errors.is_empty() {
            return error;
        }
        self.committed = true;
        errors.insert(0, error);
        Error::Cleanup(errors)
    }

    /// Clears the intent: from here on the container is whole.
    ///
    /// # Errors
    /// [`Error::System`] when the intent file cannot be removed.
    pub fn commit(&mut self) -> Result<(), Error> {
        let intent = self.directory().join("creating");
        rustix::fs::unlink(&intent).map_err(Error::system("remove", intent.display()))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        if !self.committed {
            let _ = std::fs::remove_dir_all(self.directory());
        }
    }
}

/// Finishes what killed creations left: their processes, cgroups and directories.
///
/// Called by every command before its own work. Creations whose runtime lives are left alone; one that another command
/// is undoing is waited for, so that no command after it sees half a container.
///
/// # Errors
/// [`Error::Cleanup`] with everything that could not be removed; the rest has been.
pub fn repair(root: &Path) -> Result<(), Error> {
    let mut errors = Vec::new();
    for name in names(root)? {
        let path = root.join(&name);
        if let Some(creator) = name.strip_prefix(".new-").and_then(|rest| rest.split('-').next()) {
            let alive = creator.parse().is_ok_and(|pid: i32| pid > 0 && process_start_time(pid).is_some());
            if !alive && let Err(error) = std::fs::remove_dir_all(&path) {
                errors.push(io_error("remove", &path, &error));
            }
            continue;
        }
        let Ok(file) = rustix::fs::open(path.join("creating"), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) else {
            continue;
        };
        if !lock_of_dead(&file) {
            continue;
        }
        // The creator may have committed between the open and the lock.
        if !exists(&path.join("creating")) {
            continue;
        }
        match Record::load(root, &name) {
            Ok(record) => errors.extend(undo(root, &record)),
            // Killed before its record was there, and so before anything else was.
            Err(_) => errors.extend(remove_directory(&path).err()),
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::Cleanup(errors)) }
}

/// Takes the lock of an intent whose creator is gone, waiting up to ten seconds for whoever else holds it; whether it
/// was had.
fn lock_of_dead(intent: &OwnedFd) -> bool {
    for _ in 0..10_000 {
        if rustix::fs::flock(intent, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return true;
        }
        let mut creator = [0; 16];
        let alive = rustix::io::pread(intent, &mut creator, 0)
            .ok()
            .and_then(|length| std::str::from_utf8(&creator[..length]).ok()?.parse().ok())
            .is_none_or(|pid: i32| process_start_time(pid).is_some());
        if alive {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    false
}

/// Kills and removes what a creation made, in the reverse order, collecting errors.
fn undo(root: &Path, record: &Record) -> Vec<Error> {
    let mut errors = Vec::new();
    if let Ok(pidfd) = record.pidfd() {
        let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        wait_gone(&pidfd);
    }
    let _ = record.cgroup.kill_all(9);
    if let Err(error) = record.cgroup.delete() {
        errors.push(error.into());
    }
    if let Some(group) = &record.intel_rdt {
        let _ = std::fs::remove_dir(group);
    }
    // The record names what is left: it stays until everything is gone, and the next repair tries again.
    if errors.is_empty() {
        errors.extend(remove_directory(&directory(root, &record.id)).err());
    }
    errors
}

fn remove_directory(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", path, &error)),
        _ => Ok(()),
    }
}

/// Waits up to ten seconds for a process to end.
pub(crate) fn wait_gone(pidfd: &OwnedFd) -> bool {
    let mut poll = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&limit))).is_ok_and(|ready| ready > 0)
}

/// Reads a whole file of bounded size.
pub(crate) fn read(path: &Path, max: usize) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
        .map_err(Error::system("open", path.display()))?;
    let mut bytes = Vec::with_capacity(16 << 10);
    std::fs::File::from(file)
        .take(max as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| io_error("read", path, &error))?;
    if bytes.len() > max {
        return Err(Error::System { operation: "read", object: path.display().to_string(), errno: Errno::FBIG });
    }
    Ok(bytes)
}

pub(crate) fn exists(path: &Path) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

pub(crate) fn io_error(operation: &'static str, path: &Path, error: &std::io::Error) -> Error {
    Error::System {
        operation,
        object: path.display().to_string(),
        errno: error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        for good in ["a", "a.b", "_x", "+", "A-1.2"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".a", "a/b", "a b", "ä", "a\n"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn own_start_time_is_known() {
        assert!(process_start_time(std::process::id().cast_signed()).is_some());
        assert_eq!(process_start_time(i32::MAX), None);
    }

    #[test]
    fn a_dropped_creation_leaves_nothing_and_a_taken_id_is_refused() {
        let root = std::env::temp_dir().join(format!("hull-state-{}", std::process::id()));
        let creation = Creation::begin(&root, "one").unwrap();
        assert!(matches!(Creation::begin(&root, "one"), Err(Error::Exists(_))));
        drop(creation);
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        std::fs::remove_dir(&root).unwrap();
    }

    #[test]
    fn a_creation_that_another_command_undoes_is_waited_for() {
        let root = std::env::temp_dir().join(format!("hull-state-undone-{}", std::process::id()));
        let directory = root.join("one");
        std::fs::create_dir_all(&directory).unwrap();
        let intent = directory.join("creating");
        std::fs::write(&intent, i32::MAX.to_string()).unwrap();
        let other = std::fs::File::open(&intent).unwrap();
        rustix::fs::flock(&other, FlockOperation::LockExclusive).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(50));
                drop(other);
            });
            repair(&root).unwrap();
        });
        assert!(!directory.exists(), "left for the next command");

        let creation = Creation::begin(&root, "one").unwrap();
        repair(&root).unwrap();
        assert!(directory.exists(), "a living creator's");
        drop(creation);
        std::fs::remove_dir(&root).unwrap();
    }
}
