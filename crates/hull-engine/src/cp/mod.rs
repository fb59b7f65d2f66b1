//! `cp`: files between the host and a container, running or not, with Docker's rules of what goes where.
//!
//! The container's side is hostile while it runs: links are exchanged for directories under the copy's hands. Its files
//! are what it sees itself, volumes included ([`view`]); every path of it is looked up as if its root were `/`
//! (`RESOLVE_IN_ROOT`), and what was found is used by descriptor ([`crate::copy`]). Nothing of the container is
//! executed or loaded: archives and names are dealt with in this process.
//!
//! ```text
//! destination      source is a file         source is a directory
//! directory        file in it               directory in it; with `/.` what is in the directory
//! file             replaced                 refused
//! nothing, `/`     refused                  made
//! nothing          made                     made
//! ```
//!
//! Files keep their owners on the way into a container; on the way out they are the caller's, without set-user-ID
//! bits, unless `-a` asks for the owners. Devices are not made on the host.

mod view;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufWriter, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use hull_fs::inside;
use hull_layer::tar::{Writer, walk};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::copy::place::{Existing, Policy, Users};
use crate::copy::{self, Report, extract};
use crate::error::Error;
use crate::records::{Container, Engine};

/// Symbolic links followed by hand.
const MAX_LINKS: usize = 40;

/// What `cp` is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// `-a`: owners stay on the way out too.
    pub archive: bool,
    /// `-L`: a source that is a link means what it leads to.
    pub follow: bool,
}

/// How an archive is put into a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extraction {
    /// A directory is not replaced by anything else, nor anything else by a directory.
    pub keep_kinds: bool,
    /// Everything belongs to the container's user.
    pub own: bool,
}

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes of the archive that Docker would have made of it.
    pub bytes: u64,
    /// Sockets, and devices on the way out: the first of them.
    pub left_out: Vec<PathBuf>,
    /// How many there are of them.
    pub left_out_count: u64,
}

impl From<Report> for Copied {
    fn from(report: Report) -> Self {
        Self { bytes: report.bytes, left_out: report.left_out, left_out_count: report.left_out_count }
    }
}

/// Into a container.
fn inwards(first_id: u32) -> Policy {
    let root = rustix::process::geteuid().is_root();
    Policy {
        existing: Existing::Replace,
        owners: true,
        devices: root,
        raw: false,
        owner: None,
        users: Users { from: 0, to: first_id },
    }
}

/// Onto the host.
fn outwards(options: Options, first_id: u32) -> Policy {
    let users = Users { from: first_id, to: 0 };
    Policy { existing: Existing::Replace, owners: options.archive, devices: false, raw: false, owner: None, users }
}

fn refused(reason: impl Into<String>) -> Error {
    Error::Copy(hull_oci::spec::one_line(&reason.into()))
}

/// A path that says of itself that it is a directory.
fn asserts_directory(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.") || path == "." || path == ".."
}

/// A path whose content is meant, not itself.
fn means_content(path: &str) -> bool {
    path.ends_with("/.") || path == "."
}

/// The name that a copy of a path gets.
fn base(path: &str) -> OsString {
    let cleaned = crate::volumes::mounts::clean(path);
    Path::new(&cleaned).file_name().map_or_else(|| OsString::from("/"), OsStr::to_owned)
}

fn is_directory(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    inside::file_type(file).map(FileType::is_dir)
}

/// Where a copy goes.
enum Destination {
    /// An existing directory.
    Directory(OwnedFd),
    /// A name in a directory, and whether something other than a directory has it.
    Name { parent: OwnedFd, name: OsString, taken: bool },
}

/// What a path of a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStat {
    /// Last part of the path.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// As `st_mode` has it.
    pub mode: u32,
    /// Seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// Where a link leads to.
    pub target: String,
}

/// A container's files, from outside.
struct Side<'c> {
    container: &'c Container,
    root: OwnedFd,
    /// First of its users' IDs; 0 where they are the machine's.
    first_id: u32,
}

