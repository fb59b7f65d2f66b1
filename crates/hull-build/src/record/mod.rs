//! What a build records and proves.
//!
//! * [`inputs`]: everything that came into a build from outside: base images, downloads, repositories, files.
//! * [`lock`]: `hull.lock`, which has these by digest; `--locked` refuses others.
//! * [`packages`]: what a layer added to the package managers' lists.
//! * [`provenance`]: how an image was built, as others read it.
//! * `sbom`: what is in an image, as SPDX has it.
//! * [`verify`]: whether an image comes out the same when it is built again.
//!
//! Only the provenance has times, and nothing has paths of the machine.

pub mod inputs;
pub mod lock;
pub mod packages;
pub mod provenance;
pub(crate) mod sbom;
pub mod verify;

pub use inputs::Inputs;
pub use lock::Lock;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use hull_dockerfile::ast::Lines;
use hull_oci::Digest;

use crate::cache::Cache;
use crate::graph::{Graph, NodeId, Op};
use crate::observer::Warning;
use crate::plan::Planned;
use crate::request::{BuildRequest, Context};
use crate::solve::{Known, Taken, Watch};
use crate::{Error, files};

/// A longer instruction is cut off.
const MAX_WORDS: usize = 400;

/// What the steps of an image did: with packages only where they are asked for, since that is looked for in layers.
pub(crate) fn steps(
    (cache, files): (&Cache, &files::Sources),
    (text, graph): (&[u8], &Graph),
    planned: &Planned,
    layers: &[Digest],
    made: &dyn Fn(NodeId) -> bool,
    packages: bool,
) -> Result<Vec<lock::Step>, Error> {
    let own = planned.rows.iter().filter(|row| row.own && row.node.is_some_and(made));
    let notes = cache.notes(layers)?;
    let mut steps = Vec::new();
    for (index, row) in (planned.base_layers..).zip(own) {
        let mut step = lock::Step {
            step: row.node.and_then(|node| graph.node(node)?.lines).map(|lines| words(text, lines)).unwrap_or_default(),
            platform: planned.platform.to_string(),
            normalised: notes.get(index).cloned().unwrap_or_default(),
            packages: Vec::new(),
        };
        let runs = row.node.and_then(|node| graph.node(node)).is_some_and(|node| matches!(node.op, Op::Run(_)));
        if packages && runs {
            step.packages = packages::added(files, layers, index)?;
        }
        if !step.packages.is_empty() || !step.normalised.is_empty() {
            steps.push(step);
        }
    }
    Ok(steps)
}

/// Lines of a Dockerfile as they are written: values of arguments, which may be secret, are not in them.
fn words(text: &[u8], lines: Lines) -> String {
    let (first, last) = (lines.start.max(1) as usize, lines.end.max(1) as usize);
    let text = String::from_utf8_lossy(text);
    let text: Vec<&str> = text.lines().skip(first - 1).take((last + 1).saturating_sub(first)).collect();
    let mut words: String = hull_oci::spec::one_line(&text.join("\n")).chars().take(MAX_WORDS).collect();
    words.truncate(words.trim_end().len());
    words
}

/// The lock that is to be written, if one is: asked for, or there for the same target.
pub(crate) fn lock_to_write(request: &BuildRequest) -> Option<&Path> {
    let options = &request.lock;
    let path = options.path.as_deref().filter(|_| !options.locked)?;
    if options.write {
        return Some(path);
    }
    let target = request.target.as_deref().unwrap_or_default();
    // What nobody asked for and is none is somebody else's file.
    Lock::read(path).ok().flatten().filter(|lock| lock.target == target).map(|_| path)
}

/// Adds the commit of a context's work tree.
pub(crate) fn describe(inputs: &mut Inputs, request: &BuildRequest, head: Option<inputs::Head>) {
    let (Some(head), Context::Directory(directory)) = (head, &request.context) else { return };
    if let Some(context) = inputs.contexts.iter_mut().find(|context| context.name == "context") {
        context.dirty = inputs::is_dirty(directory, request.lock.path.as_deref());
        context.commit = Some(head.commit);
    }
}

/// Notes what comes into a build, and refuses what a lock does not have.
pub(crate) struct Watcher<'a> {
    locked: Option<&'a Lock>,
    cache: Cache,
    /// What was taken is looked at by its names too.
    thorough: bool,
    noted: Mutex<(Inputs, bool)>,
}

impl<'a> Watcher<'a> {
    pub(crate) fn new(locked: Option<&'a Lock>, cache: Cache, thorough: bool) -> Self {
        Self { locked, cache, thorough, noted: Mutex::default() }
    }

    /// What came.
    pub(crate) fn inputs(&self) -> Inputs {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// What should be said of it: a repository's own files differ from clone to clone.
    pub(crate) fn warning(&self) -> Option<Warning> {
        let taken = self.noted.lock().unwrap_or_else(PoisonError::into_inner).1;
        let message = "the context's .git is copied: it differs from clone to clone, and so does what is built";
        let detail = "Add .git to .dockerignore, or copy less than the whole context.";
        taken.then(|| Warning { message: message.to_owned(), detail: Some(detail.to_owned()), url: None, lines: None })
    }
}

impl Watch for Watcher<'_> {
    fn known(&self, known: &Known<'_>) -> Result<(), Error> {
        let inputs = Inputs::collect(known)?;
        if let Some(locked) = self.locked {
            let files = |context: &str, what: &str, before: &str| {
                let taken = known
                    .taken
                    .iter()
                    .find(|taken| taken.context(known.graph) == Some(context) && taken.what() == what)?;
                let list = (known.listing)(taken)?;
                // Less is told without it.
                let _ = self.cache.keep_list(&taken.digest, &list);
                self.cache.changed_files(before, &taken.digest.to_string())
            };
            let differences = locked.differences(&inputs, &files);
            if !differences.is_empty() {
                return Err(lock::refused(&differences));
            }
        }
        let own = |(path, _): &(String, String)| {
            path.split('/').find(|name| !name.is_empty() && *name != ".") == Some(".git")
        };
        let of_git = |taken: &&Taken| {
            taken.context(known.graph) == Some("context")
                && (known.listing)(taken).is_some_and(|list| list.iter().any(own))
        };
        let git = self.thorough && known.taken.iter().any(|taken| of_git(&taken));
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner) = (inputs, git);
        Ok(())
    }
}
