//! How layers come and go, as lines that Docker's clients draw bars of.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hull_engine::units::size_long as size;
use hull_image::registry::{Event, Progress};
use hull_oci::Digest;
use serde_json::{Value, json};

use crate::lines::Lines;

/// Time between two lines about the bytes of one layer.
const PAUSE: Duration = Duration::from_millis(100);

/// Says every event.
#[derive(Debug)]
pub(crate) struct Said<'l> {
    lines: &'l Lines,
    pushing: bool,
    /// What is said before the first layer.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    head: Option<Value>,
    /// When the bytes of a layer were said last, and its last word.
    last: BTreeMap<Digest, (Option<Instant>, &'static str)>,
}

impl<'l> Said<'l> {
    /// Of a pull; `head` is said before anything else.
    pub(crate) fn pull(lines: &'l Lines, head: Value) -> Self {
        let state = State { head: Some(head), last: BTreeMap::new() };
        Self { lines, pushing: false, state: Mutex::new(state) }
    }

    /// Of a push.
    pub(crate) fn push(lines: &'l Lines) -> Self {
        Self { lines, pushing: true, state: Mutex::default() }
    }

    /// Says what comes first, if nothing was said yet.
    pub(crate) fn begin(&self) {
        let head = self.state.lock().unwrap_or_else(PoisonError::into_inner).head.take();
        head.iter().for_each(|head| self.lines.say(head));
    }
}

/// `[====>    ]  1.2MB/4.8MB`.
fn bar(done: u64, all: u64) -> String {
    if all == 0 {
        return format!("{:>8}", size(done));
    }
    let part = usize::try_from(u128::from(done.min(all)) * 50 / u128::from(all)).unwrap_or(50);
    let (filled, head, rest) = if part < 50 { (part, ">", 49 - part) } else { (50, "", 0) };
    let head = if part == 50 { ">" } else { head };
    let filled = if part == 50 { 49 } else { filled };
    format!("[{}{head}{}] {:>8}/{}", "=".repeat(filled), " ".repeat(rest), size(done), size(all))
}

impl Progress for Said<'_> {
    fn gone(&self) -> bool {
        !self.pushing && self.lines.is_gone()
    }

    fn layer(&self, layer: &Digest, event: Event) {
        self.begin();
        let (word, numbers) = match &event {
            Event::Waiting => ("Pulling fs layer", None),
            Event::Preparing => ("Preparing", None),
            Event::Exists if self.pushing => ("Layer already exists", None),
            Event::Exists => ("Already exists", None),
            Event::Downloading(done, all) if done == all => ("Download complete", None),
            Event::Downloading(done, all) => ("Downloading", Some((*done, *all))),
            Event::Pushing(done, all) => ("Pushing", Some((*done, *all))),
            Event::PullComplete => ("Pull complete", None),
            Event::Pushed => ("Pushed", None),
            Event::Retrying(reason) => {
                let text = format!("Retrying: {}", hull_oci::spec::one_line(reason));
                return self.lines.say(&json!({ "status": text, "progressDetail": {}, "id": layer.short() }));
            }
            Event::Mounted(from) => {
                let text = format!("Mounted from {}", hull_oci::spec::one_line(from));
                return self.lines.say(&json!({ "status": text, "progressDetail": {}, "id": layer.short() }));
            }
            // Docker has no word for it.
            Event::Compressing => return,
        };
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = state.last.entry(layer.clone()).or_default();
            let now = Instant::now();
            let soon = entry.0.is_some_and(|last| now.duration_since(last) < PAUSE);
            if entry.1 == word && (numbers.is_none() || soon) {
                return;
            }
            *entry = (numbers.is_some().then_some(now), word);
        }
        match numbers {
            None => self.lines.say(&json!({ "status": word, "progressDetail": {}, "id": layer.short() })),
            Some((done, all)) => self.lines.say(&json!({
                "status": word,
                "progressDetail": { "current": done, "total": all },
                "progress": bar(done, all),
                "id": layer.short(),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_docker_s() {
        assert_eq!(bar(0, 100), format!("[>{}] {:>8}/100B", " ".repeat(49), "0B"));
        assert_eq!(bar(50, 100), format!("[{}>{}] {:>8}/100B", "=".repeat(25), " ".repeat(24), "50B"));
        assert_eq!(bar(5_000_000, 5_000_000), format!("[{}>] {:>8}/5MB", "=".repeat(49), "5MB"));
        assert_eq!(bar(1_234_567, 0), " 1.235MB");
        for done in 0..=200 {
            assert_eq!(bar(done, 100).find(']'), Some(51));
        }
    }
}
