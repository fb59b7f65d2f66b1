//! Writing: blobs, manifests, deletions.

use std::io::Read;

use hull_http::{Body, Response};
use hull_oci::Digest;
use hull_oci::image::Descriptor;

use super::Remote;
use super::exchange::{MakeBody, Request, absolute, refused};
use super::token::{Scope, encode, host_of};
use crate::error::Error;
use crate::headers;
use crate::hosts::{Endpoint, Scheme};

/// Attempts at one upload, each continued where the registry says the last one ended.
const ATTEMPTS: u32 = 4;

/// A blob that can be read again from any offset.
pub trait Content {
    /// Its bytes from an offset on.
    ///
    /// # Errors
    /// Reading errors.
    fn open(&self, offset: u64) -> std::io::Result<Box<dyn Read>>;
}

impl Content for Vec<u8> {
    fn open(&self, offset: u64) -> std::io::Result<Box<dyn Read>> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        Ok(Box::new(std::io::Cursor::new(self[start..].to_vec())))
    }
}

/// How a blob came to be in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// It was there.
    Existed,
    /// The registry had it in another repository.
    Mounted,
    /// It was sent.
    Sent,
}

/// How to send a blob.
#[derive(Clone, Debug, Default)]
pub struct Put<'a> {
    /// Repositories of the same registry that have it, for the registry to take it from.
    pub sources: &'a [String],
    /// Bytes of one request; `None` sends the blob by one. For proxies that limit bodies.
    pub chunk: Option<u64>,
}

impl Remote {
    /// Sends a request, with the registry's name to what stands for several.
    fn send(&self, request: &Request<'_>, body: MakeBody<'_>) -> Result<Response, Error> {
        match &request.endpoint.namespace {
            Some(namespace) if request.target.starts_with('/') && !request.target.contains("ns=") => {
                let separator = if request.target.contains('?') { '&' } else { '?' };
                let target = format!("{}{separator}{}", request.target, encode(&[("ns", namespace)]));
                self.client.exchange(&Request { target: &target, ..*request }, body)
            }
            _ => self.client.exchange(request, body),
        }
    }

