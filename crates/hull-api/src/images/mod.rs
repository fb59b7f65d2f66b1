//! `/images`: lists, documents, names, removal. What brings images in and out is in [`transfer`].

pub(crate) mod progress;
mod remove;
pub(crate) mod transfer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hull_engine::events;
use hull_engine::filters::OF_IMAGES;
use hull_engine::inspect::image as inspect_image;
use hull_image::Image;
use hull_oci::Reference;
use hull_oci::image::Platform;
use serde_json::{Value, json};

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;
use crate::route::Route;
use crate::version::Version;

pub(crate) const ROUTES: &[Route] = &[
    Route::new("GET", "/images/json", list),
    Route::new("GET", "/images/search", search),
    Route::new("GET", "/images/get", transfer::save_many),
    Route::new("POST", "/images/create", transfer::create),
    Route::new("POST", "/images/load", transfer::load),
    Route::new("POST", "/images/prune", remove::prune),
    Route::new("GET", "/images/{name...}/json", inspect),
    Route::new("GET", "/images/{name...}/history", history),
    Route::new("GET", "/images/{name...}/get", transfer::save_one),
    Route::new("POST", "/images/{name...}/push", transfer::push),
    Route::new("POST", "/images/{name...}/tag", tag),
    Route::new("DELETE", "/images/{name...}", remove::remove),
];

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The moment that a filter's value names, in nanoseconds since 1970.
pub(crate) fn moment(text: &str) -> Result<u64, Refusal> {
    hull_engine::time::moment(text, now()).map_err(Refusal::bad)
}

/// A name in Docker's grammar.
pub(crate) fn reference(text: &str) -> Result<Reference, Refusal> {
    text.parse::<Reference>().map_err(|error| Refusal::bad(hull_oci::spec::one_line(&error.to_string())))
}

/// `repo` and `tag` of a query as one name; `None` when there is none.
pub(crate) fn name_of(repository: &str, tag: &str) -> Result<Option<Reference>, Refusal> {
    if repository.is_empty() {
        return Ok(None);
    }
    let name = reference(repository)?;
    if name.digest().is_some() {
        return Err(Refusal::bad("refusing to create a tag with a digest reference"));
    }
    Ok(Some(if tag.is_empty() { name.or_latest() } else { tagged(&name, tag)? }))
}

/// A name with another tag.
pub(crate) fn tagged(name: &Reference, tag: &str) -> Result<Reference, Refusal> {
    name.with_tag(tag).map_err(|_| Refusal::bad("invalid tag format"))
}

/// A platform of a query: `linux/arm64`, or the OCI document of one.
pub(crate) fn platform(text: &str) -> Result<Option<Platform>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = match text.trim_start().strip_prefix('{') {
        Some(_) => serde_json::from_str(text).map_err(|error| error.to_string()),
        None => Platform::parse(text),
    };
    parsed.map(Some).map_err(|reason| Refusal::bad(format!("invalid platform: {}", hull_oci::spec::one_line(&reason))))
}

/// The platforms of a query: each parameter may be one, or a JSON list of them.
pub(crate) fn platforms(request: &Request, name: &str) -> Result<Vec<Platform>, Refusal> {
    let mut all = Vec::new();
    for text in request.query.all(name) {
        if text.trim_start().starts_with('[') {
            let wrong = |error: serde_json::Error| {
                Refusal::bad(format!("invalid platform: {}", hull_oci::spec::one_line(&error.to_string())))
            };
            let list: Vec<Value> = serde_json::from_str(text).map_err(wrong)?;
            for one in &list {
                all.extend(platform(&one.as_str().map_or_else(|| one.to_string(), str::to_owned))?);
            }
        } else {
            all.extend(platform(text)?);
        }
    }
    Ok(all)
}

/// All images of a name, as lists of manifests have them; what nothing names stands alone.
fn manifests(api: &Api, image: &Image, users: &BTreeMap<String, Vec<String>>) -> Result<Value, Refusal> {
    let all = match image.names.first() {
        Some(name) => api.engine.images.find_all(&name.to_string())?,
        None => vec![image.clone()],
    };
    let row = |one: &Image| manifest(one, users.get(&one.id.to_string()).map(Vec::as_slice).unwrap_or_default());
    Ok(all.iter().map(row).collect())
}

