//! `hull registry serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use hull_engine::Engine;
use hull_registry_server::{Issuer, Options, Source, Tokens, serve, serve_stdio};

use super::{Done, Failure};
use crate::output::print;

/// Commands on registries
#[derive(Debug, Subcommand)]
pub(super) enum Registry {
    /// Serve Hull's own images, or a directory, for pulling and pushing
    Serve(Serve),
}

/// Serve Hull's own images, or a directory, for pulling and pushing
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull registry serve\n  hull registry serve --storage /srv/registry --listen 0.0.0.0:5000 --tls-cert cert.pem --tls-key key.pem\n  hull registry serve --storage /srv/registry --htpasswd users --token --anonymous-pull\n  hull registry serve --storage /var/cache/mirror --proxy https://quay.io"
)]
pub(super) struct Serve {
    /// Address to listen on; port 0 takes any
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// Serve this directory instead of Hull's own store
    #[arg(long, value_name = "DIR")]
    storage: Option<PathBuf>,
    /// Certificates in PEM, the server's own first
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Users and bcrypt hashes, as 'htpasswd -B' writes them
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// Give the users of --htpasswd tokens, at /token, instead of asking for the password each time
    #[arg(long, requires = "htpasswd")]
    token: bool,
    /// Address of the token server, if it is another one, or if clients have another name for this one
    #[arg(long, value_name = "URL", value_parser = realm)]
    token_realm: Option<String>,
    /// What the token server knows this registry by
    #[arg(long, value_name = "NAME", default_value = "hull-registry", value_parser = word)]
    token_service: String,
    /// What the token server calls itself in its tokens
    #[arg(long, value_name = "NAME", requires = "token_realm", conflicts_with = "token")]
    token_issuer: Option<String>,
    /// Certificates in PEM that the token server's key must belong to
    #[arg(long, value_name = "FILE", requires = "token_realm", conflicts_with = "token")]
    token_certs: Option<PathBuf>,
    /// Public keys of the token server, as JSON web keys
    #[arg(long, value_name = "FILE", requires = "token_realm", conflicts_with = "token")]
    token_keys: Option<PathBuf>,
    /// Let everybody pull; pushing needs a password or a token
    #[arg(long, requires = "htpasswd")]
    anonymous_pull: bool,
    /// Refuse every change
    #[arg(long)]
    read_only: bool,
    /// Let everybody who reaches the address push into Hull's own store; implied by passwords and by --stdio
    #[arg(long, conflicts_with_all = ["read_only", "storage"])]
    writable: bool,
    /// Fetch from this registry what the directory lacks, and keep it there
    #[arg(long, value_name = "URL", requires = "storage", value_parser = upstream)]
    proxy: Option<String>,
    /// Delete blobs that no manifest names after so many seconds; 0 keeps them
    #[arg(long, value_name = "SECONDS", default_value_t = hull_registry_server::GRACE.as_secs())]
    grace: u64,
    /// Serve one client on standard input and output
    #[arg(long, conflicts_with_all = ["listen", "tls_cert", "tls_key"])]
    stdio: bool,
}

/// `https://HOST[:PORT]`, or the host alone. Plain HTTP is for this machine, as when pulling.
fn upstream(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = host.trim_end_matches('/');
    let is_local = ["127.0.0.1", "localhost", "[::1]"].contains(&host.rsplit_once(':').map_or(host, |(name, _)| name));
    if text.starts_with("http://") && !is_local {
        return Err("plain HTTP is not safe: use https://".to_owned());
    }
    let is_registry = host == "localhost" || host.contains(['.', ':']);
    if !is_registry || host.contains('/') || format!("{host}/a").parse::<hull_oci::Reference>().is_err() {
        return Err("expected https://HOST[:PORT]".to_owned());
    }
    Ok(if host == "registry-1.docker.io" { "docker.io".to_owned() } else { host.to_owned() })
}

/// What goes into a quoted string of a header.
fn word(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && !b"\"\\".contains(&byte));
    if fits { Ok(text.to_owned()) } else { Err("expected printable ASCII without quotes".to_owned()) }
}

fn realm(text: &str) -> Result<String, String> {
    let is_address = text.starts_with("https://") || text.starts_with("http://");
    if is_address && !text.contains(' ') { word(text) } else { Err("expected https://HOST/PATH".to_owned()) }
}

/// Which tokens are asked for.
fn tokens(args: &Serve) -> Result<Option<Tokens>, Failure> {
    let issuer = match (&args.token_realm, args.token) {
        (_, true) => Issuer::Own,
        (None, false) => return Ok(None),
        (Some(_), false) if args.token_certs.is_none() && args.token_keys.is_none() => {
            let text = "--token-realm needs --token-certs or --token-keys, or with --htpasswd --token";
            return Err(Failure::new(text.to_owned()));
        }
        (Some(_), false) if args.htpasswd.is_some() => {
            let text = "--htpasswd and the tokens of another server: users are known there";
            return Err(Failure::new(text.to_owned()));
        }
        (Some(_), false) => Issuer::Outside {
            name: args.token_issuer.clone(),
            certificates: args.token_certs.clone(),
            keys: args.token_keys.clone(),
        },
    };
    Ok(Some(Tokens { realm: args.token_realm.clone(), service: args.token_service.clone(), issuer }))
}

impl Registry {
    pub(super) fn main(self, engine: &Engine) -> Done {
        let Self::Serve(args) = self;
        let source = match (args.storage.clone(), args.proxy.clone()) {
            (Some(directory), Some(upstream)) => Source::Proxy { directory, upstream },
            (Some(directory), None) => Source::Directory(directory),
            (None, _) => Source::Store(Box::new(engine.images.clone())),
        };
        let is_directory = !matches!(source, Source::Store(_));
        let tokens = tokens(&args)?;
        let is_guarded = args.htpasswd.is_some() || tokens.is_some();
        let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
        let options = Options {
            source,
            // Who may push into the store decides what this machine runs.
            read_only: args.read_only || !(is_directory || args.writable || args.stdio || is_guarded),
            htpasswd: args.htpasswd,
            tokens,
            anonymous_pull: args.anonymous_pull,
            tls: args.tls_cert.zip(args.tls_key),
            grace: Some(args.grace).filter(|grace| *grace > 0).map(Duration::from_secs),
        };
        let served = if args.stdio {
            serve_stdio(&options)
        } else {
            serve(&options, args.listen, |address| print(format_args!("Serving on {scheme}://{address}\n")))
        };
        served.map(|()| 0).map_err(|error| Failure::new(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams() {
        assert_eq!(upstream("https://quay.io/"), Ok("quay.io".to_owned()));
        assert_eq!(upstream("https://registry-1.docker.io"), Ok("docker.io".to_owned()));
        assert_eq!(upstream("http://127.0.0.1:5000"), Ok("127.0.0.1:5000".to_owned()));
        for bad in ["http://quay.io", "https://", "quay", "https://a.b/c", "ftp://x.y", "https://a b.c"] {
            assert!(upstream(bad).is_err(), "{bad}");
        }
    }
}
