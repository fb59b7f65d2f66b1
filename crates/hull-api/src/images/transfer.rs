//! Pulls, pushes, archives: what brings images in and out.

use std::io::Read;
use std::sync::Arc;

use hull_engine::{Engine, events};
use hull_image::archive::{self, ImportOptions, LoadOptions, SaveOptions};
use hull_image::registry::{self, PullOptions, PushOptions};
use hull_oci::Reference;
use hull_oci::spec::one_line;
use serde_json::json;

use super::progress::Said;
use super::{name_of, platform, platforms, reference, tagged};
use crate::api::Api;
use crate::http::{Reply, Request};
use crate::lines;
use crate::refusal::Refusal;

pub(super) fn create(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let from_image = request.query.text("fromImage").to_owned();
    if from_image.is_empty() { import(api, request) } else { pull(api, request, &from_image) }
}

/// The name of what is pulled: `tag` may be a digest.
fn wanted(from_image: &str, tag: &str) -> Result<Reference, Refusal> {
    let name = reference(from_image)?;
    if tag.is_empty() {
        return Ok(name);
    }
    match tag.parse::<hull_oci::Digest>() {
        Ok(digest) => Ok(name.with_digest(digest)),
        Err(_) => tagged(&name, tag),
    }
}

/// The repository as Docker shows it here: without its registry, if that is Docker's own.
fn short_path(reference: &Reference) -> String {
    if reference.domain() == "docker.io" { reference.path().to_owned() } else { reference.repository() }
}

fn pulling(name: &Reference) -> serde_json::Value {
    let at = name.tag().map(str::to_owned).or(name.digest().map(ToString::to_string)).unwrap_or_default();
    json!({ "status": format!("Pulling from {}", short_path(name)), "id": at })
}

fn pull(api: &Arc<Api>, request: &mut Request, from_image: &str) -> Result<Reply, Refusal> {
    let name = wanted(from_image, request.query.text("tag"))?;
    let options = PullOptions { platforms: platforms(request, "platform")?, ..PullOptions::default() };
    let client = crate::registry::client(request, name.domain());
    let api = Arc::clone(api);
    let familiar = name.familiar_repository();
    lines::reply("pull", move |lines| {
        let engine = &api.engine;
        let refused = |error| crate::registry::pull_refusal(&familiar, error);
        let pulled = |newer: bool| if newer { "Downloaded newer image for" } else { "Image is up to date for" };
        if name.tag().is_none() && name.digest().is_none() {
            let mut newer = false;
            let said = Said::pull(lines, json!({ "status": format!("Pulling from {}", short_path(&name)) }));
            registry::pull_all(&engine.images, &client, &name, &options, &said, &mut |name, pulled| match pulled {
                None => lines.say(&pulling(name)),
                Some(pulled) => {
                    newer |= pulled.is_newer;
                    pulled_event(engine, &pulled.reference);
                    lines.status(format!("Digest: {}", pulled.digest));
                }
            })
            .map_err(refused)?;
            lines.status(format!("Status: {} {familiar}", pulled(newer)));
            return Ok(());
        }
        let said = Said::pull(lines, pulling(&name));
        let done = registry::pull(&engine.images, &client, &name, &options, &said).map_err(refused)?;
        said.begin();
        pulled_event(engine, &done.reference);
        lines.status(format!("Digest: {}", done.digest));
        lines.status(format!("Status: {} {}", pulled(done.is_newer), done.reference.familiar()));
        Ok(())
    })
}

fn pulled_event(engine: &Engine, name: &Reference) {
    events::emit_image(engine, "pull", &name.familiar(), &name.familiar_repository());
}

/// A root file system becomes an image.
fn import(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let source = request.query.text("fromSrc").to_owned();
    let names = name_of(request.query.text("repo"), request.query.text("tag"))?.into_iter().collect();
    let message = request.query.text("message");
    let mut options = ImportOptions {
        names,
        changes: changes(request),
        message: Some(message.to_owned()).filter(|text| !text.is_empty()),
        platform: platform(request.query.text("platform"))?,
    };
    let mut head = Vec::new();
    let image = if source == "-" {
        archive::import(&engine.images, request.body(), &options)?
    } else {
        let address = if source.contains("://") { source } else { format!("http://{source}") };
        head.push(json!({ "status": format!("Downloading from {}", one_line(&address)) }));
        options.message.get_or_insert_with(|| format!("Imported from {}", one_line(&address)));
        archive::import(&engine.images, fetched(&address)?, &options)?
    };
    let id = image.id.to_string();
    let name = image.names.first().map_or_else(|| id.clone(), Reference::familiar);
    events::emit_image(engine, "import", &id, &name);
    head.push(json!({ "status": id }));
    Ok(said(&head))
}

