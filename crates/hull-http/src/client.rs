//! Requests and answers.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use ureq::http::{HeaderMap, Method, Uri};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver as Resolve};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, DefaultConnector, NextTimeout, TcpConnector};
use ureq::{Agent, Proxy, SendBody};

use crate::absolute::AbsoluteForm;
use crate::dns::Resolver;
use crate::pipe::Pipe;
use crate::proxy::Proxies;
use crate::tls::OwnTrust;

const CONNECT: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(60);
const MAX_PEM: usize = 4 << 20;

/// How a server is trusted, and what is shown to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tls {
    /// Whether its certificate is checked.
    pub verify: bool,
    /// Authorities beside the machine's own, PEM files.
    pub authorities: Vec<PathBuf>,
    /// Certificate and key of this client, PEM files; without a second file the first has both.
    pub identity: Option<(PathBuf, Option<PathBuf>)>,
}

impl Default for Tls {
    fn default() -> Self {
        Self { verify: true, authorities: Vec::new(), identity: None }
    }
}

/// What a request carries.
#[derive(Default)]
pub enum Body {
    /// Nothing.
    #[default]
    None,
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many bytes of a reader.
    Reader(Box<dyn Read>, u64),
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("None"),
            Self::Bytes(bytes) => write!(formatter, "Bytes({})", bytes.len()),
            Self::Reader(_, length) => write!(formatter, "Reader({length})"),
        }
    }
}

/// An answer whose body has yet to be read.
pub struct Response {
    /// The status, of any class.
    pub status: u16,
    headers: HeaderMap,
    /// The body; its end before `Content-Length` bytes is an error.
    pub body: Box<dyn Read + Send>,
}

impl fmt::Debug for Response {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Response {
    pub(crate) fn new(status: u16, headers: HeaderMap, body: Box<dyn Read + Send>) -> Self {
        Self { status, headers, body }
    }

    /// A header's first value, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// All of a header's values that are text.
    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// The body's announced length in bytes.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// Reads the whole body if it has at most `max` bytes.
    ///
    /// # Errors
    /// Reading errors, and [`std::io::ErrorKind::FileTooLarge`] for a longer body.
    pub fn read(self, max: u64) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.body.take(max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max {
            let text = format!("answer is longer than {max} bytes");
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, text));
        }
        Ok(bytes)
    }
}

/// In what way no answer was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request itself cannot be sent: a bad address, a missing certificate file.
    Request,
    /// The name is unknown or no connection could be made.
    Connect,
    /// The server is not trusted, or does not speak TLS.
    Tls,
    /// The connection ended, fell silent, or spoke nonsense.
    Transfer,
}

/// No answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// In what way.
    pub kind: ErrorKind,
    /// Why, without the address.
    pub message: String,
}

impl Error {
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Request, message: message.into() }
    }

    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Connect | ErrorKind::Transfer)
    }
}

impl From<ureq::Error> for Error {
    fn from(error: ureq::Error) -> Self {
        let kind = match &error {
            ureq::Error::Http(_) | ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl => ErrorKind::Request,
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => ErrorKind::Connect,
            ureq::Error::Tls(_) | ureq::Error::Pem(_) | ureq::Error::Rustls(_) => ErrorKind::Tls,
            ureq::Error::Io(error) => match error.kind() {
                _ if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => ErrorKind::Tls,
                std::io::ErrorKind::ConnectionRefused
                | std::io::ErrorKind::NotFound
                | std::io::ErrorKind::HostUnreachable
                | std::io::ErrorKind::NetworkUnreachable => ErrorKind::Connect,
                _ => ErrorKind::Transfer,
            },
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => ErrorKind::Connect,
            _ => ErrorKind::Transfer,
        };
        let message = match error {
            // Its own text repeats "io: ".
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        Self { kind, message }
    }
}

/// How a request reaches its server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Route {
    Direct,
    /// A plain request by a proxy.
    Forward(String),
    /// An encrypted one through a proxy.
    Tunnel(String),
}

/// Sends requests; connections are kept for the next one. Shared freely between threads.
#[derive(Debug)]
pub struct Client {
    user_agent: String,
    proxies: Proxies,
    resolver: Resolver,
    agents: Mutex<BTreeMap<(Route, Option<Tls>), Agent>>,
    /// Where every request goes, if not over the network.
    pipe: Option<Pipe>,
}

