//! `policy.json`: which images may be used (`containers-policy.json(5)` of the containers tools).
//!
//! ```text
//! {"default": [REQUIREMENT...],
//!  "transports": {"docker": {"registry.example/team/app:1": [...], "registry.example/team": [...],
//!                            "*.example": [...], "": [...]}, ...}}
//! ```
//!
//! One list applies, that of the most specific scope, and all of its requirements must be met. Hull asks about images of
//! registries (`docker`); the rules of other transports are checked for their form and not used.
//!
//! Reading is strict, as it is in the containers tools: a field that is unknown, missing or twice there makes the whole
//! policy unusable, and with it every image of a registry. Requirements that exist and that Hull cannot check (GPG
//! signatures, certificates, transparency logs) are read, and refuse the images that they are for.
//!
//! Where it is: `HULL_POLICY`, else `$HOME/.config/containers/policy.json`, else `/etc/containers/policy.json`. Without
//! any, everything is accepted, as there is no policy with Docker either.

mod identity;
mod parse;
mod rule;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hull_oci::Reference;

use crate::{Error, error};

pub use identity::Identity;
pub use rule::{Accepted, Refused, Rule, signed_by};

/// A longer policy is refused.
const MAX_POLICY_BYTES: u64 = 1 << 20;

/// The system's policy.
const SYSTEM: &str = "/etc/containers/policy.json";

/// The user's policy below the home directory, which replaces the system's.
const USER: &str = ".config/containers/policy.json";

/// The setting that names a policy which replaces both.
const KEY: &str = "policy";

/// Which images may be used.
#[derive(Clone, Debug)]
pub struct Policy {
    origin: String,
    default: Vec<Requirement>,
    /// By scope.
    docker: BTreeMap<String, Vec<Requirement>>,
}

/// What an image must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Anything.
    Accept,
    /// Nothing is.
    Reject,
    /// Signed by one of these keys, under a name that fits.
    Signed {
        /// Any of them.
        keys: Vec<KeySource>,
        /// Which name the signature must have.
        identity: Identity,
    },
    /// Something that Hull cannot check.
    Unsupported(&'static str),
}

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// In the policy itself, as PEM.
    Inline(Vec<u8>),
}

impl Policy {
    /// Whether every image is accepted, wherever it is from.
    #[must_use]
    pub fn accepts_anything(&self) -> bool {
        self.docker.values().chain([&self.default]).flatten().all(|one| *one == Requirement::Accept)
    }

    /// The policy that applies: `explicit`, or what the environment and the machine's files say; `None` where there is none.
    ///
    /// # Errors
    /// When there is one that cannot be read or is malformed, or when one that was named is missing.
    pub fn load(explicit: Option<&Path>) -> Result<Option<Self>, Error> {
        let variable = hull_config::text(KEY).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = explicit.map(Path::to_owned).or(variable) {
            return Self::read(&path).map(Some);
        }
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(|home| Path::new(&home).join(USER));
        for path in home.into_iter().chain([PathBuf::from(SYSTEM)]) {
            match std::fs::File::open(&path) {
                Ok(file) => {
                    let bytes = error::read_from(file, &path, MAX_POLICY_BYTES)?;
                    return Self::parse(&bytes, &path.display().to_string()).map(Some);
                }
                Err(error) if is_absent(&error) => {}
                Err(source) => return Err(Error::Read { path: path.display().to_string(), source }),
            }
        }
        Ok(None)
    }

    /// Reads a policy.
    ///
    /// # Errors
    /// When it cannot be read or is malformed.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&error::read(path, MAX_POLICY_BYTES)?, &path.display().to_string())
    }

    /// Parses a policy. `origin` is how errors and refusals call it.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(bytes: &[u8], origin: &str) -> Result<Self, Error> {
        let (default, docker) =
            parse::policy(bytes).map_err(|reason| Error::Policy { origin: origin.to_owned(), reason })?;
        Ok(Self { origin: origin.to_owned(), default, docker })
    }

    /// The rule for an image of a registry.
    #[must_use]
    pub fn rule(&self, reference: &Reference) -> Rule<'_> {
        for scope in scopes(reference) {
            if let Some(requirements) = self.docker.get(&scope) {
                return Rule { origin: &self.origin, scope: Some(scope), requirements };
            }
        }
        Rule { origin: &self.origin, scope: None, requirements: &self.default }
    }
}

/// Where a home directory is not even a directory, there is no policy in it.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// The scopes that an image is in, the most specific first: itself, its repository, what that lies in, its registry, the
/// domains of the registry, everything.
fn scopes(reference: &Reference) -> Vec<String> {
    let mut name = reference.repository();
    let mut scopes = Vec::new();
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => scopes.push(format!("{name}@{digest}")),
        (None, Some(tag)) => scopes.push(format!("{name}:{tag}")),
        (None, None) => {}
    }
    scopes.push(name.clone());
    while let Some((parent, _)) = name.rsplit_once('/') {
        name = parent.to_owned();
        scopes.push(name.clone());
    }
    let mut host = name.split(':').next().unwrap_or_default();
    while let Some((_, parent)) = host.split_once('.') {
        scopes.push(format!("*.{parent}"));
        host = parent;
    }
    scopes.push(String::new());
    scopes
}

#[cfg(test)]
mod tests;
