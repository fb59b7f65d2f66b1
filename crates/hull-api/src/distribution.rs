//! `GET /distribution/NAME/json`: what a registry says of a name.

use std::sync::Arc;

use hull_image::registry::{Looked, look};
use hull_oci::image::Document;
use serde_json::{Value, json};

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::images;
use crate::refusal::Refusal;
use crate::route::Route;

pub(crate) const ROUTES: &[Route] = &[Route::new("GET", "/distribution/{name...}/json", inspect)];

fn inspect(_: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let name = images::reference(request.param("name"))?;
    let client = crate::registry::client(request, name.domain());
    let looked = look(&client, &name).map_err(|error| match error {
        hull_image::Error::Registry(error) => crate::registry::refusal(*error),
        other => other.into(),
    })?;
    Ok(Reply::json(200, &document(&looked)))
}

fn document(looked: &Looked) -> Value {
    let platforms: Vec<Value> = match &looked.fetched.document {
        Document::Index(index) => {
            let known = |platform: &&hull_oci::image::Platform| platform.os != "unknown";
            let platforms = index.manifests.iter().filter_map(|one| one.platform.as_ref()).filter(known);
            platforms.map(|platform| json!(platform)).collect()
        }
        _ => looked.platform.iter().map(|platform| json!(platform)).collect(),
    };
    let found = &looked.fetched.descriptor;
    json!({
        "Descriptor": { "mediaType": found.media_type, "digest": found.digest.to_string(), "size": found.size },
        "Platforms": platforms,
    })
}
