//! Mounts of layers, one for all containers of the machine.
//!
//! An EROFS mount of a layer is attached nowhere: it lives as long as somebody holds a descriptor of it, or an overlay
//! uses it. Every mount is a file system of its own with its own page cache, so the second container of an image takes
//! the descriptors over from a process that has them (`pidfd_getfd(2)`).
//!
//! ```text
//! STATE/mounts/HEX     one file for each layer that is mounted; HEX is the layer's diff ID
//!     PID START FD DEV   one line for each holder: process, its start time, its descriptor, the mount's device number
//! ```
//!
//! A file is read and changed only under its own `flock(2)`, one file at a time, also while a layer is mounted for the
//! first time: processes that start together share one mount. Who takes the last line out removes the file, so after
//! waiting for a lock a file without a name is opened anew. Lines are hints and never trusted: the process must have
//! started when the line says, and what it gives must be an EROFS mount with that device number. A holder removes its
//! lines before it closes its descriptors; the lines of killed ones are dropped by whoever sees them, and by
//! [`Mounts::repair`].

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::Error;

/// A file of holders is read up to this size; more have no room in the process table.
const MAX_BYTES: u64 = 4 << 20;

/// `EROFS_SUPER_MAGIC_V1` of `statfs(2)`.
const EROFS_MAGIC: u64 = 0xe0f5_e1e2;

/// The directory of holders.
#[derive(Clone, Debug)]
pub struct Mounts {
    directory: PathBuf,
}

/// Mounts that this process holds and lends.
#[derive(Debug)]
pub struct Held {
    directory: PathBuf,
    layers: Vec<Layer>,
    holder: Holder,
}

#[derive(Debug)]
struct Layer {
    name: String,
    mount: Arc<OwnedFd>,
}

/// A process, for ever: its number with its start time in clock ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Holder {
    pid: i32,
    start: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    holder: Holder,
    fd: i32,
    device: u64,
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let line = Self {
            holder: Holder { pid: words.next()?.parse().ok()?, start: words.next()?.parse().ok()? },
            fd: words.next()?.parse().ok()?,
            device: words.next()?.parse().ok()?,
        };
        (words.next().is_none() && line.holder.pid > 0 && line.fd >= 0).then_some(line)
    }

    fn text(self) -> String {
        format!("{} {} {} {}\n", self.holder.pid, self.holder.start, self.fd, self.device)
    }
}

impl Holder {
    fn own() -> Self {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        Self { pid, start: hull_fs::start_time(pid).unwrap_or(0) }
    }

    /// A descriptor of the process, proven to be the one that started then.
    fn open(self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // After the open: the number can be reused before it, but not while the descriptor lives.
        (hull_fs::start_time(self.pid) == Some(self.start)).then_some(pidfd)
    }
}

/// The processes met so far; most holders hold every layer of an image.
#[derive(Default)]
struct Processes(HashMap<Holder, Option<OwnedFd>>);

impl Processes {
    fn get(&mut self, holder: Holder) -> Option<&OwnedFd> {
        self.0.entry(holder).or_insert_with(|| holder.open()).as_ref()
    }
}

/// One layer's file, locked.
struct Locked {
    path: PathBuf,
    file: File,
    lines: Vec<Line>,
    /// The file has lines that are not in `lines`.
    stale: bool,
    length: u64,
}

impl Locked {
    /// Opens and locks; with `create` a missing file is made, otherwise it is `None`.
    fn open(path: PathBuf, create: bool) -> Result<Option<Self>, Error> {
        let mut flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        flags.set(OFlags::CREATE, create);
        loop {
            let file = match rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)) {
                Err(rustix::io::Errno::NOENT) if !create => return Ok(None),
                result => result.map_err(Error::io("open", &path))?,
            };
            let copy = File::from(file);
            lock(&copy, &path)?;
            let stat = rustix::fs::fstat(&copy).map_err(Error::io("stat", &path))?;
            if stat.st_nlink > 0 {
                let mut text = String::new();
                // What is no text has no holders.
                let _ = (&copy).take(MAX_BYTES).read_to_string(&mut text);
                let lines: Vec<Line> = text.split_inclusive('\n').filter_map(whole_line).collect();
                let stale = lines.iter().map(|line| line.text().len()).sum::<usize>() != text.len();
                return Ok(Some(Self { path, file: copy, lines, stale, length: text.len() as u64 }));
            }
        }
    }

    fn drop_dead(&mut self, processes: &mut Processes) {
        let before = self.lines.len();
        self.lines.retain(|line| processes.get(line.holder).is_some());
        self.stale |= before != self.lines.len();
    }

    /// The mount, of the holder that came last and has it still. Those that are met before and are dead are dropped; of
    /// hundreds the others are not looked at.
    fn borrow(&mut self, processes: &mut Processes) -> Option<OwnedFd> {
        for index in (0..self.lines.len()).rev() {
            let line = self.lines[index];
            match processes.get(line.holder) {
                Some(pidfd) => {
                    if let Some(fd) = take(pidfd, line) {
                        return Some(fd);
                    }
                }
                None => {
                    self.lines.remove(index);
                    self.stale = true;
                }
            }
        }
        None
    }

    fn add(&mut self, line: Line) -> Result<(), Error> {
        self.lines.push(line);
        if self.stale {
            return self.save();
        }
        self.file.write_all_at(line.text().as_bytes(), self.length).map_err(Error::io("write", &self.path))
    }

    /// Writes what is left, or removes the file when nothing is.
    fn save(&mut self) -> Result<(), Error> {
        if self.lines.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io("remove", &self.path)(error))
                }
                _ => Ok(()),
            };
        }
        let text: String = self.lines.iter().map(|line| line.text()).collect();
        // A kill in between leaves a cut line, which is ignored, or no line of a holder, who then lends nothing.
        self.file.set_len(0).map_err(Error::io("truncate", &self.path))?;
        self.file.write_all_at(text.as_bytes(), 0).map_err(Error::io("write", &self.path))
    }
}

