//! Tokens: asked for once for each registry and scope, and kept until shortly before they expire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hull_http::{Body, Tls};

use super::Client;
use crate::challenge::{Bearer, TokenAnswer};
use crate::credentials::Credential;
use crate::error::{Error, Refusal};
use crate::hosts::{Endpoint, Scheme};

/// Attempts at a token.
const ATTEMPTS: u32 = 4;

/// A token server's answer is at most so long.
const MAX_ANSWER: u64 = 1 << 20;

/// How a request to one endpoint for one scope is authorised.
#[derive(Clone, Debug)]
pub(super) enum Authorization {
    Basic(String),
    Bearer(String),
}

impl Authorization {
    /// The header's value.
    pub(super) fn header(&self) -> String {
        match self {
            Self::Basic(encoded) => format!("Basic {encoded}"),
            Self::Bearer(token) => format!("Bearer {token}"),
        }
    }
}

/// An authorization, and until when it is good.
type Known = (Authorization, Option<Instant>);

/// What is known, by endpoint and scope.
#[derive(Default)]
pub(super) struct Cache {
    known: Mutex<BTreeMap<(String, String), Known>>,
    plain: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Cache(...)")
    }
}

impl Cache {
    pub(super) fn get(&self, host: &str, scope: &str) -> Option<Authorization> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (authorization, until) = known.get(&(host.to_owned(), scope.to_owned()))?;
        until.is_none_or(|until| Instant::now() < until).then(|| authorization.clone())
    }

    pub(super) fn forget(&self, host: &str, scope: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&(host.to_owned(), scope.to_owned()));
    }

    /// Whether this host, which may speak either scheme, was found to speak plain HTTP.
    pub(super) fn plain(&self, host: &str) -> bool {
        self.plain.lock().unwrap_or_else(PoisonError::into_inner).contains(host)
    }

    pub(super) fn speaks_plain(&self, host: &str) {
        self.plain.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned());
    }

    fn keep(&self, host: &str, scope: &str, authorization: &Authorization, until: Option<Instant>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((host.to_owned(), scope.to_owned()), (authorization.clone(), until));
    }
}

/// What a request is for, as far as tokens are concerned.
#[derive(Clone, Debug)]
pub(super) struct Scope<'a> {
    /// The name that the endpoint's credentials are kept under.
    pub(super) domain: &'a str,
    /// The repository, for credentials of a part of a registry.
    pub(super) repository: &'a str,
    /// `repository:NAME:pull`, ...; several separated by spaces.
    pub(super) text: String,
    /// A credential to try instead of the ones that are kept.
    pub(super) known: Option<&'a Credential>,
}

