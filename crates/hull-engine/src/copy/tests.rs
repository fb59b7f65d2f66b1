use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};

use super::place::{Existing, Users};
use super::*;

const REPLACE: Policy = Policy {
    existing: Existing::Replace,
    owners: true,
    devices: true,
    raw: false,
    owner: None,
    users: Users { from: 0, to: 0 },
};

fn open(path: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).expect("open")
}

#[test]
fn a_tree_keeps_what_it_is() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    std::fs::create_dir_all(from.join("sub/empty")).expect("create");
    std::fs::create_dir(&to).expect("create");
    std::fs::write(from.join("sub/a"), "content").expect("write");
    std::fs::set_permissions(from.join("sub/a"), std::fs::Permissions::from_mode(0o640)).expect("mode");
    std::fs::hard_link(from.join("sub/a"), from.join("b")).expect("link");
    symlink("/no/where", from.join("link")).expect("symlink");
    let sparse = File::create(from.join("sparse")).expect("create");
    sparse.write_all_at(b"end", 8 << 20).expect("write");
    let value: &[u8] = b"value";
    let attribute = rustix::fs::setxattr(from.join("sub"), "user.x", value, rustix::fs::XattrFlags::empty()).is_ok();
    contents(open(&from).as_fd(), open(&to).as_fd(), REPLACE).expect("copy");
    let a = to.join("sub/a").metadata().expect("copied");
    assert_eq!((a.permissions().mode() & 0o7777, a.nlink()), (0o640, 2));
    assert_eq!(a.ino(), to.join("b").metadata().expect("copied").ino());
    assert_eq!(std::fs::read_link(to.join("link")).expect("link"), Path::new("/no/where"));
    let copied = to.join("sparse").metadata().expect("copied");
    assert_eq!(copied.len(), (8 << 20) + 3);
    assert!(copied.blocks() * 512 < 1 << 20, "the hole is still one: {} blocks", copied.blocks());
    if attribute {
        let mut value = [0; 16];
        assert_eq!(rustix::fs::getxattr(to.join("sub"), "user.x", &mut value[..]), Ok(5));
    }
    let time = |path: PathBuf| path.metadata().expect("metadata").modified().expect("time");
    assert_eq!(time(from.join("sub")), time(to.join("sub")));
    // Once more: the same, nothing left of temporary names.
    contents(open(&from).as_fd(), open(&to).as_fd(), REPLACE).expect("copy again");
    assert_eq!(std::fs::read_dir(&to).expect("read").count(), std::fs::read_dir(&from).expect("read").count());
}

#[test]
fn what_is_there_stays_or_is_replaced() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    std::fs::create_dir_all(from.join("d")).expect("create");
    std::fs::create_dir_all(to.join("f")).expect("create");
    std::fs::write(from.join("a"), "new").expect("write");
    std::fs::write(to.join("a"), "old").expect("write");
    let keep = Policy { existing: Existing::Keep, ..REPLACE };
    contents(open(&from).as_fd(), open(&to).as_fd(), keep).expect("copy");
    assert_eq!(std::fs::read(to.join("a")).expect("read"), b"old");
    contents(open(&from).as_fd(), open(&to).as_fd(), REPLACE).expect("copy");
    assert_eq!(std::fs::read(to.join("a")).expect("read"), b"new");
    // A link in the place of a file is replaced, not followed.
    let canary = directory.path().join("canary");
    std::fs::write(&canary, "canary").expect("write");
    std::fs::remove_file(to.join("a")).expect("remove");
    symlink(&canary, to.join("a")).expect("symlink");
    contents(open(&from).as_fd(), open(&to).as_fd(), REPLACE).expect("copy");
    assert_eq!(std::fs::read(&canary).expect("read"), b"canary");
    std::fs::write(from.join("f"), "file").expect("write");
    let error = contents(open(&from).as_fd(), open(&to).as_fd(), REPLACE).expect_err("a directory is there");
    assert!(error.to_string().contains("cannot overwrite directory \"f\" with non-directory"), "{error}");
}

#[test]
fn deep_directories_need_few_descriptors() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let mut deep = from.clone();
    for _ in 0..300 {
        deep.push("d");
    }
    std::fs::create_dir_all(&deep).expect("create");
    std::fs::write(deep.join("file"), "x").expect("write");
    std::fs::create_dir(&to).expect("create");
    contents(open(&from).as_fd(), open(&to).as_fd(), REPLACE).expect("copy");
    assert!(to.join(deep.strip_prefix(&from).expect("below")).join("file").exists());
}

#[test]
fn archives_stay_inside() {
    use hull_layer::tar::{Entry, EntryKind, Writer};
    let directory = tempfile::tempdir().expect("temporary directory");
    let outside = directory.path().join("outside");
    std::fs::create_dir(&outside).expect("create");
    let root = directory.path().join("root");
    std::fs::create_dir(&root).expect("create");
    symlink(&outside, root.join("planted")).expect("symlink");
    let mut writer = Writer::new(Vec::new());
    let file = |size| EntryKind::File { size, extents: Vec::new() };
    let mut add = |path: &str, kind, content: &[u8]| {
        writer.append(&Entry::new(path, kind, 0o644), content).map(drop).expect("append");
    };
    add("planted/evil", file(4), b"evil");
    add("link", EntryKind::Symlink(b"../../outside".to_vec()), b"");
    add("link/evil", file(4), b"evil");
    add("a", file(1), b"a");
    add("b", EntryKind::HardLink(b"a".to_vec()), b"");
    add("d", EntryKind::Directory, b"");
    let bytes = writer.finish().expect("finish");
    extract::extract(&bytes[..], open(&root).as_fd(), Path::new("/"), true, REPLACE).expect("extract");
    assert_eq!(std::fs::read_dir(&outside).expect("read").count(), 0, "something was written outside");
    assert_eq!(root.join("a").metadata().expect("a").ino(), root.join("b").metadata().expect("b").ino());
    assert!(root.join("d").is_dir());
    let error =
        extract::extract(&b"junk"[..], open(&root).as_fd(), Path::new("/"), true, REPLACE).expect_err("no archive");
    assert!(error.to_string().contains("unexpected EOF"), "{error}");
}
