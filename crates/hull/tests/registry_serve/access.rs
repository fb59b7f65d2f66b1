//! Who may do what: read-only servers, passwords, TLS.

use std::io::Write as _;
use std::process::{Command, Stdio};

use hull_testkit::{finish, tier};

use crate::client::{Server, directory, hull};

#[test]
fn read_only_servers_change_nothing() {
    let home = directory();
    {
        let server = Server::directory(home.path(), &[]);
        let value = server.manifest("a", "one");
        server.put("a", "v1", &value);
        // Two servers would not know of each other's locks.
        let second = finish(&mut hull(home.path(), &["registry", "serve", "--storage", "registry"]));
        second.fails("served by another process");
    }
    let server = Server::directory(home.path(), &["--read-only"]);
    server.get("/v2/a/manifests/v1").is(200);
    server.send("POST", "/v2/a/blobs/uploads/", &[], b"").fails(405, "UNSUPPORTED");
    server.send("PUT", "/v2/a/manifests/v2", &[], b"{}").fails(405, "UNSUPPORTED");
    server.send("DELETE", "/v2/a/manifests/v1", &[], b"").fails(405, "UNSUPPORTED");
    server.get("/v2/a/manifests/v1").is(200);
}

#[test]
fn passwords_are_asked_for() {
    let home = directory();
    // anna:secret, of `htpasswd -B`.
    let hash = "$2y$04$a.3/coSeBTsvuod.4nFOGur0.ktTd3N3stz2foS42YtVoDrypjyUi";
    std::fs::write(home.path().join("users"), format!("anna:{hash}\n")).expect("written");
    let server = Server::directory(home.path(), &["--htpasswd", "users"]);
    let refused = server.get("/v2/").fails(401, "UNAUTHORIZED");
    assert!(refused.header("www-authenticate").starts_with("Basic realm="), "{refused:?}");
    // otto:secret, anna:wrong
    for wrong in ["b3R0bzpzZWNyZXQ=", "YW5uYTp3cm9uZw==", "!"] {
        server.send("GET", "/v2/", &[("authorization", &format!("Basic {wrong}"))], b"").fails(401, "UNAUTHORIZED");
        let upload = [("authorization", &*format!("Basic {wrong}"))];
        server.send("POST", "/v2/a/blobs/uploads/", &upload, b"").fails(401, "UNAUTHORIZED");
    }
    // anna:secret
    let right = [("authorization", "Basic YW5uYTpzZWNyZXQ=")];
    server.send("GET", "/v2/", &right, b"").is(200);
    server.send("POST", "/v2/a/blobs/uploads/", &right, b"").is(202);
    std::fs::write(home.path().join("users"), "anna:secret\n").expect("written");
    let words = ["registry", "serve", "--storage", "other", "--htpasswd", "users"];
    finish(&mut hull(home.path(), &words)).fails("line 1");
}

#[test]
fn tls() {
    let Some(openssl) = tier::tool("openssl") else { return };
    let home = directory();
    let mut make = Command::new(&openssl);
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    make.args(["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=registry", "-addext"]);
    let _ = finish(make.arg("subjectAltName=IP:127.0.0.1").current_dir(home.path())).ok();
    let server = Server::directory(home.path(), &["--tls-cert", "cert.pem", "--tls-key", "key.pem"]);
    let mut client = Command::new(&openssl);
    client.args(["s_client", "-quiet", "-verify_return_error", "-CAfile", "cert.pem", "-verify_ip", "127.0.0.1"]);
    client.args(["-connect", &format!("127.0.0.1:{}", server.port)]).current_dir(home.path());
    let mut child =
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("openssl starts");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(b"GET /v2/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("sent");
    let output = child.wait_with_output().expect("ended");
    drop(stdin);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    // A certificate for a key.
    let words = ["registry", "serve", "--storage", "other", "--tls-cert", "key.pem", "--tls-key", "key.pem"];
    finish(&mut hull(home.path(), &words)).fails("use the certificate key.pem");
}
