//! Keys of steps: which parts count, and how.
//!
//! A key is the SHA-256 of a list of named parts, each with its length before it. The list is kept beside the result, so
//! that a step which is not in the cache can be told apart from the one that is, part by part ([`difference`]).

use hull_engine::config::{Level, Security};
use hull_oci::Digest;
use hull_oci::digest::{Algorithm, Hasher};
use serde::{Deserialize, Serialize};

use crate::graph::{CopyAction, CopyOp, MkdirOp, MountSpec, RunMount, RunOp};

/// Values longer than this are kept as their digest.
const MAX_VALUE: usize = 512;

/// Version of all keys: what steps make has changed in a way that old results must not stand for new ones.
const VERSION: &str = "2";

/// One thing that a step depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part(pub String, pub String);

/// All that a step depends on, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parts(Vec<Part>);

impl Parts {
    /// Parts of a kind of step.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        let mut parts = Self::default();
        parts.add("version", VERSION);
        parts.add("kind", kind);
        parts
    }

    /// Adds one; a value is told from the digest of a longer one by its first character.
    pub fn add(&mut self, name: impl Into<String>, value: impl AsRef<str>) {
        let value = value.as_ref();
        let value =
            if value.len() > MAX_VALUE { format!("#{}", Digest::of(value.as_bytes())) } else { format!("={value}") };
        self.0.push(Part(name.into(), value));
    }

    /// Their digest.
    #[must_use]
    pub fn key(&self) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut field = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        for Part(name, value) in &self.0 {
            field(name);
            field(value);
        }
        hasher.finish()
    }

    /// The digests of what is taken of trees, in the order of actions.
    pub fn selections(&self) -> impl Iterator<Item = &str> {
        let files = self.0.iter().filter(|part| part.0.starts_with("files "));
        files.map(|part| part.1.trim_start_matches('='))
    }

    /// As they are kept.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// As they were kept; what cannot be read says nothing.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// The selections of which other files were taken than before: name, before, now.
#[must_use]
pub fn other_files(before: &Parts, now: &Parts) -> Vec<(String, String, String)> {
    let files = now.0.iter().filter(|part| part.0.starts_with("files "));
    let changed = files.filter_map(|Part(name, new)| {
        let old = &before.0.iter().find(|one| one.0 == *name)?.1;
        (old != new).then(|| (name.clone(), old.trim_start_matches('=').into(), new.trim_start_matches('=').into()))
    });
    changed.collect()
}

/// What is different between a step as it was done last and as it is to be done, one line each.
#[must_use]
pub fn difference(before: &Parts, now: &Parts) -> Vec<String> {
    let value = |parts: &Parts, name: &str| parts.0.iter().find(|one| one.0 == name).map(|one| one.1.clone());
    let shown = |value: &str| match value.split_at_checked(1) {
        Some(("=", text)) => format!("{text:?}"),
        _ => "other content".to_owned(),
    };
    let mut lines = Vec::new();
    for Part(name, new) in &now.0 {
        match value(before, name) {
            None => lines.push(format!("{name} is new")),
            Some(old) if old != *new => lines.push(match name.as_str() {
                name if is_content(name) => format!("{name} changed"),
                name => format!("{name} changed from {} to {}", shown(&old), shown(new)),
            }),
            Some(_) => {}
        }
    }
    let gone = before.0.iter().filter(|one| value(now, &one.0).is_none());
    lines.extend(gone.map(|one| format!("{} is gone", one.0)));
    lines
}

/// Parts whose values are digests, which say nothing to people.
fn is_content(name: &str) -> bool {
    name == BELOW || name.starts_with("files ")
}

/// The part that stands for the file system that a step changes.
pub const BELOW: &str = "what it is built on";

/// A list of layers as a value.
#[must_use]
pub fn layers(layers: &[Digest]) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for layer in layers {
        hasher.update(layer.to_string().as_bytes());
        hasher.update(b"\n");
    }
    hasher.finish().to_string()
}

fn list(items: &[String]) -> String {
    serde_json::to_string(items).unwrap_or_default()
}

