//! Docker's `daemon.json` and `certs.d`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hull_oci::Reference;
use serde::Deserialize;

use super::{Endpoint, HostsError, Scheme, Sources, default_host, read, without_port};

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Daemon {
    registry_mirrors: Vec<String>,
    insecure_registries: Vec<String>,
}

/// The registry itself, after the mirrors if it is Docker's own.
pub(super) fn endpoints(sources: &Sources, reference: &Reference) -> Result<Vec<Endpoint>, HostsError> {
    let path: &Path = &sources.daemon;
    let fail = |reason: String| HostsError::File { path: path.to_owned(), reason };
    let mut daemon: Daemon = match read(path)? {
        Some(text) => {
            serde_json::from_str(&text).map_err(|error| fail(hull_oci::spec::one_line(&error.to_string())))?
        }
        None => Daemon::default(),
    };
    if !sources.mirrors.is_empty() {
        daemon.registry_mirrors.clone_from(&sources.mirrors);
    }
    if !sources.insecure.is_empty() {
        daemon.insecure_registries.clone_from(&sources.insecure);
    }
    let mut found = Vec::new();
    if reference.domain() == "docker.io" {
        for mirror in &daemon.registry_mirrors {
            let (scheme, rest) = match mirror.split_once("://") {
                Some(("https", rest)) => (Scheme::Https, rest),
                Some(("http", rest)) => (Scheme::Http, rest),
                _ => return Err(fail(format!("registry mirror {mirror:?} does not begin with http:// or https://"))),
            };
            let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_end_matches('/');
            let prefix = if prefix.is_empty() { "/v2".to_owned() } else { format!("/{prefix}/v2") };
            found.push(Endpoint { scheme, prefix, push: false, ..Endpoint::new(host, reference.path()) });
        }
    }
    let own = Endpoint::new(default_host(reference.domain()), reference.path());
    let insecure = daemon.insecure_registries.iter().any(|entry| covers(entry, reference.domain()));
    found.push(if insecure { own.insecure() } else { own });
    Ok(found)
}

/// Whether an entry, a host with or without port or a network such as `10.0.0.0/8`, covers a registry.
fn covers(entry: &str, domain: &str) -> bool {
    let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    if entry == domain || entry == without_port(domain) {
        return true;
    }
    let Some((network, bits)) = entry.split_once('/') else { return false };
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (network, without_port(domain).parse::<IpAddr>()) {
        (IpAddr::V4(network), Ok(IpAddr::V4(address))) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            u32::from(network) & mask == u32::from(address) & mask
        }
        (IpAddr::V6(network), Ok(IpAddr::V6(address))) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            u128::from(network) & mask == u128::from(address) & mask
        }
        _ => false,
    }
}

/// Adds `HOST/*.crt` as authorities and `HOST/NAME.cert` with `NAME.key` as identities.
pub(super) fn certificates(directories: &[PathBuf], endpoint: &mut Endpoint) -> Result<(), HostsError> {
    for directory in directories {
        let directory = directory.join(&endpoint.host);
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => endpoint.authorities.push(file),
                Some("cert") => {
                    let key = file.with_extension("key");
                    if !key.exists() {
                        let reason = format!("its key {} is missing", key.display());
                        return Err(HostsError::File { path: file, reason });
                    }
                    endpoint.identities.push((file, Some(key)));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
