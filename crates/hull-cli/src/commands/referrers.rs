//! `hull image referrers`.

use hull_image::registry;
use hull_oci::Reference;
use hull_registry::Client;

use super::{Done, Failure};
use crate::output::format::{Listing, Row};
use crate::output::{print, units};

const TABLE: &str = "{{.Digest}}\t{{.ArtifactType}}\t{{.Size}}";
const HEADERS: &[(&str, &str)] = &[
    ("Digest", "DIGEST"),
    ("ArtifactType", "ARTIFACT TYPE"),
    ("MediaType", "MEDIA TYPE"),
    ("Size", "SIZE"),
    ("Annotations", "ANNOTATIONS"),
];

/// List what refers to an image in its registry: signatures, lists of contents
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull image referrers registry.example.com/team/app:v1\n  hull image referrers --artifact-type application/spdx+json -q registry.example.com/team/app:v1\n\n'hull manifest inspect NAME@DIGEST' shows one of them."
)]
pub(super) struct Args {
    /// Only those of this type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// Print by a template, or 'json', or 'table TEMPLATE'
    #[arg(long, value_name = "TEMPLATE", default_value = "", hide_default_value = true)]
    format: String,
    /// Speak to a registry without encryption, or with a certificate that nobody knows
    #[arg(long)]
    insecure: bool,
    /// Only digests
    #[arg(short, long)]
    quiet: bool,
    /// Image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

pub(super) fn main(args: &Args) -> Done {
    let reference: Reference = args.image.parse().map_err(|error| Failure::new(format!("{error}")))?;
    let client = if args.insecure { Client::insecure() } else { Client::from_environment() };
    let (_, found) = registry::referrers(&client, &reference, args.artifact_type.as_deref())?;
    if args.quiet {
        found.iter().for_each(|one| print(format_args!("{}\n", one.digest)));
        return Ok(0);
    }
    let rows = found.into_iter().map(|one| {
        let annotations: Vec<String> = one.annotations.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Row::new("referrerContext")
            .with("Digest", one.digest.to_string())
            .with("ArtifactType", one.artifact_type.as_deref().unwrap_or_default())
            .with("MediaType", &one.media_type)
            .with("Size", units::size(one.size))
            .with("Annotations", annotations.join(","))
    });
    let listing = Listing { format: &args.format, table: TABLE, raw: None, headers: HEADERS };
    print(listing.render(rows).map_err(Failure::new)?);
    Ok(0)
}
