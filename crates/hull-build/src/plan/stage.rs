//! One stage: its base, and what instructions do to its state.

use hull_dockerfile::ast::{Instruction, Kind, Lines, Stage};
use hull_dockerfile::expand::Expander;
use hull_oci::image::{History, ImageConfig, Platform};

use super::arguments::set;
use super::words::{capitalised, joined, quote};
use super::{Place, Planner, Row, full, stage_name};
use crate::Error;
use crate::graph::{MkdirOp, Node, NodeId, Op};

/// `PATH` where a base does not say one.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What BuildKit writes into the history, so that others know what made it.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// More instructions of a base image than these are not run.
const MAX_TRIGGERS: usize = 1000;

/// A stage, as far as its instructions have been read.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Its files.
    pub(crate) node: NodeId,
    /// `ENV` and `ARG`s in effect, in order.
    pub(crate) env: Vec<(String, String)>,
    /// `ARG`s, in order, with the values that they got.
    pub(crate) arguments: Vec<(String, Option<String>)>,
    /// What an image of it says.
    pub(crate) config: ImageConfig,
    /// Its history.
    pub(crate) rows: Vec<Row>,
    /// Its files are not newer.
    pub(crate) epoch: Option<i64>,
    /// What it is for.
    pub(crate) platform: Platform,
    /// Its place in the Dockerfile.
    pub(crate) index: usize,
    /// What it is called.
    pub(crate) name: String,
    /// There was a `CMD` in it.
    pub(crate) has_command: bool,
    /// Nothing of it comes from the cache.
    pub(crate) ignore_cache: bool,
    step: usize,
    steps: usize,
}

impl State {
    /// Takes down what an instruction did.
    pub(crate) fn record(&mut self, text: String, node: Option<NodeId>) {
        let history = History {
            created: None,
            created_by: Some(text),
            author: None,
            comment: Some(COMMENT.to_owned()),
            empty_layer: true,
        };
        self.rows.push(Row { history, node, own: true });
    }

    /// Bytes that a copy of it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        let of = |(name, value): &(String, String)| name.len() + value.len();
        let words = |list: &[String]| list.iter().map(String::len).sum::<usize>();
        let rows = self.rows.iter().map(|row| row.history.created_by.as_ref().map_or(0, String::len));
        let labels = self.config.config.labels.iter().map(|(name, value)| name.len() + value.len());
        let arguments = self.arguments.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len));
        self.env.iter().map(of).sum::<usize>()
            + rows.sum::<usize>()
            + labels.sum::<usize>()
            + arguments.sum::<usize>()
            + words(&self.config.config.env)
            + words(&self.config.config.shell)
    }

    /// `NAME=value` of every variable.
    pub(crate) fn environment(&self) -> Vec<String> {
        self.env.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Working directory.
    pub(crate) fn directory(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            directory => directory,
        }
    }
}

