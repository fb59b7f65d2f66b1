//! The trials: small mounts, attached nowhere, and what happens to files in them.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_layer::erofs::{Index, MountOptions};
use hull_layer::tree::{Extent, Kind as NodeKind, Node, Tree};
use hull_sys::clone::{CloneFlags, Cloned, clone3, exit_now, thread_count};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::{Capabilities, Overlay};
use crate::Error;
use crate::snapshot::Kind;
use crate::snapshot::merged::{link_of, overlay_attribute};

/// Length of the file that the trials are made with.
const SIZE: usize = 5000;

/// Types of `statfs(2)`, by the names that `docker info` has for them.
const FILE_SYSTEMS: [(u64, &str); 14] = [
    (0xef53, "extfs"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x794c_7630, "overlayfs"),
    (0x2fc1_2fc1, "zfs"),
    (0xf2f5_2010, "f2fs"),
    (0x6969, "nfs"),
    (0x6573_5546, "fuse"),
    (0xca45_1a4e, "bcachefs"),
    (0x5265_4973, "reiserfs"),
    (0x8584_58f6, "ramfs"),
    (0xff53_4d42, "cifs"),
    (0x0102_1997, "9p"),
];

/// Tries everything in `directory`, which is empty and the caller's to remove.
pub(super) fn run(directory: &Path) -> Result<Capabilities, Error> {
    let fail = |errno: Errno| Error::io("try snapshots in", directory)(errno);
    let statfs = rustix::fs::statfs(directory).map_err(fail)?;
    let magic = u64::try_from(statfs.f_type).unwrap_or(0) & 0xffff_ffff;
    let known = FILE_SYSTEMS.iter().find(|(number, _)| *number == magic);
    let backing = known.map_or_else(|| format!("{magic:#x}"), |(_, name)| (*name).to_owned());
    make(&directory.join("lower"))?;
    std::fs::write(directory.join("lower/file"), [7; SIZE]).map_err(Error::io("write", directory))?;
    make(&directory.join("lower/sub"))?;
    let layer = layer(directory);
    let mut overlay = overlay(directory, layer.as_ref().ok()).map_err(fail)?;
    overlay.d_type = d_type(directory).map_err(fail)?;
    let no_erofs = match layer {
        Err(reason) => Some(reason),
        // The layers are detached mounts: only descriptors reach them.
        Ok(_) if overlay.missing.is_none() && !overlay.descriptors => {
            Some("overlayfs does not take layers by descriptor (Linux 6.15)".to_owned())
        }
        Ok(_) => None,
    };
    Ok(Capabilities { kind: Kind::Directory, reason: String::new(), no_erofs, backing, overlay })
}

fn make(path: &Path) -> Result<(), Error> {
    std::fs::create_dir(path).map_err(Error::io("create directory", path))
}

/// Whether entries of a directory tell their type.
fn d_type(directory: &Path) -> Result<bool, Errno> {
    let opened = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in rustix::fs::Dir::new(opened)? {
        let entry = entry?;
        if entry.file_name() == c"lower" {
            return Ok(entry.file_type() == FileType::Directory);
        }
    }
    Ok(false)
}

/// A mount of the smallest layer, or why there can be none.
fn layer(directory: &Path) -> Result<OwnedFd, String> {
    let tell = |error: &dyn std::fmt::Display| error.to_string();
    let (tar, index) = (directory.join("tar"), directory.join("index"));
    let mut content = vec![7; SIZE];
    content.resize(SIZE.next_multiple_of(512), 0);
    std::fs::write(&tar, &content).map_err(|error| tell(&error))?;
    let tar = File::open(&tar).map_err(|error| tell(&error))?;
    let tree = tree();
    let mut file = File::create_new(&index).map_err(|error| tell(&error))?;
    Index::new(&tree, content.len() as u64)
        .and_then(|index| index.write(content.as_slice(), &mut file))
        .map_err(|error| tell(&error))?;
    file.flush().map_err(|error| tell(&error))?;
    let index = File::open(&index).map_err(|error| tell(&error))?;
    let mount =
        hull_layer::erofs::mount(index.as_fd(), tar.as_fd(), MountOptions::default()).map_err(|error| tell(&error))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut read = Vec::new();
    let opened = rustix::fs::openat(&mount, "file", flags, Mode::empty()).map_err(|errno| tell(&errno))?;
    File::from(opened).read_to_end(&mut read).map_err(|error| tell(&error))?;
    if read == [7; SIZE] { Ok(mount) } else { Err("the kernel's EROFS reads something else from an index".to_owned()) }
}

