//! `hull image prune`, `hull container prune` and `hull system prune`.

use std::sync::atomic::{AtomicUsize, Ordering};

use hull_engine::records::Phase;
use hull_engine::{Container, Engine, State};
use hull_image::{PruneFilter, Removed};

use super::ask::confirmed;
use super::filter::{self, Filter, Filters, until};
use super::pace::{self, Amount};
use super::{Done, Failure, images, ps};
use crate::output::{self, print, units};

const FILTERS: [&str; 3] = ["label", "label!", "until"];

/// Remove images that nothing uses
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull image prune\n  hull image prune -a --filter until=24h")]
pub(super) struct Images {
    /// Also remove images with names, if no container uses them
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove only images that fit: dangling, label, label!, until
    #[arg(long = "filter", value_name = "NAME=VALUE", value_parser = filter::parse)]
    filters: Vec<Filter>,
}

/// Remove all stopped containers
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull container prune --filter until=24h")]
pub(super) struct Containers {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove only containers that fit: label, label!, until
    #[arg(long = "filter", value_name = "NAME=VALUE", value_parser = filter::parse)]
    filters: Vec<Filter>,
}

/// Remove stopped containers, networks, images and build results that nothing uses, and downloads that are in no image
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull system prune\n  hull system prune -af")]
pub(super) struct System {
    /// Also remove images with names, if no container uses them
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Also remove anonymous volumes that no container uses; with --all those with names too, to the trash
    #[arg(long)]
    volumes: bool,
    /// Remove only what fits: label, label!, until
    #[arg(long = "filter", value_name = "NAME=VALUE", value_parser = filter::parse)]
    filters: Vec<Filter>,
}

fn image_filter(filters: &Filters, all: bool) -> Result<PruneFilter, Failure> {
    Ok(PruneFilter { all, until: until(filters)?, labels: filters.label_filters() })
}

/// The stopped containers that fit, with the bytes that each has written.
fn stopped(engine: &Engine, filters: &Filters) -> Result<Vec<(Container, u64)>, Failure> {
    let until = until(filters)?;
    let fits = |(container, state): &(Container, State)| {
        state.phase != Phase::Running
            && until.is_none_or(|until| ps::created(container) < until)
            && filters.labels(&container.config.labels)
    };
    let list = engine.list()?.into_iter().filter(fits);
    Ok(list
        .map(|(container, _)| (images::written(engine, &container), container))
        .map(|(size, one)| (one, size))
        .collect())
}

/// Removes containers; returns the bytes that went and whether something failed.
fn remove_containers(engine: &Engine, list: &[(Container, u64)]) -> (u64, bool) {
    let (mut reclaimed, mut failed, mut lines) = (0, false, String::new());
    let done = AtomicUsize::new(0);
    let amount = || Amount::Things(done.load(Ordering::Relaxed), list.len());
    let results = pace::watched(false, "removing containers", amount, || -> Vec<_> {
        let remove = |(container, _): &(Container, u64)| {
            let result = engine.remove(container, false, false);
            done.fetch_add(1, Ordering::Relaxed);
            result
        };
        list.iter().map(remove).collect()
    });
    for ((container, size), result) in list.iter().zip(results) {
        match result {
            Ok(()) => {
                lines.push_str(&format!("{}\n", container.id));
                reclaimed += size;
            }
            Err(error) => {
                output::error(error);
                failed = true;
            }
        }
    }
    if !lines.is_empty() {
        print(format_args!("Deleted Containers:\n{lines}\n"));
    }
    (reclaimed, failed)
}

fn remove_images(engine: &Engine, filter: &PruneFilter) -> Result<u64, Failure> {
    let pruned = pace::watched(false, "removing images", || Amount::Unknown, || engine.images.prune(filter))?;
    if !pruned.deleted.is_empty() {
        let mut text = "Deleted Images:\n".to_owned();
        for line in &pruned.deleted {
            super::names::removed(engine, line);
            text.push_str(&match line {
                Removed::Untagged(name) => format!("untagged: {name}\n"),
                Removed::Deleted(id) => format!("deleted: {id}\n"),
            });
        }
        print(format_args!("{text}\n"));
    }
    let pushed = hull_registry_server::tidy(&engine.images, Some(hull_registry_server::GRACE));
    Ok(pruned.reclaimed + pushed.map_err(|error| Failure::new(error.to_string()))?)
}

