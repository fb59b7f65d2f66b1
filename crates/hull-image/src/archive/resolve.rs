//! What images an archive holds: pure reading of its documents, whatever the archive is.
//!
//! ```text
//! index.json ──(manifest | index, at most 4 deep)──> manifest ──> config, layers     OCI layout
//! manifest.json ─────────────────────────────────────────────────> config, layers     Docker archive
//! ```
//!
//! Docker writes both since version 25; then the layout gives the original manifests and `manifest.json` adds names. A
//! name that the two give to different images is refused. Every document is bounded, and has the digest and the size by
//! which it is pointed at before it is parsed. No layer is read here.

use std::collections::BTreeMap;

use hull_oci::image::{Descriptor, ImageConfig, MAX_CONFIG_BYTES, Platform};
use hull_oci::spec::one_line;
use hull_oci::{Digest, Reference};

use super::{docker, layout};
use crate::Error;

/// Documents of one archive are held in memory; more than this is no image.
pub(super) const MAX_DOCUMENTS_BYTES: u64 = 64 << 20;

/// Images of one archive.
pub(super) const MAX_IMAGES: usize = 1000;

/// An archive's members by name. Names are those of [`super::names::clean`].
pub(super) trait Members {
    /// The length of a member; `None` when there is none of that name.
    fn size(&self, name: &str) -> Result<Option<u64>, Error>;

    /// The content of a small member; `None` when there is none of that name.
    fn document(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, Error>;
}

/// An image that an archive holds.
#[derive(Debug)]
pub(super) struct Found {
    /// The configuration's digest.
    pub(super) id: Digest,
    /// The configuration as it is.
    pub(super) config: Vec<u8>,
    /// The manifest as it is and its media type, if the archive has one.
    pub(super) manifest: Option<(Vec<u8>, String)>,
    /// Its names.
    pub(super) names: Vec<Reference>,
    /// Its layers, lowest first.
    pub(super) layers: Vec<LayerAt>,
    /// The manifests of the index that it was chosen from, whether the archive has them or not.
    pub(super) siblings: Vec<Digest>,
}

/// A layer within the archive.
#[derive(Debug)]
pub(super) struct LayerAt {
    /// The member that is its blob.
    pub(super) member: String,
    /// The digest of its uncompressed content, as the configuration says.
    pub(super) diff_id: Digest,
    /// The blob, as the manifest says.
    pub(super) blob: Option<Descriptor>,
}

/// One line about an archive that is refused.
pub(super) fn refuse(reason: impl AsRef<str>) -> Error {
    Error::Archive(one_line(reason.as_ref()))
}

/// Finds the images of an archive for the platforms `wanted`. When nothing is asked for, what has a name is taken for all
/// platforms that are there, and of what has none the image for this machine.
pub(super) fn resolve(members: &dyn Members, wanted: &[Platform]) -> Result<Vec<Found>, Error> {
    let mut images = Images::default();
    let mut seen = Vec::new();
    let is_layout = layout::read(members, wanted, &mut images, &mut seen)?;
    let is_docker = docker::read(members, wanted, &mut images, &mut seen)?;
    if images.list.is_empty() {
        return Err(none_found(members, wanted, is_layout || is_docker, &seen));
    }
    Ok(images.list)
}

fn none_found(members: &dyn Members, wanted: &[Platform], is_image: bool, seen: &[String]) -> Error {
    if !is_image {
        return match members.size("repositories") {
            Err(error) => error,
            Ok(Some(_)) => refuse("it was written by docker before 1.10: load it there and save it again"),
            Ok(None) => refuse("it has neither manifest.json nor index.json: `hull import` reads root file systems"),
        };
    }
    if seen.is_empty() {
        return refuse("it holds no image");
    }
    let platforms: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    let platform = if platforms.is_empty() { Platform::native().to_string() } else { platforms.join(", ") };
    let mut seen = seen.to_vec();
    seen.sort();
    seen.dedup();
    seen.truncate(16);
    refuse(format!("it holds no image for {platform}, only {}; see --platform", seen.join(", ")))
}

/// The images found so far.
#[derive(Debug, Default)]
pub(super) struct Images {
    list: Vec<Found>,
    /// The images that a name means; several where these are for different platforms.
    names: BTreeMap<Reference, Vec<Digest>>,
    bytes: u64,
}

impl Images {
    /// All of them.
    pub(super) fn all(&self) -> &[Found] {
        &self.list
    }

