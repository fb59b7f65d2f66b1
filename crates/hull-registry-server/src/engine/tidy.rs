//! What was pushed goes with the images that it became.
//!
//! A tag that made an image goes when the store's name of the same words is gone or leads elsewhere. A manifest that became
//! an image, and that no tag leads to, not even by way of an index, goes when the image is gone. Everything else, such as
//! what came by digest alone and artifacts, stays until a client deletes it.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use hull_image::Store;
use hull_oci::Digest;
use hull_oci::image::Document;

use super::local;
use crate::content::Content as _;
use crate::refusal::Refusal;
use crate::route::Target;
use crate::storage::Storage;

fn told(refusal: Refusal) -> io::Error {
    io::Error::other(refusal.message)
}

impl Storage {
    /// Removes what the store's images have left behind, with the blobs that nothing else names. Returns the bytes that
    /// the disk got back.
    pub(crate) fn tidy(&self, store: &Store) -> io::Result<u64> {
        let mut freed = 0;
        for name in self.directories()? {
            // A look without a lock: mostly there is nothing to do.
            if self.outdated(store, &name)?.is_empty() {
                continue;
            }
            let _removing = self.removing()?;
            let before = self.named(&name)?;
            loop {
                let outdated = self.outdated(store, &name)?;
                if outdated.is_empty() {
                    break;
                }
                for target in &outdated {
                    self.remove_manifest(&name, target).map_err(told)?;
                }
            }
            let after = self.named(&name)?;
            for digest in before.difference(&after) {
                freed += self.release(&name, digest)?;
            }
        }
        Ok(freed)
    }

    /// Tags, or if there are none manifests, of a repository that have no image any more.
    fn outdated(&self, store: &Store, name: &str) -> io::Result<Vec<Target>> {
        let mut outdated = Vec::new();
        let mut reached = BTreeSet::new();
        for tag in self.tags(name).unwrap_or_default() {
            let (digest, image) = match self.read_tag(name, &tag) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read?,
            };
            if let (Some(image), Some(local)) = (image, local(name, &tag))
                && store.id_of(&local).map_err(io::Error::other)? != Some(image)
            {
                outdated.push(Target::Tag(tag));
                continue;
            }
            self.reach(name, digest, &mut reached);
        }
        if !outdated.is_empty() {
            return Ok(outdated);
        }
        for (digest, image) in self.images(name)? {
            if !reached.contains(&digest) && !store.has(&image).map_err(io::Error::other)? {
                outdated.push(Target::Digest(digest));
            }
        }
        Ok(outdated)
    }

    /// What a tag leads to: a manifest, and the members of an index.
    fn reach(&self, name: &str, digest: Digest, reached: &mut BTreeSet<Digest>) {
        let mut waiting = vec![digest];
        while let Some(digest) = waiting.pop() {
            if !reached.insert(digest.clone()) {
                continue;
            }
            let Ok(stored) = self.manifest(name, &Target::Digest(digest)) else { continue };
            if let Ok(Document::Index(index)) = Document::parse(&stored.bytes, Some(&stored.media_type)) {
                waiting.extend(index.manifests.into_iter().map(|member| member.digest));
            }
        }
    }

    /// Manifests that became images.
    fn images(&self, name: &str) -> io::Result<Vec<(Digest, Digest)>> {
        let mut found = Vec::new();
        for digest in self.digests(name, "_images")? {
            let path = self.image_path(name, &digest);
            if !self.has_manifest(name, &digest) {
                // Its manifest was deleted.
                let _ = fs::remove_file(path);
                continue;
            }
            let text = match fs::read_to_string(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                text => text?,
            };
            found.push((digest, text.trim().parse().map_err(io::Error::other)?));
        }
        Ok(found)
    }
}
