//! One step: from the cache by its content, or done.

use std::collections::BTreeMap;

use hull_engine::normalise::Normalised;
use hull_image::Layer;
use hull_oci::Digest;

use super::define::{is_whole, mounted};
use super::key::{self, Parts};
use super::schedule::Solving;
use super::{Snapshot, Tree, Work};
use crate::Error;
use crate::cache::Entry;
use crate::graph::{CopyOp, Node, NodeId, Op, RunOp};
use crate::observer::{Event, StepId, Stream};
use crate::run;

/// Most differences that `--explain` shows of one step.
const MAX_REASONS: usize = 20;

/// The layers of a tree.
fn layers_of(inputs: &BTreeMap<NodeId, Tree>, id: NodeId) -> Result<&[Digest], Error> {
    match inputs.get(&id) {
        Some(Tree::Layers(layers)) => Ok(layers),
        _ => Err(Error::Request(format!("step {} is no file system", id.0))),
    }
}

/// What a step is whatever it depends on: what progress calls it without its number.
fn slot(node: &Node) -> String {
    let name = node.name.split_once("] ").map_or(node.name.as_str(), |(_, rest)| rest);
    format!("{}\n{}\n{name}", node.platform, node.stage.as_deref().unwrap_or_default())
}

impl Solving<'_> {
    /// Brings a step to its result, whose inputs are there.
    pub(super) fn perform(&self, id: NodeId, inputs: &BTreeMap<NodeId, Tree>) -> Result<Snapshot, Error> {
        let node = self.node(id)?;
        let work = self.work(id);
        work.check()?;
        let begun = std::cell::Cell::new(false);
        let begin = || {
            if !begun.replace(true) {
                self.observer.step(StepId::Node(id), Event::Started { name: &node.name });
            }
        };
        let result = self.bring(id, node, inputs, work, &begin);
        match &result {
            Ok(snapshot) if snapshot.cached && !begun.get() => {
                self.observer.step(StepId::Node(id), Event::Cached { name: &node.name });
            }
            Ok(_) => self.tell(id, Ok(())),
            Err(error) => {
                begin();
                self.tell(id, Err(error));
            }
        }
        result
    }

    fn bring(
        &self,
        id: NodeId,
        node: &Node,
        inputs: &BTreeMap<NodeId, Tree>,
        work: Work<'_>,
        begin: &dyn Fn(),
    ) -> Result<Snapshot, Error> {
        let definition = self.defined(id)?;
        // What the layer is put onto, and what of that the record holds.
        let onto = match &node.op {
            Op::Copy(op) if op.base.is_none() => op.onto.map(|onto| layers_of(inputs, onto)).transpose()?,
            _ => None,
        };
        let placed = |layers: Vec<Digest>, added: bool, cached: bool| {
            let layers = onto.unwrap_or_default().iter().cloned().chain(layers).collect();
            Snapshot { layers, added, cached }
        };
        if let Some(hit) = self.linked.get(&id) {
            return Ok(placed(hit.layers.clone(), hit.added, true));
        }
        let parts = self.content(node, &definition.selections, inputs, work)?;
        let content = parts.key();
        let find = || -> Result<Option<Snapshot>, Error> {
            let Some(hit) = self.cache.find(self.solver.transfer, &content)? else { return Ok(None) };
            if let Some(key) = &definition.key {
                self.cache.name(key, hit.id)?;
            }
            Ok(Some(placed(hit.layers, hit.added, true)))
        };
        let mut lock = None;
        if !node.ignore_cache {
            if let Some(snapshot) = find()? {
                return Ok(snapshot);
            }
            lock = Some(self.cache.lock(&content, || work.check())?);
            // Whoever had it may have done the step.
            if let Some(snapshot) = find()? {
                return Ok(snapshot);
            }
            let keys: Vec<&Digest> = definition.key.iter().chain([&content]).collect();
            let below = match &node.op {
                Op::Run(op) => layers_of(inputs, op.base)?,
                Op::Mkdir(op) => layers_of(inputs, op.base)?,
                Op::Copy(op) => op.base.map_or(Ok(&[][..]), |base| layers_of(inputs, base))?,
                _ => &[],
            };
            if let Some(hit) = self.import_done(id, node, &content, &keys, below)? {
                return Ok(placed(hit.layers, hit.added, true));
            }
        }
        begin();
        self.list(node, &parts, inputs, work);
        if self.solver.explain {
            self.explain(node, &parts, work)?;
        }
        let base: Vec<Digest> = match &node.op {
            Op::Run(op) => layers_of(inputs, op.base)?.to_vec(),
            Op::Mkdir(op) => layers_of(inputs, op.base)?.to_vec(),
            Op::Copy(op) => match op.base {
                Some(base) => layers_of(inputs, base)?.to_vec(),
                None => Vec::new(),
            },
            _ => Vec::new(),
        };
        let (layer, notes) = self.make(node, &base, inputs, &definition.selections, work)?;
        work.check()?;
        let own = layer.as_ref().map(|layer| layer.diff_id.clone());
        let (mut layers, added) = (base, layer.is_some());
        layers.extend(layer.map(|layer| layer.diff_id));
        let inputs = parts.to_json();
        let slot = slot(node);
        let entry = Entry { step: &node.name, slot: &slot, kind: "regular", inputs: &inputs, layers: &layers, added };
        let keys: Vec<&Digest> = definition.key.iter().chain([&content]).collect();
        self.cache.keep(self.solver.transfer, &keys, entry)?;
        if let Some(layer) = own {
            // Less is recorded without it.
            let _ = self.cache.note(&layer, &notes);
        }
        drop(lock);
        Ok(placed(layers, added, false))
    }

    /// The parts of a step's content key.
    fn content(
        &self,
        node: &Node,
        selections: &BTreeMap<usize, Digest>,
        inputs: &BTreeMap<NodeId, Tree>,
        work: Work<'_>,
    ) -> Result<Parts, Error> {
        let files = self.solver.files;
        match &node.op {
            Op::Run(op) => {
                let mut parts = Parts::new("run");
                parts.add(key::BELOW, key::layers(layers_of(inputs, op.base)?));
                key::run(&mut parts, op, &self.solver.defaults.security, &node.platform, node.epoch);
                for (index, mount) in op.mounts.iter().enumerate() {
                    let Some(tree) = mount.from.and_then(|from| inputs.get(&from)) else { continue };
                    let value = match (selections.get(&index), tree) {
                        (Some(known), _) => known.to_string(),
                        (None, Tree::Layers(layers)) if is_whole(&mount.source) => key::layers(layers),
                        (None, tree) => files.selection(&mounted(mount), tree, work)?.to_string(),
                    };
                    parts.add(format!("files of mount {}", mount.target), value);
                }
                Ok(parts)
            }
            Op::Copy(op) => {
                let mut parts = Parts::new("copy");
                if let Some(base) = op.base {
                    parts.add(key::BELOW, key::layers(layers_of(inputs, base)?));
                }
                let mut from = Vec::new();
                for (index, action) in op.actions.iter().enumerate() {
                    let tree = action.from.and_then(|from| inputs.get(&from));
                    from.push(match (selections.get(&index), tree) {
                        (Some(known), _) => known.to_string(),
                        (None, Some(tree)) => files.selection(action, tree, work)?.to_string(),
                        (None, None) => String::new(),
                    });
                }
                key::copy(&mut parts, op, &from, node.epoch);
                Ok(parts)
            }
            Op::Mkdir(op) => {
                let mut parts = Parts::new("mkdir");
                parts.add(key::BELOW, key::layers(layers_of(inputs, op.base)?));
                key::mkdir(&mut parts, op, node.epoch);
                Ok(parts)
            }
            _ => Err(Error::Request(format!("{}: nothing is to be done for it", node.name))),
        }
    }

    fn make(
        &self,
        node: &Node,
        base: &[Digest],
        inputs: &BTreeMap<NodeId, Tree>,
        selections: &BTreeMap<usize, Digest>,
        work: Work<'_>,
    ) -> Result<(Option<Layer>, Vec<Normalised>), Error> {
        let (files, transfer) = (self.solver.files, self.solver.transfer);
        match &node.op {
            Op::Copy(op) => {
                let from: Vec<Option<Tree>> =
                    op.actions.iter().map(|one| one.from.and_then(|from| inputs.get(&from)).cloned()).collect();
                files.copy(op, base, &from, transfer, work).map(|layer| (layer, Vec::new()))
            }
            Op::Mkdir(op) => files.mkdir(op, base, transfer, work).map(|layer| (layer, Vec::new())),
            Op::Run(op) => {
                let mounts = self.mounted(node, op, inputs, selections, work)?;
                let (layer, notes) = run::run(self.solver, op, node.epoch, base, &mounts, work)?.unzip();
                Ok((layer, notes.unwrap_or_default()))
            }
            _ => Ok((None, Vec::new())),
        }
    }

    /// The layers that mounts of a step show. Files of a source become a layer first: the step must see what was
    /// selected, whatever happens to the source meanwhile.
    fn mounted(
        &self,
        node: &Node,
        op: &RunOp,
        inputs: &BTreeMap<NodeId, Tree>,
        selections: &BTreeMap<usize, Digest>,
        work: Work<'_>,
    ) -> Result<Vec<Vec<Digest>>, Error> {
        let mut all = Vec::new();
        for (index, mount) in op.mounts.iter().enumerate() {
            all.push(match mount.from.and_then(|from| inputs.get(&from)) {
                None => Vec::new(),
                Some(Tree::Layers(layers)) => layers.to_vec(),
                Some(tree @ Tree::Source(_)) => {
                    let action = mounted(mount);
                    let mut parts = Parts::new("source");
                    let digest = match selections.get(&index) {
                        Some(digest) => digest.clone(),
                        None => self.solver.files.selection(&action, tree, work)?,
                    };
                    parts.add("files", digest.to_string());
                    parts.add("path", &action.destination);
                    let key = parts.key();
                    let _lock = self.cache.lock(&key, || work.check())?;
                    if let Some(hit) = self.cache.find(self.solver.transfer, &key)? {
                        hit.layers
                    } else {
                        let copy = CopyOp { base: None, onto: None, actions: vec![action] };
                        let tree = [Some(tree.clone())];
                        let layer = self.solver.files.copy(&copy, &[], &tree, self.solver.transfer, work)?;
                        let layers: Vec<Digest> = layer.into_iter().map(|layer| layer.diff_id).collect();
                        let step = format!("files of mount {} of {}", mount.target, node.name);
                        let (slot, inputs) = (format!("{}\nmount {}", slot(node), mount.target), parts.to_json());
                        let entry = Entry {
                            step: &step,
                            slot: &slot,
                            kind: "source",
                            inputs: &inputs,
                            layers: &layers,
                            added: !layers.is_empty(),
                        };
                        self.cache.keep(self.solver.transfer, &[&key], entry)?;
                        layers
                    }
                }
            });
        }
        Ok(all)
    }

    /// Keeps what a copy takes, file by file, so that the next build can say what differs.
    fn list(&self, node: &Node, parts: &Parts, inputs: &BTreeMap<NodeId, Tree>, work: Work<'_>) {
        let Op::Copy(op) = &node.op else { return };
        let selections = parts.selections();
        let trees = op.actions.iter().filter_map(|one| Some((one, inputs.get(&one.from?)?)));
        for ((action, tree), selection) in trees.zip(selections) {
            // Less is told without it.
            if let (Ok(list), Ok(digest)) = (self.solver.files.listing(action, tree, work), selection.parse()) {
                let _ = self.cache.keep_list(&digest, &list);
            }
        }
    }

    /// What a step is built on, as that which changed.
    fn below(&self, node: &Node) -> Option<String> {
        let below = match &node.op {
            Op::Run(op) => op.base,
            Op::Mkdir(op) => op.base,
            Op::Copy(op) => op.base?,
            _ => return None,
        };
        let below = self.graph.node(below)?;
        Some(match &below.op {
            Op::Image(image) => {
                let digest = image.digest.as_ref().unwrap_or(&image.id);
                format!("the base image {} is another one: now {digest}", image.reference)
            }
            _ => {
                let name = below.name.split_once("] ").map_or(below.name.as_str(), |(_, rest)| rest);
                format!("{name} came out differently")
            }
        })
    }

    /// Says why a step is not in the cache.
    fn explain(&self, node: &Node, parts: &Parts, work: Work<'_>) -> Result<(), Error> {
        let say = |line: &str| {
            let line = format!("not cached: {}\n", hull_oci::spec::one_line(line));
            work.log(Stream::Error, line.as_bytes());
        };
        if node.ignore_cache {
            say("the cache is not used for it");
            return Ok(());
        }
        let Some(before) = self.cache.last_inputs(&slot(node))?.as_deref().and_then(Parts::from_json) else {
            say("no result of such a step is kept");
            return Ok(());
        };
        let mut reasons = key::difference(&before, parts);
        for (name, old, new) in key::other_files(&before, parts) {
            if let Some(files) = self.cache.changed_files(&old, &new).filter(|files| !files.is_empty()) {
                reasons.retain(|reason| *reason != format!("{name} changed"));
                reasons.extend(files);
            }
        }
        let below = format!("{} changed", key::BELOW);
        if let (Some(reason), Some(what)) = (reasons.iter_mut().find(|reason| **reason == below), self.below(node)) {
            *reason = what;
        }
        if reasons.is_empty() {
            say("its result was removed");
        }
        reasons.iter().take(MAX_REASONS).for_each(|reason| say(reason));
        if reasons.len() > MAX_REASONS {
            say(&format!("and {} more differences", reasons.len() - MAX_REASONS));
        }
        Ok(())
    }
}
