//! Pushes into Hull's own store.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hull_oci::Digest;
use hull_testkit::{Value, finish, json};

use crate::client::{INDEX, OCI, Server, directory, hull};
use crate::images::{Parts, native, parts};

fn id(home: &Path, name: &str) -> String {
    finish(&mut hull(home, &["image", "inspect", "--format", "{{.Id}}", name])).ok().text().to_owned()
}

fn writable(home: &Path) -> Server {
    Server::start(home, &["--writable"])
}

#[test]
fn a_pushed_tag_is_an_image_and_comes_back_bit_by_bit() {
    let home = directory();
    let image = parts("one", native());
    {
        let server = writable(home.path());
        image.push(&server, "team/app", "v1");
        assert_eq!(id(home.path(), "team/app:v1"), image.id());
        assert_eq!(id(home.path(), &format!("team/app@{}", image.digest())), image.id());
        let listed = server.get("/v2/team/app/tags/list").is(200).json();
        assert_eq!(listed, json!({"name": "team/app", "tags": ["v1"]}));
        assert_eq!(server.get("/v2/_catalog").json(), json!({"repositories": ["team/app"]}));
    }
    // Also by a server that may only read.
    let server = Server::start(home.path(), &[]);
    for reference in ["v1", &image.digest().to_string()] {
        let got = server.get(&format!("/v2/team/app/manifests/{reference}")).is(200);
        assert!(got.body == image.manifest && got.header("content-type") == OCI, "{got:?}");
    }
    for blob in [&image.config, &image.layer] {
        assert!(server.get(&format!("/v2/team/app/blobs/{}", Digest::of(blob))).is(200).body == *blob);
    }
    // The compressed layer is on the disk once.
    let hex = Digest::of(&image.layer).hex().to_owned();
    let inode = |path: &str| std::fs::metadata(home.path().join(path).join(&hex)).expect("blob").ino();
    assert_eq!(inode("data/blobs/sha256"), inode("data/registry/blobs/sha256"));
    let _ = finish(&mut hull(home.path(), &["system", "check"])).ok();
}

#[test]
fn an_index_stays_what_it_is_and_its_native_image_has_the_name() {
    let home = directory();
    let server = writable(home.path());
    let (own, other) = (parts("own", native()), parts("other", "s390x"));
    for image in [&own, &other] {
        image.push(&server, "multi", &image.digest().to_string());
    }
    let none = finish(&mut hull(home.path(), &["images", "-q"])).ok();
    assert_eq!(none.text(), "", "what has no tag is no image");
    let member = |image: &Parts, architecture: &str| {
        json!({"mediaType": OCI, "digest": image.digest().to_string(),
        "size": image.manifest.len(), "platform": {"os": "linux", "architecture": architecture}})
    };
    let index =
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [member(&other, "s390x"), member(&own, native())]});
    let index = format!("{index}  ").into_bytes();
    server.send("PUT", "/v2/multi/manifests/v1", &[("content-type", INDEX)], &index).is(201);
    assert_eq!(id(home.path(), "multi:v1"), own.id());
    let got = server.get("/v2/multi/manifests/v1").is(200);
    assert!(got.body == index && got.header("content-type") == INDEX, "{got:?}");
    for image in [&own, &other] {
        assert!(server.get(&format!("/v2/multi/manifests/{}", image.digest())).is(200).body == image.manifest);
        server.get(&format!("/v2/multi/blobs/{}", Digest::of(&image.layer))).is(200);
    }
}

