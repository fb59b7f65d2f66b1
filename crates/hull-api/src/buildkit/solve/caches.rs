//! Shared caches that a client names: those of its own directories are layouts of this machine while a build runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hull_oci::Digest;

use super::super::content::Store;
use super::super::grpc::{Failure, code};
use super::super::pb;
use super::{Solve, options};
use crate::build::process::Command;

/// The type of the records of a build's cache.
const RECORDS: &str = "application/vnd.hull.buildcache.config.v1+json";

/// Where the manifest of a cache is in an answer: clients name it in their own index.
const MANIFEST: &str = "cache.manifest";

/// A cache that goes to a directory of the client.
pub(super) struct Outgoing {
    directory: String,
    layout: PathBuf,
    lenient: bool,
}

/// An entry as a word. What lets somebody use a service of others goes where only the process sees it, and the server's own
/// is nobody's.
fn word(command: &mut Command, kind: &str, mut attributes: BTreeMap<String, String>) -> String {
    if kind == "gha" {
        for (key, variable) in [("token", "ACTIONS_RUNTIME_TOKEN"), ("url_v2", "ACTIONS_RESULTS_URL")] {
            let value = attributes.remove(key).unwrap_or_default();
            command.variables.push((variable.to_owned(), value.into()));
        }
    }
    options::fields(kind, &attributes)
}

impl Solve<'_> {
    /// Words for what the client wants to be taken from caches and put into them.
    pub(super) async fn caches(
        &self,
        imports: &[pb::CacheOptionsEntry],
        command: &mut Command,
    ) -> Result<Vec<Outgoing>, Failure> {
        let cache = self.request.cache.clone().unwrap_or_default();
        let listed = self.option("cache-imports").map(serde_json::from_str::<Vec<Listed>>).transpose();
        let listed = listed.map_err(|error| {
            let reason = hull_oci::spec::one_line(&error.to_string());
            Failure::new(code::INVALID_ARGUMENT, format!("cache-imports: {reason}"))
        })?;
        let all = cache.imports.iter().chain(imports).map(|one| (one.kind.clone(), one.attrs.clone()));
        let listed = listed.into_iter().flatten().map(|one| (one.kind, one.attrs.unwrap_or_default()));
        let mut seen = Vec::new();
        for entry in all.chain(listed) {
            if seen.contains(&entry) {
                continue;
            }
            seen.push(entry.clone());
            let (kind, attributes) = entry;
            let attributes = match kind.as_str() {
                "local" => self.import(seen.len(), &attributes).await?,
                _ => Some(attributes),
            };
            if let Some(attributes) = attributes {
                let word = word(command, &kind, attributes);
                command.flag("cache-from", word);
            }
        }
        let mut outgoing = Vec::new();
        for (number, one) in cache.exports.iter().enumerate() {
            let mut attributes = one.attrs.clone();
            if one.kind == "local" {
                let directory = attributes.remove("dest").unwrap_or_default();
                let layout = self.work.file(&format!("cache-to-{number}"));
                attributes.insert("dest".to_owned(), layout.display().to_string());
                attributes.remove("tag");
                let lenient =
                    attributes.get("ignore-error").is_some_and(|value| matches!(value.as_str(), "true" | "1"));
                outgoing.push(Outgoing { directory, layout, lenient });
            }
            let word = word(command, &one.kind, attributes);
            command.flag("cache-to", word);
        }
        Ok(outgoing)
    }

    /// A cache of the client's as a layout; `None` if it cannot be had: then the steps are done.
    async fn import(
        &self,
        number: usize,
        attributes: &BTreeMap<String, String>,
    ) -> Result<Option<BTreeMap<String, String>>, Failure> {
        let digest = attributes.get("digest").and_then(|digest| digest.parse::<Digest>().ok());
        let (Some(source), Some(digest)) = (attributes.get("src"), digest) else { return Ok(None) };
        let layout = self.work.directory(&format!("cache-from-{number}"))?;
        let transfer = self.api.engine.images.begin().map_err(|error| Failure::unknown(error.to_string()))?;
        let wanted = |layer: &Digest| !transfer.has_layer(layer).unwrap_or(false);
        let step = super::Step::begin(self.build, "importing cache manifest from client directory");
        let store = Store::local(self.session, source);
        let result = store.receive(&digest, &layout, RECORDS, &wanted).await;
        step.end(result.as_ref().map(|()| 0));
        let text = layout.display().to_string();
        Ok(result
            .is_ok()
            .then(|| BTreeMap::from([("src".to_owned(), text), ("digest".to_owned(), digest.to_string())])))
    }

    /// Sends what the build has written for directories of the client. What is answered is where clients look for it.
    pub(super) async fn send_caches(&self, caches: &[Outgoing]) -> Result<BTreeMap<String, String>, Failure> {
        let mut made = BTreeMap::new();
        for cache in caches {
            let step = super::Step::begin(self.build, "sending cache to client directory");
            let result = match cache.layout.exists() {
                true => Store::local(self.session, &cache.directory).send(&cache.layout).await,
                false => Err(Failure::unknown("the build has written no cache")),
            };
            step.end(result.as_ref().map(|_| 0));
            match result {
                Ok(manifest) => {
                    made.insert(MANIFEST.to_owned(), manifest.to_string());
                }
                Err(_) if cache.lenient => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(made)
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(rename = "Type")]
    kind: String,
    attrs: Option<BTreeMap<String, String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_somebody_in_is_in_no_word() {
        let mut command = Command::default();
        let attributes = [("token", "secret"), ("url_v2", "https://x"), ("scope", "main")];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
        assert_eq!(word(&mut command, "gha", attributes), "type=gha,scope=main");
        let variables = [("ACTIONS_RUNTIME_TOKEN", "secret"), ("ACTIONS_RESULTS_URL", "https://x")];
        assert_eq!(command.variables, variables.map(|(name, value)| (name.to_owned(), value.into())));
        // The server's own are nobody's.
        let mut command = Command::default();
        word(&mut command, "gha", BTreeMap::new());
        assert_eq!(command.variables[0], ("ACTIONS_RUNTIME_TOKEN".to_owned(), "".into()));
    }
}