/// Removes what builds have kept; with `until` what was not used since.
fn remove_results(engine: &Engine, all: bool, until: Option<i64>) -> Result<u64, Failure> {
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let filter = hull_build::cache::PruneFilter {
        unused_for: until.map(|until| now.saturating_sub(u64::try_from(until).unwrap_or(0))),
        keep_shared: !all,
        ..Default::default()
    };
    let cache = hull_build::cache::Cache::new(&engine.images);
    let pruned = pace::watched(false, "removing build results", || Amount::Unknown, || cache.prune(&filter));
    let pruned = pruned.map_err(|error| Failure::new(hull_oci::spec::one_line(&error.to_string())))?;
    if !pruned.removed.is_empty() {
        let ids: String = pruned.removed.iter().map(|one| format!("{}\n", one.id)).collect();
        print(format_args!("Deleted build cache objects:\n{ids}\n"));
    }
    Ok(pruned.reclaimed)
}

fn total(bytes: u64) {
    print(format_args!("Total reclaimed space: {}\n", units::size_long(bytes)));
}

pub(super) fn images(engine: &Engine, args: &Images) -> Done {
    let filters = filter::all(&args.filters, &["dangling", "label", "label!", "until"])?;
    let all = args.all || filters.truth("dangling")? == Some(false);
    let filter = image_filter(&filters, all)?;
    let warning = if all {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    if !args.force && !confirmed(warning) {
        return Ok(0);
    }
    total(remove_images(engine, &filter)?);
    Ok(0)
}

pub(super) fn containers(engine: &Engine, args: &Containers) -> Done {
    let filters = filter::all(&args.filters, &FILTERS)?;
    if !args.force && !confirmed("WARNING! This will remove all stopped containers.") {
        return Ok(0);
    }
    let (bytes, failed) = remove_containers(engine, &stopped(engine, &filters)?);
    total(bytes);
    Ok(u8::from(failed))
}

pub(super) fn system(engine: &Engine, args: &System) -> Done {
    let filters = filter::all(&args.filters, &FILTERS)?;
    let filter = image_filter(&filters, args.all)?;
    let images =
        if args.all { "all images without at least one container associated to them" } else { "all dangling images" };
    let volumes = match (args.volumes, args.all) {
        (false, _) => "",
        (true, false) => "  - all anonymous volumes not used by at least one container\n",
        (true, true) => "  - all volumes not used by at least one container\n",
    };
    // Results have no labels to filter by.
    let with_results = ["label", "label!"].iter().all(|name| filters.values(name).next().is_none());
    let results = match (with_results, args.all) {
        (false, _) => "",
        (true, false) => "  - unused build cache\n",
        (true, true) => "  - all build cache\n",
    };
    let warning = format!(
        "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one \
         container\n{volumes}  - {images}\n{results}  - all downloads that are in no image\n"
    );
    if !args.force && !confirmed(&warning) {
        return Ok(0);
    }
    // They have neither labels nor a time to filter by. On a full disk the database needs the room that they give back.
    let downloads = if args.filters.is_empty() { engine.images.prune_downloads()? } else { 0 };
    let (mut written, mut failed) = remove_containers(engine, &stopped(engine, &filters)?);
    super::network_list::remove_unused(engine, &filters, until(&filters)?)?;
    if args.volumes {
        if filters.has("until") {
            return Err(Failure::new("the \"until\" filter is not supported with \"--volumes\""));
        }
        let (freed, wrong) = super::volume::remove_unused(engine, args.all, false, &filters)?;
        written += freed;
        failed |= wrong;
    }
    let images = remove_images(engine, &filter)?;
    let results = if with_results { remove_results(engine, args.all, until(&filters)?)? } else { 0 };
    total(written + images + results + downloads);
    Ok(u8::from(failed))
}
