//! What a container changed: as a list, a layer, an archive; and images mounted for the user.

use std::fs;
use std::path::Path;

use hull_testkit::{Value, finish};

use crate::home::{Home, KINDS, assert_same, describe, every_type, untar};

/// A container that changed something of everything, and its image.
fn changed(h: &Home) {
    h.image("base", &[&h.rootfs()]);
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
    let _ = h.ok(&words);
}

fn layers(h: &Home, image: &str) -> Vec<String> {
    let json: Value = serde_json::from_str(&h.ok(&["image", "inspect", image]).stdout).expect("JSON");
    let layers = json.pointer("/0/RootFS/Layers").and_then(Value::as_array).expect("layers");
    layers.iter().map(|layer| layer.as_str().expect("text").to_owned()).collect()
}

#[test]
fn root_diff_lists_what_changed() {
    for kind in KINDS {
        let Some(h) = Home::new(kind) else { continue };
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
        assert_eq!(h.ok(&["diff", "box"]).lines(), expected, "{kind}");
        let _ = h.ok(&["run", "--network=none", "--name=same", "base", "/probe", "cat", "/etc/name"]);
        assert_eq!(h.ok(&["diff", "same"]).text(), "", "{kind}");
        finish(&mut h.hull(&["diff", "no-such"])).fails("no-such");
        let _ = h.ok(&["rm", "box", "same"]);
        h.assert_clean();
    }
}

#[test]
fn root_a_commit_is_the_container() {
    let mut digests = Vec::new();
    for kind in KINDS {
        let Some(h) = Home::new(kind) else { continue };
        changed(&h);
        let flags = ["-a", "me", "-m", "why", "-c", "CMD [\"/probe\",\"cat\",\"/etc/new\"]", "-c", "ENV A=b"];
        let mut words = vec!["commit"];
        words.extend(flags);
        words.extend(["box", "next:1"]);
        let id = h.ok(&words).text().to_owned();
        assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
        assert_eq!(h.run(&["next:1"]).ok().text(), "new", "{kind}");
        assert_eq!(h.run(&["next:1", "/probe", "cat", "/srv/a"]).ok().text(), "errno:2", "{kind}");
        let json: Value = serde_json::from_str(&h.ok(&["image", "inspect", "next:1"]).stdout).expect("JSON");
        assert_eq!(json.pointer("/0/Author").and_then(Value::as_str), Some("me"));
        let history = h.ok(&["history", "--no-trunc", "next:1"]);
        assert!(
            history.stdout.contains("why") && history.stdout.contains("/probe write /etc/new"),
            "{}",
            history.stdout
        );
        // Another commit of the same changes is the same layer.
        let _ = h.ok(&["commit", "--pause=false", "box", "next:2"]);
        assert_eq!(layers(&h, "next:1"), layers(&h, "next:2"), "{kind}");
        assert_eq!(layers(&h, "next:1").len(), 2);
        // Without changes there is no layer.
        let _ = h.ok(&["run", "--network=none", "--name=same", "base", "/probe", "cat", "/etc/name"]);
        let _ = h.ok(&["commit", "same", "same:1"]);
        assert_eq!(layers(&h, "same:1"), layers(&h, "base"), "{kind}");
        assert_eq!(h.run(&["same:1"]).ok().text(), "hull", "{kind}");
        digests.push(layers(&h, "base").remove(0));
        finish(&mut h.hull(&["commit", "-c", "RUN x", "box", "wrong"])).fails("RUN");
        finish(&mut h.hull(&["commit", "box", "Wrong Name"])).fails("Wrong Name");
        let _ = h.ok(&["rm", "box", "same"]);
        h.assert_clean();
    }
    digests.dedup();
    assert!(digests.len() < 3);
}

#[test]
fn root_a_commit_keeps_every_type_of_file() {
    for kind in KINDS {
        let Some(h) = Home::new(kind) else { continue };
        h.image("base", &[&h.rootfs()]);
        let _ = h.ok(&["run", "--network=none", "--name=box", "base", "/probe", "echo", "x"]);
        // As if the container had made it all.
        let containers = fs::read_dir(h.path("data/containers")).expect("containers");
        let upper = containers.flatten().next().expect("a container").path().join("upper");
        every_type(&upper);
        let _ = h.ok(&["commit", "box", "all"]);
        let path = h.ok(&["image", "mount", "all"]).text().to_owned();
        let mut found = describe(Path::new(&path));
        let _ = h.ok(&["image", "unmount", "all"]);
        let mut expected = describe(&upper);
        // The root itself is not part of a commit.
        for tree in [&mut expected, &mut found] {
            tree.remove("");
        }
        found.retain(|name, _| expected.contains_key(name));
        assert_same(&expected, &found, kind);
        let _ = h.ok(&["rm", "box"]);
        h.assert_clean();
    }
}

