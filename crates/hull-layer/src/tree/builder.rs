//! From the entries of an archive to a tree.

use std::collections::BTreeMap;

use super::{Kind, Node, NodeId, Tree, Xattrs, lookup};
use crate::tar::{Entry, EntryKind, text};
use crate::{Error, Limits};

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Where AUFS kept the first names of hard links; layers of its time have them.
const AUFS_LINKS: &[u8] = b".wh..wh.plnk";

/// Puts the entries of one layer together, in any order.
///
/// - The last entry of a name wins; a directory over a directory keeps what is in it.
/// - `.wh.NAME` hides NAME of the layers below. If the layer has that name too, in whichever order, the name stays, and a
///   directory becomes opaque. `.wh..wh..opq` makes its directory opaque; other names with `.wh..wh.` are AUFS's own.
/// - A directory without an entry is made, and takes the attributes of an entry that comes later.
/// - A hard link is one more name of the same node; its target may come later. A target that the layer does not have is
///   an error.
/// - A name below anything but a directory is an error, since what it means depends on the reader.
/// - Attributes of overlayfs, SELinux labels, and those that Linux does not know are dropped.
#[derive(Clone, Debug)]
pub struct Builder {
    nodes: Vec<Node>,
    limits: Limits,
    /// Bytes of names, attributes and maps.
    bytes: u64,
    /// Hard links whose target has not come yet, by ascending node.
    links: Vec<Link>,
    /// Files that only hard links can name.
    hidden: BTreeMap<Vec<u8>, NodeId>,
    /// The directory of the last entry, and its path: the next one is mostly there too.
    last: (Vec<u8>, NodeId),
}

/// A name that waits for its target; a pipe stands in for it.
#[derive(Clone, Debug)]
struct Link {
    node: NodeId,
    parent: NodeId,
    name: Box<[u8]>,
    path: Vec<u8>,
    target: Vec<u8>,
    offset: u64,
}

/// Where an entry belongs.
#[derive(Clone, Copy)]
enum Place {
    Directory(NodeId),
    /// Among AUFS's own files.
    Hidden,
}

