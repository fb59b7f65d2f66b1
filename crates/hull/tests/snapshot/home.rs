//! A store of its own, images made of directories, and what a tree is to whoever looks at it.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_testkit::{Finished, Home, finish, home, tier};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

/// Both snapshotters; every test of content runs on each.
pub(crate) const KINDS: [&str; 2] = ["erofs", "directory"];

/// A home for one snapshotter, or `None` with a printed skip.
pub(crate) fn home(kind: &str) -> Option<Home> {
    tier::tool("tar")?;
    let home = home!()?.snapshotter(kind);
    if kind == "erofs" {
        let info = home.run(&["info"]);
        if info.code != 0 {
            tier::skip("erofs", info.stderr.trim());
            return None;
        }
    }
    Some(home)
}

/// `hull run --rm --network=none IMAGE PROGRAM...`.
#[track_caller]
pub(crate) fn run(h: &Home, words: &[&str]) -> Finished {
    finish(h.hull(&["run", "--rm", "--network=none"]).args(words))
}

/// An image whose layers, lowest first, are the contents of these directories.
#[track_caller]
pub(crate) fn image(h: &Home, name: &str, layers: &[&Path]) {
    let archive = h.at(&format!("{name}.archive"));
    fs::create_dir(&archive).expect("create directory");
    let mut files = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let file = format!("{number}.tar");
        tar(layer, &archive.join(&file));
        files.push(file);
    }
    let sums = finish(Command::new("sha256sum").args(&files).current_dir(&archive)).ok();
    let diff_ids: Vec<String> = sums.lines().iter().map(|line| format!("sha256:{}", &line[..64])).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/probe", "echo", "hello"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    fs::write(archive.join("config.json"), config.to_string()).expect("write");
    let manifest = serde_json::json!([{
        "Config": "config.json", "RepoTags": [format!("{name}:latest")], "Layers": files,
    }]);
    fs::write(archive.join("manifest.json"), manifest.to_string()).expect("write");
    let file = h.text(&format!("{name}.tar"));
    finish(Command::new("tar").args(["-cf", &file, "-C"]).arg(&archive).arg(".")).ok();
    h.ok(&["load", "-q", "-i", &file]);
    fs::remove_dir_all(archive).expect("remove");
}

/// A directory with the probe and places to work in.
pub(crate) fn rootfs(h: &Home) -> PathBuf {
    let root = h.at("tree");
    for sub in ["", "tmp", "etc", "srv", "srv/sub"] {
        fs::create_dir(root.join(sub)).expect("create directory");
    }
    fs::copy(hull_testkit::probe(), root.join("probe")).expect("copy the probe");
    for (path, content) in [("etc/name", "hull"), ("etc/other", "x"), ("srv/a", "a"), ("srv/sub/b", "b")] {
        fs::write(root.join(path), content).expect("write");
    }
    root
}

/// Who lends mounts: lines of all files below `STATE/mounts`.
pub(crate) fn holders(h: &Home) -> Vec<String> {
    let text = |name: &String| fs::read_to_string(h.at("run/mounts").join(name)).unwrap_or_default();
    h.entries("run/mounts").iter().flat_map(|name| text(name).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Nothing on the machine, no container, no lent mount, no unfinished work.
#[track_caller]
pub(crate) fn assert_clean(h: &Home) {
    h.until("no mount is lent", || h.entries("run/mounts").is_empty());
    assert_eq!(h.unfinished(), [""; 0]);
    h.assert_clean();
}

/// A directory as GNU tar's archive, with everything that it can keep.
#[track_caller]
pub(crate) fn tar(directory: &Path, archive: &Path) {
    let mut command = Command::new("tar");
    command.args(["--format=pax", "--xattrs", "--xattrs-include=*", "--sparse", "--numeric-owner", "-cf"]);
    let _ = finish(command.arg(archive).arg("-C").arg(directory).arg(".")).ok();
}

/// What GNU tar makes of an archive.
#[track_caller]
pub(crate) fn untar(archive: &Path, directory: &Path) {
    fs::create_dir_all(directory).expect("create directory");
    let mut command = Command::new("tar");
    command.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "-p", "-xf"]);
    let _ = finish(command.arg(archive).arg("-C").arg(directory)).ok();
}

