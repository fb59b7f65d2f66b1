//! Every command in bad surroundings: no streams, nobody who reads, 20 columns, no HOME, words and places that are no
//! UTF-8. None panics, none hangs, and none is killed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output, Stdio};

use hull_testkit::{Home, home};

/// These wait for others as long as there are any, or answer another program.
const ENDLESS: [&str; 9] = [
    "serve",
    "registry serve",
    "events",
    "system events",
    "stats",
    "container stats",
    "api-step",
    "system dial-stdio",
    "oci",
];

/// Without words these change what belongs to the user who runs the tests.
const USERS: [&str; 2] = ["login", "logout"];

/// Every command that is there, as its words.
fn commands() -> Vec<Vec<String>> {
    let output = Command::new(env!("CARGO_BIN_EXE_hull")).arg("__commands").output().expect("run hull");
    let text = String::from_utf8(output.stdout).expect("commands are text");
    let names = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name);
    let names = names.filter_map(|name| name.strip_prefix("hull ")).filter(|name| !name.starts_with("__"));
    let all: Vec<Vec<String>> = names.map(|name| name.split(' ').map(str::to_owned).collect()).collect();
    assert!(all.len() > 150, "{} commands", all.len());
    all
}

/// The same without those that are others under a second name.
fn distinct() -> Vec<Vec<String>> {
    let all = commands();
    let is_second = |words: &[String]| {
        let groups = ["container", "image", "system", "buildx"];
        words.len() > 1
            && groups.contains(&words[0].as_str())
            && (words[0] == "buildx" || all.iter().any(|other| other.len() == 1 && other[0] == words[1]))
    };
    all.iter().filter(|words| !is_second(words) && !is_one_of(words, &ENDLESS)).cloned().collect()
}

/// A command that ends within a time, through a shell that closes what `closing` says. No registry is reached.
fn command(home: &Home, words: &[OsString], closing: &str) -> Command {
    let hull = home.hull(&[]);
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "60", "sh", "-c", &format!("exec \"$@\" {closing}"), "sh"]);
    command.arg(hull.get_program()).args(hull.get_args()).args(words);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).current_dir(home.path()).stdin(Stdio::null());
    for name in ["http_proxy", "https_proxy", "HTTPS_PROXY"] {
        command.env(name, "http://127.0.0.1:1");
    }
    command.env("HULL_DEFAULT_NETWORK", "none");
    command
}

#[track_caller]
fn sound(what: &str, output: &Output) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("panicked"), "{what}: {error}");
    assert_eq!(output.status.signal(), None, "{what}: {error}");
    assert_ne!(output.status.code(), Some(124), "{what}: it did not end");
    assert!(output.status.code().is_some_and(|code| code < 128), "{what}: {:?}: {error}", output.status);
}

fn with(words: &[String], more: &[&OsStr]) -> Vec<OsString> {
    words.iter().map(OsString::from).chain(more.iter().map(|word| (*word).to_owned())).collect()
}

fn is_one_of(words: &[String], names: &[&str]) -> bool {
    names.contains(&words.join(" ").as_str())
}

#[test]
fn every_command_s_help_is_read_on_a_narrow_terminal_or_not_at_all() {
    let home = home!(plain);
    for words in commands() {
        let help = with(&words, &[OsStr::new("--help")]);
        let output = command(&home, &help, "").env("COLUMNS", "20").output().expect("run hull");
        sound(&format!("{words:?} --help in 20 columns"), &output);
        // A word that is answered by what to use instead has no help of its own.
        assert!(output.stdout.len() + output.stderr.len() > 20, "{words:?}");
        let (reader, writer) = std::io::pipe().expect("pipe");
        drop(reader);
        let output = command(&home, &help, "").stdout(writer).output().expect("run hull");
        sound(&format!("{words:?} --help that nobody reads"), &output);
    }
}

#[test]
fn every_command_runs_without_streams_and_without_a_home() {
    let home = home!(plain);
    let nothing = OsStr::new("no such:thing");
    for words in distinct() {
        if !is_one_of(&words, &USERS) {
            let output = command(&home, &with(&words, &[]), "<&-").env("COLUMNS", "20").output().expect("run hull");
            sound(&format!("{words:?} without input"), &output);
        }
        // It asks a registry for any word, again and again.
        if is_one_of(&words, &["search"]) {
            continue;
        }
        let closed = with(&words, &[nothing]);
        let output = command(&home, &closed, "<&- >&- 2>&-").output().expect("run hull");
        sound(&format!("{words:?} {nothing:?} without streams"), &output);
        let (reader, writer) = std::io::pipe().expect("pipe");
        drop(reader);
        let output = command(&home, &closed, "").stdout(writer).output().expect("run hull");
        sound(&format!("{words:?} {nothing:?} that nobody reads"), &output);
    }
}

#[test]
fn every_command_takes_words_and_places_that_are_no_text() {
    let home = home!(plain);
    let bad = OsStr::from_bytes(b"\xff\xfe");
    let place = home.path().join(bad);
    std::fs::create_dir(&place).expect("create directory");
    for words in distinct() {
        for more in [&[OsStr::new("--"), bad][..], &[bad, bad]] {
            let mut command = command(&home, &with(&words, more), "");
            let output = command.env("LC_ALL", "en_US.ISO-8859-1").env("HOME", &place).current_dir(&place).output();
            sound(&format!("{words:?} {more:?}"), &output.expect("run hull"));
        }
    }
}
