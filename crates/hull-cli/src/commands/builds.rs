//! `hull builder ls|inspect|logs|rm`: what was built.

use std::time::SystemTime;

use clap::Subcommand;
use hull_build::history::{History, Record};
use hull_engine::Engine;

use super::{Done, Failure};
use crate::output::{ellipsis, print, try_print, units};

/// Commands on what was built.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  hull buildx history ls")]
pub(super) enum Past {
    /// List what was built
    Ls(Ls),
    /// Show all that is known about a build, as JSON
    Inspect(One),
    /// Show what the steps of a build printed
    Logs(One),
    /// Forget builds
    Rm(Rm),
}

/// List what was built
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull builder ls")]
pub(super) struct Ls {
    /// Print only IDs
    #[arg(short, long)]
    quiet: bool,
    /// Print whole names
    #[arg(long)]
    no_trunc: bool,
}

/// One build
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull builder inspect\n  hull builder logs 3f2a")]
pub(super) struct One {
    /// The build, or the beginning of its ID [default: the last]
    #[arg(value_name = "BUILD")]
    id: Option<String>,
}

/// Forget builds
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull builder rm 3f2a")]
pub(super) struct Rm {
    /// Forget all
    #[arg(long)]
    all: bool,
    /// The builds, or the beginnings of their IDs
    #[arg(value_name = "BUILD", required_unless_present = "all")]
    ids: Vec<String>,
}

impl Past {
    pub(super) fn main(self, engine: &Engine) -> Done {
        match self {
            Self::Ls(args) => ls(engine, &args),
            Self::Inspect(args) => inspect(engine, &args),
            Self::Logs(args) => logs(engine, &args),
            Self::Rm(args) => rm(engine, &args),
        }
    }
}

fn failed(error: hull_build::Error) -> Failure {
    Failure::new(error.to_string())
}

pub(super) fn ls(engine: &Engine, args: &Ls) -> Done {
    let list = History::new(&engine.images).list().map_err(failed)?;
    if args.quiet {
        list.iter().for_each(|record| print(format_args!("{}\n", record.id)));
        return Ok(0);
    }
    let now = SystemTime::now();
    let mut rows = vec![["BUILD ID", "NAME", "STATUS", "STEPS", "CREATED", "DURATION"].map(str::to_owned)];
    for record in &list {
        let id = if args.no_trunc { record.id.clone() } else { crate::output::short(&record.id).to_owned() };
        let name = hull_oci::spec::one_line(&record.name);
        rows.push([
            id,
            if args.no_trunc { name } else { ellipsis(&name, 40) },
            capitalised(&record.status),
            format!("{} ({} cached)", record.steps, record.cached),
            units::ago(record.started / 1000, now),
            duration(record),
        ]);
    }
    table(&rows);
    Ok(0)
}

fn capitalised(word: &str) -> String {
    let mut characters = word.chars();
    characters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(characters).collect()
}

#[expect(clippy::cast_precision_loss, reason = "for reading")]
fn duration(record: &Record) -> String {
    format!("{:.1}s", (record.finished - record.started).max(0) as f64 / 1000.0)
}

fn table<const N: usize>(rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
        print(format_args!("{}\n", cells.join("   ").trim_end()));
    }
}

pub(super) fn inspect(engine: &Engine, args: &One) -> Done {
    let record = History::new(&engine.images).find(args.id.as_deref()).map_err(failed)?;
    let text = serde_json::to_string_pretty(&[record]).map_err(|error| Failure::new(error.to_string()))?;
    print(format_args!("{text}\n"));
    Ok(0)
}

pub(super) fn logs(engine: &Engine, args: &One) -> Done {
    let history = History::new(&engine.images);
    let record = history.find(args.id.as_deref()).map_err(failed)?;
    let log = history.log(&record).map_err(failed)?;
    try_print(&String::from_utf8_lossy(&log));
    Ok(0)
}

pub(super) fn rm(engine: &Engine, args: &Rm) -> Done {
    let history = History::new(&engine.images);
    let ids: Vec<String> = if args.all {
        history.list().map_err(failed)?.into_iter().map(|record| record.id).collect()
    } else {
        let found = args.ids.iter().map(|id| history.find(Some(id)).map(|record| record.id));
        found.collect::<Result<_, _>>().map_err(failed)?
    };
    history.remove(&ids).map_err(failed)?;
    Ok(0)
}
