//! `--verify`: whether an image comes out the same when it is built again, and where not, which step and which files.

use std::collections::BTreeMap;
use std::io::Read as _;

use hull_image::{Layer, Store, Transfer};
use hull_layer::Limits;
use hull_layer::tar::{Entry, EntryKind, Reader};
use hull_oci::Digest;
use hull_oci::digest::{Algorithm, Hasher};
use hull_oci::image::ImageConfig;
use hull_oci::spec::one_line;
use serde_json::Value;

use crate::Error;

/// Differences that are named of one step.
const MAX_FILES: usize = 200;

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// What of the configuration: `Env`, `created`, ...
    pub config: Vec<String>,
    /// Steps whose layers differ.
    pub steps: Vec<Step>,
}

/// A step whose layer differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Its row of the history.
    pub step: String,
    /// It follows a step that differs, so that it may differ for that reason alone.
    pub follows: bool,
    /// Its files: a path, and what of it differs.
    pub files: Vec<(String, String)>,
    /// More files than these.
    pub more: usize,
}

impl Differences {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.config.is_empty() && self.steps.is_empty()
    }
}

/// What of a file is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct File {
    fields: Vec<(&'static str, String)>,
}

/// Compares an image with what came out when it was built again. The layers of both are in the store.
///
/// # Errors
/// When a configuration or a layer cannot be read.
pub fn compare(store: &Store, transfer: &Transfer, before: &[u8], now: &[u8]) -> Result<Differences, Error> {
    let parse = |bytes: &[u8]| -> Result<ImageConfig, Error> {
        ImageConfig::parse(bytes).map_err(|error| Error::Request(format!("read the image's configuration: {error}")))
    };
    let (old, new) = (parse(before)?, parse(now)?);
    let mut found = Differences { config: fields(before, now), steps: Vec::new() };
    let (was, is) = (&old.rootfs.diff_ids, &new.rootfs.diff_ids);
    for index in 0..was.len().max(is.len()) {
        if was.get(index) == is.get(index) {
            continue;
        }
        let step = name(&new, index).or_else(|| name(&old, index)).unwrap_or_else(|| format!("layer {}", index + 1));
        let mut step = Step { step, follows: !found.steps.is_empty(), ..Step::default() };
        let read = |id: Option<&Digest>| match id {
            Some(id) => files(store, transfer, id),
            None => Ok(BTreeMap::new()),
        };
        let (was, is) = (read(was.get(index))?, read(is.get(index))?);
        let mut all = differing(&was, &is);
        if all.is_empty() {
            all.push(("/".to_owned(), "the archive is written in another way".to_owned()));
        }
        step.more = all.len().saturating_sub(MAX_FILES);
        all.truncate(MAX_FILES);
        step.files = all;
        found.steps.push(step);
    }
    Ok(found)
}

/// What the history calls a layer.
fn name(config: &ImageConfig, index: usize) -> Option<String> {
    let row = config.history.iter().filter(|row| !row.empty_layer).nth(index)?;
    row.created_by.as_deref().map(one_line)
}

/// Names of what differs in configurations, layers aside.
fn fields(before: &[u8], now: &[u8]) -> Vec<String> {
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let (before, now) = (parse(before), parse(now));
    let mut names = Vec::new();
    let empty = serde_json::Map::new();
    let mut compare = |prefix: &str, before: &Value, now: &Value| {
        let (before, now) = (before.as_object().unwrap_or(&empty), now.as_object().unwrap_or(&empty));
        let mut all: Vec<&String> = before.keys().chain(now.keys()).collect();
        all.sort();
        all.dedup();
        for name in all {
            if !(prefix.is_empty() && matches!(name.as_str(), "config" | "rootfs")) && before.get(name) != now.get(name)
            {
                names.push(one_line(&format!("{prefix}{name}")));
            }
        }
    };
    compare("", &before, &now);
    compare("config.", &before["config"], &now["config"]);
    names
}

/// What a layer has, by path.
fn files(store: &Store, transfer: &Transfer, id: &Digest) -> Result<BTreeMap<Vec<u8>, File>, Error> {
    let missing = || Error::Request(format!("layer {id} is not in the store any more"));
    let layer: Layer = transfer.find_layer(id)?.ok_or_else(missing)?;
    let mut reader = Reader::new(store.layer_tar(&layer)?, Limits::default()).end_optional();
    let mut all = BTreeMap::new();
    let mut buffer = vec![0; 128 << 10];
    while let Some(entry) = reader.next()? {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut content = reader.content(&entry);
        loop {
            match content.read(&mut buffer).map_err(Error::io("read layer", id.to_string()))? {
                0 => break,
                count => hasher.update(buffer.get(..count).unwrap_or_default()),
            }
        }
        let digest = hasher.finish();
        all.insert(entry.path.clone(), File { fields: described(&entry, &digest) });
    }
    Ok(all)
}

