//! Which nodes are done, when, and by whom.
//!
//! 1. From the targets downwards, in one thread: what is in the cache under its definition is taken, and nothing below it
//!    is looked at. What is not is to be done, after what it needs.
//! 2. As many threads as there are processors, but at least [`THREADS`], take what is ready. A node that is in the cache under its content is taken
//!    from there; any other is done under the lock of its content key.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hull_oci::image::Platform;

use super::define::{Definition, is_source, mounted};
use super::{Known, Snapshot, Solved, Solver, Taken, Tree, Work};
use crate::Error;
use crate::cache::{Cache, Hit};
use crate::graph::{CopyAction, Graph, Node, NodeId, Op};
use crate::observer::{Event, Observer, StepId};

/// Steps done at the same time where there are fewer processors: most of what a step does is to wait, for its program,
/// a server or a disk.
const THREADS: usize = 16;

/// How often a thread that has nothing to do looks whether the user has given up.
const LOOK: Duration = Duration::from_millis(50);

/// One call of [`solve`](super::solve).
pub(super) struct Solving<'a> {
    pub(super) solver: &'a Solver<'a>,
    pub(super) graph: &'a Graph,
    pub(super) observer: &'a dyn Observer,
    pub(super) cache: Cache,
    /// Everything that the targets need, each after what it needs.
    pub(super) needed: Vec<NodeId>,
    pub(super) sources: BTreeMap<NodeId, Tree>,
    pub(super) definitions: BTreeMap<NodeId, Definition>,
    /// Layers that are in the cache and go onto others (`COPY --link`).
    pub(super) linked: BTreeMap<NodeId, Hit>,
    /// A step has failed.
    pub(super) stop: AtomicBool,
}

/// What the threads share.
#[derive(Default)]
struct Board {
    ready: VecDeque<NodeId>,
    /// What is to be done, with how many of its inputs are missing.
    waiting: BTreeMap<NodeId, usize>,
    done: BTreeMap<NodeId, Snapshot>,
    /// Nodes that threads are at.
    running: usize,
    error: Option<Error>,
}

impl<'a> Solving<'a> {
    pub(super) fn new(
        solver: &'a Solver<'a>,
        graph: &'a Graph,
        targets: &[NodeId],
        observer: &'a dyn Observer,
    ) -> Result<Self, Error> {
        let mut needed = BTreeSet::new();
        let mut pending = targets.to_vec();
        while let Some(id) = pending.pop() {
            let node = graph.node(id).ok_or_else(|| no_node(id))?;
            if needed.insert(id) {
                let inputs = node.op.inputs();
                if let Some(wrong) = inputs.iter().find(|input| **input >= id) {
                    return Err(Error::Request(format!("step {} needs a later one ({})", id.0, wrong.0)));
                }
                pending.extend(inputs);
            }
        }
        Ok(Self {
            solver,
            graph,
            observer,
            cache: Cache::new(&solver.engine.images),
            needed: needed.into_iter().collect(),
            sources: BTreeMap::new(),
            definitions: BTreeMap::new(),
            linked: BTreeMap::new(),
            stop: AtomicBool::new(false),
        })
    }

