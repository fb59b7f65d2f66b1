//! `hull ps`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hull_engine::config::{MountConfig, NamespaceChoice};
use hull_engine::filters::{Containers, OF_CONTAINERS};
use hull_engine::inspect::network::{Port, ports};
use hull_engine::inspect::{full_status, health, image_name, phase};
use hull_engine::records::Phase;
use hull_engine::volumes::volumes_of;
use hull_engine::{Container, Engine, State};
use hull_image::Image;

use super::filter::{self, Filter};
use super::{Done, Failure};
use crate::output::format::{self, Listing, Row};
use crate::output::{self, ellipsis, print, short, units};

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

/// List containers
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull ps -a\n  hull rm $(hull ps -aq)\n  hull ps --filter status=exited --format '{{.Names}}: {{.Status}}'"
)]
pub(super) struct Args {
    /// Show all containers, not only running ones
    #[arg(short, long)]
    all: bool,
    /// Show only containers that fit: ancestor, before, exited, expose, health, id, label, name, network, publish, since, status, volume
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

fn network(container: &Container) -> String {
    match &container.config.namespaces.network {
        NamespaceChoice::Private if container.config.networks.is_empty() => "none".to_owned(),
        NamespaceChoice::Private => {
            let mut names: Vec<&str> = container.config.networks.iter().map(|one| one.name.as_str()).collect();
            names.sort_unstable();
            names.join(",")
        }
        NamespaceChoice::Host => "host".to_owned(),
        NamespaceChoice::Container(name) => format!("container:{name}"),
        NamespaceChoice::Path(path) => format!("ns:{path}"),
    }
}

/// Images that containers were made of, each looked up once.
#[derive(Debug, Default)]
pub(super) struct Images(RefCell<HashMap<String, Option<Rc<Image>>>>);

impl Images {
    fn find(&self, engine: &Engine, id: &str) -> Option<Rc<Image>> {
        let mut known = self.0.borrow_mut();
        known.entry(id.to_owned()).or_insert_with(|| engine.images.find(id).ok().map(Rc::new)).clone()
    }
}

/// With those that its image exposes.
fn all_ports(engine: &Engine, images: &Images, container: &Container, state: &State) -> Vec<Port> {
    if state.phase != Phase::Running || container.config.networks.is_empty() {
        return Vec::new();
    }
    let image = images.find(engine, &container.image_id);
    ports(engine, container, state, image.as_ref().map(|image| &image.config.config))
}

/// `443/tcp, 0.0.0.0:8000->80/tcp`: what is published as another number comes last, the others in ranges, as with Docker.
fn shown_ports(ports: &[Port]) -> String {
    type Group = (Option<std::net::IpAddr>, String, u16, u16);
    let at = |host: &std::net::IpAddr| if host.is_ipv6() { format!("[{host}]") } else { host.to_string() };
    let mut sorted: Vec<&Port> = ports.iter().collect();
    sorted.sort_by_key(|port| (port.private, port.public, port.protocol.clone()));
    let show = |(host, protocol, first, last): &Group| {
        let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
        match host {
            None => format!("{range}/{protocol}"),
            Some(host) => format!("{}:{range}->{range}/{protocol}", at(host)),
        }
    };
    let (mut groups, mut result, mut mapped): (Vec<Group>, Vec<String>, Vec<String>) = Default::default();
    for port in sorted {
        if let Some((host, number)) = port.public.filter(|(_, number)| *number != port.private) {
            mapped.push(format!("{}:{number}->{}/{}", at(&host), port.private, port.protocol));
            continue;
        }
        let host = port.public.map(|(host, _)| host);
        match groups.iter_mut().find(|(of, protocol, ..)| *of == host && *protocol == port.protocol) {
            None => groups.push((host, port.protocol.clone(), port.private, port.private)),
            Some((.., last)) if last.checked_add(1) == Some(port.private) => *last = port.private,
            Some(group) => {
                result.push(show(group));
                (group.2, group.3) = (port.private, port.private);
            }
        }
    }
    result.extend(groups.iter().map(show));
    result.extend(mapped);
    result.join(", ")
}

/// The containers that are asked for, newest first.
fn select<'a>(
    engine: &Engine,
    args: &Args,
    list: &'a [(Container, State)],
) -> Result<Vec<&'a (Container, State)>, Failure> {
    let filters = filter::all(&args.filters, &OF_CONTAINERS)?;
    let last = if args.latest { 1 } else { args.last };
    let wanted = Containers::new(engine, &filters, args.all || last > 0, list)?;
    let fits = |(place, (container, state)): &(usize, &(Container, State))| wanted.fits(*place, container, state);
    let shown = list.iter().enumerate().filter(fits).map(|(_, one)| one);
    Ok(shown.take(usize::try_from(last).ok().filter(|last| *last > 0).unwrap_or(usize::MAX)).collect())
}

