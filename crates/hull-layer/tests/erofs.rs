//! Indexes say what their trees say: read back by our reader, and mounted by the kernel.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hull_layer::Error;
use hull_layer::erofs::{self, Index, MountError, MountOptions};
use hull_layer::tree::{Extent, Kind, Node, NodeId, Tree};
use hull_testkit::tier::{root, skip};
use proptest::prelude::*;

type Xattrs = Vec<(Box<[u8]>, Box<[u8]>)>;

fn node(kind: Kind) -> Node {
    Node { kind, mode: 0o644, uid: 0, gid: 0, mtime: 1_700_000_000, mtime_nsec: 0, xattrs: Vec::new(), links: 1 }
}

fn directory() -> Kind {
    Kind::Directory { children: BTreeMap::new(), opaque: false, implied: false }
}

fn file(size: u64, extents: &[(u64, u64, u64)]) -> Kind {
    let extents = extents.iter().map(|&(offset, tar, length)| Extent { offset, tar, length }).collect();
    Kind::File { size, extents }
}

/// A tree that is put together by hand.
struct Build(Tree);

impl Build {
    fn new() -> Self {
        Self(Tree { nodes: vec![Node { mode: 0o755, links: 2, ..node(directory()) }] })
    }

    fn name(&mut self, parent: NodeId, name: &[u8], child: NodeId) {
        match &mut self.0.nodes[parent as usize].kind {
            Kind::Directory { children, .. } => assert!(children.insert(name.into(), child).is_none()),
            other => panic!("{other:?}"),
        }
    }

    fn add(&mut self, parent: NodeId, name: &str, node: Node) -> NodeId {
        let id = NodeId::try_from(self.0.nodes.len()).expect("few nodes");
        if matches!(node.kind, Kind::Directory { .. }) {
            self.0.nodes[parent as usize].links += 1;
        }
        self.0.nodes.push(node);
        self.name(parent, name.as_bytes(), id);
        id
    }
}

fn write(tree: &Tree, tar: &[u8]) -> Result<Vec<u8>, Error> {
    let index = Index::new(tree, tar.len() as u64)?;
    let mut bytes = Vec::new();
    index.write(tar, &mut bytes)?;
    assert_eq!(bytes.len() as u64, index.size());
    Ok(bytes)
}

/// The content of a file by its extents.
fn content(node: &Node, tar: &[u8], copied: Option<(&[Extent], &[u8])>) -> Vec<u8> {
    let Kind::File { size, extents } = &node.kind else { return Vec::new() };
    let mut content = vec![0; *size as usize];
    let mut put = |extents: &[Extent], from: &[u8]| {
        for extent in extents {
            let range = extent.tar as usize..(extent.tar + extent.length) as usize;
            content[extent.offset as usize..][..extent.length as usize].copy_from_slice(&from[range]);
        }
    };
    put(extents, tar);
    if let Some((extents, index)) = copied {
        put(extents, index);
    }
    content
}

/// Everything a tree says, by path; hard links by their first path.
fn listing(tree: &Tree, content: &dyn Fn(NodeId) -> Vec<u8>) -> Vec<String> {
    let (mut lines, mut first, mut waiting) = (Vec::new(), BTreeMap::new(), vec![(String::new(), 0)]);
    while let Some((path, id)) = waiting.pop() {
        let node = &tree.nodes[id as usize];
        let first = first.entry(id).or_insert_with(|| path.clone());
        let kind = match &node.kind {
            Kind::Directory { children, opaque, .. } => {
                let names = children.iter().rev();
                waiting.extend(names.map(|(name, id)| (format!("{path}/{}", name.escape_ascii()), *id)));
                format!("directory {opaque}")
            }
            Kind::File { size, .. } => format!("file {size} {:?}", content(id)),
            other => format!("{other:?}"),
        };
        let Node { mode, uid, gid, mtime, mtime_nsec, xattrs, links, .. } = node;
        lines.push(format!("{path} {first} {kind} {mode} {uid} {gid} {mtime} {mtime_nsec} {xattrs:?} {links}"));
    }
    lines
}

fn assert_same(tree: &Tree, tar: &[u8]) -> Vec<u8> {
    let index = write(tree, tar).expect("an index");
    let read = erofs::read(&index).expect("a valid index");
    let copied = |id: NodeId| read.copied.get(&id).map(|extents| (&extents[..], &index[..]));
    let found = listing(&read.tree, &|id| content(&read.tree.nodes[id as usize], tar, copied(id)));
    let expected = listing(tree, &|id| content(&tree.nodes[id as usize], tar, None));
    assert_eq!(found, expected);
    assert_eq!(read.tar_blocks, (tar.len() as u64).div_ceil(512));
    index
}

