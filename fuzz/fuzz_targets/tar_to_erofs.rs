//! Any archive either is refused or becomes an index that reads back as the same names, with the same bytes if made
//! again. Any bytes either are refused as an index or read as a tree that can be written.
#![no_main]

use hull_layer::erofs::{Index, read};
use hull_layer::tree::{Kind, Tree};
use hull_layer::{Limits, ingest};
use libfuzzer_sys::fuzz_target;

fn write(tree: &Tree, tar: &[u8]) -> Option<Vec<u8>> {
    let index = Index::new(tree, tar.len() as u64).ok()?;
    // Sparse files may ask for more than a fuzzer should write.
    if index.size() > 64 << 20 {
        return None;
    }
    let mut bytes = Vec::new();
    index.write(tar, &mut bytes).expect("a planned index can be written");
    assert_eq!(bytes.len() as u64, index.size());
    Some(bytes)
}

/// Names, attributes and lengths; where content lies may differ.
fn names(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    let listed: Result<(), std::convert::Infallible> = tree.visit(|path, id| {
        let node = tree.node(id);
        let kind = match &node.kind {
            Kind::Directory { opaque, .. } => format!("directory {opaque}"),
            Kind::File { size, .. } => format!("file {size}"),
            other => format!("{other:?}"),
        };
        let attributes = (node.mode, node.uid, node.gid, node.mtime, node.mtime_nsec, node.links, &node.xattrs);
        lines.push(format!("{path:?} {kind} {attributes:?}"));
        Ok(())
    });
    let Ok(()) = listed;
    lines
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { entries: 1000, bytes: 1 << 24, ..Limits::default() };
    if let Ok(tree) = ingest::read_tree(bytes, &limits, true)
        && let Some(index) = write(&tree, bytes)
    {
        assert_eq!(write(&tree, bytes).as_ref(), Some(&index));
        let again = read(&index).expect("our own index");
        assert_eq!(names(&tree), names(&again.tree));
    }
    if let Ok(contents) = read(bytes) {
        let _ = Index::new(&contents.tree, contents.tar_blocks * 512);
    }
});
