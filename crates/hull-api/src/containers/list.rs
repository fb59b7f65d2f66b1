//! What is known of containers: lists and documents.

use std::sync::Arc;

use hull_engine::filters::{Containers, OF_CONTAINERS};
use hull_engine::inspect::listed::Listed;
use hull_engine::records::State;
use hull_engine::{Container, inspect};

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;

pub(super) fn list(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let filters = request.query.filters(&OF_CONTAINERS)?;
    for name in filters.values("before").chain(filters.values("since")) {
        api.container(name)?;
    }
    let limit =
        request.query.number::<i64>("limit").map_err(|refusal| Refusal { status: 500, ..refusal })?.unwrap_or(-1);
    let list = engine.list_shared()?;
    let wanted = Containers::new(engine, &filters, request.query.truth("all") || limit > 0, &list)?;
    let sized = request.query.truth("size");
    let fits = |(place, (container, state)): &(usize, &(Arc<Container>, State))| {
        api.sees(&container.config.labels) && wanted.fits(*place, container, state)
    };
    let shown = list.iter().enumerate().filter(fits).map(|(_, one)| one);
    let most = usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let listed = Listed::new(engine);
    Ok(Reply::list(shown.take(most).map(|(container, state)| listed.document(container, state, sized))))
}

pub(super) fn inspect(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let container = api.container(request.param("id"))?;
    let state = api.engine.state_seen(&container.id)?;
    if !request.query.truth("size") {
        let text = api.documents.of(&api.engine, &container, &state);
        return Ok(Reply::bytes(200, "application/json", text));
    }
    let mut document = inspect::document(&api.engine, &container, &state);
    let written = api.engine.written(&container.id);
    let image = api.engine.images.find(&container.image_id).ok();
    document["SizeRw"] = written.into();
    let below: u64 = image.map_or(0, |image| image.layers.iter().map(|layer| layer.size).sum());
    document["SizeRootFs"] = written.saturating_add(below).into();
    Ok(Reply::json(200, &document))
}
