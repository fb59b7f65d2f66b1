//! Short queues of shared buffers, which are used again.

use std::fmt;
use std::ops::Deref;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a buffer.
pub(super) const BUFFER: usize = 256 << 10;
/// Buffers that wait in a queue.
const DEPTH: usize = 8;

/// Buffers that nobody uses at the moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    /// A buffer of [`BUFFER`] bytes, with anything in it.
    pub(super) fn take(&self) -> Vec<u8> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| vec![0; BUFFER])
    }

    /// The first `length` bytes of a buffer, to be shared.
    pub(super) fn share(&self, buffer: Vec<u8>, length: usize) -> Shared {
        Shared(Arc::new(Owned { buffer, length, pool: self.clone() }))
    }
}

struct Owned {
    buffer: Vec<u8>,
    length: usize,
    pool: Pool,
}

impl Drop for Owned {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// Bytes that several stages read; the last one gives the buffer back.
#[derive(Clone)]
pub(super) struct Shared(Arc<Owned>);

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("length", &self.0.length).finish()
    }
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.buffer[..self.0.length]
    }
}

/// The other end of a queue is gone before the stream ended: whoever had it knows why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// Where buffers go in.
#[derive(Debug)]
pub(super) struct Sender(SyncSender<Option<Shared>>);

impl Sender {
    pub(super) fn send(&self, buffer: Shared) -> Result<(), Gone> {
        self.0.send(Some(buffer)).map_err(|_| Gone)
    }

    /// Says that the stream is complete, which dropping the sender does not.
    pub(super) fn end(self) -> Result<(), Gone> {
        self.0.send(None).map_err(|_| Gone)
    }
}

/// Where they come out.
#[derive(Debug)]
pub(super) struct Queue(Receiver<Option<Shared>>);

impl Queue {
    /// The next buffer, or `None` at the end of the stream.
    pub(super) fn next(&mut self) -> Result<Option<Shared>, Gone> {
        self.0.recv().map_err(|_| Gone)
    }
}

pub(super) fn queue() -> (Sender, Queue) {
    let (sender, receiver) = sync_channel(DEPTH);
    (Sender(sender), Queue(receiver))
}
