//! Copies as BuildKit does them: `testdata/copy.txt` is what docker 28.5 made of the same files.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use hull_image::snapshot::merged::Merged;
use hull_layer::compression::{Compression, Encoder};
use hull_layer::tar::{Entry, EntryKind, Reader, Writer};

use super::context::Context;
use super::copy::{self, Source};
use super::error::Error;
use super::onto::{Attributes, Onto, Seen};
use super::select::select;
use super::settings::{Settings, Spool};
use super::tree::{FileTree, components, join};
use super::trees::{LayerTree, MachineDirectory};
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
fn layer(context: &dyn FileTree, base: Option<&dyn FileTree>, line: &str) -> Result<Vec<String>, Error> {
    let bytes = tar(context, base, line)?;
    let mut reader = Reader::new(&bytes[..], hull_layer::Limits::default());
    let mut lines = Vec::new();
    while let Some(entry) = reader.next()? {
        lines.push(shown(&entry));
    }
    Ok(lines)
}

/// The layer that a copy makes.
fn tar(context: &dyn FileTree, base: Option<&dyn FileTree>, line: &str) -> Result<Vec<u8>, Error> {
    let mut onto = Onto::new(base)?;
    let mut trees: Vec<Option<&dyn FileTree>> = Vec::new();
    if let Some(path) = line.strip_prefix("WORKDIR ") {
        let path = onto.resolve(&[], &join(&components(path.as_bytes())))?;
        assert_ne!(onto.see(&path)?, Seen::Symlink(Vec::new()));
        onto.make_directories(&path, &Attributes { mode: 0o755, ..Attributes::default() })?;
    } else {
        let settings = Settings { time: 0, fixed: false, spool: &Temporary };
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
    Ok(bytes)
}

/// One line for an entry.
fn shown(entry: &Entry) -> String {
    let (kind, target) = match &entry.kind {
        EntryKind::Directory => ("d", None),
        EntryKind::File { .. } => ("-", None),
        EntryKind::Symlink(target) => ("l", Some(target)),
        EntryKind::HardLink(target) => ("h", Some(target)),
        EntryKind::Fifo => ("p", None),
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
    format!("{kind} {mode:04o} {uid}:{gid} {}{target}{time}", text(&entry.path))
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

/// What docker 28.5 did with `.dockerignore` of `ign`, `!ign/keep`, `secret`.
#[test]
fn what_is_ignored_does_not_exist() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    for path in ["ign/keep", "ign/drop"] {
        fs::create_dir_all(root.join(path)).unwrap();
    }
    for path in ["reg", "ign/keep/a", "ign/drop/b", "ign/c", "secret"] {
        fs::write(root.join(path), "x").unwrap();
    }
    symlink("../../../../../../etc", root.join("up")).unwrap();
    symlink("ign/c", root.join("goodlink")).unwrap();
    symlink("secret", root.join("badlink")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), fifo, rustix::fs::Mode::from_raw_mode(0o644), 0).unwrap();
    let _socket = UnixListener::bind(root.join("sock")).unwrap();
    fs::set_permissions(root.join("sock"), fs::Permissions::from_mode(0o755)).unwrap();
    let context = open(root, &["ign", "!ign/keep", "secret"]);
    let made = |line: &str| layer(&context, None, line).map_err(|error| error.to_string());
    let all = [
        "d 0755 0:0 y",
        "l 0777 0:0 y/badlink -> secret",
        "p 0644 0:0 y/fifo",
        "l 0777 0:0 y/goodlink -> ign/c",
        "d 0755 0:0 y/ign",
        "d 0755 0:0 y/ign/keep",
        "- 0644 0:0 y/ign/keep/a",
        "- 0644 0:0 y/reg",
        "- 0755 0:0 y/sock",
        "l 0777 0:0 y/up -> ../../../../../../etc",
    ];
    assert_eq!(made("COPY . /y").unwrap(), all);
    assert_eq!(made("COPY ign /x").unwrap(), ["d 0755 0:0 x", "d 0755 0:0 x/keep", "- 0644 0:0 x/keep/a"]);
    assert_eq!(made("COPY s* /x/").unwrap(), ["d 0755 0:0 x", "- 0755 0:0 x/sock"]);
    assert_eq!(made("COPY fifo /x").unwrap(), ["p 0644 0:0 x"]);
    assert!(made("COPY --parents ign/c /x").unwrap_err().contains("\"/ign/c\": not found"));
    assert_eq!(made("COPY --parents ign /x/").unwrap().len(), 4);
    for path in ["secret", "ign/drop", "goodlink", "badlink", "up/passwd", "ign/c"] {
        let error = made(&format!("COPY {path} /x")).unwrap_err();
        assert!(error.contains(&format!("\"/{path}\": not found")), "{error}");
    }
    assert!(made("COPY secret /x").unwrap_err().ends_with("(excluded by .dockerignore)"));
}

#[test]
fn parents_are_made_below_the_destination() {
    let directory = context();
    let context = open(directory.path(), &[]);
    let made = |line: &str| layer(&context, None, line).map_err(|error| error.to_string());
    let deep = ["d 0755 0:0 p", "d 0755 0:0 p/b", "d 0755 0:0 p/b/deep", "d 0755 0:0 p/b/deep/er"];
    let mut expected = deep.to_vec();
    expected.push("- 0644 0:0 p/b/deep/er/x.txt");
    assert_eq!(made("COPY --parents b/deep/er/x.txt /p/").unwrap(), expected);
    assert_eq!(made("COPY --parents ./b/deep/er/*.txt /p/").unwrap(), expected);
    let pivot = ["d 0755 0:0 p", "d 0755 0:0 p/er", "- 0644 0:0 p/er/x.txt"];
    assert_eq!(made("COPY --parents b/deep/./er/x.txt /p/").unwrap(), pivot);
    assert_eq!(made("COPY --parents b/*/./er/* /p/").unwrap(), pivot);
    let mut all = expected.clone();
    all.push("- 0644 0:0 p/b/deep/y.txt");
    assert_eq!(made("COPY --parents b/**/*.txt /p/").unwrap(), all);
    let directory = made("COPY --parents --chown=3:4 a/sub /p/").unwrap();
    assert_eq!(directory[1..], ["d 0750 3:4 p/a @2020", "d 0700 3:4 p/a/sub @2020", "- 0644 3:4 p/a/sub/f2"]);
    assert!(made("COPY --parents a/nope /p/").unwrap_err().contains("\"/a/nope\": not found"));
    assert_eq!(made("COPY --parents a/*.nope /p/").unwrap(), ["d 0755 0:0 p"]);
}

#[test]
fn stages_keep_their_owners() {
    let directory = context();
    let lower = OwnedFd::from(fs::File::open(directory.path()).unwrap());
    let stage = LayerTree::from_merged(Merged::new(vec![Arc::new(lower)]), "stage");
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let found = layer(&stage, None, "COPY a/f1 /x/y").unwrap();
    assert_eq!(found, ["d 0755 0:0 x".to_owned(), format!("- 0640 {uid}:{gid} x/y @2020")]);
    let error = layer(&stage, None, "COPY lnk/abs /x").unwrap_err().to_string();
    assert!(error.contains("\"/lnk/abs\": not found"), "{error}");
    // The same is taken of a context and of a stage with root's files.
    let context = open(directory.path(), &[]);
    let digest = |tree: &dyn FileTree, owners| {
        let mut selected = select(tree, &actions("COPY a /x")[0]).unwrap();
        selected.read_contents(tree, &|| false).unwrap();
        selected.digest(owners)
    };
    assert_eq!(digest(&stage, false), digest(&context, false));
    let before = digest(&context, false);
    touch(&directory.path().join("a/f1"), 5);
    assert_eq!(digest(&context, false), before, "times do not count");
    fs::set_permissions(directory.path().join("a/f1"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_ne!(digest(&context, false), before, "modes do");
    fs::set_permissions(directory.path().join("a/f1"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(digest(&context, false), before);
    fs::write(directory.path().join("a/f1"), "onE\n").unwrap();
    assert_ne!(digest(&context, false), before, "contents do");
}

/// A capability is what a stage's file is for; a context's is the machine's business.
#[test]
fn root_capabilities_come_from_stages_alone() {
    let directory = context();
    // `cap_net_raw=ep`, as `setcap` writes it.
    let value = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(directory.path().join("exec"), "security.capability", &value, flags).is_err() {
        println!("SKIPPED: capabilities of files cannot be set here");
        return;
    }
    let lower = OwnedFd::from(fs::File::open(directory.path()).unwrap());
    let stage = LayerTree::from_merged(Merged::new(vec![Arc::new(lower)]), "stage");
    let context = open(directory.path(), &[]);
    let capability = |tree: &dyn FileTree| {
        let bytes = tar(tree, None, "COPY exec /x").unwrap();
        let entry = Reader::new(&bytes[..], hull_layer::Limits::default()).next().unwrap().unwrap();
        entry.xattrs.first().map(|(name, value)| (name.to_vec(), value.to_vec()))
    };
    assert_eq!(capability(&stage), Some((b"security.capability".to_vec(), value.to_vec())));
    assert_eq!(capability(&context), None);
}

#[test]
fn a_file_that_changes_fails_the_copy() {
    let directory = context();
    let context = open(directory.path(), &[]);
    let action = &actions("COPY t.txt /x")[0];
    let selected = Arc::new(select(&context, action).unwrap());
    fs::write(directory.path().join("t.txt"), "longer than before").unwrap();
    let mut onto = Onto::new(None).unwrap();
    let settings = Settings { time: 0, fixed: false, spool: &Temporary };
    let source = Source { tree: &context, selected };
    copy::apply(&mut onto, 0, action, Some(&source), None, &settings).unwrap();
    let mut writer = Writer::new(Vec::new());
    let error = write::write(&onto.root, &[Some(&context)], &mut writer, &|| false).unwrap_err();
    assert!(matches!(error, Error::Changed(_)), "{error}");
}

#[test]
fn names_that_layers_cannot_have_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(".wh.passwd"), "").unwrap();
    let context = open(directory.path(), &[]);
    let error = layer(&context, None, "COPY . /").unwrap_err().to_string();
    assert!(error.contains(".wh."), "{error}");
}

mod nothing_leads_out {
    use proptest::prelude::*;

    use super::*;

    /// A name or a target of a link.
    fn path() -> impl Strategy<Value = String> {
        let name = prop_oneof!["[abc]", Just("..".to_owned()), Just(".".to_owned())];
        (any::<bool>(), proptest::collection::vec(name, 1..5))
            .prop_map(|(rooted, names)| format!("{}{}", if rooted { "/" } else { "" }, names.join("/")))
    }

    /// Directories, files and links at random places below `root`.
    fn fill(root: &Path, names: &[(String, Option<String>)], content: &str) {
        for (place, target) in names {
            let mut place = root.join(join_names(place));
            if place == root {
                place = root.join("a");
            }
            // Whatever cannot be made is left out.
            let parent = place.parent().unwrap();
            let inside = parent
                .ancestors()
                .all(|one| one.symlink_metadata().is_ok_and(|meta| !meta.is_symlink()) || !one.exists());
            if !inside || fs::create_dir_all(parent).is_err() {
                continue;
            }
            let _ = match target {
                Some(target) => symlink(target, &place),
                // Never through a link that was made before.
                None => fs::File::create_new(&place)
                    .and_then(|mut file| std::io::Write::write_all(&mut file, content.as_bytes())),
            };
        }
    }

    /// A path of plain names.
    fn join_names(path: &str) -> String {
        path.split('/').filter(|name| !matches!(*name, "" | "." | "..")).collect::<Vec<_>>().join("/")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn of_a_context_or_a_base(
            context in proptest::collection::vec((path(), proptest::option::of(path())), 1..12),
            base in proptest::collection::vec((path(), proptest::option::of(path())), 0..12),
            source in path(),
            destination in path(),
            slash in any::<bool>(),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let (inside, below) = (directory.path().join("x/y/context"), directory.path().join("x/y/base"));
            for root in [&inside, &below] {
                fs::create_dir_all(root).unwrap();
            }
            // What links could lead to.
            for name in ["a", "b", "c", "x/a", "x/b", "x/y/a", "x/y/b", "x/y/c"] {
                fs::write(directory.path().join(name), "outside").unwrap();
            }
            fill(&inside, &context, "inside");
            fill(&below, &base, "below");
            let context = open(&inside, &[]);
            let base = MachineDirectory::open(&below, "base").unwrap();
            let slash = if slash { "/" } else { "" };
            let line = format!("COPY {source} /{destination}{slash}");
            // A reader refuses names with `..`; contents come from within.
            if let Ok(bytes) = tar(&context, Some(&base), &line) {
                let mut reader = Reader::new(&bytes[..], hull_layer::Limits::default());
                while reader.next().unwrap().is_some() {
                    let mut text = String::new();
                    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
                    prop_assert!(text.is_empty() || text == "inside", "{}: {}", line, text);
                }
            }
        }
    }
}