impl Client {
    /// Password or token for an endpoint that asked for one; `None` when no credential is known and none is given away.
    pub(super) fn authorize(
        &self,
        endpoint: &Endpoint,
        scope: &Scope<'_>,
        challenges: &[crate::challenge::Challenge],
    ) -> Result<Option<Authorization>, Error> {
        use crate::challenge::Challenge;
        let credential = match scope.known {
            Some(known) => Some(known.clone()),
            None => self.credentials.find(scope.domain, scope.repository)?,
        };
        if let Some(Credential::Bearer(token)) = &credential {
            return Ok(Some(Authorization::Bearer(token.clone())));
        }
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer(bearer) => Some(bearer),
            Challenge::Basic => None,
        });
        let (authorization, until) = match bearer {
            Some(bearer) => {
                let answer = self.token(endpoint, scope, bearer, credential.as_ref())?;
                let Some(token) = answer.token() else {
                    return Err(Error::Answer {
                        what: format!("token for {} at {}", scope.text, scope.domain),
                        host: host_of(&bearer.realm).unwrap_or_default().to_owned(),
                        reason: "it has no token".to_owned(),
                    });
                };
                // Some seconds pass between a check here and the check there.
                let seconds = answer.seconds().saturating_sub(10);
                (
                    Authorization::Bearer(token.to_owned()),
                    Some(Instant::now() + Duration::from_secs(seconds.min(86_400))),
                )
            }
            None if challenges.contains(&Challenge::Basic) => {
                let Some(encoded) = credential.and_then(|credential| credential.basic()) else { return Ok(None) };
                (Authorization::Basic(encoded), None)
            }
            None => return Ok(None),
        };
        self.tokens.keep(&endpoint.host, &scope.text, &authorization, until);
        Ok(Some(authorization))
    }

    fn token(
        &self,
        endpoint: &Endpoint,
        scope: &Scope<'_>,
        bearer: &Bearer,
        credential: Option<&Credential>,
    ) -> Result<TokenAnswer, Error> {
        let what = match scope.text.as_str() {
            "" => format!("token for {}", scope.domain),
            text => format!("token for {text} at {}", scope.domain),
        };
        let realm = host_of(&bearer.realm).ok_or_else(|| Error::Answer {
            what: what.clone(),
            host: endpoint.host.clone(),
            reason: format!("the token server's address {:?} is not http or https", bearer.realm),
        })?;
        let plain = bearer.realm.starts_with("http://");
        if plain && endpoint.scheme == Scheme::Https {
            return Err(Error::Answer {
                what,
                host: endpoint.host.clone(),
                reason: format!("its token server {realm} is not encrypted"),
            });
        }
        // One that is kept under the token server's own name may go there, wherever it is.
        let own = match credential {
            Some(_) if !same_domain(&endpoint.host, realm) => match self.credentials.find(realm, "")? {
                Some(own) => Some(own),
                None => return Err(Error::Realm { host: endpoint.host.clone(), realm: realm.to_owned() }),
            },
            _ => None,
        };
        let credential = own.as_ref().or(credential);
        let tls = tls_for(endpoint, realm);
        let scopes: Vec<&str> = match bearer.scope.as_deref() {
            Some(asked) if scope.text.is_empty() => asked.split(' ').collect(),
            _ => scope.text.split(' ').collect(),
        };
        let mut query = Vec::new();
        query.extend(bearer.service.as_deref().map(|service| ("service", service)));
        query.extend(scopes.iter().filter(|scope| !scope.is_empty()).map(|scope| ("scope", *scope)));
        let scheme = if plain { "http" } else { "https" };
        let address = format!("{scheme}://{realm}");
        let ask = || match credential {
            Some(Credential::Identity(token)) => {
                let joined = scopes.join(" ");
                let mut form =
                    vec![("grant_type", "refresh_token"), ("client_id", "hull"), ("refresh_token", token.as_str())];
                form.extend(bearer.service.as_deref().map(|service| ("service", service)));
                if !joined.is_empty() {
                    form.push(("scope", joined.as_str()));
                }
                let form = encode(&form);
                let headers = [("content-type", "application/x-www-form-urlencoded")];
                self.http.send("POST", &bearer.realm, &headers, Body::Bytes(form.into_bytes()), &tls)
            }
            other => {
                let basic = other.and_then(Credential::basic).map(|encoded| format!("Basic {encoded}"));
                let mut query = query.clone();
                query.extend(other.and_then(Credential::username).map(|user| ("account", user)));
                let separator = if bearer.realm.contains('?') { '&' } else { '?' };
                let address = format!("{}{separator}{}", bearer.realm, encode(&query));
                let headers: Vec<(&str, &str)> = basic.iter().map(|value| ("authorization", value.as_str())).collect();
                self.http.send("GET", &address, &headers, Body::None, &tls)
            }
        };
        let mut attempt = 0;
        let answer = loop {
            attempt += 1;
            let last = attempt == ATTEMPTS;
            let wait = match ask() {
                Ok(answer) if !last && matches!(answer.status, 408 | 425 | 429 | 500 | 502 | 503 | 504) => {
                    let asked = answer.header("retry-after").and_then(crate::headers::retry_after);
                    asked.unwrap_or_else(|| super::exchange::backoff(attempt))
                }
                Err(error) if !last && error.is_transient() => super::exchange::backoff(attempt),
                other => break other,
            };
            std::thread::sleep(wait);
        };
        let answer = answer.map_err(|source| Error::Transport { what: what.clone(), address, source })?;
        let status = answer.status;
        let host = realm.to_owned();
        let bad = |reason: String| Error::Answer { what: what.clone(), host: host.clone(), reason };
        let body = answer.read(MAX_ANSWER).map_err(|error| bad(error.to_string()))?;
        match status {
            200..=299 => serde_json::from_slice(&body).map_err(|_| bad("it is not valid JSON".to_owned())),
            400..=499 => {
                let refusal = Refusal::parse(status, &body);
                Err(Error::Denied { what, refusal, anonymous: credential.is_none() })
            }
            _ => Err(Error::Refused { what, refusal: Refusal::parse(status, &body) }),
        }
    }
}

