//! The OCI layout: `index.json`, and blobs by digest (image-spec `image-layout.md`).
//!
//! Each descriptor of `index.json` is an image, or an index of images for several platforms. Engines that keep indexes
//! write all descriptors but only the blobs they have, so the choice is among what is there. Manifests of other things (attestations, signatures, charts) are passed over.

use hull_oci::image::{
    Descriptor, Document, Index, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest, Platform, media_type,
};
use hull_oci::{Digest, Reference};
use serde::Deserialize;

use super::resolve::{
    Found, Images, LayerAt, MAX_IMAGES, Members, blob, blob_name, check_size, config, reference, refuse,
};
use crate::Error;

/// Indexes within indexes.
const MAX_DEPTH: usize = 4;

/// containerd's and Docker's annotation with a whole name.
pub(super) const NAME_ANNOTATION: &str = "io.containerd.image.name";

/// The specification's annotation: a tag, or with some writers a whole name.
pub(super) const REF_NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// What a layout may say of itself.
pub(crate) const LAYOUT_VERSION: &str = "1.0.0";

/// A manifest of the archive that may be chosen.
struct Candidate {
    descriptor: Descriptor,
    manifest: Box<Manifest>,
    bytes: Vec<u8>,
    config: Vec<u8>,
    platform: Platform,
}

/// Adds the images of `index.json`; whether there is one.
pub(super) fn read(
    members: &dyn Members,
    wanted: &[Platform],
    images: &mut Images,
    seen: &mut Vec<String>,
) -> Result<bool, Error> {
    let Some(bytes) = members.document("index.json", MAX_MANIFEST_BYTES)? else { return Ok(false) };
    check_version(members)?;
    let document =
        Document::parse(&bytes, Some(media_type::INDEX)).map_err(|error| refuse(format!("index.json: {error}")))?;
    let Document::Index(index) = document else { return Err(refuse("index.json is not an index")) };
    let mut budget = MAX_IMAGES;
    // Manifests that stand side by side with their platforms are one image for several machines.
    let mut side_by_side: Vec<(Option<Reference>, Vec<Candidate>)> = Vec::new();
    for descriptor in &index.manifests {
        let name = name(descriptor)?;
        let mut candidates = Vec::new();
        let mut listed = Vec::new();
        let nested = collect(members, descriptor, 1, &mut budget, (&mut candidates, &mut listed))?;
        if nested || descriptor.platform.is_none() {
            choose(candidates, name.as_ref(), wanted, nested.then_some(listed), images, seen)?;
            continue;
        }
        match side_by_side.iter_mut().find(|(other, _)| *other == name) {
            Some((_, group)) => group.append(&mut candidates),
            None => side_by_side.push((name, candidates)),
        }
    }
    for (name, group) in side_by_side {
        choose(group, name.as_ref(), wanted, None, images, seen)?;
    }
    for found in images.all() {
        check_layers(members, found)?;
    }
    Ok(true)
}

fn check_version(members: &dyn Members) -> Result<(), Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let Some(bytes) = members.document("oci-layout", 4096)? else { return Ok(()) };
    let layout: Layout = serde_json::from_slice(&bytes).map_err(|error| refuse(format!("oci-layout: {error}")))?;
    if layout.image_layout_version == LAYOUT_VERSION {
        return Ok(());
    }
    Err(refuse(format!("oci-layout: version {:?} is not {LAYOUT_VERSION}", layout.image_layout_version)))
}

/// A bare tag names no repository, so it names no image either.
fn name(descriptor: &Descriptor) -> Result<Option<Reference>, Error> {
    if let Some(text) = descriptor.annotations.get(NAME_ANNOTATION) {
        return reference(text);
    }
    match descriptor.annotations.get(REF_NAME_ANNOTATION) {
        Some(text) if text.contains([':', '/']) => reference(text),
        _ => Ok(None),
    }
}

/// Collects the image manifests behind a descriptor that the archive has, and the digests of all that indexes list;
/// whether it is an index.
fn collect(
    members: &dyn Members,
    descriptor: &Descriptor,
    depth: usize,
    budget: &mut usize,
    (found, listed): (&mut Vec<Candidate>, &mut Vec<Digest>),
) -> Result<bool, Error> {
    if depth > MAX_DEPTH {
        return Err(refuse(format!("indexes are nested more than {MAX_DEPTH} deep")));
    }
    *budget =
        budget.checked_sub(1).ok_or_else(|| refuse(format!("index.json leads to more than {MAX_IMAGES} manifests")))?;
    let what = blob_name(&descriptor.digest);
    let bytes = blob(members, descriptor, MAX_MANIFEST_BYTES)?;
    let said = Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty());
    match Document::parse(&bytes, said).map_err(|error| refuse(format!("{what}: {error}")))? {
        Document::Index(index) => {
            listed.extend(index.manifests.iter().take(MAX_IMAGES).map(|one| one.digest.clone()));
            for descriptor in present(members, &index)? {
                collect(members, descriptor, depth + 1, budget, (found, listed))?;
            }
            Ok(true)
        }
        Document::Manifest(manifest) => {
            if is_image(&manifest) {
                let config_bytes = blob(members, &manifest.config, MAX_CONFIG_BYTES)?;
                let parsed = config(&config_bytes, &blob_name(&manifest.config.digest))?;
                let platform = descriptor.platform.clone().unwrap_or(parsed.platform);
                let descriptor = descriptor.clone();
                found.push(Candidate { descriptor, manifest, bytes, config: config_bytes, platform });
            }
            Ok(false)
        }
    }
}

