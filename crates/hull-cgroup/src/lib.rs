//! Control groups: v1, v2, hybrid, and systemd scopes.
//!
//! A [`Cgroup`] is the set of directories, one per hierarchy, that hold one container. It is planned from
//! `linux.cgroupsPath` without touching anything ([`Cgroup::plan`]), created with its limits ([`Cgroup::create`]),
//! entered ([`Cgroup::clone_fd`] or [`Cgroup::attach`]) and removed ([`Cgroup::delete`]). Limits are compiled to a
//! list of file writes first, so that a value that cannot be honoured is an error before anything exists.
//!
//! The crate never moves the calling process, never writes outside the container's own groups except to
//! `cgroup.subtree_control` of their ancestors, and never starts a thread.

mod apply;
mod cgroup;
mod controllers;
mod convert;
mod dbus;
mod devices;
mod error;
mod freezer;
mod hierarchies;
mod io;
pub mod mount;
mod remove;
mod stats;
mod systemd;
mod v1;
mod v2;

pub use cgroup::{Cgroup, Driver};
pub use error::Error;
pub use hierarchies::{Hierarchies, Hierarchy, Layout, Version};
pub use stats::{
    Blkio, BlkioEntry, Cpu, CpuSet, CpuUsage, Hugetlb, Memory, MemoryEntry, Pids, Psi, PsiData, Stats, Throttling,
};
