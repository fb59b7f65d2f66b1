//! What BuildKit 0.25 (Docker 28.5) says of some 400 small Dockerfiles, recorded in `data`, and what this crate says.
//!
//! `files.jsonl`: a Dockerfile a line with the warnings and the error of `--call=check,format=json` (`[rule, detail, first
//! line, last line]` and `[message, first line, last line]`), the text of `--call=check`, `outline` and `targets`, the
//! image's configuration, or the files that heredocs made. `expansions.jsonl`: an expression and what it gave.

use std::collections::BTreeMap;

use hull_dockerfile::ast::{Command, Dockerfile, Kind};
use hull_dockerfile::expand::Expander;
use hull_dockerfile::expose::Ports;
use hull_dockerfile::ignore::{Ignore, Verdict};
use hull_dockerfile::lint::{self, Base, Options};
use hull_dockerfile::pattern::{self, Pattern};
use hull_dockerfile::stages::{self, Origin};
use serde_json::{Value, json};

/// Where Hull means something else, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("e-dup-escape", "the line is that of the second directive, not the one before it"),
    ("e-dup-syntax", "the line is that of the second directive, not the one before it"),
    ("e-bad-escape", "the line is the directive's, not the one before it"),
    ("e-stage-index9", "the instruction's line is named"),
    ("e-stage-from-var", "the instruction's line is named"),
    ("e-stage-cycle", "one instruction is named, not each of the cycle's"),
    ("e-run-mount-secret3", "the instruction's line is named"),
    ("e-run-sec", "since 1.20 RUN has --security without labs"),
    ("q-expose-nested", "what stands before a substitution with a default is not lost"),
    ("q-arg-key-var", "of names that are equally near the first is suggested"),
    ("q-hd-dash-space", "of names that are equally near the first is suggested"),
    ("q-hd-unbalanced", "of names that are equally near the first is suggested"),
    ("l-inlineskip", "since 1.21 a check= above an instruction counts for it"),
    ("l-inline-nolegacy", "since 1.21 a check= above an instruction counts for it"),
    ("p-from-case", "names of stages have no case in FROM either"),
    ("l-secrets", "since 1.26 names with FILE in them are no secrets"),
];

fn records(data: &'static str) -> impl Iterator<Item = Value> {
    data.lines().map(|line| serde_json::from_str(line).expect("a record"))
}

fn files() -> impl Iterator<Item = (String, Vec<u8>, Value)> {
    records(include_str!("data/files.jsonl")).map(|record| {
        let name = record["name"].as_str().expect("a name").to_owned();
        let file = record["file"].as_str().expect("a file").as_bytes().to_vec();
        (name, file, record)
    })
}

fn unreachable(_: &str, _: &str) -> Result<Option<Base>, String> {
    Err("failed to resolve".into())
}

