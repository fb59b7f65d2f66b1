//! A registry: the server of the distribution protocol (distribution-spec 1.1, and what Docker's registry adds to it).
//!
//! ```text
//! serve ── TCP, TLS or one stream ── Server::answer ── auth ── route ── read.rs   manifests, blobs, lists
//!                                                                   └── write.rs  uploads, manifests, deletions
//!    Content: Storage (a directory) | Engine (Hull's image store) | Proxy (a directory that fills itself)
//! ```
//!
//! One thread speaks HTTP; files are read and written by threads that may wait, a piece at a time, so that a slow client
//! holds none of them. Bodies are streamed; only manifests, of at most 4 MiB, are in memory. What is acknowledged is on
//! disk. A killed server leaves nothing to repair: see [`storage`](self) for the directory's form.
//!
//! It must never act on a name, digest or range that `route` has not checked, nor tell a client a path of the machine.

mod auth;
mod content;
mod engine;
mod http;
mod proxy;
mod read;
mod refusal;
mod route;
mod storage;
mod write;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hull_image::Store;

/// How long blobs that nothing names are kept where nothing else was said: a push has its blobs before its manifest.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);

/// Where content comes from and goes to.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory.
    Directory(PathBuf),
    /// Hull's image store: tags that are pushed become images.
    Store(Box<Store>),
    /// A directory that keeps what was asked for of another registry, `HOST[:PORT]`.
    Proxy {
        /// The directory.
        directory: PathBuf,
        /// The other registry.
        upstream: String,
    },
}

/// Which tokens let a client in.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Address of the issuer; absent for this server, by the name that the client has for it.
    pub realm: Option<String>,
    /// What the issuer knows this registry by.
    pub service: String,
    /// Who issues them.
    pub issuer: Issuer,
}

/// Who issues tokens.
#[derive(Clone, Debug)]
pub enum Issuer {
    /// This server, at `/token`, to the users that it knows.
    Own,
    /// Another server.
    Outside {
        /// What it calls itself in the tokens, if that is to be checked.
        name: Option<String>,
        /// A file of certificates in PEM whose keys, and those of certificates that they signed, are trusted.
        certificates: Option<PathBuf>,
        /// A file of JSON web keys.
        keys: Option<PathBuf>,
    },
}

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is served.
    pub source: Source,
    /// Nothing may be changed.
    pub read_only: bool,
    /// A file of users and bcrypt hashes; everybody may do everything without one, unless tokens are asked for.
    pub htpasswd: Option<PathBuf>,
    /// Tokens are asked for.
    pub tokens: Option<Tokens>,
    /// Everybody may pull.
    pub anonymous_pull: bool,
    /// Files with the certificates and the key, in PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// How long blobs that nothing names are kept; `None` collects no garbage.
    pub grace: Option<Duration>,
}

/// Why the registry does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be used.
    #[error("use {path} as a registry's directory: {source}", path = path.display())]
    Storage {
        /// The directory or a part of it.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// Another server has the directory.
    #[error("{} is served by another process: stop that one first, or use another directory", .0.display())]
    Busy(PathBuf),
    /// A file cannot be read.
    #[error("read {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line of the file of users is not of the form that is understood.
    #[error("{path}, line {line}: expected USER:HASH with a bcrypt hash, as `htpasswd -B` makes", path = path.display())]
    Htpasswd {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// The certificates or the key are of no use.
    #[error("use the certificate {path}: {reason}", path = path.display())]
    Tls {
        /// The file of certificates.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Keys for tokens are of no use.
    #[error("use the keys of {path}: {reason}", path = path.display())]
    Keys {
        /// Their file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The address cannot be used.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// There can be no threads or timers.
    #[error("start the server: {0}")]
    Runtime(io::Error),
}

/// What all requests share.
#[derive(Debug)]
struct Server {
    content: Arc<dyn content::Content>,
    /// Where uploads and what they are for go, if anywhere.
    writes: Option<(Arc<storage::Storage>, Arc<dyn content::Changes>)>,
    access: auth::Access,
    anonymous_pull: bool,
    encrypted: bool,
}

/// What garbage is collected from, and the store whose images decide about it, if any.
type Kept = Option<(Arc<storage::Storage>, Option<Store>)>;

impl Server {
    fn new(options: &Options) -> Result<(Self, Kept), Error> {
        let directory = match &options.source {
            Source::Directory(directory) | Source::Proxy { directory, .. } => directory.clone(),
            Source::Store(store) => engine::directory(store),
        };
        let access = auth::Access::new(options, &directory)?;
        let open = |path: &Path| storage::Storage::open(path).map(Arc::new);
        let (content, writes, kept): (Arc<dyn content::Content>, _, Kept) = match &options.source {
            Source::Directory(path) => {
                let storage = open(path)?;
                let writes = (Arc::clone(&storage), Arc::clone(&storage) as Arc<dyn content::Changes>);
                (Arc::clone(&storage) as Arc<_>, Some(writes), Some((storage, None)))
            }
            Source::Store(store) => {
                let engine = Arc::new(engine::Engine::new((**store).clone(), !options.read_only)?);
                let writes = |storage: &Arc<_>| (Arc::clone(storage), Arc::clone(&engine) as Arc<dyn content::Changes>);
                let writes = engine.pushed().map(writes);
                let kept = engine.pushed().map(|storage| (Arc::clone(storage), Some((**store).clone())));
                (engine, writes, kept)
            }
            Source::Proxy { directory, upstream } => {
                let storage = open(directory)?;
                let proxy = proxy::Proxy::new(Arc::clone(&storage), upstream.clone());
                (Arc::new(proxy), None, Some((storage, None)))
            }
        };
        let writes = writes.filter(|_| !options.read_only);
        let (anonymous_pull, encrypted) = (options.anonymous_pull, options.tls.is_some());
        Ok((Self { content, writes, access, anonymous_pull, encrypted }, kept))
    }
}

/// Removes what was pushed into an image store and has gone from it since: for whoever removed images. With `grace`, also
/// what was never made an image and is older. Costs a look at one directory where nothing was ever pushed. Returns the
/// bytes that the disk got back.
///
/// # Errors
/// When a record cannot be read or removed.
pub fn tidy(store: &Store, grace: Option<Duration>) -> Result<u64, Error> {
    let path = engine::directory(store);
    if !path.is_dir() {
        return Ok(0);
    }
    let storage = storage::Storage::open_shared(&path)?;
    let tidied = storage.tidy(store).and_then(|bytes| match grace {
        Some(grace) => Ok(bytes + storage.collect(grace)?.bytes),
        None => Ok(bytes),
    });
    tidied.map_err(|source| Error::Storage { path, source })
}

/// Serves on an address until the process ends. `ready` hears of the address that is listened on.
///
/// # Errors
/// When it cannot begin.
pub fn serve(options: &Options, address: SocketAddr, ready: impl FnOnce(SocketAddr)) -> Result<(), Error> {
    http::serve(options, address, ready)
}

/// Serves one client on standard input and output, until it closes them.
///
/// # Errors
/// When it cannot begin.
pub fn serve_stdio(options: &Options) -> Result<(), Error> {
    http::serve_stdio(options)
}

/// A line for whoever runs the registry. Hostile text is shown in one line.
fn log(message: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    // There is nobody to tell when standard error is gone.
    let _ = writeln!(io::stderr(), "registry: {}", hull_oci::spec::one_line(&message.to_string()));
}