/// The instructions of a query, of which one parameter may hold several lines.
pub(crate) fn changes(request: &Request) -> Vec<String> {
    let lines = request.query.all("changes").flat_map(str::lines).map(str::trim);
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// A file of a server, after as many redirects as browsers follow.
fn fetched(address: &str) -> Result<Box<dyn Read + Send>, Refusal> {
    let failed = |reason: String| Refusal::failed(format!("download {}: {}", one_line(address), one_line(&reason)));
    let agent = concat!("hull/", env!("CARGO_PKG_VERSION"));
    let client = hull_http::Client::new(agent, hull_http::proxy::Proxies::from_variables(&hull_config::proxy));
    let mut target = address.to_owned();
    for _ in 0..10 {
        let response = client.send("GET", &target, &[], hull_http::Body::None, &hull_http::Tls::default());
        let response = response.map_err(|error| failed(error.to_string()))?;
        match (response.status, response.header("location")) {
            (200, _) => return Ok(response.body),
            (301 | 302 | 303 | 307 | 308, Some(next)) if next.contains("://") => target = next.to_owned(),
            (status, _) => return Err(failed(format!("HTTP status {status}"))),
        }
    }
    Err(failed("too many redirects".to_owned()))
}

/// Some lines of JSON as a whole answer.
fn said(lines: &[serde_json::Value]) -> Reply {
    let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    Reply::bytes(200, "application/json", text)
}

pub(super) fn push(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let name = reference(request.param("name"))?;
    let tag = request.query.text("tag");
    let name = if tag.is_empty() { name } else { tagged(&name, tag)? };
    let wanted = platforms(request, "platform")?;
    let client = crate::registry::client(request, name.domain());
    let api = Arc::clone(api);
    lines::reply("push", move |lines| {
        let engine = &api.engine;
        lines.status(format!("The push refers to repository [{}]", name.repository()));
        let missing = || {
            let text = format!("An image does not exist locally with the tag: {}", name.familiar_repository());
            Refusal::missing(text)
        };
        let names = if name.tag().is_some() || name.digest().is_some() {
            vec![name.clone()]
        } else {
            let all = engine.images.list()?.into_iter().flat_map(|image| image.names);
            let mut own: Vec<Reference> = all.filter(|one| one.repository() == name.repository()).collect();
            own.sort();
            own
        };
        if names.is_empty() {
            return Err(missing());
        }
        for name in &names {
            api.image(&name.to_string()).map_err(|_| missing())?;
            let images = engine.images.find_several(&name.familiar(), &wanted)?;
            let (said, options) = (Said::push(lines), PushOptions::default());
            let pushed = registry::push_platforms(&engine.images, &client, &images, name, &options, &said);
            let (_, pushed) = pushed.map_err(|error| match error {
                hull_image::Error::Registry(error) => crate::registry::refusal(*error),
                other => other.into(),
            })?;
            events::emit_image(engine, "push", &name.familiar(), &name.familiar_repository());
            let tag = name.tag().unwrap_or_default();
            lines.status(format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size));
            let aux = json!({ "Tag": tag, "Digest": pushed.digest.to_string(), "Size": pushed.size });
            lines.say(&json!({ "progressDetail": {}, "aux": aux }));
        }
        Ok(())
    })
}

pub(super) fn save_one(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let names = vec![request.param("name").to_owned()];
    save(api, request, &names)
}

pub(super) fn save_many(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let names: Vec<String> = request.query.all("names").filter(|name| !name.is_empty()).map(str::to_owned).collect();
    save(api, request, &names)
}

fn save(api: &Arc<Api>, request: &Request, names: &[String]) -> Result<Reply, Refusal> {
    let engine = &api.engine;
    let platforms = platforms(request, "platform")?;
    let mut images = archive::select(&engine.images, names).map_err(|error| match error {
        // Here alone the name is as it was given.
        hull_image::Error::NoImage(name) => Refusal::missing(format!("No such image: {}", one_line(&name))),
        other => other.into(),
    })?;
    archive::retain_platforms(&mut images, &platforms)?;
    for (image, _) in &images {
        api.image(&image.id.to_string())?;
        let id = image.id.to_string();
        let name = image.names.first().map_or_else(|| id.clone(), Reference::familiar);
        events::emit_image(engine, "save", &id, &name);
    }
    let api = Arc::clone(api);
    Ok(Reply::stream("application/x-tar", move |stream| {
        archive::save(&api.engine.images, &images, SaveOptions::default(), &mut *stream)
            .map_err(std::io::Error::other)?;
        std::io::Write::flush(stream)
    }))
}

/// Answers at once, as dockerd: what is wrong with the archive is the last line.
pub(super) fn load(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let platforms = platforms(request, "platform")?;
    let (api, body) = (Arc::clone(api), request.body());
    Ok(Reply::stream("application/json", move |stream| {
        let engine = &api.engine;
        let loaded =
            match archive::load_stream(&engine.images, body, &LoadOptions { platforms, ..LoadOptions::default() }) {
                Ok(loaded) => loaded,
                Err(error) => return stream.line(&lines::failure(&error.into())),
            };
        for one in loaded.iter().filter(|one| !one.names.is_empty() || one.variant_of.is_empty()) {
            let id = one.image.id.to_string();
            let name = one.names.first().map_or_else(|| id.clone(), Reference::familiar);
            events::emit_image(engine, "load", &id, &name);
        }
        for line in loaded.iter().flat_map(archive::Loaded::lines) {
            stream.line(&json!({ "stream": format!("{line}\n") }))?;
        }
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pulled() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let name = |image, tag: &str| wanted(image, tag).map(|name| name.familiar());
        assert_eq!(name("busybox", ""), Ok("busybox".to_owned()));
        assert_eq!(name("docker.io/library/busybox", "1.36"), Ok("busybox:1.36".to_owned()));
        assert_eq!(name("busybox", &digest), Ok(format!("busybox@{digest}")));
        assert_eq!(name("Busybox", "").map_err(|refusal| refusal.status), Err(400));
        assert_eq!(name("busybox", "a b").map_err(|refusal| refusal.status), Err(400));
    }
}
