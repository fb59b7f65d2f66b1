//! `hull images`, and what other commands say about images.

use std::collections::BTreeSet;
use std::time::SystemTime;

use hull_engine::filters::OF_IMAGES;
use hull_engine::{Container, Engine};
use hull_image::Image;
use hull_oci::Reference;
use serde_json::Value;

use super::filter::{self, Filter};
use super::{Done, Failure};
use crate::output::format::{Listing, Row};
use crate::output::{print, units};

const NONE: &str = "<none>";
const TABLE: &str =
    "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}";
const TABLE_DIGESTS: &str = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t\
                             {{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}";
const RAW: &str = "repository: {{.Repository}}\n{{if .Tag}}tag: {{.Tag}}\n{{end}}image_id: {{.ID}}\n\
                   created_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n";

pub(super) const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// List images
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull images\n  hull images -q --filter dangling=true\n  hull images --format '{{.Repository}}:{{.Tag}} {{.Size}}' 'debian:*'"
)]
pub(super) struct Args {
    /// Show all images; Hull keeps no intermediate ones
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Show only images that fit: before, dangling, label, reference, since, until
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
    /// Show each image once, with its platform and manifest
    #[arg(long, conflicts_with_all = ["quiet", "no_trunc", "digests", "format"])]
    tree: bool,
    /// Only images of this name; '*' and '?' stand for other characters
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

/// The ID as containers have it in their records.
pub(super) fn id_of(image: &Image) -> String {
    image.id.to_string()
}

/// Bytes that a container has written.
pub(super) fn written(engine: &Engine, container: &Container) -> u64 {
    hull_engine::usage::written(&engine.directory(&container.id).join("upper"))
}

/// Repository, tag and digest of each line that an image gets.
fn lines(image: &Image, digests: bool) -> Vec<(String, String, String)> {
    let mut lines = Vec::new();
    let mut repositories = BTreeSet::new();
    let none = || NONE.to_owned();
    let familiar = |repository: &str| {
        let name = repository.parse::<Reference>();
        name.map_or_else(|_| repository.to_owned(), |name| name.familiar_repository())
    };
    for name in &image.names {
        let repository = name.repository();
        let of_it = image.repo_digests.iter().filter(|(of, _)| *of == repository);
        let shown: Vec<String> = of_it.map(|(_, digest)| digest.to_string()).collect();
        let tag = name.tag().unwrap_or(NONE).to_owned();
        if digests && !shown.is_empty() {
            lines.extend(shown.into_iter().map(|digest| (name.familiar_repository(), tag.clone(), digest)));
        } else {
            lines.push((name.familiar_repository(), tag, none()));
        }
        repositories.insert(repository);
    }
    for (repository, digest) in image.repo_digests.iter().filter(|(repository, _)| !repositories.contains(repository)) {
        lines.push((familiar(repository), none(), if digests { digest.to_string() } else { none() }));
    }
    if lines.is_empty() {
        lines.push((none(), none(), none()));
    }
    if !digests {
        lines.dedup();
    }
    lines
}

/// What several listings show of an image.
pub(super) struct Shown<'a> {
    /// The image.
    pub(super) image: &'a Image,
    /// Do not shorten.
    pub(super) whole: bool,
    /// Show digests.
    pub(super) digests: bool,
    /// Bytes shared with other images, bytes of its own, containers; unknown to most listings.
    pub(super) usage: Option<(u64, u64, usize)>,
}

