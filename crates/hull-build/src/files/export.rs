//! Files out of a build: a tree as a directory of this machine or as a tar, and an archive as a directory.
//!
//! A directory that is written into may have anything in it, links too: names are made below open directories and
//! nothing is followed. A file appears whole, by rename. Files belong to whoever writes them, and so without the bits
//! that would lend his rights; what he may not make (devices) is left out and named.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use hull_layer::compression::{Compression, peek};
use hull_layer::tar::{Entry, EntryKind, Writer, WriterOptions};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::copy::{self, Source};
use super::error::{Error, absolute};
use super::onto::Onto;
use super::select::select;
use super::settings::{Settings, Spool};
use super::tree::{FileTree, below, split};
use super::unpack;
use super::write::{Sink, write};
use crate::graph::CopyAction;

/// How files are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExportOptions {
    /// Later times become this one.
    pub epoch: Option<i64>,
    /// What is not in the tree is removed.
    pub mirror: bool,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Names.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// What was left out because the caller may not make it.
    pub skipped: Vec<String>,
}

/// Writes a tree into a directory, which is made if it is missing.
///
/// # Errors
/// When something cannot be read or written; what was written stays.
pub fn to_directory(tree: &dyn FileTree, destination: &Path, options: ExportOptions) -> Result<Exported, Error> {
    let mut sink = DirectorySink::open(destination, options.epoch)?;
    everything(&[("/", tree)], &mut sink)?;
    sink.finish(options.mirror)
}

/// Writes trees as one tar, each below its directory, with the owners that they have.
///
/// # Errors
/// When something cannot be read or written.
pub fn to_tar(trees: &[(&str, &dyn FileTree)], output: impl Write, epoch: Option<i64>) -> Result<(), Error> {
    let mut writer = Writer::with_options(output, WriterOptions { clamp_mtime: epoch, whole_seconds: true });
    everything(trees, &mut writer)?;
    writer.finish().map(drop).map_err(Error::io("write", "tar"))
}

/// What came where a context was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// An archive, which was unpacked.
    Files,
    /// Anything else: a Dockerfile.
    Text(Vec<u8>),
}

/// Takes a context that comes as a stream: an archive, compressed or not, is unpacked into an empty directory, which is
/// made if it is missing; anything else of at most `max` bytes is a Dockerfile.
///
/// # Errors
/// When the archive is refused or the text too long, or something cannot be written.
pub fn receive(input: impl Read, destination: &Path, max: u64) -> Result<Received, Error> {
    let (prefix, input) = peek(input)?;
    if !prefix.is_empty() && Compression::detect(&prefix).is_some() {
        return extract(input, destination).map(|_| Received::Files);
    }
    let mut text = Vec::new();
    input.take(max + 1).read_to_end(&mut text).map_err(Error::io("read", "Dockerfile"))?;
    if text.len() as u64 > max {
        return Err(Error::Refused(format!("what came is no archive, and too long for a Dockerfile: {max} bytes")));
    }
    Ok(Received::Text(text))
}

/// Unpacks an archive, compressed or not, into an empty directory.
///
/// # Errors
/// When it is none, or is refused, or cannot be written.
pub fn extract(archive: impl Read, destination: &Path) -> Result<Exported, Error> {
    extracted(archive, destination, false)
}

/// [`extract`] with the owners that files have there, as far as the caller may give files away; devices are left out.
///
/// # Errors
/// As [`extract`].
pub fn extract_owned(archive: impl Read, destination: &Path) -> Result<Exported, Error> {
    extracted(archive, destination, rustix::process::geteuid().is_root())
}

fn extracted(archive: impl Read, destination: &Path, owned: bool) -> Result<Exported, Error> {
    let mut onto = Onto::new(None)?;
    let settings = Settings { time: 0, fixed: false, spool: &Beside(destination) };
    unpack::unpack(&mut onto, &[], archive, None, &settings)?;
    let mut sink = DirectorySink { owned, ..DirectorySink::open(destination, None)? };
    write(&onto.root, &[], &mut sink, &|| false)?;
    sink.finish(false)
}

/// Temporary files beside what is written.
#[derive(Debug)]
struct Beside<'p>(&'p Path);

