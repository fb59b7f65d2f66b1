//! Directories written as tar: root file systems, and overlay's upper directories.

use std::fs::{self, File, Permissions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use hull_layer::Limits;
use hull_layer::tar::Writer;
use hull_layer::tar::walk::{Options, Overlay, Report, write_directory};
use hull_testkit::tier;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use crate::{archive, seen};

fn write(root: &Path, options: &Options<'_>) -> Result<(Vec<u8>, Report), hull_layer::Error> {
    let root = File::open(root).expect("directory");
    let mut writer = Writer::new(Vec::new());
    let report = write_directory(&mut writer, root.as_fd(), options)?;
    Ok((writer.finish().expect("written"), report))
}

fn paths(bytes: &[u8]) -> Vec<String> {
    let entries = archive::entries(bytes).expect("valid");
    entries.into_iter().map(|entry| String::from_utf8(entry.path).expect("UTF-8")).collect()
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from(0o640), 0).expect("fifo");
}

fn device(path: &Path, major: u32, minor: u32) {
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::from(0o600), device).expect("device");
}

/// A tree of every type that needs no privilege.
fn source(root: &Path) {
    fs::create_dir_all(root.join("b/deep/er")).expect("directory");
    fs::write(root.join("b/deep/er/file"), vec![7; 300_000]).expect("file");
    fs::write(root.join("b-"), "sorted behind what is in b").expect("file");
    fs::hard_link(root.join("b-"), root.join("b/z")).expect("link");
    fs::hard_link(root.join("b-"), root.join("c")).expect("link");
    symlink("/proc/self", root.join("link")).expect("link");
    symlink("b", root.join("to-directory")).expect("link");
    fifo(&root.join("fifo"));
    fs::write(root.join("set-uid"), "").expect("file");
    fs::set_permissions(root.join("set-uid"), Permissions::from_mode(0o4711)).expect("mode");
    let sparse = File::create(root.join("sparse")).expect("file");
    sparse.set_len(1 << 20).expect("length");
}

#[test]
fn a_directory_comes_back() {
    let root = tempfile::tempdir().expect("directory");
    source(root.path());
    let _ = rustix::fs::setxattr(root.path().join("c"), "user.x", b"value", XattrFlags::empty());
    let (bytes, report) = write(root.path(), &Options { root: true, ..Options::default() }).expect("written");
    let tree = archive::tree(&bytes).expect("a layer");
    seen::assert_same(&seen::tree(&tree, &bytes), &seen::directory(root.path()), "directory");
    assert_eq!(report.entries, 13);
    assert_eq!(report.bytes, 300_000 + 26 + (1 << 20));
    let (again, _) = write(root.path(), &Options { root: true, ..Options::default() }).expect("written");
    assert!(again == bytes, "the same bytes");
    let order =
        ["", "b", "b/deep", "b/deep/er", "b/deep/er/file", "b/z", "b-", "c", "fifo", "link", "set-uid", "sparse"];
    assert_eq!(paths(&bytes)[..12], order);
}

#[test]
fn sockets_and_excluded_paths_are_left_out() {
    let root = tempfile::tempdir().expect("directory");
    fs::create_dir_all(root.path().join("run/x")).expect("directory");
    fs::write(root.path().join("run/x/file"), "").expect("file");
    fs::write(root.path().join("kept"), "").expect("file");
    let _socket = UnixListener::bind(root.path().join("socket")).expect("socket");
    let excluded = |path: &[u8]| path == b"run/x";
    let (bytes, report) =
        write(root.path(), &Options { exclude: Some(&excluded), ..Options::default() }).expect("written");
    assert_eq!(paths(&bytes), ["kept", "run"]);
    assert_eq!((report.sockets.count, &report.sockets.first[..]), (1, &[b"socket".to_vec()][..]));
}

