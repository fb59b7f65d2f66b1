//! What the caller of the runtime decides beside `config.json`.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use hull_cgroup::Driver;

/// Where the root file system comes from.
#[derive(Debug, Default)]
pub enum Rootfs {
    /// `root.path` of the configuration.
    #[default]
    Config,
    /// `root.path` of the configuration, whose owners are mapped into the container's own users: an idmapped mount, so that
    /// nothing on the disk changes.
    Mapped,
    /// An overlay that the child mounts in the container's own mount namespace, so that no mount is left on the host.
    Overlay {
        /// Read-only layers, uppermost first: directories or detached mounts. Shared, because whoever looks after the
        /// container may keep them, and there can be hundreds.
        lower: Vec<Arc<OwnedFd>>,
        /// Writable directory.
        upper: PathBuf,
        /// Work directory on the same file system as `upper`.
        work: PathBuf,
        /// Existing directory that the overlay is mounted on, inside the container's mount namespace only.
        target: PathBuf,
        /// What is written need not survive a crash of the machine: syncing is left out.
        volatile: bool,
    },
}

/// Standard streams and terminal of the program.
#[derive(Debug, Default)]
pub struct Streams {
    /// Standard input, output and error; absent inherits the runtime's. Ignored with a terminal.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Connected Unix socket that receives the terminal's master side when `process.terminal` is set.
    pub console: Option<OwnedFd>,
    /// Connected Unix socket that receives a pidfd of the program (`--pidfd-socket`).
    pub pidfd: Option<OwnedFd>,
    /// Descriptors 3 to 3+N-1 are passed to the program (`--preserve-fds`).
    pub preserve_fds: u32,
}

/// Options of `create` and `run`.
#[derive(Debug)]
pub struct CreateOptions {
    /// The container's ID.
    pub id: String,
    /// Directory with `config.json`; relative paths of the configuration count from it. Absolute.
    pub bundle: PathBuf,
    /// State root, by default `/run/hull/oci`.
    pub root: PathBuf,
    /// Root file system.
    pub rootfs: Rootfs,
    /// Detached mounts that take the place of the sources of bind mounts: indices into the specification's `mounts`.
    pub trees: Vec<(usize, OwnedFd)>,
    /// Streams.
    pub streams: Streams,
    /// How cgroups are made.
    pub cgroup_driver: Driver,
    /// Use `chroot` instead of `pivot_root` (initramfs).
    pub no_pivot: bool,
    /// Do not join a new session keyring.
    pub no_new_keyring: bool,
    /// The program begins with its signals blocked. Those that the first process of a PID namespace does not handle are lost;
    /// blocked ones wait until it does.
    pub signals_blocked: bool,
    /// Precompiled filter that replaces `linux.seccomp` (the default profile, compiled when Hull was built).
    pub filter: Option<hull_seccomp::Filter>,
}

/// Options of `exec`.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// Streams.
    pub streams: Streams,
    /// `[controller:]path` below the container's cgroup; no `..`.
    pub cgroup: Vec<String>,
    /// Join a paused container without an error.
    pub ignore_paused: bool,
}