impl Spool for Beside<'_> {
    fn file(&self) -> Result<File, Error> {
        std::fs::create_dir_all(self.0).map_err(Error::io("create directory", self.0))?;
        let path = self.0.join(format!(".hull-archive-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(Error::io("create", &path))?;
        std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        Ok(file)
    }
}

fn everything(trees: &[(&str, &dyn FileTree)], sink: &mut dyn Sink) -> Result<(), Error> {
    let mut onto = Onto::new(None)?;
    let settings = Settings { time: 0, fixed: false, spool: &Beside(Path::new("/nonexistent")) };
    for (place, (directory, tree)) in trees.iter().enumerate() {
        let action = CopyAction::plain(None, "/", directory);
        let source = Source { tree: *tree, selected: Arc::new(select(*tree, &action)?) };
        copy::apply(&mut onto, place, &action, Some(&source), None, &settings)?;
    }
    let sources: Vec<Option<&dyn FileTree>> = trees.iter().map(|(_, tree)| Some(*tree)).collect();
    write(&onto.root, &sources, sink, &|| false)
}

/// A directory that entries are written into.
struct DirectorySink {
    root: OwnedFd,
    /// The directories down to the last entry.
    open: Vec<(Vec<u8>, OwnedFd)>,
    epoch: Option<i64>,
    /// Files have the owners that entries say, and there are no devices.
    owned: bool,
    /// Directories, whose modes and times come last.
    directories: Vec<(Vec<u8>, u16, Timestamps)>,
    names: BTreeSet<Vec<u8>>,
    done: Exported,
}

/// The name that a file has until it is whole.
const TEMPORARY: &str = ".hull-unfinished";

impl DirectorySink {
    fn open(path: &Path, epoch: Option<i64>) -> Result<Self, Error> {
        std::fs::create_dir_all(path).map_err(Error::io("create directory", path))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
        let (directories, names) = (Vec::new(), BTreeSet::new());
        Ok(Self { root, open: Vec::new(), epoch, owned: false, directories, names, done: Exported::default() })
    }

    fn go(&mut self, directory: &[u8]) -> Result<BorrowedFd<'_>, Errno> {
        let names = || directory.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let same = self.open.iter().zip(names()).take_while(|(open, name)| open.0 == *name).count();
        self.open.truncate(same);
        for name in names().skip(same) {
            let parent = self.open.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(parent, OsStr::from_bytes(name), flags, Mode::empty())?;
            self.open.push((name.to_vec(), fd));
        }
        Ok(self.open.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd()))
    }

    fn times(&self, entry: &Entry) -> Timestamps {
        let seconds = self.epoch.map_or(entry.mtime, |epoch| entry.mtime.min(epoch));
        let nanoseconds = if seconds == entry.mtime { i64::from(entry.mtime_nsec) } else { 0 };
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        Timestamps { last_access: time, last_modification: time }
    }

    fn one(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        let failed = |errno: Errno| Error::at("write", &entry.path)(errno);
        let times = self.times(entry);
        let mode = Mode::from_raw_mode(u32::from(entry.mode & 0o1777));
        let (parent, name) = split(&entry.path);
        let name = OsStr::from_bytes(name);
        // The other name's directory first: going to this one's may close it.
        let first = match &entry.kind {
            EntryKind::HardLink(target) => {
                let (parent, name) = split(target);
                let fd = self.go(parent).map_err(failed)?;
                Some((fd.try_clone_to_owned().map_err(Error::at("open", target))?, name.to_vec()))
            }
            _ => None,
        };
        let owned = self.owned;
        if owned && matches!(entry.kind, EntryKind::Character(..) | EntryKind::Block(..)) {
            self.done.skipped.push(absolute(&entry.path));
            return Ok(());
        }
        let directory = self.go(parent).map_err(failed)?;
        match &entry.kind {
            EntryKind::Directory => {
                make_directory(directory, name).map_err(failed)?;
                if owned {
                    own(directory, name, entry).map_err(failed)?;
                }
                self.directories.push((entry.path.clone(), entry.mode & 0o1777, times));
                return Ok(());
            }
            EntryKind::File { .. } => {
                let written = temporary_file(directory, content, mode, &times);
                self.done.bytes += written.map_err(Error::at("write", &entry.path))?;
            }
            EntryKind::HardLink(_) => {
                let Some((fd, target)) = first else { return Ok(()) };
                clear(directory).map_err(failed)?;
                rustix::fs::linkat(fd, OsStr::from_bytes(&target), directory, TEMPORARY, AtFlags::empty())
                    .map_err(failed)?;
            }
            EntryKind::Symlink(target) => {
                clear(directory).map_err(failed)?;
                rustix::fs::symlinkat(OsStr::from_bytes(target), directory, TEMPORARY).map_err(failed)?;
                rustix::fs::utimensat(directory, TEMPORARY, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            }
            EntryKind::Fifo | EntryKind::Character(..) | EntryKind::Block(..) => {
                let (kind, device) = match entry.kind {
                    EntryKind::Character(major, minor) => (FileType::CharacterDevice, (major, minor)),
                    EntryKind::Block(major, minor) => (FileType::BlockDevice, (major, minor)),
                    _ => (FileType::Fifo, (0, 0)),
                };
                clear(directory).map_err(failed)?;
                let device = rustix::fs::makedev(device.0, device.1);
                match rustix::fs::mknodat(directory, TEMPORARY, kind, mode, device) {
                    Err(Errno::PERM) => {
                        self.done.skipped.push(absolute(&entry.path));
                        return Ok(());
                    }
                    made => made.map_err(failed)?,
                }
                rustix::fs::chmodat(directory, TEMPORARY, mode, AtFlags::empty()).map_err(failed)?;
            }
        }
        let directory = self.go(parent).map_err(failed)?;
        if owned && !matches!(entry.kind, EntryKind::HardLink(_)) {
            own(directory, OsStr::new(TEMPORARY), entry).map_err(failed)?;
        }
        place(directory, name).map_err(failed)
    }

    fn finish(mut self, mirror: bool) -> Result<Exported, Error> {
        let directories = std::mem::take(&mut self.directories);
        if mirror {
            for path in directories.iter().map(|one| one.0.as_slice()).chain([&b""[..]]) {
                let names = std::mem::take(&mut self.names);
                let directory = self.go(path).map_err(Error::at("open", path))?;
                for name in list(directory).map_err(Error::at("read directory", path))? {
                    if !names.contains(&below(path, &name)) {
                        remove(directory, OsStr::from_bytes(&name))
                            .map_err(Error::at("remove", &below(path, &name)))?;
                    }
                }
                self.names = names;
            }
        }
        for (path, mode, times) in directories.iter().rev() {
            let directory = self.go(path).map_err(Error::at("open", path))?;
            rustix::fs::fchmod(directory, Mode::from_raw_mode(u32::from(*mode))).map_err(Error::at("chmod", path))?;
            rustix::fs::futimens(directory, times).map_err(Error::at("set times of", path))?;
        }
        Ok(self.done)
    }
}

