//! `/dev/shm` of another container, for `--ipc container:NAME`: who shares queues and segments shares this too.
//!
//! A mount can be copied only from inside its mount namespace, so a process of its own enters that, copies the mount, and
//! is asked for the descriptor. It must never follow a link of the other container's.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use hull_oci::spec::Spec;
use hull_runtime::state::process_start_time;
use hull_sys::clone::{CloneFlags, Cloned, clone3, exit_now};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdGetfdFlags, WaitId, WaitIdOptions, pidfd_getfd, waitid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::config::NamespaceChoice;
use crate::error::Error;
use crate::records::{Container, Engine, own_pid};

/// `f_type` of a tmpfs (`statfs(2)`).
const TMPFS: i64 = 0x0102_1994;

const SHM: &str = "/dev/shm";

impl Engine {
    /// Puts the other container's `/dev/shm` in the place of a new one.
    pub(crate) fn share_memory(
        &self,
        container: &Container,
        spec: &mut Spec,
        trees: &mut Vec<(usize, OwnedFd)>,
    ) -> Result<(), Error> {
        let NamespaceChoice::Container(name) = &container.config.namespaces.ipc else { return Ok(()) };
        let Some(index) = spec.mounts.iter().position(|one| one.destination == SHM && one.kind == "tmpfs") else {
            return Ok(());
        };
        let other = self.find(name)?;
        let state = self.state(&other.id)?;
        let fail = |errno: Errno| Error::io("share /dev/shm of container", &other.name)(errno);
        let namespace = File::open(format!("/proc/{}/ns/mnt", state.pid)).map_err(Error::io("open", "namespace"))?;
        if process_start_time(state.pid) != Some(state.pid_start) {
            return Err(fail(Errno::SRCH));
        }
        let Some(tree) = copied(&namespace.into()).map_err(fail)? else { return Ok(()) };
        let mount = &mut spec.mounts[index];
        mount.kind = "bind".to_owned();
        mount.source = format!("/proc/{}/fd/{}", own_pid(), tree.as_raw_fd());
        mount.options = ["bind", "nosuid", "noexec", "nodev"].map(str::to_owned).to_vec();
        trees.push((index, tree));
        Ok(())
    }
}

/// A detached copy of `/dev/shm` in a mount namespace; none if that has no file system in memory there.
fn copied(namespace: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let (answer, said) = pipe_with(PipeFlags::CLOEXEC)?;
    let (wait, held) = pipe_with(PipeFlags::CLOEXEC)?;
    match clone3(CloneFlags::empty(), None)? {
        Cloned::Child => {
            drop((answer, held));
            let tree = enter(namespace);
            let number = match &tree {
                Ok(Some(tree)) => tree.as_raw_fd(),
                Ok(None) => i32::MAX,
                Err(errno) => -errno.raw_os_error(),
            };
            let _ = rustix::io::write(&said, &number.to_ne_bytes());
            drop(said);
            // Until the other side has its copy of the descriptor, or is gone.
            let _ = rustix::io::read(&wait, &mut [0_u8; 1]);
            exit_now(0)
        }
        Cloned::Parent(_, pidfd) => {
            drop((said, wait));
            let mut bytes = [0; 4];
            let result = match rustix::io::read(&answer, &mut bytes) {
                Ok(4) => match i32::from_ne_bytes(bytes) {
                    i32::MAX => Ok(None),
                    number if number < 0 => Err(Errno::from_raw_os_error(-number)),
                    number => pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).map(Some),
                },
                Ok(_) => Err(Errno::CHILD),
                Err(errno) => Err(errno),
            };
            drop(held);
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            result
        }
    }
}

fn enter(namespace: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let found = match rustix::fs::openat2(CWD, SHM, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        found => found?,
    };
    if rustix::fs::fstatfs(&found)?.f_type != TMPFS {
        return Ok(None);
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(&found, c"", flags).map(Some)
}
