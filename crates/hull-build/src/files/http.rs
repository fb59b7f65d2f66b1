//! Files by HTTP(S), kept from build to build and asked for again only as far as they changed.
//!
//! ```text
//! ROOT/cache/http/
//! ├─ DIGEST        the content
//! └─ URL.json      URL is the address's digest: which content it had, its validators and its time
//! ```
//!
//! Both are replaced by rename, the content first. An address with a checksum whose content is there is not asked for.
//! Redirects are followed here: at most ten, from https to http only where a checksum says what must come, and
//! credentials go to the first host alone.

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use hull_http::{Body, Client, Response, Tls};
use hull_oci::Digest;
use hull_oci::digest::{Algorithm, Hasher};
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::tree::{Kind, Meta, empty_directory};
use super::trees::SingleFile;
use crate::graph::HttpSource;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// The longest file.
const MAX_BYTES: u64 = 64 << 30;
/// What is kept of contents; beyond, those used least recently go.
const MAX_KEPT: u64 = 4 << 30;
const MAX_FILES: usize = 2048;
const BUFFER: usize = 256 << 10;

/// Told of what comes: bytes so far and in all, 0 if that is not known. Nothing more comes if it returns false.
pub type Progress<'p> = &'p dyn Fn(u64, u64) -> bool;

/// What is known of an address.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    url: String,
    digest: Digest,
    etag: Option<String>,
    modified: Option<String>,
}

/// A file that was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The file, named as the address's path ends.
    pub file: SingleFile,
    /// Its digest.
    pub digest: Digest,
    /// Nothing was transferred.
    pub cached: bool,
}

/// Fetches files into a directory of the store.
#[derive(Debug)]
pub struct Downloads {
    directory: PathBuf,
    client: Client,
    count: AtomicU64,
}

impl Downloads {
    /// Downloads that are kept in this directory.
    #[must_use]
    pub fn new(directory: PathBuf, client: Client) -> Self {
        Self { directory, client, count: AtomicU64::new(0) }
    }

    /// Fetches what an address has now. `authorization` goes to its host.
    ///
    /// # Errors
    /// When it cannot be had, or is not what its checksum says.
    pub fn fetch(
        &self,
        source: &HttpSource,
        authorization: Option<&str>,
        progress: Progress<'_>,
    ) -> Result<Fetched, Error> {
        let directory = &self.directory;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(Error::io("create directory", directory))?;
        let place = directory.join(format!("{}.json", Digest::of(source.url.as_bytes()).hex()));
        let record = fs::read(&place).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
        let record = record.filter(|record| record.url == source.url);
        let kept = record.as_ref().and_then(|record| self.open(&record.digest));
        if let (Some(record), Some(file)) = (&record, &kept)
            && source.checksum.as_ref() == Some(&record.digest)
        {
            return Ok(fetched(source, record, file.clone(), true));
        }
        // Whoever must be asked with credentials may answer differently the next time.
        let validators = record.as_ref().filter(|_| kept.is_some());
        let response = self.follow(source, authorization, validators)?;
        if response.status == 304
            && let (Some(record), Some(file)) = (&record, kept)
        {
            check(source, &record.digest)?;
            return Ok(fetched(source, record, file, true));
        }
        if response.status != 200 {
            return Err(failed(source, &format!("invalid response status {}", response.status)));
        }
        let text = |name: &str| response.header(name).map(str::to_owned);
        let (etag, modified) = (text("etag"), text("last-modified"));
        let total = response.length().unwrap_or(0);
        let (path, digest) = self.receive(source, response.body, total, progress)?;
        if let Err(error) = check(source, &digest) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let content = directory.join(digest.hex());
        fs::rename(&path, &content).map_err(Error::io("rename", &path))?;
        let record = Record { url: source.url.clone(), digest, etag, modified };
        let bytes = serde_json::to_vec(&record).map_err(|error| failed(source, &error.to_string()))?;
        hull_fs::atomic::write_path(&place, &bytes, 0o600)?;
        let file = File::open(&content).map_err(Error::io("open", &content))?;
        self.prune(&content);
        Ok(fetched(source, &record, Arc::new(file), false))
    }

