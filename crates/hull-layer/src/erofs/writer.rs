//! Writes the bytes of an index from front to back.

use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use super::chunks::{self, Chunk, Cut};
use super::directory::Packer;
use super::format::{
    BLOCK, BLOCK_BITS, CHUNK_INDEXES, COMPACT, COMPAT_CHECKSUM, COMPAT_MTIME, INCOMPAT_CHUNKED, INCOMPAT_DEVICES,
    INODES, LAYOUT_CHUNKS, LAYOUT_INLINE, LAYOUT_PLAIN, MAGIC, Record, SLOT, SUPER, crc32c, mode, up,
};
use super::shape::{Body, Layout, Shape};
use super::xattr;
use crate::Error;
use crate::tree::{Extent, Kind, Node, NodeId, Tree};

/// The tar, for the pieces of content that have to be copied from it.
pub trait Source {
    /// Fills `buffer` with what is at `offset`.
    ///
    /// # Errors
    /// As `pread(2)`; an early end is one.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for std::fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl Source for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        buffer.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// An index that can be written: everything is decided and checked.
#[derive(Debug)]
pub struct Index<'a> {
    layout: Layout<'a>,
    tar_size: u64,
}

impl<'a> Index<'a> {
    /// Plans the index of a tree whose content lies in a tar of `tar_size` bytes.
    ///
    /// # Errors
    /// [`Error::Index`] if the tree is none or something does not fit the format.
    pub fn new(tree: &'a Tree, tar_size: u64) -> Result<Self, Error> {
        Ok(Self { layout: Layout::new(tree, tar_size)?, tar_size })
    }

