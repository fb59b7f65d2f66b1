//! Layers as file systems: both snapshotters show what GNU tar extracts, and containers run on both.

mod changes;
mod home;
mod sharing;

use std::fs;
use std::path::Path;
use std::process::Command;

use hull_testkit::{Home, finish, tier};

use crate::home::{KINDS, assert_clean, assert_same, describe, every_type, home, image, rootfs, run, tar, untar};

/// What an image looks like where `image mount` shows it.
#[track_caller]
fn mounted(h: &Home, image: &str) -> std::collections::BTreeMap<String, String> {
    let path = h.run(&["image", "mount", image]).ok().text().to_owned();
    let found = describe(Path::new(&path));
    h.run(&["image", "unmount", image]).ok();
    found
}

#[test]
fn root_one_layer_is_what_gnu_tar_extracts() {
    for kind in KINDS {
        let Some(h) = home(kind) else { continue };
        let source = h.at("source");
        every_type(&source);
        image(&h, "all", &[&source]);
        let (archive, reference) = (h.at("one.tar"), h.at("reference"));
        tar(&source, &archive);
        untar(&archive, &reference);
        assert_same(&describe(&reference), &mounted(&h, "all"), kind);
        assert_clean(&h);
    }
}

#[test]
fn root_layers_hide_and_replace_each_other() {
    for kind in KINDS {
        let Some(h) = home(kind) else { continue };
        let layer = |number: usize, files: &[(&str, &str)]| {
            let root = h.at(&format!("layer{number}"));
            fs::create_dir_all(&root).expect("create directory");
            for (path, content) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().expect("parent")).expect("create directory");
                match content.strip_prefix("= ") {
                    Some(target) => fs::hard_link(root.join(target), path).expect("link"),
                    None => fs::write(path, content).expect("write"),
                }
            }
            root
        };
        let layers = [
            layer(0, &[("a/one", "1"), ("a/two", "2"), ("b/keep", "k"), ("b/sub/x", "x"), ("gone/x", "x"), ("f", "f")]),
            layer(1, &[("a/.wh.one", ""), ("a/three", "3"), ("b/.wh..wh..opq", ""), ("b/new", "n"), (".wh.gone", "")]),
            layer(
                2,
                &[("gone/again", "y"), (".wh.f", ""), ("f/now/a/directory", "d"), ("a/four", "= a/five")]
                    .map(|(path, content)| if path == "a/four" { ("a/five", "5") } else { (path, content) }),
            ),
            layer(3, &[("a/six", "6"), ("a/seven", "= a/six"), ("b/.wh.never", "")]),
        ];
        image(&h, "merged", &layers.iter().map(|path| path.as_path()).collect::<Vec<_>>());
        // The reference: GNU tar, and by hand what the names of whiteouts mean.
        let reference = h.at("reference");
        fs::create_dir(&reference).expect("create directory");
        for (number, layer) in layers.iter().enumerate() {
            for path in describe(layer).into_keys() {
                let path = Path::new(&path);
                let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
                let directory = reference.join(path.parent().expect("parent"));
                if name == ".wh..wh..opq" {
                    fs::remove_dir_all(&directory).expect("remove");
                    fs::create_dir(&directory).expect("create directory");
                } else if let Some(hidden) = name.strip_prefix(".wh.") {
                    let hidden = directory.join(hidden);
                    let _ = if hidden.is_dir() { fs::remove_dir_all(hidden) } else { fs::remove_file(hidden) };
                }
            }
            let archive = h.at(&format!("{number}.tar"));
            let _ = finish(
                Command::new("tar")
                    .arg("--exclude=.wh.*")
                    .args(["--format=pax", "-cf"])
                    .arg(&archive)
                    .arg("-C")
                    .arg(layer)
                    .arg("."),
            )
            .ok();
            untar(&archive, &reference);
        }
        assert_same(&describe(&reference), &mounted(&h, "merged"), kind);
        assert_clean(&h);
    }
}

