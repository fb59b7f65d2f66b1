//! Where everything of an index goes: the order of inodes, the form of each, and the blocks of content they need.

use std::collections::HashMap;

use super::chunks::{self, Cut};
use super::format::{BLOCK, COMPACT, EXTENDED, INODES, SLOT, mode, up};
use super::{directory, xattr};
use crate::Error;
use crate::tree::{Kind, Node, NodeId, Tree};

/// What an inode has besides its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Nothing: empty files, devices, pipes.
    Nothing,
    /// Blocks of content.
    Plain,
    /// Blocks of content, and this many bytes after the inode.
    Inline(u64),
    /// A chunk index after the inode, and copied pieces.
    Chunks(Cut),
}

/// The form of one inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Bytes of the inode itself.
    pub(super) inode: u64,
    /// Bytes of its extended attributes.
    pub(super) xattrs: u64,
    /// Bytes of the file as `stat` says.
    pub(super) size: u64,
    pub(super) body: Body,
}

impl Shape {
    /// Bytes of content in the index's own blocks.
    fn data(&self) -> u64 {
        match self.body {
            Body::Nothing => 0,
            Body::Plain => up(self.size, BLOCK),
            Body::Inline(tail) => self.size - tail,
            Body::Chunks(cut) => up(cut.copied, BLOCK),
        }
    }

    /// Where an inode of this form begins when this is the first free byte, and where it ends.
    fn place(&self, free: u64) -> (u64, u64) {
        let mut at = up(free, SLOT);
        // Neither an inode nor what is in line with it lies across blocks.
        let together = match self.body {
            Body::Inline(tail) => self.inode + self.xattrs + tail,
            Body::Nothing | Body::Plain | Body::Chunks(_) => self.inode,
        };
        if at % BLOCK + together > BLOCK {
            at = up(at, BLOCK);
        }
        let fixed = at + self.inode + self.xattrs;
        let end = match self.body {
            Body::Nothing | Body::Plain => fixed,
            Body::Inline(tail) => fixed + tail,
            Body::Chunks(cut) => up(fixed, 8) + cut.count * 8,
        };
        (at, end)
    }
}

/// Where a node is in the index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Byte of the inode.
    pub(super) at: u64,
    /// Byte of its content within the data blocks.
    pub(super) data: u64,
    /// Its directory; a file with several names has one of them.
    pub(super) parent: NodeId,
}

/// The time that most inodes have: they need not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Epoch {
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
}

impl Epoch {
    fn of(node: &Node) -> Self {
        Self { seconds: node.mtime, nanoseconds: node.mtime_nsec }
    }

    fn most_frequent<'a>(nodes: impl Iterator<Item = &'a Node>) -> Self {
        let mut counts: HashMap<(i64, u32), u64> = HashMap::new();
        for node in nodes {
            *counts.entry((node.mtime, node.mtime_nsec)).or_default() += 1;
        }
        let best = counts.into_iter().max_by_key(|(time, count)| (*count, std::cmp::Reverse(*time)));
        best.map_or_else(Self::default, |((seconds, nanoseconds), _)| Self { seconds, nanoseconds })
    }
}

/// All decisions about one index.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    tree: &'a Tree,
    tar_size: u64,
    /// Nodes in the order of their inodes: the root, then directory by directory.
    pub(super) order: Vec<NodeId>,
    places: Vec<Option<Place>>,
    pub(super) shared: xattr::Shared<'a>,
    pub(super) epoch: Epoch,
    /// Byte where shared attributes begin.
    pub(super) shared_at: u64,
    /// Byte where data blocks begin.
    pub(super) data_at: u64,
    /// Byte where the index ends.
    pub(super) end: u64,
}

impl<'a> Layout<'a> {
    pub(super) fn new(tree: &'a Tree, tar_size: u64) -> Result<Self, Error> {
        let (order, places) = walk(tree)?;
        let nodes = || order.iter().map(|id| &tree.nodes[*id as usize]);
        let shared = xattr::Shared::find(nodes())?;
        let epoch = Epoch::most_frequent(nodes());
        let mut layout = Self { tree, tar_size, order, places, shared, epoch, shared_at: 0, data_at: 0, end: 0 };
        // Sparse files may cost the index much that the archive does not have.
        let mut budget = tar_size.saturating_mul(2).saturating_add(256 << 20);
        let (mut free, mut data) = (INODES, 0u64);
        for index in 0..layout.order.len() {
            let id = layout.order[index];
            let shape = layout.shape(id)?;
            let (at, end) = shape.place(free);
            if let Body::Chunks(cut) = shape.body
                && cut.count > 1
            {
                budget = budget.checked_sub(cut.cost()).ok_or_else(|| {
                    Error::Index("sparse files are cut into too many or too far scattered pieces".into())
                })?;
            }
            if let Some(place) = &mut layout.places[id as usize] {
                (place.at, place.data) = (at, data);
            }
            free = end;
            data += shape.data();
        }
        layout.shared_at = up(free, BLOCK);
        layout.data_at = up(layout.shared_at + layout.shared.bytes.len() as u64, BLOCK);
        layout.end = layout.data_at + data;
        if layout.end / BLOCK >= u64::from(u32::MAX) || tar_size.div_ceil(BLOCK) >= u64::from(u32::MAX) {
            return Err(Error::Index("archive or index is larger than 2 TiB".into()));
        }
        Ok(layout)
    }

