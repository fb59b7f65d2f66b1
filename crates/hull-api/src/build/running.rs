//! Builds that can be ended by their names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::process::Ender;

/// Builds that clients gave a name, so that they can be ended by it.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<BTreeMap<String, Arc<Ender>>>);

impl Running {
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Ender>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
