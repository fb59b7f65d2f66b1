//! Images that were found before, for a process that answers many requests: they are what they were as long as nobody has
//! changed any record.
//!
//! The configuration of an image is read and its digest computed only once while nothing changes. A file that is damaged
//! meanwhile is noticed when its content is used.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hull_db::Moment;

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
pub(crate) struct Kept(Mutex<Known>);

impl Kept {
    fn at(&self, moment: Moment) -> MutexGuard<'_, Known> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Nothing is known any more.
    pub(crate) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Known::default();
    }
}
