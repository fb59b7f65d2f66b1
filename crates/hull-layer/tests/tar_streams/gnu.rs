//! Archives of GNU tar, in all its formats, against what GNU tar extracts from them.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use hull_layer::tar::Writer;
use hull_layer::tar::walk::{Options, write_directory};
use hull_testkit::tier;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::{archive, seen};

/// Everything that any format can say, in directories by what is needed to say it.
fn source(root: &Path, privileged: bool) {
    let common = root.join("common");
    let long = root.join("long");
    let large = root.join("large");
    let sparse = root.join("sparse");
    for directory in [&common, &long, &large, &sparse, &common.join("empty"), &common.join("sticky")] {
        fs::create_dir(directory).expect("directory");
    }
    for size in [0, 1, 511, 512, 513, 100_000] {
        let content: Vec<u8> = (0..size).map(|place| (place % 251) as u8).collect();
        fs::write(common.join(format!("file-{size}")), content).expect("file");
    }
    for (name, mode) in
        [("file-1", 0o4755), ("file-511", 0o2700), ("file-512", if privileged { 0 } else { 0o400 }), ("sticky", 0o1777)]
    {
        fs::set_permissions(common.join(name), Permissions::from_mode(mode)).expect("mode");
    }
    fs::hard_link(common.join("file-513"), common.join("a-link")).expect("link");
    fs::hard_link(common.join("file-513"), common.join("sticky/other")).expect("link");
    symlink("/etc/../passwd", common.join("absolute")).expect("symlink");
    symlink("nowhere", common.join("dangling")).expect("symlink");
    symlink("empty", common.join("to-directory")).expect("symlink");
    rustix::fs::mknodat(CWD, common.join("fifo"), FileType::Fifo, Mode::from(0o640), 0).expect("fifo");
    fs::write(common.join(OsStr::from_bytes(b"new\nline\\ \xc3\xbc")), "x").expect("file");
    let prefixed = common.join("p".repeat(90)).join("q".repeat(60));
    fs::create_dir_all(&prefixed).expect("directory");
    fs::write(long.join("n".repeat(255)), "long").expect("file");
    fs::write(long.join(OsStr::from_bytes(b"not \xff UTF-8")), "x").expect("file");
    let deep = (0..12).fold(long.clone(), |path, level| path.join(format!("{level}-{}", "d".repeat(80))));
    fs::create_dir_all(&deep).expect("directories");
    fs::write(deep.join("file"), "deep").expect("file");
    fs::hard_link(deep.join("file"), deep.join("g".repeat(150))).expect("link");
    symlink("t".repeat(3000), long.join("link")).expect("symlink");
    for (name, pieces) in [("none", 0_u64), ("one", 1), ("six", 6), ("many", 70)] {
        let file = File::create(sparse.join(name)).expect("file");
        file.set_len(pieces * 131_072 + 100_000).expect("length");
        for piece in 0..pieces {
            file.write_all_at(format!("piece {piece}").as_bytes(), piece * 131_072 + 65_536).expect("piece");
        }
    }
    let file = File::create(sparse.join("tail")).expect("file");
    file.write_all_at(b"the end", 300_000).expect("piece");
    if privileged {
        for (name, kind, device) in
            [("null", FileType::CharacterDevice, (1, 3)), ("disk", FileType::BlockDevice, (259, 70_000))]
        {
            let device = rustix::fs::makedev(device.0, device.1);
            rustix::fs::mknodat(CWD, common.join(name), kind, Mode::from(0o660), device).expect("device");
        }
        rustix::fs::chown(common.join("file-100000"), rustix_uid(1000), rustix_gid(70_000)).expect("owner");
        fs::write(large.join("owner"), "x").expect("file");
        rustix::fs::chown(large.join("owner"), rustix_uid(3_000_000_000), rustix_gid(2_097_152)).expect("owner");
    }
    for (name, seconds, nanoseconds) in
        [("new", 1_700_000_000, 123_456_789), ("old", -1, 500_000_000), ("far", 1 << 33, 0)]
    {
        fs::write(large.join(name), name).expect("file");
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, large.join(name), &times, AtFlags::empty()).expect("time");
    }
}

fn rustix_uid(id: u32) -> Option<rustix::fs::Uid> {
    Some(rustix::fs::Uid::from_raw(id))
}

fn rustix_gid(id: u32) -> Option<rustix::fs::Gid> {
    Some(rustix::fs::Gid::from_raw(id))
}