fn xattrs(pairs: &[(&str, &[u8])]) -> Xattrs {
    pairs.iter().map(|(name, value)| (name.as_bytes().into(), (*value).into())).collect()
}

/// One of everything; `tar` must have 64 KiB.
fn everything() -> Tree {
    let mut build = Build::new();
    build.0.nodes[0].mode = 0o751;
    build.0.nodes[0].uid = 7;
    let sub = build.add(0, "sub", Node { mode: 0o1777, links: 2, ..node(directory()) });
    let opaque = Kind::Directory { children: BTreeMap::new(), opaque: true, implied: false };
    let opaque = build.add(sub, "opaque", Node { links: 2, mode: 0o700, ..node(opaque) });
    build.add(opaque, "gone", Node { mode: 0, ..node(Kind::Whiteout) });
    build.add(0, "empty", node(file(0, &[])));
    let linked = build.add(0, "a", Node { links: 3, mode: 0o4755, ..node(file(1000, &[(0, 512, 1000)])) });
    build.name(sub, b"b", linked);
    build.name(opaque, b"c", linked);
    build.add(0, "-sorts-before-dot", node(file(512, &[(0, 2048, 512)])));
    build.add(0, "big-owner", Node { uid: 70_000, gid: 80_000, ..node(file(10, &[(0, 4096, 10)])) });
    build.add(0, "old", Node { mtime: -86_400, mtime_nsec: 123_456_789, ..node(file(1, &[(0, 512, 1)])) });
    build.add(0, "link", Node { mode: 0o777, ..node(Kind::Symlink((*b"/sub/../a").into())) });
    build.add(0, "long-link", node(Kind::Symlink(vec![b'x'; 4000].into())));
    build.add(0, "block-link", node(Kind::Symlink(vec![b'y'; 512].into())));
    build.add(0, "null", Node { mode: 0o666, ..node(Kind::Character(1, 3)) });
    build.add(0, "disk", node(Kind::Block(4095, 1_048_575)));
    build.add(0, "pipe", node(Kind::Fifo));
    build.add(0, "hole", node(file(1 << 20, &[])));
    build.add(0, "sparse", node(file(60_000, &[(4096, 1024, 4096), (40_960, 5120, 512), (59_904, 8192, 96)])));
    build.add(0, "odd", node(file(9001, &[(1, 700, 2000), (2500, 3001, 3), (2600, 1, 6000)])));
    let many: Vec<(String, Vec<u8>)> = (0..40).map(|n| (format!("user.n{n:02}"), vec![n; n as usize * 20])).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    build.add(sub, "many", Node { xattrs: xattrs(&many), ..node(file(5, &[(0, 512, 5)])) });
    for n in 0..3 {
        let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let xattrs = xattrs(&[("security.capability", capability), ("user.who", b"hull")]);
        build.add(sub, &format!("ping{n}"), Node { xattrs, ..node(file(100, &[(0, 512, 100)])) });
    }
    for n in 0..300 {
        build.add(
            sub,
            &format!("name-{n:0width$}", width = 1 + n % 200),
            node(file(1, &[(0, 512 * n as u64 % 8192, 1)])),
        );
    }
    build.0
}

fn tar_of(blocks: usize) -> Vec<u8> {
    (0..blocks * 512).map(|n| (n / 512 * 7 + n * 31) as u8 | 1).collect()
}

