//! An overlay as root mount, made in the container's own mount namespace.
//!
//! The kernel refuses layers that lie in another mount namespace, and a descriptor that the parent has opened does. So
//! the child passes a layer as the path of its directory, or as a detached mount, which lies in none (Linux 6.15). A
//! child in a user namespace may use neither detached mounts nor, often, the paths: for it the parent makes the
//! overlay, still attached nowhere, and the child attaches it.
//!
//! With a new user namespace and the privilege for it, every layer is passed as an idmapped mount ([`mapped`]): the
//! files' owners on disk stay the container's own numbers, and become IDs of the container's block only in what it sees.
//!
//! The writable layer must be readable without the others: a commit takes whole files and real names from it. So what a
//! kernel may do by default to save copies (`metacopy`, `redirect_dir`) is switched off.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use hull_oci::spec::IdMapping;
use hull_sys::mount::{Attributes, Lookup, mount_setattr};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use super::plan::c_path;
use crate::error::Error;

/// The kernel's limit of lower layers.
const MAX_LAYERS: usize = 500;

/// Where an overlay is attached by a child that may not look into the container's directory. What is below is hidden
/// from that child alone, which needs nothing of it: sources of mounts were opened before.
const REACHABLE: [&CStr; 4] = [c"/tmp", c"/mnt", c"/var", c"/usr"];

/// One directory of an overlay.
#[derive(Debug)]
struct Layer {
    /// Path of the directory, or `/proc/self/fd/N` of a detached mount.
    path: CString,
    detached: Option<Arc<OwnedFd>>,
}

/// An overlay, prepared.
#[derive(Debug)]
pub(super) struct OverlayPlan {
    lower: Vec<Layer>,
    /// All lower paths joined, for kernels without `lowerdir+` (before 6.8).
    joined: CString,
    upper: CString,
    work: CString,
    pub(super) target: CString,
    userxattr: bool,
    volatile: bool,
    /// Made by the parent.
    made: Option<OwnedFd>,
}

impl OverlayPlan {
    /// `userns` tells that the child will be in a user namespace; with a `mapping` it is one of its own.
    pub(super) fn new(
        lower: &[Arc<OwnedFd>],
        [upper, work, target]: [&Path; 3],
        volatile: bool,
        userns: bool,
        mapping: Option<&Mapping>,
    ) -> Result<Self, Error> {
        if lower.is_empty() || lower.len() > MAX_LAYERS {
            return Err(Error::config("root.path", format!("{} layers, expected 1 to {MAX_LAYERS}", lower.len())));
        }
        let mounts = lower;
        let lower: Vec<Layer> = lower.iter().map(Layer::lower).collect();
        let mut joined = Vec::new();
        for layer in &lower {
            if !joined.is_empty() {
                joined.push(b':');
            }
            for byte in layer.path.as_bytes() {
                if matches!(byte, b':' | b'\\') {
                    joined.push(b'\\');
                }
                joined.push(*byte);
            }
        }
        let mut plan = Self {
            lower,
            joined: CString::new(joined).map_err(|_| Error::config("root.path", "holds a null byte"))?,
            upper: c_path("root.path", upper)?,
            work: c_path("root.path", work)?,
            target: c_path("root.path", target)?,
            userxattr: false,
            volatile,
            made: None,
        };
        if let Some(mapping) = mapping {
            let made = plan.mount_mapped(mounts, [upper, work], mapping);
            plan.made = Some(made.map_err(Error::system("mount overlay of idmapped layers for", target.display()))?);
            if let Some(reachable) = reachable() {
                reachable.clone_into(&mut plan.target);
            }
        } else if userns {
            match plan.mount() {
                Ok(made) => plan.made = Some(made),
                // An ordinary user may mount only inside the new user namespace.
                Err(Errno::PERM) => plan.userxattr = true,
                Err(errno) => return Err(Error::system("mount overlay for", target.display())(errno)),
            }
        }
        Ok(plan)
    }

    /// The overlay that the parent has made, or one made now.
    pub(super) fn take_or_mount(&mut self) -> Result<OwnedFd, Errno> {
        match self.made.take() {
            Some(made) => Ok(made),
            None => self.mount(),
        }
    }