    pub(super) fn node(&self, id: NodeId) -> Result<&'a Node, Error> {
        self.graph.node(id).ok_or_else(|| no_node(id))
    }

    pub(super) fn defined(&self, id: NodeId) -> Result<&Definition, Error> {
        self.definitions.get(&id).ok_or_else(|| no_node(id))
    }

    pub(super) fn work(&self, id: NodeId) -> Work<'_> {
        Work {
            observer: self.observer,
            step: StepId::Node(id),
            epoch: self.graph.node(id).and_then(|node| node.epoch),
            cancel: self.solver.cancel,
            stop: &self.stop,
        }
    }

    /// Tells how a step ended that had been said to begin.
    pub(super) fn tell(&self, id: NodeId, result: Result<(), &Error>) {
        let reason;
        let event = match result {
            Ok(()) => Event::Done,
            Err(Error::Canceled) => Event::Canceled,
            Err(error) => {
                reason = error.to_string();
                Event::Failed { reason: &reason }
            }
        };
        self.observer.step(StepId::Node(id), event);
    }

    /// An error of a step, with its place.
    pub(super) fn failed(&self, id: NodeId, error: Error) -> Error {
        match (self.graph.node(id), error) {
            (_, error @ (Error::Canceled | Error::Step { .. })) | (None, error) => error,
            (Some(node), error) => Error::Step { name: node.name.clone(), lines: node.lines, source: Box::new(error) },
        }
    }

    /// The results of targets, and which of the steps that are asked for have made a layer.
    pub(super) fn targets(mut self, targets: &[NodeId], asked: &[NodeId]) -> Result<Solved, Error> {
        self.open_sources()?;
        self.define()?;
        self.show()?;
        let board = self.look_up(targets)?;
        self.check_platforms(&board)?;
        let board = self.run(board)?;
        let result = |id: &NodeId| board.done.get(id).cloned().ok_or_else(|| no_node(*id));
        let snapshots = targets.iter().map(result).collect::<Result<_, _>>()?;
        let mut made = BTreeMap::new();
        for id in asked {
            let key = || self.definitions.get(id).filter(|definition| !definition.stale)?.key.as_ref();
            let known = match (board.done.get(id), key()) {
                (Some(snapshot), _) => Some(snapshot.added),
                // It was below what was found.
                (None, Some(key)) => self.cache.added(key)?,
                (None, None) => None,
            };
            made.extend(known.map(|added| (*id, added)));
        }
        let keys = self.definitions.iter().filter_map(|(id, definition)| Some((*id, definition.key.clone()?)));
        Ok(Solved { snapshots, made, keys: keys.collect() })
    }

    /// Shows what comes into the build.
    fn show(&self) -> Result<(), Error> {
        let Some(watch) = self.solver.watch else { return Ok(()) };
        let mut taken = Vec::new();
        for id in &self.needed {
            let actions: Vec<CopyAction> = match &self.node(*id)?.op {
                Op::Copy(op) => op.actions.clone(),
                Op::Run(op) => op.mounts.iter().map(mounted).collect(),
                _ => continue,
            };
            for (index, digest) in &self.defined(*id)?.selections {
                let Some(action) = actions.get(*index) else { continue };
                if let Some(from) = action.from {
                    taken.push(Taken { step: *id, from, action: action.clone(), digest: digest.clone() });
                }
            }
        }
        let listing = |taken: &Taken| {
            let tree = self.sources.get(&taken.from)?;
            self.solver.files.listing(&taken.action, tree, self.work(taken.step)).ok()
        };
        let (graph, needed, sources) = (self.graph, self.needed.as_slice(), &self.sources);
        watch.known(&Known { graph, needed, sources, taken: &taken, listing: &listing })
    }

    /// Says before anything is done which step is for a processor that this machine has not.
    fn check_platforms(&self, board: &Board) -> Result<(), Error> {
        for id in board.waiting.keys().chain(&board.ready) {
            let node = self.node(*id)?;
            if let (Op::Run(_), Ok(platform)) = (&node.op, Platform::parse(&node.platform))
                && let Some(reason) = crate::run::emulation::missing(&platform)
            {
                let error = Error::Request(reason);
                self.observer.step(StepId::Node(*id), Event::Started { name: &node.name });
                self.tell(*id, Err(&error));
                return Err(self.failed(*id, error));
            }
        }
        Ok(())
    }

    /// Finds what need not be done.
    fn look_up(&mut self, targets: &[NodeId]) -> Result<Board, Error> {
        let mut board = Board::default();
        let mut seen = BTreeSet::new();
        let mut pending = targets.to_vec();
        while let Some(id) = pending.pop() {
            if !seen.insert(id) {
                continue;
            }
            let node = self.node(id)?;
            match self.known(id, node)? {
                Some(snapshot) => drop(board.done.insert(id, snapshot)),
                None => {
                    if let Some(hit) = self.known_link(id, node)? {
                        self.linked.insert(id, hit);
                    }
                    let inputs = self.missing(id, node);
                    board.waiting.insert(id, inputs.len());
                    pending.extend(inputs);
                }
            }
        }
        // What is below something that was found is in the cache as far as anybody is concerned.
        for id in &self.needed {
            let node = self.node(*id)?;
            let told = match &node.op {
                Op::Scratch | Op::Local(_) | Op::Http(_) | Op::Git(_) => false,
                Op::Image(_) | Op::Run(_) | Op::Copy(_) | Op::Mkdir(_) => true,
            };
            if told && !board.waiting.contains_key(id) {
                self.observer.step(StepId::Node(*id), Event::Cached { name: &node.name });
            }
        }
        // A node that was found is no longer missing.
        let found: Vec<NodeId> = board.done.keys().copied().collect();
        for id in found {
            self.supply(&mut board, id);
        }
        let ready: Vec<NodeId> =
            board.waiting.iter().filter(|(_, missing)| **missing == 0).map(|(id, _)| *id).collect();
        for id in ready {
            board.waiting.remove(&id);
            board.ready.push_back(id);
        }
        Ok(board)
    }

    /// What needs no work.
    fn known(&self, id: NodeId, node: &Node) -> Result<Option<Snapshot>, Error> {
        match &node.op {
            Op::Scratch => Ok(Some(Snapshot::default())),
            Op::Image(image) => {
                if !self.solver.transfer.lease_layers(&image.layers, |_| Ok(()))? {
                    let reason = format!("image {} is not in the store any more", image.reference);
                    return Err(self.failed(id, Error::Request(reason)));
                }
                Ok(Some(Snapshot { layers: image.layers.clone(), added: false, cached: true }))
            }
            Op::Local(_) | Op::Http(_) | Op::Git(_) => {
                Err(Error::Request(format!("{}: files of a source are no file system by themselves", node.name)))
            }
            // Its layer goes onto others, which must be known.
            Op::Copy(op) if op.base.is_none() && op.onto.is_some() => Ok(None),
            Op::Run(_) | Op::Copy(_) | Op::Mkdir(_) => {
                let definition = self.defined(id)?;
                match &definition.key {
                    Some(key) if !definition.stale => {
                        let hit = match self.cache.find(self.solver.transfer, key)? {
                            Some(hit) => Some(hit),
                            None => self.import_defined(id, node, key)?,
                        };
                        Ok(hit.map(|hit| Snapshot { layers: hit.layers, added: hit.added, cached: true }))
                    }
                    _ => Ok(None),
                }
            }
        }
    }

    /// The layer of a `COPY --link`, without what it goes onto.
    fn known_link(&self, id: NodeId, node: &Node) -> Result<Option<Hit>, Error> {
        let definition = self.defined(id)?;
        match (&node.op, &definition.key) {
            (Op::Copy(op), Some(key)) if op.base.is_none() && op.onto.is_some() && !definition.stale => {
                match self.cache.find(self.solver.transfer, key)? {
                    Some(hit) => Ok(Some(hit)),
                    None => self.import_defined(id, node, key),
                }
            }
            _ => Ok(None),
        }
    }

    /// The inputs of a node that is to be done which are steps; sources are ready from the beginning.
    fn missing(&self, id: NodeId, node: &Node) -> Vec<NodeId> {
        let all = match &node.op {
            Op::Copy(op) if self.linked.contains_key(&id) => op.onto.into_iter().collect(),
            op => op.inputs(),
        };
        all.into_iter().filter(|id| self.graph.node(*id).is_some_and(|input| !is_source(&input.op))).collect()
    }

    /// A node has a result: whoever waited for the last of its inputs is ready.
    fn supply(&self, board: &mut Board, id: NodeId) {
        let mut ready = Vec::new();
        for (other, missing) in &mut board.waiting {
            let Some(node) = self.graph.node(*other) else { continue };
            let count = self.missing(*other, node).iter().filter(|input| **input == id).count();
            if count > 0 {
                *missing = missing.saturating_sub(count);
                ready.extend((*missing == 0).then_some(*other));
            }
        }
        for id in ready {
            board.waiting.remove(&id);
            board.ready.push_back(id);
        }
    }

    /// Does what is left.
    fn run(&self, board: Board) -> Result<Board, Error> {
        let count = board.waiting.len() + board.ready.len();
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).max(THREADS);
        let (board, changed) = (Mutex::new(board), Condvar::new());
        std::thread::scope(|scope| {
            for _ in 1..threads.min(count) {
                scope.spawn(|| self.take(&board, &changed));
            }
            self.take(&board, &changed);
        });
        let board = board.into_inner().unwrap_or_else(PoisonError::into_inner);
        match board.error {
            Some(error) => Err(error),
            None if self.solver.cancel.load(Ordering::Relaxed) && count > 0 && !board.waiting.is_empty() => {
                Err(Error::Canceled)
            }
            None => Ok(board),
        }
    }

    /// One thread's life.
    fn take(&self, board: &Mutex<Board>, changed: &Condvar) {
        let lock = || -> MutexGuard<'_, Board> { board.lock().unwrap_or_else(PoisonError::into_inner) };
        let mut held = lock();
        loop {
            if self.solver.cancel.load(Ordering::Relaxed) && held.error.is_none() {
                held.error = Some(Error::Canceled);
                self.stop.store(true, Ordering::Relaxed);
            }
            if held.error.is_some() || held.ready.is_empty() && held.running == 0 {
                changed.notify_all();
                return;
            }
            let Some(id) = held.ready.pop_front() else {
                held = changed.wait_timeout(held, LOOK).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            };
            held.running += 1;
            let inputs = self.inputs(&held, id);
            drop(held);
            // A thread that dies must not leave the others waiting.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                inputs.and_then(|inputs| self.perform(id, &inputs))
            }));
            let result = result.unwrap_or_else(|_| Err(Error::Request("the step's thread died".to_owned())));
            held = lock();
            held.running -= 1;
            match result {
                Ok(snapshot) => {
                    held.done.insert(id, snapshot);
                    self.supply(&mut held, id);
                }
                Err(error) => {
                    self.stop.store(true, Ordering::Relaxed);
                    // The first one that is a reason.
                    if held.error.as_ref().is_none_or(|before| matches!(before, Error::Canceled)) {
                        held.error = Some(self.failed(id, error));
                    }
                }
            }
            changed.notify_all();
        }
    }

    /// The results that a node needs.
    fn inputs(&self, board: &Board, id: NodeId) -> Result<BTreeMap<NodeId, Tree>, Error> {
        let mut inputs = BTreeMap::new();
        let node = self.node(id)?;
        let sources = node.op.inputs().into_iter().filter(|input| self.sources.contains_key(input));
        for input in sources.chain(self.missing(id, node)) {
            let tree = match (self.sources.get(&input), board.done.get(&input)) {
                (Some(tree), _) => tree.clone(),
                (None, Some(snapshot)) => Tree::Layers(snapshot.layers.clone().into()),
                (None, None) => return Err(no_node(input)),
            };
            inputs.insert(input, tree);
        }
        Ok(inputs)
    }
}

fn no_node(id: NodeId) -> Error {
    Error::Request(format!("there is no step {}", id.0))
}
