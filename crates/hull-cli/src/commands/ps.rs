//! `hull ps`.

use std::time::SystemTime;

use hull_engine::config::Source;
use hull_engine::inspect::{age, status};
use hull_engine::records::Phase;
use hull_engine::{Container, Engine, State};

use super::Done;
use crate::output::{print, short, table};

/// List containers
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull ps -a\n  hull rm $(hull ps -aq)")]
pub(super) struct Args {
    /// Show all containers, not only running ones
    #[arg(short, long)]
    all: bool,
    /// Only IDs
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten IDs and commands
    #[arg(long)]
    no_trunc: bool,
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let list = engine.list()?;
    let shown = list.iter().filter(|(_, state)| args.all || state.phase == Phase::Running);
    if args.quiet {
        for (container, _) in shown {
            print(format_args!("{}\n", if args.no_trunc { &container.id } else { short(&container.id) }));
        }
        return Ok(0);
    }
    let now = SystemTime::now();
    let rows: Vec<Vec<String>> = shown.map(|(container, state)| row(container, state, now, args.no_trunc)).collect();
    print(table(&["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"], &rows));
    Ok(0)
}

fn row(container: &Container, state: &State, now: SystemTime, whole: bool) -> Vec<String> {
    let mut command: String = container.args.join(" ").replace(|one: char| one.is_control(), " ");
    if !whole && command.chars().count() > 20 {
        command = command.chars().take(19).chain(['…']).collect();
    }
    let image = match &container.config.source {
        Source::Image(name) => name.clone(),
        Source::Directory(path) => path.display().to_string(),
    };
    let created = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(container.created);
    vec![
        if whole { container.id.clone() } else { short(&container.id).to_owned() },
        image,
        format!("\"{command}\""),
        format!("{} ago", age(now.duration_since(created).unwrap_or_default())),
        status(state, now),
        String::new(),
        container.name.clone(),
    ]
}