fn described(entry: &Entry, content: &Digest) -> Vec<(&'static str, String)> {
    let text = |bytes: &[u8]| one_line(&String::from_utf8_lossy(bytes));
    let (kind, target) = match &entry.kind {
        EntryKind::Directory => ("directory", String::new()),
        EntryKind::File { .. } => ("file", String::new()),
        EntryKind::Symlink(target) => ("symbolic link", text(target)),
        EntryKind::HardLink(target) => ("hard link", text(target)),
        EntryKind::Character(major, minor) => ("character device", format!("{major}:{minor}")),
        EntryKind::Block(major, minor) => ("block device", format!("{major}:{minor}")),
        EntryKind::Fifo => ("pipe", String::new()),
    };
    let attributes: Vec<String> =
        entry.xattrs.iter().map(|(name, value)| format!("{}={value:?}", text(name))).collect();
    vec![
        ("type", kind.to_owned()),
        ("target", target),
        ("mode", format!("{:04o}", entry.mode)),
        ("owner", format!("{}:{}", entry.uid, entry.gid)),
        ("time", entry.mtime.to_string()),
        ("attributes", attributes.join(" ")),
        ("content", content.to_string()),
    ]
}

fn differing(before: &BTreeMap<Vec<u8>, File>, now: &BTreeMap<Vec<u8>, File>) -> Vec<(String, String)> {
    let mut paths: Vec<&Vec<u8>> = before.keys().chain(now.keys()).collect();
    paths.sort();
    paths.dedup();
    let what = |path: &Vec<u8>| match (before.get(path), now.get(path)) {
        (Some(_), None) => Some("only in the image".to_owned()),
        (None, Some(_)) => Some("only in what was built again".to_owned()),
        (Some(old), Some(new)) if old != new => {
            let words =
                old.fields.iter().zip(&new.fields).filter(|(old, new)| old != new).map(|(old, new)| match old.0 {
                    "content" | "attributes" => old.0.to_owned(),
                    name => format!("{name} {} instead of {}", new.1, old.1),
                });
            Some(words.collect::<Vec<_>>().join(", "))
        }
        _ => None,
    };
    let shown = |path: &[u8]| format!("/{}", one_line(&String::from_utf8_lossy(path)));
    paths.into_iter().filter_map(|path| Some((shown(path), what(path)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_compared_field_by_field() {
        let before =
            br#"{"created": "a", "os": "linux", "config": {"Env": ["A=1"], "Cmd": ["x"]}, "rootfs": {"x": 1}}"#;
        let now = br#"{"created": "b", "os": "linux", "config": {"Env": ["A=2"], "Cmd": ["x"], "User": "u"}}"#;
        assert_eq!(fields(before, now), ["created", "config.Env", "config.User"]);
        assert!(fields(before, before).is_empty());
    }

    #[test]
    fn files_are_told_by_what_differs() {
        let entry = |path: &str, mode: u16, mtime: i64| Entry {
            mtime,
            ..Entry::new(path.as_bytes().to_vec(), EntryKind::File { size: 1, extents: Vec::new() }, mode)
        };
        let layer = |entries: &[(&Entry, &[u8])]| -> BTreeMap<Vec<u8>, File> {
            let one = |(entry, content): &(&Entry, &[u8])| {
                (entry.path.clone(), File { fields: described(entry, &Digest::of(content)) })
            };
            entries.iter().map(one).collect()
        };
        let before =
            layer(&[(&entry("a", 0o644, 1), b"x"), (&entry("b", 0o644, 1), b"x"), (&entry("c", 0o644, 1), b"x")]);
        let now = layer(&[(&entry("a", 0o755, 2), b"x"), (&entry("b", 0o644, 1), b"y"), (&entry("d", 0o644, 1), b"x")]);
        let expected = [
            ("/a", "mode 0755 instead of 0644, time 2 instead of 1"),
            ("/b", "content"),
            ("/c", "only in the image"),
            ("/d", "only in what was built again"),
        ];
        assert_eq!(differing(&before, &now), expected.map(|(path, what)| (path.to_owned(), what.to_owned())));
    }
}
