//! What a layer is going to be: changes onto a base, in memory, without the contents of files.
//!
//! Directories of the base are taken in with their own attributes as soon as something is looked for in them; only those
//! that something was done to or in are written.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use hull_layer::tree::Extent;
use rustix::io::Errno;

use super::error::{Error, absolute};
use super::tree::{FileTree, Handle, Kind, MAX_PATH, Meta, Xattrs, follow, join, raw_components};

/// Symbolic links followed before a path is called a loop.
const MAX_LINKS: usize = 40;
/// A name that begins so says something else in a layer.
const WHITEOUT: &[u8] = b".wh.";

/// What is kept of a name beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Permission bits with set-user-ID, set-group-ID and sticky.
    pub(super) mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification: seconds since 1970, nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes, sorted.
    pub xattrs: Xattrs,
}

/// A directory of the layer.
#[derive(Debug)]
pub(super) struct Directory {
    /// Its own.
    pub attributes: Attributes,
    /// What is in it, as far as it is known.
    pub children: BTreeMap<Vec<u8>, Entry>,
    /// It as the base has it.
    below: Option<Handle>,
    /// It is made or changed itself.
    pub changed: bool,
}

/// A name in a directory.
#[derive(Debug)]
pub(super) enum Entry {
    /// A directory.
    Directory(Directory),
    /// Anything else: it is new.
    Other(Other),
}

/// A new name that is no directory.
#[derive(Clone, Debug)]
pub(super) struct Other {
    /// Its own.
    pub attributes: Attributes,
    /// What it is.
    pub what: What,
    /// Names with the same number are one file.
    pub file: Option<u64>,
}

/// What a new name is.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// Where they are.
        content: Content,
    },
    /// A symbolic link to this text.
    Symlink(Vec<u8>),
    /// A character device.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Where a file's content is.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Here.
    Bytes(Arc<[u8]>),
    /// In the tree of an action.
    Tree {
        /// Which action.
        action: usize,
        /// The path in its tree.
        path: Vec<u8>,
        /// What it was when it was selected.
        meta: Meta,
    },
    /// In a tar.
    Archive {
        /// The tar.
        file: Arc<File>,
        /// Where in it.
        extents: Arc<[Extent]>,
    },
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory,
    /// A symbolic link with this text.
    Symlink(Vec<u8>),
    /// Anything else.
    Other,
}

/// Changes onto a base.
pub(super) struct Onto<'t> {
    base: Option<&'t dyn FileTree>,
    /// The root directory.
    pub root: Directory,
    files: u64,
}

impl std::fmt::Debug for Onto<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Onto").field("root", &self.root).finish_non_exhaustive()
    }
}

impl<'t> Onto<'t> {
    /// No changes yet.
    ///
    /// # Errors
    /// When the base cannot be opened.
    pub(super) fn new(base: Option<&'t dyn FileTree>) -> Result<Self, Error> {
        let below = match base {
            Some(base) => Some(base.root().map_err(Error::io("open", base.origin()))?.0),
            None => None,
        };
        let attributes = Attributes { mode: 0o755, ..Attributes::default() };
        let root = Directory { attributes, children: BTreeMap::new(), below, changed: false };
        Ok(Self { base, root, files: 0 })
    }

    /// A number for names that are one file.
    pub(super) fn file(&mut self) -> u64 {
        self.files += 1;
        self.files
    }

    /// A directory that is there, by a path without links.
    ///
    /// # Errors
    /// When the base cannot be read.
    pub(super) fn directory(&mut self, path: &[Vec<u8>]) -> Result<Option<&mut Directory>, Error> {
        let mut at = &mut self.root;
        for (depth, name) in path.iter().enumerate() {
            if !at.children.contains_key(name) {
                let loaded =
                    load(self.base, at.below.as_ref(), name).map_err(Error::at("read", &join(&path[..=depth])))?;
                let Some(loaded) = loaded else { return Ok(None) };
                at.children.insert(name.clone(), Entry::Directory(loaded));
            }
            match at.children.get_mut(name) {
                Some(Entry::Directory(directory)) => at = directory,
                _ => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// What a path without links on the way leads to.
    ///
    /// # Errors
    /// When the base cannot be read.
    pub(super) fn see(&mut self, path: &[Vec<u8>]) -> Result<Seen, Error> {
        let base = self.base;
        let Some((name, parent)) = path.split_last() else { return Ok(Seen::Directory) };
        let failed = |errno: Errno| Error::at("read", &join(path))(errno);
        let Some(parent) = self.directory(parent)? else { return Ok(Seen::Nothing) };
        match parent.children.get(name) {
            Some(Entry::Directory(_)) => return Ok(Seen::Directory),
            Some(Entry::Other(other)) => {
                return Ok(match &other.what {
                    What::Symlink(target) => Seen::Symlink(target.clone()),
                    _ => Seen::Other,
                });
            }
            None => {}
        }
        let (Some(base), Some(below)) = (base, parent.below.as_ref()) else { return Ok(Seen::Nothing) };
        Ok(match base.stat(below, name).map_err(failed)?.map(|meta| meta.kind) {
            None => Seen::Nothing,
            Some(Kind::Directory) => Seen::Directory,
            Some(Kind::Symlink) => Seen::Symlink(base.read_link(below, name).map_err(failed)?),
            Some(_) => Seen::Other,
        })
    }

    /// Follows the links of a path as if `top` were the root. What does not exist is taken as it is written.
    ///
    /// # Errors
    /// When links go round in circles, or the base cannot be read.
    pub(super) fn resolve(&mut self, top: &[Vec<u8>], path: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let failed = |errno: Errno| Error::at("look up", path)(errno);
        let mut pending = raw_components(path);
        pending.reverse();
        let mut whole = top.to_vec();
        let mut walked: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == b".." {
                walked.pop();
                continue;
            }
            whole.truncate(top.len());
            whole.extend(walked.iter().cloned());
            whole.push(name.clone());
            match self.see(&whole)? {
                Seen::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(failed(Errno::LOOP));
                    }
                    follow(&target, &mut walked, &mut pending).map_err(failed)?;
                }
                _ => walked.push(name),
            }
        }
        let mut whole = top.to_vec();
        whole.append(&mut walked);
        Ok(whole)
    }

