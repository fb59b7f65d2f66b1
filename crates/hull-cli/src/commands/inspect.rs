//! `hull inspect`: containers, then images.

use hull_engine::{Engine, Error, inspect};
use serde_json::Value;

use super::{Done, Failure, documents, images};

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
    /// What to look for: container, image, network or volume
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

fn network(engine: &Engine, name: &str) -> Result<Value, Failure> {
    let networks = engine.networks();
    Ok(hull_engine::inspect::networks::document(&networks, &networks.find(name)?)?)
}

/// A container, or else an image, a network or a volume of that name.
fn anything(engine: &Engine, name: &str, size: bool) -> Result<Value, Failure> {
    let mut found = match container(engine, name, size) {
        Err(Error::NoContainer(_)) => images::document(engine, name),
        other => return Ok(other?),
    };
    for look in [network, super::volume::document] {
        match found {
            Err(failure) if failure.missing => found = look(engine, name),
            other => return other,
        }
    }
    found.map_err(|_| Failure::new(format!("no such object: {name}")))
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let look = |name: &str| -> Result<Value, Failure> {
        match args.kind.as_deref().unwrap_or_default() {
            "container" => Ok(container(engine, name, args.size)?),
            "image" => images::document(engine, name),
            "volume" => super::volume::document(engine, name),
            "network" => network(engine, name),
            _ => anything(engine, name, args.size),
        }
    };
    const KINDS: [&str; 10] =
        ["config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume"];
    match args.kind.as_deref() {
        None | Some("container" | "image" | "network" | "volume") => {}
        Some(kind) if KINDS.contains(&kind) => {
            return Err(Failure::new(format!("there is nothing of type {kind:?}: Hull has neither Swarm nor plugins")));
        }
        Some("") => {
            return Err(Failure::new(
                "type is empty: must be one of \"container\", \"image\", \"network\", \"volume\"",
            ));
        }
        Some(kind) => {
            let known = KINDS.map(|kind| format!("{kind:?}")).join(", ");
            return Err(Failure::new(format!("unknown type: {kind:?}: must be one of {known}")));
        }
    }
    documents::show(args.format.as_deref(), &args.names, look)
}
