//! Kills, crowds and garbage.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hull_oci::Digest;
use hull_testkit::finish;

use crate::client::{Server, directory, hull, manifest};
use crate::images::{Parts, native, parts};

/// Clients at once; `HULL_TEST_LOOPS` brings others.
fn crowd() -> usize {
    hull_testkit::loops(200) as usize
}

/// What was acknowledged is there after SIGKILL, whenever that comes.
#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    let home = directory();
    let mut kept: Vec<(String, Vec<u8>)> = Vec::new();
    for round in 0..6_u64 {
        let server = Server::directory(home.path(), &[]);
        for (target, content) in &kept {
            assert!(server.get(target).is(200).body == *content, "{target}");
        }
        let location = server.begin("a");
        server.send("PATCH", &location, &[], &[1; 300_000]).is(202);
        let acknowledged = std::sync::Mutex::new(Vec::new());
        let pid = rustix::process::Pid::from_child(&server.child);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (server, acknowledged) = (&server, &acknowledged);
                scope.spawn(move || {
                    for number in 0.. {
                        let content = format!("{round} {thread} {number} ").repeat(20_000).into_bytes();
                        let digest = Digest::of(&content);
                        let target = format!("/v2/a/blobs/uploads/?digest={digest}");
                        match server.try_send("POST", &target, &[], &content) {
                            Ok(answer) if answer.status == 201 => {}
                            _ => return,
                        }
                        let mut all = acknowledged.lock().expect("lock");
                        all.push((format!("/v2/a/blobs/{digest}"), content));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(150 + 70 * round));
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
        });
        drop(server);
        kept.extend(acknowledged.into_inner().expect("lock"));
        // The upload goes on.
        let server = Server::directory(home.path(), &[]);
        assert_eq!(server.get(&location).is(204).header("range"), "0-299999");
        let digest = Digest::of(&[1; 300_002]);
        let target = format!("{location}?digest={digest}");
        server.send("PUT", &target, &[("content-range", "300000-300001")], &[1; 2]).is(201);
        server.send("DELETE", &format!("/v2/a/blobs/{digest}"), &[], b"").is(202);
    }
    assert!(!kept.is_empty());
}

/// Many clients at once, each pushing an image of shared and own layers and pulling it again.
#[test]
fn parallel_pushes_and_pulls_lose_nothing() {
    let home = directory();
    let server = Server::directory(home.path(), &["--grace", "120"]);
    std::thread::scope(|scope| {
        for number in 0..crowd() {
            let server = &server;
            scope.spawn(move || {
                let name = format!("team{}/app{}", number % 7, number % 40);
                let (config, layer) = (format!("{{\"n\":{number}}}"), format!("layer {}", number % 20).repeat(5000));
                server.blob(&name, config.as_bytes());
                server.blob(&name, layer.as_bytes());
                let value = manifest(&config, &layer);
                let digest = server.put(&name, &format!("v{number}"), &value);
                server.put(&name, "latest", &value);
                let got = server.get(&format!("/v2/{name}/manifests/v{number}")).is(200);
                assert_eq!(got.header("docker-content-digest"), digest.to_string());
                let blob = Digest::of(layer.as_bytes());
                assert!(server.get(&format!("/v2/{name}/blobs/{blob}")).is(200).body == layer.as_bytes());
            });
        }
    });
    for number in 0..crowd() {
        let name = format!("team{}/app{}", number % 7, number % 40);
        let value = server.get(&format!("/v2/{name}/manifests/v{number}")).is(200).json();
        for blob in [&value["config"], &value["layers"][0]] {
            let target = format!("/v2/{name}/blobs/{}", blob["digest"].as_str().expect("digest"));
            server.send("HEAD", &target, &[], b"").is(200);
        }
    }
    let count = |path: PathBuf| std::fs::read_dir(path).expect("read").count();
    assert_eq!(count(home.path().join("registry/blobs/sha256")), crowd() + 20, "shared layers are stored once");
    assert_eq!(count(home.path().join("registry/uploads")), 0);
}

