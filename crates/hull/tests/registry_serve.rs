//! `hull registry serve`: every endpoint and status that the distribution specification names, and what it survives.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hull_oci::Digest;
use hull_oci::digest::{Algorithm, Hasher};
use hull_testkit::{Value, finish, finish_within, json, tier};
use tempfile::TempDir;

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory")
}

fn hull(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
    command.arg("--root").arg(home.join("data")).arg("--state").arg(home.join("run"));
    command.args(words).current_dir(home).stdin(Stdio::null()).env("HOME", home).env("DOCKER_CONFIG", home);
    command
}

/// A running server; killed with SIGKILL when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts a status.
    #[track_caller]
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, String::from_utf8_lossy(&self.body));
        self
    }

    /// Asserts a status and the code of the error.
    #[track_caller]
    fn fails(self, status: u16, code: &str) -> Self {
        let answer = self.is(status);
        assert_eq!(answer.json()["errors"][0]["code"], code, "{}", String::from_utf8_lossy(&answer.body));
        answer
    }
}

/// Reads an answer's head and body.
fn read_answer(stream: TcpStream, method: &str) -> std::io::Result<Answer> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if method != "HEAD" && status != 204 && status != 304 {
        let length = answer.header("content-length").parse().map_err(std::io::Error::other)?;
        answer.body = vec![0; length];
        reader.read_exact(&mut answer.body)?;
    }
    Ok(answer)
}

impl Server {
    fn start(home: &Path, words: &[&str]) -> Self {
        let mut all = vec!["registry", "serve", "--listen", "127.0.0.1:0"];
        all.extend(words);
        let log = std::fs::File::options().append(true).create(true).open(home.join("log")).expect("log");
        let mut child = hull(home, &all).stdout(Stdio::piped()).stderr(log).spawn().expect("hull starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("line");
        let port = line.trim().rsplit(':').next().and_then(|text| text.parse().ok());
        let port = port.unwrap_or_else(|| panic!("{line:?}: {:?}", std::fs::read_to_string(home.join("log"))));
        Self { child, port }
    }

    fn directory(home: &Path, words: &[&str]) -> Self {
        let mut all = vec!["--storage", "registry"];
        all.extend(words);
        Self::start(home, &all)
    }

    fn try_send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("connection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        read_answer(stream, method)
    }

    #[track_caller]
    fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, target, headers, body).unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    #[track_caller]
    fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], b"")
    }

    #[track_caller]
    fn begin(&self, name: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"").is(202);
        answer.header("location").to_owned()
    }

    #[track_caller]
    fn blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.send("POST", &format!("/v2/{name}/blobs/uploads/?digest={digest}"), &[], bytes).is(201);
        digest
    }

    #[track_caller]
    fn put(&self, name: &str, reference: &str, manifest: &Value) -> Digest {
        let bytes = manifest.to_string();
        let kind = manifest["mediaType"].as_str().expect("mediaType");
        let target = format!("/v2/{name}/manifests/{reference}");
        self.send("PUT", &target, &[("content-type", kind)], bytes.as_bytes()).is(201);
        Digest::of(bytes.as_bytes())
    }

    /// A manifest whose blobs are there.
    fn manifest(&self, name: &str, text: &str) -> Value {
        let (config, layer) = (format!("{{\"of\":\"{text}\"}}"), format!("layer of {text}"));
        self.blob(name, config.as_bytes());
        self.blob(name, layer.as_bytes());
        manifest(&config, &layer)
    }
}

fn manifest(config: &str, layer: &str) -> Value {
    let descriptor = |kind: &str, text: &str| json!({"mediaType": kind, "digest": Digest::of(text.as_bytes()).to_string(), "size": text.len()});
    json!({
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [descriptor(LAYER, layer)],
    })
}

fn sha512(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(bytes);
    hasher.finish()
}

