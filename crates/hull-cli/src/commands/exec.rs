//! `hull exec`.

use std::path::PathBuf;

use hull_engine::Engine;
use hull_engine::exec::ExecConfig;

use super::{Done, Failure, values};

/// Run a command in a container
///
/// In a container that is stopped the command runs on the container's files, with its mounts and limits but without a
/// network, and the container stays stopped.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull exec web ps\n  hull exec -it -u root web sh\n  hull exec -e DEBUG=1 -w /src web make"
)]
pub(super) struct Args {
    /// Do not wait for the command
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    tty: bool,
    /// Give the command all capabilities
    #[arg(long)]
    privileged: bool,
    /// Set a variable
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
    /// User and group, names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Keys that detach [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", default_value = "", hide_default_value = true)]
    detach_keys: String,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Container, command and its arguments
    #[arg(trailing_var_arg = true, required = true, num_args = 2.., value_name = "CONTAINER COMMAND [ARG]")]
    words: Vec<String>,
}

pub(super) fn main(engine: &Engine, args: Args) -> Done {
    let mut words = args.words;
    let name = words.remove(0);
    let config = ExecConfig {
        args: words,
        env: values::environment(&args.env_files, &args.env).map_err(|failure| Failure { code: 1, ..failure })?,
        user: args.user,
        workdir: args.workdir,
        tty: args.tty && !args.detach,
        interactive: args.interactive && !args.detach,
        detach: args.detach,
        privileged: args.privileged,
        detach_keys: values::keys(&args.detach_keys)?,
    };
    let code = engine.find(&name).and_then(|container| engine.exec(&container, &config));
    // Docker's code for a container that is missing or stopped is 1, for a command that cannot run 126 or 127.
    code.map(|code| u8::try_from(code).unwrap_or(255)).map_err(|error| {
        let failure = Failure::start(&error);
        match error {
            hull_engine::Error::NoContainer(_) | hull_engine::Error::Status { .. } => Failure { code: 1, ..failure },
            hull_engine::Error::Flag { ref flag, .. } if flag == "--user" => Failure { code: 1, ..failure },
            _ => failure,
        }
    })
}