    /// Makes the overlay, attached nowhere.
    fn mount(&self) -> Result<OwnedFd, Errno> {
        let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, c"source", c"overlay")?;
        self.set_lower(context.as_fd())?;
        rustix::mount::fsconfig_set_string(&context, c"upperdir", self.upper.as_c_str())?;
        rustix::mount::fsconfig_set_string(&context, c"workdir", self.work.as_c_str())?;
        self.finish(&context)
    }

    /// The overlay of the same layers as idmapped mounts (all by descriptor, Linux 6.13; detached, 6.15). Whoever makes
    /// files below must be somebody in the mapping: the overlay keeps its maker's identity, which is therefore the
    /// container's root for as long as that takes.
    fn mount_mapped(
        &self,
        lower: &[Arc<OwnedFd>],
        [upper, work]: [&Path; 2],
        mapping: &Mapping,
    ) -> Result<OwnedFd, Errno> {
        let top = upper.parent().ok_or(Errno::INVAL)?;
        let inside = |path: &Path| path.strip_prefix(top).map(Path::to_path_buf).map_err(|_| Errno::INVAL);
        let (upper, work) = (inside(upper)?, inside(work)?);
        let top = mapped(CWD, top, mapping, false)?;
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&top, path, flags, Mode::empty())
        };
        let (upper, work) = (open(&upper)?, open(&work)?);
        let lower: Vec<OwnedFd> =
            lower.iter().map(|layer| mapped(layer.as_fd(), Path::new(""), mapping, false)).collect::<Result<_, _>>()?;
        as_somebody::<_, Errno>(mapping.root, || {
            let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
            rustix::mount::fsconfig_set_string(&context, c"source", c"overlay")?;
            for layer in &lower {
                rustix::mount::fsconfig_set_fd(&context, c"lowerdir+", layer)?;
            }
            rustix::mount::fsconfig_set_fd(&context, c"upperdir", &upper)?;
            rustix::mount::fsconfig_set_fd(&context, c"workdir", &work)?;
            self.finish(&context)
        })
    }

    /// Options, and the mount.
    fn finish(&self, context: &OwnedFd) -> Result<OwnedFd, Errno> {
        if self.userxattr {
            rustix::mount::fsconfig_set_flag(context, c"userxattr")?;
        } else {
            // Without `trusted` attributes the kernel redirects nothing, and takes no word about it.
            optional(rustix::mount::fsconfig_set_string(context, c"redirect_dir", c"off"))?;
        }
        for (key, value) in [(c"metacopy", c"off"), (c"index", c"off"), (c"xino", c"auto")] {
            optional(rustix::mount::fsconfig_set_string(context, key, value))?;
        }
        if self.volatile {
            // Since Linux 5.10; without it the container is only slower to sync.
            optional(rustix::mount::fsconfig_set_flag(context, c"volatile"))?;
        }
        rustix::mount::fsconfig_create(context)?;
        rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// Passes the lower layers one by one, or on older kernels all in one string.
    fn set_lower(&self, context: BorrowedFd<'_>) -> Result<(), Errno> {
        for (index, layer) in self.lower.iter().enumerate() {
            match layer.set(context, c"lowerdir+") {
                Err(Errno::INVAL) if index == 0 => {
                    return rustix::mount::fsconfig_set_string(context, c"lowerdir", self.joined.as_c_str());
                }
                result => result?,
            }
        }
        Ok(())
    }
}

pub(super) fn reachable() -> Option<&'static CStr> {
    REACHABLE.into_iter().find(|path| rustix::fs::stat(*path).is_ok())
}

/// Whose IDs a container's are.
#[derive(Debug)]
pub(super) struct Mapping {
    /// A user namespace with the maps.
    pub(super) namespace: Rc<OwnedFd>,
    /// User and group of the machine that are the container's root.
    pub(super) root: (u32, u32),
}

/// A detached, idmapped copy of a mount, or of all that is mounted below too.
pub(super) fn mapped(
    directory: BorrowedFd<'_>,
    path: &Path,
    mapping: &Mapping,
    recursive: bool,
) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mut lookup = Lookup::EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
        lookup |= Lookup::RECURSIVE;
    }
    let tree = rustix::mount::open_tree(directory, path, flags)?;
    let namespace = Some(mapping.namespace.as_fd());
    mount_setattr(tree.as_fd(), c"", lookup, Attributes::IDMAP, Attributes::empty(), None, namespace)?;
    Ok(tree)
}

/// Whether the owners of all files below a directory can be mapped: what is mounted there must know idmapped mounts (ext4,
/// XFS and Btrfs do since Linux 5.15, tmpfs since 6.3; overlays do not).
///
/// # Errors
/// `EINVAL` when it cannot; what keeps the caller from trying.
pub fn can_map_owners(directory: &Path) -> Result<(), Errno> {
    // Any IDs but the machine's own; none is ever stored.
    let maps = [IdMapping { container_id: 0, host_id: 1 << 20, size: 1 << 16 }];
    let namespace = Rc::new(super::idmap::make(&maps, &maps)?);
    mapped(CWD, directory, &Mapping { namespace, root: (0, 0) }, true).map(drop)
}

/// Does something as another user and group with all of root's capabilities, and is root again.
///
/// # Errors
/// What the work fails with, or what keeps this thread from changing who it is.
pub fn as_somebody<T, E: From<Errno>>((uid, gid): (u32, u32), work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    use rustix::process::{Gid, Uid};
    let dumpable = rustix::process::dumpable_behavior()?;
    let sets = rustix::thread::capabilities(None)?;
    let back = || {
        rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
        rustix::thread::set_capabilities(None, sets)?;
        rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
        rustix::process::set_dumpable_behavior(dumpable)
    };
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::from_raw(gid), Gid::ROOT)?;
    let done = rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::from_raw(uid), Uid::ROOT)
        .and_then(|()| rustix::thread::set_capabilities(None, sets))
        .map_err(E::from)
        .and_then(|()| work());
    back()?;
    done
}

/// A kernel that does not know an option does not do what the option switches off.
fn optional(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::INVAL) => Ok(()),
        other => other,
    }
}

impl Layer {
    fn lower(fd: &Arc<OwnedFd>) -> Self {
        if let Some(path) = path_of(fd.as_fd()) {
            return Self { path, detached: None };
        }
        let path = CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default();
        Self { path, detached: Some(Arc::clone(fd)) }
    }

    fn set(&self, context: BorrowedFd<'_>, key: &CStr) -> Result<(), Errno> {
        if let Some(mount) = &self.detached {
            match rustix::mount::fsconfig_set_fd(context, key, mount) {
                // Layers by descriptor came with Linux 6.13.
                Err(Errno::INVAL | Errno::BADF) => {}
                result => return result,
            }
        }
        rustix::mount::fsconfig_set_string(context, key, self.path.as_c_str())
    }
}

/// The path of an open directory, if it still leads to the same one; a detached mount has none.
fn path_of(fd: BorrowedFd<'_>) -> Option<CString> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let path = rustix::fs::readlinkat(CWD, link, Vec::new()).ok()?;
    let (found, wanted) = (rustix::fs::lstat(&path).ok()?, rustix::fs::fstat(fd).ok()?);
    let same = (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino);
    let absolute = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())).is_absolute();
    (same && absolute).then_some(path)
}
