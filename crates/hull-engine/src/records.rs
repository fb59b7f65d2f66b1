//! What is known about containers, on disk.
//!
//! ```text
//! ROOT/containers/              0700, survives reboots
//! ├─ ID/                        the bundle
//! │  ├─ container.json          what was asked for; replaced by rename under the lock
//! │  ├─ state.json              where the container is in its life; replaced by rename; one that is removed at
//! │  │                          its end has none before it has started
//! │  ├─ stopping                somebody wants it to end: why it is not started again
//! │  ├─ with-volumes            its anonymous volumes go with it
//! │  ├─ lock                    held by who starts, removes or changes it
//! │  ├─ exit                    exit code, written in place: whoever waits holds it open, even past removal
//! │  ├─ container.log           its output; container.log.N and .N.gz are older
//! │  ├─ health.json             its last health checks
//! │  ├─ upper/ work/ rootfs/    writable layer, and where the overlay is mounted in the container's namespace
//! │  └─ hostname hosts ...      files bound into the container
//! └─ .removing-ID               a removal that runs or was killed
//! ROOT/names/NAME               symbolic link to the ID
//! ROOT/events/log               what happened; log.1 is older
//! STATE/live/ID.KIND.PID.START  intent: process PID, started at START, works on the container
//! STATE/attach/ID               socket of its monitor
//! STATE/paused/ID               it was paused, and may be so still
//! STATE/oci/ID/                 the runtime's own record
//! STATE/mounts/HEX              who lends the mount of a layer; see `hull_image::snapshot::shared`
//! STATE/skeleton/ STATE/empty/  see `rootfs`
//! ROOT/mounted/                 see `image_mount`
//! ROOT/volumes/                 see `volumes`
//! ```
//!
//! Each container is independent of all others, so files replaced by rename need no lock; a name is taken by making its
//! link, which only one can. **An intent is written before anything is made and removed after everything is undone.**
//! Its owner is the process that runs the container (the monitor), or one that removes it. [`Engine::repair`], which
//! every command calls first, finishes what dead owners left: one look at a directory that is empty on an idle machine.

mod erase;
mod gone;
mod intent;
mod kept;
mod look;
mod repair;
mod state;

pub use gone::Removal;
pub use repair::LOOKING;

pub(crate) use erase::Removed;
use erase::owner;
use intent::parse_intent;
pub(crate) use intent::{Intent, Work};

use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hull_fs::lock::Lock;
use hull_image::Store;
use hull_oci::Digest;
use hull_runtime::state::process_start_time;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::RunConfig;
use crate::error::Error;
use crate::rootfs;

const MAX_RECORD_BYTES: u64 = 8 << 20;

/// What was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Given or generated.
    pub name: String,
    /// Nanoseconds since 1970.
    pub created: u64,
    /// ID of the image; empty for a plain directory.
    pub image_id: String,
    /// Program and arguments as they were run.
    pub args: Vec<String>,
    /// Everything from the flags.
    pub config: RunConfig,
    /// Signal of `stop`.
    pub stop_signal: i32,
}

/// Where a container is in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What it does.
    pub phase: Phase,
    /// First process; 0 unless it runs.
    pub pid: i32,
    /// Start time of that process in clock ticks since boot.
    pub pid_start: u64,
    /// The process that looks after the container; 0 once there is none.
    pub monitor: i32,
    /// Its start time.
    pub monitor_start: u64,
    /// Exit code once it has ended.
    pub exit_code: i32,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// Why it could not start, or was lost.
    pub error: String,
    /// Nanoseconds since 1970; 0 if it never started.
    pub started: u64,
    /// Nanoseconds since 1970; 0 unless it has ended.
    pub finished: u64,
    /// How often its policy has restarted it since it was started by hand.
    pub restarts: u32,
}

/// The phases of a container's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It has a record and no process.
    #[default]
    Created,
    /// Its program runs.
    Running,
    /// Its program has ended and is started again soon.
    Restarting,
    /// Its program has ended.
    Exited,
}

impl Phase {
    /// Docker's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }
}

