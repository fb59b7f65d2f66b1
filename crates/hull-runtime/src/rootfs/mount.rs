//! One mount: made detached, attached to a descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use hull_fs::inside;
use hull_sys::mount::{Attributes, Lookup, Propagation, mount_setattr};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::cgroup::CgroupPlan;
use super::copy_up;
use super::options::{Change, Parameter};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// Where a bind mount comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// A path of the host, opened by the child.
    Path(CString),
    /// A detached tree, opened by the parent; taken when it is attached.
    Tree(Option<OwnedFd>),
}

/// What is mounted.
#[derive(Debug)]
pub(super) enum Kind {
    FileSystem {
        fs_type: CString,
        parameters: Vec<Parameter>,
        copy_up: bool,
        /// Take the permission bits of the directory underneath.
        inherit_mode: bool,
        /// Host directory bound read-only when a user namespace may not mount the type itself.
        fallback: Option<CString>,
    },
    Bind {
        source: Source,
        recursive: bool,
        nofollow: bool,
    },
    /// A symbolic link made instead of a mount.
    Symlink(CString),
    Cgroup(CgroupPlan),
    Remount {
        parameters: Vec<Parameter>,
    },
}

/// One entry of `mounts`, prepared.
#[derive(Debug)]
pub(super) struct MountPlan {
    /// As in the specification.
    pub(super) target: PathBuf,
    /// `target` without `..`, for comparisons and messages.
    pub(super) destination: PathBuf,
    pub(super) type_name: String,
    pub(super) kind: Kind,
    /// No component of the target may be a symbolic link.
    pub(super) ordinary: bool,
    pub(super) target_nofollow: bool,
    /// The target is `/proc` itself: only a procfs goes there.
    pub(super) is_proc_root: bool,
    /// The target is one of the few files of procfs that may be covered.
    pub(super) over_proc: bool,
    pub(super) attributes: Change,
    pub(super) recursive: Change,
    pub(super) propagation: Vec<(Propagation, bool)>,
    /// Maps IDs; `true` includes submounts.
    pub(super) userns: Option<(Rc<OwnedFd>, bool)>,
    /// Made read-only by [`super::RootfsPlan::finish`].
    pub(super) seal: bool,
    /// Read-only and masked paths are below it: they are found from the mount itself, whatever its directory is called
    /// by then (CVE-2023-27561).
    pub(super) holds_protected: bool,
    /// The mount, kept until it is sealed and protected.
    pub(super) attached: Option<OwnedFd>,
}

impl MountPlan {
    pub(super) fn needs_cgroup_namespace(&self) -> bool {
        matches!(&self.kind, Kind::Cgroup(plan) if plan.needs_namespace())
    }

    pub(super) fn is_open_tree(&self) -> bool {
        matches!(self.kind, Kind::Bind { source: Source::Tree(Some(_)), .. })
    }

    pub(super) fn describe(&self, errno: Errno) -> String {
        let on = self.destination.display();
        if self.ordinary && matches!(errno, Errno::LOOP | Errno::NOTDIR) {
            return format!("mount {} on {on}: must be mounted on ordinary directory", self.type_name);
        }
        match &self.kind {
            Kind::Bind { source: Source::Path(path), .. } => format!("bind mount {} on {on}", path.to_string_lossy()),
            Kind::Remount { .. } => format!("remount {on}"),
            Kind::Symlink(target) => format!("create link {on} to {}", target.to_string_lossy()),
            _ => format!("mount {} on {on}", self.type_name),
        }
    }
}

/// Clones the tree at a path of the host.
pub(super) fn open_source(path: &CStr, recursive: bool, nofollow: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if nofollow {
        flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    }
    rustix::mount::open_tree(CWD, path, flags)
}

/// Clones the mount at a descriptor.
pub(super) fn clone_tree(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(fd, c"", flags)
}

/// Attaches a detached mount to what a descriptor refers to.
pub(super) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, c"", target, c"", flags)
}

/// Changes a mount that a descriptor refers to.
pub(super) fn change(
    mount: BorrowedFd<'_>,
    change: Change,
    recursive: bool,
    userns: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let lookup = if recursive { Lookup::EMPTY_PATH | Lookup::RECURSIVE } else { Lookup::EMPTY_PATH };
    let set = if userns.is_some() { change.set | Attributes::IDMAP } else { change.set };
    match mount_setattr(mount, c"", lookup, set, change.clear, None, userns) {
        // Flags of a source that came from a more privileged namespace are locked: they stay.
        Err(Errno::PERM) if !change.clear.is_empty() && userns.is_none() => {
            let clear = change.clear & atime_mask(change.set);
            mount_setattr(mount, c"", lookup, set, clear, None, None).or_else(|errno| {
                let set = set - Attributes::ATIME_MASK;
                if errno == Errno::PERM {
                    mount_setattr(mount, c"", lookup, set, Attributes::empty(), None, None)
                } else {
                    Err(errno)
                }
            })
        }
        result => result,
    }
}

