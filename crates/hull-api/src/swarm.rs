//! Swarms and plugins: there are none, and the answers are those of an engine that has none.

use std::sync::Arc;

use serde_json::json;

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;
use crate::route::Route;

const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

pub(crate) const ROUTES: &[Route] = &[
    Route::new("GET", "/swarm", no_swarm),
    Route::new("POST", "/swarm/update", no_swarm),
    Route::new("GET", "/swarm/unlockkey", no_swarm),
    Route::new("POST", "/swarm/unlock", no_swarm),
    Route::new("POST", "/swarm/leave", not_part),
    Route::new("POST", "/swarm/init", never),
    Route::new("POST", "/swarm/join", never),
    Route::new("GET", "/nodes", no_swarm),
    Route::new("GET", "/nodes/{id}", no_swarm),
    Route::new("DELETE", "/nodes/{id}", no_swarm),
    Route::new("POST", "/nodes/{id}/update", no_swarm),
    Route::new("GET", "/services", no_swarm),
    Route::new("POST", "/services/create", no_swarm),
    Route::new("GET", "/services/{id}", no_swarm),
    Route::new("DELETE", "/services/{id}", no_swarm),
    Route::new("POST", "/services/{id}/update", no_swarm),
    Route::new("GET", "/services/{id}/logs", no_swarm),
    Route::new("GET", "/tasks", no_swarm),
    Route::new("GET", "/tasks/{id}", no_swarm),
    Route::new("GET", "/tasks/{id}/logs", no_swarm),
    Route::new("GET", "/secrets", no_swarm),
    Route::new("POST", "/secrets/create", no_swarm),
    Route::new("GET", "/secrets/{id}", no_swarm),
    Route::new("DELETE", "/secrets/{id}", no_swarm),
    Route::new("POST", "/secrets/{id}/update", no_swarm),
    Route::new("GET", "/configs", no_swarm),
    Route::new("POST", "/configs/create", no_swarm),
    Route::new("GET", "/configs/{id}", no_swarm),
    Route::new("DELETE", "/configs/{id}", no_swarm),
    Route::new("POST", "/configs/{id}/update", no_swarm),
    Route::new("GET", "/plugins", plugins),
    Route::new("GET", "/plugins/privileges", no_plugins),
    Route::new("POST", "/plugins/pull", no_plugins),
    Route::new("POST", "/plugins/create", no_plugins),
    Route::new("GET", "/plugins/{name...}/json", no_plugin),
    Route::new("POST", "/plugins/{name...}/enable", no_plugin),
    Route::new("POST", "/plugins/{name...}/disable", no_plugin),
    Route::new("POST", "/plugins/{name...}/upgrade", no_plugin),
    Route::new("POST", "/plugins/{name...}/push", no_plugin),
    Route::new("POST", "/plugins/{name...}/set", no_plugin),
    Route::new("DELETE", "/plugins/{name...}", no_plugin),
];

/// What an engine says that belongs to no swarm.
pub(crate) fn no_manager() -> Refusal {
    Refusal::new(503, NO_SWARM)
}

fn no_swarm(_api: &Arc<Api>, _request: &mut Request) -> Result<Reply, Refusal> {
    Err(no_manager())
}

fn not_part(_api: &Arc<Api>, _request: &mut Request) -> Result<Reply, Refusal> {
    Err(Refusal::new(503, "This node is not part of a swarm"))
}

fn never(_api: &Arc<Api>, _request: &mut Request) -> Result<Reply, Refusal> {
    Err(Refusal::new(501, "hull has no swarm mode"))
}

fn plugins(_api: &Arc<Api>, _request: &mut Request) -> Result<Reply, Refusal> {
    Ok(Reply::json(200, &json!([])))
}

fn no_plugins(_api: &Arc<Api>, _request: &mut Request) -> Result<Reply, Refusal> {
    Err(Refusal::new(501, "hull has no plugins"))
}

fn no_plugin(_api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    Err(Refusal::missing(format!("plugin \"{}\" not found", hull_oci::spec::one_line(request.param("name")))))
}
