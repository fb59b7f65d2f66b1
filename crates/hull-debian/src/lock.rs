//! The lock file: everything that an image was made of, so that it can be made again.
//!
//! JSON, its fields and packages always in the same order. The image holds the same file without what says how it came
//! about (`releases`) and what came out (`image`): these would make the same packages give another image.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::choose::check_uri;
use crate::error::{Error, one_line};
use crate::index::{check_path, is_name};
use crate::release::is_sha256;
use crate::version;

/// Version of the format.
pub const VERSION: u32 = 1;

/// Bytes of a lock file.
const MAX_BYTES: usize = 64 << 20;

/// A lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Version of the format.
    pub version: u32,
    /// Such as `debian:bookworm`.
    pub distribution: String,
    /// Architecture in Debian's words.
    pub architecture: String,
    /// Seconds since 1970: no file of the image is newer.
    pub epoch: u64,
    /// Archives, as the image's apt is configured to.
    pub sources: Vec<LockedSource>,
    /// The signed lists that the packages were chosen from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<LockedRelease>,
    /// By name.
    pub packages: Vec<LockedPackage>,
    /// What came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<LockedImage>,
}

/// An archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedSource {
    /// Its root.
    pub uri: String,
    /// Such as `bookworm-updates`.
    pub suite: String,
    /// Such as `main`.
    pub components: Vec<String>,
}

/// A signed list of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedRelease {
    /// Such as `bookworm-updates`.
    pub suite: String,
    /// As the file has it.
    pub date: String,
    /// Of the signed text.
    pub sha256: String,
}

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture, or `all`.
    pub architecture: String,
    /// Of the file.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Index of the archive.
    pub source: usize,
    /// Path below the archive's root.
    pub path: String,
    /// Whether its files are extracted before anything runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub base: bool,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedImage {
    /// Digest of the uncompressed layer.
    pub layer: String,
}

impl Lock {
    /// The file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        // Texts, numbers and lists cannot fail to be written.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The text that the image holds.
    #[must_use]
    pub fn embedded(&self) -> String {
        Self { releases: Vec::new(), image: None, ..self.clone() }.to_text()
    }

    /// Reads a lock file. Everything that becomes part of a path or address is checked. `object` is for errors.
    ///
    /// # Errors
    /// [`Error::Format`].
    pub fn parse(text: &str, object: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::format(format!("lock file {object}"), reason);
        if text.len() > MAX_BYTES {
            return Err(wrong(format!("it is longer than {MAX_BYTES} bytes")));
        }
        let lock: Self = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if lock.version != VERSION {
            return Err(wrong(format!("its version is {}, this Hull reads {VERSION}", lock.version)));
        }
        crate::choose::Target::parse(&lock.distribution).map_err(|error| wrong(error.to_string()))?;
        if !is_name(&lock.architecture) {
            return Err(wrong(format!("{:?} is no architecture", lock.architecture)));
        }
        for source in &lock.sources {
            check_uri(&source.uri, "source").map_err(|error| wrong(error.to_string()))?;
            let words = source.components.iter().chain([&source.suite]);
            let plain = |one: char| one.is_ascii_alphanumeric() || "._-/+".contains(one);
            if let Some(bad) = words.into_iter().find(|word| word.is_empty() || !word.chars().all(plain)) {
                return Err(wrong(format!("{:?} is no suite or component", one_line(bad))));
            }
        }
        let mut names = BTreeSet::new();
        for package in &lock.packages {
            let wrong = |reason: &str| wrong(format!("package {:?}: {reason}", one_line(&package.name)));
            if !is_name(&package.name) || !version::is_valid(&package.version) {
                return Err(wrong("its name or version cannot be one"));
            }
            if package.architecture != lock.architecture && package.architecture != "all" {
                return Err(wrong("it is of another architecture"));
            }
            if !is_sha256(&package.sha256) {
                return Err(wrong("its sha256 is no SHA-256 digest"));
            }
            if package.source >= lock.sources.len() {
                return Err(wrong("its source is not in the list of sources"));
            }
            check_path(&package.path).map_err(|reason| wrong(&reason))?;
            if !names.insert(&package.name) {
                return Err(wrong("it is there twice"));
            }
        }
        if lock.packages.is_empty() {
            return Err(wrong("it has no packages".to_owned()));
        }
        Ok(lock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        Lock {
            version: VERSION,
            distribution: "debian:bookworm".to_owned(),
            architecture: "amd64".to_owned(),
            epoch: 1,
            sources: vec![LockedSource {
                uri: "http://m/debian".to_owned(),
                suite: "bookworm".to_owned(),
                components: vec!["main".to_owned()],
            }],
            releases: vec![LockedRelease {
                suite: "bookworm".to_owned(),
                date: "then".to_owned(),
                sha256: "0".repeat(64),
            }],
            packages: vec![LockedPackage {
                name: "bash".to_owned(),
                version: "5.2-1".to_owned(),
                architecture: "amd64".to_owned(),
                sha256: "0".repeat(64),
                size: 7,
                source: 0,
                path: "pool/bash.deb".to_owned(),
                base: true,
            }],
            image: Some(LockedImage { layer: "sha256:0".to_owned() }),
        }
    }

    #[test]
    fn there_and_back() {
        let text = lock().to_text();
        assert_eq!(Lock::parse(&text, "x").expect("parse"), lock());
        let embedded = lock().embedded();
        assert!(!embedded.contains("releases") && !embedded.contains("layer"), "{embedded}");
        assert!(Lock::parse(&embedded, "x").is_ok());
    }

    #[test]
    fn hostile_files_are_refused() {
        type Change = fn(&mut Lock);
        let changes: [(&str, Change); 10] = [
            ("version is 9", |one| one.version = 9),
            ("no packages", |one| one.packages.clear()),
            ("leads out", |one| one.packages[0].path = "../../x".to_owned()),
            ("name or version", |one| one.packages[0].name = "../x".to_owned()),
            ("SHA-256", |one| one.packages[0].sha256 = "../x".to_owned()),
            ("list of sources", |one| one.packages[0].source = 1),
            ("another architecture", |one| one.packages[0].architecture = "arm64".to_owned()),
            ("there twice", |one| one.packages.push(one.packages[0].clone())),
            ("http://", |one| one.sources[0].uri = "gopher://x".to_owned()),
            ("no suite", |one| one.sources[0].suite = "a b\nc".to_owned()),
        ];
        for (said, change) in changes {
            let mut changed = lock();
            change(&mut changed);
            let error = Lock::parse(&changed.to_text(), "file").expect_err(said).to_string();
            assert!(error.contains(said) && !error.contains('\n'), "{said}: {error}");
        }
        for text in ["", "{}", "[]", "{\"version\":1,\"extra\":2}"] {
            assert!(Lock::parse(text, "file").is_err(), "{text}");
        }
    }
}
