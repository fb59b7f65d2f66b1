//! `hull ps`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hull_engine::config::{MountConfig, NamespaceChoice, Source};
use hull_engine::inspect::status;
use hull_engine::records::Phase;
use hull_engine::volumes::mounts::clean;
use hull_engine::volumes::volumes_of;
use hull_engine::{Container, Engine, State};

use super::filter::{self, Filter, Filters};
use super::{Done, Failure};
use crate::output::format::{Listing, Row};
use crate::output::{ellipsis, print, short, units};

const TABLE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const RAW: &str = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\n\
                   state:{{- pad .State 1 0}}\nstatus:{{- pad .Status 1 0}}\nnames: {{.Names}}\n\
                   labels:{{- pad .Labels 1 0}}\nports:{{- pad .Ports 1 0}}\n";

pub(super) const HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
    ("HealthStatus", "HEALTH STATUS"),
];

const FILTERS: [&str; 13] = [
    "ancestor", "before", "exited", "expose", "health", "id", "label", "name", "network", "publish", "since", "status",
    "volume",
];

/// List containers
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull ps -a\n  hull rm $(hull ps -aq)\n  hull ps --filter status=exited --format '{{.Names}}: {{.Status}}'"
)]
pub(super) struct Args {
    /// Show all containers, not only running ones
    #[arg(short, long)]
    all: bool,
    /// Show only containers that fit: ancestor, before, exited, id, label, name, network, since, status, volume
    #[arg(short, long = "filter", value_name = "NAME=VALUE", value_parser = filter::parse)]
    filters: Vec<Filter>,
    /// Print by a template, or 'json', or 'table TEMPLATE'
    #[arg(long, value_name = "TEMPLATE", default_value = "", hide_default_value = true)]
    format: String,
    /// Show so many of the newest containers, whatever their state
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = -1, hide_default_value = true, allow_negative_numbers = true)]
    last: i64,
    /// Show the newest container, whatever its state
    #[arg(short, long)]
    latest: bool,
    /// Do not shorten IDs and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only IDs
    #[arg(short, long)]
    quiet: bool,
    /// Show sizes
    #[arg(short, long)]
    size: bool,
}

/// Seconds since 1970.
pub(super) fn created(container: &Container) -> i64 {
    i64::try_from(container.created / 1_000_000_000).unwrap_or(i64::MAX)
}

fn image_name(container: &Container) -> String {
    match &container.config.source {
        Source::Image(name) => name.clone(),
        Source::Directory(path) => path.display().to_string(),
    }
}

fn network(container: &Container) -> String {
    match &container.config.namespaces.network {
        NamespaceChoice::Private => "none".to_owned(),
        NamespaceChoice::Host => "host".to_owned(),
        NamespaceChoice::Container(name) => format!("container:{name}"),
        NamespaceChoice::Path(path) => format!("ns:{path}"),
    }
}

/// Whether a container has a volume of that name, or a mount of that source or at that place.
fn mounts(container: &Container, wanted: &str) -> bool {
    container.config.mounts.iter().any(|mount| match mount {
        MountConfig::Volume { name, target, .. } => name == wanted || clean(target) == wanted,
        MountConfig::Bind { source, target, .. } => source.as_os_str() == wanted || clean(target) == wanted,
        MountConfig::Tmpfs { .. } | MountConfig::Image { .. } => false,
    })
}

