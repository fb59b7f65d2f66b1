//! `hull.lock`: what a build was made of, in a file beside its Dockerfile.
//!
//! ```text
//! { "version": 1, "dockerfile": DIGEST, "target": STAGE, "date": SECONDS, "source_date_epoch": SECONDS,
//!   "arguments": { NAME: DIGEST of the value },
//!   "images": [...], "downloads": [...], "repositories": [...], "contexts": [...],       see `inputs`
//!   "steps": [ { "step", "packages": [...], "normalised": [...] } ], "results": { PLATFORM: ID } }
//! ```
//!
//! It is JSON with an entry on each line, sorted, and without times, so that what changes in it is what changed. It is
//! never part of the context that it locks. Values of arguments may be secret: only their digests are in it.

use std::collections::BTreeMap;
use std::path::Path;

use hull_engine::normalise::Normalised;
use hull_oci::Digest;
use hull_oci::spec::one_line;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::inputs::{Image, Inputs};
use super::packages::Package;
use crate::Error;
use crate::plan::is_proxy;
use crate::request::BuildRequest;

/// A larger file is none of ours.
const MAX: u64 = 64 << 20;

/// Version of the format.
const VERSION: u32 = 1;

/// So many differences are named.
const SHOWN: usize = 8;

/// What a build was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Of the format.
    pub version: u32,
    /// Of the Dockerfile's text.
    pub dockerfile: String,
    /// The stage that was asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Date of the images: seconds since 1970.
    pub date: i64,
    /// The date that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_date_epoch: Option<i64>,
    /// Digests of arguments' values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, String>,
    /// What came from outside.
    #[serde(flatten)]
    pub inputs: Inputs,
    /// What steps added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// IDs of the images by platform.
    #[serde(default)]
    pub results: BTreeMap<String, String>,
}

/// What a step added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its lines of the Dockerfile.
    pub step: String,
    /// For what, where that is not plain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Packages that it added or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Package>,
    /// What of its layer was normalised.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub normalised: Vec<Normalised>,
}

/// What is refused.
pub(crate) fn refused(differences: &[String]) -> Error {
    let more = differences.len().saturating_sub(SHOWN);
    let mut shown = differences.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if more > 0 {
        shown = format!("{shown}; and {more} more");
    }
    Error::Request(format!("--locked: {shown}: build with --lock to accept that"))
}

/// Which files differ between what a lock has and what there is: of a context, what was taken, and its digest before.
pub(crate) type ChangedFiles<'a> = dyn Fn(&str, &str, &str) -> Option<Vec<String>> + 'a;

