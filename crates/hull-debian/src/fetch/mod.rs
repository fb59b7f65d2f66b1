//! Downloads: `http`, `https` and `file` addresses, whole or from a place on.

mod cache;
mod proxy;

pub use cache::{Cache, Wanted};
pub use proxy::Proxies;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hull_http::{Body, Tls};
use hull_oci::digest::{Algorithm, Hasher};

use crate::error::{Error, one_line};

/// Redirections followed.
const MAX_HOPS: usize = 8;

/// Attempts to get a file that make no progress.
const MAX_ATTEMPTS: u32 = 3;

/// A client that keeps its connections. Threads share it.
#[derive(Debug)]
pub struct Client {
    proxies: Proxies,
    /// By proxy.
    clients: Mutex<BTreeMap<Option<String>, Arc<hull_http::Client>>>,
}

/// The beginning of an answer.
struct Answer {
    /// Place of the first byte that follows.
    offset: u64,
    reader: Box<dyn Read + Send>,
}

impl Client {
    /// A client that uses these proxies.
    #[must_use]
    pub fn new(proxies: Proxies) -> Self {
        Self { proxies, clients: Mutex::new(BTreeMap::new()) }
    }

    /// A small file, whole.
    ///
    /// # Errors
    /// [`Error::Download`].
    pub fn read(&self, url: &str, max: u64) -> Result<Vec<u8>, Error> {
        let mut attempt = 0;
        loop {
            let result = self.get(url, 0).and_then(|answer| {
                let mut bytes = Vec::new();
                let read = answer.reader.take(max + 1).read_to_end(&mut bytes);
                read.map_err(|error| Error::download(url, error))?;
                Ok(bytes)
            });
            attempt += 1;
            match result {
                Ok(bytes) if bytes.len() as u64 > max => {
                    return Err(Error::download(url, format!("it is longer than {max} bytes")));
                }
                Err(Error::Download { missing: false, .. }) if attempt < MAX_ATTEMPTS && !url.starts_with("file:") => {}
                other => return other,
            }
        }
    }

