//! Removing volumes: anonymous ones go, named ones can be restored for a while.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::stage::{self, Stage};
use super::{KEPT, Volume, checked, no_such, read_volume};
use crate::error::Error;
use crate::names;
use crate::records::{Container, Engine, create_private, now};

/// What a removal does with a named volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It goes to the trash.
    Trash,
    /// It goes.
    Now,
}

/// A volume in the trash.
#[derive(Clone, Debug)]
pub struct Trashed {
    /// The volume as it was.
    pub volume: Volume,
    /// Seconds since 1970 when it goes.
    pub until: u64,
    /// Name below `.trash`.
    key: String,
}

/// What a removal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It can be restored.
    Trashed,
    /// It is gone; this many bytes are free.
    Gone(u64),
}

fn seconds() -> u64 {
    now() / 1_000_000_000
}

/// How long volumes stay in the trash: the setting `trash-time` as `90s`, `36h`, `7d`, or seconds.
#[must_use]
pub fn kept() -> Duration {
    let Some(text) = hull_config::text("trash-time") else { return KEPT };
    let (number, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text.as_str(), 1),
    };
    // What cannot be understood must not cost data.
    number.parse::<u64>().map_or(KEPT, |number| Duration::from_secs(number.saturating_mul(unit)))
}

impl Engine {
    fn trash(&self) -> PathBuf {
        self.volumes_root().join(".trash")
    }

    /// Removes a volume that no container uses.
    ///
    /// # Errors
    /// [`Error::NoVolume`]; [`Error::Volume`] in Docker's words when it is in use.
    pub fn remove_volume(&self, name: &str, removal: Removal) -> Result<Removed, Error> {
        let lock = self.lock_volumes()?;
        let volume = self.volume(name)?;
        self.refuse_used("remove", name)?;
        let directory = self.volume_directory(name);
        let kept = kept();
        let removed = if volume.anonymous || removal == Removal::Now || kept.is_zero() {
            let size = crate::usage::occupied(&self.volume_data(name));
            let stage = Stage::new(self)?;
            stage.take(&directory)?;
            drop(lock);
            stage.remove()?;
            Removed::Gone(size)
        } else {
            create_private(&self.trash())?;
            let until = seconds().saturating_add(kept.as_secs());
            let key = format!("{name}@{until}@{}", &names::hex(&names::random()?)[..8]);
            stage::rename(&directory, &self.trash().join(key))?;
            Removed::Trashed
        };
        self.volume_event(&volume, "destroy");
        Ok(removed)
    }

    /// The anonymous volumes of a container that is gone, unless another has them too.
    pub(crate) fn remove_anonymous(&self, container: &Container) -> Result<(), Error> {
        let mut result = Ok(());
        for name in super::volumes_of(container) {
            let anonymous = self.volume(name).is_ok_and(|volume| volume.anonymous);
            if !anonymous {
                continue;
            }
            match self.remove_volume(name, Removal::Now) {
                // Another container has it from this one, or another command was faster.
                Ok(_) | Err(Error::Volume(_) | Error::NoVolume(_)) => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// What can be restored, the newest last.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn trashed_volumes(&self) -> Result<Vec<Trashed>, Error> {
        let trash = self.trash();
        let entries = match fs::read_dir(&trash) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("read", &trash))?,
        };
        let one = |key: String| {
            let mut parts = key.split('@');
            let (name, until) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
            let volume = read_volume(&trash.join(&key), &name).ok()?;
            Some(Trashed { volume, until, key })
        };
        let mut list: Vec<Trashed> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter_map(one).collect();
        list.sort_by(|a, b| (a.until, &a.volume.name).cmp(&(b.until, &b.volume.name)));
        Ok(list)
    }

    /// Takes the newest volume of that name out of the trash, under its own or a new name.
    ///
    /// # Errors
    /// [`Error::NoVolume`] when there is none; [`Error::Volume`] when the name is taken.
    pub fn restore_volume(&self, name: &str, new: Option<&str>) -> Result<Volume, Error> {
        let new = new.unwrap_or(name);
        crate::flags::volume_name(new).map_err(Error::Volume)?;
        let _lock = self.lock_volumes()?;
        let found = self.trashed_volumes()?.into_iter().rfind(|one| one.volume.name == name);
        let Some(found) = found else { return Err(no_such(checked(name)?)) };
        stage::rename(&self.trash().join(&found.key), &self.volume_directory(new))?;
        let volume = Volume { name: new.to_owned(), ..found.volume };
        self.volume_event(&volume, "restore");
        Ok(volume)
    }

    /// Removes what has been in the trash for long enough, or everything of it. Returns the bytes that are free.
    ///
    /// # Errors
    /// When something cannot be removed; everything else was tried.
    pub fn empty_trash(&self, all: bool) -> Result<u64, Error> {
        let (mut freed, mut result) = (0, Ok(()));
        for trashed in self.trashed_volumes()? {
            if !all && trashed.until > seconds() {
                continue;
            }
            let path = self.trash().join(&trashed.key);
            let size = crate::usage::occupied(&path.join("_data"));
            let lock = self.lock_volumes()?;
            let removed = Stage::new(self).and_then(|stage| stage.take(&path).map(|()| stage));
            drop(lock);
            match removed.and_then(Stage::remove) {
                Ok(()) => freed += size,
                Err(error) => result = result.and(Err(error)),
            }
        }
        result.map(|()| freed)
    }
}
