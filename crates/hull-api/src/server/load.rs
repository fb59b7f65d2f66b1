//! How much the server has to do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Questions that are looked up at a time: more would only take each other's memory and processors.
const QUESTIONS: usize = 8;

/// Questions at a time that walk through files.
const WALKS: usize = 2;

/// Requests that are being answered.
#[derive(Debug)]
pub(super) struct Load {
    /// Streams included.
    busy: AtomicUsize,
    /// Of them, those whose answer has not begun.
    unanswered: AtomicUsize,
    /// When the last one ended.
    last: Mutex<Instant>,
    questions: Arc<Semaphore>,
    walks: Arc<Semaphore>,
}

/// Which others a question waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    Questions,
    Walks,
}

impl Load {
    pub(super) fn new() -> Self {
        Self {
            busy: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            walks: Arc::new(Semaphore::new(WALKS)),
        }
    }

    /// Since when nothing is being answered; `None` while something is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (self.busy.load(Ordering::SeqCst) == 0).then_some(last)
    }

    /// Whether somebody waits for the head of an answer.
    pub(super) fn is_awaited(&self) -> bool {
        self.unanswered.load(Ordering::SeqCst) > 0
    }

    /// A request has come.
    pub(super) fn asked(&self) {
        self.unanswered.fetch_add(1, Ordering::SeqCst);
    }

    /// The head of its answer is there.
    pub(super) fn answered(&self) {
        self.unanswered.fetch_sub(1, Ordering::SeqCst);
    }

    /// Waits for the turn of a question.
    pub(super) async fn turn(&self, among: Among) -> Option<OwnedSemaphorePermit> {
        let turns = match among {
            Among::Questions => &self.questions,
            Among::Walks => &self.walks,
        };
        Arc::clone(turns).acquire_owned().await.ok()
    }
}

/// A request that is being answered.
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