impl Builder {
    /// An empty layer.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let nodes = vec![implied(false)];
        Self { nodes, limits, bytes: 0, links: Vec::new(), hidden: BTreeMap::new(), last: (Vec::new(), 0) }
    }

    /// Adds an entry, whose path has the form that the reader gives it.
    ///
    /// # Errors
    /// If the entry cannot be part of a layer, or a limit is exceeded.
    pub fn add(&mut self, mut entry: Entry) -> Result<(), Error> {
        let mut path = std::mem::take(&mut entry.path);
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else {
            if path.is_empty() {
                return self.root(entry);
            }
            return self.place(Place::Directory(0), &path, &path, entry);
        };
        let (parent, name) = (&path[..slash], &path[slash + 1..]);
        if self.last.0 == parent {
            return self.place(Place::Directory(self.last.1), &path, name, entry);
        }
        if name.starts_with(WHITEOUT_META) && name != OPAQUE {
            return Ok(());
        }
        let place = self.parent(parent, entry.offset)?;
        self.place(place, &path, name, entry)?;
        if let Place::Directory(id) = place {
            // Only now: adding may have replaced a directory, and forgotten the last place with it.
            path.truncate(slash);
            self.last = (path, id);
        }
        Ok(())
    }

    /// The layer.
    ///
    /// # Errors
    /// If a hard link's target is not in the layer.
    pub fn finish(mut self) -> Result<Tree, Error> {
        self.resolve_links()?;
        count_links(&mut self.nodes);
        self.nodes.shrink_to_fit();
        Ok(Tree { nodes: self.nodes })
    }

    fn root(&mut self, entry: Entry) -> Result<(), Error> {
        if entry.kind != EntryKind::Directory {
            return Err(Error::archive(entry.offset, "the root of the layer is not a directory"));
        }
        let node = self.node(entry)?;
        update(&mut self.nodes[0], node);
        Ok(())
    }

    fn place(&mut self, place: Place, path: &[u8], name: &[u8], entry: Entry) -> Result<(), Error> {
        let Place::Directory(parent) = place else {
            if matches!(entry.kind, EntryKind::File { .. }) {
                self.charge(path.len())?;
                let node = self.node(entry)?;
                let id = self.push(node)?;
                self.hidden.insert(path.to_vec(), id);
            }
            return Ok(());
        };
        if name == OPAQUE {
            self.set_opaque(parent);
        } else if name.starts_with(WHITEOUT_META) {
            // The directory itself; what is in it is hidden.
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(Error::archive(entry.offset, format!("`{}` is a whiteout of no name", text(path))));
            }
            if let Some(existing) = self.child(parent, hidden) {
                self.set_opaque(existing);
            } else {
                self.charge(hidden.len())?;
                let whiteout = Node { kind: Kind::Whiteout, mode: 0, ..implied(false) };
                let id = self.push(whiteout)?;
                self.link(parent, hidden, id);
            }
        } else if let EntryKind::HardLink(target) = &entry.kind {
            self.hard_link(parent, path, name, target, entry.offset)?;
        } else {
            self.charge(name.len())?;
            let node = self.node(entry)?;
            self.insert(parent, name, node)?;
        }
        Ok(())
    }

    fn insert(&mut self, parent: NodeId, name: &[u8], mut node: Node) -> Result<(), Error> {
        if let Some(existing) = self.child(parent, name) {
            let old = &mut self.nodes[existing as usize];
            if let Kind::Directory { opaque, .. } = &mut node.kind {
                match old.kind {
                    Kind::Directory { .. } => {
                        update(old, node);
                        return Ok(());
                    }
                    // It is hidden below, and there again.
                    Kind::Whiteout => *opaque = true,
                    _ => {}
                }
            }
        }
        let id = self.push(node)?;
        self.link(parent, name, id);
        Ok(())
    }

    fn hard_link(&mut self, parent: NodeId, path: &[u8], name: &[u8], target: &[u8], offset: u64) -> Result<(), Error> {
        self.charge(name.len())?;
        match self.target(target) {
            Some(id) if matches!(self.nodes[id as usize].kind, Kind::Directory { .. }) => Err(Error::archive(
                offset,
                format!("`{}` is a hard link to the directory `{}`", text(path), text(target)),
            )),
            Some(id) if !self.waits(id) => {
                if self.child(parent, name) != Some(id) {
                    self.link(parent, name, id);
                }
                Ok(())
            }
            _ => {
                self.charge(path.len() + target.len() + name.len() + size_of::<Link>())?;
                let node = self.push(Node { kind: Kind::Fifo, ..implied(false) })?;
                let link = Link { node, parent, name: name.into(), path: path.into(), target: target.into(), offset };
                self.links.push(link);
                self.link(parent, name, node);
                Ok(())
            }
        }
    }

    /// What a hard link's target is now, a waiting link included.
    fn target(&self, target: &[u8]) -> Option<NodeId> {
        let id = lookup(&self.nodes, target).or_else(|| self.hidden.get(target).copied())?;
        (self.nodes[id as usize].kind != Kind::Whiteout).then_some(id)
    }

    fn waits(&self, id: NodeId) -> bool {
        self.links.binary_search_by_key(&id, |link| link.node).is_ok()
    }

    /// Walks to a directory, making what is missing.
    fn parent(&mut self, path: &[u8], offset: u64) -> Result<Place, Error> {
        let mut id = 0;
        for name in path.split(|byte| *byte == b'/') {
            if name.starts_with(WHITEOUT) {
                if name == AUFS_LINKS {
                    return Ok(Place::Hidden);
                }
                return Err(Error::archive(offset, format!("`{}` is a whiteout with names in it", text(path))));
            }
            let existing = self.child(id, name);
            id = match existing.map(|id| (id, &self.nodes[id as usize].kind)) {
                Some((id, Kind::Directory { .. })) => id,
                None | Some((_, Kind::Whiteout)) => {
                    self.charge(name.len())?;
                    let directory = self.push(implied(existing.is_some()))?;
                    self.link(id, name, directory);
                    directory
                }
                Some(_) => {
                    let (path, name) = (text(path), text(name));
                    let reason = format!("a name lies in `{path}`, whose component `{name}` is not a directory");
                    return Err(Error::archive(offset, reason));
                }
            };
        }
        Ok(Place::Directory(id))
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.nodes[parent as usize].children()?.get(name).copied()
    }

    /// Gives a node a name, which it takes from any other.
    fn link(&mut self, parent: NodeId, name: &[u8], id: NodeId) {
        let Kind::Directory { children, .. } = &mut self.nodes[parent as usize].kind else { return };
        if let Some(slot) = children.get_mut(name) {
            let old = std::mem::replace(slot, id);
            if self.nodes[old as usize].children().is_some() {
                // The last directory may be in it.
                self.last = (Vec::new(), 0);
            }
        } else {
            children.insert(name.into(), id);
        }
    }

    fn set_opaque(&mut self, id: NodeId) {
        if let Kind::Directory { opaque, .. } = &mut self.nodes[id as usize].kind {
            *opaque = true;
        }
    }

    fn push(&mut self, node: Node) -> Result<NodeId, Error> {
        let id = self.nodes.len() as u64;
        if id >= self.limits.entries.min(u64::from(u32::MAX)) {
            return Err(Error::Limit { what: "entries", limit: self.limits.entries });
        }
        self.nodes.push(node);
        // Compared with u32::MAX above.
        Ok(id as NodeId)
    }

    /// Counts what is kept of an entry beyond its node.
    fn charge(&mut self, bytes: usize) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.bytes > self.limits.names {
            return Err(Error::Limit { what: "bytes of names and attributes", limit: self.limits.names });
        }
        Ok(())
    }

    fn node(&mut self, entry: Entry) -> Result<Node, Error> {
        let Entry { offset, path, kind, mode, uid, gid, mtime, mtime_nsec, mut xattrs } = entry;
        let mut bytes = 0;
        let kind = match kind {
            EntryKind::Directory => Kind::Directory { children: BTreeMap::new(), opaque: false, implied: false },
            EntryKind::File { size, extents } => {
                bytes += size_of_val(extents.as_slice());
                Kind::File { size, extents }
            }
            EntryKind::Symlink(target) => {
                bytes += target.len();
                Kind::Symlink(target.into())
            }
            EntryKind::Character(0, 0) => {
                return Err(Error::archive(offset, "a character device 0:0, which overlayfs takes for a whiteout"));
            }
            EntryKind::Character(major, minor) => Kind::Character(major, minor),
            EntryKind::Block(major, minor) => Kind::Block(major, minor),
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::HardLink(_) => {
                return Err(Error::archive(offset, format!("`{}` is a hard link out of place", text(&path))));
            }
        };
        keep_known(&mut xattrs);
        bytes += xattrs.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>();
        self.charge(bytes)?;
        Ok(Node { kind, mode, uid, gid, mtime, mtime_nsec, xattrs, links: 0 })
    }

    /// Gives the names that wait for a target the node of that target.
    fn resolve_links(&mut self) -> Result<(), Error> {
        if self.links.is_empty() {
            return Ok(());
        }
        let live = self.live();
        let mut resolved: Vec<Option<NodeId>> = vec![None; self.links.len()];
        for first in 0..self.links.len() {
            if !live[self.links[first].node as usize] {
                continue;
            }
            // Follows links to links, each once, up to a node or one that is known.
            let mut chain = Vec::new();
            let mut current = first;
            let node = loop {
                if let Some(node) = resolved[current] {
                    break node;
                }
                let link = &self.links[current];
                let broken = |what| {
                    let (path, target) = (text(&link.path), text(&link.target));
                    Error::archive(link.offset, format!("`{path}` is a hard link to `{target}`, {what}"))
                };
                chain.push(current);
                if chain.len() > self.links.len() {
                    return Err(broken("which leads back to it"));
                }
                let id = self.target(&link.target).ok_or_else(|| broken("which is not in this layer"))?;
                if self.nodes[id as usize].children().is_some() {
                    return Err(broken("which is a directory"));
                }
                match self.links.binary_search_by_key(&id, |link| link.node) {
                    Ok(next) => current = next,
                    Err(_) => break id,
                }
            };
            for link in chain {
                resolved[link] = Some(node);
            }
        }
        for (link, node) in std::mem::take(&mut self.links).into_iter().zip(resolved) {
            if let Some(node) = node {
                self.link(link.parent, &link.name, node);
            }
        }
        Ok(())
    }

    /// Which nodes have a name.
    fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        let mut open = vec![0];
        while let Some(id) = open.pop() {
            live[id as usize] = true;
            for &child in self.nodes[id as usize].children().into_iter().flat_map(BTreeMap::values) {
                if self.nodes[child as usize].children().is_some() {
                    open.push(child);
                }
                live[child as usize] = true;
            }
        }
        live
    }
}

