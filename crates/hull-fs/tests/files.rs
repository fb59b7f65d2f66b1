//! Hostile paths, procfs, atomic files and locks.
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::os::unix::fs::symlink;
use std::path::Path;

use hull_fs::lock::Lock;
use hull_fs::{Procfs, Root, atomic};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

fn sandbox() -> (tempfile::TempDir, Root) {
    let top = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(top.path().join("root/etc")).unwrap();
    std::fs::write(top.path().join("secret"), "host").unwrap();
    let root = Root::open(&top.path().join("root")).unwrap();
    (top, root)
}

#[test]
fn links_and_dots_stay_inside() {
    let (top, root) = sandbox();
    let inside = top.path().join("root");
    std::fs::write(inside.join("secret"), "mine").unwrap();
    symlink("/secret", inside.join("absolute")).unwrap();
    symlink("../../../secret", inside.join("etc/relative")).unwrap();
    for path in ["absolute", "/etc/relative", "../secret", "/../../secret", "etc/../../secret"] {
        assert_eq!(root.read_bounded(Path::new(path), 16).unwrap(), b"mine", "{path}");
    }
}

#[test]
fn creation_follows_dangling_links_inside_only() {
    let (top, root) = sandbox();
    let outside = top.path().join("evil");
    let inside = top.path().join("root");
    symlink(&outside, inside.join("out")).unwrap();
    symlink("../../run/resolv", inside.join("etc/resolv.conf")).unwrap();
    root.create_dir_all(Path::new("/out/a/b"), 0o755).unwrap();
    root.create_file(Path::new("etc/resolv.conf"), 0o644).unwrap();
    assert!(!outside.exists());
    assert!(inside.join("run/resolv").is_file());
    let mirrored = inside.join(outside.strip_prefix("/").unwrap()).join("a/b");
    assert!(mirrored.is_dir());
}

#[test]
fn creation_refuses_what_is_no_directory() {
    let (top, root) = sandbox();
    std::fs::write(top.path().join("root/file"), "").unwrap();
    symlink("loop", top.path().join("root/loop")).unwrap();
    for (path, errno) in [("file/x", Errno::NOTDIR), ("file", Errno::NOTDIR), ("loop/x", Errno::LOOP)] {
        assert_eq!(root.create_dir_all(Path::new(path), 0o755).unwrap_err().errno(), Some(errno), "{path}");
    }
    let deep = "d/".repeat(300);
    assert_eq!(root.create_dir_all(Path::new(&deep), 0o755).unwrap_err().errno(), Some(Errno::NAMETOOLONG));
}

#[test]
fn magic_links_are_refused() {
    let proc_root = Root::open(Path::new("/proc")).unwrap();
    let error = proc_root.resolve(Path::new("self/root/etc")).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::LOOP));
}

#[test]
fn reading_is_bounded_and_never_blocks() {
    let (top, root) = sandbox();
    std::fs::write(top.path().join("root/long"), "12345").unwrap();
    let error = root.read_bounded(Path::new("long"), 4).unwrap_err();
    assert_eq!(error.to_string(), "read long: longer than 4 bytes");
    rustix::fs::mkfifoat(rustix::fs::CWD, top.path().join("root/fifo"), Mode::from_raw_mode(0o600)).unwrap();
    assert_eq!(root.read_bounded(Path::new("fifo"), 4).unwrap_err().errno(), Some(Errno::INVAL));
}

#[test]
fn procfs_refuses_magic_links_and_escapes() {
    let procfs = Procfs::new().unwrap();
    let pid = String::from_utf8(procfs.read("self/stat", 4096).unwrap()).unwrap();
    assert!(pid.starts_with(&format!("{} ", std::process::id())), "{pid}");
    assert_eq!(procfs.open("self/root/etc", OFlags::PATH).unwrap_err().errno(), Some(Errno::LOOP));
    assert_eq!(procfs.open("../etc/passwd", OFlags::PATH).unwrap_err().errno(), Some(Errno::XDEV));
    assert!(Procfs::from_fd(rustix::fs::open("/", OFlags::PATH, Mode::empty()).unwrap()).is_err());
    let below = rustix::fs::open("/proc/self", OFlags::PATH, Mode::empty()).unwrap();
    assert!(Procfs::from_fd(below).is_err());
}

#[test]
fn root_private_procfs_shows_this_process() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting needs root");
        return;
    }
    let procfs = Procfs::private().unwrap();
    assert!(procfs.read("self/stat", 4096).unwrap().starts_with(std::process::id().to_string().as_bytes()));
}

#[test]
fn atomic_write_replaces_and_leaves_nothing() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("state.json");
    atomic::write_path(&path, b"one", 0o600).unwrap();
    let directory = rustix::fs::open(top.path(), OFlags::RDONLY, Mode::empty()).unwrap();
    atomic::write_durable(&directory, Path::new("state.json"), b"two", 0o600).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    std::fs::create_dir(top.path().join("taken")).unwrap();
    assert!(atomic::write(&directory, Path::new("taken"), b"x", 0o600).is_err());
    assert_eq!(std::fs::read_dir(top.path()).unwrap().count(), 2);
}

#[test]
fn locks_exclude_each_other() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("lock");
    let held = Lock::shared(&path).unwrap();
    assert!(Lock::try_shared(&path).unwrap().is_some());
    assert!(Lock::try_exclusive(&path).unwrap().is_none());
    drop(held);
    let held = Lock::exclusive(&path).unwrap();
    assert!(Lock::try_shared(&path).unwrap().is_none());
    drop(held);
}