/// The two directories that everything is in, and the images.
#[derive(Clone, Debug)]
pub struct Engine {
    root: PathBuf,
    state: PathBuf,
    /// The image store.
    pub images: Store,
    /// Sockets for programs that are started.
    pub(crate) sockets: Sockets,
    /// The processes that [`Engine::repair`] has just seen alive.
    seen: Arc<repair::Seen>,
    /// What was read before, in a process that answers many.
    kept: Option<Arc<kept::Kept>>,
}

/// Sockets that this process was started with and containers get: descriptors from 3 on, as `sd_listen_fds(3)` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sockets {
    /// How many.
    pub count: u32,
    /// Their names, separated by colons, if they have any.
    pub names: Option<String>,
}

impl Sockets {
    /// Those that are meant for this very process.
    #[must_use]
    pub fn of_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let meant = variable("LISTEN_PID").is_some_and(|pid| pid == own_pid().to_string());
        let count = variable("LISTEN_FDS").and_then(|count| count.parse().ok()).filter(|count| *count < 1024);
        match count {
            Some(count) if meant => Self { count, names: variable("LISTEN_FDNAMES") },
            _ => Self::default(),
        }
    }

    /// What a program is told of them.
    pub(crate) fn variables(&self) -> Vec<String> {
        if self.count == 0 {
            return Vec::new();
        }
        let mut list = vec![format!("LISTEN_FDS={}", self.count), "LISTEN_PID=1".to_owned()];
        list.extend(self.names.iter().map(|names| format!("LISTEN_FDNAMES={names}")));
        list
    }
}

/// Why a container is made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// For good: its restart policy is not asked.
    Stop,
    /// To be started again by whoever stops it: it is not removed either.
    Restart,
    /// The machine goes down; nobody wanted it to end for ever.
    Shutdown,
}

pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn alive(pid: i32, start: u64) -> bool {
    pid > 0 && process_start_time(pid) == Some(start)
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

pub(crate) fn create_private(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("create directory", path))
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    // One read for nearly every record, however many there are.
    let mut bytes = Vec::with_capacity(8 << 10);
    let file = fs::File::open(path).map_err(Error::io("open", path))?;
    file.take(MAX_RECORD_BYTES).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Record { path: path.display().to_string(), source })
}

pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes =
        serde_json::to_vec(value).map_err(|source| Error::Record { path: path.display().to_string(), source })?;
    Ok(hull_fs::atomic::write_path(path, &bytes, 0o600)?)
}

impl Engine {
    /// The engine over these directories; nothing is made until something is kept.
    #[must_use]
    pub fn new(root: PathBuf, state: PathBuf) -> Self {
        let images = Store::new(&root);
        Self { root, state, images, sockets: Sockets::default(), seen: Arc::default(), kept: None }
    }

    /// Containers that are started get these.
    #[must_use]
    pub fn with_sockets(mut self, sockets: Sockets) -> Self {
        self.sockets = sockets;
        self
    }

    /// What is read of containers and images is kept, and looked at whether it is still so before it is used again: for
    /// processes that answer many requests.
    #[must_use]
    pub fn keeping(mut self) -> Self {
        self.kept = Some(Arc::default());
        self.images = self.images.keeping();
        self
    }

    /// Gives up what is kept.
    pub fn forget(&self) {
        if let Some(kept) = &self.kept {
            kept.retain(|_| false);
        }
        self.images.forget();
    }

    /// The runtime's state root.
    #[must_use]
    pub fn oci_root(&self) -> PathBuf {
        self.state.join("oci")
    }

    /// Directory of persistent data.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory of runtime state.
    #[must_use]
    pub fn state_root(&self) -> &Path {
        &self.state
    }

    fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    fn live(&self) -> PathBuf {
        self.state.join("live")
    }

