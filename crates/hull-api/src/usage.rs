//! `GET /system/df`.

use std::sync::Arc;

use hull_engine::inspect::listed::Listed;
use serde_json::{Map, json};

use crate::api::Api;
use crate::http::{Reply, Request, write_list};
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
    // There may be many of them.
    let mut rows = Vec::new();
    let list = engine.list_shared()?;
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
        let listed = Listed::new(engine);
        write_list(&mut rows, seen.map(|(container, state)| listed.document(container, state, true)));
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
    let mut bytes = serde_json::to_vec(&document).unwrap_or_default();
    if !rows.is_empty() {
        bytes.pop();
        bytes.extend_from_slice(if document.is_empty() { b"\"Containers\":" } else { b",\"Containers\":" });
        bytes.append(&mut rows);
        bytes.push(b'}');
    }
    bytes.push(b'\n');
    Ok(Reply::bytes(200, "application/json", bytes))
}