/// Every name with its type, attributes, times, links and content.
pub(crate) fn describe(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).expect("stat");
        let kind = meta.file_type();
        let mut text = format!(
            "{:o} {}:{} {}.{:09} {:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            xattrs(&path)
        );
        if kind.is_dir() {
            pending.extend(fs::read_dir(&path).expect("list").map(|entry| entry.expect("list").path()));
        } else {
            text.push_str(&format!(" links {} size {} device {}", meta.nlink(), meta.len(), meta.rdev()));
        }
        if kind.is_symlink() {
            text.push_str(&format!(" -> {}", fs::read_link(&path).expect("read link").display()));
        } else if kind.is_file() {
            let mut hasher = DefaultHasher::new();
            fs::read(&path).expect("read").hash(&mut hasher);
            text.push_str(&format!(" content {:x}", hasher.finish()));
        }
        let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        all.insert(name, text);
    }
    all
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0_u8; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut list).unwrap_or(0);
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut all = BTreeMap::new();
    for name in names {
        let mut value = vec![0_u8; 1 << 16];
        let length = rustix::fs::lgetxattr(path, name, &mut value).expect("attribute");
        all.insert(String::from_utf8_lossy(name).into_owned(), value[..length].to_vec());
    }
    all.retain(|name, _| !name.contains("overlay.") && name != "security.selinux");
    all
}

/// Asserts that two trees are the same, and says where they are not.
#[track_caller]
pub(crate) fn assert_same(expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>, what: &str) {
    let mut wrong = Vec::new();
    for name in expected.keys().chain(found.keys()) {
        let (a, b) = (expected.get(name), found.get(name));
        if a != b {
            wrong.push(format!("{name:?}\n  expected {a:?}\n  found    {b:?}"));
        }
    }
    wrong.dedup();
    wrong.truncate(10);
    assert!(wrong.is_empty(), "{what} differ:\n{}", wrong.join("\n"));
}

/// A tree with every type of file and every attribute that a layer can have.
pub(crate) fn every_type(root: &Path) {
    let make = |name: &str| fs::create_dir_all(root.join(name)).expect("create directory");
    let write = |name: &str, content: &[u8]| fs::write(root.join(name), content).expect("write");
    for name in ["", "bin", "etc/deep/er/still", "empty", "private", "sticky", "names"] {
        make(name);
    }
    write("bin/small", b"#!/bin/sh\n");
    write("bin/block", &[3; 512]);
    write("bin/page", &[4; 4096]);
    write("bin/odd", &(0..100_003_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>());
    write("bin/none", b"");
    write("etc/deep/er/still/file", b"deep");
    write(&format!("names/{}", "n".repeat(255)), b"long");
    write("names/white space \u{e4}\n\"'\\", b"odd");
    for number in 0..300 {
        write(&format!("names/file-{number}"), number.to_string().as_bytes());
    }
    fs::hard_link(root.join("bin/odd"), root.join("etc/hard")).expect("link");
    fs::hard_link(root.join("bin/odd"), root.join("names/hard")).expect("link");
    std::os::unix::fs::symlink("../etc/hard", root.join("bin/link")).expect("link");
    std::os::unix::fs::symlink("/absolute/nowhere", root.join("bin/dangling")).expect("link");
    std::os::unix::fs::symlink("x".repeat(4000), root.join("bin/longlink")).expect("link");
    let mut sparse = fs::File::create(root.join("bin/sparse")).expect("create");
    std::io::Seek::seek(&mut sparse, std::io::SeekFrom::Start(1 << 20)).expect("seek");
    std::io::Write::write_all(&mut sparse, b"end").expect("write");
    drop(sparse);
    fs::File::create(root.join("bin/hole")).and_then(|file| file.set_len(70_000)).expect("hole");
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o640), device).expect("make node");
    };
    node("etc/fifo", FileType::Fifo, 0);
    node("etc/null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("etc/disk", FileType::BlockDevice, rustix::fs::makedev(259, 70_000));
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(root.join(name), key, value, XattrFlags::empty()).expect("set attribute");
    };
    set("bin/small", "user.note", b"a value");
    set("bin/small", "user.empty", b"");
    set("bin/block", "trusted.mine", &[0, 1, 2, 255]);
    set("bin/link", "trusted.link", b"of a link");
    set("etc", "user.directory", &[b'v'; 3000]);
    // cap_net_raw+ep, version 2.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let own = |name: &str, uid: u32, gid: u32| {
        std::os::unix::fs::lchown(root.join(name), Some(uid), Some(gid)).expect("chown");
    };
    own("bin/page", 70_000, 80_000);
    own("bin/link", 5, 6);
    own("etc/fifo", 7, 8);
    own("private", 1000, 1000);
    set("bin/page", "security.capability", &capability);
    let mode =
        |name: &str, mode| fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).expect("chmod");
    mode("bin/small", 0o4755);
    mode("bin/block", 0o2711);
    mode("private", 0o000);
    mode("sticky", 0o1777);
    mode("", 0o751);
    for (name, seconds, nanoseconds) in [
        ("bin/small", 1, 0),
        ("bin/link", 1_000_000_000, 123_456_789),
        ("empty", 4_294_967_296, 1),
        ("bin/none", -5, 0),
    ] {
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, root.join(name), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).expect("set time");
    }
}
