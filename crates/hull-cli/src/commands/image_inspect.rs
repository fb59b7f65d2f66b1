//! `hull image inspect`.

use hull_engine::Engine;

use super::{Done, Failure, documents};
use crate::output::print;

/// Show all that is known about images, as JSON
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull image inspect hello\n  hull image inspect -f '{{.Id}} {{.Size}}' hello")]
pub(super) struct Args {
    /// Print by a template, or 'json'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Choose this platform where there are several
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]]", value_parser = hull_oci::image::Platform::parse)]
    platform: Option<hull_oci::image::Platform>,
    /// Print how it was built: the statement of its provenance, as far as it was built here
    #[arg(long, conflicts_with = "format")]
    provenance: bool,
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    if args.provenance {
        for name in &args.images {
            provenance(engine, name)?;
        }
        return Ok(0);
    }
    documents::show(args.format.as_deref(), &args.images, |name| {
        let image = engine.images.find_on(name, args.platform.as_ref())?;
        Ok(hull_engine::inspect::image::document(&image))
    })
}

/// The statement about an image: about its configuration, since it may have no manifest yet.
fn provenance(engine: &Engine, name: &str) -> Result<(), Failure> {
    let image = engine.images.find(name)?;
    let unknown = || {
        let reason = "it is not known how it was built: it was not built here, or with --provenance=false";
        Failure::new(format!("{}: {reason}", hull_oci::spec::one_line(name)))
    };
    let predicate = engine.images.provenance(&image.id)?.ok_or_else(unknown)?;
    let name = image.names.first().map_or_else(|| name.to_owned(), hull_oci::Reference::familiar);
    let statement = hull_image::provenance::statement(&name, &image.id, &predicate);
    let text = serde_json::to_string_pretty(&statement).map_err(|error| Failure::new(error.to_string()))?;
    print(format_args!("{text}\n"));
    Ok(())
}
