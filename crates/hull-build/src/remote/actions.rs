//! `type=gha`: the cache of GitHub Actions, version 2 of its protocol.
//!
//! ```text
//! POST URL/twirp/github.actions.results.api.v1.CacheService/METHOD     JSON, with the job's token
//!      CreateCacheEntry ── signed address ── PUT ── FinalizeCacheEntryUpload
//!      GetCacheEntryDownloadURL ── signed address ── GET
//! hull-blob-1-DIGEST                  a layer
//! hull-index-1-SCOPE#TIME-DIGEST      a Catalogue: the records, and the layers' blobs; the newest one counts
//! ```
//!
//! Entries never change, which is why each catalogue has a name of its own and is asked for by the part that all have.
//! Blobs are block blobs of Azure's storage: a short one is sent by one request, a longer one in blocks and a list of them.
//! Signed addresses permit whatever they are for: the token is never sent there, and no message has one.
//!
//! The service belongs to others: its answers are bounded, what it gives is compared with its digest by whoever reads it,
//! and redirects are not followed.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hull_http::proxy::Proxies;
use hull_http::{Body, Client, Response, Tls};
use hull_oci::Digest;
use hull_oci::image::Descriptor;
use hull_oci::spec::one_line;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::MEDIA_TYPE;
use super::document::{Document, MAX_BYTES};
use crate::Error;
use crate::request::CacheEntry;

const SERVICE: &str = "twirp/github.actions.results.api.v1.CacheService";
/// Who sends.
const USER_AGENT: &str = concat!("hull/", env!("CARGO_PKG_VERSION"));
/// Where the storage's version of its protocol is told; blobs by one request have been longer since this one.
const STORAGE_VERSION: (&str, &str) = ("x-ms-version", "2020-04-08");
/// A longer answer is refused.
const MAX_ANSWER: u64 = 64 << 10;
/// Bytes that one request sends; so many are held for each blob that goes.
const BLOCK: u64 = 8 << 20;
/// The storage takes no more blocks.
const MAX_BLOCKS: u64 = 50_000;
/// Attempts at one request.
const ATTEMPTS: u32 = 5;
/// When `timeout=` is not said.
const TIMEOUT: Duration = Duration::from_secs(600);
/// A longer scope is refused: a key has 512 bytes.
const MAX_SCOPE: usize = 256;

/// Where the service is, and who may use it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Place {
    url: String,
    token: String,
    /// Which of its caches.
    pub(super) scope: String,
    timeout: Duration,
}

impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Place").field("url", &self.url).field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// What a catalogue holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Catalogue {
    #[serde(rename = "mediaType")]
    media_type: String,
    /// Blobs of the document's layers, in their order.
    pub(super) blobs: Vec<Descriptor>,
    pub(super) document: Document,
}

/// What lacks of an entry for there to be a cache: as with `docker buildx`, a command line that is meant for a job works
/// elsewhere too, without its cache.
pub(super) fn lacking(entry: &CacheEntry) -> Option<&'static str> {
    let is_set = |key: &str| entry.attributes.get(key).is_some_and(|value| !value.is_empty());
    if !is_set("token") {
        Some("token= is not set, and neither is ACTIONS_RUNTIME_TOKEN")
    } else if !is_set("url_v2") && !is_set("url") {
        Some("url_v2= is not set, and neither is ACTIONS_RESULTS_URL")
    } else {
        None
    }
}

impl Place {
    /// The place of an entry that lacks nothing.
    pub(super) fn of(entry: &CacheEntry) -> Result<Self, Error> {
        let text = |key: &str| entry.attributes.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let wrong = |reason: String| Error::Request(format!("cache of type gha: {reason}"));
        if let Some(reason) = lacking(entry) {
            return Err(wrong(reason.to_owned()));
        }
        if let Some(version) = text("version").filter(|version| *version != "2") {
            return Err(wrong(format!("version {version:?} of the service is not supported: expected 2")));
        }
        let url = text("url_v2").or_else(|| text("url")).unwrap_or_default().trim_end_matches('/').to_owned();
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(wrong(format!("address {url:?} is neither http nor https")));
        }
        let token = text("token").unwrap_or_default();
        if token.contains(|one: char| one.is_ascii_control()) {
            return Err(wrong("its token has a control character".to_owned()));
        }
        let scope = text("scope").unwrap_or("buildkit");
        if scope.len() > MAX_SCOPE || scope.contains(|one: char| one.is_control() || matches!(one, ',' | '#')) {
            return Err(wrong(format!(
                "scope {scope:?} cannot be a name: it has more than {MAX_SCOPE} bytes, a comma, # or a control character"
            )));
        }
        let timeout = match text("timeout") {
            None => TIMEOUT,
            Some(text) => {
                let parsed = hull_engine::time::duration(text);
                Duration::from_nanos(parsed.ok_or_else(|| wrong(format!("timeout {text:?} is no duration: try 10m")))?)
            }
        };
        Ok(Self { url, token: token.to_owned(), scope: scope.to_owned(), timeout })
    }

    /// Begins to speak to it; the time that it has begins too.
    pub(super) fn connect(&self) -> Service {
        let client = Client::new(USER_AGENT, Proxies::from_environment());
        let deadline = Instant::now().checked_add(self.timeout);
        Service { client, place: self.clone(), deadline }
    }
}

