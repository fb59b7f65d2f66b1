//! Settings: what a user or a machine wants everywhere, and where each value came from.
//!
//! | place | of | precedence |
//! |---|---|---|
//! | `HULL_NAME` | the environment | first, behind a command's flags |
//! | `$XDG_CONFIG_HOME/hull/config.toml`, else `~/.config/hull/config.toml` | the user | second |
//! | `/etc/hull/config.toml` | the machine | third |
//! | `/etc/docker/daemon.json`, `~/.docker/config.json` | Docker, read as they are | fourth |
//!
//! [`SETTINGS`] is the list of all, with their meaning; the TOML file's keys are flat and the same as `daemon.json`'s
//! where it has one, and a variable's name is the key's in capitals behind `HULL_`. `HULL_ETC` stands for `/etc`.
//!
//! A program calls [`init`] once; what it then asks for costs a look at the environment and into a map. Without
//! files that is four failed opens, and without [`init`] only the environment counts, as in tests of other crates.
//! A file of Hull's that says something wrong or unknown is an error, and so is a `daemon.json` that cannot be
//! understood: what it forbids would be done. What Hull has no use for in Docker's files is passed over.
//!
//! It must never write a file, and never say a secret: `~/.docker/config.json` is read here for formats, keys and
//! proxies only.

mod read;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::Value;

pub use read::Sources;
pub use table::{Kind, SETTINGS, Setting};

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or is not what it should be.
    #[error("{path}: {reason}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was found, and what was expected.
        reason: String,
    },
    /// A value is not of its setting's kind.
    #[error("{origin}: {key}: {reason}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The setting.
        key: &'static str,
        /// What was expected.
        reason: String,
    },
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A file of Docker's.
    Docker(PathBuf),
    /// The machine's own file.
    System(PathBuf),
    /// The user's own file.
    User(PathBuf),
    /// A variable of the environment.
    Variable(String),
    /// A flag of this command.
    Flag(String),
}

impl Origin {
    /// `default`, `docker`, `system`, `user`, `variable` or `flag`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Docker(_) => "docker",
            Self::System(_) => "system",
            Self::User(_) => "user",
            Self::Variable(_) => "variable",
            Self::Flag(_) => "flag",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Docker(path) | Self::System(path) | Self::User(path) => path.display().fmt(formatter),
            Self::Variable(name) => write!(formatter, "${name}"),
            Self::Flag(name) => formatter.write_str(name),
        }
    }
}

/// Everything that the files say.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, (Value, Origin)>,
    /// Keys of Docker's files that mean nothing to Hull, with their file.
    pub unused: Vec<(PathBuf, String)>,
    /// What is wrong with files that only change how things look.
    pub warnings: Vec<String>,
}

static FILES: OnceLock<Settings> = OnceLock::new();

/// Reads the files for this process.
///
/// # Errors
/// When one of Hull's or `daemon.json` is wrong; settings are then those of the environment alone.
pub fn init() -> Result<&'static Settings, Error> {
    let settings = read::files(&Sources::of_environment())?;
    Ok(FILES.get_or_init(|| settings))
}

/// The value of a setting and its origin, as JSON of its kind; `None` where nobody said anything.
///
/// # Errors
/// [`Error::Value`] for a variable that is not of the setting's kind.
pub fn get(key: &str) -> Result<Option<(Value, Origin)>, Error> {
    let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else { return Ok(None) };
    let name = setting.variable();
    if let Some(text) = std::env::var_os(&name).filter(|text| !text.is_empty()) {
        let origin = Origin::Variable(name);
        let value = setting.kind.of_text(&text.to_string_lossy());
        return match value {
            Ok(value) => Ok(Some((value, origin))),
            Err(reason) => Err(Error::Value { origin, key: setting.key, reason }),
        };
    }
    Ok(FILES.get().and_then(|settings| settings.values.get(key)).cloned())
}

impl Settings {
    /// What the files say of a setting.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&(Value, Origin)> {
        self.values.get(key)
    }
}

/// A text, path, number or boolean as text; `None` where nobody said anything.
#[must_use]
pub fn text(key: &str) -> Option<String> {
    match get(key).ok().flatten()?.0 {
        Value::String(text) => Some(text),
        Value::Array(_) | Value::Object(_) | Value::Null => None,
        other => Some(other.to_string()),
    }
}

/// [`text`], and where it came from, for messages.
#[must_use]
pub fn text_of(key: &str) -> Option<(String, Origin)> {
    let (value, origin) = get(key).ok().flatten()?;
    match value {
        Value::String(text) => Some((text, origin)),
        Value::Array(_) | Value::Object(_) | Value::Null => None,
        other => Some((other.to_string(), origin)),
    }
}

/// A variable of proxies, such as `https_proxy`, of the environment or else by its setting.
#[must_use]
pub fn proxy(name: &str) -> Option<String> {
    let setting = || match name.to_ascii_lowercase().as_str() {
        "http_proxy" => text("http-proxy"),
        "https_proxy" => text("https-proxy"),
        "no_proxy" => text("no-proxy"),
        _ => None,
    };
    std::env::var(name).ok().or_else(setting)
}

/// A boolean; `None` where nobody said anything.
#[must_use]
pub fn flag(key: &str) -> Option<bool> {
    get(key).ok().flatten()?.0.as_bool()
}

/// A list of texts; empty where nobody said anything.
#[must_use]
pub fn list(key: &str) -> Vec<String> {
    match get(key) {
        Ok(Some((Value::Array(list), _))) => {
            list.into_iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

/// Names and texts; empty where nobody said anything.
#[must_use]
pub fn map(key: &str) -> BTreeMap<String, String> {
    match get(key) {
        Ok(Some((Value::Object(map), _))) => {
            map.into_iter().filter_map(|(key, value)| Some((key, value.as_str()?.to_owned()))).collect()
        }
        _ => BTreeMap::new(),
    }
}

/// Checks that every variable of the environment that is a setting is of its kind.
///
/// # Errors
/// The first that is not.
pub fn check() -> Result<(), Error> {
    SETTINGS.iter().try_for_each(|setting| get(setting.key).map(drop))
}
