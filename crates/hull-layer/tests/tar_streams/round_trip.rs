//! What the writer writes, the reader and others read.

use std::collections::BTreeMap;
use std::io::{self, Read};

use hull_layer::Limits;
use hull_layer::tar::{Entry, EntryKind, Writer, WriterOptions};
use hull_layer::tree::{Builder, Tree, Xattrs};
use proptest::prelude::*;

use crate::{archive, seen};

/// An entry and its content.
type File = (Entry, Vec<u8>);

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "[a-e]".prop_map(String::into_bytes),
        1 => "[a-z]{1,120}".prop_map(String::into_bytes),
        1 => "\\PC{1,40}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 1..255),
    ]
    .prop_filter("a name", |name| {
        let reserved = matches!(&name[..], b"." | b"..") || name.starts_with(b".wh.");
        !reserved && name.len() <= 255 && !name.contains(&b'/') && !name.contains(&0)
    })
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(name(), 1..6).prop_map(|names| names.join(&b'/'))
}

fn kind() -> impl Strategy<Value = (EntryKind, Vec<u8>)> {
    let file = |content: Vec<u8>| (EntryKind::File { size: content.len() as u64, extents: Vec::new() }, content);
    prop_oneof![
        4 => Just((EntryKind::Directory, Vec::new())),
        4 => prop::collection::vec(any::<u8>(), 0..2000).prop_map(file),
        1 => prop::collection::vec(1..=255_u8, 1..300).prop_map(|text| (EntryKind::Symlink(text), Vec::new())),
        1 => (0..4096_u32, 1..1_u32 << 20).prop_map(|(a, b)| (EntryKind::Character(a, b), Vec::new())),
        1 => (0..4096_u32, 0..1_u32 << 20).prop_map(|(a, b)| (EntryKind::Block(a, b), Vec::new())),
        1 => Just((EntryKind::Fifo, Vec::new())),
        1 => path().prop_map(|target| (EntryKind::HardLink(target), Vec::new())),
    ]
}

fn xattrs() -> impl Strategy<Value = Xattrs> {
    let pair = ("user\\.[a-z=%]{1,9}", prop::collection::vec(any::<u8>(), 0..40));
    prop::collection::btree_map(pair.0, pair.1, 0..3)
        .prop_map(|map| map.into_iter().map(|(name, value)| (name.into_bytes().into(), value.into())).collect())
}

fn id() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 0..70_000_u32, 2_097_150..2_097_154_u32, 0..u32::MAX]
}

fn mtime() -> impl Strategy<Value = (i64, u32)> {
    let seconds =
        prop_oneof![0..2_000_000_000_i64, (1 << 33) - 2..(1_i64 << 33) + 2, -5..5_i64, i64::MIN + 1..i64::MAX];
    (seconds, prop_oneof![Just(0), 0..1_000_000_000_u32])
}

fn entry() -> impl Strategy<Value = File> {
    (path(), kind(), 0..0o10000_u16, id(), id(), mtime(), xattrs()).prop_map(
        |(path, (kind, content), mode, uid, gid, (mtime, mtime_nsec), xattrs)| {
            (Entry { offset: 0, path, kind, mode, uid, gid, mtime, mtime_nsec, xattrs }, content)
        },
    )
}

fn write(files: &[File]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in files {
        let at = writer.append(entry, &content[..]).expect("written");
        assert_eq!(at % 512, 0);
    }
    writer.finish().expect("written")
}