    pub(super) fn node(&self, id: NodeId) -> &'a Node {
        &self.tree.nodes[id as usize]
    }

    pub(super) fn place(&self, id: NodeId) -> Result<Place, Error> {
        let place = self.places.get(id as usize).copied().flatten();
        place.ok_or_else(|| Error::Index("a name leads to no node".into()))
    }

    /// The number that names refer to.
    pub(super) fn nid(&self, id: NodeId) -> Result<u64, Error> {
        Ok(self.place(id)?.at / SLOT)
    }

    /// The names of a directory with what they lead to.
    pub(super) fn entries(&self, id: NodeId) -> Result<impl Iterator<Item = (&'a [u8], NodeId)>, Error> {
        let Kind::Directory { children, .. } = &self.node(id).kind else {
            return Err(Error::Index("a node that is no directory has names".into()));
        };
        Ok(directory::entries(children, id, self.place(id)?.parent))
    }

    /// The checked content of a file.
    pub(super) fn extents(
        &self,
        size: u64,
        extents: &[crate::tree::Extent],
    ) -> Result<Vec<crate::tree::Extent>, Error> {
        chunks::extents(size, extents, self.tar_size)
    }

    pub(super) fn shape(&self, id: NodeId) -> Result<Shape, Error> {
        let node = self.node(id);
        let xattrs = self.shared.area(node)?.len();
        xattr::count(xattrs)?;
        let size = match &node.kind {
            Kind::Directory { .. } => directory::size(self.entries(id)?.map(|(name, _)| name)),
            Kind::File { size, .. } => *size,
            Kind::Symlink(text) => text.len() as u64,
            Kind::Character(..) | Kind::Block(..) | Kind::Fifo | Kind::Whiteout => 0,
        };
        if i64::try_from(size).is_err() || node.mtime_nsec >= 1_000_000_000 || node.mode & mode::MASK != 0 {
            return Err(Error::Index("a file has impossible attributes".into()));
        }
        let small = u16::try_from(node.uid.max(node.gid).max(node.links)).is_ok() && u32::try_from(size).is_ok();
        let inode = if small && Epoch::of(node) == self.epoch { COMPACT } else { EXTENDED };
        let xattrs = xattrs as u64;
        let body = match &node.kind {
            Kind::File { size: 0, .. } => Body::Nothing,
            Kind::File { extents, .. } => Body::Chunks(Cut::best(size, &self.extents(size, extents)?)?),
            Kind::Directory { .. } | Kind::Symlink(_) => match size % BLOCK {
                tail if tail > 0 && inode + xattrs + tail <= BLOCK => Body::Inline(tail),
                _ => Body::Plain,
            },
            Kind::Character(..) | Kind::Block(..) | Kind::Fifo | Kind::Whiteout => Body::Nothing,
        };
        Ok(Shape { inode, xattrs, size, body })
    }
}

/// Every node that the root leads to, once, and its place with nothing but the parent.
fn walk(tree: &Tree) -> Result<(Vec<NodeId>, Vec<Option<Place>>), Error> {
    let mut places = vec![None; tree.nodes.len()];
    let mut order = Vec::with_capacity(tree.nodes.len());
    if !matches!(tree.nodes.first(), Some(Node { kind: Kind::Directory { .. }, .. })) {
        return Err(Error::Index("the root is no directory".into()));
    }
    places[0] = Some(Place { at: 0, data: 0, parent: 0 });
    order.push(0);
    let mut next = 0;
    while let Some(&id) = order.get(next) {
        next += 1;
        let Kind::Directory { children, .. } = &tree.nodes[id as usize].kind else { continue };
        for (name, &child) in children {
            directory::check(name)?;
            let is_directory = match tree.nodes.get(child as usize) {
                Some(node) => matches!(node.kind, Kind::Directory { .. }),
                None => return Err(Error::Index("a name leads to no node".into())),
            };
            match &mut places[child as usize] {
                Some(_) if is_directory => return Err(Error::Index("a directory has two names".into())),
                Some(_) => {}
                place @ None => {
                    *place = Some(Place { at: 0, data: 0, parent: id });
                    order.push(child);
                }
            }
        }
    }
    Ok((order, places))
}
