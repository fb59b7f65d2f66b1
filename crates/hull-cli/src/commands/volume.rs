//! `hull volume`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use hull_engine::volumes::trash::{self, Removal, Removed};
use hull_engine::volumes::{Users, Volume};
use hull_engine::{Engine, Error, flags};
use serde_json::Value;

use super::ask::confirmed;
use super::filter::{self, Filter, Filters};
use super::{Done, Failure, archives, documents};
use crate::output::format::{Listing, Row};
use crate::output::{self, print, units};

const TABLE: &str = "{{.Driver}}\t{{.Name}}";
const TRASH: &str = "{{.Driver}}\t{{.Name}}\t{{.Until}}";
const RAW: &str = "name: {{.Name}}\ndriver: {{.Driver}}\n";

/// Of `system df -v` too.
pub(super) const HEADERS: &[(&str, &str)] = &[
    ("Name", "VOLUME NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Availability", "AVAILABILITY"),
    ("Group", "GROUP"),
    ("Status", "STATUS"),
    ("Until", "KEPT UNTIL"),
];

/// Commands on volumes.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  hull volume create data\n  hull volume ls\n  hull run --rm -v data:/data hello")]
pub(super) enum Commands {
    /// Make a volume
    Create(Box<Create>),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show all that is known about volumes, as JSON
    Inspect(Inspect),
    /// Remove volumes that no container uses; named ones can be restored for 7 days
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Remove volumes that no container uses: the anonymous ones, or all
    Prune(Prune),
    /// Swarm only
    #[command(hide = true)]
    Update(Update),
    /// Write the files of a volume as a tar archive
    Export(Export),
    /// Put the files of a tar archive into a volume, which is made if there is none
    Import(Import),
    /// Copy a volume; content is shared where the file system can
    Clone(Clone),
    /// Give a volume that no container uses another name
    Rename(Rename),
    /// Bring a removed volume back
    Restore(Restore),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull volume create data\n  hull volume create -o type=nfs -o o=addr=10.0.0.1,rw -o device=:/srv data"
)]
pub(super) struct Create {
    /// Driver: only 'local'
    #[arg(short, long, value_name = "NAME", default_value = "local", hide_default_value = true)]
    driver: String,
    /// Set a label
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Option of the driver: type, o, device
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    options: Vec<String>,
    #[command(flatten)]
    cluster: Cluster,
    /// The name, as Docker once took it
    #[arg(long = "name", value_name = "NAME", hide = true, conflicts_with = "name")]
    old_name: Option<String>,
    /// Name [default: 64 random digits]
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
}

/// Docker's flags of volumes that belong to a Swarm.
#[derive(Debug, clap::Args)]
pub(super) struct Cluster {
    /// Swarm only
    #[arg(long, value_name = "WORD", hide = true)]
    availability: Option<String>,
    /// Swarm only
    #[arg(long, value_name = "WORD", hide = true)]
    group: Option<String>,
    /// Swarm only
    #[arg(long, value_name = "SIZE", hide = true)]
    limit_bytes: Option<String>,
    /// Swarm only
    #[arg(long, value_name = "SIZE", hide = true)]
    required_bytes: Option<String>,
    /// Swarm only
    #[arg(long, value_name = "WORD", hide = true)]
    scope: Option<String>,
    /// Swarm only
    #[arg(long, value_name = "KEY=VALUE", hide = true)]
    secret: Vec<String>,
    /// Swarm only
    #[arg(long, value_name = "WORD", hide = true)]
    sharing: Option<String>,
    /// Swarm only
    #[arg(long, value_name = "KEY=VALUE", hide = true)]
    topology_preferred: Vec<String>,
    /// Swarm only
    #[arg(long, value_name = "KEY=VALUE", hide = true)]
    topology_required: Vec<String>,
    /// Swarm only
    #[arg(long = "type", value_name = "WORD", hide = true)]
    kind: Option<String>,
}