impl Client {
    /// A client that goes through these proxies.
    #[must_use]
    pub fn new(user_agent: &str, proxies: Proxies) -> Self {
        let agents = Mutex::new(BTreeMap::new());
        Self { user_agent: user_agent.to_owned(), proxies, resolver: Resolver::default(), agents, pipe: None }
    }

    /// A client that sends everything to one server, whatever host an address names.
    #[must_use]
    pub fn over(pipe: Pipe) -> Self {
        Self { pipe: Some(pipe), ..Self::new("", Proxies::default()) }
    }

    /// Sends one request and returns the answer, whatever its status. Redirects are answers too.
    ///
    /// # Errors
    /// [`Error`] when there is no answer.
    pub fn send(
        &self,
        method: &str,
        address: &str,
        headers: &[(&str, &str)],
        body: Body,
        tls: &Tls,
    ) -> Result<Response, Error> {
        let uri: Uri = address.parse().map_err(|error| Error::request(format!("address {address:?}: {error}")))?;
        let host = uri.host().ok_or_else(|| Error::request(format!("address {address:?} has no host")))?;
        let Some(scheme @ ("http" | "https")) = uri.scheme_str() else {
            return Err(Error::request(format!("address {address:?} is neither http nor https")));
        };
        if let Some(pipe) = &self.pipe {
            let target = uri.path_and_query().map_or("/", |target| target.as_str());
            return pipe.send(method, target, host, headers, body);
        }
        let encrypted = scheme == "https";
        let route = match self.proxies.of(scheme, host) {
            None => Route::Direct,
            Some(proxy) if encrypted => Route::Tunnel(proxy),
            Some(proxy) => Route::Forward(proxy),
        };
        let agent = self.agent(route, encrypted.then(|| tls.clone()))?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Error::request("bad method"))?;
        let mut request = ureq::http::Request::builder().method(method.clone()).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bad = |error: ureq::http::Error| Error::request(format!("request: {error}"));
        let answer = match body {
            Body::None if matches!(method, Method::POST | Method::PUT | Method::PATCH) => {
                agent.run(request.body(&[][..]).map_err(bad)?)
            }
            Body::None => agent.run(request.body(()).map_err(bad)?),
            Body::Bytes(bytes) => agent.run(request.body(bytes).map_err(bad)?),
            Body::Reader(reader, length) => {
                let request = request.header("content-length", length.to_string());
                agent.run(request.body(SendBody::from_owned_reader(reader.take(length))).map_err(bad)?)
            }
        };
        let (parts, body) = answer?.into_parts();
        let body = body.into_with_config().limit(u64::MAX).reader();
        Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body: Box::new(body) })
    }

    fn agent(&self, route: Route, tls: Option<Tls>) -> Result<Agent, Error> {
        let key = (route, tls);
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let agent = self.make(&key.0, key.1.as_ref())?;
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn make(&self, route: &Route, tls: Option<&Tls>) -> Result<Agent, Error> {
        let mut config = Agent::config_builder()
            .user_agent(self.user_agent.as_str())
            // Content is stored as it is sent; its digest is of these bytes.
            .accept_encoding("identity")
            .http_status_as_error(false)
            // Each hop may need another proxy, and must not see the last one's credentials.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections_per_host(16)
            .timeout_resolve(None)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE * 5))
            .timeout_per_read(Some(SILENCE))
            .proxy(None);
        if let Some(tls) = tls {
            config = config.tls_config(tls_config(tls)?);
        }
        let names = Names { resolver: self.resolver.clone(), instead: None };
        // A file that names certificates may mean the server's own.
        if let Some(tls) = tls.filter(|tls| tls.verify && !tls.authorities.is_empty()) {
            if let Route::Tunnel(proxy) = route {
                let proxy = Proxy::new(proxy).map_err(|error| Error::request(format!("proxy: {error}")))?;
                config = config.proxy(Some(proxy));
            }
            let connector = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
            return Ok(Agent::with_parts(config.build(), connector.chain(own_trust(tls)?), names));
        }
        Ok(match route {
            Route::Direct => Agent::with_parts(config.build(), DefaultConnector::default(), names),
            Route::Tunnel(proxy) => {
                let proxy = Proxy::new(proxy).map_err(|error| Error::request(format!("proxy: {error}")))?;
                Agent::with_parts(config.proxy(Some(proxy)).build(), DefaultConnector::default(), names)
            }
            Route::Forward(proxy) => {
                let uri: Uri = proxy.parse().map_err(|error| Error::request(format!("proxy {proxy:?}: {error}")))?;
                let host = uri.host().ok_or_else(|| Error::request(format!("proxy {proxy:?} has no host")))?.to_owned();
                let names = Names { instead: Some((host, uri.port_u16().unwrap_or(80))), ..names };
                Agent::with_parts(config.build(), TcpConnector::default().chain(AbsoluteForm), names)
            }
        })
    }
}

