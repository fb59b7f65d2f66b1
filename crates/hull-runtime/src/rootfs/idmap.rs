//! User namespaces that carry the mapping of an idmapped mount.
//!
//! The kernel takes a mapping only as a user namespace. A short-lived process makes one, the parent writes its maps and
//! keeps its descriptor; the process ends when the pipe to it is closed, also by the parent's death.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use hull_fs::Procfs;
use hull_oci::spec::IdMapping;
use hull_sys::clone::{CloneFlags, Cloned, clone3, exit_now};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{WaitId, WaitIdOptions};

use crate::error::Error;

/// Maps of one namespace, and its descriptor.
type Made = (Vec<IdMapping>, Vec<IdMapping>, Rc<OwnedFd>);

/// Makes a namespace for each different mapping, once.
#[derive(Debug)]
pub(super) struct Mappings<'a> {
    own_uids: &'a [IdMapping],
    own_gids: &'a [IdMapping],
    made: Vec<Made>,
}

impl<'a> Mappings<'a> {
    pub(super) fn new(own_uids: &'a [IdMapping], own_gids: &'a [IdMapping]) -> Self {
        Self { own_uids, own_gids, made: Vec::new() }
    }

    /// A namespace with the mount's own maps, or the container's where it has none.
    pub(super) fn user_namespace(
        &mut self,
        field: &str,
        uids: &[IdMapping],
        gids: &[IdMapping],
    ) -> Result<Rc<OwnedFd>, Error> {
        if uids.is_empty() != gids.is_empty() {
            return Err(Error::config(field, "has only one of uidMappings and gidMappings, expected both or none"));
        }
        let (uids, gids) = if uids.is_empty() { (self.own_uids, self.own_gids) } else { (uids, gids) };
        if uids.is_empty() || gids.is_empty() {
            return Err(Error::config(field, "is idmapped, but neither it nor linux has uidMappings and gidMappings"));
        }
        if let Some((.., namespace)) = self.made.iter().find(|made| made.0 == uids && made.1 == gids) {
            return Ok(Rc::clone(namespace));
        }
        let namespace =
            make(uids, gids).map_err(Error::system("create user namespace for the ID mapping of", field))?;
        let namespace = Rc::new(namespace);
        self.made.push((uids.to_vec(), gids.to_vec(), Rc::clone(&namespace)));
        Ok(namespace)
    }
}

pub(super) fn make(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, Errno> {
    let (wait, release) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (pid, pidfd) = match clone3(CloneFlags::NEWUSER, None)? {
        Cloned::Child => {
            drop(release);
            let mut byte = [0u8; 1];
            let _ = rustix::io::retry_on_intr(|| rustix::io::read(&wait, &mut byte));
            exit_now(0)
        }
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
    };
    let namespace = write_maps(pid, uids, gids);
    drop(release);
    let waited = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)), WaitIdOptions::EXITED)
    });
    waited?;
    namespace
}

fn write_maps(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, Errno> {
    let procfs = Procfs::new().map_err(|error| error.errno().unwrap_or(Errno::INVAL))?;
    procfs.write_raw(&format!("{pid}/uid_map"), lines(uids).as_bytes())?;
    let group_map = format!("{pid}/gid_map");
    match procfs.write_raw(&group_map, lines(gids).as_bytes()) {
        // Without privilege a group map needs setgroups(2) given up first.
        Err(Errno::PERM) => {
            procfs.write_raw(&format!("{pid}/setgroups"), b"deny")?;
            procfs.write_raw(&group_map, lines(gids).as_bytes())?;
        }
        result => result?,
    }
    // The namespace file is a magic link: opened from its directory, which was reached without one.
    let directory = procfs.open_raw(&format!("{pid}/ns"), OFlags::PATH | OFlags::DIRECTORY)?;
    rustix::fs::openat(&directory, c"user", OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
}

/// One line for each range, as `/proc/PID/uid_map` takes them.
fn lines(maps: &[IdMapping]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for map in maps {
        let _ = writeln!(text, "{} {} {}", map.container_id, map.host_id, map.size);
    }
    text
}
