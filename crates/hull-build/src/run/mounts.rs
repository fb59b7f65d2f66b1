//! What a step's mounts show, made ready as mounts that are attached nowhere.
//!
//! Paths within layers and cache directories are resolved below their root (`openat2(2)`), and what is mounted is what
//! was found: what other steps change there meanwhile leads nowhere else. Secrets are files of a file system in memory.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use hull_engine::Engine;
use hull_engine::step::{Step, StepMount, copy_files};
use hull_fs::inside;
use hull_oci::spec::Mount;
use hull_sys::clone::CloneFlags;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::agent::Listener;
use super::order::{OrderMount, Shows};
use crate::Error;
use crate::cache::Cache;
use crate::cache::mounts::{Attributes, Held};

/// The name of a single file in memory.
const NAME: &str = "file";

/// Mounts of a step, and what must be kept for as long as it runs.
pub(super) struct Mounted {
    pub(super) mounts: Vec<StepMount>,
    pub(super) relays: Vec<Listener>,
    pub(super) held: Vec<Held>,
}

/// Makes all of them ready. `check` says when to give up waiting for a cache directory.
pub(super) fn prepare(
    engine: &Engine,
    step: &Step<'_>,
    list: &[OrderMount],
    check: &dyn Fn() -> Result<(), Error>,
) -> Result<Mounted, Error> {
    let mut mounted = Mounted { mounts: Vec::new(), relays: Vec::new(), held: Vec::new() };
    // In the order of names: two steps that lock the same directories must not wait for each other.
    let mut held: BTreeMap<&str, usize> = BTreeMap::new();
    let mut caches: Vec<&OrderMount> = list.iter().filter(|one| matches!(one.shows, Shows::Cache { .. })).collect();
    caches.sort_by_key(|one| if let Shows::Cache { name, .. } = &one.shows { name.as_str() } else { "" });
    for mount in caches {
        if let Shows::Cache { name, .. } = &mount.shows
            && !held.contains_key(name.as_str())
        {
            held.insert(name, mounted.held.len());
            mounted.held.push(cache(engine, &mount.shows, check)?);
        }
    }
    for (index, mount) in list.iter().enumerate() {
        check()?;
        let fail = |errno: Errno| Error::io("mount", &mount.target)(errno);
        let tree = match &mount.shows {
            Shows::Tmpfs { size } => {
                mounted.mounts.push(tmpfs(&mount.target, *size));
                continue;
            }
            Shows::Layers { layers, source } => {
                let lower = engine.open_layers(layers)?;
                let tree = if mount.read_only {
                    engine.mount_layers(&lower, None)?
                } else {
                    // What is written goes with the step.
                    let upper = step.subdirectory(&format!("upper-{index}"))?;
                    let work = step.subdirectory(&format!("work-{index}"))?;
                    engine.mount_layers(&lower, Some((&upper, &work)))?
                };
                lower.release()?;
                part(step, index, tree, source)?
            }
            Shows::Cache { name, source, .. } => {
                let place = held.get(name.as_str()).and_then(|place| mounted.held.get(*place));
                let directory = place.ok_or(Error::Canceled)?.directory.as_fd();
                // A directory that was filled shows what is there; the path was looked up when it was filled.
                let filled = matches!(&mount.shows, Shows::Cache { layers, .. } if !layers.is_empty());
                let source = if filled { "" } else { source.as_str() };
                below(directory, source).map_err(|errno| missing(source, errno))?
            }
            Shows::Files { files, mode } => {
                let memory = memory().map_err(fail)?;
                for (name, content) in files {
                    write(memory.as_fd(), name, content, *mode, 0, 0).map_err(fail)?;
                }
                memory
            }
            Shows::File { content, mode, uid, gid } => {
                let memory = memory().map_err(fail)?;
                write(memory.as_fd(), NAME, content, *mode, *uid, *gid).map_err(fail)?;
                part(step, index, memory, NAME)?
            }
            Shows::Agent { socket, mode, uid, gid } => {
                let memory = memory().map_err(fail)?;
                let path = format!("/proc/self/fd/{}/{NAME}", memory.as_raw_fd());
                let listener = UnixListener::bind(path).map_err(Error::io("bind", &mount.target))?;
                attributes(memory.as_fd(), NAME, *mode, *uid, *gid).map_err(fail)?;
                mounted.relays.push(Listener { socket: listener, agent: socket.clone() });
                part(step, index, memory, NAME)?
            }
        };
        let access = if mount.read_only { "ro" } else { "rw" };
        let options = ["bind", "rprivate", access].map(String::from).to_vec();
        let mount = Mount { destination: mount.target.clone(), kind: "bind".to_owned(), options, ..Mount::default() };
        mounted.mounts.push(StepMount { mount, tree: Some(tree) });
    }
    Ok(mounted)
}

