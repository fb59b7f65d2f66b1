//! Streams become layers, or one clear error; what is mounted is what GNU tar extracts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hull_layer::compression::{Compression, Decoder, Encoder};
use hull_layer::erofs::{self, MountError, MountOptions};
use hull_layer::ingest::{self, Indexed, Options, ingest, ingest_into};
use hull_layer::{Error, Limits};
use hull_oci::Digest;
use hull_testkit::tier::{root, skip, tool};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

fn open(path: &Path) -> File {
    File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn take(input: impl Read, directory: &Path, options: &Options) -> Result<Indexed, Error> {
    ingest(input, open(directory).as_fd(), options, &Limits::default())
}

/// Bytes that do not compress to nothing, always the same.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    for (name, content) in [("a", noise(1_200_000)), ("b", Vec::new()), ("c", noise(777))] {
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, &content[..]).expect("an entry");
    }
    builder.into_inner().expect("a tar")
}

fn pack(compression: Compression, content: &[u8]) -> Vec<u8> {
    match compression {
        Compression::Xz => {
            let mut packed = Vec::new();
            liblzma::read::XzEncoder::new(content, 1).read_to_end(&mut packed).expect("xz");
            packed
        }
        Compression::Bzip2 => {
            let mut packed = Vec::new();
            let level = bzip2::Compression::fast();
            bzip2::read::BzEncoder::new(content, level).read_to_end(&mut packed).expect("bzip2");
            packed
        }
        other => {
            let mut encoder =
                Encoder::new(other, Some(1).filter(|_| other != Compression::None), Vec::new()).expect("an encoder");
            encoder.write_all(content).expect("written");
            encoder.finish().expect("finished")
        }
    }
}

const ALL: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Xz, Compression::Bzip2];

