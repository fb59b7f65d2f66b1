//! `--cache-from`: documents that are read when they are first needed, and layers that come when their record is used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hull_image::registry::{self, Layout};
use hull_image::{LayerSource, Store, Transfer};
use hull_oci::Digest;
use hull_oci::image::{Descriptor, Document as Manifests, MAX_CONFIG_BYTES, Manifest, Platform, media_type};
use hull_registry::{Client, Remote};

use super::actions::Service;
use super::document::{Document, Known, MAX_BYTES, Records};
use super::{BUILDKIT, MEDIA_TYPE, Place, inactive, place};
use crate::Error;
use crate::observer::{Event, Observer, StepId, Warning};
use crate::request::CacheEntry;
use crate::sources::Pulling;

/// Numbers of steps beside the graph from here on are of imports.
const STEPS: u32 = 1 << 30;
/// Layers that come from a service at once.
const LAYERS: usize = 4;

/// Caches of other machines. Empty by default.
#[derive(Debug, Default)]
pub struct Imports {
    places: Vec<Place>,
    platforms: Vec<Platform>,
    /// What could be read of them, once somebody has asked.
    opened: Mutex<Option<Arc<Vec<Source>>>>,
}

/// One document.
#[derive(Debug)]
struct Source {
    name: String,
    records: Records,
    blobs: HashMap<Digest, Descriptor>,
    from: From,
}

/// Where layers come from.
#[derive(Debug)]
enum From {
    Registry(Remote),
    Local(Layout),
    Actions(Box<Service>),
    /// They are here.
    Store,
}

/// What a record must be like to be taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    /// Its layers begin with these.
    pub(crate) below: &'a [Digest],
    /// And are at most so many more.
    pub(crate) more: usize,
}

/// A record that was taken: its layers are in the transfer.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) layers: Vec<Digest>,
    pub(crate) added: bool,
    pub(crate) content: Option<Digest>,
    /// The cache that it is of.
    pub(crate) name: String,
}

impl Imports {
    /// The caches of a request. Those of kinds that are not known are said.
    pub(crate) fn new(entries: &[CacheEntry], platforms: &[Platform], observer: &dyn Observer) -> Result<Self, Error> {
        let mut places = Vec::new();
        for entry in entries {
            if let Some(message) = inactive(entry) {
                say(observer, message);
                continue;
            }
            match place(entry, "src")? {
                Some(place) => places.push(place),
                None => say(
                    observer,
                    format!("cache import of type {:?} is not supported: results of the store are used", entry.kind),
                ),
            }
        }
        let platforms = if platforms.is_empty() { vec![Platform::native()] } else { platforms.to_vec() };
        Ok(Self { places, platforms, opened: Mutex::default() })
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn sources(&self, store: &Store, observer: &dyn Observer) -> Arc<Vec<Source>> {
        // Several threads may be the first: the others wait.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*opened {
            return Arc::clone(opened);
        }
        let mut all = Vec::new();
        for (number, place) in (STEPS..).zip(&self.places) {
            let step = StepId::Beside(number);
            observer.step(step, Event::Started { name: &format!("importing cache manifest from {place}") });
            match self.open(place, store) {
                Ok(sources) => {
                    all.extend(sources);
                    observer.step(step, Event::Done);
                }
                Err(error) => {
                    let reason = hull_oci::spec::one_line(&error.to_string());
                    observer.step(step, Event::Failed { reason: &reason });
                    say(observer, format!("cache of {place} is not used: {reason}"));
                }
            }
        }
        let all = Arc::new(all);
        *opened = Some(Arc::clone(&all));
        all
    }

