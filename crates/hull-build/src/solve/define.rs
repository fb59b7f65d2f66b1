//! Definitions: before anything is done, a digest of each node that is needed and of everything below it.
//!
//! Sources are made ready here, because what they hold counts: the context is looked through, downloads and
//! repositories are asked whether they have changed. Independent ones at the same time.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use hull_oci::Digest;

use super::key::{self, Parts};
use super::schedule::Solving;
use super::{Tree, Work};
use crate::Error;
use crate::graph::{CopyAction, CopyOp, NodeId, Op, RunMount};
use crate::observer::{Event, StepId};

/// What is known of a node before it is done.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    /// It is looked up under this. Absent for what is not kept: sources, images.
    pub(super) key: Option<Digest>,
    /// Stands for the node and everything below it in the definitions of others.
    pub(super) digest: Digest,
    /// Something below it is to be done again whatever the cache has, so that its own definition says nothing.
    pub(super) stale: bool,
    /// Digests of what is taken of sources, by the place of the action or mount.
    pub(super) selections: BTreeMap<usize, Digest>,
}

/// The action that takes what a mount shows.
pub(super) fn mounted(mount: &RunMount) -> CopyAction {
    let path = format!("/{}", mount.source.trim_matches('/'));
    CopyAction::plain(mount.from, &path, &path)
}

/// Whether all files of a tree are meant.
pub(super) fn is_whole(path: &str) -> bool {
    path.split('/').all(|part| part.is_empty() || part == ".")
}

pub(super) fn is_source(op: &Op) -> bool {
    matches!(op, Op::Local(_) | Op::Http(_) | Op::Git(_))
}

