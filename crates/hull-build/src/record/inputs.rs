//! What comes into a build from outside.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use hull_oci::Digest;
use hull_oci::digest::{Algorithm, Hasher};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::files::{Opened, tree::FileTree as _};
use crate::graph::Op;
use crate::solve::{Known, Tree};

/// Everything that came into a build, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inputs {
    /// Images that were built on or copied from.
    pub images: Vec<Image>,
    /// Files by HTTP(S).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub downloads: Vec<Download>,
    /// Git repositories.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Repository>,
    /// Directories and archives of this machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contexts: Vec<Context>,
}

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Image {
    /// As it is written.
    pub reference: String,
    /// For what.
    pub platform: String,
    /// Of its manifest or index in the registry, if it is from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Of its configuration, which names its layers.
    pub id: String,
}

/// A file by HTTP(S).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Download {
    /// Where it was.
    pub url: String,
    /// Of its content.
    pub digest: String,
}

/// A Git repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Repository {
    /// Where it was.
    pub url: String,
    /// Branch, tag or commit that was asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// What that was.
    pub commit: String,
}

/// A directory or an archive of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Context {
    /// `context`, or the name of a named one.
    pub name: String,
    /// Of all that was taken of it.
    pub digest: String,
    /// The commit that it is the work tree of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// It is not what was committed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dirty: bool,
    /// What was taken of it, with digests of names, modes and contents.
    pub files: BTreeMap<String, String>,
}

impl Inputs {
    /// From what a solver knows.
    pub(crate) fn collect(known: &Known<'_>) -> Result<Self, Error> {
        let mut inputs = Self::default();
        for id in known.needed {
            let Some(node) = known.graph.node(*id) else { continue };
            match &node.op {
                Op::Image(image) => inputs.images.push(Image {
                    reference: image.reference.clone(),
                    platform: node.platform.clone(),
                    digest: image.digest.clone(),
                    id: image.id.to_string(),
                }),
                Op::Http(http) => {
                    if let Some(digest) = known.sources.get(id).map(downloaded).transpose()?.flatten() {
                        inputs.downloads.push(Download { url: plain(&http.url), digest: digest.to_string() });
                    }
                }
                Op::Git(git) => {
                    if let Some(commit) = known.sources.get(id).and_then(commit_of) {
                        let (url, reference) = (plain(&git.url), git.reference.clone());
                        inputs.repositories.push(Repository { url, reference, commit });
                    }
                }
                _ => {}
            }
        }
        let mut contexts: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
        for taken in known.taken {
            if let Some(name) = taken.context(known.graph) {
                contexts.entry(name).or_default().insert(taken.what(), taken.digest.to_string());
            }
        }
        for (name, files) in contexts {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            for (what, digest) in &files {
                hasher.update(format!("{} {what}{digest}\n", what.len()).as_bytes());
            }
            let digest = hasher.finish().to_string();
            inputs.contexts.push(Context { name: name.to_owned(), digest, files, ..Context::default() });
        }
        inputs.images.sort();
        inputs.images.dedup();
        inputs.downloads.sort();
        inputs.downloads.dedup();
        inputs.repositories.sort();
        inputs.repositories.dedup();
        Ok(inputs)
    }
}

/// An address without the name and the password in it.
fn plain(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let host = rest.get(..end).unwrap_or_default();
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            format!("{scheme}://{host}{}", rest.get(end..).unwrap_or_default())
        }
        None => url.to_owned(),
    }
}

fn opened(tree: &Tree) -> Option<Arc<Opened>> {
    match tree {
        Tree::Source(source) => Arc::downcast::<Opened>(Arc::clone(source)).ok(),
        Tree::Layers(_) => None,
    }
}

fn commit_of(tree: &Tree) -> Option<String> {
    match &*opened(tree)? {
        Opened::Repository(repository) => Some(repository.checkout().commit.clone()),
        _ => None,
    }
}

/// The digest of a download.
fn downloaded(tree: &Tree) -> Result<Option<Digest>, Error> {
    let Some(opened) = opened(tree) else { return Ok(None) };
    let Opened::File(file) = &*opened else { return Ok(None) };
    let (directory, _) = file.root().map_err(Error::io("open", &file.name))?;
    let mut content = file.open(&directory, file.name.as_bytes()).map_err(Error::io("open", &file.name))?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match content.read(&mut buffer).map_err(Error::io("read", &file.name))? {
            0 => return Ok(Some(hasher.finish())),
            count => hasher.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// What a work tree is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Seconds since 1970.
    pub(crate) date: i64,
    pub(crate) commit: String,
}

/// `git` in a directory: whatever the repository's configuration says, nothing is run and nothing fetched; a repository of
/// somebody else is none, as `git` has it.
fn git(directory: &Path, words: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(directory).args(["-c", "log.showSignature=false", "-c", "core.fsmonitor=false"]);
    git.args(words).env_clear();
    for name in ["PATH", "HOME"] {
        git.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    git.env("GIT_NO_LAZY_FETCH", "1").env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C");
    let output =
        git.stdin(Stdio::null()).stderr(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// The commit that a directory is the work tree of.
pub(crate) fn head(directory: &Path) -> Option<Head> {
    let text = git(directory, &["log", "-1", "--no-show-signature", "--format=%ct %H"])?;
    let (date, commit) = text.trim().split_once(' ')?;
    let date = date.parse().ok().filter(|seconds: &i64| *seconds > 0)?;
    Some(Head { date, commit: commit.to_owned() })
}

/// Whether a work tree differs from its commit, `lock` aside.
pub(crate) fn is_dirty(directory: &Path, lock: Option<&Path>) -> bool {
    let own = lock.and_then(Path::file_name).map(|name| format!(" {}", name.to_string_lossy()));
    let status = git(directory, &["status", "--porcelain", "--", "."]).unwrap_or_default();
    status.lines().any(|line| own.as_ref().is_none_or(|own| !line.ends_with(own.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_no_passwords() {
        for (url, expected) in [
            ("https://me:secret@example.org/x@y", "https://example.org/x@y"),
            ("https://example.org", "https://example.org"),
            ("git@example.org:x.git", "git@example.org:x.git"),
        ] {
            assert_eq!(plain(url), expected);
        }
    }
}