    /// The image of this ID, if it has been found.
    pub(super) fn get(&mut self, id: &Digest) -> Option<&mut Found> {
        self.list.iter_mut().find(|found| found.id == *id)
    }

    /// Adds the images of one name for several platforms.
    pub(super) fn add_all(&mut self, group: Vec<Found>) -> Result<(), Error> {
        let ids: Vec<Digest> = group.iter().map(|found| found.id.clone()).collect();
        for name in group.iter().flat_map(|found| &found.names) {
            let known = self.names.entry(name.clone()).or_insert_with(|| ids.clone());
            if ids.iter().any(|id| !known.contains(id)) {
                return Err(refuse(format!("it gives the name {name} to two images")));
            }
        }
        group.into_iter().try_for_each(|found| self.insert(found))
    }

    /// Adds an image; one that is there already only gets the names.
    pub(super) fn add(&mut self, found: Found) -> Result<(), Error> {
        self.add_all(vec![found])
    }

    fn insert(&mut self, found: Found) -> Result<(), Error> {
        if let Some(present) = self.get(&found.id) {
            if present.layers.len() != found.layers.len() {
                return Err(refuse(format!("image {} has two lists of layers", found.id)));
            }
            for name in found.names {
                if !present.names.contains(&name) {
                    present.names.push(name);
                }
            }
            return Ok(());
        }
        self.bytes += found.config.len() as u64 + found.manifest.as_ref().map_or(0, |(bytes, _)| bytes.len() as u64);
        if self.list.len() == MAX_IMAGES || self.bytes > MAX_DOCUMENTS_BYTES {
            return Err(refuse(format!(
                "it holds more than {MAX_IMAGES} images or {MAX_DOCUMENTS_BYTES} bytes of them"
            )));
        }
        self.list.push(found);
        Ok(())
    }
}

/// Parses a configuration and checks that it can be one of a runnable image.
pub(super) fn config(bytes: &[u8], what: &str) -> Result<ImageConfig, Error> {
    let config = ImageConfig::parse(bytes).map_err(|error| refuse(format!("{what}: {error}")))?;
    if config.rootfs.kind != "layers" {
        return Err(refuse(format!("{what}: rootfs.type is {:?}, not \"layers\"", config.rootfs.kind)));
    }
    Ok(config)
}

/// Reads a configuration or manifest that the archive must have.
pub(super) fn required(members: &dyn Members, name: &str, max: u64) -> Result<Vec<u8>, Error> {
    members.document(name, max)?.ok_or_else(|| refuse(format!("{name} is missing")))
}

/// Reads a document by its descriptor: its size and digest are checked.
pub(super) fn blob(members: &dyn Members, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>, Error> {
    let name = blob_name(&descriptor.digest);
    let bytes = required(members, &name, max.min(MAX_CONFIG_BYTES))?;
    check_size(&name, bytes.len() as u64, descriptor)?;
    let mut hasher = descriptor.digest.hasher();
    hasher.update(&bytes);
    let found = hasher.finish();
    if found != descriptor.digest {
        return Err(refuse(format!("{name} has digest {found}")));
    }
    Ok(bytes)
}

/// Refuses a member that has not the size by which it is pointed at.
pub(super) fn check_size(name: &str, found: u64, descriptor: &Descriptor) -> Result<(), Error> {
    if found == descriptor.size {
        return Ok(());
    }
    Err(refuse(format!("{name} has {found} bytes, its descriptor says {}", descriptor.size)))
}

/// Where a layout keeps a blob.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// Parses a name of an archive; a digest alone is no name of a local image.
pub(super) fn reference(text: &str) -> Result<Option<Reference>, Error> {
    let name: Reference = text.parse().map_err(|error| refuse(format!("name {text:?}: {error}")))?;
    if name.digest().is_none() {
        return Ok(Some(name.or_latest()));
    }
    Ok(name.tag().and_then(|tag| name.with_tag(tag).ok()))
}
