//! Images in and out of the store: Docker archives, OCI layouts, root file systems.
//!
//! - [`load`], [`load_stream`], [`load_path`]: nothing of an archive is recorded before all of it is verified;
//! - [`select`], [`save`], [`save_directory`]: the same images make the same bytes on every machine;
//! - [`import`]: a root file system becomes an image.
//!
//! An archive is hostile: its names are looked up in a table and never on the machine, its documents are bounded, and
//! every byte that reaches the store has the digest by which it was asked for. This module must not unpack anything:
//! layers go through [`Transfer::layer`](crate::Transfer::layer).

mod docker;
mod import;
mod layout;
mod load;
mod names;
mod resolve;
mod save;
mod sink;
mod table;
#[cfg(test)]
mod tests;
mod time;

pub use import::{ImportOptions, import};
pub(crate) use layout::LAYOUT_VERSION;
pub use load::{LoadOptions, Loaded, load, load_path, load_stream};
pub use save::{Format, Layers, SaveOptions, retain_platforms, save, save_directory, select};

use std::fs::File;

use rustix::fs::{Mode, OFlags};

use crate::{Error, Store};

/// A file on the store's disk that has no name: it goes with its last descriptor, however this process ends.
pub(crate) fn unnamed_file(store: &Store) -> Result<File, Error> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(store.root(), flags, Mode::from_raw_mode(0o600));
    file.map(File::from).map_err(Error::io("create a file in", store.root()))
}
