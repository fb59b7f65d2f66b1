//! Adjacent layers as one: what overlayfs shows of them, and what it must still hide below them.
//!
//! The layers' archives are thought of as one after the other: extents of the merged tree count from the beginning of
//! the first. [`Archives`] reads that space.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use hull_layer::tree::{Extent, Kind, Node, NodeId, Tree};

/// No node of the merged tree yet.
const NONE: NodeId = NodeId::MAX;

/// Merges layers, lowest first, each with the length of its archive.
///
/// With `below`, other layers lie under these: whiteouts and opaque directories are kept for them. Without, nothing is
/// left to hide and they are dropped.
pub(super) fn merge<'t>(layers: impl IntoIterator<Item = (&'t Tree, u64)>, below: bool) -> Tree {
    let mut merge = Merge { nodes: vec![empty_root()], below };
    let mut base = 0;
    for (tree, length) in layers {
        let mut layer = Layer { tree, base, copies: vec![NONE; tree.nodes.len()] };
        // A stack of our own: a hostile layer may be thousands of directories deep.
        let mut open = vec![(0, 0)];
        while let Some((onto, from)) = open.pop() {
            merge.directory(onto, &mut layer, from, &mut open);
        }
        base += length;
    }
    for node in &mut merge.nodes {
        // What hid something is gone, and with it the entry that would make the directory again.
        if let Kind::Directory { children, implied, .. } = &mut node.kind
            && children.is_empty()
        {
            *implied = false;
        }
    }
    let mut tree = Tree { nodes: merge.nodes };
    count_links(&mut tree);
    tree
}

struct Layer<'t> {
    tree: &'t Tree,
    /// Where its archive begins.
    base: u64,
    /// The merged tree's node of each node that has one, so that hard links stay one.
    copies: Vec<NodeId>,
}

struct Merge {
    nodes: Vec<Node>,
    below: bool,
}

fn empty_root() -> Node {
    Node {
        kind: Kind::Directory { children: std::collections::BTreeMap::new(), opaque: false, implied: true },
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
        mtime_nsec: 0,
        xattrs: Vec::new(),
        links: 2,
    }
}

impl Merge {
    /// Lays the directory `from` of a layer over the directory `onto`: its attributes are what overlayfs shows. The
    /// directories in it are left to do.
    fn directory(&mut self, onto: NodeId, layer: &mut Layer<'_>, from: NodeId, open: &mut Vec<(NodeId, NodeId)>) {
        let tree = layer.tree;
        let source = &tree.nodes[from as usize];
        let Kind::Directory { children: names, opaque: hides, implied: source_implied } = &source.kind else { return };
        let below = self.below;
        let target = &mut self.nodes[onto as usize];
        if let Kind::Directory { children, opaque, implied } = &mut target.kind {
            if *hides {
                children.clear();
                *opaque = below;
            }
            *implied = *source_implied;
        }
        target.mode = source.mode;
        target.uid = source.uid;
        target.gid = source.gid;
        target.mtime = source.mtime;
        target.mtime_nsec = source.mtime_nsec;
        target.xattrs.clone_from(&source.xattrs);
        for (name, &child) in names {
            match &tree.nodes[child as usize].kind {
                Kind::Whiteout if !below => {
                    if let Some(children) = self.children(onto) {
                        children.remove(name);
                    }
                }
                Kind::Directory { .. } => {
                    let present = self.children(onto).and_then(|children| children.get(name).copied());
                    let merged = match present {
                        Some(id) if matches!(self.nodes[id as usize].kind, Kind::Directory { .. }) => id,
                        other => {
                            // A directory that took the place of something else does not show what lies further below.
                            let id = self.add(empty_root());
                            if let Kind::Directory { opaque, .. } = &mut self.nodes[id as usize].kind {
                                *opaque = below && other.is_some();
                            }
                            self.name(onto, name, id);
                            id
                        }
                    };
                    open.push((merged, child));
                }
                _ => {
                    let copy = self.copy(layer, child);
                    self.name(onto, name, copy);
                }
            }
        }
    }

