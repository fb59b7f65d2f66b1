//! Containers through the Engine API, by requests as clients send them.

use crate::server::{Server, demultiplex};
use base64::Engine as _;
use serde_json::{Value, json};

#[test]
fn root_api_says_who_it_is_and_checks_versions() {
    let Some(server) = Server::new(&[]) else { return };
    let ping = server.get("/_ping").is(200);
    assert_eq!(ping.text(), "OK");
    assert_eq!(ping.header("api-version"), Some("1.51"));
    assert_eq!(ping.header("ostype"), Some("linux"));
    assert_eq!(server.send("HEAD", "/v1.24/_ping", &[], b"").status, 200);
    assert_eq!(server.get("/version").is(200).json()["MinAPIVersion"], "1.24");
    assert_eq!(server.get("/v1.51/info").is(200).json()["OSType"], "linux");
    server.get("/v1.23/info").refused(400, "client version 1.23 is too old. Minimum supported API version is 1.24");
    server.get("/v1.52/info").refused(400, "client version 1.52 is too new. Maximum supported API version is 1.51");
    for path in ["/", "/nothing", "/v1.41/containers", "/containers/a/b/json", "/vx/info"] {
        server.get(path).refused(404, "page not found");
    }
    server.get("/nodes").refused(503, "This node is not a swarm manager");
    assert_eq!(server.get("/plugins").is(200).json(), json!([]));
}