    /// Makes what is missing of a path without links. Returns whether the last directory was made.
    ///
    /// # Errors
    /// When something on the way is no directory.
    pub(super) fn make_directories(&mut self, path: &[Vec<u8>], attributes: &Attributes) -> Result<bool, Error> {
        let mut made = false;
        for length in 1..=path.len() {
            let path = &path[..length];
            match self.see(path)? {
                Seen::Directory => made = false,
                Seen::Nothing => {
                    self.insert(path, Entry::Directory(new_directory(attributes.clone())))?;
                    made = true;
                }
                _ => return Err(Error::Refused(format!("mkdir {}: not a directory", absolute(&join(path))))),
            }
        }
        Ok(made)
    }

    /// Makes a directory or changes it; its parent is there.
    ///
    /// # Errors
    /// When something else is there.
    pub(super) fn put_directory(&mut self, path: &[Vec<u8>], attributes: Attributes) -> Result<(), Error> {
        match self.see(path)? {
            Seen::Directory => {
                if let Some(directory) = self.directory(path)? {
                    directory.attributes = attributes;
                    directory.changed = true;
                }
                Ok(())
            }
            Seen::Nothing => self.insert(path, Entry::Directory(new_directory(attributes))),
            _ => Err(Error::Refused(format!("cannot copy to non-directory: {}", absolute(&join(path))))),
        }
    }

    /// Puts a new name where there is no directory; its parent is there.
    ///
    /// # Errors
    /// When there is a directory.
    pub(super) fn put(&mut self, path: &[Vec<u8>], other: Other) -> Result<(), Error> {
        if self.see(path)? == Seen::Directory {
            let text = format!("cannot replace to directory {} with file", absolute(&join(path)));
            return Err(Error::Refused(text));
        }
        self.insert(path, Entry::Other(other))
    }

    /// Puts a name, whatever was there; its parent is there.
    ///
    /// # Errors
    /// When a layer cannot have such a name.
    pub(super) fn insert(&mut self, path: &[Vec<u8>], entry: Entry) -> Result<(), Error> {
        let Some((name, parent)) = path.split_last() else {
            return Err(Error::Refused("the root directory cannot be replaced".to_owned()));
        };
        let text = || absolute(&join(path));
        if name.starts_with(WHITEOUT) {
            return Err(Error::Refused(format!("{}: a layer cannot have a name that begins with `.wh.`", text())));
        }
        if name.len() > 255 || path.iter().map(|name| name.len() + 1).sum::<usize>() > MAX_PATH {
            return Err(Error::at("write", &join(path))(Errno::NAMETOOLONG));
        }
        let Some(directory) = self.directory(parent)? else {
            return Err(Error::Refused(format!("{}: not a directory", text())));
        };
        directory.children.insert(name.clone(), entry);
        Ok(())
    }
}

/// A directory that the base does not have.
#[must_use]
pub(super) fn new_directory(attributes: Attributes) -> Directory {
    Directory { attributes, children: BTreeMap::new(), below: None, changed: true }
}

/// A directory of the base as it is.
fn load(base: Option<&dyn FileTree>, parent: Option<&Handle>, name: &[u8]) -> Result<Option<Directory>, Errno> {
    let (Some(base), Some(parent)) = (base, parent) else { return Ok(None) };
    let Some(meta) = base.stat(parent, name)?.filter(Meta::is_dir) else { return Ok(None) };
    let attributes = Attributes {
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        mtime: meta.mtime,
        xattrs: base.xattrs(parent, name)?,
    };
    let below = Some(base.enter(parent, name)?);
    Ok(Some(Directory { attributes, children: BTreeMap::new(), below, changed: false }))
}

impl Directory {
    /// Whether anything in it or of it is to be written.
    #[must_use]
    pub(super) fn is_needed(&self) -> bool {
        self.changed
            || self.children.values().any(|child| match child {
                Entry::Directory(directory) => directory.is_needed(),
                Entry::Other(_) => true,
            })
    }
}
