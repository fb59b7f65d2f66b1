//! Blocks of directories: entries sorted by name over the whole directory, names at the end of each block.

use std::collections::BTreeMap;

use super::format::{BLOCK, DIRENT, Record};
use crate::Error;
use crate::tree::NodeId;

/// The entries of a directory as they are written: sorted, with `.` and `..`.
pub(super) fn entries(
    children: &BTreeMap<Box<[u8]>, NodeId>,
    own: NodeId,
    parent: NodeId,
) -> impl Iterator<Item = (&[u8], NodeId)> {
    let mut dots = [(&b"."[..], own), (&b".."[..], parent)].into_iter().peekable();
    let mut names = children.iter().map(|(name, node)| (&**name, *node)).peekable();
    std::iter::from_fn(move || match (dots.peek(), names.peek()) {
        (Some(dot), Some(name)) if dot.0 < name.0 => dots.next(),
        (Some(_), None) => dots.next(),
        _ => names.next(),
    })
}

/// A name that a directory can have.
pub(super) fn check(name: &[u8]) -> Result<(), Error> {
    let dots = name == b"." || name == b"..";
    if name.is_empty() || name.len() > 255 || dots || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(Error::Index(format!("{:?} is no file name", String::from_utf8_lossy(name))));
    }
    Ok(())
}

/// Bytes of a directory.
pub(super) fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut full, mut used) = (0, 0);
    for name in names {
        let need = DIRENT + name.len() as u64;
        if used + need > BLOCK {
            full += BLOCK;
            used = 0;
        }
        used += need;
    }
    full + used
}

/// Gathers entries into blocks.
#[derive(Debug, Default)]
pub(super) struct Packer<'a> {
    waiting: Vec<(&'a [u8], u64, u8)>,
    used: u64,
}

impl<'a> Packer<'a> {
    /// Adds an entry; gives the block that it had no room in.
    pub(super) fn add(&mut self, name: &'a [u8], nid: u64, kind: u8) -> Option<Vec<u8>> {
        let need = DIRENT + name.len() as u64;
        let full = (self.used + need > BLOCK).then(|| self.take());
        self.waiting.push((name, nid, kind));
        self.used += need;
        full
    }

    /// The block so far, not padded.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK as usize);
        let mut offset = self.waiting.len() * DIRENT as usize;
        for (name, nid, kind) in &self.waiting {
            let mut entry = Record::<12>::new();
            entry.u64(0, *nid).u16(8, offset as u16).put(10, &[*kind]);
            block.extend_from_slice(entry.bytes());
            offset += name.len();
        }
        for (name, ..) in self.waiting.drain(..) {
            block.extend_from_slice(name);
        }
        self.used = 0;
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_sorted_among_the_names() {
        let children = [&b"!"[..], b"-", b".", b"...", b".a", b"a"].into_iter().filter(|name| *name != b".");
        let children = children.map(|name| (name.into(), 9)).collect();
        let names: Vec<_> = entries(&children, 1, 2).map(|(name, _)| name.to_vec()).collect();
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(names.len(), 7);
        assert_eq!(entries(&BTreeMap::new(), 1, 2).collect::<Vec<_>>(), [(&b"."[..], 1), (&b".."[..], 2)]);
    }

    #[test]
    fn the_size_is_that_of_the_blocks() {
        let names: Vec<Vec<u8>> = (0..300u32).map(|n| vec![b'x'; 1 + (n * 7 % 255) as usize]).collect();
        let mut packer = Packer::default();
        let mut bytes = 0;
        for name in &names {
            bytes += packer.add(name, 1, 1).map_or(0, |block| {
                assert!(block.len() <= 512);
                512
            });
        }
        bytes += packer.take().len() as u64;
        assert_eq!(size(names.iter().map(|name| &name[..])), bytes);
    }
}
