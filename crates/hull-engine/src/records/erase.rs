//! Removing: first a container's directory is renamed, with which it is gone for everybody, then what it had elsewhere is
//! given back, and its files go last, when nobody waits any more.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Container, Engine, read};
use crate::config::UserChoice;
use crate::error::Error;

/// In the directory of a container that is removed with its anonymous volumes.
const WITH_VOLUMES: &str = "with-volumes";

/// The files of a container that is no more. A process that is killed before they are gone leaves its intent, by which the
/// next command finds them.
#[derive(Debug)]
#[must_use = "the files stay until they are removed"]
pub(crate) struct Removed(PathBuf);

impl Removed {
    /// Removes them, which may take a while: file systems wait for the disk when they free blocks.
    pub(crate) fn finish(self) -> Result<(), Error> {
        hull_image::remove_tree(&self.0).map_err(Error::io("remove", &self.0))
    }
}

/// Under which a container holds its image.
pub(super) fn owner(id: &str) -> String {
    format!("container:{id}")
}

impl Engine {
    /// Removes a container's name and directory, and with `volumes` its anonymous volumes. It must not run.
    pub(crate) fn erase(&self, id: &str, volumes: bool) -> Result<(), Error> {
        self.unlist(id, self.container(id).ok().as_ref(), volumes)?.finish()
    }

    /// The part of [`Self::erase`] that others can see: afterwards the container is gone, its name is free, its image and
    /// volumes are unused, and only files without a name are left.
    pub(crate) fn unlist(&self, id: &str, record: Option<&Container>, volumes: bool) -> Result<Removed, Error> {
        let users = record.is_some_and(|one| one.config.namespaces.user == UserChoice::Private);
        let plain = record.is_some_and(|container| container.image_id.is_empty());
        let result = self.hide(id, record, volumes);
        // Last, and also for a container that was killed before it had files.
        if !plain && matches!(result, Ok(_) | Err(Error::NoContainer(_))) {
            self.release_image(id)?;
        }
        if users && result.is_ok() {
            self.release_block(id);
        }
        result
    }

    /// Gives a container's image back. Even that is written down first, for which a full disk has room only when the files
    /// are gone, and the mount over them, which the kernel takes down a while after its last process.
    fn release_image(&self, id: &str) -> Result<(), Error> {
        for _ in 0..200 {
            match self.images.release(&owner(id)) {
                Err(hull_image::Error::Full { .. }) => Removed(self.leaving(id)).finish()?,
                released => return Ok(released?),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(self.images.release(&owner(id))?)
    }

    /// What belongs to a container beside its directory, once its record is out of the others' sight. An interrupted
    /// removal comes here again.
    fn erase_more(&self, container: &Container, directory: &Path, volumes: bool) -> Result<(), Error> {
        for (index, mount) in container.config.mounts.iter().enumerate() {
            if matches!(mount, crate::config::MountConfig::Image { .. }) {
                self.images.release(&crate::volumes::attach::image_owner(&container.id, index))?;
            }
        }
        if container.config.storage_size.is_some() {
            let (upper, work) = (directory.join("upper"), directory.join("work"));
            // A limit that stays limits nothing.
            let _ = crate::volumes::limit_writes(&container.id, [&upper, &work], None);
        }
        if volumes || container.config.remove || directory.join(WITH_VOLUMES).exists() {
            self.remove_anonymous(container)?;
        }
        Ok(())
    }

    /// Says that a container's anonymous volumes go with it, also if the removal is interrupted.
    pub(crate) fn mark_volumes(&self, id: &str) -> Result<(), Error> {
        let path = self.directory(id).join(WITH_VOLUMES);
        fs::write(&path, "").map_err(Error::io("write", &path))
    }

    /// Removes the directory of something that has no name, as a container is.
    pub(crate) fn erase_files(&self, id: &str, volumes: bool) -> Result<(), Error> {
        self.hide(id, None, volumes)?.finish()
    }

    fn hide(&self, id: &str, record: Option<&Container>, volumes: bool) -> Result<Removed, Error> {
        let removing = self.leaving(id);
        let directory = self.directory(id);
        match fs::rename(&directory, &removing) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && removing.exists() => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoContainer(id.to_owned()));
            }
            Err(error) => return Err(Error::io("rename", &directory)(error)),
        }
        if let Some(link) = record.and_then(|container| self.own_link(id, &container.name))
            && fs::rename(&link, removing.join("name")).is_err()
        {
            // One that stays names nobody, and is free for the next.
            let _ = fs::remove_file(&link);
        }
        let kept: Option<Container>;
        let record = match record {
            Some(_) => record,
            None => {
                kept = read(&removing.join("container.json")).ok();
                kept.as_ref()
            }
        };
        if let Some(container) = record {
            self.erase_more(container, &removing, volumes)?;
        }
        Ok(Removed(removing))
    }
}