/// The manifests of a nested index that the archive has; when it has none of them, the first is to be missed by name.
fn present<'i>(members: &dyn Members, index: &'i Index) -> Result<Vec<&'i Descriptor>, Error> {
    let mut there = Vec::new();
    let mut missing = None;
    for descriptor in index.manifests.iter().filter(|descriptor| !is_statement(descriptor)) {
        match members.size(&blob_name(&descriptor.digest))? {
            Some(_) => there.push(descriptor),
            None => missing = missing.or(Some(descriptor)),
        }
    }
    if there.is_empty() {
        there.extend(missing);
    }
    Ok(there)
}

fn is_statement(descriptor: &Descriptor) -> bool {
    let unknown = |platform: &Platform| platform.os == "unknown" && platform.architecture == "unknown";
    descriptor.is_attestation() || descriptor.platform.as_ref().is_some_and(unknown)
}

fn is_image(manifest: &Manifest) -> bool {
    let config = manifest.config.media_type.as_str();
    matches!(config, media_type::CONFIG | media_type::DOCKER_CONFIG | "")
        && (manifest.layers.is_empty() || manifest.layers.iter().any(|layer| media_type::is_layer(&layer.media_type)))
}

/// Takes what is wanted of one image's manifests: the best for each platform. When nothing is asked for, these are all
/// platforms of a name, and of what has none the image for this machine. Equals that stand side by side are all taken if
/// they have no name, of an index only the first.
fn choose(
    candidates: Vec<Candidate>,
    name: Option<&Reference>,
    wanted: &[Platform],
    listed: Option<Vec<Digest>>,
    images: &mut Images,
    seen: &mut Vec<String>,
) -> Result<(), Error> {
    let nested = listed.is_some();
    let siblings = listed.unwrap_or_else(|| candidates.iter().map(|one| one.descriptor.digest.clone()).collect());
    let mut taken = vec![false; candidates.len()];
    if wanted.is_empty() && (name.is_some() || candidates.len() == 1) {
        // A single one is taken whatever it is for: whoever moved it here knows why.
        for (place, one) in candidates.iter().enumerate() {
            taken[place] = !nested || !candidates[..place].iter().any(|other| other.platform == one.platform);
        }
    } else {
        let native = [Platform::native()];
        for platform in if wanted.is_empty() { &native[..] } else { wanted } {
            let score = |one: &Candidate| one.platform.suits(platform);
            let Some(best) = candidates.iter().filter_map(score).max() else { continue };
            let mut fits = candidates.iter().enumerate().filter(|(_, one)| score(one) == Some(best));
            match nested {
                true => fits.next().into_iter().for_each(|(place, _)| taken[place] = true),
                false => fits.for_each(|(place, _)| taken[place] = true),
            }
        }
    }
    if !taken.contains(&true) {
        seen.extend(candidates.iter().map(|one| one.platform.to_string()));
        return Ok(());
    }
    let group = candidates.into_iter().zip(taken).filter(|(_, taken)| *taken);
    let group = group.map(|(candidate, _)| Ok((candidate.platform.clone(), found(candidate, name, &siblings)?)));
    let group: Vec<(Platform, Found)> = group.collect::<Result<_, Error>>()?;
    for (place, (platform, one)) in group.iter().enumerate() {
        let other = group[..place].iter().find(|(other, two)| other == platform && two.id != one.id);
        if let (Some(_), Some(name)) = (other, name) {
            return Err(refuse(format!("it gives the name {name} to two images for {platform}")));
        }
    }
    images.add_all(group.into_iter().map(|(_, found)| found).collect())
}

fn found(candidate: Candidate, name: Option<&Reference>, siblings: &[Digest]) -> Result<Found, Error> {
    let Candidate { descriptor, manifest, bytes, config: config_bytes, .. } = candidate;
    let manifest = *manifest;
    let id = Digest::of(&config_bytes);
    let what = blob_name(&descriptor.digest);
    let config = config(&config_bytes, &blob_name(&manifest.config.digest))?;
    // Builders put statements beside layers; those are never unpacked.
    let all = manifest.layers.len();
    let other = manifest.layers.iter().find(|layer| !media_type::is_layer(&layer.media_type));
    let other = other.map(|layer| format!(" and a blob of unknown type {:?}", layer.media_type)).unwrap_or_default();
    let blobs: Vec<Descriptor> =
        manifest.layers.into_iter().filter(|layer| media_type::is_layer(&layer.media_type)).collect();
    // A manifest that names what the store does not keep could not be written again.
    let whole = blobs.len() == all;
    if blobs.len() != config.rootfs.diff_ids.len() {
        return Err(refuse(format!(
            "{what}: {} layers{other}, but its configuration has {}",
            blobs.len(),
            config.rootfs.diff_ids.len()
        )));
    }
    let layers = blobs.into_iter().zip(config.rootfs.diff_ids);
    let layers =
        layers.map(|(blob, diff_id)| LayerAt { member: blob_name(&blob.digest), diff_id, blob: Some(blob) }).collect();
    let media_type = [manifest.media_type, descriptor.media_type].into_iter().find(|text| !text.is_empty());
    let media_type = media_type.unwrap_or_else(|| media_type::MANIFEST.to_owned());
    let names = name.cloned().into_iter().collect();
    Ok(Found {
        id,
        config: config_bytes,
        manifest: whole.then_some((bytes, media_type)),
        names,
        layers,
        siblings: siblings.to_vec(),
    })
}

/// Whether the layers are there and as long as they should be, before any of them is read.
fn check_layers(members: &dyn Members, found: &Found) -> Result<(), Error> {
    for layer in &found.layers {
        let Some(blob) = &layer.blob else { continue };
        match members.size(&layer.member)? {
            Some(size) => check_size(&layer.member, size, blob)?,
            None => return Err(refuse(format!("{} is missing", layer.member))),
        }
    }
    Ok(())
}
