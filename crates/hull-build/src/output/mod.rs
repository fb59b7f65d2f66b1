//! Outputs: what was built becomes an image of the store, an archive, files, or goes to a registry.
//!
//! Nothing is named before all of it is there: an image and its names appear at once. Files are written beside their
//! place and renamed.

mod archive;
mod push;

use std::collections::BTreeMap;

use hull_engine::Engine;
use hull_image::Transfer;
use hull_image::registry::{self, Predicate};
use hull_oci::image::{Descriptor, Manifest, Platform, media_type};
use hull_oci::{Digest, Reference};

use crate::graph::NodeId;
use crate::observer::{Event, Observer, StepId};
use crate::plan::Planned;
use crate::request::{Annotation, BuildRequest, Output, OutputKind};
use crate::sources::Sources;
use crate::{BuiltImage, Error, files};

/// What came out for one platform.
pub(crate) struct Ready<'p> {
    pub(crate) planned: &'p Planned,
    /// Diff IDs, lowest first.
    pub(crate) layers: Vec<Digest>,
    pub(crate) config: Vec<u8>,
}

/// Keeps how an image was built, which is for a platform.
pub(crate) type Attest<'a> = dyn Fn(&Digest, &Platform) -> Result<(), Error> + 'a;

/// What is to be said of an image in an index.
pub(crate) type Predicates<'a> = dyn Fn(&Ready<'_>) -> Result<Vec<Predicate>, Error> + 'a;

/// Writes all outputs.
pub(crate) struct Exporter<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) request: &'a BuildRequest,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) sources: &'a Sources<'a>,
    pub(crate) transfer: &'a Transfer,
    pub(crate) files: &'a files::Sources,
    /// Keeps how an image of the store was built.
    pub(crate) attest: &'a Attest<'a>,
    /// What is said of an image beside it.
    pub(crate) predicates: &'a Predicates<'a>,
}

/// What came of the outputs.
#[derive(Debug, Default)]
pub(crate) struct Exported {
    pub(crate) images: Vec<BuiltImage>,
    /// Digest of the last index that was pushed.
    pub(crate) index: Option<Digest>,
    /// Names in registries, and the manifest or index that each means now.
    pub(crate) pushed: Vec<(Reference, Digest)>,
}