#[test]
fn base_and_unknown_endpoints() {
    let home = directory();
    let server = Server::directory(home.path(), &[]);
    let base = server.get("/v2/").is(200);
    assert_eq!(base.header("docker-distribution-api-version"), "registry/2.0");
    server.send("HEAD", "/v2/", &[], b"").is(200);
    server.get("/v1/").fails(404, "NAME_UNKNOWN");
    server.get("/v2/a/tags/list").fails(404, "NAME_UNKNOWN");
    server.get("/v2/a/manifests/v1").fails(404, "NAME_UNKNOWN");
    let none = server.send("POST", "/v2/a/manifests/v1", &[], b"").fails(405, "UNSUPPORTED");
    assert_eq!(none.header("allow"), "GET, HEAD, PUT, DELETE");
    server.send("PATCH", "/v2/", &[], b"").fails(405, "UNSUPPORTED");
}

#[test]
fn hostile_names_digests_and_ranges() {
    let home = directory();
    let server = Server::directory(home.path(), &[]);
    let long = "a".repeat(300);
    let hex = "a".repeat(64);
    for name in ["A", "a//b", "../x", "a/../../x", "a/%2e%2e/x", "_blobs", "a/_tags", ".x", "a%00b", "a%2f..", &long] {
        server.get(&format!("/v2/{name}/tags/list")).fails(400, "NAME_INVALID");
        server.send("POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"").fails(400, "NAME_INVALID");
    }
    for digest in
        ["sha256:zz", "sha256:", "md5:00", &format!("sha256:{hex}0"), &format!("sha512:{hex}"), "sha256:..%2f"]
    {
        let answer = server.get(&format!("/v2/a/blobs/{digest}"));
        assert!([400, 404].contains(&answer.status), "{digest}: {answer:?}");
    }
    server.get("/v2/a/blobs/sha256:zz").fails(400, "DIGEST_INVALID");
    server.get(&format!("/v2/a/blobs/sha256:{hex}")).fails(404, "BLOB_UNKNOWN");
    server.get("/v2/a/manifests/.hidden").fails(400, "MANIFEST_INVALID");
    server.get("/v2/a/tags/list?n=x").is(404);
    server.get(&format!("/v2/a/blobs/uploads/{}", "0".repeat(32))).fails(404, "BLOB_UPLOAD_UNKNOWN");
    server.get("/v2/a/blobs/uploads/..").fails(404, "BLOB_UPLOAD_UNKNOWN");
    let location = server.begin("a");
    for range in ["x", "5-1", "-1", "0-99999999999999999999", "a-b"] {
        server.send("PATCH", &location, &[("content-range", range)], b"12").fails(400, "BLOB_UPLOAD_INVALID");
    }
    // Another repository's upload is not there.
    server.get(&location.replace("/v2/a/", "/v2/b/")).fails(404, "BLOB_UPLOAD_UNKNOWN");
    server.get(&location).is(204);
}

#[test]
fn blobs_are_read_by_part_and_deleted() {
    let home = directory();
    let server = Server::directory(home.path(), &[]);
    let content: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    let location = server.begin("team/app");
    let digest = Digest::of(&content);
    let put = server.send("PUT", &format!("{location}?digest={digest}"), &[], &content).is(201);
    let target = format!("/v2/team/app/blobs/{digest}");
    assert_eq!((put.header("location"), put.header("docker-content-digest")), (&*target, &*digest.to_string()));
    let head = server.send("HEAD", &target, &[], b"").is(200);
    assert_eq!(head.header("content-length"), content.len().to_string());
    assert_eq!(head.header("accept-ranges"), "bytes");
    let get = server.get(&target).is(200);
    assert_eq!(get.header("docker-content-digest"), digest.to_string());
    assert!(get.body == content);
    let part = server.send("GET", &target, &[("range", "bytes=300000-599999")], b"").is(206);
    assert_eq!(part.header("content-range"), format!("bytes 300000-599999/{}", content.len()));
    assert!(part.body == content[300_000..600_000]);
    let last = server.send("GET", &target, &[("range", "bytes=-10")], b"").is(206);
    assert_eq!(last.body, content[content.len() - 10..]);
    let beyond = server.send("GET", &target, &[("range", "bytes=99999999-")], b"").is(416);
    assert_eq!(beyond.header("content-range"), format!("bytes */{}", content.len()));
    let tag = format!("\"{digest}\"");
    server.send("GET", &target, &[("if-none-match", &tag)], b"").is(304);
    server.send("DELETE", &target, &[], b"").is(202);
    server.get(&target).fails(404, "BLOB_UNKNOWN");
    server.send("DELETE", &target, &[], b"").fails(404, "BLOB_UNKNOWN");
    // The empty blob is one.
    let empty = server.blob("a", b"");
    assert_eq!(server.get(&format!("/v2/a/blobs/{empty}")).is(200).body, b"");
}

#[test]
fn uploads_whole_in_chunks_and_wrong() {
    let home = directory();
    let server = Server::directory(home.path(), &[]);
    let other = Digest::of(b"other");
    server.send("POST", &format!("/v2/a/blobs/uploads/?digest={other}"), &[], b"this").fails(400, "DIGEST_INVALID");
    server.send("POST", "/v2/a/blobs/uploads/?digest=sha256:1", &[], b"this").fails(400, "DIGEST_INVALID");
    server.send("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", &[], b"").fails(400, "DIGEST_INVALID");

    let location = server.begin("a");
    let first = server.send("PATCH", &location, &[("content-range", "0-3")], b"abcd").is(202);
    assert_eq!((first.header("range"), first.header("location")), ("0-3", &*location));
    let wrong = server.send("PATCH", &location, &[("content-range", "6-7")], b"xy").fails(416, "BLOB_UPLOAD_INVALID");
    assert_eq!((wrong.header("range"), wrong.header("location")), ("0-3", &*location));
    server.send("PATCH", &location, &[("content-range", "0-3")], b"abcd").is(416);
    server.send("PATCH", &location, &[("content-range", "4-9")], b"xy").fails(400, "SIZE_INVALID");
    assert_eq!(server.get(&location).is(204).header("range"), "0-3");
    server.send("PATCH", &location, &[("content-range", "4-5")], b"ef").is(202);
    server.send("PUT", &location, &[], b"").fails(400, "DIGEST_INVALID");
    let digest = Digest::of(b"abcdefgh");
    let target = format!("{location}?digest={digest}");
    server.send("PUT", &target, &[("content-range", "9-10")], b"gh").is(416);
    server.send("PUT", &target, &[("content-range", "6-7")], b"gh").is(201);
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).is(200).body, b"abcdefgh");
    server.get(&location).fails(404, "BLOB_UPLOAD_UNKNOWN");
    server.send("PUT", &target, &[], b"").fails(404, "BLOB_UPLOAD_UNKNOWN");

    // A wrong digest ends the upload; so does its deletion.
    let location = server.begin("a");
    server.send("PATCH", &location, &[], b"streamed").is(202);
    server.send("PUT", &format!("{location}?digest={other}"), &[], b"").fails(400, "DIGEST_INVALID");
    server.get(&location).is(404);
    let location = server.begin("a");
    server.send("DELETE", &location, &[], b"").is(204);
    server.send("DELETE", &location, &[], b"").fails(404, "BLOB_UPLOAD_UNKNOWN");

    // SHA-512, announced and not.
    let digest = sha512(b"five hundred");
    for query in ["?digest-algorithm=sha512", ""] {
        let begun = server.send("POST", &format!("/v2/a/blobs/uploads/{query}"), &[], b"").is(202);
        let target = format!("{}?digest={digest}", begun.header("location"));
        server.send("PUT", &target, &[], b"five hundred").is(201);
    }
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).is(200).body, b"five hundred");
    assert_eq!(std::fs::read_dir(home.path().join("registry/uploads")).expect("read").count(), 0);
}

