//! Mounted layers, beside what GNU tar extracts and below an overlay.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_layer::erofs::{self, MountError, MountOptions};
use hull_layer::ingest::Options;
use hull_oci::Digest;
use hull_testkit::tier::{root, skip, tool};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::{directory, fd_path, noise, open, take};

/// Everything that can be seen of a tree: attributes, content, and which names are one file.
fn look(base: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut first) = (BTreeMap::new(), BTreeMap::new());
    let mut waiting = vec![PathBuf::from(".")];
    while let Some(path) = waiting.pop() {
        let full = base.join(&path);
        let stat = full.symlink_metadata().unwrap_or_else(|error| panic!("{}: {error}", full.display()));
        let content = if stat.is_dir() {
            waiting.extend(full.read_dir().expect("names").map(|entry| path.join(entry.expect("a name").file_name())));
            String::new()
        } else if stat.is_symlink() {
            format!("{:?}", std::fs::read_link(&full).expect("a link"))
        } else if stat.is_file() {
            let content = std::fs::read(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()));
            format!("{} {}", stat.len(), Digest::of(&content))
        } else {
            format!("device {}", stat.rdev())
        };
        let one = match stat.is_dir() {
            true => path.clone(),
            false => first.entry(stat.ino()).or_insert_with(|| path.clone()).clone(),
        };
        let mut names = vec![0; 1 << 16];
        let length = rustix::fs::llistxattr(&full, &mut names[..]).expect("names of attributes");
        let mut xattrs = BTreeMap::new();
        for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; 1 << 16];
            let length = rustix::fs::lgetxattr(&full, name, &mut value[..]).expect("an attribute");
            xattrs.insert(name.escape_ascii().to_string(), value[..length].to_vec());
        }
        let (mode, owner, time) = (stat.mode(), (stat.uid(), stat.gid()), (stat.mtime(), stat.mtime_nsec()));
        let links = if stat.is_dir() { 0 } else { stat.nlink() };
        let line = format!("{mode:o} {owner:?} {time:?} {links} {} {xattrs:?} {content}", one.display());
        found.insert(path, line);
    }
    found
}

fn mount(directory: &Path) -> Result<OwnedFd, MountError> {
    let (index, tar) = (open(&directory.join("index")), open(&directory.join("tar")));
    erofs::mount(index.as_fd(), tar.as_fd(), MountOptions::default())
}

/// Whether layers can be mounted here; a reason is printed if not.
fn mountable() -> bool {
    if !root() {
        return false;
    }
    let place = directory();
    take(&[0; 1024][..], place.path(), &Options::default()).expect("an empty layer");
    match mount(place.path()) {
        Ok(_) => true,
        Err(error @ (MountError::NoErofs | MountError::NotPermitted(_) | MountError::NotFromFiles)) => {
            skip("EROFS mounted from files", &error.to_string());
            false
        }
        Err(error) => panic!("{error}"),
    }
}