impl Sink for DirectorySink {
    fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        self.names.insert(entry.path.clone());
        self.done.entries += 1;
        self.one(entry, content)
    }
}

/// Gives a name in a directory to its entry's owner.
fn own(directory: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<(), Errno> {
    let owner = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::chownat(directory, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)
}

/// Makes a directory that can be written into, or finds one.
fn make_directory(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    for _ in 0..2 {
        match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            Err(Errno::EXIST) => {}
            made => return made,
        }
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Ok(());
        }
        rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
    }
    Err(Errno::EXIST)
}

fn temporary_file(
    directory: BorrowedFd<'_>,
    content: &mut dyn Read,
    mode: Mode,
    times: &Timestamps,
) -> Result<u64, io::Error> {
    clear(directory)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(directory, TEMPORARY, flags, Mode::RUSR | Mode::WUSR)?);
    let copied = io::copy(content, &mut file)?;
    rustix::fs::fchmod(&file, mode)?;
    rustix::fs::futimens(&file, times)?;
    Ok(copied)
}

/// Removes what an earlier writer left.
fn clear(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, TEMPORARY, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// Gives what was made its name.
fn place(directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::renameat(directory, TEMPORARY, directory, name) {
        Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
            remove(directory, name)?;
            rustix::fs::renameat(directory, TEMPORARY, directory, name)?;
        }
        renamed => renamed?,
    }
    // Two names of one file are not renamed onto each other.
    clear(directory)
}

