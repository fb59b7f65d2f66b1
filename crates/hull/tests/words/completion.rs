//! Completion as a shell asks for it, with records of real objects.

use std::process::{Command, Stdio};

use hull_testkit::{Finished, Home, finish, home, tier};

/// What `hull __complete` says in a home: candidates without their descriptions, and the last line.
fn offered(home: &Home, words: &[&str]) -> (Vec<String>, String) {
    let directory = home.path().display();
    let (data, state) = (format!("{directory}/data"), format!("{directory}/run"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
    command.args(["__complete", "--root", &data, "--state", &state]).args(words).stdin(Stdio::null());
    let text = finish(&mut command).ok().stdout;
    let mut lines: Vec<String> =
        text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect();
    let last = lines.pop().expect("a last line");
    (lines, last)
}

#[test]
fn root_names_of_objects_are_offered_where_they_belong() {
    let Some(home) = home!() else { return };
    let _ = home.detached(&["--name", "runs"], &["sleep", "60"]);
    finish(&mut home.container("create", &["--name", "rests"], &["true"])).ok();
    home.run(&["volume", "create", "data-one"]).ok();
    home.run(&["network", "create", "--internal", "inner"]).ok();
    home.run(&["images", "hello"]).ok();
    home.run(&["history", "hello"]).ok();

    assert_eq!(offered(&home, &["stop", ""]).0, ["runs"]);
    assert_eq!(offered(&home, &["start", ""]).0, ["rests"]);
    assert_eq!(offered(&home, &["rm", "-f", "r"]).0, ["rests", "runs"]);
    assert_eq!(offered(&home, &["container", "logs", "ru"]).0, ["runs"]);
    assert_eq!(offered(&home, &["exec", "-it", ""]).0, ["runs"]);
    assert_eq!(offered(&home, &["volume", "rm", ""]).0, ["data-one"]);
    assert_eq!(offered(&home, &["run", "-v", "da"]), (vec!["data-one:".to_owned()], ":dirs,nospace".to_owned()));
    assert_eq!(offered(&home, &["cp", "ru"]), (vec!["runs:".to_owned()], ":files,nospace".to_owned()));
    assert_eq!(offered(&home, &["network", "inspect", "in"]).0, ["inner"]);
    assert_eq!(offered(&home, &["network", "connect", "inner", "ru"]).0, ["runs"]);
    assert_eq!(offered(&home, &["run", "--network=in"]).0, ["--network=inner"]);
    assert_eq!(offered(&home, &["run", "--network", "container:"]).0, ["container:runs"]);
    assert!(offered(&home, &["run", "hel"]).0.contains(&"hello".to_owned()));
    assert!(offered(&home, &["inspect", "da"]).0.contains(&"data-one".to_owned()));
    home.run(&["network", "rm", "inner"]).ok();
    home.run(&["rm", "-f", "runs", "rests"]).ok();
    home.assert_clean();
}

/// What bash would offer for a line.
fn bash(line: &str) -> Finished {
    let directory = std::path::Path::new(env!("CARGO_BIN_EXE_hull")).parent().expect("directory of the binary");
    let script = "compopt() { echo \"compopt $*\"; }; source <(hull completion bash); COMP_LINE=$1; COMP_POINT=${#1}; \
                  _hull; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
    finish(Command::new("bash").args(["-c", script, "bash", line]).env("PATH", path).stdin(Stdio::null()))
}

#[test]
fn bash_gets_what_is_behind_its_own_word_breaks() {
    assert_eq!(bash("hull imag").ok().stdout, "images\nimage\n");
    assert_eq!(bash("hull run --restart=u").ok().stdout, "unless-stopped\n");
    assert_eq!(bash("hull run --restart u").ok().stdout, "unless-stopped\n");
    assert_eq!(bash("hull run --env-file ").ok().stdout, "compopt -o default\n\n");
    assert_eq!(bash("hull run --rootfs=").ok().stdout, "compopt -o dirnames\n\n");
}

/// What a shell's own completion offers for a line: `script` gets the line and the directory of the binary first in its
/// path.
fn shell(shell: &str, flags: &[&str], script: &str, line: &str) -> Option<String> {
    let shell = tier::tool(shell)?;
    let directory = std::path::Path::new(env!("CARGO_BIN_EXE_hull")).parent().expect("directory of the binary");
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
    let own = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(own.path().join("sub")).expect("create directory");
    let mut command = Command::new(shell);
    command.args(flags).args(["-c", script]).env("PATH", path).env("LINE", line).env("HOME", own.path());
    command.env("TERM", "xterm").env_remove("XDG_CONFIG_HOME").env_remove("ZDOTDIR");
    Some(finish(command.current_dir(own.path()).stdin(Stdio::null())).ok().stdout)
}

#[test]
fn fish_offers_commands_flags_and_values() {
    let script = "hull completion fish | source; complete -C $LINE";
    let Some(text) = shell("fish", &["--no-config"], script, "hull imag") else { return };
    let first = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(first(&text), ["image", "images"]);
    assert!(text.contains("images\tList images"), "{text}");
    let ask = |line: &str| shell("fish", &["--no-config"], script, line).map(|text| first(&text));
    assert_eq!(ask("hull run --restart u"), Some(vec!["unless-stopped".to_owned()]));
    assert_eq!(ask("hull run --restart=u"), Some(vec!["--restart=unless-stopped".to_owned()]));
    assert_eq!(ask("hull run --rootfs "), Some(vec!["sub/".to_owned()]));
    assert_eq!(ask("hull run --no-such-flag-at-a"), Some(Vec::new()));
}

#[test]
fn zsh_offers_commands_flags_and_values() {
    // A terminal of its own, in which the line is typed, and a tabulator; what is wanted comes, or the test's time ends.
    let script = r#"
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell 'PS1=; autoload -Uz compinit; compinit -u; source <(hull completion zsh); print READY$((1+1))'
        zpty -r shell out '*READY2*'
        zpty -w -n shell "${LINE%%|*}"$'\t'
        zpty -r shell out "*${LINE##*|}*"
        print -r -- "$out"
        zpty -d shell
    "#;
    for line in ["hull imag|image", "hull run --restart=u|--restart=unless-stopped", "hull run --rootfs |sub"] {
        let Some(text) = shell("zsh", &["-f"], script, line) else { return };
        assert!(text.contains(line.rsplit('|').next().unwrap_or_default()), "{line}: {text}");
    }
}

#[test]
fn every_command_has_a_page_of_the_manual() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("man1");
    finish(Command::new(env!("CARGO_BIN_EXE_hull")).arg("man").arg(&path).stdin(Stdio::null())).ok();
    let page = std::fs::read_to_string(path.join("hull-network-create.1")).expect("a page");
    assert!(page.contains(".TH HULL-NETWORK-CREATE 1"), "{page}");
    assert!(page.contains("hull network create") && page.contains("\\-\\-subnet"), "{page}");
    assert!(path.join("hull-run.1").exists() && !path.join("hull-__complete.1").exists());
}
