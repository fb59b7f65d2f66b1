//! Registries (distribution-spec 1.1): where they are, who the user is to them, and what is said to them.
//!
//! * [`hosts`]: a reference to the places where it is looked for.
//! * [`credentials`]: who the user is there.
//! * [`client`]: requests for manifests, blobs and lists, and uploads.
//! * [`challenge`] and [`headers`]: the protocol's words, pure.

pub mod challenge;
pub mod client;
pub mod credentials;
mod error;
pub mod headers;
pub mod hosts;

pub use client::{Client, Remote};
pub use error::{Error, Refusal};