impl Side<'_> {
    /// Makes files: the file systems of a container with users of its own take only these as owners.
    fn as_root<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        if self.first_id == 0 {
            return work();
        }
        let done = hull_runtime::rootfs::as_somebody((self.first_id, self.first_id), || Ok::<_, Errno>(work()));
        done.map_err(|errno| Error::io("become root of", &self.container.name)(errno))?
    }

    fn missing(&self, path: &str) -> Error {
        refused(format!("Could not find the file {path} in container {}", self.container.name))
    }

    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        inside::open(self.root.as_fd(), path, OFlags::PATH | flags, Mode::empty())
    }

    /// What is copied out.
    fn source(&self, path: &str, options: Options) -> Result<OwnedFd, Error> {
        if path.is_empty() {
            return Err(refused("bad parameter: path cannot be empty"));
        }
        let directory = asserts_directory(path);
        let flags = if options.follow || directory { OFlags::empty() } else { OFlags::NOFOLLOW };
        let found = match self.open(Path::new(path), flags) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Err(self.missing(path)),
            Err(errno) => return Err(refused(format!("lstat {path}: {}", words(errno)))),
        };
        if directory && !is_directory(found.as_fd()).unwrap_or(false) {
            return Err(refused(format!("lstat {path}: not a directory")));
        }
        Ok(found)
    }

    fn stat(&self, found: &OwnedFd, path: &str) -> Result<PathStat, Error> {
        let fail = |errno: Errno| refused(format!("lstat {path}: {}", words(errno)));
        let stat = rustix::fs::fstat(found).map_err(fail)?;
        let mut target = String::new();
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let link = rustix::fs::readlinkat(found, c"", Vec::new()).map_err(fail)?;
            let whole = parent(&Path::new("/").join(path)).join(OsStr::from_bytes(link.as_bytes()));
            target = crate::volumes::mounts::clean(&whole.to_string_lossy());
        }
        Ok(PathStat {
            name: base(path).to_string_lossy().into_owned(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode,
            modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            target,
        })
    }

    /// User and group of the container's program, by the container's own files; `None` when nothing says who.
    fn user(&self, engine: &Engine) -> Result<Option<(u32, u32)>, Error> {
        let given = self.container.config.user.clone().filter(|text| !text.is_empty());
        let image = || engine.images.find(&self.container.image_id).ok().map(|image| image.config.config.user);
        let Some(text) = given.or_else(image).filter(|text| !text.is_empty()) else { return Ok(None) };
        let root = hull_fs::Root::from_fd(self.root.try_clone().map_err(Error::io("copy", "descriptor"))?);
        let user = hull_runtime::process::user::resolve(&root, &text);
        let user = user.map_err(|_| refused(format!("failed to look up user {text:?} in container")))?;
        Ok(Some((user.uid, user.gid)))
    }

    /// Writes what was found as an archive.
    fn stream(&self, found: OwnedFd, path: &str, output: impl Write) -> Result<walk::Report, Error> {
        let name = if means_content(path) { Vec::new() } else { base(path).into_vec() };
        let name = if name == b"/" { Vec::new() } else { name };
        let mut writer = Writer::new(BufWriter::with_capacity(256 << 10, output));
        let options = walk::Options { root: true, first_id: self.first_id, ..walk::Options::default() };
        let report = walk::write_found(&mut writer, found, &name, &options)?;
        let finished = writer.finish().and_then(|mut output| output.flush());
        finished.map_err(hull_layer::Error::file("write", "archive"))?;
        Ok(report)
    }

    /// Where a copy into the container goes. Links are followed, also one that leads nowhere yet.
    fn destination(&self, path: &str, from_directory: bool) -> Result<Destination, Error> {
        if path.is_empty() {
            return Err(refused("destination can not be empty"));
        }
        let fail = |errno: Errno| refused(format!("lstat {path}: {}", words(errno)));
        // Without a slash at the end, which would make the kernel follow and insist.
        let mut current: PathBuf = Path::new("/").join(path).components().collect();
        for _ in 0..MAX_LINKS {
            let found = match self.open(&current, OFlags::NOFOLLOW) {
                Err(Errno::NOENT) => None,
                Err(Errno::NOTDIR) if self.open(parent(&current), OFlags::empty()).is_ok() => {
                    return Err(refused("extraction point is not a directory"));
                }
                found => Some(found.map_err(fail)?),
            };
            let kind = found.as_ref().map(inside::file_type).transpose().map_err(fail)?;
            match (found, kind) {
                (Some(link), Some(FileType::Symlink)) => {
                    let target = rustix::fs::readlinkat(&link, c"", Vec::new()).map_err(fail)?;
                    current = parent(&current).join(OsStr::from_bytes(target.as_bytes()));
                }
                (Some(found), Some(FileType::Directory)) => return Ok(Destination::Directory(found)),
                (found, _) => {
                    let taken = found.is_some();
                    if asserts_directory(path) && (taken || !from_directory) {
                        return Err(refused("no such directory"));
                    }
                    if means_content(path) {
                        return Err(self.missing(path.trim_end_matches("/.")));
                    }
                    let above = match self.open(parent(&current), OFlags::DIRECTORY) {
                        Err(Errno::NOENT) => return Err(self.missing(&parent(&current).to_string_lossy())),
                        Err(Errno::NOTDIR) => return Err(refused("extraction point is not a directory")),
                        above => above.map_err(fail)?,
                    };
                    let name = current.file_name().ok_or_else(|| fail(Errno::INVAL))?.to_owned();
                    return Ok(Destination::Name { parent: above, name, taken });
                }
            }
        }
        Err(fail(Errno::LOOP))
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// The kernel's words for an error, as Go and so Docker has them.
fn words(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "no such file or directory".to_owned(),
        Errno::NOTDIR => "not a directory".to_owned(),
        Errno::LOOP => "too many levels of symbolic links".to_owned(),
        Errno::ACCESS => "permission denied".to_owned(),
        errno => std::io::Error::from(errno).to_string(),
    }
}

