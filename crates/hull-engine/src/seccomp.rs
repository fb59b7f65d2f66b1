//! Seccomp profiles as users write them for Docker (`--security-opt seccomp=FILE`): rules that apply only with certain
//! capabilities, architectures and kernels. [`Profile::resolve`] turns one into the runtime specification's form.

use hull_oci::spec::{Arg, Seccomp, SyscallRule};
use serde::{Deserialize, Serialize};

use crate::config::SeccompChoice;

/// A profile larger than this is refused.
pub const MAX_BYTES: u64 = 4 << 20;

/// The document.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<String>>,
    listener_path: String,
    listener_metadata: String,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    name: String,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Arg>>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: String,
}

/// Parses the value of `seccomp=`: a profile's text.
///
/// # Errors
/// The field and what was expected.
pub fn parse(text: &[u8]) -> Result<SeccompChoice, String> {
    let profile: Profile = hull_oci::spec::parse(text).map_err(|error| error.to_string())?;
    if !profile.default_action.starts_with("SCMP_ACT_") {
        return Err(format!("defaultAction is {:?}, expected a SCMP_ACT_ name", profile.default_action));
    }
    if profile.architectures.is_some() && profile.arch_map.is_some() {
        return Err("both architectures and archMap are given, expected one of them".to_owned());
    }
    Ok(SeccompChoice::Profile(Box::new(profile)))
}

impl Profile {
    /// The rules that apply to a container with these capabilities on this architecture (Go's name, such as `amd64`)
    /// and kernel.
    #[must_use]
    pub fn resolve(&self, capabilities: &[String], arch: &str, kernel: (u32, u32)) -> Seccomp {
        let native = scmp_arch(arch);
        let architectures = match (&self.architectures, &self.arch_map) {
            (Some(list), _) => list.clone(),
            (None, Some(map)) => map
                .iter()
                .filter(|entry| entry.architecture == native)
                .flat_map(|entry| {
                    std::iter::once(entry.architecture.clone()).chain(entry.sub_architectures.iter().flatten().cloned())
                })
                .collect(),
            (None, None) => Vec::new(),
        };
        let holds = |rule: &&Rule| {
            rule.includes.as_ref().is_none_or(|wanted| wanted.included(capabilities, arch, kernel))
                && !rule.excludes.as_ref().is_some_and(|refused| refused.excluded(capabilities, arch, kernel))
        };
        let syscalls = self
            .syscalls
            .iter()
            .flatten()
            .filter(holds)
            .map(|rule| SyscallRule {
                names: std::iter::once(rule.name.clone())
                    .filter(|name| !name.is_empty())
                    .chain(rule.names.iter().flatten().cloned())
                    .collect(),
                action: rule.action.clone(),
                errno_ret: rule.errno_ret,
                args: rule.args.clone().unwrap_or_default(),
            })
            .collect();
        Seccomp {
            default_action: self.default_action.clone(),
            default_errno_ret: self.default_errno_ret,
            architectures,
            flags: self.flags.clone().unwrap_or_default(),
            listener_path: self.listener_path.clone(),
            listener_metadata: self.listener_metadata.clone(),
            syscalls,
        }
    }
}

impl Condition {
    /// Every list that is given must hold.
    fn included(&self, capabilities: &[String], arch: &str, kernel: (u32, u32)) -> bool {
        let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
        (!some(&self.arches) || self.arches.iter().flatten().any(|one| one == arch))
            && (!some(&self.caps) || self.caps.iter().flatten().all(|one| capabilities.contains(one)))
            && parse_kernel(&self.min_kernel).is_none_or(|minimum| kernel >= minimum)
    }

    /// One hit is enough.
    fn excluded(&self, capabilities: &[String], arch: &str, kernel: (u32, u32)) -> bool {
        self.arches.iter().flatten().any(|one| one == arch)
            || self.caps.iter().flatten().any(|one| capabilities.contains(one))
            || parse_kernel(&self.min_kernel).is_some_and(|minimum| kernel >= minimum)
    }
}

/// `6.18.3-arch` as `(6, 18)`.
#[must_use]
pub fn parse_kernel(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Go's name of the architecture that Hull runs on, as profiles and images spell it.
#[must_use]
pub fn native_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn scmp_arch(arch: &str) -> &'static str {
    match arch {
        "amd64" => "SCMP_ARCH_X86_64",
        "arm64" => "SCMP_ARCH_AARCH64",
        "386" => "SCMP_ARCH_X86",
        "arm" => "SCMP_ARCH_ARM",
        "ppc64le" => "SCMP_ARCH_PPC64LE",
        "s390x" => "SCMP_ARCH_S390X",
        "riscv64" => "SCMP_ARCH_RISCV64",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64",
        "subArchitectures":["SCMP_ARCH_X86"]},{"architecture":"SCMP_ARCH_AARCH64","subArchitectures":null}],"syscalls":[
        {"names":["read"],"action":"SCMP_ACT_ALLOW"},
        {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
        {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"],"arches":["s390"]}},
        {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
        {"names":["arm_sync"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["arm64"]}}]}"#;

    fn names(capabilities: &[&str], arch: &str, kernel: (u32, u32)) -> Vec<String> {
        let SeccompChoice::Profile(profile) = parse(DOCUMENT.as_bytes()).unwrap() else { panic!() };
        let capabilities: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
        profile.resolve(&capabilities, arch, kernel).syscalls.into_iter().flat_map(|rule| rule.names).collect()
    }

    #[test]
    fn conditions_choose_rules() {
        assert_eq!(names(&[], "amd64", (6, 1)), ["read", "clone", "ptrace"]);
        assert_eq!(names(&["CAP_SYS_ADMIN"], "amd64", (4, 4)), ["read", "mount"]);
        assert_eq!(names(&[], "arm64", (6, 1)), ["read", "clone", "ptrace", "arm_sync"]);
    }

    #[test]
    fn wrong_profiles_name_the_field() {
        assert!(parse(b"{}").unwrap_err().contains("defaultAction"));
        assert!(parse(b"{\"defaultAction\":1}").unwrap_err().contains("defaultAction"));
        assert!(parse(b"nonsense").is_err());
    }
}
