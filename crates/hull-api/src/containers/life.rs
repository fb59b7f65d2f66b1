//! A container's life: start, stop, and what lies between.

use std::sync::Arc;
use std::time::Duration;

use hull_engine::records::Phase;
use hull_engine::update::Changes;
use hull_engine::{Container, Engine, flags};
use hull_oci::spec::one_line;
use hull_runtime::lifecycle::signal;
use serde::Deserialize;
use serde_json::json;

use super::create;
use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;
use crate::step;
use crate::wire::create::{HostConfig, RestartPolicy};

type Answer = Result<Reply, Refusal>;

pub(super) fn start(api: &Arc<Api>, request: &mut Request) -> Answer {
    let container = api.container(request.param("id"))?;
    let state = api.engine.state(&container.id)?;
    match state.phase {
        Phase::Running if api.engine.is_paused(&container.id) => {
            return Err(Refusal::conflict("cannot start a paused container, try unpause instead"));
        }
        Phase::Running | Phase::Restarting => return Ok(Reply::empty(304)),
        Phase::Created | Phase::Exited => {}
    }
    let clients = api.waiting.take(&container.id);
    let (started, mut step) = step::begin(&api.engine, &["start", &container.id], clients)?;
    let status = if started["started"] == false { 304 } else { 204 };
    Ok(Reply::before(status, move || drop(step.wait())))
}

fn signal_of(request: &Request) -> Result<Option<i32>, Refusal> {
    let text = request.query.text("signal");
    if text.is_empty() { Ok(None) } else { create::parse_signal(text).map(Some) }
}

/// How long to wait before killing; `None` is for ever.
fn grace(api: &Api, request: &Request, container: &Container) -> Result<Option<Duration>, Refusal> {
    let seconds = request.query.number::<i64>("t").map_err(|refusal| Refusal { status: 500, ..refusal })?;
    Ok(match seconds {
        None => api.engine.grace(container),
        Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
    })
}

pub(super) fn stop(api: &Arc<Api>, request: &mut Request) -> Answer {
    let container = api.container(request.param("id"))?;
    let (signal, grace) = (signal_of(request)?, grace(api, request, &container)?);
    let state = api.engine.state(&container.id)?;
    if matches!(state.phase, Phase::Created | Phase::Exited) {
        return Ok(Reply::empty(304));
    }
    api.engine.stop(&container, signal, grace)?;
    Ok(Reply::empty(204))
}

pub(super) fn restart(api: &Arc<Api>, request: &mut Request) -> Answer {
    let container = api.container(request.param("id"))?;
    let (signal, grace) = (signal_of(request)?, grace(api, request, &container)?);
    let seconds = grace.map_or(-1, |grace| i64::try_from(grace.as_secs()).unwrap_or(-1)).to_string();
    let signal = signal.map_or_else(String::new, |signal| signal.to_string());
    step::ask(&api.engine, &["restart", &container.id, &seconds, &signal])?;
    Ok(Reply::empty(204))
}

