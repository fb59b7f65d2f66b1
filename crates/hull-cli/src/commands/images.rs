//! `hull images`, and what other commands say about images.

use std::collections::BTreeSet;
use std::time::SystemTime;

use hull_engine::{Container, Engine};
use hull_image::Image;
use hull_oci::Reference;
use serde_json::{Value, json};

use super::filter::{self, Filter, Filters};
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

/// Whether a name fits a pattern such as `debian:1*`, by the whole name or without its tag.
fn fits_reference(pattern: &str, name: &Reference) -> bool {
    glob(pattern, &name.familiar()) || glob(pattern, &name.familiar_repository())
}

/// Shell patterns, where `*` and `?` do not go beyond a slash.
fn glob(pattern: &str, text: &str) -> bool {
    fn here(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                let run = text.iter().take_while(|one| **one != '/').count();
                (0..=run).any(|count| here(rest, &text[count..]))
            }
            (['?', rest @ ..], [one, after @ ..]) => *one != '/' && here(rest, after),
            (['[', rest @ ..], [one, after @ ..]) => {
                let Some(end) = rest.iter().position(|one| *one == ']') else { return false };
                let (set, rest) = (&rest[..end], &rest[end + 1..]);
                let (negated, set) = match set {
                    ['^', set @ ..] => (true, set),
                    set => (false, set),
                };
                let range = set.windows(3).any(|range| range[1] == '-' && (range[0]..=range[2]).contains(one));
                (range || set.contains(one)) != negated && here(rest, after)
            }
            (['\\', literal, rest @ ..], [one, after @ ..]) | ([literal, rest @ ..], [one, after @ ..]) => {
                literal == one && here(rest, after)
            }
            _ => false,
        }
    }
    let characters = |text: &str| text.chars().collect::<Vec<_>>();
    here(&characters(pattern), &characters(text))
}

/// The images that are asked for, with the names to show; newest first.
fn select(engine: &Engine, args: &Args, now: SystemTime) -> Result<Vec<Image>, Failure> {
    let filters =
        Filters::new(&args.filters, &["before", "dangling", "label", "label!", "reference", "since", "until"])?;
    let dangling = filters.flag("dangling")?;
    let created = |name: &String| Ok::<_, Failure>(engine.images.find(name)?.created);
    let before = filters.values("before").iter().map(created).collect::<Result<Vec<_>, _>>()?;
    let since = filters.values("since").iter().map(created).collect::<Result<Vec<_>, _>>()?;
    let moment = |text: &String| units::moment(text, now).map_err(Failure::new);
    let until = filters.values("until").iter().map(moment).collect::<Result<Vec<_>, _>>()?;
    let mut patterns: Vec<&str> = filters.values("reference").iter().map(String::as_str).collect();
    patterns.extend(args.reference.as_deref());
    let mut images = engine.images.list()?;
    images.retain_mut(|image| {
        if !patterns.is_empty() {
            // Other names of the image are not shown.
            image.names.retain(|name| patterns.iter().any(|pattern| fits_reference(pattern, name)));
            image.repo_digests.retain(|(repository, digest)| {
                let name = format!("{repository}@{digest}").parse::<Reference>();
                name.is_ok_and(|name| patterns.iter().any(|pattern| fits_reference(pattern, &name)))
            });
            if image.is_dangling() {
                return false;
            }
        }
        dangling.is_none_or(|wanted| image.is_dangling() == wanted)
            && before.iter().all(|created| image.created < *created)
            && since.iter().all(|created| image.created > *created)
            && until.iter().all(|moment| image.created < *moment)
            && filters.labels(&image.config.config.labels)
    });
    Ok(images)
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
    let images = select(engine, args, now)?;
    if args.tree {
        print(tree(engine, &images)?);
        return Ok(0);
    }
    let format = if args.quiet { "{{.ID}}" } else { &args.format };
    let table = if args.digests { TABLE_DIGESTS } else { TABLE };
    let listing = Listing { format, table, raw: Some(RAW), headers: HEADERS };
    let digests = args.digests || format.contains("{{.Digest}}");
    let rows = images.iter().flat_map(|image| Shown { image, whole: args.no_trunc, digests, usage: None }.rows(now));
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
        let content: u64 = image.layers.iter().filter_map(|layer| layer.blob.as_ref()).map(|(_, size)| size).sum();
        let disk: u64 = image.layers.iter().map(|layer| layer.tar_size).sum();
        let (disk, content) = (units::size(disk + content), units::size(content));
        let mark = if used.contains(&id_of(image)) { "yes" } else { "" };
        rows.push(row(&last, image.id.short(), &disk, &content, mark));
        let manifest = image.manifest.as_ref().map_or("", |digest| digest.short());
        rows.push(row(&format!("└─ {}", image.config.platform), manifest, &disk, &content, ""));
    }
    let table = "{{.A}}\t{{.B}}\t{{.C}}\t{{.D}}\t{{.E}}";
    Listing { format: "", table, raw: None, headers: HEADERS }.render(rows).map_err(Failure::new)
}

