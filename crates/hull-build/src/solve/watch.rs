//! What comes into a build, as far as it is known before any step is done.

use std::collections::BTreeMap;

use hull_oci::Digest;

use super::Tree;
use crate::Error;
use crate::graph::{CopyAction, Graph, NodeId, Op};

/// Hears what comes into a build: sources are ready, and what is taken of them is known.
pub trait Watch: Sync {
    /// May refuse it.
    ///
    /// # Errors
    /// Ends the build before any step is done.
    fn known(&self, known: &Known<'_>) -> Result<(), Error>;
}

/// What was taken, file by file: paths and stamps.
pub type Listing<'a> = dyn Fn(&Taken) -> Option<Vec<(String, String)>> + 'a;

/// What is known before any step is done.
pub struct Known<'a> {
    /// All steps.
    pub graph: &'a Graph,
    /// Those that are needed.
    pub needed: &'a [NodeId],
    /// Sources that are needed.
    pub sources: &'a BTreeMap<NodeId, Tree>,
    /// What is taken of them.
    pub taken: &'a [Taken],
    /// What was taken, file by file.
    pub listing: &'a Listing<'a>,
}

impl std::fmt::Debug for Known<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Known")
            .field("needed", &self.needed)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

/// What a step takes of a source.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The step.
    pub step: NodeId,
    /// The source.
    pub from: NodeId,
    /// How.
    pub action: CopyAction,
    /// Digest of that.
    pub digest: Digest,
}

impl Taken {
    /// The name of the context that it is of, if it is of one.
    #[must_use]
    pub fn context<'g>(&self, graph: &'g Graph) -> Option<&'g str> {
        match graph.node(self.from).map(|node| &node.op) {
            Some(Op::Local(local)) => Some(&local.name),
            _ => None,
        }
    }

    /// What it is, in words of the Dockerfile.
    #[must_use]
    pub fn what(&self) -> String {
        let mut text = self.action.source.clone();
        self.action.exclude.iter().for_each(|pattern| text.push_str(&format!(" --exclude={pattern}")));
        if self.action.parents {
            text.push_str(" --parents");
        }
        text
    }
}