fn lock(file: &File, path: &Path) -> Result<(), Error> {
    loop {
        match rustix::fs::flock(file, rustix::fs::FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map_err(Error::io("lock", path)),
        }
    }
}

fn whole_line(text: &str) -> Option<Line> {
    Line::parse(text.strip_suffix('\n')?)
}

/// The mount that a line speaks of, if its holder still has it.
fn take(pidfd: &OwnedFd, line: Line) -> Option<OwnedFd> {
    let fd = pidfd_getfd(pidfd, line.fd, PidfdGetfdFlags::empty()).ok()?;
    let magic = rustix::fs::fstatfs(&fd).ok()?.f_type;
    let device = rustix::fs::fstat(&fd).ok()?.st_dev;
    (u64::try_from(magic).ok()? & 0xffff_ffff == EROFS_MAGIC && device == line.device).then_some(fd)
}

impl Mounts {
    /// The mounts that are listed below a state directory. Nothing is read or made.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { directory: state.join("mounts") }
    }

    /// The mount of each layer (none of them twice), taken over from another process or made by `mount`, and from now on lent by this one.
    ///
    /// # Errors
    /// Those of `mount`; those of the directory. What was taken before is given back.
    pub fn acquire<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
        mut mount: impl FnMut(&str) -> Result<OwnedFd, Error>,
    ) -> Result<Held, Error> {
        let mut held = Held { directory: self.directory.clone(), layers: Vec::new(), holder: Holder::own() };
        let mut processes = Processes::default();
        for name in names {
            match self.acquire_one(name, held.holder, &mut processes, &mut mount) {
                Ok(mount) => held.layers.push(Layer { name: name.to_owned(), mount: Arc::new(mount) }),
                Err(error) => {
                    let _ = held.release();
                    return Err(error);
                }
            }
        }
        Ok(held)
    }

    fn acquire_one(
        &self,
        name: &str,
        holder: Holder,
        processes: &mut Processes,
        mount: &mut impl FnMut(&str) -> Result<OwnedFd, Error>,
    ) -> Result<OwnedFd, Error> {
        let path = self.directory.join(name);
        let mut file = match Locked::open(path.clone(), true) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&self.directory)
                    .map_err(Error::io("create directory", &self.directory))?;
                Locked::open(path, true)?
            }
            other => other?,
        };
        let Some(file) = &mut file else { return mount(name) };
        let result = match file.borrow(processes) {
            Some(fd) => Ok(fd),
            None => mount(name),
        };
        let fd = match result {
            Ok(fd) => fd,
            Err(error) => {
                // The file may have been made for this alone.
                let _ = file.save();
                return Err(error);
            }
        };
        let device = rustix::fs::fstat(&fd).map_err(Error::io("stat mount of", name))?.st_dev;
        file.add(Line { holder, fd: fd.as_raw_fd(), device })?;
        Ok(fd)
    }

    /// Drops the lines of holders that are gone, and files without lines. Returns how many files were removed.
    ///
    /// # Errors
    /// The first that could not be changed; the others were.
    pub fn repair(&self) -> Result<usize, Error> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Ok(0) };
        let mut processes = Processes::default();
        let (mut removed, mut result) = (0, Ok(()));
        for entry in entries.flatten() {
            let done = Locked::open(entry.path(), false).and_then(|file| {
                let Some(mut file) = file else { return Ok(()) };
                file.drop_dead(&mut processes);
                removed += usize::from(file.lines.is_empty());
                if file.stale || file.lines.is_empty() { file.save() } else { Ok(()) }
            });
            result = result.and(done);
        }
        result.map(|()| removed)
    }
}