    /// The content with a digest, if it is kept; it counts as used now.
    fn open(&self, digest: &Digest) -> Option<Arc<File>> {
        let file = File::open(self.directory.join(digest.hex())).ok()?;
        // Only what is pruned first depends on it.
        let _ = file.set_modified(SystemTime::now());
        Some(Arc::new(file))
    }

    fn follow(
        &self,
        source: &HttpSource,
        authorization: Option<&str>,
        known: Option<&Record>,
    ) -> Result<Response, Error> {
        let mut url = source.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut headers: Vec<(&str, &str)> = Vec::new();
            if let Some(authorization) = authorization.filter(|_| origin(&url) == origin(&source.url)) {
                headers.push(("authorization", authorization));
            }
            if let Some(known) = known {
                if let Some(etag) = &known.etag {
                    headers.push(("if-none-match", etag));
                } else if let Some(modified) = &known.modified {
                    headers.push(("if-modified-since", modified));
                }
            }
            let response = self
                .client
                .send("GET", &url, &headers, Body::None, &Tls::default())
                .map_err(|error| failed(source, &error.to_string()))?;
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let Some(location) = response.header("location") else {
                return Err(failed(source, "redirected to nowhere"));
            };
            let next = resolve(&url, location).ok_or_else(|| failed(source, "redirected to what is no address"))?;
            if url.starts_with("https://") && !next.starts_with("https://") && source.checksum.is_none() {
                return Err(failed(source, "redirected from https to http; --checksum makes that safe"));
            }
            url = next;
        }
        Err(failed(source, "redirected too often"))
    }

    /// Writes a body to a file of its own.
    fn receive(
        &self,
        source: &HttpSource,
        mut body: Box<dyn Read + Send>,
        total: u64,
        progress: Progress<'_>,
    ) -> Result<(PathBuf, Digest), Error> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("unfinished-{}-{number}", std::process::id()));
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let mut file = file.map_err(Error::io("create", &path))?;
        let algorithm = source.checksum.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let received = (|| {
            let mut hasher = Hasher::new(algorithm);
            let mut buffer = vec![0; BUFFER];
            let mut size = 0_u64;
            loop {
                let count = match body.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(failed(source, &error.to_string())),
                };
                size += count as u64;
                if size > MAX_BYTES {
                    return Err(failed(source, &format!("it is longer than {MAX_BYTES} bytes")));
                }
                hasher.update(&buffer[..count]);
                file.write_all(&buffer[..count]).map_err(Error::io("write", &path))?;
                if !progress(size, total) {
                    return Err(Error::Canceled);
                }
            }
            Ok(hasher.finish())
        })();
        if received.is_err() {
            let _ = fs::remove_file(&path);
        }
        received.map(|digest| (path, digest))
    }

    /// Removes what was used least recently when there is too much; `keep` stays. What a killed process left goes too.
    fn prune(&self, keep: &Path) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let mut all = Vec::new();
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let old =
                meta.modified().ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age.as_secs() > 86400);
            if old && entry.file_name().as_encoded_bytes().starts_with(b"unfinished-") {
                let _ = fs::remove_file(entry.path());
            } else if entry.path() != keep {
                all.push((meta.mtime(), meta.len(), entry.path()));
            }
        }
        all.sort();
        let (mut bytes, mut files) = (all.iter().map(|one| one.1).sum::<u64>(), all.len());
        for (_, size, path) in all {
            if bytes <= MAX_KEPT && files <= MAX_FILES {
                break;
            }
            // Another build may have done it.
            let _ = fs::remove_file(path);
            (bytes, files) = (bytes - size, files - 1);
        }
    }
}

fn failed(source: &HttpSource, reason: &str) -> Error {
    Error::Fetch(format!("failed to load {}: {reason}", without_secrets(&source.url)))
}

