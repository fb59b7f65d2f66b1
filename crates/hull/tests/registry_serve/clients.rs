//! Hull and skopeo as clients; the image store, a proxy and standard input as servers.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::registry::Peer;
use hull_testkit::{finish, finish_within, json, tier};

use crate::client::{INDEX, OCI, Server, USERS, directory, hull};
use crate::images::{native, parts};

/// An image of a few files in `home`'s store.
fn import(home: &Path, name: &str) -> String {
    let files = home.join("files");
    std::fs::create_dir_all(&files).expect("directory");
    std::fs::write(files.join("file"), vec![3; 100_000]).expect("written");
    let mut tar = Command::new("tar");
    let _ = finish(tar.args(["-cf", "a.tar", "-C", "files", "."]).current_dir(home)).ok();
    let _ = finish(&mut hull(home, &["import", "a.tar", name])).ok();
    id(home, name)
}

fn id(home: &Path, name: &str) -> String {
    let listed = finish(&mut hull(home, &["image", "inspect", "--format", "{{.Id}}", name])).ok();
    listed.text().to_owned()
}

#[test]
fn hull_pushes_and_pulls_and_a_proxy_keeps_it() {
    let (home, other, cache) = (directory(), directory(), directory());
    let server = Server::directory(home.path(), &[]);
    let name = format!("127.0.0.1:{}/team/app:v1", server.port);
    let image = import(home.path(), &name);
    let _ = finish(&mut hull(home.path(), &["push", &name])).ok();
    let _ = finish(&mut hull(other.path(), &["pull", &name])).ok();
    assert_eq!(id(other.path(), &name), image);

    let upstream = format!("http://127.0.0.1:{}", server.port);
    let proxy = Server::directory(cache.path(), &["--proxy", &upstream]);
    let mirrored = format!("127.0.0.1:{}/team/app:v1", proxy.port);
    let _ = finish(&mut hull(other.path(), &["rmi", &name])).ok();
    let _ = finish(&mut hull(other.path(), &["pull", &mirrored])).ok();
    assert_eq!(id(other.path(), &mirrored), image);
    proxy.send("POST", "/v2/a/blobs/uploads/", &[], b"").fails(405, "UNSUPPORTED");
    proxy.get("/v2/team/app/manifests/none").fails(404, "MANIFEST_UNKNOWN");
    // Without upstream, what was asked for once is still there.
    drop(server);
    let _ = finish(&mut hull(other.path(), &["rmi", &mirrored])).ok();
    let _ = finish_within(&mut hull(other.path(), &["pull", &mirrored]), Duration::from_secs(120)).ok();
    assert_eq!(id(other.path(), &mirrored), image);
}

#[test]
fn the_image_store_is_served() {
    let (home, other) = (directory(), directory());
    let image = import(home.path(), "team/app:v1");
    let server = Server::start(home.path(), &[]);
    assert_eq!(server.get("/v2/_catalog").is(200).json(), json!({"repositories": ["team/app"]}));
    assert_eq!(server.get("/v2/team/app/tags/list").is(200).json()["tags"], json!(["v1"]));
    server.get("/v2/team/app/manifests/v2").fails(404, "MANIFEST_UNKNOWN");
    server.get("/v2/none/manifests/v1").fails(404, "NAME_UNKNOWN");
    server.send("POST", "/v2/team/app/blobs/uploads/", &[], b"").fails(405, "UNSUPPORTED");
    let name = format!("127.0.0.1:{}/team/app:v1", server.port);
    let _ = finish(&mut hull(other.path(), &["pull", &name])).ok();
    assert_eq!(id(other.path(), &name), image);
}

