//! Command lines of the commands that are typed most, and of a server's steps, read without describing the others.
//!
//! What clap does first is to make the description of every command with every flag, whichever is meant: a megabyte and a
//! half, made and thrown away, and copied page by page by what is forked from here. A line that names one of a few commands
//! is read against a description of that command alone. Whatever is unusual about it, help and mistakes above all, is left
//! to [`super::usage`], which knows everything; so what is understood here means what it means there.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use super::{Cli, Command, CommandLine, api, exec, inspect, logs, ps, rm, run, signals};

/// Declares a command line with one command, and how it becomes one of all.
macro_rules! alone {
    ($($name:ident: $variant:ident($arguments:ty), $help:literal;)+) => {$(
        #[derive(Debug, Subcommand)]
        enum $name {
            #[doc = $help]
            $variant($arguments),
        }

        impl From<$name> for Command {
            fn from($name::$variant(arguments): $name) -> Self {
                Self::$variant(arguments)
            }
        }
    )+};
}

alone! {
    Run: Run(Box<run::Args>), "Create a container and run a command in it";
    Exec: Exec(exec::Args), "Run a command in a container";
    Ps: Ps(ps::Args), "List containers";
    Rm: Rm(rm::Args), "Remove containers";
    Stop: Stop(signals::Stop), "Stop containers";
    Inspect: Inspect(inspect::Args), "Show all that is known about containers";
    Logs: Logs(logs::Args), "Show the output of a container";
    ApiStep: ApiStep(api::Step), "Do a step of a server's";
}

fn of<C: Subcommand + Into<Command>>(args: &[OsString]) -> Option<Cli> {
    let CommandLine { root, state, client, command } = CommandLine::<C>::try_parse_from(args).ok()?;
    Some(Cli { root, state, client, command: command.into() })
}

/// Understands a line of one of the commands above, if there is nothing unusual about it.
pub(super) fn parse(args: &[OsString]) -> Option<Cli> {
    // The first of these words is the command, or the value of a flag before it: then the line is not understood.
    args.iter().skip(1).find_map(|word| match word.to_str()? {
        "run" => Some(of::<Run>(args)),
        "exec" => Some(of::<Exec>(args)),
        "ps" => Some(of::<Ps>(args)),
        "rm" => Some(of::<Rm>(args)),
        "stop" => Some(of::<Stop>(args)),
        "inspect" => Some(of::<Inspect>(args)),
        "logs" => Some(of::<Logs>(args)),
        hull_api::COMMAND => Some(of::<ApiStep>(args)),
        _ => None,
    })?
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        std::iter::once("hull").chain(line.split(' ')).map(OsString::from).collect()
    }

    #[test]
    fn what_is_understood_is_what_the_whole_description_says() {
        for line in [
            "run --rm app:1 true",
            "run -it --rm --memory 512m -e A=b -v /a:/b app:1 sh -c ps",
            "--root /a --state=/b run --network none --name run app ps -a",
            "run --root /a app --root /b",
            "exec -it one sh",
            "ps -a --format {{.ID}}",
            "ps --root /x",
            "rm -f one two",
            "stop -t 3 one",
            "inspect -f {{.Id}} one",
            "logs -f --tail 3 one",
            "--root /a --state /b api-step -- exec one",
        ] {
            let args = words(line);
            let short = parse(&args).unwrap_or_else(|| panic!("{line}: not understood"));
            assert_eq!(format!("{short:?}"), format!("{:?}", Cli::try_parse_from(&args).unwrap()), "{line}");
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_the_whole_description() {
        for line in [
            "run --help",
            "run",
            "run --no-such-flag app",
            "--root run images",
            "-v",
            "image inspect x",
            "container rm one",
            "ls",
            "ps extra",
            "--rot /a run app",
        ] {
            assert!(parse(&words(line)).is_none(), "{line}");
        }
    }

    #[test]
    fn flags_of_every_command_are_the_same() {
        let flags = |command: clap::Command| -> Vec<String> {
            let mut all: Vec<String> = command.get_arguments().map(|arg| format!("{arg:?}")).collect();
            // What a flag does, not what is said of it.
            all.iter_mut().for_each(|text| {
                if let Some(at) = text.find("help: ") {
                    let end = text[at..].find("long_help").map_or(text.len(), |end| at + end);
                    text.replace_range(at..end, "");
                }
            });
            all.sort();
            all
        };
        assert_eq!(flags(CommandLine::<Run>::command()), flags(Cli::command()));
        CommandLine::<Run>::command().debug_assert();
    }
}
