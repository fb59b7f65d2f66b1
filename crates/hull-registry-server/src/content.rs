//! What a registry serves, wherever it is.

use std::fmt::Debug;
use std::fs::File;
use std::io;

use hull_oci::Digest;

use crate::refusal::Refusal;
use crate::route::Target;

/// A manifest as it is served.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

/// A place that content is read from. Called from threads that may wait.
pub(crate) trait Content: Debug + Send + Sync {
    /// A blob of a repository, at its first byte.
    fn blob(&self, name: &str, digest: &Digest) -> Result<File, Refusal>;
    /// A manifest by tag or digest.
    fn manifest(&self, name: &str, target: &Target) -> Result<Stored, Refusal>;
    /// All tags, sorted.
    fn tags(&self, name: &str) -> Result<Vec<String>, Refusal>;
    /// All repositories, sorted.
    fn repositories(&self) -> Result<Vec<String>, Refusal>;
    /// Descriptors of the manifests whose subject is this one, sorted by digest.
    fn referrers(&self, name: &str, digest: &Digest) -> Result<Vec<serde_json::Value>, Refusal>;
    /// A client learned that this blob is there: it must not go soon.
    fn used(&self, _name: &str, _digest: &Digest) {}
}

/// A manifest that was put.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) digest: Digest,
    /// What it refers to.
    pub(crate) subject: Option<Digest>,
}

/// A place that content is pushed to, once uploads have brought its blobs. Called from threads that may wait.
pub(crate) trait Changes: Debug + Send + Sync {
    /// Gives a repository a blob that another has, or any when `from` is absent. Whether there was one.
    fn mount(&self, name: &str, from: Option<&str>, digest: &Digest) -> io::Result<bool>;
    /// Takes a manifest, under a digest or a tag, and under more tags.
    fn put_manifest(
        &self,
        name: &str,
        target: &Target,
        tags: &[String],
        kind: Option<&str>,
        bytes: &[u8],
    ) -> Result<Put, Refusal>;
    /// Deletes a tag, or a manifest with all its tags.
    fn delete_manifest(&self, name: &str, target: &Target) -> Result<(), Refusal>;
    /// Takes a blob away from one repository.
    fn delete_blob(&self, name: &str, digest: &Digest) -> Result<(), Refusal>;
}
