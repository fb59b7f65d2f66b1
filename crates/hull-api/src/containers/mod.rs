//! Containers.

mod attach;
mod create;
mod files;
pub(crate) mod kept;
mod life;
mod list;
mod logs;
mod mounts;
mod relay;
mod stats;
mod wait;
pub(crate) mod waiting;
mod websocket;

use hull_engine::records::{Phase, State};
use hull_engine::{Container, Engine};

use crate::refusal::Refusal;
use crate::route::Route;

pub(crate) use attach::size;
pub(crate) use create::config;
pub(crate) use files::described;
pub(crate) use life::understand;
pub(crate) use logs::moment;

pub(crate) const ROUTES: &[Route] = &[
    Route::new("GET", "/containers/json", list::list),
    Route::new("POST", "/containers/create", create::create),
    Route::new("POST", "/containers/prune", life::prune),
    Route::new("GET", "/containers/{id}/json", list::inspect),
    Route::new("POST", "/containers/{id}/start", life::start),
    Route::new("POST", "/containers/{id}/stop", life::stop),
    Route::new("POST", "/containers/{id}/restart", life::restart),
    Route::new("POST", "/containers/{id}/kill", life::kill),
    Route::new("POST", "/containers/{id}/pause", life::pause),
    Route::new("POST", "/containers/{id}/unpause", life::unpause),
    Route::new("POST", "/containers/{id}/rename", life::rename),
    Route::new("POST", "/containers/{id}/update", life::update),
    Route::new("POST", "/containers/{id}/wait", wait::wait),
    Route::new("POST", "/containers/{id}/resize", attach::resize),
    Route::new("POST", "/containers/{id}/attach", attach::attach),
    Route::new("GET", "/containers/{id}/attach/ws", websocket::attach),
    Route::new("GET", "/containers/{id}/logs", logs::logs),
    Route::new("GET", "/containers/{id}/top", stats::top),
    Route::new("GET", "/containers/{id}/stats", stats::stats),
    Route::new("GET", "/containers/{id}/changes", files::changes),
    Route::new("GET", "/containers/{id}/export", files::export),
    Route::new("HEAD", "/containers/{id}/archive", files::stat),
    Route::new("GET", "/containers/{id}/archive", files::get),
    Route::new("PUT", "/containers/{id}/archive", files::put),
    Route::new("DELETE", "/containers/{id}", life::remove),
];

/// Refuses unless a container runs.
pub(crate) fn running(engine: &Engine, container: &Container) -> Result<State, Refusal> {
    let state = engine.state(&container.id)?;
    match state.phase {
        Phase::Running => Ok(state),
        Phase::Restarting => Err(Refusal::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        ))),
        _ => Err(Refusal::conflict(format!("container {} is not running", container.id))),
    }
}
