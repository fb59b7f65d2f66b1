//! What `inspect` shows of an image, in Docker's shape.

use hull_image::Image;
use hull_oci::Reference;
use serde_json::{Value, json};

use crate::time;

/// The document of one image.
#[must_use]
pub fn document(image: &Image) -> Value {
    let config = &image.config;
    let mut defaults = json!({
        "User": "", "Env": null, "Cmd": null, "Entrypoint": null, "Volumes": null, "WorkingDir": "", "OnBuild": null,
        "Labels": null,
    });
    if let (Some(fields), Ok(Value::Object(own))) = (defaults.as_object_mut(), serde_json::to_value(&config.config)) {
        fields.extend(own);
    }
    let last = config.history.last().and_then(|step| step.comment.clone());
    let layers: Vec<String> = config.rootfs.diff_ids.iter().map(ToString::to_string).collect();
    let kind = image.layers.first().map_or("erofs", |layer| layer.kind.as_str());
    let added = u64::try_from(image.added).unwrap_or(0).saturating_mul(time::SECOND);
    let mut document = json!({
        "Id": image.id.to_string(),
        "RepoTags": tags(image),
        "RepoDigests": digests(image),
        "Parent": "",
        "Comment": config.comment.clone().or(last).unwrap_or_default(),
        "Created": config.created.clone().unwrap_or_else(|| super::NEVER.to_owned()),
        "DockerVersion": "",
        "Author": config.author.clone().unwrap_or_default(),
        "Config": defaults,
        "Architecture": config.platform.architecture,
        "Os": config.platform.os,
        "Size": image.size,
        "GraphDriver": { "Name": kind, "Data": null },
        "RootFS": { "Type": "layers", "Layers": layers },
        "Metadata": { "LastTagTime": time::short(added) },
    });
    if let Some(fields) = document.as_object_mut() {
        if let Some(variant) = &config.platform.variant {
            fields.insert("Variant".to_owned(), variant.as_str().into());
        }
        if let Some(manifest) = &image.manifest {
            fields.insert("Descriptor".to_owned(), json!({ "digest": manifest.to_string() }));
        }
    }
    document
}

/// The names of an image, as users write them.
#[must_use]
pub fn tags(image: &Image) -> Vec<String> {
    image.names.iter().map(Reference::familiar).collect()
}

/// The repositories of an image with the digests that it has there, as users write them.
#[must_use]
pub fn digests(image: &Image) -> Vec<String> {
    let whole = image.repo_digests.iter().map(|(repository, digest)| format!("{repository}@{digest}"));
    whole.map(|name| name.parse::<Reference>().map_or(name, |name| name.familiar())).collect()
}
