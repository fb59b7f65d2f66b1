//! Command lines that cannot be understood: Docker's words and exit codes first, then what to do, in one line.
//!
//! The plain parse decides nearly always. Only when it fails the line is parsed once more with every switch taking a
//! value as Docker's do (`--all=false`), and what is wrong then is said.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Command, CommandFactory as _, FromArgMatches as _, Parser as _};

use super::{Cli, USAGE, short};
use crate::output;

/// Parses the words, or says what is wrong with them and gives the exit code of that.
pub(super) fn parse(args: &[OsString]) -> Result<Cli, ExitCode> {
    if let Some(topic) = help_topic(args) {
        return help(args, topic);
    }
    if let Some(cli) = short::parse(args) {
        return Ok(cli);
    }
    let error = match Cli::try_parse_from(args) {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        output::print(error.render());
        return Err(ExitCode::SUCCESS);
    }
    let again = switches(Cli::command()).try_get_matches_from(args);
    match again.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches)) {
        Ok(cli) => Ok(cli),
        Err(error) => Err(complain(&error, args)),
    }
}

/// Where `help` stands, if that is the command.
fn help_topic(args: &[OsString]) -> Option<usize> {
    let at = args.iter().position(|word| word == "help")?;
    // Nearly no line gets here: what is before may be a command, or the value of a flag.
    let root = Cli::command();
    let (_, command, rest) = reached(&root, args);
    (command.get_name() == root.get_name() && rest.len() == args.len() - at).then_some(at)
}

/// `hull help image ls` is `hull image ls --help`.
fn help(args: &[OsString], at: usize) -> Result<Cli, ExitCode> {
    let (before, after) = args.split_at(at);
    let mut words = before.to_vec();
    words.extend(after.iter().skip(1).cloned());
    let root = Cli::command();
    let mut command = &root;
    for topic in after.iter().skip(1) {
        match command.find_subcommand(topic) {
            Some(found) => command = found,
            None => {
                output::error(format_args!("unknown help topic: {}; see 'hull --help'", topic.to_string_lossy()));
                return Err(ExitCode::FAILURE);
            }
        }
    }
    words.push("--help".into());
    if let Err(error) = Cli::try_parse_from(words) {
        output::print(error.render());
    }
    Err(ExitCode::SUCCESS)
}

/// Every switch may have a value: the same tree, as Go's flags read it.
fn switches(command: Command) -> Command {
    let command = command.mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_parser(truth),
        ArgAction::Set if arg.get_num_args().is_some_and(|range| range.min_values() == 0) && is_switch(&arg) => {
            arg.value_parser(truth)
        }
        _ => arg,
    });
    let names: Vec<String> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, switches))
}

/// Whether a flag is one of those that are declared with a value that may be left out.
fn is_switch(arg: &clap::Arg) -> bool {
    arg.get_value_names().is_some_and(|names| names.iter().any(|name| name == "BOOL"))
        && !arg.is_required_set()
        && arg.get_default_values().iter().any(|value| value == "true" || value == "false")
}

/// Go's truth values.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// The command that the words name: its path, itself, and the words after it.
fn reached<'a>(root: &'a Command, args: &'a [OsString]) -> (String, &'a Command, Vec<String>) {
    let (mut path, mut command) = ("hull".to_owned(), root);
    let mut words = args.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).peekable();
    while let Some(word) = words.peek() {
        if let Some(long) = word.strip_prefix('-') {
            let long = long.trim_start_matches('-').to_owned();
            words.next();
            let takes = root.get_arguments().any(|arg| {
                let named =
                    arg.get_long() == Some(&long) || arg.get_short().map(String::from).as_deref() == Some(&long);
                named && arg.get_action().takes_values()
            });
            if takes {
                words.next();
            }
            continue;
        }
        let Some(found) = command.find_subcommand(word) else { break };
        path = format!("{path} {}", found.get_name());
        command = found;
        words.next();
        if !command.has_subcommands() {
            break;
        }
    }
    (path, command, words.collect())
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(list) => Some(list.join("', '")),
        ContextValue::StyledStr(text) => Some(text.to_string()),
        _ => None,
    }
}

