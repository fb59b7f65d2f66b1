//! Any bytes either are refused or become a layer's tree that the writer can write and the reader read back as the same.
#![no_main]

use hull_layer::tar::{EntryKind, Reader, Writer};
use hull_layer::tree::{Builder, Kind, Tree};
use hull_layer::{Error, Limits};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { entries: 1000, bytes: 1 << 22, header: 1 << 16, xattrs: 1 << 12, names: 1 << 20 };

fn read(bytes: &[u8]) -> Result<Tree, Error> {
    let mut reader = Reader::new(bytes, LIMITS);
    let mut builder = Builder::new(LIMITS);
    while let Some(entry) = reader.next()? {
        if let EntryKind::File { size, extents } = &entry.kind {
            let stored: u64 = extents.iter().map(|extent| extent.length).sum();
            assert!(stored <= *size && stored <= bytes.len() as u64 + 512);
        }
        builder.add(entry)?;
    }
    builder.finish()
}

fn write(tree: &Tree) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.write_tree(tree, |_, _| Ok(std::io::repeat(b'x'))).expect("written to memory");
    writer.finish().expect("written to memory")
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(tree) = read(bytes) else { return };
    tree.visit(|_, id| {
        let node = tree.node(id);
        assert!(node.links > 0 && node.kind != Kind::Character(0, 0));
        Ok::<(), ()>(())
    })
    .expect("visited");
    let written = write(&tree);
    let mut reader = Reader::new(&written[..], Limits::default());
    let mut builder = Builder::new(Limits::default());
    while let Some(entry) = reader.next().expect("what was written is read") {
        builder.add(entry).expect("what was written is a layer");
    }
    assert_eq!(write(&builder.finish().expect("a layer")), written);
});