fn read_pem(path: &Path) -> Result<Vec<PemItem<'static>>, Error> {
    let fail = |reason: String| Error::request(format!("certificate file {}: {reason}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    if bytes.len() > MAX_PEM {
        return Err(fail(format!("longer than {MAX_PEM} bytes")));
    }
    parse_pem(&bytes).map(|item| item.map_err(|error| fail(error.to_string()))).collect()
}

fn certificates(items: &[PemItem<'static>]) -> Vec<Certificate<'static>> {
    let certificate = |item: &PemItem<'static>| match item {
        PemItem::Certificate(certificate) => Some(certificate.clone()),
        _ => None,
    };
    items.iter().filter_map(certificate).collect()
}

/// Trust in the machine's authorities, and in what the files have.
fn own_trust(tls: &Tls) -> Result<OwnTrust, Error> {
    let der = |certificate: &Certificate<'static>| CertificateDer::from(certificate.der().to_vec());
    let mut own = Vec::new();
    for path in &tls.authorities {
        own.extend(authorities(path)?.iter().map(der));
    }
    let identity = match &tls.identity {
        Some((certificate, key)) => {
            let chain = certificates(&read_pem(certificate)?).iter().map(der).collect();
            let key = PrivateKeyDer::from_pem_file(key.as_ref().unwrap_or(certificate))
                .map_err(|error| Error::request(format!("certificate {}: its key: {error}", certificate.display())))?;
            Some((chain, key))
        }
        None => None,
    };
    OwnTrust::new(&rustls_native_certs::load_native_certs().certs, own, identity)
}

/// The certificates of a file, of which there must be some.
fn authorities(path: &Path) -> Result<Vec<Certificate<'static>>, Error> {
    let own = certificates(&read_pem(path)?);
    if own.is_empty() {
        return Err(Error::request(format!("certificate file {}: no certificate in it", path.display())));
    }
    Ok(own)
}

/// The machine's own authorities, `SSL_CERT_FILE` and `SSL_CERT_DIR` included; the cryptography of `ring`.
fn tls_config(tls: &Tls) -> Result<TlsConfig, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut trusted: Vec<Certificate<'static>> =
        found.certs.iter().map(|one| Certificate::from_der(one.as_ref()).to_owned()).collect();
    for path in &tls.authorities {
        trusted.extend(authorities(path)?);
    }
    if trusted.is_empty() && tls.verify {
        let text = "this machine has no certificates to check the server's with: install ca-certificates";
        return Err(Error::request(text));
    }
    let mut config = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&trusted))
        .disable_verification(!tls.verify)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
    if let Some((certificate, key)) = &tls.identity {
        let items = read_pem(certificate)?;
        let chain = certificates(&items);
        let keys = match key {
            Some(key) => read_pem(key)?,
            None => items,
        };
        let key = keys.into_iter().find_map(|item| match item {
            PemItem::PrivateKey(key) => Some(key),
            _ => None,
        });
        let key: PrivateKey<'static> =
            key.ok_or_else(|| Error::request(format!("certificate {}: its key is missing", certificate.display())))?;
        config = config.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
    }
    Ok(config.build())
}

/// Names by [`Resolver`]; or always the proxy's.
#[derive(Debug)]
struct Names {
    resolver: Resolver,
    instead: Option<(String, u16)>,
}

impl Resolve for Names {
    fn resolve(&self, uri: &Uri, _: &ureq::config::Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let own = uri.host().map(|host| (host.to_owned(), port));
        let (host, port) = self.instead.clone().or(own).ok_or(ureq::Error::HostNotFound)?;
        let found = self
            .resolver
            .lookup(&host)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::NotFound, format!("look up {host}: {error}")))?;
        let mut addresses = self.empty();
        for address in found.into_iter().take(16) {
            addresses.push((address, port).into());
        }
        Ok(addresses)
    }
}
