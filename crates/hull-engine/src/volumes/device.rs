//! The `local` driver's options `type`, `o` and `device`: what is mounted as the volume instead of its directory.
//!
//! The mount is attached nowhere on the host; each container gets its own of the same device, export or directory.
//! A tmpfs is a new one in each container.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use super::Volume;
use crate::error::Error;

/// Options of `o` that are attributes of the mount.
const ATTRIBUTES: [(&str, MountAttrFlags); 7] = [
    ("ro", MountAttrFlags::MOUNT_ATTR_RDONLY),
    ("nosuid", MountAttrFlags::MOUNT_ATTR_NOSUID),
    ("nodev", MountAttrFlags::MOUNT_ATTR_NODEV),
    ("noexec", MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ("noatime", MountAttrFlags::MOUNT_ATTR_NOATIME),
    ("nodiratime", MountAttrFlags::MOUNT_ATTR_NODIRATIME),
    ("strictatime", MountAttrFlags::MOUNT_ATTR_STRICTATIME),
];

/// Options that say what is so anyway.
const NOTHING: [&str; 9] = ["rw", "bind", "rbind", "suid", "dev", "exec", "relatime", "defaults", "atime"];

/// Docker's rules for the options of a new volume, in its words.
pub(super) fn check(options: &BTreeMap<String, String>) -> Result<(), String> {
    for (key, value) in options {
        match key.as_str() {
            "type" | "o" | "device" => {
                if value.contains('\0') {
                    return Err(format!("invalid option: {key:?}"));
                }
            }
            "size" => return Err("quota size requested but no quota support".to_owned()),
            _ => return Err(format!("invalid option: {key:?}")),
        }
    }
    let given = |key: &str| options.get(key).is_some_and(|value| !value.is_empty());
    if options.is_empty() {
        return Ok(());
    }
    for key in ["device", "type"] {
        if !(given(key) || key == "type" && is_bind(options)) {
            return Err(format!("missing required option: {key:?}"));
        }
    }
    if is_bind(options) && !options.get("device").is_some_and(|device| device.starts_with('/')) {
        return Err("invalid option: \"device\" of a bind mount must be an absolute path".to_owned());
    }
    Ok(())
}

fn words(options: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    options.get("o").map(String::as_str).unwrap_or_default().split(',').filter(|word| !word.is_empty())
}

fn is_bind(options: &BTreeMap<String, String>) -> bool {
    words(options).any(|word| word == "bind" || word == "rbind")
}

/// What a volume's options say, mounted and attached nowhere; `None` for one that is a directory.
pub(super) fn mount(volume: &Volume) -> Result<Option<OwnedFd>, Error> {
    let options = &volume.options;
    if options.is_empty() {
        return Ok(None);
    }
    let device = options.get("device").map(String::as_str).unwrap_or_default();
    let fail = |errno: Errno| {
        let reason = std::io::Error::from(errno);
        let shown = hull_oci::spec::one_line(device);
        Error::Volume(format!("failed to mount local volume {}: {shown}: {reason}", volume.name))
    };
    if is_bind(options) {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if words(options).any(|word| word == "rbind") {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let tree = rustix::mount::open_tree(CWD, Path::new(device), flags).map_err(fail)?;
        if words(options).any(|word| word == "ro") {
            use std::os::fd::AsFd as _;
            let (lookup, set) = (hull_sys::mount::Lookup::EMPTY_PATH, hull_sys::mount::Attributes::RDONLY);
            let clear = hull_sys::mount::Attributes::empty();
            hull_sys::mount::mount_setattr(tree.as_fd(), c"", lookup, set, clear, None, None).map_err(fail)?;
        }
        return Ok(Some(tree));
    }
    let kind = options.get("type").map(String::as_str).unwrap_or_default();
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail)?;
    rustix::mount::fsconfig_set_string(&context, c"source", device).map_err(fail)?;
    let mut attributes = MountAttrFlags::empty();
    for word in words(options) {
        if NOTHING.contains(&word) {
            continue;
        }
        if let Some((_, attribute)) = ATTRIBUTES.iter().find(|(name, _)| *name == word) {
            attributes |= *attribute;
            continue;
        }
        match word.split_once('=') {
            // The kernel takes numbers only.
            Some(("addr", host)) if kind.starts_with("nfs") => {
                rustix::mount::fsconfig_set_string(&context, c"addr", address(host)?).map_err(fail)?;
            }
            Some((key, value)) => rustix::mount::fsconfig_set_string(&context, key, value).map_err(fail)?,
            None => rustix::mount::fsconfig_set_flag(&context, word).map_err(fail)?,
        }
    }
    rustix::mount::fsconfig_create(&context).map_err(fail)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map(Some).map_err(fail)
}

fn address(host: &str) -> Result<String, Error> {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Ok(host.to_owned());
    }
    let found = (host, 0).to_socket_addrs().ok().and_then(|mut found| found.next());
    let none = || Error::Volume(format!("error resolving passed in network volume address {host:?}"));
    Ok(found.ok_or_else(none)?.ip().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_as_docker_does() {
        let options = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let good = [
            &[][..],
            &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")],
            &[("type", "none"), ("device", "/srv"), ("o", "bind")],
            &[("device", "/srv"), ("o", "rbind,ro")],
        ];
        for list in good {
            assert_eq!(check(&options(list)), Ok(()), "{list:?}");
        }
        for (list, reason) in [
            (&[("foo", "bar")][..], "invalid option: \"foo\""),
            (&[("type", "nfs")], "missing required option: \"device\""),
            (&[("device", "/x")], "missing required option: \"type\""),
            (&[("device", "x"), ("o", "bind")], "absolute path"),
        ] {
            let error = check(&options(list)).expect_err(reason);
            assert!(error.contains(reason), "{error}");
        }
    }
}
