//! `hull system df` and `hull system check`.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::SystemTime;

use hull_engine::records::Phase;
use hull_engine::volumes::{Users, Volume};
use hull_engine::{Container, Engine, State};
use hull_image::Usage;
use hull_template::Value;

use super::{Done, Failure, images, ps, volume};
use crate::output::format::{self, Listing, Row};
use crate::output::{print, units};

const HEADERS: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];
const IMAGES: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t\
                      {{.UniqueSize}}\t{{.Containers}}";
const CONTAINERS: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t\
                          {{.Status}}\t{{.Names}}";
/// Kinds of results that are layers of the store.
const LAYERS: [&str; 2] = ["regular", "source"];
const RESULTS: &[(&str, &str)] = &[
    ("ID", "CACHE ID"),
    ("CacheType", "CACHE TYPE"),
    ("Size", "SIZE"),
    ("CreatedSince", "CREATED"),
    ("LastUsedSince", "LAST USED"),
    ("UsageCount", "USAGE"),
    ("Shared", "SHARED"),
];
const STORE: &[(&str, &str)] = &[
    ("Layers", "LAYERS"),
    ("Blobs", "BLOBS"),
    ("Containers", "CONTAINERS"),
    ("Database", "DATABASE"),
    ("Running", "RUNNING"),
    ("Downloads", "DOWNLOADS"),
    ("Other", "OTHER"),
    ("Total", "TOTAL"),
];

/// Show what images and containers occupy
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull system df\n  hull system df -v")]
pub(super) struct Df {
    /// Print by a template, or 'json', or 'table TEMPLATE'
    #[arg(long, value_name = "TEMPLATE", default_value = "", hide_default_value = true)]
    format: String,
    /// Show each image and container
    #[arg(short, long)]
    verbose: bool,
}

/// Everything that is measured.
struct Measured {
    store: Usage,
    containers: Vec<(Container, State, u64)>,
    /// With its size, and whether a container has it.
    volumes: Vec<(Volume, u64, bool)>,
    users: Users,
    results: Vec<hull_build::cache::Usage>,
}

fn measure(engine: &Engine) -> Result<Measured, Failure> {
    let sized = |(container, state): (Container, State)| {
        let size = hull_engine::usage::occupied(&engine.directory(&container.id));
        (container, state, size)
    };
    let containers = engine.list()?.into_iter().map(sized).collect();
    let users = engine.volume_users()?;
    let measured = |volume: Volume| {
        let size = hull_engine::usage::written(&engine.volume_data(&volume.name));
        let used = users.contains_key(&volume.name);
        (volume, size, used)
    };
    let volumes = engine.volumes()?.into_iter().map(measured).collect();
    let results = hull_build::cache::Cache::new(&engine.images).usage();
    let results = results.map_err(|error| Failure::new(hull_oci::spec::one_line(&error.to_string())))?;
    Ok(Measured { store: engine.images.usage()?, containers, volumes, users, results })
}

pub(super) fn df(engine: &Engine, args: &Df) -> Done {
    let measured = measure(engine)?;
    print(if args.verbose { verbose(engine, &measured, &args.format)? } else { summary(&measured, &args.format)? });
    Ok(0)
}

/// `300B (0%)`.
fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "0B".to_owned();
    }
    format!("{} ({}%)", units::size_long(part), u128::from(part) * 100 / u128::from(whole))
}

fn summary(measured: &Measured, format: &str) -> Result<String, Failure> {
    let row = |kind: &str, count: usize, active: usize, size: u64, reclaimable: String| {
        Row::new("diskUsageImagesContext")
            .with("Type", kind)
            .with("TotalCount", count.to_string())
            .with("Active", active.to_string())
            .with("Size", units::size_long(size))
            .with("Reclaimable", reclaimable)
    };
    let store = &measured.store;
    // Layers that only results of builds have are no images.
    let built: u64 = measured.results.iter().filter(|one| !one.shared).map(|one| one.size).sum();
    let of_layers = measured.results.iter().filter(|one| !one.shared && LAYERS.contains(&one.kind.as_str()));
    let size = (store.layers + store.blobs).saturating_sub(of_layers.map(|one| one.size).sum());
    let used = store.images.iter().filter(|image| !image.holders.is_empty()).count();
    let running = |(_, state, _): &&(Container, State, u64)| state.phase == Phase::Running;
    let written: u64 = measured.containers.iter().map(|(_, _, size)| size).sum();
    let kept: u64 = measured.containers.iter().filter(running).map(|(_, _, size)| size).sum();
    let active = measured.containers.iter().filter(running).count();
    let data: u64 = measured.volumes.iter().map(|(_, size, _)| size).sum();
    let linked = measured.volumes.iter().filter(|(_, _, used)| *used).count();
    let linked_data: u64 = measured.volumes.iter().filter(|(_, _, used)| *used).map(|(_, size, _)| size).sum();
    let mut rows = vec![
        row("Images", store.images.len(), used, size, share(store.reclaimable.min(size), size)),
        row("Containers", measured.containers.len(), active, written, share(written - kept, written)),
        row("Local Volumes", measured.volumes.len(), linked, data, share(data - linked_data, data)),
        row("Build Cache", measured.results.len(), 0, built, units::size_long(built)),
    ];
    // Docker has no such row; it is there when it says something.
    if store.downloads > 0 {
        rows.push(row("Downloads", store.downloaded, 0, store.downloads, share(store.downloads, store.downloads)));
    }
    let table = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
    Listing { format, table, raw: None, headers: HEADERS }.render(rows).map_err(Failure::new)
}