impl Shown<'_> {
    /// A line for each name.
    pub(super) fn rows(&self, now: SystemTime) -> Vec<Row> {
        let image = self.image;
        let unknown = || "N/A".to_owned();
        let (shared, unique, containers) = match self.usage {
            None => (unknown(), unknown(), unknown()),
            Some((shared, unique, containers)) => {
                (units::size_long(shared), units::size_long(unique), containers.to_string())
            }
        };
        let id = if self.whole { image.id.to_string() } else { image.id.short().to_owned() };
        let row = |(repository, tag, digest): (String, String, String)| {
            Row::new("imageContext")
                .with("ID", &id)
                .with("Repository", repository)
                .with("Tag", tag)
                .with("Digest", digest)
                .with("CreatedSince", units::ago(image.created, now))
                .with("CreatedAt", units::timestamp(image.created))
                .with("Size", units::size(image.size))
                .with("VirtualSize", units::size_long(image.size))
                .with("Containers", &containers)
                .with("SharedSize", &shared)
                .with("UniqueSize", &unique)
        };
        lines(image, self.digests).into_iter().map(row).collect()
    }
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let now = SystemTime::now();
    let filters = filter::all(&args.filters, &OF_IMAGES)?;
    let images = filters.images(engine, args.reference.as_deref())?;
    if args.tree {
        print(tree(engine, &images)?);
        return Ok(0);
    }
    let wanted = super::config::format(&args.format, "images-format");
    let format = if args.quiet { "{{.ID}}" } else { &wanted };
    let table = if args.digests { TABLE_DIGESTS } else { TABLE };
    let listing = Listing { format, table, raw: Some(RAW), headers: HEADERS };
    let digests = args.digests || format.contains("{{.Digest}}");
    let counted = listing.mentions(".Containers");
    let mut users: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    if counted {
        for (container, _) in engine.list()? {
            *users.entry(container.image_id).or_default() += 1;
        }
    }
    let rows = images.iter().flat_map(|image| {
        let rows = Shown { image, whole: args.no_trunc, digests, usage: None }.rows(now);
        let count = users.get(&id_of(image)).copied().unwrap_or(0).to_string();
        rows.into_iter().map(move |row| if counted { row.replacing("Containers", &count) } else { row })
    });
    print(listing.render(rows).map_err(Failure::new)?);
    Ok(0)
}

/// Each image once: its names, then its platform with the manifest.
fn tree(engine: &Engine, images: &[Image]) -> Result<String, Failure> {
    const HEADERS: &[(&str, &str)] =
        &[("A", "IMAGE"), ("B", "ID"), ("C", "DISK USAGE"), ("D", "CONTENT SIZE"), ("E", "IN USE")];
    let used: BTreeSet<String> = engine.list()?.into_iter().map(|(container, _)| container.image_id).collect();
    let row = |name: &str, id: &str, disk: &str, content: &str, used: &str| {
        Row::new("treeContext").with("A", name).with("B", id).with("C", disk).with("D", content).with("E", used)
    };
    let mut rows = Vec::new();
    for image in images {
        let mut names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        let last = names.pop().unwrap_or_else(|| "<untagged>".to_owned());
        rows.extend(names.iter().map(|name| row(name, "", "", "", "")));
        let mut platforms = match image.names.first() {
            Some(name) => engine.images.find_all(&name.to_string())?,
            None => vec![image.clone()],
        };
        if platforms.is_empty() {
            platforms.push(image.clone());
        }
        let sizes = |image: &Image| {
            let content: u64 = image.layers.iter().filter_map(|layer| layer.blob.as_ref()).map(|(_, size)| size).sum();
            let disk: u64 = image.layers.iter().map(|layer| layer.tar_size).sum();
            (disk + content, content)
        };
        let (disk, content) = platforms.iter().map(sizes).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let is_used = |image: &Image| used.contains(&id_of(image));
        let mark = if platforms.iter().any(is_used) { "yes" } else { "" };
        rows.push(row(&last, image.id.short(), &units::size(disk), &units::size(content), mark));
        for (place, one) in platforms.iter().enumerate() {
            let manifest = one.manifest.as_ref().map_or("", |digest| digest.short());
            let (disk, content) = sizes(one);
            let branch = if place + 1 == platforms.len() { "└─" } else { "├─" };
            let name = format!("{branch} {}", one.config.platform);
            rows.push(row(&name, manifest, &units::size(disk), &units::size(content), ""));
        }
    }
    let table = "{{.A}}\t{{.B}}\t{{.C}}\t{{.D}}\t{{.E}}";
    Listing { format: "", table, raw: None, headers: HEADERS }.render(rows).map_err(Failure::new)
}

/// An image as `inspect` shows it: Docker's document.
pub(super) fn document(engine: &Engine, name: &str) -> Result<Value, Failure> {
    Ok(hull_engine::inspect::image::document(&engine.images.find(name)?))
}
