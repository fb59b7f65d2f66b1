//! Where a registry really is: mirrors, plain HTTP, certificates, for any host.
//!
//! Three formats that people already have are read, and never written:
//!
//! | file | of | says |
//! |---|---|---|
//! | `certs.d/HOST/hosts.toml` | containerd | mirrors with capabilities, headers, certificates: see [`containerd`] |
//! | `registries.conf`, `registries.conf.d/` | the containers tools | mirrors, renamed and blocked places: see [`containers`] |
//! | `config.toml` | Hull | the same lists as `daemon.json`, before its |
//! | `daemon.json`, `certs.d/HOST/*.crt` | Docker | mirrors of Docker's own registry, plain HTTP, certificates: see [`docker`] |
//!
//! A host with a `hosts.toml` is described by it alone; else `registries.conf` is asked, else Docker's files. The
//! registry itself always comes last, as the fallback. Plain HTTP is spoken to loopback and to what these files call
//! insecure, after HTTPS has failed; never to anything else.

pub mod containerd;
pub mod containers;
pub mod docker;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hull_oci::Reference;

/// A configuration file of at most this many bytes is read.
const MAX_FILE: usize = 1 << 20;

/// How a host is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTPS only.
    Https,
    /// HTTP only, because a file says so.
    Http,
    /// HTTPS, and HTTP if nobody speaks that there: loopback and insecure hosts.
    Either,
    /// Through ssh to another machine's store.
    Ssh,
}

/// One place where a repository is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port, as they stand in an address.
    pub host: String,
    /// How it is spoken to.
    pub scheme: Scheme,
    /// What comes before `/REPOSITORY/manifests/...`: `/v2`, or what a file puts there.
    pub prefix: String,
    /// The repository's name there.
    pub repository: String,
    /// The registry that is meant, for mirrors of several (`?ns=`).
    pub namespace: Option<String>,
    /// Whether certificates are checked.
    pub verify: bool,
    /// Additional authorities, PEM files.
    pub authorities: Vec<PathBuf>,
    /// Certificates of this client and their keys, PEM files; one without a key has it in the same file.
    pub identities: Vec<(PathBuf, Option<PathBuf>)>,
    /// Headers sent with every request.
    pub headers: Vec<(String, String)>,
    /// Whether content is had from here.
    pub pull: bool,
    /// Whether tags are resolved here; a mirror without this is asked by digest only.
    pub resolve: bool,
    /// Whether content is sent here.
    pub push: bool,
}

impl Endpoint {
    fn new(host: &str, repository: &str) -> Self {
        Self {
            host: host.to_owned(),
            scheme: if is_loopback(host) { Scheme::Either } else { Scheme::Https },
            prefix: "/v2".to_owned(),
            repository: repository.to_owned(),
            namespace: None,
            verify: true,
            authorities: Vec::new(),
            identities: Vec::new(),
            headers: Vec::new(),
            pull: true,
            resolve: true,
            push: true,
        }
    }

    /// The name that credentials for it are kept under.
    pub(crate) fn owner(&self) -> &str {
        if self.host == default_host("docker.io") { "docker.io" } else { &self.host }
    }

    /// Another machine's store. A repository's name there begins with its registry's, whose port follows `__`: what a
    /// path of the protocol may have in it.
    pub(crate) fn machine(host: &str, reference: &Reference) -> Self {
        let repository = format!("{}/{}", reference.domain().replace(':', "__"), reference.path());
        Self { scheme: Scheme::Ssh, ..Self::new(host, &repository) }
    }

    /// Docker's meaning of insecure: certificates are not checked, and HTTP will do.
    pub(crate) fn insecure(mut self) -> Self {
        self.scheme = Scheme::Either;
        self.verify = false;
        self
    }
}

/// Why a configuration cannot be followed. A file that says something wrong is never passed over: what it forbids
/// would be done.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// A file is not what it should be.
    #[error("{path}: {reason}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was found, and what was expected.
        reason: String,
    },
    /// `registries.conf` forbids the registry.
    #[error("registry {host} is blocked by {path}", path = .path.display())]
    Blocked {
        /// What is blocked.
        host: String,
        /// The file that says so.
        path: PathBuf,
    },
}

