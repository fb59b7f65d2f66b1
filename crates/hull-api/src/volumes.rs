//! `/volumes`.

use std::collections::BTreeMap;
use std::sync::Arc;

use hull_engine::inspect::volume::document;
use hull_engine::volumes::Volume;
use hull_engine::volumes::trash::{Removal, Removed};
use hull_engine::{Error, events};
use serde_json::{Value, json};

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;
use crate::route::Route;
use crate::wire::volume::CreateRequest;

pub(crate) const ROUTES: &[Route] = &[
    Route::new("GET", "/volumes", list),
    Route::new("POST", "/volumes/create", create),
    Route::new("POST", "/volumes/prune", prune),
    Route::new("GET", "/volumes/{name}", inspect),
    Route::new("PUT", "/volumes/{name}", update),
    Route::new("DELETE", "/volumes/{name}", remove),
];

/// Reads a body as any that is sent here. For fuzzing.
pub(crate) fn understand(body: &[u8]) {
    let _ = crate::http::parse::<CreateRequest>(body, "volume.CreateOptions");
}

fn list(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let filters = request.query.filters(&["dangling", "driver", "label", "name"])?;
    let dangling = filters.truth("dangling")?;
    let users = if dangling.is_some() { engine.volume_users()? } else { BTreeMap::new() };
    let fits = |volume: &Volume| {
        filters.volume(volume)
            && api.sees(&volume.labels)
            && dangling.is_none_or(|dangling| users.contains_key(&volume.name) != dangling)
    };
    let volumes: Vec<Value> =
        engine.volumes()?.iter().filter(|volume| fits(volume)).map(|volume| document(engine, volume)).collect();
    Ok(Reply::json(200, &json!({ "Volumes": volumes, "Warnings": null })))
}

fn create(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let wanted: CreateRequest = request.optional_json("volume.CreateOptions")?.unwrap_or_default();
    if wanted.cluster_volume_spec.is_some() {
        return Err(crate::swarm::no_manager());
    }
    let engine = &api.engine;
    let volume = engine.create_volume(&Volume {
        name: wanted.name,
        driver: wanted.driver,
        options: wanted.driver_opts,
        labels: api.labelled(wanted.labels),
        ..Volume::default()
    });
    let volume = volume.map_err(|error| match error {
        Error::Volume(text) if text.contains("plugin") => Refusal::missing(text),
        other => other.into(),
    })?;
    Ok(Reply::json(201, &document(engine, &volume)))
}

fn inspect(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    Ok(Reply::json(200, &document(engine, &api.volume(request.param("name"))?)))
}

/// Only volumes of a swarm can be changed.
fn update(_: &Arc<Api>, _: &mut Request) -> Result<Reply, Refusal> {
    Err(Refusal::new(503, "volume update only valid for cluster volumes, but swarm is unavailable"))
}

fn remove(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let removed =
        api.volume(request.param("name")).and_then(|volume| Ok(engine.remove_volume(&volume.name, Removal::Trash)?));
    match removed {
        Err(Refusal { status: 404, .. }) if request.query.truth("force") => Ok(Reply::empty(204)),
        removed => removed.map(|_| Reply::empty(204)),
    }
}

fn prune(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let filters = request.query.filters(&["all", "label", "label!"])?;
    // Before 1.42 named ones went too.
    let all = filters.truth("all")?.unwrap_or(!request.version.since(42));
    let users = engine.volume_users()?;
    let (mut removed, mut freed) = (Vec::new(), 0);
    for volume in engine.volumes()? {
        let wanted = (all || volume.anonymous)
            && !users.contains_key(&volume.name)
            && filters.labels(&volume.labels)
            && api.sees(&volume.labels);
        if !wanted {
            continue;
        }
        match engine.remove_volume(&volume.name, Removal::Trash) {
            Ok(gone) => {
                removed.push(volume.name);
                if let Removed::Gone(bytes) = gone {
                    freed += bytes;
                }
            }
            // A container has taken it, or another was faster.
            Err(Error::Volume(_) | Error::NoVolume(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let attributes = [("reclaimed".to_owned(), freed.to_string())].into();
    events::emit_of(engine, "volume", "prune", events::Actor { id: String::new(), attributes });
    Ok(Reply::json(200, &json!({ "VolumesDeleted": removed, "SpaceReclaimed": freed })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_may_have_nulls_everywhere() {
        let text = r#"{"Name":null,"Driver":null,"DriverOpts":null,"Labels":null,"ClusterVolumeSpec":null,"More":1}"#;
        let wanted: CreateRequest = serde_json::from_str(text).expect("parses");
        assert!(wanted.name.is_empty() && wanted.cluster_volume_spec.is_none());
        assert!(serde_json::from_str::<CreateRequest>(r#"{"Labels":[]}"#).is_err());
    }
}