/// The containers that are asked for, newest first.
fn select<'a>(
    engine: &Engine,
    args: &Args,
    list: &'a [(Container, State)],
) -> Result<Vec<&'a (Container, State)>, Failure> {
    let filters = Filters::new(&args.filters, &FILTERS)?;
    const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];
    if let Some(bad) = filters.values("health").iter().find(|value| !HEALTH.contains(&value.as_str())) {
        return Err(Failure::new(format!("invalid filter 'health={bad}': expected one of {}", HEALTH.join(", "))));
    }
    const STATES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
    if let Some(bad) = filters.values("status").iter().find(|value| !STATES.contains(&value.as_str())) {
        return Err(Failure::new(format!("invalid filter 'status={bad}': expected one of {}", STATES.join(", "))));
    }
    let mut exited = Vec::new();
    for value in filters.values("exited") {
        exited.push(
            value
                .parse::<i32>()
                .map_err(|_| Failure::new(format!("invalid filter 'exited={value}': expected a number")))?,
        );
    }
    // The order of the list decides, so that containers of one second have an order too.
    let place = |name: &str| -> Result<usize, Failure> {
        let found = engine.find(name)?;
        Ok(list.iter().position(|(container, _)| container.id == found.id).unwrap_or(list.len()))
    };
    let before = filters.values("before").iter().map(|name| place(name)).collect::<Result<Vec<_>, _>>()?;
    let since = filters.values("since").iter().map(|name| place(name)).collect::<Result<Vec<_>, _>>()?;
    let mut ancestors = Vec::new();
    for name in filters.values("ancestor") {
        let id = engine.images.find(name).map(|image| super::images::id_of(&image)).unwrap_or_default();
        ancestors.push((name.as_str(), id));
    }
    let last = if args.latest { 1 } else { args.last };
    let all = args.all || last > 0 || !filters.values("status").is_empty() || !exited.is_empty();
    let fits = |index: usize, (container, state): &(Container, State)| {
        (all || state.phase == Phase::Running)
            && before.iter().all(|place| index > *place)
            && since.iter().all(|place| index < *place)
            && (exited.is_empty() || state.phase == Phase::Exited && exited.contains(&state.exit_code))
            && filters.any("id", |id| container.id.starts_with(id))
            && filters.any("name", |name| filter::matches(name.trim_start_matches('/'), &container.name))
            && filters.any("status", |status| state.phase.as_str() == status)
            && filters.any("network", |name| network(container) == name)
            && filters.any("health", |wanted| wanted == health(engine, container, state))
            && filters.any("volume", |wanted| mounts(container, wanted))
            && filters.values("expose").is_empty()
            && filters.values("publish").is_empty()
            && (ancestors.is_empty()
                || ancestors
                    .iter()
                    .any(|(name, id)| image_name(container) == *name || !id.is_empty() && container.image_id == *id))
            && filters.labels(&container.config.labels)
    };
    let shown = list.iter().enumerate().filter(|(index, one)| fits(*index, one)).map(|(_, one)| one);
    Ok(shown.take(usize::try_from(last).ok().filter(|last| *last > 0).unwrap_or(usize::MAX)).collect())
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let list = engine.list()?;
    let shown = select(engine, args, &list)?;
    let mut table = TABLE.to_owned();
    if args.size {
        table.push_str("\t{{.Size}}");
    }
    let format = if args.quiet { "{{.ID}}" } else { &args.format };
    let listing = Listing { format, table: &table, raw: Some(RAW), headers: HEADERS };
    let sized = args.size || listing.mentions(".Size");
    let now = SystemTime::now();
    let rows: Vec<Row> =
        shown.iter().map(|(container, state)| row(engine, container, state, now, args.no_trunc, sized)).collect();
    print(listing.render(rows).map_err(Failure::new)?);
    Ok(0)
}

/// `starting`, `healthy`, `unhealthy`, or `none` when nobody asks.
fn health(engine: &Engine, container: &Container, state: &State) -> &'static str {
    match engine.health(container).filter(|_| state.phase == Phase::Running) {
        Some(health) => health.status.as_str(),
        None => "none",
    }
}

/// Docker's status, with the health of what runs.
fn full_status(state: &State, health: &str, now: SystemTime) -> String {
    let status = status(state, now);
    match health {
        "none" => status,
        "starting" => format!("{status} (health: starting)"),
        health => format!("{status} ({health})"),
    }
}

/// One container's line; `system df` has the same.
pub(super) fn row(
    engine: &Engine,
    container: &Container,
    state: &State,
    now: SystemTime,
    whole: bool,
    sized: bool,
) -> Row {
    let mut command = line(&container.args);
    if !whole {
        command = ellipsis(&command, 20);
    }
    let command = command.replace('\\', "\\\\").replace('"', "\\\"");
    let mounts = container.config.mounts.iter().filter_map(|mount| {
        let name = match mount {
            MountConfig::Bind { source, .. } => source.to_string_lossy(),
            MountConfig::Volume { name, .. } => name.into(),
            MountConfig::Image { image, .. } => image.into(),
            MountConfig::Tmpfs { .. } => return None,
        };
        Some(if whole { name.into_owned() } else { ellipsis(&name, 15) })
    });
    let mounts: Vec<String> = mounts.collect();
    let health = health(engine, container, state);
    let image = image_name(container);
    let started = UNIX_EPOCH + Duration::from_nanos(container.created);
    let size = if sized { sizes(engine, container) } else { "0B".to_owned() };
    Row::new("ContainerContext")
        .with("ID", if whole { &container.id } else { short(&container.id) })
        .with("Names", &container.name)
        .with("Image", image)
        .with("Command", format!("\"{command}\""))
        .with("CreatedAt", units::timestamp(created(container)))
        .with("RunningFor", format!("{} ago", units::age(now.duration_since(started).unwrap_or_default())))
        .with("Ports", "")
        .with("State", state.phase.as_str())
        .with("Status", full_status(state, health, now))
        .with("HealthStatus", health)
        .with("Size", size)
        .with("Mounts", mounts.join(","))
        .with("LocalVolumes", volumes_of(container).count().to_string())
        .with("Networks", network(container))
        .with("Platform", "")
        .with_labels(container.config.labels.clone())
}

/// Program and arguments as Docker shows them: what has spaces stands in quotes, unless it is the program.
fn line(args: &[String]) -> String {
    let mut words: Vec<String> = args.iter().take(1).cloned().collect();
    let quoted = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    words.extend(args.iter().skip(1).map(quoted));
    words.join(" ")
}

/// `12.3kB (virtual 7.82MB)`: what the container wrote, and that with its image.
fn sizes(engine: &Engine, container: &Container) -> String {
    let written = super::images::written(engine, container);
    let image = engine.images.find(&container.image_id).map(|image| image.size).unwrap_or(0);
    if image == 0 {
        return units::size(written);
    }
    format!("{} (virtual {})", units::size(written), units::size(written + image))
}
