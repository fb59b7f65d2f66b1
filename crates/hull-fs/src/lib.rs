//! Paths inside a root, verified procfs, atomic files, locks.
//!
//! Everything that an image, a configuration or a running container can name is resolved here, by descriptor and with
//! `openat2(2)` (Linux 5.6), so that no symbolic link, `..` or magic link leads out of its root. Nothing here joins a
//! root and a path into one string.

pub mod atomic;
mod descriptors;
mod error;
pub mod inside;
pub mod lock;
mod procfs;
mod root;
mod stamp;

pub use descriptors::descriptors;
pub use error::Error;
pub use procfs::{Procfs, start_time};
pub use root::Root;
pub use stamp::{Stamp, TICK};