    /// How many bytes [`Self::write`] writes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.layout.end
    }

    /// How many inodes it has.
    #[must_use]
    pub fn inodes(&self) -> u64 {
        self.layout.order.len() as u64
    }

    /// Writes the index.
    ///
    /// # Errors
    /// [`Error::File`] for the index, [`Error::Read`] for the tar.
    pub fn write(&self, tar: &(impl Source + ?Sized), index: &mut dyn Write) -> Result<(), Error> {
        let mut out = Out { file: BufWriter::with_capacity(256 << 10, index), at: 0 };
        out.pad_to(SUPER)?;
        out.put(&self.superblock())?;
        for &id in &self.layout.order {
            self.inode(id, &mut out)?;
        }
        out.pad_to(self.layout.shared_at)?;
        out.put(&self.layout.shared.bytes)?;
        out.pad_to(self.layout.data_at)?;
        for &id in &self.layout.order {
            self.data(id, tar, &mut out)?;
        }
        out.pad_to(self.layout.end)?;
        out.file.flush().map_err(Error::file("write", "index"))
    }

    fn superblock(&self) -> [u8; 512] {
        let layout = &self.layout;
        let mut block = Record::<512>::new();
        block
            .u32(0, MAGIC)
            .u32(8, COMPAT_CHECKSUM | COMPAT_MTIME)
            .put(12, &[BLOCK_BITS])
            .u16(14, (INODES / SLOT) as u16)
            .u64(16, layout.order.len() as u64)
            .u64(24, layout.epoch.seconds as u64)
            .u32(32, layout.epoch.nanoseconds)
            .u32(36, (layout.end / BLOCK) as u32)
            .u32(44, (layout.shared_at / BLOCK) as u32)
            .u32(80, INCOMPAT_CHUNKED | INCOMPAT_DEVICES)
            .u16(86, 1)
            // The device's slot follows the superblock; slots are counted in their own size of 128 bytes.
            .u16(88, (SUPER / 128 + 1) as u16)
            .put(128, b"tar")
            .u32(128 + 64, self.tar_size.div_ceil(BLOCK) as u32);
        let sum = crc32c(block.bytes());
        *block.u32(4, sum).bytes()
    }

    fn inode(&self, id: NodeId, out: &mut Out<'_>) -> Result<(), Error> {
        let node = self.layout.node(id);
        let (place, shape) = (self.layout.place(id)?, self.layout.shape(id)?);
        let data = self.layout.data_at + place.data;
        let area = self.layout.shared.area(node)?;
        out.pad_to(place.at)?;

        let (layout, union) = match shape.body {
            Body::Nothing => (LAYOUT_PLAIN, device(&node.kind)?),
            Body::Plain => (LAYOUT_PLAIN, (data / BLOCK) as u32),
            Body::Inline(_) => (LAYOUT_INLINE, (data / BLOCK) as u32),
            Body::Chunks(cut) => (LAYOUT_CHUNKS, u32::from(CHUNK_INDEXES | u16::from(cut.bits))),
        };
        let number = u32::try_from(place.at / SLOT).unwrap_or(0);
        let (count, links) = (xattr::count(area.len())?, node.links.max(1));
        if shape.inode == COMPACT {
            let mut inode = Record::<32>::new();
            inode.u16(0, layout << 1).u16(2, count).u16(4, node.mode | file_type(&node.kind)).u16(6, links as u16);
            inode.u32(8, shape.size as u32).u32(16, union).u32(20, number);
            inode.u16(24, node.uid as u16).u16(26, node.gid as u16);
            out.put(inode.bytes())?;
        } else {
            let mut inode = Record::<64>::new();
            inode.u16(0, layout << 1 | 1).u16(2, count).u16(4, node.mode | file_type(&node.kind));
            inode.u64(8, shape.size).u32(16, union).u32(20, number).u32(24, node.uid).u32(28, node.gid);
            inode.u64(32, node.mtime as u64).u32(40, node.mtime_nsec).u32(44, links);
            out.put(inode.bytes())?;
        }
        out.put(&area)?;
        match shape.body {
            Body::Nothing | Body::Plain => Ok(()),
            Body::Inline(tail) => self.tail(id, node, tail, out),
            Body::Chunks(cut) => {
                out.pad_to(up(out.at, 8))?;
                let extents = self.content(node)?;
                for chunk in cut.chunks(shape.size, &extents)? {
                    out.put(&chunks::entry(chunk, data)?)?;
                }
                Ok(())
            }
        }
    }

    /// What of a directory or link does not fill a block.
    fn tail(&self, id: NodeId, node: &Node, length: u64, out: &mut Out<'_>) -> Result<(), Error> {
        if let Kind::Symlink(text) = &node.kind {
            return out.put(&text[text.len() - length as usize..]);
        }
        let last = self.blocks(id, |_| Ok(()))?;
        out.put(&last)
    }

    /// Gives the full blocks of a directory to `full` and returns the last one.
    fn blocks(&self, id: NodeId, mut full: impl FnMut(Vec<u8>) -> Result<(), Error>) -> Result<Vec<u8>, Error> {
        let mut packer = Packer::default();
        for (name, child) in self.layout.entries(id)? {
            let kind = dirent_type(&self.layout.node(child).kind);
            if let Some(block) = packer.add(name, self.layout.nid(child)?, kind) {
                full(block)?;
            }
        }
        Ok(packer.take())
    }

    fn content(&self, node: &Node) -> Result<Vec<Extent>, Error> {
        match &node.kind {
            Kind::File { size, extents } => self.layout.extents(*size, extents),
            _ => Ok(Vec::new()),
        }
    }

    fn data(&self, id: NodeId, tar: &(impl Source + ?Sized), out: &mut Out<'_>) -> Result<(), Error> {
        let node = self.layout.node(id);
        let shape = match &node.kind {
            Kind::Directory { .. } | Kind::Symlink(_) => self.layout.shape(id)?,
            Kind::File { size, extents } if *size > 0 && !extents.is_empty() => self.layout.shape(id)?,
            _ => return Ok(()),
        };
        let start = self.layout.data_at + self.layout.place(id)?.data;
        match shape.body {
            Body::Chunks(cut) if cut.copied > 0 => {
                out.pad_to(start)?;
                self.copy(cut, shape, node, tar, out)
            }
            Body::Nothing | Body::Chunks(_) => Ok(()),
            Body::Plain | Body::Inline(_) => {
                if shape.size < BLOCK && matches!(shape.body, Body::Inline(_)) {
                    return Ok(());
                }
                out.pad_to(start)?;
                let full = shape.size - if let Body::Inline(tail) = shape.body { tail } else { 0 };
                if let Kind::Symlink(text) = &node.kind {
                    out.put(&text[..full as usize])?;
                } else {
                    let last = self.blocks(id, |block| {
                        out.put(&block)?;
                        out.pad_to(up(out.at, BLOCK))
                    })?;
                    if matches!(shape.body, Body::Plain) {
                        out.put(&last)?;
                    }
                }
                out.pad_to(up(out.at, BLOCK))
            }
        }
    }

    /// Copies the chunks that the tar does not have as they are.
    fn copy(
        &self,
        cut: Cut,
        shape: Shape,
        node: &Node,
        tar: &(impl Source + ?Sized),
        out: &mut Out<'_>,
    ) -> Result<(), Error> {
        let extents = self.content(node)?;
        let (chunk, start) = (BLOCK << cut.bits, out.at);
        let mut buffer = vec![0; 64 << 10];
        for (number, place) in cut.chunks(shape.size, &extents)?.into_iter().enumerate() {
            let Chunk::Copy(offset) = place else { continue };
            out.pad_to(start + offset)?;
            let first = number as u64 * chunk;
            let past = (first + chunk).min(shape.size);
            let at = extents.partition_point(|extent| extent.offset + extent.length <= first);
            for extent in extents[at..].iter().take_while(|extent| extent.offset < past) {
                let (mut from, to) = (extent.offset.max(first), (extent.offset + extent.length).min(past));
                out.pad_to(start + offset + (from - first))?;
                while from < to {
                    let part = &mut buffer[..(to - from).min(64 << 10) as usize];
                    tar.read_at(part, extent.tar + (from - extent.offset)).map_err(Error::Read)?;
                    out.put(part)?;
                    from += part.len() as u64;
                }
            }
        }
        out.pad_to(start + up(cut.copied, BLOCK))
    }
}

