//! `hull logs`.

use std::io::{BufWriter, Write as _};

use hull_engine::Engine;
use hull_engine::logs::{self, Options};

use super::{Done, Failure};

/// Show the output of a detached container
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull logs web\n  hull logs -f --tail 20 web")]
pub(super) struct Args {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines; 'all' for all
    #[arg(short = 'n', long, value_name = "N", default_value = "all", hide_default_value = true)]
    tail: String,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Name, ID or unique beginning of an ID
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let tail = match args.tail.as_str() {
        "all" => None,
        text => {
            Some(text.parse().map_err(|_| Failure::usage(format!("--tail: {text:?} is neither a number nor 'all'")))?)
        }
    };
    let container = engine.find(&args.container)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut err = std::io::stderr().lock();
    let options = Options { follow: args.follow, tail, timestamps: args.timestamps };
    logs::show(engine, &container, options, &mut out, &mut err)?;
    let _ = out.flush();
    Ok(0)
}
