//! Every command, alias, flag and short form of Docker's command line is known.
//!
//! The list is `docker-28.txt`; what Hull knows is asked of its own parser (`hull __commands`).

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// A flag's name to its short form and whether a value follows.
type Flags = BTreeMap<String, (Option<char>, bool)>;

fn flags(words: &str) -> Flags {
    let mut flags = Flags::new();
    for word in words.split_whitespace().filter(|word| word.starts_with('-')) {
        let (short, long) = match word.split_once('/') {
            Some((short, long)) => (short.chars().nth(1), long),
            None => (None, word),
        };
        let valued = long.ends_with('=');
        flags.insert(long.trim_end_matches('=').trim_start_matches("--").to_owned(), (short, valued));
    }
    flags
}

fn listing(text: &str, program: &str) -> BTreeMap<String, (Flags, bool)> {
    let mut commands = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once(':').expect("NAME: FLAGS");
        let name = name.strip_prefix(program).unwrap_or(name).trim();
        commands.insert(name.to_owned(), (flags(rest), rest.starts_with(" *")));
    }
    commands
}

#[test]
fn every_command_and_flag_of_docker_is_known() {
    let docker = listing(include_str!("docker-28.txt"), "docker");
    assert!(docker.len() > 140, "{} commands", docker.len());
    let output = Command::new(env!("CARGO_BIN_EXE_hull")).arg("__commands").output().expect("run hull");
    let hull = listing(&String::from_utf8_lossy(&output.stdout), "hull");
    let mut missing = BTreeSet::new();
    for (name, (wanted, _)) in &docker {
        let words: Vec<&str> = name.split(' ').collect();
        // A word that answers what to use instead takes whatever follows.
        let above = (1..=words.len()).rev().map(|count| words[..count].join(" "));
        let answers = above.clone().any(|above| hull.get(&above).is_some_and(|(_, any)| *any));
        let Some((known, _)) = hull.get(name) else {
            if !answers {
                missing.insert(format!("command {name:?}"));
            }
            continue;
        };
        if answers {
            continue;
        }
        for (flag, (short, valued)) in wanted {
            match known.get(flag) {
                None => {
                    missing.insert(format!("{name} --{flag}"));
                }
                Some((have, takes)) => {
                    if short.is_some() && short != have {
                        missing.insert(format!("{name} -{} for --{flag}", short.unwrap_or(' ')));
                    }
                    if valued != takes {
                        missing.insert(format!(
                            "{name} --{flag}: a value must {}follow",
                            if *valued { "" } else { "not " }
                        ));
                    }
                }
            }
        }
    }
    assert!(
        missing.is_empty(),
        "{} differences:\n{}",
        missing.len(),
        missing.into_iter().collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn what_hull_does_otherwise_is_said_in_one_line() {
    for words in [
        &["plugin", "install", "--grant-all-permissions", "x"][..],
        &["trust", "sign", "x"],
        &["checkpoint", "create", "a", "b"],
        &["swarm", "init"],
        &["service", "ls"],
        &["stack", "deploy", "-c", "x", "y"],
        &["secret", "ls"],
        &["context", "create", "other"],
        &["--context", "other", "ps"],
        &["-H", "ssh://other", "rm", "-f", "x"],
        &["volume", "create", "--type", "mount", "x"],
        &["network", "create", "--config-only", "x"],
        &["network", "connect", "--link", "a:b", "net", "c"],
        &["start", "--checkpoint", "x", "y"],
        &["run", "--isolation", "hyperv", "x"],
        &["run", "--use-api-socket", "x"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_hull"))
            .args(["--root", "/nonexistent/hull", "--state", "/nonexistent/hull"])
            .args(words)
            .output()
            .expect("run hull");
        let error = String::from_utf8_lossy(&output.stderr);
        let said = error.lines().last().unwrap_or_default();
        assert!(!output.status.success(), "{words:?}");
        assert!(
            said.contains("use ") || said.contains("not supported") || said.contains("needed"),
            "{words:?}: {error}"
        );
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}
