//! The groups of one container, one per hierarchy.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use hull_oci::spec::Resources;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::hierarchies::{Hierarchies, Hierarchy, Version};
use crate::io;
use crate::systemd::Unit;

/// Who makes the groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// Hull, in the cgroup file systems.
    #[default]
    Cgroupfs,
    /// systemd, as a transient scope.
    Systemd,
    /// Nobody: the container stays in the caller's groups.
    Disabled,
}

/// One directory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) version: Version,
    pub(crate) controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub(crate) mount: PathBuf,
    /// Group that is the root of that mount.
    pub(crate) root: String,
    /// From the hierarchy's root, with a leading slash.
    pub(crate) path: String,
    #[serde(skip)]
    fd: OnceLock<OwnedFd>,
}

impl Group {
    pub(crate) fn new(hierarchy: &Hierarchy, path: String) -> Self {
        Self {
            version: hierarchy.version,
            controllers: hierarchy.controllers.clone(),
            mount: hierarchy.mount.clone(),
            root: hierarchy.root.clone(),
            path,
            fd: OnceLock::new(),
        }
    }

    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    pub(crate) fn directory(&self) -> PathBuf {
        let below = self.path.strip_prefix(self.root.trim_end_matches('/')).unwrap_or(&self.path);
        self.mount.join(below.trim_start_matches('/'))
    }

    /// The open directory, opened at first use.
    pub(crate) fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd.as_fd());
        }
        let directory = self.directory();
        let opened = io::open_dir(&directory).map_err(Error::system("open cgroup", &directory))?;
        Ok(self.keep(opened))
    }

    pub(crate) fn keep(&self, opened: OwnedFd) -> BorrowedFd<'_> {
        self.fd.get_or_init(|| opened).as_fd()
    }
}

impl Clone for Group {
    fn clone(&self) -> Self {
        Self {
            version: self.version,
            controllers: self.controllers.clone(),
            mount: self.mount.clone(),
            root: self.root.clone(),
            path: self.path.clone(),
            fd: OnceLock::new(),
        }
    }
}

/// The group that containers' groups are in unless the configuration names a path.
pub(crate) const DEFAULT_PARENT: &str = "hull";

/// The groups of one container. Its serialized form goes into the container's state; a deserialized one is complete.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cgroup {
    pub(crate) driver: Driver,
    pub(crate) rootless: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) groups: Vec<Group>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<Unit>,
    /// With systemd the groups exist only once the scope has a process, so limits wait for it.
    #[serde(skip)]
    pub(crate) pending: OnceLock<Resources>,
    /// A rootless container without limits that may not have a group of its own.
    #[serde(skip)]
    pub(crate) inert: OnceLock<()>,
}

impl Cgroup {
    /// Computes the paths of a container's groups without touching them.
    ///
    /// An empty `cgroups_path` means `/hull/<id>`; an absolute one counts from the hierarchy's root, a relative one too.
    /// When `rootless`, the default path is below the caller's own group. With [`Driver::Systemd`] the path has the form
    /// `slice:prefix:name`; empty means `system.slice:hull:<id>` (`user.slice` when rootless).
    ///
    /// # Errors
    /// For a path with `..` or NUL, or of the wrong form for the driver, and when no hierarchy is mounted.
    pub fn plan(
        hierarchies: &Hierarchies,
        driver: Driver,
        cgroups_path: &str,
        id: &str,
        rootless: bool,
    ) -> Result<Self, Error> {
        if driver == Driver::Disabled {
            return Ok(Self::disabled());
        }
        let wrong = |reason: &str| Error::Path { path: cgroups_path.to_owned(), reason: reason.to_owned() };
        if cgroups_path.contains('\0') || id.contains(['\0', '/']) {
            return Err(wrong("contains a NUL character"));
        }
        if cgroups_path.len() + id.len() > 3000 {
            return Err(wrong("is longer than 3000 characters"));
        }
        if cgroups_path.split('/').any(|part| part == "..") || id == ".." {
            return Err(wrong("contains `..`"));
        }
        if hierarchies.layout().is_none() {
            return if rootless { Ok(Self::disabled()) } else { Err(Error::NotMounted) };
        }
        let unit = match driver {
            Driver::Systemd => Some(Unit::parse(cgroups_path, id, rootless)?),
            _ => None,
        };
        let joined = hierarchies.list().iter().filter(|one| match one.version {
            Version::V1 => one.has_controllers() || unit.is_some(),
            // Beside v1 hierarchies the unified one matters only for the controllers it has.
            Version::V2 => hierarchies.is_v2() || one.has_controllers() || unit.is_some(),
        });
        let mut groups = Vec::new();
        for hierarchy in joined {
            let path = match &unit {
                Some(unit) => unit.path(rootless),
                None if cgroups_path.is_empty() => {
                    let base = if rootless { hierarchy.own.trim_end_matches('/') } else { "" };
                    format!("{base}/{DEFAULT_PARENT}/{id}")
                }
                None => clean(cgroups_path),
            };
            if path == "/" {
                return Err(wrong("is the root group"));
            }
            groups.push(Group::new(hierarchy, path));
        }
        Ok(Self { driver, rootless, groups, unit, pending: OnceLock::new(), inert: OnceLock::new() })
    }