fn tar(arguments: &[&str], directory: &Path) {
    let mut command = Command::new("tar");
    command
        .current_dir(directory)
        .args(["--numeric-owner"])
        .args(arguments)
        .env("LC_ALL", "C")
        .env_remove("TAR_OPTIONS");
    let output = command.output().expect("run tar");
    assert!(output.status.success(), "tar {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Archives `what` and compares our tree of it with what GNU tar extracts.
#[track_caller]
fn compare(root: &Path, options: &[&str], what: &[&str]) {
    let archive = tempfile::NamedTempFile::new().expect("archive");
    let name = archive.path().to_str().expect("a path in UTF-8");
    tar(&[&["-c", "--no-recursion", "-f", name][..], options, &["."]].concat(), root);
    tar(&[&["-r", "-f", name][..], options, what].concat(), root);
    let bytes = fs::read(archive.path()).expect("archive");
    let out = tempfile::tempdir().expect("directory");
    let kept = ["--xattrs", "--xattrs-include=*", "-p"];
    tar(&[&["-x", "-f", name][..], &kept].concat(), out.path());

    let tree = archive::tree(&bytes).unwrap_or_else(|error| panic!("{options:?}: {error}"));
    seen::assert_same(&seen::tree(&tree, &bytes), &seen::directory(out.path()), &format!("{options:?}"));
}

fn compare_all(privileged: bool) {
    let root = tempfile::tempdir().expect("directory");
    source(root.path(), privileged);
    let root = root.path();
    for format in ["v7", "ustar", "oldgnu", "gnu", "posix"] {
        let format = format!("--format={format}");
        if format == "--format=v7" {
            // No devices, no pipes, and no names of more than 99 bytes.
            let files = [
                "--no-recursion",
                "common",
                "common/file-1",
                "common/file-513",
                "common/a-link",
                "common/absolute",
                "common/empty",
            ];
            compare(root, &[&format], &files);
            continue;
        }
        compare(root, &[&format], &["common"]);
        if format == "--format=ustar" {
            continue;
        }
        compare(root, &[&format], &["common", "long", "large"]);
        if format != "--format=posix" {
            compare(root, &[&format, "--sparse"], &["sparse", "long"]);
        }
    }
    for version in ["0.0", "0.1", "1.0"] {
        let version = format!("--sparse-version={version}");
        for detection in ["--hole-detection=seek", "--hole-detection=raw"] {
            compare(root, &["--format=posix", "--sparse", &version, detection], &["sparse", "long"]);
        }
    }
    compare(root, &["--format=gnu", "--label=a volume"], &["common"]);
    compare(root, &["--format=posix", "--label=a volume"], &["common"]);
}

/// GNU tar extracts what we write of a directory, and gets the directory.
fn extract_ours(privileged: bool) {
    let root = tempfile::tempdir().expect("directory");
    source(root.path(), privileged);
    let _ = rustix::fs::setxattr(root.path().join("common/file-1"), "user.a=b%", b"value\n", XattrFlags::empty());
    let archive = tempfile::NamedTempFile::new().expect("archive");
    let mut writer = Writer::new(archive.as_file());
    let options = Options { root: true, ..Options::default() };
    write_directory(&mut writer, File::open(root.path()).expect("directory").as_fd(), &options).expect("written");
    writer.finish().expect("written");
    let out = tempfile::tempdir().expect("directory");
    let name = archive.path().to_str().expect("a path in UTF-8");
    tar(&["-x", "-f", name, "--xattrs", "--xattrs-include=*", "-p"], out.path());
    seen::assert_same(&seen::directory(out.path()), &seen::directory(root.path()), "extracted by GNU tar");
}

#[test]
fn gnu_tar_extracts_our_archives() {
    if tier::tool("tar").is_some() {
        extract_ours(false);
    }
}

#[test]
fn root_gnu_tar_extracts_our_devices_and_owners() {
    if tier::root() && tier::tool("tar").is_some() {
        extract_ours(true);
    }
}

#[test]
fn all_formats_of_gnu_tar() {
    if tier::tool("tar").is_some() {
        compare_all(false);
    }
}

#[test]
fn root_devices_and_owners() {
    if tier::root() && tier::tool("tar").is_some() {
        compare_all(true);
    }
}

#[test]
fn root_capabilities_and_attributes() {
    if !tier::root() || tier::tool("tar").is_none() {
        return;
    }
    let root = tempfile::tempdir().expect("directory");
    let file = root.path().join("file");
    fs::write(&file, "x").expect("file");
    fs::create_dir(root.path().join("directory")).expect("directory");
    symlink("file", root.path().join("link")).expect("link");
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let binary: Vec<u8> = (0..=255).chain(*b"=\n").collect();
    for (name, value) in
        [("security.capability", &capability[..]), ("user.binary", &binary), ("user.empty", b""), ("user.a=b%25", b"=")]
    {
        if let Err(errno) = rustix::fs::setxattr(&file, name, value, XattrFlags::empty()) {
            tier::skip("xattrs", &format!("the temporary directory has no extended attributes: {errno}"));
            return;
        }
    }
    rustix::fs::setxattr(root.path().join("directory"), "user.d", b"d", XattrFlags::empty()).expect("attribute");
    rustix::fs::lsetxattr(root.path().join("link"), "trusted.l", b"l", XattrFlags::empty()).expect("attribute");
    compare(root.path(), &["--xattrs", "--xattrs-include=*"], &["file", "directory", "link"]);
}
