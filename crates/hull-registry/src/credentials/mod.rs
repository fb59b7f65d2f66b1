//! Who the user is to each registry.
//!
//! Files of Docker (`config.json`) and of the containers tools (`auth.json`), which share one form, are read in this
//! order; the first that knows the registry wins, and `login` writes to the first that is named or exists:
//!
//! 1. `$REGISTRY_AUTH_FILE`
//! 2. `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`
//! 3. `$XDG_RUNTIME_DIR/containers/auth.json`, else `/run/containers/UID/auth.json`
//!
//! A file may name programs that keep the secret (`credHelpers`, `credsStore`): see [`helper`]. Files are written 0600
//! by rename, and fields that are unknown here are kept. A secret is never part of an error or of `Debug` output.

pub mod helper;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// A file of at most this many bytes is read.
const MAX_FILE: usize = 4 << 20;

/// Docker's name for its registry in these files.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// What is sent to a registry, or to its token server.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// User name and password.
    Password {
        /// The user.
        username: String,
        /// The password or access token.
        password: String,
    },
    /// A token that short-lived tokens are had for (`identitytoken`).
    Identity(String),
    /// A token that is sent as it is (`registrytoken`).
    Bearer(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(formatter, "Password({username}, ...)"),
            Self::Identity(_) => formatter.write_str("Identity(...)"),
            Self::Bearer(_) => formatter.write_str("Bearer(...)"),
        }
    }
}

impl Credential {
    /// The user's name, where there is one.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Password { username, .. } => Some(username),
            _ => None,
        }
    }

    /// The value of an `Authorization: Basic` header.
    #[must_use]
    pub fn basic(&self) -> Option<String> {
        match self {
            Self::Password { username, password } => Some(STANDARD.encode(format!("{username}:{password}"))),
            _ => None,
        }
    }
}

/// Why credentials could not be had or kept. No message contains a secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file is not what it should be.
    #[error("credentials file {path}: {reason}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    System(#[from] hull_fs::Error),
    /// A helper failed.
    #[error("credential helper docker-credential-{name}: {reason}")]
    Helper {
        /// Its name without the prefix.
        name: String,
        /// What it said.
        reason: String,
    },
}

/// The user's credential files.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    files: Vec<PathBuf>,
    /// What a program gave for this use alone, by the registry's name; it wins over the files.
    given: Vec<(String, Credential)>,
}