/// The containers of each image.
fn users(api: &Api) -> Result<BTreeMap<String, Vec<String>>, Refusal> {
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (container, _) in api.engine.list_shared()? {
        users.entry(container.image_id.clone()).or_default().push(container.id.clone());
    }
    Ok(users)
}

fn list(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let mut images = request.query.filters(&OF_IMAGES)?.images(engine, None)?;
    images.retain(|image| api.sees(&image.config.config.labels));
    let sizes: BTreeMap<_, _> = if request.query.truth("shared-size") {
        engine.images.usage()?.images.into_iter().map(|usage| (usage.id, usage.shared)).collect()
    } else {
        BTreeMap::new()
    };
    let with_manifests = request.query.truth("manifests") && request.version.since(47);
    let users = if with_manifests || request.version.since(51) { users(api)? } else { BTreeMap::new() };
    let mut rows = Vec::new();
    for image in &images {
        let mut row = summary(image, request.version);
        row["SharedSize"] = sizes.get(&image.id).map_or_else(|| (-1).into(), |size| (*size).into());
        let containers = users.get(&image.id.to_string()).map(Vec::as_slice).unwrap_or_default();
        if request.version.since(51) {
            row["Containers"] = containers.len().into();
        }
        if with_manifests {
            row["Manifests"] = manifests(api, image, &users)?;
        }
        rows.push(row);
    }
    Ok(Reply::json(200, &rows))
}

/// An image as lists have it.
pub(crate) fn summary(image: &Image, version: Version) -> Value {
    let (mut tags, mut digests) = (inspect_image::tags(image), inspect_image::digests(image));
    if !version.since(43) && image.is_dangling() {
        tags.push("<none>:<none>".to_owned());
        digests.push("<none>@<none>".to_owned());
    }
    let labels = &image.config.config.labels;
    let mut row = json!({
        "Containers": -1,
        "Created": image.created,
        "Id": image.id.to_string(),
        "Labels": if labels.is_empty() { Value::Null } else { json!(labels) },
        "ParentId": "",
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": -1,
        "Size": image.size,
    });
    if !version.since(44) {
        row["VirtualSize"] = image.size.into();
    }
    if let Some(descriptor) = descriptor(image).filter(|_| version.since(48)) {
        row["Descriptor"] = descriptor;
    }
    row
}

/// What is known of the manifest that an image came with.
fn descriptor(image: &Image) -> Option<Value> {
    image.manifest.as_ref().map(|digest| {
        json!({
            "mediaType": hull_oci::image::media_type::MANIFEST,
            "digest": digest.to_string(),
            "size": 0,
        })
    })
}

/// The one manifest of an image of this store, as lists of manifests have it.
fn manifest(image: &Image, containers: &[String]) -> Value {
    let content: u64 = image.layers.iter().filter_map(|layer| layer.blob.as_ref()).map(|(_, size)| size).sum();
    let unpacked: u64 = image.layers.iter().map(|layer| layer.tar_size).sum();
    let digest = image.manifest.as_ref().unwrap_or(&image.id).to_string();
    json!({
        "ID": digest,
        "Descriptor": { "mediaType": hull_oci::image::media_type::MANIFEST, "digest": digest, "size": 0 },
        "Available": true,
        "Kind": "image",
        "Size": { "Content": content, "Total": content + unpacked },
        "ImageData": {
            "Platform": image.config.platform,
            "Containers": containers,
            "Size": { "Unpacked": unpacked },
        },
    })
}

fn inspect(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let wanted = platform(request.query.text("platform"))?;
    let image = api.image_on(request.param("name"), wanted.as_ref())?;
    let mut document = inspect_image::document(&image);
    if let Some(descriptor) = descriptor(&image) {
        document["Descriptor"] = descriptor;
    }
    if !request.version.since(44) {
        document["VirtualSize"] = image.size.into();
    }
    if request.query.truth("manifests") && request.version.since(48) {
        document["Manifests"] = manifests(api, &image, &users(api)?)?;
    }
    Ok(Reply::json(200, &document))
}

