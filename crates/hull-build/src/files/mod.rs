//! Files of a build: contexts, downloads and repositories, and what `COPY`, `ADD` and `WORKDIR` make of them.
//!
//! ```text
//! tree      what files are in: a directory of the machine, layers, a download; nothing leads out of it
//! context   the context: hashed in place, by the digests of stat_cache
//! select    what an action takes, and its digest
//! copy      actions onto a base, in memory (onto); unpack for archives
//! write     the layer, as a tar that the store takes in while it is written
//! export    the way out: a tree as a directory or a tar; archives as directories
//! ```
//!
//! Files are never copied anywhere but into their layer. Everything here is hostile: names are resolved one by one below
//! open directories, and a file that is not what was selected any more fails the build.

mod context;
mod copy;
pub mod cursor;
mod error;
pub mod export;
pub mod git;
pub mod http;
mod listing;
mod onto;
mod owner;
mod select;
mod settings;
mod sources;
mod stat_cache;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod trees;
mod unpack;
mod write;

pub use context::Context;
pub use error::Error;
pub use select::{Match, Pick, Selected, select};
pub use sources::{Opened, Sources};