/// Says what is wrong.
fn complain(error: &clap::Error, args: &[OsString]) -> ExitCode {
    let root = Cli::command();
    let (path, command, rest) = reached(&root, args);
    let see = format!("see '{path} --help'");
    let say = |code: u8, what: String, hint: Option<String>| {
        let hint = hint.map_or_else(String::new, |hint| format!("; did you mean '{hint}'?"));
        output::error(format_args!("{what}{hint}; {see}"));
        ExitCode::from(code)
    };
    let invalid = text(error, ContextKind::InvalidArg);
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::print(error.render());
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            let mut command = command.clone().bin_name(path.as_str());
            output::diagnostic(command.render_help());
            ExitCode::SUCCESS
        }
        ErrorKind::InvalidSubcommand => {
            let word = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            let meant = super::suggest::nearest(command, &word).map(|name| format!("{path} {name}"));
            say(1, format!("unknown command: {path} {word}"), meant)
        }
        ErrorKind::UnknownArgument => {
            let word = invalid.unwrap_or_default();
            match word.strip_prefix('-') {
                Some(rest_of) if !rest_of.is_empty() => {
                    let late = too_early(&root, args, command, &word).then(|| format!("{path} {word}"));
                    say(USAGE, unknown_flag(&word, &rest), late.or_else(|| text(error, ContextKind::SuggestedArg)))
                }
                _ => count(command, &path, &rest, &say),
            }
        }
        ErrorKind::MissingRequiredArgument if !invalid.as_ref().is_some_and(|missing| missing.contains("--")) => {
            count(command, &path, &rest, &say)
        }
        ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues
            if invalid.as_ref().is_some_and(|arg| !arg.starts_with('-')) =>
        {
            count(command, &path, &rest, &say)
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let value = text(error, ContextKind::InvalidValue).unwrap_or_default();
            let flag = invalid.unwrap_or_default();
            if value.is_empty() && error.kind() == ErrorKind::InvalidValue {
                return say(USAGE, format!("flag needs an argument: {}", bare(&flag)), None);
            }
            let possible = text(error, ContextKind::ValidValue).map(|list| format!("expected one of '{list}'"));
            let reason = std::error::Error::source(error).map(|source| number(&source.to_string(), &value));
            let reason = reason.or(possible).unwrap_or_else(|| "it cannot be used".to_owned());
            if flag.starts_with(['<', '[']) {
                let name = flag.trim_matches(['<', '>', '[', ']', '.']);
                return say(USAGE, format!("invalid argument {value:?} for {name}: {reason}"), None);
            }
            say(USAGE, format!("invalid argument {value:?} for {:?} flag: {reason}", both(command, &flag)), None)
        }
        ErrorKind::ArgumentConflict => {
            let prior = text(error, ContextKind::PriorArg).unwrap_or_default();
            let flag = invalid.unwrap_or_default();
            let (one, other) = (bare(&prior), bare(&flag));
            if one == other {
                // Go takes the last of several.
                return say(USAGE, format!("{one} cannot be given more than once"), None);
            }
            say(1, format!("conflicting options: cannot specify both {one} and {other}"), None)
        }
        _ => {
            output::error(output::of_clap(&error.render().to_string()));
            ExitCode::from(USAGE)
        }
    }
}

/// `--last <NUMBER>` without the value.
fn bare(flag: &str) -> &str {
    flag.split([' ', '=', '[']).next().unwrap_or(flag)
}

/// `-n, --last`, as Docker names a flag.
fn both(command: &Command, flag: &str) -> String {
    let flag = bare(flag);
    let Some(long) = flag.strip_prefix("--") else { return flag.to_owned() };
    let found = command.get_arguments().find(|arg| arg.get_long() == Some(long));
    match found.and_then(clap::Arg::get_short) {
        Some(short) => format!("-{short}, --{long}"),
        None => flag.to_owned(),
    }
}

/// Go's words for what is no number.
fn number(reason: &str, value: &str) -> String {
    match reason {
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            format!("strconv.ParseInt: parsing {value:?}: invalid syntax")
        }
        "number too large to fit in target type" | "number too small to fit in target type" => {
            format!("strconv.ParseInt: parsing {value:?}: value out of range")
        }
        reason => reason.to_owned(),
    }
}

fn unknown_flag(word: &str, rest: &[String]) -> String {
    if word.starts_with("--") {
        return format!("unknown flag: {}", bare(word));
    }
    let letter = word.trim_start_matches('-');
    let cluster = rest.iter().find(|given| {
        given.starts_with('-') && !given.starts_with("--") && given.contains(letter.chars().next().unwrap_or('-'))
    });
    format!("unknown shorthand flag: '{letter}' in {}", cluster.map_or(word, String::as_str))
}