    fn open(&self, place: &Place, store: &Store) -> Result<Vec<Source>, Error> {
        match place {
            Place::Local { directory, tag, digest } => {
                let layout = Layout::open(directory)?;
                let found = layout.find(tag, digest.as_ref())?;
                let found = found.ok_or_else(|| refused(format!("there is no manifest {tag:?}")))?;
                let manifest = one(found)?;
                let name = place.to_string();
                let document = document_of(&manifest, |blob, most| Ok(layout.bytes(blob, most)?))?;
                Ok(document
                    .map(|document| source(name, document, &manifest, From::Local(layout)))
                    .into_iter()
                    .collect())
            }
            Place::Actions(actions) => {
                let service = actions.connect();
                let Some(catalogue) = service.catalogue()? else { return Ok(Vec::new()) };
                let blobs = catalogue.document.layers.iter().cloned().zip(catalogue.blobs).collect();
                let (name, records) = (place.to_string(), catalogue.document.known());
                Ok(vec![Source { name, records, blobs, from: From::Actions(Box::new(service)) }])
            }
            Place::Registry { reference, insecure } => {
                let mut all = Vec::new();
                if let Ok(image) = store.find(&reference.to_string())
                    && let Some(document) = Document::parse_inline(&store.config_bytes(&image.id)?).map_err(refused)?
                {
                    let records = document.known();
                    all.push(Source { name: place.to_string(), records, blobs: HashMap::new(), from: From::Store });
                }
                let client = if *insecure { Client::insecure() } else { Client::from_environment() };
                match self.ask(&client, reference) {
                    Ok(sources) => all.extend(sources),
                    Err(_) if !all.is_empty() => {}
                    Err(error) => return Err(error),
                }
                Ok(all)
            }
        }
    }

    /// What a registry has: a cache, or an image with records, for each platform.
    fn ask(&self, client: &Arc<Client>, reference: &hull_oci::Reference) -> Result<Vec<Source>, Error> {
        let remote = client.pull_from(reference)?;
        let wanted = reference.digest().map(ToString::to_string).or(reference.tag().map(str::to_owned));
        let top = remote.manifest(wanted.as_deref().unwrap_or("latest"))?;
        let manifests = match top.document {
            Manifests::Manifest(manifest) => vec![*manifest],
            Manifests::Index(index) => {
                if index.manifests.iter().any(|one| one.media_type == BUILDKIT) {
                    return Err(other_kind());
                }
                let mut chosen: Vec<&Descriptor> = Vec::new();
                for one in self.platforms.iter().filter_map(|platform| index.select(platform)) {
                    if chosen.iter().all(|known| known.digest != one.digest) {
                        chosen.push(one);
                    }
                }
                let read = |one: &Descriptor| self::one(remote.manifest(&one.digest.to_string())?.document);
                chosen.into_iter().map(read).collect::<Result<_, _>>()?
            }
        };
        let mut all = Vec::new();
        for manifest in manifests {
            let read = |blob: &Descriptor, most: u64| {
                if blob.size > most {
                    return Err(refused(format!("it is longer than {most} bytes")));
                }
                let bytes = remote.blob_bytes(blob)?;
                let mut hasher = blob.digest.hasher();
                hasher.update(&bytes);
                if bytes.len() as u64 != blob.size || hasher.finish() != blob.digest {
                    return Err(refused(format!("its document is not what its digest {} says", blob.digest)));
                }
                Ok(bytes)
            };
            if let Some(document) = document_of(&manifest, read)? {
                all.push(source(reference.to_string(), document, &manifest, From::Registry(remote.clone())));
            }
        }
        if all.is_empty() {
            return Err(refused("the image has no records: build it with --cache-to=type=inline".to_owned()));
        }
        Ok(all)
    }

    /// The first record of a key that can be had and is as it should be. Its layers belong to the transfer then.
    pub(crate) fn take(
        &self,
        transfer: &Transfer,
        key: &Digest,
        expected: Expected<'_>,
        step: (StepId, &str),
        observer: &dyn Observer,
    ) -> Result<Option<Taken>, Error> {
        if self.is_empty() {
            return Ok(None);
        }
        for source in &*self.sources(transfer.store(), observer) {
            let Some(known) = source.records.get(key).filter(|known| expected.fits(known)) else { continue };
            let mut missing = Vec::new();
            let mut whole = true;
            for layer in &known.layers {
                if transfer.has_layer(layer)? {
                    continue;
                }
                match source.blobs.get(layer) {
                    Some(blob) => missing.push((blob.clone(), layer.clone())),
                    None => whole = false,
                }
            }
            if !whole {
                continue;
            }
            if let Err(error) = source.fetch(transfer, &missing, step, observer) {
                let reason = hull_oci::spec::one_line(&error.to_string());
                say(observer, format!("cache of {} is not used for {}: {reason}", source.name, step.1));
                continue;
            }
            return Ok(Some(Taken {
                layers: known.layers,
                added: known.added,
                content: known.content,
                name: source.name.clone(),
            }));
        }
        Ok(None)
    }
}

