//! Random stacks of layers, squashed in random ranges, against an account of the layer rules that knows only paths.

use std::collections::BTreeMap;
use std::io::Write as _;

use hull_layer::tar::{Entry, EntryKind, Reader, Writer};
use hull_layer::tree::Tree;
use hull_oci::Digest;
use proptest::prelude::*;

use super::merge::{self, Archives};
use super::{hash, tree, write_layer};

fn file(path: &str, content: &str) -> (Entry, Vec<u8>) {
    let kind = EntryKind::File { size: content.len() as u64, extents: Vec::new() };
    (Entry { mtime: 1_600_000_000, ..Entry::new(path, kind, 0o644) }, content.as_bytes().to_vec())
}

fn node(path: &str, kind: EntryKind, mode: u16) -> (Entry, Vec<u8>) {
    (Entry { mtime: 1_600_000_000, ..Entry::new(path, kind, mode) }, Vec::new())
}

fn directory(path: &str) -> (Entry, Vec<u8>) {
    node(path, EntryKind::Directory, 0o755)
}

fn whiteout(path: &str) -> (Entry, Vec<u8>) {
    let (parent, name) = path.rsplit_once('/').map_or((String::new(), path), |(p, n)| (format!("{p}/"), n));
    file(&format!("{parent}.wh.{name}"), "")
}

fn opaque(path: &str) -> (Entry, Vec<u8>) {
    file(&format!("{path}/.wh..wh..opq"), "")
}

fn symlink(path: &str, target: &str) -> (Entry, Vec<u8>) {
    node(path, EntryKind::Symlink(target.into()), 0o777)
}

fn hard_link(path: &str, target: &str) -> (Entry, Vec<u8>) {
    node(path, EntryKind::HardLink(target.into()), 0o644)
}

fn tar(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.append(entry, content.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

/// What a path shows: an independent account of the layer rules, over paths and nothing else.
type Seen = BTreeMap<Vec<u8>, String>;

fn seen(layers: &[Vec<u8>]) -> Seen {
    let mut seen = Seen::new();
    for layer in layers {
        apply(&mut seen, layer);
    }
    seen
}

fn below(path: &[u8], of: &[u8]) -> bool {
    of.is_empty() && !path.is_empty() || path.len() > of.len() && path.starts_with(of) && path[of.len()] == b'/'
}

fn apply(seen: &mut Seen, layer: &[u8]) {
    let mut reader = Reader::new(layer, hull_layer::Limits::default());
    let mut entries: Vec<(Entry, Vec<u8>)> = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut reader.content(&entry), &mut content).unwrap();
        entries.push((entry, content));
    }
    // What is hidden is hidden before anything of the layer is there.
    for (entry, _) in &entries {
        let at = entry.path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
        let (parent, name) = entry.path.split_at(at);
        let parent = parent.strip_suffix(b"/").unwrap_or(parent);
        if name == b".wh..wh..opq" {
            seen.retain(|path, _| !below(path, parent));
        } else if let Some(name) = name.strip_prefix(b".wh.") {
            let gone = [&entry.path[..at], name].concat();
            seen.retain(|path, _| *path != gone && !below(path, &gone));
        }
    }
    let contents: BTreeMap<Vec<u8>, String> =
        entries.iter().map(|(entry, content)| (entry.path.clone(), describe(entry, content))).collect();
    // A layer without an entry for the root shows one all the same.
    seen.insert(Vec::new(), "dir 755 0 0 0".to_owned());
    for (entry, content) in &entries {
        let mut at = 0;
        while let Some(next) = entry.path[at..].iter().position(|&byte| byte == b'/') {
            let parent = entry.path[..at + next].to_vec();
            if !contents.get(&parent).is_some_and(|text| text.starts_with("dir")) {
                if !seen.get(&parent).is_some_and(|text| text.starts_with("dir")) {
                    seen.retain(|path, _| !below(path, &parent));
                }
                seen.insert(parent, "dir 755 0 0 0".to_owned());
            }
            at += next + 1;
        }
        let name = entry.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        if name.starts_with(b".wh.") {
            continue;
        }
        let text = match &entry.kind {
            EntryKind::HardLink(target) => contents[target].clone(),
            _ => describe(entry, content),
        };
        let was_directory = seen.get(&entry.path).is_some_and(|text| text.starts_with("dir"));
        if !(was_directory && text.starts_with("dir")) {
            seen.retain(|path, _| !below(path, &entry.path));
        }
        seen.insert(entry.path.clone(), text);
    }
}

fn describe(entry: &Entry, content: &[u8]) -> String {
    let kind = match &entry.kind {
        EntryKind::Directory => "dir".to_owned(),
        EntryKind::File { .. } => format!("file {}", Digest::of(content)),
        other => format!("{other:?}"),
    };
    let Entry { mode, uid, gid, mtime, xattrs, .. } = entry;
    let xattrs = if xattrs.is_empty() { String::new() } else { format!(" {xattrs:?}") };
    if kind == "dir" {
        format!("dir {mode:o} {uid} {gid} {mtime}{xattrs}")
    } else {
        format!("{mode:o} {uid} {gid} {mtime}{xattrs} {kind}")
    }
}