#[test]
fn very_deep_directories_are_written_or_refused_in_one_line() {
    let root = tempfile::tempdir().expect("directory");
    let make = |levels: usize| {
        let mut parent = rustix::fs::open(root.path(), rustix::fs::OFlags::RDONLY, Mode::empty()).expect("directory");
        for _ in 0..levels {
            let _ = rustix::fs::mkdirat(&parent, "d", Mode::from(0o755));
            parent = rustix::fs::openat(&parent, "d", rustix::fs::OFlags::RDONLY, Mode::empty()).expect("directory");
        }
    };
    make(1100);
    let (bytes, report) = write(root.path(), &Options::default()).expect("more levels than descriptors");
    assert_eq!(report.entries, 1100);
    assert_eq!(archive::entries(&bytes).expect("valid").len(), 1100);
    make(2100);
    let message = archive::message(write(root.path(), &Options::default()));
    assert!(message.contains("too long"), "{message}");
}

#[test]
fn limits_hold() {
    let root = tempfile::tempdir().expect("directory");
    for number in 0..20 {
        fs::write(root.path().join(format!("{number:0100}")), "").expect("file");
    }
    let limited = |limits| archive::message(write(root.path(), &Options { limits, ..Options::default() }));
    assert_eq!(limited(Limits { entries: 10, ..Limits::default() }), "layer archive has more than 10 entries");
    let message = limited(Limits { names: 1000, ..Limits::default() });
    assert_eq!(message, "layer archive has more than 1000 bytes of names and attributes");
}

/// Swaps a directory with a symbolic link while the tree is written again and again: the link is never followed.
#[test]
fn a_link_that_replaces_a_directory_is_not_followed() {
    let outside = tempfile::tempdir().expect("directory");
    fs::write(outside.path().join("secret"), "secret").expect("file");
    let root = tempfile::tempdir().expect("directory");
    fs::create_dir_all(root.path().join("a/b")).expect("directory");
    fs::write(root.path().join("a/b/file"), "x").expect("file");
    symlink(outside.path(), root.path().join("link")).expect("link");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (from, to) = (root.path().join("a/b"), root.path().join("link"));
                let _ = rustix::fs::renameat_with(CWD, &from, CWD, &to, rustix::fs::RenameFlags::EXCHANGE);
            }
        });
        for _ in 0..hull_testkit::loops(300) {
            if let Ok((bytes, _)) = write(root.path(), &Options::default()) {
                assert!(!bytes.windows(6).any(|window| window == b"secret"), "left the root");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_file_that_shrinks_ends_in_zeros() {
    // The walk takes a file's length before its content; procfs says 0 and has more, so the longer case shows too.
    let (bytes, report) = {
        let root = tempfile::tempdir().expect("directory");
        let path = root.path().join("file");
        fs::write(&path, vec![1; 8 << 20]).expect("file");
        let stop = AtomicBool::new(false);
        let mut shortened = None;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let file = File::options().write(true).open(&path).expect("file");
                    file.set_len(1).expect("length");
                    file.set_len(8 << 20).expect("length");
                }
            });
            for _ in 0..20 {
                let written = write(root.path(), &Options::default()).expect("written");
                assert_eq!(archive::entries(&written.0).expect("valid").len(), 1);
                shortened = Some(written);
            }
            stop.store(true, Ordering::Relaxed);
        });
        shortened.expect("written")
    };
    assert!(report.shortened.count <= 1);
    assert!(bytes.len() % 512 == 0);
}

