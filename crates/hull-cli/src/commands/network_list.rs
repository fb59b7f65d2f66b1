//! `hull network ls|inspect|prune`.

use hull_engine::Engine;
use hull_network::Network;

use super::ask::confirmed;
use super::filter::{self, Filter, Filters};
use super::{Done, Failure, documents};
use crate::output::format::{Listing, Row};
use crate::output::{self, print, units};
use hull_engine::filters::OF_NETWORKS;

const TABLE: &str = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}";
const HEADERS: &[(&str, &str)] = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

/// List networks
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull network ls\n  hull network ls --filter driver=bridge --format '{{.Name}} {{.Internal}}'"
)]
pub(super) struct Ls {
    /// Show only networks that fit: dangling, driver, id, label, name, scope, type
    #[arg(short, long = "filter", value_name = "NAME=VALUE", value_parser = filter::parse)]
    filters: Vec<Filter>,
    /// Print by a template, or 'json', or 'table TEMPLATE'
    #[arg(long, value_name = "TEMPLATE", default_value = "", hide_default_value = true)]
    format: String,
    /// Do not shorten IDs
    #[arg(long)]
    no_trunc: bool,
    /// Only IDs
    #[arg(short, long)]
    quiet: bool,
}

/// Show all that is known about networks, as JSON
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull network inspect bridge\n  hull network inspect --format '{{range .IPAM.Config}}{{.Subnet}}{{end}}' web"
)]
pub(super) struct Inspect {
    /// Print by a template, or 'json'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// More for diagnosis; there is no more
    #[arg(short, long)]
    verbose: bool,
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// Remove networks that no container is on
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull network prune\n  hull network prune -f --filter until=24h")]
pub(super) struct Prune {
    /// Remove only networks that fit: label, label!, until
    #[arg(long = "filter", value_name = "NAME=VALUE", value_parser = filter::parse)]
    filters: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Seconds since 1970.
fn created(network: &Network) -> i64 {
    i64::try_from(network.created / 1_000_000_000).unwrap_or(i64::MAX)
}

/// `2026-11-21 14:30:42.123456789 +0000 UTC`, as Go prints a time: zeroes at the end are left out.
fn created_at(network: &Network) -> String {
    let text = units::timestamp(created(network));
    let digits = format!("{:09}", network.created % 1_000_000_000);
    let digits = digits.trim_end_matches('0');
    let Some(position) = text.find(" +").filter(|_| !digits.is_empty()) else { return text };
    format!("{}.{digits}{}", &text[..position], &text[position..])
}

fn row(network: &Network, whole: bool) -> Row {
    let id = if whole { network.id.as_str() } else { network.id.get(..12).unwrap_or(&network.id) };
    Row::new("network.networkContext")
        .with("ID", id)
        .with("Name", &network.name)
        .with("Driver", network.driver.as_str())
        .with("Scope", "local")
        .with("IPv4", network.ipv4.to_string())
        .with("IPv6", network.ipv6.to_string())
        .with("Internal", network.internal.to_string())
        .with("CreatedAt", created_at(network))
        .with_labels(network.labels.clone())
}

pub(super) fn list(engine: &Engine, args: &Ls) -> Done {
    let filters = filter::all(&args.filters, &OF_NETWORKS)?;
    let mut shown = Vec::new();
    for network in engine.networks().list()? {
        if filters.network(engine, &network)? {
            shown.push(network);
        }
    }
    let wanted = super::config::format(&args.format, "networks-format");
    let format = if args.quiet { "{{.ID}}" } else { &wanted };
    let listing = Listing {
        format,
        table: TABLE,
        raw: Some("network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n"),
        headers: HEADERS,
    };
    let rows: Vec<Row> = shown.iter().map(|network| row(network, args.no_trunc)).collect();
    print(listing.render(rows).map_err(Failure::new)?);
    Ok(0)
}

pub(super) fn inspect(engine: &Engine, args: &Inspect) -> Done {
    let networks = engine.networks();
    documents::show(args.format.as_deref(), &args.networks, |name| {
        Ok(hull_engine::inspect::networks::document(&networks, &networks.find(name)?)?)
    })
}

pub(super) fn prune(engine: &Engine, args: &Prune) -> Done {
    let filters = filter::all(&args.filters, &["label", "label!", "until"])?;
    let until = filter::until(&filters)?;
    let warning = "WARNING! This will remove all custom networks not used by at least one container.";
    if !args.force && !confirmed(warning) {
        return Ok(0);
    }
    remove_unused(engine, &filters, until)?;
    Ok(0)
}

/// Removes the networks that no container has.
pub(super) fn remove_unused(engine: &Engine, filters: &Filters, until: Option<i64>) -> Result<(), Failure> {
    // A container that has ended wants its networks when it is started again.
    let wanted: Vec<String> = engine
        .list()?
        .into_iter()
        .flat_map(|(container, _)| container.config.networks)
        .map(|network| network.name)
        .collect();
    let keep = |network: &Network| {
        wanted.iter().any(|name| *name == network.name || network.id.starts_with(name.as_str()))
            || until.is_some_and(|until| created(network) >= until)
            || !filters.labels(&network.labels)
    };
    let mut said = Vec::new();
    let removed = engine.networks().prune(keep, &mut said);
    tell(&said);
    let removed = removed?;
    if !removed.is_empty() {
        print(format_args!("Deleted Networks:\n{}\n\n", removed.join("\n")));
    }
    Ok(())
}

/// Tells what a network operation did beside what was asked.
pub(super) fn tell(said: &[String]) {
    said.iter().for_each(output::error);
}