/// An address without user and password.
pub(crate) fn without_secrets(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let host = rest[..end].rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{}", &rest[end..])
        }
        None => url.to_owned(),
    }
}

fn check(source: &HttpSource, digest: &Digest) -> Result<(), Error> {
    match &source.checksum {
        Some(expected) if expected != digest => Err(failed(source, &format!("digest mismatch {digest}: {expected}"))),
        _ => Ok(()),
    }
}

fn fetched(source: &HttpSource, record: &Record, file: Arc<File>, cached: bool) -> Fetched {
    let seconds = record.modified.as_deref().and_then(seconds).unwrap_or(0);
    let size = file.metadata().map_or(0, |meta| meta.len());
    let meta = Meta { kind: Kind::File, mode: 0o600, size, mtime: (seconds, 0), ..empty_directory() };
    let sha256 = binary(&record.digest).filter(|_| record.digest.algorithm() == Algorithm::Sha256);
    let file = SingleFile { name: name(&source.url), file, meta, sha256 };
    Fetched { file, digest: record.digest.clone(), cached }
}

/// A digest's bytes, if they are 32.
fn binary(digest: &Digest) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let hex = digest.hex();
    if hex.len() != 64 {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The name of what an address has.
fn name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let name = path.split_once('/').and_then(|(_, path)| path.trim_end_matches('/').rsplit('/').next());
    name.filter(|name| !matches!(*name, "" | "." | "..")).unwrap_or("__unnamed__").to_owned()
}

/// Scheme and host with port.
fn origin(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    Some((scheme, rest.split(['/', '?', '#']).next()?.rsplit('@').next()?))
}

/// Where a redirect leads.
fn resolve(base: &str, location: &str) -> Option<String> {
    if location.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return None;
    }
    let lower = location.to_ascii_lowercase();
    if lower.starts_with("http://") || lower.starts_with("https://") {
        return Some(location.to_owned());
    }
    if location.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':')) {
        return None;
    }
    let (scheme, rest) = base.split_once("://")?;
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    let rest = rest.split(['?', '#']).next()?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if location.starts_with('/') {
        return Some(format!("{scheme}://{host}{location}"));
    }
    let directory = path.rfind('/').map_or("", |slash| &path[..=slash]);
    Some(format!("{scheme}://{host}/{directory}{location}"))
}