fn verbose(engine: &Engine, measured: &Measured, format: &str) -> Result<String, Failure> {
    let now = SystemTime::now();
    let whole = !format.is_empty() && format != "table";
    let usage: BTreeMap<_, _> = measured.store.images.iter().map(|usage| (&usage.id, usage)).collect();
    let mut image_rows = Vec::new();
    for image in &engine.images.list()? {
        let Some(usage) = usage.get(&image.id) else { continue };
        let usage = Some((usage.shared, usage.unique, usage.holders.len()));
        image_rows.extend(images::Shown { image, whole, digests: false, usage }.rows(now).into_iter().next());
    }
    let images = ps::Images::default();
    let container_rows = measured.containers.iter().map(|(container, state, size)| {
        ps::row(engine, &images, container, state, now, whole, false).replacing("Size", units::size(*size))
    });
    let container_rows: Vec<Row> = container_rows.collect();
    let volume_rows: Vec<Row> =
        measured.volumes.iter().map(|(volume, ..)| volume::row(engine, volume, &measured.users, true)).collect();
    let result = |one: &hull_build::cache::Usage| {
        Row::new("buildCacheContext")
            .with("ID", if one.mutable { format!("{}*", one.id) } else { one.id.clone() })
            .with("Parent", "")
            .with("CacheType", one.kind.clone())
            .with("Description", hull_oci::spec::one_line(&one.description))
            .with("Size", units::size_long(one.size))
            .with("CreatedAt", units::rfc3339(one.created))
            .with("CreatedSince", units::ago(one.created, now))
            .with("LastUsedAt", units::rfc3339(one.used))
            .with("LastUsedSince", units::ago(one.used, now))
            .with("UsageCount", one.uses.to_string())
            .with("InUse", "false")
            .with("Shared", one.shared.to_string())
    };
    let result_rows: Vec<Row> = measured.results.iter().map(result).collect();
    let built: u64 = measured.results.iter().filter(|one| !one.shared).map(|one| one.size).sum();
    if whole {
        let list = |rows: Vec<Row>| Value::List(rows.into_iter().map(|row| Value::Object(Rc::new(row))).collect());
        let all = Value::map([
            ("Images".to_owned(), list(image_rows)),
            ("Containers".to_owned(), list(container_rows)),
            ("Volumes".to_owned(), list(volume_rows)),
            ("BuildCache".to_owned(), list(result_rows)),
        ]);
        return format::value(format, &all).map_err(Failure::new);
    }
    let table = |table: &str, headers, rows: Vec<Row>| {
        Listing { format: "", table, raw: None, headers }.render(rows).map_err(Failure::new)
    };
    let containers: u64 = measured.containers.iter().map(|(_, _, size)| size).sum();
    let store = &measured.store;
    // Directories, names and what else there is, so that the total is what `du` says of the whole.
    let known = store.total() + containers;
    let total = hull_engine::usage::occupied(engine.root()).max(known);
    let store_row = Row::new("storeContext")
        .with("Layers", units::size_long(store.layers))
        .with("Blobs", units::size_long(store.blobs))
        .with("Containers", units::size_long(containers))
        .with("Database", units::size_long(store.database))
        .with("Running", units::size_long(store.running))
        .with("Downloads", units::size_long(store.downloads))
        .with("Total", units::size_long(total))
        .with("Other", units::size_long(total - known));
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\n\
         Build cache usage: {}\n\n{}\n\
         Store space usage:\n\n{}",
        table(IMAGES, images::HEADERS, image_rows)?,
        table(CONTAINERS, ps::HEADERS, container_rows)?,
        table("{{.Name}}\t{{.Links}}\t{{.Size}}", volume::HEADERS, volume_rows)?,
        units::size_long(built),
        table(
            "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
            RESULTS,
            result_rows
        )?,
        table(
            "{{.Layers}}\t{{.Blobs}}\t{{.Containers}}\t{{.Database}}\t{{.Running}}\t{{.Downloads}}\t{{.Other}}\t\
             {{.Total}}",
            STORE,
            vec![store_row]
        )?,
    ))
}
