//! Reading: manifests, blobs, tags, referrers.

use std::io::Read;

use hull_http::{Body, Response};
use hull_oci::Digest;
use hull_oci::image::{Descriptor, Document, Index, MAX_MANIFEST_BYTES, media_type};
use serde::Deserialize;

use super::Remote;
use super::exchange::{Request, backoff, refused};
use super::token::{Scope, encode, host_of};
use crate::error::Error;
use crate::headers::{self, ContentRange};
use crate::hosts::Endpoint;

/// Every kind of document that a reference may lead to.
const ACCEPT: &[&str] = &[
    media_type::INDEX,
    media_type::MANIFEST,
    media_type::DOCKER_INDEX,
    media_type::DOCKER_MANIFEST,
    media_type::DOCKER_V1,
];

/// One page of a list.
const MAX_PAGE: u64 = 8 << 20;

/// Attempts at an answer whose connection ends early.
const ATTEMPTS: u32 = 4;

/// Places that a blob may also be at, of which so many are tried.
const MAX_PLACES: usize = 8;

/// Pages of one list.
const MAX_PAGES: usize = 10_000;

/// A manifest or an index, as it was sent.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Type, digest and length.
    pub descriptor: Descriptor,
    /// The bytes, whose digest was checked.
    pub bytes: Vec<u8>,
    /// What they say.
    pub document: Document,
}

/// A blob on its way.
pub struct Blob {
    /// Offset of the first byte in the blob: what was asked for, or 0 when the server sends all of it.
    pub start: u64,
    /// Its content from there. Nobody has compared it with the digest.
    pub reader: Box<dyn Read + Send>,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Blob").field("start", &self.start).finish_non_exhaustive()
    }
}

/// A list of words in the order of the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The words.
    pub words: Vec<String>,
}

/// An answer that was read to its end.
struct Whole {
    kind: Option<String>,
    /// The digest that the registry says it has.
    named: Option<String>,
    link: Option<String>,
    bytes: Vec<u8>,
}

impl Remote {
    /// What a request to an endpoint is for. A credential belongs to the host that it is sent to: a mirror does not get
    /// the registry's.
    pub(super) fn scope<'a>(&'a self, endpoint: &'a Endpoint, actions: &str) -> Scope<'a> {
        let text = format!("repository:{}:{actions}", endpoint.repository);
        Scope { domain: endpoint.owner(), repository: &endpoint.repository, text, known: None }
    }

    pub(super) fn get(
        &self,
        endpoint: &Endpoint,
        method: &str,
        target: &str,
        accept: &[(&str, &str)],
        what: &str,
    ) -> Result<Response, Error> {
        let scope = self.scope(endpoint, "pull");
        let mut target = target.to_owned();
        if let Some(namespace) = &endpoint.namespace {
            let separator = if target.contains('?') { '&' } else { '?' };
            target = format!("{target}{separator}{}", encode(&[("ns", namespace)]));
        }
        let request =
            Request { endpoint, scope: &scope, method, target: &target, headers: accept, what, repeatable: true };
        self.client.exchange(&request, &mut || Ok(Body::None))
    }

