//! Plans: from a parsed Dockerfile and a request to a graph of steps and the configuration of what comes out.
//!
//! Everything that contents do not decide is decided here: variables are expanded, stages and names resolved, stages that
//! nothing needs left out. Base images are looked up on the way (through [`Inputs`]), because their configurations say how
//! the instructions after them are read. Nothing else is touched.
//!
//! The rules, histories and messages are those of BuildKit's frontend, which images are compared with.
//!
//! # Dates
//!
//! The same inputs give the same image wherever and whenever it is built. So a step's files are not newer than the date
//! that was asked for (`SOURCE_DATE_EPOCH`) or, where none was, than the stage's base image; where files of a younger
//! stage come in, that one's date counts from there on. What is made of nothing has the date [`NO_DATE`]. Files of this
//! machine have exactly that date, since theirs is that of a checkout; those of layers, archives, downloads and
//! repositories keep older ones, which come with the content. The image itself has the date of the commit that is built,
//! which is in no step's key: a commit makes nothing be done again. `--timestamps=keep` leaves all files theirs.

mod arguments;
mod copy;
mod metadata;
mod run;
mod stage;
#[cfg(test)]
mod tests;
pub(crate) mod words;

use std::cell::Cell;
use std::collections::BTreeMap;

use hull_dockerfile::ast::{Dockerfile, Kind, Lines};
use hull_dockerfile::expand::Expander;
use hull_oci::image::{History, ImageConfig, Platform};

use crate::Error;
use crate::graph::{Graph, ImageSource, Node, NodeId, Op};
use crate::request::BuildRequest;

pub(crate) use arguments::is_proxy;
pub(crate) use stage::State;

/// Most bytes that the words of a file come to: a variable can be made of another twice over, line after line, and each
/// step has all of its stage.
const MAX_WORDS: usize = 64 << 20;

/// Files of more stages are planned in the order of the file.
const MAX_DEPTH: usize = 32;

/// 1980, in seconds since 1970: the first year that zip archives know.
pub const NO_DATE: i64 = 315_532_800;

/// What a build comes to, before anything is done.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Steps of all platforms.
    pub graph: Graph,
    /// One for each platform, in the order asked for.
    pub results: Vec<Planned>,
}

/// What comes out for one platform.
#[derive(Clone, Debug)]
pub struct Planned {
    /// For what.
    pub platform: Platform,
    /// The last step.
    pub node: NodeId,
    /// Layers below the first of `rows` that is of this build.
    pub base_layers: usize,
    /// Configuration without layers, history and date.
    pub config: ImageConfig,
    /// History, oldest first.
    pub rows: Vec<Row>,
    /// Date of the image, in seconds since 1970.
    pub created: i64,
}

/// A row of the history.
#[derive(Clone, Debug)]
pub struct Row {
    /// The row. Those of this build have no date yet, and are taken to make no layer.
    pub history: History,
    /// The step that may have made a layer.
    pub node: Option<NodeId>,
    /// It is of this build, not of the base image.
    pub own: bool,
}

/// What a plan must look up.
pub trait Inputs {
    /// An image and its configuration. It is in the store when this returns, or can be had when its files are needed.
    ///
    /// # Errors
    /// When it cannot be had.
    fn image(&self, reference: &str, platform: &Platform) -> Result<(ImageSource, ImageConfig), Error>;

    /// The main context (an empty name) or a named one. `None` if there is no such context.
    ///
    /// # Errors
    /// When it cannot be had.
    fn context(&self, name: &str) -> Result<Option<Place>, Error>;

    /// A repository, if the text names one: `git@host:path`, `https://host/path.git#ref:directory`, ...
    ///
    /// # Errors
    /// What is wrong with its reference or directory.
    fn repository(&self, text: &str) -> Option<Result<crate::graph::GitSource, String>>;

    /// The date of the commit that is built, if a repository is: seconds since 1970.
    fn commit_date(&self) -> Option<i64> {
        None
    }
}

/// Where a context's files are.
#[derive(Clone, Debug)]
pub enum Place {
    /// Nowhere: there are none.
    Empty,
    /// What a step without inputs gives.
    Source(Op),
    /// An image.
    Image(String),
    /// A stage of the Dockerfile.
    Stage(String),
}

/// Makes the plan of a Dockerfile.
///
/// # Errors
/// [`Error::Instruction`] with the line of what cannot be done.
pub fn plan(file: &Dockerfile, request: &BuildRequest, inputs: &dyn Inputs) -> Result<Plan, Error> {
    let native = [Platform::native()];
    let platforms = if request.platforms.is_empty() { &native[..] } else { &request.platforms };
    let mut plan = Plan::default();
    for platform in platforms {
        let mut planner = Planner::new(file, request, inputs, platform, std::mem::take(&mut plan.graph))?;
        let result = planner.result()?;
        plan.graph = planner.graph;
        plan.results.push(result);
    }
    Ok(plan)
}

