//! What a build tells while it runs: which step begins, what it prints, how it ends.

use hull_dockerfile::ast::Lines;

use crate::graph::NodeId;

/// A step that is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepId {
    /// A step of the graph.
    Node(NodeId),
    /// Something beside the graph: reading the Dockerfile, looking an image up, writing the result. The number tells
    /// them apart.
    Beside(u32),
}

/// Where a step printed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// What happened to a step.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// It begins.
    Started {
        /// What to call it: `[builder 2/5] RUN make`.
        name: &'a str,
    },
    /// The cache has it; nothing else will be told of it.
    Cached {
        /// What to call it.
        name: &'a str,
    },
    /// It printed something: any bytes, not whole lines.
    Log {
        /// Where.
        stream: Stream,
        /// What.
        data: &'a [u8],
    },
    /// A part of it goes on: a download, a layer that is written.
    Status {
        /// Which part.
        id: &'a str,
        /// Bytes so far.
        current: u64,
        /// Of so many, if that is known; 0 otherwise.
        total: u64,
        /// The part is finished.
        done: bool,
    },
    /// It is finished.
    Done,
    /// It failed.
    Failed {
        /// Why, in one line.
        reason: &'a str,
    },
    /// It was not finished because another one failed or the user gave up.
    Canceled,
}

/// Something that is not wrong but should be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// In one line.
    pub message: String,
    /// Why, in more words.
    pub detail: Option<String>,
    /// Where to read about it.
    pub url: Option<String>,
    /// Where in the Dockerfile it is.
    pub lines: Option<Lines>,
}

/// Hears of every step. Called from several threads at once, also often: it must return soon.
pub trait Observer: Send + Sync {
    /// Something happened to a step.
    fn step(&self, step: StepId, event: Event<'_>);

    /// Something should be said.
    fn warning(&self, warning: &Warning) {
        let _ = warning;
    }
}

/// Nobody looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn step(&self, _: StepId, _: Event<'_>) {}
}
