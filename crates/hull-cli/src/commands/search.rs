//! `hull search`.

use hull_registry::Client;
use hull_registry::client::Found;

use super::filter::{self, Filter, Filters};
use super::{Done, Failure};
use crate::output::format::{Listing, Row};
use crate::output::{ellipsis, print};

const TABLE: &str = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
const HEADERS: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];

/// As many characters of a description as Docker shows.
const DESCRIPTION: usize = 45;

/// Search a registry for images
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull search debian\n  hull search --filter is-official=true --filter stars=100 --limit 5 nginx\n  hull search registry.example.com/team"
)]
pub(super) struct Args {
    /// Show only repositories that fit: stars=NUMBER, is-official=BOOL, is-automated=BOOL
    #[arg(short, long = "filter", value_name = "NAME=VALUE", value_parser = filter::parse)]
    filters: Vec<Filter>,
    /// Print by a template, or 'json', or 'table TEMPLATE'
    #[arg(long, value_name = "TEMPLATE", default_value = "", hide_default_value = true)]
    format: String,
    /// Show at most so many
    #[arg(long, value_name = "NUMBER", default_value_t = 25)]
    limit: usize,
    /// Do not shorten descriptions
    #[arg(long)]
    no_trunc: bool,
    /// Words to search for, after the registry if it is not Docker's
    #[arg(value_name = "[REGISTRY/]TERM")]
    term: String,
}

/// The registry and what is searched there.
fn split(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host @ ("docker.io" | "index.docker.io"), rest)) if !host.is_empty() => ("docker.io", rest),
        Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => (host, rest),
        _ => ("docker.io", term.strip_prefix("library/").unwrap_or(term)),
    }
}

fn fits(found: &Found, filters: &Filters) -> Result<bool, Failure> {
    let mut stars = 0;
    for value in filters.values("stars") {
        let parsed: u64 = value
            .parse()
            .map_err(|_| Failure::new(format!("invalid filter 'stars={value}': expected a number of stars")))?;
        stars = stars.max(parsed);
    }
    let official = filters.truth("is-official")?;
    let automated = filters.truth("is-automated")?;
    Ok(found.star_count >= stars
        && official.is_none_or(|wanted| found.is_official == wanted)
        && automated.is_none_or(|wanted| found.is_automated == wanted))
}

pub(super) fn main(args: &Args) -> Done {
    if !(1..=100).contains(&args.limit) {
        return Err(Failure::new(format!("limit {} is outside the range of [1, 100]", args.limit)));
    }
    let filters = filter::all(&args.filters, &["stars", "is-official", "is-automated"])?;
    // A wrong filter is told before anybody is asked.
    fits(&Found::default(), &filters)?;
    let (domain, term) = split(&args.term);
    if term.is_empty() {
        return Err(Failure::new("the term to search for is empty"));
    }
    let client = Client::from_environment();
    let found = client.search(domain, term, args.limit).map_err(|error| Failure::new(error.to_string()))?;
    let mut found: Vec<Found> = found.into_iter().filter(|one| matches!(fits(one, &filters), Ok(true))).collect();
    found.sort_by_key(|one| std::cmp::Reverse(one.star_count));
    let word = |yes: bool| if yes { "[OK]" } else { "" };
    let rows = found.into_iter().map(|one| {
        let description = one.description.replace(['\n', '\r'], " ");
        let description = if args.no_trunc { description } else { ellipsis(&description, DESCRIPTION) };
        // As it is pulled.
        let name = if domain == "docker.io" { one.name } else { format!("{domain}/{}", one.name) };
        Row::new("searchContext")
            .with("Name", name)
            .with("Description", description)
            .with("StarCount", one.star_count.to_string())
            .with("IsOfficial", word(one.is_official))
            .with("IsAutomated", word(one.is_automated))
    });
    let listing = Listing { format: &args.format, table: TABLE, raw: None, headers: HEADERS };
    print(listing.render(rows).map_err(Failure::new)?);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_term_is_searched() {
        assert_eq!(split("debian"), ("docker.io", "debian"));
        assert_eq!(split("library/debian"), ("docker.io", "debian"));
        assert_eq!(split("team/app"), ("docker.io", "team/app"));
        assert_eq!(split("docker.io/team"), ("docker.io", "team"));
        assert_eq!(split("r.example:5000/team/app"), ("r.example:5000", "team/app"));
        assert_eq!(split("localhost/app"), ("localhost", "app"));
    }
}