impl Credentials {
    /// The files that the environment names.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_variables(&|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| variable(name).map(PathBuf::from);
        let docker = path("DOCKER_CONFIG").or_else(|| path("HOME").map(|home| home.join(".docker")));
        let uid = rustix::process::geteuid().as_raw();
        let runtime = path("XDG_RUNTIME_DIR").unwrap_or_else(|| PathBuf::from(format!("/run/containers/{uid}")));
        let containers = match path("XDG_RUNTIME_DIR") {
            Some(runtime) => runtime.join("containers/auth.json"),
            None => runtime.join("auth.json"),
        };
        let files =
            [path("REGISTRY_AUTH_FILE"), docker.map(|directory| directory.join("config.json")), Some(containers)];
        Self { files: files.into_iter().flatten().collect(), given: Vec::new() }
    }

    /// Only this file, as `--authfile` asks for.
    #[must_use]
    pub fn file(path: PathBuf) -> Self {
        Self { files: vec![path], given: Vec::new() }
    }

    /// Only these, each for the registry of that name; no file or helper is asked.
    #[must_use]
    pub fn given(given: Vec<(String, Credential)>) -> Self {
        Self { files: Vec::new(), given }
    }

    /// The credential for a repository of a registry; `host` is as in [`hull_oci::Reference::domain`].
    ///
    /// # Errors
    /// When a file or a helper is broken: a silent anonymous request would be answered by a misleading refusal.
    pub fn find(&self, host: &str, repository: &str) -> Result<Option<Credential>, CredentialError> {
        if let Some((_, found)) = self.given.iter().find(|(given, _)| given == host) {
            return Ok(Some(found.clone()));
        }
        for path in &self.files {
            let Some(document) = read(path)? else { continue };
            if let Some(name) = helper_for(&document, host)
                && let Some(found) = helper::get(&name, server_key(host))?
            {
                return Ok(Some(found));
            }
            let entry = keys(host, repository).iter().find_map(|key| lookup(&document, key));
            if let Some(found) = entry.map(|entry| decode(path, host, entry)).transpose()?.flatten() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps a credential, in the helper that the file names or in the file itself. Says where.
    ///
    /// # Errors
    /// See [`CredentialError`].
    pub fn store(&self, host: &str, credential: &Credential) -> Result<Kept, CredentialError> {
        let path = self.target();
        let document = read(&path)?.unwrap_or_default();
        if let Some(name) = helper_for(&document, host) {
            helper::store(&name, server_key(host), credential)?;
            return Ok(Kept::Helper(name));
        }
        change(&path, |document| {
            let auths = document.entry("auths").or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(auths) = auths else { return Err("`auths` is not an object".to_owned()) };
            auths.insert(server_key(host).to_owned(), encode(credential));
            Ok(true)
        })?;
        Ok(Kept::File(path))
    }

    /// Forgets a registry in every file and helper. Says whether anything was known.
    ///
    /// # Errors
    /// See [`CredentialError`].
    pub fn erase(&self, host: &str) -> Result<bool, CredentialError> {
        let mut known = false;
        for path in &self.files {
            let Some(document) = read(path)? else { continue };
            if let Some(name) = helper_for(&document, host) {
                known |= helper::get(&name, server_key(host))?.is_some();
                helper::erase(&name, server_key(host))?;
            }
            if !keys(host, "").iter().any(|key| lookup(&document, key).is_some()) {
                continue;
            }
            known |= change(path, |document| {
                let Some(Value::Object(auths)) = document.get_mut("auths") else { return Ok(false) };
                let before = auths.len();
                auths.retain(|key, _| !keys(host, "").iter().any(|wanted| host_key(key) == *wanted));
                Ok(auths.len() < before)
            })?;
        }
        Ok(known)
    }

    /// Where `store` writes: the first file that exists, else Docker's.
    fn target(&self) -> PathBuf {
        let explicit = std::env::var_os("REGISTRY_AUTH_FILE").is_some_and(|value| !value.is_empty());
        let existing = self.files.iter().find(|path| path.exists());
        match (explicit, existing) {
            (true, _) | (false, None) => self.files.first().cloned().unwrap_or_default(),
            (false, Some(path)) => path.clone(),
        }
    }
}

/// Where a credential was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In this file, readable by the user alone but not encrypted.
    File(PathBuf),
    /// In the program `docker-credential-NAME`.
    Helper(String),
}

/// The key that Docker and its helpers use for a registry.
fn server_key(host: &str) -> &str {
    if host == "docker.io" { DOCKER_KEY } else { host }
}

/// The keys that may hold a repository's credential, most special first: `quay.io/org/app`, `quay.io/org`, `quay.io`.
fn keys(host: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    while !path.is_empty() {
        keys.push(format!("{host}/{path}"));
        path = path.rsplit_once('/').map_or("", |(above, _)| above);
    }
    keys.push(host.to_owned());
    keys
}

/// A key of a file without the scheme and version that old clients wrote.
fn host_key(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    match bare {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

fn lookup<'a>(document: &'a Map<String, Value>, wanted: &str) -> Option<&'a Map<String, Value>> {
    let auths = document.get("auths")?.as_object()?;
    // The exact key wins over one in the old form.
    let exact = auths.get(wanted);
    exact.or_else(|| auths.iter().find(|(key, _)| host_key(key) == wanted).map(|(_, entry)| entry))?.as_object()
}

