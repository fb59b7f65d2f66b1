//! A cache of another registry: what is not in the directory is fetched, kept, and served.
//!
//! Tags are asked for upstream each time, and served from the cache when upstream does not answer; what has a digest is
//! fetched once. The cache's directory is a registry of its own, of the same form.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};

use hull_oci::{Digest, Reference};
use hull_registry::{Client, Remote};
use hyper::StatusCode;

use crate::content::{Content, Stored};
use crate::refusal::Refusal;
use crate::route::Target;
use crate::storage::Storage;

/// Another registry and the directory that keeps what came from it.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) storage: Arc<Storage>,
    client: Arc<Client>,
    /// Host and port.
    upstream: String,
    /// Blobs on their way, so that one is fetched once.
    coming: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
}

impl Proxy {
    pub(crate) fn new(storage: Arc<Storage>, upstream: String) -> Self {
        Self { storage, client: Client::from_environment(), upstream, coming: Mutex::default() }
    }

    fn remote(&self, name: &str) -> Result<Remote, Refusal> {
        let reference: Reference = format!("{}/{name}", self.upstream)
            .parse()
            .map_err(|error| Refusal::bad("NAME_INVALID", format!("{error}")))?;
        self.client.pull_from(&reference).map_err(|error| Refusal::internal("find upstream", &error))
    }

    fn fetch_blob(&self, name: &str, digest: &Digest) -> Result<(), Refusal> {
        let descriptor = self.storage.descriptor(name, digest)?;
        let failed = |error: &dyn std::fmt::Display| {
            crate::log(format_args!("fetch {digest} of {name}: {error}"));
            Refusal::new(StatusCode::BAD_GATEWAY, "UNKNOWN", "upstream registry failed")
        };
        let mut blob = self.remote(name)?.blob(&descriptor, 0).map_err(|error| failed(&error))?;
        let (_, shared) = self.storage.begin(name, digest.algorithm())?;
        let mut guard = shared.blocking_lock();
        let upload = guard.as_mut().ok_or_else(|| failed(&"the upload has gone"))?;
        let fetched = (|| {
            let file = upload.open()?;
            let mut buffer = vec![0; 256 << 10];
            loop {
                let count = blob.reader.read(&mut buffer)?;
                if count == 0 || upload.length > descriptor.size {
                    return upload.sync(&file);
                }
                upload.append(&file, &buffer[..count])?;
            }
        })();
        if let Err(error) = fetched {
            self.storage.cancel(upload);
            return Err(failed(&error));
        }
        self.storage.finish(&mut guard, digest).map_err(|refusal| failed(&refusal.message))
    }
}

impl Content for Proxy {
    fn blob(&self, name: &str, digest: &Digest) -> Result<File, Refusal> {
        match self.storage.blob(name, digest) {
            Err(refusal) if refusal.status == StatusCode::NOT_FOUND => {}
            held => return held,
        }
        let coming = || self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = Arc::clone(coming().entry(digest.clone()).or_default());
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Another request may have fetched it in the meantime, perhaps for another repository.
        let held = self.storage.blob(name, digest);
        if held.is_ok() {
            return held;
        }
        let fetched = self.fetch_blob(name, digest);
        coming().remove(digest);
        fetched?;
        self.storage.blob(name, digest)
    }

    fn manifest(&self, name: &str, target: &Target) -> Result<Stored, Refusal> {
        let held = self.storage.manifest(name, target);
        if held.is_ok() && matches!(target, Target::Digest(_)) {
            return held;
        }
        let text = match target {
            Target::Tag(tag) => tag.clone(),
            Target::Digest(digest) => digest.to_string(),
        };
        match self.remote(name)?.manifest(&text) {
            Ok(fetched) => {
                let kind = Some(fetched.descriptor.media_type.as_str());
                self.storage.keep_manifest(name, target, kind, &fetched.bytes)?;
                self.storage.manifest(name, target)
            }
            Err(error) => held.map_err(|refusal| {
                crate::log(format_args!("upstream: {error}"));
                match error {
                    hull_registry::Error::NotFound { .. } => refusal,
                    _ => Refusal::new(StatusCode::BAD_GATEWAY, "UNKNOWN", "upstream registry failed"),
                }
            }),
        }
    }

    fn tags(&self, name: &str) -> Result<Vec<String>, Refusal> {
        match self.remote(name)?.tags() {
            Ok(page) => {
                let mut tags = page.words;
                tags.sort_unstable();
                Ok(tags)
            }
            Err(error) => {
                crate::log(format_args!("upstream: {error}"));
                self.storage.tags(name)
            }
        }
    }

    fn repositories(&self) -> Result<Vec<String>, Refusal> {
        self.storage.repositories()
    }

    fn referrers(&self, name: &str, digest: &Digest) -> Result<Vec<serde_json::Value>, Refusal> {
        match self.remote(name)?.referrers(digest, None) {
            Ok(found) => Ok(found.iter().filter_map(|descriptor| serde_json::to_value(descriptor).ok()).collect()),
            Err(error) => {
                crate::log(format_args!("upstream: {error}"));
                self.storage.referrers(name, digest)
            }
        }
    }
}
