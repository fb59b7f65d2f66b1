//! Files from a tar archive into a directory that somebody else may change meanwhile.
//!
//! Each name of the archive is found anew inside a root, links included, as if that were `/`: whatever the archive or
//! the directory's owner does, nothing outside is touched. Decompression is in this process.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use hull_fs::inside;
use hull_layer::Limits;
use hull_layer::compression::{Compression, Decoder, peek};
use hull_layer::tar::{Entry, EntryKind, Reader};
use rustix::fs::{FileType, Mode, OFlags, Timespec};
use rustix::io::Errno;

use super::place::{Attributes, Place, Policy};
use super::{Report, mismatch};
use crate::error::Error;

/// Directories whose times are set at the end.
const MAX_DIRECTORIES: usize = 1 << 20;

/// Puts an archive's files below `directory` of `root`. The archive may be compressed. With `itself` the directory gets
/// the attributes that the archive has for it.
pub(crate) fn extract(
    input: impl Read,
    root: BorrowedFd<'_>,
    directory: &Path,
    itself: bool,
    policy: Policy,
) -> Result<Report, Error> {
    extract_with(input, root, directory, itself, policy, true)
}

/// The same of an archive that need not say where it ends, as Docker takes it from its clients: also an empty one.
pub(crate) fn extract_unended(
    input: impl Read,
    root: BorrowedFd<'_>,
    directory: &Path,
    policy: Policy,
) -> Result<Report, Error> {
    extract_with(input, root, directory, false, policy, false)
}

fn extract_with(
    input: impl Read,
    root: BorrowedFd<'_>,
    directory: &Path,
    itself: bool,
    policy: Policy,
    ends: bool,
) -> Result<Report, Error> {
    let limits = Limits::default();
    let (prefix, input) = peek(input)?;
    let Some(compression) = Compression::detect(&prefix) else {
        return Err(Error::Copy("unexpected EOF: the input is no tar archive".to_owned()));
    };
    let decoder = Decoder::new(compression, BufReader::with_capacity(256 << 10, input), &limits)?;
    let mut reader = Reader::new(decoder, limits);
    if !ends {
        reader = reader.end_optional();
    }
    let mut extract = Extract {
        place: Place::new(policy)?,
        root,
        base: directory.to_owned(),
        itself,
        last: None,
        directories: Vec::new(),
        report: Report { bytes: 1024, ..Report::default() },
    };
    while let Some(entry) = reader.next()? {
        extract.entry(&entry, &mut reader)?;
    }
    extract.finish()
}

struct Extract<'r> {
    place: Place,
    root: BorrowedFd<'r>,
    base: PathBuf,
    itself: bool,
    /// The directory of the entry before: the next one is mostly there too.
    last: Option<(Vec<u8>, OwnedFd)>,
    directories: Vec<(Vec<u8>, Attributes)>,
    report: Report,
}

impl Extract<'_> {
    fn full(&self, path: &[u8]) -> PathBuf {
        self.base.join(OsStr::from_bytes(path))
    }

    fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), Error> {
        let shown = hull_oci::spec::one_line(&String::from_utf8_lossy(&entry.path));
        let fail = |errno: Errno| Error::Io { operation: "extract", object: shown.clone(), source: errno.into() };
        let attributes = Attributes {
            mode: u32::from(entry.mode),
            uid: entry.uid,
            gid: entry.gid,
            mtime: Timespec { tv_sec: entry.mtime, tv_nsec: i64::from(entry.mtime_nsec) },
            xattrs: entry.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
        };
        if entry.path.is_empty() {
            if entry.kind == EntryKind::Directory && self.itself {
                self.remember(Vec::new(), attributes);
            }
            return Ok(());
        }
        let (above, name) = match entry.path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&entry.path[..slash], &entry.path[slash + 1..]),
            None => (&b""[..], &entry.path[..]),
        };
        let parent = match self.last.take() {
            Some((path, parent)) if path == above => parent,
            _ => {
                let mode = Mode::from_raw_mode(0o755);
                let found = inside::create_dir_all(self.root, &self.full(above), mode).map_err(fail)?;
                self.place.reopen(found.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY).map_err(fail)?
            }
        };
        let name = OsStr::from_bytes(name);
        self.make(entry, reader, parent.as_fd(), name, attributes)?;
        self.last = Some((above.to_vec(), parent));
        Ok(())
    }

    fn remember(&mut self, path: Vec<u8>, attributes: Attributes) {
        if self.directories.len() < MAX_DIRECTORIES {
            self.directories.push((path, attributes));
        }
    }

    fn make<R: Read>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R>,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        attributes: Attributes,
    ) -> Result<(), Error> {
        let path = Path::new(OsStr::from_bytes(&entry.path));
        let kind = match &entry.kind {
            EntryKind::Directory => FileType::Directory,
            EntryKind::Symlink(_) => FileType::Symlink,
            EntryKind::Character(..) => FileType::CharacterDevice,
            EntryKind::Block(..) => FileType::BlockDevice,
            EntryKind::Fifo => FileType::Fifo,
            EntryKind::File { .. } | EntryKind::HardLink(_) => FileType::RegularFile,
        };
        let fail = |errno: Errno| match errno {
            Errno::ISDIR | Errno::NOTDIR | Errno::EXIST | Errno::LOOP => mismatch(path, kind),
            errno => super::failed("extract", path)(errno),
        };
        let size = if let EntryKind::File { size, .. } = &entry.kind { *size } else { 0 };
        self.report.count(size);
        match &entry.kind {
            EntryKind::Directory => {
                let (made, _) = self.place.directory(parent, name).map_err(fail)?;
                self.place.set(made.as_fd(), kind, &attributes).map_err(fail)?;
                self.remember(entry.path.clone(), attributes);
            }
            EntryKind::File { .. } => {
                let mut content = reader.content(entry);
                let written = self
                    .place
                    .file(parent, name, &attributes, &mut |mut to: &File| io::copy(&mut content, &mut to).map(drop));
                written.map_err(|error| match Errno::from_io_error(&error) {
                    Some(errno) => fail(errno),
                    None => Error::Io { operation: "extract", object: path.display().to_string(), source: error },
                })?;
            }
            EntryKind::Symlink(target) => self.place.symlink(parent, name, target, &attributes).map_err(fail)?,
            EntryKind::HardLink(target) => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW;
                let found = inside::open(self.root, &*self.full(target), flags, Mode::empty()).map_err(fail)?;
                self.place.hard_link(parent, name, found.as_fd()).map_err(fail)?;
            }
            EntryKind::Fifo => self.place.special(parent, name, kind, 0, &attributes).map_err(fail)?,
            EntryKind::Character(major, minor) | EntryKind::Block(major, minor) => {
                if self.place.policy().devices {
                    let device = rustix::fs::makedev(*major, *minor);
                    self.place.special(parent, name, kind, device, &attributes).map_err(fail)?;
                } else {
                    self.report.leave_out(path);
                }
            }
        }
        Ok(())
    }

    /// The times of directories, which what was made in them has changed.
    fn finish(mut self) -> Result<Report, Error> {
        self.last = None;
        for (path, attributes) in std::mem::take(&mut self.directories).iter().rev() {
            let full = self.full(path);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            match inside::open(self.root, &*full, flags, Mode::empty()) {
                Ok(directory) => {
                    let set = self.place.set(directory.as_fd(), FileType::Directory, attributes);
                    set.map_err(super::failed("set attributes of", &full))?;
                }
                // A later entry, or somebody else, has replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(super::failed("open", &full)(errno)),
            }
        }
        Ok(self.report)
    }
}