fn write_tree(tree: &Tree, archive: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.write_tree(tree, |_, node| Ok(io::Cursor::new(seen::content(node, archive)))).expect("written");
    writer.finish().expect("written")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every entry comes back as it was, content and all.
    #[test]
    fn entries_come_back(files in prop::collection::vec(entry(), 0..6)) {
        let bytes = write(&files);
        let mut reader = hull_layer::tar::Reader::new(&bytes[..], Limits::default());
        for (entry, content) in &files {
            let mut found = reader.next().expect("valid").expect("an entry");
            let mut read = Vec::new();
            reader.content(&found).read_to_end(&mut read).expect("readable");
            prop_assert_eq!(&read, content);
            found.offset = 0;
            if let EntryKind::File { extents, .. } = &mut found.kind {
                extents.clear();
            }
            prop_assert_eq!(&found, entry);
        }
        prop_assert_eq!(reader.next().expect("valid"), None);
    }

    /// The `tar` crate reads the same from them.
    #[test]
    fn the_tar_crate_agrees(mut files in prop::collection::vec(entry(), 0..6)) {
        // It takes a line break for the end of a record, whatever the record's length.
        for (entry, _) in &mut files {
            let space = |byte: &mut u8| *byte = if *byte == b'\n' { b' ' } else { *byte };
            entry.path.iter_mut().for_each(space);
            if let EntryKind::Symlink(target) | EntryKind::HardLink(target) = &mut entry.kind {
                target.iter_mut().for_each(space);
            }
            entry.xattrs.iter_mut().for_each(|(_, value)| value.iter_mut().for_each(space));
        }
        let bytes = write(&files);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut found = archive.entries().expect("an archive");
        for (entry, content) in &files {
            let mut other = found.next().expect("an entry").expect("valid");
            let path = other.path_bytes().into_owned();
            prop_assert_eq!(path.strip_suffix(b"/").unwrap_or(&path), &entry.path[..]);
            let mut read = Vec::new();
            other.read_to_end(&mut read).expect("readable");
            prop_assert_eq!(&read, content);
            prop_assert_eq!(other.header().mode().expect("mode"), u32::from(entry.mode));
            if let EntryKind::Symlink(target) | EntryKind::HardLink(target) = &entry.kind {
                prop_assert_eq!(&other.link_name_bytes().expect("a target")[..], &target[..]);
            }
            if let EntryKind::Character(major, minor) | EntryKind::Block(major, minor) = entry.kind {
                prop_assert_eq!(other.header().device_major().expect("number"), Some(major));
                prop_assert_eq!(other.header().device_minor().expect("number"), Some(minor));
            }
            let mut owner = (other.header().uid().expect("uid"), other.header().gid().expect("gid"));
            let mut mtime = other.header().mtime().expect("mtime").to_string();
            for record in other.pax_extensions().expect("valid").into_iter().flatten() {
                let record = record.expect("valid");
                let number = || record.value().expect("UTF-8").parse::<u64>().expect("a number");
                match record.key_bytes() {
                    b"uid" => owner.0 = number(),
                    b"gid" => owner.1 = number(),
                    b"mtime" => record.value().expect("UTF-8").clone_into(&mut mtime),
                    _ => {}
                }
            }
            prop_assert_eq!(owner, (entry.uid.into(), entry.gid.into()));
            if entry.mtime_nsec == 0 {
                prop_assert_eq!(mtime, entry.mtime.to_string());
            }
        }
        prop_assert!(found.next().is_none());
    }

    /// We read the same as the `tar` crate from what it writes.
    #[test]
    fn archives_of_the_tar_crate_are_read(
        files in prop::collection::vec(
            ("[a-z]{1,60}(/[a-z]{1,60}){0,4}", prop::collection::vec(any::<u8>(), 0..1500), id(), 0..1_u64 << 33, any::<bool>()),
            0..6,
        )
    ) {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content, owner, mtime, old) in &files {
            let mut header = if *old { tar::Header::new_gnu() } else { tar::Header::new_ustar() };
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(*mtime);
            let fits = *old || *owner <= 0o7_777_777;
            header.set_uid(if fits { (*owner).into() } else { 0 });
            if *old {
                builder.append_data(&mut header, path, &content[..]).expect("written");
                continue;
            }
            let mut records = Vec::new();
            let owner = owner.to_string();
            if !fits {
                records.push(("uid", owner.as_bytes()));
            }
            if header.set_path(path).is_err() {
                header.set_path("other").expect("short");
                records.push(("path", path.as_bytes()));
            }
            if !records.is_empty() {
                builder.append_pax_extensions(records).expect("written");
            }
            header.set_cksum();
            builder.append(&header, &content[..]).expect("written");
        }
        let bytes = builder.into_inner().expect("written");
        let ours = archive::entries(&bytes).expect("valid");
        prop_assert_eq!(ours.len(), files.len());
        let mut archive = tar::Archive::new(&bytes[..]);
        let theirs = archive.entries().expect("an archive").map(|entry| entry.expect("valid"));
        for ((mut other, ours), (path, _, owner, ..)) in theirs.zip(&ours).zip(&files) {
            prop_assert_eq!(&other.path_bytes()[..], &ours.path[..]);
            prop_assert_eq!(path.as_bytes(), &ours.path[..]);
            prop_assert_eq!(ours.uid, *owner);
            prop_assert_eq!(other.header().mtime().expect("mtime").cast_signed(), ours.mtime);
            prop_assert_eq!(other.header().mode().expect("mode"), u32::from(ours.mode));
            let EntryKind::File { size, extents } = &ours.kind else { panic!("a file") };
            let mut content = Vec::new();
            other.read_to_end(&mut content).expect("readable");
            prop_assert_eq!(content.len() as u64, *size);
            if let [extent] = extents[..] {
                prop_assert_eq!(extent.tar, other.raw_file_position());
            }
        }
    }

    /// A layer written and read again is the same layer, and written once more the same bytes.
    #[test]
    fn layers_come_back(
        files in prop::collection::vec(entry(), 0..30),
        marks in prop::collection::vec((path(), prop_oneof![3 => Just(".wh."), 1 => Just(".wh..wh..opq")]), 0..5),
    ) {
        let mut writer = Writer::new(Vec::new());
        let mut builder = Builder::new(Limits::default());
        let marks = marks.into_iter().map(|(mut path, mark)| {
            let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
            if mark == ".wh." {
                let hidden = path.split_off(name);
                path.extend_from_slice(b".wh.");
                path.extend_from_slice(&hidden[..hidden.len().min(200)]);
            } else {
                path.truncate(name);
                path.extend_from_slice(mark.as_bytes());
            }
            (Entry::new(path, EntryKind::File { size: 0, extents: Vec::new() }, 0o600), Vec::new())
        });
        let paths: Vec<Vec<u8>> = files.iter().map(|(entry, _)| entry.path.clone()).collect();
        for (place, (mut entry, content)) in files.into_iter().chain(marks).enumerate() {
            if let EntryKind::HardLink(target) = &mut entry.kind {
                *target = paths[(place * 7 + 3) % paths.len()].clone();
            }
            let at = writer.append(&entry, &content[..]).expect("written");
            if let EntryKind::File { size: size @ 1.., extents } = &mut entry.kind {
                extents.push(hull_layer::tree::Extent { offset: 0, tar: at, length: *size });
            }
            // What is refused is left out.
            let before = builder.clone();
            if builder.add(entry).is_err() {
                builder = before;
            }
        }
        let bytes = writer.finish().expect("written");
        let Ok(tree) = builder.finish() else { return Ok(()) };
        let again = write_tree(&tree, &bytes);
        let read = archive::tree(&again).expect("a layer");
        prop_assert_eq!(seen::tree(&read, &again), seen::tree(&tree, &bytes));
        prop_assert!(write_tree(&read, &again) == again, "not the same bytes");
    }
}

