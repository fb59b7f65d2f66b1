//! The rules that need variables: stages and their instructions are gone through as a build would.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{Base, Linter, Options, Rule};
use crate::ast::{Dockerfile, Instruction, KeyValue, Kind, Lines, Stage};
use crate::error::{Error, quote, suggest, with_suggestion};
use crate::expand::{Expanded, Expander};
use crate::parse::{doc_comment, parse_onbuild};
use crate::platform;
use crate::stages::{self, Graph, Origin};

mod instructions;

/// Most bytes that the variables of all stages take, and that words are expanded to.
const MAX_VARIABLES: usize = 16 << 20;
/// Findings from which on it is not looked for what may have been meant.
const MAX_SUGGESTIONS: usize = 100;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Images that are meant more often than others.
const COMMON: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

type Variables = BTreeMap<String, String>;

/// An `ARG` as `--call=outline` shows it.
#[derive(Clone, Debug, Default)]
pub(super) struct ArgInfo {
    pub(super) value: String,
    pub(super) description: String,
    pub(super) lines: Lines,
    /// Arguments that its default is made of.
    pub(super) of: BTreeSet<String>,
}

/// What a stage offers and asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Offer {
    pub(super) args: Rc<BTreeMap<String, ArgInfo>>,
    pub(super) used: BTreeSet<String>,
    /// Secrets and agents, each with whether it is required and where it is first used.
    pub(super) secrets: Vec<(String, bool, Lines)>,
    pub(super) ssh: Vec<(String, bool, Lines)>,
}

/// A file that was gone through.
#[derive(Debug)]
pub(super) struct Evaluated {
    pub(super) file: Dockerfile,
    pub(super) graph: Graph,
    pub(super) target: usize,
    pub(super) offers: Vec<Offer>,
}

/// What is known of a stage where its instructions are.
#[derive(Clone, Debug, Default)]
struct State {
    env: Rc<Variables>,
    /// Its base is known, so what is not in `env` is not set.
    known: bool,
    declared: Rc<BTreeSet<String>>,
    workdir_set: bool,
    /// The working directory is `/` for certain.
    in_root: bool,
    shell: bool,
    /// Where `CMD`, `ENTRYPOINT` and `HEALTHCHECK` were last.
    last: [Option<Lines>; 3],
}

struct Evaluation<'a> {
    linter: &'a mut Linter,
    options: &'a Options<'a>,
    expander: Expander,
    /// Arguments of the file and of the platform.
    globals: Variables,
    /// Stages by name.
    names: stages::Names,
    /// Bytes that stages' variables and expanded words have taken so far.
    bytes: usize,
    offers: Vec<Offer>,
}

fn at(reason: impl ToString, lines: Lines) -> Error {
    Error::new(reason.to_string(), Some(lines))
}

/// Arguments that every build has.
fn builtin(options: &Options<'_>, file: &Dockerfile) -> Variables {
    let last = file.stages.last().and_then(|stage| stage.name.as_ref()).map(|name| name.to_lowercase());
    let target = options.target.map(str::to_owned).or(last).unwrap_or_else(|| "default".into());
    let mut variables = Variables::new();
    for (prefix, name) in [("BUILD", options.build_platform), ("TARGET", options.platform)] {
        let mut parts = name.splitn(3, '/');
        let mut add = |key: &str, value: &str| variables.insert(format!("{prefix}{key}"), value.to_owned());
        add("PLATFORM", name);
        add("OS", parts.next().unwrap_or(""));
        add("ARCH", parts.next().unwrap_or(""));
        add("VARIANT", parts.next().unwrap_or(""));
        add("OSVERSION", "");
    }
    variables.insert("TARGETSTAGE".into(), target);
    for (key, value) in &mut variables {
        if let Some(given) = options.build_args.get(key) {
            value.clone_from(given);
        }
    }
    variables
}

