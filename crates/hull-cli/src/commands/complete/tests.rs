use super::*;

/// The candidates for these words, and the last line.
fn offered(words: &[&str]) -> (Vec<String>, String) {
    let words: Vec<String> = ["--root", "/nonexistent", "--state", "/nonexistent"]
        .iter()
        .chain(words)
        .map(|word| (*word).to_owned())
        .collect();
    let command = Cli::command();
    let text = Line::read(&command, &words).answer();
    let mut lines: Vec<String> =
        text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect();
    let last = lines.pop().expect("a last line");
    (lines, last)
}

#[test]
fn commands_and_groups() {
    assert_eq!(offered(&["insp"]).0, ["inspect"]);
    assert!(offered(&["network", "c"]).0.contains(&"connect".to_owned()));
    assert!(!offered(&[""]).0.contains(&WORD.to_owned()));
}

#[test]
fn flags_of_the_command_and_of_all() {
    let (flags, _) = offered(&["run", "--memory-s"]);
    assert_eq!(flags, ["--memory-swap", "--memory-swappiness"]);
    assert_eq!(offered(&["ps", "--roo"]).0, ["--root"]);
    // Behind the image they are the command's.
    assert!(offered(&["run", "-it", "alpine", "--me"]).0.is_empty());
}

#[test]
fn values_of_flags() {
    assert_eq!(offered(&["run", "--restart", "u"]).0, ["unless-stopped"]);
    assert_eq!(offered(&["run", "--restart=u"]).0, ["--restart=unless-stopped"]);
    assert_eq!(offered(&["run", "--cap-add", "SYS_PT"]).0, ["SYS_PTRACE"]);
    assert_eq!(offered(&["run", "--pull", "n"]).0, ["never"]);
    assert_eq!(offered(&["run", "--env-file", ""]), (Vec::new(), ":files".to_owned()));
    assert_eq!(offered(&["run", "--rootfs", ""]), (Vec::new(), ":dirs".to_owned()));
    assert_eq!(offered(&["run", "--net", "h"]).0, ["host"]);
    assert_eq!(offered(&["config", "show", "default-n"]).0, ["default-network"]);
    assert_eq!(offered(&["build", ""]), (Vec::new(), ":dirs".to_owned()));
}

#[test]
fn every_argument_that_names_an_object_is_known() {
    let command = Cli::command();
    let mut unknown = Vec::new();
    for sub in command.get_subcommands().chain(command.get_subcommands().flat_map(Command::get_subcommands)) {
        for arg in sub.get_positionals() {
            let name = arg.get_value_names().and_then(|names| names.first());
            let name = name.map_or_else(|| arg.get_id().as_str().to_uppercase(), ToString::to_string);
            let object = ["CONTAINER", "IMAGE", "NETWORK", "VOLUME"].iter().any(|word| name.starts_with(word));
            let kind = Kind::of(&[sub.get_name()], sub.get_name(), None, &name, 0);
            if object && kind == Kind::Nothing {
                unknown.push(format!("{} {name}", sub.get_name()));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:?}");
}