#[test]
fn every_compression_gives_the_same_layer() {
    let tar = archive();
    let mut indexes = Vec::new();
    for compression in ALL {
        let (place, blob) = (directory(), pack(compression, &tar));
        let options = Options {
            keep_blob: true,
            blob: Some(Digest::of(&blob)),
            size: Some(blob.len() as u64),
            diff_id: Some(Digest::of(&tar)),
            sync: true,
        };
        let taken = take(&blob[..], place.path(), &options).expect("a layer");
        assert_eq!(taken.layer.compression, compression);
        assert_eq!((taken.layer.blob, taken.layer.size), (Digest::of(&blob), blob.len() as u64));
        assert_eq!((taken.layer.diff_id, taken.layer.tar_size), (Digest::of(&tar), tar.len() as u64));
        assert_eq!((taken.inodes, taken.content), (4, 1_200_777));
        assert_eq!(std::fs::read(place.path().join("blob")).expect("blob"), blob);
        assert_eq!(std::fs::read(place.path().join("tar")).expect("tar"), tar);
        let index = std::fs::read(place.path().join("index")).expect("index");
        assert_eq!(index.len() as u64, taken.index_size);
        let mode = open(&place.path().join("tar")).metadata().expect("metadata").mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else can read layers");
        indexes.push(index);
    }
    assert!(indexes.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn nothing_is_kept_that_was_not_asked_for() {
    let place = directory();
    let blob = pack(Compression::Gzip, &archive());
    take(&blob[..], place.path(), &Options::default()).expect("a layer");
    let mut names: Vec<_> =
        place.path().read_dir().expect("names").map(|name| name.expect("name").file_name()).collect();
    names.sort();
    assert_eq!(names, ["index", "tar"]);

    let place = directory();
    let consume = |stream: &mut ingest::Stream<'_>| {
        let mut first = [0; 1];
        stream.read_exact(&mut first).map_err(Error::Read)?;
        Ok(first[0])
    };
    let handle = open(place.path());
    let (layer, first) =
        ingest_into(&blob[..], handle.as_fd(), &Options::default(), &Limits::default(), consume).expect("a layer");
    assert_eq!(first, b'a');
    assert_eq!(layer.diff_id, Digest::of(&archive()), "what the consumer leaves is hashed too");
    assert_eq!(place.path().read_dir().expect("names").count(), 0);
}

#[test]
fn several_members_are_one_stream() {
    let tar = archive();
    let (front, back) = tar.split_at(700_001);
    for compression in ALL {
        let mut blob = pack(compression, front);
        if compression == Compression::Zstd {
            // A skippable frame, as seekable formats have them.
            blob.splice(0..0, [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
        }
        blob.extend(pack(compression, back));
        let taken = take(&blob[..], directory().path(), &Options::default());
        assert_eq!(taken.expect("a layer").layer.diff_id, Digest::of(&tar), "{compression}");
    }
}

#[test]
fn cut_off_damaged_and_continued_streams_are_refused() {
    let tar = archive();
    for compression in ALL {
        let blob = pack(compression, &tar);
        for length in [1, 3, 11, 300, blob.len() / 2, blob.len() - 600, blob.len() - 1] {
            if compression == Compression::None && length > tar.len() - 1024 {
                continue;
            }
            let error = take(&blob[..length], directory().path(), &Options::default()).expect_err("truncated");
            let kind = matches!(error, Error::Compression { .. } | Error::Archive { .. });
            assert!(kind && !error.to_string().contains('\n'), "{compression} {length}: {error}");
        }
        if compression == Compression::None {
            continue;
        }
        for at in [blob.len() / 3, blob.len() - 5] {
            let mut damaged = blob.clone();
            damaged[at] ^= 0x10;
            let error = take(&damaged[..], directory().path(), &Options::default()).expect_err("damaged");
            let wanted = matches!(error, Error::Compression { .. } | Error::Archive { .. });
            assert!(wanted, "{compression} {at}: {error}");
            // With what is expected, the digest tells.
            let options =
                Options { blob: Some(Digest::of(&blob)), size: Some(blob.len() as u64), ..Options::default() };
            let error = take(&damaged[..], directory().path(), &options).expect_err("damaged");
            assert!(matches!(error, Error::Digest { what: "blob", .. }), "{compression} {at}: {error}");
        }
        for rest in [&b"garbage"[..], &[0; 512]] {
            if compression == Compression::Xz && rest[0] == 0 {
                // The format allows zeros there.
                continue;
            }
            let continued = [&blob, rest].concat();
            let error = take(&continued[..], directory().path(), &Options::default()).expect_err("continued");
            assert!(matches!(error, Error::Compression { .. }), "{compression}: {error}");
        }
    }
    let error = take(&noise(5000)[..], directory().path(), &Options::default()).expect_err("noise");
    assert!(error.to_string().contains("neither a tar nor"), "{error}");
}

#[test]
fn what_is_not_expected_is_refused() {
    let tar = archive();
    for compression in [Compression::None, Compression::Gzip] {
        let blob = pack(compression, &tar);
        let size = blob.len() as u64;
        let refused =
            |options: Options| take(&blob[..], directory().path(), &options).expect_err("refused").to_string();
        let other = Digest::of(b"");
        assert!(refused(Options { blob: Some(other.clone()), ..Options::default() }).starts_with("blob has digest"));
        assert!(refused(Options { diff_id: Some(other), ..Options::default() }).starts_with("layer has digest"));
        assert!(refused(Options { size: Some(size - 1), ..Options::default() }).contains("longer than"));
        assert!(refused(Options { size: Some(size + 1), ..Options::default() }).contains("ends after"));
        assert!(refused(Options { size: Some(1 << 60), ..Options::default() }).contains("No space left"));
        let wide = |bytes: &[u8]| {
            let mut hasher = hull_oci::digest::Hasher::new(hull_oci::digest::Algorithm::Sha512);
            hasher.update(bytes);
            Some(hasher.finish())
        };
        let options = Options { blob: wide(&blob), diff_id: wide(&tar), ..Options::default() };
        let taken = take(&blob[..], directory().path(), &options).expect("both are SHA-512");
        assert_eq!((Some(taken.layer.blob), Some(taken.layer.diff_id)), (options.blob, options.diff_id));
        let options = Options { blob: wide(&blob), diff_id: Some(Digest::of(&tar)), ..Options::default() };
        take(&blob[..], directory().path(), &options).expect("one is SHA-512");
        let options = Options { blob: wide(b""), diff_id: Some(Digest::of(&tar)), ..Options::default() };
        assert!(refused(options).starts_with("blob has digest"));
    }
}

/// Fails after some bytes.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer")),
            length => Ok(length),
        }
    }
}

#[test]
fn errors_of_the_input_and_of_a_consumer_are_their_own() {
    let tar = archive();
    for compression in ALL {
        let blob = pack(compression, &tar);
        let error =
            take(Failing(&blob[..blob.len() / 2]), directory().path(), &Options::default()).expect_err("failing");
        assert_eq!(error.to_string(), "read layer: connection reset by peer", "{compression}");
        let place = directory();
        let refuse = |_: &mut ingest::Stream<'_>| Err::<(), _>(Error::archive(7, "no"));
        let handle = open(place.path());
        let error = ingest_into(&blob[..], handle.as_fd(), &Options::default(), &Limits::default(), refuse);
        assert!(matches!(error, Err(Error::Archive { offset: 7, .. })), "{compression}");
    }
    let place = directory();
    std::os::unix::fs::symlink("elsewhere", place.path().join("tar")).expect("a link");
    let error = take(&tar[..], place.path(), &Options::default()).expect_err("a link is in the way");
    assert!(matches!(error, Error::File { operation: "create", .. }), "{error}");
    assert!(!place.path().join("elsewhere").exists());
}

