//! Instructions that change what an image says, and no files.

use std::collections::BTreeSet;

use hull_dockerfile::ast::{Command, Healthcheck, Instruction, KeyValue, Kind, Lines};
use hull_oci::image;
use serde_json::json;

use super::arguments::set;
use super::words::{duration, quote, quote_all, quote_number};
use super::{Planner, State};
use crate::Error;

/// More ports than these are not written out one by one.
const MAX_PORTS: usize = 70_000;

impl Planner<'_> {
    pub(super) fn argument(&self, state: &mut State, arguments: &[KeyValue], lines: Lines) -> Result<(), Error> {
        let mut told = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let global = || self.globals.iter().find(|(name, _)| *name == argument.key).map(|(_, value)| value.clone());
            let value = match (self.request.build_args.get(&argument.key), &argument.value) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(text)) => Some(self.word(state, text, lines)?),
                (None, None) => global(),
            };
            told.push(value.as_ref().map_or_else(|| argument.key.clone(), |value| format!("{}={value}", argument.key)));
            if let Some(value) = &value {
                set(&mut state.env, &argument.key, value.clone());
            }
            state.arguments.push((argument.key.clone(), value));
        }
        self.spend(told.iter().map(String::len).sum(), lines)?;
        state.record(format!("ARG {}", told.join(" ")), None);
        Ok(())
    }

    /// Keys and values, which all see the variables from before the instruction.
    fn pairs(&self, state: &State, pairs: &[KeyValue], lines: Lines) -> Result<Vec<(String, String)>, Error> {
        let expanded = pairs.iter().map(|pair| {
            let value = self.word(state, pair.value.as_deref().unwrap_or_default(), lines)?;
            Ok((self.word(state, &pair.key, lines)?, value))
        });
        expanded.collect()
    }

    pub(super) fn env(&self, state: &mut State, variables: &[KeyValue], lines: Lines) -> Result<(), Error> {
        let pairs = self.pairs(state, variables, lines)?;
        let mut told = String::from("ENV");
        for (name, value) in pairs {
            let text = format!("{name}={value}");
            told.push(' ');
            told.push_str(&text);
            let list = &mut state.config.config.env;
            match list.iter_mut().find(|known| known.split('=').next() == Some(name.as_str())) {
                Some(known) => *known = text,
                None => list.push(text),
            }
            set(&mut state.env, &name, value);
        }
        state.record(told, None);
        Ok(())
    }

    pub(super) fn metadata(&self, state: &mut State, instruction: &Instruction) -> Result<(), Error> {
        let lines = instruction.lines;
        let told = match &instruction.kind {
            Kind::Label(labels) => {
                let mut told = String::from("LABEL");
                for (name, value) in self.pairs(state, labels, lines)? {
                    told.push_str(&format!(" {name}={value}"));
                    state.config.config.labels.insert(name, value);
                }
                told
            }
            Kind::Cmd(command) => {
                let words = command_line(state, command);
                state.has_command = true;
                state.config.config.args_escaped = true;
                state.config.config.cmd.clone_from(&words);
                format!("CMD {}", quote_all(&words))
            }
            Kind::Entrypoint(command) => {
                let words = command_line(state, command);
                state.config.config.entrypoint.clone_from(&words);
                if !state.has_command {
                    state.config.config.cmd.clear();
                }
                format!("ENTRYPOINT {}", quote_all(&words))
            }
            Kind::Expose(words) => {
                let ports = self.ports(state, words, lines)?;
                let told: Vec<&str> = ports.iter().map(String::as_str).collect();
                let told = format!("EXPOSE [{}]", told.join(" "));
                state.config.config.exposed_ports.extend(ports.into_iter().map(|port| (port, json!({}))));
                told
            }
            Kind::Healthcheck(check) => {
                let told = format!("HEALTHCHECK {}", healthcheck_words(check));
                state.config.config.healthcheck = Some(healthcheck(check));
                told
            }
            Kind::Maintainer(who) => {
                state.config.author = Some(who.clone());
                format!("MAINTAINER {who}")
            }
            Kind::Onbuild(text) => {
                state.config.config.on_build.push(text.clone());
                return Ok(());
            }
            Kind::Shell(words) => {
                state.config.config.shell.clone_from(words);
                format!("SHELL [{}]", words.join(" "))
            }
            Kind::StopSignal(text) => {
                let text = self.word(state, text, lines)?;
                if hull_runtime::lifecycle::signal::parse(&text).is_none_or(|number| number <= 0) {
                    return Err(Error::instruction(lines, format!("invalid signal: {text}")));
                }
                state.config.config.stop_signal.clone_from(&text);
                format!("STOPSIGNAL {text}")
            }
            Kind::User(text) => {
                let user = self.word(state, text, lines)?;
                state.config.config.user.clone_from(&user);
                format!("USER {user}")
            }
            Kind::Volume(words) => {
                let words = self.words(state, words, lines)?;
                if words.iter().any(String::is_empty) {
                    return Err(Error::instruction(lines, "VOLUME specified can not be an empty string"));
                }
                state.config.config.volumes.extend(words.iter().map(|path| (path.clone(), json!({}))));
                format!("VOLUME [{}]", words.join(" "))
            }
            Kind::Add(_) | Kind::Arg(_) | Kind::Copy(_) | Kind::Env(_) | Kind::Run(_) | Kind::Workdir(_) => {
                return Ok(());
            }
        };
        state.record(told, None);
        Ok(())
    }

    /// `PORT/PROTOCOL`, sorted as texts.
    fn ports(&self, state: &State, words: &[String], lines: Lines) -> Result<BTreeSet<String>, Error> {
        let wrong = |reason: String| Error::instruction(lines, reason);
        let mut ports = BTreeSet::new();
        for word in words {
            let expanded = self.expander.expand(word, &state.env).map_err(|error| wrong(error.to_string()))?;
            for port in expanded.words {
                let (numbers, protocol) = port.rsplit_once('/').unwrap_or((&port, "tcp"));
                let protocol = protocol.to_ascii_lowercase();
                if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
                    return Err(wrong(format!("invalid port: {}: invalid proto: {protocol}", quote(&port))));
                }
                // What is said of the host is for whoever runs it.
                let inner = numbers.rsplit(':').next().unwrap_or(numbers);
                let invalid = || wrong(format!("invalid containerPort: {inner}"));
                let (first, last) = inner.split_once('-').unwrap_or((inner, inner));
                let number = |text: &str| text.parse::<u16>().map_err(|_| invalid());
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(invalid());
                }
                ports.extend((first..=last).map(|number| format!("{number}/{protocol}")));
                if ports.len() > MAX_PORTS {
                    return Err(wrong(format!("more than {MAX_PORTS} ports")));
                }
            }
        }
        Ok(ports)
    }
}