    fn copy(&mut self, layer: &mut Layer<'_>, id: NodeId) -> NodeId {
        if layer.copies[id as usize] == NONE {
            let mut node = layer.tree.nodes[id as usize].clone();
            if let Kind::File { extents, .. } = &mut node.kind {
                for Extent { tar, .. } in extents {
                    *tar += layer.base;
                }
            }
            layer.copies[id as usize] = self.add(node);
        }
        layer.copies[id as usize]
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        // Each layer has fewer nodes than its limit, and an image has at most 500 layers.
        NodeId::try_from(self.nodes.len() - 1).unwrap_or(NONE)
    }

    fn name(&mut self, directory: NodeId, name: &[u8], id: NodeId) {
        if let Some(children) = self.children(directory) {
            children.insert(name.into(), id);
        }
    }

    fn children(&mut self, directory: NodeId) -> Option<&mut std::collections::BTreeMap<Box<[u8]>, NodeId>> {
        match &mut self.nodes[directory as usize].kind {
            Kind::Directory { children, .. } => Some(children),
            _ => None,
        }
    }
}

/// Counts names: a name that an upper layer took away no longer counts.
fn count_links(tree: &mut Tree) {
    let mut links = vec![0_u32; tree.nodes.len()];
    links[0] = 2;
    for (id, node) in tree.nodes.iter().enumerate() {
        let Kind::Directory { children, .. } = &node.kind else { continue };
        for &child in children.values() {
            if matches!(tree.nodes[child as usize].kind, Kind::Directory { .. }) {
                links[child as usize] = links[child as usize].saturating_add(2);
                links[id] = links[id].saturating_add(1);
            } else {
                links[child as usize] = links[child as usize].saturating_add(1);
            }
        }
    }
    for (node, links) in tree.nodes.iter_mut().zip(links) {
        node.links = links;
    }
}

/// The archives of layers as one space of bytes.
#[derive(Debug)]
pub(super) struct Archives {
    /// Where each begins, ascending.
    files: Vec<(u64, File)>,
    end: u64,
}

impl Archives {
    pub(super) fn new(files: impl IntoIterator<Item = (File, u64)>) -> Self {
        let mut end = 0;
        let files = files
            .into_iter()
            .map(|(file, length)| {
                let base = end;
                end += length;
                (base, file)
            })
            .collect();
        Self { files, end }
    }

    /// Reads all of `buffer`; it lies within one archive.
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let place = self.files.partition_point(|(base, _)| *base <= at).checked_sub(1);
        match place.and_then(|place| self.files.get(place)) {
            Some((base, file)) if at < self.end => file.read_exact_at(buffer, at - base),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The content of a file, with zeros where it has no extent.
    pub(super) fn content<'a>(&'a self, size: u64, extents: &'a [Extent]) -> Content<'a> {
        Content { archives: self, size, extents, at: 0 }
    }
}

/// Reads a file's content.
#[derive(Debug)]
pub(super) struct Content<'a> {
    archives: &'a Archives,
    size: u64,
    extents: &'a [Extent],
    at: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX).min(buffer.len());
        if left == 0 {
            return Ok(0);
        }
        while self.extents.first().is_some_and(|extent| extent.offset + extent.length <= self.at) {
            self.extents = &self.extents[1..];
        }
        let clip = |length: u64| usize::try_from(length).unwrap_or(usize::MAX).min(left);
        let length = match self.extents.first() {
            Some(extent) if extent.offset <= self.at => {
                let within = self.at - extent.offset;
                let length = clip(extent.length - within);
                self.archives.read_exact_at(&mut buffer[..length], extent.tar + within)?;
                length
            }
            hole => {
                let length = hole.map_or(left, |next| clip(next.offset - self.at));
                buffer[..length].fill(0);
                length
            }
        };
        self.at += length as u64;
        Ok(length)
    }
}
