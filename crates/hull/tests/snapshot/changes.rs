//! What a container changed: as a list, a layer, an archive; and images mounted for the user.

use std::fs;
use std::path::Path;

use hull_testkit::{Home, Value};

use crate::home::{KINDS, assert_clean, assert_same, describe, every_type, home, image, rootfs, run, untar};

/// A container that changed something of everything, and its image.
fn changed(h: &Home) {
    image(h, "base", &[&rootfs(h)]);
    let words = [
        "run",
        "--network=none",
        "--name=box",
        "base",
        "/probe",
        "write",
        "/etc/new",
        "new",
        "+",
        "unlink",
        "/srv/a",
        "+",
        "unlink",
        "/srv/sub/b",
        "+",
        "symlink",
        "name",
        "/etc/link",
        "+",
        "chmod",
        "/etc/name",
        "600",
        "+",
        "mkdir",
        "/tmp/dir",
        "+",
        "open-write",
        "/etc/other",
        "+",
        "write",
        "/tmp/once",
        "x",
        "+",
        "unlink",
        "/tmp/once",
    ];
    h.run(&words).ok();
}

fn layers(h: &Home, image: &str) -> Vec<String> {
    let json: Value = serde_json::from_str(&h.run(&["image", "inspect", image]).ok().stdout).expect("JSON");
    let layers = json.pointer("/0/RootFS/Layers").and_then(Value::as_array).expect("layers");
    layers.iter().map(|layer| layer.as_str().expect("text").to_owned()).collect()
}

#[test]
fn root_diff_lists_what_changed() {
    for kind in KINDS {
        let Some(h) = home(kind) else { continue };
        changed(&h);
        // A file that was only opened for writing is the same; one that came and went leaves no trace.
        let expected = [
            "C /etc",
            "A /etc/link",
            "C /etc/name",
            "A /etc/new",
            "C /srv",
            "D /srv/a",
            "C /srv/sub",
            "D /srv/sub/b",
            "C /tmp",
            "A /tmp/dir",
        ];
        assert_eq!(h.run(&["diff", "box"]).ok().lines(), expected, "{kind}");
        h.run(&["run", "--network=none", "--name=same", "base", "/probe", "cat", "/etc/name"]).ok();
        assert_eq!(h.run(&["diff", "same"]).ok().text(), "", "{kind}");
        h.run(&["diff", "no-such"]).fails("no-such");
        h.run(&["rm", "box", "same"]).ok();
        assert_clean(&h);
    }
}

#[test]
fn root_a_commit_is_the_container() {
    let mut digests = Vec::new();
    for kind in KINDS {
        let Some(h) = home(kind) else { continue };
        changed(&h);
        let flags = ["-a", "me", "-m", "why", "-c", "CMD [\"/probe\",\"cat\",\"/etc/new\"]", "-c", "ENV A=b"];
        let mut words = vec!["commit"];
        words.extend(flags);
        words.extend(["box", "next:1"]);
        let id = h.run(&words).ok().text().to_owned();
        assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
        assert_eq!(run(&h, &["next:1"]).ok().text(), "new", "{kind}");
        assert_eq!(run(&h, &["next:1", "/probe", "cat", "/srv/a"]).ok().text(), "errno:2", "{kind}");
        let json: Value = serde_json::from_str(&h.run(&["image", "inspect", "next:1"]).ok().stdout).expect("JSON");
        assert_eq!(json.pointer("/0/Author").and_then(Value::as_str), Some("me"));
        let history = h.run(&["history", "--no-trunc", "next:1"]).ok();
        assert!(
            history.stdout.contains("why") && history.stdout.contains("/probe write /etc/new"),
            "{}",
            history.stdout
        );
        // Another commit of the same changes is the same layer.
        h.run(&["commit", "--pause=false", "box", "next:2"]).ok();
        assert_eq!(layers(&h, "next:1"), layers(&h, "next:2"), "{kind}");
        assert_eq!(layers(&h, "next:1").len(), 2);
        // Without changes there is no layer.
        h.run(&["run", "--network=none", "--name=same", "base", "/probe", "cat", "/etc/name"]).ok();
        h.run(&["commit", "same", "same:1"]).ok();
        assert_eq!(layers(&h, "same:1"), layers(&h, "base"), "{kind}");
        assert_eq!(run(&h, &["same:1"]).ok().text(), "hull", "{kind}");
        digests.push(layers(&h, "base").remove(0));
        h.run(&["commit", "-c", "RUN x", "box", "wrong"]).fails("RUN");
        h.run(&["commit", "box", "Wrong Name"]).fails("Wrong Name");
        h.run(&["rm", "box", "same"]).ok();
        assert_clean(&h);
    }
    digests.dedup();
    assert!(digests.len() < 3);
}