fn history(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let wanted = platform(request.query.text("platform"))?;
    let image = api.image_on(request.param("name"), wanted.as_ref())?;
    let row = |(index, step): (usize, hull_image::HistoryRow)| {
        let first = index == 0;
        let tags = inspect_image::tags(&image);
        json!({
            "Comment": step.comment,
            "Created": step.created.unwrap_or(0),
            "CreatedBy": step.created_by,
            "Id": if first { image.id.to_string() } else { "<missing>".to_owned() },
            "Size": step.size,
            "Tags": if first && !tags.is_empty() { json!(tags) } else { Value::Null },
        })
    };
    let rows: Vec<Value> = image.history().into_iter().enumerate().map(row).collect();
    Ok(Reply::json(200, &rows))
}

fn tag(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let name = name_of(request.query.text("repo"), request.query.text("tag"))?;
    let name = name.ok_or_else(|| Refusal::bad("invalid reference format"))?;
    let image = api.image(request.param("name"))?;
    engine.images.tag(&image.id, &name)?;
    events::emit_image(engine, "tag", &image.id.to_string(), &name.familiar());
    Ok(Reply::empty(201))
}

fn search(_: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let filters = request.query.filters(&["is-automated", "is-official", "stars"])?;
    let limit = request.query.number::<usize>("limit")?.filter(|limit| *limit != 0).unwrap_or(25);
    if limit > 100 {
        return Err(Refusal::bad(format!("limit {limit} is outside the range of [1, 100]")));
    }
    let term = request.query.text("term");
    let (domain, words) = match term.split_once('/') {
        Some(("docker.io" | "index.docker.io", rest)) => ("docker.io", rest),
        Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => (host, rest),
        _ => ("docker.io", term.strip_prefix("library/").unwrap_or(term)),
    };
    if words.is_empty() {
        return Err(Refusal::bad("search term is required"));
    }
    let stars = filters.values("stars").map(|text| {
        text.parse::<u64>()
            .map_err(|_| Refusal::bad(format!("invalid filter 'stars=[{}]'", hull_oci::spec::one_line(text))))
    });
    let stars = stars.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0);
    let (official, automated) = (filters.truth("is-official")?, filters.truth("is-automated")?);
    let client = crate::registry::client(request, domain);
    let found = client.search(domain, words, limit).map_err(crate::registry::refusal)?;
    let fits = |one: &hull_registry::client::Found| {
        one.star_count >= stars
            && official.is_none_or(|wanted| one.is_official == wanted)
            && automated.is_none_or(|wanted| one.is_automated == wanted)
    };
    let row = |one: hull_registry::client::Found| {
        json!({
            "star_count": one.star_count,
            "is_official": one.is_official,
            "name": if domain == "docker.io" { one.name } else { format!("{domain}/{}", one.name) },
            "is_automated": one.is_automated,
            "description": one.description,
        })
    };
    let rows: Vec<Value> = found.into_iter().filter(fits).map(row).collect();
    Ok(Reply::json(200, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_queries_are_whole() {
        let name = |repository, tag| name_of(repository, tag).map(|name| name.map(|name| name.familiar()));
        assert_eq!(name("", "x"), Ok(None));
        assert_eq!(name("app", ""), Ok(Some("app:latest".to_owned())));
        assert_eq!(name("app:1", "2"), Ok(Some("app:2".to_owned())));
        assert_eq!(name("r.example:5000/a/b", "v1"), Ok(Some("r.example:5000/a/b:v1".to_owned())));
        for (repository, tag) in [("App", ""), ("app", "no such"), ("app@sha256:0", ""), ("-", "")] {
            assert_eq!(name_of(repository, tag).map_err(|refusal| refusal.status), Err(400), "{repository} {tag}");
        }
    }

    #[test]
    fn platforms_come_in_two_shapes() {
        let text = |text| platform(text).expect("parses").map(|platform| platform.to_string());
        assert_eq!(text(""), None);
        assert_eq!(text("linux/arm64").as_deref(), Some("linux/arm64"));
        assert_eq!(text(r#"{"os":"linux","architecture":"arm64"}"#).as_deref(), Some("linux/arm64"));
        assert_eq!(platform("{").map_err(|refusal| refusal.status), Err(400));
    }
}
