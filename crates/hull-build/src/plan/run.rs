//! `RUN`.

use std::collections::BTreeMap;

use hull_dockerfile::ast::{self, Command, Heredoc, Instruction, MountKind};

use super::metadata::{command_line, shell};
use super::words::{joined, quote, summary};
use super::{Planner, State, arguments};
use crate::Error;
use crate::graph::{MountSpec, Network, Op, RunMount, RunOp};

/// Where a heredoc that is a program is.
const PIPES: &str = "/dev/pipes";

/// What a step takes for the machine's name.
const HOSTNAME: &str = "buildkitsandbox";

impl Planner<'_> {
    pub(super) fn run(&mut self, state: &mut State, instruction: &Instruction, run: &ast::Run) -> Result<(), Error> {
        let wrong = |reason: &str| Error::instruction(instruction.lines, reason);
        let mut pipes = BTreeMap::new();
        let (args, suffix) = arguments_of(state, run, &mut pipes);
        let mounts = self.mounts(state, instruction, run)?;
        let network = match run.network.as_deref() {
            None => self.request.network,
            Some("default") => Network::Default,
            Some("none") => Network::None,
            Some("host") if self.request.allow.contains("network.host") || self.request.network == Network::Host => {
                Network::Host
            }
            Some("host") => return Err(wrong("network.host is not allowed: give --allow network.host")),
            Some(other) => return Err(wrong(&format!("invalid network mode {}", quote(other)))),
        };
        let insecure = match run.security.as_deref() {
            None | Some("sandbox") => false,
            Some("insecure") if self.request.allow.contains("security.insecure") => true,
            Some("insecure") => return Err(wrong("security.insecure is not allowed: give --allow security.insecure")),
            Some(other) => return Err(wrong(&format!("security {} is not valid", quote(other)))),
        };
        let mut env = state.environment();
        let socket = mounts.iter().find(|mount| matches!(mount.spec, MountSpec::Ssh { .. }));
        if let Some(socket) = socket {
            env.push(format!("SSH_AUTH_SOCK={}", socket.target));
        }
        let declared = |name: &str| state.env.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let mut quiet_env = arguments::proxies(self.request);
        quiet_env.retain(|variable| !declared(variable.split('=').next().unwrap_or_default()));
        let argument = |name: &str| self.request.build_args.get(name).filter(|value| !value.is_empty()).cloned();
        let op = RunOp {
            base: state.node,
            args: args.clone(),
            env,
            quiet_env,
            workdir: state.directory().to_owned(),
            user: state.config.config.user.clone(),
            pipes,
            mounts,
            network,
            insecure,
            extra_hosts: self.request.extra_hosts.clone(),
            hostname: argument("BUILDKIT_SANDBOX_HOSTNAME").unwrap_or_else(|| HOSTNAME.to_owned()),
            shm_size: self.request.shm_size,
            ulimits: self.request.ulimits.clone(),
            limits: self.request.limits.clone(),
            devices: self.words(state, &run.devices, instruction.lines)?,
            normalise: !self.request.keep_noise && !self.request.keep_times,
        };
        let words = op.env.iter().chain(&op.args).chain(&op.ulimits).chain(&op.extra_hosts);
        self.spend(words.map(String::len).sum(), instruction.lines)?;
        let name = self.title(state, instruction, &suffix);
        let told = format!("RUN {} # buildkit", told(state, &args));
        self.spend(name.len() + told.len(), instruction.lines)?;
        state.node = self.graph.add(self.node(state, Op::Run(Box::new(op)), name, instruction.lines));
        let node = state.node;
        state.record(told, Some(node));
        Ok(())
    }

    fn mounts(&mut self, state: &State, instruction: &Instruction, run: &ast::Run) -> Result<Vec<RunMount>, Error> {
        let lines = instruction.lines;
        let mut sockets = 0;
        let mut mounts = Vec::with_capacity(run.mounts.len());
        for mount in &run.mounts {
            let mount =
                mount.resolve(&self.expander, &state.env).map_err(|reason| Error::instruction(lines, reason))?;
            mounts.push(self.mount(state, instruction, &mount, &mut sockets)?);
        }
        Ok(mounts)
    }

    fn mount(
        &mut self,
        state: &State,
        instruction: &Instruction,
        mount: &ast::Mount,
        sockets: &mut u32,
    ) -> Result<RunMount, Error> {
        let lines = instruction.lines;
        let from = match (&mount.from, mount.kind) {
            (Some(name), MountKind::Bind | MountKind::Cache) if !name.is_empty() => {
                Some(self.from(name, state.index, lines)?.0)
            }
            (_, MountKind::Bind) => Some(self.context(lines)?),
            _ => None,
        };
        let source = joined("/", mount.source.as_deref().unwrap_or_default());
        let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        let mode = |default: u32| mount.mode.unwrap_or(default);
        let given = mount.target.as_deref().filter(|target| !target.is_empty());
        let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        let (target, spec, read_only) = match mount.kind {
            MountKind::Bind => (given.map(str::to_owned), MountSpec::Bind, mount.read_only.unwrap_or(true)),
            MountKind::Cache => {
                let target = joined(state.directory(), given.unwrap_or("/"));
                let id = mount.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| target.clone());
                let id = match self.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS").filter(|space| !space.is_empty())
                {
                    Some(space) => format!("{space}/{id}"),
                    None => id,
                };
                let spec = MountSpec::Cache { id, sharing: mount.sharing, mode: mode(0o755), uid, gid };
                (Some(target), spec, mount.read_only.unwrap_or(false))
            }
            MountKind::Tmpfs => (given.map(str::to_owned), MountSpec::Tmpfs { size: mount.size }, false),
            MountKind::Secret => {
                let id = mount.source.as_ref().or(mount.id.as_ref()).filter(|id| !id.is_empty()).cloned();
                let Some(id) = id.or_else(|| given.map(&base)) else {
                    return Err(Error::instruction(lines, "one of source, target required"));
                };
                let env = mount.env.clone().map(|name| if name.is_empty() { id.clone() } else { name });
                let file = given.is_some() || env.is_none();
                let target = given.map_or_else(|| format!("/run/secrets/{}", base(&id)), str::to_owned);
                let spec = MountSpec::Secret { id, env, file, required: mount.required, mode: mode(0o400), uid, gid };
                (Some(target), spec, true)
            }
            MountKind::Ssh => {
                let id = mount.id.as_ref().or(mount.source.as_ref()).filter(|id| !id.is_empty()).cloned();
                let target = given.map_or_else(|| format!("/run/buildkit/ssh_agent.{sockets}"), str::to_owned);
                *sockets += 1;
                let id = id.unwrap_or_else(|| "default".to_owned());
                let spec = MountSpec::Ssh { id, required: mount.required, mode: mode(0o600), uid, gid };
                (Some(target), spec, true)
            }
        };
        let target = joined(state.directory(), target.as_deref().unwrap_or("/"));
        let nowhere = target == "/" && !matches!(spec, MountSpec::Secret { file: false, .. });
        if nowhere || given.is_none() && matches!(mount.kind, MountKind::Bind | MountKind::Cache | MountKind::Tmpfs) {
            return Err(Error::instruction(lines, "invalid mount target \"/\""));
        }
        Ok(RunMount { target, from, source, read_only, spec })
    }
}

