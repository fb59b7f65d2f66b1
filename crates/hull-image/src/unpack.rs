//! Tar archives into a directory, without ever leaving it.
//!
//! Every entry is hostile. Paths are resolved component by component below the directory's descriptor with
//! `openat2(2)`, refusing symbolic links on the way: an archive made from a tree never needs to write through one.
//! Names must be relative without `..`; hard links only reach what the archive made; sizes, counts and extended headers
//! are bounded. Extended headers are read here rather than by the archive crate, whose buffers grow with what an entry
//! claims. Of extended attributes only `security.capability` and `user.*` are taken.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use crate::Error;

/// Bounds of an archive.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 256 << 30, entries: 4_000_000 }
    }
}

const MAX_PATH: usize = 4096;
const MAX_EXTENDED: u64 = 1 << 20;

/// What the extended headers before an entry say about it.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// Unpacks an archive into an empty directory and returns the bytes of its files.
///
/// # Errors
/// [`Error::Entry`] naming the entry, [`Error::Archive`] when the stream is no archive or ends early.
pub fn unpack(reader: impl Read, directory: &OwnedFd, limits: Limits) -> Result<u64, Error> {
    let mut archive = tar::Archive::new(reader);
    let entries = archive.entries().map_err(|error| Error::Archive(error.to_string()))?.raw(true);
    let mut extended = Extended::default();
    let mut directories: Vec<(PathBuf, i64)> = Vec::new();
    let (mut bytes, mut count) = (0_u64, 0_u64);
    for entry in entries {
        let mut entry = entry.map_err(|error| Error::Archive(error.to_string()))?;
        count += 1;
        if count > limits.entries {
            return Err(Error::Archive(format!("more than {} entries", limits.entries)));
        }
        let kind = entry.header().entry_type();
        match kind {
            EntryType::XGlobalHeader => continue,
            EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink => {
                read_extended(&mut entry, kind, &mut extended)?;
                continue;
            }
            _ => {}
        }
        let known = std::mem::take(&mut extended);
        let raw = known.path.clone().unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let path = relative(&raw)?;
        let size = entry.header().entry_size().map_err(|error| wrong(&path, error))?;
        bytes = bytes.saturating_add(if kind.is_file() { size } else { 0 });
        if bytes > limits.bytes {
            return Err(Error::Archive(format!("more than {} bytes of files", limits.bytes)));
        }
        let mtime = known.mtime.unwrap_or_else(|| i64::try_from(entry.header().mtime().unwrap_or(0)).unwrap_or(0));
        if kind == EntryType::Directory {
            directories.push((path.clone(), mtime));
        }
        place(&mut entry, kind, &path, &known, mtime, directory.as_fd())?;
    }
    // Last, because making a file changes its directory's time.
    for (path, mtime) in directories.iter().rev() {
        if let Ok(made) = open_beneath(directory.as_fd(), path, OFlags::DIRECTORY) {
            let _ = rustix::fs::futimens(&made, &times(*mtime));
        }
    }
    Ok(bytes)
}

fn wrong(path: &Path, reason: impl ToString) -> Error {
    let mut entry = path.display().to_string();
    if entry.len() > 200 {
        entry = entry.chars().take(200).collect();
    }
    Error::Entry { entry, reason: reason.to_string() }
}

