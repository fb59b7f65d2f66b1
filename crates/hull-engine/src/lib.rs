//! The engine: containers from what the user asked for to what is left of them.
//!
//! * [`flags`] and [`config`]: what was asked for, as plain data.
//! * `defaults`: what the settings say where the flags say nothing.
//! * [`spec`]: that data to a runtime specification, without touching anything.
//! * [`records`]: what is kept on disk, and what a killed process leaves to its successor.
//! * [`launch`]: an image, a record and a specification become a running container.
//! * [`monitor`]: the process that owns its streams until it ends, restarts it and cleans up after it.
//! * [`attach`]: a client of a monitor; `run` in the foreground is one.
//! * `network`: a container and its networks, which `hull_network` makes.
//! * [`boot`]: restart policies across reboots and killed monitors.
//! * [`health`], [`events`]: whether a container is well, and what has happened.
//! * [`bootstrap`]: an image from a distribution's packages.
//! * [`exec`], [`control`], [`logs`], [`inspect`]: commands on containers that exist.
//! * [`processes`], [`stats`], [`explain`]: what is seen of one from outside; [`update`]: other limits.
//! * [`readiness`]: what the machine lacks, and what mends it.
//! * [`diff`] and [`commit`]: what a container changed, as a list, a layer or an archive.
//! * [`volumes`]: data that outlives containers, and everything else that is mounted into them.
//! * [`cp`]: files between the host and a container.
//! * [`step`]: a step of a build, which is a container that no command knows of.
//! * [`image_mount`]: an image's files at a path of the host.
//!
//! The crate is synchronous and, except in `commit`, single-threaded: it clones processes.

pub mod attach;
pub mod boot;
pub mod bootstrap;
pub mod cdi;
mod changes;
pub mod commit;
pub mod config;
mod console;
pub mod control;
mod copy;
pub mod cp;
mod defaults;
pub mod diff;
pub mod error;
pub mod events;
pub mod exec;
pub mod explain;
pub mod filters;
pub mod flags;
mod foreign;
pub mod health;
pub mod image_mount;
pub mod init;
pub mod inspect;
pub mod launch;
pub mod logs;
mod machine;
pub mod monitor;
mod names;
mod network;
pub mod normalise;
mod own;
pub mod pattern;
pub mod processes;
pub mod readiness;
pub mod records;
mod rootfs;
mod sandbox;
pub mod seccomp;
mod shm;
pub mod spec;
pub mod stats;
pub mod step;
mod terminal;
pub mod time;
pub mod units;
pub mod update;
pub mod usage;
mod users;
pub mod volumes;

pub use config::RunConfig;
pub use error::Error;
pub use launch::Outcome;
pub use records::{Container, Engine, State};
pub use rootfs::can_map_owners;