/// Program and arguments: a line goes to the stage's shell.
pub(super) fn command_line(state: &State, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(text) => shell(state, text.clone()),
    }
}

/// A line as an argument of the stage's shell.
pub(super) fn shell(state: &State, line: String) -> Vec<String> {
    let mut words = match state.config.config.shell.as_slice() {
        [] => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        shell => shell.to_vec(),
    };
    words.push(line);
    words
}

fn healthcheck(check: &Healthcheck) -> image::Healthcheck {
    let time = |time: Option<u64>| i64::try_from(time.unwrap_or(0)).unwrap_or(i64::MAX);
    image::Healthcheck {
        test: check.test.clone(),
        interval: time(check.interval),
        timeout: time(check.timeout),
        start_period: time(check.start_period),
        start_interval: time(check.start_interval),
        retries: i64::from(check.retries.unwrap_or(0)),
    }
}

fn healthcheck_words(check: &Healthcheck) -> String {
    let time = |time: Option<u64>| format!("\"{}\"", duration(time.unwrap_or(0)));
    format!(
        "&{{{} {} {} {} {} {}}}",
        quote_all(&check.test),
        time(check.interval),
        time(check.timeout),
        time(check.start_period),
        time(check.start_interval),
        quote_number(check.retries.unwrap_or(0))
    )
}
