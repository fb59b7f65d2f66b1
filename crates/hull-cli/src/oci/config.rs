//! `spec`: a configuration to start from.

use std::io::Write as _;
use std::path::Path;

use hull_oci::Spec;
use hull_oci::spec::{IdMapping, Linux, Namespace, NamespaceType};

use super::CommandError;
use super::args::Parsed;

/// What an ordinary bundle starts from. Callers edit it as text, so its order and layout are kept.
const DEFAULT: &str = include_str!("default-config.json");

/// Writes `config.json` unless there is one.
pub(super) fn spec(parsed: &Parsed) -> Result<u8, CommandError> {
    let bundle = parsed.get("bundle").map_or(Path::new("."), Path::new);
    let path = bundle.join("config.json");
    let text = if parsed.on("rootless") { rootless()? } else { DEFAULT.to_owned() };
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            CommandError::new(format!("file {} exists, remove it first", path.display()))
        }
        _ => CommandError::new(format!("create {}: {error}", path.display())),
    };
    // `create_new` neither follows a link nor replaces a file that appears meanwhile.
    let mut file = std::fs::File::options().write(true).create_new(true).open(&path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(0)
}

/// The same for an ordinary user: a user namespace with the caller's IDs, and nothing that needs privileges.
fn rootless() -> Result<String, CommandError> {
    let wrong = |error: serde_json::Error| CommandError::new(format!("default configuration: {error}"));
    let mut spec = Spec::parse(DEFAULT.as_bytes()).map_err(|error| CommandError::new(error.to_string()))?;
    for mount in &mut spec.mounts {
        // Group 5 is not mapped.
        mount.options.retain(|option| option != "gid=5");
        if mount.kind == "sysfs" {
            // A new sysfs needs an own network namespace.
            mount.kind = "none".to_owned();
            mount.source = "/sys".to_owned();
            mount.options.insert(0, "rbind".to_owned());
            // The cgroups below it must not be writable either.
            mount.options.push("rro".to_owned());
        }
    }
    spec.mounts.retain(|mount| mount.kind != "cgroup");
    let linux = spec.linux.get_or_insert_with(Linux::default);
    linux.resources = None;
    linux.namespaces.retain(|namespace| namespace.kind != NamespaceType::Network);
    linux.namespaces.push(Namespace { kind: NamespaceType::User, path: String::new() });
    let own = |host_id| vec![IdMapping { container_id: 0, host_id, size: 1 }];
    linux.uid_mappings = own(rustix::process::geteuid().as_raw());
    linux.gid_mappings = own(rustix::process::getegid().as_raw());
    serde_json::to_string_pretty(&spec).map(|text| text + "\n").map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_a_configuration() {
        let spec = Spec::parse(DEFAULT.as_bytes()).unwrap();
        assert_eq!(spec.oci_version, hull_oci::spec::VERSION);
        assert_eq!(spec.process.unwrap().args, ["sh"]);
    }

    #[test]
    fn rootless_maps_the_caller_and_keeps_the_network() {
        let spec = Spec::parse(rootless().unwrap().as_bytes()).unwrap();
        assert!(spec.namespace(NamespaceType::Network).is_none());
        assert!(spec.namespace(NamespaceType::User).is_some());
        let linux = spec.linux.unwrap();
        assert_eq!(linux.uid_mappings[0].host_id, rustix::process::geteuid().as_raw());
        assert!(spec.mounts.iter().all(|mount| !mount.options.iter().any(|option| option == "gid=5")));
    }
}