/// Whether a flag of a command stands before the command's name, as in `hull -d run`.
fn too_early(root: &Command, args: &[OsString], command: &Command, word: &str) -> bool {
    let name = word.trim_start_matches('-');
    let has = command.get_arguments().any(|arg| {
        if word.starts_with("--") {
            arg.get_long() == Some(bare(name))
        } else {
            arg.get_short().is_some_and(|short| name.starts_with(short))
        }
    });
    let words = || args.iter().skip(1).map(|word| word.to_string_lossy());
    let named = |word: &str| root.find_subcommand(word).is_some();
    has && words().take_while(|word| !named(word)).any(|one| one == word || bare(&one) == word)
}

/// A flag that is none, among words that are read as values.
fn stray<'a>(command: &Command, rest: &'a [String]) -> Option<&'a String> {
    let trailing = command.get_positionals().any(clap::Arg::is_trailing_var_arg_set);
    let known = |word: &str| {
        let name = bare(word).trim_start_matches('-');
        command.get_arguments().any(|arg| {
            arg.get_long() == Some(name)
                || arg.get_all_aliases().is_some_and(|names| names.contains(&name))
                || (!word.starts_with("--") && arg.get_short().is_some_and(|short| name.starts_with(short)))
        })
    };
    let flags = rest.iter().take_while(|word| *word != "--" && (!trailing || word.starts_with('-')));
    flags.filter(|word| word.len() > 1 && word.starts_with('-')).find(|word| !known(word))
}