    /// A container's directory.
    #[must_use]
    pub fn directory(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// What a container's directory is called while it is removed.
    fn leaving(&self, id: &str) -> PathBuf {
        self.containers().join(format!(".removing-{id}"))
    }

    /// Keeps a container's image from being removed; before it starts.
    pub(crate) fn hold_image(&self, id: &str, image: &Digest) -> Result<(), Error> {
        Ok(self.images.hold(&owner(id), image)?)
    }

    /// Makes a container's directory, takes its name, and writes what was asked for.
    pub(crate) fn register(&self, container: &Container, layers: Option<&[Arc<OwnedFd>]>) -> Result<PathBuf, Error> {
        let directory = self.directory(&container.id);
        create_private(&directory)?;
        for part in ["upper", "work", "rootfs"] {
            let path = directory.join(part);
            fs::create_dir(&path).map_err(Error::io("create directory", &path))?;
        }
        // The writable layer's root is the container's `/`.
        rootfs::copy_root_attributes(layers.unwrap_or_default(), &directory.join("upper"))?;
        state::create_exit(&directory)?;
        write(&directory.join("container.json"), container)?;
        if !container.config.remove {
            // Room for how it ends, which a full disk must not lose.
            write(&directory.join("state.json"), &State::default())?;
        }
        self.take_name(container)?;
        Ok(directory)
    }

    /// Makes a container's directory ready for another start.
    pub(crate) fn renew(&self, container: &Container) -> Result<PathBuf, Error> {
        let directory = self.directory(&container.id);
        // Overlayfs refuses a work directory of an earlier mount that left syncing out.
        let work = directory.join("work");
        for part in ["rootfs", "work"] {
            let path = directory.join(part);
            if part == "work" && path.exists() {
                hull_image::remove_tree(&path).map_err(Error::io("remove", &path))?;
            }
            match fs::create_dir(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("create directory", &path)(error));
                }
                _ => {}
            }
        }
        rustix::fs::chmod(&work, rustix::fs::Mode::from_raw_mode(0o755)).map_err(Error::io("change mode of", &work))?;
        // A new file: whoever waited for the last end keeps the old one.
        let _ = fs::remove_file(directory.join("exit"));
        state::create_exit(&directory)?;
        Ok(directory)
    }

    /// Excludes others that start, remove or change a container.
    pub(crate) fn lock(&self, id: &str) -> Result<Lock, Error> {
        let directory = self.directory(id);
        if !directory.exists() {
            return Err(Error::NoContainer(id.to_owned()));
        }
        let lock = match Lock::exclusive(&directory.join("lock")) {
            Ok(lock) => lock,
            Err(error) if error.is_not_found() => return Err(Error::NoContainer(id.to_owned())),
            Err(error) => return Err(error.into()),
        };
        // Whoever held the lock may have removed it.
        if directory.join("container.json").exists() { Ok(lock) } else { Err(Error::NoContainer(id.to_owned())) }
    }

    pub(crate) fn take_name(&self, container: &Container) -> Result<(), Error> {
        let names = self.root.join("names");
        create_private(&names)?;
        let link = names.join(&container.name);
        // A name left by a killed removal is free; twice, because another may take it in between.
        for _ in 0..2 {
            match std::os::unix::fs::symlink(&container.id, &link) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    let owner = fs::read_link(&link).unwrap_or_default().to_string_lossy().into_owned();
                    if self.directory(&owner).exists() && !owner.is_empty() {
                        return Err(Error::NameTaken { name: container.name.clone(), id: owner });
                    }
                    let _ = fs::remove_file(&link);
                }
                Err(error) => return Err(Error::io("create", &link)(error)),
            }
        }
        Err(Error::NameTaken { name: container.name.clone(), id: "another".to_owned() })
    }

    /// Gives up a name, if it is the container's.
    pub(crate) fn free_name(&self, id: &str, name: &str) {
        if let Some(link) = self.own_link(id, name) {
            // One that stays names nobody, and is free for the next.
            let _ = fs::remove_file(&link);
        }
    }

    /// The link of a name that is the container's.
    fn own_link(&self, id: &str, name: &str) -> Option<PathBuf> {
        let link = self.root.join("names").join(name);
        fs::read_link(&link).is_ok_and(|target| target == Path::new(id)).then_some(link)
    }

    /// Replaces what was asked for; under the container's lock.
    pub(crate) fn save_container(&self, container: &Container) -> Result<(), Error> {
        write(&self.directory(&container.id).join("container.json"), container)
    }

    /// Whether the process that looks after a container is there.
    #[must_use]
    pub fn monitored(&self, state: &State) -> bool {
        alive(state.monitor, state.monitor_start)
    }
}

#[cfg(test)]
mod tests;
