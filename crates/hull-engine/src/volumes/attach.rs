//! Mounts made ready for a start: volumes made and filled, and whatever is no plain path of the host opened.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_fs::inside;
use hull_fs::lock::Lock;
use hull_oci::spec::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use super::mounts::clean;
use super::{ANONYMOUS, Volume, device, transfer};
use crate::config::{MountConfig, Source, VolumeConfig};
use crate::copy;
use crate::copy::place::{Existing, Policy, Users};
use crate::error::Error;
use crate::records::{Container, Engine, own_pid};
use crate::rootfs;

/// Goes on where an interrupted copy ended.
const FILL: Policy = Policy {
    existing: Existing::Keep,
    owners: true,
    devices: true,
    raw: false,
    owner: None,
    users: Users { from: 0, to: 0 },
};

/// Under which a container holds an image that it mounts.
pub(crate) fn image_owner(id: &str, index: usize) -> String {
    format!("container:{id}/{index}")
}

/// A detached copy of the mount at a descriptor.
fn clone_tree(found: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(found, c"", flags)
}

/// A path of a volume or an image, found inside it whatever it holds.
fn below(tree: OwnedFd, subpath: &str, shown: &Path) -> Result<OwnedFd, Error> {
    if subpath.is_empty() {
        return Ok(tree);
    }
    let fail = |errno: Errno| {
        let path = hull_oci::spec::one_line(&shown.join(subpath).to_string_lossy());
        Error::Volume(format!("cannot access path {path}: {}", std::io::Error::from(errno)))
    };
    let found = inside::open(tree.as_fd(), subpath, OFlags::PATH, Mode::empty()).map_err(fail)?;
    clone_tree(found.as_fd()).map_err(fail)
}

