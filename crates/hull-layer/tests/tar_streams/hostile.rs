//! Archives made to be misread. Each is refused with one line, or read the one way that all readers agree on.

use std::io::{self, Read};

use hull_layer::tar::{Entry, EntryKind, Reader};
use hull_layer::tree::Extent;
use hull_layer::{Error, Limits};

use crate::archive::{Archive, entries, header, message};

fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| std::str::from_utf8(&entry.path).expect("UTF-8")).collect()
}

/// An archive that an entry's content would be, if its size were taken for another.
fn inner() -> Vec<u8> {
    Archive::new().file("smuggled", b"evil").0
}

#[test]
fn pax_size_is_for_the_next_file_only() {
    let inner = inner();
    let size = inner.len().to_string();
    // CVE-2025-62518: a reader that takes the header's size, 0, finds the content's headers.
    let archive = Archive::new().pax(b'x', &[("size", size.as_bytes())]).block(header(b"outer", b'0', 0)).data(&inner);
    let found = archive.file("next", b"x").entries().expect("valid");
    assert_eq!(names(&found), ["outer", "next"]);
    assert!(matches!(&found[0].kind, EntryKind::File { size, .. } if *size == inner.len() as u64));
    // The other way round: the record makes it smaller.
    let archive = Archive::new().pax(b'x', &[("size", b"0")]).block(header(b"outer", b'0', 1024)).file("next", b"x");
    assert_eq!(names(&archive.entries().expect("valid")), ["outer", "next"]);
    // Between the records and their file stands a long name, whose size is its own.
    let archive = Archive::new().pax(b'x', &[("size", size.as_bytes())]).long(b'L', b"outer");
    let found = archive.block(header(b"short", b'0', 0)).data(&inner).entries().expect("valid");
    assert_eq!(names(&found), ["outer"]);
    // And global records, a second after the first.
    let archive = Archive::new().pax(b'x', &[("size", size.as_bytes())]).pax(b'g', &[("comment", b"x")]);
    let found = archive.block(header(b"outer", b'0', 0)).data(&inner).file("next", b"").entries().expect("valid");
    assert_eq!(names(&found), ["outer", "next"]);
}