fn times(mtime: i64) -> Timestamps {
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// The path without leading slashes and `.` components; `..` is refused.
fn relative(raw: &[u8]) -> Result<PathBuf, Error> {
    let shown = Path::new(OsStr::from_bytes(raw));
    if raw.len() > MAX_PATH || raw.contains(&0) {
        return Err(wrong(shown, format!("the path is longer than {MAX_PATH} bytes or has a null byte")));
    }
    let mut path = PathBuf::new();
    for part in raw.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(wrong(shown, "the path leads out of the archive")),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

fn read_extended(entry: &mut impl Read, kind: EntryType, extended: &mut Extended) -> Result<(), Error> {
    let mut data = Vec::new();
    entry.take(MAX_EXTENDED + 1).read_to_end(&mut data).map_err(|error| Error::Archive(error.to_string()))?;
    if data.len() as u64 > MAX_EXTENDED {
        return Err(Error::Archive(format!("an extended header has more than {MAX_EXTENDED} bytes")));
    }
    if kind != EntryType::XHeader {
        let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
        data.truncate(end);
        let field = if kind == EntryType::GNULongName { &mut extended.path } else { &mut extended.link };
        *field = Some(data);
        return Ok(());
    }
    let mut rest = data.as_slice();
    while !rest.is_empty() {
        let (key, value, length) = pax_record(rest)
            .ok_or_else(|| Error::Archive("an extended header is not made of LENGTH KEY=VALUE records".to_owned()))?;
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.split('.').next()?.parse::<i64>().ok());
        match key {
            "path" => extended.path = Some(value.to_vec()),
            "linkpath" => extended.link = Some(value.to_vec()),
            "uid" => extended.uid = number().and_then(|id| u64::try_from(id).ok()),
            "gid" => extended.gid = number().and_then(|id| u64::try_from(id).ok()),
            "mtime" => extended.mtime = number(),
            // The stream is cut by the plain header; another size here would hide entries from one reader or the other.
            "size" => return Err(Error::Archive("entries above 8 GiB are not supported".to_owned())),
            sparse if sparse.starts_with("GNU.sparse") => {
                return Err(Error::Archive(
                    "sparse entries are not supported: make the archive without --sparse".to_owned(),
                ));
            }
            other => {
                if let Some(name) = other.strip_prefix("SCHILY.xattr.")
                    && (name == "security.capability" || name.starts_with("user."))
                    && extended.xattrs.len() < 64
                {
                    extended.xattrs.push((name.to_owned(), value.to_vec()));
                }
            }
        }
        rest = &rest[length..];
    }
    Ok(())
}

/// One `LENGTH KEY=VALUE\n` record: key, value, and the record's whole length.
fn pax_record(data: &[u8]) -> Option<(&str, &[u8], usize)> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let record = data.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((std::str::from_utf8(&record[..equals]).ok()?, &record[equals + 1..], length))
}

