//! How the content of a file is cut into chunks.
//!
//! All chunks of a file have one size, a power of two blocks, and a chunk is a hole, or lies as it is in the tar, or is
//! copied into the index. A file without holes is one chunk. Sparse files take the size that costs the index least:
//! small chunks need many entries, big ones are copied where they are not wholly one piece of the tar.

use super::format::{BLOCK, BLOCK_BITS, HOLE, TAR, up};
use crate::Error;
use crate::tree::Extent;

/// Entries that one file may have.
const MOST_CHUNKS: u64 = 1 << 20;
/// The kernel's field has five bits.
const MOST_BITS: u8 = 31;

/// The cut of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Blocks of a chunk, base-2 logarithm.
    pub(super) bits: u8,
    /// How many chunks the file has.
    pub(super) count: u64,
    /// Bytes of the chunks that are copied.
    pub(super) copied: u64,
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Hole,
    /// At this block of the tar.
    Tar(u32),
    /// In the index, after this many copied bytes of the file.
    Copy(u64),
}

/// The extents of a file, checked and with neighbours joined.
pub(super) fn extents(size: u64, extents: &[Extent], tar_size: u64) -> Result<Vec<Extent>, Error> {
    let mut joined: Vec<Extent> = Vec::with_capacity(extents.len().min(1));
    let mut end = 0;
    for extent in extents.iter().filter(|extent| extent.length > 0) {
        let past = extent.offset.checked_add(extent.length).filter(|past| *past <= size && extent.offset >= end);
        let in_tar = extent.tar.checked_add(extent.length).is_some_and(|past| past <= tar_size);
        let (Some(past), true) = (past, in_tar) else {
            return Err(Error::Index("a file's content lies outside of the file or the archive".into()));
        };
        end = past;
        match joined.last_mut() {
            Some(last) if last.offset + last.length == extent.offset && last.tar + last.length == extent.tar => {
                last.length += extent.length;
            }
            _ => joined.push(*extent),
        }
    }
    Ok(joined)
}

impl Cut {
    /// The best cut of a file that is not empty; `extents` are those of [`extents()`].
    pub(super) fn best(size: u64, extents: &[Extent]) -> Result<Self, Error> {
        // Chunks that hold the whole file: also the answer for a file without content.
        let whole = (u64::BITS - (size.div_ceil(BLOCK) - 1).leading_zeros()) as u8;
        let single = |extent: &Extent| extent.offset == 0 && extent.length == size && extent.tar.is_multiple_of(BLOCK);
        if whole <= MOST_BITS && (extents.is_empty() || matches!(extents, [only] if single(only))) {
            return Ok(Self { bits: whole, count: 1, copied: 0 });
        }
        (0..=whole.min(MOST_BITS))
            .filter_map(|bits| Self::of(size, extents, bits))
            .min_by_key(|cut| (cut.cost(), cut.bits))
            .ok_or_else(|| Error::Index(format!("a file of {size} bytes is too large for the index")))
    }

    /// Bytes of the index.
    pub(super) fn cost(&self) -> u64 {
        self.copied.saturating_add(self.count * 8)
    }

    fn of(size: u64, extents: &[Extent], bits: u8) -> Option<Self> {
        let chunk = 1u64 << (bits + BLOCK_BITS);
        let count = size.div_ceil(chunk);
        if count > MOST_CHUNKS {
            return None;
        }
        let mut copied = 0u64;
        let mut next = 0;
        for extent in extents {
            let (first, last, whole) = parts(size, extent, chunk);
            let touched = (last + 1).saturating_sub(first.max(next));
            let inner = if whole.is_empty() { 0 } else { whole.end - whole.start };
            copied = copied.saturating_add((touched.saturating_sub(inner)).saturating_mul(chunk));
            next = last + 1;
        }
        // The last chunk is copied only up to the file's end.
        if copied > 0 && extents.last().is_some_and(|extent| last_is_copied(size, extent, chunk, count)) {
            copied -= count * chunk - up(size, BLOCK);
        }
        Some(Self { bits, count, copied })
    }

    /// All chunks, in order.
    pub(super) fn chunks(&self, size: u64, extents: &[Extent]) -> Result<Vec<Chunk>, Error> {
        let chunk = 1u64 << (self.bits + BLOCK_BITS);
        let mut all = vec![Chunk::Hole; usize::try_from(self.count).unwrap_or(usize::MAX)];
        let mut copied = 0;
        for extent in extents {
            let (first, last, whole) = parts(size, extent, chunk);
            let touched = all.iter_mut().enumerate().take(last as usize + 1).skip(first as usize);
            for (number, place) in touched {
                let number = number as u64;
                if whole.contains(&number) {
                    let block = (extent.tar + (number * chunk - extent.offset)) / BLOCK;
                    let block = u32::try_from(block).ok().filter(|block| *block != HOLE);
                    let block = block.ok_or_else(|| Error::Index("content beyond 2 TiB of the archive".into()))?;
                    *place = Chunk::Tar(block);
                } else if *place == Chunk::Hole {
                    *place = Chunk::Copy(copied);
                    copied += chunk.min(up(size, BLOCK) - number * chunk);
                }
            }
        }
        Ok(all)
    }
}