fn open_local(path: &Path, flags: OFlags) -> Result<OwnedFd, Error> {
    rustix::fs::openat(CWD, path, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
        let shown = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        refused(format!("lstat {}: {}", shown.display(), words(errno)))
    })
}

/// Where a copy onto the host goes.
fn local_destination(text: &str, from_directory: bool) -> Result<Destination, Error> {
    if text.is_empty() {
        return Err(refused("destination can not be empty"));
    }
    let mut current = PathBuf::from(text);
    for _ in 0..MAX_LINKS {
        // A trailing slash would follow the link.
        let plain: PathBuf = current.components().collect();
        match fs::symlink_metadata(&plain) {
            Ok(found) if found.is_symlink() => {
                let target = fs::read_link(&plain).map_err(Error::io("read link", &plain))?;
                current = plain.parent().unwrap_or(Path::new("")).join(target);
            }
            Ok(found) if found.is_dir() => {
                return Ok(Destination::Directory(open_local(&plain, OFlags::DIRECTORY)?));
            }
            found => {
                let taken = found.is_ok();
                if asserts_directory(text) && (taken || !from_directory) {
                    return Err(refused("no such directory"));
                }
                let above = match plain.parent() {
                    Some(above) if !above.as_os_str().is_empty() => above,
                    _ => Path::new("."),
                };
                if !above.is_dir() {
                    let shown = std::path::absolute(above).unwrap_or_else(|_| above.to_owned());
                    return Err(refused(format!("invalid output path: directory {shown:?} does not exist")));
                }
                let name = plain.file_name().ok_or_else(|| refused("no such directory"))?.to_owned();
                return Ok(Destination::Name { parent: open_local(above, OFlags::DIRECTORY)?, name, taken });
            }
        }
    }
    Err(refused(format!("lstat {text}: too many levels of symbolic links")))
}

