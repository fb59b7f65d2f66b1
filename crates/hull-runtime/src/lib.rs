//! The OCI runtime: a specification becomes a plan, the plan becomes a process.
//!
//! The way of a container, and the module of each part:
//!
//! 1. [`plan`] checks the whole document against itself and this machine and prepares everything that can be prepared:
//!    [`namespaces`], [`rootfs`], [`process`], the system call filter, hooks. Nothing has happened yet.
//! 2. [`start`] makes the state directory, the cgroup and the process, and answers the process while it sets itself up.
//!    Between `clone3` and `execve` the child makes only raw system calls on prepared data ([`failure`]).
//! 3. [`state`] is what is left on disk; [`lifecycle`], [`exec`](mod@exec) and [`checkpoint`] work from it.
//!
//! The crate is synchronous and single-threaded, never touches images or the network beyond the container's own
//! namespace, prints nothing, and reads no environment variable.

pub mod checkpoint;
pub mod error;
pub mod exec;
pub mod failure;
pub mod hooks;
pub mod lifecycle;
pub mod namespaces;
pub mod options;
pub mod plan;
pub mod process;
pub mod rootfs;
pub mod seal;
pub mod start;
pub mod state;
mod sync;
mod sysctl;
pub mod terminal;

pub use error::Error;
pub use exec::exec;
pub use options::{CreateOptions, ExecOptions, Rootfs, Streams};
pub use seal::seal;
pub use start::{Container, Running, create, create_with, start};
