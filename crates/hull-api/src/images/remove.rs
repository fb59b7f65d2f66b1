//! What takes images away.

use std::sync::Arc;

use hull_engine::filters::Filters;
use hull_engine::records::Phase;
use hull_engine::{Engine, events};
use hull_image::{LabelFilter, PruneFilter, Removed};
use serde_json::{Value, json};

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;

/// Tells of what was removed, and says it in Docker's shape.
fn removed(engine: &Engine, lines: &[Removed]) -> Vec<Value> {
    let line = |line: &Removed| match line {
        Removed::Untagged(name) => {
            events::emit_image(engine, "untag", name, name);
            json!({ "Untagged": name })
        }
        Removed::Deleted(id) => {
            events::emit_image(engine, "delete", id, id);
            json!({ "Deleted": id })
        }
    };
    lines.iter().map(line).collect()
}

pub(super) fn remove(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let running = |owner: &str| {
        let id = owner.strip_prefix("container:").unwrap_or(owner);
        engine.state(id).is_ok_and(|state| state.phase == Phase::Running)
    };
    api.image(request.param("name"))?;
    let (name, force) = (request.param("name"), request.query.truth("force"));
    let lines = match super::platforms(request, "platforms")?.as_slice() {
        [] => engine.images.remove(name, force, &running)?,
        platforms => engine.images.remove_platforms(name, platforms, force, &running)?,
    };
    let lines = removed(engine, &lines);
    // What was pushed here goes with its image.
    tidy(engine, None)?;
    Ok(Reply::json(200, &lines))
}

/// Follows with the registry of this machine what went from the store.
fn tidy(engine: &Engine, grace: Option<std::time::Duration>) -> Result<u64, Refusal> {
    hull_registry_server::tidy(&engine.images, grace).map_err(|error| Refusal::failed(error.to_string()))
}

/// Which images `prune` takes.
pub(crate) fn filter(filters: &Filters) -> Result<PruneFilter, Refusal> {
    let until = filters.until()?.map(|moment| i64::try_from(moment / 1_000_000_000).unwrap_or(i64::MAX));
    Ok(PruneFilter { all: filters.truth("dangling")? == Some(false), until, labels: filters.label_filters() })
}

pub(super) fn prune(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let filters = request.query.filters(&["dangling", "label", "label!", "until"])?;
    let mut filter = filter(&filters)?;
    let own = api.options.labels.iter();
    filter.labels.extend(own.map(|(key, value)| LabelFilter {
        key: key.clone(),
        value: Some(value.clone()),
        negated: false,
    }));
    let pruned = engine.images.prune(&filter)?;
    let deleted = removed(engine, &pruned.deleted);
    let pushed = tidy(engine, Some(hull_registry_server::GRACE))?;
    let reclaimed = pruned.reclaimed + pushed;
    let attributes = [("reclaimed".to_owned(), reclaimed.to_string())].into();
    events::emit_of(engine, "image", "prune", events::Actor { id: String::new(), attributes });
    let deleted = if deleted.is_empty() { Value::Null } else { deleted.into() };
    Ok(Reply::json(200, &json!({ "ImagesDeleted": deleted, "SpaceReclaimed": reclaimed })))
}
