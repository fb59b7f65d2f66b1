//! `hull import`.

use std::fs::File;
use std::path::PathBuf;

use hull_engine::{Engine, Error};
use hull_image::{Config, apply_changes};

use super::{Done, Failure};
use crate::output::print;

/// Make an image of a tar archive of a root file system
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull import rootfs.tar.gz mine\n  tar -c -C rootfs . | hull import - mine:v1 -c 'CMD [\"sh\"]' -c 'USER 1000'"
)]
pub(super) struct Args {
    /// Set a default: CMD, ENTRYPOINT, ENV, LABEL, STOPSIGNAL, USER or WORKDIR, as in a Dockerfile
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Archive, plain or gzip; '-' is standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

pub(super) fn main(engine: &Engine, args: Args) -> Done {
    let mut config = Config::default();
    apply_changes(&mut config, &args.changes).map_err(|error| Failure { message: error.to_string(), code: 1 })?;
    let image = if args.file.as_os_str() == "-" {
        engine.images.import(std::io::stdin().lock(), &args.name, config)
    } else {
        let file = File::open(&args.file)
            .map_err(|error| Failure { message: format!("open {}: {error}", args.file.display()), code: 1 })?;
        engine.images.import(file, &args.name, config)
    };
    print(format_args!("{}\n", image.map_err(Error::from)?.id));
    Ok(0)
}