#[test]
fn the_store_decides_what_a_tag_is() {
    let home = directory();
    let server = writable(home.path());
    let (one, two) = (parts("one", native()), parts("two", native()));
    one.push(&server, "app", "v1");
    two.push(&server, "app", "v2");
    let served = |reference: &str| -> Value { server.get(&format!("/v2/app/manifests/{reference}")).is(200).json() };
    // Renamed here.
    let _ = finish(&mut hull(home.path(), &["tag", "app:v2", "app:v1"])).ok();
    assert_eq!(served("v1")["config"]["digest"], two.id());
    // Pushed again.
    one.push(&server, "app", "v1");
    assert_eq!((served("v1")["config"]["digest"].clone(), id(home.path(), "app:v1")), (json!(one.id()), one.id()));
    // Removed here: the bytes go too, for good.
    let _ = finish(&mut hull(home.path(), &["rmi", "app:v1"])).ok();
    server.get("/v2/app/manifests/v1").fails(404, "MANIFEST_UNKNOWN");
    assert_eq!(server.get("/v2/app/tags/list").json()["tags"], json!(["v2"]));
    server.get(&format!("/v2/app/manifests/{}", one.digest())).fails(404, "MANIFEST_UNKNOWN");
    server.get(&format!("/v2/app/blobs/{}", Digest::of(&one.layer))).fails(404, "BLOB_UNKNOWN");
    assert!(!home.path().join("data/registry/blobs/sha256").join(Digest::of(&one.layer).hex()).exists());
    assert_eq!(served("v2")["annotations"]["x"], "two");
    // Removed there: by tag, by digest.
    server.send("DELETE", "/v2/app/manifests/v2", &[], b"").is(202);
    finish(&mut hull(home.path(), &["image", "inspect", "app:v2"])).fails("app:v2");
    server.get("/v2/app/manifests/v2").fails(404, "MANIFEST_UNKNOWN");
    one.push(&server, "app", "v3");
    one.push(&server, "app", "v4");
    server.send("DELETE", &format!("/v2/app/manifests/{}", one.digest()), &[], b"").is(202);
    for tag in ["v3", "v4"] {
        server.get(&format!("/v2/app/manifests/{tag}")).fails(404, "MANIFEST_UNKNOWN");
        finish(&mut hull(home.path(), &["image", "inspect", &format!("app:{tag}")])).fails("app");
    }
    let _ = finish(&mut hull(home.path(), &["system", "check"])).ok();
}

#[test]
fn what_is_no_image_stays_in_the_registry() {
    let home = directory();
    let server = writable(home.path());
    let image = parts("one", native());
    image.push(&server, "app", "v1");
    let mut signature = server.manifest("app", "signature");
    signature["config"]["mediaType"] = json!("application/vnd.example+json");
    signature["subject"] =
        json!({"mediaType": OCI, "digest": image.digest().to_string(), "size": image.manifest.len()});
    let digest = server.put("app", "signed", &signature);
    assert_eq!(finish(&mut hull(home.path(), &["images", "-q"])).ok().lines().len(), 1);
    server.get("/v2/app/manifests/signed").is(200);
    let found = server.get(&format!("/v2/app/referrers/{}", image.digest())).is(200).json();
    assert_eq!(found["manifests"][0]["digest"], digest.to_string());
    let listed = server.get("/v2/app/tags/list").json();
    assert_eq!(listed["tags"], json!(["signed", "v1"]));
    // It takes the tag of an image.
    server.put("app", "v1", &signature);
    finish(&mut hull(home.path(), &["image", "inspect", "app:v1"])).fails("app:v1");
    assert_eq!(server.get("/v2/app/manifests/v1").is(200).header("docker-content-digest"), digest.to_string());
}

