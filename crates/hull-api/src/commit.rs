//! `POST /commit`: an image of a container.

use std::sync::Arc;

use hull_engine::commit::CommitOptions;
use serde_json::json;

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::images::{self, transfer};
use crate::refusal::Refusal;
use crate::route::Route;

pub(crate) const ROUTES: &[Route] = &[Route::new("POST", "/commit", commit)];

fn commit(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let text = |name: &str| Some(request.query.text(name).to_owned()).filter(|text| !text.is_empty());
    let container = request.query.text("container");
    let container = api.container(container)?;
    let name = images::name_of(request.query.text("repo"), request.query.text("tag"))?;
    let (author, message) = (text("author"), text("comment"));
    let changes = transfer::changes(request);
    // Clients of versions before 1.13 did not say it, and meant yes.
    let pause = request.query.truth_or("pause", true);
    // `null` and nothing are no configuration.
    let config: Option<hull_image::Config> = request.optional_json::<Option<_>>("container.CreateRequest")?.flatten();
    let options = CommitOptions { name, author, message, changes, pause, config: config.map(Box::new) };
    let (image, _) = engine.commit(&container, &options)?;
    Ok(Reply::json(201, &json!({ "Id": image.id.to_string() })))
}
