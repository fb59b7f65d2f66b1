//! One request and its answer: authorisation, redirects, retries.

use std::thread;
use std::time::Duration;

use hull_http::{Body, Error as HttpError, ErrorKind, Response, Tls};

use super::Client;
use super::token::{Scope, host_of};
use crate::challenge;
use crate::error::{Error, Refusal};
use crate::headers;
use crate::hosts::{Endpoint, Scheme};

/// Attempts at one request whose answer says that another may succeed.
const ATTEMPTS: u32 = 5;

/// Redirects of one request.
const REDIRECTS: u32 = 10;

/// Refusals are read up to this many bytes.
const MAX_REFUSAL: u64 = 64 << 10;

/// Makes a request's body; called once for each attempt.
pub(super) type MakeBody<'a> = &'a mut dyn FnMut() -> std::io::Result<Body>;

/// A request to an endpoint.
pub(super) struct Request<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) scope: &'a Scope<'a>,
    pub(super) method: &'a str,
    /// A path with query on the endpoint, or a whole address that the endpoint gave for the next step of an upload.
    pub(super) target: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// For messages: what is asked for.
    pub(super) what: &'a str,
    /// Whether a failed attempt may simply be repeated.
    pub(super) repeatable: bool,
}

/// Certificates and trust of an endpoint.
pub(super) fn tls(endpoint: &Endpoint) -> Tls {
    Tls {
        verify: endpoint.verify,
        authorities: endpoint.authorities.clone(),
        identity: endpoint.identities.first().cloned(),
    }
}

impl Request<'_> {
    fn addresses(&self) -> Vec<String> {
        if host_of(self.target).is_some() {
            return vec![self.target.to_owned()];
        }
        let schemes: &[&str] = match self.endpoint.scheme {
            Scheme::Https => &["https"],
            Scheme::Http | Scheme::Ssh => &["http"],
            Scheme::Either => &["https", "http"],
        };
        schemes.iter().map(|scheme| format!("{scheme}://{}{}", self.endpoint.host, self.target)).collect()
    }

    fn failed(&self, address: &str, source: HttpError) -> Error {
        let scheme = match self.endpoint.scheme {
            Scheme::Ssh => "ssh",
            _ if address.starts_with("http://") => "http",
            _ => "https",
        };
        let address = format!("{scheme}://{}", host_of(address).unwrap_or(&self.endpoint.host));
        Error::Transport { what: self.what.to_owned(), address, source }
    }
}