#[test]
fn images_that_do_not_hold_what_they_say_are_refused() {
    let home = directory();
    let server = writable(home.path());
    let (good, other) = (parts("one", native()), parts("two", native()));
    // The configuration of one and the layer of another.
    good.push_blobs(&server, "app");
    other.push_blobs(&server, "app");
    let mut wrong: Value = serde_json::from_slice(&good.manifest).expect("manifest");
    let theirs: Value = serde_json::from_slice(&other.manifest).expect("manifest");
    wrong["layers"] = theirs["layers"].clone();
    let bytes = wrong.to_string();
    let put = |name: &str, bytes: &str| {
        server.send("PUT", &format!("/v2/{name}/manifests/v1"), &[("content-type", OCI)], bytes.as_bytes())
    };
    put("app", &bytes).fails(400, "MANIFEST_INVALID");
    server.get("/v2/app/manifests/v1").is(404);
    server.get(&format!("/v2/app/manifests/{}", Digest::of(bytes.as_bytes()))).is(404);
    // No archive at all.
    server.blob("app", b"no archive");
    wrong["layers"][0]["digest"] = json!(Digest::of(b"no archive").to_string());
    wrong["layers"][0]["size"] = json!(10);
    put("app", &wrong.to_string()).fails(400, "MANIFEST_INVALID");
    // A wrong size.
    let mut wrong: Value = serde_json::from_slice(&good.manifest).expect("manifest");
    wrong["layers"][0]["size"] = json!(good.layer.len() + 1);
    put("app", &wrong.to_string()).fails(400, "MANIFEST_INVALID");
    assert_eq!(finish(&mut hull(home.path(), &["images", "-q", "-a"])).ok().text(), "");
    good.push(&server, "app", "v1");
    let _ = finish(&mut hull(home.path(), &["system", "check"])).ok();
}

#[test]
fn nobody_pushes_into_the_store_unasked() {
    let home = directory();
    let server = Server::start(home.path(), &[]);
    server.send("POST", "/v2/app/blobs/uploads/", &[], b"").fails(405, "UNSUPPORTED");
    server.send("PUT", "/v2/app/manifests/v1", &[], b"{}").fails(405, "UNSUPPORTED");
    server.send("DELETE", "/v2/app/manifests/v1", &[], b"").fails(405, "UNSUPPORTED");
    finish(&mut hull(home.path(), &["registry", "serve", "--writable", "--read-only"])).fails("cannot specify both");
}

#[test]
fn blobs_of_local_images_are_mounted_and_need_not_be_sent() {
    let home = directory();
    let server = writable(home.path());
    let image = parts("one", native());
    std::fs::write(home.path().join("a.tar"), &image.tar).expect("written");
    let _ = finish(&mut hull(home.path(), &["import", "a.tar", "local:v1"])).ok();
    let value = server.get("/v2/local/manifests/v1").is(200).json();
    let layer = value["layers"][0]["digest"].as_str().expect("digest").to_owned();
    for (name, from) in [("b", "&from=local"), ("c", "")] {
        let target = format!("/v2/{name}/blobs/uploads/?mount={layer}{from}");
        server.send("POST", &target, &[], b"").is(201);
        server.get(&format!("/v2/{name}/blobs/{layer}")).is(200);
    }
    // The client asks, is told that all is there, and sends the manifest alone.
    for blob in [&layer, value["config"]["digest"].as_str().expect("digest")] {
        server.send("HEAD", &format!("/v2/local/blobs/{blob}"), &[], b"").is(200);
    }
    server.put("local", "v2", &value);
    assert_eq!(id(home.path(), "local:v2"), id(home.path(), "local:v1"));
    // A container keeps its image.
    image.push(&server, "app", "v1");
    let _ = finish(&mut hull(home.path(), &["system", "check"])).ok();
}

/// Two servers and commands on one store.
#[test]
fn many_processes_serve_one_store() {
    let home = directory();
    let servers = [writable(home.path()), writable(home.path())];
    let images: Vec<Parts> = (0..6).map(|number| parts(&format!("number {number}"), native())).collect();
    std::thread::scope(|scope| {
        for (number, image) in images.iter().enumerate() {
            let servers = &servers;
            scope.spawn(move || {
                let server = &servers[number % 2];
                image.push(server, "app", &format!("v{number}"));
                let other = &servers[(number + 1) % 2];
                assert!(other.get(&format!("/v2/app/manifests/v{number}")).is(200).body == image.manifest);
            });
        }
    });
    for (number, image) in images.iter().enumerate() {
        assert_eq!(id(home.path(), &format!("app:v{number}")), image.id());
    }
    let _ = finish(&mut hull(home.path(), &["system", "check"])).ok();
}
