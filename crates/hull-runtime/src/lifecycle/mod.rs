//! What is done to a container that exists: signals, freezing, limits, listing, deletion.
//!
//! Everything works from the [`Record`](crate::state::Record) on disk and what the kernel says now. A recycled process ID
//! is never signalled: processes are reached through a pidfd whose start time was checked, or through the cgroup.

mod control;
mod delete;
mod events;
mod features;
pub mod signal;
mod update;

pub use control::{kill, pause, processes, resume};
pub use delete::delete;
pub use events::{Event, Events, stats};
pub use features::features;
pub use update::{IntelRdtUpdate, update};
