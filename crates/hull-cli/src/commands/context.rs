//! `hull context`: there is one, this machine; and the words of Docker that Hull has something else for.

use clap::Subcommand;
use hull_engine::Engine;

use super::values::Words;
use super::{Done, Failure};
use crate::output::format::{self, Listing, Row};
use crate::output::{print, warning};

const TABLE: &str = "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}";
const HEADERS: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("DockerEndpoint", "DOCKER ENDPOINT"),
    ("Error", "ERROR"),
    ("Current", ""),
];

/// The only one.
const NAME: &str = "default";

/// Commands on contexts: there is one, this machine.
#[derive(Debug, Subcommand)]
pub(super) enum Context {
    /// List contexts
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show the name of the current context
    #[command(after_help = "Example:\n  hull context show")]
    Show,
    /// Show all that is known about contexts, as JSON
    Inspect(Inspect),
    /// Choose the current context
    #[command(after_help = "Example:\n  hull context use default")]
    Use {
        /// 'default'
        context: String,
    },
    /// Not with Hull: machines are reached by ssh
    #[command(disable_help_flag = true, hide = true)]
    Create(Words),
    /// Not with Hull: machines are reached by ssh
    #[command(disable_help_flag = true, hide = true)]
    Update(Words),
    /// Not with Hull: machines are reached by ssh
    #[command(disable_help_flag = true, hide = true)]
    Import(Words),
    /// Not with Hull: machines are reached by ssh
    #[command(disable_help_flag = true, hide = true)]
    Export(Words),
    /// Remove contexts
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

/// List contexts
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull context ls --format '{{.Name}}'")]
pub(super) struct Ls {
    /// Print by a template, or 'json', or 'table TEMPLATE'
    #[arg(long, value_name = "TEMPLATE", default_value = "", hide_default_value = true)]
    format: String,
    /// Only names
    #[arg(short, long)]
    quiet: bool,
}

/// Show all that is known about contexts, as JSON
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull context inspect -f '{{.Name}}'")]
pub(super) struct Inspect {
    /// Print by a template, or 'json'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Names; none is the current one
    #[arg(value_name = "CONTEXT")]
    contexts: Vec<String>,
}

/// Remove contexts
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull context rm -f old")]
pub(super) struct Rm {
    /// Do not mind missing ones
    #[arg(short, long)]
    force: bool,
    /// Names
    #[arg(required = true, value_name = "CONTEXT")]
    contexts: Vec<String>,
}

fn missing(name: &str) -> Failure {
    Failure::new(format!("context {name:?}: context not found; use 'ssh MACHINE hull ...' for another machine"))
}

/// Whether a global `--context` can be obeyed.
pub(super) fn check(name: &str) -> Result<(), Failure> {
    if name == NAME { Ok(()) } else { Err(missing(name)) }
}

fn list(args: &Ls) -> Done {
    let row = Row::new("formatter.clientContextContext")
        .with("Name", NAME)
        .with("Description", "This machine")
        .with("DockerEndpoint", "")
        .with("Error", "")
        .with_value("Current", hull_template::Value::Bool(true));
    let format = if args.quiet { "{{.Name}}" } else { &args.format };
    print(Listing { format, table: TABLE, raw: None, headers: HEADERS }.render([row]).map_err(Failure::new)?);
    Ok(0)
}

fn inspect(args: &Inspect) -> Done {
    args.contexts.iter().try_for_each(|name| check(name))?;
    let document = serde_json::json!({
        "Name": NAME,
        "Metadata": {},
        "Endpoints": { "docker": { "Host": "", "SkipTLSVerify": false } },
        "TLSMaterial": {},
        "Storage": { "MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>" },
    });
    print(format::documents(args.format.as_deref(), &[document]).map_err(Failure::new)?);
    Ok(0)
}

impl Context {
    pub(super) fn main(self) -> Done {
        match self {
            Self::Ls(args) => list(&args),
            Self::Show => {
                print(format_args!("{NAME}\n"));
                Ok(0)
            }
            Self::Inspect(args) => inspect(&args),
            Self::Use { context } => {
                check(&context)?;
                print(format_args!("{NAME}\n"));
                warning(format_args!("Current context is now {NAME:?}"));
                Ok(0)
            }
            Self::Rm(args) => {
                for name in &args.contexts {
                    if name == NAME {
                        return Err(Failure::new("context \"default\" cannot be removed"));
                    }
                    if !args.force {
                        return Err(Failure::new(format!("context {name:?} does not exist")));
                    }
                }
                Ok(0)
            }
            Self::Create(_) | Self::Update(_) | Self::Import(_) | Self::Export(_) => {
                Err(Failure::new("contexts are not kept: Hull works on its own machine; use 'ssh MACHINE hull ...'"))
            }
        }
    }
}

/// Docker's words that Hull answers with what to use.
#[derive(Debug, Subcommand)]
pub(super) enum Elsewhere {
    /// Docker's Compose, where it is installed, against Hull
    #[command(disable_help_flag = true, hide = true)]
    Compose(Words),
    /// Not with Hull
    #[command(disable_help_flag = true, hide = true)]
    Plugin(Words),
    /// Not with Hull: images are signed as cosign does
    #[command(disable_help_flag = true, hide = true)]
    Trust(Words),
    /// Not with Hull's own commands: 'hull oci checkpoint' does it
    #[command(disable_help_flag = true, hide = true)]
    Checkpoint(Words),
    /// Not with Hull
    #[command(disable_help_flag = true, hide = true)]
    Swarm(Words),
    /// Not with Hull
    #[command(disable_help_flag = true, hide = true)]
    Node(Words),
    /// Not with Hull
    #[command(disable_help_flag = true, hide = true)]
    Service(Words),
    /// Not with Hull
    #[command(disable_help_flag = true, hide = true)]
    Stack(Words),
    /// Not with Hull
    #[command(disable_help_flag = true, hide = true)]
    Secret(Words),
}

impl Elsewhere {
    pub(super) fn main(&self, engine: &Engine) -> Done {
        let text = match self {
            Self::Compose(words) => return super::compose::main(engine, words),
            Self::Plugin(_) => {
                "plugins are not supported: use volumes of type local with -o, and networks of 'hull network'"
            }
            Self::Trust(_) => {
                "content trust is not supported: use 'hull push --sign-key' and 'hull pull --verify-key', as cosign does"
            }
            Self::Checkpoint(_) => "checkpoints of containers are not kept: use 'hull oci checkpoint' on a bundle",
            Self::Secret(_) => {
                "secrets belong to Swarm: use 'hull run --mount type=bind,readonly' or 'hull build --secret'"
            }
            Self::Swarm(_) | Self::Node(_) | Self::Service(_) | Self::Stack(_) => {
                "Swarm is not supported: Hull works on one machine; use Kubernetes with 'hull oci' as its runtime"
            }
        };
        Err(Failure::new(text))
    }
}
