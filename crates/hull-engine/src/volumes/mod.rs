//! Volumes: data that outlives containers.
//!
//! ```text
//! ROOT/volumes/                 0700
//! ├─ lock                       held while a volume appears, disappears or changes its name
//! ├─ NAME/                      its name is the directory's
//! │  ├─ volume.json             driver, options, labels, when it was made
//! │  ├─ _data/                  what containers see
//! │  ├─ fill.lock               held while it gets an image's files at its first use
//! │  └─ filling                 that was begun: the next use goes on with it
//! ├─ .staging/RANDOM/           what is being made or removed; locked by whoever does, unlocked means abandoned
//! └─ .trash/NAME@UNTIL@RANDOM/  removed, and restorable until then (seconds since 1970)
//! ```
//!
//! A volume appears and disappears by one rename, so it is whole or not there. A container's record names its volumes
//! **before** they are made, and removal looks at all records under the lock: what a container is about to use is not
//! removed under its hands. Named volumes go to the trash for [`KEPT`] (`HULL_TRASH_TIME` says otherwise, `0` is
//! never); anonymous ones go at once. [`Engine::repair`] removes what was abandoned, and commands on volumes empty the
//! trash of what is past its time; `run` does neither.
//!
//! * [`mounts`]: what a container's flags, its image and other containers come to.
//! * [`attach`]: that, made ready for a start.
//! * [`device`]: the `local` driver's options.
//! * [`trash`], [`transfer`]: removal; archives and copies.

pub(crate) mod attach;
mod device;
pub mod mounts;
mod quota;
mod stage;
pub mod transfer;
pub mod trash;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_fs::lock::Lock;
use serde::{Deserialize, Serialize};

use crate::config::MountConfig;
use crate::error::Error;
use crate::events::{self, Actor};
use crate::records::{self, Container, Engine, create_private, now};
use crate::{flags, names};

pub(crate) use quota::limit as limit_writes;
use stage::Stage;

/// How long a removed named volume can be restored.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The one driver.
pub const DRIVER: &str = "local";

/// Docker's label of volumes that got no name.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Its name; not in the record, so that a rename is one step.
    #[serde(skip)]
    pub name: String,
    /// Always [`DRIVER`].
    pub driver: String,
    /// What is mounted as the volume, if it is not a directory: `type`, `o`, `device`.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Nanoseconds since 1970.
    pub created: u64,
    /// It got no name from anybody.
    pub anonymous: bool,
}

impl Default for Volume {
    fn default() -> Self {
        Self {
            name: String::new(),
            driver: DRIVER.to_owned(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            created: 0,
            anonymous: false,
        }
    }
}

fn no_such(name: &str) -> Error {
    Error::NoVolume(hull_oci::spec::one_line(name))
}

/// Checks a name before it becomes part of a path.
fn checked(name: &str) -> Result<&str, Error> {
    match flags::volume_name(name) {
        Ok(()) => Ok(name),
        Err(_) => Err(no_such(name)),
    }
}

fn read_volume(directory: &Path, name: &str) -> Result<Volume, Error> {
    let path = directory.join("volume.json");
    match records::read::<Volume>(&path) {
        Ok(volume) => Ok(Volume { name: name.to_owned(), ..volume }),
        Err(Error::Io { source, .. })
            if matches!(source.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Err(no_such(name))
        }
        // The machine went down before the record was on disk: the data is what counts.
        Err(Error::Record { .. }) if directory.join("_data").is_dir() => {
            Ok(Volume { name: name.to_owned(), ..Volume::default() })
        }
        Err(error) => Err(error),
    }
}

/// Names of volumes, each with the containers whose records have it.
pub type Users = BTreeMap<String, Vec<String>>;

impl Engine {
    fn volumes_root(&self) -> PathBuf {
        self.root().join("volumes")
    }

    fn volume_directory(&self, name: &str) -> PathBuf {
        self.volumes_root().join(name)
    }

    /// Where a volume's files are.
    #[must_use]
    pub fn volume_data(&self, name: &str) -> PathBuf {
        self.volume_directory(name).join("_data")
    }

    fn lock_volumes(&self) -> Result<Lock, Error> {
        create_private(&self.volumes_root())?;
        Ok(Lock::exclusive(&self.volumes_root().join("lock"))?)
    }

    /// A volume by name.
    ///
    /// # Errors
    /// [`Error::NoVolume`].
    pub fn volume(&self, name: &str) -> Result<Volume, Error> {
        read_volume(&self.volume_directory(checked(name)?), name)
    }

