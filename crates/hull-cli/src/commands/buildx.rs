//! Words of `docker buildx` about builders: there is one, which is Hull itself.
//!
//! Scripts make a builder before they build. They get the answer that goes on with Hull's own.

use clap::Subcommand;

use super::values::Words;
use super::{Done, Failure};
use crate::output::{print, warning};

/// buildx's words.
#[derive(Debug, Subcommand)]
pub(super) enum Buildx {
    /// Accepted for compatibility: Hull itself is the builder
    #[command(hide = true)]
    Create(Create),
    /// Accepted for compatibility: Hull itself is the builder
    #[command(hide = true)]
    Use(Use),
    /// Accepted for compatibility: nothing runs between builds
    #[command(hide = true)]
    Stop(Stop),
    /// Show the version
    #[command(hide = true)]
    Version,
    /// Not with Hull's own commands: buildx does it against 'hull serve'
    #[command(disable_help_flag = true, hide = true)]
    Bake(Words),
    /// Not under this name: 'hull manifest'
    #[command(disable_help_flag = true, hide = true)]
    Imagetools(Words),
}

/// A builder to be made
#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// Its name
    #[arg(long)]
    name: Option<String>,
    /// Accepted for compatibility
    #[arg(long = "use")]
    uses: bool,
    /// Accepted for compatibility
    #[arg(long)]
    bootstrap: bool,
    /// Accepted for compatibility
    #[arg(long)]
    append: bool,
    /// Accepted for compatibility
    #[arg(long)]
    leave: bool,
    /// Accepted for compatibility
    #[arg(long)]
    driver: Option<String>,
    /// Accepted for compatibility
    #[arg(long)]
    driver_opt: Vec<String>,
    /// Accepted for compatibility
    #[arg(long)]
    node: Option<String>,
    /// Accepted for compatibility
    #[arg(long, alias = "config")]
    buildkitd_config: Option<String>,
    /// Accepted for compatibility
    #[arg(long, alias = "flags", allow_hyphen_values = true)]
    buildkitd_flags: Option<String>,
    /// Accepted for compatibility
    #[arg(long)]
    platform: Vec<String>,
    /// Accepted for compatibility
    endpoint: Option<String>,
}

/// A builder to be used
#[derive(Debug, clap::Args)]
pub(super) struct Use {
    /// Accepted for compatibility
    #[arg(long)]
    default: bool,
    /// Accepted for compatibility
    #[arg(long)]
    global: bool,
    /// Its name
    name: String,
}

/// A builder to be stopped
#[derive(Debug, clap::Args)]
pub(super) struct Stop {
    /// Its name
    name: Option<String>,
}

impl Buildx {
    pub(super) fn main(self) -> Done {
        match self {
            Self::Create(args) => {
                if let Some(endpoint) = args.endpoint.filter(|endpoint| endpoint.contains("://")) {
                    let text =
                        format!("builder at {endpoint:?}: Hull builds on its own machine; use 'ssh MACHINE hull'");
                    return Err(Failure::new(text));
                }
                warning("no builder is made: 'hull build' is one, for every platform");
                print(format_args!("{}\n", args.name.as_deref().unwrap_or("default")));
                Ok(0)
            }
            Self::Use(_) | Self::Stop(_) => Ok(0),
            Self::Version => {
                print(concat!("hull ", env!("CARGO_PKG_VERSION"), "\n"));
                Ok(0)
            }
            Self::Bake(_) => Err(Failure::new(
                "bake is not a command of Hull: use 'docker buildx bake' with DOCKER_HOST at the socket of 'hull serve'",
            )),
            Self::Imagetools(_) => Err(Failure::new(
                "imagetools is not a command of Hull: use 'hull manifest inspect', 'create' and 'push'",
            )),
        }
    }
}