/// The service, while it is used.
#[derive(Debug)]
pub(super) struct Service {
    client: Client,
    place: Place,
    deadline: Option<Instant>,
}

/// An entry that can be read.
#[derive(Debug, Deserialize)]
struct Found {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    signed_download_url: String,
    #[serde(default)]
    matched_key: String,
}

fn blob_key(digest: &Digest) -> String {
    format!("hull-blob-1-{digest}")
}

/// Entries of one name with another version are not found.
fn version() -> String {
    Digest::of(b"hull cache 1").hex().to_owned()
}

fn failed(what: &str, reason: impl fmt::Display) -> Error {
    Error::Request(format!("cache service: {what}: {}", one_line(&reason.to_string())))
}

fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

impl Service {
    fn index_prefix(&self) -> String {
        format!("hull-index-1-{}#", self.place.scope)
    }

    /// Sends until there is an answer that another attempt would not change.
    fn send(
        &self,
        what: &str,
        (method, address): (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if late {
                return Err(failed(what, format!("it took longer than {:?}", self.place.timeout)));
            }
            let body = if method == "GET" { Body::None } else { Body::Bytes(body.to_vec()) };
            let (reason, wait) = match self.client.send(method, address, headers, body, &Tls::default()) {
                Ok(answer) if is_passing(answer.status) && attempt < ATTEMPTS => {
                    let wait = answer.header("retry-after").and_then(|wait| wait.trim().parse().ok());
                    (String::new(), wait.map(Duration::from_secs))
                }
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_transient() => (error.to_string(), None),
                // The address may be in the text.
                Err(error) if error.kind == hull_http::ErrorKind::Request => {
                    return Err(failed(what, "the service gave an address that cannot be used"));
                }
                Err(error) => return Err(failed(what, error)),
            };
            if attempt >= ATTEMPTS {
                return Err(failed(what, reason));
            }
            let wait = wait.unwrap_or(Duration::from_millis(200 << attempt));
            let left = self.deadline.map_or(wait, |deadline| deadline.saturating_duration_since(Instant::now()));
            std::thread::sleep(wait.min(left));
        }
    }

