//! `hull tag` and `hull rmi`.

use hull_engine::records::Phase;
use hull_engine::{Engine, events};
use hull_oci::Reference;
use hull_oci::image::Platform;

use super::{Done, Failure};
use crate::output::{self, print};

/// Give an image another name
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull tag hello registry.example/team/hello:v1")]
pub(super) struct Tag {
    /// Name, ID or unique beginning of an ID
    #[arg(value_name = "IMAGE")]
    source: String,
    /// The new name
    #[arg(value_name = "NAME[:TAG]")]
    target: String,
}

/// Remove names of images, and images without names
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull rmi mine\n  hull rmi -f 4c01db0b339c")]
pub(super) struct Rmi {
    /// Remove though stopped containers use it, or several names have it; do not mind missing images
    #[arg(short, long)]
    force: bool,
    /// Accepted for compatibility: Hull keeps no untagged parents
    #[arg(long)]
    no_prune: bool,
    /// Remove only what the name means on these platforms
    #[arg(long = "platform", value_name = "OS[/ARCH[/VARIANT]],...", value_delimiter = ',', value_parser = Platform::parse)]
    platforms: Vec<Platform>,
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) fn tag(engine: &Engine, args: &Tag) -> Done {
    let image = engine.images.find(&args.source)?;
    let target = args.target.parse::<Reference>().map(Reference::or_latest).map_err(|error| {
        Failure::new(format!("error parsing reference: {:?} is not a valid repository/tag: {error}", args.target))
    })?;
    engine.images.tag(&image.id, &target)?;
    events::emit_image(engine, "tag", &image.id.to_string(), &target.familiar());
    Ok(0)
}

/// A name as the user gives it to an image.
pub(super) fn name(text: &str) -> Result<Reference, Failure> {
    let name: Reference =
        text.parse().map_err(|error: hull_oci::reference::ReferenceError| Failure::new(error.to_string()))?;
    Ok(name.or_latest())
}

/// Whether what keeps an image is a container that runs.
fn is_running(engine: &Engine, owner: &str) -> bool {
    let id = owner.strip_prefix("container:").unwrap_or(owner);
    engine.state(id).is_ok_and(|state| state.phase == Phase::Running)
}

/// Tells of what was removed.
pub(super) fn removed(engine: &Engine, removed: &hull_image::Removed) {
    match removed {
        hull_image::Removed::Untagged(name) => events::emit_image(engine, "untag", name, name),
        hull_image::Removed::Deleted(id) => events::emit_image(engine, "delete", id, id),
    }
}

pub(super) fn remove(engine: &Engine, args: &Rmi) -> Done {
    let mut failed = false;
    for name in &args.images {
        let running = |owner: &str| is_running(engine, owner);
        let result = match args.platforms.as_slice() {
            [] => engine.images.remove(name, args.force, &running),
            platforms => engine.images.remove_platforms(name, platforms, args.force, &running),
        };
        match result {
            Ok(lines) => lines.iter().for_each(|line| {
                print(format_args!("{line}\n"));
                removed(engine, line);
            }),
            Err(error) => {
                let missing = matches!(error, hull_image::Error::NoImage(_));
                output::error(error);
                failed |= !(missing && args.force);
            }
        }
    }
    // What was pushed here goes with its image.
    hull_registry_server::tidy(&engine.images, None).map_err(|error| Failure::new(error.to_string()))?;
    Ok(u8::from(failed))
}