/// The kernel wants the whole access time field cleared when a part of it is set.
fn atime_mask(set: Attributes) -> Attributes {
    if set.intersects(Attributes::ATIME_MASK) { Attributes::ATIME_MASK } else { Attributes::empty() }
}

/// Makes the mount read-only and leaves the rest.
pub(super) fn make_readonly(mount: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    change(mount, Change { set: Attributes::RDONLY, clear: Attributes::empty() }, recursive, None)
}

/// Sets attributes and mappings of a detached tree.
fn set_attributes(plan: &MountPlan, tree: BorrowedFd<'_>) -> Result<(), Errno> {
    let userns = plan.userns.as_ref().map(|(fd, recursive)| (fd.as_fd(), *recursive));
    match userns {
        Some((fd, true)) => change(tree, plan.recursive, true, Some(fd))?,
        _ if !plan.recursive.is_empty() => change(tree, plan.recursive, true, None)?,
        _ => {}
    }
    match userns {
        Some((fd, false)) => change(tree, plan.attributes, false, Some(fd)),
        _ if !plan.attributes.is_empty() => change(tree, plan.attributes, false, None),
        _ => Ok(()),
    }
}

/// In the parent: sets the attributes of a tree that it has opened, so that the child need not.
pub(super) fn prepare(plan: &mut MountPlan) -> Result<(), Errno> {
    if let Kind::Bind { source: Source::Tree(Some(tree)), .. } = &plan.kind {
        set_attributes(plan, tree.as_fd())?;
    }
    Ok(())
}

/// Makes one mount inside the root mount.
pub(super) fn execute(root: BorrowedFd<'_>, plan: &mut MountPlan) -> Result<(), Errno> {
    let tree = match &mut plan.kind {
        Kind::Remount { .. } => return remount(root, plan),
        Kind::Symlink(target) => {
            let (parent, name) = inside::create_parent(root, &plan.target)?;
            return rustix::fs::symlinkat(target.as_c_str(), &parent, name);
        }
        Kind::Cgroup(cgroup) => {
            let target = resolve(root, plan_target(&plan.target, plan.ordinary, plan.target_nofollow), true)?;
            check_not_proc(target.as_fd())?;
            return cgroup.mount(target.as_fd(), plan.attributes, &plan.propagation);
        }
        Kind::FileSystem { .. } => None,
        Kind::Bind { source: Source::Tree(tree), .. } => Some((tree.take().ok_or(Errno::BADF)?, true)),
        Kind::Bind { source: Source::Path(path), recursive, nofollow } => {
            Some((open_source(path, *recursive, *nofollow)?, false))
        }
    };
    let directory = match &tree {
        Some((tree, _)) => inside::file_type(tree)?.is_dir(),
        None => true,
    };
    let target = resolve(root, plan_target(&plan.target, plan.ordinary, plan.target_nofollow), directory)?;
    if plan.is_proc_root {
        if let Some((tree, _)) = &tree
            && !is_proc(tree.as_fd())?
        {
            return Err(Errno::PERM);
        }
    } else if !plan.over_proc {
        check_not_proc(target.as_fd())?;
    }
    let tree = match tree {
        Some((tree, prepared)) => {
            if !prepared {
                set_attributes(plan, tree.as_fd())?;
            }
            tree
        }
        None => file_system(plan, target.as_fd())?,
    };
    attach(tree.as_fd(), target.as_fd())?;
    for (kind, recursive) in &plan.propagation {
        propagate(tree.as_fd(), *kind, *recursive)?;
    }
    if plan.seal || plan.holds_protected {
        plan.attached = Some(tree);
    }
    Ok(())
}

pub(super) fn propagate(mount: BorrowedFd<'_>, kind: Propagation, recursive: bool) -> Result<(), Errno> {
    let lookup = if recursive { Lookup::EMPTY_PATH | Lookup::RECURSIVE } else { Lookup::EMPTY_PATH };
    mount_setattr(mount, c"", lookup, Attributes::empty(), Attributes::empty(), Some(kind), None)
}

struct Target<'a> {
    path: &'a Path,
    ordinary: bool,
    nofollow: bool,
}

fn plan_target(path: &Path, ordinary: bool, nofollow: bool) -> Target<'_> {
    Target { path, ordinary, nofollow }
}