impl Planner<'_> {
    /// Plans a stage.
    pub(super) fn stage_of(&mut self, index: usize) -> Result<State, Error> {
        let file = self.file;
        let Some(stage) = file.stages.get(index) else {
            return Err(Error::Request(format!("invalid stage index {index}")));
        };
        let named = stage.name.as_deref().map(|name| self.named_context(name)).transpose()?.flatten();
        let replaced = named.is_some();
        let mut state = match named {
            // A context takes the whole stage's place.
            Some(place) => {
                let name = stage.name.clone().unwrap_or_default();
                self.based_on_place(&name, place, index, stage)?
            }
            None => self.base_of(index, stage)?,
        };
        state.index = index;
        state.name = stage_name(stage.name.as_deref(), index);
        state.has_command = false;
        let filter = &self.request.no_cache_filter;
        state.ignore_cache = self.request.no_cache || filter.iter().any(|name| name.eq_ignore_ascii_case(&state.name));
        if replaced {
            return Ok(state);
        }
        let triggers = std::mem::take(&mut state.config.config.on_build);
        if triggers.len() > MAX_TRIGGERS {
            let reason =
                format!("the base image has {} ONBUILD triggers: at most {MAX_TRIGGERS} are run", triggers.len());
            return Err(Error::instruction(stage.lines, reason));
        }
        let triggers = triggers.iter().map(|text| {
            hull_dockerfile::parse_onbuild(text, stage.lines)
                .map_err(|error| Error::instruction(stage.lines, error.message))
        });
        let triggers = triggers.collect::<Result<Vec<_>, _>>()?;
        let counted =
            |one: &&Instruction| matches!(one.kind, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_));
        state.steps += triggers.iter().chain(&stage.instructions).filter(counted).count();
        for instruction in triggers.iter().chain(&stage.instructions) {
            self.instruction(&mut state, instruction)?;
        }
        Ok(state)
    }

    /// The state that `FROM` leads to.
    fn base_of(&mut self, index: usize, stage: &Stage) -> Result<State, Error> {
        let wrong = |reason: String| Error::instruction(stage.lines, reason);
        let expand = |text: &str| {
            self.expander
                .expand(text, &self.globals)
                .map(|expanded| expanded.text)
                .map_err(|error| wrong(error.to_string()))
        };
        let base = expand(&stage.base)?;
        if base.is_empty() {
            return Err(wrong(format!("base name ({}) should not be blank", stage.base)));
        }
        let platform = match &stage.platform {
            None => None,
            Some(text) => {
                let word = expand(text)?;
                if word.is_empty() {
                    return Err(wrong(format!("empty platform value from expression {text}")));
                }
                let parsed = Platform::parse(&word);
                Some(parsed.map_err(|reason| wrong(format!("failed to parse platform {word}: {reason}")))?)
            }
        };
        if let Some(earlier) = self.find(&base, index) {
            let mut state = self.stage(earlier)?;
            self.begin(&mut state);
            (state.step, state.steps) = (0, 0);
            return Ok(state);
        }
        if let Some(place) = self.named_context(&base)? {
            return self.based_on_place(&base, place, index, stage);
        }
        let platform = platform.unwrap_or_else(|| self.target.clone());
        if base == "scratch" {
            return Ok(self.based_on_nothing(platform));
        }
        self.based_on_image(&base, platform, index, stage, None)
    }

    fn based_on_place(&mut self, name: &str, place: Place, index: usize, stage: &Stage) -> Result<State, Error> {
        match place {
            Place::Image(reference) => {
                let title = format!("[context {name}] {reference}");
                self.based_on_image(&reference, self.target.clone(), index, stage, Some(title))
            }
            Place::Stage(target) => {
                let found = self.find(&target, self.file.stages.len()).filter(|found| *found != index);
                let Some(found) = found else {
                    let reason = format!("target stage {} could not be found", quote(&target));
                    return Err(Error::instruction(stage.lines, reason));
                };
                let mut state = self.stage(found)?;
                self.begin(&mut state);
                (state.step, state.steps) = (0, 0);
                Ok(state)
            }
            place => {
                // A directory is no file system of layers: it is copied onto nothing.
                let (from, _) = self.place(name, place, stage.lines)?;
                let mut state = self.based_on_nothing(self.target.clone());
                state.node = self.whole(from, name, stage.lines, state.epoch);
                let node = state.node;
                state.record(format!("FROM {name}"), Some(node));
                Ok(state)
            }
        }
    }

    fn based_on_nothing(&mut self, platform: Platform) -> State {
        let mut config = ImageConfig { platform: platform.clone(), ..ImageConfig::default() };
        "/".clone_into(&mut config.config.working_dir);
        let mut state = State {
            node: self.scratch(),
            env: Vec::new(),
            arguments: Vec::new(),
            config,
            rows: Vec::new(),
            epoch: self.request.source_date_epoch,
            platform,
            index: 0,
            name: String::new(),
            has_command: false,
            ignore_cache: false,
            step: 0,
            steps: 0,
        };
        self.begin(&mut state);
        state
    }

    fn based_on_image(
        &mut self,
        base: &str,
        platform: Platform,
        index: usize,
        stage: &Stage,
        title: Option<String>,
    ) -> Result<State, Error> {
        if let Err(error) = base.parse::<hull_oci::Reference>() {
            let reason = format!("failed to parse stage name {}: {error}", quote(base));
            return Err(Error::instruction(stage.lines, reason));
        }
        let counted =
            |one: &&Instruction| matches!(one.kind, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_));
        // Triggers are not known before the image is; BuildKit does not count them here either.
        let steps = 1 + stage.instructions.iter().filter(counted).count();
        let name = stage_name(stage.name.as_deref(), index);
        let title = title.unwrap_or_else(|| {
            format!("[{}{}1/{steps}] FROM {}", self.shown(&platform, None), self.shown_name(&name), full(base))
        });
        let (node, config) = self.image_node(base, &platform, &title, Some(name), stage.lines)?;
        let platform = Platform {
            // What the image says of itself, as far as it says something.
            variant: config.platform.variant.clone().or(platform.variant),
            ..platform
        };
        let mut config = config;
        let mut rows: Vec<Row> = std::mem::take(&mut config.history)
            .into_iter()
            .map(|history| Row { history, node: None, own: false })
            .collect();
        account(&mut rows, config.rootfs.diff_ids.len());
        let epoch = self.date(&config);
        config.rootfs.diff_ids.clear();
        config.created = None;
        config.comment = None;
        config.platform = platform.clone();
        let mut state = State {
            node,
            env: Vec::new(),
            arguments: Vec::new(),
            config,
            rows,
            epoch,
            platform,
            index: 0,
            name: String::new(),
            has_command: false,
            ignore_cache: false,
            step: 1,
            steps: 1,
        };
        self.begin(&mut state);
        Ok(state)
    }

    /// Variables of the configuration count from here on; there always is a `PATH`.
    fn begin(&self, state: &mut State) {
        if !state.config.config.env.iter().any(|variable| variable.starts_with("PATH=")) {
            state.config.config.env.push(format!("PATH={PATH}"));
        }
        for variable in &state.config.config.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            set(&mut state.env, name, value.to_owned());
        }
    }

    fn shown_name(&self, name: &str) -> String {
        if self.named && !name.is_empty() { format!("{name} ") } else { String::new() }
    }

    /// `OS/ARCH ` where there are several platforms, with what is built for if it is another one.
    fn shown(&self, platform: &Platform, state: Option<&State>) -> String {
        if self.request.platforms.len() < 2 {
            return String::new();
        }
        let variable = |name: &str| {
            let state = state?;
            state.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let text = platform.to_string();
        match variable("TARGETPLATFORM")
            .or_else(|| variable("TARGETARCH").map(|arch| format!("{}/{arch}", platform.os)))
        {
            Some(target) if target != text => {
                let short = target.strip_prefix(&format!("{}/", platform.os)).unwrap_or(&target);
                format!("{text}->{short} ")
            }
            _ => format!("{text} "),
        }
    }

    /// What progress calls a step: `[builder 2/5] RUN make`.
    pub(super) fn title(&self, state: &mut State, instruction: &Instruction, suffix: &str) -> String {
        let display = Expander::display(self.file.escape);
        let text = format!("{}{suffix}", instruction.original);
        let text = display.expand(&text, &state.env).map_or(text, |expanded| expanded.text);
        let text = hull_oci::spec::one_line(&capitalised(&text));
        state.step += 1;
        let width = state.steps.to_string().len();
        let platform = self.shown(&state.platform, Some(state));
        format!("[{platform}{}{:width$}/{}] {text}", self.shown_name(&state.name), state.step, state.steps)
    }

    /// A step of a stage.
    pub(super) fn node(&self, state: &State, op: Op, name: String, lines: Lines) -> Node {
        Node {
            op,
            name,
            stage: Some(state.name.clone()),
            lines: Some(lines),
            ignore_cache: state.ignore_cache,
            platform: state.platform.to_string(),
            epoch: self.epoch(state.epoch),
        }
    }

    /// A word of an instruction, expanded.
    pub(super) fn word(&self, state: &State, text: &str, lines: Lines) -> Result<String, Error> {
        let expanded = self.expander.expand(text, &state.env);
        let text = expanded.map_err(|error| Error::instruction(lines, error.to_string()))?.text;
        self.spend(text.len(), lines)?;
        Ok(text)
    }

    pub(super) fn words(&self, state: &State, texts: &[String], lines: Lines) -> Result<Vec<String>, Error> {
        texts.iter().map(|text| self.word(state, text, lines)).collect()
    }

    fn instruction(&mut self, state: &mut State, instruction: &Instruction) -> Result<(), Error> {
        let lines = instruction.lines;
        match &instruction.kind {
            Kind::Add(copy) => self.copy(state, instruction, copy, true),
            Kind::Copy(copy) => self.copy(state, instruction, copy, false),
            Kind::Run(run) => self.run(state, instruction, run),
            Kind::Workdir(path) => self.workdir(state, instruction, path),
            Kind::Arg(arguments) => self.argument(state, arguments, lines),
            Kind::Env(variables) => self.env(state, variables, lines),
            _ => self.metadata(state, instruction),
        }
    }

    fn workdir(&mut self, state: &mut State, instruction: &Instruction, path: &str) -> Result<(), Error> {
        let path = self.word(state, path, instruction.lines)?;
        // A variable that is not set is nothing, and not shown as such, unlike in other instructions.
        let shown = Instruction { original: format!("WORKDIR {path}"), ..instruction.clone() };
        let path = joined(state.directory(), &path);
        state.config.config.working_dir.clone_from(&path);
        if path == "/" {
            state.record("WORKDIR /".to_owned(), None);
            return Ok(());
        }
        let name = self.title(state, &shown, "");
        let user = state.config.config.user.clone();
        let op = Op::Mkdir(MkdirOp { base: state.node, path: path.clone(), user });
        state.node = self.graph.add(self.node(state, op, name, instruction.lines));
        let node = state.node;
        state.record(format!("WORKDIR {path}"), Some(node));
        Ok(())
    }
}

/// Makes a base image's history fit its layers: rows without layer say so, and layers without row get one.
fn account(rows: &mut Vec<Row>, layers: usize) {
    let mut left = layers;
    for row in rows.iter_mut().filter(|row| !row.history.empty_layer) {
        match left.checked_sub(1) {
            Some(less) => left = less,
            None => row.history.empty_layer = true,
        }
    }
    for _ in 0..left {
        rows.push(Row { history: History::default(), node: None, own: false });
    }
}
