//! Extended attributes: those that several inodes have are kept once and referred to by number.

use std::collections::{BTreeMap, HashMap};

use super::format::{XATTR_HEADER, up};
use crate::Error;
use crate::tree::{Kind, Node};

/// What makes a directory opaque for overlayfs.
pub(super) const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");
/// References that one inode has; others are written in line.
const MOST_SHARED: usize = 64;

/// Prefixes that have a number; the two of ACLs are whole names.
pub(super) const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

type Key<'a> = (&'a [u8], &'a [u8]);

/// The attributes of a node that the format can say. Others cannot be set on any file system that Linux mounts.
pub(super) fn of(node: &Node) -> impl Iterator<Item = Key<'_>> {
    let opaque = matches!(node.kind, Kind::Directory { opaque: true, .. });
    let own = node.xattrs.iter().map(|(name, value)| (&**name, &**value)).filter(|(name, _)| split(name).is_some());
    own.filter(|(name, _)| *name != OPAQUE.0).chain(opaque.then_some(OPAQUE))
}

/// The number of the prefix, and the rest of the name.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(number, prefix)| {
        let rest = name.strip_prefix(*prefix)?;
        (rest.is_empty() != prefix.ends_with(b".")).then_some((*number, rest))
    })
}

fn encode((name, value): Key<'_>, into: &mut Vec<u8>) -> Result<(), Error> {
    let refused = || Error::Index(format!("attribute {:?} is too large", String::from_utf8_lossy(name)));
    let (prefix, rest) = split(name).ok_or_else(refused)?;
    into.push(u8::try_from(rest.len()).map_err(|_| refused())?);
    into.push(prefix);
    into.extend_from_slice(&u16::try_from(value.len()).map_err(|_| refused())?.to_le_bytes());
    into.extend_from_slice(rest);
    into.extend_from_slice(value);
    into.resize(into.len().next_multiple_of(4), 0);
    Ok(())
}

/// Attributes that several inodes have.
#[derive(Debug, Default)]
pub(super) struct Shared<'a> {
    numbers: HashMap<Key<'a>, u32>,
    /// What is written.
    pub(super) bytes: Vec<u8>,
}

impl<'a> Shared<'a> {
    /// Finds them.
    pub(super) fn find(nodes: impl Iterator<Item = &'a Node>) -> Result<Self, Error> {
        let mut seen: BTreeMap<Key<'a>, bool> = BTreeMap::new();
        for key in nodes.flat_map(of) {
            seen.entry(key).and_modify(|again| *again = true).or_insert(false);
        }
        let mut shared = Self::default();
        for (key, _) in seen.into_iter().filter(|(_, again)| *again) {
            let number = u32::try_from(shared.bytes.len() / 4);
            shared.numbers.insert(key, number.map_err(|_| Error::Index("too many attributes".into()))?);
            encode(key, &mut shared.bytes)?;
        }
        Ok(shared)
    }

    /// What follows the inode: nothing, or a header, references and attributes.
    pub(super) fn area(&self, node: &Node) -> Result<Vec<u8>, Error> {
        let (mut numbers, mut rest) = (Vec::new(), Vec::new());
        for key in of(node) {
            match self.numbers.get(&key) {
                Some(number) if numbers.len() < MOST_SHARED => numbers.push(*number),
                _ => encode(key, &mut rest)?,
            }
        }
        if numbers.is_empty() && rest.is_empty() {
            return Ok(Vec::new());
        }
        let mut area = vec![0; XATTR_HEADER as usize];
        area[4] = numbers.len() as u8;
        area.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        area.extend(rest);
        Ok(area)
    }
}

/// The inode's field for an area of this length.
pub(super) fn count(area: usize) -> Result<u16, Error> {
    let units = match area as u64 {
        0 => 0,
        length => 1 + (up(length, 4) - XATTR_HEADER) / 4,
    };
    u16::try_from(units).map_err(|_| Error::Index("the attributes of a file are too large".into()))
}
