//! Searching: Docker's index, its older interface that some registries still have, or the list of all repositories.
//!
//! The distribution protocol has no search. `GET /v1/search?q=TERM&n=COUNT` is what Docker asks; a registry without it
//! is asked for `/v2/_catalog`, of which the names that contain the term are taken.

use hull_http::Body;
use hull_oci::Reference;
use serde::Deserialize;

use super::Client;
use super::exchange::{Request, refused};
use super::token::{Scope, encode};
use crate::error::{Error, Refusal};
use crate::headers;
use crate::hosts::Endpoint;

/// An answer is at most so long.
const MAX_ANSWER: u64 = 8 << 20;

/// Pages of a list of repositories that are looked through.
const MAX_PAGES: usize = 100;

/// Where Docker's own registry is searched.
const INDEX: &str = "index.docker.io";

/// A repository that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Its name, without the registry's.
    pub name: String,
    /// What its owner says of it.
    #[serde(deserialize_with = "super::pull::null_default")]
    pub description: String,
    /// How many users like it.
    pub star_count: u64,
    /// Whether it is one of Docker's official images.
    pub is_official: bool,
    /// Whether it is built by the registry; registries say `false` by now.
    pub is_automated: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Results {
    #[serde(deserialize_with = "super::pull::null_default")]
    results: Vec<Found>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Catalog {
    #[serde(deserialize_with = "super::pull::null_default")]
    repositories: Vec<String>,
}

impl Client {
    /// Repositories of a registry whose name or description has to do with the term, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Refused`] when the registry cannot be searched; others when it cannot be asked.
    pub fn search(&self, domain: &str, term: &str, limit: usize) -> Result<Vec<Found>, Error> {
        let what = format!("search of {domain}");
        let bad = |reason: String| Error::Answer { what: what.clone(), host: domain.to_owned(), reason };
        let reference: Reference = format!("{domain}/search").parse().map_err(|error| bad(format!("{error}")))?;
        let endpoint = self.endpoints(&reference)?.pop();
        let mut endpoint = endpoint.ok_or_else(|| bad("the configuration of registries names no place".to_owned()))?;
        if endpoint.host == "registry-1.docker.io" {
            endpoint.host = INDEX.to_owned();
        }
        let query = encode(&[("q", term), ("n", &limit.to_string())]);
        let target = format!("/v1/search?{query}");
        let response = self.ask(domain, &endpoint, "", &target, &what)?;
        match response.status {
            200 => {
                let body = response.read(MAX_ANSWER).map_err(|error| bad(error.to_string()))?;
                let found: Result<Results, _> = serde_json::from_slice(&body);
                let mut found = found.map_err(|error| bad(error.to_string()))?.results;
                found.truncate(limit);
                Ok(found)
            }
            401 | 403 if domain == "docker.io" => Err(refused(what, response, false)),
            429 | 500..=599 => Err(refused(what, response, false)),
            _ => self.catalog(domain, &endpoint, term, limit, &what),
        }
    }

    fn ask(
        &self,
        domain: &str,
        endpoint: &Endpoint,
        scope: &str,
        target: &str,
        what: &str,
    ) -> Result<hull_http::Response, Error> {
        let scope = Scope { domain, repository: "", text: scope.to_owned(), known: None };
        let headers = [("accept", "application/json")];
        let request =
            Request { endpoint, scope: &scope, method: "GET", target, headers: &headers, what, repeatable: true };
        self.exchange(&request, &mut || Ok(Body::None))
    }

    fn catalog(
        &self,
        domain: &str,
        endpoint: &Endpoint,
        term: &str,
        limit: usize,
        what: &str,
    ) -> Result<Vec<Found>, Error> {
        let bad = |reason: String| Error::Answer { what: what.to_owned(), host: domain.to_owned(), reason };
        let mut found = Vec::new();
        let mut target = format!("{}/_catalog?n=1000", endpoint.prefix);
        for _ in 0..MAX_PAGES {
            let response = self.ask(domain, endpoint, "registry:catalog:*", &target, what)?;
            match response.status {
                200 => {}
                status @ (400 | 401 | 403 | 404 | 405) => {
                    let text = "the registry cannot be searched: it has neither /v1/search nor a list of repositories";
                    let refusal = Refusal { status, error: Some((String::new(), text.to_owned())) };
                    return Err(Error::Refused { what: what.to_owned(), refusal });
                }
                _ => return Err(refused(what.to_owned(), response, false)),
            }
            let next = response.header("link").and_then(headers::next_link).map(str::to_owned);
            let body = response.read(MAX_ANSWER).map_err(|error| bad(error.to_string()))?;
            let page: Result<Catalog, _> = serde_json::from_slice(&body);
            let page = page.map_err(|error| bad(error.to_string()))?.repositories;
            let fits = page.into_iter().filter(|name| name.contains(term));
            found.extend(fits.map(|name| Found { name, ..Found::default() }));
            found.truncate(limit);
            let Some(next) = next.filter(|_| found.len() < limit) else { return Ok(found) };
            target = super::pull::page(endpoint, &target, &next).map_err(bad)?;
        }
        Ok(found)
    }
}
