//! `hull stats`.

use std::collections::BTreeMap;
use std::time::Duration;

use hull_engine::records::Phase;
use hull_engine::stats::Sample;
use hull_engine::{Container, Engine};

use super::{Done, Failure};
use crate::output::format::{Listing, Row};
use crate::output::{self, short, units};

const TABLE: &str =
    "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

const HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Container", "CONTAINER"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Show what containers use
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull stats\n  hull stats --no-stream --format '{{.Name}} {{.MemUsage}}' web")]
pub(super) struct Args {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Print by a template, or 'json', or 'table TEMPLATE'
    #[arg(long, value_name = "TEMPLATE", default_value = "", hide_default_value = true)]
    format: String,
    /// Print once
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten IDs
    #[arg(long)]
    no_trunc: bool,
    /// Names, IDs or unique beginnings of IDs; none is all that run
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// The containers that are shown, each with the word that asked for it.
fn chosen(engine: &Engine, args: &Args) -> Result<Vec<(String, Container)>, Failure> {
    if args.containers.is_empty() {
        let list = engine.list()?.into_iter().filter(|(_, state)| args.all || state.phase == Phase::Running);
        return Ok(list.map(|(container, _)| (container.id.clone(), container)).collect());
    }
    args.containers.iter().map(|name| Ok((name.clone(), engine.find(name)?))).collect()
}

type Samples = BTreeMap<String, Option<Sample>>;

fn samples(engine: &Engine, list: &[(String, Container)]) -> Samples {
    // One that has just ended uses nothing.
    list.iter().map(|(_, one)| (one.id.clone(), engine.sample(one).unwrap_or_default())).collect()
}

fn row(name: &str, container: &Container, whole: bool, before: Option<&Sample>, now: Option<&Sample>) -> Row {
    let none = Sample::default();
    let now = now.unwrap_or(&none);
    let cpu = before.map_or(0.0, |before| now.cpu_percent(before));
    let pair = |(one, other): (u64, u64)| format!("{} / {}", units::size(one), units::size(other));
    let id = if whole { &container.id } else { short(&container.id) };
    Row::new("container.statsContext")
        .with("BlockIO", pair(now.block))
        .with("CPUPerc", format!("{cpu:.2}%"))
        .with("Container", name)
        .with("ID", id)
        .with("MemPerc", format!("{:.2}%", now.memory_percent()))
        .with("MemUsage", format!("{} / {}", units::binary(now.memory), units::binary(now.memory_limit)))
        .with("Name", &container.name)
        .with("NetIO", pair(now.network))
        .with("PIDs", now.pids.to_string())
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let wanted = super::config::format(&args.format, "stats-format");
    let listing = Listing { format: &wanted, table: TABLE, raw: None, headers: HEADERS };
    let mut list = chosen(engine, args)?;
    // A wrong template is told before anybody waits.
    listing.render([]).map_err(Failure::new)?;
    let redraw = !args.no_stream && rustix::termios::isatty(rustix::stdio::stdout());
    let mut before = samples(engine, &list);
    loop {
        if !before.is_empty() || !args.no_stream {
            std::thread::sleep(INTERVAL);
        }
        if args.containers.is_empty() && !args.no_stream {
            list = chosen(engine, args)?;
        }
        let now = samples(engine, &list);
        let rows = list.iter().map(|(name, container)| {
            let of = |samples: &Samples| samples.get(&container.id).cloned().flatten();
            row(name, container, args.no_trunc, of(&before).as_ref(), of(&now).as_ref())
        });
        let text = listing.render(rows).map_err(Failure::new)?;
        let shown = match redraw {
            // To the top; each line is cleared to its end, and what is below the last too.
            true => format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")),
            false => text,
        };
        if !output::try_print(&shown) || args.no_stream {
            return Ok(0);
        }
        before = now;
    }
}