    /// Asks the service. `None` for what is there already.
    fn call(&self, method: &str, key: &str, body: &Value) -> Result<Option<Vec<u8>>, Error> {
        let what = format!("{method} {key}");
        let address = format!("{}/{SERVICE}/{method}", self.place.url);
        let bearer = format!("Bearer {}", self.place.token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let answer = self.send(&what, ("POST", &address), &headers, body.to_string().as_bytes())?;
        let status = answer.status;
        let bytes = answer.read(MAX_ANSWER).map_err(|error| failed(&what, error))?;
        if status == 200 {
            return Ok(Some(bytes));
        }
        #[derive(Deserialize)]
        struct Refused {
            #[serde(default)]
            code: String,
            #[serde(default)]
            msg: String,
        }
        match serde_json::from_slice::<Refused>(&bytes) {
            Ok(refused) if refused.code == "already_exists" => Ok(None),
            Ok(refused) if refused.code == "not_found" => Ok(Some(b"{}".to_vec())),
            Ok(refused) => Err(failed(&what, format_args!("status {status}: {} {}", refused.code, refused.msg))),
            Err(_) => Err(failed(&what, format_args!("status {status}"))),
        }
    }

    /// The address of an entry: of this very name, or the newest one whose name begins so.
    fn find(&self, key: &str, by_prefix: bool) -> Result<Option<Found>, Error> {
        let restore: &[&str] = if by_prefix { &[key] } else { &[] };
        let body = json!({"key": key, "restore_keys": restore, "version": version()});
        let method = "GetCacheEntryDownloadURL";
        let Some(bytes) = self.call(method, key, &body)? else { return Ok(None) };
        let found: Found = serde_json::from_slice(&bytes).map_err(|error| failed(&format!("{method} {key}"), error))?;
        let fits = if by_prefix { found.matched_key.starts_with(key) } else { found.matched_key == key };
        Ok(Some(found).filter(|found| found.ok && fits && !found.signed_download_url.is_empty()))
    }

    /// Stores an entry. `false` if it is there already, or on its way from somebody else.
    fn save(&self, key: &str, size: u64, reader: &mut dyn Read) -> Result<bool, Error> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            ok: bool,
            #[serde(default)]
            signed_upload_url: String,
        }
        let parse = |method: &str, bytes: &[u8]| {
            let answer = serde_json::from_slice::<Answer>(bytes);
            answer.map_err(|error| failed(&format!("{method} {key}"), error))
        };
        let method = "CreateCacheEntry";
        let Some(bytes) = self.call(method, key, &json!({"key": key, "version": version()}))? else {
            return Ok(false);
        };
        let created = parse(method, &bytes)?;
        if !created.ok || created.signed_upload_url.is_empty() {
            return Ok(false);
        }
        self.upload(key, &created.signed_upload_url, size, reader)?;
        let method = "FinalizeCacheEntryUpload";
        let Some(bytes) =
            self.call(method, key, &json!({"key": key, "version": version(), "size_bytes": size.to_string()}))?
        else {
            return Ok(false);
        };
        if !parse(method, &bytes)?.ok {
            return Err(failed(&format!("{method} {key}"), "it was refused"));
        }
        Ok(true)
    }

    fn upload(&self, key: &str, address: &str, size: u64, reader: &mut dyn Read) -> Result<(), Error> {
        use base64::Engine as _;
        let what = format!("send {key}");
        let put = |address: &str, headers: &[(&str, &str)], body: &[u8]| {
            let answer = self.send(&what, ("PUT", address), headers, body)?;
            match answer.status {
                200..=299 => Ok(()),
                other => Err(failed(&what, format_args!("status {other} of the storage"))),
            }
        };
        let mut next = |length: u64| {
            let mut block = Vec::new();
            reader.take(length).read_to_end(&mut block).map_err(|error| failed(&what, error))?;
            if block.len() as u64 == length { Ok(block) } else { Err(failed(&what, "the blob is shorter than it was")) }
        };
        if size <= BLOCK {
            let headers = [STORAGE_VERSION, ("x-ms-blob-type", "BlockBlob")];
            return put(address, &headers, &next(size)?);
        }
        let count = size.div_ceil(BLOCK);
        if count > MAX_BLOCKS {
            return Err(failed(&what, "the storage takes no blob of this length"));
        }
        let joint = if address.contains('?') { '&' } else { '?' };
        let mut list = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
        for number in 0..count {
            let id = base64::engine::general_purpose::STANDARD.encode(format!("{number:08}"));
            let place = format!("{address}{joint}comp=block&blockid={}", id.replace('=', "%3D"));
            put(&place, &[STORAGE_VERSION], &next(BLOCK.min(size - number * BLOCK))?)?;
            list.push_str(&format!("<Latest>{id}</Latest>"));
        }
        list.push_str("</BlockList>");
        let headers = [STORAGE_VERSION, ("content-type", "application/xml")];
        put(&format!("{address}{joint}comp=blocklist"), &headers, list.as_bytes())
    }

    /// Stores a layer unless it is there.
    pub(super) fn save_blob(
        &self,
        blob: &Descriptor,
        open: &dyn Fn() -> io::Result<Box<dyn Read>>,
    ) -> Result<(), Error> {
        let key = blob_key(&blob.digest);
        if self.find(&key, false)?.is_none() {
            self.save(&key, blob.size, &mut open().map_err(|error| failed(&format!("read {key}"), error))?)?;
        }
        Ok(())
    }

    /// Stores a catalogue unless the newest one says the same. Returns its digest.
    pub(super) fn save_catalogue(&self, blobs: Vec<Descriptor>, document: Document) -> Result<Digest, Error> {
        let catalogue = Catalogue { media_type: MEDIA_TYPE.to_owned(), blobs, document };
        let bytes = serde_json::to_vec(&catalogue).map_err(|error| failed("write the records", error))?;
        let digest = Digest::of(&bytes);
        let prefix = self.index_prefix();
        let newest = self.find(&prefix, true)?;
        if newest.is_some_and(|newest| newest.matched_key.ends_with(&format!("-{}", digest.hex()))) {
            return Ok(digest);
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let key = format!("{prefix}{time}-{}", digest.hex());
        self.save(&key, bytes.len() as u64, &mut bytes.as_slice())?;
        Ok(digest)
    }

    /// The newest catalogue, if there is one.
    pub(super) fn catalogue(&self) -> Result<Option<Catalogue>, Error> {
        let prefix = self.index_prefix();
        let Some(found) = self.find(&prefix, true)? else { return Ok(None) };
        let what = format!("read {}", found.matched_key);
        let answer = self.send(&what, ("GET", &found.signed_download_url), &[], &[])?;
        if answer.status != 200 {
            return Err(failed(&what, format_args!("status {} of the storage", answer.status)));
        }
        let bytes = answer.read(2 * MAX_BYTES).map_err(|error| failed(&what, error))?;
        let mut catalogue: Catalogue = serde_json::from_slice(&bytes).map_err(|error| failed(&what, error))?;
        if catalogue.media_type != MEDIA_TYPE {
            return Err(failed(&what, format_args!("it is of type {:?}", catalogue.media_type)));
        }
        catalogue.document = catalogue.document.checked(catalogue.blobs.len()).map_err(|error| failed(&what, error))?;
        Ok(Some(catalogue))
    }

    /// Reads a layer, and goes on where a connection breaks.
    pub(super) fn blob<'a>(&'a self, blob: &Descriptor, told: &'a (dyn Fn(u64, u64) + Sync)) -> Blob<'a> {
        Blob { service: self, key: blob_key(&blob.digest), size: blob.size, done: 0, body: None, fruitless: 0, told }
    }
}

