//! `hull __commands`: every command with its names and flags, for the test that compares them with Docker's.

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use super::{Cli, Done};
use crate::output::print;

/// `-f/--filter=`: short form, name, and `=` where a value must follow.
fn flag(arg: &Arg) -> Vec<String> {
    let value = arg.get_action().takes_values() && arg.get_num_args().is_none_or(|range| range.min_values() > 0);
    let value = if value && !matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::Count) { "=" } else { "" };
    let short = arg.get_short().map_or_else(String::new, |short| format!("-{short}/"));
    let names = arg.get_long().into_iter().chain(arg.get_all_aliases().into_iter().flatten());
    names.map(|name| format!("{short}--{name}{value}")).collect()
}

fn walk(command: &Command, path: &str, out: &mut String) {
    let mut flags: Vec<String> = command.get_arguments().filter(|arg| !arg.is_positional()).flat_map(flag).collect();
    flags.sort();
    // What takes any words answers them.
    let any = command.get_positionals().any(|arg| arg.get_id() == "words" && arg.is_allow_hyphen_values_set());
    let any = if any && command.is_disable_help_flag_set() { " *" } else { "" };
    out.push_str(&format!("{path}:{any} {}\n", flags.join(" ")));
    for sub in command.get_subcommands() {
        for name in std::iter::once(sub.get_name()).chain(sub.get_all_aliases()) {
            walk(sub, &format!("{path} {name}"), out);
        }
    }
}

pub(super) fn main() -> Done {
    let mut out = String::new();
    walk(&Cli::command(), "hull", &mut out);
    print(out);
    Ok(0)
}