fn missing(source: &str, errno: Errno) -> Error {
    let reason = std::io::Error::from(errno);
    Error::Request(format!("mount source {:?}: {reason}", hull_oci::spec::one_line(source)))
}

fn cache(engine: &Engine, shows: &Shows, check: &dyn Fn() -> Result<(), Error>) -> Result<Held, Error> {
    let Shows::Cache { name, sharing, mode, uid, gid, layers, source } = shows else { return Err(Error::Canceled) };
    let attributes = Attributes { mode: *mode, uid: *uid, gid: *gid };
    let fill = |to: &OwnedFd| -> Result<(), Error> {
        if layers.is_empty() {
            return Ok(());
        }
        let lower = engine.open_layers(layers)?;
        let tree = engine.mount_layers(&lower, None)?;
        let path = if source.is_empty() { "/" } else { source.as_str() };
        let from = inside::open(tree.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
            .map_err(|errno| missing(source, errno))?;
        copy_files(from.as_fd(), to.as_fd())?;
        drop((from, tree));
        Ok(lower.release()?)
    };
    Cache::new(&engine.images).mount(name, (*sharing).into(), attributes, check, fill)
}

/// A path of a mount that is attached nowhere.
fn part(step: &Step<'_>, index: usize, tree: OwnedFd, path: &str) -> Result<OwnedFd, Error> {
    if path.split('/').all(|name| name.is_empty() || name == ".") {
        return Ok(tree);
    }
    match below(tree.as_fd(), path) {
        // Before Linux 6.15 only what is attached has parts: to a place that nobody but this process and its container
        // has.
        Err(Errno::INVAL) => {
            let place = step.subdirectory(&format!("place-{index}"))?;
            let attach = || -> Result<(), Errno> {
                hull_sys::clone::unshare(CloneFlags::NEWNS)?;
                let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                rustix::mount::mount_change("/", flags)?;
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                rustix::mount::move_mount(&tree, c"", CWD, &place, flags)
            };
            attach().and_then(|()| {
                let found = below(tree.as_fd(), path);
                rustix::mount::unmount(&place, UnmountFlags::DETACH)?;
                found
            })
        }
        result => result,
    }
    .map_err(|errno| missing(path, errno))
}

/// A path of a tree as a mount of its own.
fn below(tree: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "/" } else { path };
    let found = inside::open(tree, path, OFlags::PATH, Mode::empty())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(&found, c"", flags)
}

fn tmpfs(target: &str, size: Option<u64>) -> StepMount {
    let mut options = vec!["nosuid".to_owned()];
    options.extend(size.map(|size| format!("size={size}")));
    let mount = Mount {
        destination: target.to_owned(),
        kind: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        options,
        ..Mount::default()
    };
    StepMount { mount, tree: None }
}

/// A file system in memory that is never written to a disk, where the kernel can promise that (Linux 6.4).
fn memory() -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, c"mode", c"0755")?;
    let _ = rustix::mount::fsconfig_set_flag(&context, c"noswap");
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn write(memory: BorrowedFd<'_>, name: &str, content: &[u8], mode: u32, uid: u32, gid: u32) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(memory, name, flags, Mode::from_raw_mode(0o600))?;
    let fail = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    std::fs::File::from(file).write_all(content).map_err(fail)?;
    attributes(memory, name, mode, uid, gid)
}

fn attributes(memory: BorrowedFd<'_>, name: &str, mode: u32, uid: u32, gid: u32) -> Result<(), Errno> {
    let owner = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(memory, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmodat(memory, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
}
