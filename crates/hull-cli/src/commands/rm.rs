//! `hull rm`.

use hull_engine::{Engine, Error};

use super::{Done, containers};
use crate::output::print;

/// Remove containers
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull rm web\n  hull rm -f $(hull ps -aq)")]
pub(super) struct Args {
    /// Kill running containers, and do not mind missing ones
    #[arg(short, long)]
    force: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Names, IDs or unique beginnings of IDs
    #[arg(required_unless_present = "force", value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Containers that are killed before the first of them is waited for.
const TOGETHER: usize = 64;

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let names: Vec<String> = if args.force {
        let there = |name: &&String| !matches!(engine.find(name), Err(Error::NoContainer(_)));
        args.containers.iter().filter(there).cloned().collect()
    } else {
        args.containers.clone()
    };
    let mut failed = 0;
    for names in names.chunks(TOGETHER) {
        if args.force && names.len() > 1 {
            names.iter().filter_map(|name| engine.find(name).ok()).for_each(|container| engine.condemn(&container));
        }
        failed |= containers::each(engine, names, |name, container| {
            engine.remove(container, args.force, args.volumes)?;
            print(format_args!("{name}\n"));
            Ok(())
        })?;
    }
    Ok(failed)
}