fn ok(command: &mut Command) {
    let output = command.output().expect("the command starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A tree like that of a small distribution, with every type of file; `rich` with what only some formats can say.
fn make_tree(base: &Path, rich: bool) {
    use rustix::fs::{FileType, Mode, XattrFlags};
    let write = |name: &str, content: &[u8], mode: u32| {
        let path = base.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::write(&path, content).expect("written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("mode");
        path
    };
    for name in ["bin", "dev", "etc/apk", "home", "lib", "proc", "root", "sys", "tmp", "usr/bin", "var/empty"] {
        std::fs::create_dir_all(base.join(name)).expect("directories");
    }
    let busybox = tool("busybox").map(|path| std::fs::read(path).expect("busybox")).unwrap_or_else(|| noise(900_000));
    write("bin/busybox", &busybox, 0o4755);
    for name in ["sh", "ls", "cat", "[", "[["] {
        std::os::unix::fs::symlink("/bin/busybox", base.join("bin").join(name)).expect("a link");
    }
    std::os::unix::fs::symlink("../../bin/busybox", base.join("usr/bin/env")).expect("a link");
    for length in [0, 1, 511, 512, 513, 4095, 4096, 4097, 100_000] {
        write(&format!("lib/file-{length}"), &noise(length), 0o644);
    }
    for number in 0..400 {
        write(&format!("usr/share/many/name-{number}"), format!("{number}").as_bytes(), 0o600);
    }
    write("etc/a name with spaces and \u{fc}", b"x", 0o444);
    std::fs::hard_link(base.join("lib/file-513"), base.join("etc/apk/linked")).expect("a link");
    std::fs::hard_link(base.join("lib/file-513"), base.join("a-linked")).expect("a link");
    let dev = |name: &str, kind, major, minor| {
        let place = rustix::fs::CWD;
        let number = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(place, base.join("dev").join(name), kind, Mode::from(0o620), number).expect("a node");
    };
    dev("null", FileType::CharacterDevice, 1, 3);
    dev("sda15", FileType::BlockDevice, 8, 15);
    dev("high", FileType::BlockDevice, 259, 70_000);
    dev("pipe", FileType::Fifo, 0, 0);
    std::os::unix::fs::lchown(base.join("home"), Some(1000), Some(100)).expect("owner");
    std::os::unix::fs::lchown(base.join("bin/ls"), Some(5), Some(6)).expect("owner");
    if rich {
        std::os::unix::fs::lchown(base.join("lib/file-0"), Some(3_000_000), Some(4_000_000_000)).expect("owner");
        let deep = "deep/".repeat(60);
        write(&format!("{deep}{}", "n".repeat(255)), b"deep", 0o640);
        std::os::unix::fs::symlink("t".repeat(1500), base.join("long-link")).expect("a link");
        let sparse = File::create(base.join("var/sparse")).expect("a file");
        sparse.set_len(50 << 20).expect("length");
        for (at, length) in [(0, 10_000), (1 << 20, 4096), ((30 << 20) + 4096, 123), ((50 << 20) - 4096, 4096)] {
            std::os::unix::fs::FileExt::write_all_at(&sparse, &noise(length), at).expect("written");
        }
        File::create(base.join("var/hole")).expect("a file").set_len(3 << 20).expect("length");
    }
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, if rich { 987_654_321 } else { 0 });
    for name in ["etc", "bin/busybox", "lib/file-1", "dev/null"] {
        if name != "dev/null" {
            open(&base.join(name)).set_modified(old).expect("time");
        }
    }
    if rich {
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for name in ["lib/file-512", "lib/file-4096"] {
            let path = base.join(name);
            rustix::fs::lsetxattr(&path, "security.capability", &capability, XattrFlags::empty())
                .expect("an attribute");
        }
        rustix::fs::lsetxattr(base.join("etc"), "user.note", b"a\0b", XattrFlags::empty()).expect("an attribute");
        rustix::fs::lsetxattr(base.join("bin/sh"), "trusted.link", b"", XattrFlags::empty()).expect("an attribute");
    }
}

#[test]
fn root_a_mounted_layer_is_what_gnu_tar_extracts() {
    if !mountable() {
        return;
    }
    let base = directory();
    for (format, rich) in [("ustar", false), ("oldgnu", true), ("gnu", true), ("posix", true), ("v7", false)] {
        let place = |name: &str| {
            let path = base.path().join(format!("{format}-{name}"));
            std::fs::create_dir(&path).expect("a directory");
            path
        };
        let (source, extracted, layer) = (place("source"), place("extracted"), place("layer"));
        make_tree(&source, rich);
        if format == "v7" {
            std::fs::remove_dir_all(source.join("dev")).expect("removed");
        }
        if matches!(format, "oldgnu" | "gnu") {
            // Attributes are PAX's alone.
            for (name, attribute) in [("etc", "user.note"), ("bin/sh", "trusted.link")] {
                rustix::fs::lremovexattr(source.join(name), attribute).expect("removed");
            }
            for name in ["lib/file-512", "lib/file-4096"] {
                rustix::fs::lremovexattr(source.join(name), "security.capability").expect("removed");
            }
        }
        let archive = base.path().join(format!("{format}.tar"));
        let mut pack = Command::new("tar");
        pack.arg(format!("--format={format}")).arg("--numeric-owner").arg("-C").arg(&source).arg("-cf").arg(&archive);
        if rich {
            pack.arg("--sparse");
        }
        if format == "posix" {
            pack.args(["--xattrs", "--xattrs-include=*"]);
        }
        ok(pack.arg("."));
        let mut unpack = Command::new("tar");
        unpack.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "-xpf"]).arg(&archive);
        ok(unpack.arg("-C").arg(&extracted));
        let taken =
            take(open(&archive), &layer, &Options::default()).unwrap_or_else(|error| panic!("{format}: {error}"));
        let mounted = mount(&layer).expect("a mount");
        let (expected, found) = (look(&extracted), look(&fd_path(&mounted)));
        assert!(expected.len() > 430, "{}", expected.len());
        assert!(expected.keys().eq(found.keys()), "{format}");
        for (path, line) in &expected {
            // Which name of a hard link was met first depends on the order of directories.
            if path.ends_with("linked") || path.ends_with("a-linked") || path.ends_with("lib/file-513") {
                continue;
            }
            assert_eq!(*line, found[path], "{format} {}", path.display());
        }
        let inode = |name: &str| fd_path(&mounted).join(name).symlink_metadata().expect("metadata").ino();
        assert_eq!(inode("a-linked"), inode("lib/file-513"), "{format}");
        assert_eq!(inode("a-linked"), inode("etc/apk/linked"), "{format}");
        assert_eq!(open(&fd_path(&mounted).join("a-linked")).metadata().expect("metadata").nlink(), 3);
        let read = erofs::read(&std::fs::read(layer.join("index")).expect("index")).expect("an index");
        assert_eq!(read.tree.nodes.len() as u64, taken.inodes);
    }
}

