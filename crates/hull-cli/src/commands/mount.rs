//! `hull image mount` and `hull image unmount`.

use std::path::PathBuf;

use hull_engine::Engine;

use super::{Done, Failure};
use crate::output::{self, print};

/// Mount an image's files, read-only, and print where; without an image, list what is mounted
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ls $(hull image mount hello)\n  hull image mount hello /mnt\n  hull image mount")]
pub(super) struct Mount {
    /// Image
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
    /// Where; it must exist [default: a directory of the store]
    #[arg(value_name = "DIR")]
    target: Option<PathBuf>,
}

/// Unmount images
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull image unmount hello\n  hull image unmount -a")]
pub(super) struct Unmount {
    /// Unmount all images
    #[arg(short, long)]
    all: bool,
    /// Unmount though the files are in use
    #[arg(short, long)]
    force: bool,
    /// Images, or the directories they are mounted at
    #[arg(required_unless_present = "all", value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) fn mount(engine: &Engine, args: &Mount) -> Done {
    let Some(image) = &args.image else {
        for mount in engine.image_mounts()? {
            print(format_args!("{} {}\n", mount.image.short(), mount.path.display()));
        }
        return Ok(0);
    };
    let path = engine.mount_image(image, args.target.as_deref())?;
    print(format_args!("{}\n", path.display()));
    Ok(0)
}

pub(super) fn unmount(engine: &Engine, args: &Unmount) -> Done {
    if args.all && !args.images.is_empty() {
        return Err(Failure::new("--all takes no images"));
    }
    let names = match args.all {
        true => engine.image_mounts()?.into_iter().map(|mount| mount.image.to_string()).collect(),
        false => args.images.clone(),
    };
    let mut failed = false;
    for name in &names {
        match engine.unmount_image(name, args.force) {
            Ok(id) => print(format_args!("{id}\n")),
            Err(error) => {
                output::error(error);
                failed = true;
            }
        }
    }
    Ok(u8::from(failed))
}
