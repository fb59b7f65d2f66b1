//! Manifests, tags and referrers.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use hull_oci::Digest;
use hull_oci::image::{Descriptor, Document, media_type};
use hyper::StatusCode;
use serde_json::{Value, json};

use super::{Storage, hashed, names, remove_durable, write};
use crate::content::{Put, Stored};
use crate::refusal::Refusal;
use crate::route::Target;

/// A media type is at most so long.
const MAX_TYPE: usize = 255;

fn unknown(name: &str, target: &Target) -> Refusal {
    let text = match target {
        Target::Tag(tag) => format!("{name}:{tag}"),
        Target::Digest(digest) => format!("{name}@{digest}"),
    };
    Refusal::missing("MANIFEST_UNKNOWN", format!("manifest {text} is not known"))
}

/// A digest, and another in the next line.
fn two(text: &str) -> io::Result<(Digest, Option<Digest>)> {
    let parse = |text: &str| text.parse::<Digest>().map_err(io::Error::other);
    let mut lines = text.lines();
    let first = parse(lines.next().unwrap_or_default())?;
    Ok((first, lines.next().map(parse).transpose()?))
}

fn invalid(reason: impl Into<String>) -> Refusal {
    Refusal::bad("MANIFEST_INVALID", reason)
}

impl Storage {
    fn manifest_path(&self, name: &str, digest: &Digest) -> PathBuf {
        hashed(&self.repository(name).join("_manifests"), digest)
    }

    pub(super) fn tag_path(&self, name: &str, tag: &str) -> PathBuf {
        self.repository(name).join("_tags").join(tag)
    }

    pub(crate) fn image_path(&self, name: &str, digest: &Digest) -> PathBuf {
        hashed(&self.repository(name).join("_images"), digest)
    }

    /// What a tag leads to, and the image that it made.
    pub(crate) fn read_tag(&self, name: &str, tag: &str) -> io::Result<(Digest, Option<Digest>)> {
        two(&fs::read_to_string(self.tag_path(name, tag))?)
    }

    /// Whether a repository has a manifest.
    pub(crate) fn has_manifest(&self, name: &str, digest: &Digest) -> bool {
        self.manifest_path(name, digest).is_file()
    }

    /// Lets tags lead to a manifest, and records which manifests (it, and the one of an index that was chosen) became
    /// which image.
    pub(crate) fn write_tags(
        &self,
        name: &str,
        tags: &[String],
        digest: &Digest,
        image: Option<(&Digest, &[Digest])>,
    ) -> io::Result<()> {
        let _adding = self.adding()?;
        // It may have been deleted since it was put.
        fs::metadata(self.manifest_path(name, digest))?;
        let mut text = digest.to_string();
        if let Some((id, manifests)) = image {
            text.push_str(&format!("\n{id}"));
            for manifest in manifests.iter().filter(|manifest| self.has_manifest(name, manifest)) {
                write(&self.image_path(name, manifest), id.to_string().as_bytes())?;
            }
        }
        tags.iter().try_for_each(|tag| write(&self.tag_path(name, tag), text.as_bytes()))
    }

    fn referrers_path(&self, name: &str, subject: &Digest) -> PathBuf {
        hashed(&self.repository(name).join("_referrers"), subject)
    }