struct Out<'a> {
    file: BufWriter<&'a mut dyn Write>,
    at: u64,
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.at += bytes.len() as u64;
        self.file.write_all(bytes).map_err(Error::file("write", "index"))
    }

    fn pad_to(&mut self, at: u64) -> Result<(), Error> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut missing =
            at.checked_sub(self.at).ok_or_else(|| Error::Index(format!("its parts overlap at byte {}", self.at)))?;
        while missing > 0 {
            let part = missing.min(ZEROS.len() as u64);
            self.put(&ZEROS[..part as usize])?;
            missing -= part;
        }
        Ok(())
    }
}

fn file_type(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory { .. } => mode::DIRECTORY,
        Kind::File { .. } => mode::FILE,
        Kind::Symlink(_) => mode::SYMLINK,
        Kind::Character(..) | Kind::Whiteout => mode::CHARACTER,
        Kind::Block(..) => mode::BLOCK,
        Kind::Fifo => mode::FIFO,
    }
}

fn dirent_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => 1,
        Kind::Directory { .. } => 2,
        Kind::Character(..) | Kind::Whiteout => 3,
        Kind::Block(..) => 4,
        Kind::Fifo => 5,
        Kind::Symlink(_) => 7,
    }
}

/// The number of a device as the kernel's `new_encode_dev` has it; 0 for everything else.
fn device(kind: &Kind) -> Result<u32, Error> {
    let (major, minor) = match kind {
        Kind::Character(major, minor) | Kind::Block(major, minor) => (*major, *minor),
        _ => (0, 0),
    };
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(Error::Index(format!("device {major}:{minor} does not exist on Linux")));
    }
    Ok((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}