/// The plan of one platform.
pub(crate) struct Planner<'a> {
    pub(crate) file: &'a Dockerfile,
    pub(crate) request: &'a BuildRequest,
    pub(crate) inputs: &'a dyn Inputs,
    /// What is built for.
    pub(crate) target: &'a Platform,
    pub(crate) graph: Graph,
    /// Variables before the first `FROM`.
    pub(crate) globals: Vec<(String, String)>,
    pub(crate) expander: Expander,
    /// Stages that were planned already, and those that are being planned.
    states: Vec<Progress>,
    /// Contexts and images that steps take files of.
    sources: BTreeMap<String, NodeId>,
    /// There is more than one stage, so that steps are called by theirs.
    named: bool,
    /// Bytes that expanded words and what is made of them have taken so far.
    spent: Cell<usize>,
}

enum Progress {
    Waiting,
    Begun,
    Done(Box<State>),
}

impl<'a> Planner<'a> {
    fn new(
        file: &'a Dockerfile,
        request: &'a BuildRequest,
        inputs: &'a dyn Inputs,
        target: &'a Platform,
        graph: Graph,
    ) -> Result<Self, Error> {
        let expander = Expander::new(file.escape);
        let globals = arguments::globals(file, request, target, &expander)?;
        let states = file.stages.iter().map(|_| Progress::Waiting).collect();
        let (sources, named, spent) = (BTreeMap::new(), false, Cell::new(0));
        let mut planner =
            Self { file, request, inputs, target, graph, globals, expander, states, sources, named, spent };
        planner.named = file.stages.len() > 1 || planner.takes_images();
        Ok(planner)
    }

    /// Whether files of images are taken, which count as stages then.
    fn takes_images(&self) -> bool {
        let mut from = self.file.stages.iter().flat_map(|stage| &stage.instructions).flat_map(|one| match &one.kind {
            Kind::Copy(copy) => copy.from.iter().collect::<Vec<_>>(),
            Kind::Run(run) => run.mounts.iter().filter_map(|mount| mount.from.as_ref()).collect(),
            _ => Vec::new(),
        });
        from.any(|from| self.find(from, self.file.stages.len()).is_none() && from.parse::<usize>().is_err())
    }

    /// The last stage of a name among the first so many.
    pub(crate) fn find(&self, name: &str, before: usize) -> Option<usize> {
        let of_it = |stage: &hull_dockerfile::ast::Stage| {
            stage.name.as_ref().is_some_and(|known| known.eq_ignore_ascii_case(name))
        };
        self.file.stages.iter().take(before).rposition(of_it)
    }

    /// The date of files that a step makes, if they do not keep theirs.
    pub(super) fn epoch(&self, date: Option<i64>) -> Option<i64> {
        (!self.request.keep_times).then(|| date.unwrap_or(NO_DATE))
    }

    /// The stage that is asked for, as an image.
    fn result(&mut self) -> Result<Planned, Error> {
        let last = self.file.stages.len().saturating_sub(1);
        let index = match self.request.target.as_deref().filter(|name| !name.is_empty()) {
            None => last,
            Some(name) => {
                let by_number = || name.parse().ok().filter(|index| *index <= last);
                let suggested = || match self
                    .file
                    .stages
                    .iter()
                    .filter_map(|stage| stage.name.as_deref())
                    .find(|known| near(known, name))
                {
                    Some(known) => format!(" (did you mean {known}?)"),
                    None => String::new(),
                };
                let found = self.find(name, self.file.stages.len()).or_else(by_number);
                found.ok_or_else(|| {
                    Error::Request(format!("target stage {} could not be found{}", words::quote(name), suggested()))
                })?
            }
        };
        self.below(index)?;
        let mut state = self.stage(index)?;
        state.config.config.labels.extend(self.request.labels.clone());
        let base_layers = state.rows.iter().filter(|row| !row.own && !row.history.empty_layer).count();
        let config = ImageConfig { platform: state.platform.clone(), ..state.config };
        Ok(Planned {
            platform: self.target.clone(),
            node: state.node,
            base_layers,
            config,
            rows: state.rows,
            created: self
                .request
                .source_date_epoch
                .or_else(|| self.inputs.commit_date())
                .or(state.epoch)
                .unwrap_or(NO_DATE),
        })
    }