#[test]
fn entries_that_readers_disagree_about_are_refused() {
    let inner = inner();
    let with_size = |kind: u8| {
        let mut block = header(b"a", kind, inner.len() as u64);
        block[157] = b'b';
        Archive::new().block(block).data(&inner)
    };
    let mut posix_sparse = header(b"a", b'S', 0);
    posix_sparse[483..494].copy_from_slice(b"00000000000");
    for (archive, reason) in [
        (with_size(b'1'), "`a` has content but is no file"),
        (with_size(b'2'), "`a` has content but is no file"),
        (with_size(b'3'), "`a` has content but is no file"),
        (with_size(b'5'), "`a` has content but is no file"),
        (with_size(b'6'), "`a` has content but is no file"),
        (Archive::new().entry("d/", b'0', b"content"), "`d` has content but is no file"),
        (with_size(b'Z'), "`a` is of unknown type `Z`"),
        (with_size(0xff), "`a` is of unknown type `\\xff`"),
        (with_size(b'M'), "the archive is a part of several"),
        (Archive::new().pax(b'x', &[("size", b"512")]).directory("d").data(&inner), "`d` has content"),
        (
            Archive::new().pax(b'x', &[("path", b"a")]).pax(b'x', &[("path", b"b")]).file("c", b""),
            "two extended headers",
        ),
        (Archive::new().long(b'L', b"a").long(b'L', b"b").file("c", b""), "two long names"),
        (Archive::new().long(b'L', b"a").pax(b'x', &[("path", b"b")]).file("c", b""), "an entry has two names"),
        (Archive::new().long(b'K', b"a").pax(b'x', &[("linkpath", b"b")]).link("c", b'2', "d"), "two link targets"),
        (Archive::new().pax(b'x', &[("path", b"a")]), "ends after an extended header"),
        (Archive::new().long(b'L', b"a"), "ends after an extended header"),
        (Archive::new().pax(b'x', &[("path", b"a")]).entry("v", b'V', b"").file("b", b""), "before a volume label"),
        (Archive::new().pax(b'g', &[("size", b"0")]).file("a", b"x"), "sets `size` of all entries"),
        (Archive::new().pax(b'g', &[("path", b"x")]).file("a", b"x"), "sets `path` of all entries"),
        (Archive::new().pax(b'g', &[("GNU.sparse.size", b"1")]).file("a", b"x"), "of all entries"),
        (Archive::new().pax(b'g', &[("SCHILY.xattr.user.a", b"1")]).file("a", b"x"), "of all entries"),
        (Archive::new().pax(b'g', &[("LIBARCHIVE.xattr.user.a", b"")]).file("a", b"x"), "of all entries"),
        (Archive::new().pax(b'x', &[("GNU.volume.size", b"1")]).file("a", b"x"), "a part of several"),
        (Archive::new().pax(b'x', &[("hdrcharset", b"EBCDIC")]).file("a", b"x"), "unknown character set `EBCDIC`"),
        (Archive::new().data(&[b'0'; 512]).file("a", b""), "a header has checksum"),
        (Archive::new().file("a", b"").data(&[0; 512]).file("b", b""), "a single zero block"),
        (Archive::new().block(posix_sparse), "a sparse file of an unknown kind"),
        (Archive::new().entry("x", b'x', b"garbage"), "a PAX record is malformed"),
        (Archive::new().entry("x", b'x', b"9 path=ab\n").file("a", b""), "a PAX record is malformed"),
    ] {
        let message = message(archive.entries());
        assert!(message.contains(reason), "{message}: {reason}");
    }
}

#[test]
fn names_lead_nowhere_else() {
    for (name, path) in [("/etc/passwd", "etc/passwd"), ("./a", "a"), ("a//b/./c", "a/b/c"), ("..a", "..a")] {
        assert_eq!(names(&Archive::new().file(name, b"").entries().expect("valid")), [path]);
    }
    for name in ["../a", "a/../../b", "a/..", "/..", ""] {
        message(Archive::new().file(name, b"").entries());
    }
    for value in [&b"../a"[..], b"a\0b", &[b'a'; 256], &b"a/".repeat(3000), b"a/../b"] {
        message(Archive::new().pax(b'x', &[("path", value)]).file("a", b"").entries());
        message(Archive::new().pax(b'x', &[("linkpath", value)]).link("a", b'1', "b").entries());
    }
    // What a symbolic link says is for the container to resolve.
    let found = Archive::new().link("a", b'2', "../../etc/passwd").entries().expect("valid");
    assert_eq!(found[0].kind, EntryKind::Symlink(b"../../etc/passwd".to_vec()));
    for target in [&b"a\0b"[..], &[b'a'; 4096]] {
        message(Archive::new().pax(b'x', &[("linkpath", target)]).link("a", b'2', "b").entries());
    }
    message(Archive::new().link("a", b'2', "").entries());
}

#[test]
fn a_hostile_name_stays_one_line() {
    let name = b"x\n\x1b[31mfake: all is well\n/../y";
    let found = message(Archive::new().pax(b'x', &[("path", name)]).file("a", b"").entries());
    assert!(found.contains("\\n\\u{1b}[31mfake"), "{found}");
    assert!(
        message(Archive::new().pax(b'x', &[("path", &b"x/".repeat(200_000))]).file("a", b"").entries()).len() < 500
    );
}

