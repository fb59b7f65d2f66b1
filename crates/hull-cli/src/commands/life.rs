//! `hull create`, `start`, `attach`, `restart`, `pause`, `unpause`, `rename`.

use hull_engine::attach::Client;
use hull_engine::launch::Options;
use hull_engine::monitor::protocol;
use hull_engine::{Engine, Outcome, flags};

use super::{Done, Failure, containers, run, values};
use crate::output::{self, print};

/// Start containers that were made or have ended
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull start web\n  hull start -ai shell")]
pub(super) struct Start {
    /// Attach output and error output, and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Attach the input too
    #[arg(short, long)]
    interactive: bool,
    /// Not kept by Hull: use 'hull oci restore'
    #[arg(long, value_name = "CHECKPOINT", hide = true)]
    checkpoint: Option<String>,
    /// Not kept by Hull: use 'hull oci restore'
    #[arg(long, value_name = "DIR", hide = true)]
    checkpoint_dir: Option<String>,
    /// Keys that detach [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", default_value = "", hide_default_value = true)]
    detach_keys: String,
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Attach this terminal to a running container
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull attach web\n\nControl-P Control-Q detaches and leaves the container running.")]
pub(super) struct Attach {
    /// Keys that detach [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", default_value = "", hide_default_value = true)]
    detach_keys: String,
    /// Do not attach the input
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the container [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    sig_proxy: bool,
    /// Name, ID or unique beginning of an ID
    container: String,
}

/// Stop containers, if they run, and start them
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull restart -t 30 web")]
pub(super) struct Restart {
    /// Signal that asks [default: the container's stop signal]
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds to wait before killing; -1 waits for ever
    #[arg(short = 't', long, visible_alias = "time", value_name = "SECONDS", allow_hyphen_values = true)]
    timeout: Option<i64>,
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Suspend all processes of containers
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull pause web")]
pub(super) struct Pause {
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Let paused containers go on
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull unpause web")]
pub(super) struct Unpause {
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Give a container another name
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull rename web web-old")]
pub(super) struct Rename {
    /// Name, ID or unique beginning of an ID
    container: String,
    /// The new name
    name: String,
}

fn ended(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Exited(code) => u8::try_from(*code).unwrap_or(255),
        Outcome::Detached(_) => 0,
    }
}

pub(super) fn create(engine: &Engine, args: run::Args) -> Done {
    let cidfile = args.cidfile();
    let fetch = args.fetch();
    let config = args.config()?;
    let made = fetch.around(engine, || engine.create(config.clone(), cidfile.as_deref()));
    // What is wrong with the flags was found before: this is not a usage error.
    let id = made.map_err(|failure| Failure { code: 1, ..failure })?;
    print(format_args!("{id}\n"));
    Ok(0)
}

pub(super) fn start(engine: &Engine, args: &Start) -> Done {
    if args.checkpoint.is_some() || args.checkpoint_dir.is_some() {
        return Err(Failure::new(
            "--checkpoint: checkpoints of containers are not kept; use 'hull oci restore' on a bundle",
        ));
    }
    let keys = values::keys(&args.detach_keys)?;
    if !args.attach && !args.interactive {
        return containers::each(engine, &args.containers, |name, container| {
            let warn = &mut |line: &str| output::error(line);
            engine.start(container, Options { attach: Some(0), ..Options::new(warn) })?;
            print(format_args!("{name}\n"));
            Ok(())
        });
    }
    let [name] = args.containers.as_slice() else {
        return Err(Failure::new("you cannot start and attach multiple containers at once"));
    };
    let mut wants = protocol::WANTS_STDOUT | protocol::WANTS_STDERR;
    if args.interactive {
        wants |= protocol::WANTS_STDIN;
    }
    let warn = &mut |line: &str| output::error(line);
    let options = Options { attach: Some(wants), detach_keys: keys, ..Options::new(warn) };
    let container = engine.find(name)?;
    let outcome = engine.start(&container, options).map_err(|error| Failure::start(&error))?;
    Ok(ended(&outcome))
}

pub(super) fn attach(engine: &Engine, args: &Attach) -> Done {
    let container = engine.find(&args.container)?;
    let mut wants = protocol::WANTS_STDOUT | protocol::WANTS_STDERR;
    if !args.no_stdin && container.config.interactive {
        wants |= protocol::WANTS_STDIN;
    }
    let client = Client {
        wants,
        tty: container.config.tty,
        sig_proxy: args.sig_proxy && !container.config.tty,
        detach_keys: values::keys(&args.detach_keys)?,
    };
    let outcome = engine.attach(&container, &client, &mut |line| output::error(line))?;
    Ok(ended(&outcome))
}

pub(super) fn restart(engine: &Engine, args: &Restart) -> Done {
    let signal = args.signal.as_deref().map(values::signal).transpose()?;
    let given = args.timeout.map(values::grace).transpose()?;
    containers::each(engine, &args.containers, |name, container| {
        let grace = given.unwrap_or_else(|| engine.grace(container));
        engine.restart(container, signal, grace, &mut |line| output::error(line))?;
        print(format_args!("{name}\n"));
        Ok(())
    })
}

pub(super) fn pause(engine: &Engine, args: &Pause) -> Done {
    containers::each(engine, &args.containers, |name, container| {
        engine.pause(container)?;
        print(format_args!("{name}\n"));
        Ok(())
    })
}

pub(super) fn unpause(engine: &Engine, args: &Unpause) -> Done {
    containers::each(engine, &args.containers, |name, container| {
        engine.unpause(container)?;
        print(format_args!("{name}\n"));
        Ok(())
    })
}

pub(super) fn rename(engine: &Engine, args: &Rename) -> Done {
    let new = args.name.trim_start_matches('/');
    if new.is_empty() || args.container.is_empty() {
        return Err(Failure::new("neither old nor new names may be empty"));
    }
    let container = engine.find(&args.container)?;
    let allocating = |reason: String| Failure::new(format!("error when allocating new name: {reason}"));
    let name = flags::container_name(new)
        .map_err(|reason| allocating(reason.replacen('(', "(/", 1).replacen("invalid", "Invalid", 1)))?;
    engine.rename(&container, &name).map_err(|error| match error {
        taken @ hull_engine::Error::NameTaken { .. } => {
            allocating(taken.to_string().replacen("conflict", "Conflict", 1))
        }
        other => other.into(),
    })?;
    Ok(0)
}