    /// A container without groups of its own: every operation but a limit succeeds and does nothing.
    #[must_use]
    pub fn disabled() -> Self {
        Self { driver: Driver::Disabled, ..Self::default() }
    }

    /// Who makes the groups.
    #[must_use]
    pub fn driver(&self) -> Driver {
        if self.inert.get().is_some() { Driver::Disabled } else { self.driver }
    }

    /// Directory descriptor for `CLONE_INTO_CGROUP`: of the group in the unified hierarchy, also where that is beside others,
    /// once it exists. Moving a process there afterwards ([`Cgroup::attach`]) waits for an RCU grace period of some 8 ms.
    #[must_use]
    pub fn clone_fd(&self) -> Option<BorrowedFd<'_>> {
        if self.driver() != Driver::Cgroupfs {
            return None;
        }
        self.groups.iter().find(|group| group.version == Version::V2)?.fd().ok()
    }

    /// Directory of each controller; an empty name stands for the unified hierarchy.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let mut paths = BTreeMap::new();
        if self.driver() == Driver::Disabled {
            return paths;
        }
        for group in &self.groups {
            match group.version {
                Version::V2 => drop(paths.insert(String::new(), group.directory())),
                Version::V1 => {
                    paths.extend(group.controllers.iter().map(|name| (name.clone(), group.directory())));
                }
            }
        }
        paths
    }

    /// The group's path in a hierarchy, if the container joins it.
    #[must_use]
    pub fn relative(&self, hierarchy: &Hierarchy) -> Option<&str> {
        if self.driver() == Driver::Disabled {
            return None;
        }
        let same = |group: &&Group| group.version == hierarchy.version && group.mount == hierarchy.mount;
        self.groups.iter().find(same).map(|group| group.path.as_str())
    }

    /// Whether every group is gone; always so without groups.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.driver() == Driver::Disabled || self.groups.iter().all(|group| !group.directory().exists())
    }

    pub(crate) fn of(&self, controller: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.has(controller))
    }

    pub(crate) fn unified(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.version == Version::V2)
    }

    /// Whether only the unified hierarchy is in use.
    pub(crate) fn is_v2(&self) -> bool {
        matches!(self.groups.as_slice(), [group] if group.version == Version::V2)
    }
}

/// An absolute path without empty and `.` parts.
fn clean(path: &str) -> String {
    let mut cleaned = String::with_capacity(path.len() + 1);
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        cleaned.push('/');
        cleaned.push_str(part);
    }
    if cleaned.is_empty() { "/".to_owned() } else { cleaned }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2() -> Hierarchies {
        Hierarchies::parse("31 30 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n", "0::/user.slice/s\n")
    }

    #[test]
    fn paths() {
        let path = |path, id, rootless| {
            let planned = Cgroup::plan(&v2(), Driver::Cgroupfs, path, id, rootless);
            planned.map(|cgroup| cgroup.groups[0].path.clone()).map_err(|error| error.to_string())
        };
        assert_eq!(path("", "a", false).unwrap(), "/hull/a");
        assert_eq!(path("", "a", true).unwrap(), "/user.slice/s/hull/a");
        assert_eq!(path("/x//./y/", "a", false).unwrap(), "/x/y");
        assert_eq!(path("x", "a", false).unwrap(), "/x");
        assert_eq!(path("/x/../y", "a", false).unwrap_err(), "cgroup path \"/x/../y\": contains `..`");
        assert!(path("a\0b", "a", false).is_err());
        assert!(path("/", "a", false).is_err());
        assert!(path("", "..", false).is_err());
    }

    #[test]
    fn record_round_trip() {
        let cgroup = Cgroup::plan(&v2(), Driver::Cgroupfs, "", "a", false).unwrap();
        let text = serde_json::to_string(&cgroup).unwrap();
        let again: Cgroup = serde_json::from_str(&text).unwrap();
        assert_eq!(again.paths(), cgroup.paths());
        assert_eq!(again.paths()[""], PathBuf::from("/sys/fs/cgroup/hull/a"));
        assert!(again.clone_fd().is_none(), "not created yet");
    }

    #[test]
    fn disabled_has_no_paths() {
        let cgroup = Cgroup::plan(&v2(), Driver::Disabled, "/../x", "a", false).unwrap();
        assert!(cgroup.paths().is_empty() && cgroup.is_gone());
    }
}