/// The names that `lower/` has too.
fn tree() -> Tree {
    let node =
        |kind, mode, links| Node { kind, mode, uid: 0, gid: 0, mtime: 0, mtime_nsec: 0, xattrs: Vec::new(), links };
    let directory = |names: &[(&str, u32)]| NodeKind::Directory {
        children: names.iter().map(|(name, id)| (name.as_bytes().into(), *id)).collect(),
        opaque: false,
        implied: false,
    };
    let size = SIZE as u64;
    let content = NodeKind::File { size, extents: vec![Extent { offset: 0, tar: 0, length: size }] };
    Tree {
        nodes: vec![
            node(directory(&[("file", 1), ("sub", 2)]), 0o755, 3),
            node(content, 0o644, 1),
            node(directory(&[]), 0o755, 2),
        ],
    }
}

/// What overlayfs offers; an ordinary user is asked in a user namespace, where alone it may mount.
fn overlay(directory: &Path, layer: Option<&OwnedFd>) -> Result<Overlay, Errno> {
    let first = Trial::new(directory, layer, false).and_then(|trial| trial.mount(&[]).map(drop));
    match first {
        Ok(()) => Ok(tried(directory, layer, false)),
        Err(Errno::PERM) => Ok(in_user_namespace(directory).unwrap_or_else(|| Overlay {
            missing: Some("mounting is not permitted, and no user namespace can be made".to_owned()),
            ..Overlay::default()
        })),
        Err(Errno::NODEV) => Ok(missing("the kernel has no overlayfs (CONFIG_OVERLAY_FS, or its module)")),
        Err(Errno::NOSYS) => Ok(missing("the kernel lacks fsopen(2) (Linux 5.2)")),
        Err(errno) => {
            // With a directory below, layers by descriptor may be all that fails.
            let again = Trial::new(directory, None, false).and_then(|trial| trial.mount(&[]).map(drop));
            match again {
                Ok(()) => Ok(Overlay { descriptors: false, ..tried(directory, None, false) }),
                Err(_) => Ok(missing(&format!("the store's file system cannot hold a writable layer: {errno}"))),
            }
        }
    }
}

fn missing(reason: &str) -> Overlay {
    Overlay { missing: Some(reason.to_owned()), ..Overlay::default() }
}

/// The trials in a user namespace of one user, by a process of their own.
fn in_user_namespace(directory: &Path) -> Option<Overlay> {
    if thread_count() != Some(1) {
        return None;
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).ok()?;
    let Ok(cloned) = clone3(CloneFlags::NEWUSER | CloneFlags::NEWNS, None) else { return None };
    let (pid, _pidfd) = match cloned {
        Cloned::Child => {
            let mapped = std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))
                .and_then(|()| std::fs::write("/proc/self/setgroups", "deny"))
                .and_then(|()| std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")));
            let found = match mapped {
                Ok(()) => tried(directory, None, true),
                Err(_) => missing("the user namespace has no IDs"),
            };
            let json = serde_json::to_vec(&found).unwrap_or_default();
            let _ = File::from(writer).write_all(&json);
            exit_now(0);
        }
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop(writer);
    let mut json = Vec::new();
    let _ = File::from(reader).read_to_end(&mut json);
    let pid = rustix::process::Pid::from_raw(pid);
    let _ = rustix::io::retry_on_intr(|| rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()));
    serde_json::from_slice(&json).ok()
}

fn tried(directory: &Path, layer: Option<&OwnedFd>, userxattr: bool) -> Overlay {
    let trial = || Trial::new(directory, layer, userxattr).ok();
    let works = |options: &[Setting]| trial().is_some_and(|trial| trial.mount(options).is_ok());
    if let Some(errno) = trial().and_then(|trial| trial.mount(&[]).err()) {
        return missing(&format!("the store's file system cannot hold a writable layer: {errno}"));
    }
    Overlay {
        missing: None,
        descriptors: trial().is_some_and(|trial| trial.by_descriptor().is_ok()),
        d_type: false,
        metacopy: !userxattr && trial().is_some_and(|trial| trial.copies_metadata().unwrap_or(false)),
        native_diff: trial().is_some_and(|trial| trial.diffs_natively().unwrap_or(false)),
        userxattr,
        redirect: !userxattr && trial().is_some_and(|trial| trial.redirects().unwrap_or(false)),
        xino: works(&[(c"xino", c"on")]) && trial().is_some_and(|trial| trial.one_device().unwrap_or(false)),
    }
}