impl Solving<'_> {
    /// Makes the sources ready that are needed.
    pub(super) fn open_sources(&mut self) -> Result<(), Error> {
        let needed: Vec<NodeId> = self
            .needed
            .iter()
            .copied()
            .filter(|id| self.graph.node(*id).is_some_and(|node| is_source(&node.op)))
            .collect();
        let this = &*self;
        let open = |id: NodeId| -> Result<(NodeId, Tree), Error> {
            let node = this.node(id)?;
            let work = this.work(id);
            this.observer.step(StepId::Node(id), Event::Started { name: &node.name });
            let opened = this.solver.files.source(&node.op, work);
            this.tell(id, opened.as_ref().map(drop));
            opened.map(|source| (id, Tree::Source(source))).map_err(|error| this.failed(id, error))
        };
        let opened: Vec<Result<(NodeId, Tree), Error>> = match needed.as_slice() {
            [] => Vec::new(),
            [one] => vec![open(*one)],
            many => std::thread::scope(|scope| {
                let threads: Vec<_> = many
                    .iter()
                    .map(|id| {
                        scope.spawn(|| {
                            let result = open(*id);
                            if result.is_err() {
                                this.stop.store(true, Ordering::Relaxed);
                            }
                            result
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap_or(Err(Error::Canceled))).collect()
            }),
        };
        // The one that made the others give up is the one to tell of.
        let mut failed: Vec<Error> = Vec::new();
        for one in opened {
            match one {
                Ok((id, tree)) => drop(self.sources.insert(id, tree)),
                Err(error) => failed.push(error),
            }
        }
        let canceled = |error: &Error| matches!(error, Error::Canceled);
        match failed.iter().position(|error| !canceled(error)) {
            Some(place) => Err(failed.swap_remove(place)),
            None => failed.pop().map_or(Ok(()), Err),
        }
    }

    /// Defines every node that is needed, in order.
    pub(super) fn define(&mut self) -> Result<(), Error> {
        for id in self.needed.clone() {
            let definition = self.definition(id).map_err(|error| {
                if let Some(node) = self.graph.node(id).filter(|_| !matches!(error, Error::Canceled)) {
                    self.observer.step(StepId::Node(id), Event::Started { name: &node.name });
                    self.tell(id, Err(&error));
                }
                self.failed(id, error)
            })?;
            self.definitions.insert(id, definition);
        }
        Ok(())
    }

    fn definition(&self, id: NodeId) -> Result<Definition, Error> {
        let node = self.node(id)?;
        let work = self.work(id);
        work.check()?;
        let below = |id: NodeId| -> Result<&Definition, Error> { self.defined(id) };
        let mut stale = node.ignore_cache;
        for input in node.op.inputs() {
            stale |= below(input)?.stale;
        }
        let mut selections = BTreeMap::new();
        let mut parts;
        match &node.op {
            Op::Scratch => return Ok(whole(Parts::new("scratch").key())),
            Op::Image(image) => {
                parts = Parts::new("image");
                parts.add("layers", key::layers(&image.layers));
                return Ok(whole(parts.key()));
            }
            // Whoever takes something of it says what.
            Op::Local(_) | Op::Http(_) | Op::Git(_) => return Ok(whole(Parts::new("source").key())),
            Op::Run(op) => {
                parts = Parts::new("run");
                parts.add(key::BELOW, below(op.base)?.digest.to_string());
                key::run(&mut parts, op, &self.solver.defaults.security, &node.platform, node.epoch);
                for (index, mount) in op.mounts.iter().enumerate() {
                    let Some(from) = mount.from else { continue };
                    let value = match self.sources.get(&from) {
                        Some(tree) => self.select(&mut selections, index, &mounted(mount), tree, work)?,
                        None => below(from)?.digest.to_string(),
                    };
                    parts.add(format!("files of mount {}", mount.target), value);
                }
            }
            Op::Copy(op) => {
                parts = Parts::new("copy");
                if let Some(base) = op.base {
                    parts.add(key::BELOW, below(base)?.digest.to_string());
                }
                let from = self.copied(op, &mut selections, work)?;
                key::copy(&mut parts, op, &from, node.epoch);
                if let (None, Some(onto)) = (op.base, op.onto) {
                    // The layer does not depend on what it is put onto; what others take of the node does.
                    let key = parts.key();
                    let mut all = Parts::new("linked");
                    all.add("layer", key.to_string());
                    all.add(key::BELOW, below(onto)?.digest.to_string());
                    return Ok(Definition { key: Some(key), digest: all.key(), stale, selections });
                }
            }
            Op::Mkdir(op) => {
                parts = Parts::new("mkdir");
                parts.add(key::BELOW, below(op.base)?.digest.to_string());
                key::mkdir(&mut parts, op, node.epoch);
            }
        }
        // A definition is no content: the same parts would mean something else.
        parts.add("definition", "yes");
        let key = parts.key();
        Ok(Definition { key: Some(key.clone()), digest: key, stale, selections })
    }

    fn copied(
        &self,
        op: &CopyOp,
        selections: &mut BTreeMap<usize, Digest>,
        work: Work<'_>,
    ) -> Result<Vec<String>, Error> {
        let mut values = Vec::new();
        for (index, action) in op.actions.iter().enumerate() {
            values.push(match action.from {
                None => String::new(),
                Some(from) => match self.sources.get(&from) {
                    Some(tree) => self.select(selections, index, action, tree, work)?,
                    None => format!("{} {}", self.defined(from)?.digest, key::source(action)),
                },
            });
        }
        Ok(values)
    }

    fn select(
        &self,
        selections: &mut BTreeMap<usize, Digest>,
        index: usize,
        action: &CopyAction,
        tree: &Tree,
        work: Work<'_>,
    ) -> Result<String, Error> {
        let digest = self.solver.files.selection(action, tree, work)?;
        let value = digest.to_string();
        selections.insert(index, digest);
        Ok(value)
    }
}

/// Of a node that nobody looks up.
fn whole(digest: Digest) -> Definition {
    Definition { key: None, digest, stale: false, selections: BTreeMap::new() }
}
