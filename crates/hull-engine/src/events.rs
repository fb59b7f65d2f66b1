//! What happened: an event is a line of JSON in Docker's form, appended to `ROOT/events/log`.
//!
//! A writer takes the file's lock (`flock(2)`), so that the lines are in the order of their times, and renames a full
//! file to `log.1` under it. Readers take no lock: a line is written at once. Events are told, not obeyed: one that
//! cannot be written changes nothing for what it tells of.

mod read;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::config::{MountConfig, Source};
use crate::records::{Container, Engine, create_private, now};

pub use read::{FILTERS, Query, follow, read};

/// The file is renamed once it is this long.
const MAX_BYTES: u64 = 4 << 20;

/// One event, as Docker's API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `container`, `image`, `volume`, `network`, ...
    #[serde(rename = "Type")]
    pub kind: String,
    /// `start`, `die`, ...
    #[serde(rename = "Action")]
    pub action: String,
    /// What it happened to.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Of the machine, always.
    #[serde(default = "local")]
    pub scope: String,
    /// Seconds since 1970.
    pub time: u64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: u64,
}

/// What an event happened to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// ID or name.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name, image, labels, and what belongs to the event.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

fn local() -> String {
    "local".to_owned()
}

/// `ROOT/events`.
pub(crate) fn directory(engine: &Engine) -> PathBuf {
    engine.root().join("events")
}

/// Writes an event of a container.
pub(crate) fn emit(engine: &Engine, container: &Container, action: &str, more: &[(&str, &str)]) {
    let mut attributes = container.config.labels.clone();
    if let Source::Image(image) = &container.config.source {
        attributes.insert("image".to_owned(), image.clone());
    }
    attributes.insert("name".to_owned(), container.name.clone());
    attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    emit_of(engine, "container", action, Actor { id: container.id.clone(), attributes });
}

impl Engine {
    /// Writes an event of a container, which somebody outside of this crate has caused.
    pub fn tell(&self, container: &Container, action: &str, more: &[(&str, &str)]) {
        emit(self, container, action, more);
    }
}

/// Writes the events of a container's networks and volumes, when it begins or has ended.
pub(crate) fn emit_surroundings(engine: &Engine, container: &Container, begins: bool) {
    let container_id = || ("container".to_owned(), container.id.clone());
    for network in &container.config.networks {
        let Ok(network) = engine.networks().find(&network.name) else { continue };
        let name = ("name".to_owned(), network.name.clone());
        let kind = ("type".to_owned(), network.driver.as_str().to_owned());
        let actor = Actor { id: network.id, attributes: [container_id(), name, kind].into() };
        emit_of(engine, "network", if begins { "connect" } else { "disconnect" }, actor);
    }
    for mount in &container.config.mounts {
        let MountConfig::Volume { name, target, .. } = mount else { continue };
        let mut attributes: BTreeMap<String, String> =
            [container_id(), ("driver".to_owned(), crate::volumes::DRIVER.to_owned())].into();
        if begins {
            attributes.insert("destination".to_owned(), target.clone());
            attributes.insert("propagation".to_owned(), String::new());
            attributes.insert("read/write".to_owned(), (!mount.read_only()).to_string());
        }
        let actor = Actor { id: name.clone(), attributes };
        emit_of(engine, "volume", if begins { "mount" } else { "unmount" }, actor);
    }
}

/// Writes an event of an image: what was done, its ID, and the name by which it was done.
pub fn emit_image(engine: &Engine, action: &str, id: &str, name: &str) {
    let attributes = [("name".to_owned(), name.to_owned())].into();
    emit_of(engine, "image", action, Actor { id: id.to_owned(), attributes });
}

/// Writes an event of anything.
pub fn emit_of(engine: &Engine, kind: &str, action: &str, actor: Actor) {
    // Nobody can be told, and nothing depends on it.
    let _ = append(engine, kind, action, actor);
}

fn append(engine: &Engine, kind: &str, action: &str, actor: Actor) -> Result<(), crate::Error> {
    let directory = directory(engine);
    let path = directory.join("log");
    let fail = || crate::Error::io("write", &path);
    for _ in 0..2 {
        let open = || File::options().append(true).create(true).mode(0o600).open(&path);
        let mut file = match open() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create_private(&directory)?;
                open().map_err(fail())?
            }
            result => result.map_err(fail())?,
        };
        rustix::io::retry_on_intr(|| rustix::fs::flock(file.as_fd(), FlockOperation::LockExclusive))
            .map_err(crate::Error::io("lock", &path))?;
        if file.metadata().map_err(fail())?.len() >= MAX_BYTES {
            // Whoever waited for the lock meanwhile has the old file and looks again.
            std::fs::rename(&path, directory.join("log.1")).map_err(fail())?;
            continue;
        }
        let time_nano = now();
        let (kind, action) = (kind.to_owned(), action.to_owned());
        let event = Event { kind, action, actor, scope: local(), time: time_nano / 1_000_000_000, time_nano };
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        return file.write_all(&line).map_err(fail());
    }
    Ok(())
}
