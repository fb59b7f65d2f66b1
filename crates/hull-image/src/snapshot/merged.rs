//! Layers seen as one tree without mounting anything: the rules of overlayfs, applied to single paths.
//!
//! Starting a container needs two small files of its image, and a comparison with an image needs single names of it. An
//! overlay for that would cost more than the look-ups: unmounting waits for all processors. Every step is one name below
//! an open directory, and symbolic links are followed by hand, so nothing of an image leads out of it.

use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::Error;

/// Symbolic links followed before a path is called a loop, as in the kernel.
const MAX_LINKS: usize = 40;

/// Names of one path, links included.
const MAX_NAMES: usize = 4096;

/// The name spaces that overlayfs's attributes can be in.
const PREFIXES: [&str; 2] = ["trusted.overlay.", "user.overlay."];

/// Layers, uppermost first.
#[derive(Clone, Debug)]
pub struct Merged {
    layers: Vec<Arc<OwnedFd>>,
    /// The layers down to the first that hides those below it.
    root: OnceLock<Vec<Arc<OwnedFd>>>,
}

/// A directory of the merged tree: its parts in the layers that have one, uppermost first.
#[derive(Debug)]
pub struct Directory(Vec<Arc<OwnedFd>>);

/// What a name is.
#[derive(Debug)]
pub enum Found {
    /// A directory.
    Directory(Directory),
    /// Anything else; the descriptor is `O_PATH`.
    Other(OwnedFd, Box<Stat>),
}

impl Found {
    /// What `stat` says.
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn stat(&self) -> Result<Stat, Errno> {
        match self {
            Self::Directory(directory) => directory.0.first().map_or(Err(Errno::NOENT), rustix::fs::fstat),
            Self::Other(_, stat) => Ok(**stat),
        }
    }

    /// A descriptor of what would be seen.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Directory(directory) => directory.0.first().map(|fd| fd.as_fd()),
            Self::Other(fd, _) => Some(fd.as_fd()),
        }
    }
}

/// `/proc/self/fd/N`, for what an `O_PATH` descriptor cannot do itself.
pub(crate) fn link_of(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// One of overlayfs's attributes of a file, in whichever name space it is.
pub(crate) fn overlay_attribute(fd: BorrowedFd<'_>, name: &str) -> Option<Vec<u8>> {
    let link = link_of(fd);
    PREFIXES.iter().find_map(|prefix| {
        let mut value = [0_u8; 64];
        let length = rustix::fs::getxattr(&link, format!("{prefix}{name}"), &mut value).ok()?;
        value.get(..length).map(<[u8]>::to_vec)
    })
}

/// Whether the file stands for the absence of its name.
pub fn is_whiteout(fd: BorrowedFd<'_>, stat: &Stat) -> bool {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => stat.st_rdev == 0,
        // The form for users that may not make devices (Linux 6.7).
        FileType::RegularFile => stat.st_size == 0 && overlay_attribute(fd, "whiteout").is_some(),
        _ => false,
    }
}

/// Whether the directory hides those below it.
pub fn is_opaque(fd: BorrowedFd<'_>) -> bool {
    overlay_attribute(fd, "opaque").is_some_and(|value| value == b"y")
}

impl Merged {
    /// The layers of an image, uppermost first.
    #[must_use]
    pub fn new(layers: Vec<Arc<OwnedFd>>) -> Self {
        Self { layers, root: OnceLock::new() }
    }

    /// The directory that everything is in.
    #[must_use]
    pub fn root(&self) -> Directory {
        let visible = || {
            // A single layer hides nothing.
            let many = self.layers.len() > 1;
            let hiding = self.layers.iter().position(|layer| many && is_opaque(layer.as_fd()));
            self.layers[..hiding.map_or(self.layers.len(), |last| last + 1)].to_vec()
        };
        Directory(self.root.get_or_init(visible).clone())
    }

    /// Finds a path without following any link; `None` when it does not exist.
    ///
    /// # Errors
    /// As `openat(2)`.
    pub fn find(&self, path: &Path) -> Result<Option<Found>, Error> {
        let fail = |errno: Errno| Error::io("look up", path)(errno);
        let mut found = Found::Directory(self.root());
        for name in path.components().filter_map(normal) {
            let Found::Directory(directory) = &found else { return Ok(None) };
            match directory.child(name).map_err(fail)? {
                Some(next) => found = next,
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// Finds a path as a process in the container would: links are followed, and `..` of the root is the root.
    fn resolve(&self, path: &Path) -> Result<Option<Found>, Errno> {
        let mut pending: Vec<OsString> = Vec::new();
        push(&mut pending, path.as_os_str().as_bytes())?;
        let mut walked: Vec<Directory> = Vec::new();
        let root = self.root();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                walked.pop();
                continue;
            }
            let Some(found) = walked.last().unwrap_or(&root).child(&name)? else { return Ok(None) };
            match found {
                Found::Directory(directory) => walked.push(directory),
                Found::Other(fd, stat) if FileType::from_raw_mode(stat.st_mode).is_symlink() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = rustix::fs::readlinkat(&fd, c"", Vec::new())?;
                    if target.as_bytes().first() == Some(&b'/') {
                        walked.clear();
                    }
                    push(&mut pending, target.as_bytes())?;
                }
                found if pending.is_empty() => return Ok(Some(found)),
                Found::Other(..) => return Ok(None),
            }
        }
        Ok(Some(Found::Directory(walked.pop().unwrap_or(root))))
    }

