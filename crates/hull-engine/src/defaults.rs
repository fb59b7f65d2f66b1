//! What the settings say of every new container, where its own configuration says nothing.

use std::io::Read as _;

use hull_config::Origin;

use crate::config::{NamespaceChoice, RunConfig, SeccompChoice};
use crate::error::Error;
use crate::flags;

/// A setting that cannot be followed, with the place where it stands.
fn wrong(key: &str, reason: impl std::fmt::Display) -> Error {
    let place = match hull_config::get(key) {
        Ok(Some((_, origin))) if origin != Origin::Default => format!("{origin}: {key}"),
        _ => key.to_owned(),
    };
    Error::flag(place, reason.to_string())
}

/// A profile of system calls by its setting: a file, `builtin` or `unconfined`.
fn seccomp(value: &str) -> Result<SeccompChoice, String> {
    match value {
        "" | "builtin" | "default" => Ok(SeccompChoice::Builtin),
        "unconfined" => Ok(SeccompChoice::Unconfined),
        path => {
            let fail = |error: std::io::Error| format!("{path}: {error}");
            let mut bytes = Vec::new();
            let file = std::fs::File::open(path).map_err(fail)?;
            file.take(crate::seccomp::MAX_BYTES).read_to_end(&mut bytes).map_err(fail)?;
            crate::seccomp::parse(&bytes).map_err(|reason| format!("{path}: {reason}"))
        }
    }
}

/// Fills in what a configuration leaves open.
pub(crate) fn apply(config: &mut RunConfig) -> Result<(), Error> {
    if let Err(error) = hull_config::check() {
        return Err(Error::flag("settings", error.to_string()));
    }
    log(config);
    for (name, value) in hull_config::map("default-ulimits") {
        let limit = flags::ulimit(&format!("{name}={value}")).map_err(|reason| wrong("default-ulimits", reason))?;
        if !config.ulimits.iter().any(|own| own.kind == limit.kind) {
            config.ulimits.push(limit);
        }
    }
    if let (None, Some(text)) = (config.shm_size, hull_config::text("default-shm-size")) {
        let size = flags::bytes(&text).map_err(|reason| wrong("default-shm-size", reason))?;
        config.shm_size = u64::try_from(size).ok().filter(|size| *size > 0);
    }
    if config.limits.cgroup_parent.is_none() {
        config.limits.cgroup_parent = hull_config::text("cgroup-parent").filter(|text| !text.is_empty());
    }
    config.init |= hull_config::flag("init").unwrap_or(false);
    config.security.no_new_privileges |= hull_config::flag("no-new-privileges").unwrap_or(false);
    if matches!(config.security.seccomp, SeccompChoice::Builtin)
        && !config.security.privileged
        && let Some(text) = hull_config::text("seccomp-profile")
    {
        config.security.seccomp = seccomp(&text).map_err(|reason| wrong("seccomp-profile", reason))?;
    }
    // Whoever shares a network shares its names.
    if matches!(config.namespaces.network, NamespaceChoice::Private | NamespaceChoice::Host) {
        dns(config)?;
    }
    if let Some(text) = hull_config::text("ip").filter(|text| !text.is_empty()) {
        let address = text.parse().map_err(|_| wrong("ip", format!("{text:?} is not an IP address")))?;
        config.publish.iter_mut().for_each(|port| port.host = port.host.or(Some(address)));
    }
    Ok(())
}

/// As Docker does it: options are the default driver's, and count where that is chosen.
fn log(config: &mut RunConfig) {
    let driver = hull_config::text("log-driver").unwrap_or_default();
    let same =
        |one: &str, other: &str| one == other || [one, other].iter().all(|name| matches!(*name, "" | "json-file"));
    if config.log.driver.is_empty() {
        config.log.driver.clone_from(&driver);
    }
    if same(&config.log.driver, &driver) {
        for (key, value) in hull_config::map("log-opts") {
            config.log.options.entry(key).or_insert(value);
        }
    }
}

fn dns(config: &mut RunConfig) -> Result<(), Error> {
    if config.dns.servers.is_empty() {
        for text in hull_config::list("dns") {
            let address = text.parse().map_err(|_| wrong("dns", format!("{text:?} is not an IP address")))?;
            config.dns.servers.push(address);
        }
    }
    if config.dns.search.is_empty() {
        config.dns.search = hull_config::list("dns-search");
    }
    if config.dns.options.is_empty() {
        config.dns.options = hull_config::list("dns-opts");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_changed_where_nothing_is_said() {
        // Tests of this crate read no files, and variables of these names are nobody's.
        let mut config = RunConfig::default();
        let before = format!("{config:?}");
        apply(&mut config).unwrap();
        assert_eq!(format!("{config:?}"), before);
    }

    #[test]
    fn profiles_have_names() {
        assert!(matches!(seccomp("unconfined"), Ok(SeccompChoice::Unconfined)));
        assert!(matches!(seccomp("builtin"), Ok(SeccompChoice::Builtin)));
        assert!(seccomp("/nonexistent/profile.json").unwrap_err().contains("/nonexistent/profile.json"));
    }
}