#[test]
fn root_upper_directory_becomes_a_layer() {
    if !tier::root() {
        return;
    }
    let root = tempfile::tempdir().expect("directory");
    let path = |name: &str| root.path().join(name);
    for directory in ["z", "hidden", "hidden/empty", "dev"] {
        fs::create_dir(path(directory)).expect("directory");
    }
    device(&path("z/gone"), 0, 0);
    device(&path("z/null"), 1, 3);
    fs::write(path("z/a"), "a").expect("file");
    fs::write(path("hidden/new"), "new").expect("file");
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::setxattr(path(name), key, value, XattrFlags::empty()).expect("attribute");
    };
    set("hidden", "trusted.overlay.opaque", b"y");
    set("hidden", "trusted.overlay.origin", b"\0\xfb");
    set("z", "trusted.overlay.impure", b"y");
    set("z/a", "trusted.overlay.nlink", b"U+1");
    set("z/a", "trusted.kept", b"1");
    let upper = Options { upper: Some(Overlay::Trusted), ..Options::default() };
    let (bytes, _) = write(root.path(), &upper).expect("written");
    let expected =
        ["dev", "hidden", "hidden/.wh..wh..opq", "hidden/empty", "hidden/new", "z", "z/.wh.gone", "z/a", "z/null"];
    assert_eq!(paths(&bytes), expected);
    let tree = archive::tree(&bytes).expect("a layer");
    let seen = seen::tree(&tree, &bytes);
    assert_eq!(seen[&b"hidden"[..]].kind, "directory opaque");
    assert_eq!(seen[&b"z/gone"[..]].kind, "whiteout");
    assert_eq!(seen[&b"z/a"[..]].xattrs, [(b"trusted.kept".to_vec(), b"1".to_vec())]);
    // A tree of it is written as the same bytes: two ways to the same digest.
    let mut writer = Writer::new(Vec::new());
    let content = |_, node: &hull_layer::tree::Node| Ok(std::io::Cursor::new(seen::content(node, &bytes)));
    writer.write_tree(&tree, content).expect("written");
    assert!(writer.finish().expect("written") == bytes);

    for (key, reason) in [("redirect", "redirect_dir=on"), ("metacopy", "metacopy=on")] {
        set("hidden", &format!("trusted.overlay.{key}"), b"/elsewhere");
        let message = archive::message(write(root.path(), &upper));
        assert!(message.starts_with("archive hidden: ") && message.contains(reason), "{message}");
        rustix::fs::removexattr(path("hidden"), format!("trusted.overlay.{key}")).expect("removed");
    }
    // What a container may set is not the overlay's.
    set("hidden", "user.overlay.redirect", b"/elsewhere");
    write(root.path(), &upper).expect("written");
    fs::write(path("dev/.wh.x"), "").expect("file");
    assert!(archive::message(write(root.path(), &upper)).contains("begins with `.wh.`"));
    write(root.path(), &Options::default()).expect("an export may have it");
}

/// The upper directory of a real overlay, merged again by the kernel's own rules and by ours.
#[test]
fn root_changes_of_a_mounted_overlay_are_in_the_layer() {
    if !tier::root() {
        return;
    }
    let root = tempfile::tempdir().expect("directory");
    let path = |name: &str| root.path().join(name);
    for directory in ["lower/d/e", "lower/replaced", "upper", "work", "merged"] {
        fs::create_dir_all(path(directory)).expect("directory");
    }
    for file in ["lower/d/changed", "lower/d/removed", "lower/replaced/old", "lower/kept"] {
        fs::write(path(file), "old").expect("file");
    }
    // In a mount namespace of its own, which goes with the process.
    let script = "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && cd merged && \
                  echo new > d/changed && rm d/removed && rm -r d/e && rm -r replaced && mkdir replaced && \
                  touch replaced/new && ln kept second";
    let status = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", script])
        .current_dir(root.path())
        .status();
    match status {
        Ok(status) if status.success() => {}
        other => {
            return tier::skip("overlay", &format!("no overlay can be mounted in the temporary directory: {other:?}"));
        }
    }
    let (bytes, _) =
        write(&path("upper"), &Options { upper: Some(Overlay::Trusted), ..Options::default() }).expect("written");
    let tree = archive::tree(&bytes).expect("a layer");
    let seen = seen::tree(&tree, &bytes);
    let kinds: Vec<String> =
        seen.iter().skip(1).map(|(path, file)| format!("{} {}", String::from_utf8_lossy(path), file.kind)).collect();
    let expected = [
        "d directory",
        "d/changed file",
        "d/e whiteout",
        "d/removed whiteout",
        "kept file",
        "replaced directory opaque",
        "replaced/new file",
        "second file",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(seen[&b"second"[..]].first, b"kept");
    assert_eq!(fs::metadata(path("upper/kept")).expect("file").nlink(), 2);
}

#[test]
fn root_what_is_mounted_is_left_out() {
    if !tier::root() {
        return;
    }
    // The root of the machine has mounts: procfs is one anywhere tests run.
    let keep = |path: &[u8]| !(path == b"proc" || path.starts_with(b"proc/"));
    let (bytes, report) =
        write(Path::new("/"), &Options { exclude: Some(&keep), one_file_system: true, ..Options::default() })
            .expect("written");
    assert_eq!(paths(&bytes), ["proc"]);
    assert_eq!(report.mounts.first, [b"proc".to_vec()]);
}