/// An option and its value.
type Setting = (&'static CStr, &'static CStr);

/// An overlay to be mounted: a lower layer, and writable directories that nothing was written to.
struct Trial {
    lower: OwnedFd,
    upper: PathBuf,
    work: PathBuf,
    userxattr: bool,
}

impl Trial {
    fn new(directory: &Path, layer: Option<&OwnedFd>, userxattr: bool) -> Result<Self, Errno> {
        let lower = match layer {
            Some(layer) => rustix::io::fcntl_dupfd_cloexec(layer, 3)?,
            None => rustix::fs::open(
                directory.join("lower"),
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?,
        };
        let mut number = 0;
        let make = |path: &Path| rustix::fs::mkdirat(CWD, path, Mode::RWXU);
        let top = loop {
            let path = directory.join(format!("trial{number}"));
            match make(&path) {
                Err(Errno::EXIST) => number += 1,
                result => break result.map(|()| path)?,
            }
        };
        let (upper, work) = (top.join("upper"), top.join("work"));
        make(&upper)?;
        make(&work)?;
        Ok(Self { lower, upper, work, userxattr })
    }

    fn context(&self) -> Result<(OwnedFd, [OwnedFd; 2]), Errno> {
        let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let open =
            |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        // The paths may be longer than an option can be.
        let directories = [open(&self.upper)?, open(&self.work)?];
        for (key, directory) in [c"upperdir", c"workdir"].into_iter().zip(&directories) {
            rustix::mount::fsconfig_set_string(&context, key, link_of(directory.as_fd()))?;
        }
        if self.userxattr {
            rustix::mount::fsconfig_set_flag(&context, c"userxattr")?;
        }
        Ok((context, directories))
    }

    fn finish(context: &OwnedFd) -> Result<OwnedFd, Errno> {
        rustix::mount::fsconfig_create(context)?;
        rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    fn mount(&self, options: &[Setting]) -> Result<OwnedFd, Errno> {
        let (context, _directories) = self.context()?;
        let by_descriptor = rustix::mount::fsconfig_set_fd(&context, c"lowerdir+", self.lower.as_fd());
        if by_descriptor.is_err() {
            rustix::mount::fsconfig_set_string(&context, c"lowerdir", link_of(self.lower.as_fd()))?;
        }
        for (key, value) in options {
            rustix::mount::fsconfig_set_string(&context, *key, *value)?;
        }
        Self::finish(&context)
    }

    /// Takes its layer by descriptor, from a process that will not have it at any path.
    fn by_descriptor(&self) -> Result<(), Errno> {
        let (context, _directories) = self.context()?;
        rustix::mount::fsconfig_set_fd(&context, c"lowerdir+", self.lower.as_fd())?;
        Self::finish(&context).map(drop)
    }

    fn changed_mode(&self, options: &[Setting]) -> Result<bool, Errno> {
        let mount = self.mount(options)?;
        rustix::fs::chmodat(&mount, "file", Mode::from_raw_mode(0o600), AtFlags::empty())?;
        let copy = rustix::fs::open(self.upper.join("file"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok(overlay_attribute(copy.as_fd(), "metacopy").is_some())
    }

    fn copies_metadata(&self) -> Result<bool, Errno> {
        self.changed_mode(&[(c"metacopy", c"on")])
    }

    fn renamed(mount: BorrowedFd<'_>) -> Result<(), Errno> {
        rustix::fs::renameat(mount, "sub", mount, "renamed")
    }

    fn redirects(&self) -> Result<bool, Errno> {
        let mount = self.mount(&[(c"redirect_dir", c"on")])?;
        Ok(Self::renamed(mount.as_fd()).is_ok())
    }

    /// As containers mount it: a changed file is there as a whole, a renamed directory is a copy.
    fn diffs_natively(&self) -> Result<bool, Errno> {
        let mut options = vec![(c"metacopy", c"off"), (c"index", c"off")];
        if !self.userxattr {
            options.push((c"redirect_dir", c"off"));
        }
        if self.changed_mode(&options)? {
            return Ok(false);
        }
        let mount = self.mount(&options)?;
        Ok(Self::renamed(mount.as_fd()) == Err(Errno::XDEV))
    }

    fn one_device(&self) -> Result<bool, Errno> {
        let mount = self.mount(&[(c"xino", c"on")])?;
        let file = rustix::fs::statat(&mount, "file", AtFlags::empty())?;
        Ok(file.st_dev == rustix::fs::fstat(&mount)?.st_dev)
    }
}
