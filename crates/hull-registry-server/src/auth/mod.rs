//! Who may do what.
//!
//! ```text
//! Everybody  no questions
//! Passwords  `Authorization: Basic` at each request                        users.rs
//! Tokens     `Authorization: Bearer` at each request: a signed statement   jwt.rs, keys.rs
//!            of an issuer about what its holder may do. The issuer is
//!            another server, or this one at /token, which takes passwords  issuer.rs
//! ```
//!
//! A request is let through before anything of its body is read, or of what it asks for is looked at.

mod issuer;
mod jwt;
mod keys;
mod users;

use std::path::Path;

use hyper::{Method, StatusCode};

use crate::refusal::Refusal;
use crate::route::{Query, Route};
use crate::{Error, Issuer, Options};

pub(crate) use issuer::PATH as TOKEN_PATH;

/// How requests are authorised.
#[derive(Debug)]
pub(crate) enum Access {
    Everybody,
    Passwords(users::Users),
    Tokens(Box<Tokens>),
}

/// What is known about tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// Where clients get one; absent for this server, by the name that the client used.
    realm: Option<String>,
    service: String,
    verifier: jwt::Verifier,
    /// Absent when another server issues them.
    issuer: Option<issuer::Own>,
}

/// The door that a request came by.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) encrypted: bool,
    /// The `Host` header.
    pub(crate) host: Option<String>,
}

/// What a request needs: actions on a resource. Nothing for what every user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    kind: &'static str,
    name: String,
    actions: &'static [&'static str],
    /// Another repository that is to be read.
    from: Option<String>,
}

impl Need {
    /// What a request to an endpoint needs.
    pub(crate) fn of(method: &Method, route: &Route, query: &Query) -> Option<Self> {
        let name = match route {
            Route::Base => return None,
            Route::Catalog => {
                return Some(Self { kind: "registry", name: "catalog".to_owned(), actions: &["*"], from: None });
            }
            Route::Tags(name)
            | Route::Manifest(name, _)
            | Route::Blob(name, _)
            | Route::Uploads(name)
            | Route::Upload(name, _)
            | Route::Referrers(name, _) => name.clone(),
        };
        let actions: &[&str] = match (method, route) {
            (&Method::DELETE, Route::Upload(..)) => &["pull", "push"],
            (&Method::DELETE, _) => &["delete"],
            // An upload is seen by who makes it.
            (&Method::GET | &Method::HEAD, Route::Upload(..)) => &["pull", "push"],
            (&Method::GET | &Method::HEAD, _) => &["pull"],
            _ => &["pull", "push"],
        };
        let from = matches!(route, Route::Uploads(_)).then(|| query.get("from").map(str::to_owned)).flatten();
        let from = from.filter(|from| crate::route::name(from).is_ok());
        Some(Self { kind: "repository", name, actions, from })
    }

    fn is_pull(&self) -> bool {
        self.kind == "repository" && self.actions == ["pull"]
    }

    /// As a client asks an issuer for it.
    fn scope(&self) -> String {
        let mut text = format!("{}:{}:{}", self.kind, self.name, self.actions.join(","));
        if let Some(from) = &self.from {
            text.push_str(&format!(" repository:{from}:pull"));
        }
        text
    }
}

/// What a request may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    All,
    Some(Vec<jwt::Access>),
}

impl Grant {
    /// Whether it may do something with one resource.
    pub(crate) fn allows(&self, kind: &str, name: &str, action: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(all) => all.iter().any(|one| {
                one.kind == kind && one.name == name && one.actions.iter().any(|known| known == action || known == "*")
            }),
        }
    }
}

/// A refusal that tells how to be let in.
fn ask(challenge: String) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required")
        .with("www-authenticate", challenge)
}

fn ask_password() -> Refusal {
    ask("Basic realm=\"hull registry\", charset=\"UTF-8\"".to_owned())
}

impl Access {
    /// As asked for. `directory` is where a key of the server's own is kept.
    pub(crate) fn new(options: &Options, directory: &Path) -> Result<Self, Error> {
        let users = options.htpasswd.as_deref().map(users::Users::read).transpose()?;
        let Some(tokens) = &options.tokens else {
            return Ok(users.map_or(Self::Everybody, Self::Passwords));
        };
        let service = tokens.service.clone();
        let (verifier, issuer) = match &tokens.issuer {
            Issuer::Own => {
                let key = issuer::key(directory)?;
                let own = issuer::Own { key: key.clone(), users, anonymous_pull: options.anonymous_pull };
                (jwt::Verifier::own(&service, key), Some(own))
            }
            Issuer::Outside { name, certificates, keys } => {
                let mut trusted = keys::Trusted::default();
                if let Some(path) = certificates {
                    trusted.read_certificates(path)?;
                }
                if let Some(path) = keys {
                    trusted.read_keys(path)?;
                }
                (jwt::Verifier::outside(&service, name.clone(), trusted), None)
            }
        };
        Ok(Self::Tokens(Box::new(Tokens { realm: tokens.realm.clone(), service, verifier, issuer })))
    }

