//! `pull`.

use std::io::Read as _;
use std::sync::Arc;

use hull_oci::image::{Descriptor, Document, ImageConfig, MAX_CONFIG_BYTES, Manifest, Platform, media_type};
use hull_oci::{Digest, Reference};
use hull_registry::client::Fetched;
use hull_registry::{Client, Remote};
use hull_trust::Subject;

use super::download::{Download, Partial};
use super::verify::{Checked, Verification};
use super::{Event, Progress, in_parallel};
use crate::{Error, Image, LayerSource, Store, Transfer};

/// Manifests that are taken of one index.
const MAX_PLATFORMS: usize = 64;

/// What to take.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// The platforms to take where there are several; this machine's if there are none.
    pub platforms: Vec<Platform>,
    /// Every platform, whatever `platforms` says.
    pub all_platforms: bool,
    /// Layers that come at once.
    pub at_once: usize,
    /// Who must have signed it.
    pub verification: Verification,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { platforms: Vec::new(), all_platforms: false, at_once: 3, verification: Verification::default() }
    }
}

/// What was had.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image; of several platforms the first that was asked for.
    pub image: Image,
    /// The name that it was asked by, with `latest` filled in.
    pub reference: Reference,
    /// Digest of what the name leads to: an index where there is one.
    pub digest: Digest,
    /// Whether the name led to other images, or to none, before.
    pub is_newer: bool,
}

/// One manifest that is taken.
struct Chosen {
    fetched: Fetched,
    manifest: Manifest,
    /// The platforms that it was asked for; only what was asked for by name is insisted on.
    wanted: Vec<Platform>,
    checked: Checked,
    config: Vec<u8>,
}