    /// Reads a regular file of at most `max` bytes; `None` when it does not exist.
    ///
    /// # Errors
    /// When it is longer, no regular file, or cannot be read.
    pub fn read(&self, path: &Path, max: usize) -> Result<Option<Vec<u8>>, Error> {
        let fail = |errno: Errno| Error::io("read from the image", path)(errno);
        let Some(found) = self.resolve(path).map_err(fail)? else { return Ok(None) };
        let Found::Other(fd, stat) = found else { return Err(fail(Errno::ISDIR)) };
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(fail(Errno::INVAL));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, link_of(fd.as_fd()), flags, Mode::empty()).map_err(fail)?;
        let mut bytes = Vec::new();
        let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        std::fs::File::from(file)
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read from the image", path))?;
        if bytes.len() > max { Err(fail(Errno::FBIG)) } else { Ok(Some(bytes)) }
    }
}

impl Directory {
    /// What a name in it is; `None` when there is none or it was removed.
    ///
    /// # Errors
    /// As `openat(2)`.
    pub fn child(&self, name: &OsStr) -> Result<Option<Found>, Errno> {
        let mut parts: Vec<Arc<OwnedFd>> = Vec::new();
        for part in &self.0 {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match rustix::fs::openat(part, name, flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            let stat = rustix::fs::fstat(&fd)?;
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                let last = self.0.len() == 1 || is_opaque(fd.as_fd());
                parts.push(Arc::new(fd));
                if last {
                    break;
                }
            } else if parts.is_empty() && !is_whiteout(fd.as_fd(), &stat) {
                return Ok(Some(Found::Other(fd, Box::new(stat))));
            } else {
                break;
            }
        }
        Ok((!parts.is_empty()).then_some(Found::Directory(Self(parts))))
    }

    /// The names in it, sorted, without those that were removed.
    ///
    /// # Errors
    /// As `getdents64(2)`.
    pub fn names(&self) -> Result<Vec<OsString>, Errno> {
        let mut all: Vec<OsString> = Vec::new();
        for part in &self.0 {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let readable = rustix::fs::openat(part, c".", flags, Mode::empty())?;
            for entry in rustix::fs::Dir::new(readable)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    all.push(OsString::from_vec(name));
                }
            }
        }
        all.sort();
        all.dedup();
        let mut names = Vec::new();
        for name in all {
            if self.child(&name)?.is_some() {
                names.push(name);
            }
        }
        Ok(names)
    }
}

fn normal(component: std::path::Component<'_>) -> Option<&OsStr> {
    match component {
        std::path::Component::Normal(name) => Some(name),
        _ => None,
    }
}

/// Names in reverse order, so that the next one is popped from the end.
fn push(pending: &mut Vec<OsString>, path: &[u8]) -> Result<(), Errno> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    let start = pending.len();
    pending.extend(names.map(|name| PathBuf::from(OsStr::from_bytes(name)).into_os_string()));
    pending[start..].reverse();
    if pending.len() > MAX_NAMES { Err(Errno::NAMETOOLONG) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Layers from files with content; a content of `WHITEOUT` is one.
    fn layers(list: &[&[(&str, &str)]]) -> (tempfile::TempDir, Merged) {
        let directory = tempfile::tempdir().unwrap();
        let mut fds = Vec::new();
        for (number, files) in list.iter().enumerate() {
            let root = directory.path().join(number.to_string());
            fs::create_dir(&root).unwrap();
            for (path, content) in *files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                match (*content, content.strip_prefix("-> ")) {
                    ("WHITEOUT", _) => {
                        let mode = Mode::from_raw_mode(0);
                        rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, 0).unwrap();
                    }
                    (_, Some(target)) => symlink(target, &path).unwrap(),
                    _ => fs::write(&path, content).unwrap(),
                }
            }
            fds.push(Arc::new(OwnedFd::from(fs::File::open(&root).unwrap())));
        }
        (directory, Merged::new(fds))
    }

    fn text(merged: &Merged, path: &str) -> Option<String> {
        merged.read(Path::new(path), 100).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn upper_names_hide_lower_ones() {
        let (_directory, merged) = layers(&[
            &[("etc/a", "new"), ("etc/gone", "WHITEOUT"), ("replaced", "file"), ("bin", "-> usr/bin")],
            &[("etc/a", "old"), ("etc/b", "below"), ("etc/gone", "x"), ("replaced/x", "x"), ("usr/bin/sh", "sh")],
        ]);
        assert_eq!(text(&merged, "etc/a").as_deref(), Some("new"));
        assert_eq!(text(&merged, "/etc/../etc/./b").as_deref(), Some("below"));
        assert_eq!(text(&merged, "etc/gone"), None);
        assert_eq!(text(&merged, "replaced/x"), None);
        assert_eq!(text(&merged, "bin/sh").as_deref(), Some("sh"));
        assert!(matches!(merged.find(Path::new("bin")).unwrap(), Some(Found::Other(..))));
        let Some(Found::Directory(etc)) = merged.find(Path::new("etc")).unwrap() else { panic!("a directory") };
        assert_eq!(etc.names().unwrap(), ["a", "b"]);
    }

    #[test]
    fn links_stay_inside() {
        let outside = "-> ../../../../../../../../etc/hostname";
        let (_directory, merged) = layers(&[&[
            ("loop", "-> loop"),
            ("out", outside),
            ("abs", "-> /in"),
            ("in", "ok"),
            ("big", &"x".repeat(101)),
        ]]);
        assert!(merged.read(Path::new("loop"), 10).is_err());
        assert_eq!(text(&merged, "out"), None);
        assert_eq!(text(&merged, "abs").as_deref(), Some("ok"));
        assert!(merged.read(Path::new("big"), 100).is_err());
        assert!(merged.read(Path::new("/"), 100).is_err());
    }
}