impl Lock {
    /// Reads a lock; `None` if there is none.
    ///
    /// # Errors
    /// When it cannot be read or is none.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        use std::io::Read as _;
        // It may be in somebody else's directory: no link is followed, and nothing but a file is waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Error::io("open", path)(errno)),
        };
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(Error::Request(format!("{}: it is no file", path.display())));
        }
        let mut text = Vec::new();
        file.take(MAX).read_to_end(&mut text).map_err(Error::io("read", path))?;
        let wrong = |reason: &dyn std::fmt::Display| {
            Error::Request(format!("{}: {reason}: remove it, or write it again with --lock", path.display()))
        };
        let lock: Self = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
        match lock.version {
            VERSION => Ok(Some(lock)),
            other => Err(wrong(&format_args!("version {other} is not known"))),
        }
    }

    /// The lock of a build that was done.
    pub(crate) fn new(request: &BuildRequest, dockerfile: &[u8], date: i64, inputs: Inputs) -> Self {
        Self {
            version: VERSION,
            dockerfile: Digest::of(dockerfile).to_string(),
            target: request.target.clone().unwrap_or_default(),
            date,
            source_date_epoch: request.source_date_epoch,
            arguments: arguments(request),
            inputs,
            steps: Vec::new(),
            results: BTreeMap::new(),
        }
    }

    /// Writes it, if it is not what is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |error: serde_json::Error| Error::Request(format!("write {}: {error}", path.display()));
        let mut text = serde_json::to_string_pretty(self).map_err(failed)?;
        text.push('\n');
        if std::fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
            return Ok(());
        }
        Ok(hull_fs::atomic::write_path(path, text.as_bytes(), 0o644)?)
    }

    /// What is asked for, with the date that it has.
    pub(crate) fn apply(&self, request: &BuildRequest) -> BuildRequest {
        let mut request = request.clone();
        if let (None, Some(date)) = (request.source_date_epoch, self.source_date_epoch) {
            request.source_date_epoch = Some(date);
            request.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), date.to_string());
        }
        request
    }

    /// What it has of an image.
    pub(crate) fn image(&self, reference: &str, platform: &str) -> Option<&Image> {
        self.inputs.images.iter().find(|one| one.reference == reference && one.platform == platform)
    }

    /// What is not as it says, before anything is looked up.
    pub(crate) fn stale(&self, request: &BuildRequest, dockerfile: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        if self.dockerfile != Digest::of(dockerfile).to_string() {
            lines.push("the Dockerfile changed".to_owned());
        }
        if self.target != request.target.as_deref().unwrap_or_default() {
            lines.push(format!("it is of the target {:?}", self.target));
        }
        if self.source_date_epoch != request.source_date_epoch {
            lines.push("SOURCE_DATE_EPOCH changed".to_owned());
        }
        compare(&mut lines, "argument", &self.arguments, &arguments(request), |_| None);
        lines
    }

    /// What of a build's inputs is not as it says.
    pub(crate) fn differences(&self, now: &Inputs, files: &ChangedFiles<'_>) -> Vec<String> {
        let mut lines = Vec::new();
        // Only what is built is asked for: the lock may be for more platforms.
        let platforms: Vec<&str> = now.images.iter().map(|image| image.platform.as_str()).collect();
        let images = |all: &[Image]| -> BTreeMap<String, String> {
            let of_it = all.iter().filter(|image| platforms.contains(&image.platform.as_str()));
            of_it.map(|image| (format!("{} ({})", image.reference, image.platform), image.id.clone())).collect()
        };
        compare(&mut lines, "image", &images(&self.inputs.images), &images(&now.images), |_| None);
        let downloads = |inputs: &Inputs| -> BTreeMap<String, String> {
            inputs.downloads.iter().map(|one| (one.url.clone(), one.digest.clone())).collect()
        };
        compare(&mut lines, "download", &downloads(&self.inputs), &downloads(now), |_| None);
        let repositories = |inputs: &Inputs| -> BTreeMap<String, String> {
            let name = |one: &super::inputs::Repository| format!("{}#{}", one.url, one.reference);
            inputs.repositories.iter().map(|one| (name(one), one.commit.clone())).collect()
        };
        compare(&mut lines, "repository", &repositories(&self.inputs), &repositories(now), |_| None);
        let contexts: std::collections::BTreeSet<&str> =
            self.inputs.contexts.iter().chain(&now.contexts).map(|one| one.name.as_str()).collect();
        for name in contexts {
            let of = |inputs: &Inputs| {
                inputs.contexts.iter().find(|one| one.name == name).map(|one| one.files.clone()).unwrap_or_default()
            };
            let (before, after) = (of(&self.inputs), of(now));
            let what = if name == "context" { "files".to_owned() } else { format!("files of {name}") };
            compare(&mut lines, &what, &before, &after, |taken| {
                files(name, taken, before.get(taken)?).filter(|files| !files.is_empty())
            });
        }
        lines
    }
}

/// Digests of the arguments' values. Proxies are the machine's.
fn arguments(request: &BuildRequest) -> BTreeMap<String, String> {
    let all = request.build_args.iter().filter(|(name, _)| !is_proxy(name) && *name != "SOURCE_DATE_EPOCH");
    all.map(|(name, value)| (name.clone(), Digest::of(value.as_bytes()).to_string())).collect()
}

