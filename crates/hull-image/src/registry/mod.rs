//! Images from registries and to them.
//!
//! ```text
//! pull: manifest ──> platform ──> configuration ──> layers that the store lacks, several at once
//!                                                     └─ Download: partial/ALGORITHM-HEX, continued by Range
//!                                                          └─ Transfer::layer, while it arrives
//!       └─ verify: signatures, policy: before anything is kept
//! push: layers that the registry lacks, several at once ──> configuration ──> manifest
//! ```
//!
//! A layer that is on its way is in `partial/` below the store, locked by flock(2) by whoever fetches it: the same layer
//! is fetched once, whatever images and commands want it, and goes on where a failed or killed command stopped. Its
//! digest is checked when it is whole; one that is wrong is thrown away.

mod artifact;
mod attest;
mod download;
mod lists;
mod pull;
mod push;
mod sign;
mod verify;

pub use artifact::{Artifact, Layout, Packing, Pieces, fetch, push_artifact, write_artifact};
pub use attest::{Attestation, Predicate, attested_index, push_attested};
pub use lists::{Entry, List, Lists, Looked, look, look_into, push_list, referrers};
pub use pull::{PullOptions, Pulled, pull, pull_all};
pub use push::{PushOptions, Pushed, push, push_platforms};
pub use sign::sign;
pub use verify::{Verdict, Verification, permitted, verify};

use hull_oci::Digest;

/// What happens to one layer, for whoever shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is to be pulled.
    Waiting,
    /// It is to be pushed.
    Preparing,
    /// The store or the registry has it.
    Exists,
    /// So many bytes of so many have come.
    Downloading(u64, u64),
    /// The connection broke; it is tried again after this reason.
    Retrying(String),
    /// It is in the store.
    PullComplete,
    /// It is compressed for the first time.
    Compressing,
    /// So many bytes of so many were sent.
    Pushing(u64, u64),
    /// The registry took it from another repository.
    Mounted(String),
    /// The registry has it now.
    Pushed,
}

/// Hears of every step. Called from several threads, often: it must return at once.
pub trait Progress: Sync {
    /// Something happened to a layer: its blob's digest when pulling, its diff ID when pushing.
    fn layer(&self, layer: &Digest, event: Event);

    /// Whether nobody waits for the result any more: a pull ends then, and what it has fetched is kept for the next.
    fn gone(&self) -> bool {
        false
    }
}

/// Nobody looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn layer(&self, _: &Digest, _: Event) {}
}

/// A short blob's bytes, compared with its digest.
pub(crate) fn blob_bytes(
    remote: &hull_registry::Remote,
    blob: &hull_oci::image::Descriptor,
) -> Result<Vec<u8>, crate::Error> {
    let bytes = remote.blob_bytes(blob)?;
    check(remote.name(), blob, &bytes)?;
    Ok(bytes)
}

/// Refuses bytes that are not a blob's.
pub(crate) fn check(repository: &str, blob: &hull_oci::image::Descriptor, bytes: &[u8]) -> Result<(), crate::Error> {
    let mut hasher = blob.digest.hasher();
    hasher.update(bytes);
    let found = hasher.finish();
    if bytes.len() as u64 == blob.size && found == blob.digest {
        return Ok(());
    }
    let reason = format!("{repository} sent {} bytes of digest {found}", bytes.len());
    Err(crate::Error::Blob { expected: blob.digest.clone(), reason })
}

/// [`at_once`] with this crate's errors.
pub(crate) fn in_parallel<T: Sync>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<(), crate::Error> + Sync,
) -> Result<(), crate::Error> {
    at_once(items, threads, work)
}

/// Runs work on several threads at once and returns the first failure, after all have ended.
///
/// # Errors
/// Those of `work`.
pub fn at_once<T: Sync, E: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failed = std::sync::Mutex::new(None);
    let failure = || failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                while failure().is_none() {
                    let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    if let Err(error) = work(item) {
                        failure().get_or_insert(error);
                    }
                }
            });
        }
    });
    let result = failure().take();
    result.map_or(Ok(()), Err)
}
