//! `/dev`: nodes, links, the terminal. All by the descriptor of the container's own `/dev` (CVE-2026-41579).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_fs::inside;
use hull_oci::spec::Spec;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;

use super::mount::{Kind, MountPlan};
use super::plan::c_path;
use super::{RootfsContext, RootfsPlan, mount, normalize};
use crate::error::Error;
use crate::failure::{Failure, Step, step};

const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;
/// The multiplexer `ptmx`.
const PTMX: (u32, u32) = (5, 2);
const ORDINARY_DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);
const UNFOLLOWED: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Device nodes and links, prepared.
#[derive(Debug)]
pub(super) struct DevPlan {
    pub(super) devices: Vec<DevicePlan>,
    /// Name in `/dev` and target.
    pub(super) links: Vec<(CString, CString)>,
    /// Nodes cannot be made, only bound from the host.
    bind: bool,
}

/// One node.
#[derive(Debug)]
pub(super) struct DevicePlan {
    pub(super) path: PathBuf,
    /// The same path on the host, for binding.
    host: CString,
    /// Name directly below `/dev`, the common case.
    name: Option<CString>,
    kind: FileType,
    device: u64,
    mode: Mode,
    owner: (u32, u32),
}

const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Plans the default devices and the specification's; nothing when the host's or another `/dev` is bound in.
pub(super) fn plan(spec: &Spec, mounts: &[MountPlan], context: &RootfsContext<'_>) -> Result<Option<DevPlan>, Error> {
    let is_bound = |one: &MountPlan| one.destination == Path::new("/dev") && matches!(one.kind, Kind::Bind { .. });
    if mounts.iter().any(is_bound) {
        return Ok(None);
    }
    let mut devices = Vec::with_capacity(DEFAULTS.len());
    let listed = spec.linux.as_ref().map_or(&[][..], |linux| &linux.devices);
    for (path, major, minor) in DEFAULTS {
        if !listed.iter().any(|device| normalize(&device.path) == Path::new(path)) {
            let device = rustix::fs::makedev(major, minor);
            let mode = Mode::from_raw_mode(0o666);
            devices.push(DevicePlan::new(path, path, FileType::CharacterDevice, device, mode, (0, 0))?);
        }
    }
    for (index, device) in listed.iter().enumerate() {
        let field = format!("linux.devices[{index}]");
        if !device.path.starts_with('/') || normalize(&device.path) == Path::new("/") {
            let reason = format!("{:?} is not the absolute path of a file", device.path);
            return Err(Error::config(format!("{field}.path"), reason));
        }
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            other => {
                let reason = format!("{other:?} is not a device type, expected c, u, b or p");
                return Err(Error::config(format!("{field}.type"), reason));
            }
        };
        let number = |name: &str, value: i64, max: u32| match u32::try_from(value) {
            Ok(value) if value <= max => Ok(value),
            _ => Err(Error::config(format!("{field}.{name}"), format!("{value} is not between 0 and {max}"))),
        };
        let node = match kind {
            FileType::Fifo => 0,
            _ => rustix::fs::makedev(number("major", device.major, 0xfff)?, number("minor", device.minor, 0xf_ffff)?),
        };
        let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
        let owner = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
        devices.push(DevicePlan::new(&field, &device.path, kind, node, mode, owner)?);
    }
    let mut links = vec![
        (c"fd".to_owned(), c"/proc/self/fd".to_owned()),
        (c"stdin".to_owned(), c"/proc/self/fd/0".to_owned()),
        (c"stdout".to_owned(), c"/proc/self/fd/1".to_owned()),
        (c"stderr".to_owned(), c"/proc/self/fd/2".to_owned()),
    ];
    if rustix::fs::access(c"/proc/kcore", rustix::fs::Access::EXISTS).is_ok() {
        links.push((c"core".to_owned(), c"/proc/kcore".to_owned()));
    }
    links.push((c"ptmx".to_owned(), c"pts/ptmx".to_owned()));
    let bind = context.new_userns || context.joined_userns || context.rootless;
    Ok(Some(DevPlan { devices, links, bind }))
}

impl DevicePlan {
    fn new(field: &str, path: &str, kind: FileType, device: u64, mode: Mode, owner: (u32, u32)) -> Result<Self, Error> {
        let path = normalize(path);
        let host = c_path(field, &path)?;
        let name = match path.strip_prefix("/dev") {
            Ok(below) if below.components().count() == 1 => Some(c_path(field, below)?),
            _ => None,
        };
        Ok(Self { path, host, name, kind, device, mode, owner })
    }

    fn create(&self, root: BorrowedFd<'_>, dev: BorrowedFd<'_>, bind: bool) -> Result<(), Errno> {
        if let Some(name) = &self.name {
            return self.create_in(dev, name, bind);
        }
        let (parent, _) = inside::create_parent(root, &self.path)?;
        let bytes = self.host.as_bytes_with_nul();
        let start = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let name = CStr::from_bytes_with_nul(&bytes[start..]).map_err(|_| Errno::INVAL)?;
        self.create_in(parent.as_fd(), name, bind)
    }