/// An image as `inspect` shows it: Docker's document.
pub(super) fn document(engine: &Engine, name: &str) -> Result<Value, Failure> {
    let image = engine.images.find(name)?;
    let config = &image.config;
    let mut defaults = json!({
        "User": "", "Env": null, "Cmd": null, "Entrypoint": null, "Volumes": null, "WorkingDir": "", "OnBuild": null,
        "Labels": null,
    });
    if let (Some(fields), Ok(Value::Object(own))) = (defaults.as_object_mut(), serde_json::to_value(&config.config)) {
        fields.extend(own);
    }
    let digests: Vec<String> = image
        .repo_digests
        .iter()
        .map(|(repository, digest)| format!("{repository}@{digest}"))
        .map(|name| name.parse::<Reference>().map_or(name, |name| name.familiar()))
        .collect();
    let layers: Vec<String> = config.rootfs.diff_ids.iter().map(ToString::to_string).collect();
    let kind = image.layers.first().map_or("erofs", |layer| layer.kind.as_str());
    let mut document = json!({
        "Id": image.id.to_string(),
        "RepoTags": image.names.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "RepoDigests": digests,
        "Parent": "",
        "Comment": config.comment.clone().unwrap_or_default(),
        "Created": config.created.clone().unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned()),
        "DockerVersion": "",
        "Author": config.author.clone().unwrap_or_default(),
        "Config": defaults,
        "Architecture": config.platform.architecture,
        "Os": config.platform.os,
        "Size": image.size,
        "GraphDriver": { "Name": kind, "Data": null },
        "RootFS": { "Type": "layers", "Layers": layers },
        "Metadata": { "LastTagTime": units::rfc3339(image.added) },
    });
    if let Some(fields) = document.as_object_mut() {
        if let Some(variant) = &config.platform.variant {
            fields.insert("Variant".to_owned(), variant.as_str().into());
        }
        if let Some(manifest) = &image.manifest {
            fields.insert("Descriptor".to_owned(), json!({ "digest": manifest.to_string() }));
        }
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stop_at_slashes() {
        for (pattern, text, expected) in [
            ("alpine", "alpine", true),
            ("alpine:3.*", "alpine:3.20", true),
            ("alp*", "alpine:latest", true),
            ("*", "localhost:5000/team/app", false),
            ("localhost:5000/*/app", "localhost:5000/team/app", true),
            ("alpin?", "alpine", true),
            ("alpine:[0-3].*", "alpine:3.20", true),
            ("alpine:[^0-3].*", "alpine:3.20", false),
            ("a\\*", "a*", true),
            ("[", "[", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
        let name: Reference = "docker.io/library/alpine:3.20".parse().expect("parses");
        assert!(fits_reference("alpine", &name) && fits_reference("alpine:3.20", &name));
        assert!(!fits_reference("alpine:3.19", &name) && !fits_reference("debian", &name));
    }
}
