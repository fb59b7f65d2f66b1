//! Records that were read before and are still the same on disk, for a process that answers many requests.
//!
//! Nobody tells such a process of changes: each time a record is wanted its file is looked at, and read again unless it is
//! the same file with the same times. A record that was changed a moment before it was read is not kept, because a change
//! within the same tick of the clock, in a file that got the same number, could not be told from it.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hull_fs::Stamp;
use serde::de::DeserializeOwned;

use super::{Container, MAX_RECORD_BYTES, State};
use crate::error::Error;

/// Records of so many containers are kept.
const MOST: usize = 1000;

#[derive(Debug)]
struct One<T> {
    stamp: Stamp,
    record: Arc<T>,
}

/// Records by the ID of their container.
#[derive(Debug)]
struct Records<T>(Mutex<HashMap<String, One<T>>>);

impl<T> Default for Records<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: DeserializeOwned> Records<T> {
    fn map(&self) -> MutexGuard<'_, HashMap<String, One<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, id: &str, path: &Path) -> Result<Arc<T>, Error> {
        let stamp = match fs::metadata(path) {
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) => {
                self.map().remove(id);
                return Err(Error::io("open", path)(error));
            }
        };
        if let Some(found) = self.map().get(id).filter(|one| one.stamp == stamp) {
            return Ok(Arc::clone(&found.record));
        }
        let mut bytes = Vec::with_capacity(8 << 10);
        let mut file = fs::File::open(path).map_err(Error::io("open", path))?;
        let stamp = Stamp::of(&file.metadata().map_err(Error::io("look at", path))?);
        let settled = stamp.is_settled();
        (&mut file).take(MAX_RECORD_BYTES).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        let record = serde_json::from_slice(&bytes)
            .map_err(|source| Error::Record { path: path.display().to_string(), source })?;
        let record = Arc::new(record);
        // One that was written over while it was read has other times now.
        let same = file.metadata().is_ok_and(|metadata| Stamp::of(&metadata) == stamp);
        let mut map = self.map();
        if settled && same && (map.len() < MOST || map.contains_key(id)) {
            map.insert(id.to_owned(), One { stamp, record: Arc::clone(&record) });
        } else {
            map.remove(id);
        }
        Ok(record)
    }

    fn retain(&self, wanted: impl Fn(&str) -> bool) {
        let mut map = self.map();
        map.retain(|id, _| wanted(id));
        if map.capacity() / 4 > map.len() {
            map.shrink_to_fit();
        }
    }
}

/// What is kept of containers.
#[derive(Debug, Default)]
pub(super) struct Kept {
    containers: Records<Container>,
    states: Records<State>,
}

impl Kept {
    pub(super) fn container(&self, id: &str, path: &Path) -> Result<Arc<Container>, Error> {
        self.containers.read(id, path)
    }

    pub(super) fn state(&self, id: &str, path: &Path) -> Result<State, Error> {
        self.states.read(id, path).map(|state| State::clone(&state))
    }

    /// Forgets all containers but these.
    pub(super) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.containers.retain(&wanted);
        self.states.retain(&wanted);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hull_fs::TICK;

    use super::*;
    use crate::records::{Phase, write};

    fn age(path: &Path) {
        // The change time cannot be set; the file just has to be older than a tick.
        std::thread::sleep(TICK + Duration::from_millis(5));
        assert!(Stamp::of(&fs::metadata(path).unwrap()).is_settled());
    }

    #[test]
    fn what_was_replaced_or_written_over_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let kept = Kept::default();
        let state = |phase| State { phase, ..State::default() };
        assert!(kept.state("a", &path).is_err());
        write(&path, &state(Phase::Created)).unwrap();
        age(&path);
        for _ in 0..2 {
            assert_eq!(kept.state("a", &path).unwrap().phase, Phase::Created);
        }
        assert_eq!(kept.states.map().len(), 1);
        for phase in [Phase::Running, Phase::Exited, Phase::Running, Phase::Created] {
            write(&path, &state(phase)).unwrap();
            assert_eq!(kept.state("a", &path).unwrap().phase, phase);
        }
        age(&path);
        assert_eq!(kept.state("a", &path).unwrap().phase, Phase::Created);
        fs::write(&path, serde_json::to_vec(&state(Phase::Exited)).unwrap()).unwrap();
        assert_eq!(kept.state("a", &path).unwrap().phase, Phase::Exited);
        fs::remove_file(&path).unwrap();
        assert!(kept.state("a", &path).is_err());
        assert!(kept.states.map().is_empty());
    }

    #[test]
    fn what_is_young_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let kept = Kept::default();
        write(&path, &State::default()).unwrap();
        let young = !Stamp::of(&fs::metadata(&path).unwrap()).is_settled();
        kept.state("a", &path).unwrap();
        // Unless this test was held up for longer than a tick.
        assert!(!young || kept.states.map().is_empty() || Stamp::of(&fs::metadata(&path).unwrap()).is_settled());
    }

    #[test]
    fn others_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::default();
        let paths = ["a", "b"].map(|name| (name, dir.path().join(name)));
        for (_, path) in &paths {
            write(path, &State::default()).unwrap();
        }
        age(&paths[1].1);
        for (name, path) in &paths {
            kept.state(name, path).unwrap();
        }
        kept.retain(|id| id == "b");
        assert_eq!(kept.states.map().keys().collect::<Vec<_>>(), ["b"]);
    }
}
