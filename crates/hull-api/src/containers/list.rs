//! What is known of containers: lists and documents.

use std::sync::Arc;
use std::time::SystemTime;

use hull_engine::config::{MountConfig, NamespaceChoice, Source};
use hull_engine::inspect;
use hull_engine::inspect::network::{Port, ports};
use hull_engine::records::{Phase, State};
use hull_engine::{Container, Engine, pattern};
use hull_oci::spec::one_line;
use serde_json::{Value, json};

use crate::http::{Reply, Request};
use crate::query::Filters;
use crate::refusal::Refusal;
use crate::server::Api;

const FILTERS: [&str; 14] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
];

/// A name that clients know an image by.
fn image_name(container: &Container) -> String {
    match &container.config.source {
        Source::Image(name) => name.clone(),
        Source::Directory(path) => path.display().to_string(),
    }
}

/// Its state in one of Docker's words.
fn word(engine: &Engine, container: &Container, state: &State) -> &'static str {
    match state.phase {
        Phase::Running if engine.is_paused(&container.id) => "paused",
        phase => phase.as_str(),
    }
}

fn health(engine: &Engine, container: &Container, state: &State) -> &'static str {
    match engine.health(container).filter(|_| state.phase == Phase::Running) {
        Some(health) => health.status.as_str(),
        None => "none",
    }
}

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
    let word = word(engine, container, state);
    let health = health(engine, container, state);
    let mut status = inspect::status(state, SystemTime::now());
    match (word, health) {
        ("paused", _) => status.push_str(" (Paused)"),
        (_, "none") => {}
        (_, "starting") => status.push_str(" (health: starting)"),
        (_, health) => status.push_str(&format!(" ({health})")),
    }
    let image = engine.images.find(&container.image_id).ok();
    let ports = ports(engine, container, state, image.as_ref().map(|image| &image.config.config));
    let all = inspect::document(engine, container, state);
    let mut document = json!({
        "Id": container.id,
        "Names": [format!("/{}", container.name)],
        "Image": image_name(container),
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

/// `80`, `8000-8010/udp`.
fn ranges(filters: &Filters, name: &str) -> Result<Vec<(u16, u16, String)>, Refusal> {
    let parse = |text: &str| {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok((first, last, protocol.to_owned())),
            _ => Err(Refusal::bad(format!("invalid filter '{name}={}'", one_line(text)))),
        }
    };
    filters.values(name).map(parse).collect()
}

fn in_range(port: &Port, ranges: &[(u16, u16, String)]) -> bool {
    let numbers = [Some(port.private), port.public.map(|(_, number)| number)];
    ranges.iter().any(|(first, last, protocol)| {
        *protocol == port.protocol && numbers.iter().flatten().any(|number| (first..=last).contains(&number))
    })
}

fn has_mount(container: &Container, wanted: &str) -> bool {
    container.config.mounts.iter().any(|mount| match mount {
        MountConfig::Volume { name, target, .. } => name == wanted || target == wanted,
        MountConfig::Bind { source, target, .. } => source.as_os_str() == wanted || target == wanted,
        MountConfig::Tmpfs { .. } | MountConfig::Image { .. } => false,
    })
}

fn on_network(engine: &Engine, container: &Container, wanted: &str) -> bool {
    let config = &container.config;
    let name = match engine.networks().find(wanted) {
        Ok(network) => network.name,
        Err(_) => wanted.to_owned(),
    };
    match &config.namespaces.network {
        NamespaceChoice::Host => wanted == "host",
        NamespaceChoice::Private if config.networks.is_empty() => wanted == "none",
        _ => config.networks.iter().any(|one| one.name == wanted || one.name == name),
    }
}

fn check(filters: &Filters, name: &str, known: &[&str]) -> Result<(), Refusal> {
    match filters.values(name).find(|value| !known.contains(value)) {
        Some(bad) => {
            let known = known.join(", ");
            let (what, bad) = (if name == "status" { "state" } else { name }, one_line(bad));
            let text =
                format!("invalid filter '{name}={bad}': invalid value for {what} ({bad}): must be one of {known}");
            Err(Refusal::bad(text))
        }
        None => Ok(()),
    }
}

pub(super) fn list(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let filters = request.query.filters(&[&FILTERS[..], &["volume"]].concat())?;
    check(&filters, "health", &["none", "starting", "healthy", "unhealthy"])?;
    check(&filters, "status", &["created", "running", "paused", "restarting", "removing", "exited", "dead"])?;
    let mut exited = Vec::new();
    for value in filters.values("exited") {
        let wrong = || {
            let value = one_line(value);
            Refusal::bad(format!("invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid syntax"))
        };
        exited.push(value.parse::<i32>().map_err(|_| wrong())?);
    }
    let task = filters.truth("is-task")?;
    let (published, exposed) = (ranges(&filters, "publish")?, ranges(&filters, "expose")?);
    let list = engine.list()?;
    let place = |name: &str| -> Result<usize, Refusal> {
        let found = api.container(name)?;
        Ok(list.iter().position(|(container, _)| container.id == found.id).unwrap_or(list.len()))
    };
    let before = filters.values("before").map(place).collect::<Result<Vec<_>, _>>()?;
    let since = filters.values("since").map(place).collect::<Result<Vec<_>, _>>()?;
    let ancestors: Vec<(&str, String)> = filters
        .values("ancestor")
        .map(|name| (name, engine.images.find(name).map(|image| image.id.to_string()).unwrap_or_default()))
        .collect();
    let limit =
        request.query.number::<i64>("limit").map_err(|refusal| Refusal { status: 500, ..refusal })?.unwrap_or(-1);
    let all = request.query.truth("all") || limit > 0 || filters.has("status") || !exited.is_empty();
    let sized = request.query.truth("size");
    let fits = |index: usize, (container, state): &(Container, State)| {
        api.sees(&container.config.labels)
            && (all || matches!(state.phase, Phase::Running | Phase::Restarting))
            && before.iter().all(|place| index > *place)
            && since.iter().all(|place| index < *place)
            && (exited.is_empty() || state.phase == Phase::Exited && exited.contains(&state.exit_code))
            && filters.any("id", |id| container.id.starts_with(id))
            && filters.any("name", |name| {
                pattern::matches(name, &container.name) || pattern::matches(name, &format!("/{}", container.name))
            })
            && filters.any("status", |status| word(engine, container, state) == status)
            && filters.any("network", |name| on_network(engine, container, name))
            && filters.any("health", |wanted| wanted == health(engine, container, state))
            && task != Some(true)
            && filters.any("isolation", |isolation| matches!(isolation, "" | "default"))
            && filters.any("volume", |volume| has_mount(container, volume))
            && (published.is_empty() || {
                let ports = ports(engine, container, state, None);
                ports.iter().filter(|port| port.public.is_some()).any(|port| in_range(port, &published))
            })
            && (exposed.is_empty() || {
                let image = engine.images.find(&container.image_id).ok();
                let ports = ports(engine, container, state, image.as_ref().map(|image| &image.config.config));
                ports.iter().any(|port| in_range(port, &exposed))
            })
            && (ancestors.is_empty()
                || ancestors
                    .iter()
                    .any(|(name, id)| image_name(container) == *name || !id.is_empty() && container.image_id == *id))
            && filters.labels("label", &container.config.labels)
    };
    let shown = list.iter().enumerate().filter(|(index, one)| fits(*index, one)).map(|(_, one)| one);
    let most = usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let documents: Vec<Value> =
        shown.take(most).map(|(container, state)| document(engine, container, state, sized)).collect();
    Ok(Reply::json(200, &documents))
}

pub(super) fn inspect(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let container = api.container(request.param("id"))?;
    let state = api.engine.state(&container.id)?;
    let mut document = inspect::document(&api.engine, &container, &state);
    let execs = crate::exec::running(&api.engine, &container.id);
    if !execs.is_empty() {
        document["ExecIDs"] = json!(execs);
    }
    if request.query.truth("size") {
        let written = api.engine.written(&container.id);
        let image = api.engine.images.find(&container.image_id).ok();
        document["SizeRw"] = written.into();
        document["SizeRootFs"] = written.saturating_add(image.map_or(0, |image| image_size(&image))).into();
    }
    Ok(Reply::json(200, &document))
}
