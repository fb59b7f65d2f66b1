//! The hash of a root file system: the same for any two stacks of layers that show the same files.
//!
//! ```text
//! "hull-rootfs 1\n"  then for each name, parents before children, siblings in byte order:
//!   path                    length, bytes; the root is empty
//!   'h' path                another name of a file that came before, or:
//!   type mode uid gid mtime nsec xattrs...
//!     'd'  'l' target  'c' 'b' major minor  'p'  'f' size sha256(content)
//! ```
//!
//! Numbers are big-endian; texts have their length before them, as 64 bits. Not hashed: times of access and change, inode numbers,
//! sizes of directories, where holes are.

use std::collections::HashMap;
use std::io::{self, Read};

use hull_layer::tree::{Kind, Node, NodeId, Tree};
use hull_oci::Digest;
use hull_oci::digest::{Algorithm, Hasher};

use super::merge::Archives;

/// Hashes a tree without whiteouts.
pub(super) fn hash(tree: &Tree, archives: &Archives) -> io::Result<Digest> {
    let mut walk = Walk { hasher: Hasher::new(Algorithm::Sha256), first: HashMap::new(), buffer: vec![0; 128 << 10] };
    walk.hasher.update(b"hull-rootfs 1\n");
    tree.visit(|path, id| walk.node(tree.node(id), path, id, archives))?;
    Ok(walk.hasher.finish())
}

struct Walk {
    hasher: Hasher,
    /// The first path of each file that has several.
    first: HashMap<NodeId, Vec<u8>>,
    buffer: Vec<u8>,
}

impl Walk {
    fn node(&mut self, node: &Node, path: &[u8], id: NodeId, archives: &Archives) -> io::Result<()> {
        self.text(path);
        if let Some(first) = self.first.get(&id).cloned() {
            self.hasher.update(b"h");
            self.text(&first);
            return Ok(());
        }
        if node.links > 1 && node.children().is_none() {
            self.first.insert(id, path.to_vec());
        }
        self.attributes(node);
        match &node.kind {
            Kind::File { size, extents } => {
                self.hasher.update(&size.to_be_bytes());
                let mut content = archives.content(*size, extents);
                let mut hasher = Hasher::new(Algorithm::Sha256);
                loop {
                    match content.read(&mut self.buffer)? {
                        0 => break,
                        length => hasher.update(&self.buffer[..length]),
                    }
                }
                self.hasher.update(hasher.finish().hex().as_bytes());
            }
            Kind::Symlink(target) => self.text(target),
            Kind::Character(major, minor) | Kind::Block(major, minor) => {
                self.hasher.update(&major.to_be_bytes());
                self.hasher.update(&minor.to_be_bytes());
            }
            Kind::Directory { .. } | Kind::Fifo | Kind::Whiteout => {}
        }
        Ok(())
    }

    fn attributes(&mut self, node: &Node) {
        let kind = match node.kind {
            Kind::Directory { .. } => b'd',
            Kind::File { .. } => b'f',
            Kind::Symlink(_) => b'l',
            Kind::Character(..) => b'c',
            Kind::Block(..) => b'b',
            Kind::Fifo => b'p',
            Kind::Whiteout => b'w',
        };
        self.hasher.update(&[kind]);
        self.hasher.update(&node.mode.to_be_bytes());
        self.hasher.update(&node.uid.to_be_bytes());
        self.hasher.update(&node.gid.to_be_bytes());
        self.hasher.update(&node.mtime.to_be_bytes());
        self.hasher.update(&node.mtime_nsec.to_be_bytes());
        self.hasher.update(&(node.xattrs.len() as u64).to_be_bytes());
        for (name, value) in &node.xattrs {
            self.text(name);
            self.text(value);
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.hasher.update(&(text.len() as u64).to_be_bytes());
        self.hasher.update(text);
    }
}
