//! What the kernel shows of an image is the same before and after squashing.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::support::{Members, Packed, Source, stack};
use hull_testkit::{home, tier};

/// What is at each path: attributes and content; several names of one file by the first of them.
fn files(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut first = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    let mut paths = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
            paths.push(entry.path());
        }
    }
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().to_owned();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let content = if kind.is_file() {
            hull_oci::Digest::of(&std::fs::read(&path).unwrap()).to_string()
        } else if kind.is_symlink() {
            format!("{:?}", std::fs::read_link(&path).unwrap())
        } else {
            format!("fifo {} rdev {}", kind.is_fifo(), metadata.rdev())
        };
        let mut text = format!(
            "{:o} {} {} {}.{} {content}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        if !metadata.is_dir() && metadata.nlink() > 1 {
            let twin = first.entry((metadata.dev(), metadata.ino())).or_insert_with(|| name.clone());
            if *twin != name {
                text.push_str(&format!(" as {}", twin.display()));
            }
        }
        found.insert(name, text);
    }
    found
}

#[test]
fn root_mounted_files_are_the_same_after_squashing() {
    if !tier::root() {
        return;
    }
    let home = home!(plain);
    let archive = home.path().join("a.tar");
    let source = Source::new(stack());
    std::fs::write(&archive, Members::layout(&source, "docker.io/library/a:1", Packed::Gzip).tar()).unwrap();
    home.ok(&["load", "-i", archive.to_str().unwrap()]);
    let shown = |name: &str| {
        let path = home.run(&["image", "mount", name]).ok().text().to_owned();
        let files = files(Path::new(&path));
        home.ok(&["image", "unmount", name]);
        files
    };
    let before = shown("a:1");
    assert!(before.contains_key(Path::new("replaced/above")) && !before.contains_key(Path::new("replaced/inner")));
    assert!(before.contains_key(Path::new("var/lib/c")) && !before.contains_key(Path::new("var/lib/a")));
    assert!(before[Path::new("twin")].ends_with("as big"), "{}", before[Path::new("twin")]);
    for layers in ["1-2", "2-3", "3-4", "1-3", "2-4", "1-4"] {
        let name = format!("a:{layers}");
        home.ok(&["squash", "--layers", layers, "a:1", &name]);
        let after = shown(&name);
        for (path, text) in &before {
            assert_eq!(after.get(path), Some(text), "{layers}: {}", path.display());
        }
        assert_eq!(
            after.len(),
            before.len(),
            "{layers}: {:?}",
            after.keys().filter(|path| !before.contains_key(*path))
        );
    }
}