    /// Plans what a stage needs one after the other where there is much of it: each stage may need the one before, and
    /// those that are planned on the way to others are deeper in the stack.
    fn below(&mut self, index: usize) -> Result<(), Error> {
        if self.file.stages.len() <= MAX_DEPTH || !self.request.contexts.is_empty() {
            return Ok(());
        }
        let base = |stage: &hull_dockerfile::ast::Stage| {
            let expanded = self.expander.expand(&stage.base, &self.globals);
            expanded.map_or_else(|_| stage.base.clone(), |expanded| expanded.text)
        };
        let bases: Vec<String> = self.file.stages.iter().map(base).collect();
        for stage in hull_dockerfile::stages::graph(self.file, &bases)?.reachable(index) {
            self.stage(stage)?;
        }
        Ok(())
    }

    /// Counts what words have become.
    pub(crate) fn spend(&self, bytes: usize, lines: Lines) -> Result<(), Error> {
        let spent = self.spent.get().saturating_add(bytes);
        self.spent.set(spent);
        if spent > MAX_WORDS {
            let reason = format!("the file's variables and words expand to more than {MAX_WORDS} bytes");
            return Err(Error::instruction(lines, reason));
        }
        Ok(())
    }

    /// A stage, planned once.
    pub(crate) fn stage(&mut self, index: usize) -> Result<State, Error> {
        match self.states.get(index) {
            Some(Progress::Done(state)) => {
                let lines = self.file.stages.get(index).map(|stage| stage.lines).unwrap_or_default();
                self.spend(state.bytes(), lines)?;
                return Ok(State::clone(state));
            }
            Some(Progress::Waiting) => {}
            Some(Progress::Begun) | None => {
                let stage = self.file.stages.get(index);
                let lines = stage.map(|stage| stage.lines).unwrap_or_default();
                let name = stage.map(|stage| stage_name(stage.name.as_deref(), index)).unwrap_or_default();
                return Err(Error::instruction(lines, format!("circular dependency detected on stage: {name}")));
            }
        }
        self.states[index] = Progress::Begun;
        let state = self.stage_of(index)?;
        self.states[index] = Progress::Done(Box::new(state.clone()));
        Ok(state)
    }

    /// The files that `--from` of an instruction in a stage means, with their date.
    pub(crate) fn from(&mut self, name: &str, stage: usize, lines: Lines) -> Result<(NodeId, Option<i64>), Error> {
        if let Ok(index) = name.parse::<i64>() {
            let found = usize::try_from(index).ok().filter(|index| *index < self.file.stages.len());
            let Some(found) = found else {
                return Err(Error::instruction(lines, format!("invalid stage index {index}")));
            };
            return self.earlier(found, stage, lines);
        }
        if let Some(index) = self.find(name, self.file.stages.len()) {
            return self.earlier(index, stage, lines);
        }
        if let Some(place) = self.named_context(name)? {
            return self.place(name, place, lines);
        }
        self.image_node(name, &self.target.clone(), &format!("FROM {}", full(name)), None, lines)
            .map(|(node, config)| (node, self.date(&config)))
    }

    fn earlier(&mut self, index: usize, stage: usize, lines: Lines) -> Result<(NodeId, Option<i64>), Error> {
        if index > stage {
            let name = |index: usize| {
                let name = self.file.stages.get(index).and_then(|stage| stage.name.as_deref());
                stage_name(name, index)
            };
            // The same words as for a stage that leads back to itself, if this one does.
            if !matches!(self.states.get(index), Some(Progress::Begun)) {
                let reason = format!(
                    "cannot copy from stage {}, it needs to be defined before current stage {}",
                    words::quote(&name(index)),
                    words::quote(&name(stage))
                );
                return Err(Error::instruction(lines, reason));
            }
        }
        if matches!(self.states.get(index), Some(Progress::Begun)) {
            let name = stage_name(self.file.stages.get(index).and_then(|stage| stage.name.as_deref()), index);
            return Err(Error::instruction(lines, format!("circular dependency detected on stage: {name}")));
        }
        let state = self.stage(index)?;
        Ok((state.node, state.epoch))
    }

    /// A context that was given by this name, or by another spelling of the image that the name means.
    pub(crate) fn named_context(&self, name: &str) -> Result<Option<Place>, Error> {
        if self.request.contexts.is_empty() {
            return Ok(None);
        }
        let same = |known: &&String| {
            known.eq_ignore_ascii_case(name) || (is_reference(name) && is_reference(known) && full(known) == full(name))
        };
        match self.request.contexts.keys().find(same) {
            Some(known) => self.inputs.context(known),
            None => Ok(None),
        }
    }