    fn push_scope<'a>(&'a self, endpoint: &'a Endpoint, sources: &[String]) -> Scope<'a> {
        let mut scope = self.scope(endpoint, "pull,push");
        for source in sources {
            scope.text.push_str(&format!(" repository:{source}:pull"));
        }
        scope
    }

    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let endpoint = self.own()?;
        let what = format!("blob {digest} of {}", self.name);
        let scope = self.push_scope(endpoint, &[]);
        let target = format!("{}/{}/blobs/{digest}", endpoint.prefix, endpoint.repository);
        let request = Request {
            endpoint,
            scope: &scope,
            method: "HEAD",
            target: &target,
            headers: &[],
            what: &what,
            repeatable: true,
        };
        let response = self.send(&request, &mut || Ok(Body::None))?;
        match response.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(refused(what, response, self.is_anonymous())),
        }
    }

    /// Brings a blob into the repository, by the cheapest of the three ways. `sent` hears of each byte that went out.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn put_blob(&self, blob: &Descriptor, content: &dyn Content, put: &Put<'_>) -> Result<Uploaded, Error> {
        // Another machine's store looks in all its repositories by itself.
        let anywhere = self.is_machine();
        if !anywhere && self.has_blob(&blob.digest)? {
            return Ok(Uploaded::Existed);
        }
        let endpoint = self.own()?;
        let what = format!("upload of blob {} to {}", blob.digest, self.name);
        let sources = &put.sources[..put.sources.len().min(1)];
        let scope = self.push_scope(endpoint, sources);
        let digest = blob.digest.to_string();
        let uploads = format!("{}/{}/blobs/uploads/", endpoint.prefix, endpoint.repository);
        let query = match sources.first() {
            _ if anywhere => Some(format!("?{}", encode(&[("mount", &digest)]))),
            Some(source) => Some(format!("?{}", encode(&[("mount", &digest), ("from", source)]))),
            None => None,
        };
        let target = format!("{uploads}{}", query.unwrap_or_default());
        let start = |target: &str| {
            let request = Request {
                endpoint,
                scope: &scope,
                method: "POST",
                target,
                headers: &[],
                what: &what,
                repeatable: true,
            };
            self.send(&request, &mut || Ok(Body::None))
        };
        let mut response = start(&target)?;
        if response.status == 201 && anywhere {
            return Ok(Uploaded::Existed);
        }
        if response.status == 201 && !sources.is_empty() {
            return Ok(Uploaded::Mounted);
        }
        // A registry that refuses to look elsewhere still takes the bytes.
        if response.status != 202 && !sources.is_empty() {
            response = start(&uploads)?;
        }
        if response.status != 202 {
            return Err(refused(what, response, self.is_anonymous()));
        }
        let mut upload = self.location(endpoint, &response, &what)?;
        let smallest = response.header("oci-chunk-min-length").and_then(|length| length.trim().parse::<u64>().ok());
        let chunk = put.chunk.map(|chunk| chunk.max(smallest.unwrap_or(1)).max(1));
        let mut offset = 0;
        let mut attempt = 0;
        loop {
            match self.upload(endpoint, &scope, blob, content, chunk, &mut upload, offset, &what) {
                Ok(()) => return Ok(Uploaded::Sent),
                Err(error @ (Error::Transport { .. } | Error::Interrupted { .. })) => {
                    attempt += 1;
                    if attempt == ATTEMPTS {
                        return Err(error);
                    }
                    offset = match self.progress(endpoint, &scope, &mut upload, &what)? {
                        Some(offset) if offset <= blob.size => offset,
                        _ => {
                            // The registry forgot it: from the beginning.
                            let response = start(&uploads)?;
                            if response.status != 202 {
                                return Err(refused(what, response, self.is_anonymous()));
                            }
                            upload = self.location(endpoint, &response, &what)?;
                            0
                        }
                    };
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Has the other side take a blob from wherever it has it, without sending anything. Says whether it has it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn mount(&self, digest: &Digest) -> Result<bool, Error> {
        let endpoint = self.own()?;
        let what = format!("blob {digest} for {}", self.name);
        let scope = self.push_scope(endpoint, &[]);
        let query = encode(&[("mount", &digest.to_string())]);
        let target = format!("{}/{}/blobs/uploads/?{query}", endpoint.prefix, endpoint.repository);
        let ask = |method: &str, target: &str| {
            let request =
                Request { endpoint, scope: &scope, method, target, headers: &[], what: &what, repeatable: true };
            self.send(&request, &mut || Ok(Body::None))
        };
        let response = ask("POST", &target)?;
        match response.status {
            201 => Ok(true),
            202 => {
                // It has begun an upload, which is not wanted; one that stays goes with the garbage.
                let upload = self.location(endpoint, &response, &what)?;
                drop(response);
                let _ = ask("DELETE", &upload);
                Ok(false)
            }
            _ => Err(refused(what.clone(), response, self.is_anonymous())),
        }
    }

    /// Sends what is missing from an offset on.
    #[expect(clippy::too_many_arguments, reason = "one step of put_blob, in a function of its own for its loop")]
    fn upload(
        &self,
        endpoint: &Endpoint,
        scope: &Scope<'_>,
        blob: &Descriptor,
        content: &dyn Content,
        chunk: Option<u64>,
        upload: &mut String,
        mut offset: u64,
        what: &str,
    ) -> Result<(), Error> {
        let octets = ("content-type", "application/octet-stream");
        // A continued upload goes on by chunks too: the last request only closes it.
        if chunk.is_some() || offset > 0 {
            while offset < blob.size {
                let length = chunk.unwrap_or(u64::MAX).min(blob.size - offset);
                let range = format!("{offset}-{}", offset + length - 1);
                let headers = [octets, ("content-range", range.as_str())];
                let request = Request {
                    endpoint,
                    scope,
                    method: "PATCH",
                    target: upload,
                    headers: &headers,
                    what,
                    repeatable: false,
                };
                let response = self.send(&request, &mut || Ok(Body::Reader(content.open(offset)?, length)))?;
                if response.status != 202 {
                    return Err(self.broken_off(refused(what.to_owned(), response, self.is_anonymous())));
                }
                let taken = response.header("range").and_then(headers::upload_range).map(|(_, last)| last + 1);
                *upload = self.location(endpoint, &response, what)?;
                offset = taken.filter(|taken| *taken > offset && *taken <= blob.size).unwrap_or(offset + length);
            }
        }
        let separator = if upload.contains('?') { '&' } else { '?' };
        let target = format!("{upload}{separator}{}", encode(&[("digest", &blob.digest.to_string())]));
        let headers = [octets];
        let request =
            Request { endpoint, scope, method: "PUT", target: &target, headers: &headers, what, repeatable: false };
        let rest = blob.size - offset;
        let response = self.send(&request, &mut || {
            Ok(if rest == 0 { Body::None } else { Body::Reader(content.open(offset)?, rest) })
        })?;
        match response.status {
            201 => Ok(()),
            // Whoever failed meanwhile: what arrived can be asked for.
            500..=599 => {
                Err(Error::Interrupted { what: what.to_owned(), reason: format!("HTTP status {}", response.status) })
            }
            _ => Err(self.broken_off(refused(what.to_owned(), response, self.is_anonymous()))),
        }
    }

    /// What another machine says of a body that it did not get is news of the connection.
    fn broken_off(&self, error: Error) -> Error {
        match error {
            Error::Refused { what, refusal }
                if self.is_machine() && refusal.status == 400 && refusal.code() == Some("BLOB_UPLOAD_INVALID") =>
            {
                Error::Interrupted { what, reason: refusal.to_string() }
            }
            other => other,
        }
    }

    /// How many bytes of an upload have arrived; `None` when the registry does not know of it any more.
    fn progress(
        &self,
        endpoint: &Endpoint,
        scope: &Scope<'_>,
        upload: &mut String,
        what: &str,
    ) -> Result<Option<u64>, Error> {
        let request = Request { endpoint, scope, method: "GET", target: upload, headers: &[], what, repeatable: true };
        let response = self.send(&request, &mut || Ok(Body::None))?;
        if !matches!(response.status, 200..=299) {
            return Ok(None);
        }
        let taken = response.header("range").and_then(headers::upload_range).map(|(_, last)| last + 1);
        if response.header("location").is_some() {
            *upload = self.location(endpoint, &response, what)?;
        }
        // "0-0" is how a registry says that nothing has arrived, or one byte; from the beginning is right for both.
        Ok(taken.filter(|taken| *taken > 1))
    }

    /// Where the next step of an upload goes: a path on the endpoint, or an address on another host.
    fn location(&self, endpoint: &Endpoint, response: &Response, what: &str) -> Result<String, Error> {
        let bad = |reason: String| Error::Answer { what: what.to_owned(), host: endpoint.host.clone(), reason };
        let location = response.header("location").ok_or_else(|| bad("it does not say where to upload".to_owned()))?;
        let base = format!("https://{}/", endpoint.host);
        let whole = absolute(&base, location).ok_or_else(|| bad(format!("upload to {location:?}")))?;
        if host_of(&whole) == Some(endpoint.host.as_str()) {
            // As a path, it is spoken to as the endpoint is, whatever scheme the registry believes to be behind.
            let path = whole.split_once("://").map_or("", |(_, rest)| &rest[endpoint.host.len()..]);
            return Ok(path.to_owned());
        }
        if whole.starts_with("http://") && endpoint.scheme == Scheme::Https {
            return Err(bad(format!("upload to {location:?}, which is not encrypted")));
        }
        Ok(whole)
    }

    /// Puts a manifest or an index under a tag or its digest. Returns whether the registry knows of its subject.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn put_manifest(&self, reference: &str, media_type: &str, bytes: &[u8]) -> Result<bool, Error> {
        let endpoint = self.own()?;
        let separator = if reference.contains(':') { '@' } else { ':' };
        let what = format!("push of {}{separator}{reference}", self.name);
        let scope = self.push_scope(endpoint, &[]);
        let target = format!("{}/{}/manifests/{reference}", endpoint.prefix, endpoint.repository);
        let headers = [("content-type", media_type)];
        let request = Request {
            endpoint,
            scope: &scope,
            method: "PUT",
            target: &target,
            headers: &headers,
            what: &what,
            repeatable: true,
        };
        let response = self.send(&request, &mut || Ok(Body::Bytes(bytes.to_vec())))?;
        match response.status {
            201 => Ok(response.header("oci-subject").is_some()),
            _ => Err(refused(what, response, self.is_anonymous())),
        }
    }

    /// Deletes a tag, or a manifest by its digest.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete_manifest(&self, reference: &str) -> Result<(), Error> {
        let endpoint = self.own()?;
        let what = format!("deletion of {reference} of {}", self.name);
        let scope = self.scope(endpoint, "pull,push,delete");
        let target = format!("{}/{}/manifests/{reference}", endpoint.prefix, endpoint.repository);
        let request = Request {
            endpoint,
            scope: &scope,
            method: "DELETE",
            target: &target,
            headers: &[],
            what: &what,
            repeatable: true,
        };
        let response = self.send(&request, &mut || Ok(Body::None))?;
        match response.status {
            200..=299 => Ok(()),
            _ => Err(refused(what, response, self.is_anonymous())),
        }
    }
}
