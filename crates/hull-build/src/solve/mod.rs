//! Solving: every node that a target needs is brought to a result.
//!
//! # Keys
//!
//! A step has two keys, and its result is kept under both ([`crate::cache`]):
//!
//! * its **definition**: the digest of what it does and of the definitions of all that it needs. It can be computed before
//!   anything is done, so a build whose end is in the cache does nothing but look it up.
//! * its **content**: the digest of what it does and of the *results* of what it needs. A stage that was built again and
//!   came out the same does not make anything be done again that is built on it.
//!
//! Files of the context, downloads and repositories count in both by a digest of exactly what is taken of them. Numbers
//! of nodes, names of steps, times and secrets are in neither.
//!
//! # Order
//!
//! Independent nodes are done at the same time. The first error cancels whatever runs; what was finished stays in the
//! cache. Of several builds that need the same step one does it, under a lock of its content key.

mod define;
mod import;
pub mod key;
mod perform;
mod schedule;
mod watch;

use std::any::Any;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hull_engine::{Engine, RunConfig};
use hull_image::{Layer, Transfer};
use hull_oci::Digest;

use crate::Error;
use crate::cache::Cache;
use crate::graph::{CopyAction, CopyOp, Graph, MkdirOp, NodeId, Op};
use crate::observer::{Event, Observer, StepId, Stream};
use crate::remote::Imports;
use crate::request::Secret;

pub use watch::{Known, Listing, Taken, Watch};

/// What a node came to: layers, lowest first. They are in the store or belong to the [`Transfer`], and stay as long as
/// it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Diff IDs.
    pub layers: Vec<Digest>,
    /// The node itself added the last of them. A step that changes nothing adds none.
    pub added: bool,
    /// It was in the cache.
    pub cached: bool,
}

/// What a build has at hand.
pub struct Solver<'a> {
    /// The engine that steps run in.
    pub engine: &'a Engine,
    /// What every step starts from, as `hull run` makes it without flags: networks, isolation, limits.
    pub defaults: &'a RunConfig,
    /// Keeps the layers of all results.
    pub transfer: &'a Transfer,
    /// Sources and copies.
    pub files: &'a dyn Files,
    /// Secrets of the request, by ID.
    pub secrets: &'a BTreeMap<String, Secret>,
    /// Authorities that steps trust while they run: the content of a bundle.
    pub certificates: Option<&'a [u8]>,
    /// Sockets and keys of the request, by ID.
    pub ssh: &'a BTreeMap<String, Vec<PathBuf>>,
    /// The user gives up: everything that runs is ended.
    pub cancel: &'a AtomicBool,
    /// What differs is told of each step that is not in the cache.
    pub explain: bool,
    /// Results of other machines, for steps that have none here.
    pub imports: &'a Imports,
    /// Hears what comes into the build before any step is done.
    pub watch: Option<&'a dyn Watch>,
}

impl std::fmt::Debug for Solver<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Solver").field("explain", &self.explain).finish_non_exhaustive()
    }
}

/// What a solved graph came to.
#[derive(Clone, Debug, Default)]
pub struct Solved {
    /// Results of the targets, in their order.
    pub snapshots: Vec<Snapshot>,
    /// Of steps that were asked for whether they have made a layer, as far as that is known without doing them.
    pub made: BTreeMap<NodeId, bool>,
    /// The definitions of all steps that were needed.
    pub keys: BTreeMap<NodeId, Digest>,
}

/// The files of a node, as others take them.
#[derive(Clone)]
pub enum Tree {
    /// Layers of the store, lowest first.
    Layers(Arc<[Digest]>),
    /// A source: whatever [`Files::source`] gave for it.
    Source(Arc<dyn Any + Send + Sync>),
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Layers(layers) => formatter.debug_tuple("Layers").field(layers).finish(),
            Self::Source(_) => formatter.write_str("Source"),
        }
    }
}

/// The step that something is done for.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Hears of it.
    pub observer: &'a dyn Observer,
    /// The step.
    pub step: StepId,
    /// Times of files in its layer that are later become this one: seconds since 1970.
    pub epoch: Option<i64>,
    pub(crate) cancel: &'a AtomicBool,
    pub(crate) stop: &'a AtomicBool,
}