/// Copies what was found to where it goes. `path` is what the source was called.
fn copy_found(found: &OwnedFd, path: &str, to: Destination, policy: Policy) -> Result<Report, Error> {
    let directory = is_directory(found.as_fd()).map_err(Error::io("look at", path))?;
    match to {
        Destination::Directory(to) if means_content(path) => {
            copy::contents(found.as_fd(), readable(&to)?.as_fd(), policy)
        }
        Destination::Directory(to) => {
            let name = base(path);
            if name == "/" {
                return copy::contents(found.as_fd(), readable(&to)?.as_fd(), policy);
            }
            copy::one(found.as_fd(), readable(&to)?.as_fd(), &name, policy)
        }
        Destination::Name { taken: true, .. } if directory => Err(refused("cannot copy directory")),
        Destination::Name { parent, name, .. } => copy::one(found.as_fd(), readable(&parent)?.as_fd(), &name, policy),
    }
}

/// The directory behind a descriptor that is only a place.
fn readable(directory: &OwnedFd) -> Result<OwnedFd, Error> {
    let procfs = hull_fs::Procfs::new()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    procfs.reopen(directory.as_fd(), flags).map_err(Error::io("open", "destination"))
}

/// Docker's words for what a container may not write either.
fn explain(error: Error, container: &Container) -> Error {
    match &error {
        Error::Io { source, .. } if source.raw_os_error() == Some(Errno::ROFS.raw_os_error()) => {
            refused(if container.config.read_only {
                "container rootfs is marked read-only"
            } else {
                "mounted volume is marked read-only"
            })
        }
        _ => error,
    }
}