impl Engine {
    /// Makes the volumes of a container that are missing, and fills those that a new container finds empty.
    pub(crate) fn ready_volumes(
        &self,
        container: &Container,
        layers: Option<&[Arc<OwnedFd>]>,
        new: bool,
    ) -> Result<(), Error> {
        if let Some(size) = container.config.storage_size {
            if layers.is_none() {
                return Err(Error::flag(
                    "--storage-opt",
                    "size limits the layer above an image, which --rootfs has not",
                ));
            }
            let directory = self.directory(&container.id);
            super::limit_writes(&container.id, [&directory.join("upper"), &directory.join("work")], Some(size))?;
        }
        let mut root = None;
        for (index, mount) in container.config.mounts.iter().enumerate() {
            match mount {
                MountConfig::Volume { name, target, volume: config, .. } => {
                    let volume = self.ensure(name, config)?;
                    if volume.options.is_empty() && !config.no_copy && config.subpath.is_empty() {
                        self.fill(name, target, new, &mut root, || self.image_root(container, layers))?;
                    }
                }
                MountConfig::Image { image, .. } if new => {
                    self.images.hold(&image_owner(&container.id, index), &self.images.find(image)?.id)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn ensure(&self, name: &str, config: &VolumeConfig) -> Result<Volume, Error> {
        match self.volume(name) {
            Err(Error::NoVolume(_)) => {}
            result => return result,
        }
        let mut labels = config.labels.clone();
        if config.anonymous {
            labels.insert(ANONYMOUS.to_owned(), String::new());
        }
        self.create_volume(&Volume {
            name: name.to_owned(),
            driver: config.driver.clone(),
            options: config.driver_options.clone(),
            labels,
            anonymous: config.anonymous,
            created: 0,
        })
    }

    /// The files that a new container sees before anything is mounted.
    fn image_root(&self, container: &Container, layers: Option<&[Arc<OwnedFd>]>) -> Result<OwnedFd, Error> {
        match (&container.config.source, layers) {
            (Source::Directory(path), _) => rootfs::open_directory(path),
            (Source::Image(_), None) => Err(Error::NoContainer(container.id.clone())),
            (Source::Image(_), Some(layers)) => {
                let mut layers = layers.to_vec();
                layers.push(Arc::new(self.empty()?));
                if layers.len() == 1 {
                    layers.push(Arc::new(self.skeleton()?));
                }
                rootfs::overlay(&layers)
            }
        }
    }

    /// Copies what the image has at the target to an empty volume, or goes on with a copy that was interrupted.
    fn fill(
        &self,
        name: &str,
        target: &str,
        new: bool,
        root: &mut Option<OwnedFd>,
        open_root: impl FnOnce() -> Result<OwnedFd, Error>,
    ) -> Result<(), Error> {
        let directory = self.volume_directory(name);
        let (data, marker) = (self.volume_data(name), directory.join("filling"));
        let is_empty = || fs::read_dir(&data).is_ok_and(|mut entries| entries.next().is_none());
        let due = || marker.exists() || new && is_empty();
        if !due() {
            return Ok(());
        }
        let _lock = Lock::exclusive(&directory.join("fill.lock"))?;
        if !due() {
            return Ok(());
        }
        let root = match root {
            Some(root) => root,
            None => root.insert(open_root()?),
        };
        let found = match inside::open(root.as_fd(), target, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Ok(found) => Some(found),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
            Err(errno) => return Err(Error::io("open", target)(errno)),
        };
        if let Some(found) = found {
            fs::write(&marker, "").map_err(Error::io("write", &marker))?;
            copy::contents(found.as_fd(), transfer::open(&data)?.as_fd(), FILL)?;
        }
        match fs::remove_file(&marker) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &marker)(error)),
            _ => Ok(()),
        }
    }

    /// Completes the specification's mounts of volumes and images. What has no path of its own comes as a detached
    /// mount, with the place of its entry.
    pub(crate) fn attach_mounts(&self, container: &Container, spec: &mut Spec) -> Result<Vec<(usize, OwnedFd)>, Error> {
        let mut trees = Vec::new();
        for mount in &container.config.mounts {
            if !matches!(mount, MountConfig::Volume { .. } | MountConfig::Image { .. }) {
                continue;
            }
            let target = clean(mount.target());
            let Some(index) = spec.mounts.iter().rposition(|one| one.destination == target) else { continue };
            match self.open_mount(mount)? {
                Opened::Path(path) => spec.mounts[index].source = path.to_string_lossy().into_owned(),
                Opened::Tree(tree) => {
                    spec.mounts[index].source = format!("/proc/{}/fd/{}", own_pid(), tree.as_raw_fd());
                    trees.push((index, tree));
                }
            }
        }
        Ok(trees)
    }

    /// What a mount of a container shows, apart from file systems in memory.
    pub(crate) fn open_mount(&self, mount: &MountConfig) -> Result<Opened, Error> {
        match mount {
            MountConfig::Volume { name, volume: config, .. } => {
                let volume = self.volume(name)?;
                let data = self.volume_data(name);
                match device::mount(&volume)? {
                    None if config.subpath.is_empty() => Ok(Opened::Path(data)),
                    None => below(rootfs::open_directory(&data)?, &config.subpath, &data).map(Opened::Tree),
                    Some(tree) => below(tree, &config.subpath, &data).map(Opened::Tree),
                }
            }
            MountConfig::Image { image, subpath, .. } => {
                let lower = self.lower(&self.images.runnable(image, None)?.layers)?;
                let mut layers = lower.layers().to_vec();
                layers.push(Arc::new(self.empty()?));
                if layers.len() == 1 {
                    layers.push(Arc::new(self.skeleton()?));
                }
                let tree = below(rootfs::overlay(&layers)?, subpath, Path::new("/"))?;
                lower.release()?;
                Ok(Opened::Tree(tree))
            }
            MountConfig::Bind { source, .. } => Ok(Opened::Path(source.clone())),
            MountConfig::Tmpfs { target, .. } => Err(Error::io("open", target)(Errno::INVAL)),
        }
    }
}

/// The source of a mount.
pub(crate) enum Opened {
    /// A path of the host.
    Path(PathBuf),
    /// A mount that is attached nowhere.
    Tree(OwnedFd),
}
