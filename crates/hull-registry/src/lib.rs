//! Registries (distribution-spec 1.1): where they are, who the user is to them, and what is said to them.
//!
//! * [`hosts`]: a reference to the places where it is looked for.
//! * [`credentials`]: who the user is there.
//! * [`client`]: requests for manifests, blobs and lists, and uploads.
//! * [`ssh`]: another machine's store instead of a registry.
//! * [`challenge`] and [`headers`]: the protocol's words, pure.

pub mod challenge;
pub mod client;
pub mod credentials;
mod error;
pub mod headers;
pub mod hosts;
pub mod ssh;

pub use client::{Client, Remote};
pub use error::{Error, Refusal};