fn flag(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// What a `RUN` does under an isolation, apart from the files that it needs. Secrets count by name, limits and proxies
/// not at all.
pub fn run(parts: &mut Parts, op: &RunOp, security: &Security, platform: &str, epoch: Option<i64>) {
    parts.add("the command", list(&op.args));
    for variable in &op.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        parts.add(format!("variable {name}"), value);
    }
    parts.add("the working directory", &op.workdir);
    parts.add("the user", &op.user);
    for (name, content) in &op.pipes {
        parts.add(format!("heredoc {name}"), content);
    }
    for mount in &op.mounts {
        parts.add(format!("mount {}", mount.target), self::mount(mount));
    }
    parts.add("the network", format!("{:?}", op.network));
    let level = match security.level {
        Level::Compat => "compat",
        Level::Standard => "standard",
        Level::Hardened => "hardened",
    };
    parts.add("security", if op.insecure { "insecure" } else { level });
    let usual =
        Security { level: security.level, no_new_privileges: security.level != Level::Compat, ..Security::default() };
    let said = |one: &Security| serde_json::to_string(one).unwrap_or_default();
    if said(security) != said(&usual) {
        parts.add("security options", said(security));
    }
    parts.add("hosts", list(&op.extra_hosts));
    parts.add("the host name", &op.hostname);
    parts.add("the size of /dev/shm", op.shm_size.map(|size| size.to_string()).unwrap_or_default());
    parts.add("ulimits", list(&op.ulimits));
    parts.add("normalised", flag(op.normalise));
    parts.add("devices", list(&op.devices));
    parts.add("the platform", platform);
    self::epoch(parts, epoch);
}

/// The latest time that files may have.
pub fn epoch(parts: &mut Parts, epoch: Option<i64>) {
    parts.add("SOURCE_DATE_EPOCH", epoch.map(|epoch| epoch.to_string()).unwrap_or_default());
}

fn mount(mount: &RunMount) -> String {
    let words: Vec<String> = match &mount.spec {
        MountSpec::Bind => vec!["bind".into(), mount.source.clone()],
        MountSpec::Cache { id, sharing, mode, uid, gid } => vec![
            "cache".into(),
            mount.source.clone(),
            id.clone(),
            format!("{sharing:?}"),
            format!("{mode:o}"),
            uid.to_string(),
            gid.to_string(),
        ],
        MountSpec::Tmpfs { size } => vec!["tmpfs".into(), size.map(|size| size.to_string()).unwrap_or_default()],
        MountSpec::Secret { id, env, file, required, mode, uid, gid } => vec![
            "secret".into(),
            id.clone(),
            env.clone().unwrap_or_default(),
            flag(*file).into(),
            flag(*required).into(),
            format!("{mode:o}"),
            uid.to_string(),
            gid.to_string(),
        ],
        MountSpec::Ssh { id, required, mode, uid, gid } => vec![
            "ssh".into(),
            id.clone(),
            flag(*required).into(),
            format!("{mode:o}"),
            uid.to_string(),
            gid.to_string(),
        ],
    };
    format!("{} {}", if mount.read_only { "ro" } else { "rw" }, list(&words))
}

/// What an action of a copy does with the files that it takes. `source` counts only where these are not known yet.
fn action(action: &CopyAction) -> String {
    let words = [
        action.destination.clone(),
        action.chown.clone().unwrap_or("0:0".to_owned()),
        action.chmod.clone().unwrap_or_default(),
        flag(action.parents).to_owned(),
        flag(action.unpack).to_owned(),
        action.name.clone().unwrap_or_default(),
    ];
    list(&words)
}

/// What is taken of the files of an action.
#[must_use]
pub fn source(action: &CopyAction) -> String {
    let mut words = vec![action.source.clone(), flag(action.allow_missing).to_owned()];
    words.extend(action.exclude.iter().cloned());
    list(&words)
}

/// What a copy does. `from` are what stands for the files of each action: a digest of them, or the definition of their
/// step.
pub fn copy(parts: &mut Parts, op: &CopyOp, from: &[String], epoch: Option<i64>) {
    for (index, (one, from)) in op.actions.iter().zip(from).enumerate() {
        parts.add(format!("copy {}", index + 1), action(one));
        let shown = if one.source.is_empty() { one.destination.as_str() } else { one.source.as_str() };
        match &one.content {
            Some(content) => parts.add(format!("content {}", index + 1), Digest::of(content).to_string()),
            None => parts.add(format!("files {shown}"), from),
        }
    }
    parts.add("link", flag(op.base.is_none()));
    self::epoch(parts, epoch);
}

/// What a `WORKDIR` does.
pub fn mkdir(parts: &mut Parts, op: &MkdirOp, epoch: Option<i64>) {
    parts.add("the directory", &op.path);
    self::epoch(parts, epoch);
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
