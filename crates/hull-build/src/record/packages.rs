//! What a layer added to the lists of package managers: dpkg, apk, rpm, pip and npm.
//!
//! | kind | list | hash |
//! |---|---|---|
//! | `deb` | `/var/lib/dpkg/status` | of the checksums of its files, `/var/lib/dpkg/info/NAME.md5sums` |
//! | `apk` | `/lib/apk/db/installed` | as it is there |
//! | `rpm` | `rpmdb.sqlite` or `Packages.db` | of its header, as it is there |
//! | `pip` | `*.dist-info` | of `RECORD` |
//! | `npm` | `node_modules/.package-lock.json` | `integrity` |
//!
//! Lists of images are hostile: their length and number are bounded, and what cannot be read says nothing.

mod rpm;
mod sqlite;

use std::collections::BTreeMap;
use std::io::Read as _;

use hull_oci::Digest;
use hull_oci::spec::one_line;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::files::Sources;
use crate::files::cursor::Cursor;
use crate::files::tree::{FileTree, Handle, Kind};

/// The longest list.
const MAX_LIST: u64 = 128 << 20;

/// Names that are looked at in a layer.
const MAX_NAMES: usize = 300_000;

/// A package.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// `deb`, `apk`, `rpm`, `pip` or `npm`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture, where it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    /// What identifies its content; what that is depends on the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The version that was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// Reads a list.
type Parse = fn(&[u8]) -> Vec<Package>;

/// Where lists are.
const LISTS: [(&str, Parse); 7] = [
    ("var/lib/dpkg/status", |bytes| dpkg(&String::from_utf8_lossy(bytes))),
    ("lib/apk/db/installed", |bytes| apk(&String::from_utf8_lossy(bytes))),
    ("usr/lib/apk/db/installed", |bytes| apk(&String::from_utf8_lossy(bytes))),
    ("usr/lib/sysimage/rpm/rpmdb.sqlite", rpm::sqlite),
    ("var/lib/rpm/rpmdb.sqlite", rpm::sqlite),
    ("usr/lib/sysimage/rpm/Packages.db", rpm::ndb),
    ("var/lib/rpm/Packages.db", rpm::ndb),
];

/// Packages by what is theirs alone.
type List = BTreeMap<(String, String, String), Package>;

/// What the layer at a place added or changed.
///
/// # Errors
/// When layers cannot be opened.
pub fn added(files: &Sources, layers: &[Digest], index: usize) -> Result<Vec<Package>, Error> {
    let Some(own) = layers.get(index..=index) else { return Ok(Vec::new()) };
    let own = files.layers(own)?;
    let mut found = List::new();
    let below = match layers.get(..index) {
        Some(below) if !below.is_empty() => Some(files.layers(below)?),
        _ => None,
    };
    for (path, parse) in LISTS {
        let Some(bytes) = bytes(&own, path) else { continue };
        let before = below.as_ref().and_then(|below| self::bytes(below, path)).map(|bytes| list(parse(&bytes)));
        for (key, mut package) in list(parse(&bytes)) {
            let old = before.as_ref().and_then(|before| before.get(&key));
            if old == Some(&package) {
                continue;
            }
            package.before = old.map(|old| old.version.clone());
            if package.kind == "deb" {
                package.hash = deb_hash(&own, &package);
            }
            found.insert(key, package);
        }
    }
    found.extend(list(walked(&own)));
    Ok(found.into_values().collect())
}

/// Everything that is there.
pub(crate) fn installed(tree: &dyn FileTree) -> Vec<Package> {
    let mut found = List::new();
    for (path, parse) in LISTS {
        for (key, mut package) in bytes(tree, path).map(|bytes| list(parse(&bytes))).unwrap_or_default() {
            if package.kind == "deb" {
                package.hash = deb_hash(tree, &package);
            }
            found.insert(key, package);
        }
    }
    found.extend(list(walked(tree)));
    found.into_values().collect()
}

/// The distribution, as `os-release` calls it.
pub(crate) fn distribution(tree: &dyn FileTree) -> Option<String> {
    let text = ["etc/os-release", "usr/lib/os-release"].iter().find_map(|path| read(tree, path))?;
    let id = text.lines().find_map(|line| line.strip_prefix("ID="))?.trim_matches(['"', '\'']);
    Some(one_line(id)).filter(|id| !id.is_empty() && id.len() < 100)
}

fn list(packages: Vec<Package>) -> List {
    let key = |one: &Package| (one.kind.clone(), one.name.clone(), one.architecture.clone());
    packages.into_iter().map(|one| (key(&one), one)).collect()
}

/// A file's content, if it is one and not too long.
fn bytes(tree: &dyn FileTree, path: &str) -> Option<Vec<u8>> {
    let file = Cursor::new(tree).ok()?.open(path.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_LIST + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= MAX_LIST).then_some(bytes)
}