impl Cluster {
    fn check(&self) -> Result<(), Failure> {
        let words = [
            &self.availability,
            &self.group,
            &self.limit_bytes,
            &self.required_bytes,
            &self.scope,
            &self.sharing,
            &self.kind,
        ];
        let lists = [&self.secret, &self.topology_preferred, &self.topology_required];
        if words.iter().any(|word| word.is_some()) || lists.iter().any(|list| !list.is_empty()) {
            return Err(Failure::new("cluster volumes belong to Swarm, which is not supported; use -o type=nfs"));
        }
        Ok(())
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Update {
    /// Swarm only
    #[arg(long, value_name = "WORD", hide = true)]
    availability: Option<String>,
    /// Name
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
}

fn update(engine: &Engine, args: &Update) -> Done {
    let Some(name) = &args.name else { return Err(Failure::new("a volume must be named")) };
    document(engine, name)?;
    let flag = args.availability.as_ref().map_or("", |_| "--availability: ");
    Err(Failure::new(format!(
        "{flag}can only update cluster volumes, which belong to Swarm; nothing is to be changed here"
    )))
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull volume ls -f dangling=true\n  hull volume ls --trash")]
pub(super) struct Ls {
    /// Show only volumes that fit: dangling, driver, label, name
    #[arg(short, long = "filter", value_name = "NAME=VALUE", value_parser = filter::parse)]
    filters: Vec<Filter>,
    /// Print by a template, or 'json', or 'table TEMPLATE'
    #[arg(long, value_name = "TEMPLATE", default_value = "", hide_default_value = true)]
    format: String,
    /// Only names
    #[arg(short, long)]
    quiet: bool,
    /// Swarm only: there are none
    #[arg(long, hide = true)]
    cluster: bool,
    /// Show removed volumes that can be restored
    #[arg(long)]
    trash: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull volume inspect -f '{{.Mountpoint}}' data")]
pub(super) struct Inspect {
    /// Print by a template, or 'json'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull volume rm data\n  hull volume rm --now data")]
pub(super) struct Rm {
    /// Do not mind missing ones
    #[arg(short, long)]
    force: bool,
    /// Do not keep them in the trash
    #[arg(long)]
    now: bool,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull volume prune\n  hull volume prune -a --filter label!=keep")]
pub(super) struct Prune {
    /// Also volumes with names; they go to the trash
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Do not keep volumes with names in the trash, and empty it
    #[arg(long)]
    now: bool,
    /// Remove only volumes that fit: all, label, label!
    #[arg(long = "filter", value_name = "NAME=VALUE", value_parser = filter::parse)]
    filters: Vec<Filter>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull volume export -o data.tar data\n  hull volume export data | zstd > data.tar.zst"
)]
pub(super) struct Export {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Volume
    #[arg(value_name = "VOLUME")]
    name: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull volume import data data.tar.zst\n  tar -c . | hull volume import data")]
pub(super) struct Import {
    /// Volume
    #[arg(value_name = "VOLUME")]
    name: String,
    /// Archive, compressed or not; '-' is standard input
    #[arg(value_name = "FILE", default_value = "-", hide_default_value = true)]
    input: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull volume clone data data-before-upgrade")]
pub(super) struct Clone {
    /// Volume
    #[arg(value_name = "VOLUME")]
    name: String,
    /// Name of the copy
    #[arg(value_name = "NEW")]
    new: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull volume rename data old-data")]
pub(super) struct Rename {
    /// Volume
    #[arg(value_name = "VOLUME")]
    name: String,
    /// The new name
    #[arg(value_name = "NEW")]
    new: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull volume restore data\n  hull volume restore data data-of-yesterday")]
pub(super) struct Restore {
    /// Volume as it was called; of several the one that was removed last
    #[arg(value_name = "VOLUME")]
    name: String,
    /// Another name for it
    #[arg(value_name = "NEW")]
    new: Option<String>,
}

impl Commands {
    pub(super) fn main(self, engine: &Engine) -> Done {
        // What has been in the trash for long enough goes whenever volumes are looked at.
        if let Err(error) = engine.empty_trash(false) {
            output::error(error);
        }
        match self {
            Self::Create(args) => create(engine, *args),
            Self::Ls(args) => ls(engine, &args),
            Self::Inspect(args) => documents::show(args.format.as_deref(), &args.names, |name| document(engine, name)),
            Self::Rm(args) => remove(engine, &args),
            Self::Prune(args) => prune(engine, &args),
            Self::Export(args) => export(engine, &args),
            Self::Import(args) => import(engine, &args),
            Self::Clone(args) => named(engine.clone_volume(&args.name, &args.new)),
            Self::Rename(args) => named(engine.rename_volume(&args.name, &args.new)),
            Self::Update(args) => update(engine, &args),
            Self::Restore(args) => named(engine.restore_volume(&args.name, args.new.as_deref())),
        }
    }
}

fn named(volume: Result<Volume, Error>) -> Done {
    print(format_args!("{}\n", volume?.name));
    Ok(0)
}

fn pairs(flag: &str, list: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| flags::pair(text).map_err(|reason| Failure::usage(format!("{flag}: {reason}")));
    list.iter().map(pair).collect()
}

fn create(engine: &Engine, args: Create) -> Done {
    args.cluster.check()?;
    named(engine.create_volume(&Volume {
        name: args.name.or(args.old_name).unwrap_or_default(),
        driver: args.driver,
        options: pairs("--opt", &args.options)?,
        labels: pairs("--label", &args.labels)?,
        ..Volume::default()
    }))
}

/// The columns of one volume.
pub(super) fn row(engine: &Engine, volume: &Volume, users: &Users, sized: bool) -> Row {
    let links = users.get(&volume.name).map_or(0, Vec::len);
    let size = sized.then(|| units::size_long(hull_engine::usage::written(&engine.volume_data(&volume.name))));
    Row::new("volumeContext")
        .with("Name", &volume.name)
        .with("Driver", &volume.driver)
        .with("Scope", "local")
        .with("Mountpoint", engine.volume_data(&volume.name).to_string_lossy())
        .with("Links", if sized { links.to_string() } else { "N/A".to_owned() })
        .with("Size", size.unwrap_or_else(|| "N/A".to_owned()))
        .with("Availability", "N/A")
        .with("Group", "N/A")
        .with("Status", "N/A")
        .with_labels(volume.labels.clone())
}

fn ls(engine: &Engine, args: &Ls) -> Done {
    if args.cluster {
        const TABLE: &str = "{{.Name}}\t{{.Group}}\t{{.Driver}}\t{{.Availability}}\t{{.Status}}";
        let table = if args.quiet { "{{.Name}}" } else { TABLE };
        print(Listing { format: &args.format, table, raw: None, headers: HEADERS }.render([]).map_err(Failure::new)?);
        return Ok(0);
    }
    let filters = filter::all(&args.filters, &["dangling", "driver", "label", "label!", "name"])?;
    let wanted = super::config::format(&args.format, "volumes-format");
    let format = if args.quiet { "{{.Name}}" } else { &wanted };
    let fits = |volume: &Volume| filters.volume(volume);
    let none = Users::new();
    if args.trash {
        let listing = Listing { format, table: TRASH, raw: Some(RAW), headers: HEADERS };
        let trashed = engine.trashed_volumes()?.into_iter().filter(|one| fits(&one.volume)).map(|one| {
            let until = units::timestamp(i64::try_from(one.until).unwrap_or(i64::MAX));
            row(engine, &one.volume, &none, false).with("Until", until)
        });
        print(listing.render(trashed).map_err(Failure::new)?);
        return Ok(0);
    }
    let dangling = filters.truth("dangling")?;
    let users = if dangling.is_some() { engine.volume_users()? } else { none };
    let shown =
        |volume: &Volume| fits(volume) && dangling.is_none_or(|dangling| users.contains_key(&volume.name) != dangling);
    let listing = Listing { format, table: TABLE, raw: Some(RAW), headers: HEADERS };
    let rows = engine.volumes()?.into_iter().filter(shown).map(|volume| row(engine, &volume, &users, false));
    print(listing.render(rows).map_err(Failure::new)?);
    Ok(0)
}

/// A volume, in Docker's shape.
pub(super) fn document(engine: &Engine, name: &str) -> Result<Value, Failure> {
    Ok(hull_engine::inspect::volume::document(engine, &engine.volume(name)?))
}

fn removal(now: bool) -> Removal {
    if now { Removal::Now } else { Removal::Trash }
}

fn remove(engine: &Engine, args: &Rm) -> Done {
    let mut failed = false;
    for name in &args.names {
        match engine.remove_volume(name, removal(args.now)) {
            Ok(_) => print(format_args!("{name}\n")),
            Err(Error::NoVolume(_)) if args.force => print(format_args!("{name}\n")),
            Err(error) => {
                output::error(error);
                failed = true;
            }
        }
    }
    Ok(u8::from(failed))
}

/// Removes volumes that no container uses. Returns the bytes that are free and whether something failed.
pub(super) fn remove_unused(engine: &Engine, all: bool, now: bool, filters: &Filters) -> Result<(u64, bool), Failure> {
    let users = engine.volume_users()?;
    let (mut freed, mut failed, mut trashed, mut lines) = (0, false, 0, String::new());
    for volume in engine.volumes()? {
        let wanted = (all || volume.anonymous) && !users.contains_key(&volume.name) && filters.labels(&volume.labels);
        if !wanted {
            continue;
        }
        match engine.remove_volume(&volume.name, removal(now)) {
            Ok(removed) => {
                lines.push_str(&format!("{}\n", volume.name));
                match removed {
                    Removed::Gone(bytes) => freed += bytes,
                    Removed::Trashed => trashed += 1,
                }
            }
            // A container has taken it, or another command was faster.
            Err(Error::Volume(_) | Error::NoVolume(_)) => {}
            Err(error) => {
                output::error(error);
                failed = true;
            }
        }
    }
    if now && all {
        freed += engine.empty_trash(true)?;
    }
    if !lines.is_empty() {
        print(format_args!("Deleted Volumes:\n{lines}\n"));
    }
    if trashed > 0 {
        let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + trash::kept();
        let until = units::timestamp(i64::try_from(until.as_secs()).unwrap_or(i64::MAX));
        output::warning(format_args!("{trashed} with names are kept until {until}: see 'hull volume ls --trash'"));
    }
    Ok((freed, failed))
}

fn prune(engine: &Engine, args: &Prune) -> Done {
    let filters = filter::all(&args.filters, &["all", "label", "label!"])?;
    let all = args.all || filters.truth("all")? == Some(true);
    let warning = if all {
        "WARNING! This will remove all local volumes not used by at least one container."
    } else {
        "WARNING! This will remove anonymous local volumes not used by at least one container."
    };
    if !args.force && !confirmed(warning) {
        return Ok(0);
    }
    let (freed, failed) = remove_unused(engine, all, args.now, &filters)?;
    print(format_args!("Total reclaimed space: {}\n", units::size_long(freed)));
    Ok(u8::from(failed))
}

fn export(engine: &Engine, args: &Export) -> Done {
    if let Some(path) = &args.output {
        archives::write_file(path, |file| {
            super::commit::warn(&engine.export_volume(&args.name, file)?);
            Ok(())
        })?;
        return Ok(0);
    }
    super::commit::warn(&archives::to_stdout("the -o flag", |output| Ok(engine.export_volume(&args.name, output)?))?);
    Ok(0)
}

fn import(engine: &Engine, args: &Import) -> Done {
    if args.input.as_os_str() == "-" {
        return named(engine.import_volume(&args.name, std::io::stdin().lock()));
    }
    let input = File::open(&args.input).map_err(Error::io("open", &args.input))?;
    named(engine.import_volume(&args.name, input))
}
