//! Those who wait for the start of a container, with the sockets that its monitor gets.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

/// Those who wait for one container: a number, the socket for its monitor, the streams that are wanted.
type List = Vec<(u64, OwnedFd, u8)>;

/// Monitors' ends of the sockets of those who wait, and what they want, by container.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<HashMap<String, List>>);

impl Waiting {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, List>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one under a number of its own.
    pub(super) fn add(&self, id: &str, number: u64, socket: OwnedFd, wants: u8) {
        self.map().entry(id.to_owned()).or_default().push((number, socket, wants));
    }

    /// Takes all of a container's, for its start.
    pub(super) fn take(&self, id: &str) -> Vec<(OwnedFd, u8)> {
        self.map().remove(id).into_iter().flatten().map(|(_, socket, wants)| (socket, wants)).collect()
    }

    /// Takes one away that waits no longer; `false` when it was taken for a start.
    pub(super) fn leave(&self, id: &str, number: u64) -> bool {
        let mut map = self.map();
        let Some(list) = map.get_mut(id) else { return false };
        let before = list.len();
        list.retain(|(one, ..)| *one != number);
        let was = list.len() < before;
        if list.is_empty() {
            map.remove(id);
        }
        was
    }
}