#[test]
fn bombs_do_not_fill_the_disk() {
    // 64 MiB of zeros in a few bytes, again and again.
    let zeros = vec![0; 64 << 20];
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Xz, Compression::Bzip2] {
        let once = pack(compression, &zeros);
        let limits = Limits { bytes: 100 << 20, ..Limits::default() };
        let bomb = once.repeat(3);
        let place = directory();
        let handle = open(place.path());
        let skip_all = |_: &mut ingest::Stream<'_>| Ok(());
        let error = ingest_into(&bomb[..], handle.as_fd(), &Options::default(), &limits, skip_all).expect_err("a bomb");
        assert!(matches!(error, Error::Limit { what: "bytes", .. }), "{compression}: {error}");
    }
    // Within the limit, but out of all proportion: zstd packs 128 KiB of one byte in four.
    let bomb = pack(Compression::Zstd, &zeros).repeat(17);
    let mut decoder = Decoder::new(Compression::Zstd, &bomb[..], &Limits::default()).expect("a decoder");
    let error = io::copy(&mut decoder, &mut io::sink()).expect_err("a bomb");
    assert!(error.to_string().contains("expands more than"), "{error}");
}

#[test]
fn encoders_always_write_the_same() {
    let content = noise(1 << 20);
    for (compression, level) in [(Compression::Gzip, None), (Compression::Gzip, Some(9)), (Compression::Zstd, None)] {
        let pack = || {
            let mut encoder = Encoder::new(compression, level, Vec::new()).expect("an encoder");
            encoder.write_all(&content).expect("written");
            encoder.finish().expect("finished")
        };
        let first = pack();
        assert_eq!(first, pack());
        let mut unpacked = Vec::new();
        let mut decoder = Decoder::new(compression, &first[..], &Limits::default()).expect("a decoder");
        decoder.read_to_end(&mut unpacked).expect("unpacked");
        assert!(unpacked == content);
    }
    let gzip = pack(Compression::Gzip, b"");
    assert_eq!(gzip[4..8], [0; 4], "no time");
    assert_eq!(gzip[3], 0, "no name");
    assert!(Encoder::new(Compression::Xz, None, Vec::new()).is_err());
    assert!(Encoder::new(Compression::Zstd, Some(23), Vec::new()).is_err());
}

#[test]
fn killed_in_the_middle_only_its_directory_is_there() {
    const PLACE: &str = "HULL_TEST_INGEST";
    if let Some(place) = std::env::var_os(PLACE) {
        // The process that is killed.
        let options = Options { keep_blob: true, ..Options::default() };
        take(io::stdin(), Path::new(&place), &options).expect("never ends");
        return;
    }
    let base = directory();
    let place = base.path().join("place");
    std::fs::create_dir(&place).expect("a directory");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "killed_in_the_middle_only_its_directory_is_there", "--nocapture"])
        .env(PLACE, &place)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("a process");
    let blob = pack(Compression::Gzip, &archive());
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(&blob[..blob.len() * 3 / 4]).expect("written");
    // It has taken what the pipe cannot hold, so its files exist.
    child.kill().expect("killed");
    child.wait().expect("gone");
    drop(input);
    let names = |path: &Path| {
        let names = path.read_dir().expect("names").map(|name| name.expect("a name").file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().expect("UTF-8")).collect();
        names.sort();
        names
    };
    assert_eq!(names(base.path()), ["place"]);
    assert_eq!(names(&place), ["blob", "tar"]);
    std::fs::remove_dir_all(&place).expect("removed");
    std::fs::create_dir(&place).expect("a directory");
    take(&blob[..], &place, &Options::default()).expect("again");
}

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

fn fd_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
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

#[test]
fn root_a_full_disk_is_one_clear_error() {
    if !root() {
        return;
    }
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).expect("tmpfs");
    rustix::mount::fsconfig_set_string(&context, "size", "1M").expect("a size");
    rustix::mount::fsconfig_create(&context).expect("a tmpfs");
    let disk =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).expect("a mount");
    let blob = pack(Compression::Gzip, &archive());
    let error = ingest(&blob[..], disk.as_fd(), &Options::default(), &Limits::default()).expect_err("no room");
    assert_eq!(error.to_string(), "write tar: No space left on device (os error 28)");
    // What could not be kept is removed by removing the directory.
    std::fs::remove_file(fd_path(&disk).join("tar")).expect("removed");
    assert_eq!(fd_path(&disk).read_dir().expect("names").count(), 0);
}
