//! Images that were found before, for a process that answers many requests: they are what they were as long as nobody has
//! changed any record.
//!
//! The configuration of an image is read and its digest computed only once while nothing changes. A file that is damaged
//! meanwhile is noticed when its content is used.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hull_db::Moment;
use hull_fs::Stamp;

use crate::image::Image;

/// So many words for images are kept.
const MOST: usize = 128;

#[derive(Debug, Default)]
struct Known {
    moment: Option<Moment>,
    found: HashMap<String, Image>,
    all: Option<Vec<Image>>,
}

/// What is kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    known: Mutex<Known>,
    /// Directories in which there was nothing.
    empty: Mutex<HashMap<PathBuf, Stamp>>,
}

impl Kept {
    fn at(&self, moment: Moment) -> MutexGuard<'_, Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.moment != Some(moment) {
            *known = Known { moment: Some(moment), ..Known::default() };
        }
        known
    }

    /// What a name or ID meant.
    pub(crate) fn image(&self, moment: Moment, text: &str) -> Option<Image> {
        self.at(moment).found.get(text).cloned()
    }

    pub(crate) fn put(&self, moment: Moment, text: &str, image: &Image) {
        let mut known = self.at(moment);
        if known.found.len() < MOST {
            known.found.insert(text.to_owned(), image.clone());
        }
    }

    /// All images.
    pub(crate) fn all(&self, moment: Moment) -> Option<Vec<Image>> {
        self.at(moment).all.clone()
    }

    pub(crate) fn put_all(&self, moment: Moment, images: &[Image]) {
        let mut known = self.at(moment);
        if images.len() <= MOST {
            known.all = Some(images.to_vec());
        }
    }

    /// Whether there is still nothing in a directory in which there was nothing.
    pub(crate) fn is_empty(&self, directory: &Path) -> bool {
        let now = fs::metadata(directory).ok().map(|metadata| Stamp::of(&metadata));
        let empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        now.is_some() && empty.get(directory).copied() == now
    }

    /// Notes that there is nothing in a directory: `look` gives what there is.
    pub(crate) fn look<T, E>(&self, directory: &Path, look: impl FnOnce() -> Result<Vec<T>, E>) -> Result<Vec<T>, E> {
        let before = fs::metadata(directory).ok().map(|metadata| Stamp::of(&metadata)).filter(Stamp::is_settled);
        let found = look()?;
        let mut empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        match before.filter(|_| found.is_empty()) {
            Some(stamp) => empty.insert(directory.to_owned(), stamp),
            None => empty.remove(directory),
        };
        Ok(found)
    }

    /// Nothing is known any more.
    pub(crate) fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Known::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_empty_is_looked_at_again_once_something_is_in_it() {
        let (kept, parent) = (Kept::default(), tempfile::tempdir().unwrap());
        let path = parent.path();
        let look = || kept.look(path, || crate::disk::names(path)).unwrap();
        assert!(!kept.is_empty(path));
        std::thread::sleep(hull_fs::TICK * 2);
        assert!(look().is_empty() && kept.is_empty(path));
        fs::write(path.join("one"), "").unwrap();
        assert!(!kept.is_empty(path) && look().len() == 1 && !kept.is_empty(path));
        fs::remove_file(path.join("one")).unwrap();
        assert!(look().is_empty() && !kept.is_empty(path), "it may change within the same tick");
        std::thread::sleep(hull_fs::TICK * 2);
        assert!(look().is_empty() && kept.is_empty(path));
        fs::remove_dir(path).unwrap();
        assert!(!kept.is_empty(path));
    }
}
