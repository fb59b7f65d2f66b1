//! Records as they are written and read.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hull_oci::Digest;
use hull_oci::image::MAX_LAYERS;
use serde::{Deserialize, Serialize};

use super::INLINE;

/// A longer document is refused.
pub(super) const MAX_BYTES: u64 = 16 << 20;
/// A document of more records is refused.
const MAX_RECORDS: usize = 50_000;

/// What a cache holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Document {
    /// Diff IDs of the manifest's layers, in its order. With an image these are the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) layers: Vec<Digest>,
    /// Diff IDs of base images' layers, which are not sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) bases: Vec<Digest>,
    /// Results.
    pub(super) records: Vec<Record>,
}

/// A result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The step's definition.
    pub(super) definition: Digest,
    /// The step with the contents that it was done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<Digest>,
    /// Its layers, lowest first: places in `layers`, and then in `bases`.
    pub(super) layers: Vec<u32>,
    /// The last one is the step's own.
    pub(super) added: bool,
}

/// A result of this store that is to be written.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) definition: Digest,
    pub(super) content: Option<Digest>,
    pub(super) layers: Vec<Digest>,
    pub(super) added: bool,
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) content: Option<Digest>,
    pub(super) layers: Vec<Digest>,
    pub(super) added: bool,
}

/// A document that was read, by its records' keys.
#[derive(Debug)]
pub(super) struct Records {
    document: Document,
    by_key: HashMap<Digest, usize>,
}

impl Document {
    /// The document of some results. Layers of `bases` are not sent; at most so many are that a manifest may have, and
    /// what has others is left out.
    pub(super) fn new(results: &[Outcome], bases: &BTreeSet<Digest>) -> Self {
        let mut document = Self::default();
        let mut places: BTreeMap<&Digest, (bool, usize)> = BTreeMap::new();
        let mut taken: Vec<&Outcome> = Vec::new();
        for result in results.iter().take(MAX_RECORDS) {
            let new: BTreeSet<&Digest> =
                result.layers.iter().filter(|one| !bases.contains(*one) && !places.contains_key(one)).collect();
            if document.layers.len() + new.len() > MAX_LAYERS || result.layers.len() > MAX_LAYERS {
                continue;
            }
            for layer in &result.layers {
                let base = bases.contains(layer);
                let list = if base { &mut document.bases } else { &mut document.layers };
                places.entry(layer).or_insert_with(|| {
                    list.push(layer.clone());
                    (base, list.len() - 1)
                });
            }
            taken.push(result);
        }
        let own = document.layers.len();
        for result in taken {
            let place = |layer: &Digest| {
                let (base, index) = places.get(layer)?;
                u32::try_from(if *base { own + index } else { *index }).ok()
            };
            document.records.push(Record {
                definition: result.definition.clone(),
                content: result.content.clone(),
                layers: result.layers.iter().filter_map(place).collect(),
                added: result.added,
            });
        }
        document
    }

    /// Records whose layers are all of an image.
    pub(super) fn of_image(results: &[Outcome], diff_ids: &[Digest]) -> Self {
        let mut document = Self::default();
        for result in results {
            let place = |layer: &Digest| {
                let found = diff_ids.iter().position(|one| one == layer)?;
                u32::try_from(found).ok()
            };
            let Some(layers) = result.layers.iter().map(place).collect::<Option<Vec<u32>>>() else { continue };
            document.records.push(Record {
                definition: result.definition.clone(),
                content: result.content.clone(),
                layers,
                added: result.added,
            });
        }
        document
    }

    /// Reads a document. Its own `layers` must be as many as its manifest has.
    pub(super) fn parse(bytes: &[u8], layers: usize) -> Result<Self, String> {
        let document: Self = serde_json::from_slice(bytes).map_err(|error| format!("its records: {error}"))?;
        document.checked(layers)
    }

    /// A document that was read. Its own `layers` must be so many.
    pub(super) fn checked(self, layers: usize) -> Result<Self, String> {
        if self.layers.len() != layers {
            return Err(format!("its records are of {} layers, it has {layers}", self.layers.len()));
        }
        self.bounded()
    }

    /// The records in an image's configuration, if it has any.
    pub(super) fn parse_inline(config: &[u8]) -> Result<Option<Self>, String> {
        #[derive(Deserialize)]
        struct Holder {
            #[serde(rename = "hull.buildcache.v1")]
            document: Option<Document>,
            rootfs: Layers,
        }
        #[derive(Deserialize)]
        struct Layers {
            diff_ids: Vec<Digest>,
        }
        debug_assert_eq!(INLINE, "hull.buildcache.v1");
        let holder: Holder = serde_json::from_slice(config).map_err(|error| format!("its configuration: {error}"))?;
        let Some(mut document) = holder.document else { return Ok(None) };
        document.layers = holder.rootfs.diff_ids;
        document.bases.clear();
        document.bounded().map(Some)
    }

    fn bounded(self) -> Result<Self, String> {
        if self.records.len() > MAX_RECORDS {
            return Err(format!("it has more than {MAX_RECORDS} records"));
        }
        if self.records.iter().any(|record| record.layers.len() > MAX_LAYERS) {
            return Err(format!("a record has more than {MAX_LAYERS} layers"));
        }
        Ok(self)
    }

    /// The records by their keys. What names a layer that there is not is none.
    pub(super) fn known(self) -> Records {
        let mut by_key = HashMap::new();
        for (index, record) in self.records.iter().enumerate() {
            let whole = record.layers.iter().all(|place| self.layer(*place).is_some());
            if whole && !(record.added && record.layers.is_empty()) {
                for key in record.content.iter().chain([&record.definition]) {
                    by_key.entry(key.clone()).or_insert(index);
                }
            }
        }
        Records { document: self, by_key }
    }

    fn layer(&self, place: u32) -> Option<&Digest> {
        let place = usize::try_from(place).ok()?;
        self.layers.get(place).or_else(|| self.bases.get(place.checked_sub(self.layers.len())?))
    }
}

impl Records {
    /// The record of a key. Its layers are named only here: a document of 16 MiB names some million.
    pub(super) fn get(&self, key: &Digest) -> Option<Known> {
        let record = &self.document.records[*self.by_key.get(key)?];
        let layers = record.layers.iter().filter_map(|place| self.document.layer(*place).cloned()).collect();
        Some(Known { content: record.content.clone(), layers, added: record.added })
    }

    /// How many keys there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}
