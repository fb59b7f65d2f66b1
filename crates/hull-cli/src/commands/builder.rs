//! `hull builder du|prune|cache`: what builds have kept for later ones.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use hull_build::cache::{Cache, PruneFilter, Usage};
use hull_engine::Engine;
use serde_json::{Value, json};

use super::archives::{check_output, write_file};
use super::ask::confirmed;
use super::filter::{self, Filter};
use super::{Done, Failure};
use crate::output::format::{Listing, Row};
use crate::output::{print, units};

const TABLE: &str = "{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsed}}";
const HEADERS: &[(&str, &str)] =
    &[("ID", "ID"), ("Reclaimable", "RECLAIMABLE"), ("Size", "SIZE"), ("LastUsed", "LAST ACCESSED")];

/// Show what the build cache occupies
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull builder du\n  hull builder du --filter type=exec.cachemount")]
pub(super) struct Du {
    /// Show only what fits: id, type
    #[arg(long = "filter", value_name = "NAME=VALUE", value_parser = filter::parse)]
    filters: Vec<Filter>,
    /// Print documents: json
    #[arg(long, value_name = "FORMAT", value_parser = ["json"], hide_possible_values = true)]
    format: Option<String>,
    /// What each entry is
    #[arg(long)]
    verbose: bool,
}

/// Remove what builds have kept
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull builder prune\n  hull builder prune -f --filter until=24h --keep-storage 10GB"
)]
pub(super) struct Prune {
    /// Also remove what images have too
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove only what fits: until or unused-for (a duration), id, type
    #[arg(long = "filter", value_name = "NAME=VALUE", value_parser = filter::parse)]
    filters: Vec<Filter>,
    /// Keep the most recently used up to so much
    #[arg(long, visible_aliases = ["reserved-space", "max-used-space"], value_name = "BYTES")]
    keep_storage: Option<String>,
    /// Print documents: json
    #[arg(long, value_name = "FORMAT", value_parser = ["json"], hide_possible_values = true)]
    format: Option<String>,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    verbose: bool,
}

/// Carry cache directories to other machines
#[derive(Debug, clap::Subcommand)]
#[command(
    after_help = "Examples:\n  hull builder cache export --all -o caches.tar\n  hull builder cache import caches.tar\n\nThese are what RUN --mount=type=cache keeps. Results of steps go by --cache-to and --cache-from of 'hull build'."
)]
pub(super) enum Carry {
    /// Write cache directories as a tar archive
    Export(CarryOut),
    /// Take cache directories of an archive, in place of those of the same names
    Import(CarryIn),
}

/// Write cache directories as a tar archive
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull builder cache export --all -o caches.tar\n  hull builder cache export /root/.cache/pip | zstd > pip.tar.zst\n  hull builder du --filter type=exec.cachemount --verbose      lists them"
)]
pub(super) struct CarryOut {
    /// Directories, by their ID of 'hull builder du' or the id or target of their mount
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All of them
    #[arg(short, long)]
    all: bool,
    /// File that is written, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Take cache directories of an archive, in place of those of the same names
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull builder cache import caches.tar\n  zstd -dc pip.tar.zst | hull builder cache import"
)]
pub(super) struct CarryIn {
    /// Archive, compressed or not, instead of standard input
    #[arg(value_name = "FILE")]
    input: Option<PathBuf>,
}

impl Carry {
    pub(super) fn main(self, engine: &Engine) -> Done {
        let cache = Cache::new(&engine.images);
        let names = match self {
            Self::Export(args) => {
                let export =
                    |output: &mut dyn Write| cache.export_mounts(&args.ids, output).map_err(|one| failed(&one));
                let Some(path) = &args.output else {
                    if std::io::stdout().is_terminal() {
                        return Err(Failure::new("standard output is a terminal: give a file with -o, or redirect"));
                    }
                    let mut output = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
                    export(&mut output)?;
                    output.flush().map_err(|error| Failure::new(format!("write standard output: {error}")))?;
                    return Ok(0);
                };
                check_output(path).map_err(Failure::new)?;
                let mut names = Vec::new();
                write_file(path, |file| {
                    names = export(file)?;
                    Ok(())
                })?;
                names
            }
            Self::Import(args) => {
                let names = match args.input.filter(|path| path.as_os_str() != "-") {
                    Some(path) => {
                        let file = File::open(&path);
                        cache.import_mounts(file.map_err(|error| Failure::new(super::opening(&path, &error)))?)
                    }
                    None if std::io::stdin().is_terminal() => {
                        return Err(Failure::new("standard input is a terminal: give a file, or redirect"));
                    }
                    None => cache.import_mounts(std::io::stdin().lock()),
                };
                names.map_err(|error| failed(&error))?
            }
        };
        names.iter().for_each(|name| print(format_args!("{}\n", hull_oci::spec::one_line(name))));
        Ok(0)
    }
}