impl Expected<'_> {
    fn fits(&self, known: &Known) -> bool {
        let own = known.layers.len().checked_sub(self.below.len());
        known.layers.starts_with(self.below)
            && own.is_some_and(|own| own <= self.more && own >= usize::from(known.added))
    }
}

impl Source {
    fn fetch(
        &self,
        transfer: &Transfer,
        layers: &[(Descriptor, Digest)],
        (step, name): (StepId, &str),
        observer: &dyn Observer,
    ) -> Result<(), Error> {
        if layers.is_empty() {
            return Ok(());
        }
        observer.step(step, Event::Started { name });
        match &self.from {
            From::Registry(remote) => {
                registry::fetch(transfer, remote, layers, &Pulling { observer, step })?;
            }
            From::Local(layout) => layout.fetch(transfer, layers)?,
            From::Actions(service) => registry::at_once(layers, LAYERS, |(blob, diff_id)| {
                let id = format!("extracting {}", blob.digest);
                let told = |current: u64, total: u64| {
                    let done = current == total;
                    observer.step(step, Event::Status { id: &id, current, total, done });
                };
                let source = LayerSource { blob: Some(blob.clone()), diff_id: Some(diff_id.clone()), keep_blob: false };
                transfer.layer(service.blob(blob, &told), source).map(drop)
            })?,
            From::Store => return Err(refused("its layers are not in the store any more".to_owned())),
        }
        Ok(())
    }
}

fn say(observer: &dyn Observer, message: String) {
    observer.warning(&Warning { message, detail: None, url: None, lines: None });
}

fn refused(reason: String) -> Error {
    Error::Request(reason)
}

fn other_kind() -> Error {
    refused("it is a cache of BuildKit, whose records have other keys: export it with hull build --cache-to".to_owned())
}

fn one(document: Manifests) -> Result<Manifest, Error> {
    match document {
        Manifests::Manifest(manifest) => Ok(*manifest),
        Manifests::Index(index) if index.manifests.iter().any(|one| one.media_type == BUILDKIT) => Err(other_kind()),
        Manifests::Index(_) => Err(refused("it is an index within an index".to_owned())),
    }
}

/// The records that a manifest leads to, if it has any.
fn document_of(
    manifest: &Manifest,
    read: impl Fn(&Descriptor, u64) -> Result<Vec<u8>, Error>,
) -> Result<Option<Document>, Error> {
    let config = &manifest.config;
    match config.media_type.as_str() {
        MEDIA_TYPE => Document::parse(&read(config, MAX_BYTES)?, manifest.layers.len()).map(Some).map_err(refused),
        media_type::CONFIG | media_type::DOCKER_CONFIG => {
            let document = Document::parse_inline(&read(config, MAX_CONFIG_BYTES)?).map_err(refused)?;
            match document {
                Some(document) if document.layers.len() != manifest.layers.len() => {
                    Err(refused("its configuration has other layers than its manifest".to_owned()))
                }
                document => Ok(document),
            }
        }
        BUILDKIT => Err(other_kind()),
        other => Err(refused(format!("it is no cache but an artifact of type {other:?}"))),
    }
}

fn source(name: String, document: Document, manifest: &Manifest, from: From) -> Source {
    let blobs = document.layers.iter().cloned().zip(manifest.layers.iter().cloned()).collect();
    Source { name, records: document.known(), blobs, from }
}
