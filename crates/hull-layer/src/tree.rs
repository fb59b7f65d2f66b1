//! The names of one layer, as overlayfs will see them.
//!
//! A [`Tree`] is plain data: the tar reader's entries go in through [`Builder`], the EROFS writer and the directory
//! unpacker read it. Nodes refer to each other by index, so that hard links are one node with several names.

mod builder;

use std::collections::BTreeMap;

pub use builder::Builder;
pub(crate) use builder::keep_known;

/// A node's place in [`Tree::nodes`]; 0 is the root directory.
pub type NodeId = u32;

/// Extended attributes: full names and values, sorted by name.
pub type Xattrs = Vec<(Box<[u8]>, Box<[u8]>)>;

/// A layer's names, with the attributes and the places of content.
#[derive(Clone, Debug)]
pub struct Tree {
    /// All nodes; the first is the root. A node that no directory names is not part of the layer (it was replaced).
    pub nodes: Vec<Node>,
}

/// A file of any type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-user-ID, set-group-ID and sticky, no type.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// And nanoseconds.
    pub mtime_nsec: u32,
    /// Extended attributes, sorted by their full names; none of overlayfs's own, no SELinux label.
    pub xattrs: Xattrs,
    /// How many names it has; directories as `stat` counts them.
    pub links: u32,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory {
        /// Its names, without `.` and `..`.
        children: BTreeMap<Box<[u8]>, NodeId>,
        /// It hides everything of the layers below (`.wh..wh..opq`).
        opaque: bool,
        /// The archive has no entry for it: it was made because something lies in it.
        implied: bool,
    },
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// Where its content is, in ascending order without overlap; what no extent covers is zeros.
        extents: Vec<Extent>,
    },
    /// A symbolic link to this text.
    Symlink(Box<[u8]>),
    /// A character device; major, minor.
    Character(u32, u32),
    /// A block device; major, minor.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// The name is removed from the layers below (`.wh.NAME`); overlayfs's character device 0:0.
    Whiteout,
}

/// A piece of a file's content within the tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it is in the file.
    pub offset: u64,
    /// Where it is in the uncompressed archive.
    pub tar: u64,
    /// Its length in bytes.
    pub length: u64,
}

impl Node {
    /// The names of a directory; `None` for anything else.
    #[must_use]
    pub fn children(&self) -> Option<&BTreeMap<Box<[u8]>, NodeId>> {
        match &self.kind {
            Kind::Directory { children, .. } => Some(children),
            _ => None,
        }
    }
}

impl Tree {
    /// The root directory.
    #[must_use]
    pub fn root(&self) -> &Node {
        &self.nodes[0]
    }

    /// The node with this ID.
    ///
    /// # Panics
    /// If the ID is of another tree.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    /// The node at a path of components joined by `/`; the root's is empty. Links are not followed.
    #[must_use]
    pub fn lookup(&self, path: &[u8]) -> Option<NodeId> {
        lookup(&self.nodes, path)
    }

    /// Calls `visit` with the path and node of every name, a directory before what is in it and whiteouts before their
    /// siblings, otherwise sorted by name: the order of entries in a layer's tar. The root comes first, with an empty
    /// path. A file with several names comes once for each.
    ///
    /// # Errors
    /// The first one of `visit`.
    pub fn visit<E>(&self, mut visit: impl FnMut(&[u8], NodeId) -> Result<(), E>) -> Result<(), E> {
        let mut path = Vec::new();
        visit(&path, 0)?;
        let mut open = vec![(0, self.in_order(0))];
        while let Some((length, names)) = open.last_mut() {
            path.truncate(*length);
            let Some((name, id)) = names.next() else {
                open.pop();
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            visit(&path, id)?;
            if self.node(id).children().is_some_and(|children| !children.is_empty()) {
                open.push((path.len(), self.in_order(id)));
            }
        }
        Ok(())
    }

    fn in_order(&self, id: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
        let names = || self.node(id).children().into_iter().flatten().map(|(name, id)| (&**name, *id));
        let whiteout = |(_, id): &(&[u8], NodeId)| self.node(*id).kind == Kind::Whiteout;
        names().filter(whiteout).chain(names().filter(move |name| !whiteout(name)))
    }
}

fn lookup(nodes: &[Node], path: &[u8]) -> Option<NodeId> {
    let mut id = 0;
    if !path.is_empty() {
        for name in path.split(|byte| *byte == b'/') {
            id = *nodes[id as usize].children()?.get(name)?;
        }
    }
    Some(id)
}
