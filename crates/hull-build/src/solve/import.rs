//! Results of other machines, where this one has none.

use hull_oci::Digest;

use super::schedule::Solving;
use crate::Error;
use crate::cache::{Entry, Hit, foreign_inputs};
use crate::graph::{Node, NodeId, Op};
use crate::observer::StepId;
use crate::remote::Expected;

impl Solving<'_> {
    /// A result under a step's definition. Its layers must begin with those of the image that the step's file system
    /// begins with, and each step above that can have made one.
    pub(super) fn import_defined(&self, id: NodeId, node: &Node, key: &Digest) -> Result<Option<Hit>, Error> {
        if self.solver.imports.is_empty() {
            return Ok(None);
        }
        let (mut at, mut more) = (Some(node), 0);
        let mut below: &[Digest] = &[];
        while let Some(node) = at {
            let base = match &node.op {
                Op::Run(op) => Some(op.base),
                Op::Mkdir(op) => Some(op.base),
                // What a linked layer is put onto is not part of its own record, but of those above it.
                Op::Copy(op) if more == 0 => op.base,
                Op::Copy(op) => op.base.or(op.onto),
                Op::Image(image) => {
                    below = &image.layers;
                    None
                }
                Op::Scratch | Op::Local(_) | Op::Http(_) | Op::Git(_) => None,
            };
            more += usize::from(base.is_some() || matches!(node.op, Op::Copy(_)));
            at = base.and_then(|base| self.graph.node(base));
        }
        self.import(id, node, key, &[key], Expected { below, more })
    }

    /// A result under what a step is done to: the layers that it changes are known.
    pub(super) fn import_done(
        &self,
        id: NodeId,
        node: &Node,
        content: &Digest,
        keys: &[&Digest],
        below: &[Digest],
    ) -> Result<Option<Hit>, Error> {
        self.import(id, node, content, keys, Expected { below, more: 1 })
    }

    /// Takes a result over: from now on it is one of this store.
    fn import(
        &self,
        id: NodeId,
        node: &Node,
        key: &Digest,
        keys: &[&Digest],
        expected: Expected<'_>,
    ) -> Result<Option<Hit>, Error> {
        let (transfer, step) = (self.solver.transfer, StepId::Node(id));
        let taken = self.solver.imports.take(transfer, key, expected, (step, &node.name), self.observer)?;
        let Some(taken) = taken else { return Ok(None) };
        let name = format!("imported from {}", taken.name);
        let inputs = foreign_inputs(taken.content.as_ref());
        let (kind, slot) = ("regular", "");
        let entry = Entry { step: &name, slot, kind, inputs: &inputs, layers: &taken.layers, added: taken.added };
        let mut all: Vec<&Digest> = keys.to_vec();
        all.extend(taken.content.iter().filter(|content| !keys.contains(content)));
        self.cache.keep(transfer, &all, entry)?;
        self.cache.find(transfer, key)
    }
}