    fn create_in(&self, directory: BorrowedFd<'_>, name: &CStr, bind: bool) -> Result<(), Errno> {
        if bind && self.kind != FileType::Fifo {
            return self.bind(directory, name);
        }
        match rustix::fs::mknodat(directory, name, self.kind, self.mode, self.device) {
            Ok(()) => {}
            Err(Errno::EXIST) => return self.check_existing(directory, name),
            Err(Errno::PERM) if self.kind != FileType::Fifo => return self.bind(directory, name),
            Err(errno) => return Err(errno),
        }
        let (uid, gid) = self.owner;
        if (uid, gid) == (0, 0) {
            return Ok(());
        }
        rustix::fs::chownat(
            directory,
            name,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
    }

    /// What the image or a mount put there must be the device it is called.
    fn check_existing(&self, directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.check(&stat)
    }

    fn check(&self, stat: &rustix::fs::Stat) -> Result<(), Errno> {
        let same = FileType::from_raw_mode(stat.st_mode) == self.kind
            && (self.kind == FileType::Fifo || stat.st_rdev == self.device);
        if same { Ok(()) } else { Err(Errno::EXIST) }
    }

    /// Binds the host's node over an empty file.
    fn bind(&self, directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        let tree = mount::open_source(&self.host, false, true)?;
        self.check(&rustix::fs::fstat(&tree)?).map_err(|_| Errno::NODEV)?;
        let target = empty_file(directory, name)?;
        mount::attach(tree.as_fd(), target.as_fd())
    }
}

/// Opens, without following, or makes the file that something is bound on.
fn empty_file(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, create, Mode::from_raw_mode(0o666)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let target = rustix::fs::openat(directory, name, UNFOLLOWED, Mode::empty())?;
    match inside::file_type(&target)? {
        FileType::Symlink => Err(Errno::LOOP),
        FileType::Directory => Err(Errno::ISDIR),
        _ => Ok(target),
    }
}

impl RootfsPlan {
    /// Makes nodes and links below the container's `/dev`, which must be a directory and no link.
    pub(super) fn set_up_dev(&self) -> Result<(), Failure> {
        let Some(plan) = &self.dev else { return Ok(()) };
        let none = usize::from(u16::MAX);
        let root = self.root().map_err(|errno| Failure::at(Step::Device, none, errno))?;
        let dev = open_dev(root).map_err(|errno| Failure::at(Step::Device, none, errno))?;
        for (index, device) in plan.devices.iter().enumerate() {
            device.create(root, dev.as_fd(), plan.bind).map_err(|errno| Failure::at(Step::Device, index, errno))?;
        }
        for (index, (name, target)) in plan.links.iter().enumerate() {
            link(dev.as_fd(), name, target).map_err(|errno| Failure::at(Step::DeviceLink, index, errno))?;
        }
        Ok(())
    }

    /// Opens a terminal of the container's own devpts and binds it on `/dev/console`: the master, which goes to the
    /// caller, and the slave, which becomes the program's terminal. After [`Self::mount_all`], before or after
    /// [`Self::pivot`].
    ///
    /// # Errors
    /// [`Step::Terminal`]; `ENODEV` when `/dev/pts` is not a devpts.
    pub fn dev_pts_terminal(&mut self) -> Result<(OwnedFd, OwnedFd), Failure> {
        self.open_terminal().map_err(step(Step::Terminal))
    }

    fn open_terminal(&self) -> Result<(OwnedFd, OwnedFd), Errno> {
        let root = self.root()?;
        let master = inside::open_no_symlinks(root, c"dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY)?;
        let stat = rustix::fs::fstat(&master)?;
        let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == PTMX;
        if !is_ptmx || rustix::fs::fstatfs(&master)?.f_type as u64 != DEVPTS_SUPER_MAGIC {
            return Err(Errno::NODEV);
        }
        rustix::pty::unlockpt(&master)?;
        // By descriptor, so that no name in /dev/pts is trusted (CVE-2025-52565).
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        if !rustix::termios::isatty(&slave) || rustix::fs::fstat(&slave)?.st_dev != stat.st_dev {
            return Err(Errno::NOTTY);
        }
        if let Some(size) = self.console_size {
            let size = rustix::termios::Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&master, size)?;
        }
        if self.mount_namespace && self.dev.is_some() {
            let dev = open_dev(root)?;
            let target = empty_file(dev.as_fd(), c"console")?;
            let tree = mount::clone_tree(slave.as_fd(), false)?;
            mount::attach(tree.as_fd(), target.as_fd())?;
        }
        Ok((master, slave))
    }
}

fn open_dev(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    match inside::open_no_symlinks(root, c"dev", ORDINARY_DIRECTORY) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(root, c"dev", Mode::from_raw_mode(0o755))?;
            inside::open_no_symlinks(root, c"dev", ORDINARY_DIRECTORY)
        }
        result => result,
    }
}

/// Makes a link; one that exists stays, but `ptmx` must lead to the container's own devpts.
fn link(dev: BorrowedFd<'_>, name: &CStr, target: &CStr) -> Result<(), Errno> {
    match rustix::fs::symlinkat(target, dev, name) {
        Err(Errno::EXIST) if name == c"ptmx" => {
            match rustix::fs::readlinkat(dev, name, Vec::new()) {
                Ok(current) if current.as_c_str() == target => return Ok(()),
                _ => {}
            }
            rustix::fs::unlinkat(dev, name, AtFlags::empty())?;
            rustix::fs::symlinkat(target, dev, name)
        }
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}