#[test]
fn root_a_running_container_is_committed_and_goes_on() {
    for kind in KINDS {
        let Some(h) = Home::new(kind) else { continue };
        h.image("base", &[&h.rootfs()]);
        let _ = h.ok(&[
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
        ]);
        let upper = fs::read_dir(h.path("data/containers")).expect("list").flatten().next().expect("one").path();
        while !upper.join("upper/etc/new").exists() {
            std::thread::yield_now();
        }
        let _ = h.ok(&["commit", "box", "next"]);
        assert_eq!(h.run(&["next", "/probe", "cat", "/etc/new"]).ok().text(), "new");
        let out = h.ok(&["exec", "box", "/probe", "echo", "alive"]);
        assert_eq!(out.text(), "alive", "{kind}: the container goes on");
        let _ = h.ok(&["rm", "-f", "box"]);
        h.assert_clean();
    }
}

#[test]
fn root_an_export_is_the_merged_tree() {
    for kind in KINDS {
        let Some(h) = Home::new(kind) else { continue };
        changed(&h);
        let (file, tree) = (h.path("export.tar"), h.path("export"));
        let _ = h.ok(&["export", "-o", file.to_str().expect("UTF-8"), "box"]);
        untar(&file, &tree);
        assert_eq!(fs::read(tree.join("etc/new")).expect("exported"), b"new");
        assert_eq!(fs::read(tree.join("etc/other")).expect("exported"), b"x");
        assert!(!tree.join("srv/a").exists() && !tree.join("srv/sub/b").exists() && tree.join("tmp/dir").is_dir());
        let _ = h.ok(&["import", file.to_str().expect("UTF-8"), "again"]);
        assert_eq!(h.run(&["again", "/probe", "cat", "/etc/new"]).ok().text(), "new");
        let _ = h.ok(&["rm", "box"]);
        h.assert_clean();
    }
}

#[test]
fn root_an_image_is_mounted_until_it_is_unmounted() {
    for kind in KINDS {
        let Some(h) = Home::new(kind) else { continue };
        h.image("base", &[&h.rootfs()]);
        assert_eq!(h.ok(&["image", "mount"]).text(), "");
        let path = h.ok(&["image", "mount", "base"]).text().to_owned();
        assert_eq!(h.ok(&["image", "mount", "base"]).text(), path, "it stays where it is");
        assert_eq!(fs::read(Path::new(&path).join("etc/name")).expect("mounted"), b"hull");
        assert!(fs::write(Path::new(&path).join("etc/name"), "x").is_err(), "read-only");
        assert!(h.ok(&["image", "mount"]).stdout.contains(&path));
        finish(&mut h.hull(&["rmi", "base"])).fails("conflict");
        assert_eq!(fs::read(Path::new(&path).join("etc/name")).expect("still mounted"), b"hull");
        let open = fs::File::open(Path::new(&path).join("etc/name")).expect("open");
        finish(&mut h.hull(&["image", "unmount", "base"])).fails("busy");
        drop(open);
        let _ = h.ok(&["image", "unmount", "base"]);
        assert!(!Path::new(&path).exists());
        finish(&mut h.hull(&["image", "unmount", "base"])).fails("not mounted");
        let chosen = h.path("chosen");
        fs::create_dir(&chosen).expect("create directory");
        let chosen = chosen.to_str().expect("UTF-8");
        assert_eq!(h.ok(&["image", "mount", "base", chosen]).text(), chosen);
        assert!(h.path("chosen/probe").exists());
        let _ = h.ok(&["image", "unmount", "base"]);
        assert!(h.path("chosen").is_dir() && !h.path("chosen/probe").exists());
        h.assert_clean();
    }
}

#[test]
fn root_a_mount_that_is_gone_is_forgotten() {
    let Some(h) = Home::new("directory") else { return };
    h.image("base", &[&h.rootfs()]);
    let path = h.ok(&["image", "mount", "base"]).text().to_owned();
    // As after the machine went down.
    rustix::mount::unmount(path.as_str(), rustix::mount::UnmountFlags::empty()).expect("unmount");
    assert_eq!(h.ok(&["image", "mount"]).text(), "");
    let left: Vec<_> =
        fs::read_dir(h.path("data/mounted")).expect("list").flatten().map(|one| one.file_name()).collect();
    assert_eq!(left, ["lock"]);
    let _ = h.ok(&["rmi", "base"]);
}