    /// The names of all volumes, sorted; no record is read.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn volume_names(&self) -> Result<Vec<String>, Error> {
        let root = self.volumes_root();
        let entries = match fs::read_dir(&root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("read", &root))?,
        };
        let names = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        Ok(names)
    }

    /// All volumes by name.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn volumes(&self) -> Result<Vec<Volume>, Error> {
        let root = self.volumes_root();
        let entries = match fs::read_dir(&root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("read", &root))?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut volumes: Vec<Volume> = names
            .filter(|name| !name.starts_with('.'))
            // One that disappears meanwhile, and the lock.
            .filter_map(|name| read_volume(&root.join(&name), &name).ok())
            .collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Who uses which volumes: containers that have a record, whether they run or not.
    ///
    /// # Errors
    /// When the containers cannot be read.
    pub fn volume_users(&self) -> Result<Users, Error> {
        let mut users = Users::new();
        for (container, _) in self.list_shared()? {
            for name in volumes_of(&container) {
                users.entry(name.to_owned()).or_default().push(container.id.clone());
            }
        }
        Ok(users)
    }

    /// Makes a volume, or finds the one of that name.
    ///
    /// # Errors
    /// When the name or an option is wrong.
    pub fn create_volume(&self, wanted: &Volume) -> Result<Volume, Error> {
        let mut volume = wanted.clone();
        let shown = if volume.name.is_empty() { String::new() } else { format!(" {}", volume.name) };
        if !matches!(volume.driver.as_str(), "" | DRIVER) {
            let driver = hull_oci::spec::one_line(&volume.driver);
            let reason = format!("error looking up volume plugin {driver}: plugin {driver:?} not found");
            return Err(Error::Volume(format!("create{shown}: {reason}")));
        }
        DRIVER.clone_into(&mut volume.driver);
        if volume.name.is_empty() {
            volume.name = names::hex(&names::random()?);
            volume.anonymous = true;
            volume.labels.entry(ANONYMOUS.to_owned()).or_default();
        }
        flags::volume_name(&volume.name).map_err(Error::Volume)?;
        device::check(&volume.options).map_err(|reason| Error::Volume(format!("create{shown}: {reason}")))?;
        let _lock = self.lock_volumes()?;
        match read_volume(&self.volume_directory(&volume.name), &volume.name) {
            Ok(found) => return Ok(found),
            Err(Error::NoVolume(_)) => {}
            Err(error) => return Err(error),
        }
        volume.created = now();
        let stage = Stage::new(self)?;
        stage.write(&volume)?;
        stage.publish(&self.volume_directory(&volume.name))?;
        self.volume_event(&volume, "create");
        Ok(volume)
    }

    fn volume_event(&self, volume: &Volume, action: &str) {
        let mut attributes = volume.labels.clone();
        attributes.insert("driver".to_owned(), volume.driver.clone());
        events::emit_of(self, "volume", action, Actor { id: volume.name.clone(), attributes });
    }

    /// Gives a volume another name.
    ///
    /// # Errors
    /// When a container uses it, or the name is taken.
    pub fn rename_volume(&self, name: &str, new: &str) -> Result<Volume, Error> {
        flags::volume_name(new).map_err(Error::Volume)?;
        let _lock = self.lock_volumes()?;
        let volume = self.volume(name)?;
        self.refuse_used("rename", name)?;
        stage::rename(&self.volume_directory(name), &self.volume_directory(new))?;
        // It has a name of somebody's now.
        let mut renamed = Volume { name: new.to_owned(), anonymous: false, ..volume };
        renamed.labels.remove(ANONYMOUS);
        records::write(&self.volume_directory(new).join("volume.json"), &renamed)?;
        self.volume_event(&renamed, "rename");
        Ok(renamed)
    }

    /// Under the lock: an error in Docker's words if a container has the volume.
    fn refuse_used(&self, operation: &str, name: &str) -> Result<(), Error> {
        match self.volume_users()?.get(name) {
            Some(users) => Err(Error::Volume(format!("{operation} {name}: volume is in use - [{}]", users.join(", ")))),
            None => Ok(()),
        }
    }

    /// Removes what killed commands were making or removing. Nearly always there is nothing to look at.
    pub(crate) fn repair_volumes(&self) -> Result<(), Error> {
        stage::repair(self)
    }
}

/// The volumes that a container's record names.
pub fn volumes_of(container: &Container) -> impl Iterator<Item = &str> {
    container.config.mounts.iter().filter_map(|mount| match mount {
        MountConfig::Volume { name, .. } => Some(name.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
