//! Flipped bytes are found and named with the images that have them; what can be made again is. What was downloaded
//! and is in no image is known, counted and removed.

use std::path::{Path, PathBuf};
use std::process::Command;

use hull_testkit::{Home, finish, home, tier};

/// A home with the archive `a.tgz`.
fn home(snapshotter: &str) -> Home {
    let h = home!(plain).here().snapshotter(snapshotter);
    h.equip();
    let mut tar = Command::new("tar");
    finish(tar.arg("-czf").arg(h.at("a.tgz")).arg("-C").arg(h.rootfs()).arg(".")).ok();
    h
}

/// All files below a part of the store.
fn files(h: &Home, part: &str) -> Vec<PathBuf> {
    let (mut found, mut pending) = (Vec::new(), vec![h.at("data").join(part)]);
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(path).expect("read").flatten().map(|entry| entry.path()));
        } else {
            found.push(path);
        }
    }
    assert!(!found.is_empty(), "no files in {part}");
    found
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("write");
}

fn flipped_bytes(snapshotter: &'static str) {
    let h = home(snapshotter);
    h.ok(&["import", "a.tgz", "app:1"]);
    h.ok(&["tag", "app:1", "other:2"]);
    h.ok(&["save", "-o", "image.tar", "app:1"]);
    for part in ["layers", "blobs"] {
        for path in files(&h, part) {
            // Loading it anew may have left another blob.
            let Ok(whole) = std::fs::read(&path) else { continue };
            flip(&path);
            let found = h.run(&["system", "check"]);
            let when = format!("{}: {}{}", path.display(), found.stdout, found.stderr);
            assert_eq!((found.code, found.lines().len()), (1, 1), "{when}");
            let kind = if part == "layers" { "layer sha256:" } else { "blob sha256:" };
            assert!(found.stdout.starts_with(kind), "{when}");
            let object = found.stdout.split([' ', ':']).nth(2).expect("a digest");
            assert!(path.to_string_lossy().contains(object), "{when}");
            assert!(found.stdout.ends_with("; of image app:1, other:2\n"), "{when}");
            let repaired = h.run(&["system", "check", "--repair"]);
            if repaired.code != 0 {
                // What it would be made of is not there, or is what is damaged. Said again, until it comes in anew.
                assert_eq!(h.run(&["system", "check"]).stdout, found.stdout, "{when}");
                h.ok(&["rmi", "-f", "app:1", "other:2"]);
                h.ok(&["load", "-i", "image.tar"]);
                h.ok(&["tag", "app:1", "other:2"]);
            }
            assert_eq!(h.ok(&["system", "check"]), "No problems found\n", "{when}");
            if path.exists() {
                assert!(std::fs::read(&path).expect("read") == whole, "{when}");
            }
        }
    }
}

#[test]
fn flipped_bytes_are_found() {
    flipped_bytes("");
}

#[test]
fn flipped_bytes_are_found_in_directories() {
    flipped_bytes("directory");
}

#[test]
fn downloads_are_known() {
    let h = home("");
    h.ok(&["import", "a.tgz", "app"]);
    let data = h.path().join("data");
    let put = |name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(data.join(name).parent().expect("parent")).expect("create directory");
        std::fs::write(data.join(name), bytes).expect("write");
    };
    let package = vec![7; 300_000];
    let hex = hull_oci::Digest::of(&package).hex().to_owned();
    put(&format!("cache/debian/{hex}"), &package);
    put(&format!("partial/sha256-{hex}"), &package[..100_000]);
    assert_eq!(h.ok(&["system", "check"]), "No problems found\n");
    let rows = h.ok(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Reclaimable}}"]);
    assert!(rows.lines().any(|row| row.starts_with("Downloads 2 4") && row.ends_with("kB (100%)")), "{rows}");
    assert!(h.ok(&["system", "df", "-v"]).contains("DOWNLOADS"));

    flip(&data.join(format!("cache/debian/{hex}")));
    put("partial/no-digest", b"x");
    let found = h.run(&["system", "check"]);
    assert_eq!((found.code, found.lines().len()), (1, 2), "{}", found.stdout);
    assert!(
        found.stdout.contains(&format!("download cache/debian/{hex}: its content has digest ")),
        "{}",
        found.stdout
    );
    assert!(found.stdout.contains("download partial/no-digest: it has no digest as its name\n"), "{}", found.stdout);
    h.ok(&["system", "check", "--repair"]);
    assert_eq!(h.ok(&["system", "check"]), "No problems found\n");

    put(&format!("cache/debian/{hex}"), &package);
    let pruned = h.ok(&["system", "prune", "-f"]);
    assert!(pruned.starts_with("Total reclaimed space: 4"), "{pruned}");
    assert!(!h.ok(&["system", "df"]).contains("Downloads"));
    assert_eq!(h.ok(&["images", "--format", "{{.Repository}}"]), "app\n");
}

#[test]
fn root_containers_have_the_labels_of_their_image() {
    if !tier::root() {
        return;
    }
    let h = home("");
    h.ok(&["import", "-c", "LABEL of=image both=image", "a.tgz", "app"]);
    for name in ["first", "second", "third"] {
        let words = ["run", "--name", name, "--label", "both=container", "--network=none", "--cgroup-parent", h.name()];
        h.ok(&[&words[..], &["app", "/probe", "pid"]].concat());
    }
    let labels = h.ok(&["inspect", "--format", "{{.Config.Labels.of}} {{.Config.Labels.both}}", "first"]);
    assert_eq!(labels, "image container\n");
    assert_eq!(h.ok(&["ps", "-a", "--filter", "label=of=image", "--format", "{{.Names}}"]), "third\nsecond\nfirst\n");
    assert_eq!(h.ok(&["ps", "-a", "--filter", "since=first", "--format", "{{.Names}}"]), "third\nsecond\n");
    let created = h.ok(&["inspect", "--format", "{{.Created}}", "first"]);
    let fraction = created.trim_end().trim_end_matches('Z').rsplit('.').next().expect("a fraction");
    assert!(fraction.len() > 3 && fraction.parse::<u64>().is_ok(), "nanoseconds: {created}");
}
