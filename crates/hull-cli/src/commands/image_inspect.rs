//! `hull image inspect`.

use hull_engine::Engine;

use super::{Done, images, inspect};

/// Show all that is known about images, as JSON
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull image inspect hello\n  hull image inspect -f '{{.Id}} {{.Size}}' hello")]
pub(super) struct Args {
    /// Print by a template, or 'json'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Only images of this platform
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]]", value_parser = hull_oci::image::Platform::parse)]
    platform: Option<hull_oci::image::Platform>,
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    inspect::show(args.format.as_deref(), &args.images, |name| {
        if args.platform.is_some() {
            images::check_platform(&engine.images.find(name)?, name, args.platform.as_ref())?;
        }
        images::document(engine, name)
    })
}