/// One thing that a layer does.
#[derive(Clone, Debug)]
enum Step {
    File(String, u8),
    Directory(String, u16),
    Symlink(String),
    Whiteout(String),
    Opaque(String),
    HardLink(String, String),
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec("[abc]", 1..4).prop_map(|parts| parts.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (path(), any::<u8>()).prop_map(|(path, content)| Step::File(path, content)),
        3 => (path(), 0o500_u16..0o777).prop_map(|(path, mode)| Step::Directory(path, mode)),
        1 => path().prop_map(Step::Symlink),
        2 => path().prop_map(Step::Whiteout),
        1 => path().prop_map(Step::Opaque),
        1 => (path(), path()).prop_map(|(path, target)| Step::HardLink(path, target)),
    ]
}

/// A layer in which each path is one thing, as archives should be.
fn layer(steps: &[Step]) -> Vec<u8> {
    let mut entries: BTreeMap<String, (Entry, Vec<u8>)> = BTreeMap::new();
    let fits = |entries: &BTreeMap<String, (Entry, Vec<u8>)>, path: &str| {
        let is_directory = |path: &str| entries.get(path).is_none_or(|(entry, _)| entry.kind == EntryKind::Directory);
        let parents_fit = path.match_indices('/').all(|(at, _)| is_directory(&path[..at]));
        parents_fit
            && !entries.contains_key(path)
            && !entries.keys().any(|other| other.starts_with(&format!("{path}/")))
    };
    let directory_fits = |entries: &BTreeMap<String, (Entry, Vec<u8>)>, path: &str| {
        let is_directory = |path: &str| entries.get(path).is_none_or(|(entry, _)| entry.kind == EntryKind::Directory);
        path.match_indices('/').all(|(at, _)| is_directory(&path[..at])) && is_directory(path)
    };
    let mut marks = Vec::new();
    for step in steps {
        match step {
            Step::File(path, content) if fits(&entries, path) => {
                entries.insert(path.clone(), file(path, &content.to_string()));
            }
            Step::Directory(path, mode) if directory_fits(&entries, path) => {
                let entry = Entry { mode: *mode, ..directory(path).0 };
                entries.insert(path.clone(), (entry, Vec::new()));
            }
            Step::Symlink(path) if fits(&entries, path) => {
                entries.insert(path.clone(), symlink(path, "a"));
            }
            Step::HardLink(path, target) if fits(&entries, path) => {
                if matches!(entries.get(target), Some((entry, _)) if matches!(entry.kind, EntryKind::File { .. })) {
                    entries.insert(path.clone(), hard_link(path, target));
                }
            }
            Step::Whiteout(path)
                if directory_fits(&entries, path.rsplit_once('/').map_or("", |(parent, _)| parent)) =>
            {
                marks.push(whiteout(path));
            }
            Step::Opaque(path) if directory_fits(&entries, path) => {
                entries.entry(path.clone()).or_insert_with(|| directory(path));
                marks.push(opaque(path));
            }
            _ => {}
        }
    }
    // A whiteout's directory must not have become something else by a later step.
    marks.retain(|(entry, _)| {
        let path = std::str::from_utf8(&entry.path).unwrap();
        path.match_indices('/')
            .all(|(at, _)| entries.get(&path[..at]).is_none_or(|(e, _)| e.kind == EntryKind::Directory))
    });
    let mut all: Vec<(Entry, Vec<u8>)> = entries.into_values().collect();
    // Links come after what they name.
    all.sort_by_key(|(entry, _)| matches!(entry.kind, EntryKind::HardLink(_)));
    all.extend(marks);
    tar(&all)
}

/// The hash of what a stack shows, as [`super::rootfs_hash`] computes it.
fn hash(layers: &[Vec<u8>]) -> Digest {
    let (trees, archives) = read(layers);
    let tree = merge::merge(trees.iter().map(|(tree, length)| (tree, *length)), false);
    hash::hash(&tree, &archives).unwrap()
}

fn read(layers: &[Vec<u8>]) -> (Vec<(Tree, u64)>, Archives) {
    let file = |bytes: &Vec<u8>| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        (file, bytes.len() as u64)
    };
    let trees = layers.iter().map(|bytes| (tree(&bytes[..]).unwrap(), bytes.len() as u64)).collect();
    (trees, Archives::new(layers.iter().map(file)))
}

fn squashed(layers: &[Vec<u8>], from: usize, to: usize) -> Vec<Vec<u8>> {
    let (trees, archives) = read(&layers[from..=to]);
    let tree = merge::merge(trees.iter().map(|(tree, length)| (tree, *length)), from > 0);
    let merged = write_layer(&tree, &archives, Vec::new()).unwrap();
    [&layers[..from], &[merged], &layers[to + 1..]].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_stacks_show_the_same_files(
        stack in proptest::collection::vec(proptest::collection::vec(step(), 0..12), 2..5),
        choice in any::<(u8, u8)>(),
    ) {
        let layers: Vec<Vec<u8>> = stack.iter().map(|steps| layer(steps)).collect();
        let from = usize::from(choice.0) % (layers.len() - 1);
        let to = from + 1 + usize::from(choice.1) % (layers.len() - from - 1);
        let squashed = squashed(&layers, from, to);
        prop_assert_eq!(squashed.len(), layers.len() - (to - from));
        prop_assert_eq!(seen(&squashed), seen(&layers));
        prop_assert_eq!(hash(&squashed), hash(&layers));
    }
}
