//! `hull registry serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use hull_engine::Engine;
use hull_registry_server::{Options, Source, serve, serve_stdio};

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
    after_help = "Examples:\n  hull registry serve\n  hull registry serve --storage /srv/registry --listen 0.0.0.0:5000 --tls-cert cert.pem --tls-key key.pem\n  hull registry serve --storage /var/cache/mirror --proxy https://quay.io"
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

impl Registry {
    pub(super) fn main(self, engine: &Engine) -> Done {
        let Self::Serve(args) = self;
        let source = match (args.storage, args.proxy) {
            (Some(directory), Some(upstream)) => Source::Proxy { directory, upstream },
            (Some(directory), None) => Source::Directory(directory),
            (None, _) => Source::Store(Box::new(engine.images.clone())),
        };
        let is_directory = !matches!(source, Source::Store(_));
        let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
        let options = Options {
            source,
            // Who may push into the store decides what this machine runs.
            read_only: args.read_only || !(is_directory || args.writable || args.stdio || args.htpasswd.is_some()),
            htpasswd: args.htpasswd,
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
