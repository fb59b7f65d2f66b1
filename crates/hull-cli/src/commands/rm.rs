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
    /// Remove a link to a container, OTHER/NAME: links are given at 'hull run --link' and go with their container
    #[arg(short, long)]
    link: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Names, IDs or unique beginnings of IDs
    #[arg(required_unless_present = "force", value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Containers that are killed before the first of them is waited for.
const TOGETHER: usize = 64;

/// Removes names under which containers know others.
fn unlink(engine: &Engine, names: &[String]) -> Done {
    let mut failed = false;
    for name in names {
        let removed = match name.trim_start_matches('/').split_once('/') {
            None => {
                Err(Error::Refused(format!("{name}: conflict, cannot remove the default link name of the container")))
            }
            Some((container, link)) => engine.find(container).and_then(|container| engine.unlink(&container, link)),
        };
        match removed {
            Ok(()) => print(format_args!("{name}\n")),
            Err(error) => {
                output::error(error);
                failed = true;
            }
        }
    }
    Ok(u8::from(failed))
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    if args.link {
        return unlink(engine, &args.containers);
    }
    if !args.force {
        let mut gone = Vec::new();
        let code = containers::each(engine, &args.containers, |name, container| {
            gone.extend(engine.remove_name(container, false, args.volumes)?);
            print(format_args!("{name}\n"));
            Ok(())
        })?;
        return Engine::remove_files(gone).map(|()| code).map_err(Into::into);
    }
    let mut failed = false;
    for names in args.containers.chunks(TOGETHER) {
        let mut found = Vec::new();
        for name in names {
            match engine.find(name) {
                Ok(container) => found.push((name, container)),
                // As Docker: told, but no failure.
                Err(error @ Error::NoContainer(_)) => output::error(error),
                Err(error) => {
                    output::error(error);
                    failed = true;
                }
            }
        }
        if found.len() > 1 {
            found.iter().for_each(|(_, container)| engine.condemn(container));
        }
        let mut gone = Vec::new();
        for (name, container) in found {
            match engine.remove_name(&container, true, args.volumes) {
                Ok(one) => {
                    gone.extend(one);
                    print(format_args!("{name}\n"));
                }
                Err(error) => {
                    output::error(error);
                    failed = true;
                }
            }
        }
        if let Err(error) = Engine::remove_files(gone) {
            output::error(error);
            failed = true;
        }
    }
    Ok(u8::from(failed))
}
