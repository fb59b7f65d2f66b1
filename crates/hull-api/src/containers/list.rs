//! What is known of containers: lists and documents.

use std::sync::Arc;
use std::time::SystemTime;

use hull_engine::filters::{Containers, OF_CONTAINERS};
use hull_engine::inspect;
use hull_engine::inspect::network::{Port, ports};
use hull_engine::records::State;
use hull_engine::{Container, Engine};
use serde_json::{Value, json};

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;

fn port(port: &Port) -> Value {
    let mut document = json!({ "PrivatePort": port.private, "Type": port.protocol });
    if let Some((address, number)) = port.public {
        document["IP"] = address.to_string().into();
        document["PublicPort"] = number.into();
    }
    document
}

/// One container of a list.
pub(crate) fn document(engine: &Engine, container: &Container, state: &State, sized: bool) -> Value {
    let word = inspect::phase(engine, container, state);
    let health = inspect::health(engine, container, state);
    let status = inspect::full_status(state, word, health, SystemTime::now());
    let image = engine.images.find(&container.image_id).ok();
    let ports = ports(engine, container, state, image.as_ref().map(|image| &image.config.config));
    let all = inspect::document(engine, container, state);
    let mut document = json!({
        "Id": container.id,
        "Names": [format!("/{}", container.name)],
        "Image": inspect::image_name(container),
        "ImageID": container.image_id,
        "Command": command(&container.args),
        "Created": container.created / 1_000_000_000,
        "Ports": ports.iter().map(port).collect::<Vec<_>>(),
        "Labels": container.config.labels,
        "State": word,
        "Status": status,
        "HostConfig": { "NetworkMode": all["HostConfig"]["NetworkMode"] },
        "NetworkSettings": { "Networks": all["NetworkSettings"]["Networks"] },
        "Mounts": all["Mounts"],
    });
    if sized {
        let written = engine.written(&container.id);
        document["SizeRw"] = written.into();
        document["SizeRootFs"] = written.saturating_add(image.map_or(0, |image| image_size(&image))).into();
    }
    document
}

fn image_size(image: &hull_image::Image) -> u64 {
    image.layers.iter().map(|layer| layer.size).sum()
}

/// The words as a shell's line, where it matters.
fn command(args: &[String]) -> String {
    let quote = |word: &String| {
        if word.contains([' ', '\t', '\n']) { format!("'{}'", word.replace('\'', "'\\''")) } else { word.clone() }
    };
    args.iter().map(quote).collect::<Vec<_>>().join(" ")
}

pub(super) fn list(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let filters = request.query.filters(&OF_CONTAINERS)?;
    for name in filters.values("before").chain(filters.values("since")) {
        api.container(name)?;
    }
    let limit =
        request.query.number::<i64>("limit").map_err(|refusal| Refusal { status: 500, ..refusal })?.unwrap_or(-1);
    let list = engine.list()?;
    let wanted = Containers::new(engine, &filters, request.query.truth("all") || limit > 0, &list)?;
    let sized = request.query.truth("size");
    let fits = |(place, (container, state)): &(usize, &(Container, State))| {
        api.sees(&container.config.labels) && wanted.fits(*place, container, state)
    };
    let shown = list.iter().enumerate().filter(fits).map(|(_, one)| one);
    let most = usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    Ok(Reply::list(shown.take(most).map(|(container, state)| document(engine, container, state, sized))))
}

pub(super) fn inspect(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let container = api.container(request.param("id"))?;
    let state = api.engine.state(&container.id)?;
    let mut document = inspect::document(&api.engine, &container, &state);
    if request.query.truth("size") {
        let written = api.engine.written(&container.id);
        let image = api.engine.images.find(&container.image_id).ok();
        document["SizeRw"] = written.into();
        document["SizeRootFs"] = written.saturating_add(image.map_or(0, |image| image_size(&image))).into();
    }
    Ok(Reply::json(200, &document))
}
