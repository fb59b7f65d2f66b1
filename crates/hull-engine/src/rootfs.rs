//! What containers see below their writable layer, and reading it without a container.
//!
//! ```text
//! upper                   the container's writable layer
//! layers of the image     uppermost first; see `hull_image::snapshot`
//! STATE/skeleton/         what every container has mounts on: proc, sys, dev, three files of etc
//! ```
//!
//! The skeleton is the lowest layer, so it shows only where the image has nothing. It keeps the writable layer free of
//! what the start would have to make there: `diff` and `commit` see what the container did, and nothing else.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_fs::Root;
use hull_image::snapshot::Lower;
use hull_image::snapshot::merged::Merged;
use hull_image::snapshot::shared::Mounts;
use hull_oci::Digest;
use hull_oci::spec::User;
use hull_runtime::process::user;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::config::RunConfig;
use crate::error::Error;
use crate::names;
use crate::records::Engine;

/// Files of the skeleton that containers get their own content of.
const FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];

/// Directories of the skeleton.
const DIRECTORIES: [&str; 4] = ["dev", "etc", "proc", "sys"];

/// The files that a container's user is looked up in.
pub(crate) enum Files {
    /// Layers of an image.
    Layers(Merged),
    /// A directory of the user's.
    Directory(Root),
}

impl Files {
    fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        match self {
            Self::Layers(merged) => Ok(merged.read(Path::new(path), user::MAX_FILE)?.unwrap_or_default()),
            Self::Directory(root) => match root.read_bounded(Path::new(path), user::MAX_FILE) {
                Err(error) if error.is_not_found() => Ok(Vec::new()),
                result => Ok(result?),
            },
        }
    }

    /// Whether there is a directory at a path.
    pub(crate) fn has_directory(&self, path: &Path) -> bool {
        match self {
            Self::Layers(merged) => {
                let path = path.strip_prefix("/").unwrap_or(path);
                matches!(merged.find(path), Ok(Some(hull_image::snapshot::merged::Found::Directory(_))))
            }
            Self::Directory(root) => {
                root.resolve(path).is_ok_and(|found| hull_fs::inside::file_type(found).is_ok_and(|kind| kind.is_dir()))
            }
        }
    }

    /// User and groups by the container's own files.
    pub(crate) fn user(&self, config: &RunConfig, image: &str) -> Result<User, Error> {
        let text = config.user.as_deref().filter(|text| !text.is_empty()).unwrap_or(image);
        let text = if text.is_empty() { "0" } else { text };
        let (passwd, group) = (self.read("etc/passwd")?, self.read("etc/group")?);
        let resolve = |flag: &str, text: &str| {
            user::resolve_in(&passwd, &group, text).map_err(|error| {
                let reason = error.to_string();
                Error::flag(flag, reason.strip_prefix("config field `user`: ").unwrap_or(&reason))
            })
        };
        let user = resolve("--user", text)?;
        // The primary group too: leaving it is not a way around what a file forbids its group.
        let mut groups = user.additional_gids;
        if !groups.contains(&user.gid) {
            groups.insert(0, user.gid);
        }
        for group in &config.groups {
            let gid = resolve("--group-add", &format!("0:{group}"))?.gid;
            if !groups.contains(&gid) {
                groups.push(gid);
            }
        }
        Ok(User { uid: user.uid, gid: user.gid, umask: None, additional_gids: groups })
    }
}

pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("open", path))
}

/// The root of a container belongs to whom the image's root belongs to.
pub(crate) fn copy_root_attributes(lower: &[Arc<OwnedFd>], upper: &Path) -> Result<(), Error> {
    let fail = |errno: Errno| Error::io("set attributes of", upper)(errno);
    let (mut mode, mut owner) = (0o755, (0, 0));
    if let Some(top) = lower.first() {
        let stat = rustix::fs::fstat(top).map_err(fail)?;
        (mode, owner) = (stat.st_mode & 0o7777, (stat.st_uid, stat.st_gid));
    }
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if owner != own && own.0 == 0 {
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.0), rustix::fs::Gid::from_raw(owner.1));
        rustix::fs::chown(upper, Some(uid), Some(gid)).map_err(fail)?;
    }
    rustix::fs::chmod(upper, Mode::from_raw_mode(mode)).map_err(fail)
}

impl Engine {
    /// The mounts of layers that containers share.
    pub(crate) fn mounts(&self) -> Mounts {
        Mounts::new(self.state_root())
    }