/// The first and the last chunk that an extent touches, and those that it fills where the tar has them aligned.
fn parts(size: u64, extent: &Extent, chunk: u64) -> (u64, u64, std::ops::Range<u64>) {
    let end = extent.offset + extent.length;
    let (first, last) = (extent.offset / chunk, (end - 1) / chunk);
    let aligned = extent.tar % BLOCK == extent.offset % BLOCK;
    // The tar fills the last block of an entry, so the end of the file is as good as the end of a chunk.
    let past = if end == size { last + 1 } else { end / chunk };
    (first, last, if aligned { extent.offset.div_ceil(chunk)..past } else { 0..0 })
}

fn last_is_copied(size: u64, extent: &Extent, chunk: u64, count: u64) -> bool {
    let (_, last, whole) = parts(size, extent, chunk);
    last + 1 == count && !whole.contains(&last)
}

/// The entry of a chunk index.
pub(super) fn entry(chunk: Chunk, copies: u64) -> Result<[u8; 8], Error> {
    let (device, block) = match chunk {
        Chunk::Hole => (0, HOLE),
        Chunk::Tar(block) => (TAR, block),
        Chunk::Copy(offset) => {
            let block = u32::try_from((copies + offset) / BLOCK).ok().filter(|block| *block != HOLE);
            (0, block.ok_or_else(|| Error::Index("it would be larger than 2 TiB".into()))?)
        }
    };
    let mut bytes = [0; 8];
    bytes[2..4].copy_from_slice(&device.to_le_bytes());
    bytes[4..].copy_from_slice(&block.to_le_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, tar: u64, length: u64) -> Extent {
        Extent { offset, tar, length }
    }

    #[test]
    fn contiguous_files_are_one_chunk() {
        for size in [1, 511, 512, 513, 4096, 1 << 30, (1 << 40) - 1, 1 << 40] {
            let cut = Cut::best(size, &[extent(0, 1024, size)]).expect("a cut");
            assert_eq!((cut.count, cut.copied), (1, 0), "{size}");
            assert!(size <= 512 << cut.bits, "{size} {}", cut.bits);
        }
    }

    #[test]
    fn holes_cost_no_content() {
        let cut = Cut::best(1 << 40, &[]).expect("a cut");
        assert_eq!((cut.count, cut.copied), (1, 0));
        let pieces = [extent(4096, 512, 4096), extent(1 << 20, 4608, 8192)];
        let cut = Cut::best(2 << 20, &pieces).expect("a cut");
        assert_eq!(cut.copied, 0);
        let chunks = cut.chunks(2 << 20, &pieces).expect("chunks");
        assert_eq!(chunks.iter().filter(|chunk| **chunk != Chunk::Hole).count(), 3);
        assert_eq!(chunks[1], Chunk::Tar(1));
    }

    #[test]
    fn what_is_counted_is_what_is_copied() {
        for pieces in [
            vec![extent(0, 512, 700), extent(700, 1212 + 4, 9), extent(1000, 2000, 24)],
            vec![extent(100, 612, 5000), extent(6000, 8192, 3000)],
            vec![extent(0, 512, 8999), extent(8999, 0, 1)],
        ] {
            for bits in 0..6 {
                let cut = Cut::of(9000, &pieces, bits).expect("a cut");
                let chunks = cut.chunks(9000, &pieces).expect("chunks");
                let copies = chunks.iter().enumerate().filter(|(_, chunk)| matches!(chunk, Chunk::Copy(_)));
                let bytes: u64 = copies.map(|(n, _)| (512u64 << bits).min(9216 - n as u64 * (512 << bits))).sum();
                assert_eq!(cut.copied, bytes, "{pieces:?} {bits}");
            }
        }
    }

    #[test]
    fn a_far_byte_costs_little() {
        let cut = Cut::best(292 << 30, &[extent((292 << 30) - 4096, 512, 300)]).expect("a cut");
        assert!(cut.cost() < 16 << 20, "{cut:?}");
        assert!(Cut::best(u64::MAX / 2, &[extent(1, 512, 300)]).is_err());
    }

    #[test]
    fn extents_outside_are_refused() {
        assert!(extents(10, &[extent(5, 0, 6)], 100).is_err());
        assert!(extents(10, &[extent(0, 95, 6)], 100).is_err());
        assert!(extents(10, &[extent(4, 0, 2), extent(3, 0, 1)], 100).is_err());
        assert!(extents(10, &[extent(u64::MAX, 0, 2)], 100).is_err());
        assert_eq!(extents(10, &[extent(0, 7, 4), extent(4, 11, 6)], 100).expect("joined").len(), 1);
    }
}