/// Tries a template on a container without anything, as Docker does before it asks for containers.
fn check(format: &str) -> Result<(), Failure> {
    if matches!(format, "" | "table" | "json" | "raw") {
        return Ok(());
    }
    let blank = HEADERS.iter().filter(|(name, _)| !matches!(*name, "Labels" | "Platform"));
    let row = blank.fold(Row::new("ContainerContext"), |row, (name, _)| row.with(name, ""));
    let row =
        row.with_value("Platform", hull_template::Value::NilPointer).with_labels(std::collections::BTreeMap::new());
    let verb = if hull_template::Template::parse(format).is_err() { "parse" } else { "execute" };
    format::row(format, row).map(drop).map_err(|reason| Failure::new(format!("failed to {verb} template: {reason}")))
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    check(&args.format)?;
    if args.quiet && !matches!(args.format.as_str(), "" | "table" | "json" | "raw") {
        output::warning("WARNING: Ignoring custom format, because both --format and --quiet are set.");
    }
    let list = engine.list()?;
    let shown = select(engine, args, &list)?;
    let mut table = TABLE.to_owned();
    if args.size {
        table.push_str("\t{{.Size}}");
    }
    let wanted = super::config::format(&args.format, "ps-format");
    let format = if args.quiet { "{{.ID}}" } else { &wanted };
    let listing = Listing { format, table: &table, raw: Some(RAW), headers: HEADERS };
    let sized = args.size || listing.mentions(".Size");
    let now = SystemTime::now();
    let images = Images::default();
    let row = |(container, state): &&_| row(engine, &images, container, state, now, args.no_trunc, sized);
    let rows: Vec<Row> = shown.iter().map(row).collect();
    print(listing.render(rows).map_err(Failure::new)?);
    Ok(0)
}

/// One container's line; `system df` has the same.
pub(super) fn row(
    engine: &Engine,
    images: &Images,
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
    let word = phase(engine, container, state);
    let started = UNIX_EPOCH + Duration::from_nanos(container.created);
    let size = if sized { sizes(engine, container) } else { "0B".to_owned() };
    Row::new("ContainerContext")
        .with("ID", if whole { &container.id } else { short(&container.id) })
        .with("Names", &container.name)
        .with("Image", image)
        .with("Command", format!("\"{command}\""))
        .with("CreatedAt", units::timestamp(created(container)))
        .with("RunningFor", format!("{} ago", units::age(now.duration_since(started).unwrap_or_default())))
        .with("Ports", shown_ports(&all_ports(engine, images, container, state)))
        .with("State", word)
        .with("Status", full_status(state, word, health, now))
        .with("HealthStatus", health)
        .with("Size", size)
        .with("Mounts", mounts.join(","))
        .with("LocalVolumes", volumes_of(container).count().to_string())
        .with("Networks", network(container))
        .with_value("Platform", hull_template::Value::NilPointer)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_read_as_docker_s() {
        let port = |private: u16, public: Option<(&str, u16)>, protocol: &str| Port {
            private,
            protocol: protocol.to_owned(),
            public: public.map(|(host, number)| (host.parse().expect("address"), number)),
        };
        let any = "0.0.0.0";
        let list = [
            port(443, None, "tcp"),
            port(80, Some((any, 8000)), "tcp"),
            port(90, Some((any, 90)), "tcp"),
            port(91, Some((any, 91)), "tcp"),
            port(80, Some(("::", 8000)), "tcp"),
            port(53, Some((any, 5353)), "udp"),
        ];
        let shown = shown_ports(&list);
        assert_eq!(
            shown,
            "0.0.0.0:90-91->90-91/tcp, 443/tcp, 0.0.0.0:5353->53/udp, 0.0.0.0:8000->80/tcp, [::]:8000->80/tcp"
        );
    }
}
