//! Docker's archive: `manifest.json`, with paths instead of digests (moby `image/tarexport`).

use hull_oci::Digest;
use hull_oci::image::{MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Platform};
use serde::Deserialize;

use super::names;
use super::resolve::{Found, Images, LayerAt, MAX_IMAGES, Members, config, reference, refuse, required};
use crate::Error;

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Adds the images of `manifest.json`; whether there is one.
pub(super) fn read(
    members: &dyn Members,
    wanted: &[Platform],
    images: &mut Images,
    seen: &mut Vec<String>,
) -> Result<bool, Error> {
    let Some(bytes) = members.document("manifest.json", MAX_MANIFEST_BYTES)? else { return Ok(false) };
    let items: Vec<Item> = serde_json::from_slice(&bytes).map_err(|error| refuse(format!("manifest.json: {error}")))?;
    if items.len() > MAX_IMAGES {
        return Err(refuse(format!("manifest.json: more than {MAX_IMAGES} images")));
    }
    for item in &items {
        if let Some(found) = image(members, item, wanted, seen)? {
            images.add(found)?;
        }
    }
    Ok(true)
}

fn image(
    members: &dyn Members,
    item: &Item,
    wanted: &[Platform],
    seen: &mut Vec<String>,
) -> Result<Option<Found>, Error> {
    let member = |name: &str| {
        names::clean(name).ok_or_else(|| refuse(format!("manifest.json: {name:?} is no name within the archive")))
    };
    let name = member(&item.config)?;
    let bytes = required(members, &name, MAX_CONFIG_BYTES)?;
    let id = Digest::of(&bytes);
    let said = name.rsplit('/').next().unwrap_or(&name);
    let said = said.strip_suffix(".json").unwrap_or(said);
    if said != id.hex() && Digest::from_hex(said).is_ok() {
        return Err(refuse(format!("{name} has digest {id}")));
    }
    let config = config(&bytes, &name)?;
    if !wanted.is_empty() && !wanted.iter().any(|wanted| config.platform.suits(wanted).is_some()) {
        seen.push(config.platform.to_string());
        return Ok(None);
    }
    let paths = item.layers.as_deref().unwrap_or_default();
    if paths.len() != config.rootfs.diff_ids.len() {
        return Err(refuse(format!(
            "manifest.json: {} layers, but {name} has {}",
            paths.len(),
            config.rootfs.diff_ids.len()
        )));
    }
    let mut layers = Vec::with_capacity(paths.len());
    for (path, diff_id) in paths.iter().zip(config.rootfs.diff_ids) {
        layers.push(LayerAt { member: member(path)?, diff_id, blob: None });
    }
    let mut names = Vec::new();
    for tag in item.repo_tags.iter().flatten() {
        names.extend(reference(tag)?);
    }
    Ok(Some(Found { id, config: bytes, manifest: None, names, layers, siblings: Vec::new() }))
}
