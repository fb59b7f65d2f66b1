//! Reads an index back into a tree, for checks and tests.
//!
//! Only what [`super::Index`] writes is understood. The bytes may be damaged: everything is looked up within bounds, a
//! directory is read once, and the number of nodes and pieces is limited by the size of the index.

use std::collections::{BTreeMap, HashMap};

use super::chunks;
use super::format::{
    BLOCK, BLOCK_BITS, CHUNK_BITS, CHUNK_INDEXES, COMPACT, COMPAT_CHECKSUM, COMPAT_MTIME, DIRENT, EXTENDED, HOLE,
    INCOMPAT_CHUNKED, INCOMPAT_DEVICES, LAYOUT_CHUNKS, LAYOUT_INLINE, LAYOUT_PLAIN, MAGIC, SLOT, SUPER, TAR,
    XATTR_HEADER, crc32c, mode, up,
};
use super::{directory, xattr};
use crate::Error;
use crate::tree::{Extent, Kind, Node, NodeId, Tree};

/// What an index says.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The names. `implied` is not kept by an index and is false everywhere.
    pub tree: Tree,
    /// Content that lies in the index itself, by node; [`Extent::tar`] is the place in the index.
    pub copied: BTreeMap<NodeId, Vec<Extent>>,
    /// Blocks of 512 bytes of the tar.
    pub tar_blocks: u64,
}

/// Reads an index.
///
/// # Errors
/// [`Error::Index`] if it is damaged.
pub fn read(index: &[u8]) -> Result<Contents, Error> {
    let bytes = Bytes(index);
    let block = bytes.get(SUPER, BLOCK)?;
    let mut unsummed = block.to_vec();
    unsummed[4..8].fill(0);
    let superblock = Bytes(block);
    if superblock.u32(0)? != MAGIC || superblock.u32(4)? != crc32c(&unsummed) {
        return Err(damaged("no superblock, or its checksum is wrong"));
    }
    let features = (superblock.u32(8)?, superblock.u32(80)?);
    let known = (COMPAT_CHECKSUM | COMPAT_MTIME, INCOMPAT_CHUNKED | INCOMPAT_DEVICES);
    if features != known || superblock.get(12, 1)? != [BLOCK_BITS] || superblock.u16(86)? != 1 {
        return Err(damaged("it was not made by Hull"));
    }
    if index.len() as u64 != u64::from(superblock.u32(36)?) * BLOCK {
        return Err(damaged("its size is not what it says"));
    }
    let walk = Walk {
        bytes,
        epoch: (superblock.u64(24)? as i64, superblock.u32(32)?),
        shared: u64::from(superblock.u32(44)?) * BLOCK,
        seen: HashMap::new(),
        pieces: index.len() / 8,
        contents: Contents {
            tree: Tree { nodes: Vec::new() },
            copied: BTreeMap::new(),
            tar_blocks: u64::from(superblock.u32(128 + 64)?),
        },
    };
    walk.all(u64::from(superblock.u16(14)?))
}

fn damaged(reason: &str) -> Error {
    Error::Index(format!("damaged: {reason}"))
}

#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn get(&self, at: u64, length: u64) -> Result<&'a [u8], Error> {
        let range = usize::try_from(at).ok().zip(at.checked_add(length).and_then(|end| usize::try_from(end).ok()));
        let found = range.and_then(|(start, end)| self.0.get(start..end));
        found.ok_or_else(|| damaged("something lies beyond its end"))
    }

    fn array<const N: usize>(&self, at: u64) -> Result<[u8; N], Error> {
        self.get(at, N as u64)?.try_into().map_err(|_| damaged("something lies beyond its end"))
    }

    fn u16(&self, at: u64) -> Result<u16, Error> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: u64) -> Result<u32, Error> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: u64) -> Result<u64, Error> {
        self.array(at).map(u64::from_le_bytes)
    }
}

/// An inode's fixed part.
struct Inode {
    layout: u16,
    mode: u16,
    size: u64,
    union: u32,
    /// Byte after the inode and its attributes.
    body: u64,
}

struct Walk<'a> {
    bytes: Bytes<'a>,
    epoch: (i64, u32),
    shared: u64,
    seen: HashMap<u64, NodeId>,
    pieces: usize,
    contents: Contents,
}

