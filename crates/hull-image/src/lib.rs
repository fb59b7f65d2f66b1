//! Images: what a container's root file system and defaults come from.
//!
//! The store is a directory per image, each holding a root file system and its configuration:
//!
//! ```text
//! ROOT/images/             0700
//! ├─ names/NAME%3ATAG      text: the image's ID
//! ├─ ID/                   64 random hexadecimal digits; complete from the moment it has this name
//! │  ├─ image.json         configuration, creation time, size
//! │  └─ rootfs/            the files
//! └─ .new-ID/              an import that runs, or was killed: its `lock` is held by flock(2) while it runs
//! ```
//!
//! An image appears by one rename and disappears by one, so no reader sees part of it, and no lock is needed to read.
//! What a killed import left is removed by [`Store::repair`]. Nothing of an archive is trusted: see [`unpack`].

mod changes;
mod error;
pub mod hello;
mod store;
pub mod unpack;

pub use changes::apply as apply_changes;
pub use error::Error;
pub use store::{Image, Store, normalize};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An image's defaults for containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Arguments when the user gives none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Program that the arguments go to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// `user[:group]`, names or numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Labels: data, never instructions to the engine.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the program to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}