#[test]
fn the_bytes_are_these_on_every_machine() {
    let mut layer = Builder::new(Limits::default());
    let long = "d/".repeat(130) + "file";
    for (path, kind) in [
        ("", EntryKind::Directory),
        ("b", EntryKind::Symlink(vec![0xff; 120])),
        (&long, EntryKind::HardLink(b"\xc3\xa4".to_vec())),
        ("\u{e4}", EntryKind::File { size: 5, extents: Vec::new() }),
        ("z", EntryKind::Character(1, 3)),
        (".wh.gone", EntryKind::File { size: 0, extents: Vec::new() }),
        ("d/.wh..wh..opq", EntryKind::File { size: 0, extents: Vec::new() }),
    ] {
        let mut entry = Entry::new(path, kind, 0o755);
        entry.mtime = -1;
        entry.mtime_nsec = 250_000_000;
        entry.uid = 4_000_000;
        entry.xattrs = vec![(b"user.a=b"[..].into(), b"\n\0"[..].into())];
        layer.add(entry).expect("valid");
    }
    let tree = layer.finish().expect("a layer");
    let bytes = write_tree(&tree, b"");
    let digest = hull_oci::Digest::of(&bytes).to_string();
    assert_eq!(
        digest, "sha256:7f6b931343c7f73390211373bee9a10145caa968daa7264d9d68ec4ff6c72b74",
        "a change of format changes the digest of every image that is built"
    );
    let mut order = Vec::new();
    for entry in archive::entries(&bytes).expect("valid") {
        order.push(String::from_utf8_lossy(&entry.path).into_owned());
    }
    assert_eq!(order, ["", ".wh.gone", "b", "d/.wh..wh..opq", &long, "z", "\u{e4}"]);
}

#[test]
fn times_are_clamped() {
    let write = |options| {
        let mut writer = Writer::with_options(Vec::new(), options);
        for (path, mtime, mtime_nsec) in [("old", 5, 1), ("at", 10, 1), ("new", 11, 0)] {
            writer
                .append(&Entry { mtime, mtime_nsec, ..Entry::new(path, EntryKind::Fifo, 0o600) }, io::empty())
                .expect("written");
        }
        let entries = archive::entries(&writer.finish().expect("written")).expect("valid");
        entries.iter().map(|entry| (entry.mtime, entry.mtime_nsec)).collect::<Vec<_>>()
    };
    assert_eq!(write(WriterOptions::default()), [(5, 1), (10, 1), (11, 0)]);
    assert_eq!(write(WriterOptions { clamp_mtime: Some(10), whole_seconds: false }), [(5, 1), (10, 0), (10, 0)]);
    assert_eq!(write(WriterOptions { clamp_mtime: None, whole_seconds: true }), [(5, 0), (10, 0), (11, 0)]);
}

#[test]
fn large_files_have_their_size() {
    // Nothing is written but zeros, counted.
    #[derive(Default)]
    struct Count(BTreeMap<u64, Vec<u8>>, u64);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() == 512 {
                self.0.insert(self.1, bytes.to_vec());
            }
            self.1 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let size = (8_u64 << 30) + 1;
    let mut writer = Writer::new(Count::default());
    let entry = Entry::new("large", EntryKind::File { size, extents: Vec::new() }, 0o644);
    let at = writer.append(&entry, io::repeat(0)).expect("written");
    assert_eq!(at, 3 * 512, "the size needs a record");
    assert_eq!(writer.position(), at + size + 511);
    let output = writer.finish().expect("written");
    assert_eq!(&output.0[&0][156..157], b"x");
    assert_eq!(&output.0[&1024][124..135], b"00000000000");
}

#[test]
fn content_that_is_too_short_is_an_error() {
    let mut writer = Writer::new(Vec::new());
    let entry = Entry::new("a", EntryKind::File { size: 5, extents: Vec::new() }, 0o644);
    let error = writer.append(&entry, &b"1234"[..]).expect_err("too short").to_string();
    assert_eq!(error, "`a` has 4 bytes of content, 5 were announced");
}
