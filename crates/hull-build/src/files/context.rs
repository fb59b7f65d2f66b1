//! Directories of this machine as build contexts: nothing is copied, and digests of files are kept from build to build.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use hull_dockerfile::ignore::Ignore;
use hull_oci::Digest;
use rustix::io::Errno;

use super::error::Error;
use super::select::{Selected, patterns};
use super::stat_cache::StatCache;
use super::tree::{FileTree, Handle, Meta};
use super::trees::MachineDirectory;
use crate::graph::LocalSource;

/// Selections that one build keeps of one context.
const MAX_KEPT: usize = 64;

/// A context.
#[derive(Debug)]
pub struct Context {
    directory: MachineDirectory,
    ignore: Option<Ignore>,
    cache: StatCache,
    /// What was selected for a key is what is copied later: the directory is walked once for both.
    selected: Mutex<HashMap<Digest, Arc<Selected>>>,
}

impl Context {
    /// Opens a context; `cache` is the directory of digests ([`StatCache`]), or nothing is kept.
    ///
    /// # Errors
    /// When the directory cannot be opened, or a pattern of `.dockerignore` is none.
    pub fn open(source: &LocalSource, cache: Option<&Path>) -> Result<Self, Error> {
        let directory = MachineDirectory::open(&source.directory, &source.name)?;
        let ignore = if source.ignore.is_empty() { None } else { Some(patterns(&source.ignore)?) };
        let cache = match cache {
            Some(cache) => {
                let path = std::path::absolute(&source.directory).unwrap_or_else(|_| source.directory.clone());
                let name = Digest::of(path.as_os_str().as_encoded_bytes());
                StatCache::open(cache, name.hex())
            }
            None => StatCache::default(),
        };
        Ok(Self { directory, ignore, cache, selected: Mutex::default() })
    }

    /// Writes the digests that were learned.
    ///
    /// # Errors
    /// When they cannot be written. Nothing depends on that.
    pub fn save(&self) -> Result<(), Error> {
        self.cache.save()
    }

    pub(crate) fn keep(&self, key: Digest, selected: Arc<Selected>) {
        let mut all = self.selected.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MAX_KEPT {
            all.insert(key, selected);
        }
    }

    pub(crate) fn kept(&self, key: &Digest) -> Option<Arc<Selected>> {
        self.selected.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }
}

impl FileTree for Context {
    fn origin(&self) -> &str {
        self.directory.origin()
    }

    fn root(&self) -> Result<(Handle, Meta), Errno> {
        self.directory.root()
    }

    fn list(&self, directory: &Handle) -> Result<Vec<(Vec<u8>, Meta)>, Errno> {
        self.directory.list(directory)
    }

    fn stat(&self, directory: &Handle, name: &[u8]) -> Result<Option<Meta>, Errno> {
        self.directory.stat(directory, name)
    }

    fn enter(&self, directory: &Handle, name: &[u8]) -> Result<Handle, Errno> {
        self.directory.enter(directory, name)
    }

    fn open(&self, directory: &Handle, name: &[u8]) -> Result<File, Errno> {
        self.directory.open(directory, name)
    }

    fn read_link(&self, directory: &Handle, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.directory.read_link(directory, name)
    }

    fn has_times_of_checkout(&self) -> bool {
        true
    }

    fn ignored(&self) -> Option<&Ignore> {
        self.ignore.as_ref()
    }

    fn known_digest(&self, meta: &Meta) -> Option<[u8; 32]> {
        self.cache.find(meta)
    }

    fn learn_digest(&self, meta: &Meta, digest: [u8; 32], began: (i64, u32)) {
        self.cache.learn(meta, digest, began);
    }
}
