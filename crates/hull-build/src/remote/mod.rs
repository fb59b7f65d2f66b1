//! Caches that machines share: `--cache-to` and `--cache-from`.
//!
//! ```text
//! registry, local   an artifact: manifest ── config: a Document of type MEDIA_TYPE
//!                                        └─ layers: what steps have added, in the order of the document's `layers`
//! inline            the records are in the image's own configuration, under INLINE; its layers are the image's
//! gha               entries of the cache of GitHub Actions: a Catalogue with the document, and each layer
//! ```
//!
//! A record says: the step of these keys came to these layers. Keys are those of [`crate::solve`], which hold no name of a
//! machine and no time, so that they are the same wherever the inputs are. Layers of base images are named and not sent:
//! whoever builds has the base.
//!
//! Documents are read when a step is first missed here, layers when a record of theirs is used. A record that was used is
//! kept as a result of this store.
//!
//! # Trust
//!
//! Documents and layers are bounded, and compared with their digests; a record's layers must begin with those of the base
//! and be no more than its steps can have made. But nothing can tell whether a step would have made just these layers:
//! **whoever can write a cache can put any files into what is built from it.** A cache is trusted like an image of the same
//! place. What cannot be read, is of another kind or not to be had, is said, and the steps are done.

mod actions;
mod document;
mod export;
mod import;

pub(crate) use export::{Exports, Results, Steps, inline};
pub(crate) use import::Expected;
pub use import::Imports;

use std::path::PathBuf;

use hull_image::registry::Packing;
use hull_oci::{Digest, Reference};

use crate::Error;
use crate::request::CacheEntry;

/// The type of a document.
pub const MEDIA_TYPE: &str = "application/vnd.hull.buildcache.config.v1+json";
/// The field of an image's configuration that holds records.
pub const INLINE: &str = "hull.buildcache.v1";
/// BuildKit's documents, which have other keys.
const BUILDKIT: &str = "application/vnd.buildkit.cacheconfig.v0";

/// Where a cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a registry, or with the image of that name.
    Registry {
        /// Its name.
        reference: Reference,
        /// Spoken to without certificates.
        insecure: bool,
    },
    /// In a layout.
    Local {
        /// The directory.
        directory: PathBuf,
        /// Which of its manifests.
        tag: String,
        /// Which of its manifests, whatever it is called.
        digest: Option<Digest>,
    },
    /// With a job of GitHub Actions.
    Actions(actions::Place),
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry { reference, .. } => write!(formatter, "{reference}"),
            Self::Local { directory, .. } => write!(formatter, "{}", directory.display()),
            Self::Actions(place) => write!(formatter, "gha:{}", place.scope),
        }
    }
}

/// Why there is no cache of an entry, where that is no mistake.
fn inactive(entry: &CacheEntry) -> Option<String> {
    let reason = (entry.kind == "gha").then(|| actions::lacking(entry)).flatten()?;
    Some(format!("cache of type gha is not used: {reason}: outside of GitHub Actions there is none"))
}

fn is_set(entry: &CacheEntry, key: &str) -> bool {
    entry.attributes.get(key).is_some_and(|value| matches!(value.as_str(), "true" | "1"))
}

/// The place of an entry; `directory` is the attribute that names a layout. `None` for kinds that have no place here.
fn place(entry: &CacheEntry, directory: &str) -> Result<Option<Place>, Error> {
    let text = |key: &str| entry.attributes.get(key).filter(|value| !value.is_empty());
    let needed =
        |key: &str| text(key).ok_or_else(|| Error::Request(format!("cache of type {}: {key} is required", entry.kind)));
    match entry.kind.as_str() {
        "registry" => {
            let name = needed("ref")?;
            let reference = name.parse::<Reference>().map(Reference::or_latest);
            let reference = reference.map_err(|error| Error::Request(format!("cache {name:?}: {error}")))?;
            Ok(Some(Place::Registry { reference, insecure: is_set(entry, "registry.insecure") }))
        }
        "local" => {
            let path = std::path::absolute(needed(directory)?).map_err(Error::io("resolve", needed(directory)?))?;
            let digest = text("digest").map(|digest| digest.parse::<Digest>()).transpose();
            let digest = digest.map_err(|error| Error::Request(format!("cache of type local: {error}")))?;
            let tag = text("tag").cloned().unwrap_or_else(|| "latest".to_owned());
            Ok(Some(Place::Local { directory: path, tag, digest }))
        }
        "gha" => actions::Place::of(entry).map(|place| Some(Place::Actions(place))),
        _ => Ok(None),
    }
}

/// What is exported, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Export {
    place: Place,
    /// Also the steps of which only a part is in the result.
    all: bool,
    packing: Packing,
    /// A failure is no failure of the build.
    lenient: bool,
}

impl Export {
    /// `None` for `inline`, which is part of the image.
    fn of(entry: &CacheEntry) -> Result<Option<Self>, Error> {
        let wrong = |reason: String| Error::Request(format!("cache of type {}: {reason}", entry.kind));
        let text = |key: &str| entry.attributes.get(key).map(String::as_str).unwrap_or_default();
        let all = match text("mode") {
            "" | "min" => false,
            "max" => true,
            other => return Err(wrong(format!("mode {other:?} is unknown: expected min or max"))),
        };
        if entry.kind == "inline" {
            return Ok(None);
        }
        let Some(place) = place(entry, "dest")? else {
            return Err(Error::Request(format!(
                "cache export of type {:?} is not supported: use type=registry,ref=NAME, type=local,dest=DIRECTORY, \
                 type=gha or type=inline",
                entry.kind
            )));
        };
        let packing = match text("compression") {
            "" | "gzip" => Packing::Gzip,
            "zstd" => Packing::Zstd,
            "uncompressed" => Packing::Plain,
            other => {
                return Err(wrong(format!("compression {other:?} is unknown: expected gzip, zstd or uncompressed")));
            }
        };
        Ok(Some(Self { place, all, packing, lenient: is_set(entry, "ignore-error") }))
    }
}

#[cfg(test)]
mod tests;
