//! OCI types and nothing else: no system calls, no paths opened, no environment read.
//!
//! * [`spec`]: `config.json` of the OCI runtime specification 1.3.
//! * [`state`]: the state document that hooks and `state` show.
//! * [`time`]: moments as all of these write them.
//! * [`image`]: manifests, indexes and configurations of images; [`digest`] and [`reference`], how they are named.
//!
//! Unknown properties are ignored, as the specification's "Extensibility" section requires; unknown *values* of known
//! properties are errors that name the field.

pub mod digest;
pub mod image;
pub mod reference;
pub mod spec;
pub mod state;
pub mod time;

pub use digest::Digest;
pub use reference::Reference;
pub use spec::{ParseError, Spec};
pub use state::{State, Status};
