//! Makes the files of a tree, from the root down, each by one name below an open directory.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use hull_layer::Error;
use hull_layer::tree::{Extent, Kind, Node, NodeId, Tree};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::attributes::{Rights, set_overlay};

/// Name of the file that the content which begins at this byte of the archive waits in.
pub(super) fn data_name(tar: u64) -> String {
    format!("{tar:x}")
}

/// The making of one tree.
pub(super) struct Placing<'t> {
    tree: &'t Tree,
    data: BorrowedFd<'t>,
    root: BorrowedFd<'t>,
    /// For errors.
    path: &'t Path,
    rights: Rights,
    /// Nodes of several names that have one already: the name below `data` that the others are linked to.
    linked: HashMap<NodeId, String>,
    /// Directories whose mode would have kept an ordinary user from filling them.
    late: Vec<(PathBuf, Mode)>,
}

impl<'t> Placing<'t> {
    pub(super) fn new(tree: &'t Tree, data: BorrowedFd<'t>, root: BorrowedFd<'t>, path: &'t Path) -> Self {
        Self { tree, data, root, path, rights: Rights::probe(), linked: HashMap::new(), late: Vec::new() }
    }

    /// Directory by directory, so that a directory's time is set when nothing in it changes any more, and so that the
    /// depth of the tree costs no descriptors.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let mut queue = VecDeque::from([(0, PathBuf::new())]);
        while let Some((id, path)) = queue.pop_front() {
            let Some(node) = self.node(id) else { continue };
            let Kind::Directory { children, opaque, .. } = &node.kind else { continue };
            let opened = self.open(&path).map_err(|errno| self.fail("open", &path, errno))?;
            let mut marks = Marks { opaque: *opaque, hides: false };
            for (name, child) in children {
                let Some(child_node) = self.node(*child) else { continue };
                let child_path = path.join(OsStr::from_bytes(name));
                let made = self.place(*child, child_node, opened.as_fd(), name, &mut marks);
                made.map_err(|errno| self.fail("create", &child_path, errno))?;
                if matches!(child_node.kind, Kind::Directory { .. }) {
                    queue.push_back((*child, child_path));
                }
            }
            let finish = || {
                if let Some(value) = marks.value() {
                    set_overlay(&opened, "opaque", value)?;
                }
                self.rights.apply(opened.as_fd(), node, self.rights.late_mode(node).is_none())
            };
            finish().map_err(|errno| self.fail("set attributes of", &path, errno))?;
            if let Some(mode) = self.rights.late_mode(node) {
                self.late.push((path, mode));
            }
        }
        for (path, mode) in self.late.iter().rev() {
            let set = self.open(path).and_then(|directory| rustix::fs::fchmod(&directory, *mode));
            set.map_err(|errno| self.fail("change mode of", path, errno))?;
        }
        Ok(())
    }

    fn node(&self, id: NodeId) -> Option<&'t Node> {
        self.tree.nodes.get(usize::try_from(id).ok()?)
    }

    fn fail(&self, operation: &'static str, path: &Path, errno: Errno) -> Error {
        Error::file::<Errno>(operation, self.path.join("tree").join(path))(errno)
    }

    /// A directory that was made here, by its path. Nothing on the way can be a link: this module made all of it.
    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::io::retry_on_intr(|| rustix::fs::openat2(self.root, path, flags, Mode::empty(), resolve))
    }

    fn place(
        &mut self,
        id: NodeId,
        node: &Node,
        directory: BorrowedFd<'_>,
        name: &[u8],
        marks: &mut Marks,
    ) -> Result<(), Errno> {
        match &node.kind {
            Kind::Directory { .. } => return rustix::fs::mkdirat(directory, name, Mode::RWXU),
            Kind::Whiteout => return whiteout(directory, name, marks),
            _ => {}
        }
        if node.links < 2 {
            return self.make(node, directory, name);
        }
        let first = match self.linked.get(&id) {
            Some(first) => first.clone(),
            None => {
                let first = format!("n{id}");
                self.make(node, self.data, first.as_bytes())?;
                self.linked.insert(id, first.clone());
                first
            }
        };
        match rustix::fs::linkat(self.data, first.as_str(), directory, name, AtFlags::empty()) {
            // A device that was left out has no other names either.
            Err(Errno::NOENT) if matches!(node.kind, Kind::Character(..) | Kind::Block(..)) => Ok(()),
            result => result,
        }
    }

    /// Makes anything but directories and whiteouts.
    fn make(&self, node: &Node, directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        match &node.kind {
            Kind::File { size, extents } => self.file(node, *size, extents, directory, name),
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(&**target, directory, name)?;
                self.rights.apply_at(directory, name, node, false)
            }
            Kind::Character(major, minor) => {
                self.special(node, FileType::CharacterDevice, (*major, *minor), directory, name)
            }
            Kind::Block(major, minor) => self.special(node, FileType::BlockDevice, (*major, *minor), directory, name),
            Kind::Fifo => self.special(node, FileType::Fifo, (0, 0), directory, name),
            Kind::Directory { .. } | Kind::Whiteout => Err(Errno::INVAL),
        }
    }

    fn file(
        &self,
        node: &Node,
        size: u64,
        extents: &[Extent],
        directory: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), Errno> {
        let open = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Some(first) = extents.first() else {
            let flags = open | OFlags::CREATE | OFlags::EXCL;
            let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?;
            if size > 0 {
                rustix::fs::ftruncate(&file, size)?;
            }
            return self.rights.apply(file.as_fd(), node, true);
        };
        let waiting = data_name(first.tar);
        let file = rustix::fs::openat(self.data, waiting.as_str(), open, Mode::empty())?;
        self.rights.apply(file.as_fd(), node, true)?;
        rustix::fs::renameat(self.data, waiting.as_str(), directory, name)
    }

    fn special(
        &self,
        node: &Node,
        kind: FileType,
        (major, minor): (u32, u32),
        directory: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), Errno> {
        let device = rustix::fs::makedev(major, minor);
        match rustix::fs::mknodat(directory, name, kind, Mode::from_raw_mode(0o600), device) {
            // A container gets its devices from Hull, never from its image.
            Err(errno) if kind != FileType::Fifo && self.rights.may_skip_device(errno) => Ok(()),
            Err(errno) => Err(errno),
            Ok(()) => self.rights.apply_at(directory, name, node, true),
        }
    }
}

/// What overlayfs has to know about a directory.
struct Marks {
    /// It hides those below it.
    opaque: bool,
    /// It has whiteouts in the form of attributes.
    hides: bool,
}

impl Marks {
    fn value(&self) -> Option<&'static [u8]> {
        match (self.opaque, self.hides) {
            (true, _) => Some(b"y"),
            // Tells the kernel to look for them.
            (false, true) => Some(b"x"),
            (false, false) => None,
        }
    }
}

/// A name that is removed from the layers below.
fn whiteout(directory: BorrowedFd<'_>, name: &[u8], marks: &mut Marks) -> Result<(), Errno> {
    match rustix::fs::mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0) {
        // Not in an opaque directory, where there is nothing to remove.
        Err(Errno::PERM) if marks.opaque => Ok(()),
        // Everybody may make this one device, but not on another overlay.
        Err(Errno::PERM) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?;
            set_overlay(&file, "whiteout", b"y")?;
            marks.hides = true;
            Ok(())
        }
        result => result,
    }
}