fn layer(entries: &[(&str, Option<&str>)]) -> tempfile::TempDir {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(if content.is_some() { 0o644 } else { 0o755 });
        header.set_entry_type(if content.is_some() { tar::EntryType::Regular } else { tar::EntryType::Directory });
        let content = content.unwrap_or_default().as_bytes();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content).expect("an entry");
    }
    let place = directory();
    take(&builder.into_inner().expect("a tar")[..], place.path(), &Options::default()).expect("a layer");
    place
}

#[test]
fn root_whiteouts_and_opaque_directories_work_in_an_overlay() {
    if !mountable() {
        return;
    }
    let lower = layer(&[
        ("dir/", None),
        ("dir/hidden", Some("lower")),
        ("kept/", None),
        ("kept/gone", Some("lower")),
        ("kept/stays", Some("lower")),
        ("removed/", None),
        ("removed/deep", Some("lower")),
        ("file", Some("lower")),
    ]);
    let upper = layer(&[
        ("dir/", None),
        ("dir/.wh..wh..opq", Some("")),
        ("dir/own", Some("upper")),
        ("kept/", None),
        ("kept/.wh.gone", Some("")),
        (".wh.removed", Some("")),
        ("file", Some("upper")),
    ]);
    let mounts = [mount(upper.path()).expect("a mount"), mount(lower.path()).expect("a mount")];
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).expect("overlay");
    for layer in &mounts {
        if let Err(error) = rustix::mount::fsconfig_set_fd(&context, "lowerdir+", layer) {
            return skip("overlay layers by descriptor (Linux 6.13)", &error.to_string());
        }
    }
    rustix::mount::fsconfig_create(&context).expect("an overlay");
    let attributes = MountAttrFlags::empty();
    let merged = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).expect("a mount");
    // The overlay keeps what it needs.
    drop(mounts);
    let found = look(&fd_path(&merged));
    let names: Vec<&[u8]> = found.keys().map(|path| path.as_os_str().as_bytes()).collect();
    let expected: [&[u8]; 6] = [b".", b"./dir", b"./dir/own", b"./file", b"./kept", b"./kept/stays"];
    assert_eq!(names, expected);
    assert_eq!(std::fs::read(fd_path(&merged).join("file")).expect("a file"), b"upper");
    assert_eq!(std::fs::read(fd_path(&merged).join("kept/stays")).expect("a file"), b"lower");
}
