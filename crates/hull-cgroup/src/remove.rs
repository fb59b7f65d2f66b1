//! Removing groups with everything nested in them.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use crate::cgroup::{Cgroup, DEFAULT_PARENT, Driver, Group};
use crate::error::Error;
use crate::hierarchies::Hierarchies;
use crate::io;

/// A group stays busy for a moment after its last process: 10 tries, 1 ms doubling, about half a second in all.
const TRIES: u32 = 10;

impl Cgroup {
    /// Removes the groups of an ended container, nested ones first. Every hierarchy is tried before an error is
    /// returned; a group that is gone is not an error. Frozen processes are thawed, so that killed ones can end.
    ///
    /// # Errors
    /// `EBUSY` while processes remain.
    pub fn delete(&self) -> Result<(), Error> {
        if self.driver() == Driver::Disabled {
            return Ok(());
        }
        let mut errors = Vec::new();
        if let Some(unit) = &self.unit {
            errors.extend(unit.stop(self.rootless).err());
        }
        let mut thawed = false;
        for group in &self.groups {
            let directory = group.directory();
            let mut pause = Duration::from_millis(1);
            for attempt in 0..TRIES {
                let removed = match rustix::fs::rmdir(&directory) {
                    Ok(()) | Err(Errno::NOENT) => break,
                    Err(Errno::BUSY | Errno::NOTEMPTY) => remove_children(&directory),
                    Err(errno) => Err(Error::system("remove cgroup", &directory)(errno)),
                };
                if !thawed {
                    thawed = true;
                    // Without a freezer there is nothing to thaw.
                    let _ = self.thaw();
                }
                let removed = removed.and_then(|()| match rustix::fs::rmdir(&directory) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(Error::system("remove cgroup", &directory)(errno)),
                });
                match removed {
                    Ok(()) => break,
                    Err(error) if attempt + 1 < TRIES && error.errno() == Some(Errno::BUSY) => {
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(100));
                    }
                    Err(error) => {
                        errors.push(error);
                        break;
                    }
                }
            }
            // The default parent stays: it is empty, and the next container needs it again in every hierarchy.
        }
        Error::collect(errors)
    }
}

impl Cgroup {
    /// Removes what another runtime made under the container's path in hierarchies that this plan leaves alone (the named
    /// ones of v1, and v2 beside v1): it takes its own group away, but not the default parent, and neither when it is killed.
    pub fn delete_elsewhere(&self, hierarchies: &Hierarchies) {
        let Some(path) = self.groups.first().map(|group| &group.path) else { return };
        for hierarchy in hierarchies.list() {
            let directory = Group::new(hierarchy, path.clone()).directory();
            if self.groups.iter().any(|group| group.mount == hierarchy.mount) {
                continue;
            }
            // What is in use, or was never made, stays as it is.
            let _ = rustix::fs::rmdir(&directory);
            if let Some(parent) = directory.parent().filter(|parent| parent.ends_with(DEFAULT_PARENT)) {
                let _ = rustix::fs::rmdir(parent);
            }
        }
    }
}

/// Removes nested groups, deepest first.
fn remove_children(directory: &Path) -> Result<(), Error> {
    let dir = match io::open_dir(directory) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(Error::system("open cgroup", directory))?,
    };
    for name in io::children(dir.as_fd()).map_err(Error::system("list cgroup", directory))? {
        let below = directory.join(&name);
        remove_children(&below)?;
        match rustix::fs::rmdir(&below) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::system("remove cgroup", below)(errno)),
        }
    }
    Ok(())
}
