//! The Docker Engine API over Hull: wire types and server.
//!
//! [`serve`] listens, and ends by itself when nobody has asked for anything for a while. It keeps nothing: every answer
//! comes from the store and the records, containers belong to their monitors, and programs that clients start in
//! containers belong to processes of their own ([`step`]), so that killing the server changes nothing for any of them.
//!
//! * `server`: sockets, TLS, connections, the end; `http`: requests, bodies and answers, as blocking code sees them.
//! * `router`: versions and paths; `query`: parameters and filters; `refusal`: statuses and texts; `guard`: who may what.
//! * `step`: what needs a process with a single thread, done by another process of the same binary.
//! * `system`, `containers`, `exec`, `images`, `commit`, `distribution`, `networks`, `volumes`, `swarm`: the endpoints;
//!   `build`, `buildkit`: builds, which are `hull build` processes; `wire`: their documents; `lines`: answers that are lines of JSON; `registry`: who a client is to a registry.
//!
//! An endpoint is a function `fn(&Arc<Api>, &mut Request) -> Result<Reply, Refusal>` and a line in its file's `ROUTES`,
//! which `router::TABLES` lists. It runs on a thread that may block. Parameters of the path come from
//! [`Request::param`], of the query from `request.query`, a JSON body from [`Request::json`], any other body from
//! [`Request::body`], which is a reader. It answers with [`Reply::json`], [`Reply::empty`] and the like; with
//! [`Reply::stream`], whose function writes to the client as long as it likes (each flush is a frame on the wire, and
//! [`Stream::is_gone`] says that nobody listens); or with [`Reply::hijack`], whose function gets the connection itself.
//! Nothing in this process may clone: what starts something in a container is a step.

mod build;
mod buildkit;
mod commit;
mod containers;
mod distribution;
mod events;
mod exec;
mod guard;
mod http;
mod images;
mod lines;
mod networks;
mod query;
mod refusal;
mod registry;
mod router;
mod seen;
mod server;
mod step;
mod swarm;
mod system;
mod usage;
mod volumes;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

pub use guard::Rule;
pub use http::{Body, Hijacked, Reply, Request, Stream};
pub use query::Query;
pub use refusal::Refusal;
pub use router::{Route, Version, understand};
pub use server::{Api, serve};
pub use step::{COMMAND, step};
pub use system::info;

/// The newest version of the API that is spoken.
pub const API_VERSION: &str = "1.51";

/// The oldest.
pub const MIN_API_VERSION: &str = "1.24";

/// The version of Docker's engine that clients are told, because they decide by it what they may ask for.
pub const ENGINE_VERSION: &str = "28.5.2";

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

/// Why the server could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// The answer.
        source: std::io::Error,
    },
    /// Someone listens there already.
    #[error("listen on {0}: another server does already")]
    Busy(String),
    /// Certificates cannot be used.
    #[error("certificates {path}: {reason}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// TCP without certificates would give the machine to everybody.
    #[error("tcp:// needs --tlscert, --tlskey and --tlscacert: without them everybody who reaches it is root here")]
    NoTls,
    /// No such group.
    #[error("group {0:?} is not known")]
    Group(String),
    /// Nothing was passed.
    #[error("fd:// needs sockets of the service manager, and LISTEN_FDS names none")]
    NotPassed,
    /// The runtime of connections.
    #[error("start serving: {0}")]
    Runtime(std::io::Error),
}
