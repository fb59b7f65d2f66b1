//! `image mount`: an image's files at a path of the host, read-only.
//!
//! ```text
//! ROOT/mounted/lock       held while a record or mount is made or removed
//! ROOT/mounted/HEX.json   one for each mounted image: path, and the boot it was mounted in
//! ROOT/mounted/HEX/       where it is mounted when no path is given
//! ```
//!
//! This is the one mount that Hull leaves on the host, because it is asked for. The record is written before the mount
//! and removed after it: what is mounted is always known. A record of another boot, or one whose path is no mount (the
//! command was killed), is removed by [`Engine::repair`]; without any record that costs one failed look-up. A mounted
//! image is held under `mount:HEX`, so nothing removes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_fs::lock::Lock;
use hull_image::Image;
use hull_oci::Digest;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::records::{self, Engine};
use crate::rootfs;

/// A mounted image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// The image's ID.
    pub image: Digest,
    /// Where its files are.
    pub path: PathBuf,
    /// Boot that the mount belongs to.
    boot: String,
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Whether something is mounted there.
fn is_mounted(path: &Path) -> bool {
    // `..` of a mount's root is in another mount; device numbers alone do not tell bind mounts.
    let id = |path: &Path| {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::statx(CWD, path, flags, rustix::fs::StatxFlags::MNT_ID).map(|found| found.stx_mnt_id).ok()
    };
    match (id(path), path.parent().and_then(id)) {
        (Some(own), Some(above)) => own != above,
        _ => false,
    }
}

impl Engine {
    fn mounted(&self) -> PathBuf {
        self.root().join("mounted")
    }

    fn mount_record(&self, image: &Digest) -> PathBuf {
        self.mounted().join(format!("{}.json", image.hex()))
    }

    fn lock_mounted(&self) -> Result<Lock, Error> {
        records::create_private(&self.mounted())?;
        Ok(Lock::exclusive(&self.mounted().join("lock"))?)
    }

    /// Mounts an image at an existing directory, or at one of the store's. An image that is mounted stays where it is.
    ///
    /// # Errors
    /// When there is no such image, the directory cannot be used, or mounting is not permitted.
    pub fn mount_image(&self, text: &str, target: Option<&Path>) -> Result<PathBuf, Error> {
        let image = self.images.find(text)?;
        let _lock = self.lock_mounted()?;
        let record = self.mount_record(&image.id);
        if let Ok(known) = records::read::<ImageMount>(&record)
            && is_mounted(&known.path)
        {
            return match target {
                Some(target) if fs::canonicalize(target).ok().as_ref() != Some(&known.path) => {
                    let reason = format!("image {} is mounted at {} already", image.id.short(), known.path.display());
                    Err(Error::flag("image mount", reason))
                }
                _ => Ok(known.path),
            };
        }
        let path = match target {
            Some(target) => fs::canonicalize(target).map_err(Error::io("open", target))?,
            None => {
                let path = self.mounted().join(image.id.hex());
                records::create_private(&path)?;
                path
            }
        };
        let owner = owner(&image.id);
        self.images.hold(&owner, &image.id)?;
        let mount = ImageMount { image: image.id.clone(), path: path.clone(), boot: boot() };
        let done = records::write(&record, &mount).and_then(|()| self.attach_image(&image, &path));
        if done.is_err() {
            // The error is what the user needs; what stays is removed by the next repair.
            let _ = self.forget_mount(&mount);
        }
        done.map(|()| path)
    }

    fn attach_image(&self, image: &Image, path: &Path) -> Result<(), Error> {
        let lower = self.lower(image.diff_ids())?;
        let mut layers = lower.layers().to_vec();
        // Also below a single layer, so that its marks for removed names are not seen as devices.
        layers.push(Arc::new(self.empty()?));
        if layers.len() == 1 {
            layers.push(Arc::new(self.skeleton()?));
        }
        let mount = rootfs::overlay(&layers)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&mount, "", CWD, path, flags).map_err(Error::io("mount image at", path))?;
        Ok(lower.release()?)
    }

    /// The mounted images.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn image_mounts(&self) -> Result<Vec<ImageMount>, Error> {
        let mut mounts: Vec<ImageMount> =
            self.mount_records()?.into_iter().filter(|one| is_mounted(&one.path)).collect();
        mounts.sort_by(|a, b| a.image.cmp(&b.image));
        Ok(mounts)
    }

    fn mount_records(&self) -> Result<Vec<ImageMount>, Error> {
        let directory = self.mounted();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("read", &directory))?,
        };
        let files = entries.flatten().map(|entry| entry.path());
        let records = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        Ok(records.filter_map(|path| records::read(&path).ok()).collect())
    }

    /// Unmounts an image and returns its ID. With `force` also one whose files are open: it is then gone from the path
    /// at once, and from the machine when they are closed.
    ///
    /// # Errors
    /// [`Error::NotMounted`]; when something uses the mount.
    pub fn unmount_image(&self, text: &str, force: bool) -> Result<Digest, Error> {
        let image = self.images.find(text)?.id;
        let _lock = self.lock_mounted()?;
        let none = || Error::NotMounted(image.to_string());
        let mount: ImageMount = match records::read(&self.mount_record(&image)) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Err(none()),
            record => record?,
        };
        let there = is_mounted(&mount.path);
        if there {
            let mut flags = UnmountFlags::NOFOLLOW;
            flags.set(UnmountFlags::DETACH, force);
            rustix::mount::unmount(&mount.path, flags).map_err(Error::io("unmount", &mount.path))?;
        }
        self.forget_mount(&mount)?;
        if there { Ok(image) } else { Err(none()) }
    }

    /// Removes the record, the directory and the hold of a mount that is gone.
    fn forget_mount(&self, mount: &ImageMount) -> Result<(), Error> {
        let own = self.mounted().join(mount.image.hex());
        if mount.path == own {
            match rustix::fs::rmdir(&own) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(Error::io("remove", &own)(errno)),
            }
        }
        self.images.release(&owner(&mount.image))?;
        let record = self.mount_record(&mount.image);
        match fs::remove_file(&record) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &record)(error)),
            _ => Ok(()),
        }
    }

    /// Forgets the mounts of another boot and those that were never made.
    pub(crate) fn repair_image_mounts(&self) -> Result<(), Error> {
        let stale = |mount: &ImageMount| mount.boot != boot() || !is_mounted(&mount.path);
        // Nearly always there is no such directory at all.
        if !self.mount_records()?.iter().any(stale) {
            return Ok(());
        }
        let _lock = self.lock_mounted()?;
        let mut result = Ok(());
        // Again: whoever held the lock may have finished its mount.
        for mount in self.mount_records()?.iter().filter(|mount| stale(mount)) {
            result = result.and(self.forget_mount(mount));
        }
        result
    }
}

fn owner(image: &Digest) -> String {
    format!("mount:{}", image.hex())
}
