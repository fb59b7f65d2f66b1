//! Streams become layers, or one clear error; what is mounted is what GNU tar extracts.

mod mounted;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hull_layer::compression::{Compression, Decoder, Encoder};
use hull_layer::erofs;
use hull_layer::ingest::{self, Indexed, Options, ingest, ingest_into};
use hull_layer::{Error, Limits};
use hull_oci::Digest;
use hull_testkit::tier::root;
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

fn fd_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
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

/// Puts the right checksum into every header, so that damage is not found by it.
fn mend(tar: &mut [u8]) {
    for header in tar.chunks_exact_mut(512) {
        if header[257..262] == *b"ustar" {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

#[test]
fn damaged_archives_are_refused_or_become_sound_indexes() {
    let mut builder = tar::Builder::new(Vec::new());
    for (number, name) in ["a/", "a/b", "a/.wh..wh..opq", "c", "a/c", ".wh.d", "a/e", "f"].into_iter().enumerate() {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        let content = vec![b'x'; if name.ends_with('/') || name.contains(".wh.") { 0 } else { number * 300 }];
        header.set_size(content.len() as u64);
        if name == "a/b" {
            let pax = [("SCHILY.xattr.user.a", &b"value"[..]), ("mtime", b"1.5"), ("uid", b"70000")];
            builder.append_pax_extensions(pax).expect("records");
        }
        builder.append_data(&mut header, name, &content[..]).expect("an entry");
    }
    let whole = builder.into_inner().expect("a tar");
    let (mut taken, mut refused) = (0, 0);
    let changes = noise(3 * 4000);
    for (round, change) in changes.chunks_exact(3).enumerate() {
        let mut tar = whole.clone();
        let block = round * 7 % (tar.len() / 512) * 512;
        let at = block + (round * 31 + usize::from(change[0])) % 512;
        tar[at] = match change[1] {
            0..=5 => tar[at] ^ (1 << (change[2] % 8)),
            6..=10 => b'0' + change[2] % 8,
            _ => change[2].wrapping_mul(17),
        };
        mend(&mut tar);
        let tree = match ingest::read_tree(&tar[..], &Limits::default(), true) {
            Ok(tree) => tree,
            Err(error) => {
                assert!(!error.to_string().contains('\n'), "{error}");
                refused += 1;
                continue;
            }
        };
        let index = match erofs::Index::new(&tree, tar.len() as u64) {
            Ok(index) => index,
            Err(error) => {
                assert!(matches!(error, Error::Index(_)), "{error}");
                refused += 1;
                continue;
            }
        };
        let mut bytes = Vec::new();
        index.write(&tar[..], &mut bytes).expect("an index");
        let read = erofs::read(&bytes).expect("a sound index");
        assert_eq!(read.tree.nodes.len() as u64, index.inodes());
        taken += 1;
    }
    assert!(taken > 300 && refused > 300, "{taken} {refused}");
}
