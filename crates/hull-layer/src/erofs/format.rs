//! Constants and records of the on-disk format (`fs/erofs/erofs_fs.h`).

/// Bytes of a block: the smallest that the kernel takes, and the unit of tar.
pub(super) const BLOCK: u64 = 512;
/// Its base-2 logarithm.
pub(super) const BLOCK_BITS: u8 = 9;
/// Where the superblock is.
pub(super) const SUPER: u64 = 1024;
/// What it begins with.
pub(super) const MAGIC: u32 = 0xe0f5_e1e2;
/// Where inodes begin; the root directory is the first.
pub(super) const INODES: u64 = 1536;
/// Unit of inode numbers.
pub(super) const SLOT: u64 = 32;
/// Number of the only other device: the tar.
pub(super) const TAR: u16 = 1;
/// Block number that stands for a hole.
pub(super) const HOLE: u32 = u32::MAX;

/// A checksum is kept.
pub(super) const COMPAT_CHECKSUM: u32 = 0x1;
/// Times are modification times.
pub(super) const COMPAT_MTIME: u32 = 0x2;
/// Files of chunks.
pub(super) const INCOMPAT_CHUNKED: u32 = 0x4;
/// Other devices.
pub(super) const INCOMPAT_DEVICES: u32 = 0x8;

/// Content in one run of blocks.
pub(super) const LAYOUT_PLAIN: u16 = 0;
/// As plain, but what does not fill a block follows the inode.
pub(super) const LAYOUT_INLINE: u16 = 2;
/// Content in chunks.
pub(super) const LAYOUT_CHUNKS: u16 = 4;
/// The chunk index has entries of eight bytes, with device numbers.
pub(super) const CHUNK_INDEXES: u16 = 0x20;
/// Bits of the chunk format that say how many blocks a chunk has.
pub(super) const CHUNK_BITS: u16 = 0x1f;

/// Bytes of an inode whose numbers are small and whose time is the file system's.
pub(super) const COMPACT: u64 = 32;
/// Bytes of an inode with everything.
pub(super) const EXTENDED: u64 = 64;
/// Bytes of a directory entry, without the name.
pub(super) const DIRENT: u64 = 12;
/// Bytes of what precedes an inode's extended attributes.
pub(super) const XATTR_HEADER: u64 = 12;

/// File types of `st_mode`.
pub(super) mod mode {
    pub(in super::super) const MASK: u16 = 0o170_000;
    pub(in super::super) const FIFO: u16 = 0o010_000;
    pub(in super::super) const CHARACTER: u16 = 0o020_000;
    pub(in super::super) const DIRECTORY: u16 = 0o040_000;
    pub(in super::super) const BLOCK: u16 = 0o060_000;
    pub(in super::super) const FILE: u16 = 0o100_000;
    pub(in super::super) const SYMLINK: u16 = 0o120_000;
}

/// CRC-32C of `bytes`, as the superblock has it: seeded with ones, not inverted at the end.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |state, &byte| {
        (0..8).fold(state ^ u32::from(byte), |bits, _| (bits >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(bits & 1)))
    })
}

/// A record of little-endian fields at fixed places.
pub(super) struct Record<const N: usize>([u8; N]);

impl<const N: usize> Record<N> {
    pub(super) fn new() -> Self {
        Self([0; N])
    }

    /// Puts a field; every call has constants that fit, so nothing is cut off.
    pub(super) fn put(&mut self, at: usize, field: &[u8]) -> &mut Self {
        for (place, byte) in self.0.iter_mut().skip(at).zip(field) {
            *place = *byte;
        }
        self
    }

    pub(super) fn u16(&mut self, at: usize, value: u16) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn u64(&mut self, at: usize, value: u64) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn bytes(&self) -> &[u8; N] {
        &self.0
    }
}

/// `value` rounded up to a multiple of `unit`, a power of two.
pub(super) fn up(value: u64, unit: u64) -> u64 {
    value.saturating_add(unit - 1) & !(unit - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_has_the_known_answer() {
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
        // What the kernel seeds its own sum with: the magic number and an empty checksum field.
        assert_eq!(crc32c(&[0xe2, 0xe1, 0xf5, 0xe0, 0, 0, 0, 0]), 0x5045_b54a);
    }
}