#[test]
fn every_kind_of_file_is_read_back() {
    let (tree, tar) = (everything(), tar_of(128));
    let index = assert_same(&tree, &tar);
    assert_eq!(index, write(&tree, &tar).expect("again"), "the same bytes every time");
    // The numbers of nodes say nothing.
    let mut renumbered = tree.clone();
    let last = renumbered.nodes.len() - 1;
    renumbered.nodes.swap(5, last);
    for node in &mut renumbered.nodes {
        let Kind::Directory { children, .. } = &mut node.kind else { continue };
        for child in children.values_mut() {
            *child = match *child as usize {
                5 => last as NodeId,
                id if id == last => 5,
                id => id as NodeId,
            };
        }
    }
    assert_eq!(index, write(&renumbered, &tar).expect("an index"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |change: &dyn Fn(&mut Build)| {
        let mut build = Build::new();
        change(&mut build);
        let error = write(&build.0, &[0; 1024]).expect_err("refused");
        assert!(matches!(error, Error::Index(_)), "{error}");
        error.to_string()
    };
    refused(&|build| {
        build.add(0, "d", node(Kind::Character(4096, 0)));
    });
    refused(&|build| {
        build.add(0, "d", node(Kind::Block(0, 1 << 20)));
    });
    refused(&|build| {
        build.add(0, "f", node(file(600, &[(0, 512, 513)])));
    });
    refused(&|build| {
        build.add(0, "f", node(file(u64::MAX, &[])));
    });
    refused(&|build| {
        build.add(0, "f", node(file((1 << 60) + 1, &[(5, 3, 7)])));
    });
    refused(&|build| {
        build.add(0, "..", node(Kind::Fifo));
    });
    refused(&|build| {
        build.add(0, "a/b", node(Kind::Fifo));
    });
    refused(&|build| {
        build.add(0, &"n".repeat(256), node(Kind::Fifo));
    });
    let value = vec![0; 65_536];
    refused(&|build| {
        build.add(0, "x", Node { xattrs: xattrs(&[("user.x", &value)]), ..node(Kind::Fifo) });
    });
    let directories = refused(&|build| {
        let id = build.add(0, "d", node(directory()));
        build.name(0, b"e", id);
    });
    assert!(directories.contains("two names"), "{directories}");
    // Many files, each with a piece far away from its beginning: small in the archive, large in the index.
    let scattered = refused(&|build| {
        for n in 0..400 {
            build.add(0, &n.to_string(), node(file(1 << 40, &[(1, 3, 1), (1 << 39, 7, 1)])));
        }
    });
    assert!(scattered.contains("scattered"), "{scattered}");
}

#[test]
fn a_damaged_index_is_refused_or_read_but_never_followed_outside() {
    let (tree, tar) = (everything(), tar_of(128));
    let index = write(&tree, &tar).expect("an index");
    for at in (1024..index.len()).step_by(37) {
        let mut damaged = index.clone();
        damaged[at] ^= 0x55;
        match erofs::read(&damaged) {
            Err(Error::Index(_)) => {}
            Err(other) => panic!("{other}"),
            Ok(_) => assert!(!(1024..1536).contains(&at), "the superblock has a checksum: {at}"),
        }
    }
    for length in (0..index.len()).step_by(512) {
        assert!(erofs::read(&index[..length]).is_err(), "{length}");
    }
}

/// Trees as archives have them, with any attributes and any pieces of content.
fn trees() -> impl Strategy<Value = Tree> {
    let piece = (0u64..3000, 1u64..3000, 0u64..4000);
    let content = prop::collection::vec(piece, 0..5).prop_map(|pieces| {
        let mut offset = 0;
        let mut extents = Vec::new();
        for (hole, length, tar) in pieces {
            let tar = if hole % 2 == 0 { tar / 512 * 512 } else { tar };
            offset += if hole % 3 == 0 { hole / 512 * 512 } else { hole };
            extents.push(Extent { offset, tar, length });
            offset += length;
        }
        Kind::File { size: offset + extents.len() as u64 * 17, extents }
    });
    let kind = prop_oneof![
        4 => content,
        4 => any::<bool>().prop_map(|opaque| Kind::Directory { children: BTreeMap::new(), opaque, implied: false }),
        2 => prop::collection::vec(1u8.., 1..1000).prop_map(|text| Kind::Symlink(text.into())),
        1 => (1u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| Kind::Character(major, minor)),
        1 => (0u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| Kind::Block(major, minor)),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Whiteout),
    ];
    let value = prop::collection::vec(any::<u8>(), 0..80);
    let name = prop_oneof![Just("user.a"), Just("user.bb"), Just("security.capability"), Just("trusted.t")];
    let xattrs = prop::collection::btree_map(name, value, 0..3);
    let xattrs = xattrs.prop_map(|map| {
        map.into_iter().map(|(name, value)| (name.as_bytes().into(), value.into())).collect::<Xattrs>()
    });
    let owner = prop_oneof![Just(0), 0u32..100_000, any::<u32>()];
    let time = prop_oneof![Just((5, 0)), (any::<i64>(), 0u32..1_000_000_000)];
    let attributes = (0u16..0o10000, owner.clone(), owner, time, xattrs, 1u32..70_000);
    let node = (kind, attributes).prop_map(|(kind, (mode, uid, gid, (mtime, mtime_nsec), xattrs, links))| Node {
        kind,
        mode,
        uid,
        gid,
        mtime,
        mtime_nsec,
        xattrs,
        links,
    });
    let name =
        prop::collection::vec(any::<u8>().prop_map(|byte| if byte == 0 || byte == b'/' { b'.' } else { byte }), 3..40);
    prop::collection::vec((node, name, any::<prop::sample::Index>(), any::<bool>()), 0..60).prop_map(|nodes| {
        let mut build = Build::new();
        let mut directories = vec![0];
        for (node, name, parent, again) in nodes {
            let parent = *parent.get(&directories);
            let is_directory = matches!(node.kind, Kind::Directory { .. });
            let id = build.0.nodes.len() as NodeId;
            build.0.nodes.push(node);
            let Kind::Directory { children, .. } = &mut build.0.nodes[parent as usize].kind else { unreachable!() };
            children.insert(name.clone().into(), id);
            if is_directory {
                directories.push(id);
            } else if again {
                let Kind::Directory { children, .. } = &mut build.0.nodes[0].kind else { unreachable!() };
                children.entry(name.into()).or_insert(id);
            }
        }
        build.0
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn any_tree_is_read_back(tree in trees()) {
        assert_same(&tree, &tar_of(32));
    }
}

/// A directory where EROFS can be mounted from files, or a printed reason why there is none.
fn store() -> Option<tempfile::TempDir> {
    if !root() {
        return None;
    }
    let store = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (index, tar) = files(store.path(), &Build::new().0, &[0; 1024]);
    match erofs::mount(index.as_fd(), tar.as_fd(), MountOptions::default()) {
        Ok(_) => Some(store),
        Err(error @ (MountError::NoErofs | MountError::NotPermitted(_) | MountError::NotFromFiles)) => {
            skip("EROFS mounted from files", &error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn files(store: &Path, tree: &Tree, tar: &[u8]) -> (File, File) {
    std::fs::write(store.join("index"), write(tree, tar).expect("an index")).expect("write index");
    std::fs::write(store.join("tar"), tar).expect("write tar");
    (File::open(store.join("index")).expect("index"), File::open(store.join("tar")).expect("tar"))
}

fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut names[..]).expect("names of attributes");
    let mut all = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8(name.to_vec()).expect("UTF-8");
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(path, &*name, &mut value[..]).expect("an attribute");
        value.truncate(length);
        all.push((name, value));
    }
    all.sort();
    all
}

#[test]
fn root_the_kernel_sees_the_tree() {
    let Some(store) = store() else { return };
    let (tree, tar) = (everything(), tar_of(128));
    let (index, data) = files(store.path(), &tree, &tar);
    for direct_io in [false, true] {
        let mount = erofs::mount(index.as_fd(), data.as_fd(), MountOptions { direct_io }).expect("a mount");
        let base = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        let mut waiting = vec![(base.join("."), 0)];
        let mut inodes: BTreeMap<u64, NodeId> = BTreeMap::new();
        while let Some((path, id)) = waiting.pop() {
            let node = &tree.nodes[id as usize];
            let stat = path.symlink_metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let found = (stat.mode() & 0o7777, stat.uid(), stat.gid(), stat.nlink(), stat.mtime(), stat.mtime_nsec());
            let mtime_nsec = i64::from(node.mtime_nsec);
            let expected = (node.mode.into(), node.uid, node.gid, node.links.into(), node.mtime, mtime_nsec);
            assert_eq!(found, expected, "{}", path.display());
            assert_eq!(*inodes.entry(stat.ino()).or_insert(id), id, "one inode per node: {}", path.display());
            let mut expected: Vec<(String, Vec<u8>)> =
                node.xattrs.iter().map(|(n, v)| (String::from_utf8_lossy(n).into_owned(), v.to_vec())).collect();
            let (major, minor) = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
            match &node.kind {
                Kind::Directory { children, opaque, .. } => {
                    assert!(stat.is_dir());
                    if *opaque {
                        expected.push(("trusted.overlay.opaque".into(), b"y".to_vec()));
                    }
                    let names = std::fs::read_dir(&path).expect("a directory");
                    let names = names.map(|entry| entry.expect("an entry").file_name());
                    let mut names: Vec<Vec<u8>> = names.map(std::os::unix::ffi::OsStringExt::into_vec).collect();
                    names.sort();
                    assert!(names.iter().eq(children.keys().map(|name| name.to_vec()).collect::<Vec<_>>().iter()));
                    for (name, child) in children {
                        waiting.push((path.join(std::str::from_utf8(name).expect("UTF-8")), *child));
                    }
                }
                Kind::File { size, .. } => {
                    assert_eq!(stat.len(), *size);
                    let mut read = Vec::new();
                    File::open(&path).expect("a file").read_to_end(&mut read).expect("content");
                    assert!(read == content(node, &tar, None), "content of {} {direct_io}", path.display());
                }
                Kind::Symlink(text) => {
                    let target = std::fs::read_link(&path).expect("a link");
                    assert_eq!(target.as_os_str().as_encoded_bytes(), &**text);
                }
                Kind::Character(..) | Kind::Whiteout | Kind::Block(..) => {
                    let expected = match node.kind {
                        Kind::Character(major, minor) | Kind::Block(major, minor) => (major, minor),
                        _ => (0, 0),
                    };
                    assert_eq!((major, minor), expected, "{}", path.display());
                    assert_eq!(stat.mode() & 0o170_000 == 0o060_000, matches!(node.kind, Kind::Block(..)));
                }
                Kind::Fifo => assert_eq!(stat.mode() & 0o170_000, 0o010_000),
            }
            expected.sort();
            assert_eq!(attributes(&path), expected, "{}", path.display());
        }
        assert_eq!(inodes.len(), tree.nodes.len());
        assert!(!path_in_mount_table(store.path()), "the mount is in no mount table");
    }
}

fn path_in_mount_table(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    table.contains(path.to_str().expect("UTF-8"))
}

#[test]
fn root_why_a_mount_fails_is_told() {
    let Some(store) = store() else { return };
    let (tree, tar) = (everything(), tar_of(128));
    let mut bytes = write(&tree, &tar).expect("an index");
    bytes[1500] ^= 1;
    std::fs::write(store.path().join("damaged"), &bytes).expect("write");
    let (_, data) = files(store.path(), &tree, &tar);
    let damaged = File::open(store.path().join("damaged")).expect("file");
    let error = erofs::mount(damaged.as_fd(), data.as_fd(), MountOptions::default()).expect_err("damaged");
    assert!(matches!(error, MountError::Damaged(_)), "{error}");
    let memory = rustix::fs::memfd_create("index", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    let memory = File::from(memory);
    std::io::Write::write_all(&mut &memory, &write(&tree, &tar).expect("an index")).expect("write");
    let error = erofs::mount(memory.as_fd(), data.as_fd(), MountOptions::default()).expect_err("a tmpfs");
    assert!(matches!(error, MountError::NotFromFiles), "{error}");
}

#[test]
fn root_very_many_names_in_one_directory() {
    let Some(store) = store() else { return };
    // `HULL_TEST_LOOPS=1000000` makes it a million.
    let names = hull_testkit::loops(100_000);
    let mut build = Build::new();
    let big = build.add(0, "big", Node { links: 2, ..node(directory()) });
    for n in 0..names {
        build.add(big, &format!("{:08x}", n.wrapping_mul(2_654_435_761)), node(file(0, &[])));
    }
    let (index, data) = files(store.path(), &build.0, &[0; 1024]);
    let mount = erofs::mount(index.as_fd(), data.as_fd(), MountOptions::default()).expect("a mount");
    let base = format!("/proc/self/fd/{}/big", mount.as_raw_fd());
    assert_eq!(std::fs::read_dir(&base).expect("a directory").count(), names as usize);
    for n in (0..names).step_by(9973) {
        let name = format!("{base}/{:08x}", n.wrapping_mul(2_654_435_761));
        assert_eq!(std::fs::symlink_metadata(&name).expect("a name").len(), 0);
    }
    assert!(std::fs::symlink_metadata(format!("{base}/none")).is_err());
}

#[test]
fn root_far_ends_of_huge_files_are_read() {
    let Some(store) = store() else { return };
    let mut build = Build::new();
    let tar = tar_of(128);
    // One chunk of the largest size, and pieces that lie askew at the end of a terabyte.
    let end = 1u64 << 40;
    build.add(0, "hole", node(file(end, &[])));
    build.add(0, "end", node(file(end, &[(0, 512, 4096), (end - 1000, 5120, 1000)])));
    build.add(0, "beyond", node(file(5 * end, &[(5 * end - 512, 9216, 512)])));
    let (index, data) = files(store.path(), &build.0, &tar);
    let mount = erofs::mount(index.as_fd(), data.as_fd(), MountOptions::default()).expect("a mount");
    let read = |name: &str, at: u64, length: usize| {
        let file = File::open(format!("/proc/self/fd/{}/{name}", mount.as_raw_fd())).expect("a file");
        let mut buffer = vec![1; length];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut buffer, at).expect("content");
        buffer
    };
    assert_eq!(read("hole", end - 5000, 5000), [0; 5000]);
    assert_eq!(read("end", 0, 4096), tar[512..4608]);
    assert_eq!(read("end", 4096, 4096), [0; 4096]);
    assert_eq!(read("end", end - 3000, 2000), [0; 2000]);
    assert_eq!(read("end", end - 1000, 1000), tar[5120..6120]);
    assert_eq!(read("beyond", 3 * end, 512), [0; 512]);
    assert_eq!(read("beyond", 5 * end - 512, 512), tar[9216..9728]);
}
