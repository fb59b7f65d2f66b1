//! How much the server has to do, and whose turn it is.
//!
//! What a thread needs while it answers is a few hundred KiB, and more at a time than the machine can do only take each
//! other's processors: so those who need nobody but this machine wait for a turn, without a thread. Who has a turn must
//! not wait for a client; and should those who have one not get on, the others do not wait for them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Questions that are looked up at a time.
const QUESTIONS: usize = 8;

/// Questions at a time that walk through files.
const WALKS: usize = 2;

/// Changes of networks at a time: most of it is under one lock.
const NETWORKS: usize = 4;

/// Other changes at a time: at least so many, and so many for each processor.
const CHANGES: usize = 12;
const CHANGES_EACH: usize = 4;

/// If nobody has ended his turn for so long, nobody waits for one any longer.
const STUCK: Duration = Duration::from_secs(3);

/// Which others a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    Questions,
    Walks,
    Networks,
    Changes,
}

#[derive(Debug)]
struct Turns {
    places: Arc<Semaphore>,
    /// When a turn ended last.
    ended: Mutex<Instant>,
}

impl Turns {
    fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(places)), ended: Mutex::new(Instant::now()) })
    }

    /// Since when none has ended.
    fn rest(&self) -> Duration {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// A request's turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    of: Arc<Turns>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.of.ended.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// Requests that are being answered.
#[derive(Debug)]
pub(super) struct Load {
    /// Streams included.
    busy: AtomicUsize,
    /// Of them, those whose answer has not begun.
    unanswered: AtomicUsize,
    /// When the last one ended.
    last: Mutex<Instant>,
    turns: [Arc<Turns>; 4],
}

impl Load {
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let changes = CHANGES.max(processors.saturating_mul(CHANGES_EACH));
        Self {
            busy: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
            turns: [QUESTIONS, WALKS, NETWORKS, changes].map(Turns::new),
        }
    }

    /// Since when nothing is being answered; `None` while something is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (self.busy.load(Ordering::SeqCst) == 0).then_some(last)
    }

    /// Whether somebody waits for the head of an answer, or there is something left to do that was promised.
    pub(super) fn is_awaited(&self) -> bool {
        self.unanswered.load(Ordering::SeqCst) > 0
    }

    /// Waits for a turn; `None` is for one who must not wait any longer.
    pub(super) async fn turn(&self, among: Among) -> Option<Turn> {
        let turns = match among {
            Among::Questions => &self.turns[0],
            Among::Walks => &self.turns[1],
            Among::Networks => &self.turns[2],
            Among::Changes => &self.turns[3],
        };
        let mut place = std::pin::pin!(Arc::clone(&turns.places).acquire_owned());
        loop {
            match tokio::time::timeout(STUCK, place.as_mut()).await {
                Ok(place) => return Some(Turn { of: Arc::clone(turns), _place: place.ok()? }),
                Err(_) if turns.rest() >= STUCK => return None,
                Err(_) => {}
            }
        }
    }
}

/// A request whose answer has not begun, or which leaves something to do.
#[derive(Debug)]
pub(super) struct Asked(Arc<Load>);

impl Asked {
    pub(super) fn new(load: &Arc<Load>) -> Self {
        load.unanswered.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(load))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.unanswered.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Busy(Arc<Load>);

impl Busy {
    pub(super) fn new(load: &Arc<Load>) -> Self {
        load.busy.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(load))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_turn_and_does_not_get_on_holds_up_nobody_for_ever() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let load = Load::new();
            let mut held = Vec::new();
            for _ in 0..NETWORKS {
                held.push(load.turn(Among::Networks).await.unwrap());
            }
            let (began, last) = (Instant::now(), held.pop());
            assert!(load.turn(Among::Changes).await.is_some(), "others wait for others");
            assert!(tokio::time::timeout(STUCK / 8, load.turn(Among::Networks)).await.is_err());
            assert!(load.turn(Among::Networks).await.is_none() && began.elapsed() >= STUCK);
            drop(last);
            assert!(load.turn(Among::Networks).await.is_some());
        });
    }
}
