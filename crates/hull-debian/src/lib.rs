//! Debian archives: from a keyring to verified package files.
//!
//! The chain of trust has no gap: a keyring ([`openpgp`]) verifies a Release file ([`release`]), which has the digests of
//! the indexes ([`index`]), which have the digests of the packages ([`deb`]). Which archives and keyrings are used comes
//! from apt's own configuration ([`apt`], [`choose`]). [`resolve`] chooses packages, [`order`] says in which steps they
//! are installed, [`lock`] writes all of it down so that it can be repeated. [`fetch`] is the only part that uses the
//! network. Everything an archive says is hostile until its digest was compared, and bounded even then.
//!
//! This crate must not know images, containers, or where the store is. It starts no process and writes no files but those
//! that it is handed.

pub mod apt;
pub mod archive;
pub mod choose;
pub mod control;
pub mod deb;
mod error;
pub mod fetch;
pub mod index;
pub mod lock;
pub mod openpgp;
pub mod order;
pub mod relation;
pub mod release;
pub mod resolve;
pub mod time;
pub mod version;

pub use error::Error;