/// Goes through the stages: all of them, or those that the target needs.
pub(super) fn evaluate(
    linter: &mut Linter,
    file: Dockerfile,
    options: &Options<'_>,
    all: bool,
) -> Result<Evaluated, Error> {
    let globals = builtin(options, &file);
    let expander = Expander::new(file.escape);
    let names = stages::Names::of(&file);
    let mut evaluation = Evaluation { linter, options, expander, globals, names, bytes: 0, offers: Vec::new() };
    evaluation.check_defaults(&file);
    let args = evaluation.global_args(&file)?;
    let mut bases = Vec::new();
    for stage in &file.stages {
        bases.push(evaluation.from(stage, &args)?);
    }
    let target = stages::target(&file, options.target)?;
    let names: Vec<String> = bases.iter().map(|base| base.name.clone()).collect();
    let graph = stages::graph(&file, &names)?;
    evaluation.offer(&graph, &bases, args);
    let order = if all { (0..file.stages.len()).collect() } else { graph.reachable(target) };
    let mut images = evaluation.images(&file, &graph, &bases, &order)?;
    let mut states: Vec<Option<State>> = vec![None; file.stages.len()];
    for index in order {
        let state = evaluation.stage(&file, &graph, index, images[index].take(), &states)?;
        states[index] = Some(state);
    }
    let offers = evaluation.offers;
    Ok(Evaluated { file, graph, target, offers })
}

/// What a `FROM` says when its variables are known.
struct From {
    name: String,
    platform: Option<String>,
    used: BTreeSet<String>,
}

