//! Maps of sparse files.

use super::header::BLOCK;
use crate::tree::Extent;

/// The pieces of a map as extents of the archive, or what is wrong with the map.
///
/// `stored` bytes of content begin at `tar`. GNU tar lets every piece begin with a new block, other readers let it follow
/// the last; a map for which that differs is refused.
pub(super) fn extents(map: &[(u64, u64)], size: u64, tar: u64, stored: u64) -> Result<Vec<Extent>, String> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut end = 0_u64;
    let mut read = 0_u64;
    for &(offset, length) in map {
        let next = offset.checked_add(length).filter(|next| offset >= end && *next <= size);
        end = next.ok_or("the map of a sparse file is out of order or leads beyond its end")?;
        if length == 0 {
            continue;
        }
        if !read.is_multiple_of(BLOCK as u64) {
            return Err("a piece of a sparse file is not a multiple of 512 bytes long".to_owned());
        }
        let tar = tar + read;
        read += length;
        match extents.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length += length,
            _ => extents.push(Extent { offset, tar, length }),
        }
    }
    if read != stored {
        return Err(format!("the map of a sparse file says {read} bytes, its content has {stored}"));
    }
    extents.shrink_to_fit();
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_become_extents() {
        let extent = |offset, tar, length| Extent { offset, tar, length };
        assert_eq!(extents(&[], 10, 0, 0), Ok(vec![]));
        assert_eq!(extents(&[(5, 0), (10, 0)], 10, 0, 0), Ok(vec![]));
        assert_eq!(extents(&[(0, 512), (512, 512)], 1024, 8, 1024), Ok(vec![extent(0, 8, 1024)]));
        let expected = vec![extent(100, 8, 512), extent(4096, 520, 7)];
        assert_eq!(extents(&[(100, 512), (4096, 7), (9000, 0)], 9000, 8, 519), Ok(expected));
    }

    #[test]
    fn maps_that_readers_disagree_about_are_refused() {
        for (map, size, stored) in [
            (&[(0, 100), (200, 100)][..], 300, 200),
            (&[(512, 512), (0, 512)], 4096, 1024),
            (&[(0, 1024), (512, 512)], 4096, 1536),
            (&[(0, 512)], 511, 512),
            (&[(u64::MAX, 512)], u64::MAX, 512),
            (&[(0, 512)], 4096, 1024),
            (&[(0, 512)], 4096, 0),
        ] {
            assert!(extents(map, size, 0, stored).is_err(), "{map:?}");
        }
    }
}
