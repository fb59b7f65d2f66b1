//! How layers become the lower directories of a container's overlay.
//!
//! Two forms of a layer exist, and one image may have layers of both:
//!
//! * [`Kind::Erofs`]: `layers/HEX/tar` and `layers/HEX/index`. The index is an EROFS image whose data device is the tar.
//!   It is mounted by descriptor, attached nowhere, once for all containers ([`shared`]).
//! * [`Kind::Directory`]: `layers/HEX/tree/`, unpacked ([`directory`]), for ordinary users, older kernels, and stores on
//!   file systems that EROFS cannot be mounted from.
//!
//! Which one new layers get is found out once for each store and boot ([`probe`]) unless `HULL_SNAPSHOTTER=erofs` or
//! `=directory` says so. What was said when the store was first used stays, until it is said otherwise.
//!
//! Reading an image's names needs no mount at all ([`merged`]).

pub mod directory;
pub mod merged;
pub mod probe;
pub mod shared;

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use hull_layer::erofs::{MountError, MountOptions};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub use crate::image::Kind;

use crate::Error;
use shared::{Held, Mounts};

/// The opened layers of an image.
#[derive(Debug)]
pub struct Lower {
    layers: Vec<Arc<OwnedFd>>,
    held: Held,
}

impl Lower {
    /// Opens layers: `names` are their directories below `layers`, lowest first.
    ///
    /// A layer that an image has twice counts once, where it is uppermost: it hides everything that its other place
    /// could show, and overlayfs refuses to have it twice.
    ///
    /// # Errors
    /// When a layer is not there or cannot be mounted.
    pub fn open<'n>(
        layers: &Path,
        mounts: &Mounts,
        names: impl DoubleEndedIterator<Item = &'n str>,
    ) -> Result<Self, Error> {
        let mut seen: Vec<&str> = Vec::new();
        for name in names.rev() {
            if !seen.contains(&name) {
                seen.push(name);
            }
        }
        let trees: Vec<Option<OwnedFd>> =
            seen.iter().map(|name| open_tree(&layers.join(name))).collect::<Result<_, _>>()?;
        let mounted = seen.iter().zip(&trees).filter(|(_, tree)| tree.is_none()).map(|(name, _)| *name);
        let held = mounts.acquire(mounted, |name| mount(&layers.join(name)))?;
        let mut mounts = held.mounts();
        let layers =
            trees.into_iter().filter_map(|tree| tree.map(Arc::new).or_else(|| mounts.next().map(Arc::clone))).collect();
        drop(mounts);
        Ok(Self { layers, held })
    }

    /// What an earlier image of this process held (`execve(2)`): enough to lend it, and to release it.
    #[must_use]
    pub fn resume(mounts: &Mounts, held: impl IntoIterator<Item = (String, OwnedFd)>) -> Self {
        Self { layers: Vec::new(), held: Held::resume(mounts, held) }
    }

    /// The mounts that are held and lent, with the names of their layers.
    pub fn held(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.held.named()
    }

    /// The layers, uppermost first, as overlayfs takes them.
    #[must_use]
    pub fn layers(&self) -> &[Arc<OwnedFd>] {
        &self.layers
    }

    /// The layers as one tree.
    #[must_use]
    pub fn merged(&self) -> merged::Merged {
        merged::Merged::new(self.layers.clone())
    }

    /// Stops lending the mounts to others and closes them.
    ///
    /// # Errors
    /// See [`Held::release`].
    pub fn release(self) -> Result<(), Error> {
        self.held.release()
    }
}

/// The directory of an unpacked layer.
fn open_tree(layer: &Path) -> Result<Option<OwnedFd>, Error> {
    let path = layer.join("tree");
    match rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::io("open", &path)(errno)),
    }
}

/// A detached mount of a layer's tar by its index.
fn mount(layer: &Path) -> Result<OwnedFd, Error> {
    let open = |name: &str| {
        let path = layer.join(name);
        File::open(&path).map_err(Error::io("open layer", &path))
    };
    let (index, tar) = (open("index")?, open("tar")?);
    hull_layer::erofs::mount(index.as_fd(), tar.as_fd(), MountOptions::default()).map_err(|error| match error {
        MountError::Damaged(reason) => Error::damaged(format!("layer {}", layer.display()), reason),
        other => Error::io("mount layer", layer)(std::io::Error::other(other)),
    })
}