#[test]
fn numbers_out_of_range_are_refused() {
    let edit = |range: std::ops::Range<usize>, bytes: &[u8], kind: u8| {
        let mut block = header(b"a", kind, 0);
        block[range].copy_from_slice(bytes);
        Archive::new().block(block)
    };
    for archive in [
        edit(124..136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b'0'),
        edit(124..136, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", b'0'),
        edit(124..136, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", b'0'),
        edit(124..136, b"-0000000001\0", b'0'),
        edit(124..136, b"0x000000001\0", b'0'),
        edit(108..116, b"\x80\0\0\x01\0\0\0\0", b'0'),
        edit(116..124, b"\x80\0\0\0\xff\xff\xff\xff", b'0'),
        edit(100..108, b"rwxrwxrw", b'0'),
        edit(329..337, b"0010000\0", b'3'),
        edit(337..345, b"4000000\0", b'4'),
        edit(257..263, b"\0\0\0\0\0\0", b'3'),
        Archive::new().pax(b'x', &[("uid", b"4294967296")]).file("a", b""),
        Archive::new().pax(b'x', &[("uid", b"4294967295")]).file("a", b""),
        Archive::new().pax(b'x', &[("gid", b"-1")]).file("a", b""),
        Archive::new().pax(b'x', &[("size", b"18446744073709551615")]).file("a", b""),
        Archive::new().pax(b'x', &[("size", b"18446744073709551616")]).file("a", b""),
        Archive::new().pax(b'x', &[("mtime", b"9223372036854775808")]).file("a", b""),
        Archive::new().pax(b'x', &[("mtime", b"1.x")]).file("a", b""),
        Archive::new().pax(b'x', &[("SCHILY.xattr.", b"1")]).file("a", b""),
        Archive::new().pax(b'x', &[("LIBARCHIVE.xattr.user.a", b"*")]).file("a", b""),
        Archive::new().pax(b'x', &[("LIBARCHIVE.xattr.user.%zz", b"")]).file("a", b""),
    ] {
        message(archive.entries());
    }
    let found = edit(136..148, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", b'0').entries().expect("valid");
    assert_eq!(found[0].mtime, -2);
}

#[test]
fn checksums_of_signed_characters_are_taken() {
    let mut block = header(b"\xfc\xfc", b'0', 0);
    block[148..156].copy_from_slice(b"        ");
    let sum: i32 = block.iter().map(|byte| i32::from(byte.cast_signed())).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = block.to_vec();
    bytes.extend_from_slice(&[0; 1024]);
    assert_eq!(entries(&bytes).expect("valid")[0].path, b"\xfc\xfc");
    bytes[0] = 0xfd;
    assert!(message(entries(&bytes)).contains("checksum"));
}

#[test]
fn the_end_is_where_it_is_said() {
    let bytes = Archive::new().file("a", b"content").end();
    for length in 1..bytes.len() {
        let cut = &bytes[..length];
        // One zero block is an end, if nothing follows.
        if length == 1536 {
            assert_eq!(entries(cut).expect("valid").len(), 1);
        } else {
            assert!(message(entries(cut)).contains("truncated"), "{length}");
        }
    }
    for trailing in [&b"x"[..], &[0; 9000], &inner(), &[0xff; 700]] {
        assert_eq!(entries(&[&bytes[..], trailing].concat()).expect("ignored").len(), 1);
    }
    assert!(entries(&[0; 1024]).expect("empty").is_empty());
    message(entries(b""));
    let mut reader = Reader::new(&bytes[..1024], Limits::default()).end_optional();
    assert!(reader.next().expect("valid").is_some());
    assert!(reader.next().expect("valid").is_none());
    let mut reader = Reader::new(&bytes[..1023], Limits::default()).end_optional();
    assert!(reader.next().expect("valid").is_some());
    message(reader.next());
    assert!(message(reader.next()).contains("refused before"), "an error is not the end");
}

#[test]
fn limits_hold_before_memory_is_taken() {
    let limits = Limits { entries: 10, bytes: 1 << 20, header: 4096, xattrs: 100, names: 1 << 20 };
    let read = |bytes: &[u8]| -> Result<(), Error> {
        let mut reader = Reader::new(bytes, limits);
        while reader.next()?.is_some() {}
        Ok(())
    };
    let many = (0..11).fold(Archive::new(), |archive, _| archive.file("a", b""));
    assert_eq!(message(read(&many.end())), "layer archive has more than 10 entries");
    let many = (0..11).fold(Archive::new(), |archive, _| archive.pax(b'g', &[("comment", b"x")]));
    assert_eq!(message(read(&many.end())), "layer archive has more than 10 entries");
    assert_eq!(
        message(read(&Archive::new().file("a", &[0; 1 << 20]).end())),
        "layer archive has more than 1048576 bytes"
    );
    let huge = Archive::new().block(header(b"a", b'0', 1 << 32)).0;
    assert_eq!(message(read(&huge)), "layer archive has more than 1048576 bytes", "before it is read");
    let trailing = [Archive::new().end(), vec![1; 1 << 20]].concat();
    assert_eq!(message(read(&trailing)), "layer archive has more than 1048576 bytes");
    for kind in [b'x', b'g', b'L', b'K'] {
        let long = Archive::new().block(header(b"a", kind, 4097)).0;
        assert_eq!(message(read(&long)), "layer archive has more than 4096 bytes in an extended header");
    }
    let archive = Archive::new().pax(b'x', &[("SCHILY.xattr.user.a", &[0; 101])]).file("a", b"");
    assert!(message(read(&archive.end())).contains("more than 100 bytes"));
    // An endless map, in each of its forms.
    let mut sparse = header(b"a", b'S', 0);
    sparse[257..265].copy_from_slice(b"ustar  \0");
    sparse[345..].fill(0);
    sparse[482] = 1;
    let endless = [Archive::new().block(sparse).0, [1; 512].repeat(20)].concat();
    message(read(&endless));
    let mut more = [0; 512];
    more[504] = 1;
    let endless = [Archive::new().block(sparse).0, more.repeat(20)].concat();
    assert_eq!(message(read(&endless)), "layer archive has more than 4096 bytes in an extended header");
    let records = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1")];
    let map = [&b"18446744073709551615\n"[..], &b"0\n".repeat(5000)].concat();
    let endless = Archive::new().pax(b'x', &records).file("a", &map);
    assert_eq!(message(read(&endless.end())), "layer archive has more than 4096 bytes in the map of a sparse file");
}

#[test]
fn a_sparse_file_is_no_larger_than_an_archive_may_be() {
    for size in [&b"1099511627777"[..], b"9223372036854775807", b"18446744073709551615"] {
        let records = [("GNU.sparse.size", size), ("GNU.sparse.map", b"")];
        let found = Archive::new().pax(b'x', &records).file("a", b"").entries();
        assert_eq!(message(found), "layer archive has more than 1099511627776 bytes");
    }
}

#[test]
fn sparse_maps_of_all_versions() {
    let content = [vec![b'a'; 512], b"bcd".to_vec()].concat();
    let at =
        |tar: u64| vec![Extent { offset: 1024, tar, length: 512 }, Extent { offset: 4096, tar: tar + 512, length: 3 }];
    let zero = [
        ("GNU.sparse.size", &b"5000"[..]),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"1024"),
        ("GNU.sparse.numbytes", b"512"),
        ("GNU.sparse.offset", b"4096"),
        ("GNU.sparse.numbytes", b"3"),
    ];
    let one = [("GNU.sparse.name", &b"real"[..]), ("GNU.sparse.size", b"5000"), ("GNU.sparse.map", b"1024,512,4096,3")];
    let two = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"real"),
        ("GNU.sparse.realsize", b"5000"),
    ];
    let with_map = [Archive::new().data(b"2\n1024\n512\n4096\n3\n").0, content.clone()].concat();
    for (records, content, name, tar) in
        [(&zero[..], &content, "stored", 1536), (&one, &content, "real", 1536), (&two, &with_map, "real", 2048)]
    {
        let bytes = Archive::new().pax(b'x', records).file("stored", content).file("next", b"").end();
        let mut reader = Reader::new(&bytes[..], Limits::default());
        let entry = reader.next().expect("valid").expect("an entry");
        assert_eq!(names(std::slice::from_ref(&entry)), [name]);
        assert_eq!(entry.kind, EntryKind::File { size: 5000, extents: at(tar) });
        let mut whole = Vec::new();
        reader.content(&entry).read_to_end(&mut whole).expect("readable");
        let mut expected = vec![0; 5000];
        expected[1024..1536].fill(b'a');
        expected[4096..4099].copy_from_slice(b"bcd");
        assert_eq!(whole, expected);
        assert_eq!(reader.next().expect("valid").expect("an entry").path, b"next");
    }
    for records in [
        &zero[..5],
        &zero[1..],
        &one[1..2],
        &[zero[0], zero[3]],
        &[zero[0], zero[2], zero[2], zero[3]],
        &[("GNU.sparse.major", &b"2"[..]), two[1], two[3]],
        &[("GNU.sparse.size", &b"5000"[..]), ("GNU.sparse.map", b"1024,512,4096")],
        &[("GNU.sparse.size", &b"5000"[..]), ("GNU.sparse.map", b"4096,3,1024,512")],
        &[("GNU.sparse.size", &b"5000"[..]), ("GNU.sparse.map", b"1024,512,4999,3")],
        &[("GNU.sparse.size", &b"5000"[..]), ("GNU.sparse.map", b"18446744073709551615,515")],
    ] {
        message(Archive::new().pax(b'x', records).file("stored", &content).entries());
    }
    for map in ["", "x\n", "2\n1024\n512\n4096\n", "1\n-1\n515\n", "99999999999999999999999\n", "1\n0\n514\n"] {
        let content = [Archive::new().data(map.as_bytes()).0, content.clone()].concat();
        message(Archive::new().pax(b'x', &two).file("stored", &content).entries());
    }
    message(Archive::new().pax(b'x', &one).directory("d").entries());
}

