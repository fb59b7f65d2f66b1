//! Archives with errors in them: nothing panics, and nothing is believed that the bytes do not say.

use std::io::Read;

use hull_layer::Limits;
use hull_layer::tar::{EntryKind, Reader};
use hull_layer::tree::{Builder, Kind};
use proptest::prelude::*;

use crate::archive::Archive;

/// An archive with a little of everything.
fn archive() -> Vec<u8> {
    let sparse = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9000")];
    let map = Archive::new().data(b"2\n0\n512\n4096\n3\n").data(&[7; 512]).0;
    let mut old = super::archive::header(b"old-sparse", b'S', 512);
    old[257..265].copy_from_slice(b"ustar  \0");
    old[345..].fill(0);
    old[386..397].copy_from_slice(b"00000001000");
    old[398..409].copy_from_slice(b"00000001000");
    old[482] = 1;
    old[483..494].copy_from_slice(b"00000010000");
    Archive::new()
        .directory("./")
        .file("a", &[1; 700])
        .link("b", b'1', "a")
        .link("c", b'2', "../x")
        .pax(b'g', &[("comment", b"0123456789"), ("mtime", b"7")])
        .pax(
            b'x',
            &[("path", &b"long/x".repeat(60)), ("mtime", b"1.5"), ("SCHILY.xattr.security.capability", b"\x01\0=\n")],
        )
        .file("short", b"content")
        .pax(b'x', &sparse)
        .file("sparse", &[&map[..], b"abc"].concat())
        .block(old)
        .data(&[0; 512])
        .data(&[9; 512])
        .long(b'K', &[b'k'; 300])
        .long(b'L', &[b'l'; 200])
        .link("x", b'2', "y")
        .file(".wh.gone", b"")
        .file("d/.wh..wh..opq", b"")
        .entry("label", b'V', b"")
        .end()
}

fn check(bytes: &[u8], limits: Limits) {
    let mut reader = Reader::new(bytes, limits);
    let mut builder = Builder::new(limits);
    let mut buffer = [0; 4096];
    while let Ok(Some(entry)) = reader.next() {
        assert!(entry.offset < bytes.len() as u64);
        assert!(entry.path.len() <= 4096 && !entry.path.contains(&0));
        assert!(!entry.path.split(|byte| *byte == b'/').any(|name| matches!(name, b"." | b"..")));
        assert!(entry.path.is_empty() || entry.path.split(|byte| *byte == b'/').all(|name| !name.is_empty()));
        if let EntryKind::File { size, extents } = &entry.kind {
            let mut end = (0, 0);
            for extent in extents {
                assert!(extent.length > 0 && extent.offset >= end.0 && extent.tar >= end.1);
                end = (extent.offset + extent.length, extent.tar + extent.length);
            }
            assert!(end.0 <= *size && *size <= limits.bytes);
        }
        let _ = reader.content(&entry).read(&mut buffer);
        if builder.add(entry).is_err() {
            break;
        }
    }
    if let Ok(tree) = builder.finish() {
        assert!(tree.nodes.len() as u64 <= limits.entries);
        tree.visit(|_, id| {
            assert!(tree.node(id).links > 0);
            assert!(!matches!(tree.node(id).kind, Kind::Character(0, 0)));
            Ok::<(), ()>(())
        })
        .expect("visited");
    }
}

/// Damage: a place, what is written there, and whether the checksum of its block is made right again.
fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, Vec<u8>, bool)>> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..4),
        prop::sample::select(vec![
            &b"\x80"[..],
            b"\xff\xff\xff\xff",
            b"77777777777",
            b"9",
            b"\0",
            b"x",
            b"L",
            b"S",
            b"=",
            b"\n"
        ])
        .prop_map(<[u8]>::to_vec),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), bytes, prop::bool::weighted(0.8)), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_archives_never_panic(damage in damage(), cut in prop::option::weighted(0.2, any::<prop::sample::Index>())) {
        let mut bytes = archive();
        check(&bytes, Limits::default());
        for (place, new, sealed) in damage {
            let at = place.index(bytes.len() - 16);
            bytes[at..at + new.len()].copy_from_slice(&new);
            let start = at / 512 * 512;
            if sealed {
                let block = &mut bytes[start..start + 512];
                block[148..156].copy_from_slice(b"        ");
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        check(&bytes, Limits::default());
        check(&bytes, Limits { entries: 5, bytes: 9000, header: 400, xattrs: 16, names: 300 });
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        check(&bytes, Limits::default());
    }
}

#[test]
fn the_archive_that_is_damaged_is_valid() {
    let bytes = archive();
    let mut reader = Reader::new(&bytes[..], Limits::default());
    let mut names = 0;
    while reader.next().expect("valid").is_some() {
        names += 1;
    }
    assert_eq!(names, 10);
}
