//! A container's files as it sees them itself.
//!
//! One that runs is seen through `/proc/PID/root`. For one that does not, this process takes a mount namespace of its
//! own, mounts the layers and whatever the container has mounted, and takes all of it along when it ends. Under the
//! container's lock, so that it is not started meanwhile.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use hull_fs::inside;
use hull_runtime::state::process_start_time;
use hull_sys::clone::{CloneFlags, unshare};
use hull_sys::mount::{Attributes, Lookup, Propagation, mount_setattr};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use crate::config::{MountConfig, Source, UserChoice};
use crate::error::Error;
use crate::records::{Container, Engine, Phase, State};
use crate::rootfs;
use crate::volumes::attach::Opened;
use crate::volumes::mounts::clean;

fn tree(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, path, flags)
}

fn read_only(mount: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    let lookup = if recursive { Lookup::EMPTY_PATH | Lookup::RECURSIVE } else { Lookup::EMPTY_PATH };
    mount_setattr(mount, c"", lookup, Attributes::RDONLY, Attributes::empty(), None, None)
}

impl Engine {
    /// The root directory of a container. When it does not run, this process is in another mount namespace from then
    /// on, and keeps the container from being started until it ends.
    ///
    /// With it the first of the IDs that the container's users have in what is seen, 0 where it is the machine's.
    pub(super) fn view(&self, container: &Container) -> Result<(OwnedFd, u32), Error> {
        let state = self.state(&container.id)?;
        let running = |state: &State| {
            let private = container.config.namespaces.user == UserChoice::Private;
            let first = if private { self.block(&container.id)? } else { 0 };
            Ok((running(container, state.pid, state.pid_start)?, first))
        };
        if state.phase == Phase::Running {
            return running(&state);
        }
        let lock = self.lock(&container.id)?;
        let state = self.state(&container.id)?;
        self.await_monitor(&container.id, &state);
        match state.phase {
            Phase::Running => return running(&state),
            Phase::Created | Phase::Exited if !self.starting(&container.id) => {}
            _ => {
                let status = "being started".to_owned();
                return Err(Error::Status { operation: "copy files of", id: container.id.clone(), status });
            }
        }
        // Held until the process ends, as the mounts are.
        std::mem::forget(lock);
        Ok((self.stopped(container)?, 0))
    }

    fn stopped(&self, container: &Container) -> Result<OwnedFd, Error> {
        let fail = |errno: Errno| match errno {
            Errno::PERM => Error::Copy("copying files of a container that does not run needs root".to_owned()),
            errno => Error::io("mount files of container", &container.name)(errno),
        };
        unshare(CloneFlags::NEWNS).map_err(fail)?;
        let (lookup, nothing) = (Lookup::RECURSIVE, Attributes::empty());
        mount_setattr(CWD, c"/", lookup, nothing, nothing, Some(Propagation::Private), None).map_err(fail)?;
        let directory = self.directory(&container.id);
        let mounted = match &container.config.source {
            Source::Directory(path) => tree(path).map_err(Error::io("open", path))?,
            Source::Image(_) => {
                let lower = self.lower_of("copy files of", container)?;
                let mut layers = lower.layers().to_vec();
                layers.push(self.skeleton()?.into());
                let mounted = rootfs::overlay_above(&layers, &directory.join("upper"), &directory.join("work"))?;
                lower.release()?;
                mounted
            }
        };
        let place = directory.join("rootfs");
        rustix::mount::move_mount(&mounted, c"", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(fail)?;
        let mut mounts: Vec<&MountConfig> = container.config.mounts.iter().collect();
        mounts.sort_by_key(|mount| clean(mount.target()).matches('/').count());
        for mount in mounts {
            self.show(mounted.as_fd(), mount)?;
        }
        if container.config.read_only {
            read_only(mounted.as_fd(), false).map_err(fail)?;
        }
        Ok(mounted)
    }

    /// Mounts one of the container's mounts at its place.
    fn show(&self, root: BorrowedFd<'_>, mount: &MountConfig) -> Result<(), Error> {
        if matches!(mount, MountConfig::Tmpfs { .. }) {
            // It is empty until the container runs.
            return Ok(());
        }
        let target = clean(mount.target());
        let fail = |errno: Errno| Error::io("mount for the copy", &target)(errno);
        let opened = match self.open_mount(mount)? {
            Opened::Tree(tree) => tree,
            Opened::Path(path) => match tree(&path) {
                // A path of the host that is gone is the next start's problem.
                Err(Errno::NOENT) => return Ok(()),
                opened => opened.map_err(Error::io("open", &path))?,
            },
        };
        if mount.read_only() {
            read_only(opened.as_fd(), true).map_err(fail)?;
        }
        let path = std::path::Path::new(&target);
        let found = match inside::file_type(&opened).map_err(fail)?.is_dir() {
            true => inside::create_dir_all(root, path, Mode::from_raw_mode(0o755)),
            false => inside::create_file(root, path, Mode::from_raw_mode(0o644)),
        };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&opened, c"", found.map_err(fail)?, c"", flags).map_err(fail)
    }
}

fn running(container: &Container, pid: i32, start: u64) -> Result<OwnedFd, Error> {
    let path = format!("/proc/{pid}/root");
    let gone = || Error::Status {
        operation: "copy files of",
        id: container.id.clone(),
        status: "ending: try again".to_owned(),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match rustix::fs::open(&path, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::SRCH) => return Err(gone()),
        root => root.map_err(Error::io("open", &path))?,
    };
    // What was opened is the container's if the number still is.
    if process_start_time(pid) == Some(start) { Ok(root) } else { Err(gone()) }
}