/// The settings of the registry hold for its token server if that is the same machine.
fn tls_for(endpoint: &Endpoint, realm: &str) -> Tls {
    if realm == endpoint.host { super::exchange::tls(endpoint) } else { Tls::default() }
}

/// Host and port of an address that begins with `http://` or `https://` and has no user in it.
pub(super) fn host_of(address: &str) -> Option<&str> {
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"))?;
    let host = rest.split(['/', '?', '#']).next()?;
    (!host.is_empty() && !host.contains(['@', '\\', ' '])).then_some(host)
}

/// Whether two hosts belong together: the same host, or names below the same registered domain.
fn same_domain(one: &str, other: &str) -> bool {
    let name = |host: &str| {
        let host = host.strip_prefix('[').map_or(host, |rest| rest.split(']').next().unwrap_or(rest));
        let bare = if host.matches(':').count() == 1 { host.split(':').next().unwrap_or(host) } else { host };
        bare.trim_end_matches('.').to_ascii_lowercase()
    };
    let (one, other) = (name(one), name(other));
    if one == other {
        return true;
    }
    if one.parse::<std::net::IpAddr>().is_ok() || other.parse::<std::net::IpAddr>().is_ok() {
        return false;
    }
    let registered = |host: &str| {
        let labels: Vec<&str> = host.rsplit('.').collect();
        // `co.uk` and its like are nobody's domain.
        let country =
            labels.first().is_some_and(|last| last.len() == 2) && labels.get(1).is_some_and(|next| next.len() <= 3);
        let count = if country { 3 } else { 2 };
        (labels.len() >= count).then(|| labels[..count].join("."))
    };
    registered(&one).is_some_and(|domain| registered(&other) == Some(domain))
}

/// `name=value&...` with everything but unreserved characters escaped (RFC 3986).
pub(super) fn encode(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_belongs_together() {
        for (one, other) in [
            ("registry-1.docker.io", "auth.docker.io"),
            ("registry.gitlab.com", "gitlab.com"),
            ("localhost:5000", "localhost:5001"),
            ("127.0.0.1:5000", "127.0.0.1:80"),
            ("r.example.co.uk", "a.example.co.uk"),
            ("[::1]:5000", "[::1]:80"),
        ] {
            assert!(same_domain(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("registry-1.docker.io", "docker.io.evil.example"),
            ("quay.io", "evil.io"),
            ("a.co.uk", "b.co.uk"),
            ("10.0.0.1", "20.0.0.1"),
            ("localhost", "evil.localhost.example"),
            ("one", "other"),
        ] {
            assert!(!same_domain(one, other), "{one} {other}");
        }
    }

    #[test]
    fn addresses_of_token_servers() {
        assert_eq!(host_of("https://auth.example:8443/token?x=y"), Some("auth.example:8443"));
        for bad in ["https://registry.example@evil.example/", "file:///etc/passwd", "//x", "https:///x"] {
            assert_eq!(host_of(bad), None, "{bad}");
        }
        assert_eq!(
            encode(&[("scope", "repository:a/b:pull,push"), ("x", "ä&")]),
            "scope=repository%3Aa%2Fb%3Apull%2Cpush&x=%C3%A4%26"
        );
    }
}
