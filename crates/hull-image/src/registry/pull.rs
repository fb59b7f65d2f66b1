//! `pull`.

use std::io::Read as _;
use std::sync::Arc;

use hull_oci::image::{Descriptor, Document, ImageConfig, MAX_CONFIG_BYTES, Manifest, Platform, media_type};
use hull_oci::{Digest, Reference};
use hull_registry::client::Fetched;
use hull_registry::{Client, Remote};
use hull_trust::Subject;

use super::download::{Download, Partial};
use super::verify::Verification;
use super::{Event, Progress, in_parallel};
use crate::{Error, Image, LayerSource, Store, Transfer};

/// What to take.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// The platform to choose where there are several; this machine's if absent.
    pub platform: Option<Platform>,
    /// Layers that come at once.
    pub at_once: usize,
    /// Who must have signed it.
    pub verification: Verification,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { platform: None, at_once: 3, verification: Verification::default() }
    }
}

/// What was had.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// The name that it was asked by, with `latest` filled in.
    pub reference: Reference,
    /// Digest of what the name leads to: an index where there is one.
    pub digest: Digest,
    /// Whether the name led to another image, or to none, before.
    pub is_newer: bool,
}

/// Brings one image into the store. Nothing is recorded until all of it is there; what has come of a failed pull is kept
/// for the next one.
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
    let (fetched, manifest) = choose(&remote, top, options)?;
    let mut subjects = vec![Subject { digest: &digest, bytes: top_bytes.as_deref() }];
    subjects.push(Subject { digest: &fetched.descriptor.digest, bytes: Some(&fetched.bytes) });
    let checked = options.verification.check(&remote, &reference, &subjects, None)?;
    let before = store.find(&reference.to_string()).ok().map(|image| image.id);
    let mut names = vec![reference.with_digest(digest.clone())];
    if fetched.descriptor.digest != digest {
        names.push(reference.with_digest(fetched.descriptor.digest.clone()));
    }
    // A digest pins content; a tag beside it says where it once was and is not moved.
    if reference.digest().is_none() {
        names.push(reference.clone());
    }
    let transfer = store.begin()?;
    transfer.comes_with(checked.evidence);
    let config = configuration(&transfer, &remote, &manifest, options)?;
    let parsed = ImageConfig::parse(&config)?;
    let layers = layers(&remote, &manifest, &parsed)?;
    in_parallel(&layers, options.at_once.max(1), |(blob, diff_id)| layer(&transfer, &remote, blob, diff_id, progress))?;
    let document = (fetched.bytes.as_slice(), fetched.descriptor.media_type.as_str());
    let image = transfer.image(&config, Some(document), &names)?;
    let is_newer = before.as_ref() != Some(&image.id);
    Ok(Pulled { image, reference, digest, is_newer })
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

/// The manifest for the platform.
fn choose(remote: &Remote, top: Fetched, options: &PullOptions) -> Result<(Fetched, Manifest), Error> {
    let name = || format!("{}@{}", remote.name(), top.descriptor.digest);
    match &top.document {
        Document::Manifest(manifest) => {
            let manifest = Manifest::clone(manifest);
            Ok((top, manifest))
        }
        Document::Index(index) => {
            let platform = options.platform.clone().unwrap_or_else(Platform::native);
            let chosen = index.select(&platform).ok_or_else(|| {
                let offered: Vec<String> =
                    index.manifests.iter().filter_map(|one| one.platform.as_ref().map(ToString::to_string)).collect();
                let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
                Error::image(name(), format!("no matching manifest for {platform}; it has {offered}"))
            })?;
            let fetched = remote.manifest(&chosen.digest.to_string())?;
            match &fetched.document {
                Document::Manifest(manifest) => {
                    let manifest = Manifest::clone(manifest);
                    Ok((fetched, manifest))
                }
                Document::Index(_) => Err(Error::image(name(), "an index within an index for one platform")),
            }
        }
    }
}

/// The configuration's bytes, checked.
fn configuration(
    transfer: &Transfer,
    remote: &Remote,
    manifest: &Manifest,
    options: &PullOptions,
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
    // Only a platform that was asked for by name is insisted on.
    if let (Some(wanted), Ok(config)) = (&options.platform, ImageConfig::parse(&bytes))
        && config.platform.suits(wanted).is_none()
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
