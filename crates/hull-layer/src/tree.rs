//! The names of one layer, as overlayfs will see them.
//!
//! A [`Tree`] is plain data: the tar reader's entries go in through [`Builder`], the EROFS writer and the directory
//! unpacker read it. Nodes refer to each other by index, so that hard links are one node with several names.

use std::collections::BTreeMap;

/// A node's place in [`Tree::nodes`]; 0 is the root directory.
pub type NodeId = u32;

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
    pub xattrs: Vec<(Box<[u8]>, Box<[u8]>)>,
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
