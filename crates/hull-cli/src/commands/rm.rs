//! `hull rm`.

use hull_engine::{Engine, Error};

use super::{Done, containers};
use crate::output::{self, print};

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
    if !args.force {
        return containers::each(engine, &args.containers, |name, container| {
            engine.remove(container, false, args.volumes)?;
            print(format_args!("{name}\n"));
            Ok(())
        });
    }
    let mut failed = false;
    for names in args.containers.chunks(TOGETHER) {
        let mut found = Vec::new();
        for name in names {
            match engine.find(name) {
                Ok(container) => found.push((name, container)),
                Err(Error::NoContainer(_)) => {}
                Err(error) => {
                    output::error(error);
                    failed = true;
                }
            }
        }
        if found.len() > 1 {
            found.iter().for_each(|(_, container)| engine.condemn(container));
        }
        for (name, container) in found {
            match engine.remove(&container, true, args.volumes) {
                Ok(()) => print(format_args!("{name}\n")),
                Err(error) => {
                    output::error(error);
                    failed = true;
                }
            }
        }
    }
    Ok(u8::from(failed))
}
