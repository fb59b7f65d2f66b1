//! `registries.conf` of the containers tools (version 2): prefixes, mirrors, renamed and blocked places.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hull_oci::Reference;
use serde::Deserialize;

use super::{Endpoint, HostsError, default_host, read_toml};

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry: Vec<Registry>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    #[serde(default)]
    unqualified_search_registries: Option<Vec<String>>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Registry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: Option<String>,
}

/// What the files say together; a later file's entry for a prefix replaces an earlier one's.
#[derive(Default)]
struct Merged {
    /// By prefix, with the file that the entry is of.
    registries: BTreeMap<String, (Registry, PathBuf)>,
    aliases: BTreeMap<String, String>,
    search: Vec<String>,
}

fn load(files: &[PathBuf]) -> Result<Merged, HostsError> {
    let mut merged = Merged::default();
    let Some(main) = files.iter().find(|path| path.exists()) else { return Ok(merged) };
    let mut paths = vec![main.clone()];
    let mut name = main.clone().into_os_string();
    name.push(".d");
    if let Ok(entries) = std::fs::read_dir(Path::new(&name)) {
        let mut parts: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        parts.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
        parts.sort();
        paths.extend(parts);
    }
    for path in paths {
        let Some(file) = read_toml::<File>(&path)? else { continue };
        for registry in file.registry {
            let prefix = registry.prefix.clone().filter(|prefix| !prefix.is_empty());
            let Some(prefix) = prefix.or_else(|| registry.location.clone()) else {
                let reason = "a [[registry]] has neither prefix nor location".to_owned();
                return Err(HostsError::File { path, reason });
            };
            merged.registries.insert(prefix, (registry, path.clone()));
        }
        merged.aliases.extend(file.aliases);
        if let Some(search) = file.unqualified_search_registries {
            merged.search = search;
        }
    }
    Ok(merged)
}

/// What a name without a registry may stand for: its alias, else itself in each search registry.
///
/// # Errors
/// See [`HostsError`].
pub fn candidates(files: &[PathBuf], short: &str) -> Result<Vec<String>, HostsError> {
    let merged = load(files)?;
    let (name, suffix) = match short.find([':', '@']) {
        Some(at) => short.split_at(at),
        None => (short, ""),
    };
    if let Some(target) = merged.aliases.get(name).filter(|target| !target.is_empty()) {
        return Ok(vec![format!("{target}{suffix}")]);
    }
    Ok(merged.search.iter().map(|registry| format!("{registry}/{short}")).collect())
}

/// The endpoints of the longest prefix that fits; `None` when no entry does.
pub(super) fn endpoints(files: &[PathBuf], reference: &Reference) -> Result<Option<Vec<Endpoint>>, HostsError> {
    let merged = load(files)?;
    let name = reference.repository();
    let fits = |prefix: &String| matched(prefix, &name, reference).map(|length| (length, prefix.clone()));
    let Some((length, prefix)) = merged.registries.keys().filter_map(fits).max() else { return Ok(None) };
    let Some((registry, path)) = merged.registries.get(&prefix) else { return Ok(None) };
    if registry.blocked {
        return Err(HostsError::Blocked { host: prefix, path: path.clone() });
    }
    let rest = &name[length..];
    let place = |location: &str, insecure: bool| {
        let whole = format!("{location}{rest}");
        let (host, repository) = whole.split_once('/').unwrap_or((&whole, ""));
        if repository.is_empty() {
            let reason = format!("location {location:?} of prefix {prefix:?} leaves no repository for {name}");
            return Err(HostsError::File { path: path.clone(), reason });
        }
        let endpoint = Endpoint::new(default_host(host), repository);
        Ok(if insecure { endpoint.insecure() } else { endpoint })
    };
    let mut found = Vec::new();
    for mirror in &registry.mirror {
        let by_digest = reference.digest().is_some();
        let wanted = match mirror.pull_from_mirror.as_deref() {
            Some("digest-only") => by_digest,
            Some("tag-only") => !by_digest,
            None | Some("" | "all") => by_digest || !registry.mirror_by_digest_only,
            Some(other) => {
                let reason = format!("pull-from-mirror {other:?} is not all, digest-only or tag-only");
                return Err(HostsError::File { path: path.clone(), reason });
            }
        };
        if wanted {
            found.push(Endpoint { push: false, ..place(&mirror.location, mirror.insecure)? });
        }
    }
    // A wildcard prefix without a location leaves names as they are.
    let own = match registry.location.as_deref().filter(|location| !location.is_empty()) {
        Some(location) => place(location, registry.insecure)?,
        None => {
            let endpoint = Endpoint::new(default_host(reference.domain()), reference.path());
            if registry.insecure { endpoint.insecure() } else { endpoint }
        }
    };
    found.push(own);
    Ok(Some(found))
}

/// How many bytes of the name a prefix covers, if it fits: whole path components, or `*.example.com`.
fn matched(prefix: &str, name: &str, reference: &Reference) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix("*.") {
        let fits = super::without_port(reference.domain()).strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        return fits.then_some(reference.domain().len());
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}
