use std::os::unix::fs::MetadataExt as _;

use super::*;

fn header(kind: EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o640);
    header.set_size(size);
    header.set_mtime(1_000_000_000);
    // The caller's own IDs need no privilege.
    header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
    header.set_gid(u64::from(rustix::process::getegid().as_raw()));
    header
}

/// Sets the name's bytes directly: the crate refuses the names that an attacker would use.
fn add(builder: &mut tar::Builder<Vec<u8>>, kind: EntryType, path: &str, link: &str, data: &[u8]) {
    let mut header = header(kind, data.len() as u64);
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    builder.append(&header, data).unwrap();
}

type Item<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

fn run(entries: &[Item<'_>], limits: Limits) -> (tempfile::TempDir, Result<u64, String>) {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, link, data) in entries {
        add(&mut builder, *kind, path, link, data);
    }
    let archive = builder.into_inner().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let fd = OwnedFd::from(std::fs::File::open(&root).unwrap());
    let result = unpack(archive.as_slice(), &fd, limits).map_err(|error| error.to_string());
    (directory, result)
}

use EntryType::{Directory, Fifo, Link, Regular, Symlink};

#[test]
fn a_tree_is_rebuilt() {
    let (directory, result) = run(
        &[
            (Directory, "./", "", b""),
            (Directory, "etc/", "", b""),
            (Regular, "/etc/name", "", b"hull"),
            (Symlink, "etc/link", "/absolute/elsewhere", b""),
            (Link, "etc/hard", "etc/name", b""),
            (Fifo, "etc/fifo", "", b""),
            (Regular, "deep/er/file", "", b"x"),
        ],
        Limits::default(),
    );
    assert_eq!(result, Ok(5));
    let etc = directory.path().join("root/etc");
    assert_eq!(std::fs::read(etc.join("hard")).unwrap(), b"hull");
    let name = std::fs::metadata(etc.join("name")).unwrap();
    assert_eq!((name.nlink(), name.mode() & 0o7777, name.mtime()), (2, 0o640, 1_000_000_000));
    assert_eq!(std::fs::read_link(etc.join("link")).unwrap(), Path::new("/absolute/elsewhere"));
    assert_eq!(std::fs::metadata(&etc).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn nothing_leaves_the_directory() {
    let attacks: [&[Item<'_>]; 6] = [
        &[(Regular, "../escape", "", b"x")],
        &[(Regular, "a/../../escape", "", b"x")],
        &[(Symlink, "out", "..", b""), (Regular, "out/escape", "", b"x")],
        &[(Symlink, "out", "/", b""), (Directory, "out/escape", "", b"")],
        &[(Symlink, "out", "..", b""), (Link, "hard", "out/canary", b"")],
        &[(Link, "hard", "../canary", b"")],
    ];
    for attack in attacks {
        let (directory, result) = run(attack, Limits::default());
        assert!(result.is_err(), "{attack:?}");
        let outside: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(outside, ["root"], "{attack:?}");
        assert!(!Path::new("/escape").exists());
    }
}

#[test]
fn a_hard_link_to_a_symbolic_link_does_not_follow_it() {
    let (directory, result) =
        run(&[(Symlink, "link", "/etc/passwd", b""), (Link, "hard", "link", b"")], Limits::default());
    assert_eq!(result, Ok(0));
    assert!(std::fs::symlink_metadata(directory.path().join("root/hard")).unwrap().is_symlink());
}

#[test]
fn later_entries_replace_earlier_ones() {
    let (directory, result) = run(
        &[
            (Symlink, "a", "/etc/passwd", b""),
            (Regular, "a", "", b"mine"),
            (Directory, "d", "", b""),
            (Directory, "d", "", b""),
        ],
        Limits::default(),
    );
    assert_eq!(result, Ok(4));
    let file = directory.path().join("root/a");
    assert!(std::fs::symlink_metadata(&file).unwrap().is_file());
}

#[test]
fn bounds_hold() {
    let limits = Limits { bytes: 3, entries: 10 };
    assert!(run(&[(Regular, "a", "", b"1234")], limits).1.unwrap_err().contains("3 bytes"));
    let limits = Limits { bytes: 3, entries: 1 };
    assert!(run(&[(Regular, "a", "", b""), (Regular, "b", "", b"")], limits).1.unwrap_err().contains("entries"));
}

#[test]
fn extended_headers_name_long_paths() {
    let long = "d/".repeat(80) + "file";
    let mut builder = tar::Builder::new(Vec::new());
    let record = format!("path={long}\n");
    let length = record.len() + 4;
    add(&mut builder, EntryType::XHeader, "pax", "", format!("{length} {record}").as_bytes());
    add(&mut builder, Regular, "short", "", b"x");
    let archive = builder.into_inner().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let fd = OwnedFd::from(std::fs::File::open(directory.path()).unwrap());
    unpack(archive.as_slice(), &fd, Limits::default()).unwrap();
    assert_eq!(std::fs::read(directory.path().join(long)).unwrap(), b"x");
}

#[test]
fn broken_streams_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let fd = OwnedFd::from(std::fs::File::open(directory.path()).unwrap());
    let noise: Vec<u8> = (0..4096_u32).map(|number| (number * 7 % 251) as u8 + 1).collect();
    assert!(unpack(noise.as_slice(), &fd, Limits::default()).is_err());
    let mut builder = tar::Builder::new(Vec::new());
    add(&mut builder, Regular, "a", "", &[1; 2000]);
    let archive = builder.into_inner().unwrap();
    assert!(unpack(&archive[..1024], &fd, Limits::default()).is_err());
    for record in ["x", "5 a=b", "99 path=a\n", "0 a=b\n"] {
        assert!(pax_record(record.as_bytes()).is_none(), "{record}");
    }
}