#[test]
fn root_two_hundred_layers() {
    for kind in KINDS {
        let Some(h) = home(kind) else { continue };
        let mut layers = vec![rootfs(&h)];
        for number in 0..199 {
            let layer = h.at(&format!("layer{number}"));
            fs::create_dir(&layer).expect("create directory");
            fs::write(layer.join(format!("file{number}")), number.to_string()).expect("write");
            fs::write(layer.join("last"), number.to_string()).expect("write");
            layers.push(layer);
        }
        image(&h, "many", &layers.iter().map(|path| path.as_path()).collect::<Vec<_>>());
        let out = run(&h, &["many", "/probe", "cat", "/file0", "+", "cat", "/file100", "+", "cat", "/last"]).ok();
        assert_eq!(out.lines(), ["0", "100", "198"], "{kind}");
        assert_clean(&h);
    }
}

#[test]
fn root_a_layer_can_come_twice() {
    for kind in KINDS {
        let Some(h) = home(kind) else { continue };
        let (base, twin, other) = (rootfs(&h), h.at("twin"), h.at("other"));
        for (path, content) in [(&twin, "twin"), (&other, "other")] {
            fs::create_dir(path).expect("create directory");
            fs::write(path.join("which"), content).expect("write");
        }
        image(&h, "twice", &[&base, &twin, &other, &twin]);
        assert_eq!(run(&h, &["twice", "/probe", "cat", "/which"]).ok().text(), "twin", "{kind}");
    }
}

#[test]
fn root_containers_write_above_their_image() {
    for kind in KINDS {
        let Some(h) = home(kind) else { continue };
        image(&h, "base", &[&rootfs(&h)]);
        let words =
            ["base", "/probe", "write", "/etc/name", "changed", "+", "cat", "/etc/name", "+", "cat", "/srv/sub/b"];
        let out = run(&h, &words).ok();
        assert!(out.text().ends_with("changed\nb"), "{kind}: {}", out.stdout);
        assert_eq!(run(&h, &["base", "/probe", "cat", "/etc/name"]).ok().text(), "hull", "{kind}");
        // Files that Hull gives every container are not in the image.
        assert!(run(&h, &["base", "/probe", "cat", "/etc/hosts"]).ok().stdout.contains("localhost"));
        // The image's user is looked up in the image's own files.
        fs::write(h.at("rootfs/etc/passwd"), "app:x:1234:77::/:/x\n").expect("write");
        image(&h, "users", &[&h.at("rootfs")]);
        let out = run(&h, &["--user", "app", "users", "/probe", "id"]).ok();
        assert!(out.stdout.contains("1234") && out.stdout.contains("77"), "{}", out.stdout);
        assert_clean(&h);
    }
}

#[test]
fn root_the_snapshotter_is_chosen_and_told() {
    let Some(h) = home("directory") else { return };
    image(&h, "base", &[&rootfs(&h)]);
    assert!(h.run(&["info"]).ok().stdout.contains("Snapshotter: directory (HULL_SNAPSHOTTER=directory)"));
    let layers = || {
        let entries = fs::read_dir(h.at("data/layers")).expect("layers").flatten().map(|entry| entry.path());
        entries.collect::<Vec<_>>()
    };
    assert!(layers().iter().all(|layer| layer.join("tree").is_dir() && !layer.join("index").exists()));
    // What was said stays without being said again.
    let info = finish(h.hull(&["info"]).env_remove("HULL_SNAPSHOTTER")).ok();
    assert!(info.stdout.contains("Snapshotter: directory"), "{}", info.stdout);
    finish(h.hull(&["info"]).env("HULL_SNAPSHOTTER", "zfs")).fails("expected erofs or directory");
}