impl Walk<'_> {
    fn all(mut self, root: u64) -> Result<Contents, Error> {
        let mut directories = Vec::new();
        self.node(root, &mut directories)?;
        while let Some((id, inode)) = directories.pop() {
            let names = self.directory(&inode)?;
            let mut children = BTreeMap::new();
            for (name, nid) in names {
                let known = self.seen.get(&nid).copied();
                let child = match known {
                    Some(child) => child,
                    None => self.node(nid, &mut directories)?,
                };
                let target = &self.contents.tree.nodes[child as usize].kind;
                if name == b"." || name == b".." {
                    continue;
                }
                if known.is_some() && matches!(target, Kind::Directory { .. }) {
                    return Err(damaged("a directory has two names"));
                }
                directory::check(&name)?;
                children.insert(name.into_boxed_slice(), child);
            }
            if let Kind::Directory { children: place, .. } = &mut self.contents.tree.nodes[id as usize].kind {
                *place = children;
            }
        }
        Ok(self.contents)
    }

    fn node(&mut self, nid: u64, directories: &mut Vec<(NodeId, Inode)>) -> Result<NodeId, Error> {
        let at = nid.checked_mul(SLOT).ok_or_else(|| damaged("an inode number is too large"))?;
        let id = NodeId::try_from(self.contents.tree.nodes.len()).map_err(|_| damaged("too many inodes"))?;
        let bytes = self.bytes;
        let format = bytes.u16(at)?;
        let extended = format & 1 == 1;
        let count = u64::from(bytes.u16(at + 2)?);
        let area = if count == 0 { 0 } else { XATTR_HEADER + (count - 1) * 4 };
        let fixed = if extended { EXTENDED } else { COMPACT };
        let inode = Inode {
            layout: format >> 1,
            mode: bytes.u16(at + 4)?,
            size: if extended { bytes.u64(at + 8)? } else { u64::from(bytes.u32(at + 8)?) },
            union: bytes.u32(at + 16)?,
            body: at + fixed + area,
        };
        let (uid, gid, links, (mtime, mtime_nsec)) = if extended {
            let time = (bytes.u64(at + 32)? as i64, bytes.u32(at + 40)?);
            (bytes.u32(at + 24)?, bytes.u32(at + 28)?, bytes.u32(at + 44)?, time)
        } else {
            (bytes.u16(at + 24)?.into(), bytes.u16(at + 26)?.into(), bytes.u16(at + 6)?.into(), self.epoch)
        };
        let (xattrs, opaque) = self.xattrs(at + fixed, area)?;
        let kind = self.kind(id, &inode, opaque)?;
        let is_directory = matches!(kind, Kind::Directory { .. });
        let mode = inode.mode & !mode::MASK;
        self.contents.tree.nodes.push(Node { kind, mode, uid, gid, mtime, mtime_nsec, xattrs, links });
        self.seen.insert(nid, id);
        if is_directory {
            directories.push((id, inode));
        }
        Ok(id)
    }

    fn kind(&mut self, id: NodeId, inode: &Inode, opaque: bool) -> Result<Kind, Error> {
        let (major, minor) = ((inode.union >> 8) & 0xfff, (inode.union & 0xff) | ((inode.union >> 12) & 0xf_ff00));
        Ok(match inode.mode & mode::MASK {
            mode::DIRECTORY => Kind::Directory { children: BTreeMap::new(), opaque, implied: false },
            mode::FILE => Kind::File { size: inode.size, extents: self.extents(id, inode)? },
            mode::SYMLINK if inode.size <= 1 << 16 => Kind::Symlink(self.flat(inode, 0, inode.size)?.into()),
            mode::CHARACTER if inode.union == 0 => Kind::Whiteout,
            mode::CHARACTER => Kind::Character(major, minor),
            mode::BLOCK => Kind::Block(major, minor),
            mode::FIFO => Kind::Fifo,
            _ => return Err(damaged("a file has no known type")),
        })
    }

    /// A piece of a directory or link.
    fn flat(&self, inode: &Inode, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        let tail = match inode.layout {
            LAYOUT_PLAIN => 0,
            LAYOUT_INLINE => inode.size % BLOCK,
            _ => return Err(damaged("a directory or link has a strange layout")),
        };
        let full = inode.size - tail;
        let start = u64::from(inode.union) * BLOCK;
        let end = offset + length;
        let mut piece = Vec::new();
        if offset < full {
            piece.extend_from_slice(self.bytes.get(start + offset, end.min(full) - offset)?);
        }
        if end > full {
            let from = offset.max(full);
            piece.extend_from_slice(self.bytes.get(inode.body + (from - full), end - from)?);
        }
        Ok(piece)
    }

    fn directory(&self, inode: &Inode) -> Result<Vec<(Vec<u8>, u64)>, Error> {
        let mut names: Vec<(Vec<u8>, u64)> = Vec::new();
        let mut offset = 0;
        while offset < inode.size {
            let length = BLOCK.min(inode.size - offset);
            let content = self.flat(inode, offset, length)?;
            let block = Bytes(&content);
            let first = u64::from(block.u16(8)?);
            if first < DIRENT || first % DIRENT != 0 || first > length {
                return Err(damaged("a directory block has no entries"));
            }
            for entry in 0..first / DIRENT {
                let start = u64::from(block.u16(entry * DIRENT + 8)?);
                let past =
                    if (entry + 1) * DIRENT < first { block.u16((entry + 1) * DIRENT + 8)?.into() } else { length };
                let length = past.checked_sub(start).ok_or_else(|| damaged("a name has no length"))?;
                let name = block.get(start, length)?;
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                if names.last().is_some_and(|(last, _)| &last[..] >= name) {
                    return Err(damaged("a directory is not sorted"));
                }
                names.push((name.to_vec(), block.u64(entry * DIRENT)?));
            }
            offset += length;
        }
        Ok(names)
    }

    fn extents(&mut self, id: NodeId, inode: &Inode) -> Result<Vec<Extent>, Error> {
        if inode.size == 0 {
            return Ok(Vec::new());
        }
        let format = u16::try_from(inode.union).map_err(|_| damaged("a file has a strange layout"))?;
        if inode.layout != LAYOUT_CHUNKS || format & !CHUNK_BITS != CHUNK_INDEXES {
            return Err(damaged("a file has a strange layout"));
        }
        let chunk = BLOCK << (format & CHUNK_BITS);
        let count = inode.size.div_ceil(chunk);
        // Files that share a chunk index would make the walk longer than the index.
        self.pieces = usize::try_from(count)
            .ok()
            .and_then(|count| self.pieces.checked_sub(count))
            .ok_or_else(|| damaged("a file has more chunks than there is room for"))?;
        let (mut in_tar, mut copied) = (Vec::new(), Vec::new());
        for number in 0..count {
            let entry = up(inode.body, 8) + number * 8;
            let (device, block) = (self.bytes.u16(entry + 2)?, self.bytes.u32(entry + 4)?);
            let offset = number * chunk;
            let length = chunk.min(inode.size - offset);
            let extent = Extent { offset, tar: u64::from(block) * BLOCK, length };
            match device {
                _ if block == HOLE => {}
                TAR => in_tar.push(extent),
                0 => copied.push(extent),
                _ => return Err(damaged("a file lies on an unknown device")),
            }
        }
        let tar_size = self.contents.tar_blocks * BLOCK;
        let copied = chunks::extents(inode.size, &copied, self.bytes.0.len() as u64)?;
        if !copied.is_empty() {
            self.contents.copied.insert(id, copied);
        }
        chunks::extents(inode.size, &in_tar, tar_size)
    }

    /// The attributes of an inode without those of overlayfs, and whether it is opaque.
    #[expect(clippy::type_complexity, reason = "the type of Node::xattrs")]
    fn xattrs(&self, at: u64, area: u64) -> Result<(Vec<(Box<[u8]>, Box<[u8]>)>, bool), Error> {
        let mut found = Vec::new();
        if area > 0 {
            let shared = u64::from(self.bytes.get(at + 4, 1)?[0]);
            for number in 0..shared {
                let number = u64::from(self.bytes.u32(at + XATTR_HEADER + number * 4)?);
                found.push(self.xattr(self.shared + number * 4)?.0);
            }
            let mut next = at + XATTR_HEADER + shared * 4;
            while next < at + area {
                let (pair, length) = self.xattr(next)?;
                found.push(pair);
                next += length;
            }
        }
        found.sort();
        let all = found.len();
        found.retain(|(name, value)| (&**name, &**value) != xattr::OPAQUE);
        let opaque = found.len() < all;
        Ok((found, opaque))
    }

    #[expect(clippy::type_complexity, reason = "a name, a value, and a length")]
    fn xattr(&self, at: u64) -> Result<((Box<[u8]>, Box<[u8]>), u64), Error> {
        let [length, number] = self.bytes.array(at)?;
        let value = u64::from(self.bytes.u16(at + 2)?);
        let prefix = xattr::PREFIXES.iter().find(|(known, _)| *known == number);
        let (_, prefix) = prefix.ok_or_else(|| damaged("an attribute has an unknown prefix"))?;
        let name = [prefix, self.bytes.get(at + 4, length.into())?].concat();
        let value = self.bytes.get(at + 4 + u64::from(length), value)?;
        Ok(((name.into(), value.into()), up(4 + u64::from(length) + value.len() as u64, 4)))
    }
}