impl Held {
    /// Mounts that this process holds and lends already, handed over by an earlier image of it (`execve(2)`).
    #[must_use]
    pub fn resume(mounts: &Mounts, layers: impl IntoIterator<Item = (String, OwnedFd)>) -> Self {
        let layers = layers.into_iter().map(|(name, mount)| Layer { name, mount: Arc::new(mount) }).collect();
        Self { directory: mounts.directory.clone(), layers, holder: Holder::own() }
    }

    /// The layers and their mounts.
    pub fn named(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.layers.iter().map(|layer| (layer.name.as_str(), layer.mount.as_fd()))
    }

    /// The mounts, in the order in which they were asked for.
    pub fn mounts(&self) -> impl Iterator<Item = &Arc<OwnedFd>> {
        self.layers.iter().map(|layer| &layer.mount)
    }

    /// Stops lending: this process's lines go, and the mounts when the kernel's last user goes.
    ///
    /// # Errors
    /// The first file that could not be changed; the others were.
    pub fn release(mut self) -> Result<(), Error> {
        self.give_up()
    }

    fn give_up(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        let layers = std::mem::take(&mut self.layers);
        // A copy of the process (`fork(2)`) has nothing in its name.
        if self.holder.pid != rustix::process::getpid().as_raw_nonzero().get() {
            return result;
        }
        for layer in &layers {
            let one = Locked::open(self.directory.join(&layer.name), false).and_then(|file| {
                let Some(mut file) = file else { return Ok(()) };
                let fd = layer.mount.as_raw_fd();
                file.lines.retain(|line| line.holder != self.holder || line.fd != fd);
                file.save()
            });
            result = result.and(one);
        }
        result
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Lines that stay name a process that ends, or a descriptor that is checked before it is used.
        let _ = self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pid: i32) -> Line {
        Line { holder: Holder { pid, start: 1 }, fd: 3, device: 7 }
    }

    #[test]
    fn lines_are_parsed_strictly() {
        assert_eq!(whole_line("12 1 3 7\n"), Some(line(12)));
        assert_eq!(whole_line(&line(12).text()), Some(line(12)));
        for bad in ["12 1 3 7", "12 1 3\n", "0 1 3 7\n", "-4 1 3 7\n", "12 1 3 7 9\n", "12 1 -3 7\n", "a 1 3 7\n", "\n"]
        {
            assert_eq!(whole_line(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_living_holders_stay() {
        let directory = tempfile::tempdir().unwrap();
        let mounts = Mounts::new(directory.path());
        assert_eq!(mounts.repair().unwrap(), 0);
        fs::create_dir(&mounts.directory).unwrap();
        let own = Line { holder: Holder::own(), ..line(1) };
        // Process 1 lives, but has not started at that time.
        fs::write(mounts.directory.join("a"), line(1).text() + "cut 1").unwrap();
        fs::write(mounts.directory.join("b"), line(1).text() + &own.text()).unwrap();
        assert_eq!(mounts.repair().unwrap(), 1);
        assert_eq!(fs::read_to_string(mounts.directory.join("b")).unwrap(), own.text());
        assert!(!mounts.directory.join("a").exists());
    }

    #[test]
    fn what_a_holder_gives_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let mounts = Mounts::new(directory.path());
        let open = || OwnedFd::from(File::open(directory.path()).unwrap());
        let lent = open();
        let device = rustix::fs::fstat(&lent).unwrap().st_dev;
        fs::create_dir(&mounts.directory).unwrap();
        let own = Line { holder: Holder::own(), fd: lent.as_raw_fd(), device };
        fs::write(mounts.directory.join("a"), own.text()).unwrap();
        // An open directory of another file system type is not taken for a mount.
        let mut made = 0;
        let held = mounts.acquire(["a", "b"], |_| {
            made += 1;
            Ok(open())
        });
        let held = held.unwrap();
        assert_eq!((made, held.mounts().count()), (2, 2));
        assert_eq!(fs::read_to_string(mounts.directory.join("a")).unwrap().lines().count(), 2);
        held.release().unwrap();
        assert_eq!(fs::read_to_string(mounts.directory.join("a")).unwrap(), own.text());
        assert!(!mounts.directory.join("b").exists());
        let failed = mounts
            .acquire(["b", "c"], |name| if name == "c" { Err(Error::NoImage(name.to_owned())) } else { Ok(open()) });
        assert!(failed.is_err());
        assert!(!mounts.directory.join("b").exists() && !mounts.directory.join("c").exists());
    }
}