#[test]
fn root_api_life_of_a_container() {
    let Some(server) = Server::with_image(&[]) else { return };
    let more = json!({ "Labels": { "a": "b" }, "HostConfig": { "Memory": 64 << 20, "Dns": null }, "Env": null });
    let id = server.create("one", &["sleep", "100"], more);
    let document = server.get("/containers/one/json").is(200).json();
    assert_eq!((document["Name"].as_str(), document["State"]["Status"].as_str()), (Some("/one"), Some("created")));
    assert_eq!(document["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(server.get("/containers/json").json(), json!([]));
    let list = server.get("/containers/json?all=1&filters=%7B%22label%22%3A%7B%22a%3Db%22%3Atrue%7D%7D").is(200).json();
    assert_eq!((&list[0]["Id"], &list[0]["Names"][0]), (&json!(id), &json!("/one")));
    let none = server.get("/containers/json?all=1&filters=%7B%22label%22%3A%5B%22a%3Dc%22%5D%7D").is(200).json();
    assert_eq!(none, json!([]));
    server.post("/containers/one/start", &Value::Null).is(204);
    server.post("/containers/one/start", &Value::Null).is(304);
    assert_eq!(server.get("/containers/json").json()[0]["State"], "running");
    let top = server.get("/containers/one/top").is(200).json();
    assert!(
        top["Processes"][0].as_array().is_some_and(|row| row.len() == top["Titles"].as_array().map_or(0, Vec::len))
    );
    server.post("/containers/one/pause", &Value::Null).is(204);
    server.post("/containers/one/pause", &Value::Null).refused(409, "already paused");
    assert_eq!(server.get("/containers/one/json").json()["State"]["Status"], "paused");
    server.post("/containers/one/unpause", &Value::Null).is(204);
    let stats = server.get("/containers/one/stats?stream=0&one-shot=1").is(200).json();
    assert_eq!(stats["name"], "/one");
    assert!(stats["memory_stats"]["limit"].as_u64().is_some_and(|limit| limit == 64 << 20), "{stats}");
    server.delete("/containers/one").refused(409, "cannot remove container \"one\": container is running");
    server.post("/containers/one/rename?name=two", &Value::Null).is(204);
    let taken = json!({ "Image": "probe" });
    server
        .post("/containers/create?name=two", &taken)
        .refused(409, "Conflict. The container name \"/two\" is already in use");
    server.post("/containers/two/update", &json!({ "Memory": 96 << 20, "MemorySwap": 200 << 20 })).is(200);
    assert_eq!(server.get("/containers/two/json").json()["HostConfig"]["Memory"], 96 << 20);
    server.post("/containers/two/kill?signal=KILL", &Value::Null).is(204);
    server.post("/containers/two/kill", &Value::Null).refused(409, "is not running");
    assert_eq!(server.get("/containers/two/json").json()["State"]["ExitCode"], 137);
    server.post("/containers/two/stop", &Value::Null).is(304);
    server.post("/containers/two/restart?t=0", &Value::Null).is(204);
    server.post("/containers/two/stop?t=0", &Value::Null).is(204);
    server.delete("/containers/two?v=True&link=False&force=True").is(204);
    server.get("/containers/two/json").refused(404, "No such container: two");
    server.finish();
}

#[test]
fn root_api_refuses_what_is_wrong_and_goes_on() {
    let Some(server) = Server::with_image(&[]) else { return };
    let create = "/containers/create";
    let kind = ("Content-Type", "application/json");
    server.send("POST", create, &[kind], b"").refused(400, "invalid JSON: got EOF while reading request body");
    server.send("POST", create, &[kind], b"null").refused(400, "config cannot be empty");
    server.send("POST", create, &[kind], b"{}").refused(400, "config cannot be empty");
    server.send("POST", create, &[kind], b"{").refused(400, "invalid JSON");
    server.send("POST", create, &[kind], b"{} x").refused(400, "unexpected content after JSON");
    server.send("POST", create, &[kind], b"[1]").refused(400, "invalid JSON");
    server.send("POST", create, &[("Content-Type", "text/plain")], b"{}").refused(400, "must be 'application/json'");
    for (body, status, part) in [
        (json!({ "Image": "absent" }), 404, "No such image: absent:latest"),
        (json!({ "Image": 7 }), 400, "invalid JSON"),
        (json!({ "Image": "probe", "Cmd": [1] }), 400, "invalid JSON"),
        (json!({ "Image": "probe", "HostConfig": { "Memory": 1 } }), 400, "Minimum memory limit allowed is 6MB"),
        (json!({ "Image": "probe", "HostConfig": { "Binds": ["a:b:c:d"] } }), 400, "invalid volume specification"),
        (
            json!({ "Image": "probe", "HostConfig": { "RestartPolicy": { "Name": "x" } } }),
            400,
            "invalid restart policy",
        ),
        (json!({ "Image": "probe", "HostConfig": { "PortBindings": { "x": [] } } }), 400, "invalid port specification"),
        (
            json!({ "Image": "probe", "HostConfig": { "Mounts": [{ "Type": "bind", "Target": "/x" }] } }),
            400,
            "field Source must not be empty",
        ),
        (
            json!({ "Image": "probe", "HostConfig": { "Mounts": [{ "Type": "bind", "Source": "/a,readonly=x", "Target": "/x" }] } }),
            400,
            "bind source path does not exist: /a,readonly=x",
        ),
        (json!({ "Image": "probe", "StopSignal": "NOPE" }), 400, "invalid signal"),
        (json!({ "Image": "Probe" }), 400, "repository name (library/Probe) must be lowercase"),
        (json!({ "Image": "probe", "Entrypoint": [""] }), 400, "no command specified"),
        (json!({ "Image": "probe", "Env": ["=x"] }), 400, "invalid environment variable: =x"),
        (json!({ "Image": "probe", "WorkingDir": "x" }), 400, "needs to be an absolute path"),
    ] {
        server.post(create, &body).refused(status, part);
    }
    server.post("/containers/create?name=/a/b", &json!({ "Image": "probe" })).refused(400, "Invalid container name");
    server.get("/containers/json?filters=%7B%22zz%22%3A%5B%22x%22%5D%7D").refused(400, "invalid filter 'zz'");
    server.get("/containers/json?filters=nonsense").refused(400, "invalid filter");
    for path in ["start", "stop", "kill", "pause", "wait", "exec", "rename?name=x", "resize?h=1&w=1"] {
        server
            .post(&format!("/containers/none/{path}"), &json!({ "Cmd": ["x"] }))
            .refused(404, "No such container: none");
    }
    server.post("/exec/none/start", &json!({})).refused(404, "No such exec instance: none");
    server.get("/containers/none/logs").refused(400, "you must choose at least one stream");
    let huge = format!("{{\"Image\":\"{}\"}}", "x".repeat(9 << 20));
    server.send("POST", create, &[kind], huge.as_bytes()).refused(400, "request body too large");
    assert_eq!(server.get("/_ping").text(), "OK");
    server.finish();
}

#[test]
fn root_api_a_start_that_fails_says_why_in_words_that_clients_read() {
    let Some(server) = Server::with_image(&[]) else { return };
    server.create("none", &[], json!({ "Entrypoint": ["/nothing"] }));
    server.post("/containers/none/start", &Value::Null).refused(400, "no such file or directory");
    server.create("directory", &[], json!({ "Entrypoint": ["/etc"] }));
    server.post("/containers/directory/start", &Value::Null).refused(400, "is a directory");
    // What removes itself is gone, and whoever waits for that hears it.
    let id = server.create("gone", &[], json!({ "Entrypoint": ["/nothing"], "HostConfig": { "AutoRemove": true } }));
    let wait = server.upgrade(&format!("/containers/{id}/wait?condition=removed"), &Value::Null);
    assert_eq!(wait.answer.status, 200);
    server.post(&format!("/containers/{id}/start"), &Value::Null).refused(400, "no such file or directory");
    assert!(String::from_utf8_lossy(&wait_body(wait)).contains("\"StatusCode\":127"));
    server.get(&format!("/containers/{id}/json")).refused(404, "No such container");
    server.delete("/containers/none").is(204);
    server.delete("/containers/directory").is(204);
    server.finish();
}

/// The one chunk of an answer.
fn wait_body(mut open: crate::server::Open) -> Vec<u8> {
    use std::io::{BufRead as _, Read as _};
    let mut line = String::new();
    open.reader.read_line(&mut line).expect("a chunk");
    let mut bytes = vec![0; usize::from_str_radix(line.trim(), 16).expect("a length")];
    open.reader.read_exact(&mut bytes).expect("a chunk");
    bytes
}

#[test]
fn root_api_files_go_in_and_out_of_containers_that_do_not_run() {
    let Some(server) = Server::with_image(&[]) else { return };
    server.create("files", &["cat", "/etc/new"], Value::Null);
    server.create("owned", &["true"], json!({ "User": "12:34" }));
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o640);
    archive.append_data(&mut header, "new", &b"hello"[..]).expect("archive");
    let archive = archive.into_inner().expect("archive");
    // As the command line says it.
    let kind = [("Content-Type", "text/plain")];
    server.send("PUT", "/containers/files/archive?path=/etc&noOverwriteDirNonDir=true", &kind, &archive).is(200);
    server
        .send("PUT", "/containers/files/archive?path=/nowhere", &kind, &archive)
        .refused(404, "Could not find the file /nowhere");
    server.send("PUT", "/containers/files/archive?path=/etc/new", &kind, &archive).refused(400, "not a directory");
    server.send("PUT", "/containers/files/archive?path=/etc", &kind, &archive[..700]).is(500);
    server.send("PUT", "/containers/files/archive?path=/etc", &kind, b"x").refused(500, "unexpected EOF");
    // One without an end, and one with nothing in it, are archives.
    server.send("PUT", "/containers/files/archive?path=/etc", &kind, b"").is(200);
    server.send("PUT", "/containers/files/archive?path=/etc", &kind, &archive[..archive.len() - 1024]).is(200);
    let head = server.send("HEAD", "/containers/files/archive?path=/etc/new", &[], b"").is(200);
    let stat = head.header("x-docker-container-path-stat").expect("a header");
    let stat: Value =
        serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(stat).expect("base64")).expect("JSON");
    assert_eq!((&stat["name"], &stat["size"], &stat["mode"]), (&json!("new"), &json!(5), &json!(0o640)));
    // A directory goes for a file and a file for a directory, unless that is not wanted.
    let directory = {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        archive.append_data(&mut header, "new", &b""[..]).expect("archive");
        header.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut header, "new/inside", &b""[..]).expect("archive");
        archive.into_inner().expect("archive")
    };
    let put = |query: &str, bytes: &[u8]| {
        server.send("PUT", &format!("/containers/owned/archive?path=/tmp{query}"), &kind, bytes)
    };
    put("", &archive).is(200);
    put("&noOverwriteDirNonDir=1", &directory).refused(500, "cannot overwrite non-directory");
    put("", &directory).is(200);
    put("&noOverwriteDirNonDir=1", &archive).refused(500, "cannot overwrite directory");
    put("&copyUIDGID=1", &archive).is(200);
    let owners = server.get("/containers/owned/archive?path=/tmp/new").is(200);
    let mut read = tar::Archive::new(owners.body.as_slice());
    let entry = read.entries().expect("entries").next().expect("an entry").expect("entry");
    assert_eq!((entry.header().uid().ok(), entry.header().gid().ok(), entry.size()), (Some(12), Some(34), 5));
    let whole = server.get("/containers/files/archive?path=/etc").is(200);
    let mut names = Vec::new();
    let mut read = tar::Archive::new(whole.body.as_slice());
    for entry in read.entries().expect("entries") {
        names.push(entry.expect("entry").path().expect("path").to_string_lossy().into_owned());
    }
    assert!(names.contains(&"etc/new".to_owned()), "{names:?}");
    server
        .get("/containers/files/archive?path=/absent")
        .refused(404, "Could not find the file /absent in container files");
    server.get("/containers/files/archive").refused(400, "bad parameter: path");
    let changes = server.get("/containers/files/changes").is(200).json();
    assert!(
        changes.as_array().is_some_and(|list| list.contains(&json!({ "Path": "/etc/new", "Kind": 1 }))),
        "{changes}"
    );
    let export = server.get("/containers/files/export").is(200);
    assert!(tar::Archive::new(export.body.as_slice()).entries().expect("entries").count() > 3);
    server.post("/containers/files/start", &Value::Null).is(204);
    server.post("/containers/files/wait", &Value::Null).is(200);
    let logs = server.get("/containers/files/logs?stdout=1&stderr=1").is(200);
    assert_eq!(demultiplex(&logs.body).0.trim_end(), "hello");
    server.delete("/containers/files").is(204);
    server.delete("/containers/owned").is(204);
    server.finish();
}