fn list(directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes a name with all that is below it.
fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return result,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for child in list(directory.as_fd())? {
        remove(directory.as_fd(), OsStr::from_bytes(&child))?;
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::super::trees::MachineDirectory;
    use super::*;

    fn tree() -> (tempfile::TempDir, MachineDirectory) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("d/f"), "f").unwrap();
        fs::hard_link(root.join("d/f"), root.join("d/e/g")).unwrap();
        fs::write(root.join("tool"), "t").unwrap();
        fs::set_permissions(root.join("tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        symlink("/etc/passwd", root.join("link")).unwrap();
        fs::set_permissions(root.join("d/e"), fs::Permissions::from_mode(0o555)).unwrap();
        let tree = MachineDirectory::open(root, "test").unwrap();
        (directory, tree)
    }

    #[test]
    fn a_directory_is_written_beside_what_is_there() {
        let (_directory, tree) = tree();
        let out = tempfile::tempdir().unwrap();
        let (out, outside) = (out.path().join("out"), out.path().join("outside"));
        fs::create_dir_all(&outside).unwrap();
        fs::create_dir_all(out.join("tool/full")).unwrap();
        fs::write(out.join("stays"), "s").unwrap();
        // Links that lead elsewhere are replaced, not followed.
        symlink(&outside, out.join("d")).unwrap();
        let done = to_directory(&tree, &out, ExportOptions { epoch: Some(1000), mirror: false }).unwrap();
        assert_eq!((done.entries, done.bytes, done.skipped.len()), (6, 2, 0));
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(out.join("d/e/g")).unwrap(), "f");
        assert_eq!(fs::metadata(out.join("d/f")).unwrap().ino(), fs::metadata(out.join("d/e/g")).unwrap().ino());
        assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("/etc/passwd"));
        let tool = fs::metadata(out.join("tool")).unwrap();
        assert_eq!((tool.mode() & 0o7777, tool.mtime()), (0o755, 1000));
        let sub = fs::metadata(out.join("d/e")).unwrap();
        assert_eq!((sub.mode() & 0o7777, sub.mtime()), (0o555, 1000));
        assert!(out.join("stays").exists());
        fs::set_permissions(out.join("d/e"), fs::Permissions::from_mode(0o755)).unwrap();
        let done = to_directory(&tree, &out, ExportOptions { epoch: None, mirror: true }).unwrap();
        assert_eq!(done.entries, 6);
        assert!(!out.join("stays").exists());
        fs::set_permissions(out.join("d/e"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn archives_are_extracted_and_written_again() {
        let (_directory, tree) = tree();
        let mut bytes = Vec::new();
        to_tar(&[("/", &tree)], &mut bytes, None).unwrap();
        let out = tempfile::tempdir().unwrap();
        let archive = out.path().join("a.tar");
        fs::write(&archive, &bytes).unwrap();
        let extracted = out.path().join("x");
        extract(File::open(&archive).unwrap(), &extracted).unwrap();
        let again = MachineDirectory::open(&extracted, "again").unwrap();
        let mut second = Vec::new();
        to_tar(&[("/", &again)], &mut second, None).unwrap();
        // All but the set-user-ID bit.
        assert_eq!(bytes.len(), second.len());
        assert_eq!(fs::metadata(extracted.join("tool")).unwrap().mode() & 0o7777, 0o755);
        let received = |bytes: &[u8], max| receive(bytes, &out.path().join("r"), max);
        assert_eq!(received(&bytes, 10).unwrap(), Received::Files);
        assert!(out.path().join("r/d/f").exists());
        fs::set_permissions(out.path().join("r/d/e"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(received(b"FROM x\n", 10).unwrap(), Received::Text(b"FROM x\n".to_vec()));
        assert!(received(b"FROM too long\n", 10).is_err());
        assert!(extract(File::open(extracted.join("d/f")).unwrap(), &out.path().join("y")).is_err());
        fs::set_permissions(extracted.join("d/e"), fs::Permissions::from_mode(0o755)).unwrap();
    }
}
