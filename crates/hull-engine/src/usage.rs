//! What containers occupy.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Adds up a tree without following links; a file with several names counts once, what vanishes meanwhile does not.
fn sum(path: &Path, size: impl Fn(&std::fs::Metadata) -> u64) -> u64 {
    let mut seen = BTreeSet::new();
    let mut total = 0;
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        total += size(&metadata);
        if metadata.is_dir()
            && let Ok(entries) = std::fs::read_dir(&path)
        {
            waiting.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    total
}

/// Bytes of the files below a directory: what a container has written when it is its upper directory.
#[must_use]
pub fn written(directory: &Path) -> u64 {
    sum(directory, |metadata| if metadata.is_file() { metadata.len() } else { 0 })
}

/// Bytes that a directory and everything below it take on the disk, as `du` counts them.
#[must_use]
pub fn occupied(directory: &Path) -> u64 {
    sum(directory, |metadata| metadata.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_count_once_and_are_not_followed() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path();
        std::fs::write(path.join("a"), [0; 1000]).expect("write");
        std::fs::hard_link(path.join("a"), path.join("b")).expect("link");
        std::os::unix::fs::symlink("/etc", path.join("c")).expect("symlink");
        std::fs::create_dir(path.join("d")).expect("directory");
        std::fs::write(path.join("d/e"), [0; 10]).expect("write");
        assert_eq!(written(path), 1010);
        assert!(occupied(path) >= 1010);
        assert_eq!((written(&path.join("gone")), occupied(&path.join("gone"))), (0, 0));
    }
}