    /// Sends a request and reads its whole answer, again when the connection ends within it.
    fn get_whole(
        &self,
        endpoint: &Endpoint,
        target: &str,
        accept: &[(&str, &str)],
        what: &str,
        max: u64,
    ) -> Result<Whole, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let response = self.get(endpoint, "GET", target, accept, what)?;
            if response.status != 200 {
                return Err(refused(what.to_owned(), response, self.is_anonymous()));
            }
            let header = |name: &str| response.header(name).map(str::to_owned);
            let (kind, named, link) = (header("content-type"), header("docker-content-digest"), header("link"));
            match response.read(max) {
                Ok(bytes) => return Ok(Whole { kind, named, link, bytes }),
                Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge || attempt == ATTEMPTS => {
                    let reason = error.to_string();
                    return Err(Error::Answer { what: what.to_owned(), host: endpoint.host.clone(), reason });
                }
                Err(_) => std::thread::sleep(backoff(attempt)),
            }
        }
    }

    /// A short blob's bytes; nobody has compared them with the digest. At most one byte more than it should have is
    /// read.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn blob_bytes(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut bytes = Vec::new();
            let reader = self.blob(descriptor, 0)?.reader;
            match reader.take(descriptor.size + 1).read_to_end(&mut bytes) {
                Ok(_) => return Ok(bytes),
                Err(error) if attempt == ATTEMPTS => {
                    let what = format!("blob {} of {}", descriptor.digest, self.name);
                    return Err(Error::Interrupted { what, reason: error.to_string() });
                }
                Err(_) => std::thread::sleep(backoff(attempt)),
            }
        }
    }

    /// Asks each place until one has an answer. The registry's own failure is the one that is reported.
    fn each<T>(
        &self,
        what: &str,
        by_tag: bool,
        mut ask: impl FnMut(&Endpoint) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut failure = None;
        for endpoint in self.endpoints.iter().filter(|endpoint| endpoint.resolve || !by_tag) {
            match ask(endpoint) {
                Ok(found) => return Ok(found),
                Err(error) if error.may_be_elsewhere() => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::Interrupted {
            what: what.to_owned(),
            reason: "the configuration of registries names no place to ask".to_owned(),
        }))
    }

    pub(super) fn is_anonymous(&self) -> bool {
        let Some(endpoint) = self.endpoints.last() else { return true };
        !matches!(self.client.credentials.find(endpoint.owner(), &endpoint.repository), Ok(Some(_)))
    }

    /// The manifest or index of a tag or digest. The bytes have the digest that was asked for, or that the registry
    /// names in `Docker-Content-Digest`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn manifest(&self, reference: &str) -> Result<Fetched, Error> {
        let digest: Option<Digest> = if reference.contains(':') { Some(reference.parse()?) } else { None };
        let separator = if digest.is_some() { '@' } else { ':' };
        let what = format!("manifest for {}{separator}{reference}", self.name);
        self.each(&what, digest.is_none(), |endpoint| {
            let accept: Vec<(&str, &str)> = ACCEPT.iter().map(|kind| ("accept", *kind)).collect();
            let target = format!("{}/{}/manifests/{reference}", endpoint.prefix, endpoint.repository);
            let bad = |reason: String| Error::Answer { what: what.clone(), host: endpoint.host.clone(), reason };
            let Whole { kind, named, bytes, .. } =
                self.get_whole(endpoint, &target, &accept, &what, MAX_MANIFEST_BYTES)?;
            let kind = kind.map(|kind| kind.split(';').next().unwrap_or(&kind).trim().to_owned());
            let wanted = match (&digest, named) {
                (Some(digest), _) => digest.clone(),
                (None, Some(named)) => named.parse().map_err(|error| bad(format!("{error}")))?,
                (None, None) => Digest::of(&bytes),
            };
            let mut hasher = wanted.hasher();
            hasher.update(&bytes);
            let found = hasher.finish();
            if found != wanted {
                return Err(bad(format!("its digest is {found}, expected {wanted}")));
            }
            // Servers of plain files call it text or bytes; the document says what it is.
            let kind = kind.filter(|kind| media_type::is_index(kind) || media_type::is_manifest(kind));
            let document = Document::parse(&bytes, kind.as_deref())
                .map_err(|source| Error::Document { what: what.clone(), source })?;
            let own = match &document {
                Document::Manifest(manifest) => &manifest.media_type,
                Document::Index(index) => &index.media_type,
            };
            let fallback = match &document {
                Document::Manifest(_) => media_type::MANIFEST,
                Document::Index(_) => media_type::INDEX,
            };
            let kind = Some(own.clone()).filter(|own| !own.is_empty()).or(kind).unwrap_or_else(|| fallback.to_owned());
            let descriptor = Descriptor::new(&kind, wanted, bytes.len() as u64);
            Ok(Fetched { descriptor, bytes, document })
        })
    }

    /// The descriptor that a tag leads to, without its content; `None` when there is no such tag.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn head(&self, reference: &str) -> Result<Option<Descriptor>, Error> {
        let what = format!("manifest for {}:{reference}", self.name);
        self.each(&what, !reference.contains(':'), |endpoint| {
            let accept: Vec<(&str, &str)> = ACCEPT.iter().map(|kind| ("accept", *kind)).collect();
            let target = format!("{}/{}/manifests/{reference}", endpoint.prefix, endpoint.repository);
            let response = self.get(endpoint, "HEAD", &target, &accept, &what)?;
            match response.status {
                404 => return Ok(None),
                200 => {}
                _ => return Err(refused(what.clone(), response, self.is_anonymous())),
            }
            let digest = response.header("docker-content-digest").and_then(|digest| digest.parse().ok());
            let kind = response.header("content-type").unwrap_or(media_type::MANIFEST);
            match (digest, response.length()) {
                (Some(digest), Some(size)) => Ok(Some(Descriptor::new(kind, digest, size))),
                // A server that does not say must send it.
                _ => self.manifest(reference).map(|fetched| Some(fetched.descriptor)),
            }
        })
    }

    /// A blob from an offset on. A server that ignores ranges sends all of it: see [`Blob::start`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<Blob, Error> {
        self.blob_part(descriptor, offset, None)
    }

    /// `length` bytes of a blob from an offset on; `None` is up to its end. What the registry does not have is fetched
    /// from where the descriptor says it is, by HTTPS and without any credential.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn blob_part(&self, descriptor: &Descriptor, offset: u64, length: Option<u64>) -> Result<Blob, Error> {
        let what = format!("blob {} of {}", descriptor.digest, self.name);
        let last = length.map(|length| offset + length.max(1) - 1);
        let range = format!("bytes={offset}-{}", last.map(|last| last.to_string()).unwrap_or_default());
        let partly = offset > 0 || length.is_some();
        let headers: &[(&str, &str)] = if partly { &[("range", &range)] } else { &[] };
        let own = self.each(&what, false, |endpoint| {
            let target = format!("{}/{}/blobs/{}", endpoint.prefix, endpoint.repository, descriptor.digest);
            let response = self.get(endpoint, "GET", &target, headers, &what)?;
            self.part(response, descriptor, (offset, last), partly, &what, &endpoint.host)
        });
        let missing = match own {
            Err(error) if error.is_not_found() && !descriptor.urls.is_empty() => error,
            other => return other,
        };
        let mut failure = missing;
        for address in descriptor.urls.iter().take(MAX_PLACES) {
            let host = host_of(address).unwrap_or_default();
            let local = crate::hosts::is_loopback(host);
            if host.is_empty() || (address.starts_with("http://") && !local) {
                let reason = format!("it names {address:?}, which is not encrypted");
                failure = Error::Answer { what: what.clone(), host: self.domain.clone(), reason };
                continue;
            }
            let found = self
                .client
                .foreign(address, headers, &what)
                .and_then(|response| self.part(response, descriptor, (offset, last), partly, &what, host));
            match found {
                Ok(found) => return Ok(found),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// What an answer to a request for a part of a blob brings.
    fn part(
        &self,
        response: Response,
        descriptor: &Descriptor,
        (offset, last): (u64, Option<u64>),
        partly: bool,
        what: &str,
        host: &str,
    ) -> Result<Blob, Error> {
        let bad = |reason: String| Error::Answer { what: what.to_owned(), host: host.to_owned(), reason };
        match response.status {
            200 => {
                if let Some(length) = response.length().filter(|length| *length != descriptor.size) {
                    return Err(bad(format!("it has {length} bytes, expected {}", descriptor.size)));
                }
                Ok(Blob { start: 0, reader: response.body })
            }
            206 if partly => {
                let range = response.header("content-range").and_then(ContentRange::parse);
                let fits = range.is_some_and(|range| {
                    range.first == offset
                        && last.is_none_or(|last| range.last <= last)
                        && range.length.is_none_or(|length| length == descriptor.size)
                });
                if !fits {
                    let said = response.header("content-range").unwrap_or_default();
                    let asked = range_text(offset, last);
                    return Err(bad(format!("Content-Range is {said:?}, asked for {asked:?}")));
                }
                Ok(Blob { start: offset, reader: response.body })
            }
            _ => Err(refused(what.to_owned(), response, self.is_anonymous())),
        }
    }

    /// All tags, in the registry's order.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn tags(&self) -> Result<Page, Error> {
        #[derive(Deserialize)]
        struct Tags {
            #[serde(default, deserialize_with = "null_default")]
            tags: Vec<String>,
        }
        let what = format!("tags of {}", self.name);
        self.each(&what, true, |endpoint| {
            let first = format!("{}/{}/tags/list", endpoint.prefix, endpoint.repository);
            let mut page = Page::default();
            self.pages(endpoint, first, &what, &mut |body: Tags| page.words.extend(body.tags))?;
            Ok(page)
        })
    }

    /// What refers to a manifest: signatures, attestations, lists of contents. Registries without that interface are
    /// asked by its older form, a tag.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, Error> {
        let what = format!("referrers of {}@{digest}", self.name);
        self.each(&what, false, |endpoint| {
            let query = artifact_type.map(|kind| format!("?{}", encode(&[("artifactType", kind)]))).unwrap_or_default();
            let first = format!("{}/{}/referrers/{digest}{query}", endpoint.prefix, endpoint.repository);
            let mut found = Vec::new();
            let answer = self.pages(endpoint, first, &what, &mut |index: Index| found.extend(index.manifests));
            match answer {
                Ok(()) => {}
                Err(error) if error.is_not_found() => {
                    let tag = format!("{}-{}", digest.algorithm().as_str(), digest.hex());
                    match self.manifest(&tag) {
                        Ok(Fetched { document: Document::Index(index), .. }) => found = index.manifests,
                        Ok(_) => {}
                        Err(error) if error.is_not_found() => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
            found.retain(|one| artifact_type.is_none_or(|kind| one.artifact_type.as_deref() == Some(kind)));
            Ok(found)
        })
    }

    /// Follows a list over its pages, which stay on the endpoint.
    fn pages<T: serde::de::DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        mut target: String,
        what: &str,
        take: &mut dyn FnMut(T),
    ) -> Result<(), Error> {
        let bad = |reason: String| Error::Answer { what: what.to_owned(), host: endpoint.host.clone(), reason };
        for _ in 0..MAX_PAGES {
            let accept = [("accept", "application/json")];
            let Whole { link, bytes, .. } = self.get_whole(endpoint, &target, &accept, what, MAX_PAGE)?;
            let next = link.as_deref().and_then(headers::next_link).map(str::to_owned);
            take(serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?);
            let Some(next) = next else { return Ok(()) };
            let following = page(endpoint, &target, &next).map_err(bad)?;
            // A list that leads to itself never ends.
            if following == target {
                return Err(bad("a list whose next page is the same one".to_owned()));
            }
            target = following;
        }
        Err(bad(format!("more than {MAX_PAGES} pages")))
    }
}

/// The path of a list's next page, which stays on the endpoint.
pub(super) fn page(endpoint: &Endpoint, target: &str, next: &str) -> Result<String, String> {
    let base = format!("https://{}{target}", endpoint.host);
    let whole = super::exchange::absolute(&base, next).ok_or_else(|| format!("a link to {next:?}"))?;
    let (_, rest) = whole.split_once("://").unwrap_or_default();
    match rest.strip_prefix(endpoint.host.as_str()) {
        Some(path) if path.starts_with('/') => Ok(path.to_owned()),
        _ => Err(format!("a link to another host: {next:?}")),
    }
}

fn range_text(first: u64, last: Option<u64>) -> String {
    format!("{first}-{}", last.map(|last| last.to_string()).unwrap_or_default())
}

pub(super) fn null_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