    /// A file of known size and digest, written to an empty `file`. Goes on where a connection broke off.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when other bytes come, [`Error::Download`].
    pub fn save(&self, url: &str, file: &mut fs::File, wanted: &Wanted, done: &AtomicU64) -> Result<(), Error> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let (mut written, mut idle) = (0_u64, 0);
        while written < wanted.size {
            let before = written;
            let result = self.get(url, written).and_then(|mut answer| {
                if answer.offset != written {
                    // The server sends the whole file again.
                    file.set_len(0).and_then(|()| file.rewind()).map_err(Error::io("truncate", "download"))?;
                    done.fetch_sub(written, Ordering::Relaxed);
                    hasher = Hasher::new(Algorithm::Sha256);
                    written = 0;
                }
                let mut buffer = vec![0; 128 << 10];
                loop {
                    let read = answer.reader.read(&mut buffer).map_err(|error| Error::download(url, error))?;
                    if read == 0 {
                        return Ok(());
                    }
                    written += read as u64;
                    if written > wanted.size {
                        return Err(wanted.mismatch(url, format!("more than {} bytes", wanted.size)));
                    }
                    hasher.update(&buffer[..read]);
                    file.write_all(&buffer[..read]).map_err(Error::io("write", "download"))?;
                    done.fetch_add(read as u64, Ordering::Relaxed);
                }
            });
            idle = if written > before { 0 } else { idle + 1 };
            match result {
                Ok(())
                    if written < wanted.size && idle >= MAX_ATTEMPTS || url.starts_with("file:") && result.is_ok() =>
                {
                    if written < wanted.size {
                        return Err(wanted.mismatch(url, format!("{written} bytes")));
                    }
                }
                Ok(()) => {}
                Err(Error::Download { missing: false, .. }) if idle < MAX_ATTEMPTS && !url.starts_with("file:") => {}
                Err(error) => return Err(error),
            }
        }
        let found = hasher.finish();
        if found.hex() != wanted.sha256 {
            return Err(wanted.mismatch(url, format!("sha256 {}", found.hex())));
        }
        Ok(())
    }

    fn get(&self, url: &str, offset: u64) -> Result<Answer, Error> {
        if let Some(path) = url.strip_prefix("file:") {
            return open_file(url, path.strip_prefix("//").unwrap_or(path), offset);
        }
        let mut at = url.to_owned();
        for _ in 0..MAX_HOPS {
            let (scheme, host) =
                host(&at).ok_or_else(|| Error::download(&at, "only http, https and file can be used"))?;
            let proxy = self.proxies.of(scheme, host);
            let range = format!("bytes={offset}-");
            // A tunnel shows its credentials itself.
            let credentials = proxy.as_deref().filter(|_| scheme == "http").and_then(credentials);
            let mut headers: Vec<(&str, &str)> = Vec::new();
            headers.extend((offset > 0).then_some(("range", range.as_str())));
            headers.extend(credentials.as_deref().map(|value| ("proxy-authorization", value)));
            let client = self.client(proxy);
            let response = client.send("GET", &at, &headers, Body::None, &Tls::default());
            let response = response.map_err(|error| Error::download(&at, error))?;
            match response.status {
                200 => return Ok(Answer { offset: 0, reader: response.body }),
                206 => {
                    let start = response
                        .header("content-range")
                        .and_then(|value| value.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
                    if start != Some(offset) {
                        return Err(Error::download(&at, "the server sent another part of it than was asked for"));
                    }
                    return Ok(Answer { offset, reader: response.body });
                }
                301 | 302 | 303 | 307 | 308 => {
                    let place = response.header("location");
                    let place = place.ok_or_else(|| Error::download(&at, "a redirection to nowhere"))?;
                    at = absolute(&at, place).ok_or_else(|| Error::download(&at, "a redirection to no address"))?;
                }
                status => {
                    return Err(Error::Download {
                        url: one_line(&at),
                        reason: format!("the server answered {status}"),
                        missing: status == 404 || status == 410,
                    });
                }
            }
        }
        Err(Error::download(url, "too many redirections"))
    }

    /// The client that goes through a proxy, or through none.
    fn client(&self, proxy: Option<String>) -> Arc<hull_http::Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.entry(proxy).or_insert_with_key(|proxy| {
            let variable = |name: &str| proxy.clone().filter(|_| matches!(name, "http_proxy" | "https_proxy"));
            let proxies = hull_http::proxy::Proxies::from_variables(&variable);
            Arc::new(hull_http::Client::new(concat!("hull/", env!("CARGO_PKG_VERSION")), proxies))
        });
        Arc::clone(client)
    }
}

/// Scheme and host of an address.
fn host(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let port = host.rfind(':').filter(|at| !host[*at..].contains(']'));
    Some((scheme, &host[..port.unwrap_or(host.len())]))
}

/// What a proxy for plain requests wants to know.
fn credentials(proxy: &str) -> Option<String> {
    let (credentials, _) = proxy.split_once("://")?.1.rsplit_once('@')?;
    Some(format!("Basic {}", base64(credentials.as_bytes())))
}

fn open_file(url: &str, path: &str, offset: u64) -> Result<Answer, Error> {
    let failed = |error: std::io::Error| Error::Download {
        url: one_line(url),
        missing: error.kind() == std::io::ErrorKind::NotFound,
        reason: error.to_string(),
    };
    let mut file = fs::File::open(Path::new(path)).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::download(url, "it is no regular file"));
    }
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    Ok(Answer { offset, reader: Box::new(file) })
}

/// The address that a redirection leads to.
fn absolute(from: &str, place: &str) -> Option<String> {
    if place.contains("://") {
        return Some(place.to_owned());
    }
    let (scheme, rest) = from.split_once("://")?;
    if let Some(rest) = place.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    let rest = rest.split(['?', '#']).next()?;
    let authority = rest.split('/').next()?;
    if place.starts_with('/') {
        return Some(format!("{scheme}://{authority}{place}"));
    }
    let directory = rest.rsplit_once('/').map_or(authority, |(directory, _)| directory);
    Some(format!("{scheme}://{directory}/{place}"))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests;