/// How many words a command takes, in Docker's words.
fn count(
    command: &Command,
    path: &str,
    rest: &[String],
    say: &impl Fn(u8, String, Option<String>) -> ExitCode,
) -> ExitCode {
    if let Some(word) = stray(command, rest) {
        return say(USAGE, unknown_flag(word, rest), None);
    }
    let (mut least, mut most) = (0, Some(0));
    for arg in command.get_positionals() {
        let range = arg.get_num_args().unwrap_or_else(|| 1.into());
        let open = matches!(arg.get_action(), ArgAction::Append) && arg.get_num_args().is_none();
        let many = range.max_values() == usize::MAX || open;
        least += if arg.is_required_set() || range.min_values() > 1 { range.min_values().max(1) } else { 0 };
        most = if many { None } else { most.map(|most| most + range.max_values()) };
    }
    // Words in a row, as of 'run': image, then what it runs.
    let plural = |number: usize| if number == 1 { "argument" } else { "arguments" };
    let what = match (least, most) {
        (0, Some(0)) => "accepts no arguments".to_owned(),
        (least, Some(most)) if least == most => format!("requires {least} {}", plural(least)),
        (0, Some(most)) => format!("requires at most {most} {}", plural(most)),
        (least, Some(most)) => format!("requires at least {least} and at most {most} {}", plural(most)),
        (least, None) => format!("requires at least {} {}", least.max(1), plural(least.max(1))),
    };
    say(1, format!("'{path}' {what}"), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        switches(Cli::command()).debug_assert();
    }

    #[test]
    fn switches_take_go_s_truth_values() {
        for good in ["hull ps --all=false -q", "hull ps -a=true", "hull rm --force=1 x", "hull run -d=T x"] {
            assert!(parse(&words(good)).is_ok(), "{good}");
        }
        assert!(parse(&words("hull ps --all=maybe")).is_err());
        assert!(truth("maybe").is_err_and(|reason| reason.starts_with("strconv.ParseBool")));
    }

    #[test]
    fn help_is_a_command_only_in_the_first_place() {
        for (line, at) in [
            ("hull help", Some(1)),
            ("hull --root /help help run", Some(3)),
            ("hull run x help", None),
            ("hull --root help ps", None),
        ] {
            assert_eq!(help_topic(&words(line)), at, "{line}");
        }
    }

    #[test]
    fn the_command_that_is_meant_is_found() {
        let root = Cli::command();
        for (line, path) in [
            ("hull --root /x image ls --nothing", "hull image ls"),
            ("hull ps extra", "hull ps"),
            ("hull volume nothing", "hull volume"),
            ("hull --nothing", "hull"),
        ] {
            assert_eq!(reached(&root, &words(line)).0, path, "{line}");
        }
        let words = words("hull cp --nothing a b");
        let (_, command, rest) = reached(&root, &words);
        assert_eq!(stray(command, &rest).map(String::as_str), Some("--nothing"));
    }

    #[test]
    fn flags_are_named_as_docker_names_them() {
        assert_eq!(unknown_flag("--memroy", &[]), "unknown flag: --memroy");
        let root = Cli::command();
        for (line, word, expected) in [
            ("hull -d run x", "-d", true),
            ("hull run -d x", "-d", false),
            ("hull --rm run x", "--rm", true),
            ("hull -z run x", "-z", false),
        ] {
            let given = words(line);
            let (_, command, _) = reached(&root, &given);
            assert_eq!(too_early(&root, &given, command, word), expected, "{line}");
        }
        assert_eq!(unknown_flag("-Z", &["-aZ".to_owned()]), "unknown shorthand flag: 'Z' in -aZ");
        let root = Cli::command();
        let run = root.find_subcommand("run").expect("a command");
        assert_eq!(both(run, "--memory <SIZE>"), "-m, --memory");
        assert_eq!(both(run, "--cpus <N>"), "--cpus");
        assert_eq!(number("invalid digit found in string", "x"), r#"strconv.ParseInt: parsing "x": invalid syntax"#);
    }

    /// Every word that means something somewhere, and values that mean nothing good.
    fn vocabulary() -> Vec<Vec<u8>> {
        fn collect(command: &Command, all: &mut std::collections::BTreeSet<String>) {
            all.insert(command.get_name().to_owned());
            for arg in command.get_arguments() {
                all.extend(arg.get_long().map(|long| format!("--{long}")));
                all.extend(arg.get_short().map(|short| format!("-{short}")));
                all.extend(arg.get_possible_values().iter().map(|value| value.get_name().to_owned()));
            }
            command.get_subcommands().for_each(|sub| collect(sub, all));
        }
        let mut all = std::collections::BTreeSet::new();
        collect(&Cli::command(), &mut all);
        let values = [
            "",
            "-",
            "--",
            "=",
            "a=b",
            "a==",
            ":",
            "a:b:c:d:e",
            "/",
            "/a:/b:ro,z",
            "[::1]:80:80/tcp",
            "1-2:3-5",
            "65536",
            "-1",
            "18446744073709551616",
            "1e9",
            "0.000001",
            "1.5.5",
            "64m",
            "9999999999t",
            "type=bind,src=/x,dst=,,=",
            "type=tmpfs,destination=/a,tmpfs-size=-1",
            "{{.",
            "{{json .}}",
            "id=,src=",
            "\u{202e}",
            "\u{1f40b}",
            "%s%n",
            "host",
            "none",
            "container:",
            "container:x",
            "private",
            "x:y@sha256:0",
            "ALL",
            "nofile=1:0",
            "nofile=::",
            "0s",
            "1h-2m",
            "0-",
            ",",
            "0-9999999",
            "on-failure:-1",
            "no-new-privileges=maybe",
            "label=:::",
            "key",
            "b 1:1 rwm",
            "/dev/null:/x:rwmm",
            "a *:* m",
            "1:2:3",
            "2001:db8::/129",
            "10.0.0.0/33",
            "user,",
            "ctrl-?",
            "ctrl-a,",
        ];
        all.extend(values.map(str::to_owned));
        let mut all: Vec<Vec<u8>> = all.into_iter().map(String::into_bytes).collect();
        all.push(vec![0xff, 0xfe, b'=', 0x80]);
        all.push(vec![b'x'; 70_000]);
        all
    }

    #[test]
    fn no_words_make_it_panic() {
        use std::os::unix::ffi::OsStringExt as _;
        let vocabulary = vocabulary();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap_or(0) % below
        };
        // `HULL_TEST_LOOPS` brings more of them.
        let loops: u32 = std::env::var("HULL_TEST_LOOPS").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
        for turn in 0..loops {
            let begin = ["run", "build", "create", "network", "volume", "exec", "oci", ""][random(8)];
            let mut words = vec![b"hull".to_vec()];
            words.extend(Some(begin.as_bytes().to_vec()).filter(|word| !word.is_empty()));
            for _ in 0..random(7) {
                let mut word = vocabulary[random(vocabulary.len())].clone();
                if random(3) == 0 {
                    word.push(b'=');
                    word.extend(&vocabulary[random(vocabulary.len())]);
                }
                if random(12) == 0 && !word.is_empty() {
                    let at = random(word.len());
                    word[at] ^= 1 << random(8);
                }
                words.push(word.into_iter().filter(|byte| !matches!(byte, 0 | b'\n')).collect());
            }
            if turn % 2 == 0 {
                words.push(b"x".to_vec());
            }
            let words: Vec<OsString> = words.into_iter().map(OsString::from_vec).collect();
            if words.get(1).is_some_and(|word| word == "oci") {
                crate::oci::understand(&words[2..]);
            } else {
                super::super::understand(&words);
            }
        }
    }
}
