//! Lists of manifests that are put together here and pushed: what `hull manifest` works on.
//!
//! A list is `manifest-lists/DIGEST-OF-ITS-NAME.json` below the store, replaced by rename; the directory's lock is held
//! while one is changed. The images in it are in registries: only their manifests' descriptors are kept.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hull_fs::lock::Lock;
use hull_oci::image::{Descriptor, Document, ImageConfig, Index, MAX_CONFIG_BYTES, Manifest, Platform, media_type};
use hull_oci::{Digest, Reference};
use hull_registry::client::{Content, Fetched, Put};
use hull_registry::{Client, Remote};
use serde::{Deserialize, Serialize};

use super::blob_bytes;
use crate::{Error, Store};

/// A record of at most this many bytes is read.
const MAX_RECORD: u64 = 8 << 20;

/// A list holds at most so many manifests.
const MAX_ENTRIES: usize = 1000;

/// A manifest of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is, as the user named it, whole.
    pub reference: String,
    /// Type, digest, length and platform.
    pub descriptor: Descriptor,
}

/// A list as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The name that it is pushed under.
    pub name: String,
    /// Its manifests, in order.
    pub entries: Vec<Entry>,
}

/// What a name in a registry leads to: one manifest with its platform, or several.
#[derive(Clone, Debug)]
pub struct Looked {
    /// The whole name.
    pub reference: Reference,
    /// The manifest or index.
    pub fetched: Fetched,
    /// Where the image runs, by its configuration; none for an index or an artifact.
    pub platform: Option<Platform>,
}

/// The lists of a store.
#[derive(Debug)]
pub struct Lists {
    directory: PathBuf,
    _lock: Lock,
}

impl Lists {
    /// Opens them, after whoever else changes one is done.
    ///
    /// # Errors
    /// When the directory cannot be made or locked.
    pub fn open(store: &Store) -> Result<Self, Error> {
        let directory = store.root().join("manifest-lists");
        crate::disk::create_private(&directory)?;
        let opened = fs::File::open(&directory).map_err(Error::io("open", &directory))?;
        let lock = Lock::exclusive_on(opened.into(), &directory)?;
        Ok(Self { directory, _lock: lock })
    }

    fn path(&self, name: &Reference) -> PathBuf {
        self.directory.join(format!("{}.json", Digest::of(name.to_string().as_bytes()).hex()))
    }

    /// The list of this name, if there is one.
    ///
    /// # Errors
    /// When its record is damaged.
    pub fn get(&self, name: &Reference) -> Result<Option<List>, Error> {
        let path = self.path(name);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
            Ok(metadata) if metadata.len() > MAX_RECORD => {
                return Err(Error::damaged(path.display().to_string(), "it is too long"));
            }
            Ok(_) => {}
        }
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let list = serde_json::from_slice(&bytes);
        list.map(Some).map_err(|error| Error::damaged(path.display().to_string(), error))
    }

    /// Keeps a list, in place of the one of its name.
    ///
    /// # Errors
    /// When it is too long or cannot be written.
    pub fn put(&self, name: &Reference, list: &List) -> Result<(), Error> {
        if list.entries.len() > MAX_ENTRIES {
            return Err(Error::image(name, format!("a manifest list has at most {MAX_ENTRIES} manifests")));
        }
        let bytes = serde_json::to_vec_pretty(list).map_err(|error| Error::image(name, error.to_string()))?;
        Ok(hull_fs::atomic::write_path(&self.path(name), &bytes, 0o600)?)
    }

    /// Forgets a list. Says whether there was one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, name: &Reference) -> Result<bool, Error> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("remove", &path)(error)),
        }
    }
}

/// A list as Docker writes it, byte for byte: the same list has the same digest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<Line<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    media_type: &'a str,
    size: u64,
    digest: &'a Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a Platform>,
}

/// The word that the registry is asked for.
fn wanted(reference: &Reference) -> String {
    reference.digest().map(ToString::to_string).or(reference.tag().map(str::to_owned)).unwrap_or_default()
}

/// Asks a registry what a name leads to.
///
/// # Errors
/// When the registry fails or refuses, or what it sends is not what it should be.
pub fn look(client: &Arc<Client>, reference: &Reference) -> Result<Looked, Error> {
    let reference = reference.clone().or_latest();
    let remote = client.pull_from(&reference)?;
    let fetched = remote.manifest(&wanted(&reference))?;
    let platform = platform(&remote, &fetched)?;
    Ok(Looked { reference, fetched, platform })
}

/// The manifests that an index names, each as [`look`] gives it.
///
/// # Errors
/// As [`look`].
pub fn look_into(client: &Arc<Client>, reference: &Reference, index: &Index) -> Result<Vec<Looked>, Error> {
    let remote = client.pull_from(reference)?;
    let one = |descriptor: &Descriptor| {
        let fetched = remote.manifest(&descriptor.digest.to_string())?;
        let reference = reference.with_digest(descriptor.digest.clone());
        Ok(Looked { reference, fetched, platform: descriptor.platform.clone() })
    };
    index.manifests.iter().take(MAX_ENTRIES).map(one).collect()
}

