//! HTTP by `ureq`, with Hull's own name resolution and proxies.
//!
//! Plain requests go to a proxy in absolute form (RFC 9112, 3.2.2), which caching proxies for packages expect, encrypted
//! ones through a tunnel.

use std::sync::Arc;
use std::time::Duration;

use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver as Resolve};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, TcpConnector, Transport,
};
use ureq::{Agent, Proxy};

use super::dns::Resolver;

const CONNECT: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(60);

/// How a request reaches its server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Route {
    /// At its own address.
    Direct,
    /// A plain request by a proxy.
    Forward(String),
    /// An encrypted one through a proxy.
    Tunnel(String),
}

/// A client for one route.
pub(super) fn agent(route: &Route, encrypted: bool) -> Result<Agent, String> {
    let mut config = Agent::config_builder()
        .user_agent(concat!("hull/", env!("CARGO_PKG_VERSION")))
        // Files are stored as they are sent.
        .accept_encoding("identity")
        .http_status_as_error(false)
        // Each hop may need another proxy.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(None)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .proxy(None);
    if encrypted {
        config = config.tls_config(tls()?);
    }
    let names = Names { resolver: Resolver::default(), instead: None };
    Ok(match route {
        Route::Direct => Agent::with_parts(config.build(), DefaultConnector::default(), names),
        Route::Tunnel(proxy) => {
            let proxy = Proxy::new(proxy).map_err(|error| format!("proxy: {error}"))?;
            Agent::with_parts(config.proxy(Some(proxy)).build(), DefaultConnector::default(), names)
        }
        Route::Forward(proxy) => {
            let proxy: Uri = proxy.parse().map_err(|error| format!("proxy {proxy:?}: {error}"))?;
            let host = proxy.host().ok_or("the proxy has no host")?.to_owned();
            let names = Names { instead: Some((host, proxy.port_u16().unwrap_or(80))), ..names };
            Agent::with_parts(config.build(), TcpConnector::default().chain(AbsoluteForm), names)
        }
    })
}

/// The machine's own certificates; the cryptography of `ring`.
fn tls() -> Result<TlsConfig, String> {
    let found = rustls_native_certs::load_native_certs();
    let certificates: Vec<Certificate<'static>> =
        found.certs.iter().map(|one| Certificate::from_der(one.as_ref()).to_owned()).collect();
    if certificates.is_empty() {
        return Err("this machine has no certificates to check the server's with: install ca-certificates".to_owned());
    }
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&certificates))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
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
            .map_err(|error| std::io::Error::new(error.kind(), format!("look up {host}: {error}")))?;
        let mut addresses = self.empty();
        for address in found.into_iter().take(16) {
            addresses.push((address, port).into());
        }
        Ok(addresses)
    }
}

/// Puts scheme and host before the path of each request.
#[derive(Debug)]
struct AbsoluteForm;

impl<In: Transport> Connector<In> for AbsoluteForm {
    type Out = Absolute<In>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let prefix = format!("http://{}", details.uri.authority().map_or("", |authority| authority.as_str()));
        Ok(chained.map(|inner| Absolute { inner, prefix }))
    }
}

#[derive(Debug)]
struct Absolute<T> {
    inner: T,
    prefix: String,
}

impl<T: Transport> Transport for Absolute<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        // Requests have no body here: what is sent is the head of one.
        let added = self.prefix.len();
        let output = self.inner.buffers().output();
        if !output.starts_with(b"GET /") || amount + added > output.len() {
            return self.inner.transmit_output(amount, timeout);
        }
        output.copy_within(4..amount, 4 + added);
        output[4..4 + added].copy_from_slice(self.prefix.as_bytes());
        self.inner.transmit_output(amount + added, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}
