//! The `cgroup` mount: one file system on v2, a tmpfs of hierarchies on v1 and hybrid machines.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use hull_cgroup::Driver;
use hull_cgroup::mount::CgroupMount;
use hull_sys::mount::{Attributes, Propagation};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::options::{Change, Parameter};
use super::{RootfsContext, mount};

/// What is mounted, with the host's paths.
#[derive(Debug)]
pub(super) enum CgroupPlan {
    /// The machine has no hierarchy.
    None,
    V2 {
        /// Mount the file system; otherwise, and where that is refused, bind.
        mount: bool,
        /// The container's own group.
        group: CString,
        /// Without a cgroup namespace an ordinary user must not be able to write it (CVE-2023-25809).
        readonly: bool,
        after_attach: bool,
    },
    V1 {
        /// Directory name, the container's group on the host.
        hierarchies: Vec<(CString, CString)>,
        /// Name and target.
        links: Vec<(CString, CString)>,
        parameters: Vec<Parameter>,
        readonly: bool,
        after_attach: bool,
    },
}

impl CgroupPlan {
    pub(super) fn new(context: &RootfsContext<'_>, readonly: bool) -> Self {
        let c_string = |text: &[u8]| CString::new(text).unwrap_or_default();
        let c_path = |path: &Path| c_string(path.as_os_str().as_bytes());
        let readonly = readonly || context.rootless && !context.new_cgroup_ns;
        // A scope exists only once the process is in it.
        let systemd = matches!(context.cgroup.driver(), Driver::Systemd);
        match hull_cgroup::mount::describe(context.hierarchies, context.cgroup) {
            None => Self::None,
            Some(CgroupMount::V2 { group }) => {
                let mount = context.new_cgroup_ns || !context.rootless;
                Self::V2 { mount, group: c_path(&group), readonly, after_attach: systemd || context.new_cgroup_ns }
            }
            Some(CgroupMount::V1 { hierarchies, links }) => Self::V1 {
                hierarchies: hierarchies
                    .iter()
                    .map(|one| (c_string(one.name.as_bytes()), c_path(&one.group)))
                    .collect(),
                links: links
                    .iter()
                    .map(|(name, target)| (c_string(name.as_bytes()), c_string(target.as_bytes())))
                    .collect(),
                parameters: [("source", "cgroup"), ("mode", "755"), ("size", "64k")]
                    .iter()
                    .filter_map(|(key, value)| Parameter::new(key, Some(value)))
                    .collect(),
                readonly,
                after_attach: systemd,
            },
        }
    }

    /// Whether the mount must wait until the process is in its cgroup and cgroup namespace. Binding the group of a v1
    /// hierarchy shows the same and need not.
    pub(super) fn needs_namespace(&self) -> bool {
        match self {
            Self::None => false,
            Self::V2 { after_attach, .. } | Self::V1 { after_attach, .. } => *after_attach,
        }
    }

    pub(super) fn mount(
        &self,
        target: BorrowedFd<'_>,
        attributes: Change,
        propagation: &[(Propagation, bool)],
    ) -> Result<(), Errno> {
        let tree = match self {
            Self::None => return Err(Errno::NODEV),
            Self::V2 { mount, group, readonly, .. } => {
                let tree = v2(*mount, group, attributes, *readonly)?;
                mount::attach(tree.as_fd(), target)?;
                tree
            }
            Self::V1 { hierarchies, links, parameters, readonly, .. } => {
                v1(target, hierarchies, links, parameters, attributes, *readonly)?
            }
        };
        for (kind, recursive) in propagation {
            mount::propagate(tree.as_fd(), *kind, *recursive)?;
        }
        Ok(())
    }
}

fn with_readonly(attributes: Change, readonly: bool) -> Change {
    let set = if readonly { attributes.set | Attributes::RDONLY } else { attributes.set };
    Change { set, clear: attributes.clear }
}

fn bind_group(group: &CStr, attributes: Change) -> Result<OwnedFd, Errno> {
    let tree = mount::open_source(group, false, true)?;
    mount::change(tree.as_fd(), attributes, false, None)?;
    Ok(tree)
}

fn v2(mount: bool, group: &CStr, attributes: Change, readonly: bool) -> Result<OwnedFd, Errno> {
    let attributes = with_readonly(attributes, readonly);
    if mount {
        match mount::new_file_system(c"cgroup2", &[], None, attributes.set) {
            Err(Errno::PERM | Errno::BUSY) => {}
            result => return result,
        }
    }
    bind_group(group, attributes)
}

fn v1(
    target: BorrowedFd<'_>,
    hierarchies: &[(CString, CString)],
    links: &[(CString, CString)],
    parameters: &[Parameter],
    attributes: Change,
    readonly: bool,
) -> Result<OwnedFd, Errno> {
    let tmpfs = mount::new_file_system(c"tmpfs", parameters, None, attributes.set - Attributes::RDONLY)?;
    mount::attach(tmpfs.as_fd(), target)?;
    let attributes = with_readonly(attributes, readonly);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for (name, group) in hierarchies {
        let tree = match bind_group(group, attributes) {
            // A group that the container has no part in.
            Err(Errno::NOENT) => continue,
            result => result?,
        };
        rustix::fs::mkdirat(&tmpfs, name.as_c_str(), Mode::from_raw_mode(0o755))?;
        let directory = rustix::fs::openat(&tmpfs, name.as_c_str(), flags, Mode::empty())?;
        mount::attach(tree.as_fd(), directory.as_fd())?;
    }
    for (name, to) in links {
        rustix::fs::symlinkat(to.as_c_str(), &tmpfs, name.as_c_str())?;
    }
    if readonly {
        mount::make_readonly(tmpfs.as_fd(), false)?;
    }
    Ok(tmpfs)
}
