//! Copies as BuildKit does them: `testdata/copy.txt` is what docker 28.5 made of the same files.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use hull_layer::compression::{Compression, Encoder};
use hull_layer::tar::{Entry, EntryKind, Reader, Writer};

use super::context::Context;
use super::copy::{self, Settings, Source, Spool};
use super::error::Error;
use super::onto::{Attributes, Onto, Seen};
use super::select::select;
use super::tree::{FileTree, components, join};
use super::trees::MachineDirectory;
use super::write;
use crate::graph::{CopyAction, LocalSource};

/// The time of some files, 2020-01-02T03:04:05Z; 2019-01-01 of one.
const TIME: i64 = 1_577_934_245;
const LINK_TIME: i64 = 1_546_300_800;

#[derive(Debug)]
struct Temporary;

impl Spool for Temporary {
    fn file(&self) -> Result<fs::File, Error> {
        tempfile::tempfile().map_err(Error::io("create", "a temporary file"))
    }
}

fn touch(path: &Path, time: i64) {
    let time = rustix::fs::Timespec { tv_sec: time, tv_nsec: 500_000_000 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

fn archive(compression: Compression, directories: bool) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let mut add = |mut entry: Entry, owner: (u32, u32), content: &[u8]| {
        (entry.uid, entry.gid) = owner;
        writer.append(&entry, content).unwrap();
    };
    if directories {
        add(Entry::new("d", EntryKind::Directory, 0o710), (0, 0), b"");
    }
    add(Entry::new("d/c", EntryKind::File { size: 2, extents: Vec::new() }, 0o644), (7, 8), b"c\n");
    if directories {
        add(Entry::new("d/h", EntryKind::HardLink(b"d/c".into()), 0o644), (7, 8), b"");
        add(Entry::new("d/l", EntryKind::Symlink(b"c".into()), 0o777), (0, 0), b"");
    }
    let tar = writer.finish().unwrap();
    if compression == Compression::None {
        return tar;
    }
    let mut encoder = Encoder::new(compression, None, Vec::new()).unwrap();
    std::io::Write::write_all(&mut encoder, &tar).unwrap();
    encoder.finish().unwrap()
}

/// The context that the table was made with.
fn context() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    for path in ["a/sub", "a/empty", "b/deep/er", "lnk", "base/etc", "base/real/sub", "base/sticky", "base/isdir"] {
        fs::create_dir_all(root.join(path)).unwrap();
    }
    let files: [(&str, &str); 15] = [
        ("a/f1", "one\n"),
        ("a/sub/f2", "two\n"),
        ("b/deep/er/x.txt", "x\n"),
        ("b/deep/y.txt", "y\n"),
        ("b/z.md", "z\n"),
        ("exec", "hi\n"),
        ("capped", "hi\n"),
        ("t.txt", "t\n"),
        ("u.txt", "u\n"),
        ("m.md", "m\n"),
        ("nota.tar.gz", "junk\n"),
        ("ar.txz", "nothing\n"),
        ("base/real/file", "old\n"),
        ("passwd", "root:x:0:0::/:/bin/sh\nbob:x:1000:1001::/:/bin/sh\n"),
        ("group", "root:x:0:\nbob:x:1001:\nstaff:x:50:\n"),
    ];
    for (path, content) in files {
        fs::write(root.join(path), content).unwrap();
    }
    for name in ["passwd", "group"] {
        fs::copy(root.join(name), root.join("base/etc").join(name)).unwrap();
    }
    fs::write(root.join("ar.tar"), archive(Compression::None, true)).unwrap();
    fs::write(root.join("ar.tgz"), archive(Compression::Gzip, true)).unwrap();
    fs::write(root.join("named.txt"), archive(Compression::Gzip, true)).unwrap();
    fs::write(root.join("nodirs.tar"), archive(Compression::None, false)).unwrap();
    let links = [
        ("f1", "a/link"),
        ("a", "adir"),
        ("a/f1", "flink"),
        ("nowhere", "dangling"),
        ("/target", "lnk/abs"),
        ("../etc", "lnk/up"),
        ("real", "base/toreal"),
        ("/real/file", "base/tofile"),
        ("missing/dir", "base/dang"),
    ];
    for (target, path) in links {
        symlink(target, root.join(path)).unwrap();
    }
    fs::hard_link(root.join("a/f1"), root.join("a/hard")).unwrap();
    let modes = [
        ("a/f1", 0o640),
        ("a", 0o750),
        ("a/sub", 0o700),
        ("exec", 0o755),
        ("capped", 0o4755),
        ("base/sticky", 0o1777),
        ("base/real/sub", 0o711),
    ];
    for (path, mode) in modes {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    for path in ["t.txt", "a/f1", "a/sub", "a", "exec"] {
        touch(&root.join(path), TIME);
    }
    touch(&root.join("flink"), LINK_TIME);
    directory
}

/// The actions of a line of a Dockerfile, and its destination.
fn actions(line: &str) -> Vec<CopyAction> {
    let (name, rest) = line.split_once(' ').unwrap();
    let mut action = CopyAction {
        from: None,
        source: String::new(),
        content: None,
        destination: String::new(),
        chown: None,
        chmod: None,
        parents: false,
        exclude: Vec::new(),
        unpack: name == "ADD",
        name: None,
        allow_missing: false,
    };
    let mut words = Vec::new();
    for word in rest.split(' ') {
        match word.split_once('=') {
            Some(("--chown", value)) => action.chown = Some(value.to_owned()),
            Some(("--chmod", value)) => action.chmod = Some(value.to_owned()),
            Some(("--exclude", value)) => action.exclude.push(value.to_owned()),
            Some(("--unpack", value)) => action.unpack = value == "true",
            _ if word == "--parents" => action.parents = true,
            _ => words.push(word.to_owned()),
        }
    }
    action.destination = words.pop().unwrap();
    words.into_iter().map(|source| CopyAction { source, ..action.clone() }).collect()
}

/// The layer that a copy makes, one line for each entry.
fn layer(context: &Context, base: Option<&dyn FileTree>, line: &str) -> Result<Vec<String>, Error> {
    let mut onto = Onto::new(base)?;
    let mut trees: Vec<Option<&dyn FileTree>> = Vec::new();
    if let Some(path) = line.strip_prefix("WORKDIR ") {
        let path = onto.resolve(&[], &join(&components(path.as_bytes())))?;
        assert_ne!(onto.see(&path)?, Seen::Symlink(Vec::new()));
        onto.make_directories(&path, &Attributes { mode: 0o755, ..Attributes::default() })?;
    } else {
        let settings = Settings { time: 0, spool: &Temporary };
        for (number, action) in actions(line).iter().enumerate() {
            let mut selected = select(context, action)?;
            selected.read_contents(context, &|| false)?;
            let source = Source { tree: context, selected: Arc::new(selected) };
            copy::apply(&mut onto, number, action, Some(&source), base, &settings)?;
            trees.push(Some(context));
        }
    }
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    write::write(&onto.root, &trees, &mut writer, &|| false)?;
    writer.finish().unwrap();
    let mut reader = Reader::new(&bytes[..], hull_layer::Limits::default());
    let mut lines = Vec::new();
    while let Some(entry) = reader.next()? {
        let (kind, target) = match &entry.kind {
            EntryKind::Directory => ("d", None),
            EntryKind::File { .. } => ("-", None),
            EntryKind::Symlink(target) => ("l", Some(target)),
            EntryKind::HardLink(target) => ("h", Some(target)),
            other => panic!("{other:?}"),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let target = target.map(|target| format!(" -> {}", text(target))).unwrap_or_default();
        let time = match entry.mtime {
            TIME => " @2020",
            LINK_TIME => " @2019",
            _ => "",
        };
        let (mode, uid, gid) = (entry.mode, entry.uid, entry.gid);
        lines.push(format!("{kind} {mode:04o} {uid}:{gid} {}{target}{time}", text(&entry.path)));
    }
    Ok(lines)
}

fn open(directory: &Path, ignore: &[&str]) -> Context {
    let ignore = ignore.iter().map(|one| (*one).to_owned()).collect();
    Context::open(&LocalSource { name: "context".to_owned(), directory: directory.to_owned(), ignore }, None).unwrap()
}

#[test]
fn copies_are_buildkit_s() {
    let directory = context();
    let context = open(directory.path(), &[]);
    let base = MachineDirectory::open(&directory.path().join("base"), "base").unwrap();
    let mut wrong = String::new();
    for case in include_str!("testdata/copy.txt").split("=== ").skip(1) {
        let mut lines = case.lines();
        let name = lines.next().unwrap();
        let line = lines.next().unwrap();
        let base = name.ends_with(" (onto base)").then_some(&base as &dyn FileTree);
        let mut expected: Vec<String> = lines.map(str::to_owned).collect();
        // Of a directory that was there, the owner is whose the test is.
        let own = format!(" {}:{} ", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let mut found = layer(&context, base, line).unwrap_or_else(|error| vec![format!("! {error}")]);
        for line in expected.iter_mut().chain(&mut found) {
            *line = line.replace(&own, " 0:0 ");
        }
        if found != expected {
            wrong += &format!("{name}: {line}\n  expected {expected:#?}\n  found {found:#?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
