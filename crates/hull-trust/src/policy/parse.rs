//! Strict reading of `policy.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::{Identity, KeySource, Requirement};

/// The requirements of the default and of each scope of the transport `docker`.
type Rules = (Vec<Requirement>, BTreeMap<String, Vec<Requirement>>);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Option<Vec<RawRequirement>>,
    #[serde(default)]
    transports: Unique<Unique<Vec<RawRequirement>>>,
}

/// Every field of every kind; which of them a kind has is checked afterwards, so that messages can say it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawRequirement {
    r#type: String,
    key_type: Option<String>,
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    fulcio: Option<serde::de::IgnoredAny>,
    pki: Option<serde::de::IgnoredAny>,
    rekor_public_key_path: Option<serde::de::IgnoredAny>,
    rekor_public_key_paths: Option<serde::de::IgnoredAny>,
    rekor_public_key_data: Option<serde::de::IgnoredAny>,
    rekor_public_key_datas: Option<serde::de::IgnoredAny>,
    signed_identity: Option<RawIdentity>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawIdentity {
    r#type: String,
    docker_reference: Option<String>,
    docker_repository: Option<String>,
    prefix: Option<String>,
    signed_prefix: Option<String>,
}

/// A map whose keys are there once.
struct Unique<T>(BTreeMap<String, T>);

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Unique<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Unique<T>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, value)) = access.next_entry::<String, T>()? {
                    if map.contains_key(&key) {
                        return Err(A::Error::custom(format!("duplicate field `{key}`")));
                    }
                    map.insert(key, value);
                }
                Ok(Unique(map))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

pub(super) fn policy(bytes: &[u8]) -> Result<Rules, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let default = requirements("default", file.default.ok_or("it has no `default`")?)?;
    let mut docker = BTreeMap::new();
    for (transport, scopes) in file.transports.0 {
        for (scope, list) in scopes.0 {
            let list = requirements(&format!("transports.{transport}[{scope:?}]"), list)?;
            if transport == "docker" {
                docker.insert(scope, list);
            }
        }
    }
    Ok((default, docker))
}

fn requirements(at: &str, list: Vec<RawRequirement>) -> Result<Vec<Requirement>, String> {
    if list.is_empty() {
        return Err(format!("{at}: it has no requirement: insecureAcceptAnything accepts everything"));
    }
    let one = |(number, raw)| requirement(raw).map_err(|reason| format!("{at}[{number}]: {reason}"));
    list.into_iter().enumerate().map(one).collect()
}

