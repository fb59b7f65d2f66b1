//! What a user would see of a layer: of a tree with its archive, or of a directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use hull_layer::tree::{Kind, Node, Tree};

/// By path.
pub(crate) type Seen = BTreeMap<Vec<u8>, File>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) kind: String,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, i64),
    pub(crate) links: u64,
    /// The first of its names.
    pub(crate) first: Vec<u8>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Content or link text.
    pub(crate) content: Vec<u8>,
}

pub(crate) fn content(node: &Node, archive: &[u8]) -> Vec<u8> {
    let Kind::File { size, extents } = &node.kind else { return Vec::new() };
    let mut content = vec![0; usize::try_from(*size).expect("small")];
    for extent in extents {
        let [offset, tar, length] =
            [extent.offset, extent.tar, extent.length].map(|number| usize::try_from(number).expect("small"));
        content[offset..offset + length].copy_from_slice(&archive[tar..tar + length]);
    }
    content
}

pub(crate) fn tree(tree: &Tree, archive: &[u8]) -> Seen {
    let mut first = BTreeMap::new();
    tree.visit(|path, id| {
        let slot = first.entry(id).or_insert_with(|| path.to_vec());
        *slot = (&*slot).min(&path.to_vec()).clone();
        Ok::<(), ()>(())
    })
    .expect("visited");
    let mut seen = Seen::new();
    tree.visit(|path, id| {
        let node = tree.node(id);
        let (kind, text) = match &node.kind {
            Kind::Directory { opaque, implied, .. } => {
                let mut kind = "directory".to_owned();
                if *opaque {
                    kind += " opaque";
                }
                if *implied {
                    kind += " implied";
                }
                (kind, Vec::new())
            }
            Kind::File { .. } => ("file".to_owned(), content(node, archive)),
            Kind::Symlink(target) => ("symlink".to_owned(), target.to_vec()),
            Kind::Character(major, minor) => (format!("character {major}:{minor}"), Vec::new()),
            Kind::Block(major, minor) => (format!("block {major}:{minor}"), Vec::new()),
            Kind::Fifo => ("fifo".to_owned(), Vec::new()),
            Kind::Whiteout => ("whiteout".to_owned(), Vec::new()),
        };
        let file = File {
            kind,
            mode: node.mode.into(),
            owner: (node.uid, node.gid),
            mtime: (node.mtime, node.mtime_nsec.into()),
            links: node.links.into(),
            first: first[&id].clone(),
            xattrs: node.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            content: text,
        };
        assert!(seen.insert(path.to_vec(), file).is_none());
        Ok::<(), ()>(())
    })
    .expect("visited");
    seen
}

pub(crate) fn directory(root: &Path) -> Seen {
    let mut seen = Seen::new();
    let mut first = BTreeMap::<u64, Vec<u8>>::new();
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let place = root.join(OsStr::from_bytes(&path));
        let meta = place.symlink_metadata().expect("lstat");
        let kind = meta.file_type();
        let device = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        let (kind, content) = if kind.is_dir() {
            for entry in place.read_dir().expect("readable") {
                let name = entry.expect("entry").file_name().into_vec();
                open.push(if path.is_empty() { name } else { [&path, &b"/"[..], &name].concat() });
            }
            ("directory".to_owned(), Vec::new())
        } else if kind.is_file() {
            ("file".to_owned(), std::fs::read(&place).expect("readable"))
        } else if kind.is_symlink() {
            ("symlink".to_owned(), place.read_link().expect("link").into_os_string().into_vec())
        } else if kind.is_fifo() {
            ("fifo".to_owned(), Vec::new())
        } else if kind.is_char_device() {
            (format!("character {}:{}", device.0, device.1), Vec::new())
        } else if kind.is_block_device() {
            (format!("block {}:{}", device.0, device.1), Vec::new())
        } else {
            ("socket".to_owned(), Vec::new())
        };
        let slot = first.entry(meta.ino()).or_insert_with(|| path.clone());
        *slot = (&*slot).min(&path).clone();
        let file = File {
            kind,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            links: meta.nlink(),
            first: meta.ino().to_le_bytes().to_vec(),
            xattrs: xattrs(&place),
            content,
        };
        seen.insert(path, file);
    }
    for file in seen.values_mut() {
        let ino = u64::from_le_bytes(file.first[..].try_into().expect("an inode number"));
        file.first = first[&ino].clone();
    }
    seen
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let mut xattrs: Vec<_> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && *name != b"security.selinux")
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("value");
            (name.to_vec(), value[..length].to_vec())
        })
        .collect();
    xattrs.sort();
    xattrs
}

/// Panics with the first difference.
#[track_caller]
pub(crate) fn assert_same(found: &Seen, expected: &Seen, what: &str) {
    for (path, file) in expected {
        let name = String::from_utf8_lossy(path);
        let mut other = found.get(path).unwrap_or_else(|| panic!("{what}: {name} is missing")).clone();
        let mut file = file.clone();
        assert!(other.content == file.content, "{what}: the content of {name} differs");
        (other.content, file.content) = (Vec::new(), Vec::new());
        assert_eq!(other, file, "{what}: {name}");
    }
    for path in found.keys() {
        assert!(expected.contains_key(path), "{what}: {} should not be there", String::from_utf8_lossy(path));
    }
}