/// A file's text.
fn read(tree: &dyn FileTree, path: &str) -> Option<String> {
    bytes(tree, path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn deb_hash(tree: &dyn FileTree, package: &Package) -> Option<String> {
    let names = [package.name.clone(), format!("{}:{}", package.name, package.architecture)];
    let sums = names.iter().filter(|name| !name.contains('/'));
    let text = sums.map(|name| format!("var/lib/dpkg/info/{name}.md5sums")).find_map(|path| read(tree, &path))?;
    Some(Digest::of(text.as_bytes()).to_string())
}

fn dpkg(text: &str) -> Vec<Package> {
    let paragraph = |text: &str| {
        let field = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| one_line(value.trim())))
        };
        let installed = field("Status")?.ends_with(" installed");
        let package = Package {
            kind: "deb".to_owned(),
            name: field("Package")?,
            version: field("Version")?,
            architecture: field("Architecture").unwrap_or_default(),
            ..Package::default()
        };
        installed.then_some(package)
    };
    text.split("\n\n").filter_map(paragraph).collect()
}

fn apk(text: &str) -> Vec<Package> {
    let paragraph = |text: &str| {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(one_line);
        Some(Package {
            kind: "apk".to_owned(),
            name: field("P:")?,
            version: field("V:")?,
            architecture: field("A:").unwrap_or_default(),
            hash: field("C:"),
            ..Package::default()
        })
    };
    text.split("\n\n").filter_map(paragraph).collect()
}

/// What is found by its names.
fn walked(tree: &dyn FileTree) -> Vec<Package> {
    let mut found = Vec::new();
    let Ok((root, _)) = tree.root() else { return found };
    let mut pending: Vec<(String, Handle)> = vec![(String::new(), root)];
    let mut seen = 0;
    while let Some((path, directory)) = pending.pop() {
        let Ok(names) = tree.list(&directory) else { continue };
        for (name, meta) in names {
            seen += 1;
            if seen > MAX_NAMES {
                return found;
            }
            let Ok(text) = std::str::from_utf8(&name) else { continue };
            let below = if path.is_empty() { text.to_owned() } else { format!("{path}/{text}") };
            match meta.kind {
                Kind::Directory if text.ends_with(".dist-info") => found.extend(pip(tree, &below)),
                Kind::Directory => {
                    if let Ok(directory) = tree.enter(&directory, &name) {
                        pending.push((below, directory));
                    }
                }
                Kind::File if text == ".package-lock.json" && path.ends_with("node_modules") => {
                    found.extend(read(tree, &below).map(|text| npm(&text)).unwrap_or_default());
                }
                _ => {}
            }
        }
    }
    found
}

fn pip(tree: &dyn FileTree, path: &str) -> Option<Package> {
    let text = read(tree, &format!("{path}/METADATA"))?;
    let head = text.split("\n\n").next().unwrap_or_default();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(|value| one_line(value.trim()));
    let hash = read(tree, &format!("{path}/RECORD")).map(|text| Digest::of(text.as_bytes()).to_string());
    let (name, version) = (field("Name:")?, field("Version:")?);
    Some(Package { kind: "pip".to_owned(), name, version, hash, ..Package::default() })
}

fn npm(text: &str) -> Vec<Package> {
    let document: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let Some(packages) = document["packages"].as_object() else { return Vec::new() };
    let package = |(path, value): (&String, &serde_json::Value)| {
        let (_, name) = path.rsplit_once("node_modules/")?;
        Some(Package {
            kind: "npm".to_owned(),
            name: one_line(name),
            version: one_line(value["version"].as_str()?),
            hash: value["integrity"].as_str().map(one_line),
            ..Package::default()
        })
    };
    packages.iter().filter_map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let status = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.2-3\nDescription: x\n \
                      Version: 9\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 1\n\nbroken\n";
        let found = dpkg(status);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.as_str(), found[0].version.as_str(), &*found[0].architecture),
            ("a", "1.2-3", "amd64")
        );
        let installed = "C:Q1abc=\nP:musl\nV:1.2.5-r0\nA:x86_64\nF:lib\n\nP:half\n\n";
        let found = apk(installed);
        assert_eq!((found.len(), found[0].hash.as_deref()), (1, Some("Q1abc=")));
        let lock = r#"{"packages": {"": {"version": "1"}, "node_modules/a/node_modules/@s/b":
                      {"version": "2.0.0", "integrity": "sha512-x"}, "node_modules/c": {}}}"#;
        let found = npm(lock);
        assert_eq!((found.len(), found[0].name.as_str(), found[0].hash.as_deref()), (1, "@s/b", Some("sha512-x")));
        assert!(npm("no JSON").is_empty());
    }
}