impl Evaluation<'_> {
    fn expand(&self, text: &str, variables: &Variables) -> (Expanded, Result<(), String>) {
        let (out, result) = self.expander.expand_reporting(text, variables);
        (out, result.map_err(|error| error.to_string()))
    }

    /// Bases must be names even when no build argument is given.
    fn check_defaults(&mut self, file: &Dockerfile) {
        let mut variables = self.globals.clone();
        for arg in file.args.iter().flat_map(args_of) {
            let Some(value) = &arg.value else { continue };
            // What is wrong with it is said by the build.
            let Ok(out) = self.expander.expand(value, &variables) else { return };
            variables.insert(arg.key.clone(), out.text);
        }
        for stage in &file.stages {
            let Ok(out) = self.expander.expand(&stage.base, &variables) else { return };
            if out.text.parse::<hull_oci::Reference>().is_err() {
                let detail =
                    format!("Default value for ARG {} results in empty or invalid base image name", stage.base);
                self.linter.report(Rule::InvalidDefaultArgInFrom, stage.lines, &[], detail);
            }
        }
    }

    /// `ARG`s before the first `FROM`.
    fn global_args(&mut self, file: &Dockerfile) -> Result<Rc<BTreeMap<String, ArgInfo>>, Error> {
        let mut infos: BTreeMap<String, ArgInfo> = BTreeMap::new();
        for instruction in &file.args {
            for arg in args_of(instruction) {
                let mut info = info(instruction, arg);
                let value = match (self.options.build_args.get(&arg.key), &arg.value) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => {
                        let (out, result) = self.expand(default, &self.globals);
                        result.map_err(|reason| at(reason, instruction.lines))?;
                        info.of = out.used;
                        if info.of.remove(&arg.key) {
                            info.of.extend(infos.get(&arg.key).into_iter().flat_map(|old| old.of.clone()));
                        }
                        Some(out.text)
                    }
                    (None, None) => None,
                };
                if let Some(value) = value {
                    info.value.clone_from(&value);
                    self.count(arg.key.len() + value.len(), instruction.lines)?;
                    self.globals.insert(arg.key.clone(), value);
                }
                infos.insert(arg.key.clone(), info);
            }
        }
        Ok(Rc::new(infos))
    }

    fn count(&mut self, bytes: usize, lines: Lines) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_VARIABLES {
            return Err(at(format!("the file's variables take more than {MAX_VARIABLES} bytes"), lines));
        }
        Ok(())
    }

    fn from(&mut self, stage: &Stage, args: &BTreeMap<String, ArgInfo>) -> Result<From, Error> {
        let fail = |reason: String| at(reason, stage.lines);
        let (name, result) = self.expand(&stage.base, &self.globals);
        self.undefined_in_from(stage, &name.unset, args);
        result.map_err(fail)?;
        if name.text.is_empty() {
            return Err(fail(format!("base name ({}) should not be blank", stage.base)));
        }
        let mut used = name.used;
        let mut platform = None;
        if let Some(raw) = &stage.platform {
            let (out, result) = self.expand(raw, &self.globals);
            self.undefined_in_from(stage, &out.unset, args);
            self.platform_rules(stage, raw, &out);
            result.map_err(|reason| fail(format!("failed to process arguments for platform : {reason}")))?;
            let suggested = |message: String| {
                let names = || self.globals.keys().map(String::as_str);
                let near = out.unset.iter().find_map(|name| suggest(name, names(), true));
                near.map_or(message.clone(), |near| format!("{message} (did you mean {near}?)"))
            };
            if out.text.is_empty() {
                return Err(fail(suggested(format!("empty platform value from expression {raw}"))));
            }
            if let Err(reason) = platform::parse(&out.text) {
                return Err(fail(format!("failed to parse platform {raw}: {}", suggested(reason))));
            }
            used.extend(out.used);
            platform = Some(out.text);
        }
        Ok(From { name: name.text, platform, used })
    }

    fn undefined_in_from(&mut self, stage: &Stage, unset: &BTreeSet<String>, args: &BTreeMap<String, ArgInfo>) {
        for name in unset.iter().filter(|name| !args.contains_key(*name)) {
            let known = args.keys().chain(self.globals.keys()).map(String::as_str);
            let message = format!("FROM argument '{name}' is not declared");
            let detail = with_suggestion(message, name, known, true);
            self.linter.report(Rule::UndefinedArgInFrom, stage.lines, &stage.comments, detail);
        }
    }

    fn platform_rules(&mut self, stage: &Stage, raw: &str, out: &Expanded) {
        const TARGET: &str = "TARGETPLATFORM";
        if out.unset.is_empty() && out.used.len() == 1 && out.used.contains(TARGET) {
            if self.globals.get(TARGET) == Some(&out.text) {
                let detail = format!(
                    "Setting platform to predefined {raw} in FROM is redundant as this is the default behavior"
                );
                self.linter.report(Rule::RedundantTargetPlatform, stage.lines, &stage.comments, detail);
            }
            return;
        }
        if !out.unset.is_empty() || !out.used.is_empty() {
            return;
        }
        let Ok((os, architecture)) = platform::parse(&out.text) else { return };
        let name = stage.name.as_ref().map(|name| name.to_lowercase()).unwrap_or_default();
        // A stage that says which platform it is for means it.
        if [os, architecture].iter().any(|part| !part.is_empty() && name.contains(part.as_str())) {
            return;
        }
        let detail = format!("FROM --platform flag should not use constant value {}", quote(&out.text));
        self.linter.report(Rule::FromPlatformFlagConstDisallowed, stage.lines, &stage.comments, detail);
    }

    /// What stages offer before their instructions are looked at: what their `FROM`s use.
    fn offer(&mut self, graph: &Graph, froms: &[From], args: Rc<BTreeMap<String, ArgInfo>>) {
        for (base, from) in graph.bases.iter().zip(froms) {
            let mut offer = match base {
                Origin::Stage(base) => self.offers[*base].clone(),
                _ => Offer { args: Rc::clone(&args), ..Offer::default() },
            };
            offer.used.extend(from.used.iter().cloned());
            self.offers.push(offer);
        }
    }

    /// Looks at the images that the stages begin with.
    fn images(
        &mut self,
        file: &Dockerfile,
        graph: &Graph,
        froms: &[From],
        order: &[usize],
    ) -> Result<Vec<Option<Base>>, Error> {
        let mut images = vec![None; file.stages.len()];
        for (index, from) in froms.iter().enumerate() {
            let stage = &file.stages[index];
            let Origin::Image(name) = &graph.bases[index] else { continue };
            if let Err(reason) = name.parse::<hull_oci::Reference>() {
                return Err(at(format!("failed to parse stage name {}: {reason}", quote(name)), stage.lines));
            }
            if !order.contains(&index) {
                continue;
            }
            let wanted = from.platform.as_deref().unwrap_or(self.options.platform);
            images[index] = self.image(file, name, wanted, stage.lines)?;
            let actual = images[index].as_ref().and_then(|base: &Base| base.platform.as_deref());
            if let Some(actual) = actual
                && let (Ok(expected), Ok(found)) = (platform::parse(wanted), platform::parse(actual))
                && expected != found
            {
                let pulled = format!("Base image {name} was pulled with platform {}", quote(actual));
                let detail = format!("{pulled}, expected {} for current build", quote(wanted));
                self.linter.report(Rule::InvalidBaseImagePlatform, stage.lines, &[], detail);
            }
        }
        // Images that files are taken from must be there, too.
        for index in order {
            for (name, lines) in &graph.images[*index] {
                self.image(file, name, self.options.platform, *lines)?;
            }
        }
        Ok(images)
    }

    fn image(&self, file: &Dockerfile, name: &str, platform: &str, lines: Lines) -> Result<Option<Base>, Error> {
        (self.options.base)(name, platform).map_err(|reason| {
            let stages: Vec<String> = (0..file.stages.len()).map(|i| stages::display_name(file, i)).collect();
            let options = stages.iter().map(String::as_str).chain(COMMON);
            at(with_suggestion(format!("{name}: {reason}"), name, options, true), lines)
        })
    }

    /// Goes through a stage.
    fn stage(
        &mut self,
        file: &Dockerfile,
        graph: &Graph,
        index: usize,
        image: Option<Base>,
        states: &[Option<State>],
    ) -> Result<State, Error> {
        let stage = &file.stages[index];
        let mut triggers: Vec<String> = Vec::new();
        let mut state = match (&graph.bases[index], image) {
            (Origin::Stage(base), _) => {
                let texts = file.stages[*base].instructions.iter().filter_map(|instruction| match &instruction.kind {
                    Kind::Onbuild(text) => Some(text.clone()),
                    _ => None,
                });
                triggers.extend(texts);
                State { last: [None; 3], ..states[*base].clone().unwrap_or_default() }
            }
            (Origin::Scratch, _) => State { known: true, in_root: true, ..State::default() },
            (Origin::Image(_), None) => State::default(),
            (Origin::Image(_), Some(base)) => {
                triggers = base.onbuild;
                let env = Rc::new(base.env.into_iter().collect());
                State { env, known: true, shell: base.shell, ..State::default() }
            }
        };
        if !state.env.contains_key("PATH") {
            Rc::make_mut(&mut state.env).insert("PATH".into(), DEFAULT_PATH.into());
        }
        let triggers = triggers.iter().map(|text| parse_onbuild(text, stage.lines));
        let triggers: Vec<Instruction> = triggers.collect::<Result<_, _>>()?;
        for instruction in triggers.iter().chain(&stage.instructions) {
            self.instruction(file, index, instruction, &mut state)?;
        }
        Ok(state)
    }

    /// Sets a variable, or forgets one whose value is not known. A stage's variables are its own from its first change on,
    /// and count as such.
    fn set(&mut self, state: &mut State, key: String, value: Option<String>, lines: Lines) -> Result<(), Error> {
        let shared = Rc::strong_count(&state.env) > 1;
        let inherited = if shared { state.env.iter().map(|(key, value)| key.len() + value.len()).sum() } else { 0 };
        self.count(inherited + key.len() + value.as_ref().map_or(0, String::len), lines)?;
        let env = Rc::make_mut(&mut state.env);
        match value {
            Some(value) => env.insert(key, value),
            None => env.remove(&key),
        };
        Ok(())
    }
}

fn args_of(instruction: &Instruction) -> &[KeyValue] {
    match &instruction.kind {
        Kind::Arg(args) => args,
        _ => &[],
    }
}

fn info(instruction: &Instruction, arg: &KeyValue) -> ArgInfo {
    let description = doc_comment(&instruction.comments, &arg.key).unwrap_or_default();
    ArgInfo { description, lines: instruction.lines, ..ArgInfo::default() }
}
