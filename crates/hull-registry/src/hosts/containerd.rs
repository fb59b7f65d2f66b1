//! containerd's `hosts.toml`: one file for each registry, mirrors in the order of the file.

use std::path::{Path, PathBuf};

use hull_oci::Reference;
use serde::Deserialize;

use super::{Endpoint, HostsError, Scheme, default_host, read_toml};

#[derive(Deserialize)]
struct File {
    server: Option<String>,
    #[serde(flatten)]
    own: Host,
    #[serde(default)]
    host: toml::Table,
}

#[derive(Default, Deserialize)]
struct Host {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<toml::Value>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    header: std::collections::BTreeMap<String, OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn list(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// The endpoints that a `hosts.toml` gives; `None` when there is none for this registry, nor a default one.
pub(super) fn endpoints(directories: &[PathBuf], reference: &Reference) -> Result<Option<Vec<Endpoint>>, HostsError> {
    let domain = reference.domain();
    // A colon cannot stand in every file system's names.
    let escaped = domain.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    let names: Vec<&str> = [Some(domain), escaped.as_deref(), Some("_default")].into_iter().flatten().collect();
    for directory in directories {
        for name in &names {
            let path = directory.join(name).join("hosts.toml");
            if let Some(file) = read_toml::<File>(&path)? {
                return from_file(&path, &file, reference).map(Some);
            }
        }
    }
    Ok(None)
}

fn from_file(path: &Path, file: &File, reference: &Reference) -> Result<Vec<Endpoint>, HostsError> {
    let mut found = Vec::new();
    for (address, value) in &file.host {
        let host: Host = value.clone().try_into().map_err(|error: toml::de::Error| HostsError::File {
            path: path.to_owned(),
            reason: format!("[host.{address:?}]: {}", hull_oci::spec::one_line(error.message())),
        })?;
        let mut endpoint = endpoint(path, address, &host, reference)?;
        endpoint.namespace = Some(reference.domain().to_owned());
        found.push(endpoint);
    }
    let server = match &file.server {
        Some(server) => endpoint(path, server, &file.own, reference)?,
        None => {
            let mut own = Endpoint::new(default_host(reference.domain()), reference.path());
            apply(path, &mut own, &file.own)?;
            own
        }
    };
    found.push(server);
    Ok(found)
}

fn endpoint(path: &Path, address: &str, host: &Host, reference: &Reference) -> Result<Endpoint, HostsError> {
    let fail = |reason: String| HostsError::File { path: path.to_owned(), reason };
    let (scheme, rest) = match address.split_once("://") {
        Some(("https", rest)) => (Some(Scheme::Https), rest),
        Some(("http", rest)) => (Some(Scheme::Http), rest),
        Some((other, _)) => return Err(fail(format!("host {address:?}: scheme {other:?} is not http or https"))),
        None => (None, address),
    };
    let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.is_empty() || authority.contains(['@', '?', '#', ' ']) {
        return Err(fail(format!("host {address:?}: expected https://HOST[:PORT][/PATH]")));
    }
    let mut endpoint = Endpoint::new(authority, reference.path());
    if let Some(scheme) = scheme {
        endpoint.scheme = scheme;
    }
    let prefix = prefix.trim_end_matches('/');
    endpoint.prefix = match (prefix, host.override_path) {
        ("", true) => String::new(),
        ("", false) => "/v2".to_owned(),
        (prefix, true) => format!("/{prefix}"),
        (prefix, false) if prefix == "v2" || prefix.ends_with("/v2") => format!("/{prefix}"),
        (prefix, false) => format!("/{prefix}/v2"),
    };
    apply(path, &mut endpoint, host)?;
    Ok(endpoint)
}

fn apply(path: &Path, endpoint: &mut Endpoint, host: &Host) -> Result<(), HostsError> {
    let fail = |reason: String| HostsError::File { path: path.to_owned(), reason };
    if let Some(capabilities) = &host.capabilities {
        (endpoint.pull, endpoint.resolve, endpoint.push) = (false, false, false);
        for capability in capabilities {
            match capability.as_str() {
                "pull" => endpoint.pull = true,
                "resolve" => endpoint.resolve = true,
                "push" => endpoint.push = true,
                // Of newer versions; they are about artifacts that refer to images.
                "referrers" => {}
                other => return Err(fail(format!("capability {other:?} is not pull, resolve or push"))),
            }
        }
    }
    let base = path.parent().unwrap_or(Path::new("/"));
    endpoint.verify = !host.skip_verify;
    endpoint.authorities.extend(host.ca.iter().flat_map(OneOrMany::list).map(|file| base.join(file)));
    endpoint.identities.extend(identities(host.client.as_ref(), base).map_err(fail)?);
    for (name, values) in &host.header {
        endpoint.headers.extend(values.list().iter().map(|value| (name.clone(), value.clone())));
    }
    Ok(())
}

/// `"both.pem"`, `["a.pem", "b.pem"]` or `[["cert.pem", "key.pem"], ...]`.
fn identities(value: Option<&toml::Value>, base: &Path) -> Result<Vec<(PathBuf, Option<PathBuf>)>, String> {
    let wrong = || "client must be a file, a list of files or a list of [certificate, key]".to_owned();
    let list = match value {
        None => return Ok(Vec::new()),
        Some(toml::Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    list.iter()
        .map(|one| match one {
            toml::Value::String(file) => Ok((base.join(file), None)),
            toml::Value::Array(pair) => match pair.as_slice() {
                [toml::Value::String(certificate)] => Ok((base.join(certificate), None)),
                [toml::Value::String(certificate), toml::Value::String(key)] if key.is_empty() => {
                    Ok((base.join(certificate), None))
                }
                [toml::Value::String(certificate), toml::Value::String(key)] => {
                    Ok((base.join(certificate), Some(base.join(key))))
                }
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        })
        .collect()
}
