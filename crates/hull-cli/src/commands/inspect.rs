//! `hull inspect`.

use hull_engine::{Engine, inspect};

use super::{Done, Failure};
use crate::output;

/// Show all that is known about containers, as JSON
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull inspect web\n  hull inspect web | jq '.[0].State.OOMKilled'")]
pub(super) struct Args {
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let mut list = Vec::new();
    let mut failed = false;
    for name in &args.containers {
        let found = engine.find(name).and_then(|container| {
            let state = engine.state(&container.id)?;
            Ok(inspect::document(engine, &container, &state))
        });
        match found {
            Ok(document) => list.push(document),
            Err(error) => {
                output::error(error);
                failed = true;
            }
        }
    }
    let text = serde_json::to_string_pretty(&list).map_err(|error| Failure { message: error.to_string(), code: 1 })?;
    output::print(format_args!("{text}\n"));
    Ok(u8::from(failed))
}