    /// Whether there is anything to check.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Everybody)
    }

    /// Lets a request through, or not. May take long.
    pub(crate) fn check(
        &self,
        authorization: Option<&str>,
        need: Option<&Need>,
        door: &Door,
        anonymous_pull: bool,
    ) -> Result<Grant, Refusal> {
        match self {
            Self::Everybody => Ok(Grant::All),
            Self::Passwords(users) => match authorization {
                None if anonymous_pull && need.is_some_and(Need::is_pull) => Ok(Grant::Some(Vec::new())),
                None => Err(ask_password()),
                Some(header) => users.login(header).map(|_| Grant::All).ok_or_else(ask_password),
            },
            Self::Tokens(tokens) => tokens.check(authorization, need, door),
        }
    }
}

impl Tokens {
    fn challenge(&self, need: Option<&Need>, door: &Door, error: Option<&str>) -> Refusal {
        let realm = self.realm.clone().unwrap_or_else(|| {
            let scheme = if door.encrypted { "https" } else { "http" };
            // What is no host would end the quotation.
            let is_host = |host: &&str| {
                !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
            };
            let host = door.host.as_deref().filter(is_host).unwrap_or("localhost");
            format!("{scheme}://{host}{}", issuer::PATH)
        });
        let mut text = format!("Bearer realm=\"{realm}\",service=\"{}\"", self.service);
        if let Some(need) = need {
            text.push_str(&format!(",scope=\"{}\"", need.scope()));
        }
        if let Some(error) = error {
            text.push_str(&format!(",error=\"{error}\""));
        }
        ask(text)
    }

    fn check(&self, authorization: Option<&str>, need: Option<&Need>, door: &Door) -> Result<Grant, Refusal> {
        let Some(header) = authorization else { return Err(self.challenge(need, door, None)) };
        let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, token)) = token else { return Err(self.challenge(need, door, None)) };
        let claims = self.verifier.verify(token.trim(), jwt::now()).map_err(|reason| {
            let mut refusal = self.challenge(need, door, Some("invalid_token"));
            refusal.message = format!("authentication required: {reason}");
            refusal
        })?;
        let grant = Grant::Some(claims.access);
        let lacks = |need: &&Need| need.actions.iter().any(|action| !grant.allows(need.kind, &need.name, action));
        match need.filter(lacks) {
            Some(need) => Err(self.challenge(Some(need), door, Some("insufficient_scope"))),
            None => Ok(grant),
        }
    }

    /// The issuer, when it is this server.
    pub(crate) fn issuer(&self) -> Option<(&issuer::Own, &str)> {
        self.issuer.as_ref().map(|own| (own, self.service.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_requests_need() {
        let need = |method: Method, path: &str, query: &str| {
            let route = Route::parse(path).expect("route");
            Need::of(&method, &route, &Query::parse(query).expect("query")).map(|need| need.scope())
        };
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(need(Method::GET, "/v2/", ""), None);
        assert_eq!(need(Method::GET, "/v2/_catalog", "").as_deref(), Some("registry:catalog:*"));
        assert_eq!(need(Method::HEAD, "/v2/a/b/manifests/v1", "").as_deref(), Some("repository:a/b:pull"));
        assert_eq!(need(Method::PUT, "/v2/a/manifests/v1", "").as_deref(), Some("repository:a:pull,push"));
        assert_eq!(need(Method::DELETE, "/v2/a/manifests/v1", "").as_deref(), Some("repository:a:delete"));
        assert_eq!(need(Method::GET, &format!("/v2/a/referrers/{digest}"), "").as_deref(), Some("repository:a:pull"));
        let mount = format!("mount={digest}&from=b/c");
        let scope = need(Method::POST, "/v2/a/blobs/uploads/", &mount);
        assert_eq!(scope.as_deref(), Some("repository:a:pull,push repository:b/c:pull"));
        let scope = need(Method::POST, "/v2/a/blobs/uploads/", "from=x\"y");
        assert_eq!(scope.as_deref(), Some("repository:a:pull,push"));
    }
}
