//! Indexes as they came: documents that name an image's manifests for several platforms.
//!
//! One is a blob whose digest a row of `repo_digests` has, and goes with the last such row. It is what a name in a registry
//! leads to, so its bytes are kept: pushed again they have the same digest. Beside its digest those of single manifests
//! are not shown, but what asks for them by name finds them.

use std::collections::BTreeSet;

use hull_oci::Digest;
use hull_oci::image::{Descriptor, Document, Index, MAX_MANIFEST_BYTES, media_type};
use rusqlite::{Transaction, params};

use crate::rows::digest;
use crate::{Error, Image, Store};

/// Repositories and digests that an image is shown with: of one that was chosen from an index, the index's.
pub(crate) const SHOWN: &str = "SELECT repository, digest FROM repo_digests WHERE image = ?1
    AND NOT (digest IN (SELECT manifests.digest FROM manifests WHERE manifests.image = ?1)
        AND EXISTS (SELECT 1 FROM repo_digests AS other JOIN blobs ON blobs.digest = other.digest
            WHERE other.image = ?1 AND other.repository = repo_digests.repository AND blobs.media_type IN
            ('application/vnd.oci.image.index.v1+json', 'application/vnd.docker.distribution.manifest.list.v2+json')))
    ORDER BY repository, digest";

/// Takes a repository's digest away, and with an index the manifests that were not shown beside it.
pub(crate) fn untag(transaction: &Transaction<'_>, repository: &str, digest: &Digest) -> Result<(), Error> {
    transaction.execute(
        "DELETE FROM repo_digests WHERE repository = ?1 AND image = (
             SELECT other.image FROM repo_digests AS other JOIN blobs ON blobs.digest = other.digest
             WHERE other.repository = ?1 AND other.digest = ?2 AND blobs.media_type IN (?3, ?4))
         AND digest IN (SELECT manifests.digest FROM manifests WHERE manifests.image = repo_digests.image)",
        params![repository, digest.to_string(), media_type::INDEX, media_type::DOCKER_INDEX],
    )?;
    transaction.execute(
        "DELETE FROM repo_digests WHERE repository = ?1 AND digest = ?2",
        params![repository, digest.to_string()],
    )?;
    Ok(())
}

/// An index of the store.
#[derive(Debug)]
pub(crate) struct Kept {
    /// `HOST/PATH` where it was.
    pub(crate) repository: String,
    /// As it came.
    pub(crate) bytes: Vec<u8>,
    /// Its type.
    pub(crate) media_type: String,
    index: Index,
}

impl Kept {
    /// What it names beside images.
    pub(crate) fn statements(&self) -> impl Iterator<Item = &Descriptor> {
        self.index.manifests.iter().filter(|one| is_statement(one))
    }
}

fn is_statement(one: &Descriptor) -> bool {
    one.is_attestation() || one.platform.as_ref().is_some_and(|at| at.os == "unknown" || at.architecture == "unknown")
}

impl Store {
    /// The indexes that one of some images was chosen from, and whose images have exactly these manifests.
    pub(crate) fn indexes_of(&self, images: &[Image], manifests: &[Digest]) -> Result<Vec<Kept>, Error> {
        let wanted: BTreeSet<&Digest> = manifests.iter().collect();
        let mut found = Vec::new();
        for image in images {
            let known = self.read(|connection| {
                let mut statement = connection.prepare(
                    "SELECT repository, repo_digests.digest, media_type FROM repo_digests
                     JOIN blobs ON blobs.digest = repo_digests.digest JOIN images ON images.id = repo_digests.image
                     WHERE images.digest = ?1 AND media_type IN (?2, ?3) ORDER BY 1, 2",
                )?;
                let arguments = params![image.id.to_string(), media_type::INDEX, media_type::DOCKER_INDEX];
                let rows = statement.query_map(arguments, |row| Ok((row.get(0)?, digest(row, 1)?, row.get(2)?)))?;
                Ok(rows.collect::<Result<Vec<(String, Digest, String)>, _>>()?)
            })?;
            for (repository, digest, media_type) in known {
                // One that has gone meanwhile, or is damaged, is made anew from what is there.
                let Ok(bytes) = self.document(&digest, MAX_MANIFEST_BYTES) else { continue };
                let Ok(Document::Index(index)) = Document::parse(&bytes, Some(&media_type)) else { continue };
                let named: BTreeSet<&Digest> =
                    index.manifests.iter().filter(|one| !is_statement(one)).map(|one| &one.digest).collect();
                if !wanted.is_empty() && named == wanted {
                    found.push(Kept { repository, bytes, media_type, index: *index });
                }
            }
        }
        Ok(found)
    }
}
