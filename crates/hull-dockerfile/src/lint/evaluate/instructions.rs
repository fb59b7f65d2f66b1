//! One instruction of a stage: its words expanded, what rules say of it, and what it changes.

use super::{Evaluation, MAX_SUGGESTIONS, State, args_of, at, info};
use crate::ast::{Command, Copy, Dockerfile, Instruction, KeyValue, Kind, Lines, MountKind, Run};
use crate::error::{Error, quote, suggest};
use crate::expand::Expander;
use crate::expose::Ports;
use crate::lint::Rule;
use crate::mode::Mode;
use crate::pattern;
use crate::signal;
use crate::stages::{self, Origin};
use crate::words;

use std::rc::Rc;

/// Arguments that are for the builder and never variables.
const NOT_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

impl Evaluation<'_> {
    pub(super) fn instruction(
        &mut self,
        file: &Dockerfile,
        stage: usize,
        instruction: &Instruction,
        state: &mut State,
    ) -> Result<(), Error> {
        let keyword = words::first(&instruction.original).0;
        match &instruction.kind {
            Kind::Add(copy) => self.copy(file, stage, instruction, copy, true, state)?,
            Kind::Copy(copy) => self.copy(file, stage, instruction, copy, false, state)?,
            Kind::Arg(_) => self.args(stage, instruction, state)?,
            Kind::Cmd(command) => self.command(keyword, 0, instruction, command, state),
            Kind::Entrypoint(command) => self.command(keyword, 1, instruction, command, state),
            Kind::Healthcheck(_) => self.once(keyword, 2, instruction, state),
            Kind::Env(pairs) => {
                // All of them see the variables as they were.
                let pairs = self.pairs(keyword, "ENV", instruction, pairs, state)?;
                for (key, value) in pairs {
                    self.set(state, key, value, instruction.lines)?;
                }
            }
            Kind::Label(pairs) => {
                self.pairs(keyword, "", instruction, pairs, state)?;
            }
            Kind::Expose(words) => self.expose(instruction, words, state)?,
            Kind::Run(run) => self.run(stage, instruction, run, state)?,
            Kind::Shell(_) => state.shell = true,
            Kind::StopSignal(text) => {
                if let Some(text) = self.word(text, instruction, state)? {
                    signal::check(&text).map_err(|reason| at(reason, instruction.lines))?;
                }
            }
            Kind::User(text) => {
                self.word(text, instruction, state)?;
            }
            Kind::Volume(words) => {
                let words = words.iter().map(|word| self.word(word, instruction, state));
                let words: Vec<Option<String>> = words.collect::<Result<_, _>>()?;
                if words.iter().flatten().any(String::is_empty) {
                    return Err(at("VOLUME specified can not be an empty string", instruction.lines));
                }
            }
            Kind::Workdir(path) => {
                let path = self.word(path, instruction, state)?;
                if let Some(path) = path.filter(|path| !state.workdir_set && !path.starts_with('/')) {
                    let path = quote(&path);
                    let detail =
                        format!("Relative workdir {path} can have unexpected results if the base image changes");
                    self.report(Rule::WorkdirRelativePath, instruction, detail);
                }
                state.workdir_set = true;
                state.in_root = false;
            }
            Kind::Maintainer(_) | Kind::Onbuild(_) => {}
        }
        Ok(())
    }

    fn report(&mut self, rule: Rule, instruction: &Instruction, detail: String) {
        self.linter.report(rule, instruction.lines, &instruction.comments, detail);
    }

    /// Expands a word and reports the variables that are not there. Nothing comes of a word that depends on variables of
    /// a base that is not known.
    fn word(&mut self, text: &str, instruction: &Instruction, state: &State) -> Result<Option<String>, Error> {
        self.text(self.expander, text, instruction, state)
    }

    fn text(
        &mut self,
        expander: Expander,
        text: &str,
        instruction: &Instruction,
        state: &State,
    ) -> Result<Option<String>, Error> {
        let (out, result) = expander.expand_reporting(text, &*state.env);
        if !state.known && !out.unset.is_empty() {
            return Ok(None);
        }
        let undefined = out.unset.iter().filter(|name| !state.declared.contains(*name));
        for name in undefined.filter(|name| !NOT_VARIABLES.contains(&name.as_str())) {
            let few = self.linter.findings.len() < MAX_SUGGESTIONS;
            let near = few.then(|| suggest(name, state.env.keys().map(String::as_str), true)).flatten();
            let hint = near.map(|near| format!(" (did you mean ${near}?)")).unwrap_or_default();
            self.report(Rule::UndefinedVar, instruction, format!("Usage of undefined variable '${name}'{hint}"));
        }
        result.map_err(|error| at(error, instruction.lines))?;
        self.count(out.text.len(), instruction.lines)?;
        Ok(Some(out.text))
    }

    /// Pairs of `ENV` (whose names are looked at) and `LABEL`, expanded.
    fn pairs(
        &mut self,
        keyword: &str,
        kind: &str,
        instruction: &Instruction,
        pairs: &[KeyValue],
        state: &State,
    ) -> Result<Vec<(String, Option<String>)>, Error> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let key = self.word(&pair.key, instruction, state)?;
            let value = self.word(pair.value.as_deref().unwrap_or(""), instruction, state)?;
            let Some(key) = key else { continue };
            expanded.push((key, value));
        }
        let legacy = words::first(words::first(&instruction.original).1).0;
        for (key, _) in &expanded {
            // Two words of which the first has no `=` are the old form, which has one pair.
            if pairs.len() == 1 && !legacy.contains('=') && pairs[0].key == legacy {
                let detail =
                    format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format");
                self.report(Rule::LegacyKeyValueFormat, instruction, detail);
            }
            if !kind.is_empty() {
                self.secret(kind, key, instruction);
            }
        }
        Ok(expanded)
    }

    /// Names that sound like secrets: one of their words is, and none says that it is not.
    fn secret(&mut self, kind: &str, key: &str, instruction: &Instruction) {
        const SECRET: [&str; 10] =
            ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
        const HARMLESS: [&str; 3] = ["public", "file", "version"];
        let lower = key.to_lowercase();
        let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
        if has(&SECRET) && !has(&HARMLESS) {
            let key = quote(key);
            let detail = format!("Do not use ARG or ENV instructions for sensitive data ({kind} {key})");
            self.report(Rule::SecretsUsedInArgOrEnv, instruction, detail);
        }
    }

    fn once(&mut self, keyword: &str, which: usize, instruction: &Instruction, state: &mut State) {
        // The one before is the one that has no effect.
        if let Some(lines) = state.last[which].replace(instruction.lines) {
            let only = "instructions should not be used in the same stage because only the last one will be used";
            let detail = format!("Multiple {keyword} {only}");
            self.linter.report(Rule::MultipleInstructionsDisallowed, lines, &instruction.comments, detail);
        }
    }

    fn command(
        &mut self,
        keyword: &str,
        which: usize,
        instruction: &Instruction,
        command: &Command,
        state: &mut State,
    ) {
        self.once(keyword, which, instruction, state);
        if matches!(command, Command::Shell(_)) && !state.shell {
            let why = "to prevent unintended behavior related to OS signals";
            self.report(
                Rule::JsonArgsRecommended,
                instruction,
                format!("JSON arguments recommended for {keyword} {why}"),
            );
        }
    }

    fn args(&mut self, stage: usize, instruction: &Instruction, state: &mut State) -> Result<(), Error> {
        for arg in args_of(instruction) {
            self.secret("ARG", &arg.key, instruction);
            let mut info = info(instruction, arg);
            let given = self.options.build_args.get(&arg.key).cloned();
            let inherited = given.is_none() && arg.value.is_none() && self.globals.contains_key(&arg.key);
            let value = match (given, &arg.value) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => self.word(default, instruction, state)?,
                (None, None) => self.globals.get(&arg.key).cloned(),
            };
            if let Some(value) = value {
                info.value.clone_from(&value);
                if !NOT_VARIABLES.contains(&arg.key.as_str()) {
                    self.set(state, arg.key.clone(), Some(value), instruction.lines)?;
                }
            }
            let offer = &mut self.offers[stage];
            if !inherited {
                Rc::make_mut(&mut offer.args).insert(arg.key.clone(), info);
            }
            offer.used.insert(arg.key.clone());
            Rc::make_mut(&mut state.declared).insert(arg.key.clone());
        }
        Ok(())
    }

    fn expose(&mut self, instruction: &Instruction, words: &[String], state: &State) -> Result<(), Error> {
        for word in words {
            let (out, result) = self.expander.expand_reporting(word, &*state.env);
            if !state.known && !out.unset.is_empty() {
                continue;
            }
            result.map_err(|error| at(error, instruction.lines))?;
            for word in out.words {
                let ports = Ports::parse(&word).map_err(|reason| at(reason, instruction.lines))?;
                if ports.protocol != ports.protocol.to_lowercase() {
                    let detail = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
                    self.report(Rule::ExposeProtoCasing, instruction, detail);
                }
                if ports.mapped {
                    let what = "should not define an IP address or host-port mapping";
                    let detail = format!("EXPOSE instruction {what}, found '{word}'");
                    self.report(Rule::ExposeInvalidFormat, instruction, detail);
                }
            }
        }
        Ok(())
    }

    fn run(&mut self, stage: usize, instruction: &Instruction, run: &Run, state: &State) -> Result<(), Error> {
        let lines = instruction.lines;
        let mut mounts = Vec::with_capacity(run.mounts.len());
        for mount in &run.mounts {
            let mut known = true;
            let resolved = mount.resolve_with(&mut |word| {
                let text = self.word(word, instruction, state).map_err(|error| error.message)?;
                known &= text.is_some();
                Ok(text.unwrap_or_default())
            });
            if known {
                mounts.push(resolved.map_err(|reason| at(reason, lines))?);
            }
        }
        for mount in mounts {
            let target = mount.target.clone().unwrap_or_default();
            if let Some(from) = &mount.from
                && let Origin::Stage(other) = self.names.origin(from)
                && other >= stage
            {
                let (from, target) = (quote(from), quote(&target));
                let reason = "stage needs to be defined before current command";
                return Err(at(format!("cannot mount from stage {from} to {target}, {reason}"), lines));
            }
            match mount.kind {
                MountKind::Secret => {
                    let id = mount
                        .source
                        .or(mount.id)
                        .unwrap_or_else(|| pattern::clean(&target).rsplit('/').next().unwrap_or_default().to_owned());
                    remember(&mut self.offers[stage].secrets, id, mount.required, lines);
                }
                MountKind::Ssh => {
                    let id = mount.id.unwrap_or_else(|| "default".into());
                    remember(&mut self.offers[stage].ssh, id, mount.required, lines);
                }
                _ if pattern::clean(&target) == "/" || target.is_empty() && state.in_root => {
                    return Err(at("invalid mount target \"/\"", lines));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn copy(
        &mut self,
        file: &Dockerfile,
        stage: usize,
        instruction: &Instruction,
        copy: &Copy,
        add: bool,
        state: &State,
    ) -> Result<(), Error> {
        let lines = instruction.lines;
        let fail = |reason: String| Err(at(reason, lines));
        let mut flag = |flag: &Option<String>| self.word(flag.as_deref().unwrap_or(""), instruction, state);
        flag(&copy.chown)?;
        let (chmod, checksum) = (flag(&copy.chmod)?, flag(&copy.checksum)?);
        let sources = copy.sources.iter().map(|source| self.word(source, instruction, state));
        let sources: Vec<Option<String>> = sources.collect::<Result<_, _>>()?;
        self.word(&copy.destination, instruction, state)?;
        for heredoc in copy.heredocs.iter().filter(|heredoc| heredoc.expand) {
            self.text(Expander::heredoc(), &heredoc.content, instruction, state)?;
        }
        if let Some(from) = &copy.from
            && let Ok(Origin::Stage(other)) = self.names.numbered(file, from)
            && other >= stage
        {
            let (from, name) = (quote(from), quote(&stages::display_name(file, stage)));
            return fail(format!("cannot copy from stage {from}, it needs to be defined before current stage {name}"));
        }
        if let Some(chmod) = chmod.filter(|chmod| !chmod.is_empty()) {
            Mode::parse(&chmod).map_err(|reason| at(reason, lines))?;
        }
        let checksum = checksum.is_some_and(|checksum| !checksum.is_empty());
        if checksum && sources.len() != 1 {
            return fail("checksum can't be specified for multiple sources".into());
        }
        for source in sources.iter().flatten() {
            let web = source.starts_with("http://") || source.starts_with("https://");
            if web && !add {
                return fail("source can't be a URL for COPY".into());
            }
            let remote = web || source.contains("://") || source.contains('@') || source.starts_with("github.com/");
            if checksum && !remote {
                return fail("checksum requires HTTP(S) or Git sources".into());
            }
            if !remote && copy.from.is_none() {
                self.ignored(instruction, source, add);
            }
        }
        Ok(())
    }

    /// A source that the context does not have because it is to be ignored.
    fn ignored(&mut self, instruction: &Instruction, source: &str, add: bool) {
        // What is let in again cannot be told without looking at the files.
        let Some(ignore) = self.options.ignore.filter(|ignore| !ignore.is_empty() && !ignore.has_exceptions()) else {
            return;
        };
        let source = pattern::clean(source);
        let root = matches!(source.as_str(), "." | "/");
        let everything = || ignore.patterns().any(|pattern| matches!(pattern.as_str(), "*" | "**" | "**/*"));
        if if root { everything() } else { ignore.excludes(&source) } {
            let verb = if add { "Add" } else { "Copy" };
            let detail = format!("Attempting to {verb} file {} that is excluded by .dockerignore", quote(&source));
            self.report(Rule::CopyIgnoredFile, instruction, detail);
        }
    }
}

fn remember(known: &mut Vec<(String, bool, Lines)>, id: String, required: bool, lines: Lines) {
    if !known.iter().any(|(other, ..)| *other == id) {
        known.push((id, required, lines));
    }
}