/// An HTTP date (RFC 9110, 5.6.7) in seconds since 1970.
fn seconds(text: &str) -> Option<i64> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;
    use std::sync::Mutex;

    use hull_http::proxy::Proxies;

    use super::*;

    /// A server that gives the answers in order, and keeps what it was asked.
    fn server(answers: Vec<String>) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while !request.ends_with("\r\n\r\n") {
                    if reader.read_line(&mut request).unwrap() == 0 {
                        break;
                    }
                }
                kept.lock().unwrap().push(request);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (address, asked)
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}")
    }

    fn source(url: String) -> HttpSource {
        HttpSource { url, checksum: None, auth: Vec::new() }
    }

    fn downloads(directory: &Path) -> Downloads {
        Downloads::new(directory.join("http"), Client::new("test", Proxies::default()))
    }

    fn text(fetched: &Fetched) -> String {
        use super::super::tree::FileTree as _;
        let mut text = String::new();
        let (root, _) = fetched.file.root().unwrap();
        let name = fetched.file.name.clone();
        fetched.file.open(&root, name.as_bytes()).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_did_not_change_is_not_fetched_again() {
        let headers = "etag: \"1\"\r\nlast-modified: Tue, 15 Nov 1994 12:45:26 GMT\r\n";
        let (address, asked) = server(vec![
            answer("302 Found", "location: /real/x.txt\r\n", ""),
            answer("200 OK", headers, "content"),
            answer("302 Found", "location: /real/x.txt\r\n", ""),
            answer("304 Not Modified", "", ""),
            answer("200 OK", "etag: \"2\"\r\n", "other"),
        ]);
        let directory = tempfile::tempdir().unwrap();
        let source = source(format!("{address}/a/name.txt?q"));
        let first = downloads(directory.path()).fetch(&source, Some("Bearer s"), &|_, _| true).unwrap();
        assert_eq!((first.cached, text(&first).as_str(), first.file.name.as_str()), (false, "content", "name.txt"));
        assert_eq!(first.file.meta.mtime, (784_903_526, 0));
        assert_eq!(first.file.meta.mode, 0o600);
        let second = downloads(directory.path()).fetch(&source, None, &|_, _| true).unwrap();
        assert_eq!((second.cached, text(&second).as_str()), (true, "content"));
        let third = downloads(directory.path()).fetch(&source, None, &|_, _| true).unwrap();
        assert_eq!((third.cached, text(&third).as_str()), (false, "other"));
        // With its checksum nobody is asked: the server has no more answers.
        let pinned = HttpSource { checksum: Some(Digest::of(b"other")), ..source };
        assert!(downloads(directory.path()).fetch(&pinned, None, &|_, _| true).unwrap().cached);
        let asked = asked.lock().unwrap();
        assert!(asked[0].starts_with("GET /a/name.txt?q "), "{}", asked[0]);
        assert!(asked[0].contains("Bearer s") && asked[1].contains("Bearer s"), "{}", asked[1]);
        assert!(asked[3].to_ascii_lowercase().contains("if-none-match: \"1\""), "{}", asked[3]);
    }

    #[test]
    fn credentials_stay_with_their_host() {
        let (other, asked) = server(vec![answer("200 OK", "", "x")]);
        let (address, _) = server(vec![answer("307 Temporary Redirect", &format!("location: {other}/y\r\n"), "")]);
        let directory = tempfile::tempdir().unwrap();
        downloads(directory.path()).fetch(&source(format!("{address}/x")), Some("Bearer s"), &|_, _| true).unwrap();
        assert!(!asked.lock().unwrap()[0].contains("Bearer"));
    }

    #[test]
    fn wrong_answers_leave_nothing() {
        let endless = || answer("301 Moved", "location: /again\r\n", "");
        let mut answers = vec![
            answer("404 Not Found", "", "no"),
            answer("200 OK", "", "evil"),
            answer("301 Moved", "location: file:///etc/passwd\r\n", ""),
            answer("200 OK", "", "much"),
        ];
        answers.extend((0..=MAX_REDIRECTS).map(|_| endless()));
        let (address, _) = server(answers);
        let directory = tempfile::tempdir().unwrap();
        let downloads = downloads(directory.path());
        let plain = source(format!("{address}/x"));
        let pinned = HttpSource { checksum: Some(Digest::of(b"good")), ..plain.clone() };
        let fails = |source: &HttpSource, go: bool, reason: &str| {
            let error = downloads.fetch(source, None, &|_, _| go).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        };
        fails(&plain, true, "invalid response status 404");
        fails(&pinned, true, "digest mismatch");
        fails(&plain, true, "no address");
        fails(&plain, false, "canceled");
        fails(&plain, true, "too often");
        assert_eq!(fs::read_dir(directory.path().join("http")).unwrap().count(), 0);
    }

    #[test]
    fn redirects_are_resolved() {
        let check = |base: &str, location: &str, expected: Option<&str>| {
            assert_eq!(resolve(base, location).as_deref(), expected, "{base} {location}");
        };
        check("https://h/a/b?q", "c", Some("https://h/a/c"));
        check("https://h", "c", Some("https://h/c"));
        check("https://h/a", "/c?x", Some("https://h/c?x"));
        check("https://h/a", "//g/c", Some("https://g/c"));
        check("https://h/a", "HTTP://g/c", Some("HTTP://g/c"));
        check("https://h/a", "ftp://g/c", None);
        check("https://h/a", "/c\r\nx: y", None);
        assert_eq!(without_secrets("https://u:p@h/x@y"), "https://h/x@y");
        assert_eq!(name("https://h"), "__unnamed__");
        assert_eq!(name("https://h/a/b.tgz#x"), "b.tgz");
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        assert_eq!(seconds("nonsense"), None);
    }
}