impl Client {
    /// Sends a request until it is answered by something that no repetition would change.
    pub(super) fn exchange(&self, request: &Request<'_>, body: MakeBody<'_>) -> Result<Response, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let last = !request.repeatable || attempt == ATTEMPTS;
            let wait = match self.authorized(request, body) {
                Ok(response) if !last && matches!(response.status, 408 | 425 | 429 | 500 | 502 | 503 | 504) => {
                    let asked = response.header("retry-after").and_then(headers::retry_after);
                    asked.unwrap_or_else(|| backoff(attempt))
                }
                Err(Error::Transport { source, .. }) if !last && source.is_transient() => backoff(attempt),
                other => return other,
            };
            thread::sleep(wait);
        }
    }

    /// Sends a request, with a token if the endpoint wants one.
    fn authorized(&self, request: &Request<'_>, body: MakeBody<'_>) -> Result<Response, Error> {
        let (host, scope) = (&request.endpoint.host, &request.scope.text);
        let known = self.tokens.get(host, scope);
        let response = self.redirected(request, known.as_ref().map(|known| known.header()).as_deref(), body)?;
        if response.status != 401 {
            return Ok(response);
        }
        self.tokens.forget(host, scope);
        let challenges: Vec<_> = response.headers("www-authenticate").flat_map(challenge::parse).collect();
        match self.authorize(request.endpoint, request.scope, &challenges)? {
            Some(authorization) => self.redirected(request, Some(&authorization.header()), body),
            None => Ok(response),
        }
    }

    /// Sends a request and follows redirects. The credential stays with the endpoint.
    fn redirected(
        &self,
        request: &Request<'_>,
        authorization: Option<&str>,
        body: MakeBody<'_>,
    ) -> Result<Response, Error> {
        let (mut address, mut response) = self.first(request, authorization, body)?;
        let mut followed = 0;
        loop {
            let method = match response.status {
                301..=303 if matches!(request.method, "GET" | "HEAD") => request.method,
                307 | 308 => request.method,
                _ => return Ok(response),
            };
            let bad = |reason: String| Error::Answer {
                what: request.what.to_owned(),
                host: request.endpoint.host.clone(),
                reason,
            };
            followed += 1;
            if followed > REDIRECTS {
                return Err(bad(format!("more than {REDIRECTS} redirects, the last one from {}", short(&address))));
            }
            let location = response.header("location").ok_or_else(|| bad("a redirect to nowhere".to_owned()))?;
            let next =
                absolute(&address, location).ok_or_else(|| bad(format!("a redirect to {:?}", short(location))))?;
            if next.starts_with("http://") && address.starts_with("https://") {
                return Err(bad("a redirect from https to http".to_owned()));
            }
            let home = host_of(&next) == Some(request.endpoint.host.as_str());
            // Another host gets neither credential nor the headers that a file has for this one.
            let mut sent: Vec<(&str, &str)> = request.headers.to_vec();
            if home {
                sent.extend(own_headers(request.endpoint));
                sent.extend(authorization.map(|value| ("authorization", value)));
            }
            let trust =
                if home { tls(request.endpoint) } else { Tls { verify: request.endpoint.verify, ..Tls::default() } };
            let content = body().map_err(|error| interrupted(request, &error))?;
            response =
                self.http.send(method, &next, &sent, content, &trust).map_err(|error| request.failed(&next, error))?;
            address = next;
        }
    }

    /// Fetches from an address that is no registry's: without credentials, over redirects that do not leave HTTPS.
    pub(super) fn foreign(&self, address: &str, headers: &[(&str, &str)], what: &str) -> Result<Response, Error> {
        let mut address = address.to_owned();
        for _ in 0..=REDIRECTS {
            let host = host_of(&address).unwrap_or_default().to_owned();
            let bad = |reason: String| Error::Answer { what: what.to_owned(), host: host.clone(), reason };
            let scheme = if address.starts_with("http://") { "http" } else { "https" };
            let response = self.http.send("GET", &address, headers, Body::None, &Tls::default()).map_err(|source| {
                Error::Transport { what: what.to_owned(), address: format!("{scheme}://{host}"), source }
            })?;
            if !matches!(response.status, 301..=303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.header("location").ok_or_else(|| bad("a redirect to nowhere".to_owned()))?;
            let next = absolute(&address, location).ok_or_else(|| bad("a redirect to nowhere".to_owned()))?;
            if next.starts_with("http://") && address.starts_with("https://") {
                return Err(bad("a redirect from https to http".to_owned()));
            }
            address = next;
        }
        let host = host_of(&address).unwrap_or_default().to_owned();
        Err(Error::Answer { what: what.to_owned(), host, reason: format!("more than {REDIRECTS} redirects") })
    }

    /// Sends a request to the endpoint itself; where both schemes may be spoken, by HTTPS first. Returns where it went.
    fn first(
        &self,
        request: &Request<'_>,
        authorization: Option<&str>,
        body: MakeBody<'_>,
    ) -> Result<(String, Response), Error> {
        let mut sent: Vec<(&str, &str)> = request.headers.to_vec();
        let home = host_of(request.target).is_none_or(|host| host == request.endpoint.host);
        if home {
            sent.extend(own_headers(request.endpoint));
            sent.extend(authorization.map(|value| ("authorization", value)));
        }
        let addresses = match (self.tokens.plain(&request.endpoint.host), request.addresses()) {
            (true, mut addresses) if addresses.len() > 1 => addresses.split_off(1),
            (_, addresses) => addresses,
        };
        let mut failure = None;
        let several = addresses.len() > 1;
        for address in addresses {
            let content = body().map_err(|error| interrupted(request, &error))?;
            match self.http.send(request.method, &address, &sent, content, &tls(request.endpoint)) {
                Ok(response) => {
                    if several && address.starts_with("http://") {
                        self.tokens.speaks_plain(&request.endpoint.host);
                    }
                    return Ok((address, response));
                }
                Err(error) => {
                    // What HTTPS said is the better explanation unless it merely could not connect.
                    let weak = matches!(error.kind, ErrorKind::Connect | ErrorKind::Transfer);
                    let fatal = error.kind == ErrorKind::Request;
                    let error = request.failed(&address, error);
                    if fatal {
                        return Err(error);
                    }
                    if failure.is_none() || !weak {
                        failure = Some(error);
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::Answer {
            what: request.what.to_owned(),
            host: request.endpoint.host.clone(),
            reason: "it has no address".to_owned(),
        }))
    }
}

/// An address without its query, which may hold a signature.
fn short(address: &str) -> &str {
    address.split('?').next().unwrap_or(address)
}

fn own_headers(endpoint: &Endpoint) -> impl Iterator<Item = (&str, &str)> {
    endpoint.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

fn interrupted(request: &Request<'_>, error: &std::io::Error) -> Error {
    Error::Interrupted { what: request.what.to_owned(), reason: format!("read what is sent: {error}") }
}

/// Doubled each time, and spread so that many clients do not come back at once.
pub(super) fn backoff(attempt: u32) -> Duration {
    let mut random = [0_u8; 1];
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    Duration::from_millis(u64::from(random[0]) + (100 << attempt.min(7)))
}

/// A `Location` against the address of its answer.
pub(super) fn absolute(base: &str, location: &str) -> Option<String> {
    if host_of(location).is_some() {
        return Some(location.to_owned());
    }
    let (scheme, _) = base.split_once("://")?;
    if let Some(rest) = location.strip_prefix("//") {
        let address = format!("{scheme}://{rest}");
        return host_of(&address).is_some().then_some(address);
    }
    if location.contains("://") || location.is_empty() {
        return None;
    }
    let root = format!("{scheme}://{}", host_of(base)?);
    if location.starts_with('/') {
        return Some(format!("{root}{location}"));
    }
    let path = base[root.len()..].split(['?', '#']).next().unwrap_or("");
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    Some(format!("{root}{directory}/{location}"))
}

/// Turns an answer that is not what was asked for into an error.
pub(super) fn refused(what: String, response: Response, anonymous: bool) -> Error {
    let status = response.status;
    let body = response.read(MAX_REFUSAL).unwrap_or_default();
    let refusal = Refusal::parse(status, &body);
    match status {
        401 | 403 => Error::Denied { what, refusal, anonymous },
        404 => Error::NotFound { what, refusal },
        _ => Error::Refused { what, refusal },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let base = "https://r.example:5000/v2/a/blobs/uploads/1?state=x";
        let to = |location| absolute(base, location);
        assert_eq!(to("https://other.example/x").as_deref(), Some("https://other.example/x"));
        assert_eq!(to("/v2/b").as_deref(), Some("https://r.example:5000/v2/b"));
        assert_eq!(to("2?y=z").as_deref(), Some("https://r.example:5000/v2/a/blobs/uploads/2?y=z"));
        assert_eq!(to("//other.example/x").as_deref(), Some("https://other.example/x"));
        for bad in ["", "ftp://x/", "https://u@evil.example/", "//"] {
            assert_eq!(to(bad), None, "{bad}");
        }
    }
}