/// Brings an image into the store, for one platform or several. Nothing is recorded until all of it is there; what has
/// come of a failed pull is kept for the next one. What the name means on other platforms stays, as long as it leads to
/// the same index.
///
/// # Errors
/// When the registry fails or refuses, when what it sends is not what it should be, or when the store cannot take it.
pub fn pull(
    store: &Store,
    client: &Arc<Client>,
    reference: &Reference,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Pulled, Error> {
    let reference = reference.clone().or_latest();
    let remote = client.pull_from(&reference)?;
    let wanted = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    let top = remote.manifest(&wanted)?;
    let digest = top.descriptor.digest.clone();
    let top_bytes = matches!(top.document, Document::Index(_)).then(|| top.bytes.clone());
    let transfer = store.begin()?;
    if let Some(bytes) = &top_bytes {
        transfer.comes_from(&digest, bytes, &top.descriptor.media_type)?;
    }
    let mut images = Vec::new();
    for (fetched, manifest, wanted) in choose(&remote, top, options)? {
        let mut subjects = vec![Subject { digest: &digest, bytes: top_bytes.as_deref() }];
        subjects.push(Subject { digest: &fetched.descriptor.digest, bytes: Some(&fetched.bytes) });
        let checked = options.verification.check(&remote, &reference, &subjects, None)?;
        images.push(Chosen { fetched, manifest, wanted, checked, config: Vec::new() });
    }
    let before = store.find_all(&reference.to_string()).unwrap_or_default();
    let mut blobs: Vec<(Descriptor, Digest)> = Vec::new();
    for one in &mut images {
        one.config = configuration(&transfer, &remote, &one.manifest, &one.wanted)?;
        for (blob, diff_id) in layers(&remote, &one.manifest, &ImageConfig::parse(&one.config)?)? {
            if !blobs.iter().any(|(_, known)| *known == diff_id) {
                blobs.push((blob, diff_id));
            }
        }
    }
    in_parallel(&blobs, options.at_once.max(1), |(blob, diff_id)| layer(&transfer, &remote, blob, diff_id, progress))?;
    let image = record(&transfer, &reference, &digest, &before, images)?;
    let known = store.find_all(&reference.to_string()).unwrap_or_default();
    let is_newer = known.iter().any(|one| !before.iter().any(|other| other.id == one.id));
    Ok(Pulled { image, reference, digest, is_newer })
}

/// Records what has come, and gives it its names. Returns the first image.
fn record(
    transfer: &Transfer,
    reference: &Reference,
    digest: &Digest,
    before: &[Image],
    images: Vec<Chosen>,
) -> Result<Image, Error> {
    let store = transfer.store();
    // A digest pins content; a tag beside it says where it once was and is not moved.
    let tag = (reference.digest().is_none()).then(|| reference.clone());
    let ids: Vec<Digest> = images.iter().map(|one| one.manifest.config.digest.clone()).collect();
    let own = |image: &Image| ids.contains(&image.id);
    let here = (reference.repository(), digest.clone());
    let same_index = tag.is_some() && before.first().is_some_and(|one| one.repo_digests.contains(&here));
    let stay = before.iter().filter(|one| same_index && !own(one));
    let all: Vec<Digest> = ids.iter().cloned().chain(stay.map(|one| one.id.clone())).collect();
    let native = Platform::native();
    let suits = |config: &ImageConfig| config.platform.suits(&native).is_some();
    // The index's digest is known with the image that the name means where no platform is asked for.
    let mut means = ids.first().cloned();
    if let Some(other) = before.iter().find(|one| all.contains(&one.id) && !own(one) && suits(&one.config)) {
        means = Some(other.id.clone());
    }
    for one in &images {
        if suits(&ImageConfig::parse(&one.config)?) {
            means = Some(one.manifest.config.digest.clone());
            break;
        }
    }
    let mut first = None;
    for Chosen { fetched, manifest, checked, config, .. } in images {
        let is_meant = means.as_ref() == Some(&manifest.config.digest);
        let mut names = Vec::new();
        if is_meant {
            names.push(reference.with_digest(digest.clone()));
        }
        if fetched.descriptor.digest != *digest {
            names.push(reference.with_digest(fetched.descriptor.digest.clone()));
        }
        if all.len() == 1 {
            names.extend(tag.clone());
        }
        transfer.comes_with(checked.evidence);
        let document = (fetched.bytes.as_slice(), fetched.descriptor.media_type.as_str());
        let image = transfer.image(&config, Some(document), &names)?;
        first.get_or_insert(image);
    }
    let first = first.ok_or_else(|| Error::image(reference.familiar(), "it has no manifest for any platform"))?;
    if all.len() == 1 {
        return Ok(first);
    }
    if let Some(tag) = tag {
        store.tag_all(&all, &[tag])?;
    }
    store.get(&first.id)
}

/// Brings every tag of a repository into the store, in the registry's order. `each` hears of a tag before, and after with
/// what was had.
///
/// # Errors
/// As [`pull`]; the images before stay.
pub fn pull_all(
    store: &Store,
    client: &Arc<Client>,
    repository: &Reference,
    options: &PullOptions,
    progress: &dyn Progress,
    each: &mut dyn FnMut(&Reference, Option<&Pulled>),
) -> Result<(), Error> {
    for tag in client.pull_from(repository)?.tags()?.words {
        let reference = repository.with_tag(&tag)?;
        each(&reference, None);
        let pulled = pull(store, client, &reference, options, progress)?;
        each(&reference, Some(&pulled));
    }
    Ok(())
}

/// The manifests for the platforms, each once, with the platforms that it was asked for.
fn choose(
    remote: &Remote,
    top: Fetched,
    options: &PullOptions,
) -> Result<Vec<(Fetched, Manifest, Vec<Platform>)>, Error> {
    let name = || format!("{}@{}", remote.name(), top.descriptor.digest);
    let asked = if options.all_platforms { &[][..] } else { options.platforms.as_slice() };
    let index = match &top.document {
        Document::Manifest(manifest) => {
            let manifest = Manifest::clone(manifest);
            return Ok(vec![(top, manifest, asked.to_vec())]);
        }
        Document::Index(index) => index,
    };
    let mut chosen: Vec<(&Descriptor, Vec<Platform>)> = Vec::new();
    if options.all_platforms {
        let unknown = |platform: &Platform| platform.os == "unknown" || platform.architecture == "unknown";
        for descriptor in index.manifests.iter().filter(|one| !one.is_attestation()) {
            let other = descriptor.platform.as_ref().is_some_and(unknown);
            if !other && !chosen.iter().any(|(known, _)| known.digest == descriptor.digest) {
                chosen.push((descriptor, Vec::new()));
            }
        }
        if chosen.len() > MAX_PLATFORMS {
            return Err(Error::image(
                name(),
                format!("it has more than {MAX_PLATFORMS} platforms: name those you need"),
            ));
        }
    } else {
        let native = [Platform::native()];
        for platform in if asked.is_empty() { &native[..] } else { asked } {
            let descriptor = index.select(platform).ok_or_else(|| {
                let offered: Vec<String> =
                    index.manifests.iter().filter_map(|one| one.platform.as_ref().map(ToString::to_string)).collect();
                let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
                Error::image(name(), format!("no matching manifest for {platform}; it has {offered}"))
            })?;
            let wanted = (!asked.is_empty()).then(|| platform.clone());
            match chosen.iter_mut().find(|(known, _)| known.digest == descriptor.digest) {
                Some((_, platforms)) => platforms.extend(wanted),
                None => chosen.push((descriptor, wanted.into_iter().collect())),
            }
        }
    }
    let mut fetched = Vec::with_capacity(chosen.len());
    for (descriptor, wanted) in chosen {
        let one = remote.manifest(&descriptor.digest.to_string())?;
        let Document::Manifest(manifest) = &one.document else {
            return Err(Error::image(name(), "an index within an index for one platform"));
        };
        let manifest = Manifest::clone(manifest);
        fetched.push((one, manifest, wanted));
    }
    Ok(fetched)
}

/// The configuration's bytes, checked.
fn configuration(
    transfer: &Transfer,
    remote: &Remote,
    manifest: &Manifest,
    wanted: &[Platform],
) -> Result<Vec<u8>, Error> {
    let blob = &manifest.config;
    let image = || format!("{}@{}", remote.name(), blob.digest);
    if !matches!(blob.media_type.as_str(), media_type::CONFIG | media_type::DOCKER_CONFIG) {
        let kind = manifest.artifact_type.as_deref().unwrap_or(&blob.media_type);
        return Err(Error::image(remote.name(), format!("it is no image but an artifact of type {kind:?}")));
    }
    if blob.size > MAX_CONFIG_BYTES {
        return Err(Error::image(
            image(),
            format!("its configuration has {} bytes, at most {MAX_CONFIG_BYTES} are read", blob.size),
        ));
    }
    let mut bytes = Vec::new();
    if transfer.has_blob(&blob.digest)? {
        let file = transfer.open_blob(&blob.digest)?;
        file.take(blob.size + 1).read_to_end(&mut bytes).map_err(Error::io("read", "configuration"))?;
    } else {
        bytes = remote.blob_bytes(blob)?;
    }
    super::check(remote.name(), blob, &bytes)?;
    if let Ok(config) = ImageConfig::parse(&bytes)
        && let Some(wanted) = wanted.iter().find(|wanted| config.platform.suits(wanted).is_none())
    {
        return Err(Error::image(image(), format!("it is for {}, not for {wanted}", config.platform)));
    }
    Ok(bytes)
}

/// Each layer once, with its diff ID.
fn layers(remote: &Remote, manifest: &Manifest, config: &ImageConfig) -> Result<Vec<(Descriptor, Digest)>, Error> {
    let diff_ids = &config.rootfs.diff_ids;
    if manifest.layers.len() != diff_ids.len() {
        let reason = format!("{} layers, and a configuration of {}", manifest.layers.len(), diff_ids.len());
        return Err(Error::image(remote.name(), reason));
    }
    let mut layers: Vec<(Descriptor, Digest)> = Vec::new();
    for (blob, diff_id) in manifest.layers.iter().zip(diff_ids) {
        if !media_type::is_layer(&blob.media_type) {
            return Err(Error::image(remote.name(), format!("a layer of unknown type {:?}", blob.media_type)));
        }
        if !layers.iter().any(|(_, known)| known == diff_id) {
            layers.push((blob.clone(), diff_id.clone()));
        }
    }
    Ok(layers)
}

pub(super) fn layer(
    transfer: &Transfer,
    remote: &Remote,
    blob: &Descriptor,
    diff_id: &Digest,
    progress: &dyn Progress,
) -> Result<(), Error> {
    progress.layer(&blob.digest, Event::Waiting);
    if transfer.has_layer(diff_id)? {
        progress.layer(&blob.digest, Event::Exists);
        return Ok(());
    }
    let partial = Partial::open(transfer.store(), blob)?;
    // Another command may have fetched it while this one waited for the file.
    if transfer.has_layer(diff_id)? {
        progress.layer(&blob.digest, Event::Exists);
        return partial.discard();
    }
    let download = Download::new(remote, blob, &partial, progress)?;
    let source = LayerSource { blob: Some(blob.clone()), diff_id: Some(diff_id.clone()), keep_blob: false };
    match transfer.layer(download, source) {
        Ok(_) => {}
        Err(error) => {
            // What is whole and still wrong would be wrong again.
            if partial.len() >= blob.size || partial.len() == 0 {
                partial.discard()?;
            }
            // What the registry said names it already.
            if error.to_string().contains(remote.name()) {
                return Err(error);
            }
            let (blob, repository) = (blob.digest.clone(), remote.name().to_owned());
            return Err(Error::Pull { blob, repository, source: Box::new(error) });
        }
    }
    transfer.keep_file(partial.path(), blob, diff_id)?;
    progress.layer(&blob.digest, Event::PullComplete);
    Ok(())
}