fn failed(error: &hull_build::Error) -> Failure {
    Failure::new(hull_oci::spec::one_line(&error.to_string()))
}

fn document(one: &Usage) -> Value {
    json!({
        "ID": one.id,
        "Type": one.kind,
        "Description": one.description,
        "Size": one.size,
        "CreatedAt": units::rfc3339(one.created),
        "LastUsedAt": units::rfc3339(one.used),
        "UsageCount": one.uses,
        "Shared": one.shared,
        "Mutable": one.mutable,
        "InUse": false,
    })
}

/// The entries as Docker shows them, and their sum.
fn table(list: &[Usage], total: u64) -> Result<String, Failure> {
    let now = SystemTime::now();
    let row = |one: &Usage| {
        Row::new("cacheContext")
            .with("ID", if one.mutable { format!("{}*", one.id) } else { one.id.clone() })
            .with("Reclaimable", (!one.shared).to_string())
            .with("Size", units::size_long(one.size))
            .with("LastUsed", units::ago(one.used, now))
    };
    let rows = Listing { format: "", table: TABLE, raw: None, headers: HEADERS }.render(list.iter().map(row));
    Ok(format!("{}Total:\t{}\n", rows.map_err(Failure::new)?, units::size_long(total)))
}

pub(super) fn du(engine: &Engine, args: &Du) -> Done {
    let filters = filter::all(&args.filters, &["id", "type"])?;
    let mut list = Cache::new(&engine.images).usage().map_err(|error| failed(&error))?;
    list.retain(|one| filters.any("id", |id| one.id == id) && filters.any("type", |kind| one.kind == kind));
    if args.format.is_some() {
        list.iter().for_each(|one| print(format_args!("{}\n", document(one))));
        return Ok(0);
    }
    if args.verbose {
        for one in &list {
            print(format_args!(
                "ID:\t\t{}\nCreated at:\t{}\nMutable:\t{}\nShared:\t\t{}\nSize:\t\t{}\nDescription:\t{}\nUsage count:\t{}\nLast used:\t{}\nType:\t\t{}\n\n",
                one.id,
                units::timestamp(one.created),
                one.mutable,
                one.shared,
                units::size_long(one.size),
                hull_oci::spec::one_line(&one.description),
                one.uses,
                units::ago(one.used, SystemTime::now()),
                one.kind,
            ));
        }
    }
    let total = list.iter().filter(|one| !one.shared).map(|one| one.size).sum();
    print(table(if args.verbose { &[] } else { &list }, total)?);
    Ok(0)
}

pub(super) fn prune(engine: &Engine, args: &Prune) -> Done {
    let filters = filter::all(&args.filters, &["id", "type", "until", "unused-for"])?;
    let age = filters.values("until").chain(filters.values("unused-for")).map(|text| {
        let parsed = hull_engine::time::duration(text).map(|nanoseconds| nanoseconds / 1_000_000_000);
        parsed.ok_or_else(|| Failure::new(format!("until: {text:?} is no duration such as 24h")))
    });
    let keep = args.keep_storage.as_deref().map(|text| match text.parse::<hull_image::Budget>() {
        Ok(hull_image::Budget::Bytes(bytes)) => Ok(bytes),
        _ => Err(Failure::new(format!("--keep-storage: {text:?} is no size such as 10GB"))),
    });
    let filter = PruneFilter {
        unused_for: age.collect::<Result<Vec<_>, _>>()?.into_iter().max(),
        kinds: filters.values("type").map(str::to_owned).collect(),
        ids: filters.values("id").map(str::to_owned).collect(),
        keep_shared: !args.all,
        keep: keep.transpose()?,
    };
    let warning = match args.all {
        true => "WARNING! This will remove all build cache.",
        false => "WARNING! This will remove all dangling build cache.",
    };
    if !args.force && !confirmed(warning) {
        return Ok(0);
    }
    let pruned = Cache::new(&engine.images).prune(&filter).map_err(|error| failed(&error))?;
    if args.format.is_some() {
        pruned.removed.iter().for_each(|one| print(format_args!("{}\n", document(one))));
        print(format_args!("{}\n", json!({ "Reclaimed": pruned.reclaimed })));
        return Ok(0);
    }
    print(table(&pruned.removed, pruned.reclaimed)?);
    Ok(0)
}
