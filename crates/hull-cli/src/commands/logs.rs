//! `hull logs`.

use std::io::{BufWriter, Write as _};

use hull_engine::Engine;
use hull_engine::logs::{self, Options};

use super::{Done, moment};

/// Show the output of a container
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull logs web\n  hull logs -f --tail 20 web\n  hull logs --since 10m --until 2026-11-21T19:05:00Z -t web"
)]
pub(super) struct Args {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines; 'all' for all
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value = "all",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    tail: String,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Show what the options of the log driver added
    #[arg(long)]
    details: bool,
    /// Not before a time, or a duration such as 10m ago
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Not after a time, or a duration such as 10m ago
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Name, ID or unique beginning of an ID
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let tail = match args.tail.as_str() {
        "all" => None,
        // Docker takes anything negative as all.
        text => match text.parse::<i64>() {
            Ok(number) => usize::try_from(number).ok(),
            // And what is no number.
            Err(_) => None,
        },
    };
    let since = moment("since", args.since.as_deref())?;
    let until = moment("until", args.until.as_deref())?;
    let container = engine.find(&args.container)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut err = std::io::stderr().lock();
    let Args { follow, timestamps, details, .. } = *args;
    let options = Options { follow, tail, timestamps, details, since, until, ..Options::default() };
    logs::show(engine, &container, options, &mut out, &mut err)?;
    let _ = out.flush();
    Ok(0)
}
