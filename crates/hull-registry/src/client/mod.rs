//! The client of the distribution protocol (distribution-spec 1.1, Docker's registry API v2).
//!
//! ```text
//! Client::pull_from / push_to ──hosts──> Remote (endpoints of one repository, in order)
//!    Remote::resolve, manifest, blob, tags, referrers        each endpoint until one has it      pull.rs
//!    Remote::has_blob, put_blob, mount, put_manifest, delete  the registry itself                push.rs
//!    Client::search                                           the index of a registry            search.rs
//!       └─ Exchange: token or password, redirects, retries with backoff                          exchange.rs, token.rs
//! ```
//!
//! What every request keeps to: a credential goes to the endpoint it is for and to the token server of the same domain,
//! never to where a redirect points; a body is bounded or streamed; content is compared with its digest by whoever asked
//! for it by digest; a wait that the server asks for is granted up to five minutes.

mod exchange;
mod pull;
mod push;
mod search;
mod token;

use std::sync::Arc;

use hull_oci::Reference;

use crate::credentials::{Credential, Credentials};
use crate::error::Error;
use crate::hosts::{self, Endpoint, Sources};
use crate::ssh;

pub use pull::{Blob, Fetched, Page};
pub use push::{Content, Put, Uploaded};
pub use search::Found;

/// Everything that requests to registries share: connections, tokens, configuration.
#[derive(Debug)]
pub struct Client {
    http: hull_http::Client,
    credentials: Credentials,
    sources: Sources,
    tokens: token::Cache,
    /// The machine whose store everything is had from and sent to, instead of registries.
    machine: Option<ssh::Address>,
    /// Whether every registry is spoken to as one that the configuration calls insecure.
    insecure: bool,
}

/// One repository, at each place where it may be.
#[derive(Clone, Debug)]
pub struct Remote {
    client: Arc<Client>,
    /// `HOST/PATH` as users know it.
    name: String,
    /// The registry's name, which credentials are kept under.
    domain: String,
    endpoints: Vec<Endpoint>,
}

impl Client {
    /// A client with these credentials and places.
    #[must_use]
    pub fn new(http: hull_http::Client, credentials: Credentials, sources: Sources) -> Arc<Self> {
        Arc::new(Self { http, credentials, sources, tokens: token::Cache::default(), machine: None, insecure: false })
    }

    /// A client of another machine's store. ssh is started with the first request; no credential is ever sent.
    #[must_use]
    pub fn over_ssh(address: &ssh::Address) -> Arc<Self> {
        Arc::new(Self {
            http: hull_http::Client::over(ssh::pipe(address)),
            credentials: Credentials::default(),
            sources: Sources::none(),
            tokens: token::Cache::default(),
            machine: Some(address.clone()),
            insecure: false,
        })
    }

    fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, Error> {
        match &self.machine {
            Some(machine) => Ok(vec![Endpoint::machine(&machine.host(), reference)]),
            None => {
                let found = hosts::endpoints(&self.sources, reference)?;
                Ok(if self.insecure { found.into_iter().map(Endpoint::insecure).collect() } else { found })
            }
        }
    }

    /// A client as the environment and the machine's files say.
    #[must_use]
    pub fn from_environment() -> Arc<Self> {
        Self::with_credentials(Credentials::from_environment())
    }

    /// [`Self::from_environment`], but for who the user is.
    #[must_use]
    pub fn with_credentials(credentials: Credentials) -> Arc<Self> {
        let agent = concat!("hull/", env!("CARGO_PKG_VERSION"));
        let http = hull_http::Client::new(agent, hull_http::proxy::Proxies::from_variables(&hull_config::proxy));
        Self::new(http, credentials, Sources::system())
    }

    /// [`Self::from_environment`], with certificates unchecked and plain HTTP allowed: what `--insecure` asks for.
    #[must_use]
    pub fn insecure() -> Arc<Self> {
        let client = Self::from_environment();
        Arc::into_inner(client)
            .map_or_else(Self::from_environment, |client| Arc::new(Self { insecure: true, ..client }))
    }

    /// Where this client's credentials are.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Asks a registry whether it takes a credential. Nothing is kept.
    ///
    /// # Errors
    /// [`Error::Denied`] when it does not; others when it cannot be asked.
    pub fn log_in(&self, domain: &str, credential: &Credential) -> Result<(), Error> {
        let what = format!("login to {domain}");
        let bad = |reason: String| Error::Answer { what: what.clone(), host: domain.to_owned(), reason };
        let reference: Reference = format!("{domain}/login").parse().map_err(|error| bad(format!("{error}")))?;
        let endpoint = self.endpoints(&reference)?.pop();
        let endpoint = endpoint.ok_or_else(|| bad("the configuration of registries names no place".to_owned()))?;
        let scope = token::Scope { domain, repository: "", text: String::new(), known: Some(credential) };
        let target = format!("{}/", endpoint.prefix);
        let request = exchange::Request {
            endpoint: &endpoint,
            scope: &scope,
            method: "GET",
            target: &target,
            headers: &[],
            what: &what,
            repeatable: true,
        };
        let response = self.exchange(&request, &mut || Ok(hull_http::Body::None))?;
        match response.status {
            200 => Ok(()),
            _ => Err(exchange::refused(what, response, false)),
        }
    }

    /// A repository's places for reading: mirrors, then the registry.
    ///
    /// # Errors
    /// [`Error::Hosts`].
    pub fn pull_from(self: &Arc<Self>, reference: &Reference) -> Result<Remote, Error> {
        let mut endpoints = self.endpoints(reference)?;
        endpoints.retain(|endpoint| endpoint.pull);
        Ok(self.remote(reference, endpoints))
    }

    /// A repository's place for writing.
    ///
    /// # Errors
    /// [`Error::Hosts`].
    pub fn push_to(self: &Arc<Self>, reference: &Reference) -> Result<Remote, Error> {
        let endpoints = self.endpoints(reference)?;
        let own = endpoints.into_iter().rfind(|endpoint| endpoint.push);
        Ok(self.remote(reference, own.into_iter().collect()))
    }

    fn remote(self: &Arc<Self>, reference: &Reference, endpoints: Vec<Endpoint>) -> Remote {
        Remote { client: self.clone(), name: reference.repository(), domain: reference.domain().to_owned(), endpoints }
    }
}

impl Remote {
    /// `HOST/PATH` as users know it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is in another machine's store, where content is known across repositories.
    #[must_use]
    pub fn is_machine(&self) -> bool {
        self.client.machine.is_some()
    }

    /// The one place where something is written.
    fn own(&self) -> Result<&Endpoint, Error> {
        self.endpoints.first().ok_or_else(|| Error::Refused {
            what: format!("push to {}", self.name),
            refusal: crate::error::Refusal {
                status: 405,
                error: Some((String::new(), "the configuration of registries allows no push there".to_owned())),
            },
        })
    }
}