fn open_beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The directory that holds the path's last component, made where missing.
fn parent(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let parent = path.parent().unwrap_or(Path::new(""));
    match open_beneath(root, parent, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let mut current = open_beneath(root, Path::new(""), OFlags::PATH | OFlags::DIRECTORY)?;
    for part in parent.components() {
        match rustix::fs::mkdirat(&current, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        current = open_beneath(current.as_fd(), Path::new(part.as_os_str()), OFlags::PATH | OFlags::DIRECTORY)?;
    }
    Ok(current)
}

/// Makes one entry. A later entry of the same path replaces the earlier one, except that directories are merged.
fn place(
    entry: &mut tar::Entry<'_, impl Read>,
    kind: EntryType,
    path: &Path,
    extended: &Extended,
    mtime: i64,
    root: BorrowedFd<'_>,
) -> Result<(), Error> {
    let fail = |operation: &'static str| move |errno: Errno| wrong(path, format!("{operation}: {errno}"));
    let header = entry.header().clone();
    let mode = Mode::from_raw_mode(header.mode().map_err(|error| wrong(path, error))? & 0o7777);
    let id = |extended: Option<u64>, header: std::io::Result<u64>, what: &str| {
        let id = extended.or(header.ok()).unwrap_or(0);
        u32::try_from(id)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| wrong(path, format!("{what} {id} is out of range")))
    };
    let owner = (id(extended.uid, header.uid(), "user")?, id(extended.gid, header.gid(), "group")?);
    let Some(name) = path.file_name() else {
        // The root itself: only its attributes matter.
        let made = open_beneath(root, path, OFlags::DIRECTORY).map_err(fail("open"))?;
        return attributes(&made, owner, mode, extended, mtime, path);
    };
    let parent = parent(root, path).map_err(|errno| match errno {
        Errno::LOOP | Errno::XDEV => wrong(path, "the path leads through a symbolic link"),
        errno => wrong(path, format!("open parent: {errno}")),
    })?;
    if kind == EntryType::Directory {
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(fail("create directory")(errno)),
        }
        let made = open_beneath(parent.as_fd(), Path::new(name), OFlags::DIRECTORY).map_err(fail("open directory"))?;
        return attributes(&made, owner, mode, extended, mtime, path);
    }
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(Errno::ISDIR) => return Err(wrong(path, "an earlier entry made it a directory")),
        Err(errno) => return Err(fail("replace")(errno)),
    }
    let link = || {
        let target = extended.link.clone().or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        target
            .filter(|target| !target.is_empty() && target.len() <= MAX_PATH && !target.contains(&0))
            .ok_or_else(|| wrong(path, "the link has no target, or one that is too long"))
    };
    match kind {
        EntryType::Regular | EntryType::Continuous => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600)).map_err(fail("create"))?;
            let mut file = std::fs::File::from(file);
            let expected = header.entry_size().unwrap_or(0);
            let copied = std::io::copy(entry, &mut file).map_err(|error| wrong(path, error))?;
            if copied != expected {
                return Err(wrong(path, "the archive ends in the middle of the file"));
            }
            file.flush().map_err(|error| wrong(path, error))?;
            attributes(&file, owner, mode, extended, mtime, path)
        }
        EntryType::Symlink => {
            let target = link()?;
            rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, name).map_err(fail("create link"))?;
            change_owner(&parent, name, owner).map_err(fail("change owner"))
        }
        EntryType::Link => {
            let target = relative(&link()?)?;
            let target_name = target.file_name().ok_or_else(|| wrong(path, "the hard link's target is the root"))?;
            let directory = target.parent().unwrap_or(Path::new(""));
            let directory = open_beneath(root, directory, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(|errno| wrong(path, format!("hard link's target {}: {errno}", target.display())))?;
            rustix::fs::linkat(&directory, target_name, &parent, name, AtFlags::empty())
                .map_err(|errno| wrong(path, format!("hard link to {}: {errno}", target.display())))
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => {
            let number = |field: std::io::Result<Option<u32>>| field.ok().flatten().unwrap_or(0);
            let device = rustix::fs::makedev(number(header.device_major()), number(header.device_minor()));
            let (file_type, device) = match kind {
                EntryType::Char => (FileType::CharacterDevice, device),
                EntryType::Block => (FileType::BlockDevice, device),
                _ => (FileType::Fifo, 0),
            };
            match rustix::fs::mknodat(&parent, name, file_type, mode, device) {
                // Only the machine's root makes device nodes; a container gets its own in any case.
                Err(Errno::PERM) if file_type != FileType::Fifo => return Ok(()),
                result => result.map_err(fail("create node"))?,
            }
            change_owner(&parent, name, owner).map_err(fail("change owner"))?;
            rustix::fs::chmodat(&parent, name, mode, AtFlags::empty()).map_err(fail("change mode"))
        }
        EntryType::GNUSparse => Err(wrong(path, "sparse entries are not supported: make the archive without --sparse")),
        other => Err(wrong(path, format!("unknown entry type {:?}", char::from(other.as_byte())))),
    }
}

fn ids(owner: (u32, u32)) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))
}

/// Without the privilege to give files away they stay the caller's.
fn tolerate(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => Ok(()),
        other => other,
    }
}

fn change_owner(parent: &OwnedFd, name: &OsStr, owner: (u32, u32)) -> Result<(), Errno> {
    let (uid, gid) = ids(owner);
    tolerate(rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW))
}

/// Owner first, because changing it clears set-user-ID bits and capabilities.
fn attributes(
    file: &impl AsFd,
    owner: (u32, u32),
    mode: Mode,
    extended: &Extended,
    mtime: i64,
    path: &Path,
) -> Result<(), Error> {
    let fail = |operation: &'static str| move |errno: Errno| wrong(path, format!("{operation}: {errno}"));
    let (uid, gid) = ids(owner);
    tolerate(rustix::fs::fchown(file, uid, gid)).map_err(fail("change owner"))?;
    rustix::fs::fchmod(file, mode).map_err(fail("change mode"))?;
    for (name, value) in &extended.xattrs {
        match rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(wrong(path, format!("set attribute {name}: {errno}"))),
        }
    }
    rustix::fs::futimens(file, &times(mtime)).map_err(fail("set time"))
}

#[cfg(test)]
mod tests;