#[test]
fn root_api_a_container_has_hull_s_first_process_if_it_asks() {
    let Some(server) = Server::with_image(&[]) else { return };
    server.create("one", &["echo", "under init"], json!({ "HostConfig": { "Init": true } }));
    server.post("/containers/one/start", &Value::Null).is(204);
    server.post("/containers/one/wait", &Value::Null).is(200);
    let logs = server.get("/containers/one/logs?stdout=1&stderr=1").is(200);
    assert_eq!(demultiplex(&logs.body).0.trim_end(), "under init");
    server.delete("/containers/one").is(204);
    server.finish();
}

#[test]
fn root_api_prunes_what_has_ended() {
    let Some(server) = Server::with_image(&[]) else { return };
    let ended = server.create("ended", &["echo", "x"], json!({ "Labels": { "keep": "no" } }));
    server.create("kept", &["echo", "x"], json!({ "Labels": { "keep": "yes" } }));
    server.post("/containers/ended/start", &Value::Null).is(204);
    server.post("/containers/ended/wait", &Value::Null).is(200);
    let pruned =
        server.post("/containers/prune?filters=%7B%22label%21%22%3A%7B%22keep%3Dyes%22%3Atrue%7D%7D", &Value::Null);
    assert_eq!(pruned.is(200).json()["ContainersDeleted"], json!([ended]));
    let pruned = server.post("/containers/prune", &Value::Null).is(200).json();
    assert_eq!(pruned["ContainersDeleted"].as_array().map(Vec::len), Some(1));
    assert_eq!(server.post("/containers/prune", &Value::Null).json()["ContainersDeleted"], Value::Null);
    server.finish();
}