#[test]
fn global_records_hold_until_replaced() {
    let archive = Archive::new()
        .pax(b'g', &[("uid", b"7"), ("mtime", b"1.5"), ("comment", b"a commit")])
        .file("a", b"")
        .pax(b'x', &[("uid", b"8")])
        .file("b", b"")
        .pax(b'g', &[("uid", b"")])
        .file("c", b"");
    let found = archive.entries().expect("valid");
    assert_eq!(found.iter().map(|entry| entry.uid).collect::<Vec<_>>(), [7, 8, 0]);
    assert_eq!((found[2].mtime, found[2].mtime_nsec), (1, 500_000_000));
}

#[test]
fn attributes_of_libarchive_and_star() {
    let mut star = header(b"name", b'0', 0);
    star[345..351].copy_from_slice(b"prefix");
    star[476] = b'7';
    star[508..].copy_from_slice(b"tar\0");
    let records =
        [("LIBARCHIVE.xattr.user.a%20b", &b"Zm8"[..]), ("SCHILY.xattr.user.z", b"1"), ("SCHILY.xattr.user.z", b"2")];
    let found = Archive::new().pax(b'x', &records).block(star).entries().expect("valid");
    assert_eq!(names(&found), ["prefix/name"]);
    assert_eq!(found[0].xattrs, [(b"user.a b"[..].into(), b"fo"[..].into()), (b"user.z"[..].into(), b"2"[..].into())]);
}

#[test]
fn errors_of_the_input_are_told() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is on fire"))
        }
    }
    let bytes = Archive::new().file("a", &[0; 9000]).0;
    let mut reader = Reader::new(bytes[..2000].chain(Broken), Limits::default());
    assert!(reader.next().expect("valid").is_some());
    assert_eq!(message(reader.next()), "read layer: the disk is on fire");
}