impl Engine {
    fn side<'c>(&self, container: &'c Container) -> Result<Side<'c>, Error> {
        let (root, first_id) = self.view(container)?;
        Ok(Side { container, root, first_id })
    }

    /// Copies a file or directory of a container to the host.
    ///
    /// # Errors
    /// [`Error::Copy`] in Docker's words; what was copied before stays.
    pub fn copy_from(&self, container: &Container, path: &str, local: &str, options: Options) -> Result<Copied, Error> {
        let side = self.side(container)?;
        let found = side.source(path, options)?;
        let directory = is_directory(found.as_fd()).map_err(Error::io("look at", path))?;
        let to = local_destination(local, directory)?;
        copy_found(&found, path, to, outwards(options, side.first_id)).map(Copied::from)
    }

    /// Copies a file or directory of the host into a container.
    ///
    /// # Errors
    /// As [`Self::copy_from`].
    pub fn copy_to(&self, container: &Container, local: &str, path: &str, options: Options) -> Result<Copied, Error> {
        if local.is_empty() {
            return Err(refused("source can not be empty"));
        }
        let asserted = asserts_directory(local);
        let flags = if options.follow || asserted { OFlags::empty() } else { OFlags::NOFOLLOW };
        let found = match open_local(Path::new(local), flags) {
            Err(_) if asserted && Path::new(local.trim_end_matches(['/', '.'])).is_file() => {
                return Err(refused("not a directory"));
            }
            found => found?,
        };
        let directory = is_directory(found.as_fd()).map_err(Error::io("look at", local))?;
        // Only a path of its own has a name: `..` and links of directories have that of what they are.
        let name = match Path::new(local).file_name() {
            Some(_) => local.to_owned(),
            None if means_content(local) => local.to_owned(),
            None => fs::canonicalize(local).map_err(Error::io("open", local))?.to_string_lossy().into_owned(),
        };
        let side = self.side(container)?;
        let to = side.destination(path, directory)?;
        let report = side.as_root(|| copy_found(&found, &name, to, inwards(side.first_id)));
        report.map(Copied::from).map_err(|error| explain(error, container))
    }

    /// Writes a file or directory of a container as a tar archive.
    ///
    /// # Errors
    /// [`Error::Copy`] in Docker's words; when the output cannot be written.
    pub fn stream_from(
        &self,
        container: &Container,
        path: &str,
        options: Options,
        output: impl Write,
    ) -> Result<walk::Report, Error> {
        let side = self.side(container)?;
        let found = side.source(path, options)?;
        side.stream(found, path, output)
    }

    /// What a path of a container is.
    ///
    /// # Errors
    /// [`Error::Copy`] in Docker's words.
    pub fn path_stat(&self, container: &Container, path: &str) -> Result<PathStat, Error> {
        let side = self.side(container)?;
        side.stat(&side.source(path, Options::default())?, path)
    }

    /// As [`Self::stream_from`], after telling what the path is.
    ///
    /// # Errors
    /// As [`Self::stream_from`].
    pub fn stream_described(
        &self,
        container: &Container,
        path: &str,
        describe: &mut dyn FnMut(&PathStat),
        output: impl Write,
    ) -> Result<walk::Report, Error> {
        let side = self.side(container)?;
        let found = side.source(path, Options::default())?;
        describe(&side.stat(&found, path)?);
        side.stream(found, path, output)
    }

    /// Puts the files of a tar archive, compressed or not, into a directory of a container; what is wrong with the
    /// directory is told as the Engine API does.
    ///
    /// # Errors
    /// As [`Self::copy_to`]; when the archive is damaged, what came before stays.
    pub fn stream_into(
        &self,
        container: &Container,
        path: &str,
        extraction: Extraction,
        input: impl Read,
    ) -> Result<Copied, Error> {
        let side = self.side(container)?;
        let whole = Path::new("/").join(path);
        match side.open(&whole, OFlags::DIRECTORY) {
            Ok(_) => {}
            Err(Errno::NOTDIR) => return Err(refused("extraction point is not a directory")),
            Err(_) => return Err(side.missing(path)),
        }
        let existing = if extraction.keep_kinds { Existing::Replace } else { Existing::Force };
        let owner = if extraction.own { side.user(self)? } else { None };
        let policy = Policy { existing, owner, ..inwards(side.first_id) };
        let report = side.as_root(|| extract::extract_unended(input, side.root.as_fd(), &whole, policy));
        report.map(Copied::from).map_err(|error| explain(error, container))
    }

    /// Puts the files of a tar archive, compressed or not, into a directory of a container.
    ///
    /// # Errors
    /// As [`Self::copy_to`]; when the archive is damaged, what came before stays.
    pub fn stream_to(&self, container: &Container, path: &str, input: impl Read) -> Result<Copied, Error> {
        let side = self.side(container)?;
        let whole = Path::new("/").join(path);
        if path.is_empty() || side.open(&whole, OFlags::DIRECTORY).is_err() {
            return Err(refused(format!("destination \"{}:{path}\" must be a directory", container.name)));
        }
        let policy = inwards(side.first_id);
        let report = side.as_root(|| extract::extract(input, side.root.as_fd(), &whole, false, policy));
        report.map(Copied::from).map_err(|error| explain(error, container))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_they_mean() {
        for (path, directory, content, name) in [
            ("/a", false, false, "a"),
            ("a/b/", true, false, "b"),
            ("a/b/.", true, true, "b"),
            ("/../../a", false, false, "a"),
            ("/", true, false, "/"),
            (".", true, true, "/"),
        ] {
            assert_eq!((asserts_directory(path), means_content(path)), (directory, content), "{path}");
            assert_eq!(base(path), OsStr::new(name), "{path}");
        }
    }

    #[test]
    fn destinations_on_the_host() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        fs::write(path("file"), "x").expect("write");
        std::os::unix::fs::symlink("nowhere", path("dangling")).expect("symlink");
        std::os::unix::fs::symlink("loop", path("loop")).expect("symlink");
        let place = |name: &str, from_directory| local_destination(&path(name), from_directory);
        assert!(matches!(place("", false), Ok(Destination::Directory(_))));
        assert!(matches!(place("file", false), Ok(Destination::Name { taken: true, .. })));
        let Ok(Destination::Name { name, taken: false, .. }) = place("dangling", false) else { panic!("no name") };
        assert_eq!(name, "nowhere");
        assert!(matches!(place("new/", true), Ok(Destination::Name { taken: false, .. })));
        for (name, reason) in [
            ("new/", "no such directory"),
            ("file/", "no such directory"),
            ("no/x", "does not exist"),
            ("loop", "too many levels of symbolic links"),
        ] {
            let error = place(name, false).err().expect(reason).to_string();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }
}