/// Where the files are.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Directories with a directory for each host, `hosts.toml` in it.
    pub containerd: Vec<PathBuf>,
    /// `registries.conf`; its directory is the same path with `.d` appended. The first that exists counts.
    pub containers: Vec<PathBuf>,
    /// Docker's `daemon.json`.
    pub daemon: PathBuf,
    /// Directories with a directory for each host, certificates in it.
    pub certificates: Vec<PathBuf>,
    /// Mirrors of Docker's registry by Hull's own settings, in the place of `daemon.json`'s.
    pub mirrors: Vec<String>,
    /// Insecure registries likewise.
    pub insecure: Vec<String>,
}

impl Sources {
    /// The machine's and the user's own: below `/etc`, or what `HULL_ETC` names instead, and for everybody but root
    /// below `~/.config` before that.
    #[must_use]
    pub fn system() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
        let own = config.filter(|_| !rustix::process::geteuid().is_root());
        let machine = variable("HULL_ETC").unwrap_or_else(|| PathBuf::from("/etc"));
        let below = |names: &[&str]| -> Vec<PathBuf> {
            let directories = [own.as_ref(), Some(&machine)].into_iter().flatten();
            directories.flat_map(|directory| names.iter().map(|name| directory.join(name))).collect()
        };
        let named = variable("CONTAINERS_REGISTRIES_CONF");
        Self {
            containerd: below(&["hull/certs.d", "containerd/certs.d"]),
            containers: named.into_iter().chain(below(&["containers/registries.conf"])).collect(),
            daemon: below(&["docker/daemon.json"]).into_iter().find(|path| path.exists()).unwrap_or_default(),
            certificates: below(&["docker/certs.d", "containers/certs.d"]),
            mirrors: own_setting("registry-mirrors"),
            insecure: own_setting("insecure-registries"),
        }
    }

    /// No files.
    pub(crate) fn none() -> Self {
        Self::default()
    }
}

/// A list of Hull's own settings; what `daemon.json` says is read from there, with its errors.
fn own_setting(key: &str) -> Vec<String> {
    match hull_config::get(key) {
        Ok(Some((_, hull_config::Origin::Docker(_)))) => Vec::new(),
        _ => hull_config::list(key),
    }
}

/// The places of a repository, in the order they are tried.
///
/// # Errors
/// See [`HostsError`].
pub fn endpoints(sources: &Sources, reference: &Reference) -> Result<Vec<Endpoint>, HostsError> {
    let mut found = match containerd::endpoints(&sources.containerd, reference)? {
        Some(found) => found,
        None => match containers::endpoints(&sources.containers, reference)? {
            Some(found) => found,
            None => docker::endpoints(sources, reference)?,
        },
    };
    for endpoint in &mut found {
        docker::certificates(&sources.certificates, endpoint)?;
    }
    Ok(found)
}

/// What a name stands for by the machine's `registries.conf`, most likely first; empty for a name with a registry, and
/// where the file says nothing.
///
/// # Errors
/// See [`HostsError`].
pub fn meant(name: &str) -> Result<Vec<Reference>, HostsError> {
    let first = name.split('/').next().unwrap_or_default();
    let has_registry = name.contains('/') && (first == "localhost" || first.contains(['.', ':']));
    if has_registry || name.parse::<Reference>().is_err() {
        return Ok(Vec::new());
    }
    let found = containers::candidates(&Sources::system().containers, name)?;
    Ok(found.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Docker's registry is at another host than its name says.
fn default_host(domain: &str) -> &str {
    if domain == "docker.io" { "registry-1.docker.io" } else { domain }
}

fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.split(':').next().unwrap_or(host)
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let name = without_port(host);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read(path: &Path) -> Result<Option<String>, HostsError> {
    let fail = |reason: String| HostsError::File { path: path.to_owned(), reason };
    match std::fs::read(path) {
        Ok(bytes) if bytes.len() > MAX_FILE => Err(fail(format!("longer than {MAX_FILE} bytes"))),
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| fail("not UTF-8".to_owned())),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(fail(error.to_string())),
    }
}

/// Reads a TOML file into a document, naming the place of what is wrong.
fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, HostsError> {
    let Some(text) = read(path)? else { return Ok(None) };
    toml::from_str(&text).map(Some).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        let reason = hull_oci::spec::one_line(error.message());
        HostsError::File { path: path.to_owned(), reason: format!("line {line}: {reason}") }
    })
}

#[cfg(test)]
mod tests;