#[test]
fn root_a_commit_keeps_every_type_of_file() {
    for kind in KINDS {
        let Some(h) = home(kind) else { continue };
        image(&h, "base", &[&rootfs(&h)]);
        h.run(&["run", "--network=none", "--name=box", "base", "/probe", "echo", "x"]).ok();
        // As if the container had made it all.
        let containers = fs::read_dir(h.at("data/containers")).expect("containers");
        let upper = containers.flatten().next().expect("a container").path().join("upper");
        every_type(&upper);
        h.run(&["commit", "box", "all"]).ok();
        let path = h.run(&["image", "mount", "all"]).ok().text().to_owned();
        let mut found = describe(Path::new(&path));
        h.run(&["image", "unmount", "all"]).ok();
        let mut expected = describe(&upper);
        // The root itself is not part of a commit.
        for tree in [&mut expected, &mut found] {
            tree.remove("");
        }
        found.retain(|name, _| expected.contains_key(name));
        assert_same(&expected, &found, kind);
        h.run(&["rm", "box"]).ok();
        assert_clean(&h);
    }
}

#[test]
fn root_a_running_container_is_committed_and_goes_on() {
    for kind in KINDS {
        let Some(h) = home(kind) else { continue };
        image(&h, "base", &[&rootfs(&h)]);
        h.run(&[
            "run",
            "-d",
            "--network=none",
            "--name=box",
            "base",
            "/probe",
            "write",
            "/etc/new",
            "new",
            "+",
            "sleep",
            "60",
        ])
        .ok();
        let upper = fs::read_dir(h.at("data/containers")).expect("list").flatten().next().expect("one").path();
        while !upper.join("upper/etc/new").exists() {
            std::thread::yield_now();
        }
        h.run(&["commit", "box", "next"]).ok();
        assert_eq!(run(&h, &["next", "/probe", "cat", "/etc/new"]).ok().text(), "new");
        let out = h.run(&["exec", "box", "/probe", "echo", "alive"]).ok();
        assert_eq!(out.text(), "alive", "{kind}: the container goes on");
        h.run(&["rm", "-f", "box"]).ok();
        assert_clean(&h);
    }
}

#[test]
fn root_an_export_is_the_merged_tree() {
    for kind in KINDS {
        let Some(h) = home(kind) else { continue };
        changed(&h);
        let (file, tree) = (h.at("export.tar"), h.at("export"));
        h.run(&["export", "-o", file.to_str().expect("UTF-8"), "box"]).ok();
        untar(&file, &tree);
        assert_eq!(fs::read(tree.join("etc/new")).expect("exported"), b"new");
        assert_eq!(fs::read(tree.join("etc/other")).expect("exported"), b"x");
        assert!(!tree.join("srv/a").exists() && !tree.join("srv/sub/b").exists() && tree.join("tmp/dir").is_dir());
        h.run(&["import", file.to_str().expect("UTF-8"), "again"]).ok();
        assert_eq!(run(&h, &["again", "/probe", "cat", "/etc/new"]).ok().text(), "new");
        h.run(&["rm", "box"]).ok();
        assert_clean(&h);
    }
}

#[test]
fn root_an_image_is_mounted_until_it_is_unmounted() {
    for kind in KINDS {
        let Some(h) = home(kind) else { continue };
        image(&h, "base", &[&rootfs(&h)]);
        assert_eq!(h.run(&["image", "mount"]).ok().text(), "");
        let path = h.run(&["image", "mount", "base"]).ok().text().to_owned();
        assert_eq!(h.run(&["image", "mount", "base"]).ok().text(), path, "it stays where it is");
        assert_eq!(fs::read(Path::new(&path).join("etc/name")).expect("mounted"), b"hull");
        assert!(fs::write(Path::new(&path).join("etc/name"), "x").is_err(), "read-only");
        assert!(h.run(&["image", "mount"]).ok().stdout.contains(&path));
        h.run(&["rmi", "base"]).fails("conflict");
        assert_eq!(fs::read(Path::new(&path).join("etc/name")).expect("still mounted"), b"hull");
        let open = fs::File::open(Path::new(&path).join("etc/name")).expect("open");
        h.run(&["image", "unmount", "base"]).fails("busy");
        drop(open);
        h.run(&["image", "unmount", "base"]).ok();
        assert!(!Path::new(&path).exists());
        h.run(&["image", "unmount", "base"]).fails("not mounted");
        let chosen = h.at("chosen");
        fs::create_dir(&chosen).expect("create directory");
        let chosen = chosen.to_str().expect("UTF-8");
        assert_eq!(h.run(&["image", "mount", "base", chosen]).ok().text(), chosen);
        assert!(h.at("chosen/probe").exists());
        h.run(&["image", "unmount", "base"]).ok();
        assert!(h.at("chosen").is_dir() && !h.at("chosen/probe").exists());
        assert_clean(&h);
    }
}

#[test]
fn root_a_mount_that_is_gone_is_forgotten() {
    let Some(h) = home("directory") else { return };
    image(&h, "base", &[&rootfs(&h)]);
    let path = h.run(&["image", "mount", "base"]).ok().text().to_owned();
    // As after the machine went down.
    rustix::mount::unmount(path.as_str(), rustix::mount::UnmountFlags::empty()).expect("unmount");
    assert_eq!(h.run(&["image", "mount"]).ok().text(), "");
    let left: Vec<_> = fs::read_dir(h.at("data/mounted")).expect("list").flatten().map(|one| one.file_name()).collect();
    assert_eq!(left, ["lock"]);
    h.run(&["rmi", "base"]).ok();
}