    pub(super) fn read_manifest(&self, name: &str, target: &Target) -> Result<Stored, Refusal> {
        let absent = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound if !self.exists(name) => {
                Refusal::missing("NAME_UNKNOWN", format!("repository {name} is not known"))
            }
            io::ErrorKind::NotFound => unknown(name, target),
            _ => Refusal::io("read manifest", &error),
        };
        let digest = match target {
            Target::Digest(digest) => digest.clone(),
            Target::Tag(tag) => self.read_tag(name, tag).map_err(absent)?.0,
        };
        let mut record = fs::read(self.manifest_path(name, &digest)).map_err(absent)?;
        let end = record.iter().position(|byte| *byte == b'\n').unwrap_or(0);
        let bytes = record.split_off(end + 1);
        record.truncate(end);
        let media_type = String::from_utf8(record).map_err(|error| Refusal::internal("read manifest", &error))?;
        Ok(Stored { digest, media_type, bytes })
    }

    /// Takes a manifest under a digest or tags. What it is made of must be there, but for the members of an index, its
    /// subject, and layers that may not be distributed.
    pub(super) fn put_whole_manifest(
        &self,
        name: &str,
        target: &Target,
        tags: &[String],
        kind: Option<&str>,
        bytes: &[u8],
    ) -> Result<Put, Refusal> {
        self.put(name, target, tags, kind, bytes, true)
    }

    /// Takes a manifest whose blobs are fetched when they are asked for.
    pub(crate) fn keep_manifest(
        &self,
        name: &str,
        target: &Target,
        kind: Option<&str>,
        bytes: &[u8],
    ) -> Result<Put, Refusal> {
        self.put(name, target, &[], kind, bytes, false)
    }

    fn put(
        &self,
        name: &str,
        target: &Target,
        tags: &[String],
        kind: Option<&str>,
        bytes: &[u8],
        whole: bool,
    ) -> Result<Put, Refusal> {
        let digest = match target {
            Target::Digest(wanted) => {
                let mut hasher = wanted.hasher();
                hasher.update(bytes);
                let found = hasher.finish();
                if found != *wanted {
                    return Err(Refusal::bad(
                        "DIGEST_INVALID",
                        format!("the manifest's digest is {found}, not {wanted}"),
                    ));
                }
                found
            }
            Target::Tag(_) => Digest::of(bytes),
        };
        let kind = kind.map(|kind| kind.split(';').next().unwrap_or(kind).trim()).filter(|kind| !kind.is_empty());
        let document = Document::parse(bytes, kind).map_err(|error| invalid(error.to_string()))?;
        let (own, fallback, subject) = match &document {
            Document::Manifest(manifest) => (&manifest.media_type, media_type::MANIFEST, &manifest.subject),
            Document::Index(index) => (&index.media_type, media_type::INDEX, &index.subject),
        };
        let own = Some(own.as_str()).filter(|own| !own.is_empty());
        if let (Some(own), Some(kind)) = (own, kind)
            && own != kind
        {
            return Err(invalid(format!("the manifest says that it is {own}, the request says {kind}")));
        }
        let media_type = kind.or(own).unwrap_or(fallback);
        if media_type.len() > MAX_TYPE || !media_type.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("the media type is not valid"));
        }
        // From here on nothing that was checked goes away.
        let failed = |error: io::Error| Refusal::io("write manifest", &error);
        let _adding = self.adding().map_err(failed)?;
        if whole && let Document::Manifest(manifest) = &document {
            let lacks = |blob: &&Descriptor| {
                let foreign = blob.media_type.contains("nondistributable") || blob.media_type.contains(".foreign.");
                !(foreign || self.blob_link(name, &blob.digest).is_file())
            };
            if let Some(lacking) = std::iter::once(&manifest.config).chain(&manifest.layers).find(lacks) {
                let message = format!("blob {} of the manifest is not known to the repository", lacking.digest);
                return Err(Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", message));
            }
            for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                self.touch(name, &blob.digest);
            }
        }
        let mut record = Vec::with_capacity(media_type.len() + 1 + bytes.len());
        record.extend_from_slice(media_type.as_bytes());
        record.push(b'\n');
        record.extend_from_slice(bytes);
        write(&self.manifest_path(name, &digest), &record).map_err(failed)?;
        self.named_more();
        let subject = subject.as_ref().map(|subject| subject.digest.clone());
        if let Some(subject) = &subject {
            let entry = format!("{}-{}", digest.algorithm().as_str(), digest.hex());
            let descriptor = referrer(&document, media_type, &digest, bytes.len());
            write(&self.referrers_path(name, subject).join(entry), descriptor.to_string().as_bytes())
                .map_err(failed)?;
        }
        let own = match target {
            Target::Tag(tag) => Some(tag),
            Target::Digest(_) => None,
        };
        for tag in own.into_iter().chain(tags) {
            write(&self.tag_path(name, tag), digest.to_string().as_bytes()).map_err(failed)?;
        }
        Ok(Put { digest, subject })
    }

    /// Deletes a tag; or a manifest with all its tags, and what it says about its subject. Nothing is added meanwhile.
    pub(crate) fn remove_manifest(&self, name: &str, target: &Target) -> Result<(), Refusal> {
        let failed = |error: io::Error| Refusal::io("delete manifest", &error);
        if let Target::Tag(tag) = target {
            return match remove_durable(&self.tag_path(name, tag)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.read_manifest(name, target).map(drop),
                done => done.map_err(failed),
            };
        }
        let stored = self.read_manifest(name, target)?;
        let digest = &stored.digest;
        for tag in names(&self.repository(name).join("_tags")).map_err(failed)? {
            if self.read_tag(name, &tag).map_err(failed)?.0 == *digest {
                remove_durable(&self.tag_path(name, &tag)).map_err(failed)?;
            }
        }
        let subject = match Document::parse(&stored.bytes, Some(&stored.media_type)) {
            Ok(Document::Manifest(manifest)) => manifest.subject,
            Ok(Document::Index(index)) => index.subject,
            Err(_) => None,
        };
        if let Some(subject) = subject {
            let directory = self.referrers_path(name, &subject.digest);
            let entry = directory.join(format!("{}-{}", digest.algorithm().as_str(), digest.hex()));
            match remove_durable(&entry) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        let _ = fs::remove_file(self.image_path(name, digest));
        remove_durable(&self.manifest_path(name, digest)).map_err(failed)
    }

    pub(super) fn read_referrers(&self, name: &str, subject: &Digest) -> Result<Vec<Value>, Refusal> {
        let failed = |error: io::Error| Refusal::io("read referrers", &error);
        let directory = self.referrers_path(name, subject);
        let mut found = Vec::new();
        for entry in names(&directory).map_err(failed)? {
            match fs::read(directory.join(entry)) {
                Ok(bytes) => found.extend(serde_json::from_slice::<Value>(&bytes)),
                // Deleted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(found)
    }

    /// What the manifests of a repository name.
    fn descriptors(&self, name: &str) -> io::Result<Vec<Descriptor>> {
        let mut found = Vec::new();
        let directory = self.repository(name).join("_manifests");
        for algorithm in names(&directory)? {
            for hex in names(&directory.join(&algorithm))? {
                let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else { continue };
                let stored = match self.read_manifest(name, &Target::Digest(digest)) {
                    Ok(stored) => stored,
                    // Deleted meanwhile.
                    Err(refusal) if refusal.status == StatusCode::NOT_FOUND => continue,
                    Err(refusal) => return Err(io::Error::other(refusal.message)),
                };
                match Document::parse(&stored.bytes, Some(&stored.media_type)) {
                    Ok(Document::Manifest(manifest)) => {
                        found.push(manifest.config);
                        found.extend(manifest.layers);
                    }
                    Ok(Document::Index(index)) => found.extend(index.manifests),
                    // What cannot be understood may name anything.
                    Err(error) => return Err(io::Error::other(error.to_string())),
                }
            }
        }
        Ok(found)
    }

    /// The digests that the manifests of a repository name.
    pub(crate) fn named(&self, name: &str) -> io::Result<HashSet<Digest>> {
        Ok(self.descriptors(name)?.into_iter().map(|descriptor| descriptor.digest).collect())
    }

    /// How a manifest of the repository describes a blob.
    pub(crate) fn descriptor(&self, name: &str, digest: &Digest) -> Result<Descriptor, Refusal> {
        let found = self.descriptors(name).map_err(|error| Refusal::io("read manifests", &error))?;
        let found = found.into_iter().find(|descriptor| descriptor.digest == *digest);
        found.ok_or_else(|| super::unknown_blob(digest))
    }
}

/// The descriptor of a manifest in the list of those that refer to its subject.
fn referrer(document: &Document, kind: &str, digest: &Digest, size: usize) -> Value {
    let (artifact, annotations) = match document {
        Document::Manifest(manifest) => {
            let config = Some(&manifest.config.media_type).filter(|name| !name.is_empty());
            (manifest.artifact_type.as_ref().filter(|name| !name.is_empty()).or(config), &manifest.annotations)
        }
        Document::Index(index) => (index.artifact_type.as_ref(), &index.annotations),
    };
    let mut value = json!({"mediaType": kind, "digest": digest.to_string(), "size": size});
    if let Some(artifact) = artifact {
        value["artifactType"] = json!(artifact);
    }
    if !annotations.is_empty() {
        value["annotations"] = json!(annotations);
    }
    value
}