pub(super) fn kill(api: &Arc<Api>, request: &mut Request) -> Answer {
    let container = api.container(request.param("id"))?;
    let text = request.query.text("signal");
    let number = match text {
        "" => 9,
        text => signal::parse(text).filter(|number| *number > 0).ok_or_else(|| {
            let name = one_line(request.param("id"));
            Refusal::bad(format!("cannot kill container: {name}: invalid signal: {}", one_line(text)))
        })?,
    };
    let state = api.engine.state(&container.id)?;
    if state.phase != Phase::Running {
        return Err(Refusal::conflict(format!(
            "cannot kill container: {}: container {} is not running",
            one_line(request.param("id")),
            container.id
        )));
    }
    api.engine.kill(&container, number)?;
    // As dockerd: whoever kills for good finds it ended.
    if number == 9 {
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while std::time::Instant::now() < until
            && api.engine.state(&container.id).is_ok_and(|now| now.phase == Phase::Running && now.pid == state.pid)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(Reply::empty(204))
}

pub(super) fn pause(api: &Arc<Api>, request: &mut Request) -> Answer {
    let container = api.container(request.param("id"))?;
    super::running(&api.engine, &container)?;
    if api.engine.is_paused(&container.id) {
        return Err(Refusal::conflict(format!("container {} is already paused", container.id)));
    }
    api.engine.pause(&container)?;
    Ok(Reply::empty(204))
}

pub(super) fn unpause(api: &Arc<Api>, request: &mut Request) -> Answer {
    let container = api.container(request.param("id"))?;
    if !api.engine.is_paused(&container.id) {
        return Err(Refusal::failed(format!("Container {} is not paused", container.id)));
    }
    api.engine.unpause(&container)?;
    Ok(Reply::empty(204))
}

pub(super) fn rename(api: &Arc<Api>, request: &mut Request) -> Answer {
    let container = api.container(request.param("id"))?;
    let name = request.query.text("name");
    let name = name.strip_prefix('/').unwrap_or(name);
    if name.is_empty() {
        return Err(Refusal::bad("Neither old nor new names may be empty"));
    }
    if name == container.name {
        return Err(Refusal::bad("Renaming a container with the same name as its current name"));
    }
    let name = flags::container_name(name).map_err(|_| {
        let shown = one_line(name);
        Refusal::bad(format!("Error when allocating new name: Invalid container name ({shown}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"))
    })?;
    api.engine.rename(&container, &name).map_err(|error| match Refusal::from(error) {
        refusal @ Refusal { status: 409, .. } => {
            Refusal { message: format!("Error when allocating new name: {}", refusal.message), ..refusal }
        }
        refusal => refusal,
    })?;
    Ok(Reply::empty(204))
}

/// Reads a body as any that is sent here. For fuzzing.
pub(crate) fn understand(body: &[u8]) {
    let _ = crate::http::parse::<Update>(body, "container.UpdateConfig");
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Update {
    #[serde(flatten)]
    limits: HostConfig,
    #[serde(rename = "RestartPolicy")]
    restart: Option<RestartPolicy>,
}

pub(super) fn update(api: &Arc<Api>, request: &mut Request) -> Answer {
    let container = api.container(request.param("id"))?;
    let body: Update = request.optional_json("container.UpdateConfig")?.unwrap_or_default();
    let restart = match body.restart.filter(|policy| !policy.name.is_empty()) {
        Some(policy) => Some(create::restart(&policy.name, policy.maximum_retry_count)?),
        None => None,
    };
    let limits = create::limits(&body.limits)?;
    api.engine.update(&container, &Changes { limits, restart })?;
    Ok(Reply::json(200, &json!({ "Warnings": [] })))
}

pub(super) fn remove(api: &Arc<Api>, request: &mut Request) -> Answer {
    let container = api.container(request.param("id"))?;
    let (force, volumes) = (request.query.truth("force"), request.query.truth("v"));
    if request.query.truth("link") {
        return Err(Refusal::failed("Conflict, cannot remove the default link name of the container"));
    }
    let state = api.engine.state(&container.id)?;
    if !force && matches!(state.phase, Phase::Running | Phase::Restarting) {
        let (is, hint) = match state.phase {
            Phase::Restarting => ("restarting", "stop the container before removing or force remove"),
            _ if api.engine.is_paused(&container.id) => ("paused", "and must be unpaused first"),
            _ => ("running", "stop the container before removing or force remove"),
        };
        let how = if is == "paused" { format!("{is} {hint}") } else { format!("{is}: {hint}") };
        let name = one_line(request.param("id"));
        return Err(Refusal::conflict(format!("cannot remove container \"{name}\": container is {how}")));
    }
    match api.engine.remove_name(&container, force, volumes)? {
        None => Ok(Reply::empty(204)),
        // Nobody sees them any more; what cannot be removed now is by a later command.
        Some(gone) => Ok(Reply::before(204, move || drop(Engine::remove_files(vec![gone])))),
    }
}

pub(super) fn prune(api: &Arc<Api>, request: &mut Request) -> Answer {
    let filters = request.query.filters(&["until", "label", "label!"])?;
    let until = filters.values("until").next().map(crate::images::moment).transpose()?;
    let (mut deleted, mut space) = (Vec::new(), 0_u64);
    for (container, state) in api.engine.list_shared()? {
        let labels = &container.config.labels;
        let fits = matches!(state.phase, Phase::Created | Phase::Exited)
            && api.sees(labels)
            && until.is_none_or(|until| container.created < until)
            && filters.labels(labels);
        if !fits {
            continue;
        }
        let written = api.engine.written(&container.id);
        // One that somebody starts or removes meanwhile stays, or is gone.
        if api.engine.remove(&container, false, false).is_ok() {
            deleted.push(container.id.clone());
            space = space.saturating_add(written);
        }
    }
    let deleted = if deleted.is_empty() { serde_json::Value::Null } else { json!(deleted) };
    Ok(Reply::json(200, &json!({ "ContainersDeleted": deleted, "SpaceReclaimed": space })))
}