/// Many clients at once push images into the store, half of them with a layer that others have too, and pull them again.
#[test]
fn parallel_pushes_into_the_store_lose_nothing() {
    let home = directory();
    let count = crowd() / 2;
    let server = Server::start(home.path(), &["--writable", "--grace", "120"]);
    let image = |number: usize| {
        let text = if number.is_multiple_of(2) { format!("shared {}", number % 10) } else { format!("own {number}") };
        parts(&text.repeat(3000), native())
    };
    let name = |number: usize| format!("team{}/app{}", number % 7, number % 40);
    std::thread::scope(|scope| {
        for number in 0..count {
            let (server, image, name) = (&server, image(number), name(number));
            scope.spawn(move || {
                image.push(server, &name, &format!("v{number}"));
                image.push(server, &name, "latest");
                image.is_served(server, &name, &format!("v{number}"));
            });
        }
    });
    for number in 0..count {
        image(number).is_served(&server, &name(number), &format!("v{number}"));
    }
    let listed =
        finish(&mut hull(home.path(), &["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", "--no-trunc"])).ok();
    for number in 0..count {
        let line = format!("{}:v{number} {}", name(number), image(number).id());
        assert!(listed.text().lines().any(|one| one == line), "{line}");
    }
    let _ = finish(&mut hull(home.path(), &["system", "check"])).ok();
}

/// Images whose tag was acknowledged are there, in the registry and in the store, after SIGKILL at any moment.
#[test]
fn kill_9_loses_no_image_of_the_store() {
    let home = directory();
    let mut kept: Vec<(String, Parts)> = Vec::new();
    for round in 0..6_u64 {
        let server = Server::start(home.path(), &["--writable"]);
        let acknowledged = std::sync::Mutex::new(Vec::new());
        let pid = rustix::process::Pid::from_child(&server.child);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (server, acknowledged) = (&server, &acknowledged);
                scope.spawn(move || {
                    for number in 0.. {
                        let tag = format!("v{round}-{thread}-{number}");
                        let image = parts(&format!("{tag} ").repeat(20_000), native());
                        if !matches!(image.try_push(server, "team/app", &tag), Ok(true)) {
                            return;
                        }
                        acknowledged.lock().expect("lock").push((tag, image));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(200 + 97 * round));
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
        });
        drop(server);
        kept.extend(acknowledged.into_inner().expect("lock"));
        let _ = finish(&mut hull(home.path(), &["system", "check"])).ok();
        let server = Server::start(home.path(), &[]);
        for (tag, image) in &kept {
            image.is_served(&server, "team/app", tag);
        }
    }
    let listed = finish(&mut hull(home.path(), &["images", "--format", "{{.Tag}} {{.ID}}", "--no-trunc"])).ok();
    for (tag, image) in &kept {
        let line = format!("{tag} {}", image.id());
        assert!(listed.text().lines().any(|one| one == line), "{line}");
    }
    assert!(!kept.is_empty());
}

#[test]
fn garbage_goes_while_serving() {
    let home = directory();
    let server = Server::directory(home.path(), &["--grace", "2"]);
    let value = server.manifest("a", "kept");
    server.put("a", "v1", &value);
    let gone = server.manifest("b", "gone");
    let digest = server.put("b", "v1", &gone);
    server.send("DELETE", &format!("/v2/b/manifests/{digest}"), &[], b"").is(202);
    let blobs = || std::fs::read_dir(home.path().join("registry/blobs/sha256")).expect("read").count();
    assert_eq!(blobs(), 4);
    let begun = Instant::now();
    while blobs() > 2 && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(blobs(), 2);
    for blob in [&value["config"], &value["layers"][0]] {
        server.get(&format!("/v2/a/blobs/{}", blob["digest"].as_str().expect("digest"))).is(200);
    }
    let layer = gone["layers"][0]["digest"].as_str().expect("digest");
    server.get(&format!("/v2/b/blobs/{layer}")).fails(404, "BLOB_UNKNOWN");
}