/// A store on another file system, in a mount namespace of the test's own.
#[track_caller]
fn elsewhere(mount: &str) -> Option<(Home, hull_testkit::Finished)> {
    let h = home("directory")?;
    let unshare = tier::tool("unshare")?;
    let rootfs = rootfs(&h);
    let archive = h.at("rootfs.tar");
    tar(&rootfs, &archive);
    let script = format!(
        "set -e; cd {dir}; mkdir store lower upper work; {mount}; hull='{hull} --root {dir}/store/data --state {dir}/run'; \
         $hull info | grep -E 'Backing|Snapshotter'; $hull import rootfs.tar mine >/dev/null; \
         ls store/data/layers/*/tree/srv; $hull run --rm --network=none mine /probe cat /etc/name; $hull system check",
        dir = h.path().display(),
        hull = env!("CARGO_BIN_EXE_hull"),
    );
    let mut command = Command::new(unshare);
    command.args(["-m", "--propagation", "private", "sh", "-c", &script]).env_remove("HULL_SNAPSHOTTER");
    let out = finish(&mut command);
    Some((h, out))
}

#[test]
fn root_a_store_on_tmpfs_uses_directories() {
    let Some((_h, out)) = elsewhere("mount -t tmpfs none store") else { return };
    let out = out.ok();
    assert!(out.stdout.contains("Backing Filesystem: tmpfs"), "{}", out.stdout);
    assert!(out.stdout.contains("Snapshotter: directory (EROFS cannot be mounted from a file here"), "{}", out.stdout);
    assert!(out.stdout.contains("\nhull"), "the container ran: {}", out.stdout);
}

#[test]
fn root_a_store_on_overlayfs_uses_directories() {
    let mount = "mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none store";
    let Some((_h, out)) = elsewhere(mount) else { return };
    assert!(out.stdout.contains("Backing Filesystem: overlayfs"), "{}{}", out.stdout, out.stderr);
    assert!(out.stdout.contains("Snapshotter: directory"), "{}", out.stdout);
    assert!(out.stdout.contains("\nsub"), "the layer was unpacked: {}{}", out.stdout, out.stderr);
}

/// An ordinary user's store: directories, and its own work directories can be removed again.
#[test]
fn root_an_ordinary_user_has_a_store_of_directories() {
    let Some(h) = home("directory") else { return };
    let Some(setpriv) = tier::tool("setpriv") else { return };
    let source = h.at("source");
    every_type(&source);
    // Not even its owner could look into it, and so nothing could check it.
    fs::set_permissions(source.join("private"), std::os::unix::fs::PermissionsExt::from_mode(0o500)).expect("chmod");
    let (own, archive, hull) = (h.at("own"), h.at("source.tar"), h.at("hull"));
    tar(&source, &archive);
    fs::create_dir(&own).expect("create directory");
    fs::copy(env!("CARGO_BIN_EXE_hull"), &hull).expect("copy");
    for path in [h.path(), &own] {
        std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).expect("chown");
    }
    let user = |words: &[&str]| {
        let mut command = Command::new(&setpriv);
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&hull)
            .arg("--root")
            .arg(own.join("data"));
        finish(command.arg("--state").arg(own.join("run")).args(words).current_dir("/"))
    };
    let info = user(&["info"]).ok();
    assert!(info.stdout.contains("Snapshotter: directory (mounting EROFS needs root"), "{}", info.stdout);
    let _ = user(&["import", archive.to_str().expect("UTF-8"), "mine"]).ok();
    let layer = fs::read_dir(own.join("data/layers")).expect("layers").flatten().next().expect("a layer").path();
    let (mut found, mut expected) = (describe(&layer.join("tree")), describe(&source));
    // Without owners, devices, privileged attributes and set-user-ID bits; names, content and times are all there.
    expected.retain(|name, _| !matches!(name.as_str(), "etc/null" | "etc/disk"));
    for tree in [&mut expected, &mut found] {
        for text in tree.values_mut() {
            let words: Vec<&str> = text.split(' ').collect();
            let time = words.get(2).copied().unwrap_or_default();
            let content = text.split_once(" content ").map_or("", |(_, content)| content);
            *text = format!("{time} {content}");
        }
    }
    assert_same(&expected, &found, "trees");
    let _ = user(&["system", "check"]).ok();
    let _ = user(&["rmi", "mine"]).ok();
    for directory in ["layers", "ingest", "trash"] {
        assert_eq!(fs::read_dir(own.join("data").join(directory)).expect("list").count(), 0, "{directory}");
    }
}