impl Work<'_> {
    /// Whether nobody waits for it any more.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed) || self.stop.load(Ordering::Relaxed)
    }

    /// [`Error::Canceled`] if nobody waits for it any more.
    ///
    /// # Errors
    /// That one.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_canceled() { Err(Error::Canceled) } else { Ok(()) }
    }

    /// Bytes that the step printed.
    pub fn log(&self, stream: Stream, data: &[u8]) {
        self.observer.step(self.step, Event::Log { stream, data });
    }

    /// A part of the step goes on; see [`Event::Status`].
    pub fn status(&self, id: &str, current: u64, total: u64, done: bool) {
        self.observer.step(self.step, Event::Status { id, current, total, done });
    }
}

impl std::fmt::Debug for Work<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Work").field("step", &self.step).finish_non_exhaustive()
    }
}

/// What the solver needs of `files`. Called from several threads at once.
pub trait Files: Send + Sync {
    /// Makes a source ready ([`Op::Local`], [`Op::Http`], [`Op::Git`]): what changes is asked for, what is missing is
    /// fetched. It is called once for each such node that is needed, before anything is taken of it.
    ///
    /// # Errors
    /// When it cannot be had, or is not what its checksum says.
    fn source(&self, op: &Op, work: Work<'_>) -> Result<Arc<dyn Any + Send + Sync>, Error>;

    /// Digest of exactly what an action takes: names relative to what is copied, types, modes, contents, targets of
    /// links, capabilities; never times or the machine's owners. The action's own words (destination, owner, ...) need
    /// not be in it. Two trees of which the same is taken have the same digest, whatever kind they are.
    ///
    /// # Errors
    /// When nothing matches that must, or files cannot be read.
    fn selection(&self, action: &CopyAction, from: &Tree, work: Work<'_>) -> Result<Digest, Error>;

    /// Every file that an action takes, with a stamp of what counts of it: for telling which one differs. May be empty.
    ///
    /// # Errors
    /// As [`Self::selection`].
    fn listing(&self, action: &CopyAction, from: &Tree, work: Work<'_>) -> Result<Vec<(String, String)>, Error> {
        let _ = (action, from, work);
        Ok(Vec::new())
    }

    /// Writes the layer of a copy. `base` are the layers that it goes onto (of `op.base`; none for `--link`), `from` the
    /// trees of `op.actions`, in their order. `None` when nothing changes.
    ///
    /// # Errors
    /// When files cannot be read or written, or what is asked for is impossible.
    fn copy(
        &self,
        op: &CopyOp,
        base: &[Digest],
        from: &[Option<Tree>],
        transfer: &Transfer,
        work: Work<'_>,
    ) -> Result<Option<Layer>, Error>;

    /// Writes the layer of a directory that is missing; `None` if it is there.
    ///
    /// # Errors
    /// As [`Self::copy`].
    fn mkdir(&self, op: &MkdirOp, base: &[Digest], transfer: &Transfer, work: Work<'_>)
    -> Result<Option<Layer>, Error>;
}

/// Brings targets to results, in their order. Nodes that none of them needs are not done.
///
/// # Errors
/// The first step's that failed, as [`Error::Step`]; [`Error::Canceled`].
pub fn solve(
    solver: &Solver<'_>,
    graph: &Graph,
    targets: &[NodeId],
    observer: &dyn Observer,
) -> Result<Vec<Snapshot>, Error> {
    solve_asking(solver, graph, targets, &[], observer).map(|solved| solved.snapshots)
}

/// [`solve`], and what else is known of the steps; `asked` says of which it is to be known whether they made a layer.
///
/// # Errors
/// As [`solve`].
pub fn solve_asking(
    solver: &Solver<'_>,
    graph: &Graph,
    targets: &[NodeId],
    asked: &[NodeId],
    observer: &dyn Observer,
) -> Result<Solved, Error> {
    let cache = Cache::new(&solver.engine.images);
    // What a killed build left is in nobody's way if it cannot be removed.
    let _ = cache.repair();
    let solved = schedule::Solving::new(solver, graph, targets, observer)?.targets(targets, asked)?;
    if solved.snapshots.iter().any(|snapshot| !snapshot.cached) {
        // What cannot go now goes after the next build.
        let _ = cache.collect();
    }
    Ok(solved)
}

#[cfg(test)]
mod tests;