impl RawRequirement {
    /// The fields that say where keys are.
    fn keys(&self) -> [(&'static str, bool); 6] {
        [
            ("keyPath", self.key_path.is_some()),
            ("keyPaths", self.key_paths.is_some()),
            ("keyData", self.key_data.is_some()),
            ("keyDatas", self.key_datas.is_some()),
            ("fulcio", self.fulcio.is_some()),
            ("pki", self.pki.is_some()),
        ]
    }

    /// The fields that say where transparency logs' keys are.
    fn logs(&self) -> [(&'static str, bool); 4] {
        [
            ("rekorPublicKeyPath", self.rekor_public_key_path.is_some()),
            ("rekorPublicKeyPaths", self.rekor_public_key_paths.is_some()),
            ("rekorPublicKeyData", self.rekor_public_key_data.is_some()),
            ("rekorPublicKeyDatas", self.rekor_public_key_datas.is_some()),
        ]
    }

    /// That none of these is there.
    fn without(&self, fields: &[(&'static str, bool)]) -> Result<(), String> {
        match fields.iter().find(|(_, there)| *there) {
            Some((name, _)) => Err(format!("{} has no field `{name}`", self.r#type)),
            None => Ok(()),
        }
    }
}

fn requirement(raw: RawRequirement) -> Result<Requirement, String> {
    let identity = ("signedIdentity", raw.signed_identity.is_some());
    let kind = ("keyType", raw.key_type.is_some());
    match raw.r#type.as_str() {
        "insecureAcceptAnything" | "reject" => {
            raw.without(&[raw.keys().as_slice(), &raw.logs(), &[identity, kind]].concat())?;
            let accepts = raw.r#type == "insecureAcceptAnything";
            Ok(if accepts { Requirement::Accept } else { Requirement::Reject })
        }
        "signedBy" => {
            let [path, paths, data, others @ ..] = raw.keys();
            raw.without(&[others.as_slice(), &raw.logs()].concat())?;
            one_of(&[path, paths, data])?;
            if raw.key_type.as_deref() != Some("GPGKeys") {
                return Err("signedBy needs a `keyType`, and knows only GPGKeys".to_owned());
            }
            raw.signed_identity.map(identity_of).transpose()?;
            Ok(Requirement::Unsupported("a GPG signature, which hull does not verify: use sigstoreSigned"))
        }
        "sigstoreSigned" => {
            raw.without(&[kind])?;
            one_of(&raw.keys())?;
            let logs: Vec<_> = raw.logs().into_iter().filter(|(_, there)| *there).collect();
            if logs.len() > 1 {
                return Err(format!("it has both `{}` and `{}`", logs[0].0, logs[1].0));
            }
            let identity = raw.signed_identity.map(identity_of).transpose()?.unwrap_or(Identity::RepoDigestOrExact);
            if raw.fulcio.is_some() || raw.pki.is_some() {
                return Ok(Requirement::Unsupported(
                    "a signature by a certificate, which hull does not verify: use keys",
                ));
            }
            let inline = |text: String| {
                STANDARD.decode(text).map(KeySource::Inline).map_err(|_| "its key is not base64".to_owned())
            };
            let files =
                raw.key_path.into_iter().chain(raw.key_paths.into_iter().flatten()).map(KeySource::File).map(Ok);
            let data = raw.key_data.into_iter().chain(raw.key_datas.into_iter().flatten()).map(inline);
            let keys = files.chain(data).collect::<Result<Vec<_>, _>>()?;
            if keys.is_empty() {
                return Err("its list of keys is empty".to_owned());
            }
            if !logs.is_empty() {
                return Ok(Requirement::Unsupported(
                    "an entry in a transparency log, which hull does not verify: leave the rekorPublicKey fields out",
                ));
            }
            Ok(Requirement::Signed { keys, identity })
        }
        other => Err(format!("unknown type {other:?}")),
    }
}

/// That exactly one of these is there.
fn one_of(fields: &[(&'static str, bool)]) -> Result<(), String> {
    let there: Vec<&str> = fields.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    match there.as_slice() {
        [_] => Ok(()),
        [] => {
            let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
            Err(format!("it needs one of {}", names.join(", ")))
        }
        [first, second, ..] => Err(format!("it has both `{first}` and `{second}`")),
    }
}

fn identity_of(raw: RawIdentity) -> Result<Identity, String> {
    let RawIdentity { r#type, docker_reference, docker_repository, prefix, signed_prefix } = raw;
    let there = [
        ("dockerReference", docker_reference.is_some()),
        ("dockerRepository", docker_repository.is_some()),
        ("prefix", prefix.is_some()),
        ("signedPrefix", signed_prefix.is_some()),
    ];
    let only = |allowed: &[&str]| match there.iter().find(|(name, there)| *there && !allowed.contains(name)) {
        Some((name, _)) => Err(format!("signedIdentity: {type} has no field `{name}`", r#type = r#type)),
        None => Ok(()),
    };
    let needs = |field: Option<String>, name: &str| {
        field.ok_or_else(|| format!("signedIdentity: {type} needs `{name}`", r#type = r#type))
    };
    let parse = |text: String| {
        let parsed: Result<hull_oci::Reference, _> = text.parse();
        parsed.map_err(|error| format!("signedIdentity: {text:?}: {error}"))
    };
    match r#type.as_str() {
        "matchExact" => only(&[]).map(|()| Identity::Exact),
        "matchRepoDigestOrExact" => only(&[]).map(|()| Identity::RepoDigestOrExact),
        "matchRepository" => only(&[]).map(|()| Identity::Repository),
        "exactReference" => {
            only(&["dockerReference"])?;
            let reference = parse(needs(docker_reference, "dockerReference")?)?;
            if reference.tag().is_none() && reference.digest().is_none() {
                return Err(format!("signedIdentity: {reference} has neither tag nor digest"));
            }
            Ok(Identity::ExactReference(reference))
        }
        "exactRepository" => {
            only(&["dockerRepository"])?;
            let reference = parse(needs(docker_repository, "dockerRepository")?)?;
            Ok(Identity::ExactRepository(reference.repository()))
        }
        "remapIdentity" => {
            only(&["prefix", "signedPrefix"])?;
            let (prefix, signed) = (needs(prefix, "prefix")?, needs(signed_prefix, "signedPrefix")?);
            for text in [&prefix, &signed] {
                if text.is_empty() || text.ends_with('/') || text.contains('@') {
                    return Err(format!("signedIdentity: {text:?} is no prefix: expected HOST[:PORT] or HOST/PATH"));
                }
            }
            Ok(Identity::Remap { prefix, signed })
        }
        other => Err(format!("signedIdentity: unknown type {other:?}")),
    }
}
