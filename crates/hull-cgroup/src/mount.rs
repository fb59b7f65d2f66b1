//! What a container's `cgroup` mount is made of.
//!
//! On v2 it is one file system; on v1 and hybrid machines a tmpfs with one directory per hierarchy and links from each
//! controller of a joint hierarchy to it. This module only describes; mounting is the root file system's work.

use std::path::PathBuf;

use crate::cgroup::Cgroup;
use crate::hierarchies::{Hierarchies, Version};

/// What must be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupMount {
    /// One unified hierarchy. With a cgroup namespace of its own the container mounts `cgroup2` (option `nsdelegate` is
    /// the host's); without, or where that is refused, `group` is bound.
    V2 {
        /// The container's own group on the host.
        group: PathBuf,
    },
    /// A tmpfs with a directory for each hierarchy.
    V1 {
        /// The directories, in the order to mount.
        hierarchies: Vec<HierarchyMount>,
        /// Links beside them: name and target, such as (`cpu`, `cpu,cpuacct`).
        links: Vec<(String, String)>,
    },
}

/// One directory of the tmpfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HierarchyMount {
    /// Directory name: `memory`, `cpu,cpuacct`, `systemd`, `unified`.
    pub name: String,
    /// v1 or v2: the file system is `cgroup` or `cgroup2`.
    pub version: Version,
    /// Data of the mount inside a cgroup namespace: `memory`, `cpu,cpuacct`, `none,name=systemd`; empty on v2.
    pub data: String,
    /// The container's group, from the hierarchy's root.
    pub relative: String,
    /// The same on the host, to bind without a cgroup namespace.
    pub group: PathBuf,
}

/// Describes the `cgroup` mount of a container; `None` when the machine has no hierarchy.
#[must_use]
pub fn describe(hierarchies: &Hierarchies, cgroup: &Cgroup) -> Option<CgroupMount> {
    hierarchies.layout()?;
    if hierarchies.is_v2() {
        let unified = hierarchies.unified()?;
        let relative = cgroup.relative(unified).unwrap_or(&unified.own);
        return Some(CgroupMount::V2 { group: unified.directory(relative) });
    }
    let mut mounts = Vec::new();
    let mut links = Vec::new();
    for one in hierarchies.list() {
        let name = one.name();
        let relative = cgroup.relative(one).unwrap_or(&one.own).to_owned();
        let data = match (one.version, one.has_controllers()) {
            (Version::V2, _) => String::new(),
            (Version::V1, true) => one.controllers.join(","),
            (Version::V1, false) => format!("none,{}", one.controllers.join(",")),
        };
        if one.version == Version::V1 && one.controllers.len() > 1 {
            links.extend(one.controllers.iter().map(|controller| (controller.clone(), name.clone())));
        }
        let group = one.directory(&relative);
        mounts.push(HierarchyMount { name, version: one.version, data, relative, group });
    }
    Some(CgroupMount::V1 { hierarchies: mounts, links })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Driver;

    #[test]
    fn joint_and_named_hierarchies() {
        let table = "31 30 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                     33 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
        let found = Hierarchies::parse(table, "3:name=systemd:/init.scope\n1:cpu,cpuacct:/\n");
        let cgroup = Cgroup::plan(&found, Driver::Cgroupfs, "/pod/a", "a", false).unwrap();
        let Some(CgroupMount::V1 { hierarchies, links }) = describe(&found, &cgroup) else { panic!("not v1") };
        assert_eq!(hierarchies[0].relative, "/pod/a");
        assert_eq!(hierarchies[0].data, "cpu,cpuacct");
        assert_eq!(hierarchies[0].group, PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/pod/a"));
        assert_eq!(
            (hierarchies[1].data.as_str(), hierarchies[1].relative.as_str()),
            ("none,name=systemd", "/init.scope")
        );
        assert_eq!(links, [("cpu".into(), "cpu,cpuacct".into()), ("cpuacct".into(), "cpu,cpuacct".into())]);
    }

    #[test]
    fn unified_machine() {
        let found = Hierarchies::parse("31 30 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n", "0::/\n");
        let cgroup = Cgroup::plan(&found, Driver::Cgroupfs, "", "a", false).unwrap();
        let group = PathBuf::from("/sys/fs/cgroup/hull/a");
        assert_eq!(describe(&found, &cgroup), Some(CgroupMount::V2 { group }));
    }
}
