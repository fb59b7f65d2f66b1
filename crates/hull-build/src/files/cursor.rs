//! Places in trees: paths, with and without links.

use std::fs::File;

use rustix::io::Errno;

use super::error::Error;
use super::tree::{FileTree, Handle, Kind, Meta, follow, join, raw_components, split};

/// Symbolic links followed before a path is called a loop, as in the kernel.
const MAX_LINKS: usize = 40;

/// A path without links in it, and what is there.
#[derive(Debug)]
pub struct Resolved {
    /// The names down to it.
    pub path: Vec<Vec<u8>>,
    /// What it is.
    pub meta: Meta,
}

/// A place in a tree: the open directories down to it. Going to the next path opens only what differs.
pub struct Cursor<'t> {
    tree: &'t dyn FileTree,
    root: Handle,
    open: Vec<(Vec<u8>, Handle)>,
}

impl<'t> Cursor<'t> {
    /// At the root.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn new(tree: &'t dyn FileTree) -> Result<Self, Error> {
        let (root, _) = tree.root().map_err(Error::io("open", tree.origin()))?;
        Ok(Self { tree, root, open: Vec::new() })
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> &'t dyn FileTree {
        self.tree
    }

    /// Goes to a directory and opens it; no link is followed.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn go(&mut self, directory: &[Vec<u8>]) -> Result<&Handle, Errno> {
        self.walk(directory.iter().map(Vec::as_slice))
    }

    /// [`Self::go`] to a path whose names are joined by `/`.
    ///
    /// # Errors
    /// As [`Self::go`].
    pub fn go_to(&mut self, directory: &[u8]) -> Result<&Handle, Errno> {
        self.walk(directory.split(|byte| *byte == b'/').filter(|name| !name.is_empty()))
    }

    fn walk<'n>(&mut self, names: impl Iterator<Item = &'n [u8]> + Clone) -> Result<&Handle, Errno> {
        let same = self.open.iter().zip(names.clone()).take_while(|(open, name)| open.0 == *name).count();
        self.open.truncate(same);
        for name in names.skip(same) {
            let parent = self.open.last().map_or(&self.root, |(_, handle)| handle);
            let handle = self.tree.enter(parent, name)?;
            self.open.push((name.to_vec(), handle));
        }
        Ok(self.open.last().map_or(&self.root, |(_, handle)| handle))
    }

    /// Follows every link of a path, inside the tree. `None` if there is nothing.
    ///
    /// # Errors
    /// `ELOOP`, and when something cannot be looked at.
    pub fn resolve(&mut self, path: &[Vec<u8>]) -> Result<Option<Resolved>, Errno> {
        let mut pending: Vec<Vec<u8>> = path.iter().rev().cloned().collect();
        let mut walked: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        let mut meta = self.tree.root()?.1;
        while let Some(name) = pending.pop() {
            if name == b".." {
                walked.pop();
                continue;
            }
            if !meta.is_dir() {
                return Ok(None);
            }
            let directory = match self.go(&walked) {
                Ok(_) => self.open.last().map_or(&self.root, |(_, handle)| handle),
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(errno) => return Err(errno),
            };
            let Some(found) = self.tree.stat(directory, &name)? else { return Ok(None) };
            if found.kind == Kind::Symlink {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = self.tree.read_link(directory, &name)?;
                follow(&target, &mut walked, &mut pending)?;
                continue;
            }
            walked.push(name);
            meta = found;
            if !meta.is_dir() && !pending.is_empty() {
                return Ok(None);
            }
        }
        if meta.is_dir() {
            // `..` came back to another directory than was looked at last.
            let Some((name, parent)) = walked.split_last() else {
                return Ok(Some(Resolved { path: walked, meta: self.tree.root()?.1 }));
            };
            let name = name.clone();
            self.go(parent)?;
            let directory = self.open.last().map_or(&self.root, |(_, handle)| handle);
            let Some(found) = self.tree.stat(directory, &name)? else { return Ok(None) };
            meta = found;
        }
        Ok(Some(Resolved { path: walked, meta }))
    }

    /// What a path without links is.
    ///
    /// # Errors
    /// When something cannot be looked at.
    pub fn stat(&mut self, path: &[Vec<u8>]) -> Result<Option<Meta>, Errno> {
        let Some((name, parent)) = path.split_last() else { return Ok(Some(self.tree.root()?.1)) };
        let tree = self.tree;
        match self.go(parent) {
            Ok(directory) => tree.stat(directory, name),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Opens a regular file by a path without links, its names joined by `/`.
    ///
    /// # Errors
    /// When it is none, or cannot be opened.
    pub fn open(&mut self, path: &[u8]) -> Result<File, Errno> {
        let (parent, name) = split(path);
        let tree = self.tree;
        tree.open(self.go_to(parent)?, name)
    }

    /// Reads a file of at most `max` bytes, by a path whose links are followed; `None` if there is none.
    ///
    /// # Errors
    /// When it is longer, no file, or cannot be read.
    pub fn read(&mut self, path: &[u8], max: u64) -> Result<Option<Vec<u8>>, Error> {
        use std::io::Read as _;
        let failed = |errno: Errno| Error::at("read", path)(errno);
        let Some(found) = self.resolve(&raw_components(path)).map_err(failed)? else { return Ok(None) };
        let file = self.open(&join(&found.path)).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(max + 1).read_to_end(&mut bytes).map_err(Error::at("read", path))?;
        if bytes.len() as u64 > max { Err(failed(Errno::FBIG)) } else { Ok(Some(bytes)) }
    }
}

impl std::fmt::Debug for Cursor<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Cursor").field("open", &self.open.len()).finish_non_exhaustive()
    }
}