#[test]
fn root_api_sockets_are_guarded() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(server) =
        Server::with_image(&["--allow", "GET *", "--allow", "POST /containers/create", "--label", "team=x"])
    else {
        return;
    };
    let mode = std::fs::metadata(server.socket()).expect("socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    server
        .post("/containers/other/start", &Value::Null)
        .refused(403, "this socket does not allow POST /containers/other/start");
    server.delete("/containers/other").refused(403, "does not allow");
    let other = hull_testkit::finish(&mut server.home.container("create", &["--name", "other"], &["echo"])).ok();
    server.get(&format!("/containers/{}/json", other.text())).refused(404, "No such container");
    assert_eq!(server.get("/containers/json?all=1").json(), json!([]));
    drop(server);
    let Some(server) = Server::new(&["--read-only"]) else { return };
    server.post("/containers/create", &json!({ "Image": "x" })).refused(403, "this socket is read-only");
    server.get("/containers/json").is(200);
}

#[test]
fn root_api_ends_when_asked_and_when_idle() {
    let Some(mut server) = Server::new(&[]) else { return };
    server.get("/_ping").is(200);
    assert_eq!(server.end(), Some(0));
    assert!(!server.socket().exists());
    let Some(server) = Server::new(&["--idle", "0"]) else { return };
    let socket = server.socket();
    server.home.until("an idle server ends", || !socket.exists());
}

#[test]
fn root_api_takes_sockets_that_were_passed() {
    use std::io::{Read as _, Write as _};
    let Some(server) = Server::new(&[]) else { return };
    let path = server.home.path().join("passed.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    // A shell gives the server the descriptor and its own process ID, as service managers do.
    let line = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\" 3<&0 </dev/null";
    let command = server.home.hull(&["serve", "-H", "fd://", "--idle", "1"]);
    let mut child = std::process::Command::new("sh")
        .args(["-c", line, "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(std::os::fd::OwnedFd::from(listener))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("sh");
    let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("connect");
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("OK"), "{answer}");
    assert_eq!(child.wait().expect("wait").code(), Some(0), "it ends when it is idle");
    assert!(path.exists(), "the socket is the service manager's");
    server.finish();
}