    /// Opens an image's layers; the mounts are lent to others until this is released.
    pub(crate) fn lower<'d>(
        &self,
        diff_ids: impl IntoIterator<Item = &'d Digest, IntoIter: DoubleEndedIterator>,
    ) -> Result<Lower, Error> {
        let names = diff_ids.into_iter().map(Digest::hex);
        Ok(Lower::open(&self.root().join("layers"), &self.mounts(), names)?)
    }

    /// The lowest layer of every container, made at its first use.
    pub(crate) fn skeleton(&self) -> Result<OwnedFd, Error> {
        let path = self.state_root().join("skeleton");
        match open_directory(&path) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            result => return result,
        }
        // It appears whole, by a rename; what a killed command left is harmless, and goes with the machine.
        let new = self.state_root().join(format!("skeleton-{}", &names::hex(&names::random()?)[..12]));
        let make = |path: &Path, mode: u32, directory: bool| {
            let made = if directory { fs::create_dir_all(path) } else { File::create_new(path).map(drop) };
            made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
                .map_err(Error::io("create", path))
        };
        make(&new, 0o755, true)?;
        for name in DIRECTORIES {
            make(&new.join(name), 0o755, true)?;
        }
        for name in FILES {
            make(&new.join(name), 0o644, false)?;
        }
        match fs::rename(&new, &path) {
            Ok(()) => {}
            // Another was faster.
            Err(_) if path.is_dir() => fs::remove_dir_all(&new).map_err(Error::io("remove", &new))?,
            Err(error) => return Err(Error::io("create", &path)(error)),
        }
        open_directory(&path)
    }

    /// An empty directory: an overlay without writable layer has at least two others.
    pub(crate) fn empty(&self) -> Result<OwnedFd, Error> {
        let path = self.state_root().join("empty");
        fs::create_dir_all(&path).map_err(Error::io("create directory", &path))?;
        open_directory(&path)
    }

    /// Bytes that a container has written to its own layer.
    #[must_use]
    pub fn written(&self, id: &str) -> u64 {
        crate::usage::written(&self.upper(id))
    }

    /// A container's writable layer.
    pub(crate) fn upper(&self, id: &str) -> PathBuf {
        self.directory(id).join("upper")
    }
}

/// A read-only overlay of layers, uppermost first, attached nowhere.
pub(crate) fn overlay(layers: &[Arc<OwnedFd>]) -> Result<OwnedFd, Error> {
    make_overlay(layers, None)
}

/// An overlay like that of the container itself, attached nowhere. The container must not run.
pub(crate) fn overlay_above(layers: &[Arc<OwnedFd>], upper: &Path, work: &Path) -> Result<OwnedFd, Error> {
    make_overlay(layers, Some((upper, work)))
}

fn make_overlay(layers: &[Arc<OwnedFd>], writable: Option<(&Path, &Path)>) -> Result<OwnedFd, Error> {
    let mount = || {
        let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, c"source", c"overlay")?;
        let by_descriptor =
            layers.iter().try_for_each(|layer| rustix::mount::fsconfig_set_fd(&context, c"lowerdir+", layer.as_fd()));
        let context = match by_descriptor {
            Ok(()) => context,
            // Before Linux 6.13. Links of descriptors are short, but hundreds need more than one option holds.
            Err(_) => {
                let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
                for layer in layers {
                    let link = format!("/proc/self/fd/{}", layer.as_raw_fd());
                    rustix::mount::fsconfig_set_string(&context, c"lowerdir+", link)?;
                }
                context
            }
        };
        let optional = |key: &std::ffi::CStr, value: &std::ffi::CStr| match rustix::mount::fsconfig_set_string(
            &context, key, value,
        ) {
            Err(Errno::INVAL) => Ok(()),
            result => result,
        };
        optional(c"xino", c"auto")?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
        if let Some((upper, work)) = writable {
            rustix::mount::fsconfig_set_string(&context, c"upperdir", upper)?;
            rustix::mount::fsconfig_set_string(&context, c"workdir", work)?;
            // As the runtime mounts it: what the container's layer says does not depend on who wrote it.
            for key in [c"redirect_dir", c"metacopy", c"index"] {
                optional(key, c"off")?;
            }
            attributes = MountAttrFlags::empty();
        }
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    mount().map_err(|errno: Errno| Error::io("mount overlay of", format!("{} layers", layers.len()))(errno))
}
/// Whether a directory of the user's can be the root of a container with users of its own.
///
/// # Errors
/// A sentence that says why not.
pub fn can_map_owners(path: &Path) -> Result<(), String> {
    hull_runtime::rootfs::can_map_owners(path).map_err(|errno| {
        let path = hull_oci::spec::one_line(&path.to_string_lossy());
        match errno {
            Errno::INVAL => format!("{path}: what is mounted there cannot map owners (no idmapped mounts)"),
            errno => format!("{path}: its owners cannot be mapped: {errno}"),
        }
    })
}