/// Manifests that say something about an image: signatures, lists of contents.
///
/// # Errors
/// As [`look`].
pub fn referrers(
    client: &Arc<Client>,
    reference: &Reference,
    artifact_type: Option<&str>,
) -> Result<(Digest, Vec<Descriptor>), Error> {
    let reference = reference.clone().or_latest();
    let remote = client.pull_from(&reference)?;
    let digest = match reference.digest() {
        Some(digest) => digest.clone(),
        None => remote.manifest(&wanted(&reference))?.descriptor.digest,
    };
    let found = remote.referrers(&digest, artifact_type)?;
    Ok((digest, found))
}

fn platform(remote: &Remote, fetched: &Fetched) -> Result<Option<Platform>, Error> {
    let Document::Manifest(manifest) = &fetched.document else { return Ok(None) };
    let blob = &manifest.config;
    let is_config = matches!(blob.media_type.as_str(), media_type::CONFIG | media_type::DOCKER_CONFIG);
    if !is_config || blob.size > MAX_CONFIG_BYTES {
        return Ok(None);
    }
    let bytes = blob_bytes(remote, blob)?;
    Ok(Some(ImageConfig::parse(&bytes)?.platform))
}

impl List {
    /// The document that is pushed: Docker's list, or an OCI index when all manifests are OCI's.
    ///
    /// # Errors
    /// [`Error::Image`] for one that cannot be written.
    pub fn document(&self) -> Result<(Vec<u8>, &'static str), Error> {
        let oci = !self.entries.is_empty()
            && self.entries.iter().all(|entry| entry.descriptor.media_type == media_type::MANIFEST);
        let kind = if oci { media_type::INDEX } else { media_type::DOCKER_INDEX };
        let manifests = self.entries.iter().map(|Entry { descriptor, .. }| Line {
            media_type: &descriptor.media_type,
            size: descriptor.size,
            digest: &descriptor.digest,
            platform: descriptor.platform.as_ref(),
        });
        let written = Written { schema_version: 2, media_type: kind, manifests: manifests.collect() };
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"   ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        written.serialize(&mut serializer).map_err(|error| Error::image(&self.name, error.to_string()))?;
        Ok((bytes, kind))
    }
}

/// Pushes a list. What its manifests need is brought into the list's repository first: mounted where both are in one
/// registry, copied otherwise. `each` hears of every manifest's digest. Returns the list's own.
///
/// # Errors
/// When a registry fails or refuses.
pub fn push_list(
    client: &Arc<Client>,
    name: &Reference,
    list: &List,
    each: &mut dyn FnMut(&Digest),
) -> Result<Digest, Error> {
    let target = client.push_to(name)?;
    for entry in &list.entries {
        let digest = &entry.descriptor.digest;
        let source: Reference = entry.reference.parse()?;
        if source.repository() != name.repository() {
            let remote = client.pull_from(&source)?;
            let fetched = remote.manifest(&digest.to_string())?;
            if let Document::Manifest(manifest) = &fetched.document {
                copy(&remote, &target, &source, name, manifest)?;
            }
            target.put_manifest(&digest.to_string(), &fetched.descriptor.media_type, &fetched.bytes)?;
        }
        each(digest);
    }
    let (bytes, kind) = list.document()?;
    let tag = wanted(name);
    target.put_manifest(&tag, kind, &bytes)?;
    Ok(Digest::of(&bytes))
}

pub(super) fn copy(
    from: &Remote,
    to: &Remote,
    source: &Reference,
    name: &Reference,
    manifest: &Manifest,
) -> Result<(), Error> {
    let mounted: Vec<String> =
        (source.domain() == name.domain()).then(|| source.path().to_owned()).into_iter().collect();
    // What may be had elsewhere only is not for copying.
    let layers = manifest.layers.iter().filter(|layer| layer.urls.is_empty());
    for blob in layers.chain([&manifest.config]) {
        let put = Put { sources: &mounted, chunk: None };
        to.put_blob(blob, &There { remote: from, blob }, &put)?;
    }
    Ok(())
}

/// A blob of another repository, read as it is sent on. The registry that takes it compares it with its digest.
struct There<'a> {
    remote: &'a Remote,
    blob: &'a Descriptor,
}

impl Content for There<'_> {
    fn open(&self, offset: u64) -> io::Result<Box<dyn io::Read>> {
        let mut found = self.remote.blob(self.blob, offset).map_err(io::Error::other)?;
        let skip = offset.saturating_sub(found.start);
        io::copy(&mut io::Read::take(&mut found.reader, skip), &mut io::sink())?;
        Ok(found.reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_kept_and_forgotten() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::new(&directory.path().join("data"));
        let name: Reference = "r.example/app:1".parse().expect("reference");
        let lists = Lists::open(&store).expect("lists");
        assert_eq!(lists.get(&name).expect("read"), None);
        let descriptor = Descriptor::of(media_type::MANIFEST, b"{}");
        let entry = Entry { reference: "r.example/app:amd64".to_owned(), descriptor };
        let mut list = List { name: name.to_string(), entries: vec![entry] };
        lists.put(&name, &list).expect("kept");
        assert_eq!(lists.get(&name).expect("read").as_ref(), Some(&list));
        assert_eq!(list.document().expect("document").1, media_type::INDEX);
        list.entries[0].descriptor.media_type = media_type::DOCKER_MANIFEST.to_owned();
        assert_eq!(list.document().expect("document").1, media_type::DOCKER_INDEX);
        assert!(lists.remove(&name).expect("removed"));
        assert!(!lists.remove(&name).expect("nothing there"));
        fs::write(lists.path(&name), "{").expect("written");
        assert!(lists.get(&name).expect_err("damaged").to_string().contains("damaged"));
    }
}