/// A directory that no entry describes.
fn implied(opaque: bool) -> Node {
    let kind = Kind::Directory { children: BTreeMap::new(), opaque, implied: true };
    Node { kind, mode: 0o755, uid: 0, gid: 0, mtime: 0, mtime_nsec: 0, xattrs: Xattrs::new(), links: 0 }
}

/// Gives a directory the attributes of a later entry.
fn update(old: &mut Node, new: Node) {
    let kept = std::mem::replace(old, new);
    let Kind::Directory { children: names, opaque: hides, .. } = kept.kind else { return };
    if let Kind::Directory { children, opaque, .. } = &mut old.kind {
        *children = names;
        *opaque |= hides;
    }
}

/// Keeps the attributes that a Linux file system has and that mean the same on any machine.
pub(crate) fn keep_known(xattrs: &mut Xattrs) {
    xattrs.retain(|(name, _)| {
        let spaces = [&b"user."[..], b"trusted.", b"security."];
        let known = spaces.iter().any(|space| name.starts_with(space) && name.len() > space.len())
            || matches!(&**name, b"system.posix_acl_access" | b"system.posix_acl_default");
        let local = name.starts_with(b"trusted.overlay.")
            || name.starts_with(b"user.overlay.")
            || &**name == b"security.selinux";
        known && !local
    });
    xattrs.shrink_to_fit();
}

/// Counts names as `stat` does: a directory has its own, `.`, and `..` of each directory in it.
fn count_links(nodes: &mut [Node]) {
    let mut links = vec![0_u32; nodes.len()];
    let mut open = vec![0_usize];
    links[0] = 2;
    while let Some(id) = open.pop() {
        for &child in nodes[id].children().into_iter().flat_map(BTreeMap::values) {
            let child = child as usize;
            if nodes[child].children().is_some() {
                links[id] += 1;
                links[child] = 2;
                open.push(child);
            } else {
                links[child] += 1;
            }
        }
    }
    for (node, links) in nodes.iter_mut().zip(links) {
        node.links = links;
    }
}
