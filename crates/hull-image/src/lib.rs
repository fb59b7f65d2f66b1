//! Images: a store that many processes share, that survives being killed at any point, and what brings images in and
//! out of it.
//!
//! ```text
//! ROOT/                    0700
//! ├─ hull.db (-wal, -shm)  the records: one SQLite database
//! ├─ blobs/ALGORITHM/HEX   bytes as they came: configurations, manifests, compressed layers
//! ├─ layers/HEX/           HEX is the diff ID: `tar` and `index`, or `tree/`
//! ├─ ingest/RANDOM/        what a running transfer writes; locked by flock(2) while it lives
//! ├─ registry/             what clients of `hull registry serve` pushed: a registry's directory, not of this crate
//! ├─ partial/ALGORITHM-HEX what came of a blob whose transfer broke off: [`registry`]
//! ├─ cache/debian/SHA256   files of Debian archives
//! ├─ cache/context, http, git   what builds know of their sources: of `hull-build`, not of this crate
//! └─ trash/RANDOM/         what a running deletion unlinks; locked likewise
//! ```
//!
//! # Protocol
//!
//! *In:* [`Store::begin`] makes a work directory. [`Transfer::layer`] and [`Transfer::blob`] write into it, verify
//! digests on the way, and sync. [`Transfer::image`] renames what is new into place, syncs the directories and commits
//! the records, all under the database's write lock. Dropping the transfer removes the rest.
//!
//! *Out:* [`Store::remove`], [`Store::prune`] and [`Store::gc`] delete records in one durable transaction, then move the
//! files into their own directory below `trash/`, again under the write lock and only if there is still no record, then
//! unlink them.
//!
//! *After a kill:* the work directory is unlocked. [`Store::repair`], which every command calls first, finds it, moves
//! files that no record names into it, and removes it. Without a dead command that is a look at two directories.
//!
//! # Invariants
//!
//! * A record exists only while its bytes are on disk; a file without record exists only while a command lives or until
//!   the next repair.
//! * An image's ID is the digest of its configuration; configurations and manifests are kept as they came, never
//!   written anew.
//! * A layer stays while an image or a build's result ([`Transfer::keep_layers`]) has it or a lease names it. An image
//!   stays while a name, a container ([`Store::hold`]) or a running command ([`Store::pin`]) has it. A lease counts while
//!   its work directory is locked: no process number or clock is trusted.
//! * A name means one image, and may mean others where their platforms are asked for ([`Store::find_for`]): they go with the
//!   name.
//! * No lock is held while data is read, inflated or written: the write lock covers renames and records only.
//! * Reading (`find`, `list`) changes nothing, except that the built-in image [`hello`] is made when first asked for.
//!
//! # For the engine
//!
//! The database is opened by the first use and must be closed ([`Store::close`]) before a fork whose child uses the
//! store. A container calls [`Store::hold`] with `container:ID` after [`Store::find`] and before it opens the layers
//! ([`Store::layer_path`]), and [`Store::release`] when it is removed.
//!
//! # What goes by itself
//!
//! After each transfer, and by [`Store::gc`], the store is brought below a [`Budget`]: compressed copies of layers that
//! have their tar, then images without any name. `HULL_DISK_BUDGET`, else the setting [`Store::set_budget`] makes, says
//! how much of them may stay.
//!
//! The records must never be taken for commands: labels, names and histories are text of strangers.

pub mod archive;
mod changes;
mod check;
mod disk;
mod downloads;
mod error;
pub mod explore;
mod gc;
pub mod hello;
mod image;
mod indexes;
mod kept;
mod layer;
mod names;
mod origins;
pub mod provenance;
mod publish;
pub mod registry;
mod rows;
mod runnable;
pub mod snapshot;
pub mod squash;
mod store;
mod transfer;
mod usage;
mod variants;

pub use changes::apply as apply_changes;
pub use check::Problem;
pub use disk::{occupied, open_up, remove_tree};
pub use error::Error;
pub use gc::{Budget, LabelFilter, PruneFilter, Pruned};
pub use hull_db::Moment;
pub use hull_oci::image::ContainerConfig as Config;
pub use image::{HistoryRow, Image, Kind, Layer};
pub use names::Removed;
pub use runnable::Runnable;
pub use store::Store;
pub use transfer::{LayerSource, Pin, Transfer};
pub use usage::{ImageUsage, Usage};
