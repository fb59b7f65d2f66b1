//! How a server is run: where it listens, who reaches it, and what its clients may and see.

use std::path::PathBuf;
use std::time::Duration;

use crate::rule::Rule;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket at a path.
    Unix(PathBuf),
    /// TCP, with certificates on both sides.
    Tcp(String),
    /// Sockets that were passed by the service manager.
    Passed,
}

impl Listen {
    /// `unix:///run/docker.sock`, `tcp://0.0.0.0:2376`, `fd://`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?}: expected unix:///PATH, tcp://ADDRESS:PORT or fd://");
        match text.split_once("://").ok_or_else(expected)? {
            ("unix", path) if path.starts_with('/') => Ok(Self::Unix(PathBuf::from(path))),
            ("tcp", address) if !address.is_empty() => {
                let full = if address.contains(':') { address.to_owned() } else { format!("{address}:2376") };
                Ok(Self::Tcp(full))
            }
            ("fd", _) => Ok(Self::Passed),
            _ => Err(expected()),
        }
    }
}

/// How the server is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where it listens.
    pub listen: Vec<Listen>,
    /// Group of Unix sockets, a name or a number; they are the owner's and this group's.
    pub group: Option<String>,
    /// Certificates, key, and the authorities of clients' certificates, for TCP.
    pub tls: Option<Tls>,
    /// It ends after so long without a connection.
    pub idle: Option<Duration>,
    /// Refuse what changes anything.
    pub read_only: bool,
    /// Allow only these; empty allows all.
    pub allow: Vec<Rule>,
    /// Only objects with these labels are seen, and what is made gets them.
    pub labels: Vec<(String, String)>,
}

/// Certificates in PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The server's own, first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signs clients' certificates.
    pub authorities: PathBuf,
}