/// Runs `work` with the options that a record has.
fn with_options<T>(record: &Value, work: impl FnOnce(&Options<'_>) -> T) -> T {
    let words: Vec<&str> = record["options"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let args = words.iter().filter_map(|word| word.strip_prefix("--build-arg=")?.split_once('='));
    let build_args: BTreeMap<String, String> = args.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let ignore = record["ignore"].as_str().map(|text| Ignore::parse(text.as_bytes()).expect("patterns"));
    work(&Options {
        build_args: &build_args,
        target: words.iter().find_map(|word| word.strip_prefix("--target=")),
        platform: "linux/amd64",
        build_platform: "linux/amd64",
        ignore: ignore.as_ref(),
        base: &unreachable,
    })
}

/// Prints what differs and fails if it is anything that is not known to.
fn judge(what: &str, differing: Vec<(String, String)>) {
    let known = |name: &str| DIFFERENT.iter().any(|(known, _)| *known == name);
    let unknown: Vec<_> = differing.iter().filter(|(name, _)| !known(name)).collect();
    for (name, difference) in &unknown {
        println!("{name}: {difference}\n");
    }
    assert!(unknown.is_empty(), "{what}: {} differ", unknown.len());
}

fn warnings(report: &lint::Report) -> Value {
    let findings = report.findings.iter();
    findings.map(|f| json!([f.rule.name(), f.detail, f.lines.start, f.lines.end])).collect()
}

/// Variables that are not set are reported in no order.
fn sorted(warnings: &Value) -> Vec<String> {
    let mut lines: Vec<String> = warnings.as_array().into_iter().flatten().map(Value::to_string).collect();
    lines.sort();
    lines
}

#[test]
fn checks_find_what_buildkit_finds() {
    let mut differing = Vec::new();
    for (name, source, record) in files() {
        if record.get("warnings").is_none() {
            continue;
        }
        let report = with_options(&record, |options| lint::check(&source, options));
        let found = warnings(&report);
        let error = report.error.as_ref().map_or(Value::Null, |error| {
            let mut parts = vec![json!(error.to_string())];
            parts.extend(error.lines.into_iter().flat_map(|lines| [json!(lines.start), json!(lines.end)]));
            Value::Array(parts)
        });
        let expected = record.get("error").cloned().unwrap_or(Value::Null);
        if sorted(&found) != sorted(&record["warnings"]) || error != expected {
            let text = String::from_utf8_lossy(&source).into_owned();
            let wanted = &record["warnings"];
            differing.push((name, format!("{text}\n  here {found} {error}\n  there {wanted} {expected}")));
        }
    }
    // What is only seen in an image's configuration is not among these.
    for (name, reason) in DIFFERENT.iter().filter(|(name, _)| *name != "q-expose-nested") {
        assert!(differing.iter().any(|(other, _)| other == name), "{name} differs no longer: {reason}");
    }
    judge("checks", differing);
}

#[test]
fn expansions_give_what_buildkit_gives() {
    let variables: BTreeMap<String, String> = [
        ("a", "A"),
        ("b", "B"),
        ("c", "C"),
        ("z", ""),
        ("f", "/x/foo.tar.gz"),
        ("s", "x*y?z\\\\"),
        ("m", "a-b-c-d-b"),
        ("r", "r"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let mut differing = Vec::new();
    for record in records(include_str!("data/expansions.jsonl")) {
        let text = record[0].as_str().expect("an expression");
        let file = format!("FROM scratch\nENV out={text}\n");
        let value = match hull_dockerfile::parse(file.as_bytes()) {
            Ok((file, _)) => match &file.stages[0].instructions[0].kind {
                Kind::Env(pairs) => {
                    let value = pairs[0].value.clone().unwrap_or_default();
                    let out = Expander::new('\\').expand(&value, &variables);
                    out.map(|out| out.text).map_err(|error| error.to_string())
                }
                other => panic!("{other:?}"),
            },
            Err(error) => Err(error.to_string()),
        };
        let same = match (&value, record[1].as_str()) {
            (Ok(value), Some(expected)) => value == expected,
            (Err(error), None) => Some(error.as_str()) == record[2].as_str(),
            _ => false,
        };
        if !same {
            differing.push((text.to_owned(), format!("here {value:?}, there {record}")));
        }
    }
    judge("expansions", differing);
}

#[test]
fn texts_are_buildkits() {
    let mut differing = Vec::new();
    for (name, source, record) in files() {
        let file = format!("{name}.Dockerfile");
        with_options(&record, |options| {
            let mut compare = |what: &str, here: String| {
                let there = record[what].as_str();
                if there.is_some_and(|there| there != here) {
                    differing.push((name.clone(), format!("{what}\n{here}---\n{}", there.unwrap_or_default())));
                }
            };
            let printed = lint::check(&source, options).text(&file, &source);
            compare("check", printed.findings);
            compare("error_text", printed.error);
            if let Ok(outline) = lint::outline(&source, options) {
                compare("outline", outline.text());
            }
            if let Ok(targets) = lint::targets(&source) {
                compare("targets", targets.text());
            }
        });
    }
    judge("texts", differing);
}

/// A stage's configuration as its instructions make it: as much of a builder as the comparison needs.
#[derive(Clone, Default)]
struct Config {
    env: Vec<(String, String)>,
    scope: Vec<(String, String)>,
    shell: Vec<String>,
    config: BTreeMap<String, Value>,
    own_cmd: bool,
}

impl Config {
    fn command(&self, command: &Command) -> Value {
        match command {
            Command::Exec(words) => json!(words),
            Command::Shell(text) => {
                let shell =
                    if self.shell.is_empty() { vec!["/bin/sh".into(), "-c".into()] } else { self.shell.clone() };
                shell.into_iter().chain([text.clone()]).collect()
            }
        }
    }

    fn run(&mut self, file: &Dockerfile, kind: &Kind, globals: &[(String, String)]) {
        let expander = Expander::new(file.escape);
        let scope = self.scope.clone();
        let word = |text: &str| expander.expand(text, &scope).expect("a word").text;
        match kind {
            Kind::Arg(args) => {
                for arg in args {
                    let default =
                        arg.value.as_ref().map(|value| expander.expand(value, &self.scope).expect("a word").text);
                    let global = globals.iter().rev().find(|(key, _)| *key == arg.key).map(|(_, value)| value.clone());
                    if let Some(value) = default.or(global) {
                        self.scope.push((arg.key.clone(), value));
                    }
                }
            }
            Kind::Env(pairs) => {
                for pair in pairs {
                    let (key, value) = (word(&pair.key), word(pair.value.as_deref().expect("a value")));
                    self.scope.push((key.clone(), value.clone()));
                    match self.env.iter_mut().find(|(known, _)| *known == key) {
                        Some(known) => known.1 = value,
                        None => self.env.push((key, value)),
                    }
                }
            }
            Kind::Label(pairs) => {
                let labels = self.config.entry("Labels".into()).or_insert_with(|| json!({}));
                for pair in pairs {
                    labels[word(&pair.key)] = json!(word(pair.value.as_deref().expect("a value")));
                }
            }
            Kind::Cmd(command) => {
                self.own_cmd = true;
                self.config.insert("Cmd".into(), self.command(command));
            }
            Kind::Entrypoint(command) => {
                if !self.own_cmd {
                    self.config.remove("Cmd");
                }
                self.config.insert("Entrypoint".into(), self.command(command));
            }
            Kind::Shell(words) => {
                self.shell.clone_from(words);
                self.config.insert("Shell".into(), json!(words));
            }
            Kind::User(text) => {
                self.config.insert("User".into(), json!(word(text)));
            }
            Kind::StopSignal(text) => {
                self.config.insert("StopSignal".into(), json!(word(text)));
            }
            Kind::Workdir(path) => {
                let old = self.config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
                let path = word(path);
                let joined = if path.starts_with('/') { path } else { format!("{old}/{path}") };
                self.config.insert("WorkingDir".into(), json!(hull_dockerfile::pattern::clean(&joined)));
            }
            Kind::Volume(words) => {
                let volumes = self.config.entry("Volumes".into()).or_insert_with(|| json!({}));
                for text in words {
                    volumes[word(text)] = json!({});
                }
            }
            Kind::Expose(words) => {
                let ports = self.config.entry("ExposedPorts".into()).or_insert_with(|| json!({}));
                for text in words {
                    for word in expander.expand(text, &scope).expect("words").words {
                        Ports::parse(&word).expect("a port").names().for_each(|name| ports[name] = json!({}));
                    }
                }
            }
            Kind::Healthcheck(check) => {
                let times = [
                    ("Interval", check.interval),
                    ("Timeout", check.timeout),
                    ("StartPeriod", check.start_period),
                    ("StartInterval", check.start_interval),
                    ("Retries", check.retries.map(u64::from)),
                ];
                let mut value = json!({"Test": check.test});
                times
                    .iter()
                    .filter_map(|(key, time)| Some((key, (*time)?)))
                    .for_each(|(key, time)| value[key] = json!(time));
                self.config.insert("Healthcheck".into(), value);
            }
            Kind::Onbuild(text) => {
                let triggers = self.config.entry("OnBuild".into()).or_insert_with(|| json!([]));
                triggers.as_array_mut().expect("triggers").push(json!(text));
            }
            _ => {}
        }
    }
}

fn configuration(file: &Dockerfile) -> Value {
    let mut globals: Vec<(String, String)> = Vec::new();
    for (key, value) in [
        ("BUILDPLATFORM", "linux/amd64"),
        ("BUILDOS", "linux"),
        ("TARGETPLATFORM", "linux/amd64"),
        ("TARGETOS", "linux"),
        ("TARGETARCH", "amd64"),
    ] {
        globals.push((key.into(), value.into()));
    }
    let expander = Expander::new(file.escape);
    for instruction in &file.args {
        let Kind::Arg(args) = &instruction.kind else { continue };
        for arg in args {
            if let Some(value) = &arg.value {
                let value = expander.expand(value, &globals).expect("a word").text;
                globals.push((arg.key.clone(), value));
            }
        }
    }
    let bases = file.stages.iter().map(|stage| expander.expand(&stage.base, &globals).expect("a word").text);
    let graph = stages::graph(file, &bases.collect::<Vec<_>>()).expect("a graph");
    let mut done: Vec<Config> = Vec::new();
    for (index, stage) in file.stages.iter().enumerate() {
        let mut config = Config::default();
        if let Origin::Stage(base) = graph.bases[index] {
            config = Config { own_cmd: false, ..done[base].clone() };
            let triggers = config.config.remove("OnBuild");
            for text in triggers.iter().flat_map(|list| list.as_array().into_iter().flatten()) {
                let text = text.as_str().expect("a trigger");
                let trigger = hull_dockerfile::parse_onbuild(text, stage.lines).expect("a trigger");
                config.run(file, &trigger.kind, &globals);
            }
        }
        for instruction in &stage.instructions {
            config.run(file, &instruction.kind, &globals);
        }
        done.push(config);
    }
    let last = done.pop().expect("a stage");
    let mut config = last.config;
    let env = last.env.iter().filter(|(key, _)| key != "PATH");
    config.insert("Env".into(), env.map(|(key, value)| json!(format!("{key}={value}"))).collect());
    // An empty list counts as none.
    config.retain(|key, value| key == "Env" || !value.as_array().is_some_and(Vec::is_empty));
    json!(config)
}

#[test]
fn configurations_are_those_of_buildkits_images() {
    let mut differing = Vec::new();
    for (name, source, record) in files() {
        let Some(expected) = record.get("config") else { continue };
        let (file, _) = match hull_dockerfile::parse(&source) {
            Ok(parsed) => parsed,
            Err(error) => {
                differing.push((name, error.to_string()));
                continue;
            }
        };
        let config = configuration(&file);
        if config != *expected {
            differing
                .push((name, format!("{}\n  here {config}\n  there {expected}", String::from_utf8_lossy(&source))));
        }
    }
    judge("configurations", differing);
}

#[test]
fn heredocs_become_the_files_that_buildkit_makes() {
    let mut differing = Vec::new();
    for (name, source, record) in files() {
        let Some(expected) = record.get("files") else { continue };
        let (file, _) = match hull_dockerfile::parse(&source) {
            Ok(parsed) => parsed,
            Err(error) => {
                differing.push((name, error.to_string()));
                continue;
            }
        };
        let mut made = json!({});
        let mut config = Config::default();
        for instruction in &file.stages[0].instructions {
            config.run(&file, &instruction.kind, &[]);
            let (Kind::Copy(copy) | Kind::Add(copy)) = &instruction.kind else { continue };
            let destination = Expander::new('\\').expand(&copy.destination, &config.scope).expect("a word").text;
            for heredoc in &copy.heredocs {
                let content = match heredoc.expand {
                    true => Expander::heredoc().expand(&heredoc.content, &config.scope).expect("a body").text,
                    false => heredoc.content.clone(),
                };
                let path = if destination.ends_with('/') {
                    format!("{destination}{}", heredoc.name)
                } else {
                    destination.clone()
                };
                made[path.trim_start_matches('/')] = json!(content);
            }
        }
        if made != *expected {
            differing.push((name, format!("{}\n  here {made}\n  there {expected}", String::from_utf8_lossy(&source))));
        }
    }
    judge("heredocs", differing);
}

/// Files of `tree` that the patterns leave out, as a walk finds them that enters no directory in vain.
fn missing<'a>(tree: &[&'a str], ignore: &Ignore) -> Vec<&'a str> {
    let gone = |path: &&&str| {
        let (mut verdict, mut pruned) = (Verdict::default(), false);
        for (at, _) in path.match_indices('/') {
            verdict = ignore.verdict(verdict, &path[..at]);
            pruned |= ignore.prunes(verdict, &path[..at]);
        }
        assert_eq!(ignore.verdict(verdict, path).excluded, ignore.excludes(path), "{path}");
        pruned || ignore.verdict(verdict, path).excluded
    };
    tree.iter().filter(gone).copied().collect()
}

/// What a source of `COPY` brings into a directory: files by their names, directories by their content.
fn copied(tree: &[&str], source: &str) -> Vec<String> {
    let source = pattern::clean(&format!("/{source}"));
    let source = source.trim_start_matches('/');
    let wild = Pattern::wildcard(source).expect("a wildcard");
    let mut files = std::collections::BTreeSet::new();
    for path in tree {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends.filter(|end| source.is_empty() || wild.matches(&path[..*end])) {
            let name = if end == path.len() { path.rsplit('/').next().expect("a name") } else { &path[end + 1..] };
            files.insert(if source.is_empty() { path.to_string() } else { name.to_owned() });
        }
    }
    files.into_iter().collect()
}

#[test]
fn patterns_pick_the_files_that_buildkit_picks() {
    let all: Vec<Value> = records(include_str!("data/paths.jsonl")).collect();
    let list = |value: &'_ Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let tree = list(&all[0]["tree"]);
    let tree: Vec<&str> = tree.iter().map(String::as_str).collect();
    let below: Vec<&str> = tree.iter().filter_map(|path| path.strip_prefix("src/")).collect();
    let mut differing = Vec::new();
    for record in &all[1..] {
        let text = record["pattern"].as_str().expect("a pattern");
        let (kind, expected) = (record["kind"].as_str().expect("a kind"), list(&record["missing"]));
        let here = match kind {
            "w" => {
                let (here, there) = (copied(&tree, text), list(&record["files"]));
                if here != there {
                    differing.push((format!("w {text}"), format!("here {here:?}, there {there:?}")));
                }
                continue;
            }
            "i" => Ignore::parse(text.as_bytes()),
            _ => Ignore::new([text]),
        };
        match (here, record["error"].as_str()) {
            (Ok(ignore), None) => {
                let here = missing(if kind == "f" { &below } else { &tree }, &ignore);
                if here != expected {
                    differing.push((format!("{kind} {text}"), format!("here {here:?}, there {expected:?}")));
                }
            }
            (Err(_), Some(_)) => {}
            (here, there) => differing.push((format!("{kind} {text}"), format!("here {here:?}, there {there:?}"))),
        }
    }
    judge("patterns", differing);
}