impl Exporter<'_> {
    /// Does everything that was asked for.
    pub(crate) fn export(&self, ready: &[Ready<'_>]) -> Result<Exported, Error> {
        let default = [Output { kind: OutputKind::Image, destination: None, attributes: BTreeMap::new() }];
        let outputs = if self.request.outputs.is_empty() { &default[..] } else { &self.request.outputs };
        let mut built: Vec<BuiltImage> = ready
            .iter()
            .map(|one| BuiltImage {
                platform: one.planned.platform.clone(),
                id: Digest::of(&one.config),
                manifest: None,
                config: one.config.clone(),
                base_layers: one.planned.base_layers,
            })
            .collect();
        let mut exported = Exported::default();
        for output in outputs {
            match output.kind {
                OutputKind::CacheOnly => {}
                OutputKind::Local | OutputKind::Tar => self.files(output, ready)?,
                OutputKind::Image => self.image(output, ready, &mut built, &mut exported)?,
                OutputKind::Docker if output.destination.is_none() => {
                    self.image(output, ready, &mut built, &mut exported)?;
                }
                OutputKind::Docker | OutputKind::Oci => self.archive(output, ready)?,
            }
        }
        exported.images = built;
        Ok(exported)
    }

    /// The names that an output has: `name=` of its own, or the build's.
    pub(crate) fn names(&self, output: &Output) -> Result<Vec<Reference>, Error> {
        let Some(own) = output.attributes.get("name").filter(|own| !own.is_empty()) else {
            return Ok(self.request.tags.clone());
        };
        let parse = |name: &str| {
            let parsed = name.trim().parse::<Reference>().map(Reference::or_latest);
            parsed.map_err(|error| Error::Request(format!("name {name:?} of an output: {error}")))
        };
        own.split(',').map(parse).collect()
    }

    pub(crate) fn told(&self, step: StepId, id: &str) {
        self.observer.step(step, Event::Status { id, current: 0, total: 0, done: true });
    }

    /// A manifest, if annotations ask for one: they are nowhere else. It names the layers as they are, uncompressed.
    pub(crate) fn manifest(&self, ready: &Ready<'_>) -> Result<Option<Vec<u8>>, Error> {
        let for_it =
            |one: &&Annotation| one.platform.as_ref().is_none_or(|platform| *platform == ready.planned.platform);
        let annotations: Vec<&Annotation> = self.request.annotations.iter().filter(for_it).collect();
        if annotations.is_empty() {
            return Ok(None);
        }
        if let Some(other) = annotations.iter().find(|one| one.kind != "manifest") {
            let kind = other.kind.split('-').next().unwrap_or_default();
            return Err(Error::Request(format!("{kind} annotations not supported for single platform export")));
        }
        let layer = |diff_id: &Digest| {
            let found = self.transfer.find_layer(diff_id)?;
            let layer = found.ok_or_else(|| Error::Request(format!("layer {diff_id} is not in the store any more")))?;
            Ok(Descriptor::new(media_type::LAYER, diff_id.clone(), layer.tar_size))
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::MANIFEST.to_owned(),
            artifact_type: None,
            config: Descriptor::of(media_type::CONFIG, &ready.config),
            layers: ready.layers.iter().map(layer).collect::<Result<_, Error>>()?,
            annotations: annotations.into_iter().map(|one| (one.key.clone(), one.value.clone())).collect(),
            subject: None,
        };
        let failed = |error: serde_json::Error| Error::Request(format!("write the manifest: {error}"));
        serde_json::to_vec(&manifest).map(Some).map_err(failed)
    }

    /// Whether the image is in the store under all names: then nothing need be written.
    fn is_there(&self, id: &Digest, names: &[Reference]) -> Result<bool, Error> {
        let store = &self.engine.images;
        if !store.has(id)? {
            return Ok(false);
        }
        for name in names {
            if store.id_of(name)?.as_ref() != Some(id) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Images of the store; with `push`, also of their registries.
    fn image(
        &self,
        output: &Output,
        ready: &[Ready<'_>],
        built: &mut [BuiltImage],
        exported: &mut Exported,
    ) -> Result<(), Error> {
        let names = self.names(output)?;
        let is_set =
            |key: &str| output.attributes.get(key).is_some_and(|value| matches!(value.as_str(), "true" | "1" | ""));
        let (push, by_digest) = (is_set("push"), is_set("push-by-digest"));
        if by_digest && !push {
            return Err(Error::Request("push-by-digest: it is for images that are pushed: add push=true".to_owned()));
        }
        if push && names.is_empty() {
            return Err(Error::Request("tag is needed when pushing to registry".to_owned()));
        }
        let store = !output.attributes.get("store").is_some_and(|value| matches!(value.as_str(), "false" | "0"));
        let several = ready.len() > 1;
        self.sources.step("exporting to image", |step| {
            self.told(step, "exporting layers");
            for (one, built) in ready.iter().zip(built.iter_mut()) {
                let kept: &[Reference] = if store && !by_digest { &names } else { &[] };
                let manifest = self.manifest(one)?;
                let manifest = manifest.as_deref().map(|bytes| (bytes, media_type::MANIFEST));
                let id = Digest::of(&one.config);
                // Several have their names together, when all of them are there.
                let own: &[Reference] = if several { &[] } else { kept };
                if manifest.is_some() || !self.is_there(&id, own)? {
                    self.transfer.image(&one.config, manifest, own)?;
                }
                (self.attest)(&id, &one.planned.platform)?;
                self.told(step, &format!("writing image {id}"));
                for name in kept {
                    self.told(step, &format!("naming to {}", name_without_latest(name)));
                    hull_engine::events::emit_image(self.engine, "tag", &id.to_string(), &name.familiar());
                }
                built.id = id;
            }
            if several && store && !by_digest {
                let ids: Vec<Digest> = ready.iter().map(|one| Digest::of(&one.config)).collect();
                let other = |name: &&Reference| !matches!(self.engine.images.means_all(name, &ids), Ok(true));
                let names: Vec<Reference> = names.iter().filter(other).cloned().collect();
                self.engine.images.tag_all(&ids, &names)?;
            }
            Ok(())
        })?;
        if push {
            let said = ready.iter().map(|one| (self.predicates)(one)).collect::<Result<Vec<_>, _>>()?;
            self.push(built, &said, (&names, by_digest), exported)?;
        }
        Ok(())
    }
}

/// Tells of layers that go, in these words.
struct Layers<'a> {
    observer: &'a dyn Observer,
    step: StepId,
    verb: &'static str,
}

/// What hears of a step's layers: `verb` says what is done with each.
pub(crate) fn layers<'a>(observer: &'a dyn Observer, step: StepId, verb: &'static str) -> impl registry::Progress + 'a {
    Layers { observer, step, verb }
}

impl registry::Progress for Layers<'_> {
    fn layer(&self, layer: &Digest, event: registry::Event) {
        let (current, total, done) = match event {
            registry::Event::Pushing(current, total) => (current, total, false),
            registry::Event::Pushed | registry::Event::Exists | registry::Event::Mounted(_) => (0, 0, true),
            _ => return,
        };
        let id = format!("{} layer {layer}", self.verb);
        self.observer.step(self.step, Event::Status { id: &id, current, total, done });
    }
}

/// A name as BuildKit shows it here.
fn name_without_latest(name: &Reference) -> String {
    let text = name.to_string();
    text.strip_suffix(":latest").map_or(text.clone(), str::to_owned)
}

/// Whether a step made a layer, from what the solver said of all of them.
pub(crate) fn made_by(made: &BTreeMap<NodeId, bool>) -> impl Fn(NodeId) -> bool {
    |node| made.get(&node).copied().unwrap_or(true)
}
