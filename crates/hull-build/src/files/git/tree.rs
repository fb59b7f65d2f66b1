//! What was checked out, as a tree.

use std::fs;

use rustix::io::Errno;

use super::Checkout;
use crate::files::Error;
use crate::files::tree::{FileTree, Handle, Kind, Meta};
use crate::files::trees::MachineDirectory;

/// A checkout as a tree: files have the commit's time, and modes are those that a repository knows.
#[derive(Debug)]
pub struct RepositoryTree {
    directory: MachineDirectory,
    checkout: Checkout,
}

impl RepositoryTree {
    /// Opens a checkout.
    ///
    /// # Errors
    /// When its directory cannot be opened.
    pub fn open(checkout: Checkout) -> Result<Self, Error> {
        Ok(Self { directory: MachineDirectory::open(&checkout.directory, "repository")?, checkout })
    }

    /// What it is of.
    #[must_use]
    pub fn checkout(&self) -> &Checkout {
        &self.checkout
    }
}

fn normal(meta: Meta) -> Meta {
    let mode = match meta.kind {
        Kind::File if meta.mode & 0o100 == 0 => 0o644,
        _ => 0o755,
    };
    Meta { mode, ..meta }
}

impl FileTree for RepositoryTree {
    fn origin(&self) -> &str {
        self.directory.origin()
    }

    fn root(&self) -> Result<(Handle, Meta), Errno> {
        self.directory.root().map(|(handle, meta)| (handle, normal(meta)))
    }

    fn list(&self, directory: &Handle) -> Result<Vec<(Vec<u8>, Meta)>, Errno> {
        let listed = self.directory.list(directory)?;
        Ok(listed.into_iter().map(|(name, meta)| (name, normal(meta))).collect())
    }

    fn stat(&self, directory: &Handle, name: &[u8]) -> Result<Option<Meta>, Errno> {
        Ok(self.directory.stat(directory, name)?.map(normal))
    }

    fn enter(&self, directory: &Handle, name: &[u8]) -> Result<Handle, Errno> {
        self.directory.enter(directory, name)
    }

    fn open(&self, directory: &Handle, name: &[u8]) -> Result<fs::File, Errno> {
        self.directory.open(directory, name)
    }

    fn read_link(&self, directory: &Handle, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.directory.read_link(directory, name)
    }

    fn fixed_time(&self) -> Option<i64> {
        Some(self.checkout.time)
    }
}
