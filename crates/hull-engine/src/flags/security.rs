//! `--security-opt`.

use std::path::Path;

use crate::config::{SeccompChoice, Security};

/// `KEY=VALUE` of `--security-opt`, or Docker's older `KEY:VALUE`. `profile` makes a filter of what is given for
/// `seccomp` beside the known words: a path of the machine, or a document.
///
/// # Errors
/// What was expected.
pub fn security_option(
    security: &mut Security,
    option: &str,
    profile: impl FnOnce(&str) -> Result<SeccompChoice, String>,
) -> Result<(), String> {
    let (key, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
    let truth = || match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{option:?}: expected true or false")),
    };
    match (key, value) {
        ("no-new-privileges", _) => security.no_new_privileges = truth()?,
        ("writable-cgroups", _) => security.writable_cgroups = truth()?,
        ("systempaths", "unconfined") => security.system_paths_unconfined = true,
        ("seccomp", "unconfined") => security.seccomp = SeccompChoice::Unconfined,
        ("seccomp", "builtin") => security.seccomp = SeccompChoice::Builtin,
        ("seccomp", given) if !given.is_empty() => security.seccomp = profile(given)?,
        ("apparmor", "unconfined") => security.apparmor = None,
        ("apparmor", profile) if !profile.is_empty() => {
            if !Path::new("/sys/kernel/security/apparmor").exists() {
                return Err(format!(
                    "AppArmor is not supported on this host, but the profile '{profile}' was specified"
                ));
            }
            security.apparmor = Some(profile.to_owned());
        }
        ("label", "disable") => security.label = None,
        // Parts of a label: they mean something only to SELinux.
        ("label", part)
            if ["user:", "role:", "type:", "level:", "filetype:", "nested"].iter().any(|one| part.starts_with(one)) =>
        {
            if Path::new("/sys/fs/selinux/enforce").exists() {
                return Err(format!("{option:?}: give the whole label, USER:ROLE:TYPE:LEVEL"));
            }
        }
        ("label", label) if label.split(':').count() >= 4 => security.label = Some(label.to_owned()),
        _ => {
            let known = "seccomp=, apparmor=, label=, no-new-privileges, systempaths=unconfined, writable-cgroups";
            return Err(format!("invalid --security-opt: {option:?}; use one of {known}"));
        }
    }
    Ok(())
}
