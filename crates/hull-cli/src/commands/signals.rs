//! `hull wait`, `hull kill`, `hull stop`.

use hull_engine::Engine;

use super::{Done, containers, values};
use crate::output::{self, print};

/// Wait until containers end, and print their exit codes
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull wait web")]
pub(super) struct Wait {
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Send a signal to containers
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull kill web\n  hull kill -s HUP web")]
pub(super) struct Kill {
    /// Name or number
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Stop containers: ask, wait, kill
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull stop web\n  hull stop -t 0 web")]
pub(super) struct Stop {
    /// Signal that asks [default: the container's stop signal]
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds to wait before killing; -1 waits for ever [default: the container's, or 10]
    #[arg(short = 't', long, visible_alias = "time", value_name = "SECONDS", allow_hyphen_values = true)]
    timeout: Option<i64>,
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) fn wait(engine: &Engine, args: &Wait) -> Done {
    containers::each(engine, &args.containers, |_, container| {
        let code = engine.wait(container)?;
        print(format_args!("{code}\n"));
        Ok(())
    })
}

pub(super) fn kill(engine: &Engine, args: &Kill) -> Done {
    let mut failed = false;
    for name in &args.containers {
        // Each failure says of which container, before why.
        let killed = engine.find(name).map_err(|error| error.to_string().replacen("no such", "No such", 1)).and_then(
            |container| {
                let signal = values::parse_signal(&args.signal)?;
                engine.kill(&container, signal).map_err(|error| error.to_string())
            },
        );
        match killed {
            Ok(()) => print(format_args!("{name}\n")),
            Err(reason) => {
                output::error(format_args!("cannot kill container: {name}: {reason}"));
                failed = true;
            }
        }
    }
    Ok(u8::from(failed))
}

pub(super) fn stop(engine: &Engine, args: &Stop) -> Done {
    let signal = args.signal.as_deref().map(values::signal).transpose()?;
    let given = args.timeout.map(values::grace).transpose()?;
    containers::each(engine, &args.containers, |name, container| {
        let grace = given.unwrap_or_else(|| engine.grace(container));
        engine.stop(container, signal, grace)?;
        print(format_args!("{name}\n"));
        Ok(())
    })
}