#[test]
fn a_broken_upload_goes_on_where_it_broke() {
    let home = directory();
    let server = Server::directory(home.path(), &[]);
    let location = server.begin("a");
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("connect");
    let head = format!("PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(&[7; 600_000]).expect("sent");
    drop(stream);
    // The server may not have read all of it yet.
    let begun = Instant::now();
    let length = loop {
        let answer = server.get(&location).is(204);
        let last: usize = answer.header("range").split('-').nth(1).expect("range").parse().expect("number");
        if last + 1 == 600_000 || begun.elapsed() > Duration::from_secs(20) {
            break last + 1;
        }
    };
    assert!(length >= 256 << 10 && length <= 600_000, "{length}");
    let rest = vec![7; 1_000_000 - length];
    let range = format!("{length}-999999");
    let digest = Digest::of(&vec![7; 1_000_000]);
    server.send("PUT", &format!("{location}?digest={digest}"), &[("content-range", &range)], &rest).is(201);
}

#[test]
fn mounts_from_a_repository_or_any() {
    let home = directory();
    let server = Server::directory(home.path(), &[]);
    let digest = server.blob("a", b"shared");
    let mount = |name: &str, query: &str| {
        server.send("POST", &format!("/v2/{name}/blobs/uploads/?mount={digest}{query}"), &[], b"")
    };
    let mounted = mount("b", "&from=a").is(201);
    assert_eq!(mounted.header("location"), format!("/v2/b/blobs/{digest}"));
    assert_eq!(server.get(&format!("/v2/b/blobs/{digest}")).is(200).body, b"shared");
    mount("c", "").is(201);
    let begun = mount("d", "&from=nowhere").is(202);
    assert!(begun.header("location").starts_with("/v2/d/blobs/uploads/"));
    server.get(&format!("/v2/d/blobs/{digest}")).is(404);
    mount("e", "&from=../a").fails(400, "NAME_INVALID");
    server.send("POST", "/v2/e/blobs/uploads/?mount=sha256:1&from=a", &[], b"").fails(400, "DIGEST_INVALID");
    // One repository's deletion is not another's.
    server.send("DELETE", &format!("/v2/a/blobs/{digest}"), &[], b"").is(202);
    server.get(&format!("/v2/b/blobs/{digest}")).is(200);
}

#[test]
fn manifests_come_back_as_they_were() {
    let home = directory();
    let server = Server::directory(home.path(), &[]);
    let value = server.manifest("a", "one");
    let bytes = format!("{value} \n");
    let digest = Digest::of(bytes.as_bytes());
    let kind = [("content-type", OCI)];
    let put = server.send("PUT", "/v2/a/manifests/v1", &kind, bytes.as_bytes()).is(201);
    assert_eq!(put.header("docker-content-digest"), digest.to_string());
    assert_eq!(put.header("location"), format!("/v2/a/manifests/{digest}"));
    for reference in ["v1", &digest.to_string()] {
        let get = server.get(&format!("/v2/a/manifests/{reference}")).is(200);
        assert_eq!((get.header("content-type"), &*get.body), (OCI, bytes.as_bytes()));
        let head = server.send("HEAD", &format!("/v2/a/manifests/{reference}"), &[], b"").is(200);
        assert_eq!(head.header("content-length"), bytes.len().to_string());
        assert_eq!(head.header("docker-content-digest"), digest.to_string());
    }
    server.get("/v2/a/manifests/v2").fails(404, "MANIFEST_UNKNOWN");

    // By digest, with more tags; by SHA-512.
    let tagged = server.send("PUT", &format!("/v2/a/manifests/{digest}?tag=x&tag=y"), &kind, bytes.as_bytes()).is(201);
    assert_eq!(tagged.headers.iter().filter(|(name, _)| name == "oci-tag").count(), 2);
    server.get("/v2/a/manifests/y").is(200);
    let long = sha512(bytes.as_bytes());
    let put = server.send("PUT", &format!("/v2/a/manifests/{long}"), &kind, bytes.as_bytes()).is(201);
    assert_eq!(put.header("docker-content-digest"), long.to_string());
    assert_eq!(server.get(&format!("/v2/a/manifests/{long}")).is(200).body, bytes.as_bytes());

    // Docker's form, and an index; neither needs a Content-Type.
    let mut docker = value.clone();
    docker["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
    let member = server.put("a", "docker", &docker);
    let get = server.get("/v2/a/manifests/docker").is(200);
    assert_eq!(get.header("content-type"), "application/vnd.docker.distribution.manifest.v2+json");
    let index = json!({"schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{"mediaType": OCI, "digest": member.to_string(), "size": 5}]});
    server.send("PUT", "/v2/a/manifests/index", &[], index.to_string().as_bytes()).is(201);
    assert_eq!(server.get("/v2/a/manifests/index").is(200).header("content-type"), INDEX);
}

#[test]
fn wrong_manifests_are_refused() {
    let home = directory();
    let server = Server::directory(home.path(), &[]);
    let value = server.manifest("a", "one");
    let kind = [("content-type", OCI)];
    let put = |reference: &str, bytes: &[u8]| server.send("PUT", &format!("/v2/a/manifests/{reference}"), &kind, bytes);
    put(&Digest::of(b"other").to_string(), value.to_string().as_bytes()).fails(400, "DIGEST_INVALID");
    put("v1", b"").fails(400, "MANIFEST_INVALID");
    put("v1", b"{").fails(400, "MANIFEST_INVALID");
    put("v1", b"{\"schemaVersion\":1,\"fsLayers\":[]}").fails(400, "MANIFEST_INVALID");
    put("v1?tag=../x", value.to_string().as_bytes()).fails(400, "MANIFEST_INVALID");
    put("v1", manifest("{}", "not there").to_string().as_bytes()).fails(404, "MANIFEST_BLOB_UNKNOWN");
    let other = [("content-type", "application/vnd.docker.distribution.manifest.v2+json")];
    server.send("PUT", "/v2/a/manifests/v1", &other, value.to_string().as_bytes()).fails(400, "MANIFEST_INVALID");
    // At most 4 MiB, whether the length is announced or not.
    let mut large = value.clone();
    large["annotations"] = json!({"x": "y".repeat(4 << 20)});
    put("v1", large.to_string().as_bytes()).fails(413, "MANIFEST_INVALID");
    large["annotations"] = json!({"x": "y".repeat((4 << 20) - 1000)});
    put("v1", large.to_string().as_bytes()).is(201);
    // Layers that may not be distributed need not be there.
    let mut foreign = manifest("{\"of\":\"one\"}", "elsewhere");
    foreign["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.nondistributable.v1.tar");
    put("v2", foreign.to_string().as_bytes()).is(201);
}

#[test]
fn tags_and_manifests_are_deleted() {
    let home = directory();
    let server = Server::directory(home.path(), &[]);
    let value = server.manifest("a", "one");
    let digest = server.put("a", "v1", &value);
    server.put("a", "v2", &value);
    server.send("DELETE", "/v2/a/manifests/v1", &[], b"").is(202);
    server.get("/v2/a/manifests/v1").fails(404, "MANIFEST_UNKNOWN");
    server.send("DELETE", "/v2/a/manifests/v1", &[], b"").fails(404, "MANIFEST_UNKNOWN");
    server.get(&format!("/v2/a/manifests/{digest}")).is(200);
    server.send("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").is(202);
    server.get("/v2/a/manifests/v2").fails(404, "MANIFEST_UNKNOWN");
    assert_eq!(server.get("/v2/a/tags/list").is(200).json(), json!({"name": "a", "tags": []}));
    server.send("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").fails(404, "MANIFEST_UNKNOWN");
}

#[test]
fn lists_come_in_pages() {
    let home = directory();
    let server = Server::directory(home.path(), &[]);
    for name in ["team/a", "b"] {
        let value = server.manifest(name, "one");
        for tag in ["v1", "v10", "v2", "latest"] {
            server.put(name, tag, &value);
        }
    }
    let all = server.get("/v2/b/tags/list").is(200);
    assert_eq!(all.json(), json!({"name": "b", "tags": ["latest", "v1", "v10", "v2"]}));
    assert_eq!(all.header("link"), "");
    let page = server.get("/v2/b/tags/list?n=3").is(200);
    assert_eq!(page.json()["tags"], json!(["latest", "v1", "v10"]));
    assert_eq!(page.header("link"), "</v2/b/tags/list?n=3&last=v10>; rel=\"next\"");
    let page = server.get("/v2/b/tags/list?n=3&last=v10").is(200);
    assert_eq!((page.json()["tags"].clone(), page.header("link")), (json!(["v2"]), ""));
    assert_eq!(server.get("/v2/b/tags/list?n=0").is(200).json()["tags"], json!([]));
    server.get("/v2/b/tags/list?n=-1").is(400);
    let page = server.get("/v2/_catalog?n=1").is(200);
    assert_eq!(page.json(), json!({"repositories": ["b"]}));
    assert_eq!(page.header("link"), "</v2/_catalog?n=1&last=b>; rel=\"next\"");
    assert_eq!(server.get("/v2/_catalog?n=1&last=b").is(200).json(), json!({"repositories": ["team/a"]}));
}

#[test]
fn referrers_are_listed_filtered_and_forgotten() {
    let home = directory();
    let server = Server::directory(home.path(), &[]);
    // The subject need not be there.
    let subject = Digest::of(b"some subject");
    let list = format!("/v2/a/referrers/{subject}");
    let none = server.get(&list).is(200);
    assert_eq!((none.header("content-type"), none.json()["manifests"].clone()), (INDEX, json!([])));
    let mut digests = Vec::new();
    for number in 0..5 {
        let mut value = server.manifest("a", &number.to_string());
        value["subject"] = json!({"mediaType": OCI, "digest": subject.to_string(), "size": 12});
        value["artifactType"] = json!(if number < 3 { "text/a" } else { "text/b+c" });
        value["annotations"] = json!({"number": number.to_string()});
        let bytes = value.to_string();
        let digest = Digest::of(bytes.as_bytes());
        let target = format!("/v2/a/manifests/{digest}");
        let put = server.send("PUT", &target, &[("content-type", OCI)], bytes.as_bytes()).is(201);
        assert_eq!(put.header("oci-subject"), subject.to_string());
        digests.push((digest, bytes.len()));
    }
    let all = server.get(&list).is(200).json();
    assert_eq!((all["mediaType"].clone(), all["manifests"].as_array().map(Vec::len)), (json!(INDEX), Some(5)));
    let entry = all["manifests"].as_array().and_then(|all| all.iter().find(|one| one["annotations"]["number"] == "4"));
    let expected = json!({"mediaType": OCI, "digest": digests[4].0.to_string(), "size": digests[4].1,
        "artifactType": "text/b+c", "annotations": {"number": "4"}});
    assert_eq!(entry, Some(&expected));
    let filtered = server.get(&format!("{list}?artifactType=text/b%2Bc")).is(200);
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    assert_eq!(filtered.json()["manifests"].as_array().map(Vec::len), Some(2));
    // Pages keep the filter.
    let (mut seen, mut next) = (0, format!("{list}?n=2&artifactType=text/a"));
    while !next.is_empty() {
        let page = server.get(&next).is(200);
        seen += page.json()["manifests"].as_array().map_or(0, Vec::len);
        let link = page.header("link");
        next = link.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
    }
    assert_eq!(seen, 3);
    server.send("DELETE", &format!("/v2/a/manifests/{}", digests[4].0), &[], b"").is(202);
    assert_eq!(server.get(&list).json()["manifests"].as_array().map(Vec::len), Some(4));
}

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

/// 200 clients at once, each pushing an image of shared and own layers and pulling it again.
#[test]
fn parallel_pushes_and_pulls_lose_nothing() {
    let home = directory();
    let server = Server::directory(home.path(), &["--grace", "120"]);
    std::thread::scope(|scope| {
        for number in 0..200 {
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
    for number in 0..200 {
        let name = format!("team{}/app{}", number % 7, number % 40);
        let value = server.get(&format!("/v2/{name}/manifests/v{number}")).is(200).json();
        for blob in [&value["config"], &value["layers"][0]] {
            let target = format!("/v2/{name}/blobs/{}", blob["digest"].as_str().expect("digest"));
            server.send("HEAD", &target, &[], b"").is(200);
        }
    }
    let count = |path: PathBuf| std::fs::read_dir(path).expect("read").count();
    assert_eq!(count(home.path().join("registry/blobs/sha256")), 220, "shared layers are stored once");
    assert_eq!(count(home.path().join("registry/uploads")), 0);
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
