//! Documents of containers that were asked for before: making one takes longer than finding out whether it is still true.
//!
//! All that a document shows comes from the container's record, its state, the database, and files of its own; what else
//! there can be, of a container that is paused, has a health check or runs further programs, is not kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hull_engine::records::State;
use hull_engine::{Container, Engine, inspect};
use hull_image::Moment;
use serde_json::Value;

/// Documents of so many containers are kept.
const MOST: usize = 64;

/// A longer one is not.
const LONG: usize = 32 << 10;

/// What a document was made of.
#[derive(Clone, Debug)]
struct Made {
    container: Arc<Container>,
    state: State,
    moment: Moment,
    files: [bool; 3],
}

impl Made {
    fn of(engine: &Engine, container: &Arc<Container>, state: &State) -> Option<Self> {
        let busy = container.config.health.is_some()
            || engine.shows_paused(&container.id)
            || !engine.exec_ids(&container.id).is_empty();
        let moment = engine.images.moment().ok().flatten().filter(|_| !busy)?;
        let directory = engine.directory(&container.id);
        let files = ["hostname", "hosts", "resolv.conf"].map(|name| directory.join(name).exists());
        Some(Self { container: Arc::clone(container), state: state.clone(), moment, files })
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.container, &other.container)
            && (&self.state, self.moment, self.files) == (&other.state, other.moment, other.files)
    }
}

type Kept = HashMap<String, (Made, Arc<[u8]>)>;

/// Documents by the ID of their container.
#[derive(Debug, Default)]
pub(crate) struct Documents(Mutex<Kept>);

impl Documents {
    fn map(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is kept any more.
    pub(crate) fn forget(&self) {
        *self.map() = HashMap::new();
    }

    /// The document of a container, as text with a line's end.
    pub(super) fn of(&self, engine: &Engine, container: &Arc<Container>, state: &State) -> Vec<u8> {
        // Before the document is made: what changes meanwhile is seen by the next one who asks.
        let made = Made::of(engine, container, state);
        if let Some(made) = &made
            && let Some((_, text)) = self.map().get(&container.id).filter(|(of, _)| of.is(made))
        {
            return text.to_vec();
        }
        let document = inspect::document(engine, container, state);
        let mut text = serde_json::to_vec(&document).unwrap_or_default();
        text.push(b'\n');
        // It may have been paused, or got a further program, since that was looked at.
        let plain = document["State"]["Paused"] == false && document["ExecIDs"] == Value::Null;
        let mut map = self.map();
        match made.filter(|_| plain && text.len() <= LONG) {
            Some(made) => {
                if map.len() >= MOST && !map.contains_key(&container.id) {
                    // Whichever: those who are asked for are soon here again.
                    let one = map.keys().next().cloned();
                    one.map(|one| map.remove(&one));
                }
                map.insert(container.id.clone(), (made, Arc::from(text.as_slice())));
            }
            None => drop(map.remove(&container.id)),
        }
        text
    }
}
