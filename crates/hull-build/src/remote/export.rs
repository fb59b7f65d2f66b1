//! `--cache-to`.

use std::collections::{BTreeMap, BTreeSet};

use hull_image::Transfer;
use hull_image::registry::{self, Artifact, Pieces};
use hull_oci::Digest;
use hull_registry::Client;

use super::document::{Document, MAX_BYTES, Outcome};
use super::{Export, INLINE, MEDIA_TYPE, Place, inactive};
use crate::Error;
use crate::cache::Cache;
use crate::graph::{Graph, NodeId, Op};
use crate::observer::{Event, Observer, Warning};
use crate::request::BuildRequest;
use crate::sources::Sources;

/// The caches that a build writes.
#[derive(Debug)]
pub(crate) struct Exports {
    places: Vec<Export>,
    /// Records are wanted in images.
    pub(crate) inline: bool,
}

/// What the steps of a build are known by.
pub(crate) struct Steps<'a> {
    pub(crate) graph: &'a Graph,
    /// The definitions of all steps that the build needed.
    pub(crate) keys: &'a BTreeMap<NodeId, Digest>,
    /// The steps whose layers are in the results.
    pub(crate) results: &'a [NodeId],
}

/// What is written, and who hears of it.
#[derive(Clone, Copy)]
pub(crate) struct Results<'a> {
    pub(crate) transfer: &'a Transfer,
    pub(crate) steps: &'a Steps<'a>,
    pub(crate) sources: &'a Sources<'a>,
    pub(crate) observer: &'a dyn Observer,
}

impl Exports {
    /// What a request wants.
    ///
    /// # Errors
    /// What cannot be done, before anything is.
    pub(crate) fn new(request: &BuildRequest, observer: &dyn Observer) -> Result<Self, Error> {
        let mut places = Vec::new();
        for entry in &request.cache_to {
            if let Some(message) = inactive(entry) {
                observer.warning(&Warning { message, detail: None, url: None, lines: None });
                continue;
            }
            places.extend(Export::of(entry)?);
        }
        let argument =
            request.build_args.get("BUILDKIT_INLINE_CACHE").is_some_and(|value| matches!(value.as_str(), "1" | "true"));
        let inline = argument || request.cache_to.iter().any(|entry| entry.kind == "inline");
        Ok(Self { places, inline })
    }

    /// Writes them all.
    pub(crate) fn write(&self, built: &Results<'_>) -> Result<(), Error> {
        for export in &self.places {
            match export.write(built) {
                Err(error) if export.lenient => {
                    let reason = hull_oci::spec::one_line(&error.to_string());
                    let message = format!("cache is not exported to {}: {reason}", export.place);
                    built.observer.warning(&Warning { message, detail: None, url: None, lines: None });
                }
                result => result?,
            }
        }
        Ok(())
    }
}

impl Export {
    fn write(&self, built: &Results<'_>) -> Result<(), Error> {
        let Results { transfer, steps, sources, observer } = *built;
        let all: Vec<NodeId> = if self.all { steps.keys.keys().copied().collect() } else { steps.results.to_vec() };
        let words = match &self.place {
            Place::Registry { .. } => "exporting cache to registry",
            Place::Local { .. } => "exporting cache to client directory",
            Place::Actions(_) => "exporting to GitHub Actions Cache",
        };
        sources.step(words, |step| {
            let told = |text: &str| observer.step(step, Event::Status { id: text, current: 0, total: 0, done: true });
            let document = Document::new(&outcomes(transfer, steps, &all)?, &steps.bases());
            let failed = |error: serde_json::Error| Error::Request(format!("write the cache's records: {error}"));
            let config = serde_json::to_vec(&document).map_err(failed)?;
            if config.len() as u64 > MAX_BYTES {
                return Err(Error::Request(format!("the cache's records are longer than {MAX_BYTES} bytes")));
            }
            told("preparing build cache for export");
            let artifact = Artifact { media_type: MEDIA_TYPE, config: &config, layers: &document.layers };
            let progress = crate::output::layers(observer, step, "writing");
            let digest = match &self.place {
                Place::Registry { reference, insecure } => {
                    let client = if *insecure { Client::insecure() } else { Client::from_environment() };
                    registry::push_artifact(transfer, &client, reference, &artifact, self.packing, &progress)?
                }
                Place::Local { directory, tag, .. } => {
                    registry::write_artifact(transfer, directory, tag, &artifact, self.packing, &progress)?
                }
                Place::Actions(place) => {
                    let service = place.connect();
                    let pieces = Pieces::pack(transfer, &artifact, self.packing, &progress)?;
                    pieces.each(|blob, layer, open| {
                        service.save_blob(blob, open)?;
                        registry::Progress::layer(&progress, layer, registry::Event::Pushed);
                        Ok::<(), Error>(())
                    })?;
                    let blobs = pieces.blobs().cloned().collect();
                    service.save_catalogue(blobs, document)?
                }
            };
            told(&format!("writing cache image manifest {digest}"));
            Ok(())
        })
    }
}

impl Steps<'_> {
    /// Layers of base images.
    fn bases(&self) -> BTreeSet<Digest> {
        let images = self.graph.nodes.iter().filter_map(|node| match &node.op {
            Op::Image(image) => Some(image.layers.iter().cloned()),
            _ => None,
        });
        images.flatten().collect()
    }
}

/// The results of steps that are here; they stay for the transfer.
fn outcomes(transfer: &Transfer, steps: &Steps<'_>, all: &[NodeId]) -> Result<Vec<Outcome>, Error> {
    let cache = Cache::new(transfer.store());
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for id in all {
        let Some(key) = steps.keys.get(id).filter(|key| seen.insert((*key).clone())) else { continue };
        let Some(kept) = cache.kept(key)? else { continue };
        if transfer.lease_layers(&kept.layers, |_| Ok(()))? {
            let definition = key.clone();
            found.push(Outcome { definition, content: kept.content, layers: kept.layers, added: kept.added });
        }
    }
    Ok(found)
}

/// An image's configuration with the records of its steps.
pub(crate) fn inline(
    transfer: &Transfer,
    steps: &Steps<'_>,
    layers: &[Digest],
    mut config: Vec<u8>,
) -> Result<Vec<u8>, Error> {
    let document = Document::of_image(&outcomes(transfer, steps, steps.results)?, layers);
    let failed = |error: serde_json::Error| Error::Request(format!("write the image's records: {error}"));
    let records = serde_json::to_string(&document).map_err(failed)?;
    // A configuration is an object that is not empty.
    if config.pop() != Some(b'}') {
        return Err(Error::Request("the image's configuration is no object".to_owned()));
    }
    config.extend_from_slice(format!(",\"{INLINE}\":{records}}}").as_bytes());
    Ok(config)
}