/// Program and arguments, and what the step's name has at its end. A heredoc that is a program of its own becomes a file.
fn arguments_of(state: &State, run: &ast::Run, pipes: &mut BTreeMap<String, String>) -> (Vec<String>, String) {
    let (Command::Shell(text), [first, ..]) = (&run.command, run.heredocs.as_slice()) else {
        return (command_line(state, &run.command), String::new());
    };
    if !is_heredoc_alone(text, &run.heredocs) {
        let mut line = text.clone();
        for heredoc in &run.heredocs {
            line.push('\n');
            line.push_str(&heredoc.content);
            line.push_str(&heredoc.name);
        }
        return (shell(state, line), String::new());
    }
    let suffix = format!(" ({})", summary(&first.content));
    if first.content.starts_with("#!") {
        pipes.insert(first.name.clone(), first.content.clone());
        return (shell(state, format!("{PIPES}/{}", first.name)), suffix);
    }
    (shell(state, first.content.clone()), suffix)
}

/// Whether a line is nothing but one heredoc's operator.
fn is_heredoc_alone(text: &str, heredocs: &[Heredoc]) -> bool {
    let text = text.trim().trim_start_matches(|character: char| character.is_ascii_digit());
    let Some(rest) = text.strip_prefix("<<") else { return false };
    let rest = rest.strip_prefix('-').unwrap_or(rest).trim_start();
    let unquoted: String = rest.chars().filter(|character| !matches!(character, '"' | '\'' | '\\')).collect();
    heredocs.len() == 1 && heredocs.first().is_some_and(|heredoc| heredoc.name == unquoted)
}

/// The command as the history has it: after the number and values of the arguments in effect.
fn told(state: &State, args: &[String]) -> String {
    let mut known: Vec<(&str, String)> = Vec::new();
    for (name, value) in &state.arguments {
        let current = state.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let value = current.or_else(|| value.clone()).unwrap_or_default();
        match known.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = value,
            None => known.push((name, value)),
        }
    }
    let mut words = Vec::new();
    if !known.is_empty() {
        words.push(format!("|{}", known.len()));
        words.extend(known.into_iter().map(|(name, value)| format!("{name}={value}")));
    }
    words.extend(args.iter().cloned());
    words.join(" ")
}
