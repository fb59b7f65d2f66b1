//! `GET /system/df`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;
use crate::route::Route;

pub(crate) const ROUTES: &[Route] = &[Route::new("GET", "/system/df", df)];

const KINDS: [&str; 4] = ["container", "image", "volume", "build-cache"];

fn df(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let asked: Vec<&str> = request.query.all("type").collect();
    if let Some(unknown) = asked.iter().find(|kind| !KINDS.contains(kind)) {
        return Err(Refusal::bad(format!("unknown object type: {}", hull_oci::spec::one_line(unknown))));
    }
    let wants = |kind: &str| asked.is_empty() || asked.contains(&kind);
    let mut document = Map::new();
    let list = engine.list()?;
    if wants("image") {
        let usage = engine.images.usage()?;
        let mut images = Vec::new();
        for image in engine.images.list()?.iter().filter(|image| api.sees(&image.config.config.labels)) {
            let mut row = crate::images::summary(image, request.version);
            let id = image.id.to_string();
            row["Containers"] = list.iter().filter(|(container, _)| container.image_id == id).count().into();
            let shared = usage.images.iter().find(|one| one.id == image.id).map(|one| one.shared);
            row["SharedSize"] = shared.unwrap_or(0).into();
            images.push(row);
        }
        document.insert("LayersSize".to_owned(), (usage.layers + usage.blobs).into());
        document.insert("Images".to_owned(), images.into());
    }
    if wants("container") {
        let seen = list.iter().filter(|(container, _)| api.sees(&container.config.labels));
        let rows: Vec<Value> =
            seen.map(|(container, state)| crate::containers::list_document(engine, container, state, true)).collect();
        document.insert("Containers".to_owned(), rows.into());
    }
    if wants("volume") {
        let users = engine.volume_users()?;
        let mut rows = Vec::new();
        for volume in engine.volumes()?.iter().filter(|volume| api.sees(&volume.labels)) {
            let mut row = hull_engine::inspect::volume::document(engine, volume);
            let size = hull_engine::usage::written(&engine.volume_data(&volume.name));
            let count = users.get(&volume.name).map_or(0, Vec::len);
            row["UsageData"] = json!({ "RefCount": count, "Size": size });
            rows.push(row);
        }
        document.insert("Volumes".to_owned(), rows.into());
    }
    if wants("build-cache") {
        // The cache is of no label.
        let all = if api.options.labels.is_empty() { crate::build::cached(api)? } else { Vec::new() };
        let size: u64 = all.iter().filter(|one| one["Shared"] != true).filter_map(|one| one["Size"].as_u64()).sum();
        document.insert("BuildCache".to_owned(), all.into());
        if !request.version.since(42) {
            document.insert("BuilderSize".to_owned(), size.into());
        }
    }
    Ok(Reply::json(200, &Value::Object(document)))
}