/// Names what differs; `details` of it in place of that it does.
fn compare(
    lines: &mut Vec<String>,
    what: &str,
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
    details: impl Fn(&str) -> Option<Vec<String>>,
) {
    for (name, value) in now {
        let shown = one_line(name);
        match before.get(name) {
            None => lines.push(format!("{what} {shown} is not in it")),
            Some(old) if old != value => match details(name) {
                Some(details) => lines.extend(details),
                None => lines.push(format!("{what} {shown} changed from {} to {}", short(old), short(value))),
            },
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    lines.extend(gone.map(|name| format!("{what} {} is not used any more", one_line(name))));
}

fn short(digest: &str) -> String {
    let (algorithm, hex) = digest.split_once(':').unwrap_or(("", digest));
    let hex: String = hex.chars().take(12).collect();
    if algorithm.is_empty() { hex } else { format!("{algorithm}:{hex}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::inputs::{Context, Download};

    fn request(args: &[(&str, &str)]) -> BuildRequest {
        let build_args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        BuildRequest { build_args, ..BuildRequest::default() }
    }

    fn inputs(file: &str, id: &str) -> Inputs {
        let files = BTreeMap::from([(".".to_owned(), file.to_owned())]);
        Inputs {
            images: vec![Image {
                reference: "base".into(),
                platform: "linux/amd64".into(),
                digest: None,
                id: id.into(),
            }],
            downloads: vec![Download { url: "https://example.org/x".into(), digest: "sha256:d".into() }],
            repositories: Vec::new(),
            contexts: vec![Context { name: "context".into(), digest: "sha256:t".into(), files, ..Context::default() }],
        }
    }

    #[test]
    fn it_says_what_differs() {
        let of = request(&[("A", "secret"), ("http_proxy", "here")]);
        let lock = Lock::new(&of, b"FROM base", 7, inputs("sha256:f", "sha256:i"));
        assert!(lock.stale(&of, b"FROM base").is_empty());
        assert!(lock.stale(&request(&[("A", "secret"), ("http_proxy", "there")]), b"FROM base").is_empty());
        let none = |_: &str, _: &str, _: &str| None;
        assert!(lock.differences(&inputs("sha256:f", "sha256:i"), &none).is_empty());
        assert_eq!(
            lock.stale(&request(&[("B", "1")]), b"FROM other"),
            ["the Dockerfile changed", "argument B is not in it", "argument A is not used any more"]
        );
        assert_eq!(
            lock.differences(&inputs("sha256:g", "sha256:j"), &none),
            ["image base (linux/amd64) changed from sha256:i to sha256:j", "files . changed from sha256:f to sha256:g"]
        );
        let known = |context: &str, taken: &str, _: &str| Some(vec![format!("{context} {taken}: file f changed")]);
        let told = lock.differences(&inputs("sha256:g", "sha256:i"), &known);
        assert_eq!(told, ["context .: file f changed"]);
        let mut now = inputs("sha256:f", "sha256:i");
        now.downloads.clear();
        let told = lock.differences(&now, &none);
        assert_eq!(told, ["download https://example.org/x is not used any more"]);
    }

    #[test]
    fn it_comes_back_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hull.lock");
        assert_eq!(Lock::read(&path).unwrap(), None);
        let mut lock = Lock::new(&request(&[("A", "secret")]), b"FROM base", 7, inputs("sha256:f", "sha256:i"));
        lock.results.insert("linux/amd64".into(), "sha256:r".into());
        lock.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(Lock::read(&path).unwrap(), Some(lock));
        std::fs::write(&path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
        assert!(Lock::read(&path).unwrap_err().to_string().contains("version 2 is not known"));
        std::fs::write(&path, "{").unwrap();
        assert!(Lock::read(&path).is_err());
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Lock::read(&link).is_err());
        assert!(Lock::read(directory.path()).unwrap_err().to_string().contains("it is no file"));
    }
}