    /// The files of a context.
    pub(crate) fn place(&mut self, name: &str, place: Place, lines: Lines) -> Result<(NodeId, Option<i64>), Error> {
        match place {
            Place::Empty => Ok((self.scratch(), None)),
            Place::Image(reference) => {
                let title = format!("[context {name}] {reference}");
                let (node, config) = self.image_node(&reference, &self.target.clone(), &title, None, lines)?;
                Ok((node, self.date(&config)))
            }
            Place::Stage(stage) => {
                let Some(index) = self.find(&stage, self.file.stages.len()) else {
                    let reason = format!("target stage {} could not be found", words::quote(&stage));
                    return Err(Error::instruction(lines, reason));
                };
                self.stage(index).map(|state| (state.node, state.epoch))
            }
            Place::Source(op) => {
                let key = format!("context {name}");
                if let Some(node) = self.sources.get(&key) {
                    return Ok((*node, None));
                }
                let title = match name {
                    "" => "[internal] load build context".to_owned(),
                    name => format!("[context {name}] load from client"),
                };
                let node = self.graph.add(Node {
                    op,
                    name: title,
                    stage: None,
                    lines: None,
                    ignore_cache: false,
                    platform: self.target.to_string(),
                    epoch: None,
                });
                self.sources.insert(key, node);
                Ok((node, None))
            }
        }
    }

    /// The main context.
    pub(crate) fn context(&mut self, lines: Lines) -> Result<NodeId, Error> {
        let place = self.inputs.context("")?.unwrap_or(Place::Empty);
        self.place("", place, lines).map(|(node, _)| node)
    }

    /// No files.
    pub(crate) fn scratch(&mut self) -> NodeId {
        if let Some(node) = self.sources.get("scratch") {
            return *node;
        }
        let node = self.graph.add(Node {
            op: Op::Scratch,
            name: String::new(),
            stage: None,
            lines: None,
            ignore_cache: false,
            platform: self.target.to_string(),
            epoch: None,
        });
        self.sources.insert("scratch".to_owned(), node);
        node
    }

    /// An image's files, and its configuration.
    pub(crate) fn image_node(
        &mut self,
        reference: &str,
        platform: &Platform,
        title: &str,
        stage: Option<String>,
        lines: Lines,
    ) -> Result<(NodeId, ImageConfig), Error> {
        let (source, config) = self.inputs.image(reference, platform).map_err(|error| match error {
            Error::Instruction { reason, .. } => Error::instruction(lines, reason),
            error => Error::Step { name: String::new(), lines: Some(lines), source: Box::new(error) },
        })?;
        // An image is one step, whatever it is taken for; the first name counts.
        let key = format!("image {} {platform}", source.id);
        if let Some(node) = self.sources.get(&key) {
            return Ok((*node, config));
        }
        let title = match &source.digest {
            Some(digest) if !title.contains('@') => format!("{title}@{digest}"),
            _ => title.to_owned(),
        };
        let node = self.graph.add(Node {
            op: Op::Image(source),
            name: title,
            stage,
            lines: Some(lines),
            ignore_cache: false,
            platform: platform.to_string(),
            epoch: None,
        });
        self.sources.insert(key, node);
        Ok((node, config))
    }

    /// The date of what comes of an image: that which was asked for, or the image's.
    pub(crate) fn date(&self, config: &ImageConfig) -> Option<i64> {
        let own = || config.created.as_deref().and_then(hull_oci::time::parse_rfc3339).filter(|seconds| *seconds > 0);
        self.request.source_date_epoch.or_else(own)
    }
}

/// What a stage is called: its name in small letters, or its number.
pub(crate) fn stage_name(name: Option<&str>, index: usize) -> String {
    name.map_or_else(|| format!("stage-{index}"), str::to_ascii_lowercase)
}

/// An image's whole name; what is none stays as it is.
pub(crate) fn full(name: &str) -> String {
    name.parse::<hull_oci::Reference>().map_or_else(|_| name.to_owned(), |name| name.or_latest().to_string())
}

fn is_reference(name: &str) -> bool {
    name.parse::<hull_oci::Reference>().is_ok()
}

/// Whether one word may be meant by another: one letter more, less or other.
fn near(known: &str, word: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) =
        (known.to_lowercase().chars().collect(), word.to_lowercase().chars().collect());
    if a.len().abs_diff(b.len()) > 1 || a.len().min(b.len()) < 2 {
        return false;
    }
    let start = a.iter().zip(&b).take_while(|(left, right)| left == right).count();
    let end = a[start..].iter().rev().zip(b[start..].iter().rev()).take_while(|(left, right)| left == right).count();
    a.len().max(b.len()) - start - end <= 1
}
