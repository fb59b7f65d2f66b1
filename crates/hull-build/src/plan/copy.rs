//! `COPY` and `ADD`.

use hull_dockerfile::ast::{self, Instruction, Lines};
use hull_dockerfile::expand::Expander;

use super::words::{destination, joined};
use super::{Planner, State};
use crate::Error;
use crate::graph::{CopyAction, CopyOp, GitSource, HttpSource, Node, NodeId, Op};

impl Planner<'_> {
    pub(super) fn copy(
        &mut self,
        state: &mut State,
        instruction: &Instruction,
        copy: &ast::Copy,
        add: bool,
    ) -> Result<(), Error> {
        let lines = instruction.lines;
        let wrong = |reason: String| Error::instruction(lines, reason);
        let word = |state: &State, text: &Option<String>| -> Result<Option<String>, Error> {
            let expanded = text.as_ref().map(|text| self.word(state, text, lines)).transpose()?;
            Ok(expanded.filter(|text| !text.is_empty()))
        };
        let (chown, chmod, checksum) =
            (word(state, &copy.chown)?, word(state, &copy.chmod)?, word(state, &copy.checksum)?);
        if let Some(mode) = &chmod {
            check_mode(mode).map_err(wrong)?;
        }
        if checksum.is_some() && copy.sources.len() + copy.heredocs.len() != 1 {
            return Err(wrong("checksum can't be specified for multiple sources".to_owned()));
        }
        let sources = self.words(state, &copy.sources, lines)?;
        let target = self.word(state, &copy.destination, lines)?;
        let model = CopyAction {
            from: None,
            source: String::new(),
            content: None,
            destination: destination(state.directory(), &target),
            chown: chown.clone(),
            chmod: chmod.clone(),
            parents: copy.parents,
            exclude: self.words(state, &copy.exclude, lines)?,
            unpack: false,
            name: None,
            allow_missing: false,
        };
        let from = match copy.from.as_deref().filter(|from| !from.is_empty()) {
            Some(name) => {
                let name = self.word(state, name, lines)?;
                let (node, date) = self.from(&name, state.index, lines)?;
                if self.request.source_date_epoch.is_none() {
                    state.epoch = state.epoch.max(date);
                }
                Some(node)
            }
            None => None,
        };
        let mut actions = Vec::with_capacity(sources.len() + copy.heredocs.len());
        for source in &sources {
            actions.push(self.action(state, copy, add, source, from, checksum.as_deref(), &model, lines)?);
        }
        for heredoc in &copy.heredocs {
            let content = match heredoc.expand {
                true => {
                    let expanded = Expander::heredoc().expand(&heredoc.content, &state.env);
                    expanded.map_err(|error| wrong(error.to_string()))?.text
                }
                false => heredoc.content.clone(),
            };
            let (source, name) = (heredoc.name.clone(), Some(heredoc.name.clone()));
            actions.push(CopyAction { source, name, content: Some(content.into_bytes()), ..model.clone() });
        }
        // Names of users are those of what is below; with a mode, BuildKit copies plainly too.
        let link = copy.link && chmod.is_none() && !chown.as_deref().is_some_and(has_names);
        let (base, onto) = if link { (None, Some(state.node)) } else { (Some(state.node), None) };
        let mut shown = instruction.clone();
        for heredoc in &copy.heredocs {
            for quote in ['"', '\''] {
                shown.original = shown.original.replace(&format!("{quote}{}{quote}", heredoc.name), &heredoc.name);
            }
        }
        let name = self.title(state, &shown, "");
        let op = Op::Copy(Box::new(CopyOp { base, onto, actions }));
        state.node = self.graph.add(self.node(state, op, name, lines));
        let mut told = String::from(if add { "ADD" } else { "COPY" });
        let mut say = |text: &str| {
            told.push(' ');
            told.push_str(text);
        };
        if copy.parents {
            say("--parents");
        }
        if let Some(owner) = &chown {
            say(&format!("--chown={owner}"));
        }
        if let Some(mode) = &chmod {
            say(&format!("--chmod={mode}"));
        }
        sources.iter().for_each(|source| say(source));
        copy.heredocs.iter().for_each(|heredoc| say(&format!("<<{}", heredoc.name)));
        say(&target);
        say("# buildkit");
        let node = state.node;
        state.record(told, Some(node));
        Ok(())
    }

    /// One source.
    #[expect(clippy::too_many_arguments, reason = "what an instruction says of all of its sources")]
    fn action(
        &mut self,
        state: &State,
        copy: &ast::Copy,
        add: bool,
        source: &str,
        from: Option<NodeId>,
        checksum: Option<&str>,
        model: &CopyAction,
        lines: Lines,
    ) -> Result<CopyAction, Error> {
        let wrong = |reason: String| Error::instruction(lines, reason);
        if from.is_none() {
            if let Some(repository) = self.inputs.repository(source) {
                if !add {
                    return Err(wrong("source can't be a git ref for COPY".to_owned()));
                }
                let mut repository = repository.map_err(wrong)?;
                repository.checksum = checksum.map(str::to_owned).or(repository.checksum);
                repository.keep_git_dir |= copy.keep_git_dir.unwrap_or(false);
                let node = self.repository(state, repository, source, lines);
                return Ok(CopyAction { from: Some(node), source: "/".to_owned(), ..model.clone() });
            }
            if source.starts_with("http://") || source.starts_with("https://") {
                if !add {
                    return Err(wrong("source can't be a URL for COPY".to_owned()));
                }
                let checksum = checksum.map(str::parse).transpose();
                let checksum = checksum.map_err(|error| wrong(format!("invalid checksum: {error}")))?;
                let node = self.download(state, source, checksum, lines);
                let name = Some(name_of(source));
                let unpack = copy.unpack.unwrap_or(false);
                return Ok(CopyAction { from: Some(node), source: "/".to_owned(), name, unpack, ..model.clone() });
            }
        }
        if checksum.is_some() {
            return Err(wrong("checksum requires HTTP(S) or Git sources".to_owned()));
        }
        let node = match from {
            Some(node) => node,
            None => self.context(lines)?,
        };
        // Where directories above a source count, so do the words that say which.
        let source = if copy.parents { source.to_owned() } else { joined("/", source) };
        Ok(CopyAction { from: Some(node), source, unpack: copy.unpack.unwrap_or(add), ..model.clone() })
    }

    fn download(&mut self, state: &State, url: &str, checksum: Option<hull_oci::Digest>, lines: Lines) -> NodeId {
        let host = url.split("//").nth(1).unwrap_or_default();
        let host = host.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        let auth = ["HTTP_AUTH_HEADER", "HTTP_AUTH_TOKEN"].map(|kind| format!("{kind}_{host}"));
        let auth = auth.into_iter().filter(|name| self.request.secrets.contains_key(name)).collect();
        let op = Op::Http(HttpSource { url: url.to_owned(), checksum, auth });
        self.graph.add(source_node(state, op, url, lines))
    }

    fn repository(&mut self, state: &State, repository: GitSource, text: &str, lines: Lines) -> NodeId {
        self.graph.add(source_node(state, Op::Git(repository), text, lines))
    }

    /// Everything of a tree, as a layer.
    pub(super) fn whole(&mut self, from: NodeId, name: &str, lines: Lines, epoch: Option<i64>) -> NodeId {
        let action = CopyAction { allow_missing: true, ..CopyAction::plain(Some(from), "/", "/") };
        let base = Some(self.scratch());
        self.graph.add(Node {
            op: Op::Copy(Box::new(CopyOp { base, onto: None, actions: vec![action] })),
            name: format!("[context {name}] copy"),
            stage: None,
            lines: Some(lines),
            ignore_cache: false,
            platform: self.target.to_string(),
            epoch: self.epoch(epoch),
        })
    }
}

fn source_node(state: &State, op: Op, name: &str, lines: Lines) -> Node {
    Node {
        op,
        name: hull_oci::spec::one_line(name),
        stage: Some(state.name.clone()),
        lines: Some(lines),
        ignore_cache: state.ignore_cache,
        platform: state.platform.to_string(),
        epoch: None,
    }
}

/// Whether an owner must be looked up.
fn has_names(owner: &str) -> bool {
    owner.split(':').any(|part| !matches!(part, "" | "root") && part.parse::<i32>().is_err())
}

/// The name of a downloaded file.
fn name_of(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("//").map_or(path, |(_, rest)| rest);
    let name = path.split_once('/').and_then(|(_, path)| path.trim_end_matches('/').rsplit('/').next());
    name.filter(|name| !matches!(*name, "" | "." | "..")).unwrap_or("__unnamed__").to_owned()
}

/// Octal numbers have bounds; other modes are read where files are copied.
fn check_mode(mode: &str) -> Result<(), String> {
    let octal = u32::from_str_radix(mode, 8);
    if octal.is_ok_and(|mode| mode <= 0o7777) {
        return Ok(());
    }
    if mode.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777"));
    }
    Ok(())
}