#[test]
fn one_client_on_standard_input() {
    let home = directory();
    let mut command = hull(home.path(), &["registry", "serve", "--stdio", "--storage", "registry"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("hull starts");
    let requests =
        b"GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\nGET /v2/a/tags/list HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    child.stdin.as_mut().expect("stdin").write_all(requests).expect("sent");
    let output = child.wait_with_output().expect("ended");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.starts_with("HTTP/1.1 200 OK") && text.contains("HTTP/1.1 404") && text.contains("NAME_UNKNOWN"),
        "{text}"
    );
    assert!(output.status.success());
}

#[test]
fn skopeo_copies_both_ways() {
    let Some(skopeo) = tier::tool("skopeo") else { return };
    let (home, other) = (directory(), directory());
    let server = Server::directory(home.path(), &[]);
    let name = format!("127.0.0.1:{}/team/app:v1", server.port);
    let image = import(home.path(), &name);
    let _ = finish(&mut hull(home.path(), &["push", &name])).ok();
    let copy = |from: &str, to: &str| {
        let mut command = Command::new(&skopeo);
        command.args(["copy", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false", from, to]);
        let _ = finish(command.current_dir(home.path()).env("HOME", home.path())).ok();
    };
    copy(&format!("docker://{name}"), "oci:layout:v1");
    let second = format!("127.0.0.1:{}/other/app:v2", server.port);
    copy("oci:layout:v1", &format!("docker://{second}"));
    let _ = finish(&mut hull(other.path(), &["pull", &second])).ok();
    assert_eq!(id(other.path(), &second), image);
}

/// An index, with a token of a user, by TLS, into the image store and out of it.
#[test]
fn skopeo_logs_in_and_copies_an_index() {
    let (Some(skopeo), Some(openssl)) = (tier::tool("skopeo"), tier::tool("openssl")) else { return };
    let (home, source) = (directory(), directory());
    let plain = Server::directory(source.path(), &[]);
    let (own, other) = (parts("own", native()), parts("other", "s390x"));
    let mut members = Vec::new();
    for (image, architecture) in [(&other, "s390x"), (&own, native())] {
        image.push(&plain, "app", &image.digest().to_string());
        members.push(json!({"mediaType": OCI, "digest": image.digest().to_string(), "size": image.manifest.len(),
            "platform": {"os": "linux", "architecture": architecture}}));
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": members});
    let digest = plain.put("app", "v1", &index);

    let mut make = Command::new(&openssl);
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    make.args(["-keyout", "key.pem", "-out", "ca.crt", "-subj", "/CN=registry", "-addext"]);
    let _ = finish(make.arg("subjectAltName=IP:127.0.0.1").current_dir(home.path())).ok();
    std::fs::write(home.path().join("users"), USERS).expect("written");
    let words = ["--htpasswd", "users", "--token", "--tls-cert", "ca.crt", "--tls-key", "key.pem"];
    let server = Server::start(home.path(), &words);
    let host = format!("127.0.0.1:{}", server.port);
    let run = |words: &[&str]| {
        let mut command = Command::new(&skopeo);
        command.args(words).current_dir(home.path()).env("HOME", home.path());
        finish(command.env("REGISTRY_AUTH_FILE", home.path().join("auth.json")))
    };
    let from = format!("docker://127.0.0.1:{}/app:v1", plain.port);
    let to = format!("docker://{host}/team/app:v1");
    let push = ["copy", "--all", "--insecure-policy", "--src-tls-verify=false", "--dest-cert-dir=.", &from, &to];
    run(&push).fails("unauthorized");
    run(&["login", "--cert-dir=.", "-u", "anna", "-p", "wrong", &host]).fails("");
    let _ = run(&["login", "--cert-dir=.", "-u", "anna", "-p", "secret", &host]).ok();
    let _ = run(&push).ok();
    assert_eq!(id(home.path(), "team/app:v1"), own.id());
    let raw = run(&["inspect", "--raw", "--cert-dir=.", &to]).ok();
    assert_eq!(hull_oci::Digest::of(raw.stdout.as_bytes()), digest);
    let _ = run(&["copy", "--all", "--insecure-policy", "--src-cert-dir=.", &to, "oci:back:v1"]).ok();
    for image in [&own, &other] {
        let path = home.path().join("back/blobs/sha256").join(image.digest().hex());
        assert!(std::fs::read(path).expect("manifest") == image.manifest);
    }
}

/// Through a cache of Debian's registry, also when that is gone.
#[test]
fn a_proxy_of_docker_registry() {
    let Some(upstream) = Peer::start("") else { return };
    let home = directory();
    let image = parts("cached", native());
    let words = ["--proxy", &format!("http://127.0.0.1:{}", upstream.port)];
    let proxy = Server::directory(home.path(), &words);
    proxy.get("/v2/team/app/manifests/v1").fails(404, "NAME_UNKNOWN");
    // The same client speaks to both.
    let peer = Server { child: Command::new("true").spawn().expect("true"), port: upstream.port };
    let send =
        |method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]| peer.send(method, target, headers, body);
    for blob in [&image.config, &image.layer] {
        let begun = send("POST", "/v2/team/app/blobs/uploads/", &[], b"").is(202);
        let location = begun.header("location").split_once("/v2/").map(|(_, rest)| format!("/v2/{rest}"));
        let target = format!("{}&digest={}", location.expect("location"), hull_oci::Digest::of(blob));
        send("PUT", &target, &[("content-type", "application/octet-stream")], blob).is(201);
    }
    send("PUT", "/v2/team/app/manifests/v1", &[("content-type", OCI)], &image.manifest).is(201);
    image.is_served(&proxy, "team/app", "v1");
    drop((peer, upstream));
    image.is_served(&proxy, "team/app", "v1");
    image.is_served(&proxy, "team/app", &image.digest().to_string());
}