/// Finds or makes the target inside the root.
fn resolve(root: BorrowedFd<'_>, target: Target<'_>, directory: bool) -> Result<OwnedFd, Errno> {
    let Target { path, ordinary, nofollow } = target;
    if ordinary {
        return match inside::open_no_symlinks(root, path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {
                drop(inside::create_dir_all(root, path, DIRECTORY_MODE)?);
                inside::open_no_symlinks(root, path, OFlags::PATH | OFlags::DIRECTORY)
            }
            result => result,
        };
    }
    if nofollow {
        let (parent, name) = inside::create_parent(root, path)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
    }
    if directory {
        inside::create_dir_all(root, path, DIRECTORY_MODE)
    } else {
        inside::create_file(root, path, DIRECTORY_MODE)
    }
}

fn is_proc(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatfs(fd)?.f_type as u64 == PROC_SUPER_MAGIC)
}

/// A link elsewhere may lead into `/proc`: nothing is mounted there by that way either.
fn check_not_proc(target: BorrowedFd<'_>) -> Result<(), Errno> {
    if is_proc(target)? { Err(Errno::PERM) } else { Ok(()) }
}

/// Configures and makes a file system that nobody has mounted yet.
pub(super) fn new_file_system(
    fs_type: &CStr,
    parameters: &[Parameter],
    mode: Option<&CStr>,
    attributes: Attributes,
) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC)?;
    set_parameters(context.as_fd(), parameters)?;
    if let Some(mode) = mode {
        rustix::mount::fsconfig_set_string(&context, c"mode", mode)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    #[expect(clippy::cast_possible_truncation, reason = "every attribute fits 32 bits")]
    let flags = MountAttrFlags::from_bits_retain(attributes.bits() as u32);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

pub(super) fn set_parameters(context: BorrowedFd<'_>, parameters: &[Parameter]) -> Result<(), Errno> {
    for parameter in parameters {
        match &parameter.value {
            Some(value) => rustix::mount::fsconfig_set_string(context, parameter.key.as_c_str(), value.as_c_str())?,
            None => rustix::mount::fsconfig_set_flag(context, parameter.key.as_c_str())?,
        }
    }
    Ok(())
}

fn file_system(plan: &MountPlan, target: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let Kind::FileSystem { fs_type, parameters, copy_up, inherit_mode, fallback } = &plan.kind else {
        return Err(Errno::INVAL);
    };
    let mut buffer = [0u8; 8];
    let mode =
        if *inherit_mode { Some(octal(rustix::fs::fstat(target)?.st_mode & 0o7777, &mut buffer)?) } else { None };
    let tree = match (new_file_system(fs_type, parameters, mode, plan.attributes.set), fallback) {
        (Ok(tree), _) => tree,
        (Err(Errno::PERM), Some(path)) => return bind_readonly(path),
        (Err(errno), _) => return Err(errno),
    };
    if !plan.recursive.is_empty() {
        change(tree.as_fd(), plan.recursive, true, None)?;
    }
    if *copy_up {
        copy_up::copy(target, tree.as_fd())?;
    }
    Ok(tree)
}

/// A user namespace that does not own the network namespace sees the host's sysfs, and must not write it.
fn bind_readonly(path: &CStr) -> Result<OwnedFd, Errno> {
    let tree = open_source(path, true, true)?;
    let set = Attributes::RDONLY | Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC;
    change(tree.as_fd(), Change { set, clear: Attributes::empty() }, true, None)?;
    let flags = rustix::fs::fstatvfs(&tree)?.f_flag;
    if flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) { Ok(tree) } else { Err(Errno::PERM) }
}

/// Digits of a mode, without allocating.
fn octal(mode: u32, buffer: &mut [u8; 8]) -> Result<&CStr, Errno> {
    for (place, digit) in buffer.iter_mut().take(5).enumerate() {
        let shift = 12 - 3 * u32::try_from(place).map_err(|_| Errno::INVAL)?;
        *digit = b'0' + u8::try_from(mode >> shift & 7).map_err(|_| Errno::INVAL)?;
    }
    buffer[5] = 0;
    CStr::from_bytes_until_nul(buffer).map_err(|_| Errno::INVAL)
}

fn remount(root: BorrowedFd<'_>, plan: &MountPlan) -> Result<(), Errno> {
    let target = inside::open(root, plan.target.as_path(), OFlags::PATH, Mode::empty())?;
    if let Kind::Remount { parameters } = &plan.kind
        && !parameters.is_empty()
    {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        let context = rustix::mount::fspick(&target, c"", flags)?;
        set_parameters(context.as_fd(), parameters)?;
        rustix::mount::fsconfig_reconfigure(&context)?;
    }
    set_attributes(plan, target.as_fd())?;
    for (kind, recursive) in &plan.propagation {
        propagate(target.as_fd(), *kind, *recursive)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_in_octal() {
        let mut buffer = [0; 8];
        assert_eq!(octal(0o1777, &mut buffer).unwrap(), c"01777");
        assert_eq!(octal(0o755, &mut buffer).unwrap(), c"00755");
        assert_eq!(octal(0o7777, &mut buffer).unwrap(), c"07777");
    }
}