/// A layer that is read.
pub(super) struct Blob<'a> {
    service: &'a Service,
    key: String,
    size: u64,
    done: u64,
    body: Option<Box<dyn Read + Send>>,
    fruitless: u32,
    told: &'a (dyn Fn(u64, u64) + Sync),
}

impl Blob<'_> {
    fn connect(&self) -> Result<Box<dyn Read + Send>, Error> {
        let what = format!("read {}", self.key);
        // Addresses are signed for a while only.
        let found = self.service.find(&self.key, false)?.ok_or_else(|| failed(&what, "it is not there any more"))?;
        let range = format!("bytes={}-", self.done);
        let headers: &[(&str, &str)] = if self.done > 0 { &[("range", &range)] } else { &[] };
        let mut answer = self.service.send(&what, ("GET", &found.signed_download_url), headers, &[])?;
        match answer.status {
            206 => {}
            // It has not heard of ranges.
            200 => {
                let skipped = io::copy(&mut answer.body.by_ref().take(self.done), &mut io::sink());
                skipped.map_err(|error| failed(&what, error))?;
            }
            other => return Err(failed(&what, format_args!("status {other} of the storage"))),
        }
        Ok(answer.body)
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.done < self.size {
            let body = match &mut self.body {
                Some(body) => body,
                None => self.body.insert(self.connect().map_err(io::Error::other)?),
            };
            let most = usize::try_from(self.size - self.done).unwrap_or(usize::MAX).min(buffer.len());
            let reason = match body.read(buffer.get_mut(..most).unwrap_or_default()) {
                Ok(0) if most == 0 => return Ok(0),
                Ok(0) => "the connection ended".to_owned(),
                Ok(count) => {
                    self.done += count as u64;
                    self.fruitless = 0;
                    (self.told)(self.done, self.size);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error.to_string(),
            };
            self.body = None;
            self.fruitless += 1;
            if self.fruitless >= ATTEMPTS {
                return Err(io::Error::other(format!("cache service: read {}: {reason}", self.key)));
            }
            std::thread::sleep(Duration::from_millis(100 << self.fruitless));
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(attributes: &[(&str, &str)]) -> CacheEntry {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        CacheEntry { kind: "gha".to_owned(), attributes }
    }

    #[test]
    fn entries_are_places() {
        let own = [("token", "secret"), ("url_v2", "https://results.example/"), ("url", "https://old.example")];
        let place = Place::of(&entry(&own)).unwrap();
        assert_eq!((place.url.as_str(), place.scope.as_str()), ("https://results.example", "buildkit"));
        assert!(!format!("{place:?}").contains("secret"));
        for (more, reason) in [
            (("token", ""), "ACTIONS_RUNTIME_TOKEN"),
            (("version", "1"), "version \"1\" of the service is not supported: expected 2"),
            (("url_v2", "ftp://x"), "neither http nor https"),
            (("scope", "a,b"), "scope \"a,b\" cannot be a name"),
            (("timeout", "soon"), "timeout \"soon\" is no duration"),
        ] {
            let all: Vec<_> = own.iter().copied().chain([more]).collect();
            let error = Place::of(&entry(&all)).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("secret"), "{more:?}: {error}");
        }
        assert!(lacking(&entry(&[("token", "x")])).is_some_and(|reason| reason.contains("ACTIONS_RESULTS_URL")));
    }
}
