//! Hull and skopeo as clients; the image store, a proxy and standard input as servers.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::{finish, finish_within, json, tier};

use crate::client::{Server, directory, hull};

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