fn helper_for(document: &Map<String, Value>, host: &str) -> Option<String> {
    let helpers = document.get("credHelpers").and_then(Value::as_object);
    let special = helpers.and_then(|helpers| {
        let exact = helpers.get(server_key(host)).or_else(|| helpers.get(host));
        exact.or_else(|| helpers.iter().find(|(key, _)| host_key(key) == host).map(|(_, name)| name))
    });
    let name = special.or_else(|| document.get("credsStore"))?.as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn text<'a>(entry: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn decode(path: &Path, host: &str, entry: &Map<String, Value>) -> Result<Option<Credential>, CredentialError> {
    if let Some(token) = text(entry, "identitytoken") {
        return Ok(Some(Credential::Identity(token.to_owned())));
    }
    if let Some(token) = text(entry, "registrytoken") {
        return Ok(Some(Credential::Bearer(token.to_owned())));
    }
    if let Some(encoded) = text(entry, "auth") {
        let plain = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((username, password)) = plain.as_deref().and_then(|plain| plain.split_once(':')) else {
            let reason = format!("`auth` of {host:?} is not base64 of USER:PASSWORD");
            return Err(CredentialError::File { path: path.to_owned(), reason });
        };
        // Docker pads old entries with NUL.
        let password = password.trim_matches('\0').to_owned();
        return Ok(Some(Credential::Password { username: username.to_owned(), password }));
    }
    let (username, password) = (text(entry, "username"), text(entry, "password"));
    Ok(username.zip(password).map(|(username, password)| Credential::Password {
        username: username.to_owned(),
        password: password.to_owned(),
    }))
}

fn encode(credential: &Credential) -> Value {
    let mut entry = Map::new();
    match credential {
        Credential::Password { .. } => {
            entry.insert("auth".to_owned(), credential.basic().unwrap_or_default().into());
        }
        Credential::Identity(token) => {
            // Docker reads the user's name from `auth`; the token stands for any.
            entry.insert("auth".to_owned(), STANDARD.encode("<token>:").into());
            entry.insert("identitytoken".to_owned(), token.as_str().into());
        }
        Credential::Bearer(token) => {
            entry.insert("registrytoken".to_owned(), token.as_str().into());
        }
    }
    Value::Object(entry)
}

fn read(path: &Path) -> Result<Option<Map<String, Value>>, CredentialError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(CredentialError::File { path: path.to_owned(), reason: error.to_string() }),
    };
    let refuse = |reason: String| CredentialError::File { path: path.to_owned(), reason };
    if bytes.len() > MAX_FILE {
        return Err(refuse(format!("longer than {MAX_FILE} bytes")));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Some(Map::new()));
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(document)) => Ok(Some(document)),
        Ok(_) => Err(refuse("expected a JSON object".to_owned())),
        // The parser's message may quote the file; its place is enough.
        Err(error) => Err(refuse(format!("not valid JSON at line {} column {}", error.line(), error.column()))),
    }
}

/// Reads, changes and replaces a file while no other Hull does; `edit` says whether there is something to write.
fn change(
    path: &Path,
    edit: impl FnOnce(&mut Map<String, Value>) -> Result<bool, String>,
) -> Result<bool, CredentialError> {
    let refuse = |reason: String| CredentialError::File { path: path.to_owned(), reason };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| refuse(format!("create its directory: {error}")))?;
    }
    // A link, as tools that keep configuration elsewhere make it, stays one.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // The directory is the lock: a lock file beside the user's configuration would stay there.
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let opened = std::fs::File::open(directory).map_err(|error| refuse(format!("open its directory: {error}")))?;
    let _lock = hull_fs::lock::Lock::exclusive_on(opened.into(), directory)?;
    let mut document = read(path)?.unwrap_or_default();
    let changed = edit(&mut document).map_err(refuse)?;
    if changed {
        let mut json = serde_json::to_string_pretty(&document)
            .map_err(|error| CredentialError::File { path: path.clone(), reason: error.to_string() })?;
        json.push('\n');
        hull_fs::atomic::write_path(path, json.as_bytes(), 0o600)?;
    }
    Ok(changed)
}

#[cfg(test)]
mod tests;
