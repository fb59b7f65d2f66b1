//! Provenance: how an image was built, as SLSA 1.0 has it.
//!
//! The store keeps the predicate with the image (table `provenance`), and it goes along when the image is pushed, as an
//! in-toto statement about the manifest that refers to it. What is in which mode is as with BuildKit: `min` has neither
//! values of arguments nor names of secrets nor the Dockerfile, `max` has all of these but no secret's value.

use std::time::SystemTime;

use hull_image::provenance::package_url;
use hull_oci::image::Platform;
use hull_oci::time::rfc3339_whole;
use serde_json::{Map, Value, json};

use super::Inputs;
use super::lock::Step;
use crate::request::{BuildRequest, Provenance};

/// What a build is: how its parameters are to be read.
const BUILD_TYPE: &str = "urn:hull:build:dockerfile:v1";

/// Who built.
const BUILDER: &str = "urn:hull:builder";

/// What is told of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) request: &'a BuildRequest,
    /// What messages call the Dockerfile, and its text.
    pub(crate) dockerfile: (&'a str, &'a [u8]),
    pub(crate) inputs: &'a Inputs,
    pub(crate) steps: &'a [Step],
    pub(crate) started: SystemTime,
}

/// `{"sha256": HEX}`.
fn digest(text: &str) -> Value {
    let (algorithm, hex) = text.split_once(':').unwrap_or(("sha256", text));
    let mut map = Map::new();
    map.insert(algorithm.to_owned(), json!(hex));
    Value::Object(map)
}

fn dependencies(inputs: &Inputs) -> Vec<Value> {
    let images = inputs.images.iter().map(|one| {
        let of = one.digest.as_ref().map_or_else(|| one.id.clone(), ToString::to_string);
        json!({"uri": package_url(&one.reference, &one.platform), "digest": digest(&of)})
    });
    let downloads = inputs.downloads.iter().map(|one| json!({"uri": one.url, "digest": digest(&one.digest)}));
    let repositories = inputs.repositories.iter().map(|one| {
        let reference = if one.reference.is_empty() { String::new() } else { format!("#{}", one.reference) };
        let name = if one.commit.len() == 64 { "sha256" } else { "sha1" };
        json!({"uri": format!("{}{reference}", one.url), "digest": {name: one.commit}})
    });
    images.chain(downloads).chain(repositories).collect()
}

/// The predicate of an image.
pub(crate) fn predicate(subject: Subject<'_>, mode: Provenance, platform: &Platform) -> Value {
    let Subject { request, dockerfile: (name, text), inputs, steps, started } = subject;
    let mut args = Map::new();
    if let Some(target) = &request.target {
        args.insert("target".to_owned(), json!(target));
    }
    if mode == Provenance::Max {
        args.extend(request.build_args.iter().map(|(name, value)| (format!("build-arg:{name}"), json!(value))));
        args.extend(request.labels.iter().map(|(name, value)| (format!("label:{name}"), json!(value))));
    }
    let locals: Vec<Value> = inputs
        .contexts
        .iter()
        .map(|one| match &one.commit {
            Some(commit) => {
                json!({"name": one.name, "digest": digest(&one.digest), "commit": commit, "dirty": one.dirty})
            }
            None => json!({"name": one.name, "digest": digest(&one.digest)}),
        })
        .collect();
    let mut asked = json!({"frontend": "dockerfile.v0", "args": args, "locals": locals});
    if mode == Provenance::Max {
        asked["secrets"] = request.secrets.keys().map(|id| json!({"id": id})).collect();
        asked["ssh"] = request.ssh.keys().map(|id| json!({"id": id})).collect();
    }
    let hash = hull_oci::Digest::of(text).to_string();
    let mut source = json!({"path": name, "digest": digest(&hash)});
    if let crate::request::Context::Git(repository) = &request.context {
        source["uri"] =
            json!(inputs.repositories.iter().find(|one| repository.url.ends_with(&one.url)).map(|one| &one.url));
    }
    let changed: Vec<&Step> = steps.iter().filter(|step| !step.normalised.is_empty()).collect();
    let mut metadata = json!({
        "startedOn": rfc3339_whole(started),
        "finishedOn": rfc3339_whole(SystemTime::now()),
        "hull_normalised": changed.iter().map(|step| json!({"step": step.step, "files": step.normalised})).collect::<Vec<_>>(),
    });
    if mode == Provenance::Max {
        metadata["hull_dockerfile"] = json!(String::from_utf8_lossy(text));
        metadata["hull_steps"] = json!(steps);
    }
    json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"configSource": source, "request": asked},
            "internalParameters": {"builderPlatform": Platform::native().to_string(), "platform": platform.to_string()},
            "resolvedDependencies": dependencies(inputs),
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": {"hull": env!("CARGO_PKG_VERSION")}},
            "metadata": metadata,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::record::inputs::{Download, Image, Repository};

    #[test]
    fn secrets_and_arguments_are_only_told_when_asked() {
        let request = BuildRequest {
            build_args: BTreeMap::from([("TOKEN".to_owned(), "hidden".to_owned())]),
            secrets: BTreeMap::from([("key".to_owned(), crate::request::Secret::Variable("V".to_owned()))]),
            ..BuildRequest::default()
        };
        let id = "sha256:aa".to_owned();
        let inputs = Inputs {
            images: vec![Image { reference: "base".into(), platform: "linux/amd64".into(), digest: None, id }],
            downloads: vec![Download { url: "https://example.org/x".into(), digest: "sha256:bb".into() }],
            repositories: vec![Repository {
                url: "https://example.org/r".into(),
                reference: "main".into(),
                commit: "cc".into(),
            }],
            contexts: Vec::new(),
        };
        let subject = Subject {
            request: &request,
            dockerfile: ("Dockerfile", b"FROM base"),
            inputs: &inputs,
            steps: &[],
            started: UNIX_EPOCH,
        };
        let platform = Platform::native();
        let min = predicate(subject, Provenance::Min, &platform).to_string();
        assert!(!min.contains("hidden") && !min.contains("FROM base") && !min.contains("\"key\""), "{min}");
        let max = predicate(subject, Provenance::Max, &platform);
        assert_eq!(max["buildDefinition"]["externalParameters"]["request"]["args"]["build-arg:TOKEN"], "hidden");
        assert_eq!(max["runDetails"]["metadata"]["startedOn"], "1970-01-01T00:00:00Z");
        let dependencies = &max["buildDefinition"]["resolvedDependencies"];
        assert_eq!(dependencies[1], json!({"uri": "https://example.org/x", "digest": {"sha256": "bb"}}));
        assert_eq!(dependencies[2], json!({"uri": "https://example.org/r#main", "digest": {"sha1": "cc"}}));
    }
}
