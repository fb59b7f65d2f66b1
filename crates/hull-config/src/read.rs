//! The files.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde_json::Value;

use crate::table::{SETTINGS, Setting};
use crate::{Error, Origin, Settings};

/// A file of at most this many bytes is read.
const MAX_FILE: u64 = 1 << 20;

/// Where the files are.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The user's own.
    pub user: Option<PathBuf>,
    /// The machine's.
    pub system: PathBuf,
    /// Docker's `daemon.json`; the first that exists counts.
    pub daemon: Vec<PathBuf>,
    /// Docker's `config.json`.
    pub docker: Option<PathBuf>,
    /// Whether the caller is root of the machine.
    pub root: bool,
}

impl Sources {
    /// As the environment says.
    #[must_use]
    pub fn of_environment() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let etc = variable("HULL_ETC").unwrap_or_else(|| PathBuf::from("/etc"));
        let home = variable("HOME");
        let config = variable("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let root = rustix::process::geteuid().is_root();
        let own = config.as_ref().filter(|_| !root).map(|config| config.join("docker/daemon.json"));
        let docker = variable("DOCKER_CONFIG").or_else(|| Some(home?.join(".docker")));
        Self {
            user: config.map(|config| config.join("hull/config.toml")),
            system: etc.join("hull/config.toml"),
            daemon: own.into_iter().chain([etc.join("docker/daemon.json")]).collect(),
            docker: docker.map(|directory| directory.join("config.json")),
            root,
        }
    }
}

/// A file's text; `None` when there is none.
fn text(path: &Path) -> Result<Option<String>, Error> {
    let fail = |reason: String| Error::File { path: path.to_owned(), reason };
    // Of a pipe or a device there is nothing to wait for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, rustix::fs::Mode::empty()) {
        Ok(fd) => std::fs::File::from(fd),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        // The directory of somebody else, as HOME is after setpriv(1); a file of one's own that cannot be read is an error.
        Err(rustix::io::Errno::ACCESS) if std::fs::symlink_metadata(path).is_err() => return Ok(None),
        Err(errno) => return Err(fail(std::io::Error::from(errno).to_string())),
    };
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err(fail("not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| fail(error.to_string()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(fail(format!("longer than {MAX_FILE} bytes")));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| fail("not UTF-8".to_owned()))
}

fn json(path: &Path) -> Result<Option<Value>, Error> {
    let Some(text) = text(path)? else { return Ok(None) };
    let fail = |reason: String| Error::File { path: path.to_owned(), reason };
    match serde_json::from_str(&text) {
        // An empty file is Docker's too.
        Err(_) if text.trim().is_empty() => Ok(None),
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        Ok(_) => Err(fail("not a JSON object".to_owned())),
        Err(error) => Err(fail(format!("not JSON: {error}"))),
    }
}

/// The keys of one of Hull's files.
fn own(path: &Path, origin: &Origin, take: impl Fn(&Setting) -> bool, settings: &mut Settings) -> Result<(), Error> {
    let Some(text) = text(path)? else { return Ok(()) };
    let fail = |reason: String| Error::File { path: path.to_owned(), reason };
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        fail(format!("line {line}: {}", error.message()))
    })?;
    for (key, value) in table {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
            let underscores = key.replace('_', "-");
            let meant = SETTINGS.iter().find(|setting| setting.key == underscores);
            let meant = meant.map(|setting| format!(", {} is meant", setting.key));
            let list = "'hull config show' lists all";
            return Err(fail(format!("there is no setting {key:?}{}: {list}", meant.unwrap_or_default())));
        };
        let value = serde_json::to_value(value).map_err(|error| fail(format!("{key}: {error}")))?;
        let value = setting.kind.of_value(value).map_err(|reason| fail(format!("{key}: {reason}")))?;
        if take(setting) {
            settings.values.insert(setting.key, (value, origin.clone()));
        }
    }
    Ok(())
}

/// A member of an object, by names separated by dots.
fn member<'a>(document: &'a Value, place: &str) -> Option<&'a Value> {
    place.split('.').try_fold(document, |value, name| value.get(name)).filter(|value| !value.is_null())
}

/// What of one of Docker's files is a setting.
fn foreign(
    path: &Path,
    document: &Value,
    place: impl Fn(&Setting) -> &'static str,
    settings: &mut Settings,
) -> Result<(), Error> {
    let origin = Origin::Docker(path.to_owned());
    for setting in SETTINGS.iter().filter(|setting| !place(setting).is_empty()) {
        let Some(value) = member(document, place(setting)) else { continue };
        let value = match setting.kind.of_value(value.clone()) {
            Ok(value) => value,
            Err(reason) => return Err(Error::Value { origin, key: place(setting), reason }),
        };
        let value = match value {
            // Beside Docker's own data, not among it.
            Value::String(directory) if setting.key == "root" => Value::from(format!("{directory}/hull")),
            value => value,
        };
        settings.values.insert(setting.key, (value, origin.clone()));
    }
    let known = |key: &str| SETTINGS.iter().any(|setting| place(setting).split('.').next() == Some(key));
    let unknown = document.as_object().into_iter().flatten().filter(|(key, _)| !known(key));
    settings.unused.extend(unknown.map(|(key, _)| (path.to_owned(), key.clone())));
    Ok(())
}

/// Reads everything, the least important first.
pub(crate) fn files(sources: &Sources) -> Result<Settings, Error> {
    let mut settings = Settings::default();
    if let Some(path) = &sources.docker {
        // It changes how things look: not a reason to do nothing.
        let read = json(path).and_then(|document| match document {
            Some(document) => foreign(path, &document, |setting| setting.docker, &mut settings),
            None => Ok(()),
        });
        if let Err(error) = read {
            settings.warnings.push(error.to_string());
        }
        // Credentials are another crate's.
        settings.unused.retain(|(_, key)| !matches!(key.as_str(), "auths" | "credsStore" | "credHelpers"));
    }
    for path in &sources.daemon {
        let Some(document) = json(path)? else { continue };
        foreign(path, &document, |setting| setting.daemon, &mut settings)?;
        break;
    }
    if !sources.root {
        let machine = |key: &str| SETTINGS.iter().any(|setting| setting.key == key && setting.machine);
        let of_machine = sources.daemon.last();
        settings.values.retain(|key, (_, origin)| match origin {
            Origin::Docker(path) => !machine(key) || Some(&*path) != of_machine,
            _ => true,
        });
    }
    let system = Origin::System(sources.system.clone());
    own(&sources.system, &system, |setting| sources.root || !setting.machine, &mut settings)?;
    if let Some(path) = &sources.user {
        own(path, &Origin::User(path.clone()), |_| true, &mut settings)?;
    }
    Ok(settings)
}
