//! `hull inspect`: containers, then images.

use hull_engine::{Engine, Error, inspect};
use serde_json::Value;

use super::{Done, Failure, images};
use crate::output::{self, format, print};

/// Show all that is known about containers and images, as JSON
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull inspect web\n  hull inspect -f '{{.State.Status}} {{json .Config.Labels}}' web\n  hull inspect --type image hello"
)]
pub(super) struct Args {
    /// Print by a template, or 'json'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Add the sizes of containers
    #[arg(short, long)]
    size: bool,
    /// What to look for: container, image or volume
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Args {
    /// For `hull container inspect`, which looks at containers only.
    pub(super) fn containers(self) -> Self {
        Self { kind: Some("container".to_owned()), ..self }
    }
}

fn container(engine: &Engine, name: &str, size: bool) -> Result<Value, Error> {
    let container = engine.find(name)?;
    let state = engine.state(&container.id)?;
    let mut document = inspect::document(engine, &container, &state);
    if size && let Some(fields) = document.as_object_mut() {
        let written = images::written(engine, &container);
        let image = engine.images.find(&container.image_id).map(|image| image.size).unwrap_or(0);
        fields.insert("SizeRw".to_owned(), written.into());
        fields.insert("SizeRootFs".to_owned(), (written + image).into());
    }
    Ok(document)
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let look = |name: &str| -> Result<Value, Failure> {
        match args.kind.as_deref().unwrap_or_default() {
            "container" => Ok(container(engine, name, args.size)?),
            "image" => images::document(engine, name),
            "volume" => super::volume::document(engine, name),
            _ => match container(engine, name, args.size) {
                Err(Error::NoContainer(_)) => match images::document(engine, name) {
                    Err(failure) if failure.missing => super::volume::document(engine, name)
                        .map_err(|_| Failure::new(format!("no such object: {name}"))),
                    found => found,
                },
                other => Ok(other?),
            },
        }
    };
    if let Some(kind) = args.kind.as_deref().filter(|kind| !matches!(*kind, "" | "container" | "image" | "volume")) {
        return Err(Failure::new(format!(
            "unknown type: {kind:?}: must be one of \"container\", \"image\", \"volume\""
        )));
    }
    show(args.format.as_deref(), &args.names, look)
}

/// Prints the documents that are found; each missing one is a line on standard error, and makes the command fail.
pub(super) fn show(format: Option<&str>, names: &[String], look: impl Fn(&str) -> Result<Value, Failure>) -> Done {
    let mut list = Vec::new();
    let mut failures = Vec::new();
    for name in names {
        match look(name) {
            Ok(document) => list.push(document),
            Err(failure) => failures.push(failure),
        }
    }
    print(format::documents(format, &list).map_err(Failure::new)?);
    failures.iter().for_each(|failure| output::error(&failure.message));
    Ok(u8::from(!failures.is_empty()))
}
