//! A server of a test, and a client that says exactly what it is told to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_oci::Digest;
use hull_oci::digest::{Algorithm, Hasher};
use hull_testkit::{Value, json};
use tempfile::TempDir;

pub(crate) const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// anna:secret, of `htpasswd -B`.
pub(crate) const USERS: &str = "anna:$2y$04$a.3/coSeBTsvuod.4nFOGur0.ktTd3N3stz2foS42YtVoDrypjyUi\n";

pub(crate) fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory")
}

pub(crate) fn hull(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
    command.arg("--root").arg(home.join("data")).arg("--state").arg(home.join("run"));
    command.args(words).current_dir(home).stdin(Stdio::null()).env("HOME", home).env("DOCKER_CONFIG", home);
    command
}

/// A running server; killed with SIGKILL when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts a status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, String::from_utf8_lossy(&self.body));
        self
    }

    /// Asserts a status and the code of the error.
    #[track_caller]
    pub(crate) fn fails(self, status: u16, code: &str) -> Self {
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
    pub(crate) fn start(home: &Path, words: &[&str]) -> Self {
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

    pub(crate) fn directory(home: &Path, words: &[&str]) -> Self {
        let mut all = vec!["--storage", "registry"];
        all.extend(words);
        Self::start(home, &all)
    }

    pub(crate) fn try_send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
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
    pub(crate) fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, target, headers, body).unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], b"")
    }

    #[track_caller]
    pub(crate) fn begin(&self, name: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"").is(202);
        answer.header("location").to_owned()
    }

    #[track_caller]
    pub(crate) fn blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.send("POST", &format!("/v2/{name}/blobs/uploads/?digest={digest}"), &[], bytes).is(201);
        digest
    }

    #[track_caller]
    pub(crate) fn put(&self, name: &str, reference: &str, manifest: &Value) -> Digest {
        let bytes = manifest.to_string();
        let kind = manifest["mediaType"].as_str().expect("mediaType");
        let target = format!("/v2/{name}/manifests/{reference}");
        self.send("PUT", &target, &[("content-type", kind)], bytes.as_bytes()).is(201);
        Digest::of(bytes.as_bytes())
    }

    /// A manifest whose blobs are there.
    pub(crate) fn manifest(&self, name: &str, text: &str) -> Value {
        let (config, layer) = (format!("{{\"of\":\"{text}\"}}"), format!("layer of {text}"));
        self.blob(name, config.as_bytes());
        self.blob(name, layer.as_bytes());
        manifest(&config, &layer)
    }
}

pub(crate) fn manifest(config: &str, layer: &str) -> Value {
    let descriptor = |kind: &str, text: &str| json!({"mediaType": kind, "digest": Digest::of(text.as_bytes()).to_string(), "size": text.len()});
    json!({
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [descriptor(LAYER, layer)],
    })
}

pub(crate) fn sha512(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(bytes);
    hasher.finish()
}
